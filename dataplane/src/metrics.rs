//! Prometheus metrics and health, on a listener of their own.
//!
//! Counters are asked of the workers when somebody asks for them: on the path they are plain numbers.

use crate::report::Report;
use crate::rpc::State;
use crate::trace::{LATENCY_CLASSES, Stage};
use crate::watchdog::Health;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strait_core::quality::{DELAY_CLASSES, LOSS_CLASSES};
use strait_core::statistics::EcnCounts;
use strait_io::steering::WAYS;

/// Name, type, and what it means. docs/reference/metrics.md tells the same, and what to do.
const METRICS: &[(&str, &str, &str)] = &[
    ("relay_build_info", "gauge", "Always 1; the version is a label."),
    ("relay_workers", "gauge", "Workers of the process."),
    ("relay_workers_stalled", "gauge", "Workers that do not answer."),
    ("relay_draining", "gauge", "1 while the relay takes nothing new."),
    ("relay_scopes", "gauge", "Scopes, by worker."),
    ("relay_peers", "gauge", "Peers, by worker."),
    ("relay_publications", "gauge", "Publications, by worker."),
    ("relay_subscriptions", "gauge", "Subscriptions, by worker."),
    (
        "relay_subscriptions_lowered",
        "gauge",
        "Subscriptions that get a lower layer than they want for want of bandwidth, by worker.",
    ),
    (
        "relay_subscriptions_paused",
        "gauge",
        "Subscriptions that get nothing, because not even the lowest layer fits, by worker.",
    ),
    (
        "relay_packets_received_total",
        "counter",
        "Datagrams and ICE-TCP frames received, by worker.",
    ),
    ("relay_bytes_received_total", "counter", "Their bytes, by worker."),
    ("relay_packets_sent_total", "counter", "Datagrams and ICE-TCP frames sent, by worker."),
    ("relay_bytes_sent_total", "counter", "Their bytes, by worker."),
    (
        "relay_packets_dropped_total",
        "counter",
        "Packets not forwarded, by reason (drop-reasons.md).",
    ),
    ("relay_packets_handed_over_total", "counter", "Datagrams read by one worker for another."),
    (
        "relay_datagrams_steered_total",
        "counter",
        "Datagrams by what told the kernel their worker; none where it does not steer.",
    ),
    (
        "relay_receive_batches_total",
        "counter",
        "Reads that returned something (recvmmsg, or completions taken from the ring), by worker.",
    ),
    (
        "relay_send_batches_total",
        "counter",
        "Calls that sent (sendmmsg, or submissions to the ring), by worker.",
    ),
    (
        "relay_run_length",
        "histogram",
        "Datagrams that left by one UDP_SEGMENT (1: alone), by worker.",
    ),
    (
        "relay_run_packets_sent_total",
        "counter",
        "Datagrams that left by one UDP_SEGMENT together with others, by worker.",
    ),
    (
        "relay_runs_refused_total",
        "counter",
        "Runs that the kernel refused to cut and that left one by one, by worker.",
    ),
    (
        "relay_stage_latency_seconds",
        "histogram",
        "Time of media datagrams in each stage on their way through this host, by worker and stage.",
    ),
    ("relay_turns_total", "counter", "Turns of the loop, by worker."),
    ("relay_mailbox_depth", "gauge", "Commands that wait, by worker."),
    ("relay_retransmission_cache_bytes", "gauge", "Bytes kept for retransmission, by worker."),
    (
        "relay_queue_delay_seconds",
        "histogram",
        "One-way queuing delay from publishers, 95th percentile of each encoding every 2 s, by worker.",
    ),
    (
        "relay_loss_ratio",
        "histogram",
        "Share of packets lost from publishers, of each encoding every 2 s, by worker.",
    ),
    (
        "relay_publisher_packets_expected_total",
        "counter",
        "Packets that publishers sent and that had the time to arrive, by worker.",
    ),
    (
        "relay_publisher_packets_lost_total",
        "counter",
        "Packets from publishers that did not arrive in time, by worker.",
    ),
    (
        "relay_publisher_packets_repaired_total",
        "counter",
        "Lost packets from publishers that came by retransmission or forward error correction, by worker.",
    ),
    (
        "relay_fec_packets_total",
        "counter",
        "Repair packets of publishers' forward error correction, by worker.",
    ),
    (
        "relay_fec_recovered_total",
        "counter",
        "Media packets from publishers that were had from repair packets, by worker.",
    ),
    (
        "relay_feedback_packets_total",
        "counter",
        "Packets that subscribers' transport-wide feedback told about, by worker.",
    ),
    (
        "relay_feedback_ignored_total",
        "counter",
        "Numbers in that feedback that said nothing new, by worker.",
    ),
    (
        "relay_feedback_marked_total",
        "counter",
        "Packets that arrived at subscribers with a router's ECN mark, by their feedback, by worker.",
    ),
    (
        "relay_ecn_packets_total",
        "counter",
        "RTP packets received with an ECN code point, by that and by worker.",
    ),
    ("relay_probes_total", "counter", "Probes of what subscribers' lines carry, by worker."),
    (
        "relay_probes_succeeded_total",
        "counter",
        "Probes that showed that more is possible, by worker.",
    ),
    ("relay_padding_bytes_total", "counter", "Bytes sent for probes alone, by worker."),
    (
        "relay_packets_paced_total",
        "counter",
        "Packets that waited for a subscriber's line and left, by worker.",
    ),
    (
        "relay_pacing_delay_seconds_total",
        "counter",
        "How long these packets waited all together, by worker.",
    ),
    ("relay_stun_answered_total", "counter", "Plain STUN requests that were answered, by worker."),
    ("relay_tcp_connections", "gauge", "ICE-TCP connections that are open, by worker."),
    ("relay_tcp_accepted_total", "counter", "ICE-TCP connections accepted, by worker."),
    ("relay_tcp_refused_total", "counter", "ICE-TCP connections refused for a limit, by worker."),
    (
        "relay_tcp_expelled_total",
        "counter",
        "ICE-TCP connections closed for breaking rules, by worker.",
    ),
    ("relay_framed_connections", "gauge", "Connections of framed media over TLS that are open."),
    ("relay_framed_strangers", "gauge", "Of these, those whose peer no worker knows yet."),
    ("relay_framed_kernel_tls", "gauge", "Of these, those whose TLS the kernel does."),
    (
        "relay_framed_accepted_total",
        "counter",
        "Connections of framed media that control planes handed over.",
    ),
    (
        "relay_framed_refused_total",
        "counter",
        "Connections that were handed over and not taken: too many, or without what belongs to them.",
    ),
    (
        "relay_framed_failed_total",
        "counter",
        "Connections of framed media without TLS or a check that passed within 5 s, or with broken TLS.",
    ),
    (
        "relay_framed_packets_dropped_total",
        "counter",
        "Packets that waited for a slow reader of framed media until 64 KiB did; the oldest went.",
    ),
    (
        "relay_framed_back",
        "gauge",
        "Connections that were none of the relay's, which it carries for the control plane.",
    ),
    ("relay_framed_back_total", "counter", "Those that there were."),
    ("relay_turn_allocations", "gauge", "Allocations of TURN over TLS that are open."),
    ("relay_turn_allocated_total", "counter", "Allocations of TURN that were made."),
    (
        "relay_turn_refused_total",
        "counter",
        "Allocations of TURN refused: too many of one session, or in all.",
    ),
    (
        "relay_turn_unauthorized_total",
        "counter",
        "Requests of TURN with wrong or expired credentials.",
    ),
    (
        "relay_turn_forbidden_total",
        "counter",
        "Requests of TURN for peers that are no addresses of this host's media.",
    ),
    ("relay_handshakes_open", "gauge", "DTLS handshakes under way."),
    ("relay_handshake_drops_total", "counter", "DTLS datagrams that found no room."),
    ("relay_channel_associations", "gauge", "Peers with an SCTP association for data channels."),
    (
        "relay_channel_associations_refused_total",
        "counter",
        "SCTP associations that the limit left no room for.",
    ),
    ("relay_channel_messages_received_total", "counter", "Messages from data channels."),
    ("relay_channel_messages_sent_total", "counter", "Messages to data channels."),
    (
        "relay_channel_messages_undelivered_total",
        "counter",
        "Messages to data channels that were closed, or whose peer takes none as large.",
    ),
    (
        "relay_channel_packets_dropped_total",
        "counter",
        "SCTP packets of peers that used up the work they may make, or broke rules.",
    ),
    (
        "relay_channel_peers_too_slow_total",
        "counter",
        "Peers whose data channels were closed because too much waited for them.",
    ),
    ("relay_event_readers", "gauge", "Readers of WatchEvents: control planes."),
];

