//! The pacer of a peer whose line is known: pictures leave no faster than the line carries them, so that what is too much
//! waits here, where sound goes past it, and not in the line's queue, where nothing does.
//!
//! What waits is not copied: it is named, and looked up in its publication's cache when it is due. Only then it is selected,
//! numbered and encrypted ([`crate::departure`]), so that what is given up here leaves no hole in the stream.

use crate::gather::Held;
use crate::limits::{
    PACER_BACKOFF_MAX, PACER_BACKOFF_MIN, PACER_BURST, PACER_DEBT, PACER_PACKETS, PACER_PERCENT,
    PACER_REPAIRS, PACER_STALE, PACER_STEADY, PACER_TRICKLE, PACER_WAIT,
};
use crate::packet::Packet;
use crate::rewrite::Source;
use crate::select::Active;
use crate::statistics::{PacerStatistics, PacingStatistics, Traffic};
use crate::subscription::Subscription;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// What waits to leave for one peer.
#[derive(Debug)]
pub(crate) struct Pacer {
    rate_bps: u64,
    /// Bits that may leave at once; below zero when more has left than the line carried.
    credit: i64,
    /// What of it was promised since it was last counted.
    promised: i64,
    at: Instant,
    /// When the last packet left that could have waited; and whether that is so long ago that another goes whatever was sent.
    left_at: Instant,
    trickles: bool,
    /// Bytes that had left for the peer by then: whatever they were, they took the line.
    sent: u64,
    waiting: VecDeque<Waiting>,
    bytes: u64,
    repairs: VecDeque<Repair>,
    lanes: Vec<Lane>,
    statistics: PacingStatistics,
}

/// A packet by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Slot.
    pub(crate) subscription: u32,
    pub(crate) source: Source,
    pub(crate) encoding: u8,
    /// Extended by the source's window.
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    /// Bytes of its payload, and of the padding that makes it as long as its neighbours.
    pub(crate) len: u16,
    pub(crate) padding: u8,
    /// It is of a key frame.
    pub(crate) key_frame: bool,
    /// What was before it was given up: the stream begins anew with it.
    pub(crate) anew: bool,
    pub(crate) since: Instant,
}

/// A packet that the subscriber asks for again, by its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    /// Slot.
    pub(crate) subscription: u32,
    pub(crate) ssrc: u32,
    pub(crate) seq: u16,
}

/// What leaves next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Repair(Repair),
    Media(Waiting),
}

/// What becomes of a packet that could leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Its subscription decides at once.
    Passes,
    /// It waits.
    Waits,
    /// It is given up, or was not due. `awaits`: a key frame of its encoding is needed.
    Skipped { awaits: bool, given_up: bool },
}

/// The packets of one subscription.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Slot.
    subscription: u32,
    packets: u32,
    bytes: u64,
    /// How many of those that wait are of key frames.
    key_frames: u32,
    /// The encoding that it is on once all that waits has left.
    encoding: u8,
    /// The newest picture that left or waits, and whether that is a key frame.
    picture: Option<(u8, u32, bool)>,
    /// Something was given up: nothing can be shown before the next key frame.
    skips: bool,
    /// No key frame is asked for before this.
    again_at: Instant,
    backoff: Duration,
    begun_at: Instant,
}

impl Lane {
    fn new(subscription: u32, now: Instant) -> Self {
        Self {
            subscription,
            packets: 0,
            bytes: 0,
            key_frames: 0,
            encoding: 0,
            picture: None,
            skips: false,
            again_at: now,
            backoff: PACER_BACKOFF_MIN,
            begun_at: now,
        }
    }

    /// Goes on with the next key frame. What was given up soon after it had gone on waits longer the next time: each key
    /// frame costs everybody who watches.
    fn skip(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.skips, true) {
            let steady = now.since(self.begun_at) >= PACER_STEADY;
            let longer = (2 * self.backoff).min(PACER_BACKOFF_MAX);
            self.backoff = if steady { PACER_BACKOFF_MIN } else { longer };
            self.again_at = now + self.backoff;
        }
    }
}

