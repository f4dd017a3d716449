//! One peer's transport: a socket, ICE, DTLS, SRTP. The smallest that a relay takes for a browser.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use strait_core::time::Instant;
use strait_crypt::StunKey;
use strait_crypt::dtls::{Certificate, Fingerprint, Handshake, Output, Role};
use strait_crypt::srtp::{Inbound, Outbound, Profile};
use strait_io::batch::Socket;
use strait_wire::demux::{self, Kind};
use strait_wire::stun::{Builder, Class, Message, TransactionId};

use crate::limits::JOIN_PATIENCE;
use crate::random::Random;
use crate::signalling::{
    Ice, IceCredentials, LocalTransport, RemoteTransport, Security, SecurityKind,
};

/// A check is repeated after this while none was answered.
const CHECK_AGAIN: Duration = Duration::from_millis(200);
/// Checks for consent come this often (RFC 7675 section 5.1: 5 s at most).
const CONSENT: Duration = Duration::from_millis(2500);
/// How long the DTLS association stays, for flights that the other side did not get.
const LINGER: Duration = Duration::from_secs(3);
/// RFC 8445 section 7.2.5.1: who was asked for the same role keeps it, and we take the other.
const ROLE_CONFLICT: u16 = 487;
/// Priority of a host candidate (RFC 8445 section 5.1.2).
const PRIORITY: u32 = 126 << 24 | 65_535 << 8 | 255;

pub(crate) struct Peer {
    pub name: String,
    pub socket: Socket,
    credentials: IceCredentials,
    random: Random,
    /// See [`RemoteTransport::channel`].
    pub channel: Option<Channel>,
    ice: Option<Agent>,
    dtls: Option<Dtls>,
    pub inbound: Option<Inbound>,
    pub outbound: Option<Outbound>,
    state: State,
    since: Instant,
    /// Said by the kernel, for what this socket lost.
    pub overflows: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The server has not been told yet.
    New,
    Connecting,
    Connected,
    Failed(String),
}

struct Agent {
    /// USERNAME of our checks: the server's fragment first.
    remote_ufrag: String,
    /// Signs our checks, and the answers to them.
    remote_key: StunKey,
    /// Signs the server's checks, and our answers to them.
    local_key: StunKey,
    controls: bool,
    remote: SocketAddr,
    transaction: TransactionId,
    answered: bool,
    next_check: Instant,
    /// What the server said instead of yes.
    refusal: Option<String>,
}

struct Dtls {
    fingerprint: Fingerprint,
    role: Role,
    certificate: Certificate,
    handshake: Option<Box<Handshake>>,
    wake: Option<std::time::Instant>,
}

/// What a datagram was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// RTP, decrypted: its length.
    Rtp(usize),
    /// RTCP, decrypted: its length.
    Rtcp(usize),
    /// Media that cannot be decrypted.
    Unreadable,
    /// Seen before, says the sequence number.
    Replayed,
    /// Nothing for others.
    Other,
}

impl Peer {
    pub(crate) fn new(
        name: String,
        local: SocketAddr,
        receive_runs: bool,
        mut random: Random,
    ) -> io::Result<Self> {
        let mut socket = Socket::bind(local)?;
        if !receive_runs && socket.receives_runs() {
            socket.receive_runs(false)?;
        }
        let word = |random: &mut Random| format!("{:016x}", random.next());
        let ufrag = word(&mut random);
        let pwd = word(&mut random) + &word(&mut random);
        Ok(Self {
            name,
            socket,
            credentials: IceCredentials { ufrag, pwd },
            random,
            channel: None,
            ice: None,
            dtls: None,
            inbound: None,
            outbound: None,
            state: State::New,
            since: Instant::default(),
            overflows: 0,
        })
    }

    /// What the server is told.
    pub(crate) fn local(
        &self,
        certificate: &Certificate,
        security: SecurityKind,
        profile: Option<Profile>,
    ) -> io::Result<LocalTransport> {
        Ok(LocalTransport {
            address: self.socket.local_addr()?,
            socket: Arc::new(self.socket.try_clone()?),
            ice: self.credentials.clone(),
            fingerprint_sha256: certificate.fingerprint_sha256(),
            cname: self.name.clone(),
            security,
            profile,
        })
    }

