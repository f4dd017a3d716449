//! `strait-control`: reads the configuration and runs the server.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use strait_control::config::{Config, default_toml};
use strait_control::server::Server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a configuration that is wrong (sysexits.h EX_CONFIG).
const EXIT_CONFIG: u8 = 78;

/// The Strait control plane: page, WHIP, WHEP and WebSocket signalling for one relay.
#[derive(Parser)]
#[command(version = strait_proto::version!())]
struct Arguments {
    /// Configuration file (TOML). Without one, the defaults.
    #[arg(long, short, env = "STRAIT_CONTROL_CONFIG")]
    config: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
    /// Print the default configuration, commented, and end.
    #[arg(long)]
    print_default_config: bool,
    /// Overrides relay.rpc_socket.
    #[arg(long)]
    rpc_socket: Option<PathBuf>,
    /// Overrides relay.ice_tcp.
    #[arg(long)]
    relay_ice_tcp: Option<SocketAddr>,
    /// Overrides http.https_listen; may be given several times.
    #[arg(long)]
    https_listen: Vec<SocketAddr>,
    /// Overrides http.http_listen; may be given several times.
    #[arg(long)]
    http_listen: Vec<SocketAddr>,
    /// Overrides link.quic_listen; may be given several times.
    #[arg(long)]
    quic_listen: Vec<SocketAddr>,
    /// Overrides http.state_dir, and puts the store there unless the file says otherwise.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Adds to auth.dev_tokens; may be given several times.
    #[arg(long)]
    dev_token: Vec<String>,
}

fn main() -> ExitCode {
    // Huge pages would cost a server of small things 2 MiB for each that it touches; where the kernel
    // knows no such switch they cost just that.
    let _as_it_was = rustix::thread::disable_transparent_huge_pages(true);
    let arguments = Arguments::parse();
    if arguments.print_default_config {
        print!("{}", default_toml());
        return ExitCode::SUCCESS;
    }
    let config = match configure(&arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("strait-control: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if arguments.check {
        println!("the configuration is good");
        return ExitCode::SUCCESS;
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strait-control: {error}");
            ExitCode::FAILURE
        }
    }
}

fn configure(arguments: &Arguments) -> Result<Config, Box<dyn std::error::Error>> {
    let mut config = match &arguments.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(socket) = &arguments.rpc_socket {
        config.relay.rpc_socket = socket.clone();
    }
    if arguments.relay_ice_tcp.is_some() {
        config.relay.ice_tcp = arguments.relay_ice_tcp;
    }
    if !arguments.https_listen.is_empty() {
        config.http.https_listen = arguments.https_listen.clone();
    }
    if !arguments.http_listen.is_empty() {
        config.http.http_listen = arguments.http_listen.clone();
    }
    if !arguments.quic_listen.is_empty() {
        config.link.quic_listen = arguments.quic_listen.clone();
    }
    if let Some(state_dir) = &arguments.state_dir {
        if config.store == Config::default().store {
            config.store.url = format!("sqlite:{}", state_dir.join("control.db").display()).into();
        }
        config.http.state_dir = state_dir.clone();
    }
    config.auth.dev_tokens.extend(arguments.dev_token.iter().map(|token| token.as_str().into()));
    config.check()?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&config.log.filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(config)
}

fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { Ok(Server::start(config).await?.run().await?) })
}
