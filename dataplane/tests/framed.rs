//! Connections that a control plane hands over: TLS and framed media as a peer sees them.

use crate::common::peer::Peer;
use crate::common::{Client, Setup, publish, scope, start, subscribe};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strait_proto::handover;
use strait_proto::v1::candidate::Protocol;

pub const PATIENCE: Duration = Duration::from_secs(20);
type Tls = StreamOwned<ClientConnection, TcpStream>;

pub struct Certificate {
    chain: CertificateDer<'static>,
    pub pem: Vec<u8>,
}

impl Certificate {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = (made.cert.pem() + &made.signing_key.serialize_pem()).into_bytes();
        Self { chain: made.cert.der().clone(), pem }
    }

    /// A client that trusts it and nobody else.
    fn client(&self, protocol: Option<&[u8]>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.chain.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        Arc::new(config)
    }
}

/// A connection as a control plane took it in: the peer's end, and ours.
pub fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (peer, listener.accept().unwrap().0)
}

/// Hands it over; the answer is open for as long as the relay carries it.
pub fn hand_over(rpc: &Path, ours: TcpStream, pem: &[u8]) -> UnixStream {
    let mut socket = UnixStream::connect(handover::socket_of(rpc)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let message = [&(pem.len() as u32).to_be_bytes(), pem].concat();
    let sent = handover::send(&socket, &message, &ours).unwrap();
    socket.write_all(&message[sent..]).unwrap();
    socket
}

/// TLS of a client that names this protocol.
pub fn tls(peer: TcpStream, certificate: &Certificate, protocol: Option<&[u8]>) -> Tls {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(certificate.client(protocol), name).unwrap(), peer)
}

fn is_closed(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 100]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

pub async fn metric(setup: &Setup, name: &str) -> u64 {
    let address = setup.relay.metrics_address().unwrap();
    let text = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let text = text.await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}")).parse().unwrap()
}

