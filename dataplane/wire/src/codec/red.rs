//! Redundant audio (RFC 2198): a payload, and in front of it those of packets before, each a block of its own.

/// What says that another header follows.
const FOLLOWS: u8 = 0x80;
/// Bytes of the header of a block of an earlier packet.
const HEADER_BYTES: usize = 4;
/// The largest distance in timestamps: 14 bits.
pub const OFFSET_MAX: u16 = (1 << 14) - 1;
/// The most bytes of an earlier payload: 10 bits.
pub const BLOCK_BYTES_MAX: usize = (1 << 10) - 1;

/// The payload of a packet before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// How much less its timestamp is; at most [`OFFSET_MAX`].
    pub timestamp_offset: u16,
    /// At most [`BLOCK_BYTES_MAX`].
    pub payload: &'a [u8],
}

/// The packet's own payload, which stands last. `None` where the headers promise more than there is.
#[must_use]
pub fn primary(payload: &[u8]) -> Option<&[u8]> {
    let (mut at, mut earlier) = (0, 0_usize);
    loop {
        let header = payload.get(at..)?;
        if header.first()? & FOLLOWS == 0 {
            return payload.get((at + 1).checked_add(earlier)?..);
        }
        let [_, _, high, low, ..] = *header else { return None };
        //= rfc2198#3: block length: 10 bits.
        earlier += usize::from(u16::from_be_bytes([high & 0x03, low]));
        at += HEADER_BYTES;
    }
}

/// Gives all blocks another payload type. `None` where the headers do not end.
pub fn set_pts(payload: &mut [u8], pt: u8) -> Option<()> {
    let mut at = 0;
    loop {
        let first = payload.get_mut(at)?;
        let follows = *first & FOLLOWS;
        *first = follows | (pt & !FOLLOWS);
        if follows == 0 {
            return Some(());
        }
        at += HEADER_BYTES;
    }
}

/// Writes a payload behind those of packets before it, the oldest first, all of the same payload type, and says how long
/// that is. Blocks that do not fit the format are left out. `None`: no room.
pub fn write(out: &mut [u8], pt: u8, earlier: &[Block<'_>], primary: &[u8]) -> Option<usize> {
    let fits = |block: &&Block<'_>| {
        (1..=OFFSET_MAX).contains(&block.timestamp_offset)
            && (1..=BLOCK_BYTES_MAX).contains(&block.payload.len())
    };
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        at += bytes.len();
        Some(())
    };
    for block in earlier.iter().filter(fits) {
        //= rfc2198#3: F, block PT, 14 bits of timestamp offset, 10 bits of block length.
        let bits = u32::from(block.timestamp_offset) << 10 | block.payload.len() as u32;
        let [_, a, b, c] = bits.to_be_bytes();
        put(&[FOLLOWS | (pt & !FOLLOWS), a, b, c])?;
    }
    put(&[pt & !FOLLOWS])?;
    for block in earlier.iter().filter(fits) {
        put(block.payload)?;
    }
    put(primary)?;
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stand_as_the_standard_says() {
        let earlier = [
            Block { timestamp_offset: 1920, payload: &[1, 2, 3] },
            Block { timestamp_offset: 960, payload: &[4] },
        ];
        let mut out = [0; 32];
        let len = write(&mut out, 111, &earlier, &[5, 6]).unwrap();
        let headers = [0x80 | 111, 0x1E, 0x00, 3, 0x80 | 111, 0x0F, 0x00, 1, 111];
        assert_eq!(out[..len], [&headers[..], &[1, 2, 3, 4, 5, 6]].concat());
        assert_eq!(primary(&out[..len]), Some(&[5, 6][..]));
        set_pts(&mut out[..len], 96).unwrap();
        assert_eq!((out[0], out[4], out[8]), (0x80 | 96, 0x80 | 96, 96));
        assert_eq!(primary(&out[..len]), Some(&[5, 6][..]));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let long = [7; BLOCK_BYTES_MAX + 1];
        let earlier = [
            Block { timestamp_offset: OFFSET_MAX + 1, payload: &[1] },
            Block { timestamp_offset: 960, payload: &long },
            Block { timestamp_offset: 0, payload: &[1] },
            Block { timestamp_offset: 960, payload: &[] },
            Block { timestamp_offset: OFFSET_MAX, payload: &[2] },
        ];
        let mut out = [0; 32];
        let len = write(&mut out, 1, &earlier, &[9]).unwrap();
        assert_eq!(out[..len], [0x81, 0xFF, 0xFC, 1, 1, 2, 9]);
        assert_eq!(write(&mut out[..len - 1], 1, &earlier, &[9]), None, "no room");
    }

    #[test]
    fn headers_that_lie_are_no_payload() {
        for payload in [
            &[][..],
            &[0x80],
            &[0x80, 0, 0, 1],
            &[0x80, 0, 3, 255, 0, 1, 2],
            &[0x80, 0, 0, 1, 0x80, 0, 0, 1, 0x80],
        ] {
            assert_eq!(primary(payload), None, "{payload:?}");
        }
        assert_eq!(primary(&[0x6F]), Some(&[][..]), "an empty one");
        assert_eq!(set_pts(&mut [0x80, 0, 0, 0], 1), None);
    }
}
