//! Whether the kernel is asked to cut runs into datagrams (`UDP_SEGMENT`).
//!
//! EIO says that it cannot on this way out: before Linux 6.11 because the interface adds no checksums, and on any Linux
//! because the packets are encrypted (IPsec). That may hold for all peers or for one of them, which the error does not
//! tell. One refusal costs one system call; the one peer pays that for each of its runs, and the others keep theirs.

/// Refusals in a row after which it is the interface, and no single peer: then asking is a waste.
const REFUSALS: u32 = 16;
/// Runs that are then sent uncut before one is tried again: interfaces and routes change. At 1000 runs a second a minute.
const RESPITE: u32 = 65_536;

/// What a socket learnt of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cutting {
    /// Refused since the last one that passed.
    refusals: u32,
    /// How many runs are yet to be sent uncut.
    respite: u32,
}

impl Cutting {
    /// Whether a run is worth a try.
    pub(crate) fn is_tried(&self) -> bool {
        self.respite == 0
    }

    /// A run was sent uncut without a try.
    pub(crate) fn spared(&mut self) {
        self.respite = self.respite.saturating_sub(1);
    }

    /// One was refused with EIO.
    pub(crate) fn refused(&mut self) {
        self.refusals = (self.refusals + 1).min(REFUSALS);
        if self.refusals == REFUSALS {
            self.respite = RESPITE;
        }
    }

    /// One passed.
    pub(crate) fn passed(&mut self) {
        self.refusals = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_in_sixteen_that_refuses_stops_nothing() {
        let mut cutting = Cutting::default();
        for n in 0..10_000 {
            assert!(cutting.is_tried());
            if n % 16 == 0 { cutting.passed() } else { cutting.refused() }
        }
    }

    #[test]
    fn when_all_refuse_one_in_many_is_tried() {
        let mut cutting = Cutting::default();
        let (mut tried, mut spared) = (0, 0);
        for _ in 0..1_000_000 {
            if cutting.is_tried() {
                tried += 1;
                cutting.refused();
            } else {
                spared += 1;
                cutting.spared();
            }
        }
        assert_eq!(tried + spared, 1_000_000);
        assert_eq!(tried, 16 + 15);
        // The interface was replaced.
        while !cutting.is_tried() {
            cutting.spared();
        }
        cutting.passed();
        cutting.refused();
        assert!(cutting.is_tried());
    }
}