pub async fn wait_for(setup: &Setup, name: &str, wanted: u64) {
    let start = Instant::now();
    while metric(setup, name).await != wanted {
        assert!(start.elapsed() < PATIENCE, "{name}: {}", metric(setup, name).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn talk(client: &mut Client, ann: Peer, bob: Peer) -> (Peer, Peer) {
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let answer = client.subscribe(subscribe("room", "bob", "s", "voice")).await.unwrap();
    let ssrc = answer.into_inner().ssrc;
    let (mut ann, mut bob) = (ann, bob);
    tokio::task::spawn_blocking(move || {
        for seq in 1..200_u16 {
            ann.say(4711, seq, &seq.to_be_bytes());
            let heard = bob.hear(PATIENCE).expect("a packet");
            assert_eq!((heard.ssrc, heard.payload.as_slice()), (ssrc, &seq.to_be_bytes()[..]));
        }
        (ann, bob)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_gets_media_by_a_connection_that_was_handed_over() {
    // Several workers: the connection finds the one whose scope it is.
    let mut setup = start(3).await;
    let certificate = Certificate::new();
    setup.client.create_scope(scope("room")).await.unwrap();
    let ann = Peer::join(&mut setup.client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::prepare(&mut setup.client, "room", "bob", None).await;
    let (peer, ours) = connection();
    let mut control = hand_over(&setup.socket, ours, &certificate.pem);
    bob.go_by(tls(peer, &certificate, Some(handover::ALPN)));
    let bob = tokio::task::spawn_blocking(move || {
        bob.check();
        assert!(bob.try_shake(PATIENCE), "no DTLS handshake");
        bob
    });
    let (ann, bob) = talk(&mut setup.client, ann, bob.await.unwrap()).await;
    assert_eq!(metric(&setup, "relay_framed_connections").await, 1);
    assert_eq!(metric(&setup, "relay_framed_accepted_total").await, 1);
    if std::env::var_os("STRAIT_EXPECT_KTLS").is_some() {
        wait_for(&setup, "relay_framed_kernel_tls", 1).await;
    }
    // Its end is told to who handed it over, and is no failure.
    drop(bob);
    control.read_exact(&mut [0]).unwrap();
    assert!(tokio::task::spawn_blocking(move || is_closed(&mut control)).await.unwrap());
    wait_for(&setup, "relay_framed_connections", 0).await;
    assert_eq!(metric(&setup, "relay_framed_kernel_tls").await, 0);
    assert_eq!(metric(&setup, "relay_framed_failed_total").await, 0);
    drop(ann);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_is_that_which_came_with_the_connection() {
    let setup = start(1).await;
    let (old, new) = (Certificate::new(), Certificate::new());
    for certificate in [&old, &new, &new] {
        let (peer, ours) = connection();
        let _control = hand_over(&setup.socket, ours, &certificate.pem);
        let mut tls = tls(peer, certificate, Some(handover::ALPN));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        assert_eq!(tls.conn.alpn_protocol(), Some(handover::ALPN));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_ends_and_is_counted() {
    let setup = start(1).await;
    let certificate = Certificate::new();
    // No TLS at all.
    let (mut peer, ours) = connection();
    let _control = hand_over(&setup.socket, ours, &certificate.pem);
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset = peer.read_to_end(&mut answer);
    wait_for(&setup, "relay_framed_failed_total", 1).await;

    // A first frame that is no check, and one that is too long: the worker ends it.
    let nonsense = [0, 4, 0x80, 111, 0, 1];
    let too_long = [0xff, 0xff, 0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    for frame in [&nonsense[..], &too_long] {
        let (peer, ours) = connection();
        let _control = hand_over(&setup.socket, ours, &certificate.pem);
        let mut tls = tls(peer, &certificate, Some(handover::ALPN));
        tls.write_all(frame).unwrap();
        assert!(tokio::task::spawn_blocking(move || is_closed(&mut tls)).await.unwrap());
    }
    wait_for(&setup, "relay_framed_connections", 0).await;

    // Messages that are none: without a connection, too long, without a certificate, cut.
    let socket = handover::socket_of(&setup.socket);
    let mut bare = UnixStream::connect(&socket).unwrap();
    bare.write_all(&[0; 4]).unwrap();
    bare.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_closed(&mut bare));
    for message in [&[0xff, 0, 0, 0][..], &[0, 0, 0, 2, b'x', b'y']] {
        let (mut peer, ours) = connection();
        let mut control = UnixStream::connect(&socket).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        handover::send(&control, message, &ours).unwrap();
        drop(ours);
        assert!(is_closed(&mut control) && is_closed(&mut peer));
    }
    let (mut peer, ours) = connection();
    let cut = UnixStream::connect(&socket).unwrap();
    handover::send(&cut, &[0, 0, 0, 9, 1], &ours).unwrap();
    drop((cut, ours));
    assert!(is_closed(&mut peer));
    wait_for(&setup, "relay_framed_refused_total", 4).await;
    assert_eq!(metric(&setup, "relay_framed_accepted_total").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_have_few_places_and_take_none_from_those_who_are_known() {
    const STRANGERS: usize = 512;
    let mut setup = start(1).await;
    let certificate = Certificate::new();
    setup.client.create_scope(scope("room")).await.unwrap();
    let mut half_open = Vec::new();
    for _ in 0..STRANGERS + 8 {
        let (mut peer, ours) = connection();
        // The beginning of a ClientHello.
        peer.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
        half_open.push((hand_over(&setup.socket, ours, &certificate.pem), peer));
    }
    // They are over by time, and who comes then is known.
    wait_for(&setup, "relay_framed_refused_total", 8).await;
    assert!(metric(&setup, "relay_framed_strangers").await <= STRANGERS as u64);
    wait_for(&setup, "relay_framed_strangers", 0).await;
    let ann = Peer::join(&mut setup.client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::prepare(&mut setup.client, "room", "bob", None).await;
    let (peer, ours) = connection();
    let mut control = hand_over(&setup.socket, ours, &certificate.pem);
    bob.go_by(tls(peer, &certificate, Some(handover::ALPN)));
    let bob = tokio::task::spawn_blocking(move || {
        bob.check();
        assert!(bob.try_shake(PATIENCE), "no DTLS handshake");
        bob
    });
    let bob = bob.await.unwrap();
    let mut known = [0];
    control.read_exact(&mut known).unwrap();
    assert_eq!(known, [1], "the control plane is told");
    assert_eq!(metric(&setup, "relay_framed_strangers").await, 0);
    drop(half_open);
    talk(&mut setup.client, ann, bob).await;
}
