//! One native client's stay in a scope: its transport, what it publishes, what it gets. Typed all
//! through, where [`super::Participant`] speaks SDP.

pub mod formats;

use std::collections::HashMap;
use std::sync::Arc;

use strait_proto::v1;
use tracing::warn;

use super::allowed::{AllowSpec, Allowed};
use super::at_relay::KeyChanges;
use super::direct::Directly;
use super::key::SessionKey;
use super::memo::{self, OfNative};
use super::registry::{Scope, ScopeKey, Scopes};
use super::{Kind, PeerView, PublicationView, Sink, Source};
use crate::auth::Identity;
use crate::cluster::claims::Claim;
use crate::events::{Moment, Stay};
use crate::fault::Fault;
use crate::id;
use crate::limits;
use crate::relay::{self, Transport};
use crate::sdp::IceCredentials;

/// What the native clients of a scope share.
#[derive(Default)]
pub struct Natives {
    key: Option<SessionKey>,
    pub(super) changes: KeyChanges,
    /// The last SSRC that was given out, 0 before the first. They ascend: one that came back would
    /// begin its packet index anew, and a nonce would be used twice.
    ssrc: u32,
    /// How many keys there were, the first included.
    keys: u64,
    /// What native publishers send with, by publication.
    encodings: HashMap<String, Vec<Encoding>>,
}

/// SSRCs that one encoding is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Of the media.
    pub ssrc: u32,
    /// Of its retransmissions; 0 for audio.
    pub rtx_ssrc: u32,
}

/// What a client asks to publish.
#[derive(Debug, Clone)]
pub struct PublishSpec {
    /// Audio or video.
    pub kind: Kind,
    /// What it shows; none for a microphone or a camera.
    pub source: Option<Source>,
    /// Its name.
    pub name: Option<String>,
    /// One of the table, by name.
    pub codec: String,
    /// Simulcast: how many encodings.
    pub encodings: usize,
    /// Whether it starts muted.
    pub muted: bool,
}

/// What a client gets for a subscription.
#[derive(Debug, Clone)]
pub struct Subscribed {
    /// Identifier.
    pub subscription: String,
    /// What the relay sends with, or the publisher where it goes out as sent.
    pub sent: Encoding,
    /// The publisher's own; empty for a browser.
    pub encodings: Vec<Encoding>,
    /// Payload type.
    pub payload_type: u8,
}

/// A native client in a scope.
pub struct Native {
    scopes: Arc<Scopes>,
    scope: Arc<Scope>,
    identity: Identity,
    peer: String,
    stay: Stay,
    rtcp_ssrc: u32,
    media: Option<Media>,
    allowed: Arc<Allowed>,
    /// Its media may go to the other of two, who then knows its address.
    directly: bool,
    /// The scope is this node's as long as it lives.
    _claim: Claim,
}

/// Its transport at the relay, and what goes over it.
struct Media {
    relay_peer: String,
    local: Transport,
    remote_ice: IceCredentials,
    publications: Vec<String>,
    subscriptions: Vec<Subscription>,
}

struct Subscription {
    id: String,
    publication: String,
}

impl Natives {
    /// Takes a client with these SRTP profiles in. Returns the SSRC that it sends RTCP from.
    ///
    /// # Errors
    /// As [`SessionKey::for_client`], [`SessionKey::check`] and [`Natives::ssrc`].
    fn admit(&mut self, profiles: &[i32]) -> Result<u32, Fault> {
        match &self.key {
            Some(key) => key.check(profiles)?,
            None => {
                self.key = Some(SessionKey::for_client(profiles)?);
                self.keys += 1;
            }
        }
        self.ssrc()
    }

    /// Those of before this process was started: SSRCs go on after `ssrc`.
    pub(super) fn recalled(key: SessionKey, ssrc: u32) -> Self {
        Self { key: Some(key), ssrc, ..Self::default() }
    }

    /// A publication of before.
    pub(super) fn put_back(&mut self, publication: String, encodings: Vec<Encoding>) {
        self.encodings.insert(publication, encodings);
    }

    /// The last SSRC that was given out.
    pub(super) fn last_ssrc(&self) -> u32 {
        self.ssrc
    }

