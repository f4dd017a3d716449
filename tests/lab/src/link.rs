//! One direction of a line: what it loses, delays, reorders, doubles and queues.

use crate::rng::Rng;
use crate::truth::Counts;
use std::time::Duration;

/// How a direction of a line behaves for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Propagation delay of every datagram.
    pub delay: Duration,
    /// Up to so much more, evenly.
    pub jitter: Duration,
    /// Whether jitter lets datagrams overtake each other; otherwise the order is kept.
    pub jitter_reorders: bool,
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
    /// Bits per second, IPv4 and UDP headers included.
    pub rate_bps: u64,
    /// What fits before it.
    pub queue: Queue,
}

/// How much a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// A datagram that would wait longer, at the rate of the moment, is dropped.
    Time(Duration),
    /// A datagram that would bring the queue above so many bytes, with headers, is dropped.
    Bytes(u64),
}

impl Conditions {
    /// A wire: no delay, nothing lost.
    pub const CLEAR: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        jitter_reorders: false,
        loss: 0.0,
        burst: None,
        reorder: 0.0,
        detour: Duration::ZERO,
        duplicate: 0.0,
        bottleneck: None,
    };
    /// A good access line: 10 ms, 1 ms jitter, nothing lost.
    pub const GOOD: Self =
        Self { delay: Duration::from_millis(10), jitter: Duration::from_millis(1), ..Self::CLEAR };
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

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Lost by chance.
    Lost,
    /// Dropped at the tail of the queue.
    QueueFull,
    /// It arrives.
    Carried(Passage),
}

impl Fate {
    /// When it arrives: never, once, or twice.
    pub fn arrivals(self) -> impl Iterator<Item = Duration> {
        let passage = self.passage();
        passage.into_iter().flat_map(|passage| [Some(passage.arrival), passage.again]).flatten()
    }

    /// How it travels, unless it is lost.
    #[must_use]
    pub fn passage(self) -> Option<Passage> {
        match self {
            Self::Carried(passage) => Some(passage),
            Self::Lost | Self::QueueFull => None,
        }
    }
}

/// How a datagram travels. Times since the beginning of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// How long it waits in the queue before its own first bit leaves.
    pub waited: Duration,
    /// When its last bit leaves the bottleneck.
    pub out: Duration,
    /// When it arrives.
    pub arrival: Duration,
    /// When it arrives once more.
    pub again: Option<Duration>,
    /// Whether later ones may overtake it.
    pub detoured: bool,
}

/// What a change of the rate does to what waits in the queue; see [`Link::change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    at: Duration,
    /// Rates before and after; `None` where there is no bottleneck.
    rates: (Option<u64>, Option<u64>),
}

impl Shift {
    /// When something now happens at the bottleneck that was to happen at `time`.
    #[must_use]
    pub fn of(self, time: Duration) -> Duration {
        let Some(left) = time.checked_sub(self.at) else { return time };
        match self.rates {
            (Some(before), Some(after)) => {
                let bits = left.as_nanos() * u128::from(before);
                self.at + nanos(bits / u128::from(after.max(1)))
            }
            // Without a bottleneck nothing waits, neither before nor after.
            _ => self.at,
        }
    }
}

/// One direction of a line with its state.
#[derive(Clone, Debug)]
pub struct Link {
    /// What happens from when on, in order of time.
    timeline: Vec<(Duration, Conditions)>,
    /// What holds before.
    first: Conditions,
    rng: Rng,
    /// When the bottleneck has sent all it holds.
    free_at: Duration,
    /// The latest arrival of a datagram that kept its place.
    last_arrival: Duration,
    /// When the last frame on a stream transport arrives of those sent before the timeline's first
    /// change, before its second, and so on.
    streamed: Vec<Duration>,
    /// The bad state of [`Burst`].
    bad: bool,
    counts: Counts,
}

/// A stream transport sends a lost segment again after about so long.
const STREAM_RESEND: Duration = Duration::from_millis(200);
/// IPv4 and UDP headers count on the wire.
const HEADERS: u64 = 28;
/// Billionths of a bit in a byte: a rate times nanoseconds.
const BYTE: u128 = 8_000_000_000;

