//! Several hosts as one: which nodes there are, and which of them has which scope.
//!
//! [`table`] is the decision, [`directory`] where it is kept, [`placement`] which node a new scope
//! goes to, [`health`] whether a node is well, [`claims`] what this node holds, [`announce`] what it
//! says of itself. `docs/cluster.md` tells operators of it, `docs/decisions/0011` why it is so.

pub mod announce;
pub mod claims;
pub mod counters;
pub mod directory;
pub mod health;
mod host;
pub mod load;
pub mod node;
mod orphans;
pub mod placement;
pub mod redis;
pub mod region;
pub mod table;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::admission::network;
use crate::config::cluster::{self as config, Role};
use crate::fault::{Class, Fault};
use crate::host::now::Now;
use crate::limits::{FIRST_GRACE, LEASE, LOCATE_ROUNDS, PLACES, RATED_ADDRESSES, YOUNG_PAUSE};
use crate::rate::Rate;
use crate::scope::ScopeKey;
use crate::{id, limits};
use claims::Claims;
use counters::Counters;
use directory::{Local, Mappings, Registry};
use health::Health;
pub use node::{Listed, Node, Owner, State};
use region::Regions;
use table::{Ask, Found, Mapping};

/// This process in its cluster.
pub struct Cluster {
    config: config::Cluster,
    registry: Arc<dyn Registry>,
    mappings: Arc<dyn Mappings>,
    me: Owner,
    /// What is announced; none before this process listens, and without the role of a node.
    node: RwLock<Option<Node>>,
    view: RwLock<View>,
    places: Mutex<HashMap<ScopeKey, Place>>,
    /// Starts that were found dead before their lease ended, and when.
    suspects: Mutex<HashMap<Owner, Instant>>,
    /// An operator wants this node to become empty.
    is_drained: AtomicBool,
    /// When this process began, where others may begin with it.
    began: Option<Instant>,
    /// What the host did a moment ago.
    host: Mutex<Option<Now>>,
    /// Since when the relay is away.
    relay_away: Mutex<Option<Instant>>,
    health: Health,
    regions: Regions,
    rate: Rate<IpAddr>,
    claims: Arc<Claims>,
    counters: Counters,
}

/// The nodes, as they were a moment ago.
#[derive(Default)]
struct View {
    at: Option<Instant>,
    nodes: HashMap<String, Seen>,
}

struct Seen {
    listed: Listed,
    /// Headroom, less what was put there since: many scopes that begin at once do not all go to the
    /// node that was emptiest before.
    headroom: AtomicI64,
}

/// Where a scope was a moment ago.
#[derive(Clone)]
struct Place {
    owner: Owner,
    at: Instant,
}

/// Who wants to know where a scope is.
enum Wanted<'a> {
    /// A client: a scope that is nobody's goes where there is room.
    Client { region: Option<&'a str>, reported: Option<Owner> },
    /// This node, which is about to let somebody in. Where the scope is its own under this fence, it
    /// is under another one from now on.
    Here { renewed: Option<u64> },
}

impl Cluster {
    /// What the configuration says.
    ///
    /// # Errors
    /// [`Class::Internal`]: no randomness is to be had, or an address is wrong.
    pub fn new(config: config::Cluster) -> Result<Arc<Self>, Fault> {
        Self::again(config, None)
    }

    /// As [`Cluster::new`]. This process goes on with what the one before it had, and is the same
    /// start of the node as that: its mappings stay, and its lease.
    ///
    /// # Errors
    /// As [`Cluster::new`].
    pub fn again(config: config::Cluster, before: Option<&Owner>) -> Result<Arc<Self>, Fault> {
        let (registry, mappings): (Arc<dyn Registry>, Arc<dyn Mappings>) =
            if config.mappings.is_empty() {
                let local = Arc::new(Local::default());
                (Arc::clone(&local) as _, local)
            } else {
                let partitions = redis::Partitions::new(&config.mappings)?;
                (Arc::clone(&partitions) as _, partitions)
            };
        let mut cluster = Self::new_on(config, registry, mappings, Health::default())?;
        cluster.began = Some(Instant::now());
        if let Some(before) = before.filter(|before| before.node == cluster.me.node) {
            cluster.me = before.clone();
        }
        Ok(Arc::new(cluster))
    }

