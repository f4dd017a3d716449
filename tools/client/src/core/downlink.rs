//! What the direct way from the other of two carries. The node watches its own lines; between two there is nobody else to
//! do it: each watches what comes to it, and tells the other one how much that may be (REMB).
//!
//! What is seen is arrival minus send time, a constant (neither clock knows the other) plus what the packet waited. The
//! least within the last windows is the constant, the least within an interval the queue that stands: what a burst waits
//! for itself is no sign of anything.

use std::time::Duration;
use strait_wire::ext::AbsSendTime;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// The rate is that of so many intervals.
const RATE_INTERVALS: usize = 2;
/// A window of the least transit; two count. A way that became longer reads as a queue for as long.
const WINDOW: Duration = Duration::from_secs(10);
/// A queue that stands so long is too long: the rate comes down.
const QUEUE_HIGH_US: i64 = 40_000;
/// With less than this the way is taken for free.
const QUEUE_LOW_US: i64 = 15_000;
/// A queue that shortens by so much in an interval is left to do so.
const DRAINS_US: i64 = 5_000;
/// What may come is said again at least so often, as it may get lost.
const REPEAT: Duration = Duration::from_secs(1);
/// More is never said: above it nothing is known that an encoder here would need.
const MOST_BPS: u64 = 8_000_000;
/// Nor less.
const LEAST_BPS: u64 = 48_000;
/// A turn of abs-send-time's 24 bits, and what a second is in it.
const TURN: i64 = 1 << 24;
const SECOND: i64 = 1 << 18;

/// See above. It knows nothing, and says nothing, until something waited.
#[derive(Default)]
pub struct Downlink {
    /// The send time that came last, unwrapped.
    sent: Option<i64>,
    /// The least transit of the window before this one, and of this one, in microseconds.
    lows: (Option<i64>, Option<i64>),
    window_ends: Duration,
    /// The least transit of this interval.
    low: Option<i64>,
    bytes: u64,
    rates: [u64; RATE_INTERVALS],
    ends: Option<Duration>,
    queue_us: i64,
    estimate_bps: Option<u64>,
    /// What was too much last.
    too_much_bps: Option<u64>,
    /// For how many looks a queue stood, and what came meanwhile: that is what the way carries.
    stood: usize,
    carries_bps: Option<u64>,
    told: Option<(u64, Duration)>,
}

impl Downlink {
    /// A packet came directly.
    pub fn on_packet(&mut self, now: Duration, sent: AbsSendTime, bytes: usize) {
        self.ends.get_or_insert(now + INTERVAL);
        self.bytes += bytes as u64;
        let stamp = i64::from(sent.value());
        let before = self.sent.unwrap_or(stamp);
        let step = (stamp - before).rem_euclid(TURN);
        let step = if step >= TURN / 2 { step - TURN } else { step };
        self.sent = Some(before + step);
        let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let transit = now_us - (before + step) * 1_000_000 / SECOND;
        self.low = Some(self.low.map_or(transit, |low| low.min(transit)));
    }

    /// What the other one is to be told, in bits per second, where something is due.
    pub fn poll(&mut self, now: Duration) -> Option<u64> {
        if self.ends.is_none_or(|ends| ends > now) {
            return None;
        }
        self.ends = None;
        self.look(now);
        let bps = self.estimate_bps?;
        let is_due = self
            .told
            .is_none_or(|(told, at)| told.abs_diff(bps) * 40 >= told || at + REPEAT <= now);
        is_due.then(|| self.told.insert((bps, now)).0)
    }

