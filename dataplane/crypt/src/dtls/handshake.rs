//! One peer's DTLS association: handshake, keys, close.

use super::{Certificate, Fingerprint};
use crate::srtp::{Profile, SessionKeys, wipe};
use dimpl::{Dtls, KeyingMaterial, SrtpProfile};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Outputs that may wait for [`Handshake::poll`]: twice the largest flight. The oldest datagram gives way, and is
/// retransmitted in time.
const OUTPUTS: usize = 32;
/// Largest record that dimpl may ask room for (RFC 6347 section 4.1: 2^14 bytes of plaintext, and what protects it).
const RECORD_BYTES: usize = (1 << 14) + 2048;

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
    wake: Option<Instant>,
    peer_verified: bool,
    keys: Option<SessionKeys>,
    finished: bool,
    connected: bool,
    ignored: u64,
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
            wake: None,
            peer_verified: false,
            keys: None,
            finished: false,
            connected: false,
            ignored: 0,
        };
        handshake.restart(now);
        handshake.handle_timeout(now);
        handshake
    }

    /// Takes a datagram that came from the peer.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) {
        // dimpl panics on a packet before its first timeout, and wants the clock set before each.
        self.handle_timeout(now);
        match self.guarded(|dtls| dtls.handle_packet(datagram)) {
            None | Some(Ok(())) => {}
            Some(Err(error)) => self.fail(&format!("DTLS: {error}")),
        }
        self.drain();
    }

    /// Lets time pass: retransmissions, and in the end failure.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(Err(error)) = self.guarded(|dtls| dtls.handle_timeout(now)) {
            self.fail(&format!("DTLS: {error}"));
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

    fn restart(&mut self, now: Instant) {
        let Certificate { identity, config, .. } = self.certificate.clone();
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
                _ => Event::Other,
            });
            match event {
                None => return,
                Some(Event::Packet(packet)) => self.push(Output::Transmit(packet)),
                Some(Event::Room(needed)) if needed <= RECORD_BYTES => buffer.resize(needed, 0),
                Some(Event::Room(_)) => return self.fail("DTLS: a record is too large"),
                Some(Event::Timeout(at)) => {
                    self.wake = Some(at);
                    return self.finish();
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
                Some(Event::Closed) => {
                    self.dtls = None;
                    return self.push(Output::Closed);
                }
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
}
