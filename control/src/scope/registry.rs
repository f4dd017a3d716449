//! All scopes of this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use strait_proto::v1;
use tracing::warn;

use super::allowed::Allowed;
use super::at_relay::AtRelay;
use super::channels::Channels;
use super::direct::Directly;
use super::lost::Tally;
use super::native::Natives;
use super::quality::{self, Viewers, Wishes};
use super::silence::Silence;
use super::{Message, Notice, PeerView, PublicationView, Reached, Roster, Sink, direct};
use crate::cluster::Cluster;
use crate::cluster::claims::Claim;
use crate::config::{Limits, Link, Media};
use crate::events::event::Hold;
use crate::events::{Life, Moment, Notary, Stay};
use crate::fault::{Class, Fault};
use crate::id;
use crate::limits;
use crate::relay::Relay;
use crate::sdp::{Fec, IceCredentials};

/// What names a scope: scopes of different applications never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScopeKey {
    /// Application.
    pub application: String,
    /// Scope name.
    pub scope: String,
}

/// All scopes.
pub struct Scopes {
    scopes: Mutex<HashMap<ScopeKey, Arc<Scope>>>,
    pub(super) relay: Relay,
    notary: Arc<Notary>,
    limits: Limits,
    media: Media,
    pub(super) transports: AtomicU64,
    wishes: Wishes,
    /// Whether two may go directly, and applications whose clients never do.
    direct: (bool, Vec<String>),
    /// Browsers that were told of the other of two.
    direct_offers: AtomicU64,
    /// Messages and KiB a second that a browser may say by its data channels.
    speech: (u32, u32),
    pub(super) silence: Silence,
    cluster: Arc<Cluster>,
}

/// One scope, for as long as somebody is in it.
pub struct Scope {
    /// Its name.
    pub key: ScopeKey,
    /// The relay's name for it: unique for each life of the scope, so that disposing the last one
    /// cannot hit the next.
    pub relay_id: String,
    /// This life of it, as events call it.
    pub life: Arc<Life>,
    roster: Mutex<Roster<Sink>>,
    viewers: Mutex<Viewers>,
    natives: Mutex<Natives>,
    /// What the relay knows of it. Held while that changes, and while its session key does.
    pub(super) at_relay: tokio::sync::Mutex<AtRelay>,
    /// The relay's counters of its transports, while they are fresh.
    statistics: tokio::sync::Mutex<Option<HashMap<String, v1::PeerStatistics>>>,
    channels: Mutex<Channels>,
}

impl Scopes {
    /// No scopes yet.
    pub fn new(
        relay: Relay,
        notary: Arc<Notary>,
        limits: Limits,
        media: Media,
        link: &Link,
        cluster: Arc<Cluster>,
    ) -> Self {
        let (scopes, wishes) = Default::default();
        let speech = (link.messages_per_second, link.kibibytes_per_second);
        let direct = (link.direct, link.relayed_applications.clone());
        let (transports, direct_offers) = Default::default();
        Self {
            scopes,
            relay,
            notary,
            limits,
            media,
            transports,
            wishes,
            direct,
            direct_offers,
            speech,
            silence: Silence::default(),
            cluster,
        }
    }

    /// Whether two clients of an application may send to one another.
    pub fn goes_directly(&self, application: &str) -> bool {
        let (direct, relayed) = &self.direct;
        *direct && !relayed.iter().any(|relayed| relayed == application)
    }

    /// Browsers that were told of the other of two.
    pub fn direct_offers(&self) -> u64 {
        self.direct_offers.load(Ordering::Relaxed)
    }

    /// A browser was told of the other of two.
    pub fn count_direct_offer(&self) {
        self.direct_offers.fetch_add(1, Ordering::Relaxed);
    }

    /// Where browsers can ask how they are seen from outside.
    pub fn stun_servers(&self) -> Vec<String> {
        self.relay.stun_servers()
    }

    /// What a peer whose data channels the relay takes may do there.
    pub(super) fn data_channels(&self, message_bytes_max: u32) -> v1::DataChannels {
        let (messages_per_second, kibibytes_per_second) = self.speech;
        v1::DataChannels { message_bytes_max, messages_per_second, kibibytes_per_second }
    }

    /// The forward error correction that is agreed to with publishers.
    pub(super) fn fec(&self) -> &[Fec] {
        &self.media.fec
    }

