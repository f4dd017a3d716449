//! Joiners that are shown the last key frame out of the cache.

use crate::command::{Command, Kind, Preferences, PublicationId, SubscriptionId};
use crate::limits::{KEY_FRAME_AGE, KEY_FRAME_PACKETS};
use crate::testing::{Bench, Client, VP8, encoding, ms, packet, read, vp8};
use crate::time::{Duration, Instant};
use strait_wire::rtcp;

const SSRC: u32 = 50;

fn video(seq: u16, timestamp: u32, key_frame: bool) -> Vec<u8> {
    packet((SSRC, VP8, seq, timestamp), &[], &vp8(seq, seq as u8, key_frame))
}

/// Somebody who publishes and somebody who watches, so that packets are kept.
fn call() -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let publisher = Client::connected(&mut bench, 1);
    let watcher = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(SSRC)]);
    watcher.subscribe(&mut bench, 2, Kind::Video, Some(1));
    bench.sent();
    (bench, publisher, watcher)
}

/// Whether the publisher was asked for a key frame, and what came to somebody: number, timestamp, picture id.
fn seen(
    bench: &mut Bench,
    publisher: &mut Client,
    who: &mut Client,
) -> (bool, Vec<(u16, u32, u16)>) {
    let sent = bench.sent();
    let (_, reports) = publisher.open(&sent);
    let mut packets = reports.iter().flat_map(|report| rtcp::packets(report));
    let asked = packets.any(|packet| matches!(packet, Ok(rtcp::Packet::Pli(_))));
    let media = who.open(&sent).0;
    let of = |bytes: &Vec<u8>| {
        let packet = read(bytes);
        let descriptor = strait_wire::codec::vp8::Descriptor::parse(packet.payload()).unwrap();
        (packet.seq(), packet.timestamp(), descriptor.picture_id.unwrap().value())
    };
    (asked, media.iter().map(of).collect())
}

#[test]
fn a_joiner_sees_the_last_key_frame_and_what_followed() {
    let (mut bench, mut publisher, _watcher) = call();
    let mut joiner = Client::connected(&mut bench, 3);
    publisher.send(&mut bench, &video(6, 87_000, false));
    publisher.send(&mut bench, &video(7, 90_000, true));
    bench.advance(ms(33));
    publisher.send(&mut bench, &video(8, 93_000, false));
    bench.advance(ms(500));
    bench.sent();
    joiner.subscribe(&mut bench, 3, Kind::Video, Some(1));
    let shown = seen(&mut bench, &mut publisher, &mut joiner);
    assert_eq!(shown, (false, vec![(100, 90_000, 7), (101, 93_000, 8)]), "the source's times");
    publisher.send(&mut bench, &video(9, 138_000, false));
    let goes_on = seen(&mut bench, &mut publisher, &mut joiner);
    assert_eq!(goes_on, (false, vec![(102, 138_000, 9)]));
    // What it missed of the burst comes again.
    joiner.send_rtcp(&mut bench, |rtcp| rtcp.nack(1, 1003, [101]).unwrap());
    assert_eq!(joiner.media(&mut bench).len(), 1);
    let statistics = bench.worker.peer_statistics(publisher.id).unwrap();
    assert_eq!(statistics.publications[0].encodings[0].key_frames_shown, 1);
}

