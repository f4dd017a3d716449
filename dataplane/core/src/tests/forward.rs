//! One publisher, one subscriber.

use crate::command::{Command, Encoding, Event, Kind, Preferences, PublicationId, SubscriptionId};
use crate::drop::DropReason;
use crate::limits::ENCODING_IDLE;
use crate::testing::{
    Bench, Client, IDS, OPUS, VP8, VP8_RTX, encoding, ms, packet, publish, read, vp8,
};
use strait_wire::rtcp;

/// A publisher of video with SSRC 5 as publication 1, and a subscriber to it by subscription 1.
fn pair() -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    bench.sent();
    bench.events();
    (bench, publisher, subscriber)
}

fn video(seq: u16, key_frame: bool) -> Vec<u8> {
    packet((5, VP8, seq, u32::from(seq) * 3000), &[(IDS.mid, b"1")], &vp8(seq, 0, key_frame))
}

/// The key-frame requests that the publisher got.
fn requests(client: &mut Client, bench: &mut Bench) -> usize {
    let sent = bench.sent();
    let (_, reports) = client.open(&sent);
    let packets = reports.iter().flat_map(|report| rtcp::packets(report));
    packets.filter(|packet| matches!(packet, Ok(rtcp::Packet::Pli(_)))).count()
}

#[test]
fn media_is_rewritten_for_the_subscribers_leg() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send(&mut bench, &video(7, true));
    let sent = bench.sent();
    let (media, _) = subscriber.open(&sent);
    let packet = read(&media[0]);
    assert_eq!((packet.ssrc(), packet.pt(), packet.seq()), (1001, VP8 + 10, 100));
    assert_eq!(packet.payload(), vp8(7, 0, true));
    assert!(packet.marker());
    assert_eq!(packet.extension(IDS.mid), Some(&b"s1"[..]), "the leg's own");
    let time = strait_wire::ext::AbsSendTime::from_ntp(bench.now.ntp).bytes();
    assert_eq!(packet.extension(IDS.abs_send_time), Some(&time[..]), "fresh");
    assert_eq!(packet.extension(IDS.rid), None);
    assert_eq!(bench.events(), [Event::PublicationStarted { publication: PublicationId(1) }]);
}

#[test]
fn video_starts_on_a_key_frame_that_is_asked_for() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    bench.drops(DropReason::NotSelected, |bench| publisher.send(bench, &video(7, false)));
    publisher.send(&mut bench, &video(8, true));
    publisher.send(&mut bench, &video(9, false));
    let media = subscriber.media(&mut bench);
    assert_eq!(media.iter().map(|bytes| read(bytes).seq()).collect::<Vec<_>>(), [100, 101]);
}

#[test]
fn a_subscription_asks_for_a_key_frame_at_once() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    assert_eq!(requests(&mut publisher, &mut bench), 1);
    bench.run(ms(400));
    assert_eq!(requests(&mut publisher, &mut bench), 0);
    bench.run(ms(200));
    assert_eq!(requests(&mut publisher, &mut bench), 1, "repeated until one comes");
    publisher.send(&mut bench, &video(7, true));
    bench.run(ms(2000));
    assert_eq!(requests(&mut publisher, &mut bench), 0);
}

#[test]
fn many_subscribers_ask_for_one_key_frame() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    let mut subscribers: Vec<_> = (2..12).map(|id| Client::connected(&mut bench, id)).collect();
    for (subscription, subscriber) in (1..).zip(&subscribers) {
        subscriber.subscribe(&mut bench, subscription, Kind::Video, Some(1));
    }
    assert_eq!(requests(&mut publisher, &mut bench), 1);
    publisher.send(&mut bench, &video(1, true));
    bench.run(ms(600));
    bench.sent();
    for (subscription, subscriber) in (1..).zip(&mut subscribers) {
        subscriber.send_rtcp(&mut bench, |rtcp| rtcp.pli(9, 1000 + subscription).unwrap());
        subscriber.send_rtcp(&mut bench, |rtcp| rtcp.fir(9, 1000 + subscription, 1).unwrap());
    }
    assert_eq!(requests(&mut publisher, &mut bench), 1);
    let statistics = bench.worker.peer_statistics(publisher.id).unwrap();
    let encoding = &statistics.publications[0].encodings[0];
    assert_eq!((encoding.key_frames, encoding.key_frame_requests), (1, 2));
}

