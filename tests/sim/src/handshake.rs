//! A real DTLS handshake on the virtual clock.
//!
//! The library draws the jitter of its timers itself (up to a quarter), and a run must be the same
//! twice. So its clock is bent: what it wants to do after a jittered time is done after the time without
//! jitter, and until then its clock stands before that moment.

use strait_core::time::{Duration, Instant};
use strait_crypt::dtls::{Certificate, Fingerprint, Output, Role};

/// One side of a handshake. Nothing is done before the first [`Handshake::step`].
pub struct Handshake {
    certificate: Certificate,
    remote: Fingerprint,
    role: Role,
    epoch: std::time::Instant,
    dtls: Option<strait_crypt::dtls::Handshake>,
    /// The library's clock, which never goes back.
    clock: std::time::Instant,
    /// When the library wants to be called, and when it is called.
    timer: Option<(std::time::Instant, Instant)>,
}

impl Handshake {
    /// A side that has not begun. `epoch` is virtual time zero.
    #[must_use]
    pub fn new(
        certificate: Certificate,
        remote: Fingerprint,
        role: Role,
        epoch: std::time::Instant,
    ) -> Self {
        Self { certificate, remote, role, epoch, dtls: None, clock: epoch, timer: None }
    }

    /// Whether a step was made.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.dtls.is_some()
    }

    /// When [`Handshake::step`] is due without a datagram.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.timer.map(|(_, due)| due)
    }

    /// A datagram came, or time passed. Returns what is to be done, timers excepted.
    pub fn step(&mut self, now: Instant, datagram: Option<&[u8]>) -> Vec<Output> {
        let mut clock = self.clock.max(self.epoch + Duration::from_nanos(now.0));
        if let Some((wanted, due)) = self.timer {
            let before = wanted - Duration::from_millis(1);
            clock = if due <= now { clock.max(wanted) } else { clock.min(before) };
        }
        self.clock = self.clock.max(clock);
        let clock = self.clock;
        let dtls = self.dtls.get_or_insert_with(|| {
            let (certificate, remote) = (&self.certificate, self.remote.clone());
            strait_crypt::dtls::Handshake::new(certificate, self.role, remote, clock)
        });
        match datagram {
            Some(datagram) => dtls.handle(clock, datagram),
            None => dtls.handle_timeout(clock),
        }
        let mut outputs = Vec::new();
        let wanted = loop {
            match dtls.poll() {
                Output::Timeout(at) => break Some(at),
                Output::Idle => break None,
                output => outputs.push(output),
            }
        };
        let before = self.timer;
        self.timer = wanted.map(|wanted| match before {
            Some((same, due)) if same == wanted && due > now => (same, due),
            _ => (wanted, now + without_jitter(wanted.saturating_duration_since(clock))),
        });
        outputs
    }
}

/// The time that the jitter of a quarter was put on: the library waits for its first timeout of 250 ms doubled again and
/// again, and for a quarter of it before it acknowledges. Other times are rounded up to whole milliseconds.
fn without_jitter(time: Duration) -> Duration {
    let within = |plain: &Duration| (plain.mul_f64(0.74)..plain.mul_f64(1.26)).contains(&time);
    let whole = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0) + 1);
    (0..10).map(|doubled| Duration::from_micros(62_500 << doubled)).find(within).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_taken_off() {
        let times = [(50, 62), (210, 250), (310, 250), (2500, 2000), (60_000, 60_001)];
        for (with, without) in times {
            let found = without_jitter(Duration::from_millis(with)).as_millis();
            assert_eq!(found, without);
        }
    }
}
