//! Publishers whose losses are mended with their forward error correction, before anybody asks for them.

use crate::command::{Codec, CodecKind, Command, Kind, PeerId, PublicationId};
use crate::drop::DropReason;
use crate::limits::FEC_PACKETS;
use crate::statistics::EncodingStatistics;
use crate::testing::{
    Bench, Client, IDS, VP8, VP8_RTX, codecs, encoding, ms, packet, publish, read, subscribe, vp8,
};
use strait_wire::rtcp;

const FLEXFEC: u8 = 49;
const RED: u8 = 50;
const RED_RTX: u8 = 52;
const ULPFEC: u8 = 51;
/// Of the publisher: media, and FlexFEC.
const SSRC: u32 = 5;
const FEC_SSRC: u32 = 77;

fn format(pt: u8, name: &str, rtx_pt: Option<u8>) -> Codec {
    let identity = format!("{name}/90000/1");
    Codec { pt, rtx_pt, kind: CodecKind::Other, identity, ..codecs(Kind::Video, 0).remove(0) }
}

/// A publisher of VP8 with such formats beside it as publication 2, and a subscriber.
fn call(formats: Vec<Codec>) -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    let mut command = publish(publisher.id, 2, Kind::Video, &[encoding(SSRC)]);
    if let Command::Publish { codecs, .. } = &mut command {
        codecs.extend(formats);
    }
    bench.command(command);
    bench.command(subscribe(subscriber.id, 1, Kind::Video, Some(2)));
    bench.sent();
    (bench, publisher, subscriber)
}

fn with_flexfec() -> (Bench, Client, Client) {
    call(vec![format(FLEXFEC, "flexfec-03", None)])
}

fn with_ulpfec() -> (Bench, Client, Client) {
    call(vec![format(RED, "red", Some(RED_RTX)), format(ULPFEC, "ulpfec", None)])
}

/// A packet of video with extensions and a length of its own; the first is a key frame.
fn video(seq: u16) -> Vec<u8> {
    let mut payload = vp8(seq, 0, seq == 1);
    payload.extend((0..seq % 7 * 31).map(|at| (at ^ seq) as u8));
    let extensions: [(u8, &[u8]); 2] = [(IDS.mid, b"2"), (IDS.abs_send_time, &[1, 2, seq as u8])];
    let from = usize::from(seq.is_multiple_of(3));
    packet((SSRC, VP8, seq, u32::from(seq) * 3000), &extensions[from..], &payload)
}

/// What a sender makes of packets: an encoder of the test's own, byte by byte as RFC 5109 section 7 has it.
struct Parity {
    head: [u8; 2],
    len: u16,
    timestamp: [u8; 4],
    payload: Vec<u8>,
}

fn parity(packets: &[Vec<u8>]) -> Parity {
    let mut parity = Parity { head: [0; 2], len: 0, timestamp: [0; 4], payload: Vec::new() };
    for packet in packets {
        let rest = &packet[12..];
        parity.payload.resize(parity.payload.len().max(rest.len()), 0);
        parity.payload.iter_mut().zip(rest).for_each(|(sum, byte)| *sum ^= byte);
        (0..2).for_each(|at| parity.head[at] ^= packet[at]);
        (0..4).for_each(|at| parity.timestamp[at] ^= packet[4 + at]);
        parity.len ^= rest.len() as u16;
    }
    parity.head[0] &= 0x3F;
    parity
}

/// A FlexFEC payload for up to 15 packets from `base` on.
fn flexfec(base: u16, seqs: &[u16]) -> Vec<u8> {
    let packets: Vec<Vec<u8>> = seqs.iter().map(|seq| video(*seq)).collect();
    let of = parity(&packets);
    let mask = seqs.iter().fold(0x8000_u16, |mask, seq| mask | 1 << (14 - (seq - base)));
    let ssrc = SSRC.to_be_bytes();
    let (len, base, mask) = (of.len.to_be_bytes(), base.to_be_bytes(), mask.to_be_bytes());
    [&of.head[..], &len, &of.timestamp, &[1, 0, 0, 0], &ssrc, &base, &mask, &of.payload].concat()
}

/// In a packet.
fn flex_packet(seq: u16, payload: &[u8]) -> Vec<u8> {
    packet((FEC_SSRC, FLEXFEC, seq, 9000), &[(IDS.mid, b"2")], payload)
}

