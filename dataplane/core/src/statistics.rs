//! Counters as `strait.relay.v1` reports them.

use crate::arrival::loss::LossStatistics;
use crate::command::{Kind, PeerId, PublicationId, ScopeId, SubscriptionId};
use crate::peer::Peer;
use crate::port::Path;
use crate::publication::Publication;
use crate::quality::QualityStatistics;
use crate::subscription::Subscription;
use crate::time::{Duration, Instant};
use crate::worker::Worker;

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// What came since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Packets by their ECN code point (RFC 3168); those without are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// ECT(0): routers may mark them instead of dropping them.
    pub ect0: u64,
    /// ECT(1): the same, early and often (L4S, RFC 9331).
    pub ect1: u64,
    /// CE: a router marked them.
    pub ce: u64,
}

impl EcnCounts {
    pub(crate) fn count(&mut self, ecn: u8) {
        match ecn {
            1 => self.ect1 += 1,
            2 => self.ect0 += 1,
            3 => self.ce += 1,
            _ => {}
        }
    }
}

/// Of forward error correction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FecStatistics {
    /// Repair packets that came.
    pub packets: u64,
    /// Media packets that were had from them.
    pub recovered: u64,
}

impl FecStatistics {
    /// What came since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            recovered: self.recovered.saturating_sub(before.recovered),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.recovered += other.recovered;
    }
}

/// Of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerStatistics {
    /// Scopes that exist.
    pub scopes: u32,
    /// Peers that exist.
    pub peers: u32,
    /// Publications that exist, without those of other workers.
    pub publications: u32,
    /// Subscriptions that exist.
    pub subscriptions: u32,
    /// All datagrams that came in.
    pub received: Traffic,
    /// All datagrams that were queued to go out.
    pub sent: Traffic,
    /// RTP by the ECN marks with which it came in.
    pub ecn: EcnCounts,
    /// Forward error correction of all its publishers, those that left too.
    pub fec: FecStatistics,
    /// Strangers' STUN requests that were answered.
    pub bindings: u64,
    /// Bytes of packets kept for retransmission.
    pub cache_bytes: u64,
    /// Over all its peers, those that left too.
    pub estimation: EstimationStatistics,
    /// How the encodings of its publications fared.
    pub quality: QualityStatistics,
    /// What waited for the lines of its peers, those that left too.
    pub pacing: PacingStatistics,
    /// Subscriptions that get a lower layer than they want, because their peer's budget permits no more.
    pub subscriptions_lowered: u32,
    /// Subscriptions that get nothing, because not even the lowest layer fits.
    pub subscriptions_paused: u32,
}

/// Of a scope.
#[derive(Clone, Debug, PartialEq)]
pub struct ScopeStatistics {
    /// Which.
    pub scope: ScopeId,
    /// Whose speech dominates, as this worker hears it.
    pub dominant: Option<PublicationId>,
    /// Its peers.
    pub peers: Vec<PeerStatistics>,
}

/// Of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatistics {
    /// Which.
    pub peer: PeerId,
    /// ICE and DTLS are done.
    pub connected: bool,
    /// Where it is reached, if anywhere.
    pub path: Option<Path>,
    /// From it.
    pub received: Traffic,
    /// To it.
    pub sent: Traffic,
    /// RTP from it by its ECN marks.
    pub ecn: EcnCounts,
    /// What may be sent to it in bits per second, RTP with headers, if that is known.
    pub budget_bps: Option<u64>,
    /// What it is asked not to exceed in sending, in bits per second, if anything.
    pub uplink_max_bps: Option<u64>,
    /// From sending to it until its feedback says so; where it sends none, as it answers extended reports (RFC 3611).
    pub round_trip: Option<Duration>,
    /// What its line was asked.
    pub estimation: EstimationStatistics,
    /// What waits for its line; `None` while that is not known to carry less than is sent.
    pub pacer: Option<PacerStatistics>,
    /// What it publishes.
    pub publications: Vec<PublicationStatistics>,
    /// What it subscribes to.
    pub subscriptions: Vec<SubscriptionStatistics>,
}

