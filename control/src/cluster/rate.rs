//! How often one address may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::admission::network;
use crate::limits::RATED_ADDRESSES;

/// Counts what addresses ask for: so many each second, twice as many in a burst.
pub struct Rate {
    per_second: f64,
    /// What each has left, and since when. Those that are not here have all.
    left: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Rate {
    /// 0 is no limit.
    pub fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), left: Mutex::default() }
    }

    /// Whether this address may ask now.
    pub fn admits(&self, address: IpAddr, now: Instant) -> bool {
        if self.per_second == 0.0 {
            return true;
        }
        let all = 2.0 * self.per_second;
        let refill = |(left, since): (f64, Instant)| {
            (left + now.saturating_duration_since(since).as_secs_f64() * self.per_second).min(all)
        };
        let mut addresses = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= RATED_ADDRESSES {
            addresses.retain(|_, left| refill(*left) < all);
        }
        // So many at once are an attack, or a mistake of the limit: whoever is not known waits.
        if addresses.len() >= RATED_ADDRESSES && !addresses.contains_key(&network(address)) {
            return false;
        }
        let entry = addresses.entry(network(address)).or_insert((all, now));
        *entry = (refill(*entry), now);
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
        let rate = Rate::new(10);
        let [a, b]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let start = Instant::now();
        let admitted = |address, at| (0..100).filter(|_| rate.admits(address, at)).count();
        assert_eq!(admitted(a, start), 20);
        assert_eq!(admitted(b, start), 20, "each for itself");
        assert_eq!(admitted(a, start + Duration::from_millis(500)), 5);
        assert_eq!(admitted(a, start + Duration::from_secs(60)), 20);
        assert!((0..100_000).all(|_| Rate::new(0).admits(a, start)));
    }
}
