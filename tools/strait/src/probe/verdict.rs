//! What is told of a node: that it fails after some calls in a row did, that it works after one did.

use std::collections::HashMap;

/// A word to whoever is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Calls fail.
    Fails {
        /// When the first of them was made, in seconds since 1970.
        since: u64,
    },
    /// They do not any more.
    Works {
        /// When they had begun to fail.
        since: u64,
    },
}

/// What is known of each node.
pub struct Verdicts {
    failures: u32,
    failing: HashMap<String, Failing>,
}

struct Failing {
    since: u64,
    calls: u32,
}

impl Verdicts {
    /// That tell after so many calls.
    pub fn new(failures: u32) -> Self {
        Self { failures, failing: HashMap::new() }
    }

    /// Whether its last call failed.
    pub fn fails(&self, node: &str) -> bool {
        self.failing.contains_key(node)
    }

    /// Notes how a call went; says what is to be told.
    pub fn note(&mut self, node: &str, is_good: bool, now: u64) -> Option<Change> {
        if is_good {
            let was = self.failing.remove(node)?;
            return (was.calls >= self.failures).then_some(Change::Works { since: was.since });
        }
        let failing =
            self.failing.entry(node.to_owned()).or_insert(Failing { since: now, calls: 0 });
        failing.calls += 1;
        (failing.calls == self.failures).then_some(Change::Fails { since: failing.since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_none_and_each_change_is_told_once() {
        let mut verdicts = Verdicts::new(2);
        let mut told = |is_good, now| verdicts.note("a", is_good, now);
        assert_eq!(told(false, 1), None);
        assert_eq!(told(true, 2), None);
        assert_eq!(told(false, 3), None);
        assert_eq!(told(false, 4), Some(Change::Fails { since: 3 }));
        assert_eq!(told(false, 5), None);
        assert_eq!(told(true, 6), Some(Change::Works { since: 3 }));
        assert_eq!(told(true, 7), None);
        assert_eq!(verdicts.note("b", true, 8), None);
    }
}