#[test]
fn an_old_key_frame_or_one_with_holes_is_not_shown() {
    let old = |bench: &mut Bench, publisher: &mut Client| {
        publisher.send(bench, &video(7, 0, true));
        bench.advance(KEY_FRAME_AGE + ms(1));
    };
    let long = |bench: &mut Bench, publisher: &mut Client| {
        for seq in 0..=KEY_FRAME_PACKETS as u16 {
            publisher.send(bench, &video(seq, 0, seq == 0));
        }
    };
    let holed = |bench: &mut Bench, publisher: &mut Client| {
        publisher.send(bench, &video(7, 0, true));
        publisher.send(bench, &video(9, 0, false));
    };
    let muted = |bench: &mut Bench, publisher: &mut Client| {
        let mute = |muted| Command::SetMuted { publication: PublicationId(1), muted };
        bench.command(mute(true));
        publisher.send(bench, &video(7, 0, true));
        bench.command(mute(false));
    };
    type Before<'a> = &'a dyn Fn(&mut Bench, &mut Client);
    let cases: [(&str, Before<'_>); 4] =
        [("old", &old), ("long", &long), ("with a hole", &holed), ("muted", &muted)];
    for (what, before) in cases {
        let (mut bench, mut publisher, _watcher) = call();
        let mut joiner = Client::connected(&mut bench, 3);
        before(&mut bench, &mut publisher);
        bench.advance(ms(600));
        bench.sent();
        joiner.subscribe(&mut bench, 3, Kind::Video, Some(1));
        let (asked, shown) = seen(&mut bench, &mut publisher, &mut joiner);
        assert!(asked && shown.is_empty(), "{what}: {asked} {shown:?}");
    }
}

#[test]
fn a_hole_after_the_key_frame_is_filled_as_with_others() {
    let (mut bench, mut publisher, _watcher) = call();
    let mut joiner = Client::connected(&mut bench, 3);
    publisher.send(&mut bench, &video(7, 0, true));
    publisher.send(&mut bench, &video(8, 3000, false));
    publisher.send(&mut bench, &video(10, 9000, false));
    joiner.subscribe(&mut bench, 3, Kind::Video, Some(1));
    let numbers: Vec<u16> = joiner.media(&mut bench).iter().map(|b| read(b).seq()).collect();
    assert_eq!(numbers, [100, 101, 103]);
    publisher.send(&mut bench, &video(9, 6000, false));
    assert_eq!(joiner.media(&mut bench).iter().map(|b| read(b).seq()).next(), Some(102));
}

#[test]
fn time_never_turns_back() {
    let (mut bench, mut publisher, mut watcher) = call();
    let prefer = |paused| Command::SetPreferences {
        subscription: SubscriptionId(2),
        preferences: Preferences { paused, ..Preferences::default() },
    };
    bench.advance(ms(600));
    publisher.send(&mut bench, &video(7, 0, true));
    bench.advance(ms(33));
    publisher.send(&mut bench, &video(8, 3000, false));
    watcher.media(&mut bench);
    bench.command(prefer(true));
    bench.command(prefer(false));
    let (asked, shown) = seen(&mut bench, &mut publisher, &mut watcher);
    assert!(asked && shown.is_empty(), "it has seen this key frame: {shown:?}");
    bench.command(prefer(true));
    bench.advance(ms(100));
    publisher.send(&mut bench, &video(9, 12_000, true));
    bench.advance(ms(33));
    bench.command(prefer(false));
    let (_, shown) = seen(&mut bench, &mut publisher, &mut watcher);
    assert_eq!(shown, [(102, 12_000, 9)], "a newer one, at its own time");
}

#[test]
fn fifty_joiners_in_a_second_see_a_picture_at_once() {
    /// To the publisher and back.
    const ROUND_TRIP: Duration = ms(100);
    let (mut bench, mut publisher, _watcher) = call();
    let mut joiners: Vec<(Client, Instant, Option<Instant>)> = Vec::new();
    let mut requests: Vec<Instant> = Vec::new();
    let start = bench.now.at;
    // 30 pictures in a second, one joiner each 20 ms, for three seconds; the first picture of all is no key frame.
    for step in 0..300_u32 {
        if step % 2 == 0 && joiners.len() < 50 && step >= 100 {
            let id = 10 + joiners.len() as u32;
            let joiner = Client::connected(&mut bench, id);
            joiner.subscribe(&mut bench, id, Kind::Video, Some(1));
            joiners.push((joiner, bench.now.at, None));
        }
        if step % 3 == 0 {
            let due = requests.last().is_some_and(|at| {
                let since = bench.now.at.since(*at);
                (ROUND_TRIP..ROUND_TRIP + ms(30)).contains(&since)
            });
            publisher.send(&mut bench, &video(step as u16 / 3, step * 900, due));
        }
        let sent = bench.sent();
        let (_, reports) = publisher.open(&sent);
        for packet in reports.iter().flat_map(|report| rtcp::packets(report)) {
            if matches!(packet, Ok(rtcp::Packet::Pli(_))) {
                requests.push(bench.now.at);
            }
        }
        for (joiner, _, first) in &mut joiners {
            if !joiner.open(&sent).0.is_empty() && first.is_none() {
                *first = Some(bench.now.at);
            }
        }
        bench.run(ms(10));
    }
    let waits = joiners.iter().map(|(_, joined, first)| first.unwrap().since(*joined));
    let longest = waits.clone().max().unwrap();
    assert!(longest < ROUND_TRIP + ms(150), "{longest:?}");
    let at_once = waits.filter(|wait| *wait == Duration::ZERO).count();
    assert!(at_once > 30, "{at_once} of them");
    assert!(requests.windows(2).all(|pair| pair[1].since(pair[0]) >= ms(500)), "{requests:?}");
    let during = requests.iter().filter(|at| at.since(start) >= ms(1000)).count();
    assert!(during <= 2, "{during} key frames for fifty joiners");
}
