//! A report as one page: tables and plots, nothing from elsewhere.

use std::fmt::Write as _;

use super::Report;
use super::table::time;

/// Size of a plot's drawing area, in SVG units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 180.0;
/// Room for its labels.
const LEFT: f64 = 64.0;
const BELOW: f64 = 28.0;
/// Bars of the latency plot.
const BARS: usize = 80;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #6a737d; --paper: #fff; --line: #d0d7de;
  --one: #0b6bcb; --bad: #c4320a; --good: #1a7f37; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --paper: #0d1117; --line: #30363d;
    --one: #58a6ff; --bad: #ff7b72; --good: #3fb950; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; padding: 1rem; }
svg { width: 100%; height: auto; } text { fill: var(--dim); font: 11px system-ui, sans-serif; }
.axis { stroke: var(--line); } .bar { fill: var(--one); } .bad { fill: var(--bad); }
.line { fill: none; stroke: var(--one); stroke-width: 2; } .verdict { font-weight: 600; }
.ok { color: var(--good); } .no { color: var(--bad); }
";

impl Report {
    /// The report as an HTML page that needs no other file: it follows the reader's choice of light or dark.
    #[must_use]
    pub fn page(&self) -> String {
        let (class, word) = if self.is_good() { ("ok", "good") } else { ("no", "failed") };
        let points = |value: fn(&super::Window) -> f64| -> Vec<(f64, f64)> {
            self.windows.iter().map(|w| (w.at_seconds + w.seconds / 2.0, value(w))).collect()
        };
        let per_second = points(|w| w.packets_received as f64 / w.seconds.max(1e-9));
        let loss = points(|w| {
            let all = (w.packets_received + w.packets_missing).max(1);
            100.0 * w.packets_missing as f64 / all as f64
        });
        let mut body = format!(
            "<h1>strait load</h1>\n<p class=\"verdict {class}\">{word}</p>\n<pre>{}</pre>\n",
            escape(&self.table())
        );
        let mut section = |title: &str, plot: String| {
            // A String takes all that is written to it.
            let _ = writeln!(body, "<h2>{title}</h2>\n{plot}");
        };
        section("Latency, publisher to subscriber", self.latency_plot());
        section("Packets received per second", line_plot(&per_second, self.seconds, "/s"));
        section("Packets missing, in percent", line_plot(&loss, self.seconds, " %"));
        if self.server.is_some() {
            let cost = points(|w| {
                w.server_cpu_ns.unwrap_or(0) as f64 / 1000.0 / w.packets_received.max(1) as f64
            });
            section("Server: CPU µs per packet", line_plot(&cost, self.seconds, " µs"));
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>strait load: {word}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
        )
    }

    /// Shares of packets over latency on a logarithmic axis.
    fn latency_plot(&self) -> String {
        let classes = &self.latency.classes;
        let (Some(first), Some(last)) = (classes.first(), classes.last()) else {
            return "<p>Nothing arrived.</p>".to_owned();
        };
        let (low, high) = (first.0.max(0.1).ln(), (last.0.max(0.1) * 1.05).ln());
        let span = (high - low).max(1e-6);
        let mut bars = [0_u64; BARS];
        for (us, count) in classes {
            let place = ((us.max(0.1).ln() - low) / span * BARS as f64) as usize;
            if let Some(bar) = bars.get_mut(place.min(BARS - 1)) {
                *bar += count;
            }
        }
        let most = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
        let mut shapes = String::new();
        for (n, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
            // The root lets the rare slow ones be seen.
            let height = (*count as f64 / most).sqrt() * HEIGHT;
            let (x, width) = (LEFT + n as f64 * WIDTH / BARS as f64, WIDTH / BARS as f64 - 1.0);
            let upper = time((low + (n + 1) as f64 / BARS as f64 * span).exp());
            let _ = write!(
                shapes,
                "<rect class=\"bar\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\"><title>{count} packets up to {upper}</title></rect>",
                HEIGHT - height
            );
        }
        for n in 0..=4 {
            let share = f64::from(n) / 4.0;
            shapes += &label(
                LEFT + share * WIDTH,
                HEIGHT + 18.0,
                "middle",
                &time((low + share * span).exp()),
            );
        }
        frame(&shapes)
    }
}

/// A line over time.
fn line_plot(points: &[(f64, f64)], seconds: f64, unit: &str) -> String {
    let most = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let top = if most > 0.0 { most * 1.1 } else { 1.0 };
    let place = |at: f64, value: f64| {
        (LEFT + at / seconds.max(1e-9) * WIDTH, HEIGHT - value / top * HEIGHT)
    };
    let mut shapes = String::new();
    let path: Vec<String> = points
        .iter()
        .map(|(at, value)| {
            let (x, y) = place(*at, *value);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let _ = write!(shapes, "<polyline class=\"line\" points=\"{}\"/>", path.join(" "));
    for (at, value) in points {
        let (x, y) = place(*at, *value);
        let _ = write!(
            shapes,
            "<circle class=\"bar\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{value:.3}{unit} at \
             {at:.1} s</title></circle>"
        );
    }
    for n in 0..=2 {
        let value = top * f64::from(n) / 2.0;
        let digits = if top < 10.0 { 2 } else { 0 };
        let text = format!("{value:.digits$}{unit}");
        shapes += &label(LEFT - 6.0, place(0.0, value).1 + 4.0, "end", &text);
    }
    for n in 0..=4 {
        let at = seconds * f64::from(n) / 4.0;
        shapes += &label(
            place(at, 0.0).0,
            HEIGHT + 18.0,
            "middle",
            &format!("{} s", (at * 10.0).round() / 10.0),
        );
    }
    frame(&shapes)
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text))
}

fn frame(shapes: &str) -> String {
    format!(
        "<svg viewBox=\"0 -8 {:.0} {:.0}\" role=\"img\"><line class=\"axis\" x1=\"{LEFT}\" \
         y1=\"{HEIGHT}\" x2=\"{:.0}\" y2=\"{HEIGHT}\"/>{shapes}</svg>",
        LEFT + WIDTH + 24.0,
        HEIGHT + BELOW + 8.0,
        LEFT + WIDTH
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use crate::report::Window;

    #[test]
    fn a_page_stands_alone_and_is_well_formed() {
        let mut histogram = Histogram::new();
        for n in 1..1000_u64 {
            histogram.add(n * n * 100);
        }
        let window = |n: u64| Window {
            at_seconds: n as f64,
            seconds: 1.0,
            packets_received: 900 + n,
            packets_missing: n,
            server_cpu_ns: Some(1_000_000),
            ..Window::default()
        };
        let report = Report {
            shape: "a < b".into(),
            seconds: 3.0,
            latency: histogram.summary(),
            windows: (0..3).map(window).collect(),
            server: Some(super::super::Server::default()),
            failures: vec!["1 × late".into()],
            ..Report::default()
        };
        let page = report.page();
        assert!(page.contains("a &lt; b") && !page.contains("a < b"));
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("failed"));
        assert_eq!(page.matches("<svg").count(), 4);
        for tag in ["svg", "h2", "pre", "style", "body", "html", "text", "rect", "circle"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        for elsewhere in ["http:", "https:", "src=", "url(", "@import", "NaN", "inf"] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
        assert!(Report::default().page().contains("Nothing arrived"), "an empty one too");
    }
}
