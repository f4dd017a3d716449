//! What a peer makes of one stream that the relay sends it, and every rule that this stream must keep.

use super::chain::{self, Arrived, Chain};
use crate::payload::{self, Identity};
use crate::protocol::rtcp::{Block, Packet as Report};
use crate::protocol::rtp::{Extender, Header};
use std::collections::BTreeMap;
use strait_core::command::{Codec, Extensions, Kind};
use strait_core::time::{Duration, Instant, Now};

/// A hole is asked for after so long: what was merely overtaken has come by then.
const NACK_AFTER: Duration = Duration::from_millis(15);
/// And again after so long.
const NACK_INTERVAL: Duration = Duration::from_millis(100);
/// So many times.
const NACK_TRIES: u8 = 10;
/// Holes asked for at a time.
const MISSING: usize = 300;
/// Sequence numbers that are remembered for comparison with their neighbours.
const RECENT: usize = 700;
/// Without a picture, a key frame is asked for this often.
const PLI_INTERVAL: Duration = Duration::from_millis(500);

/// The receiving end of one subscription.
#[derive(Debug)]
pub struct Receiver {
    /// The control plane's name of the slot.
    pub slot: usize,
    /// Audio or video.
    pub kind: Kind,
    /// MID on this leg.
    pub mid: String,
    /// Of the media.
    pub ssrc: u32,
    /// Of what is sent again.
    pub rtx_ssrc: u32,
    /// What may come.
    pub codec: Codec,
    /// With which header extensions.
    pub extensions: Extensions,
    /// What it saw.
    pub counts: Counts,
    /// When the newest decoded frame became newer.
    pub advanced_at: Option<Instant>,
    /// The newest decoded frame's first packet.
    pub newest: Option<Identity>,
    /// The relay said goodbye to it.
    pub ended: bool,
    extender: Extender,
    recent: BTreeMap<u64, Option<Seen>>,
    chain: Chain,
    missing: BTreeMap<u64, (Instant, u8)>,
    asked_key_at: Option<Instant>,
    fir_seq: u8,
    statistics: Statistics,
    /// The last sender report: NTP and RTP time.
    report: Option<(u64, u32)>,
    /// What broke a rule.
    faults: Vec<String>,
}

/// Counters for people and for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets, those sent again included.
    pub packets: u64,
    /// Packets that came by RTX.
    pub repaired: u64,
    /// Packets that came twice.
    pub doubled: u64,
    /// Frames decoded.
    pub decoded: u64,
    /// Key frames among them.
    pub key_frames: u64,
    /// Requests for missing packets.
    pub nacks: u64,
    /// Requests for key frames.
    pub plis: u64,
    /// Times that decoding had to start anew at a key frame.
    pub freezes: u64,
    /// Times that the next frame was of another simulcast layer.
    pub switches: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    identity: Identity,
    timestamp: u32,
    picture_id: Option<u16>,
}

/// RFC 3550 appendix A.
#[derive(Clone, Copy, Debug, Default)]
struct Statistics {
    base: Option<u64>,
    received: u64,
    reported: (u64, u64),
    jitter: f64,
    transit: Option<f64>,
    last_sr: Option<(u32, Instant)>,
}

impl Receiver {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(
        slot: usize,
        kind: Kind,
        mid: String,
        ssrcs: (u32, u32),
        codec: Codec,
        extensions: Extensions,
    ) -> Self {
        Self {
            slot,
            kind,
            mid,
            ssrc: ssrcs.0,
            rtx_ssrc: ssrcs.1,
            codec,
            extensions,
            counts: Counts::default(),
            advanced_at: None,
            newest: None,
            ended: false,
            extender: Extender::default(),
            recent: BTreeMap::new(),
            chain: Chain::default(),
            missing: BTreeMap::new(),
            asked_key_at: None,
            fir_seq: 0,
            statistics: Statistics::default(),
            report: None,
            faults: Vec::new(),
        }
    }

    /// A decrypted packet with one of our SSRCs.
    pub fn packet(&mut self, now: Now, header: &Header, payload: &[u8]) {
        self.counts.packets += 1;
        let expected_pt =
            if header.ssrc == self.ssrc { Some(self.codec.pt) } else { self.codec.rtx_pt };
        if expected_pt != Some(header.pt) {
            self.fault(|| format!("payload type {} was not agreed", header.pt));
        }
        self.check_extensions(now, header);
        if header.ssrc == self.ssrc {
            let seq = self.extender.extend(header.seq);
            self.measure(now.at, seq, header.timestamp);
            return self.media(now.at, seq, header, payload);
        }
        if payload.is_empty() {
            return; // Padding on the stream of retransmissions probes the line.
        }
        let Some((osn, payload)) = payload.split_first_chunk::<2>() else {
            return self.fault(|| "a retransmission without a sequence number".into());
        };
        self.counts.repaired += 1;
        let seq = self.extender.extend(u16::from_be_bytes(*osn));
        self.media(now.at, seq, header, payload);
    }

