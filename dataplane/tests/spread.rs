//! A scope that is larger than a worker's share, on real sockets: who lives on another worker misses nothing.

use crate::common::peer::{Heard, Peer};
use crate::common::{Client, Setup, add_peer, publish, scope, start_config, subscribe};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_proto::v1::event::Event;
use strait_relay::Config;
use strait_relay::config::Steering;
use strait_wire::rtp::HeaderBuilder;

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);
const WORKERS: usize = 3;
const VP8: u32 = 100;

/// Three workers, each with room for two subscriptions of a scope.
async fn small(steering: Steering) -> Setup {
    start_config(|config| Config {
        workers: WORKERS,
        steering,
        scope_subscriptions_per_worker: 2,
        ..config
    })
    .await
}

/// Peers of each worker.
async fn peers(client: &mut Client) -> Vec<u32> {
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    statistics.into_inner().workers.iter().map(|worker| worker.peers).collect()
}

async fn of_room(client: &mut Client) -> Vec<v1::PeerStatistics> {
    let request = v1::GetStatisticsRequest { scope_ids: vec!["room".into()] };
    let mut scopes = client.get_statistics(request).await.unwrap().into_inner().scopes;
    scopes.remove(0).peers
}

/// The speaker speaks until all listeners have heard something, then `count` packets more, of which each listener gets
/// every one, in order. Returns the speaker's next sequence number, and what came last.
fn talk(
    speaker: &mut Peer,
    listeners: &mut [Peer],
    ssrc: u32,
    first: u16,
    count: u16,
) -> (u16, Vec<Heard>) {
    let mut seq = first;
    let mut say = |speaker: &mut Peer| {
        speaker.say(ssrc, seq, &seq.to_be_bytes());
        seq += 1;
        seq - 1
    };
    let said = |heard: &Heard| u16::from_be_bytes([heard.payload[0], heard.payload[1]]);
    for listener in &mut *listeners {
        let start = Instant::now();
        loop {
            let last = say(speaker);
            // What an earlier talk left over does not count.
            if listener.hear(SHORT).is_some_and(|heard| said(&heard) >= first) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "nothing is heard up to {last}");
        }
    }
    let from = say(speaker);
    for _ in 1..count {
        say(speaker);
    }
    let mut last = Vec::new();
    for (n, listener) in listeners.iter_mut().enumerate() {
        let mut heard: Vec<Heard> = Vec::new();
        while heard.len() < usize::from(count) {
            let packet = listener.hear(PATIENCE);
            let packet = packet.unwrap_or_else(|| panic!("listener {n} after {}", heard.len()));
            if said(&packet) >= from {
                assert_eq!(said(&packet), from + heard.len() as u16, "listener {n}, in order");
                if let Some(before) = heard.last() {
                    assert_eq!(packet.seq, before.seq.wrapping_add(1), "listener {n}");
                    assert_eq!(packet.ssrc, before.ssrc);
                }
                heard.push(packet);
            }
        }
        last.extend(heard.pop());
    }
    (seq, last)
}

