//! One peer's stay in a scope: its transport, its publications, its slots.

mod rules;

use std::sync::Arc;

use serde::Deserialize;
use strait_proto::v1;
use tracing::warn;

use super::allowed::Allowed;
use super::direct::Directly;
use super::plan::{self, Leg, Role, Wanted};
use super::registry::{Scope, ScopeKey, Scopes};
use super::{Kind, Notice, PeerView, PublicationView, Sink, Source};
use crate::auth::Identity;
use crate::cluster::claims::Claim;
use crate::events::Stay;
use crate::fault::{Class, Fault};
use crate::id;
use crate::limits;
use crate::relay::{self, Transport};
use crate::sdp::{
    Answer, AnswerLine, Direction, Fingerprint, IceCredentials, Offer, Sending, Setup,
};

/// A publication as its publisher describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublishSpec {
    /// m-line.
    pub mid: String,
    /// What it shows.
    pub source: Option<Source>,
    /// Its name.
    pub name: Option<String>,
    /// Whether it starts muted.
    #[serde(default)]
    pub muted: bool,
}

/// What a slot shall show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SubscribeSpec {
    /// m-line.
    pub mid: String,
    /// The publication; none frees the slot.
    pub publication: Option<String>,
}

/// What could not be done for one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// m-line.
    pub mid: String,
    /// Why.
    pub fault: Fault,
}

/// The outcome of an offer.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// The answer.
    pub answer: String,
    /// What failed, m-line by m-line.
    pub failed: Vec<Failed>,
}

/// One peer's stay in a scope.
pub struct Participant {
    scopes: Arc<Scopes>,
    scope: Arc<Scope>,
    identity: Identity,
    role: Role,
    peer: String,
    stay: Stay,
    media: Option<Media>,
    /// From whom it takes what.
    allowed: Allowed,
    /// What it wants to send at most, in bits per second; 0: no cap.
    uplink_wish_bps: u64,
    /// The scope is this node's as long as it lives.
    _claim: Claim,
}

/// A peer's transport and m-lines.
struct Media {
    relay_peer: String,
    local: Transport,
    fingerprint: String,
    remote_ice: IceCredentials,
    remote_fingerprint: Fingerprint,
    is_dtls_client: bool,
    /// The relay takes its data channels.
    takes_channels: bool,
    session_id: u64,
    answers: u64,
    lines: Vec<Line>,
}

/// What an m-line is in use for.
#[derive(Debug, Clone)]
enum Line {
    Publication { mid: String, id: String, leg: Leg },
    Slot(Slot),
    Unused,
}

#[derive(Debug, Clone)]
struct Slot {
    mid: String,
    id: String,
    leg: Leg,
    ssrc: u32,
    rtx_ssrc: u32,
    bound: Option<String>,
}

impl Participant {
    /// Enters a scope, without media yet. Returns who else is there.
    ///
    /// # Errors
    /// The token is for another scope, or a limit is reached.
    pub async fn enter(
        scopes: &Arc<Scopes>,
        identity: Identity,
        role: Role,
        scope: &str,
        peer: &str,
        name: &str,
        sink: Sink,
    ) -> Result<(Self, Vec<PeerView>), Fault> {
        identity.check_scope(scope)?;
        let key = ScopeKey { application: identity.application.clone(), scope: scope.into() };
        let claim = scopes.claim(&key).await?;
        let (scope, others, ()) = scopes.enter(key, (peer, name), sink, |_| Ok(()))?;
        let stay = scopes.note_joined(&scope, (peer, name), &identity.subject, role.client());
        let participant = Self {
            scopes: Arc::clone(scopes),
            scope,
            identity,
            role,
            peer: peer.into(),
            stay,
            media: None,
            allowed: Allowed::default(),
            uplink_wish_bps: 0,
            _claim: claim,
        };
        Ok((participant, others))
    }

