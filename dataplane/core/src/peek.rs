//! What the path wants to know of a payload.

use crate::command::CodecKind;
use crate::layer::{Layer, Switch, Target, Targets};
use crate::limits::TEMPORAL_LAYERS;
use strait_wire::codec::dependency::{Descriptor, Frame, Indication, Indications, Structure};
use strait_wire::codec::{Peek as Seen, av1, h264, h265, vp8, vp9};

/// One look into a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peek {
    /// Decoding can begin with this packet: a key frame begins, or key frames are not known of this codec.
    pub(crate) enters: bool,
    /// A key frame, or what stands before one, begins here.
    pub(crate) key_frame: bool,
    /// A picture begins here for certain.
    pub(crate) begins: bool,
    /// Picture id of VP8 and VP9.
    pub(crate) picture: Option<u16>,
    /// TL0PICIDX of VP8 and VP9.
    pub(crate) tl0: Option<u8>,
    /// KEYIDX of VP8.
    pub(crate) key_idx: Option<u8>,
    /// Frame number of the dependency descriptor.
    pub(crate) frame: Option<u16>,
    pub(crate) layer: Layer,
}

impl Peek {
    fn of(seen: Option<Seen>) -> Self {
        let Some(seen) = seen else { return Self::default() };
        let switch = if seen.key_frame { Switch::Any } else { Switch::No };
        let layer = Layer { switch, ends: seen.end_of_frame, ..Layer::ONLY };
        let key_frame = seen.key_frame;
        Self { enters: key_frame, key_frame, layer, ..Self::default() }
    }
}

/// What of a source must be known to read its packets' layers.
#[derive(Debug, Default)]
pub(crate) struct Layering {
    /// From the last key frame with a dependency descriptor.
    structure: Option<Box<Structure>>,
    /// The decode target behind each of ours, in the structure.
    targets: [u8; Target::COUNT],
    /// Sequence number of the packet that brought the structure.
    structure_seq: u64,
    /// The newest frame that said more than its template, and what that was: only its first packet does.
    custom: Option<(u16, Layer)>,
    /// Spatial layers of the stream, once known.
    spatial_layers: Option<u8>,
    /// The stream itself brings its parameter sets (H.264, H.265).
    in_band: bool,
    /// The last packet that ended a picture (H.264, H.265).
    ended: Option<u64>,
}

impl Layering {
    /// How many spatial layers the stream has, once known.
    pub(crate) fn spatial_layers(&self) -> Option<u8> {
        self.spatial_layers
    }

    /// Looks into a packet. What cannot be read is no key frame: decoding never begins with it.
    pub(crate) fn peek(
        &mut self,
        kind: CodecKind,
        payload: &[u8],
        (seq, marker): (u64, bool),
        descriptor: Option<&[u8]>,
    ) -> Peek {
        let mut peek = match kind {
            CodecKind::Vp8 => of_vp8(payload, marker),
            CodecKind::Vp9 => self.of_vp9(payload),
            CodecKind::H264 => {
                let seen = Peek::of(h264::peek(payload, marker));
                let is_first = |unit: h264::Unit<'_>| unit.start && unit.kind == h264::SPS;
                self.after_sets(seen, (seq, marker), || h264::units(payload).any(is_first))
            }
            CodecKind::H265 => {
                let seen = of_h265(payload, marker);
                let is_first = |unit: h265::Unit<'_>| unit.start && unit.kind == h265::VPS;
                self.after_sets(seen, (seq, marker), || h265::units(payload).any(is_first))
            }
            CodecKind::Av1 => Peek::of(av1::peek(payload, marker)),
            CodecKind::Opus | CodecKind::Other => Peek { enters: true, ..Peek::default() },
        };
        let Some(data) = descriptor else { return peek };
        let Some(descriptor) = Descriptor::parse(data) else { return peek };
        peek.frame = Some(descriptor.frame_number);
        if kind == CodecKind::Av1 {
            (peek.key_frame, peek.enters) =
                (descriptor.starts_key_frame(), descriptor.starts_key_frame());
        }
        if let Some(layer) = self.of_descriptor(&descriptor, data, seq) {
            peek.begins = descriptor.first_in_frame && layer.spatial == 0;
            peek.layer = layer;
        }
        peek
    }

