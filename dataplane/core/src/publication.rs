//! A published stream: its encodings, and which SSRC belongs to which.

use crate::arrival::delay::{Delay, SendTime};
use crate::arrival::loss::Loss;
use crate::arrival::rate::Rate;
use crate::cache::Cache;
use crate::command::{self, CodecKind, Kind, PublicationId};
use crate::demand::Demand;
use crate::drop::DropReason;
use crate::fec::Fec;
use crate::inner::Inner;
use crate::keyframe::KeyFrameRequests;
use crate::keyframe_cache::LastKeyFrame;
use crate::limits::{
    CACHE_PACKETS_AUDIO, CACHE_PACKETS_VIDEO, ENCODING_IDLE, ENCODING_IDLE_BESIDE,
    ENCODING_IDLE_GAPS, ENDED_SSRCS,
};
use crate::measure::{Reception, ticks_between};
use crate::mirror::{Mirrors, NOBODY, Origin};
use crate::packet::{Packet, unwrap_rtx};
use crate::peek::{Layering, Peek};
use crate::quality;
use crate::repair::Missing;
use crate::rewrite::Source;
use crate::route::Leg;
use crate::select::Active;
use crate::sequence::Window;
use crate::size::height;
use crate::slab::Slab;
use crate::speaker::{Place, Sound};
use crate::subscription::Subscription;
use crate::time::{Duration, Instant, Now};
use std::collections::{BTreeMap, VecDeque};
use strait_wire::rtp;

/// A stream that a peer publishes.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) id: PublicationId,
    /// [`crate::mirror::NOBODY`] for a mirror.
    pub(crate) peer: u32,
    /// Of a mirror: the other worker's publication that it repeats.
    pub(crate) origin: Option<Origin>,
    pub(crate) mirrors: Mirrors,
    pub(crate) demand: Demand,
    pub(crate) kind: Kind,
    pub(crate) leg: Leg,
    pub(crate) encodings: Vec<Encoding>,
    pub(crate) muted: bool,
    /// Our SSRC towards this publisher.
    pub(crate) report_ssrc: u32,
    pub(crate) subscriptions: Vec<u32>,
    /// Whether any subscriber asks for packets again.
    pub(crate) repairs: bool,
    /// Whether any subscriber gets packets as they came.
    pub(crate) hands_on: bool,
    pub(crate) started: bool,
    /// Of audio: who speaks, and who hears it.
    pub(crate) sound: Sound,
}

/// One encoding of a publication.
#[derive(Debug)]
pub(crate) struct Encoding {
    pub(crate) rid: Box<str>,
    /// 0 until learned.
    pub(crate) ssrc: u32,
    /// 0 until learned, or none.
    pub(crate) rtx_ssrc: u32,
    pub(crate) source: Source,
    /// Of a mirror: the source at the origin.
    pub(crate) origin: Source,
    pub(crate) window: Window,
    pub(crate) layering: Layering,
    pub(crate) last_key_frame: LastKeyFrame,
    pub(crate) reception: Reception,
    pub(crate) loss: Loss,
    pub(crate) delay: Delay,
    /// What was counted by the time that its quality was last told.
    pub(crate) before: quality::Before,
    pub(crate) requests: KeyFrameRequests,
    pub(crate) cache: Cache,
    /// The same as they came, for subscribers that get them so.
    pub(crate) sealed: Cache,
    pub(crate) missing: Missing,
    /// Where it was agreed.
    pub(crate) fec: Option<Box<Fec>>,
    /// When the last packet arrived.
    pub(crate) active_at: Option<Instant>,
    /// How long passed between its pictures lately, at most.
    gap: Duration,
    pub(crate) rate: Rate,
    /// How that divides among the layers inside it.
    pub(crate) inner: Inner,
    /// Of its pictures, in pixels, as the last key frame said.
    pub(crate) height: Option<u16>,
    pub(crate) clock_rate_hz: u32,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) key_frames: u64,
    pub(crate) key_frame_requests: u64,
    /// How often the last key frame was shown out of the cache.
    pub(crate) key_frames_shown: u64,
}

