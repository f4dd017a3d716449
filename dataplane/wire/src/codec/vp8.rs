//! VP8 payloads (RFC 7741).

use super::{Peek, Size};
use crate::bytes::{array, put};

/// The payload descriptor in front of every VP8 payload (section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// N: no other frame refers to this one.
    pub non_reference: bool,
    /// S: the packet begins a partition.
    pub start_of_partition: bool,
    /// PID: number of the partition, 0 to 7 (section 4.2 keeps three bits for it).
    pub partition: u8,
    /// Picture ID, if there is one.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX: counts the frames of temporal layer 0.
    pub tl0_pic_idx: Option<u8>,
    /// TID: temporal layer, 0 to 3.
    pub temporal: Option<u8>,
    /// Y: the frame refers to frames of layer 0 only.
    pub layer_sync: bool,
    /// KEYIDX: counts key frames, 0 to 31.
    pub key_idx: Option<u8>,
    /// Bytes of the descriptor: where the VP8 payload header begins.
    pub len: usize,
}

/// A picture ID with its width on the wire, which stays what it is when the value is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureId {
    /// Seven bits.
    Short(u8),
    /// Fifteen bits.
    Long(u16),
}

impl PictureId {
    /// The number.
    #[must_use]
    pub const fn value(self) -> u16 {
        match self {
            Self::Short(value) => value as u16,
            Self::Long(value) => value,
        }
    }

    /// The bits of the number that count.
    #[must_use]
    pub const fn mask(self) -> u16 {
        match self {
            Self::Short(_) => 0x7f,
            Self::Long(_) => 0x7fff,
        }
    }

    pub(super) fn read(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let first = *bytes.get(*at)?;
        *at += 1;
        if first & 0x80 == 0 {
            return Some(Self::Short(first));
        }
        let second = *bytes.get(*at)?;
        *at += 1;
        Some(Self::Long(u16::from_be_bytes([first & 0x7f, second])))
    }

    pub(super) fn rewrite(self, bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
        match self {
            Self::Short(_) => put(bytes, at, &[(value & 0x7f) as u8]),
            Self::Long(_) => put(bytes, at, &(value | 0x8000).to_be_bytes()),
        }
    }
}

impl Descriptor {
    /// Reads the descriptor; `None` when it goes past the end.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut descriptor = Self {
            non_reference: first & 0x20 != 0,
            start_of_partition: first & 0x10 != 0,
            partition: first & 0x07,
            len: 1,
            ..Self::default()
        };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let extended = *payload.get(1)?;
        let mut at = 2;
        if extended & 0x80 != 0 {
            descriptor.picture_id = Some(PictureId::read(payload, &mut at)?);
        }
        if extended & 0x40 != 0 {
            descriptor.tl0_pic_idx = Some(*payload.get(at)?);
            at += 1;
        }
        if extended & 0x30 != 0 {
            let byte = *payload.get(at)?;
            at += 1;
            if extended & 0x20 != 0 {
                descriptor.temporal = Some(byte >> 6);
                descriptor.layer_sync = byte & 0x20 != 0;
            }
            if extended & 0x10 != 0 {
                descriptor.key_idx = Some(byte & 0x1f);
            }
        }
        descriptor.len = at;
        Some(descriptor)
    }

    /// Whether the packet begins a frame.
    #[must_use]
    pub const fn starts_frame(&self) -> bool {
        self.start_of_partition && self.partition == 0
    }

    /// Overwrites picture ID, TL0PICIDX and KEYIDX where the payload has them, keeping their width: the low bits of the
    /// numbers count. `payload` is the one that this descriptor was read from; `None` when it is shorter than that.
    pub fn rewrite(
        &self,
        payload: &mut [u8],
        picture_id: u16,
        tl0_pic_idx: u8,
        key_idx: u8,
    ) -> Option<()> {
        payload.get(..self.len)?;
        let mut at = 2;
        if let Some(width) = self.picture_id {
            width.rewrite(payload, at, picture_id)?;
            at += if matches!(width, PictureId::Long(_)) { 2 } else { 1 };
        }
        if self.tl0_pic_idx.is_some() {
            put(payload, at, &[tl0_pic_idx])?;
            at += 1;
        }
        if self.key_idx.is_some() {
            let layers = *payload.get(at)? & 0xe0;
            put(payload, at, &[layers | key_idx & 0x1f])?;
        }
        Some(())
    }
}