    /// When something is due.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.ends
    }

    /// How long the queue is that stands.
    #[must_use]
    pub fn queue_delay(&self) -> Duration {
        Duration::from_micros(self.queue_us.unsigned_abs())
    }

    fn look(&mut self, now: Duration) {
        self.rates.rotate_left(1);
        if let Some(last) = self.rates.last_mut() {
            *last = std::mem::take(&mut self.bytes);
        }
        let Some(low) = self.low.take() else { return };
        if self.window_ends <= now {
            self.window_ends = now + WINDOW;
            self.lows = (self.lows.1, None);
        }
        let least = self.lows.1.map_or(low, |least| least.min(low));
        self.lows.1 = Some(least);
        let least = self.lows.0.map_or(least, |before| before.min(least));
        let before = std::mem::replace(&mut self.queue_us, low - least);
        let rate_bps = self.rates.iter().sum::<u64>() * 8 * 4 / RATE_INTERVALS as u64;
        if self.queue_us > QUEUE_HIGH_US {
            self.stood += 1;
            if self.stood > RATE_INTERVALS {
                self.carries_bps = Some(rate_bps);
            }
            if self.queue_us > before - DRAINS_US.max(before / 4) {
                let bps = self.estimate_bps.unwrap_or(u64::MAX).min(rate_bps);
                self.too_much_bps = Some(bps);
                // Enough below what arrives that what waits is gone after a second.
                let share = 900 - (self.queue_us / 1000).clamp(50, 450).unsigned_abs();
                self.estimate_bps = Some((bps * share / 1000).max(LEAST_BPS));
            }
            return;
        }
        self.stood = 0;
        if self.queue_us < QUEUE_LOW_US
            && let Some(bps) = &mut self.estimate_bps
        {
            // What waited is gone: no more needs to be held back for it.
            if let Some(carries) = self.carries_bps.take() {
                *bps = (*bps).max(carries * 85 / 100);
                return;
            }
            // Slowly where it was too much before; past that, as fast as elsewhere.
            self.too_much_bps.take_if(|limit| *bps > *limit * 11 / 10);
            let is_near = self.too_much_bps.is_some_and(|limit| *bps > limit * 9 / 10);
            let more = *bps * if is_near { 1010 } else { 1040 } / 1000;
            // What was not tried is not known to be carried.
            *bps = more.min(rate_bps * 3 / 2).max(*bps).min(MOST_BPS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seconds: f64) -> AbsSendTime {
        let [_, a, b, c] = ((seconds * SECOND as f64) as u32).to_be_bytes();
        AbsSendTime::parse(&[a, b, c]).unwrap()
    }

    /// A line of so many bits per second and a sender that does as it is told, for so long. Returns the queue at the end, and
    /// the most of the second half.
    struct Line {
        downlink: Downlink,
        now: Duration,
        queued: f64,
        sends_bps: u64,
    }

    impl Line {
        fn new(sends_bps: u64) -> Self {
            // Another clock than the receiver's, short of the end of a turn.
            let now = Duration::from_secs(50);
            Self { downlink: Downlink::default(), now, queued: 0.0, sends_bps }
        }

        fn run(&mut self, carries_bps: u64, time: Duration) -> Duration {
            let (step, end) = (Duration::from_millis(10), self.now + time);
            let mut most = 0.0_f64;
            while self.now < end {
                let bytes = self.sends_bps / 800;
                self.queued += bytes as f64 * 8.0 / carries_bps as f64;
                self.queued = (self.queued - step.as_secs_f64()).max(0.0);
                let sent = (self.now + Duration::from_secs(12_345)).as_secs_f64();
                let arrival = self.now + Duration::from_secs_f64(0.03 + self.queued);
                let sent = stamp(sent);
                self.downlink.on_packet(arrival, sent, bytes as usize);
                if let Some(bps) = self.downlink.poll(arrival) {
                    self.sends_bps = self.sends_bps.min(bps).max(bps.min(2_000_000));
                }
                if self.now + time / 2 > end {
                    most = most.max(self.queued);
                }
                self.now += step;
            }
            Duration::from_secs_f64(most)
        }
    }

    #[test]
    fn nothing_is_said_while_nothing_waits() {
        let mut line = Line::new(500_000);
        line.run(1_000_000, Duration::from_secs(60));
        assert_eq!(line.downlink.told, None);
        assert!(line.downlink.queue_delay() < Duration::from_millis(5));
    }

    #[test]
    fn a_queue_comes_down_stays_so_and_the_rate_comes_back() {
        let mut line = Line::new(1_500_000);
        line.run(2_000_000, Duration::from_secs(10));
        line.run(500_000, Duration::from_secs(5));
        let most = line.run(500_000, Duration::from_secs(30));
        assert!(most < Duration::from_millis(100), "{most:?}");
        assert!((300_000..=520_000).contains(&line.sends_bps), "{}", line.sends_bps);
        line.run(2_000_000, Duration::from_secs(30));
        assert!(line.sends_bps > 1_400_000, "{}", line.sends_bps);
    }

    #[test]
    fn a_way_that_becomes_longer_is_no_queue_for_ever() {
        let mut line = Line::new(500_000);
        line.run(5_000_000, Duration::from_secs(5));
        // 100 ms more, which look like a queue that never drains.
        for _ in 0..6000 {
            line.now += Duration::from_millis(10);
            let sent = stamp(line.now.as_secs_f64() + 12_345.0 - 0.13);
            line.downlink.on_packet(line.now, sent, 600);
            line.downlink.poll(line.now);
        }
        assert!(line.downlink.queue_delay() < Duration::from_millis(5));
        assert!(line.downlink.estimate_bps.unwrap() > 100_000);
    }
}
