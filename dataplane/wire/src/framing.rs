//! Packets on a stream: before each stand two bytes with its length (RFC 4571 section 2).

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 2;

/// What stands before a packet of so many bytes; nothing where that is more than fits.
#[inline]
#[must_use]
pub fn prefix(packet_len: usize) -> Option<[u8; LENGTH_BYTES]> {
    u16::try_from(packet_len).ok().map(u16::to_be_bytes)
}

/// How long the first packet is, as soon as that is known.
#[inline]
#[must_use]
pub fn announced(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))
}

/// The first frame, its length included, and what follows it; nothing before all of it is there.
#[inline]
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(LENGTH_BYTES + announced(bytes)?)
}

/// The packet of a frame.
#[inline]
#[must_use]
pub fn packet(frame: &[u8]) -> &[u8] {
    frame.get(LENGTH_BYTES..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_or_not_there() {
        let bytes = [0, 3, 1, 2, 3, 0, 0, 1, 0];
        let (first, rest) = split(&bytes).unwrap();
        assert_eq!((first, packet(first)), (&bytes[..5], &bytes[2..5]));
        let (empty, rest) = split(rest).unwrap();
        assert_eq!((empty.len(), packet(empty)), (2, &[][..]));
        assert_eq!((split(rest), announced(rest)), (None, Some(256)));
        assert_eq!((split(&[0]), announced(&[0]), packet(&[0])), (None, None, &[][..]));
        assert_eq!(prefix(300), Some([1, 44]));
        assert_eq!((prefix(65_535), prefix(65_536)), (Some([255; 2]), None));
    }
}
