//! The estimates of a worker's subscribers: feedback in, budgets and probes out.

use super::Bandwidth;
use crate::cache::Kept;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::limits::{EGRESS_FLUSH_BYTES, PROBE_PACKETS};
use crate::packet::Packet;
use crate::statistics::HeldBack;
use crate::subscription::{Sending, Subscription};
use crate::time::{Instant, Now};
use crate::worker::Worker;
use strait_wire::rtcp::{CongestionControl, TransportCc};

impl Bandwidth {
    /// As if nothing had been sent yet, to one of whom it is known that it sends feedback.
    fn begin_anew(&mut self, now: Instant) {
        *self = Self {
            sent: self.sent.anew(),
            names: self.names.take(),
            told_at: self.told_at.map(|_| now),
            probes: self.probes.anew(),
            statistics: self.statistics,
            ..Self::default()
        };
    }
}

impl Worker {
    /// A subscriber says when packets arrived. `left` bounds what is looked at of one datagram.
    pub(crate) fn on_transport_cc(
        &mut self,
        now: Now,
        slot: u32,
        feedback: &TransportCc<'_>,
        left: &mut usize,
        egress: &mut Egress,
    ) {
        self.with_bandwidth(slot, |bandwidth| bandwidth.on_feedback(now.at, feedback, left));
        self.after_feedback(now, slot, egress);
    }

    /// The same by the numbers of the streams, with ECN marks.
    pub(crate) fn on_congestion_control(
        &mut self,
        now: Now,
        slot: u32,
        feedback: &CongestionControl<'_>,
        left: &mut usize,
        egress: &mut Egress,
    ) {
        self.with_bandwidth(slot, |bandwidth| {
            bandwidth.on_congestion_control(now.at, feedback, left);
        });
        self.after_feedback(now, slot, egress);
    }

    fn after_feedback(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        self.set_budget(now, slot);
        self.on_budget(now, slot, egress);
        if let Some(at) = self.time_probes(now, slot) {
            self.arm(slot, at);
        }
    }

    /// Looks after the estimate of a peer: whether feedback still comes, and probes. When there is more to do.
    pub(crate) fn estimate(&mut self, now: Now, slot: u32, egress: &mut Egress) -> Option<Instant> {
        self.peers.get(slot)?.bandwidth.as_ref()?;
        let useful = self.useful_bps(now.at, slot);
        self.with_bandwidth(slot, |bandwidth| bandwidth.on_time(now.at, useful));
        self.set_budget(now, slot);
        for back in 0..PROBE_PACKETS as u64 {
            let bandwidth = self.peers.get(slot)?.bandwidth.as_ref()?;
            let Some((missing, small)) = bandwidth.padding(now.at) else { break };
            if egress.bytes() > EGRESS_FLUSH_BYTES {
                break;
            }
            match self.pad(now, slot, (!small).then_some(back), missing, egress) {
                Ok(()) => {}
                Err(Some(reason)) => {
                    self.drops.count(reason);
                    break;
                }
                Err(None) => break,
            }
        }
        self.time_probes(now, slot)
    }

    /// Sees to it that the probes of a peer go on. When there is something else to do for its estimate.
    fn time_probes(&mut self, now: Now, slot: u32) -> Option<Instant> {
        let useful = self.useful_bps(now.at, slot).is_some();
        let peer = self.peers.get_mut(slot)?;
        let bandwidth = peer.bandwidth.as_ref()?;
        if let Some(at) = bandwidth.step_due(now.at) {
            self.timers.arm_finely(&mut peer.alarm, slot, at);
            return None;
        }
        bandwidth.probe_due(now.at).filter(|_| useful)
    }

    /// What would be of use to a peer in bits per second, if its line carried more than the estimate.
    fn useful_bps(&self, now: Instant, slot: u32) -> Option<u64> {
        let peer = self.peers.get(slot)?;
        let subscriptions = peer.subscriptions.iter();
        let mut subscriptions =
            subscriptions.filter_map(|slot| Some((*slot, self.subscriptions.get(*slot)?)));
        let given_up = |slot| peer.pacer.as_ref().is_some_and(|pacer| pacer.skips(slot));
        let better = |(slot, subscription): (u32, &Subscription)| {
            let publication = subscription.publication.and_then(|p| self.publications.get(p));
            let target = publication.map(|p| subscription.selector.target(p.active(now)));
            let held_back = subscription.allotment.held_back() != HeldBack::Nothing;
            let waits = target != Some(subscription.selector.current());
            subscription.takes_padding() && (held_back || waits || given_up(slot))
        };
        // What falls short of it by a little is still to be found out.
        let wanted_bps = peer.spending.wanted_bps;
        subscriptions.any(better).then(|| wanted_bps.saturating_add(wanted_bps / 8))
    }

