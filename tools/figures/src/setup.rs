//! The real processes: `strait dev` on free ports, with a state folder that is gone afterwards.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::peer::Server;
use crate::process::Process;

/// The token of the setup.
pub const TOKEN: &str = "figures";
/// An address of this host that nobody listens at.
const NOWHERE: &str = "127.0.0.2";
/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A running setup.
pub struct Setup {
    /// Where peers join.
    pub server: Server,
    /// Where HTTPS and the link are.
    pub https: SocketAddr,
    /// The port of links over QUIC, where it was asked for.
    pub quic: Option<u16>,
    /// strait-relay.
    pub relay: Process,
    /// strait-control.
    pub control: Process,
    supervisor: Child,
    state: TempDir,
}

impl Setup {
    /// Starts it, and returns when it is ready. One worker: the figures are per core.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(None).await
    }

    /// With links over QUIC, to clients whose datagrams reach that port alone: what they are told of
    /// the relay's ports is an address where nobody is.
    pub async fn start_with_quic_alone() -> io::Result<Self> {
        Self::start_with(Some(free_ports()?.https)).await
    }

    async fn start_with(quic: Option<u16>) -> io::Result<Self> {
        let state = tempfile::tempdir()?;
        let ports = free_ports()?;
        let quic_option = quic.map(|port| ["--quic-port".to_owned(), port.to_string()]);
        let program = beside_us("strait")?;
        let option = |name: &str, port: u16| [format!("--{name}-port"), port.to_string()];
        let mut supervisor = Command::new(&program)
            .args(["dev", "--address", "127.0.0.1", "--token", TOKEN, "--log", "error"])
            // One sender is to bring a core to its limits: what holds it back is measured by nobody.
            .args(["--workers", "1", "--messages-per-second", "0"])
            .args(option("https", ports.https).iter().chain(&option("http", ports.http)))
            .args(option("media", ports.https).iter().chain(&option("metrics", 0)))
            .args(quic_option.iter().flatten())
            .envs(quic.map(|_| ("STRAIT_RELAY_ANNOUNCED", NOWHERE)))
            .arg("--state-dir")
            .arg(state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", program.display())))?;
        let output = supervisor.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let mut lines = BufReader::new(output).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("Strait runs") {
                    return Ok(());
                }
            }
            Err(io::Error::other("`strait dev` ended before it was ready; its lines say why"))
        };
        timeout(START_WITHIN, ready).await??;
        // What else it says is not needed, but a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let parent = supervisor.id().ok_or_else(|| io::Error::other("`strait dev` ended"))?;
        Ok(Self {
            server: Server {
                http: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.http)),
                token: TOKEN,
            },
            relay: Process::child_of(parent, "strait-relay")?,
            control: Process::child_of(parent, "strait-control")?,
            supervisor,
            https: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.https)),
            quic,
            state,
        })
    }

    /// The certificate that it made for itself.
    pub fn certificate(&self) -> PathBuf {
        self.state.path().join("certificate.pem")
    }

    /// Ends it in order.
    pub async fn end(mut self) {
        if let Some(pid) = self.supervisor.id() {
            let mut kill = Command::new("sh");
            kill.args(["-c", "kill -TERM \"$0\"", &pid.to_string()]);
            // If that cannot be sent, dropping it kills it.
            let _ = kill.status().await;
            let _ = timeout(END_WITHIN, self.supervisor.wait()).await;
        }
    }
}

struct Ports {
    https: u16,
    http: u16,
}

/// Ports that are free now; HTTPS and media share theirs, as in a usual setup.
fn free_ports() -> io::Result<Ports> {
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    loop {
        let https = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = https.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(Ports { https: port, http: http.local_addr()?.port() });
        }
    }
}

/// The program of that name in our own folder.
pub fn beside_us(name: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.parent().unwrap_or(Path::new(".")).join(name);
    if program.is_file() {
        return Ok(program);
    }
    let text = format!("{} is not there; `./dev figures` builds it", program.display());
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}
