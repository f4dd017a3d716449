//! Loss of one encoding on its way to us: what never came, once reordering has settled.
//!
//! The cumulative loss of RFC 3550 counts a packet that is overtaken as lost until it arrives, and one that comes twice as
//! one that was lost less. Here each sequence number has a place. A place that stays empty for the time to settle after a
//! later packet has come is lost; what comes for it after that is late, what comes twice is a duplicate, and what RTX
//! brings (RFC 4588) was lost and is repaired.

use crate::limits::{LOSS_PLACES, LOSS_SETTLE, LOSS_SETTLE_MAX};
use crate::time::{Duration, Instant};

/// How many lengths of bursts are told apart.
pub const BURST_CLASSES: usize = 8;
/// The longest burst of each class, in packets; the last one has no end.
pub const BURST_LENGTHS: [u64; BURST_CLASSES] = [1, 2, 3, 4, 8, 16, 32, u64::MAX];

/// Loss of an encoding since it began; over restarts of the sender, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossStatistics {
    /// Packets that are known to have been sent, and had the time to arrive.
    pub expected: u64,
    /// Those of them that did not arrive in time.
    pub lost: u64,
    /// Those of the lost that came by retransmission, or were had from forward error correction.
    pub repaired: u64,
    /// Packets that arrived after they had been taken for lost.
    pub late: u64,
    /// Packets that arrived more than once.
    pub duplicates: u64,
    /// Runs of lost packets by length, see [`BURST_LENGTHS`].
    pub bursts: [u64; BURST_CLASSES],
}

impl LossStatistics {
    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut bursts = self.bursts;
        for (now, before) in bursts.iter_mut().zip(before.bursts) {
            *now = now.saturating_sub(before);
        }
        Self {
            expected: self.expected.saturating_sub(before.expected),
            lost: self.lost.saturating_sub(before.lost),
            repaired: self.repaired.saturating_sub(before.repaired),
            late: self.late.saturating_sub(before.late),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
            bursts,
        }
    }

    /// Share of the expected packets that were lost, 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        if self.expected == 0 { 0.0 } else { self.lost as f64 / self.expected as f64 }
    }
}

/// The places of one source, as a ring of [`LOSS_PLACES`]; those outside of `next..=newest` are empty.
#[derive(Debug)]
pub(crate) struct Loss {
    arrived: [u64; WORDS],
    repaired: [u64; WORDS],
    /// The first place that is not judged yet.
    next: u64,
    newest: Option<u64>,
    /// Whether any place was judged since the source began.
    judged: bool,
    /// Timestamp and arrival of the newest packet.
    last: (u32, Instant),
    /// The place after the newest one, a step ago, two steps ago, and so on.
    past: [u64; STEPS],
    step_at: usize,
    stepped: Instant,
    step: Duration,
    /// Length of the burst that has not ended.
    run: u64,
    total: LossStatistics,
}

const WORDS: usize = LOSS_PLACES / 64;
/// The time to settle in steps: exact to two of them.
const STEPS: usize = 8;
/// A larger gap needs timestamps that went on as the clock did; otherwise the sender began anew with other numbers.
const GAP: u64 = 100;
/// So much may timestamps and clock differ over a gap, beside a quarter of its time.
const GAP_SLACK: Duration = Duration::from_secs(1);

impl Default for Loss {
    fn default() -> Self {
        Self {
            arrived: [0; WORDS],
            repaired: [0; WORDS],
            next: 0,
            newest: None,
            judged: false,
            last: (0, Instant::default()),
            past: [0; STEPS],
            step_at: 0,
            stepped: Instant::default(),
            step: LOSS_SETTLE / STEPS as u32,
            run: 0,
            total: LossStatistics::default(),
        }
    }
}

