//! When which peer wants to be looked at again.

use crate::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Due times are rounded up to this, so that wake-ups come in batches and re-arming stays rare.
const RESOLUTION: Duration = Duration::from_millis(5);

const RESOLUTION_FINE: Duration = Duration::from_millis(1);

/// A peer's due time. Kept by the peer; the entries of [`Timers`] that differ from it are stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarm(Option<Instant>);

/// The due times of all peers of a worker, soonest first.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BinaryHeap<Reverse<(Instant, u32)>>,
}

impl Timers {
    /// Asks that `peer` be looked at by `at` at the latest.
    pub(crate) fn arm(&mut self, alarm: &mut Alarm, peer: u32, at: Instant) {
        self.arm_rounded(alarm, peer, at, RESOLUTION);
    }

    /// The same, to the millisecond. Not for what lasts.
    pub(crate) fn arm_finely(&mut self, alarm: &mut Alarm, peer: u32, at: Instant) {
        self.arm_rounded(alarm, peer, at, RESOLUTION_FINE);
    }

    fn arm_rounded(&mut self, alarm: &mut Alarm, peer: u32, at: Instant, step: Duration) {
        let step = step.as_nanos() as u64;
        let at = Instant(at.0.div_ceil(step).saturating_mul(step));
        if alarm.0.is_none_or(|armed| at < armed) {
            alarm.0 = Some(at);
            self.due.push(Reverse((at, peer)));
        }
    }

    /// Takes the next entry that is due. Whether it is stale, [`Alarm::ring`] says.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, u32)> {
        let Reverse((at, _)) = *self.due.peek()?;
        if at > now {
            return None;
        }
        self.due.pop().map(|Reverse(entry)| entry)
    }

    /// When the soonest entry is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }
}

impl Alarm {
    /// Whether the entry for `at` is this alarm's own; if so, it is off until armed again.
    pub(crate) fn ring(&mut self, at: Instant) -> bool {
        let rings = self.0 == Some(at);
        if rings {
            self.0 = None;
        }
        rings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_soonest_request_rings() {
        let ms = |ms: u64| Instant(ms * 1_000_000);
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.arm(&mut alarm, 3, ms(100));
        timers.arm(&mut alarm, 3, ms(50));
        timers.arm(&mut alarm, 3, ms(70));
        assert_eq!(timers.next(), Some(ms(50)));
        assert_eq!(timers.pop(ms(49)), None);
        assert_eq!(timers.pop(ms(50)), Some((ms(50), 3)));
        assert!(alarm.ring(ms(50)));
        assert_eq!(timers.pop(ms(200)), Some((ms(100), 3)));
        assert!(!alarm.ring(ms(100)), "overtaken");
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn due_times_round_up() {
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.arm(&mut alarm, 0, Instant(5_000_001));
        assert_eq!(timers.next(), Some(Instant(10_000_000)));
        timers.arm_finely(&mut alarm, 0, Instant(5_000_001));
        assert_eq!(timers.next(), Some(Instant(6_000_000)));
    }
}
