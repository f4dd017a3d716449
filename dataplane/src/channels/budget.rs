//! What a peer's SCTP packets may cost. The library goes through what waits for each chunk that comes, so that packets of
//! many tiny ones cost milliseconds of the thread that all peers share; here each peer has so much work a second, and
//! so many chunks that may wait. What is beyond goes, and SCTP sends it again.

use crate::limits::{CHANNEL_CHUNKS_WAITING, CHANNEL_RECEIVE_BYTES, CHANNEL_STREAMS, CHANNEL_WORK};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Work that may come at once, as time at the rate.
const BURST: Duration = Duration::from_secs(2);
/// So many chunks that wait to be read, or for an acknowledgement, make a chunk that comes cost as much again.
const WAITING_PER_WORK: usize = 256;
const SENT_PER_WORK: usize = 64;
/// Bytes of a chunk that lists streams for which it costs as much again: four of them.
const LISTED_PER_WORK: usize = 16;

/// Bytes in front of a packet's chunks (RFC 9260 section 3).
const COMMON_HEADER: usize = 12;
/// Chunk types (RFC 9260 section 3.2, RFC 3758, RFC 8260, RFC 6525), and bytes in front of what DATA and SACK carry.
const DATA: u8 = 0;
const SACK: u8 = 3;
const LISTS: [u8; 3] = [130, 192, 194];
const DATA_HEADER: usize = 16;
const SACK_HEADER: usize = 16;

/// What one peer used up, and what waits for it and from it.
#[derive(Debug)]
pub(super) struct Budget {
    /// When as much work as came would have come at the rate.
    used: Instant,
    /// Chunks that came and were not read.
    waiting: usize,
    /// Up to where everything came, as the peer was told; and what came beyond.
    cumulative: Option<u32>,
    beyond: BTreeSet<u32>,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { used: now, waiting: 0, cumulative: None, beyond: BTreeSet::new() }
    }

    /// Whether it used up so much that nothing of it is looked at.
    pub(super) fn is_used_up(&self, now: Instant) -> bool {
        self.used > now + BURST
    }

    /// Whether the library may see a packet. `sent`: messages to the peer that it did not acknowledge.
    pub(super) fn admits(&mut self, now: Instant, packet: &[u8], sent: usize) -> bool {
        if self.is_used_up(now) {
            return false;
        }
        // What came beyond a gap is kept by the library until the gap is filled, read or not.
        let scan = 1 + self.waiting.max(self.beyond.len()) / WAITING_PER_WORK;
        let (mut work, mut is_good, mut new) = (1, true, 0);
        let mut fills_gap = false;
        for chunk in chunks(packet) {
            work += match chunk.first() {
                Some(&DATA) => {
                    is_good &= is_data(chunk);
                    let tsn = number(chunk, 4);
                    new += usize::from(tsn.is_some_and(|tsn| self.is_new(tsn)));
                    fills_gap |=
                        tsn.is_some() && tsn == self.cumulative.map(|at| at.wrapping_add(1));
                    scan
                }
                Some(&SACK) => {
                    is_good &= is_sack(chunk);
                    1 + sent / SENT_PER_WORK
                }
                Some(kind) if LISTS.contains(kind) => {
                    (1 + chunk.len() / LISTED_PER_WORK) * (scan + sent / SENT_PER_WORK)
                }
                _ => 1,
            };
        }
        let work = u32::try_from(work).unwrap_or(u32::MAX);
        self.used = self.used.max(now) + Duration::from_secs(1) / CHANNEL_WORK * work;
        // What everything else waits for must find room.
        let most = CHANNEL_CHUNKS_WAITING * if fills_gap { 2 } else { 1 };
        let is_full =
            self.waiting >= most || (!fills_gap && self.beyond.len() >= CHANNEL_CHUNKS_WAITING);
        if !is_good || (new > 0 && is_full) {
            return false;
        }
        for chunk in chunks(packet).filter(|chunk| chunk.first() == Some(&DATA)) {
            let tsn = number(chunk, 4).filter(|tsn| self.is_new(*tsn));
            self.waiting += usize::from(tsn.is_some_and(|tsn| self.beyond.insert(tsn)));
        }
        true
    }

    /// The association is gone, and all that waited. What was used up was.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.used);
    }

    /// A message of so many chunks was read.
    pub(super) fn read(&mut self, chunks: usize) {
        self.waiting = self.waiting.saturating_sub(chunks);
    }

    /// What the peer is told says what there is.
    pub(super) fn told(&mut self, packet: &[u8]) {
        for sack in chunks(packet).filter(|chunk| chunk.first() == Some(&SACK)) {
            self.cumulative = number(sack, 4);
            self.beyond.retain(|tsn| is_beyond(*tsn, self.cumulative));
            if number(sack, 8) == Some(CHANNEL_RECEIVE_BYTES) {
                // Also of what was given up nothing is left.
                self.waiting = 0;
            }
        }
    }

    fn is_new(&self, tsn: u32) -> bool {
        is_beyond(tsn, self.cumulative) && !self.beyond.contains(&tsn)
    }
}

