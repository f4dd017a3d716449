//! VP9 payloads (RFC 9628).

use super::vp8::PictureId;
use super::{Peek, Size};
use crate::bytes::{put, u16_at};

/// The payload descriptor in front of every VP9 payload (section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// P: the frame is predicted from earlier pictures.
    pub inter_predicted: bool,
    /// F: flexible mode, in which every frame names its references.
    pub flexible: bool,
    /// B: the packet begins a frame of one spatial layer.
    pub start_of_frame: bool,
    /// E: the packet ends a frame of one spatial layer.
    pub end_of_frame: bool,
    /// Z: no higher spatial layer refers to this frame.
    pub not_upper_reference: bool,
    /// Picture ID, if there is one.
    pub picture_id: Option<PictureId>,
    /// TID: temporal layer, 0 to 7.
    pub temporal: Option<u8>,
    /// U: from here on a receiver can go up to this temporal layer.
    pub switching_up: bool,
    /// SID: spatial layer, 0 to 7.
    pub spatial: Option<u8>,
    /// D: the frame refers to the next lower spatial layer of its picture.
    pub inter_layer: bool,
    /// TL0PICIDX: counts the pictures of temporal layer 0; only without flexible mode.
    pub tl0_pic_idx: Option<u8>,
    /// The scalability structure, if the packet has one.
    pub structure: Option<Structure>,
    /// Bytes of the descriptor: where the VP9 payload begins.
    pub len: usize,
}

/// Spatial layers of a stream (section 4.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Spatial layers, 1 to 8.
    pub spatial_layers: u8,
    /// Their sizes, as far as the structure says: the first [`Structure::spatial_layers`] count.
    pub sizes: Option<[Size; 8]>,
    /// Pictures of the group that repeats; 0 if it does not say.
    pub pictures: u8,
}

impl Descriptor {
    /// Reads the descriptor; `None` when it goes past the end.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut at = 1;
        let mut descriptor = Self {
            inter_predicted: first & 0x40 != 0,
            flexible: first & 0x10 != 0,
            start_of_frame: first & 0x08 != 0,
            end_of_frame: first & 0x04 != 0,
            not_upper_reference: first & 0x01 != 0,
            ..Self::default()
        };
        if first & 0x80 != 0 {
            descriptor.picture_id = Some(PictureId::read(payload, &mut at)?);
        }
        if first & 0x20 != 0 {
            let layers = *payload.get(at)?;
            at += 1;
            descriptor.temporal = Some(layers >> 5);
            descriptor.switching_up = layers & 0x10 != 0;
            descriptor.spatial = Some(layers >> 1 & 0x07);
            descriptor.inter_layer = layers & 0x01 != 0;
            if !descriptor.flexible {
                descriptor.tl0_pic_idx = Some(*payload.get(at)?);
                at += 1;
            }
        }
        if descriptor.flexible && descriptor.inter_predicted {
            let mut references = 0;
            // N says that another one follows; section 4.2 allows three.
            while *payload.get(at)? & 0x01 != 0 {
                at += 1;
                references += 1;
                if references == REFERENCES_MAX {
                    return None;
                }
            }
            at += 1;
        }
        if first & 0x02 != 0 {
            descriptor.structure = Some(Structure::read(payload, &mut at)?);
        }
        descriptor.len = at;
        Some(descriptor)
    }

    /// Whether the packet begins a key picture: not predicted, and of the lowest spatial layer.
    #[must_use]
    pub fn starts_key_frame(&self) -> bool {
        !self.inter_predicted && self.start_of_frame && self.spatial.unwrap_or(0) == 0
    }

    /// Overwrites picture ID and TL0PICIDX where the payload has them, keeping their width: the low bits of the
    /// numbers count. `payload` is the one that this descriptor was read from; `None` when it is shorter than that.
    pub fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) -> Option<()> {
        payload.get(..self.len)?;
        let mut at = 1;
        if let Some(width) = self.picture_id {
            width.rewrite(payload, at, picture_id)?;
            at += if matches!(width, PictureId::Long(_)) { 2 } else { 1 };
        }
        if self.tl0_pic_idx.is_some() {
            // The byte before it has the layers.
            put(payload, at + 1, &[tl0_pic_idx])?;
        }
        Some(())
    }
}

