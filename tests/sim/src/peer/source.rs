//! What a peer's camera or microphone sends.

use crate::payload::{self, Identity};
use crate::plan::VideoSpec;
use crate::protocol::rtcp::Packet as Report;
use crate::rng::Rng;
use std::collections::VecDeque;
use strait_core::command::{Codec, Kind};
use strait_core::time::{Duration, Instant};

/// How many packets are kept for being sent again.
const HISTORY: usize = 400;
/// A packet is sent again at most this often.
const RESEND_INTERVAL: Duration = Duration::from_millis(30);

/// A packet before its header extensions and its protection.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Payload type.
    pub pt: u8,
    /// Which layer's.
    pub layer: usize,
    /// The layer's stream, or that of its retransmissions.
    pub ssrc: u32,
    /// Sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Last of its frame.
    pub marker: bool,
    /// Payload, which is empty when there is only padding.
    pub payload: Vec<u8>,
    /// Padding bytes.
    pub padding: u8,
    /// It repeats an earlier one.
    pub repeated: bool,
}

/// One encoding.
#[derive(Clone, Debug)]
pub struct Layer {
    /// RID; empty without simulcast.
    pub rid: String,
    /// Of the media.
    pub ssrc: u32,
    /// Of what is sent again, if RTX is agreed.
    pub rtx_ssrc: u32,
    /// Whether it sends at all.
    pub active: bool,
    /// The relay has reported on it: MID and RID need not be sent any more, as browsers do it.
    pub acknowledged: bool,
    seq: u16,
    rtx_seq: u16,
    frame: u32,
    picture_id: u16,
    tl0_pic_idx: u8,
    timestamp_base: u32,
    key_wanted: bool,
    key_frames: u64,
    sent: VecDeque<(Packet, Instant)>,
    packets: u32,
    octets: u32,
}

/// A published stream.
#[derive(Clone, Debug)]
pub struct Source {
    /// Unique in a run; receivers find it in every packet.
    pub stream: u32,
    /// Audio or video.
    pub kind: Kind,
    /// MID on this leg.
    pub mid: String,
    /// How it is sent.
    pub codec: Codec,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// Nothing is sent though nobody was told.
    pub silent: bool,
    spec: VideoSpec,
    started: Instant,
    next_at: Option<Instant>,
    said_goodbye: bool,
    rng: Rng,
}

impl Source {
    /// A stream that starts to send when [`Source::start`] is called. `may_wrap`: its numbers may wrap soon after.
    #[must_use]
    pub fn new(
        stream: u32,
        mid: String,
        codec: Codec,
        video: Option<VideoSpec>,
        may_wrap: bool,
        mut rng: Rng,
    ) -> Self {
        let spec = video.unwrap_or_default();
        let count = video.map_or(1, |spec| spec.layers);
        let layers = (0..count)
            .map(|layer| Layer {
                rid: if count > 1 {
                    ["q", "h", "f"][usize::from(layer % 3)].into()
                } else {
                    String::new()
                },
                ssrc: rng.bits() as u32 | 1,
                rtx_ssrc: if codec.rtx_pt.is_some() { rng.bits() as u32 | 1 } else { 0 },
                active: true,
                acknowledged: false,
                seq: first_sequence_number(may_wrap, &mut rng),
                rtx_seq: rng.bits() as u16,
                frame: 0,
                picture_id: if rng.chance(0.4) {
                    0x7fff - rng.range(1..=40) as u16
                } else {
                    rng.bits() as u16 & 0x7fff
                },
                tl0_pic_idx: rng.bits() as u8,
                timestamp_base: if rng.chance(0.3) {
                    0_u32.wrapping_sub(100_000)
                } else {
                    rng.bits() as u32
                },
                key_wanted: true,
                key_frames: 0,
                sent: VecDeque::new(),
                packets: 0,
                octets: 0,
            })
            .collect();
        let kind = if video.is_some() { Kind::Video } else { Kind::Audio };
        Self {
            stream,
            kind,
            mid,
            codec,
            layers,
            silent: false,
            spec,
            started: Instant(0),
            next_at: None,
            said_goodbye: false,
            rng,
        }
    }

