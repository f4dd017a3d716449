//! A scope on two workers: what subscribers get from a mirror is what they would get at home.

use crate::command::{
    Command, CommandError, Encoding, Kind, PeerId, Preferences, PublicationId, SubscriptionId,
    WorkerId,
};
use crate::drop::DropReason;
use crate::limits::{KEY_FRAME_AGE, MIRRORS_PER_PUBLICATION, PARCEL_ITEMS, PARCELS};
use crate::testing::{
    Bench, Client, IDS, SCOPE, VP8, VP8_RTX, codecs, encoding, ms, packet, path, publish, read,
    subscribe, vp8,
};
use crate::time::Duration;
use strait_wire::rtcp;

const HOME: WorkerId = WorkerId(0);
const AWAY: WorkerId = WorkerId(1);

/// The worker of the publisher, and another one with subscribers.
struct Pair {
    home: Bench,
    away: Bench,
}

impl Pair {
    fn new() -> Self {
        Self { home: Bench::new(), away: Bench::new() }
    }

    /// Carries the parcels until none is left; how many items there were.
    fn carry(&mut self) -> usize {
        let mut items = 0;
        loop {
            let before = items;
            for at_home in [true, false] {
                let (from, to) = match at_home {
                    true => (&mut self.home, &mut self.away),
                    false => (&mut self.away, &mut self.home),
                };
                let (me, other) = if at_home { (HOME, AWAY) } else { (AWAY, HOME) };
                while let Some((worker, mut parcel)) = from.worker.poll_mirrored() {
                    assert_eq!(worker, other);
                    items += parcel.len();
                    to.worker.on_mirrored(to.now, me, &mut parcel, &mut to.egress, |_| {});
                    from.worker.reuse(parcel);
                }
            }
            if items == before {
                return items;
            }
        }
    }

    /// Lets time pass on both, with every timer rung and every parcel carried when it is due.
    fn run(&mut self, by: Duration) {
        let end = self.home.now.at + by;
        loop {
            let due = [self.home.worker.next_timeout(), self.away.worker.next_timeout()];
            let Some(at) = due.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.both(|bench| {
                bench.advance(at.since(bench.now.at));
                bench.worker.on_timeout(bench.now, &mut bench.egress);
                assert!(bench.worker.next_timeout().is_none_or(|next| next > bench.now.at));
            });
            self.carry();
        }
        self.both(|bench| bench.advance(end.since(bench.now.at)));
    }

    fn both(&mut self, act: impl Fn(&mut Bench)) {
        act(&mut self.home);
        act(&mut self.away);
    }

    /// Publication 1 of the publisher gets a mirror.
    fn mirror(&mut self, publisher: PeerId, kind: Kind, encodings: &[Encoding], as_sent: bool) {
        self.away.command(Command::Mirror {
            scope: SCOPE,
            publication: PublicationId(1),
            origin: HOME,
            publisher,
            kind,
            codecs: codecs(kind, 0),
            extensions: IDS,
            encodings: encodings.to_vec(),
            muted: false,
            as_sent,
        });
        self.home.command(Command::StartMirroring { publication: PublicationId(1), to: AWAY });
    }
}

/// A publisher of video on one worker, and a subscriber on another.
fn call(encodings: &[Encoding]) -> (Pair, Client, Client) {
    let mut pair = Pair::new();
    let publisher = Client::connected(&mut pair.home, 1);
    publisher.publish(&mut pair.home, 1, Kind::Video, encodings);
    pair.mirror(publisher.id, Kind::Video, encodings, false);
    let subscriber = Client::connected(&mut pair.away, 2);
    subscriber.subscribe(&mut pair.away, 1, Kind::Video, Some(1));
    (pair, publisher, subscriber)
}

fn video(ssrc: u32, seq: u16, key_frame: bool) -> Vec<u8> {
    packet((ssrc, VP8, seq, u32::from(seq) * 3000), &[(IDS.mid, b"1")], &vp8(seq, 0, key_frame))
}

