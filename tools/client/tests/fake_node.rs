//! Not a node: as much of one as the client's tests need, without a socket. It lets everybody in, answers checks, and
//! passes on what comes as it came.

use std::collections::HashMap;
use std::net::SocketAddr;
use strait_crypt::hmac_sha1;
use strait_link::v1::endpoint::{Protocol, Purpose};
use strait_link::v1::{self, client_message, server_message, user_event};
use strait_link::{Frames, MESSAGE_BYTES, encode};
use strait_wire::demux::{Kind, classify};
use strait_wire::{ext, stun};

pub const OPUS: u32 = 111;
pub const VP8: u32 = 96;
const PASSWORD: &str = "0123456789012345678901";

/// What it wants sent.
#[derive(Debug)]
pub enum Out {
    Link(usize, Vec<u8>),
    /// From this port of the node.
    Datagram(u16, SocketAddr, Vec<u8>),
    /// By this connection for framed media.
    Framed(usize, Vec<u8>),
    Close(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At this port of the node.
    Udp(u16, SocketAddr),
    Link,
    Framed(usize),
}

#[derive(Default)]
pub struct Peer {
    frames: Frames,
    /// Whose link is up: a client that comes again takes over its peer.
    pub link: Option<usize>,
    pub auths: Vec<v1::Auth>,
    pub publications: Vec<v1::Publication>,
    pub subscriptions: Vec<String>,
    pub taken: u64,
    pub unseen: Vec<v1::MessageReceived>,
    pub sent: u64,
    pub nominated: Option<Way>,
    /// Where pictures go instead.
    pub pictures: Option<Way>,
    /// At which ports of the node its sound and its pictures came last.
    pub came_to: [u16; 2],
    pub reports: Vec<v1::transport_report::State>,
    /// Where it was heard from.
    pub address: Option<SocketAddr>,
    places: Vec<SocketAddr>,
    pub media_packets: u64,
    /// How often its transport was lost: each has credentials of its own.
    transport: usize,
    /// It is not told yet.
    media_lost: bool,
}

#[derive(Default)]
pub struct FakeNode {
    pub peers: Vec<Peer>,
    frames: HashMap<usize, Frames>,
    links: HashMap<usize, usize>,
    /// Whose each connection for framed media is.
    framed: HashMap<usize, usize>,
    endpoints: Vec<v1::Endpoint>,
    ssrc: u32,
    /// Sessions are forgotten: nobody resumes.
    pub forgetful: bool,
    /// What the next `Auth`s are refused with, the last one first.
    pub refuse: Vec<v1::Error>,
    pub redirect: Option<v1::Redirect>,
    /// It takes no messages: it reads them later.
    pub slow: bool,
    /// Messages for who comes back are lost with the process before this one: which ended in order, or not.
    pub lost_in_order: Option<bool>,
    /// What its session key is made of.
    fill: u8,
    pub out: Vec<Out>,
}

fn key(fill: u8) -> v1::SessionKey {
    let profile = v1::SrtpProfile::AeadAes128Gcm.into();
    v1::SessionKey { profile, key: vec![fill; 16], salt: vec![fill; 12] }
}

fn ice(ufrag: String) -> v1::IceCredentials {
    v1::IceCredentials { ufrag, pwd: PASSWORD.into() }
}

impl Peer {
    /// What its transport's user fragments end with.
    fn ufrag(&self, at: usize) -> String {
        format!("{at}x{}", self.transport)
    }

    /// All goes there.
    fn nominate(&mut self, way: Way) {
        (self.nominated, self.pictures) = (Some(way), None);
    }
}

fn is_picture(bytes: &[u8]) -> bool {
    classify(bytes) == Kind::Rtp && u32::from(bytes[1] & 127) == VP8
}

impl FakeNode {
    pub fn new(endpoints: Vec<v1::Endpoint>) -> Self {
        Self { endpoints, ssrc: 1000, fill: 7, ..Self::default() }
    }

