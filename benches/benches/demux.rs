//! Telling apart what shares one port, over a realistic mix; and an ICE check answered.
#![forbid(unsafe_code)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use strait_benches::datagrams::{Check, mixed};
use strait_wire::demux::classify;

fn demux(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("demux");
    let datagrams = mixed();
    group.throughput(Throughput::Elements(datagrams.len() as u64));
    group.bench_function("a hundred datagrams", |bencher| {
        bencher.iter(|| {
            let right = |(kind, bytes): &&(_, Vec<u8>)| classify(black_box(bytes)) == *kind;
            datagrams.iter().filter(right).count()
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("an ICE check answered", |bencher| {
        let mut check = Check::new();
        bencher.iter(|| check.turn());
    });
    group.finish();
}

criterion_group!(benches, demux);
criterion_main!(benches);
