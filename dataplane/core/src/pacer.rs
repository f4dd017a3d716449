//! The pacer of a peer whose line is known: pictures leave no faster than the line carries them, so that what is too much
//! waits here, where sound goes past it, and not in the line's queue, where nothing does.
//!
//! What waits is selected and numbered as if it left at once, so that only what is to be sent waits. It is not copied: it is
//! named, and looked up in its publication's cache and encrypted when it is due ([`crate::departure`]). What is given up is
//! whole pictures of which nothing has left, from some picture on: the rewriter takes their numbers back, and the stream goes
//! on with a key frame.

use crate::gather::Held;
use crate::lane::Lanes;
use crate::limits::{
    PACER_BURST, PACER_DEBT, PACER_KEY_FRAME, PACER_PACKETS, PACER_PERCENT, PACER_PICTURE,
    PACER_REPAIRS, PACER_ROOM, PACER_STALE, PACER_STEP, PACER_TRICKLE, PACER_WAIT,
};
use crate::packet::Packet;
use crate::rewrite::{Rewrite, Source};
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
    at: Instant,
    /// When the last packet left that could have waited; and whether that is so long ago that another goes whatever was sent.
    left_at: Instant,
    trickles: bool,
    /// Bytes that had left for the peer by then: whatever they were, they took the line.
    sent: u64,
    waiting: VecDeque<Waiting>,
    bytes: u64,
    repairs: VecDeque<Repair>,
    lanes: Lanes,
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
    pub(crate) rewrite: Rewrite,
    /// Its number is due, but its layer is not sent.
    pub(crate) fills: bool,
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

/// What becomes of a packet before its subscription looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Its subscription decides.
    Open,
    /// It is given up. `awaits`: a key frame of its encoding, to which the stream goes now, is needed; `given_up`: it would
    /// have gone out otherwise.
    Shut { awaits: bool, given_up: bool },
    /// A key frame, or what decoding can begin with: what waits of the stream is stale. `skipped`: what came before was given
    /// up already.
    Anew { skipped: bool },
    /// Its picture is too long to wait for, all of it.
    Cut,
    /// Too much waits for another picture: what follows is given up, too, until a key frame.
    Full,
}

impl Pacer {
    /// Nothing waits, and nothing may leave at once: the line has just been found full. `sent` bytes have left until now.
    pub(crate) fn new(now: Instant, sent: u64) -> Self {
        Self {
            rate_bps: 0,
            credit: 0,
            at: now,
            left_at: now,
            trickles: false,
            sent,
            waiting: VecDeque::new(),
            bytes: 0,
            repairs: VecDeque::new(),
            lanes: Lanes::default(),
            statistics: PacingStatistics::default(),
        }
    }

