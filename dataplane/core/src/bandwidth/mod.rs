//! What the way to a subscriber carries, by the transport-wide feedback that it sends
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01), or by that of RFC 8888.
//!
//! [`sent`] remembers what left, [`acknowledged`] how much of it arrives per second, [`delay`] how long it waits on the
//! way, [`loss`] what is lost; [`rate`] makes the estimate of it, and [`probe`] asks for more where nothing else does.

mod acknowledged;
mod congestion;
mod delay;
mod downlink;
mod loss;
mod probe;
mod rate;
mod sent;

#[cfg(test)]
pub(crate) mod line;
#[cfg(test)]
mod tests;

use crate::limits::{BANDWIDTH_BPS_START, BANDWIDTH_RESERVE};
use crate::statistics::EstimationStatistics;
use crate::time::{Duration, Instant};
use acknowledged::Acknowledged;
use congestion::{Marks, Names};
use delay::Delay;
use loss::Loss;
use probe::{Probes, Wish};
use rate::{Rate, Seen, Step, USED};
use sent::{Packet, Sent, Told};
use strait_wire::rtcp::TransportCc;

/// The estimate for one subscriber, with all that it is made of.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    sent: Sent,
    /// Of a subscriber that tells by the streams' own numbers.
    names: Option<Names>,
    marks: Marks,
    clock: Clock,
    acknowledged: Acknowledged,
    delay: Delay,
    loss: Loss,
    rate: Rate,
    probes: Probes,
    round_trip: Option<Duration>,
    /// How long the last packet took, by two clocks.
    took_us: Option<i64>,
    feedback_count: Option<u8>,
    began_at: Option<Instant>,
    /// When feedback last had something new, and when nothing came for so long that the estimate was lowered.
    told_at: Option<Instant>,
    missed_at: Option<Instant>,
    /// It had to be lowered once: until then it is a guess that nothing was held against.
    fell: bool,
    statistics: EstimationStatistics,
}

/// Who has sent no feedback for so long, while packets went to it, does not speak it at all.
const MUTE: Duration = Duration::from_secs(3);
/// Who sent some and has fallen silent for this and two round trips may get nothing through.
const SILENCE: Duration = Duration::from_secs(1);
/// What arrives is taken over this long while something waits; over twice that otherwise, and with fewer bytes than these.
const SHORT_US: i64 = 250_000;
const SHORT_BYTES: u64 = 8_000;
/// A probe that was due but not of use is thought about again after so long.
const PROBE_CHECK: Duration = Duration::from_millis(100);
/// A round trip beyond this is no round trip: feedback was held back somewhere.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);
/// No round trip was measured yet.
const ROUND_TRIP: Duration = Duration::from_millis(100);

impl Default for Bandwidth {
    fn default() -> Self {
        Self {
            sent: Sent::default(),
            names: None,
            marks: Marks::default(),
            clock: Clock::default(),
            acknowledged: Acknowledged::default(),
            delay: Delay::default(),
            loss: Loss::default(),
            rate: Rate::new(BANDWIDTH_BPS_START),
            probes: Probes::default(),
            round_trip: None,
            took_us: None,
            feedback_count: None,
            began_at: None,
            told_at: None,
            missed_at: None,
            fell: false,
            statistics: EstimationStatistics::default(),
        }
    }
}

impl Bandwidth {
    /// The transport-wide number of the next packet.
    pub(crate) fn next_seq(&self) -> u16 {
        self.sent.next_seq()
    }

    /// The packet with [`Bandwidth::next_seq`] leaves. `name`: its stream, and its number there.
    #[inline]
    pub(crate) fn on_named(&mut self, at: Instant, bytes: usize, name: (u32, u16)) {
        if let Some(names) = &mut self.names {
            names.set(self.sent.next(), name);
        }
        self.on_sent(at, bytes);
    }

    /// The packet with [`Bandwidth::next_seq`] leaves.
    pub(crate) fn on_sent(&mut self, at: Instant, bytes: usize) {
        let cluster = self.probes.cluster_id(at);
        if cluster != 0 {
            self.probes.on_sent(at, bytes);
        }
        self.sent.push(at, bytes, cluster);
        self.began_at.get_or_insert(at);
    }

