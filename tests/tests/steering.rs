//! Steering in the kernel: the program of `ebpf/` on real sockets, and under a whole relay.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use strait_core::port::{LocalPort, Path, Port};
use strait_crypt::StunKey;
use strait_crypt::srtp::{Inbound, Outbound, Profile, SharedKey};
use strait_io::steering::{Flows, Kernel};
use strait_io::{Bound, Clock, Options, batch, bind};
use strait_proto::v1;
use strait_proto::v1::relay_client::RelayClient;
use strait_relay::config::Steering;
use strait_relay::{Config, Relay, random};
use strait_tests::skip;
use strait_wire::rtp::HeaderBuilder;
use strait_wire::stun::Builder;
use tonic::transport::{Channel, Endpoint};

const WORKERS: usize = 4;
const MEDIA: [u8; 100] = [0x80; 100];
const IPV4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const IPV6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// Sockets of four workers that the kernel steers to; `None` where it may not, which is said aloud.
fn steered(test: &str, ip: &str) -> Option<(Bound, Kernel, Flows)> {
    steered_at(test, ip, &[])
}

/// The same with further ports.
fn steered_at(test: &str, ip: &str, further: &[LocalPort]) -> Option<(Bound, Kernel, Flows)> {
    let bound = bind(&Options {
        udp: vec![ip.parse().unwrap()],
        further: further.iter().map(|port| (*port, 0)).collect(),
        workers: WORKERS,
        strangers: true,
        ..Options::default()
    });
    let bound = bound.unwrap();
    match Kernel::attach(&bound) {
        Ok(kernel) => {
            let flows = kernel.flows().unwrap();
            Some((bound, kernel, flows))
        }
        Err(error) => {
            assert!(is_forbidden(&error.to_string()), "{error}");
            skip(test, &format!("we may load no program: {error}"));
            None
        }
    }
}

/// Whether an error says that this process or this kernel may not at all (EPERM, ENOSYS); any other is a defect: a
/// program that the verifier refuses is one (EACCES).
fn is_forbidden(error: &str) -> bool {
    ["os error 1)", "os error 38)"].iter().any(|code| error.contains(code))
}

fn client(bound: &Bound) -> UdpSocket {
    let socket = UdpSocket::bind((bound.udp[0].ip(), 0)).unwrap();
    socket.connect(bound.udp[0]).unwrap();
    socket
}

fn path(bound: &Bound, client: &UdpSocket) -> Path {
    let (local, remote) = (bound.udp[0].ip(), client.local_addr().unwrap());
    Path::udp(local, remote)
}

/// A binding request for a user fragment of this worker, with `before` bytes of other attributes in front.
fn request(worker: usize, before: usize) -> Vec<u8> {
    let ufrag = random::credentials(worker).unwrap().ufrag;
    let mut bytes = vec![0; 300];
    let builder = Builder::binding_request(&mut bytes, [7; 12]);
    let length = builder.username(ufrag.as_bytes(), b"them").finish().unwrap();
    bytes.truncate(length);
    if before > 0 {
        // SOFTWARE (RFC 8489 section 14.14), and then the username.
        let mut software = vec![0x80, 0x22, 0, before as u8];
        software.resize(4 + before.div_ceil(4) * 4, b'x');
        bytes.splice(20..20, software);
        let total = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
    }
    bytes
}

/// Which worker reads the only datagram that is on its way.
fn reader(bound: &mut Bound) -> usize {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        for (worker, port) in bound.ports.iter_mut().enumerate() {
            let now = Clock.instant();
            port.wait(now, Some(now));
            if port.receive(now, |_, _| {}) > 0 {
                return worker;
            }
        }
    }
    panic!("no worker reads it");
}

fn a_request_goes_to_the_worker_that_it_names(ip: &str) {
    let Some((mut bound, kernel, _)) = steered("steering by user fragment", ip) else { return };
    for n in 0..100 {
        let worker = n % WORKERS;
        let client = client(&bound);
        client.send(&request(worker, n % 30)).unwrap();
        assert_eq!(reader(&mut bound), worker, "request {n}");
    }
    assert_eq!(kernel.ways(), [100, 0, 0, 0, 0]);
    // A worker that is none of ours is left to the hash.
    client(&bound).send(&request(900, 0)).unwrap();
    reader(&mut bound);
    assert_eq!(kernel.ways(), [100, 0, 0, 0, 1]);
}

#[test]
fn a_request_goes_to_the_worker_that_it_names_over_ipv4() {
    a_request_goes_to_the_worker_that_it_names("127.0.0.1");
}

