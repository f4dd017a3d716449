//! How media goes, in virtual time: UDP, its loss and return, directly, messages over broken links.

use crate::fake_node::Way;
use crate::virtual_net::{AUDIO, VIDEO, World, ms};
use std::time::Duration;
use strait_client::Error;
use strait_client::core::client::Event;
use strait_client::core::sending::Frame;
use strait_link::v1::{self, transport_report::State, user_event};

pub fn two(seed: u64) -> World {
    let mut world = World::new(seed);
    world.join();
    world.join();
    world
}

#[test]
fn media_goes_by_udp_where_that_works() {
    for seed in 0..20 {
        let mut world = two(seed);
        world.loss = if seed % 2 == 0 { 0.0 } else { 0.2 };
        world.run(ms(30_000));
        for member in &world.members {
            let states: Vec<_> = member.transports().iter().map(|(_, state)| *state).collect();
            assert_eq!(states, [State::Probing, State::UdpRelay], "seed {seed}");
            assert!(member.heard[0].0 < ms(1000), "seed {seed}: {:?}", member.heard[0]);
            if world.loss == 0.0 {
                assert_eq!(member.lost_since(Duration::ZERO), 0);
            }
        }
        assert_eq!(world.node.peers[0].reports, [State::Probing, State::UdpRelay]);
    }
}

#[test]
fn without_udp_media_goes_by_tcp_within_three_seconds_and_comes_back_without_a_gap() {
    for seed in 0..20 {
        let mut world = two(seed);
        world.udp_blocked = true;
        world.run(ms(20_000));
        for member in &world.members {
            assert_eq!(member.transport(), State::Link);
            assert!(member.heard[0].0 < ms(3000), "seed {seed}: {:?}", member.heard[0]);
        }
        assert_eq!(world.node.peers[1].nominated, Some(Way::Link));
        world.udp_blocked = false;
        let released = world.now + ms(u64::from(seed as u8) * 100);
        world.run(ms(10_000));
        for member in &world.members {
            let (back, state) = *member.transports().last().unwrap();
            assert_eq!(state, State::UdpRelay, "seed {seed}");
            assert!(back < released + ms(10_000), "seed {seed}: {back:?}");
            assert_eq!(member.lost_since(ms(3000)), 0, "seed {seed}");
        }
        world.run(ms(2000));
        assert!(matches!(world.node.peers[1].nominated, Some(Way::Udp(..))));
    }
}

/// Where the media of both members goes and comes from, if that is all the same: ports for sound and for pictures.
fn ports(world: &World) -> [u16; 2] {
    let of = |peer: &crate::fake_node::Peer| {
        let port = |way: Option<Way>| match way {
            Some(Way::Udp(port, _)) => port,
            other => panic!("{other:?}"),
        };
        let back = [port(peer.nominated), port(peer.pictures.or(peer.nominated))];
        assert_eq!(back, peer.came_to, "there and back");
        back
    };
    let [one, other] = &world.node.peers[..] else { panic!("two") };
    assert_eq!(of(one), of(other));
    of(one)
}

