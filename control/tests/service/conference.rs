//! The package `scope` over WebSocket.

use serde_json::{Value, json};
use strait_proto::v1::{self, event::Event};

use crate::socket::Client;
use crate::{CONFERENCE, PUBLISH, SIMULCAST, Service, eventually};

fn specs() -> Value {
    json!([
        {"mid": "0", "source": "microphone"},
        {"mid": "1", "source": "camera", "name": "front"},
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_meet() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let payload = json!({"sdp": CONFERENCE, "publish": specs()});
    let (a, started) = alice.start("lobby", payload).unwrap();
    assert!(started["sdp"].as_str().unwrap().starts_with("v=0\r\n"));
    assert_eq!(started["peer"], alice.peer);
    assert_eq!(started["peers"], json!([]));
    assert_eq!(started["publications"].as_array().unwrap().len(), 2);
    assert_eq!(
        started["subscriptions"],
        json!([{"mid": "2", "publication": null}, {"mid": "3", "publication": null}])
    );
    assert_eq!(started["failed"], json!([]), "the data channel is taken as well");
    alice.message(&a, "COMPLETE", json!({}));

    // Bob sees Alice in the answer, and takes what she sends at once.
    let mut bob = Client::connect(&service, "Bob");
    let (b, started) = bob.start("lobby", json!({})).unwrap();
    assert_eq!(started["peers"][0]["name"], "Alice");
    let publications = started["peers"][0]["publications"].clone();
    assert_eq!(publications[0]["kind"], "audio");
    assert_eq!(publications[1]["source"], "camera");
    assert_eq!(publications[1]["name"], "front");
    assert_eq!(publications[1]["codec"], "VP8");
    assert_eq!(publications[1]["muted"], false);
    let (audio, video) =
        (publications[0]["publication"].clone(), publications[1]["publication"].clone());
    let joined = alice.expect_event("joined");
    assert_eq!(joined["peer"], json!({"peer": bob.peer, "name": "Bob", "publications": []}));

    let payload = json!({
        "sdp": CONFERENCE,
        "publish": specs(),
        "subscribe": [{"mid": "2", "publication": audio}, {"mid": "3", "publication": video}],
    });
    let updated = bob.request(&b, "UPDATE", payload).unwrap();
    assert_eq!(updated["subscriptions"][1], json!({"mid": "3", "publication": video}));
    assert_eq!(alice.expect_event("published")["peer"], bob.peer);
    let published = alice.expect_event("published");
    let bobs_video = published["publication"]["publication"].clone();
    assert_eq!(published["publication"]["kind"], "video");

    // Alice has free slots: she needs no offer.
    let payload = json!({"subscribe": [{"mid": "3", "publication": bobs_video}]});
    let updated = alice.request(&a, "UPDATE", payload).unwrap();
    assert!(updated.get("sdp").is_none());
    assert_eq!(updated["failed"], json!([]));
    let bound = service.relay.scope().1.subscriptions.into_values();
    assert_eq!(bound.filter(|s| !s.publication_id.is_empty()).count(), 3);

    // Wishes that cannot be: each is reported, the others are done.
    let payload = json!({
        "subscribe": [
            {"mid": "2", "publication": bobs_video},
            {"mid": "0", "publication": bobs_video},
            {"mid": "3", "publication": "pub-none"},
        ],
        "preferences": [{"mid": "3", "paused": true, "layerMax": 1, "temporalMax": 2}, {"mid": "9"}],
    });
    let updated = alice.request(&a, "UPDATE", payload).unwrap();
    let codes: Vec<u64> = updated["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| failed["error_code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, [409, 404, 404, 404], "{}", updated["failed"]);
    let preferred = service.relay.scope().1.subscriptions.into_values();
    let preferred: Vec<_> = preferred.filter_map(|s| s.preferences).collect();
    assert_eq!((preferred[0].paused, preferred[0].layer_max), (true, Some(1)));
    assert_eq!((preferred[0].spatial_max, preferred[0].temporal_max), (None, Some(2)));

    // Mute.
    bob.message(&b, "NOTIFY", json!({"event": "mute", "publication": bobs_video}));
    let muted = alice.expect_event("muted");
    assert_eq!(muted, json!({"event": "muted", "peer": bob.peer, "publication": bobs_video}));
    bob.request(&b, "NOTIFY", json!({"event": "unmute", "publication": bobs_video})).unwrap();
    alice.expect_event("unmuted");
    let foreign = json!({"event": "mute", "publication": video});
    assert_eq!(bob.request(&b, "NOTIFY", foreign).unwrap_err()["error_code"], 404);

    // Who speaks, as the relay hears it: told to all, the speaker included, once.
    let scope_id = service.relay.scope().0;
    let (publication_id, from) = (audio.as_str().unwrap().to_owned(), alice.peer.clone());
    for speaking in [true, true, false] {
        service.relay.emit(Event::SpeechChanged(v1::SpeechChanged {
            scope_id: scope_id.clone(),
            publication_id: publication_id.clone(),
            speaking,
            ..Default::default()
        }));
        service.relay.emit(Event::DominantSpeakerChanged(v1::DominantSpeakerChanged {
            scope_id: scope_id.clone(),
            publication_id: publication_id.clone(),
            ..Default::default()
        }));
    }
    for client in [&mut alice, &mut bob] {
        for event in ["speaking", "dominant", "silent"] {
            let told = client.expect_event(event);
            assert_eq!(told, json!({"event": event, "peer": from, "publication": audio}));
        }
    }
    let mut carl = Client::connect(&service, "Carl");
    let (c, started) = carl.start("lobby", json!({})).unwrap();
    assert_eq!(started["speakers"], json!({"speaking": [], "dominant": audio}));
    let statistics = carl.request(&c, "NOTIFY", json!({"event": "statistics"})).unwrap();
    assert_eq!(statistics["statistics"]["connected"], false, "it has no media");
    carl.request(&c, "SHUTDOWN", json!({})).unwrap();
    for client in [&mut alice, &mut bob] {
        client.expect_event("joined");
        client.expect_event("left");
    }

    // Bob stops his camera by an offer that no longer sends it.
    let offer = CONFERENCE.replacen("m=video 0 UDP/TLS/RTP/SAVPF 120 124 121 125 99 100 123 122 119\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=sendonly",
        "m=video 9 UDP/TLS/RTP/SAVPF 120 124 121 125 99 100 123 122 119\r\nc=IN IP4 0.0.0.0\r\na=inactive", 1);
    assert_ne!(offer, CONFERENCE);
    let updated = bob.request(&b, "UPDATE", json!({"sdp": offer})).unwrap();
    assert_eq!(updated["publications"].as_array().unwrap().len(), 1);
    let ended = alice.expect_event("unpublished");
    assert_eq!(ended["publication"], bobs_video);
    let freed = alice.request(&a, "UPDATE", json!({})).unwrap();
    assert_eq!(freed["subscriptions"][1]["publication"], Value::Null, "the slot is free again");

    // Statistics, and leaving.
    let statistics = bob.request(&b, "NOTIFY", json!({"event": "statistics"})).unwrap();
    assert_eq!(statistics["statistics"]["packetsReceived"], 7);
    bob.request(&b, "SHUTDOWN", json!({})).unwrap();
    alice.expect_event("unpublished");
    let left = alice.expect_event("left");
    assert_eq!((left["peer"].as_str(), left["reason"].as_str()), (Some(&*bob.peer), Some("left")));
    assert_eq!(bob.request(&b, "UPDATE", json!({})).unwrap_err()["error_code"], 404);
    alice.request(&a, "SHUTDOWN", json!({})).unwrap();
    eventually("the relay has no scope", || service.relay.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_offer_again_changes_nothing_and_new_credentials_restart_ice() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let payload = json!({"sdp": CONFERENCE, "publish": specs()});
    let (a, started) = alice.start("lobby", payload).unwrap();
    let before = service.relay.scope().1;
    let updated = alice.request(&a, "UPDATE", json!({"sdp": CONFERENCE})).unwrap();
    assert_eq!(updated["publications"], started["publications"]);
    let after = service.relay.scope().1;
    assert_eq!(before.subscriptions, after.subscriptions);
    assert_eq!(after.restarts, 0);
    let restarted = CONFERENCE.replace("a=ice-ufrag:5ead1b7c", "a=ice-ufrag:restarted");
    let updated = alice.request(&a, "UPDATE", json!({"sdp": restarted})).unwrap();
    assert!(updated["sdp"].as_str().unwrap().contains("a=ice-ufrag:ab9001"));
    assert_eq!(service.relay.scope().1.publications, before.publications);
    let other = CONFERENCE.replace("sha-256 2F:", "sha-256 30:");
    let refused = alice.request(&a, "UPDATE", json!({"sdp": other})).unwrap_err();
    assert_eq!(refused["error_code"], 488, "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_media_is_told_and_a_new_start_keeps_the_peer() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let (_, _) = alice.start("lobby", json!({"sdp": PUBLISH, "publish": specs()})).unwrap();
    let mut bob = Client::connect(&service, "Bob");
    bob.start("lobby", json!({})).unwrap();
    alice.expect_event("joined");
    let (scope_id, scope) = service.relay.scope();
    let peer_id = scope.peers.into_keys().next().unwrap();
    service.relay.emit(Event::PeerConnected(v1::PeerConnected {
        scope_id: scope_id.clone(),
        peer_id: peer_id.clone(),
        ..Default::default()
    }));
    alice.expect_event("connected");
    service.relay.emit(Event::PeerLeft(v1::PeerLeft {
        scope_id,
        peer_id,
        reason: v1::peer_left::Reason::Closed.into(),
        detail: "close_notify".into(),
    }));
    let lost = alice.expect_event("media-lost");
    assert!(lost["reason"].as_str().unwrap().contains("close_notify"), "{lost}");
    bob.expect_event("unpublished");
    bob.expect_event("unpublished");
    let (_, started) = alice.start("lobby", json!({"sdp": PUBLISH, "publish": specs()})).unwrap();
    assert_eq!(started["peers"][0]["name"], "Bob");
    assert_eq!(bob.expect_event("published")["peer"], alice.peer, "no leaving, no joining");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_are_refused_and_the_session_goes_on() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let start = |alice: &mut Client, control: Value, header: Value, payload: Value| {
        alice.ask(control, header, payload).unwrap_err()
    };
    let scope = || json!({"package_type": "scope"});
    let header = |scope: &str| json!({"action": "START", "target": scope});
    let refused = start(&mut alice, json!({}), header("lobby"), json!({}));
    assert_eq!(refused["error_code"], 404, "the package call is not served");
    let refused = start(&mut alice, scope(), header(""), json!({}));
    assert_eq!(refused["error_code"], 400, "no target");
    let refused = start(&mut alice, scope(), header("lobby"), json!({"sdp": 5}));
    assert_eq!(refused["error_code"], 400);
    let refused = start(&mut alice, scope(), header("lobby"), json!({"sdp": "v=0"}));
    assert_eq!(refused["error_code"], 488);
    assert_eq!(refused["action"], "START");
    let refused = start(&mut alice, scope(), json!({"action": "CONNECT"}), json!({}));
    assert_eq!(refused["error_code"], 409);
    assert_eq!(service.server.app.scopes.counts(), (0, 0), "nothing stays of a refused START");
    alice.start("lobby", json!({"sdp": PUBLISH})).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conference_of_25_costs_few_calls_and_small_frames() {
    let service = Service::start().await;
    let mut people: Vec<(Client, String)> = Vec::new();
    for number in 0..25 {
        let mut client = Client::connect(&service, &format!("person {number}"));
        let payload = json!({"sdp": CONFERENCE, "publish": specs()});
        let (subsession, started) = client.start("hall", payload).unwrap();
        assert_eq!(started["peers"].as_array().unwrap().len(), number);
        for (other, _) in &mut people {
            assert_eq!(other.expect_event("joined")["peer"]["name"], format!("person {number}"));
            for _ in 0..2 {
                let event = other.expect_event("published");
                assert!(event.to_string().len() < 512, "{event}");
            }
        }
        people.push((client, subsession));
    }
    let (_, scope) = service.relay.scope();
    assert_eq!((scope.peers.len(), scope.publications.len()), (25, 50));
    assert_eq!(scope.subscriptions.len(), 50, "slots that were offered, and no more");
    drop(people);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_learns_which_layers_anybody_needs() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let payload = json!({"sdp": SIMULCAST, "publish": []});
    let (_, started) = alice.start("lobby", payload).unwrap();
    let publications = started["publications"].as_array().unwrap().clone();
    let (scope_id, scope) = service.relay.scope();
    let peer_id = scope.peers.keys().next().unwrap().clone();
    let (publication_id, published) =
        scope.publications.iter().find(|(_, p)| p.encodings.len() == 3).unwrap();
    let rids: Vec<&str> = published.encodings.iter().map(|e| e.rid.as_str()).collect();
    let wanted = |encodings: &[u32]| v1::LayersWanted {
        scope_id: scope_id.clone(),
        peer_id: peer_id.clone(),
        publication_id: publication_id.clone(),
        encodings: encodings.to_vec(),
    };
    // Of another life of the scope: not hers.
    let other = v1::LayersWanted { scope_id: "elsewhere".into(), ..wanted(&[]) };
    service.relay.emit(Event::LayersWanted(other));
    service.relay.emit(Event::LayersWanted(wanted(&[0, 2])));
    let told = alice.expect_event("layers");
    let expected = json!({
        "event": "layers", "publication": publication_id, "active": [rids[0], rids[2]],
    });
    assert_eq!(told, expected);
    assert!(publications.iter().any(|p| p["publication"] == told["publication"]));
    service.relay.emit(Event::LayersWanted(wanted(&[])));
    assert_eq!(alice.expect_event("layers")["active"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tries_the_line_alone_gets_its_own_media_and_meets_nobody() {
    let service = Service::start().await;
    let mut bob = Client::connect(&service, "Bob");
    bob.start("lobby", json!({})).unwrap();
    let mut alice = Client::connect(&service, "Alice");
    let publish = json!([{"mid": "1", "source": "other"}]);
    let payload = json!({"alone": true, "sdp": CONFERENCE, "publish": publish});
    let (a, started) = alice.start("lobby", payload).unwrap();
    assert_eq!(started["peers"], json!([]));
    let of = |mid: &str| {
        let all = started["publications"].as_array().unwrap();
        all.iter().find(|each| each["mid"] == mid).unwrap()["publication"].clone()
    };
    let own = json!({"subscribe": [{"mid": "3", "publication": of("1")}]});
    let updated = alice.request(&a, "UPDATE", own).unwrap();
    assert_eq!(updated["failed"], json!([]));
    let bound = service.relay.scope().1.subscriptions.into_values();
    assert_eq!(bound.filter(|s| of("1") == json!(s.publication_id)).count(), 1);
    alice.request(&a, "SHUTDOWN", json!({})).unwrap();
    // The first that Bob hears of her is that she joins the scope itself.
    alice.start("lobby", json!({})).unwrap();
    assert_eq!(bob.event()["event"], "joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_how_its_streams_fare() {
    let service = Service::start_with(|config| config.events.quality = false).await;
    let mut alice = Client::connect(&service, "Alice");
    let (a, _) = alice.start("lobby", json!({"sdp": PUBLISH, "publish": []})).unwrap();
    let (scope_id, scope) = service.relay.scope();
    let alices = scope.peers.keys().next().unwrap().clone();
    let publication = scope.publications.keys().next().unwrap().clone();
    let mut bob = Client::connect(&service, "Bob");
    let (b, _) = bob.start("lobby", json!({"sdp": CONFERENCE, "publish": []})).unwrap();
    let peers = service.relay.scope().1.peers.into_keys();
    let bobs = peers.into_iter().find(|peer| *peer != alices).unwrap();
    let published = v1::MediaQuality {
        scope_id: scope_id.clone(),
        peer_id: alices,
        publication_id: publication.clone(),
        interval_seconds: 2.0,
        bytes: 5000,
        loss: Some(v1::Loss { expected: 100, lost: 3, ..Default::default() }),
        queue_delay_seconds: Some(0.015),
        ..Default::default()
    };
    let viewed = v1::SubscriptionStatistics {
        publication_id: publication.clone(),
        fraction_lost: 0.25,
        held_back: v1::subscription_statistics::HeldBack::Lowered.into(),
        layer: 1,
        ..Default::default()
    };
    let viewed = v1::SubscriptionQuality { statistics: Some(viewed), packets: 60, bytes: 4000 };
    let subscribed = v1::MediaQuality {
        scope_id,
        peer_id: bobs,
        interval_seconds: 2.0,
        subscriber: Some(v1::SubscriberQuality {
            budget_bps: Some(300_000),
            subscriptions: vec![viewed],
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(!service.relay.tell_quality(published.clone()), "the relay is not asked for nobody");

    bob.request(&b, "NOTIFY", json!({"event": "quality"})).unwrap();
    eventually("asked", || service.relay.tell_quality(subscribed.clone())).await;
    let told = quality(&mut bob);
    assert_eq!((&told["budgetBps"], &told["intervalSeconds"]), (&json!(300_000), &json!(2.0)));
    let each = &told["subscriptions"][0];
    assert_eq!(each["publication"], publication);
    assert_eq!((&each["bytes"], &each["layer"]), (&json!(4000), &json!(1)));
    assert_eq!((&each["fractionLost"], &each["heldBack"]), (&json!(0.25), &json!("lowered")));

    // Alice did not ask; when she does, she learns of her viewers as well.
    service.relay.tell_quality(published.clone());
    alice.request(&a, "NOTIFY", json!({"event": "quality", "on": true})).unwrap();
    let mut viewers = json!(0);
    for _ in 0..60 {
        service.relay.tell_quality(subscribed.clone());
        service.relay.tell_quality(published.clone());
        let told = quality(&mut alice);
        let each = told["publications"][0].clone();
        assert_eq!((&each["publication"], &each["lost"]), (&json!(publication), &json!(3)));
        assert_eq!(each["queueDelaySeconds"], 0.015);
        viewers = each["viewers"].clone();
        if viewers["count"].as_u64() > Some(0) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(viewers["count"], viewers["lowered"], "{viewers}");
    assert_eq!(viewers["fractionLostMax"], 0.25, "{viewers}");

    for (client, subsession) in [(&mut alice, &a), (&mut bob, &b)] {
        client.request(subsession, "NOTIFY", json!({"event": "quality", "on": false})).unwrap();
    }
    eventually("nobody asks", || !service.relay.tell_quality(published.clone())).await;
}

/// The next word of quality; what else is told is passed over.
fn quality(client: &mut Client) -> Value {
    loop {
        let event = client.event();
        if event["event"] == "quality" {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_speaks_too_fast_is_read_later_and_hears_meanwhile() {
    const MESSAGES: usize = 300;
    let change = |config: &mut strait_control::Config| config.link.messages_per_second = 100;
    let service = Service::start_with(change).await;
    let mut ann = Client::connect(&service, "Ann");
    let mut bob = Client::connect(&service, "Bob");
    let (ann_sub, _) = ann.start("lobby", json!({})).unwrap();
    let (bob_sub, _) = bob.start("lobby", json!({})).unwrap();
    let start = std::time::Instant::now();
    for n in 0..MESSAGES {
        ann.message(&ann_sub, "NOTIFY", json!({"event": "message", "text": n.to_string()}));
    }
    // Who is read later is spoken to all the same.
    bob.message(&bob_sub, "NOTIFY", json!({"event": "message", "text": "to Ann"}));
    let text = |client: &mut Client| loop {
        let event = client.event();
        if event["event"] == "message" {
            return event["text"].as_str().unwrap().to_owned();
        }
    };
    assert_eq!(text(&mut ann), "to Ann");
    let told = start.elapsed();
    for n in 0..MESSAGES {
        assert_eq!(text(&mut bob), n.to_string(), "in order, none lost");
    }
    let took = start.elapsed();
    assert!(took >= std::time::Duration::from_millis(900), "two seconds' worth at once: {took:?}");
    assert!(told < took, "{told:?}");
    assert!(service.metric("control_websocket_held_total").await.unwrap() > 0);
}
