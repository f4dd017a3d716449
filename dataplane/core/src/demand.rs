//! Layers on demand: which encodings of a publication anybody needs. The publisher is told, and need not send the others.

use crate::command::{Event, WorkerId};
use crate::drop::DropReason;
use crate::limits::{
    ALLOCATION_INTERVAL, DEMAND_DELAY, DEMAND_REPEAT, ENCODINGS_PER_PUBLICATION, LAYER_STARTS,
    LAYER_UNWANTED,
};
use crate::parcel::Item;
use crate::publication::Publication;
use crate::select::Active;
use crate::slab::Slab;
use crate::subscription::Subscription;
use crate::time::{Instant, Now};
use crate::worker::Worker;

/// What was told of a publication's encodings. At first all are wanted.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Those that were told not to be wanted, as a set.
    stopped: u8,
    told_at: Option<Instant>,
    layers: [Layer; ENCODINGS_PER_PUBLICATION],
}

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    /// When somebody wanted it last.
    wanted_at: Option<Instant>,
    /// When it was told to be wanted again.
    called_at: Option<Instant>,
}

impl Demand {
    /// Takes note of those that are wanted now. Whether there is something new to tell.
    fn note(&mut self, now: Instant, wanted: u8, count: usize) -> bool {
        let before = self.stopped;
        for (number, layer) in self.layers.iter_mut().enumerate().take(count) {
            let bit = 1 << number;
            if wanted & bit != 0 {
                layer.wanted_at = Some(now);
                if self.stopped & bit != 0 {
                    self.stopped &= !bit;
                    layer.called_at = Some(now);
                }
            } else if now.since(*layer.wanted_at.get_or_insert(now)) >= LAYER_UNWANTED {
                self.stopped |= bit;
            }
        }
        let is_old = self.told_at.is_none_or(|at| now.since(at) >= DEMAND_REPEAT);
        let tells = self.stopped != before || is_old;
        if tells {
            self.told_at = Some(now);
        }
        tells
    }

    /// Those that are wanted as it was told last, as a set.
    fn told(&self, count: usize) -> u8 {
        !self.stopped & all(count)
    }

    /// Whether an encoding was told to be unwanted.
    pub(crate) fn is_stopped(&self, encoding: u8) -> bool {
        self.stopped & 1_u8.checked_shl(encoding.into()).unwrap_or_default() != 0
    }

    /// Whether an encoding that carries nothing would if it were asked for, or was asked for just now.
    pub(crate) fn may_come(&self, encoding: u8, now: Instant) -> bool {
        let layer = self.layers.get(usize::from(encoding));
        let called = layer.and_then(|layer| layer.called_at);
        self.is_stopped(encoding) || called.is_some_and(|at| now.since(at) < LAYER_STARTS)
    }
}

/// The set of the first `count` encodings.
fn all(count: usize) -> u8 {
    u8::MAX >> 8_u32.saturating_sub(count as u32).min(7)
}

impl Worker {
    /// What is wanted of some publication may have changed: it is looked at in a moment, with what else changes until then.
    pub(crate) fn demand_changed(&mut self, now: Now) {
        let soon = now.at + DEMAND_DELAY;
        self.demand_due = Some(self.demand_due.map_or(soon, |due| due.min(soon)));
    }

    /// Looks at what is wanted of the publications with several encodings, when it is time to.
    pub(crate) fn look_at_demand(&mut self, now: Now) {
        if self.demand_due.is_none_or(|due| due > now.at) {
            return;
        }
        let mut several = false;
        for slot in 0..self.publications.slots() {
            let publication = self.publications.get(slot);
            let Some(publication) = publication.filter(|p| p.encodings.len() > 1) else { continue };
            several = true;
            // Before anything came there is nothing to stop.
            if publication.encodings.iter().all(|encoding| encoding.active_at.is_none()) {
                continue;
            }
            let wanted = publication.wanted(now.at, &self.subscriptions);
            let Some(publication) = self.publications.get_mut(slot) else { continue };
            let count = publication.encodings.len();
            publication.sample(now.at);
            if !publication.demand.note(now.at, wanted, count) {
                continue;
            }
            let (id, encodings) = (publication.id, publication.demand.told(count));
            match publication.origin.as_ref().map(|origin| origin.worker) {
                None => self.emit(Event::LayersWanted { publication: id, encodings }),
                Some(worker) => {
                    let item = Item::Demand { publication: id, encodings };
                    if !self.outbox.put(worker, item) {
                        self.drops.count(DropReason::MirrorFull);
                    }
                }
            }
        }
        self.demand_due = several.then(|| now.at + ALLOCATION_INTERVAL);
    }

