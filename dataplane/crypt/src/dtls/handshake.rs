//! One peer's DTLS association: handshake, keys, close.

use super::records::{Filtered, Phase, Version, filter};
use super::{Certificate, Fingerprint};
use crate::srtp::{Profile, SessionKeys, wipe};
use dimpl::{Dtls, Error, KeyingMaterial, ProtocolVersion, SecurityError, SrtpProfile};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Outputs that may wait for [`Handshake::poll`]: twice the largest flight. The oldest datagram gives way, and is
/// retransmitted in time.
const OUTPUTS: usize = 32;
/// Largest record that dimpl may ask room for (RFC 6347 section 4.1: 2^14 bytes of plaintext, and what protects it).
const RECORD_BYTES: usize = (1 << 14) + 2048;

/// The least time between two timeouts. dimpl asks again and again for the same past instant when a changed record has
/// led it astray, until its deadline ends it: that must not spin the caller.
const TICK: Duration = Duration::from_millis(20);
/// How often a server begins anew for another ClientHello: without it, the first one to come from the peer's address
/// would win, whoever sent it. An attacker can use them up; then it is as without.
const RESTARTS: u32 = 16;

/// Which side of DTLS we play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We speak first (SDP `setup:active`).
    Client,
    /// The peer speaks first (SDP `setup:passive`).
    Server,
}

/// What a [`Handshake`] wants or tells.
#[derive(Debug)]
pub enum Output {
    /// Send this datagram to the peer.
    Transmit(Vec<u8>),
    /// The handshake is done and the peer is who it should be.
    Connected(SessionKeys),
    /// The peer sent this; only after [`Handshake::take_data`].
    Received(Vec<u8>),
    /// The peer closed the association.
    Closed,
    /// The handshake failed, for this reason. Nothing more comes.
    Failed(String),
    /// Nothing more for now: call [`Handshake::handle_timeout`] at this instant, or [`Handshake::handle`] before.
    Timeout(Instant),
    /// Nothing more, ever: closed or failed.
    Idle,
}

/// One peer's DTLS association. After each call of a method that takes `now`, poll until [`Output::Timeout`] or
/// [`Output::Idle`].
///
/// Its asymmetric cryptography takes some 150 µs: run it on a helper thread, not on a media worker.
pub struct Handshake {
    certificate: Certificate,
    role: Role,
    remote_fingerprint: Fingerprint,
    /// Gone when failed or closed.
    dtls: Option<Box<Dtls>>,
    outputs: VecDeque<Output>,
    now: Instant,
    wake: Option<Instant>,
    peer_verified: bool,
    keys: Option<SessionKeys>,
    finished: bool,
    connected: bool,
    closed: bool,
    /// Datagrams sent since the last (re)start.
    sent: u64,
    restarts: u32,
    /// Of the ClientHello that a server answers.
    hello_random: Option<[u8; 32]>,
    plain_alert: Option<u8>,
    ignored: u64,
    takes_data: bool,
}

impl Handshake {
    /// Begins; a client's first datagram is there to [`Handshake::poll`] at once. `now` and all later ones come from
    /// one monotonic clock.
    #[must_use]
    pub fn new(
        certificate: &Certificate,
        role: Role,
        remote_fingerprint: Fingerprint,
        now: Instant,
    ) -> Self {
        let mut handshake = Self {
            certificate: certificate.clone(),
            role,
            remote_fingerprint,
            dtls: None,
            outputs: VecDeque::new(),
            now,
            wake: None,
            peer_verified: false,
            keys: None,
            finished: false,
            connected: false,
            closed: false,
            sent: 0,
            restarts: 0,
            hello_random: None,
            plain_alert: None,
            ignored: 0,
            takes_data: false,
        };
        handshake.restart(now);
        handshake.handle_timeout(now);
        handshake
    }

