//! Strait on the bench bed: one relay with one worker, and `strait load` against it.

use crate::bed::{Bed, SERVER, SERVER_CORE, Side};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a relay may take to start.
const START_WITHIN: Duration = Duration::from_secs(10);

/// A relay that runs.
#[derive(Debug)]
pub struct Relay<'a> {
    bed: &'a Bed,
    programs: PathBuf,
    child: Child,
    folder: tempfile::TempDir,
}

/// What a run of the load says.
#[derive(Clone, Debug)]
pub struct Run {
    /// The report as `strait load --json` prints it.
    pub report: Value,
    /// The relay's metrics afterwards.
    pub metrics: String,
}

impl<'a> Relay<'a> {
    /// Starts `strait-relay` of the folder `programs` with the configuration that users get, one worker, and `extra`
    /// lines of configuration.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(bed: &'a Bed, programs: &Path, workers: usize, extra: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("relay.sock");
        let config = folder.path().join("relay.toml");
        let cpus = if workers == 1 { format!("[{SERVER_CORE}]") } else { "[]".to_owned() };
        let text = format!(
            "rpc_socket = {socket:?}\nlisten = [\"{SERVER}\"]\nworkers = {workers}\ncpus = {cpus}\n\
             metrics_listen = \"127.0.0.1:9464\"\nlog = \"error\"\n{extra}\n"
        );
        std::fs::write(&config, text)?;
        let mut command = match workers {
            1 => bed.command(Side::Server, &programs.join("strait-relay")),
            _ => bed.unpinned(Side::Server, &programs.join("strait-relay")),
        };
        let child = command.arg("--config").arg(&config).stdout(Stdio::null()).spawn()?;
        let relay = Self { bed, programs: programs.to_owned(), child, folder };
        let start = Instant::now();
        while !socket.exists() {
            if start.elapsed() > START_WITHIN {
                return Err(io::Error::other("strait-relay did not start"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(relay)
    }

    /// Runs the load with these arguments.
    ///
    /// # Errors
    /// The load failed: packets were lost, or wrong.
    pub fn load(&self, arguments: &[&str]) -> io::Result<Run> {
        let mut load = self.bed.command(Side::Client, &self.programs.join("strait"));
        let socket = format!("unix:{}", self.folder.path().join("relay.sock").display());
        load.args(["load", "--json", "--relay", &socket, "--cpu", "1"]);
        load.args(["--pid", &self.pid().to_string()]).args(arguments);
        let output = load.stderr(Stdio::inherit()).output()?;
        let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            io::Error::other(format!("strait load {arguments:?}: {error}: {said}"))
        })?;
        Ok(Run { report, metrics: self.metrics()? })
    }

    /// `ip netns exec` and `taskset` become the relay.
    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resident(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok());
        kib.map(|kib: u64| kib << 10).ok_or_else(|| io::Error::other("no VmRSS"))
    }

    fn metrics(&self) -> io::Result<String> {
        // The listener is in the other namespace; a helper there fetches the page.
        let mut curl = self.bed.unpinned(Side::Server, Path::new("curl"));
        let output = curl.args(["-s", "http://127.0.0.1:9464/metrics"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        std::thread::sleep(Duration::from_millis(100));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a metric with these labels, summed over what matches.
#[must_use]
pub fn metric(page: &str, name: &str, labels: &str) -> f64 {
    let lines = page.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| {
            rest.starts_with(['{', ' ']) && (labels.is_empty() || rest.contains(labels))
        })
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A number of a report by its path, such as `server/cpu_ns_per_packet/median`.
#[must_use]
pub fn number(report: &Value, path: &str) -> f64 {
    report.pointer(&format!("/{path}")).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// The folder of the program that runs, where its sisters are.
///
/// # Errors
/// The system does not say.
pub fn programs() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.parent().map(Path::to_owned).ok_or_else(|| io::Error::other("no folder"))
}
