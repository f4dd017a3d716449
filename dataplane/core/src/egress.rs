//! What a turn sends: one arena of bytes and a list of datagrams in it, filled by the path, emptied by the port.

use crate::limits::{EGRESS_BYTES, EGRESS_DATAGRAMS};
use crate::port::Path;
use std::ops::Range;

/// One datagram to send.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Which way.
    pub path: Path,
    /// Where its bytes are in the arena.
    pub bytes: Range<usize>,
}

/// The outgoing datagrams of a turn. Allocated once, bounded, reused.
#[derive(Debug)]
pub struct Egress {
    arena: Vec<u8>,
    used: usize,
    datagrams: Vec<Datagram>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            arena: vec![0; EGRESS_BYTES],
            used: 0,
            datagrams: Vec::with_capacity(EGRESS_DATAGRAMS),
        }
    }
}

impl Egress {
    /// Room for one datagram of at most `capacity` bytes; `None` when the turn is full.
    /// Nothing is sent before [`Egress::commit`].
    pub fn reserve(&mut self, capacity: usize) -> Option<&mut [u8]> {
        if self.datagrams.len() == EGRESS_DATAGRAMS {
            return None;
        }
        self.arena.get_mut(self.used..self.used.checked_add(capacity)?)
    }

    /// Queues the first `len` bytes of the last reservation towards `path`.
    pub fn commit(&mut self, path: Path, len: usize) {
        let end = (self.used + len).min(self.arena.len());
        debug_assert_eq!(end, self.used + len, "committed more than was reserved");
        self.datagrams.push(Datagram { path, bytes: self.used..end });
        self.used = end;
    }

    /// Copies a datagram in. `false` when the turn is full.
    #[must_use]
    pub fn push(&mut self, path: Path, datagram: &[u8]) -> bool {
        let Some(room) = self.reserve(datagram.len()) else { return false };
        room.copy_from_slice(datagram);
        self.commit(path, datagram.len());
        true
    }

    /// The datagrams in the order in which they were queued, with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Path, &[u8])> {
        self.datagrams.iter().map(|datagram| {
            (datagram.path, self.arena.get(datagram.bytes.clone()).unwrap_or_default())
        })
    }

    /// How many datagrams are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// How many bytes are queued.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// Forgets what is queued.
    pub fn clear(&mut self) {
        self.used = 0;
        self.datagrams.clear();
    }
}
