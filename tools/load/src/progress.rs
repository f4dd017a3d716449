//! One line on stderr that says how far a run is.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use strait_core::time::Instant;

use crate::measure::Counts;

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const BAR: usize = 30;

pub(crate) struct Progress {
    shown: bool,
    last: Option<std::time::Instant>,
}

impl Progress {
    /// Shows something only to a person: where stderr is a terminal, and no CI runs it.
    pub(crate) fn new(wanted: bool) -> Self {
        let person = std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        Self { shown: wanted && person, last: None }
    }

    pub(crate) fn joined(&mut self, peers: usize, all: usize) {
        if self.is_due() {
            self.show(peers as f64 / all.max(1) as f64, &format!("{peers} of {all} peers joined"));
        }
    }

    pub(crate) fn flowing(&mut self, now: Instant, begin: Instant, end: Instant, counts: &Counts) {
        if self.is_due() {
            let share = now.since(begin).as_secs_f64() / end.since(begin).as_secs_f64().max(1e-9);
            let Counts { received, missing, .. } = counts;
            self.show(share.min(1.0), &format!("{received} packets received, {missing} missing"));
        }
    }

    pub(crate) fn done(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }

    fn is_due(&mut self) -> bool {
        if !self.shown {
            return false;
        }
        let now = std::time::Instant::now();
        let due = self.last.is_none_or(|last| now.duration_since(last) >= EVERY);
        if due {
            self.last = Some(now);
        }
        due
    }

    fn show(&self, share: f64, words: &str) {
        let full = (share * BAR as f64) as usize;
        let bar: String = (0..BAR).map(|n| if n < full { '█' } else { '░' }).collect();
        // A terminal that is gone misses nothing.
        let _ = write!(std::io::stderr(), "\r\x1b[K{bar} {:3.0} %  {words}", share * 100.0);
    }
}
