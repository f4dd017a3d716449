//! Many sources, one outgoing stream.

use crate::command::{Command, Encoding, Kind, Preferences, PublicationId, SubscriptionId};
use crate::drop::DropReason;
use crate::limits::ENCODING_IDLE;
use crate::testing::{Bench, Client, IDS, Sent, VP8, encoding, ms, packet, read, vp8};
use proptest::prelude::*;
use std::collections::BTreeMap;
use strait_wire::codec::vp8::Descriptor;
use strait_wire::rtcp;

fn video(ssrc: u32, seq: u16, timestamp: u32, key_frame: bool) -> Vec<u8> {
    packet((ssrc, VP8, seq, timestamp), &[], &vp8(seq, seq as u8, key_frame))
}

/// Sequence number, timestamp, picture id and TL0PICIDX of the only packet that came.
fn only(bench: &mut Bench, client: &mut Client) -> (u16, u32, u16, u8) {
    let media = client.media(bench);
    assert_eq!(media.len(), 1);
    let packet = read(&media[0]);
    let descriptor = Descriptor::parse(packet.payload()).unwrap();
    (
        packet.seq(),
        packet.timestamp(),
        descriptor.picture_id.unwrap().value(),
        descriptor.tl0_pic_idx.unwrap(),
    )
}

fn prefer(layer_max: u8) -> Command {
    Command::SetPreferences {
        subscription: SubscriptionId(1),
        preferences: Preferences { layer_max: Some(layer_max), ..Preferences::default() },
    }
}

/// Layers with SSRCs 50 and 60 as publication 1.
fn simulcast() -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    let layer = |rid: &str, ssrc| Encoding { rid: rid.into(), ssrc, rtx_ssrc: 0 };
    publisher.publish(&mut bench, 1, Kind::Video, &[layer("q", 50), layer("f", 60)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    bench.sent();
    (bench, publisher, subscriber)
}

#[test]
fn a_switch_of_layer_continues_all_numbers() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    publisher.send(&mut bench, &video(60, 7, 90_000, true));
    assert_eq!(only(&mut bench, &mut subscriber), (100, 90_000, 7, 7));
    publisher.send(&mut bench, &video(50, 1000, 5, false));
    assert!(subscriber.media(&mut bench).is_empty());
    bench.command(prefer(0));
    bench.advance(ms(100));
    publisher.send(&mut bench, &video(60, 8, 99_000, false));
    assert_eq!(only(&mut bench, &mut subscriber), (101, 99_000, 8, 8), "until the key frame");
    bench.advance(ms(10));
    publisher.send(&mut bench, &video(50, 1001, 1005, true));
    assert_eq!(only(&mut bench, &mut subscriber), (102, 99_900, 9, 9));
    publisher.send(&mut bench, &video(60, 9, 102_000, false));
    assert!(subscriber.media(&mut bench).is_empty());
    publisher.send(&mut bench, &video(50, 1002, 4005, false));
    assert_eq!(only(&mut bench, &mut subscriber), (103, 102_900, 10, 10));
}

#[test]
fn sender_reports_align_the_layers() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    let ntp = 77_u64 << 32;
    publisher.send_rtcp(&mut bench, |rtcp| {
        rtcp.sender_report(60, ntp, 90_000, 0, 0, &[]).unwrap();
        // Half a second later in the sender's clock.
        rtcp.sender_report(50, ntp + (1 << 31), 5_000, 0, 0, &[]).unwrap();
    });
    publisher.send(&mut bench, &video(60, 7, 90_000, true));
    only(&mut bench, &mut subscriber);
    bench.command(prefer(0));
    bench.advance(ms(520));
    publisher.send(&mut bench, &video(50, 1000, 5_000 + 900, true));
    let (_, timestamp, ..) = only(&mut bench, &mut subscriber);
    assert_eq!(timestamp, 90_000 + 45_000 + 900, "by the reports, not by the arrival");
}

