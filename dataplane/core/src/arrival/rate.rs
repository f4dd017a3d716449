//! How much a stream carries, by looking at its counter now and then: nothing is done per packet.

use crate::limits::{ALLOCATION_INTERVAL, ENCODING_IDLE, RATE_MEMORY, RATE_WINDOW};
use crate::time::{Duration, Instant};

/// Samples of one window, and the one before it.
const SAMPLES: usize = 9;
const _: () = assert!(RATE_WINDOW.as_millis() <= 8 * ALLOCATION_INTERVAL.as_millis());
/// A shorter stretch says little: a single key frame would count for more than it is.
const STRETCH_MIN: Duration = Duration::from_millis(500);

/// Bits per second over the last [`RATE_WINDOW`]. Of a stream that stopped it stays what it was.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When, and how many bytes there had been; the newest at `newest`.
    samples: [Option<(Instant, u64)>; SAMPLES],
    newest: usize,
    /// When bytes were last seen to come.
    grew_at: Option<Instant>,
    bps: Option<u64>,
    /// What that was at the look before.
    before: Option<u64>,
    /// What it was when it was last seen to carry something for nearly [`RATE_WINDOW`], and when that was.
    lasting: Option<(Instant, u64)>,
}

impl Rate {
    /// Takes a look at the counter. More often than every [`ALLOCATION_INTERVAL`] is not needed, and not taken. Whether it
    /// was. `stopped`: its sender was told that nobody needs it.
    pub(crate) fn sample(&mut self, now: Instant, bytes: u64, stopped: bool) -> bool {
        let newest = self.samples.get(self.newest).copied().flatten();
        // Timers ring a little early or late.
        if newest.is_some_and(|(at, _)| now.since(at) < ALLOCATION_INTERVAL * 9 / 10) {
            return false;
        }
        let grew = newest.is_some_and(|(_, before)| before != bytes);
        if grew {
            self.grew_at = Some(now);
        } else {
            // It stopped between two looks: the later of them saw less than it carried.
            self.bps = self.bps.max(self.before.take());
            self.grew_at = self.grew_at.filter(|_| !stopped);
        }
        if self.grew_at.is_none_or(|at| now.since(at) >= ENCODING_IDLE) {
            // It stands still, or is about to begin: the silence is no part of how much it carries.
            self.samples = [None; SAMPLES];
        }
        self.newest = (self.newest + 1) % SAMPLES;
        if let Some(place) = self.samples.get_mut(self.newest) {
            *place = Some((now, bytes));
        }
        let recent = self.samples.iter().flatten().filter(|(at, _)| now.since(*at) <= RATE_WINDOW);
        // Looked at rarely: since the last time, then.
        let oldest = recent.min().copied().filter(|(at, _)| *at < now).or(newest);
        let oldest = oldest.filter(|(at, _)| grew && now.since(*at) >= STRETCH_MIN);
        let Some((at, before)) = oldest else { return true };
        let bits = u128::from(bytes.saturating_sub(before)) * 8_000_000;
        let bps = bits / now.since(at).as_micros().max(1);
        let mut bps = u64::try_from(bps).unwrap_or(u64::MAX);
        // It has begun anew just now, some time after the look before: what it carried in an earlier time says more. But not what
        // it did in another such moment, or the worst of many would be remembered for ever.
        if now.since(at) < RATE_WINDOW * 3 / 4 {
            self.lasting.take_if(|(seen, _)| now.since(*seen) >= RATE_MEMORY);
            bps = bps.max(self.lasting.map_or(0, |(_, bps)| bps));
        } else {
            self.lasting = Some((now, bps));
        }
        self.before = self.bps.replace(bps);
        true
    }

