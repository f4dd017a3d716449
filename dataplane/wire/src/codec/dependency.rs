//! The dependency descriptor, a header extension that tells frames and layers of AV1 (and others) apart without the
//! payload (RTP Payload Format For AV1, version 1.0.0, appendix A).
//!
//! Read here: the mandatory fields and the flags behind them. The template structure needs state and is later work.

use crate::bytes::u16_at;

/// The first fields of a dependency descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The packet is the first of its frame.
    pub first_in_frame: bool,
    /// The packet is the last of its frame.
    pub last_in_frame: bool,
    /// Which template the frame follows, 0 to 63, relative to the structure sent last.
    pub template_id: u8,
    /// Frame number, wrapping.
    pub frame_number: u16,
    /// What comes after; `None` when the descriptor has the mandatory fields only.
    pub extended: Option<Extended>,
}

/// Flags of a descriptor longer than three bytes (section A.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The template structure is there, which it is on every key frame's first packet.
    pub structure: bool,
    /// The mask of decode targets that are being sent is there.
    pub active_targets: bool,
    /// Decode target indications differ from the template's.
    pub custom_targets: bool,
    /// Frame differences differ from the template's.
    pub custom_differences: bool,
    /// Chains differ from the template's.
    pub custom_chains: bool,
}

impl Descriptor {
    /// Reads an extension's data; `None` when the mandatory fields are not all there.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let first = *data.first()?;
        let frame_number = u16_at(data, 1)?;
        let extended = data.get(3).map(|flags| Extended {
            structure: flags & 0x80 != 0,
            active_targets: flags & 0x40 != 0,
            custom_targets: flags & 0x20 != 0,
            custom_differences: flags & 0x10 != 0,
            custom_chains: flags & 0x08 != 0,
        });
        Some(Self {
            first_in_frame: first & 0x80 != 0,
            last_in_frame: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number,
            extended,
        })
    }

    /// Whether the packet begins a key frame: the structure comes with those.
    #[must_use]
    pub fn starts_key_frame(&self) -> bool {
        self.first_in_frame && self.extended.is_some_and(|extended| extended.structure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mandatory_fields_alone() {
        let descriptor = Descriptor::parse(&[0x45, 0x12, 0x34]).unwrap();
        assert!(!descriptor.first_in_frame && descriptor.last_in_frame);
        assert_eq!((descriptor.template_id, descriptor.frame_number), (5, 0x1234));
        assert_eq!(descriptor.extended, None);
        assert!(!descriptor.starts_key_frame());
        assert_eq!(Descriptor::parse(&[0x45, 0x12]), None);
    }

    #[test]
    fn structure_means_key_frame() {
        assert!(Descriptor::parse(&[0x80, 0, 1, 0x80, 0]).unwrap().starts_key_frame());
        assert!(!Descriptor::parse(&[0x00, 0, 1, 0x80, 0]).unwrap().starts_key_frame());
        let flags = Descriptor::parse(&[0x80, 0, 1, 0x48]).unwrap().extended.unwrap();
        assert!(!flags.structure && flags.active_targets && flags.custom_chains);
    }
}
