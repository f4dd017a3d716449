//! The way of a media packet through the worker.

use crate::command::Kind;
use crate::departure::pace;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::fan_out::FanOut;
use crate::gather::{Gather, Held, Packets, bit};
use crate::limits::{EGRESS_DATAGRAMS, EGRESS_FLUSH_BYTES, GATHERED_PACKETS};
use crate::peer::ssrc_at;
use crate::port::Meta;
use crate::publication::{Carries, Stream, recognise};
use crate::red::Red;
use crate::speaker::{Place, is_loud};
use crate::subscription::{Selected, Sending};
use crate::time::{Instant, Now};
use crate::worker::Worker;
use std::ops::Range;
use strait_wire::{ext, rtp};

/// What became of the gathered packets, as sets of their places.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Somebody got it.
    forwarded: u64,
    /// Somebody needs a key frame to begin with.
    awaited: u64,
}

impl Worker {
    /// The way in: demux → unprotect → measure → gather.
    pub(crate) fn on_rtp(
        &mut self,
        now: Now,
        meta: Meta,
        bytes: &mut [u8],
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let sender = *self.flows.get(&meta.path).ok_or(DropReason::PathUnknown)?;
        let peer = self.peers.get_mut(sender).ok_or(DropReason::PathUnknown)?;
        let common = peer.keys.as_ref().is_some_and(|keys| keys.is_common());
        let sealed = if common { self.gather.keep_sealed(bytes) } else { 0..0 };
        let bytes = match peer.unprotect_rtp(now.at, bytes) {
            Err(DropReason::SrtpReplay) => {
                self.came_again(sender, bytes);
                return Err(DropReason::SrtpReplay);
            }
            opened => opened?,
        };
        peer.received.count(bytes.len());
        if peer.ice.listens(now.at) && peer.hear(now.at, meta.path, ssrc_at(bytes, 8), false) {
            self.timers.arm(&mut peer.alarm, sender, now.at);
        }

        if meta.ecn != 0 {
            peer.ecn.count(meta.ecn);
            self.ecn.count(meta.ecn);
        }
        let stream = self.stream_of(now, sender, bytes);
        self.note_arrival(now, meta, sender, stream.as_ref().ok(), bytes, egress);
        let stream = stream?;
        let result = if stream.carries == Carries::Fec {
            self.on_fec(now, stream, bytes, sealed)
        } else {
            self.admit(now, meta.at, stream, bytes, sealed, egress)
        };
        self.mend(now, meta.at, stream, egress);
        result
    }

    /// Takes a decrypted packet of a known stream in: measures it, passes it on to other workers, and gathers it.
    pub(crate) fn admit(
        &mut self,
        now: Now,
        arrived_at: Instant,
        stream: Stream,
        bytes: &mut [u8],
        sealed: Range<usize>,
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let publication =
            self.publications.get_mut(stream.publication).ok_or(DropReason::StreamUnknown)?;
        let packet = publication.take(now, arrived_at, stream, bytes)?;
        if publication.hands_on && publication.repairs {
            let encoding = publication.encodings.get_mut(stream.encoding as usize);
            let sealed = self.gather.sealed(sealed.clone());
            let encoding = encoding.filter(|_| !sealed.is_empty());
            let peek = packet.peek;
            encoding.into_iter().for_each(|e| e.sealed.insert(now, packet.seq, sealed, peek));
        }
        let source = publication.source(stream)?;
        let mirrored = !publication.mirrors.is_empty() && !publication.muted;
        if mirrored {
            let sealed = self.gather.sealed(sealed.clone());
            let lost =
                self.outbox.mirror(publication, stream.encoding, source, packet.bytes, sealed);
            self.drops.add(DropReason::MirrorFull, lost);
        }
        let level = packet.carried.audio_level.and_then(ext::AudioLevel::parse);
        // Also what nobody subscribes to: who speaks is told all the same.
        let is_heard = publication.kind == Kind::Video
            || publication.muted
            || self.listen(now.at, stream.publication, level) != Place::Held;
        let publication =
            self.publications.get(stream.publication).ok_or(DropReason::StreamUnknown)?;
        if publication.audience().is_empty() || !is_heard {
            let reason = publication.why_unsent();
            self.after_packet(now, stream, egress);
            return if mirrored { Ok(()) } else { Err(reason) };
        }
        let open = publication.kind == Kind::Video && !packet.marker && !packet.payload.is_empty();
        self.gather.hold(now, (stream, source), &packet, sealed, open)
    }

