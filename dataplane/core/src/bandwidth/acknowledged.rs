//! How much arrives per second, by the subscriber's clock.

/// Bytes that arrived lately, in slots of time.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    slots: [u32; SLOTS],
    /// The slot of the newest arrival, and of the first.
    range: Option<(i64, i64)>,
}

const SLOT_US: i64 = 25_000;
const SLOTS: usize = 64;
/// Fewer whole slots than this say nothing.
const SLOTS_MIN: i64 = 4;

impl Default for Acknowledged {
    fn default() -> Self {
        Self { slots: [0; SLOTS], range: None }
    }
}

impl Acknowledged {
    /// So many bytes arrived.
    pub(crate) fn add(&mut self, arrived_us: i64, bytes: u16) {
        let slot = arrived_us.div_euclid(SLOT_US);
        if self.range.is_some_and(|(newest, _)| newest - slot > 4 * SLOTS as i64) {
            // No packet is that late: the clock was set back.
            *self = Self::default();
        }
        let (newest, first) = *self.range.get_or_insert((slot, slot));
        if slot > newest {
            if slot - newest >= SLOTS as i64 {
                self.slots = [0; SLOTS];
            }
            for skipped in newest.max(slot - SLOTS as i64) + 1..=slot {
                if let Some(bytes) = self.slots.get_mut(index(skipped)) {
                    *bytes = 0;
                }
            }
            self.range = Some((slot, first));
        } else if newest - slot >= SLOTS as i64 {
            return;
        }
        if let Some(sum) = self.slots.get_mut(index(slot)) {
            *sum = sum.saturating_add(bytes.into());
        }
    }

    /// Bits per second over the last `window_us`, and the bytes that this is taken from; `None` while too little is known.
    pub(crate) fn bps(&self, window_us: i64) -> Option<(f64, u64)> {
        let (newest, first) = self.range?;
        // The newest slot is not over yet, and the first began somewhere within.
        let count = (window_us / SLOT_US).min(newest - first - 1).min(SLOTS as i64 - 1);
        if count < SLOTS_MIN.min(window_us / SLOT_US) {
            return None;
        }
        let slots = (newest - count..newest).filter_map(|slot| self.slots.get(index(slot)));
        let bytes: u64 = slots.map(|bytes| u64::from(*bytes)).sum();
        Some((bytes as f64 * 8e6 / (count * SLOT_US) as f64, bytes))
    }
}

fn index(slot: i64) -> usize {
    slot.rem_euclid(SLOTS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate() {
        let mut acknowledged = Acknowledged::default();
        for n in 0..400 {
            acknowledged.add(-1_000_000 + n * 10_000, 1250);
        }
        let (bps, _) = acknowledged.bps(500_000).unwrap();
        assert!((bps - 1e6).abs() < 5e4, "{bps}");
    }

    #[test]
    fn a_pause_counts_and_a_long_one_clears() {
        let mut acknowledged = Acknowledged::default();
        for n in 0..100 {
            acknowledged.add(n * 10_000, 1250);
        }
        acknowledged.add(1_250_000, 1250);
        let (bps, _) = acknowledged.bps(500_000).unwrap();
        assert!((bps - 0.5e6).abs() < 6e4, "half of the window was a pause: {bps}");
        acknowledged.add(100_000_000, 1250);
        assert_eq!(acknowledged.bps(500_000).map(|(bps, _)| bps), Some(0.0));
        acknowledged.add(98_000_000, 1250);
        assert_eq!(acknowledged.bps(500_000).map(|(_, bytes)| bytes), Some(0), "too old");
        acknowledged.add(0, 1250);
        assert_eq!(acknowledged.bps(500_000), None, "it begins anew");
    }

    #[test]
    fn times_that_lie_do_no_harm() {
        let mut acknowledged = Acknowledged::default();
        for at in [0, i64::MAX / 4, i64::MIN / 4, -1, i64::MAX / 4 + 1] {
            acknowledged.add(at, u16::MAX);
            let _ = acknowledged.bps(500_000);
        }
    }
}
