//! Reports: what the relay tells publishers about what arrives, and subscribers about what it sends.

use crate::command::{Kind, PeerId};
use crate::egress::Egress;
use crate::limits::{
    ENCODINGS_PER_PUBLICATION, FEEDBACK_BYTES, REPORT_INTERVAL_AUDIO, REPORT_INTERVAL_MAX,
    REPORT_INTERVAL_VIDEO, REPORTS_BYTES, RTCP_DATAGRAM_BYTES, RTCP_SHARE, SESSION_BPS_MIN,
};
use crate::measure::ticks_between;
use crate::peer::Peer;
use crate::publication::Publication;
use crate::statistics::Traffic;
use crate::subscription::Subscription;
use crate::time::{Duration, Instant, Now};
use crate::uplink::Uplink;
use crate::worker::Worker;
use strait_wire::Full;
use strait_wire::rtcp::{self, ReportBlock};

impl Worker {
    /// Does the periodic work of a peer's streams and says when there is more to do.
    pub(crate) fn work(&mut self, now: Now, slot: u32, egress: &mut Egress) -> Option<Instant> {
        let peer = self.peers.get_mut(slot).filter(|peer| peer.connected)?;
        if peer.feedback.due().is_some_and(|at| at <= now.at) {
            self.send_feedback(now, slot, egress);
        }
        let peer = self.peers.get_mut(slot)?;
        if peer.publications.is_empty() && peer.subscriptions.is_empty() {
            return None;
        }
        if peer.report_at <= now.at {
            let before = peer.sent;
            self.report_to_publisher(now, slot, egress);
            self.report_to_subscriber(now, slot, egress);
            let interval = self.report_interval(slot);
            if let Some(peer) = self.peers.get_mut(slot) {
                let interval = interval.max(peer.affords_reports_every(now.at, before));
                peer.report_at = now.at + interval;
            }
        }
        let quality = self.tell_quality(now, slot);
        // What waits goes first: a probe's padding is to come on top of it.
        let departure = self.release(now, slot, egress);
        let estimate = self.estimate(now, slot, egress);
        self.weigh_reports(now, slot, egress);
        self.spend_when_due(now, slot, egress);
        let publications = self.peers.get(slot)?.publications.clone();
        let silence = self.look_for_silence(now.at, slot);
        let asks = publications.into_iter().filter_map(|p| self.ask(now, p, egress)).min();
        let peer = self.peers.get(slot)?;
        let peer_due = [peer.feedback.due(), peer.spending.due, Some(peer.report_at)];
        let due = [asks, silence, quality, departure, estimate].into_iter().chain(peer_due);
        due.flatten().min()
    }

    /// Makes sure that the periodic work of a peer with streams goes on.
    pub(crate) fn start_reports(&mut self, now: Now, slot: u32) {
        let at = self.peers.get(slot).map_or(now.at, |peer| peer.report_at.max(now.at));
        self.arm(slot, at);
    }

    /// Tells a publisher when its packets arrived.
    pub(crate) fn send_feedback(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let publication = peer.publications.first().and_then(|slot| self.publications.get(*slot));
        let Some(publication) = publication else {
            // There is no name left to report under; what is kept would be due for ever.
            peer.feedback.forget();
            return;
        };
        let (ssrc, reduced) = (publication.report_ssrc, publication.leg.reduced_size());
        let before = peer.sent;
        let mut feedback = std::mem::take(&mut peer.feedback);
        feedback.flush(|media_ssrc, count, arrivals| {
            let mut told = 0;
            let result = peer.send_rtcp(egress, |rtcp| {
                begin_feedback(ssrc, reduced, rtcp)?;
                told = rtcp.transport_cc(ssrc, media_ssrc, count, arrivals)?;
                Ok(())
            });
            result.map_err(|reason| self.drops.count(reason)).ok().map(|()| told)
        });
        let (now_us, stamp) = (now.at.0 / 1000, (now.ntp >> 16) as u32);
        feedback.flush_streams(|outcomes| {
            let mut told = 0;
            let result = peer.send_rtcp(egress, |rtcp| {
                begin_feedback(ssrc, reduced, rtcp)?;
                rtcp.limit(FEEDBACK_BYTES);
                told = rtcp.congestion_control(ssrc, now_us, stamp, outcomes)?;
                Ok(())
            });
            result.map_err(|reason| self.drops.count(reason)).ok().map(|()| told)
        });
        let spent = peer.sent.since(before);
        feedback.rest(now.at, spent.packets, spent.bytes);
        peer.feedback = feedback;
    }