/// Sends a packet at home; what the subscriber gets for it elsewhere.
fn say(pair: &mut Pair, from: &mut Client, to: &mut Client, bytes: &[u8]) -> Vec<Vec<u8>> {
    from.send(&mut pair.home, bytes);
    pair.carry();
    to.media(&mut pair.away)
}

/// The SSRCs that the publisher is asked for key frames of, and the packets that it is asked for.
fn asked(pair: &mut Pair, publisher: &mut Client) -> (Vec<u32>, Vec<u16>) {
    let sent = pair.home.sent();
    let (_, reports) = publisher.open(&sent);
    let (mut frames, mut packets) = (vec![], vec![]);
    for report in reports.iter().flat_map(|report| rtcp::packets(report)) {
        match report {
            Ok(rtcp::Packet::Pli(pli)) => frames.push(pli.media_ssrc),
            Ok(rtcp::Packet::Nack(nack)) => packets.extend(nack.seqs()),
            _ => {}
        }
    }
    (frames, packets)
}

#[test]
fn a_mirror_forwards_what_its_origin_does() {
    let (mut pair, mut publisher, mut away) = call(&[encoding(5)]);
    let mut home = Client::connected(&mut pair.home, 3);
    home.subscribe(&mut pair.home, 1, Kind::Video, Some(1));
    pair.home.sent();
    for (seq, key_frame) in [(7, true), (8, false), (10, false), (9, false), (11, false)] {
        publisher.send(&mut pair.home, &video(5, seq, key_frame));
        pair.carry();
        let sent = pair.home.sent();
        let (here, _) = home.open(&sent);
        assert_eq!(away.media(&mut pair.away), here, "packet {seq}");
        assert_eq!(read(&here[0]).seq(), seq + 93);
    }
    let statistics = [&pair.home, &pair.away].map(|bench| bench.worker.statistics());
    assert_eq!(statistics.map(|worker| worker.publications), [1, 0], "counted once");
    assert_eq!(statistics.map(|worker| worker.subscriptions), [1, 1]);
    let subscriber = pair.away.worker.peer_statistics(away.id).unwrap();
    assert_eq!(subscriber.subscriptions[0].publication, Some(PublicationId(1)));
    assert_eq!(subscriber.subscriptions[0].sent.packets, 5);
}

#[test]
fn packets_are_gathered_at_the_mirror_too() {
    let mut pair = Pair { home: Bench::gathering(ms(1)), away: Bench::gathering(ms(1)) };
    let mut publisher = Client::connected(&mut pair.home, 1);
    publisher.publish(&mut pair.home, 1, Kind::Video, &[encoding(5)]);
    pair.mirror(publisher.id, Kind::Video, &[encoding(5)], false);
    let mut subscriber = Client::connected(&mut pair.away, 2);
    subscriber.subscribe(&mut pair.away, 1, Kind::Video, Some(1));
    for seq in 1..5 {
        publisher.send(&mut pair.home, &video(5, seq, seq == 1));
    }
    pair.carry();
    assert_eq!(subscriber.media(&mut pair.away).len(), 0, "they wait for the turn's end");
    let Bench { worker, egress, now } = &mut pair.away;
    assert!(worker.is_due(now.at));
    worker.forward(*now, egress, |_| {});
    assert_eq!(subscriber.media(&mut pair.away).len(), 4);
}

#[test]
fn what_a_subscriber_lost_is_sent_again_by_the_mirror() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 2, false));
    subscriber.send_rtcp(&mut pair.away, |rtcp| rtcp.nack(1, 1001, [101]).unwrap());
    let media = subscriber.media(&mut pair.away);
    let rtx = read(&media[0]);
    assert_eq!((rtx.ssrc(), rtx.pt()), (2001, VP8_RTX + 10));
    assert_eq!(rtx.payload(), [&101_u16.to_be_bytes()[..], &vp8(2, 0, false)].concat());
    assert_eq!(pair.carry(), 0, "nobody else is asked");
}

