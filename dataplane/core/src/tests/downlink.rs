//! Subscribers behind lines that narrow and widen, in a closed loop with the whole worker: estimate, allocation, selection.

use crate::command::{Encoding, Kind, PeerId};
use crate::testing::{Bench, Client, VP8, VP8_RTX, arrival, ms, packet, read, vp8};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use strait_wire::rtcp::{self, Arrival};

/// Bytes of a frame of each layer: 150, 500 and 1,500 kbit/s.
const LAYERS: [usize; 3] = [750, 2500, 7500];
const FRAME_MS: u64 = 40;
const QUEUE_MS: f64 = 200.0;
const FEEDBACK_MS: u64 = 100;
const CONSENT_MS: u64 = 5000;
/// A key frame is so many times as large as others.
const KEY_FRAME: usize = 5;
/// Browsers that send nothing know no round trip: so often they ask again for what is missing, up to so many times.
const ASK_AGAIN_MS: u64 = 100;
const ASK_MAX: u8 = 10;

/// A camera in three layers, and who watches it.
struct Call {
    bench: Bench,
    publisher: Client,
    seqs: BTreeMap<u32, u16>,
    /// SSRCs of the layers that are sent.
    ssrcs: Vec<u32>,
    key_frames: BTreeSet<u32>,
    viewers: Vec<Viewer>,
    now_ms: u64,
    /// Pictures are of three temporal layers.
    temporal: bool,
}

/// Who watches over a line.
struct Viewer {
    client: Client,
    capacity_bps: f64,
    delay_ms: u64,
    /// When the line has sent all that waits, in milliseconds.
    free_ms: f64,
    /// Arrivals to come.
    flying: VecDeque<(u64, Vec<u8>)>,
    arrivals: Vec<Arrival>,
    feedback: VecDeque<(u64, Vec<Arrival>)>,
    bytes: usize,
    padding: usize,
    waits: Vec<f64>,
    picture: Picture,
    /// What it asks for again, on its way.
    asks: VecDeque<(u64, Vec<u16>)>,
    ssrc: u32,
}

/// What a decoder makes of it.
#[derive(Default)]
struct Picture {
    /// Packets that are there by their long numbers, and whether a key frame begins with them.
    packets: BTreeMap<u64, bool>,
    newest: u64,
    /// The first one that could not be decoded yet.
    next: u64,
    /// When and how often what is missing was asked for.
    asked: BTreeMap<u64, (u64, u8)>,
    moved_ms: u64,
    /// The longest time without anything new to show.
    still_ms: u64,
}

impl Picture {
    /// A packet is there.
    fn take(&mut self, seq: u16, key_frame: bool) {
        let base = self.newest.max(1 << 16);
        let seq =
            base.saturating_add_signed(i64::from(seq.wrapping_sub(base as u16).cast_signed()));
        for missing in (self.newest + 1..seq).filter(|_| self.newest > 0) {
            self.asked.insert(missing, (0, 0));
        }
        self.newest = self.newest.max(seq);
        self.asked.remove(&seq);
        self.packets.insert(seq, key_frame);
    }

    fn show(&mut self, now_ms: u64) {
        let before = self.next;
        if let Some((seq, _)) = self.packets.range(self.next..).rev().find(|(_, key)| **key) {
            self.next = *seq;
        }
        while self.packets.contains_key(&self.next) {
            self.next += 1;
        }
        if self.next != before {
            self.moved_ms = now_ms;
            self.packets = self.packets.split_off(&self.next);
            self.asked = self.asked.split_off(&self.next);
        }
        self.still_ms = self.still_ms.max(now_ms - self.moved_ms);
    }

    /// What is asked for now.
    fn missing(&mut self, now_ms: u64) -> Vec<u16> {
        let due = |(at, tries): &(u64, u8)| *tries == 0 || now_ms >= at + ASK_AGAIN_MS;
        let open = self.asked.iter_mut().filter(|(_, asked)| asked.1 < ASK_MAX && due(asked));
        open.map(|(seq, asked)| {
            *asked = (now_ms, asked.1 + 1);
            *seq as u16
        })
        .collect()
    }
}

impl Call {
    fn new(lines: &[(f64, u64)]) -> Self {
        Self::with(&[0, 1, 2], lines)
    }

