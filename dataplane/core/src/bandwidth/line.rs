//! Closed loops for tests: an estimate, a sender that follows it, and a line that is simulated to the microsecond.

use super::Bandwidth;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;
use strait_wire::rtcp::{self, Arrival};

/// A line and what goes over it. Times in milliseconds.
#[derive(Clone)]
pub(crate) struct Line {
    /// From when on it carries how many bits per second; the first from the start.
    pub(crate) capacity_bps: Vec<(u64, f64)>,
    /// What others send over it: from when to when, bits per second.
    pub(crate) others: Vec<(u64, u64, f64)>,
    /// Each way.
    pub(crate) delay_ms: u64,
    /// Share of packets, and of feedback, that is lost at random.
    pub(crate) loss: f64,
    /// Every packet takes up to this much longer, by chance.
    pub(crate) jitter_ms: f64,
    /// Whether packets overtake each other for that.
    pub(crate) reorders: bool,
    /// The subscriber reads nothing for up to this long, up to a tenth of it in between: too much else runs there.
    pub(crate) sleeps_ms: f64,
    /// And once nothing between these.
    pub(crate) sleeps_once: (u64, u64),
    /// What waits longer is dropped.
    pub(crate) queue_ms: f64,
    pub(crate) feedback_ms: u64,
    pub(crate) source: Source,
    pub(crate) seed: u64,
}

/// What there is to send.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A camera whose encoder follows the budget at 30 frames per second, each sent at once.
    Elastic,
    /// Layers of so many bits per second: the best that fits the budget.
    Layers(Vec<f64>),
}

