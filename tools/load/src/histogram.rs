//! A histogram of times with a constant relative error, in the manner of HDR histograms.

use crate::report::Latency;

/// Classes of each power of two: the error is at most 1/32.
const CLASSES: usize = 32;
const CLASS_BITS: u32 = CLASSES.trailing_zeros();
/// Powers of two of nanoseconds: up to 2^40, which is 18 minutes.
const POWERS: usize = 40;

/// Counts durations in nanoseconds.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; CLASSES * POWERS].into_boxed_slice(), total: 0, max: 0 }
    }

    pub(crate) fn add(&mut self, ns: u64) {
        let at = class(ns).min(self.counts.len() - 1);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(ns);
    }

    /// Takes over what another one has counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The value, in nanoseconds, that a share of the durations (0 to 1) does not exceed. 0 without any.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && at + 1 < self.counts.len() {
                return upper(at).min(self.max);
            }
        }
        // The last class holds all that is beyond.
        self.max
    }

    pub(crate) fn summary(&self) -> Latency {
        let us = |ns: u64| ns as f64 / 1000.0;
        let classes = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        Latency {
            packets: self.total,
            p50_us: us(self.quantile(0.5)),
            p90_us: us(self.quantile(0.9)),
            p99_us: us(self.quantile(0.99)),
            p99_9_us: us(self.quantile(0.999)),
            max_us: us(self.max),
            classes: classes.map(|(at, count)| (us(upper(at)), *count)).collect(),
        }
    }
}

/// Values below [`CLASSES`] have a class each; above, the highest bits count.
fn class(ns: u64) -> usize {
    if ns < CLASSES as u64 {
        return ns as usize;
    }
    let power = 63 - ns.leading_zeros();
    let below = (ns >> (power - CLASS_BITS)) as usize - CLASSES;
    (power - CLASS_BITS + 1) as usize * CLASSES + below
}

/// The largest value of a class.
fn upper(class: usize) -> u64 {
    let (power, below) = (class / CLASSES, class % CLASSES);
    match power {
        0 => below as u64,
        _ => (((CLASSES + below + 1) as u64) << (power - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_each_other_without_gap() {
        let mut last = 0;
        for ns in 1..200_000_u64 {
            let class = class(ns);
            assert!(class == last || class == last + 1, "{ns}");
            assert!(ns <= upper(class) && (class == 0 || ns > upper(class - 1)), "{ns}");
            last = class;
        }
    }

    #[test]
    fn quantiles_are_right_within_the_error() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        for ns in 1..=100_000_u64 {
            histogram.add(ns * 10);
        }
        for share in [0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (got, want) = (histogram.quantile(share) as f64, share * 1e6);
            assert!((got / want - 1.0).abs() <= 1.0 / 32.0, "{share}: {got}");
        }
        let summary = histogram.summary();
        assert_eq!((summary.packets, summary.max_us), (100_000, 1000.0));
        assert_eq!(summary.classes.iter().map(|(_, n)| n).sum::<u64>(), 100_000);
        let mut merged = Histogram::new();
        merged.add(2_000_000);
        merged.merge(&histogram);
        assert_eq!((merged.total, merged.quantile(1.0)), (100_001, 2_000_000));
        histogram.add(u64::MAX);
        assert_eq!(histogram.quantile(1.0), u64::MAX, "what is beyond is not lost");
    }
}