    /// What it carries, or carried when it was last seen to carry anything; `None` before that.
    pub(crate) fn bps(&self) -> Option<u64> {
        self.bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    /// Looks every 250 ms from `from` to `to` at a counter that grows by `bps`.
    fn flow(rate: &mut Rate, bytes: &mut u64, (from, to): (u64, u64), bps: u64) {
        for ms in (from..to).step_by(250) {
            rate.sample(at(ms), *bytes, false);
            *bytes += bps / 8 / 4;
        }
    }

    #[test]
    fn it_follows_within_its_window() {
        let (mut rate, mut bytes) = (Rate::default(), 0);
        flow(&mut rate, &mut bytes, (0, 500), 800_000);
        assert_eq!(rate.bps(), None, "too short to say");
        flow(&mut rate, &mut bytes, (500, 4000), 800_000);
        assert_eq!(rate.bps(), Some(800_000));
        flow(&mut rate, &mut bytes, (4000, 5000), 400_000);
        assert!((500_000..700_000).contains(&rate.bps().unwrap()), "{:?}", rate.bps());
        flow(&mut rate, &mut bytes, (5000, 6500), 400_000);
        assert_eq!(rate.bps(), Some(400_000));
    }

    #[test]
    fn what_stopped_is_remembered_and_its_silence_is_no_part_of_what_follows() {
        let (mut rate, mut bytes) = (Rate::default(), 0);
        flow(&mut rate, &mut bytes, (0, 4000), 1_000_000);
        flow(&mut rate, &mut bytes, (4000, 14_000), 0);
        assert_eq!(rate.bps(), Some(1_000_000));
        flow(&mut rate, &mut bytes, (14_000, 15_250), 1_000_000);
        assert_eq!(rate.bps(), Some(1_000_000), "at once");
    }

    #[test]
    fn what_stops_between_two_looks_is_remembered_as_it_was() {
        let (mut rate, mut bytes) = (Rate::default(), 0);
        flow(&mut rate, &mut bytes, (0, 4000), 1_000_000);
        // It ends 50 ms after the look at 3.75 s.
        rate.sample(at(4000), bytes - 25_000, false);
        assert!(rate.bps() < Some(950_000));
        rate.sample(at(4250), bytes - 25_000, false);
        assert_eq!(rate.bps(), Some(1_000_000));
    }

    #[test]
    fn silence_that_was_asked_for_is_no_part_of_what_it_carries() {
        let (mut rate, mut bytes) = (Rate::default(), 0);
        flow(&mut rate, &mut bytes, (0, 4000), 1_000_000);
        for ms in (4000..5000).step_by(250) {
            rate.sample(at(ms), bytes, true);
        }
        flow(&mut rate, &mut bytes, (5000, 6750), 1_000_000);
        assert_eq!(rate.bps(), Some(1_000_000));
    }

    #[test]
    fn what_comes_for_a_moment_is_remembered_as_it_was() {
        let (mut rate, mut bytes) = (Rate::default(), 0);
        flow(&mut rate, &mut bytes, (0, 4000), 1_000_000);
        flow(&mut rate, &mut bytes, (4000, 14_000), 0);
        flow(&mut rate, &mut bytes, (14_000, 14_500), 400_000);
        flow(&mut rate, &mut bytes, (14_500, 20_000), 0);
        assert_eq!(rate.bps(), Some(1_000_000));
        flow(&mut rate, &mut bytes, (20_000, 24_000), 400_000);
        assert_eq!(rate.bps(), Some(400_000), "it carries less now");
    }

    #[test]
    fn the_worst_moment_of_one_that_pauses_all_the_time_is_forgotten() {
        for stopped in [false, true] {
            let (mut rate, mut bytes, mut worst) = (Rate::default(), 0, 0);
            flow(&mut rate, &mut bytes, (0, 4000), 400_000);
            // It is told to stop, and does not: a moment of pictures, and a pause, over and over.
            let pause = if stopped { 250 } else { 2000 };
            let mut ms = 4000;
            for n in 0..30 {
                let bps = if n == 5 { 4_000_000 } else { 400_000 };
                for (lasts, bps) in [(750, bps), (pause, 0)] {
                    for at_ms in (ms..ms + lasts).step_by(250) {
                        rate.sample(at(at_ms), bytes, stopped);
                        bytes += bps / 8 / 4;
                    }
                    ms += lasts;
                }
                worst = worst.max(rate.bps().unwrap());
            }
            assert!(worst > 1_000_000, "{worst}");
            assert!(rate.bps().unwrap() <= 450_000, "{:?}, stopped: {stopped}", rate.bps());
        }
    }

    #[test]
    fn what_it_carried_long_ago_says_nothing_of_the_moments_that_follow() {
        let (mut rate, mut bytes) = (Rate::default(), 0);
        flow(&mut rate, &mut bytes, (0, 4000), 1_000_000);
        flow(&mut rate, &mut bytes, (4000, 9000), 0);
        let mut ms = 9000;
        let mut moment = |rate: &mut Rate| {
            flow(rate, &mut bytes, (ms, ms + 1000), 100_000);
            flow(rate, &mut bytes, (ms + 1000, ms + 5000), 0);
            ms += 5000;
            rate.bps().unwrap()
        };
        assert_eq!(moment(&mut rate), 1_000_000);
        let last = (0..RATE_MEMORY.as_millis() / 5000 + 1).map(|_| moment(&mut rate)).last();
        assert!(last < Some(150_000), "{last:?}");
    }

    #[test]
    fn rare_looks_give_the_mean_since_the_last() {
        let mut rate = Rate::default();
        rate.sample(at(0), 0, false);
        rate.sample(at(1), 5, false);
        rate.sample(at(10_000), 100_000, false);
        assert_eq!(rate.bps(), Some(80_000));
    }
}