/// A ULPFEC payload for up to 16 packets from `base` on.
fn ulpfec(base: u16, seqs: &[u16]) -> Vec<u8> {
    let packets: Vec<Vec<u8>> = seqs.iter().map(|seq| video(*seq)).collect();
    let of = parity(&packets);
    let mask = seqs.iter().fold(0_u16, |mask, seq| mask | 1 << (15 - (seq - base)));
    let protected = (of.payload.len() as u16).to_be_bytes();
    let (len, base, mask) = (of.len.to_be_bytes(), base.to_be_bytes(), mask.to_be_bytes());
    [&of.head[..], &base, &of.timestamp, &len, &protected, &mask, &of.payload].concat()
}

/// A packet in a block.
fn red(bytes: &[u8]) -> Vec<u8> {
    let payload = bytes.len() - read(bytes).payload().len();
    let pt = bytes[1] & 0x7F;
    let mut red = [&bytes[..payload], &[pt], &bytes[payload..]].concat();
    red[1] = red[1] & 0x80 | RED;
    red
}

/// ULPFEC in a packet of the stream, which has no marker.
fn ulp_packet(seq: u16, payload: &[u8]) -> Vec<u8> {
    let extensions: [(u8, &[u8]); 1] = [(IDS.mid, b"2")];
    let mut bytes = red(&packet((SSRC, ULPFEC, seq, 9000), &extensions, payload));
    bytes[1] &= 0x7F;
    bytes
}

fn fared(bench: &Bench) -> EncodingStatistics {
    let peer = bench.worker.peer_statistics(PeerId(1)).unwrap();
    peer.publications[0].encodings[0].clone()
}

/// What was recovered, and of how many repair packets.
fn recovered(bench: &Bench) -> (u64, u64) {
    let fec = fared(bench).fec;
    assert_eq!(bench.worker.statistics().fec, fec, "the only publisher");
    (fec.recovered, fec.packets)
}

/// The publisher's numbers that it is asked for.
fn asked(bench: &mut Bench, publisher: &mut Client) -> Vec<u16> {
    let sent = bench.sent();
    let reports = publisher.open(&sent).1;
    let mut seqs = Vec::new();
    for report in &reports {
        for packet in rtcp::packets(report).flatten() {
            if let rtcp::Packet::Nack(nack) = packet {
                seqs.extend(nack.seqs());
            }
        }
    }
    seqs
}

/// The packets that the subscriber got are these of the publisher, whole.
fn got(bench: &mut Bench, subscriber: &mut Client, seqs: &[u16]) {
    let media = subscriber.media(bench);
    let sent: Vec<u16> = media.iter().map(|bytes| read(bytes).seq() - 99).collect();
    assert_eq!(sent, seqs);
    for (bytes, seq) in media.iter().zip(seqs) {
        let (is, was) = (read(bytes), video(*seq));
        assert_eq!(is.payload(), read(&was).payload(), "packet {seq}");
        assert_eq!((is.timestamp(), is.marker()), (u32::from(*seq) * 3000, true));
    }
}

#[test]
fn flexfec_gives_back_what_was_lost_before_it_is_asked_for() {
    let (mut bench, mut publisher, mut subscriber) = with_flexfec();
    for lost in 1..=10 {
        let seqs: Vec<u16> = (1..=10).map(|n| n + 10 * (lost - 1)).collect();
        let lost = seqs[usize::from(lost) - 1];
        for seq in seqs.iter().filter(|seq| **seq != lost || *seq == &1) {
            publisher.send(&mut bench, &video(*seq));
        }
        let came: Vec<u16> = seqs.iter().copied().filter(|seq| *seq != lost || lost == 1).collect();
        got(&mut bench, &mut subscriber, &came);
        bench.advance(ms(5));
        publisher.send(&mut bench, &flex_packet(lost, &flexfec(seqs[0], &seqs)));
        let expected: &[u16] = if lost == 1 { &[] } else { &[lost] };
        got(&mut bench, &mut subscriber, expected);
        bench.run(ms(30));
        assert_eq!(asked(&mut bench, &mut publisher), [0; 0]);
    }
    assert_eq!(recovered(&bench), (9, 10));
    bench.run(ms(3000));
    let loss = fared(&bench).loss;
    // After the last one that was lost nothing came that would show it.
    assert_eq!((loss.repaired, loss.lost), (8, 8));
    assert_eq!(bench.dropped(DropReason::FecEnds), 10);
    assert_eq!(bench.dropped(DropReason::StreamUnknown), 0);
}

