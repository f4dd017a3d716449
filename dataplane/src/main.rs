//! The program: configuration, log, signals, exit codes (0 done, 1 error, 2 usage, 78 configuration).
#![forbid(unsafe_code)]

use clap::Parser;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use strait_proto::notify::Notify;
use strait_relay::config::{Config, ConfigError, default_toml};
use strait_relay::fault::Fault;
use strait_relay::{Relay, RelayError, raise_open_files};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

/// Forwards real-time media between peers, as a control plane tells it over a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "strait-relay", version = strait_proto::version!())]
struct Arguments {
    /// Configuration file; without one the defaults hold
    #[arg(long, env = "STRAIT_RELAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
    /// Print a commented configuration file with every default and end
    #[arg(long)]
    print_default_config: bool,
    /// Unix socket of the RPC (overrides `rpc_socket`)
    #[arg(long, env = "STRAIT_RELAY_RPC_SOCKET", value_name = "PATH")]
    rpc_socket: Option<PathBuf>,
    /// Address for media (overrides `listen`); twice for IPv4 and IPv6
    #[arg(long, env = "STRAIT_RELAY_LISTEN", value_name = "IP", value_delimiter = ',')]
    listen: Vec<IpAddr>,
    /// Port for media (overrides `port`)
    #[arg(long, env = "STRAIT_RELAY_PORT")]
    port: Option<u16>,
    /// Address to tell peers instead (overrides `announced`)
    #[arg(long, env = "STRAIT_RELAY_ANNOUNCED", value_name = "IP", value_delimiter = ',')]
    announced: Vec<IpAddr>,
    /// How many workers (overrides `workers`)
    #[arg(long, env = "STRAIT_RELAY_WORKERS")]
    workers: Option<usize>,
    /// Address and port of metrics and health, "" for none (overrides `metrics_listen`)
    #[arg(long, env = "STRAIT_RELAY_METRICS_LISTEN", value_name = "IP:PORT")]
    metrics_listen: Option<String>,
    /// What to log (overrides `log`)
    #[arg(long, env = "STRAIT_RELAY_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// What goes wrong upon SIGUSR1, to see what the process does then
    #[arg(long, hide = true)]
    fault_for_tests: Option<Fault>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_default_config {
        print!("{}", default_toml());
        return ExitCode::SUCCESS;
    }
    let check = arguments.check;
    let fault = arguments.fault_for_tests;
    let config = match configure(arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("strait-relay: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if check {
        println!("the configuration is good");
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_env_filter(config.log.as_str())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    // Calls and metrics need little: the cores are the workers'.
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let serve = |()| match runtime() {
        Ok(runtime) => runtime.block_on(serve(&config, fault)),
        Err(error) => Err(RelayError::Runtime(error)),
    };
    match raise_open_files().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", error.with_cause());
            ExitCode::FAILURE
        }
    }
}

fn configure(arguments: Arguments) -> Result<Config, ConfigError> {
    let mut config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    if let Some(path) = arguments.rpc_socket {
        config.rpc_socket = path;
    }
    if !arguments.listen.is_empty() {
        config.listen = arguments.listen;
    }
    if !arguments.announced.is_empty() {
        config.announced = arguments.announced;
    }
    config.port = arguments.port.unwrap_or(config.port);
    config.workers = arguments.workers.unwrap_or(config.workers);
    config.log = arguments.log.unwrap_or(config.log);
    match arguments.metrics_listen.as_deref() {
        None => {}
        Some("") => config.metrics_listen = None,
        Some(text) => {
            let address = text.parse::<SocketAddr>().map_err(|_| ConfigError::Value {
                key: "metrics_listen",
                problem: format!("`{text}` is no address and port, such as 127.0.0.1:9464"),
            })?;
            config.metrics_listen = Some(address);
        }
    }
    config.check()?;
    Ok(config)
}

async fn serve(config: &Config, fault: Option<Fault>) -> Result<(), RelayError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RelayError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RelayError::Runtime)?;
    let mut told_to_fail = match fault {
        Some(_) => Some(signal(SignalKind::user_defined1()).map_err(RelayError::Runtime)?),
        None => None,
    };
    let mut relay = Relay::start(config).await?;
    let notify = Notify::from_environment();
    let metrics = relay.metrics_address().map(|at| format!("; metrics at http://{at}/metrics"));
    tracing::info!(
        "serving: {}; RPC at {}{}",
        relay.summary(),
        config.rpc_socket.display(),
        metrics.unwrap_or_default(),
    );
    notify.say("READY=1");

    let patience = Duration::from_secs(config.drain_seconds.into());
    let mut draining = false;
    let mut watchdog = Notify::watchdog_interval().map(tokio::time::interval);
    let result = loop {
        tokio::select! {
            ended = relay.ended() => break ended,
            () = either(&mut terminate, &mut interrupt) => {
                if draining {
                    tracing::warn!("told to end again: {} peers are cut off", relay.peers());
                    break Ok(());
                }
                draining = true;
                let peers = relay.drain(patience);
                tracing::info!("draining: {peers} peers have {patience:?}; a second signal ends at once");
                notify.say("STOPPING=1");
            }
            Some(()) = recv(&mut told_to_fail) => {
                fault.into_iter().for_each(|fault| relay.inject(fault, 0));
            }
            () = tick(&mut watchdog) => {
                // The manager restarts a process whose worker stalls for longer than it allows.
                if relay.is_well() {
                    notify.say("WATCHDOG=1");
                }
            }
        }
    };
    notify.say("STOPPING=1");
    if matches!(result, Err(RelayError::Died(_))) {
        // Its threads may be in any state: leave them to the end of the process.
        return result;
    }
    relay.stop();
    tracing::info!("ended");
    result
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

async fn recv(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
