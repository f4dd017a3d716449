//! A frame as lines of text, not more of them than a terminal has.

use super::view::{Frame, Rates};

/// Reasons of drops that a bounded page shows.
const DROPS: usize = 5;

/// The page; at most `height` lines of it, if that is given.
pub fn page(frame: &Frame, height: Option<usize>) -> Vec<String> {
    let mut lines = vec![head(frame)];
    lines.extend(frame.degradations.iter().map(|why| format!("degraded: {why}")));
    lines.extend(latency(frame));
    let tables = tables(frame);
    let sizes: Vec<usize> = tables.iter().map(|table| table.rows.len()).collect();
    let left = height.map(|height| height.saturating_sub(lines.len()));
    for (table, rows) in tables.iter().zip(share(&sizes, left)) {
        table.write(rows, &mut lines);
    }
    if let Some(height) = height {
        lines.truncate(height);
    }
    lines
}

fn head(frame: &Frame) -> String {
    let Frame { version, seconds, workers, .. } = frame;
    let peers: u32 = workers.iter().map(|worker| worker.peers).sum();
    let draining = if frame.draining { ", draining" } else { "" };
    let left_out = match frame.scopes_left_out {
        0 => String::new(),
        count => format!(", {} left out", counted(count, "scope")),
    };
    format!(
        "strait-relay {version}: {}, {}, {}{draining}{left_out} (over {seconds:.1} s)",
        counted(workers.len(), "worker"),
        counted(frame.scopes.len() + frame.scopes_left_out, "scope"),
        counted(peers as usize, "peer"),
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Where the time goes, in one line: median and 99th percentile of each stage in microseconds.
fn latency(frame: &Frame) -> Option<String> {
    let samples = frame.latency.iter().map(|stage| stage.samples).max()?;
    let stages = frame
        .latency
        .iter()
        .map(|stage| format!("{} {:.0}/{:.0}", stage.stage, stage.median_us, stage.p99_us));
    let stages: Vec<String> = stages.collect();
    Some(format!("latency µs p50/p99: {} ({samples} followed)", stages.join(", ")))
}

/// How many rows each table shows. Workers first and drops first, the others evenly, what they need.
fn share(sizes: &[usize], lines: Option<usize>) -> Vec<usize> {
    let Some(lines) = lines else { return sizes.to_vec() };
    // An empty line and a heading for each.
    let shown = sizes.iter().filter(|size| **size > 0).count();
    let mut left = lines.saturating_sub(2 * shown);
    let mut rows = vec![0; sizes.len()];
    let mut open: Vec<usize> = (0..sizes.len()).collect();
    // Small tables leave what they do not need to the others.
    open.sort_by_key(|at| sizes.get(*at).copied());
    let count = open.len();
    for (done, at) in open.into_iter().enumerate() {
        let size = sizes.get(at).copied().unwrap_or_default();
        let most = if at == 1 { size.min(DROPS) } else { size };
        let fair = left / (count - done).max(1);
        if let Some(row) = rows.get_mut(at) {
            *row = most.min(fair);
            left -= *row;
        }
    }
    rows
}

struct Table {
    name: &'static str,
    /// Heading of each column, and whether its cells stand at the right.
    columns: Vec<(&'static str, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn write(&self, rows: usize, lines: &mut Vec<String>) {
        if self.rows.is_empty() {
            return;
        }
        let shown = self.rows.get(..rows).unwrap_or(&self.rows);
        let width = |column: usize, heading: &str| {
            let cells = shown.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(heading.chars().count())
        };
        let widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(at, (name, _))| width(at, name)).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.zip(&widths).zip(&self.columns).map(|((cell, width), (_, right))| {
                if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let title = match shown.len() < self.rows.len() {
            true => format!("{} ({} of {})", self.name, shown.len(), self.rows.len()),
            false => self.name.to_owned(),
        };
        lines.push(String::new());
        let heading = line(&mut self.columns.iter().map(|(name, _)| *name));
        lines.push(format!("{heading}   | {title}"));
        lines.extend(shown.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    }
}

fn tables(frame: &Frame) -> [Table; 5] {
    let optional = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let rate_columns =
        [("in pps", true), ("out pps", true), ("in bit/s", true), ("out bit/s", true)];
    let columns = |first: &[(&'static str, bool)], last: &[(&'static str, bool)]| {
        first.iter().chain(&rate_columns).chain(last).copied().collect()
    };
    let with = |first: Vec<String>, rates: Rates, last: Vec<String>| {
        let Rates { packets_in_per_second, packets_out_per_second, .. } = rates;
        let (bits_in, bits_out) = (rates.bits_in_per_second, rates.bits_out_per_second);
        let four = [packets_in_per_second, packets_out_per_second, bits_in, bits_out].map(short);
        first.into_iter().chain(four).chain(last).collect::<Vec<_>>()
    };
    let workers = frame.workers.iter().map(|worker| {
        let first = vec![
            worker.worker.to_string(),
            optional(worker.cpu_percent, 1),
            worker.scopes.to_string(),
            worker.peers.to_string(),
            worker.subscriptions.to_string(),
        ];
        let last = vec![short(worker.drops_per_second), optional(worker.run_length_mean, 1)];
        with(first, worker.rates, last)
    });
    let drops = frame
        .drops
        .iter()
        .map(|drop| vec![drop.reason.clone(), short(drop.per_second), drop.total.to_string()]);
    let scopes = frame.scopes.iter().map(|scope| {
        let counts = [scope.peers, scope.publications, scope.subscriptions];
        let first = std::iter::once(scope.scope.clone()).chain(counts.map(|n| n.to_string()));
        let dominant = scope.dominant.clone().unwrap_or_else(|| "-".to_owned());
        with(first.collect(), scope.rates, vec![dominant])
    });
    let peers = frame.peers.iter().map(|peer| {
        let state = if peer.connected { &*peer.remote_address } else { "not connected" };
        let counts = [peer.publications, peer.subscriptions];
        let first = std::iter::once(peer.peer.clone()).chain(counts.map(|n| n.to_string()));
        let last = vec![
            peer.estimate_bits_per_second.map_or_else(|| "-".to_owned(), short),
            optional(peer.round_trip_ms, 1),
            optional(peer.loss_percent, 1),
            peer.held_back.to_string(),
            state.to_owned(),
            peer.scope.clone(),
        ];
        with(first.collect(), peer.rates, last)
    });
    let streams = frame.streams.iter().map(|stream| {
        let speaking = if stream.speaking { " speaks" } else { "" };
        vec![
            stream.direction.to_owned(),
            format!("{}{speaking}", stream.stream),
            stream.layer.clone(),
            short(stream.packets_per_second),
            short(stream.bits_per_second),
            format!("{:.1}", stream.loss_percent),
            format!("{:.1}", stream.jitter_ms),
            optional(stream.round_trip_ms, 1),
            stream.peer.clone(),
        ]
    });
    let few =
        [("worker", true), ("cpu %", true), ("scopes", true), ("peers", true), ("subs", true)];
    [
        Table {
            name: "workers",
            columns: columns(&few, &[("drops/s", true), ("run", true)]),
            rows: workers.collect(),
        },
        Table {
            name: "drops",
            columns: vec![("reason", false), ("per s", true), ("total", true)],
            rows: drops.collect(),
        },
        Table {
            name: "scopes",
            columns: columns(
                &[("scope", false), ("peers", true), ("pubs", true), ("subs", true)],
                &[("dominant", false)],
            ),
            rows: scopes.collect(),
        },
        Table {
            name: "peers",
            columns: columns(
                &[("peer", false), ("pubs", true), ("subs", true)],
                &[
                    ("line bit/s", true),
                    ("rtt ms", true),
                    ("loss %", true),
                    ("held", true),
                    ("address", false),
                    ("scope", false),
                ],
            ),
            rows: peers.collect(),
        },
        Table {
            name: "streams",
            columns: vec![
                ("way", false),
                ("stream", false),
                ("layer", false),
                ("pps", true),
                ("bit/s", true),
                ("loss %", true),
                ("jitter ms", true),
                ("rtt ms", true),
                ("peer", false),
            ],
            rows: streams.collect(),
        },
    ]
}

/// A number in few characters: 950, 12.3k, 4.56M.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => return format!("{v:.0}"),
    };
    let digits = if scaled >= 100.0 { 0 } else { 1 };
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::testing;

    #[test]
    fn everything_is_shown_where_there_is_room() {
        let (before, now) = testing::second();
        let page = page(&Frame::between(&before, &now), None).join("\n");
        for part in ["strait-relay 1.2: 1 worker, 1 scope, 2 peers", "10.0", "41.6k", "4.0"] {
            assert!(page.contains(part), "{part} in\n{page}");
        }
        for part in ["not_selected", "lobby", "ann", "bob", "voice speaks", "ear", "192.0.2.1:5000"]
        {
            assert!(page.contains(part), "{part} in\n{page}");
        }
        assert!(page.contains("not_selected      5     20"), "{page}");
        assert!(page.contains("750k    80.0    25.0     1"), "{page}");
        let latency = "latency µs p50/p99: wait 15/20, total 15/20 (10 followed)";
        assert!(page.contains(latency), "{page}");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let lines = page(&testing::large(), Some(40));
        assert_eq!(lines.len(), 40);
        let page = lines.join("\n");
        assert!(page.contains("drops (5 of 40)") && page.contains(" of 9000)"), "{page}");
    }

    #[test]
    fn small_tables_leave_their_room_to_large_ones() {
        assert_eq!(share(&[1, 0, 3, 100, 100], Some(34)), [1, 0, 3, 11, 11]);
        assert_eq!(share(&[5, 5, 5, 5, 5], None), [5; 5]);
        assert_eq!(share(&[9, 9, 9, 9, 9], Some(3)), [0; 5]);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.4, 999.0, 1_234.0, 56_700.0, 1e6, 2.5e9].map(short);
        assert_eq!(shown, ["0", "999", "1.2k", "56.7k", "1.0M", "2.5G"]);
    }
}