    /// Counts what has left for the peer, `sent` bytes in all, and what its line has carried since the last time.
    pub(crate) fn settle(&mut self, now: Instant, limit_bps: Option<u64>, sent: u64) {
        let limit_bps = limit_bps.unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX));
        self.rate_bps = (limit_bps * PACER_PERCENT / 100).max(1);
        let elapsed = now.since(self.at);
        let left = sent.saturating_sub(self.sent).saturating_mul(8);
        (self.at, self.sent) = (now, sent);
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
        self.credit > 0 || self.trickles
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
        time(bits, self.rate_bps)
    }

    /// When something that waits may leave.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let owed = self.credit.min(0).unsigned_abs();
        let free_at = now + self.time(owed).max(PACER_STEP);
        (!self.is_empty()).then(|| free_at.min(self.left_at + PACER_TRICKLE))
    }

    /// When a key frame is to be asked for. What others have waiting may hold that up: it is looked at whenever that leaves.
    /// `fits` says that the line carries what its peer takes.
    pub(crate) fn asks_at(&self, now: Instant, fits: bool) -> Option<Instant> {
        let asks_at = self.lanes.iter().filter_map(|lane| lane.asks_at(fits));
        asks_at.filter(|at| *at > now).min()
    }

    /// A subscription whose key frame is to be asked for now: something of it was given up, and nothing of it waits any more.
    pub(crate) fn ask(&mut self, now: Instant, fits: bool) -> Option<u32> {
        // It would have to wait itself.
        if self.lag(now) > PACER_WAIT {
            return None;
        }
        let due = |at: Instant| at <= now;
        let mut lanes = self.lanes.iter_mut();
        let lane = lanes.find(|lane| lane.asks_at(fits).is_some_and(due))?;
        lane.asked(now);
        Some(lane.subscription)
    }

    /// The subscriptions of which something was given up, and that wait for a key frame.
    pub(crate) fn skipping(&self) -> impl Iterator<Item = u32> {
        self.lanes.iter().filter(|lane| lane.skips).map(|lane| lane.subscription)
    }

    /// How many packets more find room.
    pub(crate) fn room(&self) -> usize {
        PACER_PACKETS.saturating_sub(self.waiting.len())
    }

    /// The same, instead of those that wait of a subscription.
    pub(crate) fn room_instead_of(&self, slot: u32) -> usize {
        self.room() + self.lanes.get(slot).map_or(0, |lane| lane.packets as usize)
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
        if let Some(lane) = self.lanes.get_mut(waiting.subscription) {
            lane.packets = lane.packets.saturating_sub(1);
            lane.bytes = lane.bytes.saturating_sub(waiting.len.into());
            lane.key_frames = lane.key_frames.saturating_sub(waiting.key_frame.into());
            if waiting.rewrite.seq >= lane.next {
                lane.next = waiting.rewrite.seq + 1;
                lane.leaves = Some((waiting.encoding, waiting.timestamp, waiting.key_frame));
            }
        }
        let waited = now.since(waiting.since);
        self.statistics.packets += u64::from(waited > Duration::ZERO);
        self.statistics.delay += waited;
        Some(Next::Media(waiting))
    }

    /// What waited has left.
    pub(crate) fn left(&mut self, now: Instant) {
        (self.left_at, self.trickles) = (now, false);
    }

    /// A packet is asked for again while the line is busy. The oldest wish goes when there are too many: `false`.
    pub(crate) fn repair(&mut self, repair: Repair) -> bool {
        if self.repairs.contains(&repair) {
            return true;
        }
        let full = self.repairs.len() >= PACER_REPAIRS;
        if full {
            self.repairs.pop_front();
        }
        self.repairs.push_back(repair);
        !full
    }

    /// Whether a packet of a subscription may wait.
    pub(crate) fn gate(
        &mut self,
        now: Instant,
        slot: u32,
        (subscription, active): (&Subscription, Active),
        held: &Held,
        packet: &Packet<'_>,
    ) -> Gate {
        let gate = self.look(now, slot, (subscription, active), held, packet);
        let given_up = match gate {
            Gate::Open | Gate::Anew { .. } => false,
            Gate::Shut { given_up, .. } => given_up,
            Gate::Cut | Gate::Full => true,
        };
        self.statistics.dropped += u64::from(given_up);
        gate
    }

    fn look(
        &mut self,
        now: Instant,
        slot: u32,
        (subscription, active): (&Subscription, Active),
        held: &Held,
        packet: &Packet<'_>,
    ) -> Gate {
        let (room, rate_bps, wait) = (self.room(), self.rate_bps, self.lag(now));
        let Some(lane) = self.lanes.of(slot, now) else { return Gate::Open };
        let encoding = held.stream.encoding;
        let on = subscription.selector.current() == Some(encoding);
        let shut = |awaits, given_up| Gate::Shut { awaits, given_up };
        if subscription.selector.is_paused() {
            return Gate::Open;
        }
        // What is older than the newest fills a hole.
        if subscription.rewriter.is_late(held.source, packet.seq) {
            return if room == 0 { shut(false, true) } else { Gate::Open };
        }
        if on && lane.is_in(encoding, packet.timestamp) {
            let wait = time(lane.bytes.saturating_mul(8), rate_bps);
            let is_key = lane.picture.is_some_and(|(.., key_frame)| key_frame);
            let most = if is_key { PACER_KEY_FRAME } else { PACER_PICTURE };
            let long = room == 0 || (lane.packets > 0 && wait > most);
            return if long { Gate::Cut } else { Gate::Open };
        }
        let target = subscription.selector.target(active) == Some(encoding);
        // A packet without payload gives a decoder nothing to start with.
        let enters = target && packet.peek.enters && !packet.payload.is_empty();
        let waits = lane.keeps_key_frame(encoding);
        if lane.skips {
            // A picture that stands by itself: what waits before it is stale.
            let fresh = packet.peek.key_frame && !waits;
            if !enters || waits || (wait >= PACER_WAIT / 2 && !fresh) {
                return shut(target && encoding != lane.skipped, target);
            }
            lane.begin(now);
            return Gate::Anew { skipped: true };
        }
        if !on && !enters {
            return Gate::Open;
        }
        let stale = wait > PACER_STALE && !(on && lane.key_frames > 0);
        if enters && packet.peek.key_frame && lane.packets > 0 && stale {
            return Gate::Anew { skipped: false };
        }
        let bytes = lane.bytes;
        if room < PACER_ROOM || (wait > PACER_WAIT && self.is_too_much(wait, bytes)) {
            self.lanes.get_mut(slot).into_iter().for_each(|lane| lane.skip(encoding, now));
            return Gate::Full;
        }
        Gate::Open
    }

    /// Whether the next picture of a subscription of which so much waits is given up: who sends most gives way first.
    fn is_too_much(&self, wait: Duration, bytes: u64) -> bool {
        let lanes = self.lanes.iter().filter(|lane| lane.packets > 0).count();
        let most = bytes.saturating_mul(lanes as u64) >= self.bytes;
        most || wait > 2 * PACER_WAIT
    }

    /// Queues a packet: behind those with lower numbers of its stream. [`Pacer::room`] is the caller's to look at.
    pub(crate) fn wait_for(&mut self, mut waiting: Waiting) {
        let Some(lane) = self.lanes.of(waiting.subscription, waiting.since) else { return };
        let number = waiting.rewrite.seq;
        let in_order = lane.packets == 0 || number > lane.newest;
        if lane.is_in(waiting.encoding, waiting.timestamp) {
            waiting.key_frame |= lane.picture.is_some_and(|(.., key_frame)| key_frame);
        }
        if number > lane.newest {
            (lane.newest, lane.on) = (number, waiting.encoding);
            lane.picture = Some((waiting.encoding, waiting.timestamp, waiting.key_frame));
        }
        lane.packets += 1;
        lane.bytes += u64::from(waiting.len);
        lane.key_frames += u32::from(waiting.key_frame);
        self.bytes += u64::from(waiting.len);
        let behind = |other: &Waiting| {
            other.subscription == waiting.subscription && other.rewrite.seq > number
        };
        let place = if in_order { None } else { self.waiting.iter().position(behind) };
        match place {
            Some(place) => self.waiting.insert(place, waiting),
            None => self.waiting.push_back(waiting),
        }
    }

    /// Gives up what waits of a subscription from number `floor` on, but for a picture that has begun to leave. The first
    /// number of it.
    pub(crate) fn give_up_stale(&mut self, slot: u32, floor: u64) -> Option<u64> {
        let leaves = self.lanes.get(slot)?.leaves.map(|(encoding, at, _)| (encoding, at));
        let of = |waiting: &&Waiting| {
            waiting.subscription == slot && Some((waiting.encoding, waiting.timestamp)) == leaves
        };
        let kept = self.waiting.iter().filter(of).map(|waiting| waiting.rewrite.seq).max();
        self.give_up(slot, kept.map_or(floor, |kept| floor.max(kept + 1)))
    }

    /// The subscription of which too much waits: longer than it can be looked up, or the line has become so narrow that it
    /// will.
    pub(crate) fn overdue(&self, now: Instant) -> Option<u32> {
        let first = self.waiting.front()?;
        if now.since(first.since) > PACER_PICTURE {
            return Some(first.subscription);
        }
        let too_much = self.time(self.bytes.saturating_mul(8)) > PACER_KEY_FRAME;
        let lanes = too_much.then(|| self.lanes.iter())?;
        lanes.max_by_key(|lane| lane.bytes).map(|lane| lane.subscription)
    }

    /// A subscription waits for a key frame.
    pub(crate) fn await_key_frame(&mut self, slot: u32, now: Instant) {
        self.lanes.get_mut(slot).into_iter().for_each(|lane| lane.skip(lane.on, now));
    }

    /// Gives up what waits of a picture from number `floor` on, the newest of a subscription; that waits for a key frame then.
    /// The first number of it.
    pub(crate) fn give_up_picture(&mut self, slot: u32, now: Instant, floor: u64) -> Option<u64> {
        let lane = self.lanes.get_mut(slot)?;
        let (encoding, timestamp, key_frame) = lane.picture?;
        lane.skip(encoding, now);
        lane.too_long = key_frame;
        let of = |waiting: &&Waiting| {
            let picture = (waiting.encoding, waiting.timestamp);
            waiting.subscription == slot && picture == (encoding, timestamp)
        };
        let first = self.waiting.iter().find(of)?.rewrite.seq;
        self.give_up(slot, first.max(floor))
    }

    /// A packet that was due cannot be sent: it is given up with all that waits of its subscription, which waits for a key
    /// frame then. From number `from` on none was sent.
    pub(crate) fn miss(&mut self, missed: &Waiting, now: Instant, from: u64) {
        self.statistics.dropped += 1;
        self.give_up(missed.subscription, 0);
        let Some(lane) = self.lanes.get_mut(missed.subscription) else { return };
        lane.skip(missed.encoding, now);
        lane.newest = from.saturating_sub(1);
        (lane.next, lane.leaves) = (lane.next.min(from), None);
    }

    /// The same, but with number `to` another source begins: what waits of that goes on under the numbers from there.
    pub(crate) fn close_over(&mut self, missed: &Waiting, to: u64) {
        let (slot, from) = (missed.subscription, missed.rewrite.seq);
        let (_, rest) = self.remove(slot, |number| number < to);
        self.statistics.dropped += 1 + rest;
        let Some(lane) = self.lanes.get_mut(slot) else { return };
        let less = to.saturating_sub(from);
        let waiting = self.waiting.iter_mut().filter(|waiting| waiting.subscription == slot);
        waiting.for_each(|waiting| waiting.rewrite.seq -= less.min(waiting.rewrite.seq));
        if lane.newest < to {
            (lane.newest, lane.picture) = (to - 1, None);
        }
        lane.newest -= less.min(lane.newest);
        (lane.next, lane.leaves) = (lane.next.min(from), None);
    }

    /// The number after the highest that waits of a subscription.
    pub(crate) fn after(&self, slot: u32) -> Option<u64> {
        Some(self.lanes.get(slot).filter(|lane| lane.packets > 0)?.newest + 1)
    }

    /// Whether a subscription waits for a key frame because something was given up.
    pub(crate) fn skips(&self, slot: u32) -> bool {
        self.lanes.get(slot).is_some_and(|lane| lane.skips)
    }

    /// Forgets a subscription, and what waits of it. The first number of it, and how many packets that is.
    pub(crate) fn forget(&mut self, slot: u32) -> (Option<u64>, u64) {
        let forgotten = self.forget_waiting(slot);
        self.lanes.remove(slot);
        forgotten
    }

    /// A subscription is shown a key frame instead of what waits of it, which is forgotten. The same of that.
    pub(crate) fn begin(&mut self, slot: u32, now: Instant) -> (Option<u64>, u64) {
        let forgotten = self.forget_waiting(slot);
        if let Some(lane) = self.lanes.get_mut(slot) {
            lane.begin(now);
            (lane.picture, lane.leaves) = (None, None);
            lane.newest = forgotten.0.map_or(lane.newest, |first| first.saturating_sub(1));
        }
        forgotten
    }

    fn forget_waiting(&mut self, slot: u32) -> (Option<u64>, u64) {
        self.repairs.retain(|repair| repair.subscription != slot);
        self.remove(slot, |_| true)
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
        self.lanes.renumber(renumber);
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

    /// Gives up what waits of a subscription with this number or a later one. The first of those.
    fn give_up(&mut self, slot: u32, from: u64) -> Option<u64> {
        let (first, count) = self.remove(slot, |number| number >= from);
        self.statistics.dropped += count;
        let first = first?;
        if let Some(lane) = self.lanes.get_mut(slot) {
            (lane.newest, lane.picture) = (lane.newest.min(first.saturating_sub(1)), None);
        }
        Some(first)
    }

    /// Removes what waits of a subscription with numbers like this. The first of those, and how many they are.
    fn remove(&mut self, slot: u32, goes: impl Fn(u64) -> bool) -> (Option<u64>, u64) {
        let Some(lane) = self.lanes.get_mut(slot) else { return (None, 0) };
        let (mut first, mut bytes, mut packets) = (None, 0, 0);
        self.waiting.retain(|waiting| {
            let number = waiting.rewrite.seq;
            let goes = waiting.subscription == slot && goes(number);
            if goes {
                first = Some(first.unwrap_or(number).min(number));
                packets += 1;
                bytes += u64::from(waiting.len);
                lane.key_frames = lane.key_frames.saturating_sub(waiting.key_frame.into());
            }
            !goes
        });
        lane.packets = lane.packets.saturating_sub(packets);
        lane.bytes = lane.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        (first, packets.into())
    }
}

fn time(bits: u64, bps: u64) -> Duration {
    Duration::from_micros(bits.saturating_mul(1_000_000) / bps.max(1))
}
