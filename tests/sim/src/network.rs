//! One direction of one peer's access link: what it loses, delays, reorders, doubles and queues.

use crate::rng::Rng;
use strait_core::time::{Duration, Instant};

/// How a direction of a link behaves for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Propagation delay of every datagram.
    pub delay: Duration,
    /// Up to so much more, evenly; the order is kept.
    pub jitter: Duration,
    /// Probability that a datagram is lost, each on its own.
    pub loss: f64,
    /// Loss in bursts, beside `loss`.
    pub burst: Option<Burst>,
    /// Probability that a datagram takes a detour of up to `detour` and is overtaken by later ones.
    pub reorder: f64,
    /// How long a detour takes at most.
    pub detour: Duration,
    /// Probability that a datagram arrives twice.
    pub duplicate: f64,
    /// Bottleneck, with the queue before it.
    pub bottleneck: Option<Bottleneck>,
}

/// The Gilbert-Elliott model: a good state without loss and a bad state with it, changed per datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Probability to go from good to bad.
    pub enter: f64,
    /// Probability to go from bad to good; its inverse is the mean length of a burst in datagrams.
    pub leave: f64,
    /// Probability of loss while bad.
    pub loss: f64,
}

/// A rate limit behind a bounded queue that drops at its tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Bits per second.
    pub rate_bps: u64,
    /// Longest stay in the queue; a datagram that would wait longer is dropped.
    pub queue: Duration,
}

impl Conditions {
    /// A good access line: 10 ms, 1 ms jitter, nothing lost.
    pub const GOOD: Self = Self {
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(1),
        loss: 0.0,
        burst: None,
        reorder: 0.0,
        detour: Duration::ZERO,
        duplicate: 0.0,
        bottleneck: None,
    };
    /// Nothing arrives.
    pub const CUT: Self = Self { loss: 1.0, ..Self::GOOD };

    /// Mean loss, bursts included; the bottleneck's drops depend on the traffic and are not in it.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let burst = self.burst.map_or(0.0, |burst| {
            let bad = burst.enter / (burst.enter + burst.leave).max(f64::MIN_POSITIVE);
            bad * burst.loss
        });
        1.0 - (1.0 - self.loss) * (1.0 - burst)
    }
}

/// What a direction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams given to it.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped at the tail of the queue.
    pub queue_full: u64,
    /// Delivered a second time.
    pub duplicated: u64,
    /// Overtaken.
    pub reordered: u64,
}

/// One direction of a link with its state.
#[derive(Clone, Debug)]
pub struct Link {
    /// What happens from when on, in order of time.
    timeline: Vec<(Instant, Conditions)>,
    rng: Rng,
    /// When the bottleneck has sent all it holds.
    free_at: Instant,
    /// The latest arrival of a datagram that kept its place.
    last_arrival: Instant,
    /// When the last frame on a stream transport arrives of those sent before the timeline's first
    /// change, before its second, and so on.
    streamed: Vec<Instant>,
    /// The bad state of [`Burst`].
    bad: bool,
    counts: Counts,
}

/// A stream transport sends a lost segment again after about so long.
const STREAM_RESEND: Duration = Duration::from_millis(200);

impl Link {
    /// A direction that starts as [`Conditions::GOOD`] and changes as `timeline` says.
    #[must_use]
    pub fn new(timeline: &[(Instant, Conditions)], rng: Rng) -> Self {
        let mut timeline = timeline.to_vec();
        timeline.sort_by_key(|(from, _)| *from);
        let streamed = vec![Instant(0); timeline.len() + 1];
        Self {
            timeline,
            rng,
            free_at: Instant(0),
            last_arrival: Instant(0),
            streamed,
            bad: false,
            counts: Counts::default(),
        }
    }

    /// What holds at `now`.
    #[must_use]
    pub fn conditions(&self, now: Instant) -> Conditions {
        let passed = self.timeline.partition_point(|(from, _)| *from <= now);
        let index = passed.checked_sub(1);
        index.map_or(Conditions::GOOD, |index| self.timeline[index].1)
    }

