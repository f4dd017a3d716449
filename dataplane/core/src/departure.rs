//! From what waits in a [`Pacer`] to packets: who waits, and what becomes of it when the line is free.

use crate::cache::Kept;
use crate::command::Kind;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::fan_out::Group;
use crate::gather::{Gather, Packets, bit};
use crate::limits::{DATAGRAM_BYTES, EGRESS_FLUSH_BYTES, EGRESS_FLUSH_DATAGRAMS};
use crate::pacer::{Admission, Next, Pacer, Repair, Waiting};
use crate::packet::Packet;
use crate::peer::Peer;
use crate::publication::Publication;
use crate::rewrite::Rewrite;
use crate::route::Route;
use crate::subscription::{Selected, Sending, Subscription};
use crate::time::{Instant, Now};
use crate::worker::Worker;

/// What becomes of the packets of one step, as sets of their places.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paced {
    /// They leave at once, if their subscription takes them.
    pub(crate) passes: u64,
    pub(crate) waits: u64,
    /// A key frame is needed to go on.
    pub(crate) awaits: u64,
    /// How many were given up.
    pub(crate) given_up: u64,
    /// When what waits is looked at.
    pub(crate) due: Option<Instant>,
}

impl Subscription {
    /// Whether its packets may wait: those of pictures, which can be looked up again. Sound never does.
    pub(crate) fn waits(&self, publication: &Publication) -> bool {
        self.kind == Kind::Video && !self.as_sent && publication.repairs
    }
}

