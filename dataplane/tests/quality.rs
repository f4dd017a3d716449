//! How streams fare, as a control plane is told it.

use crate::common::peer::Peer;
use crate::common::{publish, scope, start, start_config, subscribe};
use std::time::Duration;
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_relay::Config;
use strait_relay::config::Io;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_delay_of_a_publisher_are_told() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    let only =
        |room: &str| v1::WatchQualityRequest { scope_ids: vec![room.into()], ..Default::default() };
    let mut all =
        client.watch_quality(v1::WatchQualityRequest::default()).await.unwrap().into_inner();
    let mut room = client.watch_quality(only("room")).await.unwrap().into_inner();
    let mut other = client.watch_quality(only("other")).await.unwrap().into_inner();
    let wrong = client.watch_quality(only("")).await.unwrap_err();
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument);

    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let sending = tokio::task::spawn_blocking(move || {
        // Every tenth is missing, and each comes so long after the one before that the figures are told meanwhile.
        for seq in (1..150_u16).filter(|seq| seq % 10 != 0) {
            ann.say(1, seq, b"hello");
            std::thread::sleep(Duration::from_millis(20));
        }
        ann
    });
    let mut sum = v1::Loss::default();
    while sum.lost < 9 {
        let told = tokio::time::timeout(Duration::from_secs(10), all.message()).await;
        let told = told.unwrap().unwrap().unwrap();
        let names = [&told.scope_id, &told.peer_id, &told.publication_id];
        assert_eq!(names, ["room", "ann", "voice"]);
        assert!(told.packets == 0 || told.queue_delay_seconds.is_some());
        let loss = told.loss.unwrap();
        (sum.expected, sum.lost) = (sum.expected + loss.expected, sum.lost + loss.lost);
    }
    assert!(sum.lost * 8 <= sum.expected && sum.expected <= sum.lost * 12, "{sum:?}");
    sending.await.unwrap();
    assert_eq!(room.message().await.unwrap().unwrap().publication_id, "voice");
    let quiet = tokio::time::timeout(Duration::from_millis(20), other.message()).await;
    assert!(quiet.is_err(), "another scope's");

    let request = v1::GetStatisticsRequest { scope_ids: vec!["room".into()] };
    let statistics = client.get_statistics(request).await.unwrap().into_inner();
    let encoding = &statistics.scopes[0].peers[0].publications[0].encodings[0];
    let loss = encoding.loss.clone().unwrap();
    assert!(loss.lost >= sum.lost && loss.bursts[0] == loss.lost, "{loss:?}");
    // All that is here is one machine, and one clock.
    assert!(encoding.queue_delay_seconds.is_some() && encoding.clock_drift_ppm.abs() < 400.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_subscriber_gets_is_told_when_asked() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    let asked = |subscriptions| v1::WatchQualityRequest { subscriptions, ..Default::default() };
    let mut all = client.watch_quality(asked(true)).await.unwrap().into_inner();
    let mut published = client.watch_quality(asked(false)).await.unwrap().into_inner();
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::join(client, "room", "bob", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    client.subscribe(subscribe("room", "bob", "ear", "voice")).await.unwrap();
    let talking = tokio::task::spawn_blocking(move || {
        for seq in 1..250_u16 {
            ann.say(1, seq, b"hello");
            std::thread::sleep(Duration::from_millis(20));
            bob.hear(Duration::from_millis(100));
        }
    });
    let (mut sent, mut told) = (0, 0);
    while sent < 100 {
        let quality = tokio::time::timeout(Duration::from_secs(10), all.message()).await;
        let quality = quality.unwrap().unwrap().unwrap();
        let Some(subscriber) = quality.subscriber else { continue };
        assert_eq!((&*quality.scope_id, &*quality.peer_id), ("room", "bob"));
        assert!(quality.interval_seconds > 1.9 && quality.loss.is_none());
        let [ear] = &subscriber.subscriptions[..] else { panic!("{subscriber:?}") };
        let statistics = ear.statistics.clone().unwrap();
        let names = (&*statistics.subscription_id, &*statistics.publication_id);
        assert_eq!(names, ("ear", "voice"));
        assert!(ear.bytes >= ear.packets * 12 && statistics.packets >= ear.packets);
        (sent, told) = (sent + ear.packets, told + 1);
    }
    assert!((1..=5).contains(&told), "every two seconds: {told}");
    talking.await.unwrap();
    // Who did not ask for subscribers is told of publishers alone.
    let told = published.message().await.unwrap().unwrap();
    assert!(told.subscriber.is_none() && told.publication_id == "voice", "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecn_marks_of_a_publisher_are_counted() {
    for (io, ipv6) in [(Io::Mmsg, false), (Io::Mmsg, true), (Io::Uring, false), (Io::Uring, true)] {
        let mut setup = start_config(|config| Config { workers: 1, io, ..config }).await;
        let client = &mut setup.client;
        client.create_scope(scope("room")).await.unwrap();
        let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, ipv6).await;
        client.publish(publish("room", "ann", "voice")).await.unwrap();
        let speaking = tokio::task::spawn_blocking(move || {
            // Three marks, nine packets: none, ECT(1), ECT(0), CE.
            for (seq, ecn) in (1..).zip([0, 0, 1, 1, 1, 2, 2, 3, 0]) {
                ann.mark(ecn);
                ann.say(1, seq, b"hello");
            }
            ann
        });
        let ann = speaking.await.unwrap();
        let mut told = None;
        for _ in 0..500 {
            let request = v1::GetStatisticsRequest { scope_ids: vec!["room".into()] };
            let statistics = client.get_statistics(request).await.unwrap().into_inner();
            let peer = &statistics.scopes[0].peers[0];
            told = peer.ecn;
            if peer.publications[0].encodings.iter().any(|encoding| encoding.packets == 9) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let expected = v1::EcnCounts { ect0: 2, ect1: 3, ce: 1 };
        assert_eq!(told, Some(expected), "{io:?}, IPv6 {ipv6}");
        drop(ann);
    }
}
