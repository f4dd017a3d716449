//! A report for the terminal.

use std::fmt::Write as _;

use super::{Quartiles, Report};

impl Report {
    /// The report as lines of text, each at most 100 characters wide.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            // A String takes all that is written to it.
            let _ = writeln!(out, "  {name:<22}{value}");
        };
        row(
            "load",
            format!(
                "{} → {} peers in {}, {} streams, {}{}",
                self.publishers,
                self.subscribers,
                counted(self.scopes as u64, "scope"),
                self.streams,
                self.shape,
                if self.srtp_profile.is_empty() { ", plain RTP" } else { "" },
            ),
        );
        if !self.srtp_profile.is_empty() {
            row("SRTP", self.srtp_profile.clone());
        }
        row("joined in", format!("{:.2} s", self.join_seconds));
        let rate = |count: u64| count as f64 / self.seconds.max(1e-9);
        row("counted for", format!("{:.2} s", self.seconds));
        row("sent", format!("{} packets, {:.0}/s", self.packets_sent, rate(self.packets_sent)));
        row(
            "received",
            format!(
                "{} packets of {}, {:.0}/s, {:.1} Mbit/s",
                self.packets_received,
                self.packets_expected,
                rate(self.packets_received),
                rate(self.bytes_received) * 8e-6,
            ),
        );
        row("lost", format!("{} packets, {:.4} %", self.packets_lost, self.loss_percent));
        if self.packets_repaired > 0 {
            row("repaired", format!("{} packets by RTX", self.packets_repaired));
        }
        if self.frames_whole + self.frames_broken > 0 {
            row("frames", format!("{} whole, {} broken", self.frames_whole, self.frames_broken));
        }
        let l = &self.latency;
        row(
            "latency",
            format!(
                "p50 {} · p90 {} · p99 {} · p99.9 {} · max {}",
                time(l.p50_us),
                time(l.p90_us),
                time(l.p99_us),
                time(l.p99_9_us),
                time(l.max_us)
            ),
        );
        row(
            "arrived in runs of",
            format!(
                "{:.1} packets on average, {} at most",
                self.receive_run_mean, self.receive_run_max
            ),
        );
        if let Some(server) = &self.server {
            let of = |q: Quartiles, scale: f64| {
                format!("{:.3} ({:.3} … {:.3})", q.median * scale, q.q1 * scale, q.q3 * scale)
            };
            row("server, µs/packet", of(server.cpu_ns_per_packet, 1e-3));
            row("server, cores", of(server.cores, 1.0));
        }
        let g = &self.generator;
        row(
            "this generator",
            format!("{:.0} % of a core, late by p99 {}", g.utilisation * 100.0, time(g.lag_p99_us)),
        );
        if g.receive_overflows > 0 {
            row(
                "",
                format!("did not read {} datagrams in time: not the server's", g.receive_overflows),
            );
        }
        if g.utilisation > super::BUSY {
            row("", "is at its limit: latency and loss may be its own".to_owned());
        }
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

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Microseconds for people.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Server;

    #[test]
    fn a_failure_cannot_be_overlooked() {
        let mut report = Report { scopes: 1, ..Report::default() };
        assert!(report.table().contains("good"));
        report.server = Some(Server {
            cpu_ns_per_packet: Quartiles { q1: 700.0, median: 800.0, q3: 900.0 },
            ..Server::default()
        });
        report.failures = vec!["3 × corrupt".into(), "1 × late".into()];
        let table = report.table();
        assert!(table.contains("FAILED") && table.contains("3 × corrupt"), "{table}");
        assert!(table.contains("1 × late") && !table.contains("good"), "{table}");
        assert!(table.contains("0.800 (0.700 … 0.900)"), "{table}");
    }

    #[test]
    fn times_have_units_that_fit() {
        assert_eq!(time(12.3), "12 µs");
        assert_eq!(time(12_345.0), "12.35 ms");
        assert_eq!(time(1_234_567.0), "1.23 s");
    }
}