#[test]
fn a_layer_that_stops_is_left_and_a_better_one_is_entered() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    publisher.send(&mut bench, &video(60, 7, 0, true));
    bench.run(ENCODING_IDLE);
    bench.sent();
    publisher.send(&mut bench, &video(50, 1000, 0, false));
    let sent = bench.sent();
    let (_, reports) = publisher.open(&sent);
    let asked = reports
        .iter()
        .flat_map(|report| rtcp::packets(report))
        .any(|packet| matches!(packet, Ok(rtcp::Packet::Pli(pli)) if pli.media_ssrc == 50));
    assert!(asked, "a key frame of the layer that is left");
    publisher.send(&mut bench, &video(50, 1001, 0, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 101);
    publisher.send(&mut bench, &video(60, 8, 0, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 102);
}

#[test]
fn a_layer_that_stops_beside_another_is_left_soon() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    for seq in 0..20 {
        publisher.send(&mut bench, &video(60, seq, 0, seq == 0));
        publisher.send(&mut bench, &video(50, seq, 0, seq == 0));
        assert_eq!(only(&mut bench, &mut subscriber).0, 100 + seq);
        bench.run(ms(40));
        bench.sent();
    }
    let mut asked_after = None;
    for seq in 20..60 {
        publisher.send(&mut bench, &video(50, seq, 0, false));
        if asks_for_key_frame(&mut publisher, &bench.sent(), 50) {
            asked_after = Some((seq - 19) * 40);
            break;
        }
        bench.run(ms(40));
    }
    assert_eq!(asked_after, Some(520));
    publisher.send(&mut bench, &video(50, 99, 0, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 120);
}

#[test]
fn few_pictures_per_second_are_no_layer_that_stops() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    for seq in 0..3 {
        publisher.send(&mut bench, &video(60, seq, 0, seq == 0));
        publisher.send(&mut bench, &video(50, seq, 0, seq == 0));
        assert_eq!(only(&mut bench, &mut subscriber).0, 100 + seq);
        bench.run(ms(1000));
        bench.sent();
    }
    // The other one's picture comes first: it does not tell that this one's does not come.
    for seq in 3..10 {
        publisher.send(&mut bench, &video(50, seq, 0, false));
        let asked = asks_for_key_frame(&mut publisher, &bench.sent(), 50);
        assert!(!asked, "nobody moves to it");
        bench.advance(ms(3));
        publisher.send(&mut bench, &video(60, seq, 0, false));
        assert_eq!(only(&mut bench, &mut subscriber).0, 100 + seq);
        bench.run(ms(1000));
        bench.sent();
    }
}

#[test]
fn late_packets_from_before_a_switch_still_fit() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    publisher.send(&mut bench, &video(60, 7, 0, true));
    publisher.send(&mut bench, &video(60, 9, 0, false));
    bench.command(prefer(0));
    publisher.send(&mut bench, &video(50, 1, 0, true));
    subscriber.media(&mut bench);
    publisher.send(&mut bench, &video(60, 8, 0, false));
    assert_eq!(only(&mut bench, &mut subscriber).0, 101, "between the two that it was between");
    publisher.send(&mut bench, &video(60, 10, 0, false));
    assert!(subscriber.media(&mut bench).is_empty(), "after the switch");
}

