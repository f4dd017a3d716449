//! Reading an offer.

use sdp_types::Session;

use super::codec::{self, Codec};
use super::{Extension, Fingerprint, IceCredentials};
use crate::fault::Fault;
use crate::limits;

/// What a peer offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// ICE credentials of the bundled transport.
    pub ice: IceCredentials,
    /// Certificate of the bundled transport.
    pub fingerprint: Fingerprint,
    /// DTLS role offered.
    pub setup: Setup,
    /// Whether the peer trickles candidates.
    pub trickle: bool,
    /// Whether one- and two-byte header extensions may be mixed (RFC 8285).
    pub extmap_allow_mixed: bool,
    /// Whether the offer had a BUNDLE group at all.
    pub has_bundle: bool,
    /// The m-lines in their order.
    pub medias: Vec<Media>,
}

/// One m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Media identification; made up from the index where the offer has none.
    pub mid: String,
    /// Whether the offer has it; only then has the answer (RFC 5888 section 9.1).
    pub has_mid: bool,
    /// Audio, video, or something that is refused.
    pub kind: MediaKind,
    /// The first word of the m-line, for the answer.
    pub media: String,
    /// Transport protocol, for the answer.
    pub protocol: String,
    /// The format list, for the answer of a refused m-line.
    pub formats: String,
    /// In use: port not 0, or `a=bundle-only`.
    pub is_active: bool,
    /// Part of the BUNDLE group, or the only active m-line.
    pub is_bundled: bool,
    /// `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize`.
    pub rtcp_rsize: bool,
    /// Direction, as the offerer sees it.
    pub direction: Direction,
    /// Codecs in the offer's order, RTX folded into those that they repair.
    pub codecs: Vec<Codec>,
    /// Header extensions.
    pub extensions: Vec<Extension>,
    /// What the offerer sends: simulcast layers, lowest first as browsers list them, or one.
    pub encodings: Vec<Encoding>,
    /// Whether the encodings come from `a=simulcast`.
    pub is_simulcast: bool,
    /// `a=msid`: stream and track.
    pub msid: Option<String>,
    /// What is said of data channels, where it carries them.
    pub channels: Option<DataChannels>,
}

/// Data channels, as an m-line offers them (RFC 8841).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataChannels {
    /// The largest message that the offerer takes, in bytes; 0: not said, which means 64 KiB.
    pub message_bytes_max: u32,
}

/// One encoding that the offerer sends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// RID; empty without simulcast.
    pub rid: String,
    /// SSRC, 0 when it is not signalled.
    pub ssrc: u32,
    /// SSRC of its retransmissions, 0 when it is not signalled.
    pub rtx_ssrc: u32,
}

/// What an m-line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// `m=audio`
    Audio,
    /// `m=video`
    Video,
    /// `m=application` with data channels.
    Data,
    /// Anything else; refused.
    Other,
}

/// Direction of an m-line (RFC 8866 section 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendReceive,
    /// The offerer sends.
    SendOnly,
    /// The offerer receives.
    ReceiveOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// Whether the side that wrote it sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendReceive | Self::SendOnly)
    }

    /// Whether the side that wrote it receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendReceive | Self::ReceiveOnly)
    }
}

