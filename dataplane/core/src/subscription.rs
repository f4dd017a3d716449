//! An outgoing stream: what it takes of its publication, and how the packets are written for its leg.

use crate::command::{CodecKind, Kind, SubscriptionId};
use crate::display::Display;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::gather::{Gather, Packets};
use crate::layer::Layers;
use crate::limits::DATAGRAM_BYTES;
use crate::packet::{Carried, Packet};
use crate::peer::Peer;
use crate::port::Protocol;
use crate::publication::Publication;
use crate::resend::Resent;
use crate::rewrite::{Position, Rewrite, Rewriter, Source};
use crate::route::{Leg, Route};
use crate::select::{Active, Choice, Selector};
use crate::slab::Slab;
use crate::spend::Allotment;
use crate::statistics::Traffic;
use crate::template::{DESCRIPTOR_BYTES, HEADER_BYTES, Stamps, Template};
use crate::time::{Duration, Instant, Now};
use std::ops::Range;
use strait_crypt::srtp::TAG_MAX;
use strait_wire::codec::{dependency, vp8, vp9};
use strait_wire::ext::AbsSendTime;
use strait_wire::rtcp::ReportBlock;
use strait_wire::rtp;

/// The most padding that a packet can have (RFC 3550 section 5.1); its last byte says how much.
const PADDING: [u8; 255] = [0; 255];
/// The original sequence number in front of a retransmitted payload (RFC 4588 section 4).
const OSN_BYTES: usize = 2;

/// A stream towards a subscriber.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    pub(crate) peer: u32,
    pub(crate) kind: Kind,
    pub(crate) leg: Leg,
    /// Of the leg, if its headers can be laid out beforehand.
    pub(crate) template: Option<Template>,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: u32,
    /// Packets go out as they came.
    pub(crate) as_sent: bool,
    /// Its packets are told about by their own numbers (RFC 8888).
    pub(crate) told_by_name: bool,
    pub(crate) publication: Option<u32>,
    /// Of the publication's payload types, those that the leg takes.
    pub(crate) routes: Vec<Route>,
    pub(crate) selector: Selector,
    pub(crate) layers: Layers,
    pub(crate) allotment: Allotment,
    pub(crate) rewriter: Rewriter,
    pub(crate) rtx_seq: u16,
    pub(crate) sent: Traffic,
    /// What had been sent when its quality was last told.
    pub(crate) told: Traffic,
    /// Payload bytes, as sender reports count them.
    pub(crate) octets: u64,
    pub(crate) resent: u64,
    pub(crate) resent_lately: Resent,
    pub(crate) missed: u64,
    pub(crate) reported: Reported,
    pub(crate) display: Display,
}

/// What the subscriber reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reported {
    pub(crate) block: ReportBlock,
    pub(crate) round_trip: Option<Duration>,
}

/// How a packet goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// For the first time.
    First,
    /// Again as it was.
    Again,
    /// Again, wrapped in RTX.
    Rtx,
    /// The same, though nobody asked for it: to learn what the line carries.
    Probe,
}

/// What a subscription does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selected {
    /// With these payload types and numbers.
    Forward((Route, Rewrite)),
    /// Its number is due, but its layer is not sent: it goes out without payload.
    Fill((Route, Rewrite)),
    /// As it came.
    HandOn,
    AwaitKeyFrame,
    Decline,
}