    /// How many keys there were.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// An SSRC that nobody in the scope ever sent from.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`] when all were given out.
    fn ssrc(&mut self) -> Result<u32, Fault> {
        self.ssrc = match self.ssrc {
            0 => {
                let mut start = [0; 4];
                id::fill(&mut start)?;
                // In the lower half of what there is: so many are left.
                u32::from_ne_bytes(start) % (limits::SSRCS_END / 2) + 1
            }
            last if last + 1 < limits::SSRCS_END => last + 1,
            _ => {
                return Err(Fault::too_many(
                    "all SSRCs of the scope were given out, a thousand million; end it and begin \
                     anew",
                ));
            }
        };
        Ok(self.ssrc)
    }

    /// The session key, once there was a native client.
    pub fn key(&self) -> Option<&SessionKey> {
        self.key.as_ref()
    }

    /// Goes on with another key, where there is one. SSRCs go on: none comes twice.
    pub(super) fn set_key(&mut self, key: SessionKey) -> bool {
        let Some(before) = &mut self.key else { return false };
        *before = key;
        self.keys += 1;
        true
    }

    /// Forgets the key: the scope ended.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Native {
    /// Enters a scope, and opens a transport at the relay. Returns who else is there. `directly`:
    /// whether media may go to the other of two, who then knows the client's address.
    ///
    /// # Errors
    /// The credential is for another scope, a limit is reached, the scope's session key is for a
    /// profile that is not among `profiles`, or the relay refuses.
    pub async fn enter(
        scopes: &Arc<Scopes>,
        identity: Identity,
        scope: &str,
        (peer, name): (&str, &str),
        profiles: &[i32],
        sink: Sink,
        directly: bool,
    ) -> Result<(Self, Vec<PeerView>), Fault> {
        identity.check_scope(scope)?;
        let key = ScopeKey { application: identity.application.clone(), scope: scope.into() };
        let admit = |scope: &Scope| scope.natives().admit(profiles);
        let claim = scopes.claim(&key).await?;
        let (scope, others, rtcp_ssrc) = scopes.enter(key, (peer, name), sink, admit)?;
        let stay = scopes.note_joined(&scope, (peer, name), &identity.subject, "native");
        let mut native = Self {
            scopes: Arc::clone(scopes),
            scope,
            identity,
            peer: peer.into(),
            stay,
            rtcp_ssrc,
            media: None,
            allowed: Arc::default(),
            directly,
            _claim: claim,
        };
        native.settle_directly();
        if let Err(fault) = native.connect().await {
            native.leave("the relay has no place").await;
            return Err(fault);
        }
        Ok((native, others))
    }

    /// A client of before this process was started, which has its transport still. None when its memo
    /// does not fit.
    pub(crate) fn recall(
        scopes: &Arc<Scopes>,
        scope: &Arc<Scope>,
        identity: Identity,
        memo: OfNative,
        sink: Sink,
        claim: Claim,
    ) -> Option<Self> {
        let local = memo.local.transport()?;
        let remote_ice = IceCredentials::new(&memo.remote_ice.0, &memo.remote_ice.1)?;
        if !scope.put_back(&memo, sink) {
            return None;
        }
        let stay = scopes.notary().joined_before(&scope.life, &memo.stay, Moment::now());
        scopes.skip_transport(&memo.relay_peer);
        let OfNative { peer, relay_peer, rtcp_ssrc, publications, subscriptions, .. } = memo;
        let allowed = Arc::new(Allowed::of_lists(memo.allowed));
        scope.set_allowed(&peer, Arc::clone(&allowed));
        let media = Media {
            relay_peer,
            local,
            remote_ice,
            publications: publications.into_iter().map(|(view, _)| view.publication).collect(),
            subscriptions: subscriptions
                .into_iter()
                .map(|(id, publication)| Subscription { id, publication })
                .collect(),
        };
        let native = Self {
            scopes: Arc::clone(scopes),
            scope: Arc::clone(scope),
            identity,
            peer,
            stay,
            rtcp_ssrc,
            media: Some(media),
            allowed,
            directly: memo.goes_directly,
            _claim: claim,
        };
        native.settle_directly();
        Some(native)
    }

    /// What comes past the relay is no business of its: who may not subscribe gets nothing so.
    fn settle_directly(&self) {
        let may = self.directly && self.identity.check_subscribe().is_ok();
        let directly = if may { Directly::Native } else { Directly::No };
        self.scope.let_go_directly(&self.peer, directly);
    }