    /// With these layers alone.
    fn with(layers: &[u32], lines: &[(f64, u64)]) -> Self {
        let mut bench = Bench::new();
        let publisher = Client::connected(&mut bench, 1);
        let layer = |n: u32| Encoding { rid: n.to_string(), ssrc: 10 * (n + 1), rtx_ssrc: 0 };
        let layers: Vec<Encoding> = layers.iter().map(|n| layer(*n)).collect();
        publisher.publish(&mut bench, 1, Kind::Video, &layers);
        let viewers = lines.iter().zip(10..).map(|(&(capacity_bps, delay_ms), id)| {
            let client = Client::connected(&mut bench, id);
            client.subscribe(&mut bench, id, Kind::Video, Some(1));
            Viewer {
                client,
                capacity_bps,
                delay_ms,
                free_ms: 0.0,
                flying: VecDeque::new(),
                arrivals: Vec::new(),
                feedback: VecDeque::new(),
                bytes: 0,
                padding: 0,
                waits: Vec::new(),
                picture: Picture::default(),
                asks: VecDeque::new(),
                ssrc: 1000 + id,
            }
        });
        let viewers = viewers.collect();
        bench.sent();
        let ssrcs = layers.iter().map(|layer| layer.ssrc).collect();
        let (seqs, key_frames) = Default::default();
        Self { bench, publisher, seqs, ssrcs, key_frames, viewers, now_ms: 0, temporal: false }
    }

    /// Lets time pass until `until` holds; how many milliseconds that took.
    fn run(&mut self, at_most_ms: u64, until: impl Fn(&Self) -> bool) -> Option<u64> {
        let began = self.now_ms;
        while self.now_ms < began + at_most_ms {
            if until(self) {
                return Some(self.now_ms - began);
            }
            if self.now_ms.is_multiple_of(FRAME_MS) {
                for (bytes, ssrc) in LAYERS.into_iter().zip([10, 20, 30]) {
                    if self.ssrcs.contains(&ssrc) {
                        self.frame(ssrc, bytes);
                    }
                }
            }
            if self.now_ms.is_multiple_of(CONSENT_MS) {
                self.publisher.check(&mut self.bench);
                self.viewers.iter_mut().for_each(|viewer| viewer.client.check(&mut self.bench));
            }
            self.bench.run(ms(1));
            self.now_ms += 1;
            self.carry();
        }
        None
    }

    fn frame(&mut self, ssrc: u32, bytes: usize) {
        let mut key_frame = self.key_frames.remove(&ssrc);
        let bytes = if key_frame { KEY_FRAME * bytes } else { bytes };
        for _ in 0..bytes.div_ceil(1000) {
            let seq = self.seqs.entry(ssrc).or_default();
            *seq = seq.wrapping_add(1);
            let mut payload = vp8(*seq & 0x7fff, *seq as u8, key_frame);
            if self.temporal {
                let layer = [0x00, 0xA0, 0x60, 0x80][(self.now_ms / FRAME_MS % 4) as usize];
                payload[5] = if key_frame { 0 } else { layer };
            }
            payload.resize(bytes.min(1000), 7);
            let video = packet((ssrc, VP8, *seq, self.now_ms as u32 * 90), &[], &payload);
            self.publisher.send(&mut self.bench, &video);
            key_frame = false;
        }
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
        for viewer in &mut self.viewers {
            // Each packet is opened when it leaves; what the line drops was never seen.
            for bytes in viewer.client.open(&sent).0 {
                viewer.enqueue(self.now_ms, bytes);
            }
            viewer.receive(self.now_ms);
            let missing = viewer.picture.missing(self.now_ms);
            if !missing.is_empty() {
                viewer.asks.push_back((self.now_ms + viewer.delay_ms, missing));
            }
            while viewer.asks.front().is_some_and(|(at, _)| *at <= self.now_ms) {
                let Some((_, missing)) = viewer.asks.pop_front() else { break };
                let ssrc = viewer.ssrc;
                viewer.client.send_rtcp(&mut self.bench, |rtcp| {
                    rtcp.nack(1, ssrc, missing.iter().copied()).unwrap();
                });
            }
            while viewer.feedback.front().is_some_and(|(at, _)| *at <= self.now_ms) {
                let Some((_, arrivals)) = viewer.feedback.pop_front() else { break };
                viewer.client.tell(&mut self.bench, &arrivals);
            }
        }
    }

    fn layer(&self, viewer: u32) -> Option<u8> {
        let peer = self.bench.worker.peer_statistics(PeerId(10 + viewer)).unwrap();
        peer.subscriptions[0].layer
    }

    /// The highest temporal layer that goes out; `None` for all.
    fn temporal(&self, viewer: u32) -> Option<u8> {
        let peer = self.bench.worker.peer_statistics(PeerId(10 + viewer)).unwrap();
        peer.subscriptions[0].inner.map(|(_, temporal)| temporal)
    }

