//! What a [`crate::pacer::Pacer`] knows of each stream that waits in it.

use crate::limits::{PACER_BACKOFF_MAX, PACER_BACKOFF_MIN, PACER_STEADY};
use crate::time::{Duration, Instant};

/// The packets of one subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// Slot.
    pub(crate) subscription: u32,
    pub(crate) packets: u32,
    pub(crate) bytes: u64,
    /// How many of those that wait are of key frames.
    pub(crate) key_frames: u32,
    /// The newest picture that left or waits, and whether that is a key frame.
    pub(crate) picture: Option<(u8, u32, bool)>,
    /// The highest number that left or waits, and its encoding.
    pub(crate) newest: u64,
    pub(crate) on: u8,
    /// The picture that has begun to leave, and whether that is a key frame.
    pub(crate) leaves: Option<(u8, u32, bool)>,
    /// The number after the highest that left.
    pub(crate) next: u64,
    /// Something was given up: nothing can be shown before the next key frame.
    pub(crate) skips: bool,
    /// The encoding that was.
    pub(crate) skipped: u8,
    /// What was given up last is a key frame: the next one will be as long.
    pub(crate) too_long: bool,
    /// No key frame is asked for before this.
    again_at: Instant,
    backoff: Duration,
    begun_at: Instant,
}

impl Lane {
    fn new(subscription: u32, now: Instant) -> Self {
        Self {
            subscription,
            packets: 0,
            bytes: 0,
            key_frames: 0,
            picture: None,
            newest: 0,
            on: 0,
            leaves: None,
            next: 0,
            skips: false,
            skipped: 0,
            too_long: false,
            again_at: now,
            backoff: PACER_BACKOFF_MIN,
            begun_at: now,
        }
    }

    /// Whether the newest picture is this one.
    pub(crate) fn is_in(&self, encoding: u8, timestamp: u32) -> bool {
        self.picture.is_some_and(|(e, at, _)| (e, at) == (encoding, timestamp))
    }

    /// Whether a key frame waits that another of this encoding does not stand in for: each is to get its turn.
    pub(crate) fn keeps_key_frame(&self, encoding: u8) -> bool {
        let leaves = self.leaves.is_some_and(|(.., key_frame)| key_frame);
        self.key_frames > 0 && (self.on == encoding || leaves)
    }

    /// Goes on with the next key frame. What was given up soon after it had gone on waits longer the next time: each key
    /// frame costs everybody who watches.
    pub(crate) fn skip(&mut self, encoding: u8, now: Instant) {
        (self.skipped, self.too_long) = (encoding, false);
        if !std::mem::replace(&mut self.skips, true) {
            let steady = now.since(self.begun_at) >= PACER_STEADY;
            let longer = (2 * self.backoff).min(PACER_BACKOFF_MAX);
            self.backoff = if steady { PACER_BACKOFF_MIN } else { longer };
            self.again_at = now + self.backoff;
        }
    }

    /// Goes on.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.skips, self.begun_at) = (false, now);
    }

    /// When a key frame is to be asked for, if nothing of it waits before that. It need not wait long where the line carries
    /// what its peer takes: `fits`.
    pub(crate) fn asks_at(&self, fits: bool) -> Option<Instant> {
        let hurries = fits && !self.too_long;
        let sooner = if hurries { self.backoff - PACER_BACKOFF_MIN } else { Duration::ZERO };
        (self.skips && self.packets == 0).then(|| self.again_at - sooner)
    }

    /// It was asked for, and will be again if none comes that goes out.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.again_at = now + self.backoff;
    }
}

/// The lanes of one peer, in the order of their subscriptions: each packet looks for one.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Vec<Lane>);

impl Lanes {
    pub(crate) fn get(&self, subscription: u32) -> Option<&Lane> {
        self.0.get(self.place(subscription).ok()?)
    }

    pub(crate) fn get_mut(&mut self, subscription: u32) -> Option<&mut Lane> {
        let place = self.place(subscription).ok()?;
        self.0.get_mut(place)
    }

    /// The lane of a subscription, new if there is none.
    pub(crate) fn of(&mut self, subscription: u32, now: Instant) -> Option<&mut Lane> {
        let place = self.place(subscription).unwrap_or_else(|place| {
            self.0.insert(place, Lane::new(subscription, now));
            place
        });
        self.0.get_mut(place)
    }

    pub(crate) fn remove(&mut self, subscription: u32) {
        self.0.retain(|lane| lane.subscription != subscription);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.0.iter_mut()
    }

    /// The subscriptions have other slots now; those that have none are gone.
    pub(crate) fn renumber(&mut self, mut renumber: impl FnMut(&mut u32) -> bool) {
        self.0.retain_mut(|lane| renumber(&mut lane.subscription));
        self.0.sort_unstable_by_key(|lane| lane.subscription);
    }

    fn place(&self, subscription: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&subscription, |lane| lane.subscription)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_lane_is_found_whatever_came_and_went() {
        let (now, mut lanes) = (Instant::default(), Lanes::default());
        for slot in [7, 3, 9, 3, 5] {
            lanes.of(slot, now).unwrap().bytes = slot.into();
        }
        lanes.remove(5);
        let slots = |lanes: &Lanes| lanes.iter().map(|lane| lane.subscription).collect::<Vec<_>>();
        assert_eq!(slots(&lanes), [3, 7, 9]);
        let places = BTreeMap::from([(3, 8), (9, 2)]);
        lanes.renumber(|slot| places.get(slot).is_some_and(|place| (*slot = *place, true).1));
        assert_eq!(slots(&lanes), [2, 8]);
        assert_eq!(lanes.get(8).map(|lane| lane.bytes), Some(3));
        assert!(lanes.get(7).is_none() && lanes.get_mut(3).is_none());
    }
}
