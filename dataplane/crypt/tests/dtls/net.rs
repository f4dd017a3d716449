//! A virtual network between a [`Handshake`] and a peer that drives dimpl on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};
use strait_crypt::dtls::{Certificate, Fingerprint, Handshake, Output, Role};
use strait_crypt::srtp::SessionKeys;

/// What the peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Dtls12,
    Dtls13,
    Both,
}

pub const SPEAKS: [Speaks; 3] = [Speaks::Dtls12, Speaks::Dtls13, Speaks::Both];
pub const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Ours.
pub struct Ours {
    pub handshake: Handshake,
    pub keys: Option<SessionKeys>,
    pub failed: Option<String>,
    pub closed: bool,
}

/// The peer: dimpl with its own loop, which believes everything.
pub struct Peer {
    pub dtls: dimpl::Dtls,
    /// Keying material as exported: client key, server key, client salt, server salt.
    pub material: Option<Vec<u8>>,
    pub connected: bool,
    pub broken: bool,
    wake: Option<Instant>,
}

impl Peer {
    pub fn new(
        speaks: Speaks,
        active: bool,
        certificate: &dimpl::DtlsCertificate,
        now: Instant,
    ) -> Self {
        let config = dimpl::Config::builder()
            .use_server_cookie(false)
            .flight_start_rto(Duration::from_millis(250))
            .flight_retries(8)
            .build()
            .unwrap();
        let (config, certificate) = (Arc::new(config), certificate.clone());
        let mut dtls = match speaks {
            Speaks::Dtls12 => dimpl::Dtls::new_12(config, certificate, now),
            Speaks::Dtls13 => dimpl::Dtls::new_13(config, certificate, now),
            Speaks::Both => dimpl::Dtls::new_auto(config, certificate, now),
        };
        dtls.set_active(active);
        dtls.handle_timeout(now).unwrap();
        Self { dtls, material: None, connected: false, broken: false, wake: None }
    }

    pub fn handle(&mut self, now: Instant, datagram: &[u8]) {
        let done = self.dtls.handle_timeout(now).and_then(|()| self.dtls.handle_packet(datagram));
        self.broken |= done.is_err();
    }

    pub fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let mut buffer = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                dimpl::Output::Packet(packet) => sent.push(packet.to_vec()),
                dimpl::Output::Connected => self.connected = true,
                dimpl::Output::KeyingMaterial(material, _) => {
                    self.material = Some(material.to_vec());
                }
                dimpl::Output::Timeout(at) => {
                    self.wake = Some(at).filter(|_| !self.broken);
                    return sent;
                }
                dimpl::Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                _ => {}
            }
        }
    }
}

impl Ours {
    pub fn drain(&mut self) -> (Vec<Vec<u8>>, Option<Instant>) {
        let mut sent = Vec::new();
        loop {
            match self.handshake.poll() {
                Output::Transmit(datagram) => sent.push(datagram),
                Output::Connected(keys) => {
                    assert!(self.keys.is_none() && self.failed.is_none());
                    self.keys = Some(keys);
                }
                Output::Failed(why) => self.failed = Some(why),
                Output::Received(_) => {}
                Output::Closed => self.closed = true,
                Output::Timeout(at) => return (sent, Some(at)),
                Output::Idle => return (sent, None),
            }
        }
    }
}

/// What happens to a datagram on its way: the delay of each copy that arrives.
pub type Fate<'a> = &'a mut dyn FnMut(Duration) -> Vec<Duration>;

/// 20 ms, always.
pub fn perfect(_: Duration) -> Vec<Duration> {
    vec![Duration::from_millis(20)]
}

/// Two ends and what is between them.
pub struct Net {
    pub ours: Ours,
    pub peer: Peer,
    pub start: Instant,
    pub now: Instant,
    /// Arrival, towards us, datagram; a list is enough.
    flying: Vec<(Instant, bool, Vec<u8>)>,
    /// All that was sent, towards us or not.
    pub log: Vec<(bool, Vec<u8>)>,
}

impl Net {
    pub fn new(role: Role, speaks: Speaks) -> Self {
        let theirs = dimpl::certificate::generate_self_signed_certificate().unwrap();
        let fingerprint = Fingerprint::new("sha-256", &theirs.fingerprint()).unwrap();
        Self::with(role, speaks, &theirs, fingerprint)
    }

    pub fn with(
        role: Role,
        speaks: Speaks,
        theirs: &dimpl::DtlsCertificate,
        fingerprint: Fingerprint,
    ) -> Self {
        let certificate = Certificate::generate().unwrap();
        Self::with_certificate(role, speaks, theirs, fingerprint, &certificate)
    }

    pub fn with_certificate(
        role: Role,
        speaks: Speaks,
        theirs: &dimpl::DtlsCertificate,
        fingerprint: Fingerprint,
        certificate: &Certificate,
    ) -> Self {
        let now = Instant::now();
        let handshake = Handshake::new(certificate, role, fingerprint, now);
        Self {
            ours: Ours { handshake, keys: None, failed: None, closed: false },
            peer: Peer::new(speaks, role == Role::Server, theirs, now),
            start: now,
            now,
            flying: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Runs until nothing is left to do before `end`, counted from the start.
    pub fn run(&mut self, end: Duration, fate: Fate<'_>) {
        let end = self.start + end;
        let mut turns = 0;
        loop {
            let (sent, wake) = self.ours.drain();
            let answers = self.peer.drain();
            for (to_us, datagrams) in [(false, sent), (true, answers)] {
                for datagram in datagrams {
                    for delay in fate(self.now - self.start) {
                        self.flying.push((self.now + delay, to_us, datagram.clone()));
                    }
                    self.log.push((to_us, datagram));
                }
            }
            let arrival = self.flying.iter().map(|(at, ..)| *at).min();
            let next = [arrival, wake, self.peer.wake].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= self.now) {
                let first = (0..self.flying.len()).min_by_key(|i| self.flying[*i].0).unwrap();
                let (_, to_us, datagram) = self.flying.remove(first);
                if to_us {
                    self.ours.handshake.handle(self.now, &datagram);
                } else {
                    self.peer.handle(self.now, &datagram);
                }
                continue;
            }
            self.ours.handshake.handle_timeout(self.now);
            self.peer.broken |= self.peer.dtls.handle_timeout(self.now).is_err();
            turns += 1;
            assert!(
                turns < 5000,
                "spinning: {:?} {wake:?} {:?}",
                self.ours.handshake,
                self.peer.wake
            );
        }
    }

    /// Both are connected and hold the same keys, each in its own role.
    pub fn assert_agreed(&self, role: Role) {
        assert_eq!(self.ours.failed, None);
        let keys = self.ours.keys.as_ref().expect("we are connected");
        assert!(self.peer.connected, "the peer is connected");
        let material = self.peer.material.as_ref().expect("the peer has keys");
        let (client, server) =
            ((&keys.local_key, &keys.local_salt), (&keys.remote_key, &keys.remote_salt));
        let (client, server) =
            if role == Role::Client { (client, server) } else { (server, client) };
        let want = [&client.0[..], server.0, client.1, server.1].concat();
        assert_eq!(&want, material);
        keys.inbound().unwrap();
        keys.outbound().unwrap();
    }
}

/// xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }

    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}