#[test]
fn what_never_arrived_is_asked_of_the_publisher_and_passed_on() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    pair.home.sent();
    let media = say(&mut pair, &mut publisher, &mut subscriber, &video(5, 4, false));
    assert_eq!(read(&media[0]).seq(), 103);
    // The origin asks for the gap on behalf of all, and the mirror does not need to.
    pair.run(ms(12));
    assert_eq!(asked(&mut pair, &mut publisher).1, [2, 3]);
    subscriber.send_rtcp(&mut pair.away, |rtcp| rtcp.nack(1, 1001, [101]).unwrap());
    assert_eq!(pair.carry(), 1);
    assert_eq!(asked(&mut pair, &mut publisher).1, [0; 0], "merged");
    pair.run(ms(60));
    assert_eq!(asked(&mut pair, &mut publisher).1, [2, 3], "repeated");
    let original = [&2_u16.to_be_bytes()[..], &vp8(2, 0, false)].concat();
    let rtx = packet((6, VP8_RTX, 1, 6000), &[], &original);
    let media = say(&mut pair, &mut publisher, &mut subscriber, &rtx);
    let repaired = read(&media[0]);
    assert_eq!((repaired.ssrc(), repaired.seq(), repaired.timestamp()), (1001, 101, 6000));
}

#[test]
fn what_was_lost_between_the_workers_comes_from_the_origin() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    publisher.send(&mut pair.home, &video(5, 2, false));
    let (_, parcel) = pair.home.worker.poll_mirrored().expect("a packet");
    pair.home.drops(DropReason::MirrorFull, |home| home.worker.lost(parcel));
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 3, false));
    pair.home.sent();
    subscriber.send_rtcp(&mut pair.away, |rtcp| rtcp.nack(1, 1001, [101]).unwrap());
    assert_eq!(pair.carry(), 2, "a wish and a packet");
    let media = subscriber.media(&mut pair.away);
    assert_eq!(media.len(), 1);
    assert_eq!((read(&media[0]).seq(), read(&media[0]).payload()), (101, &vp8(2, 0, false)[..]));
    assert_eq!(asked(&mut pair, &mut publisher).1, [0; 0], "the publisher has nothing to do");
}

#[test]
fn key_frame_requests_travel_and_are_merged() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    pair.carry();
    assert_eq!(asked(&mut pair, &mut publisher).0, [5], "at once, before any packet");
    let home = Client::connected(&mut pair.home, 3);
    home.subscribe(&mut pair.home, 1, Kind::Video, Some(1));
    pair.run(ms(450));
    assert_eq!(asked(&mut pair, &mut publisher).0, [0; 0], "two of them wait, one was asked");
    pair.run(ms(100));
    assert_eq!(asked(&mut pair, &mut publisher).0, [5], "repeated");
    assert_eq!(say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true)).len(), 1);
    pair.run(ms(2000));
    assert_eq!(asked(&mut pair, &mut publisher).0, [0; 0], "it came");
    subscriber.send_rtcp(&mut pair.away, |rtcp| rtcp.pli(9, 1001).unwrap());
    pair.carry();
    assert_eq!(asked(&mut pair, &mut publisher).0, [5]);
    // Whoever waited is gone: nobody is asked any more.
    pair.away.command(Command::RemovePeer { peer: subscriber.id });
    pair.home.command(Command::RemovePeer { peer: home.id });
    pair.run(ms(2000));
    assert_eq!(asked(&mut pair, &mut publisher).0, [0; 0]);
}

