//! Probes: a few milliseconds of more than the estimate, to learn whether the line carries it.
//!
//! All that leaves while a probe lasts belongs to it, media and padding alike. How fast that arrives, compared with how
//! fast it left, says what the line carries (packet-pair dispersion over a train of packets).

use super::sent::Packet;
use crate::limits::{BANDWIDTH_BPS_MAX, PROBE_BYTES};
use crate::statistics::Traffic;
use crate::time::{Duration, Instant};

/// The probes towards one subscriber.
#[derive(Debug)]
pub(crate) struct Probes {
    cluster: Option<Cluster>,
    id: u8,
    /// Not before this.
    next_at: Instant,
    interval: Duration,
    /// The line's limit was not found yet: one probe follows the other.
    rising: bool,
    /// How often the last one was repeated because nothing came of it.
    repeated: u8,
    pub(super) begun: u64,
    pub(super) succeeded: u64,
    /// What was sent for them alone.
    pub(super) padding: Traffic,
}

#[derive(Debug)]
struct Cluster {
    id: u8,
    target_bps: u64,
    began: Instant,
    lasts: Duration,
    /// When the last packet left, and what left before that.
    last_at: Option<Instant>,
    before_last: u64,
    sent: u64,
    packets: u32,
    told: u32,
    arrived: u32,
    /// How far packets vary by themselves.
    jitter_us: i64,
    /// Of what arrived: when the first and the last did, and between when they left.
    first_us: i64,
    last_us: i64,
    left_us: (i64, i64),
    /// Bytes that were told about so far, and when they arrived, counted from the first that was told about.
    bytes: u64,
    origin_us: Option<i64>,
    line: Line,
}

/// What is wanted of probing at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Bits per second that would be of use; no probe goes beyond.
    pub(crate) useful_bps: u64,
    /// Less is sent than the estimate allows, so that it does not grow by itself.
    pub(crate) limited: bool,
}

/// What a probe showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Proof {
    /// The line carries this many bits per second.
    pub(crate) bps: f64,
    /// And no more.
    pub(crate) full: bool,
}

/// How long a probe lasts, at least and at most: the more packets vary by themselves, the longer.
const LASTS: Duration = Duration::from_millis(15);
const LASTS_MAX: Duration = Duration::from_millis(45);
const LASTS_JITTER: u32 = 3;
/// Packets that a probe needs to say something.
const PACKETS_MIN: u32 = 5;
/// A probe is so many times the estimate.
const FACTOR: u64 = 2;
/// A probe that does not show this much more than the estimate failed.
const GAIN: f64 = 1.05;
/// If it arrives slower than this share of how fast it left, the line was full.
const FULL: f64 = 0.9;
/// Beyond that and what packets vary by, so much more is the time that the last ones take to leave.
const STRETCH_US: f64 = 2_000.0;
/// The queue that a probe builds up goes away at this share of what it measured.
const CAUTION: f64 = 0.95;
/// Between probes of a line whose limit is known; after each that fails more, up to the second.
const INTERVAL: Duration = Duration::from_secs(3);
const INTERVAL_MAX: Duration = Duration::from_secs(5);
/// A probe that nothing came of is repeated at once, so often.
const REPEATS: u8 = 2;
/// What came of a probe is not waited for any longer than this and a round trip.
const ANSWER: Duration = Duration::from_secs(1);

impl Default for Probes {
    fn default() -> Self {
        Self {
            cluster: None,
            id: 0,
            next_at: Instant::default(),
            interval: INTERVAL,
            rising: true,
            repeated: 0,
            begun: 0,
            succeeded: 0,
            padding: Traffic::default(),
        }
    }
}

impl Probes {
    /// Only what was counted stays.
    pub(crate) fn anew(&self) -> Self {
        let Self { begun, succeeded, padding, .. } = *self;
        Self { begun, succeeded, padding, ..Self::default() }
    }

