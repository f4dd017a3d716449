//! Who takes what from whom, and how much may be sent.

use serde_json::{Value, json};

use crate::socket::Client;
use crate::{CONFERENCE, Service, eventually};

/// Publications of somebody with microphone and camera.
fn sources() -> Value {
    json!([{"mid": "0", "source": "microphone"}, {"mid": "1", "source": "camera"}])
}

/// Joins with microphone and camera: subsession, sound and picture.
fn publisher(client: &mut Client, scope: &str) -> (String, Value, Value) {
    let payload = json!({"sdp": CONFERENCE, "publish": sources()});
    let (subsession, started) = client.start(scope, payload).unwrap();
    let named = |at: usize| started["publications"][at]["publication"].clone();
    let (sound, picture) = (named(0), named(1));
    (subsession, sound, picture)
}

/// How many subscriptions of the relay are bound to a publication.
fn bound(service: &Service, publication: &Value) -> usize {
    let subscriptions = service.relay.scope().1.subscriptions.into_values();
    subscriptions.filter(|s| publication == &json!(s.publication_id)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_takes_media_from_allowed_senders_alone() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let (a, alices_sound, alices_picture) = publisher(&mut alice, "lobby");
    let mut bob = Client::connect(&service, "Bob");
    let (_, bobs_sound, bobs_picture) = publisher(&mut bob, "lobby");

    // Carl has two slots, and takes pictures from Alice alone.
    let mut carl = Client::connect(&service, "Carl");
    let payload = json!({
        "sdp": CONFERENCE,
        "allow": {"video": [alice.peer], "screen": []},
        "subscribe": [
            {"mid": "2", "publication": bobs_sound},
            {"mid": "3", "publication": bobs_picture},
        ],
    });
    let (c, started) = carl.start("lobby", payload).unwrap();
    let of = |answer: &Value| answer["subscriptions"].as_array().unwrap().clone();
    assert_eq!(of(&started)[0]["publication"], bobs_sound);
    assert_eq!(of(&started)[1]["publication"], Value::Null);
    let refused = started["failed"].as_array().unwrap();
    let refused = refused.iter().find(|failed| failed["mid"] == "3").unwrap();
    assert_eq!(refused["error_code"], 403, "{refused}");
    assert_eq!(bound(&service, &bobs_picture), 0);
    let take = |mid: &str, publication: &Value| json!({"subscribe": [{"mid": mid, "publication": publication}]});
    let updated = carl.request(&c, "UPDATE", take("3", &alices_picture)).unwrap();
    assert_eq!(updated["failed"], json!([]));

    // The rules change during the call: what they exclude ends, what they do not name stays.
    let payload = json!({"allow": {"video": [bob.peer]}});
    let updated = carl.request(&c, "UPDATE", payload).unwrap();
    assert_eq!(of(&updated)[0]["publication"], bobs_sound);
    assert_eq!(of(&updated)[1]["publication"], Value::Null, "the slot is free");
    assert_eq!((bound(&service, &alices_picture), bound(&service, &bobs_sound)), (0, 1));
    let updated = carl.request(&c, "UPDATE", take("3", &bobs_picture)).unwrap();
    assert_eq!(updated["failed"], json!([]));
    let payload = json!({"allow": {"audio": []}});
    let updated = carl.request(&c, "UPDATE", payload).unwrap();
    assert_eq!(of(&updated)[0]["publication"], Value::Null);
    assert_eq!(of(&updated)[1]["publication"], bobs_picture);

    // A rule and what it permits, in one frame.
    let mut payload = take("2", &alices_sound);
    payload["allow"] = json!({"audio": "all"});
    let updated = carl.request(&c, "UPDATE", payload).unwrap();
    assert_eq!((&updated["failed"], &of(&updated)[0]["publication"]), (&json!([]), &alices_sound));

    // Who comes later is not among them, and who publishes anew is.
    let mut dora = Client::connect(&service, "Dora");
    let (_, _, doras_picture) = publisher(&mut dora, "lobby");
    let updated = carl.request(&c, "UPDATE", take("3", &doras_picture)).unwrap();
    assert_eq!(updated["failed"][0]["error_code"], 403);
    let (_, _, bobs_picture) = publisher(&mut bob, "lobby");
    let updated = carl.request(&c, "UPDATE", take("3", &bobs_picture)).unwrap();
    assert_eq!(updated["failed"], json!([]), "{bobs_picture}");

    // Media that begins anew in the same session keeps the rules, and so does another WebSocket.
    let payload = json!({
        "sdp": CONFERENCE,
        "subscribe": [{"mid": "3", "publication": alices_picture}],
    });
    let (c, started) = carl.start("lobby", payload).unwrap();
    let failed = started["failed"].as_array().unwrap().clone();
    assert!(failed.iter().any(|f| f["mid"] == "3" && f["error_code"] == 403), "{failed:?}");
    let updated = carl.request(&c, "UPDATE", take("3", &bobs_picture)).unwrap();
    assert_eq!(updated["failed"], json!([]));

    // What is no rule changes nothing.
    for (allow, code) in [
        (json!({"vide": []}), 400),
        (json!({"video": "nobody"}), 400),
        (json!({"video": (0..1001).map(|n| n.to_string()).collect::<Vec<_>>()}), 413),
    ] {
        let refused = carl.request(&c, "UPDATE", json!({"allow": allow})).unwrap_err();
        assert_eq!(refused["error_code"], code, "{refused}");
    }
    assert_eq!(bound(&service, &bobs_picture), 1);
    alice.request(&a, "SHUTDOWN", json!({})).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn uplinks_are_capped_by_the_configuration_and_by_the_client() {
    let caps =
        |service: &Service| -> Vec<u64> { service.relay.scope().1.uplinks.into_values().collect() };
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let (a, _, _) = publisher(&mut alice, "lobby");
    assert_eq!(caps(&service), [0; 0], "the relay is not asked");
    let updated = alice.request(&a, "UPDATE", json!({"uplinkMaxBps": 500_000})).unwrap();
    assert_eq!(caps(&service), [500_000]);
    assert_eq!(updated["uplinkMaxBps"], 500_000, "the client learns what holds");
    let refused = alice.request(&a, "UPDATE", json!({"uplinkMaxBps": 1000})).unwrap_err();
    assert_eq!(refused["error_code"], 400, "{refused}");
    alice.request(&a, "UPDATE", json!({"uplinkMaxBps": 0})).unwrap();
    assert_eq!(caps(&service), [0]);

    let service = Service::start_with(|config| config.limits.uplink_bps_per_peer = 300_000).await;
    let mut alice = Client::connect(&service, "Alice");
    let payload = json!({"sdp": CONFERENCE, "publish": sources(), "uplinkMaxBps": 400_000});
    let (a, started) = alice.start("lobby", payload).unwrap();
    assert_eq!(caps(&service), [300_000]);
    assert_eq!(started["uplinkMaxBps"], 300_000, "the configuration's holds");
    alice.request(&a, "UPDATE", json!({"uplinkMaxBps": 100_000})).unwrap();
    assert_eq!(caps(&service), [100_000]);
    alice.request(&a, "UPDATE", json!({"uplinkMaxBps": 0})).unwrap();
    assert_eq!(caps(&service), [300_000], "the configuration's stays");
    // A transport of its own has its own cap.
    alice.start("lobby", json!({"sdp": CONFERENCE, "publish": sources()})).unwrap();
    eventually("both transports are capped", || caps(&service).len() == 2).await;
}