    /// From now on frames are made.
    pub fn start(&mut self, now: Instant) {
        if self.next_at.is_none() {
            self.started = now;
            self.next_at = Some(now + self.rng.up_to(self.interval()));
        }
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Makes the frames that are due.
    pub fn produce(&mut self, now: Instant, out: &mut Vec<Packet>) {
        while let Some(at) = self.next_at.filter(|at| *at <= now) {
            self.next_at = Some(at + self.interval());
            if self.silent {
                continue;
            }
            for layer in 0..self.layers.len() {
                if self.layers[layer].active {
                    self.frame(at, layer, out);
                }
            }
        }
    }

    /// The next frame of the layer with this SSRC will be a key frame.
    pub fn want_key_frame(&mut self, ssrc: u32) {
        self.layers.iter_mut().filter(|layer| layer.ssrc == ssrc).for_each(|l| l.key_wanted = true);
    }

    /// Key frames made so far, over all layers.
    #[must_use]
    pub fn key_frames(&self) -> u64 {
        self.layers.iter().map(|layer| layer.key_frames).sum()
    }

    /// Sends a packet again, on the stream of retransmissions if there is one (RFC 4588 section 4).
    pub fn resend(&mut self, now: Instant, ssrc: u32, seq: u16) -> Option<Packet> {
        let rtx_pt = self.codec.rtx_pt;
        let layer = self.layers.iter_mut().find(|layer| layer.ssrc == ssrc)?;
        let (packet, last) = layer.sent.iter_mut().find(|(packet, _)| packet.seq == seq)?;
        if now.since(*last) < RESEND_INTERVAL {
            return None;
        }
        *last = now;
        let mut again = Packet { repeated: true, ..packet.clone() };
        if let Some(pt) = rtx_pt {
            let mut payload = seq.to_be_bytes().to_vec();
            payload.append(&mut again.payload);
            (again.pt, again.ssrc, again.seq, again.payload) =
                (pt, layer.rtx_ssrc, layer.rtx_seq, payload);
            layer.rtx_seq = layer.rtx_seq.wrapping_add(1);
        }
        Some(again)
    }

    /// When the frame with this timestamp was captured, by a guess of the present time.
    #[must_use]
    pub fn captured_at(&self, layer: u8, timestamp: u32, now: Instant) -> Option<Instant> {
        let current = self.timestamp(self.layers.get(usize::from(layer))?, now);
        let age = u64::from(current.wrapping_sub(timestamp));
        let nanos = age * 1_000_000_000 / u64::from(self.codec.clock_rate_hz);
        Some(now - Duration::from_nanos(nanos))
    }

    /// Whether no packet of this number was sent yet.
    #[must_use]
    pub fn is_ahead(&self, ssrc: u32, seq: u16) -> bool {
        let layer = self.layers.iter().find(|layer| layer.ssrc == ssrc);
        layer.is_some_and(|layer| seq.wrapping_sub(layer.seq) < 0x8000)
    }

    /// A sender report for each layer that has sent something.
    #[must_use]
    pub fn reports(&self, now: Instant, ntp: u64) -> Vec<Report> {
        let reports = self.layers.iter().filter(|layer| layer.packets > 0).map(|layer| {
            Report::SenderReport {
                ssrc: layer.ssrc,
                ntp,
                rtp: self.timestamp(layer, now),
                packets: layer.packets,
                octets: layer.octets,
                blocks: Vec::new(),
            }
        });
        reports.collect()
    }

    /// Stops for good, and says which streams end. `None` if that was said before.
    pub fn bye(&mut self) -> Option<Report> {
        self.next_at = None;
        let said = std::mem::replace(&mut self.said_goodbye, true);
        let ssrcs = self.layers.iter().map(|layer| layer.ssrc).collect();
        (!said).then_some(Report::Bye(ssrcs))
    }

    fn interval(&self) -> Duration {
        match self.kind {
            Kind::Audio => Duration::from_millis(20),
            Kind::Video => Duration::from_secs(1) / self.spec.fps.max(1),
        }
    }

    fn timestamp(&self, layer: &Layer, at: Instant) -> u32 {
        let elapsed = u128::from(at.0.saturating_sub(self.started.0));
        let ticks = elapsed * u128::from(self.codec.clock_rate_hz) / 1_000_000_000;
        layer.timestamp_base.wrapping_add(ticks as u32)
    }

    fn frame(&mut self, at: Instant, index: usize, out: &mut Vec<Packet>) {
        let video = self.kind == Kind::Video;
        let timestamp = self.timestamp(&self.layers[index], at);
        let layer = &mut self.layers[index];
        let key = !video || std::mem::take(&mut layer.key_wanted);
        let most =
            u64::from(self.spec.packets_max) * (index as u64 + 1) / self.spec.layers.max(1) as u64;
        let extra = if key { 2 } else { 0 };
        let count = if video { self.rng.range(1..=most.max(1)) as u8 + extra } else { 1 };
        layer.key_frames += u64::from(key && video);
        for place in 0..count {
            let identity = Identity {
                stream: self.stream,
                layer: index as u8,
                frame: layer.frame,
                index: place,
                count,
                key,
                timestamp,
            };
            let payload = if video {
                let len = self.rng.range(60..=400) as usize;
                payload::vp8(&identity, layer.picture_id, layer.tl0_pic_idx, len)
            } else {
                payload::opus(&identity, self.rng.range(40..=120) as usize)
            };
            let marker = if video { place + 1 == count } else { layer.frame == 0 };
            layer.send(index, self.codec.pt, timestamp, marker, payload, 0, out);
        }
        layer.frame += 1;
        layer.picture_id = (layer.picture_id + 1) & 0x7fff;
        layer.tl0_pic_idx = layer.tl0_pic_idx.wrapping_add(1);
        if video && self.spec.padding && self.rng.chance(0.1) {
            let padding = self.rng.range(4..=255) as u8;
            layer.send(index, self.codec.pt, timestamp, false, Vec::new(), padding, out);
        }
    }
}

/// Where a stream begins. Many begin shortly before their numbers wrap, as that is where mistakes are; but not so shortly
/// that a line could lose all before the wrap, which no SRTP receiver can know of (RFC 3711 section 3.3.1). The others begin
/// in the lower half, as senders do for that reason.
pub(crate) fn first_sequence_number(may_wrap: bool, rng: &mut Rng) -> u16 {
    let ahead = rng.range(100..=250) as u16;
    if may_wrap && rng.chance(0.4) {
        0_u16.wrapping_sub(ahead)
    } else {
        rng.range(0..=0x7fff) as u16
    }
}

impl Layer {
    #[allow(clippy::too_many_arguments)] // The fields of a packet, all in one place.
    fn send(
        &mut self,
        layer: usize,
        pt: u8,
        timestamp: u32,
        marker: bool,
        payload: Vec<u8>,
        padding: u8,
        out: &mut Vec<Packet>,
    ) {
        let (ssrc, seq) = (self.ssrc, self.seq);
        self.seq = seq.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        let packet =
            Packet { pt, layer, ssrc, seq, timestamp, marker, payload, padding, repeated: false };
        if self.sent.len() == HISTORY {
            self.sent.pop_front();
        }
        // Long ago: the first request is answered at once.
        self.sent.push_back((packet.clone(), Instant(0)));
        out.push(packet);
    }
}
