//! Links over QUIC: the messages on a stream, media as datagrams, and how bad ones end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig,
};
use strait_link::v1::{
    Auth, Authenticated, ClientMessage, Error, ErrorCode, Ping, SendMessage, ServerMessage,
    client_message::Body as Request, endpoint::Protocol, server_message::Body,
};
use strait_link::{ALPN, Frames, MESSAGE_BYTES, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::native::{auth, trusting};
use crate::recall::{Process, relay};
use crate::{Service, eventually};

const LONG: Duration = Duration::from_secs(20);

/// A client of its own: nothing of the node's code is in it but the messages.
struct Quic {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    frames: Frames,
    requests: u32,
}

fn config(certificate: &Path, alpn: &[u8]) -> ClientConfig {
    let crypto = QuicClientConfig::try_from(trusting(certificate, Some(alpn))).unwrap();
    ClientConfig::new(Arc::new(crypto))
}

fn endpoint(certificate: &Path, alpn: &[u8]) -> Endpoint {
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config(certificate, alpn));
    endpoint
}

impl Quic {
    async fn open(node: SocketAddr, certificate: &Path) -> Self {
        Self::over(endpoint(certificate, ALPN), node).await
    }

    async fn over(endpoint: Endpoint, node: SocketAddr) -> Self {
        let connection = endpoint.connect(node, "localhost").unwrap().await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        Self { endpoint, connection, send, receive, frames: Frames::new(), requests: 0 }
    }

    async fn request(&mut self, body: Request) {
        self.requests += 1;
        let mut bytes = Vec::new();
        encode(&ClientMessage { request: self.requests, body: Some(body) }, &mut bytes);
        self.send.write_all(&bytes).await.unwrap();
    }

    async fn ask(&mut self, body: Request) -> Result<Body, Error> {
        self.request(body).await;
        loop {
            let message = self.read().await.expect("an answer");
            match message.body {
                Some(Body::Error(error)) => return Err(error),
                Some(body) if message.request == self.requests => return Ok(body),
                _ => {}
            }
        }
    }

