//! What a line did: counts, the lengths of bursts of loss, and the queue delay of every datagram.

use crate::link::Fate;
use std::fmt::Write as _;
use std::time::Duration;

/// What a direction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams given to it.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped at the tail of the queue.
    pub queue_full: u64,
    /// Delivered a second time.
    pub duplicated: u64,
    /// Overtaken.
    pub reordered: u64,
}

/// Lengths of bursts that are counted one by one; the last place holds all longer ones.
pub const BURSTS: usize = 16;
/// Queue delays are counted by classes of this width.
const CLASS: Duration = Duration::from_micros(100);
/// Classes: up to 2 s; the last one holds all beyond.
const CLASSES: usize = 20_000;

/// What is known of the datagrams that went through a line. Losses in a row are a burst.
#[derive(Clone, Debug)]
pub struct Truth {
    sent: u64,
    lost: u64,
    run: usize,
    bursts: [u64; BURSTS],
    classes: Vec<u32>,
    waited_max: Duration,
}

impl Truth {
    /// Nothing yet. 80 KB.
    #[must_use]
    pub fn new() -> Self {
        let classes = vec![0; CLASSES];
        Self { sent: 0, lost: 0, run: 0, bursts: [0; BURSTS], classes, waited_max: Duration::ZERO }
    }

    /// Takes note of a datagram.
    pub fn note(&mut self, fate: Fate) {
        match fate {
            Fate::Carried(passage) => self.arrived(passage.waited),
            Fate::Lost | Fate::QueueFull => self.lost(),
        }
    }

    /// A datagram arrived that had waited for so long.
    pub fn arrived(&mut self, waited: Duration) {
        self.passed();
        self.waited(waited);
    }

    /// A datagram was not lost; how long it waits is told by [`Truth::waited`] once it is known.
    pub fn passed(&mut self) {
        self.sent += 1;
        self.end_burst();
    }

    /// A datagram that passed has waited for so long.
    pub fn waited(&mut self, waited: Duration) {
        let class = (waited.as_nanos() / CLASS.as_nanos()).min(CLASSES as u128 - 1) as usize;
        self.classes[class] += 1;
        self.waited_max = self.waited_max.max(waited);
    }

    /// A datagram was lost.
    pub fn lost(&mut self) {
        self.sent += 1;
        self.lost += 1;
        self.run += 1;
    }

    /// Share of datagrams that were lost, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }

    /// How many bursts of 1, 2, 3... losses there were, the last entry counting all longer ones.
    #[must_use]
    pub fn bursts(&self) -> [u64; BURSTS] {
        let mut bursts = self.bursts;
        if let Some(place) = self.run.checked_sub(1) {
            bursts[place.min(BURSTS - 1)] += 1;
        }
        bursts
    }

    /// The queue delay that a share (0 to 1) of the datagrams that arrived did not exceed, to 0.1 ms.
    #[must_use]
    pub fn queue_delay(&self, share: f64) -> Duration {
        let arrived: u64 = self.classes.iter().map(|count| u64::from(*count)).sum();
        let rank = ((arrived as f64 * share).ceil() as u64).clamp(1, arrived.max(1));
        let mut seen = 0;
        for (class, count) in (0..).zip(&self.classes).take(CLASSES - 1) {
            seen += u64::from(*count);
            if seen >= rank {
                return (CLASS * (class + 1)).min(self.waited_max);
            }
        }
        self.waited_max
    }

    /// The truth as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = format!("{{\"sent\":{},\"lost\":{}", self.sent, self.lost);
        for (name, share) in [("p50", 0.5), ("p95", 0.95), ("max", 1.0)] {
            let ms = self.queue_delay(share).as_secs_f64() * 1000.0;
            let _ = write!(text, ",\"queue_delay_ms_{name}\":{ms:.1}");
        }
        let bursts = self.bursts().map(|count| count.to_string()).join(",");
        let _ = write!(text, ",\"bursts\":[{bursts}]}}");
        text
    }

    fn end_burst(&mut self) {
        if let Some(place) = std::mem::take(&mut self.run).checked_sub(1) {
            self.bursts[place.min(BURSTS - 1)] += 1;
        }
    }
}

impl Default for Truth {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_end_with_what_arrives() {
        let mut truth = Truth::new();
        for lost in [false, true, false, true, true, false, true] {
            if lost { truth.lost() } else { truth.arrived(Duration::ZERO) }
        }
        assert_eq!(truth.bursts()[..3], [2, 1, 0], "the last one goes on");
        assert!((truth.loss() - 4.0 / 7.0).abs() < 1e-9);
        (0..99).for_each(|_| truth.lost());
        assert_eq!(truth.bursts()[BURSTS - 1], 1);
    }

    #[test]
    fn queue_delays_have_quantiles() {
        let mut truth = Truth::new();
        assert_eq!(truth.queue_delay(0.95), Duration::ZERO);
        (1..=100).for_each(|ms| truth.arrived(Duration::from_millis(ms)));
        let p95 = truth.queue_delay(0.95).as_secs_f64();
        assert!((p95 - 0.0951).abs() < 1e-6, "{p95}");
        assert_eq!(truth.queue_delay(1.0), Duration::from_millis(100));
        truth.arrived(Duration::from_secs(60));
        assert_eq!(truth.queue_delay(1.0), Duration::from_secs(60), "beyond the classes");
        assert!(truth.to_json().starts_with(r#"{"sent":101,"lost":0,"queue_delay_ms_p50":51."#));
    }
}
