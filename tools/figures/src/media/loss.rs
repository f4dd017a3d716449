//! Loss against the lab's truth.

use std::time::Duration;

use strait_lab::link::{Burst, Conditions, Link};
use strait_lab::rng::Rng;
use strait_lab::truth::Truth;

use super::uplink::Uplink;
use crate::figure::{Figure, LOSS_ERROR};

/// Packets of one trial.
const PACKETS: u32 = 20_000;
const SEEDS: u64 = 4;
const MS: Duration = Duration::from_millis(1);

/// The largest error over all lines and seeds.
pub fn measure() -> Vec<Figure> {
    eprintln!("==> loss: {} lines, {SEEDS} seeds, {PACKETS} packets each", lines().len());
    let mut errors = Vec::new();
    let mut truths = Vec::new();
    for conditions in lines() {
        for seed in 0..SEEDS {
            match trial(conditions, seed) {
                Ok((told, truth)) => {
                    errors.push((told - truth).abs() * 100.0);
                    truths.push(truth * 100.0);
                }
                Err(why) => return vec![LOSS_ERROR.missed(why)],
            }
        }
    }
    errors.sort_by(f64::total_cmp);
    truths.sort_by(f64::total_cmp);
    let at =
        |list: &[f64], share: usize| list.get(list.len() * share / 100).copied().unwrap_or(0.0);
    let worst = errors.last().copied().unwrap_or(f64::NAN);
    let how = format!(
        "largest of {} trials (median {:.4}), true loss {:.2} to {:.2} %; {PACKETS} packets each, numbers that wrap, \
         RTX of half of the lost and of others",
        errors.len(),
        at(&errors, 50),
        truths.first().copied().unwrap_or(0.0),
        truths.last().copied().unwrap_or(0.0),
    );
    vec![LOSS_ERROR.measured(worst, how)]
}

fn lines() -> Vec<Conditions> {
    let clear = Conditions { delay: 30 * MS, ..Conditions::CLEAR };
    let burst = Some(Burst { enter: 0.005, leave: 0.2, loss: 0.9 });
    vec![
        clear,
        Conditions { loss: 0.01, ..clear },
        Conditions { loss: 0.1, duplicate: 0.05, ..clear },
        Conditions { burst, jitter: 20 * MS, jitter_reorders: true, ..clear },
        Conditions {
            loss: 0.02,
            burst,
            reorder: 0.05,
            detour: 150 * MS,
            duplicate: 0.02,
            jitter: 15 * MS,
            jitter_reorders: true,
            ..clear
        },
    ]
}

/// Share of lost packets as the relay says it, and as it is.
fn trial(conditions: Conditions, seed: u64) -> Result<(f64, f64), String> {
    let mut uplink = Uplink::new(true, 50e-6)?;
    let mut link = Link::steady(conditions, Rng::new(seed));
    let (mut truth, mut arrivals) = (Truth::new(), Vec::new());
    let mut sent = Duration::ZERO;
    for n in 0..PACKETS {
        // Begins before the numbers wrap.
        let seq = (n as u16).wrapping_add(60_000);
        let fate = link.carry(sent, 1000);
        truth.note(fate);
        arrivals.extend(fate.arrivals().map(|at| (at, uplink.packet(seq, sent, sent))));
        let lost = fate.passage().is_none();
        if (lost && n % 2 == 0) || n % 40 == 0 {
            arrivals.push((sent + 130 * MS, uplink.rtx(n as u16, seq, sent)));
        }
        sent += 4 * MS;
    }
    arrivals.sort_by_key(|(at, _)| *at);
    for (at, mut bytes) in arrivals {
        uplink.arrive(at, &mut bytes);
    }
    uplink.pass(sent + Duration::from_secs(5));
    let told = uplink.told().ok_or("the stream is gone")?.loss;
    if told.expected + 100 < u64::from(PACKETS) {
        return Err(format!("{} packets of {PACKETS} were expected", told.expected));
    }
    Ok((told.fraction(), truth.loss()))
}
