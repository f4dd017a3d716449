//! Brings applications and keys from SQL to the Redis master.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::replica::{Redis, Version};
use super::{Keys, entry};
use crate::fault::Fault;
use crate::limits::{KEYS_CHANGED_AT_ONCE, KEYS_PERIOD, STORE_CALL};

/// Pushes for as long as this process lives. Several may do so: each brings the master to what SQL
/// says.
pub async fn run(keys: Arc<Keys>, master: Redis) {
    let mut pusher = Pusher { master, there: HashMap::new(), version: None };
    let mut is_well = true;
    loop {
        match pusher.push(&keys).await {
            Ok(changes) => {
                keys.counters.pushed.fetch_add(changes as u64, Ordering::Relaxed);
                if !std::mem::replace(&mut is_well, true) {
                    info!("keys: pushed to Redis again");
                }
            }
            Err(fault) => {
                keys.counters.push_failed.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut is_well) {
                    warn!("keys: nothing is pushed to Redis: {}", fault.reason);
                }
            }
        }
        sleep(KEYS_PERIOD).await;
    }
}

struct Pusher {
    master: Redis,
    /// What the master had when it was last looked at or changed from here.
    there: HashMap<String, String>,
    version: Option<Version>,
}

impl Pusher {
    /// Brings the master to what SQL says. Returns how many applications changed.
    async fn push(&mut self, keys: &Keys) -> Result<usize, Fault> {
        // Before the store is asked: what another pushes from here on is newer, and stays.
        let version = self.master.version().await?;
        let wanted = timeout(STORE_CALL, keys.store.all()).await;
        let wanted = wanted.map_err(|_| Fault::internal("the store does not answer"))??;
        let wanted: HashMap<String, String> =
            wanted.into_iter().map(|one| (one.id.clone(), entry::write(&one))).collect();
        if version.is_none() || version != self.version {
            // Another pushed meanwhile, or the master lost what it had.
            self.there = self.master.all().await?;
            self.version = version;
        }
        let changed = wanted.iter().filter(|(id, text)| self.there.get(*id) != Some(*text));
        let mut changed: Vec<_> = changed.collect();
        let mut gone: Vec<_> = self.there.keys().filter(|id| !wanted.contains_key(*id)).collect();
        // A large change goes in pieces, each a transaction of its own; the rest with the next turn.
        let is_whole = changed.len() + gone.len() <= KEYS_CHANGED_AT_ONCE;
        gone.truncate(KEYS_CHANGED_AT_ONCE);
        changed.truncate(KEYS_CHANGED_AT_ONCE - gone.len());
        let count = changed.len() + gone.len();
        if count == 0 && version.is_some() {
            return Ok(0);
        }
        // Also without an application: nodes then know that there is none.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or_default();
        let next = now.max(version.unwrap_or_default().saturating_add(1));
        let changed = self.master.change((version, next), &changed, &gone).await?;
        if changed.is_none() {
            // Another was quicker: the next turn looks.
            self.version = None;
            return Ok(0);
        }
        self.version = changed.filter(|_| is_whole);
        self.there = wanted;
        Ok(count)
    }
}