#[test]
fn a_request_goes_to_the_worker_that_it_names_over_ipv6() {
    a_request_goes_to_the_worker_that_it_names("::1");
}

fn a_flow_goes_where_user_space_says(ip: &str) {
    let Some((mut bound, kernel, mut flows)) = steered("steering by flow", ip) else { return };
    let client = client(&bound);
    client.send(&MEDIA).unwrap();
    let hashed = reader(&mut bound);
    assert_eq!(kernel.ways(), [0, 0, 0, 1, 0]);
    for n in 0..100 {
        // Moved by one update, and never lost.
        let worker = n % WORKERS;
        flows.insert(path(&bound, &client), worker);
        client.send(&MEDIA).unwrap();
        assert_eq!(reader(&mut bound), worker);
    }
    // A request that names another worker goes there, and takes nothing along.
    client.send(&request(2, 0)).unwrap();
    assert_eq!(reader(&mut bound), 2);
    client.send(&MEDIA).unwrap();
    assert_eq!(reader(&mut bound), 99 % WORKERS, "a forged request diverts no media");
    flows.remove(path(&bound, &client));
    client.send(&MEDIA).unwrap();
    assert_eq!(reader(&mut bound), hashed);
    assert_eq!(kernel.ways(), [1, 101, 0, 2, 0]);
}

#[test]
fn a_flow_goes_where_user_space_says_over_ipv4() {
    a_flow_goes_where_user_space_says("127.0.0.1");
}

#[test]
fn a_flow_goes_where_user_space_says_over_ipv6() {
    a_flow_goes_where_user_space_says("::1");
}

#[test]
fn each_port_is_steered_for_itself() {
    let ports = [LocalPort::AUDIO, LocalPort::VIDEO, LocalPort::further(0)];
    let steered = steered_at("steering of further ports", "127.0.0.1", &ports);
    let Some((mut bound, kernel, mut flows)) = steered else { return };
    // One socket, and so one address of the peer's, towards all of them.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let places: Vec<_> = bound.all_udp().collect();
    let at = |port| Path { port, ..Path::udp(places[0].1.ip(), client.local_addr().unwrap()) };
    for n in 0..40 {
        for (which, (port, place)) in places.iter().enumerate() {
            let worker = (n + which) % WORKERS;
            client.send_to(&request(worker, 0), place).unwrap();
            assert_eq!(reader(&mut bound), worker, "a check at {port:?}");
            flows.insert(at(*port), worker);
        }
        for (which, (port, place)) in places.iter().enumerate() {
            client.send_to(&MEDIA, place).unwrap();
            assert_eq!(reader(&mut bound), (n + which) % WORKERS, "media at {port:?}");
        }
    }
    // Checks that name the worker of their flow are known by that.
    let [named, known, ..] = kernel.ways();
    assert_eq!((named + known, kernel.ways()[3]), (2 * 40 * places.len() as u64, 0));
    flows.remove(at(LocalPort::VIDEO));
    client.send_to(&MEDIA, places[2].1).unwrap();
    reader(&mut bound);
    client.send_to(&MEDIA, places[1].1).unwrap();
    assert_eq!(reader(&mut bound), 40 % WORKERS, "the other port's flow stays");
    assert_eq!(kernel.ways()[3], 1);
}

#[test]
fn sockets_on_all_addresses_are_steered_too() {
    let Some((mut bound, kernel, mut flows)) = steered("steering on 0.0.0.0", "0.0.0.0") else {
        return;
    };
    let to = SocketAddr::new("127.0.0.9".parse().unwrap(), bound.udp[0].port());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local: IpAddr = to.ip();
    let remote = client.local_addr().unwrap();
    for worker in 0..WORKERS {
        flows.insert(Path::udp(local, remote), worker);
        client.send_to(&MEDIA, to).unwrap();
        assert_eq!(reader(&mut bound), worker);
    }
    assert_eq!(kernel.ways()[1], WORKERS as u64);
}

#[test]
fn quic_goes_by_the_connection_id() {
    let Some((mut bound, kernel, _)) = steered("steering by connection id", "127.0.0.1") else {
        return;
    };
    let client = client(&bound);
    for worker in 0..WORKERS as u8 {
        for datagram in [
            [&[0x43, 0x80, worker][..], &[9; 40]].concat(),
            [&[0xc3, 0, 0, 0, 1, 8, 0x80, worker][..], &[9; 40]].concat(),
        ] {
            client.send(&datagram).unwrap();
            assert_eq!(reader(&mut bound), usize::from(worker));
        }
    }
    assert_eq!(kernel.ways()[2], 2 * WORKERS as u64);
    // A client's first packet carries an id of its own.
    client.send(&[&[0xc3, 0, 0, 0, 1, 8, 0x12, 0x34][..], &[9; 40]].concat()).unwrap();
    reader(&mut bound);
    assert_eq!(kernel.ways()[3], 1);
}