    /// Another node: with another key, and other streams.
    pub fn another(endpoints: Vec<v1::Endpoint>) -> Self {
        Self { endpoints, ssrc: 5000, fill: 8, ..Self::default() }
    }

    pub fn link_bytes(&mut self, link: usize, bytes: &[u8]) {
        self.frames.entry(link).or_default().push(bytes);
        while let Some(message) =
            self.frames.get_mut(&link).unwrap().next(MESSAGE_BYTES).expect("a frame")
        {
            self.on_message(link, message);
        }
    }

    pub fn link_lost(&mut self, link: usize) {
        self.frames.remove(&link);
        if let Some(peer) = self.links.remove(&link)
            && self.peers[peer].link == Some(link)
        {
            self.peers[peer].link = None;
        }
    }

    /// The relay forgets a client that has no link now. When it comes back it has another transport at once.
    pub fn lose_media(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        assert_eq!(peer.link, None);
        (peer.nominated, peer.pictures, peer.address) = (None, None, None);
        peer.places.clear();
        peer.publications.clear();
        peer.subscriptions.clear();
        peer.transport += 1;
        peer.media_lost = true;
    }

    pub fn datagram(&mut self, port: u16, from: SocketAddr, bytes: &[u8]) {
        if classify(bytes) == Kind::Stun {
            if let Some((at, nominates, answer)) = self.check(from, bytes) {
                let purpose = self.purpose(port);
                let peer = &mut self.peers[at];
                peer.address = Some(from);
                peer.places.push(from);
                let way = Some(Way::Udp(port, from));
                match purpose {
                    _ if !nominates => {}
                    Purpose::Audio => peer.nominated = way,
                    Purpose::Video => peer.pictures = way,
                    Purpose::Any => (peer.nominated, peer.pictures) = (way, None),
                }
                self.out.push(Out::Datagram(port, from, answer));
            }
        } else if let Some(peer) = self.peers.iter().position(|peer| peer.places.contains(&from)) {
            if classify(bytes) == Kind::Rtp {
                self.peers[peer].came_to[usize::from(is_picture(bytes))] = port;
            }
            self.forward(peer, bytes);
        }
    }

    fn purpose(&self, port: u16) -> Purpose {
        let is_it = |endpoint: &&v1::Endpoint| endpoint.port == u32::from(port);
        let mut endpoints = self.endpoints.iter().filter(|e| e.protocol() == Protocol::Udp);
        endpoints.find(is_it).map(v1::Endpoint::purpose).unwrap_or_default()
    }

    /// Tells one of them another session key.
    pub fn tell_key(&mut self, at: usize, fill: u8) {
        self.tell(at, 0, server_message::Body::KeyChanged(key(fill)));
    }

    /// Tells one of them what was taken over.
    pub fn tell_taken(&mut self, at: usize, taken: v1::MessagesTaken) {
        self.tell(at, 0, server_message::Body::MessagesTaken(taken));
    }

    /// Tells one of them what was lost with who it was for.
    pub fn tell_lost(&mut self, at: usize, lost: v1::MessagesLost) {
        self.tell(at, 0, server_message::Body::MessagesLost(lost));
    }

    /// Tells one of them what the other one takes of it.
    pub fn tell_wanted(&mut self, at: usize, publications: &[&str]) {
        let publication_ids = publications.iter().map(ToString::to_string).collect();
        let wanted = v1::DirectWanted { publication_ids };
        self.tell(at, 0, server_message::Body::DirectWanted(wanted));
    }

    /// Tells one of them that its subscription ended.
    pub fn end_subscription(&mut self, at: usize, subscription: &str) {
        let subscription_ids = vec![subscription.to_owned()];
        let ended = v1::SubscriptionsEnded { subscription_ids };
        self.tell(at, 0, server_message::Body::SubscriptionsEnded(ended));
    }