    /// Begins to connect with what the server told.
    pub(crate) fn begin(
        &mut self,
        remote: RemoteTransport,
        certificate: &Certificate,
        now: Instant,
    ) -> io::Result<()> {
        self.socket.connect(remote.address)?;
        self.channel = remote.channel.map(Channel);
        self.state = State::Connecting;
        self.since = now;
        match remote.security {
            Security::Dtls { ice, fingerprint, role } => {
                self.ice = Some(self.agent(ice, remote.address, now));
                let certificate = certificate.clone();
                self.dtls =
                    Some(Dtls { fingerprint, role, certificate, handshake: None, wake: None });
                if role == Role::Server {
                    // The server's first flight may overtake its answer to the check.
                    self.shake_hands(now);
                }
            }
            Security::SessionKey { ice, profile, key, salt } => {
                match ice {
                    Some(ice) => self.ice = Some(self.agent(ice, remote.address, now)),
                    None => self.state = State::Connected,
                }
                self.inbound = Inbound::new(profile, &key, &salt).ok();
                self.outbound = Outbound::new(profile, &key, &salt).ok();
                if self.inbound.is_none() || self.outbound.is_none() {
                    self.fail("the session key has not the length that its profile asks for");
                }
            }
            Security::Plain => self.state = State::Connected,
        }
        self.tick(now);
        Ok(())
    }

    fn agent(&self, ice: Ice, remote: SocketAddr, now: Instant) -> Agent {
        Agent {
            remote_key: StunKey::new(ice.credentials.pwd.as_bytes()),
            local_key: StunKey::new(self.credentials.pwd.as_bytes()),
            remote_ufrag: ice.credentials.ufrag,
            controls: ice.load_controls,
            remote,
            transaction: [0; 12],
            answered: false,
            next_check: now,
            refusal: None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Why it will never be connected.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed(why) => Some(why),
            _ => None,
        }
    }

    pub(crate) fn profile(&self) -> Option<Profile> {
        self.outbound.as_ref().map(Outbound::profile)
    }

