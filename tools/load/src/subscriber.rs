//! The receiving side of one subscriber: its streams, and its reports to the server.

use strait_core::time::{Duration, Instant};
use strait_wire::rtcp::{Packet, ReportBlock, Writer};

use crate::checker::Checker;
use crate::peer::Peer;
use crate::signalling::{AgreedStream, MediaKind};

/// Reports go out this often (RFC 3550 section 6.2, scaled for the bandwidth of video).
pub(crate) const REPORT: Duration = Duration::from_secs(1);
/// Report blocks of one packet (RFC 3550 section 6.4.1).
const BLOCKS: usize = 31;
/// Packets of one stream that are asked for again at a time.
const WANTED: usize = 256;
/// A missing packet is asked for at most so many times, this far apart.
const TRIES: u8 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(60);

pub(crate) struct Subscriber {
    pub streams: Vec<Stream>,
    ssrc: u32,
    next_report: Instant,
    next_nack: Option<Instant>,
}

pub(crate) struct Stream {
    pub agreed: AgreedStream,
    /// As agreed, or as the first packet had it.
    pub ssrc: Option<u32>,
    pub checker: Checker,
    /// Extended sequence numbers: the first and the highest.
    first_seq: Option<u32>,
    highest_seq: u32,
    received: u32,
    reported: (u32, u32),
    last_sr: Option<(u32, Instant)>,
    wanted: Vec<Wanted>,
}

struct Wanted {
    seq: u16,
    tries: u8,
    next: Instant,
}

impl Subscriber {
    pub(crate) fn new(ssrc: u32, kind: MediaKind, agreed: Vec<AgreedStream>, now: Instant) -> Self {
        let stream = |agreed: AgreedStream| Stream {
            ssrc: agreed.ssrc,
            agreed,
            checker: Checker::new(kind),
            first_seq: None,
            highest_seq: 0,
            received: 0,
            reported: (0, 0),
            last_sr: None,
            wanted: Vec::new(),
        };
        let streams = agreed.into_iter().map(stream).collect();
        // Subscribers do not report in step.
        let next_report = now + REPORT / 1000 * (ssrc % 1000);
        Self { streams, ssrc, next_report, next_nack: None }
    }

    /// Takes the server's reports.
    pub(crate) fn take_rtcp(&mut self, now: Instant, compound: &[u8]) {
        for packet in strait_wire::rtcp::packets(compound).flatten() {
            if let Packet::SenderReport(report) = packet
                && let Some(stream) = self.streams.iter_mut().find(|s| s.ssrc == Some(report.ssrc))
            {
                stream.last_sr = Some((report.ntp_middle(), now));
            }
        }
    }

    /// Sends what is due, and says when to come again.
    pub(crate) fn tick(&mut self, now: Instant, peer: &mut Peer) -> Instant {
        if !peer.is_connected() {
            return now + REPORT;
        }
        if now >= self.next_report {
            self.next_report = now + REPORT;
            self.report(now, peer);
        }
        if self.next_nack.is_some_and(|due| due <= now) {
            self.nack(now, peer);
        }
        self.next_nack.map_or(self.next_report, |nack| nack.min(self.next_report))
    }

    fn report(&mut self, now: Instant, peer: &mut Peer) {
        let ssrc = self.ssrc;
        let mut blocks: Vec<ReportBlock> = Vec::with_capacity(self.streams.len());
        blocks.extend(self.streams.iter_mut().filter_map(|stream| stream.block(now)));
        let mut chunks = blocks.chunks(BLOCKS);
        // A report without blocks keeps the reporter known.
        let first = chunks.next().unwrap_or_default();
        for chunk in std::iter::once(first).chain(chunks) {
            let mut bytes = [0; 1200];
            let mut writer = Writer::new(&mut bytes);
            let written = writer.receiver_report(ssrc, chunk);
            let written = written.and_then(|()| writer.cname(ssrc, peer.name.as_bytes()));
            let length = writer.len();
            if written.is_ok() {
                peer.send_rtcp(&mut bytes, length);
            }
        }
    }

