//! The worker's clock: the one place of the data plane that reads the time.

use std::time::Duration;
use strait_core::time::{Instant, Now};

/// Seconds from 1900 (NTP) to 1970 (Unix), RFC 868.
const NTP_UNIX_OFFSET_SECONDS: u64 = 2_208_988_800;
/// A kernel timestamp further back than this says that the wall clock was set, not that a datagram waited.
const LATE_MAX: Duration = Duration::from_secs(10);

/// Reads `CLOCK_MONOTONIC` and `CLOCK_REALTIME`. All clocks of a host agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The time of a turn: monotonic nanoseconds, and NTP wall-clock time (RFC 3550 section 4).
    #[must_use]
    pub fn now(self) -> Now {
        Now { at: self.instant(), ntp: ntp(nanoseconds(libc::CLOCK_REALTIME)) }
    }

    /// Monotonic time alone.
    #[must_use]
    pub fn instant(self) -> Instant {
        Instant(nanoseconds(libc::CLOCK_MONOTONIC))
    }

    /// What turns the kernel's wall-clock timestamps into monotonic ones, good for one batch.
    pub(crate) fn conversion(self, now: Instant) -> Conversion {
        Conversion {
            now,
            real_to_monotonic: nanoseconds(libc::CLOCK_REALTIME)
                .wrapping_sub(nanoseconds(libc::CLOCK_MONOTONIC)),
        }
    }
}

/// See [`Clock::conversion`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversion {
    now: Instant,
    real_to_monotonic: u64,
}

impl Conversion {
    /// The turn's time where the kernel's is not known, in the future, or long past.
    pub(crate) fn arrival(self, realtime_ns: Option<u64>) -> Instant {
        let Some(realtime_ns) = realtime_ns else { return self.now };
        let at = Instant(realtime_ns.wrapping_sub(self.real_to_monotonic));
        if at > self.now || self.now.since(at) > LATE_MAX { self.now } else { at }
    }
}

fn ntp(unix_ns: u64) -> u64 {
    let seconds = (unix_ns / 1_000_000_000).wrapping_add(NTP_UNIX_OFFSET_SECONDS);
    let fraction = ((unix_ns % 1_000_000_000) << 32) / 1_000_000_000;
    (seconds << 32) | fraction
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to. Worth it: std's clocks hide their epoch, which the kernel's
    // timestamps refer to.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_counts_from_1900_with_a_binary_fraction() {
        assert_eq!(ntp(0), 2_208_988_800 << 32);
        assert_eq!(ntp(1_500_000_000), (2_208_988_801 << 32) | (1 << 31));
    }

    #[test]
    fn arrivals_are_never_in_the_future_and_survive_a_clock_step() {
        let now = Instant(100_000_000_000);
        let conversion = Conversion { now, real_to_monotonic: 7_000 };
        assert_eq!(conversion.arrival(None), now);
        assert_eq!(conversion.arrival(Some(now.0 + 7_000 - 500)), Instant(now.0 - 500));
        assert_eq!(conversion.arrival(Some(now.0 + 7_001)), now, "future");
        assert_eq!(conversion.arrival(Some(1)), now, "stepped wall clock");
    }

    #[test]
    fn time_goes_on() {
        let first = Clock.now();
        let second = Clock.now();
        assert!(second.at >= first.at);
        assert!(first.ntp >> 32 > 3_900_000_000, "after 2023");
    }
}