    /// The number of the next transport. A peer that leaves a scope and comes back must not get the
    /// name again that late events of its old transport carry, or that the relay still knows.
    pub(super) fn next_transport(&self) -> u64 {
        self.transports.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Scopes and peers that there are.
    pub fn counts(&self) -> (usize, usize) {
        let scopes = self.lock();
        (scopes.len(), scopes.values().map(|scope| scope.roster().len()).sum())
    }

    /// What each peer may send altogether, in bits per second; 0 is no cap.
    pub(super) fn uplink_bps_max(&self) -> u64 {
        self.limits.uplink_bps_per_peer
    }

    /// Limits.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The cluster that this process is in.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What happens is told to it.
    pub(super) fn notary(&self) -> &Notary {
        &self.notary
    }

    /// Holds a scope that this node held before its process was started again.
    pub(crate) fn claim_again(&self, key: &ScopeKey, fence: u64) -> Claim {
        self.cluster.claim_again(key, fence)
    }

    /// A scope is there again.
    pub(crate) fn insert(&self, scope: &Arc<Scope>) {
        self.lock().insert(scope.key.clone(), Arc::clone(scope));
    }

    /// The relay.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Makes sure that a scope is this node's, before somebody enters it.
    ///
    /// # Errors
    /// As [`Cluster::claim`].
    pub async fn claim(&self, key: &ScopeKey) -> Result<Claim, Fault> {
        id::check_name("the scope's name", &key.scope, limits::SCOPE_NAME_BYTES)?;
        self.cluster.claim(key).await
    }

    /// Whether a scope may be entered here, as far as that is known: it is not another node's.
    ///
    /// # Errors
    /// [`Class::Elsewhere`]; [`Class::Malformed`] for what is no name of a scope.
    pub async fn check_here(&self, key: &ScopeKey) -> Result<(), Fault> {
        id::check_name("applicationId", &key.application, limits::APPLICATION_BYTES)?;
        id::check_name("scopeId", &key.scope, limits::SCOPE_NAME_BYTES)?;
        self.cluster.check_here(key).await
    }

    /// Ends a scope that was given to another node: everybody in it is asked to begin anew.
    pub fn give_up(&self, key: &ScopeKey) {
        let scope = self.lock().get(key).cloned();
        if let Some(scope) = scope {
            tell_all(&scope.roster(), Notice::Moved);
        }
    }

    /// Brings a member into the scope, which is made when absent, and tells the others. Returns who
    /// is there besides, and what `admit` said before; what happens after that comes to the sink.
    ///
    /// # Errors
    /// As [`Roster::join`] and `admit`; [`crate::fault::Class::TooMany`] at the limit of scopes.
    pub(super) fn enter<T>(
        &self,
        key: ScopeKey,
        (peer, name): (&str, &str),
        sink: Sink,
        admit: impl FnOnce(&Scope) -> Result<T, Fault>,
    ) -> Result<(Arc<Scope>, Vec<PeerView>, T), Fault> {
        id::check_name("the scope's name", &key.scope, limits::SCOPE_NAME_BYTES)?;
        let mut scopes = self.lock();
        let scope = match scopes.get(&key) {
            Some(scope) => Arc::clone(scope),
            None if scopes.len() >= self.limits.scopes => {
                return Err(Fault::too_many(format!(
                    "there are {} scopes (limits.scopes); try again later",
                    scopes.len()
                ))
                .passing());
            }
            None => {
                let life = self.notary.life(&key.application, &key.scope, Moment::now())?;
                Arc::new(Scope::new(key.clone(), life)?)
            }
        };
        // First, because what `admit` gives out is not given back.
        scope.roster().check_room(self.limits.peers_per_scope)?;
        let admitted = admit(&scope)?;
        let others = {
            let mut roster = scope.roster();
            roster.join(peer, name, sink, self.limits.peers_per_scope)?;
            if let Some(view) = roster.view(peer) {
                tell(&roster, peer, Notice::Joined(view));
            }
            settle(&mut roster);
            roster.others(peer)
        };
        // Given to another node between the claim and now: those in it were told, this one was not there.
        if !self.cluster.is_held(&key)
            && let Some(sink) = scope.roster().sink(peer)
        {
            sink.send(&Arc::new(Notice::Moved));
        }
        // Under the lock of all scopes, so that the last leaver cannot remove it in between.
        scopes.insert(key, Arc::clone(&scope));
        Ok((scope, others, admitted))
    }

    /// Takes a member out, tells the others, and ends the scope with its last member.
    pub(super) async fn exit(&self, scope: &Arc<Scope>, peer: &str, reason: &str) {
        let is_over = {
            let mut scopes = self.lock();
            let mut roster = scope.roster();
            let Some(publications) = roster.leave(peer) else { return };
            tell_ended(&roster, peer, publications);
            tell(&roster, peer, Notice::Left { peer: peer.into(), reason: reason.into() });
            scope.settle_in_time(&mut roster);
            let is_over =
                roster.is_empty() && scopes.get(&scope.key).is_some_and(|s| Arc::ptr_eq(s, scope));
            if is_over {
                scopes.remove(&scope.key);
            }
            is_over
        };
        if is_over {
            let hold = self
                .cluster
                .fence_of(&scope.key)
                .map(|fence| Hold { incarnation: self.cluster.me().incarnation.clone(), fence });
            self.notary.disposed(&scope.life, hold, Moment::now());
        }
        scope.channels().forget(peer);
        if scope.roster().is_empty() {
            scope.natives().clear();
            let mut at_relay = scope.at_relay.lock().await;
            if at_relay.end()
                && let Err(fault) = self.relay.dispose_scope(&scope.relay_id).await
                && fault.class != Class::NotFound
            {
                warn!(scope = scope.key.scope, "the relay kept an empty scope: {fault}");
            }
        }
    }

    /// The relay's counters for one transport, of the last [`limits::STATISTICS_AGE`]; zeros when it has
    /// none: the transport is younger than that, or just lost.
    ///
    /// # Errors
    /// The relay's refusal.
    pub(super) async fn peer_statistics(
        &self,
        scope: &Arc<Scope>,
        relay_peer: &str,
    ) -> Result<v1::PeerStatistics, Fault> {
        // Held over the call: who asks meanwhile gets the same answer.
        let mut kept = scope.statistics.lock().await;
        if let Some(found) = kept.as_ref().and_then(|kept| kept.get(relay_peer)) {
            return Ok(found.clone());
        }
        let statistics = self.relay.statistics(vec![scope.relay_id.clone()]).await?;
        let peers = statistics.scopes.into_iter().flat_map(|scope| scope.peers);
        let peers: HashMap<_, _> = peers.map(|peer| (peer.peer_id.clone(), peer)).collect();
        let found = peers.get(relay_peer).cloned();
        if kept.replace(peers).is_none() {
            let scope = Arc::clone(scope);
            tokio::spawn(async move {
                tokio::time::sleep(limits::STATISTICS_AGE).await;
                *scope.statistics.lock().await = None;
            });
        }
        Ok(found.unwrap_or_default())
    }

    /// Notes that a peer came; `client` says how it is connected.
    pub(super) fn note_joined(
        &self,
        scope: &Scope,
        peer: (&str, &str),
        user: &str,
        client: &str,
    ) -> Stay {
        self.notary.joined(&scope.life, peer, user, client, Moment::now())
    }

    /// Notes that it left.
    pub(super) fn note_left(&self, stay: Stay, reason: &str) {
        self.notary.left(stay, reason, Moment::now());
    }

    /// A peer's media path is up, or is another one.
    pub fn peer_reached(&self, relay_scope: &str, relay_peer: &str, reached: Reached) {
        let Some(scope) = self.of_relay_id(relay_scope) else { return };
        let mut roster = scope.roster();
        let Some((peer, is_news)) = roster.set_reached(relay_peer, reached) else { return };
        if let Some(sink) = roster.sink(&peer).filter(|_| is_news) {
            sink.send(&Arc::new(Notice::Connected { is_tcp: reached.is_tcp }));
        }
        scope.settle_in_time(&mut roster);
    }

    /// Somebody speaks, or is silent again.
    pub fn speech_changed(&self, relay_scope: &str, publication: &str, speaking: bool) {
        if let Some(scope) = self.of_relay_id(relay_scope) {
            scope.set_speaking(publication, speaking);
        }
    }

    /// Somebody else speaks most now.
    pub fn dominant_changed(&self, relay_scope: &str, publication: &str) {
        let Some(scope) = self.of_relay_id(relay_scope) else { return };
        let mut roster = scope.roster();
        if !roster.set_dominant(publication) {
            return;
        }
        if let Some(peer) = roster.publication(publication).map(|(peer, _)| peer.to_owned()) {
            tell_all(&roster, Notice::Dominant { peer, publication: publication.into() });
        }
    }

    /// What anybody needs of a publication.
    pub fn layers_wanted(&self, wanted: v1::LayersWanted) {
        let Some(scope) = self.of_relay_id(&wanted.scope_id) else { return };
        let roster = scope.roster();
        let peer = roster.of_relay_peer(&wanted.peer_id);
        if let Some(sink) = peer.and_then(|peer| roster.sink(peer)) {
            let v1::LayersWanted { publication_id: publication, encodings, .. } = wanted;
            sink.send(&Arc::new(Notice::Layers { publication, encodings }));
        }
    }

    /// Who wants to know how streams fare.
    pub fn quality_wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// How an encoding, or all that a peer gets, fared.
    pub fn quality_told(&self, told: &v1::MediaQuality) {
        let Some(scope) = self.of_relay_id(&told.scope_id) else { return };
        let now = Instant::now();
        let mut viewers = scope.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subscriber) = &told.subscriber {
            viewers.count(now, subscriber);
        }
        let roster = scope.roster();
        let peer = roster.of_relay_peer(&told.peer_id);
        if let Some(peer) = peer {
            self.notary.heard(&scope.life, peer, told, Moment::now());
        }
        let sink = peer.and_then(|peer| roster.sink(peer)).filter(|sink| sink.wants_quality());
        if let Some(sink) = sink {
            sink.offer(Notice::Quality(match &told.subscriber {
                Some(subscriber) => quality::of_subscriber(told.interval_seconds, subscriber),
                None => quality::of_publisher(now, told, &mut viewers),
            }));
        }
    }

