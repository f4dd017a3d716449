//! How often somebody may do something: buckets that fill again with time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::RATES_SWEPT;

/// What is left to whom.
pub struct Rate<K> {
    burst: f64,
    per_second: f64,
    /// So many are remembered.
    places: usize,
    state: Mutex<State<K>>,
}

struct State<K> {
    /// What each has left, and since when. Those that are not here have all.
    left: HashMap<K, (f64, Instant)>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Rate<K> {
    /// So many at once, and so many each second for long.
    pub fn new(burst: f64, per_second: f64, places: usize) -> Self {
        let state = Mutex::new(State { left: HashMap::new(), swept: None });
        Self { burst, per_second, places, state }
    }

    /// So many each second, twice as many at once. 0 is no limit.
    pub fn each_second(count: u32, places: usize) -> Self {
        Self::new(2.0 * f64::from(count), count.into(), places)
    }

    /// Takes one from what is left, where there is one.
    pub fn admits(&self, key: K, now: Instant) -> bool {
        let (burst, per_second) = (self.burst, self.per_second);
        if burst == 0.0 {
            return true;
        }
        let refilled = |(left, since): (f64, Instant)| {
            (left + now.saturating_duration_since(since).as_secs_f64() * per_second).min(burst)
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { left, swept } = &mut *state;
        if left.len() >= self.places && !left.contains_key(&key) {
            // Looking at all of them for each who comes would be the attack's second half.
            if swept.is_none_or(|at| now.saturating_duration_since(at) >= RATES_SWEPT) {
                left.retain(|_, left| refilled(*left) < burst);
                *swept = Some(now);
            }
            // So many at once are an attack, or a mistake of the limit: whoever is not known waits.
            if left.len() >= self.places {
                return false;
            }
        }
        let entry = left.entry(key).or_insert((burst, now));
        *entry = (refilled(*entry), now);
        let admits = entry.0 >= 1.0;
        if admits {
            entry.0 -= 1.0;
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_a_steady_rate() {
        let rate = Rate::each_second(10, 100);
        let start = Instant::now();
        let admitted = |who, at| (0..100).filter(|_| rate.admits(who, at)).count();
        assert_eq!(admitted("a", start), 20);
        assert_eq!(admitted("b", start), 20, "each for itself");
        assert_eq!(admitted("a", start + Duration::from_millis(500)), 5);
        assert_eq!(admitted("a", start + Duration::from_secs(60)), 20);
        let free = Rate::each_second(0, 1);
        assert!((0..100_000).all(|who| free.admits(who, start)));
    }

    #[test]
    fn less_than_one_a_second_comes_back_too() {
        let rate = Rate::new(2.0, 0.5, 9);
        let began = Instant::now();
        let taken: Vec<bool> = [0, 0, 0, 1, 2, 2, 60, 60, 60]
            .map(|second| rate.admits("a", began + Duration::from_secs(second)))
            .into();
        assert_eq!(taken, [true, true, false, false, true, false, true, true, false]);
    }

    #[test]
    fn those_who_are_remembered_are_bounded() {
        let rate = Rate::new(2.0, 0.5, 1_000);
        let began = Instant::now();
        assert!((0..1_000).all(|who| rate.admits(who, began)));
        assert!(!rate.admits(usize::MAX, began), "no place");
        assert!(rate.admits(7, began), "who has one keeps it");
        assert!(rate.admits(usize::MAX, began + Duration::from_secs(2)));
        assert_eq!(rate.state.lock().unwrap().left.len(), 2, "7 has not all again");
    }
}
