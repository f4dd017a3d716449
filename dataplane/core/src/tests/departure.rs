//! What waits for a line that is known to be narrow, packet by packet, and what becomes of it.

use crate::command::{Command, Kind, PeerId, Preferences, SubscriptionId};
use crate::drop::DropReason;
use crate::limits::{PACER_PACKETS, PACER_WAIT};
use crate::testing::{
    Bench, Client, IDS, Line, OPUS, SCOPE, VP8, VP8_RTX, encoding, ms, packet, read, vp8,
};
use std::collections::{BTreeMap, BTreeSet};
use strait_wire::rtcp;

const FRAME_MS: u64 = 40;

/// A publisher (video SSRC 5, sound SSRC 7), who gets all at once (peer 2) and who is limited (peer 3).
struct Pair {
    bench: Bench,
    publisher: Client,
    free: Client,
    limited: Client,
    line: Line,
    seqs: BTreeMap<u32, u16>,
    sounds: u16,
    /// Numbers that the limited one asks for again. Other retransmissions to it are probes of its line.
    nacked: Vec<u16>,
    /// What came to both, and of which streams the publisher was asked for a key frame.
    got: [Vec<Got>; 2],
    asked: Vec<u32>,
}

/// A number, a timestamp, and what is carried.
type Got = (u16, u32, Vec<u8>);

/// What the line carries of which no more is said, in kbit/s.
const PROVEN: u64 = 4000;

impl Pair {
    fn new(limit_bps: u64) -> Self {
        let mut bench = Bench::gathering(ms(2));
        let publisher = Client::connected(&mut bench, 1);
        publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
        publisher.publish(&mut bench, 2, Kind::Audio, &[encoding(7)]);
        let [free, limited] = [2, 3].map(|id| {
            let client = Client::connected(&mut bench, id);
            client.subscribe(&mut bench, id, Kind::Video, Some(1));
            client.subscribe(&mut bench, 100 + id, Kind::Audio, Some(2));
            client
        });
        bench.sent();
        let mut pair = Self {
            bench,
            publisher,
            free,
            limited,
            line: Line::default(),
            seqs: BTreeMap::new(),
            sounds: 0,
            nacked: Vec::new(),
            got: Default::default(),
            asked: Vec::new(),
        };
        pair.prove();
        pair.limit(limit_bps);
        pair.pass(1500);
        assert_eq!(pair.waiting(), Some(0), "what it says limits it");
        let free = pair.bench.worker.peer_statistics(PeerId(2)).unwrap();
        assert_eq!(free.pacer, None, "whose line is not known is not kept waiting");
        pair.frame(1, true);
        pair.pass(100);
        pair.asked.clear();
        pair
    }

    /// Sends more and more until a queue grows, and then nothing for a while.
    fn prove(&mut self) {
        for n in 0..100 {
            self.frame((PROVEN * FRAME_MS / 8000) as u8, n == 0);
            if n >= 50 && self.waiting().is_none() {
                self.line.queue += ms(10);
            }
            self.pass(FRAME_MS);
        }
        self.line.queue = ms(0);
        self.pass(500);
        let bps = self.bench.worker.peer_statistics(PeerId(3)).unwrap().budget_bps;
        assert!(bps > Some(PROVEN * 500), "{bps:?}");
    }

    /// What the limited one says that its line carries.
    fn limit(&mut self, bps: u64) {
        self.limited.send_rtcp(&mut self.bench, |rtcp| rtcp.remb(1, bps, &[1003]).unwrap());
    }

    /// One frame.
    fn frame(&mut self, packets: u8, key_frame: bool) {
        let made = self.made(packets, key_frame);
        self.publish(&made);
    }

    /// The packets of one frame.
    fn made(&mut self, packets: u8, key_frame: bool) -> Vec<Vec<u8>> {
        self.made_of(5, packets, key_frame)
    }

