//! Which scopes this node holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tracing::{debug, warn};

use super::table::{Ask, Found};
use super::{Cluster, Wanted, counters};
use crate::fault::Fault;
use crate::limits::{self, LATEST_CLAIM};
use crate::scope::ScopeKey;

/// The scopes that this node holds, or is about to.
#[derive(Default)]
pub struct Claims {
    entries: Mutex<HashMap<ScopeKey, Entry>>,
    /// A scope has nobody left.
    ended: Notify,
}

#[derive(Default)]
struct Entry {
    users: usize,
    /// It is this node's, as far as is known.
    is_held: bool,
    /// Under which fence. Locked while it is asked for, so that those who come together ask once,
    /// and nobody comes while it is given back.
    hold: Arc<tokio::sync::Mutex<Hold>>,
}

#[derive(Default)]
struct Hold {
    fence: Option<u64>,
    /// It was to be given back under this fence, and nobody answered: it may be gone, or go yet.
    unreleased: Option<u64>,
    /// It was asked for then, and nobody answered: it may be this node's, though nobody here has it.
    unanswered: Option<Instant>,
}

impl Hold {
    fn under(fence: u64) -> Self {
        Self { fence: Some(fence), ..Self::default() }
    }
}

/// Somebody's stay in a scope that is this node's: it remains so as long as there is one.
pub struct Claim {
    claims: Arc<Claims>,
    scope: ScopeKey,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut entries = self.claims.lock();
        if let Some(entry) = entries.get_mut(&self.scope) {
            entry.users = entry.users.saturating_sub(1);
            if entry.users == 0 {
                self.claims.ended.notify_one();
            }
        }
    }
}

impl Claims {
    fn enter(self: &Arc<Self>, scope: &ScopeKey) -> (Claim, Arc<tokio::sync::Mutex<Hold>>) {
        let mut entries = self.lock();
        let entry = entries.entry(scope.clone()).or_default();
        entry.users += 1;
        (Claim { claims: Arc::clone(self), scope: scope.clone() }, Arc::clone(&entry.hold))
    }

    /// Under which fence a scope is held, unless that changes at this moment.
    pub(super) fn fence_of(&self, scope: &ScopeKey) -> Option<u64> {
        let hold = self.lock().get(scope).map(|entry| Arc::clone(&entry.hold))?;
        hold.try_lock().ok()?.fence
    }

    fn set_held(&self, scope: &ScopeKey, is_held: bool) {
        if let Some(entry) = self.lock().get_mut(scope) {
            entry.is_held = is_held;
        }
    }

    fn is_unused(&self, scope: &ScopeKey) -> bool {
        self.lock().get(scope).is_some_and(|entry| entry.users == 0)
    }

