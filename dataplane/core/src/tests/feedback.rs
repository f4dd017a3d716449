//! Feedback both ways: by transport-wide numbers, by the streams' own with ECN marks (RFC 8888), and extended reports.

use crate::command::{Command, Kind};
use crate::limits::{BANDWIDTH_BPS_START, FEEDBACK_INTERVAL_MAX, REPORT_INTERVAL_MAX};
use crate::port::Meta;
use crate::testing::{
    Bench, Client, IDS, OPUS, VP8, encoding, ms, packet, publish, read, subscribe, vp8,
};
use crate::time::Duration;
use strait_wire::rtcp::{self, Dlrr, Outcome, Packet, XrBlock};

/// Feedback of RFC 8888, and reduced size, for these codecs.
fn agree(command: &mut Command, by_name: bool, reduced: bool) {
    let (Command::Publish { codecs, .. } | Command::Subscribe { codecs, .. }) = command else {
        return;
    };
    for codec in codecs {
        (codec.transport_cc, codec.ccfb, codec.reduced_size) = (!by_name, by_name, reduced);
    }
}

fn publisher(bench: &mut Bench, kind: Kind, by_name: bool, reduced: bool) -> Client {
    let publisher = Client::connected(bench, 1);
    let mut command = publish(publisher.id, 1, kind, &[encoding(5)]);
    agree(&mut command, by_name, reduced);
    bench.command(command);
    bench.sent();
    publisher
}

fn receive(bench: &mut Bench, client: &mut Client, bytes: &[u8], ecn: u8) {
    let mut bytes = client.protect(bytes);
    let meta = Meta { path: client.path, at: bench.now.at, ecn };
    bench.worker.on_datagram(bench.now, meta, &mut bytes, &mut bench.egress);
}

/// The RTCP packets of each datagram to a peer.
fn reports(bench: &mut Bench, client: &mut Client) -> Vec<Vec<u8>> {
    let sent = bench.sent();
    client.open(&sent).1
}

fn video(seq: u16, bytes: usize) -> Vec<u8> {
    let mut payload = vp8(seq & 0x7fff, seq as u8, seq == 1);
    payload.resize(bytes, 7);
    packet((5, VP8, seq, u32::from(seq) * 3000), &[], &payload)
}

#[test]
fn marks_are_counted_and_told_to_their_sender() {
    let mut bench = Bench::new();
    let mut publisher = publisher(&mut bench, Kind::Video, true, true);
    // 3 is lost, a probe on a stream that nobody knows comes between.
    for (seq, ecn) in [(1, 1), (2, 3), (4, 1), (5, 0)] {
        receive(&mut bench, &mut publisher, &video(seq, 900), ecn);
        bench.run(ms(5));
    }
    let probe = packet((77, 120, 9, 0), &[], &[0; 200]);
    receive(&mut bench, &mut publisher, &probe, 2);
    bench.run(ms(60));
    let all = reports(&mut bench, &mut publisher);
    let feedback: Vec<_> = all.iter().filter_map(|bytes| congestion_control(bytes)).collect();
    let [feedback] = &feedback[..] else { panic!("one feedback, not {}", feedback.len()) };
    let marks = |ssrc: u32| -> Vec<(u16, Option<u8>)> {
        let stream = feedback.streams().find(|stream| stream.ssrc == ssrc).expect("told about");
        stream.metrics().map(|(seq, metric)| (seq, metric.map(|metric| metric.ecn))).collect()
    };
    assert_eq!(marks(5), [(1, Some(1)), (2, Some(3)), (3, None), (4, Some(1)), (5, Some(0))]);
    assert_eq!(marks(77), [(9, Some(2))], "what belongs to no stream has travelled as well");
    let stream = feedback.streams().find(|stream| stream.ssrc == 5).unwrap();
    let offset = |seq| stream.metric(seq).flatten().and_then(|metric| metric.offset_us()).unwrap();
    assert!((offset(1) - offset(4) - 10_000).abs() < 1000, "5 ms each");
    let now = (bench.now.ntp >> 16) as u32;
    assert!(now.wrapping_sub(feedback.report_timestamp) < 65_536 / 10, "within 100 ms");

    // What is lost between two reports is told with the second.
    receive(&mut bench, &mut publisher, &video(8, 900), 0);
    bench.run(ms(250));
    let all = reports(&mut bench, &mut publisher);
    let feedback = all.iter().find_map(|bytes| congestion_control(bytes)).expect("told");
    let stream = feedback.streams().next().unwrap();
    assert_eq!((stream.begin_seq, stream.len()), (6, 3));
    assert_eq!((stream.metric(6), stream.metric(7)), (Some(None), Some(None)));

    let peer = bench.worker.peer_statistics(publisher.id).unwrap();
    assert_eq!((peer.ecn.ect0, peer.ecn.ect1, peer.ecn.ce), (1, 2, 1));
    assert_eq!(bench.worker.statistics().ecn, peer.ecn);
}