    /// A sender report of our stream.
    pub fn sender_report(&mut self, now: Instant, ntp: u64, rtp: u32) {
        self.report = Some((ntp, rtp));
        self.statistics.last_sr = Some(((ntp >> 16) as u32, now));
    }

    /// What is to be asked for now.
    pub fn requests(&mut self, now: Instant, sender: u32, out: &mut Vec<Report>) {
        self.decode(now);
        if self.codec.nack {
            self.nacks(now, sender, out);
        }
        let begun = self.extender.highest().is_some();
        let wait = self.kind == Kind::Video && begun && !self.chain.is_intact() && !self.ended;
        let due = self.asked_key_at.is_none_or(|at| now.since(at) >= PLI_INTERVAL);
        // A stream that is held back on purpose does not come: nothing to be asked for.
        if wait && due && self.chain.is_waiting() {
            self.asked_key_at = Some(now);
            self.counts.plis += 1;
            out.push(if self.codec.pli {
                Report::Pli { sender, media: self.ssrc }
            } else {
                self.fir_seq = self.fir_seq.wrapping_add(1);
                Report::Fir { sender, entries: vec![(self.ssrc, self.fir_seq)] }
            });
        }
    }

    /// Our report on the stream, once it has begun.
    pub fn block(&mut self, now: Instant) -> Option<Block> {
        let statistics = &mut self.statistics;
        let highest = self.extender.highest()?;
        let expected = highest + 1 - statistics.base?;
        let (expected_before, received_before) = statistics.reported;
        statistics.reported = (expected, statistics.received);
        let interval = expected.saturating_sub(expected_before);
        let lost = interval.saturating_sub(statistics.received.saturating_sub(received_before));
        let (last_report, delay) = statistics.last_sr.map_or((0, 0), |(middle, at)| {
            (middle, (now.since(at).as_nanos() * 65_536 / 1_000_000_000) as u32)
        });
        Some(Block {
            ssrc: self.ssrc,
            fraction_lost: (lost * 256 / interval.max(1)).min(255) as u8,
            lost: expected.saturating_sub(statistics.received).min(0x7f_ffff) as u32,
            highest: (highest - 0x1_0000) as u32,
            jitter: statistics.jitter as u32,
            last_report,
            delay,
        })
    }

    /// By how much the sender reports put the newest frame off its capture time, in seconds.
    /// `capture` is the source's own: NTP time of the newest frame.
    #[must_use]
    pub fn report_offset(&self, timestamp: u32, capture: u64) -> Option<f64> {
        let (ntp, rtp) = self.report?;
        let ticks = f64::from(timestamp.wrapping_sub(rtp) as i32);
        let by_report = ntp as f64 / 2_f64.powi(32) + ticks / f64::from(self.codec.clock_rate_hz);
        Some(by_report - capture as f64 / 2_f64.powi(32))
    }

    /// The outgoing timestamp of the newest decoded frame.
    #[must_use]
    pub fn newest_timestamp(&self) -> Option<u32> {
        self.chain.newest_timestamp()
    }

    /// Sequence numbers between `from` and the newest that never came.
    #[must_use]
    pub fn holes_since(&self, from: u64) -> u64 {
        let Some(highest) = self.extender.highest() else { return 0 };
        let first = from.max(self.recent.keys().next().copied().unwrap_or(highest));
        let present = self.recent.range(first..).count() as u64;
        (highest + 1).saturating_sub(first).saturating_sub(present)
    }

