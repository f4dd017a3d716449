//! Between the messages of the link and what the scope knows.

use std::net::SocketAddr;

use prost::Message;
use strait_link::v1::endpoint::{Protocol, Purpose};
use strait_link::v1::{self as link, ErrorCode, server_message::Body, user_event};
use strait_proto::v1 as relay;

use crate::auth::{Reason, Refusal, Scheme, Signed};
use crate::fault::{Class, Fault};
use crate::scope::allowed::{AllowSpec, Senders};
use crate::scope::direct::{Offer, Way};
use crate::scope::key::SessionKey;
use crate::scope::lost::Lost;
use crate::scope::native::{Encoding, PublishSpec, formats};
use crate::scope::{Kind, Notice, PeerView, PublicationView, Source};
use crate::sdp::IceCredentials;
use crate::{id, limits};

/// An error of the link.
pub fn error(code: ErrorCode, reason: impl Into<String>) -> link::Error {
    let passes =
        matches!(code, ErrorCode::Unavailable | ErrorCode::SlowReader | ErrorCode::TimedOut);
    link::Error { code: code.into(), reason: reason.into(), retry_ms: retry_ms(passes) }
}

impl From<Fault> for link::Error {
    fn from(fault: Fault) -> Self {
        let code = fault.credential.map_or_else(|| code(fault.class), credential_code);
        Self { code: code.into(), reason: fault.reason, retry_ms: retry_ms(fault.passes) }
    }
}

/// When to try again what `passes` by itself; 0: waiting does not help.
fn retry_ms(passes: bool) -> u32 {
    if passes { limits::RETRY_MS } else { 0 }
}

/// The code of a refusal.
fn code(class: Class) -> ErrorCode {
    match class {
        Class::Malformed | Class::NotAcceptable => ErrorCode::Malformed,
        Class::Unauthorized => ErrorCode::Unauthorized,
        Class::Forbidden => ErrorCode::Forbidden,
        Class::NotFound => ErrorCode::NotFound,
        Class::Conflict => ErrorCode::Conflict,
        Class::TooLarge => ErrorCode::TooLarge,
        Class::UnsupportedCodec => ErrorCode::Unsupported,
        Class::TooMany => ErrorCode::TooMany,
        Class::Internal => ErrorCode::Internal,
        Class::Unavailable | Class::Elsewhere => ErrorCode::Unavailable,
    }
}

/// The code of a credential that is refused.
fn credential_code(reason: Reason) -> ErrorCode {
    match reason {
        Reason::Missing | Reason::SchemeNotEnabled => ErrorCode::Unauthorized,
        Reason::Malformed => ErrorCode::Malformed,
        Reason::UnknownApplication => ErrorCode::UnknownApplication,
        Reason::BadSignature => ErrorCode::BadSignature,
        Reason::Expired => ErrorCode::Expired,
        Reason::ClockSkewed => ErrorCode::ClockSkewed,
        Reason::Replayed => ErrorCode::Replayed,
        Reason::SaltsFull => ErrorCode::TooMany,
        Reason::WrongScope => ErrorCode::WrongScope,
        Reason::NotGranted => ErrorCode::Forbidden,
        Reason::StoreFailed => ErrorCode::Unavailable,
    }
}

/// A signed credential for a scope. Its signature comes as 32 bytes, or as their 64 digits.
///
/// # Errors
/// [`Reason::Malformed`] for a scheme that is not known here.
pub fn signed(given: &link::SignedCredential, scope: &str) -> Result<Signed, Refusal> {
    let scheme = match link::signed_credential::Scheme::try_from(given.scheme) {
        Ok(link::signed_credential::Scheme::HmacSha256) => Scheme::HmacSha256,
        Ok(link::signed_credential::Scheme::Sha256Concatenated) => Scheme::Concatenated,
        Err(_) => {
            let text = format!(
                "credential malformed: scheme {} is not known here; the node is older than the \
                 client, or it is no scheme",
                given.scheme
            );
            return Err(Refusal::new(Reason::Malformed, text));
        }
    };
    let digits = match given.signature.len() {
        32 => id::hex(&given.signature),
        _ => String::from_utf8_lossy(&given.signature).into_owned(),
    };
    Ok(Signed {
        scheme,
        application: given.application_id.clone(),
        scope: scope.into(),
        user: given.user_id.clone(),
        salt: given.salt.clone(),
        expires: given.expires,
        signature: match scheme {
            Scheme::HmacSha256 => digits.to_ascii_lowercase(),
            Scheme::Concatenated => digits.to_ascii_uppercase(),
        },
    })
}

