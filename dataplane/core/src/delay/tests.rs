//! Queuing delay, held against the lab's truth.

use super::*;
use strait_lab::link::{Bottleneck, Conditions, Link, Queue};
use strait_lab::rng::Rng;

/// A sender, its line, and how far the figure was off for each packet that arrived.
struct Trial {
    delay: Delay,
    link: Link,
    rng: Rng,
    absolute: bool,
    /// How much faster the sender's clock is than ours, in millionths.
    ppm: f64,
    now: Duration,
    errors: Vec<f64>,
    worst_at: (f64, f64),
}

/// When everything begins on our clock.
const EPOCH: Instant = Instant(7_777_777_777_777);
const FRAME: Duration = Duration::from_micros(33_333);

fn conditions(rate_bps: u64) -> Conditions {
    let queue = Queue::Time(Duration::from_millis(300));
    Conditions {
        delay: Duration::from_millis(40),
        jitter: Duration::from_micros(500),
        bottleneck: Some(Bottleneck { rate_bps, queue }),
        ..Conditions::CLEAR
    }
}

impl Trial {
    fn new(ppm: f64, absolute: bool, timeline: &[(Duration, Conditions)]) -> Self {
        Self {
            delay: Delay::default(),
            link: Link::new(timeline, Rng::new(9)),
            rng: Rng::new(11),
            absolute,
            ppm,
            now: Duration::ZERO,
            errors: Vec::new(),
            worst_at: (0.0, 0.0),
        }
    }

    /// A second of video at this rate, 30 frames of packets of 1100 bytes that leave 1 ms apart.
    fn second(&mut self, rate_bps: u32) {
        for _ in 0..30 {
            let packets = rate_bps / 30 / (1128 * 8) + u32::from(self.rng.chance(0.5));
            for packet in 0..packets.max(1) {
                let at = self.now + Duration::from_millis(packet.into());
                let Some(passage) = self.link.carry(at, 1100).passage() else { continue };
                let theirs = at.as_secs_f64() * (1.0 + self.ppm * 1e-6) + 1234.5;
                let sent = if self.absolute {
                    SendTime::Absolute((theirs * f64::from(ABSOLUTE_HZ)) as u64 as u32 & 0xFF_FFFF)
                } else {
                    let captured = self.now.as_secs_f64() * (1.0 + self.ppm * 1e-6) + 99_000.0;
                    SendTime::Timestamp((captured * 90_000.0) as u64 as u32, 90_000)
                };
                self.delay.on_packet(EPOCH + passage.arrival, sent, 0);
                if packet == 0 || self.absolute {
                    let told = self.delay.current().expect("there are packets").as_secs_f64();
                    let error = (told - passage.waited.as_secs_f64()).abs() * 1000.0;
                    if error > self.worst_at.1 {
                        self.worst_at = (at.as_secs_f64(), error);
                    }
                    self.errors.push(error);
                }
            }
            self.now += FRAME;
        }
    }

    /// The error in milliseconds that 95 % of the packets stay below.
    fn p95(&mut self) -> f64 {
        self.errors.sort_by(f64::total_cmp);
        let rank = self.errors.len() * 95 / 100;
        self.errors[rank]
    }
}

/// An hour in which the rate is above that of the line for some time of each period, and below in the rest.
fn hour(ppm: f64, absolute: bool, period: u64, free: u64) -> f64 {
    let mut trial = Trial::new(ppm, absolute, &[(Duration::ZERO, conditions(2_000_000))]);
    for second in 0..3600 {
        let busy = second % period >= free;
        // Busy: up to what the line carries, in waves, so that the queue neither empties nor stays.
        let rate = match (busy, second % 5) {
            (false, _) => 600_000,
            (true, 0) => 2_300_000,
            (true, 1 | 2) => 2_000_000,
            (true, _) => 1_850_000,
        };
        trial.second(rate);
    }
    let p95 = trial.p95();
    eprintln!(
        "{ppm} ppm, absolute {absolute}, {free} s free of {period}: p95 {p95:.3} ms, worst {:?}, drift {:.1}",
        trial.worst_at,
        trial.delay.drift_ppm()
    );
    p95
}

#[test]
fn an_hour_with_clocks_that_drift() {
    for (ppm, absolute) in
        [(200.0, true), (-200.0, true), (0.0, true), (200.0, false), (-200.0, false)]
    {
        let p95 = hour(ppm, absolute, 60, 15);
        assert!(p95 <= 2.0, "{ppm} ppm, absolute {absolute}: {p95} ms");
    }
}

#[test]
fn a_queue_that_is_empty_for_a_few_seconds_every_two_minutes() {
    for ppm in [200.0, -200.0, 50.0] {
        let p95 = hour(ppm, true, 120, 6);
        assert!(p95 <= 2.0, "{ppm} ppm: {p95} ms");
    }
}
