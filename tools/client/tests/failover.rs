//! Clients in a cluster, in virtual time: which CnC they ask, when a node counts as dead, and what is on the next one.

use crate::virtual_net::{World, ms};
use std::collections::HashSet;
use std::time::Duration;
use strait_client::Event;
use strait_client::v1::transport_report::State;
use strait_client::v1::{self, client_message::Body};

const NODE: Option<&str> = Some("node.example:8443");
const OTHER: Option<&str> = Some("other.example:8443");

/// Ann and Bob hear one another on the first node, whose CnC is `cnc`.
fn two(seed: u64) -> World {
    let mut world = World::new(seed);
    world.once = true;
    world.direct_blocked = true;
    world.cncs.insert("cnc".into(), NODE);
    for _ in 0..2 {
        world.join_cluster(&["cnc"]);
    }
    world.run(ms(3000));
    for member in &world.members {
        assert_eq!(member.transport(), State::UdpRelay);
        assert!(!member.heard.is_empty());
    }
    world
}

/// When that came first, after the moment.
fn when(world: &World, at: usize, since: Duration, is_it: impl Fn(&Event) -> bool) -> Duration {
    let events = &world.members[at].events;
    let found = events.iter().find(|(time, event)| *time >= since && is_it(event));
    found.unwrap_or_else(|| panic!("not in {events:?}")).0
}

fn is_lost(event: &Event) -> bool {
    matches!(event, Event::LinkLost { .. })
}

