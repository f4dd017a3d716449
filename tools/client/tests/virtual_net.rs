//! Clients and a fake node on a network in virtual time, with lines that lose, and that are cut.

use crate::encoder::Encoder;
use crate::fake_node::{FakeNode, Out, VP8};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use strait_client::Error;
use strait_client::core::client::{Client, Config, Event, Handle, Output};
use strait_client::core::media::Payload;
use strait_client::core::path::Random;
use strait_client::core::resolver::{Cluster, Place, Resolver};
use strait_client::core::sending::Frame;
use strait_client::core::uplink::Target;
use strait_lab::link::{Bottleneck, Conditions, Queue};
use strait_lab::pipe::Pipe;
use strait_lab::rng::Rng;
use strait_link::encode;
use strait_link::v1::{self, auth::Credential, client_message, endpoint, user_event};

pub struct Seeded(Rng);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

enum Delivery {
    ToNode(usize, Vec<u8>),
    ToClient(usize, usize, Vec<u8>),
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    LinkUp(usize, usize),
    /// A CnC's answer to a member.
    Resolved(usize, Result<Place, Error>),
    /// Connections for framed media are numbered like links.
    MediaUp(usize, usize),
    MediaToNode(usize, Vec<u8>),
    MediaToClient(usize, Vec<u8>),
}

pub struct Member {
    pub client: Client<Seeded>,
    pub events: Vec<(Duration, Event)>,
    /// Where it connected to.
    pub hosts: Vec<String>,
    link: Option<usize>,
    media: Option<usize>,
    address: SocketAddr,
    pub voice: Option<Handle>,
    camera: Option<Handle>,
    /// What its encoder of pictures is to keep to.
    pub target: Option<Target>,
    /// A real one; by itself a member sends as many bits as it may.
    pub encoder: Option<Encoder>,
    key_wanted: bool,
    shown_at: Duration,
    /// Pictures that came, packet by packet, where they are to be kept.
    pub keeps: bool,
    pub seen: Vec<(Duration, Payload)>,
    counter: u32,
    /// Counters of others' frames, in the order in which they came.
    pub heard: Vec<(Duration, u32)>,
    /// What came straight from the other one.
    pub direct: Vec<Duration>,
}

pub struct World {
    pub now: Duration,
    pub node: FakeNode,
    /// The node at `other.example`.
    pub other: FakeNode,
    /// Links to that one.
    to_other: HashSet<usize>,
    /// The first node answers nothing at all.
    pub dead: bool,
    /// What CnCs answer: nothing, a refusal, or a node.
    pub cncs: HashMap<String, Option<&'static str>>,
    /// Who was asked what.
    pub asked: Vec<(Duration, String, String)>,
    /// Applications subscribe to what they saw at first alone.
    pub once: bool,
    pub members: Vec<Member>,
    queue: BTreeMap<(Duration, u64), Delivery>,
    order: u64,
    rng: Rng,
    links: usize,
    /// UDP of the node.
    pub udp_blocked: bool,
    /// These UDP ports of the node.
    pub ports_blocked: Vec<u16>,
    pub direct_blocked: bool,
    /// New links are refused.
    pub node_away: bool,
    /// Links to this host are.
    pub away: Option<String>,
    /// Links go over QUIC, where UDP gets through.
    pub quic: bool,
    over_quic: HashSet<usize>,
    /// Connections for framed media are refused.
    pub media_refused: bool,
    /// Whoever comes is sent there.
    pub circle: Option<v1::Redirect>,
    /// Share of datagrams lost.
    pub loss: f64,
    /// What goes directly from the first member to the second goes over it, where it is there.
    line: Option<Pipe<(SocketAddr, SocketAddr, Vec<u8>)>>,
    /// When something came over it, and for how long it had waited there.
    pub waited: Vec<(Duration, Duration)>,
}

const NODE: [u8; 4] = [10, 0, 0, 100];
const OTHER: [u8; 4] = [10, 0, 0, 101];
/// Ports of a node that has them.
pub const AUDIO: u16 = 5000;
pub const VIDEO: u16 = 5002;
const LINE: Duration = Duration::from_millis(20);
const VOICE: Duration = Duration::from_millis(20);
const PICTURE: Duration = Duration::from_millis(40);

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn place(protocol: endpoint::Protocol, purpose: endpoint::Purpose, port: u16) -> v1::Endpoint {
    let (protocol, purpose) = (protocol.into(), purpose.into());
    v1::Endpoint { protocol, purpose, address: String::new(), port: port.into() }
}