    /// A key picture whose parameter sets were overtaken, or lost, is none to begin with: they would belong before what was
    /// sent first. `has_sets` tells whether the packet has the first of them.
    fn after_sets(
        &mut self,
        mut peek: Peek,
        (seq, marker): (u64, bool),
        has_sets: impl FnOnce() -> bool,
    ) -> Peek {
        if peek.key_frame {
            let has_sets = has_sets();
            self.in_band |= has_sets;
            let is_bare = self.ended.is_some_and(|ended| ended + 1 == seq);
            peek.enters = has_sets || is_bare || !self.in_band;
        }
        if marker {
            self.ended = Some(seq);
        }
        peek
    }

    /// The layer of a frame by its dependency descriptor.
    fn of_descriptor(&mut self, descriptor: &Descriptor, data: &[u8], seq: u64) -> Option<Layer> {
        // One that arrives late is not the one in force.
        if seq > self.structure_seq
            && let Some(structure) = descriptor.structure(data)
        {
            for (place, target) in self.targets.iter_mut().zip(Target::all()) {
                // The last layers that are told apart stand for all above as well.
                let max = |layer: u8| if layer == 3 { u8::MAX } else { layer };
                let found = structure.target(max(target.spatial()), max(target.temporal()));
                *place = found.unwrap_or(u8::MAX);
            }
            let top = (0..structure.targets).filter_map(|target| structure.layers(target)).max();
            self.spatial_layers = top.map(|(spatial, _)| spatial + 1);
            self.structure = Some(structure);
            self.structure_seq = seq;
            self.custom = None;
        }
        let frame = descriptor.read(data, self.structure.as_deref()?)?;
        let number = descriptor.frame_number;
        if !descriptor.first_in_frame
            && let Some((_, layer)) = self.custom.filter(|(custom, _)| *custom == number)
        {
            return Some(Layer { ends: descriptor.last_in_frame, ..layer });
        }
        let layer = Layer {
            switch: self.switch(descriptor, &frame),
            of: self.marked(frame.indications, |indication| indication != Indication::NotPresent),
            spatial: frame.spatial,
            spatial_layers: self.spatial_layers.unwrap_or(1),
            ends: descriptor.last_in_frame,
        };
        if descriptor.extended.is_some() {
            self.custom = Some((number, layer));
        }
        Some(layer)
    }

    fn switch(&self, descriptor: &Descriptor, frame: &Frame) -> Switch {
        if descriptor.starts_key_frame() {
            return Switch::Any;
        }
        let present = self.marked(frame.indications, |i| i != Indication::NotPresent);
        let to = self.marked(frame.indications, |i| i == Indication::Switch);
        if to == Targets::NONE { Switch::No } else { Switch::Between(present, to) }
    }

    /// Our targets, of those of the structure, for which the frame is marked so. One that there is none for gets all.
    fn marked(&self, indications: Indications, is: impl Fn(Indication) -> bool) -> Targets {
        let targets = Target::all().zip(self.targets);
        let marked = targets.filter(|(_, place)| *place == u8::MAX || is(indications.of(*place)));
        marked.map(|(target, _)| target).collect()
    }

    fn of_vp9(&mut self, payload: &[u8]) -> Peek {
        let Some(descriptor) = vp9::Descriptor::parse(payload) else { return Peek::default() };
        let key_frame = descriptor.starts_key_frame();
        if let Some(structure) = &descriptor.structure {
            self.spatial_layers = Some(structure.spatial_layers);
        }
        let (temporal, spatial) =
            (descriptor.temporal.unwrap_or(0), descriptor.spatial.unwrap_or(0));
        let is_top = self.spatial_layers.is_none_or(|layers| spatial + 1 >= layers);
        let serves_upper = is_top || !descriptor.not_upper_reference;
        let serves = |row: &u8| *row == spatial || *row == 3 || (*row > spatial && serves_upper);
        let rows = (0..4).filter(serves).map(Targets::row).fold(Targets::NONE, Targets::with);
        let of = rows.both(Targets::from_temporal(temporal));
        let predicted = descriptor.inter_predicted;
        let switch = match () {
            () if !predicted && spatial == 0 => Switch::Any,
            () if descriptor.switching_up && descriptor.temporal.is_some() => Switch::Temporal,
            () => Switch::No,
        };
        Peek {
            enters: key_frame,
            key_frame,
            begins: descriptor.start_of_frame && spatial == 0,
            picture: descriptor.picture_id.map(|id| id.value()),
            tl0: descriptor.tl0_pic_idx,
            layer: Layer {
                of,
                switch,
                spatial,
                spatial_layers: self.spatial_layers.unwrap_or(spatial + 1),
                ends: descriptor.end_of_frame,
            },
            ..Peek::default()
        }
    }
}

