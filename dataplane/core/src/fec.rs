//! Forward error correction of publishers: what they lost on the way here is had from the rest, without asking for it.
//!
//! Parity protects packets as the publisher sent them, and goes on to subscribers who get them so. Others get them under
//! other numbers and with other header extensions, so that it would give them something else: for them it ends here, and
//! they ask the relay for what they miss.

use crate::cache::Cache;
use crate::command::{Codec, CodecKind};
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::limits::{CACHE_PACKETS_VIDEO, DATAGRAM_BYTES, FEC_PACKETS};
use crate::packet::Packet;
use crate::peek::Peek;
use crate::publication::{Carries, Encoding, Publication, Stream};
use crate::red::Red;
use crate::rewrite::Source;
use crate::route::{Leg, Route};
use crate::sequence::Window;
use crate::statistics::FecStatistics;
use crate::time::{Instant, Now};
use crate::worker::Worker;
use std::ops::Range;
use strait_wire::codec::fec::{PROTECTED_MAX, Repair};
use strait_wire::rtp;

/// By what a leg's formats are known.
const FLEXFEC: &str = "flexfec-03/90000/1";
const ULPFEC: &str = "ulpfec/90000/1";
const RED: &str = "red/90000/1";

/// What a leg agreed to, besides its codecs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreed {
    /// FlexFEC, on an SSRC of its own.
    pub(crate) flexfec: Option<u8>,
    /// Blocks (RFC 2198) that hold either the payload of a codec or ULPFEC, in the stream itself.
    pub(crate) red: Option<Codec>,
    /// ULPFEC, in such blocks.
    ulpfec: Option<u8>,
}

impl Agreed {
    /// Takes the formats out of a leg's codecs.
    pub(crate) fn take_from(codecs: &mut Vec<Codec>) -> Self {
        let mut take = |identity| {
            let at = codecs.iter().position(|codec| codec.identity == identity)?;
            Some(codecs.remove(at))
        };
        let (flexfec, ulpfec, red) = (take(FLEXFEC), take(ULPFEC), take(RED));
        Self { flexfec: flexfec.map(|codec| codec.pt), red, ulpfec: ulpfec.map(|codec| codec.pt) }
    }

    /// Whether there is any.
    pub(crate) fn is_agreed(&self) -> bool {
        self.flexfec.is_some() || self.ulpfec.is_some()
    }

    /// Takes the block out of a packet of the payload type [`Agreed::red`], in place, and returns the new length. One of
    /// ULPFEC, which `keep` is given, leaves a packet without payload, so that its number is not missed.
    pub(crate) fn unwrap(
        &self,
        bytes: &mut [u8],
        media_pt: u8,
        keep: impl FnOnce(&[u8]),
    ) -> Result<usize, DropReason> {
        let packet = rtp::Packet::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
        let (payload, has_padding) = (packet.payload_range(), packet.has_padding());
        let Some((block, content)) = packet.payload().split_first() else {
            // Nothing but padding.
            rtp::set_pt(bytes, media_pt).ok_or(DropReason::RtpMalformed)?;
            return Ok(bytes.len());
        };
        // Several blocks would be of pictures before, which nobody sends twice.
        let pt = Some(*block).filter(|block| *block < 0x80).ok_or(DropReason::RtpMalformed)?;
        let len = if self.ulpfec == Some(pt) {
            keep(content);
            payload.start
        } else {
            bytes.copy_within(payload.start + 1..payload.end, payload.start);
            payload.end - 1
        };
        let pt = if self.ulpfec == Some(pt) { media_pt } else { pt };
        rtp::set_pt(bytes, pt).ok_or(DropReason::RtpMalformed)?;
        if has_padding {
            rtp::set_padding(bytes, false).ok_or(DropReason::RtpMalformed)?;
        }
        Ok(len)
    }
}

/// The way of FlexFEC to a subscriber who gets packets as they came, if both legs have it.
pub(crate) fn route(publisher: &Leg, subscriber: &Leg) -> Option<Route> {
    let pt = publisher.fec.flexfec.filter(|pt| subscriber.fec.flexfec == Some(*pt))?;
    Some(Route {
        from: pt,
        to: pt,
        to_rtx: None,
        repeats: false,
        kind: CodecKind::Other,
        clock_rate_hz: 90_000,
        red: Red::AsIs,
    })
}

/// The forward error correction of an encoding.
#[derive(Debug, Default)]
pub(crate) struct Fec {
    /// Of FlexFEC; 0 until learned, or none.
    pub(crate) ssrc: u32,
    pub(crate) statistics: FecStatistics,
    /// What the worker's own have of it.
    told: FecStatistics,
    /// Those that protect more than one packet that did not come; memory is taken as they do.
    waiting: Vec<Waiting>,
    /// Which of the last packets came by retransmission: their header extensions are not those that were protected.
    resent: [u64; RESENT_WORDS],
}

const RESENT_WORDS: usize = CACHE_PACKETS_VIDEO / 64;
const _: () = assert!(CACHE_PACKETS_VIDEO.is_multiple_of(64) && PROTECTED_MAX <= 128);