/// Whether the payload begins a key frame: P of the payload header is 0 (section 4.3).
#[must_use]
pub fn is_key_frame(descriptor: &Descriptor, payload: &[u8]) -> bool {
    descriptor.starts_frame() && payload.get(descriptor.len).is_some_and(|first| first & 0x01 == 0)
}

/// The size of the picture, which only the first packet of a key frame says (RFC 6386 section 9.1).
#[must_use]
pub fn key_frame_size(descriptor: &Descriptor, payload: &[u8]) -> Option<Size> {
    if !is_key_frame(descriptor, payload) {
        return None;
    }
    let [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = array::<10>(payload, descriptor.len)? else {
        return None;
    };
    // The two upper bits ask the player to scale.
    let side = |low, high| u16::from_le_bytes([low, high]) & 0x3fff;
    Some(Size { width: side(w0, w1), height: side(h0, h1) })
}

/// What forwarding needs of one packet; `marker` is that of its RTP header.
#[must_use]
pub fn peek(payload: &[u8], marker: bool) -> Option<Peek> {
    let descriptor = Descriptor::parse(payload)?;
    // A packet of a descriptor and nothing else carries no frame.
    payload.get(descriptor.len)?;
    let temporal = descriptor.temporal.unwrap_or(0);
    let key_frame = is_key_frame(&descriptor, payload);
    Some(Peek {
        key_frame,
        start_of_frame: descriptor.starts_frame(),
        end_of_frame: marker,
        temporal,
        spatial: 0,
        switch_up: key_frame || temporal == 0 || descriptor.layer_sync,
        discardable: descriptor.non_reference,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_descriptor() {
        // RFC 7741 section 4.5.1's case: no extension, key frame.
        let payload = [0x10, 0x50, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x41];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.len, 1);
        assert!(descriptor.starts_frame());
        assert!(is_key_frame(&descriptor, &payload));
        assert_eq!(key_frame_size(&descriptor, &payload), Some(Size { width: 640, height: 480 }));
    }

    #[test]
    fn the_longest_descriptor() {
        let payload = [0xb0, 0xf0, 0x92, 0x34, 0x56, 0b0110_0111, 0x01];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!(
            descriptor,
            Descriptor {
                non_reference: true,
                start_of_partition: true,
                partition: 0,
                picture_id: Some(PictureId::Long(0x1234)),
                tl0_pic_idx: Some(0x56),
                temporal: Some(1),
                layer_sync: true,
                key_idx: Some(7),
                len: 6,
            }
        );
        let peek = peek(&payload, true).unwrap();
        assert!(!peek.key_frame && peek.start_of_frame && peek.end_of_frame);
        assert!(peek.discardable && peek.switch_up);
        assert_eq!(peek.temporal, 1);
        for cut in 0..6 {
            assert_eq!(Descriptor::parse(&payload[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn rewriting_keeps_width_and_neighbours() {
        for (mut payload, want) in [
            (
                vec![0x90, 0xe0, 0x92, 0x34, 0x56, 0x40, 0x01],
                vec![0x90, 0xe0, 0xff, 0xfe, 0x05, 0x40, 0x01],
            ),
            (vec![0x90, 0xe0, 0x12, 0x56, 0x40, 0x01], vec![0x90, 0xe0, 0x7e, 0x05, 0x40, 0x01]),
            (vec![0x90, 0x40, 0x56, 0x01], vec![0x90, 0x40, 0x05, 0x01]),
            (vec![0x90, 0x30, 0x7f, 0x01], vec![0x90, 0x30, 0x69, 0x01]),
            (vec![0x10, 0x01], vec![0x10, 0x01]),
        ] {
            let descriptor = Descriptor::parse(&payload).unwrap();
            descriptor.rewrite(&mut payload, 0xfffe, 5, 9).unwrap();
            assert_eq!(payload, want);
        }
    }

    #[test]
    fn a_later_packet_of_a_key_frame_is_no_start() {
        let peek = peek(&[0x00, 0x00], true).unwrap();
        assert!(!peek.key_frame && !peek.start_of_frame);
    }
}
