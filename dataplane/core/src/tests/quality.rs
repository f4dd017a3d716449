//! Loss and queuing delay of what publishers send, through the whole worker, held against the lab's truth.

use crate::arrival::loss::LossStatistics;
use crate::command::{Command, Kind, PeerId, PublicationId, SubscriptionId};
use crate::limits::QUALITY_EVENTS;
use crate::port::Path;
use crate::quality::MediaQuality;
use crate::statistics::EncodingStatistics;
use crate::testing::{
    Bench, Client, IDS, OPUS, SCOPE, VP8, VP8_RTX, encoding, ms, packet, path, publish, vp8,
};
use crate::time::{Duration, Instant};
use strait_lab::link::{Bottleneck, Burst, Conditions, Fate, Link, Queue};
use strait_lab::rng::Rng;
use strait_lab::truth::Truth;

const SSRC: u32 = 5;

/// A camera that is plain, behind a line of the lab.
struct Camera {
    bench: Bench,
    path: Path,
    link: Link,
    truth: Truth,
    /// What will arrive, when and what of it the truth knows.
    arrivals: Vec<(Duration, Vec<u8>)>,
    sent_at: Duration,
    /// The lab's zero on the worker's clock.
    begin: Instant,
    seq: u16,
    told: Vec<MediaQuality>,
}

impl Camera {
    fn new(conditions: Conditions) -> Self {
        let (mut bench, path, peer) = (Bench::new(), path(9000), PeerId(1));
        bench.command(Command::AddFixedPeer { scope: SCOPE, peer, path });
        bench.command(Command::SetPlain { peer });
        bench.command(publish(peer, 1, Kind::Video, &[encoding(SSRC)]));
        Self {
            begin: bench.now.at,
            bench,
            path,
            link: Link::new(&[(Duration::ZERO, conditions)], Rng::new(7)),
            truth: Truth::new(),
            arrivals: Vec::new(),
            sent_at: Duration::ZERO,
            seq: 60_000,
            told: Vec::new(),
        }
    }

    /// Sends packets 4 ms apart, with the send time of a clock that is 100 ppm fast.
    fn send(&mut self, count: u32) {
        for n in 0..count {
            let theirs = self.sent_at.as_secs_f64() * 1.0001 + 50.0;
            let [_, a, b, c] = ((theirs * 262_144.0) as u64 as u32).to_be_bytes();
            let timestamp = (theirs * 90_000.0) as u64 as u32;
            let header = (SSRC, VP8, self.seq, timestamp);
            let bytes =
                packet(header, &[(IDS.abs_send_time, &[a, b, c])], &vp8(n as u16, 0, false));
            let fate = self.link.carry(self.sent_at, 1000);
            self.truth.note(fate);
            self.arrivals.extend(fate.arrivals().map(|at| (at, bytes.clone())));
            // Some of the lost come again by RTX, and some that were not lost do.
            let lost = matches!(fate, Fate::Lost | Fate::QueueFull);
            if (lost && n % 2 == 0) || n % 50 == 0 {
                let mut payload = self.seq.to_be_bytes().to_vec();
                payload.extend(vp8(n as u16, 0, false));
                let rtx = packet((SSRC + 1, VP8_RTX, n as u16, timestamp), &[], &payload);
                self.arrivals.push((self.sent_at + ms(120), rtx));
            }
            self.seq = self.seq.wrapping_add(1);
            self.sent_at += ms(4);
        }
    }

    /// Lets all of it arrive.
    fn arrive(&mut self) {
        self.arrivals.sort_by_key(|(at, _)| *at);
        for (at, bytes) in std::mem::take(&mut self.arrivals) {
            let due = self.begin + at;
            self.bench.run(due.since(self.bench.now.at));
            self.bench.receive(self.path, &bytes);
            self.bench.egress.clear();
            self.told.extend(std::iter::from_fn(|| self.bench.worker.poll_quality()));
        }
        self.bench.run(ms(4500));
        self.told.extend(std::iter::from_fn(|| self.bench.worker.poll_quality()));
        self.sent_at = self.bench.now.at.since(self.begin);
    }

    fn encoding(&self) -> EncodingStatistics {
        let peer = self.bench.worker.peer_statistics(PeerId(1)).expect("is there");
        peer.publications[0].encodings[0].clone()
    }
}

/// Reordered, doubled, lost one by one and in bursts.
fn odd() -> Conditions {
    Conditions {
        delay: ms(30),
        jitter: ms(15),
        jitter_reorders: true,
        loss: 0.02,
        burst: Some(Burst { enter: 0.002, leave: 0.25, loss: 0.9 }),
        reorder: 0.02,
        detour: ms(100),
        duplicate: 0.02,
        ..Conditions::CLEAR
    }
}