#[test]
fn one_gives_what_the_other_needs() {
    let (mut bench, mut publisher, mut subscriber) = with_flexfec();
    [1, 3, 5].iter().for_each(|seq| publisher.send(&mut bench, &video(*seq)));
    got(&mut bench, &mut subscriber, &[1, 3, 5]);
    // Two are missing for each of the first two.
    publisher.send(&mut bench, &flex_packet(1, &flexfec(1, &[1, 2, 3, 4])));
    publisher.send(&mut bench, &flex_packet(2, &flexfec(2, &[2, 5, 6])));
    got(&mut bench, &mut subscriber, &[]);
    publisher.send(&mut bench, &flex_packet(3, &flexfec(4, &[4, 5])));
    got(&mut bench, &mut subscriber, &[4, 2, 6]);
    assert_eq!(recovered(&bench), (3, 3));
    // The original was only slow.
    publisher.send(&mut bench, &video(6));
    got(&mut bench, &mut subscriber, &[]);
    assert_eq!(bench.dropped(DropReason::PacketDuplicate), 1);
}

#[test]
fn a_late_packet_completes_what_waits() {
    let (mut bench, mut publisher, mut subscriber) = with_flexfec();
    [1, 4].iter().for_each(|seq| publisher.send(&mut bench, &video(*seq)));
    publisher.send(&mut bench, &flex_packet(1, &flexfec(1, &[1, 2, 3, 4])));
    got(&mut bench, &mut subscriber, &[1, 4]);
    publisher.send(&mut bench, &video(3));
    got(&mut bench, &mut subscriber, &[3, 2]);
}

#[test]
fn what_came_again_by_rtx_is_not_what_was_protected() {
    let (mut bench, mut publisher, mut subscriber) = with_flexfec();
    [1, 4].iter().for_each(|seq| publisher.send(&mut bench, &video(*seq)));
    publisher.send(&mut bench, &flex_packet(1, &flexfec(1, &[1, 2, 3, 4])));
    got(&mut bench, &mut subscriber, &[1, 4]);
    // Without the extensions that it had at first.
    let original = [&3_u16.to_be_bytes()[..], read(&video(3)).payload()].concat();
    publisher.send(&mut bench, &packet((SSRC + 1, VP8_RTX, 1, 9000), &[], &original));
    got(&mut bench, &mut subscriber, &[3]);
    assert_eq!(recovered(&bench), (0, 1));
    bench.run(ms(20));
    assert_eq!(asked(&mut bench, &mut publisher), [2]);
}

#[test]
fn lies_end_where_they_begin() {
    let (mut bench, mut publisher, mut subscriber) = with_flexfec();
    [1, 3].iter().for_each(|seq| publisher.send(&mut bench, &video(*seq)));
    got(&mut bench, &mut subscriber, &[1, 3]);
    let good = flexfec(1, &[1, 2, 3]);
    let mut fec_seq = 0;
    let mut send = |bench: &mut Bench, payload: &[u8]| {
        fec_seq += 1;
        publisher.send(bench, &flex_packet(fec_seq, payload));
    };
    // Of a stream that is not there: its SSRC stays unknown.
    let foreign = [&good[..12], &99_u32.to_be_bytes(), &good[16..]].concat();
    send(&mut bench, &foreign);
    assert_eq!(bench.dropped(DropReason::StreamUnknown), 1);
    // Cut short, so that the packet is longer than what is protected.
    send(&mut bench, &good[..22]);
    got(&mut bench, &mut subscriber, &[]);
    // Once the SSRC is known.
    send(&mut bench, &foreign);
    send(&mut bench, &good[..8]);
    send(&mut bench, &[]);
    assert_eq!(bench.dropped(DropReason::FecMalformed), 3);
    // A packet of a payload type that was not agreed.
    let mut other = good.clone();
    other[1] ^= 1;
    send(&mut bench, &other);
    got(&mut bench, &mut subscriber, &[]);
    assert_eq!(bench.dropped(DropReason::PayloadTypeUnknown), 1);
    // Far away from everything, and more than there is room for.
    for at in 0..3 * FEC_PACKETS as u16 {
        send(&mut bench, &[&good[..16], &(20_000 + 9 * at).to_be_bytes(), &good[18..]].concat());
    }
    send(&mut bench, &good);
    got(&mut bench, &mut subscriber, &[2]);
    assert_eq!(recovered(&bench).0, 1);
}

