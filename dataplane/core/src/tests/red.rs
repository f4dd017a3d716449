//! Redundant audio between legs that have it and legs that have not.

use crate::command::{Codec, CodecKind, Command, Kind, PublicationId};
use crate::drop::DropReason;
use crate::testing::{
    Bench, Client, IDS, OPUS, codecs, encoding, ms, packet, publish, read, subscribe,
};
use strait_wire::codec::red::{Block, write};
use strait_wire::rtcp;

const RED: u8 = 63;

fn red(pt: u8) -> Codec {
    let identity = "red/48000/2".into();
    Codec { pt, kind: CodecKind::Other, identity, ..codecs(Kind::Audio, 0).remove(0) }
}

fn opus(pt: u8) -> Codec {
    Codec { pt, ..codecs(Kind::Audio, 0).remove(0) }
}

/// A publisher with such a leg as publication 1, and a subscriber with such a one.
fn call(publisher: &[Codec], subscriber: &[Codec]) -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let sender = Client::connected(&mut bench, 1);
    let receiver = Client::connected(&mut bench, 2);
    let mut command = publish(sender.id, 1, Kind::Audio, &[encoding(5)]);
    if let Command::Publish { codecs, .. } = &mut command {
        *codecs = publisher.to_vec();
    }
    bench.command(command);
    let mut command = subscribe(receiver.id, 1, Kind::Audio, Some(1));
    if let Command::Subscribe { codecs, .. } = &mut command {
        *codecs = subscriber.to_vec();
    }
    bench.command(command);
    bench.sent();
    (bench, sender, receiver)
}

fn sound(pt: u8, seq: u16, payload: &[u8]) -> Vec<u8> {
    packet((5, pt, seq, u32::from(seq) * 960), &[(IDS.mid, b"1")], payload)
}

/// With what came before, as libwebrtc sends it.
fn redundant(pt: u8) -> Vec<u8> {
    let mut out = [0; 64];
    let earlier = [Block { timestamp_offset: 960, payload: &[1, 1, 1] }];
    let len = write(&mut out, pt, &earlier, &[2, 2]).unwrap();
    out[..len].to_vec()
}

#[test]
fn it_goes_on_to_those_who_take_it_with_the_payload_types_of_their_leg() {
    let (mut bench, mut sender, mut receiver) =
        call(&[red(RED), opus(OPUS)], &[opus(109), red(110)]);
    sender.send(&mut bench, &sound(RED, 1, &redundant(OPUS)));
    let media = receiver.media(&mut bench);
    let sent = read(&media[0]);
    assert_eq!((sent.pt(), sent.payload()), (110, &redundant(109)[..]));
    // A publisher may fall back, and nothing is made for one who does not prefer it.
    sender.send(&mut bench, &sound(OPUS, 2, &[3]));
    let media = receiver.media(&mut bench);
    assert_eq!((read(&media[0]).pt(), read(&media[0]).payload()), (109, &[3][..]));
}

#[test]
fn it_is_taken_off_for_those_who_do_not() {
    let (mut bench, mut sender, mut receiver) = call(&[red(RED), opus(OPUS)], &[opus(109)]);
    sender.send(&mut bench, &sound(RED, 1, &redundant(OPUS)));
    let media = receiver.media(&mut bench);
    let sent = read(&media[0]);
    assert_eq!((sent.pt(), sent.payload()), (109, &[2, 2][..]));
    assert!(sent.marker() && !sent.has_padding());
    // Headers that promise more than there is.
    sender.send(&mut bench, &sound(RED, 2, &[0x80 | OPUS, 0, 3, 255, OPUS, 1]));
    assert_eq!(bench.dropped(DropReason::RtpMalformed), 1);
    assert_eq!(receiver.media(&mut bench).len(), 0);
}

