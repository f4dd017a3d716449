//! Layers inside a stream: which frames a subscription gets, and at which it may go to others.
//!
//! A *target* is what the dependency descriptor calls a decode target: a spatial and a temporal layer with all that they
//! need. Of each frame it is known which targets it belongs to, and to which one may go with it. A subscription keeps the
//! set of targets that its decoder could show: a target leaves the set with the first frame of it that is left out, and
//! comes back where the codec says so. It may go to any target of the set, up or down, when a picture begins.

use crate::limits::{SPATIAL_LAYERS, TEMPORAL_LAYERS};

/// The highest spatial and temporal layer that are sent, with what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target(u8);

impl Target {
    /// How many there are.
    pub(crate) const COUNT: usize = SPATIAL_LAYERS * TEMPORAL_LAYERS;
    /// All that there is.
    pub(crate) const BEST: Self = Self(Self::COUNT as u8 - 1);

    /// Layers above the last one that is told apart count as that one.
    pub(crate) fn new(spatial: u8, temporal: u8) -> Self {
        let spatial = spatial.min(SPATIAL_LAYERS as u8 - 1);
        Self(spatial * TEMPORAL_LAYERS as u8 + temporal.min(TEMPORAL_LAYERS as u8 - 1))
    }

    /// All spatial layers, and temporal ones up to this.
    pub(crate) const fn upto_temporal(temporal: u8) -> Self {
        let temporal =
            if temporal < TEMPORAL_LAYERS as u8 { temporal } else { TEMPORAL_LAYERS as u8 - 1 };
        Self((SPATIAL_LAYERS * TEMPORAL_LAYERS - TEMPORAL_LAYERS) as u8 + temporal)
    }

    /// No more of either than both have.
    pub(crate) fn within(self, other: Self) -> Self {
        let spatial = self.spatial().min(other.spatial());
        Self::new(spatial, self.temporal().min(other.temporal()))
    }

    /// Highest spatial layer.
    pub(crate) fn spatial(self) -> u8 {
        self.0 / TEMPORAL_LAYERS as u8
    }

    /// Highest temporal layer.
    pub(crate) fn temporal(self) -> u8 {
        self.0 % TEMPORAL_LAYERS as u8
    }

    /// All targets with their places.
    pub(crate) fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=Self::BEST.0).map(Self)
    }

    fn bit(self) -> u16 {
        1_u16.checked_shl(self.0.into()).unwrap_or_default()
    }
}

impl Default for Target {
    fn default() -> Self {
        Self::BEST
    }
}

const _: () = assert!(Target::COUNT == u16::BITS as usize);

/// A set of targets: a row of temporal layers for each spatial layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Targets(u16);

impl Targets {
    /// None.
    pub(crate) const NONE: Self = Self(0);
    /// Every one.
    pub(crate) const ALL: Self = Self(u16::MAX);

    /// Those that have this temporal layer.
    pub(crate) fn from_temporal(temporal: u8) -> Self {
        Self(0x1111 * (0xF << temporal.min(3) & 0xF))
    }

    /// Those that have none above this temporal layer.
    fn upto_temporal(temporal: u8) -> Self {
        Self(0x1111 * (0xF >> (3 - temporal.min(3))))
    }

    /// Those whose highest temporal layer is this one.
    pub(crate) fn at_temporal(temporal: u8) -> Self {
        Self(0x1111 << temporal.min(3))
    }

    pub(crate) fn has(self, target: Target) -> bool {
        self.0 & target.bit() != 0
    }

    pub(crate) fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) fn both(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// The whole rows of those that it has.
    fn rows(self) -> Self {
        let any = (self.0 | self.0 >> 1 | self.0 >> 2 | self.0 >> 3) & 0x1111;
        Self(any * 0xF)
    }

    /// Those that have this spatial layer as their highest.
    pub(crate) fn row(spatial: u8) -> Self {
        Self(0xF_u16.checked_shl(u32::from(spatial) * TEMPORAL_LAYERS as u32).unwrap_or_default())
    }

    /// The best one within `wanted`: spatial layers count for more.
    fn best(self, wanted: Target) -> Option<Target> {
        Target::all().rev().find(|target| {
            let within =
                target.spatial() <= wanted.spatial() && target.temporal() <= wanted.temporal();
            within && self.has(*target)
        })
    }
}

impl FromIterator<Target> for Targets {
    fn from_iter<I: IntoIterator<Item = Target>>(targets: I) -> Self {
        Self(targets.into_iter().fold(0, |set, target| set | target.bit()))
    }
}

/// Where one may go with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Nowhere.
    #[default]
    No,
    /// Anywhere: a key frame.
    Any,
    /// To all temporal layers, from every target that has the frame (VP9's U).
    Temporal,
    /// From the first ones to the second ones.
    Between(Targets, Targets),
}

