//! State per SSRC: a small sorted list, because a peer has a handful of them, and a memory of the last one used,
//! because packets come in runs.

use super::Error;

#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Vec<(u32, T)>,
    last: usize,
    limit: usize,
}

impl<T> Table<T> {
    /// At most `limit` SSRCs.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), last: 0, limit }
    }

    /// Where the state of `ssrc` is, or would be.
    pub(crate) fn find(&self, ssrc: u32) -> Result<Slot, Vacancy> {
        if self.entries.get(self.last).is_some_and(|(known, _)| *known == ssrc) {
            return Ok(Slot(self.last));
        }
        self.entries
            .binary_search_by_key(&ssrc, |(known, _)| *known)
            .map(Slot)
            .map_err(|at| Vacancy { at, ssrc })
    }

    /// The state in a slot of this table.
    pub(crate) fn get(&self, slot: Slot) -> Option<&T> {
        self.entries.get(slot.0).map(|(_, state)| state)
    }

    /// The state in a slot of this table, which becomes the last one used.
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.last = slot.0;
        self.entries.get_mut(slot.0).map(|(_, state)| state)
    }

    /// Whether another SSRC has room.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        if self.entries.len() < self.limit { Ok(()) } else { Err(Error::TooManySsrcs) }
    }

    /// Fills a vacancy of this table, if there is room. Only after a packet proved to be authentic.
    pub(crate) fn insert(&mut self, vacancy: Vacancy, state: T) {
        if self.entries.len() < self.limit && vacancy.at <= self.entries.len() {
            if self.entries.len() == self.entries.capacity() {
                // Growing by a few instead of doubling: most peers stay at a handful.
                self.entries.reserve_exact((self.entries.len() / 2).clamp(4, 64));
            }
            self.entries.insert(vacancy.at, (vacancy.ssrc, state));
            self.last = vacancy.at;
        }
    }

    /// Forgets `ssrc`; `false` when it was not known.
    pub(crate) fn remove(&mut self, ssrc: u32) -> bool {
        let found = self.find(ssrc);
        if let Ok(slot) = found {
            self.entries.remove(slot.0);
            self.last = 0;
        }
        found.is_ok()
    }

    /// How many SSRCs are known.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u32, T)>()
    }
}

/// A place that is taken, until the table changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(usize);

/// A place that an SSRC would take, until the table changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vacancy {
    at: usize,
    ssrc: u32,
}
