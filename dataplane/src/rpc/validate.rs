//! Turns the caller's fields into the worker's, or says which field is wrong, why, and what to do.

use crate::limits::{CODEC_CHARACTERS, CODEC_LINES, CODECS, EXTENSIONS, IDENTIFIER};
use crate::{codecs, extensions};
use std::collections::HashSet;
use std::net::SocketAddr;
use strait_core::command::{Codec, Encoding, Extensions, IceCredentials, Kind, Preferences};
use strait_core::limits::{AUDIO_STREAMS_MAX, ENCODINGS_PER_PUBLICATION};
use strait_crypt::dtls::{Fingerprint, Role};
use strait_crypt::srtp::{Profile, SharedKey};
use strait_proto::v1;
use tonic::Status;

/// Characters of a MID (RFC 9143) and a RID (RFC 8852) that one-byte header extensions carry.
const SDES_CHARACTERS: usize = 16;

/// An identifier of the caller's choice.
pub(super) fn id(field: &str, value: &str) -> Result<(), Status> {
    if value.is_empty() {
        return invalid(field, "is missing: name what the call is about");
    }
    if value.len() > IDENTIFIER {
        let problem = format!("has {} bytes: at most {IDENTIFIER} are allowed", value.len());
        return invalid(field, &problem);
    }
    if value.chars().any(char::is_control) {
        return invalid(field, "has a control character: use printable ones");
    }
    Ok(())
}

/// A publication to bind to; the empty string is none.
pub(super) fn optional_id(field: &str, value: String) -> Result<Option<String>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    id(field, &value)?;
    Ok(Some(value))
}

/// How many audio streams a scope forwards.
pub(super) fn audio_streams_max(value: u32) -> Result<usize, Status> {
    let max = value as usize;
    if max > AUDIO_STREAMS_MAX {
        let problem = format!("is {value}: at most {AUDIO_STREAMS_MAX}; 0 for all of them");
        return invalid("audio_streams_max", &problem);
    }
    Ok(max)
}

/// The peer's ICE credentials.
pub(super) fn credentials(ice: Option<v1::IceCredentials>) -> Result<IceCredentials, Status> {
    let Some(v1::IceCredentials { ufrag, pwd }) = ice else {
        return invalid(
            "remote_ice",
            "is missing: take it from the peer's a=ice-ufrag and a=ice-pwd",
        );
    };
    for (field, value, least) in [("remote_ice.ufrag", &ufrag, 4), ("remote_ice.pwd", &pwd, 22)] {
        if !(least..=256).contains(&value.len()) {
            let problem =
                format!("has {} characters: {least} to 256 (RFC 8445 section 5.3)", value.len());
            return invalid(field, &problem);
        }
        if !value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/') {
            let problem = "has a character that is none of A-Z a-z 0-9 + / (RFC 8445 section 5.3)";
            return invalid(field, problem);
        }
    }
    Ok(IceCredentials { ufrag, pwd })
}

/// The certificate that the peer must present.
pub(super) fn fingerprint(fingerprint: Option<v1::Fingerprint>) -> Result<Fingerprint, Status> {
    let Some(v1::Fingerprint { algorithm, value }) = fingerprint else {
        let problem = "is missing: take it from the peer's a=fingerprint; without one anybody could be the peer";
        return invalid("remote_fingerprint", problem);
    };
    Fingerprint::new(&algorithm, &value)
        .or_else(|error| invalid("remote_fingerprint", &error.to_string()))
}

/// The session key of a scope.
pub(super) fn session_key(key: v1::SessionKey) -> Result<SharedKey, Status> {
    use v1::session_key::Profile as Named;
    let profile = match key.profile() {
        Named::AeadAes128Gcm => Profile::AeadAes128Gcm,
        Named::AeadAes256Gcm => Profile::AeadAes256Gcm,
        Named::Aes128CmSha180 => Profile::AesCm128HmacSha1_80,
        Named::Aes128CmSha132 => Profile::AesCm128HmacSha1_32,
        Named::Unspecified => {
            return invalid("session_key.profile", "is missing: 7 is AEAD_AES_128_GCM");
        }
    };
    let lengths = [
        ("session_key.key", key.key.len(), profile.key_len()),
        ("session_key.salt", key.salt.len(), profile.salt_len()),
    ];
    for (field, length, wanted) in lengths {
        if length != wanted {
            return invalid(field, &format!("has {length} bytes: this profile takes {wanted}"));
        }
    }
    Ok(SharedKey { profile, key: key.key, salt: key.salt })
}

