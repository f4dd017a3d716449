//! `strait-sim`: replays one seed with its trace, or runs many and says which fail.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use strait_sim::{Outcome, random, run, run_verbose, seeds};

const USAGE: &str = "\
usage: strait-sim [--seed N] [--seeds A..B] [--verbose]

  --seed N       one run, with tables; what it found is said
  --seeds A..B   the runs A to B - 1; those that fail are listed
  --verbose      with every datagram and event

Without arguments: the kept seeds of tests/sim/seeds.txt, then 0..1000.
Exit code: 0 when all is well, 1 when a run failed, 2 when the arguments make no sense.";

struct Arguments {
    seed: Option<u64>,
    seeds: Range<u64>,
    verbose: bool,
    kept: bool,
}

fn main() -> ExitCode {
    let arguments = match read_arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(fault) => {
            eprintln!("strait-sim: {fault}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match arguments.seed {
        Some(seed) => one(seed, arguments.verbose),
        None => many(&arguments),
    }
}

fn read_arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { seed: None, seeds: 0..1000, verbose: false, kept: true };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--seed" => arguments.seed = Some(number(&value()?)?),
            "--seeds" => {
                let range = value()?;
                let (from, to) = range.split_once("..").ok_or(format!("{range} is not A..B"))?;
                (arguments.seeds, arguments.kept) = (number(from)?..number(to)?, false);
            }
            "--verbose" => arguments.verbose = true,
            "--help" | "-h" => return Err("help".into()),
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(arguments)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}

fn one(seed: u64, verbose: bool) -> ExitCode {
    let plan = random::plan(seed);
    println!("{plan:#?}\n");
    let outcome = if verbose { run_verbose(plan) } else { run(plan) };
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("{}\n{outcome}", outcome.tables());
    if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(arguments: &Arguments) -> ExitCode {
    let started = std::time::Instant::now();
    let kept = seeds::kept().into_iter().map(|(seed, _)| seed).filter(|_| arguments.kept);
    let seeds: Vec<u64> = kept.chain(arguments.seeds.clone()).collect();
    let (next, done) = (AtomicU64::new(0), Mutex::new(Vec::<Outcome>::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let at = usize::try_from(at).unwrap_or(usize::MAX);
                    let Some(seed) = seeds.get(at) else { break };
                    let plan = random::plan(*seed);
                    let outcome = if arguments.verbose { run_verbose(plan) } else { run(plan) };
                    let Ok(mut done) = done.lock() else { break };
                    done.push(outcome);
                }
            });
        }
    });
    let mut outcomes = done.into_inner().unwrap_or_default();
    outcomes.sort_by_key(|outcome| outcome.seed);
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| !o.faults.is_empty()).collect();
    for outcome in &failed {
        outcome.lines.iter().for_each(|line| println!("{line}"));
        print!("{outcome}");
    }
    summary(&outcomes, failed.len(), started.elapsed());
    let complete = outcomes.len() == seeds.len();
    if failed.is_empty() && complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(outcomes: &[Outcome], failed: usize, took: std::time::Duration) {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let streams = || outcomes.iter().flat_map(|outcome| &outcome.streams);
    let rows = [
        ("runs", outcomes.len() as u64),
        ("failed", failed as u64),
        ("virtual seconds", sum(|o| o.virtual_time.as_secs())),
        ("datagrams", sum(|o| o.datagrams)),
        ("turns of the relay", sum(|o| o.turns)),
        ("moves of the scope", sum(|o| o.moves)),
        ("kB to the relay", sum(|o| o.received_bytes) / 1000),
        ("kB from the relay", sum(|o| o.sent_bytes) / 1000),
        ("frames decoded", streams().map(|s| s.counts.decoded).sum()),
        ("packets repaired", streams().map(|s| s.counts.repaired).sum()),
        ("freezes", streams().map(|s| s.counts.freezes).sum()),
        ("real seconds", took.as_secs()),
    ];
    for (name, value) in rows {
        println!("{name:<20} {value:>12}");
    }
}