impl Subscription {
    /// Decides about a packet of `source`, and gives it its numbers. `aligned` says at which outgoing timestamp sender
    /// reports put it, if it comes after a packet of the given source.
    pub(crate) fn select(
        &mut self,
        now: Now,
        (source, encoding): (Source, u8),
        active: Active,
        packet: &Packet<'_>,
        aligned: impl FnOnce((Source, u32)) -> Option<u32>,
    ) -> Selected {
        let Some(route) = self.route(packet.pt) else { return Selected::Decline };
        let ahead = self.rewriter.ahead(source, packet.seq);
        // An old key frame that arrives after a pause is not where the new start is.
        let choice = if ahead.is_none() && self.rewriter.is_late(source, packet.seq) {
            Choice::Decline
        } else {
            self.selector.choose(encoding, active, packet.peek.enters)
        };
        if self.as_sent {
            return match choice {
                Choice::Forward => {
                    // Parity has a clock of its own, and no picture.
                    if self.leg.fec.flexfec != Some(packet.pt) {
                        self.show(now, packet, packet.timestamp);
                    }
                    Selected::HandOn
                }
                Choice::AwaitKeyFrame => Selected::AwaitKeyFrame,
                Choice::Decline => Selected::Decline,
            };
        }
        let position = packet.position();
        // What most packets are: the next one of a stream that goes out whole.
        if let Some(rewrite) = ahead.filter(|rewrite| rewrite.share.is_none())
            && choice == Choice::Forward
            && self.layers.is_whole()
        {
            self.rewriter.advance(position, rewrite, now.at);
            let timestamp = packet.timestamp.wrapping_add(rewrite.offsets.timestamp);
            self.show(now, packet, timestamp);
            return Selected::Forward((route, rewrite));
        }
        if choice == Choice::Forward && self.rewriter.needs_segment(source, packet.seq) {
            // A packet without payload gives a decoder nothing to start with.
            if packet.payload.is_empty() {
                return Selected::Decline;
            }
            // Another SSRC, or a hole so long that the numbers close over it: the decoder cannot see what it misses.
            if !packet.peek.enters {
                self.restart();
                return Selected::AwaitKeyFrame;
            }
            let aligned = self.rewriter.running().and_then(aligned);
            // What is permitted depends on the encoding.
            self.aim();
            self.layers.enter(packet.timestamp);
            let (clock_rate_hz, share) = (route.clock_rate_hz, self.layers.share());
            self.rewriter.begin(source, position, now.at, clock_rate_hz, aligned, share);
        } else if choice == Choice::Forward
            && !self.layers.is_whole()
            && !packet.payload.is_empty()
            && !self.takes(packet, position, route.kind)
        {
            let awaits = self.layers.awaits_key_frame();
            return if awaits { Selected::AwaitKeyFrame } else { Selected::Decline };
        }
        // What was declined may still be due: a late packet from before a switch.
        match self.rewriter.map(source, packet.seq) {
            Some(rewrite) if !self.selector.is_paused() => {
                self.rewriter.advance(position, rewrite, now.at);
                if packet.peek.layer.is_for(rewrite.share) {
                    let timestamp = packet.timestamp.wrapping_add(rewrite.offsets.timestamp);
                    self.show(now, packet, timestamp);
                    Selected::Forward((route, rewrite))
                } else {
                    Selected::Fill((route, rewrite))
                }
            }
            _ if choice == Choice::AwaitKeyFrame => Selected::AwaitKeyFrame,
            _ => Selected::Decline,
        }
    }

    /// A packet goes out: perhaps it begins a picture.
    #[inline(always)]
    fn show(&mut self, now: Now, packet: &Packet<'_>, timestamp: u32) {
        if self.kind == Kind::Video
            && self.display.is_new(timestamp)
            && !packet.payload.is_empty()
            && let Some(encoding) = self.selector.current()
        {
            let on = (encoding, self.layers.share());
            self.display.on_picture(now.at, timestamp, on, packet.peek.key_frame);
        }
    }

    /// Whether the layer of a packet is sent, which is the newest of the running segment. If not, the numbers close.
    fn takes(&mut self, packet: &Packet<'_>, position: Position, kind: CodecKind) -> bool {
        let (layer, timestamp) = (&packet.peek.layer, packet.timestamp);
        let before = self.layers.share();
        let follows = self.rewriter.follows(packet.seq);
        // A picture begins where codec or timestamp say so; the latter are sure if nothing is missing.
        let is_new = !self.layers.is_in(timestamp) && !self.rewriter.is_in(timestamp);
        let begins = is_new && (follows || packet.peek.begins);
        self.layers.choose(layer, timestamp, begins, follows);
        if self.layers.share() != before {
            self.rewriter.cut(packet.seq, self.layers.share());
        }
        let takes = layer.is_for(self.layers.share());
        if !takes {
            // Pictures of VP8 are counted one by one; those of VP9 name others by the difference of their ids.
            let counted = position.picture.filter(|_| kind == CodecKind::Vp8);
            self.rewriter.skip(position, counted);
        }
        takes
    }

    /// Sets the layers that go out to what is preferred and permitted.
    pub(crate) fn aim(&mut self) {
        self.layers.want(self.selector.layers());
    }

