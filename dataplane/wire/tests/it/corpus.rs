//! The fuzz bodies on the committed corpora, on mutations of the seeds, and on noise.

use super::{mutate, mutations, seeds};
use proptest::prelude::*;
use std::path::PathBuf;
use strait_wire::fuzz;

fn run(target: &str, bytes: &[u8]) {
    match target {
        "rtp" => fuzz::rtp(bytes),
        "rtcp" => fuzz::rtcp(bytes),
        "stun" => fuzz::stun(bytes),
        "codec" => fuzz::codec(bytes),
        "demux" => fuzz::demux(bytes),
        "dcep" => fuzz::dcep(bytes),
        "turn" => fuzz::turn(bytes),
        "framing" => fuzz::framing(bytes),
        _ => panic!("no such target: {target}"),
    }
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target)
}

#[test]
fn the_committed_corpora_pass() {
    for target in seeds::TARGETS {
        let mut inputs = 0;
        for file in std::fs::read_dir(folder(target)).expect("a corpus") {
            let path = file.expect("a file of the corpus").path();
            run(target, &std::fs::read(&path).expect("an input"));
            inputs += 1;
        }
        assert!(inputs >= seeds::of(target).len(), "{target} has {inputs} inputs only");
    }
}

#[test]
fn the_seeds_are_in_the_corpora() {
    for target in seeds::TARGETS {
        for (name, bytes) in seeds::of(target) {
            let found = std::fs::read(folder(target).join(name)).ok();
            assert!(
                found == Some(bytes),
                "{target}/{name} differs: run the ignored test write_the_seeds"
            );
        }
    }
}

#[test]
#[ignore = "writes tests/fuzz/corpus: for those who change the seeds"]
fn write_the_seeds() {
    for target in seeds::TARGETS {
        std::fs::create_dir_all(folder(target)).expect("a folder");
        for (name, bytes) in seeds::of(target) {
            std::fs::write(folder(target).join(name), bytes).expect("a seed");
        }
    }
}

/// Every prefix of every seed, and every seed with each byte at its extremes, in all targets.
#[test]
fn cut_and_bent_seeds_pass() {
    for target in seeds::TARGETS {
        for (_, seed) in seeds::of(target) {
            for at in 0..seed.len() {
                run(target, &seed[..at]);
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = seed.clone();
                    bytes[at] = value;
                    run(target, &bytes);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_seeds_pass(target in 0..seeds::TARGETS.len(), pick: prop::sample::Index, mutations in mutations()) {
        let target = seeds::TARGETS[target];
        let mut seeds = seeds::of(target);
        let mut bytes = seeds.swap_remove(pick.index(seeds.len())).1;
        mutate(&mut bytes, &mutations.0, mutations.1);
        run(target, &bytes);
    }

    #[test]
    fn noise_passes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for target in seeds::TARGETS {
            run(target, &bytes);
        }
    }
}