/// Of the estimates of what subscribers' lines carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EstimationStatistics {
    /// Packets that feedback told about.
    pub told: u64,
    /// Those of them that routers marked (ECN: CE).
    pub marked: u64,
    /// Numbers in it under which nothing was sent lately, or that it told about before.
    pub ignored: u64,
    /// Probes of more than the estimate.
    pub probes: u64,
    /// Those that showed that more is possible.
    pub probes_succeeded: u64,
    /// What was sent for them alone.
    pub padding: Traffic,
}

impl EstimationStatistics {
    /// Adds what came of one step to the worker's own.
    pub(crate) fn grow(&mut self, before: Self, after: Self) {
        self.told += after.told - before.told;
        self.marked += after.marked - before.marked;
        self.ignored += after.ignored - before.ignored;
        self.probes += after.probes - before.probes;
        self.probes_succeeded += after.probes_succeeded - before.probes_succeeded;
        self.padding.packets += after.padding.packets - before.padding.packets;
        self.padding.bytes += after.padding.bytes - before.padding.bytes;
    }
}

/// Of what waits for the line of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacerStatistics {
    /// Bits per second at which it leaves, sound that goes past it included.
    pub rate_bps: u64,
    /// How much waits: packets, and bytes of their payloads.
    pub waiting: Traffic,
    /// How long that takes.
    pub wait: Duration,
    /// What waited until now.
    pub total: PacingStatistics,
}

/// What waited for lines of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacingStatistics {
    /// Packets that waited, and left.
    pub packets: u64,
    /// How long they did, all together.
    pub delay: Duration,
    /// Packets that were given up, because too much waited: each counts as `pacer_full`, too.
    pub dropped: u64,
}

impl PacingStatistics {
    /// Adds what came of one step to the worker's own.
    pub(crate) fn grow(&mut self, before: Self, after: Self) {
        self.packets += after.packets.saturating_sub(before.packets);
        self.delay += after.delay.saturating_sub(before.delay);
        self.dropped += after.dropped.saturating_sub(before.dropped);
    }
}

/// Of a publication.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicationStatistics {
    /// Which.
    pub publication: PublicationId,
    /// Lowest first.
    pub encodings: Vec<EncodingStatistics>,
    /// Somebody speaks.
    pub speaking: bool,
    /// Packets that were not forwarded because others were louder.
    pub held_back: u64,
}

/// Of an encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodingStatistics {
    /// RID; empty without simulcast.
    pub rid: String,
    /// 0 while it is not known.
    pub ssrc: u32,
    /// Packets and their bytes, decrypted, retransmissions included.
    pub received: Traffic,
    /// Cumulative loss (RFC 3550 section 6.4.1).
    pub packets_lost: i64,
    /// Loss after reordering has settled.
    pub loss: LossStatistics,
    /// One-way queuing delay of the newest packet, drift of the clocks removed; `None` before there is one.
    pub queue_delay: Option<Duration>,
    /// What 95 % of the packets since its quality was last told did not exceed; `None` without any.
    pub queue_delay_p95: Option<Duration>,
    /// By how much our clock is faster than the sender's, in parts per million.
    pub clock_drift_ppm: f64,
    /// Forward error correction of it.
    pub fec: FecStatistics,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// Key frames that began.
    pub key_frames: u64,
    /// PLI and FIR sent to the publisher.
    pub key_frame_requests: u64,
    /// Subscribers that began with a key frame out of the cache.
    pub key_frames_shown: u64,
    /// Bytes kept for retransmission.
    pub cache_bytes: u64,
}

