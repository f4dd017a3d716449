//! `strait dev`: relay and control on this machine, supervised, ready for a browser.

mod configuration;
mod supervise;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::fault::Fault;
use crate::ports::{self, Protocol};
use crate::state;
use supervise::{Child, Supervisor};

/// The token of a development setup. Everybody knows it.
const TOKEN_WELL_KNOWN: &str = "dev";
/// What strait-control takes at least (`api.tokens`).
const OPERATOR_TOKEN_LENGTH: usize = 32;
/// How long both processes may take until they answer.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often the setup is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(100);
/// How long one question may take.
const READY_ANSWER: Duration = Duration::from_secs(1);

/// What can be changed.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address that HTTPS and media listen on, and that peers are told; one IPv4 address, one IPv6
    /// address, or both by giving it twice [default: 127.0.0.1 and ::1]
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Port of the page, of WHIP, WHEP and the WebSocket over HTTPS (TCP)
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// Port of the same over plain HTTP (TCP), for clients on this machine only
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Port of media (UDP, and TCP for networks without UDP); on TCP it may be the HTTPS port
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    media_port: u16,
    /// Port of links of native clients over QUIC (UDP), beside those over TLS [default: none]
    #[arg(long, value_name = "PORT")]
    quic_port: Option<u16>,
    /// Port of the relay's metrics and health on 127.0.0.1 (TCP); 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 9464)]
    metrics_port: u16,
    /// Token that opens every scope
    #[arg(long, value_name = "TOKEN", default_value = TOKEN_WELL_KNOWN, env = "STRAIT_TOKEN")]
    token: String,
    /// Token of operators, of 32 characters at least: with it the dashboard shows everything and
    /// changes keys and nodes [default: none]
    #[arg(long, value_name = "TOKEN", env = "STRAIT_OPERATOR_TOKEN")]
    operator_token: Option<String>,
    /// Scope that the printed addresses name
    #[arg(long, value_name = "NAME", default_value = "lobby")]
    scope: String,
    /// Name of the WebSocket subprotocol
    #[arg(long, value_name = "NAME", default_value = "strait.jsonrtc.v1")]
    websocket_subprotocol: String,
    /// Media workers, one per core [default: all cores]
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// Requests and messages of a native client each second, 0 for no limit [default: that of strait-control]
    #[arg(long, value_name = "N")]
    messages_per_second: Option<u32>,
    /// Media goes by the relay between two as well, and neither is told the other's address
    #[arg(long)]
    relayed: bool,
    /// Folder for certificate, store, sockets and configurations [default: .strait/dev in a source
    /// tree, else $XDG_STATE_HOME/strait/dev]
    #[arg(long, value_name = "FOLDER", env = "STRAIT_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, or per module
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
    /// Folder of the programs strait-relay and strait-control [default: that of this program]
    #[arg(long, value_name = "FOLDER", env = "STRAIT_BIN_DIR")]
    bin_dir: Option<PathBuf>,
}

impl Options {
    /// The addresses to listen on: those given, or loopback as far as this host has it.
    fn listen(&self) -> Vec<IpAddr> {
        if !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        let mut loopback = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        if ports::ipv6_works() {
            loopback.push(IpAddr::V6(Ipv6Addr::LOCALHOST));
        }
        loopback
    }

