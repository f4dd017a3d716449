//! Streams with layers made by hand, frame by frame, with what each frame refers to: as encoders make them, without the
//! pictures.

use crate::command::CodecKind;
use crate::testing::IDS;
use std::collections::BTreeMap;
use strait_wire::rtp;

/// What kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Three temporal layers, with Y.
    Vp8,
    /// Three temporal layers, with U.
    Vp9,
    /// Three spatial and three temporal layers, each picture's layers referring to each other.
    Vp9Svc,
    /// The same, but only key pictures' layers refer to each other.
    Vp9KeySvc,
    /// Three temporal layers, with TSA and STSA pictures.
    H265,
    /// Three temporal layers by the dependency descriptor.
    Av1,
    /// As [`Kind::Vp9Svc`], by the dependency descriptor.
    Av1Svc,
    /// As [`Kind::Vp9KeySvc`], by the dependency descriptor.
    Av1KeySvc,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Vp8,
        Self::Vp9,
        Self::Vp9Svc,
        Self::Vp9KeySvc,
        Self::H265,
        Self::Av1,
        Self::Av1Svc,
        Self::Av1KeySvc,
    ];

    pub(crate) fn codec(self) -> CodecKind {
        match self {
            Self::Vp8 => CodecKind::Vp8,
            Self::Vp9 | Self::Vp9Svc | Self::Vp9KeySvc => CodecKind::Vp9,
            Self::H265 => CodecKind::H265,
            Self::Av1 | Self::Av1Svc | Self::Av1KeySvc => CodecKind::Av1,
        }
    }

    pub(crate) fn spatial_layers(self) -> u8 {
        if matches!(self, Self::Vp8 | Self::Vp9 | Self::H265 | Self::Av1) { 1 } else { 3 }
    }

    pub(crate) fn is_key_svc(self) -> bool {
        matches!(self, Self::Vp9KeySvc | Self::Av1KeySvc)
    }
}

/// A frame of one spatial layer.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) refs: Vec<u32>,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    pub(crate) picture: u32,
    pub(crate) packets: u8,
}

/// One packet, and of which frame it is.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) frame: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Where in the repeating pattern of eight pictures one stands: temporal layer, and whether the picture breaks with what
/// its layer had before.
const PATTERN: [(u8, bool); 8] =
    [(0, true), (2, true), (1, true), (2, false), (0, false), (2, false), (1, false), (2, false)];

/// An encoder.
pub(crate) struct Stream {
    kind: Kind,
    ssrc: u32,
    pt: u8,
    seq: u16,
    pictures: u32,
    /// Pictures since the last key picture.
    since_key: u32,
    tl0: u8,
    key_idx: u8,
    next_frame: u32,
    /// The last frames: of each spatial and temporal layer.
    last: BTreeMap<(u8, u8), u32>,
    /// The number that the dependency descriptor has for frame 0.
    number: u16,
    pub(crate) frames: BTreeMap<u32, Frame>,
    /// Bytes that each packet has besides.
    pub(crate) filler: usize,
}

impl Stream {
    pub(crate) fn new(kind: Kind, ssrc: u32, pt: u8, start: u16) -> Self {
        Self {
            kind,
            ssrc,
            pt,
            seq: start >> 1,
            pictures: 0,
            since_key: 0,
            tl0: start as u8,
            key_idx: 0,
            next_frame: 0,
            last: BTreeMap::new(),
            number: start,
            frames: BTreeMap::new(),
            filler: 0,
        }
    }

