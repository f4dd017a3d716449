//! Native clients through a real relay: SRTP under the scope's session key, over UDP, over framed
//! media, and over the link.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use strait_control::auth::{Claims, Key, Material, Secret, Signer, mint};
use strait_control::server::Server;
use strait_crypt::StunKey;
use strait_crypt::srtp::{Error, Inbound, Outbound, Profile, SharedKey};
use strait_link::v1::{
    Auth, Authenticated, Kind, Leave, Media, Publish, Published, SessionKey, Subscribe, Subscribed,
    auth::Credential, client_message::Body as Request, endpoint::Protocol, server_message::Body,
    transport_report::State, user_event::Body as Event,
};
use strait_proto::v1::{self, relay_client::RelayClient};
use strait_relay::Relay;
use strait_wire::demux;
use strait_wire::rtp::{HeaderBuilder, Packet};
use strait_wire::stun::{Builder, Class, Message};
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::link_client::{Native, auth, secrets, trusting};
use crate::log::Watch;

// Neither gives out what is the other's.
const _: () = assert!(strait_control::limits::SSRCS_END == strait_core::limits::RELAY_SSRCS);

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    pub server: Server,
    _relay: Relay,
    pub folder: TempDir,
    /// Nothing that its clients were told in confidence is in its log, nor in the relay's.
    _watch: Watch,
}