    /// On a registry and mappings that there are.
    ///
    /// # Errors
    /// [`Class::Internal`]: no randomness is to be had, or the file of countries is none.
    pub fn on(
        config: config::Cluster,
        registry: Arc<dyn Registry>,
        mappings: Arc<dyn Mappings>,
        health: Health,
    ) -> Result<Arc<Self>, Fault> {
        Self::new_on(config, registry, mappings, health).map(Arc::new)
    }

    fn new_on(
        config: config::Cluster,
        registry: Arc<dyn Registry>,
        mappings: Arc<dyn Mappings>,
        health: Health,
    ) -> Result<Self, Fault> {
        let mut incarnation = [0; 16];
        id::fill(&mut incarnation)?;
        let name = config.node();
        Ok(Self {
            me: Owner { node: name.to_owned(), incarnation: id::hex(&incarnation) },
            node: RwLock::default(),
            view: RwLock::default(),
            places: Mutex::default(),
            suspects: Mutex::default(),
            is_drained: AtomicBool::new(false),
            began: None,
            host: Mutex::default(),
            relay_away: Mutex::default(),
            health,
            regions: Regions::new(&config)?,
            rate: Rate::each_second(config.resolves_per_second, RATED_ADDRESSES),
            claims: Arc::default(),
            counters: Counters::default(),
            registry,
            mappings,
            config,
        })
    }

    /// Which start of which node this process is.
    pub fn me(&self) -> &Owner {
        &self.me
    }

    /// The configuration.
    pub fn config(&self) -> &config::Cluster {
        &self.config
    }

    /// What happened, for metrics.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All nodes, as the registry has them now.
    ///
    /// # Errors
    /// [`Class::Unavailable`] when no partition answers.
    pub async fn nodes(&self) -> Result<Vec<Listed>, Fault> {
        let mut nodes = self.registry.nodes().await?;
        nodes.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        Ok(nodes)
    }

    /// Whether an operator wants this node to become empty.
    pub fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    /// Lets a node become empty, or fill again: it takes no new scopes, those that there are go on.
    ///
    /// # Errors
    /// [`Class::NotFound`] when no node has that name; [`Class::Unavailable`].
    pub async fn drain(&self, name: &str, is_drained: bool) -> Result<(), Fault> {
        let nodes = self.registry.nodes().await?;
        if !nodes.iter().any(|listed| listed.node.name == name) {
            return Err(Fault::not_found(format!("there is no node {name:?}; see the list")));
        }
        self.registry.set_drained(name, is_drained).await?;
        info!(node = name, is_drained, "drain");
        self.refresh().await;
        Ok(())
    }

    /// Partitions of the mappings, and how many of them answer.
    pub fn partitions(&self) -> (usize, usize) {
        self.mappings.partitions()
    }

    /// Calls of partitions that failed.
    pub fn partition_failures(&self) -> u64 {
        self.mappings.failures()
    }

    /// Whether a client at this address may ask again already.
    ///
    /// # Errors
    /// [`Class::TooMany`].
    pub fn admit(&self, address: IpAddr) -> Result<(), Fault> {
        if self.rate.admits(network(address), Instant::now()) {
            return Ok(());
        }
        Err(Fault::too_many(
            "your address asks too often (cluster.resolves_per_second); keep the answer, and ask \
             again when it no longer works",
        )
        .passing())
    }

    /// Where a scope is, if that was known a moment ago and its node lives. Whoever comes there is
    /// sent on if that changed since: a node asks before it makes a scope.
    pub fn known(&self, scope: &ScopeKey) -> Option<Node> {
        let place = self.places().get(scope).filter(|place| place.at.elapsed() < LEASE).cloned()?;
        if self.suspects().contains_key(&place.owner) {
            return None;
        }
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let age = view.at?.elapsed();
        let listed = &view.nodes.get(&place.owner.node)?.listed;
        let seen = std::time::Duration::from_millis(listed.age_ms) + age;
        let is_alive = listed.is_alive && seen < LEASE;
        (is_alive && listed.node.incarnation == place.owner.incarnation)
            .then(|| listed.node.clone())
    }

