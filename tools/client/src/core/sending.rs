//! One encoding that the client sends: its numbers, what was sent lately, what the other side says about it.

use std::collections::VecDeque;
use std::time::Duration;
use strait_crypt::srtp::{Outbound, TAG_MAX};
use strait_wire::ext::{AbsSendTime, AudioLevel};
use strait_wire::rtcp::{ReportBlock, Writer};
use strait_wire::rtp::{HeaderBuilder, Packet};

/// Packets that can be sent again: half a second of video at 8 Mbit/s.
const HISTORY: usize = 512;
/// The longest RTP payload; with headers and tag it fits 1,280 bytes, which every IPv6 line carries.
pub const PAYLOAD_BYTES: usize = 1150;
/// Header, extensions and tag.
const OVERHEAD: usize = 12 + 4 + 12 + TAG_MAX + 2;

/// What the application sends.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// RTP payload, at most [`PAYLOAD_BYTES`].
    pub payload: &'a [u8],
    /// In units of the codec's clock rate.
    pub timestamp: u32,
    /// Of video the last packet of a picture, of audio the first after silence.
    pub marker: bool,
    /// How loud sound is.
    pub level: Option<AudioLevel>,
}

/// Identifiers of the header extensions that are written; 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions {
    /// Transport-wide sequence number.
    pub transport_cc: u8,
    /// Audio level.
    pub audio_level: u8,
    /// When it was sent.
    pub abs_send_time: u8,
}

/// What one encoding is sent with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// SSRC, and that of its RTX; 0 for none.
    pub ssrc: u32,
    /// Of the retransmissions; 0 for none.
    pub rtx_ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Of the retransmissions.
    pub rtx_payload_type: u8,
    /// Units of a timestamp in a second.
    pub clock_rate_hz: u32,
}

/// What is known about an encoding that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sent {
    /// RTP packets, retransmissions apart.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// Packets sent again.
    pub retransmissions: u64,
    /// Share lost by the last report of the other side, 0 to 1.
    pub fraction_lost: f64,
    /// Round trip by RTCP.
    pub round_trip: Option<Duration>,
}

/// See above.
pub struct Sending {
    /// What it is sent with.
    pub stream: Stream,
    seq: u16,
    rtx_seq: u16,
    /// In the clear with RTX, protected without: sending the same bytes again is no new use of a nonce.
    history: VecDeque<(u16, Vec<u8>)>,
    last: Option<(u32, Duration)>,
    sent: Sent,
}

impl Sending {
    /// What it sends from.
    pub fn ssrcs(&self) -> [u32; 2] {
        [self.stream.ssrc, self.stream.rtx_ssrc]
    }

    /// Numbers begin below 2^15, so that who comes later guesses the rollover counter right (RFC 3711 section 3.3.1).
    #[must_use]
    pub fn new(stream: Stream, random: u32) -> Self {
        let [a, b, c, d] = random.to_be_bytes();
        let first = |high, low| u16::from_be_bytes([high, low]) & 0x3fff;
        let (seq, rtx_seq) = (first(a, b), first(c, d));
        Self { stream, seq, rtx_seq, history: VecDeque::new(), last: None, sent: Sent::default() }
    }

    /// What is known about it.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// The packet for a frame, protected. None where the payload is too long or the key is used up.
    pub fn protect(
        &mut self,
        now: Duration,
        frame: &Frame<'_>,
        ids: Extensions,
        transport_seq: u16,
        key: &mut Outbound,
    ) -> Option<Vec<u8>> {
        if frame.payload.len() > PAYLOAD_BYTES {
            return None;
        }
        let header = HeaderBuilder {
            marker: frame.marker,
            pt: self.stream.payload_type,
            seq: self.seq,
            timestamp: frame.timestamp,
            ssrc: self.stream.ssrc,
            padding: false,
        };
        let (number, level) = (transport_seq.to_be_bytes(), frame.level.map(AudioLevel::bytes));
        let number = (ids.transport_cc != 0).then_some((ids.transport_cc, &number[..]));
        let level = level.as_ref().filter(|_| ids.audio_level != 0);
        let level = level.map(|level| (ids.audio_level, &level[..]));
        let sent = AbsSendTime::from_ntp(ntp(now)).bytes();
        let sent = (ids.abs_send_time != 0).then_some((ids.abs_send_time, &sent[..]));
        let extensions = number.into_iter().chain(level).chain(sent);
        let mut packet = vec![0; OVERHEAD + frame.payload.len()];
        let head = header.write(&[], extensions, &mut packet).ok()?;
        let len = head + frame.payload.len();
        packet.get_mut(head..len)?.copy_from_slice(frame.payload);
        let plain = (self.stream.rtx_ssrc != 0).then(|| packet.get(..len).map(<[u8]>::to_vec));
        let len = key.protect_rtp(&mut packet, len).ok()?;
        packet.truncate(len);
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((self.seq, plain.flatten().unwrap_or_else(|| packet.clone())));
        self.seq = self.seq.wrapping_add(1);
        self.last = Some((frame.timestamp, now));
        self.sent.packets += 1;
        self.sent.bytes += frame.payload.len() as u64;
        Some(packet)
    }

