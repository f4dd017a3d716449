//! One encoding of one publisher: its frames, packet by packet, when they are due.

use std::time::Duration;

use strait_core::time::Instant;
use strait_wire::rtp::HeaderBuilder;

use crate::limits::PAYLOAD_MAX;
use crate::payload::{Identity, Pattern, Picture};
use crate::random::Random;
use crate::shape::{Frame, Layer, Model};
use crate::signalling::{AgreedStream, MediaKind};

/// Packets of a frame leave this far apart, as those of a browser's pacer within a burst.
pub(crate) const SPACING: Duration = Duration::from_micros(7);
/// Bytes of a packet's slot: channel number, header, extensions, payload, tag.
pub(crate) const SLOT: usize = PAYLOAD_MAX + 120;

/// A frame, its next packet, when its first was due, whether it is a key frame.
type Part = (Frame, u16, Instant, bool);

pub(crate) struct Source {
    /// Which peer sends it.
    pub peer: usize,
    /// [`Identity::stream`].
    pub stream: u32,
    pub ssrc: u32,
    layer: Layer,
    agreed: AgreedStream,
    model: Model,
    start: Instant,
    interval_ns: f64,
    frames: u64,
    seq: u16,
    timestamp_base: u32,
    /// The number of the next packet.
    pub counter: u64,
    picture_id: u16,
    /// The frame that is being sent.
    current: Option<Part>,
    /// A key frame was asked for, or is due.
    pub key_wanted: bool,
    next_key: Instant,
    pub octets: u64,
    timestamp: u32,
}

impl Source {
    pub(crate) fn new(
        peer: usize,
        stream: u32,
        ssrc: u32,
        layer: Layer,
        agreed: AgreedStream,
        mut random: Random,
    ) -> Self {
        // Below 2^15, so that a receiver that misses the first packets guesses the rollover right (RFC 3711 3.3.1).
        let seq = random.next() as u16 & 0x7fff;
        Self {
            peer,
            stream,
            ssrc,
            layer,
            agreed,
            start: Instant::default(),
            interval_ns: 1e9 / layer.traffic.fps,
            frames: 0,
            seq,
            timestamp_base: random.next() as u32,
            counter: 0,
            picture_id: random.next() as u16 & 0x7fff,
            current: None,
            key_wanted: true,
            next_key: Instant::default(),
            octets: 0,
            timestamp: 0,
            model: Model::new(layer.traffic.size, random),
        }
    }

    /// Media flows from about `now` on. Publishers do not send in step, neither their frames nor their key frames: cameras
    /// know nothing of each other.
    pub(crate) fn begin(&mut self, now: Instant, random: &mut Random) {
        let phase = self.interval_ns.min(1e9) * random.unit();
        self.start = now + Duration::from_nanos(phase as u64);
        // The very first frame is a key frame anyway.
        let interval = self.layer.traffic.key_interval.unwrap_or_default();
        self.next_key = self.start + interval.mul_f64(random.unit());
    }

    /// When the next packet is due.
    pub(crate) fn due(&self) -> Instant {
        match &self.current {
            Some((_, index, due, _)) => *due + SPACING * u32::from(*index),
            None => self.frame_due(),
        }
    }

    fn frame_due(&self) -> Instant {
        self.start + Duration::from_nanos((self.frames as f64 * self.interval_ns) as u64)
    }

