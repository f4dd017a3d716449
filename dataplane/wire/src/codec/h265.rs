//! H.265 payloads (RFC 7798) without decoding order numbers, which is how browsers send it (sprop-max-don-diff is 0).

use super::Peek;
use crate::bytes::u16_at;

/// Video parameter set.
pub const VPS: u8 = 32;
/// Sequence parameter set.
pub const SPS: u8 = 33;
/// Picture parameter set.
pub const PPS: u8 = 34;
/// Access unit delimiter.
pub const AUD: u8 = 35;
/// Several NAL units in one packet (section 4.4.2).
pub const AP: u8 = 48;
/// A piece of a NAL unit (section 4.4.3).
pub const FU: u8 = 49;

/// A NAL unit, or the piece of one, in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit<'a> {
    /// NAL unit type, 0 to 63.
    pub kind: u8,
    /// Layer of a scalable or multiview stream, 0 to 63.
    pub layer: u8,
    /// Temporal layer, 0 to 6.
    pub temporal: u8,
    /// Whether the packet has the beginning of the unit.
    pub start: bool,
    /// Whether the packet has the end of the unit.
    pub end: bool,
    /// What follows the NAL unit header.
    pub data: &'a [u8],
}

impl Unit<'_> {
    /// Whether it is of a picture that a decoder can start with (types 16 to 23).
    #[must_use]
    pub const fn is_random_access(&self) -> bool {
        matches!(self.kind, 16..=23)
    }

    /// Whether it begins a picture: first_slice_segment_in_pic_flag is set.
    #[must_use]
    pub fn is_first_slice(&self) -> bool {
        self.start && self.kind < 32 && self.data.first().is_some_and(|first| first & 0x80 != 0)
    }

    /// Whether no picture of its own temporal layer refers to it (even types below 16).
    #[must_use]
    pub const fn is_non_reference(&self) -> bool {
        self.kind < 16 && self.kind.is_multiple_of(2)
    }
}

/// The NAL units of a payload. What is malformed ends the iteration.
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
        let whole = single(self.payload)?;
        match whole.kind {
            AP => {
                let at = self.at.max(2);
                let len = usize::from(u16_at(self.payload, at)?);
                let unit = self.payload.get(at + 2..)?.get(..len)?;
                self.at = at + 2 + len;
                single(unit).filter(|unit| unit.kind < AP)
            }
            _ if self.at > 0 => None,
            FU => {
                self.at = self.payload.len();
                let (header, data) = whole.data.split_first()?;
                let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
                Some(Unit { kind: header & 0x3f, start, end, data, ..whole })
            }
            kind => {
                self.at = self.payload.len();
                (kind < AP).then_some(whole)
            }
        }
    }
}

fn single(unit: &[u8]) -> Option<Unit<'_>> {
    let ([first, second], data) = unit.split_first_chunk()?;
    Some(Unit {
        kind: first >> 1 & 0x3f,
        layer: (first & 0x01) << 5 | second >> 3,
        // On the wire it is one more, so that the header never looks like a start code.
        temporal: (second & 0x07).checked_sub(1)?,
        start: true,
        end: true,
        data,
    })
}

/// What forwarding needs of one packet; `marker` is that of its RTP header.
///
/// As with H.264, the parameter sets in front of a random access picture start a key frame, and so does the picture.
#[must_use]
pub fn peek(payload: &[u8], marker: bool) -> Option<Peek> {
    let mut units = units(payload).peekable();
    let temporal = units.peek()?.temporal;
    // A non-reference picture may still be referred to from higher temporal layers, so none is marked as discardable.
    let mut peek = Peek { end_of_frame: marker, temporal, ..Peek::default() };
    for unit in units {
        let parameters = unit.start && matches!(unit.kind, VPS | SPS);
        peek.key_frame |= parameters || (unit.is_random_access() && unit.is_first_slice());
        peek.start_of_frame |=
            unit.is_first_slice() || parameters || (unit.start && unit.kind == AUD);
        // Temporal sub-layer access pictures, types 2 to 5.
        peek.switch_up |= unit.temporal == 0 || matches!(unit.kind, 2..=5);
    }
    Some(peek)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_in_an_aggregate_start_a_key_frame() {
        let payload = [96, 1, 0, 3, 64, 1, 0x0c, 0, 3, 66, 1, 0x01, 0, 3, 38, 1, 0xaf];
        let kinds: Vec<_> = units(&payload).map(|unit| unit.kind).collect();
        assert_eq!(kinds, [VPS, SPS, 19]);
        let peek = peek(&payload, true).unwrap();
        assert!(peek.key_frame && peek.start_of_frame && peek.switch_up && !peek.discardable);
        assert_eq!(units(&payload[..payload.len() - 1]).count(), 2);
    }

    #[test]
    fn only_the_first_piece_starts() {
        assert!(peek(&[98, 1, 0x80 | 19, 0xaf], false).unwrap().key_frame);
        assert!(!peek(&[98, 1, 19, 0xaf], false).unwrap().key_frame);
        assert!(!peek(&[98, 1, 0x40 | 19, 0xaf], true).unwrap().key_frame);
    }

    #[test]
    fn temporal_layers() {
        let upper = peek(&[0, 3, 0x80], true).unwrap();
        assert_eq!(upper.temporal, 2);
        assert!(!upper.discardable && !upper.switch_up);
        assert!(units(&[0, 3, 0x80]).next().unwrap().is_non_reference());
        let access = peek(&[3 << 1, 2, 0x80], true).unwrap();
        assert!(access.switch_up && access.temporal == 1 && !access.discardable);
    }

    #[test]
    fn malformed_has_no_units() {
        // Too short, temporal id 0, PACI, an aggregate in an aggregate, an empty piece.
        for payload in [&[][..], &[64], &[64, 0, 1], &[100, 1, 0], &[96, 1, 0, 2, 96, 1], &[98, 1]]
        {
            assert_eq!(peek(payload, false), None, "{payload:x?}");
        }
    }
}