    async fn authenticate(&mut self, auth: Auth) -> Authenticated {
        match self.ask(Request::Auth(auth)).await.unwrap() {
            Body::Authenticated(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    async fn read(&mut self) -> Option<ServerMessage> {
        loop {
            if let Some(message) = self.frames.next(MESSAGE_BYTES).unwrap() {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            match timeout(LONG, self.receive.read(&mut bytes)).await.expect("something") {
                Ok(Some(length)) => self.frames.push(&bytes[..length]),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Service {
    async fn start_quic(ice_tcp: Option<SocketAddr>) -> Self {
        Self::start_with(|config| {
            config.link.quic_listen = vec!["127.0.0.1:0".parse().unwrap()];
            config.relay.ice_tcp = ice_tcp;
        })
        .await
    }

    async fn quic(&self) -> Quic {
        Quic::open(self.server.quic[0], &self.folder.path().join("certificate.pem")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_over_quic_carries_messages_on_a_stream_and_media_as_datagrams() {
    // In the relay's place: what it takes over TCP, and what it answers.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = Service::start_quic(Some(relay.local_addr().unwrap())).await;
    let mut ann = service.quic().await;
    let at_ann = ann.authenticate(auth("lobby", "Ann")).await;
    assert_eq!(at_ann.key.unwrap().key.len(), 16);
    assert!(
        matches!(ann.ask(Request::Ping(Ping { token: 7 })).await, Ok(Body::Pong(p)) if p.token == 7)
    );

    ann.connection.send_datagram(vec![1; 700].into()).unwrap();
    let (mut at_relay, _) = timeout(LONG, relay.accept()).await.unwrap().unwrap();
    let mut frame = [0; 702];
    timeout(LONG, at_relay.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!((&frame[..2], frame[701]), (&700u16.to_be_bytes()[..], 1));
    at_relay.write_all(&[&[0, 3][..], &[9; 3]].concat()).await.unwrap();
    let answer = timeout(LONG, ann.connection.read_datagram()).await.unwrap().unwrap();
    assert_eq!(&answer[..], [9; 3]);
    // What no datagram carries comes over the stream.
    at_relay.write_all(&[&2_000u16.to_be_bytes()[..], &[8; 2000]].concat()).await.unwrap();
    let large = loop {
        if let Some(Body::Media(media)) = ann.read().await.unwrap().body {
            break media.packet;
        }
    };
    assert_eq!(large, [8; 2000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn framed_media_is_where_https_is_not_at_the_port_of_quic() {
    let relay = Some("127.0.0.1:9".parse().unwrap());
    let tls = |at: &Authenticated| -> Vec<u32> {
        let endpoints = at.endpoints.iter();
        let tls = endpoints.filter(|endpoint| endpoint.protocol() == Protocol::Tls);
        tls.map(|endpoint| endpoint.port).collect()
    };
    let service = Service::start_with(|config| {
        config.http.https_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.link.quic_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.relay.ice_tcp = relay;
    })
    .await;
    let at_ann = service.quic().await.authenticate(auth("lobby", "Ann")).await;
    assert_eq!(tls(&at_ann), [u32::from(service.server.https[0].port())]);

    let without = Service::start_quic(relay).await;
    let at_bob = without.quic().await.authenticate(auth("lobby", "Bob")).await;
    assert_eq!(tls(&at_bob), [0; 0], "nothing takes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_the_address_and_the_connection() {
    let service = Service::start_quic(None).await;
    let mut ann = service.quic().await;
    let first = ann.authenticate(auth("lobby", "Ann")).await;
    // Another port, as after a change of network: the same link.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    ann.endpoint.rebind(socket).unwrap();
    assert!(matches!(ann.ask(Request::Ping(Ping { token: 1 })).await, Ok(Body::Pong(_))));
    ann.connection.close(7u8.into(), b"");
    eventually("the link is lost", || service.server.app.links.states()[2].1 == 1).await;
    let mut again = service.quic().await;
    let back =
        Auth { session_id: first.session_id.clone(), reconnect: true, ..auth("lobby", "Ann") };
    let second = again.authenticate(back).await;
    assert!(second.resumed);
    assert_eq!(second.peer_id, first.peer_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_beginnings_are_refused_and_leave_nothing() {
    let service = Service::start_quic(None).await;
    let node = service.server.quic[0];
    let certificate = service.folder.path().join("certificate.pem");
    // Another protocol.
    let other = endpoint(&certificate, b"h3");
    let refused = other.connect(node, "localhost").unwrap().await.unwrap_err();
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused:?}");
    // No credential: told why, then the connection ends.
    let mut stranger = service.quic().await;
    let nobody = Auth { credential: None, ..auth("lobby", "Eve") };
    let error = stranger.ask(Request::Auth(nobody)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unauthorized);
    timeout(LONG, stranger.connection.closed()).await.unwrap();
    // A frame beyond all limits.
    let mut large = service.quic().await;
    large.send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let last = large.read().await.unwrap();
    assert!(matches!(last.body, Some(Body::Error(error)) if error.code() == ErrorCode::TooLarge));
    timeout(LONG, large.connection.closed()).await.unwrap();
    // A connection without a stream, and noise: the one is told, and both end by time.
    let silent = endpoint(&certificate, ALPN);
    let silent = silent.connect(node, "localhost").unwrap().await.unwrap();
    let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for byte in 0..=255 {
        noise.send_to(&[byte; 1200], node).unwrap();
    }
    match timeout(LONG, silent.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code, 1_u32.into());
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            assert!(reason.contains("no stream within 5 s"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let states = || service.server.app.links.states().map(|(_, count)| count);
    eventually("nothing stays", || states() == [0; 3]).await;
    let mut still = service.quic().await;
    still.authenticate(auth("lobby", "Ann")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_process_is_told() {
    let service = Service::start_quic(None).await;
    let mut ann = service.quic().await;
    ann.authenticate(auth("lobby", "Ann")).await;
    let Service { server, .. } = service;
    let stopping = tokio::spawn(server.stop());
    let last = loop {
        if let Some(Body::Error(error)) = ann.read().await.expect("last words").body {
            break error;
        }
    };
    assert_eq!(last.code(), ErrorCode::Unavailable);
    assert!(ann.read().await.is_none());
    timeout(LONG, stopping).await.unwrap().unwrap();
}

#[test]
fn a_process_says_of_connections_of_one_before_that_they_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, _running) = relay(&folder);
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = || {
        Process::start_with(folder.path(), |config| {
            config.link.quic_listen = vec![free];
            config.link.reconnect_seconds = 60;
        })
    };
    let certificate = folder.path().join("certificate.pem");
    let here = tokio::runtime::Runtime::new().unwrap();
    let first = start();
    let mut ann = here.block_on(Quic::open(free, &certificate));
    let at_ann = here.block_on(ann.authenticate(auth("lobby", "Ann")));
    let _killed = first.kill();
    let second = start();
    let why = here.block_on(async {
        // Whatever comes of her is answered so, be it an acknowledgement that was on its way.
        let _lost = ann.send.write_all(&[0; 4]).await;
        timeout(Duration::from_secs(10), ann.connection.closed()).await.expect("it says nothing")
    });
    assert!(matches!(why, ConnectionError::Reset), "{why}");
    let mut ann = here.block_on(Quic::open(free, &certificate));
    let again = Auth { session_id: at_ann.session_id, ..auth("lobby", "Ann") };
    assert!(here.block_on(ann.authenticate(again)).resumed);
    let _second = second.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_told_with_the_close() {
    let service = Service::start_with(|config| {
        config.link.quic_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.link.kibibytes_per_second = 0;
    })
    .await;
    let (mut ann, mut bob) = (service.quic().await, service.quic().await);
    ann.authenticate(auth("lobby", "Ann")).await;
    bob.authenticate(auth("lobby", "Bob")).await;
    // More than waits for anybody.
    for number in 1..=300 {
        let payload = vec![7; 60_000];
        let message = SendMessage { number, payload, ..Default::default() };
        let mut bytes = Vec::new();
        let body = Some(Request::SendMessage(message));
        encode(&ClientMessage { request: 0, body }, &mut bytes);
        bob.send.write_all(&bytes).await.unwrap();
    }
    match timeout(LONG, ann.connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), 2, "{close}");
            assert!(close.reason.starts_with(b"the last messages were not read"), "{close}");
        }
        other => panic!("{other:?}"),
    }
    bob.ask(Request::Ping(Ping { token: 1 })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_over_a_slow_line_is_answered_before_what_waits() {
    let service = Service::start_with(|config| {
        config.link.quic_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.link.kibibytes_per_second = 0;
    })
    .await;
    // It takes little that is not read: what it takes is what the line would bring.
    let certificate = service.folder.path().join("certificate.pem");
    let mut transport = TransportConfig::default();
    transport.stream_receive_window((32_u32 << 10).into());
    let mut config = config(&certificate, ALPN);
    config.transport_config(Arc::new(transport));
    let mut endpoint = endpoint(&certificate, ALPN);
    endpoint.set_default_client_config(config);
    let mut ann = Quic::over(endpoint, service.server.quic[0]).await;
    let mut bob = service.quic().await;
    ann.authenticate(auth("lobby", "Ann")).await;
    bob.authenticate(auth("lobby", "Bob")).await;
    for number in 1..=60 {
        let payload = vec![7; 60_000];
        let message = SendMessage { number, payload, ..Default::default() };
        bob.request(Request::SendMessage(message)).await;
    }
    let taken = |body: &Body| matches!(body, Body::MessagesTaken(taken) if taken.number == 60);
    while !bob.read().await.is_some_and(|message| message.body.as_ref().is_some_and(taken)) {}
    // The second is asked for when all that waits has been waiting for a while.
    for token in 1..=2 {
        ann.request(Request::Ping(Ping { token })).await;
        let mut bytes = 0;
        loop {
            match ann.read().await.unwrap().body.unwrap() {
                Body::Message(message) => bytes += message.payload.len(),
                Body::Pong(_) => break,
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // 2 s of a line of 1 Mbit/s.
        assert!(bytes < 250_000, "{bytes} bytes came before the answer");
    }
}
