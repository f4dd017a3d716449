//! What is counted, window by window.

use std::time::Duration;

use strait_core::time::Instant;

use crate::plan::Plan;
use crate::process;
use crate::report::{Quartiles, Report, Server, Window};
use crate::run::own_cpu;

/// What the loop counts on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub sent: u64,
    pub received: u64,
    pub bytes: u64,
    pub missing: u64,
    pub repaired: u64,
    pub runs: u64,
    pub run_max: u64,
    pub send_errors: u64,
    pub overflows: u64,
}

impl Counts {
    /// All from the beginning.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }
}

/// The count in progress.
pub(crate) struct Measure {
    begin: Instant,
    length: Duration,
    pid: Option<u32>,
    last: Reading,
    own_cpu_at_begin: Duration,
    windows: Vec<Window>,
    over: Option<Over>,
}

struct Over {
    seconds: f64,
    own_cpu: Duration,
}

#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    counts: Counts,
    server_cpu_ns: Option<u64>,
}

impl Measure {
    pub(crate) fn begin(now: Instant, plan: &Plan, counts: &Counts) -> Self {
        let mut measure = Self {
            begin: now,
            length: plan.window,
            pid: plan.server_pid,
            last: Reading { at: now, counts: *counts, server_cpu_ns: None },
            own_cpu_at_begin: own_cpu(),
            windows: Vec::new(),
            over: None,
        };
        measure.last = measure.read(now, counts);
        measure
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Closes the window if its time is up.
    pub(crate) fn window_may_end(&mut self, now: Instant, counts: &Counts) {
        if self.over.is_none() && now.since(self.last.at) >= self.length {
            self.close(now, counts);
        }
    }

    /// Nothing more is sent.
    pub(crate) fn end(&mut self, now: Instant, counts: &Counts) {
        // A splinter at the end says nothing.
        if now.since(self.last.at) * 2 >= self.length || self.windows.is_empty() {
            self.close(now, counts);
        }
        let own_cpu = own_cpu().saturating_sub(self.own_cpu_at_begin);
        self.over = Some(Over { seconds: now.since(self.begin).as_secs_f64(), own_cpu });
    }

    fn read(&self, at: Instant, counts: &Counts) -> Reading {
        let server_cpu_ns = self.pid.and_then(|pid| process::cpu_ns(pid).ok());
        Reading { at, counts: *counts, server_cpu_ns }
    }

    fn close(&mut self, now: Instant, counts: &Counts) {
        let (last, this) = (self.last, self.read(now, counts));
        let server_cpu_ns = this.server_cpu_ns.zip(last.server_cpu_ns);
        self.windows.push(Window {
            at_seconds: last.at.since(self.begin).as_secs_f64(),
            seconds: now.since(last.at).as_secs_f64(),
            packets_sent: counts.sent - last.counts.sent,
            packets_received: counts.received - last.counts.received,
            packets_missing: counts.missing.saturating_sub(last.counts.missing),
            server_cpu_ns: server_cpu_ns.map(|(now, before)| now.saturating_sub(before)),
        });
        self.last = this;
    }

    /// Writes what was counted into the report.
    pub(crate) fn fill(self, report: &mut Report) {
        if let Some(over) = &self.over {
            report.seconds = over.seconds;
            report.generator.utilisation = over.own_cpu.as_secs_f64() / over.seconds.max(1e-9);
        }
        let of = |per: fn(&Window) -> f64| -> Quartiles {
            let spent = self.windows.iter().filter(|w| w.server_cpu_ns.is_some());
            quartiles(spent.map(|window| window.server_cpu_ns.unwrap_or(0) as f64 / per(window)))
        };
        if self.windows.iter().any(|window| window.server_cpu_ns.is_some()) {
            report.server = Some(Server {
                cpu_ns_per_packet: of(|window| window.packets_received.max(1) as f64),
                cores: of(|window| window.seconds * 1e9),
            });
        }
        report.windows = self.windows;
    }
}

/// Median and quartiles, between neighbours where they fall between two.
fn quartiles(values: impl Iterator<Item = f64>) -> Quartiles {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * values.len().saturating_sub(1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let value = |n: usize| values.get(n).copied().unwrap_or(0.0);
        value(low) + (value(high) - value(low)) * place.fract()
    };
    Quartiles { q1: at(0.25), median: at(0.5), q3: at(0.75) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_fall_between_neighbours() {
        let of = |values: &[f64]| quartiles(values.iter().copied());
        assert_eq!(of(&[]), Quartiles::default());
        assert_eq!(of(&[3.0]), Quartiles { q1: 3.0, median: 3.0, q3: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Quartiles { q1: 1.75, median: 2.5, q3: 3.25 });
    }

    #[test]
    fn windows_hold_what_came_in_them() {
        let plan = Plan { server_pid: Some(std::process::id()), ..Plan::default() };
        let second = |n: u64| Instant(n * 1_000_000_000);
        let counts =
            |n: u64| Counts { sent: n, received: 10 * n, missing: n / 4, ..Counts::default() };
        let mut measure = Measure::begin(second(100), &plan, &counts(0));
        for n in 0..7 {
            measure.window_may_end(second(100 + n), &counts(n));
        }
        measure.end(second(107), &counts(7));
        assert!(measure.is_over());
        let mut report = Report::default();
        measure.fill(&mut report);
        assert_eq!(report.seconds, 7.0);
        let received: Vec<u64> = report.windows.iter().map(|w| w.packets_received).collect();
        assert_eq!(received, [20, 20, 20, 10]);
        let missing: Vec<u64> = report.windows.iter().map(|w| w.packets_missing).collect();
        assert_eq!(missing, [0, 1, 0, 0]);
        assert!(report.server.is_some());
    }
}
