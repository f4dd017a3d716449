//! RTP header extensions (RFC 8285): those that the relay knows.

use super::Direction;

/// One header extension as mapped by an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Local identifier, 1 to 255.
    pub id: u8,
    /// What it is.
    pub uri: String,
    /// The direction that it is offered for; none for both.
    pub direction: Option<Direction>,
}

impl Extension {
    /// Whether it is the same extension under the same identifier.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.uri == other.uri
    }
}

/// Media identification (RFC 9143).
pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// Simulcast layer of a packet (RFC 8852).
pub const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
/// Simulcast layer that a retransmission repairs (RFC 8852).
pub const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
/// Audio level (RFC 6464).
pub const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// Absolute send time.
pub const ABSOLUTE_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// Transport-wide sequence number, for transport-cc feedback.
pub const TRANSPORT_SEQUENCE: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Limits of the playout delay.
pub const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
/// AV1 dependency descriptor.
pub const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
/// Orientation of the camera (3GPP TS 26.114).
pub const VIDEO_ORIENTATION: &str = "urn:3gpp:video-orientation";

/// What a publisher may send to the relay.
const PUBLISHING: [&str; 9] = [
    MID,
    RID,
    REPAIRED_RID,
    AUDIO_LEVEL,
    ABSOLUTE_SEND_TIME,
    TRANSPORT_SEQUENCE,
    PLAYOUT_DELAY,
    DEPENDENCY_DESCRIPTOR,
    VIDEO_ORIENTATION,
];
/// What the relay sends to subscribers: one layer per stream, so no RID.
const SUBSCRIBING: [&str; 7] = [
    MID,
    AUDIO_LEVEL,
    ABSOLUTE_SEND_TIME,
    TRANSPORT_SEQUENCE,
    PLAYOUT_DELAY,
    DEPENDENCY_DESCRIPTOR,
    VIDEO_ORIENTATION,
];

/// The offered extensions that are taken from a publisher.
pub fn for_publishing(offered: &[Extension]) -> Vec<Extension> {
    known(offered, |uri| PUBLISHING.contains(&uri), Direction::sends)
}

/// The offered extensions that a slot's answer takes: those that are sent, and those of simulcast.
/// Chromium holds what no answer took for stopped on every m-line that it adds later, and then
/// refuses its own offer of simulcast there, which needs them.
pub fn for_subscribing(offered: &[Extension]) -> Vec<Extension> {
    let is_known = |uri: &str| SUBSCRIBING.contains(&uri) || uri == RID || uri == REPAIRED_RID;
    known(offered, is_known, Direction::receives)
}

/// Whether packets to a subscriber carry it, where it was agreed.
pub fn is_sent(extension: &Extension) -> bool {
    SUBSCRIBING.contains(&extension.uri.as_str())
}

fn known(
    offered: &[Extension],
    is_known: impl Fn(&str) -> bool,
    is_usable: fn(Direction) -> bool,
) -> Vec<Extension> {
    let mut taken: Vec<Extension> = Vec::new();
    for extension in offered {
        let is_taken = taken.iter().any(|t| t.id == extension.id || t.uri == extension.uri);
        if is_known(&extension.uri) && !is_taken && extension.direction.is_none_or(is_usable) {
            taken.push(extension.clone());
        }
    }
    taken
}
