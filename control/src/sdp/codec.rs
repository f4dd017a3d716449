//! Codecs: what an m-line offers, and what is taken of it.

use serde::Deserialize;

use super::offer::MediaKind;

/// One codec of an m-line, with its retransmission format and feedback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codec {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Encoding name as offered.
    pub name: String,
    /// RTP clock rate in Hz.
    pub clock_rate_hz: u32,
    /// Channels; 1 where none are given, as for video.
    pub channels: u8,
    /// Format parameters, as offered.
    pub fmtp: String,
    /// Payload type of its RTX (RFC 4588).
    pub rtx: Option<u8>,
    /// RTCP feedback (RFC 4585), as offered.
    pub feedback: Vec<String>,
}

/// Forward error correction of video that is agreed to with a publisher, for the relay to mend losses with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Fec {
    /// FlexFEC (draft-ietf-payload-flexible-fec-scheme-03), on an SSRC of its own.
    #[serde(rename = "flexfec-03")]
    FlexFec,
    /// ULPFEC (RFC 5109) in RED (RFC 2198), in the stream itself.
    #[serde(rename = "ulpfec")]
    UlpFec,
}

/// Codecs that are relayed, by kind.
const AUDIO: [&str; 4] = ["opus", "PCMU", "PCMA", "G722"];
const VIDEO: [&str; 5] = ["H264", "VP8", "VP9", "AV1", "H265"];
/// Feedback that the relay understands from subscribers, and gives to publishers.
const FEEDBACK: [&str; 6] =
    ["nack", "nack pli", "ccm fir", "goog-remb", "transport-cc", CONGESTION_CONTROL];
/// Congestion control feedback by the streams' own numbers (RFC 8888 section 6).
pub const CONGESTION_CONTROL: &str = "ack ccfb";

impl Codec {
    /// Whether the relay carries this codec.
    pub fn is_supported(&self, kind: MediaKind) -> bool {
        let is = |name: &&str| name.eq_ignore_ascii_case(&self.name);
        match kind {
            MediaKind::Audio => AUDIO.iter().any(is),
            MediaKind::Video => VIDEO.iter().any(is) && self.clock_rate_hz == 90_000,
            MediaKind::Data | MediaKind::Other => false,
        }
    }

    /// The forward error correction of video that it is a part of, if any.
    pub fn fec(&self) -> Option<Fec> {
        let is = |name| self.name.eq_ignore_ascii_case(name) && self.clock_rate_hz == 90_000;
        if is("flexfec-03") {
            Some(Fec::FlexFec)
        } else {
            (is("ulpfec") || is("red")).then_some(Fec::UlpFec)
        }
    }

    /// Whether its payloads number their pictures, so that a decoder does not miss a packet that is none of its own.
    pub fn has_picture_ids(&self) -> bool {
        ["VP8", "VP9"].iter().any(|name| self.name.eq_ignore_ascii_case(name))
    }

    /// Of redundant audio (RFC 2198): the payload type whose payloads it repeats. None where it mixes several.
    pub fn repeats(&self) -> Option<u8> {
        let is_red = self.name.eq_ignore_ascii_case("red") && self.clock_rate_hz == 48_000;
        let mut types = self.fmtp.split('/').map(|pt| pt.trim().parse::<u8>().ok());
        let first = types.next().flatten().filter(|_| is_red)?;
        types.all(|pt| pt == Some(first)).then_some(first)
    }

    /// The format parameters as pairs, keys in lower case. A text without `=` has an empty key.
    pub fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        self.fmtp.split(';').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
            match part.split_once('=') {
                Some((key, value)) => (key.trim().to_ascii_lowercase(), value.trim().to_owned()),
                None => (String::new(), part.to_owned()),
            }
        })
    }

    /// This codec with the feedback alone that both sides know. `transport_cc` says whether
    /// transport-wide feedback is among it for the media: then that of RFC 8888 is not, as one kind is
    /// enough and all browsers know this one.
    pub fn answered(&self, transport_cc: bool) -> Self {
        let mut codec = self.clone();
        codec.feedback.retain(|feedback| match feedback.as_str() {
            "transport-cc" => transport_cc,
            CONGESTION_CONTROL => !transport_cc,
            feedback => FEEDBACK.contains(&feedback),
        });
        codec
    }

    /// Value of `a=rtpmap` after the payload type.
    pub fn rtpmap(&self) -> String {
        match self.channels {
            0 | 1 => format!("{}/{}", self.name, self.clock_rate_hz),
            channels => format!("{}/{}/{channels}", self.name, self.clock_rate_hz),
        }
    }
}

/// Static payload types (RFC 3551) that may come without `a=rtpmap`.
pub(super) fn of_static_type(payload_type: u8) -> Option<(&'static str, u32)> {
    match payload_type {
        0 => Some(("PCMU", 8_000)),
        8 => Some(("PCMA", 8_000)),
        9 => Some(("G722", 8_000)),
        _ => None,
    }
}