    /// The same of any source, which is the last thing that the packets say.
    fn made_of(&mut self, ssrc: u32, packets: u8, key_frame: bool) -> Vec<Vec<u8>> {
        let timestamp = self.timestamp();
        let seq = self.seqs.entry(ssrc).or_default();
        let mid: &[(u8, &[u8])] = if ssrc < 10 { &[(IDS.mid, b"1")] } else { &[] };
        let make = |at| {
            *seq += 1;
            let mut payload = vp8(*seq, *seq as u8, key_frame);
            payload[0] &= if at == 0 { 0xff } else { 0xef };
            payload.resize(1000 + usize::from(at % 3), at);
            payload.push(ssrc as u8);
            let mut bytes = packet((ssrc, VP8, *seq, timestamp), mid, &payload);
            bytes[1] = (bytes[1] & 0x7f) | (u8::from(at + 1 == packets) << 7);
            bytes
        };
        (0..packets).map(make).collect()
    }

    fn frame_of(&mut self, ssrc: u32, packets: u8, key_frame: bool) {
        let made = self.made_of(ssrc, packets, key_frame);
        self.publish(&made);
    }

    /// A packet that only pads.
    fn padding(&mut self) {
        let (timestamp, seq) = (self.timestamp(), self.seqs.entry(5).or_default());
        *seq += 1;
        let bytes = packet((5, VP8, *seq, timestamp), &[], &[]);
        self.publish(&[bytes]);
    }

    fn timestamp(&self) -> u32 {
        (self.bench.now.at.0 / 1_000_000) as u32 * 90
    }

    fn publish(&mut self, packets: &[Vec<u8>]) {
        packets.iter().for_each(|bytes| self.publisher.send(&mut self.bench, bytes));
        self.forward();
    }

    fn sound(&mut self) {
        self.sounds += 1;
        let sound = packet((7, OPUS, self.sounds, u32::from(self.sounds) * 960), &[], &[1; 80]);
        self.publisher.send(&mut self.bench, &sound);
        self.forward();
    }

    fn forward(&mut self) {
        let Bench { worker, egress, now, .. } = &mut self.bench;
        worker.forward(*now, egress, |_| panic!("far from full"));
    }

    fn pass(&mut self, for_ms: u64) -> [Vec<Got>; 2] {
        for _ in 0..for_ms {
            self.bench.run(ms(1));
            self.collect();
            self.line.tell(&mut self.bench, &mut self.limited);
        }
        self.got()
    }

    /// What came to both since the last time.
    fn got(&mut self) -> [Vec<Got>; 2] {
        self.collect();
        std::mem::take(&mut self.got)
    }

    fn collect(&mut self) {
        let sent = self.bench.sent();
        for report in self.publisher.open(&sent).1 {
            for packet in rtcp::packets(&report) {
                if let Ok(rtcp::Packet::Pli(pli)) = packet {
                    self.asked.push(pli.media_ssrc);
                }
            }
        }
        let clients = [&mut self.free, &mut self.limited];
        for (at, (client, got)) in clients.into_iter().zip(&mut self.got).enumerate() {
            for bytes in client.open(&sent).0 {
                if at == 1 {
                    self.line.carry(self.bench.now, &bytes);
                }
                let packet = read(&bytes);
                let again = packet.payload().first_chunk().map(|seq| u16::from_be_bytes(*seq));
                if packet.pt() != VP8_RTX + 10 || again.is_some_and(|n| self.nacked.contains(&n)) {
                    got.push((packet.seq(), packet.timestamp(), packet.payload().to_vec()));
                }
            }
        }
    }

    fn nack(&mut self, seqs: &[u16]) {
        self.nacked.extend(seqs);
        let nack = |rtcp: &mut rtcp::Writer<'_>| rtcp.nack(1, 1003, seqs.iter().copied()).unwrap();
        self.limited.send_rtcp(&mut self.bench, nack);
    }

    /// The number of a packet of a picture that leaves at once.
    fn frame_numbers(&mut self) -> u16 {
        self.frame(1, false);
        self.pass(500)[1].last().unwrap().0
    }

    fn waiting(&self) -> Option<u64> {
        let peer = self.bench.worker.peer_statistics(PeerId(3));
        peer.unwrap().pacer.map(|pacer| pacer.waiting.packets)
    }
}