    /// What [`Native::recall`] needs, and whether some of it is left out; none without a transport.
    pub fn memo(&self) -> Option<(OfNative, bool)> {
        let media = self.media.as_ref()?;
        // As it is now it would be another one every ten seconds.
        let stay = self.scopes.notary().begun(self.stay)?;
        let (view, (allowed, is_cut)) = {
            let roster = self.scope.roster();
            let is_there = |peer: &str| roster.sink(peer).is_some();
            let allowed = self.allowed.to_lists(is_there, limits::MEMO_SENDERS_BYTES);
            (roster.view(&self.peer)?, allowed)
        };
        let natives = self.scope.natives();
        let encodings = |id: &str| natives.encodings.get(id).into_iter().flatten().map(memo::pair);
        let own =
            view.publications.into_iter().filter(|p| media.publications.contains(&p.publication));
        let memo = OfNative {
            identity: self.identity.noted(),
            peer: self.peer.clone(),
            name: view.name,
            stay,
            rtcp_ssrc: self.rtcp_ssrc,
            relay_peer: media.relay_peer.clone(),
            local: memo::Ends::of(&media.local),
            remote_ice: memo::told(&media.remote_ice),
            publications: own
                .map(|p| {
                    let all = encodings(&p.publication).collect();
                    (p, all)
                })
                .collect(),
            subscriptions: media
                .subscriptions
                .iter()
                .map(|one| (one.id.clone(), one.publication.clone()))
                .collect(),
            allowed,
            goes_directly: self.directly,
        };
        Some((memo, is_cut))
    }

    /// Ends subscriptions to what is not there any more.
    pub async fn end_orphans(&mut self) {
        let gone: Vec<String> = {
            let roster = self.scope.roster();
            let all = self.media.iter().flat_map(|media| &media.subscriptions);
            let gone = all.filter(|one| roster.publication(&one.publication).is_none());
            gone.map(|one| one.publication.clone()).collect()
        };
        for publication in gone {
            self.on_unpublished(&publication).await;
        }
    }

    /// Opens a transport at the relay, where there is none. True when it is new.
    ///
    /// # Errors
    /// The relay's refusal.
    pub async fn connect(&mut self) -> Result<bool, Fault> {
        if self.media.is_some() {
            return Ok(false);
        }
        let relay_peer = format!("{}.{}", self.peer, self.scopes.next_transport());
        let remote_ice = IceCredentials::fresh()?;
        let request = v1::AddPeerRequest {
            scope_id: self.scope.relay_id.clone(),
            peer_id: relay_peer.clone(),
            remote_ice: Some(relay::credentials(&remote_ice)),
            ..v1::AddPeerRequest::default()
        };
        let local = self.scopes.add_native(&self.scope, request).await?;
        self.scope.roster().set_relay_peer(&self.peer, Some(relay_peer.clone()));
        let (publications, subscriptions) = Default::default();
        self.media = Some(Media { relay_peer, local, remote_ice, publications, subscriptions });
        if self.scopes.uplink_bps_max() > 0 {
            self.limit_uplink().await?;
        }
        Ok(true)
    }

    /// Leaves: transport, publications and subscriptions end.
    pub async fn leave(mut self, reason: &str) {
        self.close_media().await;
        self.scopes.note_left(self.stay, reason);
        self.scopes.exit(&self.scope, &self.peer, reason).await;
        if self.identity.changes_keys {
            self.scopes.change_key_soon(&self.scope);
        }
    }

    /// The scope.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// Goes on as a credential of the same subject says that came later.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`]: it does not allow what goes on; nothing changed.
    pub fn go_on_as(&mut self, identity: Identity) -> Result<(), Fault> {
        if let Some(media) = &self.media {
            if !media.publications.is_empty() {
                identity.check_publish()?;
            }
            if !media.subscriptions.is_empty() {
                identity.check_subscribe()?;
            }
        }
        self.identity = identity;
        self.settle_directly();
        Ok(())
    }

    /// Who the client is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The client's identifier.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// What it sends RTCP from while it publishes nothing.
    pub fn rtcp_ssrc(&self) -> u32 {
        self.rtcp_ssrc
    }

    /// Both ends of its transport, while there is one: the relay's, and the client's credentials.
    pub fn transport(&self) -> Option<(&Transport, &IceCredentials)> {
        self.media.as_ref().map(|media| (&media.local, &media.remote_ice))
    }

