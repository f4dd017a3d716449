//! The last packets of an encoding, decrypted, for retransmission.

use crate::limits::{CACHE_AGE, CACHE_BYTES_MAX, CACHE_BYTES_MIN, DATAGRAM_BYTES};
use crate::peek::Peek;
use crate::time::{Duration, Instant, Now};

const _: () =
    assert!(CACHE_BYTES_MIN >= 2 * DATAGRAM_BYTES && CACHE_BYTES_MAX <= u32::MAX as usize);

/// A ring of bytes shared by all packets, and a ring of where each is.
///
/// Nothing is allocated before the first packet. The bytes double before anything is overwritten that came within nearly
/// [`CACHE_AGE`], so that the memory follows the bit rate: 64 KiB for 0.5 Mbit/s, at most [`CACHE_BYTES_MAX`]. How old what is
/// overwritten is is known of each eighth of the ring: a lap may begin slowly and end with a burst.
#[derive(Debug)]
pub(crate) struct Cache {
    packets: usize,
    bytes: Vec<u8>,
    /// Bytes written since the start; its remainder is the place in the ring.
    written: u64,
    /// The part of the ring that is written to, and when each was last.
    part: usize,
    parts: [Instant; PARTS],
    entries: Vec<Option<Entry>>,
}

/// Parts of a ring.
const PARTS: usize = 8;
/// At an even rate the part that comes next was written to seven eighths of a lap ago.
const PART_AGE: Duration =
    Duration::from_micros(CACHE_AGE.as_micros() as u64 / PARTS as u64 * (PARTS as u64 - 1));

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
            part: 0,
            parts: [Instant::default(); PARTS],
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
        }
        let mut start = self.place(packet.len());
        let mut part = self.part_of(start, packet.len());
        if part != self.part {
            let size = self.bytes.len();
            let overwrites = start >= size as u64 && size < CACHE_BYTES_MAX;
            let last = self.parts.get(part).copied().unwrap_or_default();
            if overwrites && now.at.since(last) < PART_AGE {
                self.grow();
                start = self.place(packet.len());
                part = self.part_of(start, packet.len());
            }
            self.part = part;
        }
        self.parts.get_mut(part).into_iter().for_each(|last| *last = now.at);
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

    /// The part of the ring in which a packet ends.
    fn part_of(&self, start: u64, len: usize) -> usize {
        let size = self.bytes.len().max(1);
        let end = (start % size as u64) as usize + len.saturating_sub(1);
        end.saturating_mul(PARTS) / size
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
        self.parts = [Instant::default(); PARTS];
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
            let part = self.part_of(entry.start, len);
            if let Some(last) = self.parts.get_mut(part) {
                *last = entry.received.at.max(*last);
            }
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

    #[test]
    fn a_burst_after_silence_is_kept_whole() {
        let mut cache = Cache::new(512);
        for n in 0..9 {
            cache.insert(now(n * 30), n, &[0; 1000], Peek::default());
        }
        for n in 9..200 {
            cache.insert(now(5000 + n), n, &[0; 1000], Peek::default());
        }
        assert!((9..200).all(|n| cache.get(n).is_some()));
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
