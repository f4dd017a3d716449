//! What a control plane asks of a worker, in the worker's own numbers, and what the worker answers.
//! strait-relay translates `strait.relay.v1` into these; the simulator makes them itself.

use crate::port::Path;
use strait_crypt::srtp;

/// A scope on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId(pub u32);
/// A peer on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);
/// A publication on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicationId(pub u32);
/// A subscription on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u32);

/// A worker of the process, as the others call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

/// ICE short-term credentials of one side (RFC 8445 section 5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// User fragment.
    pub ufrag: String,
    /// Password.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    // Commands are logged by this; who has the password can answer for the peer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sound.
    Audio,
    /// Moving pictures.
    Video,
}

/// The codecs whose payloads the path can look into; others are forwarded by their name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecKind {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// AV1 RTP specification 1.0.
    Av1,
    /// Any other: no key frames are known, so none are waited for.
    Other,
}

/// One payload type of a leg. Which publication codec goes to which subscription codec was decided by the relay
/// (strait-relay `codecs.rs`) by name and parameters; the core sees numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// RTP payload type, 0 to 127.
    pub pt: u8,
    /// Payload type of its RTX (RFC 4588).
    pub rtx_pt: Option<u8>,
    /// What the payload is.
    pub kind: CodecKind,
    /// Everything by which two legs' codecs are the same: lower-case name, clock, channels and the parameters that matter.
    pub identity: String,
    /// RTP clock.
    pub clock_rate_hz: u32,
    /// Generic NACK agreed (RFC 4585).
    pub nack: bool,
    /// Picture loss indication agreed (RFC 4585).
    pub pli: bool,
    /// Full intra request agreed (RFC 5104).
    pub fir: bool,
    /// Transport-wide feedback agreed (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub transport_cc: bool,
    /// REMB agreed (draft-alvestrand-rmcat-remb).
    pub remb: bool,
    /// Congestion control feedback agreed (RFC 8888), for want of transport-wide feedback.
    pub ccfb: bool,
    /// Feedback may go without the reports that it otherwise comes with (RFC 5506).
    pub reduced_size: bool,
}

/// Header extension ids of a leg (RFC 8285); 0 where not agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// urn:ietf:params:rtp-hdrext:sdes:mid
    pub mid: u8,
    /// urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
    pub rid: u8,
    /// urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
    pub repaired_rid: u8,
    /// urn:ietf:params:rtp-hdrext:ssrc-audio-level (RFC 6464)
    pub audio_level: u8,
    /// http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
    pub abs_send_time: u8,
    /// http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
    pub transport_cc: u8,
    /// http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
    pub playout_delay: u8,
    /// urn:3gpp:video-orientation
    pub video_orientation: u8,
    /// https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension
    pub dependency_descriptor: u8,
}

/// One simulcast layer, or the only encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// RID (RFC 8852); empty without simulcast.
    pub rid: String,
    /// 0: learned from the first packet with the MID and RID.
    pub ssrc: u32,
    /// 0: learned, or none.
    pub rtx_ssrc: u32,
}

/// What a subscriber wants of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Nothing is sent.
    pub paused: bool,
    /// Highest simulcast layer, 0 the lowest; `None` is the best.
    pub layer_max: Option<u8>,
    /// Highest spatial layer inside a stream (SVC), 0 the lowest; `None` is the best.
    pub spatial_max: Option<u8>,
    /// Highest temporal layer inside a stream, 0 the lowest; `None` is the best.
    pub temporal_max: Option<u8>,
    /// Height at which it is shown, in pixels of the screen: a layer that is as high is as good as any. `None`: not said.
    pub height: Option<u16>,
    /// Where not all can be afforded, what has more gets better layers first.
    pub priority: u8,
    /// It comes before all that is not pinned.
    pub pinned: bool,
}

