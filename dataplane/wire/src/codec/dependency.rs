//! The dependency descriptor, a header extension that tells frames and layers of AV1 (and others) apart without the
//! payload (RTP Payload Format For AV1, version 1.0.0, appendix A).
//!
//! [`Descriptor::parse`] reads what every packet says by itself; [`Descriptor::read`] the whole, with the structure that
//! the last key frame brought.

use crate::bytes::u16_at;
use crate::codec::Size;

/// Templates of a structure at most: their id has six bits.
pub const TEMPLATES_MAX: usize = 64;
/// Decode targets of a structure at most (section A.8.3.2, dt_cnt_minus_one).
pub const TARGETS_MAX: usize = 32;
/// Spatial layers of a structure at most: each takes a template.
pub const SPATIAL_MAX: usize = 8;

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

/// What a frame is to a decode target (section A.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    /// The target does without the frame.
    NotPresent,
    /// The frame belongs to the target, and nothing of the target refers to it.
    Discardable,
    /// Whoever decodes this frame can decode all of the target that follows.
    Switch,
    /// The frame belongs to the target, and others may refer to it.
    Required,
}

/// Indications of one frame for all decode targets: two bits each, the first target lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indications(u64);

impl Indications {
    /// That for one target; not present for targets that do not exist.
    #[must_use]
    pub const fn of(self, target: u8) -> Indication {
        let bits = if (target as usize) < TARGETS_MAX { self.0 >> (2 * target) & 3 } else { 0 };
        match bits {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }
}

/// What frames of one kind have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// What frames of it are to the decode targets.
    pub indications: Indications,
}

/// The template structure, which stands in key frames and holds until the next (section A.8.3.2). Frame differences and
/// chains are passed over: who forwards by decode target needs them not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Id of the first template.
    pub first_id: u8,
    templates: [Template; TEMPLATES_MAX],
    count: u8,
    /// Decode targets, 1 to 32.
    pub targets: u8,
    /// Chains, at most one for each target.
    pub chains: u8,
    /// Spatial and temporal layer of each target: the highest of the frames that belong to it.
    layers: [(u8, u8); TARGETS_MAX],
    /// Sizes of the spatial layers, if the structure says them.
    pub sizes: Option<[Size; SPATIAL_MAX]>,
}

/// All that a descriptor says of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// What the frame is to the decode targets.
    pub indications: Indications,
    /// The targets that are being sent, if the descriptor says so: the first target lowest.
    pub active_targets: Option<u32>,
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

    /// Reads the structure that the extension's data brings, if it brings one that can be read.
    #[must_use]
    pub fn structure(&self, data: &[u8]) -> Option<Box<Structure>> {
        self.extended.filter(|extended| extended.structure)?;
        Structure::read(&mut Bits::new(data, EXTENDED_BITS))
    }

    /// Reads what the extension's data says of the frame. `structure` is the one in force: that of this packet if it
    /// brings one, or else that of the last key frame. `None` when the two do not fit.
    #[must_use]
    pub fn read(&self, data: &[u8], structure: &Structure) -> Option<Frame> {
        let template = *structure.template(self.template_id)?;
        let mut frame = Frame {
            spatial: template.spatial,
            temporal: template.temporal,
            indications: template.indications,
            active_targets: None,
        };
        let Some(extended) = self.extended else { return Some(frame) };
        if !extended.active_targets && !extended.custom_targets {
            return Some(frame);
        }
        let mut bits = Bits::new(data, EXTENDED_BITS);
        if extended.structure {
            Structure::read(&mut bits)?;
        }
        if extended.active_targets {
            frame.active_targets = Some(bits.take(structure.targets.into())?);
        }
        if extended.custom_targets {
            frame.indications = read_indications(&mut bits, structure.targets)?;
        }
        Some(frame)
    }
}

impl Structure {
    /// The template with this id.
    #[must_use]
    pub fn template(&self, id: u8) -> Option<&Template> {
        let at = id.wrapping_sub(self.first_id) & 0x3f;
        self.templates.get(..self.count.into())?.get(usize::from(at))
    }