/// DTLS role in an offer (RFC 8842).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Either.
    ActPass,
    /// The offerer is the client.
    Active,
    /// The offerer is the server.
    Passive,
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooLarge`], [`crate::fault::Class::Malformed`] for what is no SDP,
    /// [`crate::fault::Class::NotAcceptable`] for SDP that cannot become a WebRTC session here.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > limits::SDP_BYTES {
            return Err(Fault::too_large(format!(
                "the SDP is larger than {} KiB; offer fewer m-lines",
                limits::SDP_BYTES >> 10
            )));
        }
        let session = Session::parse(text.as_bytes()).map_err(|error| {
            Fault::malformed(format!(
                "this is no SDP: {error}; send the description's sdp text unchanged"
            ))
        })?;
        if session.medias.len() > limits::MEDIA_LINES {
            return Err(Fault::too_many(format!(
                "the SDP has more than {} m-lines; use fewer slots",
                limits::MEDIA_LINES
            )));
        }
        if session.medias.is_empty() {
            return Err(Fault::not_acceptable(
                "the SDP has no m-line; add a track or a transceiver before creating the offer",
            ));
        }
        let groups: Vec<&str> = values(&session.attributes, "group")
            .filter_map(|group| group.strip_prefix("BUNDLE"))
            .collect();
        let active = session.medias.iter().filter(|media| is_active(media)).count();
        let mut medias = Vec::with_capacity(session.medias.len());
        for (index, media) in session.medias.iter().enumerate() {
            let mid = value(&media.attributes, "mid").unwrap_or_default().trim().to_owned();
            if mid.len() > 16 || mid.contains(char::is_whitespace) {
                return Err(Fault::not_acceptable(
                    "an m-line's mid is longer than 16 characters; header extensions cannot \
                     carry it",
                ));
            }
            let bundled = match groups.first() {
                Some(group) => !mid.is_empty() && group.split_ascii_whitespace().any(|m| m == mid),
                None => active == 1 && is_active(media),
            };
            medias.push(read_media(&session, media, mid, index, bundled)?);
        }
        for (index, media) in medias.iter().enumerate() {
            if medias.iter().skip(index + 1).any(|other| other.mid == media.mid) {
                return Err(Fault::malformed(format!("two m-lines have the mid {:?}", media.mid)));
            }
        }
        if groups.is_empty() && active > 1 {
            return Err(Fault::not_acceptable(
                "the offer has several m-lines and no BUNDLE group: the client wants a transport \
                 per m-line; set bundlePolicy to \"max-bundle\" or \"balanced\"",
            ));
        }
        // The transport is that of the first m-line of the group (RFC 9143 section 7.2), with the
        // session's attributes as the fallback. Browsers repeat it on every m-line.
        let lead = session
            .medias
            .iter()
            .zip(&medias)
            .find(|(_, media)| media.is_bundled && media.is_active)
            .map(|(media, _)| media)
            .ok_or_else(|| {
                Fault::not_acceptable(
                    "no m-line of the offer is in use: each has port 0 or is outside the BUNDLE \
                     group; add a track or a transceiver",
                )
            })?;
        let attribute = |name: &'static str| {
            value(&lead.attributes, name).or_else(|| value(&session.attributes, name))
        };
        let missing = |name: &str, cause: &str| {
            Fault::not_acceptable(format!("the offer has no usable a={name}: {cause}"))
        };
        let ufrag = attribute("ice-ufrag").ok_or_else(|| {
            missing("ice-ufrag", "the client does not speak ICE; use a WebRTC client")
        })?;
        let pwd = attribute("ice-pwd").ok_or_else(|| {
            missing("ice-pwd", "the client does not speak ICE; use a WebRTC client")
        })?;
        let ice = IceCredentials::new(ufrag.trim(), pwd.trim()).ok_or_else(|| {
            missing(
                "ice-ufrag and a=ice-pwd",
                "4 and 22 letters, digits, + or / at least (RFC 8839)",
            )
        })?;
        // A peer may offer several hashes; the strongest known one binds it best.
        let fingerprint = values(&lead.attributes, "fingerprint")
            .chain(values(&session.attributes, "fingerprint"))
            .filter_map(Fingerprint::parse)
            .max_by_key(|fingerprint| match fingerprint.algorithm.as_str() {
                "sha-256" => 3,
                "sha-384" | "sha-512" => 2,
                _ => 1,
            })
            .ok_or_else(|| {
                missing(
                    "fingerprint",
                    "media is encrypted with DTLS-SRTP only; use a client that offers it",
                )
            })?;
        let setup = match attribute("setup").map(str::trim) {
            Some("active") => Setup::Active,
            Some("passive") => Setup::Passive,
            _ => Setup::ActPass,
        };
        if has(&session.attributes, "ice-lite") {
            return Err(Fault::not_acceptable(
                "the offer says ice-lite, and so is the relay: neither would start; use a client \
                 with full ICE",
            ));
        }
        let trickle = attribute("ice-options")
            .is_some_and(|options| options.split_ascii_whitespace().any(|o| o == "trickle"));
        Ok(Self {
            ice,
            fingerprint,
            setup,
            trickle,
            extmap_allow_mixed: has(&session.attributes, "extmap-allow-mixed")
                || session.medias.iter().all(|media| {
                    media.media == "application" || has(&media.attributes, "extmap-allow-mixed")
                }),
            has_bundle: !groups.is_empty(),
            medias,
        })
    }
}

fn read_media(
    session: &Session,
    media: &sdp_types::Media,
    mid: String,
    index: usize,
    is_bundled: bool,
) -> Result<Media, Fault> {
    let attributes = &media.attributes;
    let kind = match media.media.as_str() {
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        // Any order of UDP and TCP, and what came before RFC 8841 is not taken.
        "application"
            if media.proto.ends_with("/DTLS/SCTP") && media.fmt == "webrtc-datachannel" =>
        {
            MediaKind::Data
        }
        _ => MediaKind::Other,
    };
    let is_active = is_active(media);
    let (encodings, is_simulcast) = match kind {
        MediaKind::Data | MediaKind::Other => (Vec::new(), false),
        _ => read_encodings(attributes),
    };
    // Plan B puts several tracks into one m-line, each with SSRCs and an msid of its own.
    if !is_simulcast && plan_b_tracks(attributes) > 1 {
        return Err(Fault::not_acceptable(
            "an m-line carries several tracks (plan B); use unified plan, one m-line per track",
        ));
    }
    let direction = ["sendrecv", "sendonly", "recvonly", "inactive"]
        .iter()
        .find(|name| has(attributes, name))
        .or_else(|| {
            ["sendonly", "recvonly", "inactive"].iter().find(|n| has(&session.attributes, n))
        });
    Ok(Media {
        has_mid: !mid.is_empty(),
        mid: if mid.is_empty() { format!("x{index}") } else { mid },
        kind,
        media: media.media.clone(),
        protocol: media.proto.clone(),
        formats: media.fmt.clone(),
        is_active,
        is_bundled,
        rtcp_mux: has(attributes, "rtcp-mux"),
        rtcp_rsize: has(attributes, "rtcp-rsize"),
        direction: match direction.copied() {
            Some("sendonly") => Direction::SendOnly,
            Some("recvonly") => Direction::ReceiveOnly,
            Some("inactive") => Direction::Inactive,
            _ => Direction::SendReceive,
        },
        codecs: match kind {
            MediaKind::Data | MediaKind::Other => Vec::new(),
            MediaKind::Audio | MediaKind::Video => read_codecs(media),
        },
        extensions: values(attributes, "extmap")
            .chain(values(&session.attributes, "extmap"))
            .filter_map(read_extension)
            .take(limits::EXTENSIONS_PER_MEDIA)
            .collect(),
        encodings: if encodings.is_empty() { vec![Encoding::default()] } else { encodings },
        is_simulcast,
        msid: value(attributes, "msid").map(str::to_owned),
        channels: (kind == MediaKind::Data).then(|| read_channels(attributes)),
    })
}

fn read_channels(attributes: &[sdp_types::Attribute]) -> DataChannels {
    // 0 is any size (RFC 8841 section 6.1), and what is larger than a number here is as good.
    let said = value(attributes, "max-message-size").map(str::trim);
    let said = said.map(|text| text.parse().unwrap_or(u32::MAX));
    DataChannels {
        message_bytes_max: said.map_or(0, |bytes| if bytes == 0 { u32::MAX } else { bytes }),
    }
}

fn read_codecs(media: &sdp_types::Media) -> Vec<Codec> {
    let mut codecs = Vec::new();
    let mut rtx: Vec<(u8, u8)> = Vec::new();
    let formats = media.fmt.split_ascii_whitespace().filter_map(|f| f.parse::<u8>().ok());
    for payload_type in formats.filter(is_usable_type).take(limits::CODECS_PER_MEDIA) {
        // `a=rtpmap:96 VP8/90000`: the value after the payload type.
        let of_type = |name: &'static str| {
            values(&media.attributes, name).filter_map(move |text| {
                let (pt, rest) = text.trim().split_once(' ')?;
                (pt == "*" || pt.parse() == Ok(payload_type)).then(|| rest.trim())
            })
        };
        let map = of_type("rtpmap").next().and_then(|map| {
            let mut parts = map.split('/');
            let name = parts.next()?;
            let clock: u32 = parts.next()?.parse().ok()?;
            let channels: u8 = parts.next().and_then(|c| c.parse().ok()).unwrap_or(1);
            Some((name, clock, channels))
        });
        let Some((name, clock_rate_hz, channels)) =
            map.or_else(|| codec::of_static_type(payload_type).map(|(name, hz)| (name, hz, 1)))
        else {
            continue;
        };
        let codec = Codec {
            payload_type,
            name: name.to_owned(),
            clock_rate_hz,
            channels,
            fmtp: of_type("fmtp").next().unwrap_or_default().to_owned(),
            rtx: None,
            feedback: of_type("rtcp-fb").map(str::to_owned).collect(),
        };
        if name.eq_ignore_ascii_case("rtx") {
            let repairs = codec.parameters().find(|(key, _)| key == "apt");
            if let Some(repaired) = repairs.and_then(|(_, pt)| pt.parse().ok()) {
                rtx.push((repaired, payload_type));
            }
        } else if !codecs.iter().any(|c: &Codec| c.payload_type == payload_type) {
            codecs.push(codec);
        }
    }
    rtx.retain(|(_, rtx)| is_usable_type(rtx));
    for codec in &mut codecs {
        codec.rtx = rtx.iter().find(|(pt, _)| *pt == codec.payload_type).map(|(_, rtx)| *rtx);
    }
    codecs
}

/// 64 to 95 collide with RTCP on the same port (RFC 5761 section 4).
fn is_usable_type(payload_type: &u8) -> bool {
    matches!(payload_type, 0..=63 | 96..=127)
}

fn read_extension(text: &str) -> Option<Extension> {
    // `3/sendonly URI attributes`
    let mut words = text.split_ascii_whitespace();
    let mut first = words.next()?.split('/');
    let id = first.next()?.parse::<u8>().ok()?;
    // 0 is padding, 15 stops a one-byte block (RFC 8285).
    if matches!(id, 0 | 15) {
        return None;
    }
    let direction = match first.next() {
        None | Some("sendrecv") => None,
        Some("sendonly") => Some(Direction::SendOnly),
        Some("recvonly") => Some(Direction::ReceiveOnly),
        Some(_) => Some(Direction::Inactive),
    };
    Some(Extension { id, uri: words.next()?.to_owned(), direction })
}

/// The encodings that the offerer sends, and whether by `a=simulcast` (RFC 8853).
fn read_encodings(attributes: &[sdp_types::Attribute]) -> (Vec<Encoding>, bool) {
    let sent = value(attributes, "simulcast").and_then(|text| {
        let mut words = text.split_ascii_whitespace();
        words.find(|word| *word == "send").and_then(|_| words.next())
    });
    if let Some(list) = sent {
        let encodings: Vec<_> = list
            .split(';')
            // Alternatives: the first one; `~` marks a layer that starts paused.
            .filter_map(|layer| layer.split(',').next())
            .map(|rid| rid.trim_start_matches('~'))
            .filter(|rid| !rid.is_empty() && rid.len() <= 255)
            .take(limits::ENCODINGS_PER_MEDIA)
            .map(|rid| Encoding { rid: rid.to_owned(), ..Encoding::default() })
            .collect();
        if !encodings.is_empty() {
            return (encodings, true);
        }
    }
    let group = |semantics: &'static str| {
        values(attributes, "ssrc-group")
            .filter_map(|group| group.trim().strip_prefix(semantics)?.strip_prefix(' '))
            .map(|list| list.split_ascii_whitespace().filter_map(|s| s.parse().ok()).collect())
            .collect::<Vec<Vec<u32>>>()
    };
    let (pairs, fec) = (group("FID"), group("FEC-FR"));
    let rtx_of = |ssrc: u32| {
        pairs.iter().find(|pair| pair.first() == Some(&ssrc)).and_then(|pair| pair.get(1).copied())
    };
    let simulcast = group("SIM").into_iter().next().unwrap_or_default();
    let first = || {
        values(attributes, "ssrc")
            .filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u32>().ok())
            .find(|ssrc| !pairs.iter().chain(&fec).any(|pair| pair.get(1) == Some(ssrc)))
    };
    let ssrcs: Vec<u32> = match simulcast.is_empty() {
        true => pairs.first().and_then(|pair| pair.first().copied()).or_else(first),
        false => None,
    }
    .into_iter()
    .chain(simulcast)
    .take(limits::ENCODINGS_PER_MEDIA)
    .collect();
    let encodings = ssrcs.into_iter().map(|ssrc| Encoding {
        rid: String::new(),
        ssrc,
        rtx_ssrc: rtx_of(ssrc).unwrap_or(0),
    });
    (encodings.collect(), false)
}

fn plan_b_tracks(attributes: &[sdp_types::Attribute]) -> usize {
    let mut tracks: Vec<&str> = values(attributes, "ssrc")
        .filter_map(|text| text.split_once(' ')?.1.trim().strip_prefix("msid:"))
        .collect();
    tracks.sort_unstable();
    tracks.dedup();
    tracks.len()
}

fn is_active(media: &sdp_types::Media) -> bool {
    media.port != 0 || has(&media.attributes, "bundle-only")
}

fn values<'a>(
    attributes: &'a [sdp_types::Attribute],
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    attributes.iter().filter(move |a| a.attribute == name).filter_map(|a| a.value.as_deref())
}

fn value<'a>(attributes: &'a [sdp_types::Attribute], name: &'static str) -> Option<&'a str> {
    values(attributes, name).next()
}

fn has(attributes: &[sdp_types::Attribute], name: &str) -> bool {
    attributes.iter().any(|a| a.attribute == name)
}
