//! The nodes of the cluster.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::{Caller, Refused};
use crate::cluster::{Cluster, Listed};
use crate::fault::Fault;
use crate::host::now::Now;
use crate::http::App;

type Answer = Result<Json<Value>, Refused>;

/// All of them.
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    caller.check_operator()?;
    let nodes = app.cluster.nodes().await?;
    let items: Vec<Value> = nodes.iter().map(|node| shown(&app.cluster, node)).collect();
    Ok(Json(json!({ "items": items })))
}

/// No new scopes there.
pub async fn drain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    set_drained(&app.cluster, &caller, &name, true).await
}

/// New scopes again.
pub async fn undrain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    set_drained(&app.cluster, &caller, &name, false).await
}

async fn set_drained(cluster: &Cluster, caller: &Caller, name: &str, is_drained: bool) -> Answer {
    caller.check_operator()?;
    cluster.drain(name, is_drained).await?;
    let nodes = cluster.nodes().await?;
    let found = nodes.iter().find(|listed| listed.node.name == name);
    let gone = || Fault::not_found(format!("the node {name:?} went away just now; see /nodes"));
    Ok(Json(shown(cluster, found.ok_or_else(gone)?)))
}

fn host(now: &Now) -> Value {
    json!({
        "cpu": now.cpu.map(|share| f64::from(share) / 1_000.0),
        "memoryBytes": now.memory,
        "memoryFreeBytes": now.memory_free,
        "diskBytes": now.disk,
        "diskFreeBytes": now.disk_free,
        "receivedBitsPerSecond": now.received,
        "sentBitsPerSecond": now.sent,
        "droppedPerSecond": now.dropped,
    })
}

fn shown(cluster: &Cluster, listed: &Listed) -> Value {
    let node = &listed.node;
    let state = match (listed.is_alive, listed.is_drained) {
        (false, _) => json!("away"),
        (true, true) => json!("draining"),
        (true, false) => json!(node.state),
    };
    json!({
        "node": node.name,
        "state": state,
        "region": (!node.region.is_empty()).then_some(&node.region),
        "address": node.endpoint(),
        "scopes": node.scopes,
        "peers": node.peers,
        "headroom": f64::from(node.headroom) / 1_000.0,
        "version": node.version,
        "host": listed.is_alive.then_some(node.machine.as_ref()).flatten().map(host),
        "self": node.owner() == *cluster.me(),
    })
}
