//! Native clients through a real relay: SRTP under the scope's session key, over UDP, over framed
//! media, and over the link.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use strait_control::server::Server;
use strait_crypt::StunKey;
use strait_crypt::srtp::{Inbound, Outbound, Profile, SharedKey};
use strait_link::v1::{
    Authenticated, Kind, Media, Publish, Published, Subscribe, Subscribed,
    client_message::Body as Request, endpoint::Protocol, server_message::Body,
    transport_report::State, user_event::Body as Event,
};
use strait_proto::v1::{self, relay_client::RelayClient};
use strait_relay::Relay;
use strait_wire::demux;
use strait_wire::rtp::{HeaderBuilder, Packet};
use strait_wire::stun::{Builder, Class, Message};
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::link_client::{Native, auth, trusting};

const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    server: Server,
    _relay: Relay,
    folder: TempDir,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("relay.sock");
        let relay = strait_relay::Config {
            rpc_socket: socket.clone(),
            port: 0,
            ice_tcp_listen: Some("127.0.0.1:0".parse().unwrap()),
            metrics_listen: None,
            workers: 2,
            ..strait_relay::Config::default()
        };
        let relay = Relay::start(&relay).await.unwrap();
        let mut config = strait_control::Config::default();
        config.http.https_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.http.http_listen.clear();
        config.http.state_dir = folder.path().into();
        config.store.url = format!("sqlite:{}", folder.path().join("control.db").display());
        config.auth.dev_tokens = vec!["dev".to_owned().into()];
        config.relay.ice_tcp = Some(ice_tcp(socket.clone()).await);
        config.relay.rpc_socket = socket;
        let server = Server::start(config).await.unwrap();
        Self { server, _relay: relay, folder }
    }

    fn join(&self, name: &str) -> Client {
        let certificate = self.folder.path().join("certificate.pem");
        let tls = trusting(&certificate, Some(strait_link::ALPN));
        let mut link = Native::open(self.server.https[0], tls);
        let answer = link.authenticate(auth("stage", name)).unwrap();
        Client::new(link, answer)
    }

    /// A connection for framed media.
    fn framed(&self) -> Over {
        let certificate = self.folder.path().join("certificate.pem");
        let tls = trusting(&certificate, Some(strait_link::MEDIA_ALPN));
        Over::Framed(Box::new(Native::open(self.server.https[0], tls)), Vec::new())
    }
}

/// How a client's media goes.
enum Over {
    Udp,
    Link,
    /// What came of a frame is kept.
    Framed(Box<Native>, Vec<u8>),
}

/// Where the relay takes ICE-TCP.
async fn ice_tcp(socket: PathBuf) -> SocketAddr {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://relay");
    let mut client = RelayClient::new(endpoint.connect_with_connector(connector).await.unwrap());
    let info = client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let tcp = v1::candidate::Protocol::TcpPassive;
    let port = info.candidates.iter().find(|c| c.protocol() == tcp).unwrap().port;
    SocketAddr::new([127, 0, 0, 1].into(), port.try_into().unwrap())
}

/// A native client of raw sockets.
struct Client {
    link: Native,
    answer: Authenticated,
    udp: UdpSocket,
    over: Over,
    inbound: Inbound,
    outbound: Outbound,
}

impl Client {
    fn new(link: Native, answer: Authenticated) -> Self {
        let given = answer.key.clone().unwrap();
        assert_eq!(given.profile, 7);
        let profile = Profile::AeadAes128Gcm;
        let key = SharedKey { profile, key: given.key, salt: given.salt };
        let is_udp = |e: &&strait_link::v1::Endpoint| {
            e.protocol() == Protocol::Udp && e.address == "127.0.0.1"
        };
        let endpoint = answer.endpoints.iter().find(is_udp).expect("a UDP endpoint");
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect((endpoint.address.as_str(), endpoint.port as u16)).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (inbound, outbound) = (key.inbound().unwrap(), key.outbound().unwrap());
        Self { link, answer, udp, over: Over::Udp, inbound, outbound }
    }