    /// Whether [`Worker::forward`] is to be called before the next turn: all frames are complete, were held long enough,
    /// or no more can be held.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_full() || self.gather.due().is_some_and(|due| due <= now)
    }

    /// Whether [`Worker::forward`] is to be called before the next datagram, which finds no room otherwise.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.gather.is_full()
    }

    /// The way out: for each subscription { for each packet { select → rewrite → protect } } → egress.
    ///
    /// Forwards what was gathered, and calls `send`, which is to empty the egress, whenever that has filled up. To be
    /// called when [`Worker::is_due`] says so, and before a command.
    pub fn forward(&mut self, now: Now, egress: &mut Egress, mut send: impl FnMut(&mut Egress)) {
        if self.gather.held().is_empty() {
            return;
        }
        // Both are put back: their memory is used again.
        let mut gather = std::mem::take(&mut self.gather);
        let mut fan_out = std::mem::take(&mut self.fan_out);
        gather.equalise();
        fan_out.plan(now.at, &gather, &self.publications, &self.subscriptions);
        let outcome = self.fan_out(now.at, &gather, &fan_out, egress, &mut send);
        self.account(now, gather.held(), outcome, egress);
        gather.clear();
        (self.gather, self.fan_out) = (gather, fan_out);
        if !self.paced.is_empty() {
            self.release_all(now, egress, send);
        }
    }

    fn fan_out(
        &mut self,
        leaves: Instant,
        gather: &Gather,
        fan_out: &FanOut,
        egress: &mut Egress,
        mut send: impl FnMut(&mut Egress),
    ) -> Outcome {
        let mut packets = [const { None }; GATHERED_PACKETS];
        for (packet, held) in packets.iter_mut().zip(gather.held()) {
            let publication = self.publications.get(held.stream.publication);
            *packet = publication.and_then(|publication| gather.packet(held, &publication.leg));
        }
        let mut outcome = Outcome::default();
        let mut handed_on = None;
        for (step, group) in fan_out.steps() {
            if egress.bytes() > EGRESS_FLUSH_BYTES
                || egress.len() + GATHERED_PACKETS > EGRESS_DATAGRAMS
            {
                send(egress);
                handed_on = None;
            }
            let Some(publication) = self.publications.get(group.publication) else { continue };
            let Some(subscription) = self.subscriptions.get_mut(step.subscription) else {
                continue;
            };
            let Some(peer) = self.peers.get_mut(step.peer).filter(|peer| peer.is_ready()) else {
                self.drops.add(DropReason::SubscriberNotReady, group.packets.count_ones().into());
                continue;
            };
            if publication.sound.place == Place::Next
                && !is_loud(&peer.publications, &self.publications)
            {
                subscription.rewriter.close();
                continue;
            }
            if peer.pacer.is_some() && subscription.waits(publication) {
                let to = (step.subscription, subscription);
                let paced = pace(leaves, peer, to, (publication, group), gather, &packets);
                outcome.forwarded |= paced.waits;
                outcome.awaited |= paced.awaits;
                self.pacing.dropped += paced.given_up;
                self.drops.add(DropReason::PacerFull, paced.given_up);
                if self.paced.last() != Some(&step.peer) {
                    self.paced.push(step.peer);
                }
                continue;
            }
            let before = (egress.len(), egress.bytes());
            let mut as_sent = 0;
            for at in Packets(group.packets) {
                let (Some(held), Some(Some(packet))) = (gather.held().get(at), packets.get(at))
                else {
                    continue;
                };
                let source = (held.source, held.stream.encoding);
                let aligned = |from| publication.align(from, held.source, packet);
                match subscription.select(held.received, source, group.active, packet, aligned) {
                    Selected::Forward(way) => {
                        let first = Sending::First;
                        let times = (leaves, held.received);
                        let result = if way.0.red == Red::AsIs {
                            subscription.send(times, peer, packet, way, first, egress)
                        } else {
                            let kept = publication.encodings.get(held.stream.encoding as usize);
                            let packet = (packet, kept.map(|encoding| &encoding.cache));
                            subscription.send_red(times, peer, packet, way, first, egress)
                        };
                        match result {
                            Ok(()) => outcome.forwarded |= bit(at),
                            Err(reason) => self.drops.count(reason),
                        }
                        if subscription.layers.awaits_key_frame() {
                            outcome.awaited |= bit(at);
                        }
                    }
                    Selected::Fill(way) => {
                        let (empty, first) = (packet.emptied(), Sending::First);
                        let times = (leaves, held.received);
                        let sent = subscription.send(times, peer, &empty, way, first, egress);
                        sent.unwrap_or_else(|reason| self.drops.count(reason));
                    }
                    Selected::HandOn => as_sent |= bit(at),
                    Selected::AwaitKeyFrame => outcome.awaited |= bit(at),
                    Selected::Decline => {}
                }
            }
            self.sent.packets += egress.len().saturating_sub(before.0) as u64;
            self.sent.bytes += egress.bytes().saturating_sub(before.1) as u64;
            if as_sent != 0 {
                match subscription.hand_on(peer, gather, as_sent, &mut handed_on, egress) {
                    Ok(traffic) => {
                        outcome.forwarded |= as_sent;
                        self.sent.add(traffic);
                    }
                    Err(reason) => self.drops.add(reason, as_sent.count_ones().into()),
                }
            }
        }
        outcome
    }

    /// Counts what went to nobody, and asks the publishers for what is missing.
    fn account(&mut self, now: Now, held: &[Held], outcome: Outcome, egress: &mut Egress) {
        let before = (egress.len(), egress.bytes());
        for (at, packet) in held.iter().enumerate() {
            let Some(publication) = self.publications.get_mut(packet.stream.publication) else {
                self.drops.count(DropReason::StreamUnknown);
                continue;
            };
            if outcome.forwarded & bit(at) == 0 {
                let reason = publication.why_unsent();
                publication.sound.held_back += u64::from(reason == DropReason::NotLoudest);
                self.drops.count(reason);
            }
            if let Some(encoding) = publication.encodings.get_mut(packet.stream.encoding as usize) {
                if outcome.awaited & bit(at) != 0 {
                    encoding.requests.want();
                }
                // Whoever waited before a key frame goes on with it.
                if packet.peek.key_frame && outcome.forwarded & bit(at) != 0 {
                    encoding.requests.satisfy();
                }
            }
            let mut later = held.iter().skip(at + 1);
            if !later.any(|later| later.stream.is_beside(packet.stream)) {
                self.after_packet(now, packet.stream, egress);
            }
        }
        self.count_sent(before, egress);
    }

    /// Finds the stream of a decrypted packet, learning its SSRC if need be.
    fn stream_of(&mut self, now: Now, sender: u32, bytes: &[u8]) -> Result<Stream, DropReason> {
        let header = rtp::Header::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
        // Signalling and tables have 0 for an SSRC that is not known yet.
        let ssrc =
            Some(header.ssrc()).filter(|ssrc| *ssrc != 0).ok_or(DropReason::StreamUnknown)?;
        let peer = self.peers.get(sender).ok_or(DropReason::PathUnknown)?;
        if let Some(stream) = peer.streams.find(ssrc) {
            return Ok(stream);
        }
        let publications = peer.publications.iter();
        let publications =
            publications.filter_map(|slot| Some((*slot, self.publications.get(*slot)?)));
        let stream = recognise(&header, publications, &peer.ended);
        let stream = stream.or_else(|| self.fec_stream_of(&peer.publications, bytes));
        let stream = stream.ok_or(DropReason::StreamUnknown)?;
        self.learn(now, sender, stream, ssrc)?;
        Ok(stream)
    }

    /// A packet came that was there before, or is too old to tell.
    fn came_again(&mut self, sender: u32, bytes: &[u8]) {
        let Ok(header) = rtp::Header::parse(bytes) else { return };
        let stream = self.peers.get(sender).and_then(|peer| peer.streams.find(header.ssrc()));
        let Some(stream) = stream else { return };
        let publication = self.publications.get_mut(stream.publication);
        let encoding = publication.and_then(|p| p.encodings.get_mut(stream.encoding as usize));
        // It was not authenticated: reports to the publisher do not count it.
        if let Some(encoding) = encoding {
            encoding.came_again(header.seq(), stream.carries);
        }
    }

    /// Assigns an SSRC to a stream. One that is in use is only replaced once it has fallen silent, so that two senders
    /// of the same MID and RID do not take turns.
    fn learn(
        &mut self,
        now: Now,
        sender: u32,
        stream: Stream,
        ssrc: u32,
    ) -> Result<(), DropReason> {
        // Two senders of one SSRC under one key use the same nonces: neither is made any use of that makes it worse.
        if self.peers.get(sender).is_some_and(|peer| self.clashes(peer, ssrc)) {
            return Err(DropReason::StreamUnknown);
        }
        let source = self.next_source();
        let encoding = self
            .publications
            .get_mut(stream.publication)
            .and_then(|publication| publication.encodings.get_mut(stream.encoding as usize))
            .ok_or(DropReason::StreamUnknown)?;
        let peer = self.peers.get_mut(sender).ok_or(DropReason::PathUnknown)?;
        let replaced = match stream.carries {
            Carries::Rtx => std::mem::replace(&mut encoding.rtx_ssrc, ssrc),
            Carries::Fec => {
                let fec = encoding.fec.as_mut().ok_or(DropReason::StreamUnknown)?;
                std::mem::replace(&mut fec.ssrc, ssrc)
            }
            Carries::Media => {
                if encoding.ssrc != 0 && encoding.is_active(now.at) {
                    return Err(DropReason::StreamUnknown);
                }
                let replaced = encoding.ssrc;
                encoding.restart(ssrc, source);
                replaced
            }
        };
        if replaced != 0 {
            peer.streams.remove(replaced);
            peer.forget(&[replaced]);
        }
        peer.ended.remove(ssrc);
        peer.streams.insert(ssrc, stream);
        Ok(())
    }

    /// Keeps the arrival for feedback to the publisher, and sends that when it is due. What belongs to no stream (yet) has
    /// travelled all the same: probes of the line come before the stream is known.
    fn note_arrival(
        &mut self,
        now: Now,
        meta: Meta,
        sender: u32,
        stream: Option<&Stream>,
        bytes: &[u8],
        egress: &mut Egress,
    ) {
        let Some(peer) = self.peers.get_mut(sender) else { return };
        let publication = |slot: &u32| self.publications.get(*slot);
        let publication = match stream {
            Some(stream) => publication(&stream.publication),
            // Whichever it will be, all streams of a transport agree on the ids (RFC 8843 section 7.1.3).
            None => peer.publications.first().and_then(publication),
        };
        let Some(publication) = publication else { return };
        let Ok(header) = rtp::Header::parse(bytes) else { return };
        let is_due = if publication.leg.ccfb() {
            let packet = (header.ssrc(), header.seq());
            peer.feedback.on_marked(meta.at, packet, meta.ecn, bytes.len())
        } else {
            let id = publication.leg.extensions.transport_cc;
            let data = (id != 0).then(|| header.extension(id)).flatten();
            let Some(seq) = data.and_then(ext::parse_transport_cc) else { return };
            peer.feedback.on_packet(meta.at, seq, header.ssrc(), bytes.len())
        };
        if is_due {
            self.send_feedback(now, sender, egress);
        } else if let Some(at) = peer.feedback.due() {
            self.arm(sender, at);
        }
    }
}
