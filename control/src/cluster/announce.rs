//! What this node says of itself, and how it keeps up with the others.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::load::{ALL, Load};
use super::node::{Listed, Node, Owner, State, endpoint, parse_endpoint};
use super::{Cluster, counters};
use crate::config::cluster::Role;
use crate::fault::Fault;
use crate::limits::{ANNOUNCE_INTERVAL, ASSERT_INTERVAL, BURIAL, LEASE, SWEEP_INTERVAL};
use crate::scope::{ScopeKey, Scopes};

/// Where this process listens, for what the configuration leaves open.
#[derive(Debug, Clone, Default)]
pub struct Listens {
    /// Host that clients know it by.
    pub host: String,
    /// Port of HTTPS, or of plain HTTP where there is none.
    pub port: u16,
    /// Whether that is HTTPS.
    pub secure: bool,
    /// Port of links over QUIC.
    pub quic_port: Option<u16>,
}

impl Cluster {
    /// This process listens there: from now on others hear of it.
    ///
    /// # Errors
    /// [`crate::fault::Class::Conflict`]: the name is another's.
    pub async fn listens(&self, listens: &Listens) -> Result<(), Fault> {
        if self.config.has(Role::Node) {
            let (host, port) = parse_endpoint(&self.config.public)
                .unwrap_or_else(|| (listens.host.clone(), listens.port));
            let quic = match self.config.public_quic.as_str() {
                "" => listens.quic_port.map(|port| endpoint(&host, port)),
                quic => Some(quic.to_owned()),
            };
            let node = Node {
                name: self.me.node.clone(),
                incarnation: self.me.incarnation.clone(),
                region: self.config.region.clone(),
                host,
                port,
                secure: listens.secure,
                quic,
                state: State::Ready,
                headroom: ALL,
                scopes: 0,
                peers: 0,
                version: env!("CARGO_PKG_VERSION").into(),
                machine: None,
            };
            info!(node = node.name, incarnation = self.me.incarnation, "at {}", node.endpoint());
            self.set_mine(node);
            if let Err(fault) = self.announce().await {
                warn!("this node is not announced yet: {fault}");
            }
        }
        self.refresh().await;
        Ok(())
    }