#[test]
fn it_is_made_for_those_who_prefer_it() {
    let (mut bench, mut sender, mut receiver) = call(&[opus(OPUS)], &[red(110), opus(109)]);
    let mut payloads = Vec::new();
    for seq in [1, 2, 3, 5, 6] {
        sender.send(&mut bench, &sound(OPUS, seq, &[seq as u8; 3]));
        let media = receiver.media(&mut bench);
        assert_eq!(read(&media[0]).pt(), 110);
        payloads.push(read(&media[0]).payload().to_vec());
    }
    let made = |earlier: &[(u16, u8)], own: u8| {
        let payloads: Vec<[u8; 3]> = earlier.iter().map(|(_, byte)| [*byte; 3]).collect();
        let blocks = earlier.iter().zip(&payloads);
        let blocks: Vec<Block<'_>> = blocks
            .map(|((offset, _), payload)| Block { timestamp_offset: *offset, payload })
            .collect();
        let mut out = [0; 64];
        let len = write(&mut out, 109, &blocks, &[own; 3]).unwrap();
        out[..len].to_vec()
    };
    assert_eq!(payloads[0], made(&[], 1), "nothing came before");
    assert_eq!(payloads[1], made(&[(960, 1)], 2));
    assert_eq!(payloads[2], made(&[(1920, 1), (960, 2)], 3));
    assert_eq!(payloads[3], made(&[(1920, 3)], 5), "what was lost is left out");
    assert_eq!(payloads[4], made(&[(960, 5)], 6));
}

#[test]
fn what_is_too_old_or_too_long_is_left_out() {
    let (mut bench, mut sender, mut receiver) = call(&[opus(OPUS)], &[red(110), opus(109)]);
    // 400 ms of silence between two packets.
    let times = [(1, 0), (2, 400 * 48), (3, 420 * 48), (4, 440 * 48)];
    let sizes = [10, 10, 600, 600];
    let mut lengths = Vec::new();
    for ((seq, timestamp), size) in times.into_iter().zip(sizes) {
        let bytes = packet((5, OPUS, seq, timestamp), &[(IDS.mid, b"1")], &vec![9; size]);
        sender.send(&mut bench, &bytes);
        lengths.push(read(&receiver.media(&mut bench)[0]).payload().len());
        bench.run(ms(20));
    }
    assert_eq!(lengths, [11, 11, 600 + 10 + 5, 601]);
}

#[test]
fn what_was_made_is_never_made_again() {
    let nack = |codec: Codec| Codec { nack: true, ..codec };
    let (mut bench, mut sender, mut receiver) =
        call(&[opus(OPUS)], &[nack(red(110)), nack(opus(109))]);
    sender.send(&mut bench, &sound(OPUS, 1, &[1]));
    sender.send(&mut bench, &sound(OPUS, 3, &[3]));
    assert_eq!(receiver.media(&mut bench).len(), 2);
    // Late: it would be in what is sent again, under the nonce of what was sent without it.
    sender.send(&mut bench, &sound(OPUS, 2, &[2]));
    receiver.media(&mut bench);
    let ask = |rtcp: &mut rtcp::Writer<'_>| {
        rtcp.receiver_report(1, &[]).unwrap();
        rtcp.nack(1, 1001, [102]).unwrap();
    };
    receiver.send_rtcp(&mut bench, ask);
    assert_eq!(receiver.media(&mut bench).len(), 0);
}

#[test]
fn packets_are_kept_only_where_somebody_wants_them() {
    let kept = |subscriber: &[Codec]| {
        let (mut bench, mut sender, _) = call(&[opus(OPUS)], subscriber);
        sender.send(&mut bench, &sound(OPUS, 1, &[1]));
        let bytes = bench.worker.statistics().cache_bytes;
        let publication = PublicationId(1);
        bench.command(Command::Bind {
            subscription: crate::command::SubscriptionId(1),
            publication: None,
        });
        bench.command(Command::SetMuted { publication, muted: false });
        (bytes > 0, bench.worker.statistics().cache_bytes > 0)
    };
    assert_eq!(kept(&[opus(109), red(110)]), (false, false));
    assert_eq!(kept(&[red(110), opus(109)]), (true, false));
}