#[test]
fn each_port_is_used_as_long_as_no_better_one_gets_through() {
    for seed in 0..10 {
        let mut world = World::with_ports(seed);
        for _ in 0..2 {
            let at = world.join();
            world.film(at);
        }
        world.run(ms(3000));
        assert_eq!(ports(&world), [AUDIO, VIDEO], "seed {seed}");
        assert!(world.members[1].heard[0].0 < ms(400), "{:?}", world.members[1].heard[0]);
        // One by one they are blocked, also one of the pair alone: the next one takes over before TCP is thought of.
        let steps = [(VIDEO, 8443), (AUDIO, 8443), (8443, 3478), (3478, 443)];
        for (blocked, next) in steps {
            world.ports_blocked.push(blocked);
            let cut = world.now;
            world.run(ms(8000));
            assert_eq!(ports(&world), [next; 2], "seed {seed}: without {blocked}");
            for member in &world.members {
                assert_eq!(member.transports().len(), 2, "seed {seed}: {:?}", member.transports());
                let after = member.heard.iter().find(|(at, _)| *at > cut + ms(100)).unwrap().0;
                assert!(after < cut + ms(2500), "seed {seed}: {after:?} after a cut at {cut:?}");
            }
        }
        world.ports_blocked.push(443);
        world.run(ms(8000));
        for member in &world.members {
            assert_eq!(member.transport(), State::TcpRelay, "seed {seed}");
        }
        // And back, up to the best, without a gap.
        for (released, now) in
            [(443, [443; 2]), (3478, [3478; 2]), (AUDIO, [3478; 2]), (VIDEO, [AUDIO, VIDEO])]
        {
            world.ports_blocked.retain(|port| *port != released);
            let from = world.now;
            world.run(ms(10_000));
            assert_eq!(ports(&world), now, "seed {seed}: with {released}");
            for member in &world.members {
                assert_eq!(member.transport(), State::UdpRelay, "seed {seed}");
                assert_eq!(member.lost_since(from), 0, "seed {seed}: with {released}");
            }
        }
    }
}

#[test]
fn blocked_ports_delay_the_first_sound_by_a_quarter_of_a_second_each() {
    for seed in 0..10 {
        let mut world = World::with_ports(seed);
        world.ports_blocked = vec![AUDIO, VIDEO, 8443];
        world.join();
        world.join();
        world.run(ms(3000));
        for member in &world.members {
            assert_eq!(member.transport(), State::UdpRelay, "seed {seed}");
            assert!(member.heard[0].0 < ms(1000), "seed {seed}: {:?}", member.heard[0]);
        }
        assert_eq!(
            world.node.peers[0].nominated.map(|way| matches!(way, Way::Udp(3478, _))),
            Some(true)
        );
    }
}

#[test]
fn who_cannot_send_datagrams_waits_for_none() {
    let mut world = World::new(1);
    for _ in 0..2 {
        let at = world.join();
        world.members[at].client.forgo_udp();
    }
    world.run(ms(5000));
    for member in &world.members {
        assert_eq!(member.transport(), State::Link);
        assert!(member.heard[0].0 < ms(1000), "{:?}", member.heard[0]);
    }
}

#[test]
fn what_goes_by_tcp_has_a_connection_of_its_own_where_that_can_be_had() {
    for seed in 0..10 {
        let mut world = World::with_framed_media(seed);
        world.join();
        world.join();
        world.udp_blocked = true;
        world.run(ms(20_000));
        for member in &world.members {
            assert_eq!(member.transport(), State::TcpRelay, "seed {seed}");
            assert!(member.heard[0].0 < ms(3000), "seed {seed}: {:?}", member.heard[0]);
        }
        assert!(matches!(world.node.peers[0].nominated, Some(Way::Framed(_))));
        // It breaks: what goes by TCP goes by the link.
        world.break_media(0);
        let broken = world.now;
        world.run(ms(5000));
        assert_eq!(world.members[0].transport(), State::Link);
        assert_eq!(world.node.peers[0].nominated, Some(Way::Link));
        let after = world.members[0].heard.iter().find(|(at, _)| *at > broken).unwrap().0;
        assert!(after < broken + ms(200), "seed {seed}: {after:?} after {broken:?}");
        // The other one's outlives its link.
        world.break_link(1);
        world.run(ms(5000));
        assert_eq!(world.members[1].transport(), State::TcpRelay, "seed {seed}");
        assert_eq!(world.members[0].lost_since(broken), 0, "seed {seed}");
        // Back on UDP it is closed.
        world.udp_blocked = false;
        world.run(ms(12_000));
        for at in 0..2 {
            assert_eq!(world.members[at].transport(), State::UdpRelay, "seed {seed}");
            assert!(!world.has_media(at));
        }
    }
}

#[test]
fn a_proxy_that_lets_one_connection_through_lets_media_through() {
    let mut world = World::with_framed_media(1);
    world.media_refused = true;
    world.join();
    world.join();
    world.udp_blocked = true;
    world.run(ms(20_000));
    for member in &world.members {
        assert_eq!(member.transport(), State::Link);
        assert!(member.heard[0].0 < ms(3000), "{:?}", member.heard[0]);
        assert_eq!(member.lost_since(ms(3000)), 0);
    }
}

