//! Passing packets on as they are, one sender to one receiver: Strait beside coturn and rtpengine.
//!
//! The same packets for all, protected with a key that sender and receiver share. Strait gets them in sessions with a
//! session key and hands them on unchanged, coturn as channel data, rtpengine as RTP that it need not understand.

use crate::bare::Bare;
use crate::bed::{Bed, Side};
use crate::rtpengine::Rtpengine;
use crate::strait::{Relay, number};
use crate::turn::Coturn;
use crate::versus::spread;
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::path::Path;

/// Packets per second through the server, over all pairs.
pub const RATES: [u32; 3] = [5_000, 10_000, 20_000];
const SECONDS: &str = "4";
/// Pairs of evenly paced packets: 250, 500 and 1000 packets per second each.
const PACED_PAIRS: u32 = 20;
/// Payload of an evenly paced packet: with RTP header, MID and tag it is 1200 bytes.
const PACED_BYTES: u32 = 1164;
/// Packets per second of one 720p camera (2.5 Mbit/s in packets of up to 1150 bytes).
const CAMERA_PACKETS: f64 = 287.0;

/// When packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// 720p cameras: the packets of a frame come together, and can be gathered.
    Frames,
    /// Packets of 1200 bytes one by one: nothing to gather.
    Paced,
}

/// Both.
pub const SHAPES: [Shape; 2] = [Shape::Frames, Shape::Paced];

/// Who relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    /// `strait-relay`, as it is here.
    #[value(skip)]
    Strait,
    /// A loop of `recvfrom` and `sendto`, no server at all.
    Bare,
    /// coturn: allocation, channel data.
    Coturn,
    /// rtpengine in user space: RTP to RTP.
    Rtpengine,
}

/// What a server did with a load: medians over the rounds, and what they lie between.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Which server.
    pub server: Server,
    /// When packets came.
    pub shape: Shape,
    /// Senders, each with one receiver.
    pub pairs: u32,
    /// Packets per second that receivers counted, over all pairs.
    pub packets_per_second: f64,
    /// Bytes of a packet, with RTP header and tag.
    pub bytes_per_packet: f64,
    /// CPU time of the whole process for each packet that receivers counted, in microseconds: median, least, most.
    pub cpu_us_per_packet: [f64; 3],
    /// Share of its core.
    pub cores: f64,
    /// Packets per second that one core would carry at that cost.
    pub packets_per_core: f64,
    /// From the sender's send to the receiver's receive timestamp, in microseconds: p50, p99, p99.9.
    pub latency_us: [f64; 3],
    /// Packets lost, in percent; the worst round.
    pub loss_percent: f64,
    /// Strait's CPU time over this server's in the same round: median, least, most.
    pub strait_over_it: [f64; 3],
    /// The load's own share of its core; the worst round.
    pub load_cores: f64,
}

impl Server {
    /// As it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strait => "strait",
            Self::Bare => "bare",
            Self::Coturn => "coturn",
            Self::Rtpengine => "rtpengine",
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Strait | Self::Bare => true,
            Self::Coturn => Coturn::is_installed(),
            Self::Rtpengine => Rtpengine::is_installed(),
        }
    }
}

impl Shape {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Paced => "paced",
        }
    }

    /// The pairs that come to `rate` packets per second, and what each sends.
    fn load(self, rate: u32) -> (u32, String) {
        match self {
            Self::Frames => {
                let pairs = f64::from(rate) / CAMERA_PACKETS;
                (pairs.round().max(1.0) as u32, "video-720p".to_owned())
            }
            Self::Paced => {
                let each = (rate / PACED_PAIRS).max(1);
                (PACED_PAIRS, format!("constant:{each}x{PACED_BYTES}"))
            }
        }
    }
}

/// Servers that could stand beside Strait, and how to get those that are not here.
#[must_use]
pub fn absent() -> Vec<&'static str> {
    let mut absent = Vec::new();
    if !Coturn::is_installed() {
        absent.push("coturn: not found (Debian: apt install coturn)");
    }
    if !Rtpengine::is_installed() {
        absent.push("rtpengine: not found (Debian: apt install rtpengine-daemon)");
    }
    absent
}

