//! The packet's path with the network taken out: one 1200-byte video packet decrypted, measured, kept for repair, and
//! rewritten and encrypted for each of its subscribers. The time is that of one packet in with all its copies out.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Extensions, IceCredentials, Kind, PeerId, Preferences,
    PublicationId, ScopeId, SubscriptionId,
};
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path, Protocol};
use strait_core::time::Now;
use strait_core::worker::{Worker, WorkerConfig};
use strait_crypt::StunKey;
use strait_crypt::srtp::{Outbound, Profile, SessionKeys, TAG_MAX};
use strait_wire::{rtp, stun};

const SCOPE: ScopeId = ScopeId(1);
const PAYLOAD_BYTES: usize = 1160;
const VP8: u8 = 96;
const RTX: u8 = 97;
const IDS: Extensions = Extensions {
    mid: 1,
    rid: 0,
    repaired_rid: 0,
    audio_level: 0,
    abs_send_time: 2,
    transport_cc: 0,
    playout_delay: 0,
    video_orientation: 0,
    dependency_descriptor: 0,
};
/// Packets that are made at a time, outside of what is measured.
const BATCH: u64 = 256;

fn fan_out(criterion: &mut Criterion) {
    for profile in [Profile::AeadAes128Gcm, Profile::AesCm128HmacSha1_80] {
        let mut group = criterion.benchmark_group(format!("path {profile:?}"));
        for subscribers in [1, 10, 50] {
            group.throughput(Throughput::Elements(subscribers.into()));
            group.bench_function(BenchmarkId::new("fan-out", subscribers), |bencher| {
                let mut bench = Bench::new(profile, subscribers);
                bencher.iter_custom(|packets| bench.forward(packets));
            });
        }
        group.finish();
    }
}

struct Bench {
    worker: Worker,
    egress: Egress,
    now: Now,
    publisher: Outbound,
    seq: u16,
    subscribers: u32,
}

impl Bench {
    fn new(profile: Profile, subscribers: u32) -> Self {
        let publisher = keys(profile, 0);
        let mut bench = Self {
            worker: Worker::new(WorkerConfig { hash_seed: [3, 5], ..WorkerConfig::default() }),
            egress: Egress::default(),
            now: Now::default(),
            publisher: Outbound::new(profile, &publisher.remote_key, &publisher.remote_salt)
                .expect("lengths of the profile"),
            seq: 0,
            subscribers,
        };
        bench.command(Command::CreateScope { scope: SCOPE });
        bench.add_peer(profile, 0);
        bench.command(Command::Publish {
            peer: PeerId(0),
            publication: PublicationId(0),
            kind: Kind::Video,
            mid: "0".into(),
            codecs: codecs(),
            extensions: IDS,
            encodings: vec![Encoding { rid: String::new(), ssrc: 1, rtx_ssrc: 2 }],
            muted: false,
            report_ssrc: 3,
        });
        for id in 1..=subscribers {
            bench.add_peer(profile, id);
            bench.command(Command::Subscribe {
                peer: PeerId(id),
                subscription: SubscriptionId(id),
                kind: Kind::Video,
                mid: "1".into(),
                codecs: codecs(),
                extensions: IDS,
                ssrc: 1000 + id,
                rtx_ssrc: 2000 + id,
                first_seq: 7,
                as_sent: false,
                publication: Some(PublicationId(0)),
                preferences: Preferences::default(),
            });
        }
        bench
    }

    fn command(&mut self, command: Command) {
        self.worker.on_command(self.now, command, &mut self.egress).expect("accepted");
    }

    fn add_peer(&mut self, profile: Profile, id: u32) {
        let ufrag = format!("user{id}");
        let pwd = "a password of the relay".to_owned();
        let key = StunKey::new(pwd.as_bytes());
        let local = IceCredentials { ufrag: ufrag.clone(), pwd };
        let remote = IceCredentials { ufrag: "them".into(), pwd: "x".repeat(22) };
        self.command(Command::AddPeer { scope: SCOPE, peer: PeerId(id), local, remote });
        let mut check = [0; 200];
        let len = stun::Builder::binding_request(&mut check, [7; 12])
            .username(ufrag.as_bytes(), b"them")
            .ice_controlling(1)
            .use_candidate()
            .integrity(|parts| key.sign(parts))
            .fingerprint()
            .finish()
            .expect("fits");
        self.receive(id, &mut check[..len]);
        self.command(Command::SetKeys { peer: PeerId(id), keys: keys(profile, id) });
        self.egress.clear();
    }

    fn receive(&mut self, id: u32, bytes: &mut [u8]) {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let remote = SocketAddr::new(ip, 10_000 + id as u16);
        let path = Path { protocol: Protocol::Udp, local: ip, remote };
        let meta = Meta { path, at: self.now.at, ecn: 0 };
        self.worker.on_datagram(self.now, meta, bytes, &mut self.egress);
    }

    /// The next packet of the publisher; every one of them a key frame, so that the first starts all streams.
    fn packet(&mut self) -> Vec<u8> {
        self.seq = self.seq.wrapping_add(1);
        let header = rtp::HeaderBuilder {
            marker: true,
            pt: VP8,
            seq: self.seq,
            timestamp: u32::from(self.seq) * 3000,
            ssrc: 1,
            padding: false,
        };
        let mut bytes = vec![0; 100 + PAYLOAD_BYTES + TAG_MAX];
        let len = header.write(&[], [(1, b"0".as_slice())], &mut bytes).expect("fits");
        bytes[len] = 0x10;
        let len = self.publisher.protect_rtp(&mut bytes, len + PAYLOAD_BYTES).expect("protected");
        bytes.truncate(len);
        bytes
    }

    fn forward(&mut self, packets: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        let mut left = packets;
        while left > 0 {
            let count = left.min(BATCH);
            left -= count;
            let mut batch: Vec<_> = (0..count).map(|_| self.packet()).collect();
            let start = Instant::now();
            for bytes in &mut batch {
                self.now.at = self.now.at + Duration::from_millis(1);
                self.receive(0, bytes);
                black_box(&self.egress);
                debug_assert!(self.egress.len() >= self.subscribers as usize);
                self.egress.clear();
            }
            elapsed += start.elapsed();
        }
        elapsed
    }
}

fn keys(profile: Profile, id: u32) -> SessionKeys {
    let material = |len: usize, what: u8| (0..len).map(|at| at as u8 ^ what ^ id as u8).collect();
    SessionKeys {
        profile,
        local_key: material(profile.key_len(), 1),
        local_salt: material(profile.salt_len(), 2),
        remote_key: material(profile.key_len(), 3),
        remote_salt: material(profile.salt_len(), 4),
    }
}

fn codecs() -> Vec<Codec> {
    vec![Codec {
        pt: VP8,
        rtx_pt: Some(RTX),
        kind: CodecKind::Vp8,
        identity: "vp8/90000".into(),
        clock_rate_hz: 90_000,
        nack: true,
        pli: true,
        fir: false,
        transport_cc: false,
        remb: false,
    }]
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
