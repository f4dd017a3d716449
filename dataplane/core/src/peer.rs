//! A peer: one ICE and DTLS transport with its keys, and what goes over it.

use crate::bandwidth::Bandwidth;
use crate::command::{Kind, PeerId, ScopeId};
use crate::drop::DropReason;
use crate::echo::Echoes;
use crate::egress::Egress;
use crate::feedback::Feedback;
use crate::ice::Agent;
use crate::keys::{Keys, Protection};
use crate::limits::{DATAGRAM_BYTES, PAST_SSRCS};
use crate::measure::ClockOffset;
use crate::pacer::Pacer;
use crate::port::Path;
use crate::publication::{Ended, Streams};
use crate::resend::ResendBudget;
use crate::spend::Spending;
use crate::statistics::{EcnCounts, Traffic};
use crate::time::{Duration, Instant};
use crate::timer::Alarm;
use crate::uplink::Uplink;
use std::collections::VecDeque;
use std::net::IpAddr;
use strait_crypt::srtp;
use strait_wire::{Full, rtcp};

/// A peer of a scope.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) scope: ScopeId,
    pub(crate) ice: Agent,
    pub(crate) keys: Option<Keys>,
    pub(crate) connected: bool,
    /// Where it is reached, as that was told last, and when.
    pub(crate) path_told: Option<(Path, Instant)>,
    /// The address by which its line was measured.
    pub(crate) network: Option<IpAddr>,
    pub(crate) created_at: Instant,
    pub(crate) publications: Vec<u32>,
    pub(crate) subscriptions: Vec<u32>,
    pub(crate) streams: Streams,
    /// From which SSRC it reports, under a session key.
    reporter: u32,
    /// SSRCs that were routed, the one that ended last at the back.
    past: VecDeque<u32>,
    pub(crate) ended: Ended,
    pub(crate) clock: ClockOffset,
    pub(crate) feedback: Feedback,
    pub(crate) echoes: Echoes,
    pub(crate) resend: ResendBudget,
    /// What may be sent to it in bits per second, RTP with headers; `None` while that is not known: then it gets what it
    /// prefers.
    pub(crate) budget_bps: Option<u64>,
    /// The estimate of what its line carries, if it agreed to send transport-wide feedback.
    pub(crate) bandwidth: Option<Box<Bandwidth>>,
    pub(crate) spending: Spending,
    pub(crate) uplink: Uplink,
    /// What waits for its line, once that was seen to carry less than was sent.
    pub(crate) pacer: Option<Box<Pacer>>,
    pub(crate) alarm: Alarm,
    /// When the next reports to it are due.
    pub(crate) report_at: Instant,
    /// When the last ones went, and the bytes from and to it until then.
    pub(crate) reported: (Instant, u64),
    /// When the quality of what it publishes is told next.
    pub(crate) quality_at: Instant,
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    /// With which marks its RTP arrived.
    pub(crate) ecn: EcnCounts,
}

impl Peer {
    pub(crate) fn new(id: PeerId, scope: ScopeId, ice: Agent, now: Instant) -> Self {
        Self {
            id,
            scope,
            ice,
            keys: None,
            connected: false,
            path_told: None,
            network: None,
            created_at: now,
            publications: Vec::new(),
            subscriptions: Vec::new(),
            streams: Streams::default(),
            reporter: 0,
            past: VecDeque::new(),
            ended: Ended::default(),
            clock: ClockOffset::default(),
            feedback: Feedback::default(),
            echoes: Echoes::default(),
            resend: ResendBudget::default(),
            budget_bps: None,
            bandwidth: None,
            spending: Spending::default(),
            uplink: Uplink::default(),
            pacer: None,
            alarm: Alarm::default(),
            report_at: now,
            reported: (now, 0),
            quality_at: now,
            received: Traffic::default(),
            sent: Traffic::default(),
            ecn: EcnCounts::default(),
        }
    }