fn congestion_control(bytes: &[u8]) -> Option<rtcp::CongestionControl<'_>> {
    rtcp::packets(bytes).find_map(|packet| match packet {
        Ok(Packet::CongestionControl(feedback)) => Some(feedback),
        _ => None,
    })
}

#[test]
fn what_belongs_to_no_stream_is_in_transport_wide_feedback() {
    let mut bench = Bench::new();
    let mut publisher = publisher(&mut bench, Kind::Video, false, true);
    let probe = |ssrc: u32, number: u16| {
        packet((ssrc, 120, number, 0), &[(IDS.transport_cc, &number.to_be_bytes())], &[0; 99])
    };
    for (ssrc, number) in [(77, 1), (78, 2), (77, 4)] {
        receive(&mut bench, &mut publisher, &probe(ssrc, number), 0);
    }
    bench.run(ms(60));
    let all = reports(&mut bench, &mut publisher);
    let packets = all.iter().flat_map(|bytes| rtcp::packets(bytes)).map(Result::unwrap);
    let feedback = packets.filter_map(|packet| match packet {
        Packet::TransportCc(feedback) => Some(feedback),
        _ => None,
    });
    let told: Vec<_> = feedback.flat_map(|feedback| feedback.statuses()).collect();
    let told: Vec<_> = told.into_iter().map(|(seq, delta)| (seq, delta.is_some())).collect();
    assert_eq!(told, [(1, true), (2, true), (3, false), (4, true)]);
}

#[test]
fn feedback_comes_alone_only_where_that_was_agreed() {
    for (by_name, reduced) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bench = Bench::new();
        let mut publisher = publisher(&mut bench, Kind::Video, by_name, reduced);
        let subscriber = Client::connected(&mut bench, 2);
        subscriber.subscribe(&mut bench, 2, Kind::Video, Some(1));
        bench.run(ms(1200));
        bench.sent();
        // A hole to ask for, a key frame to ask for, and arrivals to tell.
        for seq in [10_u16, 12] {
            let number = seq.to_be_bytes();
            let payload = vp8(seq, 1, false);
            let bytes = packet((5, VP8, seq, 9), &[(IDS.transport_cc, &number)], &payload);
            receive(&mut bench, &mut publisher, &bytes, 0);
        }
        bench.run(ms(600));
        let all = reports(&mut bench, &mut publisher);
        let mut kinds = [0; 3];
        for bytes in &all {
            let packets: Vec<_> = rtcp::packets(bytes).map(Result::unwrap).collect();
            let at = packets.iter().position(|packet| {
                let kind = match packet {
                    Packet::Nack(_) => 0,
                    Packet::Pli(_) => 1,
                    Packet::TransportCc(_) | Packet::CongestionControl(_) => 2,
                    _ => return false,
                };
                kinds[kind] += 1;
                true
            });
            let Some(at) = at else { continue };
            if reduced {
                assert_eq!((at, packets.len()), (0, 1));
            } else {
                let [Packet::ReceiverReport(_), Packet::SourceDescription(names), _] = packets[..]
                else {
                    panic!("a report, a name and feedback, not {packets:?}");
                };
                assert!(names.cname(901).is_some());
            }
        }
        assert!(kinds.iter().all(|count| *count > 0), "{by_name} {reduced} {kinds:?}");
    }
}

