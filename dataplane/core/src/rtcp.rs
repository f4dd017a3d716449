//! RTCP from peers: every leg ends here, nothing is passed through.

use crate::cache::Kept;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::limits::{DATAGRAM_BYTES, FEEDBACK_STATUSES, NACKED_PACKETS};
use crate::measure::SenderInfo;
use crate::packet::Packet;
use crate::peer::ssrc_at;
use crate::port::Meta;
use crate::publication::Carries;
use crate::statistics::HeldBack;
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
        let mut room = [0; DATAGRAM_BYTES];
        let common = peer.keys.as_ref().is_some_and(|keys| keys.is_common());
        let sealed = room.get_mut(..bytes.len()).filter(|_| common);
        let sealed = sealed.map(|room| {
            room.copy_from_slice(bytes);
            &*room
        });
        let bytes = peer.unprotect_rtcp(now.at, bytes)?;
        peer.received.count(bytes.len());
        if peer.hear(now.at, meta.path, ssrc_at(bytes, 4), true) {
            self.timers.arm(&mut peer.alarm, slot, now.at);
        }
        if let Some(sealed) = sealed {
            self.hand_reports_on(slot, sealed, bytes, egress);
        }
        let mut result = Ok(());
        let mut statuses_left = FEEDBACK_STATUSES;
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
                        let subscription = self.subscriptions.get(*s);
                        subscription.is_some_and(|s| s.as_sent || s.ssrc == nack.media_ssrc)
                    });
                    if let Some(subscription) = subscription {
                        let seqs = nack.seqs().take(NACKED_PACKETS);
                        self.on_nack(now, subscription, nack.media_ssrc, seqs, egress);
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
                rtcp::Packet::Remb(remb) => self.on_remb(now, slot, &remb, egress),
                rtcp::Packet::Bye(bye) => bye.ssrcs().for_each(|ssrc| self.on_bye(slot, ssrc)),
                rtcp::Packet::TransportCc(feedback) => {
                    self.on_transport_cc(now, slot, &feedback, &mut statuses_left, egress);
                    self.on_budget(now, slot, egress);
                }
                rtcp::Packet::CongestionControl(feedback) => {
                    self.on_congestion_control(now, slot, &feedback, &mut statuses_left, egress);
                    self.on_budget(now, slot, egress);
                }
                rtcp::Packet::ExtendedReport(report) => self.on_extended_report(now, slot, &report),
                // Descriptions say nothing that signalling did not.
                rtcp::Packet::SourceDescription(_) | rtcp::Packet::Other(_) => {}
            }
        }
        result
    }

    /// Hands a compound with sender reports on as it came to those that get the reported streams so: under a key that is
    /// not the relay's own it cannot report in the publisher's name.
    fn hand_reports_on(&mut self, slot: u32, sealed: &[u8], bytes: &[u8], egress: &mut Egress) {
        let Some(peer) = self.peers.get(slot) else { return };
        let reports = rtcp::packets(bytes).filter_map(|packet| match packet {
            Ok(rtcp::Packet::SenderReport(report)) => peer.streams.find(report.ssrc),
            _ => None,
        });
        let publications: Vec<u32> = reports.map(|stream| stream.publication).collect();
        let publisher = peer.id;
        self.mirror_reports(publisher, &publications, sealed);
        self.hand_reports_to(&publications, sealed, egress);
    }

    /// Hands reports on to those that get one of these publications as it came.
    pub(crate) fn hand_reports_to(
        &mut self,
        publications: &[u32],
        sealed: &[u8],
        egress: &mut Egress,
    ) {
        let audiences = publications.iter().filter_map(|slot| self.publications.get(*slot));
        let subscriptions = audiences.filter(|p| p.hands_on).flat_map(|p| p.audience());
        let subscriptions = subscriptions.filter_map(|slot| self.subscriptions.get(*slot));
        let mut peers: Vec<u32> = subscriptions.filter(|s| s.as_sent).map(|s| s.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        for slot in peers {
            let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.is_ready()) else {
                continue;
            };
            let Some(path) = peer.ice.path() else { continue };
            if egress.push(path, sealed) {
                peer.sent.count(sealed.len());
            } else {
                self.drops.count(DropReason::EgressFull);
            }
        }
    }

    fn on_sender_report(&mut self, now: Now, slot: u32, report: &rtcp::SenderReport<'_>) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(stream) =
            peer.streams.find(report.ssrc).filter(|stream| stream.carries == Carries::Media)
        else {
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
            // All of them: the clock is the peer's, and its streams are to stay in sync with each other.
            self.tell_mirrors(slot, None);
        }
    }

    /// What a subscriber says about a stream of ours.
    fn on_report(&mut self, now: Now, slot: u32, block: ReportBlock) {
        let Some(subscription) = self.subscription_of(slot, block.ssrc) else { return };
        let Some(subscription) = self.subscriptions.get_mut(subscription) else { return };
        if !subscription.as_sent && block.ssrc != subscription.ssrc {
            return;
        }
        //= rfc3550#6.4.1: round trip = arrival - delay since last SR - last SR, each in the middle 32 bits of NTP.
        let middle = (now.ntp >> 16) as u32;
        let trip = middle.wrapping_sub(block.delay_since_last_sr).wrapping_sub(block.last_sr);
        let answered = block.last_sr != 0 && trip < ROUND_TRIP_MAX;
        let trip = answered.then(|| Duration::from_micros((u64::from(trip) * 1_000_000) >> 16));
        let round_trip = trip.or(subscription.reported.round_trip);
        let before = std::mem::replace(&mut subscription.reported, Reported { block, round_trip });
        let (before, known) = (before.block, before.block.ssrc == block.ssrc);
        let expected = block.highest_seq.wrapping_sub(before.highest_seq);
        // More than half of the numbers at once is an old report that came late.
        if known
            && expected < 1 << 15
            && let Some(peer) = self.peers.get_mut(slot)
        {
            let lost = i64::from(block.cumulative_lost) - i64::from(before.cumulative_lost);
            peer.spending.reports.on_loss(expected.into(), lost.max(0).unsigned_abs());
        }
    }

    /// Answers from the cache, and asks the publisher for what it never sent us.
    pub(crate) fn on_nack(
        &mut self,
        now: Now,
        slot: u32,
        ssrc: u32,
        seqs: impl Iterator<Item = u16>,
        egress: &mut Egress,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        let Some(source_slot) = subscription.publication else { return };
        let Some(publication) = self.publications.get_mut(source_slot) else { return };
        let Some(peer) = self.peers.get_mut(subscription.peer) else { return };
        let nack = publication.nack();
        if subscription.as_sent {
            let encoding = publication.encodings.iter_mut().find(|e| e.ssrc == ssrc);
            let Some(encoding) = encoding else { return };
            for seq in seqs.map(|seq| encoding.window.extend(seq)) {
                let Some(Kept { bytes: sealed, .. }) = encoding.sealed.get(seq) else {
                    subscription.missed += 1;
                    if nack && !encoding.window.has(seq) {
                        encoding.missing.want(seq, now.at);
                    }
                    continue;
                };
                let result = subscription.hand_on_again(peer, sealed, egress);
                result.unwrap_or_else(|reason| self.drops.count(reason));
            }
            return self.ask(now, source_slot, egress).map_or((), |_| ());
        }
        // Where the line is full, what comes before a switch only stands in the way of what comes after it.
        let forced =
            publication.has_key_frames() && subscription.allotment.held_back() != HeldBack::Nothing;
        let round_trip = peer.bandwidth.as_ref().and_then(|bandwidth| bandwidth.round_trip());
        let round_trip = round_trip.or(subscription.reported.round_trip).unwrap_or_default();
        if let Some(bps) = peer.limit_bps() {
            peer.resend.limit(bps);
        }
        for outgoing in seqs {
            let origin = subscription.rewriter.origin(outgoing);
            let Some((source, seq)) = origin else { continue };
            if (forced && subscription.rewriter.is_past(outgoing))
                || subscription.resent_lately.is_under_way(now.at, outgoing, round_trip)
            {
                self.drops.count(DropReason::ResendInVain);
                continue;
            }
            let Some(encoding) = publication.encodings.iter_mut().find(|e| e.source == source)
            else {
                subscription.missed += 1;
                continue;
            };
            let Some(Kept { received, peek, bytes }) = encoding.cache.get(seq) else {
                subscription.missed += 1;
                if nack && !encoding.window.has(seq) {
                    encoding.missing.want(seq, now.at);
                }
                continue;
            };
            let Ok(packet) = Packet::parse(bytes, seq, &publication.leg, peek) else { continue };
            let Some(route) = subscription.route(packet.pt) else { continue };
            let Some(rewrite) = subscription.rewriter.map(source, seq) else { continue };
            // As it went out the first time.
            let is_for = peek.layer.is_for(rewrite.share);
            let packet = if is_for { packet } else { packet.emptied() };
            let rtx = subscription.rtx_ssrc != 0 && route.to_rtx.is_some();
            if !rtx && !route.repeats {
                continue;
            }
            // What is not here yet comes by itself: only what is waits for the line.
            if let Some((at, all)) = peer.defer((now.at, slot, subscription), ssrc, outgoing) {
                self.drops.add(DropReason::ResendLimited, u64::from(!all));
                self.timers.arm(&mut peer.alarm, subscription.peer, at);
                continue;
            }
            let (sending, received) =
                if rtx { (Sending::Rtx, now) } else { (Sending::Again, received) };
            let result = peer.resend.spend(bytes.len()).and_then(|()| {
                let times = (now.at, received);
                let (packet, way) = ((&packet, None), (route, rewrite));
                subscription.send_red(times, peer, packet, way, sending, egress)
            });
            match result {
                Ok(()) => subscription.resent_lately.note(now.at, outgoing),
                Err(reason) => self.drops.count(reason),
            }
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
        if let Some(encoding) = encoding.filter(|_| stream.carries == Carries::Media) {
            encoding.active_at = None;
            self.tell_mirrors(slot, None);
        }
    }

    /// The subscription of a peer that sends with this SSRC.
    pub(crate) fn subscription_of(&self, slot: u32, ssrc: u32) -> Option<u32> {
        let sends = |subscription: &Subscription| subscription.sends(ssrc, &self.publications);
        let peer = self.peers.get(slot)?;
        let mut slots = peer.subscriptions.iter().copied();
        slots.find(|slot| self.subscriptions.get(*slot).is_some_and(sends))
    }
}

/// A round trip beyond this (in 65,536ths of a second) is a clock that jumped, not a network.
pub(crate) const ROUND_TRIP_MAX: u32 = 60 << 16;
