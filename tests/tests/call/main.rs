//! Whole calls through real strait-relay and strait-control processes, with str0m (a WebRTC stack
//! that shares no code with ours) at both ends: what one sends arrives decrypted at the other.

mod conference;
mod frames;
mod hostile;
mod jsonrtc;
#[path = "../../../control/tests/service/native.rs"]
mod link_client;
#[path = "../../../control/tests/service/log.rs"]
mod log;
mod namespaces;
mod native;
mod peer;
mod person;
mod secure;
mod system;

use frames::Kind;
use jsonrtc::Link;
use peer::{Peer, Traits};
use person::Person;
use system::System;

/// Frames of each kind that must arrive: a second and a half of sound.
const FRAMES: usize = 75;

#[test]
fn whip_to_whep() {
    let system = System::start();
    let mut publisher = Peer::new(Traits::new(1));
    publisher.send(Kind::Audio);
    publisher.send(Kind::Video);
    let (location, answer) = system.post("/whip/stage", &publisher.offer().0);
    publisher.answer(&answer);
    let mut player = Peer::new(Traits::new(2));
    player.receive(Kind::Audio);
    player.receive(Kind::Video);
    let (_, answer) = system.post("/whep/stage", &player.offer().0);
    player.answer(&answer);

    let (_publisher, player) = (publisher.run(), player.run());
    player.wait_for(1, FRAMES).assert_from([1]);

    assert_eq!(system.delete(&location), 200);
    assert_eq!(system.delete(&location), 404);
}

#[test]
fn two_people_over_jsonrtc_both_ways() {
    let system = System::start();
    let link = |name| Link::connect(system.http, name);
    let mut alice = Person::join(link("Alice"), "lobby", Traits::new(1), 1);
    let mut bob = Person::join(link("Bob"), "lobby", Traits::new(2), 1);
    // Bob finds Alice in the answer to his START, Alice hears of Bob by events.
    let from_alice = bob.others[0]["publications"].as_array().expect("publications").clone();
    bob.show(&from_alice, &bob.slots());
    let from_bob = alice.newcomer();
    alice.show(&from_bob, &alice.slots());

    alice.peer.wait_for(1, FRAMES).assert_from([2]);
    bob.peer.wait_for(1, FRAMES).assert_from([1]);
}