impl Link {
    /// A direction that starts as [`Conditions::GOOD`] and changes as `timeline` says.
    #[must_use]
    pub fn new(timeline: &[(Duration, Conditions)], rng: Rng) -> Self {
        let mut timeline = timeline.to_vec();
        timeline.sort_by_key(|(from, _)| *from);
        let streamed = vec![Duration::ZERO; timeline.len() + 1];
        Self {
            timeline,
            first: Conditions::GOOD,
            rng,
            free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            streamed,
            bad: false,
            counts: Counts::default(),
        }
    }

    /// A direction that is so until [`Link::change`] says otherwise.
    #[must_use]
    pub fn steady(conditions: Conditions, rng: Rng) -> Self {
        Self { first: conditions, ..Self::new(&[], rng) }
    }

    /// What holds at `now`.
    #[must_use]
    pub fn conditions(&self, now: Duration) -> Conditions {
        let index = self.changes_by(now).checked_sub(1).and_then(|index| self.timeline.get(index));
        index.map_or(self.first, |(_, conditions)| *conditions)
    }

    /// From `now` on it is so, whatever the timeline said. What waits in the queue is to be moved as the returned shift
    /// says, which [`crate::pipe::Pipe`] does.
    pub fn change(&mut self, now: Duration, conditions: Conditions) -> Shift {
        let rate = |conditions: Conditions| conditions.bottleneck.map(|b| b.rate_bps);
        let rates = (rate(self.conditions(now)), rate(conditions));
        let shift = Shift { at: now, rates };
        self.timeline.clear();
        self.streamed.truncate(1);
        self.first = conditions;
        self.free_at = shift.of(self.free_at);
        self.last_arrival = Duration::ZERO;
        shift
    }

    /// What keeps its place and is sent from now on arrives after `arrival`.
    pub fn follow(&mut self, arrival: Duration) {
        self.last_arrival = self.last_arrival.max(arrival);
    }

