//! Changes of layers, checked by real decoders: tests/decoder with as many of them as are promised.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::figure::{DAMAGED_PICTURES, Figure, SWITCH_FREEZE};

/// Of each codec and kind of layers.
const SWITCHES: u32 = 10_000;
/// The Python that has what tests/decoder needs; `./dev` sets it.
const PYTHON: &str = "STRAIT_DECODER_PYTHON";

/// What tests/decoder says of one kind of stream.
#[derive(Debug, Deserialize)]
struct Case {
    case: String,
    switches: u64,
    pictures: u64,
    damaged: u64,
    longest_ms: f64,
    seconds: u64,
}

/// Both rows: what is damaged, and how long nothing is shown.
pub fn measure() -> Vec<Figure> {
    eprintln!("==> decoder: {SWITCHES} changes of layers of each codec, some ten minutes");
    match cases() {
        Ok(cases) => rows(&cases),
        Err(why) => vec![DAMAGED_PICTURES.missed(&why), SWITCH_FREEZE.missed(&why)],
    }
}

fn cases() -> Result<Vec<Case>, String> {
    let python = std::env::var_os(PYTHON).ok_or("STRAIT_DECODER_PYTHON is not set")?;
    // The relay is beside us.
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = folder.path().join("cases");
    let status = Command::new(python)
        .args(["-u", "tests/decoder/test.py"])
        .env("STRAIT_SWITCHES", SWITCHES.to_string())
        .env("STRAIT_FIGURES", &out)
        .env("STRAIT_BIN_DIR", own.parent().unwrap_or(Path::new(".")))
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .map_err(|error| error.to_string())?;
    let text = fs::read_to_string(&out).unwrap_or_default();
    let cases: Result<Vec<Case>, _> = text.lines().map(serde_json::from_str).collect();
    let cases = cases.map_err(|error| error.to_string())?;
    // What fails without a figure must not pass for one that is good.
    if cases.is_empty() || (!status.success() && cases.iter().all(Case::is_good)) {
        return Err(format!("tests/decoder ended with {status}"));
    }
    Ok(cases)
}

impl Case {
    fn is_good(&self) -> bool {
        self.damaged == 0 && self.longest_ms <= 100.0
    }
}

fn rows(cases: &[Case]) -> Vec<Figure> {
    let damaged: u64 = cases.iter().map(|case| case.damaged).sum();
    let longest = cases.iter().map(|case| case.longest_ms).fold(0.0, f64::max);
    let pictures: u64 = cases.iter().map(|case| case.pictures).sum();
    let switches = cases.iter().map(|case| case.switches).min().unwrap_or(0);
    let seconds: u64 = cases.iter().map(|case| case.seconds).sum();
    let names: Vec<&str> = cases.iter().map(|case| case.case.as_str()).collect();
    let how = format!(
        "{switches} changes each, {pictures} pictures in {seconds} s: {}",
        names.join("; ")
    );
    vec![
        DAMAGED_PICTURES.measured(damaged as f64, how.clone()),
        SWITCH_FREEZE.measured(longest, how),
    ]
}
