//! From what waits in a [`Pacer`] to packets: who waits, and what becomes of it when the line is free.

use crate::cache::Kept;
use crate::command::Kind;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::fan_out::Group;
use crate::gather::{Gather, Packets, bit};
use crate::limits::{EGRESS_FLUSH_BYTES, EGRESS_FLUSH_DATAGRAMS, PACER_ROOM};
use crate::pacer::{Gate, Next, Pacer, Repair, Waiting};
use crate::packet::Packet;
use crate::peer::Peer;
use crate::publication::Publication;
use crate::rewrite::Source;
use crate::select::Active;
use crate::subscription::{Selected, Sending, Subscription};
use crate::time::{Instant, Now};
use crate::worker::Worker;

/// What becomes of the packets of one step, as sets of their places.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paced {
    pub(crate) waits: u64,
    /// A key frame is needed to go on.
    pub(crate) awaits: u64,
    /// How many were given up.
    pub(crate) given_up: u64,
}

impl Subscription {
    /// What waits of it, from this number on, is given up: it goes on with a key frame.
    pub(crate) fn give_up(&mut self, first: Option<u64>) {
        if let Some(first) = first {
            self.rewriter.give_up(first);
        }
        self.restart();
    }

    /// Whether its packets may wait: those of pictures, which can be looked up again. Sound never does.
    pub(crate) fn waits(&self, publication: &Publication) -> bool {
        self.kind == Kind::Video && !self.as_sent && publication.repairs
    }
}

/// Selects and numbers the packets of a step for a peer whose line is known. What goes out of them waits for that line, be it
/// for no time: [`Worker::release`] is to follow.
pub(crate) fn pace(
    now: Instant,
    peer: &mut Peer,
    (slot, subscription): (u32, &mut Subscription),
    (publication, group): (&Publication, &Group),
    gather: &Gather,
    packets: &[Option<Packet<'_>>],
) -> Paced {
    let mut paced = Paced::default();
    let limit_bps = peer.limit_bps();
    let Some(pacer) = peer.pacer.as_mut() else { return paced };
    pacer.settle(now, limit_bps, peer.sent.bytes);
    let dropped = pacer.total().dropped;
    for at in Packets(group.packets) {
        let (Some(held), Some(Some(packet))) = (gather.held().get(at), packets.get(at)) else {
            continue;
        };
        let gate = pacer.gate(now, slot, (subscription, group.active), held, packet);
        match gate {
            Gate::Open => {}
            Gate::Shut { awaits, .. } => {
                paced.awaits |= if awaits { bit(at) } else { 0 };
                continue;
            }
            Gate::Anew { skipped } => {
                let first = pacer.give_up_stale(slot, subscription.rewriter.floor());
                if skipped || first.is_some() {
                    subscription.give_up(first);
                }
            }
            Gate::Cut => {
                let first = pacer.give_up_picture(slot, now, subscription.rewriter.floor());
                subscription.give_up(first);
                continue;
            }
            Gate::Full => {
                // What waits is sent, and what is due after that, as it was overtaken by what it leaves out, not waited for.
                subscription.give_up(Some(pacer.after(slot).unwrap_or(0)));
                continue;
            }
        }
        let begins = subscription.rewriter.needs_segment(held.source, packet.seq);
        let source = (held.source, held.stream.encoding);
        let to = (slot, &mut *subscription, publication, group.active);
        let entry = enqueue(now, pacer, to, source, held.received, packet);
        paced.waits |= if entry.waits { bit(at) } else { 0 };
        paced.awaits |= if entry.awaits { bit(at) } else { 0 };
        if !begins || !entry.waits {
            continue;
        }
        // What overtook the beginning was refused before: it would have to be asked for again otherwise.
        let encoding = publication.encodings.get(usize::from(held.stream.encoding));
        let Some(encoding) = encoding else { continue };
        let newest = encoding.window.newest().unwrap_or(packet.seq);
        for seq in (packet.seq + 1..=newest).take(PACER_ROOM.min(pacer.room())) {
            let mut to_come = gather.held().iter().skip(at + 1);
            if to_come.any(|later| later.source == held.source && later.seq == seq) {
                continue;
            }
            let Some(Kept { received, peek, bytes }) = encoding.cache.get(seq) else { continue };
            let Ok(packet) = Packet::parse(bytes, seq, &publication.leg, peek) else { continue };
            let to = (slot, &mut *subscription, publication, group.active);
            enqueue(now, pacer, to, source, received, &packet);
        }
    }
    paced.given_up = pacer.total().dropped - dropped;
    paced
}

/// What became of a packet that may wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    waits: bool,
    /// A key frame is needed to go on.
    awaits: bool,
}

