//! AV1 payloads (RTP Payload Format For AV1, version 1.0.0, section 4.4).
//!
//! The payload says little about frames and layers on purpose: the dependency descriptor does, see
//! [`super::dependency`].

use super::Peek;

/// The aggregation header, the first byte of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregation {
    /// Z: the first OBU element continues one of the packet before.
    pub continues: bool,
    /// Y: the last OBU element will go on in the next packet.
    pub continued: bool,
    /// W: OBU elements in the packet, 1 to 3; 0 when each has its length in front.
    pub elements: u8,
    /// N: the packet is the first of a coded video sequence, so a decoder can start.
    pub new_sequence: bool,
}

impl Aggregation {
    /// Reads the header; `None` of nothing.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        Some(Self {
            continues: first & 0x80 != 0,
            continued: first & 0x40 != 0,
            elements: first >> 4 & 0x03,
            new_sequence: first & 0x08 != 0,
        })
    }
}

/// The layers that the first OBU of the packet names, as temporal and spatial; `None` when it names none or the
/// packet does not begin one.
#[must_use]
pub fn layers(payload: &[u8]) -> Option<(u8, u8)> {
    let aggregation = Aggregation::parse(payload)?;
    if aggregation.continues {
        return None;
    }
    let mut at = 1;
    if aggregation.elements != 1 {
        // A leb128 length has at most eight bytes (AV1 specification section 4.10.5).
        let bytes = payload.get(at..)?.iter().take(8).position(|byte| byte & 0x80 == 0)?;
        at += bytes + 1;
    }
    let header = *payload.get(at)?;
    let extension = *payload.get(at + 1)?;
    (header & 0x04 != 0).then_some((extension >> 5, extension >> 3 & 0x03))
}

/// What forwarding needs of one packet; `marker` is that of its RTP header.
///
/// `start_of_frame` is only that an OBU begins, which need not be the first of its frame.
#[must_use]
pub fn peek(payload: &[u8], marker: bool) -> Option<Peek> {
    let aggregation = Aggregation::parse(payload)?;
    let (temporal, spatial) = layers(payload).unwrap_or((0, 0));
    Some(Peek {
        key_frame: aggregation.new_sequence && !aggregation.continues,
        start_of_frame: !aggregation.continues,
        end_of_frame: marker,
        temporal,
        spatial,
        switch_up: temporal == 0,
        discardable: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_sequence_is_a_key_frame() {
        // W 2, N; an OBU of a length of one byte: a sequence header without extension.
        let peek = peek(&[0b0010_1000, 0x02, 0x08, 0x00, 0x30], false).unwrap();
        assert!(peek.key_frame && peek.start_of_frame && !peek.end_of_frame);
        assert!(!super::peek(&[0b1001_0000, 0x30], true).unwrap().start_of_frame);
        assert_eq!(super::peek(&[], true), None);
    }

    #[test]
    fn layers_of_the_first_unit() {
        // W 1 has no length; a frame OBU with extension: temporal 2, spatial 1.
        assert_eq!(layers(&[0b0001_0000, 0x34, 0b0100_1000]), Some((2, 1)));
        assert_eq!(layers(&[0b0010_0000, 0x82, 0x01, 0x34, 0b0100_1000]), Some((2, 1)));
        assert_eq!(layers(&[0b0001_0000, 0x30, 0b0100_1000]), None);
        assert_eq!(
            layers(&[0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 0x34, 0x48]),
            None
        );
    }
}