#[test]
fn what_waits_leaves_in_order_at_the_rate_of_the_line_and_as_it_would_have_at_once() {
    let mut pair = Pair::new(800_000);
    pair.frame(20, false);
    let [free, limited] = pair.got();
    assert_eq!(free.len(), 20, "at once");
    assert!((3..=6).contains(&limited.len()), "a burst: {}", limited.len());
    let mut all = limited;
    pair.sound();
    let [_, sound] = pair.got();
    assert_eq!(sound.len(), 1, "sound waits for no picture");
    // 20 packets of some 1,050 bytes at 880 kbit/s take 190 ms, the first 40 ms of it at once.
    let [_, later] = pair.pass(90);
    assert!((8..=12).contains(&later.len()), "{}", later.len());
    all.extend(later);
    pair.frame(2, false);
    let [more, none] = pair.got();
    assert_eq!((more.len(), none.len()), (2, 0), "behind what waits");
    all.extend(pair.pass(120).into_iter().nth(1).unwrap());
    assert_eq!(all, [free, more].concat(), "the same packets in the same order");
    assert_eq!(pair.waiting(), Some(0));
    assert_eq!(pair.bench.dropped(DropReason::PacerFull), 0);
}

#[test]
fn what_is_asked_for_again_goes_before_what_waits() {
    let mut pair = Pair::new(300_000);
    pair.frame(12, false);
    let [_, first] = pair.got();
    let asked = first.first().unwrap().0;
    for _ in 0..2 {
        pair.nack(&[asked]);
    }
    let [_, later] = pair.pass(100);
    let again = later.first().unwrap();
    assert_eq!(again.2[..2], asked.to_be_bytes(), "wrapped in RTX");
    let others = &later[1..];
    assert!(others.iter().all(|(_, _, payload)| payload[..2] != asked.to_be_bytes()), "once");
    assert!(others.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "in order");
}

#[test]
fn too_much_is_given_up_to_the_next_key_frame_and_leaves_no_hole() {
    let mut pair = Pair::new(200_000);
    let (mut got, mut most) = (Vec::new(), 0);
    let before = pair.bench.dropped(DropReason::PacerFull);
    for n in 0..200 {
        pair.frame(4, n == 100);
        got.extend(pair.pass(33).into_iter().nth(1).unwrap());
        most = most.max(pair.waiting().unwrap());
    }
    let waiting = pair.waiting().unwrap();
    let dropped = pair.bench.dropped(DropReason::PacerFull);
    assert_eq!(got.len() as u64 + waiting + dropped - before, 800, "each is somewhere, and once");
    assert_eq!(pair.bench.worker.statistics().pacing.dropped, dropped);
    got.extend(pair.pass(2000).into_iter().nth(1).unwrap());
    assert!(most < 30, "{most}: more than {PACER_WAIT:?}");
    assert!(dropped > 400);
    assert!(got.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "numbers count on");
    let times: BTreeSet<u32> = got.iter().map(|(_, at, _)| *at).collect();
    for at in &times {
        let packets = got.iter().filter(|(_, time, _)| time == at).count();
        assert_eq!(packets, 4, "frames are whole");
    }
    // The first ones until too much waits, and again from the key frame on.
    assert!((8..60).contains(&times.len()), "{} frames", times.len());
}

/// The numbers of the packets.
fn numbers(got: &[Got]) -> Vec<u16> {
    got.iter().map(|(seq, ..)| *seq).collect()
}

#[test]
fn what_comes_late_leaves_in_its_place() {
    let mut pair = Pair::new(800_000);
    let (first, mut second) = (pair.made(16, false), pair.made(8, false));
    let late = [second.remove(3)];
    pair.publish(&first);
    pair.publish(&second);
    let [_, mut all] = pair.got();
    assert!(all.len() < 8, "the others wait");
    pair.publish(&late);
    all.extend(pair.pass(500).into_iter().nth(1).unwrap());
    assert_eq!(all.len(), 24);
    assert!(numbers(&all).is_sorted(), "{:?}", numbers(&all));
}

