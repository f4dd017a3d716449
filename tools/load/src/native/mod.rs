//! Load by native clients: whole clients of strait-client, through the link of a node, with media and messages.

mod member;
mod report;
mod seen;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strait_client::{Config, Descriptor};
use strait_core::time::Instant;
use strait_io::Clock;

use crate::LoadError;
use crate::limits;
use crate::payload::Pattern;
use crate::plan::{Plan, Shape};
use crate::progress::Progress;
use crate::random::Random;
use crate::shape::{Layer, layers};
use crate::signalling::AgreedStream;
use crate::source::{SLOT, Source};

use member::{Member, message};
pub use report::NativeReport;

/// What is on its way when the count ends, and what is asked for again, has so long to come.
const GRACE: Duration = Duration::from_millis(1500);
/// How long all peers may take to join, to publish and to subscribe: each.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(2);
/// The longest sleep between packets: what is asked of the publishers waits no longer.
const NAP: Duration = Duration::from_millis(5);

/// What a run of native clients is to do.
#[derive(Clone, Debug)]
pub struct NativePlan {
    /// Publishers, subscribers, scopes, shape, times, seed and loss. What concerns sockets and DTLS means nothing here.
    pub plan: Plan,
    /// Where and how to join. The scope's name is given here, a number is added.
    pub descriptor: Descriptor,
    /// Streams go out byte for byte as they came.
    pub as_sent: bool,
    /// Messages that each publisher sends to all others of its scope, in a second.
    pub messages_per_second: f64,
}

impl NativePlan {
    /// Whether it can be carried out.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.plan.check()?;
        let peers = self.plan.publishers + self.plan.subscribers;
        if peers > limits::NATIVE_PEERS {
            return Err(format!(
                "{peers} native peers: at most {} run in one process, each has a thread",
                limits::NATIVE_PEERS
            ));
        }
        match self.plan.shape {
            Shape::Simulcast { .. } => {
                return Err("native peers send one encoding: not --shape simulcast".into());
            }
            Shape::Constant { bytes, .. } if bytes > limits::VIDEO_PAYLOAD => {
                return Err(format!(
                    "payloads of {bytes} bytes: native peers send at most {}",
                    limits::VIDEO_PAYLOAD
                ));
            }
            _ => {}
        }
        if !(0.0..=limits::MESSAGES_PER_SECOND).contains(&self.messages_per_second) {
            return Err(format!(
                "{} messages/s: 0 to {}",
                self.messages_per_second,
                limits::MESSAGES_PER_SECOND
            ));
        }
        Ok(())
    }
}

/// Carries out a plan: joins the peers, lets media and messages flow, and counts.
///
/// # Errors
/// It could not come to a count. A run that counted returns a report, also when something was lost or wrong.
pub fn run_native(plan: &NativePlan) -> Result<NativeReport, LoadError> {
    plan.check().map_err(LoadError::Plan)?;
    // Each peer has some sockets; where the limit cannot be raised, opening one too many will say so.
    let _ = strait_io::process::raise_open_files();
    let layers = layers(plan.plan.shape, plan.plan.rate_scale);
    let layer = layers.first().copied();
    let layer = layer.ok_or_else(|| LoadError::Plan("a shape without a layer".into()))?;
    let mut load = Load::new(plan, layer);
    load.join()?;
    load.flow()?;
    Ok(load.report())
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Packet(usize),
    Message(usize),
}

struct Load<'a> {
    plan: &'a NativePlan,
    layer: Layer,
    clock: Clock,
    random: Random,
    pattern: std::sync::Arc<Pattern>,
    publishers: Vec<Member>,
    subscribers: Vec<Member>,
    sources: Vec<Source>,
    /// Of each source: the first packet that counts, and the first that counts no longer.
    counted: Vec<std::ops::Range<u64>>,
    /// Messages that each publisher sent.
    said: Vec<u64>,
    due: BinaryHeap<Reverse<(Instant, Due)>>,
    progress: Progress,
    report: NativeReport,
}

impl<'a> Load<'a> {
    fn new(plan: &'a NativePlan, layer: Layer) -> Self {
        let publishers = plan.plan.publishers;
        Self {
            plan,
            layer,
            clock: Clock,
            random: Random::new(plan.plan.seed, u64::MAX),
            pattern: std::sync::Arc::new(Pattern::new()),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            sources: Vec::new(),
            counted: vec![0..0; publishers],
            said: vec![0; publishers],
            due: BinaryHeap::new(),
            progress: Progress::new(plan.plan.progress),
            report: NativeReport {
                shape: plan.plan.shape.to_string(),
                publishers,
                subscribers: plan.plan.subscribers,
                scopes: plan.plan.scopes,
                ..NativeReport::default()
            },
        }
    }