/// A repair packet.
#[derive(Debug)]
struct Waiting {
    /// The first of the packets that it protects, by the window's numbers.
    first: u64,
    mask: u128,
    /// Those of them that did not come; none: its place is free.
    missing: u128,
    is_flexfec: bool,
    len: usize,
    bytes: [u8; DATAGRAM_BYTES],
}

impl Waiting {
    /// The place of a packet in the masks.
    fn bit(&self, seq: u64) -> u128 {
        let shift = seq.checked_sub(self.first).and_then(|shift| u32::try_from(shift).ok());
        shift.and_then(|shift| 1_u128.checked_shl(shift)).unwrap_or_default()
    }

    fn repair(&self) -> Option<Repair<'_>> {
        let payload = self.bytes.get(..self.len)?;
        if self.is_flexfec { Repair::parse_flexfec(payload) } else { Repair::parse_ulpfec(payload) }
    }
}

impl Fec {
    /// Takes the payload of a repair packet in. `ssrc` is that of the media.
    fn take(
        &mut self,
        payload: &[u8],
        is_flexfec: bool,
        (ssrc, window): (u32, &Window),
    ) -> Result<(), DropReason> {
        self.statistics.packets += 1;
        let repair = if is_flexfec {
            Repair::parse_flexfec(payload).filter(|repair| repair.ssrc == Some(ssrc))
        } else {
            Repair::parse_ulpfec(payload)
        };
        let repair = repair.ok_or(DropReason::FecMalformed)?;
        let first = window.newest().map(|_| window.extend(repair.base));
        let Some(first) = first.filter(|_| payload.len() <= DATAGRAM_BYTES) else { return Ok(()) };
        let is_missing =
            |bit: &u32| repair.mask >> bit & 1 != 0 && !window.has(first + u64::from(*bit));
        let missing =
            (0..PROTECTED_MAX as u32).filter(is_missing).fold(0, |all, bit| all | 1 << bit);
        if missing == 0 {
            return Ok(());
        }
        let Some(slot) = self.room() else { return Ok(()) };
        (slot.first, slot.mask, slot.missing) = (first, repair.mask, missing);
        (slot.is_flexfec, slot.len) = (is_flexfec, payload.len());
        if let Some(room) = slot.bytes.get_mut(..payload.len()) {
            room.copy_from_slice(payload);
        }
        Ok(())
    }

    /// A free place, if need be that of the oldest.
    fn room(&mut self) -> Option<&mut Waiting> {
        let free = self.waiting.iter().position(|waiting| waiting.missing == 0);
        if free.is_none() && self.waiting.len() < FEC_PACKETS {
            self.waiting.push(Waiting {
                first: 0,
                mask: 0,
                missing: 0,
                is_flexfec: false,
                len: 0,
                bytes: [0; DATAGRAM_BYTES],
            });
            return self.waiting.last_mut();
        }
        match free {
            Some(free) => self.waiting.get_mut(free),
            None => self.waiting.iter_mut().min_by_key(|waiting| waiting.first),
        }
    }

    /// A packet of the encoding came, as it was sent or by retransmission.
    pub(crate) fn arrived(&mut self, seq: u64, resent: bool) {
        let (word, bit) = place(seq);
        if let Some(word) = self.resent.get_mut(word) {
            *word = if resent { *word | bit } else { *word & !bit };
        }
        for waiting in &mut self.waiting {
            waiting.missing &= !waiting.bit(seq);
        }
    }

    /// Whether a packet may be had.
    fn is_ready(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.missing.is_power_of_two())
    }

    /// One of the packets that can be had, whole, in `out`; its length.
    fn restore(&mut self, ssrc: u32, cache: &Cache, out: &mut [u8]) -> Option<usize> {
        loop {
            let mut waiting = self.waiting.iter_mut();
            let waiting = waiting.find(|waiting| waiting.missing.is_power_of_two())?;
            let missing = std::mem::take(&mut waiting.missing);
            let (first, others) = (waiting.first, waiting.mask & !missing);
            let seq = first + u64::from(missing.trailing_zeros());
            let of = |bit: u32| first + u64::from(bit);
            let others = (0..u128::BITS).filter(|bit| others >> bit & 1 != 0).map(of);
            let resent = &self.resent;
            let as_sent = |seq: u64| {
                let (word, bit) = place(seq);
                let is_resent = resent.get(word).is_some_and(|word| word & bit != 0);
                cache.get(seq).filter(|_| !is_resent)
            };
            if others.clone().any(|seq| as_sent(seq).is_none()) {
                continue;
            }
            let packets = others.filter_map(as_sent).map(|kept| kept.bytes);
            let repair = waiting.repair();
            let len = repair.and_then(|repair| repair.restore((ssrc, seq as u16), packets, out));
            if len.is_some() {
                return len;
            }
        }
    }

    /// Another source: what waited says nothing about it.
    pub(crate) fn restart(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.missing = 0);
        self.resent = [0; RESENT_WORDS];
    }

    /// Gives the memory back, while nobody subscribes.
    pub(crate) fn rest(&mut self) {
        self.waiting = Vec::new();
    }
}

