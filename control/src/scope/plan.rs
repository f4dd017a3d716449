//! What an offer means: which m-line publishes, which is a slot, with which codecs. Pure.

use crate::fault::Fault;
use crate::scope::Kind;
use crate::sdp::{Codec, Encoding, Extension, Fec, Media, MediaKind, Offer, extension};

/// How a peer uses the m-lines that it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// JsonRTC: sending m-lines publish, receive-only ones are slots.
    Conference,
    /// WHIP: sending m-lines publish, others stay unused.
    Publisher,
    /// WHEP: receiving m-lines are slots, others stay unused.
    Player,
}

impl Role {
    /// As events name it.
    pub fn client(self) -> &'static str {
        match self {
            Self::Conference => "conference",
            Self::Publisher => "whip",
            Self::Player => "whep",
        }
    }
}

/// What one m-line becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The peer sends a stream.
    Publication(Leg),
    /// The peer receives a stream.
    Slot(Leg),
    /// Accepted, nothing flows.
    Idle(Leg),
    /// The peer may open data channels.
    Channels,
    /// Refused; the sentence says why, none when it is not in use anyway.
    Rejected(Option<String>),
}

/// The agreed parameters of an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Audio or video.
    pub kind: Kind,
    /// Codecs; exactly one for a publication, so that subscribers know it, with its redundancy and forward error correction
    /// where those were offered.
    pub codecs: Vec<Codec>,
    /// Header extensions.
    pub extensions: Vec<Extension>,
    /// What the peer sends; empty unless it publishes.
    pub encodings: Vec<Encoding>,
    /// Feedback may go without reports (`a=rtcp-rsize`, RFC 5506).
    pub reduced_size: bool,
}

impl Leg {
    /// Whether these parameters, agreed before, still stand in a later offer's m-line: a client may
    /// list its codecs in another order then, or more of them, and nothing changes for the relay.
    pub fn holds_in(&self, media: &Media) -> bool {
        let same = |a: &Codec, b: &Codec| {
            a.payload_type == b.payload_type
                && a.name.eq_ignore_ascii_case(&b.name)
                && a.clock_rate_hz == b.clock_rate_hz
                && a.rtx == b.rtx
        };
        self.codecs.iter().all(|codec| media.codecs.iter().any(|other| same(codec, other)))
            && self.extensions.iter().all(|e| media.extensions.iter().any(|o| o.is_same(e)))
            && (self.encodings.is_empty() || self.encodings == media.encodings)
    }
}

/// Decides for each m-line of the offer, in its order. `fec` is what is taken of the forward error correction that
/// publishers offer.
///
/// # Errors
/// [`crate::fault::Class::UnsupportedCodec`] when no m-line that the peer wants to use can be.
pub fn plan(offer: &Offer, role: Role, fec: &[Fec]) -> Result<Vec<Wanted>, Fault> {
    let lines: Vec<Wanted> = offer.medias.iter().map(|media| decide(media, role, fec)).collect();
    if lines.iter().all(|line| matches!(line, Wanted::Rejected(_))) {
        let reasons: Vec<&str> = lines
            .iter()
            .filter_map(|line| match line {
                Wanted::Rejected(Some(reason)) => Some(reason.as_str()),
                _ => None,
            })
            .collect();
        return Err(Fault::unsupported_codec(format!(
            "no m-line of the offer can be accepted: {}",
            reasons.join("; ")
        )));
    }
    Ok(lines)
}