    /// The next picture, each frame of so many packets.
    pub(crate) fn picture(&mut self, key: bool, packets: u8) -> Vec<Made> {
        let key = key || self.pictures == 0;
        if key {
            self.since_key = 0;
            self.key_idx = self.key_idx.wrapping_add(1) & 0x1F;
            self.last.clear();
        }
        let (temporal, sync) = PATTERN[self.since_key as usize % 8];
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        let mut made = Vec::new();
        let mut below = None;
        for spatial in 0..self.kind.spatial_layers() {
            let id = self.next_frame;
            self.next_frame += 1;
            let mut refs = Vec::new();
            if !key {
                let reach = if sync { 0 } else { temporal };
                refs.extend((0..=reach).filter_map(|t| self.last.get(&(spatial, t)).copied()));
            }
            if key || !self.kind.is_key_svc() {
                refs.extend(below);
            }
            below = Some(id);
            let picture = self.pictures;
            let frame = Frame { refs, spatial, temporal, picture, packets };
            for index in 0..packets {
                made.push(Made { frame: id, bytes: self.packet(id, &frame, (key, sync), index) });
            }
            self.frames.insert(id, frame);
        }
        for spatial in 0..self.kind.spatial_layers() {
            let id = self.next_frame - u32::from(self.kind.spatial_layers() - spatial);
            self.last.insert((spatial, temporal), id);
        }
        self.pictures += 1;
        self.since_key += 1;
        made
    }

    fn packet(&mut self, id: u32, frame: &Frame, (key, sync): (bool, bool), index: u8) -> Vec<u8> {
        let (first, last) = (index == 0, index + 1 == frame.packets);
        let top = frame.spatial + 1 == self.kind.spatial_layers();
        let header = rtp::HeaderBuilder {
            marker: last && top,
            pt: self.pt,
            seq: self.seq,
            timestamp: frame.picture.wrapping_mul(3000),
            ssrc: self.ssrc,
            padding: false,
        };
        self.seq = self.seq.wrapping_add(1);
        let descriptor = match self.kind {
            Kind::Av1 | Kind::Av1Svc | Kind::Av1KeySvc => {
                Some(self.dependency(id, frame, (key, sync), (first, last)))
            }
            _ => None,
        };
        let extensions = descriptor.iter().map(|data| (IDS.dependency_descriptor, data.as_slice()));
        let mut out = vec![0; 400];
        let len = header.write(&[], extensions, &mut out).unwrap();
        out.truncate(len);
        out.extend(self.payload(frame, (key, sync), (first, last)));
        out.resize(out.len() + self.filler, 0);
        out.extend(id.to_be_bytes());
        out.push(index);
        out
    }

    /// What stands in front of the frame's number.
    fn payload(
        &self,
        f: &Frame,
        (key, sync): (bool, bool),
        (first, last): (bool, bool),
    ) -> Vec<u8> {
        let [high, low] = (f.picture as u16 | 0x8000).to_be_bytes();
        match self.kind {
            Kind::Vp8 => vec![
                0x80 | u8::from(first) << 4,
                0xF0,
                high,
                low,
                self.tl0,
                f.temporal << 6 | u8::from(sync && f.temporal > 0) << 5 | self.key_idx,
                u8::from(!key),
            ],
            Kind::Vp9 | Kind::Vp9Svc | Kind::Vp9KeySvc => {
                let structure = key && first && f.spatial == 0;
                let top = f.spatial + 1 == self.kind.spatial_layers();
                let alone = self.kind.is_key_svc() && !key;
                // U: what follows in higher temporal layers refers to none of theirs before.
                let up = sync && f.temporal == 0;
                let inter_layer = f.spatial > 0 && (key || !self.kind.is_key_svc());
                let mut payload = vec![
                    0xA0 | u8::from(!key) << 6
                        | u8::from(first) << 3
                        | u8::from(last) << 2
                        | u8::from(structure) << 1
                        | u8::from(top || alone),
                    high,
                    low,
                    f.temporal << 5 | u8::from(up) << 4 | f.spatial << 1 | u8::from(inter_layer),
                    self.tl0,
                ];
                if structure {
                    payload.push((self.kind.spatial_layers() - 1) << 5 | 0x10);
                    for layer in 0..self.kind.spatial_layers() {
                        payload.extend((320_u16 << layer).to_be_bytes());
                        payload.extend((180_u16 << layer).to_be_bytes());
                    }
                }
                payload
            }
            Kind::H265 => {
                let kind = match (key, f.temporal, sync) {
                    (true, ..) => 19,
                    (_, 0, _) => 1,
                    // Step-wise access: up to their own layer.
                    (_, 1 | 2, true) => 5,
                    _ => 1,
                };
                let start = u8::from(first) << 7 | u8::from(last && !first) << 6;
                vec![49 << 1, f.temporal + 1, start | kind, 0x80]
            }
            // A single element that goes on from packet to packet.
            Kind::Av1 | Kind::Av1Svc | Kind::Av1KeySvc => {
                vec![u8::from(!first) << 7 | u8::from(!last) << 6 | 0x10, 0x30]
            }
        }
    }