/// Serial numbers (RFC 1982).
fn is_beyond(tsn: u32, cumulative: Option<u32>) -> bool {
    cumulative.is_none_or(|at| (tsn.wrapping_sub(at) as i32) > 0)
}

/// The library takes DATA without data (RFC 9260 section 6.2), which counts nothing against its window, and on streams that
/// were not agreed on, of which it keeps each.
fn is_data(chunk: &[u8]) -> bool {
    let stream = chunk.get(8..10).and_then(|bytes| bytes.try_into().ok());
    let is_agreed = stream.is_some_and(|stream| u16::from_be_bytes(stream) < CHANNEL_STREAMS);
    length(chunk) > DATA_HEADER && is_agreed
}

/// Gaps come in order and none twice: the library goes through all that each of them names.
fn is_sack(chunk: &[u8]) -> bool {
    let count = chunk.get(12..14).and_then(|bytes| bytes.try_into().ok());
    let count = usize::from(count.map_or(0, u16::from_be_bytes));
    let blocks = chunk.get(SACK_HEADER..).unwrap_or_default().chunks_exact(4).take(count);
    let mut last = 0;
    blocks.into_iter().all(|block| {
        let &[a, b, c, d] = block else { return false };
        let (start, end) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let is_next = start > last && end >= start;
        last = end;
        is_next
    })
}

fn length(chunk: &[u8]) -> usize {
    match *chunk {
        [_, _, high, low, ..] => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    }
}

