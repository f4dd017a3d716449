//! What a cluster shares: which nodes there are, and which of them has which scope.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::node::{Listed, Node, Owner};
use super::table::{Ask, Found, Table};
use crate::fault::Fault;
use crate::scope::ScopeKey;

/// An answer that may take a while, though never longer than [`crate::limits::DIRECTORY_CALL`] and
/// some.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// The nodes that there are.
pub trait Registry: Send + Sync {
    /// A node lives, for the time of a lease. True when an operator wants it to become empty.
    fn announce<'a>(&'a self, node: &'a Node) -> Pending<'a, bool>;
    /// A node ended in order.
    fn withdraw<'a>(&'a self, owner: &'a Owner) -> Pending<'a, ()>;
    /// A node was found dead, long after its lease.
    fn bury<'a>(&'a self, owner: &'a Owner) -> Pending<'a, ()>;
    /// All of them.
    fn nodes(&self) -> Pending<'_, Vec<Listed>>;
    /// Says whether a node is to become empty.
    fn set_drained<'a>(&'a self, node: &'a str, is_drained: bool) -> Pending<'a, ()>;
}

/// Which of them has which scope.
pub trait Mappings: Send + Sync {
    /// Where a scope is; see [`Table::locate`].
    fn locate<'a>(&'a self, scope: &'a ScopeKey, ask: Ask<'a>) -> Pending<'a, Found>;
    /// A scope ended; see [`Table::release`].
    fn release<'a>(&'a self, scope: &'a ScopeKey, fence: u64) -> Pending<'a, ()>;
    /// Nobody may enter a scope any more; see [`Table::forget`].
    fn forget<'a>(&'a self, scope: &'a ScopeKey) -> Pending<'a, ()>;
    /// What a node holds, and under which fence from now on; see [`Table::assert`]. In the same
    /// order; an error where the partition of a scope does not answer.
    fn assert<'a>(
        &'a self,
        owner: &'a Owner,
        held: &'a [(ScopeKey, u64)],
    ) -> Pending<'a, Vec<Result<Option<u64>, Fault>>>;
    /// Forgets some of what nobody holds. Returns how many.
    fn sweep(&self) -> Pending<'_, usize>;
    /// What goes on behind it, for metrics: partitions, and how many of them answer.
    fn partitions(&self) -> (usize, usize);
    /// Calls of them that failed, for metrics.
    fn failures(&self) -> u64 {
        0
    }
    /// Grows whenever what was said may have been lost: nodes then say again what they hold.
    fn losses(&self) -> u64;
}

/// Both, in this process: for a host that is alone.
#[derive(Debug)]
pub struct Local {
    table: Mutex<Table>,
    start: Instant,
}

impl Default for Local {
    fn default() -> Self {
        Self { table: Mutex::default(), start: Instant::now() }
    }
}

impl Local {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready<'a, T: Send + 'a>(answer: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(Ok(answer)))
}

/// The name of a scope among all: neither an application nor a scope has a line break in it.
pub fn id(scope: &ScopeKey) -> String {
    [scope.application.as_str(), "\n", scope.scope.as_str()].concat()
}

impl Registry for Local {
    fn announce<'a>(&'a self, node: &'a Node) -> Pending<'a, bool> {
        let told = self.table().announce(self.now(), node);
        Box::pin(std::future::ready(told.ok_or_else(|| name_taken(&node.name))))
    }

    fn withdraw<'a>(&'a self, owner: &'a Owner) -> Pending<'a, ()> {
        self.table().withdraw(owner);
        ready(())
    }

    fn bury<'a>(&'a self, owner: &'a Owner) -> Pending<'a, ()> {
        self.table().bury(self.now(), owner);
        ready(())
    }

    fn nodes(&self) -> Pending<'_, Vec<Listed>> {
        ready(self.table().nodes(self.now()))
    }

    fn set_drained<'a>(&'a self, node: &'a str, is_drained: bool) -> Pending<'a, ()> {
        self.table().set_drained(node, is_drained);
        ready(())
    }
}

impl Mappings for Local {
    fn locate<'a>(&'a self, scope: &'a ScopeKey, ask: Ask<'a>) -> Pending<'a, Found> {
        ready(self.table().locate(self.now(), &id(scope), ask))
    }

    fn release<'a>(&'a self, scope: &'a ScopeKey, fence: u64) -> Pending<'a, ()> {
        self.table().release(&id(scope), fence);
        ready(())
    }

    fn forget<'a>(&'a self, scope: &'a ScopeKey) -> Pending<'a, ()> {
        self.table().forget(self.now(), &id(scope));
        ready(())
    }

    fn assert<'a>(
        &'a self,
        owner: &'a Owner,
        held: &'a [(ScopeKey, u64)],
    ) -> Pending<'a, Vec<Result<Option<u64>, Fault>>> {
        let (mut table, now) = (self.table(), self.now());
        let kept =
            held.iter().map(|(scope, fence)| Ok(table.assert(now, owner, &id(scope), *fence)));
        ready(kept.collect())
    }

    fn sweep(&self) -> Pending<'_, usize> {
        ready(self.table().sweep(self.now()))
    }

    fn partitions(&self) -> (usize, usize) {
        (1, 1)
    }

    fn losses(&self) -> u64 {
        0
    }
}

/// Another process announces itself under the same name.
pub(super) fn name_taken(name: &str) -> Fault {
    Fault::conflict(format!(
        "another process lives under the name {name:?}: this one was started again a moment ago, \
         which mends itself within two seconds, or two nodes have the same cluster.name"
    ))
}