/// Of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionStatistics {
    /// Which.
    pub subscription: SubscriptionId,
    /// Its source, if it has one.
    pub publication: Option<PublicationId>,
    /// Outgoing SSRC.
    pub ssrc: u32,
    /// The encoding that is forwarded, if one is.
    pub layer: Option<u8>,
    /// The highest spatial and temporal layer of it that is forwarded, if any are left out.
    pub inner: Option<(u8, u8)>,
    /// The best that the subscriber wants, and the publisher sends or can send, if anything.
    pub layer_wanted: Option<u8>,
    /// The best that the peer's budget permits; `None` while nothing fits, and without a budget.
    pub layer_permitted: Option<u8>,
    /// What the budget takes away.
    pub held_back: HeldBack,
    /// Without retransmissions.
    pub sent: Traffic,
    /// Cumulative loss as the subscriber last reported it.
    pub packets_lost: i64,
    /// 0 to 1, as the subscriber last reported it.
    pub fraction_lost: f64,
    /// Interarrival jitter as the subscriber last reported it.
    pub jitter: Duration,
    /// Round-trip time by the subscriber's last report, if it answered a sender report of ours.
    pub round_trip: Option<Duration>,
    /// Packets sent again.
    pub retransmissions: u64,
    /// Packets asked for that were not there.
    pub retransmissions_missed: u64,
    /// Of video: for how long which layers went out since it began, the lowest first.
    pub layer_times: Vec<LayerTime>,
    /// Of video: key frames that began to go out.
    pub key_frames: u64,
    /// Of video: pictures that went out later than 200 ms and three mean intervals after the one before.
    pub freezes: u64,
    /// For how long those before them stood.
    pub frozen: Duration,
}

/// How long a layer of a subscription went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerTime {
    /// The encoding; `None` for nothing.
    pub layer: Option<u8>,
    /// The highest spatial and temporal layer of it, if any were left out.
    pub inner: Option<(u8, u8)>,
    /// So long, in all.
    pub time: Duration,
}

/// What a peer's budget takes away of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeldBack {
    /// Nothing.
    #[default]
    Nothing,
    /// It gets a lower layer than it wants.
    Lowered,
    /// It gets nothing, because not even the lowest fits.
    Paused,
}

impl Worker {
    /// The worker's own counters. Looks at every publication: not for every turn.
    #[must_use]
    pub fn statistics(&self) -> WorkerStatistics {
        let encodings = self.publications.iter().flat_map(|publication| &publication.encodings);
        let held_back = |how| {
            let subscriptions = self.subscriptions.iter();
            subscriptions.filter(|s| s.allotment.held_back() == how).count() as u32
        };
        WorkerStatistics {
            scopes: self.scopes.len() as u32,
            peers: self.peers.len() as u32,
            publications: self.publications.len().saturating_sub(self.mirrors.len()) as u32,
            subscriptions: self.subscriptions.len() as u32,
            received: self.received,
            sent: self.sent,
            ecn: self.ecn,
            fec: self.fec,
            bindings: self.bindings.as_ref().map_or(0, |bindings| bindings.answered),
            cache_bytes: encodings.map(|encoding| encoding.cache.bytes() as u64).sum(),
            estimation: self.estimation,
            quality: self.quality.total,
            pacing: self.pacing,
            subscriptions_lowered: held_back(HeldBack::Lowered),
            subscriptions_paused: held_back(HeldBack::Paused),
        }
    }

    /// The counters of a scope and all in it.
    #[must_use]
    pub fn scope_statistics(&self, now: Instant, scope: ScopeId) -> Option<ScopeStatistics> {
        let peers = self.scopes.get(&scope)?.iter().filter_map(|slot| self.peers.get(*slot));
        let peers = peers.map(|peer| self.of_peer(peer, Some(now))).collect();
        Some(ScopeStatistics { scope, dominant: self.dominant(scope), peers })
    }

    /// The counters of a peer and its streams, with the times of layers up to the last picture.
    #[must_use]
    pub fn peer_statistics(&self, peer: PeerId) -> Option<PeerStatistics> {
        self.peers.get(*self.peer_ids.get(&peer)?).map(|peer| self.of_peer(peer, None))
    }