    /// Whether it shows this encoding, or is to go there.
    pub(crate) fn is_on(&self, encoding: u8, active: Active) -> bool {
        let on = [self.selector.current(), self.selector.target(active)];
        !self.selector.is_paused() && on.contains(&Some(encoding))
    }

    /// The way of a payload type of the publisher's leg.
    pub(crate) fn route(&self, pt: u8) -> Option<Route> {
        self.routes.iter().find(|route| route.from == pt).copied()
    }

    /// Starts anew with the next packet that decoding can begin with.
    pub(crate) fn restart(&mut self) {
        self.selector.restart();
        self.rewriter.close();
    }

    /// Writes a packet for this leg, encrypts it and queues it to leave `at` this time. `received` is when the packet came
    /// in: with a plain repetition every byte must be as it was the first time.
    pub(crate) fn send(
        &mut self,
        (at, received): (Instant, Now),
        peer: &mut Peer,
        packet: &Packet<'_>,
        (route, rewrite): (Route, Rewrite),
        sending: Sending,
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let rtx = matches!(sending, Sending::Rtx | Sending::Probe);
        let again = sending == Sending::Again;
        // What may be repeated as it was cannot carry a number of its own.
        let number = self.number(peer).filter(|_| !route.repeats);
        let (path, protection) = peer.outgoing(self.kind)?;
        // What may be repeated as it was must not depend on its neighbours.
        let pads = sending == Sending::First && !route.repeats;
        let payload = if pads { packet.padded } else { packet.payload };
        let capacity = HEADER_BYTES + OSN_BYTES + payload.len() + TAG_MAX;
        let room = egress.reserve(capacity).ok_or(DropReason::EgressFull)?;
        let header = rtp::HeaderBuilder {
            marker: packet.marker || packet.peek.layer.ends_picture(rewrite.share),
            pt: if rtx { route.to_rtx.unwrap_or(route.to) } else { route.to },
            seq: if rtx { self.rtx_seq } else { rewrite.seq as u16 },
            timestamp: packet.timestamp.wrapping_add(rewrite.offsets.timestamp),
            ssrc: if rtx { self.rtx_ssrc } else { self.ssrc },
            padding: payload.len() > packet.payload.len(),
        };
        // Written only where it is used.
        let mut renumbered;
        let mut changed;
        let carried = match packet.carried.dependency_descriptor {
            Some(data) if rewrite.offsets.frame != 0 => {
                renumbered = [0; DESCRIPTOR_BYTES];
                changed = packet.carried;
                changed.dependency_descriptor =
                    renumber_frame(data, rewrite.offsets.frame, &mut renumbered);
                &changed
            }
            _ => &packet.carried,
        };
        let header_len = self.write_header(header, received, number, carried, room)?;

        let len = if rtx || rewrite.offsets.reach_payload() {
            // The payload is not the same for everyone: written beside the header, then encrypted in place.
            let mut at = header_len;
            if rtx {
                put(room, at, &(rewrite.seq as u16).to_be_bytes())?;
                at += OSN_BYTES;
            }
            put(room, at, payload)?;
            let end = at + packet.payload.len();
            renumber_pictures(route.kind, room.get_mut(at..end).unwrap_or_default(), rewrite);
            let len = at + payload.len();
            protection.rtp(again, room, len)?
        } else {
            protection.rtp_from(again, room, header_len, payload)?
        };
        if len > DATAGRAM_BYTES {
            return Err(DropReason::ProtectFailed);
        }

        egress.commit(path, len);
        peer.sent.count(len);
        // What is repeated under its number was told about already, or will be.
        let told = number.is_some() || (self.told_by_name && !again);
        if let Some(bandwidth) = peer.bandwidth.as_mut().filter(|_| told) {
            bandwidth.on_named(at, len, (header.ssrc, header.seq));
        }
        match sending {
            Sending::First => {
                self.sent.count(len);
                self.octets += packet.payload.len() as u64;
                peer.resend.earn(len);
            }
            Sending::Again | Sending::Rtx => self.resent += 1,
            Sending::Probe => {}
        }
        if rtx {
            self.rtx_seq = self.rtx_seq.wrapping_add(1);
        }
        Ok(())
    }

