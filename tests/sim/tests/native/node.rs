//! The node of a run: the simulator's relay, and as much of a control plane as the link needs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Event, Extensions, IceCredentials, Kind, PeerId,
    Preferences, PublicationId, SubscriptionId,
};
use strait_core::limits::RELAY_SSRCS;
use strait_core::port::{Meta, Path, Protocol};
use strait_core::time::{Instant, Now};
use strait_core::worker::WorkerConfig;
use strait_crypt::srtp::{Profile, SharedKey};
use strait_lab::rng::Rng;
use strait_link::v1::{self, client_message, endpoint, server_message, user_event};
use strait_link::{Frames, MESSAGE_BYTES, encode};
use strait_sim::control::SCOPE;
use strait_sim::relay::Relay;
use strait_sim::world::ntp;
use strait_wire::ext;

pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8443);
const OPUS: u8 = 111;

/// A session. It keeps its place when its client comes back.
struct Session {
    peer: PeerId,
    link: Option<usize>,
    frames: Frames,
    here: bool,
    name: String,
    /// Where the relay reaches it.
    path: Option<Path>,
    /// With its SSRC.
    publications: Vec<(v1::Publication, u32)>,
    ice: [v1::IceCredentials; 2],
}

pub struct Node {
    relay: Relay,
    sessions: Vec<Session>,
    links: BTreeMap<usize, usize>,
    endpoints: Vec<v1::Endpoint>,
    rng: Rng,
    ssrc: u32,
    names: u32,
    /// The two who send to one another, and where they are.
    pair: Option<[(usize, SocketAddr); 2]>,
    due: Option<Instant>,
    /// For the links.
    pub told: Vec<(usize, Vec<u8>)>,
    pub faults: Vec<String>,
}

