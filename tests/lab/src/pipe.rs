//! A line that holds datagrams until they are due, and whose conditions can change at any moment.

use crate::link::{Conditions, Fate, Link};
use crate::rng::Rng;
use crate::truth::{Counts, Truth};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Datagrams that one pipe holds: ten seconds of 60 Mbit/s. Beyond, they are lost as at the tail of a queue.
pub const HELD: usize = 65_536;

/// One direction of a line between real sockets. Times since the beginning of the run.
#[derive(Debug)]
pub struct Pipe<T> {
    link: Link,
    truth: Truth,
    held: BinaryHeap<Reverse<Held<T>>>,
    order: u64,
}

#[derive(Debug)]
struct Held<T> {
    due: Duration,
    order: u64,
    entered: Duration,
    /// When its first bit leaves the bottleneck, and its last.
    start: Duration,
    out: Duration,
    /// May be overtaken: its place does not bind the others.
    detoured: bool,
    /// A second copy, of which the truth has heard.
    copy: bool,
    item: T,
}

impl<T: Clone> Pipe<T> {
    /// A pipe that is so until [`Pipe::change`] says otherwise.
    #[must_use]
    pub fn new(conditions: Conditions, rng: Rng) -> Self {
        Self {
            link: Link::steady(conditions, rng),
            truth: Truth::new(),
            held: BinaryHeap::new(),
            order: 0,
        }
    }

    /// Takes a datagram of `len` bytes of UDP payload. Says what will become of it, if nothing changes.
    pub fn push(&mut self, now: Duration, len: usize, item: T) -> Fate {
        if self.held.len() >= HELD {
            self.truth.lost();
            return Fate::QueueFull;
        }
        let fate = self.link.carry(now, len);
        let Some(passage) = fate.passage() else {
            self.truth.lost();
            return fate;
        };
        self.truth.passed();
        let held = |due, order, copy, item| {
            let start = now + passage.waited;
            let (out, detoured) = (passage.out, passage.detoured || copy);
            Reverse(Held { due, order, entered: now, start, out, detoured, copy, item })
        };
        if let Some(again) = passage.again {
            self.held.push(held(again, self.order + 1, true, item.clone()));
        }
        self.held.push(held(passage.arrival, self.order, false, item));
        self.order += 2;
        fate
    }

    /// The next datagram that is due, and how long it waited in the queue.
    pub fn pop(&mut self, now: Duration) -> Option<(Duration, T)> {
        self.held.peek().filter(|next| next.0.due <= now)?;
        let Reverse(held) = self.held.pop()?;
        let waited = held.start.saturating_sub(held.entered);
        if !held.copy {
            self.truth.waited(waited);
        }
        Some((waited, held.item))
    }

    /// When the next datagram is due.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.held.peek().map(|next| next.0.due)
    }

    /// From `now` on it is so; what waits in the queue is sent at the new rate.
    pub fn change(&mut self, now: Duration, conditions: Conditions) {
        let shift = self.link.change(now, conditions);
        let mut held = std::mem::take(&mut self.held).into_vec();
        held.sort_unstable_by_key(|held| held.0.order);
        let mut last = Duration::ZERO;
        for Reverse(held) in &mut held {
            let after = held.due.saturating_sub(held.out);
            (held.start, held.out) = (shift.of(held.start), shift.of(held.out));
            held.due = held.out + after;
            if !held.detoured {
                last = last.max(held.due);
                held.due = last;
            }
        }
        self.link.follow(last);
        self.held = held.into();
    }

    /// What holds at `now`.
    #[must_use]
    pub fn conditions(&self, now: Duration) -> Conditions {
        self.link.conditions(now)
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.link.counts()
    }

    /// What is known of what went through so far.
    #[must_use]
    pub fn truth(&self) -> &Truth {
        &self.truth
    }
}

impl<T> PartialEq for Held<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Held<T> {}

