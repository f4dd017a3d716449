//! What this node's host does, for the others to see.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval};

use super::Cluster;
use crate::host::{self, now::Watch};
use crate::limits::HOST_INTERVAL;

impl Cluster {
    /// Looks at the host, and at the disk that `folder` is on, until the process ends. It is announced
    /// with the node: a dashboard may ask no other node than its own.
    pub async fn watch_host(self: Arc<Self>, folder: PathBuf) {
        let mut watch = Watch::default();
        let mut ticks = interval(HOST_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let folder = folder.clone();
            // Apart: a disk that hangs must not hold up the lease.
            let read = move || host::figures(Path::new("/proc"), &folder);
            let Ok(figures) = tokio::task::spawn_blocking(read).await else { continue };
            let now = watch.look(Instant::now(), figures);
            *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
    }
}