#[test]
fn loss_is_that_of_the_lab_with_all_that_hides_it() {
    let mut camera = Camera::new(odd());
    camera.send(20_000);
    camera.arrive();
    let (told, truth) = (camera.encoding().loss, camera.truth.loss());
    assert!((0.02..0.06).contains(&truth), "{truth}");
    assert!((told.fraction() - truth).abs() <= 0.001, "{} of {truth}", told.fraction());
    assert!(told.expected >= 19_990 && told.late == 0, "{told:?}");
    assert!(told.repaired > told.lost / 3 && told.repaired < told.lost * 2 / 3, "{told:?}");
    let doubled = camera.link.counts().duplicated;
    assert!(told.duplicates.abs_diff(doubled) <= doubled / 20, "{told:?} of {doubled}");
    // Bursts as they were, up to where the first and the last packets lie.
    let bursts = camera.truth.bursts();
    let classes = [&bursts[..1], &bursts[1..2], &bursts[2..3], &bursts[3..4], &bursts[4..8]];
    for (class, (told, truth)) in told.bursts.iter().zip(classes).enumerate() {
        let truth: u64 = truth.iter().sum();
        assert!(told.abs_diff(truth) <= 1, "class {class}: {told} of {truth}");
    }
}

#[test]
fn a_new_start_of_the_sender_is_no_loss() {
    let mut camera = Camera::new(Conditions { loss: 0.03, delay: ms(20), ..Conditions::CLEAR });
    for start in [100, 40_000, 7, 20_000] {
        camera.seq = start;
        camera.send(5000);
        camera.arrive();
        // It is silent for long enough that another may take its place, which has the same SSRC.
        let unpublish = Command::Unpublish { publication: crate::command::PublicationId(1) };
        if start != 20_000 {
            let told = camera.encoding().loss;
            assert!((told.fraction() - 0.03).abs() < 0.01, "{told:?}");
            camera.bench.command(unpublish);
            let again = publish(PeerId(1), 1, Kind::Video, &[encoding(SSRC)]);
            camera.bench.command(again);
            camera.truth = Truth::new();
        }
    }
    let told = camera.encoding().loss;
    assert!((told.fraction() - camera.truth.loss()).abs() <= 0.001, "{told:?}");
}

#[test]
fn queuing_delay_is_that_of_the_lab() {
    let bottleneck = Bottleneck { rate_bps: 3_000_000, queue: Queue::Time(ms(150)) };
    let empty = Conditions { delay: ms(30), bottleneck: Some(bottleneck), ..Conditions::CLEAR };
    let mut camera = Camera::new(empty);
    camera.send(5000);
    camera.arrive();
    let before = camera.encoding();
    assert!(before.queue_delay.is_some_and(|delay| delay < ms(1)), "{before:?}");
    assert!((before.clock_drift_ppm + 100.0).abs() < 10.0, "{}", before.clock_drift_ppm);
    // 1028 bytes every 4 ms are 2.06 Mbit/s.
    let bottleneck = Bottleneck { rate_bps: 2_000_000, queue: Queue::Time(ms(150)) };
    camera.link.change(camera.sent_at, Conditions { bottleneck: Some(bottleneck), ..empty });
    (camera.truth, camera.told) = (Truth::new(), Vec::new());
    camera.send(2000);
    camera.arrive();
    let p95 = camera.told.iter().filter_map(|told| told.queue_delay_p95).max().expect("told");
    let truth = camera.truth.queue_delay(1.0);
    assert!(p95.abs_diff(truth) < ms(12), "{p95:?} of {truth:?}");
}

#[test]
fn quality_is_told_every_two_seconds_and_adds_up() {
    let mut camera = Camera::new(Conditions { loss: 0.05, ..Conditions::GOOD });
    camera.send(5000);
    camera.arrive();
    let told = &camera.told;
    assert!((10..=12).contains(&told.len()), "{} in 20 s", told.len());
    let mut sum = LossStatistics::default();
    for quality in told {
        assert!((ms(1990)..ms(2100)).contains(&quality.interval) || quality == &told[0]);
        assert_eq!((quality.ssrc, quality.rid.as_str()), (SSRC, ""));
        sum.expected += quality.loss.expected;
        sum.lost += quality.loss.lost;
        sum.repaired += quality.loss.repaired;
    }
    let total = camera.encoding();
    assert_eq!((sum.expected, sum.lost), (total.loss.expected, total.loss.lost));
    let packets: u64 = told.iter().map(|quality| quality.received.packets).sum();
    assert_eq!(packets, total.received.packets);
    let worker = camera.bench.worker.statistics().quality;
    assert_eq!((worker.expected, worker.lost), (sum.expected, sum.lost));
    let delays = told.iter().filter(|quality| quality.queue_delay_p95.is_some()).count();
    assert_eq!(worker.delays.iter().sum::<u64>(), delays as u64);
    // Silence is not told of.
    camera.bench.run(Duration::from_secs(10));
    assert!(camera.bench.worker.poll_quality().is_none());
}