impl Structure {
    fn read(payload: &[u8], at: &mut usize) -> Option<Self> {
        let first = *payload.get(*at)?;
        *at += 1;
        let mut structure = Self { spatial_layers: (first >> 5) + 1, ..Self::default() };
        if first & 0x10 != 0 {
            let mut sizes = [Size::default(); 8];
            for size in sizes.iter_mut().take(structure.spatial_layers.into()) {
                *size = Size { width: u16_at(payload, *at)?, height: u16_at(payload, *at + 2)? };
                *at += 4;
            }
            structure.sizes = Some(sizes);
        }
        if first & 0x08 != 0 {
            structure.pictures = *payload.get(*at)?;
            *at += 1;
            for _ in 0..structure.pictures {
                let references = *payload.get(*at)? >> 2 & 0x03;
                *at += 1 + usize::from(references);
            }
            payload.get(..*at)?;
        }
        Some(structure)
    }

    /// The size of the highest spatial layer.
    #[must_use]
    pub fn largest(&self) -> Option<Size> {
        self.sizes?.get(usize::from(self.spatial_layers).checked_sub(1)?).copied()
    }
}

/// What forwarding needs of one packet. The marker of the RTP header ends a picture; E, which counts here, a frame of
/// one spatial layer.
#[must_use]
pub fn peek(payload: &[u8]) -> Option<Peek> {
    let descriptor = Descriptor::parse(payload)?;
    // A packet of a descriptor and nothing else carries no frame.
    payload.get(descriptor.len)?;
    let temporal = descriptor.temporal.unwrap_or(0);
    let key_frame = descriptor.starts_key_frame();
    Some(Peek {
        key_frame,
        start_of_frame: descriptor.start_of_frame,
        end_of_frame: descriptor.end_of_frame,
        temporal,
        spatial: descriptor.spatial.unwrap_or(0),
        switch_up: key_frame || temporal == 0 || descriptor.switching_up,
        // Z speaks of upper layers only, and later pictures may still refer to this one.
        discardable: false,
    })
}

const REFERENCES_MAX: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frame_with_structure() {
        let payload = [
            0b1010_1011,
            0x81,
            0x02, // I L B V Z, picture 258
            0b0001_0000,
            0x07,        // TID 0, U, SID 0; TL0PICIDX 7
            0b0011_1000, // two layers, sizes, group
            0x01,
            0x40,
            0x00,
            0xb4,
            0x02,
            0x80,
            0x01,
            0x68, // 320x180, 640x360
            0x02,
            0b0001_0100,
            0x01,
            0b0010_1000,
            0x01,
            0x02, // two pictures
            0xaa,
        ];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId::Long(258)));
        assert_eq!(descriptor.tl0_pic_idx, Some(7));
        assert_eq!(descriptor.len, payload.len() - 1);
        let structure = descriptor.structure.unwrap();
        assert_eq!((structure.spatial_layers, structure.pictures), (2, 2));
        assert_eq!(structure.largest(), Some(Size { width: 640, height: 360 }));
        assert!(descriptor.starts_key_frame() && descriptor.not_upper_reference);
        for cut in 0..descriptor.len {
            assert_eq!(Descriptor::parse(&payload[..cut]), None, "{cut} bytes");
        }
        let mut rewritten = payload;
        descriptor.rewrite(&mut rewritten, 0x1_0003u32 as u16, 9).unwrap();
        let again = Descriptor::parse(&rewritten).unwrap();
        assert_eq!((again.picture_id, again.tl0_pic_idx), (Some(PictureId::Long(3)), Some(9)));
        assert_eq!(again.structure, descriptor.structure);
    }

    #[test]
    fn upper_layer_of_a_key_picture_is_no_start() {
        // I L B, short picture ID, TID 0, SID 1, D.
        let peek = peek(&[0b1010_1000, 0x05, 0b0000_0011, 0x07, 0xaa]).unwrap();
        assert!(!peek.key_frame && peek.start_of_frame);
        assert_eq!(peek.spatial, 1);
    }

    #[test]
    fn flexible_mode_names_up_to_three_references() {
        // I P L F B, picture 5, layers, then P_DIFFs.
        let head = [0b1111_1000, 0x05, 0b0100_0000];
        let with = |diffs: &[u8]| [&head, diffs, &[0xaa]].concat();
        assert_eq!(Descriptor::parse(&with(&[0x02])).unwrap().len, 4);
        assert_eq!(Descriptor::parse(&with(&[0x03, 0x05, 0x06])).unwrap().len, 6);
        assert_eq!(Descriptor::parse(&with(&[0x03, 0x05, 0x07, 0x08])), None);
        assert_eq!(Descriptor::parse(&with(&[0x02])).unwrap().temporal, Some(2));
    }
}
