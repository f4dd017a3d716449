//! What is said on one connection, with time as an argument.

use super::session::Broken;
use super::*;
use crate::limits::{
    TURN_CHANNEL, TURN_IDLE, TURN_LIFETIME, TURN_NONCE, TURN_PERMISSION, TURN_STRANGE_REQUESTS,
};
use std::time::{Duration, Instant};
use strait_crypt::StunKey;
use strait_wire::stun::{self, Builder, Class, Message};
use strait_wire::turn::{self, Frame, attribute as turns};

const USER: &[u8] = b"2000000000:one";
const CLIENT: &str = "198.51.100.7:5555";
const PEER: &str = "203.0.113.9:8443";

fn candidate(address: &str, port: u32, protocol: Protocol, purpose: Purpose) -> Candidate {
    let (protocol, purpose) = (protocol.into(), purpose.into());
    Candidate { protocol, address: address.into(), port, priority: 1, purpose }
}

fn server(most: usize) -> Arc<Server> {
    let candidates = [
        candidate("2001:db8:5::9", 8443, Protocol::Udp, Purpose::Any),
        candidate("203.0.113.9", 8443, Protocol::Udp, Purpose::Any),
        candidate("203.0.113.9", 3478, Protocol::Udp, Purpose::Any),
        candidate("203.0.113.9", 8443, Protocol::TcpPassive, Purpose::Any),
        candidate("203.0.113.9", 5000, Protocol::Udp, Purpose::Audio),
    ];
    Arc::new(Server::new(&candidates, most))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A peer and its connection.
struct Peer {
    session: Session,
    start: Instant,
    now: Duration,
    user: Vec<u8>,
    key: Option<StunKey>,
    nonce: Vec<u8>,
    out: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
struct Said {
    bytes: Vec<u8>,
    /// 0: success.
    code: u16,
}

impl Said {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }
    fn address(&self, kind: u16) -> SocketAddr {
        let message = self.message();
        message.xor_address(message.attribute(kind).unwrap()).unwrap()
    }
    fn lifetime(&self) -> u32 {
        let message = self.message();
        u32::from_be_bytes(message.attribute(turns::LIFETIME).unwrap().try_into().unwrap())
    }
}

impl Peer {
    fn new(server: &Arc<Server>) -> Self {
        let start = Instant::now();
        let secret = Secret::new(b"secret");
        let session =
            Session::new(Arc::clone(server), secret.clone(), address(CLIENT), 0xabc, start);
        Self {
            session,
            start,
            now: Duration::ZERO,
            user: USER.to_vec(),
            key: secret.key(USER, 0),
            nonce: Vec::new(),
            out: Vec::new(),
        }
    }

    /// One that has an allocation.
    fn allocated(server: &Arc<Server>) -> Self {
        let mut peer = Self::new(server);
        assert_eq!(peer.allocate(), 401);
        assert_eq!(peer.allocate(), 0);
        peer
    }

    fn is(&mut self, user: &[u8]) {
        self.user = user.to_vec();
        self.key = Secret::new(b"secret").key(user, 0);
    }

    fn now(&self) -> Now {
        let unix_seconds = 1_999_999_000 + self.now.as_secs();
        Now { instant: self.start + self.now, unix_seconds }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<(usize, Vec<u8>)>, Broken> {
        let (frame, taken) = turn::frame(bytes, 4096).unwrap().unwrap();
        assert_eq!(taken, bytes.len());
        let now = self.now();
        let taken = self.session.take(now, frame, &mut self.out)?;
        Ok(taken.map(|(peer, data)| (peer, data.to_vec())))
    }

    /// A request and its answer, whose integrity is that of the key, unless it asks for credentials.
    fn ask(&mut self, method: u16, attributes: &[(u16, &[u8])]) -> Said {
        let mut room = [0; 800];
        let mut builder = Builder::new(&mut room, Class::Request, method, *b"abcdefghijkl");
        for (kind, value) in attributes {
            builder = builder.attribute(*kind, value);
        }
        if !self.nonce.is_empty() {
            builder = builder
                .attribute(stun::attribute::USERNAME, &self.user)
                .attribute(turns::REALM, b"strait")
                .attribute(turns::NONCE, &self.nonce);
            if let Some(key) = &self.key {
                builder = builder.integrity(|parts| key.sign(parts));
            }
        }
        let length = builder.fingerprint().finish().unwrap();
        assert_eq!(self.take(&room[..length]), Ok(None));
        self.said()
    }

    fn said(&mut self) -> Said {
        let bytes = std::mem::take(&mut self.out);
        let message = Message::parse(&bytes).unwrap();
        assert!(message.is_fingerprint_valid());
        assert_eq!(message.transaction_id(), *b"abcdefghijkl");
        let code = match message.class() {
            Class::Error => message.error_code().unwrap().0,
            class => (class != Class::Success).into(),
        };
        match message.attribute(turns::NONCE) {
            Some(nonce) => {
                assert_eq!(message.attribute(turns::REALM), Some(&b"strait"[..]));
                self.nonce = nonce.to_vec();
            }
            None if code == 400 => {}
            None => {
                let key = self.key.as_ref().unwrap();
                assert_eq!(message.check_integrity(|parts| key.sign(parts)), Ok(()));
            }
        }
        Said { bytes, code }
    }

    fn allocate(&mut self) -> u16 {
        self.ask(turn::ALLOCATE, &[UDP]).code
    }

    /// The value of XOR-PEER-ADDRESS.
    fn ask_for(&mut self, method: u16, peer: &str, also: &[(u16, &[u8])]) -> Said {
        let value = xor(peer);
        let all: Vec<_> = [(turns::XOR_PEER_ADDRESS, &value[..])]
            .into_iter()
            .chain(also.iter().copied())
            .collect();
        self.ask(method, &all)
    }

    fn send(&mut self, peer: &str, data: &[u8]) -> Option<(usize, Vec<u8>)> {
        let mut room = [0; 800];
        let builder = Builder::new(&mut room, Class::Indication, turn::SEND, *b"abcdefghijkl");
        let builder = builder.xor_address(turns::XOR_PEER_ADDRESS, address(peer));
        let length = builder.attribute(turns::DATA, data).finish().unwrap();
        let sent = self.take(&room[..length]).unwrap();
        assert!(self.out.is_empty(), "indications are not answered");
        sent
    }

    fn send_by(&mut self, number: u16, data: &[u8]) -> Option<(usize, Vec<u8>)> {
        let (header, padding) = turn::channel_header(number, data.len() as u16);
        self.take(&[&header[..], data, &vec![0; padding]].concat()).unwrap()
    }

    /// What comes to the peer of a datagram.
    fn hear(&mut self, peer: usize, data: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let now = self.now().instant;
        self.session.wrap(now, peer, data, &mut out).then_some(out)
    }
}

const UDP: (u16, &[u8]) = (turns::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);

fn xor(peer: &str) -> Vec<u8> {
    let mut room = [0; 64];
    let builder = Builder::new(&mut room, Class::Request, 1, *b"abcdefghijkl");
    let length = builder.xor_address(turns::XOR_PEER_ADDRESS, address(peer)).finish().unwrap();
    let message = Message::parse(&room[..length]).unwrap();
    message.attribute(turns::XOR_PEER_ADDRESS).unwrap().to_vec()
}

fn number(n: u16) -> [u8; 4] {
    let [high, low] = n.to_be_bytes();
    [high, low, 0, 0]
}

#[test]
fn a_browsers_call() {
    let server = server(9);
    let mut peer = Peer::new(&server);
    assert_eq!(peer.allocate(), 401, "the first time it does not know the realm");
    let made = peer.ask(turn::ALLOCATE, &[UDP]);
    assert_eq!((made.code, made.lifetime()), (0, 600));
    let relayed = made.address(turns::XOR_RELAYED_ADDRESS);
    assert_eq!(Some(relayed), peer.session.relayed());
    assert!(relayed.is_ipv4() && relayed.port().is_multiple_of(2), "{relayed}");
    assert_eq!(made.message().xor_mapped_address(), Some(address(CLIENT)));
    assert_eq!(peer.send(PEER, b"early"), None, "no permission");
    assert_eq!(peer.hear(1, b"early"), None);
    assert_eq!(peer.ask_for(turn::CREATE_PERMISSION, PEER, &[]).code, 0);
    assert_eq!(peer.send(PEER, b"check"), Some((1, b"check".to_vec())));
    let heard = peer.hear(1, b"answer").unwrap();
    let message = Message::parse(&heard).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Indication, turn::DATA));
    assert_eq!(message.attribute(turns::DATA), Some(&b"answer"[..]));
    let from = message.xor_address(message.attribute(turns::XOR_PEER_ADDRESS).unwrap());
    assert_eq!(from, Some(address(PEER)));
    let channel = (turns::CHANNEL_NUMBER, &number(0x4000)[..]);
    assert_eq!(peer.ask_for(turn::CHANNEL_BIND, PEER, &[channel]).code, 0);
    assert_eq!(peer.send_by(0x4000, b"media"), Some((1, b"media".to_vec())));
    assert_eq!(peer.hear(1, b"media").unwrap(), b"\x40\x00\x00\x05media\0\0\0");
    assert_eq!(peer.hear(0, b"media"), None, "another address of ours");
    assert_eq!(peer.send_by(0x4001, b"media"), None, "not bound");
    let ended = peer.ask(turn::REFRESH, &[(turns::LIFETIME, &[0; 4])]);
    assert_eq!((ended.code, ended.lifetime(), peer.session.relayed()), (0, 0, None));
    assert_eq!(peer.send_by(0x4000, b"media"), None);
    assert_eq!(server.open.load(Ordering::Relaxed), 0);
}

