//! The estimate itself: how it grows while nothing waits, and where it goes when something does.
//!
//! Additive increase, multiplicative decrease as in draft-ietf-rmcat-gcc-02 section 5.5, with two differences: a decrease
//! goes below what arrives by as much as the queue is long, so that it drains in 0.4 s whatever its length; and once it has
//! drained, the estimate returns to just below what the line was seen to carry.

use super::loss::Verdict;
use crate::limits::{BANDWIDTH_BPS_MAX, BANDWIDTH_BPS_MIN};
use crate::time::{Duration, Instant};

/// What is known when feedback has been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) now: Instant,
    pub(crate) round_trip: Duration,
    /// How long packets wait, and what is too long, in microseconds.
    pub(crate) queue_us: i64,
    pub(crate) threshold_us: i64,
    /// What arrives in bits per second, the line's own loss added: over a short and a longer while.
    pub(crate) arrives: Option<f64>,
    pub(crate) arrived: Option<f64>,
    /// The same since packets began to wait, if they do.
    pub(crate) busy: Option<f64>,
    /// They waited for a line or a reader that slept: that says nothing of the rate, and goes away by itself.
    pub(crate) slept: bool,
    pub(crate) loss: Verdict,
    /// Routers marked packets (ECN): what is to be left of the rate.
    pub(crate) marked: Option<f64>,
}

/// What became of the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It went up, or stayed.
    Went,
    /// It went down.
    Fell,
    /// It went down several times, and what waits does not: the queue is not ours.
    InVain,
    /// The queue has drained.
    Drained,
}

/// The estimate for one subscriber.
#[derive(Debug)]
pub(crate) struct Rate {
    bps: f64,
    /// What the line was last seen to carry when it was full.
    capacity: Option<f64>,
    fell_at: Option<Instant>,
    /// What waited when the estimate fell, while that has not drained; and how often it fell without effect.
    draining: Option<i64>,
    in_vain: u8,
    /// It fell twice for the same reason.
    fell_further: bool,
    last: Option<Instant>,
    suspicion: Option<Suspicion>,
    /// Since when hardly anything waits.
    calm_since: Option<Instant>,
}

/// That packets were lost because too much was sent.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    /// What arrived then, and the estimate before.
    arrives: f64,
    before: f64,
}

/// Between two decreases, beyond the round trip: so long it takes for feedback to show what the first one did.
const REACTION: Duration = Duration::from_millis(200);
/// A queue of this length is to drain in as much time.
const DRAIN_US: f64 = 400_000.0;
const FALL_MIN: f64 = 0.5;
const FALL_MAX: f64 = 0.9;
/// Where the estimate returns to when the queue has drained.
const RETURN: f64 = 0.96;
/// Where it goes for loss alone.
const LOSS_FALL: f64 = 0.95;
const LOSS_FALL_LIMITED: f64 = 0.7;
/// Less of the estimate is used than this.
const LIMITED: f64 = 0.7;
/// Growth per second where nothing is known of the line, around what it is known to carry, and in between.
const GROWTH_FAR: f64 = 2.0;
const GROWTH_NEAR: f64 = 1.03;
const GROWTH_WARY: f64 = 1.25;
/// Around: up to this much more or less than it was seen to carry.
const NEAR: std::ops::Range<f64> = 0.85..1.15;
/// When hardly anything has waited for so long, it carries more.
const CALM: Duration = Duration::from_secs(3);
/// Beyond this nothing is known of it again.
const BEYOND: f64 = 1.5;
/// Loss at so much the same rate as the last time was no chance.
const ALIKE: std::ops::Range<f64> = 0.75..1.3;
/// It does not grow beyond what arrives times this, and a little: what is not used says nothing of the line.
const UNPROVEN: f64 = 1.5;
const KNOWN: f64 = 1.15;
const UNPROVEN_BPS: f64 = 20_000.0;
/// Less of the estimate is used than this: it does not grow by itself, so what it could be is probed for.
pub(crate) const USED: f64 = 0.9;
const _: () = assert!(USED * KNOWN > 1.0, "in between it would neither grow nor be probed for");
/// After so many decreases without effect the queue is somebody else's.
const IN_VAIN: u8 = 4;

