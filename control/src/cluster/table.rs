//! What one partition knows: which nodes live, and which of them has which scope.
//!
//! This is the whole of the decision, without a clock and without the world: the scripts that run in
//! Redis do the same, and are held against it. All times are of one clock, that of the partition,
//! in milliseconds: nobody else's matters.

use std::collections::{HashMap, HashSet};

use super::node::{Listed, Node, Owner};
use crate::limits::{LEASE, MAPPINGS, PROMISE};

/// Where a scope is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Whose it is.
    pub owner: Owner,
    /// Grows with each new owner: what was said under a former one is void.
    pub fence: u64,
    /// Whether the owner itself claimed it. Otherwise clients were sent there, and may never come.
    pub held: bool,
}

/// Who asks for a scope's node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The node that gets the scope if it is nobody's.
    pub proposal: Option<&'a Owner>,
    /// The owner itself asks, and holds the scope from now on.
    pub holds: bool,
    /// The mapping with this fence may be taken away: its owner was found dead.
    pub given_up: Option<u64>,
    /// What was said before this partition was away may not have reached it: nothing moves.
    pub is_quiet: bool,
}

/// Where a scope was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There, and its owner lives as far as is known here.
    Owned(Mapping),
    /// There, but its owner's lease is over: whoever asks looks for it, and may give it up.
    Stale(Mapping),
    /// Nobody has it, and the proposed node does not live, or there was none.
    Free,
    /// The partition is too young to know: who has scopes may not have said so yet.
    Young,
    /// There is no room for another one.
    Full,
}

/// One partition.
#[derive(Debug, Clone, Default)]
pub struct Table {
    nodes: HashMap<String, Record>,
    drained: HashSet<String>,
    mappings: HashMap<String, Entry>,
    fence: u64,
    /// When it began, empty; none when nothing can have been forgotten.
    born: Option<u64>,
}

#[derive(Debug, Clone)]
struct Record {
    node: Node,
    seen: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    mapping: Mapping,
    since: u64,
}

impl Table {
    /// One that may have forgotten what it had. Its fences begin with the time, and so after those of
    /// before: scopes do not change hands a thousand times a second.
    pub fn born(now: u64) -> Self {
        Self { born: Some(now), fence: now, ..Self::default() }
    }

    /// Somebody was told of this fence. A partition that never gave it out came back with an older copy
    /// of what it had: it is as young as one that has nothing, until all said what they hold.
    pub fn remember(&mut self, now: u64, fence: u64) {
        if self.fence < fence {
            (self.fence, self.born) = (fence, Some(now));
        }
    }

    /// A node lives. True when an operator wants it to become empty; none when another process
    /// lives under its name.
    pub fn announce(&mut self, now: u64, node: &Node) -> Option<bool> {
        if let Some(record) = self.nodes.get(&node.name)
            && record.node.incarnation != node.incarnation
            && record.is_alive(now)
        {
            return None;
        }
        self.nodes.insert(node.name.clone(), Record { node: node.clone(), seen: now });
        Some(self.drained.contains(&node.name))
    }

    /// A node ended, in order or for certain: what it had is nobody's.
    pub fn withdraw(&mut self, owner: &Owner) {
        if self.is_of(owner) {
            self.nodes.remove(&owner.node);
        }
    }

    /// A node that was found dead long after its lease is forgotten, with what it had.
    pub fn bury(&mut self, now: u64, owner: &Owner) {
        if !self.nodes.get(&owner.node).is_some_and(|record| record.is_alive(now)) {
            self.withdraw(owner);
        }
    }

    /// All nodes.
    pub fn nodes(&self, now: u64) -> Vec<Listed> {
        let listed = |record: &Record| Listed {
            node: record.node.clone(),
            is_alive: record.is_alive(now),
            is_drained: self.drained.contains(&record.node.name),
            age_ms: now.saturating_sub(record.seen),
        };
        self.nodes.values().map(listed).collect()
    }

    /// Whether a node is to become empty.
    pub fn set_drained(&mut self, node: &str, is_drained: bool) {
        if is_drained {
            self.drained.insert(node.to_owned());
        } else {
            self.drained.remove(node);
        }
    }

