//! The client against a real node: strait-relay and strait-control in this process.

use crate::sockets::{Member, PATIENCE, call, voice};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};
use strait_client::v1::{self, auth::Credential, transport_report::State, user_event};
use strait_client::{Cluster, Config, Descriptor, Error, Event, Frame, Resolver, Trust};
use strait_proto::handover;
use strait_relay::Relay;

pub struct Node {
    pub descriptor: Descriptor,
    pub quic: u16,
    rpc_socket: std::path::PathBuf,
    runtime: tokio::runtime::Runtime,
    relay: Option<Relay>,
    config: strait_control::Config,
    control: Option<(tokio::runtime::Runtime, strait_control::server::Server)>,
    _folder: Option<tempfile::TempDir>,
}

/// Which a node has; 0 for a free one, and for none where it needs none.
#[derive(Default)]
pub struct Ports {
    pub any: u16,
    pub audio: u16,
    pub video: u16,
    pub further: Vec<u16>,
    pub quic: u16,
}

impl Node {
    pub fn start() -> Self {
        Self::start_at(Vec::new())
    }

    /// Whose clients are told that media goes to these addresses.
    fn start_at(announced: Vec<IpAddr>) -> Self {
        Self::start_here(announced, |_| {})
    }

    /// With another configuration.
    pub fn start_with(change: impl FnOnce(&mut strait_control::Config)) -> Self {
        Self::start_here(Vec::new(), change)
    }

    fn start_here(
        announced: Vec<IpAddr>,
        change: impl FnOnce(&mut strait_control::Config),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let here = ["127.0.0.1".parse().unwrap()];
        let ports = Ports::default();
        let mut node = Self::start_as(folder.path(), &here, announced, &ports, change);
        node._folder = Some(folder);
        node
    }

    /// On these addresses and ports.
    pub fn start_on(
        folder: &Path,
        addresses: &[IpAddr],
        announced: Vec<IpAddr>,
        ports: &Ports,
    ) -> Self {
        Self::start_as(folder, addresses, announced, ports, |_| {})
    }

    fn start_as(
        folder: &Path,
        addresses: &[IpAddr],
        announced: Vec<IpAddr>,
        ports: &Ports,
        change: impl FnOnce(&mut strait_control::Config),
    ) -> Self {
        let rpc_socket = folder.join("relay.sock");
        let first = addresses[0];
        // The relay and the control plane are both told where framed media is taken.
        let framed = TcpListener::bind((first, 0)).unwrap().local_addr().unwrap();
        let relay = strait_relay::Config {
            rpc_socket: rpc_socket.clone(),
            listen: addresses.to_vec(),
            port: ports.any,
            audio_port: ports.audio,
            video_port: ports.video,
            further_ports: ports.further.clone(),
            workers: 1,
            metrics_listen: None,
            ice_tcp_listen: Some(framed),
            announced,
            ..strait_relay::Config::default()
        };
        let mut control = strait_control::Config::default();
        let listen = addresses.iter().map(|address| SocketAddr::new(*address, ports.any));
        control.http.https_listen = listen.collect();
        control.http.certificate_names = addresses.iter().map(IpAddr::to_string).collect();
        control.http.http_listen.clear();
        control.link.quic_listen = vec![SocketAddr::new(first, ports.quic)];
        control.http.state_dir = folder.into();
        control.relay.rpc_socket = rpc_socket.clone();
        control.relay.ice_tcp = Some(framed);
        control.store.url = format!("sqlite:{}", folder.join("control.db").display()).into();
        control.auth.dev_tokens = vec!["dev".into()];
        change(&mut control);
        let runtime = runtime();
        let relay = runtime.block_on(Relay::start(&relay)).unwrap();
        let (of_control, server) = start_control(&control);
        // Those that it has now are its own from here on.
        (control.http.https_listen, control.link.quic_listen) =
            (server.https.clone(), server.quic.clone());
        let descriptor = Descriptor {
            config: Config {
                host: first.to_string(),
                port: server.https[0].port(),
                credential: Credential::Token("dev".into()),
                scope_id: "room".into(),
                name: "ann".into(),
                client: "test/1".into(),
                profiles: Vec::new(),
                // Most tests here are of what the node does.
                relay_only: true,
                cluster: None,
            },
            trust: Trust::CaFile(folder.join("certificate.pem")),
            proxy: None,
            udp: true,
            quic: None,
        };
        let quic = server.quic[0].port();
        Self {
            descriptor,
            quic,
            rpc_socket,
            runtime,
            relay: Some(relay),
            config: control,
            control: Some((of_control, server)),
            _folder: None,
        }
    }