    /// Begins a publication. Returns its identifier and what to send with.
    ///
    /// # Errors
    /// The credential does not permit it, a codec that is not in the table, too many of something,
    /// the relay's refusal.
    pub async fn publish(&mut self, spec: PublishSpec) -> Result<(String, Vec<Encoding>), Fault> {
        self.identity.check_publish()?;
        let format = formats::format(&spec.codec).filter(|format| format.kind == spec.kind);
        let format = format.ok_or_else(|| {
            Fault::unsupported_codec(format!(
                "{:?} is no codec for {:?} here; take one of those in the answer to the \
                 authentication",
                spec.codec, spec.kind
            ))
        })?;
        if let Some(name) = &spec.name {
            id::check_name("the publication's name", name, limits::NAME_BYTES)?;
        }
        let most = if spec.kind == Kind::Audio { 1 } else { limits::ENCODINGS_PER_MEDIA };
        if spec.encodings > most {
            return Err(Fault::too_many(format!(
                "{} encodings of {:?}, more than the {most} there may be; publish fewer",
                spec.encodings, spec.kind
            )));
        }
        let count = |media: &Media| media.publications.len();
        self.check_count("publications", count, limits::PUBLICATIONS_PER_PEER)?;
        let encodings = {
            let mut natives = self.scope.natives();
            let mut encoding = || {
                let rtx_ssrc = match format.rtx_payload_type {
                    Some(_) => natives.ssrc()?,
                    None => 0,
                };
                Ok(Encoding { ssrc: natives.ssrc()?, rtx_ssrc })
            };
            (0..spec.encodings.max(1)).map(|_| encoding()).collect::<Result<Vec<_>, Fault>>()?
        };
        // How far SSRCs are given out must be known to a process that is started again.
        self.scopes.note_scope(&self.scope).await?;
        let view = PublicationView {
            publication: id::random("pub")?,
            kind: spec.kind,
            source: spec.source.unwrap_or(match spec.kind {
                Kind::Audio => Source::Microphone,
                Kind::Video => Source::Camera,
            }),
            name: spec.name,
            muted: spec.muted,
            codec: format.name.into(),
        };
        let media = self.media.as_mut().ok_or_else(no_transport)?;
        let told = encodings.iter().map(|encoding| v1::Encoding {
            rid: String::new(),
            ssrc: encoding.ssrc,
            rtx_ssrc: encoding.rtx_ssrc,
        });
        let request = v1::PublishRequest {
            scope_id: self.scope.relay_id.clone(),
            peer_id: media.relay_peer.clone(),
            publication_id: view.publication.clone(),
            kind: super::relay_kind(spec.kind).into(),
            mid: String::new(),
            codecs: vec![format.for_relay()],
            extensions: formats::extensions(spec.kind),
            encodings: told.collect(),
            muted: spec.muted,
        };
        self.scopes.relay.publish(request).await?;
        let id = view.publication.clone();
        media.publications.push(id.clone());
        // Before the others hear of it: who subscribes at once gets them.
        self.scope.natives().encodings.insert(id.clone(), encodings.clone());
        self.scope.publish(&self.peer, view);
        Ok((id, encodings))
    }

    /// Ends a publication.
    ///
    /// # Errors
    /// [`crate::fault::Class::NotFound`] for one that is not the client's; the relay's refusal.
    pub async fn unpublish(&mut self, publication: &str) -> Result<(), Fault> {
        self.check_own(publication)?;
        if let Some(media) = &mut self.media {
            media.publications.retain(|own| own != publication);
        }
        self.scope.natives().encodings.remove(publication);
        self.scope.unpublish(&self.peer, publication);
        // The others are told of it.
        self.on_unpublished(publication).await;
        self.scopes.relay.unpublish(&self.scope.relay_id, publication).await
    }

    /// Mutes or unmutes one of the client's publications, and tells the others.
    ///
    /// # Errors
    /// As [`Native::unpublish`].
    pub async fn set_muted(&self, publication: &str, muted: bool) -> Result<(), Fault> {
        self.check_own(publication)?;
        self.scopes.relay.set_muted(&self.scope.relay_id, publication, muted).await?;
        self.scope.set_muted(&self.peer, publication, muted);
        Ok(())
    }

