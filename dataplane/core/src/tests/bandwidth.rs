//! What is learnt of a subscriber's line, and what is made of it.

use crate::command::{Command, Kind, PeerId, Preferences, SubscriptionId};
use crate::limits::{BANDWIDTH_BPS_START, BANDWIDTH_RESERVE, FEEDBACK_STATUSES};
use crate::statistics::HeldBack;
use crate::testing::{
    Bench, Client, IDS, OPUS, VP8, VP8_RTX, encoding, ms, packet, publish, read, subscribe, vp8,
};
use crate::time::Duration;
use proptest::prelude::*;
use strait_wire::rtcp::Arrival;

fn video(ssrc: u32, seq: u16, key_frame: bool) -> Vec<u8> {
    let payload = [&vp8(seq, 0, key_frame)[..], &[7; 1000]].concat();
    packet((ssrc, VP8, seq, u32::from(seq) * 3000), &[], &payload)
}

fn sound(seq: u16) -> Vec<u8> {
    packet((9, OPUS, seq, u32::from(seq) * 960), &[], &[1, 2])
}

/// A publisher of video and sound, and who gets both.
fn pair() -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    publisher.publish(&mut bench, 2, Kind::Audio, &[encoding(9)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    subscriber.subscribe(&mut bench, 2, Kind::Audio, Some(2));
    bench.sent();
    (bench, publisher, subscriber)
}

/// The transport-wide numbers of what was sent to a peer.
fn numbers(media: &[Vec<u8>]) -> Vec<Option<u16>> {
    let number = |bytes: &Vec<u8>| {
        let data: Option<[u8; 2]> = read(bytes).extension(IDS.transport_cc)?.try_into().ok();
        data.map(u16::from_be_bytes)
    };
    media.iter().map(number).collect()
}

fn told(bench: &Bench) -> (u64, u64) {
    let estimation = bench.worker.peer_statistics(PeerId(2)).unwrap().estimation;
    (estimation.told, estimation.ignored)
}

fn feedback(bench: &mut Bench, from: &mut Client, arrivals: &[Arrival]) {
    from.send_rtcp(bench, |rtcp| {
        rtcp.transport_cc(1, 1001, 0, arrivals).unwrap();
    });
}

fn budget_bps(bench: &Bench) -> Option<u64> {
    bench.worker.peer_statistics(PeerId(2)).unwrap().budget_bps
}

#[test]
fn everything_that_goes_to_a_subscriber_is_numbered_in_one_row() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    let mut other = Client::connected(&mut bench, 3);
    other.subscribe(&mut bench, 3, Kind::Video, Some(1));
    publisher.send(&mut bench, &video(5, 1, true));
    publisher.send(&mut bench, &sound(1));
    publisher.send(&mut bench, &video(5, 2, false));
    subscriber.send_rtcp(&mut bench, |rtcp| rtcp.nack(1, 1001, [100, 101]).unwrap());
    let sent = bench.sent();
    let (media, _) = subscriber.open(&sent);
    assert_eq!(media.len(), 5);
    let first = numbers(&media)[0].expect("a number");
    let expected: Vec<_> = (0..5).map(|n| Some(first.wrapping_add(n))).collect();
    assert_eq!(numbers(&media), expected, "video, sound, video, and two again");
    let (media, _) = other.open(&sent);
    assert_eq!(numbers(&media), [Some(first), Some(first.wrapping_add(1))], "a row of its own");
}

