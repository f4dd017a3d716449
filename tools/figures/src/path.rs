//! The figures of the packet path: CPU time beside bare loops, runs, latency, steering, a second worker.
//!
//! Ratios within one round, medians over rounds: the machines are shared.

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use strait_compare::bed::{Bed, CLIENT, Side};
use strait_compare::floor::Cost;
use strait_compare::plain::{self, Shape};
use strait_compare::strait::{Relay, metric, number, programs};
use strait_compare::versus::{self, Line};

use crate::figure::{
    DEFAULT_IO, Figure, LATENCY_P99, LATENCY_P999, OVER_FLOOR, OVER_PEER, OVER_PLAIN_PEER,
    OVER_SENDTO_50, OVER_SENDTO_100, OWNED, PACED_OVER_PLAIN_PEER, PATH, Promise, RUN_LENGTH,
    SECOND_WORKER,
};

const ROUNDS: usize = 3;
const SECONDS: &str = "6";
/// First port of the sinks of the bare loops.
const PORT: u16 = 20_000;
/// The load of the latency rows: small conferences, as many as fill the core to this share.
const BUSY: f64 = 0.7;
/// So much faster than a camera: more than a core forwards to 50.
const FULL: &str = "120";

/// Measures those whose names contain `only`. Says on stderr what it does.
pub fn measure(only: &str) -> Vec<Figure> {
    let wanted = |promise: &&Promise| promise.name.contains(only);
    let mut figures = Vec::new();
    match Bed::new().and_then(|bed| Ok((bed, programs()?))) {
        Ok((bed, programs)) => {
            let bench = Bench { bed: &bed, programs: &programs, only };
            bench.all(&mut figures);
        }
        Err(error) => figures.extend(PATH.iter().map(|promise| promise.missed(&error))),
    }
    // Every promise once, in the order of docs/specification.md.
    let find = |name: &str| figures.iter().find(|figure| figure.name == name).cloned();
    let wanted = PATH.iter().filter(wanted);
    wanted
        .map(|promise| find(promise.name).unwrap_or_else(|| promise.missed("nothing measures it")))
        .collect()
}

struct Bench<'a> {
    bed: &'a Bed,
    programs: &'a Path,
    only: &'a str,
}

/// One round of Strait beside the bare loops.
struct Round {
    strait: f64,
    runs: f64,
    sendto: f64,
    gcm: f64,
    run_length: f64,
    bytes: f64,
}