    /// Takes a datagram that came from the peer. What cannot be right is ignored and counted ([`Handshake::ignored`]);
    /// what fails is an authenticated record, or a message of a handshake that has answered already.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) {
        if self.wake.is_none_or(|due| due <= now) {
            self.handle_timeout(now);
        }
        if self.dtls.is_none() {
            return;
        }
        let Filtered { passed, held_back, hello_random, plain_alert } =
            filter(datagram, self.phase());
        self.plain_alert = plain_alert.or(self.plain_alert);
        self.ignored += u64::from(held_back);
        if passed.is_empty() {
            self.ignored += u64::from(!held_back);
            return;
        }
        if let Some(random) = hello_random.filter(|_| !self.connected)
            && self.hello_random.replace(random).is_some_and(|before| before != random)
        {
            self.restart(now);
        }
        // dimpl panics on a packet before its first timeout, and wants the clock set before each.
        self.handle_timeout(now);
        match self.guarded(|dtls| dtls.handle_packet(&passed)) {
            None | Some(Ok(())) => {}
            Some(Err(error)) => self.packet_failed(now, &error),
        }
        self.drain();
    }

    /// Lets time pass: retransmissions, and in the end failure.
    pub fn handle_timeout(&mut self, now: Instant) {
        // dimpl wants time to go forward only.
        let now = now.max(self.now);
        self.now = now;
        match self.guarded(|dtls| dtls.handle_timeout(now)) {
            None | Some(Ok(())) => {}
            // The keys are out and media flows. What is lost is only the peer's goodbye; consent will notice.
            Some(Err(_)) if self.connected => self.release(),
            Some(Err(error)) => self.fail(&match self.plain_alert {
                Some(alert) => format!("DTLS: {error}; somebody sent alert {alert} in the clear"),
                None => format!("DTLS: {error}"),
            }),
        }
        self.drain();
    }

    /// The next output.
    pub fn poll(&mut self) -> Output {
        match (self.outputs.pop_front(), self.wake, &self.dtls) {
            (Some(output), ..) => output,
            (None, Some(wake), Some(_)) => Output::Timeout(wake),
            (None, ..) => Output::Idle,
        }
    }

    /// Hands out what the peer sends over the association from now on; otherwise it is ignored.
    pub fn take_data(&mut self) {
        self.takes_data = true;
    }

    /// Sends something over the association, if it is connected, as one datagram: to be polled before the next.
    pub fn send(&mut self, data: &[u8]) {
        if self.connected
            && let Some(Err(_)) = self.guarded(|dtls| dtls.send_application_data(data))
        {
            self.ignored += 1;
        }
        self.drain();
    }

    /// Tells the peer that we leave (a close_notify alert), if it is connected.
    pub fn close(&mut self) {
        self.guarded(|dtls| dtls.close());
        self.drain();
    }

    /// Whether [`Output::Connected`] was given.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Datagrams that were ignored because they are no DTLS or could not be right.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Frees what the association holds, some tens of kilobytes, once media flows. The price: a close by the peer is
    /// not heard, and our last flight is not repeated if it was lost.
    pub fn release(&mut self) {
        if self.connected {
            self.dtls = None;
            self.wake = None;
        }
    }

    fn phase(&self) -> Phase {
        let version = match self.dtls.as_ref().and_then(|dtls| dtls.protocol_version()) {
            Some(ProtocolVersion::DTLS1_3) => Some(Version::Dtls13),
            Some(_) => Some(Version::Dtls12),
            None => None,
        };
        Phase { we_are_client: self.role == Role::Client, connected: self.connected, version }
    }

    /// dimpl calls every error fatal, because it cannot know who is to blame. Which ones are believed:
    fn packet_failed(&mut self, now: Instant, error: &Error) {
        match error {
            // Plaintext alerts do not get here: this one was authenticated.
            Error::SecurityError(SecurityError::FatalAlert { description }) if self.connected => {
                self.ignored += 1;
                self.closed = true;
                self.dtls = None;
                self.plain_alert = Some(*description);
                self.push(Output::Closed);
            }
            // The keys are out; the association is of no more use than to hear a goodbye.
            _ if self.connected => self.ignored += 1,
            // Nothing changed: a client waits on for a ServerHello, a full queue for its gap to fill.
            Error::UnexpectedMessage(
                dimpl::UnexpectedMessageError::UnrecognizedAutoServerResponse,
            )
            | Error::ReceiveQueueFull => self.ignored += 1,
            // Nothing was answered yet, so nothing is lost: the peer's own ClientHello may still come.
            _ if self.role == Role::Server && self.sent == 0 && self.restarts < RESTARTS => {
                self.ignored += 1;
                self.hello_random = None;
                self.restart(now);
                self.handle_timeout(now);
            }
            // Later errors may be an impostor's handshake failing its proof. dimpl makes no promise about what
            // follows them, so going on would be guessing about authentication.
            _ => self.fail(&format!("DTLS: {error}")),
        }
    }

    /// A fresh association, at most [`RESTARTS`] times after the first.
    fn restart(&mut self, now: Instant) {
        if self.dtls.is_some() {
            if self.restarts >= RESTARTS {
                return;
            }
            self.restarts += 1;
        }
        self.sent = 0;
        self.keys = None;
        self.peer_verified = false;
        self.finished = false;
        self.outputs.clear();
        let identity = self.certificate.identity.clone();
        let config = self.certificate.config(self.role);
        let active = self.role == Role::Client;
        let made = catch_unwind(AssertUnwindSafe(|| {
            let mut dtls = Box::new(Dtls::new_auto(config, identity, now));
            dtls.set_active(active);
            dtls
        }));
        match made {
            Ok(dtls) => self.dtls = Some(dtls),
            Err(_) => self.fail("DTLS could not be set up"),
        }
    }

    /// Runs `work` on the association; a panic of the library ends this association and nothing else.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Dtls) -> T) -> Option<T> {
        let dtls = self.dtls.as_deref_mut()?;
        match catch_unwind(AssertUnwindSafe(|| work(dtls))) {
            Ok(done) => Some(done),
            Err(_) => {
                self.fail("the DTLS library panicked; please report it");
                None
            }
        }
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; 2048];
        loop {
            let event = self.guarded(|dtls| match dtls.poll_output(&mut buffer) {
                dimpl::Output::Packet(packet) => Event::Packet(packet.to_vec()),
                dimpl::Output::BufferTooSmall { needed } => Event::Room(needed),
                dimpl::Output::Timeout(at) => Event::Timeout(at),
                dimpl::Output::Connected => Event::Connected,
                dimpl::Output::PeerCert(der) => Event::Certificate(der.to_vec()),
                dimpl::Output::KeyingMaterial(keys, profile) => Event::Keys(keys, profile),
                dimpl::Output::CloseNotify => Event::Closed,
                dimpl::Output::ApplicationData(data) => Event::Data(data.to_vec()),
                _ => Event::Other,
            });
            match event {
                None => return,
                Some(Event::Packet(mut packet)) => {
                    self.certificate.rewrite(self.role, &mut packet);
                    self.sent += 1;
                    self.push(Output::Transmit(packet));
                }
                Some(Event::Room(needed)) if needed <= RECORD_BYTES => buffer.resize(needed, 0),
                Some(Event::Room(_)) => return self.fail("DTLS: a record is too large"),
                Some(Event::Timeout(at)) => {
                    self.wake = Some(at.max(self.now + TICK));
                    self.finish();
                    if self.closed {
                        self.dtls = None;
                    }
                    return;
                }
                Some(Event::Connected) => self.finished = true,
                Some(Event::Certificate(der)) => {
                    if !self.remote_fingerprint.matches(&der) {
                        return self.fail(
                            "the peer's certificate is not the one whose fingerprint was signalled",
                        );
                    }
                    self.peer_verified = true;
                }
                Some(Event::Keys(material, profile)) => {
                    self.keys = split(material, profile, self.role)
                }
                Some(Event::Data(data)) if self.takes_data && self.connected => {
                    self.push(Output::Received(data));
                }
                Some(Event::Data(_)) => self.ignored += 1,
                // What is left to send, an answer perhaps, is sent before the association goes.
                Some(Event::Closed) if self.connected => {
                    self.closed = true;
                    self.push(Output::Closed);
                }
                Some(Event::Closed) => return self.fail("the peer closed DTLS"),
                Some(Event::Other) => {}
            }
        }
    }

    /// Hands the keys out once the handshake is done, which is after the peer proved to hold its certificate.
    fn finish(&mut self) {
        if !self.finished || self.connected {
            return;
        }
        if !self.peer_verified {
            return self.fail("the peer showed no certificate");
        }
        match self.keys.take() {
            Some(keys) => {
                self.connected = true;
                self.push(Output::Connected(keys));
            }
            None => self.fail("the peer did not agree to DTLS-SRTP with a profile that we offer"),
        }
    }

    fn fail(&mut self, why: &str) {
        self.dtls = None;
        self.keys = None;
        self.outputs.clear();
        self.push(Output::Failed(why.to_owned()));
    }

    fn push(&mut self, output: Output) {
        if self.outputs.len() >= OUTPUTS
            && let Some(at) = self.outputs.iter().position(|old| matches!(old, Output::Transmit(_)))
        {
            self.outputs.remove(at);
        }
        self.outputs.push_back(output);
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("role", &self.role)
            .field("connected", &self.connected)
            .field("over", &self.dtls.is_none())
            .finish_non_exhaustive()
    }
}