/// A code as metrics know it.
pub fn label(code: ErrorCode) -> String {
    code.as_str_name().trim_start_matches("ERROR_CODE_").to_ascii_lowercase()
}

/// Audio or video.
///
/// # Errors
/// [`Class::Malformed`] for neither.
pub fn kind(kind: i32) -> Result<Kind, Fault> {
    match link::Kind::try_from(kind) {
        Ok(link::Kind::Audio) => Ok(Kind::Audio),
        Ok(link::Kind::Video) => Ok(Kind::Video),
        _ => Err(Fault::malformed(format!("kind is {kind}: 1 (audio) or 2 (video)"))),
    }
}

/// What a client asks to publish.
///
/// # Errors
/// As [`kind`].
pub fn publish(publish: link::Publish) -> Result<PublishSpec, Fault> {
    Ok(PublishSpec {
        kind: kind(publish.kind)?,
        source: match publish.source() {
            link::Source::Unspecified => None,
            link::Source::Camera => Some(Source::Camera),
            link::Source::Microphone => Some(Source::Microphone),
            link::Source::Screen => Some(Source::Screen),
            link::Source::ScreenAudio => Some(Source::ScreenAudio),
            link::Source::Other => Some(Source::Other),
        },
        name: (!publish.name.is_empty()).then_some(publish.name),
        codec: publish.codec,
        encodings: usize::try_from(publish.encodings).unwrap_or(usize::MAX),
        muted: publish.muted,
    })
}

/// What a client wants of a stream.
pub fn preferences(preferences: link::Preferences) -> relay::Preferences {
    let link::Preferences { paused, layer_max, height, priority, pinned } = preferences;
    relay::Preferences {
        paused,
        layer_max,
        height,
        priority: priority.min(255),
        pinned,
        ..relay::Preferences::default()
    }
}

/// From whom a client takes what. Screens, with their sound, go with video.
///
/// # Errors
/// As [`kind`].
pub fn allow(allow: link::AllowSenders) -> Result<AllowSpec, Fault> {
    let senders = match allow.everybody {
        true => Senders::All,
        false => Senders::Peers(allow.peer_ids.into_iter().collect()),
    };
    Ok(match kind(allow.kind)? {
        Kind::Audio => AllowSpec { audio: Some(senders), ..AllowSpec::default() },
        Kind::Video => AllowSpec {
            video: Some(senders.clone()),
            screen: Some(senders),
            ..AllowSpec::default()
        },
    })
}

/// SSRCs of an encoding.
pub fn encoding(encoding: &Encoding) -> link::Encoding {
    link::Encoding { ssrc: encoding.ssrc, rtx_ssrc: encoding.rtx_ssrc }
}

/// The session key.
pub fn session_key(key: &SessionKey) -> link::SessionKey {
    link::SessionKey {
        profile: key.profile().number(),
        key: key.key().to_vec(),
        salt: key.salt().to_vec(),
    }
}

/// A place where the relay takes datagrams, and of what.
pub fn endpoint((purpose, place): &(relay::candidate::Purpose, SocketAddr)) -> link::Endpoint {
    let purpose = match purpose {
        relay::candidate::Purpose::Any => Purpose::Any,
        relay::candidate::Purpose::Audio => Purpose::Audio,
        relay::candidate::Purpose::Video => Purpose::Video,
    };
    link::Endpoint {
        protocol: Protocol::Udp.into(),
        purpose: purpose.into(),
        address: place.ip().to_string(),
        port: place.port().into(),
    }
}