#[test]
fn sound_alone_is_fed_back_less_often() {
    let mut bench = Bench::new();
    let mut publisher = publisher(&mut bench, Kind::Audio, false, true);
    let mut told = Vec::new();
    for seq in 1..=500_u16 {
        let number = seq.to_be_bytes();
        let sound = packet((5, OPUS, seq, 960), &[(IDS.transport_cc, &number)], &[1; 80]);
        receive(&mut bench, &mut publisher, &sound, 0);
        bench.run(ms(20));
        let all = reports(&mut bench, &mut publisher);
        let tells = |bytes: &&Vec<u8>| {
            rtcp::packets(bytes).any(|packet| matches!(packet, Ok(Packet::TransportCc(_))))
        };
        told.extend(all.iter().filter(tells).map(|_| bench.now.at));
    }
    let (first, last) = (told[told.len() - 11], told[told.len() - 1]);
    let between = last.since(first) / 10;
    assert!(between.abs_diff(FEEDBACK_INTERVAL_MAX) <= ms(20), "{between:?}");
}

#[test]
fn many_silent_streams_are_reported_less_often() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut subscriber = Client::connected(&mut bench, 2);
    for id in 1..=15 {
        publisher.publish(&mut bench, id, Kind::Audio, &[encoding(10 * id)]);
        for n in 0..4 {
            subscriber.subscribe(&mut bench, 100 * n + id, Kind::Audio, Some(id));
        }
    }
    for id in 1..=15_u16 {
        let mid = id.to_string();
        let ssrc = u32::from(10 * id);
        publisher.send_rtcp(&mut bench, |rtcp| {
            rtcp.sender_report(ssrc, 77 << 32, 0, 0, 0, &[]).unwrap();
        });
        let sound = packet((ssrc, OPUS, 1, 960), &[(IDS.mid, mid.as_bytes())], &[1; 80]);
        publisher.send(&mut bench, &sound);
        publisher.send_rtcp(&mut bench, |rtcp| {
            rtcp.sender_report(ssrc, 77 << 32, 0, 0, 0, &[]).unwrap();
        });
    }
    bench.run(ms(2500));
    bench.sent();
    let mut at = Vec::new();
    for _ in 0..200 {
        publisher.check(&mut bench);
        subscriber.check(&mut bench);
        bench.run(ms(100));
        if !reports(&mut bench, &mut subscriber).is_empty() {
            at.push(bench.now.at);
        }
    }
    let between = at[2].since(at[1]);
    assert!(between > ms(3000) && between <= REPORT_INTERVAL_MAX + ms(100), "{between:?}");
}

