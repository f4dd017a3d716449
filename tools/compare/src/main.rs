//! The bare loops, as processes of their own: `strait-figures` and `./dev compare` run them in the bench bed.
#![forbid(unsafe_code)]

use clap::Parser;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use strait_compare::floor::{self, Loop};
use strait_compare::janus::JanusApi;
use strait_compare::{Bed, strait, versus};
use strait_load::Plan;

/// Bare loops to hold a server against
#[derive(Parser)]
#[command(name = "strait-compare", version)]
enum Verb {
    /// Run the same load through Strait and each peer that is installed, and print ratios
    Run {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Rounds; medians are printed
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Let the kernel cut runs before they are received, as on a path without segmentation offload
        #[arg(long)]
        no_gro: bool,
    },
    /// Send, and print the CPU time for each packet as JSON
    Floor(Loop),
    /// Read and forget what comes
    Sink {
        /// Address to bind
        #[arg(long)]
        address: IpAddr,
        /// First port
        #[arg(long)]
        port: u16,
        /// Ports
        #[arg(long)]
        count: u16,
        /// Seconds
        #[arg(long)]
        seconds: f64,
    },
    /// Load the Janus of the bench bed, and print the load's report as JSON
    Janus {
        /// Subscribers of one camera
        #[arg(long)]
        subscribers: usize,
        /// Bring packets closer by this factor
        #[arg(long, default_value_t = 1.0)]
        rate_scale: f64,
        /// Seconds that are counted
        #[arg(long, default_value_t = 6)]
        duration: u64,
        /// Process of the server
        #[arg(long)]
        pid: u32,
        /// Let the kernel cut runs before they are received
        #[arg(long)]
        no_gro: bool,
    },
    /// Time AES-128-GCM over one packet, in nanoseconds
    Gcm {
        /// Bytes of a packet
        #[arg(long)]
        bytes: usize,
        /// Keys that take turns
        #[arg(long)]
        keys: usize,
        /// Packets of each turn
        #[arg(long)]
        run: usize,
    },
}

fn run(json: bool, rounds: usize, cut: bool) -> io::Result<String> {
    let bed = Bed::new()?;
    let lines = versus::measure(&bed, &strait::programs()?, rounds.max(1), cut)?;
    for why in versus::absent() {
        eprintln!("{why}");
    }
    if json { Ok(serde_json::to_string_pretty(&lines)?) } else { Ok(versus::table(&lines)) }
}

fn main() -> ExitCode {
    let result = match Verb::parse() {
        Verb::Run { json, rounds, no_gro } => run(json, rounds, no_gro),
        Verb::Floor(floor) => floor.run().and_then(|cost| Ok(serde_json::to_string(&cost)?)),
        Verb::Sink { address, port, count, seconds } => {
            floor::sink(address, port, count, seconds).map(|datagrams| datagrams.to_string())
        }
        Verb::Janus { subscribers, rate_scale, duration, pid, no_gro } => {
            let plan = Plan {
                subscribers,
                rate_scale,
                duration: Duration::from_secs(duration),
                server_pid: Some(pid),
                receive_runs: !no_gro,
                allow_loss_percent: 100.0,
                ..Plan::default()
            };
            let api = JanusApi::connect().map_err(io::Error::other);
            let report = api
                .and_then(|api| strait_load::run(&plan, Box::new(api)).map_err(io::Error::other));
            report.and_then(|report| Ok(serde_json::to_string(&report)?))
        }
        Verb::Gcm { bytes, keys, run } => Ok(floor::gcm(bytes, keys, run).to_string()),
    };
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
