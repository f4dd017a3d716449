//! The figures of a cluster: three nodes with real Redis and MariaDB, and parts of it that die.

mod bed;
mod browsers;
mod failover;
mod outage;
mod redis;
mod resolve;
mod usage;

use std::io;

use crate::figure::{
    CLUSTER, CLUSTER_FAILOVER, CLUSTER_FAILOVER_BROWSERS, CLUSTER_MAPPINGS_LOST,
    CLUSTER_OUTAGE_BACK, CLUSTER_OUTAGE_GAP, CLUSTER_OUTAGE_JOINS, CLUSTER_OUTAGE_LOST,
    CLUSTER_OUTAGE_MOVED, CLUSTER_REDIS_BACK, CLUSTER_RESOLVE_P99, CLUSTER_RESOLVES, CLUSTER_SPLIT,
    CLUSTER_USAGE, Figure, Promise,
};
use bed::Bed;

/// Measures those whose names contain `only`; everything is away for so many minutes in one of them.
/// Says on stderr what it does.
pub fn measure(only: &str, minutes: f64) -> Vec<Figure> {
    let wanted = |promises: &[Promise]| promises.iter().any(|promise| promise.name.contains(only));
    let mut figures = Vec::new();
    const RESOLVES: [Promise; 2] = [CLUSTER_RESOLVES, CLUSTER_RESOLVE_P99];
    if wanted(&RESOLVES) {
        eprintln!("==> clients ask for their nodes");
        figures.extend(on_a_bed(RESOLVES, resolve::measure));
    }
    const REDIS: [Promise; 2] = [CLUSTER_REDIS_BACK, CLUSTER_MAPPINGS_LOST];
    if wanted(&REDIS) {
        eprintln!("==> masters of Redis are killed");
        figures.extend(on_a_bed(REDIS, redis::measure));
    }
    const FAILOVER: [Promise; 3] = [CLUSTER_FAILOVER, CLUSTER_FAILOVER_BROWSERS, CLUSTER_SPLIT];
    if wanted(&FAILOVER) {
        eprintln!("==> nodes are killed");
        figures.extend(on_a_bed(FAILOVER, failover::measure));
    }
    if wanted(&[CLUSTER_USAGE]) {
        eprintln!("==> agents are killed, and the Redis of the events");
        figures.extend(on_a_bed([CLUSTER_USAGE], usage::measure));
    }
    const OUTAGE: [Promise; 5] = [
        CLUSTER_OUTAGE_LOST,
        CLUSTER_OUTAGE_GAP,
        CLUSTER_OUTAGE_JOINS,
        CLUSTER_OUTAGE_MOVED,
        CLUSTER_OUTAGE_BACK,
    ];
    if wanted(&OUTAGE) {
        eprintln!("==> Redis, SQL and then all of control are away");
        figures.extend(on_a_bed(OUTAGE, |bed| outage::measure(bed, minutes)));
    }
    figures.retain(|figure| figure.name.contains(only));
    debug_assert!(figures.len() <= CLUSTER.len());
    figures
}

/// What is measured on a cluster of its own, which ends afterwards.
fn on_a_bed<const N: usize>(
    promises: [Promise; N],
    measure: impl FnOnce(&Bed) -> io::Result<[Figure; N]>,
) -> [Figure; N] {
    let outcome = Bed::up().and_then(|bed| measure(&bed));
    outcome.unwrap_or_else(|error| promises.map(|promise| promise.missed(&error)))
}
