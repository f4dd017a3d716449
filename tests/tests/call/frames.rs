//! Frames that say who made them: each is unlike any other, and whoever gets one can tell, byte by
//! byte, whether it is as it was made.

use std::collections::{BTreeMap, BTreeSet};

use str0m::media::Frequency;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Audio,
    Video,
}

/// Bytes in front of mark and number. Every video frame is a VP8 key frame, so that a decoder could
/// start anywhere (RFC 6386 section 9.1).
const VIDEO_HEAD: [u8; 10] = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00];
const AUDIO_HEAD: [u8; 4] = [0xfc, 1, 2, 3];

impl Kind {
    fn head(self) -> &'static [u8] {
        match self {
            Self::Audio => &AUDIO_HEAD,
            Self::Video => &VIDEO_HEAD,
        }
    }

    pub fn frequency(self) -> Frequency {
        match self {
            Self::Audio => Frequency::FORTY_EIGHT_KHZ,
            Self::Video => Frequency::NINETY_KHZ,
        }
    }
}

/// The frame of this number of the sender with this mark; `filling` bytes make it one of several packets.
pub fn frame(kind: Kind, mark: u8, number: u64, filling: usize) -> Vec<u8> {
    let mut frame = kind.head().to_vec();
    frame.push(mark);
    frame.extend(number.to_be_bytes());
    frame.extend((0..filling).map(|i| (number as usize * 31 + usize::from(mark) * 7 + i) as u8));
    frame
}

/// What arrived.
#[derive(Default, Clone)]
pub struct Seen {
    /// Numbers of the frames, by kind and the sender's mark.
    frames: BTreeMap<(Kind, u8), BTreeSet<u64>>,
    /// What should not have arrived.
    pub faults: Vec<String>,
}

impl Seen {
    /// Takes a frame and holds it against what its sender made.
    pub fn take(&mut self, kind: Kind, data: &[u8]) {
        let head = kind.head().len();
        let (mark, number) = match (data.get(head), data.get(head + 1..head + 9)) {
            (Some(mark), Some(number)) => (*mark, number.try_into().map_or(0, u64::from_be_bytes)),
            _ => return self.faults.push(format!("{} bytes of {kind:?} are no frame", data.len())),
        };
        if frame(kind, mark, number, data.len() - head - 9) != data {
            self.faults.push(format!("{kind:?} {number} of {mark} is not as it was made"));
        } else if !self.frames.entry((kind, mark)).or_default().insert(number) {
            self.faults.push(format!("{kind:?} {number} of {mark} comes twice"));
        }
    }

    /// Of how many senders at least so many frames of each kind came.
    pub fn senders(&self, count: usize) -> usize {
        let marks: BTreeSet<u8> = self.frames.keys().map(|(_, mark)| *mark).collect();
        let has = |kind, mark| self.frames.get(&(kind, mark)).is_some_and(|f| f.len() >= count);
        marks.into_iter().filter(|m| has(Kind::Audio, *m) && has(Kind::Video, *m)).count()
    }

    /// Checks that these senders were heard and seen, no others, and every byte was as it was made.
    pub fn assert_from(&self, marks: impl IntoIterator<Item = u8>) {
        assert!(self.faults.is_empty(), "{:?}", self.faults);
        let expected: BTreeSet<(Kind, u8)> =
            marks.into_iter().flat_map(|mark| [(Kind::Audio, mark), (Kind::Video, mark)]).collect();
        assert_eq!(self.frames.keys().copied().collect::<BTreeSet<_>>(), expected);
    }
}
