//! Messages over data channels, with a relay that only says that they came.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strait_control::scope::channels::envelope::{Envelope, PROTOCOL};
use strait_proto::v1::{self, channel_event::Event as Told};

use crate::fake_relay::FakeRelay;
use crate::socket::Client;
use crate::{CONFERENCE, Service};

fn opened(protocol: &str) -> Told {
    Told::Opened(v1::ChannelOpened { label: "strait".into(), protocol: protocol.into() })
}

fn frame(number: u32, peer: &str, text: &str) -> Told {
    let payload = text.as_bytes();
    let frame = Envelope::Message { number, is_text: true, is_direct: false, peer, payload };
    Told::Message(v1::ChannelMessage { is_text: false, payload: frame.write() })
}

fn answer(number: u32) -> Told {
    let frame = Envelope::Answer { number, code: 0 };
    Told::Message(v1::ChannelMessage { is_text: false, payload: frame.write() })
}

/// What is said on a channel next.
async fn said(relay: &FakeRelay, count: usize) -> Vec<v1::MessageToChannels> {
    let (mut all, start) = (Vec::new(), Instant::now());
    while all.len() < count {
        all.extend(relay.said());
        assert!(start.elapsed() < Duration::from_secs(20), "{all:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    all
}

/// A browser in the scope with a transport, whose name is the second.
fn browser(service: &Service, name: &str, before: &[String]) -> (Client, String, String) {
    let mut client = Client::connect(service, name);
    let (sub, started) = client.start("lobby", json!({"sdp": CONFERENCE})).unwrap();
    assert!(started["sdp"].as_str().unwrap().contains("webrtc-datachannel"));
    let (_, scope) = service.relay.scope();
    let (relay_peer, request) =
        scope.peers.into_iter().find(|(peer, _)| !before.contains(peer)).unwrap();
    assert_eq!(request.data_channels.unwrap().message_bytes_max, 1_073_741_823);
    (client, sub, relay_peer)
}

async fn carried(service: &Service) {
    let start = Instant::now();
    while !service.relay.is_carried() {
        assert!(start.elapsed() < Duration::from_secs(20), "nobody carries messages");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn message(client: &mut Client) -> Value {
    loop {
        let event = client.event();
        if event["event"] == "message" {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_by_the_channel_and_back_to_the_socket_when_it_ends() {
    let service = Service::start().await;
    let relay = &service.relay;
    carried(&service).await;
    let (mut ann, ann_sub, ann_at) = browser(&service, "Ann", &[]);
    let mut bob = Client::connect(&service, "Bob");
    let (bob_sub, _) = bob.start("lobby", json!({})).unwrap();
    let on = json!({"event": "channel"});
    let refused = ann.request(&ann_sub, "NOTIFY", on.clone()).unwrap_err();
    assert_eq!(refused["error_code"], 409, "there is none");

    // From the channel to a socket; the answer says that it was taken.
    relay.channel(&ann_at, 0, opened(PROTOCOL));
    relay.channel(&ann_at, 0, frame(1, "", "one"));
    relay.channel(&ann_at, 0, frame(2, &bob.peer, "two"));
    relay.channel(&ann_at, 0, frame(2, &bob.peer, "two"));
    relay.channel(&ann_at, 0, frame(3, "p-none", "three"));
    for (text, direct) in [("one", false), ("two", true)] {
        let at = message(&mut bob);
        assert_eq!((at["text"].as_str(), at["direct"].as_bool()), (Some(text), Some(direct)));
        assert_eq!(at["from"], ann.peer);
    }
    let answers = said(relay, 4).await;
    let answered = |at: &v1::MessageToChannels| {
        assert_eq!(at.to, [v1::ChannelAddress { peer_id: ann_at.clone(), channel: 0 }]);
        match Envelope::parse(&at.payload) {
            Some(Envelope::Answer { number, code }) => (number, code),
            other => panic!("{other:?}"),
        }
    };
    let codes: Vec<_> = answers.iter().map(answered).collect();
    assert_eq!(codes, [(1, 0), (2, 0), (2, 0), (3, 404)]);

    // To her: by the socket, until she asks.
    let say = |text: &str| json!({"event": "message", "text": text});
    bob.request(&bob_sub, "NOTIFY", say("a")).unwrap();
    assert_eq!(message(&mut ann)["text"], "a");
    ann.request(&ann_sub, "NOTIFY", on).unwrap();
    for text in ["b", "c", "d"] {
        bob.request(&bob_sub, "NOTIFY", say(text)).unwrap();
    }
    let heard: Vec<_> = said(relay, 3).await;
    for (at, (number, text)) in heard.iter().zip([(1, "b"), (2, "c"), (3, "d")]) {
        let payload = text.as_bytes();
        let (peer, is_direct) = (bob.peer.as_str(), false);
        let want = Envelope::Message { number, is_text: true, is_direct, peer, payload };
        assert_eq!(Envelope::parse(&at.payload), Some(want));
    }

    // The channel ends: what she did not confirm comes by the socket, with its number, and then the rest.
    relay.channel(&ann_at, 0, answer(1));
    relay.channel(&ann_at, 0, Told::Closed(v1::ChannelClosed::default()));
    for (number, text) in [(2, "c"), (3, "d")] {
        let at = message(&mut ann);
        assert_eq!((at["text"].as_str(), at["number"].as_u64()), (Some(text), Some(number)));
    }
    bob.request(&bob_sub, "NOTIFY", say("e")).unwrap();
    let at = message(&mut ann);
    assert_eq!((at["text"].as_str(), at.get("number")), (Some("e"), None));

    // And what she said last, and does not know whether it came, comes once.
    for (number, text) in [(3, "three"), (4, "four")] {
        let again = json!({"event": "message", "text": text, "number": number});
        ann.request(&ann_sub, "NOTIFY", again).unwrap();
    }
    assert_eq!(message(&mut bob)["text"], "four");
    assert_eq!(relay.said(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_transport_and_a_relay_that_restarts_lose_nothing() {
    let service = Service::start().await;
    let relay = &service.relay;
    carried(&service).await;
    let (mut ann, ann_sub, ann_at) = browser(&service, "Ann", &[]);
    let mut bob = Client::connect(&service, "Bob");
    let (bob_sub, _) = bob.start("lobby", json!({})).unwrap();
    relay.channel(&ann_at, 0, opened(PROTOCOL));
    relay.channel(&ann_at, 0, frame(1, "", "one"));
    assert_eq!(message(&mut bob)["text"], "one");
    ann.request(&ann_sub, "NOTIFY", json!({"event": "channel"})).unwrap();
    bob.request(&bob_sub, "NOTIFY", json!({"event": "message", "text": "a"})).unwrap();
    said(relay, 2).await;
    // Her transport is gone, and she starts anew in the same session.
    let (sub, _) = ann.start("lobby", json!({"sdp": CONFERENCE})).unwrap();
    let at = message(&mut ann);
    assert_eq!((at["text"].as_str(), at["number"].as_u64()), (Some("a"), Some(1)));
    let (_, scope) = relay.scope();
    let new_at = scope.peers.into_keys().find(|peer| *peer != ann_at).unwrap();
    // What the old one says is old.
    relay.channel(&ann_at, 0, frame(2, "", "old"));
    relay.channel(&new_at, 0, opened(PROTOCOL));
    relay.channel(&new_at, 0, frame(2, "", "two"));
    assert_eq!(message(&mut bob)["text"], "two", "numbers go on");
    ann.request(&sub, "NOTIFY", json!({"event": "channel"})).unwrap();
    bob.request(&bob_sub, "NOTIFY", json!({"event": "message", "text": "b"})).unwrap();
    let told = said(relay, 2).await;
    assert!(matches!(
        Envelope::parse(&told.last().unwrap().payload),
        Some(Envelope::Message { number: 2, payload: b"b", .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_closes_the_channel_and_plain_ones_are_passed_on() {
    let service = Service::start().await;
    let relay = &service.relay;
    carried(&service).await;
    let (_ann, _, ann_at) = browser(&service, "Ann", &[]);
    let (_bob, _, bob_at) = browser(&service, "Bob", std::slice::from_ref(&ann_at));
    let closes = |told: &v1::MessageToChannels, at: &str, channel| {
        assert!(told.close);
        assert_eq!(told.to, [v1::ChannelAddress { peer_id: at.into(), channel }]);
    };
    relay.channel(&ann_at, 0, opened(PROTOCOL));
    relay.channel(&ann_at, 2, opened(PROTOCOL));
    closes(&said(relay, 1).await[0], &ann_at, 2);
    relay.channel(&ann_at, 0, frame(7, "", "a gap"));
    closes(&said(relay, 1).await[0], &ann_at, 0);

    // Of a label of the application's own: to all who opened one of the same.
    relay.channel(&ann_at, 4, opened("pose"));
    relay.channel(&bob_at, 6, opened("pose"));
    let pose = v1::ChannelMessage { is_text: true, payload: b"here".to_vec() };
    relay.channel(&ann_at, 4, Told::Message(pose));
    let told = said(relay, 1).await;
    assert_eq!(told[0].to, [v1::ChannelAddress { peer_id: bob_at, channel: 6 }]);
    assert_eq!((told[0].is_text, told[0].payload.as_slice()), (true, &b"here"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_has_no_room_is_closed_and_nothing_is_lost() {
    // More than wait, and fewer than are kept for her.
    const MESSAGES: usize = 420;
    let change = |config: &mut strait_control::Config| config.link.messages_per_second = 0;
    let service = Service::start_with(change).await;
    let relay = &service.relay;
    carried(&service).await;
    let (mut ann, ann_sub, ann_at) = browser(&service, "Ann", &[]);
    let mut bob = Client::connect(&service, "Bob");
    let (bob_sub, _) = bob.start("lobby", json!({})).unwrap();
    relay.channel(&ann_at, 0, opened(PROTOCOL));
    relay.channel(&ann_at, 0, frame(1, "", "here"));
    said(relay, 1).await;
    ann.request(&ann_sub, "NOTIFY", json!({"event": "channel"})).unwrap();
    relay.state.lock().unwrap().is_deaf = true;
    let hears = std::thread::spawn(move || {
        for n in 0..MESSAGES {
            let at = message(&mut ann);
            let (number, _) = at["text"].as_str().unwrap().split_once(' ').unwrap();
            assert_eq!(number, n.to_string(), "by the socket, in order");
        }
    });
    for n in 0..MESSAGES {
        let text = format!("{n} {}", "x".repeat(8000));
        bob.request(&bob_sub, "NOTIFY", json!({"event": "message", "text": text})).unwrap();
    }
    hears.join().unwrap();
    // She is told at once, and need not find out.
    relay.state.lock().unwrap().is_deaf = false;
    let start = Instant::now();
    let mut told = Vec::new();
    while !told.iter().any(|message: &v1::MessageToChannels| message.close) {
        told.extend(relay.said());
        assert!(start.elapsed() < Duration::from_secs(20), "{} were said", told.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let closed = told.iter().find(|message| message.close).unwrap();
    assert_eq!(closed.to, [v1::ChannelAddress { peer_id: ann_at, channel: 0 }]);
}
