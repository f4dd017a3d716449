//! Layers inside a stream, left out and taken up again, checked frame by frame.

use super::streams::{Frame, Kind, Made, Stream};
use crate::command::{self, Command, Preferences, PublicationId, SubscriptionId};
use crate::drop::DropReason;
use crate::testing::{Bench, Client, IDS, Line, ms, read};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strait_wire::codec::{dependency, vp8, vp9};
use strait_wire::rtcp;

const PT: u8 = 100;
const SSRC: u32 = 50;
/// Outgoing.
const OUT: u32 = 1001;
/// Outgoing, for what was asked for again.
const RTX: u32 = 2001;

/// Somebody who publishes a stream with layers, and somebody who watches.
struct Call {
    bench: Bench,
    publisher: Client,
    subscriber: Client,
    stream: Stream,
    kind: Kind,
    lost: BTreeSet<(u32, u8)>,
    /// What came, by extended outgoing sequence number.
    got: BTreeMap<i64, Vec<u8>>,
    newest: i64,
    /// The publisher was asked for a key frame.
    asked: bool,
    late: Vec<Vec<u8>>,
    /// Numbers that came as retransmissions.
    again: BTreeSet<i64>,
    /// The subscriber tells when packets came.
    tells: bool,
    line: Line,
}

impl Call {
    fn new(kind: Kind, start: u16) -> Self {
        Self::telling(kind, start, false)
    }

    /// One whose subscriber tells when packets came, perhaps.
    fn telling(kind: Kind, start: u16, tells: bool) -> Self {
        let mut bench = Bench::new();
        let publisher = Client::connected(&mut bench, 1);
        let subscriber = Client::connected(&mut bench, 2);
        let codec = command::Codec {
            pt: PT,
            rtx_pt: Some(PT + 1),
            kind: kind.codec(),
            identity: "it".into(),
            clock_rate_hz: 90_000,
            nack: true,
            pli: true,
            fir: false,
            transport_cc: tells,
            remb: false,
            ccfb: false,
            reduced_size: false,
        };
        bench.command(Command::Publish {
            peer: publisher.id,
            publication: PublicationId(1),
            kind: command::Kind::Video,
            mid: "v".into(),
            codecs: vec![codec.clone()],
            extensions: IDS,
            encodings: vec![command::Encoding { ssrc: SSRC, ..command::Encoding::default() }],
            muted: false,
            report_ssrc: 900,
        });
        bench.command(Command::Subscribe {
            peer: subscriber.id,
            subscription: SubscriptionId(1),
            kind: command::Kind::Video,
            mid: "s".into(),
            codecs: vec![codec],
            extensions: IDS,
            ssrc: OUT,
            rtx_ssrc: RTX,
            first_seq: 100,
            as_sent: false,
            publication: Some(PublicationId(1)),
            preferences: Preferences::default(),
        });
        bench.sent();
        let stream = Stream::new(kind, SSRC, PT, start);
        Self {
            bench,
            publisher,
            subscriber,
            stream,
            kind,
            lost: BTreeSet::new(),
            got: BTreeMap::new(),
            newest: 99,
            asked: false,
            late: Vec::new(),
            again: BTreeSet::new(),
            tells,
            line: Line::default(),
        }
    }

    /// A queue grows in the line of the subscriber, until the relay takes it for full.
    fn prove(&mut self) {
        self.stream.filler = 1100;
        for n in 0..300 {
            let told = self.bench.worker.peer_statistics(self.subscriber.id).unwrap();
            if told.pacer.is_some() {
                self.line.queue = ms(0);
                return;
            }
            self.line.queue += ms(if n > 30 { 10 } else { 0 });
            self.picture(3, 0, 0);
        }
        panic!("{:?}: it is not known to be full", self.kind);
    }

    fn prefer(&mut self, spatial: u8, temporal: u8) {
        let preferences = Preferences {
            spatial_max: Some(spatial),
            temporal_max: Some(temporal),
            ..Preferences::default()
        };
        let subscription = SubscriptionId(1);
        self.bench.command(Command::SetPreferences { subscription, preferences });
        self.collect();
    }