    /// A packet of a connection for framed media, the first of which is a check.
    pub fn framed(&mut self, connection: usize, bytes: &[u8]) {
        if classify(bytes) == Kind::Stun {
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let (peer, nominates, answer) = self.check(nowhere, bytes).unwrap();
            self.framed.insert(connection, peer);
            if nominates {
                self.peers[peer].nominate(Way::Framed(connection));
            }
            self.out.push(Out::Framed(connection, answer));
        } else {
            let peer = *self.framed.get(&connection).expect("a check comes first");
            self.forward(peer, bytes);
        }
    }

    /// There are exactly two: each is told where the other is.
    pub fn offer_direct(&mut self) {
        for (at, other) in [(0, 1), (1, 0)] {
            let direct = v1::Direct {
                peer_id: format!("peer{other}"),
                endpoints: self.peers[other].address.iter().map(ToString::to_string).collect(),
                remote_ice: Some(ice(format!("direct{other}"))),
                local_ice: Some(ice(format!("direct{at}"))),
                controlling: at == 0,
                wanted: None,
            };
            self.tell(at, 0, server_message::Body::Direct(direct));
        }
    }

    pub fn end_direct(&mut self) {
        for at in [0, 1] {
            let ended = v1::DirectEnded { reason: "a third one came".into() };
            self.tell(at, 0, server_message::Body::DirectEnded(ended));
        }
    }

    fn on_message(&mut self, link: usize, message: v1::ClientMessage) {
        use client_message::Body;
        let request = message.request;
        if let Some(Body::Auth(auth)) = message.body {
            return self.on_auth(link, request, auth);
        }
        let at = self.links[&link];
        let done = server_message::Body::Done(v1::Done {});
        match message.body.expect("a body") {
            Body::Publish(publish) => {
                self.ssrc += 2;
                let (id, ssrc) = (format!("pub{}", self.ssrc), self.ssrc);
                let encodings = vec![v1::Encoding { ssrc, rtx_ssrc: 0 }];
                let publication = v1::Publication {
                    publication_id: id.clone(),
                    kind: publish.kind,
                    codec: publish.codec,
                    name: publish.name,
                    ..v1::Publication::default()
                };
                self.peers[at].publications.push(publication.clone());
                let published = v1::Published { publication_id: id, encodings };
                self.tell(at, request, server_message::Body::Published(published));
                let started = v1::StreamStarted {
                    peer_id: format!("peer{at}"),
                    publication: Some(publication),
                };
                self.tell_others(at, user_event::Body::Started(started));
            }
            Body::Subscribe(subscribe) => {
                let all = self.peers.iter().flat_map(|peer| &peer.publications);
                let id = subscribe.publication_id;
                let Some(ssrc) = all
                    .clone()
                    .find(|publication| publication.publication_id == id)
                    .map(|publication| publication.publication_id[3..].parse().unwrap())
                else {
                    let error = v1::Error {
                        code: v1::ErrorCode::NotFound.into(),
                        reason: "no such publication".into(),
                        retry_ms: 0,
                    };
                    return self.tell(at, request, server_message::Body::Error(error));
                };
                self.peers[at].subscriptions.push(id.clone());
                let subscribed = v1::Subscribed {
                    subscription_id: format!("sub-{id}"),
                    ssrc,
                    rtx_ssrc: 0,
                    encodings: vec![v1::Encoding { ssrc, rtx_ssrc: 0 }],
                    payload_type: OPUS,
                };
                self.tell(at, request, server_message::Body::Subscribed(subscribed));
            }
            Body::SendMessage(_) if self.slow => {}
            Body::SendMessage(message) => {
                if message.number == self.peers[at].taken + 1 {
                    self.peers[at].taken += 1;
                    for to in (0..self.peers.len()).filter(|to| *to != at) {
                        self.deliver(at, to, &message);
                    }
                }
                let number = self.peers[at].taken;
                let taken = v1::MessagesTaken { number, undelivered: Vec::new() };
                self.tell(at, 0, server_message::Body::MessagesTaken(taken));
            }
            Body::MessageSeen(seen) => {
                self.peers[at].unseen.retain(|message| message.number > seen.number);
            }
            Body::Media(media) if classify(&media.packet) == Kind::Stun => {
                let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                let Some((peer, nominates, packet)) = self.check(nowhere, &media.packet) else {
                    return;
                };
                if nominates {
                    self.peers[peer].nominate(Way::Link);
                }
                self.tell(at, 0, server_message::Body::Media(v1::Media { packet }));
            }
            Body::Media(media) => self.forward(at, &media.packet),
            Body::Ping(ping) => {
                self.tell(at, 0, server_message::Body::Pong(v1::Pong { token: ping.token }));
            }
            Body::TransportReport(report) => self.peers[at].reports.push(report.state()),
            Body::Leave(_) => self.out.push(Out::Close(link)),
            _ => self.tell(at, request, done),
        }
    }

