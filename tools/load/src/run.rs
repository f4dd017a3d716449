//! The loop: joins the peers, lets media flow, checks what arrives, and counts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use strait_core::time::Instant;
use strait_crypt::dtls::Certificate;
use strait_io::Clock;
use strait_io::batch::{Incoming, Outgoing, Poller, RECEIVE_MESSAGES, thread_cpu_time};
use strait_io::limits::BATCH;
use strait_wire::rtcp::{self, Writer};
use strait_wire::rtp::Packet;

use crate::LoadError;
use crate::checker::{Marks, Seen};
use crate::histogram::Histogram;
use crate::join::{Ask, Cast, Desk, LAYERS};
use crate::limits::JOINS_AT_A_TIME;
use crate::measure::{Counts, Measure};
use crate::payload::{Damage, Pattern};
use crate::peer::{Input, Peer};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::random::Random;
use crate::report::{Generator, Report};
use crate::shape::{Layer, layers};
use crate::signalling::{AgreedStream, Joined, PublisherJoin, Signalling, SubscriberJoin};
use crate::source::{SLOT, Source};
use crate::subscriber::{REPORT, Subscriber};
use crate::violation::{Violation, Violations};

/// How long the last packets may take.
const DRAIN: Duration = Duration::from_millis(700);
/// The longest wait: signalling has no socket to wake the loop with.
const WAIT_JOINING: Duration = Duration::from_millis(1);
const WAIT_FLOWING: Duration = Duration::from_millis(20);
/// Calls of `recvmmsg` on one socket before others have their turn.
const ROUNDS: usize = 4;

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
    load.flow();
    Ok(load.report())
}

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

    // ------------------------------------------------------------------------------------------------------- joining

    /// Joins all peers: publishers first, then subscribers, a bounded number at a time.
    fn join(&mut self, desk: &Desk) -> Result<(), LoadError> {
        let begin = self.clock.instant();
        let all = self.plan.publishers + self.plan.subscribers;
        let (mut connected, mut seen) = (0, vec![false; all]);
        let mut agreed: Vec<Option<Vec<AgreedStream>>> = Vec::new();
        let mut confirmed = 0;
        let (mut incoming, mut ready) = (Incoming::new(), Vec::new());
        while confirmed < all {
            if self.plan.stop.load(Ordering::Relaxed) {
                return Err(LoadError::Transport("stopped before all peers had joined".into()));
            }
            // Subscribers come when everything that they ask for is there.
            let most = if connected < self.plan.publishers { self.plan.publishers } else { all };
            while self.peers.len() < most && self.peers.len() - connected < JOINS_AT_A_TIME {
                let ask = self.announce(self.peers.len())?;
                agreed.push(None);
                desk.ask(ask);
            }
            while let Some((n, answer)) = desk.answer() {
                match answer? {
                    Some(joined) => {
                        let streams = self.begin_peer(n, joined)?;
                        if let Some(slot) = agreed.get_mut(n) {
                            *slot = Some(streams);
                        }
                    }
                    None => confirmed += 1,
                }
            }
            self.poller.wait(WAIT_JOINING, &mut ready);
            let now = self.clock.instant();
            for token in &ready {
                self.receive(*token as usize, now, &mut incoming, None);
            }
            self.tick_peers(now);
            for (n, peer) in self.peers.iter().enumerate() {
                if let Some(why) = peer.failure() {
                    return Err(LoadError::Transport(why.to_owned()));
                }
                if peer.is_connected() && !std::mem::replace(&mut seen[n], true) {
                    connected += 1;
                    desk.ask(Ask::Connected(n, peer.name.clone()));
                }
            }
            self.progress.joined(connected, all);
        }
        self.join_time = self.clock.instant().since(begin);
        self.cast_roles(agreed);
        Ok(())
    }

    /// Makes peer `n`, and what the server is told of it.
    fn announce(&mut self, n: usize) -> Result<Ask, LoadError> {
        let publishers = self.plan.publishers;
        let subscriber = n.checked_sub(publishers);
        let name = match subscriber {
            None => self.cast.publisher_name(n),
            Some(subscriber) => self.cast.subscriber_name(subscriber),
        };
        let local = self.cast.local_address(n);
        // ICE credentials must not be those of the run before.
        let random = Random::new(self.clock.instant().0, n as u64);
        let peer = Peer::new(name.clone(), local, self.plan.receive_runs, random)
            .map_err(|e| system(&format!("open a socket at {} for peer {n}", local.ip()), e))?;
        self.poller.add(&peer.socket, n as u64).map_err(|e| system("epoll", e))?;
        let transport = peer
            .local(&self.certificate, self.plan.security, self.plan.profile)
            .map_err(|e| system("read a socket's address", e))?;
        self.peers.push(peer);
        let scope = self.cast.scope(subscriber.unwrap_or(n));
        Ok(match subscriber {
            None => {
                let stream = self.cast.published(n);
                let join = PublisherJoin { scope, peer: name, transport, stream };
                Ask::Publisher(n, Box::new(join))
            }
            Some(subscriber) => {
                let streams = self.cast.wanted(subscriber);
                let join = SubscriberJoin { scope, peer: name, transport, streams };
                Ask::Subscriber(n, Box::new(join))
            }
        })
    }

    fn begin_peer(&mut self, n: usize, joined: Joined) -> Result<Vec<AgreedStream>, LoadError> {
        let want = match n.checked_sub(self.plan.publishers) {
            None => 1,
            Some(subscriber) => self.cast.publishers_of(subscriber).count(),
        };
        let Joined { transport, streams } = joined;
        let (now, remote) = (self.clock.instant(), transport.address);
        let Some(peer) = self.peers.get_mut(n) else { return Ok(streams) };
        if streams.len() != want {
            let name = &peer.name;
            return Err(LoadError::Transport(format!(
                "{name}: the server agreed to {} streams of {want}",
                streams.len()
            )));
        }
        peer.begin(transport, &self.certificate, now)
            .map_err(|e| system(&format!("connect a socket to {remote}"), e))?;
        self.due_peers.push(Reverse((now, n)));
        Ok(streams)
    }

    /// Everybody is there: makes the sources and the checkers.
    fn cast_roles(&mut self, agreed: Vec<Option<Vec<AgreedStream>>>) {
        let now = self.clock.instant();
        let kind = self.layers.first().map(|layer| layer.traffic.kind).unwrap_or_default();
        for (n, streams) in agreed.into_iter().enumerate() {
            let streams = streams.unwrap_or_default();
            if n >= self.plan.publishers {
                let ssrc = 0x2000_0000 + n as u32;
                self.subscribers.push(Subscriber::new(ssrc, kind, streams, now));
                continue;
            }
            for agreed in streams {
                for (at, layer) in self.layers.iter().enumerate() {
                    let stream = (n * LAYERS + at) as u32;
                    let random = Random::new(self.plan.seed, stream.into());
                    let ssrc = self.cast.ssrc(n, at);
                    let agreed = agreed.clone();
                    self.sources.push(Source::new(n, stream, ssrc, *layer, agreed, random));
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------- flowing

    /// Lets media flow, and counts what the plan says is counted.
    fn flow(&mut self) {
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
            let next = self.send_due(now).min(self.tick_peers(now)).min(now + WAIT_FLOWING);
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
        now + WAIT_FLOWING
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
            let plain = source.write(at, pattern, slot);
            match plain.and_then(|plain| peer.protect_rtp(slot, plain)) {
                Some(protected) => *length = protected,
                None => counts.send_errors += 1,
            }
            written += 1;
        }
        let messages: [Outgoing<'_>; BATCH] = std::array::from_fn(|at| {
            let length = lengths.get(at).copied().unwrap_or(0);
            let bytes = arena.get(at * SLOT..at * SLOT + length).unwrap_or_default();
            Outgoing { to: None, bytes, segment: 0 }
        });
        let mut rest = messages.get(..written).unwrap_or_default();
        counts.sent += written as u64;
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
    fn tick_peers(&mut self, now: Instant) -> Instant {
        while let Some(Reverse((due, n))) = self.due_peers.peek().copied() {
            if due > now {
                return due;
            }
            self.due_peers.pop();
            let Some(peer) = self.peers.get_mut(n) else { continue };
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
            self.due_peers.push(Reverse((next.max(now + Duration::from_micros(1)), n)));
        }
        now + WAIT_FLOWING
    }

    // ----------------------------------------------------------------------------------------------------- receiving

    /// Reads what a peer's socket has. `counting_from` is when packets begin to count.
    fn receive(
        &mut self,
        n: usize,
        now: Instant,
        incoming: &mut Incoming,
        counting_from: Option<Instant>,
    ) {
        for _ in 0..ROUNDS {
            let Some(peer) = self.peers.get(n) else { return };
            let got = peer.socket.receive(now, incoming);
            for at in 0..got {
                let Some((arrival, datagrams)) = incoming.message(at) else { continue };
                if let (Some(lost), Some(peer)) = (arrival.overflows, self.peers.get_mut(n)) {
                    let more = lost.wrapping_sub(peer.overflows);
                    self.counts.overflows += u64::from(more);
                    peer.overflows = lost;
                }
                let mut media = 0;
                for datagram in datagrams {
                    media += u64::from(self.datagram(n, arrival.at, datagram, counting_from));
                }
                if media > 0 {
                    self.counts.runs += 1;
                    self.counts.run_max = self.counts.run_max.max(media);
                }
            }
            if got < RECEIVE_MESSAGES {
                return;
            }
        }
    }

    /// Takes one datagram; whether it was media.
    fn datagram(
        &mut self,
        n: usize,
        at: Instant,
        datagram: &mut [u8],
        counting_from: Option<Instant>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(n) else { return false };
        match peer.handle(at, datagram) {
            Input::Rtp(length) => {
                let size = datagram.len();
                let packet = datagram.get(..length).unwrap_or_default();
                self.media(n, at, packet, size, counting_from);
                return true;
            }
            Input::Rtcp(length) => {
                let compound = datagram.get(..length).unwrap_or_default();
                match n.checked_sub(self.plan.publishers) {
                    Some(subscriber) => {
                        if let Some(subscriber) = self.subscribers.get_mut(subscriber) {
                            subscriber.take_rtcp(at, compound);
                        }
                    }
                    None => self.feedback(n, compound),
                }
            }
            Input::Unreadable => self.violations.add(Violation::Unreadable, 1),
            Input::Replayed => self.violations.add(Violation::Duplicate, 1),
            Input::Other => {}
        }
        false
    }

    /// What a server asks of a publisher.
    fn feedback(&mut self, n: usize, compound: &[u8]) {
        let layers = self.layers.len();
        let ours = self.sources.iter_mut().skip(n * layers).take(layers);
        let mut asked = Vec::new();
        for packet in rtcp::packets(compound).flatten() {
            match packet {
                rtcp::Packet::Pli(pli) => asked.push(pli.media_ssrc),
                rtcp::Packet::Fir(fir) => asked.extend(fir.entries().map(|entry| entry.ssrc)),
                _ => {}
            }
        }
        for source in ours.filter(|source| asked.contains(&source.ssrc)) {
            source.key_wanted = true;
        }
    }

    /// What a subscriber receives.
    fn media(
        &mut self,
        n: usize,
        at: Instant,
        packet: &[u8],
        size: usize,
        counting_from: Option<Instant>,
    ) {
        let Some(index) = n.checked_sub(self.plan.publishers) else {
            return self.violations.add(Violation::Foreign, 1);
        };
        let (Some(subscriber), Ok(packet)) =
            (self.subscribers.get_mut(index), Packet::parse(packet))
        else {
            return self.violations.add(Violation::Unreadable, 1);
        };
        let header = packet.header();
        let mut payload = packet.payload();
        let mut seq = header.seq();
        let mut repaired = false;
        let of_rtx = |stream: &crate::subscriber::Stream| {
            stream.agreed.rtx_payload_type == Some(header.pt())
                && stream.agreed.rtx_ssrc.is_none_or(|ssrc| ssrc == header.ssrc())
        };
        if self.plan.nack && subscriber.streams.iter().any(of_rtx) {
            // RFC 4588 section 4: the original sequence number, then the payload. Without both it only probes.
            let Some((original, rest)) = payload.split_first_chunk::<2>() else { return };
            (seq, payload, repaired) = (u16::from_be_bytes(*original), rest, true);
        }
        if payload.is_empty() {
            let stream = subscriber.streams.iter_mut().find(|s| s.ssrc == Some(header.ssrc()));
            if let Some(stream) = stream {
                stream.count(seq);
                stream.checker.take_padding(seq);
            }
            return;
        }
        let kind = self.layers.first().map(|layer| layer.traffic.kind).unwrap_or_default();
        let identity = match self.pattern.read(kind, payload) {
            Ok(identity) => identity,
            Err(Damage::Changed) => return self.violations.add(Violation::Corrupt, 1),
            Err(Damage::NotOurs) => return self.violations.add(Violation::Foreign, 1),
        };
        let place = self.cast.place(index, identity.stream);
        let Some((place, stream)) =
            place.and_then(|place| Some((place, subscriber.streams.get_mut(place)?)))
        else {
            return self.violations.add(Violation::Foreign, 1);
        };
        if !repaired {
            let ssrc = *stream.ssrc.get_or_insert(header.ssrc());
            let mid = stream.agreed.mid_extension.and_then(|id| header.extension(id));
            if ssrc != header.ssrc()
                || header.pt() != stream.agreed.payload_type
                || mid.is_some_and(|mid| mid != stream.agreed.mid.as_bytes())
            {
                self.violations.add(Violation::Header, 1);
            }
            stream.count(seq);
        }
        let (timestamp, marker) = (header.timestamp(), header.marker());
        let seen = Seen { identity, seq, timestamp, marker, repaired };
        let marks = &self.marks;
        let marks_of = |stream: u32| marks.get(stream as usize).copied().unwrap_or(Marks::NONE);
        let outcome = stream.checker.take(&seen, marks_of, &mut self.violations);
        self.counts.received += 1;
        self.counts.bytes += if outcome.counts { size as u64 } else { 0 };
        self.counts.repaired += u64::from(repaired && outcome.fills_gap);
        self.counts.missing += outcome.newly_missing;
        self.counts.missing -= u64::from(outcome.fills_gap).min(self.counts.missing);
        if self.plan.nack && outcome.newly_missing > 0 {
            subscriber.miss(place, seq, outcome.newly_missing, at);
            self.due_peers.push(Reverse((at, n)));
        } else if outcome.fills_gap {
            subscriber.found(place, seq);
        }
        if outcome.counts && counting_from.is_some() {
            let took = at.since(Instant(identity.sent_ns));
            self.latency.add(took.as_nanos() as u64);
            if self.plan.late.is_some_and(|late| took > late) {
                self.violations.add(Violation::Late, 1);
            }
        }
    }

    // ----------------------------------------------------------------------------------------------------- reporting

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

fn system(what: &str, error: io::Error) -> LoadError {
    LoadError::System { what: format!("cannot {what}"), error }
}

/// CPU time of the loop's thread.
pub(crate) fn own_cpu() -> Duration {
    thread_cpu_time()
}