#[test]
fn round_trips_are_measured_by_extended_reports() {
    let mut bench = Bench::new();
    let mut publisher = publisher(&mut bench, Kind::Video, true, true);
    receive(&mut bench, &mut publisher, &video(1, 900), 0);
    bench.run(ms(1200));
    let all = reports(&mut bench, &mut publisher);
    let asked = |bytes: &Vec<u8>| {
        rtcp::packets(bytes).find_map(|packet| match packet {
            Ok(Packet::ExtendedReport(report)) => match report.blocks().next() {
                Some(XrBlock::ReceiverReferenceTime(ntp)) => Some((report.ssrc, ntp)),
                _ => None,
            },
            _ => None,
        })
    };
    let (ssrc, ntp) = all.iter().find_map(asked).expect("asked");
    assert_eq!(ssrc, 901);
    let waited = (bench.now.ntp.wrapping_sub(ntp) >> 16) as u32;
    bench.advance(ms(120));
    let answer = |ssrc| Dlrr { ssrc, last_rr: (ntp >> 16) as u32, delay_since_last_rr: waited };
    publisher.send_rtcp(&mut bench, |rtcp| rtcp.dlrr(5, &[answer(902)]).unwrap());
    let round_trip = |bench: &Bench| bench.worker.peer_statistics(publisher.id).unwrap().round_trip;
    assert_eq!(round_trip(&bench), None, "nobody asked so");
    publisher.send_rtcp(&mut bench, |rtcp| rtcp.dlrr(5, &[answer(902), answer(901)]).unwrap());
    let round_trip = |bench: &Bench| bench.worker.peer_statistics(publisher.id).unwrap().round_trip;
    let trip = round_trip(&bench).expect("measured");
    assert!(trip.abs_diff(ms(120)) < Duration::from_millis(1), "{trip:?}");
    // One from the future, and one of no time at all, say nothing.
    let lie = |last_rr| Dlrr { ssrc: 901, last_rr, delay_since_last_rr: 0 };
    let future = ((bench.now.ntp >> 16) as u32).wrapping_add(65_536);
    publisher.send_rtcp(&mut bench, |rtcp| rtcp.dlrr(5, &[lie(future)]).unwrap());
    publisher.send_rtcp(&mut bench, |rtcp| rtcp.dlrr(5, &[lie(0)]).unwrap());
    let round_trip = |bench: &Bench| bench.worker.peer_statistics(publisher.id).unwrap().round_trip;
    assert_eq!(round_trip(&bench), Some(trip));
}

#[test]
fn receivers_that_ask_are_answered_and_no_more_than_can_be_kept() {
    let mut bench = Bench::new();
    let mut publisher = publisher(&mut bench, Kind::Video, false, true);
    let mut subscriber = Client::connected(&mut bench, 2);
    subscriber.subscribe(&mut bench, 2, Kind::Video, Some(1));
    publisher.send_rtcp(&mut bench, |rtcp| {
        rtcp.sender_report(5, 77 << 32, 0, 0, 0, &[]).unwrap();
    });
    receive(&mut bench, &mut publisher, &video(1, 900), 0);
    bench.run(ms(1100));
    publisher.send_rtcp(&mut bench, |rtcp| {
        rtcp.sender_report(5, 78 << 32, 90_000, 0, 0, &[]).unwrap();
    });
    bench.sent();
    for n in 0..20_u32 {
        subscriber.send_rtcp(&mut bench, |rtcp| {
            rtcp.receiver_reference_time(n, u64::from(1000 + n) << 16).unwrap();
        });
    }
    let asked_at = bench.now.at;
    let mut answers = Vec::new();
    let mut delay = Duration::ZERO;
    for _ in 0..30 {
        bench.run(ms(50));
        for bytes in reports(&mut bench, &mut subscriber) {
            for packet in rtcp::packets(&bytes) {
                let Ok(Packet::ExtendedReport(report)) = packet else { continue };
                for block in report.blocks() {
                    let XrBlock::Dlrr(dlrrs) = block else { continue };
                    answers.extend(dlrrs.iter());
                    delay = bench.now.at.since(asked_at);
                }
            }
        }
    }
    let ssrcs: Vec<_> = answers.iter().map(|answer| (answer.ssrc, answer.last_rr)).collect();
    assert_eq!(ssrcs, (12..20).map(|n| (n, 1000 + n)).collect::<Vec<_>>(), "each once");
    let told =
        Duration::from_micros(u64::from(answers[0].delay_since_last_rr) * 1_000_000 / 65_536);
    assert!(delay.abs_diff(told) <= ms(50), "{told:?} of {delay:?}");
}