/// What a member's NAT makes of its port towards a port of the node: each another one.
fn mapped(from: SocketAddr, to: SocketAddr) -> SocketAddr {
    let is_further = to.ip() == IpAddr::from(NODE) && to.port() != 8443;
    SocketAddr::new(from.ip(), from.port() + if is_further { to.port() } else { 0 })
}

impl World {
    pub fn new(seed: u64) -> Self {
        let endpoint = place(endpoint::Protocol::Udp, endpoint::Purpose::Any, 8443);
        Self {
            now: Duration::ZERO,
            other: FakeNode::another(vec![endpoint.clone()]),
            node: FakeNode::new(vec![endpoint]),
            to_other: HashSet::new(),
            dead: false,
            cncs: HashMap::new(),
            asked: Vec::new(),
            once: false,
            members: Vec::new(),
            queue: BTreeMap::new(),
            order: 0,
            rng: Rng::new(seed),
            links: 0,
            udp_blocked: false,
            ports_blocked: Vec::new(),
            direct_blocked: false,
            node_away: false,
            away: None,
            quic: false,
            over_quic: HashSet::new(),
            media_refused: false,
            circle: None,
            loss: 0.0,
            line: None,
            waited: Vec::new(),
        }
    }

    /// A member publishes pictures too, as many bits as it is told.
    pub fn film(&mut self, at: usize) {
        let (kind, codec) = (v1::Kind::Video.into(), "VP8".into());
        let publish = v1::Publish { kind, codec, ..v1::Publish::default() };
        self.members[at].camera = Some(self.members[at].client.publish(publish).unwrap());
        self.outputs(at);
    }

    /// The direct way from the first member to the second carries so much, and a second of that waits at most.
    pub fn narrow(&mut self, rate_bps: u64) {
        let queue = Queue::Time(ms(1000));
        let bottleneck = Some(Bottleneck { rate_bps, queue });
        let conditions = Conditions { delay: LINE, bottleneck, ..Conditions::CLEAR };
        match &mut self.line {
            Some(line) => line.change(self.now, conditions),
            None => self.line = Some(Pipe::new(conditions, self.rng.fork(1000))),
        }
    }

    /// A node that takes framed media.
    pub fn with_framed_media(seed: u64) -> Self {
        let endpoints = [endpoint::Protocol::Udp, endpoint::Protocol::Tls];
        let endpoints = endpoints.map(|protocol| place(protocol, endpoint::Purpose::Any, 8443));
        Self { node: FakeNode::new(endpoints.to_vec()), ..Self::new(seed) }
    }

    /// A node with ports for sound and for pictures, one for both, and two that firewalls know.
    pub fn with_ports(seed: u64) -> Self {
        use endpoint::{Protocol, Purpose};
        let ports = [
            (Purpose::Audio, AUDIO),
            (Purpose::Video, VIDEO),
            (Purpose::Any, 8443),
            (Purpose::Any, 3478),
            (Purpose::Any, 443),
        ];
        let udp = ports.map(|(purpose, port)| place(Protocol::Udp, purpose, port));
        let endpoints = [&udp[..], &[place(Protocol::Tls, Purpose::Any, 8443)]].concat();
        Self { node: FakeNode::new(endpoints), ..Self::new(seed) }
    }

    /// Breaks a member's connection for framed media.
    pub fn break_media(&mut self, at: usize) {
        self.members[at].media.take().expect("it has one");
        self.members[at].client.on_media_lost(self.now);
        self.outputs(at);
    }

    pub fn has_media(&self, at: usize) -> bool {
        self.members[at].media.is_some()
    }

    pub fn join(&mut self) -> usize {
        self.join_by("node.example", None)
    }

    /// Asks these CnCs for its node.
    pub fn join_cluster(&mut self, cncs: &[&str]) -> usize {
        let resolvers = cncs.iter().map(|cnc| Resolver::parse(&format!("https://{cnc}")).unwrap());
        let resolvers = resolvers.collect();
        let (application_id, region) = (String::new(), String::new());
        self.join_by("", Some(Cluster { resolvers, application_id, region }))
    }

