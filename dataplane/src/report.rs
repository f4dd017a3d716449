//! What a worker counted, from the path, from the sockets, and from the passing of packets between workers.

use strait_core::statistics::{ScopeStatistics, WorkerStatistics};
use strait_io::Counters;

/// A worker's answer to [`crate::mailbox::Request::Report`].
#[derive(Clone, Debug)]
pub struct Report {
    /// Of the path.
    pub worker: WorkerStatistics,
    /// Of the scopes asked for; unknown ones are left out.
    pub scopes: Vec<ScopeStatistics>,
    /// Of the sockets.
    pub sockets: Counters,
    /// Packets that were not forwarded, by reason: the path's, the sockets' and the hand-over's.
    pub drops: Vec<(&'static str, u64)>,
    /// Datagrams read here and passed to another worker.
    pub handed_over: u64,
    /// Turns of the loop.
    pub turns: u64,
}
