//! Whole calls: peers that publish to each other through a running relay, over real sockets.

use crate::common::peer::{Heard, Peer};
use crate::common::{Client, Setup, publish, scope, start, start_config, start_with, subscribe};
use std::net::UdpSocket;
use std::time::Duration;
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_proto::v1::event::Event;
use strait_relay::Config;
use strait_relay::config::{Io, Steering};

const PATIENCE: Duration = Duration::from_secs(10);

/// One speaks until the other hears, then some packets more. What was heard, and the next sequence number.
fn call(speaker: &mut Peer, listener: &mut Peer, ssrc: u32, first: u16) -> (Vec<Heard>, u16) {
    // The first packets may overtake the speaker's keys on their way to the worker.
    let mut seq = first;
    let mut heard = loop {
        speaker.say(ssrc, seq, &seq.to_be_bytes());
        seq += 1;
        if let Some(heard) = listener.hear(Duration::from_millis(100)) {
            break vec![heard];
        }
        assert!(seq < first + 100, "nothing is heard");
    };
    for _ in 0..20 {
        speaker.say(ssrc, seq, &seq.to_be_bytes());
        seq += 1;
        heard.push(listener.hear(PATIENCE).expect("a packet"));
    }
    (heard, seq)
}

fn assert_continuous(heard: &[Heard], ssrc: u32) {
    for pair in heard.windows(2) {
        assert_eq!(pair[1].seq, pair[0].seq.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(960));
    }
    for packet in heard {
        assert_eq!((packet.ssrc, packet.pt), (ssrc, 96), "as the subscriber's leg says");
        assert_eq!(packet.mid.as_deref(), Some(&b"7"[..]));
        assert_eq!(packet.payload.len(), 2);
    }
}

async fn two_way(workers: usize, over: [Protocol; 2], ipv6: bool) {
    two_way_in(&mut start(workers).await.client, over, ipv6).await;
}