    fn send(&mut self, packet: &[u8]) {
        match &mut self.over {
            Over::Link => self.link.tell(Request::Media(Media { packet: packet.to_vec() })),
            Over::Udp => drop(self.udp.send(packet)),
            Over::Framed(native, _) => {
                let length = (packet.len() as u16).to_be_bytes();
                native.tls.write_all(&[&length, packet].concat()).unwrap();
            }
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        if let Over::Framed(native, came) = &mut self.over {
            loop {
                if let Some((length, rest)) = came.split_first_chunk()
                    && let Some(packet) = rest.get(..u16::from_be_bytes(*length).into())
                {
                    let packet = packet.to_vec();
                    came.drain(..2 + packet.len());
                    return Some(packet);
                }
                let mut bytes = [0; 2048];
                let length = native.tls.read(&mut bytes).expect("a frame");
                assert_ne!(length, 0, "the node closed it");
                came.extend_from_slice(&bytes[..length]);
            }
        }
        if let Over::Link = self.over {
            loop {
                match self.link.next().expect("a packet") {
                    Body::Media(media) => return Some(media.packet),
                    Body::Event(_) | Body::Ping(_) | Body::Direct(_) | Body::DirectEnded(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut bytes = vec![0; 2048];
        let length = self.udp.recv(&mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    /// A STUN check, until it is answered.
    fn check(&mut self) {
        let (node, own) = (self.answer.node_ice.clone(), self.answer.client_ice.clone());
        let (node, own) = (node.unwrap(), own.unwrap());
        let key = StunKey::new(node.pwd.as_bytes());
        let mut bytes = [0; 300];
        let length = Builder::binding_request(&mut bytes, [5; 12])
            .username(node.ufrag.as_bytes(), own.ufrag.as_bytes())
            .priority(1 << 24)
            .ice_controlling(77)
            .use_candidate()
            .integrity(|parts| key.sign(parts))
            .fingerprint()
            .finish()
            .unwrap();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.send(&bytes[..length]);
            let Some(answer) = self.receive() else { continue };
            let Ok(answer) = Message::parse(&answer) else { continue };
            assert_eq!(answer.class(), Class::Success);
            answer.check_integrity(|parts| key.sign(parts)).unwrap();
            return;
        }
        panic!("no answer to a check");
    }

    fn publish(&mut self, kind: Kind, codec: &str) -> Published {
        let publish = Publish { kind: kind.into(), codec: codec.into(), ..Publish::default() };
        match self.link.ask(Request::Publish(publish)).unwrap() {
            Body::Published(published) => published,
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(&mut self, publication: &Published, as_sent: bool) -> Subscribed {
        let publication_id = publication.publication_id.clone();
        let subscribe = Subscribe { publication_id, as_sent, ..Subscribe::default() };
        match self.link.ask(Request::Subscribe(subscribe)).unwrap() {
            Body::Subscribed(subscribed) => subscribed,
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, ssrc: u32, seq: u16) {
        let mut packet = [0; 300];
        let timestamp = u32::from(seq) * 960;
        let header = HeaderBuilder { pt: 111, seq, timestamp, ssrc, ..HeaderBuilder::default() };
        // Loud enough to be heard.
        let length = header.write(&[], [(1, &[10][..])], &mut packet).unwrap();
        packet[length..length + 80].fill(seq as u8);
        let length = self.outbound.protect_rtp(&mut packet, length + 80).unwrap();
        self.send(&packet[..length]);
    }

    /// The next RTP packet from `ssrc`: its payload type and payload.
    fn hear(&mut self, ssrc: u32) -> (u8, Vec<u8>) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let Some(mut bytes) = self.receive() else { continue };
            if demux::classify(&bytes) != demux::Kind::Rtp {
                continue;
            }
            let length = self.inbound.unprotect_rtp(&mut bytes).expect("the session key");
            let packet = Packet::parse(&bytes[..length]).unwrap();
            if packet.header().ssrc() == ssrc {
                return (packet.header().pt(), packet.payload().to_vec());
            }
        }
        panic!("nothing heard from {ssrc}");
    }
}

/// Both ways between two; the second has media as `over` says.
async fn a_call_of_two(over: impl FnOnce(&Node) -> Over) {
    let node = Node::start().await;
    let (mut ann, mut bob) = (node.join("Ann"), node.join("Bob"));
    bob.over = over(&node);
    tokio::task::spawn_blocking(move || {
        ann.check();
        bob.check();
        let wanted = match bob.over {
            Over::Udp => State::UdpRelay,
            Over::Link => State::Link,
            Over::Framed(..) => State::TcpRelay,
        };
        if wanted != State::Link {
            while !matches!(bob.link.event(), Event::Connected(c) if c.state() == wanted) {}
        }
        let (voice_of_ann, voice_of_bob) =
            (ann.publish(Kind::Audio, "opus"), bob.publish(Kind::Audio, "opus"));
        let (to_bob, to_ann) =
            (bob.subscribe(&voice_of_ann, true), ann.subscribe(&voice_of_bob, false));
        assert_eq!(to_bob.ssrc, voice_of_ann.encodings[0].ssrc, "as sent");
        assert_ne!(to_ann.ssrc, voice_of_bob.encodings[0].ssrc, "the relay's own");
        assert_eq!(to_ann.encodings, voice_of_bob.encodings);
        // The first packets open streams; each that comes is one that was sent.
        for seq in 1..=60u16 {
            ann.say(voice_of_ann.encodings[0].ssrc, seq);
            bob.say(voice_of_bob.encodings[0].ssrc, seq);
            std::thread::sleep(Duration::from_millis(2));
        }
        for (client, ssrc) in [(&mut bob, to_bob.ssrc), (&mut ann, to_ann.ssrc)] {
            for _ in 0..20 {
                let (pt, payload) = client.hear(ssrc);
                assert_eq!((pt, payload.len()), (111, 80));
                assert!(payload.iter().all(|byte| *byte == payload[0] && (1..=60).contains(byte)));
            }
        }
        // The link itself is as quick as before.
        ann.subscribe(&voice_of_bob, true);
        bob.publish(Kind::Video, "VP8");
    })
    .await
    .unwrap();
    node.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_clients_talk_over_udp() {
    a_call_of_two(|_| Over::Udp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_clients_talk_over_the_link() {
    a_call_of_two(|_| Over::Link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_clients_talk_over_framed_media() {
    a_call_of_two(Node::framed).await;
}
