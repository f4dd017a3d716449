//! coturn as a peer: each sender allocates (RFC 8656) and binds a channel to its receiver, which is a bare UDP socket.
//!
//! Configured for throughput on one core: one relay thread, UDP alone, nothing logged for each session.

use crate::bed::{Bed, SERVER, Side};
use crate::pairs::{Pairs, Relayed, refused};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use strait_crypt::StunKey;
use strait_load::signalling::{Joined, PublisherJoin, SubscriberJoin};
use strait_load::{Signalling, SignallingError};
use strait_wire::stun::attribute::USERNAME;
use strait_wire::stun::{Builder, Class, MAGIC_COOKIE, Message, TransactionId};

const PROGRAM: &str = "/usr/bin/turnserver";
/// The port for TURN.
const PORT: u16 = 3478;
const USER: &str = "load";
/// What a password would be hashed to (RFC 8489 section 9.2.2): coturn takes the result as well, for users whose
/// password it need not know. It guards a server that lives for seconds in a namespace of its own.
const KEY: [u8; 16] = *b"strait's own key";
/// The channel of every allocation; each has but one.
const CHANNEL: u16 = 0x4000;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A request is repeated after this while it is not answered; the first ones meet a server that is starting.
const AGAIN: Duration = Duration::from_millis(200);
/// The longest answer.
const MESSAGE_BYTES: usize = 1500;

// RFC 8656 sections 17 and 18.
const ALLOCATE: u16 = 0x003;
const CHANNEL_BIND: u16 = 0x009;
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// The protocol number of UDP, and what is reserved.
const UDP: [u8; 4] = [17, 0, 0, 0];
// RFC 8489 section 14.
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const UNAUTHENTICATED: u16 = 401;

/// A coturn that runs in the bed.
#[derive(Debug)]
pub struct Coturn {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Coturn {
    /// Whether it is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts it.
    ///
    /// # Errors
    /// It is not there.
    pub fn start(bed: &Bed) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let key: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let child = bed
            .command(Side::Server, Path::new(PROGRAM))
            .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay"])
            .args(["--no-rfc5780", "--no-stdout-log", "--simple-log", "--relay-threads=1"])
            .args([format!("--listening-ip={SERVER}"), format!("--relay-ip={SERVER}")])
            .args([format!("--listening-port={PORT}"), "--realm=strait".to_owned()])
            .args(["--lt-cred-mech".to_owned(), format!("--user={USER}:0x{key}")])
            .args([format!("--log-file={}", path("log")), format!("--pidfile={}", path("pid"))])
            .arg(format!("--userdb={}", path("users")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, _folder: folder })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its clients, as the load needs them.
#[derive(Debug)]
pub struct TurnApi {
    pairs: Pairs,
}

impl TurnApi {
    /// For so many pairs.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(pairs: u16) -> Result<Self, SignallingError> {
        Ok(Self { pairs: Pairs::new(pairs)? })
    }
}

impl Signalling for TurnApi {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        let ends = self.pairs.ends(join)?;
        let server = SocketAddr::new(SERVER, PORT);
        let mut client = Client::new(&join.transport.socket, server);
        let to_receiver = client.allocate()?;
        // The channel is a permission, too (RFC 8656 section 12).
        client.bind(CHANNEL, ends.receiver)?;
        let relayed = Relayed { to_sender: server, channel: Some(CHANNEL), to_receiver };
        Ok(self.pairs.publisher(join, relayed))
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        self.pairs.subscriber(join)
    }

    /// Allocations go with the server.
    fn end(&mut self) {}
}