    /// A peer's transport is gone at the relay.
    pub fn peer_lost(&self, relay_scope: &str, relay_peer: &str, reason: &str) {
        if let Some(scope) = self.of_relay_id(relay_scope) {
            scope.lose(relay_peer, reason);
        }
    }

    /// A scope is gone at the relay, with all transports.
    pub fn scope_lost(&self, relay_scope: &str) {
        let Some(scope) = self.of_relay_id(relay_scope) else { return };
        for relay_peer in scope.relay_peers() {
            scope.lose(&relay_peer, "the relay disposed the scope");
        }
    }

    /// Compares with what the relay has: whoever has no transport there lost it.
    pub fn reconcile(&self, is_alive: impl Fn(&str, &str) -> bool) {
        for scope in self.all() {
            for relay_peer in scope.relay_peers() {
                if !is_alive(&scope.relay_id, &relay_peer) {
                    scope.lose(&relay_peer, "the relay restarted");
                }
            }
            // Whose speech ended meanwhile was not told. Whoever goes on is told of soon.
            let speaking = scope.roster().speakers().speaking.clone();
            speaking.iter().for_each(|publication| scope.set_speaking(publication, false));
        }
    }

    pub(super) fn of_relay_id(&self, relay_id: &str) -> Option<Arc<Scope>> {
        // `Scope::new` made it: application/scope#life.
        let (name, _) = relay_id.rsplit_once('#')?;
        let scopes = self.lock();
        let found = name.match_indices('/').find_map(|(at, _)| {
            let (application, scope) = name.split_at_checked(at)?;
            let scope = scope.get(1..)?.to_owned();
            let scope = scopes.get(&ScopeKey { application: application.to_owned(), scope })?;
            (scope.relay_id == relay_id).then_some(scope)
        });
        found.cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Scope>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ScopeKey, Arc<Scope>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scope {
    fn new(key: ScopeKey, life: Arc<Life>) -> Result<Self, Fault> {
        let mut number = [0; 4];
        id::fill(&mut number)?;
        let relay_id = format!("{}/{}#{}", key.application, key.scope, id::hex(&number));
        Ok(Self::with(key, relay_id, life, Natives::default(), AtRelay::default()))
    }

    /// One that the relay has from a process of before.
    pub(super) fn recalled(
        key: ScopeKey,
        relay_id: String,
        life: Arc<Life>,
        natives: Natives,
    ) -> Self {
        Self::with(key, relay_id, life, natives, AtRelay::recalled())
    }

    fn with(
        key: ScopeKey,
        relay_id: String,
        life: Arc<Life>,
        natives: Natives,
        at_relay: AtRelay,
    ) -> Self {
        Self {
            relay_id,
            key,
            life,
            roster: Mutex::default(),
            viewers: Mutex::default(),
            natives: Mutex::new(natives),
            at_relay: tokio::sync::Mutex::new(at_relay),
            statistics: tokio::sync::Mutex::default(),
            channels: Mutex::default(),
        }
    }

    /// The members. Never held over an await.
    pub fn roster(&self) -> MutexGuard<'_, Roster<Sink>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its native clients share. Never held over an await, nor while the roster is taken.
    pub fn natives(&self) -> MutexGuard<'_, Natives> {
        self.natives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data channels of its peers. Never held over an await; the roster may be taken meanwhile, but not the other way.
    pub fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a publication and tells the others, in one step: whoever comes in between gets it
    /// once, either from the roster or as a notice.
    pub(super) fn publish(&self, peer: &str, publication: PublicationView) {
        let mut roster = self.roster();
        if roster.publish(peer, publication.clone()) {
            tell(&roster, peer, Notice::Published { peer: peer.into(), publication });
        }
    }

    /// Ends a publication and tells the others.
    pub(super) fn unpublish(&self, peer: &str, publication: &str) {
        let mut roster = self.roster();
        if roster.unpublish(peer, publication) {
            let (peer_id, publication) = (peer.to_owned(), publication.to_owned());
            tell(&roster, peer, Notice::Unpublished { peer: peer_id, publication });
        }
    }

    /// Mutes or unmutes a publication and tells the others.
    pub(super) fn set_muted(&self, peer: &str, publication: &str, muted: bool) {
        let mut roster = self.roster();
        if roster.set_muted(peer, publication, muted) {
            let (peer_id, publication) = (peer.to_owned(), publication.to_owned());
            tell(&roster, peer, Notice::Muted { peer: peer_id, publication, muted });
        }
    }

    /// Somebody speaks or is silent again: tells everybody.
    fn set_speaking(&self, publication: &str, speaking: bool) {
        let mut roster = self.roster();
        if !roster.set_speaking(publication, speaking) {
            return;
        }
        if let Some(peer) = roster.publication(publication).map(|(peer, _)| peer.to_owned()) {
            let publication = publication.to_owned();
            tell_all(&roster, Notice::Speech { peer, publication, speaking });
        }
    }

    /// Hands a message to one peer, or to all others. What one sender says keeps its order.
    ///
    /// # Errors
    /// [`Class::TooLarge`]; [`Class::NotFound`] for a peer that is not there or takes no messages;
    /// [`Class::TooMany`] for one that reads too slowly and is cut off.
    pub fn send_message(
        &self,
        from: &str,
        to: Option<&str>,
        payload: Vec<u8>,
        is_text: bool,
        number: u64,
    ) -> Result<(), Fault> {
        if payload.len() > limits::MESSAGE_BYTES {
            return Err(Fault::too_large(format!(
                "a message of {} bytes; at most {}: cut it, or send the place where it can be had",
                payload.len(),
                limits::MESSAGE_BYTES
            )));
        }
        let is_direct = to.is_some();
        let message = Message { from: from.into(), number, payload, is_text, is_direct };
        let message = Arc::new(Notice::Message(message));
        let roster = self.roster();
        let Some(to) = to else {
            let sinks = roster.sinks_but(from).filter(|sink| sink.takes_messages());
            for sink in sinks {
                if !sink.send(&message) {
                    sink.lose(&message);
                }
            }
            return Ok(());
        };
        let sink = roster.sink(to).filter(|sink| sink.takes_messages()).ok_or_else(|| {
            Fault::not_found(format!(
                "{to} is not in this scope, or takes no messages (WHIP, WHEP): it reached nobody"
            ))
        })?;
        match !sink.is_lagging() && sink.send(&message) {
            true => Ok(()),
            false => Err(Fault::too_many(format!(
                "{to} reads too slowly and is cut off; send to it again when it has joined anew"
            ))),
        }
    }

    /// Tells those who sent them that messages went with their receiver.
    pub fn tell_lost(&self, peer: &str, lost: Tally) {
        let roster = self.roster();
        for (from, lost) in lost.of(peer) {
            if let Some(sink) = roster.sink(&from) {
                sink.send(&Arc::new(Notice::Lost(lost)));
            }
        }
    }

    /// Says whether a member may go directly from now on.
    pub(super) fn let_go_directly(self: &Arc<Self>, peer: &str, directly: Directly) {
        let mut roster = self.roster();
        roster.let_go_directly(peer, directly);
        self.settle_in_time(&mut roster);
    }

    /// Says from whom a native client takes what: where it does not take all of the other of two,
    /// none of it is to come past the relay.
    pub(super) fn set_allowed(self: &Arc<Self>, peer: &str, allowed: Arc<Allowed>) {
        let mut roster = self.roster();
        roster.set_allowed(peer, allowed);
        self.settle_in_time(&mut roster);
    }

    /// As [`Roster::set_taken`], and tells it.
    pub(super) fn set_taken(&self, peer: &str, subscription: &str, publication: Option<&str>) {
        let mut roster = self.roster();
        if let Some((sink, wanted)) = roster.set_taken(peer, subscription, publication) {
            sink.send(&Arc::new(Notice::DirectWanted(wanted)));
        }
    }

    /// As [`settle`], and once more when two that have to wait may begin.
    fn settle_in_time(self: &Arc<Self>, roster: &mut Roster<Sink>) {
        settle(roster);
        let Some(due) = roster.direct_due() else { return };
        let scope = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            if let Some(scope) = scope.upgrade() {
                scope.settle_in_time(&mut scope.roster());
            }
        });
    }