impl Rate {
    pub(crate) fn new(bps: u64) -> Self {
        Self {
            bps: bps as f64,
            capacity: None,
            fell_at: None,
            draining: None,
            in_vain: 0,
            fell_further: false,
            last: None,
            suspicion: None,
            calm_since: None,
        }
    }

    /// Bits per second.
    pub(crate) fn bps(&self) -> f64 {
        self.bps
    }

    /// Whether what is sent and seen now belongs to the present estimate.
    pub(crate) fn is_settled(&self, now: Instant, round_trip: Duration) -> bool {
        self.fell_at.is_none_or(|at| now.since(at) >= round_trip + REACTION)
    }

    /// Whether a queue is drained at the moment.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Makes what it can of feedback.
    pub(crate) fn on_feedback(&mut self, seen: Seen) -> Step {
        let last = self.last.replace(seen.now).unwrap_or(seen.now);
        let elapsed_s = seen.now.since(last).as_secs_f64().min(0.5);
        let settled = self.is_settled(seen.now, seen.round_trip);
        if seen.queue_us > seen.threshold_us / 3 {
            self.calm_since = None;
        }
        if seen.queue_us > seen.threshold_us && !seen.slept {
            return if settled { self.fall(seen) } else { self.fall_further(seen) };
        }
        if let Some(left) = seen.marked.filter(|_| settled) {
            return self.fall_for_marks(seen, left);
        }
        match seen.loss {
            Verdict::Excess if settled => return self.fall_for_loss(seen),
            Verdict::Innocent => {
                if let Some(Suspicion { before, .. }) = self.suspicion.take() {
                    self.capacity = None;
                    self.set(self.bps.max(before));
                }
            }
            Verdict::Excess | Verdict::Usual => {}
        }
        if self.draining.is_some() {
            if seen.queue_us > seen.threshold_us / 2 {
                return Step::Went;
            }
            (self.draining, self.in_vain) = (None, 0);
            if let Some(capacity) = self.capacity {
                self.set(self.bps.max(capacity * RETURN));
            }
            return Step::Drained;
        }
        if seen.queue_us <= seen.threshold_us * 2 / 3 {
            self.grow(seen, elapsed_s);
        }
        Step::Went
    }

    /// A probe showed that the line carries this much; `full`: and no more.
    pub(crate) fn prove(&mut self, bps: f64, full: bool) {
        if self.draining.is_some() {
            return;
        }
        if full {
            self.capacity = Some(bps.max(self.bps));
        } else if self.capacity.is_some_and(|capacity| bps > capacity * NEAR.end) {
            self.capacity = None;
        }
        self.set(self.bps.max(bps));
    }

    /// Nobody says what became of what is sent.
    pub(crate) fn halve(&mut self, now: Instant) {
        self.capacity = None;
        self.fell_at = Some(now);
        self.set(self.bps / 2.0);
    }

    fn fall(&mut self, seen: Seen) -> Step {
        let Some(arrives) = seen.arrives else { return Step::Went };
        let stays = self.draining.is_some_and(|before| seen.queue_us > before * 4 / 5);
        self.in_vain = if stays { self.in_vain + 1 } else { 0 };
        if self.in_vain >= IN_VAIN {
            (self.draining, self.in_vain) = (None, 0);
            return Step::InVain;
        }
        self.draining = Some(seen.queue_us);
        (self.fell_at, self.calm_since) = (Some(seen.now), None);
        self.fill(arrives);
        self.fell_further = false;
        self.set(self.bps.min(arrives * share(seen.queue_us)));
        Step::Fell
    }

    /// The queue gets longer though the estimate just fell: it fell by what arrived when the line was still better.
    fn fall_further(&mut self, seen: Seen) -> Step {
        let (Some(arrives), Some(before)) = (seen.arrives, self.draining) else {
            return Step::Went;
        };
        // It fell by what arrived when packets began to wait; where more arrives while they do, that is the line.
        if let (Some(busy), Some(capacity)) = (seen.busy, self.capacity)
            && busy > capacity * NEAR.end
        {
            self.capacity = Some(busy);
            return Step::Went;
        }
        if self.fell_further || seen.queue_us <= before || arrives * FALL_MAX > self.bps {
            return Step::Went;
        }
        self.fell_further = true;
        self.fill(arrives);
        self.set(self.bps.min(arrives * share(seen.queue_us)));
        Step::Fell
    }

