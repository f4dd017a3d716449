//! A decoder as far as the relay can tell: which frames are whole, and whether each has what it needs.

use crate::payload::{Identity, Read};
use std::collections::{BTreeMap, BTreeSet};
use strait_core::time::{Duration, Instant};

/// A hole is waited for so long before decoding starts anew at a key frame.
const GIVE_UP: Duration = Duration::from_millis(500);
/// A hole that a whole key frame follows is given up earlier.
const SKIP_AFTER: Duration = Duration::from_millis(120);
/// Packets that wait.
const WAITING: usize = 1000;

/// A packet that waits to be decoded.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// When it came.
    pub at: Instant,
    /// What its payload says.
    pub read: Read,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Last of its frame.
    pub marker: bool,
}

/// What decoding brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame.
    Frame(Identity),
    /// A hole stays: a key frame is needed.
    Frozen,
    /// All packets were there, and yet the decoder could have made nothing of them.
    Broken(String),
}

/// The frames of one stream. Sequence numbers are in long form.
#[derive(Debug, Default)]
pub struct Chain {
    waiting: BTreeMap<u64, Option<Arrived>>,
    /// Where whole key frames may start.
    keys: BTreeSet<u64>,
    /// The next packet of an intact chain.
    next: Option<u64>,
    last: Option<(Identity, u32)>,
    blocked_since: Option<Instant>,
    done: u64,
}

impl Chain {
    /// A packet came; `None` has only padding.
    pub fn insert(&mut self, seq: u64, packet: Option<Arrived>) {
        if seq < self.done {
            return;
        }
        if packet.is_some_and(|packet| packet.read.start && packet.read.key) {
            self.keys.insert(seq);
        }
        self.waiting.insert(seq, packet);
        if self.waiting.len() > WAITING
            && let Some((first, _)) = self.waiting.pop_first()
        {
            self.keys.remove(&first);
        }
    }