    /// Hands what one of two browsers signals to the other, where there is room: later it is worth
    /// nothing. That the two were offered the direct way is all the permission it takes.
    ///
    /// # Errors
    /// [`Class::TooLarge`]; [`Class::TooMany`] for who signals too much.
    pub fn signal(&self, from: &str, signal: direct::Signal) -> Result<(), Fault> {
        if signal.text.len() > limits::SIGNAL_BYTES {
            return Err(Fault::too_large(format!(
                "a signal of {} bytes; at most {}: publish fewer streams",
                signal.text.len(),
                limits::SIGNAL_BYTES
            )));
        }
        if let Some(sink) = self.roster().signal(from, signal.number, Instant::now())? {
            sink.offer(Notice::Signal(signal));
        }
        Ok(())
    }

    /// Ends all publications of a peer and tells the others; presence stays.
    pub(super) fn lose_media(&self, peer: &str) {
        self.lose_channels(peer);
        let mut roster = self.roster();
        let publications = roster.lose_media(peer);
        tell_ended(&roster, peer, publications);
        settle(&mut roster);
    }

    /// Sends a member's notices to another sink from now on. Returns who else is there.
    pub(super) fn renew_sink(&self, peer: &str, sink: Sink) -> Vec<PeerView> {
        let mut roster = self.roster();
        roster.set_sink(peer, sink);
        roster.others(peer)
    }