impl Node {
    pub fn new(rng: Rng, link_alone: bool, moves: Option<Duration>) -> Self {
        use endpoint::Protocol::{Tls, Udp};
        let protocols: &[_] = if link_alone { &[Udp] } else { &[Udp, Tls] };
        let endpoint = |protocol: &endpoint::Protocol| v1::Endpoint {
            protocol: (*protocol).into(),
            purpose: endpoint::Purpose::Any.into(),
            address: String::new(),
            port: ADDRESS.port().into(),
        };
        let config = WorkerConfig { hash_seed: [3, 5], gather: Duration::ZERO, stun: true };
        let mut relay = Relay::new(config, 32, moves);
        relay.ask(Command::CreateScope { scope: SCOPE });
        Self {
            relay,
            sessions: Vec::new(),
            links: BTreeMap::new(),
            endpoints: protocols.iter().map(endpoint).collect(),
            rng,
            ssrc: 1000,
            names: 0,
            pair: None,
            due: Some(Instant(0)),
            told: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// The kernel took a packet in, from a socket or a connection.
    pub fn arrive(&mut self, now: Duration, protocol: Protocol, from: SocketAddr, bytes: Vec<u8>) {
        let at = instant(now);
        let path = Path { protocol, ..Path::udp(ADDRESS.ip(), from) };
        self.relay.arrive(Meta { path, at, ecn: 0 }, bytes);
        self.due = Some(at);
    }

    /// A turn of the relay, if one is due. Returns what it sends.
    pub fn turn(&mut self, now: Duration) -> Vec<(Path, Vec<u8>)> {
        let at = instant(now);
        let mut sent = Vec::new();
        while self.due.is_some_and(|due| due <= at) {
            let turn = self.relay.turn(Now { at, ntp: ntp(at) });
            sent.extend(turn.sent);
            self.faults.extend(turn.faults);
            self.faults.extend(turn.refused.iter().map(|(what, why)| format!("{why}: {what}")));
            self.due = turn.until.map(|until| if until <= at { at } else { until });
            turn.events.into_iter().for_each(|event| self.on_event(event));
            if turn.idle {
                self.due = self.due.map(|due| due.max(at + Duration::from_micros(1)));
            }
        }
        sent
    }

    pub fn link_bytes(&mut self, now: Duration, link: usize, bytes: &[u8]) {
        let mut frames = match self.links.get(&link) {
            Some(at) => std::mem::take(&mut self.sessions[*at].frames),
            None => Frames::new(),
        };
        frames.push(bytes);
        while let Some(message) = frames.next(MESSAGE_BYTES).expect("a frame") {
            self.on_message(link, message);
        }
        if let Some(at) = self.links.get(&link) {
            self.sessions[*at].frames = frames;
        }
        self.due = Some(instant(now));
    }

    pub fn link_lost(&mut self, link: usize) {
        if let Some(at) = self.links.remove(&link)
            && self.sessions[at].link == Some(link)
        {
            self.sessions[at].link = None;
        }
    }

    /// Whoever has this link leaves.
    pub fn leave(&mut self, now: Duration, link: usize) {
        let Some(at) = self.links.get(&link).copied() else { return };
        self.sessions[at].here = false;
        let (peer_id, publications) = (name(at), self.sessions[at].publications.clone());
        for (publication, _) in publications {
            let publication_id = publication.publication_id;
            let ended = v1::StreamEnded { peer_id: peer_id.clone(), publication_id };
            self.tell_others(at, &user_event::Body::Ended(ended));
        }
        let left = v1::Left { peer_id, reason: "it left".into() };
        self.tell_others(at, &user_event::Body::Left(left));
        self.relay.ask(Command::RemovePeer { peer: self.sessions[at].peer });
        self.due = Some(instant(now));
        self.link_lost(link);
        self.settle();
    }

    /// What is left behind when everybody left.
    pub fn peers(&self) -> usize {
        self.sessions.iter().filter(|session| session.here).count()
    }

    fn on_event(&mut self, event: Event) {
        let of = |sessions: &[Session], peer| sessions.iter().position(|s| s.peer == peer);
        match event {
            Event::PeerConnected { peer, path } | Event::PeerMoved { peer, path } => {
                if let Some(at) = of(&self.sessions, peer) {
                    self.sessions[at].path = Some(path);
                    self.settle();
                }
            }
            Event::PeerLeft { peer, detail, .. } => {
                let at = of(&self.sessions, peer);
                if at.is_some_and(|at| self.sessions[at].here) {
                    self.faults.push(format!("the relay gave {peer:?} up: {detail}"));
                }
            }
            _ => {}
        }
    }

    /// Offers the direct way to exactly two, as control does (`control/src/scope/direct.rs`).
    fn settle(&mut self) {
        let here = |(_, session): &(usize, &Session)| session.here;
        let place = |(at, session): (usize, &Session)| {
            let path = session.path.filter(|path| path.protocol == Protocol::Udp);
            (at, path.map(|path| path.remote))
        };
        let all: Vec<_> = self.sessions.iter().enumerate().filter(here).map(place).collect();
        let wanted = match all[..] {
            [(one, Some(a)), (other, Some(b))] => Some([(one, a), (other, b)]),
            _ => None,
        };
        if self.pair == wanted {
            return;
        }
        let before = std::mem::replace(&mut self.pair, wanted);
        let Some([one, other]) = wanted else {
            for (at, _) in before.into_iter().flatten() {
                let ended = v1::DirectEnded { reason: "there are no two over UDP".into() };
                self.tell(at, 0, server_message::Body::DirectEnded(ended));
            }
            return;
        };
        let ice = [(); 2].map(|()| credentials(&mut self.rng, "d"));
        for (n, (own, far)) in [(one, other), (other, one)].into_iter().enumerate() {
            let direct = v1::Direct {
                peer_id: name(far.0),
                endpoints: vec![far.1.to_string()],
                remote_ice: Some(ice[1 - n].clone()),
                local_ice: Some(ice[n].clone()),
                controlling: n == 0,
                wanted: None,
            };
            self.tell(own.0, 0, server_message::Body::Direct(direct));
        }
    }

    fn on_message(&mut self, link: usize, message: v1::ClientMessage) {
        use client_message::Body;
        let request = message.request;
        if let Some(Body::Auth(auth)) = &message.body {
            return self.on_auth(link, request, auth);
        }
        let Some(at) = self.links.get(&link).copied() else { return };
        match message.body.expect("a body") {
            Body::Publish(publish) => self.publish(at, request, &publish),
            Body::Subscribe(subscribe) => self.subscribe(at, request, &subscribe),
            Body::Ping(ping) => {
                self.tell(at, 0, server_message::Body::Pong(v1::Pong { token: ping.token }));
            }
            _ => self.tell(at, request, server_message::Body::Done(v1::Done {})),
        }
    }

    fn on_auth(&mut self, link: usize, request: u32, auth: &v1::Auth) {
        let before = auth.session_id.parse::<usize>().ok();
        let resumed = before.filter(|at| self.sessions[*at].here);
        let at = resumed.unwrap_or_else(|| self.join(auth.name.clone()));
        self.links.insert(link, at);
        let session = &mut self.sessions[at];
        (session.link, session.frames) = (Some(link), Frames::new());
        let [node_ice, client_ice] = session.ice.clone().map(Some);
        let peers = self.sessions.iter().enumerate().filter(|(n, s)| *n != at && s.here);
        let authenticated = v1::Authenticated {
            session_id: at.to_string(),
            peer_id: name(at),
            resumed: resumed.is_some(),
            key: Some(v1::SessionKey {
                profile: v1::SrtpProfile::AeadAes128Gcm.into(),
                key: vec![7; 16],
                salt: vec![7; 12],
            }),
            rtcp_ssrc: 10 + at as u32,
            endpoints: self.endpoints.clone(),
            node_ice,
            client_ice,
            codecs: vec![v1::Codec {
                kind: v1::Kind::Audio.into(),
                name: "opus".into(),
                payload_type: OPUS.into(),
                clock_rate_hz: 48_000,
                channels: 2,
                ..v1::Codec::default()
            }],
            extensions: vec![v1::HeaderExtension { id: 3, uri: ext::TRANSPORT_CC.into() }],
            peers: peers.map(|(n, session)| view(n, session)).collect(),
            limits: Some(v1::Limits {
                message_bytes: 65_536,
                publications: 4,
                subscriptions: 100,
                unconfirmed_messages: 64,
            }),
            reconnect_ms: 10_000,
            ping_ms: 2_000,
            messages_gone: 0,
            messages_uncertain: false,
        };
        self.tell(at, request, server_message::Body::Authenticated(authenticated));
        if resumed.is_none() {
            let joined = view(at, &self.sessions[at]);
            self.tell_others(at, &user_event::Body::Joined(joined));
            self.settle();
        } else if self.pair.is_some_and(|pair| pair.iter().any(|(n, _)| *n == at)) {
            // What it was told may have been lost with the link: both are told anew.
            self.pair = None;
            self.settle();
        }
    }

    fn join(&mut self, name: String) -> usize {
        let peer = PeerId(self.draw());
        let ice = ["n", "c"].map(|tag| credentials(&mut self.rng, tag));
        let [local, remote] =
            ice.clone().map(|ice| IceCredentials { ufrag: ice.ufrag, pwd: ice.pwd });
        self.relay.ask(Command::AddPeer { scope: SCOPE, peer, local, remote });
        let profile = Profile::AeadAes128Gcm;
        let key = SharedKey { profile, key: vec![7; 16], salt: vec![7; 12] };
        self.relay.ask(Command::ShareKey { peer, key });
        let (link, path, publications) = Default::default();
        let frames = Frames::new();
        self.sessions.push(Session {
            peer,
            link,
            frames,
            here: true,
            name,
            path,
            publications,
            ice,
        });
        self.sessions.len() - 1
    }

    fn publish(&mut self, at: usize, request: u32, publish: &v1::Publish) {
        self.ssrc += 1;
        let (number, ssrc) = (self.draw(), self.ssrc);
        let publication = v1::Publication {
            publication_id: number.to_string(),
            kind: publish.kind,
            codec: publish.codec.clone(),
            ..v1::Publication::default()
        };
        self.relay.ask(Command::Publish {
            peer: self.sessions[at].peer,
            publication: PublicationId(number),
            kind: Kind::Audio,
            mid: String::new(),
            codecs: vec![codec()],
            extensions: extensions(),
            encodings: vec![Encoding { rid: String::new(), ssrc, rtx_ssrc: 0 }],
            muted: false,
            report_ssrc: RELAY_SSRCS + 4 * number,
        });
        self.sessions[at].publications.push((publication.clone(), ssrc));
        let encodings = vec![v1::Encoding { ssrc, rtx_ssrc: 0 }];
        let published = v1::Published { publication_id: number.to_string(), encodings };
        self.tell(at, request, server_message::Body::Published(published));
        let (peer_id, publication) = (name(at), Some(publication));
        let started = v1::StreamStarted { peer_id, publication };
        self.tell_others(at, &user_event::Body::Started(started));
    }

    fn subscribe(&mut self, at: usize, request: u32, wanted: &v1::Subscribe) {
        let v1::Subscribe { publication_id, as_sent, .. } = wanted;
        let here = self.sessions.iter().filter(|session| session.here);
        let mut all = here.flat_map(|session| &session.publications);
        let found = all.find(|(publication, _)| publication.publication_id == *publication_id);
        let Some(ssrc) = found.map(|(_, ssrc)| *ssrc) else {
            let code = v1::ErrorCode::NotFound.into();
            let error = v1::Error { code, reason: "it is gone".into(), retry_ms: 0 };
            return self.tell(at, request, server_message::Body::Error(error));
        };
        let number = self.draw();
        self.relay.ask(Command::Subscribe {
            peer: self.sessions[at].peer,
            subscription: SubscriptionId(number),
            kind: Kind::Audio,
            mid: String::new(),
            codecs: vec![codec()],
            extensions: extensions(),
            ssrc: RELAY_SSRCS + 4 * number,
            rtx_ssrc: RELAY_SSRCS + 4 * number + 1,
            first_seq: 100,
            as_sent: *as_sent,
            publication: publication_id.parse().ok().map(PublicationId),
            preferences: Preferences::default(),
        });
        let subscribed = v1::Subscribed {
            subscription_id: number.to_string(),
            ssrc: if *as_sent { ssrc } else { RELAY_SSRCS + 4 * number },
            rtx_ssrc: 0,
            encodings: vec![v1::Encoding { ssrc, rtx_ssrc: 0 }],
            payload_type: OPUS.into(),
        };
        self.tell(at, request, server_message::Body::Subscribed(subscribed));
    }

    fn tell_others(&mut self, from: usize, body: &user_event::Body) {
        for to in (0..self.sessions.len()).filter(|to| *to != from) {
            let event = v1::UserEvent { body: Some(body.clone()) };
            self.tell(to, 0, server_message::Body::Event(event));
        }
    }

    fn tell(&mut self, at: usize, request: u32, body: server_message::Body) {
        let Some(link) = self.sessions[at].link.filter(|_| self.sessions[at].here) else { return };
        let mut bytes = Vec::new();
        encode(&v1::ServerMessage { request, body: Some(body) }, &mut bytes);
        self.told.push((link, bytes));
    }

    fn draw(&mut self) -> u32 {
        self.names += 1;
        self.names
    }
}

fn instant(at: Duration) -> Instant {
    Instant(0) + at
}

fn name(at: usize) -> String {
    format!("peer{at}")
}

fn view(at: usize, session: &Session) -> v1::Peer {
    let publications = session.publications.iter().map(|(publication, _)| publication.clone());
    v1::Peer { peer_id: name(at), name: session.name.clone(), publications: publications.collect() }
}

fn credentials(rng: &mut Rng, tag: &str) -> v1::IceCredentials {
    v1::IceCredentials { ufrag: format!("{tag}{}", rng.ice_chars(8)), pwd: rng.ice_chars(24) }
}

fn codec() -> Codec {
    Codec {
        pt: OPUS,
        rtx_pt: None,
        kind: CodecKind::Opus,
        identity: "opus/48000/2".into(),
        clock_rate_hz: 48_000,
        nack: false,
        pli: false,
        fir: false,
        transport_cc: true,
        remb: false,
        ccfb: false,
        reduced_size: false,
    }
}

fn extensions() -> Extensions {
    Extensions { transport_cc: 3, ..Extensions::default() }
}
