//! The steps at which a publication can be had: its encodings, and within each the layers inside the stream.
//!
//! A larger picture comes before more pictures per second: above the least of a picture are its other temporal layers, then
//! the next larger one. Of a larger picture only all its temporal layers and all but the highest are steps: with fewer it
//! looks worse than the smaller one below it.

use crate::inner::Inner;
use crate::layer::Target;
use crate::limits::{ENCODINGS_PER_PUBLICATION, LADDER_RUNGS, RUNGS_APART, TEMPORAL_LAYERS};

/// Steps of a larger picture.
const STEPS_ABOVE: usize = 2;

/// An encoding, and what of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rung {
    pub(crate) encoding: u8,
    pub(crate) target: Target,
}

impl Rung {
    /// All of an encoding.
    pub(crate) fn whole(encoding: u8) -> Self {
        Self { encoding, target: Target::BEST }
    }
}

/// The rungs of a publication with their bits per second, lowest first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ladder {
    rungs: [Option<(Rung, u64)>; LADDER_RUNGS],
    len: usize,
}

impl Ladder {
    /// Of encodings with their bits per second, and how these divide; `None` for one that is not to be had. `most` is wanted
    /// of each at most. The rung that its subscriber `has` stays one even if it hardly differs from its neighbours.
    pub(crate) fn new(
        encodings: [Option<(u64, &Inner)>; ENCODINGS_PER_PUBLICATION],
        most: Target,
        has: Option<Rung>,
    ) -> Self {
        let mut ladder = Self::default();
        let count = encodings.iter().flatten().count().max(1);
        for (encoding, known) in (0..).zip(encodings) {
            let Some((bps, inner)) = known else { continue };
            if inner.has_layers() {
                let places = (LADDER_RUNGS / count).saturating_sub(1);
                let rung = |target| (Rung { encoding, target }, inner.bps(bps, target));
                ladder.add_parts(rung, most, has, places);
            }
            ladder.push((Rung { encoding, target: most }, inner.bps(bps, most)));
        }
        ladder
    }

    /// Adds what an encoding has below `most`, in so many places.
    fn add_parts(
        &mut self,
        rung: impl Fn(Target) -> (Rung, u64),
        most: Target,
        has: Option<Rung>,
        places: usize,
    ) {
        let below = |(rung, bps): (Rung, u64), above: u64| {
            bps < above && (has == Some(rung) || is_clearly_less(bps, above))
        };
        let (_, whole) = rung(most);
        let (begun, end) = (self.len, self.len + places);
        for spatial in 0..=most.spatial() {
            let is_lowest = begun == 0 && self.len == 0;
            let mut steps = if is_lowest { TEMPORAL_LAYERS } else { STEPS_ABOVE };
            // From the highest one, as layers above those that a stream has are the same as its highest.
            let mut row = [None; TEMPORAL_LAYERS];
            let mut above = None;
            for (place, temporal) in row.iter_mut().zip((0..=most.temporal()).rev()) {
                let found = rung(Target::new(spatial, temporal));
                if steps > 0 && above.is_none_or(|above| below(found, above)) {
                    (above, steps) = (Some(found.1), steps - 1);
                    *place = Some(found).filter(|found| below(*found, whole));
                }
            }
            for found in row.into_iter().rev().flatten() {
                let last = self.iter().last().map_or(0, |(_, bps)| bps);
                let apart = has == Some(found.0) || is_clearly_less(last, found.1);
                if self.len < end && last < found.1 && apart {
                    self.push(found);
                }
            }
        }
    }

