//! What happened in a run: a hash that two runs of a seed share, and lines for people.

use crate::protocol::Sort;
use strait_core::time::Instant;

/// How much of the bytes two runs of the same seed share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// All: keys came from the seed.
    Same,
    /// A real DTLS handshake drew its own secrets: only what it cannot change is hashed, the kind
    /// of datagram and, for SRTP, its length and its header.
    Secret,
}

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    datagrams: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A record that keeps lines for people when `verbose`.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { lines: verbose.then(Vec::new), ..Self::default() }
    }

    /// Equal for two runs of the same seed.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many datagrams were put on a line.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.datagrams
    }

    /// The lines so far, which are forgotten.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A datagram was put on the line of `peer`, `up` towards the relay or down from it.
    pub fn datagram(&mut self, at: Instant, peer: usize, up: bool, bytes: &[u8], shared: Bytes) {
        self.datagrams += 1;
        self.mix(at.0);
        self.mix((peer as u64) << 1 | u64::from(up));
        let kind = Sort::of(bytes);
        match (shared, kind) {
            (Bytes::Same, _) | (_, Sort::Stun) => self.mix_bytes(bytes),
            (Bytes::Secret, Sort::Rtp) => {
                self.mix(bytes.len() as u64);
                self.mix_bytes(bytes.get(..12).unwrap_or(bytes));
            }
            (Bytes::Secret, Sort::Rtcp) => {
                self.mix(bytes.len() as u64);
                self.mix_bytes(bytes.get(..8).unwrap_or(bytes));
            }
            (Bytes::Secret, _) => self.mix(kind as u64),
        }
        if self.lines.is_some() {
            let arrow = if up { "──►" } else { "◄──" };
            self.note(at, || format!("peer {peer} {arrow} {}", describe(kind, bytes)));
        }
    }

    /// Something that people did or that the relay said. It counts for the hash.
    pub fn event(&mut self, at: Instant, text: &str) {
        self.mix(at.0);
        self.mix_bytes(text.as_bytes());
        self.note(at, || text.to_owned());
    }

    /// A line for people only.
    pub fn note(&mut self, at: Instant, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {}", at.0 as f64 / 1e9, text()));
        }
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    fn mix(&mut self, word: u64) {
        // One step of a multiply-and-rotate hash: order counts, and it costs next to nothing.
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn describe(kind: Sort, bytes: &[u8]) -> String {
    let word = |from: usize| {
        bytes
            .get(from..from + 4)
            .and_then(|word| word.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    };
    let (first, second) = (word(0), bytes.get(1).copied().unwrap_or(0));
    match kind {
        Sort::Rtp => format!(
            "RTP ssrc {:08x} seq {} ts {} pt {}{} {} B",
            word(8),
            first & 0xffff,
            word(4),
            second & 0x7f,
            if second & 0x80 == 0 { "" } else { " marker" },
            bytes.len()
        ),
        Sort::Rtcp => format!("RTCP pt {second} ssrc {:08x} {} B", word(4), bytes.len()),
        kind => format!("{kind:?} {} B", bytes.len()),
    }
}
