//! One-way queuing delay against the lab's truth, for an hour with clocks that drift.

use std::time::Duration;

use strait_lab::link::{Bottleneck, Conditions, Link, Queue};
use strait_lab::rng::Rng;
use strait_lab::truth::Truth;

use super::uplink::Uplink;
use crate::figure::{Figure, QUEUE_DELAY_ERROR};

const HOUR: u64 = 3600;
const FRAME: Duration = Duration::from_micros(33_333);
const MS: Duration = Duration::from_millis(1);

/// The largest 95th percentile of the error.
pub fn measure() -> Vec<Figure> {
    let mut worst = (f64::NEG_INFINITY, String::new());
    let mut all = Vec::new();
    for (ppm, absolute) in [(200.0, true), (-200.0, true), (200.0, false), (-200.0, false)] {
        eprintln!("==> queuing delay: an hour at {ppm} ppm, abs-send-time {absolute}");
        match trial(ppm, absolute) {
            Ok((error, truth)) => {
                all.push(format!("{error:.2}"));
                if error > worst.0 {
                    worst = (error, truth);
                }
            }
            Err(why) => return vec![QUEUE_DELAY_ERROR.missed(why)],
        }
    }
    let how = format!(
        "95 % of the packets are closer; largest of four hours of video on a 2 Mbit/s line that is busy for 105 s of every \
         120 s, clocks 200 ppm apart either way, with abs-send-time and without ({} ms); true delay {}",
        all.join(", "),
        worst.1
    );
    vec![QUEUE_DELAY_ERROR.measured(worst.0, how)]
}

/// The error in milliseconds that 95 % of the packets stay below, and the true delays in words.
fn trial(ppm: f64, absolute: bool) -> Result<(f64, String), String> {
    let queue = Queue::Time(300 * MS);
    let conditions = Conditions {
        delay: 40 * MS,
        jitter: Duration::from_micros(500),
        bottleneck: Some(Bottleneck { rate_bps: 2_000_000, queue }),
        ..Conditions::CLEAR
    };
    let mut uplink = Uplink::new(absolute, ppm * 1e-6)?;
    let (mut link, mut rng) = (Link::steady(conditions, Rng::new(9)), Rng::new(11));
    let (mut captured, mut seq) = (Duration::ZERO, 0_u16);
    let (mut errors, mut truth) = (Vec::new(), Truth::new());
    for second in 0..HOUR {
        let rate_bps: u32 = match (second % 120 < 15, second % 5) {
            (true, _) => 600_000,
            (false, 0) => 2_300_000,
            (false, 1 | 2) => 2_000_000,
            (false, _) => 1_850_000,
        };
        for _ in 0..30 {
            let packets = rate_bps / 30 / (1128 * 8) + u32::from(rng.chance(0.5));
            for packet in 0..packets.max(1) {
                let sent = captured + MS * packet;
                seq = seq.wrapping_add(1);
                let fate = link.carry(sent, 1100);
                truth.note(fate);
                let Some(passage) = fate.passage() else { continue };
                let mut bytes = uplink.packet(seq, sent, captured);
                uplink.arrive(passage.arrival, &mut bytes);
                if packet == 0 || absolute {
                    let told = uplink.told().and_then(|told| told.queue_delay);
                    let told = told.ok_or("no figure after a packet")?;
                    errors.push(told.abs_diff(passage.waited).as_secs_f64() * 1000.0);
                }
            }
            captured += FRAME;
        }
    }
    errors.sort_by(f64::total_cmp);
    let p95 = errors.get(errors.len() * 95 / 100).copied().ok_or("nothing arrived")?;
    let [p50, p95_true] = [0.5, 0.95].map(|share| truth.queue_delay(share).as_millis());
    Ok((p95, format!("{p50} ms at the median, {p95_true} ms at the 95th percentile")))
}
