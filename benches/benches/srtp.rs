//! Protecting and opening one packet of 1200 bytes, per profile, with the replay window and table look-up.
#![forbid(unsafe_code)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use strait_crypt::srtp::{Inbound, Outbound, Profile, TAG_MAX};

const HEADER: usize = 12;
const PACKET: usize = 1200;

fn contexts(profile: Profile) -> (Outbound, Inbound) {
    let (key, salt) = (vec![1; profile.key_len()], vec![2; profile.salt_len()]);
    let outbound = Outbound::new(profile, &key, &salt);
    let inbound = Inbound::new(profile, &key, &salt);
    (outbound.expect("lengths are the profile's"), inbound.expect("lengths are the profile's"))
}

fn header(seq: u16) -> [u8; HEADER] {
    let [high, low] = seq.to_be_bytes();
    [0x80, 96, high, low, 0, 0, 0, 0, 0, 0, 0, 1]
}

fn srtp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("srtp");
    group.throughput(Throughput::Bytes(PACKET as u64));
    let payload = [0x55; PACKET - HEADER];
    for profile in Profile::ALL {
        group.bench_function(format!("{profile:?}/protect_in_place"), |bencher| {
            let (mut outbound, _) = contexts(profile);
            let mut buffer = [0; PACKET + TAG_MAX];
            let mut seq = 0;
            bencher.iter(|| {
                buffer[..HEADER].copy_from_slice(&header(seq));
                seq = seq.wrapping_add(1);
                outbound.protect_rtp(black_box(&mut buffer), PACKET).expect("a new packet")
            });
        });
        group.bench_function(format!("{profile:?}/protect_into"), |bencher| {
            let (mut outbound, _) = contexts(profile);
            let mut buffer = [0; PACKET + TAG_MAX];
            let mut seq = 0;
            bencher.iter(|| {
                buffer[..HEADER].copy_from_slice(&header(seq));
                seq = seq.wrapping_add(1);
                outbound
                    .protect_rtp_into(black_box(&mut buffer), HEADER, black_box(&payload))
                    .expect("a new packet")
            });
        });
        group.bench_function(format!("{profile:?}/unprotect"), |bencher| {
            let (mut outbound, mut inbound) = contexts(profile);
            let mut seq = 0;
            bencher.iter_batched_ref(
                || {
                    let mut buffer = [0; PACKET + TAG_MAX];
                    buffer[..HEADER].copy_from_slice(&header(seq));
                    seq = seq.wrapping_add(1);
                    let len = outbound.protect_rtp(&mut buffer, PACKET).expect("a new packet");
                    (buffer, len)
                },
                |(buffer, len)| {
                    inbound
                        .unprotect_rtp(black_box(&mut buffer[..*len]))
                        .expect("an authentic packet")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, srtp);
criterion_main!(benches);