    fn of_peer(&self, peer: &Peer, now: Option<Instant>) -> PeerStatistics {
        let publications = peer.publications.iter().filter_map(|p| self.publications.get(*p));
        let subscriptions = peer.subscriptions.iter().filter_map(|s| self.subscriptions.get(*s));
        PeerStatistics {
            peer: peer.id,
            connected: peer.connected,
            path: peer.ice.path(),
            received: peer.received,
            sent: peer.sent,
            ecn: peer.ecn,
            budget_bps: peer.budget_bps,
            uplink_max_bps: peer.uplink.max_bps(),
            round_trip: peer.round_trip(),
            estimation: peer.bandwidth.as_ref().map(|b| b.statistics()).unwrap_or_default(),
            pacer: peer.pacer.as_ref().map(|pacer| pacer.statistics()),
            publications: publications.map(of_publication).collect(),
            subscriptions: subscriptions.map(|s| self.of_subscription(s, now)).collect(),
        }
    }

    pub(crate) fn of_subscription(
        &self,
        subscription: &Subscription,
        now: Option<Instant>,
    ) -> SubscriptionStatistics {
        let publication = subscription.publication.and_then(|slot| self.publications.get(slot));
        let block = subscription.reported.block;
        let clock_rate_hz = subscription.routes.first().map_or(0, |route| route.clock_rate_hz);
        let (display, video) = (&subscription.display, subscription.kind == Kind::Video);
        SubscriptionStatistics {
            subscription: subscription.id,
            publication: publication.map(|publication| publication.id),
            ssrc: subscription.ssrc,
            layer: subscription.selector.current(),
            inner: subscription.layers.share().map(|target| (target.spatial(), target.temporal())),
            layer_wanted: subscription.allotment.wanted.map(|rung| rung.encoding),
            layer_permitted: subscription.allotment.share.rung().map(|rung| rung.encoding),
            held_back: subscription.allotment.held_back(),
            sent: subscription.sent,
            packets_lost: block.cumulative_lost.into(),
            fraction_lost: f64::from(block.fraction_lost) / 256.0,
            jitter: ticks(block.jitter, clock_rate_hz),
            round_trip: subscription.reported.round_trip,
            retransmissions: subscription.resent,
            retransmissions_missed: subscription.missed,
            layer_times: if video { display.times(now) } else { Vec::new() },
            key_frames: display.key_frames,
            freezes: display.freezes,
            frozen: display.frozen,
        }
    }
}

fn of_publication(publication: &Publication) -> PublicationStatistics {
    let encodings = publication.encodings.iter().map(|encoding| EncodingStatistics {
        rid: encoding.rid.to_string(),
        ssrc: encoding.ssrc,
        received: Traffic { packets: encoding.packets, bytes: encoding.bytes },
        packets_lost: encoding.reception.lost(),
        loss: encoding.loss.statistics(),
        fec: encoding.fec.as_ref().map(|fec| fec.statistics).unwrap_or_default(),
        queue_delay: encoding.delay.current(),
        queue_delay_p95: encoding.delay.p95(),
        clock_drift_ppm: encoding.delay.drift_ppm(),
        jitter: ticks(encoding.reception.jitter(), encoding.clock_rate_hz),
        key_frames: encoding.key_frames,
        key_frame_requests: encoding.key_frame_requests,
        key_frames_shown: encoding.key_frames_shown,
        cache_bytes: encoding.cache.bytes() as u64,
    });
    PublicationStatistics {
        publication: publication.id,
        encodings: encodings.collect(),
        speaking: publication.sound.voice.is_speaking(),
        held_back: publication.sound.held_back,
    }
}

pub(crate) fn ticks(count: u32, clock_rate_hz: u32) -> Duration {
    let nanos = u64::from(count).saturating_mul(1_000_000_000);
    Duration::from_nanos(nanos.checked_div(clock_rate_hz.into()).unwrap_or_default())
}