/// Where a peer without ICE is.
pub(super) fn address(address: &str) -> Result<SocketAddr, Status> {
    let Ok(parsed) = address.parse::<SocketAddr>() else {
        return invalid(
            "remote_address",
            "is no IP:PORT, such as 192.0.2.1:5004 or [2001:db8::1]:5004",
        );
    };
    let ip = parsed.ip().to_canonical();
    if ip.is_unspecified() || ip.is_multicast() || parsed.port() == 0 {
        return invalid("remote_address", "is no address of one peer");
    }
    Ok(SocketAddr::new(ip, parsed.port()))
}

/// Our side of DTLS.
pub(super) fn role(role: i32) -> Result<Role, Status> {
    match v1::DtlsRole::try_from(role) {
        Ok(v1::DtlsRole::Unspecified | v1::DtlsRole::Server) => Ok(Role::Server),
        Ok(v1::DtlsRole::Client) => Ok(Role::Client),
        Err(_) => invalid("dtls_role", &format!("is {role}: 1 (server) or 2 (client)")),
    }
}

/// Audio or video.
pub(super) fn kind(kind: i32) -> Result<Kind, Status> {
    match v1::Kind::try_from(kind) {
        Ok(v1::Kind::Audio) => Ok(Kind::Audio),
        Ok(v1::Kind::Video) => Ok(Kind::Video),
        _ => invalid("kind", &format!("is {kind}: 1 (audio) or 2 (video)")),
    }
}

/// The MID of a stream on its leg; may be empty on a leg without the extension.
pub(super) fn mid(mid: &str) -> Result<(), Status> {
    sdes("mid", mid)
}

/// The payload types of a leg.
pub(super) fn codecs(codecs: Vec<v1::Codec>) -> Result<Vec<Codec>, Status> {
    if codecs.is_empty() {
        return invalid("codecs", "is empty: name at least one payload type of the leg");
    }
    count("codecs", codecs.len(), CODECS)?;
    let mut taken = HashSet::new();
    codecs.into_iter().enumerate().map(|(n, given)| codec(n, given, &mut taken)).collect()
}

fn codec(n: usize, given: v1::Codec, taken: &mut HashSet<u8>) -> Result<Codec, Status> {
    let field = |name: &str| format!("codecs[{n}].{name}");
    let mut payload_type = |name: &str, number: u32| {
        let pt = u8::try_from(number).ok().filter(|pt| *pt < 128);
        let Some(pt) = pt else {
            return invalid(&field(name), &format!("is {number}: RTP has 0 to 127"));
        };
        if (64..96).contains(&pt) {
            let problem = format!(
                "is {pt}: 64 to 95 collide with RTCP on the same port (RFC 5761 section 4); offer another number"
            );
            return invalid(&field(name), &problem);
        }
        if !taken.insert(pt) {
            return invalid(&field(name), &format!("is {pt}, which another codec of this leg has"));
        }
        Ok(pt)
    };
    let pt = payload_type("payload_type", given.payload_type)?;
    let rtx_pt = given
        .rtx_payload_type
        .map(|number| payload_type("rtx_payload_type", number))
        .transpose()?;
    if given.name.is_empty() || !given.name.bytes().all(|c| c.is_ascii_graphic() && c != b'/') {
        let problem = "is empty or no encoding name: take it from the peer's a=rtpmap, such as \"opus\" or \"VP8\"";
        return invalid(&field("name"), problem);
    }
    if given.clock_rate_hz == 0 {
        let problem =
            "is 0: take it from the peer's a=rtpmap, such as 48000 for opus and 90000 for video";
        return invalid(&field("clock_rate_hz"), problem);
    }
    count(&field("parameters"), given.parameters.len(), CODEC_LINES)?;
    count(&field("feedback"), given.feedback.len(), CODEC_LINES)?;
    let texts = given.parameters.iter().flat_map(|(key, value)| [key, value]);
    if texts.chain([&given.name]).chain(&given.feedback).any(|t| t.len() > CODEC_CHARACTERS) {
        let problem = format!("has a text of more than {CODEC_CHARACTERS} bytes");
        return invalid(&format!("codecs[{n}]"), &problem);
    }
    let agreed = |wanted: &str| given.feedback.iter().any(|line| line.trim() == wanted);
    Ok(Codec {
        pt,
        rtx_pt,
        kind: codecs::kind(&given.name),
        identity: codecs::identity(
            &given.name,
            given.clock_rate_hz,
            given.channels,
            &given.parameters,
        ),
        clock_rate_hz: given.clock_rate_hz,
        nack: agreed("nack"),
        pli: agreed("nack pli"),
        fir: agreed("ccm fir"),
        transport_cc: agreed("transport-cc"),
        remb: agreed("goog-remb"),
        ccfb: agreed("ack ccfb") && !agreed("transport-cc"),
        reduced_size: agreed("rtcp-rsize"),
    })
}

