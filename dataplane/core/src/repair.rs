//! Packets that did not arrive: which of them to ask the publisher for, and when again.

use crate::limits::{
    MISSING_INTERVAL, MISSING_INTERVAL_MAX, MISSING_INTERVAL_MIN, MISSING_PACKETS, MISSING_TRIES,
    REORDERING, REORDERING_LATELY, REORDERING_MAX, REPAIRED_PACKETS,
};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// The packets of one encoding that somebody misses.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    packets: Vec<Packet>,
    /// Those that were repaired lately, and when they were first missing.
    repaired: VecDeque<(u64, Instant)>,
    /// How late packets came lately that were missing at first, and when one came about as late.
    late: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    seq: u64,
    /// When it was first missing.
    since: Instant,
    /// When to ask for it next.
    due: Instant,
    tries: u8,
}

impl Missing {
    /// A packet is missing: to be asked for now, however many miss it.
    pub(crate) fn want(&mut self, seq: u64, now: Instant) {
        self.add(seq, now, now);
    }

    fn add(&mut self, seq: u64, since: Instant, due: Instant) {
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
        self.packets.push(Packet { seq, since, due, tries: 0 });
    }

    /// The packets after `newest` and before `seq` were skipped: lost, or on their way.
    pub(crate) fn skipped(&mut self, newest: u64, seq: u64, now: Instant) {
        let gap = seq.saturating_sub(newest + 1);
        if (1..=GAP_PACKETS).contains(&gap) {
            let due = now + self.patience(now);
            (newest + 1..seq).for_each(|seq| self.add(seq, now, due));
        }
    }

    /// It is here: itself, or what repairs it.
    pub(crate) fn arrived(&mut self, seq: u64, now: Instant, is_original: bool) {
        let Some(at) = self.packets.iter().position(|packet| packet.seq == seq) else { return };
        let since = self.packets.swap_remove(at).since;
        if is_original {
            return self.was_late(now, since);
        }
        if self.repaired.len() == REPAIRED_PACKETS {
            self.repaired.pop_front();
        }
        self.repaired.push_back((seq, since));
    }

    /// It came itself after what repairs it.
    pub(crate) fn came_after_all(&mut self, seq: u64, now: Instant) {
        let at = self.repaired.iter().position(|(repaired, _)| *repaired == seq);
        let repaired = at.and_then(|at| self.repaired.remove(at));
        repaired.into_iter().for_each(|(_, since)| self.was_late(now, since));
    }

    fn was_late(&mut self, now: Instant, since: Instant) {
        let (late, known) = (now.since(since).min(REORDERING_MAX), self.patience(now));
        // Halfway, so that a single one that is very late holds up little.
        let more = late.saturating_sub(known) / 2;
        if late >= known / 2 {
            self.late = Some((known + more, now));
        }
    }

    /// How long a gap may be reordering.
    fn patience(&self, now: Instant) -> Duration {
        let late = self.late.filter(|(_, at)| now.since(*at) < REORDERING_LATELY);
        late.map_or(REORDERING, |(late, _)| late)
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
        missing.arrived(70_001, at(49), true);
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
            missing.arrived(7, at(0), false);
        }
    }

    #[test]
    fn gaps_wait_for_reordered_packets() {
        let mut missing = Missing::default();
        missing.skipped(70_000, 70_001, at(0));
        assert_eq!(missing.due(), None, "no gap");
        missing.skipped(70_000, 70_003, at(0));
        missing.arrived(70_001, at(5), true);
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
    fn a_gap_waits_as_long_as_packets_came_late_lately() {
        let mut missing = Missing::default();
        let skip = |missing: &mut Missing, ms| {
            missing.skipped(1, 3, at(ms));
            missing.due().map(|due| due.since(at(ms)).as_millis())
        };
        assert_eq!(skip(&mut missing, 0), Some(10));
        missing.arrived(2, at(30), true);
        assert_eq!(skip(&mut missing, 100), Some(20), "halfway");
        // Answered, and then the original comes all the same.
        missing.arrived(2, at(125), false);
        missing.came_after_all(2, at(130));
        missing.came_after_all(2, at(200));
        assert_eq!(skip(&mut missing, 200), Some(25), "once");
        missing.arrived(2, at(202), true);
        assert_eq!(skip(&mut missing, 2129), Some(25));
        missing.arrived(2, at(2130), true);
        assert_eq!(skip(&mut missing, 2131), Some(10), "long ago");
        for n in 0..200 {
            missing.arrived(2, at(10_000 * n + 9000), true);
            assert!(skip(&mut missing, 10_000 * (n + 1)).unwrap() <= 100);
        }
        (0..1000).for_each(|seq| {
            missing.want(seq, at(0));
            missing.arrived(seq, at(1), false);
        });
        assert_eq!(missing.repaired.len(), REPAIRED_PACKETS);
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
