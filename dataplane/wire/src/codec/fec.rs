//! Forward error correction by parity: packets that are the exclusive or of others, so that one of those that is lost can be
//! had from the rest. ULPFEC (RFC 5109) protects packets of the stream in which it stands itself; FlexFEC
//! (draft-ietf-payload-flexible-fec-scheme-03, as browsers send it) those of another SSRC.

use crate::rtp::FIXED_HEADER_LEN;

/// The most packets that one repair packet can protect: the longest mask there is, of FlexFEC.
pub const PROTECTED_MAX: usize = 109;

/// A repair packet's payload: which packets it protects, and the exclusive or of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair<'a> {
    /// Whose packets: `None` for those of the stream in which it stands (ULPFEC).
    pub ssrc: Option<u32>,
    /// The first sequence number of [`Repair::mask`].
    pub base: u16,
    /// Bit n stands for the packet `base + n`. Never 0.
    pub mask: u128,
    /// Of the first two bytes of their headers, without the version: padding, extension, CSRC count, marker, payload type.
    pub head: [u8; 2],
    /// Of the lengths of what follows their fixed headers.
    pub len: u16,
    /// Of their timestamps.
    pub timestamp: u32,
    /// Of what follows their fixed headers, shorter ones filled up with zeros.
    pub payload: &'a [u8],
}

impl<'a> Repair<'a> {
    /// Reads the payload of a FlexFEC packet. `None` for what ends too early, protects nothing, protects packets of
    /// several SSRCs, or has a mask that is fixed or goes on beyond [`PROTECTED_MAX`]: none of these does a browser send.
    #[must_use]
    pub fn parse_flexfec(payload: &'a [u8]) -> Option<Self> {
        //= draft-ietf-payload-flexible-fec-scheme-03#4.2.2.1: R and F, then P, X, CC, M, PT, length, timestamp.
        let (head, rest) = head(payload)?;
        let (len, rest) = rest.split_first_chunk()?;
        let (timestamp, rest) = rest.split_first_chunk()?;
        let ([1, _, _, _], rest) = rest.split_first_chunk()? else { return None };
        let (ssrc, rest) = rest.split_first_chunk()?;
        let (base, rest) = rest.split_first_chunk()?;
        // Each part of the mask begins with a bit that says whether it is the last one.
        let (first, mut rest) = rest.split_first_chunk()?;
        let first = u16::from_be_bytes(*first);
        let mut mask = bits(u64::from(first) << 49, 15);
        if first >> 15 == 0 {
            let (second, after) = rest.split_first_chunk()?;
            let second = u32::from_be_bytes(*second);
            mask |= bits(u64::from(second) << 33, 31) << 15;
            rest = after;
            if second >> 31 == 0 {
                let (third, after) = rest.split_first_chunk()?;
                let third = u64::from_be_bytes(*third);
                mask |= bits(third << 1, 63) << 46;
                rest = after;
                if third >> 63 == 0 {
                    return None;
                }
            }
        }
        let repair = Self {
            ssrc: Some(u32::from_be_bytes(*ssrc)),
            base: u16::from_be_bytes(*base),
            mask,
            head,
            len: u16::from_be_bytes(*len),
            timestamp: u32::from_be_bytes(*timestamp),
            payload: rest,
        };
        (mask != 0).then_some(repair)
    }