/// What a packet says of the layer of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The targets that the frame belongs to: others do without it.
    pub(crate) of: Targets,
    pub(crate) switch: Switch,
    pub(crate) spatial: u8,
    /// How many spatial layers the stream has, as far as is known.
    pub(crate) spatial_layers: u8,
    /// It ends the frame of its spatial layer.
    pub(crate) ends: bool,
}

impl Layer {
    /// Of a stream without layers.
    pub(crate) const ONLY: Self =
        Self { of: Targets::ALL, switch: Switch::No, spatial: 0, spatial_layers: 1, ends: false };

    /// Of the temporal layer of a stream without spatial ones.
    pub(crate) fn temporal(temporal: u8, switch: Switch) -> Self {
        Self { of: Targets::from_temporal(temporal), switch, ..Self::ONLY }
    }

    /// Whether the frame is part of this share.
    pub(crate) fn is_for(&self, share: Share) -> bool {
        share.is_none_or(|target| self.of.has(target))
    }

    /// Whether the packet is the last one of this share's picture.
    pub(crate) fn ends_picture(&self, share: Share) -> bool {
        self.ends && share.is_some_and(|target| self.spatial == target.spatial())
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::ONLY
    }
}

/// What goes out of a stream: all of it, or a target's share.
pub(crate) type Share = Option<Target>;

/// The layers of one subscription.
#[derive(Debug)]
pub(crate) struct Layers {
    wanted: Target,
    current: Target,
    /// All goes out, whatever it belongs to.
    whole: bool,
    /// The targets that can be shown from here on: none of their frames was left out.
    shown: Targets,
    /// Since the last key frame packets went missing.
    unsure: bool,
    /// Timestamp of the newest picture while layers are left out.
    picture: Option<u32>,
    awaits: bool,
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            wanted: Target::BEST,
            current: Target::BEST,
            whole: true,
            shown: Targets::ALL,
            unsure: false,
            picture: None,
            awaits: false,
        }
    }
}

