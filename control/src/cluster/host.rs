//! What this node's host does, for the others to see.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Cluster;
use crate::host;
use crate::host::now::{Now, Watch};
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
            let mut read = tokio::task::spawn_blocking(read);
            let figures = match timeout(HOST_INTERVAL, &mut read).await {
                Ok(figures) => figures,
                Err(_) => {
                    // What is old would look as if all were well.
                    self.tell_host(None);
                    read.await
                }
            };
            let Ok(figures) = figures else { continue };
            self.tell_host(Some(watch.look(Instant::now(), figures)));
        }
    }

    fn tell_host(&self, now: Option<Now>) {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