#[test]
fn garbage_of_every_length_arrives_somewhere() {
    let Some((mut bound, kernel, _)) = steered("steering of garbage", "127.0.0.1") else { return };
    let client = client(&bound);
    let whole = request(3, 20);
    let mut sent = 0;
    for length in 0..200 {
        for fill in [0_u8, 1, 0x50, 0x80, 0xff] {
            client.send(&vec![fill; length]).unwrap();
            reader(&mut bound);
            sent += 1;
        }
        // Cut short, and with lengths that lie.
        let mut cut = whole[..length.min(whole.len())].to_vec();
        client.send(&cut).unwrap();
        reader(&mut bound);
        if let Some(lie) = cut.get_mut(22..24) {
            lie.copy_from_slice(&[0xff, 0xff]);
            client.send(&cut).unwrap();
            reader(&mut bound);
            sent += 1;
        }
        sent += 1;
    }
    assert_eq!(kernel.ways().iter().sum::<u64>(), sent, "each was looked at once");
}

#[test]
fn when_a_worker_is_gone_the_others_stay() {
    let Some((mut bound, kernel, mut flows)) = steered("steering without a worker", "127.0.0.1")
    else {
        return;
    };
    let client = client(&bound);
    flows.insert(path(&bound, &client), 1);
    drop(bound.ports.remove(2));
    let places = [0, 1, 3];
    for (place, worker) in places.iter().enumerate() {
        client.send(&request(*worker, 0)).unwrap();
        assert_eq!(reader(&mut bound), place);
    }
    client.send(&MEDIA).unwrap();
    assert_eq!(reader(&mut bound), 1);
    client.send(&request(2, 0)).unwrap();
    reader(&mut bound);
    assert_eq!(kernel.ways()[4], 1, "by the hash, to one that lives");
}

#[test]
fn a_flood_of_strangers_takes_no_room_from_those_in_a_call() {
    let Some((mut bound, _, mut flows)) = steered("steering of strangers", "127.0.0.1") else {
        return;
    };
    let (known, stranger) = (client(&bound), client(&bound));
    flows.insert(path(&bound, &known), 1);
    // Far more than a buffer holds, and nobody reads.
    let request = [request(1, 0), vec![0; 1000]].concat();
    for _ in 0..10_000 {
        for datagram in [&request[..], &[0x90; 1100], &[22; 1100]] {
            stranger.send(datagram).unwrap();
        }
    }
    for n in 0..500_u16 {
        known.send(&[&MEDIA[..], &n.to_be_bytes()].concat()).unwrap();
    }
    let (mut heard, mut strangers) = (Vec::new(), 0);
    let ours = known.local_addr().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while heard.len() < 500 && Instant::now() < deadline {
        for port in &mut bound.ports {
            let now = Clock.instant();
            port.wait(now, Some(now));
            port.receive(now, |meta, bytes| match meta.path.remote == ours {
                true => heard.push(u16::from_be_bytes([bytes[100], bytes[101]])),
                false => strangers += 1,
            });
        }
    }
    assert_eq!(heard, (0..500).collect::<Vec<_>>(), "all, in order");
    assert!(strangers < 30_000, "the flood was larger than its buffers: {strangers}");
}

// ------------------------------------------------------------------------------------------------- a whole relay

/// A peer with the session key: ICE checks and SRTP by hand.
struct Native {
    socket: UdpSocket,
    to: SocketAddr,
    username: (String, String),
    stun: StunKey,
    outbound: Outbound,
    inbound: Inbound,
    ssrc: u32,
    seq: u16,
}

fn key() -> SharedKey {
    SharedKey { profile: Profile::AeadAes128Gcm, key: vec![5; 16], salt: vec![6; 12] }
}

