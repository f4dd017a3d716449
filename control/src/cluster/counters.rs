//! What the cluster did here, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests for a scope's node that were answered from what was known a moment ago.
    pub hits: AtomicU64,
    /// Those that the mappings were asked for.
    pub misses: AtomicU64,
    /// Those answered without mappings, by what was known before.
    pub degraded: AtomicU64,
    /// Nodes reported by clients that nobody knows.
    pub forged: AtomicU64,
    /// Times that a node did not answer when it was looked for.
    pub found_dead: AtomicU64,
    /// Clients sent to another node.
    pub redirected: AtomicU64,
    /// Scopes of this node that another one was given meanwhile.
    pub superseded: AtomicU64,
    /// Calls of registry or mappings that failed.
    pub failed: AtomicU64,
    /// Mappings forgotten that nobody held.
    pub swept: AtomicU64,
    /// Mappings given back for nodes that died.
    pub released_for_others: AtomicU64,
}

impl Counters {
    /// All of them: name, help, value.
    pub fn all(&self) -> [(&'static str, &'static str, u64); 10] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            (
                "control_cluster_resolves_known_total",
                "Requests for a scope's node answered from memory.",
                read(&self.hits),
            ),
            (
                "control_cluster_resolves_asked_total",
                "Requests for a scope's node that mappings were asked for.",
                read(&self.misses),
            ),
            (
                "control_cluster_resolves_degraded_total",
                "Requests for a scope's node answered while mappings were away.",
                read(&self.degraded),
            ),
            (
                "control_cluster_reports_unknown_total",
                "Failed nodes that clients reported and nobody knows.",
                read(&self.forged),
            ),
            (
                "control_cluster_nodes_unwell_total",
                "Times that a node did not answer when looked for.",
                read(&self.found_dead),
            ),
            (
                "control_cluster_redirects_total",
                "Clients sent to the node of their scope.",
                read(&self.redirected),
            ),
            (
                "control_cluster_superseded_total",
                "Scopes of this node that were given to another one.",
                read(&self.superseded),
            ),
            (
                "control_cluster_failures_total",
                "Calls of registry and mappings that failed.",
                read(&self.failed),
            ),
            (
                "control_cluster_swept_total",
                "Mappings forgotten that nobody held.",
                read(&self.swept),
            ),
            (
                "control_cluster_released_for_others_total",
                "Mappings given back for nodes that died after their scope ended.",
                read(&self.released_for_others),
            ),
        ]
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