    /// A dependency descriptor.
    fn dependency(
        &self,
        id: u32,
        f: &Frame,
        (key, sync): (bool, bool),
        (first, last): (bool, bool),
    ) -> Vec<u8> {
        let number = self.number.wrapping_add(id as u16);
        let mut bits = Bits::default();
        bits.put(first.into(), 1);
        bits.put(last.into(), 1);
        // Ids begin at 60 and wrap: for each layer a template, one for pictures that break with others, one for key frames.
        let template = 9 * f.spatial + 3 * f.temporal + if key { 2 } else { u8::from(sync) };
        bits.put((60 + u32::from(template)) % 64, 6);
        bits.put(number.into(), 16);
        let custom = first && (key || self.kind.is_key_svc());
        if !(first && (key || custom)) {
            return bits.bytes;
        }
        let structure = key && f.spatial == 0;
        bits.put(structure.into(), 1);
        bits.put(0, 1);
        bits.put(custom.into(), 1);
        bits.put(0, 2);
        if structure {
            self.structure(&mut bits);
        }
        if custom {
            for target in 0..3 * self.kind.spatial_layers() {
                bits.put(self.indication(f, key, sync, target), 2);
            }
        }
        bits.bytes
    }

    /// What a frame is to the target of spatial layer `target / 3` and temporal layer `target % 3`.
    fn indication(&self, f: &Frame, key: bool, sync: bool, target: u8) -> u32 {
        let (spatial, temporal) = (target / 3, target % 3);
        let alone = self.kind.is_key_svc() && !key && spatial != f.spatial;
        if f.spatial > spatial || f.temporal > temporal || alone {
            return 0;
        }
        // The first picture of the pattern opens all temporal layers, of its spatial layer or with a key frame of all.
        let opens = sync && (f.temporal == 0 || f.temporal == temporal);
        if opens && (key || f.spatial == spatial) { 2 } else { 3 }
    }

    fn structure(&self, bits: &mut Bits) {
        let layers = self.kind.spatial_layers();
        let targets = 3 * layers;
        bits.put(60, 6);
        bits.put(u32::from(targets) - 1, 5);
        for spatial in 0..layers {
            for step in [0, 0, 1, 0, 0, 1, 0, 0] {
                bits.put(step, 2);
            }
            bits.put(if spatial + 1 == layers { 3 } else { 2 }, 2);
        }
        for spatial in 0..layers {
            for temporal in 0..3 {
                for (key, sync) in [(false, false), (false, true), (true, true)] {
                    let frame = Frame { refs: vec![], spatial, temporal, picture: 0, packets: 0 };
                    for target in 0..targets {
                        bits.put(self.indication(&frame, key, sync, target), 2);
                    }
                }
            }
        }
        // Each template names one frame difference.
        for _ in 0..9 * layers {
            bits.put(1, 1);
            bits.put(2, 4);
            bits.put(0, 1);
        }
        // One chain for all targets: ns(targets + 1), then ns(1), which takes no bits.
        let count = u32::from(targets) + 1;
        let width = u32::BITS - count.leading_zeros();
        let short = (1 << width) - count;
        if 1 < short {
            bits.put(1, width - 1)
        } else {
            bits.put(1 + short, width)
        }
        for _ in 0..9 * layers {
            bits.put(3, 4);
        }
        bits.put(1, 1);
        for layer in 0..layers {
            bits.put((320 << layer) - 1, 16);
            bits.put((180 << layer) - 1, 16);
        }
    }
}

/// Writes bits, the highest of each byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn put(&mut self, value: u32, width: u32) {
        for at in (0..width).rev() {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> at & 1) as u8;
            *self.bytes.last_mut().unwrap() |= bit << (7 - self.count % 8);
            self.count += 1;
        }
    }
}