impl Layers {
    /// Whether all goes out, and is to.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.whole && self.wanted == Target::BEST
    }

    /// What goes out.
    pub(crate) fn share(&self) -> Share {
        (!self.whole).then_some(self.current)
    }

    /// Whether what is wanted needs a key frame.
    pub(crate) fn awaits_key_frame(&self) -> bool {
        self.awaits
    }

    /// What is wanted from now on.
    pub(crate) fn want(&mut self, wanted: Target) {
        self.wanted = wanted;
        self.awaits = false;
    }

    /// The stream begins, with a key frame.
    pub(crate) fn enter(&mut self, timestamp: u32) {
        self.current = self.wanted;
        self.whole = self.wanted == Target::BEST;
        self.shown = Targets::ALL;
        self.unsure = false;
        self.picture = Some(timestamp);
        self.awaits = false;
    }

    /// Whether the picture of this timestamp has begun.
    pub(crate) fn is_in(&self, timestamp: u32) -> bool {
        self.picture == Some(timestamp)
    }

    /// Takes note of the newest packet of the stream. `begins` says that it is the first of its picture, where other layers
    /// may go out from; `follows`, that nothing is missing before it.
    pub(crate) fn choose(&mut self, layer: &Layer, timestamp: u32, begins: bool, follows: bool) {
        self.picture = Some(timestamp);
        if !follows && !self.whole {
            self.doubt(layer);
        }
        if begins && self.unsure && !layer.of.has(self.current) {
            // Lower layers are not part of the higher ones: what is missing may be theirs.
            self.shown = self.shown.both(Targets::row(self.current.spatial()));
        }
        let reachable = self.shown.with(self.reached(layer));
        if begins {
            self.current = reachable.best(self.wanted).unwrap_or(self.current);
            self.whole = self.current == Target::BEST && reachable == Targets::ALL;
            let top = layer.spatial_layers.saturating_sub(1);
            let (spatial, wanted) = (self.current.spatial(), self.wanted.spatial());
            self.awaits = spatial.min(top) != wanted.min(top);
        }
        if layer.switch == Switch::Any {
            self.unsure = false;
        }
        if self.whole || layer.of.has(self.current) {
            self.shown = reachable;
        } else {
            self.shown = self.shown.without(layer.of);
        }
    }

    /// Something is missing before a packet: it may be of layers that are left out, of which nothing is sure then.
    fn doubt(&mut self, layer: &Layer) {
        let within = Targets::upto_temporal(self.current.temporal());
        let has_upper = self.current.spatial() + 1 < layer.spatial_layers;
        let rows = if has_upper { self.current.spatial() } else { Target::BEST.spatial() };
        let rows = (0..=rows).map(Targets::row).fold(Targets::NONE, Targets::with);
        self.shown = self.shown.both(within).both(rows);
        self.unsure = true;
    }

    /// The targets that could be shown from this frame on, if it goes out.
    fn reached(&self, layer: &Layer) -> Targets {
        match layer.switch {
            Switch::No => Targets::NONE,
            Switch::Any => Targets::ALL,
            Switch::Temporal => self.shown.both(layer.of).rows(),
            Switch::Between(from, to) if from.has(self.current) => to,
            Switch::Between(..) => Targets::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upto(temporal: u8) -> Target {
        Target::new(3, temporal)
    }

    fn on(temporal: u8) -> Layers {
        let mut layers = Layers::default();
        layers.want(upto(temporal));
        layers.enter(0);
        layers
    }

    fn sync(temporal: u8) -> Layer {
        let (from, to) = (Targets::at_temporal(temporal - 1), Targets::at_temporal(temporal));
        Layer::temporal(temporal, Switch::Between(from, to))
    }

    fn plain(temporal: u8) -> Layer {
        Layer::temporal(temporal, Switch::No)
    }

    /// The next picture begins.
    fn begin(layers: &mut Layers, layer: &Layer) -> Share {
        let picture = layers.picture.unwrap_or(0) + 1;
        layers.choose(layer, picture, true, true);
        layers.share()
    }

    #[test]
    fn down_at_once_and_up_one_by_one() {
        let mut layers = Layers::default();
        assert!(layers.is_whole());
        layers.want(upto(0));
        layers.choose(&plain(1), 1, false, true);
        assert_eq!(layers.share(), None, "not within a picture");
        assert_eq!(begin(&mut layers, &plain(2)), Some(upto(0)));
        begin(&mut layers, &plain(1));
        layers.want(Target::BEST);
        for layer in [plain(0), plain(1), sync(2)] {
            assert_eq!(begin(&mut layers, &layer), Some(upto(0)), "{layer:?}");
        }
        assert_eq!(begin(&mut layers, &sync(1)), Some(upto(1)));
        assert_eq!(begin(&mut layers, &plain(2)), Some(upto(1)));
        assert_eq!(begin(&mut layers, &sync(2)), Some(upto(2)));
        assert!(!layers.awaits_key_frame(), "higher temporal layers come by themselves");
    }

    #[test]
    fn what_was_not_left_out_is_reached_at_once() {
        let mut layers = on(0);
        begin(&mut layers, &plain(0));
        layers.want(upto(2));
        assert_eq!(begin(&mut layers, &plain(0)), Some(upto(2)), "no other picture came between");
        layers.want(upto(0));
        begin(&mut layers, &plain(0));
        layers.want(upto(2));
        layers.choose(&plain(0), 99, true, false);
        assert_eq!(layers.share(), Some(upto(0)), "one that is missing may have come between");
    }

    #[test]
    fn a_key_frame_leads_anywhere() {
        let mut layers = on(0);
        begin(&mut layers, &plain(1));
        layers.want(Target::BEST);
        let key_frame = Layer { switch: Switch::Any, ..Layer::ONLY };
        assert_eq!(begin(&mut layers, &key_frame), None);
        assert!(layers.is_whole());
    }

    fn of(spatial: impl Fn(u8) -> bool) -> Targets {
        Target::all().filter(|target| spatial(target.spatial())).collect()
    }

    #[test]
    fn spatial_layers_need_a_key_frame_up_and_none_down() {
        let frame =
            |s| Layer { of: of(|row| row >= s), spatial: s, spatial_layers: 3, ..Layer::ONLY };
        let mut layers = Layers::default();
        layers.want(Target::new(0, 3));
        let low = Some(Target::new(0, 3));
        assert_eq!(begin(&mut layers, &frame(0)), low);
        assert!(!layers.awaits_key_frame() && !frame(1).is_for(low));
        layers.choose(&frame(1), 1, false, true);
        layers.want(Target::new(1, 3));
        assert_eq!(begin(&mut layers, &frame(0)), low);
        assert!(layers.awaits_key_frame());
        let key_frame = Layer { switch: Switch::Any, ..frame(0) };
        assert_eq!(begin(&mut layers, &key_frame), Some(Target::new(1, 3)));
        assert!(!layers.awaits_key_frame());
        let end = Layer { ends: true, ..frame(1) };
        assert!(end.ends_picture(layers.share()) && !end.ends_picture(low));
    }

    #[test]
    fn lower_layers_that_were_left_out_cannot_be_shown() {
        // As in k-SVC: beyond key frames each layer refers to itself alone.
        let frame =
            |s| Layer { of: of(|row| row == s), spatial: s, spatial_layers: 2, ..Layer::ONLY };
        let mut layers = Layers::default();
        layers.want(Target::new(1, 3));
        layers.enter(0);
        begin(&mut layers, &frame(0));
        layers.choose(&frame(1), 1, false, true);
        layers.want(Target::new(0, 3));
        assert_eq!(begin(&mut layers, &frame(0)), Some(Target::new(1, 3)));
        assert!(layers.awaits_key_frame());
    }
}