/// A subscriber with feedback by RFC 8888, behind a line of its own.
struct Line {
    bench: Bench,
    publisher: Client,
    subscriber: Client,
    capacity_bps: f64,
    /// The router marks what would wait longer than this.
    marks_us: Option<f64>,
    free_us: f64,
    /// The code point of what is not marked.
    ecn: u8,
    arrived: Vec<Outcome>,
    seq: u16,
    waits_us: f64,
    /// The next feedback is lost.
    loses_report: bool,
}

const STEP_US: u64 = 5000;
const DELAY_US: u64 = 20_000;

impl Line {
    fn new(capacity_bps: f64, marks_us: Option<f64>, ecn: u8) -> Self {
        let mut bench = Bench::new();
        let publisher = publisher(&mut bench, Kind::Video, true, true);
        let subscriber = Client::connected(&mut bench, 2);
        let mut command = subscribe(subscriber.id, 2, Kind::Video, Some(1));
        agree(&mut command, true, true);
        bench.command(command);
        bench.sent();
        let (free_us, arrived, seq, waits_us) = (0.0, Vec::new(), 0, 0.0);
        let loses_report = false;
        Self {
            bench,
            publisher,
            subscriber,
            capacity_bps,
            marks_us,
            free_us,
            ecn,
            arrived,
            seq,
            waits_us,
            loses_report,
        }
    }

    fn now_us(&self) -> u64 {
        self.bench.now.at.0 / 1000
    }

    /// A publisher of so many bits per second, for so long.
    fn run(&mut self, bps: f64, seconds: u64) {
        for step in 0..seconds * 1_000_000 / STEP_US {
            let bytes = bps * STEP_US as f64 / 8e6;
            for _ in 0..(bytes / 1000.0).ceil() as usize {
                self.seq += 1;
                let size = (bytes / (bytes / 1000.0).ceil()) as usize;
                let bytes = video(self.seq, size);
                receive(&mut self.bench, &mut self.publisher, &bytes, 0);
            }
            if step % 1000 == 0 {
                self.publisher.check(&mut self.bench);
                self.subscriber.check(&mut self.bench);
            }
            self.bench.run(Duration::from_micros(STEP_US));
            self.carry();
            if step % 10 == 9 {
                self.tell();
            }
        }
    }

    fn carry(&mut self) {
        let sent = self.bench.sent();
        self.publisher.open(&sent);
        for bytes in self.subscriber.open(&sent).0 {
            let now = self.now_us() as f64;
            let waits_us = (self.free_us - now).max(0.0);
            self.waits_us = self.waits_us.max(waits_us);
            if waits_us > 300_000.0 {
                continue;
            }
            self.free_us = now + waits_us + bytes.len() as f64 * 8e6 / self.capacity_bps;
            let packet = read(&bytes);
            assert_eq!(packet.extension(IDS.transport_cc), None, "not agreed");
            let marked = self.marks_us.is_some_and(|most| waits_us > most);
            let ecn = if marked { 3 } else { self.ecn };
            let (ssrc, seq) = (packet.ssrc(), packet.seq());
            let at_us = Some(self.free_us as u64 + DELAY_US);
            self.arrived.push(Outcome { ssrc, seq, at_us, ecn });
        }
    }

    /// All that has arrived by now, as one packet of feedback.
    fn tell(&mut self) {
        let now_us = self.now_us();
        let has_come = |outcome: &Outcome| outcome.at_us.is_some_and(|at| at <= now_us);
        let (mut told, left) = self.arrived.drain(..).partition::<Vec<_>, _>(has_come);
        self.arrived = left;
        told.sort_by_key(|outcome| (outcome.ssrc, outcome.seq));
        let stamp = (self.bench.now.ntp >> 16) as u32;
        if std::mem::take(&mut self.loses_report) || told.is_empty() {
            return;
        }
        self.subscriber.send_rtcp(&mut self.bench, |rtcp| {
            let all = rtcp.congestion_control(9, now_us, stamp, &told).unwrap();
            assert_eq!(all, told.len());
        });
    }

    fn budget_bps(&self) -> u64 {
        let peer = self.bench.worker.peer_statistics(self.subscriber.id).unwrap();
        peer.budget_bps.unwrap_or_default()
    }
}