/// The header extensions of a leg; unknown ones are left out.
pub(super) fn extensions(given: &[v1::HeaderExtension]) -> Result<Extensions, Status> {
    count("extensions", given.len(), EXTENSIONS)?;
    let mut noted = Extensions::default();
    let mut taken = HashSet::new();
    for (n, extension) in given.iter().enumerate() {
        let field = format!("extensions[{n}].id");
        let Some(id) = u8::try_from(extension.id).ok().filter(|id| !matches!(id, 0 | 15)) else {
            let problem = format!("is {}: 1 to 14 or 16 to 255 (RFC 8285)", extension.id);
            return invalid(&field, &problem);
        };
        if !taken.insert(id) {
            return invalid(&field, &format!("is {id}, which another extension of this leg has"));
        }
        extensions::note(&mut noted, &extension.uri, id);
    }
    Ok(noted)
}

/// The layers of a publication.
pub(super) fn encodings(given: Vec<v1::Encoding>) -> Result<Vec<Encoding>, Status> {
    if given.is_empty() {
        return invalid(
            "encodings",
            "is empty: name one without rid for a stream without simulcast",
        );
    }
    count("encodings", given.len(), ENCODINGS_PER_PUBLICATION)?;
    let alone = given.len() == 1;
    let (mut rids, mut ssrcs) = (HashSet::new(), HashSet::new());
    for (n, encoding) in given.iter().enumerate() {
        sdes(&format!("encodings[{n}].rid"), &encoding.rid)?;
        if !alone && encoding.rid.is_empty() && encoding.ssrc == 0 {
            let problem =
                "has neither rid nor ssrc: one of several layers cannot be told apart without";
            return invalid(&format!("encodings[{n}]"), problem);
        }
        if !encoding.rid.is_empty() && !rids.insert(&encoding.rid) {
            return invalid(&format!("encodings[{n}].rid"), "is that of another encoding");
        }
        for ssrc in [encoding.ssrc, encoding.rtx_ssrc] {
            if ssrc != 0 && !ssrcs.insert(ssrc) {
                let problem = format!("has SSRC {ssrc}, which this publication has already");
                return invalid(&format!("encodings[{n}]"), &problem);
            }
        }
    }
    let of = |v1::Encoding { rid, ssrc, rtx_ssrc }| Encoding { rid, ssrc, rtx_ssrc };
    Ok(given.into_iter().map(of).collect())
}

/// What a subscriber wants; without a word everything, at its best.
pub(super) fn preferences(given: Option<v1::Preferences>) -> Preferences {
    let given = given.unwrap_or_default();
    let layer = |layer: u32| u8::try_from(layer).unwrap_or(u8::MAX);
    Preferences {
        paused: given.paused,
        layer_max: given.layer_max.map(layer),
        spatial_max: given.spatial_max.map(layer),
        temporal_max: given.temporal_max.map(layer),
        height: given.height.map(|height| u16::try_from(height).unwrap_or(u16::MAX)),
        priority: u8::try_from(given.priority).unwrap_or(u8::MAX),
        pinned: given.pinned,
    }
}

fn sdes(field: &str, value: &str) -> Result<(), Status> {
    if value.len() > SDES_CHARACTERS {
        let problem = format!("has {} characters: at most {SDES_CHARACTERS}", value.len());
        return invalid(field, &problem);
    }
    if !value.bytes().all(|c| c.is_ascii_graphic()) {
        return invalid(field, "has a character that is no printable ASCII (RFC 8866 token)");
    }
    Ok(())
}

fn count(field: &str, count: usize, most: usize) -> Result<(), Status> {
    if count > most {
        return invalid(field, &format!("has {count} entries: at most {most} are allowed"));
    }
    Ok(())
}

fn invalid<T>(field: &str, problem: &str) -> Result<T, Status> {
    Err(Status::invalid_argument(format!("{field} {problem}")))
}
