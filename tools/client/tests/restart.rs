//! A client of a strait-control that is killed and started again, while its relay lives.

use crate::bulk::over_quic;
use crate::real::Node;
use crate::sockets::{Member, PATIENCE, voice};
use crate::virtual_net::{World, ms};
use crate::ways::{messages, two};
use std::time::{Duration, Instant};
use strait_client::v1::transport_report::State;
use strait_client::{Event, Frame};

/// How long it was away.
const AWAY: Duration = Duration::from_secs(1);
/// A sign of life is asked for after 1.5 s of silence, and again within as long as the node was away; then the client waits 1
/// to 2 s. As much again is for a machine that does something else. By silence it would be 30 s.
const FOUND: Duration = Duration::from_secs(9);

/// Sends sound until some comes.
fn speak(ann: &Member, bob: &Member, handle: u32, from: u32) {
    let end = Instant::now() + PATIENCE;
    for n in from.. {
        assert!(Instant::now() < end, "sound comes");
        let payload = [7; 100];
        let frame = Frame { payload: &payload, timestamp: n * 960, marker: false, level: None };
        ann.client.send(handle, 0, &frame).unwrap();
        if bob.try_payloads().iter().any(|came| came.timestamp >= from * 960) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_session_over_quic_is_gone_on_with_soon_after_a_kill() {
    let mut node = Node::start();
    let [ann, bob] = [(); 2].map(|()| Member::connect(over_quic(&node)));
    let handle = ann.client.publish(voice()).unwrap();
    let id = ann.wait("Published", |event| match event {
        Event::Published { publication_id, .. } => Some(publication_id.clone()),
        _ => None,
    });
    bob.wait_for_transport(State::UdpRelay);
    bob.client.subscribe(&id, true).unwrap();
    bob.wait("Subscribed", |event| matches!(event, Event::Subscribed { .. }).then_some(()));
    speak(&ann, &bob, handle, 0);

    node.kill_control();
    std::thread::sleep(AWAY);
    node.start_control();
    let started = Instant::now();
    for member in [&ann, &bob] {
        member.wait("Joined", |event| {
            matches!(event, Event::Joined { resumed: true, .. }).then_some(())
        });
        let found = started.elapsed();
        println!("back {found:?} after the start");
        assert!(found < FOUND, "{found:?}");
        // It was killed: what it had nobody knows.
        member.wait("MessagesMissed", |event| {
            (*event == Event::MessagesMissed { count: None }).then_some(())
        });
    }
    speak(&ann, &bob, handle, 10_000);
    ann.client.send_message("", b"still here".to_vec(), true).unwrap();
    bob.wait("Message", |event| match event {
        Event::Message { payload, .. } => (payload == b"still here").then_some(()),
        _ => None,
    });
}

#[test]
fn messages_that_a_node_lost_are_told_of_once() {
    let mut world = two(24);
    world.run(ms(500));
    let lost = |world: &World| -> Vec<Option<u64>> {
        let events = world.members[1].events.iter();
        let lost = events.filter_map(|(_, event)| match event {
            Event::MessagesMissed { count } => Some(*count),
            _ => None,
        });
        lost.collect()
    };
    let say = |world: &mut World, word| {
        world.members[0].client.send_message("", vec![word], false).unwrap();
        world.run(ms(200));
    };
    say(&mut world, 0);
    world.break_link(1);
    (1..=3).for_each(|word| say(&mut world, word));
    world.node.lost_in_order = Some(true);
    world.run(ms(4000));
    assert_eq!(lost(&world), [Some(3)]);
    say(&mut world, 4);
    world.break_link(1);
    world.run(ms(4000));
    assert_eq!((lost(&world), messages(&world, 1)), (vec![Some(3)], vec![0, 4]), "once");
    // One that was killed does not know.
    world.node.lost_in_order = Some(false);
    world.break_link(1);
    world.run(ms(4000));
    assert_eq!(lost(&world), [Some(3), None]);
    assert_eq!(world.node.peers[1].auths.last().unwrap().messages_seen, 5);
}
