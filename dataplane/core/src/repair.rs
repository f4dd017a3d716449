//! Packets that did not arrive: which of them to ask the publisher for, and when again.

use crate::limits::{
    MISSING_INTERVAL, MISSING_INTERVAL_MAX, MISSING_INTERVAL_MIN, MISSING_PACKETS, MISSING_TRIES,
};
use crate::time::{Duration, Instant};

/// The packets of one encoding that somebody misses.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    packets: Vec<Packet>,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    seq: u64,
    /// When to ask for it next.
    due: Instant,
    tries: u8,
}

impl Missing {
    /// A packet is missing: to be asked for from `due` on, however many miss it.
    pub(crate) fn want(&mut self, seq: u64, due: Instant) {
        if let Some(packet) = self.packets.iter_mut().find(|packet| packet.seq == seq) {
            if packet.tries == 0 {
                packet.due = packet.due.min(due);
            }
            return;
        }
        if self.packets.len() == MISSING_PACKETS {
            // The oldest is the least useful by now.
            let oldest = self.packets.iter().enumerate().min_by_key(|(_, packet)| packet.seq);
            if let Some((at, _)) = oldest {
                self.packets.swap_remove(at);
            }
        }
        self.packets.push(Packet { seq, due, tries: 0 });
    }

    /// The packets after `newest` and before `seq` were skipped: lost, or on their way.
    pub(crate) fn skipped(&mut self, newest: u64, seq: u64, now: Instant) {
        let gap = seq.saturating_sub(newest + 1);
        if (1..=GAP_PACKETS).contains(&gap) {
            (newest + 1..seq).for_each(|seq| self.want(seq, now + REORDERING));
        }
    }

    /// It is here.
    pub(crate) fn arrived(&mut self, seq: u64) {
        if !self.packets.is_empty() {
            self.packets.retain(|packet| packet.seq != seq);
        }
    }

    /// Hands over the sequence numbers to ask for now, in ascending order, and counts them as asked for. They are to be asked
    /// for again when what answers should have been here: `round_trip` is that to the publisher, where it was measured.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
    ) -> impl Iterator<Item = u16> {
        let again = now
            + round_trip.map_or(MISSING_INTERVAL, |trip| {
                (trip * 5 / 4).clamp(MISSING_INTERVAL_MIN, MISSING_INTERVAL_MAX)
            });
        self.packets.retain(|packet| packet.tries < MISSING_TRIES);
        self.packets.sort_unstable_by_key(|packet| packet.seq);
        self.packets.iter_mut().filter(move |packet| packet.due <= now).map(move |packet| {
            packet.due = again;
            packet.tries += 1;
            packet.seq as u16
        })
    }

    /// When something is to be asked for next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let open = self.packets.iter().filter(|packet| packet.tries < MISSING_TRIES);
        open.map(|packet| packet.due).min()
    }

    /// Whether anything is to be asked for now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|at| at <= now)
    }
}

/// A packet that comes this late was reordered, not lost.
const REORDERING: Duration = Duration::from_millis(10);
/// A larger gap is an interruption: what fell into it is too late, and too much to ask for.
const GAP_PACKETS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn wishes_are_merged_and_repeated_only_after_a_while() {
        let mut missing = Missing::default();
        missing.want(70_003, at(0));
        missing.want(70_001, at(0));
        missing.want(70_003, at(0));
        let low = |seq: u64| seq as u16;
        assert_eq!(missing.ask(at(0), None).collect::<Vec<_>>(), [low(70_001), low(70_003)]);
        missing.want(70_001, at(49));
        assert!(!missing.is_due(at(49)));
        assert_eq!(missing.ask(at(49), None).count(), 0);
        missing.arrived(70_001);
        assert!(missing.is_due(at(50)));
        assert_eq!(missing.ask(at(50), None).collect::<Vec<_>>(), [low(70_003)]);
    }

    #[test]
    fn what_is_far_is_asked_for_again_only_when_an_answer_is_late() {
        let mut missing = Missing::default();
        for (round_trip, again) in [(200, 250), (2_000, 500), (1, 20)] {
            missing.want(7, at(0));
            let trip = Some(Duration::from_millis(round_trip));
            assert_eq!(missing.ask(at(0), trip).count(), 1);
            assert_eq!(missing.due(), Some(at(again)), "{round_trip} ms");
            missing.arrived(7);
        }
    }

    #[test]
    fn gaps_wait_for_reordered_packets() {
        let mut missing = Missing::default();
        missing.skipped(70_000, 70_001, at(0));
        assert_eq!(missing.due(), None, "no gap");
        missing.skipped(70_000, 70_003, at(0));
        missing.arrived(70_001);
        assert!(!missing.is_due(at(9)));
        assert_eq!(missing.ask(at(10), None).collect::<Vec<_>>(), [70_002_u64 as u16]);
        missing.skipped(70_003, 70_003 + GAP_PACKETS + 2, at(20));
        assert_eq!(missing.packets.len(), 1, "an interruption");
    }

    #[test]
    fn a_subscriber_that_asks_is_not_made_to_wait() {
        let mut missing = Missing::default();
        missing.skipped(70_000, 70_002, at(0));
        missing.want(70_001, at(3));
        assert!(missing.is_due(at(3)));
    }

    #[test]
    fn it_gives_up_and_is_bounded() {
        let mut missing = Missing::default();
        missing.want(1, at(0));
        for n in 0..u64::from(MISSING_TRIES) {
            assert_eq!(missing.ask(at(n * 50), None).count(), 1);
        }
        assert_eq!(missing.ask(at(10_000), None).count(), 0);
        (0..1000).for_each(|seq| missing.want(seq, at(20_000)));
        assert_eq!(missing.ask(at(20_000), None).count(), MISSING_PACKETS);
        assert_eq!(missing.packets.iter().map(|packet| packet.seq).min(), Some(872));
    }
}
