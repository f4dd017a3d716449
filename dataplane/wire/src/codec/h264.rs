//! H.264 payloads (RFC 6184), packetization modes 0 and 1: single NAL units, STAP-A and FU-A.

use super::Peek;
use crate::bytes::u16_at;

/// A coded slice of a picture that is no IDR picture.
pub const SLICE: u8 = 1;
/// A coded slice of an IDR picture.
pub const IDR: u8 = 5;
/// Sequence parameter set.
pub const SPS: u8 = 7;
/// Picture parameter set.
pub const PPS: u8 = 8;
/// Access unit delimiter.
pub const AUD: u8 = 9;
/// Several NAL units in one packet (section 5.7.1).
pub const STAP_A: u8 = 24;
/// A piece of a NAL unit (section 5.8).
pub const FU_A: u8 = 28;

/// A NAL unit, or the piece of one, in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit<'a> {
    /// NAL unit type, 1 to 23.
    pub kind: u8,
    /// nal_ref_idc, 0 to 3: at 0 nothing refers to the unit.
    pub reference: u8,
    /// Whether the packet has the beginning of the unit.
    pub start: bool,
    /// Whether the packet has the end of the unit.
    pub end: bool,
    /// What follows the NAL unit header.
    pub data: &'a [u8],
}

impl Unit<'_> {
    /// Whether it begins a picture: first_mb_in_slice is 0, whose Exp-Golomb code is a single 1.
    #[must_use]
    pub fn is_first_slice(&self) -> bool {
        self.start
            && matches!(self.kind, SLICE..=IDR)
            && self.data.first().is_some_and(|first| first & 0x80 != 0)
    }
}

/// The NAL units of a payload. What is malformed or of another packetization mode ends the iteration.
#[must_use]
pub fn units(payload: &[u8]) -> Units<'_> {
    Units { payload, at: 0 }
}

/// See [`units`].
#[derive(Clone, Debug)]
pub struct Units<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Units<'a> {
    type Item = Unit<'a>;

    fn next(&mut self) -> Option<Unit<'a>> {
        let first = *self.payload.first()?;
        match first & 0x1f {
            STAP_A => {
                let at = self.at.max(1);
                let len = usize::from(u16_at(self.payload, at)?);
                let unit = self.payload.get(at + 2..)?.get(..len)?;
                self.at = at + 2 + len;
                let (header, data) = unit.split_first()?;
                single(*header, data)
            }
            _ if self.at > 0 => None,
            FU_A => {
                self.at = self.payload.len();
                let header = *self.payload.get(1)?;
                Some(Unit {
                    kind: header & 0x1f,
                    reference: first >> 5 & 0x03,
                    start: header & 0x80 != 0,
                    end: header & 0x40 != 0,
                    data: self.payload.get(2..)?,
                })
            }
            _ => {
                self.at = self.payload.len();
                single(first, self.payload.get(1..)?)
            }
        }
    }
}

fn single(header: u8, data: &[u8]) -> Option<Unit<'_>> {
    let kind = header & 0x1f;
    (1..=23).contains(&kind).then_some(Unit {
        kind,
        reference: header >> 5 & 0x03,
        start: true,
        end: true,
        data,
    })
}

/// What forwarding needs of one packet; `marker` is that of its RTP header.
///
/// A packet with a sequence parameter set counts as the start of a key frame, because browsers send one in front of
/// every IDR picture and a decoder cannot go without; so does the first piece of an IDR picture.
#[must_use]
pub fn peek(payload: &[u8], marker: bool) -> Option<Peek> {
    let mut units = units(payload).peekable();
    units.peek()?;
    let mut peek =
        Peek { end_of_frame: marker, switch_up: true, discardable: true, ..Peek::default() };
    for unit in units {
        peek.key_frame |=
            unit.start && (unit.kind == SPS || (unit.kind == IDR && unit.is_first_slice()));
        peek.start_of_frame |=
            unit.is_first_slice() || (unit.start && matches!(unit.kind, SPS | AUD));
        // SEI and delimiters have a nal_ref_idc of 0 without being frames that can be missed.
        peek.discardable &= unit.reference == 0 && (SLICE..=IDR).contains(&unit.kind);
    }
    Some(peek)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_in_an_aggregate_start_a_key_frame() {
        let payload = [0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88];
        let kinds: Vec<_> = units(&payload).map(|unit| unit.kind).collect();
        assert_eq!(kinds, [SPS, PPS, IDR]);
        let peek = peek(&payload, true).unwrap();
        assert!(peek.key_frame && peek.start_of_frame && peek.end_of_frame && !peek.discardable);
        // A length beyond the end ends it.
        assert_eq!(units(&payload[..10]).count(), 2);
    }

    #[test]
    fn only_the_first_piece_starts() {
        assert!(peek(&[0x7c, 0x85, 0x88], false).unwrap().key_frame);
        assert!(!peek(&[0x7c, 0x05, 0x88], false).unwrap().key_frame);
        let last = units(&[0x7c, 0x45, 0x88]).next().unwrap();
        assert!(last.end && !last.start && last.kind == IDR);
        // The second slice of an IDR picture: first_mb_in_slice is not 0.
        assert!(!peek(&[0x65, 0x40], false).unwrap().key_frame);
    }

    #[test]
    fn unreferenced_slices_are_discardable() {
        assert!(peek(&[0x01, 0x9a], true).unwrap().discardable);
        assert!(!peek(&[0x41, 0x9a], true).unwrap().discardable);
        assert!(!peek(&[0x06, 0x05], false).unwrap().discardable);
    }

    #[test]
    fn other_modes_have_no_units() {
        for payload in [
            &[][..],
            &[0x00, 1],
            &[0x79, 0, 0],
            &[0x1d, 0x85, 0, 0],
            &[0x78],
            &[0x78, 0, 0],
            &[0x7c],
        ] {
            assert_eq!(peek(payload, false), None, "{payload:x?}");
        }
    }
}
