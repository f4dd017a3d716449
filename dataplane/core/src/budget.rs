//! What may be sent to a subscriber whose leg has no transport-wide feedback: as its REMB
//! (draft-alvestrand-rmcat-remb-03) and its reports of loss say.

use crate::limits::{BUDGET_BPS_MAX, BUDGET_BPS_MIN};
use crate::time::{Duration, Instant};

/// Reports are weighed over this long.
const WEIGHED: Duration = Duration::from_secs(1);
/// Fewer packets than this say nothing about loss.
const PACKETS_MIN: u64 = 20;
/// Loss in percent beyond which less is sent, and below which more may be: those of libwebrtc's published design
/// (draft-ietf-rmcat-gcc-02 section 6).
const LOSS_HIGH: u64 = 10;
const LOSS_LOW: u64 = 2;
/// Loss does not bring the budget below this: on a line that loses by itself, sending still less helps nobody.
const LOSS_BPS_MIN: u64 = 500_000;
/// A receiver's estimate follows what it receives: it says little about the network unless it is below this many percent
/// of that.
const LIMITING: u64 = 125;
/// Percent by which the budget grows in [`WEIGHED`] while nothing speaks against it.
const GROWTH: u64 = 20;

/// What a subscriber said, and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    remb_bps: Option<u64>,
    expected: u64,
    lost: u64,
    weighed: Option<(Instant, u64)>,
    /// What was sent in each of the last two stretches, in bits per second.
    sent_bps: [u64; 2],
    budget_bps: Option<u64>,
}

impl Reports {
    /// The subscriber's estimate of its downlink.
    pub(crate) fn on_remb(&mut self, bps: u64) {
        let bps = bps.clamp(BUDGET_BPS_MIN, BUDGET_BPS_MAX);
        self.remb_bps = Some(bps);
        // What grows may wait until it is weighed; what shrinks may not.
        if self.is_limiting(bps) {
            self.budget_bps = Some(self.budget_bps.map_or(bps, |budget| budget.min(bps)));
        }
    }

    /// So many packets were expected since the last report of a stream, so many of them lost.
    pub(crate) fn on_loss(&mut self, expected: u64, lost: u64) {
        self.expected = self.expected.saturating_add(expected);
        self.lost = self.lost.saturating_add(lost.min(expected));
    }

    /// What the subscriber's own estimate says, for whoever has a better one.
    pub(crate) fn remb_bps(&self) -> Option<u64> {
        self.remb_bps
    }

    /// Weighs what was said. `sent` is how many bytes went to the subscriber in all.
    pub(crate) fn weigh(&mut self, now: Instant, sent: u64) -> Option<u64> {
        let (at, before) = *self.weighed.get_or_insert((now, sent));
        let since = now.since(at);
        if since < WEIGHED {
            return self.budget_bps;
        }
        self.weighed = Some((now, sent));
        let bits = u128::from(sent.saturating_sub(before)) * 8_000_000;
        let sent = u64::try_from(bits / since.as_micros().max(1)).unwrap_or(u64::MAX);
        let [_, last] = self.sent_bps;
        self.sent_bps = [last, sent];
        let (expected, lost) = (std::mem::take(&mut self.expected), std::mem::take(&mut self.lost));
        let known = expected >= PACKETS_MIN;
        let percent = u128::from(lost) * 100 / u128::from(expected.max(1));
        let percent = u64::try_from(percent).unwrap_or(100).min(100);
        let limiting = self.remb_bps.filter(|remb| self.is_limiting(*remb));
        let before = self.budget_bps.or(limiting);
        self.budget_bps = if known && percent > LOSS_HIGH {
            // Half of what is lost less: the other half may not be ours.
            let less = sent.saturating_sub(sent / 200 * percent).max(LOSS_BPS_MIN);
            Some(before.map_or(less, |before| before.min(less)))
        } else if known && percent > LOSS_LOW {
            before
        } else {
            before.map(|before| before.saturating_add(before / 100 * GROWTH))
        };
        if let Some(limiting) = limiting {
            self.budget_bps = self.budget_bps.map(|budget| budget.min(limiting));
        }
        // So much that it is as good as none.
        self.budget_bps = self.budget_bps.filter(|budget| *budget < BUDGET_BPS_MAX);
        self.budget_bps = self.budget_bps.map(|budget| budget.max(BUDGET_BPS_MIN));
        self.budget_bps
    }

