//! What a subscriber's budget is spent on: sound always, then the least of every picture, then better ones in the order in
//! which the subscriber cares for them.
//!
//! Down at once, up with patience: a better layer must fit with room to spare for a while, and after each drop the next
//! attempt waits longer; less long for the least of a picture that has nothing. With a steady budget nothing changes.

use crate::ladder::{Ladder, Rung};
use crate::limits::{RAISE_AFTER, RAISE_BACKOFF_MAX, RAISE_BACKOFF_MIN, RAISE_PAUSED, RAISE_SPARE};
use crate::time::{Duration, Instant};
use std::cmp::Reverse;

/// What one subscription has of the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Share {
    /// Not decided: it is new, or wants something else.
    #[default]
    Open,
    /// Nothing: not even its lowest layer fits.
    Nothing,
    /// Layers up to these.
    Upto(Rung),
}

impl Share {
    /// The highest layers of it.
    pub(crate) fn rung(self) -> Option<Rung> {
        match self {
            Self::Upto(rung) => Some(rung),
            Self::Open | Self::Nothing => None,
        }
    }

    fn of(rung: Option<Rung>) -> Self {
        rung.map_or(Self::Nothing, Self::Upto)
    }
}

/// How much a subscriber cares for a picture, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) pinned: bool,
    pub(crate) priority: u8,
    /// Its publisher is the dominant speaker.
    pub(crate) speaks: bool,
    /// Height at which it is shown.
    pub(crate) height: u16,
}

/// A picture that wants a share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim {
    /// Slot.
    pub(crate) subscription: u32,
    pub(crate) rank: Rank,
    /// What is to be had, and at how many bits per second.
    pub(crate) ladder: Ladder,
    /// The best of it that is wanted.
    pub(crate) wanted: Rung,
    /// By how large it is shown, too.
    pub(crate) sized: bool,
    /// What it has.
    pub(crate) share: Share,
    /// What it will have soon, if nothing comes in between.
    pub(crate) soon: Option<Rung>,
}

impl Claim {
    /// Bits per second of a rung, with all that it needs.
    pub(crate) fn rate(&self, rung: Option<Rung>) -> u64 {
        rung.map_or(0, |rung| self.ladder.bps(rung))
    }

    /// The best that it may keep without an attempt at more.
    fn keeps(&self) -> Option<Rung> {
        match self.share {
            Share::Open => Some(self.wanted),
            Share::Nothing => None,
            // Of one whose lower layers ended, the least that there is now.
            Share::Upto(rung) => Some(rung.min(self.wanted)).max(self.ladder.lowest()),
        }
    }

    /// That, or the least of it if it has nothing.
    fn shows(&self) -> Option<Rung> {
        self.keeps().or_else(|| self.ladder.above(None, self.wanted))
    }
}

/// When a peer may get more. One for each peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Since when better layers fit, and since when what has nothing does.
    fits_since: Option<Instant>,
    shows_since: Option<Instant>,
    /// When something was taken away, and how long the next attempt waits for that.
    dropped_at: Option<Instant>,
    backoff: Duration,
    raised_at: Option<Instant>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            fits_since: None,
            shows_since: None,
            dropped_at: None,
            backoff: RAISE_BACKOFF_MIN,
            raised_at: None,
        }
    }
}

impl Patience {
    /// Something had to be taken away. Soon after an attempt at more, that attempt failed.
    fn dropped(&mut self, now: Instant) {
        let failed = self.raised_at.take().is_some_and(|at| now.since(at) < RAISE_BACKOFF_MAX);
        let waiting = self.dropped_at.is_some_and(|at| now.since(at) < self.backoff);
        if failed {
            self.backoff = (2 * self.backoff).min(RAISE_BACKOFF_MAX);
        } else if !waiting {
            self.backoff = RAISE_BACKOFF_MIN;
        }
        self.dropped_at = Some(now);
        (self.fits_since, self.shows_since) = (None, None);
    }