    fn relay_peers(&self) -> Vec<String> {
        self.roster().relay_peers().map(|(_, relay_peer)| relay_peer.to_owned()).collect()
    }

    /// A transport is gone: its publications end, its owner is told.
    fn lose(&self, relay_peer: &str, reason: &str) {
        let mut roster = self.roster();
        let Some(peer) = roster.of_relay_peer(relay_peer).map(str::to_owned) else { return };
        let publications = roster.lose_media(&peer);
        tell_ended(&roster, &peer, publications);
        if let Some(sink) = roster.sink(&peer) {
            let (relay_peer, reason) = (relay_peer.into(), reason.into());
            sink.send(&Arc::new(Notice::MediaLost { relay_peer, reason }));
        }
        settle(&mut roster);
        drop(roster);
        self.lose_channels(&peer);
    }
}

/// Tells everyone but `peer`.
fn tell(roster: &Roster<Sink>, peer: &str, notice: Notice) {
    let notice = Arc::new(notice);
    for sink in roster.sinks_but(peer) {
        sink.send(&notice);
    }
}

pub(super) fn tell_all(roster: &Roster<Sink>, notice: Notice) {
    let notice = Arc::new(notice);
    for sink in roster.sinks() {
        sink.send(&notice);
    }
}

fn tell_ended(roster: &Roster<Sink>, peer: &str, publications: Vec<PublicationView>) {
    for publication in publications {
        let publication = publication.publication;
        tell(roster, peer, Notice::Unpublished { peer: peer.into(), publication });
    }
}

/// Tells the two of a scope when their media may go directly, and when no longer.
fn settle(roster: &mut Roster<Sink>) {
    for (peer, told) in roster.settle(Instant::now(), || IceCredentials::fresh().ok()) {
        let notice = match told {
            direct::Told::Offered(offer) => Notice::Direct(offer),
            direct::Told::Ended(reason) => Notice::DirectEnded(reason),
        };
        if let Some(sink) = roster.sink(&peer) {
            sink.send(&Arc::new(notice));
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