    /// Sends a picture, of which the network loses and delays packets by the bits of these.
    fn picture(&mut self, packets: u8, lost: u16, late: u16) {
        let key = std::mem::take(&mut self.asked);
        let mut due = std::mem::take(&mut self.late);
        for (at, Made { frame, bytes }) in self.stream.picture(key, packets).into_iter().enumerate()
        {
            let bytes = self.publisher.protect(&bytes);
            let bit = 1_u16.checked_shl(at as u32).unwrap_or_default();
            if lost & bit != 0 {
                self.lost.insert((frame, at as u8 % packets));
            } else if late & bit != 0 {
                self.late.push(bytes);
            } else {
                self.bench.receive(self.publisher.path, &bytes);
            }
            if let Some(bytes) = due.pop() {
                self.bench.receive(self.publisher.path, &bytes);
            }
        }
        due.iter().for_each(|bytes| self.bench.receive(self.publisher.path, bytes));
        self.pass();
        self.ask();
    }

    /// The time of a picture.
    fn pass(&mut self) {
        self.collect();
        for _ in 0..11 {
            self.bench.run(ms(3));
            self.collect();
            if self.tells {
                self.line.tell(&mut self.bench, &mut self.subscriber);
            }
        }
    }

    /// Of the newest hundred numbers those that did not come.
    fn missing(&self) -> Vec<u16> {
        let due = (self.newest - 100..self.newest).filter(|seq| *seq >= 100);
        due.filter(|seq| !self.got.contains_key(seq)).map(|seq| seq as u16).collect()
    }

    /// Asks for what is missing.
    fn ask(&mut self) {
        let missing = self.missing();
        if !missing.is_empty() {
            self.subscriber.send_rtcp(&mut self.bench, |rtcp| {
                rtcp.nack(1, OUT, missing).unwrap();
            });
            self.collect();
        }
    }

    fn collect(&mut self) {
        let sent = self.bench.sent();
        let (_, reports) = self.publisher.open(&sent);
        let mut packets = reports.iter().flat_map(|report| rtcp::packets(report));
        self.asked |= packets.any(|packet| matches!(packet, Ok(rtcp::Packet::Pli(_))));
        for mut bytes in self.subscriber.open(&sent).0 {
            self.line.carry(self.bench.now, &bytes);
            let mut number = read(&bytes).seq();
            let again = read(&bytes).ssrc() == RTX;
            if again && read(&bytes).payload().is_empty() {
                // A probe of the line.
                continue;
            }
            if again {
                let at = read(&bytes).payload_range().start;
                number = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                bytes.drain(at..at + 2);
            }
            let step = number.wrapping_sub(self.newest as u16).cast_signed();
            let seq = self.newest + i64::from(step);
            self.newest = self.newest.max(seq);
            let payload = read(&bytes).payload().to_vec();
            let before = self.got.insert(seq, bytes);
            // An answer may cross what it answers, and the next question for the same. It has numbers of its own.
            let crosses = again || self.again.contains(&seq);
            let same = |before: Vec<u8>| crosses && read(&before).payload() == payload;
            let same = before.is_none_or(same);
            self.again.extend(again.then_some(seq));
            assert!(same, "{seq} twice");
        }
    }

    /// Frame and index of what a packet carries; `None` of one without payload.
    fn carried(bytes: &[u8]) -> Option<(u32, u8)> {
        let packet = read(bytes);
        let [.., a, b, c, d, index] = packet.payload() else { return None };
        Some((u32::from_be_bytes([*a, *b, *c, *d]), *index))
    }

    /// The frames that came whole.
    fn whole(&self) -> BTreeSet<u32> {
        let packets: BTreeSet<(u32, u8)> =
            self.got.values().filter_map(|bytes| Self::carried(bytes)).collect();
        let is_whole = |id: &u32, frame: &Frame| {
            (0..frame.packets).all(|index| packets.contains(&(*id, index)))
        };
        let frames = self.stream.frames.iter();
        frames.filter(|(id, frame)| is_whole(id, frame)).map(|(id, _)| *id).collect()
    }