#[test]
fn a_key_frame_goes_before_what_waits_but_for_the_frame_that_has_begun_to_leave() {
    let mut pair = Pair::new(400_000);
    pair.frame(10, false);
    let [_, mut all] = pair.pass(33);
    assert!((1..10).contains(&all.len()), "begun");
    pair.frame(6, false);
    let [free, more] = pair.pass(33);
    all.extend(more);
    let stale = free.first().unwrap().1;
    pair.frame(3, true);
    all.extend(pair.pass(1000).into_iter().nth(1).unwrap());
    assert_eq!(all.len(), 13, "ten of the first, and the key frame");
    assert!(all.iter().all(|(_, at, _)| *at != stale));
    assert!(numbers(&all).windows(2).all(|pair| pair[0] + 1 == pair[1]), "no hole");
    assert_eq!(pair.bench.dropped(DropReason::PacerFull), 6);
    // Nobody can have what was never sent.
    let asked = all.last().unwrap().0 + 2;
    pair.nack(&[asked]);
    assert_eq!(pair.pass(300)[1], []);
}

#[test]
fn a_key_frame_that_is_too_long_for_the_line_is_given_up_before_it_begins() {
    let mut pair = Pair::new(150_000);
    for _ in 0..3 {
        pair.frame(60, true);
        let [free, limited] = pair.pass(1000);
        assert_eq!((free.len(), limited.len()), (60, 0));
    }
    pair.frame(4, true);
    let [_, limited] = pair.pass(1000);
    assert_eq!(limited.len(), 4, "one that fits");
}

#[test]
fn a_key_frame_of_nearly_two_seconds_is_shown_and_what_follows_goes_on_with_the_next() {
    let mut pair = Pair::new(1_000_000);
    pair.frame(4, true);
    pair.pass(1000);
    for n in 0..3 {
        let mut got = [Vec::new(), Vec::new()];
        for part in pair.made(180, true).chunks(60) {
            pair.publish(part);
            got.iter_mut().zip(pair.got()).for_each(|(all, more)| all.extend(more));
        }
        let [free, mut limited] = got;
        for _ in 0..70 {
            limited.extend(pair.pass(33).into_iter().nth(1).unwrap());
            pair.frame(1, false);
        }
        limited.extend(pair.pass(33).into_iter().nth(1).unwrap());
        let stamp = free.first().unwrap().1;
        let shown = limited.iter().filter(|(_, at, _)| *at == stamp).count();
        assert_eq!((free.len(), shown), (180, 180), "{n}");
    }
}

#[test]
fn packets_that_wait_are_bounded_whatever_comes() {
    let mut pair = Pair::new(30_000);
    for n in 0..60 {
        pair.frame(60, n % 2 == 0);
        pair.pass(1);
        assert!(pair.waiting().unwrap() <= PACER_PACKETS as u64);
    }
}

#[test]
fn what_waits_moves_with_its_scope_and_goes_with_its_subscription() {
    let mut pair = Pair::new(300_000);
    pair.frame(12, false);
    let [free, mut all] = pair.got();
    let mut there = Bench::new();
    there.command(Command::DisposeScope { scope: SCOPE });
    let moved = pair.bench.worker.take_scope(pair.bench.now, SCOPE, &mut pair.bench.egress);
    there.now = pair.bench.now;
    there.worker.adopt_scope(there.now, moved.unwrap(), &mut there.egress);
    pair.bench = there;
    all.extend(pair.pass(500).into_iter().nth(1).unwrap());
    assert_eq!(all, free);

    pair.frame(12, false);
    pair.got();
    let waiting = pair.waiting().unwrap();
    assert!(waiting > 0);
    let subscription = SubscriptionId(3);
    pair.bench.command(Command::Unsubscribe { subscription });
    assert_eq!(pair.waiting(), Some(0));
    assert_eq!(pair.bench.dropped(DropReason::PacerForgotten), waiting);
    pair.frame(1, false);
    let [_, limited] = pair.pass(300);
    assert_eq!(limited, []);
}