    /// Notes that `count` packets before `seq` have not come.
    pub(crate) fn miss(&mut self, place: usize, seq: u16, count: u64, now: Instant) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        for back in (1..=count.min(WANTED as u64)).rev() {
            if stream.wanted.len() < WANTED {
                let seq = seq.wrapping_sub(back as u16);
                stream.wanted.push(Wanted { seq, tries: 0, next: now });
            }
        }
        self.next_nack = Some(now);
    }

    /// Notes that a packet has come after all.
    pub(crate) fn found(&mut self, place: usize, seq: u16) {
        if let Some(stream) = self.streams.get_mut(place) {
            stream.wanted.retain(|wanted| wanted.seq != seq);
        }
    }

    fn nack(&mut self, now: Instant, peer: &mut Peer) {
        self.next_nack = None;
        for stream in &mut self.streams {
            stream.wanted.retain(|wanted| wanted.tries < TRIES);
            let (Some(ssrc), false) = (stream.ssrc, stream.wanted.is_empty()) else { continue };
            let mut due = Vec::new();
            for wanted in stream.wanted.iter_mut().filter(|wanted| wanted.next <= now) {
                wanted.tries += 1;
                wanted.next = now + TRY_AGAIN;
                due.push(wanted.seq);
            }
            self.next_nack = Some(now + TRY_AGAIN);
            let mut bytes = [0; 1200];
            let mut writer = Writer::new(&mut bytes);
            if !due.is_empty() && writer.nack(self.ssrc, ssrc, due).is_ok() {
                let length = writer.len();
                peer.send_rtcp(&mut bytes, length);
            }
        }
    }
}

impl Stream {
    /// Counts a packet that came on the stream's own SSRC, for the reports.
    pub(crate) fn count(&mut self, seq: u16) {
        self.received = self.received.wrapping_add(1);
        if self.first_seq.is_none() {
            self.first_seq = Some(seq.into());
            self.highest_seq = seq.into();
            return;
        }
        let ahead = seq.wrapping_sub(self.highest_seq as u16);
        if ahead < 0x8000 {
            self.highest_seq = self.highest_seq.wrapping_add(ahead.into());
        }
    }

    fn block(&mut self, now: Instant) -> Option<ReportBlock> {
        let (ssrc, first) = (self.ssrc?, self.first_seq?);
        let expected = self.highest_seq.wrapping_sub(first).wrapping_add(1);
        let lost = expected.wrapping_sub(self.received).cast_signed();
        let (expected_before, received_before) =
            std::mem::replace(&mut self.reported, (expected, self.received));
        let interval = expected.wrapping_sub(expected_before);
        let got = self.received.wrapping_sub(received_before);
        let missing = interval.saturating_sub(got);
        let fraction = (missing << 8).checked_div(interval).unwrap_or(0);
        let (last_sr, at) = self.last_sr.unwrap_or((0, now));
        let delay = now.since(at).as_secs_f64() * 65_536.0;
        Some(ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: lost,
            highest_seq: self.highest_seq,
            jitter: 0,
            last_sr,
            delay_since_last_sr: if last_sr == 0 { 0 } else { delay as u32 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_tell_the_loss_over_a_wrap() {
        let agreed = AgreedStream {
            payload_type: 96,
            rtx_payload_type: None,
            mid: String::new(),
            mid_extension: None,
            rid_extension: None,
            ssrc: Some(7),
            rtx_ssrc: None,
        };
        let mut subscriber = Subscriber::new(1, MediaKind::Video, vec![agreed], Instant(0));
        let stream = &mut subscriber.streams[0];
        assert_eq!(stream.block(Instant(0)), None);
        for seq in (65_500..65_536_u32).chain(65_536..65_600).filter(|seq| seq % 10 != 5) {
            stream.count(seq as u16);
        }
        let block = stream.block(Instant(0)).unwrap();
        assert_eq!((block.highest_seq, block.cumulative_lost), (65_599, 10));
        assert_eq!((block.ssrc, block.fraction_lost), (7, 25));
        let block = stream.block(Instant(0)).unwrap();
        assert_eq!(block.fraction_lost, 0, "nothing new was lost");
    }
}