/// Measures at these rates, in rounds in which every server has its turn.
///
/// # Errors
/// A server does not start, or the load cannot be run, or what came was not what was sent.
pub fn measure(
    bed: &Bed,
    programs: &Path,
    rounds: usize,
    rates: &[u32],
    cut: bool,
) -> io::Result<Vec<Line>> {
    let bench = Bench { bed, programs, cut };
    let servers = [Server::Strait, Server::Bare, Server::Coturn, Server::Rtpengine];
    let servers: Vec<Server> = servers.into_iter().filter(|s| s.is_installed()).collect();
    let mut lines = Vec::new();
    for shape in SHAPES {
        for rate in rates {
            let (pairs, load) = shape.load(*rate);
            let mut reports = vec![Vec::new(); servers.len()];
            for round in 1..=rounds {
                eprintln!("==> {pairs} pairs, {load}, {rate} packets/s, round {round} of {rounds}");
                for (server, reports) in servers.iter().zip(&mut reports) {
                    // Where the machine is busy with something else, the load comes too late for what it sent.
                    let again = |error| {
                        eprintln!("    once more: {error}");
                        bench.through(*server, pairs, &load)
                    };
                    reports.push(bench.through(*server, pairs, &load).or_else(again)?);
                }
            }
            let strait = reports.first().cloned().unwrap_or_default();
            let all = servers.iter().zip(&reports);
            lines
                .extend(all.map(|(server, reports)| line(*server, shape, pairs, reports, &strait)));
        }
    }
    Ok(lines)
}

struct Bench<'a> {
    bed: &'a Bed,
    programs: &'a Path,
    cut: bool,
}

impl Bench<'_> {
    fn through(&self, server: Server, pairs: u32, shape: &str) -> io::Result<Value> {
        let report = match server {
            Server::Strait => {
                let relay = Relay::start(self.bed, self.programs, 1, "")?;
                let pairs = pairs.to_string();
                let mut arguments = vec!["--transport", "session-key", "--as-sent"];
                arguments.extend(["--publishers", &pairs, "--subscribers", &pairs]);
                arguments.extend(["--scopes", &pairs, "--shape", shape, "--duration", SECONDS]);
                arguments.extend(["--cipher", "aes128-gcm", "--allow-loss", "100"]);
                if self.cut {
                    arguments.push("--no-gro");
                }
                relay.load(&arguments)?.report
            }
            Server::Bare => {
                let bare = Bare::start(self.bed, self.programs, pairs)?;
                self.pairs(server, bare.pid(), pairs, shape)?
            }
            Server::Coturn => {
                let coturn = Coturn::start(self.bed)?;
                self.pairs(server, coturn.pid(), pairs, shape)?
            }
            Server::Rtpengine => {
                let rtpengine = Rtpengine::start(self.bed)?;
                self.pairs(server, rtpengine.pid(), pairs, shape)?
            }
        };
        let failures = report.get("failures").and_then(Value::as_array);
        match failures.map(Vec::as_slice) {
            Some([]) => Ok(report),
            failures => Err(io::Error::other(format!("{}: {failures:?}", server.name()))),
        }
    }

    fn pairs(&self, server: Server, pid: u32, pairs: u32, shape: &str) -> io::Result<Value> {
        let mut load = self.bed.command(Side::Client, &self.programs.join("strait-compare"));
        load.args(["pairs", "--server", server.name(), "--pairs", &pairs.to_string()]);
        load.args(["--shape", shape, "--duration", SECONDS, "--pid", &pid.to_string()]);
        if self.cut {
            load.arg("--no-gro");
        }
        let output = load.output()?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            io::Error::other(format!("{}: {error}: {said}", server.name()))
        })
    }
}

fn line(server: Server, shape: Shape, pairs: u32, reports: &[Value], strait: &[Value]) -> Line {
    let of = |path: &str| spread(reports.iter().map(|report| number(report, path)));
    let per = |over: &str, under: &str| {
        spread(reports.iter().map(|report| number(report, over) / number(report, under)))
    };
    let cpu = |report: &Value| number(report, "server/cpu_ns_per_packet/median");
    let cost = of("server/cpu_ns_per_packet/median").map(|ns| ns / 1000.0);
    Line {
        server,
        shape,
        pairs,
        packets_per_second: per("packets_received", "seconds")[0],
        bytes_per_packet: per("bytes_received", "packets_received")[0],
        cpu_us_per_packet: cost,
        cores: of("server/cores/median")[0],
        packets_per_core: 1e6 / cost[0],
        latency_us: ["latency/p50_us", "latency/p99_us", "latency/p99_9_us"]
            .map(|path| of(path)[0]),
        loss_percent: of("loss_percent")[2],
        strait_over_it: spread(reports.iter().zip(strait).map(|(its, ours)| cpu(ours) / cpu(its))),
        load_cores: of("generator/utilisation")[2],
    }
}

