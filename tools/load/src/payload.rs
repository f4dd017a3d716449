//! What a packet carries: the header of its codec, then who it is, then a pattern that only it has.

use strait_wire::codec::vp8::{Descriptor, is_key_frame};

use crate::limits::PAYLOAD_MAX;
use crate::random::{Random, mix};
use crate::signalling::MediaKind;

/// "STLD": a packet of ours.
const MAGIC: u32 = 0x5354_4c44;
const IDENTITY_BYTES: usize = 40;
/// X; I, L and T present; a picture id of 15 bits, TL0PICIDX, the TID byte.
const DESCRIPTOR_BYTES: usize = 6;
/// The pattern repeats after so many bytes.
const PATTERN_BYTES: usize = 64 << 10;
/// Opus: 20 ms, mono, fullband, one frame (RFC 6716 section 3.1).
const OPUS_TOC: u8 = 0x78;

/// Who a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Which encoding of which publisher.
    pub stream: u32,
    /// Counts the packets of the encoding.
    pub counter: u64,
    /// When it was written, on the host's monotonic clock.
    pub sent_ns: u64,
    /// Counts the frames of the encoding.
    pub frame: u32,
    /// As the publisher put it into the RTP header.
    pub timestamp: u32,
    /// Which packet of the frame.
    pub index: u16,
    /// Packets of the frame.
    pub count: u16,
    /// Whether the frame is a key frame.
    pub key: bool,
}

/// Codec numbers of a video frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Picture {
    pub id: u16,
    pub tl0: u8,
    pub width: u16,
    pub height: u16,
}

/// Why a payload is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// No packet of ours.
    NotOurs,
    /// Ours, but changed.
    Changed,
}

/// The bytes that fill packets: each packet takes another piece of them.
pub(crate) struct Pattern(Box<[u8]>);

impl Pattern {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(u64::from(MAGIC), 0);
        let words = (PATTERN_BYTES + PAYLOAD_MAX) / 8 + 1;
        Self((0..words).flat_map(|_| random.next().to_be_bytes()).collect())
    }

    fn piece(&self, identity: &Identity, len: usize) -> &[u8] {
        let key = mix(identity.counter ^ u64::from(identity.stream) << 40);
        let at = (key % PATTERN_BYTES as u64) as usize;
        self.0.get(at..at + len).unwrap_or_default()
    }

    /// Writes a payload that fills `out`, which is at least [`crate::limits::PAYLOAD_MIN`] long.
    pub(crate) fn write(&self, kind: MediaKind, id: &Identity, picture: Picture, out: &mut [u8]) {
        let mut head = [0; DESCRIPTOR_BYTES + 10 + IDENTITY_BYTES];
        let at = match kind {
            MediaKind::Audio => {
                head[0] = OPUS_TOC;
                1
            }
            MediaKind::Video => write_vp8(&mut head, id, picture),
        };
        let mut fields = [0; IDENTITY_BYTES - 4];
        fields[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        fields[4..8].copy_from_slice(&id.stream.to_be_bytes());
        fields[8..16].copy_from_slice(&id.counter.to_be_bytes());
        fields[16..24].copy_from_slice(&id.sent_ns.to_be_bytes());
        fields[24..28].copy_from_slice(&id.frame.to_be_bytes());
        fields[28..32].copy_from_slice(&id.timestamp.to_be_bytes());
        fields[32..34].copy_from_slice(&id.index.to_be_bytes());
        fields[34..36].copy_from_slice(&(id.count | u16::from(id.key) << 15).to_be_bytes());
        let identity_end = at + IDENTITY_BYTES;
        head[at..identity_end - 4].copy_from_slice(&fields);
        let length = out.len();
        head[identity_end - 4..identity_end].copy_from_slice(&sum(&fields, length).to_be_bytes());
        if let Some((front, rest)) = out.split_at_mut_checked(identity_end) {
            front.copy_from_slice(&head[..identity_end]);
            rest.copy_from_slice(self.piece(id, rest.len()));
        }
    }

    /// Reads a payload, and checks every byte of it but those of the codec that a relay may rewrite.
    pub(crate) fn read(&self, kind: MediaKind, payload: &[u8]) -> Result<Identity, Damage> {
        let at = match kind {
            MediaKind::Audio => 1,
            MediaKind::Video => vp8_head(payload).ok_or(Damage::NotOurs)?,
        };
        let (fields, rest) = payload
            .get(at..)
            .and_then(|rest| rest.split_first_chunk::<{ IDENTITY_BYTES - 4 }>())
            .ok_or(Damage::NotOurs)?;
        let word = |at: usize| {
            let bytes = fields.get(at..at + 4).and_then(|b| b.first_chunk());
            u32::from_be_bytes(bytes.copied().unwrap_or_default())
        };
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        if word(0) != MAGIC {
            return Err(Damage::NotOurs);
        }
        let (told, fill) = rest.split_first_chunk::<4>().ok_or(Damage::Changed)?;
        if u32::from_be_bytes(*told) != sum(fields, payload.len()) {
            return Err(Damage::Changed);
        }
        let tail = word(32);
        let identity = Identity {
            stream: word(4),
            counter: long(8),
            sent_ns: long(16),
            frame: word(24),
            timestamp: word(28),
            index: (tail >> 16) as u16,
            count: tail as u16 & 0x7fff,
            key: tail & 0x8000 != 0,
        };
        if fill != self.piece(&identity, fill.len()) {
            return Err(Damage::Changed);
        }
        let head_is_ours = match kind {
            MediaKind::Audio => payload.first() == Some(&OPUS_TOC),
            MediaKind::Video => vp8_says(payload, &identity),
        };
        if head_is_ours { Ok(identity) } else { Err(Damage::Changed) }
    }
}