    /// Feedback came. `left` packets of it are looked at, and taken off there: the bytes do not bound them.
    pub(crate) fn on_feedback(
        &mut self,
        now: Instant,
        feedback: &TransportCc<'_>,
        left: &mut usize,
    ) {
        let (mut at_us, jumped) = self.clock.read(now, feedback.reference_time);
        if jumped {
            self.forget_times();
        }
        let mut told = self.skip(now, feedback);
        let mut newest: Option<i64> = None;
        let count = usize::from(feedback.status_count);
        for (seq, delta) in feedback.statuses().take(*left) {
            let arrived_us = delta.map(|delta| {
                at_us += i64::from(delta) * TransportCc::DELTA_US;
                at_us
            });
            match (self.sent.tell(now, seq, arrived_us.is_some()), arrived_us) {
                (Told::Arrived(packet), Some(at_us)) => {
                    self.loss.count(true);
                    self.probes.on_told(packet, Some(at_us));
                    self.arrived(packet, at_us);
                    newest = newest.max(Some(packet.sent_us));
                    told += 1;
                }
                (Told::Late(packet), Some(at_us)) => {
                    self.loss.arrived_late();
                    self.arrived(packet, at_us);
                }
                (Told::Lost(packet), _) => {
                    self.loss.count(false);
                    self.probes.on_told(packet, None);
                    told += 1;
                }
                _ => self.statistics.ignored += 1,
            }
        }
        self.statistics.ignored += count.saturating_sub(*left) as u64;
        *left = left.saturating_sub(count);
        self.statistics.told += told;
        if told > 0 {
            self.conclude(now, newest);
        }
    }

    /// The subscriber's clock is another now.
    fn forget_times(&mut self) {
        self.acknowledged = Acknowledged::default();
        self.delay = Delay::default();
        self.took_us = None;
    }

    /// Takes note of what lies between this feedback and the one before. How many packets it tells about by that.
    fn skip(&mut self, now: Instant, feedback: &TransportCc<'_>) -> u64 {
        let follows = self.feedback_count.map(|count| count.wrapping_add(1));
        let lost = follows == Some(feedback.feedback_count);
        self.feedback_count = Some(feedback.feedback_count);
        let mut told = 0;
        self.sent.skip(now, feedback.base_seq, lost, |packet| {
            if lost {
                self.loss.count(false);
                self.probes.on_told(packet, None);
                told += 1;
                return;
            }
            // It was feedback that was lost: that says nothing of the packets, which arrived as most do.
            self.probes.on_told(packet, None);
            if let Some(took_us) = self.took_us {
                self.acknowledged.add(packet.sent_us.saturating_add(took_us), packet.bytes);
            }
        });
        told
    }

    fn arrived(&mut self, packet: Packet, at_us: i64) {
        self.took_us = Some(at_us.saturating_sub(packet.sent_us));
        self.acknowledged.add(at_us, packet.bytes);
        self.delay.on_packet(packet.sent_us, at_us, packet.bytes);
    }

    /// The feedback ends: what it means for the estimate.
    fn conclude(&mut self, now: Instant, newest: Option<i64>) {
        self.told_at = Some(now);
        if self.missed_at.take().is_some() {
            self.probes.rise(now);
        }
        if let Some(sent_us) = newest {
            let trip = ((now.0 / 1000).cast_signed() - sent_us).max(0).cast_unsigned();
            let trip = Duration::from_micros(trip).min(ROUND_TRIP_MAX);
            self.round_trip = Some(self.round_trip.map_or(trip, |before| (before * 7 + trip) / 8));
        }
        let round_trip = self.round_trip.unwrap_or(ROUND_TRIP);
        self.delay.close();
        let queue_us = self.delay.queue_us();
        let threshold_us = self.delay.threshold_us(self.rate.bps());
        let settled = self.rate.is_settled(now, round_trip);
        let calm = queue_us <= threshold_us / 2 && !self.rate.is_draining();
        let loss = self.loss.close(now, settled, calm);

        // Until it has settled the marks may be of packets from before.
        let marked = self.marks.take().filter(|_| settled);

        let scale = 1.0 / (1.0 - self.loss.inherent());
        let arrived = self.acknowledged.bps(2 * SHORT_US);
        let arrives = self.acknowledged.bps(SHORT_US).filter(|(_, bytes)| *bytes >= SHORT_BYTES);
        let scaled = |rate: Option<(f64, u64)>| rate.map(|(bps, _)| bps * scale);
        // Where packets wait the line is full, though it may have been for a moment only.
        let full = queue_us > threshold_us;
        let busy = full.then(|| self.delay.busy_bps()).flatten().map(|bps| bps * scale);
        let arrives = scaled(arrives.or(arrived)).map(|bps| bps.max(busy.unwrap_or(0.0)));
        let step = self.rate.on_feedback(Seen {
            now,
            round_trip,
            queue_us,
            threshold_us,
            arrives,
            arrived: scaled(arrived),
            busy,
            slept: self.delay.slept(self.rate.bps()),
            loss,
            marked,
        });
        match step {
            Step::Fell => {
                self.fell = true;
                self.probes.fell(now);
            }
            Step::InVain => self.delay.rebase(),
            Step::Went | Step::Drained => {}
        }
        if let Some(proof) = self.probes.close(now, round_trip, self.rate.bps()) {
            self.rate.prove(proof.bps, proof.full);
        }
    }