    fn push(&mut self, rung: (Rung, u64)) {
        if let Some(place) = self.rungs.get_mut(self.len) {
            *place = Some(rung);
            self.len += 1;
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (Rung, u64)> {
        self.rungs.iter().take(self.len).flatten().copied()
    }

    /// Bits per second of a rung; none of what is no rung.
    pub(crate) fn bps(&self, rung: Rung) -> u64 {
        self.iter().find(|(other, _)| *other == rung).map_or(0, |(_, bps)| bps)
    }

    /// The lowest.
    pub(crate) fn lowest(&self) -> Option<Rung> {
        self.iter().next().map(|(rung, _)| rung)
    }

    /// The next rung above one, or the lowest; `max` at most.
    pub(crate) fn above(&self, below: Option<Rung>, max: Rung) -> Option<Rung> {
        let mut rungs = self.iter().map(|(rung, _)| rung);
        rungs.find(|rung| below.is_none_or(|below| *rung > below)).filter(|rung| *rung <= max)
    }

    /// The highest up to `max`.
    pub(crate) fn best(&self, max: Rung) -> Option<Rung> {
        self.iter().map(|(rung, _)| rung).rfind(|rung| *rung <= max)
    }

    /// The highest of the encodings up to this one, or else the best of the lowest encoding above.
    pub(crate) fn best_of(&self, encoding: u8) -> Option<Rung> {
        let within = self.best(Rung::whole(encoding));
        let lowest = || self.best(Rung::whole(self.lowest()?.encoding));
        within.or_else(lowest)
    }
}

fn is_clearly_less(less: u64, than: u64) -> bool {
    less.saturating_mul(100) <= than.saturating_mul(100 - RUNGS_APART)
}

#[cfg(test)]
impl Ladder {
    /// Of these encodings, each a rung.
    pub(crate) fn of(rates: [Option<u64>; ENCODINGS_PER_PUBLICATION]) -> Self {
        let inner = Inner::default();
        Self::new(rates.map(|rate| Some((rate?, &inner))), Target::BEST, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Targets;

    /// A stream whose frames of each spatial and temporal layer carry so much; what is above refers to what is below.
    fn inner<const T: usize>(spatial: &[[usize; T]]) -> Inner {
        let mut inner = Inner::default();
        for (s, row) in (0..4).zip(spatial).collect::<Vec<_>>().into_iter().rev() {
            for (t, bytes) in (0..4).zip(row).collect::<Vec<_>>().into_iter().rev() {
                let rows = (s..4).map(Targets::row).fold(Targets::NONE, Targets::with);
                inner.count(rows.both(Targets::from_temporal(t)), *bytes);
            }
        }
        inner.sample();
        inner
    }

    fn rungs(ladder: &Ladder) -> Vec<(u8, u8, u8, u64)> {
        let of = |(rung, bps): (Rung, u64)| {
            (rung.encoding, rung.target.spatial(), rung.target.temporal(), bps)
        };
        ladder.iter().map(of).collect()
    }

    #[test]
    fn encodings_with_temporal_layers() {
        let of = |bps, inner| Some((bps, inner));
        let layered = inner(&[[50, 20, 30]]);
        let all = [of(100, &layered), of(400, &layered), of(1200, &layered)];
        let ladder = Ladder::new(all, Target::BEST, None);
        let expected = [
            (0, 0, 0, 50),
            (0, 0, 1, 70),
            (0, 3, 3, 100),
            (1, 0, 1, 280),
            (1, 3, 3, 400),
            (2, 0, 1, 840),
            (2, 3, 3, 1200),
        ];
        assert_eq!(rungs(&ladder), expected);
        let ladder = Ladder::new([None, all[1], None], Target::BEST, None);
        assert_eq!(rungs(&ladder), [(1, 0, 0, 200), (1, 0, 1, 280), (1, 3, 3, 400)]);
        let ladder = Ladder::new(all, Target::new(3, 0), None);
        assert_eq!(rungs(&ladder), [(0, 3, 0, 50), (1, 3, 0, 200), (2, 3, 0, 600)], "as wished");
    }

    #[test]
    fn layers_inside_one_stream() {
        let layered = inner(&[[50, 25, 25], [100, 50, 50], [350, 175, 175]]);
        let ladder = Ladder::new([Some((1000, &layered)), None, None], Target::BEST, None);
        let expected = [
            (0, 0, 0, 50),
            (0, 0, 1, 75),
            (0, 0, 3, 100),
            (0, 1, 1, 225),
            (0, 1, 3, 300),
            (0, 2, 1, 750),
            (0, 3, 3, 1000),
        ];
        assert_eq!(rungs(&ladder), expected);
        let max = Rung { encoding: 0, target: Target::new(1, 0) };
        assert_eq!(ladder.best(max).map(|rung| ladder.bps(rung)), Some(100));
        assert_eq!(ladder.best_of(2).map(|rung| ladder.bps(rung)), Some(1000));
    }

    #[test]
    fn what_hardly_differs_is_a_rung_for_who_has_it_alone() {
        let layered = inner(&[[92, 8]]);
        let of = |has| Ladder::new([Some((1000, &layered)), None, None], Target::BEST, has);
        assert_eq!(rungs(&of(None)), [(0, 3, 3, 1000)]);
        let has = Rung { encoding: 0, target: Target::new(0, 0) };
        assert_eq!(rungs(&of(Some(has))), [(0, 0, 0, 920), (0, 3, 3, 1000)]);
    }

    #[test]
    fn no_more_rungs_than_there_is_room_for() {
        let layered = inner(&[[10, 10, 10, 10], [40; 4], [160; 4], [640; 4]]);
        let all = [1, 10, 100].map(|rate| Some((1000 * rate, &layered)));
        let ladder = Ladder::new(all, Target::BEST, None);
        assert!(ladder.len <= LADDER_RUNGS);
        for encoding in 0..3 {
            assert!(ladder.bps(Rung::whole(encoding)) > 0, "each is to be had whole");
        }
    }
}
