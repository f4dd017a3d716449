//! Real browsers behind a line that narrows, driven by `narrow-line.mjs` beside this crate.

use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::figure::{Figure, NARROW_CLIMBS, NARROW_FALLS, NARROW_FREEZE};

/// What one round saw, in milliseconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    relay_fell_ms: Option<f64>,
    fell_ms: Option<f64>,
    relay_back_ms: Option<f64>,
    back_ms: Option<f64>,
    freeze_ms: f64,
    others_freeze_ms: f64,
    others_heights: Vec<u32>,
    audio_lost_share: f64,
}

/// The three rows.
pub fn measure() -> Vec<Figure> {
    eprintln!("==> browsers behind a line that narrows");
    match rounds() {
        Ok(rounds) => figures(&rounds),
        Err(why) => {
            let missed = |promise: crate::figure::Promise| promise.missed(&why);
            [NARROW_FALLS, NARROW_CLIMBS, NARROW_FREEZE].map(missed).into()
        }
    }
}

fn rounds() -> Result<Vec<Seen>, String> {
    let script = "tools/figures/narrow-line.mjs";
    if !std::path::Path::new(script).is_file() {
        return Err("not in the source tree; use ./dev figures".into());
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let programs = own.parent().ok_or("no folder of programs")?;
    let output = Command::new("node")
        .arg(script)
        .env("STRAIT_BIN_DIR", programs)
        .env("STRAIT_STRICT", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("node: {error}"))?;
    if !output.status.success() {
        return Err(format!("the browsers could not be driven ({})", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

fn figures(rounds: &[Seen]) -> Vec<Figure> {
    // What a browser shows comes after what the relay sends; what never came is missed.
    let list = |value: fn(&Seen) -> Option<f64>| {
        rounds.iter().map(|seen| value(seen).unwrap_or(f64::INFINITY) / 1e3).collect::<Vec<_>>()
    };
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let words = |values: &[f64]| {
        values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(", ")
    };
    let (fell, shown) = (list(|seen| seen.relay_fell_ms), list(|seen| seen.fell_ms));
    let (back, back_shown) = (list(|seen| seen.relay_back_ms), list(|seen| seen.back_ms));
    let freezes = list(|seen| Some(seen.freeze_ms));
    let others = worst(&list(|seen| Some(seen.others_freeze_ms)));
    let kept = rounds.iter().all(|seen| seen.others_heights == [540]);
    let sound = rounds.iter().map(|seen| seen.audio_lost_share * 100.0).fold(0.0, f64::max);
    let kept = if kept { "keep the high layer" } else { "DO NOT keep the high layer" };
    vec![
        NARROW_FALLS.measured(
            worst(&shown),
            format!(
                "until the small picture is shown, worst of {} ({}); until the relay sends it: {}; the two others {kept}",
                rounds.len(),
                words(&shown),
                words(&fell)
            ),
        ),
        NARROW_CLIMBS.measured(
            worst(&back_shown),
            format!("worst of ({}); until the relay sends it: {}", words(&back_shown), words(&back)),
        ),
        NARROW_FREEZE.measured(
            worst(&freezes),
            format!(
                "worst of ({}); of those who share no line with it: {others:.2}; sound lost while it is narrow: {sound:.1} %",
                words(&freezes)
            ),
        ),
    ]
}