    /// Says goodbye for an outgoing stream.
    pub(crate) fn say_bye(&mut self, slot: u32, egress: &mut Egress) {
        // The SSRCs of what is handed on as it came are the publisher's, not ours to end.
        let Some(subscription) = self.subscriptions.get(slot).filter(|s| !s.as_sent) else {
            return;
        };
        let ssrcs = [subscription.ssrc, subscription.rtx_ssrc];
        let used = ssrcs.get(..1 + usize::from(subscription.rtx_ssrc != 0)).unwrap_or_default();
        if let Some(peer) = self.peers.get_mut(subscription.peer).filter(|peer| peer.is_ready()) {
            let result = peer.send_rtcp(egress, |rtcp| {
                // A goodbye is never alone, whatever was agreed (RFC 5506 section 3.4.2).
                begin_feedback(subscription.ssrc, false, rtcp)?;
                rtcp.bye(used)
            });
            result.unwrap_or_else(|reason| self.drops.count(reason));
        }
    }

    /// A receiver report per publication with all its encodings, and REMB if that was agreed.
    fn report_to_publisher(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.is_ready()) else { return };
        let (publications, uplink) = (&mut self.publications, peer.uplink);
        let slots = std::mem::take(&mut peer.publications);
        let mut echoes = std::mem::take(&mut peer.echoes);
        let first = slots.first().and_then(|slot| publications.get(*slot));
        let mut asks = first.map(|publication| publication.report_ssrc);
        let mut rest = slots.iter().peekable();
        while rest.peek().is_some() {
            let result = peer.send_rtcp(egress, |rtcp| {
                while let Some(slot) = rest.next_if(|_| rtcp.len() < REPORTS_BYTES) {
                    if let Some(publication) = publications.get_mut(*slot) {
                        write_receiver_report(now, publication, uplink, rtcp)?;
                    }
                }
                // It sends us no report that answers one of ours: its round trip shows by asking alone.
                if let Some(ssrc) = asks.take() {
                    rtcp.receiver_reference_time(ssrc, now.ntp)?;
                    echoes.answer(now, ssrc, rtcp)?;
                }
                Ok(())
            });
            // A full turn takes none of the others either: they are left to the next round.
            if let Err(reason) = result {
                self.drops.count(reason);
                break;
            }
        }
        peer.publications = slots;
        peer.echoes = echoes;
    }

    /// A sender report and a name for each outgoing stream that is running.
    fn report_to_subscriber(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get(slot).filter(|peer| peer.is_ready()) else { return };
        let running = peer.subscriptions.iter().filter_map(|slot| self.subscriptions.get(*slot));
        let reports: Vec<_> =
            running.filter_map(|subscription| self.sender_report(now, subscription)).collect();
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let mut echoes = std::mem::take(&mut peer.echoes);
        let mut rest = reports.iter().peekable();
        while let Some(ssrc) = rest.peek().map(|report| report.ssrc) {
            let result = peer.send_rtcp(egress, |rtcp| {
                while let Some(report) = rest.next_if(|_| rtcp.len() < REPORTS_BYTES) {
                    report.write(now, rtcp)?;
                }
                echoes.answer(now, ssrc, rtcp)
            });
            if let Err(reason) = result {
                self.drops.count(reason);
                break;
            }
        }
        peer.echoes = echoes;
    }

    /// What a subscription's sender report says: our clock's time now, in the outgoing stream's timestamps. They follow
    /// the publisher's own reports, so that its streams stay in sync with each other.
    fn sender_report(&self, now: Now, subscription: &Subscription) -> Option<Report> {
        subscription.selector.current()?;
        let (source, offset) = subscription.rewriter.running()?;
        let publication = self.publications.get(subscription.publication?)?;
        let encoding = publication.encodings.iter().find(|e| e.source == source)?;
        let (publisher, clock) = match &publication.origin {
            Some(origin) => (origin.publisher, origin.clock),
            None => self.peers.get(publication.peer).map(|peer| (peer.id, peer.clock))?,
        };
        let sender = encoding.reception.sender()?;
        let taken = clock.to_ours(sender.ntp)?;
        let since = ticks_between(taken, now.ntp, encoding.clock_rate_hz);
        Some(Report {
            ssrc: subscription.ssrc,
            timestamp: sender.timestamp.wrapping_add(offset).wrapping_add(since as u32),
            packets: subscription.sent.packets as u32,
            octets: subscription.octets as u32,
            publisher,
        })
    }

    fn report_interval(&self, slot: u32) -> Duration {
        let Some(peer) = self.peers.get(slot) else { return REPORT_INTERVAL_AUDIO };
        let published = peer.publications.iter().filter_map(|p| self.publications.get(*p));
        let subscribed = peer.subscriptions.iter().filter_map(|s| self.subscriptions.get(*s));
        let mut kinds = published.map(|p| p.kind).chain(subscribed.map(|s| s.kind));
        if kinds.any(|kind| kind == Kind::Video) {
            REPORT_INTERVAL_VIDEO
        } else {
            REPORT_INTERVAL_AUDIO
        }
    }
}