impl Encoding {
    pub(crate) fn new(signalled: &command::Encoding, kind: Kind, source: Source) -> Self {
        let packets = match kind {
            Kind::Audio => CACHE_PACKETS_AUDIO,
            Kind::Video => CACHE_PACKETS_VIDEO,
        };
        Self {
            rid: signalled.rid.as_str().into(),
            ssrc: signalled.ssrc,
            rtx_ssrc: signalled.rtx_ssrc,
            source,
            origin: Source::default(),
            window: Window::default(),
            layering: Layering::default(),
            last_key_frame: LastKeyFrame::default(),
            reception: Reception::default(),
            loss: Loss::default(),
            delay: Delay::default(),
            before: quality::Before::default(),
            requests: KeyFrameRequests::default(),
            cache: Cache::new(packets),
            sealed: Cache::new(packets),
            missing: Missing::default(),
            fec: None,
            active_at: None,
            gap: Duration::ZERO,
            rate: Rate::default(),
            inner: Inner::default(),
            height: None,
            clock_rate_hz: 0,
            packets: 0,
            bytes: 0,
            key_frames: 0,
            key_frame_requests: 0,
            key_frames_shown: 0,
        }
    }

    /// Starts over with another SSRC: numbers and times of the old one say nothing about it.
    pub(crate) fn restart(&mut self, ssrc: u32, source: Source) {
        self.ssrc = ssrc;
        self.source = source;
        self.window = Window::default();
        self.layering = Layering::default();
        self.inner.restart();
        self.last_key_frame.forget();
        self.reception = Reception::default();
        self.loss.restart();
        self.delay = Delay::default();
        self.cache.clear();
        self.sealed.clear();
        self.missing = Missing::default();
        self.fec.iter_mut().for_each(|fec| fec.restart());
    }

    /// A packet came whose number was there before. Returns whether it is an original that what was sent for it outran, as
    /// far as can be told.
    pub(crate) fn came_again(&mut self, seq: u16, carries: Carries) -> bool {
        carries == Carries::Media && self.loss.on_again(self.window.extend(seq))
    }

    /// Whether packets came lately.
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.active_at.is_some_and(|at| now.since(at) < ENCODING_IDLE)
    }

    /// Whether another that had a packet at `newest` does not show that this one stopped.
    fn keeps_up_with(&self, newest: Instant) -> bool {
        let patience = ENCODING_IDLE_BESIDE.max(self.gap * ENCODING_IDLE_GAPS);
        self.active_at.is_some_and(|at| newest.since(at) < patience)
    }

    fn note_activity(&mut self, now: Instant) {
        let gap = self.active_at.map_or(Duration::ZERO, |at| now.since(at));
        // Packets of one picture come together.
        if gap > WITHIN_PICTURE {
            self.gap = gap.max(self.gap - self.gap / 8);
        }
        self.active_at = Some(now);
    }
}

