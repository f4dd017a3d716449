//! The program as a process of its own.

use super::page;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// The program, killed when dropped.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    /// What it wrote so far.
    pub log: Vec<String>,
    pub socket: PathBuf,
    _folder: TempDir,
}

pub fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_strait-relay"))
}

impl Program {
    /// Starts the program by `command`, which names the executable and nothing more.
    pub fn start(mut command: Command, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Whoever the program runs as, and whoever calls it.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), everybody).unwrap();
        let socket = folder.path().join("relay.sock");
        let mut child = command
            .env_clear()
            .args(["--port", "0", "--metrics-listen", "127.0.0.1:0", "--rpc-socket"])
            .arg(&socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // More than any test makes it write.
        let (line, lines) = sync_channel(10_000);
        let output = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|l| line.send(l).is_ok())
        });
        Self { child, lines, log: Vec::new(), socket, _folder: folder }
    }

    /// As anybody would start it. It serves.
    pub fn serve(arguments: &[&str]) -> Self {
        let mut program = Self::start(Command::new(executable()), arguments);
        program.await_line("serving");
        program
    }

    /// Reads on until a line has `part`; that line.
    #[track_caller]
    pub fn await_line(&mut self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("no \"{part}\" ({error}) in {:#?}", self.log),
            }
        }
    }

    /// Reads on until it serves; `false`: it ended before.
    pub fn serves(&mut self) -> bool {
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("no end: {:#?}", self.log),
            };
            self.log.push(line);
            if self.said("serving") {
                return true;
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end, and reads all that it wrote.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("does not end: {:#?}", self.log),
            }
        }
    }

    /// Whether it wrote a line with `part`, as far as was read.
    pub fn said(&self, part: &str) -> bool {
        self.log.iter().any(|line| line.contains(part))
    }

    /// Where health and metrics are.
    pub fn health(&self) -> SocketAddr {
        let serving = self.log.iter().find(|line| line.contains("serving")).expect("it serves");
        let (_, address) = serving.rsplit_once("http://").expect("metrics");
        address.split_once('/').expect("a page").0.parse().expect("an address")
    }

    pub fn readiness(&self) -> String {
        page(self.health(), "/readyz")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
