//! Peers made by hand, for tests of the whole worker: what they send and what they get, packet by packet.

use crate::command::{
    Codec, CodecKind, Command, Encoding, Event, Extensions, IceCredentials, Kind, PeerId,
    Preferences, PublicationId, ScopeId, SubscriptionId,
};
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::port::{Meta, Path};
use crate::time::{Duration, Instant, Now};
use crate::worker::{Worker, WorkerConfig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use strait_crypt::StunKey;
use strait_crypt::srtp::{Inbound, Outbound, Profile, SessionKeys};
use strait_wire::rtcp::{self, Arrival};
use strait_wire::{rtp, stun};

/// The only scope.
pub(crate) const SCOPE: ScopeId = ScopeId(1);
/// Extension ids of all legs.
pub(crate) const IDS: Extensions = Extensions {
    mid: 1,
    rid: 2,
    repaired_rid: 3,
    audio_level: 4,
    abs_send_time: 5,
    transport_cc: 6,
    playout_delay: 7,
    video_orientation: 8,
    dependency_descriptor: 9,
};
/// Payload types of the publishers' legs; the subscribers' are 10 more.
pub(crate) const VP8: u8 = 96;
/// RTX of [`VP8`].
pub(crate) const VP8_RTX: u8 = 97;
/// Opus.
pub(crate) const OPUS: u8 = 98;

/// A worker with its clock and egress.
pub(crate) struct Bench {
    pub(crate) worker: Worker,
    pub(crate) egress: Egress,
    pub(crate) now: Now,
}

/// What came out of the worker.
pub(crate) struct Sent {
    pub(crate) path: Path,
    pub(crate) bytes: Vec<u8>,
}

impl Bench {
    /// With an empty scope.
    pub(crate) fn new() -> Self {
        Self::gathering(Duration::ZERO)
    }

    /// With an empty scope, whose open frames are held for so long.
    pub(crate) fn gathering(gather: Duration) -> Self {
        let mut bench = Self {
            worker: Worker::new(WorkerConfig { hash_seed: [3, 5], gather, stun: true }),
            egress: Egress::default(),
            now: Now::default(),
        };
        bench.advance(Duration::from_secs(1000));
        bench.command(Command::CreateScope { scope: SCOPE });
        bench
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.worker.on_command(self.now, command, &mut self.egress).expect("accepted");
    }

    /// Lets time pass without looking.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now.at = self.now.at + by;
        self.now.ntp += ((by.as_nanos() << 32) / 1_000_000_000) as u64;
    }

    /// Lets time pass with every timer rung when it is due.
    pub(crate) fn run(&mut self, by: Duration) {
        let end = self.now.at + by;
        while let Some(at) = self.worker.next_timeout().filter(|at| *at <= end) {
            self.advance(at.since(self.now.at));
            let full = self.worker.on_timeout(self.now, &mut self.egress);
            assert!(full || self.worker.next_timeout().is_none_or(|next| next > self.now.at));
        }
        self.advance(end.since(self.now.at));
    }

    /// Hands a datagram over as if it came by `path`.
    pub(crate) fn receive(&mut self, path: Path, bytes: &[u8]) {
        let meta = Meta { path, at: self.now.at, ecn: 0 };
        self.worker.on_datagram(self.now, meta, &mut bytes.to_vec(), &mut self.egress);
    }

    /// All that was queued since the last time.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let sent =
            self.egress.iter().map(|(path, bytes)| Sent { path, bytes: bytes.to_vec() }).collect();
        self.egress.clear();
        sent
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.worker.drops.of(reason)
    }

    /// That exactly one packet more was dropped by `act`, for this reason.
    #[track_caller]
    pub(crate) fn drops(&mut self, reason: DropReason, act: impl FnOnce(&mut Self)) {
        let before = *self.worker.drops();
        act(self);
        for (each, (before, after)) in
            DropReason::ALL.iter().zip(before.iter().zip(self.worker.drops()))
        {
            let expected = u64::from(*each == reason);
            assert_eq!(after - before, expected, "dropped for {}", each.name());
        }
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.worker.poll_event()).collect()
    }
}

/// The far side of a peer.
pub(crate) struct Client {
    pub(crate) id: PeerId,
    pub(crate) path: Path,
    pub(crate) local: IceCredentials,
    profile: Profile,
    outbound: Outbound,
    inbound: Inbound,
    transactions: u8,
    /// How often it told when packets came.
    told: u8,
}

/// A path from this port of the loopback.
pub(crate) fn path(port: u16) -> Path {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Path::udp(ip, SocketAddr::new(ip, port))
}

fn material(id: u32, len: usize, what: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8) ^ what ^ (id as u8).wrapping_mul(37)).collect()
}