/// The longest time without a word of the other one between these two moments.
fn gap(world: &World, at: usize, since: Duration, until: Duration) -> Duration {
    let heard = world.members[at].heard.iter().map(|(time, _)| *time);
    let heard = heard.filter(|time| (since..until).contains(time));
    let times: Vec<_> = std::iter::once(since).chain(heard).chain([until]).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

#[test]
fn the_first_cnc_is_random_and_the_next_are_asked_until_one_answers() {
    let mut first = HashSet::new();
    for seed in 0..16 {
        let mut world = World::new(seed);
        // One is silent, one refuses.
        world.cncs.insert("refuses".into(), None);
        world.cncs.insert("answers".into(), NODE);
        world.join_cluster(&["silent", "refuses", "answers"]);
        world.run(ms(3000));
        assert_eq!(world.node.peers.len(), 1, "in within the 2 s that the silent one has");
        let asked: Vec<_> = world.asked.iter().map(|(_, cnc, _)| cnc.as_str()).collect();
        let all = ["silent", "refuses", "answers"];
        let begin = all.iter().position(|cnc| *cnc == asked[0]).unwrap();
        assert_eq!(
            asked,
            all[begin..],
            "one after the other, and none after the one that answered"
        );
        assert_eq!(world.asked[0].2, "/resolve?applicationId=dev&scopeId=room");
        first.insert(begin);
    }
    assert_eq!(first.len(), 3);
}

#[test]
fn where_no_cnc_answers_it_is_told_and_tried_again_or_the_last_node_is_taken() {
    let mut world = World::new(1);
    world.join_cluster(&["silent"]);
    world.run(ms(2500));
    assert!(is_lost(&world.members[0].events[0].1));
    world.cncs.insert("silent".into(), NODE);
    world.run(ms(2500));
    assert_eq!(world.node.peers.len(), 1);
    // All CnCs die, then the link.
    world.cncs.clear();
    let since = world.now;
    world.break_link(0);
    world.run(ms(5000));
    let joined = |event: &Event| matches!(event, Event::Joined { resumed: true, .. });
    when(&world, 0, since, joined);
}

#[test]
fn a_dead_node_is_found_within_two_seconds_and_media_flows_on_another_within_five() {
    for seed in 0..20 {
        let mut world = two(seed);
        let killed = world.now;
        world.dead = true;
        world.cncs.insert("cnc".into(), OTHER);
        world.run(ms(8000));
        for at in 0..2 {
            let lost = when(&world, at, killed, is_lost) - killed;
            assert!(lost <= ms(2000), "{lost:?}");
            let moved = when(&world, at, killed, |event| {
                *event == Event::Moved { node: "other.example:8443".into() }
            });
            let joined = |event: &Event| matches!(event, Event::Joined { resumed: false, .. });
            assert_eq!(when(&world, at, killed, joined), moved);
            // A round trip for a packet that was under way.
            let silent = gap(&world, at, killed + ms(50), world.now);
            assert!(silent <= ms(4000), "{silent:?}, and a CnC may take another second");
            let (_, _, last) = world.asked.last().unwrap();
            assert!(last.ends_with("&reconnect=true&streamerEndpoint=node.example%3A8443"));
        }
        let waits = world.asked.iter().filter(|(time, ..)| *time > killed).map(|(time, ..)| *time);
        let waits: Vec<_> = waits.collect();
        assert_eq!(waits.len(), 2, "each asks once");
        for peer in &world.other.peers {
            assert_eq!((peer.publications.len(), peer.subscriptions.len()), (1, 1));
            let auth = &peer.auths[0];
            assert!(auth.reconnect && auth.session_id.is_empty() && auth.messages_seen == 0);
            assert_eq!(auth.failed_streamer, "node.example:8443");
        }
    }
}

#[test]
fn an_application_that_subscribes_by_itself_on_the_next_node_gets_nothing_twice() {
    let mut world = two(3);
    world.once = false;
    world.dead = true;
    world.cncs.insert("cnc".into(), OTHER);
    world.run(ms(8000));
    for peer in &world.other.peers {
        assert_eq!(peer.subscriptions.len(), 1);
    }
}

#[test]
fn a_broken_link_to_a_node_that_is_well_is_resumed_without_a_lost_packet() {
    let mut world = two(4);
    let since = world.now;
    world.break_link(0);
    world.run(ms(4000));
    assert_eq!(world.node.peers.len(), 2, "the same peers");
    when(&world, 0, since, |event| matches!(event, Event::Joined { resumed: true, .. }));
    let asked = world.asked.last().unwrap();
    let wait = asked.0 - since;
    assert!((ms(1000)..=ms(2000)).contains(&wait), "{wait:?}");
    for member in &world.members {
        assert_eq!(member.lost_since(since - ms(500)), 0);
        assert!(!member.events.iter().any(|(_, event)| matches!(event, Event::Moved { .. })));
    }
}

#[test]
fn media_goes_on_by_a_relay_whose_control_is_dead_until_the_next_node_is_joined() {
    let mut world = two(5);
    let since = world.now;
    // No link is taken any more, and no CnC says where else to go, for a while.
    world.away = Some("node.example".into());
    for at in 0..2 {
        world.break_link(at);
    }
    world.run(ms(10_000));
    for at in 0..2 {
        assert!(gap(&world, at, since, world.now) < ms(100), "media was interrupted");
    }
    world.cncs.insert("cnc".into(), OTHER);
    let since = world.now;
    world.run(ms(8000));
    for at in 0..2 {
        when(&world, at, since, |event| matches!(event, Event::Moved { .. }));
        assert!(gap(&world, at, world.now - ms(2000), world.now) < ms(100));
        assert_eq!(world.members[at].transport(), State::UdpRelay);
    }
}

#[test]
fn one_way_that_is_silent_does_not_make_a_node_dead() {
    let mut world = two(6);
    let since = world.now;
    world.udp_blocked = true;
    world.run(ms(6000));
    world.udp_blocked = false;
    world.run(ms(4000));
    for member in &world.members {
        assert!(!member.events.iter().any(|(time, event)| *time >= since && is_lost(event)));
    }
}

#[test]
fn a_node_that_sends_elsewhere_is_left_for_the_next() {
    let mut world = two(7);
    world.node.redirect =
        Some(strait_client::v1::Redirect { host: "other.example".into(), port: 8443 });
    world.break_link(0);
    world.run(ms(4000));
    assert_eq!((world.node.peers.len(), world.other.peers.len()), (2, 1));
    assert_eq!(world.members[0].hosts.last().unwrap(), "other.example");
    // Who comes there later is heard by the subscription of before.
    world.cncs.insert("cnc".into(), OTHER);
    world.break_link(1);
    world.run(ms(5000));
    for peer in &world.other.peers {
        assert_eq!(peer.subscriptions.len(), 1);
    }
    for at in 0..2 {
        assert!(gap(&world, at, world.now - ms(1000), world.now) < ms(100));
    }
}

#[test]
fn a_node_that_is_full_has_not_failed() {
    let mut world = two(8);
    let (code, reason) = (v1::ErrorCode::TooMany.into(), "full".into());
    world.node.refuse.push(v1::Error { code, reason, retry_ms: 2000 });
    let asked = world.asked.len();
    world.break_link(0);
    world.run(ms(6000));
    let targets: Vec<_> = world.asked[asked..].iter().map(|(.., target)| target.as_str()).collect();
    assert!(targets[0].ends_with("&reconnect=true&streamerEndpoint=node.example%3A8443"));
    assert_eq!(targets[1..], ["/resolve?applicationId=dev&scopeId=room"]);
    assert_eq!(world.node.peers.len(), 2, "and lets it in later");
}

#[test]
fn who_unsubscribes_right_after_a_move_is_not_subscribed_again() {
    let mut world = two(9);
    world.dead = true;
    world.cncs.insert("cnc".into(), OTHER);
    let has = |world: &World, at: usize, is_it: fn(&Event) -> bool| {
        world.members[at].events.iter().any(|(_, event)| is_it(event))
    };
    let moved = |event: &Event| matches!(event, Event::Moved { .. });
    let first = loop {
        world.run(ms(1));
        assert!(world.now < ms(20_000), "somebody moves");
        if let Some(at) = (0..2).find(|at| has(&world, *at, moved)) {
            break at;
        }
    };
    // By the only identifier that it knows.
    let subscription_id = world.members[first].events.iter().find_map(|(_, event)| match event {
        Event::Subscribed { subscription_id, .. } => Some(subscription_id.clone()),
        _ => None,
    });
    let subscription_id = subscription_id.unwrap();
    let body = Body::Unsubscribe(v1::Unsubscribe { subscription_id });
    world.members[first].client.request(body).unwrap();
    world.run(ms(8000));
    assert!(has(&world, first, |event| matches!(event, Event::Done { .. })));
    let of = |at: usize| {
        let name = format!("member {at}");
        let peer = world.other.peers.iter().find(|peer| peer.auths[0].name == name).unwrap();
        peer.subscriptions.len()
    };
    assert_eq!((of(first), of(1 - first)), (0, 1));
}
