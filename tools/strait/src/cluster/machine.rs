//! The cluster as it runs: its layout, and which process each part is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::part::{self, Part, Ready};
use super::process::{Process, Signal};
use super::wire;
use crate::fault::Fault;

/// The file that has it all.
const FILE: &str = "cluster.json";
/// How long a part may take until it is ready: MariaDB, on a busy machine, is the slowest.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long others may still write there when all is to go.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);
/// Why a start ended at Ctrl-C.
pub const STOPPED: &str = "stopped before all of it ran";
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// Lines of its log that are shown where a part does not start.
const LINES_SHOWN: usize = 12;

/// The cluster as it runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    /// What it is made of.
    pub layout: Layout,
    /// What was started. The last of a part counts.
    processes: Vec<Process>,
}

impl Machine {
    /// A new one, of which nothing runs yet.
    pub fn new(layout: Layout) -> Result<Self, Fault> {
        let machine = Self { layout, processes: Vec::new() };
        machine.save()?;
        Ok(machine)
    }

    /// Whether there is one in the folder.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).is_file()
    }

    /// The one that was started in the folder.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(|e| {
            Fault::new(format!(
                "no cluster in {}: {e}; remedy: `strait cluster up`, or name its folder with \
                 --state-dir",
                folder.display()
            ))
        })?;
        serde_json::from_str(&text).map_err(|e| {
            Fault::new(format!(
                "{} cannot be read: {e}; remedy: the version of strait that wrote it",
                path.display()
            ))
        })
    }

    /// The process of a part, while it lives.
    pub fn process(&self, part: &str) -> Option<&Process> {
        let newest = self.processes.iter().rev().find(|process| process.part == part);
        newest.filter(|process| process.is_alive())
    }

    /// Starts a part and waits until it is ready, or nobody wants it any more. Says how long that took.
    pub fn start(&mut self, part: &Part, stop: &AtomicBool) -> Result<Duration, Fault> {
        if let Ready::File(file) = &part.ready {
            // What another life of it left behind says nothing.
            let _absent = fs::remove_file(file);
        }
        let since = Instant::now();
        let process = Process::start(part, &self.log(&part.name))?;
        self.processes.retain(|before| before.part != part.name);
        self.processes.push(process.clone());
        self.save()?;
        while !is_ready(&part.ready) {
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::new(STOPPED));
            }
            if !process.is_alive() {
                return Err(self.failed(part, "ended at once"));
            }
            if since.elapsed() > READY_WITHIN {
                return Err(self.failed(part, "does not answer"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(since.elapsed())
    }

    /// Kills what a person means, without a warning.
    pub fn kill(&self, word: &str) -> Result<(), Fault> {
        let parts = part::all(&self.layout);
        let alive: Vec<_> =
            self.meant(&parts, word)?.into_iter().filter_map(|p| self.process(&p.name)).collect();
        if alive.is_empty() {
            return Err(Fault::new(format!("{word} does not run")));
        }
        alive.iter().for_each(|process| process.signal(Signal::Kill));
        alive.iter().for_each(|process| process.wait_for_end());
        let names: Vec<_> = alive.iter().map(|process| process.part.as_str()).collect();
        println!("killed {}; `strait cluster start {word}` brings it back", names.join(", "));
        Ok(())
    }

    /// Starts what was killed.
    pub fn start_again(&mut self, word: &str) -> Result<(), Fault> {
        let parts = part::all(&self.layout);
        let meant: Vec<Part> = self.meant(&parts, word)?.into_iter().cloned().collect();
        for part in meant {
            if self.process(&part.name).is_some() {
                println!("{} runs", part.name);
                continue;
            }
            // Ctrl-C ends this call, and leaves the part as it is.
            let took = self.start(&part, &AtomicBool::new(false))?;
            println!("{} is ready after {:.1} s", part.name, took.as_secs_f32());
        }
        Ok(())
    }

    /// Ends all, those first that were started last, and removes the folder.
    pub fn down(&self) -> Result<(), Fault> {
        let kinds = |process: &&&Process| {
            process.part.starts_with("control") || process.part.starts_with("agent")
        };
        let (controls, others): (Vec<_>, Vec<_>) = self.processes.iter().partition(|p| kinds(&p));
        // Nodes say goodbye while Redis is there.
        let relays = others.iter().filter(|process| process.part.starts_with("relay"));
        let servers = others.iter().filter(|process| !process.part.starts_with("relay"));
        let (relays, servers): (Vec<_>, Vec<_>) =
            (relays.copied().collect(), servers.copied().collect());
        let ends = [Signal::Interrupt, Signal::Term, Signal::Term];
        for (group, signal) in [controls, relays, servers].into_iter().zip(ends) {
            group.iter().for_each(|process| process.signal(signal));
            group.iter().for_each(|process| process.wait_for_end());
        }
        let folder = &self.layout.folder;
        remove(folder).map_err(|e| {
            let folder = folder.display();
            Fault::new(format!("cannot remove {folder}: {e}; remedy: `strait cluster down` again"))
        })?;
        println!("ended; nothing is left of {}", folder.display());
        Ok(())
    }

    /// Where a part's output goes.
    pub fn log(&self, part: &str) -> PathBuf {
        self.layout.folder.join(format!("{part}.log"))
    }

    fn meant<'a>(&self, parts: &'a [Part], word: &str) -> Result<Vec<&'a Part>, Fault> {
        let meant = part::meant(parts, word);
        if !meant.is_empty() {
            return Ok(meant);
        }
        let nodes = self.layout.nodes.iter().map(|node| node.name());
        let names = nodes.chain(parts.iter().map(|part| part.name.clone()));
        let names: Vec<_> = names.chain(["redis".to_owned()]).collect();
        Err(Fault::new(format!("there is no {word:?} here; there are: {}", names.join(", "))))
    }

    fn failed(&self, part: &Part, what: &str) -> Fault {
        let log = self.log(&part.name);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default();
        Fault::new(format!(
            "{} {what}; the end of {}:\n{}",
            part.name,
            log.display(),
            shown.join("\n")
        ))
    }

    /// Written beside and moved, so that a call that is stopped leaves the whole of one or the other.
    fn save(&self) -> Result<(), Fault> {
        let path = self.layout.folder.join(FILE);
        let fresh = path.with_extension("new");
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Fault::new(format!("{}: {e}", path.display())))?;
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|e| Fault::new(format!("cannot write {}: {e}", path.display())))
    }
}