    fn join_by(&mut self, host: &str, cluster: Option<Cluster>) -> usize {
        let at = self.members.len();
        let config = Config {
            host: host.into(),
            port: 8443,
            credential: Credential::Token("token".into()),
            scope_id: "room".into(),
            name: format!("member {at}"),
            client: "test/1".into(),
            profiles: Vec::new(),
            relay_only: false,
            cluster,
        };
        let mut client = Client::new(config, Seeded(self.rng.fork(at as u64)));
        let publish = v1::Publish {
            kind: v1::Kind::Audio.into(),
            codec: "opus".into(),
            ..v1::Publish::default()
        };
        client.publish(publish).unwrap();
        self.members.push(Member {
            client,
            events: Vec::new(),
            hosts: Vec::new(),
            link: None,
            media: None,
            address: SocketAddr::from(([10, 0, 0, 1 + at as u8], 5000)),
            voice: None,
            camera: None,
            target: None,
            encoder: None,
            key_wanted: true,
            shown_at: Duration::ZERO,
            keeps: false,
            seen: Vec::new(),
            counter: 0,
            heard: Vec::new(),
            direct: Vec::new(),
        });
        at
    }

    /// Breaks a member's link.
    pub fn break_link(&mut self, at: usize) {
        if let Some(link) = self.members[at].link.take() {
            self.of_link(link).link_lost(link);
            self.members[at].client.on_link_lost(self.now, Error::LinkLost);
        }
    }