/// Decides which packets of a step wait for the line of their peer, and queues those.
pub(crate) fn pace(
    now: Instant,
    peer: &mut Peer,
    (slot, subscription): (u32, &Subscription),
    group: &Group,
    gather: &Gather,
    packets: &[Option<Packet<'_>>],
) -> Paced {
    let mut paced = Paced { passes: group.packets, ..Paced::default() };
    let limit_bps = peer.limit_bps();
    let fits = limit_bps.is_none_or(|limit| peer.spending.spent_bps() <= limit);
    let Some(pacer) = peer.pacer.as_mut() else { return paced };
    pacer.settle(now, limit_bps, peer.sent.bytes);
    for at in Packets(group.packets) {
        let (Some(held), Some(Some(packet))) = (gather.held().get(at), packets.get(at)) else {
            continue;
        };
        match pacer.admit(now, slot, (subscription, group.active, fits), held, packet) {
            Admission::Passes => {}
            Admission::Waits => {
                paced.passes &= !bit(at);
                paced.waits |= bit(at);
            }
            Admission::Skipped { awaits, given_up } => {
                paced.passes &= !bit(at);
                paced.awaits |= if awaits { bit(at) } else { 0 };
                paced.given_up += u64::from(given_up);
            }
        }
    }
    paced.due = pacer.due(now);
    paced
}

impl Peer {
    /// Queues a packet that is asked for again, if its line is busy. When to look at it.
    pub(crate) fn defer(
        &mut self,
        (now, slot, subscription): (Instant, u32, &Subscription),
        ssrc: u32,
        seq: u16,
    ) -> Option<Instant> {
        let limit_bps = self.limit_bps();
        let pacer = self.pacer.as_mut().filter(|_| subscription.kind == Kind::Video)?;
        pacer.settle(now, limit_bps, self.sent.bytes);
        if !pacer.is_busy() {
            return None;
        }
        pacer.repair(Repair { subscription: slot, ssrc, seq });
        pacer.due(now)
    }
}

impl Worker {
    /// Sends what waits for the line of a peer, as far as that is free. When there is more to send.
    pub(crate) fn release(&mut self, now: Now, slot: u32, egress: &mut Egress) -> Option<Instant> {
        let mut pacer = self.peers.get_mut(slot)?.pacer.take()?;
        let before = pacer.total();
        while egress.bytes() <= EGRESS_FLUSH_BYTES && egress.len() <= EGRESS_FLUSH_DATAGRAMS {
            let Some(peer) = self.peers.get(slot) else { break };
            pacer.settle(now.at, peer.limit_bps(), peer.sent.bytes);
            match pacer.next(now.at) {
                Some(Next::Repair(Repair { subscription, ssrc, seq })) => {
                    self.on_nack(now, subscription, ssrc, std::iter::once(seq), egress);
                }
                Some(Next::Media(waiting)) => self.depart(now, &mut pacer, &waiting, egress),
                None => break,
            }
        }
        self.pacing.grow(before, pacer.total());
        let due = pacer.due(now.at);
        let peer = self.peers.get_mut(slot)?;
        // Whose line is not known any more needs none.
        if !pacer.is_empty() || peer.limit_bps().is_some() {
            peer.pacer = Some(pacer);
        }
        due
    }

    /// Forgets what waits of a subscription.
    pub(crate) fn forget_waiting(&mut self, slot: u32) {
        let peer = self.subscriptions.get(slot).map(|subscription| subscription.peer);
        let peer = peer.and_then(|peer| self.peers.get_mut(peer));
        if let Some(pacer) = peer.and_then(|peer| peer.pacer.as_mut()) {
            pacer.forget(slot);
        }
    }

    /// A packet that waited is selected, numbered and sent.
    fn depart(&mut self, now: Now, pacer: &mut Pacer, waiting: &Waiting, egress: &mut Egress) {
        let slot = waiting.subscription;
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        let Some(source_slot) = subscription.publication else { return };
        let Some(publication) = self.publications.get_mut(source_slot) else { return };
        let Some(peer) = self.peers.get_mut(subscription.peer).filter(|peer| peer.is_ready())
        else {
            return self.drops.count(DropReason::SubscriberNotReady);
        };
        let (source, number) = (waiting.source, waiting.encoding);
        let encoding = publication.encodings.get(usize::from(number));
        // Its publisher began anew: nobody waits for what was before.
        let Some(encoding) = encoding.filter(|encoding| encoding.source == source) else { return };
        let kept = encoding.cache.get(waiting.seq);
        let parsed = kept.and_then(|Kept { received, peek, bytes }| {
            let packet = Packet::parse(bytes, waiting.seq, &publication.leg, peek).ok()?;
            Some((received, packet))
        });
        let Some((received, packet)) = parsed else {
            // Overwritten by what came since: what follows it cannot be shown either.
            pacer.skip(slot, now.at);
            return self.drops.count(DropReason::PacerFull);
        };
        if waiting.anew {
            subscription.restart();
        }
        let active = publication.active(now.at);
        let aligned = |from| publication.align(from, source, &packet);
        let selected = subscription.select(received, (source, number), active, &packet, aligned);
        let mut awaits = selected == Selected::AwaitKeyFrame;
        let to = (&mut *peer, &mut self.session_keys);
        let sent = match selected {
            Selected::Forward(way) => {
                let mut room = [0; DATAGRAM_BYTES];
                let packet = pad(packet, waiting.padding, &mut room);
                let times = (now.at, leaves(now, received, way));
                let kept = (&packet, Some(&encoding.cache));
                let sent = subscription.send_red(times, to, kept, way, Sending::First, egress);
                awaits |= subscription.layers.awaits_key_frame();
                sent
            }
            Selected::Fill(way) => {
                let times = (now.at, leaves(now, received, way));
                subscription.send(times, to, &packet.emptied(), way, Sending::First, egress)
            }
            Selected::HandOn | Selected::AwaitKeyFrame | Selected::Decline => Ok(()),
        };
        if matches!(selected, Selected::Forward(_) | Selected::Fill(_)) {
            pacer.left(now.at);
        }
        sent.unwrap_or_else(|reason| self.drops.count(reason));
        if awaits && !pacer.skips(slot) {
            let encoding = publication.encodings.get_mut(usize::from(number));
            encoding.into_iter().for_each(|encoding| encoding.requests.want());
            self.ask(now, source_slot, egress);
        }
    }
}

/// The time that a packet says it left at: what may be repeated as it was says when it came, as that does not change.
fn leaves(now: Now, received: Now, (route, _): (Route, Rewrite)) -> Now {
    if route.repeats { received } else { now }
}

/// The packet with the padding that makes it as long as its neighbours in a run.
fn pad<'a>(packet: Packet<'a>, padding: u8, room: &'a mut [u8]) -> Packet<'a> {
    let len = packet.payload.len();
    let Some(room) = room.get_mut(..len + usize::from(padding)).filter(|_| padding > 0) else {
        return packet;
    };
    if let Some((payload, rest)) = room.split_at_mut_checked(len) {
        payload.copy_from_slice(packet.payload);
        //= rfc3550#5.1: the last octet of the padding is its count.
        rest.last_mut().into_iter().for_each(|count| *count = padding);
    }
    Packet { padded: room, ..packet }
}