impl Client {
    /// A peer that was added, and nothing more.
    pub(crate) fn added(bench: &mut Bench, id: u32) -> Self {
        let profile = Profile::AeadAes128Gcm;
        let local = IceCredentials {
            ufrag: format!("aaUser{id}"),
            pwd: format!("password-of-the-relay-{id}"),
        };
        let remote = IceCredentials { ufrag: format!("peer{id}"), pwd: "x".repeat(24) };
        let command =
            Command::AddPeer { scope: SCOPE, peer: PeerId(id), local: local.clone(), remote };
        bench.command(command);
        let keys = Self::keys_of(id, profile);
        Self {
            id: PeerId(id),
            path: path(10_000 + id as u16),
            local,
            profile,
            outbound: Outbound::new(profile, &keys.remote_key, &keys.remote_salt).unwrap(),
            inbound: Inbound::new(profile, &keys.local_key, &keys.local_salt).unwrap(),
            transactions: 0,
            told: 0,
        }
    }

    /// A peer with a nominated path and keys.
    pub(crate) fn connected(bench: &mut Bench, id: u32) -> Self {
        let mut client = Self::added(bench, id);
        client.check(bench);
        bench.command(client.set_keys());
        bench.sent();
        client
    }

    fn keys_of(id: u32, profile: Profile) -> SessionKeys {
        SessionKeys {
            profile,
            local_key: material(id, profile.key_len(), 1),
            local_salt: material(id, profile.salt_len(), 2),
            remote_key: material(id, profile.key_len(), 3),
            remote_salt: material(id, profile.salt_len(), 4),
        }
    }

    pub(crate) fn set_keys(&self) -> Command {
        Command::SetKeys { peer: self.id, keys: Self::keys_of(self.id.0, self.profile) }
    }

    /// An ICE check as a browser sends it.
    pub(crate) fn request(&mut self, pwd: &str, controlled: bool, nominates: bool) -> Vec<u8> {
        self.transactions += 1;
        let key = StunKey::new(pwd.as_bytes());
        let mut out = vec![0; 200];
        let mut request = stun::Builder::binding_request(&mut out, [self.transactions; 12])
            .username(self.local.ufrag.as_bytes(), b"them")
            .priority(1);
        request = if controlled { request.ice_controlled(7) } else { request.ice_controlling(7) };
        if nominates {
            request = request.use_candidate();
        }
        let len = request.integrity(|parts| key.sign(parts)).fingerprint().finish().unwrap();
        out.truncate(len);
        out
    }

    /// Checks and nominates its path.
    pub(crate) fn check(&mut self, bench: &mut Bench) {
        let request = self.request(&self.local.pwd.clone(), false, true);
        bench.receive(self.path, &request);
    }

    /// Sends an RTP packet.
    pub(crate) fn send(&mut self, bench: &mut Bench, packet: &[u8]) {
        let bytes = self.protect(packet);
        bench.receive(self.path, &bytes);
    }

    pub(crate) fn protect(&mut self, packet: &[u8]) -> Vec<u8> {
        self.try_protect(packet).expect("a number not used before")
    }

    /// Makes room for another SSRC on the far side.
    pub(crate) fn retire(&mut self, ssrc: u32) {
        self.outbound.retire(ssrc).expect("in use");
    }

    pub(crate) fn try_protect(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = packet.to_vec();
        bytes.resize(packet.len() + 16, 0);
        let len = self.outbound.protect_rtp(&mut bytes, packet.len()).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }

    /// Sends an RTCP compound.
    pub(crate) fn send_rtcp(
        &mut self,
        bench: &mut Bench,
        write: impl FnOnce(&mut rtcp::Writer<'_>),
    ) {
        let mut bytes = vec![0; 1500];
        let mut writer = rtcp::Writer::new(&mut bytes);
        write(&mut writer);
        let len = writer.len();
        self.send_raw_rtcp(bench, &bytes[..len]);
    }

    /// Tells when packets came (transport-wide feedback).
    pub(crate) fn tell(&mut self, bench: &mut Bench, arrivals: &[Arrival]) {
        let count = self.told;
        self.told = count.wrapping_add(1);
        self.send_rtcp(bench, |rtcp| {
            rtcp.transport_cc(1, 1010, count, arrivals).unwrap();
        });
    }

    /// Sends what may not be RTCP, but is protected as such.
    pub(crate) fn send_raw_rtcp(&mut self, bench: &mut Bench, compound: &[u8]) {
        let mut bytes = compound.to_vec();
        bytes.resize(compound.len() + 32, 0);
        let len = self.outbound.protect_rtcp(&mut bytes, compound.len()).unwrap();
        bench.receive(self.path, &bytes[..len]);
    }

    /// The RTP and RTCP among `sent` that are for this peer, decrypted.
    pub(crate) fn open(&mut self, sent: &[Sent]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut media, mut reports) = (Vec::new(), Vec::new());
        for datagram in sent.iter().filter(|datagram| datagram.path == self.path) {
            let mut bytes = datagram.bytes.clone();
            if (192..=223).contains(&bytes[1]) {
                let len = self.inbound.unprotect_rtcp(&mut bytes).expect("opens");
                bytes.truncate(len);
                reports.push(bytes);
            } else if bytes[0] >= 128 {
                let len = self.inbound.unprotect_rtp(&mut bytes).expect("opens, and is no replay");
                bytes.truncate(len);
                media.push(bytes);
            }
        }
        (media, reports)
    }