fn number(chunk: &[u8], at: usize) -> Option<u32> {
    let bytes = chunk.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// The chunks of a packet, each with all that follows it where its length says so.
fn chunks(packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet.get(COMMON_HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let chunk = Some(rest).filter(|rest| rest.len() >= 4)?;
        // Padded to four bytes; a length that is none ends the packet for the library as well.
        let length = length(chunk).max(4);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(chunk.get(..length).unwrap_or(chunk))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; COMMON_HEADER], chunks.concat()].concat()
    }

    fn data(length: u16, tsn: u32, stream: u16, payload: &[u8]) -> Vec<u8> {
        let mut chunk = vec![DATA, 3];
        chunk.extend(length.to_be_bytes());
        chunk.extend(tsn.to_be_bytes());
        chunk.extend(stream.to_be_bytes());
        chunk.extend([0, 0, 0, 0, 0, 51]);
        chunk.extend(payload);
        chunk
    }

    fn byte(tsn: u32) -> Vec<u8> {
        data(17, tsn, 0, &[1, 0, 0, 0])
    }

    fn sack(cumulative: u32, window: u32, blocks: &[[u16; 2]]) -> Vec<u8> {
        let mut chunk = vec![SACK, 0];
        chunk.extend((SACK_HEADER as u16 + 4 * blocks.len() as u16).to_be_bytes());
        chunk.extend(cumulative.to_be_bytes());
        chunk.extend(window.to_be_bytes());
        chunk.extend((blocks.len() as u16).to_be_bytes());
        chunk.extend([0, 0]);
        chunk.extend(blocks.as_flattened().iter().flat_map(|number| number.to_be_bytes()));
        chunk
    }

    fn is_admitted(packet: &[u8]) -> bool {
        let now = Instant::now();
        Budget::new(now).admits(now, packet, 0)
    }

    #[test]
    fn data_without_data_or_on_a_stream_that_was_not_agreed_on_breaks_the_rules() {
        assert!(is_admitted(&packet(&[byte(1)])));
        assert!(is_admitted(&packet(&[data(17, 1, CHANNEL_STREAMS - 1, &[1, 0, 0, 0])])));
        assert!(!is_admitted(&packet(&[data(16, 1, 0, &[])])));
        assert!(!is_admitted(&packet(&[data(17, 1, CHANNEL_STREAMS, &[1, 0, 0, 0])])));
        // Also behind another.
        assert!(!is_admitted(&packet(&[byte(1), data(16, 2, 0, &[])])));
        // What is no packet is the library's to refuse.
        for length in 0..COMMON_HEADER + 4 {
            assert!(is_admitted(&vec![0xff; length]));
        }
        assert!(is_admitted(&packet(&vec![vec![1, 0, 0, 0]; 50])));
    }

    #[test]
    fn gaps_that_are_named_twice_break_the_rules() {
        assert!(is_admitted(&packet(&[sack(7, 1000, &[[2, 3], [5, 5]])])));
        assert!(!is_admitted(&packet(&[sack(7, 1000, &[[2, 300], [2, 300]])])));
        assert!(!is_admitted(&packet(&[sack(7, 1000, &[[5, 4]])])));
        assert!(!is_admitted(&packet(&[sack(7, 1000, &[[0, 4]])])));
    }

    #[test]
    fn work_comes_in_a_burst_and_then_at_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        // SACKs of a peer that has thousands of messages on their way cost many chunks each.
        let heavy = packet(&[sack(7, 1000, &[])]);
        let mut admitted = |from: u64, to: u64, sent: usize| {
            let steps = (from * 1000..to * 1000).map(Duration::from_millis);
            steps.filter(|at| budget.admits(start + *at, &heavy, sent)).count() as u32
        };
        assert_eq!(admitted(0, 10, 0), 10_000, "who acknowledges each millisecond is not held");
        let each = 2 + 4096 / SENT_PER_WORK as u32;
        let count = admitted(20, 30, 4096);
        assert!((count * each).abs_diff(12 * CHANNEL_WORK) <= 3 * each, "{count}");
        assert_eq!(admitted(60, 61, 0), 1000, "and may again later");
    }

    #[test]
    fn so_many_chunks_wait_and_what_fills_a_gap_finds_room() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        budget.told(&packet(&[sack(10, 1000, &[])]));
        // 11 is lost.
        let mut at = now;
        let most = CHANNEL_CHUNKS_WAITING as u32;
        for tsn in 12..12 + most {
            at += Duration::from_millis(10);
            assert!(budget.admits(at, &packet(&[byte(tsn)]), 0), "{tsn}");
            assert!(budget.admits(at, &packet(&[byte(tsn)]), 0), "the same again waits once");
        }
        at += Duration::from_secs(60);
        assert!(!budget.admits(at, &packet(&[byte(12 + most)]), 0), "too many");
        assert!(budget.admits(at, &packet(&[byte(11)]), 0));
        // All of it is read.
        budget.told(&packet(&[sack(11 + most, 1000, &[])]));
        budget.read(1 + most as usize);
        assert_eq!((budget.waiting, budget.beyond.len()), (0, 0));
        assert!(budget.admits(at, &packet(&[byte(12 + most)]), 0));
        // Given up by the peer: it is never read.
        budget.told(&packet(&[sack(12 + most, CHANNEL_RECEIVE_BYTES, &[])]));
        assert_eq!(budget.waiting, 0);
    }
}
