//! How peers come into a call: the seam between the load and the server that it drives.
//!
//! The load makes sockets, keys and media; an implementation of [`Signalling`] tells the server about them, in whatever
//! way that server is told (Strait's RPC, an offer and an answer over HTTP, …), and tells the load what was agreed.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use strait_crypt::dtls::{Fingerprint, Role};
use strait_crypt::srtp::Profile;

/// Tells a server about peers. Calls come one after the other from one thread of their own, so that an implementation
/// may block while the transports of earlier peers are at work.
pub trait Signalling: Send {
    /// Announces a peer that will send `join.stream`, and returns the server's side.
    ///
    /// # Errors
    /// Why the server did not take it. The run ends.
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError>;

    /// Announces a peer that receives `join.streams`, all of which were published before, and returns the server's
    /// side, with what was agreed for each of them in their order.
    ///
    /// # Errors
    /// Why the server did not take it. The run ends.
    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError>;

    /// Lets the server see that a peer's transport is connected, for those that need a further step then. Most do not.
    ///
    /// # Errors
    /// Why the server did not take it. The run ends.
    fn connected(&mut self, peer: &str) -> Result<(), SignallingError> {
        let _ = peer;
        Ok(())
    }

    /// Removes all that was made. Called once, also after an error.
    fn end(&mut self);
}

/// Why a peer could not join.
#[derive(Debug, thiserror::Error)]
pub enum SignallingError {
    /// The server cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The server refused.
    #[error("{0}")]
    Refused(String),
}

/// A peer that sends one stream.
#[derive(Clone, Debug)]
pub struct PublisherJoin {
    /// Name of the scope (room, conference); the same for all that meet.
    pub scope: String,
    /// Name of the peer, unique in the run.
    pub peer: String,
    /// Its side of the transport.
    pub transport: LocalTransport,
    /// What it sends.
    pub stream: PublishedStream,
}

/// A peer that receives streams.
#[derive(Clone, Debug)]
pub struct SubscriberJoin {
    /// Name of the scope (room, conference); the same for all that meet.
    pub scope: String,
    /// Name of the peer, unique in the run.
    pub peer: String,
    /// Its side of the transport.
    pub transport: LocalTransport,
    /// What it wants.
    pub streams: Vec<WantedStream>,
}

/// The load's side of a peer's transport.
#[derive(Clone, Debug)]
pub struct LocalTransport {
    /// Where its socket is bound: a host candidate. The address is unspecified (0.0.0.0 or ::) where the plan names none.
    pub address: SocketAddr,
    /// The socket itself, which does not block: until the join returns it is the implementation's alone, for servers
    /// that hear of a peer over it (TURN).
    pub socket: Arc<UdpSocket>,
    /// Its ICE credentials.
    pub ice: IceCredentials,
    /// SHA-256 of its DTLS certificate.
    pub fingerprint_sha256: [u8; 32],
    /// Canonical name for RTCP (RFC 3550 section 6.5.1).
    pub cname: String,
    /// How the plan wants media protected. The answer says how it is.
    pub security: SecurityKind,
    /// The only SRTP profile that is wanted; `None` for any. In DTLS the load offers no other.
    pub profile: Option<Profile>,
}

/// ICE credentials of one side (RFC 8445 section 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceCredentials {
    /// User fragment, 4 to 256 characters.
    pub ufrag: String,
    /// Password, 22 to 256 characters.
    pub pwd: String,
}

/// How media is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityKind {
    /// ICE, DTLS, SRTP: as a browser does.
    #[default]
    Dtls,
    /// ICE, then SRTP at once with a key that signalling hands out.
    SessionKey,
    /// RTP as it is, between two addresses that both sides know.
    Plain,
}

/// Audio or video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaKind {
    /// Opus.
    Audio,
    /// VP8.
    #[default]
    Video,
}

/// What a publisher sends.
#[derive(Clone, Debug)]
pub struct PublishedStream {
    /// Name of the stream, unique in the run.
    pub publication: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Media identification (RFC 9143) of the only media section.
    pub mid: String,
    /// The codec that is offered.
    pub codec: Codec,
    /// The header extensions that are offered: MID, and RID with simulcast.
    pub extensions: Vec<Extension>,
    /// Lowest layer first; one without RID where there is no simulcast. SSRCs are unique in the run.
    pub encodings: Vec<Encoding>,
    /// The most that all encodings together send, in bits per second.
    pub bitrate_bps: u64,
}

/// What a subscriber wants: one stream of its scope.
#[derive(Clone, Debug)]
pub struct WantedStream {
    /// [`PublishedStream::publication`].
    pub publication: String,
    /// The peer that publishes it.
    pub publisher: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// The MID that the subscriber would give it.
    pub mid: String,
    /// The codec with the payload type that the subscriber would give it.
    pub codec: Codec,
    /// The header extensions with the ids that the subscriber would give them.
    pub extensions: Vec<Extension>,
}

/// A codec on one leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Encoding name as in SDP: "opus" or "VP8".
    pub name: String,
    /// RTP payload type.
    pub payload_type: u8,
    /// Hz.
    pub clock_rate_hz: u32,
    /// 2 for Opus, 0 for video.
    pub channels: u8,
    /// Payload type of RTX (RFC 4588), where repair is on.
    pub rtx_payload_type: Option<u8>,
    /// RTCP feedback as in SDP: "nack", "nack pli", "ccm fir".
    pub feedback: Vec<String>,
}

/// A header extension on one leg (RFC 8285).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// 1 to 14.
    pub id: u8,
    /// As in [`strait_wire::ext`].
    pub uri: String,
}