#[test]
fn udp_that_dies_in_a_call_is_left() {
    let mut world = two(1);
    world.run(ms(5000));
    world.udp_blocked = true;
    let cut = world.now;
    world.run(ms(10_000));
    for member in &world.members {
        assert_eq!(member.transport(), State::Link);
        let after = member.heard.iter().find(|(at, _)| *at > cut + ms(100)).unwrap().0;
        assert!(after < cut + ms(4500), "{after:?} after a cut at {cut:?}");
    }
}

#[test]
fn two_talk_directly_and_lose_nothing_when_a_third_comes() {
    for seed in 0..10 {
        let mut world = two(seed);
        world.run(ms(5000));
        let offered = world.now;
        world.node.offer_direct();
        world.run(ms(5000));
        for member in &world.members {
            assert_eq!(member.transport(), State::P2p, "seed {seed}");
            assert!(member.direct[0] < offered + ms(1000), "seed {seed}: {:?}", member.direct[0]);
        }
        // Media goes directly alone, but for a packet now and then, and the way to the node is alive.
        let before = world.node.peers[0].media_packets;
        world.run(ms(20_000));
        assert!(world.node.peers[0].media_packets <= before + 1);
        world.join();
        world.node.end_direct();
        world.run(ms(5000));
        for member in &world.members {
            assert_eq!(member.transport(), State::UdpRelay);
        }
        for member in &world.members[..2] {
            assert!(member.heard.last().unwrap().0 > world.now - ms(50));
        }
        // The third one's frames have counters of their own: the second is judged by what came before.
        let mut first = std::mem::take(&mut world.members[1].heard);
        first.retain(|(at, _)| *at < ms(29_900));
        world.members[1].heard = first;
        assert_eq!(world.members[1].lost_since(ms(1000)), 0, "seed {seed}");
    }
}

/// One hears of it a fifth of a second after the other: what comes meanwhile is under a key that it does not have, and what
/// it sends is under the one before.
#[test]
fn another_session_key_costs_no_packet() {
    for seed in 0..10 {
        let mut world = two(seed);
        world.run(ms(3000));
        for fill in [9, 11] {
            world.node.tell_key(0, fill);
            world.run(ms(200));
            world.node.tell_key(1, fill);
            world.run(ms(8000));
        }
        for member in &world.members {
            assert_eq!(member.lost_since(ms(1000)), 0, "seed {seed}");
            assert!(member.heard.last().unwrap().0 > world.now - ms(50));
        }
    }
}

#[test]
fn the_node_can_follow_the_numbers_of_what_goes_directly() {
    let mut world = two(11);
    world.run(ms(3000));
    world.node.offer_direct();
    world.run(ms(3000));
    assert_eq!(world.members[0].transport(), State::P2p);
    let before = world.node.peers[0].media_packets;
    // Two turns of the sequence numbers: 16 marks, give or take the first.
    for _ in 0..2 * 65_536 {
        world.say(0);
    }
    world.run(ms(500));
    let marks = world.node.peers[0].media_packets - before;
    assert!((15..=17).contains(&marks), "{marks}");
}

#[test]
fn the_same_offer_again_changes_nothing() {
    let mut world = two(12);
    world.run(ms(3000));
    world.node.offer_direct();
    world.run(ms(3000));
    let before = world.members[0].transports().len();
    world.node.offer_direct();
    world.run(ms(3000));
    for member in &world.members {
        assert_eq!(member.transport(), State::P2p);
        assert_eq!(member.transports().len(), before);
    }
    // After it was taken back it is news.
    world.node.end_direct();
    world.run(ms(3000));
    assert_eq!(world.members[0].transport(), State::UdpRelay);
    world.node.offer_direct();
    world.run(ms(3000));
    assert_eq!(world.members[0].transport(), State::P2p);
}

