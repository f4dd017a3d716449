//! One direction of one peer's access link: the lab's, on the run's clock.

use crate::rng::Rng;
use strait_core::time::{Duration, Instant};
pub use strait_lab::link::{Bottleneck, Burst, Conditions, Queue};
pub use strait_lab::truth::Counts;

/// One direction of a link with its state.
#[derive(Clone, Debug)]
pub struct Link(strait_lab::link::Link);

impl Link {
    /// A direction that starts as [`Conditions::GOOD`] and changes as `timeline` says.
    #[must_use]
    pub fn new(timeline: &[(Instant, Conditions)], rng: Rng) -> Self {
        let timeline: Vec<_> = timeline.iter().map(|(at, c)| (since_start(*at), *c)).collect();
        Self(strait_lab::link::Link::new(&timeline, rng))
    }

    /// What holds at `now`.
    #[must_use]
    pub fn conditions(&self, now: Instant) -> Conditions {
        self.0.conditions(since_start(now))
    }

    /// Since when that has held, and what a connection held back before has arrived.
    #[must_use]
    pub fn changed_at(&self, now: Instant) -> Instant {
        START + self.0.changed_at(since_start(now))
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }

    /// When a datagram of `len` bytes sent at `now` arrives: never, once, or twice.
    pub fn carry(&mut self, now: Instant, len: usize) -> impl Iterator<Item = Instant> + use<> {
        self.0.carry(since_start(now), len).arrivals().map(|at| START + at)
    }

    /// When a frame of `len` bytes on a stream transport arrives: always, and in order; loss is time.
    pub fn carry_in_order(&mut self, now: Instant, len: usize) -> Instant {
        START + self.0.carry_in_order(since_start(now), len)
    }
}

const START: Instant = Instant(0);

fn since_start(at: Instant) -> Duration {
    at.since(START)
}