#[test]
fn what_srtp_refuses_as_seen_before_counts_as_a_duplicate() {
    let mut bench = Bench::new();
    let mut ann = Client::connected(&mut bench, 1);
    ann.publish(&mut bench, 1, Kind::Audio, &[encoding(SSRC)]);
    for seq in 1..100_u16 {
        let bytes = ann.protect(&packet((SSRC, OPUS, seq, u32::from(seq) * 960), &[], &[1, 2]));
        bench.receive(ann.path, &bytes);
        if seq % 10 == 0 {
            bench.receive(ann.path, &bytes);
        }
        bench.run(ms(20));
    }
    let peer = bench.worker.peer_statistics(PeerId(1)).expect("is there");
    let loss = peer.publications[0].encodings[0].loss;
    assert_eq!((loss.duplicates, loss.lost), (9, 0));
}

#[test]
fn figures_that_nobody_fetches_are_bounded_and_push_out_no_event() {
    let mut camera = Camera::new(Conditions::CLEAR);
    let events = camera.bench.events().len();
    for _ in 0..QUALITY_EVENTS + 10 {
        camera.send(1);
        let (_, bytes) = camera.arrivals.remove(0);
        camera.arrivals.clear();
        camera.bench.receive(camera.path, &bytes);
        camera.bench.run(ms(2010));
        camera.bench.egress.clear();
    }
    let told: Vec<_> = std::iter::from_fn(|| camera.bench.worker.poll_quality()).collect();
    assert_eq!(told.len(), QUALITY_EVENTS);
    assert!(camera.bench.events().len() <= 1 + events);
}

#[test]
fn how_subscribers_fare_is_told_when_somebody_asks() {
    let mut bench = Bench::new();
    let mut ann = Client::connected(&mut bench, 1);
    let bob = Client::connected(&mut bench, 2);
    ann.publish(&mut bench, 1, Kind::Audio, &[encoding(SSRC)]);
    bob.subscribe(&mut bench, 7, Kind::Audio, Some(1));
    let speak = |bench: &mut Bench, ann: &mut Client, from: u16| {
        for seq in from..from + 250 {
            let bytes =
                ann.protect(&packet((SSRC, OPUS, seq, u32::from(seq) * 960), &[], &[1; 50]));
            bench.receive(ann.path, &bytes);
            bench.run(ms(20));
            bench.egress.clear();
        }
    };
    speak(&mut bench, &mut ann, 1);
    assert!(bench.worker.poll_subscriber_quality().is_none(), "nobody asked");
    bench.worker.ask_subscriber_quality(true);
    speak(&mut bench, &mut ann, 251);
    let told: Vec<_> = std::iter::from_fn(|| bench.worker.poll_subscriber_quality()).collect();
    assert!(told.len() >= 2, "every two seconds: {told:?}");
    for (n, told) in told.iter().enumerate() {
        assert_eq!((told.peer, told.subscriptions.len()), (PeerId(2), 1));
        let quality = &told.subscriptions[0];
        assert_eq!(quality.statistics.subscription, SubscriptionId(7));
        assert_eq!(quality.statistics.publication, Some(PublicationId(1)));
        // 50 packets a second, but for the first interval, which began when nobody asked.
        let expected = told.interval.as_secs_f64() * 50.0;
        let sent = quality.sent.packets as f64;
        assert!(n == 0 || (sent - expected).abs() <= 2.0, "{sent} instead of {expected}");
    }
    let sent: u64 = told.iter().map(|told| told.subscriptions[0].sent.packets).sum();
    let last = told.last().map(|told| told.subscriptions[0].statistics.sent.packets);
    assert_eq!(Some(sent), last, "intervals leave no gaps");
    bench.worker.ask_subscriber_quality(false);
    speak(&mut bench, &mut ann, 501);
    assert!(bench.worker.poll_subscriber_quality().is_none());
}
