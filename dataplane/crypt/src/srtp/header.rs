//! The few header fields that protection needs. strait-wire has the full views.

use super::Error;

/// Bytes of the RTP header with CSRCs and extension (RFC 3550 sections 5.1 and 5.3.1), which stay in the clear;
/// `None` when the packet is not RTP version 2 or shorter than that.
#[must_use]
pub fn rtp_header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let fixed = 12 + 4 * usize::from(first & 0x0f);
    let len = if first & 0x10 == 0 {
        fixed
    } else {
        fixed + 4 + 4 * usize::from(u16::from_be_bytes(array(packet, fixed + 2)?))
    };
    (len <= packet.len()).then_some(len)
}

/// Sequence number and SSRC of an RTP packet.
pub(crate) fn rtp_seq_ssrc(packet: &[u8]) -> Option<(u16, u32)> {
    Some((u16::from_be_bytes(array(packet, 2)?), u32::from_be_bytes(array(packet, 8)?)))
}

/// SSRC of the sender of an RTCP packet of version 2 (RFC 3550 section 6.4.1).
pub(crate) fn rtcp_ssrc(packet: &[u8]) -> Result<u32, Error> {
    match packet.first() {
        Some(first) if first >> 6 == 2 => {
            array(packet, 4).map(u32::from_be_bytes).ok_or(Error::Malformed)
        }
        _ => Err(Error::Malformed),
    }
}

/// `N` bytes at `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lengths() {
        let mut packet = [0u8; 64];
        packet[0] = 0x80;
        assert_eq!(rtp_header_len(&packet), Some(12));
        assert_eq!(rtp_header_len(&packet[..11]), None);
        packet[0] = 0x82;
        assert_eq!(rtp_header_len(&packet), Some(20));
        packet[0] = 0x91;
        packet[19] = 2;
        assert_eq!(rtp_header_len(&packet), Some(28));
        assert_eq!(rtp_header_len(&packet[..28]), Some(28));
        assert_eq!(rtp_header_len(&packet[..27]), None);
        assert_eq!(rtp_header_len(&packet[..18]), None);
        packet[0] = 0x41;
        assert_eq!(rtp_header_len(&packet), None);
        assert_eq!(rtp_header_len(&[]), None);
    }
}
