//! A camera that needs no encoder: frames that have the shape of VP8 (RFC 6386 section 9.1), and
//! whose pictures nobody looks at.

use std::time::{Duration, Instant};

/// Frames per second.
const RATE_HZ: u32 = 15;
/// A key frame of 320 × 240, and what follows it: about 300 kbit/s.
const KEY_FRAME_BYTES: usize = 12_000;
const FRAME_BYTES: usize = 2_400;
/// A key frame comes at least this often.
const KEY_FRAME_EVERY: u64 = 150;
/// First byte of a frame that is shown: bit 0 is clear in a key frame.
const SHOWN: u8 = 0x10;
/// Start code and size of a key frame: 320 × 240.
const KEY_FRAME_HEADER: [u8; 7] = [0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00];

/// One frame.
pub struct Frame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// When it was filmed, in units of 1/90000 s.
    pub rtp_time: u64,
}

/// A source of frames.
pub struct Camera {
    started: Instant,
    filmed: u64,
    key_frame_wanted: bool,
}

impl Camera {
    /// Starts now, with a key frame.
    pub fn new() -> Self {
        Self { started: Instant::now(), filmed: 0, key_frame_wanted: true }
    }

    /// When the next frame is due.
    pub fn next(&self) -> Instant {
        self.started + Duration::from_secs(self.filmed) / RATE_HZ
    }

    /// Makes the next frame a key frame.
    pub fn request_key_frame(&mut self) {
        self.key_frame_wanted = true;
    }

    /// The frame that is due, if one is.
    pub fn film(&mut self, now: Instant) -> Option<Frame> {
        if now < self.next() {
            return None;
        }
        let key = self.key_frame_wanted || self.filmed.is_multiple_of(KEY_FRAME_EVERY);
        let mut bytes = vec![0x55; if key { KEY_FRAME_BYTES } else { FRAME_BYTES }];
        let header = [SHOWN | u8::from(!key), 0, 0];
        let start = header.iter().chain(KEY_FRAME_HEADER.iter().filter(|_| key));
        for (byte, value) in bytes.iter_mut().zip(start) {
            *byte = *value;
        }
        let rtp_time = self.filmed * 90_000 / u64::from(RATE_HZ);
        self.filmed += 1;
        self.key_frame_wanted = false;
        Some(Frame { bytes, rtp_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_at_their_rate_and_start_with_a_key() {
        let mut camera = Camera::new();
        let start = camera.next();
        let first = camera.film(start).expect("due at once");
        assert_eq!(first.bytes.get(..6), Some(&[0x10, 0, 0, 0x9d, 0x01, 0x2a][..]));
        assert!(camera.film(start).is_none(), "the second is not due yet");
        let second = camera.film(start + Duration::from_millis(67)).expect("due");
        assert_eq!(second.bytes.first(), Some(&0x11));
        assert_eq!(second.rtp_time, 6_000);
        camera.request_key_frame();
        let third = camera.film(start + Duration::from_millis(134)).expect("due");
        assert_eq!(third.bytes.first(), Some(&0x10));
    }
}
