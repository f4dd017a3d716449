//! Keeps child processes running: restarted with backoff when they die, ended when we end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{self, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::fault::{EXIT_CONFIG, Fault};

/// The first pause before a restart; it doubles with each death in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A child that lived this long died of something new: its backoff starts over.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Deaths in a row, of a child that was never stable, after which trying on is no use.
const DEATHS_AT_START_MAX: u32 = 4;
/// How long a child may take to end by itself: the relay drains on the first signal, and ends at
/// once on the second.
const END_GENTLY: Duration = Duration::from_secs(1);
const END_AT_ONCE: Duration = Duration::from_secs(3);

/// A program to keep running.
pub struct Child {
    name: &'static str,
    program: PathBuf,
    configuration: PathBuf,
    state: State,
    deaths_in_a_row: u32,
    was_stable: bool,
}

enum State {
    Running { process: process::Child, since: Instant },
    Waiting { until: Instant },
}

impl Child {
    /// `name` stands before each line that the program writes.
    pub fn new(name: &'static str, program: &Path, configuration: &Path) -> Self {
        Self {
            name,
            program: program.to_path_buf(),
            configuration: configuration.to_path_buf(),
            state: State::Waiting { until: Instant::now() },
            deaths_in_a_row: 0,
            was_stable: false,
        }
    }

    fn start(&mut self) -> Result<(), Fault> {
        let mut command = dies_with_us(&self.program);
        command.arg("--config").arg(&self.configuration);
        // A group of its own: Ctrl-C reaches us alone, and we end the children in order.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command
            .spawn()
            .map_err(|e| Fault::new(format!("cannot start {}: {e}", self.program.display())))?;
        relay_lines(self.name, process.stdout.take());
        relay_lines(self.name, process.stderr.take());
        self.state = State::Running { process, since: Instant::now() };
        Ok(())
    }

    fn runs(&mut self) -> bool {
        match &mut self.state {
            State::Running { process, .. } => process.try_wait().is_ok_and(|ended| ended.is_none()),
            State::Waiting { .. } => false,
        }
    }

    /// Waits until the child has died, or the pause before its restart is over.
    async fn next(&mut self) -> Option<std::io::Result<ExitStatus>> {
        match &mut self.state {
            State::Running { process, .. } => Some(process.wait().await),
            State::Waiting { until } => {
                sleep_until(*until).await;
                None
            }
        }
    }

    /// Says that the child died, and plans its restart, unless that is no use.
    fn bury(&mut self, status: std::io::Result<ExitStatus>) -> Result<(), Fault> {
        let lived = match &self.state {
            State::Running { since, .. } => since.elapsed(),
            State::Waiting { .. } => Duration::ZERO,
        };
        let how = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        if status.is_ok_and(|status| status.code() == Some(i32::from(EXIT_CONFIG))) {
            return Err(Fault::config(format!(
                "strait-{} refuses its configuration {}; the lines above say why",
                self.name,
                self.configuration.display()
            )));
        }
        if lived >= STABLE_AFTER {
            (self.deaths_in_a_row, self.was_stable) = (0, true);
        }
        self.deaths_in_a_row += 1;
        if !self.was_stable && self.deaths_in_a_row > DEATHS_AT_START_MAX {
            return Err(Fault::new(format!(
                "strait-{} died {} times in a row ({how}); the lines above say why, --log debug \
                 says more",
                self.name, self.deaths_in_a_row
            )));
        }
        let pause = backoff(self.deaths_in_a_row);
        eprintln!("dev     | strait-{} died ({how}); restarting it in {pause:?}", self.name);
        self.state = State::Waiting { until: Instant::now() + pause };
        Ok(())
    }

    async fn end(&mut self) {
        let State::Running { process, .. } = &mut self.state else { return };
        for patience in [END_GENTLY, END_AT_ONCE] {
            terminate(process).await;
            if timeout(patience, process.wait()).await.is_ok() {
                return;
            }
        }
        eprintln!("dev     | strait-{} does not end: killing it", self.name);
        // It may have died in this instant; then there is nothing left to do.
        let _ = process.kill().await;
    }
}

/// All the children.
pub struct Supervisor {
    children: Vec<Child>,
}

impl Supervisor {
    /// Starts them, in this order.
    pub fn start(mut children: Vec<Child>) -> Result<Self, Fault> {
        for child in &mut children {
            child.start()?;
        }
        Ok(Self { children })
    }

