//! A call through the real worker: cameras and a microphone on a clear line, viewers behind lines of the lab, on a clock of
//! their own. The publishers do what the relay asks them for: key frames, and layers that stop and start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Event, Extensions, Kind, PeerId, Preferences,
    PublicationId, ScopeId, SubscriptionId,
};
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path};
use strait_core::time::{Instant, Now};
use strait_core::worker::{Worker, WorkerConfig};
use strait_wire::rtcp;
use strait_wire::rtp::HeaderBuilder;

use super::viewer::{TRANSPORT_CC, Viewer};

/// Layers of a camera, lowest first.
pub const LAYERS: usize = 3;
const VP8: u8 = 96;
const VP8_RTX: u8 = 97;
const OPUS: u8 = 98;
const SCOPE: ScopeId = ScopeId(1);
const PUBLISHER: PeerId = PeerId(1);
/// Viewers, publications and subscriptions have numbers that no other has.
const VIEWERS_FROM: u32 = 100;
const SOUND: u32 = 90;
/// The worker's clock when the lab's begins.
const BEGIN: Instant = Instant(1_000_000_000_000);
const TICK: Duration = Duration::from_millis(1);
const FRAME: Duration = Duration::from_millis(33);
const SOUND_EVERY: Duration = Duration::from_millis(20);
const SOUND_BYTES: usize = 80;
const PACKET_BYTES: usize = 1100;
/// A key frame is so many times as large as the others.
const KEY_FRAME: usize = 4;
/// From a request until a publisher does as it says.
const REACTS: Duration = Duration::from_millis(40);

/// What is sent.
pub struct Plan {
    /// Bits per second of each layer, camera by camera.
    pub cameras: Vec<[f64; LAYERS]>,
    /// Whether somebody speaks, 32 kbit/s.
    pub sound: bool,
}

/// The call.
pub struct Call {
    worker: Worker,
    egress: Egress,
    now: Now,
    /// Since the beginning.
    pub time: Duration,
    cameras: Vec<Camera>,
    sound: Option<Sound>,
    /// Who watches.
    pub viewers: Vec<Viewer>,
    /// When key frames were asked for, and of which stream.
    pub requests: Vec<(Duration, u32)>,
    /// Packets of sound that were sent.
    pub sounds: u64,
    /// What the publishers will do.
    orders: Vec<(Duration, Order)>,
    failure: Option<String>,
}

struct Camera {
    publication: PublicationId,
    layers: [Layer; LAYERS],
    next: Duration,
}

#[derive(Clone, Copy)]
struct Layer {
    ssrc: u32,
    bps: f64,
    seq: u16,
    picture: u16,
    active: bool,
    key_frame: bool,
}

#[derive(Default)]
struct Sound {
    seq: u16,
    next: Duration,
}

enum Order {
    KeyFrame(u32),
    Layers(PublicationId, u8),
}

impl Call {
    /// Who publishes is there, nobody watches.
    pub fn new(plan: &Plan) -> Self {
        let cameras = (1..).zip(&plan.cameras).map(|(n, rates)| Camera {
            publication: PublicationId(n),
            layers: std::array::from_fn(|at| Layer {
                ssrc: n * 10 + at as u32,
                bps: rates[at],
                seq: 1,
                picture: 0,
                active: true,
                key_frame: true,
            }),
            // Cameras do not beat in time.
            next: Duration::from_millis(u64::from(n) * 7 % 33),
        });
        let mut call = Self {
            worker: Worker::new(WorkerConfig::default()),
            egress: Egress::default(),
            now: Now { at: BEGIN, ntp: 0 },
            time: Duration::ZERO,
            cameras: cameras.collect(),
            sound: plan.sound.then(Sound::default),
            viewers: Vec::new(),
            requests: Vec::new(),
            sounds: 0,
            orders: Vec::new(),
            failure: None,
        };
        call.command(Command::CreateScope { scope: SCOPE });
        call.add_peer(PUBLISHER);
        for at in 0..call.cameras.len() {
            let camera = &call.cameras[at];
            let encodings = camera.layers.iter().enumerate().map(|(rid, layer)| Encoding {
                rid: rid.to_string(),
                ssrc: layer.ssrc,
                rtx_ssrc: 0,
            });
            let encodings = encodings.collect();
            call.publish(camera.publication, Kind::Video, encodings);
        }
        if plan.sound {
            let encodings = vec![Encoding { rid: String::new(), ssrc: SOUND, rtx_ssrc: 0 }];
            call.publish(PublicationId(SOUND), Kind::Audio, encodings);
        }
        call
    }