#[test]
fn a_late_subscriber_of_a_mirror_gets_a_key_frame() {
    let (mut pair, mut publisher, mut first) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut first, &video(5, 1, true));
    let mut early = Client::connected(&mut pair.away, 4);
    early.subscribe(&mut pair.away, 4, Kind::Video, Some(1));
    assert_eq!(early.media(&mut pair.away).len(), 1, "the mirror keeps it");
    pair.away.command(Command::RemovePeer { peer: early.id });
    pair.run(KEY_FRAME_AGE + ms(100));
    pair.home.sent();
    let mut late = Client::connected(&mut pair.away, 3);
    late.subscribe(&mut pair.away, 3, Kind::Video, Some(1));
    pair.carry();
    assert_eq!(asked(&mut pair, &mut publisher).0, [5]);
    say(&mut pair, &mut publisher, &mut first, &video(5, 2, false));
    publisher.send(&mut pair.home, &video(5, 3, true));
    pair.carry();
    let sent = pair.away.sent();
    assert_eq!(first.open(&sent).0.len(), 1);
    assert_eq!(read(&late.open(&sent).0[0]).seq(), 100);
}

fn layers() -> [Encoding; 2] {
    let layer = |rid: &str, ssrc| Encoding { rid: rid.into(), ssrc, rtx_ssrc: 0 };
    [layer("q", 50), layer("f", 60)]
}

#[test]
fn a_switch_of_layer_at_the_mirror_continues_all_numbers_by_the_reports() {
    let (mut pair, mut publisher, mut subscriber) = call(&layers());
    let ntp = 77_u64 << 32;
    publisher.send_rtcp(&mut pair.home, |rtcp| {
        rtcp.sender_report(60, ntp, 90_000, 0, 0, &[]).unwrap();
        // Half a second later in the sender's clock.
        rtcp.sender_report(50, ntp + (1 << 31), 5_000, 0, 0, &[]).unwrap();
    });
    let high = packet((60, VP8, 7, 90_000), &[], &vp8(7, 7, true));
    let media = say(&mut pair, &mut publisher, &mut subscriber, &high);
    assert_eq!((read(&media[0]).seq(), read(&media[0]).timestamp()), (100, 90_000));
    pair.home.sent();
    pair.away.command(Command::SetPreferences {
        subscription: SubscriptionId(1),
        preferences: Preferences { layer_max: Some(0), ..Preferences::default() },
    });
    pair.both(|bench| bench.advance(ms(520)));
    let low = |seq, timestamp, key| packet((50, VP8, seq, timestamp), &[], &vp8(seq, 0, key));
    let media = say(&mut pair, &mut publisher, &mut subscriber, &low(999, 5_000, false));
    assert_eq!(media.len(), 0, "no key frame yet");
    pair.carry();
    assert_eq!(asked(&mut pair, &mut publisher).0, [50]);
    let media = say(&mut pair, &mut publisher, &mut subscriber, &low(1000, 5_900, true));
    let switched = read(&media[0]);
    assert_eq!((switched.seq(), switched.timestamp()), (101, 90_000 + 45_000 + 900));
}

#[test]
fn subscribers_of_a_mirror_get_sender_reports_in_the_publishers_name() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    publisher.send_rtcp(&mut pair.home, |rtcp| {
        rtcp.sender_report(5, 77 << 32, 50_000, 0, 0, &[]).unwrap();
    });
    let reported_at = pair.home.now.ntp;
    let media = say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    let offset = read(&media[0]).timestamp().wrapping_sub(3000);
    pair.run(ms(2000));
    let sent = pair.away.sent();
    let (_, reports) = subscriber.open(&sent);
    let packets = reports.iter().flat_map(|report| rtcp::packets(report)).map(Result::unwrap);
    let packets: Vec<_> = packets.collect();
    let [rtcp::Packet::SenderReport(report), rtcp::Packet::SourceDescription(names), ..] =
        &packets[..]
    else {
        panic!("a sender report and its name, not {packets:?}");
    };
    let elapsed = (report.ntp - reported_at) as f64 / (1_u64 << 32) as f64;
    let expected = 50_000_u32.wrapping_add(offset).wrapping_add((elapsed * 90_000.0) as u32);
    assert!(report.rtp_timestamp.abs_diff(expected) <= 1);
    assert_eq!(names.cname(1001), Some(&b"peer-00000001"[..]));
}

