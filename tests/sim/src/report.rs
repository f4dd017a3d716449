//! What is left of a run.

use crate::network::Counts as LinkCounts;
use crate::peer::receiver::Counts;
use std::fmt;
use strait_core::time::Duration;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, since the start.
    pub at: Duration,
    /// Which, and how.
    pub text: String,
}

/// What one viewer got of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Who to whom, and what.
    pub name: String,
    /// How much.
    pub counts: Counts,
}

/// A run's end.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of which seed.
    pub seed: u64,
    /// Equal for two runs of the same seed.
    pub hash: u64,
    /// Datagrams put on a line.
    pub datagrams: u64,
    /// How long it was.
    pub virtual_time: Duration,
    /// Bytes that reached the relay.
    pub received_bytes: u64,
    /// Bytes that the relay sent.
    pub sent_bytes: u64,
    /// Turns of the relay's loop.
    pub turns: u64,
    /// Times that the scope moved to another worker.
    pub moves: u64,
    /// The trace, when it was asked for.
    pub lines: Vec<String>,
    /// What everyone got.
    pub streams: Vec<Stream>,
    /// What the lines did, up and down.
    pub links: Vec<[LinkCounts; 2]>,
    /// What is wrong. Empty is good.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.faults.is_empty() { "ok" } else { "FAILED" };
        writeln!(
            f,
            "seed {}: {state}, hash {:016x}, {:.1} s, {} datagrams, {} turns, {} kB in, {} kB out",
            self.seed,
            self.hash,
            self.virtual_time.as_secs_f64(),
            self.datagrams,
            self.turns,
            self.received_bytes / 1000,
            self.sent_bytes / 1000,
        )?;
        for fault in &self.faults {
            writeln!(f, "  FAULT {:>9.3} s  {}", fault.at.as_secs_f64(), fault.text)?;
        }
        Ok(())
    }
}

impl Outcome {
    /// What everyone got and what the lines did, as tables.
    #[must_use]
    pub fn tables(&self) -> String {
        let mut out = format!(
            "{:<26} {:>7} {:>7} {:>5} {:>8} {:>8} {:>6} {:>5} {:>7}\n",
            "stream", "packets", "by rtx", "twice", "decoded", "key", "nacks", "plis", "freezes"
        );
        for Stream { name, counts } in &self.streams {
            out += &format!(
                "{name:<26} {:>7} {:>7} {:>5} {:>8} {:>8} {:>6} {:>5} {:>7}\n",
                counts.packets,
                counts.repaired,
                counts.doubled,
                counts.decoded,
                counts.key_frames,
                counts.nacks,
                counts.plis,
                counts.freezes,
            );
        }
        out += &format!(
            "\n{:<26} {:>7} {:>7} {:>10} {:>8} {:>9}\n",
            "line", "sent", "lost", "queue full", "doubled", "reordered"
        );
        for (peer, link) in self.links.iter().enumerate() {
            for (direction, counts) in ["up", "down"].into_iter().zip(link) {
                out += &format!(
                    "{:<26} {:>7} {:>7} {:>10} {:>8} {:>9}\n",
                    format!("peer {peer} {direction}"),
                    counts.sent,
                    counts.lost,
                    counts.queue_full,
                    counts.duplicated,
                    counts.reordered,
                );
            }
        }
        out
    }
}