    /// Where a scope is, for a client at `address` in `region`, if it says so; it is put somewhere
    /// when it is nowhere. `reported` is a node that does not work for that client.
    ///
    /// # Errors
    /// [`Class::Unavailable`]: no node has room, or nobody can tell for the moment.
    pub async fn resolve(
        &self,
        scope: &ScopeKey,
        address: IpAddr,
        region: Option<&str>,
        reported: Option<&str>,
    ) -> Result<Node, Fault> {
        let reported = reported.and_then(|endpoint| {
            let node = self.at(endpoint);
            // Never asked: who may say anything would have this process knock anywhere.
            if node.is_none() {
                counters::count(&self.counters.forged);
            }
            node.map(|node| node.owner())
        });
        let region = region.or_else(|| self.regions.of(address));
        match self.settle(scope, Wanted::Client { region, reported }).await {
            Err(fault) if fault.class == Class::Unavailable => {
                let Some(node) = self.remembered(scope).await else { return Err(fault) };
                counters::count(&self.counters.degraded);
                Ok(node)
            }
            outcome => outcome.map(|(node, _)| node),
        }
    }

    /// Where a scope was when mappings could be read, if its node is well.
    async fn remembered(&self, scope: &ScopeKey) -> Option<Node> {
        let owner = self.places().get(scope)?.owner.clone();
        let node = self.listed(&owner)?.node;
        self.is_well(&node).await.then_some(node)
    }

    /// Finds out where a scope is, and under which fence.
    async fn settle(&self, scope: &ScopeKey, wanted: Wanted<'_>) -> Result<(Node, u64), Fault> {
        let mut given_up = match &wanted {
            Wanted::Here { renewed } => *renewed,
            Wanted::Client { .. } => None,
        };
        for _ in 0..LOCATE_ROUNDS {
            let placed = match &wanted {
                Wanted::Client { region, .. } => self.place(*region)?,
                Wanted::Here { .. } if self.takes_scopes() => Some(self.me.clone()),
                Wanted::Here { .. } => self.place(None)?,
            };
            let holds = matches!(wanted, Wanted::Here { .. }) && placed.as_ref() == Some(&self.me);
            let ask = Ask { proposal: placed.as_ref(), holds, given_up, is_quiet: false };
            match self.mappings.locate(scope, ask).await? {
                Found::Owned(mapping) | Found::Stale(mapping) if mapping.owner == self.me => {
                    let Some(node) = self.mine() else { return Err(not_listening()) };
                    return Ok((self.found(scope, &mapping, node), mapping.fence));
                }
                Found::Owned(mapping) => {
                    let Some(listed) = self.listed_now(&mapping.owner).await else { continue };
                    let is_doubted = match &wanted {
                        Wanted::Client { reported: Some(reported), .. } => {
                            *reported == mapping.owner
                        }
                        _ => false,
                    } || self.suspects().contains_key(&mapping.owner);
                    if !is_doubted || self.is_well(&listed.node).await {
                        return Ok((self.found(scope, &mapping, listed.node), mapping.fence));
                    }
                    given_up = Some(mapping.fence);
                }
                // Its lease is over: if it is well it has lost its way to the registry alone, and
                // goes on with what it has.
                Found::Stale(mapping) if given_up != Some(mapping.fence) => {
                    let Some(listed) = self.listed_now(&mapping.owner).await else {
                        return Err(nothing_moves());
                    };
                    if self.is_well(&listed.node).await {
                        return Ok((self.found(scope, &mapping, listed.node), mapping.fence));
                    }
                    // Where all was away and comes back, the other may be a moment behind.
                    if self.began.is_some_and(|began| began.elapsed() < FIRST_GRACE) {
                        return Err(nothing_moves());
                    }
                    given_up = Some(mapping.fence);
                }
                Found::Stale(_) => return Err(nothing_moves()),
                // Its own lease ended: it slept, or was never announced.
                Found::Free if placed.as_ref() == Some(&self.me) => self.announce().await?,
                // The node that was chosen died meanwhile.
                Found::Free if placed.is_some() => self.refresh().await,
                Found::Free => return Err(no_room()),
                Found::Young => sleep(YOUNG_PAUSE).await,
                Found::Full => {
                    return Err(Fault::unavailable(format!(
                        "the partition of this scope holds {} mappings, all it may; add partitions",
                        limits::MAPPINGS
                    )));
                }
            }
        }
        Err(Fault::unavailable("nodes come and go faster than this scope can be placed; try again"))
    }

    /// Remembers where a scope was found.
    fn found(&self, scope: &ScopeKey, mapping: &Mapping, node: Node) -> Node {
        let place = Place { owner: mapping.owner.clone(), at: Instant::now() };
        let mut places = self.places();
        if places.len() >= PLACES && !places.contains_key(scope) {
            places.retain(|_, place| place.at.elapsed() < LEASE);
            if places.len() >= PLACES {
                places.clear();
            }
        }
        places.insert(scope.clone(), place);
        node
    }

