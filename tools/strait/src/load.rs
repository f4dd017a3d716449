//! `strait load`: publishers and subscribers against a relay, every packet checked.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use strait_load::signalling::SecurityKind;
use strait_load::{
    Impaired, Impairment, LoadError, Order, Plan, Profile, Shape, Shapers, Signalling, StraitRpc,
};

use crate::fault::Fault;
use crate::state;

mod native;

/// Exit code of a process that Ctrl-C ended, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// The load.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's RPC socket: `unix:PATH`, or the path alone [default: that of `strait dev`, else
    /// /run/strait/relay.sock]
    #[arg(long, value_name = "SOCKET", value_parser = socket)]
    relay: Option<PathBuf>,
    /// State folder of `strait dev`, whose relay to load where `--relay` names none
    #[arg(long, value_name = "FOLDER", env = "STRAIT_STATE_DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    native: native::Options,
    /// Peers that send one stream each, in all
    #[arg(long, value_name = "N", default_value_t = 1)]
    publishers: usize,
    /// Peers that receive every stream of their scope, in all
    #[arg(long, value_name = "N", default_value_t = 50)]
    subscribers: usize,
    /// Scopes that peers are dealt to in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    scopes: usize,
    /// What each publisher sends: video-720p, simulcast, opus, constant:PPSxBYTES,
    /// constant-burst:N:PPSxBYTES
    #[arg(long, value_name = "SHAPE", default_value = "video-720p")]
    shape: Shape,
    /// Seconds between key frames; those asked for come besides [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    key_interval: Option<Duration>,
    /// Bring packets closer by this factor, at the same sizes
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    rate_scale: f64,
    /// Seconds that are counted (at most 3600)
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// Seconds that media flows before
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    warmup: Duration,
    /// Seconds of one window, over which medians are taken
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    window: Duration,
    /// How media is protected
    #[arg(long, value_enum, default_value_t = Transport::Dtls)]
    transport: Transport,
    /// The only SRTP profile that is offered, and that of session keys
    #[arg(long, value_enum, default_value_t = Cipher::Aes128Gcm)]
    cipher: Cipher,
    /// Let streams go out byte for byte as they came (with session-key or plain)
    #[arg(long)]
    as_sent: bool,
    /// Ask for lost packets again (NACK, RTX)
    #[arg(long)]
    nack: bool,
    /// Loss in percent that is no failure
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    allow_loss: f64,
    /// Milliseconds of latency beyond which a packet counts as late, which is a failure
    #[arg(long, value_name = "MS")]
    late: Option<u64>,
    /// Address to send from; several are taken in turn [default: the system's choice, IPv4]
    #[arg(long = "local-address", value_name = "IP")]
    local_addresses: Vec<IpAddr>,
    /// Put a bad line between each peer and the relay, for instance "down rate=1M delay=20ms loss=1%"; may be repeated,
    /// with a time in front for what comes later (docs/lab.md)
    #[arg(long, value_name = "WORDS")]
    impair: Vec<Order>,
    /// Core to run on
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Process of the server, to count its CPU time
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// What frame sizes are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Let the kernel cut runs before they are received, as on a path without segmentation offload
    #[arg(long)]
    no_gro: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write a page with plots to this file as well
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// ICE, DTLS, SRTP, as a browser does
    Dtls,
    /// ICE, then SRTP with a key of the scope
    SessionKey,
    /// RTP as it is
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cipher {
    /// AEAD_AES_128_GCM
    Aes128Gcm,
    /// AEAD_AES_256_GCM
    Aes256Gcm,
    /// AES_CM_128_HMAC_SHA1_80
    Aes128Cm,
    /// All that the DTLS library has; the server chooses
    Any,
}

impl Options {
    fn plan(&self) -> Plan {
        let mut shape = self.shape;
        if let (
            Shape::Video { key_interval, .. } | Shape::Simulcast { key_interval },
            Some(wanted),
        ) = (&mut shape, self.key_interval)
        {
            *key_interval = wanted;
        }
        Plan {
            publishers: self.publishers,
            subscribers: self.subscribers,
            scopes: self.scopes,
            shape,
            rate_scale: self.rate_scale,
            warmup: self.warmup,
            duration: self.duration,
            window: self.window,
            security: match self.transport {
                Transport::Dtls => SecurityKind::Dtls,
                Transport::SessionKey => SecurityKind::SessionKey,
                Transport::Plain => SecurityKind::Plain,
            },
            profile: match self.cipher {
                Cipher::Aes128Gcm => Some(Profile::AeadAes128Gcm),
                Cipher::Aes256Gcm => Some(Profile::AeadAes256Gcm),
                Cipher::Aes128Cm => Some(Profile::AesCm128HmacSha1_80),
                Cipher::Any => None,
            },
            nack: self.nack,
            allow_loss_percent: self.allow_loss,
            late: self.late.map(Duration::from_millis),
            local_addresses: self.local_addresses.clone(),
            first_port: None,
            cpu: self.cpu,
            server_pid: self.pid,
            seed: self.seed,
            receive_runs: !self.no_gro,
            progress: true,
            stop: Arc::default(),
        }
    }
}

