//! What is lost is sent again, or asked for.

use crate::command::{Command, Kind, SubscriptionId};
use crate::drop::DropReason;
use crate::limits::{RESEND_BYTES, RESEND_SHARE};
use crate::testing::{
    Bench, Client, IDS, VP8, VP8_RTX, encoding, ms, packet, read, subscribe, vp8,
};
use strait_wire::rtcp;

fn video(seq: u16) -> Vec<u8> {
    let key_frame = seq == 1;
    packet((5, VP8, seq, u32::from(seq) * 3000), &[(IDS.mid, b"1")], &vp8(seq, 0, key_frame))
}

fn pair() -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    subscriber.subscribe(&mut bench, 1, Kind::Video, Some(1));
    publisher.send(&mut bench, &video(1));
    bench.sent();
    (bench, publisher, subscriber)
}

fn nack(bench: &mut Bench, subscriber: &mut Client, seqs: &[u16]) {
    subscriber.send_rtcp(bench, |rtcp| {
        rtcp.receiver_report(1, &[]).unwrap();
        rtcp.nack(1, 1001, seqs.iter().copied()).unwrap();
    });
}

/// What the publisher is asked for.
fn asked(bench: &mut Bench, publisher: &mut Client) -> Vec<u16> {
    let sent = bench.sent();
    let (_, reports) = publisher.open(&sent);
    let packets = reports.iter().flat_map(|report| rtcp::packets(report));
    let nacks = packets.filter_map(|packet| match packet {
        Ok(rtcp::Packet::Nack(nack)) => Some((nack.media_ssrc, nack.seqs().collect::<Vec<_>>())),
        _ => None,
    });
    nacks.filter(|(ssrc, _)| *ssrc == 5).flat_map(|(_, seqs)| seqs).collect()
}

#[test]
fn a_lost_packet_comes_again_as_rtx() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send(&mut bench, &video(2));
    bench.sent();
    nack(&mut bench, &mut subscriber, &[101]);
    nack(&mut bench, &mut subscriber, &[101]);
    let media = subscriber.media(&mut bench);
    assert_eq!(media.len(), 2, "one for each time it is asked for");
    for (seq, bytes) in (100..).zip(&media) {
        let rtx = read(bytes);
        assert_eq!((rtx.ssrc(), rtx.pt(), rtx.seq()), (2001, VP8_RTX + 10, seq));
        assert_eq!(rtx.timestamp(), 2 * 3000);
        assert_eq!(rtx.payload(), [&101_u16.to_be_bytes()[..], &vp8(2, 0, false)].concat());
    }
}

#[test]
fn what_never_arrived_is_asked_of_the_publisher_and_passed_on() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send(&mut bench, &video(4));
    assert_eq!(read(&subscriber.media(&mut bench)[0]).seq(), 103);
    // Before the relay itself gives up on reordering.
    nack(&mut bench, &mut subscriber, &[101, 102]);
    assert_eq!(asked(&mut bench, &mut publisher), [2, 3]);
    nack(&mut bench, &mut subscriber, &[101, 102]);
    assert_eq!(asked(&mut bench, &mut publisher), [0; 0], "merged");
    bench.run(ms(60));
    assert_eq!(asked(&mut bench, &mut publisher), [2, 3], "repeated by ourselves");

    let original = [&2_u16.to_be_bytes()[..], &vp8(2, 0, false)].concat();
    publisher.send(&mut bench, &packet((6, VP8_RTX, 1, 6000), &[], &original));
    let media = subscriber.media(&mut bench);
    let repaired = read(&media[0]);
    assert_eq!((repaired.ssrc(), repaired.seq(), repaired.timestamp()), (1001, 101, 6000));
    assert_eq!(repaired.payload(), vp8(2, 0, false));
    bench.run(ms(60));
    assert_eq!(asked(&mut bench, &mut publisher), [3]);
}

#[test]
fn the_relay_asks_for_gaps_itself() {
    let (mut bench, mut publisher, _) = pair();
    publisher.send(&mut bench, &video(4));
    bench.run(ms(5));
    publisher.send(&mut bench, &video(3));
    assert_eq!(asked(&mut bench, &mut publisher), [0; 0], "it may be reordered");
    bench.run(ms(10));
    assert_eq!(asked(&mut bench, &mut publisher), [2]);
}