/// What a control plane asks. Random values (credentials, SSRCs, first sequence numbers) come with the command.
#[derive(Debug)]
pub enum Command {
    /// Makes room for peers.
    CreateScope {
        /// Which scope.
        scope: ScopeId,
    },
    /// Forwards so many audio streams alone, the loudest by their levels (RFC 6464), to each subscriber.
    LimitAudio {
        /// Where.
        scope: ScopeId,
        /// At most [`crate::limits::AUDIO_STREAMS_MAX`]; 0 for all of them.
        streams_max: usize,
    },
    /// Removes it and all its peers.
    DisposeScope {
        /// Which scope.
        scope: ScopeId,
    },
    /// Opens a transport.
    AddPeer {
        /// Where.
        scope: ScopeId,
        /// Who.
        peer: PeerId,
        /// Ours, unique on this worker; its first characters are the worker's tag.
        local: IceCredentials,
        /// Theirs.
        remote: IceCredentials,
    },
    /// Opens a transport without ICE to a peer whose address is known: it needs no consent and stays until it is removed.
    AddFixedPeer {
        /// Where.
        scope: ScopeId,
        /// Who.
        peer: PeerId,
        /// Our side and its side; UDP.
        path: Path,
    },
    /// New credentials; the old ones hold until a check with the new ones passes.
    RestartIce {
        /// Who.
        peer: PeerId,
        /// Ours.
        local: IceCredentials,
        /// Theirs.
        remote: IceCredentials,
    },
    /// Removes a peer.
    RemovePeer {
        /// Whose.
        peer: PeerId,
    },
    /// DTLS datagrams to send to a peer, from the handshake thread.
    SendHandshake {
        /// Whose.
        peer: PeerId,
        /// Whole datagrams, in order.
        datagrams: Vec<Vec<u8>>,
    },
    /// A DTLS record of a peer's authenticated, and was no replay.
    Heard {
        /// Whose.
        peer: PeerId,
        /// By which way it came.
        path: Path,
    },
    /// The handshake is done: the media keys.
    SetKeys {
        /// Whose.
        peer: PeerId,
        /// Master keys of both directions.
        keys: srtp::SessionKeys,
    },
    /// Instead of a handshake: the session key, which is the same for all peers of the scope that have one.
    ShareKey {
        /// Whose.
        peer: PeerId,
        /// The key.
        key: srtp::SharedKey,
    },
    /// Another session key for a scope that has one, and for all its peers that have it: the relay sends under it from now
    /// on, and takes what comes under the one before for [`crate::limits::KEY_OVERLAP`] more.
    ChangeKey {
        /// Whose.
        scope: ScopeId,
        /// The key, of the same profile.
        key: srtp::SharedKey,
    },
    /// Caps what a peer sends altogether, as far as it obeys REMB.
    LimitUplink {
        /// Whose.
        peer: PeerId,
        /// Bits per second, RTP with headers; at least [`crate::limits::UPLINK_BPS_MIN`] is told. `None`: no cap.
        bps_max: Option<u64>,
    },
    /// Instead of a handshake: RTP and RTCP as they are.
    SetPlain {
        /// Whose.
        peer: PeerId,
    },
    /// The handshake failed or the peer closed DTLS.
    CloseHandshake {
        /// Who.
        peer: PeerId,
        /// Closed by the peer after success (true), or failed (false).
        closed: bool,
        /// What exactly, for people.
        detail: String,
    },
    /// Announces a stream.
    Publish {
        /// Whose.
        peer: PeerId,
        /// Which.
        publication: PublicationId,
        /// Audio or video.
        kind: Kind,
        /// MID on this leg.
        mid: String,
        /// Payload types of this leg, the preferred one first.
        codecs: Vec<Codec>,
        /// Extension ids of this leg.
        extensions: Extensions,
        /// Lowest first.
        encodings: Vec<Encoding>,
        /// Not forwarded.
        muted: bool,
        /// Our SSRC for reports and feedback towards this publisher. Under a session key it is greater than all before.
        report_ssrc: u32,
    },
    /// Takes up a publication of another worker, so that peers of this one can subscribe to it. `Unpublish` ends it,
    /// `SetMuted` holds it back: each worker that has it is told.
    Mirror {
        /// Where. The scope exists on this worker as well.
        scope: ScopeId,
        /// Which: it has the number of its origin.
        publication: PublicationId,
        /// The worker of its publisher.
        origin: WorkerId,
        /// Its publisher.
        publisher: PeerId,
        /// As it was published.
        kind: Kind,
        /// As they were published.
        codecs: Vec<Codec>,
        /// As they were published.
        extensions: Extensions,
        /// As they were published.
        encodings: Vec<Encoding>,
        /// Not forwarded.
        muted: bool,
        /// The publisher is plain, so that its packets can go out as they came.
        as_sent: bool,
    },
    /// Passes a publication on to another worker, which has a mirror of it.
    StartMirroring {
        /// Which publication.
        publication: PublicationId,
        /// To whom.
        to: WorkerId,
    },
    /// Passes it on no more.
    StopMirroring {
        /// Which publication.
        publication: PublicationId,
        /// To whom.
        to: WorkerId,
    },
    /// Ends a stream.
    Unpublish {
        /// Which publication.
        publication: PublicationId,
    },
    /// Holds a stream back, or lets it go.
    SetMuted {
        /// Which publication.
        publication: PublicationId,
        /// Held back, or not.
        muted: bool,
    },
    /// Opens an outgoing stream.
    Subscribe {
        /// Whose.
        peer: PeerId,
        /// Which.
        subscription: SubscriptionId,
        /// Audio or video.
        kind: Kind,
        /// MID on this leg.
        mid: String,
        /// What the leg takes.
        codecs: Vec<Codec>,
        /// Extension ids of this leg.
        extensions: Extensions,
        /// The outgoing SSRC. Under a session key it is greater than all that were given for the scope before.
        ssrc: u32,
        /// The outgoing SSRC of RTX, under a session key greater again.
        rtx_ssrc: u32,
        /// First sequence number.
        first_seq: u16,
        /// Packets go out as the publisher sent them, byte for byte, where both have the session key or are plain: with the
        /// publisher's SSRC, payload types, extensions and numbers. Then `ssrc`, `rtx_ssrc` and `first_seq` are not used.
        as_sent: bool,
        /// The source, if any yet.
        publication: Option<PublicationId>,
        /// What is wanted.
        preferences: Preferences,
    },
    /// Changes the source; the outgoing stream continues.
    Bind {
        /// Which subscription.
        subscription: SubscriptionId,
        /// Which publication.
        publication: Option<PublicationId>,
    },
    /// Changes what is wanted.
    SetPreferences {
        /// Which subscription.
        subscription: SubscriptionId,
        /// What is wanted.
        preferences: Preferences,
    },
    /// Ends an outgoing stream.
    Unsubscribe {
        /// Which subscription.
        subscription: SubscriptionId,
    },
}

