//! Sound and pictures on lines that are too narrow for both, in a closed loop with the whole worker.

use crate::bandwidth::line::Chance;
use crate::command::{Encoding, Kind, PeerId};
use crate::drop::DropReason;
use crate::limits::PACER_WAIT;
use crate::statistics::PacerStatistics;
use crate::testing::{
    Bench, Client, IDS, OPUS, VP8, VP8_RTX, arrival, encoding, ms, packet, read, vp8,
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
            viewer.client.tell(&mut self.bench, &arrivals);
            if !missing.is_empty() {
                viewer.client.send_rtcp(&mut self.bench, |rtcp| {
                    rtcp.nack(1, 1010, missing).unwrap();
                });
            }
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
            self.arrivals.push(arrival(&bytes, at * 1000).expect("numbered"));
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