#[test]
fn fir_is_sent_where_only_that_was_agreed() {
    for (pli, fir) in [(false, true), (false, false)] {
        let mut bench = Bench::new();
        let mut publisher = Client::connected(&mut bench, 1);
        let subscriber = Client::connected(&mut bench, 2);
        let mut command = publish(publisher.id, 1, Kind::Video, &[encoding(5)]);
        if let Command::Publish { codecs, .. } = &mut command {
            codecs.iter_mut().for_each(|codec| (codec.pli, codec.fir) = (pli, fir));
        }
        bench.command(command);
        subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
        publisher.send(&mut bench, &video(1, false));
        bench.run(ms(600));
        let sent = bench.sent();
        let (_, reports) = publisher.open(&sent);
        let packets = reports.iter().flat_map(|report| rtcp::packets(report));
        let commands: Vec<_> = packets
            .filter_map(|packet| match packet {
                Ok(rtcp::Packet::Fir(fir)) => fir.entries().next().map(|e| (e.ssrc, e.seq)),
                _ => None,
            })
            .collect();
        let expected: &[_] = if fir { &[(5, 1), (5, 2)] } else { &[] };
        assert_eq!(commands, expected);
    }
}

#[test]
fn audio_passes_at_once_with_its_level() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Audio, &[encoding(5)]);
    subscriber.subscribe(&mut bench, 1, Kind::Audio, Some(1));
    let bytes = packet((5, OPUS, 7, 960), &[(IDS.audio_level, &[0x85])], &[1, 2, 3]);
    publisher.send(&mut bench, &bytes);
    let media = subscriber.media(&mut bench);
    assert_eq!(read(&media[0]).extension(IDS.audio_level), Some(&[0x85][..]));
    assert_eq!(read(&media[0]).payload(), [1, 2, 3]);
}

#[test]
fn each_kind_of_unusable_packet_has_its_reason() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    let mut keyless = Client::added(&mut bench, 3);
    keyless.check(&mut bench);
    bench.drops(DropReason::NoKeys, |bench| keyless.send(bench, &video(1, true)));
    let mut stranger = Client::connected(&mut bench, 4);
    stranger.path = publisher.path;
    bench.drops(DropReason::SrtpAuthentication, |bench| stranger.send(bench, &video(1, true)));
    let bytes = publisher.protect(&video(1, true));
    bench.receive(publisher.path, &bytes);
    bench.drops(DropReason::SrtpReplay, |bench| bench.receive(publisher.path, &bytes));
    let unknown = packet((77, 50, 1, 0), &[], &[1]);
    bench.drops(DropReason::StreamUnknown, |bench| publisher.send(bench, &unknown));
    let unknown = packet((5, 50, 2, 0), &[], &[1]);
    bench.drops(DropReason::PayloadTypeUnknown, |bench| publisher.send(bench, &unknown));
    let probe = packet((6, VP8_RTX, 1, 0), &[], &[]);
    bench.drops(DropReason::RtxPadding, |bench| publisher.send(bench, &probe));
    bench.drops(DropReason::RtpMalformed, |bench| bench.receive(publisher.path, &[0x8F; 40]));
    let mut padded = video(3, false);
    padded[0] |= 0x20;
    *padded.last_mut().unwrap() = 0;
    bench.drops(DropReason::RtpMalformed, |bench| publisher.send(bench, &padded));
    publisher.send(&mut bench, &video(2000, false));
    let late = [&[0, 4][..], &vp8(4, 0, false)].concat();
    let late = packet((6, VP8_RTX, 2, 0), &[], &late);
    bench.drops(DropReason::PacketTooLate, |bench| publisher.send(bench, &late));
    let again = [&2000_u16.to_be_bytes()[..], &vp8(4, 0, false)].concat();
    let again = packet((6, VP8_RTX, 3, 0), &[], &again);
    bench.drops(DropReason::PacketDuplicate, |bench| publisher.send(bench, &again));
    let broken = [&[0x80, 201, 0, 1, 0, 0, 0, 9][..], &[0x81, 201, 0, 90, 0, 0, 0, 9]].concat();
    bench.drops(DropReason::RtcpMalformed, |bench| subscriber.send_raw_rtcp(bench, &broken));
    bench.command(Command::SetMuted { publication: PublicationId(1), muted: true });
    let bytes = video(2001, true);
    bench.drops(DropReason::PublicationMuted, |bench| publisher.send(bench, &bytes));
    bench.command(Command::SetMuted { publication: PublicationId(1), muted: false });
    bench.command(Command::Unsubscribe { subscription: SubscriptionId(1) });
    let bytes = video(2002, true);
    bench.drops(DropReason::NoSubscriber, |bench| publisher.send(bench, &bytes));
}