/// Strait's cost over that of the better of the others, at the rate and shape where it is worst.
#[must_use]
pub fn worst_over_best(lines: &[Line], shape: Shape) -> Option<&Line> {
    let strait = lines.iter().filter(|l| l.shape == shape && l.server == Server::Strait);
    let best = strait.filter_map(|strait| {
        let beside = lines.iter().filter(|line| {
            let is_peer = !matches!(line.server, Server::Strait | Server::Bare);
            is_peer && is_beside(line, strait)
        });
        beside.max_by(|a, b| a.strait_over_it[0].total_cmp(&b.strait_over_it[0]))
    });
    best.max_by(|a, b| a.strait_over_it[0].total_cmp(&b.strait_over_it[0]))
}

/// Whether both had the same load.
fn is_beside(a: &Line, b: &Line) -> bool {
    a.shape == b.shape
        && a.pairs == b.pairs
        && (a.packets_per_second / b.packets_per_second - 1.0).abs() < 0.2
}

/// The lines for people.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "server     shape   pairs  packets/s  CPU µs per packet       packets/s·core  latency µs p50/p99/p99.9  lost %  Strait over it\n",
    );
    for line in lines {
        let Line { server, shape, pairs, cpu_us_per_packet: [cpu, least, most], .. } = line;
        let [p50, p99, p999] = line.latency_us;
        let [ratio, low, high] = line.strait_over_it;
        text.push_str(&format!(
            "{:9}  {:6}  {pairs:5}  {:9.0}  {cpu:6.2} ({least:.2} to {most:.2})  {:14.0}  {p50:6.0} {p99:6.0} {p999:6.0}      {:6.3}  {ratio:.2} ({low:.2} to {high:.2})\n",
            server.name(), shape.name(), line.packets_per_second, line.packets_per_core, line.loss_percent,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_come_to_the_rate_that_is_asked_for() {
        for rate in RATES {
            let (pairs, _) = Shape::Frames.load(rate);
            let sum = f64::from(pairs) * CAMERA_PACKETS;
            assert!((sum / f64::from(rate) - 1.0).abs() < 0.03, "{rate}: {sum}");
            let (pairs, shape) = Shape::Paced.load(rate);
            assert_eq!((pairs, shape), (20, format!("constant:{}x1164", rate / 20)));
        }
    }

    #[test]
    fn the_figure_is_that_of_the_best_peer_where_strait_is_worst() {
        let report = |ns: f64| {
            serde_json::json!({
                "server": {"cpu_ns_per_packet": {"median": ns}, "cores": {"median": 0.1}},
                "packets_received": 60_000, "bytes_received": 72_000_000, "seconds": 6.0,
                "latency": {"p50_us": 1.0, "p99_us": 2.0, "p99_9_us": 3.0}, "loss_percent": 0.0,
                "generator": {"utilisation": 0.5},
            })
        };
        let mut lines = Vec::new();
        for (pairs, ours, coturn, rtpengine) in
            [(17, 2000.0, 8000.0, 16_000.0), (70, 1500.0, 7500.0, 5000.0)]
        {
            let strait = [report(ours)];
            for (server, ns) in [
                (Server::Strait, ours),
                (Server::Bare, ours),
                (Server::Coturn, coturn),
                (Server::Rtpengine, rtpengine),
            ] {
                lines.push(line(server, Shape::Frames, pairs, &[report(ns)], &strait));
            }
        }
        let worst = worst_over_best(&lines, Shape::Frames).unwrap();
        assert_eq!((worst.server, worst.pairs), (Server::Rtpengine, 70));
        assert_eq!(worst.strait_over_it, [0.3; 3]);
        assert_eq!(worst.packets_per_second, 10_000.0);
        assert!(worst_over_best(&lines, Shape::Paced).is_none());
        assert_eq!(table(&lines).lines().count(), 9);
    }
}