    /// Whether padding may go out on its stream of retransmissions, where no decoder sees it: also while the picture is held
    /// back, or nothing would find out that it need not be.
    pub(crate) fn takes_padding(&self) -> bool {
        let rtx = self.routes.iter().any(|route| route.to_rtx.is_some());
        // What goes out as it came has no stream of ours beside it.
        let wanted =
            self.kind == Kind::Video && !self.selector.preferences().paused && !self.as_sent;
        let told = self.leg.extensions.transport_cc != 0 || self.told_by_name;
        wanted && rtx && self.rtx_ssrc != 0 && told
    }

    /// Queues a packet of nothing but padding, about this long.
    pub(crate) fn pad(
        &mut self,
        now: Now,
        peer: &mut Peer,
        bytes: usize,
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let number = self.number(peer);
        let (path, protection) = peer.outgoing(self.kind)?;
        let room = egress.reserve(HEADER_BYTES + PADDING.len() + TAG_MAX);
        let room = room.ok_or(DropReason::EgressFull)?;
        let pt = self.routes.iter().find_map(|route| route.to_rtx);
        let header = rtp::HeaderBuilder {
            marker: false,
            pt: pt.ok_or(DropReason::ProtectFailed)?,
            seq: self.rtx_seq,
            timestamp: self.rewriter.newest().map_or(0, |(_, timestamp)| timestamp),
            ssrc: self.rtx_ssrc,
            padding: true,
        };
        let header_len = self.write_header(header, now, number, &Carried::default(), room)?;
        let len = bytes.saturating_sub(header_len + TAG_MAX).clamp(1, PADDING.len());
        let mut padding = PADDING;
        let padding = padding.get_mut(..len).unwrap_or_default();
        if let Some(count) = padding.last_mut() {
            *count = len as u8;
        }
        let len = protection.rtp_from(false, room, header_len, padding)?;
        egress.commit(path, len);
        peer.sent.count(len);
        self.rtx_seq = self.rtx_seq.wrapping_add(1);
        let told = number.is_some() || self.told_by_name;
        if let Some(bandwidth) = peer.bandwidth.as_mut().filter(|_| told) {
            bandwidth.on_named(now.at, len, (header.ssrc, header.seq));
        }
        Ok(())
    }

    /// The transport-wide number of the next packet, where that is agreed.
    #[inline]
    fn number(&self, peer: &Peer) -> Option<[u8; 2]> {
        let agreed = self.leg.extensions.transport_cc != 0;
        let bandwidth = peer.bandwidth.as_ref().filter(|_| agreed);
        bandwidth.map(|bandwidth| bandwidth.next_seq().to_be_bytes())
    }

    /// Writes a header with the extensions of the leg; its length.
    #[inline(always)]
    fn write_header(
        &self,
        header: rtp::HeaderBuilder,
        received: Now,
        number: Option<[u8; 2]>,
        carried: &Carried<'_>,
        room: &mut [u8],
    ) -> Result<usize, DropReason> {
        let stamps = Stamps { send_time: AbsSendTime::from_ntp(received.ntp).bytes(), number };
        let ids = &self.leg.extensions;
        let template = self.template.as_ref();
        if let Some(len) = template.and_then(|t| t.write(header, stamps, ids, carried, room)) {
            return Ok(len);
        }
        let own = [
            (ids.mid, Some(self.leg.mid.as_bytes())),
            (ids.abs_send_time, Some(stamps.send_time.as_slice())),
            (ids.transport_cc, stamps.number.as_ref().map(<[u8; 2]>::as_slice)),
        ];
        let own = own.iter().filter(|(id, _)| *id != 0);
        let own = own.filter_map(|(id, data)| Some((*id, (*data)?)));
        header
            .write(&[], own.chain(carried.agreed(ids)), room)
            .map_err(|_| DropReason::ProtectFailed)
    }