async fn everybody_hears_everything(steering: Steering) {
    let mut setup = small(steering).await;
    let client = &mut setup.client;
    let mut events = client.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    let home = client.create_scope(scope("room")).await.unwrap().into_inner().worker;
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let names: Vec<String> = (1..=8).map(|n| format!("peer{n}")).collect();
    let (mut listeners, mut ssrcs) = (Vec::new(), Vec::new());
    for (n, name) in names.iter().enumerate() {
        let over = if n == 4 { Protocol::TcpPassive } else { Protocol::Udp };
        listeners.push(Peer::join(client, "room", name, over, false).await);
        let bound = client.subscribe(subscribe("room", name, name, "voice")).await.unwrap();
        ssrcs.push(bound.into_inner().ssrc);
    }
    assert_eq!(peers(client).await, [3, 3, 3], "spread");
    for worker in 0..WORKERS as u32 {
        let request = v1::MoveScopeRequest { scope_id: "room".into(), worker };
        let moved = client.move_scope(request).await;
        // It is where it is already, or cannot move as one.
        let code = moved.map_or_else(|status| status.code(), |_| tonic::Code::Ok);
        assert_eq!(
            code,
            if worker == home { tonic::Code::Ok } else { tonic::Code::InvalidArgument }
        );
    }
    let talked = tokio::task::spawn_blocking(move || {
        let (seq, last) = talk(&mut ann, &mut listeners, 9, 1, 200);
        (ann, listeners, seq, last)
    });
    let (mut ann, mut listeners, seq, last) = talked.await.unwrap();
    assert_eq!(last.iter().map(|heard| heard.ssrc).collect::<Vec<_>>(), ssrcs);

    // By name it is one scope.
    let room = of_room(client).await;
    assert_eq!(room.len(), 9);
    for peer in &room {
        assert!(peer.connected);
        if peer.peer_id == "ann" {
            assert!(peer.publications[0].encodings[0].packets >= 200);
        } else {
            assert!(peer.publications.is_empty());
            assert_eq!(peer.subscriptions[0].publication_id, "voice");
            assert!(peer.subscriptions[0].packets >= 200, "{peer:?}");
        }
    }

    // Mute holds it back from all, and the end of it gives it back to all.
    let mute = |muted| v1::SetMutedRequest {
        scope_id: "room".into(),
        publication_id: "voice".into(),
        muted,
    };
    client.set_muted(mute(true)).await.unwrap();
    let muted = tokio::task::spawn_blocking(move || {
        for seq in seq..seq + 20 {
            ann.say(9, seq, &seq.to_be_bytes());
        }
        for listener in &mut listeners {
            let heard = std::iter::from_fn(|| listener.hear(SHORT));
            for heard in heard {
                assert!(u16::from_be_bytes([heard.payload[0], heard.payload[1]]) < seq, "muted");
            }
        }
        (ann, listeners, seq + 20)
    });
    let (mut ann, mut listeners, seq) = muted.await.unwrap();
    client.set_muted(mute(false)).await.unwrap();
    let talked = tokio::task::spawn_blocking(move || {
        let (_, last) = talk(&mut ann, &mut listeners, 9, seq, 20);
        (listeners, last)
    });
    let (mut listeners, before) = talked.await.unwrap();

    // The publisher leaves: everybody is told, once, and is bound to nothing.
    let request = v1::RemovePeerRequest { scope_id: "room".into(), peer_id: "ann".into() };
    client.remove_peer(request).await.unwrap();
    let (mut connected, mut started, mut left) = (0, 0, Vec::new());
    while left.is_empty() {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            Event::PeerConnected(_) => connected += 1,
            Event::PublicationStarted(event) => {
                assert_eq!(
                    (event.peer_id.as_str(), event.publication_id.as_str()),
                    ("ann", "voice")
                );
                started += 1;
            }
            Event::PeerLeft(event) => left.push(event.peer_id),
            _ => {}
        }
    }
    assert_eq!((connected, started, left), (9, 1, vec!["ann".to_owned()]));
    let room = of_room(client).await;
    assert!(room.iter().all(|peer| peer.subscriptions[0].publication_id.is_empty()), "{room:?}");

    // Another one, who lives elsewhere, takes over: the outgoing streams go on where they were.
    client.publish(publish("room", "peer8", "other voice")).await.unwrap();
    for name in names.iter().take(7) {
        let request = v1::BindRequest {
            scope_id: "room".into(),
            subscription_id: name.clone(),
            publication_id: "other voice".into(),
        };
        client.bind(request).await.unwrap();
    }
    let talked = tokio::task::spawn_blocking(move || {
        let mut speaker = listeners.pop().unwrap();
        talk(&mut speaker, &mut listeners, 77, 1, 50).1
    });
    for (before, after) in before.iter().zip(&talked.await.unwrap()) {
        assert_eq!(before.ssrc, after.ssrc);
        assert!((50..2000).contains(&after.seq.wrapping_sub(before.seq)), "{before:?} {after:?}");
    }

    // And the scope goes as a whole.
    let request = v1::DisposeScopeRequest { scope_id: "room".into() };
    client.dispose_scope(request).await.unwrap();
    assert_eq!(peers(client).await, [0, 0, 0]);
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    assert!(statistics.into_inner().workers.iter().all(|worker| worker.scopes == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_hears_everything_with_steering() {
    everybody_hears_everything(Steering::Auto).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_hears_everything_without_steering() {
    everybody_hears_everything(Steering::Off).await;
}

fn vp8(payload_type: u32) -> v1::Codec {
    v1::Codec {
        payload_type,
        name: "VP8".into(),
        clock_rate_hz: 90_000,
        feedback: vec!["nack pli".into()],
        ..v1::Codec::default()
    }
}

/// The payload of a picture.
fn picture(number: u16, key_frame: bool) -> Vec<u8> {
    let [high, low] = (number | 0x8000).to_be_bytes();
    vec![0x90, 0xE0, high, low, 0, 0x20, u8::from(!key_frame), 1, 2, 3, 4, 5]
}

async fn a_late_viewer_gets_a_key_frame(steering: Steering) {
    let mut setup = small(steering).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let request = v1::PublishRequest {
        kind: v1::Kind::Video.into(),
        codecs: vec![vp8(VP8)],
        ..publish("room", "ann", "camera")
    };
    client.publish(request).await.unwrap();
    let mut seq = 1;
    for n in 0..6 {
        let name = format!("viewer{n}");
        let mut viewer = Peer::join(client, "room", &name, Protocol::Udp, false).await;
        let request = v1::SubscribeRequest {
            kind: v1::Kind::Video.into(),
            codecs: vec![vp8(96)],
            ..subscribe("room", &name, &name, "camera")
        };
        client.subscribe(request).await.unwrap();
        let seen = tokio::task::spawn_blocking(move || {
            // Something that no decoder can begin with, until a key frame is asked for. The first viewer's wish is what
            // makes the camera known.
            let start = Instant::now();
            loop {
                ann.say_as(VP8 as u8, 5, seq, &picture(seq, false));
                seq += 1;
                if let Some(ssrc) = ann.asked(SHORT) {
                    assert_eq!(ssrc, 5);
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "viewer {n}: no key frame is asked for");
            }
            ann.say_as(VP8 as u8, 5, seq, &picture(seq, true));
            let key = seq;
            seq += 1;
            for _ in 0..20 {
                ann.say_as(VP8 as u8, 5, seq, &picture(seq, false));
                seq += 1;
            }
            let mut seen = Vec::new();
            for _ in 0..21 {
                seen.push(viewer.hear(PATIENCE).expect("a picture"));
            }
            (ann, key, seq, seen)
        });
        let (camera, key, next, seen) = seen.await.unwrap();
        (ann, seq) = (camera, next);
        assert_eq!(seen[0].payload[6], 0, "viewer {n} begins with a key frame");
        assert_eq!(seen[0].payload[2..4], (key | 0x8000).to_be_bytes(), "viewer {n}: that one");
        assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq.wrapping_add(1)));
    }
    let spread = peers(client).await;
    assert!(spread.iter().all(|peers| *peers >= 2), "spread: {spread:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_viewer_gets_a_key_frame_with_steering() {
    a_late_viewer_gets_a_key_frame(Steering::Auto).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_viewer_gets_a_key_frame_without_steering() {
    a_late_viewer_gets_a_key_frame(Steering::Off).await;
}

/// Which of two layers are told to be wanted next; nothing else is told of.
async fn wanted(events: &mut tonic::Streaming<v1::Event>) -> Vec<u32> {
    let told = async {
        loop {
            let event = events.message().await.unwrap().unwrap().event.unwrap();
            if let Event::LayersWanted(event) = event {
                assert_eq!(event.publication_id, "camera");
                return event.encodings;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("layers are told of")
}

async fn a_layer_stops_that_no_viewer_of_any_worker_wants(steering: Steering) {
    let mut setup = small(steering).await;
    let client = &mut setup.client;
    let mut events = client.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let layer = |rid: &str, ssrc| v1::Encoding { rid: rid.into(), ssrc, rtx_ssrc: 0 };
    let request = v1::PublishRequest {
        kind: v1::Kind::Video.into(),
        codecs: vec![vp8(VP8)],
        encodings: vec![layer("q", 5), layer("f", 6)],
        ..publish("room", "ann", "camera")
    };
    client.publish(request).await.unwrap();
    let mut viewers = Vec::new();
    for n in 0..6 {
        let name = format!("viewer{n}");
        viewers.push(Peer::join(client, "room", &name, Protocol::Udp, false).await);
        let request = v1::SubscribeRequest {
            kind: v1::Kind::Video.into(),
            codecs: vec![vp8(96)],
            ..subscribe("room", &name, &name, "camera")
        };
        client.subscribe(request).await.unwrap();
    }
    let spread = peers(client).await;
    assert!(spread.iter().all(|peers| *peers >= 2), "spread: {spread:?}");
    let ended = Arc::new(AtomicBool::new(false));
    let is_over = ended.clone();
    let flowing = tokio::task::spawn_blocking(move || {
        for seq in 1..2000 {
            [5, 6].iter().for_each(|ssrc| {
                ann.say_as(VP8 as u8, *ssrc, seq, &picture(seq, true));
            });
            std::thread::sleep(Duration::from_millis(30));
            if is_over.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    let mut other = client.clone();
    let mut prefer = async |n: usize, layer_max| {
        let request = v1::SetPreferencesRequest {
            scope_id: "room".into(),
            subscription_id: format!("viewer{n}"),
            preferences: Some(v1::Preferences { layer_max, ..v1::Preferences::default() }),
        };
        other.set_preferences(request).await.unwrap();
    };
    assert_eq!(wanted(&mut events).await, [0, 1], "all that is sent, at first");
    assert_eq!(wanted(&mut events).await, [1], "everybody wants the best");
    // One after the other is content with less, those on other workers last.
    for n in 0..6 {
        prefer(n, Some(0)).await;
    }
    assert_eq!(wanted(&mut events).await, [0, 1], "at once");
    assert_eq!(wanted(&mut events).await, [0], "the high one is nobody's");
    // Each of them is enough to bring it back, wherever it lives.
    for n in 0..6 {
        prefer(n, None).await;
        assert_eq!(wanted(&mut events).await, [0, 1], "viewer {n}");
        prefer(n, Some(0)).await;
        assert_eq!(wanted(&mut events).await, [0], "viewer {n}");
    }
    ended.store(true, Ordering::Relaxed);
    flowing.await.unwrap();
    drop(viewers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_stops_that_no_viewer_of_any_worker_wants_with_steering() {
    a_layer_stops_that_no_viewer_of_any_worker_wants(Steering::Auto).await;
}

/// A peer at a told address: with a session key, or plain.
async fn native(client: &mut Client, name: &str, key: bool) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let profile = v1::session_key::Profile::AeadAes128Gcm.into();
    let key = key.then(|| v1::SessionKey { profile, key: vec![3; 16], salt: vec![3; 12] });
    let request = v1::AddPeerRequest {
        remote_ice: None,
        remote_fingerprint: None,
        remote_address: socket.local_addr().unwrap().to_string(),
        plain: key.is_none(),
        session_key: key,
        ..add_peer("room", name)
    };
    let answer = client.add_peer(request).await.unwrap().into_inner();
    let candidate = answer.candidates.iter().find(|c| c.address == "127.0.0.1").unwrap();
    (socket, SocketAddr::new(candidate.address.parse().unwrap(), candidate.port as u16))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_peers_of_all_workers_get_what_was_sent() {
    let mut setup = small(Steering::Auto).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let (publisher, to) = native(client, "ann", false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let mut subscribers = Vec::new();
    for n in 0..6 {
        let name = format!("sub{n}");
        let (socket, _) = native(client, &name, false).await;
        let request = v1::SubscribeRequest {
            codecs: vec![crate::common::opus()],
            extensions: vec![crate::common::mid_extension(1)],
            as_sent: true,
            ..subscribe("room", &name, &name, "voice")
        };
        client.subscribe(request).await.unwrap();
        subscribers.push(socket);
    }
    let spread = peers(client).await;
    assert!(spread.iter().all(|peers| *peers >= 2), "spread: {spread:?}");
    let heard = tokio::task::spawn_blocking(move || {
        for seq in 100..150 {
            let mut bytes = vec![seq as u8; 200];
            let (pt, ssrc) = (crate::common::OPUS as u8, 4711);
            let header = HeaderBuilder { pt, seq, ssrc, ..HeaderBuilder::default() };
            header.write(&[], [(1, &b"0"[..])], &mut bytes).unwrap();
            publisher.send_to(&bytes, to).unwrap();
            for (n, subscriber) in subscribers.iter().enumerate() {
                let mut got = [0; 2048];
                let len = subscriber.recv(&mut got).expect("a packet");
                assert_eq!(got[..len], bytes, "subscriber {n}, packet {seq}");
            }
        }
    });
    heard.await.unwrap();
}

#[tokio::test]
async fn peers_with_the_session_key_stay_together() {
    let mut setup = small(Steering::Off).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    for n in 0..6 {
        native(client, &format!("keyed{n}"), true).await;
    }
    let mut spread = peers(client).await;
    spread.sort_unstable();
    assert_eq!(spread, [0, 0, 6]);
    // Others of the same scope make room for them.
    for n in 0..4 {
        native(client, &format!("plain{n}"), false).await;
    }
    let mut spread = peers(client).await;
    spread.sort_unstable();
    assert_eq!(spread, [2, 2, 6]);
}