    /// Reads the payload of a ULPFEC packet: its first level, which is the only one that browsers send. `None` for what
    /// ends too early or protects nothing.
    #[must_use]
    pub fn parse_ulpfec(payload: &'a [u8]) -> Option<Self> {
        //= rfc5109#7.3: E, L, P, X, CC, M, PT recovery, SN base, TS recovery, length recovery.
        let is_long = payload.first()? & LONG_MASK != 0;
        let with_long = [payload.first()? & !LONG_MASK, *payload.get(1)?];
        let (head, _) = head(&with_long)?;
        let (base, rest) = payload.get(2..)?.split_first_chunk()?;
        let (timestamp, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        //= rfc5109#7.4: protection length, then a mask of 16 or 48 bits.
        let (protected, rest) = rest.split_first_chunk()?;
        let (high, mut rest) = rest.split_first_chunk()?;
        let mut mask = bits(u64::from(u16::from_be_bytes(*high)) << 48, 16);
        if is_long {
            let (low, after) = rest.split_first_chunk()?;
            mask |= bits(u64::from(u32::from_be_bytes(*low)) << 32, 32) << 16;
            rest = after;
        }
        let repair = Self {
            ssrc: None,
            base: u16::from_be_bytes(*base),
            mask,
            head,
            len: u16::from_be_bytes(*len),
            timestamp: u32::from_be_bytes(*timestamp),
            payload: rest.get(..usize::from(u16::from_be_bytes(*protected)))?,
        };
        (mask != 0).then_some(repair)
    }

    /// Writes it as FlexFEC if it names an SSRC, as ULPFEC otherwise, with the shortest mask, and says how long that is.
    /// `None`: no room, or the format cannot say it.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
            at += bytes.len();
            Some(())
        };
        let [first, second] = [self.head[0] & HEAD_BITS, self.head[1]];
        let span = u128::BITS - self.mask.leading_zeros();
        let part = |from: u32, count: u32| reversed(self.mask >> from, count);
        if let Some(ssrc) = self.ssrc {
            put(&[first, second])?;
            put(&self.len.to_be_bytes())?;
            put(&self.timestamp.to_be_bytes())?;
            put(&[1, 0, 0, 0])?;
            put(&ssrc.to_be_bytes())?;
            put(&self.base.to_be_bytes())?;
            let last = |is_last: bool, bits: u32| u64::from(is_last) << (bits - 1);
            put(&((part(0, 15) | last(span <= 15, 16)) as u16).to_be_bytes())?;
            if span > 15 {
                put(&((part(15, 31) | last(span <= 46, 32)) as u32).to_be_bytes())?;
            }
            if span > 46 {
                put(&(part(46, 63) | last(true, 64)).to_be_bytes())?;
            }
        } else {
            put(&[first | if span > 16 { LONG_MASK } else { 0 }, second])?;
            put(&self.base.to_be_bytes())?;
            put(&self.timestamp.to_be_bytes())?;
            put(&self.len.to_be_bytes())?;
            put(&u16::try_from(self.payload.len()).ok()?.to_be_bytes())?;
            put(&(part(0, 16) as u16).to_be_bytes())?;
            if span > 16 {
                put(&(part(16, 32) as u32).to_be_bytes())?;
            }
        }
        put(self.payload)?;
        let longest = if self.ssrc.is_some() { PROTECTED_MAX } else { 48 };
        (self.mask != 0 && span as usize <= longest).then_some(at)
    }

    /// The packet `seq` of `ssrc` out of all `others` that are protected, whole packets each, in `out`; and how long it is.
    /// `None` where that is no packet: the repair packet lies, or not all of the others were given as they were sent.
    pub fn restore<'p>(
        &self,
        (ssrc, seq): (u32, u16),
        others: impl Iterator<Item = &'p [u8]>,
        out: &mut [u8],
    ) -> Option<usize> {
        let room = out.get_mut(..FIXED_HEADER_LEN + self.payload.len())?;
        let (header, body) = room.split_first_chunk_mut::<FIXED_HEADER_LEN>()?;
        body.copy_from_slice(self.payload);
        let ([mut first, mut second], mut len, mut timestamp) =
            (self.head, self.len, self.timestamp);
        for other in others {
            let (of, rest) = other.split_first_chunk::<FIXED_HEADER_LEN>()?;
            let [a, b, _, _, t0, t1, t2, t3, ..] = *of;
            first ^= a;
            second ^= b;
            timestamp ^= u32::from_be_bytes([t0, t1, t2, t3]);
            len ^= u16::try_from(rest.len()).ok()?;
            body.iter_mut().zip(rest).for_each(|(to, from)| *to ^= from);
        }
        // The rest of it was not protected, or there is none.
        let len = Some(usize::from(len)).filter(|len| *len <= body.len())?;
        let ([s0, s1], [t0, t1, t2, t3]) = (seq.to_be_bytes(), timestamp.to_be_bytes());
        let [i0, i1, i2, i3] = ssrc.to_be_bytes();
        *header = [VERSION | (first & HEAD_BITS), second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3];
        Some(FIXED_HEADER_LEN + len)
    }
}

