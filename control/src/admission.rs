//! How many sessions there may be, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fault::Fault;

/// Counts sessions of one kind.
pub struct Admission {
    counts: Mutex<Counts>,
    total_max: usize,
    per_address_max: usize,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place among the sessions, given back when dropped.
pub struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Nobody is there yet.
    pub fn new(total_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), total_max, per_address_max })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`], naming the limit.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Fault> {
        let address = network(address);
        let mut counts = self.lock();
        if counts.total >= self.total_max {
            return Err(Fault::too_many(format!(
                "the server holds {} sessions, all it may (limits); try again later",
                self.total_max
            ))
            .passing());
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= self.per_address_max {
            // Others behind the same address leave, and sessions whose clients are gone end.
            return Err(Fault::too_many(format!(
                "your address holds {} sessions, all it may; end some, or try again later. Where many \
                 come by one address, of a proxy or a NAT, the operator raises \
                 limits.sessions_per_address",
                self.per_address_max
            ))
            .passing());
        }
        *of_address += 1;
        counts.total += 1;
        Ok(Permit { admission: Arc::clone(self), address })
    }

    /// Whether there is a place now.
    pub fn has_room(&self, address: IpAddr) -> bool {
        let counts = self.lock();
        let of_address = counts.by_address.get(&network(address)).copied().unwrap_or_default();
        counts.total < self.total_max && of_address < self.per_address_max
    }

    /// Sessions there are.
    pub fn count(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one IPv6 address has a /64 of them.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()
        }
        other => other,
    }
}

impl Permit {
    /// Whose place it is.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_and_given_back() {
        let admission = Admission::new(3, 2);
        let [a, b]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let first = admission.enter(a).unwrap();
        let _second = admission.enter(a).unwrap();
        let refused = admission.enter(a).err().unwrap();
        let hint = &refused.reason;
        assert!(
            hint.contains("your address") && hint.contains("raises limits.sessions_per_address")
        );
        assert!(refused.passes, "others leave");
        let _third = admission.enter(b).unwrap();
        assert!(admission.enter(b).err().unwrap().reason.contains("the server"));
        drop(first);
        assert_eq!(admission.count(), 2);
        assert!(admission.enter(a).is_ok());
    }
}