type Context = Arc<(Arc<State>, Arc<Health>)>;

/// `GET /metrics`, `/livez`, `/readyz`.
pub(crate) fn router(state: Arc<State>, health: Arc<Health>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::new((state, health)))
}

/// 200 when this relay can take peers, with what is degraded; 503 with the reasons when it cannot.
async fn ready(Shared(context): Shared<Context>) -> impl IntoResponse {
    let (state, health) = &*context;
    let mut problems = Vec::new();
    if state.draining.load(Ordering::Relaxed) {
        problems.push("draining".to_owned());
    }
    problems.extend(health.problems());
    let degradations = state.identity.degradations.iter().map(|why| format!("degraded: {why}"));
    let (status, word) = match problems.is_empty() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let lines: Vec<_> =
        std::iter::once(word.to_owned()).chain(problems).chain(degradations).collect();
    (status, lines.join("\n") + "\n")
}

async fn metrics(Shared(context): Shared<Context>) -> impl IntoResponse {
    let (state, health) = &*context;
    let reports =
        health.ask(&state.workers, async |mailbox| mailbox.report(Vec::new()).await).await;
    // A stalled worker is missing from its own metrics, and counts in relay_workers_stalled.
    let reports: Vec<_> = reports
        .into_iter()
        .enumerate()
        .filter_map(|(worker, report)| Some((worker, report?)))
        .collect();
    let text = render(state, health, &reports);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn render(state: &State, health: &Health, reports: &[(usize, Report)]) -> String {
    let mut page = Page { text: String::new(), reports };
    page.one("relay_build_info", &format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
    page.one("relay_workers", "", state.workers.len());
    page.one("relay_workers_stalled", "", health.stalled().count());
    page.one("relay_draining", "", u8::from(state.draining.load(Ordering::Relaxed)));
    page.each("relay_scopes", |report| report.worker.scopes);
    page.each("relay_peers", |report| report.worker.peers);
    page.each("relay_publications", |report| report.worker.publications);
    page.each("relay_subscriptions", |report| report.worker.subscriptions);
    page.each("relay_subscriptions_lowered", |report| report.worker.subscriptions_lowered);
    page.each("relay_subscriptions_paused", |report| report.worker.subscriptions_paused);
    page.each("relay_packets_received_total", |report| report.sockets.packets_received);
    page.each("relay_bytes_received_total", |report| report.sockets.bytes_received);
    page.each("relay_packets_sent_total", |report| report.sockets.packets_sent);
    page.each("relay_bytes_sent_total", |report| report.sockets.bytes_sent);
    page.drops("relay_packets_dropped_total");
    page.each("relay_packets_handed_over_total", |report| report.handed_over);
    page.head("relay_datagrams_steered_total");
    if let Some(kernel) = &state.kernel {
        for (way, count) in WAYS.iter().zip(kernel.ways()) {
            page.line("relay_datagrams_steered_total", &format!("{{way=\"{way}\"}}"), count);
        }
    }
    page.each("relay_receive_batches_total", |report| report.sockets.receive_batches);
    page.each("relay_send_batches_total", |report| report.sockets.send_batches);
    page.run_lengths("relay_run_length");
    page.each("relay_run_packets_sent_total", |report| {
        let alone = report.sockets.runs.first().copied().unwrap_or_default();
        report.sockets.run_datagrams.saturating_sub(alone)
    });
    page.each("relay_runs_refused_total", |report| report.sockets.runs_refused);
    page.stages("relay_stage_latency_seconds");
    page.each("relay_turns_total", |report| report.turns);
    page.head("relay_mailbox_depth");
    for (worker, mailbox) in state.workers.iter().enumerate() {
        page.line("relay_mailbox_depth", &format!("{{worker=\"{worker}\"}}"), mailbox.depth());
    }
    page.each("relay_retransmission_cache_bytes", |report| report.worker.cache_bytes);
    let delays = DELAY_CLASSES.map(|most| most.as_secs_f64());
    page.histogram("relay_queue_delay_seconds", &delays, |report| {
        let quality = &report.worker.quality;
        (&quality.delays, quality.delay_sum.as_secs_f64())
    });
    page.histogram("relay_loss_ratio", &LOSS_CLASSES, |report| {
        (&report.worker.quality.losses, report.worker.quality.loss_sum)
    });
    page.each("relay_publisher_packets_expected_total", |report| report.worker.quality.expected);
    page.each("relay_publisher_packets_lost_total", |report| report.worker.quality.lost);
    page.each("relay_publisher_packets_repaired_total", |report| report.worker.quality.repaired);
    page.each("relay_fec_packets_total", |report| report.worker.fec.packets);
    page.each("relay_fec_recovered_total", |report| report.worker.fec.recovered);
    page.each("relay_feedback_packets_total", |report| report.worker.estimation.told);
    page.each("relay_feedback_ignored_total", |report| report.worker.estimation.ignored);
    page.each("relay_feedback_marked_total", |report| report.worker.estimation.marked);
    page.ecn("relay_ecn_packets_total");
    page.each("relay_probes_total", |report| report.worker.estimation.probes);
    page.each("relay_probes_succeeded_total", |report| report.worker.estimation.probes_succeeded);
    page.each("relay_padding_bytes_total", |report| report.worker.estimation.padding.bytes);
    page.each("relay_packets_paced_total", |report| report.worker.pacing.packets);
    page.each("relay_pacing_delay_seconds_total", |report| {
        report.worker.pacing.delay.as_secs_f64()
    });
    page.each("relay_stun_answered_total", |report| report.worker.bindings);
    page.each("relay_tcp_connections", |report| report.sockets.tcp_open);
    page.each("relay_tcp_accepted_total", |report| report.sockets.tcp_accepted);
    page.each("relay_tcp_refused_total", |report| report.sockets.tcp_refused);
    page.each("relay_tcp_expelled_total", |report| report.sockets.tcp_expelled);
    for (name, count) in [
        ("relay_framed_connections", &state.framed.open),
        ("relay_framed_strangers", &state.framed.strangers),
        ("relay_framed_kernel_tls", &state.framed.kernel.open),
        ("relay_framed_accepted_total", &state.framed.accepted),
        ("relay_framed_refused_total", &state.framed.refused),
        ("relay_framed_failed_total", &state.framed.failed),
        ("relay_framed_packets_dropped_total", &state.framed.dropped),
        ("relay_framed_back", &state.framed.back[0]),
        ("relay_framed_back_total", &state.framed.back[1]),
        ("relay_turn_allocations", &state.framed.turn.open),
        ("relay_turn_allocated_total", &state.framed.turn.allocated),
        ("relay_turn_refused_total", &state.framed.turn.refused),
        ("relay_turn_unauthorized_total", &state.framed.turn.unauthorized),
        ("relay_turn_forbidden_total", &state.framed.turn.forbidden),
    ] {
        page.one(name, "", count.load(Ordering::Relaxed));
    }
    page.one("relay_handshakes_open", "", state.handshakes.half_open());
    page.one("relay_handshake_drops_total", "", state.handshakes.dropped());
    let channels = &state.messages.counters;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    page.one("relay_channel_associations", "", channels.associations.load(Ordering::Relaxed));
    page.one("relay_channel_associations_refused_total", "", count(&channels.refused));
    page.one("relay_channel_messages_received_total", "", count(&channels.received));
    page.one("relay_channel_messages_sent_total", "", count(&channels.sent));
    page.one("relay_channel_messages_undelivered_total", "", count(&channels.undelivered));
    page.one("relay_channel_packets_dropped_total", "", count(&channels.packets_dropped));
    page.one("relay_channel_peers_too_slow_total", "", count(&channels.too_slow));
    page.one("relay_event_readers", "", state.watchers.load(Ordering::Relaxed));
    page.text
}

/// The text as it grows.
struct Page<'a> {
    text: String,
    reports: &'a [(usize, Report)],
}

impl Page<'_> {
    fn head(&mut self, name: &str) {
        let Some((_, kind, help)) = METRICS.iter().find(|(known, ..)| *known == name) else {
            debug_assert!(false, "{name} is not in METRICS");
            return;
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, labels: &str, value: impl Display) {
        self.head(name);
        self.line(name, labels, value);
    }

    fn each<T: Display>(&mut self, name: &str, value: impl Fn(&Report) -> T) {
        self.head(name);
        for (worker, report) in self.reports {
            self.line(name, &format!("{{worker=\"{worker}\"}}"), value(report));
        }
    }

    /// Counts by class, the last one for what is above all upper bounds, and the sum of what was counted.
    fn histogram(&mut self, name: &str, most: &[f64], counted: impl Fn(&Report) -> (&[u64], f64)) {
        self.head(name);
        for (worker, report) in self.reports {
            self.classes(name, &format!("worker=\"{worker}\""), most, counted(report));
        }
    }

    fn classes(&mut self, name: &str, labels: &str, most: &[f64], (counts, sum): (&[u64], f64)) {
        let bounds = most.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            self.line(&format!("{name}_bucket"), &format!("{{{labels},le=\"{bound}\"}}"), total);
        }
        self.line(&format!("{name}_sum"), &format!("{{{labels}}}"), sum);
        self.line(&format!("{name}_count"), &format!("{{{labels}}}"), total);
    }

    fn stages(&mut self, name: &str) {
        self.head(name);
        let most = LATENCY_CLASSES.map(|most| most.as_secs_f64());
        for (worker, report) in self.reports {
            for (stage, times) in Stage::ALL.iter().zip(report.latency.iter().flatten()) {
                let labels = format!("worker=\"{worker}\",stage=\"{}\"", stage.name());
                self.classes(name, &labels, &most, (&times.counts, times.sum.as_secs_f64()));
            }
        }
    }

    fn run_lengths(&mut self, name: &str) {
        self.head(name);
        for (worker, Report { sockets, .. }) in self.reports {
            let mut runs = 0;
            for (class, count) in (0..).zip(sockets.runs) {
                runs += count;
                let most = (1_u64 << (class + 1)) - 1;
                let labels = format!("{{worker=\"{worker}\",le=\"{most}\"}}");
                self.line(&format!("{name}_bucket"), &labels, runs);
            }
            let labels = format!("{{worker=\"{worker}\",le=\"+Inf\"}}");
            self.line(&format!("{name}_bucket"), &labels, runs);
            let labels = format!("{{worker=\"{worker}\"}}");
            self.line(&format!("{name}_sum"), &labels, sockets.run_datagrams);
            self.line(&format!("{name}_count"), &labels, runs);
        }
    }

    /// By mark and worker.
    fn ecn(&mut self, name: &str) {
        self.head(name);
        for (worker, report) in self.reports {
            let EcnCounts { ect0, ect1, ce } = report.worker.ecn;
            for (mark, count) in [("ect0", ect0), ("ect1", ect1), ("ce", ce)] {
                self.line(name, &format!("{{mark=\"{mark}\",worker=\"{worker}\"}}"), count);
            }
        }
    }

    /// The sum over the workers: the reasons are many already.
    fn drops(&mut self, name: &str) {
        self.head(name);
        let Some((_, first)) = self.reports.first() else { return };
        for (at, (reason, _)) in first.drops.iter().enumerate() {
            let counts = self.reports.iter().filter_map(|(_, report)| report.drops.get(at));
            let sum: u64 = counts.map(|(_, count)| count).sum();
            self.line(name, &format!("{{reason=\"{reason}\"}}"), sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::METRICS;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_names_every_metric_and_no_other() {
        let page = include_str!("../../docs/reference/metrics.md");
        let documented: BTreeSet<_> = page
            .split('`')
            .filter(|word| word.starts_with("relay_") && !word.contains([' ', '*', '\n']))
            .map(|word| word.split('{').next().unwrap_or(word))
            .collect();
        let known: BTreeSet<_> = METRICS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn counters_and_nothing_else_end_in_total() {
        for (name, kind, help) in METRICS {
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            assert!(help.ends_with('.') && name.starts_with("relay_"), "{name}");
        }
    }
}
