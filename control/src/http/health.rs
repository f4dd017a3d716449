//! `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{App, Shared, metrics};
use crate::config::cluster::Role;
use crate::events::Moment;
use crate::fault::Fault;
use crate::limits;
use crate::store::Reach;

/// The process runs. With `?incarnation=`, whether it is that start of a node, and has its relay:
/// so CnCs find out if its scopes are to move.
pub async fn livez(State(app): Shared, RawQuery(query): RawQuery) -> Response {
    let mut values = query.iter().flat_map(|query| query.split('&'));
    if let Some(start) = values.find_map(|value| value.strip_prefix("incarnation=")) {
        if start != app.cluster.me().incarnation {
            return Fault::conflict("this is another start of the node").into_response();
        }
        if app.cluster.lacks_relay() {
            return Fault::unavailable("the relay is away for too long").into_response();
        }
    }
    "ok\n".into_response()
}

/// The process can serve: each check with its state; 503 when one fails. With `?verbose`, also
/// what the relay says is degraded. Who may read metrics is told more of the store.
pub async fn readyz(
    State(app): Shared,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Response {
    let is_verbose = query.is_some_and(|query| query.split('&').any(|q| q.starts_with("verbose")));
    let checks = checks(&app, sees_metrics(&app, client)).await;
    let mut text = String::new();
    for (name, state) in &checks {
        let (mark, words) = match state {
            Ok(words) => ("ok", words),
            Err(words) => ("FAIL", words),
        };
        text += &format!("{mark} {name}: {words}\n");
    }
    if let Some(info) = app.scopes.relay().info().filter(|_| is_verbose) {
        text += &format!("relay version {} instance {}\n", info.version, info.instance_id);
        for degradation in info.degradations {
            text += &format!("degraded: {degradation}\n");
        }
    }
    let is_ready = checks.iter().all(|(_, state)| state.is_ok());
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

/// Of a store, to operators.
const LACKS: &str = "reachable, but refuses this process's account some of what it asks (the log \
                     says what): give it its rights back";
const REFUSES: &str = "refuses this process (the log says why): its password or its rights changed; \
                       set store.url, or give the rights back";

type Checks = Vec<(&'static str, Result<&'static str, &'static str>)>;

/// What has to be well for this process to serve, and whether it is.
async fn checks(app: &App, is_operator: bool) -> Checks {
    let relay = app.cluster.config().has(Role::Node).then(|| match app.scopes.relay().info() {
        None => Err("does not answer"),
        Some(info) if info.draining => Err("drains"),
        Some(_) => Ok("up"),
    });
    // What a node does goes on without it. Who is none is there for the store.
    let is_spared = relay.is_some() && app.keys.are_copied();
    let store = match (app.store.reach().await, is_operator) {
        // Calls go on, and accounts wait.
        (Reach::Answers | Reach::Lacks, _) if app.store.is_full().0 => {
            Ok("reachable, but has no room: accounts wait")
        }
        (Reach::Lacks, true) => Ok(LACKS),
        (Reach::Answers | Reach::Lacks, _) => Ok("reachable"),
        (Reach::Refuses, true) if is_spared => Ok(REFUSES),
        (Reach::Refuses, true) => Err(REFUSES),
        (Reach::Refuses | Reach::Away, _) if is_spared => {
            Ok("does not answer; who may come in is known from the copy of the keys")
        }
        (Reach::Refuses | Reach::Away, _) => Err("does not answer"),
    };
    let process = if *app.shutdown.borrow() { Err("ending") } else { Ok("serving") };
    let relay = relay.map(|relay| ("relay", relay));
    relay.into_iter().chain([("store", store), ("process", process)]).collect()
}

/// Whether this client may read metrics.
fn sees_metrics(app: &App, client: SocketAddr) -> bool {
    app.config.http.metrics_public || client.ip().to_canonical().is_loopback()
}

/// Tells every ten seconds who is there, and every minute whether this node is well, for as long as
/// the process lives.
pub async fn tell(app: Arc<App>) {
    let is_node = app.cluster.config().has(Role::Node);
    if is_node {
        // A start is no fault of the relay's: it was not looked for yet.
        let found = app.scopes.relay().found();
        let _or_not = tokio::time::timeout(limits::PRESENCE_PERIOD, found).await;
    }
    let mut period = tokio::time::interval(limits::PRESENCE_PERIOD);
    loop {
        period.tick().await;
        app.notary.tell_presence(Moment::now());
        // Also where nothing is told of it: what the store refuses is in the log.
        let checks = checks(&app, false).await;
        if !is_node {
            continue;
        }
        let wrong = checks
            .into_iter()
            .find_map(|(name, state)| state.err().map(|words| format!("{name}: {words}")));
        app.notary.tell_check(wrong.as_deref(), Moment::now());
    }
}

/// Prometheus text. For this machine only, unless the configuration says otherwise.
pub async fn metrics(State(app): Shared, ConnectInfo(client): ConnectInfo<SocketAddr>) -> Response {
    if !sees_metrics(&app, client) {
        let reason = "metrics are for this machine only (http.metrics_public)";
        return Fault::forbidden(reason).into_response();
    }
    let mut response = metrics::write(&app).await.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