impl<T> PartialOrd for Held<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Held<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Bottleneck, Queue};

    const MS: Duration = Duration::from_millis(1);

    fn limited(rate_bps: u64) -> Conditions {
        let bottleneck = Bottleneck { rate_bps, queue: Queue::Bytes(1 << 20) };
        Conditions { delay: 5 * MS, bottleneck: Some(bottleneck), ..Conditions::CLEAR }
    }

    fn fill(pipe: &mut Pipe<u32>, count: u32, gap: Duration) {
        for n in 0..count {
            pipe.push(gap * n, 100, n);
        }
    }

    fn drain(pipe: &mut Pipe<u32>) -> Vec<(u32, Duration, Duration)> {
        let mut all = Vec::new();
        while let Some(due) = pipe.due() {
            assert!(pipe.pop(due - Duration::from_nanos(1)).is_none(), "not before it is due");
            let (waited, item) = pipe.pop(due).expect("due");
            all.push((item, due, waited));
        }
        all
    }

    #[test]
    fn datagrams_come_out_when_they_are_due() {
        let mut pipe = Pipe::new(limited(1_024_000), Rng::new(1));
        fill(&mut pipe, 10, Duration::ZERO);
        for (item, due, waited) in drain(&mut pipe) {
            assert_eq!((due, waited), (MS * (item + 6), MS * item));
        }
        let p95 = pipe.truth().queue_delay(0.95);
        assert_eq!((p95, pipe.counts().sent), (9 * MS, 10));
    }

    #[test]
    fn what_waits_is_sent_at_the_new_rate() {
        let mut pipe = Pipe::new(limited(1_024_000), Rng::new(1));
        fill(&mut pipe, 10, Duration::ZERO);
        // Half of the third one is out.
        pipe.change(MS * 5 / 2, limited(102_400));
        pipe.push(MS * 5 / 2, 100, 10);
        let out = drain(&mut pipe);
        assert_eq!(out[1].1, 7 * MS);
        assert_eq!(out[2].1, MS * 5 / 2 + 5 * MS + 5 * MS);
        assert_eq!(out[9].1 - out[2].1, 70 * MS);
        assert_eq!(out[10].1 - out[9].1, 10 * MS, "who comes later comes after");

        let mut pipe = Pipe::new(limited(102_400), Rng::new(1));
        fill(&mut pipe, 10, Duration::ZERO);
        pipe.change(15 * MS, Conditions::CLEAR);
        pipe.push(15 * MS, 100, 10);
        let out = drain(&mut pipe);
        assert!(out[1..10].iter().all(|(_, due, _)| *due == 20 * MS), "{out:?}");
        assert_eq!(out[10], (10, 20 * MS, Duration::ZERO), "in order, though its delay is gone");
    }

    #[test]
    fn losses_and_copies_are_in_the_truth() {
        let odd = Conditions { loss: 0.2, duplicate: 0.3, ..limited(10_000_000) };
        let mut pipe = Pipe::new(odd, Rng::new(5));
        fill(&mut pipe, 5000, MS);
        let out = drain(&mut pipe);
        let counts = pipe.counts();
        assert_eq!(out.len() as u64, counts.sent - counts.lost + counts.duplicated);
        assert!((pipe.truth().loss() - counts.lost as f64 / 5000.0).abs() < 1e-9);
        assert!(out.is_sorted_by_key(|(_, due, _)| *due));
    }

    #[test]
    fn it_holds_so_much_and_no_more() {
        let far = Conditions { delay: Duration::from_secs(60), ..Conditions::CLEAR };
        let mut pipe = Pipe::new(far, Rng::new(1));
        fill(&mut pipe, HELD as u32 + 9, Duration::ZERO);
        assert_eq!(pipe.push(Duration::ZERO, 1, 0), Fate::QueueFull);
        assert_eq!(drain(&mut pipe).len(), HELD);
    }
}
