//! What a run of native clients found.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::seen::Seen;
use crate::report::{Latency, time};

/// What a run of native clients found. Times in the units that the names say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NativeReport {
    /// What was sent, in words.
    pub shape: String,
    /// How media was to go: `udp`, or `tcp`.
    pub way: String,
    /// How it went in the end: peers by state.
    pub ways: BTreeMap<String, u64>,
    /// Peers that sent.
    pub publishers: usize,
    /// Peers that received.
    pub subscribers: usize,
    /// Scopes.
    pub scopes: usize,
    /// Streams that were to be received, over all subscribers.
    pub streams: usize,
    /// Peers that joined.
    pub joins: u64,
    /// By the clock, several at a time, publishing included.
    pub joins_per_second: f64,
    /// From the first call to `Joined`: connection, TLS, authentication.
    pub join: Latency,
    /// How long packets were counted.
    pub seconds: f64,
    /// Packets that publishers sent while it was counted.
    pub packets_sent: u64,
    /// Packets that subscribers should have received.
    pub packets_expected: u64,
    /// Packets that they received, each once, repaired ones included.
    pub packets_received: u64,
    /// Packets that did not arrive.
    pub packets_lost: u64,
    /// The same as a share.
    pub loss_percent: f64,
    /// From the write of a packet by its publisher to the subscriber's callback.
    pub latency: Latency,
    /// Messages that publishers sent, each to all others of its scope.
    pub messages_sent: u64,
    /// Messages that subscribers should have received.
    pub messages_expected: u64,
    /// Messages that they received.
    pub messages_received: u64,
    /// Messages that did not follow the one before of the same sender.
    pub messages_disordered: u64,
    /// Messages that were not sent when they were due: the node had not taken over those before.
    pub messages_held_back: u64,
    /// From the call to the subscriber's callback.
    pub message_latency: Latency,
    /// Links that broke.
    pub links_lost: u64,
    /// Packets that came twice.
    pub duplicate: u64,
    /// Packets that are not what was sent.
    pub corrupt: u64,
    /// Packets and messages that are not of this run.
    pub foreign: u64,
    /// Packets that a client did not take.
    pub send_errors: u64,
    /// How late a packet left at most after it was due.
    pub late_ns_max: u64,
    /// Why the run has failed, one sentence each; empty when all is well.
    pub failures: Vec<String>,
}

impl NativeReport {
    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn add(&mut self, seen: &Seen) {
        self.messages_received += seen.messages;
        self.messages_disordered += seen.messages_disordered;
        self.links_lost += seen.links_lost;
        self.duplicate += seen.duplicate;
        self.corrupt += seen.corrupt;
        self.foreign += seen.foreign;
        self.failures.extend(seen.failed.clone());
    }

    pub(super) fn judge(&mut self, allowed_percent: f64) {
        self.packets_lost = self.packets_expected.saturating_sub(self.packets_received);
        self.loss_percent = 100.0 * self.packets_lost as f64 / self.packets_expected.max(1) as f64;
        if self.loss_percent > allowed_percent {
            self.failures.push(format!(
                "{} of {} packets did not arrive: {:.4} %, where {allowed_percent} % are allowed",
                self.packets_lost, self.packets_expected, self.loss_percent
            ));
        }
        if self.streams > 0 && self.packets_received == 0 {
            self.failures.push("nothing was received".into());
        }
        if self.messages_received != self.messages_expected {
            self.failures.push(format!(
                "{} of {} messages arrived",
                self.messages_received, self.messages_expected
            ));
        }
        for (count, what) in [
            (self.messages_disordered, "messages out of order"),
            (self.links_lost, "links broke"),
            (self.duplicate, "packets came twice"),
            (self.corrupt, "packets were changed"),
            (self.foreign, "packets or messages were not of this run"),
            (self.send_errors, "packets were not taken by their client"),
        ] {
            if count > 0 {
                self.failures.push(format!("{count} {what}"));
            }
        }
    }

    /// The report as lines of text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            // A String takes all that is written to it.
            let _ = writeln!(out, "  {name:<22}{value}");
        };
        let spread = |l: &Latency| {
            let [p50, p90, p99, max] = [l.p50_us, l.p90_us, l.p99_us, l.max_us].map(time);
            format!("p50 {p50} · p90 {p90} · p99 {p99} · max {max}")
        };
        let rate = |count: u64| count as f64 / self.seconds.max(1e-9);
        row(
            "load",
            format!(
                "{} → {} native peers, {} scopes, {} streams, {}",
                self.publishers, self.subscribers, self.scopes, self.streams, self.shape
            ),
        );
        let ways = self.ways.iter().map(|(way, peers)| format!("{peers} {way}"));
        row("media goes by", ways.collect::<Vec<_>>().join(", "));
        row("joined", format!("{} peers, {:.0}/s", self.joins, self.joins_per_second));
        row("each within", spread(&self.join));
        row("counted for", format!("{:.2} s", self.seconds));
        row("sent", format!("{} packets, {:.0}/s", self.packets_sent, rate(self.packets_sent)));
        row(
            "received",
            format!(
                "{} packets of {}, {:.0}/s",
                self.packets_received,
                self.packets_expected,
                rate(self.packets_received)
            ),
        );
        row("lost", format!("{} packets, {:.4} %", self.packets_lost, self.loss_percent));
        row("latency", spread(&self.latency));
        if self.messages_sent > 0 {
            row(
                "messages",
                format!(
                    "{} sent, {} of {} received, {} held back",
                    self.messages_sent,
                    self.messages_received,
                    self.messages_expected,
                    self.messages_held_back
                ),
            );
            row("their latency", spread(&self.message_latency));
        }
        row("this generator", format!("late by {} at most", time(self.late_ns_max as f64 / 1e3)));
        match self.failures.as_slice() {
            [] => row("verdict", "good: every packet was checked".to_owned()),
            failures => {
                for (n, failure) in failures.iter().enumerate() {
                    row(if n == 0 { "FAILED" } else { "" }, failure.clone());
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_a_failure() {
        let good = NativeReport {
            streams: 1,
            packets_expected: 10,
            packets_received: 10,
            messages_expected: 2,
            messages_received: 2,
            ..NativeReport::default()
        };
        let judged = |change: fn(&mut NativeReport), allowed| {
            let mut report = good.clone();
            change(&mut report);
            report.judge(allowed);
            report
        };
        assert!(judged(|_| {}, 0.0).table().contains("good"));
        assert!(judged(|report| report.packets_received = 9, 10.0).is_good());
        for change in [
            (|report| report.packets_received = 9) as fn(&mut NativeReport),
            |report| report.messages_received = 1,
            |report| report.messages_disordered = 1,
            |report| report.corrupt = 1,
            |report| report.links_lost = 1,
        ] {
            let report = judged(change, 0.0);
            assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
            assert!(report.table().contains("FAILED"));
        }
    }
}
