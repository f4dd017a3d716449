//! What a turn sends: one arena of bytes, and in it the runs of datagrams, filled by the path, emptied by the port.

use crate::limits::{EGRESS_BYTES, EGRESS_DATAGRAMS, RUN_BYTES, RUN_DATAGRAMS};
use crate::port::{Path, Protocol};
use std::ops::Range;

/// Datagrams of one path that one call with `UDP_SEGMENT` can send: one after the other in memory, all of the same size,
/// only the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Which way.
    pub path: Path,
    /// Bytes of each datagram but the last.
    pub size: usize,
    /// How many datagrams, 1 to [`RUN_DATAGRAMS`].
    pub count: usize,
    /// All of them.
    pub bytes: &'a [u8],
}

impl<'a> Run<'a> {
    /// The datagrams, one by one.
    pub fn datagrams(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.size.max(1))
    }
}

#[derive(Clone, Debug)]
struct Span {
    path: Path,
    bytes: Range<usize>,
    size: usize,
    count: usize,
}

impl Span {
    /// Whether a datagram of `len` bytes right behind it belongs to it.
    fn takes(&self, path: Path, len: usize) -> bool {
        self.path == path
            && path.protocol == Protocol::Udp
            && len <= self.size
            && self.bytes.len() == self.count * self.size
            && self.count < RUN_DATAGRAMS
            && self.bytes.len() + len <= RUN_BYTES
    }
}

/// The outgoing datagrams of a turn. Allocated once, bounded, reused.
#[derive(Debug)]
pub struct Egress {
    arena: Vec<u8>,
    used: usize,
    spans: Vec<Span>,
    datagrams: usize,
    /// Runs before this one are complete.
    begun: usize,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            arena: vec![0; EGRESS_BYTES],
            used: 0,
            spans: Vec::with_capacity(EGRESS_DATAGRAMS),
            datagrams: 0,
            begun: 0,
        }
    }
}

impl Egress {
    /// Room for one datagram of at most `capacity` bytes; `None` when the turn is full.
    /// Nothing is sent before [`Egress::commit`].
    pub fn reserve(&mut self, capacity: usize) -> Option<&mut [u8]> {
        if self.datagrams == EGRESS_DATAGRAMS {
            return None;
        }
        self.arena.get_mut(self.used..self.used.checked_add(capacity)?)
    }

    /// Queues the first `len` bytes of the last reservation towards `path`. What follows on the same path with the same
    /// size, without others in between, becomes one run.
    pub fn commit(&mut self, path: Path, len: usize) {
        let end = (self.used + len).min(self.arena.len());
        debug_assert_eq!(end, self.used + len, "committed more than was reserved");
        self.datagrams += 1;
        let complete = self.spans.len() <= self.begun;
        match self.spans.last_mut() {
            Some(span) if !complete && span.takes(path, len) => {
                span.bytes.end = end;
                span.count += 1;
            }
            _ => self.spans.push(Span { path, bytes: self.used..end, size: len, count: 1 }),
        }
        self.used = end;
    }

    /// Begins a new run. Says where, for [`Egress::repeat`].
    pub fn begin(&mut self) -> usize {
        self.begun = self.spans.len();
        self.begun
    }

    /// Queues these runs once more towards another path; their bytes are there once. How many datagrams and bytes that
    /// are; `None` when the turn is full.
    pub fn repeat(&mut self, runs: Range<usize>, path: Path) -> Option<(usize, usize)> {
        let spans = self.spans.get(runs.clone())?;
        let datagrams: usize = spans.iter().map(|span| span.count).sum();
        let bytes: usize = spans.iter().map(|span| span.bytes.len()).sum();
        if self.datagrams + datagrams > EGRESS_DATAGRAMS {
            return None;
        }
        for at in runs {
            let span = self.spans.get(at)?.clone();
            self.spans.push(Span { path, ..span });
        }
        self.datagrams += datagrams;
        self.begun = self.spans.len();
        Some((datagrams, bytes))
    }

    /// Copies a datagram in. `false` when the turn is full.
    #[must_use]
    pub fn push(&mut self, path: Path, datagram: &[u8]) -> bool {
        let Some(room) = self.reserve(datagram.len()) else { return false };
        room.copy_from_slice(datagram);
        self.commit(path, datagram.len());
        true
    }

    /// What is queued, in runs, in the order in which it was queued.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.spans.iter().map(|span| Run {
            path: span.path,
            size: span.size,
            count: span.count,
            bytes: self.arena.get(span.bytes.clone()).unwrap_or_default(),
        })
    }

    /// The datagrams one by one, in the order in which they were queued.
    pub fn iter(&self) -> impl Iterator<Item = (Path, &[u8])> {
        self.runs().flat_map(|run| run.datagrams().map(move |datagram| (run.path, datagram)))
    }

    /// How many datagrams are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams == 0
    }

    /// How many bytes are queued.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// Forgets what is queued.
    pub fn clear(&mut self) {
        self.used = 0;
        self.datagrams = 0;
        self.begun = 0;
        self.spans.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(protocol: Protocol, port: u16) -> Path {
        Path { protocol, ..Path::udp([192, 0, 2, 1].into(), ([192, 0, 2, 2], port).into()) }
    }

    /// The runs as (port, datagrams, size) after datagrams of these lengths to these ports.
    fn runs(protocol: Protocol, datagrams: &[(u16, usize)]) -> Vec<(u16, usize, usize)> {
        let mut egress = Egress::default();
        for (n, (port, len)) in datagrams.iter().enumerate() {
            assert!(egress.push(path(protocol, *port), &vec![n as u8; *len]));
        }
        assert_eq!(egress.len(), datagrams.len());
        let back: Vec<_> = egress.iter().map(|(path, bytes)| (path.remote.port(), bytes)).collect();
        for (n, ((port, len), got)) in datagrams.iter().zip(&back).enumerate() {
            assert_eq!(*got, (*port, &vec![n as u8; *len][..]), "datagram {n} is as it was queued");
        }
        assert_eq!(back.len(), datagrams.len());
        egress.runs().map(|run| (run.path.remote.port(), run.count, run.size)).collect()
    }

    #[test]
    fn equal_sizes_of_one_path_are_a_run_with_one_shorter_at_its_end() {
        let queued = [(1, 100), (1, 100), (1, 70), (1, 70), (1, 100), (2, 100), (1, 100)];
        let expected = [(1, 3, 100), (1, 1, 70), (1, 1, 100), (2, 1, 100), (1, 1, 100)];
        assert_eq!(runs(Protocol::Udp, &queued), expected);
    }

    #[test]
    fn frames_of_a_connection_are_no_run() {
        assert_eq!(runs(Protocol::Tcp, &[(1, 9), (1, 9)]), [(1, 1, 9), (1, 1, 9)]);
    }

    #[test]
    fn a_run_ends_at_what_the_kernel_takes() {
        let many = vec![(1, 100); RUN_DATAGRAMS + 1];
        assert_eq!(runs(Protocol::Udp, &many), [(1, RUN_DATAGRAMS, 100), (1, 1, 100)]);
        let large = vec![(1, 2000); 40];
        let first = RUN_BYTES / 2000;
        assert_eq!(runs(Protocol::Udp, &large), [(1, first, 2000), (1, 40 - first, 2000)]);
    }
}
