//! A worker: the scopes, peers and streams that one core serves, and the four ways in.

use crate::allocate::Allocator;
use crate::binding::{self, Bindings};
use crate::command::{Event, LeaveReason, PeerId, PublicationId, ScopeId, SubscriptionId};
use crate::drop::{DropReason, Drops};
use crate::egress::Egress;
use crate::fan_out::FanOut;
use crate::gather::Gather;
use crate::hash::{Map, Seed};
use crate::ice;
use crate::keys::SessionKeys;
use crate::limits::{
    CONSENT, DATAGRAM_BYTES, EGRESS_FLUSH_BYTES, EGRESS_FLUSH_DATAGRAMS, EVENTS,
    HANDSHAKE_DATAGRAMS, PATH_TOLD_INTERVAL, SETUP,
};
use crate::parcel::Outbox;
use crate::peer::Peer;
use crate::port::{Meta, Path, Protocol};
use crate::publication::Publication;
use crate::quality::Quality;
use crate::rewrite::Source;
use crate::slab::Slab;
use crate::speaker::Speakers;
use crate::statistics::{
    EcnCounts, EstimationStatistics, FecStatistics, PacingStatistics, Traffic,
};
use crate::subscription::Subscription;
use crate::time::{Duration, Instant, Now};
use crate::timer::Timers;
use std::collections::VecDeque;
use strait_wire::demux::{Kind, classify};
use strait_wire::stun;

/// When a peer leaves that could not, because nobody fetched the events.
const EVENTS_RETRY: Duration = Duration::from_millis(100);

/// What a worker is told when it starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerConfig {
    /// Random: keeps strangers from choosing addresses and SSRCs that collide in the worker's tables.
    pub hash_seed: [u64; 2],
    /// How long the packets of a frame may wait for the others, to be sent together. Zero: every packet is forwarded by
    /// itself as it comes.
    pub gather: Duration,
    /// Whether strangers that ask by STUN are told the address that they are seen at.
    pub stun: bool,
}

/// A DTLS datagram for the handshake thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeInput {
    /// From whom: the path has passed an ICE check of this peer.
    pub peer: PeerId,
    /// By which way: what authenticates is told with [`crate::command::Command::Heard`].
    pub path: Path,
    /// The whole datagram.
    pub bytes: Vec<u8>,
}

/// All that one core serves.
///
/// The caller drives it in turns: [`Worker::on_datagram`] for what was received, [`Worker::forward`] when it is due and
/// before commands, [`Worker::on_command`], [`Worker::on_timeout`], then it sends what [`Egress`] holds and fetches events
/// and handshake datagrams. It flushes the egress in between when that holds more than
/// [`crate::limits::EGRESS_FLUSH_BYTES`].
pub struct Worker {
    pub(crate) peers: Slab<Peer>,
    pub(crate) publications: Slab<Publication>,
    pub(crate) subscriptions: Slab<Subscription>,
    pub(crate) scopes: Map<ScopeId, Vec<u32>>,
    pub(crate) session_keys: SessionKeys,
    pub(crate) speakers: Map<ScopeId, Speakers>,
    pub(crate) peer_ids: Map<PeerId, u32>,
    pub(crate) publication_ids: Map<PublicationId, u32>,
    pub(crate) subscription_ids: Map<SubscriptionId, u32>,
    /// Our user fragments, whose they are.
    pub(crate) ufrags: Map<Box<[u8]>, u32>,
    /// Paths on which a check of a peer passed.
    pub(crate) flows: Map<Path, u32>,
    pub(crate) timers: Timers,
    pub(crate) drops: Drops,
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    pub(crate) ecn: EcnCounts,
    pub(crate) estimation: EstimationStatistics,
    pub(crate) fec: FecStatistics,
    pub(crate) pacing: PacingStatistics,
    /// Peers for whose lines something came to wait in this turn.
    pub(crate) paced: Vec<u32>,
    /// Where what waited gets its padding. Its memory is used again.
    pub(crate) padded: Box<[u8]>,
    events: VecDeque<Event>,
    pub(crate) quality: Quality,
    handshakes: VecDeque<HandshakeInput>,
    sources: u64,
    pub(crate) gathers: bool,
    pub(crate) outbox: Outbox,
    /// The publications that repeat another worker's.
    pub(crate) mirrors: Vec<u32>,
    /// When a mirror's wishes are to be repeated.
    pub(crate) mirrors_due: Option<Instant>,
    /// When what is wanted of publications with several encodings is looked at next.
    pub(crate) demand_due: Option<Instant>,
    pub(crate) allocator: Allocator,
    pub(crate) gather: Gather,
    pub(crate) fan_out: FanOut,
    checked: Option<Path>,
    /// For strangers, where they are answered.
    pub(crate) bindings: Option<Bindings>,
}

