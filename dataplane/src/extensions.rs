//! Header extensions by URI (docs/reference/rpc.md).

use strait_core::command::Extensions;

/// Those that the relay knows.
pub const KNOWN: [&str; 9] = [
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "urn:3gpp:video-orientation",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
];

/// Notes the id of a known extension. `false`: not known, to be left out.
pub fn note(extensions: &mut Extensions, uri: &str, id: u8) -> bool {
    let places = [
        &mut extensions.mid,
        &mut extensions.rid,
        &mut extensions.repaired_rid,
        &mut extensions.audio_level,
        &mut extensions.abs_send_time,
        &mut extensions.transport_cc,
        &mut extensions.playout_delay,
        &mut extensions.video_orientation,
        &mut extensions.dependency_descriptor,
    ];
    match KNOWN.iter().zip(places).find(|(known, _)| **known == uri) {
        Some((_, place)) => {
            *place = id;
            true
        }
        None => false,
    }
}