#[test]
fn a_key_frame_out_of_the_cache_leaves_at_the_rate_of_the_line() {
    let mut pair = Pair::new(800_000);
    pair.frame(20, true);
    let [free, _] = pair.pass(400);
    let preferences = |paused| Preferences { paused, ..Preferences::default() };
    for paused in [true, false] {
        let (subscription, preferences) = (SubscriptionId(3), preferences(paused));
        pair.bench.command(Command::SetPreferences { subscription, preferences });
        pair.frame(20, true);
        let at_once = pair.got()[1].len();
        assert!(at_once < 8, "{at_once}");
        pair.bench.advance(ms(300 * u64::from(paused)));
    }
    let [_, shown] = pair.pass(1000);
    let numbers: Vec<u16> = shown.iter().map(|(seq, ..)| *seq).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    assert!(!shown.is_empty() && !free.is_empty());
}

#[test]
fn who_falls_silent_after_a_key_frame_that_was_given_up_is_asked_for_another() {
    let mut pair = Pair::new(150_000);
    pair.frame(60, true);
    pair.pass(1500);
    assert!(pair.asked.contains(&5), "though nothing more comes");
    pair.frame(4, true);
    assert_eq!(pair.pass(1000)[1].len(), 4);
}

#[test]
fn a_key_frame_is_asked_for_though_something_else_always_waits() {
    let mut pair = Pair::new(800_000);
    pair.publisher.publish(&mut pair.bench, 3, Kind::Video, &[encoding(20)]);
    pair.limited.subscribe(&mut pair.bench, 203, Kind::Video, Some(3));
    let round = |pair: &mut Pair| {
        let anew = pair.asked.contains(&20);
        pair.asked.retain(|ssrc| *ssrc != 20);
        pair.frame_of(20, 11, anew);
        // What the other sends always finds that waiting.
        pair.frame(1, false);
        pair.pass(200)
    };
    let of = |got: &[Got], ssrc: u8| got.iter().any(|(.., carried)| carried.last() == Some(&ssrc));
    (0..20).for_each(|_| drop(round(&mut pair)));
    let [_, got] = round(&mut pair);
    assert!(of(&got, 20) && of(&got, 5), "both fit");
    for part in pair.made(80, true).chunks(40) {
        pair.publish(part);
    }
    let before = pair.bench.dropped(DropReason::PacerFull);
    let given_up = (0..5).find(|_| {
        round(&mut pair);
        pair.bench.dropped(DropReason::PacerFull) > before
    });
    assert!(given_up.is_some());
    let asked = (0..10).find(|_| {
        round(&mut pair);
        pair.asked.contains(&5)
    });
    assert!(asked.is_some(), "within two seconds");
}

#[test]
fn what_was_given_up_goes_on_with_a_key_frame_whatever_becomes_of_the_pacer() {
    let mut pair = Pair::new(200_000);
    let (mut got, before) = (Vec::new(), pair.bench.dropped(DropReason::PacerFull));
    while pair.bench.dropped(DropReason::PacerFull) == before {
        pair.frame(4, false);
        got.extend(pair.pass(33).into_iter().nth(1).unwrap());
    }
    got.extend(pair.pass(1000).into_iter().nth(1).unwrap());
    assert_eq!(pair.waiting(), Some(0));
    let slot = pair.bench.worker.peer_ids[&PeerId(3)];
    pair.bench.worker.peers.get_mut(slot).unwrap().pacer = None;
    pair.frame(4, false);
    assert_eq!(pair.pass(100)[1], [], "across what was given up");
    pair.frame(4, true);
    got.extend(pair.pass(500).into_iter().nth(1).unwrap());
    assert!(numbers(&got).windows(2).all(|pair| pair[0] + 1 == pair[1]), "no hole");
    assert_eq!(got.len() % 4, 0, "whole");
}

