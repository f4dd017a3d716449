//! The packet's path allocates nothing once it is warm: counted by an allocator of this test's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Extensions, Kind, PeerId, Preferences, PublicationId,
    ScopeId, SubscriptionId, WorkerId,
};
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path};
use strait_core::time::{Duration, Now};
use strait_core::worker::{Worker, WorkerConfig};
use strait_crypt::srtp::{Outbound, Profile, SessionKeys};
use strait_wire::rtcp::Arrival;
use strait_wire::{rtcp, rtp};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; the count is a plain number of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises us.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises us.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `act` allocates.
fn allocations(act: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    act();
    ALLOCATIONS.with(Cell::get) - before
}

const SCOPE: ScopeId = ScopeId(1);
const SUBSCRIBERS: u32 = 20;
const VIDEO_SSRC: u32 = 5;
const AUDIO_SSRC: u32 = 7;
const PROFILE: Profile = Profile::AeadAes128Gcm;
const IDS: Extensions = Extensions {
    mid: 1,
    rid: 0,
    repaired_rid: 0,
    audio_level: 4,
    abs_send_time: 5,
    transport_cc: 6,
    playout_delay: 0,
    video_orientation: 0,
    dependency_descriptor: 0,
};

struct Bench {
    worker: Worker,
    egress: Egress,
    now: Now,
    publisher: Outbound,
    subscriber: Outbound,
    seqs: [u16; 2],
    transport_seq: u16,
    /// The next transport-wide number that the subscriber tells about.
    told: u16,
    frames: u32,
    datagrams: usize,
}

fn path(id: u32) -> Path {
    let remote = SocketAddr::from(([192, 0, 2, 1], 1000 + id as u16));
    Path::udp([192, 0, 2, 2].into(), remote)
}

fn keys(id: u32) -> SessionKeys {
    let of = |what: u8, len: usize| vec![id as u8 ^ what; len];
    SessionKeys {
        profile: PROFILE,
        local_key: of(1, 16),
        local_salt: of(2, 12),
        remote_key: of(3, 16),
        remote_salt: of(4, 12),
    }
}

fn theirs(id: u32) -> Outbound {
    let keys = keys(id);
    Outbound::new(PROFILE, &keys.remote_key, &keys.remote_salt).unwrap()
}

fn codecs(kind: Kind) -> Vec<Codec> {
    let video = kind == Kind::Video;
    vec![Codec {
        pt: if video { 96 } else { 111 },
        rtx_pt: video.then_some(97),
        kind: if video { CodecKind::Vp8 } else { CodecKind::Opus },
        identity: if video { "vp8" } else { "opus" }.into(),
        clock_rate_hz: if video { 90_000 } else { 48_000 },
        nack: video,
        pli: video,
        fir: false,
        transport_cc: true,
        remb: false,
        ccfb: false,
        reduced_size: false,
    }]
}

fn subscribe(id: u32, kind: Kind, peer: u32) -> Command {
    Command::Subscribe {
        peer: PeerId(peer),
        subscription: SubscriptionId(100 * id + peer),
        kind,
        mid: "s".into(),
        codecs: codecs(kind),
        extensions: IDS,
        ssrc: 1000 * id + peer,
        rtx_ssrc: 10_000 * id + peer,
        first_seq: 1,
        as_sent: false,
        publication: Some(PublicationId(id)),
        preferences: Preferences::default(),
    }
}

/// Another worker, with as many subscribers again.
struct Away {
    worker: Worker,
    egress: Egress,
    datagrams: usize,
}

impl Away {
    const HERE: WorkerId = WorkerId(1);

    fn new(bench: &mut Bench, gather: Duration) -> Self {
        let mut worker = Worker::new(WorkerConfig { hash_seed: [3, 4], gather, stun: true });
        let mut egress = Egress::default();
        let mut command = |command| {
            worker.on_command(bench.now, command, &mut egress).unwrap();
            egress.clear();
        };
        command(Command::CreateScope { scope: SCOPE });
        for id in 1..=SUBSCRIBERS {
            let peer = PeerId(id);
            command(Command::AddFixedPeer { scope: SCOPE, peer, path: path(id) });
            command(Command::SetKeys { peer, keys: keys(id) });
        }
        for (id, kind) in [(1, Kind::Video), (2, Kind::Audio)] {
            command(Command::Mirror {
                scope: SCOPE,
                publication: PublicationId(id),
                origin: WorkerId(0),
                publisher: PeerId(0),
                kind,
                codecs: codecs(kind),
                extensions: IDS,
                encodings: vec![Encoding::default()],
                muted: false,
                as_sent: false,
            });
            (1..=SUBSCRIBERS).for_each(|peer| command(subscribe(id, kind, peer)));
        }
        for id in [1, 2] {
            let publication = PublicationId(id);
            bench.command(Command::StartMirroring { publication, to: Self::HERE });
        }
        Self { worker, egress, datagrams: 0 }
    }

