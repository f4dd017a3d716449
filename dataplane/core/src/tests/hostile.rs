//! One who lies, beside people who do not: none of it stalls another stream, and none of it grows what is kept.

use crate::command::{self, CodecKind, Command, Encoding, Kind, PublicationId};
use crate::limits::{CACHE_BYTES_MAX, EVENTS, KEY_FRAME_REQUEST_INTERVAL};
use crate::testing::{
    Bench, Client, IDS, OPUS, VP8, codecs, encoding, ms, packet, read, subscribe, vp8,
};
use crate::time::Duration;
use strait_wire::rtcp::{self, Arrival, ReportBlock};

/// Steps of 20 ms.
const STEPS: u16 = 1000;
const STEP: Duration = ms(20);
/// Payload type and SSRCs of the liar's picture.
const PT: u8 = 110;
const LIES: [u32; 2] = [70, 80];

/// How it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Payload descriptors and dependency descriptors of random bytes.
    Descriptors(CodecKind),
    /// Encodings come and go at random.
    LayersVanish,
    /// Both encodings from one SSRC, which is that of a neighbour too.
    SsrcCollision,
    /// Timestamps and sequence numbers anywhere.
    NumbersJump,
    /// Never a key frame, whatever is asked.
    IgnoresRequests,
    /// Reports of a viewer about packets that never were.
    Feedback,
    /// A viewer who can take nothing at all.
    RembOfZero,
    /// RTCP of random bytes from both.
    Garbage,
}

const LIES_ALL: [Lie; 12] = [
    Lie::Descriptors(CodecKind::Vp8),
    Lie::Descriptors(CodecKind::Vp9),
    Lie::Descriptors(CodecKind::H264),
    Lie::Descriptors(CodecKind::H265),
    Lie::Descriptors(CodecKind::Av1),
    Lie::LayersVanish,
    Lie::SsrcCollision,
    Lie::NumbersJump,
    Lie::IgnoresRequests,
    Lie::Feedback,
    Lie::RembOfZero,
    Lie::Garbage,
];

/// Random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Sound and pictures of somebody honest (SSRCs 9 and 5), and pictures of a liar; an honest viewer and a lying one see all.
struct Call {
    bench: Bench,
    honest: Client,
    liar: Client,
    viewer: Client,
    lying_viewer: Client,
    random: Random,
    /// The next number of each of the liar's SSRCs.
    seqs: [u16; 2],
    asked: u64,
}

impl Call {
    fn new(lie: Lie, seed: u64) -> Self {
        let mut bench = Bench::new();
        let [honest, liar, viewer, lying_viewer] =
            [1, 2, 3, 4].map(|id| Client::connected(&mut bench, id));
        honest.publish(&mut bench, 1, Kind::Audio, &[encoding(9)]);
        honest.publish(&mut bench, 2, Kind::Video, &[encoding(5)]);
        let kind = match lie {
            Lie::Descriptors(kind) => kind,
            _ => CodecKind::Vp8,
        };
        let [mut codec] = <[_; 1]>::try_from(codecs(Kind::Video, 0)).unwrap();
        codec = command::Codec { pt: PT, kind, identity: "lie".into(), ..codec };
        let remb = lie == Lie::RembOfZero;
        let encodings = [("q", LIES[0]), ("f", LIES[1])];
        let encodings =
            encodings.map(|(rid, ssrc)| Encoding { rid: rid.into(), ssrc, rtx_ssrc: 0 });
        bench.command(Command::Publish {
            peer: liar.id,
            publication: PublicationId(3),
            kind: Kind::Video,
            mid: "lie".into(),
            codecs: vec![codec.clone()],
            extensions: IDS,
            encodings: encodings.to_vec(),
            muted: false,
            report_ssrc: 903,
        });
        for (viewer, first) in [(&viewer, 1), (&lying_viewer, 11)] {
            for (id, kind, to) in [(0, Kind::Audio, 1), (1, Kind::Video, 2), (2, Kind::Video, 3)] {
                let mut command = subscribe(viewer.id, first + id, kind, Some(to));
                let Command::Subscribe { codecs, .. } = &mut command else { unreachable!() };
                if to == 3 {
                    *codecs = vec![codec.clone()];
                }
                codecs
                    .iter_mut()
                    .for_each(|codec| (codec.remb, codec.transport_cc) = (remb, !remb));
                bench.command(command);
            }
        }
        bench.sent();
        bench.events();
        let random = Random(seed);
        Self { bench, honest, liar, viewer, lying_viewer, random, seqs: [1000, 2000], asked: 0 }
    }

