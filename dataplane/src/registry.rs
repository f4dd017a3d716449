//! What exists, by the caller's names: scopes, their peers, publications and subscriptions, and where they live.
//!
//! One lock per scope is held over a whole call, its worker's answer included: calls to one scope are done one after
//! the other, and those to different scopes side by side.

use crate::notes::Note;
use crate::ssrcs::Ssrcs;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use strait_core::command::{
    Codec, Encoding, Extensions, Kind, PeerId, PublicationId, ScopeId, SubscriptionId,
};
use strait_core::limits::{PEERS, SCOPES};
use strait_core::port::Path;

/// A scope and the worker it lives on.
#[derive(Debug)]
pub struct Scope {
    /// The caller's name for it.
    pub name: String,
    /// Its worker, where its peers live; when they are too many for it, further ones live on others. It changes under the
    /// lock of `state`.
    worker: AtomicUsize,
    /// The worker's number for it.
    pub id: ScopeId,
    /// What is in it.
    pub state: tokio::sync::Mutex<Contents>,
}

/// What is in a scope.
#[derive(Debug)]
pub struct Contents {
    /// It was removed while the caller waited for the lock.
    pub disposed: bool,
    /// By name.
    pub peers: BTreeMap<String, Peer>,
    /// By name.
    pub publications: BTreeMap<String, Publication>,
    /// By name.
    pub subscriptions: BTreeMap<String, Subscription>,
    /// The other workers that know it, because peers of it live there.
    pub spread: BTreeSet<usize>,
    /// Mirrors whose publication ended and whose worker could not be told yet.
    pub ended: Vec<(PublicationId, usize)>,
    /// So many audio streams are forwarded to each subscriber, the loudest; 0 is all.
    pub audio_streams_max: usize,
    /// What the relay itself sends from.
    pub ssrcs: Ssrcs,
    /// Since when it has no peers.
    pub empty_since: Instant,
    /// The caller's.
    pub note: Note,
}

/// A peer.
#[derive(Debug)]
pub struct Peer {
    /// The worker's number for it.
    pub id: PeerId,
    /// ICE and DTLS are done.
    pub connected: bool,
    /// Where it is reached, once it is connected.
    pub path: Option<Path>,
    /// Its path, if that was told instead of checked.
    pub fixed: Option<Path>,
    /// Its worker, if that is not its scope's.
    pub away: Option<usize>,
    /// It is neither encrypted to nor from.
    pub plain: bool,
    /// The caller's.
    pub note: Note,
}

/// A publication.
#[derive(Debug)]
pub struct Publication {
    /// The worker's number for it.
    pub id: PublicationId,
    /// The name of its peer.
    pub peer: String,
    /// What mirrors of it are made of.
    pub description: Description,
    /// Not forwarded.
    pub muted: bool,
    /// The workers that it is passed on to, and since when nobody there subscribes to it.
    pub mirrors: BTreeMap<usize, Option<Instant>>,
    /// Which of its encodings anybody needs, as a set, if its worker told.
    pub wanted: Option<u8>,
}

/// What was published.
#[derive(Clone, Debug)]
pub struct Description {
    /// Audio or video.
    pub kind: Kind,
    /// Payload types of the publisher's leg.
    pub codecs: Vec<Codec>,
    /// Extension ids of the publisher's leg.
    pub extensions: Extensions,
    /// Lowest first.
    pub encodings: Vec<Encoding>,
}

/// A subscription.
#[derive(Debug)]
pub struct Subscription {
    /// The worker's number for it.
    pub id: SubscriptionId,
    /// The name of its peer.
    pub peer: String,
    /// The name of the publication that it is bound to.
    pub publication: Option<String>,
    /// Audio or video.
    pub kind: Kind,
}

impl Scope {
    /// Its worker. Commands go there; whoever holds the lock of `state` knows that it stays.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker.load(Ordering::Relaxed)
    }
}

impl Contents {
    fn new() -> Self {
        Self {
            disposed: false,
            peers: BTreeMap::new(),
            publications: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            spread: BTreeSet::new(),
            ended: Vec::new(),
            audio_streams_max: 0,
            ssrcs: Ssrcs::default(),
            empty_since: Instant::now(),
            note: Note::default(),
        }
    }

    /// Where a peer of a scope lives whose own worker is `home`.
    #[must_use]
    pub fn worker_of(&self, peer: &str, home: usize) -> usize {
        self.peers.get(peer).and_then(|peer| peer.away).unwrap_or(home)
    }

    /// The name of a peer by its number.
    #[must_use]
    pub fn peer_named(&self, id: PeerId) -> Option<&str> {
        self.peers.iter().find(|(_, peer)| peer.id == id).map(|(name, _)| name.as_str())
    }

    /// Forgets a peer with all that it had.
    pub fn remove_peer(&mut self, name: &str) -> Option<Peer> {
        let peer = self.peers.remove(name)?;
        self.subscriptions.retain(|_, subscription| subscription.peer != name);
        let ended: Vec<String> = self
            .publications
            .iter()
            .filter(|(_, publication)| publication.peer == name)
            .map(|(name, _)| name.clone())
            .collect();
        for publication in ended {
            self.remove_publication(&publication);
        }
        if self.peers.is_empty() {
            self.empty_since = Instant::now();
        }
        Some(peer)
    }