    /// Whether each of them runs now: what answers otherwise may be somebody else's.
    pub fn all_run(&mut self) -> bool {
        self.children.iter_mut().all(Child::runs)
    }

    /// Restarts what dies. Returns only when that is no use any more. May be dropped and called
    /// again at any time.
    pub async fn watch(&mut self) -> Fault {
        loop {
            let [first, second] = self.children.as_mut_slice() else {
                return Fault::new("two children are supervised, no more and no fewer");
            };
            let (index, death) = tokio::select! {
                death = first.next() => (0, death),
                death = second.next() => (1, death),
            };
            let Some(child) = self.children.get_mut(index) else { continue };
            let outcome = match death {
                Some(status) => child.bury(status),
                None => child.start(),
            };
            if let Err(fault) = outcome {
                return fault;
            }
        }
    }

    /// Ends them, last started first, so that control says goodbye while the relay is there.
    pub async fn end(&mut self) {
        for child in self.children.iter_mut().rev() {
            child.end().await;
        }
    }
}

/// The pause before the restart that follows the given number of deaths in a row.
fn backoff(deaths: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << deaths.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX)
}

/// The program, started so that the kernel ends it if we are killed: through setpriv of util-linux,
/// where there is one, since asking the kernel ourselves would take unsafe code.
fn dies_with_us(program: &Path) -> Command {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let setpriv = std::env::split_paths(&folders).map(|f| f.join("setpriv")).find(|p| p.is_file());
    let Some(setpriv) = setpriv else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// Sends SIGINT, by the shell's own `kill`: the standard library can only send SIGKILL. After SIGTERM
/// control leaves sessions to a process that comes next, and there is none.
async fn terminate(process: &process::Child) {
    let Some(pid) = process.id() else { return };
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -INT \"$0\"", &pid.to_string()]).stderr(Stdio::null());
    // If it cannot be sent, the child is killed after the patience is over.
    let _ = timeout(END_GENTLY, kill.status()).await;
}

/// Passes the child's lines on with its name before each.
fn relay_lines(name: &'static str, output: Option<impl AsyncRead + Send + Unpin + 'static>) {
    let Some(output) = output else { return };
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        loop {
            match lines.next_line().await {
                Ok(Some(line)) => eprintln!("{name:7} | {line}"),
                Ok(None) => return,
                // A line that is no UTF-8 is lost; the next may be fine.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_maximum() {
        assert_eq!(backoff(1), BACKOFF_MIN);
        assert_eq!(backoff(2), BACKOFF_MIN * 2);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        path
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let starts = folder.path().join("starts");
        let dying = script(folder.path(), "dying", &format!("echo x >> {}", starts.display()));
        let living = script(folder.path(), "living", "exec tail -f /dev/null");
        let children = vec![
            Child::new("dying", &dying, Path::new("unused")),
            Child::new("living", &living, Path::new("unused")),
        ];
        let mut supervisor = Supervisor::start(children).expect("started");
        let twice = async {
            while std::fs::read_to_string(&starts).unwrap_or_default().lines().count() < 2 {
                let _ = timeout(Duration::from_millis(50), supervisor.watch()).await;
            }
        };
        timeout(Duration::from_secs(20), twice).await.expect("started twice");
        let dies = async {
            while supervisor.all_run() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), dies).await.expect("one of them has died");
        supervisor.end().await;
        for child in &mut supervisor.children {
            if let State::Running { process, .. } = &mut child.state {
                assert!(process.try_wait().expect("asked").is_some(), "{} lives on", child.name);
            }
        }
    }

    #[tokio::test]
    async fn a_refused_configuration_ends_it_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let refusing = script(folder.path(), "refusing", "exit 78");
        let living = script(folder.path(), "living", "exec tail -f /dev/null");
        let children = vec![
            Child::new("refusing", &refusing, Path::new("its.toml")),
            Child::new("living", &living, Path::new("unused")),
        ];
        let mut supervisor = Supervisor::start(children).expect("started");
        let fault = timeout(Duration::from_secs(20), supervisor.watch()).await.expect("in time");
        assert_eq!(fault.code, EXIT_CONFIG);
        assert!(fault.message.contains("its.toml"), "{}", fault.message);
        supervisor.end().await;
    }
}