/// The two bytes of which the version's place is no parity; `None` where that is not empty.
fn head(bytes: &[u8]) -> Option<([u8; 2], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    (head[0] & !HEAD_BITS == 0).then_some((*head, rest))
}

/// The first `count` bits of the mask on the wire, from the most significant one, as bits from the least significant one.
fn bits(left: u64, count: u32) -> u128 {
    u128::from(left.reverse_bits()) & ((1 << count) - 1)
}

/// The other way.
fn reversed(mask: u128, count: u32) -> u64 {
    (mask as u64).reverse_bits() >> (u64::BITS - count)
}

/// ULPFEC's L: the mask has 48 bits.
const LONG_MASK: u8 = 0x40;
/// Where RTP has its version, FlexFEC has R and F, ULPFEC E and L.
const HEAD_BITS: u8 = 0x3F;
/// Of RTP, in the first byte.
const VERSION: u8 = 2 << 6;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flexfec_stands_as_the_draft_says() {
        let header = [0x10, 0xE0 | 1, 0x04, 0xB0, 1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 9, 0xFF, 0xFE];
        let masks: [(&[u8], u128); 3] = [
            (&[0xC0, 0x01], 1 | 1 << 14),
            (&[0x40, 0, 0xC0, 0, 0, 1], 1 | 1 << 15 | 1 << 45),
            (&[0x40, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 1], 1 | 1 << 46 | 1 << 108),
        ];
        for (mask, bits) in masks {
            let payload = [&header[..], mask, &[7, 8, 9]].concat();
            let repair = Repair::parse_flexfec(&payload).unwrap();
            let expected = Repair {
                ssrc: Some(9),
                base: 65_534,
                mask: bits,
                head: [0x10, 0xE1],
                len: 1200,
                timestamp: 0x0102_0304,
                payload: &[7, 8, 9],
            };
            assert_eq!(repair, expected);
            let mut out = [0; 64];
            let len = repair.write(&mut out).unwrap();
            assert_eq!(out[..len], payload);
            assert_eq!(repair.write(&mut out[..len - 1]), None, "no room");
        }
    }

    #[test]
    fn flexfec_that_nobody_sends_is_none() {
        let good = |at: usize, byte: u8| {
            let mut payload = vec![0; 21];
            (payload[8], payload[18], payload[19]) = (1, 0x80, 1);
            payload[at] = byte;
            payload
        };
        assert!(Repair::parse_flexfec(&good(20, 5)).is_some());
        let bad = [(0, 0x80), (0, 0x40), (8, 0), (8, 2), (18, 0), (19, 0)];
        for (at, byte) in bad {
            assert_eq!(Repair::parse_flexfec(&good(at, byte)), None, "{byte} at {at}");
        }
        let endless = [&good(18, 0)[..20], &[0; 12], &[1]].concat();
        assert_eq!(Repair::parse_flexfec(&endless), None, "a mask without end");
        for len in 0..20 {
            assert_eq!(Repair::parse_flexfec(&good(20, 5)[..len]), None);
        }
    }

    #[test]
    fn ulpfec_stands_as_the_standard_says() {
        let header = [0x10, 0x61, 0, 8, 1, 2, 3, 4, 0x04, 0xB0, 0, 3];
        let masks: [(u8, &[u8], u128); 2] =
            [(0, &[0x80, 1], 1 | 1 << 15), (0x40, &[0, 0, 0x80, 0, 0, 1], 1 << 16 | 1 << 47)];
        for (long, mask, bits) in masks {
            let mut payload = [&header[..], mask, &[7, 8, 9]].concat();
            payload[0] |= long;
            let repair = Repair::parse_ulpfec(&payload).unwrap();
            let expected = Repair {
                ssrc: None,
                base: 8,
                mask: bits,
                head: [0x10, 0x61],
                len: 1200,
                timestamp: 0x0102_0304,
                payload: &[7, 8, 9],
            };
            assert_eq!(repair, expected);
            let mut out = [0; 64];
            let len = repair.write(&mut out).unwrap();
            assert_eq!(out[..len], payload);
            for len in 0..payload.len() {
                assert_eq!(Repair::parse_ulpfec(&payload[..len]), None, "ends early");
            }
        }
        assert_eq!(Repair::parse_ulpfec(&[0; 20]), None, "protects nothing");
        assert_eq!(Repair::parse_ulpfec(&[[0x80; 20], [1; 20]].concat()), None, "reserved");
    }

    /// As RFC 5109 section 7 has it, byte by byte: made for the test, by another way than the code.
    fn protect(packets: &[Vec<u8>]) -> ([u8; 2], u16, u32, Vec<u8>) {
        let longest = packets.iter().map(Vec::len).max().unwrap() - 12;
        let byte = |packet: &Vec<u8>, at: usize| packet.get(at).copied().unwrap_or(0);
        let of = |at: usize| packets.iter().fold(0, |sum, packet| sum ^ byte(packet, at));
        let len = packets.iter().fold(0, |sum, packet| sum ^ (packet.len() - 12) as u16);
        let timestamp = u32::from_be_bytes([of(4), of(5), of(6), of(7)]);
        ([of(0) & 0x3F, of(1)], len, timestamp, (12..12 + longest).map(of).collect())
    }

    #[test]
    fn what_is_shorter_than_it_says_is_no_packet() {
        let repair = Repair {
            ssrc: Some(1),
            base: 0,
            mask: 1,
            head: [0, 96],
            len: 4,
            timestamp: 0,
            payload: &[1, 2, 3],
        };
        let mut out = [0; 64];
        let none = std::iter::empty::<&[u8]>;
        assert_eq!(repair.restore((1, 0), none(), &mut out), None);
        assert_eq!(Repair { len: 3, ..repair }.restore((1, 0), none(), &mut out), Some(15));
        assert_eq!(Repair { len: 3, ..repair }.restore((1, 0), none(), &mut out[..14]), None);
        let short = [&[0x80_u8; 11][..]];
        assert_eq!(repair.restore((1, 0), short.into_iter(), &mut out), None);
    }

    proptest! {
        #[test]
        fn any_one_of_the_packets_comes_back(
            mut packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 12..80), 1..20),
            lost in any::<prop::sample::Index>(),
            (ssrc, base) in any::<(u32, u16)>(),
        ) {
            for (packet, seq) in packets.iter_mut().zip(0..) {
                packet[0] = 0x80 | packet[0] & 0x3F;
                packet[2..4].copy_from_slice(&base.wrapping_add(seq).to_be_bytes());
                packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
            }
            let (head, len, timestamp, payload) = protect(&packets);
            let mask = (1 << packets.len()) - 1;
            let lost = lost.index(packets.len());
            let number = base.wrapping_add(lost as u16);
            for named in [None, Some(ssrc)] {
                let repair =
                    Repair { ssrc: named, base, mask, head, len, timestamp, payload: &payload };
                let mut wire = [0; 200];
                let written = repair.write(&mut wire).unwrap();
                let read = match named {
                    Some(_) => Repair::parse_flexfec(&wire[..written]),
                    None => Repair::parse_ulpfec(&wire[..written]),
                };
                prop_assert_eq!(read, Some(repair));
                let others = packets.iter().enumerate().filter(|(at, _)| *at != lost);
                let others = others.map(|(_, packet)| packet.as_slice());
                let mut out = [0; 200];
                let len = repair.restore((ssrc, number), others, &mut out).unwrap();
                prop_assert_eq!(&out[..len], &packets[lost][..]);
            }
        }
    }
}