#[test]
fn nobody_but_this_hosts_media_may_be_spoken_to() {
    let server = server(9);
    let mut peer = Peer::allocated(&server);
    for other in ["203.0.113.10:8443", "127.0.0.1:80", "10.0.0.1:8443", "169.254.169.254:80"] {
        assert_eq!(peer.ask_for(turn::CREATE_PERMISSION, other, &[]).code, 403, "{other}");
        let channel = (turns::CHANNEL_NUMBER, &number(0x4000)[..]);
        assert_eq!(peer.ask_for(turn::CHANNEL_BIND, other, &[channel]).code, 403, "{other}");
        assert_eq!(peer.send(other, b"x"), None);
    }
    assert_eq!(server.forbidden.load(Ordering::Relaxed), 8);
    // One of two is as bad, and none of them is permitted.
    let other = xor("127.0.0.1:80");
    let also = (turns::XOR_PEER_ADDRESS, &other[..]);
    assert_eq!(peer.ask_for(turn::CREATE_PERMISSION, PEER, &[also]).code, 403);
    assert_eq!(peer.send(PEER, b"x"), None);
    // Permissions are for addresses, but other ports there are no media that a worker hears by TCP.
    assert_eq!(peer.ask_for(turn::CREATE_PERMISSION, "203.0.113.9:22", &[]).code, 0);
    assert_eq!(peer.send("203.0.113.9:22", b"x"), None);
    assert_eq!(peer.send("203.0.113.9:3478", b"x"), None);
    assert_eq!(peer.send(PEER, b"x"), Some((1, b"x".to_vec())));
    let channel = (turns::CHANNEL_NUMBER, &number(0x4000)[..]);
    let refused = peer.ask_for(turn::CHANNEL_BIND, "203.0.113.9:22", &[channel]);
    assert_eq!(refused.code, 403);
    let family = peer.ask_for(turn::CREATE_PERMISSION, "[2001:db8:5::9]:8443", &[]);
    assert_eq!(family.code, 443);
}

