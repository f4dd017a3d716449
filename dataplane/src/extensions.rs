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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_each_known_one() {
        let page = include_str!("../../docs/reference/rpc.md");
        for uri in KNOWN {
            assert!(page.contains(&format!("`{uri}`")), "{uri}");
        }
    }

    #[test]
    fn each_known_one_has_a_place_of_its_own() {
        let mut noted = Extensions::default();
        for (id, uri) in (1..).zip(KNOWN) {
            assert!(note(&mut noted, uri, id));
        }
        assert!(!note(&mut noted, "urn:ietf:params:rtp-hdrext:toffset", 14));
        let Extensions { mid, rid, repaired_rid, audio_level, abs_send_time, .. } = noted;
        assert_eq!([mid, rid, repaired_rid, audio_level, abs_send_time], [1, 2, 3, 4, 5]);
        let Extensions { transport_cc, playout_delay, video_orientation, .. } = noted;
        assert_eq!([transport_cc, playout_delay, video_orientation], [6, 7, 8]);
        assert_eq!(noted.dependency_descriptor, 9);
    }
}