    /// Whether an estimate is less than what would follow from what was sent. It may not have seen yet that more is sent than
    /// a moment ago.
    fn is_limiting(&self, remb_bps: u64) -> bool {
        let [before, last] = self.sent_bps;
        remb_bps < (before.min(last) / 100).saturating_mul(LIMITING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports of a second, with so much sent.
    fn second(reports: &mut Reports, now: &mut (Instant, u64), sent_bps: u64) -> Option<u64> {
        *now = (now.0 + WEIGHED, now.1 + sent_bps / 8);
        reports.weigh(now.0, now.1)
    }

    fn begun() -> (Reports, (Instant, u64)) {
        let mut reports = Reports::default();
        assert_eq!(reports.weigh(Instant::default(), 0), None);
        (reports, (Instant::default(), 0))
    }

    #[test]
    fn an_estimate_counts_when_it_is_less_than_what_is_sent() {
        let (mut reports, mut now) = begun();
        second(&mut reports, &mut now, 400_000);
        reports.on_remb(600_000);
        assert_eq!(second(&mut reports, &mut now, 1_000_000), None, "of a moment ago");
        reports.on_remb(1_500_000);
        assert_eq!(second(&mut reports, &mut now, 1_000_000), None, "as it does behind any link");
        reports.on_remb(700_000);
        assert_eq!(reports.weigh(now.0, now.1), Some(700_000), "at once");
        reports.on_remb(650_000);
        assert_eq!(second(&mut reports, &mut now, 1_000_000), Some(650_000));
        // Now that less is sent, it says nothing against more.
        let next = second(&mut reports, &mut now, 400_000);
        assert_eq!(next, Some(780_000));
        assert_eq!(second(&mut reports, &mut now, 400_000), Some(936_000));
        assert_eq!(second(&mut reports, &mut now, 900_000), Some(1_123_200));
        assert_eq!(second(&mut reports, &mut now, 900_000), Some(650_000), "a failed attempt");
    }

    #[test]
    fn loss_brings_it_down_and_its_end_up_again() {
        let (mut reports, mut now) = begun();
        reports.on_loss(10, 10);
        assert_eq!(second(&mut reports, &mut now, 1_000_000), None, "too few to say");
        reports.on_loss(100, 20);
        assert_eq!(second(&mut reports, &mut now, 1_000_000), Some(900_000));
        reports.on_loss(100, 5);
        assert_eq!(second(&mut reports, &mut now, 900_000), Some(900_000), "neither");
        reports.on_loss(100, 0);
        assert_eq!(second(&mut reports, &mut now, 900_000), Some(1_080_000));
        for _ in 0..40 {
            reports.on_loss(100, 0);
            second(&mut reports, &mut now, 900_000);
        }
        assert_eq!(second(&mut reports, &mut now, 900_000), None, "as good as none");
    }

    #[test]
    fn nonsense_is_bounded() {
        let (mut reports, mut now) = begun();
        second(&mut reports, &mut now, 1_000_000);
        second(&mut reports, &mut now, 1_000_000);
        for bps in [0, 1, u64::MAX, 0] {
            reports.on_remb(bps);
            let budget = second(&mut reports, &mut now, 1_000_000);
            assert!(budget.is_none_or(|b| (BUDGET_BPS_MIN..BUDGET_BPS_MAX).contains(&b)));
        }
        assert_eq!(second(&mut reports, &mut now, 1_000_000), Some(BUDGET_BPS_MIN));
        reports.on_loss(100, u64::MAX);
        reports.on_loss(u64::MAX, u64::MAX);
        assert_eq!(second(&mut reports, &mut now, 1_000_000), Some(BUDGET_BPS_MIN));
        assert_eq!(second(&mut reports, &mut now, u64::MAX / 2), Some(BUDGET_BPS_MIN));
    }
}