    /// All that a decoder and its depacketizer need.
    fn check(&mut self) {
        let (kind, whole) = (self.kind, self.whole());
        // What the network before the relay broke is nobody's fault here.
        let mut broken: BTreeSet<u32> = self.lost.iter().map(|(frame, _)| *frame).collect();
        for (id, frame) in &self.stream.frames {
            if frame.refs.iter().any(|of| broken.contains(of)) {
                broken.insert(*id);
            }
        }
        let begun: BTreeSet<u32> = self
            .got
            .values()
            .filter_map(|bytes| Self::carried(bytes))
            .map(|(frame, _)| frame)
            .collect();
        let cut = self.cut();
        for id in begun.iter().filter(|id| !broken.contains(id)) {
            let frame = &self.stream.frames[id];
            if cut.contains(&frame.picture) {
                continue;
            }
            assert!(whole.contains(id), "{kind:?}: frame {id} has holes: {frame:?}");
            for of in &frame.refs {
                assert!(whole.contains(of), "{kind:?}: frame {id} without {of}: {frame:?}");
            }
        }
        // Holes are only what did not arrive.
        let holes = self.got.keys().zip(self.got.keys().skip(1)).map(|(a, b)| b - a - 1);
        let holes: i64 = holes.sum();
        assert!(holes <= self.lost.len() as i64, "{kind:?}: {holes} holes");
        self.check_numbers(&broken);
    }

    /// Whether decoding can begin with a picture.
    fn is_key(&self, picture: u32) -> bool {
        let first = self.stream.frames.values().find(|frame| frame.picture == picture);
        first.is_some_and(|frame| frame.refs.is_empty())
    }

    /// The pictures that a key picture or nothing follows, and of which not all may have been sent: a line that narrows to a
    /// tenth in the middle of one leaves its rest waiting for longer than it can be looked up. Without any given up there are
    /// none.
    fn cut(&self) -> BTreeSet<u32> {
        if self.bench.dropped(DropReason::PacerFull) == 0 {
            return BTreeSet::new();
        }
        let frames = self.got.values().filter_map(|bytes| Self::carried(bytes));
        let pictures: Vec<u32> =
            frames.map(|(frame, _)| self.stream.frames[&frame].picture).collect();
        let follows = pictures.windows(2).filter(|pair| pair[0] != pair[1] && self.is_key(pair[1]));
        let last = pictures.last().copied();
        follows.map(|pair| pair[0]).chain(last).collect()
    }

    /// What waits for the line leaves, and what is asked for after it.
    fn drain(&mut self) {
        // What was asked for goes at a share of the line, too: of a narrow one each packet takes a second.
        let mut idle = 0;
        for _ in 0..1000 {
            self.pass();
            self.ask();
            let peer = self.bench.worker.peer_statistics(self.subscriber.id).unwrap();
            let waits = peer.pacer.is_some_and(|pacer| pacer.waiting.packets > 0);
            idle = if waits { 0 } else { idle + 1 };
            if idle > 600 || (idle > 0 && self.missing().is_empty()) {
                return;
            }
        }
        panic!("{:?}: it waits for ever", self.kind);
    }

    /// Timestamps, markers and ids of the codec, over what came whole.
    fn check_numbers(&self, broken: &BTreeSet<u32>) {
        let kind = self.kind;
        let mut pictures: BTreeMap<u32, Vec<&[u8]>> = BTreeMap::new();
        for bytes in self.got.values() {
            let Some((frame, _)) = Self::carried(bytes) else { continue };
            pictures.entry(self.stream.frames[&frame].picture).or_default().push(bytes);
        }
        let offsets: BTreeSet<u32> = pictures
            .iter()
            .flat_map(|(picture, packets)| packets.iter().map(move |bytes| (picture, bytes)))
            .map(|(picture, bytes)| read(bytes).timestamp().wrapping_sub(picture * 3000))
            .collect();
        assert_eq!(offsets.len(), 1, "{kind:?}: time goes on as the source's");
        let mut ids = BTreeSet::new();
        let cut = self.cut();
        for (picture, packets) in &pictures {
            let frames = packets.iter().filter_map(|bytes| Self::carried(bytes));
            let frames: BTreeSet<u32> = frames.map(|(frame, _)| frame).collect();
            let id = packets.iter().filter_map(|bytes| picture_id(kind, bytes)).collect::<Vec<_>>();
            assert!(id.iter().all(|other| *other == id[0]), "{kind:?}: one picture, one id");
            if kind == Kind::Vp8 {
                assert!(ids.insert(id[0]), "{kind:?}: picture id {} twice", id[0]);
            }
            if frames.iter().any(|frame| broken.contains(frame)) || cut.contains(picture) {
                continue;
            }
            let (last, others) = packets.split_last().unwrap();
            assert!(read(last).marker(), "{kind:?}: picture {picture} has no end");
            assert!(!others.iter().any(|b| read(b).marker()), "{kind:?}: {picture} ends twice");
        }
        self.check_frame_numbers();
        if kind == Kind::Vp8 && self.lost.is_empty() && self.late.is_empty() {
            let ids: Vec<u16> = ids.into_iter().collect();
            let span = ids.last().unwrap() - ids.first().unwrap();
            assert!(usize::from(span) < ids.len() + LATE_MAX, "{kind:?}: ids go on");
        }
    }
}