    /// Takes over what the origin has for it, and forwards that. Returns the allocations.
    fn carry(&mut self, bench: &mut Bench) -> u64 {
        let Self { worker, egress, datagrams } = self;
        let now = bench.now;
        let mut send = |egress: &mut Egress| {
            *datagrams += egress.len();
            egress.clear();
        };
        allocations(|| {
            while let Some((to, mut parcel)) = bench.worker.poll_mirrored() {
                assert_eq!(to, Self::HERE);
                worker.on_mirrored(now, WorkerId(0), &mut parcel, egress, &mut send);
                bench.worker.reuse(parcel);
            }
            worker.forward(now, egress, &mut send);
            send(egress);
        })
    }
}

impl Bench {
    fn new(gather: Duration) -> Self {
        let mut bench = Self {
            worker: Worker::new(WorkerConfig { hash_seed: [1, 2], gather, stun: true }),
            egress: Egress::default(),
            now: Now::default(),
            publisher: theirs(0),
            subscriber: theirs(1),
            seqs: [100, 200],
            transport_seq: 0,
            told: 1,
            frames: 0,
            datagrams: 0,
        };
        bench.command(Command::CreateScope { scope: SCOPE });
        for id in 0..=SUBSCRIBERS {
            let peer = PeerId(id);
            bench.command(Command::AddFixedPeer { scope: SCOPE, peer, path: path(id) });
            bench.command(Command::SetKeys { peer, keys: keys(id) });
        }
        for (id, kind, ssrc) in [(1, Kind::Video, VIDEO_SSRC), (2, Kind::Audio, AUDIO_SSRC)] {
            bench.command(Command::Publish {
                peer: PeerId(0),
                publication: PublicationId(id),
                kind,
                mid: id.to_string(),
                codecs: codecs(kind),
                extensions: IDS,
                encodings: vec![Encoding { rid: String::new(), ssrc, rtx_ssrc: 0 }],
                muted: false,
                report_ssrc: 900 + id,
            });
            for peer in 1..=SUBSCRIBERS {
                bench.command(subscribe(id, kind, peer));
            }
        }
        bench
    }

    fn command(&mut self, command: Command) {
        self.worker.on_command(self.now, command, &mut self.egress).unwrap();
        self.egress.clear();
    }

    fn advance(&mut self, by: Duration) {
        self.now.at = self.now.at + by;
        self.now.ntp += ((by.as_nanos() << 32) / 1_000_000_000) as u64;
    }

    /// One media packet as it comes from the network, in `room`; its length.
    fn packet(&mut self, video: bool, first: bool, last: bool, room: &mut [u8]) -> usize {
        let seq = &mut self.seqs[usize::from(!video)];
        *seq = seq.wrapping_add(1);
        let header = rtp::HeaderBuilder {
            marker: last,
            pt: if video { 96 } else { 111 },
            seq: *seq,
            timestamp: self.frames * if video { 3000 } else { 960 },
            ssrc: if video { VIDEO_SSRC } else { AUDIO_SSRC },
            padding: false,
        };
        self.transport_seq = self.transport_seq.wrapping_add(1);
        let transport = self.transport_seq.to_be_bytes();
        let mid = if video { b"1" } else { b"2" };
        let elements =
            [(IDS.mid, &mid[..]), (IDS.transport_cc, &transport), (IDS.audio_level, &[3])];
        let start = header.write(&[], elements, room).unwrap();
        let len = if video { 1000 + usize::from(*seq % 2) } else { 90 };
        // A VP8 descriptor with a picture id; every hundredth frame is a key frame.
        let key = self.frames.is_multiple_of(100);
        let picture = (self.frames as u16 & 0x7fff | 0x8000).to_be_bytes();
        let descriptor =
            [if first { 0x90 } else { 0x80 }, 0x80, picture[0], picture[1], u8::from(!key)];
        room[start..start + len].fill(7);
        room[start..start + 5].copy_from_slice(&descriptor);
        self.publisher.protect_rtp(room, start + len).unwrap()
    }

