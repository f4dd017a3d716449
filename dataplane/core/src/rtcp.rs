//! RTCP from peers: every leg ends here, nothing is passed through.

use crate::drop::DropReason;
use crate::egress::Egress;
use crate::limits::NACKED_PACKETS;
use crate::measure::SenderInfo;
use crate::packet::Packet;
use crate::port::Meta;
use crate::subscription::{Reported, Sending, Subscription};
use crate::time::{Duration, Now};
use crate::worker::Worker;
use strait_wire::rtcp::{self, ReportBlock};

impl Worker {
    /// Takes one compound in. Each packet counts for itself: one that cannot be read does not spoil the others.
    pub(crate) fn on_rtcp(
        &mut self,
        now: Now,
        meta: Meta,
        bytes: &mut [u8],
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let slot = *self.flows.get(&meta.path).ok_or(DropReason::PathUnknown)?;
        let peer = self.peers.get_mut(slot).ok_or(DropReason::PathUnknown)?;
        let bytes = peer.unprotect_rtcp(bytes)?;
        peer.received.count(bytes.len());
        let mut result = Ok(());
        for packet in rtcp::packets(bytes) {
            let Ok(packet) = packet else {
                result = Err(DropReason::RtcpMalformed);
                continue;
            };
            match packet {
                rtcp::Packet::SenderReport(report) => {
                    self.on_sender_report(now, slot, &report);
                    report.reports().for_each(|block| self.on_report(now, slot, block));
                }
                rtcp::Packet::ReceiverReport(report) => {
                    report.reports().for_each(|block| self.on_report(now, slot, block));
                }
                rtcp::Packet::Nack(nack) => {
                    // Retransmissions are not sent again; their numbers would be taken for those of the media.
                    let subscription = self.subscription_of(slot, nack.media_ssrc).filter(|s| {
                        self.subscriptions.get(*s).is_some_and(|s| s.ssrc == nack.media_ssrc)
                    });
                    if let Some(subscription) = subscription {
                        let seqs = nack.seqs().take(NACKED_PACKETS);
                        self.on_nack(now, subscription, seqs, egress);
                    }
                }
                rtcp::Packet::Pli(pli) => {
                    self.on_key_frame_request(now, slot, pli.media_ssrc, egress);
                }
                rtcp::Packet::Fir(fir) => {
                    for entry in fir.entries() {
                        self.on_key_frame_request(now, slot, entry.ssrc, egress);
                    }
                }
                rtcp::Packet::Bye(bye) => bye.ssrcs().for_each(|ssrc| self.on_bye(slot, ssrc)),
                // Descriptions say nothing that signalling did not; estimates and extended reports are not used yet.
                rtcp::Packet::SourceDescription(_)
                | rtcp::Packet::TransportCc(_)
                | rtcp::Packet::Remb(_)
                | rtcp::Packet::ExtendedReport(_)
                | rtcp::Packet::Other(_) => {}
            }
        }
        result
    }