#[test]
fn a_rebound_subscription_continues() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(50)]);
    publisher.publish(&mut bench, 2, Kind::Video, &[encoding(60)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    publisher.send(&mut bench, &video(50, 7, 1000, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 100);
    let bind = |publication: Option<u32>| Command::Bind {
        subscription: SubscriptionId(1),
        publication: publication.map(PublicationId),
    };
    bench.command(bind(None));
    publisher.send(&mut bench, &video(50, 8, 1000, true));
    assert!(subscriber.media(&mut bench).is_empty());
    bench.command(bind(Some(2)));
    bench.advance(ms(1000));
    publisher.send(&mut bench, &video(60, 500, 0, true));
    assert_eq!(only(&mut bench, &mut subscriber), (101, 91_000, 8, 8));
    bench.command(bind(Some(1)));
    publisher.send(&mut bench, &video(50, 9, 3000, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 102);
    bench.command(Command::Unpublish { publication: PublicationId(1) });
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(50)]);
    bench.command(bind(Some(1)));
    publisher.send(&mut bench, &video(50, 10, 3000, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 103, "the same name is another source");
}

#[test]
fn mute_holds_back_and_resumes_on_a_key_frame() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    let mute = |muted| Command::SetMuted { publication: PublicationId(1), muted };
    publisher.send(&mut bench, &video(60, 7, 0, true));
    only(&mut bench, &mut subscriber);
    bench.command(mute(true));
    publisher.send(&mut bench, &video(60, 8, 0, false));
    bench.command(mute(false));
    publisher.send(&mut bench, &video(60, 9, 0, false));
    assert!(subscriber.media(&mut bench).is_empty());
    publisher.send(&mut bench, &video(60, 10, 0, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 101);
}

#[test]
fn packets_that_only_pad_keep_their_number_and_lose_their_padding() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    publisher.send(&mut bench, &video(60, 7, 0, true));
    let mut padding = packet((60, VP8, 8, 0), &[(IDS.mid, b"1")], &[0, 0, 0, 4]);
    padding[0] |= 0x20;
    publisher.send(&mut bench, &padding);
    publisher.send(&mut bench, &video(60, 9, 0, false));
    let media = subscriber.media(&mut bench);
    let seen: Vec<_> = media.iter().map(|b| (read(b).seq(), read(b).payload().len())).collect();
    assert_eq!(seen, [(100, 12), (101, 0), (102, 12)]);
    assert!(!read(&media[1]).has_padding());
}

/// One step of a publisher with two layers and a second publication, and of who watches.
#[derive(Clone, Debug)]
enum Step {
    /// A frame of one packet per layer; which of them the network loses, and which it delays by a few.
    Frames {
        lost: [bool; 3],
        late: [bool; 3],
        key_frame: bool,
    },
    Prefer(u8),
    Pause(bool),
    Mute(bool),
    Bind(Option<u32>),
    Nack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mostly_not = || prop::array::uniform3(prop::bool::weighted(0.15));
    let frames = (mostly_not(), mostly_not(), prop::bool::weighted(0.2));
    let step = (0_u8..28, frames, any::<bool>()).prop_map(|(choice, frames, yes)| match choice {
        0 => Step::Prefer(u8::from(yes)),
        1 => Step::Pause(yes),
        2 => Step::Mute(yes),
        3 => Step::Bind(None),
        4 => Step::Bind(Some(1 + u32::from(yes))),
        5 | 6 => Step::Nack,
        _ => {
            let (lost, late, key_frame) = frames;
            Step::Frames { lost, late, key_frame }
        }
    });
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Through loss, reordering, switches of layer, pauses, mutes and rebinding the subscriber sees one stream: every
    /// number once, time never backwards, pictures in order, and no source's packet twice.
    #[test]
    fn the_outgoing_stream_is_one(steps in steps(), starts in prop::array::uniform3(any::<u16>())) {
        let mut bench = Bench::new();
        let mut publisher = Client::connected(&mut bench, 1);
        let mut subscriber = Client::connected(&mut bench, 2);
        let layer = |rid: &str, ssrc| Encoding { rid: rid.into(), ssrc, rtx_ssrc: 0 };
        publisher.publish(&mut bench, 1, Kind::Video, &[layer("q", 50), layer("f", 60)]);
        publisher.publish(&mut bench, 2, Kind::Video, &[encoding(70)]);
        subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
        let subscription = SubscriptionId(1);
        let mut preferences = Preferences::default();
        let mut late_packets = Vec::new();
        let mut got: BTreeMap<i64, (u32, i64)> = BTreeMap::new();
        let (mut newest, mut newest_picture) = (99_i64, -1_i64);
        let mut frame = 0_u16;
        for step in steps {
            match step {
                Step::Frames { lost, late, key_frame } => {
                    frame += 1;
                    let due = std::mem::take(&mut late_packets);
                    for (number, ssrc) in [(0, 50), (1, 60), (2, 70)] {
                        // Below 2^15, as RFC 3711 wants a sender to begin.
                        let seq = (starts[number] >> 1).wrapping_add(frame);
                        let timestamp = u32::from(starts[number]) * 7919 + u32::from(frame) * 3000;
                        let bytes = publisher.protect(&video(ssrc, seq, timestamp, key_frame));
                        match (lost[number], late[number]) {
                            (true, _) => {}
                            (_, true) => late_packets.push(bytes),
                            _ => bench.receive(publisher.path, &bytes),
                        }
                    }
                    due.iter().for_each(|bytes| bench.receive(publisher.path, bytes));
                    bench.run(ms(33));
                }
                Step::Prefer(layer_max) => preferences.layer_max = Some(layer_max),
                Step::Pause(paused) => preferences.paused = paused,
                Step::Mute(muted) => {
                    bench.command(Command::SetMuted { publication: PublicationId(1), muted });
                }
                Step::Bind(publication) => {
                    let publication = publication.map(PublicationId);
                    bench.command(Command::Bind { subscription, publication });
                }
                Step::Nack => subscriber.send_rtcp(&mut bench, |rtcp| {
                    rtcp.nack(1, 1001, (0..20_u16).map(|back| newest as u16 - back)).unwrap();
                }),
            }
            bench.command(Command::SetPreferences { subscription, preferences });
            // The far side's own replay window would refuse a number that comes twice.
            for bytes in subscriber.media(&mut bench) {
                let packet = read(&bytes);
                if packet.ssrc() != 1001 {
                    continue;
                }
                let step = packet.seq().wrapping_sub(newest as u16).cast_signed();
                let seq = newest + i64::from(step);
                newest = newest.max(seq);
                let picture = Descriptor::parse(packet.payload()).unwrap().picture_id.unwrap();
                let near = newest_picture.max(0);
                let step = (picture.value().wrapping_sub(near as u16) << 1).cast_signed() >> 1;
                let picture = if got.is_empty() {
                    i64::from(picture.value())
                } else {
                    near + i64::from(step)
                };
                newest_picture = newest_picture.max(picture);
                prop_assert!(got.insert(seq, (packet.timestamp(), picture)).is_none());
            }
        }
        if let Some((first, _)) = got.first_key_value() {
            prop_assert_eq!(*first, 100, "the first number that was handed out");
        }
        let pairs = got.values().zip(got.values().skip(1));
        for ((time, picture), (next_time, next_picture)) in pairs {
            prop_assert!(next_time.wrapping_sub(*time).cast_signed() > 0, "{} {}", time, next_time);
            prop_assert!(next_picture > picture, "{} {}", picture, next_picture);
        }
    }
}
#[test]
fn a_hole_that_the_stream_closes_over_ends_with_a_key_frame() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    publisher.send(&mut bench, &video(60, 7, 0, true));
    only(&mut bench, &mut subscriber);
    bench.advance(ms(600));
    // The publisher's network was away: the decoder would not see that its references are missing.
    publisher.send(&mut bench, &video(60, 5000, 900_000, false));
    let sent = bench.sent();
    assert!(subscriber.open(&sent).0.is_empty());
    assert!(asks_for_key_frame(&mut publisher, &sent, 60));
    publisher.send(&mut bench, &video(60, 5001, 903_000, false));
    assert!(subscriber.media(&mut bench).is_empty());
    publisher.send(&mut bench, &video(60, 5002, 906_000, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 101);
}

#[test]
fn a_new_ssrc_of_a_layer_is_entered_by_a_key_frame() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[Encoding::default()]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    publisher.send(&mut bench, &video(60, 7, 0, true));
    only(&mut bench, &mut subscriber);
    bench.run(ENCODING_IDLE);
    bench.sent();
    publisher.send(&mut bench, &video(70, 1, 0, false));
    let sent = bench.sent();
    assert!(subscriber.open(&sent).0.is_empty(), "its key frame was lost, or is late");
    assert!(asks_for_key_frame(&mut publisher, &sent, 70));
    publisher.send(&mut bench, &video(70, 2, 0, true));
    assert_eq!(only(&mut bench, &mut subscriber).0, 101);
}