#[test]
fn a_direct_way_that_dies_is_left_within_two_seconds() {
    for seed in 0..10 {
        let mut world = two(seed);
        world.run(ms(3000));
        world.node.offer_direct();
        world.run(ms(5000 + seed * 37));
        world.direct_blocked = true;
        let cut = world.now;
        world.run(ms(10_000));
        for member in &world.members {
            assert_eq!(member.transport(), State::UdpRelay, "seed {seed}");
            let after = member.heard.iter().find(|(at, _)| *at > cut + ms(100)).unwrap().0;
            assert!(after < cut + ms(2200), "seed {seed}: {after:?} after {cut:?}");
        }
        // And taken again when it works again.
        world.direct_blocked = false;
        world.run(ms(6000));
        assert_eq!(world.members[0].transport(), State::P2p, "seed {seed}");
    }
}

#[test]
fn who_sends_directly_keeps_to_what_the_line_of_the_other_carries() {
    for seed in 0..5 {
        let mut world = two(seed);
        world.film(0);
        world.run(ms(3000));
        world.narrow(4_000_000);
        world.node.offer_direct();
        world.run(ms(20_000));
        assert_eq!(world.members[0].transport(), State::P2p, "seed {seed}");
        let bps = |world: &World| world.members[0].target.unwrap().bitrate_bps;
        assert!(bps(&world) > 1_000_000, "seed {seed}: {} where nothing waits", bps(&world));
        world.narrow(400_000);
        let cut = world.now;
        world.run(ms(30_000));
        let after = |from: u64| world.waited.iter().filter(move |(at, _)| *at > cut + ms(from));
        let first = after(0).map(|(_, waited)| *waited).max().unwrap();
        assert!(first > ms(200), "seed {seed}: it was too narrow, yet {first:?} at most");
        let (settled, all) =
            (after(5000).filter(|(_, w)| *w < ms(100)).count(), after(5000).count());
        let most = after(5000).map(|(_, waited)| *waited).max().unwrap();
        assert!(
            settled * 100 >= all * 99,
            "seed {seed}: {settled} of {all} within 100 ms, {most:?}"
        );
        assert!((200_000..=400_000).contains(&bps(&world)), "seed {seed}: {}", bps(&world));
        // Sound is lost in the beginning alone.
        assert_eq!(world.members[1].lost_since(cut + ms(5000)), 0, "seed {seed}");
        world.narrow(4_000_000);
        world.run(ms(30_000));
        assert!(bps(&world) > 1_000_000, "seed {seed}: {} when it is wide again", bps(&world));
    }
}

/// Pictures that came whole since then: when, and their bytes.
fn pictures(world: &World, at: usize, since: Duration) -> Vec<(Duration, Vec<u8>)> {
    let (mut whole, mut parts, mut last) = (Vec::new(), Some(Vec::new()), None);
    for (came, payload) in &world.members[at].seen {
        let follows = last == Some((payload.ssrc, payload.seq.wrapping_sub(1)));
        last = Some((payload.ssrc, payload.seq));
        // Something of this one is missing.
        parts = parts.filter(|parts: &Vec<u8>| follows || parts.is_empty());
        if let Some(parts) = &mut parts {
            parts.extend_from_slice(&payload.payload);
        }
        if payload.marker {
            whole.extend(parts.take().map(|picture| (*came, picture)));
            parts = Some(Vec::new());
        }
    }
    whole.retain(|(came, _)| *came >= since);
    whole
}