impl Call {
    /// Differences of frame numbers stay, but where a key picture follows what was given up; and they only grow.
    fn check_frame_numbers(&self) {
        let (kind, given_up) = (self.kind, self.bench.dropped(DropReason::PacerFull) > 0);
        let mut before: Option<(u32, u16, u16)> = None;
        for bytes in self.got.values() {
            let data = read(bytes).extension(IDS.dependency_descriptor).map(<[u8]>::to_vec);
            let Some((data, (frame, _))) = data.zip(Self::carried(bytes)) else { continue };
            let number = dependency::Descriptor::parse(&data).unwrap().frame_number;
            let (offset, picture) =
                (number.wrapping_sub(frame as u16), self.stream.frames[&frame].picture);
            if let Some((last, last_offset, last_number)) = before {
                let anew = given_up && last != picture && self.is_key(picture);
                assert!(offset == last_offset || anew, "{kind:?}: frame {frame} is {number}");
                let grows = number.wrapping_sub(last_number).cast_signed() >= i16::from(anew);
                assert!(grows, "{kind:?}: frame {frame} is {number} after {last_number}");
            }
            before = Some((picture, offset, number));
        }
    }
}

/// Pictures of which a gap of ids may remain, because all of them came late.
const LATE_MAX: usize = 64;

fn picture_id(kind: Kind, bytes: &[u8]) -> Option<u16> {
    let packet = read(bytes);
    match kind {
        Kind::Vp8 => vp8::Descriptor::parse(packet.payload())?.picture_id.map(|id| id.value()),
        Kind::Vp9 | Kind::Vp9Svc | Kind::Vp9KeySvc => {
            vp9::Descriptor::parse(packet.payload())?.picture_id.map(|id| id.value())
        }
        _ => None,
    }
}

/// The layers of the frames that came whole of the last pictures.
fn shown(call: &Call, pictures: u32) -> BTreeSet<(u8, u8)> {
    let newest = call.stream.frames.values().map(|frame| frame.picture).max().unwrap();
    let whole = call.whole();
    let frames = whole.iter().map(|id| &call.stream.frames[id]);
    let late = frames.filter(|frame| frame.picture + pictures > newest);
    late.map(|frame| (frame.spatial, frame.temporal)).collect()
}

#[test]
fn layers_are_left_out_and_come_back() {
    for kind in Kind::ALL {
        let mut call = Call::new(kind, 7);
        let top = kind.spatial_layers() - 1;
        (0..9).for_each(|_| call.picture(2, 0, 0));
        assert_eq!(shown(&call, 8).len(), 3 * usize::from(top + 1), "{kind:?}: all of them");

        call.prefer(top, 0);
        (0..16).for_each(|_| call.picture(2, 0, 0));
        let temporal = |call: &Call| shown(call, 8).iter().map(|(_, t)| *t).max();
        assert_eq!(temporal(&call), Some(0), "{kind:?}: at once");
        call.prefer(top, 1);
        (0..16).for_each(|_| call.picture(2, 0, 0));
        assert_eq!(temporal(&call), Some(1), "{kind:?}: by itself, without a key frame");
        call.prefer(top, 2);
        (0..24).for_each(|_| call.picture(2, 0, 0));
        assert_eq!(temporal(&call), Some(2), "{kind:?}");

        call.prefer(0, 3);
        (0..16).for_each(|_| call.picture(2, 0, 0));
        assert_eq!(shown(&call, 8).iter().map(|(s, _)| *s).max(), Some(0), "{kind:?}");
        call.prefer(3, 3);
        (0..24).for_each(|_| call.picture(2, 0, 0));
        assert_eq!(shown(&call, 8).len(), 3 * usize::from(top + 1), "{kind:?}: all again");
        call.check();
        let (first, last) = (*call.got.keys().next().unwrap(), call.newest);
        assert_eq!((first, last - first + 1), (100, call.got.len() as i64), "{kind:?}: no hole");
    }
}

