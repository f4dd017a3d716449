//! What a peer puts on its line: media with header extensions, requests, reports.

use super::receiver;
use super::source::Packet;
use super::{Peer, REPORT_INTERVAL};
use crate::payload;
use crate::plan::PeerSpec;
use crate::protocol::rtcp::{self, Packet as Report};
use crate::protocol::rtp::Header;
use crate::rng::Rng;
use strait_core::command::{Extensions, Kind};
use strait_core::time::Now;
use strait_crypt::srtp;

impl Peer {
    /// Looks after its streams: what is missed, and what is to be reported.
    pub(super) fn tick(&mut self, now: Now) {
        let sender = self.own_ssrc();
        let mut requests = Vec::new();
        for receiver in &mut self.receivers {
            receiver.requests(now.at, sender, &mut requests);
        }
        if !requests.is_empty() {
            if !self.reduced_size {
                requests.insert(0, Report::ReceiverReport { ssrc: sender, blocks: Vec::new() });
            }
            self.send_reports(&requests);
        }
        if self.report_at <= now.at {
            self.report_at = now.at + REPORT_INTERVAL / 2 + self.rng.up_to(REPORT_INTERVAL);
            let mut reports: Vec<Report> =
                self.sources.iter().flat_map(|source| source.reports(now.at, now.ntp)).collect();
            let blocks: Vec<_> =
                self.receivers.iter_mut().filter_map(|receiver| receiver.block(now.at)).collect();
            // A report block's count has five bits.
            for blocks in blocks.chunks(31) {
                reports.push(Report::ReceiverReport { ssrc: sender, blocks: blocks.to_vec() });
            }
            if reports.is_empty() {
                reports.push(Report::ReceiverReport { ssrc: sender, blocks: Vec::new() });
            }
            reports.push(Report::Names(vec![(sender, format!("peer-{}", self.index))]));
            self.send_reports(&reports);
        }
    }

    /// The SSRC in whose name it reports.
    pub(super) fn own_ssrc(&self) -> u32 {
        let first = self.sources.first().and_then(|source| source.layers.first());
        first.map_or(1, |layer| layer.ssrc)
    }

    /// Gives a packet its header extensions and its protection, and sends it.
    pub(super) fn send(&mut self, now: Now, packet: &Packet) {
        let Some((_, outbound)) = &mut self.keys else { return };
        let Some(source) = self.sources.iter().find(|source| {
            source.layers.iter().any(|layer| [layer.ssrc, layer.rtx_ssrc].contains(&packet.ssrc))
        }) else {
            return;
        };
        let mut header = Header {
            pt: packet.pt,
            marker: packet.marker,
            seq: packet.seq,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
            padding: packet.padding,
            extensions: Vec::new(),
        };
        let resent_plainly = packet.repeated && source.codec.rtx_pt.is_none();
        let ids = self.extensions;
        let mut extend = |id: u8, value: &[u8]| {
            if id != 0 {
                header.extensions.push((id, value.to_vec()));
            }
        };
        // The same packet twice under one number must be the same packet (RFC 3711 section 9.1), so a
        // plain repetition has nothing in its header that changes from one sending to the next.
        let constant = source.codec.rtx_pt.is_none() && source.kind == Kind::Video;
        if let Some(layer) = source.layers.get(packet.layer)
            && (!layer.acknowledged || constant)
        {
            extend(ids.mid, source.mid.as_bytes());
            if !layer.rid.is_empty() {
                let id =
                    if packet.repeated && !resent_plainly { ids.repaired_rid } else { ids.rid };
                extend(id, layer.rid.as_bytes());
            }
        }
        if !constant {
            let abs_send_time = ((now.ntp >> 14) as u32).to_be_bytes();
            extend(ids.abs_send_time, &abs_send_time[1..]);
            if self.spec.transport_cc {
                extend(ids.transport_cc, &self.transport_seq.to_be_bytes());
                self.transport_seq = self.transport_seq.wrapping_add(1);
            }
        }
        if source.kind == Kind::Audio
            && let Some(read) = payload::read_opus(&packet.payload)
        {
            extend(ids.audio_level, &[receiver::level_of(&read.identity)]);
        }
        let mut bytes = Vec::with_capacity(packet.payload.len() + 128);
        header.write(&mut bytes);
        bytes.extend(&packet.payload);
        if packet.padding > 0 {
            bytes.resize(bytes.len() + usize::from(packet.padding), 0);
            *bytes.last_mut().expect("there is padding") = packet.padding;
        }
        let len = bytes.len();
        bytes.resize(len + srtp::TAG_MAX, 0);
        let protected = if resent_plainly {
            outbound.resend_rtp(&mut bytes, len)
        } else {
            outbound.protect_rtp(&mut bytes, len)
        };
        match protected {
            Ok(len) => {
                bytes.truncate(len);
                self.out.push(bytes);
            }
            Err(srtp::Error::TooOld) if resent_plainly => {}
            Err(error) => self.faults.push(format!("protect: {error}")),
        }
    }

    /// Protects a compound and sends it.
    pub(super) fn send_reports(&mut self, reports: &[Report]) {
        let Some((_, outbound)) = &mut self.keys else { return };
        let mut bytes = Vec::new();
        reports.iter().for_each(|report| rtcp::write(report, &mut bytes));
        let len = bytes.len();
        bytes.resize(len + srtp::TAG_MAX + 8, 0);
        match outbound.protect_rtcp(&mut bytes, len) {
            Ok(len) => {
                bytes.truncate(len);
                self.out.push(bytes);
            }
            Err(error) => self.faults.push(format!("protect: {error}")),
        }
    }
}

/// Every leg has ids of its own, as every browser has.
pub(super) fn extension_ids(spec: &PeerSpec, rng: &mut Rng) -> Extensions {
    let mut ids: Vec<u8> = if spec.two_byte { (10..40).collect() } else { (1..=14).collect() };
    let mut draw = || {
        let at = rng.index(ids.len());
        ids.swap_remove(at)
    };
    Extensions {
        mid: draw(),
        rid: draw(),
        repaired_rid: draw(),
        audio_level: draw(),
        abs_send_time: draw(),
        transport_cc: if spec.transport_cc { draw() } else { 0 },
        playout_delay: 0,
        video_orientation: draw(),
        dependency_descriptor: 0,
    }
}
