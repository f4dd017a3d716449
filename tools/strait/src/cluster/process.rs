//! Processes that outlive the call which started them: known by number and start, so that nobody
//! else's is ever hit.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::part::Part;
use crate::fault::Fault;

/// Pause between two looks at a process that is to end.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(8);

/// A process that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Which part it is.
    pub part: String,
    /// Its number.
    pub pid: u32,
    /// When it started, in ticks since the machine did (proc(5), field 22 of stat): numbers of
    /// processes come again.
    pub since: u64,
}

/// What to send.
#[derive(Clone, Copy)]
pub enum Signal {
    /// End in order, for good: after SIGTERM a control plane expects to be started again.
    Interrupt,
    /// End in order.
    Term,
    /// End now.
    Kill,
}

impl Process {
    /// Starts a part. What it says goes to `log`.
    pub fn start(part: &Part, log: &Path) -> Result<Self, Fault> {
        let fail = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Fault::new(format!(
                "{} is not there; remedy: apt-get install redis-server mariadb-server (their \
                 services need not run), or for strait's own programs --bin-dir",
                part.program.display()
            )),
            _ => Fault::new(format!("cannot start {}: {e}", part.name)),
        };
        let log = OpenOptions::new().create(true).append(true).open(log).map_err(fail)?;
        let mut command = Command::new(&part.program);
        command.args(&part.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(fail)?).stderr(log);
        // Nobody waits for it: it is init's when this call ends. Ctrl-C is not for it.
        let child = command.process_group(0).spawn().map_err(fail)?;
        let since = since(child.id()).unwrap_or_default();
        Ok(Self { part: part.name.clone(), pid: child.id(), since })
    }

    /// Whether it is there still.
    pub fn is_alive(&self) -> bool {
        since(self.pid) == Some(self.since)
    }

    /// Sends it a signal, by the shell's own `kill`: the standard library can only reach children.
    pub fn signal(&self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        let name = match signal {
            Signal::Interrupt => "-INT",
            Signal::Term => "-TERM",
            Signal::Kill => "-KILL",
        };
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill \"$0\" \"$1\"", name, &self.pid.to_string()]);
        // It may have ended in this instant.
        let _gone = kill.stderr(Stdio::null()).status();
    }

    /// Waits until it is gone, and kills it where that takes too long.
    pub fn wait_for_end(&self) {
        let until = Instant::now() + PATIENCE;
        while self.is_alive() {
            if Instant::now() > until {
                self.signal(Signal::Kill);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// When a process started; none when there is none, or when it waits for its parent to ask how it ended.
fn since(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::part::Ready;
    use super::*;

    #[test]
    fn what_was_started_is_known_again_and_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let part = Part {
            name: "sleeper".into(),
            program: "sleep".into(),
            arguments: vec!["600".into()],
            ready: Ready::File("/".into()),
        };
        let process = Process::start(&part, &folder.path().join("log")).expect("started");
        assert!(process.is_alive());
        let other = Process { since: process.since + 1, ..process.clone() };
        assert!(!other.is_alive(), "another process that has its number now");
        other.signal(Signal::Kill);
        assert!(process.is_alive());
        process.signal(Signal::Term);
        process.wait_for_end();
        assert!(!process.is_alive());
    }
}