/// Removes the folder, that which says what it is last. Who is still at work there, as what makes the
/// tables of MariaDB goes on when `up` was stopped, ends by itself in a moment.
fn remove(folder: &Path) -> io::Result<()> {
    let until = Instant::now() + REMOVED_WITHIN;
    loop {
        let outcome = empty(folder).and_then(|()| fs::remove_dir_all(folder));
        if outcome.is_ok() || Instant::now() > until {
            return outcome;
        }
        std::thread::sleep(LOOK);
    }
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() == FILE => {}
            false => fs::remove_file(entry.path())?,
        }
    }
    // Nothing came meanwhile.
    match fs::read_dir(folder)?.count() {
        0 | 1 => Ok(()),
        _ => Err(io::ErrorKind::DirectoryNotEmpty.into()),
    }
}

fn is_ready(ready: &Ready) -> bool {
    match ready {
        Ready::Redis(at) => wire::redis_role(*at).is_ok(),
        Ready::Listens(at) => std::net::TcpStream::connect(at).is_ok(),
        Ready::Http(at) => {
            wire::http(*at, "GET", "/readyz", None).is_ok_and(|(status, _)| status == 200)
        }
        Ready::File(file) => file.exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_written_into_goes_as_well() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("cluster");
        fs::create_dir_all(folder.join("mariadb")).expect("made");
        fs::write(folder.join(FILE), "{}").expect("written");
        let data = folder.join("mariadb");
        let writer = std::thread::spawn(move || {
            let until = Instant::now() + Duration::from_millis(300);
            while Instant::now() < until {
                // It may be there, or its folder may be gone.
                let _outcome = fs::create_dir(&data);
                let _outcome = fs::write(data.join("table"), "rows");
            }
        });
        remove(&folder).expect("removed");
        writer.join().expect("ended");
        assert!(!folder.exists());
    }
}