/// One TURN client. Nothing is refreshed: a run ends before the 10 minutes of an allocation and a channel do, and
/// before the 5 of a permission.
struct Client<'a> {
    socket: &'a UdpSocket,
    server: SocketAddr,
    key: StunKey,
    /// What the server wants to see again in every request.
    realm: Vec<u8>,
    nonce: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(socket: &'a UdpSocket, server: SocketAddr) -> Self {
        let key = StunKey::new(&KEY);
        Self { socket, server, key, realm: Vec::new(), nonce: Vec::new() }
    }

    /// The relayed address.
    fn allocate(&mut self) -> Result<SocketAddr, SignallingError> {
        let transport: [(u16, &[u8]); 1] = [(REQUESTED_TRANSPORT, &UDP)];
        // The first answer says what to sign with (RFC 8489 section 9.2.3).
        let first = self.transaction(ALLOCATE, &transport, false)?;
        let refusal = Message::parse(&first).ok();
        let refusal = refusal.filter(|refusal| code(refusal) == Some(UNAUTHENTICATED));
        let refusal = refusal.ok_or_else(|| refused("coturn asks for no credentials"))?;
        let text = |kind: u16| refusal.attribute(kind).unwrap_or_default().to_vec();
        (self.realm, self.nonce) = (text(REALM), text(NONCE));
        let answer = self.transaction(ALLOCATE, &transport, true)?;
        let address = Message::parse(&answer).ok().and_then(|answer| {
            self.checked(&answer)?;
            ipv4(answer.attribute(XOR_RELAYED_ADDRESS)?)
        });
        address.ok_or_else(|| refused(format!("coturn does not allocate: {}", said(&answer))))
    }

    fn bind(&mut self, channel: u16, to: SocketAddr) -> Result<(), SignallingError> {
        let [n0, n1] = channel.to_be_bytes();
        let peer = xored(to).ok_or_else(|| refused("the bench bed speaks IPv4"))?;
        let attributes: [(u16, &[u8]); 2] =
            [(CHANNEL_NUMBER, &[n0, n1, 0, 0]), (XOR_PEER_ADDRESS, &peer)];
        let answer = self.transaction(CHANNEL_BIND, &attributes, true)?;
        let bound = Message::parse(&answer).ok().and_then(|answer| self.checked(&answer));
        bound.ok_or_else(|| refused(format!("coturn binds no channel: {}", said(&answer))))
    }

    /// Whether it is a success that the server signed.
    fn checked(&self, answer: &Message<'_>) -> Option<()> {
        let signed = answer.check_integrity(|parts| self.key.sign(parts));
        (answer.class() == Class::Success && signed.is_ok()).then_some(())
    }

    /// Asks until there is an answer.
    fn transaction(
        &self,
        method: u16,
        attributes: &[(u16, &[u8])],
        signed: bool,
    ) -> Result<Vec<u8>, SignallingError> {
        let silent = |why: &dyn std::fmt::Display| {
            SignallingError::Unreachable(format!("coturn at {}: {why}", self.server))
        };
        let mut id = TransactionId::default();
        aws_lc_rs::rand::fill(&mut id).map_err(|_| silent(&"no randomness"))?;
        let mut out = [0; MESSAGE_BYTES];
        let request = self.request(&mut out, (method, id), attributes, signed);
        let request = request.ok_or_else(|| silent(&"the request is too long"))?;
        let start = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut answer = [0; MESSAGE_BYTES];
        while start.elapsed() < ANSWER_WITHIN {
            if asked.is_none_or(|at| at.elapsed() >= AGAIN) {
                // Nobody listens at first.
                let _ = self.socket.send_to(request, self.server);
                asked = Some(Instant::now());
            }
            match self.socket.recv_from(&mut answer) {
                Ok((length, from)) => {
                    let answer = answer.get(..length).unwrap_or_default();
                    let ours = Message::parse(answer).is_ok_and(|answer| {
                        answer.transaction_id() == id
                            && matches!(answer.class(), Class::Success | Class::Error)
                    });
                    if from == self.server && ours {
                        return Ok(answer.to_vec());
                    }
                }
                // Nothing yet, or an error of an earlier send.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(silent(&"no answer"))
    }

    fn request<'o>(
        &self,
        out: &'o mut [u8],
        (method, id): (u16, TransactionId),
        attributes: &[(u16, &[u8])],
        signed: bool,
    ) -> Option<&'o [u8]> {
        let mut builder = Builder::new(out, Class::Request, method, id);
        for (kind, value) in attributes {
            builder = builder.attribute(*kind, value);
        }
        if signed {
            builder = builder
                .attribute(USERNAME, USER.as_bytes())
                .attribute(REALM, &self.realm)
                .attribute(NONCE, &self.nonce)
                .integrity(|parts| self.key.sign(parts));
        }
        let length = builder.finish().ok()?;
        out.get(..length)
    }
}