    /// More is lost than usual: it may be that too much is sent, and will show.
    fn fall_for_loss(&mut self, seen: Seen) -> Step {
        let arrives = match (seen.arrives, seen.arrived) {
            (Some(short), Some(long)) => short.max(long),
            _ => return Step::Went,
        };
        let again = self.suspicion.is_some_and(|last| ALIKE.contains(&(arrives / last.arrives)));
        self.capacity = Some(arrives).filter(|_| again);
        self.suspicion = Some(Suspicion { arrives, before: self.bps });
        (self.fell_at, self.calm_since) = (Some(seen.now), None);
        // Less is sent than the estimate allows: then the loss says little of the line, until it persists.
        let least = if arrives < self.bps * LIMITED { self.bps * LOSS_FALL_LIMITED } else { 0.0 };
        self.set(self.bps.min((arrives * LOSS_FALL).max(least)));
        Step::Fell
    }

    /// The line is full, and its routers say so before anything waits long or is lost (RFC 8888 section 3.1, RFC 3168).
    fn fall_for_marks(&mut self, seen: Seen, left: f64) -> Step {
        let Some(arrives) = seen.arrives.or(seen.arrived) else { return Step::Went };
        (self.fell_at, self.calm_since) = (Some(seen.now), None);
        self.fill(arrives);
        // Less may be sent than the estimate allows: what is marked is what arrives.
        self.set(self.bps.min(arrives.max(self.bps * LOSS_FALL_LIMITED) * left));
        Step::Fell
    }

    fn grow(&mut self, seen: Seen, elapsed_s: f64) {
        let Some(arrived) = seen.arrived else { return };
        let share = self.capacity.map(|capacity| self.bps / capacity);
        if share.is_some_and(|share| share >= BEYOND) {
            // The line carries more than it did.
            self.capacity = None;
        }
        let calm_since = *self.calm_since.get_or_insert(seen.now);
        let calm = seen.now.since(calm_since) >= CALM;
        let near = share.is_some_and(|share| NEAR.contains(&share)) && !calm;
        let wary = share.is_some_and(|share| (NEAR.start..BEYOND).contains(&share)) && !near;
        let grown = if near {
            // About one packet more per reaction of the loop.
            let loop_s = (seen.round_trip + REACTION).as_secs_f64();
            let packet_bps = (PACKET_BITS / loop_s / 4.0).min(self.bps * 0.035);
            self.bps * GROWTH_NEAR.powf(elapsed_s) + packet_bps * elapsed_s
        } else if wary || self.suspicion.is_some() {
            self.bps * GROWTH_WARY.powf(elapsed_s)
        } else {
            self.bps * GROWTH_FAR.powf(elapsed_s)
        };
        if self.suspicion.is_some_and(|last| self.bps > last.before * NEAR.end) {
            self.suspicion = None;
        }
        let known = near || wary;
        let most = if known { arrived * KNOWN } else { arrived * UNPROVEN + UNPROVEN_BPS };
        self.set(self.bps.max(grown.min(most)));
    }

    /// The line is full, and carries this much; what is measured varies.
    fn fill(&mut self, arrives: f64) {
        let before = self.capacity.filter(|before| ALIKE.contains(&(arrives / before)));
        self.capacity = Some(before.map_or(arrives, |before| (before + arrives) / 2.0));
    }

    fn set(&mut self, bps: f64) {
        self.bps = bps.clamp(BANDWIDTH_BPS_MIN as f64, BANDWIDTH_BPS_MAX as f64);
    }
}

/// Of what arrives, the share at which a queue drains in time.
fn share(queue_us: i64) -> f64 {
    (1.0 - queue_us as f64 / DRAIN_US).clamp(FALL_MIN, FALL_MAX)
}

