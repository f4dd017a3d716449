//! Counters of this process, and the relay's, as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use strait_proto::v1;
use tokio::time::timeout;

use super::App;
use super::timed::Ended;
use crate::cluster::Cluster;
use crate::events::Counters;
use crate::keys::Keys;
use crate::link::Links;
use crate::{host, limits};

/// Counters of requests.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    /// Connections of HTTP that were ended.
    pub ended: Arc<Ended>,
}

/// Counts a request. Labels are from fixed sets, so that nobody can fill the table.
pub async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let route = match path.split('/').nth(1) {
        Some("whip") => "whip",
        Some("whep") => "whep",
        Some("ws") => "ws",
        Some("resolve") => "resolve",
        Some("api") => "api",
        Some("livez" | "healthz" | "readyz" | "metrics") => "health",
        _ => "page",
    };
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let response = next.run(request).await;
    let key = (route, method, response.status().as_u16());
    let mut requests = app.metrics.requests.lock().unwrap_or_else(PoisonError::into_inner);
    *requests.entry(key).or_default() += 1;
    drop(requests);
    response
}

/// All counters as text.
pub async fn write(app: &App) -> String {
    let mut text = String::new();
    let out = &mut text;
    header(out, "control_build_info", "gauge", "Version of this process.");
    line(out, "control_build_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
    header(out, "control_requests_total", "counter", "HTTP requests answered.");
    let requests = app.metrics.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for ((route, method, code), count) in requests {
        let labels = format!("route=\"{route}\",method=\"{method}\",code=\"{code}\"");
        line(out, "control_requests_total", &labels, count);
    }
    let name = "control_http_ended_total";
    header(out, name, "counter", "Connections of HTTP whose clients made us wait, by why.");
    for (reason, count) in app.metrics.ended.all() {
        line(out, name, &format!("reason=\"{reason}\""), count);
    }
    header(out, "control_credentials_accepted_total", "counter", "Credentials taken, by kind.");
    for (kind, count) in app.auth.counters().accepted() {
        let labels = format!("kind=\"{}\"", kind.name());
        line(out, "control_credentials_accepted_total", &labels, count);
    }
    header(out, "control_credentials_refused_total", "counter", "Credentials refused, by reason.");
    for (reason, count) in app.auth.counters().refused() {
        let labels = format!("reason=\"{}\"", reason.name());
        line(out, "control_credentials_refused_total", &labels, count);
    }
    let (scopes, peers) = app.scopes.counts();
    let gauges = [
        ("control_scopes", "Scopes with somebody in them.", scopes),
        ("control_peers", "Peers in all scopes.", peers),
        ("control_websocket_sessions", "WebSocket sessions.", app.hub.count()),
        ("control_salts", "Salts of signed credentials that are remembered.", app.auth.salts()),
        ("control_http_sessions", "WHIP and WHEP sessions.", app.sessions.count()),
    ];
    for (name, help, value) in gauges {
        header(out, name, "gauge", help);
        line(out, name, "", value as u64);
    }
    write_links(out, &app.links);
    write_cluster(out, &app.cluster);
    write_keys(out, &app.keys);
    write_host(out, app).await;
    let name = "control_websocket_held_total";
    header(out, name, "counter", "Messages after which a fast client of a WebSocket waited.");
    line(out, name, "", app.hub.held());
    let name = "control_websocket_direct_offers_total";
    header(out, name, "counter", "Browsers told of the other of two.");
    line(out, name, "", app.scopes.direct_offers());
    let name = "control_store_full_total";
    header(out, name, "counter", "What was not written to the store, as it had no room.");
    line(out, name, "", app.store.is_full().1);
    let name = "control_store_refused_total";
    header(out, name, "counter", "What the store refused this process's account.");
    line(out, name, "", app.store.refused());
    write_events(out, app.notary.counters());
    let statistics = app.scopes.relay().statistics(Vec::new()).await;
    header(out, "control_relay_up", "gauge", "Whether the relay answers.");
    line(out, "control_relay_up", "", u64::from(statistics.is_ok()));
    if let Ok(statistics) = statistics {
        write_relay(out, &statistics.workers);
    }
    text
}

/// What the host does, and how far its clock is from that of the store.
async fn write_host(out: &mut String, app: &App) {
    let folder = app.config.folder().to_path_buf();
    let read = move || host::figures(Path::new("/proc"), &folder);
    let figures = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    host::write(out, &figures);
    if let Ok(Ok(Some(offset))) = timeout(limits::CLOCK_CALL, app.store.clock_offset()).await {
        let name = "control_clock_offset_seconds";
        header(out, name, "gauge", "How far the clock of the store's server is ahead of this one.");
        let _ = writeln!(out, "{name} {offset}");
    }
}

/// What this node knows of applications.
fn write_keys(out: &mut String, keys: &Keys) {
    let (applications, age) = keys.state();
    let name = "control_keys_applications";
    header(out, name, "gauge", "Applications in this node's copy of the keys.");
    line(out, name, "", applications as u64);
    if let Some(age) = age {
        let name = "control_keys_age_seconds";
        header(out, name, "gauge", "Time since that copy was known to be what the master has.");
        line(out, name, "", age as u64);
    }
    let counters = keys.counters();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    for (name, help, value) in [
        ("control_keys_failures_total", "Looks for keys that failed.", load(&counters.failed)),
        (
            "control_keys_remembered_total",
            "Credentials checked by what the store said before.",
            load(&counters.remembered),
        ),
        ("control_keys_pushed_total", "Applications pushed to Redis.", load(&counters.pushed)),
        (
            "control_keys_push_failures_total",
            "Attempts to push keys to Redis that failed.",
            load(&counters.push_failed),
        ),
    ] {
        header(out, name, "counter", help);
        line(out, name, "", value);
    }
}

fn write_cluster(out: &mut String, cluster: &Cluster) {
    let (all, up) = cluster.partitions();
    let gauges = [
        ("control_cluster_scopes_held", "Scopes that this node holds.", cluster.held()),
        ("control_cluster_partitions", "Partitions of the mappings.", all),
        ("control_cluster_partitions_up", "Those that answer.", up),
    ];
    for (name, help, value) in gauges {
        header(out, name, "gauge", help);
        line(out, name, "", value as u64);
    }
    for (name, help, value) in cluster.counters().all() {
        header(out, name, "counter", help);
        line(out, name, "", value);
    }
    let name = "control_cluster_partition_failures_total";
    header(out, name, "counter", "Calls of partitions of the mappings that failed.");
    line(out, name, "", cluster.partition_failures());
    header(out, "control_cluster_nodes", "gauge", "Nodes that are known, by state.");
    for (state, count) in cluster.states() {
        line(out, "control_cluster_nodes", &format!("state=\"{state}\""), count);
    }
}

fn write_events(out: &mut String, counters: &Counters) {
    let series = [
        (
            "control_events_spool_thrown_total",
            "Events of quality thrown away, as the disk may hold no more.",
            &counters.spool_thrown,
        ),
        (
            "control_events_spool_failures_total",
            "Attempts to keep events on disk that failed.",
            &counters.spool_failures,
        ),
        (
            "control_events_spool_broken_total",
            "Files of events on disk that were damaged, and set aside.",
            &counters.spool_broken,
        ),
        (
            "control_events_aside_total",
            "Events of the stream that were not understood, and put aside.",
            &counters.aside,
        ),
        (
            "control_events_read_failures_total",
            "Attempts to read the stream of events that failed.",
            &counters.read_failures,
        ),
        ("control_events_told_total", "Events of this node told.", &counters.told),
        ("control_events_lost_total", "Events that are nowhere.", &counters.lost),
        ("control_events_written_total", "Events written to the store.", &counters.written),
    ];
    for (name, help, counter) in series {
        header(out, name, "counter", help);
        line(out, name, "", counter.load(Ordering::Relaxed));
    }
    let gauges = [
        ("control_events_spool_events", "Events that wait on disk.", &counters.spool_events),
        ("control_events_spool_bytes", "Their bytes.", &counters.spool_bytes),
        ("control_events_stream_events", "Events that wait in Redis.", &counters.stream_events),
    ];
    for (name, help, gauge) in gauges {
        header(out, name, "gauge", help);
        line(out, name, "", gauge.load(Ordering::Relaxed));
    }
    let name = "control_events_stalled";
    header(out, name, "gauge", "Whether events wait for the store or for Redis.");
    line(out, name, "", u64::from(counters.is_stalled.load(Ordering::Relaxed)));
}

fn write_links(out: &mut String, links: &Links) {
    let counters = links.counters();
    header(out, "control_links", "gauge", "Links of native clients, by state.");
    for (state, count) in links.states() {
        line(out, "control_links", &format!("state=\"{state}\""), count as u64);
    }
    let name = "control_link_frames_total";
    header(out, name, "counter", "Messages of native clients, by kind.");
    for (kind, count) in counters.kinds() {
        line(out, name, &format!("message=\"{kind}\""), count);
    }
    let name = "control_link_refusals_total";
    header(out, name, "counter", "Requests refused and links ended, by code.");
    for (code, count) in counters.refusals() {
        line(out, name, &format!("code=\"{code}\""), count);
    }
    let name = "control_links_unrecalled_total";
    header(out, name, "counter", "Sessions of a process of before that ended, by reason.");
    for (reason, count) in counters.unrecalled() {
        line(out, name, &format!("reason=\"{reason}\""), count);
    }
    let others = [
        ("control_link_notes_total", "Notes given to the relay.", &counters.noted),
        ("control_link_notes_cut_total", "Notes without what is too long.", &counters.notes_cut),
        ("control_links_opened_total", "Links opened.", &counters.opened),
        (
            "control_quic_retries_total",
            "QUIC connections asked to show their address.",
            &counters.quic_retries,
        ),
        ("control_links_resumed_total", "Links that went on with a session.", &counters.resumed),
        (
            "control_links_recalled_total",
            "Sessions that were taken over from a process of before.",
            &counters.recalled,
        ),
        ("control_link_unknown_messages_total", "Messages of unknown kinds.", &counters.unknown),
        ("control_link_held_total", "Messages after which a fast client waited.", &counters.held),
        ("control_link_messages_total", "Messages sent to native clients.", &counters.messages),
        ("control_link_media_received_total", "Packets from clients.", &counters.media_in),
        ("control_link_media_sent_total", "Packets to clients.", &counters.media_out),
        ("control_link_redirects_total", "Clients sent to another node.", &counters.redirected),
        ("control_link_direct_offers_total", "Clients told of the other of two.", &counters.direct),
        ("control_link_media_dropped_total", "Packets without room.", &counters.media_dropped),
    ];
    for (name, help, counter) in others {
        header(out, name, "counter", help);
        line(out, name, "", counter.load(Ordering::Relaxed));
    }
}

type Field = fn(&v1::WorkerStatistics) -> u64;

fn write_relay(out: &mut String, workers: &[v1::WorkerStatistics]) {
    let series: [(&str, &str, &str, Field); 8] = [
        ("relay_scopes", "gauge", "Scopes of a worker.", |w| w.scopes.into()),
        ("relay_peers", "gauge", "Peers of a worker.", |w| w.peers.into()),
        ("relay_subscriptions", "gauge", "Outgoing streams.", |w| w.subscriptions.into()),
        ("relay_packets_received_total", "counter", "Datagrams received.", |w| w.packets_received),
        ("relay_bytes_received_total", "counter", "Bytes received.", |w| w.bytes_received),
        ("relay_packets_sent_total", "counter", "Datagrams sent.", |w| w.packets_sent),
        ("relay_bytes_sent_total", "counter", "Bytes sent.", |w| w.bytes_sent),
        ("relay_packets_handed_over_total", "counter", "Packets read by another worker.", |w| {
            w.packets_handed_over
        }),
    ];
    for (name, kind, help, value) in series {
        header(out, name, kind, help);
        for worker in workers {
            line(out, name, &format!("worker=\"{}\"", worker.worker), value(worker));
        }
    }
    header(out, "relay_packets_dropped_total", "counter", "Packets not forwarded, by reason.");
    for worker in workers {
        let mut dropped: Vec<_> = worker.packets_dropped.iter().collect();
        dropped.sort();
        for (reason, count) in dropped {
            let reason = reason.replace(['"', '\\', '\n'], "_");
            let labels = format!("worker=\"{}\",reason=\"{reason}\"", worker.worker);
            line(out, "relay_packets_dropped_total", &labels, *count);
        }
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}
