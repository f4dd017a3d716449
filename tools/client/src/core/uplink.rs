//! What the uplink carries, and what an encoder is to make of it.

use std::time::Duration;

/// An encoder is never told less.
pub const LEAST_BPS: u64 = 64_000;
/// Nor more: 720p with 24 pictures a second.
pub const MOST_BPS: u64 = 1_500_000;
/// Between two decisions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Steps of the ladder: from so many bits per second on, so high pictures, so many a second.
const LADDER: [(u64, u32, u32); 6] = [
    (1_200_000, 720, 24),
    (700_000, 540, 24),
    (400_000, 360, 24),
    (200_000, 360, 15),
    (100_000, 240, 15),
    (0, 240, 10),
];

/// What an encoder of pictures is to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bits per second, all encodings together.
    pub bitrate_bps: u64,
    /// Pictures are to be at most so high, in pixels.
    pub height: u32,
    /// Pictures a second.
    pub frames_per_second: u32,
}

impl Target {
    /// The step of the ladder for a bitrate.
    #[must_use]
    pub fn of(bitrate_bps: u64) -> Self {
        let step = LADDER.iter().find(|(from, ..)| bitrate_bps >= *from);
        let (_, height, frames_per_second) = step.copied().unwrap_or((0, 240, 10));
        Self { bitrate_bps, height, frames_per_second }
    }
}

/// Decides by loss, and by the most that the receiver asks for (REMB): delay is its to watch, it caps what queues.
#[derive(Default)]
pub struct Uplink {
    bps: Option<u64>,
    cap: Option<u64>,
    told: u64,
    lost: u64,
    /// When it was decided last, and what had been sent by then, in bytes.
    decided: Option<(Duration, u64)>,
    /// The cap came below what is sent.
    urgent: bool,
    target: Option<Target>,
}

impl Uplink {
    /// The receiver asks for no more.
    pub fn cap(&mut self, bps: u64) {
        self.urgent |= self.bps.is_some_and(|own| bps < own);
        self.cap = Some(bps);
    }

    /// Media goes another way, of which nothing is known: it begins with what `before` came to.
    #[must_use]
    pub fn after(before: &Self) -> Self {
        Self { bps: before.bps, target: before.target, decided: before.decided, ..Self::default() }
    }

    /// Media comes back to this way from `other`. What was told of it meanwhile is of single packets.
    pub fn resume(&mut self, other: &Self) {
        (self.told, self.lost) = (0, 0);
        (self.target, self.decided) = (other.target, other.decided);
    }

    /// Feedback told about so many packets, so many of which did not arrive.
    pub fn told(&mut self, packets: u64, lost: u64) {
        self.told += packets;
        self.lost += lost;
    }

    /// A new target, where it differs enough to matter. `bytes`: what was sent until now, which says what was tried.
    pub fn decide(&mut self, now: Duration, bytes: u64) -> Option<Target> {
        let (at, before) = *self.decided.get_or_insert((now, bytes));
        let passed = now.saturating_sub(at);
        let mut bps = self.bps.unwrap_or(MOST_BPS / 3);
        if passed >= INTERVAL {
            self.decided = Some((now, bytes));
            let sent = bytes.saturating_sub(before) * 8;
            bps = self.judge(bps, sent * 1000 / u64::try_from(passed.as_millis()).unwrap_or(1));
        } else if self.bps.is_some() && !self.urgent {
            return None;
        }
        self.urgent = false;
        bps = bps.min(self.cap.unwrap_or(MOST_BPS)).clamp(LEAST_BPS, MOST_BPS);
        self.bps = Some(bps);
        let before = self.target.map_or(0, |target| target.bitrate_bps);
        let bound = bps == LEAST_BPS || bps == self.cap.unwrap_or(MOST_BPS).min(MOST_BPS);
        let differs = before.abs_diff(bps) * 20 >= before || bound;
        (before != bps && differs).then(|| *self.target.insert(Target::of(bps)))
    }

    /// What the loss since the last time makes of it.
    fn judge(&mut self, mut bps: u64, sending_bps: u64) -> u64 {
        if let Some(share) = (self.lost * 1000).checked_div(self.told) {
            bps = match share {
                // What was not tried is not known to be carried.
                0..20 => bps.max((bps * 108 / 100).min(sending_bps * 3 / 2)),
                20..100 => bps,
                _ => bps.min(sending_bps.max(LEAST_BPS)) * (1000 - share / 2) / 1000,
            };
        }
        (self.told, self.lost) = (0, 0);
        bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(uplink: &mut Uplink, seconds: std::ops::Range<u64>, carried: u64) -> Target {
        let mut bytes = uplink.decided.map_or(0, |(_, bytes)| bytes);
        for second in seconds {
            let sending = uplink.target.map_or(0, |target| target.bitrate_bps);
            let lost = (sending.saturating_sub(carried) * 1000).checked_div(sending).unwrap_or(0);
            uplink.told(1000, lost);
            // Asked more often than it decides, as it is.
            for part in 0..4 {
                bytes += sending / 32;
                uplink.decide(Duration::from_millis(second * 1000 + part * 250), bytes);
            }
        }
        uplink.target.expect("a target")
    }

    #[test]
    fn it_comes_down_with_loss_and_climbs_without() {
        let mut uplink = Uplink::default();
        assert_eq!(run(&mut uplink, 0..60, u64::MAX), Target::of(MOST_BPS));
        let narrow = run(&mut uplink, 60..90, 100_000);
        assert!((64_000..125_000).contains(&narrow.bitrate_bps), "{narrow:?}");
        assert_eq!(narrow.height, 240);
        assert_eq!(run(&mut uplink, 90..180, u64::MAX).height, 720);
    }

    #[test]
    fn a_cap_below_what_is_sent_holds_at_once_and_another_way_begins_with_what_is_sent() {
        let mut node = Uplink::default();
        run(&mut node, 0..60, u64::MAX);
        let mut direct = Uplink::after(&node);
        let now = Duration::from_millis(60_100);
        assert_eq!(direct.decide(now, 12_000_000), None, "as before");
        direct.cap(400_000);
        assert_eq!(direct.decide(now, 12_000_000), Some(Target::of(400_000)));
        node.resume(&direct);
        let bytes = direct.decided.unwrap().1 + 50_000;
        assert_eq!(node.decide(now + INTERVAL, bytes), Some(Target::of(MOST_BPS)), "its own");
    }

    #[test]
    fn the_nodes_cap_holds() {
        let mut uplink = Uplink::default();
        uplink.cap(300_000);
        assert_eq!(run(&mut uplink, 0..60, u64::MAX), Target::of(300_000));
        uplink.cap(1_000);
        assert_eq!(run(&mut uplink, 60..62, u64::MAX), Target::of(LEAST_BPS));
    }
}
