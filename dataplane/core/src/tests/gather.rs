//! Frames that are held and sent in runs.

use crate::command::{Kind, PeerId};
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::limits::{GATHERED_PACKETS, PADDING_BYTES};
use crate::port::Path;
use crate::testing::{Bench, Client, IDS, OPUS, VP8, encoding, ms, packet, read, subscribe, vp8};

/// How long these workers hold an open frame.
const HOLD_MS: u64 = 2;

/// A publisher of video (SSRC 5, publication 1) and sound (SSRC 7, publication 2), and two subscribers to both.
struct Call {
    bench: Bench,
    publisher: Client,
    subscribers: [Client; 2],
}

/// A run: to whom, how many datagrams, of which size.
type Run = (Path, usize, usize);

impl Call {
    fn new() -> Self {
        let mut bench = Bench::gathering(ms(HOLD_MS));
        let publisher = Client::connected(&mut bench, 1);
        publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
        publisher.publish(&mut bench, 2, Kind::Audio, &[encoding(7)]);
        let subscribers = [2, 3].map(|id| {
            let client = Client::connected(&mut bench, id);
            client.subscribe(&mut bench, id, Kind::Video, Some(1));
            client.subscribe(&mut bench, 100 + id, Kind::Audio, Some(2));
            client
        });
        bench.sent();
        Self { bench, publisher, subscribers }
    }

    /// Sends the packets of one frame with payloads of these lengths; the first begins a key frame.
    fn frame(&mut self, first_seq: u16, lengths: &[usize], complete: bool) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for (at, length) in lengths.iter().enumerate() {
            let mut payload = vp8(7, 0, at == 0);
            payload[0] &= if at == 0 { 0xff } else { 0xef };
            payload.resize(*length, at as u8);
            let last = complete && at + 1 == lengths.len();
            let seq = first_seq + at as u16;
            let mut bytes = packet((5, VP8, seq, 3000), &[(IDS.mid, b"1")], &payload);
            bytes[1] = (bytes[1] & 0x7f) | (u8::from(last) << 7);
            self.publisher.send(&mut self.bench, &bytes);
            payloads.push(payload);
        }
        payloads
    }

    /// Forwards if it is due; the runs to the subscribers.
    fn forward(&mut self) -> Vec<Run> {
        let Bench { worker, egress, now, .. } = &mut self.bench;
        if worker.is_due(now.at) {
            worker.forward(*now, egress, |_| panic!("far from full"));
        }
        let to = |path: &Path| self.subscribers.iter().any(|client| client.path == *path);
        egress.runs().filter(|run| to(&run.path)).map(|r| (r.path, r.count, r.size)).collect()
    }

    /// Payloads that the first subscriber got since the last time, and the packets' sizes before encryption.
    fn received(&mut self) -> (Vec<Vec<u8>>, Vec<usize>) {
        let media = self.subscribers[0].media(&mut self.bench);
        let payloads = media.iter().map(|bytes| read(bytes).payload().to_vec()).collect();
        (payloads, media.iter().map(Vec::len).collect())
    }
}

#[test]
fn a_frame_goes_out_as_one_run_to_each_when_its_last_packet_came() {
    let mut call = Call::new();
    let lengths = [1000, 1000, 1001, 1001, 1000 - PADDING_BYTES, 700];
    let sent = call.frame(1, &lengths[..5], false);
    assert_eq!(call.forward(), [], "the frame is open");
    let last = call.frame(6, &lengths[5..], true);
    let runs = call.forward();
    let paths: Vec<_> = call.subscribers.iter().map(|client| client.path).collect();
    // One byte more is beyond what is padded: 1001 to 988 are 13 apart.
    assert_eq!(
        runs.iter().map(|run| run.0).collect::<Vec<_>>(),
        [paths[0], paths[0], paths[1], paths[1]]
    );
    assert_eq!(runs.iter().map(|run| run.1).collect::<Vec<_>>(), [5, 1, 5, 1]);
    let (payloads, sizes) = call.received();
    assert_eq!(payloads, [sent, last].concat(), "the padding is not payload");
    assert!(sizes[..4].windows(2).all(|two| two[0] == two[1]), "{sizes:?}");
}

#[test]
fn an_open_frame_is_held_for_so_long_only() {
    let mut call = Call::new();
    call.frame(1, &[1000, 1000], false);
    call.bench.run(ms(0));
    assert_eq!(call.bench.worker.next_timeout(), Some(call.bench.now.at + ms(HOLD_MS)));
    call.bench.advance(ms(HOLD_MS));
    assert_eq!(call.forward().len(), 2);
    assert_eq!(call.received().0.len(), 2);
    assert!(!call.bench.worker.is_due(call.bench.now.at), "nothing is left");
}