    /// Whether better layers may be tried, if they fit.
    fn tries(&mut self, now: Instant, fit: bool) -> bool {
        lasts(&mut self.fits_since, now, fit) && self.waited(now, self.backoff)
    }

    /// Whether the least of what has nothing may be shown, if that fits.
    fn shows(&mut self, now: Instant, fits: bool) -> bool {
        lasts(&mut self.shows_since, now, fits) && self.waited(now, self.backoff / RAISE_PAUSED)
    }

    /// Whether nothing was taken away for so long.
    fn waited(&self, now: Instant, time: Duration) -> bool {
        self.dropped_at.is_none_or(|at| now.since(at) >= time)
    }

    fn raised(&mut self, now: Instant) {
        self.raised_at = Some(now);
        (self.fits_since, self.shows_since) = (None, None);
    }
}

/// Whether something fits, and has for long enough.
fn lasts(since: &mut Option<Instant>, now: Instant, fits: bool) -> bool {
    *since = fits.then(|| since.unwrap_or(now));
    since.is_some_and(|since| now.since(since) >= RAISE_AFTER)
}

/// Memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    pub(crate) claims: Vec<Claim>,
    kept: Vec<Option<Rung>>,
    shown: Vec<Option<Rung>>,
    ideal: Vec<Option<Rung>>,
}

impl Allocator {
    /// Gives every claim its share of `budget_bps`.
    pub(crate) fn share_out(&mut self, now: Instant, budget_bps: u64, patience: &mut Patience) {
        let Self { claims, kept, shown, ideal } = self;
        // The slot makes the order the same in every run.
        claims.sort_unstable_by_key(|claim| (Reverse(claim.rank), claim.subscription));
        fit(budget_bps, claims, Claim::keeps, kept);
        let lowered = claims.iter().zip(&*kept).any(|(claim, kept)| {
            // What its publisher does not send any more, or the subscriber does not want, was not taken for the budget.
            let could = claim.keeps().and_then(|keeps| claim.ladder.best(keeps));
            claim.share != Share::Open && *kept < could
        });
        if lowered {
            patience.dropped(now);
        }
        let spare = budget_bps.saturating_mul(100) / (100 + RAISE_SPARE);
        fit(spare, claims, |claim| Some(claim.wanted), ideal);
        let betters = is_better(ideal, kept);
        // A picture that has nothing need not wait until others may have better ones: those keep what they have.
        let paused = kept.iter().any(Option::is_none);
        if paused {
            fit(spare, claims, Claim::shows, shown);
        }
        let shows = paused && is_better(shown, kept);
        let best = |better, shows| match (better, shows) {
            (true, _) => &*ideal,
            (false, true) => &*shown,
            (false, false) => &*kept,
        };
        let (may_better, may_show) = (patience.tries(now, betters), patience.shows(now, shows));
        if may_better || may_show {
            patience.raised(now);
        }
        let (chosen, soon) = (best(may_better, may_show), best(betters, shows));
        for ((claim, chosen), soon) in claims.iter_mut().zip(chosen).zip(soon) {
            claim.share = Share::of(*chosen);
            claim.soon = soon.filter(|soon| chosen.is_none_or(|chosen| *soon > chosen));
        }
    }

    /// Bits per second of all shares.
    pub(crate) fn spent(&self) -> u64 {
        self.claims.iter().map(|claim| claim.rate(claim.share.rung())).sum()
    }
}

/// Whether of the claims that differ the one that is cared for most has more.
fn is_better(fitted: &[Option<Rung>], kept: &[Option<Rung>]) -> bool {
    fitted.iter().zip(kept).find(|(fitted, kept)| fitted != kept).is_some_and(|(f, k)| f > k)
}

