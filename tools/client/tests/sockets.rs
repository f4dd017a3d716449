//! The client over real sockets, against the fake node.

use crate::fake_node::{FakeNode, Out};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strait_client::core::media::Payload;
use strait_client::tls::Tls;
use strait_client::v1::{self, auth::Credential, endpoint, transport_report::State, user_event};
use strait_client::{Client, Cluster, Config, Descriptor, Error, Event, Frame, Resolver, Trust};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

pub const PATIENCE: Duration = Duration::from_secs(20);
/// What may wait for a link of the fake node.
const WAITING: usize = 4096;

type Links = Arc<Mutex<HashMap<usize, mpsc::Sender<Vec<u8>>>>>;

/// The fake node with TLS and UDP, in a thread of its own.
pub struct Server {
    pub address: SocketAddr,
    pub certificate: tempfile::NamedTempFile,
    pub fingerprint: [u8; 32],
    pub node: Arc<Mutex<FakeNode>>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// `udp`: whether its UDP port answers.
    pub fn start(udp: bool) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(certificate.path(), made.cert.pem()).unwrap();
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, made.cert.der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![strait_link::ALPN.to_vec()];
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (listener, socket) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (listener, UdpSocket::bind("127.0.0.1:0").await.unwrap())
        });
        let address = listener.local_addr().unwrap();
        let endpoint = v1::Endpoint {
            protocol: endpoint::Protocol::Udp.into(),
            purpose: endpoint::Purpose::Any.into(),
            address: String::new(),
            port: socket.local_addr().unwrap().port().into(),
        };
        let node = Arc::new(Mutex::new(FakeNode::new(vec![endpoint])));
        let links: Links = Links::default();
        let socket = Arc::new(socket);
        runtime.spawn(serve_udp(Arc::clone(&node), Arc::clone(&links), Arc::clone(&socket), udp));
        runtime.spawn(serve(Arc::clone(&node), links, listener, socket, Arc::new(tls)));
        let fingerprint = sha256.as_ref().try_into().unwrap();
        Self { address, certificate, fingerprint, node, _runtime: runtime }
    }

    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            config: Config {
                host: "localhost".into(),
                port: self.address.port(),
                credential: Credential::Token("token".into()),
                scope_id: "room".into(),
                name: "ann".into(),
                client: "test/1".into(),
                profiles: Vec::new(),
                relay_only: false,
                cluster: None,
            },
            trust: Trust::CaFile(self.certificate.path().into()),
            proxy: None,
            udp: true,
            quic: None,
        }
    }
}

async fn serve(
    node: Arc<Mutex<FakeNode>>,
    links: Links,
    listener: TcpListener,
    socket: Arc<UdpSocket>,
    tls: Arc<rustls::ServerConfig>,
) {
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        number += 1;
        let connection = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
        let (node, links, socket) = (Arc::clone(&node), Arc::clone(&links), Arc::clone(&socket));
        tokio::spawn(async move {
            let mut tls = Tls::new(stream, connection.into());
            let (to_link, mut out) = mpsc::channel::<Vec<u8>>(WAITING);
            links.lock().unwrap().insert(number, to_link);
            if tls.handshake().await.is_err() {
                return;
            }
            loop {
                tokio::select! {
                    read = tls.turn() => {
                        let Ok(bytes) = read else { break };
                        node.lock().unwrap().link_bytes(number, &bytes);
                        send(&node, &links, &socket);
                    }
                    Some(bytes) = out.recv() => if bytes.is_empty() || tls.send(&bytes).is_err() {
                        break;
                    },
                }
            }
            node.lock().unwrap().link_lost(number);
        });
    }
}

async fn serve_udp(node: Arc<Mutex<FakeNode>>, links: Links, socket: Arc<UdpSocket>, on: bool) {
    let mut bytes = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
        if on {
            node.lock().unwrap().datagram(0, from, &bytes[..len]);
            send(&node, &links, &socket);
        }
    }
}