/// dimpl's output without its borrow of the buffer.
enum Event {
    Packet(Vec<u8>),
    Room(usize),
    Timeout(Instant),
    Connected,
    Certificate(Vec<u8>),
    Keys(KeyingMaterial, SrtpProfile),
    Data(Vec<u8>),
    Closed,
    Other,
}

/// RFC 5764 section 4.2: client key, server key, client salt, server salt. `None` when the length is not the profile's.
fn split(material: KeyingMaterial, profile: SrtpProfile, role: Role) -> Option<SessionKeys> {
    let profile = match profile {
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
        _ => return None,
    };
    let mut material = material.to_vec();
    let (keys, salts) = material.split_at_checked(2 * profile.key_len())?;
    let (client_key, server_key) = keys.split_at_checked(profile.key_len())?;
    let (client_salt, server_salt) = salts.split_at_checked(profile.salt_len())?;
    if server_salt.len() != profile.salt_len() {
        return None;
    }
    let ((local_key, local_salt), (remote_key, remote_salt)) = match role {
        Role::Client => ((client_key, client_salt), (server_key, server_salt)),
        Role::Server => ((server_key, server_salt), (client_key, client_salt)),
    };
    let keys = SessionKeys {
        profile,
        local_key: local_key.to_vec(),
        local_salt: local_salt.to_vec(),
        remote_key: remote_key.to_vec(),
        remote_salt: remote_salt.to_vec(),
    };
    wipe(&mut material);
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn assert_send<T: Send>() {}
    const _: () = assert_send::<Handshake>();

    #[test]
    fn two_of_us_agree() {
        let ours = Certificate::generate().unwrap();
        let theirs = Certificate::generate().unwrap();
        let now = Instant::now();
        let print = |c: &Certificate| Fingerprint::new("sha-256", &c.fingerprint_sha256()).unwrap();
        let mut client = Handshake::new(&ours, Role::Client, print(&theirs), now);
        let mut server = Handshake::new(&theirs, Role::Server, print(&ours), now);
        let mut keys = [None, None];
        for _ in 0..20 {
            let mut moved = false;
            for (turn, slot) in keys.iter_mut().enumerate() {
                loop {
                    let (from, to) = if turn == 0 {
                        (&mut client, &mut server)
                    } else {
                        (&mut server, &mut client)
                    };
                    match from.poll() {
                        Output::Transmit(datagram) => {
                            to.handle(now, &datagram);
                            moved = true;
                        }
                        Output::Connected(session) => *slot = Some(session),
                        Output::Timeout(_) => break,
                        other => panic!("{other:?}"),
                    }
                }
            }
            if !moved {
                break;
            }
        }
        let [Some(client), Some(server)] = keys else { panic!("not connected: {keys:?}") };
        assert_eq!(client.local_key, server.remote_key);
        assert_eq!(client.local_salt, server.remote_salt);
        assert_eq!(client.remote_key, server.local_key);
        assert_eq!(client.remote_salt, server.local_salt);
        assert_ne!(client.local_key, client.remote_key);
        assert_eq!(client.profile, server.profile);
        let mut send = client.outbound().unwrap();
        let mut receive = server.inbound().unwrap();
        let mut packet = vec![0u8; 64];
        packet[0] = 0x80;
        let len = send.protect_rtp(&mut packet, 40).unwrap();
        assert_eq!(receive.unprotect_rtp(&mut packet[..len]), Ok(40));
    }

    #[test]
    fn data_is_handed_out_to_who_takes_it() {
        let (ours, theirs) = (Certificate::generate().unwrap(), Certificate::generate().unwrap());
        let now = Instant::now();
        let print = |c: &Certificate| Fingerprint::new("sha-256", &c.fingerprint_sha256()).unwrap();
        let mut client = Handshake::new(&ours, Role::Client, print(&theirs), now);
        let mut server = Handshake::new(&theirs, Role::Server, print(&ours), now);
        client.send(b"too early");
        let pump = |from: &mut Handshake, to: &mut Handshake, received: &mut Vec<Vec<u8>>| {
            loop {
                match from.poll() {
                    Output::Transmit(datagram) => to.handle(now, &datagram),
                    Output::Received(data) => received.push(data),
                    Output::Timeout(_) => break,
                    _ => {}
                }
            }
        };
        let (mut of_client, mut of_server) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            pump(&mut client, &mut server, &mut of_client);
            pump(&mut server, &mut client, &mut of_server);
        }
        assert!(client.is_connected() && server.is_connected());
        client.send(b"nobody asked");
        pump(&mut client, &mut server, &mut of_client);
        pump(&mut server, &mut client, &mut of_server);
        server.take_data();
        for n in 0..100_u8 {
            client.send(&[n; 1100]);
            pump(&mut client, &mut server, &mut of_client);
            pump(&mut server, &mut client, &mut of_server);
        }
        assert_eq!(of_server, (0..100).map(|n| vec![n; 1100]).collect::<Vec<_>>());
        assert_eq!((server.ignored(), of_client.len()), (1, 0));
    }
}