#[test]
fn only_spatial_layers_cost_a_key_frame() {
    for kind in Kind::ALL {
        let mut call = Call::new(kind, 7);
        (0..8).for_each(|_| call.picture(1, 0, 0));
        call.prefer(3, 0);
        (0..8).for_each(|_| call.picture(1, 0, 0));
        call.prefer(3, 3);
        (0..32).for_each(|_| call.picture(1, 0, 0));
        let keys = |call: &Call| call.bench.worker.peer_statistics(call.publisher.id).unwrap();
        let requests = keys(&call).publications[0].encodings[0].key_frame_requests;
        assert!(requests <= 1, "{kind:?}: {requests} before the first picture");
    }
}

#[test]
fn a_packet_of_a_left_out_layer_that_was_due_comes_without_payload() {
    let mut call = Call::new(Kind::Vp8, 7);
    call.prefer(3, 0);
    call.picture(1, 0, 0);
    // A picture of the highest layer, late: the next one came before it was known to be left out.
    call.picture(1, 0, 1);
    call.picture(1, 0, 0);
    call.picture(1, 0, 0);
    call.picture(1, 0, 0);
    let got: Vec<(i64, bool)> =
        call.got.iter().map(|(seq, bytes)| (*seq, read(bytes).payload().is_empty())).collect();
    assert_eq!(got, [(100, false), (101, true), (102, false)]);
}

#[test]
fn no_spatial_layer_is_sent_that_is_larger_than_it_is_shown() {
    for kind in [Kind::Vp9Svc, Kind::Vp9KeySvc] {
        let mut call = Call::new(kind, 7);
        (0..30).for_each(|_| call.picture(1, 0, 0));
        for (height, spatial) in [(360, 1), (90, 0), (1080, 2), (180, 0), (200, 1), (720, 2)] {
            let preferences = Preferences { height: Some(height), ..Preferences::default() };
            let subscription = SubscriptionId(1);
            call.bench.command(Command::SetPreferences { subscription, preferences });
            call.collect();
            (0..30).for_each(|_| call.picture(1, 0, 0));
            let highest = shown(&call, 8).iter().map(|(spatial, _)| *spatial).max();
            assert_eq!(highest, Some(spatial), "{kind:?} at {height}");
        }
        call.check();
    }
}

/// What a second carries when each packet has so much filler, about.
const FILLER: usize = 500;

impl Call {
    /// A second of pictures; how many bits came of it.
    fn second(&mut self) -> u64 {
        let bytes = |call: &Self| call.got.values().map(Vec::len).sum::<usize>() as u64;
        let before = bytes(self);
        (0..30).for_each(|_| self.picture(1, 0, 0));
        (bytes(self) - before) * 8
    }

    fn estimate(&mut self, bps: u64) {
        self.subscriber.send_rtcp(&mut self.bench, |rtcp| {
            rtcp.receiver_report(1, &[]).unwrap();
            rtcp.remb(1, bps, &[OUT]).unwrap();
        });
        self.collect();
    }
}