fn send(node: &Mutex<FakeNode>, links: &Links, socket: &UdpSocket) {
    for out in std::mem::take(&mut node.lock().unwrap().out) {
        match out {
            Out::Datagram(_, to, bytes) => drop(socket.try_send_to(&bytes, to)),
            Out::Link(link, bytes) => drop(links.lock().unwrap()[&link].try_send(bytes)),
            Out::Framed(..) => unreachable!("it takes none"),
            Out::Close(link) => drop(links.lock().unwrap()[&link].try_send(Vec::new())),
        }
    }
}

/// A client whose events wait in a channel.
pub struct Member {
    pub client: Client,
    events: Receiver<Event>,
    /// Those that nobody waited for yet.
    kept: RefCell<Vec<Event>>,
}

impl Member {
    pub fn connect(descriptor: Descriptor) -> Self {
        let (to, events) = sync_channel(WAITING);
        let client = Client::connect(descriptor, move |event| drop(to.try_send(event))).unwrap();
        Self { client, events, kept: RefCell::default() }
    }

    /// The first event that is wanted, which may have come before; others are kept.
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut kept = self.kept.borrow_mut();
        let mut at = 0;
        loop {
            while at == kept.len() {
                let left = end.saturating_duration_since(Instant::now());
                let event = self.events.recv_timeout(left);
                let Ok(event) = event else { panic!("no {what}, but {kept:?}") };
                kept.push(event);
            }
            if let Some(found) = wanted(&kept[at]) {
                kept.remove(at);
                return found;
            }
            at += 1;
        }
    }

    /// Packets that came and that nobody waited for.
    pub fn try_payloads(&self) -> Vec<Payload> {
        let mut kept = self.kept.borrow_mut();
        kept.extend(self.events.try_iter());
        let payloads = kept.extract_if(.., |event| matches!(event, Event::Payload(_)));
        let payloads = payloads.map(|event| match event {
            Event::Payload(payload) => payload,
            _ => unreachable!(),
        });
        payloads.collect()
    }

    /// What came and nobody waited for, media apart.
    pub fn take_events(&self) -> Vec<Event> {
        let mut kept = self.kept.borrow_mut();
        kept.extend(self.events.try_iter());
        kept.extract_if(.., |event| !matches!(event, Event::Payload(_))).collect()
    }

    pub fn wait_for_transport(&self, wanted: State) {
        self.wait(&format!("{wanted:?}"), |event| {
            (*event == Event::Transport(wanted)).then_some(())
        });
    }
}

pub fn voice() -> v1::Publish {
    v1::Publish { kind: v1::Kind::Audio.into(), codec: "opus".into(), ..v1::Publish::default() }
}

/// Ann publishes, Bob subscribes and gets what she sends, and a message.
pub fn call(ann: &Descriptor, bob: &Descriptor, of_ann: State, of_bob: State) {
    let (ann, bob) = (Member::connect(ann.clone()), Member::connect(bob.clone()));
    let handle = ann.client.publish(voice()).unwrap();
    bob.wait_for_transport(of_bob);
    ann.wait_for_transport(of_ann);
    ann.wait("Published", |event| matches!(event, Event::Published { .. }).then_some(()));
    let id = ann.client.statistics().sent[0].0.clone();
    bob.client.subscribe(&id, true).unwrap();
    let subscription = bob.wait("Subscribed", |event| match event {
        Event::Subscribed { subscription_id, .. } => Some(subscription_id.clone()),
        _ => None,
    });
    for n in 0..50u8 {
        let payload = [n; 100];
        let frame =
            Frame { payload: &payload, timestamp: u32::from(n) * 960, marker: n == 0, level: None };
        ann.client.send(handle, 0, &frame).unwrap();
        let came = bob.wait("Payload", |event| match event {
            Event::Payload(payload) => Some(payload.clone()),
            _ => None,
        });
        assert_eq!((came.payload, came.marker), (payload.to_vec(), n == 0));
        assert_eq!(
            (came.timestamp, came.subscription_id),
            (u32::from(n) * 960, subscription.clone())
        );
    }
    ann.client.send_message("", b"hello".to_vec(), true).unwrap();
    bob.wait("Message", |event| match event {
        Event::Message { payload, text: true, .. } => (payload == b"hello").then_some(()),
        _ => None,
    });
    let statistics = bob.client.statistics();
    assert_eq!(statistics.transport, of_bob);
    let (_, _, received) = &statistics.received[0];
    assert_eq!((received.packets, received.lost), (50, 0));
    assert!(statistics.round_trip.is_some());
}