#[test]
fn an_unready_subscriber_is_no_ones_problem() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::added(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    publisher.send(&mut bench, &video(1, true));
    assert_eq!(bench.dropped(DropReason::SubscriberNotReady), 1);
    subscriber.check(&mut bench);
    bench.command(subscriber.set_keys());
    let shown = subscriber.media(&mut bench);
    assert_eq!(read(&shown[0]).seq(), 100, "out of the cache, and nothing was used up before");
    publisher.send(&mut bench, &video(2, true));
    assert_eq!(read(&subscriber.media(&mut bench)[0]).seq(), 101);
}

#[test]
fn ssrcs_are_learned_by_mid_and_rid() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::connected(&mut bench, 2);
    let layer = |rid: &str| Encoding { rid: rid.into(), ssrc: 0, rtx_ssrc: 0 };
    publisher.publish(&mut bench, 1, Kind::Video, &[layer("q"), layer("f")]);
    publisher.publish(&mut bench, 2, Kind::Video, &[Encoding::default()]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    subscriber.subscribe(&mut bench, 2, Kind::Video, Some(2));
    let ids = |mid: &'static [u8], rid: &'static [u8]| [(IDS.mid, mid), (IDS.rid, rid)];
    let full = packet((50, VP8, 1, 0), &ids(b"1", b"f"), &vp8(1, 0, true));
    publisher.send(&mut bench, &full);
    let other = packet((60, VP8, 1, 0), &[(IDS.mid, b"2")], &vp8(1, 0, true));
    publisher.send(&mut bench, &other);
    let unmarked = packet((50, VP8, 2, 0), &[], &vp8(2, 0, false));
    publisher.send(&mut bench, &unmarked);
    let media = subscriber.media(&mut bench);
    let ssrcs: Vec<u32> = media.iter().map(|bytes| read(bytes).ssrc()).collect();
    assert_eq!(ssrcs, [1001, 1002, 1001]);
    for stray in [
        packet((71, VP8, 1, 0), &ids(b"1", b"x"), &vp8(1, 0, true)),
        packet((72, VP8, 1, 0), &[(IDS.mid, b"1")], &vp8(1, 0, true)),
        packet((73, VP8, 1, 0), &[(IDS.mid, b"9")], &vp8(1, 0, true)),
        packet((74, VP8, 1, 0), &[], &vp8(1, 0, true)),
        // This layer has a sender already, and it is not silent.
        packet((75, VP8, 1, 0), &ids(b"1", b"f"), &vp8(1, 0, true)),
    ] {
        bench.drops(DropReason::StreamUnknown, |bench| publisher.send(bench, &stray));
    }
    bench.run(ENCODING_IDLE);
    bench.sent();
    let moved = packet((76, VP8, 9, 0), &ids(b"1", b"f"), &vp8(1, 0, true));
    publisher.send(&mut bench, &moved);
    let media = subscriber.media(&mut bench);
    assert_eq!(read(&media[0]).seq(), 102, "the stream continues");
}

#[test]
fn a_paused_subscription_gets_nothing_and_continues_without_a_gap() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send(&mut bench, &video(1, true));
    let pause = |paused| Command::SetPreferences {
        subscription: SubscriptionId(1),
        preferences: Preferences { paused, ..Preferences::default() },
    };
    bench.command(pause(true));
    publisher.send(&mut bench, &video(2, false));
    bench.advance(ms(600));
    bench.command(pause(false));
    publisher.send(&mut bench, &video(3, false));
    publisher.send(&mut bench, &video(4, true));
    let sent = bench.sent();
    let (media, _) = subscriber.open(&sent);
    assert_eq!(media.iter().map(|bytes| read(bytes).seq()).collect::<Vec<_>>(), [100, 101]);
    let (_, reports) = publisher.open(&sent);
    assert!(!reports.is_empty(), "a key frame was asked for");
}