/// ICE credentials.
pub fn credentials(ice: &IceCredentials) -> link::IceCredentials {
    link::IceCredentials { ufrag: ice.ufrag.clone(), pwd: ice.pwd.clone() }
}

/// Peers for the answer to `Auth`, as many as a message should hold, and the rest of them.
pub fn peers(views: &[PeerView]) -> (Vec<link::Peer>, Vec<link::Peer>) {
    let mut bytes = 0;
    views.iter().map(peer).partition(|peer| {
        bytes += peer.encoded_len();
        bytes <= limits::PEERS_BYTES
    })
}

/// A peer with its publications.
pub fn peer(view: &PeerView) -> link::Peer {
    link::Peer {
        peer_id: view.peer.clone(),
        name: view.name.clone(),
        publications: view.publications.iter().map(publication).collect(),
    }
}

fn publication(view: &PublicationView) -> link::Publication {
    link::Publication {
        publication_id: view.publication.clone(),
        kind: told_kind(view.kind).into(),
        source: match view.source {
            Source::Camera => link::Source::Camera,
            Source::Microphone => link::Source::Microphone,
            Source::Screen => link::Source::Screen,
            Source::ScreenAudio => link::Source::ScreenAudio,
            Source::Other => link::Source::Other,
        }
        .into(),
        name: view.name.clone().unwrap_or_default(),
        muted: view.muted,
        codec: view.codec.clone(),
    }
}

fn told_kind(kind: Kind) -> link::Kind {
    match kind {
        Kind::Audio => link::Kind::Audio,
        Kind::Video => link::Kind::Video,
    }
}

/// The codecs of native clients.
pub fn codecs() -> Vec<link::Codec> {
    let codec = |format: &formats::Format| {
        let codec = format.for_relay();
        link::Codec {
            kind: told_kind(format.kind).into(),
            name: codec.name,
            payload_type: codec.payload_type,
            clock_rate_hz: codec.clock_rate_hz,
            channels: codec.channels,
            parameters: codec.parameters,
            rtx_payload_type: codec.rtx_payload_type.unwrap_or_default(),
        }
    };
    formats::FORMATS.iter().map(codec).collect()
}

/// The header extensions of native clients.
pub fn extensions() -> Vec<link::HeaderExtension> {
    let each = |(id, uri, _): &(u8, &str, Option<Kind>)| link::HeaderExtension {
        id: (*id).into(),
        uri: (*uri).to_owned(),
    };
    formats::EXTENSIONS.iter().map(each).collect()
}

/// What happened, as a client is told it; none for what is told otherwise, or not at all.
pub fn event(notice: &Notice) -> Option<Body> {
    use user_event::Body as Event;
    let event = match notice {
        Notice::Joined(view) => Event::Joined(peer(view)),
        Notice::Left { peer, reason } => {
            Event::Left(link::Left { peer_id: peer.clone(), reason: reason.clone() })
        }
        Notice::Published { peer, publication: view } => Event::Started(link::StreamStarted {
            peer_id: peer.clone(),
            publication: Some(publication(view)),
        }),
        Notice::Unpublished { peer, publication } => Event::Ended(link::StreamEnded {
            peer_id: peer.clone(),
            publication_id: publication.clone(),
        }),
        Notice::Muted { peer, publication, muted } => Event::Muted(link::StreamMuted {
            peer_id: peer.clone(),
            publication_id: publication.clone(),
            muted: *muted,
        }),
        Notice::Speech { peer, publication, speaking } => {
            Event::Speech(speech(peer, publication, *speaking))
        }
        Notice::Dominant { peer, publication } => Event::Dominant(speech(peer, publication, true)),
        Notice::Layers { publication, encodings } => Event::LayersWanted(link::LayersWanted {
            publication_id: publication.clone(),
            encodings: encodings.clone(),
        }),
        Notice::MediaLost { reason, .. } => {
            Event::MediaLost(link::MediaLost { reason: reason.clone() })
        }
        Notice::Direct(offer) => return Some(Body::Direct(direct(offer))),
        Notice::DirectWanted(ids) => return Some(Body::DirectWanted(wanted(ids))),
        Notice::DirectEnded(reason) => return Some(direct_ended(reason)),
        Notice::Lost(lost) => return Some(Body::MessagesLost(messages_lost(lost))),
        Notice::Quality(_)
        | Notice::Message(_)
        | Notice::ChannelEnded
        | Notice::Connected { .. }
        | Notice::Moved
        | Notice::Signal(_)
        | Notice::KeyChanged => return None,
    };
    Some(user(event))
}