    fn of_link(&mut self, link: usize) -> &mut FakeNode {
        if self.to_other.contains(&link) { &mut self.other } else { &mut self.node }
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            // Everybody who can speaks every 20 ms.
            let spoken = self.now.as_millis().is_multiple_of(VOICE.as_millis());
            for at in 0..self.members.len() {
                if spoken {
                    self.say(at);
                }
                if self.now.as_millis().is_multiple_of(PICTURE.as_millis()) {
                    self.show(at);
                }
                let member = &mut self.members[at];
                if member.client.due().is_some_and(|due| due <= self.now) {
                    member.client.on_time(self.now);
                }
                self.outputs(at);
            }
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let delivery = entry.remove();
                self.deliver(delivery);
            }
            while let Some((waited, (from, to, bytes))) =
                self.line.as_mut().and_then(|line| line.pop(self.now))
            {
                self.waited.push((self.now, waited));
                self.deliver(Delivery::Datagram { from, to, bytes });
            }
            self.now += ms(1);
        }
    }

    /// A frame of a member's voice, if it is published.
    pub fn say(&mut self, at: usize) {
        let member = &mut self.members[at];
        if let Some(voice) = member.voice {
            let payload = member.counter.to_be_bytes();
            let timestamp = member.counter.wrapping_mul(960);
            let frame = Frame { payload: &payload, timestamp, marker: false, level: None };
            member.counter += 1;
            let _away = member.client.send(self.now, voice, 0, &frame);
        }
        self.outputs(at);
    }

    /// A picture of a member's camera, if that is published.
    fn show(&mut self, at: usize) {
        let Some((camera, target)) = self.members[at].camera.zip(self.members[at].target) else {
            return;
        };
        let member = &mut self.members[at];
        let passed = self.now - member.shown_at;
        let picture = match &mut member.encoder {
            None => vec![0; (target.bitrate_bps as u128 * PICTURE.as_millis() / 8000) as usize],
            // 24 a second are every 40 ms here, 15 every 80 ms.
            Some(_) if passed + PICTURE / 2 < Duration::from_secs(1) / target.frames_per_second => {
                return;
            }
            Some(encoder) => {
                member.shown_at = self.now;
                let key = std::mem::take(&mut member.key_wanted);
                encoder.encode(target, passed.as_millis().min(1000) as u32, key)
            }
        };
        let timestamp = (self.now.as_millis() * 90) as u32;
        let mut parts = picture.chunks(1100).peekable();
        while let Some(payload) = parts.next() {
            let marker = parts.peek().is_none();
            let frame = Frame { payload, timestamp, marker, level: None };
            let _away = self.members[at].client.send(self.now, camera, 0, &frame);
        }
        self.outputs(at);
    }

    fn deliver(&mut self, delivery: Delivery) {
        let [node, other] = [NODE, OTHER].map(IpAddr::from);
        match delivery {
            Delivery::LinkUp(at, link) => {
                self.members[at].link = Some(link);
                let ip = if self.to_other.contains(&link) { other } else { node };
                if self.quic && !self.udp_blocked {
                    self.over_quic.insert(link);
                    self.members[at].client.on_link_over_udp(self.now, ip);
                } else {
                    self.members[at].client.on_link(self.now, Some(ip));
                }
                self.outputs(at);
            }
            Delivery::Resolved(at, answer) => {
                self.members[at].client.on_resolved(self.now, answer);
                self.outputs(at);
            }
            Delivery::MediaUp(at, media) => {
                self.members[at].media = Some(media);
                self.members[at].client.on_media(self.now);
                self.outputs(at);
            }
            Delivery::MediaToNode(media, bytes) => {
                if self.members.iter().any(|member| member.media == Some(media)) {
                    self.node.framed(media, &bytes);
                }
            }
            Delivery::MediaToClient(media, bytes) => {
                let at = self.members.iter().position(|member| member.media == Some(media));
                if let Some(at) = at {
                    self.members[at].client.on_media_packet(self.now, bytes);
                    self.outputs(at);
                }
            }
            Delivery::ToNode(link, _) if self.dead && !self.to_other.contains(&link) => {}
            Delivery::ToNode(link, _) | Delivery::ToClient(_, link, _)
                if self.udp_blocked && self.over_quic.contains(&link) => {}
            Delivery::ToNode(link, bytes) => {
                if self.members.iter().any(|member| member.link == Some(link)) {
                    self.of_link(link).link_bytes(link, &bytes);
                }
            }
            Delivery::ToClient(at, link, bytes) => {
                if self.members[at].link == Some(link) {
                    self.members[at].client.on_link_bytes(self.now, &bytes);
                    self.outputs(at);
                }
            }
            Delivery::Datagram { to, .. } if to.ip() == node && self.dead => {}
            Delivery::Datagram { from, to, bytes } if to.ip() == node => {
                self.node.datagram(to.port(), mapped(from, to), &bytes)
            }
            Delivery::Datagram { from, to, bytes } if to.ip() == other => {
                self.other.datagram(to.port(), from, &bytes);
            }
            Delivery::Datagram { from, to, bytes } => {
                let at =
                    self.members.iter().position(|member| member.address.ip() == to.ip()).unwrap();
                let is_relayed = [node, other].contains(&from.ip());
                if !is_relayed && bytes[0] & 0xc0 == 0x80 && bytes[1] < 192 {
                    self.members[at].direct.push(self.now);
                }
                self.members[at].client.on_datagram(self.now, from, bytes);
                self.outputs(at);
            }
        }
        let outs = [(node, &mut self.node), (other, &mut self.other)].map(|(from, node)| {
            std::mem::take(&mut node.out).into_iter().map(move |out| (from, out))
        });
        for (from, out) in outs.into_iter().flatten() {
            match out {
                Out::Link(link, bytes) => {
                    let at = self.members.iter().position(|member| member.link == Some(link));
                    if let Some(at) = at {
                        self.push(Delivery::ToClient(at, link, bytes));
                    }
                }
                Out::Datagram(port, to, bytes) => {
                    self.datagram(SocketAddr::new(from, port), to, bytes);
                }
                Out::Framed(media, bytes) => self.push(Delivery::MediaToClient(media, bytes)),
                Out::Close(link) => self.of_link(link).link_lost(link),
            }
        }
    }

    fn outputs(&mut self, at: usize) {
        while let Some(output) = self.members[at].client.poll() {
            match output {
                Output::Connect { host, .. } => {
                    self.members[at].hosts.push(host.clone());
                    if self.node_away || self.away.as_ref() == Some(&host) {
                        self.members[at].client.on_link_lost(self.now, Error::LinkLost);
                        continue;
                    }
                    if self.circle.is_some() {
                        let is_other = host == "other.example";
                        let node = if is_other { &mut self.other } else { &mut self.node };
                        node.redirect.clone_from(&self.circle);
                    }
                    self.links += 1;
                    if host == "other.example" {
                        self.to_other.insert(self.links);
                    } else if self.dead {
                        // Nobody answers, and nobody says so.
                        continue;
                    }
                    // QUIC is waited for before TLS is opened.
                    let quic = if self.quic && self.udp_blocked { ms(800) } else { ms(0) };
                    self.push_after(quic, Delivery::LinkUp(at, self.links));
                }
                Output::Resolve(question) => {
                    let cnc = question.resolver.place.host;
                    self.asked.push((self.now, cnc.clone(), question.target));
                    let answer = self
                        .cncs
                        .get(&cnc)
                        .map(|answer| answer.and_then(Place::parse).ok_or(Error::LinkLost));
                    if let Some(answer) = answer {
                        self.push(Delivery::Resolved(at, answer));
                    }
                }
                Output::CloseLink => {
                    if let Some(link) = self.members[at].link.take() {
                        self.of_link(link).link_lost(link);
                    }
                }
                Output::Link(bytes) => {
                    if let Some(link) = self.members[at].link {
                        self.push(Delivery::ToNode(link, bytes));
                    }
                }
                Output::LinkMedia(packet) => {
                    if let Some(link) = self.members[at].link {
                        let body = Some(client_message::Body::Media(v1::Media { packet }));
                        let mut bytes = Vec::new();
                        encode(&v1::ClientMessage { request: 0, body }, &mut bytes);
                        self.push(Delivery::ToNode(link, bytes));
                    }
                }
                Output::OpenMedia { .. }
                    if self.media_refused
                        || self.members[at]
                            .link
                            .is_some_and(|link| self.over_quic.contains(&link)) =>
                {
                    self.members[at].client.on_media_lost(self.now);
                }
                Output::OpenMedia { .. } => {
                    self.links += 1;
                    self.push(Delivery::MediaUp(at, self.links));
                }
                Output::CloseMedia => self.members[at].media = None,
                Output::Media(bytes) => {
                    let media = self.members[at].media.expect("it is open");
                    self.push(Delivery::MediaToNode(media, bytes));
                }
                Output::Datagram(to, bytes) => {
                    let from = self.members[at].address;
                    self.datagram(from, to, bytes);
                }
                Output::Event(event) => self.on_event(at, event),
            }
        }
    }

    fn on_event(&mut self, at: usize, event: Event) {
        let member = &mut self.members[at];
        let mut wanted = Vec::new();
        match &event {
            Event::Published { handle, .. } if member.camera != Some(*handle) => {
                member.voice = Some(*handle);
            }
            Event::Target(target) => member.target = Some(*target),
            Event::Joined { resumed: false, peers, .. } => {
                let all = peers.iter().flat_map(|peer| &peer.publications);
                wanted.extend(all.map(|one| one.publication_id.clone()));
            }
            Event::Scope(user_event::Body::Started(started)) => {
                wanted.extend(started.publication.iter().map(|one| one.publication_id.clone()));
            }
            Event::KeyFrameWanted { .. } => member.key_wanted = true,
            Event::Payload(payload) if u32::from(payload.payload_type) == VP8 => {
                if member.keeps {
                    member.seen.push((self.now, payload.clone()));
                }
                return;
            }
            Event::Payload(payload) => {
                let counter = payload.payload.as_slice().try_into().map(u32::from_be_bytes);
                member.heard.push((self.now, counter.unwrap()));
                return;
            }
            _ => {}
        }
        let moved = |(_, event): &(Duration, Event)| matches!(event, Event::LinkLost { .. });
        if self.once && member.events.iter().any(moved) {
            wanted.clear();
        }
        for id in wanted {
            member.client.subscribe(&id, true).unwrap();
        }
        member.events.push((self.now, event));
    }

    fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let nodes = [NODE, OTHER].map(IpAddr::from);
        let ends = [from, to];
        let of_node = ends.iter().find(|end| nodes.contains(&end.ip()));
        let blocked = match of_node {
            Some(end) => self.udp_blocked || self.ports_blocked.contains(&end.port()),
            None => self.direct_blocked,
        };
        let is_direct = from == self.members[0].address && of_node.is_none();
        if let Some(line) = self.line.as_mut().filter(|_| is_direct) {
            line.push(self.now, bytes.len(), (from, to, bytes));
        } else if !blocked && !self.rng.chance(self.loss) {
            self.push(Delivery::Datagram { from, to, bytes });
        }
    }

    fn push(&mut self, delivery: Delivery) {
        self.push_after(Duration::ZERO, delivery);
    }

    fn push_after(&mut self, wait: Duration, delivery: Delivery) {
        self.order += 1;
        self.queue.insert((self.now + wait + LINE, self.order), delivery);
    }
}

impl Member {
    /// When its media went which way.
    pub fn transports(&self) -> Vec<(Duration, v1::transport_report::State)> {
        let changes = self.events.iter().filter_map(|(at, event)| match event {
            Event::Transport(state) => Some((*at, *state)),
            _ => None,
        });
        changes.collect()
    }

    pub fn transport(&self) -> v1::transport_report::State {
        self.transports().last().map(|(_, state)| *state).unwrap_or_default()
    }

    /// Counters that did not come between the first and the last that came since; and that none came twice.
    pub fn lost_since(&self, since: Duration) -> u32 {
        let heard = self.heard.iter().filter(|(at, _)| *at >= since);
        let mut heard: Vec<u32> = heard.map(|(_, counter)| *counter).collect();
        heard.sort_unstable();
        let doubles = heard.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!(doubles, 0, "frames that came twice");
        let (first, last) = (heard[0], *heard.last().unwrap());
        last + 1 - first - heard.len() as u32
    }
}