    /// Decrypts an SRTP packet in place.
    pub(crate) fn unprotect_rtp<'a>(
        &mut self,
        now: Instant,
        bytes: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let keys = self.keys.as_mut().ok_or(DropReason::NoKeys)?;
        let len = keys.unprotect_rtp(now, bytes);
        let len = len.map_err(|e| reason(e, DropReason::RtpMalformed))?;
        bytes.get_mut(..len).ok_or(DropReason::RtpMalformed)
    }

    /// Decrypts an SRTCP packet in place.
    pub(crate) fn unprotect_rtcp<'a>(
        &mut self,
        now: Instant,
        bytes: &'a mut [u8],
    ) -> Result<&'a [u8], DropReason> {
        let keys = self.keys.as_mut().ok_or(DropReason::NoKeys)?;
        let len = keys.unprotect_rtcp(now, bytes);
        let len = len.map_err(|e| reason(e, DropReason::RtcpMalformed))?;
        bytes.get(..len).ok_or(DropReason::RtcpMalformed)
    }

    /// Notes that RTP from this SSRC, or RTCP, came by a path and was no replay. Whether media for the peer goes elsewhere
    /// now.
    pub(crate) fn hear(&mut self, now: Instant, path: Path, ssrc: u32, is_report: bool) -> bool {
        // Others have a session key as well: whoever sees what goes to the peer could send it back as if it were from there.
        let is_common = self.keys.as_ref().is_some_and(Keys::is_common);
        if is_common && self.streams.find(ssrc).is_none() {
            if !self.ice.is_at(path.remote.ip()) {
                if self.reporter != ssrc {
                    return false;
                }
            } else if is_report {
                self.reporter = ssrc;
            }
        }
        self.ice.hear(now, path)
    }

    /// SSRCs are not routed any more. Their rollover counters and replay state go when [`PAST_SSRCS`] others followed:
    /// one that comes back (a track that is published again) must not be taken for new, or nothing of it decrypts.
    pub(crate) fn forget(&mut self, ssrcs: &[u32]) {
        self.past.retain(|past| !ssrcs.contains(past));
        self.past.extend(ssrcs);
        while self.past.len() > PAST_SSRCS {
            let oldest = self.past.pop_front().filter(|ssrc| self.streams.find(*ssrc).is_none());
            if let Some((ssrc, keys)) = oldest.zip(self.keys.as_mut()) {
                keys.forget(ssrc);
            }
        }
    }

    /// A stream ended: its SSRCs are remembered, so that what comes late is known for what it is.
    pub(crate) fn end(&mut self, ssrcs: &[u32], mid: &str) {
        ssrcs.iter().for_each(|ssrc| self.ended.add(*ssrc, mid));
        self.forget(ssrcs);
    }

    /// What is not to be exceeded. A first guess holds nothing back: a picture that may well fit is shown, and what does
    /// not fit is seen within half a second.
    pub(crate) fn limit_bps(&self) -> Option<u64> {
        match &self.bandwidth {
            Some(bandwidth) if !bandwidth.is_proven() => self.spending.reports.remb_bps(),
            _ => self.budget_bps,
        }
    }

    /// Whether packets can go out.
    pub(crate) fn is_ready(&self) -> bool {
        self.keys.is_some() && self.ice.path().is_some()
    }

    /// To the peer and back. What extended reports measured is nearer than what feedback did, which waits before it is sent.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let by_feedback = || self.bandwidth.as_ref().and_then(|bandwidth| bandwidth.round_trip());
        self.echoes.round_trip().or_else(by_feedback)
    }

    /// Where packets of this kind go and what protects them, once it is connected.
    pub(crate) fn outgoing(&mut self, kind: Kind) -> Result<(Path, Protection<'_>), DropReason> {
        let path = self.ice.path_of(kind).ok_or(DropReason::SubscriberNotReady)?;
        let keys = self.keys.as_mut().ok_or(DropReason::SubscriberNotReady)?;
        Ok((path, keys.protection()))
    }

    /// Queues one RTCP compound that `write` fills; it goes where sound does.
    pub(crate) fn send_rtcp(
        &mut self,
        egress: &mut Egress,
        write: impl FnOnce(&mut rtcp::Writer<'_>) -> Result<(), Full>,
    ) -> Result<(), DropReason> {
        let (path, protection) = self.outgoing(Kind::Audio)?;
        let room = egress.reserve(DATAGRAM_BYTES).ok_or(DropReason::EgressFull)?;
        let clear = room.len().saturating_sub(srtp::RTCP_OVERHEAD_MAX);
        let mut writer = rtcp::Writer::new(room.get_mut(..clear).unwrap_or_default());
        write(&mut writer).map_err(|Full| DropReason::ProtectFailed)?;
        if writer.is_empty() {
            return Ok(());
        }
        let len = writer.len();
        let len = protection.rtcp(room, len)?;
        egress.commit(path, len);
        self.sent.count(len);
        Ok(())
    }
}

/// The SSRC that a packet has in this place.
pub(crate) fn ssrc_at(bytes: &[u8], place: usize) -> u32 {
    let bytes = bytes.get(place..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// What went wrong in SRTP, as a reason to drop.
fn reason(error: srtp::Error, malformed: DropReason) -> DropReason {
    match error {
        srtp::Error::Unauthentic => DropReason::SrtpAuthentication,
        srtp::Error::Replayed | srtp::Error::TooOld => DropReason::SrtpReplay,
        srtp::Error::TooManySsrcs | srtp::Error::Retired | srtp::Error::KeyExhausted => {
            DropReason::SrtpLimit
        }
        srtp::Error::Malformed | srtp::Error::NoRoom | srtp::Error::Key => malformed,
    }
}
