//! Payload types and header extensions of native clients: one table, the same for all of them, so
//! that a packet can go from one to another as it was sent.

use strait_proto::v1;

use crate::scope::Kind;
use crate::sdp::extension;

/// One codec of the table.
#[derive(Debug)]
pub struct Format {
    /// Audio or video.
    pub kind: Kind,
    /// Encoding name, as in SDP.
    pub name: &'static str,
    /// RTP payload type.
    pub payload_type: u8,
    /// RTP clock rate in Hz.
    pub clock_rate_hz: u32,
    /// Channels.
    pub channels: u8,
    /// Format parameters.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Payload type of its RTX (RFC 4588).
    pub rtx_payload_type: Option<u8>,
}

/// All codecs. Payload types 64 to 95 would be taken for RTCP (RFC 5761 section 4).
pub const FORMATS: &[Format] = &[
    Format {
        kind: Kind::Audio,
        name: "opus",
        payload_type: 111,
        clock_rate_hz: 48_000,
        channels: 2,
        parameters: &[("minptime", "10"), ("useinbandfec", "1")],
        rtx_payload_type: None,
    },
    video("VP8", 96, &[]),
    video("VP9", 98, &[("profile-id", "0")]),
    video(
        "H264",
        102,
        &[
            ("profile-level-id", "42e01f"),
            ("packetization-mode", "1"),
            ("level-asymmetry-allowed", "1"),
        ],
    ),
    video("AV1", 45, &[("profile", "0")]),
    video("H265", 104, &[("profile-id", "1"), ("tier-flag", "0")]),
];

const fn video(
    name: &'static str,
    payload_type: u8,
    parameters: &'static [(&'static str, &'static str)],
) -> Format {
    Format {
        kind: Kind::Video,
        name,
        payload_type,
        clock_rate_hz: 90_000,
        channels: 1,
        parameters,
        rtx_payload_type: Some(payload_type + 1),
    }
}

/// All header extensions (RFC 8285): identifier, URI, and of which kind of stream, none for both.
pub const EXTENSIONS: &[(u8, &str, Option<Kind>)] = &[
    (1, extension::AUDIO_LEVEL, Some(Kind::Audio)),
    (2, extension::ABSOLUTE_SEND_TIME, None),
    (3, extension::TRANSPORT_SEQUENCE, None),
    (4, extension::PLAYOUT_DELAY, Some(Kind::Video)),
    (5, extension::VIDEO_ORIENTATION, Some(Kind::Video)),
    (6, extension::DEPENDENCY_DESCRIPTOR, Some(Kind::Video)),
];

/// RTCP feedback of a kind of stream.
const AUDIO_FEEDBACK: &[&str] = &["nack", "transport-cc", "rtcp-rsize"];
const VIDEO_FEEDBACK: &[&str] =
    &["nack", "nack pli", "ccm fir", "goog-remb", "transport-cc", "rtcp-rsize"];

/// The codec of this name, without regard to case.
pub fn format(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name.eq_ignore_ascii_case(name))
}

/// The codecs of a kind.
pub fn formats(kind: Kind) -> impl Iterator<Item = &'static Format> {
    FORMATS.iter().filter(move |format| format.kind == kind)
}

impl Format {
    /// As the relay's RPC carries it.
    pub fn for_relay(&self) -> v1::Codec {
        let feedback = match self.kind {
            Kind::Audio => AUDIO_FEEDBACK,
            Kind::Video => VIDEO_FEEDBACK,
        };
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        v1::Codec {
            payload_type: self.payload_type.into(),
            name: self.name.into(),
            clock_rate_hz: self.clock_rate_hz,
            channels: self.channels.into(),
            parameters: self.parameters.iter().map(text).collect(),
            rtx_payload_type: self.rtx_payload_type.map(u32::from),
            feedback: feedback.iter().map(|each| (*each).to_owned()).collect(),
        }
    }
}

/// The header extensions of a kind of stream, as the relay's RPC carries them.
pub fn extensions(kind: Kind) -> Vec<v1::HeaderExtension> {
    let of_kind = EXTENSIONS.iter().filter(|(_, _, of)| of.is_none_or(|of| of == kind));
    let told = of_kind
        .map(|(id, uri, _)| v1::HeaderExtension { id: u32::from(*id), uri: (*uri).to_owned() });
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_number_is_taken_twice() {
        let mut taken = BTreeSet::new();
        for format in FORMATS {
            for number in [Some(format.payload_type), format.rtx_payload_type].into_iter().flatten()
            {
                assert!(taken.insert(number), "{number}");
                assert!(number < 64 || (96..128).contains(&number), "{number} looks like RTCP");
            }
        }
        let ids: BTreeSet<u8> = EXTENSIONS.iter().map(|(id, ..)| *id).collect();
        assert_eq!(ids.len(), EXTENSIONS.len());
        assert!(ids.iter().all(|id| (1..15).contains(id)), "one byte each");
    }

    #[test]
    fn codecs_are_found_by_name() {
        assert_eq!(format("vp8").unwrap().payload_type, 96);
        assert!(format("PCMU").is_none());
        assert_eq!(formats(Kind::Audio).count(), 1);
        assert_eq!(extensions(Kind::Audio).len(), 3);
    }
}