impl Peer {
    /// How often reports may go that cost what was sent since `before`: they have their share of what the session carries.
    fn affords_reports_every(&mut self, now: Instant, before: Traffic) -> Duration {
        let spent = self.sent.since(before);
        let cost = (spent.bytes + spent.packets * RTCP_DATAGRAM_BYTES) * 8 * u64::from(RTCP_SHARE);
        let carried = self.sent.bytes + self.received.bytes;
        let (since, carried_before) = std::mem::replace(&mut self.reported, (now, carried));
        let bits = carried.saturating_sub(carried_before).saturating_mul(8);
        let session_bps = (bits as f64 / now.since(since).as_secs_f64().max(1.0)) as u64;
        let micros = cost.saturating_mul(1_000_000) / session_bps.max(SESSION_BPS_MIN);
        Duration::from_micros(micros).min(REPORT_INTERVAL_MAX)
    }
}

/// What a datagram of feedback begins with: a report and a name (RFC 3550 section 6.1), where it was not agreed to do
/// without them (RFC 5506).
pub(crate) fn begin_feedback(
    ssrc: u32,
    reduced_size: bool,
    rtcp: &mut rtcp::Writer<'_>,
) -> Result<(), Full> {
    if reduced_size {
        return Ok(());
    }
    rtcp.receiver_report(ssrc, &[])?;
    rtcp.cname(ssrc, RELAY_CNAME)
}

/// One sender report to be written.
struct Report {
    ssrc: u32,
    timestamp: u32,
    packets: u32,
    octets: u32,
    publisher: PeerId,
}

impl Report {
    fn write(&self, now: Now, rtcp: &mut rtcp::Writer<'_>) -> Result<(), Full> {
        let Self { ssrc, timestamp, packets, octets, publisher } = self;
        rtcp.sender_report(*ssrc, now.ntp, *timestamp, *packets, *octets, &[])?;
        // The streams of one publisher share a name, so that a receiver plays them in sync; others' do not.
        let mut cname = *b"peer-00000000";
        for (at, digit) in cname.iter_mut().rev().take(8).enumerate() {
            let nibble = (publisher.0 >> (4 * at)) & 15;
            *digit = char::from_digit(nibble, 16).map_or(b'0', |digit| digit as u8);
        }
        rtcp.cname(*ssrc, &cname)
    }
}

fn write_receiver_report(
    now: Now,
    publication: &mut Publication,
    uplink: Uplink,
    rtcp: &mut rtcp::Writer<'_>,
) -> Result<(), Full> {
    let mut blocks = [ReportBlock::default(); ENCODINGS_PER_PUBLICATION];
    let mut ssrcs = [0; ENCODINGS_PER_PUBLICATION];
    let mut count = 0;
    for encoding in &mut publication.encodings {
        let Some(block) = encoding.reception.report(now, encoding.ssrc) else { continue };
        if let (Some(to), Some(ssrc)) = (blocks.get_mut(count), ssrcs.get_mut(count)) {
            (*to, *ssrc) = (block, encoding.ssrc);
            count += 1;
        }
    }
    let ssrc = publication.report_ssrc;
    rtcp.receiver_report(ssrc, blocks.get(..count).unwrap_or_default())?;
    rtcp.cname(ssrc, RELAY_CNAME)?;
    let codec = publication.leg.codecs.first().filter(|codec| codec.remb);
    let remb = codec.and_then(|codec| uplink.remb_bps(codec.transport_cc));
    if let Some(bps) = remb.filter(|_| count > 0) {
        rtcp.remb(ssrc, bps, ssrcs.get(..count).unwrap_or_default())?;
    }
    Ok(())
}

/// Who we are towards publishers: nobody plays anything of ours by this name.
const RELAY_CNAME: &[u8] = b"strait";
