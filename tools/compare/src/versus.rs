//! The same load through Strait and through each peer that is installed, in turn.

use crate::bed::{Bed, Side};
use crate::janus::Janus;
use crate::strait::{Relay, number};
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// One camera (720p, 2.5 Mbit/s, 30 frames/s) to so many.
pub const FAN_OUTS: [usize; 2] = [50, 100];
const SECONDS: &str = "6";

/// What a server did with a load: medians over the rounds, and what they lie between.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Which server.
    pub server: &'static str,
    /// Subscribers of the camera.
    pub subscribers: usize,
    /// SRTP profile on all legs.
    pub cipher: String,
    /// CPU time of the whole process for each packet that the subscribers received, in microseconds.
    pub cpu_us_per_packet: [f64; 3],
    /// Packets per second that one core would carry at that cost.
    pub packets_per_core: f64,
    /// From the publisher's send to the subscriber's receive timestamp, in microseconds: p50, p99, p99.9.
    pub latency_us: [f64; 3],
    /// Packets lost, in percent.
    pub loss_percent: f64,
    /// CPU time over Strait's in the same round: median, least, most.
    pub over_strait: [f64; 3],
}

/// Servers that could stand beside Strait, and how to get those that are not here.
#[must_use]
pub fn absent() -> Vec<String> {
    let mut absent = Vec::new();
    if !Janus::is_installed() {
        absent.push("Janus: not found (Debian: apt install janus)".to_owned());
    }
    for (name, program, source) in OTHERS {
        absent.push(match on_path(program) {
            Some(at) => format!("{name}: found at {}, but nothing drives it yet", at.display()),
            None => format!("{name}: not found (no {program} on the PATH; {source})"),
        });
    }
    absent
}

/// Servers that no distribution has: name, program, where it comes from.
const OTHERS: [(&str, &str, &str); 3] = [
    ("mediasoup", "mediasoup-worker", "npm install mediasoup, then node_modules/mediasoup/worker"),
    ("LiveKit", "livekit-server", "https://github.com/livekit/livekit/releases"),
    ("Galene", "galene", "go install github.com/jech/galene@latest"),
];

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Measures, in rounds. Receivers take what the kernel gives them: `cut` has it cut runs for them, as on a path without
/// segmentation offload.
///
/// # Errors
/// A server does not start, or the load cannot be run.
pub fn measure(bed: &Bed, programs: &Path, rounds: usize, cut: bool) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for subscribers in FAN_OUTS {
        let (mut strait, mut janus) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            eprintln!("==> one camera to {subscribers}, round {} of {rounds}", round + 1);
            strait.push(through_strait(bed, programs, subscribers, cut)?);
            if Janus::is_installed() {
                janus.push(through_janus(bed, programs, subscribers, cut)?);
            }
        }
        lines.push(line("strait", subscribers, &strait, &strait));
        if !janus.is_empty() {
            lines.push(line("janus", subscribers, &janus, &strait));
        }
    }
    Ok(lines)
}

/// Both with AEAD_AES_256_GCM, which is what Janus and the load agree on.
fn through_strait(bed: &Bed, programs: &Path, subscribers: usize, cut: bool) -> io::Result<Value> {
    let relay = Relay::start(bed, programs, 1, "")?;
    let subscribers = subscribers.to_string();
    let mut arguments = vec!["--subscribers", &subscribers, "--duration", SECONDS];
    arguments.extend(["--cipher", "aes256-gcm", "--allow-loss", "100"]);
    if cut {
        arguments.push("--no-gro");
    }
    Ok(relay.load(&arguments)?.report)
}

fn through_janus(bed: &Bed, programs: &Path, subscribers: usize, cut: bool) -> io::Result<Value> {
    let janus = Janus::start(bed)?;
    let mut load = bed.command(Side::Client, &programs.join("strait-compare"));
    load.args(["janus", "--subscribers", &subscribers.to_string(), "--duration", SECONDS]);
    load.args(["--pid", &janus.pid().to_string()]);
    if cut {
        load.arg("--no-gro");
    }
    let output = load.output()?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        io::Error::other(format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    })
}

fn line(server: &'static str, subscribers: usize, reports: &[Value], strait: &[Value]) -> Line {
    let of = |path: &str| spread(reports.iter().map(|report| number(report, path)));
    let cpu = |report: &Value| number(report, "server/cpu_ns_per_packet/median");
    let cost = of("server/cpu_ns_per_packet/median").map(|ns| ns / 1000.0);
    let cipher = reports.first().and_then(|report| report.get("srtp_profile")?.as_str());
    Line {
        server,
        subscribers,
        cipher: cipher.unwrap_or_default().to_owned(),
        cpu_us_per_packet: cost,
        packets_per_core: 1e6 / cost[0],
        latency_us: ["latency/p50_us", "latency/p99_us", "latency/p99_9_us"]
            .map(|path| of(path)[0]),
        loss_percent: of("loss_percent")[2],
        over_strait: spread(reports.iter().zip(strait).map(|(ours, its)| cpu(ours) / cpu(its))),
    }
}

/// Median, least, most.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    [at(values.len() / 2), at(0), at(values.len().saturating_sub(1))]
}

/// The lines for people.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "server   1 to  CPU µs per packet       packets/s·core  latency µs p50/p99/p99.9  lost %  over Strait\n",
    );
    for line in lines {
        let Line { server, subscribers, cpu_us_per_packet: [cpu, least, most], .. } = line;
        let [p50, p99, p999] = line.latency_us;
        let [ratio, low, high] = line.over_strait;
        text.push_str(&format!(
            "{server:8} {subscribers:4}  {cpu:6.2} ({least:.2} to {most:.2})  {:14.0}  {p50:6.0} {p99:6.0} {p999:6.0}      {:6.3}  {ratio:.1} ({low:.1} to {high:.1})  {}\n",
            line.packets_per_core, line.loss_percent, line.cipher,
        ));
    }
    text
}