#[test]
fn who_has_no_credentials_gets_nothing() {
    let server = server(9);
    let mut peer = Peer::new(&server);
    peer.allocate();
    let asks = |peer: &mut Peer| peer.ask(turn::ALLOCATE, &[UDP]).code;
    for user in [&b"1999998999:one"[..], b"nobody", b"", b"2000000000"] {
        peer.is(user);
        peer.key = Some(StunKey::new(b"a guess"));
        assert_eq!(asks(&mut peer), 401, "{user:?}");
    }
    peer.is(USER);
    peer.key = Secret::new(b"another secret").key(USER, 0);
    assert_eq!(asks(&mut peer), 401);
    assert_eq!(server.unauthorized.load(Ordering::Relaxed), 5);
    // A nonce of another connection, as somebody would have who listened elsewhere.
    peer.is(USER);
    peer.nonce = b"00000000000000000000000000000abd0".to_vec();
    assert_eq!(asks(&mut peer), 438);
    assert_eq!(asks(&mut peer), 0, "with the right one");
    // Whoever goes on guessing is sent away.
    let mut peer = Peer::new(&server);
    for _ in 0..TURN_STRANGE_REQUESTS {
        peer.nonce.clear();
        assert_eq!(asks(&mut peer), 401);
    }
    let mut room = [0; 64];
    let builder = Builder::new(&mut room, Class::Request, turn::ALLOCATE, *b"abcdefghijkl");
    let length = builder.finish().unwrap();
    assert_eq!(peer.take(&room[..length]), Err(Broken::Strange));
    // Nor is it better to ask where one is.
    let mut peer = Peer::new(&server);
    let builder = Builder::new(&mut room, Class::Request, stun::BINDING, *b"abcdefghijkl");
    let length = builder.finish().unwrap();
    for _ in 0..TURN_STRANGE_REQUESTS {
        assert_eq!(peer.take(&room[..length]), Ok(None));
    }
    assert_eq!(peer.take(&room[..length]), Err(Broken::Strange));
    let mut peer = Peer::allocated(&server);
    for _ in 0..2 * TURN_STRANGE_REQUESTS {
        assert_eq!(peer.take(&room[..length]), Ok(None), "whoever is known may");
    }
    // Integrity without what it is about.
    let mut peer = Peer::new(&server);
    let builder = Builder::new(&mut room, Class::Request, turn::ALLOCATE, *b"abcdefghijkl");
    let length = builder.integrity(|_| [1; 20]).fingerprint().finish().unwrap();
    peer.take(&room[..length]).unwrap();
    assert_eq!(peer.said().code, 400);
}