/// Selects and numbers a packet, and queues it if it is to go out.
pub(crate) fn enqueue(
    now: Instant,
    pacer: &mut Pacer,
    (slot, subscription, publication, active): (u32, &mut Subscription, &Publication, Active),
    (source, encoding): (Source, u8),
    received: Now,
    packet: &Packet<'_>,
) -> Entry {
    let aligned = |from| publication.align(from, source, packet);
    let selected = subscription.select(received, (source, encoding), active, packet, aligned);
    let (rewrite, fills) = match selected {
        Selected::Forward((_, rewrite)) => (rewrite, false),
        Selected::Fill((_, rewrite)) => (rewrite, true),
        Selected::AwaitKeyFrame => return Entry { waits: false, awaits: true },
        Selected::HandOn | Selected::Decline => return Entry::default(),
    };
    let len = if fills { 0 } else { packet.padded.len() };
    let padding = len.saturating_sub(packet.payload.len());
    subscription.rewriter.wait_for();
    pacer.wait_for(Waiting {
        subscription: slot,
        source,
        encoding,
        seq: packet.seq,
        timestamp: packet.timestamp,
        len: len.min(usize::from(u16::MAX)) as u16,
        padding: padding.min(255) as u8,
        key_frame: packet.peek.key_frame,
        rewrite,
        fills,
        since: now,
    });
    Entry { waits: !fills, awaits: !fills && subscription.layers.awaits_key_frame() }
}

impl Peer {
    /// Queues a packet that is asked for again, if its line is busy. When to look at it, and whether no other wish had to go for
    /// it.
    pub(crate) fn defer(
        &mut self,
        (now, slot, subscription): (Instant, u32, &Subscription),
        ssrc: u32,
        seq: u16,
    ) -> Option<(Instant, bool)> {
        let limit_bps = self.limit_bps();
        let pacer = self.pacer.as_mut().filter(|_| subscription.kind == Kind::Video)?;
        pacer.settle(now, limit_bps, self.sent.bytes);
        if !pacer.is_busy() {
            return None;
        }
        let all = pacer.repair(Repair { subscription: slot, ssrc, seq });
        Some((pacer.due(now)?, all))
    }

    /// Whether its line carries what it takes.
    fn fits(&self) -> bool {
        self.limit_bps().is_none_or(|limit| self.spending.spent_bps() <= limit)
    }
}

impl Worker {
    /// Sends what waits for the line of a peer, as far as that is free, and asks for the key frames of what was given up. When
    /// there is more to do.
    pub(crate) fn release(&mut self, now: Now, slot: u32, egress: &mut Egress) -> Option<Instant> {
        let mut pacer = self.peers.get_mut(slot)?.pacer.take()?;
        let before = pacer.total();
        if let Some(late) = pacer.overdue(now.at)
            && let Some(subscription) = self.subscriptions.get_mut(late)
            && let Some(first) = pacer.give_up_stale(late, subscription.rewriter.floor())
        {
            pacer.await_key_frame(late, now.at);
            subscription.give_up(Some(first));
        }
        while egress.bytes() <= EGRESS_FLUSH_BYTES && egress.len() <= EGRESS_FLUSH_DATAGRAMS {
            let Some(peer) = self.peers.get(slot) else { break };
            let sent = peer.sent.bytes;
            pacer.settle(now.at, peer.limit_bps(), sent);
            match pacer.next(now.at) {
                Some(Next::Repair(Repair { subscription, ssrc, seq })) => {
                    self.on_nack(now, subscription, ssrc, std::iter::once(seq), egress);
                }
                Some(Next::Media(waiting)) => self.depart(now, &mut pacer, &waiting, egress),
                None => break,
            }
            // What cannot be sent takes no other's turn.
            if self.peers.get(slot).is_some_and(|peer| peer.sent.bytes != sent) {
                pacer.left(now.at);
            }
        }
        let total = pacer.total();
        self.pacing.grow(before, total);
        self.drops.add(DropReason::PacerFull, total.dropped - before.dropped);
        let peer = self.peers.get_mut(slot)?;
        if pacer.is_empty() && peer.limit_bps().is_none() {
            // Whose line is not known any more needs none.
            for subscription in pacer.skipping() {
                self.want_key_frame(now, subscription, egress);
            }
            return None;
        }
        peer.pacer = Some(pacer);
        self.ask_for_skipped(now, slot, egress)
    }

