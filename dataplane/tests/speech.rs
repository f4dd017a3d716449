//! Who speaks, as the RPC tells it.

use crate::common::peer::Peer;
use crate::common::{mid_extension, publish, scope, start, subscribe};
use std::time::Duration;
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_proto::v1::event::Event;

const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const LOUD: u8 = 25;

fn with_levels(peer: &str, publication: &str) -> v1::PublishRequest {
    let level = v1::HeaderExtension { id: 2, uri: AUDIO_LEVEL.into() };
    v1::PublishRequest {
        extensions: vec![mid_extension(1), level],
        ..publish("room", peer, publication)
    }
}

/// A second of speech.
async fn speak(mut peer: Peer, ssrc: u32, first: u16) -> Peer {
    tokio::task::spawn_blocking(move || {
        for seq in first..first + 50 {
            peer.say_at_level(LOUD, ssrc, seq);
            std::thread::sleep(Duration::from_millis(20));
        }
        peer
    })
    .await
    .unwrap()
}

async fn next(events: &mut tonic::Streaming<v1::Event>) -> Event {
    loop {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            Event::Snapshot(_) | Event::PeerConnected(_) | Event::PublicationStarted(_) => {}
            event => return event,
        }
    }
}

fn speech(speaking: bool) -> Event {
    Event::SpeechChanged(v1::SpeechChanged {
        scope_id: "room".into(),
        peer_id: "ann".into(),
        publication_id: "voice".into(),
        speaking,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speech_is_told_by_name() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    let mut events = client.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    client.create_scope(scope("room")).await.unwrap();
    let ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    client.publish(with_levels("ann", "voice")).await.unwrap();
    let ann = speak(ann, 1, 1).await;
    assert_eq!(next(&mut events).await, speech(true));
    let Event::DominantSpeakerChanged(dominant) = next(&mut events).await else { panic!() };
    assert_eq!((&*dominant.peer_id, &*dominant.publication_id), ("ann", "voice"));
    // She stops sending.
    assert_eq!(next(&mut events).await, speech(false));
    speak(ann, 1, 51).await;
    assert_eq!(next(&mut events).await, speech(true));
    let mute = v1::SetMutedRequest {
        scope_id: "room".into(),
        publication_id: "voice".into(),
        muted: true,
    };
    client.set_muted(mute).await.unwrap();
    assert_eq!(next(&mut events).await, speech(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loudest_alone_are_forwarded_when_the_scope_says_so() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    let limited = |audio_streams_max| v1::CreateScopeRequest { audio_streams_max, ..scope("room") };
    let refused = client.create_scope(limited(65)).await.unwrap_err();
    assert!(refused.message().contains("audio_streams_max is 65: at most 64"), "{refused}");
    client.create_scope(limited(2)).await.unwrap();
    client.create_scope(limited(1)).await.unwrap();
    let ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::join(client, "room", "bob", Protocol::Udp, false).await;
    let _carl = Peer::join(client, "room", "carl", Protocol::Udp, false).await;
    client.publish(with_levels("ann", "voice")).await.unwrap();
    client.publish(with_levels("bob", "hum")).await.unwrap();
    for (subscription, publication) in [("s1", "voice"), ("s2", "hum")] {
        let request = subscribe("room", "carl", subscription, publication);
        client.subscribe(request).await.unwrap();
    }
    speak(ann, 1, 1).await;
    for seq in 1..=10 {
        bob.say_at_level(100, 2, seq);
    }
    let request = || v1::GetStatisticsRequest { scope_ids: vec!["room".into()] };
    // Both are read from sockets of their own: which one's last packet is counted first is nobody's promise.
    let (mut held_back, mut heard) = (0, vec![0; 2]);
    while held_back < 10 || heard[0] < 50 {
        let statistics = client.get_statistics(request()).await.unwrap().into_inner();
        let scope = &statistics.scopes[0];
        let of = |name: &str| scope.peers.iter().find(|peer| peer.peer_id == name).unwrap();
        held_back = of("bob").publications[0].packets_held_back;
        assert_eq!(of("ann").publications[0].packets_held_back, 0);
        assert_eq!(scope.dominant_publication_id, "voice");
        heard = of("carl").subscriptions.iter().map(|s| s.packets).collect();
        assert_eq!(heard[1], 0);
        if held_back == 10 && heard[0] == 50 {
            assert_eq!(statistics.workers[0].packets_dropped["not_loudest"], 10);
        }
    }
}