    /// Begins a probe if it is time and of use.
    pub(crate) fn begin(&mut self, now: Instant, estimate_bps: f64, jitter_us: i64, wish: Wish) {
        let estimate = estimate_bps as u64;
        if self.cluster.is_some() || now < self.next_at || !(self.rising || wish.limited) {
            return;
        }
        let most = wish.useful_bps.min(BANDWIDTH_BPS_MAX);
        let target_bps = estimate.saturating_mul(FACTOR).min(most);
        if (target_bps as f64) < estimate_bps * GAIN {
            return;
        }
        let jitter = Duration::from_micros(jitter_us.clamp(0, 100_000).cast_unsigned());
        // At low rates it takes longer until so many packets have left.
        let packets_us = u64::from(PACKETS_MIN + 1) * PADDING_BITS * 1_000_000 / target_bps.max(1);
        let lasts =
            (LASTS + jitter * LASTS_JITTER).max(Duration::from_micros(packets_us)).min(LASTS_MAX);
        let room = Duration::from_micros(PROBE_BYTES as u64 * 8_000_000 / target_bps.max(1));
        let lasts = lasts.min(room);
        self.id = self.id.checked_add(1).unwrap_or(1);
        self.begun += 1;
        self.cluster = Some(Cluster {
            id: self.id,
            target_bps,
            began: now,
            lasts,
            last_at: None,
            before_last: 0,
            sent: 0,
            packets: 0,
            told: 0,
            arrived: 0,
            jitter_us,
            origin_us: None,
            first_us: i64::MAX,
            last_us: i64::MIN,
            left_us: (i64::MAX, i64::MIN),
            bytes: 0,
            line: Line::default(),
        });
    }

    /// The probe that what leaves now belongs to; 0 for none.
    pub(crate) fn cluster_id(&self, now: Instant) -> u8 {
        self.sending(now).map_or(0, |cluster| cluster.id)
    }

    /// Something left that belongs to the probe.
    pub(crate) fn on_sent(&mut self, at: Instant, bytes: usize) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.last_at != Some(at) {
            (cluster.last_at, cluster.before_last) = (Some(at), cluster.sent);
        }
        cluster.sent += bytes as u64;
        cluster.packets += 1;
    }

    /// How many bytes of padding are due now, and whether the probe is so small that it takes small packets.
    pub(crate) fn missing(&self, now: Instant) -> Option<(usize, bool)> {
        let cluster = self.sending(now)?;
        let elapsed = now.since(cluster.began) + STEP;
        let due = bytes_of(cluster.target_bps, elapsed).min(PROBE_BYTES as u64);
        let missing = due.saturating_sub(cluster.sent);
        let all = bytes_of(cluster.target_bps, cluster.lasts);
        let small = all < u64::from(PACKETS_MIN + 1) * LARGE_BYTES;
        // Of smaller packets the line carries headers above all, and seems to carry little.
        let worth = PADDING_BYTES.min(all / u64::from(PACKETS_MIN + 1)).max(1);
        (missing >= worth).then_some((missing as usize, small))
    }

    /// When there is more to send.
    pub(crate) fn step_due(&self, now: Instant) -> Option<Instant> {
        self.sending(now).map(|_| now + STEP)
    }

    /// The earliest time for another probe, while there is none.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.cluster.is_none().then_some(self.next_at)
    }

    /// Feedback tells about a packet of a probe.
    pub(crate) fn on_told(&mut self, packet: Packet, arrived_us: Option<i64>) {
        let Some(cluster) = self.cluster.as_mut().filter(|c| c.id == packet.cluster) else {
            return;
        };
        cluster.told += 1;
        // What was lost on the way took its time on the line.
        cluster.bytes += u64::from(packet.bytes);
        let Some(at_us) = arrived_us else { return };
        cluster.arrived += 1;
        let since_us = at_us.saturating_sub(*cluster.origin_us.get_or_insert(at_us));
        cluster.line.add(cluster.bytes as f64, since_us as f64);
        cluster.first_us = cluster.first_us.min(at_us);
        cluster.last_us = cluster.last_us.max(at_us);
        let (from, to) = cluster.left_us;
        cluster.left_us = (from.min(packet.sent_us), to.max(packet.sent_us));
    }

    /// The feedback ends: what the probe shows, if it is complete.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        round_trip: Duration,
        estimate_bps: f64,
    ) -> Option<Proof> {
        let cluster = self.cluster.as_ref()?;
        let ended = cluster.began + cluster.lasts;
        let complete = now > ended && cluster.told >= cluster.packets;
        if !complete && now < ended + round_trip + ANSWER {
            return None;
        }
        let proof = cluster.proof();
        let target_bps = cluster.target_bps as f64;
        self.cluster = None;
        // Too much of it, or of what was told about it, got lost: it says nothing either way.
        if proof.is_none() && self.repeated < REPEATS {
            self.repeated += 1;
            self.next_at = now + round_trip;
            return None;
        }
        self.repeated = 0;
        match proof.filter(|proof| proof.bps >= estimate_bps * GAIN) {
            Some(proof) => {
                self.succeeded += 1;
                self.interval = INTERVAL;
                self.rising = !proof.full && proof.bps >= target_bps * FULL;
                self.next_at = if self.rising { now + round_trip } else { now + INTERVAL };
            }
            None => {
                self.rising = false;
                self.next_at = now + self.interval;
                self.interval = (self.interval * 3 / 2).min(INTERVAL_MAX);
            }
        }
        proof
    }

    /// The estimate fell: what was measured before means nothing, and what is to be probed is the way back.
    pub(crate) fn fell(&mut self, now: Instant) {
        self.cluster = None;
        self.rising = false;
        self.interval = INTERVAL;
        self.next_at = self.next_at.max(now + INTERVAL);
    }

    /// Feedback came back after a silence: what the line carries now is not known.
    pub(crate) fn rise(&mut self, now: Instant) {
        self.rising = true;
        self.next_at = now;
    }

    fn sending(&self, now: Instant) -> Option<&Cluster> {
        self.cluster.as_ref().filter(|cluster| now < cluster.began + cluster.lasts)
    }
}

