//! What is not worth sending again, and how much may be.
//!
//! On a line that is full every packet that is sent again pushes another one out. So nothing is sent twice before the first
//! can have come, nor what lies before a switch that the line forced, and never more than the line carries in a moment.

use crate::drop::DropReason;
use crate::limits::{RESEND_BYTES, RESEND_SHARE, RESEND_TIME_MS, RESENT_PACKETS};
use crate::time::{Duration, Instant};

/// How much may be sent again: a share of what was sent, so that a subscriber cannot have the relay flood it or others.
#[derive(Debug)]
pub(crate) struct ResendBudget {
    bytes: u32,
}

impl Default for ResendBudget {
    fn default() -> Self {
        Self { bytes: RESEND_BYTES }
    }
}

impl ResendBudget {
    /// So much was sent for the first time.
    pub(crate) fn earn(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes as u32 / RESEND_SHARE).min(RESEND_BYTES);
    }

    /// The line carries so many bits per second: what was saved up while it carried more would fill it for seconds.
    pub(crate) fn limit(&mut self, bps: u64) {
        let most = bps.saturating_mul(RESEND_TIME_MS) / 8000;
        self.bytes = self.bytes.min(most.try_into().unwrap_or(u32::MAX));
    }

    /// Takes what one retransmission costs.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), DropReason> {
        let left = self.bytes.checked_sub(bytes as u32).ok_or(DropReason::ResendLimited)?;
        self.bytes = left;
        Ok(())
    }
}

/// When packets of a subscription were sent again. Has no memory before the first one was.
#[derive(Debug, Default)]
pub(crate) struct Resent(Box<[Option<(u16, Instant)>]>);

impl Resent {
    /// Whether a packet was sent again less than this ago.
    pub(crate) fn is_under_way(&self, now: Instant, seq: u16, round_trip: Duration) -> bool {
        let last = self.0.get(index(seq)).copied().flatten();
        last.is_some_and(|(last, at)| last == seq && now.since(at) < round_trip)
    }

    /// It is sent again.
    pub(crate) fn note(&mut self, now: Instant, seq: u16) {
        if self.0.is_empty() {
            self.0 = vec![None; RESENT_PACKETS].into();
        }
        if let Some(slot) = self.0.get_mut(index(seq)) {
            *slot = Some((seq, now));
        }
    }
}

fn index(seq: u16) -> usize {
    usize::from(seq) % RESENT_PACKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_are_a_share_of_what_is_sent() {
        let mut budget = ResendBudget::default();
        let mut resent = 0;
        for _ in 0..1000 {
            while budget.spend(1000).is_ok() {
                resent += 1000;
            }
            budget.earn(1000);
        }
        assert!((500_000..=500_000 + RESEND_BYTES).contains(&resent), "{resent}");
        assert_eq!(budget.spend(RESEND_BYTES as usize), Err(DropReason::ResendLimited));
    }

    #[test]
    fn a_narrow_line_has_little_saved_up() {
        let mut budget = ResendBudget::default();
        budget.limit(u64::MAX);
        budget.limit(80_000);
        let most = 10 * RESEND_TIME_MS as usize;
        assert_eq!(budget.spend(most + 1), Err(DropReason::ResendLimited));
        assert_eq!(budget.spend(most), Ok(()));
    }

    #[test]
    fn the_same_is_not_sent_twice_within_a_round_trip() {
        let (mut resent, trip) = (Resent::default(), Duration::from_millis(100));
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        assert!(!resent.is_under_way(at(0), 7, trip));
        resent.note(at(0), 7);
        assert!(resent.is_under_way(at(99), 7, trip) && !resent.is_under_way(at(99), 8, trip));
        assert!(!resent.is_under_way(at(100), 7, trip));
        resent.note(at(50), 7 + RESENT_PACKETS as u16);
        assert!(!resent.is_under_way(at(99), 7, trip), "forgotten for another");
    }
}