#[test]
fn nothing_is_numbered_where_it_was_not_agreed() {
    let (mut bench, mut publisher, _) = pair();
    for (id, agreed) in [(3, true), (4, false)] {
        let mut client = Client::connected(&mut bench, id);
        let mut command = subscribe(client.id, id, Kind::Video, Some(1));
        if let Command::Subscribe { codecs, extensions, .. } = &mut command {
            if agreed {
                codecs.iter_mut().for_each(|codec| codec.transport_cc = false);
            } else {
                extensions.transport_cc = 0;
            }
        }
        bench.command(command);
        bench.sent();
        publisher.send(&mut bench, &video(5, id as u16, true));
        assert_eq!(numbers(&client.media(&mut bench)), [None]);
        let statistics = bench.worker.peer_statistics(client.id).unwrap();
        assert_eq!((statistics.budget_bps, statistics.round_trip), (None, None));
        client.send_rtcp(&mut bench, |rtcp| {
            rtcp.transport_cc(1, 2, 0, &[Arrival { seq: 1, at_us: 0 }]).unwrap();
        });
        let statistics = bench.worker.peer_statistics(client.id).unwrap();
        assert_eq!(statistics.estimation.told, 0);
    }
}

#[test]
fn feedback_is_counted_once_and_lies_are_ignored() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    (1..=4).for_each(|seq| publisher.send(&mut bench, &video(5, seq, seq == 1)));
    let first = numbers(&subscriber.media(&mut bench))[0].unwrap();
    let arrival = |n: u16, at_us| Arrival { seq: first.wrapping_add(n), at_us };
    bench.advance(ms(80));
    feedback(&mut bench, &mut subscriber, &[arrival(0, 5000), arrival(2, 6000)]);
    assert_eq!(told(&bench), (3, 0), "the one in between is lost");
    let round_trip = bench.worker.peer_statistics(PeerId(2)).unwrap().round_trip.unwrap();
    assert!((79..=80).contains(&round_trip.as_millis()), "{round_trip:?}");

    feedback(&mut bench, &mut subscriber, &[arrival(0, 5000), arrival(2, 6000)]);
    assert_eq!(told(&bench), (3, 3), "repeated");
    feedback(&mut bench, &mut subscriber, &[arrival(1, 7000)]);
    assert_eq!(told(&bench), (3, 3), "overtaken, not lost");
    feedback(&mut bench, &mut subscriber, &[arrival(4, 8000), arrival(5, 8000)]);
    feedback(&mut bench, &mut subscriber, &[arrival(0x8000, 9000)]);
    assert_eq!(told(&bench), (3, 6), "never sent");
    feedback(&mut bench, &mut subscriber, &[arrival(3, 1 << 50)]);
    assert_eq!(told(&bench), (4, 6), "from another century");
    assert!(budget_bps(&bench).is_some());
    let worker = bench.worker.statistics().estimation;
    assert_eq!((worker.told, worker.ignored), (4, 6));
}

#[test]
fn one_datagram_of_feedback_costs_no_more_than_it_may() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send(&mut bench, &video(5, 1, true));
    bench.sent();
    // Runs of 8,191 lost packets in two bytes each, as often as they fit.
    let mut compound = Vec::new();
    for count in 0..50 {
        let mut packet = vec![0x8F, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0xFF, 0xF8];
        packet.extend_from_slice(&[0, 0, 0, count]);
        packet.extend((0..8).flat_map(|_| [0x1F, 0xFF]).take(8));
        compound.extend_from_slice(&packet);
    }
    let before = told(&bench);
    subscriber.send_raw_rtcp(&mut bench, &compound);
    let after = told(&bench);
    assert!(after.0 - before.0 <= FEEDBACK_STATUSES as u64);
    assert!(after.1 > before.1 || bench.dropped(crate::drop::DropReason::RtcpMalformed) > 0);
}

#[test]
fn who_answers_gets_a_budget_and_who_never_does_gets_none() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    assert_eq!(budget_bps(&bench), None, "nothing was sent");
    publisher.send(&mut bench, &video(5, 1, true));
    let first = numbers(&subscriber.media(&mut bench))[0].unwrap();
    bench.run(ms(1500));
    let start = BANDWIDTH_BPS_START - BANDWIDTH_BPS_START / BANDWIDTH_RESERVE;
    assert_eq!(budget_bps(&bench), Some(start));
    bench.run(ms(4000));
    assert_eq!(budget_bps(&bench), None, "it does not speak it");
    feedback(&mut bench, &mut subscriber, &[Arrival { seq: first, at_us: 5000 }]);
    assert_eq!(budget_bps(&bench), Some(start), "it does after all");
    publisher.send(&mut bench, &video(5, 2, false));
    bench.run(Duration::from_secs(20));
    assert!(budget_bps(&bench).unwrap() < start / 4, "it fell silent: {:?}", budget_bps(&bench));
}