#[test]
fn sound_waits_for_no_frame_of_its_own() {
    let mut call = Call::new();
    let sound = packet((7, OPUS, 1, 960), &[(IDS.mid, b"2")], &[1, 2, 3]);
    call.publisher.send(&mut call.bench, &sound);
    assert_eq!(call.forward().len(), 2, "at once");
    call.received();
    call.frame(1, &[1000], false);
    let sound = packet((7, OPUS, 2, 1920), &[(IDS.mid, b"2")], &[1, 2, 3]);
    call.publisher.send(&mut call.bench, &sound);
    assert_eq!(call.forward(), [], "with the frame that is open");
    call.bench.advance(ms(HOLD_MS));
    let runs = call.forward();
    let ours: Vec<_> = runs.iter().map(|run| (run.0, run.1)).collect();
    let each = call.subscribers.iter().flat_map(|client| [(client.path, 1); 2]);
    assert_eq!(ours, each.collect::<Vec<_>>());
    assert!(runs[0].2 < runs[1].2 && runs[2].2 < runs[3].2, "sound goes before the picture");
}

#[test]
fn without_retransmission_nothing_is_padded() {
    let mut bench = Bench::gathering(ms(HOLD_MS));
    let publisher = Client::connected(&mut bench, 1);
    publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
    let subscribers = [2, 3].map(|id| Client::connected(&mut bench, id));
    let mut command = subscribe(PeerId(2), 2, Kind::Video, Some(1));
    if let crate::command::Command::Subscribe { rtx_ssrc, codecs, .. } = &mut command {
        *rtx_ssrc = 0;
        codecs[0].rtx_pt = None;
    }
    bench.command(command);
    let mut call = Call { bench, publisher, subscribers };
    call.bench.sent();
    call.frame(1, &[1000, 1001, 1000], true);
    assert_eq!(call.forward().iter().map(|run| run.1).collect::<Vec<_>>(), [1, 2]);
    let (_, sizes) = call.received();
    assert_eq!([sizes[1] - sizes[0], sizes[1] - sizes[2]], [1, 1]);
}

#[test]
fn short_and_padded_packets_come_out_as_they_are() {
    let mut call = Call::new();
    let mut bytes = packet((5, VP8, 1, 3000), &[(IDS.mid, b"1")], &vp8(7, 0, true));
    bytes[0] |= 0x20;
    bytes.extend_from_slice(&[0, 0, 3]);
    call.publisher.send(&mut call.bench, &bytes);
    assert_eq!(call.forward().len(), 2);
    let (payloads, _) = call.received();
    assert_eq!(payloads, [vp8(7, 0, true)], "the publisher's padding is not handed on");
}

#[test]
fn what_no_more_can_be_held_of_is_due_and_a_driver_that_does_not_care_loses_it_counted() {
    let mut call = Call::new();
    let lengths = vec![900; GATHERED_PACKETS];
    call.frame(1, &lengths, false);
    assert!(call.bench.worker.is_due(call.bench.now.at), "full");
    let Call { bench, publisher, .. } = &mut call;
    let more = packet((5, VP8, 1 + GATHERED_PACKETS as u16, 3000), &[(IDS.mid, b"1")], &[0; 900]);
    bench.drops(DropReason::EgressFull, |bench| publisher.send(bench, &more));
    assert_eq!(call.forward().len(), 2);
    assert_eq!(call.received().0.len(), GATHERED_PACKETS);
}

#[test]
fn a_command_finds_nothing_held() {
    let mut call = Call::new();
    call.frame(1, &[1000, 1000], false);
    let command = crate::command::Command::RemovePeer { peer: PeerId(1) };
    call.bench.command(command);
    assert_eq!(call.received().0.len(), 2, "they came before the command");
    assert!(!call.bench.worker.is_due(call.bench.now.at + ms(10)));
}

#[test]
fn an_egress_that_fills_up_is_sent_in_between() {
    let mut call = Call::new();
    for id in 4..60 {
        let client = Client::connected(&mut call.bench, id);
        client.subscribe(&mut call.bench, id, Kind::Video, Some(1));
    }
    call.bench.sent();
    call.frame(1, &[1100; 40], true);
    let Bench { worker, egress, now, .. } = &mut call.bench;
    let (mut sends, mut datagrams) = (0, 0);
    let mut send = |egress: &mut Egress| {
        sends += 1;
        datagrams += egress.len();
        egress.clear();
    };
    worker.forward(*now, egress, &mut send);
    send(egress);
    assert_eq!(datagrams, 40 * 58);
    assert!(sends > 10, "{sends}");
}