    /// Asks for the key frames without which streams of a peer do not go on, if it is time to: their publishers may have
    /// nothing to send until somebody does. When there is more to send, or to ask for.
    fn ask_for_skipped(&mut self, now: Now, slot: u32, egress: &mut Egress) -> Option<Instant> {
        let fits = self.peers.get(slot)?.fits();
        while let Some(subscription) = self.peers.get_mut(slot)?.pacer.as_mut()?.ask(now.at, fits) {
            self.want_key_frame(now, subscription, egress);
        }
        let pacer = self.peers.get(slot)?.pacer.as_ref()?;
        let due = [pacer.due(now.at), pacer.asks_at(now.at, fits)];
        due.into_iter().flatten().min()
    }

    /// Sends what has come to wait for the lines of peers, as far as those are free.
    pub(crate) fn release_all(
        &mut self,
        now: Now,
        egress: &mut Egress,
        mut send: impl FnMut(&mut Egress),
    ) {
        let mut paced = std::mem::take(&mut self.paced);
        for slot in paced.drain(..) {
            if egress.bytes() > EGRESS_FLUSH_BYTES || egress.len() > EGRESS_FLUSH_DATAGRAMS {
                send(egress);
            }
            let before = (egress.len(), egress.bytes());
            if let Some(at) = self.release(now, slot, egress) {
                self.arm(slot, at);
            }
            self.count_sent(before, egress);
        }
        self.paced = paced;
    }

    /// Forgets a subscription whose packets may wait, and those.
    pub(crate) fn forget_waiting(&mut self, slot: u32) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        let peer = self.peers.get_mut(subscription.peer);
        let Some(pacer) = peer.and_then(|peer| peer.pacer.as_mut()) else { return };
        let (first, forgotten) = pacer.forget(slot);
        self.drops.add(DropReason::PacerForgotten, forgotten);
        if let Some(first) = first {
            subscription.rewriter.give_up(first);
        }
    }

    /// A packet that waited is sent.
    fn depart(&mut self, now: Now, pacer: &mut Pacer, waiting: &Waiting, egress: &mut Egress) {
        let slot = waiting.subscription;
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        let publication = subscription.publication.and_then(|slot| self.publications.get(slot));
        let Some(peer) = self.peers.get_mut(subscription.peer) else { return };
        let parsed = publication.filter(|_| peer.is_ready()).and_then(|publication| {
            // One whose publisher began anew, or that was overwritten by what came since, cannot be sent.
            let encoding = publication.encodings.get(usize::from(waiting.encoding));
            let encoding = encoding.filter(|encoding| encoding.source == waiting.source)?;
            let Kept { received, peek, bytes } = encoding.cache.get(waiting.seq)?;
            let packet = Packet::parse(bytes, waiting.seq, &publication.leg, peek).ok()?;
            Some((received, packet, subscription.route(packet.pt)?))
        });
        let Some((received, packet, route)) = parsed else {
            // What follows it cannot be shown either, but for what another source begins with.
            let (from, rewriter) = (waiting.rewrite.seq, &mut subscription.rewriter);
            if let Some(to) = rewriter.close_over(waiting.source, from) {
                pacer.close_over(waiting, to);
            } else {
                pacer.miss(waiting, now.at, from.max(rewriter.floor()));
                subscription.give_up(Some(from));
            }
            return;
        };
        subscription.rewriter.leaves(waiting.rewrite.seq);
        let packet = if waiting.fills {
            packet.emptied()
        } else {
            pad(packet, waiting.padding, &mut self.padded)
        };
        // The time that a packet says it left at: what may be repeated as it was says when it came, as that does not change.
        let times = (now.at, if route.repeats { received } else { now });
        let way = (route, waiting.rewrite);
        let sent = subscription.send(times, peer, &packet, way, Sending::First, egress);
        sent.unwrap_or_else(|reason| self.drops.count(reason));
    }
}

/// The packet with the padding that makes it as long as its neighbours in a run.
fn pad<'a>(packet: Packet<'a>, padding: u8, room: &'a mut [u8]) -> Packet<'a> {
    let len = packet.payload.len();
    let room = room.get_mut(..len + usize::from(padding)).filter(|_| padding > 0);
    let Some(room) = room else { return packet };
    if let Some((payload, rest)) = room.split_at_mut_checked(len) {
        payload.copy_from_slice(packet.payload);
        rest.fill(0);
        //= rfc3550#5.1: the last octet of the padding is its count.
        rest.last_mut().into_iter().for_each(|count| *count = padding);
    }
    Packet { padded: room, ..packet }
}