    /// Opens a stream of a publication towards the client; `as_sent`: as its publisher sends it.
    ///
    /// # Errors
    /// The credential or the client's own rules do not permit it, there is no such publication or
    /// no codec in common, `as_sent` is not possible, too many, the relay's refusal.
    pub async fn subscribe(
        &mut self,
        publication: &str,
        preferences: Option<v1::Preferences>,
        as_sent: bool,
    ) -> Result<Subscribed, Fault> {
        self.identity.check_subscribe()?;
        let count = |media: &Media| media.subscriptions.len();
        self.check_count("subscriptions", count, limits::SUBSCRIPTIONS_PER_PEER)?;
        let (kind, codec) = {
            let roster = self.scope.roster();
            let (sender, view) = roster
                .publication(publication)
                .ok_or_else(|| super::no_publication(publication))?;
            if !self.allowed.allows(sender, view) {
                return Err(super::not_allowed(publication));
            }
            (view.kind, view.codec.clone())
        };
        let encodings = self.scope.natives().encodings.get(publication).cloned();
        let encodings = encodings.unwrap_or_default();
        if as_sent && encodings.len() != 1 {
            return Err(Fault::unsupported_codec(format!(
                "{publication} cannot come as it is sent: that takes a native publisher with one \
                 encoding; subscribe without as_sent"
            )));
        }
        let format = formats::format(&codec).filter(|format| format.kind == kind);
        let format = format.ok_or_else(|| {
            Fault::unsupported_codec(format!(
                "{publication} is {codec}, which native clients do not take here"
            ))
        })?;
        let media = self.media.as_mut().ok_or_else(no_transport)?;
        let id = id::random("sub")?;
        let request = v1::SubscribeRequest {
            scope_id: self.scope.relay_id.clone(),
            peer_id: media.relay_peer.clone(),
            subscription_id: id.clone(),
            kind: super::relay_kind(kind).into(),
            mid: String::new(),
            codecs: formats::formats(kind).map(formats::Format::for_relay).collect(),
            extensions: formats::extensions(kind),
            publication_id: publication.into(),
            preferences,
            as_sent,
        };
        let is_paused = request.preferences.as_ref().is_some_and(|wanted| wanted.paused);
        let (ssrc, rtx_ssrc) = self.scopes.relay.subscribe(request).await?;
        if !is_paused {
            self.scope.set_taken(&self.peer, &id, Some(publication));
        }
        media.subscriptions.push(Subscription { id: id.clone(), publication: publication.into() });
        let sent = match encodings.first() {
            Some(own) if as_sent => *own,
            _ => Encoding { ssrc, rtx_ssrc: format.rtx_payload_type.map_or(0, |_| rtx_ssrc) },
        };
        Ok(Subscribed { subscription: id, sent, encodings, payload_type: format.payload_type })
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`crate::fault::Class::NotFound`] for one that the client does not have; the relay's refusal.
    pub async fn unsubscribe(&mut self, subscription: &str) -> Result<(), Fault> {
        self.check_subscription(subscription)?;
        if let Some(media) = &mut self.media {
            media.subscriptions.retain(|own| own.id != subscription);
        }
        self.scope.set_taken(&self.peer, subscription, None);
        self.scopes.relay.unsubscribe(&self.scope.relay_id, subscription).await
    }

    /// Says what the client wants of a subscription.
    ///
    /// # Errors
    /// As [`Native::unsubscribe`].
    pub async fn prefer(
        &self,
        subscription: &str,
        preferences: v1::Preferences,
    ) -> Result<(), Fault> {
        let publication = self.check_subscription(subscription)?;
        let (relay, paused) = (&self.scopes.relay, preferences.paused);
        relay.set_preferences(&self.scope.relay_id, subscription, preferences).await?;
        self.scope.set_taken(&self.peer, subscription, (!paused).then_some(publication));
        Ok(())
    }

    /// Says from whom the client takes what. Subscriptions to what is not allowed any more end: those
    /// that are returned.
    ///
    /// # Errors
    /// As [`Allowed::change`]; the relay's refusal.
    pub async fn allow(&mut self, spec: AllowSpec) -> Result<Vec<String>, Fault> {
        Arc::make_mut(&mut self.allowed).change(spec)?;
        self.scope.set_allowed(&self.peer, Arc::clone(&self.allowed));
        let refused: Vec<String> = {
            let roster = self.scope.roster();
            let subscriptions = self.media.iter().flat_map(|media| &media.subscriptions);
            let refused = subscriptions.filter(|subscription| {
                let found = roster.publication(&subscription.publication);
                found.is_some_and(|(sender, view)| !self.allowed.allows(sender, view))
            });
            refused.map(|subscription| subscription.id.clone()).collect()
        };
        for subscription in &refused {
            self.unsubscribe(subscription).await?;
        }
        Ok(refused)
    }

