//! Faults that tests ask for, to see what the process does then. Nothing else does: the program takes one by a hidden
//! flag, and lets it happen upon SIGUSR1.

use std::str::FromStr;
use std::time::Duration;

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A worker's thread panics.
    WorkerDies,
    /// A worker does nothing for this long.
    WorkerStalls(Duration),
    /// The thread of DTLS panics.
    HandshakesDie,
}

impl FromStr for Fault {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let milliseconds = text.strip_prefix("worker-stalls:").and_then(|time| time.parse().ok());
        match (text, milliseconds) {
            ("worker-dies", _) => Ok(Self::WorkerDies),
            ("handshakes-die", _) => Ok(Self::HandshakesDie),
            (_, Some(time)) => Ok(Self::WorkerStalls(Duration::from_millis(time))),
            _ => Err("worker-dies, handshakes-die, or worker-stalls: and milliseconds"),
        }
    }
}

/// Panics, as a test asked.
pub(crate) fn die() -> ! {
    panic!("a test asked for this panic");
}
