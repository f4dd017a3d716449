//! Opus payloads (RFC 6716 section 3, RFC 7587).

/// Audio bandwidth of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bandwidth {
    /// 4 kHz.
    Narrow,
    /// 6 kHz.
    Medium,
    /// 8 kHz.
    Wide,
    /// 12 kHz.
    SuperWide,
    /// 20 kHz.
    Full,
}

/// The table-of-contents byte, and the frame count behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toc {
    /// Audio bandwidth.
    pub bandwidth: Bandwidth,
    /// Whether the packet is stereo.
    pub stereo: bool,
    /// Frames in the packet, 1 to 48.
    pub frames: u8,
    /// Duration of one frame, in microseconds: 2,500 to 60,000.
    pub frame_us: u32,
}

impl Toc {
    /// Reads a payload's beginning; `None` when there is none, or it says no frames or more than 120 ms.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let config = first >> 3;
        let bandwidth = match config {
            0..=3 | 16..=19 => Bandwidth::Narrow,
            4..=7 => Bandwidth::Medium,
            8..=11 | 20..=23 => Bandwidth::Wide,
            12..=13 | 24..=27 => Bandwidth::SuperWide,
            _ => Bandwidth::Full,
        };
        let frame_us = match (config, config & 0x03) {
            (0..=11, 0) => 10_000,
            (0..=11, 1) => 20_000,
            (0..=11, 2) => 40_000,
            (0..=11, _) => 60_000,
            (12..=15, step) => 10_000 << (step & 0x01),
            (_, step) => 2_500 << step,
        };
        let frames = match first & 0x03 {
            0 => 1,
            1 | 2 => 2,
            _ => *payload.get(1)? & 0x3f,
        };
        // Requirement 5 of RFC 6716 section 3.4.
        (frames > 0 && u32::from(frames) * frame_us <= 120_000).then_some(Self {
            bandwidth,
            stereo: first & 0x04 != 0,
            frames,
            frame_us,
        })
    }

    /// Duration of the packet in microseconds, at most 120,000.
    #[must_use]
    pub const fn duration_us(&self) -> u32 {
        self.frames as u32 * self.frame_us
    }

    /// Duration of the packet in RTP timestamp units, whose clock is always 48 kHz (RFC 7587 section 4.1).
    #[must_use]
    pub const fn duration_timestamp(&self) -> u32 {
        self.duration_us() / 125 * 6
    }
}

/// Whether the payload is one that an encoder in discontinuous transmission sends to say that silence goes on: at most
/// two bytes (RFC 6716 section 2.1.9).
#[must_use]
pub const fn is_dtx(payload: &[u8]) -> bool {
    payload.len() <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_send() {
        // Config 15 is hybrid, full band, 20 ms; browsers send it in mono as 0x78.
        let toc = Toc::parse(&[0x78, 1, 2, 3]).unwrap();
        assert_eq!(
            toc,
            Toc { bandwidth: Bandwidth::Full, stereo: false, frames: 1, frame_us: 20_000 }
        );
        assert_eq!(toc.duration_timestamp(), 960);
        assert!(is_dtx(&[0x78]) && !is_dtx(&[0x78, 1, 2]));
    }

    #[test]
    fn durations_of_table_2() {
        let durations = [
            [10_000, 20_000, 40_000, 60_000].repeat(3),
            [10_000, 20_000].repeat(2),
            [2_500, 5_000, 10_000, 20_000].repeat(4),
        ]
        .concat();
        for (config, want) in (0..32u8).zip(durations) {
            assert_eq!(Toc::parse(&[config << 3]).unwrap().duration_us(), want, "config {config}");
        }
    }

    #[test]
    fn frame_counts() {
        assert_eq!(Toc::parse(&[0x79]).unwrap().frames, 2);
        // Code 3: 48 frames of 2.5 ms are 120 ms; of 5 ms they are too long.
        assert_eq!(Toc::parse(&[16 << 3 | 3, 48]).unwrap().duration_us(), 120_000);
        assert_eq!(Toc::parse(&[17 << 3 | 3, 48]), None);
        assert_eq!(Toc::parse(&[0x7b, 0]), None);
        assert_eq!(Toc::parse(&[0x7b]), None);
        assert_eq!(Toc::parse(&[]), None);
    }
}
