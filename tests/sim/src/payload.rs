//! Payloads that look like VP8 (RFC 7741) and Opus (RFC 7587) to the relay and say to the simulator
//! exactly which packet of which frame of which stream they are.

/// Who a packet is. It travels encrypted in the payload, so that a receiver can hold what it was
/// given against what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The published stream, unique in a run.
    pub stream: u32,
    /// Its simulcast layer, 0 the lowest.
    pub layer: u8,
    /// The frame's number, without gaps from 0 on.
    pub frame: u32,
    /// The packet's place in the frame.
    pub index: u8,
    /// Packets of the frame.
    pub count: u8,
    /// The frame needs no other.
    pub key: bool,
    /// RTP timestamp at the source.
    pub timestamp: u32,
}

/// What a receiver reads from a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The packet starts a frame, by the codec's own words.
    pub start: bool,
    /// A key frame, by the codec's own words.
    pub key: bool,
    /// 15 bits of picture identifier, for VP8.
    pub picture_id: Option<u16>,
    /// Who the packet is.
    pub identity: Identity,
}

/// The shortest payload of either kind.
pub const PAYLOAD_BYTES_MIN: usize = 7 + 10 + IDENTITY_BYTES;

const MAGIC: u32 = 0x5354_5254;
const IDENTITY_BYTES: usize = 28;
/// X, then I, L and T present, then a picture id of 15 bits, TL0PICIDX, and the TID byte.
const DESCRIPTOR_BYTES: usize = 6;

/// A VP8 packet of `len` bytes or a little more than fits the words in.
#[must_use]
pub fn vp8(identity: &Identity, picture_id: u16, tl0_pic_idx: u8, len: usize) -> Vec<u8> {
    let start = identity.index == 0;
    let mut out = vec![0x80 | if start { 0x10 } else { 0 }, 0xe0];
    out.extend((picture_id | 0x8000).to_be_bytes());
    out.extend([tl0_pic_idx, 0x20]);
    if start {
        // The frame tag: not-key bit, version 0, shown; the size of the first partition is of no use here.
        out.extend([0x10 | u8::from(!identity.key), 0x02, 0x00]);
        if identity.key {
            out.extend([0x9d, 0x01, 0x2a]);
            let width = 320_u16 << identity.layer;
            out.extend(width.to_le_bytes());
            out.extend((width / 16 * 9).to_le_bytes());
        }
    }
    finish(out, identity, len)
}

/// An Opus packet: 20 ms, mono, fullband.
#[must_use]
pub fn opus(identity: &Identity, len: usize) -> Vec<u8> {
    finish(vec![0x78], identity, len)
}

/// Reads a VP8 packet; `None` if it isn't one of ours or was damaged.
#[must_use]
pub fn read_vp8(payload: &[u8]) -> Option<Read> {
    let (&first, &flags) = (payload.first()?, payload.get(1)?);
    if first & 0x80 == 0 || flags & 0xf0 != 0xe0 {
        return None;
    }
    let picture_id = u16::from_be_bytes(payload.get(2..4)?.try_into().ok()?);
    let start = first & 0x17 == 0x10;
    let key = start && payload.get(DESCRIPTOR_BYTES)? & 1 == 0;
    let head = DESCRIPTOR_BYTES
        + if key {
            10
        } else if start {
            3
        } else {
            0
        };
    let identity = read_identity(payload.get(head..)?)?;
    Some(Read { start, key, picture_id: Some(picture_id & 0x7fff), identity })
}

/// Reads an Opus packet; `None` if it isn't one of ours or was damaged.
#[must_use]
pub fn read_opus(payload: &[u8]) -> Option<Read> {
    let identity = read_identity(payload.get(1..)?)?;
    Some(Read { start: true, key: true, picture_id: None, identity })
}

fn finish(mut out: Vec<u8>, identity: &Identity, len: usize) -> Vec<u8> {
    let at = out.len();
    let fill = len.saturating_sub(at + IDENTITY_BYTES);
    out.extend(MAGIC.to_be_bytes());
    out.extend(identity.stream.to_be_bytes());
    out.extend(identity.frame.to_be_bytes());
    out.extend(identity.timestamp.to_be_bytes());
    out.extend([identity.layer, identity.index, identity.count, u8::from(identity.key)]);
    out.extend(u32::try_from(fill).unwrap_or(0).to_be_bytes());
    out.resize(out.len() + fill, identity.index ^ 0x5a);
    let sum = checksum(&out[at..]);
    out.extend(sum.to_be_bytes());
    out
}

fn read_identity(bytes: &[u8]) -> Option<Identity> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let fill = usize::try_from(word(20)?).ok()?;
    let sum_at = fill.checked_add(24)?;
    let whole = bytes.len() == sum_at + 4 && word(0)? == MAGIC;
    if !whole || word(sum_at)? != checksum(bytes.get(..sum_at)?) {
        return None;
    }
    let &[layer, index, count, key] = bytes.get(16..20)? else { return None };
    let (stream, frame, timestamp) = (word(4)?, word(8)?, word(12)?);
    Some(Identity { stream, layer, frame, index, count, key: key == 1, timestamp })
}

/// Adds eight bytes at a time: enough to tell a damaged payload from a whole one.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum.rotate_left(7) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (sum >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { stream: 9, layer: 2, frame: 77, index: 0, count: 3, key: true, timestamp: 1234 }
    }

    #[test]
    fn what_is_written_is_read() {
        for (key, index) in [(true, 0), (true, 1), (false, 0), (false, 2)] {
            let identity = Identity { key, index, ..identity() };
            let read = read_vp8(&vp8(&identity, 0x1234, 5, 200)).unwrap();
            assert_eq!(read.identity, identity);
            assert_eq!(read.picture_id, Some(0x1234));
            assert_eq!((read.start, read.key), (index == 0, key && index == 0));
        }
        assert_eq!(read_opus(&opus(&identity(), 60)).unwrap().identity, identity());
        assert!(opus(&identity(), 0).len() <= PAYLOAD_BYTES_MIN);
    }

    #[test]
    fn damage_is_seen() {
        let whole = vp8(&identity(), 1, 1, 120);
        for at in 16..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(read_vp8(&damaged), None, "byte {at}");
        }
        assert_eq!(read_vp8(&whole[..whole.len() - 1]), None);
    }
}
