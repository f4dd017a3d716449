//! The packet's path with the network taken out: video decrypted, measured, kept for repair, gathered, and rewritten and
//! encrypted for each of its subscribers. The time is that of a single packet, or of a frame of ten, in with all its
//! copies out; the throughput counts the copies.
#![forbid(unsafe_code)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use strait_benches::call::{Call, Frame, SUBSCRIBERS_MAX};
use strait_crypt::srtp::Profile;

const PROFILES: [Option<Profile>; 4] = [
    None,
    Some(Profile::AeadAes128Gcm),
    Some(Profile::AeadAes256Gcm),
    Some(Profile::AesCm128HmacSha1_80),
];
/// Frames that are made at a time, outside of what is measured.
const BATCH: u64 = 16;

fn path(criterion: &mut Criterion) {
    for profile in PROFILES {
        let name = profile.map_or("path/plain".into(), |profile| format!("path/{profile:?}"));
        let mut group = criterion.benchmark_group(name);
        for (what, packets) in [("packet", 1), ("frame of 10", 10)] {
            for subscribers in [1, 10, 50, SUBSCRIBERS_MAX] {
                let mut call = Call::new(profile, subscribers);
                group.throughput(Throughput::Elements(call.copies(packets) as u64));
                group.bench_function(BenchmarkId::new(what, subscribers), |bencher| {
                    bencher.iter_custom(|turns| forward(&mut call, packets, turns));
                });
            }
        }
        group.finish();
    }
}

fn forward(call: &mut Call, packets: usize, turns: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut left = turns;
    while left > 0 {
        let count = left.min(BATCH);
        left -= count;
        let mut frames: Vec<Frame> = (0..count).map(|_| call.frame(packets)).collect();
        let mut sent = 0;
        let start = Instant::now();
        for frame in &mut frames {
            sent += black_box(call.turn(frame));
        }
        elapsed += start.elapsed();
        assert_eq!(sent, call.copies(packets) * count as usize, "all were forwarded");
        call.rest();
    }
    elapsed
}

criterion_group!(benches, path);
criterion_main!(benches);