async fn two_way_in(client: &mut Client, over: [Protocol; 2], ipv6: bool) {
    let room = format!("{over:?}");
    let room = room.as_str();
    client.create_scope(scope(room)).await.unwrap();
    let mut ann = Peer::join(client, room, "ann", over[0], ipv6).await;
    let mut bob = Peer::join(client, room, "bob", over[1], ipv6).await;
    client.publish(publish(room, "ann", "ann-voice")).await.unwrap();
    let bound = client.subscribe(subscribe(room, "bob", "s", "ann-voice")).await.unwrap();
    let ssrc = bound.into_inner().ssrc;
    let heard = tokio::task::spawn_blocking(move || call(&mut ann, &mut bob, 4711, 100));
    assert_continuous(&heard.await.unwrap().0, ssrc);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_udp() {
    two_way(1, [Protocol::Udp, Protocol::Udp], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_each_way_to_speak_udp() {
    for (io, busy_poll_us) in [(Io::Mmsg, 0), (Io::Uring, 0), (Io::Mmsg, 300), (Io::Uring, 300)] {
        let config = |config| Config { workers: 2, io, busy_poll_us, ..config };
        let mut setup = start_config(config).await;
        let info = setup.client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
        let missed = info.degradations.iter().find(|why| why.contains("io_uring"));
        assert_eq!(missed, None, "{io:?}");
        for over in [[Protocol::Udp, Protocol::Udp], [Protocol::Udp, Protocol::TcpPassive]] {
            two_way_in(&mut setup.client, over, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_ipv6() {
    two_way(1, [Protocol::Udp, Protocol::Udp], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_tcp_and_from_tcp_to_udp() {
    two_way(1, [Protocol::TcpPassive, Protocol::TcpPassive], false).await;
    two_way(1, [Protocol::TcpPassive, Protocol::Udp], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_several_workers_every_flow_finds_its_own() {
    let mut setup = start_with(3, Steering::Off).await;
    let client = &mut setup.client;
    // Each scope lives on one worker, and the kernel spreads the peers' flows over all three.
    for room in ["a", "b", "c"] {
        client.create_scope(scope(room)).await.unwrap();
        let over = [Protocol::Udp, Protocol::TcpPassive];
        let mut ann = Peer::join(client, room, "ann", over[0], false).await;
        client.publish(publish(room, "ann", "voice")).await.unwrap();
        let mut others = Vec::new();
        for (n, name) in ["bob", "carl", "dora", "emil"].iter().enumerate() {
            let peer = Peer::join(client, room, name, over[n % 2], false).await;
            let bound = client.subscribe(subscribe(room, name, name, "voice")).await.unwrap();
            others.push((peer, bound.into_inner().ssrc));
        }
        tokio::task::spawn_blocking(move || {
            // A packet may overtake a listener's keys, so the first that counts is one that all have heard.
            let mut first = 1;
            for (peer, _) in &mut others {
                first = call(&mut ann, peer, 9, first).1;
            }
            for seq in first..first + 20 {
                ann.say(9, seq, &seq.to_be_bytes());
            }
            for (peer, ssrc) in &mut others {
                let mut heard = Vec::new();
                while heard.len() < 20 {
                    let packet = peer.hear(PATIENCE).expect("a packet");
                    let said = u16::from_be_bytes([packet.payload[0], packet.payload[1]]);
                    if said >= first {
                        heard.push(packet);
                    }
                }
                assert_continuous(&heard, *ssrc);
            }
        })
        .await
        .unwrap();
    }
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    let workers = statistics.into_inner().workers;
    assert!(workers.iter().all(|worker| worker.scopes == 1), "spread: {workers:?}");
    // 15 flows: that the kernel hit each one's worker by chance is a one in 14 million case.
    assert!(workers.iter().map(|worker| worker.packets_handed_over).sum::<u64>() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_check_for_another_worker_diverts_no_call() {
    let Setup { client, .. } = &mut start(2).await;
    client.create_scope(scope("room")).await.unwrap();
    client.create_scope(scope("elsewhere")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::join(client, "room", "bob", Protocol::Udp, false).await;
    let eve = Peer::join(client, "elsewhere", "eve", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    client.subscribe(subscribe("room", "bob", "s", "voice")).await.unwrap();
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    let workers = statistics.into_inner().workers;
    assert!(workers.iter().all(|worker| worker.scopes == 1), "spread: {workers:?}");
    tokio::task::spawn_blocking(move || {
        call(&mut ann, &mut bob, 9, 1);
        // As if eve had written ann's address into her packet: the relay cannot tell.
        for seq in 1000..1010 {
            ann.forge(&eve);
            ann.say(9, seq, &seq.to_be_bytes());
            let heard = bob.hear(PATIENCE).expect("a packet after a forged check");
            assert_eq!(heard.payload, seq.to_be_bytes());
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_does_not_disturb_a_call() {
    let mut setup = start(2).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::join(client, "room", "bob", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let bound =
        client.subscribe(subscribe("room", "bob", "s", "voice")).await.unwrap().into_inner();
    let info = client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let relay = info.candidates.iter().find(|c| c.address == "127.0.0.1").unwrap().port as u16;
    tokio::task::spawn_blocking(move || {
        let before = call(&mut ann, &mut bob, 1, 1).0;
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut state = 0x9e37_79b9_u32;
        for n in 0..5000_u32 {
            let mut garbage = [0_u8; 200];
            for byte in &mut garbage {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            // Every kind of first byte; as DTLS, STUN, RTP and RTCP too.
            garbage[0] = [0, 1, 20, 22, 23, 64, 128, 144, 255][n as usize % 9];
            let length = 1 + n as usize % 199;
            stranger.send_to(&garbage[..length], ("127.0.0.1", relay)).unwrap();
            if n % 10 == 0 {
                // And from a peer's own address, where a ClientHello or an RTP packet would be heeded.
                ann.send(&garbage[..length]);
            }
        }
        let after = call(&mut ann, &mut bob, 1, 200).0;
        assert_continuous(&after, bound.ssrc);
        assert!(after[0].seq > before[20].seq);
        stranger.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(stranger.recv(&mut [0; 2048]).is_err(), "a stranger gets no answer");
    })
    .await
    .unwrap();
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    let dropped: u64 = statistics
        .into_inner()
        .workers
        .iter()
        .flat_map(|worker| worker.packets_dropped.values())
        .sum();
    assert!(dropped >= 5000, "{dropped} drops are counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_statistics_tell_of_the_call() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    let mut events = client.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first.event, Some(Event::Snapshot(v1::Snapshot { scopes: vec![] })));

    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let told = events.message().await.unwrap().unwrap().event.unwrap();
    let Event::PeerConnected(connected) = told else { panic!("{told:?}") };
    assert_eq!((connected.scope_id.as_str(), connected.peer_id.as_str()), ("room", "ann"));
    assert_eq!(connected.protocol, "udp");
    assert!(connected.remote_address.starts_with("127.0.0.1:"));

    let mut bob = Peer::join(client, "room", "bob", Protocol::Udp, false).await;
    assert!(matches!(
        events.message().await.unwrap().unwrap().event,
        Some(Event::PeerConnected(_))
    ));
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    client.subscribe(subscribe("room", "bob", "s", "voice")).await.unwrap();
    tokio::task::spawn_blocking(move || call(&mut ann, &mut bob, 1, 1)).await.unwrap();
    let told = events.message().await.unwrap().unwrap().event.unwrap();
    let Event::PublicationStarted(started) = told else { panic!("{told:?}") };
    assert_eq!((started.peer_id.as_str(), started.publication_id.as_str()), ("ann", "voice"));

    let request = v1::GetStatisticsRequest { scope_ids: vec!["room".into()] };
    let statistics = client.get_statistics(request).await.unwrap().into_inner();
    let peers = &statistics.scopes[0].peers;
    let ann = peers.iter().find(|peer| peer.peer_id == "ann").unwrap();
    let bob = peers.iter().find(|peer| peer.peer_id == "bob").unwrap();
    assert!(ann.connected && ann.packets_received >= 21);
    assert!(ann.publications[0].encodings[0].packets >= 21);
    assert_eq!(bob.subscriptions[0].publication_id, "voice");
    assert!(bob.subscriptions[0].packets >= 21);
    assert!(statistics.workers[0].bytes_sent > 0);

    let removal = v1::RemovePeerRequest { scope_id: "room".into(), peer_id: "ann".into() };
    client.remove_peer(removal).await.unwrap();
    let told = events.message().await.unwrap().unwrap().event.unwrap();
    let Event::PeerLeft(left) = told else { panic!("{told:?}") };
    assert_eq!(left.reason(), v1::peer_left::Reason::Removed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_flows_on_when_the_control_plane_is_gone() {
    let setup = start(1).await;
    let mut client = setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(&mut client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::join(&mut client, "room", "bob", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    client.subscribe(subscribe("room", "bob", "s", "voice")).await.unwrap();
    drop(client);
    tokio::task::spawn_blocking(move || call(&mut ann, &mut bob, 1, 1)).await.unwrap();
    // And the next one finds all that there is.
    let mut next = crate::common::connect(&setup.socket).await;
    let mut events = next.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    let told = events.message().await.unwrap().unwrap().event.unwrap();
    let Event::Snapshot(snapshot) = told else { panic!("{told:?}") };
    let peers = &snapshot.scopes[0].peers;
    assert!(peers.iter().all(|peer| peer.connected));
    assert_eq!(peers[0].publication_ids, ["voice"]);
    assert_eq!(peers[1].subscription_ids, ["s"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_certificate_is_refused() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    let mut events = client.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    client.create_scope(scope("room")).await.unwrap();
    // The peer is announced with another fingerprint than it has.
    let mut mallory = Peer::prepare(client, "room", "mallory", Some([9; 32])).await;
    tokio::task::spawn_blocking(move || {
        mallory.check();
        mallory.try_shake(Duration::from_secs(3))
    });
    let told = events.message().await.unwrap().unwrap().event.unwrap();
    let Event::PeerLeft(left) = told else { panic!("{told:?}") };
    assert_eq!(left.reason(), v1::peer_left::Reason::HandshakeFailed);
    assert!(left.detail.contains("fingerprint"), "{}", left.detail);
}