impl Node {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut strait_control::Config)) -> Self {
        let _watch = Watch::new(secrets());
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
        config.store.url = format!("sqlite:{}", folder.path().join("control.db").display()).into();
        config.auth.dev_tokens = vec!["dev".to_owned().into()];
        config.relay.ice_tcp = Some(ice_tcp(socket.clone()).await);
        config.relay.rpc_socket = socket;
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        Self { server, _relay: relay, folder, _watch }
    }

    pub fn join(&self, name: &str) -> Client {
        self.enter(auth("stage", name))
    }

    fn enter(&self, auth: Auth) -> Client {
        let certificate = self.folder.path().join("certificate.pem");
        let tls = trusting(&certificate, Some(strait_link::ALPN));
        let mut link = Native::open(self.server.https[0], tls);
        let answer = link.authenticate(auth).unwrap();
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
pub struct Client {
    pub link: Native,
    answer: Authenticated,
    udp: UdpSocket,
    over: Over,
    pub inbound: Inbound,
    outbound: Outbound,
}

fn shared(given: SessionKey) -> SharedKey {
    assert_eq!(given.profile, 7);
    SharedKey { profile: Profile::AeadAes128Gcm, key: given.key, salt: given.salt }
}

impl Client {
    fn new(link: Native, answer: Authenticated) -> Self {
        let key = shared(answer.key.clone().unwrap());
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

    pub fn send(&mut self, packet: &[u8]) {
        match &mut self.over {
            Over::Link => self.link.tell(Request::Media(Media { packet: packet.to_vec() })),
            Over::Udp => drop(self.udp.send(packet)),
            Over::Framed(native, _) => {
                let length = (packet.len() as u16).to_be_bytes();
                native.tls.write_all(&[&length, packet].concat()).unwrap();
            }
        }
    }

    pub fn receive(&mut self) -> Option<Vec<u8>> {
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
                    Body::Event(_) | Body::Ping(_) => {}
                    Body::Direct(_) | Body::DirectEnded(_) | Body::DirectWanted(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut bytes = vec![0; 2048];
        let length = self.udp.recv(&mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    /// A STUN check.
    pub fn request(&self) -> Vec<u8> {
        let (node, own) = (self.answer.node_ice.clone(), self.answer.client_ice.clone());
        let (node, own) = (node.unwrap(), own.unwrap());
        let key = StunKey::new(node.pwd.as_bytes());
        let mut bytes = vec![0; 300];
        let length = Builder::binding_request(&mut bytes, [5; 12])
            .username(node.ufrag.as_bytes(), own.ufrag.as_bytes())
            .priority(1 << 24)
            .ice_controlling(77)
            .use_candidate()
            .integrity(|parts| key.sign(parts))
            .fingerprint()
            .finish()
            .unwrap();
        bytes.truncate(length);
        bytes
    }

    /// Checks until it is answered.
    pub fn check(&mut self) {
        let request = self.request();
        let key = StunKey::new(self.answer.node_ice.as_ref().unwrap().pwd.as_bytes());
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.send(&request);
            let Some(answer) = self.receive() else { continue };
            let Ok(answer) = Message::parse(&answer) else { continue };
            assert_eq!(answer.class(), Class::Success);
            answer.check_integrity(|parts| key.sign(parts)).unwrap();
            return;
        }
        panic!("no answer to a check");
    }

    pub fn publish(&mut self, kind: Kind, codec: &str) -> Published {
        let publish = Publish { kind: kind.into(), codec: codec.into(), ..Publish::default() };
        match self.link.ask(Request::Publish(publish)).unwrap() {
            Body::Published(published) => published,
            other => panic!("{other:?}"),
        }
    }

    pub fn subscribe(&mut self, publication: &Published, as_sent: bool) -> Subscribed {
        let publication_id = publication.publication_id.clone();
        let subscribe = Subscribe { publication_id, as_sent, ..Subscribe::default() };
        match self.link.ask(Request::Subscribe(subscribe)).unwrap() {
            Body::Subscribed(subscribed) => subscribed,
            other => panic!("{other:?}"),
        }
    }

    pub fn say(&mut self, ssrc: u32, seq: u16) {
        let mut packet = [0; 300];
        let timestamp = u32::from(seq) * 960;
        let header = HeaderBuilder { pt: 111, seq, timestamp, ssrc, ..HeaderBuilder::default() };
        // Loud enough to be heard.
        let length = header.write(&[], [(1, &[10][..])], &mut packet).unwrap();
        packet[length..length + 80].fill(seq as u8);
        let length = self.outbound.protect_rtp(&mut packet, length + 80).unwrap();
        self.send(&packet[..length]);
    }

    pub fn peer(&self) -> String {
        self.answer.peer_id.clone()
    }

    /// Takes the next session key that it is told.
    fn change_key(&mut self) {
        let key = shared(self.link.key()).prepare().unwrap();
        self.inbound.change_key(&key);
        self.outbound.change_key(&key);
    }

    /// The RTP packets that wait, as they came.
    fn waiting(&mut self) -> Vec<Vec<u8>> {
        let packets = std::iter::from_fn(|| self.receive());
        packets.filter(|bytes| demux::classify(bytes) == demux::Kind::Rtp).collect()
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

/// One leaves, and takes the session key along. Not a packet is lost to those who stay, whether it comes as it was sent
/// or by the relay, and nothing that is sent later opens with the key of before.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_costs_no_packet_and_who_left_opens_nothing_more() {
    /// Before somebody leaves, before its publisher hears of the key, and after.
    const PHASES: [std::ops::RangeInclusive<u16>; 3] = [1..=25, 26..=50, 51..=75];
    let node = Node::start().await;
    let applications = node.server.app.store.applications();
    let secret = Secret::random().unwrap();
    applications.add("acme", 0).await.unwrap();
    let key = Key::new("first", Material::Secret(secret.clone()), 0);
    applications.add_key("acme", &key).await.unwrap();
    applications.set_changes_keys("acme", true).await.unwrap();
    let join = |name: &str| {
        let claims = Claims::new("acme", name, "stage", 4_000_000_000);
        let token = mint(&claims, Some("first"), &Signer::Hs256(&secret)).unwrap();
        node.enter(Auth { credential: Some(Credential::Token(token)), ..auth("stage", name) })
    };
    let (mut ann, mut bob, mut eve) = (join("Ann"), join("Bob"), join("Eve"));
    tokio::task::spawn_blocking(move || {
        [&mut ann, &mut bob, &mut eve].into_iter().for_each(Client::check);
        let voice = ann.publish(Kind::Audio, "opus");
        let own = voice.encodings[0].ssrc;
        let (as_sent, by_relay) = (bob.subscribe(&voice, true), bob.subscribe(&voice, false));
        assert_eq!(as_sent.ssrc, own);
        eve.subscribe(&voice, true);
        let say = |ann: &mut Client, phase: usize| {
            for seq in PHASES[phase].clone() {
                ann.say(own, seq);
                std::thread::sleep(Duration::from_millis(4));
            }
        };
        say(&mut ann, 0);
        let before = bob.waiting();
        assert!(!eve.waiting().is_empty(), "she was there");
        eve.link.ask(Request::Leave(Leave::default())).unwrap();
        // The relay has the new key when the first client is told of it; Ann goes on with the old one.
        bob.change_key();
        say(&mut ann, 1);
        let between = bob.waiting();
        ann.change_key();
        say(&mut ann, 2);
        let after = bob.waiting();

        let mut heard = [Vec::new(), Vec::new()];
        for (phase, packets) in [before, between, after].into_iter().enumerate() {
            for mut bytes in packets {
                let mut overheard = bytes.clone();
                let length = bob.inbound.unprotect_rtp(&mut bytes).expect("one of both keys");
                let packet = Packet::parse(&bytes[..length]).unwrap();
                let seq = u16::from(packet.payload()[0]);
                let is_by_relay = packet.ssrc() == by_relay.ssrc;
                assert!(is_by_relay || packet.ssrc() == own, "{}", packet.ssrc());
                heard[usize::from(is_by_relay)].push(seq);
                // The relay changed at once, Ann as soon as she heard of it.
                if phase == 2 || (phase == 1 && is_by_relay) {
                    let opened = eve.inbound.unprotect_rtp(&mut overheard);
                    assert_eq!(opened, Err(Error::Unauthentic), "packet {seq} of phase {phase}");
                }
            }
        }
        for mut seqs in heard {
            seqs.sort_unstable();
            assert_eq!(seqs, (1..=75).collect::<Vec<_>>(), "each came once");
        }
    })
    .await
    .unwrap();
    node.server.stop().await;
}
