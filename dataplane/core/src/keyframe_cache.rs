//! What a joiner is shown at once: the last key frame of an encoding and what followed it, out of the packets that are kept
//! for retransmission anyway. The publisher is not asked, however many join.

use crate::cache::Kept;
use crate::departure::enqueue;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::limits::{
    EGRESS_BYTES, EGRESS_DATAGRAMS, KEY_FRAME_AGE, KEY_FRAME_BYTES, KEY_FRAME_PACKETS,
    KEY_FRAME_SHARE_MS,
};
use crate::packet::Packet;
use crate::publication::Encoding;
use crate::subscription::{Selected, Sending};
use crate::time::{Instant, Now};
use crate::worker::Worker;
use std::ops::RangeInclusive;

/// Where the last key frame of an encoding begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastKeyFrame(Option<Start>);

#[derive(Clone, Copy, Debug)]
struct Start {
    seq: u64,
    timestamp: u32,
    at: Instant,
}

impl LastKeyFrame {
    /// Takes note of a packet. Of one picture the first one counts: parameter sets may stand before it.
    pub(crate) fn note(&mut self, now: Instant, packet: &Packet<'_>) {
        if !packet.peek.key_frame {
            return;
        }
        match &mut self.0 {
            Some(start) if start.timestamp == packet.timestamp => {
                start.seq = start.seq.min(packet.seq);
            }
            Some(start) if packet.seq < start.seq => {}
            start => {
                *start = Some(Start { seq: packet.seq, timestamp: packet.timestamp, at: now });
            }
        }
    }

    /// It is not to be shown any more.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Encoding {
    /// The packets to show to somebody who was sent the last packet at `sent_at`, before packet `end`: at most so many
    /// bytes. `None` when the key frame is old, not whole, or not kept: then another is to be asked for.
    fn burst(
        &self,
        now: Instant,
        sent_at: Option<Instant>,
        end: u64,
        bytes_max: usize,
    ) -> Option<RangeInclusive<u64>> {
        let start = self.last_key_frame.0?;
        // A picture from before what was seen last would turn time back.
        let is_news = sent_at.is_none_or(|at| at < start.at);
        let last = self.window.newest()?.min(end.saturating_sub(1));
        let count = (last + 1).checked_sub(start.seq)?;
        if !is_news || now.since(start.at) > KEY_FRAME_AGE || count > KEY_FRAME_PACKETS {
            return None;
        }
        let (mut bytes, mut begun) = (0, false);
        for seq in start.seq..=last {
            match self.cache.get(seq) {
                Some(kept) => {
                    bytes += kept.bytes.len();
                    begun |= kept.timestamp() != Some(start.timestamp);
                }
                // After the key frame it is as with every loss: it is asked for, and comes when it comes.
                None if begun && !self.window.has(seq) => {}
                None => return None,
            }
        }
        (count > 0 && bytes <= bytes_max).then_some(start.seq..=last)
    }
}

impl Kept<'_> {
    fn timestamp(&self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.bytes.get(4..)?.first_chunk()?))
    }
}

impl Worker {
    /// Shows a subscription that begins the last key frame of the encoding that it gets, and what followed. Whether there
    /// was one to show.
    pub(crate) fn show_key_frame(&mut self, now: Now, slot: u32, egress: &mut Egress) -> bool {
        let shown = self.try_show_key_frame(now, slot, egress);
        shown.is_some()
    }

    fn try_show_key_frame(&mut self, now: Now, slot: u32, egress: &mut Egress) -> Option<()> {
        let subscription = self.subscriptions.get_mut(slot)?;
        if subscription.as_sent || subscription.selector.current().is_some() {
            return None;
        }
        let publication = self.publications.get_mut(subscription.publication?)?;
        let peer = self.peers.get_mut(subscription.peer)?;
        let active = publication.active(now.at);
        let target = subscription.selector.target(active)?;
        let encoding = publication.encodings.get(usize::from(target))?;
        let source = encoding.source;
        // What is held goes out with the others', in its turn.
        let held = self.gather.held().iter().filter(|held| held.source == source);
        let end = held.map(|held| held.seq).min().unwrap_or(u64::MAX);
        let room = (EGRESS_BYTES / 2).saturating_sub(egress.bytes()).min(KEY_FRAME_BYTES);
        let budget = peer.limit_bps().map(|bps| bps.saturating_mul(KEY_FRAME_SHARE_MS) / 8000);
        let room = budget.map_or(room, |bytes| room.min(bytes as usize));
        let sent_at = subscription.rewriter.sent_at();
        let burst = encoding.burst(now.at, sent_at, end, room)?;
        if egress.len() + burst.clone().count() > EGRESS_DATAGRAMS / 2 {
            return None;
        }
        // All at once is what a line that is known cannot take: it waits, and instead of what waited.
        let waits = subscription.waits(publication);
        let pacer = peer.pacer.as_ref().filter(|_| waits);
        if pacer.is_some_and(|pacer| burst.clone().count() > pacer.room_instead_of(slot)) {
            return None;
        }
        let mut pacer = peer.pacer.take_if(|_| waits);
        if let Some(pacer) = &mut pacer {
            let (first, forgotten) = pacer.begin(slot, now.at);
            self.drops.add(DropReason::PacerForgotten, forgotten);
            if first.is_some() {
                subscription.give_up(first);
            }
        }
        for seq in burst {
            let Some(Kept { received, peek, bytes }) = encoding.cache.get(seq) else { continue };
            let Ok(packet) = Packet::parse(bytes, seq, &publication.leg, peek) else { continue };
            let source = (source, target);
            if let Some(pacer) = &mut pacer {
                let to = (slot, &mut *subscription, &*publication, active);
                enqueue(now.at, pacer, to, source, received, &packet);
                continue;
            }
            let aligned = |from| publication.align(from, source.0, &packet);
            let selected = subscription.select(received, source, active, &packet, aligned);
            let (packet, way) = match selected {
                Selected::Forward(way) => (packet, way),
                Selected::Fill(way) => (packet.emptied(), way),
                Selected::HandOn | Selected::AwaitKeyFrame | Selected::Decline => continue,
            };
            let times = (now.at, received);
            let sent = subscription.send(times, peer, &packet, way, Sending::First, egress);
            sent.unwrap_or_else(|reason| self.drops.count(reason));
        }
        if pacer.is_some() {
            peer.pacer = pacer;
            self.timers.arm(&mut peer.alarm, subscription.peer, now.at);
        }
        if let Some(encoding) = publication.encodings.get_mut(usize::from(target)) {
            encoding.key_frames_shown += 1;
        }
        Some(())
    }
}