impl Loss {
    /// A packet came for the first time; its sequence number is extended past 16 bits.
    pub(crate) fn on_packet(&mut self, at: Instant, seq: u64, timestamp: u32, clock_rate_hz: u32) {
        let Some(newest) = self.newest else { return self.begin(at, seq, timestamp) };
        if at.since(self.stepped) >= self.step {
            self.settle(at);
        }
        if seq > newest {
            if seq - newest > GAP && !self.goes_on(at, timestamp, clock_rate_hz) {
                self.judge(newest + 1);
                self.end_burst();
                return self.begin(at, seq, timestamp);
            }
            if seq - self.next >= PLACES {
                self.judge(seq + 1 - PLACES);
            }
            self.newest = Some(seq);
            self.last = (timestamp, at);
        } else if seq < self.next {
            if self.judged || newest - seq >= PLACES {
                self.total.late += 1;
                return;
            }
            // The first ones overtook it.
            self.next = seq;
        }
        set(&mut self.arrived, seq);
    }

    /// A packet that had not come before came by retransmission.
    pub(crate) fn on_repair(&mut self, seq: u64) {
        if self.newest.is_none() {
            return;
        }
        if seq < self.next {
            self.total.repaired += u64::from(self.judged);
        } else if seq - self.next < PLACES {
            set(&mut self.repaired, seq);
        }
    }

    /// A packet came that the window of sequence numbers has seen before: again, or after its retransmission. Returns whether
    /// it is not known to have come itself.
    pub(crate) fn on_again(&mut self, seq: u64) -> bool {
        let Some(newest) = self.newest else { return false };
        if seq < self.next {
            self.total.late += 1;
            return true;
        }
        let again = seq > newest || has(&self.arrived, seq);
        if again {
            self.total.duplicates += 1;
        } else {
            set(&mut self.arrived, seq);
        }
        !again
    }

    /// Another sender takes its place, with numbers of its own.
    pub(crate) fn restart(&mut self) {
        if let Some(newest) = self.newest.take() {
            self.judge(newest + 1);
            self.end_burst();
        }
        // What RTX brought of packets that would have come.
        self.repaired = [0; WORDS];
    }

    /// Judges the places whose time to settle is over.
    pub(crate) fn settle(&mut self, now: Instant) {
        let Some(newest) = self.newest else { return };
        let step = self.step.as_nanos().max(1) as u64;
        let steps = now.since(self.stepped).as_nanos() as u64 / step;
        for _ in 0..steps.min(STEPS as u64) {
            self.step_at = (self.step_at + 1) % STEPS;
            let Some(past) = self.past.get_mut(self.step_at) else { return };
            let settled = std::mem::replace(past, newest + 1);
            self.judge(settled);
        }
        // Nothing came meanwhile: all that is known is older than that.
        if steps > STEPS as u64 {
            self.judge(newest + 1);
        }
        self.stepped = Instant(self.stepped.0.saturating_add(steps.saturating_mul(step)));
    }

    /// A place settles after two round trips, in which a retransmission comes, and not before [`LOSS_SETTLE`].
    pub(crate) fn set_round_trip(&mut self, round_trip: Duration) {
        self.step = (round_trip * 2).clamp(LOSS_SETTLE, LOSS_SETTLE_MAX) / STEPS as u32;
    }