#[test]
fn a_publisher_that_changes_its_ssrc_is_followed() {
    let learned = Encoding { rid: String::new(), ssrc: 0, rtx_ssrc: 0 };
    let (mut pair, mut publisher, mut subscriber) = call(&[learned]);
    assert_eq!(say(&mut pair, &mut publisher, &mut subscriber, &video(5, 9, true)).len(), 1);
    pair.run(ms(1600));
    let media = say(&mut pair, &mut publisher, &mut subscriber, &video(7, 9, true));
    assert_eq!(media.len(), 1, "the same number of another source is no duplicate");
    assert_eq!(read(&media[0]).seq(), 101);
}

#[test]
fn mute_holds_a_mirror_back_too() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    let mute = |muted| Command::SetMuted { publication: PublicationId(1), muted };
    pair.both(|bench| bench.command(mute(true)));
    // For more than half a cycle of the numbers: behind what the mirror saw last, unless it begins anew.
    let muted_for = 40_000_u32;
    for n in 0..muted_for {
        pair.home.drops(DropReason::PublicationMuted, |home| {
            publisher.send(home, &video(5, (2 + n) as u16, false));
        });
    }
    assert_eq!(pair.carry(), 0, "it does not even travel");
    pair.home.sent();
    pair.run(ms(1000));
    pair.home.command(mute(false));
    pair.away.command(mute(false));
    pair.carry();
    assert_eq!(asked(&mut pair, &mut publisher).0, [5]);
    let next = (2 + muted_for) as u16;
    let media = say(&mut pair, &mut publisher, &mut subscriber, &video(5, next, false));
    assert_eq!(media.len(), 0, "it starts anew");
    let media = say(&mut pair, &mut publisher, &mut subscriber, &video(5, next + 1, true));
    assert_eq!(read(&media[0]).seq(), 101);
}

#[test]
fn the_end_of_a_publication_leaves_its_subscribers_unbound() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    publisher.send(&mut pair.home, &video(5, 2, false));
    pair.home.command(Command::RemovePeer { peer: publisher.id });
    pair.away.command(Command::Unpublish { publication: PublicationId(1) });
    let before = pair.away.dropped(DropReason::StreamUnknown);
    assert_eq!(pair.carry(), 1, "it was on its way");
    assert_eq!(pair.away.dropped(DropReason::StreamUnknown), before + 1);
    let statistics = pair.away.worker.peer_statistics(subscriber.id).unwrap();
    assert_eq!(statistics.subscriptions[0].publication, None);
    assert!(pair.away.worker.mirrors.is_empty());
    assert_eq!(pair.away.worker.statistics().publications, 0);
    pair.run(ms(3000));
}

#[test]
fn a_publication_without_mirrors_is_as_before() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    let publication = PublicationId(1);
    pair.home.command(Command::StopMirroring { publication, to: AWAY });
    pair.away.command(Command::Unpublish { publication });
    pair.home.drops(DropReason::NoSubscriber, |home| publisher.send(home, &video(5, 2, false)));
    assert_eq!(pair.carry(), 0);
    let statistics = pair.home.worker.peer_statistics(publisher.id).unwrap();
    assert_eq!(statistics.publications[0].encodings[0].cache_bytes, 0);
    // And it can be mirrored again.
    pair.mirror(publisher.id, Kind::Video, &[encoding(5)], false);
    let bind = Command::Bind { subscription: SubscriptionId(1), publication: Some(publication) };
    pair.away.command(bind);
    let media = say(&mut pair, &mut publisher, &mut subscriber, &video(5, 3, true));
    assert_eq!(read(&media[0]).seq(), 101);
}

#[test]
fn a_scope_takes_its_mirrors_along() {
    let (mut pair, mut publisher, _) = call(&[encoding(5)]);
    pair.away.command(Command::DisposeScope { scope: SCOPE });
    assert!(pair.away.worker.mirrors.is_empty());
    pair.carry();
    publisher.send(&mut pair.home, &video(5, 2, false));
    pair.away.drops(DropReason::StreamUnknown, |away| {
        let (_, mut parcel) = pair.home.worker.poll_mirrored().unwrap();
        away.worker.on_mirrored(away.now, HOME, &mut parcel, &mut away.egress, |_| {});
    });
}