#[test]
fn an_answer_to_a_stranger_is_hardly_longer_than_what_it_asked() {
    let mut peer = Peer::new(&server(9));
    let said = peer.ask(turn::ALLOCATE, &[UDP]);
    assert!(said.bytes.len() <= 120, "{}", said.bytes.len());
}

#[test]
fn what_is_over_is_over() {
    let mut peer = Peer::new(&server(9));
    peer.is(b"3000000000:one");
    assert_eq!((peer.allocate(), peer.allocate()), (401, 0));
    let channel = (turns::CHANNEL_NUMBER, &number(0x4abc)[..]);
    assert_eq!(peer.ask_for(turn::CHANNEL_BIND, PEER, &[channel]).code, 0);
    peer.now = TURN_PERMISSION - Duration::from_secs(1);
    assert!(peer.send_by(0x4abc, b"x").is_some() && peer.hear(1, b"x").is_some());
    peer.now = TURN_PERMISSION;
    assert!(peer.send_by(0x4abc, b"x").is_none() && peer.hear(1, b"x").is_none());
    assert_eq!(peer.ask_for(turn::CREATE_PERMISSION, PEER, &[]).code, 0);
    assert!(peer.send_by(0x4abc, b"x").is_some(), "the channel holds on");
    assert_eq!(peer.ask(turn::REFRESH, &[]).code, 0);
    while peer.now < TURN_CHANNEL {
        peer.now += Duration::from_secs(100);
        assert_eq!(peer.ask_for(turn::CREATE_PERMISSION, PEER, &[]).code, 0);
        peer.send(PEER, b"x");
    }
    assert!(peer.send_by(0x4abc, b"x").is_none());
    assert!(peer.send(PEER, b"x").is_some(), "without a channel");
    // Nothing goes, however it is refreshed.
    let at = peer.now + TURN_IDLE;
    peer.now = at - Duration::from_secs(1);
    assert_eq!(peer.ask(turn::REFRESH, &[]).code, 0);
    peer.now = at;
    peer.session.sweep(peer.now().instant);
    assert_eq!(peer.session.relayed(), None);
    assert_eq!(peer.ask(turn::REFRESH, &[]).code, 437);
    assert_eq!(peer.allocate(), 437, "a connection has one");
    // Without a refresh.
    let mut other = Peer::new(&server(9));
    other.is(b"3000000000:one");
    other.now = peer.now;
    let mut peer = other;
    assert_eq!((peer.allocate(), peer.allocate()), (401, 0));
    peer.ask_for(turn::CREATE_PERMISSION, PEER, &[]);
    let ends = peer.now + TURN_LIFETIME.0;
    while peer.now < ends {
        assert!(peer.send(PEER, b"x").is_some());
        peer.ask_for(turn::CREATE_PERMISSION, PEER, &[]);
        peer.now += Duration::from_secs(100);
    }
    assert_eq!(peer.send(PEER, b"x"), None);
    assert_eq!(peer.ask(turn::REFRESH, &[]).code, 437);
}

