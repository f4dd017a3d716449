//! The loop: joins the peers, lets media flow, checks what arrives, and counts.

mod flowing;
mod joining;
mod receiving;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::io;
use std::time::Duration;

use strait_core::time::Instant;
use strait_crypt::dtls::Certificate;
use strait_io::Clock;
use strait_io::batch::{Poller, thread_cpu_time};
use strait_io::limits::BATCH;

use crate::LoadError;
use crate::checker::Marks;
use crate::histogram::Histogram;
use crate::join::{Cast, Desk, LAYERS};
use crate::measure::{Counts, Measure};
use crate::payload::Pattern;
use crate::peer::Peer;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::random::Random;
use crate::report::{Generator, Report};
use crate::shape::{Layer, layers};
use crate::signalling::Signalling;
use crate::source::{SLOT, Source};
use crate::subscriber::Subscriber;
use crate::violation::Violations;

/// Carries out a plan; see [`crate::run`].
pub(crate) fn run(plan: &Plan, signalling: Box<dyn Signalling>) -> Result<Report, LoadError> {
    plan.check().map_err(LoadError::Plan)?;
    if let Some(cpu) = plan.cpu {
        strait_io::affinity::pin(cpu).map_err(|e| system(&format!("pin to core {cpu}"), e))?;
    }
    // Each peer has a socket; where the limit cannot be raised, opening one too many will say so.
    let _ = strait_io::process::raise_open_files();
    let layers = layers(plan.shape, plan.rate_scale);
    let clock = Clock;
    let run = format!("{:x}", clock.instant().0 ^ u64::from(std::process::id()) << 40);
    let cast = Cast::new(plan, &layers, run);
    let mut load = Load::new(plan, &cast, &layers)?;
    let desk = Desk::open(signalling).map_err(|e| system("start the signalling thread", e))?;
    load.join(&desk)?;
    load.flow()?;
    Ok(load.report())
}

/// Further than any run.
const NEVER: Instant = Instant(u64::MAX);

struct Load<'a> {
    plan: &'a Plan,
    cast: &'a Cast<'a>,
    layers: &'a [Layer],
    clock: Clock,
    random: Random,
    pattern: Pattern,
    certificate: Certificate,
    poller: Poller,
    /// Publishers first.
    peers: Vec<Peer>,
    sources: Vec<Source>,
    /// As the peers after the publishers.
    subscribers: Vec<Subscriber>,
    /// What each source's packets count from and to, by [`crate::payload::Identity::stream`].
    marks: Vec<Marks>,
    due_sources: BinaryHeap<Reverse<(Instant, usize)>>,
    due_peers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Which of a peer's entries in `due_peers` is the one that counts.
    wake_peers: Vec<Instant>,
    violations: Violations,
    latency: Histogram,
    lag: Histogram,
    counts: Counts,
    measure: Option<Measure>,
    arena: Vec<u8>,
    join_time: Duration,
    progress: Progress,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan, cast: &'a Cast<'a>, layers: &'a [Layer]) -> Result<Self, LoadError> {
        let certificate = Certificate::generate().and_then(|certificate| match plan.profile {
            Some(profile) => certificate.offering(profile),
            None => Ok(certificate),
        });
        let certificate = certificate.map_err(|e| LoadError::Transport(e.to_string()))?;
        Ok(Self {
            plan,
            cast,
            layers,
            clock: Clock,
            random: Random::new(plan.seed, u64::MAX),
            pattern: Pattern::new(),
            certificate,
            poller: Poller::new().map_err(|e| system("epoll", e))?,
            peers: Vec::new(),
            sources: Vec::new(),
            subscribers: Vec::new(),
            marks: vec![Marks::NONE; plan.publishers * LAYERS],
            due_sources: BinaryHeap::new(),
            due_peers: BinaryHeap::new(),
            wake_peers: vec![NEVER; plan.publishers + plan.subscribers],
            violations: Violations::default(),
            latency: Histogram::new(),
            lag: Histogram::new(),
            counts: Counts::default(),
            measure: None,
            arena: vec![0; BATCH * SLOT],
            join_time: Duration::ZERO,
            progress: Progress::new(plan.progress),
        })
    }

    fn report(mut self) -> Report {
        let mut report = Report {
            shape: self.plan.shape.to_string(),
            publishers: self.plan.publishers,
            subscribers: self.plan.subscribers,
            scopes: self.plan.scopes,
            join_seconds: self.join_time.as_secs_f64(),
            packets_repaired: self.counts.repaired,
            bytes_received: self.counts.bytes,
            ..Report::default()
        };
        let profiles = self.peers.iter().filter_map(Peer::profile);
        let profiles: BTreeSet<String> = profiles.map(|profile| format!("{profile:?}")).collect();
        report.srtp_profile = profiles.into_iter().collect::<Vec<_>>().join(", ");
        report.packets_sent = self
            .marks
            .iter()
            .filter(|marks| **marks != Marks::NONE)
            .map(|marks| marks.until.saturating_sub(marks.from))
            .sum();
        let marks = &self.marks;
        let marks_of = |stream: u32| marks.get(stream as usize).copied().unwrap_or(Marks::NONE);
        for stream in self.subscribers.into_iter().flat_map(|s| s.streams) {
            report.streams += 1;
            if !stream.checker.has_begun() {
                // Was counted as silent when the count began.
                continue;
            }
            let tally = stream.checker.finish(marks_of, &mut self.violations);
            report.packets_expected += tally.expected;
            report.packets_received += tally.received;
            report.frames_whole += tally.frames_whole;
            report.frames_broken += tally.frames_broken;
        }
        report.latency = self.latency.summary();
        report.generator = Generator {
            lag_p99_us: self.lag.quantile(0.99) as f64 / 1000.0,
            send_errors: self.counts.send_errors,
            receive_overflows: self.counts.overflows,
            ..Generator::default()
        };
        report.receive_run_mean = self.counts.received as f64 / self.counts.runs.max(1) as f64;
        report.receive_run_max = self.counts.run_max;
        if let Some(measure) = self.measure {
            measure.fill(&mut report);
        }
        crate::verdict::judge(&mut report, &self.violations, self.plan);
        report
    }
}

fn system(what: &str, error: io::Error) -> LoadError {
    LoadError::System { what: format!("cannot {what}"), error }
}

/// CPU time of the loop's thread.
pub(crate) fn own_cpu() -> Duration {
    thread_cpu_time()
}