/// Runs it, and prints what it found. The exit code is 1 when something was wrong with a packet.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    let plan = options.plan();
    if let Some(native) = options.native.plan(&plan, options.as_sent)? {
        let foreign = [
            (!options.impair.is_empty(), "--impair"),
            (options.html.is_some(), "--html"),
            (options.pid.is_some(), "--pid"),
        ];
        if let Some((_, name)) = foreign.into_iter().find(|(given, _)| *given) {
            return Err(Fault::config(format!("{name} is not for native peers")));
        }
        stop_at_interrupt(&plan.stop);
        return native::run(&native, options.json);
    }
    plan.check().map_err(Fault::config)?;
    if options.as_sent && plan.security == SecurityKind::Dtls {
        return Err(Fault::config(
            "--as-sent needs peers whose bytes are the same: --transport session-key or plain",
        ));
    }
    let socket = match &options.relay {
        Some(socket) => socket.clone(),
        None => state::relay(options.state_dir.as_deref())?,
    };
    let rpc = StraitRpc::connect(&socket).map_err(|e| Fault::new(e.to_string()))?;
    let mut signalling: Box<dyn Signalling> = Box::new(rpc.as_sent(options.as_sent));
    let mut shapers = Shapers::default();
    if !options.impair.is_empty() {
        if plan.security == SecurityKind::Plain {
            return Err(Fault::config("--impair needs peers with ICE: not --transport plain"));
        }
        let orders = options.impair.clone();
        let impaired =
            Impaired::new(signalling, Impairment { orders, seed: plan.seed, shared: false });
        shapers = impaired.shapers();
        signalling = Box::new(impaired);
    }
    stop_at_interrupt(&plan.stop);
    let report = strait_load::run(&plan, signalling).map_err(fault)?;
    if let Some(file) = &options.html {
        std::fs::write(file, report.page())
            .map_err(|e| Fault::new(format!("{}: {e}", file.display())))?;
    }
    if options.json {
        print_json(&report)?;
    } else {
        print!("{}", report.table());
        for line in shapers.tell() {
            println!("line       {}", line.to_json());
        }
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn fault(error: LoadError) -> Fault {
    match error {
        LoadError::Plan(why) => Fault::config(why),
        error => Fault::new(error.to_string()),
    }
}

fn print_json(report: &impl serde::Serialize) -> Result<(), Fault> {
    let text = serde_json::to_string_pretty(report);
    println!("{}", text.map_err(|e| Fault::new(format!("cannot write JSON: {e}")))?);
    Ok(())
}

/// The first Ctrl-C ends the count and reports; the second ends the process.
fn stop_at_interrupt(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    let wait = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        // Without a handler Ctrl-C ends the process, which is what happens everywhere.
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.store(true, Ordering::Relaxed);
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        });
    };
    let _ = std::thread::Builder::new().name("interrupt".into()).spawn(wait);
}

pub(crate) fn socket(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.is_empty() {
        return Err("name a socket: unix:PATH".into());
    }
    Ok(Path::new(path).to_owned())
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text}: a number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|e| format!("{text}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_line_becomes_a_plan() {
        let line = "load --relay unix:/tmp/x --publishers 3 --subscribers 7 --scopes 2 --shape \
                    simulcast --key-interval 4 --duration 1.5 --warmup 0 --allow-loss 0.1 --late 50 \
                    --local-address 10.0.0.1 --local-address 10.0.0.2 --cpu 1 --pid 7";
        let options = Line::parse_from(line.split_whitespace()).options;
        assert_eq!(options.relay.as_deref(), Some(Path::new("/tmp/x")));
        let plan = options.plan();
        plan.check().expect("a good plan");
        assert_eq!((plan.publishers, plan.subscribers, plan.scopes), (3, 7, 2));
        assert_eq!(plan.shape, Shape::Simulcast { key_interval: Duration::from_secs(4) });
        assert_eq!((plan.duration, plan.warmup), (Duration::from_millis(1500), Duration::ZERO));
        assert_eq!((plan.local_addresses.len(), plan.cpu, plan.server_pid), (2, Some(1), Some(7)));
        assert_eq!(plan.late, Some(Duration::from_millis(50)));
        for wrong in ["load --shape film", "load --duration long", "load --relay unix:"] {
            assert!(Line::try_parse_from(wrong.split_whitespace()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_plan_ends_before_anything_is_done() {
        let options = Line::parse_from(["load", "--publishers", "0"]).options;
        assert_eq!(run(&options).expect_err("wrong").code, crate::fault::EXIT_CONFIG);
        let options = Line::parse_from(["load", "--relay", "/nowhere/relay.sock"]).options;
        assert!(run(&options).expect_err("absent").message.contains("/nowhere/relay.sock"));
        let options = Line::parse_from(["load", "--state-dir", "/nowhere/dev"]).options;
        let absent = run(&options).expect_err("absent");
        assert!(absent.message.contains("/nowhere/dev/relay.sock"), "{}", absent.message);
    }
}