#[test]
fn a_call_over_udp() {
    let server = Server::start(true);
    let pinned =
        Descriptor { trust: Trust::Fingerprint(server.fingerprint), ..server.descriptor() };
    call(&server.descriptor(), &pinned, State::UdpRelay, State::UdpRelay);
}

#[test]
fn a_call_over_the_link_where_udp_is_blocked() {
    let server = Server::start(false);
    call(&server.descriptor(), &server.descriptor(), State::Link, State::Link);
}

#[test]
fn messages_of_the_greatest_length_and_in_bulk_break_no_link() {
    let server = Server::start(true);
    let ann = Member::connect(server.descriptor());
    let error = ann.client.send_message("", vec![0; 65_537], false).unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 65_537, most: 65_536, .. }), "{error}");
    // As fast as they are taken, and much more in all than a link's buffer holds.
    let end = Instant::now() + PATIENCE;
    for n in 0..130 {
        while let Err(error) = ann.client.send_message("", vec![7; 65_536], false) {
            assert!(error == Error::TooMany("messages"), "{error}");
            assert!(Instant::now() < end, "message {n} is not taken");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let taken = || server.node.lock().unwrap().peers.first().map_or(0, |peer| peer.taken);
    while taken() < 130 {
        assert!(Instant::now() < end, "{} were taken", taken());
        std::thread::sleep(Duration::from_millis(5));
    }
    let lost = ann.take_events().into_iter().find(|one| matches!(one, Event::LinkLost { .. }));
    assert_eq!(lost, None);
}

#[test]
fn who_leaves_is_told_what_the_node_did_not_take() {
    let unconfirmed = |server: &Server, slow: bool| {
        let ann = Member::connect(server.descriptor());
        ann.wait("Joined", |event| matches!(event, Event::Joined { .. }).then_some(()));
        server.node.lock().unwrap().slow = slow;
        for number in 1..=20 {
            assert_eq!(ann.client.send_message("", vec![7; 50_000], false), Ok(number));
        }
        ann.client.leave();
        assert_eq!(ann.client.send_message("", Vec::new(), false), Err(Error::Ended));
        let mut numbers: Vec<u64> = Vec::new();
        ann.wait("Ended", |event| match event {
            Event::Unconfirmed { numbers: some } => {
                numbers.extend(some);
                None
            }
            Event::Ended(error) => Some(error.clone()),
            _ => None,
        });
        numbers
    };
    let server = Server::start(true);
    let lacking = unconfirmed(&server, false);
    let taken = server.node.lock().unwrap().peers[0].taken;
    // On a machine that is very slow two seconds are short; what was not taken is told then as well.
    assert!(taken + lacking.len() as u64 >= 20 && taken > 0, "{taken} taken, {lacking:?}");
    assert_eq!(unconfirmed(&server, true), (1..=20).collect::<Vec<_>>());
}

#[test]
fn what_no_node_ever_takes_is_refused_at_once() {
    let server = Server::start(true);
    let mut descriptor = server.descriptor();
    descriptor.config.credential = Credential::Token("t".repeat(70_000));
    let error = Client::connect(descriptor, |_| {}).err().unwrap();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let mut descriptor = server.descriptor();
    descriptor.config.port = 0;
    let error = Client::connect(descriptor, |_| {}).err().unwrap();
    assert!(error.to_string().contains("the port is 0"), "{error}");
}

#[test]
fn who_is_not_trusted_gets_no_credential() {
    let server = Server::start(true);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other_file.path(), other.cert.pem()).unwrap();
    for trust in [Trust::Fingerprint([1; 32]), Trust::CaFile(other_file.path().into())] {
        let member = Member::connect(Descriptor { trust, ..server.descriptor() });
        let error = member.wait("Ended", |event| match event {
            Event::Ended(error) => Some(error.clone()),
            _ => None,
        });
        assert!(matches!(error, Error::Certificate(_)), "{error}");
    }
    // The right certificate under another name.
    let mut descriptor = server.descriptor();
    descriptor.config.host = "127.0.0.1".into();
    let member = Member::connect(descriptor);
    let error = member.wait("Ended", |event| match event {
        Event::Ended(error) => Some(error.clone()),
        _ => None,
    });
    assert!(matches!(error, Error::Certificate(_)), "{error}");
    assert!(server.node.lock().unwrap().peers.is_empty());
    let nothing = Trust::CaFile("/dev/null".into());
    let error = Client::connect(Descriptor { trust: nothing, ..server.descriptor() }, |_| {});
    assert!(error.err().unwrap().to_string().contains("holds no certificate"));
}