#[test]
fn who_is_on_another_network_has_another_line() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send(&mut bench, &video(5, 1, true));
    let first = numbers(&subscriber.media(&mut bench))[0].unwrap();
    bench.run(ms(100));
    feedback(&mut bench, &mut subscriber, &[Arrival { seq: first, at_us: 5000 }]);
    publisher.send(&mut bench, &video(5, 2, false));
    bench.run(Duration::from_secs(15));
    let start = BANDWIDTH_BPS_START - BANDWIDTH_BPS_START / BANDWIDTH_RESERVE;
    let fallen = budget_bps(&bench).unwrap();
    assert!(fallen < start / 4, "nothing got through: {fallen}");
    let before = told(&bench);

    let home = subscriber.path.remote;
    subscriber.path.remote.set_port(home.port() + 1);
    subscriber.check(&mut bench);
    bench.run(ms(100));
    assert!(budget_bps(&bench).unwrap() <= fallen, "another port is the same line");
    subscriber.path.remote.set_ip([198, 51, 100, 7].into());
    subscriber.check(&mut bench);
    subscriber.send_rtcp(&mut bench, |rtcp| rtcp.receiver_report(1, &[]).unwrap());
    bench.run(ms(100));
    assert_eq!(budget_bps(&bench), Some(start));
    // What is told of before is not known any more; the row of numbers goes on.
    publisher.send(&mut bench, &video(5, 3, false));
    let next = numbers(&subscriber.media(&mut bench))[0].unwrap();
    assert_eq!(next, first.wrapping_add(2));
    let arrivals = [first.wrapping_add(1), next].map(|seq| Arrival { seq, at_us: 6000 });
    feedback(&mut bench, &mut subscriber, &arrivals);
    assert_eq!(told(&bench), (before.0 + 1, before.1 + 1));
    assert!(budget_bps(&bench).unwrap() >= start);
}

/// A subscriber on the low layer of two, whose line carries all that is sent; the padding that it got, after so long.
fn padded(preferences: Preferences, kind: Kind, for_ms: u64) -> (Vec<Vec<u8>>, usize) {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::connected(&mut bench, 2);
    let encodings = [encoding(5), encoding(15)];
    let encodings = if kind == Kind::Video { &encodings[..] } else { &encodings[..1] };
    bench.command(publish(publisher.id, 1, kind, encodings));
    subscriber.subscribe(&mut bench, 1, kind, Some(1));
    bench.command(Command::SetPreferences { subscription: SubscriptionId(1), preferences });
    let (mut padding, mut all, mut arrivals) = (Vec::new(), 0, Vec::new());
    for step in 0..for_ms / 20 {
        if kind == Kind::Video {
            publisher.send(&mut bench, &video(5, step as u16, step % 50 == 0));
            // The high layer takes more than is known to fit.
            for part in 0..6 {
                let seq = (6 * step + part) as u16;
                let payload = [vp8(seq, 0, false), vec![0; 1000]].concat();
                let video = packet((15, VP8, seq, step as u32 * 1800), &[], &payload);
                publisher.send(&mut bench, &video);
            }
        } else {
            let packet = packet((5, OPUS, step as u16, step as u32 * 960), &[], &[7; 100]);
            publisher.send(&mut bench, &packet);
        }
        for _ in 0..20 {
            bench.run(ms(1));
            for bytes in subscriber.media(&mut bench) {
                let seq = numbers(std::slice::from_ref(&bytes))[0].expect("numbered");
                // At first a queue grows, so that the estimate falls: until then it holds nothing back.
                let queue_us = if step < 40 { step * 10_000 } else { 0 };
                arrivals.push(Arrival { seq, at_us: bench.now.at.0 / 1000 + queue_us });
                all += bytes.len();
                if read(&bytes).pt() == VP8_RTX + 10 {
                    padding.push(bytes);
                }
            }
        }
        if step % 5 == 4 && !arrivals.is_empty() {
            feedback(&mut bench, &mut subscriber, &std::mem::take(&mut arrivals));
        }
    }
    (padding, all)
}