    /// Whether the next frame can be decoded once it is whole.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.next.is_some()
    }

    /// Whether packets came that cannot be decoded.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is older is of no use any more.
    #[must_use]
    pub fn decoded_up_to(&self) -> u64 {
        self.done
    }

    /// The timestamp of the newest frame as it came.
    #[must_use]
    pub fn newest_timestamp(&self) -> Option<u32> {
        self.last.map(|(_, timestamp)| timestamp)
    }

    /// The next thing that can be said; `None` until more comes or time passes.
    pub fn next(&mut self, now: Instant) -> Option<Event> {
        if let Some(next) = self.next {
            if self.waiting.get(&next).is_some_and(Option::is_none) {
                self.waiting.remove(&next);
                self.next = Some(next + 1);
                return self.next(now);
            }
            if let Some(end) = self.whole(next) {
                return Some(self.decode(next, end));
            }
            if self.waiting.is_empty() {
                self.blocked_since = None;
                return None;
            }
            let waits = now.since(*self.blocked_since.get_or_insert(now));
            if waits < SKIP_AFTER || (waits < GIVE_UP && self.key_frame().is_none()) {
                return None;
            }
            self.next = None;
            return Some(Event::Frozen);
        }
        let (start, end) = self.key_frame()?;
        Some(self.decode(start, end))
    }

    fn key_frame(&self) -> Option<(u64, u64)> {
        self.keys.iter().find_map(|start| Some((*start, self.whole(*start)?)))
    }

    /// The last packet of the frame that starts at `start`, if all of it is there.
    fn whole(&self, start: u64) -> Option<u64> {
        let timestamp = self.waiting.get(&start)?.as_ref()?.timestamp;
        for (seq, (found, packet)) in (start..).zip(self.waiting.range(start..)) {
            let packet = packet.as_ref().filter(|p| *found == seq && p.timestamp == timestamp)?;
            if packet.marker {
                return Some(seq);
            }
        }
        None
    }

    fn decode(&mut self, start: u64, end: u64) -> Event {
        let packets: Vec<Arrived> =
            self.waiting.range(start..=end).filter_map(|(_, packet)| *packet).collect();
        self.waiting = self.waiting.split_off(&(end + 1));
        self.keys = self.keys.split_off(&(end + 1));
        (self.next, self.done, self.blocked_since) = (Some(end + 1), end + 1, None);
        let last = self.last;
        let Some(first) = packets.first() else {
            return Event::Broken(format!("an empty frame at {start}"));
        };
        let identity = first.read.identity;
        self.last = Some((identity, first.timestamp));
        let whole = first.read.start
            && packets.len() == usize::from(identity.count)
            && packets
                .iter()
                .zip(0..)
                .all(|(packet, index)| packet.read.identity == Identity { index, ..identity });
        let has_reference = first.read.key
            || last.is_some_and(|(before, _)| {
                (before.stream, before.layer, before.frame + 1)
                    == (identity.stream, identity.layer, identity.frame)
            });
        if !whole {
            return Event::Broken(format!(
                "{start} to {end} look like a frame and are none: {identity:?}"
            ));
        }
        if !has_reference {
            return Event::Broken(format!("{identity:?} needs another frame than {last:?}"));
        }
        Event::Frame(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(frame: u32, index: u8, key: bool) -> Option<Arrived> {
        let timestamp = frame * 3000;
        let identity = Identity { stream: 1, layer: 0, frame, index, count: 2, key, timestamp };
        let (start, at) = (index == 0, Instant(0));
        let read = Read { start, key: key && start, picture_id: None, identity };
        Some(Arrived { at, read, timestamp, marker: index == 1 })
    }

    fn frames(chain: &mut Chain, now: Instant) -> Vec<u32> {
        let mut frames = Vec::new();
        while let Some(Event::Frame(identity)) = chain.next(now) {
            frames.push(identity.frame);
        }
        frames
    }

    #[test]
    fn nothing_is_decoded_before_a_key_frame() {
        let mut chain = Chain::default();
        for (seq, packet) in [(10, packet(0, 0, false)), (11, packet(0, 1, false))] {
            chain.insert(seq, packet);
        }
        assert!(frames(&mut chain, Instant(0)).is_empty());
        chain.insert(13, packet(1, 1, true));
        chain.insert(12, packet(1, 0, true));
        chain.insert(14, None);
        chain.insert(15, packet(2, 0, false));
        chain.insert(16, packet(2, 1, false));
        assert_eq!(frames(&mut chain, Instant(0)), [1, 2]);
    }

    #[test]
    fn a_hole_freezes_until_it_is_filled_or_given_up() {
        let second = Instant(1_000_000_000);
        let mut chain = Chain::default();
        chain.insert(1, packet(0, 0, true));
        chain.insert(2, packet(0, 1, true));
        chain.insert(4, packet(1, 1, false));
        assert_eq!(frames(&mut chain, second), [0]);
        chain.insert(3, packet(1, 0, false));
        assert_eq!(frames(&mut chain, second + GIVE_UP / 2), [1]);
        chain.insert(6, packet(2, 1, false));
        assert_eq!(chain.next(second), None);
        assert_eq!(chain.next(second + GIVE_UP), Some(Event::Frozen));
        assert!(!chain.is_intact());
    }

    #[test]
    fn a_frame_without_its_reference_is_a_fault() {
        let mut chain = Chain::default();
        chain.insert(1, packet(0, 0, true));
        chain.insert(2, packet(0, 1, true));
        chain.insert(3, packet(5, 0, false));
        chain.insert(4, packet(5, 1, false));
        assert_eq!(frames(&mut chain, Instant(0)), [0]);
        let mut chain = Chain { next: Some(3), ..Chain::default() };
        chain.insert(3, packet(5, 0, false));
        chain.insert(4, packet(5, 1, false));
        assert!(matches!(chain.next(Instant(0)), Some(Event::Broken(_))));
    }
}