impl Worker {
    /// An empty worker.
    #[must_use]
    pub fn new(config: WorkerConfig) -> Self {
        let seed = Seed(config.hash_seed);
        Self {
            peers: Slab::default(),
            publications: Slab::default(),
            subscriptions: Slab::default(),
            scopes: Map::with_hasher(seed),
            session_keys: Map::with_hasher(seed),
            speakers: Map::with_hasher(seed),
            peer_ids: Map::with_hasher(seed),
            publication_ids: Map::with_hasher(seed),
            subscription_ids: Map::with_hasher(seed),
            ufrags: Map::with_hasher(seed),
            flows: Map::with_hasher(seed),
            timers: Timers::default(),
            drops: Drops::default(),
            received: Traffic::default(),
            sent: Traffic::default(),
            ecn: EcnCounts::default(),
            estimation: EstimationStatistics::default(),
            fec: FecStatistics::default(),
            pacing: PacingStatistics::default(),
            paced: Vec::new(),
            padded: [0; DATAGRAM_BYTES].into(),
            events: VecDeque::new(),
            quality: Quality::default(),
            handshakes: VecDeque::new(),
            sources: 0,
            gathers: config.gather > Duration::ZERO,
            outbox: Outbox::default(),
            mirrors: Vec::new(),
            mirrors_due: None,
            demand_due: None,
            allocator: Allocator::default(),
            gather: Gather::new(config.gather),
            fan_out: FanOut::default(),
            checked: None,
            bindings: config.stun.then(|| Bindings::new(seed)),
        }
    }

    /// Takes one datagram, which is decrypted in place, and queues what follows from it. A datagram that is not used
    /// counts under its [`DropReason`].
    pub fn on_datagram(&mut self, now: Now, meta: Meta, bytes: &mut [u8], egress: &mut Egress) {
        let before = (egress.len(), egress.bytes());
        self.received.count(bytes.len());
        self.checked = None;
        let result = match classify(bytes) {
            Kind::Rtp => self.on_rtp(now, meta, bytes, egress),
            Kind::Rtcp => self.on_rtcp(now, meta, bytes, egress),
            Kind::Stun => self.on_stun(now, meta, bytes, egress),
            Kind::Dtls => self.on_dtls(meta, bytes),
            Kind::TurnChannel | Kind::Zrtp | Kind::Unknown => Err(DropReason::UnknownProtocol),
        };
        if let Err(reason) = result {
            self.drops.count(reason);
        }
        self.count_sent(before, egress);
        if !self.gathers {
            self.forward(now, egress, |_| {});
        }
    }

    /// How many packets wait to be forwarded.
    #[must_use]
    pub fn held(&self) -> usize {
        self.gather.held().len()
    }

    /// Where the last datagram came from, if it was an ICE check of one of our peers that passed. Whoever spreads
    /// datagrams over workers may send that path's to this one from now on.
    #[must_use]
    pub fn checked(&self) -> Option<Path> {
        self.checked
    }

    /// Does what is due. `true`: the egress filled up before all was done; it is to be sent, and this called again.
    pub fn on_timeout(&mut self, now: Now, egress: &mut Egress) -> bool {
        let before = (egress.len(), egress.bytes());
        let mut full = false;
        while !full && let Some((at, slot)) = self.timers.pop(now.at) {
            if self.peers.get_mut(slot).is_some_and(|peer| peer.alarm.ring(at)) {
                self.on_peer_timeout(now, slot, egress);
                full = egress.bytes() > EGRESS_FLUSH_BYTES || egress.len() > EGRESS_FLUSH_DATAGRAMS;
            }
        }
        self.wish_again(now);
        self.look_at_demand(now);
        self.count_sent(before, egress);
        full
    }