    /// How often what goes to the first viewer changes in so long.
    fn changes(&mut self, for_ms: u64) -> u32 {
        let (mut changes, end) = (0, self.now_ms + for_ms);
        while self.now_ms < end {
            let before = (self.layer(0), self.temporal(0));
            let left = end - self.now_ms;
            let changed = |call: &Self| (call.layer(0), call.temporal(0)) != before;
            changes += u32::from(self.run(left, changed).is_some());
        }
        changes
    }

    fn budget_bps(&self, viewer: u32) -> u64 {
        let peer = self.bench.worker.peer_statistics(PeerId(10 + viewer)).unwrap();
        peer.budget_bps.unwrap_or_default()
    }
}

impl Viewer {
    fn enqueue(&mut self, now_ms: u64, bytes: Vec<u8>) {
        let now = now_ms as f64;
        let waits = (self.free_ms - now).max(0.0);
        if waits > QUEUE_MS {
            return;
        }
        self.waits.push(waits);
        self.free_ms = now + waits + (bytes.len() * 8) as f64 * 1e3 / self.capacity_bps;
        self.flying.push_back((self.free_ms as u64 + self.delay_ms, bytes));
    }

    fn receive(&mut self, now_ms: u64) {
        while self.flying.front().is_some_and(|(at, _)| *at <= now_ms) {
            let Some((at, bytes)) = self.flying.pop_front() else { break };
            let packet = read(&bytes);
            self.arrivals.push(arrival(&bytes, at * 1000).expect("numbered"));
            self.bytes += bytes.len();
            let payload = packet.payload();
            if packet.pt() != VP8_RTX + 10 {
                self.picture.take(packet.seq(), payload[6] & 1 == 0);
                continue;
            }
            self.padding += bytes.len();
            if let [high, low, _, _, _, _, _, _, flags, ..] = *payload {
                self.picture.take(u16::from_be_bytes([high, low]), flags & 1 == 0);
            }
        }
        self.picture.show(now_ms);
        if now_ms.is_multiple_of(FEEDBACK_MS) && !self.arrivals.is_empty() {
            let arrivals = std::mem::take(&mut self.arrivals);
            self.feedback.push_back((now_ms + self.delay_ms, arrivals));
        }
    }

    fn waits_p95(&mut self) -> f64 {
        let mut waits = std::mem::take(&mut self.waits);
        waits.sort_by(f64::total_cmp);
        waits.get(waits.len() * 95 / 100).copied().unwrap_or_default()
    }
}

#[test]
fn a_narrowed_line_falls_to_the_low_layer_and_climbs_back_while_others_keep_theirs() {
    println!(
        "one-way ms  top layer after ms  falls after ms  stands still ms, when it rises  queue p95 ms  climbs back after ms  padding %"
    );
    for delay_ms in [5, 20, 50] {
        let mut call = Call::new(&[(5e6, delay_ms), (5e6, delay_ms)]);
        let top = call.run(5_000, |call| call.layer(0) == Some(2) && call.layer(1) == Some(2));
        let top = top.expect("both get the top layer within 5 s");
        call.run(5_000, |_| false);
        assert_eq!((call.layer(0), call.layer(1)), (Some(2), Some(2)), "and keep it");

        call.viewers[0].capacity_bps = 300e3;
        let fell = call.run(3_000, |call| call.layer(0) == Some(0)).expect("falls within 3 s");
        call.run(3_000 - fell, |_| false);
        call.run(2_000, |_| false);
        let still = std::mem::take(&mut call.viewers[0].picture.still_ms);
        call.viewers[0].waits.clear();
        call.run(12_000, |call| {
            assert_eq!(call.layer(1), Some(2), "the other keeps the high layer");
            assert_eq!(call.layer(0), Some(0), "no attempt at what does not fit");
            false
        });
        let waits = call.viewers[0].waits_p95();
        assert!(waits < 100.0, "{waits} ms");

        call.viewers[0].capacity_bps = 5e6;
        let budget = call.budget_bps(0);
        let back = call.run(10_000, |call| call.layer(0) == Some(2));
        let back = back.unwrap_or_else(|| panic!("{budget} → {} after 10 s", call.budget_bps(0)));
        call.run(10_000, |_| false);
        assert_eq!((call.layer(0), call.layer(1)), (Some(2), Some(2)), "and keeps it");
        let viewer = &call.viewers[0];
        let padding = viewer.padding as f64 / viewer.bytes as f64;
        let still_up = viewer.picture.still_ms;
        println!(
            "{delay_ms:10}  {top:18}  {fell:14}  {still:15}  {still_up:13}  {waits:12.1}  {back:20}  {:9.1}",
            padding * 100.0
        );
        assert!(padding < 0.05, "{padding}");
        assert!(still <= 1000 && still_up <= 300, "{still} ms, {still_up} ms");
    }
}