/// The least of every claim in their order, that of the first in any case, then better layers: among those of one rank
/// by turns, each up to its `max`.
fn fit(
    budget_bps: u64,
    claims: &[Claim],
    max: impl Fn(&Claim) -> Option<Rung>,
    fitted: &mut Vec<Option<Rung>>,
) {
    let mut left = budget_bps;
    fitted.clear();
    fitted.extend(claims.iter().enumerate().map(|(at, claim)| {
        // The picture that is cared for most goes on whatever the budget: without any, nothing would be told of the line
        // that an estimate could recover from, and a poor picture is better than none. Whatever it had before, too: it may
        // be the first only now that another ended.
        let first = at == 0;
        let lowest = max(claim).and_then(|max| claim.ladder.above(None, max));
        let lowest = lowest.or_else(|| claim.ladder.lowest().filter(|_| first));
        let after = left.checked_sub(claim.rate(lowest)).or(first.then_some(0));
        after.map(|after| left = after).and(lowest)
    }));
    let mut begun = 0;
    for group in claims.chunk_by(|a, b| a.rank == b.rank) {
        let fitted = fitted.get_mut(begun..begun + group.len()).unwrap_or_default();
        begun += group.len();
        let mut raises = true;
        while raises {
            raises = false;
            for (claim, fitted) in group.iter().zip(&mut *fitted).filter(|(_, f)| f.is_some()) {
                let above = max(claim).and_then(|max| claim.ladder.above(*fitted, max));
                let Some(above) = above else { continue };
                let with = left.saturating_add(claim.rate(*fitted));
                if let Some(after) = with.checked_sub(claim.rate(Some(above))) {
                    (left, *fitted, raises) = (after, Some(above), true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inner::Inner;
    use crate::layer::Target;
    use crate::limits::ALLOCATION_INTERVAL;
    use proptest::prelude::*;

    const LAYERS: [Option<u64>; 3] = [Some(100), Some(400), Some(1200)];

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    fn claim(subscription: u32, priority: u8) -> Claim {
        let rank = Rank { priority, ..Rank::default() };
        Claim {
            subscription,
            rank,
            ladder: Ladder::of(LAYERS),
            wanted: Rung::whole(2),
            ..Claim::default()
        }
    }

    fn rungs(allocator: &Allocator) -> Vec<Option<Rung>> {
        let mut claims: Vec<_> = allocator.claims.iter().collect();
        claims.sort_by_key(|claim| claim.subscription);
        claims.iter().map(|claim| claim.share.rung()).collect()
    }

    /// The encodings of all shares.
    fn shares(allocator: &Allocator) -> Vec<Option<u8>> {
        rungs(allocator).iter().map(|rung| rung.map(|rung| rung.encoding)).collect()
    }

    fn allocator(claims: &[Claim]) -> (Allocator, Patience) {
        (Allocator { claims: claims.to_vec(), ..Allocator::default() }, Patience::default())
    }

    /// The first decision with a budget.
    fn first(claims: &[Claim], budget: u64) -> Vec<Option<u8>> {
        let (mut allocator, mut patience) = allocator(claims);
        allocator.share_out(at(0), budget, &mut patience);
        shares(&allocator)
    }

    #[test]
    fn the_least_of_all_comes_before_the_best_of_one() {
        let both = [claim(1, 0), claim(2, 9)];
        assert_eq!(first(&both, 50), [None, Some(0)], "one is shown in any case");
        assert_eq!(first(&both, 100), [None, Some(0)]);
        assert_eq!(first(&both, 200), [Some(0), Some(0)]);
        assert_eq!(first(&both, 1299), [Some(1), Some(1)]);
        assert_eq!(first(&both, 1300), [Some(0), Some(2)], "what is cared for more comes first");
        assert_eq!(first(&both, 2400), [Some(2), Some(2)]);
    }

    #[test]
    fn equals_are_raised_by_turns() {
        let equals = [claim(1, 0), claim(2, 0), claim(3, 0)];
        assert_eq!(first(&equals, 900), [Some(1), Some(1), Some(0)]);
        assert_eq!(first(&equals, 2000), [Some(2), Some(1), Some(1)]);
    }

    #[test]
    fn pinned_then_priority_then_size() {
        let rank = |pinned, priority, height| Rank { pinned, priority, speaks: false, height };
        let ranks = [rank(false, 9, 720), rank(false, 9, 1080), rank(true, 0, 90)];
        let claims: Vec<_> =
            (1..).zip(ranks).map(|(n, rank)| Claim { rank, ..claim(n, 0) }).collect();
        assert_eq!(first(&claims, 1400), [Some(0), Some(0), Some(2)]);
        assert_eq!(first(&claims, 2500), [Some(0), Some(2), Some(2)]);
    }

    #[test]
    fn a_layer_that_is_not_to_be_had_is_passed_over() {
        let ladder = Ladder::of([None, Some(400), Some(1200)]);
        let claims = [Claim { ladder, ..claim(1, 0) }];
        assert_eq!(first(&claims, 399), [Some(1)], "in any case");
        assert_eq!(first(&claims, 400), [Some(1)]);
        let claims = [Claim { wanted: Rung::whole(1), ..claim(1, 0) }];
        assert_eq!(first(&claims, 9999), [Some(1)], "no more than is wanted");
    }

    #[test]
    fn layers_inside_a_stream_are_finer_steps() {
        let inner = Inner::temporal([50, 20, 30]);
        let part = |bps| Some((bps, &inner));
        let ladder = Ladder::new([part(100), part(400), None], Target::BEST, None);
        let of = |budget| {
            let claims = [Claim { ladder, ..claim(1, 0) }, Claim { ladder, ..claim(2, 0) }];
            let (mut allocator, mut patience) = allocator(&claims);
            allocator.share_out(at(0), budget, &mut patience);
            let rates = allocator.claims.iter().map(|claim| claim.rate(claim.share.rung()));
            rates.collect::<Vec<_>>()
        };
        assert_eq!(of(49), [50, 0]);
        assert_eq!(of(119), [50, 50]);
        assert_eq!(of(120), [70, 50]);
        assert_eq!(of(200), [100, 100]);
        assert_eq!(of(380), [280, 100], "the larger one, with half of its pictures");
        assert_eq!(of(500), [400, 100]);
        assert_eq!(of(560), [280, 280]);
        assert_eq!(of(800), [400, 400]);
    }

    #[test]
    fn down_at_once_up_with_patience() {
        let (mut allocator, mut patience) = allocator(&[claim(1, 0)]);
        let mut run = |ms, budget| {
            allocator.share_out(at(ms), budget, &mut patience);
            let soon = allocator.claims[0].soon.map(|rung| rung.encoding);
            (shares(&allocator)[0], soon)
        };
        assert_eq!(run(0, 2000), (Some(2), None));
        assert_eq!(run(250, 450), (Some(1), None));
        assert_eq!(run(500, 1379), (Some(1), None), "15 % to spare are not there");
        assert_eq!(run(750, 1380), (Some(1), Some(2)), "but has waited too short");
        assert_eq!(run(1750, 1380), (Some(1), Some(2)), "and too soon after the drop");
        assert_eq!(run(3250, 1380), (Some(2), None));
        assert_eq!(run(3500, 450), (Some(1), None), "it failed");
        assert_eq!(run(9250, 2000), (Some(1), Some(2)));
        assert_eq!(run(9499, 2000), (Some(1), Some(2)), "twice as long");
        assert_eq!(run(10_250, 2000), (Some(2), None));
        assert_eq!(run(60_000, 450), (Some(1), None), "not for the attempt of a minute ago");
        assert_eq!(run(60_250, 2000), (Some(1), Some(2)));
        assert_eq!(run(63_250, 2000), (Some(2), None));
    }

    #[test]
    fn what_has_nothing_is_tried_sooner_than_what_could_be_better() {
        let (mut allocator, mut patience) = allocator(&[claim(1, 0), claim(2, 9)]);
        let mut run = |ms, budget| {
            allocator.share_out(at(ms), budget, &mut patience);
            shares(&allocator)
        };
        assert_eq!(run(0, 4000), [Some(2), Some(2)]);
        assert_eq!(run(250, 150), [None, Some(0)]);
        assert_eq!(run(500, 240), [None, Some(0)], "it fits, but since now only");
        assert_eq!(run(1250, 240), [None, Some(0)]);
        assert_eq!(run(1500, 240), [Some(0), Some(0)]);
        assert_eq!(run(1750, 150), [None, Some(0)], "it failed");
        assert_eq!(run(2000, 240), [None, Some(0)]);
        assert_eq!(run(3500, 240), [None, Some(0)], "twice as long");
        assert_eq!(run(3750, 240), [Some(0), Some(0)]);
    }

    #[test]
    fn what_begins_to_fit_waits_for_itself() {
        let large = Claim { ladder: Ladder::of([None, None, Some(1200)]), ..claim(1, 0) };
        let (mut allocator, mut patience) = allocator(&[large, claim(2, 9)]);
        let mut run = |ms, budget| {
            allocator.share_out(at(ms), budget, &mut patience);
            shares(&allocator)
        };
        assert_eq!(run(0, 4000), [Some(2), Some(2)]);
        assert_eq!(run(250, 150), [None, Some(0)]);
        assert_eq!(run(500, 480), [None, Some(0)], "the other could be better");
        assert_eq!(run(2000, 1500), [None, Some(0)], "it fits, but since now only");
        assert_eq!(run(2750, 1500), [None, Some(0)]);
        assert_eq!(run(3000, 1500), [Some(2), Some(0)]);
    }

    /// Ten minutes of a line that carries the least of three pictures and no more, with an estimate that finds out by
    /// trying alone: so much is left of it for 2 s then. How often a better layer was tried, and how long a picture was
    /// paused at most.
    fn tries(left: u64) -> (u32, Duration) {
        let (mut allocator, mut patience) = allocator(&[claim(1, 0), claim(2, 0), claim(3, 0)]);
        let (mut failed_at, mut shown_at) = (at(0), at(0));
        let (mut tries, mut paused) = (0, Duration::ZERO);
        for tick in 0..2400 {
            let now = at(tick * 250);
            let had = rungs(&allocator).into_iter().flatten().max();
            if allocator.spent() > 350 {
                failed_at = now;
            }
            let budget = if now.since(failed_at) < Duration::from_secs(2) { left } else { 4000 };
            allocator.share_out(now, budget, &mut patience);
            let has = rungs(&allocator);
            tries += u32::from(has.iter().flatten().max() > had.as_ref());
            shown_at = if has.contains(&None) { shown_at } else { now };
            paused = now.since(shown_at).max(paused);
        }
        (tries, paused)
    }

    #[test]
    fn a_picture_that_is_paused_makes_nobody_less_patient() {
        let (without, paused) = tries(350);
        assert_eq!(paused, Duration::ZERO);
        let (with, paused) = tries(250);
        assert!(
            paused > Duration::ZERO && paused <= RAISE_BACKOFF_MAX / RAISE_PAUSED,
            "{paused:?}"
        );
        assert!(without > 15 && with <= without, "{with} of {without} in ten minutes");
    }

    #[test]
    fn what_its_publisher_or_subscriber_ended_is_no_drop() {
        let (mut allocator, mut patience) = allocator(&[claim(1, 0)]);
        allocator.share_out(at(0), 2000, &mut patience);
        allocator.claims[0].ladder = Ladder::of([Some(100), Some(400), None]);
        allocator.share_out(at(250), 2000, &mut patience);
        allocator.claims[0].wanted = Rung::whole(0);
        allocator.share_out(at(500), 2000, &mut patience);
        assert_eq!(shares(&allocator), [Some(0)]);
        assert!(patience.dropped_at.is_none());
    }

    #[test]
    fn what_is_cared_for_most_is_shown_at_once_whatever_it_had() {
        let (mut allocator, mut patience) = allocator(&[claim(1, 0), claim(2, 9)]);
        allocator.share_out(at(0), 50, &mut patience);
        assert_eq!(shares(&allocator), [None, Some(0)]);
        allocator.claims.retain(|claim| claim.subscription == 1);
        allocator.share_out(at(250), 50, &mut patience);
        assert_eq!(shares(&allocator), [Some(0)], "it is the first now");
        allocator.claims.push(claim(2, 9));
        allocator.share_out(at(500), 50, &mut patience);
        assert_eq!(shares(&allocator), [None, Some(0)]);
        allocator.claims[1].rank.pinned = true;
        allocator.share_out(at(750), 450, &mut patience);
        assert_eq!(shares(&allocator), [Some(0), Some(0)], "no more than the least of it");
    }

    #[test]
    fn of_one_whose_lower_layers_ended_the_least_that_is_left_goes_on() {
        let (mut allocator, mut patience) = allocator(&[claim(1, 0), claim(2, 9)]);
        allocator.share_out(at(0), 200, &mut patience);
        for claim in &mut allocator.claims {
            claim.ladder = Ladder::of([None, Some(400), Some(1200)]);
        }
        allocator.share_out(at(250), 900, &mut patience);
        assert_eq!(shares(&allocator), [Some(1), Some(1)]);
    }

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let rates = (20_000..300_000_u64, 1..8_u64, 1..8_u64, any::<[bool; 3]>());
        let parts = prop::option::of([50..100_usize, 0..50, 0..50]);
        let one = (rates, parts, 0..3_u8, 0..3_u8, any::<bool>());
        prop::collection::vec(one, 1..12).prop_map(|claims| {
            let claim = |(n, ((low, middle, high, here), parts, wanted, priority, pinned))| {
                let rates = [low, low * middle, low * middle * high];
                let here: [bool; 3] = here;
                // What is wanted is to be had.
                let had = |at| here[at] || at == usize::from(wanted);
                let parts: Option<[usize; 3]> = parts;
                let inner = parts.map(Inner::temporal).unwrap_or_default();
                let rates = std::array::from_fn(|at| had(at).then_some((rates[at], &inner)));
                let ladder = Ladder::new(rates, Target::BEST, None);
                let wanted = Rung::whole(wanted);
                let rank = Rank { pinned, priority, ..Rank::default() };
                Claim { subscription: n, rank, ladder, wanted, ..Claim::default() }
            };
            (0..).zip(claims).map(claim).collect()
        })
    }

    proptest! {
        /// Whatever happened before: when budget and rates stay, shares change twice more at most: what has nothing is
        /// shown, and what can be is better.
        #[test]
        fn a_steady_budget_never_flaps(
            claims in claims(),
            before in prop::collection::vec((0..8_000_000_u64, 1..40_u64), 0..12),
            budget in 0..8_000_000_u64,
        ) {
            let (mut allocator, mut patience) = allocator(&claims);
            let mut now = at(0);
            for (budget, ticks) in before {
                for _ in 0..ticks {
                    allocator.share_out(now, budget, &mut patience);
                    now = now + ALLOCATION_INTERVAL;
                }
            }
            allocator.share_out(now, budget, &mut patience);
            let (mut changes, mut last) = (0, rungs(&allocator));
            for _ in 0..400 {
                now = now + ALLOCATION_INTERVAL;
                allocator.share_out(now, budget, &mut patience);
                let first = allocator.claims.first().map(|claim| claim.rate(claim.ladder.lowest()));
                prop_assert!(allocator.spent() <= budget.max(first.unwrap_or(0)));
                let shares = rungs(&allocator);
                changes += u32::from(shares != last);
                last = shares;
            }
            prop_assert!(changes <= 2, "{changes} changes");
        }

        /// What is cared for most is never below its best where that alone would fit beside the least of the others.
        #[test]
        fn nothing_is_left_low_that_fits(claims in claims(), low in 0..500_000_u64) {
            let (mut allocator, mut patience) = allocator(&claims);
            allocator.share_out(at(0), low, &mut patience);
            for tick in 1..200 {
                allocator.share_out(at(tick * 250), 1 << 40, &mut patience);
            }
            for claim in &allocator.claims {
                prop_assert_eq!(claim.share.rung(), claim.ladder.best(claim.wanted));
            }
        }
    }
}