fn decide(media: &Media, role: Role, fec: &[Fec]) -> Wanted {
    let kind = match media.kind {
        MediaKind::Audio => Kind::Audio,
        MediaKind::Video => Kind::Video,
        MediaKind::Data => return decide_channels(media),
        MediaKind::Other => {
            return Wanted::Rejected(Some(format!("m={} is not relayed", media.media)));
        }
    };
    let refuse = |reason: &str| Wanted::Rejected(Some(format!("mid {}: {reason}", media.mid)));
    if !media.is_active {
        return Wanted::Rejected(None);
    }
    if !media.is_bundled {
        return refuse("it is outside the BUNDLE group; set bundlePolicy to \"max-bundle\"");
    }
    if !media.rtcp_mux {
        return refuse("it has no a=rtcp-mux; set rtcpMuxPolicy to \"require\"");
    }
    if !media.protocol.contains("SAVP") {
        return refuse("its media is not encrypted; offer UDP/TLS/RTP/SAVPF");
    }
    let is_supported = |codec: &&Codec| codec.is_supported(media.kind);
    let Some(first) = media.codecs.iter().find(is_supported) else {
        return refuse("no codec in common; offer Opus, H.264, VP8, VP9, AV1 or H.265");
    };
    // Redundant audio goes with the codec that it repeats; its place in the order says who prefers it.
    let of_opus = |codec: &Codec| {
        let opus = media.codecs.iter().filter(|codec| codec.name.eq_ignore_ascii_case("opus"));
        media.kind == MediaKind::Audio
            && opus.map(|opus| opus.payload_type).any(|pt| codec.repeats() == Some(pt))
    };
    let publishes = media.direction.sends() && role != Role::Player;
    let receives = media.direction.receives() && role != Role::Publisher;
    let offers = |codec: &Codec| codec.feedback.iter().any(|feedback| feedback == "transport-cc");
    let counted = |extensions: &[Extension]| {
        extensions.iter().any(|e| e.uri == extension::TRANSPORT_SEQUENCE)
            && media.codecs.iter().any(offers)
    };
    if publishes {
        let extensions = extension::for_publishing(&media.extensions);
        let transport_cc = counted(&extensions);
        let fec = fec_of(media, first, fec);
        let is_taken = |codec: &&Codec| {
            codec.payload_type == first.payload_type
                || (of_opus(codec) && codec.repeats() == Some(first.payload_type))
                || (fec.is_some() && codec.fec() == fec)
        };
        let codecs = media.codecs.iter().filter(is_taken);
        let codecs = codecs.map(|codec| codec.answered(transport_cc));
        Wanted::Publication(Leg {
            kind,
            codecs: codecs.collect(),
            extensions,
            encodings: media.encodings.clone(),
            reduced_size: media.rtcp_rsize,
        })
    } else {
        let extensions = extension::for_subscribing(&media.extensions);
        let transport_cc = counted(&extensions);
        let leg = Leg {
            kind,
            codecs: media
                .codecs
                .iter()
                .filter(|codec| is_supported(codec) || of_opus(codec))
                .map(|codec| codec.answered(transport_cc))
                .collect(),
            extensions,
            encodings: Vec::new(),
            reduced_size: media.rtcp_rsize,
        };
        if receives { Wanted::Slot(leg) } else { Wanted::Idle(leg) }
    }
}

fn decide_channels(media: &Media) -> Wanted {
    match (media.is_active, media.is_bundled) {
        (false, _) => Wanted::Rejected(None),
        (true, true) => Wanted::Channels,
        (true, false) => Wanted::Rejected(Some(format!(
            "mid {}: it is outside the BUNDLE group; set bundlePolicy to \"max-bundle\"",
            media.mid
        ))),
    }
}

/// Which forward error correction a publisher's m-line gets: one of those that are taken and offered, FlexFEC before ULPFEC.
fn fec_of(media: &Media, codec: &Codec, taken: &[Fec]) -> Option<Fec> {
    let offers = |name: &str| {
        media.codecs.iter().any(|c| c.fec().is_some() && c.name.eq_ignore_ascii_case(name))
    };
    let can = |fec: &Fec| match fec {
        Fec::FlexFec => offers("flexfec-03"),
        // Its packets have numbers of the stream: without picture ids, one that is lost would be waited for.
        Fec::UlpFec => offers("red") && offers("ulpfec") && codec.has_picture_ids(),
    };
    let is_video = media.kind == MediaKind::Video;
    let usable = |fec: &Fec| is_video && taken.contains(fec) && can(fec);
    [Fec::FlexFec, Fec::UlpFec].into_iter().find(usable)
}
