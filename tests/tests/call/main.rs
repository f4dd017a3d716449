//! Whole calls through real strait-relay and strait-control processes, with str0m (a WebRTC stack
//! that shares no code with ours) at both ends: what one sends arrives decrypted at the other.

mod jsonrtc;
mod peer;
mod system;

use serde_json::json;

use jsonrtc::Link;
use peer::{Kind, Peer};
use system::System;

/// Frames of each kind that must arrive: a second and a half of sound.
const FRAMES: usize = 75;

#[test]
fn whip_to_whep() {
    let system = System::start();
    let mut publisher = Peer::new();
    publisher.send(Kind::Audio);
    publisher.send(Kind::Video);
    let (location, answer) = system.post("/whip/stage", &publisher.offer());
    publisher.answer(&answer);
    let mut player = Peer::new();
    player.receive(Kind::Audio);
    player.receive(Kind::Video);
    let (_, answer) = system.post("/whep/stage", &player.offer());
    player.answer(&answer);

    let (publisher, player) = (publisher.run(), player.run());
    let seen = player.wait_for(FRAMES);
    assert!(seen.audio.len() >= FRAMES && seen.video.len() >= FRAMES);
    publisher.assert_sent(&seen);

    assert_eq!(system.delete(&location), 200);
    assert_eq!(system.delete(&location), 404);
}

#[test]
fn two_people_over_jsonrtc_both_ways() {
    let system = System::start();
    let mut alice = Person::join(&system, "Alice");
    let mut bob = Person::join(&system, "Bob");
    // Bob finds Alice in the answer to his START, Alice hears of Bob by events.
    let from_alice = bob.started["peers"][0]["publications"].clone();
    alice.link.event("joined");
    let from_bob = [alice.link.event("published"), alice.link.event("published")];
    let from_bob = json!([from_bob[0]["publication"], from_bob[1]["publication"]]);
    bob.take(&from_alice);
    alice.take(&from_bob);

    let (alice, bob) = (alice.peer.run(), bob.peer.run());
    let (at_alice, at_bob) = (alice.wait_for(FRAMES), bob.wait_for(FRAMES));
    alice.assert_sent(&at_bob);
    bob.assert_sent(&at_alice);
}

/// Somebody in the scope `lobby` who sends sound and picture and has a slot for each.
struct Person {
    link: Link,
    peer: Peer,
    subsession: String,
    started: serde_json::Value,
}

impl Person {
    fn join(system: &System, name: &str) -> Self {
        let mut link = Link::connect(system.http, name);
        let mut peer = Peer::new();
        peer.send(Kind::Audio);
        peer.send(Kind::Video);
        peer.receive(Kind::Audio);
        peer.receive(Kind::Video);
        let (subsession, started) = link.start("lobby", json!({"sdp": peer.offer()}));
        assert_eq!(started["failed"], json!([]));
        assert_eq!(started["publications"].as_array().map(Vec::len), Some(2));
        peer.answer(started["sdp"].as_str().expect("an answer"));
        Self { link, peer, subsession, started }
    }

    /// Binds the slots to the publications, each to that of its kind.
    fn take(&mut self, publications: &serde_json::Value) {
        let of = |kind: &str| {
            let mut all = publications.as_array().expect("publications").iter();
            all.find(|p| p["kind"] == kind).expect("one of each kind")["publication"].clone()
        };
        let subscribe = json!([
            {"mid": self.peer.slot(Kind::Audio), "publication": of("audio")},
            {"mid": self.peer.slot(Kind::Video), "publication": of("video")},
        ]);
        let updated = self.link.update(&self.subsession, json!({"subscribe": subscribe}));
        assert_eq!(updated["failed"], json!([]));
        assert!(updated.get("sdp").is_none(), "binding a slot needs no offer");
    }
}
