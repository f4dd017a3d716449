//! What the relay asks of publishers: key frames, and packets that did not arrive.

use crate::command::Event;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::peer::Peer;
use crate::publication::{Encoding, Stream};
use crate::report::begin_feedback;
use crate::time::{Duration, Instant, Now};
use crate::worker::Worker;

impl Worker {
    /// After packets: announces the first one of a publication, and asks for what its subscribers wait for.
    pub(crate) fn after_packet(&mut self, now: Now, stream: Stream, egress: &mut Egress) {
        let Some(publication) = self.publications.get_mut(stream.publication) else { return };
        let (id, peer) = (publication.id, publication.peer);
        let first = !std::mem::replace(&mut publication.started, true);
        let Some(encoding) = publication.encodings.get_mut(stream.encoding as usize) else {
            return;
        };
        let missing = encoding.missing.due();
        let due = [encoding.requests.due(now.at), missing];
        if due.into_iter().flatten().any(|at| at <= now.at) {
            self.ask(now, stream.publication, egress);
        } else if let Some(at) = missing {
            // Of a mirror nothing waits here: what it misses is asked for when somebody says so.
            self.arm(peer, at);
        }
        if first {
            self.emit(Event::PublicationStarted { publication: id });
        }
    }

    /// A subscription starts anew: asks for the key frame that it needs, of the encoding that it will get.
    pub(crate) fn want_key_frame(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(subscription) = self.subscriptions.get(slot) else { return };
        let Some(source) = subscription.publication else { return };
        let Some(publication) = self.publications.get_mut(source) else { return };
        // Before the subscriber can take it, a key frame helps nobody.
        if !self.peers.get(subscription.peer).is_some_and(Peer::is_ready) {
            return;
        }
        if subscription.selector.is_paused() || publication.muted || !publication.has_key_frames() {
            return;
        }
        let active = publication.active(now.at);
        let Some(target) = subscription.selector.target(active) else { return };
        if subscription.selector.current() == Some(target) {
            return;
        }
        if self.show_key_frame(now, slot, egress) {
            return;
        }
        let Some(publication) = self.publications.get_mut(source) else { return };
        if let Some(encoding) = publication.encodings.get_mut(target as usize) {
            encoding.requests.want();
        }
        self.ask(now, source, egress);
    }

    /// Sends the requests of a publication that are due now, and arms the timer for those that are due later.
    pub(crate) fn ask(&mut self, now: Now, slot: u32, egress: &mut Egress) -> Option<Instant> {
        let publication = self.publications.get_mut(slot)?;
        if publication.origin.is_some() {
            return self.wish(now, slot);
        }
        let peer_slot = publication.peer;
        let peer = self.peers.get_mut(peer_slot).filter(|peer| peer.is_ready())?;
        let active = publication.active(now.at);
        let (pli, _) = publication.leg.asks_key_frames();
        let from = (publication.report_ssrc, publication.leg.reduced_size());
        let mut next: Option<Instant> = None;
        for number in 0..publication.encodings.len() {
            let is_due = |e: &Encoding| e.requests.due(now.at) == Some(now.at);
            let vain = publication.encodings.get(number).is_some_and(is_due)
                && !publication.is_awaited(number as u8, active, &self.subscriptions);
            let encoding = publication.encodings.get_mut(number).filter(|e| e.ssrc != 0);
            let Some(encoding) = encoding else { continue };
            if vain {
                encoding.requests.satisfy();
            }
            if encoding.requests.take(now.at) {
                let result = ask_key_frame(peer, egress, encoding, from, pli);
                result.unwrap_or_else(|reason| self.drops.count(reason));
            }
            if encoding.missing.is_due(now.at) {
                let result = ask_missing(now, peer, egress, encoding, from);
                result.unwrap_or_else(|reason| self.drops.count(reason));
            }
            let due = [encoding.requests.due(now.at), encoding.missing.due()];
            next = due.into_iter().chain([next]).flatten().min();
        }
        // What could not be sent now is tried again soon, not at once: time always advances.
        let next = next.map(|at| at.max(now.at + RETRY));
        if let Some(at) = next {
            self.arm(peer_slot, at);
        }
        next
    }
}

/// When a request that found no room is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(5);

fn ask_key_frame(
    peer: &mut Peer,
    egress: &mut Egress,
    encoding: &mut Encoding,
    (report_ssrc, reduced_size): (u32, bool),
    pli: bool,
) -> Result<(), DropReason> {
    encoding.key_frame_requests += 1;
    let fir_seq = if pli { 0 } else { encoding.requests.next_fir_seq() };
    peer.send_rtcp(egress, |rtcp| {
        begin_feedback(report_ssrc, reduced_size, rtcp)?;
        if pli {
            rtcp.pli(report_ssrc, encoding.ssrc)
        } else {
            rtcp.fir(report_ssrc, encoding.ssrc, fir_seq)
        }
    })
}

fn ask_missing(
    now: Now,
    peer: &mut Peer,
    egress: &mut Egress,
    encoding: &mut Encoding,
    (report_ssrc, reduced_size): (u32, bool),
) -> Result<(), DropReason> {
    let (ssrc, missing) = (encoding.ssrc, &mut encoding.missing);
    let round_trip = peer.round_trip();
    peer.send_rtcp(egress, |rtcp| {
        begin_feedback(report_ssrc, reduced_size, rtcp)?;
        rtcp.nack(report_ssrc, ssrc, missing.ask(now.at, round_trip))
    })
}