    fn on_auth(&mut self, link: usize, request: u32, auth: v1::Auth) {
        let refuse = self.refuse.pop().map(server_message::Body::Error);
        let redirect = self.redirect.take().map(server_message::Body::Redirect);
        if let Some(body) = refuse.or(redirect) {
            let mut bytes = Vec::new();
            encode(&v1::ServerMessage { request, body: Some(body) }, &mut bytes);
            return self.out.push(Out::Link(link, bytes));
        }
        let session = auth.session_id.strip_prefix("session").map(|n| n.parse::<usize>().unwrap());
        let resumed = session.is_some() && !self.forgetful;
        let at = session.filter(|_| resumed).unwrap_or_else(|| {
            self.peers.push(Peer::default());
            self.peers.len() - 1
        });
        self.links.insert(link, at);
        self.peers[at].link = Some(link);
        self.peers[at].frames = Frames::new();
        let seen = auth.messages_seen;
        let gone = match self.lost_in_order {
            None => seen,
            Some(in_order) => {
                self.peers[at].unseen.clear();
                if in_order { self.peers[at].sent } else { seen }
            }
        };
        self.peers[at].auths.push(auth);
        let others = (0..self.peers.len()).filter(|other| *other != at);
        let peer = |(at, peer): (usize, &Peer)| v1::Peer {
            peer_id: format!("peer{at}"),
            name: peer.auths.first().map(|auth| auth.name.clone()).unwrap_or_default(),
            publications: peer.publications.clone(),
        };
        let peers = others.map(|other| peer((other, &self.peers[other]))).collect();
        let authenticated = v1::Authenticated {
            session_id: format!("session{at}"),
            peer_id: format!("peer{at}"),
            resumed,
            key: Some(key(self.fill)),
            rtcp_ssrc: 10 + at as u32,
            endpoints: self.endpoints.clone(),
            node_ice: Some(ice(format!("node{}", self.peers[at].ufrag(at)))),
            client_ice: Some(ice(format!("client{}", self.peers[at].ufrag(at)))),
            codecs: vec![
                v1::Codec {
                    kind: v1::Kind::Audio.into(),
                    name: "opus".into(),
                    payload_type: OPUS,
                    clock_rate_hz: 48_000,
                    channels: 2,
                    ..v1::Codec::default()
                },
                v1::Codec {
                    kind: v1::Kind::Video.into(),
                    name: "VP8".into(),
                    payload_type: VP8,
                    clock_rate_hz: 90_000,
                    ..v1::Codec::default()
                },
            ],
            extensions: vec![
                v1::HeaderExtension { id: 3, uri: ext::TRANSPORT_CC.into() },
                v1::HeaderExtension { id: 2, uri: ext::ABS_SEND_TIME.into() },
            ],
            peers,
            limits: Some(v1::Limits {
                message_bytes: 65_536,
                publications: 4,
                subscriptions: 100,
                unconfirmed_messages: 64,
            }),
            reconnect_ms: 10_000,
            ping_ms: 2_000,
            messages_gone: gone,
            messages_uncertain: self.lost_in_order == Some(false),
        };
        self.tell(at, request, server_message::Body::Authenticated(authenticated));
        if !resumed {
            let joined = peer((at, &self.peers[at]));
            self.tell_others(at, user_event::Body::Joined(joined));
        }
        if std::mem::take(&mut self.peers[at].media_lost) {
            let lost = v1::MediaLost { reason: "no check came".into() };
            let body = Some(user_event::Body::MediaLost(lost));
            self.tell(at, 0, server_message::Body::Event(v1::UserEvent { body }));
        }
        self.peers[at].unseen.retain(|message| message.number > seen);
        for message in self.peers[at].unseen.clone() {
            self.tell(at, 0, server_message::Body::Message(message));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: &v1::SendMessage) {
        self.peers[to].sent += 1;
        let received = v1::MessageReceived {
            number: self.peers[to].sent,
            from: format!("peer{from}"),
            payload: message.payload.clone(),
            text: message.text,
            direct: !message.to.is_empty(),
        };
        self.peers[to].unseen.push(received.clone());
        self.tell(to, 0, server_message::Body::Message(received));
    }

    /// Whose check it is, whether it nominates, and the answer.
    fn check(&self, from: SocketAddr, bytes: &[u8]) -> Option<(usize, bool, Vec<u8>)> {
        let message = stun::Message::parse(bytes).ok().filter(|m| m.is_binding_request())?;
        let (node, client) = message.username_parts()?;
        let ufrag = std::str::from_utf8(node).ok()?.strip_prefix("node")?;
        let at: usize = ufrag.split_once('x')?.0.parse().ok()?;
        if self.peers.get(at)?.ufrag(at) != ufrag {
            return None; // of a transport that was lost
        }
        assert_eq!(client, format!("client{ufrag}").as_bytes());
        assert!(message.is_fingerprint_valid() && message.ice_controlling().is_some());
        let mac = |parts: &[&[u8]]| hmac_sha1(PASSWORD.as_bytes(), parts);
        message.check_integrity(mac).expect("signed with the node's password");
        let mut answer = vec![0; 200];
        let len = stun::Builder::binding_success(&mut answer, message.transaction_id(), from)
            .integrity(mac)
            .fingerprint()
            .finish()
            .unwrap();
        answer.truncate(len);
        Some((at, message.use_candidate(), answer))
    }

    fn forward(&mut self, from: usize, bytes: &[u8]) {
        self.peers[from].media_packets += u64::from(classify(bytes) == Kind::Rtp);
        for to in (0..self.peers.len()).filter(|to| *to != from) {
            let peer = &self.peers[to];
            match peer.pictures.filter(|_| is_picture(bytes)).or(peer.nominated) {
                Some(Way::Udp(port, address)) => {
                    self.out.push(Out::Datagram(port, address, bytes.to_vec()));
                }
                Some(Way::Framed(connection)) => {
                    self.out.push(Out::Framed(connection, bytes.to_vec()));
                }
                Some(Way::Link) => {
                    let media = v1::Media { packet: bytes.to_vec() };
                    self.tell(to, 0, server_message::Body::Media(media));
                }
                None => {}
            }
        }
    }

    fn tell_others(&mut self, from: usize, body: user_event::Body) {
        for to in (0..self.peers.len()).filter(|to| *to != from) {
            let event = v1::UserEvent { body: Some(body.clone()) };
            self.tell(to, 0, server_message::Body::Event(event));
        }
    }

    fn tell(&mut self, at: usize, request: u32, body: server_message::Body) {
        let Some(link) = self.peers[at].link else { return };
        let mut bytes = Vec::new();
        encode(&v1::ServerMessage { request, body: Some(body) }, &mut bytes);
        self.out.push(Out::Link(link, bytes));
    }
}
