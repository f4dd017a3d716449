//! What is lost is sent again, or asked for.

use crate::command::Kind;
use crate::testing::{Bench, Client, IDS, VP8, VP8_RTX, encoding, ms, packet, read, vp8};
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
