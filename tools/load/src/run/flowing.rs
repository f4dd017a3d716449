//! Flowing: what is due is sent, what is there is read, and the count begins and ends.

use std::cmp::Reverse;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use strait_core::time::Instant;
use strait_io::Clock;
use strait_io::batch::{Incoming, Outgoing};
use strait_io::limits::BATCH;
use strait_wire::rtcp::Writer;

use super::{Load, NEVER};
use crate::LoadError;
use crate::histogram::Histogram;
use crate::measure::Measure;
use crate::peer::{Channel, Peer};
use crate::source::{SLOT, Source};
use crate::subscriber::REPORT;
use crate::violation::Violation;

/// How long the last packets may take.
const DRAIN: Duration = Duration::from_millis(700);
/// The longest wait.
const WAIT: Duration = Duration::from_millis(20);

impl Load<'_> {
    /// Lets media flow, and counts what the plan says is counted.
    pub(super) fn flow(&mut self) -> Result<(), LoadError> {
        let begin = self.clock.instant();
        for (n, source) in self.sources.iter_mut().enumerate() {
            source.begin(begin, &mut self.random);
            self.due_sources.push(Reverse((source.due(), n)));
        }
        let from = begin + self.plan.warmup;
        let mut until = from + self.plan.duration;
        let (mut incoming, mut ready) = (Incoming::new(), Vec::new());
        loop {
            let now = self.clock.instant();
            if self.plan.stop.load(Ordering::Relaxed) {
                until = until.min(now);
            }
            match &mut self.measure {
                // Told to stop before it began.
                None if now >= until => break,
                None if now >= from => self.begin_count(now),
                Some(measure) if now >= until && !measure.is_over() => {
                    measure.end(now, &self.counts);
                    self.end_count();
                }
                Some(measure) => measure.window_may_end(now, &self.counts),
                None => {}
            }
            if now >= until + DRAIN {
                break;
            }
            let next = self.send_due(now).min(self.tick_peers(now)).min(now + WAIT);
            self.progress.flowing(now, begin, until, &self.counts);
            let wait = next.since(self.clock.instant());
            self.poller.wait(wait, &mut ready);
            let now = self.clock.instant();
            for token in &ready {
                // Reading them all may take longer than until the next packet is due.
                let at = self.clock.instant();
                if self.due_sources.peek().is_some_and(|Reverse((due, _))| *due <= at) {
                    self.send_due(at);
                }
                self.receive(*token as usize, now, &mut incoming, Some(from));
            }
        }
        self.progress.done();
        match &self.measure {
            None if self.plan.stop.load(Ordering::Relaxed) => Err(LoadError::before_the_count()),
            _ => Ok(()),
        }
    }

    fn begin_count(&mut self, now: Instant) {
        for source in &self.sources {
            if let Some(marks) = self.marks.get_mut(source.stream as usize) {
                marks.from = source.counter;
            }
        }
        // What has not begun by now would have been missing from the beginning.
        let silent = self.subscribers.iter().flat_map(|s| &s.streams);
        let silent = silent.filter(|stream| !stream.checker.has_begun()).count();
        self.violations.add(Violation::Silent, silent as u64);
        self.latency = Histogram::new();
        self.lag = Histogram::new();
        self.counts.restart();
        self.measure = Some(Measure::begin(now, self.plan, &self.counts));
    }

    fn end_count(&mut self) {
        for source in &self.sources {
            if let Some(marks) = self.marks.get_mut(source.stream as usize) {
                marks.until = source.counter;
            }
        }
        self.due_sources.clear();
    }

    /// Sends what is due, and says when the next packet is.
    fn send_due(&mut self, now: Instant) -> Instant {
        let mut now = now;
        while let Some(Reverse((due, n))) = self.due_sources.peek().copied() {
            if due > now {
                return due;
            }
            self.due_sources.pop();
            self.send_source(n, due, now);
            if let Some(source) = self.sources.get(n) {
                self.due_sources.push(Reverse((source.due(), n)));
            }
            now = self.clock.instant();
        }
        now + WAIT
    }

    /// Sends the packets of one source that are due, by one call.
    fn send_source(&mut self, n: usize, due: Instant, now: Instant) {
        let Self { sources, peers, arena, pattern, lag, counts, clock, .. } = self;
        let Some(source) = sources.get_mut(n) else { return };
        let Some(peer) = peers.get_mut(source.peer) else { return };
        let mut lengths = [0; BATCH];
        let mut written = 0;
        lag.add(now.since(due).as_nanos() as u64);
        for (slot, length) in arena.chunks_exact_mut(SLOT).zip(&mut lengths) {
            let at = clock.instant();
            if source.due() > at {
                break;
            }
            counts.sent += 1;
            let Some((head, packet)) = slot.split_first_chunk_mut() else { break };
            let plain = source.write(at, pattern, packet);
            let Some(protected) = plain.and_then(|plain| peer.protect_rtp(packet, plain)) else {
                counts.send_errors += 1;
                break;
            };
            if let Some(channel) = peer.channel {
                *head = channel.header(protected);
            }
            *length = protected;
            written += 1;
        }
        let skipped = if peer.channel.is_some() { 0 } else { Channel::HEADER };
        let messages: [Outgoing<'_>; BATCH] = std::array::from_fn(|at| {
            let end = Channel::HEADER + lengths.get(at).copied().unwrap_or(0);
            let bytes = arena.get(at * SLOT + skipped..at * SLOT + end).unwrap_or_default();
            Outgoing { to: None, bytes, segment: 0 }
        });
        let mut rest = messages.get(..written).unwrap_or_default();
        while !rest.is_empty() {
            let taken = match peer.socket.send(rest) {
                Ok(taken) => taken.max(1),
                // The error is the first one's; the others may pass.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    counts.send_errors += 1;
                    1
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Does what is due for peers beside media, and says when the next is.
    pub(super) fn tick_peers(&mut self, now: Instant) -> Instant {
        while let Some(Reverse((due, n))) = self.due_peers.peek().copied() {
            if due > now {
                return due;
            }
            self.due_peers.pop();
            let (Some(peer), Some(wake)) = (self.peers.get_mut(n), self.wake_peers.get_mut(n))
            else {
                continue;
            };
            if *wake != due {
                // It was woken before this, and said then when to come again.
                continue;
            }
            *wake = NEVER;
            let mut next = peer.tick(now);
            match n.checked_sub(self.plan.publishers) {
                Some(subscriber) => {
                    if let Some(subscriber) = self.subscribers.get_mut(subscriber) {
                        next = next.min(subscriber.tick(now, peer));
                    }
                }
                None if peer.is_connected() => {
                    let ours = self.sources.iter().skip(n * self.layers.len());
                    let ours = ours.take_while(|source| source.peer == n);
                    send_reports(peer, ours, self.clock);
                    next = next.min(now + REPORT);
                }
                None => {}
            }
            self.wake_peer(n, next.max(now + Duration::from_micros(1)));
        }
        now + WAIT
    }

    /// Lets a peer be seen to at `at`, unless it is sooner.
    pub(super) fn wake_peer(&mut self, n: usize, at: Instant) {
        if let Some(wake) = self.wake_peers.get_mut(n).filter(|wake| at < **wake) {
            *wake = at;
            self.due_peers.push(Reverse((at, n)));
        }
    }
}

/// Sends the sender reports of one publisher.
fn send_reports<'s>(peer: &mut Peer, sources: impl Iterator<Item = &'s Source>, clock: Clock) {
    let mut bytes = [0; 1200];
    let mut writer = Writer::new(&mut bytes);
    for source in sources.filter(|source| source.counter > 0) {
        let ntp = clock.now().ntp;
        let (packets, octets) = (source.counter as u32, source.octets as u32);
        // Few enough to fit; one that does not is left out whole.
        let _ = writer.sender_report(source.ssrc, ntp, source.timestamp(), packets, octets, &[]);
        let _ = writer.cname(source.ssrc, peer.name.as_bytes());
    }
    let length = writer.len();
    if length > 0 {
        peer.send_rtcp(&mut bytes, length);
    }
}