fn write_vp8(out: &mut [u8], identity: &Identity, picture: Picture) -> usize {
    let start = identity.index == 0;
    let [id0, id1] = (picture.id | 0x8000).to_be_bytes();
    let first = 0x80 | if start { 0x10 } else { 0 };
    out[..DESCRIPTOR_BYTES].copy_from_slice(&[first, 0xe0, id0, id1, picture.tl0, 0x20]);
    if !start {
        return DESCRIPTOR_BYTES;
    }
    // The frame tag: not-key bit, version 0, shown; the size of the first partition is of no use here.
    out[DESCRIPTOR_BYTES..DESCRIPTOR_BYTES + 3].copy_from_slice(&[
        0x10 | u8::from(!identity.key),
        0x02,
        0x00,
    ]);
    if !identity.key {
        return DESCRIPTOR_BYTES + 3;
    }
    let [w0, w1] = picture.width.to_le_bytes();
    let [h0, h1] = picture.height.to_le_bytes();
    out[DESCRIPTOR_BYTES + 3..DESCRIPTOR_BYTES + 10]
        .copy_from_slice(&[0x9d, 0x01, 0x2a, w0, w1, h0, h1]);
    DESCRIPTOR_BYTES + 10
}

/// Bytes before the identity.
fn vp8_head(payload: &[u8]) -> Option<usize> {
    let descriptor = Descriptor::parse(payload)?;
    Some(match (descriptor.starts_frame(), is_key_frame(&descriptor, payload)) {
        (true, true) => descriptor.len + 10,
        (true, false) => descriptor.len + 3,
        (false, _) => descriptor.len,
    })
}

/// Whether the codec's header says what the identity says.
fn vp8_says(payload: &[u8], identity: &Identity) -> bool {
    Descriptor::parse(payload).is_some_and(|descriptor| {
        descriptor.starts_frame() == (identity.index == 0)
            && is_key_frame(&descriptor, payload) == (identity.index == 0 && identity.key)
    })
}

/// Covers the identity and the length; the pattern covers itself.
fn sum(fields: &[u8; IDENTITY_BYTES - 4], length: usize) -> u32 {
    let mut sum = length as u64;
    for chunk in fields.chunks_exact(4) {
        let word = u32::from_be_bytes(*chunk.first_chunk().unwrap_or(&[0; 4]));
        sum = (sum.rotate_left(7) ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (sum >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PAYLOAD_MIN;

    fn identity(index: u16, key: bool) -> Identity {
        Identity {
            stream: 7,
            counter: 0x1_2345_6789,
            sent_ns: 987_654_321_012,
            frame: 55,
            timestamp: 0xfedc_ba98,
            index,
            count: 9,
            key,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let pattern = Pattern::new();
        for kind in [MediaKind::Audio, MediaKind::Video] {
            for len in [PAYLOAD_MIN, 100, 1150, PAYLOAD_MAX] {
                for (index, key) in [(0, true), (0, false), (3, true), (8, false)] {
                    let (identity, mut out) = (identity(index, key), vec![0; len]);
                    let picture = Picture { id: 77, tl0: 3, width: 1280, height: 720 };
                    pattern.write(kind, &identity, picture, &mut out);
                    assert_eq!(pattern.read(kind, &out), Ok(identity), "{kind:?} {len}");
                }
            }
        }
    }

    #[test]
    fn every_changed_byte_is_seen_but_the_numbers_that_a_relay_rewrites() {
        let pattern = Pattern::new();
        let mut out = [0; 200];
        pattern.write(MediaKind::Video, &identity(0, true), Picture::default(), &mut out);
        // What the descriptor has, picture id, TL0PICIDX and the temporal layer; then the frame's size.
        for at in (0..out.len()).filter(|at| !(1..16).contains(at)) {
            let mut changed = out;
            changed[at] ^= 0x11;
            assert!(pattern.read(MediaKind::Video, &changed).is_err(), "byte {at}");
        }
        assert!(pattern.read(MediaKind::Video, &out[..199]).is_err());
        let mut rewritten = out;
        Descriptor::parse(&out).unwrap().rewrite(&mut rewritten, 999, 8, 0).unwrap();
        assert_eq!(pattern.read(MediaKind::Video, &rewritten), Ok(identity(0, true)));
        assert_eq!(pattern.read(MediaKind::Video, b"foreign"), Err(Damage::NotOurs));
        assert_eq!(pattern.read(MediaKind::Audio, &[0; 100]), Err(Damage::NotOurs));
    }

    #[test]
    fn neighbours_differ() {
        let pattern = Pattern::new();
        let one = identity(1, false);
        let two = Identity { counter: one.counter + 1, ..one };
        assert_ne!(pattern.piece(&one, 64), pattern.piece(&two, 64));
    }
}