    /// The newest sequence number, in long form.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.extender.highest()
    }

    /// What broke a rule since the last call.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    fn fault(&mut self, text: impl FnOnce() -> String) {
        // The first few tell what is wrong; a broken stream breaks a rule with every packet.
        if self.faults.len() < 8 {
            self.faults.push(format!("slot {} ssrc {:08x}: {}", self.slot, self.ssrc, text()));
        }
    }

    fn check_extensions(&mut self, now: Now, header: &Header) {
        let ids = self.extensions;
        if let Some(mid) = header.extension(ids.mid).filter(|mid| *mid != self.mid.as_bytes()) {
            let mid = String::from_utf8_lossy(mid).into_owned();
            self.fault(|| format!("MID {mid} is not the leg's"));
        }
        if header.extension(ids.rid).is_some() || header.extension(ids.repaired_rid).is_some() {
            self.fault(|| "a RID towards a subscriber".into());
        }
        let known = [
            ids.mid,
            ids.audio_level,
            ids.abs_send_time,
            ids.transport_cc,
            ids.playout_delay,
            ids.video_orientation,
            ids.dependency_descriptor,
        ];
        if let Some((id, _)) = header.extensions.iter().find(|(id, _)| !known.contains(id)) {
            self.fault(|| format!("header extension {id} was not agreed"));
        }
        if ids.abs_send_time != 0 {
            let sent =
                header.extension(ids.abs_send_time).and_then(|v| <[u8; 3]>::try_from(v).ok());
            // 24 bits of seconds in 6.18 fixed point, out of 32.32.
            let age = sent.map(|[a, b, c]| {
                let sent = u32::from_be_bytes([0, a, b, c]);
                ((now.ntp >> 14) as u32).wrapping_sub(sent) & 0xff_ffff
            });
            if age.is_none_or(|age| age > 10 << 18) {
                self.fault(|| format!("abs-send-time is missing or wrong: {age:?}"));
            }
        }
    }

    fn media(&mut self, now: Instant, seq: u64, header: &Header, payload: &[u8]) {
        if payload.is_empty() {
            self.note(seq, None);
            self.chain.insert(seq, None);
            return;
        }
        let read = match self.kind {
            Kind::Video => payload::read_vp8(payload),
            Kind::Audio => payload::read_opus(payload),
        };
        let Some(read) = read else {
            return self.fault(|| format!("the payload of {seq} is damaged"));
        };
        let (identity, timestamp) = (read.identity, header.timestamp);
        if header
            .extension(self.extensions.audio_level)
            .is_some_and(|level| level != [level_of(&identity)])
        {
            self.fault(|| format!("the audio level of {seq} is not its own"));
        }
        let last = self.kind == Kind::Video && identity.index + 1 == identity.count;
        if self.kind == Kind::Video && header.marker != last {
            self.fault(|| format!("the marker of {seq} is {}: {identity:?}", header.marker));
        }
        let seen = Seen { identity, timestamp, picture_id: read.picture_id };
        if !self.note(seq, Some(seen)) {
            return;
        }
        let marker = header.marker || self.kind == Kind::Audio;
        self.chain.insert(seq, Some(Arrived { at: now, read, timestamp, marker }));
        self.decode(now);
    }

    /// Holds a packet against those beside it. `false` if it came before.
    fn note(&mut self, seq: u64, seen: Option<Seen>) -> bool {
        self.missing.remove(&seq);
        match self.recent.get(&seq) {
            Some(before) if *before == seen => {
                self.counts.doubled += 1;
                return false;
            }
            Some(before) => {
                let before = *before;
                self.fault(|| format!("{seq} carries {seen:?} and carried {before:?}"));
                return false;
            }
            None => {}
        }
        self.expect(seq);
        let neighbour = |seq: u64| self.recent.get(&seq).copied().flatten();
        let pairs = [(neighbour(seq.wrapping_sub(1)), seen), (seen, neighbour(seq + 1))];
        for (left, right) in pairs {
            if let (Some(left), Some(right)) = (left, right)
                && let Err(rule) = follows(self.kind, &left, &right)
            {
                self.fault(|| format!("{rule} at {seq}: {left:?} then {right:?}"));
            }
        }
        self.recent.insert(seq, seen);
        if self.recent.len() > RECENT {
            self.recent.pop_first();
        }
        true
    }

    /// What lies between the newest so far and `seq` is missing.
    fn expect(&mut self, seq: u64) {
        let Some((&newest, _)) = self.recent.last_key_value() else { return };
        let gap = seq.saturating_sub(newest + 1);
        if gap > MISSING as u64 {
            self.missing.clear();
            return;
        }
        self.missing.extend((newest + 1..seq).map(|seq| (seq, (Instant(0), 0))));
        while self.missing.len() > MISSING {
            self.missing.pop_first();
        }
    }

    fn decode(&mut self, now: Instant) {
        while let Some(event) = self.chain.next(now) {
            match event {
                chain::Event::Frame(identity) => {
                    self.counts.decoded += 1;
                    self.counts.key_frames += u64::from(identity.key && self.kind == Kind::Video);
                    let before = self.newest.replace(identity);
                    let is_other = before.is_some_and(|before| before.layer != identity.layer);
                    self.counts.switches += u64::from(is_other);
                    self.advanced_at = Some(now);
                }
                chain::Event::Frozen => self.counts.freezes += 1,
                chain::Event::Broken(what) => self.fault(|| what),
            }
        }
    }

    fn nacks(&mut self, now: Instant, sender: u32, out: &mut Vec<Report>) {
        let done = self.chain.decoded_up_to();
        self.missing.retain(|seq, (_, tries)| *seq >= done && *tries < NACK_TRIES);
        let mut seqs = Vec::new();
        for (seq, (at, tries)) in &mut self.missing {
            if at.0 == 0 {
                *at = now + NACK_AFTER;
            }
            if *at <= now {
                *at = now + NACK_INTERVAL;
                *tries += 1;
                seqs.push(*seq as u16);
            }
        }
        if !seqs.is_empty() {
            self.counts.nacks += 1;
            out.push(Report::Nack { sender, media: self.ssrc, seqs });
        }
    }

    fn measure(&mut self, now: Instant, seq: u64, timestamp: u32) {
        let statistics = &mut self.statistics;
        statistics.base = Some(statistics.base.map_or(seq, |base| base.min(seq)));
        statistics.received += 1;
        // RFC 3550 appendix A.8, in seconds of the arrival clock turned into ticks.
        let rate = f64::from(self.codec.clock_rate_hz);
        let transit = now.0 as f64 / 1e9 * rate - f64::from(timestamp);
        if let Some(before) = statistics.transit.replace(transit) {
            let change = (transit - before).abs().min(rate);
            statistics.jitter += (change - statistics.jitter) / 16.0;
        }
    }
}

