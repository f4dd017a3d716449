//! A plain STUN server (RFC 8489) for strangers: who asks is told the address that its question came from. Two browsers that go
//! directly need it to tell each other where their NATs let them be seen.
//!
//! Anybody can ask in somebody else's name. So an answer holds that address and nothing else, 12 bytes more than the shortest
//! question (24 over IPv6), and there are only so many a second.

use crate::drop::DropReason;
use crate::hash::Seed;
use crate::limits::{BINDING_ADDRESSES, BINDINGS_PER_SECOND, BINDINGS_PER_SECOND_OF_ADDRESS};
use crate::port::Path;
use crate::time::Instant;
use std::hash::BuildHasher;
use std::net::IpAddr;
use strait_wire::stun;

/// The largest answer: a header and an IPv6 address.
pub(crate) const ANSWER_BYTES: usize = 44;

/// How many were answered in this second.
#[derive(Debug)]
pub(crate) struct Bindings {
    seed: Seed,
    second: u64,
    of_all: u32,
    /// By the hash of who asks: those who share a place share what it has.
    of_each: Box<[u8; BINDING_ADDRESSES]>,
    /// How many there ever were.
    pub(crate) answered: u64,
}

impl Bindings {
    pub(crate) fn new(seed: Seed) -> Self {
        Self { seed, second: 0, of_all: 0, of_each: [0; BINDING_ADDRESSES].into(), answered: 0 }
    }

    /// Writes the answer to a Binding request without USERNAME into `out` and returns its length.
    pub(crate) fn answer(
        &mut self,
        at: Instant,
        request: &stun::Message<'_>,
        path: Path,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        if request.unknown_required().is_some() {
            // An error would be larger than what it answers: docs/rfc/.
            return Err(DropReason::StunNotRequest);
        }
        self.take(at, path.remote.ip()).ok_or(DropReason::StunTooMany)?;
        let answer = stun::Builder::binding_success(out, request.transaction_id(), path.remote);
        let length = answer.finish().map_err(|_| DropReason::StunAnswerTooLarge)?;
        self.answered += 1;
        Ok(length)
    }

    fn take(&mut self, at: Instant, who: IpAddr) -> Option<()> {
        let second = at.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.of_all) = (second, 0);
            self.of_each.fill(0);
        }
        let who = match who {
            IpAddr::V4(ip) => ip.to_bits().into(),
            // The rest is the host's own choice.
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        let place = self.seed.hash_one(who) as usize % BINDING_ADDRESSES;
        let of_each = self.of_each.get_mut(place)?;
        if *of_each >= BINDINGS_PER_SECOND_OF_ADDRESS || self.of_all >= BINDINGS_PER_SECOND {
            return None;
        }
        *of_each += 1;
        self.of_all += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const FLOOD: u32 = 100_000;

    fn taken(bindings: &mut Bindings, ms: u64, who: impl Fn(u32) -> IpAddr) -> u32 {
        let at = Instant::default() + Duration::from_millis(ms);
        (0..FLOOD).filter(|n| bindings.take(at, who(*n)).is_some()).count() as u32
    }

    #[test]
    fn one_address_has_so_many_a_second_and_all_have_so_many() {
        let mut bindings = Bindings::new(Seed([3, 5]));
        let of_one = u32::from(BINDINGS_PER_SECOND_OF_ADDRESS);
        assert_eq!(taken(&mut bindings, 1_000, |_| [192, 0, 2, 1].into()), of_one);
        assert_eq!(taken(&mut bindings, 1_999, |_| [192, 0, 2, 1].into()), 0);
        let host = |n: u32| IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(n)).to_be_bytes());
        assert_eq!(taken(&mut bindings, 1_999, host), of_one, "one network");
        assert_eq!(taken(&mut bindings, 2_000, |n| n.to_be_bytes().into()), BINDINGS_PER_SECOND);
        assert_eq!(taken(&mut bindings, 2_500, |_| [192, 0, 2, 1].into()), 0, "spent by others");
        assert_eq!(taken(&mut bindings, 3_000, |_| [192, 0, 2, 1].into()), of_one);
    }
}
