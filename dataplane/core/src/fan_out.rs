//! Who gets which of the gathered packets, in the order in which it is sent: destination by destination, so that what
//! goes to one peer makes runs.

use crate::command::Kind;
use crate::gather::{Gather, bit};
use crate::limits::GATHERED_PACKETS;
use crate::publication::Publication;
use crate::select::Active;
use crate::slab::Slab;
use crate::subscription::Subscription;
use crate::time::Instant;

/// The gathered packets of one publication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) publication: u32,
    pub(crate) active: Active,
    video: bool,
    /// Places of its packets.
    pub(crate) packets: u64,
}

/// One group to one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) peer: u32,
    pub(crate) subscription: u32,
    /// Place of the group.
    pub(crate) group: u8,
}

/// The steps of one turn. Its memory is used again.
#[derive(Debug, Default)]
pub(crate) struct FanOut {
    groups: Vec<Group>,
    steps: Vec<Step>,
}

impl FanOut {
    /// Plans the turn.
    pub(crate) fn plan(
        &mut self,
        now: Instant,
        gather: &Gather,
        publications: &Slab<Publication>,
        subscriptions: &Slab<Subscription>,
    ) {
        self.groups.clear();
        self.steps.clear();
        for (at, held) in gather.held().iter().enumerate() {
            let publication = held.stream.publication;
            let known = self.groups.iter_mut().find(|group| group.publication == publication);
            match (known, publications.get(publication)) {
                (Some(group), _) => group.packets |= bit(at),
                (None, Some(found)) => self.groups.push(Group {
                    publication,
                    active: found.active(now),
                    video: found.kind == Kind::Video,
                    packets: bit(at),
                }),
                (None, None) => {}
            }
        }
        // To each peer sound goes first: it is small, and pictures wait behind it better than it behind them.
        if self.groups.len() > 1 {
            self.groups.sort_unstable_by_key(|g| (g.video, g.packets.trailing_zeros()));
        }
        for (group, Group { publication, .. }) in (0_u8..).zip(&self.groups) {
            let audience = publications.get(*publication).map(Publication::audience);
            for &subscription in audience.unwrap_or_default() {
                let Some(Subscription { peer, .. }) = subscriptions.get(subscription) else {
                    continue;
                };
                self.steps.push(Step { peer: *peer, subscription, group });
            }
        }
        if self.groups.len() > 1 {
            self.steps.sort_unstable_by_key(|step| (step.peer, step.group, step.subscription));
        }
    }

    /// What is to be done, in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (Step, &Group)> {
        self.steps
            .iter()
            .filter_map(|step| Some((*step, self.groups.get(usize::from(step.group))?)))
    }
}

const _: () = assert!(GATHERED_PACKETS <= u8::MAX as usize);
