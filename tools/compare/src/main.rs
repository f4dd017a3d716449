//! The bare loops, as processes of their own: `strait-figures` and `./dev compare` run them in the bench bed.
#![forbid(unsafe_code)]

use clap::Parser;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use strait_compare::bare::{self, BareApi};
use strait_compare::floor::{self, Loop};
use strait_compare::janus::JanusApi;
use strait_compare::pairs::{FIRST_PORT, PROFILE};
use strait_compare::rtpengine::RtpengineApi;
use strait_compare::turn::TurnApi;
use strait_compare::{Bed, plain, strait, versus};
use strait_load::signalling::SecurityKind;
use strait_load::{Plan, Report, Shape, Signalling};

/// What is measured, and how
#[derive(clap::Args)]
struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Rounds; medians are printed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Let the kernel cut runs before they are received, as on a path without segmentation offload
    #[arg(long)]
    no_gro: bool,
    /// Let server and load run ahead of everything else on their cores, on a machine that is not quiet
    #[arg(long)]
    ahead: bool,
    /// Only one kind of work
    #[arg(long, value_enum)]
    work: Option<Work>,
    /// Packets per second from one to one; may be given several times [default: 5000, 10000, 20000]
    #[arg(long = "rate", value_name = "PACKETS")]
    rates: Vec<u32>,
}

/// Bare loops to hold a server against
#[derive(Parser)]
#[command(name = "strait-compare", version)]
enum Verb {
    /// Run the same load through Strait and each peer that is installed, and print ratios
    Run(Options),
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
    /// Receive and send, packet by packet, until killed
    Bare {
        /// Senders, each with one receiver
        #[arg(long)]
        pairs: u16,
    },
    /// Load the bare loop, coturn or rtpengine of the bench bed, and print the load's report as JSON
    Pairs {
        /// Which of them
        #[arg(long, value_enum)]
        server: plain::Server,
        /// Senders, each with one receiver
        #[arg(long)]
        pairs: u16,
        /// What each sends, as `strait load` has it
        #[arg(long)]
        shape: Shape,
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

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// One camera to many, encrypted for each: beside conference servers
    FanOut,
    /// One to one as it came: beside coturn and rtpengine
    Plain,
}

fn run(options: &Options) -> io::Result<String> {
    let bed = Bed::new()?.ahead(options.ahead);
    let (programs, rounds, cut) = (strait::programs()?, options.rounds.max(1), options.no_gro);
    let is_wanted = |work| options.work.is_none_or(|only| only == work);
    let (mut fan_out, mut one_to_one) = (Vec::new(), Vec::new());
    let mut absent: Vec<String> = Vec::new();
    if is_wanted(Work::FanOut) {
        fan_out = versus::measure(&bed, &programs, rounds, cut)?;
        absent.extend(versus::absent());
    }
    if is_wanted(Work::Plain) {
        let rates = match options.rates.as_slice() {
            [] => plain::RATES.as_slice(),
            rates => rates,
        };
        one_to_one = plain::measure(&bed, &programs, rounds, rates, cut)?;
        absent.extend(plain::absent().into_iter().map(str::to_owned));
    }
    for why in &absent {
        eprintln!("{why}");
    }
    if options.json {
        let all = serde_json::json!({"fan_out": fan_out, "plain": one_to_one, "absent": absent});
        return Ok(serde_json::to_string_pretty(&all)?);
    }
    let mut tables = Vec::new();
    if is_wanted(Work::FanOut) {
        tables.push(versus::table(&fan_out));
    }
    if is_wanted(Work::Plain) {
        tables.push(plain::table(&one_to_one));
    }
    Ok(tables.join("\n"))
}

/// The load of pairs against a server that is no Strait.
fn pairs(server: plain::Server, plan: &Plan) -> Result<Report, Box<dyn std::error::Error>> {
    let count = u16::try_from(plan.publishers)?;
    let api: Box<dyn Signalling> = match server {
        plain::Server::Bare => Box::new(BareApi::new(count)?),
        plain::Server::Coturn => Box::new(TurnApi::new(count)?),
        plain::Server::Rtpengine => Box::new(RtpengineApi::new(count)?),
        plain::Server::Strait => return Err("strait load is for that".into()),
    };
    Ok(strait_load::run(plan, api)?)
}

fn main() -> ExitCode {
    let result = match Verb::parse() {
        Verb::Run(options) => run(&options),
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
        Verb::Bare { pairs } => bare::relay(pairs).map(|()| String::new()),
        Verb::Pairs { server, pairs: count, shape, duration, pid, no_gro } => {
            let plan = Plan {
                publishers: count.into(),
                subscribers: count.into(),
                scopes: count.into(),
                shape,
                security: SecurityKind::SessionKey,
                profile: Some(PROFILE),
                first_port: Some(FIRST_PORT),
                duration: Duration::from_secs(duration),
                server_pid: Some(pid),
                receive_runs: !no_gro,
                allow_loss_percent: 100.0,
                ..Plan::default()
            };
            let report = pairs(server, &plan).map_err(|e| io::Error::other(e.to_string()));
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
