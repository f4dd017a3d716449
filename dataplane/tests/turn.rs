//! TURN over TLS as a client of it sees it: a call by it, what may not be, and who is none of ours.

use crate::common::peer::Peer;
use crate::common::{scope, start};
use crate::framed::{Certificate, PATIENCE, connection, hand_over, metric, talk, tls, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strait_crypt::{StunKey, hmac_sha1};
use strait_proto::handover;
use strait_proto::v1::candidate::Protocol;
use strait_wire::stun::{self, Builder, Class, Message};
use strait_wire::turn::{self, Frame, attribute as turns};

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;
const SECRET: [u8; handover::TURN_SECRET_BYTES] = [7; handover::TURN_SECRET_BYTES];

/// A certificate, and what is handed over with it.
fn certificate() -> (Certificate, Vec<u8>) {
    let certificate = Certificate::new();
    let turn = handover::turn_pem(&SECRET);
    let pem = [&certificate.pem[..], turn.as_bytes()].concat();
    (certificate, pem)
}

/// One connection of TURN.
struct Turn {
    tls: Tls,
    read: Vec<u8>,
    user: String,
    key: StunKey,
    nonce: Vec<u8>,
}

impl Turn {
    fn new(tls: Tls, user: &str) -> Self {
        let user = format!("4000000000:{user}");
        let password = base64(&hmac_sha1(&SECRET, &[user.as_bytes()]));
        let key = md5::compute(&format!("{user}:strait:{password}"));
        Self { tls, read: Vec::new(), key: StunKey::new(&key), user, nonce: Vec::new() }
    }

    /// The code of the answer, 0 for success, and the answer.
    fn ask(&mut self, method: u16, attributes: &[(u16, &[u8])]) -> (u16, Vec<u8>) {
        let mut room = [0; 500];
        let mut builder = Builder::new(&mut room, Class::Request, method, [9; 12]);
        for (kind, value) in attributes {
            builder = builder.attribute(*kind, value);
        }
        if !self.nonce.is_empty() {
            builder = builder
                .attribute(stun::attribute::USERNAME, self.user.as_bytes())
                .attribute(turns::REALM, b"strait")
                .attribute(turns::NONCE, &self.nonce)
                .integrity(|parts| self.key.sign(parts));
        }
        let length = builder.finish().unwrap();
        self.tls.write_all(&room[..length]).unwrap();
        let answer = loop {
            if let Some((None, answer)) = self.frame() {
                break answer;
            }
            let mut bytes = [0; 2000];
            let length = self.tls.read(&mut bytes).unwrap();
            assert!(length > 0, "closed");
            self.read.extend_from_slice(&bytes[..length]);
        };
        let message = Message::parse(&answer).unwrap();
        if let Some(nonce) = message.attribute(turns::NONCE) {
            self.nonce = nonce.to_vec();
        }
        (message.error_code().map_or(0, |(code, _)| code), answer)
    }

    fn allocate(&mut self) -> SocketAddr {
        let udp = [(turns::REQUESTED_TRANSPORT, &[17, 0, 0, 0][..])];
        assert_eq!(self.ask(turn::ALLOCATE, &udp).0, 401);
        let (code, answer) = self.ask(turn::ALLOCATE, &udp);
        assert_eq!(code, 0);
        let message = Message::parse(&answer).unwrap();
        message.xor_address(message.attribute(turns::XOR_RELAYED_ADDRESS).unwrap()).unwrap()
    }

    fn bind(&mut self, peer: SocketAddr) -> u16 {
        let mut room = [0; 100];
        let builder = Builder::new(&mut room, Class::Request, 1, [9; 12]);
        let length = builder.xor_address(turns::XOR_PEER_ADDRESS, peer).finish().unwrap();
        let message = Message::parse(&room[..length]).unwrap();
        let value = message.attribute(turns::XOR_PEER_ADDRESS).unwrap();
        let number = [0x40, 0, 0, 0];
        let attributes = [(turns::XOR_PEER_ADDRESS, value), (turns::CHANNEL_NUMBER, &number[..])];
        self.ask(turn::CHANNEL_BIND, &attributes).0
    }

    /// What came whole: with the number of its channel, or a message.
    fn frame(&mut self) -> Option<(Option<u16>, Vec<u8>)> {
        let (frame, taken) = turn::frame(&self.read, 1 << 16).unwrap()?;
        let found = match frame {
            Frame::Stun(bytes) => (None, bytes.to_vec()),
            Frame::Channel { number, data } => (Some(number), data.to_vec()),
        };
        self.read.drain(..taken);
        Some(found)
    }

    /// Carries what comes to `socket` by the channel, and back, until told to end.
    fn carry(mut self, socket: &UdpSocket, end: &AtomicBool) {
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        self.tls.sock.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut peer = None;
        let mut bytes = [0; 4000];
        while !end.load(Ordering::Relaxed) {
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                peer = Some(from);
                let (header, padding) = turn::channel_header(0x4000, length as u16);
                let frame = [&header[..], &bytes[..length], &vec![0; padding]].concat();
                self.tls.write_all(&frame).unwrap();
            }
            match self.tls.read(&mut bytes) {
                Ok(length) => self.read.extend_from_slice(&bytes[..length]),
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
                Err(error) => panic!("{error}"),
            }
            while let Some((number, data)) = self.frame() {
                assert_eq!(number, Some(0x4000), "by the channel, once there is one");
                socket.send_to(&data, peer.unwrap()).unwrap();
            }
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digits = bits.as_bytes().chunks(6).map(|six| {
        let six = format!("{:0<6}", std::str::from_utf8(six).unwrap());
        char::from(ALPHABET[usize::from_str_radix(&six, 2).unwrap()])
    });
    let text: String = digits.collect();
    let width = text.len().next_multiple_of(4);
    format!("{text:=<width$}")
}

mod md5 {
    use ::md5::{Digest as _, Md5};

    pub fn compute(text: &str) -> [u8; 16] {
        Md5::digest(text.as_bytes()).into()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_by_turn() {
    // Several workers: the connection finds the one whose scope it is.
    let mut setup = start(3).await;
    let (certificate, pem) = certificate();
    setup.client.create_scope(scope("room")).await.unwrap();
    let ann = Peer::join(&mut setup.client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::prepare(&mut setup.client, "room", "bob", None).await;
    let (peer, ours) = connection();
    let mut control = hand_over(&setup.socket, ours, &pem);
    let mut turn = Turn::new(tls(peer, &certificate, None), "bob");
    let media = bob.node().unwrap();
    let end = Arc::new(AtomicBool::new(false));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    bob.send_to(socket.local_addr().unwrap());
    let ends = Arc::clone(&end);
    let (turn, relayed) = tokio::task::spawn_blocking(move || {
        let relayed = turn.allocate();
        let mut known = [0];
        control.read_exact(&mut known).unwrap();
        assert_eq!(known, [handover::KNOWN]);
        assert_eq!(turn.bind("127.0.0.1:22".parse().unwrap()), 403);
        assert_eq!(turn.bind("192.0.2.1:8443".parse().unwrap()), 403);
        assert_eq!(turn.bind(media), 0);
        ((turn, control), relayed)
    })
    .await
    .unwrap();
    let (turn, mut control) = turn;
    let carried = std::thread::spawn(move || turn.carry(&socket, &ends));
    let bob = tokio::task::spawn_blocking(move || {
        // The answer names the relayed address: a browser finds its own candidate in it.
        assert_eq!(bob.check(), relayed);
        assert!(bob.try_shake(PATIENCE), "no DTLS handshake");
        bob
    });
    let (ann, bob) = talk(&mut setup.client, ann, bob.await.unwrap()).await;
    assert_eq!(metric(&setup, "relay_turn_allocations").await, 1);
    assert_eq!(metric(&setup, "relay_turn_forbidden_total").await, 2);
    assert_eq!(metric(&setup, "relay_framed_strangers").await, 0);
    end.store(true, Ordering::Relaxed);
    carried.join().unwrap();
    wait_for(&setup, "relay_turn_allocations", 0).await;
    wait_for(&setup, "relay_framed_connections", 0).await;
    assert_eq!(metric(&setup, "relay_framed_failed_total").await, 0);
    assert_eq!(control.read(&mut [0]).unwrap(), 0, "the control plane is told");
    drop((ann, bob));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_no_protocol_and_is_none_of_ours_goes_back() {
    let setup = start(1).await;
    let (certificate, pem) = certificate();
    for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 5, 1, 2, 3, 4, 5]] {
        let (peer, ours) = connection();
        let mut control = hand_over(&setup.socket, ours, &pem);
        let mut tls = tls(peer, &certificate, None);
        let (said, large) = (said.to_vec(), vec![0x5a; 300_000]);
        tokio::task::spawn_blocking(move || {
            tls.write_all(&said).unwrap();
            let mut came = vec![0; 1 + said.len()];
            control.read_exact(&mut came).unwrap();
            assert_eq!((came[0], &came[1..]), (handover::BACK, &said[..]));
            let answer = large.clone();
            let answers = std::thread::spawn(move || {
                control.write_all(&answer).unwrap();
                control
            });
            let mut came = vec![0; large.len()];
            tls.read_exact(&mut came).unwrap();
            assert_eq!(came, large);
            drop(answers.join().unwrap());
            assert_eq!(tls.read(&mut [0]).unwrap(), 0, "with a proper end");
        })
        .await
        .unwrap();
    }
    wait_for(&setup, "relay_framed_back", 0).await;
    assert_eq!(metric(&setup, "relay_framed_back_total").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_to_turn_ends() {
    let setup = start(1).await;
    let (certificate, pem) = certificate();
    let protocol = Some(handover::TURN_ALPN);
    let bare = [0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let nonsense =
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x80; 40], &[0, 1, 0xff, 0xfc], &bare.repeat(17)];
    for said in nonsense {
        let (peer, ours) = connection();
        let _control = hand_over(&setup.socket, ours, &pem);
        let mut tls = tls(peer, &certificate, protocol);
        tls.write_all(said).unwrap();
        let said = said.to_vec();
        tokio::task::spawn_blocking(move || {
            let mut answers = Vec::new();
            let _cut = tls.read_to_end(&mut answers);
            // 401 for each that asked for something, of a hundred bytes or so.
            assert!(answers.len() <= said.len() * 6, "{}", answers.len());
        })
        .await
        .unwrap();
    }
    wait_for(&setup, "relay_framed_connections", 0).await;
    assert_eq!(metric(&setup, "relay_turn_allocated_total").await, 0);
}