    /// Says that this node lives.
    ///
    /// # Errors
    /// [`crate::fault::Class::Conflict`], [`crate::fault::Class::Unavailable`].
    pub(super) async fn announce(&self) -> Result<(), Fault> {
        let Some(node) = self.mine() else { return Ok(()) };
        let is_drained = self.registry.announce(&node).await?;
        self.is_drained.store(is_drained, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the lease, and up with the others, until the process ends. `lose` ends a scope that was
    /// given to another node.
    pub async fn run(
        self: Arc<Self>,
        scopes: Arc<Scopes>,
        mut ends: watch::Receiver<bool>,
        lose: impl Fn(ScopeKey) + Send + Sync,
    ) {
        // Apart, so that a partition that stalls does not keep the lease in the others from its due.
        tokio::select! {
            () = is_over(&mut ends) => {}
            () = self.beat(&scopes) => {}
            () = self.hold(&lose) => {}
        }
    }

    /// Announces this node, looks for others, and cleans up.
    async fn beat(&self, scopes: &Scopes) {
        let mut ticks = interval(ANNOUNCE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut load = Load::default();
        let mut swept = Instant::now();
        let mut was_heard = true;
        loop {
            ticks.tick().await;
            self.look(&mut load, scopes).await;
            if let Err(fault) = self.announce().await {
                counters::count(&self.counters.failed);
                if std::mem::take(&mut was_heard) {
                    warn!("this node cannot announce itself: {fault}");
                }
            } else if !std::mem::replace(&mut was_heard, true) {
                info!("this node is announced again");
            }
            self.refresh().await;
            if self.config.has(Role::Cnc) && swept.elapsed() >= SWEEP_INTERVAL {
                self.sweep().await;
                swept = Instant::now();
            }
        }
    }

    /// Gives back scopes that ended, and says which this node holds.
    async fn hold(&self, lose: &(dyn Fn(ScopeKey) + Send + Sync)) {
        let mut ticks = interval(ANNOUNCE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut losses = self.mappings.losses();
        // What was held before this process was started is said at once.
        let mut asserted: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.ended() => self.release_unused().await,
                _ = ticks.tick() => {
                    let seen = self.mappings.losses();
                    let is_due = asserted.is_none_or(|at| at.elapsed() >= ASSERT_INTERVAL);
                    if seen != losses || is_due {
                        // First: a partition that came back empty waits for that, and not for long.
                        if self.assert_held(lose).await {
                            losses = seen;
                        }
                        asserted = Some(Instant::now());
                        self.release_unused().await;
                    }
                }
            }
        }
    }

    /// This process ends, all its scopes being over.
    pub async fn leave(&self) {
        self.release_unused().await;
        let owner = self.mine().map(|node| node.owner());
        self.node.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(owner) = owner
            && let Err(fault) = self.registry.withdraw(&owner).await
        {
            warn!("the registry was not told of this node's end: {fault}");
        }
    }

    /// Measures this node.
    async fn look(&self, load: &mut Load, scopes: &Scopes) {
        let Some(mut node) = self.mine() else { return };
        let relay = scopes.relay();
        let statistics = tokio::time::timeout(Duration::from_millis(200), relay.statistics(vec![]));
        // A relay that is away sends nothing.
        let workers = match statistics.await {
            Ok(Ok(statistics)) => statistics.workers,
            _ => Vec::new(),
        };
        let stat = tokio::fs::read_to_string("/proc/stat").await.unwrap_or_default();
        node.headroom = load.headroom(Instant::now(), &self.config, &workers, &stat);
        let (count, peers) = scopes.counts();
        (node.scopes, node.peers) = (count as u64, peers as u64);
        node.machine = self.host.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let info = relay.info();
        {
            let mut away = self.relay_away.lock().unwrap_or_else(PoisonError::into_inner);
            *away = if info.is_some() { None } else { away.or_else(|| Some(Instant::now())) };
        }
        node.state = match info {
            Some(info) if info.draining => State::Draining,
            // A relay that is started again is found within a second.
            None if self.lacks_relay() => State::Full,
            None => node.state,
            Some(_) if count >= scopes.limits().scopes => State::Full,
            Some(_) if self.is_beyond_capacity(node.headroom) => State::Full,
            Some(_) => State::Ready,
        };
        self.set_mine(node);
    }

    /// Whether the relay is away for so long that clients had better go elsewhere.
    pub fn lacks_relay(&self) -> bool {
        let away = self.relay_away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|since| since.elapsed() > LEASE)
    }

    /// Nodes that are known, by state.
    pub fn states(&self) -> [(&'static str, u64); 4] {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let mut states = [("ready", 0), ("draining", 0), ("full", 0), ("dead", 0)];
        for Listed { node, is_alive, is_drained, .. } in view.nodes.values().map(|s| &s.listed) {
            let name = match node.state {
                _ if !is_alive => "dead",
                State::Draining => "draining",
                _ if *is_drained => "draining",
                State::Full => "full",
                State::Ready => "ready",
            };
            for (state, count) in &mut states {
                *count += u64::from(*state == name);
            }
        }
        states
    }

    /// Whether what the node is said to be able to send is used up. A CPU that is busy makes others
    /// the better choice, and nothing more: it may be busy with something else.
    fn is_beyond_capacity(&self, headroom: u32) -> bool {
        headroom == 0
            && (self.config.capacity_mbps > 0 || self.config.capacity_packets_per_second > 0)
    }

    /// Forgets what nobody holds, and nodes that are gone for good.
    async fn sweep(&self) {
        match self.mappings.sweep().await {
            Ok(count) => {
                let count = u64::try_from(count).unwrap_or_default();
                self.counters.swept.fetch_add(count, Ordering::Relaxed);
            }
            Err(_) => counters::count(&self.counters.failed),
        }
        let burial = u64::try_from(BURIAL.as_millis()).unwrap_or(u64::MAX);
        let gone: Vec<(Node, Owner)> = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            let listed = view.nodes.values().map(|seen| &seen.listed);
            let gone = listed.filter(|listed| !listed.is_alive && listed.age_ms > burial);
            gone.map(|listed| (listed.node.clone(), listed.node.owner())).collect()
        };
        for (node, owner) in gone {
            if !self.is_well(&node).await && self.registry.bury(&owner).await.is_ok() {
                info!(node = node.name, "is gone for good, and its scopes are nobody's");
            }
        }
    }

    fn set_mine(&self, node: Node) {
        *self.node.write().unwrap_or_else(PoisonError::into_inner) = Some(node);
    }
}

async fn is_over(ends: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same. The guard must not live on.
    let _ = ends.wait_for(|ends| *ends).await;
}

const _: () = assert!(ANNOUNCE_INTERVAL.as_millis() * 4 <= LEASE.as_millis());
