//! Key-frame requests of many subscribers merged into few towards the publisher.

use crate::limits::KEY_FRAME_REQUEST_INTERVAL;
use crate::time::Instant;

/// The requests towards one encoding.
///
/// The first goes out at once. While a key frame is wanted, the request is repeated every
/// [`KEY_FRAME_REQUEST_INTERVAL`], so that neither a lost request nor a lost key frame leaves a picture frozen.
#[derive(Debug, Default)]
pub(crate) struct KeyFrameRequests {
    wanted: bool,
    /// A subscriber on another worker is among those who wait, or was.
    elsewhere: bool,
    sent_at: Option<Instant>,
    /// Counter of FIR commands (RFC 5104 section 4.3.1.1).
    fir_seq: u8,
}

impl KeyFrameRequests {
    /// Somebody needs a key frame.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// Somebody on another worker needs one. That worker says so again while it is true.
    pub(crate) fn want_elsewhere(&mut self) {
        (self.wanted, self.elsewhere) = (true, true);
    }

    /// Whether somebody on another worker said so since the last request.
    pub(crate) fn is_wanted_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// A key frame began, or nobody is left who waits.
    pub(crate) fn satisfy(&mut self) {
        (self.wanted, self.elsewhere) = (false, false);
    }

    /// When the next request is due: `Some(now)` for at once, `None` when nobody waits.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let earliest = self.sent_at.map_or(now, |at| at + KEY_FRAME_REQUEST_INTERVAL);
        self.wanted.then(|| earliest.max(now))
    }

    /// Whether to send a request now; if so, it counts as sent.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let due = self.due(now) == Some(now);
        if due {
            (self.sent_at, self.elsewhere) = (Some(now), false);
        }
        due
    }

    /// The number of the next FIR command.
    pub(crate) fn next_fir_seq(&mut self) -> u8 {
        self.fir_seq = self.fir_seq.wrapping_add(1);
        self.fir_seq
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
    fn the_first_at_once_then_merged() {
        let mut requests = KeyFrameRequests::default();
        assert_eq!(requests.due(at(0)), None);
        requests.want();
        assert!(requests.take(at(0)));
        requests.want();
        assert!(!requests.take(at(499)), "just before the interval");
        assert_eq!(requests.due(at(499)), Some(at(500)));
        assert!(requests.take(at(500)), "repeated while it is wanted");
    }

    #[test]
    fn a_key_frame_ends_it_but_a_new_wish_waits_its_turn() {
        let mut requests = KeyFrameRequests::default();
        requests.want();
        assert!(requests.take(at(0)));
        requests.satisfy();
        assert_eq!(requests.due(at(600)), None);
        assert!(!requests.take(at(600)));
        requests.want();
        assert!(requests.take(at(600)));
        requests.satisfy();
        requests.want();
        assert_eq!(requests.due(at(700)), Some(at(1100)));
    }
}