    /// The honest one's next packets.
    fn speak(&mut self, step: u16) {
        let sound = packet((9, OPUS, step, u32::from(step) * 960), &[], &[1, 2, 3]);
        self.honest.send(&mut self.bench, &sound);
        let picture = vp8(step, step as u8, step.is_multiple_of(100));
        let picture = packet((5, VP8, step, u32::from(step) * 1800), &[], &picture);
        self.honest.send(&mut self.bench, &picture);
    }

    fn lie(&mut self, lie: Lie, step: u16) {
        let random = &mut self.random;
        match lie {
            Lie::Descriptors(_) => {
                for (at, ssrc) in LIES.into_iter().enumerate() {
                    let len = random.below(40) as usize;
                    let descriptor = random.bytes(1 + len);
                    let len = random.below(60) as usize;
                    let payload = random.bytes(len);
                    let extensions = [(IDS.dependency_descriptor, &descriptor[..])];
                    let extensions = if step.is_multiple_of(2) { &extensions[..] } else { &[] };
                    let seq = self.seqs[at];
                    self.seqs[at] = seq.wrapping_add(1);
                    let numbers = (ssrc, PT, seq, u32::from(step) * 1800);
                    self.liar.send(&mut self.bench, &packet(numbers, extensions, &payload));
                }
            }
            Lie::LayersVanish => {
                for at in 0..2 {
                    if self.random.below(100) < 50 + 49 * u64::from(step / 64 % 2 == at as u16) {
                        let key_frame = self.random.below(30) == 0;
                        self.picture(at, u32::from(step) * 1800, key_frame);
                    }
                }
            }
            Lie::SsrcCollision => {
                // As another encoding by its RID, as the neighbour's, and as the relay's own.
                for ssrc in [LIES[0], 5, 9, 1001, 1002, 903] {
                    let seq = self.seqs[0];
                    self.seqs[0] = seq.wrapping_add(1);
                    let rid: &[u8] = if step.is_multiple_of(2) { b"q" } else { b"f" };
                    let extensions = [(IDS.mid, &b"lie"[..]), (IDS.rid, rid)];
                    let payload = vp8(seq, seq as u8, step.is_multiple_of(10));
                    let numbers = (ssrc, PT, seq, u32::from(step) * 1800);
                    self.liar.send(&mut self.bench, &packet(numbers, &extensions, &payload));
                }
            }
            Lie::NumbersJump => {
                for at in 0..2 {
                    self.seqs[at] = self.random.next() as u16;
                    let timestamp = self.random.next() as u32;
                    let key_frame = self.random.below(5) == 0;
                    self.picture(at, timestamp, key_frame);
                }
            }
            Lie::IgnoresRequests => self.picture(1, u32::from(step) * 1800, false),
            Lie::Feedback => {
                self.picture(1, u32::from(step) * 1800, step.is_multiple_of(50));
                let random = &mut self.random;
                let (first, count) = (random.next() as u16, random.below(200));
                let times: Vec<u64> = (0..count).map(|_| random.next()).collect();
                let ssrcs = [1011, 1012, 1013, 5, random.next() as u32];
                let ssrc = ssrcs[random.below(5) as usize];
                let block = ReportBlock {
                    ssrc,
                    fraction_lost: random.next() as u8,
                    highest_seq: random.next() as u32,
                    last_sr: random.next() as u32,
                    delay_since_last_sr: random.next() as u32,
                    ..ReportBlock::default()
                };
                self.lying_viewer.send_rtcp(&mut self.bench, |rtcp| {
                    rtcp.receiver_report(1, &[block]).unwrap();
                    rtcp.nack(1, ssrc, (0..200).map(|n| first.wrapping_add(n))).unwrap();
                    rtcp.pli(1, ssrc).unwrap();
                    let (mut seq, mut at_us) = (first, 0);
                    let arrivals = times.iter().map(|time| {
                        seq = seq.wrapping_add(1 + (time % 3) as u16);
                        at_us += time % 2_000;
                        Arrival { seq, at_us }
                    });
                    let arrivals: Vec<Arrival> = arrivals.collect();
                    rtcp.transport_cc(1, ssrc, step as u8, &arrivals).unwrap();
                });
            }
            Lie::RembOfZero => {
                self.picture(1, u32::from(step) * 1800, step.is_multiple_of(50));
                self.lying_viewer.send_rtcp(&mut self.bench, |rtcp| {
                    rtcp.receiver_report(1, &[]).unwrap();
                    rtcp.remb(1, 0, &[1011, 1012, 1013]).unwrap();
                });
            }
            Lie::Garbage => {
                self.picture(1, u32::from(step) * 1800, step.is_multiple_of(50));
                for sender in 0..2 {
                    let mut bytes = self.random.bytes(400);
                    // As far as that it is taken for a compound.
                    bytes[0] = 0x80 | bytes[0] & 0x1F;
                    bytes[1] = 200 + bytes[1] % 8;
                    let words = self.random.below(100) as u16;
                    bytes[2..4].copy_from_slice(&words.to_be_bytes());
                    let client = if sender == 0 { &mut self.liar } else { &mut self.lying_viewer };
                    client.send_raw_rtcp(&mut self.bench, &bytes);
                }
            }
        }
    }