    /// What the server wrapped, where it wraps.
    pub(crate) fn unwrap<'d>(&self, datagram: &'d mut [u8]) -> &'d mut [u8] {
        match self.channel {
            Some(channel) if channel.is_on(datagram) => {
                datagram.get_mut(Channel::HEADER..).unwrap_or_default()
            }
            _ => datagram,
        }
    }

    /// Takes a datagram, and decrypts it in place if it is media.
    pub(crate) fn handle(&mut self, now: Instant, datagram: &mut [u8]) -> Input {
        let is_plain = self.is_plain();
        match demux::classify(datagram) {
            Kind::Rtp => {
                let opened = match &mut self.inbound {
                    Some(inbound) => inbound.unprotect_rtp(datagram),
                    None if is_plain => Ok(datagram.len()),
                    None => return Input::Other,
                };
                match opened {
                    Ok(length) => Input::Rtp(length),
                    Err(strait_crypt::srtp::Error::Replayed) => Input::Replayed,
                    Err(_) => Input::Unreadable,
                }
            }
            Kind::Rtcp => {
                let opened = match &mut self.inbound {
                    Some(inbound) => inbound.unprotect_rtcp(datagram),
                    None if is_plain => Ok(datagram.len()),
                    None => return Input::Other,
                };
                opened.map_or(Input::Unreadable, Input::Rtcp)
            }
            Kind::Stun => {
                self.stun(now, datagram);
                Input::Other
            }
            Kind::Dtls => {
                self.dtls(now, datagram);
                Input::Other
            }
            _ => Input::Other,
        }
    }

    /// Protects the RTP packet in the first `length` bytes; its new length.
    pub(crate) fn protect_rtp(&mut self, packet: &mut [u8], length: usize) -> Option<usize> {
        match &mut self.outbound {
            Some(outbound) => outbound.protect_rtp(packet, length).ok(),
            None => self.is_plain().then_some(length),
        }
    }

    /// Protects and sends the RTCP compound in the first `length` bytes.
    pub(crate) fn send_rtcp(&mut self, compound: &mut [u8], length: usize) {
        let length = match &mut self.outbound {
            Some(outbound) => outbound.protect_rtcp(compound, length).ok(),
            None => self.is_plain().then_some(length),
        };
        let Some(bytes) = length.and_then(|length| compound.get(..length)) else { return };
        // What cannot be sent is lost, as on any network; the next report says more.
        let _ = match self.channel {
            Some(channel) => {
                self.socket.send_one(&[channel.header(bytes.len()).as_slice(), bytes].concat())
            }
            None => self.socket.send_one(bytes),
        };
    }

    /// Does what is due, and says when to come again.
    pub(crate) fn tick(&mut self, now: Instant) -> Instant {
        if self.state == State::Connecting && now.since(self.since) > JOIN_PATIENCE {
            let what = match &self.ice {
                Some(Agent { answered: false, refusal: Some(refusal), .. }) => {
                    format!("ICE checks are refused ({refusal})")
                }
                Some(ice) if !ice.answered => "no ICE check was answered".to_owned(),
                _ => "the DTLS handshake came to no end".to_owned(),
            };
            self.fail(&format!("{what} within {JOIN_PATIENCE:?}"));
        }
        let mut next = now + CONSENT;
        if let Some(ice) = &mut self.ice {
            if now >= ice.next_check {
                self.random.next();
                let mut bytes = [0; 600];
                if let Some(check) =
                    ice.check(&self.credentials.ufrag, &mut self.random, &mut bytes)
                {
                    let _ = self.socket.send_one(check);
                }
                ice.next_check = now + if ice.answered { CONSENT } else { CHECK_AGAIN };
            }
            next = next.min(ice.next_check);
        }
        if self.state == State::Connecting {
            let wall = std::time::Instant::now();
            if let Some(Dtls { handshake: Some(handshake), wake, .. }) = &mut self.dtls
                && wake.is_some_and(|wake| wake <= wall)
            {
                handshake.handle_timeout(wall);
                self.flush(now);
            }
            next = next.min(now + Duration::from_millis(50));
        } else if self.dtls.is_some() && now.since(self.since) > LINGER {
            self.dtls = None;
        }
        next
    }

    fn is_plain(&self) -> bool {
        self.ice.is_none() && self.state == State::Connected
    }

    fn fail(&mut self, why: &str) {
        self.state = State::Failed(format!("{}: {why}", self.name));
    }

    fn stun(&mut self, now: Instant, datagram: &[u8]) {
        let (Ok(message), Some(ice)) = (Message::parse(datagram), &mut self.ice) else { return };
        match message.class() {
            Class::Request if message.is_binding_request() => {
                let signed = message.check_integrity(|parts| ice.local_key.sign(parts));
                if signed.is_err() {
                    return;
                }
                let mut bytes = [0; 200];
                let built =
                    Builder::binding_success(&mut bytes, message.transaction_id(), ice.remote)
                        .integrity(|parts| ice.local_key.sign(parts))
                        .fingerprint()
                        .finish();
                if let Some(answer) = built.ok().and_then(|length| bytes.get(..length)) {
                    let _ = self.socket.send_one(answer);
                }
            }
            Class::Success if message.transaction_id() == ice.transaction => {
                let signed = message.check_integrity(|parts| ice.remote_key.sign(parts));
                if signed.is_err() || std::mem::replace(&mut ice.answered, true) {
                    return;
                }
                ice.next_check = now + CONSENT;
                self.path_is_open(now);
            }
            Class::Error if !ice.answered => {
                if let Some((code, reason)) = message.error_code() {
                    // The server may not know the peer yet; what it says matters if it goes on saying it.
                    ice.refusal = Some(format!("{code} {}", String::from_utf8_lossy(reason)));
                    if code == ROLE_CONFLICT && message.transaction_id() == ice.transaction {
                        ice.controls = !ice.controls;
                        ice.transaction = [0; 12];
                    }
                }
            }
            _ => {}
        }
    }

    /// The first check was answered.
    fn path_is_open(&mut self, now: Instant) {
        match &self.dtls {
            Some(Dtls { handshake: None, .. }) => self.shake_hands(now),
            Some(_) => {}
            None => self.state = State::Connected,
        }
    }

    fn shake_hands(&mut self, now: Instant) {
        if let Some(dtls) = &mut self.dtls {
            let wall = std::time::Instant::now();
            let fingerprint = dtls.fingerprint.clone();
            let handshake = Handshake::new(&dtls.certificate, dtls.role, fingerprint, wall);
            dtls.handshake = Some(Box::new(handshake));
            self.flush(now);
        }
    }

    fn dtls(&mut self, now: Instant, datagram: &[u8]) {
        if let Some(Dtls { handshake: Some(handshake), .. }) = &mut self.dtls {
            handshake.handle(std::time::Instant::now(), datagram);
            self.flush(now);
        }
    }

    /// Sends what the handshake has to send, and takes what it has to tell.
    fn flush(&mut self, now: Instant) {
        let mut failure = None;
        if let Some(Dtls { handshake: Some(handshake), wake, .. }) = &mut self.dtls {
            loop {
                match handshake.poll() {
                    Output::Transmit(datagram) => {
                        let _ = self.socket.send_one(&datagram);
                    }
                    Output::Connected(keys) => {
                        self.inbound = keys.inbound().ok();
                        self.outbound = keys.outbound().ok();
                        self.state = State::Connected;
                        self.since = now;
                    }
                    Output::Received(_) => {}
                    Output::Failed(why) => failure = Some(why),
                    Output::Closed => failure = Some("the server closed DTLS".to_owned()),
                    Output::Timeout(at) => {
                        *wake = Some(at);
                        break;
                    }
                    Output::Idle => break,
                }
            }
        }
        if let Some(why) = failure {
            self.fail(&why);
        }
    }
}

