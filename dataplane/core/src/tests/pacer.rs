//! Sound and pictures on lines that are too narrow for both, in a closed loop with the whole worker.

use crate::bandwidth::line::Chance;
use crate::command::{Encoding, Kind, PeerId, Preferences, SubscriptionId};
use crate::drop::DropReason;
use crate::limits::{PACER_PACKETS, PACER_WAIT};
use crate::statistics::PacerStatistics;
use crate::testing::{
    Bench, Client, IDS, OPUS, SCOPE, VP8, VP8_RTX, encoding, ms, packet, read, vp8,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use strait_wire::rtcp::{self, Arrival};

const FRAME_MS: u64 = 40;
/// A key frame is so many times as large as another.
const KEY_FRAME: usize = 8;
const FEEDBACK_MS: u64 = 50;
const SOUND: u32 = 500;
/// Opus at 32 kbit/s.
const SOUND_BYTES: usize = 80;

/// A camera, a microphone, and who watches and listens over a line.
struct Call {
    bench: Bench,
    publisher: Client,
    /// SSRC and bytes of a frame of each layer.
    layers: Vec<(u32, usize)>,
    seqs: BTreeMap<u32, u16>,
    frames: u32,
    key_frames: BTreeSet<u32>,
    key_frames_sent: u64,
    viewer: Viewer,
    now_ms: u64,
    chance: Chance,
}

struct Viewer {
    client: Client,
    capacity_bps: f64,
    delay_ms: u64,
    queue_ms: f64,
    loss: f64,
    free_ms: f64,
    flying: VecDeque<(u64, Vec<u8>)>,
    arrivals: Vec<Arrival>,
    feedback: VecDeque<(u64, Vec<Arrival>, Vec<u16>)>,
    count: u8,
    /// Millisecond and wait of each packet at the line.
    waits: Vec<(u64, f64)>,
    /// Millisecond at which each packet of sound left the relay, and those that arrived.
    sound: Vec<(u64, u16)>,
    heard: BTreeSet<u16>,
    seen: Picture,
    repaired: u64,
    /// Packets of pictures that the line lost by chance.
    lost: u64,
}

/// What comes of the packets of the picture.
#[derive(Default)]
struct Picture {
    newest: Option<u64>,
    /// Outgoing numbers, extended, and what they carry: layer, frame, packet of how many, key frame.
    packets: BTreeMap<u64, [u32; 5]>,
    missing: BTreeMap<u64, u8>,
    left: Vec<u64>,
}

impl Picture {
    fn extend(&mut self, seq: u16) -> u64 {
        let newest = self.newest.unwrap_or(1 << 16 | u64::from(seq));
        newest.saturating_add_signed((seq.wrapping_sub(newest as u16) as i16).into())
    }

    fn take(&mut self, seq: u16, payload: &[u8]) {
        let seq = self.extend(seq);
        for missing in self.newest.map_or(seq, |newest| newest + 1)..seq {
            self.missing.insert(missing, 0);
        }
        self.missing.remove(&seq);
        self.newest = self.newest.max(Some(seq));
        let word = |at: usize| payload.get(12 + 4 * at..16 + 4 * at).unwrap().try_into().unwrap();
        self.packets.insert(seq, [0, 1, 2, 3, 4].map(|at| u32::from_be_bytes(word(at))));
    }

    /// Numbers to ask for.
    fn nack(&mut self) -> Vec<u16> {
        let newest = self.newest.unwrap_or_default();
        self.missing.retain(|seq, tries| *tries < 10 && seq + 400 > newest);
        self.missing.values_mut().for_each(|tries| *tries += 1);
        self.missing.keys().map(|seq| *seq as u16).collect()
    }

    /// Whole frames that can be shown. What follows without a hole must belong there.
    fn shown(&self) -> usize {
        let (mut before, mut decodes, mut shown): (Option<(u64, [u32; 5])>, bool, usize) =
            Default::default();
        for (&seq, &what) in &self.packets {
            let [layer, frame, at, of, key] = what;
            let begins = at == 0 && key == 1;
            match before {
                Some((last, [l, f, a, o, _])) if last + 1 == seq => {
                    let goes_on = (l, f, a + 1) == (layer, frame, at);
                    let next = (l, f + 1, o, 0) == (layer, frame, a + 1, at);
                    assert!(
                        goes_on || next || begins,
                        "{:?} is followed by {what:?} under {seq}",
                        before.unwrap().1
                    );
                    decodes = begins || (decodes && (goes_on || next));
                }
                _ => decodes = begins,
            }
            shown += usize::from(decodes && at + 1 == of);
            before = Some((seq, what));
        }
        shown
    }
}

impl Call {
    /// With layers of so many kbit/s.
    fn new(layers: &[usize], capacity_bps: f64, seed: u64) -> Self {
        let mut bench = Bench::gathering(ms(2));
        bench.worker.paces_reported = true;
        let publisher = Client::connected(&mut bench, 1);
        let frame = |kbps: usize| kbps * FRAME_MS as usize / 8;
        let layers: Vec<(u32, usize)> =
            (1..).map(|n| 10 * n).zip(layers.iter().map(|k| frame(*k))).collect();
        let simulcast = layers.len() > 1;
        let encodings = layers.iter().map(|(ssrc, _)| Encoding {
            rid: if simulcast { ssrc.to_string() } else { String::new() },
            ssrc: *ssrc,
            rtx_ssrc: 0,
        });
        publisher.publish(&mut bench, 1, Kind::Video, &encodings.collect::<Vec<_>>());
        publisher.publish(&mut bench, 2, Kind::Audio, &[encoding(SOUND)]);
        let client = Client::connected(&mut bench, 10);
        client.subscribe(&mut bench, 10, Kind::Video, Some(1));
        client.subscribe(&mut bench, 11, Kind::Audio, Some(2));
        bench.sent();
        let viewer = Viewer {
            client,
            capacity_bps,
            delay_ms: 20,
            queue_ms: 200.0,
            loss: 0.0,
            free_ms: 0.0,
            flying: VecDeque::new(),
            arrivals: Vec::new(),
            feedback: VecDeque::new(),
            count: 0,
            waits: Vec::new(),
            sound: Vec::new(),
            heard: BTreeSet::new(),
            seen: Picture::default(),
            repaired: 0,
            lost: 0,
        };
        Self {
            bench,
            publisher,
            layers,
            seqs: BTreeMap::new(),
            frames: 0,
            key_frames: BTreeSet::new(),
            key_frames_sent: 0,
            viewer,
            now_ms: 0,
            chance: Chance(seed),
        }
    }

    fn run(&mut self, for_ms: u64) {
        for _ in 0..for_ms {
            if self.now_ms.is_multiple_of(FRAME_MS) {
                self.frames += 1;
                for (ssrc, bytes) in self.layers.clone() {
                    let size = bytes as f64 * (0.7 + 0.6 * self.chance.next());
                    self.frame(ssrc, size as usize);
                }
            }
            if self.now_ms % 20 == 7 {
                self.sound();
            }
            if self.now_ms.is_multiple_of(5000) {
                self.publisher.check(&mut self.bench);
                self.viewer.client.check(&mut self.bench);
            }
            self.forward();
            self.bench.run(ms(1));
            self.now_ms += 1;
            self.forward();
            self.carry();
        }
    }

    fn forward(&mut self) {
        let Bench { worker, egress, now, .. } = &mut self.bench;
        if worker.is_due(now.at) {
            worker.forward(*now, egress, |_| {});
        }
    }

    fn frame(&mut self, ssrc: u32, bytes: usize) {
        let key_frame = self.key_frames.remove(&ssrc);
        self.key_frames_sent += u64::from(key_frame);
        let bytes = if key_frame { KEY_FRAME * bytes } else { bytes };
        let count = bytes.div_ceil(1000).max(1);
        for at in 0..count {
            let seq = self.seqs.entry(ssrc).or_default();
            *seq = seq.wrapping_add(1);
            let mut payload = vp8(self.frames as u16 & 0x7fff, self.frames as u8, key_frame);
            // Only the first packet begins a partition.
            payload[0] &= if at == 0 { 0xff } else { 0xef };
            let words = [ssrc, self.frames, at as u32, count as u32, u32::from(key_frame)];
            words.iter().for_each(|word| payload.extend_from_slice(&word.to_be_bytes()));
            payload.resize((bytes / count).max(40), 7);
            let mut video = packet((ssrc, VP8, *seq, self.now_ms as u32 * 90), &[], &payload);
            video[1] = (video[1] & 0x7f) | (u8::from(at + 1 == count) << 7);
            self.publisher.send(&mut self.bench, &video);
        }
    }

    fn sound(&mut self) {
        let seq = self.seqs.entry(SOUND).or_default();
        *seq = seq.wrapping_add(1);
        let level = [0x80 | 20_u8];
        let what = (SOUND, OPUS, *seq, self.now_ms as u32 * 48);
        let sound = packet(what, &[(IDS.audio_level, &level)], &[1; SOUND_BYTES]);
        self.publisher.send(&mut self.bench, &sound);
    }

    fn carry(&mut self) {
        let sent = self.bench.sent();
        for report in self.publisher.open(&sent).1 {
            for packet in rtcp::packets(&report) {
                if let Ok(rtcp::Packet::Pli(pli)) = packet {
                    self.key_frames.insert(pli.media_ssrc);
                }
            }
        }
        let viewer = &mut self.viewer;
        for bytes in viewer.client.open(&sent).0 {
            viewer.enqueue(self.now_ms, bytes, &mut self.chance);
        }
        viewer.receive(self.now_ms);
        while viewer.feedback.front().is_some_and(|(at, ..)| *at <= self.now_ms) {
            let Some((_, arrivals, missing)) = viewer.feedback.pop_front() else { break };
            let count = viewer.count;
            viewer.count = count.wrapping_add(1);
            viewer.client.send_rtcp(&mut self.bench, |rtcp| {
                rtcp.transport_cc(1, 1010, count, &arrivals).unwrap();
                if !missing.is_empty() {
                    rtcp.nack(1, 1010, missing).unwrap();
                }
            });
        }
    }

    fn pacer(&self) -> Option<PacerStatistics> {
        self.bench.worker.peer_statistics(PeerId(10)).unwrap().pacer
    }

    /// Share of the sound of a stretch of time that did not arrive.
    fn sound_lost(&self, from_ms: u64, to_ms: u64) -> f64 {
        let sent = self.viewer.sound.iter().filter(|(at, _)| (from_ms..to_ms).contains(at));
        let sent: Vec<u16> = sent.map(|(_, seq)| *seq).collect();
        let lost = sent.iter().filter(|seq| !self.viewer.heard.contains(seq)).count();
        assert!(sent.len() > 10, "{} packets of sound", sent.len());
        lost as f64 / sent.len() as f64
    }

    fn waits_p95(&self, from_ms: u64, to_ms: u64) -> f64 {
        let waits = self.viewer.waits.iter().filter(|(at, _)| (from_ms..to_ms).contains(at));
        let mut waits: Vec<f64> = waits.map(|(_, wait)| *wait).collect();
        waits.sort_by(f64::total_cmp);
        waits.get(waits.len() * 95 / 100).copied().unwrap_or_default()
    }
}

impl Viewer {
    fn enqueue(&mut self, now_ms: u64, bytes: Vec<u8>, chance: &mut Chance) {
        let (now, packet) = (now_ms as f64, read(&bytes));
        if packet.pt() == OPUS + 10 {
            self.sound.push((now_ms, packet.seq()));
        } else if packet.pt() == VP8 + 10 {
            self.seen.left.push(self.seen.left.len() as u64);
        }
        let waits = (self.free_ms - now).max(0.0);
        if waits > self.queue_ms {
            return;
        }
        self.waits.push((now_ms, waits));
        self.free_ms = now + waits + (bytes.len() * 8) as f64 * 1e3 / self.capacity_bps;
        if chance.next() >= self.loss {
            self.flying.push_back((self.free_ms as u64 + self.delay_ms, bytes));
        } else {
            self.lost += u64::from(packet.pt() == VP8 + 10);
        }
    }

    fn receive(&mut self, now_ms: u64) {
        while self.flying.front().is_some_and(|(at, _)| *at <= now_ms) {
            let Some((at, bytes)) = self.flying.pop_front() else { break };
            let packet = read(&bytes);
            let number = packet.extension(IDS.transport_cc).and_then(|data| data.try_into().ok());
            let seq = number.map(u16::from_be_bytes).expect("numbered");
            self.arrivals.push(Arrival { seq, at_us: at * 1000 });
            let payload = packet.payload();
            if packet.pt() == OPUS + 10 {
                self.heard.insert(packet.seq());
            } else if packet.pt() == VP8 + 10 {
                self.seen.take(packet.seq(), payload);
            } else if packet.pt() == VP8_RTX + 10 && payload.len() > 30 {
                let [high, low] = payload[..2].try_into().unwrap();
                let seq = u16::from_be_bytes([high, low]);
                let seq_long = self.seen.extend(seq);
                self.repaired += u64::from(self.seen.missing.contains_key(&seq_long));
                self.seen.take(seq, &payload[2..]);
            }
        }
        if now_ms.is_multiple_of(FEEDBACK_MS) && !self.arrivals.is_empty() {
            let arrivals = std::mem::take(&mut self.arrivals);
            self.feedback.push_back((now_ms + self.delay_ms, arrivals, self.seen.nack()));
        }
    }
}

const LAYERS: [usize; 3] = [150, 500, 1500];

#[test]
fn sound_is_whole_while_pictures_are_squeezed_to_their_floor() {
    println!("seed  lost %  queue p95 ms  frames shown");
    for seed in 1..=8 {
        let mut call = Call::new(&LAYERS, 300e3, seed);
        call.run(20_000);
        let (lost, wait) = (call.sound_lost(3_000, 19_000), call.waits_p95(3_000, 20_000));
        let shown = call.viewer.seen.shown();
        println!("{seed:4}  {:6.2}  {wait:12.1}  {shown:12}", lost * 100.0);
        assert!(lost < 0.01, "{lost}");
        assert!(wait < 100.0, "{wait}");
        assert!(shown > 250, "{shown} of 500 frames");
    }
}

#[test]
fn sound_is_whole_beside_a_stream_without_layers_that_is_larger_than_the_line() {
    println!(" kbit/s  seed  lost %  queue p95 ms  frames shown  key frames");
    for (capacity_bps, seed) in [(300e3, 1), (300e3, 2), (1e6, 1), (1e6, 2)] {
        let mut call = Call::new(&[2500], capacity_bps, seed);
        call.run(30_000);
        let (lost, wait) = (call.sound_lost(3_000, 29_000), call.waits_p95(3_000, 30_000));
        let (shown, asked) = (call.viewer.seen.shown(), call.key_frames_sent);
        let kbps = capacity_bps / 1e3;
        println!("{kbps:7}  {seed:4}  {:6.2}  {wait:12.1}  {shown:12}  {asked:10}", lost * 100.0);
        assert!(lost < 0.01, "{lost}");
        assert!(wait < 100.0, "{wait}");
        assert!(asked < 20, "{asked} key frames for one who cannot take them");
        let pacer = call.pacer().expect("its line is known");
        assert!(pacer.total.dropped > 0 && call.bench.dropped(DropReason::PacerFull) > 0);
        assert!(pacer.wait < 3 * PACER_WAIT, "{:?}", pacer.wait);
    }
}

#[test]
fn what_the_line_loses_is_repaired_ahead_of_what_waits() {
    for seed in 1..=3 {
        let mut call = Call::new(&LAYERS, 700e3, seed);
        call.viewer.loss = 0.02;
        call.run(20_000);
        let (shown, repaired, lost) =
            (call.viewer.seen.shown(), call.viewer.repaired, call.viewer.lost);
        println!("{seed}: {shown} shown, {repaired} of {lost} repaired");
        assert!(lost > 5 && repaired * 3 >= lost * 2, "{repaired} of {lost} repaired");
        assert!(shown > 400, "{shown} of 500 frames");
        assert!(call.sound_lost(3_000, 19_000) < 0.04, "what is lost by chance");
    }
}

/// A publisher (video SSRC 5, sound SSRC 7), who gets all at once (peer 2) and who is limited (peer 3).
struct Pair {
    bench: Bench,
    publisher: Client,
    free: Client,
    limited: Client,
    seq: u16,
    sounds: u16,
}

/// A number, a timestamp, and what is carried.
type Got = (u16, u32, Vec<u8>);

impl Pair {
    fn new(limit_bps: u64) -> Self {
        let mut bench = Bench::gathering(ms(2));
        bench.worker.paces_reported = true;
        let publisher = Client::connected(&mut bench, 1);
        publisher.publish(&mut bench, 1, Kind::Video, &[encoding(5)]);
        publisher.publish(&mut bench, 2, Kind::Audio, &[encoding(7)]);
        let [free, mut limited] = [2, 3].map(|id| {
            let client = Client::connected(&mut bench, id);
            client.subscribe(&mut bench, id, Kind::Video, Some(1));
            client.subscribe(&mut bench, 100 + id, Kind::Audio, Some(2));
            client
        });
        limited.send_rtcp(&mut bench, |rtcp| {
            rtcp.remb(1, limit_bps, &[1003]).unwrap();
        });
        bench.run(ms(1500));
        bench.sent();
        let mut pair = Self { bench, publisher, free, limited, seq: 0, sounds: 0 };
        assert_eq!(pair.waiting(), Some(0), "what it says limits it");
        let free = pair.bench.worker.peer_statistics(PeerId(2)).unwrap();
        assert_eq!(free.pacer, None, "whose line is not known is not kept waiting");
        pair.frame(1, true);
        pair.pass(100);
        pair
    }

    /// One frame.
    fn frame(&mut self, packets: u8, key_frame: bool) {
        let made = self.made(packets, key_frame);
        self.publish(&made);
    }

    /// The packets of one frame.
    fn made(&mut self, packets: u8, key_frame: bool) -> Vec<Vec<u8>> {
        let timestamp = (self.bench.now.at.0 / 1_000_000) as u32 * 90;
        let make = |at| {
            self.seq += 1;
            let mut payload = vp8(self.seq, self.seq as u8, key_frame);
            payload[0] &= if at == 0 { 0xff } else { 0xef };
            payload.resize(1000 + usize::from(at % 3), at);
            let mut bytes = packet((5, VP8, self.seq, timestamp), &[(IDS.mid, b"1")], &payload);
            bytes[1] = (bytes[1] & 0x7f) | (u8::from(at + 1 == packets) << 7);
            bytes
        };
        (0..packets).map(make).collect()
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
        self.bench.run(ms(for_ms));
        self.got()
    }

    /// What came to both since the last time, and how many runs that were to the limited one.
    fn got(&mut self) -> [Vec<Got>; 2] {
        let sent = self.bench.sent();
        [&mut self.free, &mut self.limited].map(|client| {
            let media = client.open(&sent).0;
            let of = |bytes: &Vec<u8>| {
                let packet = read(bytes);
                (packet.seq(), packet.timestamp(), packet.payload().to_vec())
            };
            media.iter().map(of).collect()
        })
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
        pair.limited.send_rtcp(&mut pair.bench, |rtcp| rtcp.nack(1, 1003, [asked]).unwrap());
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
    for n in 0..200 {
        pair.frame(4, n == 100);
        got.extend(pair.pass(33).into_iter().nth(1).unwrap());
        most = most.max(pair.waiting().unwrap());
    }
    got.extend(pair.pass(2000).into_iter().nth(1).unwrap());
    assert!(most < 30, "{most}: more than {PACER_WAIT:?}");
    assert!(pair.bench.dropped(DropReason::PacerFull) > 400);
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
    pair.limited.send_rtcp(&mut pair.bench, |rtcp| rtcp.nack(1, 1003, [asked]).unwrap());
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
    there.worker.paces_reported = true;
    there.command(crate::command::Command::DisposeScope { scope: SCOPE });
    let moved = pair.bench.worker.take_scope(pair.bench.now, SCOPE, &mut pair.bench.egress);
    there.now = pair.bench.now;
    there.worker.adopt_scope(there.now, moved.unwrap(), &mut there.egress);
    pair.bench = there;
    all.extend(pair.pass(500).into_iter().nth(1).unwrap());
    assert_eq!(all, free);

    pair.frame(12, false);
    pair.got();
    assert!(pair.waiting() > Some(0));
    let subscription = SubscriptionId(3);
    pair.bench.command(crate::command::Command::Unsubscribe { subscription });
    assert_eq!(pair.waiting(), Some(0));
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
        pair.bench.command(crate::command::Command::SetPreferences { subscription, preferences });
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
