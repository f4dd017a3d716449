//! When something happens: by the clock that goes on evenly, and by the one that people set.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment. A session begins at one, and all its times are that beginning's and what has passed
/// evenly since: a clock that is set neither lengthens nor shortens a stay, and the next session is
/// told by the time that is right by then.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The clock that goes on evenly.
    pub even: Instant,
    /// Milliseconds since 1970, as the system has it.
    pub wall: i64,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { even: Instant::now(), wall: millis(since) }
    }

    /// Milliseconds since 1970, at `self`, by the time as it was at `began`.
    pub fn since(self, began: Self) -> i64 {
        let passed = self.even.saturating_duration_since(began.even);
        began.wall.saturating_add(millis(passed))
    }

    /// Later, with a clock that went on as it should.
    #[cfg(test)]
    pub fn plus(self, passed: Duration) -> Self {
        Self { even: self.even + passed, wall: self.wall + millis(passed) }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_changes_nothing_that_began_before() {
        let began = Moment { wall: 1_000_000, ..Moment::now() };
        let later = began.plus(Duration::from_secs(5));
        for wall in [later.wall, 0, 9_000_000] {
            assert_eq!(Moment { wall, ..later }.since(began), 1_005_000);
        }
        assert_eq!(began.since(later), later.wall, "none goes backwards");
    }
}