    /// The target of the best layers up to these: the highest spatial one first. Targets that need frames of higher
    /// layers are not among them.
    #[must_use]
    pub fn target(&self, spatial_max: u8, temporal_max: u8) -> Option<u8> {
        let layers = self.layers.get(..self.targets.into())?.iter();
        (0_u8..)
            .zip(layers)
            .filter(|(_, (spatial, temporal))| *spatial <= spatial_max && *temporal <= temporal_max)
            .max_by_key(|(target, layers)| (**layers, u8::MAX - target))
            .map(|(target, _)| target)
    }

    /// Spatial and temporal layer of a target.
    #[must_use]
    pub fn layers(&self, target: u8) -> Option<(u8, u8)> {
        self.layers.get(..self.targets.into())?.get(usize::from(target)).copied()
    }

    fn read(bits: &mut Bits<'_>) -> Option<Box<Self>> {
        let mut structure = Box::new(Self {
            first_id: bits.take(6)? as u8,
            templates: [Template::default(); TEMPLATES_MAX],
            count: 0,
            targets: bits.take(5)? as u8 + 1,
            chains: 0,
            layers: [(0, 0); TARGETS_MAX],
            sizes: None,
        });
        let (mut spatial, mut temporal) = (0_u8, 0_u8);
        loop {
            let template = structure.templates.get_mut(usize::from(structure.count))?;
            *template = Template { spatial, temporal, ..Template::default() };
            structure.count += 1;
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
        }
        let (count, targets) = (usize::from(structure.count), structure.targets);
        for template in structure.templates.iter_mut().take(count) {
            template.indications = read_indications(bits, targets)?;
        }
        for _ in 0..count {
            while bits.take(1)? != 0 {
                bits.take(4)?;
            }
        }
        structure.chains = bits.non_symmetric(u32::from(targets) + 1)? as u8;
        if structure.chains > 0 {
            for _ in 0..targets {
                bits.non_symmetric(structure.chains.into())?;
            }
            bits.skip(count * usize::from(structure.chains) * 4)?;
        }
        let templates = structure.templates;
        for (target, layers) in (0_u8..).zip(structure.layers.iter_mut().take(targets.into())) {
            for template in templates.iter().take(count) {
                if template.indications.of(target) != Indication::NotPresent {
                    *layers = (layers.0.max(template.spatial), layers.1.max(template.temporal));
                }
            }
        }
        if bits.take(1)? != 0 {
            let mut sizes = [Size::default(); SPATIAL_MAX];
            for layer in 0..=usize::from(spatial) {
                let (width, height) = (bits.take(16)? as u16, bits.take(16)? as u16);
                let size =
                    Size { width: width.saturating_add(1), height: height.saturating_add(1) };
                *sizes.get_mut(layer)? = size;
            }
            structure.sizes = Some(sizes);
        }
        Some(structure)
    }
}

fn read_indications(bits: &mut Bits<'_>, targets: u8) -> Option<Indications> {
    let mut indications = 0;
    for target in 0..targets {
        indications |= u64::from(bits.take(2)?) << (2 * target);
    }
    Some(Indications(indications))
}

/// Moves the frame number in an extension's data; `None` when it has none.
pub fn renumber(data: &mut [u8], offset: u16) -> Option<()> {
    let number = u16_at(data, 1)?.wrapping_add(offset);
    crate::bytes::put(data, 1, &number.to_be_bytes())
}

/// Where the fields behind the flags begin.
const EXTENDED_BITS: usize = 29;

/// Reads bits, the highest of each byte first.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at }
    }

    /// A number of `count` bits, at most 32.
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for at in self.at..self.at + count {
            let bit = self.data.get(at / 8)? >> (7 - at % 8) & 1;
            value = value << 1 | u32::from(bit);
        }
        self.at += count;
        Some(value)
    }

    /// A number below `count`, in as few bits as it takes (ns(n) of section A.8.2).
    fn non_symmetric(&mut self, count: u32) -> Option<u32> {
        let width = u32::BITS - count.leading_zeros();
        let short = (1_u32 << width).wrapping_sub(count);
        let value = self.take(width.saturating_sub(1) as usize)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1 | self.take(1)?) - short)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.data.len() * 8).then_some(())
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