#[test]
fn feedback_by_name_alone_brings_the_estimate() {
    let mut line = Line::new(4e6, None, 0);
    line.run(1.5e6, 5);
    let peer = line.bench.worker.peer_statistics(line.subscriber.id).unwrap();
    assert!(peer.estimation.told > 500 && peer.estimation.ignored == 0, "{:?}", peer.estimation);
    // The feedback of 50 ms in a line of 20 ms, told at once.
    let trip = peer.round_trip.unwrap();
    assert!((ms(20)..ms(80)).contains(&trip), "{trip:?}");
    let grown = line.budget_bps();
    assert!(grown > BANDWIDTH_BPS_START * 3 / 2, "{grown}");

    line.capacity_bps = 800e3;
    line.run(1.5e6, 3);
    let fell = line.budget_bps();
    assert!((300_000..850_000).contains(&fell), "{grown} → {fell}");

    // Feedback that is lost says nothing of the packets.
    line.capacity_bps = 4e6;
    line.run(1e6, 3);
    let before = line.budget_bps();
    for _ in 0..10 {
        line.loses_report = true;
        line.run(1e6, 1);
    }
    assert!(line.budget_bps() >= before * 9 / 10, "{before} → {}", line.budget_bps());
}

#[test]
fn marks_lower_the_estimate_before_anything_waits() {
    for ecn in [1, 2] {
        let mut line = Line::new(1.6e6, Some(3_000.0), ecn);
        line.run(1.5e6, 3);
        line.capacity_bps = 1e6;
        line.run(1.5e6, 4);
        let marked = line.bench.worker.peer_statistics(line.subscriber.id).unwrap().estimation;
        assert!(marked.marked > 50, "{marked:?}");
        let budget = line.budget_bps();
        assert!((200_000..1_100_000).contains(&budget), "ECT {ecn}: {budget}");
    }
}

#[test]
fn lies_in_feedback_by_name_move_nothing() {
    let mut line = Line::new(4e6, None, 0);
    line.run(1e6, 2);
    let before = line.bench.worker.peer_statistics(line.subscriber.id).unwrap().estimation;
    // Streams that are not sent, numbers that were not, and more streams than are looked at.
    let lies: Vec<_> = (0..100)
        .map(|n| Outcome {
            ssrc: if n < 2 { 1002 } else { n },
            seq: 30_000,
            at_us: Some(0),
            ecn: 3,
        })
        .collect();
    let now_us = line.now_us();
    line.subscriber.send_rtcp(&mut line.bench, |rtcp| {
        rtcp.congestion_control(9, now_us, 0, &lies[1..]).unwrap();
    });
    let after = line.bench.worker.peer_statistics(line.subscriber.id).unwrap().estimation;
    assert_eq!((after.told, after.marked), (before.told, before.marked));
    assert!(after.ignored > before.ignored);
    // From who did not agree to it, it is not looked at.
    let mut other = Client::connected(&mut line.bench, 3);
    other.subscribe(&mut line.bench, 3, Kind::Video, Some(1));
    other.send_rtcp(&mut line.bench, |rtcp| {
        rtcp.congestion_control(9, now_us, 0, &lies).unwrap();
    });
    let peer = line.bench.worker.peer_statistics(other.id).unwrap();
    assert_eq!((peer.estimation.told, peer.round_trip), (0, None));
}

#[test]
fn probes_go_on_the_stream_of_retransmissions_and_are_told_by_name() {
    let mut line = Line::new(8e6, None, 0);
    // Its first guess is a million, and the source is larger: probing finds out.
    line.run(3e6, 6);
    let estimation = line.bench.worker.peer_statistics(line.subscriber.id).unwrap().estimation;
    assert_eq!(estimation.ignored, 0, "{estimation:?}");
    assert!(line.budget_bps() > 2_500_000, "{}", line.budget_bps());
}