    /// Looks whether feedback still comes, and begins a probe if that is wished for and of use.
    pub(crate) fn on_time(&mut self, now: Instant, useful_bps: Option<u64>) {
        let (Some(told_at), waiting) = (self.told_at, self.sent.waiting_since(now)) else { return };
        if let Some(since) = waiting.map(|at| at.max(told_at)).max(self.missed_at)
            && waiting.is_some()
            && now.since(since) > SILENCE + self.round_trip.unwrap_or(ROUND_TRIP) * 2
        {
            self.missed_at = Some(now);
            self.fell = true;
            self.rate.halve(now);
            self.probes.fell(now);
        }
        let Some(useful_bps) = useful_bps else { return };
        // Where nothing is sent any more nothing waits either, though nobody says so.
        if self.missed_at.is_none() && (!self.rate.is_draining() || self.is_silent(now)) {
            let wish = Wish { useful_bps, limited: self.is_limited(now) };
            self.probes.begin(now, self.rate.bps(), self.delay.jitter_us(), wish);
        }
    }

    /// A packet of padding left.
    pub(crate) fn on_padding(&mut self, bytes: usize) {
        self.probes.padding.count(bytes);
    }

    /// How many bytes of padding are to leave now, and whether in small packets.
    pub(crate) fn padding(&self, now: Instant) -> Option<(usize, bool)> {
        self.probes.missing(now)
    }

    /// When [`Bandwidth::padding`] has something to send next.
    pub(crate) fn step_due(&self, now: Instant) -> Option<Instant> {
        self.probes.step_due(now)
    }

    /// When [`Bandwidth::on_time`] may begin a probe.
    pub(crate) fn probe_due(&self, now: Instant) -> Option<Instant> {
        self.told_at?;
        self.probes.next_at().map(|at| at.max(now + PROBE_CHECK))
    }

    /// What may be sent in bits per second; `None` while nothing is known.
    pub(crate) fn budget_bps(&self, now: Instant) -> Option<u64> {
        let mute = self.began_at.is_some_and(|at| now.since(at) >= MUTE) && self.told_at.is_none();
        let bps = self.rate.bps() as u64;
        (!mute).then_some(bps - bps / BANDWIDTH_RESERVE)
    }

    /// Whether the line was ever seen to carry less than was sent.
    pub(crate) fn is_proven(&self) -> bool {
        self.fell
    }

    /// From sending until feedback says so, once some did.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// What it counted.
    pub(crate) fn statistics(&self) -> EstimationStatistics {
        let Probes { begun, succeeded, padding, .. } = self.probes;
        EstimationStatistics {
            probes: begun,
            probes_succeeded: succeeded,
            padding,
            ..self.statistics
        }
    }

    /// Whether nothing was told for so long that hardly anything is sent.
    fn is_silent(&self, now: Instant) -> bool {
        self.told_at.is_none_or(|at| now.since(at) >= SILENCE / 2)
    }

    /// Whether so little is sent that the estimate does not grow by itself.
    fn is_limited(&self, now: Instant) -> bool {
        let arrived = self.acknowledged.bps(2 * SHORT_US);
        let sent = arrived.map(|(bps, _)| bps / (1.0 - self.loss.inherent()));
        self.is_silent(now) || sent.is_none_or(|bps| bps < self.rate.bps() * USED)
    }
}

/// The subscriber's clock.
#[derive(Debug, Default)]
struct Clock {
    /// The last reference time, in long form.
    reference: Option<i64>,
    /// How far it was ahead of ours.
    ahead_us: i64,
}

/// A clock that goes on differently by this much was set, or lies.
const JUMP_US: i64 = 3_000_000;

impl Clock {
    /// A reference time in microseconds, and whether the clock jumped.
    fn read(&mut self, now: Instant, reference: i32) -> (i64, bool) {
        self.follow(now, reference.into(), 24, |reference| {
            reference.saturating_mul(TransportCc::REFERENCE_US)
        })
    }

    /// The same of a time in 65,536ths of a second.
    fn read_stamp(&mut self, now: Instant, stamp: u32) -> (i64, bool) {
        self.follow(now, stamp.into(), 32, |ticks| ticks.saturating_mul(15_625) / 1024)
    }

    /// Follows numbers of so many bits that wrap.
    fn follow(
        &mut self,
        now: Instant,
        number: i64,
        bits: u32,
        to_us: impl Fn(i64) -> i64,
    ) -> (i64, bool) {
        let last = self.reference.unwrap_or(number);
        let step = (number.wrapping_sub(last) << (64 - bits)) >> (64 - bits);
        let reference = last.saturating_add(step);
        let first = self.reference.replace(reference).is_none();
        let at_us = to_us(reference);
        let ahead_us = at_us.saturating_sub((now.0 / 1000).cast_signed());
        let jumped = !first && ahead_us.abs_diff(self.ahead_us) > JUMP_US.cast_unsigned();
        self.ahead_us = ahead_us;
        (at_us, jumped)
    }
}