    /// Somebody comes and watches and hears everything.
    pub fn join(&mut self, make: impl FnOnce(Path) -> Viewer) {
        let number = VIEWERS_FROM * (1 + self.viewers.len() as u32);
        let peer = PeerId(number);
        let path = self.add_peer(peer);
        let mut publications: Vec<(PublicationId, Kind)> =
            self.cameras.iter().map(|camera| (camera.publication, Kind::Video)).collect();
        if self.sound.is_some() {
            publications.push((PublicationId(SOUND), Kind::Audio));
        }
        let mut viewer = make(path);
        (viewer.peer, viewer.joined) = (peer, self.time);
        self.viewers.push(viewer);
        for (publication, kind) in publications {
            let subscription = number + publication.0;
            self.command(Command::Subscribe {
                peer,
                subscription: SubscriptionId(subscription),
                kind,
                mid: publication.0.to_string(),
                codecs: codecs(kind, 10),
                extensions: Extensions { transport_cc: TRANSPORT_CC, ..Extensions::default() },
                ssrc: 100_000 + subscription,
                rtx_ssrc: 200_000 + subscription,
                first_seq: 100,
                as_sent: false,
                publication: Some(publication),
                preferences: Preferences::default(),
            });
        }
        self.drain();
    }

    /// Lets time pass, and calls `each` every millisecond.
    pub fn run(&mut self, until: Duration, mut each: impl FnMut(&mut Self)) -> Result<(), String> {
        while self.time < until {
            self.publish_due();
            self.pass();
            self.feed_back();
            self.time += TICK;
            each(self);
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// What the relay takes a viewer's line to carry, in bits per second.
    pub fn budget_bps(&self, viewer: usize) -> Option<u64> {
        let peer = self.viewers.get(viewer)?.peer;
        self.worker.peer_statistics(peer)?.budget_bps
    }

    fn command(&mut self, command: Command) {
        if let Err(error) = self.worker.on_command(self.now, command, &mut self.egress) {
            self.failure.get_or_insert_with(|| error.to_string());
        }
    }

    /// A peer whose packets are not encrypted.
    fn add_peer(&mut self, peer: PeerId) -> Path {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let remote = SocketAddr::new(ip, 10_000 + peer.0 as u16);
        let path = Path::udp(ip, remote);
        self.command(Command::AddFixedPeer { scope: SCOPE, peer, path });
        self.command(Command::SetPlain { peer });
        path
    }

    fn publish(&mut self, publication: PublicationId, kind: Kind, encodings: Vec<Encoding>) {
        self.command(Command::Publish {
            peer: PUBLISHER,
            publication,
            kind,
            mid: publication.0.to_string(),
            codecs: codecs(kind, 0),
            extensions: Extensions::default(),
            encodings,
            muted: false,
            report_ssrc: 50_000 + publication.0,
        });
    }

    /// What the publishers send in this millisecond.
    fn publish_due(&mut self) {
        let due = self.orders.extract_if(.., |(at, _)| *at <= self.time);
        for (_, order) in due {
            for camera in &mut self.cameras {
                camera.obey(&order);
            }
        }
        let mut packets = Vec::new();
        for camera in self.cameras.iter_mut().filter(|camera| camera.next <= self.time) {
            camera.next += FRAME;
            for layer in camera.layers.iter_mut().filter(|layer| layer.active) {
                layer.frame(self.time, &mut packets);
            }
        }
        if let Some(sound) = self.sound.as_mut().filter(|sound| sound.next <= self.time) {
            sound.next += SOUND_EVERY;
            sound.seq = sound.seq.wrapping_add(1);
            self.sounds += 1;
            let timestamp = self.time.as_millis() as u32 * 48;
            packets.push(packet((SOUND, OPUS, sound.seq, timestamp), true, &[7; SOUND_BYTES]));
        }
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let remote = SocketAddr::new(ip, 10_000 + PUBLISHER.0 as u16);
        let path = Path::udp(ip, remote);
        for mut bytes in packets {
            self.receive(path, &mut bytes);
        }
    }

    fn receive(&mut self, path: Path, bytes: &mut [u8]) {
        let meta = Meta { path, at: self.now.at, ecn: 0 };
        self.worker.on_datagram(self.now, meta, bytes, &mut self.egress);
        self.drain();
    }

    /// The worker's timers until the end of this millisecond.
    fn pass(&mut self) {
        let end = BEGIN + self.time + TICK;
        while let Some(due) = self.worker.next_timeout().filter(|due| *due <= end) {
            self.set(due.max(self.now.at));
            self.worker.on_timeout(self.now, &mut self.egress);
            self.drain();
        }
        self.set(end);
        while self.worker.poll_quality().is_some() {}
        while let Some(event) = self.worker.poll_event() {
            if let Event::LayersWanted { publication, encodings } = event {
                let order = Order::Layers(publication, encodings);
                self.orders.push((self.time + REACTS, order));
            }
        }
    }

    fn set(&mut self, at: Instant) {
        self.now.at = at;
        let passed = at.since(BEGIN);
        self.now.ntp = ((passed.as_nanos() << 32) / 1_000_000_000) as u64;
    }

    /// What the worker sent goes on its way.
    fn drain(&mut self) {
        let time = self.now.at.since(BEGIN);
        for (path, bytes) in self.egress.iter() {
            match self.viewers.iter_mut().find(|viewer| viewer.path == path) {
                Some(viewer) => viewer.carry(time, bytes),
                None => {
                    for packet in rtcp::packets(bytes) {
                        if let Ok(rtcp::Packet::Pli(pli)) = packet {
                            self.requests.push((time, pli.media_ssrc));
                            let order = Order::KeyFrame(pli.media_ssrc);
                            self.orders.push((time + REACTS, order));
                        }
                    }
                }
            }
        }
        self.egress.clear();
    }

    /// What viewers say about what arrived.
    fn feed_back(&mut self) {
        for at in 0..self.viewers.len() {
            let viewer = &mut self.viewers[at];
            viewer.receive(self.time);
            let path = viewer.path;
            for mut report in viewer.reports(self.time) {
                self.receive(path, &mut report);
            }
        }
    }
}

impl Camera {
    fn obey(&mut self, order: &Order) {
        for (at, layer) in self.layers.iter_mut().enumerate() {
            match order {
                Order::KeyFrame(ssrc) => layer.key_frame |= *ssrc == layer.ssrc,
                Order::Layers(publication, wanted) if *publication == self.publication => {
                    let active = wanted & (1 << at) != 0;
                    layer.key_frame |= active && !layer.active;
                    layer.active = active;
                }
                Order::Layers(..) => {}
            }
        }
    }
}

impl Layer {
    fn frame(&mut self, time: Duration, packets: &mut Vec<Vec<u8>>) {
        let mut left = (self.bps * FRAME.as_secs_f64() / 8.0) as usize;
        let key_frame = std::mem::take(&mut self.key_frame);
        if key_frame {
            left *= KEY_FRAME;
        }
        self.picture = self.picture.wrapping_add(1);
        let timestamp = time.as_millis() as u32 * 90;
        let mut begins = true;
        while begins || left > 0 {
            let bytes = left.min(PACKET_BYTES);
            left -= bytes;
            let payload = vp8(self.picture, begins, begins && key_frame, bytes);
            let header = (self.ssrc, VP8, self.seq, timestamp);
            packets.push(packet(header, left == 0, &payload));
            self.seq = self.seq.wrapping_add(1);
            begins = false;
        }
    }
}

fn packet(
    (ssrc, pt, seq, timestamp): (u32, u8, u16, u32),
    marker: bool,
    payload: &[u8],
) -> Vec<u8> {
    let header = HeaderBuilder { marker, pt, seq, timestamp, ssrc, padding: false };
    let mut bytes = vec![0; 64];
    let none: Option<(u8, &[u8])> = None;
    let length = header.write(&[], none, &mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes.extend_from_slice(payload);
    bytes
}

/// A descriptor with a picture number (RFC 7741 section 4.2), and something of a frame.
fn vp8(picture: u16, begins: bool, key_frame: bool, bytes: usize) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let first = if begins { 0x90 } else { 0x80 };
    let mut payload = vec![first, 0xE0, high, low, picture as u8, 0x20, u8::from(!key_frame)];
    payload.resize(bytes.max(payload.len() + 3), 7);
    payload
}

/// What every leg agrees on, with payload types moved.
fn codecs(kind: Kind, moved: u8) -> Vec<Codec> {
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

/// Whether a packet towards a viewer is sound.
pub fn is_sound(pt: u8) -> bool {
    pt == OPUS + 10
}

/// Whether a packet towards a viewer is a picture's, sent for the first time.
pub fn is_picture(pt: u8) -> bool {
    pt == VP8 + 10
}