    /// How many were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.total.lost
    }

    /// What is known by now; a burst that may go on counts as it is.
    pub(crate) fn statistics(&self) -> LossStatistics {
        let mut total = self.total;
        count_burst(&mut total, self.run);
        total
    }

    fn begin(&mut self, at: Instant, seq: u64, timestamp: u32) {
        (self.next, self.newest, self.judged) = (seq, Some(seq), false);
        (self.last, self.past, self.stepped) = ((timestamp, at), [0; STEPS], at);
        self.repaired = [0; WORDS];
        set(&mut self.arrived, seq);
    }

    /// Whether the stream's timestamps went on with the clock since its newest packet.
    fn goes_on(&self, at: Instant, timestamp: u32, clock_rate_hz: u32) -> bool {
        let (before, since) = self.last;
        let elapsed = at.since(since);
        let ticks = timestamp.wrapping_sub(before);
        let nanos =
            u64::from(ticks).saturating_mul(1_000_000_000) / u64::from(clock_rate_hz.max(1));
        Duration::from_nanos(nanos).abs_diff(elapsed) <= GAP_SLACK + elapsed / 4
    }

    /// Judges all places before `until`, and empties them.
    fn judge(&mut self, until: u64) {
        while self.next < until {
            let offset = self.next % 64;
            let count = (64 - offset).min(until - self.next);
            let mask = u64::MAX >> (64 - count) << offset;
            let at = word(self.next);
            let (Some(arrived), Some(repaired)) =
                (self.arrived.get_mut(at), self.repaired.get_mut(at))
            else {
                return;
            };
            let (came, again) = (*arrived & mask, *repaired & mask);
            (*arrived, *repaired) = (*arrived & !mask, *repaired & !mask);
            self.total.expected += count;
            self.total.repaired += u64::from((again & !came).count_ones());
            self.judged = true;
            self.next += count;
            if came == mask && self.run == 0 {
                continue;
            }
            let (mut places, mut left) = (came >> offset, count);
            while left > 0 {
                let full = u64::from(places.trailing_ones()).min(left);
                if full > 0 {
                    self.end_burst();
                }
                places = places.checked_shr(full as u32).unwrap_or(0);
                left -= full;
                let empty = u64::from(places.trailing_zeros()).min(left);
                self.total.lost += empty;
                self.run += empty;
                places = places.checked_shr(empty as u32).unwrap_or(0);
                left -= empty;
            }
        }
    }

    fn end_burst(&mut self) {
        let run = std::mem::take(&mut self.run);
        count_burst(&mut self.total, run);
    }
}

const PLACES: u64 = LOSS_PLACES as u64;

fn count_burst(total: &mut LossStatistics, run: u64) {
    if run > 0 {
        let class = BURST_LENGTHS.iter().position(|longest| run <= *longest);
        class.and_then(|class| total.bursts.get_mut(class)).into_iter().for_each(|n| *n += 1);
    }
}

fn word(seq: u64) -> usize {
    ((seq % PLACES) / 64) as usize
}

fn set(places: &mut [u64; WORDS], seq: u64) {
    if let Some(word) = places.get_mut(word(seq)) {
        *word |= 1 << (seq % 64);
    }
}