    /// The media that was sent to this peer, and nothing else looked at.
    pub(crate) fn media(&mut self, bench: &mut Bench) -> Vec<Vec<u8>> {
        let sent = bench.sent();
        self.open(&sent).0
    }

    pub(crate) fn publish(&self, bench: &mut Bench, id: u32, kind: Kind, encodings: &[Encoding]) {
        bench.command(publish(self.id, id, kind, encodings));
    }

    pub(crate) fn subscribe(&self, bench: &mut Bench, id: u32, kind: Kind, to: Option<u32>) {
        bench.command(subscribe(self.id, id, kind, to));
    }
}

/// A publication with this number as MID.
pub(crate) fn publish(peer: PeerId, id: u32, kind: Kind, encodings: &[Encoding]) -> Command {
    Command::Publish {
        peer,
        publication: PublicationId(id),
        kind,
        mid: id.to_string(),
        codecs: codecs(kind, 0),
        extensions: IDS,
        encodings: encodings.to_vec(),
        muted: false,
        report_ssrc: 900 + id,
    }
}

/// A subscription with SSRC `1000 + id`, RTX `2000 + id` and first sequence number 100.
pub(crate) fn subscribe(peer: PeerId, id: u32, kind: Kind, to: Option<u32>) -> Command {
    Command::Subscribe {
        peer,
        subscription: SubscriptionId(id),
        kind,
        mid: format!("s{id}"),
        codecs: codecs(kind, 10),
        extensions: IDS,
        ssrc: 1000 + id,
        rtx_ssrc: 2000 + id,
        first_seq: 100,
        as_sent: false,
        publication: to.map(PublicationId),
        preferences: Preferences::default(),
    }
}

/// What every leg agrees on, with payload types moved.
pub(crate) fn codecs(kind: Kind, moved: u8) -> Vec<Codec> {
    let video = kind == Kind::Video;
    vec![Codec {
        pt: if video { VP8 } else { OPUS } + moved,
        rtx_pt: video.then_some(VP8_RTX + moved),
        kind: if video { CodecKind::Vp8 } else { CodecKind::Opus },
        identity: if video { "vp8/90000" } else { "opus/48000/2" }.into(),
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

/// One encoding signalled by SSRC.
pub(crate) fn encoding(ssrc: u32) -> Encoding {
    Encoding { rid: String::new(), ssrc, rtx_ssrc: ssrc + 1 }
}

/// An RTP packet.
pub(crate) fn packet(
    (ssrc, pt, seq, timestamp): (u32, u8, u16, u32),
    extensions: &[(u8, &[u8])],
    payload: &[u8],
) -> Vec<u8> {
    let header = rtp::HeaderBuilder { marker: true, pt, seq, timestamp, ssrc, padding: false };
    let mut out = vec![0; 200];
    let len = header.write(&[], extensions.iter().copied(), &mut out).unwrap();
    out.truncate(len);
    out.extend_from_slice(payload);
    out
}

/// A VP8 payload of one packet: picture id, TL0PICIDX, and whether it is a key frame.
pub(crate) fn vp8(picture: u16, tl0: u8, key_frame: bool) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    vec![0x90, 0xE0, high, low, tl0, 0x20, u8::from(!key_frame), 1, 2, 3, 4, 5]
}

/// The header of a packet, for assertions.
pub(crate) fn read(bytes: &[u8]) -> rtp::Packet<'_> {
    rtp::Packet::parse(bytes).expect("well-formed")
}

/// When a packet came, for [`Client::tell`]; `None` of one without a transport-wide number.
pub(crate) fn arrival(bytes: &[u8], at_us: u64) -> Option<Arrival> {
    let number = read(bytes).extension(IDS.transport_cc)?.try_into().ok()?;
    Some(Arrival { seq: u16::from_be_bytes(number), at_us })
}

/// The line of a peer that tells when packets came: a queue in it grows when it is to, so that it is believed to be full. From
/// then on a REMB below what went through says how much it carries.
#[derive(Default)]
pub(crate) struct Line {
    arrivals: Vec<Arrival>,
    told_at: Instant,
    pub(crate) queue: Duration,
}

impl Line {
    /// A packet came through it.
    pub(crate) fn carry(&mut self, now: Now, bytes: &[u8]) {
        let at = now.at + self.queue;
        self.arrivals.extend(arrival(bytes, at.0 / 1000));
    }

    /// The peer behind it tells what came, every 50 ms.
    pub(crate) fn tell(&mut self, bench: &mut Bench, client: &mut Client) {
        if bench.now.at.since(self.told_at) >= ms(50) && !self.arrivals.is_empty() {
            self.told_at = bench.now.at;
            client.tell(bench, &std::mem::take(&mut self.arrivals));
        }
    }
}

/// A point in time.
pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
