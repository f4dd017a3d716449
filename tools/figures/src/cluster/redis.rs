//! What becomes of the mapping when a master of Redis is killed.

use std::collections::HashMap;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::bed::{Asker, Bed};
use crate::figure::{CLUSTER_MAPPINGS_LOST, CLUSTER_REDIS_BACK, Figure};

/// Scopes that are new while masters die.
const SCOPES: usize = 300;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(10);
/// After so many of them a master is killed; after as many again its place is looked at.
const KILLED_AT: usize = 100;
/// Kills, one in each partition.
const KILLS: usize = 3;
/// A scope that has no answer by then never gets one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kills the master of each partition in turn while new scopes come, and asks for all of them
/// afterwards, another CnC.
pub fn measure(bed: &Bed) -> io::Result<[Figure; 2]> {
    let mut told = HashMap::new();
    let mut away = Vec::new();
    for kill in 1..=KILLS {
        let mut killed = None;
        let mut longest = Duration::ZERO;
        for number in 0..SCOPES {
            if number == KILLED_AT {
                bed.strait(&["kill", &format!("redis-{kill}a")])?;
                killed = Some(Instant::now());
            }
            let scope = format!("kill-{kill}-{number}");
            let since = Instant::now();
            let node = ask(bed, &scope)?;
            if killed.is_some() {
                longest = longest.max(since.elapsed());
            }
            told.insert(scope, node);
            thread::sleep(PAUSE);
        }
        away.push(longest.as_secs_f64());
    }
    let mut lost = 0_u32;
    let mut other = Asker::connect(bed.http(3))?;
    for (scope, node) in &told {
        let (status, now) = other.resolve(scope)?;
        if status != 200 || now != *node {
            lost += 1;
        }
    }
    let worst = away.iter().copied().fold(0.0, f64::max);
    let each: Vec<_> = away.iter().map(|seconds| format!("{seconds:.2}")).collect();
    let how = format!(
        "{KILLS} masters killed (longest wait for an answer: {} s), {} new scopes meanwhile",
        each.join(", "),
        told.len()
    );
    Ok([
        CLUSTER_REDIS_BACK.measured(worst, &how),
        CLUSTER_MAPPINGS_LOST.measured(f64::from(lost), how),
    ])
}

/// The node of a scope, asked for until there is an answer, as clients do.
fn ask(bed: &Bed, scope: &str) -> io::Result<String> {
    let since = Instant::now();
    loop {
        let answer = Asker::connect(bed.http(1)).and_then(|mut asker| asker.resolve(scope));
        match answer {
            Ok((200, node)) => return Ok(node),
            other if since.elapsed() > PATIENCE => {
                return Err(io::Error::other(format!("no answer about {scope}: {other:?}")));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}