fn of_vp8(payload: &[u8], marker: bool) -> Peek {
    let Some(descriptor) = vp8::Descriptor::parse(payload) else { return Peek::default() };
    let key_frame = vp8::is_key_frame(&descriptor, payload);
    let layer = match descriptor.temporal {
        _ if key_frame => Layer { switch: Switch::Any, ..Layer::ONLY },
        None | Some(0) => Layer::ONLY,
        Some(temporal) => Layer::temporal(temporal, sync(temporal, descriptor.layer_sync)),
    };
    Peek {
        enters: key_frame,
        key_frame,
        begins: descriptor.starts_frame(),
        picture: descriptor.picture_id.map(|id| id.value()),
        tl0: descriptor.tl0_pic_idx,
        key_idx: descriptor.key_idx,
        frame: None,
        layer: Layer { ends: marker, ..layer },
    }
}

/// VP8's Y: the frame refers to the base layer alone. What its layer has from here on does not reach back further; a
/// layer above it may.
fn sync(temporal: u8, layer_sync: bool) -> Switch {
    if layer_sync && usize::from(temporal) < TEMPORAL_LAYERS {
        Switch::Between(Targets::at_temporal(temporal - 1), Targets::at_temporal(temporal))
    } else {
        Switch::No
    }
}

fn of_h265(payload: &[u8], marker: bool) -> Peek {
    let seen = Peek::of(h265::peek(payload, marker));
    let Some(unit) = h265::units(payload).find(|unit| unit.temporal > 0) else { return seen };
    let below = Targets::at_temporal(unit.temporal - 1);
    let switch = match unit.kind {
        _ if usize::from(unit.temporal) >= TEMPORAL_LAYERS => Switch::No,
        // Temporal sub-layer access: up to this layer and all above.
        2 | 3 => Switch::Between(below, Targets::from_temporal(unit.temporal)),
        // Step-wise: up to this layer.
        4 | 5 => Switch::Between(below, Targets::at_temporal(unit.temporal)),
        _ => Switch::No,
    };
    let layer = Layer { ends: marker, ..Layer::temporal(unit.temporal, switch) };
    Peek { layer, ..seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enters(layering: &mut Layering, kind: CodecKind, payload: &[u8], seq: u64) -> bool {
        let marker = payload.last() == Some(&0xEE);
        layering.peek(kind, payload, (seq, marker), None).enters
    }

    #[test]
    fn nobody_begins_behind_parameter_sets() {
        // Parameter sets, then a key picture that ends with 0xEE, then one that is none.
        let h264: [&[u8]; 4] = [&[0x67, 1], &[0x68, 1], &[0x65, 0x80, 0xEE], &[0x41, 0x80, 0xEE]];
        let h265: [&[u8]; 4] =
            [&[64, 1, 1], &[66, 1, 1], &[38, 1, 0x80, 0xEE], &[2, 1, 0x80, 0xEE]];
        for (kind, [first, second, key, other]) in
            [(CodecKind::H264, h264), (CodecKind::H265, h265)]
        {
            let mut layering = Layering::default();
            assert!(enters(&mut layering, kind, key, 10), "{kind:?}: they may be known otherwise");
            assert!(enters(&mut layering, kind, first, 11), "{kind:?}");
            assert!(!enters(&mut layering, kind, second, 12), "{kind:?}");
            assert!(!enters(&mut layering, kind, key, 13), "{kind:?}: they come with it");
            assert!(!enters(&mut layering, kind, other, 14), "{kind:?}");
            assert!(enters(&mut layering, kind, key, 15), "{kind:?}: nothing came before it");
            assert!(!enters(&mut layering, kind, key, 18), "{kind:?}: something is missing");
            assert!(enters(&mut layering, kind, first, 16), "{kind:?}: late");
        }
    }
}
