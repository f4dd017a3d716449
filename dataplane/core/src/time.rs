//! Time as an argument: the core never reads a clock.

use std::ops::{Add, Sub};
pub use std::time::Duration;

/// A point on the worker's monotonic clock, in nanoseconds since an arbitrary start.
///
/// A type of its own, so that neither a wall clock nor `std::time::Instant` slips into the core, and a test can make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The time since `earlier`, zero if that is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, before: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(before.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// What a worker is told about time at the start of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic.
    pub at: Instant,
    /// NTP wall-clock time, 32.32 fixed point (RFC 3550 section 4), for sender reports.
    pub ntp: u64,
}