impl Cluster {
    fn proof(&self) -> Option<Proof> {
        if self.arrived < PACKETS_MIN || self.arrived * 5 < self.packets * 4 {
            return None;
        }
        let took_us = self.last_at?.since(self.began).as_micros() as f64;
        let arrived_us = self.last_us.saturating_sub(self.first_us) as f64;
        let left = self.before_last as f64 * 8e6 / took_us;
        // Both spans are some packets long, or what is divided by them says nothing.
        if took_us < 2_000.0 || arrived_us < 1_000.0 {
            return None;
        }
        let carried = self.line.slope().map_or(left, |us_per_byte| 8e6 / us_per_byte);
        // It is full if they arrive further apart than they left. How much arrived in that time says nothing of a line that
        // is not: a large packet may have been the first, or a few the last.
        let (from, to) = self.left_us;
        let apart_us = to.saturating_sub(from) as f64;
        let stays_us = apart_us * (1.0 / FULL - 1.0) + self.jitter_us as f64 + STRETCH_US;
        let full = arrived_us > apart_us + stays_us && carried < left * FULL;
        Some(Proof { bps: if full { carried * CAUTION } else { left }, full })
    }
}

/// The straight line through points that are closest to it (least squares): the first and the last packet alone would say
/// too much where packets vary.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    count: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn add(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        (self.x, self.y) = (self.x + x, self.y + y);
        (self.xx, self.xy) = (self.xx + x * x, self.xy + x * y);
    }

    /// How steep it is, if it rises.
    fn slope(&self) -> Option<f64> {
        let slope =
            (self.count * self.xy - self.x * self.y) / (self.count * self.xx - self.x * self.x);
        (slope.is_finite() && slope > 0.0).then_some(slope)
    }
}

fn bytes_of(bps: u64, time: Duration) -> u64 {
    bps.saturating_mul(time.as_micros() as u64) / 8_000_000
}

