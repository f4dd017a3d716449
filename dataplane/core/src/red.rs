//! Redundant audio (RFC 2198) between legs that differ in it: what was lost on the way to a subscriber comes again with the
//! next packets, without anybody asking.
//!
//! A publisher's redundancy goes on to those who take it and is taken off for the others. For a subscriber who prefers it
//! to a publisher without, it is made from the packets before.

use crate::cache::Cache;
use crate::command::{Codec, CodecKind};
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::limits::{DATAGRAM_BYTES, REDUNDANT_BYTES, REDUNDANT_PACKETS};
use crate::packet::Packet;
use crate::peer::Peer;
use crate::rewrite::Rewrite;
use crate::route::{Leg, Route};
use crate::subscription::{Sending, Subscription};
use crate::time::{Instant, Now};
use strait_wire::codec::red::{self, Block};
use strait_wire::rtp;

/// By what a leg's redundant format is known.
const IDENTITY: &str = "red/48000/2";

/// What becomes of redundancy on a way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Red {
    /// Nothing.
    #[default]
    AsIs,
    /// Its blocks have this payload type on the subscriber's leg.
    Rename(u8),
    /// The packet's own payload goes on alone.
    Strip,
    /// It is made, of blocks with this payload type.
    Add(u8),
}

/// The way of one of the publisher's codecs, where redundancy of one side or the other plays a part.
pub(crate) fn route(publisher: &Leg, subscriber: &Leg, from: &Codec) -> Option<Route> {
    let opus = |leg: &Leg| leg.codecs.iter().position(|codec| codec.kind == CodecKind::Opus);
    let at_opus = opus(subscriber)?;
    let at_red = subscriber.codecs.iter().position(|codec| codec.identity == IDENTITY);
    let to_opus = subscriber.codecs.get(at_opus)?;
    let to_red = at_red.and_then(|at| subscriber.codecs.get(at));
    let (to, red) = if from.identity == IDENTITY {
        let from_opus = publisher.codecs.get(opus(publisher)?)?;
        match to_red {
            Some(to) if from_opus.pt == to_opus.pt => (to, Red::AsIs),
            Some(to) => (to, Red::Rename(to_opus.pt)),
            None => (to_opus, Red::Strip),
        }
    } else {
        // Each payload comes several times: only for those who want it so.
        let is_preferred = at_red.is_some_and(|at_red| at_red < at_opus);
        let is_opus = from.identity == to_opus.identity;
        (to_red.filter(|_| is_preferred && is_opus)?, Red::Add(to_opus.pt))
    };
    // A packet that is made could be another one when it is made again, and encrypted as if it were the same.
    let repairs = !matches!(red, Red::Add(_));
    Some(Route {
        from: from.pt,
        to: to.pt,
        to_rtx: to.rtx_pt.filter(|_| repairs),
        repeats: repairs && to.nack && to.rtx_pt.is_none(),
        kind: from.kind,
        clock_rate_hz: from.clock_rate_hz,
        red,
    })
}

impl Subscription {
    /// Whether it gets redundancy that is made here, for which packets are to be kept.
    pub(crate) fn adds_redundancy(&self) -> bool {
        self.routes.iter().any(|route| matches!(route.red, Red::Add(_)))
    }

    /// Sends a packet whose redundancy is not that of its publisher. `kept` has the packets before it.
    pub(crate) fn send_red(
        &mut self,
        times: (Instant, Now),
        peer: &mut Peer,
        (packet, kept): (&Packet<'_>, Option<&Cache>),
        way: (Route, Rewrite),
        sending: Sending,
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        if way.0.red == Red::AsIs {
            return self.send(times, peer, packet, way, sending, egress);
        }
        let mut room = [0; DATAGRAM_BYTES];
        let payload = match way.0.red {
            Red::AsIs => packet.payload,
            Red::Strip => red::primary(packet.payload).ok_or(DropReason::RtpMalformed)?,
            Red::Rename(pt) => {
                let copy = room.get_mut(..packet.payload.len()).ok_or(DropReason::RtpMalformed)?;
                copy.copy_from_slice(packet.payload);
                red::set_pts(copy, pt).ok_or(DropReason::RtpMalformed)?;
                copy
            }
            Red::Add(pt) => {
                let blocks = kept.map(|kept| earlier(kept, packet)).unwrap_or_default();
                let from = blocks.iter().take_while(|block| block.is_none()).count();
                let blocks = blocks.map(Option::unwrap_or_default);
                let blocks = blocks.get(from..).unwrap_or_default();
                let len = red::write(&mut room, pt, blocks, packet.payload);
                len.and_then(|len| room.get(..len)).ok_or(DropReason::ProtectFailed)?
            }
        };
        let packet = Packet { payload, padded: payload, ..*packet };
        self.send(times, peer, &packet, way, sending, egress)
    }
}

/// What was received of the packets right before this one, the oldest first.
fn earlier<'a>(kept: &'a Cache, packet: &Packet<'_>) -> [Option<Block<'a>>; REDUNDANT_PACKETS] {
    let mut blocks = [None; REDUNDANT_PACKETS];
    let mut bytes = packet.payload.len();
    for (back, slot) in (1..).zip(blocks.iter_mut().rev()) {
        let found = packet.seq.checked_sub(back).and_then(|seq| kept.get(seq));
        let Some(before) = found.and_then(|found| rtp::Packet::parse(found.bytes).ok()) else {
            continue;
        };
        let offset = packet.timestamp.wrapping_sub(before.timestamp());
        let timestamp_offset = u16::try_from(offset).unwrap_or(u16::MAX);
        let payload = before.payload();
        bytes += payload.len();
        if before.pt() == packet.pt
            && timestamp_offset <= red::OFFSET_MAX
            && bytes <= REDUNDANT_BYTES
        {
            *slot = Some(Block { timestamp_offset, payload });
        }
    }
    blocks
}
