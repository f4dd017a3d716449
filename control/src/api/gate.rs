//! How often clients may post.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::admission::network;
use crate::fault::Fault;
use crate::limits;

/// What is left to whom.
pub struct Rates {
    addresses: Mutex<Buckets<IpAddr>>,
    applications: Mutex<Buckets<String>>,
}

impl Default for Rates {
    fn default() -> Self {
        let address = Buckets::new(limits::POSTS_PER_ADDRESS, limits::POSTS_PER_ADDRESS_SECOND);
        let application =
            Buckets::new(limits::POSTS_PER_APPLICATION, limits::POSTS_PER_APPLICATION_SECOND);
        Self { addresses: Mutex::new(address), applications: Mutex::new(application) }
    }
}

impl Rates {
    /// Takes one from what is left to an address.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`].
    pub fn check_address(&self, address: IpAddr, now: Instant) -> Result<(), Fault> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.take(network(address), now).then_some(()).ok_or_else(|| {
            Fault::too_many("your address posts too often; wait some seconds, put more in one post")
        })
    }

    /// Takes one from what is left to an application.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`].
    pub fn check_application(&self, application: &str, now: Instant) -> Result<(), Fault> {
        let mut applications = self.applications.lock().unwrap_or_else(PoisonError::into_inner);
        applications.take(application.to_owned(), now).then_some(()).ok_or_else(|| {
            Fault::too_many("the application's clients post too often; wait some seconds")
        })
    }
}

/// Buckets that fill again with time.
struct Buckets<K> {
    left: HashMap<K, (f64, Instant)>,
    most: f64,
    per_second: f64,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(most: f64, per_second: f64) -> Self {
        Self { left: HashMap::new(), most, per_second }
    }

    fn take(&mut self, key: K, now: Instant) -> bool {
        let (most, per_second) = (self.most, self.per_second);
        let full = |left: f64, since: Instant| {
            (left + now.saturating_duration_since(since).as_secs_f64() * per_second).min(most)
        };
        if self.left.len() >= limits::POSTERS && !self.left.contains_key(&key) {
            // Those who have all there is need not be remembered.
            self.left.retain(|_, (left, since)| full(*left, *since) < most);
            if self.left.len() >= limits::POSTERS {
                return false;
            }
        }
        let (left, since) = self.left.entry(key).or_insert((most, now));
        *left = full(*left, *since);
        *since = now;
        let may = *left >= 1.0;
        if may {
            *left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let mut buckets = Buckets::new(2.0, 0.5);
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let taken: Vec<bool> =
            [0, 0, 0, 1, 2, 2, 60, 60, 60].map(|second| buckets.take("a", at(second))).into();
        assert_eq!(taken, [true, true, false, false, true, false, true, true, false]);
        assert!(buckets.take("b", at(60)));
    }

    #[test]
    fn those_who_post_are_bounded() {
        let mut buckets = Buckets::new(2.0, 0.5);
        let began = Instant::now();
        for n in 0..limits::POSTERS {
            assert!(buckets.take(n, began));
        }
        assert!(!buckets.take(usize::MAX, began));
        assert!(buckets.take(usize::MAX, began + Duration::from_secs(2)));
        assert_eq!(buckets.left.len(), 1);
    }
}
