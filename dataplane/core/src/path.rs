//! The way of a media packet through the worker.

use crate::drop::DropReason;
use crate::egress::Egress;
use crate::port::Meta;
use crate::publication::{Stream, recognise};
use crate::subscription::{Selected, Sending};
use crate::time::Now;
use crate::worker::Worker;
use strait_wire::{ext, rtp};

impl Worker {
    /// demux → unprotect → measure → for each subscription { select → rewrite → protect } → egress.
    pub(crate) fn on_rtp(
        &mut self,
        now: Now,
        meta: Meta,
        bytes: &mut [u8],
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let sender = *self.flows.get(&meta.path).ok_or(DropReason::PathUnknown)?;
        let peer = self.peers.get_mut(sender).ok_or(DropReason::PathUnknown)?;
        let bytes = peer.unprotect_rtp(bytes)?;
        peer.received.count(bytes.len());

        let stream = self.stream_of(now, sender, bytes)?;
        self.note_arrival(now, meta, sender, stream, bytes, egress);
        let publication =
            self.publications.get_mut(stream.publication).ok_or(DropReason::StreamUnknown)?;
        let packet = publication.take(now, meta, stream, bytes)?;

        let mut outcome = Err(publication.why_unsent());
        let mut key_frame_wanted = false;
        let active = publication.active(now.at);
        let source = publication.source(stream)?;
        for slot in publication.audience() {
            let Some(subscription) = self.subscriptions.get_mut(*slot) else { continue };
            let Some(peer) = self.peers.get_mut(subscription.peer).filter(|p| p.is_ready()) else {
                self.drops.count(DropReason::SubscriberNotReady);
                continue;
            };
            let aligned = |from| publication.align(from, source.0, &packet);
            match subscription.select(now, source, active, &packet, aligned) {
                Selected::Forward(way) => {
                    match subscription.send(now, peer, &packet, way, Sending::First, egress) {
                        Ok(()) => outcome = Ok(()),
                        Err(reason) => self.drops.count(reason),
                    }
                }
                Selected::AwaitKeyFrame => key_frame_wanted = true,
                Selected::Decline => {}
            }
        }
        self.after_packet(now, stream, key_frame_wanted, egress);
        outcome
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
        let stream =
            recognise(&header, publications, &peer.ended).ok_or(DropReason::StreamUnknown)?;
        self.learn(now, sender, stream, ssrc)?;
        Ok(stream)
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
        let source = self.next_source();
        let encoding = self
            .publications
            .get_mut(stream.publication)
            .and_then(|publication| publication.encodings.get_mut(stream.encoding as usize))
            .ok_or(DropReason::StreamUnknown)?;
        let peer = self.peers.get_mut(sender).ok_or(DropReason::PathUnknown)?;
        let replaced = if stream.rtx {
            std::mem::replace(&mut encoding.rtx_ssrc, ssrc)
        } else {
            if encoding.ssrc != 0 && encoding.is_active(now.at) {
                return Err(DropReason::StreamUnknown);
            }
            let replaced = encoding.ssrc;
            encoding.restart(ssrc, source);
            replaced
        };
        if replaced != 0 {
            peer.streams.remove(replaced);
            peer.forget(&[replaced]);
        }
        peer.ended.remove(ssrc);
        peer.streams.insert(ssrc, stream);
        Ok(())
    }

    /// Keeps the arrival for transport-wide feedback, and sends that when it is due.
    fn note_arrival(
        &mut self,
        now: Now,
        meta: Meta,
        sender: u32,
        stream: Stream,
        bytes: &[u8],
        egress: &mut Egress,
    ) {
        let Some(publication) = self.publications.get(stream.publication) else { return };
        let id = publication.leg.extensions.transport_cc;
        let Ok(header) = rtp::Header::parse(bytes) else { return };
        let data = (id != 0).then(|| header.extension(id)).flatten();
        let Some(seq) = data.and_then(ext::parse_transport_cc) else { return };
        let Some(peer) = self.peers.get_mut(sender) else { return };
        if peer.feedback.on_packet(meta.at, seq, header.ssrc()) {
            self.send_feedback(now, sender, egress);
        } else if let Some(at) = peer.feedback.due() {
            self.arm(sender, at);
        }
    }
}
