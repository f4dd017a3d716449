//! SSRCs of what the relay itself sends in a scope.

use strait_core::limits::RELAY_SSRCS;

/// Where the SSRCs of a scope go on. Each is greater than all before, so that none comes twice: under a session key, that
/// and nothing else keeps nonces apart.
#[derive(Debug, Default)]
pub struct Ssrcs {
    /// The last one; 0 before the first.
    last: u32,
}

impl Ssrcs {
    /// The next one. `start` is random, and decides where the first is: in the lower half of those that are the relay's own.
    /// None when all were given out.
    pub fn next(&mut self, start: u32) -> Option<u32> {
        self.last = match self.last {
            0 => RELAY_SSRCS | start >> 2,
            last => last.checked_add(1)?,
        };
        Some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_ascend_among_those_that_are_the_relays_until_none_is_left() {
        for start in [0, 7, u32::MAX] {
            let mut ssrcs = Ssrcs::default();
            let first = ssrcs.next(start).unwrap();
            assert!((RELAY_SSRCS..RELAY_SSRCS + (1 << 30)).contains(&first), "{first:x}");
            assert_eq!(ssrcs.next(99), Some(first + 1));
            assert_eq!(ssrcs.next(0), Some(first + 2));
        }
        let mut last = Ssrcs { last: u32::MAX - 1 };
        assert_eq!([last.next(5), last.next(5), last.next(5)], [Some(u32::MAX), None, None]);
    }
}