    fn on_sender_report(&mut self, now: Now, slot: u32, report: &rtcp::SenderReport<'_>) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(stream) = peer.streams.find(report.ssrc).filter(|stream| !stream.rtx) else {
            return;
        };
        peer.clock.observe(now, report.ntp);
        let publication = self.publications.get_mut(stream.publication);
        let encoding = publication.and_then(|p| p.encodings.get_mut(stream.encoding as usize));
        if let Some(encoding) = encoding {
            encoding.reception.on_sender_report(SenderInfo {
                ntp: report.ntp,
                timestamp: report.rtp_timestamp,
                at: now.at,
            });
        }
    }

    /// What a subscriber says about a stream of ours.
    fn on_report(&mut self, now: Now, slot: u32, block: ReportBlock) {
        let Some(subscription) = self.subscription_of(slot, block.ssrc) else { return };
        let Some(subscription) = self.subscriptions.get_mut(subscription) else { return };
        if block.ssrc != subscription.ssrc {
            return;
        }
        //= rfc3550#6.4.1: round trip = arrival - delay since last SR - last SR, each in the middle 32 bits of NTP.
        let middle = (now.ntp >> 16) as u32;
        let trip = middle.wrapping_sub(block.delay_since_last_sr).wrapping_sub(block.last_sr);
        let answered = block.last_sr != 0 && trip < ROUND_TRIP_MAX;
        let trip = answered.then(|| Duration::from_micros((u64::from(trip) * 1_000_000) >> 16));
        let round_trip = trip.or(subscription.reported.round_trip);
        subscription.reported = Reported { block, round_trip };
    }

    /// Answers from the cache, and asks the publisher for what it never sent us.
    fn on_nack(
        &mut self,
        now: Now,
        slot: u32,
        seqs: impl Iterator<Item = u16>,
        egress: &mut Egress,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        let Some(source_slot) = subscription.publication else { return };
        let Some(publication) = self.publications.get_mut(source_slot) else { return };
        let Some(peer) = self.peers.get_mut(subscription.peer) else { return };
        let nack = publication.nack();
        for seq in seqs {
            let origin = subscription.rewriter.origin(seq);
            let Some((source, seq)) = origin else { continue };
            let Some(encoding) = publication.encodings.iter_mut().find(|e| e.source == source)
            else {
                subscription.missed += 1;
                continue;
            };
            let Some((received, bytes)) = encoding.cache.get(seq) else {
                subscription.missed += 1;
                if nack && !encoding.window.has(seq) {
                    encoding.missing.want(seq, now.at);
                }
                continue;
            };
            let Ok(packet) = Packet::parse(bytes, seq, &publication.leg) else { continue };
            let Some(route) = subscription.route(packet.pt) else { continue };
            let Some(rewrite) = subscription.rewriter.map(source, seq) else { continue };
            let rtx = subscription.rtx_ssrc != 0 && route.to_rtx.is_some();
            let (sending, received) =
                if rtx { (Sending::Rtx, now) } else { (Sending::Again, received) };
            let result = peer.resend.spend(bytes.len()).and_then(|()| {
                subscription.send(received, peer, &packet, (route, rewrite), sending, egress)
            });
            result.unwrap_or_else(|reason| self.drops.count(reason));
        }
        self.ask(now, source_slot, egress);
    }

    fn on_key_frame_request(&mut self, now: Now, slot: u32, ssrc: u32, egress: &mut Egress) {
        let Some(slot) = self.subscription_of(slot, ssrc) else { return };
        let Some(subscription) = self.subscriptions.get(slot) else { return };
        let Some(source) = subscription.publication else { return };
        let Some(publication) = self.publications.get_mut(source) else { return };
        // One that is not yet shown anything is served by the wish of its selection.
        let Some(current) = subscription.selector.current() else { return };
        if let Some(encoding) = publication.encodings.get_mut(current as usize) {
            encoding.requests.want();
        }
        self.ask(now, source, egress);
    }

    /// A source of the peer ends: its subscribers go to another encoding at once.
    fn on_bye(&mut self, slot: u32, ssrc: u32) {
        let Some(stream) = self.peers.get(slot).and_then(|peer| peer.streams.find(ssrc)) else {
            return;
        };
        let publication = self.publications.get_mut(stream.publication);
        let encoding = publication.and_then(|p| p.encodings.get_mut(stream.encoding as usize));
        if let Some(encoding) = encoding.filter(|_| !stream.rtx) {
            encoding.active_at = None;
        }
    }

    /// The subscription of a peer that sends with this SSRC.
    fn subscription_of(&self, slot: u32, ssrc: u32) -> Option<u32> {
        let sends = |subscription: &Subscription| {
            subscription.ssrc == ssrc || (ssrc != 0 && subscription.rtx_ssrc == ssrc)
        };
        let peer = self.peers.get(slot)?;
        let mut slots = peer.subscriptions.iter().copied();
        slots.find(|slot| self.subscriptions.get(*slot).is_some_and(sends))
    }
}

/// A round trip beyond this (in 65,536ths of a second) is a clock that jumped, not a network.
const ROUND_TRIP_MAX: u32 = 60 << 16;