/// A large packet.
const PACKET_BITS: f64 = 1200.0 * 8.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ms: u64, queue_ms: i64, arrives: f64) -> Seen {
        Seen {
            now: Instant(ms * 1_000_000),
            round_trip: Duration::from_millis(50),
            queue_us: queue_ms * 1000,
            threshold_us: 30_000,
            arrives: Some(arrives),
            arrived: Some(arrives),
            busy: None,
            slept: false,
            loss: Verdict::Usual,
            marked: None,
        }
    }

    #[test]
    fn it_falls_below_what_arrives_and_returns_when_the_queue_is_gone() {
        let mut rate = Rate::new(2_000_000);
        assert_eq!(rate.on_feedback(seen(0, 100, 1e6)), Step::Fell);
        let expected = 1e6 * (1.0 - 100_000.0 / DRAIN_US);
        assert!((rate.bps() - expected).abs() < 1.0, "{}", rate.bps());
        assert_eq!(rate.on_feedback(seen(100, 90, 1e6)), Step::Went, "feedback of before");
        assert_eq!(rate.on_feedback(seen(400, 20, 0.8e6)), Step::Went, "it still drains");
        assert_eq!(rate.on_feedback(seen(500, 2, 0.8e6)), Step::Drained);
        assert!((rate.bps() - RETURN * 1e6).abs() < 1.0, "{}", rate.bps());
    }

    #[test]
    fn what_waits_for_one_that_slept_holds_it_and_no_more() {
        let mut rate = Rate::new(2_000_000);
        let slept = |ms| Seen { slept: true, ..seen(ms, 400, 0.1e6) };
        (0..10).for_each(|n| assert_eq!(rate.on_feedback(slept(n * 300)), Step::Went));
        assert!((rate.bps() - 2e6).abs() < 1.0, "{}", rate.bps());
        let lost = Seen { loss: Verdict::Excess, ..slept(3000) };
        assert_eq!(rate.on_feedback(lost), Step::Fell, "what is lost is");
    }

    #[test]
    fn a_burst_that_begins_does_not_say_what_the_line_carries() {
        let mut rate = Rate::new(1_000_000);
        assert_eq!(rate.on_feedback(seen(0, 60, 0.3e6)), Step::Fell, "little was sent before");
        let busy = Seen { busy: Some(1e6), ..seen(100, 60, 0.5e6) };
        assert_eq!(rate.on_feedback(busy), Step::Went);
        assert!(rate.bps() < 0.3e6, "what waits drains first: {}", rate.bps());
        assert_eq!(rate.on_feedback(seen(400, 0, 0.5e6)), Step::Drained);
        assert!((rate.bps() - RETURN * 1e6).abs() < 1.0, "{}", rate.bps());
    }

    #[test]
    fn it_grows_fast_in_the_unknown_but_not_beyond_what_is_proven() {
        let mut rate = Rate::new(1_000_000);
        (0..=10).for_each(|n| assert_eq!(rate.on_feedback(seen(n * 100, 0, 10e6)), Step::Went));
        assert!((rate.bps() - 2e6).abs() < 1e4, "{}", rate.bps());
        let mut rate = Rate::new(1_000_000);
        (0..=100).for_each(|n| assert_eq!(rate.on_feedback(seen(n * 100, 0, 1e6)), Step::Went));
        assert!((rate.bps() - 1e6 * UNPROVEN - UNPROVEN_BPS).abs() < 1.0, "{}", rate.bps());
    }

    #[test]
    fn somebody_elses_queue_does_not_starve_it() {
        let mut rate = Rate::new(1_000_000);
        let steps: Vec<Step> = (0..8).map(|n| rate.on_feedback(seen(n * 300, 60, 1e6))).collect();
        assert!(steps.contains(&Step::InVain), "{steps:?}");
        assert!(rate.bps() > 0.5e6, "{}", rate.bps());
    }

    #[test]
    fn marks_lower_it_once_per_reaction() {
        let mut rate = Rate::new(1_000_000);
        let marked = |ms| Seen { marked: Some(0.85), ..seen(ms, 0, 1e6) };
        assert_eq!(rate.on_feedback(marked(0)), Step::Fell);
        assert!((rate.bps() - 0.85e6).abs() < 1.0, "{}", rate.bps());
        assert_eq!(rate.on_feedback(marked(50)), Step::Went, "packets of before");
        assert_eq!(rate.on_feedback(Seen { arrives: Some(0.8e6), ..marked(300) }), Step::Fell);
        assert!(rate.bps() < 0.75e6, "{}", rate.bps());
    }

    #[test]
    fn it_keeps_its_bounds() {
        let mut rate = Rate::new(1_000_000);
        (0..20).for_each(|n| rate.halve(Instant(n)));
        assert!((rate.bps() - BANDWIDTH_BPS_MIN as f64).abs() < 1.0);
        rate.prove(f64::MAX, false);
        assert!((rate.bps() - BANDWIDTH_BPS_MAX as f64).abs() < 1.0);
    }
}