    /// A packet once more: as RTX (RFC 4588) where the node takes that, as it was otherwise.
    pub fn again(
        &mut self,
        now: Duration,
        seq: u16,
        ids: Extensions,
        transport_seq: u16,
        key: &mut Outbound,
    ) -> Option<Vec<u8>> {
        let (_, bytes) = self.history.iter().find(|(kept, _)| *kept == seq)?;
        self.sent.retransmissions += 1;
        if self.stream.rtx_ssrc == 0 {
            return Some(bytes.clone());
        }
        let packet = Packet::parse(bytes).ok()?;
        let header = HeaderBuilder {
            marker: packet.marker(),
            pt: self.stream.rtx_payload_type,
            seq: self.rtx_seq,
            timestamp: packet.timestamp(),
            ssrc: self.stream.rtx_ssrc,
            padding: false,
        };
        let number = transport_seq.to_be_bytes();
        let number = (ids.transport_cc != 0).then_some((ids.transport_cc, &number[..]));
        let sent = AbsSendTime::from_ntp(ntp(now)).bytes();
        let sent = (ids.abs_send_time != 0).then_some((ids.abs_send_time, &sent[..]));
        let mut out = vec![0; OVERHEAD + packet.payload().len()];
        let head = header.write(&[], number.into_iter().chain(sent), &mut out).ok()?;
        let len = head + 2 + packet.payload().len();
        out.get_mut(head..head + 2)?.copy_from_slice(&seq.to_be_bytes());
        out.get_mut(head + 2..len)?.copy_from_slice(packet.payload());
        let len = key.protect_rtp(&mut out, len).ok()?;
        out.truncate(len);
        self.rtx_seq = self.rtx_seq.wrapping_add(1);
        Some(out)
    }

    /// Adds its sender report.
    pub fn report(&self, now: Duration, writer: &mut Writer<'_>) {
        let Some((timestamp, at)) = self.last else { return };
        let since = now.saturating_sub(at).as_micros() * u128::from(self.stream.clock_rate_hz);
        let timestamp = timestamp.wrapping_add((since / 1_000_000) as u32);
        let (packets, bytes) = (self.sent.packets as u32, self.sent.bytes as u32);
        let _full =
            writer.sender_report(self.stream.ssrc, ntp(now), timestamp, packets, bytes, &[]);
    }

    /// Takes what the other side says about it.
    pub fn on_report(&mut self, now: Duration, block: &ReportBlock) {
        self.sent.fraction_lost = f64::from(block.fraction_lost) / 256.0;
        if block.last_sr != 0 {
            let middle = (ntp(now) >> 16) as u32;
            let elapsed = middle.wrapping_sub(block.last_sr);
            let trip = elapsed.saturating_sub(block.delay_since_last_sr);
            // What is longer than a minute is another clock's.
            let trip = Duration::from_secs(1).mul_f64(f64::from(trip) / 65_536.0);
            self.sent.round_trip =
                Some(trip).filter(|trip| *trip < Duration::from_secs(60)).or(self.sent.round_trip);
        }
    }
}

/// A time as NTP 32.32. RTP needs no absolute time, only one that runs evenly (RFC 3550 section 4).
#[must_use]
pub fn ntp(now: Duration) -> u64 {
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    ((now.as_secs() + (1 << 31)) << 32) | fraction
}