    /// Begins the estimate of a peer anew when it is on another network: nothing is known of its line, and what was lost
    /// until it was there says nothing of it.
    pub(crate) fn note_network(&mut self, now: Now, slot: u32) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(path) = peer.ice.path() else { return };
        let before = peer.network.replace(path.remote.ip());
        if before.is_none_or(|before| before == path.remote.ip()) {
            return;
        }
        if let Some(bandwidth) = peer.bandwidth.as_mut() {
            bandwidth.begin_anew(now.at);
            self.set_budget(now, slot);
        }
    }

    /// Lets an estimate work, and counts what it did.
    fn with_bandwidth(&mut self, slot: u32, act: impl FnOnce(&mut Bandwidth)) {
        let peer = self.peers.get_mut(slot);
        let Some(bandwidth) = peer.and_then(|peer| peer.bandwidth.as_mut()) else { return };
        let before = bandwidth.statistics();
        act(bandwidth);
        self.estimation.grow(before, bandwidth.statistics());
    }

    /// Makes the estimate the budget.
    fn set_budget(&mut self, now: Now, slot: u32) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(bandwidth) = peer.bandwidth.as_ref() else { return };
        // Who says that it can receive less is believed.
        let remb_bps = peer.spending.reports.remb_bps().unwrap_or(u64::MAX);
        peer.budget_bps = bandwidth.budget_bps(now.at).map(|budget| budget.min(remb_bps));
    }

    /// Sends one packet of padding on a stream of retransmissions: media that was sent before (`back` packets ago), or
    /// nothing but padding. `Err(None)`: there is no such stream.
    fn pad(
        &mut self,
        now: Now,
        slot: u32,
        back: Option<u64>,
        missing: usize,
        egress: &mut Egress,
    ) -> Result<(), Option<DropReason>> {
        let peer = self.peers.get_mut(slot).ok_or(None)?;
        let subscriptions = peer.subscriptions.iter();
        let takes_padding = |slot: &&u32| {
            self.subscriptions.get(**slot).is_some_and(|subscription| subscription.takes_padding())
        };
        let subscription = *subscriptions.rev().find(takes_padding).ok_or(None)?;
        let subscription = self.subscriptions.get_mut(subscription).ok_or(None)?;
        let before = peer.sent.bytes;
        let media = back.filter(|_| missing >= SMALL_BYTES);
        let source = subscription.publication.and_then(|slot| self.publications.get(slot));
        let sent = media.zip(source).and_then(|(back, publication)| {
            let seq = subscription.rewriter.newest()?.0.checked_sub(back)?;
            let (source, seq) = subscription.rewriter.origin(seq as u16)?;
            let encoding = publication.encodings.iter().find(|e| e.source == source)?;
            let Kept { bytes, peek, .. } = encoding.cache.get(seq)?;
            let packet = Packet::parse(bytes, seq, &publication.leg, peek).ok()?;
            let route = subscription.route(packet.pt).filter(|route| route.to_rtx.is_some())?;
            let rewrite = subscription.rewriter.map(source, seq)?;
            peek.layer.is_for(rewrite.share).then_some(())?;
            Some((packet, (route, rewrite)))
        });
        let result = match sent {
            Some((packet, way)) => {
                let times = (now.at, now);
                let packet = (&packet, None);
                subscription.send_red(times, peer, packet, way, Sending::Probe, egress)
            }
            None => subscription.pad(now, peer, missing, egress),
        };
        let bytes = peer.sent.bytes.saturating_sub(before) as usize;
        result.map_err(Some)?;
        self.with_bandwidth(slot, |bandwidth| bandwidth.on_padding(bytes));
        Ok(())
    }
}

/// For less than this padding does.
const SMALL_BYTES: usize = 300;
