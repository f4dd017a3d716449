//! A client, sans-IO: ICE, keys, streams out, streams in. Everything it hears it holds against the rules.

pub mod chain;
pub mod ice;
mod outgoing;
pub mod receiver;
pub mod source;

use crate::control::{codec, payload_types};
use crate::handshake::Handshake;
use crate::plan::PeerSpec;
use crate::protocol::Sort;
use crate::protocol::rtcp::{self, Packet as Report};
use crate::protocol::rtp::Header;
use crate::rng::Rng;
use ice::Agent;
use receiver::Receiver;
use source::{Packet, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use strait_core::command::{Codec, Extensions, Kind};
use strait_core::time::{Duration, Instant, Now};
use strait_crypt::dtls;
use strait_crypt::srtp::{self, Inbound, Outbound, SessionKeys};

/// A peer looks after its streams this often.
const TICK: Duration = Duration::from_millis(20);
/// Reports go out this often, give or take a half (RFC 3550 section 6.2).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// One client.
pub struct Peer {
    /// Its place in the plan.
    pub index: usize,
    /// How it is.
    pub spec: PeerSpec,
    /// From where its datagrams come, as the relay sees it.
    pub address: SocketAddr,
    /// Ids of header extensions on its leg.
    pub extensions: Extensions,
    /// What it sends.
    pub sources: Vec<Source>,
    /// What it gets.
    pub receivers: Vec<Receiver>,
    /// Its agent.
    pub agent: Agent,
    /// When it could first send and receive media.
    pub connected_at: Option<Instant>,
    video: Codec,
    audio: Codec,
    handshake: Option<Handshake>,
    keys: Option<(Inbound, Outbound)>,
    /// SSRCs that ended lately: what comes of them is late, not wrong.
    ended: BTreeSet<u32>,
    /// Requests for key frames by SSRC: how many, and when the first came.
    key_requests: BTreeMap<u32, (u64, Instant)>,
    tick_at: Instant,
    report_at: Instant,
    transport_seq: u16,
    /// Feedback goes without a report in front (RFC 5506).
    reduced_size: bool,
    rng: Rng,
    out: Vec<Vec<u8>>,
    faults: Vec<String>,
    gone: bool,
}

impl Peer {
    /// A peer that begins to check at once.
    #[must_use]
    pub fn new(
        index: usize,
        spec: PeerSpec,
        now: Instant,
        address: SocketAddr,
        agent: Agent,
        mut rng: Rng,
    ) -> Self {
        let tick_at = now + rng.up_to(TICK);
        let mut pts = payload_types(&mut rng);
        Self {
            video: codec(&spec, Kind::Video, &mut pts),
            audio: codec(&spec, Kind::Audio, &mut pts),
            index,
            extensions: outgoing::extension_ids(&spec, &mut rng),
            spec,
            address,
            sources: Vec::new(),
            receivers: Vec::new(),
            agent,
            connected_at: None,
            handshake: None,
            keys: None,
            ended: BTreeSet::new(),
            key_requests: BTreeMap::new(),
            tick_at,
            report_at: tick_at + rng.up_to(REPORT_INTERVAL),
            transport_seq: rng.bits() as u16,
            reduced_size: rng.chance(0.5),
            rng,
            out: Vec::new(),
            faults: Vec::new(),
            gone: false,
        }
    }

    /// How the peer sends and receives this kind.
    #[must_use]
    pub fn codec(&self, kind: Kind) -> Codec {
        match kind {
            Kind::Video => self.video.clone(),
            Kind::Audio => self.audio.clone(),
        }
    }

    /// The peer will agree on keys by DTLS, being the client.
    pub fn use_dtls(&mut self, handshake: Handshake) {
        self.handshake = Some(handshake);
    }

    /// The keys, seen from this side.
    pub fn set_keys(&mut self, now: Instant, keys: &SessionKeys) {
        match (keys.inbound(), keys.outbound()) {
            (Ok(inbound), Ok(outbound)) => self.keys = Some((inbound, outbound)),
            (inbound, outbound) => self.faults.push(format!("keys: {inbound:?} {outbound:?}")),
        }
        self.connect(now);
    }

    /// Switched off: it says and hears nothing more.
    pub fn vanish(&mut self) {
        self.gone = true;
    }

    /// Leaves politely: its streams say goodbye.
    pub fn say_goodbye(&mut self) {
        let byes: Vec<Report> = self.sources.iter_mut().filter_map(Source::bye).collect();
        if !byes.is_empty() {
            let mut reports =
                vec![Report::ReceiverReport { ssrc: self.own_ssrc(), blocks: Vec::new() }];
            reports.extend(byes);
            self.send_reports(&reports);
        }
        self.agent.stop();
    }

    /// Whether media can be sent.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// Adds a stream to be sent, now if the peer is connected.
    pub fn publish(&mut self, now: Instant, mut source: Source) {
        if self.is_connected() {
            source.start(now);
        }
        self.sources.push(source);
    }

    /// Ends a stream.
    pub fn unpublish(&mut self, stream: u32) {
        let (ending, staying) = std::mem::take(&mut self.sources)
            .into_iter()
            .partition::<Vec<_>, _>(|source| source.stream == stream);
        self.sources = staying;
        for mut source in ending {
            self.ended.extend(source.layers.iter().flat_map(|layer| [layer.ssrc, layer.rtx_ssrc]));
            if let Some(bye) = source.bye() {
                let empty = Report::ReceiverReport { ssrc: self.own_ssrc(), blocks: Vec::new() };
                self.send_reports(&[empty, bye]);
            }
        }
    }

    /// A slot's stream will not come any more.
    pub fn unsubscribe(&mut self, slot: usize) -> Option<Receiver> {
        let at = self.receivers.iter().position(|receiver| receiver.slot == slot)?;
        let receiver = self.receivers.remove(at);
        self.ended.extend([receiver.ssrc, receiver.rtx_ssrc]);
        Some(receiver)
    }

    /// A datagram came in.
    pub fn handle(&mut self, now: Now, mut datagram: Vec<u8>) {
        if self.gone {
            return;
        }
        match Sort::of(&datagram) {
            Sort::Stun => match self.agent.answer(now.at, &datagram) {
                Ok(true) => self.connect(now.at),
                Ok(false) => {}
                Err(fault) => self.faults.push(format!("ICE: {fault}")),
            },
            Sort::Dtls => self.handshake(now.at, Some(&datagram)),
            Sort::Rtp => self.media(now, &mut datagram),
            Sort::Rtcp => self.reports(now, &mut datagram),
            Sort::Other => self.faults.push(format!("{} bytes of nothing known", datagram.len())),
        }
    }

    /// When [`Peer::timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.gone {
            return None;
        }
        let handshake = self.handshake.as_ref().and_then(Handshake::due);
        let tick = self.is_connected().then_some(self.tick_at);
        let sources = self.sources.iter().filter_map(Source::next_at).min();
        [self.agent.next_at(), handshake, tick, sources].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now) {
        if self.gone {
            return;
        }
        let address = self.address;
        self.out.extend(self.agent.check(now.at, address));
        if self.handshake.as_ref().and_then(Handshake::due).is_some_and(|at| at <= now.at) {
            self.handshake(now.at, None);
        }
        let mut packets = Vec::new();
        self.sources.iter_mut().for_each(|source| source.produce(now.at, &mut packets));
        for packet in packets {
            self.send(now, &packet);
        }
        if self.is_connected() && self.tick_at <= now.at {
            self.tick_at = now.at + TICK;
            self.tick(now);
        }
    }

    /// What is to be sent.
    pub fn take_out(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out)
    }

    /// What broke a rule.
    pub fn take_faults(&mut self) -> Vec<String> {
        let mut faults = std::mem::take(&mut self.faults);
        self.receivers.iter_mut().for_each(|receiver| faults.extend(receiver.take_faults()));
        faults
    }

    fn connect(&mut self, now: Instant) {
        let begins = |handshake: &Handshake| !handshake.has_begun();
        if self.agent.is_connected() && self.handshake.as_ref().is_some_and(begins) {
            self.handshake(now, None);
        }
        if self.agent.is_connected() && self.keys.is_some() && self.connected_at.is_none() {
            self.connected_at = Some(now);
            self.tick_at = self.tick_at.max(now);
            self.sources.iter_mut().for_each(|source| source.start(now));
        }
    }

    fn handshake(&mut self, now: Instant, datagram: Option<&[u8]>) {
        let Some(handshake) = &mut self.handshake else { return };
        for output in handshake.step(now, datagram) {
            match output {
                dtls::Output::Transmit(datagram) => self.out.push(datagram),
                dtls::Output::Connected(keys) => self.set_keys(now, &keys),
                dtls::Output::Failed(why) => self.faults.push(format!("DTLS failed: {why}")),
                dtls::Output::Received(_)
                | dtls::Output::Closed
                | dtls::Output::Timeout(_)
                | dtls::Output::Idle => {}
            }
        }
    }

    fn media(&mut self, now: Now, datagram: &mut [u8]) {
        let Some((inbound, _)) = &mut self.keys else { return };
        let len = match inbound.unprotect_rtp(datagram) {
            Ok(len) => len,
            Err(error) => return self.undecryptable("SRTP", error),
        };
        let packet = datagram.get(..len).unwrap_or_default();
        let Some((header, payload)) = Header::read(packet) else {
            return self.faults.push("an RTP packet that cannot be read".into());
        };
        let ssrc = header.ssrc;
        let mine = |receiver: &&mut Receiver| receiver.ssrc == ssrc || receiver.rtx_ssrc == ssrc;
        match self.receivers.iter_mut().find(mine) {
            Some(receiver) => receiver.packet(now, &header, payload),
            None if self.ended.contains(&ssrc) => {}
            None => self.faults.push(format!("nobody asked for SSRC {ssrc:08x}")),
        }
    }

    fn reports(&mut self, now: Now, datagram: &mut [u8]) {
        let Some((inbound, _)) = &mut self.keys else { return };
        let len = match inbound.unprotect_rtcp(datagram) {
            Ok(len) => len,
            Err(error) => return self.undecryptable("SRTCP", error),
        };
        let Some(reports) = rtcp::read(datagram.get(..len).unwrap_or_default()) else {
            return self.faults.push("an RTCP compound that cannot be read".into());
        };
        let first = reports.first();
        if !matches!(first, Some(Report::SenderReport { .. } | Report::ReceiverReport { .. })) {
            self.faults.push(format!("a compound starts with {first:?} (RFC 3550 section 6.1)"));
        }
        for report in reports {
            self.report(now, report);
        }
    }

    fn report(&mut self, now: Now, report: Report) {
        match report {
            Report::SenderReport { ssrc, ntp, rtp, blocks, .. } => {
                if let Some(receiver) = self.receivers.iter_mut().find(|r| r.ssrc == ssrc) {
                    receiver.sender_report(now.at, ntp, rtp);
                } else if !self.ended.contains(&ssrc) {
                    self.faults
                        .push(format!("a sender report of {ssrc:08x}, which nobody asked for"));
                }
                self.blocks(&blocks);
            }
            Report::ReceiverReport { blocks, .. } => self.blocks(&blocks),
            Report::Nack { media, seqs, .. } => self.resend(now, media, &seqs),
            Report::Pli { media, .. } => self.key_frame(now, media),
            Report::Fir { entries, .. } => {
                entries.iter().for_each(|(media, _)| self.key_frame(now, *media));
            }
            Report::Bye(ssrcs) => {
                let ending = self.receivers.iter_mut().filter(|r| ssrcs.contains(&r.ssrc));
                ending.for_each(|receiver| receiver.ended = true);
            }
            Report::TransportFeedback { count, .. } => {
                if !self.spec.transport_cc || count == 0 {
                    self.faults
                        .push("transport-wide feedback that was not agreed, or of nothing".into());
                }
            }
            Report::Remb { bitrate_bps } => {
                if !self.spec.remb || bitrate_bps == 0 {
                    self.faults.push("REMB that was not agreed, or of nothing".into());
                }
            }
            Report::Names(_) | Report::Other(_) => {}
        }
    }

    fn blocks(&mut self, blocks: &[rtcp::Block]) {
        for block in blocks {
            let mut layers = self.sources.iter_mut().flat_map(|source| &mut source.layers);
            match layers.find(|layer| [layer.ssrc, layer.rtx_ssrc].contains(&block.ssrc)) {
                Some(layer) => layer.acknowledged |= layer.ssrc == block.ssrc,
                None if self.ended.contains(&block.ssrc) => {}
                None => {
                    self.faults.push(format!("a report on {:08x}, which is not ours", block.ssrc))
                }
            }
        }
    }

    fn resend(&mut self, now: Now, media: u32, seqs: &[u16]) {
        let Some(source) =
            self.sources.iter_mut().find(|s| s.layers.iter().any(|l| l.ssrc == media))
        else {
            if !self.ended.contains(&media) {
                self.faults
                    .push(format!("a request for packets of {media:08x}, which is not ours"));
            }
            return;
        };
        if let Some(seq) = seqs.iter().find(|seq| source.is_ahead(media, **seq)) {
            self.faults.push(format!("packet {seq} of {media:08x} is missed before it was sent"));
        }
        let again: Vec<Packet> =
            seqs.iter().filter_map(|seq| source.resend(now.at, media, *seq)).collect();
        for packet in again {
            self.send(now, &packet);
        }
    }

    fn key_frame(&mut self, now: Now, media: u32) {
        let Some(source) =
            self.sources.iter_mut().find(|s| s.layers.iter().any(|l| l.ssrc == media))
        else {
            if !self.ended.contains(&media) {
                self.faults
                    .push(format!("a key frame of {media:08x} is wanted, which is not ours"));
            }
            return;
        };
        source.want_key_frame(media);
        let (count, since) = self.key_requests.entry(media).or_insert((0, now.at));
        *count += 1;
        // The lines may hold the first back for long (a connection, 1.6 s), and hurry those that follow.
        let interval = strait_core::limits::KEY_FRAME_REQUEST_INTERVAL.as_millis();
        let allowed = (now.at.since(*since).as_millis() + 2000) / interval + 1;
        if u128::from(*count) > allowed {
            let count = *count;
            self.faults
                .push(format!("{count} key frames of {media:08x} wanted, {allowed} allowed"));
        }
    }

    fn undecryptable(&mut self, what: &str, error: srtp::Error) {
        // The network doubles and delays; the relay must do neither, but that shows elsewhere.
        if !matches!(error, srtp::Error::Replayed | srtp::Error::TooOld) {
            self.faults.push(format!("{what} of the relay cannot be opened: {error}"));
        }
    }
}