    /// Where plain HTTP listens: never beyond this machine.
    fn http_listen(&self) -> Vec<SocketAddr> {
        let mut loopback = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, self.http_port))];
        if ports::ipv6_works() {
            loopback.push(SocketAddr::from((Ipv6Addr::LOCALHOST, self.http_port)));
        }
        loopback
    }

    fn https_listen(&self) -> Vec<SocketAddr> {
        self.listen().into_iter().map(|ip| SocketAddr::new(ip, self.https_port)).collect()
    }

    fn quic_listen(&self) -> Vec<SocketAddr> {
        let port = self.quic_port.into_iter();
        port.flat_map(|port| self.listen().into_iter().map(move |ip| (ip, port).into())).collect()
    }

    /// Whether HTTPS and ICE-TCP want the same TCP port.
    fn tcp_is_shared(&self) -> bool {
        self.https_port == self.media_port
    }

    /// What cannot be a good idea.
    fn check(&self) -> Result<(), Fault> {
        let beyond: Vec<_> = self.listen().into_iter().filter(|ip| !ip.is_loopback()).collect();
        if !beyond.is_empty() && self.token == TOKEN_WELL_KNOWN {
            return Err(Fault::config(format!(
                "{beyond:?} can be reached by others, and the token `{TOKEN_WELL_KNOWN}` is known \
                 to all; remedy: choose one with --token"
            )));
        }
        if self.operator_token.as_ref().is_some_and(|token| token.len() < OPERATOR_TOKEN_LENGTH) {
            return Err(Fault::config(format!(
                "--operator-token is shorter than {OPERATOR_TOKEN_LENGTH} characters and could be \
                 guessed; remedy: `openssl rand -hex 32` makes one"
            )));
        }
        if let Some(ip) = self.listen().into_iter().find(IpAddr::is_unspecified) {
            return Err(Fault::config(format!(
                "peers cannot be told to send to {ip}; remedy: give the host's own addresses with \
                 --address, one by one"
            )));
        }
        let ipv6 = self.addresses.iter().filter(|ip| ip.is_ipv6()).count();
        if ipv6 > 1 || self.addresses.len() - ipv6 > 1 {
            return Err(Fault::config(
                "--address names two addresses of one family; give at most one of IPv4, one of IPv6",
            ));
        }
        if self.http_port == self.https_port {
            return Err(Fault::config("--http-port and --https-port are the same; choose two"));
        }
        if self.quic_port == Some(self.media_port) {
            return Err(Fault::config(
                "--quic-port and --media-port are the same, both of UDP; choose two",
            ));
        }
        Ok(())
    }

    /// Every port that will be bound, with the option that changes it.
    fn ports(&self) -> Vec<(Protocol, SocketAddr, &'static str)> {
        let mut wanted = Vec::new();
        let media = |ip| SocketAddr::new(ip, self.media_port);
        for address in self.https_listen() {
            wanted.push((Protocol::Tcp, address, "--https-port"));
            wanted.push((Protocol::Udp, media(address.ip()), "--media-port"));
            if !self.tcp_is_shared() {
                wanted.push((Protocol::Tcp, media(address.ip()), "--media-port"));
            }
        }
        wanted.extend(self.http_listen().into_iter().map(|a| (Protocol::Tcp, a, "--http-port")));
        wanted.extend(self.quic_listen().into_iter().map(|a| (Protocol::Udp, a, "--quic-port")));
        if self.metrics_port != 0 {
            let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, self.metrics_port));
            wanted.push((Protocol::Tcp, metrics, "--metrics-port"));
        }
        wanted
    }
}

/// Runs until it is told to end, or cannot go on.
pub fn run(options: Options) -> Result<ExitCode, Fault> {
    options.check()?;
    let programs = Programs::find(options.bin_dir.as_deref())?;
    let folder = match &options.state_dir {
        Some(folder) => state::make(folder)?,
        None => state::make(&state::default_folder())?,
    };
    let _held = state::hold(&folder)?;
    let taken: Vec<String> = options
        .ports()
        .into_iter()
        .filter_map(|(protocol, address, option)| {
            let taken = ports::probe(protocol, address).err()?;
            Some(taken.explain(protocol, address, option))
        })
        .collect();
    if !taken.is_empty() {
        return Err(Fault::new(taken.join("\n       ")));
    }
    let files = configuration::write(&options, &folder)?;
    // One thread: the children ask to die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|e| Fault::new(format!("cannot start the runtime: {e}")))?
        .block_on(supervised(&options, &programs, &files))
}

/// The two programs.
pub struct Programs {
    /// strait-relay.
    pub relay: PathBuf,
    /// strait-control.
    pub control: PathBuf,
}

impl Programs {
    /// Those in the folder, by default that of this program.
    pub fn find(folder: Option<&Path>) -> Result<Self, Fault> {
        let folder = match folder {
            Some(folder) => folder.to_path_buf(),
            None => std::env::current_exe()
                .ok()
                .and_then(|own| own.parent().map(Path::to_path_buf))
                .ok_or_else(|| Fault::new("cannot tell where this program is; give --bin-dir"))?,
        };
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Fault::new(format!(
                "{} is not there; remedy: `./dev run` builds it, or name its folder with --bin-dir",
                path.display()
            )))
        };
        Ok(Self { relay: program("strait-relay")?, control: program("strait-control")? })
    }
}

async fn supervised(
    options: &Options,
    programs: &Programs,
    files: &configuration::Files,
) -> Result<ExitCode, Fault> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut supervisor = Supervisor::start(vec![
        Child::new("relay", &programs.relay, &files.relay),
        Child::new("control", &programs.control, &files.control),
    ])?;
    let started = Instant::now();
    let (mut announced, mut late) = (false, false);
    let outcome = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            failed = supervisor.watch() => break Err(failed),
            () = sleep(READY_POLL), if !announced => {
                if is_ready(options.http_listen()).await && supervisor.all_run() {
                    announced = true;
                    print!("{}", welcome(options, files, started.elapsed()));
                } else if !late && started.elapsed() > READY_WITHIN {
                    late = true;
                    eprintln!(
                        "dev     | not ready after {} s; the lines above say why, --log info says \
                         more",
                        READY_WITHIN.as_secs()
                    );
                }
            }
        }
    };
    eprintln!("dev     | ending relay and control");
    supervisor.end().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Fault> {
    signal(kind).map_err(|e| Fault::new(format!("cannot listen for signals: {e}")))
}

