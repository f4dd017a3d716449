//! Protecting and opening one packet beside libsrtp, the distribution's: per cipher, of video (1200 bytes) and of sound
//! (100), with replay window and table look-up on both sides.

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use srtp2::{CryptoPolicy, Session, StreamPolicy};
use std::hint::black_box;
use strait_crypt::srtp::{Inbound, Outbound, Profile, REPLAY_WINDOW, TAG_MAX};

/// AES_CM_128_HMAC_SHA1_32 differs from its sibling by the bytes of the tag that are sent.
const PROFILES: [Profile; 3] =
    [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80];
const HEADER: usize = 12;
const SIZES: [usize; 2] = [1200, 100];

/// libsrtp's numbers for the ciphers (`srtp.h`).
const SRTP_AES_GCM_128: u32 = 6;
const SRTP_AES_GCM_256: u32 = 7;

fn srtp(criterion: &mut Criterion) {
    srtp2::ensure_init();
    for profile in PROFILES {
        let mut group = criterion.benchmark_group(format!("srtp/{profile:?}/protect"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            protect(&mut group, profile, size);
        }
        group.finish();
        let mut group = criterion.benchmark_group(format!("srtp/{profile:?}/unprotect"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            unprotect(&mut group, profile, size);
        }
        group.finish();
    }
}

fn protect(group: &mut BenchmarkGroup<'_, WallTime>, profile: Profile, size: usize) {
    let Ends { mut ours_out, mut theirs_out, .. } = Ends::new(profile);
    let (mut ours, mut theirs) = (Packets::new(size), Packets::new(size));
    group.bench_function(BenchmarkId::new("strait", size), |bencher| {
        bencher.iter(|| {
            let buffer = ours.next();
            buffer.resize(size + TAG_MAX, 0);
            ours_out.protect_rtp(black_box(buffer), size).expect("a new packet")
        });
    });
    let payload = vec![0x55; size - HEADER];
    group.bench_function(BenchmarkId::new("strait, out of place", size), |bencher| {
        bencher.iter(|| {
            let buffer = ours.next();
            buffer.resize(size + TAG_MAX, 0);
            ours_out
                .protect_rtp_into(black_box(buffer), HEADER, black_box(&payload))
                .expect("a new packet")
        });
    });
    group.bench_function(BenchmarkId::new("libsrtp", size), |bencher| {
        bencher.iter(|| {
            let buffer = theirs.next();
            theirs_out.protect(black_box(buffer)).expect("a new packet");
        });
    });
}

fn unprotect(group: &mut BenchmarkGroup<'_, WallTime>, profile: Profile, size: usize) {
    let mut ends = Ends::new(profile);
    let mut packets = Packets::new(size);
    group.bench_function(BenchmarkId::new("strait", size), |bencher| {
        bencher.iter_batched_ref(
            || packets.sealed(&mut ends.ours_out),
            |sealed| ends.ours_in.unprotect_rtp(black_box(sealed)).expect("an authentic packet"),
            BatchSize::SmallInput,
        );
    });
    let mut ends = Ends::new(profile);
    let mut packets = Packets::new(size);
    group.bench_function(BenchmarkId::new("libsrtp", size), |bencher| {
        bencher.iter_batched_ref(
            || packets.sealed(&mut ends.ours_out),
            |sealed| ends.theirs_in.unprotect(black_box(sealed)).expect("an authentic packet"),
            BatchSize::SmallInput,
        );
    });
}

/// Packets of one size, one after the other in one buffer.
struct Packets {
    size: usize,
    seq: u16,
    buffer: Vec<u8>,
}

impl Packets {
    fn new(size: usize) -> Self {
        Self { size, seq: 0, buffer: vec![0x55; size] }
    }

    /// The next one: a new header, and for payload whatever the buffer held.
    fn next(&mut self) -> &mut Vec<u8> {
        self.buffer.resize(self.size, 0);
        self.seq = self.seq.wrapping_add(1);
        let [high, low] = self.seq.to_be_bytes();
        self.buffer[..HEADER].copy_from_slice(&[0x80, 96, high, low, 0, 0, 0, 0, 0, 0, 0, 1]);
        &mut self.buffer
    }

    fn sealed(&mut self, outbound: &mut Outbound) -> Vec<u8> {
        let mut sealed = self.next().clone();
        sealed.resize(self.size + TAG_MAX, 0);
        let len = outbound.protect_rtp(&mut sealed, self.size).expect("a new packet");
        sealed.truncate(len);
        sealed
    }
}

/// Both ends of both implementations, all with one key.
struct Ends {
    ours_out: Outbound,
    ours_in: Inbound,
    theirs_out: Session,
    theirs_in: Session,
}

impl Ends {
    fn new(profile: Profile) -> Self {
        let (key, salt) = (vec![1; profile.key_len()], vec![2; profile.salt_len()]);
        let master = [key.clone(), salt.clone()].concat();
        let stream = StreamPolicy {
            rtp: policy(profile),
            rtcp: policy(profile),
            key: &master,
            window_size: REPLAY_WINDOW as u64,
            ..Default::default()
        };
        Self {
            ours_out: Outbound::new(profile, &key, &salt).expect("lengths are the profile's"),
            ours_in: Inbound::new(profile, &key, &salt).expect("lengths are the profile's"),
            theirs_out: Session::with_outbound_template(stream).expect("libsrtp takes the policy"),
            theirs_in: Session::with_inbound_template(stream).expect("libsrtp takes the policy"),
        }
    }
}

fn policy(profile: Profile) -> CryptoPolicy {
    let (cipher, key_len) = match profile {
        Profile::AeadAes128Gcm => (SRTP_AES_GCM_128, 28),
        Profile::AeadAes256Gcm => (SRTP_AES_GCM_256, 44),
        Profile::AesCm128HmacSha1_80 | Profile::AesCm128HmacSha1_32 => {
            return CryptoPolicy::aes_cm_128_hmac_sha1_80();
        }
    };
    let mut raw = CryptoPolicy::aes_cm_128_hmac_sha1_80().into_raw();
    (raw.cipher_type, raw.cipher_key_len) = (cipher, key_len);
    (raw.auth_type, raw.auth_key_len, raw.auth_tag_len) = (0, 0, 16);
    // SAFETY: the numbers are those of srtp_crypto_policy_set_aes_gcm_*_16_auth, which the crate offers only together
    // with a second OpenSSL; libsrtp checks them when it makes a session.
    unsafe { CryptoPolicy::from_raw(raw) }
}

criterion_group!(benches, srtp);
criterion_main!(benches);