    /// A publication of somebody else's ended: so do subscriptions to it.
    pub async fn on_unpublished(&mut self, publication: &str) {
        let subscriptions = self.media.iter().flat_map(|media| &media.subscriptions);
        let ended: Vec<String> = subscriptions
            .filter(|subscription| subscription.publication == publication)
            .map(|subscription| subscription.id.clone())
            .collect();
        for subscription in ended {
            if let Err(fault) = self.unsubscribe(&subscription).await {
                warn!(peer = self.peer, "the relay kept a stream that ended: {fault}");
            }
        }
    }

    /// A transport is gone at the relay. True when it is the one that the client has.
    pub fn on_media_lost(&mut self, relay_peer: &str) -> bool {
        let lost = self.media.take_if(|media| media.relay_peer == relay_peer);
        let Some(lost) = lost else { return false };
        self.forget_encodings(&lost);
        true
    }

    /// The relay's counters for this client; zeros without a transport.
    ///
    /// # Errors
    /// The relay's refusal.
    pub async fn statistics(&self) -> Result<v1::PeerStatistics, Fault> {
        let Some(media) = &self.media else { return Ok(v1::PeerStatistics::default()) };
        self.scopes.peer_statistics(&self.scope, &media.relay_peer).await
    }

    async fn close_media(&mut self) {
        let Some(media) = self.media.take() else { return };
        self.forget_encodings(&media);
        self.scope.lose_media(&self.peer);
        let relay = &self.scopes.relay;
        if let Err(fault) = relay.remove_peer(&self.scope.relay_id, &media.relay_peer).await {
            // The relay removes it by itself when its consent runs out.
            warn!(peer = self.peer, "the relay kept a peer that left: {fault}");
        }
    }

    fn forget_encodings(&self, media: &Media) {
        let mut natives = self.scope.natives();
        for publication in &media.publications {
            natives.encodings.remove(publication);
        }
    }

    async fn limit_uplink(&self) -> Result<(), Fault> {
        let media = self.media.as_ref().ok_or_else(no_transport)?;
        let (relay, bps_max) = (&self.scopes.relay, self.scopes.uplink_bps_max());
        relay.limit_uplink(&self.scope.relay_id, &media.relay_peer, bps_max).await
    }

    fn check_own(&self, publication: &str) -> Result<(), Fault> {
        let mut own = self.media.iter().flat_map(|media| &media.publications);
        own.any(|own| own == publication).then_some(()).ok_or_else(|| {
            Fault::not_found(format!(
                "{publication} is no publication of yours; it ended, or the identifier is wrong"
            ))
        })
    }

    /// The publication that it is to.
    fn check_subscription(&self, subscription: &str) -> Result<&str, Fault> {
        let mut own = self.media.iter().flat_map(|media| &media.subscriptions);
        let own = own.find(|own| own.id == subscription).map(|own| own.publication.as_str());
        own.ok_or_else(|| {
            Fault::not_found(format!(
                "{subscription} is no subscription of yours; it ended with its publication, or \
                 the identifier is wrong"
            ))
        })
    }

    fn check_count(
        &self,
        what: &str,
        count: impl Fn(&Media) -> usize,
        most: usize,
    ) -> Result<(), Fault> {
        match self.media.as_ref().map_or(0, count) < most {
            true => Ok(()),
            false => Err(Fault::too_many(format!(
                "you have {most} {what}, all a client may; end one first"
            ))),
        }
    }
}

fn no_transport() -> Fault {
    Fault::conflict("the transport at the relay is gone; publish and subscribe anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ssrc_is_given_out_twice_whatever_is_published() {
        let mut natives = Natives::default();
        natives.admit(&[]).unwrap();
        let first = natives.ssrc().unwrap();
        let mut last = first;
        // Far more than one table could remember, and a new key in between.
        for number in 0..200_000 {
            let next = natives.ssrc().unwrap();
            assert!(next > last && next < limits::SSRCS_END);
            last = next;
            if number == 100_000 {
                let key = natives.key().unwrap().renewed().unwrap();
                assert!(natives.set_key(key));
            }
        }
        assert!(first <= limits::SSRCS_END / 2, "many are left");
        natives.ssrc = limits::SSRCS_END - 2;
        assert_eq!(natives.ssrc().unwrap(), limits::SSRCS_END - 1);
        let fault = natives.ssrc().unwrap_err();
        assert_eq!(fault.class, crate::fault::Class::TooMany);
        natives.clear();
        let key = SessionKey::for_client(&[]).unwrap();
        assert!(!natives.set_key(key) && natives.key().is_none(), "a scope that ended has none");
    }
}