/// The other of two.
pub fn direct(offer: &Offer) -> link::Direct {
    link::Direct {
        peer_id: offer.peer.clone(),
        endpoints: match offer.way {
            Way::Told(place) => vec![place.to_string()],
            Way::Signalled => Vec::new(),
        },
        remote_ice: Some(credentials(&offer.remote)),
        local_ice: Some(credentials(&offer.local)),
        controlling: offer.controlling,
        wanted: Some(wanted(&offer.wanted)),
    }
}

/// Messages that went with their receiver.
pub fn messages_lost(lost: &Lost) -> link::MessagesLost {
    let Lost { peer, count, first, last } = lost.clone();
    link::MessagesLost { peer_id: peer, count, first, last }
}

fn wanted(publications: &[String]) -> link::DirectWanted {
    link::DirectWanted { publication_ids: publications.to_vec() }
}

/// Media does not go directly any more.
pub fn direct_ended(reason: &str) -> Body {
    Body::DirectEnded(link::DirectEnded { reason: reason.into() })
}

/// Somebody speaks, or is silent.
pub fn speech(peer: &str, publication: &str, speaking: bool) -> link::Speech {
    link::Speech { peer_id: peer.into(), publication_id: publication.into(), speaking }
}

/// An event as a message.
pub fn user(event: user_event::Body) -> Body {
    Body::Event(link::UserEvent { body: Some(event) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_credential_has_the_code_that_its_page_names() {
        let page = include_str!("../../../docs/authentication.md");
        for reason in Reason::ALL {
            let name = reason.name();
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
            let code = label(credential_code(*reason)).to_ascii_uppercase();
            assert!(row.is_some_and(|row| row.contains(&format!(" | `{code}` | "))), "{name}");
        }
    }

    #[test]
    fn a_scheme_of_a_later_version_is_not_taken_for_another() {
        let given = link::SignedCredential { scheme: 7, ..Default::default() };
        let Err(refusal) = signed(&given, "lobby") else { panic!("it is taken") };
        assert_eq!(refusal.reason, Reason::Malformed);
        assert!(refusal.text.contains("scheme 7"), "{}", refusal.text);
    }

    #[test]
    fn who_does_not_fit_into_the_answer_comes_after_it() {
        let view = |n: usize| {
            let publication = PublicationView {
                publication: format!("pub-{n:026}"),
                kind: Kind::Audio,
                source: Source::Other,
                name: Some("x".repeat(limits::NAME_BYTES)),
                muted: false,
                codec: "opus".into(),
            };
            let publications = vec![publication; limits::PUBLICATIONS_PER_PEER];
            PeerView { peer: format!("p-{n:026}"), name: "n".into(), publications }
        };
        let views: Vec<_> = (0..500).map(view).collect();
        let (first, rest) = peers(&views);
        let told: Vec<_> = first.iter().chain(&rest).map(|peer| &peer.peer_id).collect();
        assert_eq!(told, views.iter().map(|view| &view.peer).collect::<Vec<_>>());
        let bytes: usize = first.iter().map(Message::encoded_len).sum();
        assert!(!first.is_empty() && bytes <= limits::PEERS_BYTES, "{bytes}");
        assert!(rest.len() > first.len());
    }
}