impl Publication {
    /// Takes a decrypted packet in: unwraps RTX, refuses what came before, measures, keeps it for repair.
    pub(crate) fn take<'a>(
        &mut self,
        now: Now,
        arrived_at: Instant,
        stream: Stream,
        bytes: &'a mut [u8],
    ) -> Result<Packet<'a>, DropReason> {
        let encoding =
            self.encodings.get_mut(stream.encoding as usize).ok_or(DropReason::StreamUnknown)?;
        let header = rtp::Header::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
        let carries = match stream.carries {
            Carries::Media if self.leg.codec_of_rtx(header.pt()).is_some() => Carries::Rtx,
            carries => carries,
        };
        let is_rtx = carries == Carries::Rtx;
        let bytes = if is_rtx {
            let codec = self.leg.codec_of_rtx(header.pt()).ok_or(DropReason::PayloadTypeUnknown)?;
            let len = unwrap_rtx(bytes, codec.pt, encoding.ssrc)?;
            bytes.get_mut(..len).ok_or(DropReason::RtpMalformed)?
        } else {
            bytes
        };
        let bytes = match self.leg.fec.red.as_ref() {
            Some(red) => unwrap_red(&self.leg, red.pt, encoding, bytes, !self.hands_on)?,
            None => bytes,
        };
        let bytes = &*bytes;
        let header = rtp::Header::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
        let codec = self.leg.codec(header.pt()).ok_or(DropReason::PayloadTypeUnknown)?;
        // Nothing was received yet that a retransmission could fill a gap of.
        if is_rtx && encoding.window.newest().is_none() {
            return Err(DropReason::PacketTooLate);
        }
        let newest = encoding.window.newest();
        let seq = match encoding.window.accept(header.seq()) {
            Ok(seq) => seq,
            Err(reason) => {
                let is_late = encoding.came_again(header.seq(), carries);
                // One that is older than the window may be anything.
                if is_late && reason == DropReason::PacketDuplicate {
                    let (seq, sent) = (encoding.window.extend(header.seq()), header.timestamp());
                    encoding.reception.on_packet(arrived_at, seq, sent, codec.clock_rate_hz);
                    encoding.missing.came_after_all(seq, now.at);
                }
                return Err(reason);
            }
        };
        let mut packet = Packet::parse(bytes, seq, &self.leg, Peek::default())?;
        packet.look(codec.kind, &mut encoding.layering);
        encoding.clock_rate_hz = codec.clock_rate_hz;
        encoding.note_activity(now.at);
        encoding.packets += 1;
        encoding.bytes += bytes.len() as u64;
        encoding.inner.count(packet.peek.layer.of, bytes.len());
        // Without RTX what was asked for looks like what is only late.
        let is_original = carries == Carries::Media && codec.rtx_pt.is_some();
        encoding.missing.arrived(seq, now.at, is_original);
        if let Some(fec) = &mut encoding.fec {
            fec.arrived(seq, is_rtx);
            fec.statistics.recovered += u64::from(carries == Carries::Fec);
        }
        // A mirror's origin has seen the gap and asks.
        let repairs = self.repairs && codec.nack && self.origin.is_none();
        if let Some(newest) = newest.filter(|_| repairs) {
            encoding.missing.skipped(newest, seq, now.at);
        }
        if carries != Carries::Media {
            encoding.loss.on_repair(seq);
        } else {
            let sent = (packet.timestamp, codec.clock_rate_hz);
            encoding.reception.on_packet(arrived_at, seq, sent.0, sent.1);
            // A mirror's origin has measured it.
            if self.origin.is_none() {
                encoding.loss.on_packet(arrived_at, seq, sent.0, sent.1);
                let id = self.leg.extensions.abs_send_time;
                let absolute = (id != 0).then(|| header.extension(id)).flatten();
                let sent = match absolute.and_then(|bytes| <[u8; 3]>::try_from(bytes).ok()) {
                    Some([a, b, c]) => SendTime::Absolute(u32::from_be_bytes([0, a, b, c])),
                    None => SendTime::Timestamp(sent.0, sent.1),
                };
                encoding.delay.on_packet(arrived_at, sent, encoding.loss.lost());
            }
        }
        if packet.peek.key_frame {
            encoding.key_frames += 1;
            encoding.requests.satisfy();
            encoding.height = height(codec.kind, packet.payload).or(encoding.height);
        }
        // What was sent while it was held back is never shown.
        if self.repairs && !self.muted {
            encoding.last_key_frame.note(now.at, &packet);
        }
        if self.repairs {
            encoding.cache.insert(now, seq, bytes, packet.peek);
        }
        Ok(packet)
    }

    /// Who gets its packets: nobody while it is muted.
    pub(crate) fn audience(&self) -> &[u32] {
        if self.muted { &[] } else { &self.subscriptions }
    }

    /// Whether packets of it go anywhere.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.subscriptions.is_empty() || !self.mirrors.is_empty()
    }

    /// Gives back what only subscribers need, once nobody is left.
    pub(crate) fn rest(&mut self) {
        if self.is_wanted() {
            return;
        }
        self.repairs = false;
        self.hands_on = false;
        for encoding in &mut self.encodings {
            encoding.requests.satisfy();
            encoding.last_key_frame.forget();
            encoding.cache.clear();
            encoding.sealed.clear();
            encoding.fec.iter_mut().for_each(|fec| fec.rest());
        }
    }

    /// Whether a key frame of this encoding would serve anybody. For one that nobody waits for any more the encoder would
    /// repeat those of its other layers as well.
    pub(crate) fn is_awaited(
        &self,
        encoding: u8,
        active: Active,
        subscriptions: &Slab<Subscription>,
    ) -> bool {
        let elsewhere = self.encodings.get(usize::from(encoding));
        let elsewhere = elsewhere.is_some_and(|e| e.requests.is_wanted_elsewhere());
        let (pli, fir) = self.leg.asks_key_frames();
        let mut here = self.subscriptions.iter().filter_map(|slot| subscriptions.get(*slot));
        (pli || fir) && !self.muted && (elsewhere || here.any(|s| s.is_on(encoding, active)))
    }

    /// Why a packet that went to nobody went to nobody.
    pub(crate) fn why_unsent(&self) -> DropReason {
        if self.muted {
            DropReason::PublicationMuted
        } else if self.subscriptions.is_empty() {
            DropReason::NoSubscriber
        } else if self.sound.place != Place::Loudest {
            DropReason::NotLoudest
        } else {
            DropReason::NotSelected
        }
    }

    /// The source behind a stream.
    pub(crate) fn source(&self, stream: Stream) -> Result<Source, DropReason> {
        let encoding = self.encodings.get(stream.encoding as usize);
        Ok(encoding.ok_or(DropReason::StreamUnknown)?.source)
    }

    /// The encodings that carry packets; while none does (a still picture), those that are known.
    pub(crate) fn active(&self, now: Instant) -> Active {
        let newest = self.encodings.iter().filter_map(|encoding| encoding.active_at).max();
        let newest = newest.filter(|at| now.since(*at) < ENCODING_IDLE);
        let mut active = Active::default();
        for (number, encoding) in (0..).zip(&self.encodings) {
            let is_active = |newest| encoding.is_active(now) && encoding.keeps_up_with(newest);
            if newest.map_or(encoding.ssrc != 0, is_active) {
                active.insert(number);
            }
        }
        active
    }

    /// The timestamp that a packet of `to` has on the outgoing timeline of `from`, whose timestamps are moved by
    /// `offset`: sender reports tell which timestamps of the two are the same moment.
    pub(crate) fn align(
        &self,
        (from, offset): (Source, u32),
        to: Source,
        packet: &Packet<'_>,
    ) -> Option<u32> {
        let sender = |source| {
            let encoding = self.encodings.iter().find(|encoding| encoding.source == source)?;
            Some((encoding.reception.sender()?, encoding.clock_rate_hz))
        };
        let ((from, _), (to, clock_rate_hz)) = (sender(from)?, sender(to)?);
        let since = packet.timestamp.wrapping_sub(to.timestamp);
        let between = ticks_between(from.ntp, to.ntp, clock_rate_hz) as u32;
        Some(from.timestamp.wrapping_add(offset).wrapping_add(between).wrapping_add(since))
    }

    /// Whether the publisher sends lost packets again.
    pub(crate) fn nack(&self) -> bool {
        self.leg.codecs.iter().any(|codec| codec.nack)
    }

    /// Whether decoders of it wait for key frames, as far as can be told before a packet.
    pub(crate) fn has_key_frames(&self) -> bool {
        self.leg.codecs.iter().any(|c| !matches!(c.kind, CodecKind::Opus | CodecKind::Other))
    }
}

