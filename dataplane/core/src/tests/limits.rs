//! Full queues, full tables, and bytes from hell.

use crate::command::{
    Command, CommandError, Encoding, Event, IceCredentials, Kind, PeerId, PublicationId, ScopeId,
    SubscriptionId,
};
use crate::drop::DropReason;
use crate::limits::{EGRESS_BYTES, EVENTS, PEERS_PER_SCOPE, SETUP, SUBSCRIPTIONS_PER_PEER};
use crate::testing::{
    Bench, Client, IDS, SCOPE, VP8, encoding, ms, packet, path, publish, subscribe, vp8,
};
use proptest::prelude::*;

fn key_frame(seq: u16) -> Vec<u8> {
    packet((5, VP8, seq, 0), &[(IDS.mid, b"1")], &vp8(seq, 0, true))
}

fn pair() -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    bench.sent();
    (bench, publisher, subscriber)
}

#[test]
fn a_full_turn_drops_and_the_next_one_works() {
    let (mut bench, mut publisher, _) = pair();
    assert!(bench.egress.push(path(1), &vec![0; EGRESS_BYTES - 10]));
    publisher.send(&mut bench, &key_frame(1));
    assert_eq!(bench.dropped(DropReason::EgressFull), 1);
    bench.sent();
    bench.drops(DropReason::EgressFull, |bench| {
        assert!(bench.egress.push(path(1), &vec![0; EGRESS_BYTES - 10]));
        publisher.check(bench);
    });
    bench.sent();
    publisher.send(&mut bench, &key_frame(2));
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_packet_that_would_outgrow_a_datagram_is_dropped() {
    let (mut bench, mut publisher, _) = pair();
    let payload = [&vp8(1, 0, true)[..], &[0; 2020]].concat();
    publisher.send(&mut bench, &packet((5, VP8, 1, 0), &[], &payload));
    assert_eq!(bench.dropped(DropReason::ProtectFailed), 1);
    assert!(bench.sent().is_empty());
}

#[test]
fn a_peer_with_too_many_ssrcs_is_limited() {
    let (mut bench, mut publisher, _) = pair();
    for ssrc in 0..strait_crypt::srtp::INBOUND_SSRCS as u32 {
        publisher.send(&mut bench, &packet((10_000 + ssrc, 50, 1, 0), &[], &[1]));
    }
    publisher.retire(10_000);
    let one_more = packet((99_000, 50, 1, 0), &[], &[1]);
    bench.drops(DropReason::SrtpLimit, |bench| publisher.send(bench, &one_more));
}

#[test]
fn events_that_nobody_fetches_are_dropped_from_the_oldest() {
    let mut bench = Bench::new();
    for id in 0..=EVENTS as u32 {
        Client::added(&mut bench, id);
        bench.command(Command::RemovePeer { peer: PeerId(id) });
    }
    assert_eq!(bench.dropped(DropReason::EventsFull), 1);
    let events = bench.events();
    assert_eq!(events.len(), EVENTS);
    assert!(matches!(events[0], Event::PeerLeft { peer: PeerId(1), .. }));
}

#[test]
fn commands_say_what_is_wrong() {
    let (mut bench, publisher, subscriber) = pair();
    let mut refuse = |command| bench.worker.on_command(bench.now, command, &mut bench.egress);
    assert_eq!(refuse(Command::CreateScope { scope: SCOPE }), Err(CommandError::Exists("scope")));
    let scope = ScopeId(99);
    assert_eq!(refuse(Command::DisposeScope { scope }), Err(CommandError::NotFound("scope")));
    let peer = |id, ufrag: &str| Command::AddPeer {
        scope: SCOPE,
        peer: PeerId(id),
        local: IceCredentials { ufrag: ufrag.into(), pwd: "p".repeat(22) },
        remote: IceCredentials { ufrag: "them".into(), pwd: "q".repeat(22) },
    };
    assert_eq!(refuse(peer(1, "fresh")), Err(CommandError::Exists("peer")));
    let taken = publisher.local.ufrag.clone();
    assert_eq!(refuse(peer(50, &taken)), Err(CommandError::Exists("user fragment")));
    assert_eq!(refuse(publisher.set_keys()), Err(CommandError::Exists("set of keys")));
    let gone = Command::RemovePeer { peer: PeerId(50) };
    assert_eq!(refuse(gone), Err(CommandError::NotFound("peer")));
    let mut audio = subscribe(subscriber.id, 2, Kind::Audio, Some(1));
    let refusal = Err(CommandError::NoCommonCodec("vp8/90000".into()));
    assert_eq!(refuse(audio), refusal);
    audio = subscribe(subscriber.id, 1, Kind::Video, None);
    assert_eq!(refuse(audio), Err(CommandError::Exists("subscription")));
    let mut same_ssrc = subscribe(subscriber.id, 7, Kind::Video, None);
    if let Command::Subscribe { ssrc, .. } = &mut same_ssrc {
        *ssrc = 1001;
    }
    assert_eq!(refuse(same_ssrc), Err(CommandError::Exists("SSRC")));
    for id in 1..SUBSCRIPTIONS_PER_PEER as u32 {
        assert_eq!(refuse(subscribe(subscriber.id, 10_000 + id, Kind::Video, None)), Ok(()));
    }
    let limit = SUBSCRIPTIONS_PER_PEER;
    let refusal = Err(CommandError::Limit { what: "subscriptions of this peer", limit });
    assert_eq!(refuse(subscribe(subscriber.id, 1234, Kind::Video, None)), refusal);
    for id in 2..PEERS_PER_SCOPE as u32 {
        assert_eq!(refuse(peer(100 + id, &format!("u{id}"))), Ok(()));
    }
    let limit = PEERS_PER_SCOPE;
    let refusal = Err(CommandError::Limit { what: "peers in this scope", limit });
    assert_eq!(refuse(peer(99, "last")), refusal);
    let publish = publish(publisher.id, 9, Kind::Video, &vec![Encoding::default(); 4]);
    let limit = crate::limits::ENCODINGS_PER_PUBLICATION;
    let refusal = Err(CommandError::Limit { what: "encodings of a publication", limit });
    assert_eq!(refuse(publish), refusal);
}

#[test]
fn a_peer_whose_keys_served_too_many_ssrcs_is_told_at_subscribe() {
    let (mut bench, mut publisher, subscriber) = pair();
    let with = |id: u32, first: u32| {
        let mut command = subscribe(subscriber.id, 10 + id, Kind::Video, Some(1));
        if let Command::Subscribe { ssrc, rtx_ssrc, .. } = &mut command {
            (*ssrc, *rtx_ssrc) = (first, first + 1);
        }
        command
    };
    let mut cycles = 0;
    let refusal = loop {
        let command = with(cycles, 100_000 + 2 * cycles);
        if let Err(refusal) = bench.worker.on_command(bench.now, command, &mut bench.egress) {
            break refusal;
        }
        publisher.send(&mut bench, &key_frame(cycles as u16));
        let sent = bench.sent();
        let media = |sent: &&crate::testing::Sent| {
            sent.path == subscriber.path && !(192..=223).contains(&sent.bytes[1])
        };
        // And what this one was shown of the key frames before.
        assert!(sent.iter().filter(media).count() >= 2, "{cycles}: the lasting one and this");
        bench.command(Command::Unsubscribe { subscription: SubscriptionId(10 + cycles) });
        bench.sent();
        cycles += 1;
    };
    let limit = strait_crypt::srtp::RETIRED_SSRCS;
    assert_eq!(refusal, CommandError::KeysUsedUp { limit });
    assert!(refusal.to_string().contains("join again"), "{refusal}");
    // The lasting one and the next could retire two each.
    assert_eq!(cycles as usize, limit - 3);
    let again = with(cycles, 100_000);
    let again = bench.worker.on_command(bench.now, again, &mut bench.egress);
    assert_eq!(again, Err(CommandError::KeysUsedUp { limit }));
}

#[test]
fn an_ssrc_that_ended_is_not_used_again() {
    let (mut bench, mut publisher, subscriber) = pair();
    publisher.send(&mut bench, &key_frame(1));
    bench.command(Command::Unsubscribe { subscription: SubscriptionId(1) });
    let again = subscribe(subscriber.id, 1, Kind::Video, Some(1));
    let again = bench.worker.on_command(bench.now, again, &mut bench.egress);
    assert_eq!(again, Err(CommandError::Exists("SSRC")), "SRTP would refuse all its packets");
}

#[test]
fn everything_that_left_is_forgotten() {
    let (mut bench, mut publisher, _) = pair();
    publisher.send(&mut bench, &key_frame(1));
    bench.command(Command::DisposeScope { scope: SCOPE });
    let worker = &bench.worker;
    let statistics = worker.statistics();
    let left = [
        statistics.scopes,
        statistics.peers,
        statistics.publications,
        statistics.subscriptions,
        statistics.cache_bytes as u32,
        worker.flows.len() as u32,
        worker.ufrags.len() as u32,
        worker.peer_ids.len() as u32,
        worker.publication_ids.len() as u32,
        worker.subscription_ids.len() as u32,
    ];
    assert_eq!(left, [0; 10]);
    bench.run(ms(60_000));
    assert_eq!(bench.worker.next_timeout(), None);
}

#[test]
fn an_idle_peer_is_small() {
    let mut bench = Bench::new();
    let client = Client::connected(&mut bench, 1);
    let slot = bench.worker.peer_ids[&client.id];
    let peer = bench.worker.peers.get(slot).unwrap();
    let bytes = size_of_val(peer) + peer.keys.as_ref().map_or(0, crate::keys::Keys::bytes);
    println!("an idle peer: {bytes} bytes");
    assert!(bytes <= 8 << 10, "{bytes}");
    let subscription = size_of::<crate::subscription::Subscription>();
    println!("a subscription: {subscription} bytes and its segments");
    assert!(subscription <= 1 << 10, "{subscription}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a stranger or a peer sends, the worker lives, and sends strangers nothing.
    #[test]
    fn arbitrary_datagrams(
        datagrams in prop::collection::vec(
            (any::<bool>(), 0_u8..=255, prop::collection::vec(any::<u8>(), 0..200)), 1..60
        )
    ) {
        let (mut bench, publisher, _) = pair();
        for (stranger, first, mut bytes) in datagrams {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            bench.receive(if stranger { path(1) } else { publisher.path }, &bytes);
            prop_assert!(bench.sent().iter().all(|sent| sent.path != path(1)));
        }
        prop_assert!(bench.worker.peer_statistics(publisher.id).is_some());
    }

    /// The same for what authenticates: broken RTP, RTX and RTCP of a peer that has the keys.
    #[test]
    fn arbitrary_packets_of_a_peer(
        packets in prop::collection::vec(
            (any::<bool>(), 0_u8..3, prop::sample::select(vec![96_u8, 97, 98, 50]), any::<u16>(),
             prop::collection::vec(any::<u8>(), 0..120)),
            1..80,
        ),
        changes in prop::collection::vec((0_u32..6, 1_u32..5), 0..10),
    ) {
        let (mut bench, mut publisher, mut subscriber) = pair();
        let mut changes = changes.into_iter();
        for (number, (rtcp, flags, pt, seq, tail)) in packets.into_iter().enumerate() {
            if rtcp {
                let mut bytes = vec![0x80 | ((flags & 1) << 5), 200 + pt % 8, 0, (tail.len() / 4) as u8];
                bytes.extend_from_slice(&1001_u32.to_be_bytes());
                bytes.extend_from_slice(&tail);
                subscriber.send_raw_rtcp(&mut bench, &bytes);
            } else {
                let ssrc = 5 + u32::from(flags);
                // A number of its own for each packet, so that the far side's own context takes it.
                let seq = if number % 2 == 0 { number as u16 } else { seq % 512 + 1000 };
                let mut bytes = packet((ssrc, pt, seq, 0), &[(IDS.mid, b"1")], &tail);
                bytes[0] |= (flags & 1) << 5;
                if let Some(bytes) = publisher.try_protect(&bytes) {
                    bench.receive(publisher.path, &bytes);
                }
            }
            if let Some((change, id)) = changes.next() {
                let command = match change {
                    0 => Command::Bind {
                        subscription: SubscriptionId(id),
                        publication: Some(PublicationId(id)),
                    },
                    1 => Command::Unsubscribe { subscription: SubscriptionId(id) },
                    2 => subscribe(subscriber.id, id, Kind::Video, Some(1)),
                    3 => Command::SetMuted { publication: PublicationId(id), muted: id % 2 == 0 },
                    4 => Command::Unpublish { publication: PublicationId(id) },
                    _ => Command::RemovePeer { peer: PeerId(id) },
                };
                let _ = bench.worker.on_command(bench.now, command, &mut bench.egress);
            }
            bench.run(ms(20));
            bench.sent();
        }
    }
}

#[test]
fn all_peers_that_leave_at_once_are_reported() {
    let mut bench = Bench::new();
    let peers = EVENTS as u32 + 100;
    for scope in 2..2 + peers / PEERS_PER_SCOPE as u32 + 1 {
        bench.command(Command::CreateScope { scope: ScopeId(scope) });
    }
    for id in 0..peers {
        let credentials =
            |side| IceCredentials { ufrag: format!("{side}{id}"), pwd: "x".repeat(24) };
        bench.command(Command::AddPeer {
            scope: ScopeId(2 + id / PEERS_PER_SCOPE as u32),
            peer: PeerId(id),
            local: credentials("l"),
            remote: credentials("r"),
        });
    }
    bench.advance(SETUP + ms(5));
    let mut left = 0;
    for _ in 0..3 {
        bench.worker.on_timeout(bench.now, &mut bench.egress);
        left += bench.events().len();
        bench.advance(ms(105));
    }
    assert_eq!((left, bench.dropped(DropReason::EventsFull)), (peers as usize, 0));
}

#[test]
fn an_ssrc_keeps_its_rollover_counter_when_it_is_published_again() {
    let (mut bench, mut publisher, _) = pair();
    for step in 0..5_u16 {
        publisher.send(&mut bench, &key_frame(1 + step.wrapping_mul(16_384)));
    }
    bench.command(Command::Unpublish { publication: PublicationId(1) });
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    publisher.send(&mut bench, &key_frame(2));
    assert_eq!(bench.dropped(DropReason::SrtpAuthentication), 0);
}

#[test]
fn ssrc_zero_is_no_stream() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    publisher.publish(&mut bench, 1, Kind::Video, &[Encoding::default()]);
    let nameless = packet((0, VP8, 1, 0), &[(IDS.mid, b"1")], &vp8(1, 0, true));
    bench.drops(DropReason::StreamUnknown, |bench| publisher.send(bench, &nameless));
}