#[test]
fn a_budget_too_small_for_all_leaves_out_upper_layers() {
    for kind in Kind::ALL {
        let mut call = Call::new(kind, 7);
        call.stream.filler = FILLER;
        let whole = (0..4).map(|_| call.second()).last().unwrap();
        let layers = shown(&call, 8).len();
        let budget = (whole * 6 / 10).max(40_000);
        let mut carried = Vec::new();
        for _ in 0..12 {
            call.estimate(budget);
            carried.push(call.second());
        }
        let mean = carried.iter().skip(2).sum::<u64>() / 10;
        assert!(mean < budget * 105 / 100, "{kind:?}: {mean} of {budget}: {carried:?}");
        assert!(mean > whole / 12, "{kind:?}: {carried:?}");
        // Only the best target of a k-SVC stream without its lower layers is as good as all.
        assert!(carried[1] < whole * 7 / 10, "{kind:?}: at once: {carried:?} of {whole}");
        let most = (0..30).find(|_| {
            call.estimate(20 * whole);
            call.second();
            shown(&call, 8).len() == layers
        });
        assert!(most.is_some(), "{kind:?}: all again");
        call.check();
    }
}

/// A picture: of how many packets each frame is, which are lost and late, and what is preferred from then on.
type Step = (u8, u16, u16, Option<(u8, u8)>);

fn steps(lossy: bool) -> impl Strategy<Value = Vec<Step>> {
    let mask = if lossy { 0x1248 } else { 0 };
    let some = move || prop::option::weighted(0.3, any::<u16>().prop_map(move |bits| bits & mask));
    let late = prop::option::weighted(0.3, any::<u16>());
    let wish = prop::option::weighted(0.5, (0_u8..4, 0_u8..4));
    let step = (1_u8..4, some(), late, wish).prop_map(|(packets, lost, late, wish)| {
        (packets, lost.unwrap_or(0), late.unwrap_or(0), wish)
    });
    prop::collection::vec(step, 20..140)
}

fn run(kind: Kind, start: u16, steps: &[Step]) -> Call {
    let mut call = Call::new(kind, start);
    // From the first picture the relay learns how the stream is made: of what comes before it, it knows nothing.
    call.picture(1, 0, 0);
    for (packets, lost, late, wish) in steps {
        if let Some((spatial, temporal)) = wish {
            call.prefer(*spatial, *temporal);
        }
        call.picture(*packets, *lost, *late);
    }
    call.picture(1, 0, 0);
    call.check();
    call
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same, with layers that follow from budgets, and pictures that wait for a line that is known to be narrow.
    #[test]
    fn whatever_a_budget_leaves_can_be_decoded(
        tells in any::<bool>(),
        steps in any::<bool>().prop_flat_map(steps),
        budgets in prop::collection::vec(prop::option::weighted(0.2, 30_000..600_000_u64), 140),
        start in any::<u16>(),
    ) {
        for kind in Kind::ALL {
            let mut call = Call::telling(kind, start, tells);
            if tells {
                call.prove();
            }
            call.stream.filler = FILLER;
            (0..70).for_each(|_| call.picture(1, 0, 0));
            for ((packets, lost, late, _), budget) in steps.iter().zip(&budgets) {
                if let Some(budget) = budget {
                    call.estimate(*budget);
                }
                call.picture(*packets, *lost, *late);
            }
            call.picture(1, 0, 0);
            call.drain();
            call.check();
        }
    }
}

proptest! {
    /// Some 10,000 times for each kind of stream layers change at random with packets late and lost before
    /// the relay: whatever reaches the decoder it can decode, no frame has holes, and all is shown again when nothing is held back any more.
    #[test]
    fn whatever_is_sent_can_be_decoded(
        steps in any::<bool>().prop_flat_map(steps), start in any::<u16>()
    ) {
        for kind in Kind::ALL {
            let mut call = run(kind, start, &steps);
            call.prefer(3, 3);
            (0..40).for_each(|_| call.picture(1, 0, 0));
            call.check();
            // Of lower spatial layers that the highest does without, nothing until a key frame.
            let top = kind.spatial_layers() - 1;
            let needed = |(s, _): &&(u8, u8)| *s == top || !kind.is_key_svc();
            let layers = shown(&call, 8).iter().filter(needed).count();
            let all = if kind.is_key_svc() { 3 } else { 3 * usize::from(top + 1) };
            prop_assert_eq!(layers, all, "{:?}: all again", kind);
        }
    }
}