fn socket(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

impl Native {
    async fn join(client: &mut RelayClient<Channel>, scope: &str, n: usize, ip: IpAddr) -> Self {
        let ours = v1::IceCredentials { ufrag: format!("peer{n}"), pwd: format!("{n:022}") };
        let SharedKey { key, salt, .. } = &key();
        let request = v1::AddPeerRequest {
            scope_id: scope.into(),
            peer_id: n.to_string(),
            remote_ice: Some(ours.clone()),
            session_key: Some(v1::SessionKey {
                profile: v1::session_key::Profile::AeadAes128Gcm.into(),
                key: key.clone(),
                salt: salt.clone(),
            }),
            ..v1::AddPeerRequest::default()
        };
        let answer = client.add_peer(request).await.unwrap().into_inner();
        let theirs = answer.local_ice.unwrap();
        let candidate = answer.candidates.iter().find(|c| c.address == ip.to_string()).unwrap();
        let (inbound, ssrc) = (self::key().inbound().unwrap(), 1000 + n as u32);
        let mut native = Self {
            socket: socket(ip),
            to: SocketAddr::new(candidate.address.parse().unwrap(), candidate.port as u16),
            stun: StunKey::new(theirs.pwd.as_bytes()),
            username: (theirs.ufrag, ours.ufrag),
            outbound: self::key().outbound().unwrap(),
            inbound,
            ssrc,
            seq: 1,
        };
        native.check();
        native
    }

    /// One check, until it is answered.
    fn check(&mut self) {
        let mut bytes = [0; 300];
        let (theirs, ours) = &self.username;
        let length = Builder::binding_request(&mut bytes, [5; 12])
            .username(theirs.as_bytes(), ours.as_bytes())
            .priority(1 << 24)
            .ice_controlling(77)
            .use_candidate()
            .integrity(|parts| self.stun.sign(parts))
            .fingerprint()
            .finish()
            .unwrap();
        self.socket.send_to(&bytes[..length], self.to).unwrap();
        let mut answer = [0; 2048];
        loop {
            let length = self.socket.recv(&mut answer).expect("an answer to the check");
            if length > 0 && answer[0] == 1 {
                return;
            }
        }
    }

    fn say(&mut self) {
        let mut bytes = [0; 300];
        let header = HeaderBuilder {
            pt: 111,
            seq: self.seq,
            timestamp: u32::from(self.seq) * 960,
            ssrc: self.ssrc,
            ..HeaderBuilder::default()
        };
        let length = header.write(&[], [(1, &b"0"[..])], &mut bytes).unwrap() + 100;
        let length = self.outbound.protect_rtp(&mut bytes, length).unwrap();
        self.socket.send_to(&bytes[..length], self.to).unwrap();
        self.seq += 1;
    }

    /// The number of the next media packet.
    fn hear(&mut self) -> u16 {
        let mut bytes = [0; 2048];
        loop {
            let length = self.socket.recv(&mut bytes).expect("a packet");
            if bytes[0] < 0x80 || (192..=223).contains(&bytes[1]) {
                continue;
            }
            self.inbound.unprotect_rtp(&mut bytes[..length]).expect("opens");
            return u16::from_be_bytes([bytes[2], bytes[3]]);
        }
    }
}

async fn connect(socket: PathBuf) -> RelayClient<Channel> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://relay");
    RelayClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

fn opus() -> v1::Codec {
    v1::Codec {
        payload_type: 111,
        name: "opus".into(),
        clock_rate_hz: 48_000,
        channels: 2,
        ..v1::Codec::default()
    }
}

fn mid() -> Vec<v1::HeaderExtension> {
    vec![v1::HeaderExtension { id: 1, uri: "urn:ietf:params:rtp-hdrext:sdes:mid".into() }]
}

/// 40 peers in 8 scopes on 4 workers: one of each scope speaks, the others hear every packet; half of the speakers come
/// from another port in the middle. Returns datagrams handed over, datagrams received, and what was degraded.
async fn forty_peers(steering: Steering) -> (u64, u64, Vec<String>) {
    const PACKETS: u16 = 400;
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        rpc_socket: folder.path().join("relay.sock"),
        port: 0,
        metrics_listen: None,
        workers: WORKERS,
        steering,
        ..Config::default()
    };
    let relay = Relay::start(&config).await.unwrap();
    let mut client = connect(config.rpc_socket.clone()).await;
    let mut scopes = Vec::new();
    for scope in 0..8 {
        let name = format!("scope{scope}");
        let request = v1::CreateScopeRequest { scope_id: name.clone(), ..Default::default() };
        client.create_scope(request).await.unwrap();
        let mut speaker = Native::join(&mut client, &name, 100 * scope, IPV4).await;
        speaker.check();
        let request = v1::PublishRequest {
            scope_id: name.clone(),
            peer_id: (100 * scope).to_string(),
            publication_id: "voice".into(),
            kind: v1::Kind::Audio.into(),
            mid: "0".into(),
            codecs: vec![opus()],
            extensions: mid(),
            encodings: vec![v1::Encoding { ssrc: speaker.ssrc, ..v1::Encoding::default() }],
            muted: false,
        };
        client.publish(request).await.unwrap();
        let mut listeners = Vec::new();
        for n in 1..5 {
            let listener = Native::join(&mut client, &name, 100 * scope + n, IPV4).await;
            let request = v1::SubscribeRequest {
                scope_id: name.clone(),
                peer_id: (100 * scope + n).to_string(),
                subscription_id: n.to_string(),
                kind: v1::Kind::Audio.into(),
                mid: "0".into(),
                codecs: vec![opus()],
                extensions: mid(),
                publication_id: "voice".into(),
                as_sent: n % 2 == 0,
                ..v1::SubscribeRequest::default()
            };
            client.subscribe(request).await.unwrap();
            listeners.push(listener);
        }
        scopes.push((speaker, listeners));
    }
    let talk = tokio::task::spawn_blocking(move || {
        for at in 0..PACKETS {
            for (n, (speaker, listeners)) in scopes.iter_mut().enumerate() {
                if at == PACKETS / 2 && n % 2 == 0 {
                    // A NAT gave it another port: one check, and all goes on.
                    speaker.socket = socket(IPV4);
                    speaker.check();
                }
                speaker.say();
                for (listener, native) in listeners.iter_mut().enumerate() {
                    let heard = native.hear();
                    if listener % 2 == 1 {
                        assert_eq!(heard, at + 1, "as it was sent");
                    }
                }
            }
        }
    });
    talk.await.unwrap();
    let info = client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    let workers = statistics.into_inner().workers;
    relay.stop();
    let handed_over = workers.iter().map(|worker| worker.packets_handed_over).sum();
    let received = workers.iter().map(|worker| worker.packets_received).sum();
    (handed_over, received, info.degradations)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owning_worker_reads_its_peers_packets() {
    let (handed_over, received, degradations) = forty_peers(Steering::Auto).await;
    if let Some(why) = degradations.iter().find(|why| why.contains("does not steer")) {
        assert!(is_forbidden(why), "{why}");
        return skip("steering under a relay", why);
    }
    eprintln!("{handed_over} of {received} datagrams were handed over");
    assert!(received > 3000, "{received}");
    assert!(
        handed_over * 1000 <= received,
        "99.9 % on the owning worker: {handed_over} of {received}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_steering_all_is_the_same_but_for_the_hand_overs() {
    let (handed_over, received, degradations) = forty_peers(Steering::Off).await;
    assert!(!degradations.iter().any(|why| why.contains("steer")), "asked for: {degradations:?}");
    assert!(
        handed_over * 2 > received,
        "four workers, and only the hash: {handed_over} of {received}"
    );
}

/// A call of one speaker and two listeners at an address of the only worker, while strangers send what they can to
/// others, or the same. Returns packets that were due, those that came, and those that strangers sent.
async fn call_under_flood(ip: IpAddr, flooded: &[IpAddr]) -> (u32, u32, u64) {
    const PACKETS: u16 = 2500;
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        rpc_socket: folder.path().join("relay.sock"),
        port: 0,
        metrics_listen: None,
        workers: 1,
        steering: Steering::Auto,
        ..Config::default()
    };
    let relay = Relay::start(&config).await.unwrap();
    let mut client = connect(config.rpc_socket.clone()).await;
    let request = v1::CreateScopeRequest { scope_id: "call".into(), ..Default::default() };
    client.create_scope(request).await.unwrap();
    let mut speaker = Native::join(&mut client, "call", 1, ip).await;
    client
        .publish(v1::PublishRequest {
            scope_id: "call".into(),
            peer_id: "1".into(),
            publication_id: "voice".into(),
            kind: v1::Kind::Audio.into(),
            mid: "0".into(),
            codecs: vec![opus()],
            extensions: mid(),
            encodings: vec![v1::Encoding { ssrc: speaker.ssrc, ..v1::Encoding::default() }],
            muted: false,
        })
        .await
        .unwrap();
    let mut listeners = Vec::new();
    for n in 2..4 {
        let listener = Native::join(&mut client, "call", n, ip).await;
        let request = v1::SubscribeRequest {
            scope_id: "call".into(),
            peer_id: n.to_string(),
            subscription_id: n.to_string(),
            kind: v1::Kind::Audio.into(),
            mid: "0".into(),
            codecs: vec![opus()],
            extensions: mid(),
            publication_id: "voice".into(),
            as_sent: true,
            ..v1::SubscribeRequest::default()
        };
        client.subscribe(request).await.unwrap();
        listeners.push(listener);
    }
    let to: Vec<_> = flooded.iter().map(|&ip| SocketAddr::new(ip, speaker.to.port())).collect();
    let ufrag = speaker.username.0.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let flood = {
        let stop = stop.clone();
        std::thread::spawn(move || flood(&to, &ufrag, &stop))
    };
    let heard = tokio::task::spawn_blocking(move || {
        let talk = std::thread::spawn(move || {
            for n in 0..PACKETS {
                if n % 500 == 0 {
                    speaker.check();
                }
                speaker.say();
                std::thread::sleep(Duration::from_micros(700));
            }
        });
        let listen = listeners.into_iter().map(|mut native| {
            std::thread::spawn(move || {
                native.socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let mut bytes = [0; 2048];
                let (mut heard, mut last) = (0_u32, 0);
                while last < PACKETS {
                    let Ok(length) = native.socket.recv(&mut bytes) else { break };
                    if bytes[0] >= 0x80 && !(192..=223).contains(&bytes[1]) {
                        native.inbound.unprotect_rtp(&mut bytes[..length]).expect("opens");
                        last = u16::from_be_bytes([bytes[2], bytes[3]]);
                        heard += 1;
                    }
                }
                heard
            })
        });
        let listen: Vec<_> = listen.collect();
        talk.join().unwrap();
        listen.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
    });
    let heard = heard.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let sent = flood.join().unwrap();
    let peers = relay.peers();
    relay.stop();
    assert_eq!(peers, 3, "nobody left");
    (2 * u32::from(PACKETS), heard, sent)
}

/// Sends forged checks, DTLS and RTP as fast as one thread can. How many datagrams.
fn flood(to: &[SocketAddr], ufrag: &str, stop: &AtomicBool) -> u64 {
    let sockets = to.iter().cycle().take(16).map(|&to| {
        let socket = batch::Socket::bind(SocketAddr::new(to.ip(), 0));
        (socket.unwrap(), to)
    });
    let sockets: Vec<_> = sockets.collect();
    // A check for the speaker's user fragment whose integrity is a guess, the largest that still is one.
    let mut check = [0; 300];
    let guess = StunKey::new(b"a guess");
    let length = Builder::binding_request(&mut check, [9; 12])
        .username(ufrag.as_bytes(), b"them")
        .priority(1)
        .ice_controlling(1)
        .use_candidate()
        .integrity(|parts| guess.sign(parts))
        .fingerprint()
        .finish()
        .unwrap();
    let check = &check[..length];
    let hello = [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80, 1][..], &[3; 90]].concat();
    let media = [0x90_u8; 200];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for (socket, to) in &sockets {
            for datagram in [check, &hello, &media] {
                let run = datagram.repeat(16);
                let segment = datagram.len() as u16;
                let message = batch::Outgoing { to: Some(*to), bytes: &run, segment };
                sent += 16 * socket.send(&[message; 4]).unwrap_or(0) as u64;
            }
        }
    }
    sent
}

async fn a_call_lives_on(ip: IpAddr, flooded: &[IpAddr]) {
    if matches!(bind_and_attach(), Err(error) if is_forbidden(&error)) {
        return skip("a call under a flood", "we may load no program: the flood shares its buffer");
    }
    let (due, heard, flood) = call_under_flood(ip, flooded).await;
    let lost = 100.0 * f64::from(due.saturating_sub(heard)) / f64::from(due);
    eprintln!("{flood} datagrams of flood; {heard} of {due} packets heard, {lost:.3} % lost");
    assert!(flood > 100_000, "{flood}");
    assert!(lost < 0.1, "{lost:.3} % of {due} lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_lives_on_under_a_flood() {
    a_call_lives_on(IPV4, &[IPV4]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_ipv6_lives_on_under_a_flood_of_both_families() {
    a_call_lives_on(IPV6, &[IPV4, IPV6]).await;
}

fn bind_and_attach() -> Result<Kernel, String> {
    let options = Options {
        udp: vec![IpAddr::from([127, 0, 0, 1])],
        workers: 1,
        strangers: true,
        ..Options::default()
    };
    let bound = bind(&options).map_err(|error| error.to_string())?;
    Kernel::attach(&bound).map_err(|error| error.to_string())
}
