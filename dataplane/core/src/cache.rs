//! The last packets of an encoding, decrypted, for retransmission.

use crate::limits::{CACHE_AGE, CACHE_BYTES_MAX, CACHE_BYTES_MIN, DATAGRAM_BYTES};
use crate::peek::Peek;
use crate::time::{Instant, Now};

const _: () =
    assert!(CACHE_BYTES_MIN >= 2 * DATAGRAM_BYTES && CACHE_BYTES_MAX <= u32::MAX as usize);

/// A ring of bytes shared by all packets, and a ring of where each is.
///
/// Nothing is allocated before the first packet. The bytes double when a lap of the ring took less than [`CACHE_AGE`], so
/// that the memory follows the bit rate: 64 KiB for 0.5 Mbit/s, at most [`CACHE_BYTES_MAX`].
#[derive(Debug)]
pub(crate) struct Cache {
    packets: usize,
    bytes: Vec<u8>,
    /// Bytes written since the start; its remainder is the place in the ring.
    written: u64,
    /// When the ring last started over.
    lap_at: Instant,
    entries: Vec<Option<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: u64,
    start: u64,
    len: u16,
    received: Now,
    peek: Peek,
}

/// A packet that was kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept<'a> {
    pub(crate) received: Now,
    pub(crate) peek: Peek,
    pub(crate) bytes: &'a [u8],
}

impl Cache {
    /// For at most `packets` packets.
    pub(crate) fn new(packets: usize) -> Self {
        Self {
            packets: packets.max(1),
            bytes: Vec::new(),
            written: 0,
            lap_at: Instant::default(),
            entries: Vec::new(),
        }
    }

    /// Keeps a packet, and what was seen of its payload.
    pub(crate) fn insert(&mut self, now: Now, seq: u64, packet: &[u8], peek: Peek) {
        if packet.len() > DATAGRAM_BYTES {
            return;
        }
        if self.entries.is_empty() {
            self.entries.resize(self.packets, None);
            self.bytes.resize(CACHE_BYTES_MIN, 0);
            self.lap_at = now.at;
        }
        let mut start = self.place(packet.len());
        if start > 0 && start.is_multiple_of(self.bytes.len() as u64) {
            if self.bytes.len() < CACHE_BYTES_MAX && now.at.since(self.lap_at) < CACHE_AGE {
                self.grow();
                start = self.place(packet.len());
            } else {
                self.lap_at = now.at;
            }
        }
        let at = (start % self.bytes.len() as u64) as usize;
        let Some(room) = self.bytes.get_mut(at..at + packet.len()) else { return };
        room.copy_from_slice(packet);
        self.written = start + packet.len() as u64;
        let index = self.index(seq);
        let entry = Entry { seq, start, len: packet.len() as u16, received: now, peek };
        // A late packet must not push out the newer one that has its slot.
        if let Some(slot) = self.entries.get_mut(index)
            && slot.is_none_or(|held| held.seq < seq)
        {
            *slot = Some(entry);
        }
    }

    /// A packet.
    pub(crate) fn get(&self, seq: u64) -> Option<Kept<'_>> {
        let entry = (*self.entries.get(self.index(seq))?)?;
        let overwritten = entry.start + (self.bytes.len() as u64) < self.written;
        if entry.seq != seq || overwritten {
            return None;
        }
        let at = (entry.start % self.bytes.len() as u64) as usize;
        let bytes = self.bytes.get(at..at + usize::from(entry.len))?;
        Some(Kept { received: entry.received, peek: entry.peek, bytes })
    }

    /// How many bytes are allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Option<Entry>>()
    }

    /// Gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.packets);
    }

    fn index(&self, seq: u64) -> usize {
        (seq % self.packets as u64) as usize
    }

    /// Where the next packet goes: packets do not wrap, so that each is one slice.
    fn place(&self, len: usize) -> u64 {
        let size = self.bytes.len() as u64;
        let left = size - self.written % size;
        if left <= len as u64 { self.written + left } else { self.written }
    }

    /// Doubles the ring and packs what it holds.
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.bytes);
        let size = old.len() as u64;
        let whole = |entry: &Entry| entry.start + size >= self.written;
        let mut held: Vec<Entry> = self.entries.iter().flatten().copied().filter(whole).collect();
        held.sort_unstable_by_key(|entry| entry.start);
        self.bytes = vec![0; (old.len() * 2).min(CACHE_BYTES_MAX)];
        self.entries.iter_mut().for_each(|entry| *entry = None);
        self.written = 0;
        for mut entry in held {
            let (from, len) = ((entry.start % size) as usize, usize::from(entry.len));
            let to = self.written as usize;
            let (Some(room), Some(packet)) =
                (self.bytes.get_mut(to..to + len), old.get(from..from + len))
            else {
                return;
            };
            room.copy_from_slice(packet);
            entry.start = self.written;
            self.written += len as u64;
            let index = self.index(entry.seq);
            if let Some(slot) = self.entries.get_mut(index) {
                *slot = Some(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;

    fn now(ms: u64) -> Now {
        Now { at: Instant::default() + Duration::from_millis(ms), ntp: ms }
    }

    #[test]
    fn nothing_is_allocated_before_the_first_packet() {
        let mut cache = Cache::new(512);
        assert_eq!(cache.bytes(), 0);
        cache.insert(now(0), 70_000, b"packet", Peek::default());
        assert!(cache.bytes() < 64 << 10, "{}", cache.bytes());
        assert_eq!(cache.get(70_000).map(|kept| kept.bytes), Some(&b"packet"[..]));
        cache.clear();
        assert_eq!((cache.bytes(), cache.get(70_000).is_none()), (0, true));
    }

    #[test]
    fn memory_follows_the_bit_rate() {
        let (mut slow, mut fast) = (Cache::new(512), Cache::new(512));
        for n in 0..3000_u64 {
            slow.insert(now(n * 20), n, &[0; 1000], Peek::default());
            fast.insert(now(n), n, &[0; 1200], Peek::default());
        }
        assert!(slow.bytes() <= 96 << 10, "{}", slow.bytes());
        assert!(fast.bytes() <= CACHE_BYTES_MAX + (32 << 10), "{}", fast.bytes());
        assert!(fast.get(2999 - 400).is_some() && fast.get(2999 - 512).is_none());
    }

    proptest! {
        /// What it gives back is what was put in, and the newest packets are always there.
        #[test]
        fn gives_back_what_was_put_in(
            packets in prop::collection::vec((1_usize..1500, 0_u64..40, 0_u64..3), 1..900)
        ) {
            let mut cache = Cache::new(64);
            let (mut seq, mut ms) = (70_000, 0);
            let mut newest = Vec::new();
            for (len, wait, skip) in packets {
                seq += 1 + skip;
                ms += wait;
                cache.insert(now(ms), seq, &vec![seq as u8; len], Peek::default());
                newest.push((seq, len));
            }
            for (back, (seq, len)) in newest.iter().rev().enumerate() {
                match cache.get(*seq) {
                    Some(kept) => prop_assert_eq!(kept.bytes, &vec![*seq as u8; *len][..]),
                    None => prop_assert!(back > 8, "lost {} packets back", back),
                }
            }
        }
    }
}