#[test]
fn a_better_layer_is_probed_for_on_the_stream_of_retransmissions() {
    let low = Preferences::default();
    let (padding, all) = padded(low, Kind::Video, 10_000);
    assert!(!padding.is_empty());
    let mut seqs: Vec<_> = padding.iter().map(|bytes| read(bytes).seq()).collect();
    assert_eq!(seqs, (seqs[0]..).take(padding.len()).collect::<Vec<_>>(), "in a row");
    seqs.dedup();
    assert!(padding.iter().all(|bytes| read(bytes).ssrc() == 2001));
    let bytes: usize = padding.iter().map(Vec::len).sum();
    assert!(bytes < all / 2, "{bytes} of {all}");
}

#[test]
fn nothing_is_probed_for_that_nobody_wants() {
    let (padding, _) =
        padded(Preferences { paused: true, ..Preferences::default() }, Kind::Video, 3000);
    assert!(padding.is_empty(), "paused");
    let lowest = Preferences { layer_max: Some(0), ..Preferences::default() };
    let (padding, all) = padded(lowest, Kind::Video, 3000);
    assert!(padding.is_empty() && all > 10_000, "it has all that it wants");
    let (padding, all) = padded(Preferences::default(), Kind::Audio, 3000);
    assert!(padding.is_empty() && all > 10_000, "sound alone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a subscriber says of its line, the budget keeps its bounds and media goes on.
    #[test]
    fn no_feedback_breaks_anything(
        bodies in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u32>(), prop::collection::vec(any::<u8>(), 4..60)), 1..30),
    ) {
        let (mut bench, mut publisher, mut subscriber) = pair();
        for (seq, (base, count, reference, mut rest)) in (1..).zip(bodies) {
            publisher.send(&mut bench, &video(5, seq, true));
            rest.resize(rest.len().next_multiple_of(4), 0);
            let [a, b, c, d] = reference.to_be_bytes();
            let base = base % 64;
            let words = (4 + rest.len() / 4) as u16;
            let mut compound = vec![0x8F, 205];
            compound.extend(words.to_be_bytes());
            compound.extend([0, 0, 0, 1, 0, 0, 0, 2]);
            compound.extend(base.to_be_bytes());
            compound.extend((count % 100).to_be_bytes());
            compound.extend([a, b, c, d]);
            compound.extend(rest);
            subscriber.send_raw_rtcp(&mut bench, &compound);
            bench.run(ms(u64::from(count % 300)));
            let told = bench.worker.peer_statistics(PeerId(2)).unwrap();
            let paused = told.subscriptions.iter().any(|s| s.held_back == HeldBack::Paused);
            let waits = told.pacer.is_some_and(|pacer| pacer.waiting.packets > 0);
            prop_assert!(paused || waits || !subscriber.media(&mut bench).is_empty());
            let budget = budget_bps(&bench);
            prop_assert!(budget.is_none_or(|bps| (40_000..100_000_000).contains(&bps)), "{budget:?}");
        }
        // Whatever waits for the line, it does not for long.
        bench.run(ms(1000));
        let told = bench.worker.peer_statistics(PeerId(2)).unwrap();
        prop_assert!(told.pacer.is_none_or(|pacer| pacer.waiting.packets == 0));
    }
}