    /// Forgets a publication; subscriptions to it stay, unbound.
    pub fn remove_publication(&mut self, name: &str) -> Option<Publication> {
        let publication = self.publications.remove(name)?;
        let mirrors = publication.mirrors.keys().map(|worker| (publication.id, *worker));
        self.ended.extend(mirrors);
        for subscription in self.subscriptions.values_mut() {
            if subscription.publication.as_deref() == Some(name) {
                subscription.publication = None;
            }
        }
        Some(publication)
    }
}

/// How much a worker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// Peers.
    pub peers: usize,
    /// Scopes.
    pub scopes: usize,
}

/// All scopes of the process.
#[derive(Debug)]
pub struct Registry {
    next: AtomicU32,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    scopes: HashMap<String, Arc<Scope>>,
    /// The scope of a peer and of a publication, by number: numbers are unique in the process. Of a peer its worker too, if
    /// that is not its scope's.
    of_peer: HashMap<PeerId, (Arc<Scope>, Option<usize>)>,
    of_publication: HashMap<PublicationId, Arc<Scope>>,
    /// The paths of peers without ICE: no two share one, on whatever workers they live.
    told: HashSet<Path>,
    loads: Vec<Load>,
}

impl Registry {
    /// An empty one for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let tables = Tables {
            scopes: HashMap::new(),
            of_peer: HashMap::new(),
            of_publication: HashMap::new(),
            told: HashSet::new(),
            loads: vec![Load::default(); workers],
        };
        Self { next: AtomicU32::new(1), tables: Mutex::new(tables) }
    }

    /// A number that nothing in the process has.
    pub fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The scope of that name.
    #[must_use]
    pub fn scope(&self, name: &str) -> Option<Arc<Scope>> {
        self.tables().scopes.get(name).cloned()
    }

    /// All scopes.
    #[must_use]
    pub fn scopes(&self) -> Vec<Arc<Scope>> {
        self.tables().scopes.values().cloned().collect()
    }

    /// The scope of that name, placed on the worker with the fewest peers if it is new. `None`: all workers are full.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Arc<Scope>> {
        let mut tables = self.tables();
        if let Some(scope) = tables.scopes.get(name) {
            return Some(scope.clone());
        }
        let free = tables.loads.iter_mut().enumerate().filter(|(_, load)| load.scopes < SCOPES);
        let (worker, load) = free.min_by_key(|(_, load)| **load)?;
        load.scopes += 1;
        let scope = Arc::new(Scope {
            name: name.to_owned(),
            worker: AtomicUsize::new(worker),
            id: ScopeId(self.number()),
            state: tokio::sync::Mutex::new(Contents::new()),
        });
        tables.scopes.insert(name.to_owned(), scope.clone());
        Some(scope)
    }

    /// Forgets a scope, if that name still stands for this one.
    pub fn remove(&self, scope: &Arc<Scope>) {
        let mut tables = self.tables();
        if tables.scopes.get(&scope.name).is_some_and(|found| Arc::ptr_eq(found, scope)) {
            tables.scopes.remove(&scope.name);
            if let Some(load) = tables.loads.get_mut(scope.worker()) {
                load.scopes = load.scopes.saturating_sub(1);
            }
        }
    }

    /// Keeps room on worker `to` for one more scope with so many peers. `false`: there is none.
    #[must_use]
    pub fn reserve(&self, to: usize, peers: usize) -> bool {
        let mut tables = self.tables();
        let Some(load) = tables.loads.get_mut(to) else { return false };
        let fits = load.scopes < SCOPES && load.peers + peers <= PEERS;
        if fits {
            load.scopes += 1;
            load.peers += peers;
        }
        fits
    }

    /// Gives room on a worker free again.
    pub fn release(&self, worker: usize, peers: usize) {
        if let Some(load) = self.tables().loads.get_mut(worker) {
            load.scopes = load.scopes.saturating_sub(1);
            load.peers = load.peers.saturating_sub(peers);
        }
    }

    /// Notes that a scope with so many peers moved to worker `to`, where room was kept for it.
    pub fn note_move(&self, scope: &Scope, peers: usize, to: usize) {
        self.release(scope.worker(), peers);
        scope.worker.store(to, Ordering::Relaxed);
    }

    /// Notes that a worker knows a scope that is not its own, or does no more.
    pub fn note_spread(&self, worker: usize, knows: bool) {
        if let Some(load) = self.tables().loads.get_mut(worker) {
            load.scopes = if knows { load.scopes + 1 } else { load.scopes.saturating_sub(1) };
        }
    }

    /// How much each worker has.
    #[must_use]
    pub fn loads(&self) -> Vec<Load> {
        self.tables().loads.clone()
    }

    /// Notes where a peer's events belong, and its worker, if that is not its scope's.
    pub fn note_peer(&self, peer: PeerId, scope: &Arc<Scope>, away: Option<usize>) {
        let mut tables = self.tables();
        if tables.of_peer.insert(peer, (scope.clone(), away)).is_none()
            && let Some(load) = tables.loads.get_mut(away.unwrap_or(scope.worker()))
        {
            load.peers += 1;
        }
    }

    /// Forgets it.
    pub fn forget_peer(&self, peer: PeerId) {
        let mut tables = self.tables();
        if let Some((scope, away)) = tables.of_peer.remove(&peer)
            && let Some(load) = tables.loads.get_mut(away.unwrap_or(scope.worker()))
        {
            load.peers = load.peers.saturating_sub(1);
        }
    }

    /// Keeps a told path for one peer. `false`: another has it.
    #[must_use]
    pub fn claim(&self, path: Path) -> bool {
        self.tables().told.insert(path)
    }

    /// Lets go of it.
    pub fn release_path(&self, path: Path) {
        self.tables().told.remove(&path);
    }

    /// Notes where a publication's events belong.
    pub fn note_publication(&self, publication: PublicationId, scope: &Arc<Scope>) {
        self.tables().of_publication.insert(publication, scope.clone());
    }

    /// Forgets it.
    pub fn forget_publication(&self, publication: PublicationId) {
        self.tables().of_publication.remove(&publication);
    }

    /// Where a peer's events belong.
    #[must_use]
    pub fn scope_of_peer(&self, peer: PeerId) -> Option<Arc<Scope>> {
        self.tables().of_peer.get(&peer).map(|(scope, _)| scope.clone())
    }

    /// Where a publication's events belong.
    #[must_use]
    pub fn scope_of_publication(&self, publication: PublicationId) -> Option<Arc<Scope>> {
        self.tables().of_publication.get(&publication).cloned()
    }

    /// How many peers there are in all.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.tables().of_peer.len()
    }

    /// Nothing panics while it holds the lock, so that a poisoned one cannot be; its contents would be whole anyway.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in a scope, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A peer at home.
    pub fn peer(id: u32) -> Peer {
        Peer {
            id: PeerId(id),
            connected: true,
            path: None,
            fixed: None,
            away: None,
            plain: false,
            note: Note::default(),
        }
    }

    /// A sound.
    pub fn publication(id: u32, peer: &str) -> Publication {
        let description = Description {
            kind: Kind::Audio,
            codecs: Vec::new(),
            extensions: Extensions::default(),
            encodings: Vec::new(),
        };
        let (id, peer) = (PublicationId(id), peer.to_owned());
        Publication { id, peer, description, muted: false, mirrors: BTreeMap::new(), wanted: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_go_to_the_worker_with_the_fewest_peers() {
        let registry = Registry::new(3);
        let first = registry.place("a").unwrap();
        assert!(Arc::ptr_eq(&first, &registry.place("a").unwrap()), "a name is placed once");
        registry.note_peer(PeerId(100), &first, None);
        let others = [registry.place("b").unwrap().worker(), registry.place("c").unwrap().worker()];
        assert!(!others.contains(&first.worker()) && others[0] != others[1]);
        // The one with a peer gets nothing while the others have none.
        assert_ne!(registry.place("d").unwrap().worker(), first.worker());
        registry.forget_peer(PeerId(100));
        registry.forget_peer(PeerId(100));
        assert_eq!(registry.peers(), 0);
        assert_eq!(registry.place("e").unwrap().worker(), first.worker());
        // A peer counts where it lives.
        let before = registry.loads();
        let away = (first.worker() + 1) % 3;
        registry.note_peer(PeerId(101), &first, Some(away));
        registry.note_spread(away, true);
        assert_eq!(registry.loads()[away].peers, before[away].peers + 1);
        assert_eq!(registry.loads()[first.worker()], before[first.worker()]);
        registry.forget_peer(PeerId(101));
        registry.note_spread(away, false);
        assert_eq!(registry.loads(), before);
    }

    #[tokio::test]
    async fn a_peer_goes_with_all_it_had_and_others_are_unbound() {
        let scope = Registry::new(1).place("s").unwrap();
        let mut contents = scope.state.lock().await;
        for name in ["a", "b"] {
            contents.peers.insert(name.into(), testing::peer(1));
            let publication = testing::publication(1, name);
            contents.publications.insert(format!("{name}-camera"), publication);
        }
        for (name, peer, publication) in [("s1", "a", "b-camera"), ("s2", "b", "a-camera")] {
            let subscription = Subscription {
                id: SubscriptionId(1),
                peer: peer.into(),
                publication: Some(publication.into()),
                kind: Kind::Audio,
            };
            contents.subscriptions.insert(name.into(), subscription);
        }
        assert!(contents.remove_peer("a").is_some());
        assert!(contents.remove_peer("a").is_none());
        assert_eq!(contents.publications.keys().collect::<Vec<_>>(), ["b-camera"]);
        assert_eq!(contents.subscriptions["s2"].publication, None);
        assert!(!contents.subscriptions.contains_key("s1"));
    }
}