    /// What the subscribers of a mirror want.
    pub(crate) fn on_mirrored_demand(
        &mut self,
        now: Now,
        from: WorkerId,
        publication: u32,
        encodings: u8,
    ) {
        let publication = self.publications.get_mut(publication);
        if publication.is_some_and(|publication| publication.mirrors.want(from, encodings)) {
            self.demand_changed(now);
        }
    }
}

impl Publication {
    /// The encodings that somebody gets, or is to get, as a set.
    fn wanted(&self, now: Instant, subscriptions: &Slab<Subscription>) -> u8 {
        let (active, count) = (self.active(now), self.encodings.len());
        let here = self.subscriptions.iter().filter_map(|slot| subscriptions.get(*slot));
        let here = here.fold(0, |wanted, subscription| wanted | subscription.wants(active, count));
        let wanted = here | (self.mirrors.wanted() & all(count));
        // So that whoever comes sees something at once. A mirror leaves that to its origin.
        if wanted == 0 && self.origin.is_none() { 1 } else { wanted }
    }
}

impl Subscription {
    /// The encodings that it needs, of so many, as a set.
    fn wants(&self, active: Active, count: usize) -> u8 {
        let preferences = self.selector.preferences();
        if preferences.paused {
            return 0;
        }
        let limit = self.selector.limit();
        let top = u8::try_from(count).unwrap_or(u8::MAX).saturating_sub(1);
        let best = preferences.layer_max.unwrap_or(top).min(limit.encoding).min(top);
        // What it is on until the other comes, and what it makes do with while that does not.
        let paused = limit.paused.then_some(0);
        let soon = self.allotment.soon.map(|rung| rung.encoding);
        let now = [self.selector.current(), self.selector.target(active), soon];
        let wanted = now.into_iter().chain([paused.or(Some(best))]).flatten();
        wanted.fold(0, |set, layer| set | 1_u8.checked_shl(layer.into()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn wanted_at_once_and_unwanted_after_a_while() {
        let mut demand = Demand::default();
        assert!(demand.note(at(0), 0b001, 3), "the first time");
        assert_eq!(demand.told(3), 0b111, "all that is sent was asked for until now");
        assert!(!demand.note(at(699), 0b001, 3));
        assert!(demand.note(at(700), 0b001, 3));
        assert_eq!(demand.told(3), 0b001);
        assert!(demand.note(at(710), 0b101, 3));
        assert_eq!(demand.told(3), 0b101);
        assert!(!demand.note(at(1200), 0b001, 3) && !demand.note(at(1300), 0b101, 3));
        assert!(!demand.note(at(1999), 0b001, 3));
        assert!(demand.note(at(2000), 0b001, 3), "since it was wanted last");
        assert_eq!(demand.told(3), 0b001);
        assert!(!demand.note(at(11_999), 0b001, 3));
        assert!(demand.note(at(12_000), 0b001, 3), "again, should it have been lost");
    }

    #[test]
    fn what_was_called_for_may_come_for_a_while() {
        let mut demand = Demand::default();
        assert!(!demand.may_come(2, at(0)), "it was asked for all along");
        demand.note(at(0), 0b001, 3);
        demand.note(at(2000), 0b001, 3);
        assert!(demand.may_come(2, at(9000)));
        demand.note(at(9000), 0b101, 3);
        assert!(demand.may_come(2, at(9000)));
        assert!(!demand.may_come(2, at(9000) + LAYER_STARTS));
        assert!(!demand.may_come(200, at(0)));
    }
}