#[test]
fn a_stream_without_layers_that_is_larger_than_the_first_guess_is_shown_all_the_same() {
    let mut call = Call::with(&[2], &[(5e6, 20)]);
    call.run(10_000, |_| false);
    assert_eq!(call.layer(0), Some(0), "{} bit/s", call.budget_bps(0));
    call.viewers[0].bytes = 0;
    call.run(10_000, |_| false);
    let bps = call.viewers[0].bytes as f64 * 8.0 / 10.0;
    assert!(bps > 1.4e6, "{bps}");
}

#[test]
fn a_single_stream_with_temporal_layers_drops_the_upper_ones_rather_than_fill_the_line() {
    let mut call = Call::with(&[2], &[(5e6, 20)]);
    call.temporal = true;
    let whole = call.run(8_000, |call| call.layer(0) == Some(0) && call.temporal(0).is_none());
    assert!(whole.is_some(), "{:?} at {} bit/s", call.temporal(0), call.budget_bps(0));
    call.run(5_000, |_| false);

    call.viewers[0].capacity_bps = 1e6;
    let fell = call.run(3_000, |call| call.temporal(0).is_some_and(|t| t < 2));
    assert!(fell.is_some(), "{} bit/s", call.budget_bps(0));
    call.run(3_000, |_| false);
    call.viewers[0].waits.clear();
    call.viewers[0].bytes = 0;
    call.run(10_000, |_| false);
    let (waits, bytes) = (call.viewers[0].waits_p95(), call.viewers[0].bytes);
    let bps = bytes as f64 * 8.0 / 10.0;
    println!("falls after {fell:?} ms, queue p95 {waits:.1} ms, {bps:.0} bit/s of 1,000,000");
    assert!(waits < 100.0, "{waits} ms");
    assert!((300e3..1e6).contains(&bps), "{bps}");

    call.viewers[0].capacity_bps = 5e6;
    // Without a key frame a highest layer above the highest is not ruled out.
    let back = call.run(10_000, |call| call.temporal(0).is_none_or(|temporal| temporal >= 2));
    println!("all again after {back:?} ms");
    let peer = call.bench.worker.peer_statistics(PeerId(10)).unwrap();
    println!("{:?}", peer.subscriptions[0].layer_times);
    assert!(back.is_some(), "{} bit/s", call.budget_bps(0));
}

#[test]
fn encodings_with_temporal_layers_fall_and_climb_like_others_and_rarely_change() {
    let mut call = Call::new(&[(5e6, 20)]);
    call.temporal = true;
    let top = call.run(8_000, |call| call.layer(0) == Some(2) && call.temporal(0).is_none());
    assert!(top.is_some(), "{:?} at {} bit/s", call.layer(0), call.budget_bps(0));
    call.run(5_000, |_| false);

    call.viewers[0].capacity_bps = 300e3;
    let fell = call.run(3_000, |call| call.layer(0) == Some(0));
    assert!(fell.is_some(), "{} bit/s", call.budget_bps(0));
    call.run(3_000, |_| false);
    call.viewers[0].waits.clear();
    call.viewers[0].bytes = 0;
    let changes = call.changes(20_000);
    let (waits, bytes) = (call.viewers[0].waits_p95(), call.viewers[0].bytes);
    let bps = bytes as f64 * 8.0 / 20.0;
    println!("falls after {fell:?} ms, queue p95 {waits:.1} ms, {bps:.0} bit/s, {changes} changes");
    assert!(waits < 100.0, "{waits} ms");
    assert!((100e3..300e3).contains(&bps), "{bps}");
    assert!(changes <= 6, "{changes} in 20 s");

    call.viewers[0].capacity_bps = 5e6;
    let back = call.run(12_000, |call| call.layer(0) == Some(2));
    println!("back after {back:?} ms");
    assert!(back.is_some(), "{} bit/s", call.budget_bps(0));
    call.run(5_000, |_| false);
    let changes = call.changes(20_000);
    println!("{changes} changes on a wide line");
    assert!(changes <= 1, "{changes} in 20 s");
}
