//! How fast one may speak, be it over a link, a WebSocket or a data channel: what comes faster is read later, not refused.

use std::time::{Duration, Instant};

/// What a client may say in a burst, as seconds at its rate.
const BURST: Duration = Duration::from_secs(2);

/// The rates that a client is held to; none where there is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Between two messages.
    message: Option<Duration>,
    /// For a KiB of what they carry.
    kibibyte: Option<Duration>,
}

/// How far one client used them up.
#[derive(Debug)]
pub struct Pace {
    rates: Rates,
    /// When as many messages as came would have come at the rate.
    messages: Instant,
    /// The same for bytes.
    bytes: Instant,
}

impl Rates {
    /// So many messages and KiB a second; 0 for no limit.
    #[must_use]
    pub fn new(messages_per_second: u32, kibibytes_per_second: u32) -> Self {
        let each = |rate: u32| (rate > 0).then(|| Duration::from_secs(1) / rate.max(1));
        Self { message: each(messages_per_second), kibibyte: each(kibibytes_per_second) }
    }
}

impl Pace {
    /// A client that said nothing yet.
    #[must_use]
    pub fn new(rates: Rates, now: Instant) -> Self {
        Self { rates, messages: now, bytes: now }
    }

    /// A message with so many bytes came. None when the next may be read at once, otherwise when.
    pub fn take(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if let Some(each) = self.rates.message {
            self.messages = self.messages.max(now) + each;
        }
        if let Some(each) = self.rates.kibibyte {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.bytes = self.bytes.max(now) + each * (bytes / 1024) + each * (bytes % 1024) / 1024;
        }
        let used = self.messages.max(self.bytes);
        (used > now + BURST).then(|| used - BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client that never stops gets through in so many seconds: messages of so many bytes.
    fn through(rates: Rates, seconds: u64, bytes: usize) -> u64 {
        let start = Instant::now();
        let (mut now, mut pace, mut count) = (start, Pace::new(rates, start), 0);
        while now < start + Duration::from_secs(seconds) {
            count += 1;
            if let Some(until) = pace.take(now, bytes) {
                assert!(until > now && until <= now + Duration::from_secs(1), "{count}");
                now = until;
            }
        }
        count
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rates = Rates::new(200, 0);
        assert_eq!(through(rates, 1, 100), 600, "400 at once, and those of a second");
        assert_eq!(through(rates, 10, 100), 2400);
        let start = Instant::now();
        let mut pace = Pace::new(rates, start);
        assert!((0..400).all(|_| pace.take(start, 0).is_none()));
        assert!(pace.take(start, 0).is_some());
        let later = start + Duration::from_secs(60);
        assert!((0..400).all(|_| pace.take(later, 0).is_none()), "who was silent may again");
        assert!(pace.take(later, 0).is_some());
    }

    #[test]
    fn bytes_count_whether_in_few_messages_or_many() {
        let rates = Rates::new(0, 64);
        let kib = |bytes: usize| through(rates, 10, bytes) * bytes as u64 / 1024;
        for bytes in [100, 1_000, 64 << 10] {
            assert!((760..=832).contains(&kib(bytes)), "{bytes}: {}", kib(bytes));
        }
    }

    #[test]
    fn without_rates_nothing_waits() {
        let start = Instant::now();
        let mut pace = Pace::new(Rates::new(0, 0), start);
        assert!((0..100_000).all(|_| pace.take(start, 64 << 10).is_none()));
    }
}