/// What an SSRC of a peer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) publication: u32,
    pub(crate) encoding: u8,
    pub(crate) carries: Carries,
}

/// In which way packets of an encoding come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// As they are.
    Media,
    /// Wrapped in RTX.
    Rtx,
    /// As parity: what is taken in is what was had from it.
    Fec,
}

impl Stream {
    /// Whether both carry packets of one encoding, be it for the first time or again.
    pub(crate) fn is_beside(self, other: Self) -> bool {
        (self.publication, self.encoding) == (other.publication, other.encoding)
    }
}

/// The SSRCs of a peer, at most three for each encoding. Sorted: there are few, and they are looked up often.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<(u32, Stream)>);

impl Streams {
    pub(crate) fn find(&self, ssrc: u32) -> Option<Stream> {
        let at = self.0.binary_search_by_key(&ssrc, |(ssrc, _)| *ssrc).ok()?;
        self.0.get(at).map(|(_, stream)| *stream)
    }

    /// Assigns an SSRC; 0 stands for none.
    pub(crate) fn insert(&mut self, ssrc: u32, stream: Stream) {
        match self.0.binary_search_by_key(&ssrc, |(ssrc, _)| *ssrc) {
            _ if ssrc == 0 => {}
            Ok(at) => self.0.get_mut(at).into_iter().for_each(|entry| entry.1 = stream),
            Err(at) => self.0.insert(at, (ssrc, stream)),
        }
    }

    pub(crate) fn remove(&mut self, ssrc: u32) {
        self.0.retain(|(held, _)| *held != ssrc);
    }

    /// The publications have other slots now.
    pub(crate) fn renumber(&mut self, places: &BTreeMap<u32, u32>) {
        for (_, stream) in &mut self.0 {
            stream.publication = places.get(&stream.publication).copied().unwrap_or(NOBODY);
        }
    }