    /// First those who publish, so that who comes later finds all there is.
    fn join(&mut self) -> Result<(), LoadError> {
        let begin = self.clock.instant();
        let stride = self.plan.plan.scopes;
        let joined = self.join_many(true, self.plan.plan.publishers)?;
        self.publishers = joined;
        let stop = &self.plan.plan.stop;
        wait("publish", stop, &mut self.publishers, |member| member.seen().published)?;
        self.subscribers = self.join_many(false, self.plan.plan.subscribers)?;
        let took = self.clock.instant().since(begin);
        let as_sent = self.plan.as_sent;
        for (n, member) in self.subscribers.iter_mut().enumerate() {
            let scope = n % stride;
            member.wanted = (scope..self.plan.plan.publishers).step_by(stride).count();
        }
        wait("subscribe", stop, &mut self.subscribers, |member| member.subscribe(as_sent))?;
        let all = || self.publishers.iter().chain(&self.subscribers);
        let mut times = crate::histogram::Histogram::new();
        all().for_each(|member| times.add(member.seen().join_ns));
        self.report.joins = all().count() as u64;
        self.report.joins_per_second = all().count() as f64 / took.as_secs_f64().max(1e-9);
        self.report.join = times.summary();
        let agreed = AgreedStream {
            payload_type: 0,
            rtx_payload_type: None,
            mid: String::new(),
            mid_extension: None,
            rid_extension: None,
            ssrc: None,
            rtx_ssrc: None,
        };
        self.sources = (0..self.publishers.len())
            .map(|n| {
                let random = Random::new(self.plan.plan.seed, n as u64);
                Source::new(n, n as u32, 0, self.layer, agreed.clone(), random)
            })
            .collect();
        Ok(())
    }

    /// Some at a time, each as soon as one before it is there.
    fn join_many(&mut self, publish: bool, count: usize) -> Result<Vec<Member>, LoadError> {
        let mut members: Vec<Member> = Vec::with_capacity(count);
        let mut waiting = std::collections::VecDeque::new();
        let end = self.clock.instant() + PATIENCE;
        while members.len() < count || !waiting.is_empty() {
            if self.plan.plan.stop.load(Ordering::Relaxed) {
                return Err(LoadError::before_all_joined());
            }
            if members.len() < count && waiting.len() < limits::JOINS_AT_A_TIME {
                let n = members.len();
                let mut descriptor = self.plan.descriptor.clone();
                let Config { scope_id, name, client, .. } = &mut descriptor.config;
                *scope_id = format!("{scope_id}-{}", n % self.plan.plan.scopes);
                *name = format!("{} {n}", if publish { "publisher" } else { "subscriber" });
                *client = concat!("strait-load/", env!("CARGO_PKG_VERSION")).into();
                let kind = self.layer.traffic.kind;
                members.push(Member::join(descriptor, kind, publish, &self.pattern)?);
                waiting.push_back(n);
                continue;
            }
            for member in &members {
                member.check()?;
            }
            let before = waiting.len();
            waiting.retain(|n| members.get(*n).is_some_and(|member| member.seen().join_ns == 0));
            self.progress.joined(members.len() - waiting.len(), count);
            if self.clock.instant() > end {
                let why = format!("{} of {count} native peers did not join", waiting.len());
                return Err(LoadError::Transport(format!("{why} within {PATIENCE:?}")));
            }
            if waiting.len() == before {
                std::thread::sleep(LOOK);
            }
        }
        Ok(members)
    }