    fn picture(&mut self, at: usize, timestamp: u32, key_frame: bool) {
        let seq = self.seqs[at];
        self.seqs[at] = seq.wrapping_add(1);
        let bytes = packet((LIES[at], PT, seq, timestamp), &[], &vp8(seq, seq as u8, key_frame));
        // The number may have been used before: then this client cannot send it.
        if let Some(bytes) = self.liar.try_protect(&bytes) {
            self.bench.receive(self.liar.path, &bytes);
        }
    }

    /// How many packets of these SSRCs the viewers got, and counts the requests that the liar got.
    fn got(&mut self) -> [[usize; 2]; 2] {
        let sent = self.bench.sent();
        let (_, reports) = self.liar.open(&sent);
        let packets = reports.iter().flat_map(|report| rtcp::packets(report));
        self.asked += packets.filter(|p| matches!(p, Ok(rtcp::Packet::Pli(_)))).count() as u64;
        let count = |viewer: &mut Client, ssrcs: [u32; 2]| {
            let (media, _) = viewer.open(&sent);
            ssrcs.map(|ssrc| media.iter().filter(|bytes| read(bytes).ssrc() == ssrc).count())
        };
        [count(&mut self.viewer, [1001, 1002]), count(&mut self.lying_viewer, [1011, 1012])]
    }
}

#[test]
fn none_stalls_another_stream_and_none_grows_what_is_kept() {
    for (seed, lie) in (1..).zip(LIES_ALL) {
        let mut call = Call::new(lie, seed);
        let mut heard = 0;
        for step in 0..STEPS {
            call.bench.run(STEP);
            call.got();
            call.lie(lie, step);
            call.got();
            call.speak(step);
            let [viewer, lying_viewer] = call.got();
            assert_eq!(viewer, [1, 1], "{lie:?}: the honest viewer, at step {step}");
            heard += lying_viewer[0];
        }
        assert_eq!(heard, STEPS.into(), "{lie:?}: sound goes on for who lies, too");
        let statistics = call.bench.worker.statistics();
        // Four encodings.
        assert!(statistics.cache_bytes <= 4 * CACHE_BYTES_MAX as u64, "{lie:?}: {statistics:?}");
        assert!(call.bench.events().len() < EVENTS, "{lie:?}");
        let seconds = u64::from(STEPS) * 20 / 1000;
        let most = 2 * (seconds * 1000 / KEY_FRAME_REQUEST_INTERVAL.as_millis() as u64 + 1);
        assert!(call.asked <= most, "{lie:?}: {} requests in {seconds} s", call.asked);
        if lie == Lie::IgnoresRequests {
            assert!(call.asked >= seconds, "it is asked on and on: {}", call.asked);
        }
    }
}

#[test]
fn who_takes_nothing_gets_sound_and_pictures_again_when_it_says_more() {
    let mut call = Call::new(Lie::RembOfZero, 7);
    for step in 0..200 {
        call.bench.run(STEP);
        call.lie(Lie::RembOfZero, step);
        call.speak(step);
        call.got();
    }
    let mut pictures = 0;
    for step in 200..1200 {
        call.bench.run(STEP);
        call.lying_viewer.send_rtcp(&mut call.bench, |rtcp| {
            rtcp.receiver_report(1, &[]).unwrap();
            rtcp.remb(1, 10_000_000, &[1011, 1012, 1013]).unwrap();
        });
        call.speak(step);
        pictures += call.got()[1][1];
    }
    assert!(pictures > 500, "{pictures} of 1000");
}
