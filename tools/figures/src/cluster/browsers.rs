//! Real browsers beside the native clients, driven by `failover-browsers.mjs` beside this crate.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use super::bed::Bed;
use crate::browser::source_tree;
use crate::setup::TOKEN;

/// How long they may take until all hear one another.
const START_WITHIN: Duration = Duration::from_secs(180);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long they may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Five in one scope.
pub struct Browsers {
    script: Child,
    lines: Receiver<io::Result<String>>,
}

impl Browsers {
    /// Starts them, and returns when each hears all others.
    pub fn start(bed: &Bed, scope: &str, nodes: u8) -> io::Result<Self> {
        let tree = source_tree()?;
        let mut script = Command::new("node")
            .arg(tree.join("tools/figures/failover-browsers.mjs"))
            .args([TOKEN, scope])
            .args((1..=nodes).map(|node| format!("http://{}", bed.http(node))))
            .current_dir(tree)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = script.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let (to_us, lines) = sync_channel(1);
        // Ends with the script's output, or with us.
        thread::spawn(move || {
            BufReader::new(output).lines().try_for_each(|line| to_us.send(line).map_err(drop))
        });
        let browsers = Self { script, lines };
        match browsers.line(START_WITHIN)?.as_str() {
            "ready" => Ok(browsers),
            other => Err(io::Error::other(format!("the browsers say {other:?}"))),
        }
    }

    /// Silences count from now on.
    pub fn begin(&mut self) -> io::Result<()> {
        self.ask("begin").map(drop)
    }

    /// The longest silence of each, in seconds.
    pub fn look(&mut self) -> io::Result<Vec<f64>> {
        serde_json::from_str(&self.ask("look")?).map_err(io::Error::other)
    }

    fn ask(&mut self, word: &str) -> io::Result<String> {
        let input = self.script.stdin.as_mut();
        writeln!(input.ok_or_else(|| io::Error::other("no input"))?, "{word}")?;
        self.line(ANSWER_WITHIN)
    }

    fn line(&self, within: Duration) -> io::Result<String> {
        let gone = |_| io::Error::other("the browsers do not answer; their lines say why");
        self.lines.recv_timeout(within).map_err(gone)?
    }
}

impl Drop for Browsers {
    fn drop(&mut self) {
        // At the end of its input it closes them, and then its output.
        drop(self.script.stdin.take());
        let _closed = self.lines.recv_timeout(END_WITHIN);
        let _ended = self.script.kill().and_then(|()| self.script.wait());
    }
}
