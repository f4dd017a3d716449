//! Loss: what of it is the line's own, and what comes of sending too much.
//!
//! A line that loses at random (radio) loses the same share at every rate; one that is too narrow loses what goes beyond
//! it. So when more is lost than the line is known for, the rate is lowered once, and what happens then tells which it was.

use crate::time::{Duration, Instant};

/// The loss towards one subscriber.
#[derive(Debug)]
pub(crate) struct Loss {
    lost: u32,
    total: u32,
    since: Instant,
    /// The share that the line loses at any rate.
    inherent: f64,
    /// The share that was lost when the rate was last lowered for it.
    trial: Option<f64>,
}

/// A share is taken of so many packets and so much time; of fewer when they take long to come.
const PACKETS: u32 = 40;
const SPAN: Duration = Duration::from_millis(400);
const PACKETS_MIN: u32 = 6;
const SPAN_MAX: Duration = Duration::from_millis(1500);
/// Who knows nothing yet of a line expects this much.
const INHERENT: f64 = 0.02;
/// Whatever loses more than this is overloaded, or of no use.
const INHERENT_MAX: f64 = 0.2;
/// What is lost beyond the line's own share and this much is too much.
const EXCESS: f64 = 0.04;
/// And so many standard deviations, as small numbers vary.
const DEVIATIONS: f64 = 4.0;
/// If this much of the loss stays at the lower rate, it was not the rate.
const STAYS: f64 = 0.6;
/// How fast the line's own share follows what is seen.
const FOLLOWS: f64 = 0.15;

/// What is to be made of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As much as the line loses anyway, or not known yet.
    Usual,
    /// More: perhaps too much is sent.
    Excess,
    /// It was not that: at the lower rate as much is lost.
    Innocent,
}

impl Default for Loss {
    fn default() -> Self {
        Self { lost: 0, total: 0, since: Instant::default(), inherent: INHERENT, trial: None }
    }
}

impl Loss {
    /// A packet arrived, or did not.
    pub(crate) fn count(&mut self, arrived: bool) {
        self.total += 1;
        self.lost += u32::from(!arrived);
    }

    /// One that counted as lost arrived.
    pub(crate) fn arrived_late(&mut self) {
        self.lost = self.lost.saturating_sub(1);
    }

    /// The share that the line itself loses.
    pub(crate) fn inherent(&self) -> f64 {
        self.inherent
    }

    /// The feedback ends: what its losses mean.
    ///
    /// `settled`: the rate did not change so lately that the packets belong to another. `calm`: nothing waits in a queue.
    pub(crate) fn close(&mut self, now: Instant, settled: bool, calm: bool) -> Verdict {
        if self.total == 0 || !settled {
            (self.lost, self.total, self.since) = (0, 0, now);
            return Verdict::Usual;
        }
        let span = now.since(self.since);
        let enough = self.total >= PACKETS && span >= SPAN;
        if !enough && (self.total < PACKETS_MIN || span < SPAN_MAX) {
            return Verdict::Usual;
        }
        let total = f64::from(self.total);
        let share = f64::from(self.lost) / total;
        (self.lost, self.total, self.since) = (0, 0, now);
        let deviation = (self.inherent.max(INHERENT) / total).sqrt();
        let excess = share - self.inherent;
        if excess < EXCESS.max(DEVIATIONS * deviation) {
            self.trial = None;
            if calm {
                // Of few packets much may be lost before that stands out.
                self.inherent += (share.min(INHERENT_MAX) - self.inherent) * FOLLOWS;
            }
            return Verdict::Usual;
        }
        if let Some(before) = self.trial.take()
            && calm
            && share > before * STAYS
        {
            self.inherent = ((self.inherent + share) / 2.0).min(INHERENT_MAX);
            return Verdict::Innocent;
        }
        self.trial = Some(share);
        Verdict::Excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a second in steps of 100 ms in which one of `every` packets is lost; how often it was too much.
    fn second(loss: &mut Loss, from: u64, every: u32) -> usize {
        let mut n = 0;
        let step = |step: u64| {
            for _ in 0..20 {
                n += 1;
                loss.count(every == 0 || n % every != 0);
            }
            loss.close(Instant((from * 1000 + step * 100) * 1_000_000), true, true)
                == Verdict::Excess
        };
        (0..10).map(step).filter(|over| *over).count()
    }

    #[test]
    fn a_line_that_always_loses_is_known_for_it() {
        let mut loss = Loss::default();
        let over: usize = (0..20).map(|s| second(&mut loss, s, 10)).sum();
        assert!((1..=3).contains(&over), "{over}");
        assert!((loss.inherent() - 0.1).abs() < 0.02, "{}", loss.inherent());
    }

    #[test]
    fn loss_that_goes_with_the_rate_is_too_much_each_time() {
        let (mut loss, mut over, mut lowered) = (Loss::default(), 0, 0);
        for step in 0..200 {
            // A quarter is lost until the rate is lowered, which it is for a second.
            (0..20).for_each(|n| loss.count(step < lowered || n % 4 != 0));
            let verdict = loss.close(Instant(step * 100 * 1_000_000), true, true);
            assert_ne!(verdict, Verdict::Innocent);
            if verdict == Verdict::Excess {
                (over, lowered) = (over + 1, step + 10);
            }
        }
        assert!(over >= 10, "{over}");
        assert!(loss.inherent() < 0.05, "{}", loss.inherent());
    }

    #[test]
    fn a_line_is_not_known_for_more_than_it_may_lose() {
        // Of few packets more and more are lost, each time hardly more than the last.
        let mut loss = Loss::default();
        for step in 0..400_u64 {
            (0..20).for_each(|n| loss.count(n * 20 >= step));
            loss.close(Instant(step * 1_600 * 1_000_000), true, true);
            assert!(loss.inherent() <= INHERENT_MAX, "{}", loss.inherent());
        }
        assert!(loss.inherent() > INHERENT_MAX / 2.0, "{}", loss.inherent());
    }

    #[test]
    fn nothing_lost_is_nothing_lost() {
        let mut loss = Loss::default();
        assert_eq!((0..10).map(|s| second(&mut loss, s, 0)).sum::<usize>(), 0);
        assert!(loss.inherent() < 0.001);
    }
}