#[test]
fn a_key_frame_that_nobody_waits_for_any_more_is_not_asked_for() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    publisher.send(&mut bench, &video(60, 7, 0, true));
    publisher.send(&mut bench, &video(50, 7, 0, true));
    bench.run(ms(600));
    bench.sent();
    // The best layer stops; the subscriber complains about it, and is moved to another one.
    subscriber.send_rtcp(&mut bench, |rtcp| rtcp.pli(1, 1001).unwrap());
    assert!(asks_for_key_frame(&mut publisher, &bench.sent(), 60));
    bench.run(ENCODING_IDLE);
    publisher.send(&mut bench, &video(50, 8, 0, true));
    bench.sent();
    for seq in 9..29 {
        bench.run(ms(100));
        publisher.send(&mut bench, &video(50, seq, 0, false));
        let sent = bench.sent();
        assert!(!asks_for_key_frame(&mut publisher, &sent, 60), "of a layer that nobody is on");
    }
}

#[test]
fn a_muted_publisher_is_not_asked_for_key_frames() {
    let (mut bench, mut publisher, mut subscriber) = simulcast();
    publisher.send(&mut bench, &video(60, 7, 0, true));
    subscriber.send_rtcp(&mut bench, |rtcp| rtcp.pli(1, 1001).unwrap());
    bench.command(Command::SetMuted { publication: PublicationId(1), muted: true });
    bench.sent();
    bench.run(ms(2000));
    let sent = bench.sent();
    assert!(!asks_for_key_frame(&mut publisher, &sent, 60));
    bench.command(Command::SetMuted { publication: PublicationId(1), muted: false });
    let sent = bench.sent();
    assert!(asks_for_key_frame(&mut publisher, &sent, 60));
}