#[test]
fn a_nonce_ends_and_credentials_that_do_are_good_for_what_they_made() {
    let server = server(9);
    let mut peer = Peer::allocated(&server);
    peer.ask_for(turn::CREATE_PERMISSION, PEER, &[]);
    let old = peer.nonce.clone();
    for _ in 0..TURN_NONCE.as_secs() / 100 {
        peer.now += Duration::from_secs(100);
        if peer.now < TURN_NONCE {
            assert_eq!(peer.ask(turn::REFRESH, &[]).code, 0);
            peer.ask_for(turn::CREATE_PERMISSION, PEER, &[]);
            peer.send(PEER, b"x");
        }
    }
    // The name ended meanwhile.
    assert!(peer.now().unix_seconds > 2_000_000_000);
    assert_eq!(peer.ask(turn::REFRESH, &[]).code, 438);
    assert_ne!(peer.nonce, old);
    assert_eq!(peer.ask(turn::REFRESH, &[]).code, 0);
    assert_eq!(Peer { now: peer.now, ..Peer::allocated(&server) }.allocate(), 438);
}

#[test]
fn what_does_not_fit_is_refused_by_its_own_error() {
    let server = server(9);
    let mut peer = Peer::new(&server);
    peer.allocate();
    let family = |n: u8| [n, 0, 0, 0];
    let asked = turns::REQUESTED_ADDRESS_FAMILY;
    for (attributes, code) in [
        (&[][..], 400),
        (&[(turns::REQUESTED_TRANSPORT, &[6, 0, 0, 0][..])][..], 442),
        (&[UDP, (turns::EVEN_PORT, &[0x80])], 508),
        (&[UDP, (turns::RESERVATION_TOKEN, &[0; 8])], 508),
        (&[UDP, (asked, &family(3))], 440),
        (&[UDP, (0x7fff, b"what?")], 420),
    ] {
        assert_eq!(peer.ask(turn::ALLOCATE, attributes).code, code, "{attributes:?}");
    }
    let unknown = peer.ask(turn::ALLOCATE, &[UDP, (0x7fff, b"")]);
    let kind = stun::attribute::UNKNOWN_ATTRIBUTES;
    assert_eq!(unknown.message().attribute(kind), Some(&[0x7f, 0xff][..]));
    for method in [turn::REFRESH, turn::CREATE_PERMISSION, turn::CHANNEL_BIND] {
        let also = [(turns::CHANNEL_NUMBER, &number(0x4000)[..])];
        assert_eq!(peer.ask_for(method, PEER, &also).code, 437, "no allocation: {method}");
    }
    assert_eq!(peer.ask(0x0ff, &[]).code, 400);
    let made = peer.ask(turn::ALLOCATE, &[UDP, (asked, &family(2)), (turns::EVEN_PORT, &[0])]);
    assert!(made.code == 0 && made.address(turns::XOR_RELAYED_ADDRESS).is_ipv6());
    assert_eq!(peer.allocate(), 437);
    assert_eq!(peer.ask(turn::CREATE_PERMISSION, &[]).code, 400);
    assert_eq!(peer.ask(turn::CREATE_PERMISSION, &[(turns::XOR_PEER_ADDRESS, &[1])]).code, 400);
    assert_eq!(peer.ask(turn::REFRESH, &[(asked, &family(1))]).code, 443);
    let long = peer.ask(turn::REFRESH, &[(turns::LIFETIME, &[0xff; 4])]);
    assert_eq!(long.lifetime(), 3600);
    let v6 = "[2001:db8:5::9]:8443";
    for (n, code) in [(0x3fff, 400), (0x5000, 400), (0x4000, 0), (0x4000, 0), (0x4001, 400)] {
        let also = [(turns::CHANNEL_NUMBER, &number(n)[..])];
        assert_eq!(peer.ask_for(turn::CHANNEL_BIND, v6, &also).code, code, "{n:x}");
    }
    peer.is(b"2000000000:two");
    for method in [turn::REFRESH, turn::ALLOCATE] {
        assert_eq!(peer.ask(method, &[UDP]).code, 441);
    }
}