/// Whether control says that it and the relay behind it are ready.
async fn is_ready(addresses: Vec<SocketAddr>) -> bool {
    let Some(address) = addresses.first() else { return false };
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        std::io::Result::Ok(status)
    };
    matches!(timeout(READY_ANSWER, ask).await, Ok(Ok(status)) if status.ends_with(b" 200"))
}

/// What a person reads when it runs: where to go, and what to do next.
fn welcome(options: &Options, files: &configuration::Files, took: Duration) -> String {
    let host = |ip: &IpAddr| match ip {
        ip if ip.is_loopback() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let secure = options.listen().first().map(host).unwrap_or_default();
    let (http, https) = (options.http_port, options.https_port);
    let (scope, token) = (&options.scope, &options.token);
    // Who reads this started the process with that token.
    let operator =
        options.operator_token.as_ref().map_or(token.as_str(), |_| "that of --operator-token");
    let query = if scope == "lobby" { String::new() } else { format!("?scope={scope}") };
    let strait = state::this_program();
    let further = ["doctor", "top", "dev --help"].map(|verb| format!("{strait} {verb}"));
    let [doctor, top, help] = &further;
    let width = further.iter().map(String::len).max().unwrap_or_default() + 2;
    let quic = |port| format!("  QUIC      UDP {port}, for native clients\n");
    let quic = options.quic_port.map(quic).unwrap_or_default();
    format!(
        "
  Strait runs (ready after {:.1} s).

  Open      http://localhost:{http}/{query}
            https://{secure}:{https}/{query}   (self-signed: the browser asks once)
  then      press Join, and open it again in a second tab.

  Publish   WHIP   http://localhost:{http}/whip/{scope}   bearer token: {token}
  Watch     WHEP   http://localhost:{http}/whep/{scope}   bearer token: {token}
  Dashboard http://localhost:{http}/dashboard/   token: {operator}
  Media     UDP and TCP {}
{quic}  Relay     RPC {}
  State     {}

  Next      {doctor:width$}is this host fit?
            {top:width$}what does it do now?
            {help:width$}other ports, addresses, tokens
  Ctrl-C ends both processes.

",
        took.as_secs_f32(),
        options.media_port,
        files.socket.display(),
        files.folder.display(),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    pub(super) fn options(arguments: &[&str]) -> Options {
        Command::parse_from([&["strait"], arguments].concat()).options
    }

    #[test]
    fn the_default_stays_on_this_machine() {
        let options = options(&[]);
        options.check().expect("the default is fine");
        assert!(options.ports().iter().all(|(_, address, _)| address.ip().is_loopback()));
        assert!(options.tcp_is_shared());
    }

    #[test]
    fn the_known_token_is_refused_beyond_this_machine() {
        let known = options(&["--address", "192.0.2.7"]).check().expect_err("known to all");
        assert!(known.message.contains("--token"), "{}", known.message);
        options(&["--address", "192.0.2.7", "--token", "another"]).check().expect("own token");
    }

    #[test]
    fn an_operator_token_is_long() {
        let short = options(&["--operator-token", "short"]).check().expect_err("to be guessed");
        assert!(short.message.contains("openssl rand"), "{}", short.message);
        options(&["--operator-token", &"x".repeat(32)]).check().expect("long enough");
    }

    #[test]
    fn an_unspecified_address_cannot_be_announced() {
        let any = options(&["--address", "0.0.0.0", "--token", "another"]).check();
        assert!(any.expect_err("nobody can send there").message.contains("--address"));
    }

    #[test]
    fn one_address_of_each_family() {
        options(&["--address", "127.0.0.1", "--address", "::1"]).check().expect("both families");
        assert!(options(&["--address", "127.0.0.1", "--address", "127.0.0.2"]).check().is_err());
    }

    #[test]
    fn two_tcp_ports_when_they_differ() {
        let tcp = |options: Options| {
            let ports = options.ports().into_iter();
            ports.filter(|(protocol, ..)| *protocol == Protocol::Tcp).count()
        };
        let apart = options(&["--media-port", "5000", "--address", "127.0.0.1"]);
        let shared = options(&["--address", "127.0.0.1"]);
        assert_eq!(tcp(apart), tcp(shared) + 1);
    }

    #[test]
    fn http_and_https_need_two_ports() {
        assert!(options(&["--http-port", "8443"]).check().is_err());
    }
}
