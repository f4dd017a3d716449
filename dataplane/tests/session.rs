//! Peers with a session key, and plain ones, on real sockets: what they send reaches the others as it was sent.

use crate::common::{Client, add_peer, publish, scope, start, subscribe};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strait_crypt::srtp::{Profile, SharedKey};
use strait_proto::v1;
use strait_wire::rtp::HeaderBuilder;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(10);
const PACKETS: u16 = 50;

fn key(fill: u8) -> v1::SessionKey {
    let profile = v1::session_key::Profile::AeadAes128Gcm.into();
    v1::SessionKey { profile, key: vec![fill; 16], salt: vec![fill; 12] }
}

/// A peer at a told address.
async fn join(
    client: &mut Client,
    name: &str,
    key: Option<v1::SessionKey>,
) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = v1::AddPeerRequest {
        remote_ice: None,
        remote_fingerprint: None,
        remote_address: socket.local_addr().unwrap().to_string(),
        plain: key.is_none(),
        session_key: key,
        ..add_peer("room", name)
    };
    let answer = client.add_peer(request).await.unwrap().into_inner();
    assert_eq!(answer.local_ice, None, "there is no ICE");
    let is_v4 = |c: &&v1::Candidate| c.address == "127.0.0.1";
    let candidate = answer.candidates.iter().find(is_v4).expect("a candidate");
    let to = SocketAddr::new(candidate.address.parse().unwrap(), candidate.port as u16);
    (socket, to)
}

fn packet(seq: u16) -> Vec<u8> {
    let mut bytes = vec![0; 200];
    let header = HeaderBuilder {
        pt: crate::common::OPUS as u8,
        seq,
        timestamp: u32::from(seq) * 960,
        ssrc: 4711,
        ..HeaderBuilder::default()
    };
    let len = header.write(&[], [(1, &b"0"[..])], &mut bytes).unwrap();
    bytes[len..].fill(seq as u8);
    bytes
}

async fn everybody_gets_what_was_sent(key_given: Option<v1::SessionKey>, moving: bool) {
    // Three workers: the kernel spreads the flows over them, and the scope lives on one.
    let mut setup = start(3).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let (publisher, to) = join(client, "ann", key_given.clone()).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let mut subscribers = Vec::new();
    for n in 0..6 {
        let name = format!("sub{n}");
        let (socket, _) = join(client, &name, key_given.clone()).await;
        let request = v1::SubscribeRequest {
            codecs: vec![crate::common::opus()],
            extensions: vec![crate::common::mid_extension(1)],
            as_sent: true,
            ..subscribe("room", &name, &name, "voice")
        };
        let answer = client.subscribe(request).await.unwrap().into_inner();
        assert_eq!((answer.ssrc, answer.rtx_ssrc), (0, 0), "the publisher's own");
        subscribers.push(socket);
    }
    let mut outbound = key_given.map(|key| {
        let key = SharedKey { profile: Profile::AeadAes128Gcm, key: key.key, salt: key.salt };
        key.outbound().unwrap()
    });
    let stop = Arc::new(AtomicBool::new(false));
    let (mut mover, stopped) = (client.clone(), stop.clone());
    let moves = tokio::spawn(async move {
        let mut moves = 0;
        while moving && !stopped.load(Ordering::Relaxed) {
            moves += 1;
            let request = v1::MoveScopeRequest { scope_id: "room".into(), worker: moves % 3 };
            mover.move_scope(request).await.unwrap();
        }
        moves
    });
    let packets = if moving { 20 * PACKETS } else { PACKETS };
    let heard = tokio::task::spawn_blocking(move || {
        for seq in 100..100 + packets {
            let mut bytes = packet(seq);
            if let Some(outbound) = &mut outbound {
                let len = bytes.len();
                bytes.resize(len + 16, 0);
                outbound.protect_rtp(&mut bytes, len).unwrap();
            }
            publisher.send_to(&bytes, to).unwrap();
            for (n, subscriber) in subscribers.iter().enumerate() {
                let mut got = [0; 2048];
                let len = subscriber.recv(&mut got).expect("a packet");
                assert_eq!(got[..len], bytes, "subscriber {n}, packet {seq}");
            }
        }
    });
    heard.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    assert_eq!(moves.await.unwrap() > 3, moving);
    // They are pinned to their address until they are removed.
    let request = v1::RemovePeerRequest { scope_id: "room".into(), peer_id: "ann".into() };
    client.remove_peer(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_with_the_session_key_get_the_ciphertext() {
    everybody_gets_what_was_sent(Some(key(3)), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_peers_get_the_packets() {
    everybody_gets_what_was_sent(None, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_so_they_do_while_their_scope_moves() {
    everybody_gets_what_was_sent(Some(key(3)), true).await;
    everybody_gets_what_was_sent(None, true).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let base = || v1::AddPeerRequest { remote_fingerprint: None, ..add_peer("room", "ann") };
    let at = |address: &str| v1::AddPeerRequest {
        remote_ice: None,
        remote_address: address.into(),
        session_key: Some(key(1)),
        ..base()
    };
    let short = v1::SessionKey { salt: vec![1; 3], ..key(1) };
    let unnamed = v1::SessionKey { profile: 0, ..key(1) };
    for (request, part) in [
        (v1::AddPeerRequest { session_key: Some(short), ..base() }, "has 3 bytes"),
        (v1::AddPeerRequest { session_key: Some(unnamed), ..base() }, "session_key.profile"),
        (
            v1::AddPeerRequest { session_key: Some(key(1)), ..add_peer("room", "ann") },
            "one of the three",
        ),
        (v1::AddPeerRequest { plain: true, ..base() }, "needs remote_address"),
        (v1::AddPeerRequest { session_key: None, ..at("127.0.0.1:9") }, "session_key or plain"),
        (
            v1::AddPeerRequest { remote_ice: base().remote_ice, ..at("127.0.0.1:9") },
            "one of the two",
        ),
        (at("example.org:5"), "no IP:PORT"),
        (at("127.0.0.1:0"), "no address of one peer"),
        (at("224.0.0.1:9"), "no address of one peer"),
    ] {
        let status = client.add_peer(request).await.expect_err(part);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(part), "{status}");
    }
    client.add_peer(at("127.0.0.1:9")).await.unwrap();
    let other = v1::AddPeerRequest {
        peer_id: "bob".into(),
        session_key: Some(key(2)),
        ..at("127.0.0.1:10")
    };
    let status = client.add_peer(other.clone()).await.expect_err("another key");
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    // And what was refused left nothing behind.
    let again = v1::AddPeerRequest { session_key: Some(key(1)), ..other };
    client.add_peer(again).await.unwrap();
}