fn has(places: &[u64; WORDS], seq: u64) -> bool {
    places.get(word(seq)).is_some_and(|word| word & (1 << (seq % 64)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 packets a second of a 90 kHz clock.
    struct Feed {
        loss: Loss,
        now: Instant,
    }

    impl Feed {
        fn new() -> Self {
            Self { loss: Loss::default(), now: Instant(1_000_000_000_000) }
        }

        fn send(&mut self, seq: u64) {
            self.loss.on_packet(self.now, seq, (seq * 450) as u32, 90_000);
            self.now = self.now + Duration::from_millis(5);
        }

        fn settled(&mut self) -> LossStatistics {
            self.now = self.now + LOSS_SETTLE * 2;
            self.loss.settle(self.now);
            self.loss.statistics()
        }
    }

    fn feed(seqs: impl IntoIterator<Item = u64>) -> Feed {
        let mut feed = Feed::new();
        seqs.into_iter().for_each(|seq| feed.send(seq));
        feed
    }

    #[test]
    fn what_never_came_is_lost_and_what_was_overtaken_is_not() {
        let order = [100, 101, 105, 104, 103, 107, 106, 110, 111];
        let told = feed(order).settled();
        // 102, 108 and 109.
        assert_eq!((told.expected, told.lost, told.late), (12, 3, 0));
        assert_eq!(told.bursts, [1, 1, 0, 0, 0, 0, 0, 0]);
        assert!((told.fraction() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn a_place_is_judged_when_its_time_is_over_and_not_before() {
        let mut feed = feed([100, 102]);
        feed.now = feed.now + LOSS_SETTLE - Duration::from_millis(10);
        feed.loss.settle(feed.now);
        assert_eq!(feed.loss.statistics().lost, 0);
        feed.send(101);
        assert_eq!(feed.settled().lost, 0, "just in time");

        let mut feed = self::feed([100, 102]);
        assert_eq!(feed.settled().lost, 1);
        feed.send(101);
        let told = feed.settled();
        assert_eq!((told.lost, told.late), (1, 1), "too late");
    }

    #[test]
    fn a_long_round_trip_lets_places_settle_later() {
        let mut feed = feed([100, 102]);
        feed.loss.set_round_trip(Duration::from_millis(600));
        feed.now = feed.now + Duration::from_millis(1150);
        feed.loss.settle(feed.now);
        assert_eq!(feed.loss.statistics().lost, 0);
        feed.now = feed.now + Duration::from_millis(600);
        feed.loss.settle(feed.now);
        assert_eq!(feed.loss.statistics().lost, 1);
    }

    #[test]
    fn a_retransmission_repairs_a_loss_and_does_not_hide_it() {
        let mut feed = feed([100, 104]);
        feed.loss.on_repair(101);
        feed.loss.on_repair(102);
        // The original of 102 was only slow.
        assert!(feed.loss.on_again(102));
        let told = feed.settled();
        assert_eq!((told.expected, told.lost, told.repaired, told.duplicates), (5, 2, 1, 0));
        feed.loss.on_repair(103);
        assert_eq!(feed.loss.statistics().repaired, 2, "after it was judged");
    }

    #[test]
    fn duplicates_change_nothing_but_their_own_count() {
        let mut feed = feed([100, 101, 103]);
        assert!(!feed.loss.on_again(101));
        assert!(!feed.loss.on_again(103));
        let told = feed.settled();
        assert_eq!((told.expected, told.lost, told.duplicates), (4, 1, 2));
    }

    #[test]
    fn bursts_are_counted_by_length_over_words_and_judgements() {
        let mut feed = Feed::new();
        let mut lost = Vec::new();
        for length in [1, 2, 3, 4, 7, 15, 30, 70] {
            let from = lost.last().map_or(1050, |last| last + 37);
            lost.extend(from..from + length);
        }
        (1000..3000).filter(|seq| !lost.contains(seq)).for_each(|seq| feed.send(seq));
        let told = feed.settled();
        assert_eq!((told.expected, told.lost), (2000, 132));
        assert_eq!(told.bursts, [1; 8]);
    }

    #[test]
    fn what_was_overtaken_by_the_first_is_expected_too() {
        let told = feed([102, 100, 103]).settled();
        assert_eq!((told.expected, told.lost, told.late), (4, 1, 0));
    }

    #[test]
    fn an_interruption_is_loss_and_a_new_start_is_not() {
        let mut feed = feed(100..200);
        // 25 s without a packet, in which the sender went on.
        feed.now = feed.now + Duration::from_secs(25);
        (5200..5300).for_each(|seq| feed.send(seq));
        let told = feed.settled();
        assert_eq!((told.expected, told.lost), (5200, 5000));
        assert_eq!(told.bursts[BURST_CLASSES - 1], 1);
        // Other numbers at once: it began anew.
        (25_000..25_100).for_each(|seq| feed.send(seq));
        assert_eq!(
            feed.settled().since(&told),
            LossStatistics { expected: 100, ..LossStatistics::default() }
        );
        feed.loss.restart();
        (10..20).for_each(|seq| feed.send(seq));
        assert_eq!(feed.settled().since(&told).expected, 110);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut loss = Loss::default();
        let mut seq = 70_000_u64;
        for n in 0..20_000_u64 {
            let at = Instant(n * 1000);
            seq = match n % 7 {
                0 => seq + 30_000,
                1 => seq.saturating_sub(900),
                _ => seq + n % 3,
            };
            loss.on_packet(at, seq, (n * 977_777) as u32, 90_000);
            loss.on_again(seq + n % 5000);
            loss.on_repair(seq + 5 * n % 9000);
        }
        let told = loss.statistics();
        assert!(told.lost <= told.expected);
    }
}
