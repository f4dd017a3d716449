//! The control plane of a run: who is there, who sees whom, and the commands that make it so.

use crate::peer::Peer;
use crate::peer::receiver::Receiver;
use crate::peer::source::Source;
use crate::plan::PeerSpec;
use crate::rng::Rng;
use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Extensions, IceCredentials, Kind, PeerId, Preferences,
    PublicationId, ScopeId, SubscriptionId,
};
use strait_core::time::Instant;

/// The only scope.
pub const SCOPE: ScopeId = ScopeId(1);

/// Someone of the plan.
pub struct Member {
    /// How it is.
    pub spec: PeerSpec,
    /// Its present life, if it is there.
    pub life: Option<Life>,
}

/// From joining to leaving. Someone may have several, one after the other.
pub struct Life {
    /// The worker's name of it.
    pub id: PeerId,
    /// The client.
    pub peer: Peer,
    /// When its commands were given.
    pub joined_at: Instant,
    /// What it sends.
    pub publications: Vec<Publication>,
    /// The worker said that it is connected.
    pub reported_connected: bool,
    /// It was switched off.
    pub vanished: bool,
    /// It was told to go: nothing is expected of it.
    pub leaving: bool,
    /// Keys were arranged.
    pub keys_arranged: bool,
    /// What must start over: its address or its credentials changed.
    pub disturbed_at: Instant,
}

/// What someone sends.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The worker's name of it.
    pub id: PublicationId,
    /// The name in every packet.
    pub stream: u32,
    /// Audio or video.
    pub kind: Kind,
    /// Held back.
    pub muted: bool,
    /// The worker said that packets came.
    pub started: bool,
}

/// Where someone sees or hears another.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The worker's name of it; an index into the slots as well.
    pub id: SubscriptionId,
    /// Who sees.
    pub viewer: usize,
    /// Of which of the viewer's lives.
    pub viewer_life: PeerId,
    /// Whom the slot was made for.
    pub of: usize,
    /// Audio or video.
    pub kind: Kind,
    /// The publisher now shown.
    pub shows: Option<usize>,
    /// Its publication.
    pub source: Option<PublicationId>,
    /// What is wanted.
    pub preferences: Preferences,
    /// When something changed that media needs time to follow.
    pub changed_at: Instant,
    /// The slot is no more.
    pub closed: bool,
}

/// Counters of names, so that none is used twice.
#[derive(Clone, Debug, Default)]
pub struct Names {
    next: u32,
}

impl Names {
    /// A new name.
    pub fn draw(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}

/// Credentials for the relay's side: the worker's tag and what makes them unique.
#[must_use]
pub fn relay_credentials(names: &mut Names, rng: &mut Rng) -> IceCredentials {
    let ufrag = format!("AA{:04x}{}", names.draw(), rng.ice_chars(4));
    IceCredentials { ufrag, pwd: rng.ice_chars(24) }
}

/// Credentials for a client's side.
#[must_use]
pub fn client_credentials(rng: &mut Rng) -> IceCredentials {
    IceCredentials { ufrag: rng.ice_chars(4), pwd: rng.ice_chars(22) }
}

/// The codec of a leg. Payload types differ from leg to leg, as they do between browsers.
#[must_use]
pub fn codec(spec: &PeerSpec, kind: Kind, pts: &mut Vec<u8>) -> Codec {
    let video = kind == Kind::Video;
    let pt = pts.pop().unwrap_or(96);
    let rtx_pt = if video && spec.rtx { pts.pop() } else { None };
    let identity = if video { "vp8/90000" } else { "opus/48000/2" };
    Codec {
        pt,
        rtx_pt,
        kind: if video { CodecKind::Vp8 } else { CodecKind::Opus },
        identity: identity.to_owned(),
        clock_rate_hz: if video { 90_000 } else { 48_000 },
        nack: video,
        pli: video && !spec.fir,
        fir: video && spec.fir,
        transport_cc: spec.transport_cc,
        remb: video && spec.remb,
        ccfb: false,
        reduced_size: false,
    }
}

/// A leg's payload types in the order in which they are given out.
#[must_use]
pub fn payload_types(rng: &mut Rng) -> Vec<u8> {
    let mut pts: Vec<u8> = (96..=127).collect();
    for at in (1..pts.len()).rev() {
        pts.swap(at, rng.index(at + 1));
    }
    pts
}

/// The command that announces a stream.
#[must_use]
pub fn publish(
    peer: PeerId,
    publication: PublicationId,
    source: &Source,
    extensions: Extensions,
    ssrcs_signalled: bool,
    report_ssrc: u32,
) -> Command {
    let encodings = source.layers.iter().map(|layer| Encoding {
        rid: layer.rid.clone(),
        ssrc: if ssrcs_signalled { layer.ssrc } else { 0 },
        rtx_ssrc: if ssrcs_signalled { layer.rtx_ssrc } else { 0 },
    });
    Command::Publish {
        peer,
        publication,
        kind: source.kind,
        mid: source.mid.clone(),
        codecs: vec![source.codec.clone()],
        extensions,
        encodings: encodings.collect(),
        muted: false,
        report_ssrc,
    }
}

/// The command that opens an outgoing stream into `receiver`.
#[must_use]
pub fn subscribe(slot: &Slot, receiver: &Receiver, first_seq: u16) -> Command {
    Command::Subscribe {
        peer: slot.viewer_life,
        subscription: slot.id,
        kind: slot.kind,
        mid: receiver.mid.clone(),
        codecs: vec![receiver.codec.clone()],
        extensions: receiver.extensions,
        ssrc: receiver.ssrc,
        rtx_ssrc: receiver.rtx_ssrc,
        first_seq,
        as_sent: false,
        publication: slot.source,
        preferences: slot.preferences,
    }
}
