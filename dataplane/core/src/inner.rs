//! How much of a stream each of its inner layers takes, by what its packets said of theirs.

use crate::layer::{Target, Targets};
use crate::limits::LAYER_SETS;

/// What was counted of one kind of frame.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// The targets that the frames belong to.
    of: Option<Targets>,
    /// Bytes since the last sample.
    bytes: u64,
    /// Bytes of the samples before, the older the less.
    lately: u64,
}

/// The parts of one stream. Until a packet of some layer comes, it is whole and takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Inner(Option<Box<[Counted; LAYER_SETS]>>);

impl Inner {
    /// A packet came of a frame that belongs to these targets.
    #[inline]
    pub(crate) fn count(&mut self, of: Targets, bytes: usize) {
        if of != Targets::ALL || self.0.is_some() {
            self.count_layer(of, bytes);
        }
    }

    fn count_layer(&mut self, of: Targets, bytes: usize) {
        let kinds = self.0.get_or_insert_default();
        // What a descriptor makes up beyond the places that there are counts for all: it costs the liar, and nobody else.
        let known = kinds.iter().position(|kind| kind.of.is_none_or(|known| known == of));
        let (at, of) = known.map_or((0, Targets::ALL), |at| (at, of));
        if let Some(kind) = kinds.get_mut(at) {
            kind.bytes += bytes as u64;
            kind.of = Some(of);
        }
    }

    /// Weighs what came since the last time: over some eight times, older ones less. Silence changes nothing.
    pub(crate) fn sample(&mut self) {
        let Some(kinds) = &mut self.0 else { return };
        if kinds.iter().all(|kind| kind.bytes == 0) {
            return;
        }
        for kind in kinds.iter_mut() {
            kind.lately = kind.lately - kind.lately / 8 + kind.bytes;
            kind.bytes = 0;
            // What does not come any more makes room.
            if kind.lately < 8 {
                *kind = Counted::default();
            }
        }
        // Places that are free come last.
        kinds.sort_unstable_by_key(|kind| kind.of.is_none());
    }

    /// Whether any layer was seen.
    pub(crate) fn has_layers(&self) -> bool {
        self.0.is_some()
    }

    /// How many bits of `whole_bps` a target takes.
    pub(crate) fn bps(&self, whole_bps: u64, target: Target) -> u64 {
        // The best target is all that comes, whatever that belongs to.
        let kinds = self.0.as_ref().filter(|_| target != Target::BEST);
        let Some(kinds) = kinds else { return whole_bps };
        let of = |kind: &&Counted| kind.of.is_some_and(|of| of.has(target));
        let sum = |bytes: u64, kind: &Counted| bytes.saturating_add(kind.lately);
        let (all, taken) = (kinds.iter().fold(0, sum), kinds.iter().filter(of).fold(0, sum));
        if all == 0 {
            return whole_bps;
        }
        let bps = u128::from(whole_bps) * u128::from(taken) / u128::from(all);
        u64::try_from(bps).unwrap_or(whole_bps)
    }

    /// What is known is of another source.
    pub(crate) fn restart(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
impl Inner {
    /// Of a stream whose temporal layers have so many bytes.
    pub(crate) fn temporal(bytes: [usize; 3]) -> Self {
        let mut inner = Self::default();
        inner.flow(bytes);
        inner
    }

    fn flow(&mut self, bytes: [usize; 3]) {
        // What comes before the first layer above the lowest is not counted.
        for (temporal, bytes) in [0, 1, 2].into_iter().zip(bytes).rev() {
            self.count(Targets::from_temporal(temporal), bytes);
        }
        self.sample();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(inner: &Inner) -> [u64; 4] {
        std::array::from_fn(|temporal| inner.bps(1000, Target::new(3, temporal as u8)))
    }

    #[test]
    fn each_target_takes_its_part() {
        let mut inner = Inner::default();
        inner.count(Targets::ALL, 100);
        inner.sample();
        assert_eq!((rates(&inner), inner.0.is_none()), ([1000; 4], true), "without layers");
        for _ in 0..40 {
            inner.flow([50_001, 20_000, 30_000]);
        }
        assert_eq!(rates(&inner), [500, 700, 1000, 1000]);
        for _ in 0..40 {
            inner.sample();
        }
        assert_eq!(rates(&inner), [500, 700, 1000, 1000], "it is remembered");
        for _ in 0..100 {
            inner.flow([1000, 0, 0]);
        }
        assert_eq!(rates(&inner), [1000; 4], "there are no others any more");
    }

    #[test]
    fn spatial_layers_take_what_they_need() {
        let mut inner = Inner::default();
        // As in k-SVC: each layer by itself.
        for (spatial, bytes) in [(0, 100), (1, 300), (2, 600)] {
            inner.count(Targets::row(spatial), bytes);
        }
        inner.sample();
        let rates: [u64; 4] = std::array::from_fn(|s| inner.bps(1000, Target::new(s as u8, 3)));
        assert_eq!(rates, [100, 300, 600, 1000]);
    }

    #[test]
    fn what_is_made_up_finds_an_end() {
        let mut inner = Inner::default();
        for n in 0..1000_u32 {
            let of = Target::all().filter(|t| n >> (t.spatial() * 4 + t.temporal()) & 1 == 1);
            inner.count(of.collect(), 10);
            if n % 100 == 0 {
                inner.sample();
            }
        }
        assert!(Target::all().all(|target| inner.bps(1000, target) <= 1000));
    }
}