#[test]
fn a_real_encoder_keeps_to_what_the_line_of_the_other_carries() {
    let test = "a_real_encoder_keeps_to_what_the_line_of_the_other_carries";
    let Some(programs) = crate::encoder::Programs::build(test) else { return };
    let mut world = two(0);
    world.members[0].encoder = Some(programs.encoder());
    world.members[1].keeps = true;
    world.film(0);
    world.run(ms(3000));
    world.narrow(4_000_000);
    world.node.offer_direct();
    world.run(ms(12_000));
    assert_eq!(world.members[0].transport(), State::P2p);
    let height = |world: &World| world.members[0].target.unwrap().height;
    assert_eq!(height(&world), 720, "where nothing waits");
    world.narrow(400_000);
    let cut = world.now;
    world.run(ms(20_000));
    let waited: Vec<_> =
        world.waited.iter().filter(|(at, _)| *at > cut + ms(5000)).map(|(_, w)| *w).collect();
    let settled = waited.iter().filter(|waited| **waited < ms(150)).count();
    let most = waited.iter().max().unwrap();
    println!("{settled} of {} within 150 ms, {most:?} at most", waited.len());
    assert!(settled * 100 >= waited.len() * 99, "{settled} of {}, {most:?}", waited.len());
    assert_eq!(world.members[1].lost_since(cut + ms(5000)), 0);
    let bps = world.members[0].target.unwrap().bitrate_bps;
    assert!((150_000..=400_000).contains(&bps), "{bps}");
    assert!(height(&world) <= 360, "{}", height(&world));
    let narrow = world.now;
    world.narrow(4_000_000);
    world.run(ms(25_000));
    assert_eq!(height(&world), 720, "when it is wide again");
    // What came can be decoded, and is as large as was said.
    let mut decoder = programs.decoder();
    let came = pictures(&world, 1, Duration::ZERO);
    let heights: Vec<_> = came.iter().map(|(at, picture)| (*at, decoder.decode(picture))).collect();
    let between = |from: Duration, to: Duration| {
        heights.iter().filter(move |(at, _)| (from..to).contains(at)).map(|(_, height)| *height)
    };
    let low = between(cut + ms(5000), narrow);
    assert!(low.clone().count() > 150, "{} pictures in 15 s", low.count());
    assert!(
        low.clone().all(|height| (240..=360).contains(&height)),
        "{:?}",
        low.collect::<Vec<_>>()
    );
    let high = between(world.now - ms(1000), world.now);
    assert!(
        high.clone().count() > 20 && high.clone().all(|height| height == 720),
        "{:?}",
        high.collect::<Vec<_>>()
    );
}

#[test]
fn where_no_direct_way_works_the_relay_goes_on() {
    let mut world = two(3);
    world.direct_blocked = true;
    world.run(ms(3000));
    world.node.offer_direct();
    world.run(ms(20_000));
    for member in &world.members {
        assert_eq!(member.transport(), State::UdpRelay);
        assert_eq!(member.lost_since(ms(1000)), 0);
    }
}

pub fn messages(world: &World, at: usize) -> Vec<u8> {
    let events = world.members[at].events.iter();
    let texts = events.filter_map(|(_, event)| match event {
        Event::Message { payload, .. } => Some(payload[0]),
        _ => None,
    });
    texts.collect()
}

#[test]
fn no_message_is_lost_or_doubled_over_broken_links() {
    for seed in 0..20 {
        let mut world = two(seed);
        world.run(ms(500));
        let mut sent = 0;
        while sent < 50 {
            for _ in 0..5 {
                world.members[0].client.send_message("", vec![sent], false).unwrap();
                sent += 1;
            }
            // Broken while they are under way, at another moment each time.
            world.run(ms(1 + (seed * 7 + u64::from(sent)) % 60));
            world.break_link(usize::from(sent % 2));
            world.run(ms(3000));
        }
        world.run(ms(5000));
        assert_eq!(messages(&world, 1), (0..50).collect::<Vec<_>>(), "seed {seed}");
        let last = world.node.peers[0].auths.last().unwrap();
        assert!(last.reconnect && last.session_id == "session0", "{last:?}");
        assert_eq!(last.failed_streamer, "node.example:8443");
    }
}

