//! A packet of a random peer found to its stream and measured, in a crowd: what it costs that a hundred thousand peers do
//! not fit into the processor's caches. A worker takes [`PEERS`] at most, so that the crowd is on two, which take turns.
#![forbid(unsafe_code)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use strait_benches::crowd::Crowd;
use strait_benches::random::Random;
use strait_core::limits::PEERS;

/// Packets of a turn, made outside of what is measured.
const BATCH: u64 = 64;
const CROWD: u32 = 100_000;
const _: () = assert!(CROWD as usize / 2 <= PEERS);

fn routing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routing");
    group.throughput(Throughput::Elements(1));
    for (peers, workers) in [(1, 1), (1000, 1), (CROWD, 2)] {
        let mut crowds: Vec<_> = (0..workers).map(|_| Crowd::new(peers / workers)).collect();
        group.bench_function(BenchmarkId::new("peers", peers), |bencher| {
            bencher.iter_custom(|packets| find(&mut crowds, packets));
        });
        for crowd in &crowds {
            assert_eq!(crowd.found().1, 0, "all belong to a stream");
        }
    }
    group.finish();
}

fn find(crowds: &mut [Crowd], packets: u64) -> Duration {
    let mut random = Random::new(packets);
    let mut elapsed = Duration::ZERO;
    let mut left = packets;
    while left > 0 {
        for crowd in &mut *crowds {
            let count = left.min(BATCH);
            left -= count;
            let who: Vec<u32> = (0..count).map(|_| random.below(crowd.len())).collect();
            let mut packets = crowd.packets(&who);
            let start = Instant::now();
            crowd.turn(&mut packets);
            elapsed += start.elapsed();
        }
    }
    elapsed
}

criterion_group!(benches, routing);
criterion_main!(benches);