/// A TURN channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel(u16);

impl Channel {
    /// Bytes before the data.
    pub(crate) const HEADER: usize = 4;

    /// What stands before so many bytes of data (RFC 8656 section 12.4).
    pub(crate) fn header(self, length: usize) -> [u8; Self::HEADER] {
        let [n0, n1] = self.0.to_be_bytes();
        let [l0, l1] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        [n0, n1, l0, l1]
    }

    fn is_on(self, datagram: &[u8]) -> bool {
        let length = datagram.len().wrapping_sub(Self::HEADER);
        datagram.first_chunk() == Some(&self.header(length))
    }
}

impl Agent {
    fn check<'a>(
        &mut self,
        local_ufrag: &str,
        random: &mut Random,
        out: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let (a, b) = (random.next().to_be_bytes(), random.next().to_be_bytes());
        // Until it is answered it is one transaction, repeated (RFC 8489 section 6.2.1).
        if self.answered || self.transaction == [0; 12] {
            for (to, from) in self.transaction.iter_mut().zip(a.iter().chain(&b)) {
                *to = *from;
            }
        }
        let mut builder = Builder::binding_request(out, self.transaction)
            .username(self.remote_ufrag.as_bytes(), local_ufrag.as_bytes())
            .priority(PRIORITY);
        builder = if self.controls {
            builder.ice_controlling(1).use_candidate()
        } else {
            builder.ice_controlled(1)
        };
        let built = builder.integrity(|parts| self.remote_key.sign(parts)).fingerprint().finish();
        built.ok().and_then(|length| out.get(..length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_data_is_wrapped_and_known_again() {
        let channel = Channel(0x4001);
        let mut data = [channel.header(3).as_slice(), b"abc"].concat();
        assert_eq!(data, [0x40, 1, 0, 3, b'a', b'b', b'c']);
        assert!(channel.is_on(&data));
        assert!(!Channel(0x4002).is_on(&data), "another channel");
        data.pop();
        assert!(!channel.is_on(&data), "cut off");
        assert!(!channel.is_on(&data[..3]));
    }
}