#[test]
fn where_it_was_not_agreed_it_is_unknown() {
    let (mut bench, mut publisher, mut subscriber) = call(Vec::new());
    [1, 3].iter().for_each(|seq| publisher.send(&mut bench, &video(*seq)));
    publisher.send(&mut bench, &flex_packet(1, &flexfec(1, &[1, 2, 3])));
    got(&mut bench, &mut subscriber, &[1, 3]);
    assert_eq!(bench.dropped(DropReason::StreamUnknown), 1);
}

#[test]
fn another_stream_and_another_ssrc_start_anew() {
    let (mut bench, mut publisher, mut subscriber) = with_flexfec();
    [1, 3].iter().for_each(|seq| publisher.send(&mut bench, &video(*seq)));
    publisher.send(&mut bench, &flex_packet(1, &flexfec(1, &[1, 2, 3])));
    let another = packet((78, FLEXFEC, 1, 9000), &[(IDS.mid, b"2")], &flexfec(3, &[3, 4]));
    publisher.send(&mut bench, &another);
    got(&mut bench, &mut subscriber, &[1, 3, 2, 4]);
    bench.command(Command::Unpublish { publication: PublicationId(2) });
    publisher.send(&mut bench, &flex_packet(2, &flexfec(1, &[1, 2, 3])));
    assert_eq!(bench.dropped(DropReason::StreamUnknown), 1);
    assert_eq!(bench.worker.statistics().fec.recovered, 2, "what was counted stays");
}

#[test]
fn ulpfec_gives_back_what_was_lost_and_leaves_no_gap() {
    let (mut bench, mut publisher, mut subscriber) = with_ulpfec();
    [1, 2, 4].iter().for_each(|seq| publisher.send(&mut bench, &red(&video(*seq))));
    got(&mut bench, &mut subscriber, &[1, 2, 4]);
    publisher.send(&mut bench, &ulp_packet(5, &ulpfec(1, &[1, 2, 3, 4])));
    let media = subscriber.media(&mut bench);
    let sent: Vec<_> =
        media.iter().map(|bytes| (read(bytes).seq(), read(bytes).payload())).collect();
    let lost = video(3);
    assert_eq!(sent.len(), 2);
    assert!(sent.contains(&(102, read(&lost).payload())), "what was lost");
    assert!(sent.contains(&(104, &[][..])), "an empty packet for the number of the parity");
    assert!(media.iter().all(|bytes| read(bytes).pt() == VP8 + 10));
    publisher.send(&mut bench, &red(&video(6)));
    got(&mut bench, &mut subscriber, &[6]);
    bench.run(ms(100));
    assert_eq!(asked(&mut bench, &mut publisher), [0; 0]);
    assert_eq!(recovered(&bench), (1, 1));
}

#[test]
fn blocks_are_taken_off_also_of_what_comes_again() {
    let (mut bench, mut publisher, mut subscriber) = with_ulpfec();
    [1, 3].iter().for_each(|seq| publisher.send(&mut bench, &red(&video(*seq))));
    got(&mut bench, &mut subscriber, &[1, 3]);
    let original = [&2_u16.to_be_bytes()[..], read(&red(&video(2))).payload()].concat();
    publisher.send(&mut bench, &packet((SSRC + 1, RED_RTX, 1, 6000), &[], &original));
    got(&mut bench, &mut subscriber, &[2]);
    // A publisher may leave the blocks off, and several in one packet are of nobody.
    publisher.send(&mut bench, &video(4));
    got(&mut bench, &mut subscriber, &[4]);
    let mut several = red(&video(5));
    let block = several.len() - read(&several).payload().len();
    several[block] |= 0x80;
    publisher.send(&mut bench, &several);
    assert_eq!(bench.dropped(DropReason::RtpMalformed), 1);
    // Parity that cannot be read has its number all the same.
    publisher.send(&mut bench, &ulp_packet(6, &[1, 2, 3]));
    assert_eq!(subscriber.media(&mut bench).len(), 1);
}