    /// Where a scope is; the proposed node gets it when it is nobody's.
    pub fn locate(&mut self, now: u64, scope: &str, ask: Ask<'_>) -> Found {
        let count = self.mappings.len();
        let young = self.young(now);
        if self.mappings.get(scope).is_some_and(|entry| entry.is_doubtful(young)) {
            return Found::Young;
        }
        if let Some(entry) = self.mappings.get_mut(scope) {
            let owner = &entry.mapping.owner;
            let record = self.nodes.get(&owner.node);
            let record = record.filter(|record| record.node.incarnation == owner.incarnation);
            let is_given_up = ask.given_up == Some(entry.mapping.fence);
            // Its own owner takes another fence whenever it likes: the scope stays where it is.
            let is_renewed = is_given_up && ask.proposal == Some(owner);
            if !is_renewed && (ask.is_quiet || record.is_some() && !is_given_up) {
                if ask.holds && ask.proposal == Some(owner) {
                    entry.mapping.held = true;
                }
                let mapping = entry.mapping.clone();
                let is_alive = record.is_some_and(|record| record.is_alive(now));
                return if is_alive { Found::Owned(mapping) } else { Found::Stale(mapping) };
            }
        } else if young.is_some() {
            return Found::Young;
        } else if count >= MAPPINGS {
            return Found::Full;
        }
        let proposal = ask.proposal.filter(|owner| self.is_of(owner));
        let is_alive = |owner: &Owner| self.nodes.get(&owner.node).is_some_and(|r| r.is_alive(now));
        let Some(owner) = proposal.filter(|owner| is_alive(owner)) else { return Found::Free };
        self.fence += 1;
        let mapping = Mapping { owner: owner.clone(), fence: self.fence, held: ask.holds };
        self.mappings.insert(scope.to_owned(), Entry { mapping: mapping.clone(), since: now });
        Found::Owned(mapping)
    }

    /// A scope ended. Nothing happens when it is another's by now.
    pub fn release(&mut self, scope: &str, fence: u64) {
        if self.mappings.get(scope).is_some_and(|entry| entry.mapping.fence == fence) {
            self.mappings.remove(scope);
        }
    }

    /// Nobody may enter a scope any more: it is nobody's where clients were sent and none came. One that
    /// is held ends with those who are in it.
    pub fn forget(&mut self, now: u64, scope: &str) {
        let young = self.young(now);
        let is_free = |entry: &Entry| !entry.mapping.held && !entry.is_doubtful(young);
        if self.mappings.get(scope).is_some_and(is_free) {
            self.mappings.remove(scope);
        }
    }

    /// A node says what it holds. The fence under which it goes on holding it, or none: it was given
    /// to another one, and whoever said so has no say in it any more.
    pub fn assert(&mut self, now: u64, owner: &Owner, scope: &str, fence: u64) -> Option<u64> {
        if let Some(entry) = self.mappings.get_mut(scope) {
            if entry.mapping.owner == *owner {
                entry.mapping.held = true;
                // Greater where this is an older copy of what it had.
                entry.mapping.fence = entry.mapping.fence.max(fence);
                self.fence = self.fence.max(fence);
                if self.born.is_some_and(|born| entry.since <= born) {
                    entry.since = now;
                }
                return Some(entry.mapping.fence);
            }
            if entry.mapping.fence >= fence {
                return None;
            }
        }
        // This partition forgot it, or knows an older state: a fence that nobody had yet.
        self.fence = self.fence.max(fence) + 1;
        let mapping = Mapping { owner: owner.clone(), fence: self.fence, held: true };
        self.mappings.insert(scope.to_owned(), Entry { mapping, since: now });
        Some(self.fence)
    }

    /// Forgets what nobody holds: promises that nobody came for, and what starts had that are over.
    /// Returns how many.
    pub fn sweep(&mut self, now: u64) -> usize {
        let before = self.mappings.len();
        let (nodes, young) = (&self.nodes, self.young(now));
        self.mappings.retain(|_, entry| {
            let Entry { mapping, since } = entry;
            let record = nodes.get(&mapping.owner.node);
            let is_of = record.is_some_and(|r| r.node.incarnation == mapping.owner.incarnation);
            let is_wanted = mapping.held || now.saturating_sub(*since) < millis(PROMISE);
            entry.is_doubtful(young) || is_of && is_wanted
        });
        before - self.mappings.len()
    }

    /// Mappings there are.
    pub fn count(&self) -> usize {
        self.mappings.len()
    }

    /// When it was born, for as long as whoever has scopes may not have said so since.
    fn young(&self, now: u64) -> Option<u64> {
        // A birth that is still to come is of a clock that was set back since.
        self.born.filter(|born| now.checked_sub(*born).is_some_and(|age| age < millis(LEASE)))
    }

    /// Whether the name is that start's.
    fn is_of(&self, owner: &Owner) -> bool {
        let record = self.nodes.get(&owner.node);
        record.is_some_and(|record| record.node.incarnation == owner.incarnation)
    }
}

impl Entry {
    /// Whether it is of before the birth of a young partition, and nobody said since that it is so still.
    fn is_doubtful(&self, young: Option<u64>) -> bool {
        young.is_some_and(|born| self.since <= born)
    }
}

impl Record {
    /// Whether its lease holds. A time that is still to come is of a clock that was set back since:
    /// whoever lives says so again within the lease.
    fn is_alive(&self, now: u64) -> bool {
        now.checked_sub(self.seen).is_some_and(|age| age < millis(LEASE))
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
