//! What a worker counted, from the path, from the sockets, and from the passing of packets between workers.

use crate::trace::Latency;
use std::fmt::Write as _;
use strait_core::drop::DropReason;
use strait_core::quality::{MediaQuality, SubscriberQuality};
use strait_core::statistics::{ScopeStatistics, WorkerStatistics};
use strait_io::{Counters, Drop};

/// Name and description of the one reason that is this crate's own.
pub const HANDED_OVER_FULL: (&str, &str) = (
    "handed_over_full",
    "Read by one worker for another whose queue of such datagrams is full: it is overloaded. More workers, or smaller scopes.",
);

/// How streams fare, on the way to the readers.
#[derive(Clone, Debug)]
pub enum Quality {
    /// From a publisher.
    Encoding(MediaQuality),
    /// To a peer.
    Subscriber(SubscriberQuality),
}

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
    /// Where the time goes; `None` when nothing is followed.
    pub latency: Option<Latency>,
}

/// The table of docs/reference/drop-reasons.md, from the words beside each reason.
#[must_use]
pub fn drop_reasons() -> String {
    let mut table = String::from("| reason | cause, whose doing, remedy |\n|---|---|\n");
    let path = DropReason::ALL.iter().map(|reason| (reason.name(), reason.description()));
    let sockets = Drop::ALL.iter().map(|reason| (reason.name(), reason.description()));
    for (name, description) in path.chain(sockets).chain([HANDED_OVER_FULL]) {
        let words: Vec<_> = description.split_whitespace().collect();
        let _ = writeln!(table, "| `{name}` | {} |", words.join(" "));
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_the_source() {
        let page = include_str!("../../docs/reference/drop-reasons.md");
        let table = super::drop_reasons();
        assert!(page.ends_with(&table), "its table should be:\n{table}");
    }
}
