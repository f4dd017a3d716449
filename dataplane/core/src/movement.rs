//! A scope on its way from one worker to another, with all that it is: keys and their history, numbers, caches, clocks.
//! Nothing starts anew, so that nobody in it notices.

use crate::command::{CommandError, PeerId, ScopeId};
use crate::egress::Egress;
use crate::keys::SessionKey;
use crate::peer::Peer;
use crate::port::Path;
use crate::publication::Publication;
use crate::slab::Slab;
use crate::speaker::Speakers;
use crate::subscription::Subscription;
use crate::time::Now;
use crate::timer::Alarm;
use crate::worker::Worker;
use std::collections::BTreeMap;

/// A scope that lives on no worker at the moment. Entries stand beside the slots that they had.
pub struct MovedScope {
    scope: ScopeId,
    session_key: Option<SessionKey>,
    speakers: Option<Speakers>,
    peers: Vec<(u32, Peer)>,
    publications: Vec<(u32, Publication)>,
    subscriptions: Vec<(u32, Subscription)>,
    /// How many sources its worker had named.
    sources: u64,
}

impl MovedScope {
    /// Which scope it is.
    #[must_use]
    pub fn id(&self) -> ScopeId {
        self.scope
    }

    /// Its peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().map(|(_, peer)| peer.id)
    }

    /// The paths of its peers.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.peers.iter().flat_map(|(_, peer)| peer.ice.paths())
    }

    /// The user fragments that its peers' ICE checks name.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().flat_map(|(_, peer)| peer.ice.ufrags())
    }
}

impl std::fmt::Debug for MovedScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peers = self.peers.len();
        f.debug_struct("MovedScope").field("scope", &self.scope).field("peers", &peers).finish()
    }
}

impl Worker {
    /// Takes a scope out, for another worker to [`Worker::adopt_scope`]. What was gathered is forwarded before. Events and
    /// handshake datagrams of its peers that were not fetched stay here.
    ///
    /// # Errors
    /// There is no such scope, or parts of it live on other workers; then nothing changed.
    pub fn take_scope(
        &mut self,
        now: Now,
        scope: ScopeId,
        egress: &mut Egress,
    ) -> Result<MovedScope, CommandError> {
        let slots = self.scopes.get(&scope).ok_or(CommandError::NotFound("scope"))?.clone();
        if self.is_spread(scope, &slots) {
            return Err(CommandError::Invalid(
                "the scope is spread over workers: it cannot be moved as one",
            ));
        }
        self.forward(now, egress, |_| {});
        self.scopes.remove(&scope);
        let mut moved = MovedScope {
            scope,
            session_key: self.session_keys.remove(&scope),
            speakers: self.speakers.remove(&scope),
            peers: Vec::with_capacity(slots.len()),
            publications: Vec::new(),
            subscriptions: Vec::new(),
            sources: self.sources(),
        };
        for slot in slots {
            let Some(peer) = self.peers.remove(slot) else { continue };
            self.peer_ids.remove(&peer.id);
            for path in peer.ice.paths() {
                self.flows.remove(&path);
            }
            for ufrag in peer.ice.ufrags() {
                self.ufrags.remove(ufrag.as_bytes());
            }
            for &slot in &peer.publications {
                if let Some(publication) = self.publications.remove(slot) {
                    self.publication_ids.remove(&publication.id);
                    moved.publications.push((slot, publication));
                }
            }
            for &slot in &peer.subscriptions {
                if let Some(subscription) = self.subscriptions.remove(slot) {
                    self.subscription_ids.remove(&subscription.id);
                    moved.subscriptions.push((slot, subscription));
                }
            }
            moved.peers.push((slot, peer));
        }
        Ok(moved)
    }

    /// Goes on with a scope that another worker had. Both have the same clock. What was gathered is forwarded before.
    pub fn adopt_scope(&mut self, now: Now, moved: MovedScope, egress: &mut Egress) {
        // It may name slots of who left since, which the scope is about to get.
        self.forward(now, egress, |_| {});
        // Sources keep their names, and none that is given from now on is among them.
        self.name_sources_after(moved.sources);
        let scope = moved.scope;
        if let Some(key) = moved.session_key {
            self.session_keys.insert(scope, key);
        }
        let peers = settle(&mut self.peers, moved.peers);
        let publications = settle(&mut self.publications, moved.publications);
        let subscriptions = settle(&mut self.subscriptions, moved.subscriptions);
        let renumber = |slots: &mut Vec<u32>, places: &BTreeMap<u32, u32>| {
            *slots = slots.iter().filter_map(|slot| places.get(slot).copied()).collect();
        };
        if let Some(mut speakers) = moved.speakers {
            speakers.renumber(&publications);
            self.speakers.insert(scope, speakers);
        }
        for &slot in peers.values() {
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            renumber(&mut peer.publications, &publications);
            renumber(&mut peer.subscriptions, &subscriptions);
            peer.streams.renumber(&publications);
            // The other worker's timers knew of it, ours do not.
            peer.alarm = Alarm::default();
            if let Some(pacer) = &mut peer.pacer {
                pacer.renumber(&subscriptions);
            }
            self.peer_ids.insert(peer.id, slot);
            self.ufrags.extend(peer.ice.ufrags().map(|ufrag| (ufrag.as_bytes().into(), slot)));
            let paths: Vec<Path> = peer.ice.paths().collect();
            for path in paths {
                // A NAT that gave it to somebody else has done so lately, or the check would have told.
                if let Some(before) = self.flows.insert(path, slot)
                    && let Some(peer) = self.peers.get_mut(before)
                {
                    peer.ice.forget(now.at, path);
                }
            }
            self.scopes.entry(scope).or_default().push(slot);
        }
        // Also one without peers.
        self.scopes.entry(scope).or_default();
        for &slot in publications.values() {
            let Some(publication) = self.publications.get_mut(slot) else { continue };
            publication.peer = peers.get(&publication.peer).copied().unwrap_or(publication.peer);
            renumber(&mut publication.subscriptions, &subscriptions);
            self.publication_ids.insert(publication.id, slot);
        }
        for &slot in subscriptions.values() {
            let Some(subscription) = self.subscriptions.get_mut(slot) else { continue };
            subscription.peer = peers.get(&subscription.peer).copied().unwrap_or(subscription.peer);
            let publication = subscription.publication;
            subscription.publication =
                publication.and_then(|slot| publications.get(&slot).copied());
            self.subscription_ids.insert(subscription.id, slot);
        }
        for slot in peers.into_values() {
            self.arm(slot, now.at);
        }
        self.demand_changed(now);
    }

    /// Whether a part of the scope lives on another worker.
    fn is_spread(&self, scope: ScopeId, peers: &[u32]) -> bool {
        let mirrored = |slot: &u32| {
            let publication = self.publications.get(*slot);
            publication.is_some_and(|publication| !publication.mirrors.is_empty())
        };
        let peers = peers.iter().filter_map(|slot| self.peers.get(*slot));
        let of_others = self.mirrors.iter().filter_map(|slot| self.publications.get(*slot));
        let mut origins = of_others.filter_map(|mirror| mirror.origin.as_ref());
        peers.into_iter().any(|peer| peer.publications.iter().any(mirrored))
            || origins.any(|origin| origin.scope == scope)
    }
}

/// Finds places for entries. Which place each slot became.
fn settle<T>(slab: &mut Slab<T>, entries: Vec<(u32, T)>) -> BTreeMap<u32, u32> {
    entries.into_iter().map(|(before, entry)| (before, slab.insert(entry))).collect()
}

const fn assert_send<T: Send>() {}
const _: () = assert_send::<MovedScope>();