impl Pacer {
    /// Nothing waits, and nothing may leave at once: the line has just been found full. `sent` bytes have left until now.
    pub(crate) fn new(now: Instant, sent: u64) -> Self {
        Self {
            rate_bps: 0,
            credit: 0,
            promised: 0,
            at: now,
            left_at: now,
            trickles: false,
            sent,
            waiting: VecDeque::new(),
            bytes: 0,
            repairs: VecDeque::new(),
            lanes: Vec::new(),
            statistics: PacingStatistics::default(),
        }
    }

    /// Counts what has left for the peer, `sent` bytes in all, and what its line has carried since the last time.
    pub(crate) fn settle(&mut self, now: Instant, limit_bps: Option<u64>, sent: u64) {
        let limit_bps = limit_bps.unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX));
        self.rate_bps = (limit_bps * PACER_PERCENT / 100).max(1);
        let elapsed = now.since(self.at);
        let left = sent.saturating_sub(self.sent).saturating_mul(8);
        (self.at, self.sent, self.promised) = (now, sent, 0);
        let credit = self.credit.saturating_add_unsigned(self.bits(elapsed));
        let credit = credit.min(self.bits(PACER_BURST).cast_signed());
        let most = self.bits(PACER_DEBT).cast_signed();
        self.credit = credit.saturating_sub_unsigned(left).max(-most);
        self.trickles = now.since(self.left_at) >= PACER_TRICKLE;
    }

    /// What the line carries in so long.
    fn bits(&self, time: Duration) -> u64 {
        let micros = time.as_micros().min(60_000_000) as u64;
        // At most 2^36 bits per second over 2^26 microseconds.
        self.rate_bps.saturating_mul(micros) / 1_000_000
    }

    /// Whether the line is free.
    pub(crate) fn is_free(&self) -> bool {
        self.credit > self.promised || self.trickles
    }

    /// Whether what is asked for again has to wait.
    pub(crate) fn is_busy(&self) -> bool {
        !self.is_free() || !self.repairs.is_empty()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.repairs.is_empty()
    }

    /// How long what waits takes.
    pub(crate) fn wait(&self) -> Duration {
        let owed = self.credit.min(0).unsigned_abs();
        self.time(self.bytes.saturating_mul(8).saturating_add(owed))
    }

    /// How far behind pictures are: what waits takes so long, or has waited so long already, as beside much sound.
    fn lag(&self, now: Instant) -> Duration {
        let waited = self.waiting.front().map(|first| now.since(first.since));
        self.time(self.bytes.saturating_mul(8)).max(waited.unwrap_or_default())
    }

    fn time(&self, bits: u64) -> Duration {
        Duration::from_micros(bits.saturating_mul(1_000_000) / self.rate_bps.max(1))
    }

    /// When something that waits may leave.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let owed = self.credit.min(0).unsigned_abs();
        let free_at = now + self.time(owed);
        (!self.is_empty()).then(|| free_at.min(self.left_at + PACER_TRICKLE))
    }

    /// How many packets more find room.
    pub(crate) fn room(&self) -> usize {
        PACER_PACKETS.saturating_sub(self.waiting.len())
    }

    /// What leaves next, if the line is free for it: first what was asked for again, which somebody waits for.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next> {
        if !self.is_free() {
            return None;
        }
        if let Some(repair) = self.repairs.pop_front() {
            return Some(Next::Repair(repair));
        }
        let waiting = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(waiting.len.into());
        if let Some(lane) = self.lanes.iter_mut().find(|l| l.subscription == waiting.subscription) {
            lane.packets = lane.packets.saturating_sub(1);
            lane.bytes = lane.bytes.saturating_sub(waiting.len.into());
            lane.key_frames = lane.key_frames.saturating_sub(waiting.key_frame.into());
        }
        self.statistics.packets += 1;
        self.statistics.delay += now.since(waiting.since);
        Some(Next::Media(waiting))
    }

    /// What waited has left.
    pub(crate) fn left(&mut self, now: Instant) {
        (self.left_at, self.trickles) = (now, false);
    }

    /// A packet is asked for again while the line is busy. The oldest wish goes when there are too many.
    pub(crate) fn repair(&mut self, repair: Repair) {
        if self.repairs.contains(&repair) {
            return;
        }
        if self.repairs.len() >= PACER_REPAIRS {
            self.repairs.pop_front();
        }
        self.repairs.push_back(repair);
    }

    /// Decides about a packet of a subscription, and queues it if it is to wait. `fits` says that the line carries what its
    /// peer takes.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        slot: u32,
        (subscription, active, fits): (&Subscription, Active, bool),
        held: &Held,
        packet: &Packet<'_>,
    ) -> Admission {
        let Some(at) = self.lane(slot, now) else { return Admission::Passes };
        let idle = self.is_empty();
        let (wait, lanes) =
            (self.lag(now), self.lanes.iter().filter(|lane| lane.packets > 0).count());
        let (free, bytes, room) = (self.is_free(), self.bytes, self.room());
        let Some(lane) = self.lanes.get_mut(at) else { return Admission::Passes };
        // What fills a hole has its number already; what is not wanted at all is declined at once.
        let late = subscription.rewriter.is_late(held.source, packet.seq);
        if late || subscription.selector.is_paused() {
            return Admission::Passes;
        }
        let (encoding, peek) = (held.stream.encoding, &packet.peek);
        let target = subscription.selector.target(active) == Some(encoding);
        let skipped = |awaits, given_up| Admission::Skipped { awaits, given_up };
        let (mut anew, mut clears) = (false, false);
        if lane.skips {
            // A picture that stands by itself: what waits before it is stale. But each must get its turn.
            let fresh = peek.key_frame && lane.key_frames == 0;
            let full = lane.key_frames > 0 || (wait >= PACER_WAIT / 2 && !fresh);
            if !target || !peek.enters || full {
                let again_at = lane.again_at
                    - if fits { lane.backoff - PACER_BACKOFF_MIN } else { Duration::ZERO };
                return skipped(target && idle && now >= again_at, target);
            }
            (lane.skips, lane.begun_at) = (false, now);
            (anew, clears) = (true, lane.packets > 0);
        }
        let current = subscription.selector.current();
        let on = if lane.packets > 0 { Some(lane.encoding) } else { current };
        let goes_on = on == Some(encoding);
        let is_due = anew || goes_on || (target && peek.enters);
        if !is_due {
            // Behind what waits it cannot be asked yet.
            let awaits = target && on.is_some();
            return if lane.packets > 0 { skipped(awaits, false) } else { Admission::Passes };
        }
        let known = lane.picture.filter(|(e, t, _)| (*e, *t) == (encoding, packet.timestamp));
        let key_frame = peek.key_frame || known.is_some_and(|(.., key_frame)| key_frame);
        lane.picture = Some((encoding, packet.timestamp, key_frame));
        let len = packet.padded.len();
        if !anew && idle && free {
            self.promised = self.promised.saturating_add(8 * (len + OVERHEAD) as i64);
            (self.left_at, self.trickles) = (now, false);
            return Admission::Passes;
        }
        if known.is_none() && lane.packets > 0 && peek.enters && peek.key_frame {
            clears |= wait > PACER_STALE && (lane.key_frames == 0 || !goes_on);
        }
        let over = wait > 2 * PACER_WAIT || lane.bytes.saturating_mul(lanes as u64) >= bytes;
        let over = known.is_none() && !clears && wait > PACER_WAIT && over;
        if over || room == 0 {
            lane.skip(now);
            let given_up = if known.is_some() { self.give_up(slot) } else { 0 };
            self.statistics.dropped += given_up;
            return skipped(false, true);
        }
        if clears {
            self.statistics.dropped += self.give_up(slot);
            anew = true;
        }
        self.wait_for(Waiting {
            subscription: slot,
            source: held.source,
            encoding,
            seq: packet.seq,
            timestamp: packet.timestamp,
            len: len.min(usize::from(u16::MAX)) as u16,
            padding: len.saturating_sub(packet.payload.len()).min(255) as u8,
            key_frame,
            anew,
            since: now,
        });
        Admission::Waits
    }

    /// Queues a packet. [`Pacer::room`] is the caller's to look at.
    pub(crate) fn wait_for(&mut self, waiting: Waiting) {
        let Some(at) = self.lane(waiting.subscription, waiting.since) else { return };
        let Some(lane) = self.lanes.get_mut(at) else { return };
        lane.packets += 1;
        lane.bytes += u64::from(waiting.len);
        lane.key_frames += u32::from(waiting.key_frame);
        lane.encoding = waiting.encoding;
        lane.picture = Some((waiting.encoding, waiting.timestamp, waiting.key_frame));
        self.bytes += u64::from(waiting.len);
        self.waiting.push_back(waiting);
    }

    /// What waits of a subscription is not to be shown any more: it waits for a key frame.
    pub(crate) fn skip(&mut self, slot: u32, now: Instant) {
        self.statistics.dropped += self.give_up(slot);
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.subscription == slot) {
            lane.skip(now);
        }
    }

    /// Whether a subscription waits for a key frame because something was given up.
    pub(crate) fn skips(&self, slot: u32) -> bool {
        self.lanes.iter().any(|lane| lane.subscription == slot && lane.skips)
    }

    /// Forgets a subscription, and what waits of it.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.give_up(slot);
        self.repairs.retain(|repair| repair.subscription != slot);
        self.lanes.retain(|lane| lane.subscription != slot);
    }

    /// The subscriptions have other slots now.
    pub(crate) fn renumber(&mut self, places: &BTreeMap<u32, u32>) {
        let renumber = |slot: &mut u32| match places.get(slot) {
            Some(place) => {
                *slot = *place;
                true
            }
            None => false,
        };
        self.waiting.retain_mut(|waiting| renumber(&mut waiting.subscription));
        self.repairs.retain_mut(|repair| renumber(&mut repair.subscription));
        self.lanes.retain_mut(|lane| renumber(&mut lane.subscription));
        self.bytes = self.waiting.iter().map(|waiting| u64::from(waiting.len)).sum();
    }

    /// What it is doing.
    pub(crate) fn statistics(&self) -> PacerStatistics {
        PacerStatistics {
            rate_bps: self.rate_bps,
            waiting: Traffic { packets: self.waiting.len() as u64, bytes: self.bytes },
            wait: if self.is_empty() { Duration::ZERO } else { self.wait() },
            total: self.statistics,
        }
    }

    /// What it counted.
    pub(crate) fn total(&self) -> PacingStatistics {
        self.statistics
    }

    /// Removes what waits of a subscription; how many packets that were.
    fn give_up(&mut self, slot: u32) -> u64 {
        let before = self.waiting.len();
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.subscription == slot) {
            self.bytes = self.bytes.saturating_sub(lane.bytes);
            (lane.packets, lane.bytes, lane.key_frames) = (0, 0, 0);
        }
        self.waiting.retain(|waiting| waiting.subscription != slot);
        (before - self.waiting.len()) as u64
    }

    /// The place of a subscription's lane.
    fn lane(&mut self, slot: u32, now: Instant) -> Option<usize> {
        let found = self.lanes.iter().position(|lane| lane.subscription == slot);
        found.or_else(|| {
            self.lanes.push(Lane::new(slot, now));
            self.lanes.len().checked_sub(1)
        })
    }
}

/// Bytes around a payload on its way: header, extensions, tag.
const OVERHEAD: usize = 48;