    fn flow(&mut self) -> Result<(), LoadError> {
        let (begin, interval) = (self.clock.instant(), self.message_interval());
        for (n, source) in self.sources.iter_mut().enumerate() {
            source.begin(begin, &mut self.random);
            self.due.push(Reverse((source.due(), Due::Packet(n))));
            if self.plan.messages_per_second > 0.0 {
                let phase = interval.mul_f64(self.random.unit());
                self.due.push(Reverse((begin + phase, Due::Message(n))));
            }
        }
        let counts = begin + self.plan.plan.warmup;
        self.send_until(counts);
        if self.plan.plan.stop.load(Ordering::Relaxed) {
            self.progress.done();
            return Err(LoadError::before_the_count());
        }
        for (counted, source) in self.counted.iter_mut().zip(&self.sources) {
            counted.start = source.counter;
        }
        let counts = self.clock.instant();
        self.send_until(counts + self.plan.plan.duration);
        self.report.seconds = self.clock.instant().since(counts).as_secs_f64();
        for (counted, source) in self.counted.iter_mut().zip(&self.sources) {
            counted.end = source.counter;
        }
        self.progress.done();
        // Media goes on, so that a last packet that is lost is seen to be missing, and asked for.
        self.due.retain(|Reverse((_, due))| matches!(due, Due::Packet(_)));
        let end = self.clock.instant() + GRACE;
        while self.clock.instant() < end {
            self.send_until(self.clock.instant() + NAP);
            if self.plan.plan.stop.load(Ordering::Relaxed) {
                // Nothing more is sent.
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }

    fn message_interval(&self) -> Duration {
        Duration::from_secs(1).div_f64(self.plan.messages_per_second.max(1e-3))
    }

    fn send_until(&mut self, end: Instant) {
        let mut payload = [0; SLOT];
        loop {
            let now = self.clock.instant();
            if now >= end || self.plan.plan.stop.load(Ordering::Relaxed) {
                return;
            }
            let next = self.due.peek().map_or(end, |Reverse((due, _))| (*due).min(end));
            if next > now {
                std::thread::sleep(next.since(now).min(NAP));
                continue;
            }
            match self.due.pop() {
                Some(Reverse((due, Due::Packet(n)))) => {
                    self.report.late_ns_max =
                        self.report.late_ns_max.max(now.since(due).as_nanos() as u64);
                    self.send_packet(n, now, &mut payload);
                }
                Some(Reverse((due, Due::Message(n)))) => {
                    self.send_message(n, now);
                    self.due.push(Reverse((due + self.message_interval(), Due::Message(n))));
                }
                None => {}
            }
        }
    }

    fn send_packet(&mut self, n: usize, now: Instant, payload: &mut [u8]) {
        let (Some(source), Some(member)) = (self.sources.get_mut(n), self.publishers.get(n)) else {
            return;
        };
        source.key_wanted |= member.take_key_wanted();
        if let Some((length, marker)) = source.write_payload(now, &self.pattern, payload) {
            let payload = payload.get(..length).unwrap_or_default();
            if !member.send(payload, source.timestamp(), marker) {
                self.report.send_errors += 1;
            }
        }
        self.due.push(Reverse((source.due(), Due::Packet(n))));
    }

    fn send_message(&mut self, n: usize, now: Instant) {
        let (Some(member), Some(said)) = (self.publishers.get(n), self.said.get_mut(n)) else {
            return;
        };
        match member.client.send_message("", message(n as u32, *said, now), false) {
            Ok(_) => *said += 1,
            // The node has not taken over what was said before.
            Err(_) => self.report.messages_held_back += 1,
        }
    }

    fn report(mut self) -> NativeReport {
        let scopes = self.plan.plan.scopes;
        let mut report = std::mem::take(&mut self.report);
        report.way = if self.plan.descriptor.udp { "udp" } else { "tcp" }.into();
        report.packets_sent = self.counted.iter().map(|counted| counted.end - counted.start).sum();
        report.messages_sent = self.said.iter().sum();
        let mut media = crate::histogram::Histogram::new();
        let mut messages = crate::histogram::Histogram::new();
        for (n, member) in self.subscribers.iter().enumerate() {
            let seen = member.seen();
            for source in (n % scopes..self.counted.len()).step_by(scopes) {
                let counted = self.counted.get(source).cloned().unwrap_or_default();
                report.packets_expected += counted.end - counted.start;
                report.packets_received += seen.received(source as u32, counted);
                report.messages_expected += self.said.get(source).copied().unwrap_or(0);
                report.streams += 1;
            }
            report.add(&seen);
            seen.latency.iter().for_each(|times| media.merge(times));
            seen.message_latency.iter().for_each(|times| messages.merge(times));
        }
        for member in &self.publishers {
            let seen = member.seen();
            report.links_lost += seen.links_lost;
            report.failures.extend(seen.failed.clone());
        }
        for member in self.publishers.iter().chain(&self.subscribers) {
            *report.ways.entry(member.way()).or_default() += 1;
        }
        (report.latency, report.message_latency) = (media.summary(), messages.summary());
        report.judge(self.plan.plan.allow_loss_percent);
        report
    }
}

/// Asks each member again and again until all say yes.
fn wait(
    what: &str,
    stop: &AtomicBool,
    members: &mut [Member],
    mut done: impl FnMut(&mut Member) -> bool,
) -> Result<(), LoadError> {
    let end = Clock.instant() + PATIENCE;
    loop {
        let mut missing = 0;
        for member in members.iter_mut() {
            member.check()?;
            missing += usize::from(!done(member));
        }
        if missing == 0 {
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) {
            return Err(LoadError::before_all_joined());
        }
        if Clock.instant() > end {
            let why = format!("{missing} native peers did not {what} within {PATIENCE:?}");
            return Err(LoadError::Transport(why));
        }
        std::thread::sleep(LOOK);
    }
}

/// `HOST:PORT`, with brackets around an IPv6 address.
///
/// # Errors
/// It is none.
pub fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text}: name a node as HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let is_six = host.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6());
    if host.is_empty() || (is_six && bare.is_none()) {
        return Err(wrong());
    }
    Ok((host.into(), port.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read() {
        assert_eq!(host_and_port("node.example:8443"), Ok(("node.example".into(), 8443)));
        assert_eq!(host_and_port("[::1]:1"), Ok(("::1".into(), 1)));
        for wrong in ["node", ":1", "node:", "node:99999", "::1:80"] {
            assert!(host_and_port(wrong).is_err_and(|why| why.contains(wrong)), "{wrong}");
        }
    }
}