/// The audio level that a packet carries (RFC 6464), so that a receiver knows whose it is.
#[must_use]
pub fn level_of(identity: &Identity) -> u8 {
    (identity.frame % 127) as u8 | if identity.frame.is_multiple_of(3) { 0x80 } else { 0 }
}

/// Whether the packet under one sequence number may be followed by that under the next.
fn follows(kind: Kind, left: &Seen, right: &Seen) -> Result<(), &'static str> {
    let (a, b) = (&left.identity, &right.identity);
    let ahead = right.timestamp.wrapping_sub(left.timestamp) as i32;
    let pictures = right.picture_id.zip(left.picture_id).map(|(b, a)| b.wrapping_sub(a) & 0x7fff);
    let same_source = (a.stream, a.layer) == (b.stream, b.layer);
    let same_frame = same_source && a.frame == b.frame;
    let next_frame =
        same_source && a.frame + 1 == b.frame && a.index + 1 == a.count && b.index == 0;
    if same_frame && b.index != a.index + 1 {
        return Err("a packet is repeated or left out");
    }
    if same_frame || next_frame {
        let source_ahead = b.timestamp.wrapping_sub(a.timestamp) as i32;
        if ahead != source_ahead {
            return Err("the timestamp does not keep the source's distance");
        }
        if pictures.is_some_and(|ahead| ahead != u16::from(next_frame)) {
            return Err("the picture id does not follow the source's");
        }
        return Ok(());
    }
    if same_source && b.frame < a.frame {
        return Err("an older frame has a newer number");
    }
    if kind == Kind::Video && !(b.key && b.index == 0) {
        return Err("a frame that needs another comes without it, and no hole says so");
    }
    if ahead <= 0 {
        return Err("time goes backwards over a switch");
    }
    if pictures.is_some_and(|ahead| ahead == 0 || ahead >= 0x4000) {
        return Err("picture ids go backwards over a switch");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(stream: u32, frame: u32, index: u8, key: bool) -> Seen {
        let timestamp = frame * 6000;
        let identity = Identity { stream, layer: 0, frame, index, count: 2, key, timestamp };
        Seen { identity, timestamp: timestamp + 77, picture_id: Some(frame as u16 + 5) }
    }

    #[test]
    fn a_sequence_without_holes_must_be_the_source_s() {
        let video = |a: Seen, b: Seen| follows(Kind::Video, &a, &b).is_ok();
        assert!(video(seen(1, 4, 0, false), seen(1, 4, 1, false)));
        assert!(video(seen(1, 4, 1, false), seen(1, 5, 0, false)));
        assert!(!video(seen(1, 4, 0, false), seen(1, 5, 0, false)), "half a frame is missing");
        assert!(!video(seen(1, 4, 1, false), seen(1, 6, 0, false)), "a frame is missing");
        assert!(!video(seen(1, 4, 1, false), seen(1, 4, 1, false)), "twice the same");
        assert!(!video(seen(1, 4, 1, false), seen(2, 5, 0, false)), "a switch without a key frame");
        assert!(video(seen(1, 4, 0, false), seen(2, 5, 0, true)));
        assert!(video(seen(1, 4, 1, false), seen(1, 9, 0, true)));
        assert!(!video(seen(1, 4, 1, false), seen(1, 3, 0, true)), "an older frame");
        let mut shifted = seen(1, 5, 0, false);
        shifted.timestamp += 1;
        assert!(!video(seen(1, 4, 1, false), shifted));
    }
}