    /// Queues packets as they came. What the subscriber before got is repeated without another copy.
    pub(crate) fn hand_on(
        &mut self,
        peer: &mut Peer,
        gather: &Gather,
        packets: u64,
        before: &mut Option<HandedOn>,
        egress: &mut Egress,
    ) -> Result<Traffic, DropReason> {
        let path = peer.ice.path_of(self.kind).ok_or(DropReason::SubscriberNotReady)?;
        let again = before.as_ref().filter(|before| before.packets == packets);
        let again = again.filter(|_| path.protocol == Protocol::Udp);
        let traffic = match again {
            Some(HandedOn { runs, .. }) => {
                let repeated = egress.repeat(runs.clone(), path);
                let (packets, bytes) = repeated.ok_or(DropReason::EgressFull)?;
                Traffic { packets: packets as u64, bytes: bytes as u64 }
            }
            None => {
                let mut traffic = Traffic::default();
                let begun = egress.begin();
                for held in Packets(packets).filter_map(|at| gather.held().get(at)) {
                    // A mirror may have got it without: it is lost, and the others are not.
                    let Some(bytes) = gather.as_sent(held) else { continue };
                    if !egress.push(path, bytes) {
                        return Err(DropReason::EgressFull);
                    }
                    traffic.count(bytes.len());
                }
                let runs = begun..egress.begin();
                if path.protocol == Protocol::Udp {
                    *before = Some(HandedOn { packets, runs });
                }
                traffic
            }
        };
        peer.sent.add(traffic);
        peer.resend.earn(traffic.bytes as usize);
        self.sent.add(traffic);
        Ok(traffic)
    }

    /// Queues a packet again as it came.
    pub(crate) fn hand_on_again(
        &mut self,
        peer: &mut Peer,
        sealed: &[u8],
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let path = peer.ice.path_of(self.kind).ok_or(DropReason::SubscriberNotReady)?;
        peer.resend.spend(sealed.len())?;
        if !egress.push(path, sealed) {
            return Err(DropReason::EgressFull);
        }
        peer.sent.count(sealed.len());
        self.resent += 1;
        Ok(())
    }

    /// Whether it sends from this SSRC, as the subscriber knows it.
    pub(crate) fn sends(&self, ssrc: u32, publications: &Slab<Publication>) -> bool {
        if !self.as_sent {
            return self.ssrc == ssrc || (ssrc != 0 && self.rtx_ssrc == ssrc);
        }
        let publication = self.publication.and_then(|slot| publications.get(slot));
        let encodings = publication.map(|publication| publication.encodings.as_slice());
        encodings
            .unwrap_or_default()
            .iter()
            .any(|e| ssrc != 0 && [e.ssrc, e.rtx_ssrc].contains(&ssrc))
    }
}

/// Which packets were queued as they came, and where.
#[derive(Clone, Debug)]
pub(crate) struct HandedOn {
    packets: u64,
    runs: Range<usize>,
}

fn put(room: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), DropReason> {
    let end = at.checked_add(bytes.len()).ok_or(DropReason::ProtectFailed)?;
    room.get_mut(at..end).ok_or(DropReason::ProtectFailed)?.copy_from_slice(bytes);
    Ok(())
}

/// Moves picture id, TL0PICIDX and KEYIDX in place, each modulo its width.
fn renumber_pictures(kind: CodecKind, payload: &mut [u8], rewrite: Rewrite) {
    let offsets = rewrite.offsets;
    let moved = |picture: Option<u16>, tl0: Option<u8>| {
        (
            picture.unwrap_or(0).wrapping_add(offsets.picture),
            tl0.unwrap_or(0).wrapping_add(offsets.tl0),
        )
    };
    match kind {
        CodecKind::Vp8 => {
            if let Some(d) = vp8::Descriptor::parse(payload) {
                let (picture, tl0) = moved(d.picture_id.map(|id| id.value()), d.tl0_pic_idx);
                let key_idx = d.key_idx.unwrap_or(0).wrapping_add(offsets.key_idx);
                d.rewrite(payload, picture, tl0, key_idx);
            }
        }
        CodecKind::Vp9 => {
            if let Some(d) = vp9::Descriptor::parse(payload) {
                let (picture, tl0) = moved(d.picture_id.map(|id| id.value()), d.tl0_pic_idx);
                d.rewrite(payload, picture, tl0);
            }
        }
        _ => {}
    }
}

/// The dependency descriptor with another frame number, in `room`.
fn renumber_frame<'a>(data: &[u8], offset: u16, room: &'a mut [u8]) -> Option<&'a [u8]> {
    let room = room.get_mut(..data.len())?;
    room.copy_from_slice(data);
    dependency::renumber(room, offset)?;
    Some(room)
}
