//! What stands in the header extensions that WebRTC uses. Which id an extension has is negotiated; its URI names it.

/// Audio level (RFC 6464).
pub const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// Identification of the media description (RFC 8843 section 15.2).
pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// Identification of the simulcast layer (RFC 8852).
pub const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
/// Identification of the simulcast layer that a retransmission is for (RFC 8852).
pub const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
/// Absolute send time.
pub const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// Absolute capture time.
pub const ABS_CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2).
pub const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Playout delay.
pub const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
/// Coordination of video orientation (3GPP TS 26.114 section 7.4.5).
pub const VIDEO_ORIENTATION: &str = "urn:3gpp:video-orientation";
/// Dependency descriptor; see [`crate::codec::dependency`].
pub const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// How loud a packet's audio is (RFC 6464 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// Whether the sender believes that the packet holds speech.
    pub voice: bool,
    /// Level below overload, in dB: 0 is the loudest, 127 silence.
    pub below_overload_db: u8,
}

impl AudioLevel {
    /// Reads an extension's data.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let first = *data.first()?;
        Some(Self { voice: first & 0x80 != 0, below_overload_db: first & 0x7f })
    }

    /// An extension's data.
    #[must_use]
    pub const fn bytes(self) -> [u8; 1] {
        let level = if self.below_overload_db > 127 { 127 } else { self.below_overload_db };
        [(self.voice as u8) << 7 | level]
    }
}

/// When a packet left its sender: 24 bits, seconds with 18 bits of fraction, wrapping every 64 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsSendTime(u32);

impl AbsSendTime {
    /// From an NTP time, 32.32.
    #[must_use]
    pub const fn from_ntp(ntp: u64) -> Self {
        Self((ntp >> 14) as u32 & 0xff_ffff)
    }

    /// Reads an extension's data.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        crate::bytes::u24_at(data, 0).map(Self)
    }

    /// An extension's data.
    #[must_use]
    pub const fn bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// The 24 bits.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Microseconds from `earlier` to this, between -32 and 32 seconds.
    #[must_use]
    pub const fn since_us(self, earlier: Self) -> i64 {
        let difference = (self.0.wrapping_sub(earlier.0) << 8).cast_signed() >> 8;
        (difference as i64 * 1_000_000) >> 18
    }
}

/// Reads a transport-wide sequence number.
#[must_use]
pub fn parse_transport_cc(data: &[u8]) -> Option<u16> {
    crate::bytes::u16_at(data, 0)
}

/// Bounds of the delay between capture and playout that the sender asks for: 12 bits each, in units of 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// At least this long, in 10 ms.
    pub min_10ms: u16,
    /// At most this long, in 10 ms.
    pub max_10ms: u16,
}

impl PlayoutDelay {
    /// Reads an extension's data.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let bits = crate::bytes::u24_at(data, 0)?;
        Some(Self { min_10ms: (bits >> 12) as u16, max_10ms: (bits & 0xfff) as u16 })
    }

    /// An extension's data; what does not fit 12 bits becomes their largest value.
    #[must_use]
    pub fn bytes(self) -> [u8; 3] {
        let bits = u32::from(self.min_10ms.min(0xfff)) << 12 | u32::from(self.max_10ms.min(0xfff));
        let [_, a, b, c] = bits.to_be_bytes();
        [a, b, c]
    }
}

/// How the picture must be turned to stand upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoOrientation {
    /// From the camera at the back of the device.
    pub back_camera: bool,
    /// The picture is mirrored.
    pub flipped: bool,
    /// Quarter turns, 0 to 3.
    pub rotation: u8,
}

impl VideoOrientation {
    /// Reads an extension's data.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let first = *data.first()?;
        Some(Self {
            back_camera: first & 0x08 != 0,
            flipped: first & 0x04 != 0,
            rotation: first & 0x03,
        })
    }

    /// An extension's data.
    #[must_use]
    pub const fn bytes(self) -> [u8; 1] {
        [(self.back_camera as u8) << 3 | (self.flipped as u8) << 2 | self.rotation & 0x03]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_level() {
        let level = AudioLevel { voice: true, below_overload_db: 35 };
        assert_eq!(level.bytes(), [0xa3]);
        assert_eq!(AudioLevel::parse(&level.bytes()), Some(level));
        assert_eq!(AudioLevel { voice: false, below_overload_db: 200 }.bytes(), [127]);
        assert_eq!(AudioLevel::parse(&[]), None);
    }

    #[test]
    fn absolute_send_time() {
        // One and a half seconds.
        let time = AbsSendTime::from_ntp(0x0001_8000_0000);
        assert_eq!(time.value(), 3 << 17);
        assert_eq!(AbsSendTime::parse(&time.bytes()), Some(time));
        let earlier = AbsSendTime::from_ntp(0x0000_8000_0000);
        assert_eq!(time.since_us(earlier), 1_000_000);
        assert_eq!(earlier.since_us(time), -1_000_000);
        // Over the wrap at 64 seconds.
        assert_eq!(
            AbsSendTime::from_ntp(64 << 32).since_us(AbsSendTime::from_ntp(63 << 32)),
            1_000_000
        );
    }

    #[test]
    fn playout_delay_and_orientation() {
        let delay = PlayoutDelay { min_10ms: 0x123, max_10ms: 0x456 };
        assert_eq!(delay.bytes(), [0x12, 0x34, 0x56]);
        assert_eq!(PlayoutDelay::parse(&delay.bytes()), Some(delay));
        assert_eq!(PlayoutDelay { min_10ms: 0xffff, max_10ms: 0 }.bytes(), [0xff, 0xf0, 0]);
        for byte in 0..16 {
            assert_eq!(VideoOrientation::parse(&[byte]).unwrap().bytes(), [byte]);
        }
    }
}
