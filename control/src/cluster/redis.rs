//! Mappings and registry in Redis: a partition each, of which a scope has one and a node all.

mod address;
mod partition;

use std::sync::Arc;

use tokio::task::JoinSet;

use super::directory::{Mappings, Pending, Registry, id, name_taken};
use super::node::{Listed, Node, Owner};
use super::table::{Ask, Found, Mapping};
use crate::auth::Secret;
use crate::fault::Fault;
use crate::limits::{SWEPT_AT_ONCE, SWEPT_PAGES};
use crate::scope::ScopeKey;
pub use address::Address;
use partition::Partition;

/// All partitions.
pub struct Partitions {
    all: Vec<Arc<Partition>>,
}

impl Partitions {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`]: an address is wrong.
    pub fn new(urls: &[Secret]) -> Result<Arc<Self>, Fault> {
        let partition = |(number, url): (usize, &Secret)| {
            let address = Address::parse(url.expose())
                .map_err(|why| Fault::internal(format!("cluster.mappings: {why}")))?;
            Ok(Arc::new(Partition::new(number, address)))
        };
        let all = urls.iter().enumerate().map(partition).collect::<Result<Vec<_>, Fault>>()?;
        Ok(Arc::new(Self { all }))
    }

    /// The partition of a scope: the same for everybody who has the same list.
    fn of(&self, scope: &str) -> Result<&Arc<Partition>, Fault> {
        let count = self.all.len() as u64;
        let at = hash(scope.as_bytes()).checked_rem(count).unwrap_or_default();
        let partition = usize::try_from(at).ok().and_then(|at| self.all.get(at));
        partition.ok_or_else(|| Fault::internal("cluster.mappings is empty"))
    }

    /// Calls all partitions at once. What each said, in no order.
    async fn each(&self, call: &'static str, of: Vec<String>) -> Vec<Result<Vec<String>, Fault>> {
        let mut calls = JoinSet::new();
        for partition in &self.all {
            let (partition, of) = (Arc::clone(partition), of.clone());
            calls.spawn(async move { partition.call(call, &of, false).await });
        }
        let mut answers = Vec::with_capacity(self.all.len());
        while let Some(answer) = calls.join_next().await {
            answers.extend(answer.ok());
        }
        answers
    }

    /// As [`Self::each`], where all must have heard it.
    async fn all(&self, call: &'static str, of: Vec<String>) -> Result<(), Fault> {
        let answers = self.each(call, of).await;
        answers.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }
}

impl Registry for Partitions {
    fn announce<'a>(&'a self, node: &'a Node) -> Pending<'a, bool> {
        Box::pin(async move {
            let record = serde_json::to_string(node).map_err(|e| Fault::internal(e.to_string()))?;
            let of = vec![node.name.clone(), node.incarnation.clone(), record];
            let mut outcome = Err(Fault::unavailable("no partition of the mappings answers"));
            for answer in self.each("announce", of).await {
                match answer {
                    Ok(words) if words.first().is_some_and(|word| word == "taken") => {
                        return Err(name_taken(&node.name));
                    }
                    Ok(words) => {
                        let is_drained = words.get(1).is_some_and(|word| word == "1");
                        outcome = Ok(is_drained || outcome.unwrap_or_default());
                    }
                    Err(fault) if outcome.is_err() => outcome = Err(fault),
                    Err(_) => {}
                }
            }
            outcome
        })
    }

    fn withdraw<'a>(&'a self, owner: &'a Owner) -> Pending<'a, ()> {
        Box::pin(self.all("withdraw", vec![owner.node.clone(), owner.incarnation.clone()]))
    }

    fn bury<'a>(&'a self, owner: &'a Owner) -> Pending<'a, ()> {
        Box::pin(self.all("bury", vec![owner.node.clone(), owner.incarnation.clone()]))
    }

    fn nodes(&self) -> Pending<'_, Vec<Listed>> {
        Box::pin(async move {
            let mut outcome = Err(Fault::unavailable("no partition of the mappings answers"));
            // Those that answered last are asked first.
            let (up, down): (Vec<_>, Vec<_>) = self.all.iter().partition(|p| p.is_up());
            for partition in up.into_iter().chain(down) {
                match partition.call("nodes", &[], false).await {
                    Ok(words) => return Ok(listed(&words)),
                    Err(fault) => outcome = Err(fault),
                }
            }
            outcome
        })
    }

    fn set_drained<'a>(&'a self, node: &'a str, is_drained: bool) -> Pending<'a, ()> {
        Box::pin(self.all("drain", vec![node.to_owned(), flag(is_drained)]))
    }
}

impl Mappings for Partitions {
    fn locate<'a>(&'a self, scope: &'a ScopeKey, ask: Ask<'a>) -> Pending<'a, Found> {
        Box::pin(async move {
            let id = id(scope);
            let partition = self.of(&id)?;
            let (name, start) = match ask.proposal {
                Some(owner) => (owner.node.clone(), owner.incarnation.clone()),
                None => Default::default(),
            };
            let is_quiet = ask.is_quiet || partition.is_quiet();
            let given_up = ask.given_up.map(|fence| fence.to_string()).unwrap_or_default();
            let of = [id, name, start, flag(ask.holds), given_up, flag(is_quiet)];
            let words = partition.call("locate", &of, ask.proposal.is_some()).await?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mapping =
                |words: &[&str]| mapping(words).inspect(|mapping| partition.told(mapping.fence));
            match words.as_slice() {
                ["owned", rest @ ..] => mapping(rest).map(Found::Owned),
                ["stale", rest @ ..] => mapping(rest).map(Found::Stale),
                ["free"] => Some(Found::Free),
                ["young"] => Some(Found::Young),
                ["full"] => Some(Found::Full),
                _ => None,
            }
            .ok_or_else(|| Fault::internal("a partition of the mappings answers something else"))
        })
    }

    fn release<'a>(&'a self, scope: &'a ScopeKey, fence: u64) -> Pending<'a, ()> {
        Box::pin(async move {
            let id = id(scope);
            let partition = self.of(&id)?;
            partition.call("release", &[id, fence.to_string()], false).await.map(drop)
        })
    }

    fn forget<'a>(&'a self, scope: &'a ScopeKey) -> Pending<'a, ()> {
        Box::pin(async move {
            let id = id(scope);
            let partition = self.of(&id)?;
            partition.call("forget", &[id], false).await.map(drop)
        })
    }

    fn assert<'a>(
        &'a self,
        owner: &'a Owner,
        held: &'a [(ScopeKey, u64)],
    ) -> Pending<'a, Vec<Result<Option<u64>, Fault>>> {
        Box::pin(async move {
            let away = || Err(Fault::unavailable("its partition does not answer"));
            let mut outcome: Vec<Result<Option<u64>, Fault>> =
                held.iter().map(|_| away()).collect();
            for partition in &self.all {
                let mut of = vec![owner.node.clone(), owner.incarnation.clone()];
                let mut places = Vec::new();
                for (place, (scope, fence)) in held.iter().enumerate() {
                    let id = id(scope);
                    if Arc::ptr_eq(self.of(&id)?, partition) {
                        of.extend([id, fence.to_string()]);
                        places.push(place);
                    }
                }
                if places.is_empty() {
                    continue;
                }
                let Ok(words) = partition.call("assert", &of, true).await else { continue };
                for (place, word) in places.into_iter().zip(words.iter().skip(1)) {
                    let kept = word.parse().ok().filter(|fence| *fence > 0);
                    kept.iter().for_each(|fence| partition.told(*fence));
                    if let Some(outcome) = outcome.get_mut(place) {
                        *outcome = Ok(kept);
                    }
                }
            }
            Ok(outcome)
        })
    }

    fn sweep(&self) -> Pending<'_, usize> {
        Box::pin(async move {
            let mut count = 0;
            for partition in self.all.iter().filter(|p| p.is_up() && !p.is_quiet()) {
                for _ in 0..SWEPT_PAGES {
                    let of = [partition.cursor(), SWEPT_AT_ONCE.to_string()];
                    let words = partition.call("sweep", &of, false).await?;
                    let [_, cursor, swept] = words.as_slice() else { break };
                    partition.set_cursor(cursor);
                    count += swept.parse::<usize>().unwrap_or_default();
                    // All of it was looked at.
                    if cursor == "0" {
                        break;
                    }
                }
            }
            Ok(count)
        })
    }

    fn partitions(&self) -> (usize, usize) {
        (self.all.len(), self.all.iter().filter(|partition| partition.is_up()).count())
    }

    fn failures(&self) -> u64 {
        self.all.iter().map(|partition| partition.failures()).sum()
    }

    fn losses(&self) -> u64 {
        self.all.iter().map(|partition| partition.losses()).sum()
    }
}

fn flag(is_so: bool) -> String {
    if is_so { "1".into() } else { "0".into() }
}

fn mapping(words: &[&str]) -> Option<Mapping> {
    let [node, incarnation, fence, held] = words else { return None };
    let owner = Owner { node: (*node).to_owned(), incarnation: (*incarnation).to_owned() };
    Some(Mapping { owner, fence: fence.parse().ok()?, held: *held == "1" })
}

/// Nodes of another version may say more, or something that is not understood: those are left out.
fn listed(words: &[String]) -> Vec<Listed> {
    let pairs = words.get(1..).unwrap_or_default().chunks_exact(2);
    let listed = pairs.filter_map(|pair| {
        let [record, state] = pair else { return None };
        let node: Node = serde_json::from_str(record).ok()?;
        let mut state = state.split(' ');
        let mut is_set = || state.next() == Some("1");
        let (is_alive, is_drained) = (is_set(), is_set());
        Some(Listed { node, is_alive, is_drained, age_ms: state.next()?.parse().ok()? })
    });
    listed.collect()
}

/// FNV-1a of 64 bits: all processes, of all versions, must find the same partition.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