impl Bench<'_> {
    /// Whether one of these is wanted.
    fn wants(&self, promises: &[Promise]) -> bool {
        promises.iter().any(|promise| promise.name.contains(self.only))
    }

    fn all(&self, figures: &mut Vec<Figure>) {
        for (subscribers, scale, promises) in [
            (50, 8.0, &[OVER_SENDTO_50, OVER_FLOOR, RUN_LENGTH][..]),
            (100, 1.0, &[OVER_SENDTO_100]),
        ] {
            let [promise, ..] = promises else { continue };
            if !self.wants(promises) {
                continue;
            }
            eprintln!("==> one camera to {subscribers}, {ROUNDS} rounds beside bare loops");
            let rounds: io::Result<Vec<Round>> =
                (0..ROUNDS).map(|_| self.round(subscribers, scale)).collect();
            match rounds {
                Ok(rounds) => self.beside_loops(&rounds, *promise, subscribers, figures),
                Err(error) => figures.push(promise.missed(error)),
            }
        }
        if self.wants(&[LATENCY_P99, LATENCY_P999]) {
            eprintln!("==> latency at {:.0} % of the core", BUSY * 100.0);
            match self.latency() {
                Ok(measured) => figures.extend(measured),
                Err(error) => {
                    figures.extend([LATENCY_P99.missed(&error), LATENCY_P999.missed(&error)]);
                }
            }
        }
        if self.wants(&[OWNED, SECOND_WORKER]) {
            eprintln!("==> two workers");
            match self.two_workers() {
                Ok(measured) => figures.extend(measured),
                Err(error) => figures.extend([OWNED.missed(&error), SECOND_WORKER.missed(&error)]),
            }
        }
        if self.wants(&[DEFAULT_IO]) {
            eprintln!("==> both ways to speak UDP, on a full core");
            figures.push(self.both_ios().unwrap_or_else(|error| DEFAULT_IO.missed(error)));
        }
        if self.wants(&[OVER_PEER]) {
            match versus::measure(self.bed, self.programs, ROUNDS, false) {
                Ok(lines) => figures.push(over_peer(&lines)),
                Err(error) => figures.push(OVER_PEER.missed(error)),
            }
        }
        if self.wants(&[OVER_PLAIN_PEER, PACED_OVER_PLAIN_PEER]) {
            match plain::measure(self.bed, self.programs, ROUNDS, &plain::RATES, false) {
                Ok(lines) => {
                    figures.push(over_plain_peer(OVER_PLAIN_PEER, Shape::Frames, &lines));
                    figures.push(over_plain_peer(PACED_OVER_PLAIN_PEER, Shape::Paced, &lines));
                }
                Err(error) => figures
                    .extend([OVER_PLAIN_PEER.missed(&error), PACED_OVER_PLAIN_PEER.missed(&error)]),
            }
        }
    }

    fn beside_loops(
        &self,
        rounds: &[Round],
        promise: Promise,
        subscribers: usize,
        figures: &mut Vec<Figure>,
    ) {
        let of = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let (strait, sendto) = (of(|r| r.strait), of(|r| r.sendto));
        let ratio = of(|r| r.strait / r.sendto);
        figures.push(promise.measured(
            ratio.median,
            format!(
                "strait-relay's CPU time for each forwarded packet, encrypted for each subscriber \
                 (AES-128-GCM), 1 to {subscribers} at 720p: {strait} ns, over that of a bare loop \
                 of sendto without crypto at the same rate and size: {sendto} ns; ratio {ratio}"
            ),
        ));
        if subscribers != 50 {
            return;
        }
        let floor = of(|r| r.strait / (r.runs + r.gcm));
        let (runs, gcm, bytes) = (of(|r| r.runs), of(|r| r.gcm), of(|r| r.bytes));
        figures.push(OVER_FLOOR.measured(
            floor.median,
            format!(
                "{strait} ns over the floor: a bare loop that sends the same bytes ({:.0} a packet) \
                 in runs as long ({:.0}) {runs} ns, and AES-128-GCM by aws-lc-rs {gcm} ns; ratio \
                 {floor}",
                bytes.median,
                of(|r| r.run_length).median,
            ),
        ));
        let length = of(|r| r.run_length);
        figures.push(RUN_LENGTH.measured(
            length.median,
            format!("datagrams sent by one UDP_SEGMENT, mean over all runs to 50: {length}"),
        ));
    }

    fn round(&self, subscribers: usize, scale: f64) -> io::Result<Round> {
        let run = {
            let relay = Relay::start(self.bed, self.programs, 1, "")?;
            let (subscribers, scale) = (subscribers.to_string(), scale.to_string());
            relay.load(&[
                "--subscribers",
                &subscribers,
                "--rate-scale",
                &scale,
                "--duration",
                SECONDS,
                "--cipher",
                "aes128-gcm",
            ])?
        };
        good(&run.report)?;
        let received = number(&run.report, "packets_received");
        let bytes = number(&run.report, "bytes_received") / received;
        let rate = received / number(&run.report, "seconds");
        let run_length = metric(&run.metrics, "relay_run_length_sum", "")
            / metric(&run.metrics, "relay_run_length_count", "");
        let length = run_length.round().max(1.0);
        let each = rate / subscribers as f64;
        let runs = self.floor("runs", subscribers, length, bytes, each / length)?;
        let sendto = self.floor("sendto", subscribers, length, bytes, each / length)?;
        let gcm = self.gcm(bytes, subscribers, length)?;
        let strait = number(&run.report, "server/cpu_ns_per_packet/median");
        eprintln!(
            "    {rate:.0}/s: {strait:.0} ns; runs of {length} {:.0} ns + AES-GCM {gcm:.0} ns; sendto {:.0} ns",
            runs.ns_per_packet, sendto.ns_per_packet
        );
        Ok(Round {
            strait,
            runs: runs.ns_per_packet,
            sendto: sendto.ns_per_packet,
            gcm,
            run_length,
            bytes,
        })
    }

    fn floor(
        &self,
        way: &str,
        destinations: usize,
        run: f64,
        bytes: f64,
        bursts: f64,
    ) -> io::Result<Cost> {
        let program = self.programs.join("strait-compare");
        let (port, count) = (PORT.to_string(), destinations.to_string());
        let address = CLIENT.to_string();
        let mut sink = self.bed.command(Side::Client, &program);
        sink.args(["sink", "--address", &address, "--port", &port, "--count", &count]);
        let mut sink =
            sink.args(["--seconds", "30"]).stdout(std::process::Stdio::null()).spawn()?;
        sleep(Duration::from_millis(300));
        let mut floor = self.bed.command(Side::Server, &program);
        floor.args(["floor", "--way", way, "--to", &address, "--port", &port]);
        floor.args(["--destinations", &count, "--run", &format!("{run:.0}")]);
        floor.args(["--bytes", &format!("{bytes:.0}"), "--bursts", &format!("{bursts:.3}")]);
        let output = floor.args(["--seconds", "4"]).output();
        sink.kill()?;
        sink.wait()?;
        let output = output?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            io::Error::other(format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
        })
    }

    fn gcm(&self, bytes: f64, keys: usize, run: f64) -> io::Result<f64> {
        let program = self.programs.join("strait-compare");
        let mut gcm = self.bed.command(Side::Server, &program);
        gcm.args(["gcm", "--bytes", &format!("{bytes:.0}"), "--keys", &keys.to_string()]);
        let output = gcm.args(["--run", &format!("{run:.0}")]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(|error| io::Error::other(format!("gcm: {error}: {text}")))
    }

    /// Conferences of ten, with one camera each, at a rate that fills the core to [`BUSY`].
    fn latency(&self) -> io::Result<Vec<Figure>> {
        let relay = Relay::start(self.bed, self.programs, 1, "")?;
        let run = |scale: f64, seconds: &str| {
            let scale = format!("{scale:.2}");
            relay.load(&[
                "--publishers",
                "20",
                "--subscribers",
                "200",
                "--scopes",
                "20",
                "--cipher",
                "aes128-gcm",
                "--allow-loss",
                "1",
                "--rate-scale",
                &scale,
                "--duration",
                seconds,
            ])
        };
        let probe = run(4.0, "4")?;
        let scale = 4.0 * BUSY / number(&probe.report, "server/cores/median");
        let run = run(scale, "10")?;
        let cores = number(&run.report, "server/cores/median");
        let how = format!(
            "from the publisher's send to the subscriber's receive timestamp, 20 scopes of one \
             720p camera to 10, rate scaled by {scale:.1} to {:.0} % of the core \
             ({:.0} packets/s out, {:.3} % lost, generator's own lag p99 {:.0} µs); p50 {:.0} µs",
            100.0 * cores,
            number(&run.report, "packets_received") / number(&run.report, "seconds"),
            number(&run.report, "loss_percent"),
            number(&run.report, "generator/lag_p99_us"),
            number(&run.report, "latency/p50_us"),
        );
        Ok(vec![
            LATENCY_P99.measured(number(&run.report, "latency/p99_us"), how.clone()),
            LATENCY_P999.measured(number(&run.report, "latency/p99_9_us"), how),
        ])
    }

    /// recvmmsg and sendmmsg beside io_uring, both asked for more than a core can do: only then does the kernel count the
    /// CPU time of a ring in full.
    fn both_ios(&self) -> io::Result<Figure> {
        let (mut ratios, mut costs) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            let mut round = [0.0; 2];
            for ((io, cost), costs) in ["mmsg", "uring"].iter().zip(&mut round).zip(&mut costs) {
                let relay = Relay::start(self.bed, self.programs, 1, &format!("io = \"{io}\""))?;
                let load = ["--subscribers", "50", "--cipher", "aes128-gcm", "--allow-loss", "100"];
                let full = ["--rate-scale", FULL, "--duration", SECONDS];
                let run = relay.load(&[load.as_slice(), full.as_slice()].concat())?;
                *cost = number(&run.report, "server/cpu_ns_per_packet/median");
                least = least.min(number(&run.report, "server/cores/median"));
                costs.push(*cost);
            }
            eprintln!("    mmsg {:.0} ns, uring {:.0} ns", round[0], round[1]);
            ratios.push(round[0] / round[1]);
        }
        let [mmsg, uring] = costs.map(|costs| Spread::of(costs.into_iter()));
        let ratio = Spread::of(ratios.into_iter());
        Ok(DEFAULT_IO.measured(
            ratio.median,
            format!(
                "CPU time for each packet, one camera to 50, more than the core can do (it was busy \
                 to {:.0} % at least): mmsg, which auto is, {mmsg} ns; io_uring {uring} ns; ratio \
                 {ratio}",
                100.0 * least
            ),
        ))
    }

    /// Eight scopes on one worker and on two.
    fn two_workers(&self) -> io::Result<Vec<Figure>> {
        let mut ratios = Vec::new();
        let mut owned = Vec::new();
        for _ in 0..ROUNDS {
            let mut cost = Vec::new();
            for workers in [1, 2] {
                let relay = Relay::start(self.bed, self.programs, workers, "")?;
                let run = relay.load(&[
                    "--publishers",
                    "8",
                    "--subscribers",
                    "80",
                    "--scopes",
                    "8",
                    "--cipher",
                    "aes128-gcm",
                    "--rate-scale",
                    "4",
                    "--duration",
                    SECONDS,
                ])?;
                good(&run.report)?;
                cost.push(number(&run.report, "server/cpu_ns_per_packet/median"));
                if workers == 2 {
                    let handed_over = metric(&run.metrics, "relay_packets_handed_over_total", "");
                    let received = metric(&run.metrics, "relay_packets_received_total", "");
                    owned.push(100.0 * (1.0 - handed_over / received));
                }
            }
            if let [one, two] = cost.as_slice() {
                ratios.push(2.0 * one / two);
            }
        }
        let (ratio, owned) = (Spread::of(ratios.into_iter()), Spread::of(owned.into_iter()));
        Ok(vec![
            SECOND_WORKER.measured(
                ratio.median,
                format!(
                    "two workers' throughput over one's by CPU time for each packet (2 × one / \
                     two), because the load has the second core: {ratio}; 8 scopes of one camera \
                     to 10"
                ),
            ),
            OWNED.measured(
                owned.median,
                format!("datagrams read by the worker that owns their peer, two workers: {owned}"),
            ),
        ])
    }
}

