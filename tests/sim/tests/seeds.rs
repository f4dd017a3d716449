//! A thousand runs by chance, those that once failed first.

use strait_sim::{random, run, seeds};

/// The kept seeds come first: `cargo nextest` starts tests in order of name.
#[test]
fn a_kept_seeds() {
    check(seeds::kept().into_iter().map(|(seed, _)| seed));
}

/// One seed, one run: a failure can be looked at again.
#[test]
fn b_same_seed_same_run() {
    // The last ones have real handshakes on bad lines, whose library has timers of its own.
    for seed in (0..1000).step_by(40).chain([44, 73, 109, 132, 152, 220, 376, 440]) {
        let (one, two) = (run(random::plan(seed)), run(random::plan(seed)));
        assert_eq!(one.hash, two.hash, "seed {seed} ran in two ways");
        assert_eq!(one.datagrams, two.datagrams, "seed {seed} ran in two ways");
    }
    let [one, two] = [3, 4].map(|seed| run(random::plan(seed)).hash);
    assert_ne!(one, two, "the seed has no influence");
}

/// In every second run or so the scope goes from worker to worker, in some all the time.
#[test]
fn c_scopes_move() {
    let moves: Vec<u64> = (0..20).map(|seed| run(random::plan(seed)).moves).collect();
    let (never, often) = (moves.iter().filter(|n| **n == 0), moves.iter().filter(|n| **n > 100));
    assert!((1..20).contains(&never.count()) && often.count() > 0, "{moves:?}");
}

/// Eight tests, so that a runner can use as many cores as there are.
macro_rules! share {
    ($($name:ident: $seeds:expr,)+) => {
        $(#[test] fn $name() { check($seeds); })+
    };
}

share! {
    seeds_000_to_124: 0..125,
    seeds_125_to_249: 125..250,
    seeds_250_to_374: 250..375,
    seeds_375_to_499: 375..500,
    seeds_500_to_624: 500..625,
    seeds_625_to_749: 625..750,
    seeds_750_to_874: 750..875,
    seeds_875_to_999: 875..1000,
}

fn check(seeds: impl IntoIterator<Item = u64>) {
    let mut failed = 0;
    for seed in seeds {
        let outcome = run(random::plan(seed));
        if !outcome.faults.is_empty() {
            println!("{outcome}\n  replay: ./dev sim {seed}");
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "seeds failed: see above");
}