    /// When [`Worker::on_timeout`] has something to do next; always later than its last `now`, once it said `false`.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = [self.timers.next(), self.gather.due(), self.mirrors_due, self.demand_due];
        due.into_iter().flatten().min()
    }

    /// The oldest event that was not fetched.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The oldest DTLS datagram that was not fetched.
    pub fn poll_handshake(&mut self) -> Option<HandshakeInput> {
        self.handshakes.pop_front()
    }

    /// How many packets were not forwarded, by reason in the order of [`DropReason::ALL`].
    #[must_use]
    pub fn drops(&self) -> &[u64; DropReason::COUNT] {
        self.drops.all()
    }

    /// Answers an ICE check, or a stranger's question where it is seen.
    fn on_stun(
        &mut self,
        now: Now,
        meta: Meta,
        bytes: &[u8],
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let request = stun::Message::parse(bytes).map_err(|_| DropReason::StunMalformed)?;
        if !request.is_binding_request() {
            return Err(DropReason::StunNotRequest);
        }
        if let Some(bindings) = &mut self.bindings
            && request.username().is_none()
            && meta.path.protocol == Protocol::Udp
        {
            let mut room = [0; binding::ANSWER_BYTES];
            let len = bindings.answer(now.at, &request, meta.path, &mut room)?;
            let is_queued = egress.push(meta.path, room.get(..len).unwrap_or_default());
            return if is_queued { Ok(()) } else { Err(DropReason::EgressFull) };
        }
        if !request.is_fingerprint_valid() {
            return Err(DropReason::StunMalformed);
        }
        let (ufrag, _) = request.username_parts().ok_or(DropReason::StunUnknownUser)?;
        let slot = *self.ufrags.get(ufrag).ok_or(DropReason::StunUnknownUser)?;
        let held = self.flows.get(&meta.path).and_then(|slot| self.peers.get(*slot));
        let is_fixed = held.is_some_and(|peer| peer.ice.is_fixed());
        let peer = self.peers.get_mut(slot).ok_or(DropReason::StunUnknownUser)?;
        let key = peer.ice.authenticate(&request, ufrag)?;
        if is_fixed {
            // Who has no ICE could never prove that it is still there.
            return Err(DropReason::PathTaken);
        }

        let mut room = [0; ice::ANSWER_BYTES];
        let len = ice::answer(&request, bytes.len(), key, meta.path, &mut room)?;
        if !egress.push(meta.path, room.get(..len).unwrap_or_default()) {
            return Err(DropReason::EgressFull);
        }
        if request.ice_controlled().is_some() {
            return Ok(());
        }
        peer.received.count(bytes.len());
        let change = peer.ice.accept(now.at, meta.path, ufrag, request.use_candidate());
        if let Some(ufrag) = change.retired {
            self.ufrags.remove(ufrag.as_bytes());
        }
        if let Some(path) = change.evicted {
            self.flows.remove(&path);
        }
        if let Some(before) = self.flows.insert(meta.path, slot).filter(|before| *before != slot) {
            // Who has the credentials is behind the path now: a NAT gave it to somebody else.
            if let Some(peer) = self.peers.get_mut(before) {
                peer.ice.forget(now.at, meta.path);
            }
        }
        self.checked = Some(meta.path);
        self.arm_ice(now, slot);
        self.check_connected(now, slot, egress);
        self.tell_path(now, slot);
        Ok(())
    }

    /// Passes a DTLS datagram on to the handshake thread.
    fn on_dtls(&mut self, meta: Meta, bytes: &[u8]) -> Result<(), DropReason> {
        let slot = *self.flows.get(&meta.path).ok_or(DropReason::PathUnknown)?;
        let peer = self.peers.get_mut(slot).ok_or(DropReason::PathUnknown)?;
        if self.handshakes.len() >= HANDSHAKE_DATAGRAMS {
            return Err(DropReason::HandshakeQueueFull);
        }
        peer.received.count(bytes.len());
        let (peer, path) = (peer.id, meta.path);
        self.handshakes.push_back(HandshakeInput { peer, path, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Announces a peer once it has a path and keys, and asks for the pictures that it waits for.
    pub(crate) fn check_connected(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(path) = peer.ice.path().filter(|_| peer.keys.is_some() && !peer.connected) else {
            return;
        };
        peer.connected = true;
        peer.path_told = Some((path, now.at));
        let event = Event::PeerConnected { peer: peer.id, path };
        for subscription in peer.subscriptions.clone() {
            self.want_key_frame(now, subscription, egress);
        }
        self.emit(event);
        self.start_reports(now, slot);
    }

    /// Tells where a peer is reached, when that is elsewhere than was told last.
    fn tell_path(&mut self, now: Now, slot: u32) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some((told, told_at)) = peer.path_told else { return };
        let is_other = |path: &Path| (path.protocol, path.remote) != (told.protocol, told.remote);
        let Some(path) = peer.ice.path().filter(is_other) else { return };
        let due = told_at + PATH_TOLD_INTERVAL;
        if due > now.at {
            return self.arm(slot, due);
        }
        peer.path_told = Some((path, now.at));
        let event = Event::PeerMoved { peer: peer.id, path };
        self.emit(event);
    }

    /// Looks after one peer: set-up, consent, paths, reports, feedback, key frames.
    fn on_peer_timeout(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        while let Some(path) = peer.ice.expire(now.at) {
            self.flows.remove(&path);
        }
        peer.ice.look(now.at);
        self.tell_path(now, slot);
        self.note_network(now, slot);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let setup_ends = peer.created_at + SETUP;
        let is_gone = peer.connected && peer.ice.is_gone(now.at);
        let leaves = is_gone || (!peer.connected && setup_ends <= now.at);
        if leaves && self.events.len() >= EVENTS {
            // Whoever leaves unheard would stay in the control plane's books for ever.
            return self.arm(slot, now.at + EVENTS_RETRY);
        }
        if is_gone {
            let detail = format!("no ICE check within {} s", CONSENT.as_secs());
            return self.leave(slot, LeaveReason::ConsentExpired, detail);
        }
        if !peer.connected && setup_ends <= now.at {
            let missing = if peer.ice.path().is_none() { "ICE check" } else { "DTLS handshake" };
            let detail = format!("no {missing} within {} s", SETUP.as_secs());
            return self.leave(slot, LeaveReason::HandshakeFailed, detail);
        }
        let setup = (!peer.connected).then_some(setup_ends);
        let due = [setup, peer.ice.due(), self.work(now, slot, egress)];
        // Whatever is late already waits for one more step: time always advances.
        let soonest = now.at + Duration::from_millis(1);
        if let Some(at) = due.into_iter().flatten().min() {
            self.arm(slot, at.max(soonest));
        }
    }

    /// Asks for [`Worker::on_peer_timeout`] by `at`.
    pub(crate) fn arm(&mut self, slot: u32, at: Instant) {
        if let Some(peer) = self.peers.get_mut(slot) {
            self.timers.arm(&mut peer.alarm, slot, at);
        }
    }

    /// Asks for it when its paths need that.
    fn arm_ice(&mut self, now: Now, slot: u32) {
        let due = self.peers.get(slot).and_then(|peer| peer.ice.due());
        self.arm(slot, due.unwrap_or(now.at + CONSENT));
    }

    /// Queues an event; the oldest goes when nobody fetches them.
    pub(crate) fn emit(&mut self, event: Event) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
            self.drops.count(DropReason::EventsFull);
        }
        self.events.push_back(event);
    }

    /// A name for a source that no other had.
    pub(crate) fn next_source(&mut self) -> Source {
        self.sources += 1;
        Source(self.sources)
    }

    /// How many sources have names.
    pub(crate) fn sources(&self) -> u64 {
        self.sources
    }

    /// The next source is named after so many others.
    pub(crate) fn name_sources_after(&mut self, sources: u64) {
        self.sources = self.sources.max(sources);
    }

    pub(crate) fn count_sent(&mut self, (datagrams, bytes): (usize, usize), egress: &Egress) {
        self.sent.packets += egress.len().saturating_sub(datagrams) as u64;
        self.sent.bytes += egress.bytes().saturating_sub(bytes) as u64;
    }
}