impl Command {
    /// Whose DTLS handshake it comes from, if it comes from one.
    #[must_use]
    pub fn handshake_of(&self) -> Option<PeerId> {
        match self {
            Self::SendHandshake { peer, .. }
            | Self::SetKeys { peer, .. }
            | Self::CloseHandshake { peer, .. } => Some(*peer),
            _ => None,
        }
    }
}

/// Why a command was not carried out. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The named thing does not exist (any more).
    #[error("no such {0}: it was removed, or never added")]
    NotFound(&'static str),
    /// The identifier, user fragment or SSRC is taken.
    #[error("this {0} exists already")]
    Exists(&'static str),
    /// A maximum of `limits.rs`.
    #[error(
        "the limit of {limit} {what} is reached: remove some, or spread the load over more workers or relays"
    )]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// As many SSRCs as can be remembered were used towards this peer: none may begin anew under its keys.
    #[error(
        "the limit of {limit} SSRCs under one set of keys is reached after thousands of subscriptions: have the peer \
         leave and join again; bind and pause its subscriptions instead of ending them"
    )]
    KeysUsedUp {
        /// How many there may be, [`srtp::RETIRED_SSRCS`].
        limit: usize,
    },
    /// The subscription takes none of the publication's codecs.
    #[error(
        "the subscriber takes none of the publication's codecs ({0}): offer one of them, or publish another"
    )]
    NoCommonCodec(String),
    /// A value is out of its range.
    #[error("{0}")]
    Invalid(&'static str),
}

/// What a worker tells its control plane.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// ICE and DTLS are done.
    PeerConnected {
        /// Who.
        peer: PeerId,
        /// By which way.
        path: Path,
    },
    /// A peer that is connected is reached elsewhere, or by the other protocol.
    PeerMoved {
        /// Who.
        peer: PeerId,
        /// By which way.
        path: Path,
    },
    /// The peer is gone with all that it had. Its number may be used again.
    PeerLeft {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: LeaveReason,
        /// What exactly, for people.
        detail: String,
    },
    /// The first packet of a publication arrived.
    PublicationStarted {
        /// Which.
        publication: PublicationId,
    },
    /// Somebody speaks, as the levels of the packets say (RFC 6464).
    SpeechStarted {
        /// In which.
        publication: PublicationId,
    },
    /// Nobody has spoken for a while, or the publication was muted.
    SpeechEnded {
        /// In which.
        publication: PublicationId,
    },
    /// Somebody else dominates the scope now. Told by the worker of the publisher alone.
    DominantSpeaker {
        /// In which.
        publication: PublicationId,
    },
    /// Of a publication with several encodings: which of them anybody needs. Told when it changes, and again now and then.
    LayersWanted {
        /// Which.
        publication: PublicationId,
        /// Bit 0 is the lowest.
        encodings: u8,
    },
}

/// Why a peer left. `strait.relay.v1.PeerLeft.Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// By command.
    Removed,
    /// No ICE check for [`crate::limits::CONSENT`].
    ConsentExpired,
    /// The peer closed DTLS.
    Closed,
    /// Not connected within [`crate::limits::SETUP`], or DTLS failed.
    HandshakeFailed,
    /// Its scope was disposed of.
    ScopeDisposed,
}