fn code(message: &Message<'_>) -> Option<u16> {
    message.error_code().map(|(code, _)| code)
}

/// An answer in words.
fn said(answer: &[u8]) -> String {
    match Message::parse(answer).as_ref().map(Message::error_code) {
        Ok(Some((code, reason))) => format!("{code} {}", String::from_utf8_lossy(reason)),
        Ok(None) => "an answer that it did not sign, or without an address".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// An IPv4 address as the attributes XOR-… have it (RFC 8489 section 14.2).
fn xored(address: SocketAddr) -> Option<[u8; 8]> {
    let SocketAddr::V4(address) = address else { return None };
    let [m0, m1, ..] = MAGIC_COOKIE;
    let [p0, p1] = address.port().to_be_bytes();
    let ip = u32::from(*address.ip()) ^ u32::from_be_bytes(MAGIC_COOKIE);
    let [a, b, c, d] = ip.to_be_bytes();
    Some([0, 1, p0 ^ m0, p1 ^ m1, a, b, c, d])
}

fn ipv4(value: &[u8]) -> Option<SocketAddr> {
    let [0, 1, p0, p1, ip @ ..] = value.first_chunk::<8>().filter(|_| value.len() == 8)? else {
        return None;
    };
    let [m0, m1, ..] = MAGIC_COOKIE;
    let ip = u32::from_be_bytes(*ip) ^ u32::from_be_bytes(MAGIC_COOKIE);
    let port = u16::from_be_bytes([p0 ^ m0, p1 ^ m1]);
    Some(SocketAddr::new(Ipv4Addr::from_bits(ip).into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_wire::stun::attribute::XOR_MAPPED_ADDRESS;

    #[test]
    fn addresses_go_there_and_back_as_stun_has_them() {
        let address: SocketAddr = "192.0.2.7:21012".parse().unwrap();
        let value = xored(address).unwrap();
        assert_eq!(ipv4(&value), Some(address));
        assert_eq!(ipv4(&value[..7]), None);
        assert_eq!(xored("[2001:db8::1]:1".parse().unwrap()), None);
        // STUN's own writer of such an attribute.
        let mut out = [0; 64];
        let builder = Builder::new(&mut out, Class::Success, ALLOCATE, [7; 12]);
        let length = builder.xor_mapped_address(address).finish().unwrap();
        let message = Message::parse(&out[..length]).unwrap();
        assert_eq!(message.attribute(XOR_MAPPED_ADDRESS), Some(value.as_slice()));
    }

    #[test]
    fn an_allocation_is_asked_for_twice_and_signed_the_second_time() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        let address = server.local_addr().unwrap();
        let relayed: SocketAddr = "192.0.2.1:50000".parse().unwrap();
        let served = std::thread::spawn(move || {
            for (turn, wanted) in [ALLOCATE, ALLOCATE, CHANNEL_BIND].into_iter().enumerate() {
                let (mut bytes, mut out) = ([0; MESSAGE_BYTES], [0; MESSAGE_BYTES]);
                let (length, from) = server.recv_from(&mut bytes).unwrap();
                let request = Message::parse(&bytes[..length]).unwrap();
                assert_eq!((request.class(), request.method()), (Class::Request, wanted));
                let key = StunKey::new(&KEY);
                let signed = request.check_integrity(|parts| key.sign(parts));
                assert_eq!(signed.is_ok(), turn > 0);
                let id = request.transaction_id();
                let length = if turn == 0 {
                    Builder::new(&mut out, Class::Error, wanted, id)
                        .error_code(UNAUTHENTICATED, "Unauthorized")
                        .attribute(REALM, b"here")
                        .attribute(NONCE, b"1234")
                        .finish()
                } else {
                    assert_eq!(request.attribute(NONCE), Some(b"1234".as_slice()));
                    Builder::new(&mut out, Class::Success, wanted, id)
                        .attribute(XOR_RELAYED_ADDRESS, &xored(relayed).unwrap())
                        .integrity(|parts| key.sign(parts))
                        .finish()
                };
                server.send_to(&out[..length.unwrap()], from).unwrap();
            }
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut client = Client::new(&socket, address);
        assert_eq!(client.allocate().unwrap(), relayed);
        client.bind(CHANNEL, relayed).unwrap();
        served.join().unwrap();
    }
}
