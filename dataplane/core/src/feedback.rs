//! Arrivals for the congestion control of publishers: by transport-wide numbers
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01), or by the streams' own with ECN marks (RFC 8888).

mod streams;

use crate::limits::{
    FEEDBACK_ARRIVALS, FEEDBACK_INTERVAL, FEEDBACK_INTERVAL_MAX, RTCP_DATAGRAM_BYTES, RTCP_SHARE,
};
use crate::time::{Duration, Instant};
use strait_wire::rtcp::{Arrival, Outcome};
use strait_wire::seq;
pub(crate) use streams::CE;
use streams::Streams;

/// The arrivals of a transport since the last feedback.
#[derive(Debug)]
pub(crate) struct Feedback {
    arrivals: Vec<Arrival>,
    /// Those of legs with RFC 8888.
    streams: Streams,
    sent_at: Option<Instant>,
    interval: Duration,
    /// Bytes of the packets since then.
    bytes: u64,
    count: u8,
    /// A source of the transport, to name in the feedback.
    media_ssrc: u32,
}

impl Default for Feedback {
    fn default() -> Self {
        Self {
            arrivals: Vec::new(),
            streams: Streams::default(),
            sent_at: None,
            interval: FEEDBACK_INTERVAL,
            bytes: 0,
            count: 0,
            media_ssrc: 0,
        }
    }
}

impl Feedback {
    /// Takes note of a packet with a transport-wide sequence number. Whether it is time to send.
    pub(crate) fn on_packet(
        &mut self,
        at: Instant,
        transport_seq: u16,
        media_ssrc: u32,
        bytes: usize,
    ) -> bool {
        if self.arrivals.len() < FEEDBACK_ARRIVALS {
            self.arrivals.push(Arrival { seq: transport_seq, at_us: at.0 / 1000 });
        }
        self.media_ssrc = media_ssrc;
        self.arrivals.len() >= FEEDBACK_ARRIVALS || self.is_due(at, bytes)
    }

    /// Takes note of a packet that is told about by its own number. Whether it is time to send.
    pub(crate) fn on_marked(
        &mut self,
        at: Instant,
        (ssrc, seq): (u32, u16),
        ecn: u8,
        bytes: usize,
    ) -> bool {
        self.streams.on_packet(Outcome { ssrc, seq, at_us: Some(at.0 / 1000), ecn });
        self.streams.is_full() || self.is_due(at, bytes)
    }

    /// When the next feedback is due, if anything arrived.
    pub(crate) fn due(&self) -> Option<Instant> {
        let is_empty = self.arrivals.is_empty() && self.streams.is_empty();
        let sent_at = self.sent_at.filter(|_| !is_empty)?;
        Some(sent_at + self.interval)
    }

    /// Forgets the arrivals: nobody can be told.
    pub(crate) fn forget(&mut self) {
        self.arrivals.clear();
        self.streams.forget();
    }

    /// Gives `send` the arrivals in order with the media SSRC and the running count, until none are left; it returns how
    /// many of them it told about.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(u32, u8, &[Arrival]) -> Option<usize>) {
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

    /// Gives `send` what became of the packets of each stream, until nothing is left; it returns how many it told about.
    pub(crate) fn flush_streams(&mut self, send: impl FnMut(&[Outcome]) -> Option<usize>) {
        self.streams.flush(send);
    }

    /// All that there was to tell was told in so many datagrams of so many bytes. The next waits until it is but a small
    /// share of what it tells about.
    pub(crate) fn rest(&mut self, now: Instant, datagrams: u64, bytes: u64) {
        let since = now.since(self.sent_at.replace(now).unwrap_or(now));
        let told = std::mem::take(&mut self.bytes).max(1);
        let cost = (bytes + datagrams * RTCP_DATAGRAM_BYTES) * u64::from(RTCP_SHARE);
        let interval = since.as_micros().saturating_mul(cost.into()) / u128::from(told);
        let interval = Duration::from_micros(u64::try_from(interval).unwrap_or(u64::MAX));
        self.interval = interval.clamp(FEEDBACK_INTERVAL, FEEDBACK_INTERVAL_MAX);
    }

    fn is_due(&mut self, at: Instant, bytes: usize) -> bool {
        self.bytes += bytes as u64;
        let sent_at = *self.sent_at.get_or_insert(at);
        at.since(sent_at) >= self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn arrivals_are_told_in_order_and_once() {
        let mut feedback = Feedback::default();
        assert_eq!(feedback.due(), None);
        assert!(!feedback.on_packet(at(0), 65_535, 7, 99));
        assert!(!feedback.on_packet(at(10), 1, 7, 99));
        assert!(!feedback.on_packet(at(20), 0, 7, 99));
        assert!(!feedback.on_packet(at(30), 0, 7, 99));
        assert_eq!(feedback.due(), Some(at(50)));
        assert!(feedback.on_packet(at(50), 2, 7, 99));
        let mut told = Vec::new();
        feedback.flush(|ssrc, count, arrivals| {
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
            feedback.on_packet(Instant::default(), n as u16, 7, 99);
        }
        assert_eq!(feedback.arrivals.len(), FEEDBACK_ARRIVALS);
    }

    #[test]
    fn it_comes_less_often_where_it_would_be_much_of_what_arrives() {
        // Packets of 100 bytes every 20 ms, and of 1,200 every 5 ms.
        for (every_ms, bytes, expected) in
            [(20, 100, FEEDBACK_INTERVAL_MAX), (5, 1200, FEEDBACK_INTERVAL)]
        {
            let mut feedback = Feedback::default();
            let (mut sent_at, mut between) = (at(0), Vec::new());
            for n in 0..1000 {
                let now = at(n * every_ms);
                if feedback.on_packet(now, n as u16, 7, bytes) {
                    let mut arrivals = 0;
                    feedback.flush(|_, _, rest| {
                        arrivals = rest.len();
                        Some(arrivals)
                    });
                    feedback.rest(now, 1, 30 + 2 * arrivals as u64);
                    between.push(now.since(sent_at));
                    sent_at = now;
                }
            }
            let last = between.last().copied().unwrap_or_default();
            assert!(last.abs_diff(expected) <= Duration::from_millis(every_ms), "{last:?}");
        }
    }
}