#[test]
fn what_a_publisher_begins_anew_with_is_not_given_up_with_what_it_sent_before() {
    let mut pair = Pair::new(400_000);
    pair.frame(20, false);
    let [_, mut got] = pair.pass(50);
    assert!((3..12).contains(&got.len()), "{}", got.len());
    let before = (pair.bench.dropped(DropReason::PacerFull), got.len());
    pair.publisher.send_rtcp(&mut pair.bench, |rtcp| {
        rtcp.receiver_report(5, &[]).unwrap();
        rtcp.bye(&[5]).unwrap();
    });
    pair.frame_of(9, 6, true);
    got.extend(pair.pass(500).into_iter().nth(1).unwrap());
    let anew = got.iter().filter(|(.., carried)| carried.last() == Some(&9)).count();
    assert_eq!(anew, 6);
    assert!(numbers(&got).windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", numbers(&got));
    let given_up = pair.bench.dropped(DropReason::PacerFull) - before.0;
    assert_eq!(given_up + got.len() as u64, 26);
    assert_eq!(pair.bench.worker.statistics().pacing.dropped, given_up + before.0);
    // And it goes on under the numbers that it has now.
    pair.frame_of(9, 2, false);
    let [_, more] = pair.pass(500);
    assert_eq!(numbers(&more), [1, 2].map(|n| numbers(&got).last().unwrap() + n));
}

#[test]
fn the_key_frame_of_another_layer_goes_out_instead_of_one_that_waits() {
    let mut pair = Pair::new(400_000);
    pair.bench.command(Command::Unsubscribe { subscription: SubscriptionId(3) });
    pair.publisher.publish(&mut pair.bench, 4, Kind::Video, &[encoding(20), encoding(30)]);
    pair.limited.subscribe(&mut pair.bench, 204, Kind::Video, Some(4));
    let round = |pair: &mut Pair| {
        let [low, high] = [20, 30].map(|ssrc| pair.asked.contains(&ssrc));
        pair.asked.clear();
        pair.frame_of(20, 1, low);
        pair.frame_of(30, 3, high);
        let [_, got] = pair.pass(100);
        got.iter().filter_map(|(.., carried)| carried.last().copied()).collect::<Vec<u8>>()
    };
    (0..80).for_each(|_| drop(round(&mut pair)));
    assert!(round(&mut pair).contains(&30), "the high one fits");
    pair.frame_of(30, 25, false);
    pair.pass(10);
    pair.frame_of(30, 20, true);
    pair.pass(10);
    let before = pair.bench.dropped(DropReason::PacerFull);
    pair.frame_of(30, 3, false);
    assert_eq!(pair.bench.dropped(DropReason::PacerFull) - before, 3, "too much waits");
    let (subscription, low) = (SubscriptionId(204), Some(0));
    let preferences = Preferences { layer_max: low, ..Preferences::default() };
    pair.bench.command(Command::SetPreferences { subscription, preferences });
    let came = (0..10).flat_map(|_| round(&mut pair)).collect::<Vec<_>>();
    let low = came.iter().filter(|ssrc| **ssrc == 20).count();
    assert!(low >= 8, "{came:?}");
}

#[test]
fn packets_that_only_pad_wait_as_others_do() {
    let mut pair = Pair::new(30_000);
    pair.frame(2, false);
    for n in 0..3 * PACER_PACKETS {
        pair.padding();
        if n % 20 == 0 {
            pair.pass(1);
        }
        assert!(pair.waiting().unwrap() <= PACER_PACKETS as u64);
    }
    let mut pair = Pair::new(150_000);
    pair.frame(60, true);
    pair.pass(100);
    pair.asked.clear();
    (0..5).for_each(|_| pair.padding());
    assert_eq!((pair.pass(100)[1].len(), pair.asked.len()), (0, 0), "none begins anything");
}

#[test]
fn what_is_asked_for_again_and_cannot_be_sent_takes_nobodys_turn() {
    let mut pair = Pair::new(30_000);
    let newest = pair.frame_numbers();
    // What may be sent again is nearly used up.
    pair.nack(&[newest]);
    pair.got();
    let mut media = 0;
    for n in 0..110 {
        // More sound than the line carries.
        pair.sound();
        if n == 10 {
            pair.frame(3, false);
            let asked: Vec<u16> = (newest - 40..newest).collect();
            pair.limited.send_rtcp(&mut pair.bench, |rtcp| rtcp.nack(1, 1003, asked).unwrap());
        }
        let [_, got] = pair.pass(20);
        media += got.iter().filter(|(.., carried)| carried.len() > 500).count();
    }
    assert!(pair.bench.dropped(DropReason::ResendLimited) > 20);
    assert_eq!(media, 3, "one in a quarter of a second");
}