/// What a member was told of messages that were not confirmed, and that it is at its end with that.
fn left(world: &World, at: usize) -> Vec<u64> {
    let events: Vec<_> = world.members[at].events.iter().map(|(_, event)| event).collect();
    match events.as_slice() {
        [.., Event::Unconfirmed { numbers }, Event::Ended(Error::Ended)] => numbers.clone(),
        [.., Event::Ended(Error::Ended)] => Vec::new(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_leaves_hands_over_first_what_waits() {
    let leaving = |seed| {
        let mut world = two(seed);
        world.run(ms(500));
        let client = &mut world.members[0].client;
        // The link takes one at a time.
        client.give_room(1);
        for n in 0..20 {
            client.send_message("", vec![n], false).unwrap();
        }
        client.leave(world.now);
        assert_eq!(client.send_message("", vec![20], false), Err(Error::Ended));
        assert_eq!(client.subscribe("any", false), Err(Error::Ended));
        assert_eq!(client.publish(v1::Publish::default()), Err(Error::Ended));
        world
    };
    let mut world = leaving(21);
    let heard = world.members[1].heard.len();
    for _ in 0..20 {
        world.run(ms(50));
        world.members[0].client.give_room(1);
    }
    world.run(ms(100));
    assert_eq!(messages(&world, 1), (0..20).collect::<Vec<_>>());
    assert_eq!(left(&world, 0), [0; 0]);
    assert!(world.members[1].heard.len() < heard + 5, "who left is not heard any more");

    let mut world = leaving(22);
    world.node.slow = true;
    world.members[0].client.give_room(usize::MAX);
    world.run(ms(1900));
    assert!(!world.members[0].events.iter().any(|(_, event)| matches!(event, Event::Ended(_))));
    world.run(ms(200));
    assert_eq!(left(&world, 0), (1..=20).collect::<Vec<_>>(), "it is told what is not known");

    // Over another link, where that comes in time.
    let mut came = 0;
    for seed in 0..20 {
        let mut world = leaving(seed);
        world.break_link(0);
        world.run(ms(100));
        world.members[0].client.give_room(usize::MAX);
        world.run(ms(2500));
        let (unknown, taken) = (left(&world, 0).len(), messages(&world, 1).len());
        // What came may not be confirmed in time: then it is not known.
        assert!(unknown + taken >= 20, "seed {seed}: {taken} came, {unknown} are not known");
        came += u32::from(taken == 20);
    }
    assert!(came > 5, "{came}");
}

#[test]
fn media_that_nobody_takes_does_not_pile_up() {
    let mut world = two(24);
    world.run(ms(2000));
    let (now, member) = (world.now, &mut world.members[0]);
    let frame = Frame { payload: &[0; 1000], timestamp: 0, marker: false, level: None };
    for _ in 0..10_000 {
        member.client.send(now, member.voice.unwrap(), 0, &frame).unwrap();
    }
    let waiting = std::iter::from_fn(|| member.client.poll()).count();
    assert_eq!(waiting, 4096);
}

#[test]
fn messages_keep_their_names_in_another_session() {
    let mut world = two(23);
    world.run(ms(500));
    let send =
        |world: &mut World| world.members[0].client.send_message("", vec![0], false).unwrap();
    assert_eq!((send(&mut world), send(&mut world)), (1, 2));
    world.run(ms(500));
    world.node.forgetful = true;
    world.break_link(0);
    world.run(ms(5000));
    world.node.slow = true;
    assert_eq!(send(&mut world), 3);
    world.run(ms(500));
    // The node counts from 1 again.
    let taken = v1::MessagesTaken { number: 1, undelivered: vec![1] };
    world.node.tell_taken(2, taken);
    world.run(ms(500));
    let told = |(_, event): &(Duration, Event)| *event == Event::Undelivered { numbers: vec![3] };
    assert!(world.members[0].events.iter().any(told), "{:?}", world.members[0].events);
    // So it does where it names those that were lost with who they were for.
    let lost = v1::MessagesLost { peer_id: "p-9".into(), count: 1, first: 1, last: 1 };
    world.node.tell_lost(2, lost);
    // No message of this session has that number.
    let lost = v1::MessagesLost { peer_id: "p-9".into(), count: 1, first: 1, last: 9 };
    world.node.tell_lost(2, lost);
    world.run(ms(500));
    let events = world.members[0].events.iter().map(|(_, event)| event);
    let lost: Vec<_> = events.filter(|e| matches!(e, Event::MessagesLost { .. })).collect();
    let peer_id = "p-9".to_owned();
    assert_eq!(lost, [&Event::MessagesLost { peer_id, count: 1, first: 3, last: 3 }]);
}

#[test]
fn media_goes_on_without_a_link_and_reconnects_wait_one_to_two_seconds() {
    let mut world = two(5);
    world.run(ms(3000));
    world.node_away = true;
    world.break_link(0);
    world.break_link(1);
    world.run(ms(8000));
    world.node_away = false;
    world.run(ms(5000));
    for member in &world.members {
        assert_eq!(member.lost_since(ms(1000)), 0);
        let waits = member.events.iter().filter_map(|(_, event)| match event {
            Event::LinkLost { retry_in, .. } => Some(*retry_in),
            _ => None,
        });
        let waits: Vec<_> = waits.collect();
        assert!(waits.len() > 3);
        assert!(waits.iter().all(|wait| (ms(1000)..ms(2000)).contains(wait)), "{waits:?}");
        assert!(waits.windows(2).any(|pair| pair[0] != pair[1]), "by chance: {waits:?}");
        let resumed = member
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::Joined { resumed: true, .. }));
        assert!(resumed);
    }
}

#[test]
fn media_that_was_lost_without_a_link_goes_by_the_path_that_the_node_names_when_it_is_back() {
    let mut world = two(5);
    world.run(ms(3000));
    world.break_link(0);
    world.node.lose_media(0);
    world.run(ms(5000));
    let [first, second] = [0, 1].map(|at| &world.members[at]);
    let told = |wanted: fn(&Event) -> bool| first.events.iter().any(|(_, event)| wanted(event));
    assert!(told(|event| matches!(event, Event::Joined { resumed: true, .. })));
    assert!(told(|event| matches!(event, Event::Scope(user_event::Body::MediaLost(_)))));
    let heard = second.heard.iter().filter(|(at, _)| *at > ms(6000)).count();
    assert!(heard > 90, "{heard} frames");
    // The same path again changes nothing.
    world.break_link(0);
    world.run(ms(4000));
    assert_eq!(world.members[1].lost_since(ms(6000)), 0);
}

#[test]
fn who_is_not_known_any_more_publishes_anew() {
    let mut world = two(6);
    world.run(ms(3000));
    world.node.forgetful = true;
    world.break_link(0);
    world.run(ms(5000));
    let published = world.members[0].events.iter().filter_map(|(_, event)| match event {
        Event::Published { publication_id, handle, .. } => Some((publication_id.clone(), *handle)),
        _ => None,
    });
    let published: Vec<_> = published.collect();
    assert_eq!(published.len(), 2, "{published:?}");
    assert!(published[0].0 != published[1].0 && published[0].1 == published[1].1);
    let heard = world.members[1].heard.iter().filter(|(at, _)| *at > ms(6000)).count();
    assert!(heard > 90, "{heard}");
}

#[test]
fn refusals_end_it_or_are_tried_again_as_the_node_says() {
    let error = |code: v1::ErrorCode, retry_ms| v1::Error {
        code: code.into(),
        reason: "because".into(),
        retry_ms,
    };
    // Of a limit the node says whether waiting helps.
    for code in [v1::ErrorCode::BadSignature, v1::ErrorCode::TooMany] {
        let mut world = World::new(7);
        world.node.refuse.push(error(code, 0));
        world.join();
        world.run(ms(10_000));
        let (_, last) = world.members[0].events.last().unwrap();
        assert_eq!(*last, Event::Ended(Error::Refused { code, reason: "because".into() }));
        assert!(world.node.peers.is_empty());
    }

    let mut world = World::new(7);
    world.node.refuse.push(error(v1::ErrorCode::Unavailable, 5000));
    world.join();
    world.run(ms(5000));
    assert!(world.node.peers.is_empty());
    world.run(ms(2000));
    assert_eq!(world.node.peers.len(), 1, "after as long as the node said, and up to a second");
}

/// How long the first member waited before it tried again, each time.
fn waits(world: &World) -> Vec<Duration> {
    let waits = world.members[0].events.iter().filter_map(|(_, event)| match event {
        Event::LinkLost { retry_in, .. } => Some(*retry_in),
        _ => None,
    });
    waits.collect()
}

#[test]
fn who_is_refused_again_and_again_waits_longer_each_time() {
    let error = |code: v1::ErrorCode, retry_ms| v1::Error {
        code: code.into(),
        reason: "because".into(),
        retry_ms,
    };
    for (code, retry_ms) in [(v1::ErrorCode::TooMany, 2000), (v1::ErrorCode::Internal, 0)] {
        let mut world = World::new(11);
        world.node.refuse = vec![error(code, retry_ms); 6];
        world.join();
        world.run(ms(150_000));
        assert_eq!(world.node.peers.len(), 1, "let in in the end");
        let least = if retry_ms == 0 { ms(1000) } else { ms(2000) };
        assert_eq!(waits(&world).len(), 6);
        for (wait, times) in waits(&world).iter().zip([1, 2, 4, 8, 8, 8]) {
            let range = least * times..(least + ms(1000)) * times;
            assert!(range.contains(wait), "{wait:?} is not in {range:?}");
        }
        // Once it was in all begins anew.
        world.node.refuse = vec![error(code, retry_ms)];
        world.break_link(0);
        world.run(ms(8000));
        let again = waits(&world)[6..].to_vec();
        assert!(again.len() == 2 && again[0] < ms(2000), "a lost link: {again:?}");
        assert!((least..least + ms(1000)).contains(&again[1]), "{again:?}");
    }
}

#[test]
fn who_was_in_is_ended_by_no_limit() {
    let full = v1::Error {
        code: v1::ErrorCode::TooMany.into(),
        reason: "the scope is full".into(),
        retry_ms: 0,
    };
    let mut world = World::new(12);
    world.join();
    world.run(ms(1000));
    // Its node lost its session, and others took its place meanwhile.
    world.node.refuse = vec![full; 4];
    world.node.forgetful = true;
    world.break_link(0);
    world.run(ms(60_000));
    let waits = waits(&world);
    assert_eq!(waits.len(), 5, "{waits:?}");
    for (wait, times) in waits[1..].iter().zip([1, 2, 4, 8]) {
        let range = ms(1000) * times..ms(2000) * times;
        assert!(range.contains(wait), "{wait:?} is not in {range:?}");
    }
    let joins = world.members[0].events.iter();
    let joins = joins.filter(|(_, event)| matches!(event, Event::Joined { .. }));
    assert_eq!(joins.count(), 2, "let in once there is room");
}

#[test]
fn who_is_sent_to_a_node_that_is_away_or_in_a_circle_asks_again() {
    let redirect = || Some(v1::Redirect { host: "other.example".into(), port: 443 });
    let mut world = World::new(9);
    world.node.redirect = redirect();
    world.away = Some("other.example".into());
    world.join();
    world.run(ms(5000));
    assert_eq!(world.node.peers.len(), 1, "let in where it came first");
    assert_eq!(world.members[0].hosts, ["node.example", "other.example", "node.example"]);

    let mut world = World::new(9);
    world.circle = redirect();
    world.join();
    world.run(ms(1000));
    let (_, last) = world.members[0].events.last().unwrap();
    let Event::LinkLost { error: Error::Refused { reason: why, .. }, .. } = last else {
        panic!("{last:?}")
    };
    assert!(why.contains("circle"), "{why}");
    // The second one names itself.
    assert_eq!(world.members[0].hosts.len(), 2);
    // And not sooner again than after any other loss.
    world.circle = None;
    world.run(ms(3000));
    assert_eq!(world.members[0].hosts[2..], ["node.example"]);
    assert_eq!(world.node.peers.len(), 1);
}

#[test]
fn a_redirect_is_followed() {
    let mut world = World::new(8);
    world.node.redirect = Some(v1::Redirect { host: "other.example".into(), port: 443 });
    world.join();
    world.run(ms(1000));
    assert_eq!((world.node.peers.len(), world.other.peers.len()), (0, 1));
    assert_eq!(world.members[0].transport(), State::UdpRelay);
}