/// One layer of a published stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// RID (RFC 8852); empty without simulcast.
    pub rid: String,
    /// SSRC.
    pub ssrc: u32,
    /// SSRC of RTX, where repair is on.
    pub rtx_ssrc: Option<u32>,
}

/// The server's side of a peer.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its transport.
    pub transport: RemoteTransport,
    /// What was agreed for the stream (publisher: exactly one) or streams (subscriber: in the order of the request).
    pub streams: Vec<AgreedStream>,
}

/// The server's side of a peer's transport.
#[derive(Clone, Debug)]
pub struct RemoteTransport {
    /// Where the server receives: one UDP host candidate, which the load uses.
    pub address: SocketAddr,
    /// The TURN channel that carries all of it (RFC 8656 section 12), where the server is a TURN server.
    pub channel: Option<u16>,
    /// How media is protected, with what belongs to it.
    pub security: Security,
}

/// How media is protected, as agreed.
#[derive(Clone, Debug)]
pub enum Security {
    /// ICE, DTLS, SRTP.
    Dtls {
        /// The server's credentials, and who controls.
        ice: Ice,
        /// The certificate that the server must present.
        fingerprint: Fingerprint,
        /// Which side of DTLS the *load* plays: `Client` where the server said `setup:passive`.
        role: Role,
    },
    /// ICE, then SRTP with this key in both directions.
    SessionKey {
        /// The server's credentials, and who controls; `None` where there are no checks, and media flows at once.
        ice: Option<Ice>,
        /// Cipher.
        profile: Profile,
        /// Master key, [`Profile::key_len`] bytes.
        key: Vec<u8>,
        /// Master salt, [`Profile::salt_len`] bytes.
        salt: Vec<u8>,
    },
    /// RTP to and from [`RemoteTransport::address`], without checks.
    Plain,
}

/// The server's side of ICE. The load sends a check for consent every 2.5 s and answers those of the server.
#[derive(Clone, Debug)]
pub struct Ice {
    /// The server's credentials.
    pub credentials: IceCredentials,
    /// Who nominates: the load with every check (the server is an ICE-lite agent, or it answered an offer of ours), or
    /// the server (a full agent that made the offer).
    pub load_controls: bool,
}

/// What was agreed for one stream.
#[derive(Clone, Debug)]
pub struct AgreedStream {
    /// RTP payload type on this leg.
    pub payload_type: u8,
    /// Payload type of RTX, if agreed.
    pub rtx_payload_type: Option<u8>,
    /// MID on this leg; empty for none.
    pub mid: String,
    /// Id of the MID extension on this leg, if agreed.
    pub mid_extension: Option<u8>,
    /// Id of the RID extension on this leg, if agreed; for publishers with simulcast.
    pub rid_extension: Option<u8>,
    /// The SSRC that the server sends the stream with, if it said so; a stream is known by its payload otherwise.
    /// `None` for publishers.
    pub ssrc: Option<u32>,
    /// The SSRC of its RTX, likewise.
    pub rtx_ssrc: Option<u32>,
}

impl MediaKind {
    /// As SDP says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

impl AgreedStream {
    /// What was offered or wanted, taken as it is.
    #[must_use]
    pub fn as_wanted(mid: &str, codec: &Codec, extensions: &[Extension]) -> Self {
        let id = |uri: &str| extensions.iter().find(|e| e.uri == uri).map(|e| e.id);
        Self {
            payload_type: codec.payload_type,
            rtx_payload_type: codec.rtx_payload_type,
            mid: mid.to_owned(),
            mid_extension: id(strait_wire::ext::MID),
            rid_extension: id(strait_wire::ext::RID),
            ssrc: None,
            rtx_ssrc: None,
        }
    }
}

impl LocalTransport {
    /// The host candidate, unless the plan names no address.
    #[must_use]
    pub fn candidate(&self) -> Option<SocketAddr> {
        let is_any = match self.address.ip() {
            IpAddr::V4(ip) => ip.is_unspecified(),
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        (!is_any).then_some(self.address)
    }

    /// The certificate's fingerprint as SDP writes it: upper-case hex with colons (RFC 8122 section 5).
    #[must_use]
    pub fn fingerprint_hex(&self) -> String {
        let bytes = self.fingerprint_sha256.iter();
        bytes.map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

/// Reads a SHA-256 fingerprint from upper- or lower-case hex with colons.
///
/// # Errors
/// It is none.
pub fn fingerprint_sha256(hex: &str) -> Result<Fingerprint, SignallingError> {
    let bytes: Option<Vec<u8>> =
        hex.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| Fingerprint::new("sha-256", &bytes).ok()).ok_or_else(|| {
        SignallingError::Refused(format!("the server's fingerprint is no SHA-256: {hex}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_go_there_and_back() {
        let transport = LocalTransport {
            address: "0.0.0.0:1".parse().unwrap(),
            socket: Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap()),
            ice: IceCredentials { ufrag: "abcd".into(), pwd: "x".repeat(22) },
            fingerprint_sha256: std::array::from_fn(|n| n as u8 * 7),
            cname: String::new(),
            security: SecurityKind::Dtls,
            profile: None,
        };
        let hex = transport.fingerprint_hex();
        assert!(hex.starts_with("00:07:0E:"), "{hex}");
        assert_eq!(
            fingerprint_sha256(&hex).unwrap(),
            Fingerprint::new("sha-256", &transport.fingerprint_sha256).unwrap()
        );
        assert!(fingerprint_sha256("00:07").is_err());
        assert!(fingerprint_sha256("zz").is_err());
        assert_eq!(transport.candidate(), None);
    }
}