    fn take(&mut self, from: u32, bytes: &mut [u8]) {
        let meta = Meta { path: path(from), at: self.now.at, ecn: 0 };
        self.worker.on_datagram(self.now, meta, bytes, &mut self.egress);
        if self.worker.is_due(self.now.at) {
            let datagrams = &mut self.datagrams;
            self.worker.forward(self.now, &mut self.egress, |egress| {
                *datagrams += egress.len();
                egress.clear();
            });
        }
        self.datagrams += self.egress.len();
        self.egress.clear();
    }

    /// Ten packets of video and one of sound; every tenth frame a subscriber misses packets, and each time it says when they
    /// arrived. Returns the allocations of
    /// taking them in and sending them out.
    fn frame(&mut self) -> u64 {
        let mut allocated = 0;
        let mut room = [0; 2048];
        for at in 0..11 {
            let len = self.packet(at < 10, at == 0, at >= 9, &mut room);
            allocated += allocations(|| self.take(0, &mut room[..len]));
            self.advance(Duration::from_micros(20));
        }
        if self.frames % 10 == 9 {
            let mut report = rtcp::Writer::new(&mut room);
            report.receiver_report(77, &[]).unwrap();
            let newest = (1 + self.frames * 10) as u16;
            report.nack(77, 1001, [newest.wrapping_sub(3), newest.wrapping_sub(5)]).unwrap();
            let len = report.len();
            let len = self.subscriber.protect_rtcp(&mut room, len).unwrap();
            allocated += allocations(|| self.take(1, &mut room[..len]));
        }
        // It tells when all of that arrived.
        let sent = if self.frames % 10 == 9 { 13 } else { 11 };
        let at_us = self.now.at.0 / 1000;
        let arrivals: [_; 13] =
            std::array::from_fn(|n| Arrival { seq: self.told.wrapping_add(n as u16), at_us });
        self.told = self.told.wrapping_add(sent);
        let mut report = rtcp::Writer::new(&mut room);
        report.transport_cc(77, 1001, self.frames as u8, &arrivals[..sent.into()]).unwrap();
        let len = report.len();
        let len = self.subscriber.protect_rtcp(&mut room, len).unwrap();
        allocated += allocations(|| self.take(1, &mut room[..len]));
        self.frames += 1;
        self.advance(Duration::from_millis(33));
        self.worker.on_timeout(self.now, &mut self.egress);
        self.egress.clear();
        while self.worker.poll_event().is_some() {}
        allocated
    }
}

#[test]
fn media_goes_through_without_an_allocation() {
    for gather in [Duration::ZERO, Duration::from_micros(500)] {
        let mut bench = Bench::new(gather);
        for _ in 0..300 {
            bench.frame();
        }
        bench.datagrams = 0;
        let allocated: u64 = (0..1000).map(|_| bench.frame()).sum();
        let estimation = bench.worker.statistics().estimation;
        assert!(estimation.told > 14_000 && estimation.ignored == 0, "{estimation:?}");
        // 11 packets to 20 subscribers, and 100 times two again.
        assert_eq!(bench.datagrams, 1000 * 11 * SUBSCRIBERS as usize + 200);
        assert_eq!(allocated, 0, "over 11,000 packets, gathering for {gather:?}");
    }
}

#[test]
fn media_goes_to_another_worker_without_an_allocation() {
    for gather in [Duration::ZERO, Duration::from_micros(500)] {
        let mut bench = Bench::new(gather);
        let mut away = Away::new(&mut bench, gather);
        for _ in 0..300 {
            bench.frame();
            away.carry(&mut bench);
        }
        away.datagrams = 0;
        let allocated: u64 = (0..1000).map(|_| bench.frame() + away.carry(&mut bench)).sum();
        assert_eq!(away.datagrams, 1000 * 11 * SUBSCRIBERS as usize);
        assert_eq!(allocated, 0, "over 11,000 packets, gathering for {gather:?}");
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))), 1);
    assert_eq!(allocations(|| {}), 0);
}
