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

impl Trial {
    /// What was told last, in milliseconds.
    fn told(&self) -> f64 {
        self.delay.current().expect("there are packets").as_secs_f64() * 1000.0
    }
}

#[test]
fn a_way_that_gets_shorter_is_seen_at_once_and_one_that_gets_longer_when_it_stands_still() {
    let empty = Conditions { delay: Duration::from_millis(40), ..Conditions::CLEAR };
    let longer = Conditions { delay: Duration::from_millis(70), ..empty };
    let timeline = [
        (Duration::ZERO, empty),
        (Duration::from_secs(120), longer),
        (Duration::from_secs(240), empty),
    ];
    let mut trial = Trial::new(150.0, true, &timeline);
    (0..119).for_each(|_| trial.second(600_000));
    assert!(trial.told() < 0.2, "{}", trial.told());
    (0..5).for_each(|_| trial.second(600_000));
    assert!((28.0..32.0).contains(&trial.told()), "a queue, for all that is known");
    (0..40).for_each(|_| trial.second(600_000));
    assert!(trial.told() < 0.2, "{}", trial.told());
    (0..74).for_each(|_| trial.second(600_000));
    assert!(trial.told() < 0.2, "{}", trial.told());
    // Back: nothing below zero, and the drift is known still.
    (0..10).for_each(|_| trial.second(600_000));
    assert!(trial.told() < 0.2, "{}", trial.told());
    assert!((trial.delay.drift_ppm() + 150.0).abs() < 10.0, "{}", trial.delay.drift_ppm());
}

#[test]
fn a_queue_that_never_empties_counts_from_its_least_after_four_minutes() {
    let mut trial = Trial::new(0.0, true, &[(Duration::ZERO, conditions(2_000_000))]);
    (0..60).for_each(|_| trial.second(600_000));
    // Into a standing queue, which then moves up and down without ever being empty.
    (0..3).for_each(|_| trial.second(2_100_000));
    for second in 0..90 {
        trial.second(if second % 2 == 0 { 2_050_000 } else { 1_800_000 });
    }
    let seen = trial.told();
    assert!(seen > 20.0, "seen as what it is: {seen}");
    trial.errors.sort_by(f64::total_cmp);
    assert!(trial.errors[trial.errors.len() * 95 / 100] < 2.0);
    for second in 0..400 {
        trial.second(if second % 2 == 0 { 2_050_000 } else { 1_800_000 });
    }
    assert!(trial.told() < seen, "{} of {seen}", trial.told());
}

#[test]
fn pauses_and_clocks_that_are_set_do_no_harm() {
    for absolute in [true, false] {
        let clear = Conditions { delay: Duration::from_millis(40), ..Conditions::CLEAR };
        let mut trial = Trial::new(100.0, absolute, &[(Duration::ZERO, clear)]);
        (0..60).for_each(|_| trial.second(600_000));
        // Longer than abs-send-time counts.
        trial.now += Duration::from_secs(1000);
        (0..30).for_each(|_| trial.second(600_000));
        assert!(trial.told() < 1.0, "{} after a pause", trial.told());
        for jump in [3_000_000_000_u32, 77, u32::MAX / 2] {
            let at = EPOCH + trial.now;
            let sent = match absolute {
                true => SendTime::Absolute(jump & 0xFF_FFFF),
                false => SendTime::Timestamp(jump, 90_000),
            };
            trial.delay.on_packet(at, sent, 0);
            trial.now += FRAME;
        }
        (0..60).for_each(|_| trial.second(600_000));
        assert!(trial.told() < 1.0, "{} after jumps", trial.told());
    }
}

#[test]
fn a_packet_without_send_time_among_others_is_left_out() {
    let mut delay = Delay::default();
    let at = |ms: u64| EPOCH + Duration::from_millis(ms);
    delay.on_packet(at(0), SendTime::Timestamp(5, 90_000), 0);
    assert_eq!(delay.current(), Some(Duration::ZERO));
    for ms in 1..100 {
        delay.on_packet(at(ms), SendTime::Absolute((ms * 262) as u32), 0);
        delay.on_packet(at(ms), SendTime::Timestamp(ms as u32 * 90_000, 90_000), 0);
    }
    assert!(delay.current() < Some(Duration::from_millis(1)));
    assert!(delay.p95() < Some(Duration::from_millis(1)));
}

#[test]
fn the_histogram_is_right_within_its_classes() {
    let mut histogram = Histogram::default();
    assert_eq!(histogram.quantile(95, 100), None);
    for us in 1..=100_000_u64 {
        histogram.add(us * 1000);
        if us % 1000 == 0 {
            let told = histogram.quantile(95, 100).expect("some").as_secs_f64() * 1e6;
            let truth = us as f64 * 0.95;
            assert!((told - truth).abs() <= (truth * 0.0625).max(500.0), "{told} of {truth}");
        }
        if histogram.total == 60_000 {
            break;
        }
    }
    histogram.add(u64::MAX);
    assert!(histogram.quantile(100, 100).expect("some") > Duration::from_secs(3));
}