#[test]
fn plain_packets_and_reports_go_out_as_they_came() {
    let mut pair = Pair::new();
    let plain = |bench: &mut Bench, id: u32| {
        let (peer, path) = (PeerId(id), path(20_000 + id as u16));
        bench.command(Command::AddFixedPeer { scope: SCOPE, peer, path });
        bench.command(Command::SetPlain { peer });
        (peer, path)
    };
    let (publisher, from) = plain(&mut pair.home, 1);
    pair.home.command(publish(publisher, 1, Kind::Video, &[encoding(5)]));
    pair.mirror(publisher, Kind::Video, &[encoding(5)], true);
    let (subscriber, to) = plain(&mut pair.away, 2);
    let mut command = subscribe(subscriber, 1, Kind::Video, Some(1));
    let Command::Subscribe { codecs: offered, as_sent, .. } = &mut command else { unreachable!() };
    (*offered, *as_sent) = (codecs(Kind::Video, 0), true);
    pair.away.command(command);
    pair.away.sent();
    let mut report = vec![0; 100];
    let mut writer = rtcp::Writer::new(&mut report);
    writer.sender_report(5, 77 << 32, 50_000, 0, 0, &[]).unwrap();
    let len = writer.len();
    report.truncate(len);
    for bytes in [video(5, 1, true), report, video(5, 2, false)] {
        pair.home.receive(from, &bytes);
        pair.carry();
        let sent = pair.away.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].path, &sent[0].bytes), (to, &bytes));
    }
    // And again as they came, by the mirror.
    let mut nack = vec![0; 100];
    let mut writer = rtcp::Writer::new(&mut nack);
    writer.nack(1, 5, [2]).unwrap();
    let len = writer.len();
    pair.away.receive(to, &nack[..len]);
    assert_eq!(pair.away.sent()[0].bytes, video(5, 2, false));
    // A mirror is the end of the way.
    let error = pair.away.worker.on_command(
        pair.away.now,
        Command::StartMirroring { publication: PublicationId(1), to: HOME },
        &mut pair.away.egress,
    );
    assert!(matches!(error, Err(CommandError::Invalid(_))), "{error:?}");
}

#[test]
fn what_nobody_fetches_is_bounded_and_counted() {
    let (mut pair, mut publisher, mut subscriber) = call(&[encoding(5)]);
    say(&mut pair, &mut publisher, &mut subscriber, &video(5, 1, true));
    let room = PARCELS * PARCEL_ITEMS;
    for seq in 0..room + 100 {
        publisher.send(&mut pair.home, &video(5, seq as u16 + 2, false));
        pair.home.egress.clear();
    }
    assert_eq!(pair.home.dropped(DropReason::MirrorFull), 100);
    let (mut parcels, mut items) = (0, 0);
    while let Some((_, parcel)) = pair.home.worker.poll_mirrored() {
        (parcels, items) = (parcels + 1, items + parcel.len());
    }
    assert_eq!((parcels, items), (PARCELS, room));
}

#[test]
fn mirrors_are_bounded_and_refused_where_they_make_no_sense() {
    let (mut pair, _, _) = call(&[encoding(5)]);
    let publication = PublicationId(1);
    let start = |to| Command::StartMirroring { publication, to: WorkerId(to) };
    for to in 1..=MIRRORS_PER_PUBLICATION as u16 {
        pair.home.command(start(to));
    }
    let Bench { worker, egress, now } = &mut pair.home;
    let refused = worker.on_command(*now, start(1000), egress);
    assert!(matches!(refused, Err(CommandError::Limit { .. })), "{refused:?}");
    worker.on_command(*now, start(1), egress).expect("it is one of them");
    let unknown = Command::StartMirroring { publication: PublicationId(9), to: AWAY };
    let refused = worker.on_command(*now, unknown, egress);
    assert_eq!(refused, Err(CommandError::NotFound("publication")));
}