/// Padding leaves in such steps.
const STEP: Duration = Duration::from_millis(1);
/// What a packet of padding alone takes, on the wire and as a packet that repeats media.
const PADDING_BITS: u64 = 300 * 8;
const LARGE_BYTES: u64 = 1100;
/// Padding waits until it is so much.
const PADDING_BYTES: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a probe of twice 1 Mbit/s over a line of so many bits per second; what it shows. `first`: bytes of media
    /// that leave with it, at once.
    fn probe(line_bps: f64, first: usize, (jitter_us, seed): (i64, i64)) -> Option<Proof> {
        let mut probes = Probes::default();
        let wish = Wish { useful_bps: u64::MAX, limited: true };
        probes.begin(Instant::default(), 1e6, jitter_us, wish);
        let (mut free_us, mut told, mut chance) = (0.0, Vec::new(), seed);
        for ms in 0..100 {
            let now = Instant::default() + Duration::from_millis(ms);
            let mut left = if ms == 0 { first } else { 0 };
            while probes.cluster_id(now) != 0 {
                let bytes = if left > 0 {
                    left.min(1200)
                } else if let Some((missing, _)) = probes.missing(now) {
                    missing.min(1200)
                } else {
                    break;
                };
                left -= left.min(bytes);
                probes.on_sent(now, bytes);
                let sent_us = ms as i64 * 1000;
                free_us = f64::max(free_us, sent_us as f64) + bytes as f64 * 8e6 / line_bps;
                chance = chance * 48_271 % 0x7fff_ffff;
                let arrived_us = free_us as i64 + chance % (jitter_us * 3).max(1);
                told.push((Packet { sent_us, bytes: bytes as u16, cluster: 1 }, arrived_us));
            }
        }
        told.into_iter().for_each(|(packet, at_us)| probes.on_told(packet, Some(at_us)));
        probes.close(Instant::default() + Duration::from_millis(200), Duration::default(), 1e6)
    }

    #[test]
    fn a_line_that_carries_the_probe_is_not_full_whatever_left_first() {
        for first in [0, 1200, 3000] {
            let proof = probe(20e6, first, (0, 7)).expect("it says something");
            assert!(!proof.full && proof.bps > 1.8e6, "{first}: {proof:?}");
        }
    }

    #[test]
    fn a_line_that_carries_no_more_is_full() {
        for first in [0, 1200, 3000] {
            let proof = probe(1.1e6, first, (0, 7)).expect("it says something");
            assert!(proof.full && proof.bps < 1.2e6, "{first}: {proof:?}");
        }
    }

    #[test]
    fn a_slope_is_that_of_the_closest_line() {
        let mut line = Line::default();
        assert_eq!(line.slope(), None);
        line.add(7.0, 1.0);
        assert_eq!(line.slope(), None, "one point has none");
        (0..10).for_each(|n| line.add(f64::from(n), 3.0 * f64::from(n) + f64::from(n % 2)));
        let slope = line.slope().expect("it rises");
        assert!((2.0..4.0).contains(&slope), "{slope}");
    }

    #[test]
    fn packets_that_vary_rarely_mislead() {
        for (line_bps, full) in [(20e6, false), (1.1e6, true)] {
            let proofs = (1..=50).filter_map(|seed| probe(line_bps, 1200, (5_000, seed * 7919)));
            let right = proofs.filter(|proof| proof.full == full).count();
            assert!(right >= 40, "{right} of 50 over {line_bps}");
        }
    }

    #[test]
    fn no_packet_of_padding_is_mostly_headers() {
        for (estimate_bps, least) in [(240e3, 200), (5e6, 200), (50e3, 90)] {
            let mut probes = Probes::default();
            let wish = Wish { useful_bps: u64::MAX, limited: true };
            probes.begin(Instant::default(), estimate_bps, 0, wish);
            let mut packets = 0;
            for ms in 0..100 {
                let now = Instant::default() + Duration::from_millis(ms);
                if let Some((missing, _)) = probes.missing(now) {
                    assert!(missing >= least, "{missing} at {estimate_bps}");
                    probes.on_sent(now, missing);
                    packets += 1;
                }
            }
            assert!(packets >= PACKETS_MIN, "{packets} at {estimate_bps}");
        }
    }
}
