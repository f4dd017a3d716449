//! What arrived of each stream since the last feedback (RFC 8888).

use crate::limits::{FEEDBACK_ARRIVALS, FEEDBACK_LOST, FEEDBACK_STREAMS};
use strait_wire::rtcp::Outcome;
use strait_wire::seq;

/// The arrivals of a transport, stream by stream.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// In the order of their arrival, each with its place: the stream, and how far it is ahead of what was told.
    arrived: Vec<((usize, i16), Outcome)>,
    /// Each stream with the number that follows those that were told.
    known: Vec<(u32, u16)>,
    /// What is told, while it is.
    told: Vec<Outcome>,
}

/// ECN code point: congestion experienced (RFC 3168).
pub(crate) const CE: u8 = 3;

impl Streams {
    pub(crate) fn on_packet(&mut self, outcome: Outcome) {
        if self.is_full() {
            return;
        }
        let known = self.known.iter().position(|(ssrc, _)| *ssrc == outcome.ssrc);
        let stream = known.unwrap_or(self.known.len());
        if known.is_none() {
            if self.known.len() >= FEEDBACK_STREAMS {
                return;
            }
            self.known.push((outcome.ssrc, outcome.seq));
        }
        let next = self.known.get(stream).map_or(outcome.seq, |(_, next)| *next);
        self.arrived.push(((stream, seq::distance(next, outcome.seq)), outcome));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// No more can be kept.
    pub(crate) fn is_full(&self) -> bool {
        self.arrived.len() >= FEEDBACK_ARRIVALS
    }

    /// Forgets the arrivals.
    pub(crate) fn forget(&mut self) {
        self.arrived.clear();
    }

    /// Gives `send` what became of the packets, until nothing is left; it returns how many it told about.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(&[Outcome]) -> Option<usize>) {
        if self.is_empty() {
            return;
        }
        // Late ones apart: the numbers behind them were told, and must not look lost now.
        self.arrived.sort_unstable_by_key(|(place, outcome)| (place.1 >= 0, *place, outcome.at_us));
        // RFC 8888 section 3.1: of duplicates the first counts, and is marked if any is.
        self.arrived.dedup_by(|(place, again), (first_place, first)| {
            let same = place == first_place;
            if same && again.ecn == CE {
                first.ecn = CE;
            }
            same
        });
        self.told.clear();
        let (mut stream_before, mut late) = (None, 0);
        for ((stream, ahead), outcome) in self.arrived.drain(..) {
            let Some((_, next)) = self.known.get_mut(stream) else { continue };
            // What is missing between the last feedback and this one was not told as lost yet.
            let begins = ahead >= 0 && stream_before.replace(stream) != Some(stream);
            late += usize::from(ahead < 0);
            if begins && (1..=FEEDBACK_LOST).contains(&ahead) {
                self.told.push(Outcome { seq: *next, at_us: None, ecn: 0, ..outcome });
            }
            if seq::distance(*next, outcome.seq) >= 0 {
                *next = outcome.seq.wrapping_add(1);
            }
            self.told.push(outcome);
        }
        let (late, rest) = self.told.split_at_checked(late).unwrap_or_default();
        for mut rest in [late, rest] {
            while !rest.is_empty() {
                let told = send(rest).filter(|told| *told > 0);
                rest = told.and_then(|told| rest.get(told..)).unwrap_or_default();
            }
        }
        if self.known.len() >= FEEDBACK_STREAMS {
            self.known.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(streams: &mut Streams, ssrc: u32, seq: u16, at_us: u64, ecn: u8) {
        streams.on_packet(Outcome { ssrc, seq, at_us: Some(at_us), ecn });
    }

    fn flush(streams: &mut Streams) -> Vec<(u32, u16, Option<u64>, u8)> {
        let mut all = Vec::new();
        streams.flush(|told| {
            all.extend(told.iter().map(|o| (o.ssrc, o.seq, o.at_us, o.ecn)));
            Some(told.len())
        });
        all
    }

    #[test]
    fn each_stream_is_told_in_order_with_what_is_missing_between_two_reports() {
        let mut streams = Streams::default();
        arrive(&mut streams, 5, 65_535, 10, 1);
        arrive(&mut streams, 9, 7, 11, 0);
        arrive(&mut streams, 5, 1, 12, 1);
        arrive(&mut streams, 5, 0, 13, 1);
        let told = flush(&mut streams);
        let five = [(5, 65_535, Some(10), 1), (5, 0, Some(13), 1), (5, 1, Some(12), 1)];
        assert_eq!(told, [&five[..], &[(9, 7, Some(11), 0)]].concat());
        assert!(streams.is_empty());
        // 2 and 3 are lost; 6 of the other comes late, and is told all the same.
        arrive(&mut streams, 5, 4, 20, 0);
        arrive(&mut streams, 9, 6, 21, 0);
        let told = flush(&mut streams);
        assert_eq!(told, [(9, 6, Some(21), 0), (5, 2, None, 0), (5, 4, Some(20), 0)]);
        // A jump is a new start, not thousands of losses.
        arrive(&mut streams, 5, 9000, 30, 0);
        assert_eq!(flush(&mut streams), [(5, 9000, Some(30), 0)]);
    }

    #[test]
    fn of_duplicates_the_first_counts_and_is_marked_if_any_is() {
        let mut streams = Streams::default();
        arrive(&mut streams, 5, 1, 12, 1);
        arrive(&mut streams, 5, 1, 10, 1);
        arrive(&mut streams, 5, 1, 14, CE);
        assert_eq!(flush(&mut streams), [(5, 1, Some(10), CE)]);
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut streams = Streams::default();
        for n in 0..3 * FEEDBACK_STREAMS as u32 {
            arrive(&mut streams, n, 1, 1, 0);
        }
        assert_eq!(flush(&mut streams).len(), FEEDBACK_STREAMS);
        assert!(streams.known.is_empty(), "it starts over");
        for n in 0..3 * FEEDBACK_ARRIVALS {
            arrive(&mut streams, 1, (n * 7919) as u16, n as u64, 0);
        }
        assert!(streams.is_full());
        assert_eq!(streams.arrived.len(), FEEDBACK_ARRIVALS);
        flush(&mut streams);
    }
}