impl Default for Line {
    fn default() -> Self {
        Self {
            capacity_bps: vec![(0, 1e6)],
            others: Vec::new(),
            delay_ms: 20,
            loss: 0.0,
            jitter_ms: 0.0,
            reorders: false,
            sleeps_ms: 0.0,
            sleeps_once: (0, 0),
            queue_ms: 200.0,
            feedback_ms: 100,
            source: Source::Elastic,
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Run {
    /// Millisecond, budget in bits per second, taken every 10 ms.
    pub(crate) budgets: Vec<(u64, f64)>,
    /// When a packet left the line, how long it waited in its queue in milliseconds, and its bytes.
    pub(crate) passed: Vec<(u64, f64, usize)>,
    pub(crate) padding: u64,
    pub(crate) sent: u64,
    pub(crate) probes: u64,
    pub(crate) probes_succeeded: u64,
}

impl Run {
    /// The first time from `from` on that the budget is at least this.
    pub(crate) fn reaches(&self, from: u64, bps: f64) -> Option<u64> {
        let mut budgets = self.budgets.iter().filter(|(ms, _)| *ms >= from);
        budgets.find(|(_, budget)| *budget >= bps).map(|(ms, _)| ms - from)
    }

    /// The mean budget.
    pub(crate) fn budget(&self, from: u64, to: u64) -> f64 {
        let budgets = self.budgets.iter().filter(|(ms, _)| (from..to).contains(ms));
        let budgets: Vec<f64> = budgets.map(|(_, bps)| *bps).collect();
        budgets.iter().sum::<f64>() / budgets.len().max(1) as f64
    }

    /// What passes the line, in bits per second.
    pub(crate) fn carried(&self, from: u64, to: u64) -> f64 {
        let passed = self.passed.iter().filter(|(ms, ..)| (from..to).contains(ms));
        passed.map(|(_, _, bytes)| *bytes as f64).sum::<f64>() * 8e3 / (to - from) as f64
    }

    /// How long of a hundred packets 95 wait at most.
    pub(crate) fn queue_p95(&self, from: u64, to: u64) -> f64 {
        let passed = self.passed.iter().filter(|(ms, ..)| (from..to).contains(ms));
        let mut waits: Vec<f64> = passed.map(|(_, wait, _)| *wait).collect();
        waits.sort_by(f64::total_cmp);
        waits.get(waits.len() * 95 / 100).copied().unwrap_or(0.0)
    }
}

/// Small, fast, and the same everywhere.
#[derive(Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// From 0 to 1.
    pub(crate) fn next(&mut self) -> f64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const PACKET_BYTES: usize = 1200;
const FRAME_US: u64 = 33_333;
/// What a subscriber that slept takes to read a packet.
const READ_US: f64 = 500.0;

struct Waiting {
    /// `None`: somebody else's.
    seq: Option<u16>,
    bytes: usize,
    since_us: f64,
}

struct Sim {
    line: Line,
    chance: Chance,
    bandwidth: Bandwidth,
    queue: VecDeque<Waiting>,
    /// When the line is done with what it carries.
    free_us: f64,
    /// On their way to the subscriber: when they arrive.
    flying: Vec<(f64, u16)>,
    last_arrival_us: f64,
    /// Between when the subscriber sleeps next.
    sleeps_us: (f64, f64),
    read_us: f64,
    /// On its way back: when it arrives.
    feedback: VecDeque<(u64, Vec<u8>)>,
    feedback_count: u8,
    layer: usize,
    raised_ms: u64,
    run: Run,
}

impl Line {
    /// Lets it run for so long.
    pub(crate) fn run(&self, ms: u64) -> Run {
        let mut sim = Sim {
            line: self.clone(),
            chance: Chance(self.seed),
            bandwidth: Bandwidth::default(),
            queue: VecDeque::new(),
            free_us: 0.0,
            flying: Vec::new(),
            last_arrival_us: 0.0,
            sleeps_us: (0.0, 0.0),
            read_us: f64::NEG_INFINITY,
            feedback: VecDeque::new(),
            feedback_count: 0,
            layer: 0,
            raised_ms: 0,
            run: Run::default(),
        };
        let (mut frame_us, mut others_us, mut report_ms) = (0, 0.0, 0);
        for now_ms in 0..ms {
            let now_us = now_ms * 1000;
            while sim.feedback.front().is_some_and(|(at, _)| *at <= now_ms) {
                let (_, bytes) = sim.feedback.pop_front().unwrap();
                sim.on_feedback(now_ms, &bytes);
            }
            sim.probe(now_ms);
            while frame_us <= now_us {
                frame_us += FRAME_US;
                sim.frame(now_ms);
            }
            let others = self.others.iter().find(|(from, to, _)| (*from..*to).contains(&now_ms));
            if let Some((_, _, bps)) = others {
                others_us = f64::max(others_us, now_us as f64);
                while others_us < (now_us + 1000) as f64 {
                    sim.enqueue(others_us, None, PACKET_BYTES);
                    others_us += PACKET_BYTES as f64 * 8e6 / bps;
                }
            }
            sim.serve(now_us + 1000);
            let awake = !(sim.sleeps_us.0..sim.sleeps_us.1).contains(&(now_us as f64));
            if now_ms >= report_ms && awake {
                report_ms = now_ms + self.feedback_ms;
                sim.report(now_ms);
            }
            if now_ms.is_multiple_of(10) {
                let budget = sim.bandwidth.budget_bps(at(now_ms)).map_or(f64::NAN, |b| b as f64);
                sim.run.budgets.push((now_ms, budget));
            }
        }
        let statistics = sim.bandwidth.statistics();
        sim.run.probes = statistics.probes;
        sim.run.probes_succeeded = statistics.probes_succeeded;
        sim.run
    }
}

/// The worker's clock began long before.
fn at(ms: u64) -> Instant {
    Instant::default() + Duration::from_secs(86_400) + Duration::from_millis(ms)
}

impl Sim {
    fn capacity(&self, at_us: f64) -> f64 {
        let steps = self.line.capacity_bps.iter().rev();
        let mut reached = steps.filter(|(from, _)| (*from * 1000) as f64 <= at_us);
        reached.next().map_or(1e6, |(_, bps)| *bps)
    }

    fn budget(&self, now_ms: u64) -> f64 {
        self.bandwidth.budget_bps(at(now_ms)).map_or(20e6, |bps| bps as f64)
    }

    /// What could be used, if there was more.
    fn useful_bps(&self) -> Option<u64> {
        Some(match &self.line.source {
            Source::Elastic => u64::MAX,
            Source::Layers(layers) => layers.last().copied().unwrap_or_default() as u64 * 13 / 10,
        })
    }

    /// One frame is sent.
    fn frame(&mut self, now_ms: u64) {
        let budget = self.budget(now_ms);
        let bps = match &self.line.source {
            Source::Elastic => budget,
            Source::Layers(layers) => {
                // As the allocation does: down at once, up when there was room for a second.
                let fits = |spare: f64| layers.iter().rposition(|bps| bps * spare <= budget);
                let down = fits(1.0).unwrap_or(0).min(self.layer);
                let up = fits(1.15).unwrap_or(0);
                if down < self.layer || up <= self.layer {
                    (self.layer, self.raised_ms) = (down, now_ms);
                } else if now_ms - self.raised_ms >= 1000 {
                    (self.layer, self.raised_ms) = (up, now_ms);
                }
                layers.get(self.layer).copied().unwrap_or_default()
            }
        };
        let mut left = (bps * FRAME_US as f64 / 8e6) as usize;
        while left > 0 {
            let bytes = left.min(PACKET_BYTES);
            left -= bytes;
            self.send(now_ms, bytes.max(60));
        }
    }

    fn send(&mut self, now_ms: u64, bytes: usize) {
        let seq = self.bandwidth.next_seq();
        self.bandwidth.on_sent(at(now_ms), bytes);
        self.run.sent += bytes as u64;
        self.enqueue((now_ms * 1000) as f64, Some(seq), bytes);
    }

    /// What the worker does with its timers.
    fn probe(&mut self, now_ms: u64) {
        if !now_ms.is_multiple_of(5) && self.bandwidth.padding(at(now_ms)).is_none() {
            return;
        }
        self.bandwidth.on_time(at(now_ms), self.useful_bps());
        while let Some((missing, small)) = self.bandwidth.padding(at(now_ms)) {
            let bytes = if small { missing.clamp(60, 300) } else { PACKET_BYTES };
            self.bandwidth.on_padding(bytes);
            self.run.padding += bytes as u64;
            self.send(now_ms, bytes);
        }
    }

    fn enqueue(&mut self, now_us: f64, seq: Option<u16>, bytes: usize) {
        let waiting: usize = self.queue.iter().map(|waiting| waiting.bytes).sum();
        let backlog_us = waiting as f64 * 8e6 / self.capacity(now_us);
        if backlog_us + (self.free_us - now_us).max(0.0) <= self.line.queue_ms * 1000.0 {
            self.queue.push_back(Waiting { seq, bytes, since_us: now_us });
        }
    }

    /// The line carries what it can until then.
    fn serve(&mut self, until_us: u64) {
        while let Some(waiting) = self.queue.front() {
            let starts_us = self.free_us.max(waiting.since_us);
            if starts_us >= until_us as f64 {
                return;
            }
            let Waiting { seq, bytes, since_us } = self.queue.pop_front().unwrap();
            self.free_us = starts_us + bytes as f64 * 8e6 / self.capacity(starts_us);
            let Some(seq) = seq else { continue };
            let passed = ((self.free_us / 1000.0) as u64, (starts_us - since_us) / 1000.0, bytes);
            self.run.passed.push(passed);
            if self.chance.next() < self.line.loss {
                continue;
            }
            let jitter_us = self.chance.next() * self.line.jitter_ms * 1000.0;
            let mut arrives_us = self.free_us + (self.line.delay_ms * 1000) as f64 + jitter_us;
            if !self.line.reorders {
                arrives_us = arrives_us.max(self.last_arrival_us);
                self.last_arrival_us = arrives_us;
            }
            let read_us = self.read_us(arrives_us);
            self.flying.push((read_us, seq));
        }
    }

    /// When the subscriber reads what arrives then: after it slept one packet after the other.
    fn read_us(&mut self, arrives_us: f64) -> f64 {
        let Line { sleeps_ms, sleeps_once: (from, to), .. } = self.line;
        if to > from {
            self.sleeps_us = ((from * 1000) as f64, (to * 1000) as f64);
        }
        while sleeps_ms > 0.0 && self.sleeps_us.1 < arrives_us {
            let longest_us = sleeps_ms * 1000.0;
            let from_us = self.sleeps_us.1 + self.chance.next() * longest_us / 10.0;
            self.sleeps_us = (from_us, from_us + self.chance.next() * longest_us);
        }
        let (from_us, to_us) = self.sleeps_us;
        if !(from_us..to_us).contains(&arrives_us) && arrives_us > self.read_us + READ_US {
            return arrives_us;
        }
        self.read_us = to_us.max(self.read_us + READ_US);
        self.read_us
    }

    /// The subscriber says what arrived.
    fn report(&mut self, now_ms: u64) {
        let now_us = (now_ms * 1000) as f64;
        let arrived = self.flying.extract_if(.., |(at_us, _)| *at_us <= now_us);
        let mut arrivals: Vec<Arrival> =
            arrived.map(|(at_us, seq)| Arrival { seq, at_us: at_us as u64 + 7_000_000 }).collect();
        let Some(first) = arrivals.first().map(|arrival| arrival.seq) else { return };
        arrivals.sort_by_key(|arrival| strait_wire::seq::distance(first, arrival.seq));
        let mut rest = arrivals.as_slice();
        while !rest.is_empty() {
            let mut bytes = vec![0; 4000];
            let mut writer = rtcp::Writer::new(&mut bytes);
            let told = writer.transport_cc(1, 2, self.feedback_count, rest).unwrap();
            self.feedback_count = self.feedback_count.wrapping_add(1);
            let len = writer.len();
            bytes.truncate(len);
            rest = &rest[told..];
            if self.chance.next() >= self.line.loss {
                self.feedback.push_back((now_ms + self.line.delay_ms, bytes));
            }
        }
    }

    fn on_feedback(&mut self, now_ms: u64, bytes: &[u8]) {
        for packet in rtcp::packets(bytes) {
            let Ok(rtcp::Packet::TransportCc(feedback)) = packet else { panic!("{packet:?}") };
            self.bandwidth.on_feedback(at(now_ms), &feedback, &mut 4096);
        }
    }
}