#[test]
fn presence_is_told_and_whoever_is_dropped_leaves() {
    let server = Server::start(true);
    let bob = Member::connect(server.descriptor());
    bob.wait("Joined", |event| matches!(event, Event::Joined { .. }).then_some(()));
    let ann = Member::connect(server.descriptor());
    ann.client.publish(voice()).unwrap();
    bob.wait("StreamStarted", |event| match event {
        Event::Scope(user_event::Body::Started(started)) => started.publication.clone(),
        _ => None,
    });
    bob.client.subscribe("nothing", true).unwrap();
    let error = bob.wait("Refused", |event| match event {
        Event::Refused { error, .. } => Some(error.clone()),
        _ => None,
    });
    assert!(matches!(error, Error::Refused { code: v1::ErrorCode::NotFound, .. }), "{error}");
    drop(ann);
    let end = Instant::now() + PATIENCE;
    while server.node.lock().unwrap().peers[1].link.is_some() {
        assert!(Instant::now() < end, "she left");
        std::thread::yield_now();
    }
}

#[test]
fn nobody_there_is_told_and_tried_again() {
    let server = Server::start(true);
    let mut descriptor = server.descriptor();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    descriptor.config.port = nobody.port();
    let member = Member::connect(descriptor);
    for _ in 0..2 {
        member.wait("LinkLost", |event| match event {
            Event::LinkLost { error, .. } => {
                assert!(error.to_string().contains(&format!("localhost:{}", nobody.port())));
                Some(())
            }
            _ => None,
        });
    }
    assert_eq!(
        member.client.send_message("", vec![0; 300_000], false).unwrap_err().to_string(),
        "a message of 300000 bytes, 65536 are taken: cut it"
    );
    assert_eq!(member.client.subscribe("x", false), Err(Error::NotJoined));
}

/// Not a CnC: it answers each question with the same words, over HTTP without TLS.
fn stand_in_cnc(answer: &str) -> (Resolver, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/cnc", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let (heard, answer) = (Arc::clone(&asked), answer.to_owned());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            heard.lock().unwrap().push(line);
            let length = answer.split("\r\n\r\n").nth(1).unwrap().len();
            let answer = answer.replace("LENGTH", &length.to_string());
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (Resolver::parse(&url).unwrap(), asked)
}

#[test]
fn cncs_are_asked_over_http_until_one_names_the_node() {
    let server = Server::start(true);
    let full = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: LENGTH\r\n\r\nno node has room";
    let (full, _) = stand_in_cnc(full);
    let node = format!("localhost:{}", server.address.port());
    let (right, asked) =
        stand_in_cnc(&format!("HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n{node}\n"));
    let mut descriptor = server.descriptor();
    descriptor.config.host.clear();
    let of = |resolvers| {
        let (application_id, region) = ("acme".to_owned(), "eu".to_owned());
        Some(Cluster { resolvers, application_id, region })
    };
    descriptor.config.cluster = of(vec![full.clone(), right]);
    call(&descriptor, &descriptor, State::UdpRelay, State::UdpRelay);
    let asked = asked.lock().unwrap();
    assert_eq!(
        asked[0].trim(),
        "GET /cnc/resolve?applicationId=acme&scopeId=room&region=eu HTTP/1.1"
    );

    descriptor.config.cluster = of(vec![full]);
    let member = Member::connect(descriptor);
    member.wait("LinkLost", |event| match event {
        Event::LinkLost { error, .. } => {
            let error = error.to_string();
            assert!(error.contains("it answers 503: no node has room"), "{error}");
            Some(())
        }
        _ => None,
    });
}
