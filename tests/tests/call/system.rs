//! Relay and control as processes of their own, in a folder of their own, on ports of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use strait_tests::hosts::Host;
use tempfile::TempDir;

/// How long the processes may take to be ready, on a machine that compiles beside.
pub const START: Duration = Duration::from_secs(30);

pub struct System {
    /// Plain HTTP, where there is any.
    pub http: SocketAddr,
    children: Vec<Child>,
    folder: TempDir,
}

impl System {
    /// Starts both on this host's loopback, and waits until they are ready.
    pub fn start() -> Self {
        let mut system = Self::with_relay(&|program| Command::new(program), "127.0.0.1");
        let mut control = system.control(Command::new(programs().join("strait-control")));
        control.args(["--https-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        let mut control = control.stderr(Stdio::piped()).spawn().expect("strait-control");
        let log = control.stderr.take().expect("its log");
        system.children.push(control);
        system.http = address(log);
        let deadline = Instant::now() + START;
        while system.request("GET", "/readyz", "", "").0 != 200 {
            assert!(Instant::now() < deadline, "not ready in {START:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        system
    }

    /// Starts both on another host, HTTPS alone, and does not wait.
    pub fn start_on(host: &Host, listen: &str, https: u16) -> Self {
        let mut system = Self::with_relay(&|program| host.command(program), listen);
        let listen: IpAddr = listen.parse().expect("an address");
        let path = system.folder.path().join("control.toml");
        let text = format!(
            "[http]\nhttp_listen = []\nhttps_listen = [\"{}\"]\n",
            SocketAddr::new(listen, https)
        );
        std::fs::write(&path, text).expect("a configuration");
        let mut control = system.control(host.command(programs().join("strait-control")));
        let control = control.arg("--config").arg(&path).spawn().expect("strait-control");
        system.children.push(control);
        system
    }

    /// The certificate that control makes for itself.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn with_relay(command: &dyn Fn(&Path) -> Command, listen: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("relay.toml");
        let text = format!(
            "rpc_socket = {:?}\nlisten = [{listen:?}]\nport = 0\nworkers = 2\n\
             metrics_listen = \"\"\n",
            folder.path().join("relay.sock")
        );
        std::fs::write(&path, text).expect("a configuration");
        let relay = command(&programs().join("strait-relay"))
            .arg("--config")
            .arg(&path)
            .stdout(Stdio::null())
            .spawn()
            .expect("strait-relay");
        let http = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Self { http, children: vec![relay], folder }
    }

    /// What the control plane is told wherever it runs.
    fn control(&self, mut command: Command) -> Command {
        let folder = self.folder.path();
        command.arg("--state-dir").arg(folder).arg("--rpc-socket").arg(folder.join("relay.sock"));
        command.args(["--dev-token", "dev"]);
        command
    }

    /// POSTs an offer; the session's path and the answer.
    pub fn post(&self, path: &str, offer: &str) -> (String, String) {
        let (status, head, body) = self.request("POST", path, "application/sdp", offer);
        assert_eq!(status, 201, "{body}");
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        (location.expect("Location"), body)
    }

    /// DELETEs a session; the status.
    pub fn delete(&self, path: &str) -> u16 {
        self.request("DELETE", path, "", "").0
    }

    /// One request: status, header, body.
    fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.http).expect("control listens");
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer dev\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
             \r\n{body}"
        );
        stream.write_all(text.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), head.to_owned(), body.to_owned())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The address of plain HTTP, from control's log. The rest of the log is passed on.
fn address(log: impl Read + Send + 'static) -> SocketAddr {
    let mut lines = BufReader::new(log).lines();
    let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("http://")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            eprintln!("control: {line}");
        }
    });
    found.expect("control says where it listens")
}

/// The folder of the binaries: built here, unless `STRAIT_BIN_DIR` names it.
fn programs() -> PathBuf {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    if let Some(folder) = std::env::var_os("STRAIT_BIN_DIR") {
        return folder.into();
    }
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built
        .get_or_insert_with(|| {
            let status = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--package", "strait-relay"])
                .args(["--package", "strait-control"])
                .current_dir(strait_tests::root())
                .status()
                .expect("cargo");
            assert!(status.success(), "the programs do not build");
            // This test lies in target/debug/deps.
            let test = std::env::current_exe().expect("this test");
            let folder = test.parent().and_then(Path::parent);
            folder.expect("a target folder").to_owned()
        })
        .clone()
}