    /// Kills strait-control: what is left of it are its connections, and the relay.
    pub fn kill_control(&mut self) {
        if let Some((runtime, _server)) = self.control.take() {
            // Before the server is dropped: whatever still ran would take that for an end in order.
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Starts it again.
    pub fn start_control(&mut self) {
        self.control = Some(start_control(&self.config));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn start_control(
    config: &strait_control::Config,
) -> (tokio::runtime::Runtime, strait_control::server::Server) {
    let runtime = runtime();
    let server = runtime.block_on(async {
        let server = strait_control::server::Server::start(config.clone()).await.unwrap();
        let end = Instant::now() + PATIENCE;
        while server.app.scopes.relay().info().is_none() {
            assert!(Instant::now() < end, "the relay is found");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    });
    (runtime, server)
}

impl Drop for Node {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        drop(self.relay.take());
    }
}

#[test]
fn a_call_over_udp_through_a_real_node() {
    let node = Node::start();
    call(&node.descriptor, &node.descriptor, State::UdpRelay, State::UdpRelay);
}

#[test]
fn a_real_cnc_names_its_node_over_https() {
    let node = Node::start();
    let mut resolved = node.descriptor.clone();
    let url = format!("https://{}:{}", resolved.config.host, resolved.config.port);
    let resolvers = vec![Resolver::parse(&url).unwrap()];
    let (application_id, region) = (String::new(), String::new());
    resolved.config.cluster = Some(Cluster { resolvers, application_id, region });
    resolved.config.host.clear();
    call(&resolved, &resolved, State::UdpRelay, State::UdpRelay);

    // It says why not.
    let cluster = resolved.config.cluster.as_mut().unwrap();
    cluster.application_id = "nobody".into();
    let member = Member::connect(resolved);
    let error = member.wait("LinkLost", |event| match event {
        Event::LinkLost { error, .. } => Some(error.to_string()),
        _ => None,
    });
    assert!(error.contains("it answers 404: ") && error.contains("nobody"), "{error}");
}

#[test]
fn a_call_over_framed_media_through_a_real_node() {
    let node = Node::start();
    let blocked = Descriptor { udp: false, ..node.descriptor.clone() };
    call(&blocked, &node.descriptor, State::TcpRelay, State::UdpRelay);
    call(&blocked, &blocked, State::TcpRelay, State::TcpRelay);
}

#[test]
fn a_call_over_quic_through_a_real_node() {
    // Nobody is there: UDP to the relay does not get through.
    let node = Node::start_at(vec!["127.0.0.2".parse().unwrap()]);
    let quic = Descriptor { quic: Some(node.quic), ..node.descriptor.clone() };
    // The port of HTTPS leads nowhere: what comes up comes up over QUIC.
    let nowhere = Config { port: 1, ..quic.config.clone() };
    let over_quic = Descriptor { config: nowhere, ..quic };
    call(&over_quic, &over_quic, State::Link, State::Link);
}

#[test]
fn without_an_answer_over_quic_the_link_goes_over_tls() {
    let node = Node::start();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let quic = Some(silent.local_addr().unwrap().port());
    let tried = Descriptor { quic, ..node.descriptor.clone() };
    call(&tried, &tried, State::UdpRelay, State::UdpRelay);
}

#[test]
fn a_call_that_goes_directly() {
    let node = Node::start();
    let mut directly = node.descriptor.clone();
    directly.config.relay_only = false;
    call(&directly, &directly, State::P2p, State::P2p);
}

#[test]
fn a_call_over_the_link_through_a_real_node() {
    // The relay is told nothing of the connections for media beside the links.
    let node = Node::start();
    std::fs::remove_file(handover::socket_of(&node.rpc_socket)).unwrap();
    let blocked = Descriptor { udp: false, ..node.descriptor.clone() };
    call(&blocked, &blocked, State::Link, State::Link);
}

#[test]
fn pictures_are_rewritten_by_a_real_node_and_key_frames_are_asked_for() {
    let node = Node::start();
    let (ann, bob) =
        (Member::connect(node.descriptor.clone()), Member::connect(node.descriptor.clone()));
    let camera =
        v1::Publish { kind: v1::Kind::Video.into(), codec: "VP8".into(), ..v1::Publish::default() };
    let handle = ann.client.publish(camera).unwrap();
    bob.wait_for_transport(State::UdpRelay);
    ann.wait_for_transport(State::UdpRelay);
    let id = ann.wait("Published", |event| match event {
        Event::Published { publication_id, .. } => Some(publication_id.clone()),
        _ => None,
    });
    bob.client.subscribe(&id, false).unwrap();
    bob.wait("Subscribed", |event| matches!(event, Event::Subscribed { .. }).then_some(()));
    // Key frames of VP8, each in one packet: the descriptor (RFC 7741), then a frame's header.
    let mut picture = [0; 300];
    picture[..11].copy_from_slice(&[0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0]);
    let end = Instant::now() + PATIENCE;
    let mut came = Vec::new();
    for n in 0u32.. {
        assert!(Instant::now() < end, "pictures come");
        let (payload, timestamp) = (&picture[..], n * 3000);
        let frame = Frame { payload, timestamp, marker: true, level: None };
        ann.client.send(handle, 0, &frame).unwrap();
        came.extend(bob.try_payloads());
        if came.len() >= 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(came.iter().all(|payload| payload.payload.len() >= 300 && payload.payload_type == 96));
    let subscription = came[0].subscription_id.clone();
    bob.client.ask_key_frame(&subscription).unwrap();
    ann.wait("KeyFrameWanted", |event| match event {
        Event::KeyFrameWanted { publication_id, .. } => (*publication_id == id).then_some(()),
        _ => None,
    });
    // The relay's feedback reaches the publisher: it is told what its encoder may do.
    ann.wait("Target", |event| matches!(event, Event::Target(_)).then_some(()));
}

#[test]
fn a_real_node_refuses_by_name_and_tells_who_leaves() {
    let node = Node::start();
    let mut stranger = node.descriptor.clone();
    stranger.config.credential = Credential::Token("wrong".into());
    let member = Member::connect(stranger);
    let error = member.wait("Ended", |event| match event {
        Event::Ended(error) => Some(error.clone()),
        _ => None,
    });
    assert!(matches!(error, Error::Refused { .. }), "{error}");

    let bob = Member::connect(node.descriptor.clone());
    bob.wait("Joined", |event| matches!(event, Event::Joined { .. }).then_some(()));
    let ann = Member::connect(node.descriptor.clone());
    ann.client.publish(voice()).unwrap();
    bob.wait("StreamStarted", |event| {
        matches!(event, Event::Scope(user_event::Body::Started(_))).then_some(())
    });
    let handle = bob.client.request(v1::client_message::Body::GetStatistics(v1::GetStatistics {}));
    let json = bob.wait("Statistics", |event| match event {
        Event::Statistics { handle: of, json } if Ok(*of) == handle => Some(json.clone()),
        _ => None,
    });
    assert!(json.starts_with(['{', '[']), "{json}");
    drop(ann);
    bob.wait("Left", |event| {
        matches!(event, Event::Scope(user_event::Body::Left(_))).then_some(())
    });
}

#[test]
fn a_full_scope_ends_who_comes_and_a_full_address_lets_it_in_later() {
    let joined = |event: &Event| matches!(event, Event::Joined { .. }).then_some(());
    let is_limit = |error: &Error, limit: &str| {
        let code = v1::ErrorCode::TooMany;
        matches!(error, Error::Refused { code: of, reason } if *of == code && reason.contains(limit))
    };
    let node = Node::start_with(|control| control.limits.peers_per_scope = 1);
    let ann = Member::connect(node.descriptor.clone());
    ann.wait("Joined", joined);
    let error = Member::connect(node.descriptor.clone()).wait("Ended", |event| match event {
        Event::Ended(error) => Some(error.clone()),
        _ => None,
    });
    assert!(is_limit(&error, "peers_per_scope"), "{error}");

    let node = Node::start_with(|control| control.limits.sessions_per_address = 1);
    let ann = Member::connect(node.descriptor.clone());
    ann.wait("Joined", joined);
    let bob = Member::connect(node.descriptor.clone());
    let error = bob.wait("LinkLost", |event| match event {
        Event::LinkLost { error, .. } => Some(error.clone()),
        _ => None,
    });
    assert!(is_limit(&error, "sessions_per_address"), "{error}");
    drop(ann);
    bob.wait("Joined", joined);
}

#[test]
fn who_leaves_a_node_that_reads_slowly_hands_over_what_it_takes_and_names_the_rest() {
    const MESSAGES: u64 = 1000;
    let node = Node::start_with(|control| control.link.messages_per_second = 20);
    let joined = |event: &Event| matches!(event, Event::Joined { .. }).then_some(());
    let bob = Member::connect(node.descriptor.clone());
    bob.wait("Joined", joined);
    let ann = Member::connect(node.descriptor.clone());
    ann.wait("Joined", joined);
    for number in 1..=MESSAGES {
        let sent = ann.client.send_message("", number.to_be_bytes().into(), false);
        assert_eq!(sent, Ok(number));
    }
    ann.client.leave();
    let unknown = ann.wait("Unconfirmed", |event| match event {
        Event::Unconfirmed { numbers } => Some(numbers.clone()),
        _ => None,
    });
    ann.wait("Ended", |event| (*event == Event::Ended(Error::Ended)).then_some(()));
    let first = unknown[0];
    assert_eq!(unknown, (first..=MESSAGES).collect::<Vec<_>>());
    // Forty at once, and those of two seconds; a quarter of that where the machine is busy.
    assert!(first > 20, "{first}");
    for number in 1..first {
        let came = bob.wait("Message", |event| match event {
            Event::Message { payload, .. } => Some(payload.clone()),
            _ => None,
        });
        assert_eq!(came, number.to_be_bytes());
    }
}