fn place(seq: u64) -> (usize, u64) {
    let at = seq % CACHE_PACKETS_VIDEO as u64;
    ((at / 64) as usize, 1 << (at % 64))
}

impl Encoding {
    /// Takes the payload of a repair packet in; one that cannot be read is counted.
    pub(crate) fn protect(&mut self, payload: &[u8], is_flexfec: bool) -> Result<(), DropReason> {
        let of = (self.ssrc, &self.window);
        let fec = self.fec.as_mut().ok_or(DropReason::PayloadTypeUnknown)?;
        fec.take(payload, is_flexfec, of)
    }
}

impl Publication {
    /// The encoding that a FlexFEC packet protects, by the SSRC in its payload.
    fn protected(&self, header: &rtp::Header<'_>, payload: &[u8]) -> Option<u8> {
        self.leg.fec.flexfec.filter(|pt| *pt == header.pt())?;
        let ssrc = Repair::parse_flexfec(payload)?.ssrc.filter(|ssrc| *ssrc != 0)?;
        let at = self.encodings.iter().position(|encoding| encoding.ssrc == ssrc)?;
        u8::try_from(at).ok()
    }
}

impl Worker {
    /// The stream of a FlexFEC packet whose SSRC is not known yet.
    pub(crate) fn fec_stream_of(&self, publications: &[u32], bytes: &[u8]) -> Option<Stream> {
        let packet = rtp::Packet::parse(bytes).ok()?;
        publications.iter().find_map(|slot| {
            let publication = self.publications.get(*slot)?;
            let encoding = publication.protected(&packet, packet.payload())?;
            Some(Stream { publication: *slot, encoding, carries: Carries::Fec })
        })
    }

    /// Takes a FlexFEC packet in, and gathers it for those who get packets as they came.
    pub(crate) fn on_fec(
        &mut self,
        now: Now,
        stream: Stream,
        bytes: &[u8],
        sealed: Range<usize>,
    ) -> Result<(), DropReason> {
        let packet = rtp::Packet::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
        let publication =
            self.publications.get_mut(stream.publication).ok_or(DropReason::StreamUnknown)?;
        if publication.leg.fec.flexfec != Some(packet.pt()) {
            return Err(DropReason::PayloadTypeUnknown);
        }
        // Without subscribers nothing is kept that it could be added to.
        if !publication.repairs {
            return Err(publication.why_unsent());
        }
        let encoding = publication.encodings.get_mut(usize::from(stream.encoding));
        let encoding = encoding.ok_or(DropReason::StreamUnknown)?;
        if !publication.hands_on {
            return encoding.protect(packet.payload(), true).and(Err(DropReason::FecEnds));
        }
        // What is restored cannot be sealed as it was, and would keep out the original if that was only slow: those who
        // get packets as they came get parity so, too, and mend what they miss themselves.
        encoding.fec.iter_mut().for_each(|fec| fec.statistics.packets += 1);
        if publication.muted {
            return Err(DropReason::PublicationMuted);
        }
        let packet = Packet::parse(bytes, packet.seq().into(), &publication.leg, Peek::default())?;
        // Its numbers are none of the encoding's source.
        self.gather.hold(now, (stream, Source::default()), &packet, sealed, false)
    }

    /// After a packet: takes in what repair packets give back of the encoding by now.
    #[inline]
    pub(crate) fn mend(
        &mut self,
        now: Now,
        arrived_at: Instant,
        stream: Stream,
        egress: &mut Egress,
    ) {
        let publication = self.publications.get(stream.publication);
        let encoding = publication.and_then(|p| p.encodings.get(usize::from(stream.encoding)));
        if encoding.is_some_and(|encoding| encoding.fec.is_some()) {
            self.mend_now(now, arrived_at, stream, egress);
        }
    }

    #[inline(never)]
    fn mend_now(&mut self, now: Now, arrived_at: Instant, stream: Stream, egress: &mut Egress) {
        // Each gives back one at most, and what finds no room to wait stays for the next packet.
        for _ in 0..=FEC_PACKETS {
            let publication = self.publications.get_mut(stream.publication);
            let encoding =
                publication.and_then(|p| p.encodings.get_mut(usize::from(stream.encoding)));
            let Some(encoding) = encoding else { return };
            let Some(fec) = encoding.fec.as_mut() else { return };
            self.fec.add(fec.statistics.since(fec.told));
            fec.told = fec.statistics;
            if !fec.is_ready() || self.gather.is_full() {
                return;
            }
            let mut room = [0; DATAGRAM_BYTES];
            let Some(len) = fec.restore(encoding.ssrc, &encoding.cache, &mut room) else { return };
            let restored = Stream { carries: Carries::Fec, ..stream };
            let bytes = room.get_mut(..len).unwrap_or_default();
            let taken = self.admit(now, arrived_at, restored, bytes, 0..0, egress);
            taken.unwrap_or_else(|reason| self.drops.count(reason));
        }
    }
}