    /// Since when that has held, and what a connection held back before has arrived: in order, and
    /// so long after its line is good again.
    #[must_use]
    pub fn changed_at(&self, now: Duration) -> Duration {
        let passed = self.changes_by(now);
        let changed = passed.checked_sub(1).map_or(Duration::ZERO, |index| self.timeline[index].0);
        let held = self.streamed[..passed].iter().max().copied().unwrap_or(Duration::ZERO);
        changed.max(held.min(now))
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What becomes of a datagram of `len` bytes of UDP payload that is sent at `now`.
    pub fn carry(&mut self, now: Duration, len: usize) -> Fate {
        let conditions = self.conditions(now);
        self.counts.sent += 1;
        if self.is_lost(&conditions) {
            self.counts.lost += 1;
            return Fate::Lost;
        }
        let Some((start, out)) = self.queue(now, len, &conditions) else {
            self.counts.queue_full += 1;
            return Fate::QueueFull;
        };
        let (arrival, detoured) = self.arrival(out, &conditions);
        let again = self.rng.chance(conditions.duplicate).then(|| {
            self.counts.duplicated += 1;
            arrival + Duration::from_micros(100) + self.rng.up_to(conditions.detour)
        });
        let waited = start.saturating_sub(now);
        Fate::Carried(Passage { waited, out, arrival, again, detoured })
    }

    /// When a frame of `len` bytes on a stream transport arrives: always, and in order; loss is time.
    pub fn carry_in_order(&mut self, now: Duration, len: usize) -> Duration {
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
        self.free_at = self.served(self.free_at.max(now), len);
        self.last_arrival = self.last_arrival.max(self.free_at + delay);
        let index = self.changes_by(now);
        self.streamed[index] = self.last_arrival;
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

    /// When the first and the last bit leave the bottleneck; `None` when the queue is full.
    fn queue(
        &mut self,
        now: Duration,
        len: usize,
        conditions: &Conditions,
    ) -> Option<(Duration, Duration)> {
        let Some(bottleneck) = conditions.bottleneck else { return Some((now, now)) };
        let start = self.free_at.max(now);
        let waiting = self.backlog(now, start);
        let full = match bottleneck.queue {
            Queue::Time(longest) => {
                nanos(waiting / u128::from(bottleneck.rate_bps.max(1))) > longest
            }
            Queue::Bytes(most) => waiting + weight(len) > u128::from(most) * BYTE,
        };
        if full {
            return None;
        }
        self.free_at = self.served(start, len);
        Some((start, self.free_at))
    }

    /// When a datagram whose first bit is sent at `start` has been sent whole, with the rates that come meanwhile.
    fn served(&self, start: Duration, len: usize) -> Duration {
        let (mut at, mut left) = (start, weight(len));
        let mut next = self.changes_by(at);
        loop {
            let Some(bottleneck) = self.conditions(at).bottleneck else { return at };
            let rate = u128::from(bottleneck.rate_bps.max(1));
            let done = at + nanos(left / rate);
            let Some((change, _)) = self.timeline.get(next).filter(|(change, _)| *change < done)
            else {
                return done;
            };
            left = left.saturating_sub((*change - at).as_nanos() * rate);
            (at, next) = (*change, next + 1);
        }
    }

    /// What is still to be sent at `now` when the bottleneck is free at `until`, in billionths of a bit.
    fn backlog(&self, now: Duration, until: Duration) -> u128 {
        let (mut at, mut next, mut sum) = (now, self.changes_by(now), 0);
        while at < until {
            let change = self.timeline.get(next).map_or(until, |(change, _)| *change).min(until);
            let rate = self.conditions(at).bottleneck.map_or(0, |b| u128::from(b.rate_bps.max(1)));
            sum += (change - at).as_nanos() * rate;
            (at, next) = (change, next + 1);
        }
        sum
    }

    fn arrival(&mut self, out: Duration, conditions: &Conditions) -> (Duration, bool) {
        let arrival = out + conditions.delay + self.rng.up_to(conditions.jitter);
        if self.rng.chance(conditions.reorder) {
            self.counts.reordered += 1;
            return (arrival + self.rng.up_to(conditions.detour), true);
        }
        if conditions.jitter_reorders {
            return (arrival, true);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        (self.last_arrival, false)
    }

    /// How many changes of the timeline have happened.
    fn changes_by(&self, now: Duration) -> usize {
        self.timeline.partition_point(|(from, _)| *from <= now)
    }
}

/// A datagram in billionths of a bit.
fn weight(len: usize) -> u128 {
    u128::from(len as u64 + HEADERS) * BYTE
}

fn nanos(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    fn link(conditions: Conditions) -> Link {
        Link::new(&[(Duration::ZERO, conditions)], Rng::new(3))
    }

    fn limited(rate_bps: u64, queue: Queue) -> Conditions {
        Conditions { bottleneck: Some(Bottleneck { rate_bps, queue }), ..Conditions::CLEAR }
    }

    #[test]
    fn a_connection_has_changed_once_nothing_is_held_back_any_more() {
        let (cut, good) = (Conditions::CUT, Conditions::GOOD);
        let moment = Duration::from_nanos(1);
        let mut link = Link::new(&[(Duration::ZERO, cut), (SECOND, good)], Rng::new(3));
        let held = link.carry_in_order(SECOND - moment, 100);
        assert_eq!(link.carry_in_order(SECOND, 100), held, "in order");
        let between = held - moment;
        assert_eq!([link.changed_at(SECOND), link.changed_at(between)], [SECOND, between]);
        assert_eq!(link.changed_at(held + SECOND), held);
    }

    fn arrivals(link: &mut Link, count: u32, gap: Duration) -> Vec<Option<Duration>> {
        (0..count).map(|n| link.carry(gap * n, 100).arrivals().next()).collect()
    }

    #[test]
    fn a_good_line_keeps_order_and_loses_nothing() {
        let arrivals = arrivals(&mut link(Conditions::GOOD), 1000, Duration::from_micros(1));
        assert!(arrivals.iter().all(Option::is_some));
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn loss_has_the_rate_asked_for() {
        let mut link = link(Conditions { loss: 0.2, ..Conditions::GOOD });
        let lost = arrivals(&mut link, 20_000, MS).iter().filter(|a| a.is_none()).count();
        assert!((3800..4200).contains(&lost), "{lost}");
        assert_eq!(link.counts().lost, lost as u64);
    }

    #[test]
    fn bursts_have_the_mean_and_the_length_asked_for() {
        let burst = Burst { enter: 0.02, leave: 0.2, loss: 1.0 };
        let conditions = Conditions { burst: Some(burst), ..Conditions::GOOD };
        assert!((conditions.mean_loss() - 0.0909).abs() < 0.001);
        let mut link = link(conditions);
        let lost: Vec<bool> = arrivals(&mut link, 50_000, MS).iter().map(Option::is_none).collect();
        let total = lost.iter().filter(|lost| **lost).count() as f64;
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        assert!((total / 50_000.0 - 0.0909).abs() < 0.015, "{total}");
        assert!((total / bursts - 5.0).abs() < 0.7, "{}", total / bursts);
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_drops_at_the_tail() {
        // 128 bytes on the wire take 1 ms: ten wait, one is being sent.
        for queue in [Queue::Time(10 * MS), Queue::Bytes(11 * 128)] {
            let mut link = link(limited(1_024_000, queue));
            let fates: Vec<Fate> = (0..100).map(|_| link.carry(Duration::ZERO, 100)).collect();
            let passages: Vec<Passage> = fates.iter().filter_map(|fate| fate.passage()).collect();
            assert_eq!(passages.len(), 11, "{queue:?}");
            for (n, passage) in (0..).zip(&passages) {
                assert_eq!((passage.waited, passage.out), (MS * n, MS * (n + 1)));
                assert_eq!(passage.arrival, passage.out);
            }
            assert_eq!(link.counts().queue_full, 89);
        }
    }

    #[test]
    fn what_waits_is_sent_at_the_rate_that_comes() {
        let queue = Queue::Bytes(1 << 20);
        let (fast, slow) = (limited(1_024_000, queue), limited(102_400, queue));
        let timeline = [(Duration::ZERO, fast), (5 * MS, slow), (55 * MS, Conditions::CLEAR)];
        let mut link = Link::new(&timeline, Rng::new(1));
        let out: Vec<Duration> =
            arrivals(&mut link, 20, Duration::ZERO).into_iter().flatten().collect();
        // Five in 5 ms, five in 50 ms, and what is left goes at once.
        assert_eq!([out[4], out[5], out[9]], [5 * MS, 15 * MS, 55 * MS]);
        assert!(out[10..].iter().all(|out| *out == 55 * MS));
    }

    #[test]
    fn reordering_and_duplicates_happen_when_asked_for() {
        let detour = 5 * MS;
        let odd = Conditions { reorder: 0.1, detour, duplicate: 0.1, ..Conditions::GOOD };
        let mut link = link(odd);
        assert!(!arrivals(&mut link, 1000, MS).is_sorted());
        assert!((50..150).contains(&link.counts().duplicated));
        assert!((50..150).contains(&link.counts().reordered));
    }

    #[test]
    fn jitter_reorders_only_when_asked_for() {
        let even = Conditions { jitter: 20 * MS, ..Conditions::CLEAR };
        assert!(arrivals(&mut link(even), 1000, MS).is_sorted());
        let odd = Conditions { jitter_reorders: true, ..even };
        assert!(!arrivals(&mut link(odd), 1000, MS).is_sorted());
    }

    #[test]
    fn a_stream_loses_nothing_and_keeps_order_under_loss() {
        let mut link = link(Conditions { loss: 0.3, reorder: 0.5, ..Conditions::GOOD });
        let arrived: Vec<Duration> = (0..500).map(|n| link.carry_in_order(MS * n, 500)).collect();
        assert!(arrived.is_sorted());
        assert!(link.counts().lost > 100);
    }

    #[test]
    fn conditions_change_with_time() {
        let timeline = [(SECOND, Conditions::CUT), (2 * SECOND, Conditions::GOOD)];
        let mut link = Link::new(&timeline, Rng::new(1));
        let mut arrives = |at| link.carry(at, 10).arrivals().next().is_some();
        assert!(arrives(SECOND - MS));
        assert!(!arrives(SECOND));
        assert!(arrives(2 * SECOND));
    }
}