    /// Leaves: transport, publications and slots end.
    pub async fn leave(mut self, reason: &str) {
        self.close_media().await;
        self.scopes.note_left(self.stay, reason);
        self.scopes.exit(&self.scope, &self.peer, reason).await;
    }

    /// Whether a credential of the same subject that came later allows what goes on.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_as(&self, identity: &Identity) -> Result<(), Fault> {
        if !self.publications().is_empty() {
            identity.check_publish()?;
        }
        if self.slots().next().is_some() {
            identity.check_subscribe()?;
        }
        Ok(())
    }

    /// Goes on as that one says.
    pub fn go_on_as(&mut self, identity: Identity) {
        if identity.message != self.identity.message {
            self.scope.permit_channels(&self.peer, identity.check_message());
        }
        // Of one of its own, which nobody else can enter, its name is all it takes.
        let scope = std::mem::take(&mut self.identity.scope);
        self.identity = identity;
        self.identity.scope = scope;
        if !self.identity.subscribe {
            self.go_directly(false);
        }
    }

    /// Says whether media may go directly to the other of two, and that one know the addresses: what
    /// comes so is no business of the relay's, so who may not subscribe does not.
    pub fn go_directly(&self, wanted: bool) {
        let may = wanted
            && self.role == Role::Conference
            && self.scopes.goes_directly(&self.identity.application)
            && self.identity.check_subscribe().is_ok();
        let directly = if may { Directly::Browser } else { Directly::No };
        self.scope.let_go_directly(&self.peer, directly);
    }

    /// The scope.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// The peer's identifier.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The relay's name for the transport, while there is one.
    pub fn relay_peer(&self) -> Option<&str> {
        self.media.as_ref().map(|media| media.relay_peer.as_str())
    }

    /// The peer's ICE user fragment, and the first m-line in use.
    pub fn remote_ice(&self) -> Option<&IceCredentials> {
        self.media.as_ref().map(|media| &media.remote_ice)
    }

    /// Publications: m-line and identifier.
    pub fn publications(&self) -> Vec<(String, String)> {
        let lines = self.lines().filter_map(|line| match line {
            Line::Publication { mid, id, .. } => Some((mid.clone(), id.clone())),
            _ => None,
        });
        lines.collect()
    }

    /// The RIDs of some encodings of a publication of this peer's; none where they have no RIDs.
    pub fn rids(&self, publication: &str, encodings: &[u32]) -> Option<Vec<&str>> {
        let leg = self.lines().find_map(|line| match line {
            Line::Publication { id, leg, .. } if id == publication => Some(leg),
            _ => None,
        })?;
        let rid = |at: &u32| Some(leg.encodings.get(usize::try_from(*at).ok()?)?.rid.as_str());
        encodings.iter().map(|at| rid(at).filter(|rid| !rid.is_empty())).collect()
    }

    /// Slots: m-line and the publication that it shows.
    pub fn subscriptions(&self) -> Vec<(String, Option<String>)> {
        self.slots().map(|slot| (slot.mid.clone(), slot.bound.clone())).collect()
    }

    /// Slots that show nothing: m-line and kind.
    pub fn free_slots(&self) -> Vec<(String, Kind)> {
        let free = self.slots().filter(|slot| slot.bound.is_none());
        free.map(|slot| (slot.mid.clone(), slot.leg.kind)).collect()
    }

    /// Takes an offer: the first makes the transport, a later one changes it.
    ///
    /// # Errors
    /// The offer as a whole is refused. What fails for one m-line is in [`Negotiated::failed`].
    pub async fn negotiate(
        &mut self,
        sdp: &str,
        publish: &[PublishSpec],
        subscribe: &[SubscribeSpec],
    ) -> Result<Negotiated, Fault> {
        let offer = Offer::parse(sdp)?;
        let wanted = plan::plan(&offer, self.role, self.scopes.fec())?;
        if wanted.iter().any(|line| matches!(line, Wanted::Publication(_))) {
            self.identity.check_publish()?;
        }
        if wanted.iter().any(|line| matches!(line, Wanted::Slot(_))) {
            self.identity.check_subscribe()?;
        }
        let is_new = self.media.is_none();
        let outcome = match self.prepare_transport(&offer).await {
            Ok(()) => self.apply(&offer, wanted, publish, subscribe).await,
            Err(fault) => Err(fault),
        };
        if outcome.is_err() && is_new {
            self.close_media().await;
        }
        outcome
    }

    /// Binds slots to publications, or frees them.
    pub async fn bind(&mut self, subscribe: &[SubscribeSpec]) -> Vec<Failed> {
        let mut failed = Vec::new();
        for spec in subscribe {
            if let Err(fault) = self.bind_one(&spec.mid, spec.publication.as_deref()).await {
                failed.push(Failed { mid: spec.mid.clone(), fault });
            }
        }
        failed
    }

    /// Says what the peer wants of a slot.
    ///
    /// # Errors
    /// [`Class::NotFound`] for an m-line that is no slot; the relay's refusal.
    pub async fn prefer(&self, mid: &str, preferences: v1::Preferences) -> Result<(), Fault> {
        let slot = self.slots().find(|slot| slot.mid == mid).ok_or_else(|| no_slot(mid))?;
        self.scopes.relay.set_preferences(&self.scope.relay_id, &slot.id, preferences).await
    }

    /// Mutes or unmutes one of the peer's own publications, and tells the others.
    ///
    /// # Errors
    /// [`Class::NotFound`] for a publication that is not the peer's; the relay's refusal.
    pub async fn set_muted(&self, publication: &str, muted: bool) -> Result<(), Fault> {
        if !self.publications().iter().any(|(_, id)| id == publication) {
            return Err(Fault::not_found(format!(
                "{publication} is no publication of yours; it ended, or the identifier is wrong"
            )));
        }
        self.scopes.relay.set_muted(&self.scope.relay_id, publication, muted).await?;
        self.scope.set_muted(&self.peer, publication, muted);
        Ok(())
    }

    /// Restarts ICE without an offer, as WHIP does.
    ///
    /// # Errors
    /// [`Class::Conflict`] without media; the relay's refusal.
    pub async fn restart_ice(&mut self, remote: &IceCredentials) -> Result<&Transport, Fault> {
        let media = self.media.as_mut().ok_or_else(no_media)?;
        let relay = &self.scopes.relay;
        media.local = relay.restart_ice(&self.scope.relay_id, &media.relay_peer, remote).await?;
        media.remote_ice = remote.clone();
        Ok(&media.local)
    }

    /// Takes note of what happened. True when this peer's own media is gone.
    pub fn on_notice(&mut self, notice: &Notice) -> bool {
        match notice {
            Notice::Unpublished { publication, .. } => {
                for line in self.media.iter_mut().flat_map(|media| &mut media.lines) {
                    if let Line::Slot(slot) = line
                        && slot.bound.as_ref() == Some(publication)
                    {
                        slot.bound = None;
                    }
                }
                false
            }
            Notice::MediaLost { relay_peer, .. } => {
                let is_mine = self.relay_peer() == Some(relay_peer.as_str());
                if is_mine {
                    self.media = None;
                }
                is_mine
            }
            _ => false,
        }
    }

    /// Ends transport, publications and slots; presence stays.
    pub async fn close_media(&mut self) {
        let Some(media) = self.media.take() else { return };
        self.scope.lose_media(&self.peer);
        if let Err(fault) =
            self.scopes.relay.remove_peer(&self.scope.relay_id, &media.relay_peer).await
        {
            // The relay removes it by itself when its consent runs out.
            warn!(peer = self.peer, "the relay kept a peer that left: {fault}");
        }
    }

    /// Ends the media and begins anew: presence stays, notices go to `sink` from now on. Returns
    /// who else is there.
    pub async fn restart(&mut self, sink: Sink) -> Vec<PeerView> {
        self.close_media().await;
        let others = self.scope.renew_sink(&self.peer, sink.clone());
        // What the old data channel did not bring is told once the new stay has begun.
        sink.send(&Arc::new(Notice::ChannelEnded));
        others
    }

    /// Sends a message by the peer's data channel. False: it has to go another way.
    pub fn say(&self, notice: &Arc<Notice>) -> bool {
        self.scopes.say(&self.scope, &self.peer, notice)
    }

    /// The relay's counters for this peer; zeros without media.
    ///
    /// # Errors
    /// The relay's refusal.
    pub async fn statistics(&self) -> Result<v1::PeerStatistics, Fault> {
        let Some(media) = &self.media else { return Ok(v1::PeerStatistics::default()) };
        self.scopes.peer_statistics(&self.scope, &media.relay_peer).await
    }

    async fn prepare_transport(&mut self, offer: &Offer) -> Result<(), Fault> {
        let Some(media) = &mut self.media else { return self.add_transport(offer).await };
        if media.remote_fingerprint != offer.fingerprint {
            return Err(Fault::not_acceptable(
                "the offer has another certificate than the session began with: it comes from a \
                 new RTCPeerConnection; start anew",
            ));
        }
        if media.lines.len() > offer.medias.len() {
            return Err(Fault::not_acceptable(
                "the offer has fewer m-lines than the last one; m-lines are never removed, only \
                 disabled (RFC 8829 section 5.2.2)",
            ));
        }
        if media.remote_ice != offer.ice {
            self.restart_ice(&offer.ice).await?;
        }
        Ok(())
    }

    async fn add_transport(&mut self, offer: &Offer) -> Result<(), Fault> {
        let is_dtls_client = offer.setup == Setup::Passive;
        let role = if is_dtls_client { v1::DtlsRole::Client } else { v1::DtlsRole::Server };
        // Also where there are none yet: a later offer may have them. As the client of DTLS the relay would begin them.
        let channels =
            offer.medias.iter().find_map(|media| media.channels.filter(|_| media.is_active));
        let takes_channels = channels.is_some() || !is_dtls_client;
        let message_bytes_max = channels.map_or(0, |channels| channels.message_bytes_max);
        let relay_peer = format!("{}.{}", self.peer, self.scopes.next_transport());
        let request = v1::AddPeerRequest {
            scope_id: self.scope.relay_id.clone(),
            peer_id: relay_peer.clone(),
            remote_ice: Some(relay::credentials(&offer.ice)),
            remote_fingerprint: Some(relay::fingerprint(&offer.fingerprint)),
            dtls_role: role.into(),
            data_channels: takes_channels.then(|| self.scopes.data_channels(message_bytes_max)),
            ..v1::AddPeerRequest::default()
        };
        let (local, fingerprint) = self.scopes.add_peer(&self.scope, request).await?;
        let mut session = [0; 8];
        id::fill(&mut session)?;
        self.scope.roster().set_relay_peer(&self.peer, Some(relay_peer.clone()));
        self.media = Some(Media {
            relay_peer,
            local,
            fingerprint,
            remote_ice: offer.ice.clone(),
            remote_fingerprint: offer.fingerprint.clone(),
            is_dtls_client,
            takes_channels,
            // 63 bits: some parsers read it as a signed number.
            session_id: u64::from_be_bytes(session) >> 1,
            answers: 0,
            lines: Vec::new(),
        });
        if self.uplink_bps_max() > 0 {
            self.tell_uplink().await?;
        }
        Ok(())
    }

    async fn apply(
        &mut self,
        offer: &Offer,
        wanted: Vec<Wanted>,
        publish: &[PublishSpec],
        subscribe: &[SubscribeSpec],
    ) -> Result<Negotiated, Fault> {
        let mut failed = Vec::new();
        self.end_changed_lines(offer, &wanted).await;
        if wanted.iter().any(|line| matches!(line, Wanted::Channels)) {
            let has_socket = self.role == Role::Conference;
            self.scope.admit_channels(&self.peer, self.identity.check_message(), has_socket);
        }
        for (index, (media, wanted)) in offer.medias.iter().zip(&wanted).enumerate() {
            let outcome = match (self.line(index), wanted) {
                (Line::Unused, Wanted::Publication(leg)) => {
                    let spec = publish.iter().find(|spec| spec.mid == media.mid);
                    self.start_publication(&media.mid, leg, spec).await
                }
                (Line::Unused, Wanted::Slot(leg)) => {
                    let spec = subscribe.iter().find(|spec| spec.mid == media.mid);
                    let publication = spec.and_then(|spec| spec.publication.as_deref());
                    let opened = self.open_slot(&media.mid, leg, publication).await;
                    opened.map(|(line, unbound)| {
                        failed
                            .extend(unbound.map(|fault| Failed { mid: media.mid.clone(), fault }));
                        line
                    })
                }
                (line, _) => Ok(line),
            };
            let line = match outcome {
                Ok(line) => line,
                // Without the relay nothing of the offer can be done.
                Err(fault) if fault.class == Class::Unavailable => return Err(fault),
                Err(fault) => {
                    failed.push(Failed { mid: media.mid.clone(), fault });
                    Line::Unused
                }
            };
            self.set_line(index, line);
        }
        for (media, wanted) in offer.medias.iter().zip(&wanted) {
            if let Wanted::Rejected(Some(reason)) = wanted {
                let fault = Fault::unsupported_codec(reason.clone());
                failed.push(Failed { mid: media.mid.clone(), fault });
            }
        }
        // Slots that were there before and are wanted for something else now.
        for spec in subscribe {
            let slot = self.slots().find(|slot| slot.mid == spec.mid);
            let is_tried = failed.iter().any(|failed| failed.mid == spec.mid);
            if slot.is_none_or(|slot| slot.bound != spec.publication) && !is_tried {
                failed.extend(self.bind(std::slice::from_ref(spec)).await);
            }
        }
        let answer = self.answer(offer, &wanted)?;
        Ok(Negotiated { answer, failed })
    }

    /// Ends what the offer no longer has, or has otherwise now.
    async fn end_changed_lines(&mut self, offer: &Offer, wanted: &[Wanted]) {
        for (index, (media, wanted)) in offer.medias.iter().zip(wanted).enumerate() {
            let is_same = match (self.line(index), wanted) {
                (Line::Publication { mid, leg, .. }, Wanted::Publication(_)) => {
                    mid == media.mid && leg.holds_in(media)
                }
                (Line::Slot(slot), Wanted::Slot(_)) => {
                    slot.mid == media.mid && slot.leg.holds_in(media)
                }
                (Line::Unused, _) => true,
                _ => false,
            };
            if is_same {
                continue;
            }
            let scope_id = &self.scope.relay_id;
            let ended = match self.line(index) {
                Line::Publication { id, .. } => {
                    self.scope.unpublish(&self.peer, &id);
                    self.scopes.relay.unpublish(scope_id, &id).await
                }
                Line::Slot(slot) => self.scopes.relay.unsubscribe(scope_id, &slot.id).await,
                Line::Unused => Ok(()),
            };
            if let Err(fault) = ended {
                warn!(peer = self.peer, "the relay kept a stream that ended: {fault}");
            }
            self.set_line(index, Line::Unused);
        }
    }

    async fn start_publication(
        &self,
        mid: &str,
        leg: &Leg,
        spec: Option<&PublishSpec>,
    ) -> Result<Line, Fault> {
        let media = self.media.as_ref().ok_or_else(no_media)?;
        let name = spec.and_then(|spec| spec.name.clone());
        if let Some(name) = &name {
            id::check_name("the publication's name", name, limits::NAME_BYTES)?;
        }
        let view = PublicationView {
            publication: id::random("pub")?,
            kind: leg.kind,
            source: spec.and_then(|spec| spec.source).unwrap_or(match leg.kind {
                Kind::Audio => Source::Microphone,
                Kind::Video => Source::Camera,
            }),
            name,
            muted: spec.is_some_and(|spec| spec.muted),
            codec: leg
                .codecs
                .iter()
                .find(|codec| codec.repeats().is_none() && codec.fec().is_none())
                .map(|codec| codec.name.clone())
                .unwrap_or_default(),
        };
        let encodings = leg.encodings.iter().map(|encoding| v1::Encoding {
            rid: encoding.rid.clone(),
            ssrc: encoding.ssrc,
            rtx_ssrc: encoding.rtx_ssrc,
        });
        let request = v1::PublishRequest {
            scope_id: self.scope.relay_id.clone(),
            peer_id: media.relay_peer.clone(),
            publication_id: view.publication.clone(),
            kind: super::relay_kind(leg.kind).into(),
            mid: mid.into(),
            codecs: relay::codecs(&leg.codecs, leg.reduced_size),
            extensions: leg.extensions.iter().map(relay::extension).collect(),
            encodings: encodings.collect(),
            muted: view.muted,
        };
        self.scopes.relay.publish(request).await?;
        let id = view.publication.clone();
        self.scope.publish(&self.peer, view);
        Ok(Line::Publication { mid: mid.into(), id, leg: leg.clone() })
    }

    /// Opens a slot. One that cannot show what was asked for is open all the same, with the reason.
    async fn open_slot(
        &self,
        mid: &str,
        leg: &Leg,
        publication: Option<&str>,
    ) -> Result<(Line, Option<Fault>), Fault> {
        let media = self.media.as_ref().ok_or_else(no_media)?;
        let id = id::random("sub")?;
        let sent = leg.extensions.iter().filter(|each| crate::sdp::extension::is_sent(each));
        let mut request = v1::SubscribeRequest {
            scope_id: self.scope.relay_id.clone(),
            peer_id: media.relay_peer.clone(),
            subscription_id: id.clone(),
            kind: super::relay_kind(leg.kind).into(),
            mid: mid.into(),
            codecs: relay::codecs(&leg.codecs, leg.reduced_size),
            extensions: sent.map(relay::extension).collect(),
            publication_id: String::new(),
            ..v1::SubscribeRequest::default()
        };
        let mut unbound = None;
        let mut bound = None;
        if let Some(publication) = publication {
            match self.check_publication(publication, leg.kind) {
                Ok(()) => {
                    request.publication_id = publication.into();
                    bound = Some(publication.to_owned());
                }
                Err(fault) => unbound = Some(fault),
            }
        }
        let relay = &self.scopes.relay;
        let (ssrc, rtx_ssrc) = match relay.subscribe(request.clone()).await {
            Err(fault)
                if bound.is_some()
                    && matches!(fault.class, Class::UnsupportedCodec | Class::NotFound) =>
            {
                request.publication_id.clear();
                (unbound, bound) = (Some(fault), None);
                relay.subscribe(request).await?
            }
            other => other?,
        };
        let slot = Slot { mid: mid.into(), id, leg: leg.clone(), ssrc, rtx_ssrc, bound };
        Ok((Line::Slot(slot), unbound))
    }

    async fn bind_one(&mut self, mid: &str, publication: Option<&str>) -> Result<(), Fault> {
        let slot = self.slots().find(|slot| slot.mid == mid).ok_or_else(|| no_slot(mid))?.clone();
        if let Some(publication) = publication {
            self.check_publication(publication, slot.leg.kind)?;
        }
        if slot.bound.as_deref() == publication {
            return Ok(());
        }
        self.scopes.relay.bind(&self.scope.relay_id, &slot.id, publication).await?;
        for line in self.media.iter_mut().flat_map(|media| &mut media.lines) {
            if let Line::Slot(slot) = line
                && slot.mid == mid
            {
                slot.bound = publication.map(str::to_owned);
            }
        }
        Ok(())
    }

    fn check_publication(&self, publication: &str, kind: Kind) -> Result<(), Fault> {
        let roster = self.scope.roster();
        let (sender, view) =
            roster.publication(publication).ok_or_else(|| super::no_publication(publication))?;
        if view.kind != kind {
            return Err(Fault::conflict(format!(
                "{publication} is {:?} and the m-line {kind:?}; use a slot of its kind",
                view.kind
            )));
        }
        if !self.allowed.allows(sender, view) {
            return Err(super::not_allowed(publication));
        }
        Ok(())
    }

    fn answer(&mut self, offer: &Offer, wanted: &[Wanted]) -> Result<String, Fault> {
        let peer = &self.peer;
        let role = self.role;
        let media = self.media.as_mut().ok_or_else(no_media)?;
        media.answers += 1;
        let unused = Line::Unused;
        let lines = wanted.iter().enumerate().map(|(index, wanted)| {
            let line = media.lines.get(index).unwrap_or(&unused);
            let (direction, leg, sending) = match (wanted, line) {
                (Wanted::Rejected(_), _) => return AnswerLine::Rejected,
                (Wanted::Channels, _) if media.takes_channels => return AnswerLine::Channels,
                (Wanted::Channels, _) => return AnswerLine::Rejected,
                (Wanted::Publication(_), Line::Publication { leg, .. }) => {
                    (Direction::ReceiveOnly, leg, None)
                }
                (Wanted::Slot(_), Line::Slot(slot)) => {
                    let leg = &slot.leg;
                    // A player shows one thing: its streams belong together. A conference's slots
                    // are bound one by one.
                    let stream = match role {
                        Role::Player => "strait".to_owned(),
                        _ => format!("slot-{}", slot.mid),
                    };
                    let track = slot.id.clone();
                    let (ssrc, rtx_ssrc) = (slot.ssrc, slot.rtx_ssrc);
                    let rtx_ssrc =
                        if leg.codecs.iter().any(|c| c.rtx.is_some()) { rtx_ssrc } else { 0 };
                    (Direction::SendOnly, leg, Some(Sending { stream, track, ssrc, rtx_ssrc }))
                }
                (Wanted::Publication(leg) | Wanted::Slot(leg) | Wanted::Idle(leg), _) => {
                    (Direction::Inactive, leg, None)
                }
            };
            let rids = match direction {
                Direction::ReceiveOnly => leg
                    .encodings
                    .iter()
                    .map(|e| e.rid.clone())
                    .filter(|rid| !rid.is_empty())
                    .collect(),
                _ => Vec::new(),
            };
            AnswerLine::Accepted {
                direction,
                codecs: leg.codecs.clone(),
                extensions: leg.extensions.clone(),
                rids,
                sending,
            }
        });
        let lines: Vec<AnswerLine> = lines.collect();
        tracing::debug!(peer, lines = lines.len(), "answer {}", media.answers);
        let answer = Answer {
            session_id: media.session_id,
            version: media.answers,
            ice: &media.local.ice,
            candidates: &media.local.candidates,
            fingerprint: &media.fingerprint,
            is_dtls_client: media.is_dtls_client,
            lines,
        };
        Ok(answer.write(offer))
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.media.iter().flat_map(|media| &media.lines)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.lines().filter_map(|line| match line {
            Line::Slot(slot) => Some(slot),
            _ => None,
        })
    }

    fn line(&self, index: usize) -> Line {
        let line = self.media.as_ref().and_then(|media| media.lines.get(index));
        line.cloned().unwrap_or(Line::Unused)
    }

    fn set_line(&mut self, index: usize, line: Line) {
        let Some(media) = &mut self.media else { return };
        if media.lines.len() <= index {
            media.lines.resize(index + 1, Line::Unused);
        }
        if let Some(place) = media.lines.get_mut(index) {
            *place = line;
        }
    }
}

fn no_media() -> Fault {
    Fault::conflict("there is no media session; send an offer first")
}

fn no_slot(mid: &str) -> Fault {
    Fault::not_found(format!("the m-line {mid:?} is no slot; offer it recvonly first"))
}
