//! Native clients in the simulator: the client's core and the relay's, both real, on lines that lose, reorder and double,
//! behind NATs that forget, where UDP is blocked and let through again. One seed is one run.
//!
//! `STRAIT_NATIVE_SEED=17 cargo nextest run -p strait-sim one_seed --no-capture` shows a run.

mod node;
mod plan;
mod world;

use plan::Plan;
use world::{Outcome, World};

fn run(seed: u64) -> Outcome {
    World::new(Plan::of(seed)).run()
}

fn check(seeds: std::ops::Range<u64>) {
    let mut failed = 0;
    for seed in seeds {
        let outcome = run(seed);
        println!("seed {seed}: {} frames, silent for {:?}", outcome.frames, outcome.silence);
        if !outcome.faults.is_empty() {
            println!("{:#?}", outcome.faults);
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "replay: see the head of tests/sim/tests/native/main.rs");
}

#[test]
fn one_seed_is_one_run() {
    let seed = std::env::var("STRAIT_NATIVE_SEED").ok().and_then(|seed| seed.parse().ok());
    if let Some(seed) = seed {
        println!("{:#?}", Plan::of(seed));
    }
    let [one, again] = [(); 2].map(|()| run(seed.unwrap_or(3)));
    assert_eq!(one, again, "the same seed ran in two ways");
    if seed.is_some() {
        one.lines.iter().for_each(|line| println!("{line}"));
        assert!(one.faults.is_empty(), "{:#?}", one.faults);
    }
    assert_ne!(one.lines, run(4).lines, "the seed has no influence");
}

/// What the plans are there for does happen in them.
#[test]
fn every_way_is_gone() {
    let outcomes: Vec<_> = (0..12).map(run).collect();
    for word in ["UdpRelay", "TcpRelay", "Link", "P2p"] {
        let found = outcomes.iter().any(|outcome| outcome.lines.iter().any(|l| l.ends_with(word)));
        assert!(found, "nobody's media went by {word}");
    }
}

macro_rules! share {
    ($($name:ident: $seeds:expr,)+) => {
        $(#[test] fn $name() { check($seeds); })+
    };
}

share! {
    seeds_00_to_24: 0..25,
    seeds_25_to_49: 25..50,
    seeds_50_to_74: 50..75,
    seeds_75_to_99: 75..100,
}
