//! What a native peer has received.

use std::collections::HashMap;
use std::ops::Range;

use strait_core::time::Instant;

use crate::histogram::Histogram;
use crate::payload::{Damage, Identity};

#[derive(Default)]
pub(super) struct Seen {
    /// From the first call to `Joined`; 0 before.
    pub join_ns: u64,
    pub published: bool,
    /// Publications that are there and were not asked for.
    pub found: Vec<String>,
    pub subscribed: usize,
    pub key_wanted: bool,
    /// Why it cannot go on.
    pub failed: Option<String>,
    pub links_lost: u64,
    pub corrupt: u64,
    pub foreign: u64,
    pub duplicate: u64,
    pub latency: Times,
    pub messages: u64,
    pub messages_disordered: u64,
    pub message_latency: Times,
    streams: HashMap<u32, Came>,
    /// The number of the next message of each sender.
    senders: HashMap<u32, u64>,
}

/// A histogram that is made when it is needed.
pub(super) type Times = Option<Box<Histogram>>;

fn add(times: &mut Times, sent_ns: u64, now: Instant) {
    let times = times.get_or_insert_with(|| Box::new(Histogram::new()));
    times.add(now.0.saturating_sub(sent_ns));
}

/// Which packets of a stream came: a bit for each, an hour of 300 a second is 135 kB.
#[derive(Default)]
struct Came(Vec<u64>);

impl Came {
    /// Whether it had come before.
    fn replace(&mut self, counter: u64) -> bool {
        let (at, bit) = ((counter / 64) as usize, 1 << (counter % 64));
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let word = self.0.get_mut(at);
        word.is_some_and(|word| std::mem::replace(word, *word | bit) & bit != 0)
    }

    fn has(&self, counter: u64) -> bool {
        let word = self.0.get((counter / 64) as usize).copied().unwrap_or(0);
        word & 1 << (counter % 64) != 0
    }
}

/// A counter beyond is none of a run, and must not make room for itself.
const COUNTER_MAX: u64 = 1 << 32;

impl Seen {
    pub(super) fn packet(&mut self, read: Result<Identity, Damage>, now: Instant) {
        match read {
            Ok(identity) if identity.counter < COUNTER_MAX => {
                let stream = self.streams.entry(identity.stream).or_default();
                if stream.replace(identity.counter) {
                    self.duplicate += 1;
                } else {
                    add(&mut self.latency, identity.sent_ns, now);
                }
            }
            Ok(_) | Err(Damage::NotOurs) => self.foreign += 1,
            Err(Damage::Changed) => self.corrupt += 1,
        }
    }

    pub(super) fn message(&mut self, payload: &[u8], now: Instant) {
        let Some((head, _)) = payload.split_first_chunk::<20>() else {
            self.foreign += 1;
            return;
        };
        let (stream, rest) = head.split_at(4);
        let (number, sent) = rest.split_at(8);
        let read = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (stream, number) = (read(stream) as u32, read(number));
        let next = self.senders.entry(stream).or_default();
        if number != *next {
            self.messages_disordered += 1;
        }
        *next = number + 1;
        self.messages += 1;
        add(&mut self.message_latency, read(sent), now);
    }

    /// Packets of a stream that came, of those with these numbers.
    pub(super) fn received(&self, stream: u32, counted: Range<u64>) -> u64 {
        let came = self.streams.get(&stream);
        came.map_or(0, |came| counted.filter(|counter| came.has(*counter)).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::member::message;

    #[test]
    fn packets_are_counted_once() {
        let mut seen = Seen::default();
        for counter in [0, 1, 63, 64, 64, 200] {
            let identity = Identity { stream: 3, counter, sent_ns: 5, ..Identity::default() };
            seen.packet(Ok(identity), Instant(10));
        }
        let far = Identity { stream: 3, counter: u64::MAX, ..Identity::default() };
        seen.packet(Ok(far), Instant(10));
        seen.packet(Err(Damage::Changed), Instant(10));
        assert_eq!((seen.duplicate, seen.foreign, seen.corrupt), (1, 1, 1));
        assert_eq!(seen.received(3, 0..65), 4);
        assert_eq!(seen.received(3, 64..1000), 2);
        assert_eq!(seen.received(4, 0..65), 0);
        assert_eq!(seen.latency.unwrap().summary().packets, 5);
    }

    #[test]
    fn messages_have_an_order_for_each_sender() {
        let mut seen = Seen::default();
        for (stream, number) in [(1, 0), (2, 0), (1, 1), (2, 2), (2, 3)] {
            seen.message(&message(stream, number, Instant(7)), Instant(9));
        }
        seen.message(b"hello", Instant(9));
        assert_eq!((seen.messages, seen.messages_disordered, seen.foreign), (5, 1, 1));
    }
}