/// The worst ratio to the best of the others, over the fan-outs.
fn over_peer(lines: &[Line]) -> Figure {
    let others = lines.iter().filter(|line| line.server != "strait");
    let Some(best) = others.min_by(|a, b| a.over_strait[0].total_cmp(&b.over_strait[0])) else {
        return OVER_PEER.missed(versus::absent().join("; "));
    };
    let strait = lines.iter().find(|l| l.server == "strait" && l.subscribers == best.subscribers);
    let [cost, least, most] = best.cpu_us_per_packet;
    OVER_PEER.measured(
        1.0 / best.over_strait[0],
        format!(
            "one 720p camera to {}: Strait {:.2} µs of the whole process for each packet, {} {cost:.2} \
             ({least:.2} to {most:.2}) µs, both {}; not driven: {}",
            best.subscribers,
            strait.map_or(f64::NAN, |line| line.cpu_us_per_packet[0]),
            best.server,
            best.cipher,
            versus::absent().join("; "),
        ),
    )
}

/// The ratio to the better of coturn and rtpengine, at the rate where it is worst.
fn over_plain_peer(promise: Promise, shape: Shape, lines: &[plain::Line]) -> Figure {
    let Some(worst) = plain::worst_over_best(lines, shape) else {
        return promise.missed(plain::absent().join("; "));
    };
    let of_shape = lines.iter().filter(|line| line.shape == shape);
    let costs: Vec<String> = of_shape
        .map(|line| {
            let (name, rate) = (line.server.name(), line.packets_per_second);
            let [cost, least, most] = line.cpu_us_per_packet;
            format!("{name} at {rate:.0}/s {cost:.2} ({least:.2} to {most:.2})")
        })
        .collect();
    let what = match shape {
        Shape::Frames => "frames of 720p video",
        Shape::Paced => "evenly paced packets of 1200 bytes, which leave nothing to gather",
    };
    let [ratio, low, high] = worst.strait_over_it;
    promise.measured(
        ratio,
        format!(
            "one to one as it came, {what}; ratio {ratio:.2} ({low:.2} to {high:.2}) over the \
             better of the others, at the rate where it is worst; µs of the whole process for \
             each packet: {}",
            costs.join(", "),
        ),
    )
}

/// Every packet arrived as it was sent, or nothing was measured.
fn good(report: &Value) -> io::Result<()> {
    let failures = report.get("failures").and_then(Value::as_array);
    match failures.map(Vec::as_slice) {
        Some([]) => Ok(()),
        Some(failures) => Err(io::Error::other(format!("the load failed: {failures:?}"))),
        None => Err(io::Error::other("the load says nothing of failures")),
    }
}

/// A median and what it lies between.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { least: at(0), median: at(values.len() / 2), most: at(last) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.median < 100.0 { 2 } else { 0 };
        let Self { least, median, most } = self;
        write!(f, "{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}
