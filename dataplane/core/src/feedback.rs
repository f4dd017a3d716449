//! Arrival times for the congestion control of publishers (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use crate::limits::{FEEDBACK_ARRIVALS, FEEDBACK_INTERVAL};
use crate::time::Instant;
use strait_wire::rtcp::Arrival;
use strait_wire::seq;

/// The arrivals of a transport since the last feedback.
#[derive(Debug, Default)]
pub(crate) struct Feedback {
    arrivals: Vec<Arrival>,
    sent_at: Option<Instant>,
    count: u8,
    /// A source of the transport, to name in the feedback.
    media_ssrc: u32,
}

impl Feedback {
    /// Takes note of a packet with a transport-wide sequence number. Whether it is time to send.
    pub(crate) fn on_packet(&mut self, at: Instant, transport_seq: u16, media_ssrc: u32) -> bool {
        if self.arrivals.len() < FEEDBACK_ARRIVALS {
            self.arrivals.push(Arrival { seq: transport_seq, at_us: at.0 / 1000 });
        }
        self.media_ssrc = media_ssrc;
        let sent_at = *self.sent_at.get_or_insert(at);
        self.arrivals.len() >= FEEDBACK_ARRIVALS || at.since(sent_at) >= FEEDBACK_INTERVAL
    }

    /// When the next feedback is due, if anything arrived.
    pub(crate) fn due(&self) -> Option<Instant> {
        let sent_at = self.sent_at.filter(|_| !self.arrivals.is_empty())?;
        Some(sent_at + FEEDBACK_INTERVAL)
    }

    /// Forgets the arrivals: nobody can be told.
    pub(crate) fn forget(&mut self) {
        self.arrivals.clear();
    }

    /// Gives `send` the arrivals in order with the media SSRC and the running count, until none are left; it returns how
    /// many of them it told about.
    pub(crate) fn flush(
        &mut self,
        now: Instant,
        mut send: impl FnMut(u32, u8, &[Arrival]) -> Option<usize>,
    ) {
        self.sent_at = Some(now);
        let Some(first) = self.arrivals.first().map(|arrival| arrival.seq) else { return };
        self.arrivals.sort_unstable_by_key(|arrival| seq::distance(first, arrival.seq));
        self.arrivals.dedup_by_key(|arrival| arrival.seq);
        let mut rest = self.arrivals.as_slice();
        while !rest.is_empty() {
            let told = send(self.media_ssrc, self.count, rest).filter(|told| *told > 0);
            self.count = self.count.wrapping_add(1);
            rest = told.and_then(|told| rest.get(told..)).unwrap_or_default();
        }
        self.arrivals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn arrivals_are_told_in_order_and_once() {
        let mut feedback = Feedback::default();
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        assert_eq!(feedback.due(), None);
        assert!(!feedback.on_packet(at(0), 65_535, 7));
        assert!(!feedback.on_packet(at(10), 1, 7));
        assert!(!feedback.on_packet(at(20), 0, 7));
        assert!(!feedback.on_packet(at(30), 0, 7));
        assert_eq!(feedback.due(), Some(at(50)));
        assert!(feedback.on_packet(at(50), 2, 7));
        let mut told = Vec::new();
        feedback.flush(at(50), |ssrc, count, arrivals| {
            assert_eq!(ssrc, 7);
            told.push((count, arrivals.iter().map(|arrival| arrival.seq).collect::<Vec<_>>()));
            Some(3)
        });
        assert_eq!(told, [(0, vec![65_535, 0, 1, 2]), (1, vec![2])]);
        assert_eq!(feedback.due(), None);
    }

    #[test]
    fn it_is_bounded() {
        let mut feedback = Feedback::default();
        for n in 0..2 * FEEDBACK_ARRIVALS {
            feedback.on_packet(Instant::default(), n as u16, 7);
        }
        assert_eq!(feedback.arrivals.len(), FEEDBACK_ARRIVALS);
    }
}