#[test]
fn allocations_are_bounded_and_places_come_back() {
    let server = server(2 * TURN_PER_USER);
    let mut held: Vec<_> = (0..TURN_PER_USER).map(|_| Peer::allocated(&server)).collect();
    let mut more = Peer::new(&server);
    more.allocate();
    assert_eq!(more.allocate(), 486);
    held.pop();
    assert_eq!(more.allocate(), 0);
    // Ten thousand others: as many as there is room for, then none, and each other address once.
    let mut others = Vec::new();
    for n in 0..10_000 {
        let mut peer = Peer::new(&server);
        peer.is(format!("2000000000:{n}").as_bytes());
        peer.allocate();
        match peer.allocate() {
            0 => others.push(peer),
            code => assert_eq!(code, 508),
        }
    }
    assert_eq!(others.len(), TURN_PER_USER);
    let all = held.iter().chain(&others).chain([&more]);
    let addresses: std::collections::HashSet<_> = all.map(|peer| peer.session.relayed()).collect();
    assert_eq!(addresses.len(), 2 * TURN_PER_USER);
    drop((held, others, more));
    assert_eq!(server.open.load(Ordering::Relaxed), 0);
    assert!(server.places().by_user.is_empty(), "nobody is remembered");
}

#[test]
fn an_allocation_speaks_to_one_family() {
    let of = |addresses: &[&str]| {
        let one = |address: &&str| candidate(address, 8443, Protocol::Udp, Purpose::Any);
        peers_most(&addresses.iter().map(one).collect::<Vec<_>>())
    };
    assert_eq!(of(&[]), 0);
    assert_eq!(of(&["203.0.113.9", "2001:db8:5::9"]), 1);
    assert_eq!(of(&["203.0.113.9", "2001:db8:5::9", "203.0.113.10", "203.0.113.10"]), 2);
}

#[test]
fn relayed_addresses_differ_for_long_and_are_nobodys() {
    let made: std::collections::HashSet<_> =
        (0..200_000).map(|number| relayed_address(number, false)).collect();
    assert_eq!(made.len(), 200_000);
    let last = relayed_address(u32::MAX, false);
    assert!(made.iter().chain([&last]).all(|one| match one.ip() {
        IpAddr::V4(ip) => ip.is_documentation() && one.port() >= 1024,
        IpAddr::V6(_) => false,
    }));
}

#[test]
fn noise_is_answered_or_ends_the_connection() {
    // Each byte of a good request changed: no panic, and no allocation.
    let server = server(9);
    let mut peer = Peer::new(&server);
    peer.allocate();
    let mut room = [0; 800];
    let key = peer.key.take().unwrap();
    let builder = Builder::new(&mut room, Class::Request, turn::ALLOCATE, *b"abcdefghijkl");
    let builder = builder.attribute(UDP.0, UDP.1).attribute(stun::attribute::USERNAME, USER);
    let builder = builder.attribute(turns::REALM, b"strait").attribute(turns::NONCE, &peer.nonce);
    let length = builder.integrity(|parts| key.sign(parts)).finish().unwrap();
    for at in 0..length {
        for bit in 0..8 {
            let mut bytes = room[..length].to_vec();
            bytes[at] ^= 1 << bit;
            let Ok(Some((frame, taken))) = turn::frame(&bytes, 4096) else { continue };
            let mut peer = Peer::new(&server);
            let mut out = Vec::new();
            let _ = peer.session.take(peer.now(), frame, &mut out);
            assert!(taken <= length && out.len() <= 200);
            assert_eq!(peer.session.relayed(), None, "byte {at}, bit {bit}");
        }
    }
    let all = Frame::Stun(&room[..length]);
    let mut out = Vec::new();
    assert_eq!(peer.session.take(peer.now(), all, &mut out), Ok(None));
    assert!(peer.session.relayed().is_some(), "unchanged it is good");
}
