//! Telling apart the protocols that share one UDP port (RFC 7983, RFC 5761).

/// What a datagram looks like from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A STUN message with the magic cookie (RFC 8489).
    Stun,
    /// A ZRTP packet (RFC 6189).
    Zrtp,
    /// A DTLS record (RFC 6347, RFC 9147).
    Dtls,
    /// TURN channel data (RFC 8656 section 12.4).
    TurnChannel,
    /// RTP or SRTP (RFC 3550, RFC 3711).
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// None of these, or too short to be what its first byte says.
    Unknown,
}

/// Classifies a datagram by its first byte (RFC 7983 section 7) and RTCP by its packet type (RFC 5761 section 4).
///
/// It also checks that the shortest header of the protocol fits, so that what follows need not, and for STUN the
/// magic cookie, because only RFC 3489 went without.
#[must_use]
pub fn classify(datagram: &[u8]) -> Kind {
    let Some(&first) = datagram.first() else { return Kind::Unknown };
    let (kind, least) = match first {
        0..=3 if datagram.get(4..8) == Some(&crate::stun::MAGIC_COOKIE) => (Kind::Stun, STUN_LEAST),
        16..=19 => (Kind::Zrtp, ZRTP_LEAST),
        20..=63 => (Kind::Dtls, DTLS_LEAST),
        64..=79 => (Kind::TurnChannel, TURN_CHANNEL_LEAST),
        128..=191 => match datagram.get(1) {
            // RFC 5761 section 4 keeps RTP payload types 64 to 95 free for this.
            Some(192..=223) => (Kind::Rtcp, RTCP_LEAST),
            _ => (Kind::Rtp, RTP_LEAST),
        },
        _ => return Kind::Unknown,
    };
    if datagram.len() >= least { kind } else { Kind::Unknown }
}

const STUN_LEAST: usize = 20;
const ZRTP_LEAST: usize = 12;
/// A DTLS 1.2 record header is 13 bytes; the unified header of DTLS 1.3 (first byte 32 to 63) can be two, and a
/// record holds at least a 16-byte tag, so 13 holds for both.
const DTLS_LEAST: usize = 13;
const TURN_CHANNEL_LEAST: usize = 4;
const RTP_LEAST: usize = 12;
const RTCP_LEAST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(first: u8, second: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (byte, value) in bytes.iter_mut().zip([first, second]) {
            *byte = value;
        }
        bytes
    }

    #[test]
    fn every_first_byte_falls_into_its_range() {
        for first in 0..=255u8 {
            let mut bytes = datagram(first, 96, 40);
            bytes[4..8].copy_from_slice(&crate::stun::MAGIC_COOKIE);
            let want = match first {
                0..=3 => Kind::Stun,
                16..=19 => Kind::Zrtp,
                20..=63 => Kind::Dtls,
                64..=79 => Kind::TurnChannel,
                128..=191 => Kind::Rtp,
                _ => Kind::Unknown,
            };
            assert_eq!(classify(&bytes), want, "first byte {first}");
        }
    }

    #[test]
    fn packet_type_tells_rtcp() {
        for second in 0..=255u8 {
            let want = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            assert_eq!(classify(&datagram(0x80, second, 12)), want, "second byte {second}");
        }
    }

    #[test]
    fn too_short_is_unknown() {
        assert_eq!(classify(&[]), Kind::Unknown);
        assert_eq!(classify(&datagram(0x80, 96, 11)), Kind::Unknown);
        assert_eq!(classify(&datagram(0x80, 200, 7)), Kind::Unknown);
        assert_eq!(classify(&datagram(0x80, 200, 8)), Kind::Rtcp);
        assert_eq!(classify(&datagram(22, 254, 12)), Kind::Unknown);
        assert_eq!(classify(&datagram(0, 1, 19)), Kind::Unknown);
        // Without the magic cookie it is not STUN of this century.
        assert_eq!(classify(&datagram(0, 1, 20)), Kind::Unknown);
    }
}
