//! Packets that did not arrive: which of them to ask the publisher for, and when again.

use crate::limits::{MISSING_INTERVAL, MISSING_PACKETS, MISSING_TRIES};
use crate::time::Instant;

/// The packets of one encoding that somebody misses.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    packets: Vec<Packet>,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    seq: u64,
    asked_at: Option<Instant>,
    tries: u8,
}

impl Missing {
    /// Somebody misses this packet. Many may: it is asked for once per [`MISSING_INTERVAL`].
    pub(crate) fn want(&mut self, seq: u64) {
        if self.packets.iter().any(|packet| packet.seq == seq) {
            return;
        }
        if self.packets.len() == MISSING_PACKETS {
            // The oldest is the least useful by now.
            let oldest = self.packets.iter().enumerate().min_by_key(|(_, packet)| packet.seq);
            if let Some((at, _)) = oldest {
                self.packets.swap_remove(at);
            }
        }
        self.packets.push(Packet { seq, asked_at: None, tries: 0 });
    }

    /// It is here.
    pub(crate) fn arrived(&mut self, seq: u64) {
        if !self.packets.is_empty() {
            self.packets.retain(|packet| packet.seq != seq);
        }
    }

    /// Hands over the sequence numbers to ask for now, in ascending order, and counts them as asked for.
    pub(crate) fn ask(&mut self, now: Instant) -> impl Iterator<Item = u16> {
        self.packets.retain(|packet| packet.tries < MISSING_TRIES);
        self.packets.sort_unstable_by_key(|packet| packet.seq);
        self.packets.iter_mut().filter_map(move |packet| {
            if packet.asked_at.is_some_and(|at| now.since(at) < MISSING_INTERVAL) {
                return None;
            }
            packet.asked_at = Some(now);
            packet.tries += 1;
            Some(packet.seq as u16)
        })
    }

    /// When something is to be asked for next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let open = self.packets.iter().filter(|packet| packet.tries < MISSING_TRIES);
        open.map(|packet| packet.asked_at.map_or(Instant(0), |at| at + MISSING_INTERVAL)).min()
    }

    /// Whether anything is to be asked for now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn wishes_are_merged_and_repeated_only_after_a_while() {
        let mut missing = Missing::default();
        missing.want(70_003);
        missing.want(70_001);
        missing.want(70_003);
        let low = |seq: u64| seq as u16;
        assert_eq!(missing.ask(at(0)).collect::<Vec<_>>(), [low(70_001), low(70_003)]);
        missing.want(70_001);
        assert!(!missing.is_due(at(49)));
        assert_eq!(missing.ask(at(49)).count(), 0);
        missing.arrived(70_001);
        assert!(missing.is_due(at(50)));
        assert_eq!(missing.ask(at(50)).collect::<Vec<_>>(), [low(70_003)]);
    }

    #[test]
    fn it_gives_up_and_is_bounded() {
        let mut missing = Missing::default();
        missing.want(1);
        for n in 0..u64::from(MISSING_TRIES) {
            assert_eq!(missing.ask(at(n * 50)).count(), 1);
        }
        assert_eq!(missing.ask(at(10_000)).count(), 0);
        (0..1000).for_each(|seq| missing.want(seq));
        assert_eq!(missing.ask(at(20_000)).count(), MISSING_PACKETS);
        assert_eq!(missing.packets.iter().map(|packet| packet.seq).min(), Some(872));
    }
}