fn asks_for_key_frame(publisher: &mut Client, sent: &[Sent], ssrc: u32) -> bool {
    let (_, reports) = publisher.open(sent);
    reports
        .iter()
        .flat_map(|report| rtcp::packets(report))
        .any(|packet| matches!(packet, Ok(rtcp::Packet::Pli(pli)) if pli.media_ssrc == ssrc))
}

#[test]
fn what_comes_late_of_an_ended_stream_is_not_taken_for_the_next_one() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(50)]);
    publisher.send(&mut bench, &video(50, 7, 0, true));
    let again = publisher.protect(&video(50, 8, 0, false));
    bench.receive(publisher.path, &again);
    bench.command(Command::Unpublish { publication: PublicationId(1) });
    publisher.publish(&mut bench, 2, Kind::Video, &[encoding(0)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(2));
    bench.sent();
    bench.drops(DropReason::StreamUnknown, |bench| {
        publisher.send(bench, &video(50, 9, 0, true));
    });
    bench.drops(DropReason::SrtpReplay, |bench| bench.receive(publisher.path, &again));
    publisher.send(&mut bench, &video(60, 1, 0, true));
    assert_eq!(subscriber.media(&mut bench).len(), 1, "the new stream is learned at once");
    // The same MID again takes up the SSRC that it had, though no packet says so.
    bench.command(Command::Unpublish { publication: PublicationId(2) });
    publisher.publish(&mut bench, 2, Kind::Video, &[encoding(0)]);
    bench.command(Command::Bind {
        subscription: SubscriptionId(1),
        publication: Some(PublicationId(2)),
    });
    publisher.send(&mut bench, &video(60, 2, 3000, true));
    assert_eq!(subscriber.media(&mut bench).len(), 1);
}