    /// Forgets a publication and returns the SSRCs that it had.
    pub(crate) fn remove_publication(&mut self, publication: u32) -> Vec<u32> {
        let (gone, kept) =
            self.0.drain(..).partition::<Vec<_>, _>(|(_, s)| s.publication == publication);
        self.0 = kept;
        gone.into_iter().map(|(ssrc, _)| ssrc).collect()
    }
}

/// The SSRCs of streams that ended lately, with the MIDs that they had: what still comes of them is late, and must not pass
/// for the first packets of another stream with the same payload type.
#[derive(Debug, Default)]
pub(crate) struct Ended(VecDeque<(u32, Box<str>)>);

impl Ended {
    /// Remembers an SSRC, if need be for the one that ended first.
    pub(crate) fn add(&mut self, ssrc: u32, mid: &str) {
        self.remove(ssrc);
        self.0.push_back((ssrc, mid.into()));
        if self.0.len() > ENDED_SSRCS {
            self.0.pop_front();
        }
    }

    /// It is in use again.
    pub(crate) fn remove(&mut self, ssrc: u32) {
        self.0.retain(|(ended, _)| *ended != ssrc);
    }

    /// The MID of the stream that the SSRC had.
    fn mid(&self, ssrc: u32) -> Option<&str> {
        self.0.iter().find(|(ended, _)| *ended == ssrc).map(|(_, mid)| &**mid)
    }
}

/// Finds what a packet with an unknown SSRC belongs to: by MID and RID (RFC 8843 section 9.2, RFC 8853), or by a payload
/// type that only one publication has. An SSRC keeps the MID that it had (RFC 8843 section 9.2) until a packet says otherwise.
pub(crate) fn recognise<'p>(
    header: &rtp::Header<'_>,
    publications: impl Iterator<Item = (u32, &'p Publication)> + Clone,
    ended: &Ended,
) -> Option<Stream> {
    let text = |id: u8| (id != 0).then(|| header.extension(id)).flatten();
    let pt = header.pt();
    let takes = |leg: &Leg| leg.takes(pt);
    let with_mid = |p: &Publication| text(p.leg.extensions.mid).is_some();
    let (slot, publication) = if publications.clone().any(|(_, p)| with_mid(p)) {
        publications.into_iter().find(|(_, p)| {
            text(p.leg.extensions.mid) == Some(p.leg.mid.as_bytes()) && takes(&p.leg)
        })?
    } else {
        let had = ended.mid(header.ssrc());
        let mut candidates = publications
            .into_iter()
            .filter(|(_, p)| takes(&p.leg) && had.is_none_or(|mid| *mid == *p.leg.mid));
        let only = candidates.next()?;
        if candidates.next().is_some() {
            return None;
        }
        only
    };
    let rtx = publication.leg.codec_of_rtx(pt).is_some();
    let ids = &publication.leg.extensions;
    let rid = if rtx { text(ids.repaired_rid).or(text(ids.rid)) } else { text(ids.rid) };
    let encoding = match rid {
        Some(rid) if publication.encodings.iter().any(|e| !e.rid.is_empty()) => {
            publication.encodings.iter().position(|e| e.rid.as_bytes() == rid)?
        }
        _ if publication.encodings.len() == 1 => 0,
        _ => return None,
    };
    let carries = if rtx { Carries::Rtx } else { Carries::Media };
    Some(Stream { publication: slot, encoding: encoding as u8, carries })
}

/// A packet without the block (RFC 2198) around it, if it has one.
fn unwrap_red<'a>(
    leg: &Leg,
    red_pt: u8,
    encoding: &mut Encoding,
    bytes: &'a mut [u8],
    mends: bool,
) -> Result<&'a mut [u8], DropReason> {
    let header = rtp::Header::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
    if header.pt() != red_pt {
        return Ok(bytes);
    }
    let media_pt = leg.codecs.first().ok_or(DropReason::PayloadTypeUnknown)?.pt;
    // One that lies takes its number all the same.
    let keep = |payload: &[u8]| {
        if mends {
            encoding.protect(payload, false).unwrap_or_default();
        }
    };
    let len = leg.fec.unwrap(bytes, media_pt, keep)?;
    bytes.get_mut(..len).ok_or(DropReason::RtpMalformed)
}

/// What comes so soon after another packet is of the same picture.
const WITHIN_PICTURE: Duration = Duration::from_millis(15);
