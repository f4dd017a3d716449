//! Applications and their keys, as this node knows them.
//!
//! SQL is the truth. Where there are several hosts, [`push`] brings what it says to a Redis master,
//! Redis itself brings that to a replica beside each node, and [`follow`] keeps a copy of the
//! replica in this process: credentials are checked while master, SQL and the network are gone, and
//! a key that was revoked is refused a moment later everywhere. Without Redis the store is asked
//! each time, and what it said last counts while it does not answer.

pub mod entry;
pub mod push;
pub mod replica;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::auth::Application;
use crate::fault::Fault;
use crate::limits::{
    APPLICATIONS_REMEMBERED, KEYS_PERIOD, STORE_CALL, UNKNOWN_APPLICATIONS, UNKNOWN_ASKED,
    UNKNOWN_TIME,
};
use crate::rate::Rate;
use crate::store::Applications;
use replica::{Redis, Version};

/// What this node knows of applications.
pub struct Keys {
    store: Applications,
    replica: Option<Redis>,
    copy: RwLock<Copy>,
    /// Names that the store did not have, and when: whoever makes them up does not ask it each time.
    unknown: Mutex<HashMap<String, Instant>>,
    /// How often the store is asked for them all the same: who adds an application has it at once.
    doubts: Rate<()>,
    counters: Counters,
}

/// What happened, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Looks at the replica, or at the store for one application, that failed.
    pub failed: AtomicU64,
    /// Answers from the copy because the store failed.
    pub remembered: AtomicU64,
    /// Changes that were pushed to the master.
    pub pushed: AtomicU64,
    /// Attempts to push that failed.
    pub push_failed: AtomicU64,
}

#[derive(Default)]
struct Copy {
    applications: HashMap<String, Application>,
    /// What the replica had; none before the first look that went well.
    version: Option<Version>,
    /// When the copy was last known to be what the replica has.
    confirmed: Option<Instant>,
}

impl Keys {
    /// Of a store, and of a replica where there is one.
    pub fn new(store: Applications, replica: Option<Redis>) -> Arc<Self> {
        let (copy, unknown, counters) = Default::default();
        let doubts = Rate::each_second(UNKNOWN_ASKED, 1);
        Arc::new(Self { store, replica, copy, unknown, doubts, counters })
    }

    /// An application and its keys.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`]: neither the store nor the copy can say.
    pub async fn find(&self, id: &str) -> Result<Option<Application>, Fault> {
        {
            let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
            if copy.version.is_some() {
                return Ok(copy.applications.get(id).cloned());
            }
        }
        let now = Instant::now();
        if self.lacked(id, now) && !self.doubts.admits((), now) {
            return Ok(None);
        }
        let asked = timeout(STORE_CALL, self.store.find(id)).await;
        let failed = match asked {
            Ok(Ok(found)) => {
                if found.is_none() {
                    self.note_lack(id, Instant::now());
                }
                if self.replica.is_none() {
                    self.remember(id, found.as_ref());
                }
                return Ok(found);
            }
            Ok(Err(fault)) => fault,
            Err(_) => Fault::internal("the store does not answer; is its server up?"),
        };
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        let found = copy.applications.get(id).cloned();
        if found.is_some() {
            self.counters.remembered.fetch_add(1, Ordering::Relaxed);
        }
        found.map(Some).ok_or(failed)
    }

    /// Applications in the copy, and seconds since it was known to be right; none without a replica,
    /// or before it answered.
    pub fn state(&self) -> (usize, Option<f64>) {
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        let age = copy.confirmed.map(|at| at.elapsed().as_secs_f64());
        (copy.applications.len(), age)
    }

    /// Whether all is known without the store.
    pub fn are_copied(&self) -> bool {
        self.copy.read().unwrap_or_else(PoisonError::into_inner).version.is_some()
    }

    /// Whether it is known without asking anybody that there is no such application.
    pub fn lack(&self, id: &str) -> bool {
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        copy.version.is_some() && !copy.applications.contains_key(id)
    }

    /// What happened.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Follows the replica for as long as this process lives; ends at once where there is none.
    pub async fn follow(self: Arc<Self>) {
        let Some(replica) = &self.replica else { return };
        let mut is_well = true;
        loop {
            match self.look(replica).await {
                Ok(()) if !is_well => {
                    is_well = true;
                    info!("keys: the replica answers again");
                }
                Ok(()) => {}
                Err(fault) => {
                    self.counters.failed.fetch_add(1, Ordering::Relaxed);
                    if std::mem::take(&mut is_well) {
                        warn!("keys: {}; what is known goes on to count", fault.reason);
                    }
                }
            }
            sleep(KEYS_PERIOD).await;
        }
    }

    /// Takes over what the replica has, when that is something else.
    async fn look(&self, replica: &Redis) -> Result<(), Fault> {
        let known = self.copy.read().unwrap_or_else(PoisonError::into_inner).version;
        let now = replica.version().await?;
        let fresh = match now {
            now if now == known => None,
            // Nothing was ever pushed, or all is gone and comes again: that is no reason to lock
            // everybody out.
            None => return Err(replica.empty()),
            now => Some((now, replica.all().await?)),
        };
        let mut copy = self.copy.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((version, applications)) = fresh {
            copy.applications = entry::read(applications);
            copy.version = version;
        }
        // A master that is gone says nothing new: the copy is then as old as what it said last.
        if replica.is_linked() {
            copy.confirmed = Some(Instant::now());
        }
        Ok(())
    }

    /// Whether the store did not have it a moment ago.
    fn lacked(&self, id: &str, now: Instant) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.get(id).is_some_and(|at| now.saturating_duration_since(*at) < UNKNOWN_TIME)
    }

    fn note_lack(&self, id: &str, now: Instant) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= UNKNOWN_APPLICATIONS {
            unknown.clear();
        }
        unknown.insert(id.to_owned(), now);
    }

    fn remember(&self, id: &str, found: Option<&Application>) {
        let mut copy = self.copy.write().unwrap_or_else(PoisonError::into_inner);
        let applications = &mut copy.applications;
        match found {
            Some(application) if applications.get(id) == Some(application) => {}
            Some(application) => {
                if applications.len() >= APPLICATIONS_REMEMBERED {
                    applications.clear();
                }
                applications.insert(id.to_owned(), application.clone());
            }
            None => {
                applications.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn what_the_store_lacks_is_remembered_for_a_moment() {
        let store = Store::open_in_memory().await.unwrap();
        let keys = Keys::new(store.applications(), None);
        assert_eq!(keys.find("made-up").await, Ok(None));
        assert!(keys.doubts.admits((), Instant::now()), "one question is none too many");
        while keys.doubts.admits((), Instant::now()) {}
        let now = Instant::now();
        assert!(keys.lacked("made-up", now));
        assert!(!keys.lacked("made-up", now + UNKNOWN_TIME), "it may be there by then");
        store.close().await;
        assert_eq!(keys.find("made-up").await, Ok(None), "the store is not asked");
        assert!(keys.find("another").await.is_err());
        for number in 0..2 * UNKNOWN_APPLICATIONS {
            keys.note_lack(&number.to_string(), now);
        }
        assert!(keys.unknown.lock().unwrap().len() <= UNKNOWN_APPLICATIONS);
    }
}