    /// Since when that has held, and what a connection held back before has arrived: in order, and
    /// so long after its line is good again.
    #[must_use]
    pub fn changed_at(&self, now: Instant) -> Instant {
        let passed = self.timeline.partition_point(|(from, _)| *from <= now);
        let changed = passed.checked_sub(1).map_or(Instant(0), |index| self.timeline[index].0);
        let held = self.streamed[..passed].iter().max().copied().unwrap_or(Instant(0));
        changed.max(held.min(now))
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// When a datagram of `len` bytes sent at `now` arrives: never, once, or twice.
    pub fn carry(&mut self, now: Instant, len: usize) -> [Option<Instant>; 2] {
        let conditions = self.conditions(now);
        self.counts.sent += 1;
        if self.is_lost(&conditions) {
            self.counts.lost += 1;
            return [None, None];
        }
        let Some(out) = self.queue(now, len, &conditions) else {
            self.counts.queue_full += 1;
            return [None, None];
        };
        let first = self.arrival(out, &conditions);
        let second = self.rng.chance(conditions.duplicate).then(|| {
            self.counts.duplicated += 1;
            first + Duration::from_micros(100) + self.rng.up_to(conditions.detour)
        });
        [Some(first), second]
    }

    /// When a frame of `len` bytes on a stream transport arrives: always, and in order; loss is time.
    pub fn carry_in_order(&mut self, now: Instant, len: usize) -> Instant {
        let conditions = self.conditions(now);
        self.counts.sent += 1;
        let mut delay = conditions.delay + self.rng.up_to(conditions.jitter);
        // Bounded, so that a cut line does not hold a run for ever.
        for _ in 0..8 {
            if !self.is_lost(&conditions) {
                break;
            }
            self.counts.lost += 1;
            delay += STREAM_RESEND;
        }
        let bottleneck =
            conditions.bottleneck.map_or(Duration::ZERO, |b| serialize(len, b.rate_bps));
        self.free_at = self.free_at.max(now) + bottleneck;
        self.last_arrival = self.last_arrival.max(self.free_at + delay);
        self.streamed[self.timeline.partition_point(|(from, _)| *from <= now)] = self.last_arrival;
        self.last_arrival
    }

    fn is_lost(&mut self, conditions: &Conditions) -> bool {
        let burst = conditions.burst.is_some_and(|burst| {
            let change = if self.bad { burst.leave } else { burst.enter };
            if self.rng.chance(change) {
                self.bad = !self.bad;
            }
            self.bad && self.rng.chance(burst.loss)
        });
        self.rng.chance(conditions.loss) || burst
    }

    /// When the last bit leaves the bottleneck; `None` when the queue is full.
    fn queue(&mut self, now: Instant, len: usize, conditions: &Conditions) -> Option<Instant> {
        let Some(bottleneck) = conditions.bottleneck else { return Some(now) };
        let start = self.free_at.max(now);
        if start.since(now) > bottleneck.queue {
            return None;
        }
        self.free_at = start + serialize(len, bottleneck.rate_bps);
        Some(self.free_at)
    }

    fn arrival(&mut self, out: Instant, conditions: &Conditions) -> Instant {
        let arrival = out + conditions.delay + self.rng.up_to(conditions.jitter);
        if self.rng.chance(conditions.reorder) {
            self.counts.reordered += 1;
            return arrival + self.rng.up_to(conditions.detour);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_arrival
    }
}

/// IPv4 and UDP headers count on the wire.
fn serialize(len: usize, rate_bps: u64) -> Duration {
    let bits = (len as u64 + 28) * 8;
    Duration::from_nanos(bits.saturating_mul(1_000_000_000) / rate_bps.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn link(conditions: Conditions) -> Link {
        Link::new(&[(Instant(0), conditions)], Rng::new(3))
    }

    #[test]
    fn a_connection_has_changed_once_nothing_is_held_back_any_more() {
        let (cut, good) = (Conditions::CUT, Conditions::GOOD);
        let second = Instant(SECOND);
        let mut link = Link::new(&[(Instant(0), cut), (second, good)], Rng::new(3));
        let held = link.carry_in_order(Instant(SECOND - 1), 100);
        assert_eq!(link.carry_in_order(second, 100), held, "in order");
        let between = Instant(held.0 - 1);
        assert_eq!([link.changed_at(second), link.changed_at(between)], [second, between]);
        assert_eq!(link.changed_at(held + Duration::from_secs(1)), held);
    }

    fn arrivals(link: &mut Link, count: u64, gap: u64) -> Vec<Option<Instant>> {
        (0..count).map(|n| link.carry(Instant(n * gap), 100)[0]).collect()
    }

    #[test]
    fn a_good_line_keeps_order_and_loses_nothing() {
        let arrivals = arrivals(&mut link(Conditions::GOOD), 1000, 1000);
        assert!(arrivals.iter().all(Option::is_some));
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn loss_has_the_rate_asked_for() {
        let mut link = link(Conditions { loss: 0.2, ..Conditions::GOOD });
        let lost = arrivals(&mut link, 20_000, 1000).iter().filter(|a| a.is_none()).count();
        assert!((3800..4200).contains(&lost), "{lost}");
    }

    #[test]
    fn bursts_have_the_mean_and_the_length_asked_for() {
        let burst = Burst { enter: 0.02, leave: 0.2, loss: 1.0 };
        let conditions = Conditions { burst: Some(burst), ..Conditions::GOOD };
        assert!((conditions.mean_loss() - 0.0909).abs() < 0.001);
        let mut link = link(conditions);
        let lost: Vec<bool> =
            arrivals(&mut link, 50_000, 1000).iter().map(Option::is_none).collect();
        let total = lost.iter().filter(|lost| **lost).count() as f64;
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        assert!((total / 50_000.0 - 0.0909).abs() < 0.015, "{total}");
        assert!((total / bursts - 5.0).abs() < 0.7, "{}", total / bursts);
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_drops_at_the_tail() {
        let bottleneck = Bottleneck { rate_bps: 1_024_000, queue: Duration::from_millis(10) };
        let jitter = Duration::ZERO;
        let mut link =
            link(Conditions { bottleneck: Some(bottleneck), jitter, ..Conditions::GOOD });
        let arrived: Vec<Instant> = arrivals(&mut link, 100, 0).into_iter().flatten().collect();
        // 128 bytes on the wire take 1 ms: ten wait, one is being sent.
        assert_eq!(arrived.len(), 11);
        assert!(arrived.windows(2).all(|pair| pair[1].since(pair[0]).as_millis() == 1));
        assert_eq!(link.counts().queue_full, 89);
    }

    #[test]
    fn reordering_and_duplicates_happen_when_asked_for() {
        let detour = Duration::from_millis(5);
        let odd = Conditions { reorder: 0.1, detour, duplicate: 0.1, ..Conditions::GOOD };
        let mut link = link(odd);
        let arrived = arrivals(&mut link, 1000, 1_000_000);
        assert!(!arrived.is_sorted());
        assert!((50..150).contains(&link.counts().duplicated));
    }

    #[test]
    fn a_stream_loses_nothing_and_keeps_order_under_loss() {
        let mut link = link(Conditions { loss: 0.3, reorder: 0.5, ..Conditions::GOOD });
        let arrived: Vec<Instant> =
            (0..500).map(|n| link.carry_in_order(Instant(n * 1_000_000), 500)).collect();
        assert!(arrived.is_sorted());
        assert!(link.counts().lost > 100);
    }

    #[test]
    fn conditions_change_with_time() {
        let timeline =
            [(Instant(SECOND), Conditions::CUT), (Instant(2 * SECOND), Conditions::GOOD)];
        let mut link = Link::new(&timeline, Rng::new(1));
        assert!(link.carry(Instant(SECOND - 1), 10)[0].is_some());
        assert!(link.carry(Instant(SECOND), 10)[0].is_none());
        assert!(link.carry(Instant(2 * SECOND), 10)[0].is_some());
    }
}
