//! Compares the instruction counts that gungraun prints with the committed ones, or commits them:
//! `strait-instructions BASELINE [--bless TOOLCHAIN] <COUNTS`. `./dev` calls it.
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::process::ExitCode;

use strait_benches::baseline::{Counts, FALL_PERCENT_MAX, RISE_PERCENT_MAX, Verdict};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which baseline?")?;
    let blessing = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--bless"), Some(toolchain)) => Some(toolchain),
        (None, None) => None,
        _ => return Err("usage: strait-instructions BASELINE [--bless TOOLCHAIN] <COUNTS".into()),
    };
    let mut lines = String::new();
    std::io::stdin().read_to_string(&mut lines).map_err(|error| format!("stdin: {error}"))?;
    let counts = Counts::of_gungraun(&lines)?;
    let baseline = match std::fs::read_to_string(&path) {
        Ok(text) => Counts::of_text(&text).map_err(|error| format!("{path}: {error}"))?,
        Err(_) if blessing.is_some() => Counts::default(),
        Err(error) => return Err(format!("{path}: {error}")),
    };
    let lines = counts.beside(&baseline);
    for (line, verdict) in &lines {
        println!("{line}  {}", say(*verdict));
    }
    if let Some(toolchain) = blessing {
        std::fs::write(&path, counts.to_text(&toolchain))
            .map_err(|error| format!("{path}: {error}"))?;
        println!("written to {path}");
        return Ok(ExitCode::SUCCESS);
    }
    let passed = lines.iter().filter(|(_, verdict)| verdict.passes()).count();
    let failed = lines.len() - passed;
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(verdict: Verdict) -> String {
    match verdict {
        Verdict::Kept => String::new(),
        Verdict::Fallen => format!(
            "fell by more than {FALL_PERCENT_MAX} %: `./dev bench --bless` keeps what was won"
        ),
        Verdict::Risen => format!(
            "ROSE by more than {RISE_PERCENT_MAX} %: find out why, or say why in the commit and `./dev bench --bless`"
        ),
        Verdict::New => "NOT IN THE BASELINE: `./dev bench --bless`".into(),
        Verdict::Missing => "NOT COUNTED: run all of them, or `./dev bench --bless`".into(),
    }
}