    fn unused(&self) -> Vec<(ScopeKey, Arc<tokio::sync::Mutex<Hold>>)> {
        let entries = self.lock();
        let unused = entries.iter().filter(|(_, entry)| entry.users == 0);
        unused.map(|(scope, entry)| (scope.clone(), Arc::clone(&entry.hold))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ScopeKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Makes sure that a scope is this node's before somebody is let in. For one that has somebody
    /// already nobody is asked: it stays open while mappings are away.
    ///
    /// # Errors
    /// [`crate::fault::Class::Elsewhere`] when it is another node's;
    /// [`crate::fault::Class::Unavailable`] when nobody can tell.
    pub async fn claim(&self, scope: &ScopeKey) -> Result<Claim, Fault> {
        let (claim, hold) = self.claims.enter(scope);
        let mut hold = hold.lock().await;
        if hold.fence.is_some() {
            return Ok(claim);
        }
        // Another fence than that under which it may be given back yet.
        let wanted = Wanted::Here { renewed: hold.unreleased };
        let settled = self.settle(scope, wanted).await;
        if settled.is_err() && self.held() < limits::CLAIMS_DOUBTED {
            hold.unanswered = Some(Instant::now());
        }
        let (node, fence) = settled?;
        if node.owner() == self.me {
            *hold = Hold::under(fence);
            self.claims.set_held(scope, true);
            return Ok(claim);
        }
        counters::count(&self.counters.redirected);
        debug!(scope = scope.scope, node = node.name, "the scope is there");
        Err(Fault::elsewhere(node.elsewhere()))
    }

    /// As [`Cluster::claim`], of a scope that this start of the node held already when its process
    /// was another one. Nobody is asked: it is asserted like all that is held.
    pub fn claim_again(&self, scope: &ScopeKey, fence: u64) -> Claim {
        let (claim, hold) = self.claims.enter(scope);
        if let Ok(mut hold) = hold.try_lock() {
            *hold = Hold::under(fence);
            self.claims.set_held(scope, true);
        }
        claim
    }

    /// Whether a scope is this node's, as far as is known: it is not when it was given to another one
    /// since it was claimed.
    pub fn is_held(&self, scope: &ScopeKey) -> bool {
        self.claims.lock().get(scope).is_some_and(|entry| entry.is_held)
    }

    /// Whether a scope may be entered here, as far as that is known. Nothing is claimed: whoever asks
    /// did not show yet who it is.
    ///
    /// # Errors
    /// [`crate::fault::Class::Elsewhere`] when it is another node's.
    pub async fn check_here(&self, scope: &ScopeKey) -> Result<(), Fault> {
        let node = match self.known(scope) {
            Some(node) => Some(node),
            None => match self.mappings.locate(scope, Ask::default()).await {
                Ok(Found::Owned(mapping)) => self.listed(&mapping.owner).map(|l| l.node),
                _ => None,
            },
        };
        match node.filter(|node| node.owner() != self.me) {
            Some(node) => {
                counters::count(&self.counters.redirected);
                Err(Fault::elsewhere(node.elsewhere()))
            }
            None => Ok(()),
        }
    }

    /// Scopes that this node holds.
    pub fn held(&self) -> usize {
        self.claims.lock().len()
    }

    /// Waits until a scope has nobody left.
    pub(super) async fn ended(&self) {
        self.claims.ended.notified().await;
    }

    /// Gives back what nobody is in. What cannot be given back is tried again by the next call.
    pub(super) async fn release_unused(&self) {
        self.release_unused_at(Instant::now()).await;
    }

    pub(super) async fn release_unused_at(&self, now: Instant) {
        let mut is_answered = true;
        for (scope, hold) in self.claims.unused() {
            let mut hold = hold.lock().await;
            if !self.claims.is_unused(&scope) {
                continue;
            }
            // Of many that nobody answered one is enough to see that nobody does so yet.
            if hold
                .unanswered
                .is_some_and(|at| !is_answered || now.saturating_duration_since(at) < LATEST_CLAIM)
            {
                continue;
            }
            let fence = match hold.unanswered {
                Some(_) => self.held_unknowingly(&scope).await,
                None => Ok(hold.fence.or(hold.unreleased)),
            };
            let outcome = match fence {
                Ok(Some(fence)) => {
                    (hold.fence, hold.unreleased) = (None, Some(fence));
                    self.claims.set_held(&scope, false);
                    self.mappings.release(&scope, fence).await
                }
                Ok(None) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = outcome {
                counters::count(&self.counters.failed);
                debug!(scope = scope.scope, "not released yet: {fault}");
                is_answered = false;
                continue;
            }
            *hold = Hold::default();
            // Whoever came meanwhile waits for the fence, and finds none.
            let mut entries = self.claims.lock();
            if entries.get(&scope).is_some_and(|entry| entry.users == 0) {
                entries.remove(&scope);
            }
        }
    }

    /// The fence of a scope that is this node's though nobody in it was told so.
    async fn held_unknowingly(&self, scope: &ScopeKey) -> Result<Option<u64>, Fault> {
        Ok(match self.mappings.locate(scope, Ask::default()).await? {
            Found::Owned(mapping) | Found::Stale(mapping) => {
                (mapping.owner == self.me && mapping.held).then_some(mapping.fence)
            }
            Found::Young => {
                return Err(Fault::unavailable("who holds what is not known again yet"));
            }
            _ => None,
        })
    }

    /// Says what this node holds, and hands what is another's by now to `lose`. True when all of it
    /// was heard.
    pub(super) async fn assert_held(&self, lose: &(dyn Fn(ScopeKey) + Send + Sync)) -> bool {
        let held: Vec<_> = {
            let entries = self.claims.lock();
            let fence = |entry: &Entry| entry.hold.try_lock().ok().and_then(|hold| hold.fence);
            let held = entries.iter().filter_map(|(scope, e)| Some((scope.clone(), fence(e)?)));
            held.collect()
        };
        let mut is_heard = true;
        for part in held.chunks(limits::ASSERTED_AT_ONCE) {
            let Ok(kept) = self.mappings.assert(&self.me, part).await else { return false };
            for ((scope, before), kept) in part.iter().zip(kept) {
                match kept {
                    Ok(Some(after)) => self.keep(scope, *before, Some(after)),
                    Ok(None) => {
                        counters::count(&self.counters.superseded);
                        warn!(
                            scope = scope.scope,
                            "the scope was given to another node: ending it"
                        );
                        self.keep(scope, *before, None);
                        lose(scope.clone());
                    }
                    Err(_) => is_heard = false,
                }
            }
        }
        is_heard
    }

    /// A scope is held under another fence from now on, or no longer, unless that changed meanwhile.
    fn keep(&self, scope: &ScopeKey, before: u64, after: Option<u64>) {
        let hold = self.claims.lock().get(scope).map(|entry| Arc::clone(&entry.hold));
        if let Some(hold) = hold
            && let Ok(mut hold) = hold.try_lock()
            && hold.fence == Some(before)
        {
            hold.fence = after;
            self.claims.set_held(scope, after.is_some());
        }
    }
}