    /// The node for a new scope.
    fn place(&self, region: Option<&str>) -> Result<Option<Owner>, Fault> {
        let mut random = [0; 8];
        id::fill(&mut random)?;
        let suspects: HashSet<Owner> = self.suspects().keys().cloned().collect();
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let nodes = view.nodes.values().map(|seen| &seen.listed);
        let headroom = |listed: &Listed| {
            let seen = view.nodes.get(&listed.node.name);
            seen.map_or(0, |seen| seen.headroom.load(Ordering::Relaxed))
        };
        let random = u64::from_le_bytes(random);
        let chosen = placement::choose(nodes, region, &suspects, headroom, random);
        Ok(chosen.map(|listed| {
            if let Some(seen) = view.nodes.get(&listed.node.name) {
                seen.headroom.fetch_sub(1, Ordering::Relaxed);
            }
            listed.node.owner()
        }))
    }

    /// Whether this node takes a scope that comes to it by itself. One that is full does so when no
    /// other has room.
    fn takes_scopes(&self) -> bool {
        if !self.config.has(Role::Node) || self.is_drained.load(Ordering::Relaxed) {
            return false;
        }
        let has_room = |listed: &Listed| listed.has_room() && listed.node.name != self.me.node;
        match self.mine().map(|node| node.state) {
            Some(State::Draining) => false,
            Some(State::Full) => {
                let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
                !view.nodes.values().any(|seen| has_room(&seen.listed))
            }
            Some(State::Ready) | None => true,
        }
    }

    /// Whether a node is well. One that is not is given no new scopes until its lease is over.
    async fn is_well(&self, node: &Node) -> bool {
        let is_well = node.owner() == self.me || self.health.is_well(node).await;
        let mut suspects = self.suspects();
        if is_well {
            suspects.remove(&node.owner());
        } else {
            counters::count(&self.counters.found_dead);
            if suspects.insert(node.owner(), Instant::now()).is_none() {
                warn!(node = node.name, "does not answer at {}: its scopes move", node.endpoint());
            }
        }
        is_well
    }

    /// What is announced of this node.
    fn mine(&self) -> Option<Node> {
        self.node.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A start of a node, if it is the one that is known.
    fn listed(&self, owner: &Owner) -> Option<Listed> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let listed = &view.nodes.get(&owner.node)?.listed;
        (listed.node.incarnation == owner.incarnation).then(|| listed.clone())
    }

    /// As [`Self::listed`], also where it came a moment ago.
    async fn listed_now(&self, owner: &Owner) -> Option<Listed> {
        if let Some(listed) = self.listed(owner) {
            return Some(listed);
        }
        self.refresh().await;
        self.listed(owner)
    }

    /// The node that clients know by this address.
    fn at(&self, endpoint: &str) -> Option<Node> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = view.nodes.values().map(|seen| &seen.listed.node);
        nodes.find(|node| node.is_at(endpoint)).cloned()
    }

    /// Looks which nodes there are. Without an answer, what was known stays.
    async fn refresh(&self) {
        match self.registry.nodes().await {
            Ok(nodes) => {
                let seen = |listed: Listed| {
                    let headroom = AtomicI64::new(listed.node.headroom.into());
                    (listed.node.name.clone(), Seen { listed, headroom })
                };
                let nodes = nodes.into_iter().take(limits::NODES).map(seen).collect();
                let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
                *view = View { at: Some(Instant::now()), nodes };
            }
            Err(fault) => {
                counters::count(&self.counters.failed);
                tracing::debug!("the registry does not answer: {fault}");
            }
        }
        self.suspects().retain(|_, since| since.elapsed() < 2 * LEASE);
    }

    fn places(&self) -> MutexGuard<'_, HashMap<ScopeKey, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> MutexGuard<'_, HashMap<Owner, Instant>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_room() -> Fault {
    Fault::unavailable(
        "no node has room for another scope: all are full, draining or gone (strait cluster \
         status); try again in some seconds",
    )
}

fn nothing_moves() -> Fault {
    Fault::unavailable(
        "the node of this scope is gone, and the mappings were away a moment ago: nothing moves \
         until all nodes have said what they hold; try again in two seconds",
    )
}

fn not_listening() -> Fault {
    Fault::unavailable("this node does not listen yet; try again in a second")
}

#[cfg(test)]
mod tests;