#[test]
fn without_rtx_a_packet_comes_again_byte_for_byte() {
    let (mut bench, mut publisher, subscriber) = pair();
    bench.command(Command::Unsubscribe { subscription: SubscriptionId(1) });
    let mut command = subscribe(subscriber.id, 3, Kind::Video, Some(1));
    if let Command::Subscribe { codecs, .. } = &mut command {
        codecs.iter_mut().for_each(|codec| codec.rtx_pt = None);
    }
    bench.command(command);
    bench.sent();
    let key_frame = packet((5, VP8, 2, 0), &[], &vp8(2, 0, true));
    publisher.send(&mut bench, &key_frame);
    let first = bench.sent();
    bench.run(ms(300));
    bench.sent();
    let mut subscriber = subscriber;
    subscriber.send_rtcp(&mut bench, |rtcp| {
        rtcp.nack(1, 1003, [100]).unwrap();
    });
    let again = bench.sent();
    assert_eq!((first.len(), again.len()), (1, 1));
    assert_eq!(first[0].bytes, again[0].bytes, "another byte would repeat a nonce");
}

#[test]
fn retransmissions_are_limited() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    let big = [&vp8(2, 0, false)[..], &[7; 1000]].concat();
    publisher.send(&mut bench, &packet((5, VP8, 2, 0), &[], &big));
    bench.sent();
    let mut bytes = 0;
    for _ in 0..500 {
        nack(&mut bench, &mut subscriber, &[101]);
        bytes += bench.sent().iter().map(|sent| sent.bytes.len()).sum::<usize>();
    }
    let most = RESEND_BYTES as usize + 2000 / RESEND_SHARE as usize;
    assert!((most / 2..most * 11 / 10).contains(&bytes), "{bytes}");
    assert!(bench.dropped(DropReason::ResendLimited) > 300);
}

#[test]
fn numbers_of_the_retransmission_stream_are_no_media_numbers() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send(&mut bench, &video(2));
    bench.sent();
    subscriber.send_rtcp(&mut bench, |rtcp| rtcp.nack(1, 2001, [101]).unwrap());
    assert!(subscriber.media(&mut bench).is_empty());
}

/// What the publisher of 750 packets, each of them up to `most` ms on its way and none lost, is told of its loss, at most and
/// at last, and how many of them it is asked for; it answers within 2 ms.
fn jittered(most: u32) -> (u8, i32, usize) {
    let (mut bench, mut publisher, _) = pair();
    let mut random = 1_u32;
    let mut under_way: Vec<(u32, u16, bool)> = (2..752_u16)
        .map(|seq| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (u32::from(seq / 5) * 40 + (random >> 16) % most, seq, false)
        })
        .collect();
    let (mut fraction, mut lost, mut asked, mut rtx_seq) = (0, 0, 0, 0);
    for at in 0..8000 {
        let (here, later) = under_way.into_iter().partition(|(due, ..)| *due <= at);
        under_way = later;
        let here: Vec<_> = here;
        for (_, seq, is_rtx) in here {
            if is_rtx {
                rtx_seq += 1;
                let original = [&seq.to_be_bytes()[..], &vp8(seq, 0, false)].concat();
                let rtx = (6, VP8_RTX, rtx_seq, u32::from(seq) * 3000);
                publisher.send(&mut bench, &packet(rtx, &[], &original));
            } else {
                publisher.send(&mut bench, &video(seq));
            }
        }
        bench.run(ms(1));
        let sent = bench.sent();
        let (_, reports) = publisher.open(&sent);
        for packet in reports.iter().flat_map(|report| rtcp::packets(report)) {
            match packet {
                Ok(rtcp::Packet::Nack(nack)) => {
                    under_way.extend(nack.seqs().map(|seq| (at + 2, seq, true)));
                    asked += nack.seqs().count();
                }
                Ok(rtcp::Packet::ReceiverReport(report)) => {
                    for block in report.reports().filter(|block| block.ssrc == 5) {
                        // The first is of too few.
                        fraction = if at < 1500 { 0 } else { fraction.max(block.fraction_lost) };
                        lost = block.cumulative_lost;
                    }
                }
                _ => {}
            }
        }
    }
    let statistics = bench.worker.peer_statistics(publisher.id).unwrap();
    let encoding = &statistics.publications[0].encodings[0];
    assert_eq!((encoding.packets_lost, encoding.loss.lost), (lost.into(), 0));
    (fraction, lost, asked)
}

#[test]
fn what_is_late_is_not_told_as_lost_and_seldom_asked_for() {
    let told = [20, 40, 100].map(jittered);
    for (fraction, lost, asked) in told {
        assert_eq!(lost, 0, "{told:?}");
        // What is on its way when a report is made counts as lost until the next.
        assert!(fraction < 26 && asked < 30, "{told:?}");
    }
}