    /// The RTP timestamp of the last frame.
    pub(crate) fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// Writes the next packet to `out`, which has [`SLOT`] bytes, and returns its length; `now` goes into it.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        pattern: &Pattern,
        out: &mut [u8],
    ) -> Option<usize> {
        let part = self.next_part();
        let written = self.fill(now, pattern, part, out);
        self.took_its_turn(part);
        written
    }

    /// Writes the next packet's payload alone, for who makes RTP of it elsewhere: its length, and whether it is the last of
    /// its frame. [`Source::timestamp`] is its own.
    pub(crate) fn write_payload(
        &mut self,
        now: Instant,
        pattern: &Pattern,
        out: &mut [u8],
    ) -> Option<(usize, bool)> {
        let part = self.next_part();
        let written = self.payload(now, pattern, part, out);
        self.took_its_turn(part);
        Some((written?, self.marks(part)))
    }

    fn next_part(&mut self) -> Part {
        match self.current {
            Some(current) => current,
            None => self.next_frame(),
        }
    }

    /// Also a packet that cannot be written has had its turn.
    fn took_its_turn(&mut self, (frame, index, due, key): Part) {
        self.seq = self.seq.wrapping_add(1);
        self.counter += 1;
        self.octets += frame.packet_bytes(index) as u64;
        let last = index + 1 == frame.packets;
        self.current = (!last).then_some((frame, index + 1, due, key));
    }

    fn marks(&self, (frame, index, ..): Part) -> bool {
        index + 1 == frame.packets && self.layer.traffic.kind == MediaKind::Video
    }

    fn fill(&self, now: Instant, pattern: &Pattern, part: Part, out: &mut [u8]) -> Option<usize> {
        let header = HeaderBuilder {
            marker: self.marks(part),
            pt: self.agreed.payload_type,
            seq: self.seq,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            padding: false,
        };
        let mid = self.agreed.mid_extension.map(|id| (id, self.agreed.mid.as_bytes()));
        let rid = self.agreed.rid_extension.map(|id| (id, self.layer.rid.as_bytes()));
        let extensions = mid.into_iter().chain(rid).filter(|(_, data)| !data.is_empty());
        let at = header.write(&[], extensions, out).ok()?;
        Some(at + self.payload(now, pattern, part, out.get_mut(at..)?)?)
    }

    fn payload(
        &self,
        now: Instant,
        pattern: &Pattern,
        (frame, index, _, key): Part,
        out: &mut [u8],
    ) -> Option<usize> {
        let number = self.frames.wrapping_sub(1);
        let bytes = frame.packet_bytes(index);
        let identity = Identity {
            stream: self.stream,
            counter: self.counter,
            sent_ns: now.0,
            frame: number as u32,
            timestamp: self.timestamp,
            index,
            count: frame.packets,
            key,
        };
        let picture = Picture {
            id: self.picture_id.wrapping_add(number as u16) & 0x7fff,
            tl0: number as u8,
            width: self.layer.width,
            height: self.layer.height,
        };
        pattern.write(self.layer.traffic.kind, &identity, picture, out.get_mut(..bytes)?);
        Some(bytes)
    }

    fn next_frame(&mut self) -> Part {
        let due = self.frame_due();
        let traffic = self.layer.traffic;
        let mut key = false;
        if let Some(interval) = traffic.key_interval {
            key = std::mem::take(&mut self.key_wanted) || due >= self.next_key;
            // Those that were asked for, all at the beginning, move no camera's own rhythm.
            while self.next_key <= due {
                self.next_key = self.next_key + interval.max(Duration::from_millis(1));
            }
        }
        let ticks = self.frames as f64 * f64::from(traffic.clock_hz) / traffic.fps;
        self.timestamp = self.timestamp_base.wrapping_add(ticks as u64 as u32);
        self.frames += 1;
        (self.model.frame(key), 0, due, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::layers;
    use strait_wire::rtp::Packet;

    fn agreed() -> AgreedStream {
        AgreedStream {
            payload_type: 96,
            rtx_payload_type: None,
            mid: "0".into(),
            mid_extension: Some(1),
            rid_extension: None,
            ssrc: None,
            rtx_ssrc: None,
        }
    }

    #[test]
    fn what_cannot_be_written_does_not_hold_up_the_rest() {
        let layer = layers("opus".parse().unwrap(), 1.0)[0];
        let mut source = Source::new(0, 5, 77, layer, agreed(), Random::new(1, 1));
        let begin = source.due();
        assert_eq!(source.write(begin, &Pattern::new(), &mut [0; 50]), None);
        assert_eq!(source.due().since(begin), Duration::from_millis(20));
        assert_eq!(source.counter, 1);
    }

    #[test]
    fn key_frames_of_cameras_are_not_in_step() {
        let layer = layers("video-720p".parse().unwrap(), 1.0)[0];
        let interval = layer.traffic.key_interval.unwrap();
        let mut random = Random::new(1, 1);
        let mut seconds: Vec<f64> = Vec::new();
        for _ in 0..20 {
            let mut source = Source::new(0, 5, 77, layer, agreed(), random.clone());
            source.begin(Instant(0), &mut random);
            let mut keys = Vec::new();
            while source.due() < Instant(0) + interval * 3 {
                let (frame, _, due, key) = source.next_frame();
                assert!(frame.packets > 0);
                keys.extend(key.then_some(due));
            }
            assert_eq!(keys[0], source.start, "one can begin to watch at once");
            assert!(keys.len() >= 3 && keys[2].since(keys[1]).abs_diff(interval).as_millis() < 40);
            seconds.push(keys[1].since(Instant(0)).as_secs_f64() / interval.as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        assert!(seconds[4] < 0.5 && seconds[15] > 0.5, "{seconds:?}");
    }

    #[test]
    fn frames_come_in_bursts_that_follow_the_clock() {
        let layer = layers("video-720p".parse().unwrap(), 1.0)[0];
        let mut random = Random::new(1, 1);
        let mut source = Source::new(0, 5, 77, layer, agreed(), random.clone());
        source.begin(Instant(1_000_000_000), &mut random);
        let (pattern, mut out) = (Pattern::new(), [0; SLOT]);
        let (mut bytes, mut last, mut markers, mut counter) = (0, source.due(), 0, 0);
        let begin = source.due();
        while source.due().since(begin) < Duration::from_secs(10) {
            let now = source.due();
            assert!(now >= last);
            if counter == 500 {
                source.key_wanted = true;
            }
            let length = source.write(now, &pattern, &mut out).unwrap();
            let packet = Packet::parse(&out[..length]).unwrap();
            let identity = pattern.read(MediaKind::Video, packet.payload()).unwrap();
            assert_eq!((packet.ssrc(), packet.pt(), identity.stream), (77, 96, 5));
            assert_eq!((identity.counter, identity.sent_ns), (counter, now.0));
            assert_eq!(packet.marker(), identity.index + 1 == identity.count);
            assert_eq!(packet.extension(1), Some(b"0".as_slice()));
            if identity.index == 0 {
                let since = now.since(begin).as_secs_f64() * 30.0;
                assert!((since - f64::from(identity.frame)).abs() < 0.01);
            } else {
                assert_eq!(now.since(last), SPACING);
            }
            markers += u32::from(packet.marker());
            bytes += packet.payload().len();
            (last, counter) = (now, counter + 1);
        }
        assert!((299..=301).contains(&markers), "{markers} frames");
        let rate = bytes as f64 * 8.0 / 10.0;
        assert!((rate / 2_500_000.0 - 1.0).abs() < 0.02, "{rate}");
    }
}
