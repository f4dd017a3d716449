//! What links did, for metrics. Every label is of a fixed set, so that nobody can fill a table.

use std::sync::atomic::{AtomicU64, Ordering};

use strait_link::v1::{ErrorCode, client_message::Body};

use super::convert::label;

/// Kinds of messages that clients send.
const KINDS: [&str; 16] = [
    "auth",
    "publish",
    "unpublish",
    "set_muted",
    "subscribe",
    "unsubscribe",
    "set_preferences",
    "allow_senders",
    "send_message",
    "message_seen",
    "media",
    "ping",
    "get_statistics",
    "transport_report",
    "leave",
    "pong",
];

/// Why a session of a process of before is not gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrecalled {
    /// Its note, or that of its scope, is of another version, or did not come.
    Unreadable,
    /// Its scope ended, and another of the name began.
    Older,
    /// There is no place for it.
    NoPlace,
    /// What its note says does not fit together.
    Misfit,
    /// The relay did not tell it in time: counted once, however many they are.
    Untold,
}

/// In their order.
const UNRECALLED: [&str; 5] = ["unreadable", "older", "no_place", "misfit", "untold"];

/// Codes are numbered without gaps, from 0.
const CODES: usize = 21;

/// Counters of all links since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    kinds: [AtomicU64; KINDS.len()],
    refusals: [AtomicU64; CODES],
    unrecalled: [AtomicU64; UNRECALLED.len()],
    /// Messages of clients that this version does not know.
    pub unknown: AtomicU64,
    /// Messages of clients after which they were read later, because they speak too fast.
    pub held: AtomicU64,
    /// Links that were served, refused ones included.
    pub opened: AtomicU64,
    /// QUIC connections asked to show that their address is theirs.
    pub quic_retries: AtomicU64,
    /// Links that went on with a session of before.
    pub resumed: AtomicU64,
    /// Sessions that were taken over from a process of before.
    pub recalled: AtomicU64,
    /// Notes of sessions that were given to the relay.
    pub noted: AtomicU64,
    /// Those that left something out, or were too long.
    pub notes_cut: AtomicU64,
    /// Messages handed to clients for the first time.
    pub messages: AtomicU64,
    /// Clients that were sent to another node.
    pub redirected: AtomicU64,
    /// Clients that were told of the other of two.
    pub direct: AtomicU64,
    /// Packets of media from clients, over links.
    pub media_in: AtomicU64,
    /// Packets of media to clients, over links.
    pub media_out: AtomicU64,
    /// Those that found no room, or no relay.
    pub media_dropped: AtomicU64,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// A message came.
    pub fn received(&self, body: &Body) {
        let at = match body {
            Body::Auth(_) => 0,
            Body::Publish(_) => 1,
            Body::Unpublish(_) => 2,
            Body::SetMuted(_) => 3,
            Body::Subscribe(_) => 4,
            Body::Unsubscribe(_) => 5,
            Body::SetPreferences(_) => 6,
            Body::AllowSenders(_) => 7,
            Body::SendMessage(_) => 8,
            Body::MessageSeen(_) => 9,
            Body::Media(_) => 10,
            Body::Ping(_) => 11,
            Body::GetStatistics(_) => 12,
            Body::TransportReport(_) => 13,
            Body::Leave(_) => 14,
            Body::Pong(_) => 15,
        };
        self.kinds.get(at).into_iter().for_each(count);
    }

    /// A request was refused, or a link ended with an error.
    pub fn refused(&self, code: ErrorCode) {
        let at = usize::try_from(i32::from(code)).unwrap_or_default();
        self.refusals.get(at).into_iter().for_each(count);
    }

    /// A session of a process of before ends here.
    pub fn lost(&self, why: Unrecalled) {
        self.unrecalled.get(why as usize).into_iter().for_each(count);
    }

    /// Sessions that were not gone on with, by reason.
    pub fn unrecalled(&self) -> impl Iterator<Item = (&'static str, u64)> {
        UNRECALLED.into_iter().zip(self.unrecalled.iter().map(|n| n.load(Ordering::Relaxed)))
    }

    /// All of them.
    pub fn all_unrecalled(&self) -> u64 {
        self.unrecalled().map(|(_, count)| count).sum()
    }

    /// Messages by kind.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.into_iter().zip(self.kinds.iter().map(|n| n.load(Ordering::Relaxed)))
    }

    /// Refusals by code.
    pub fn refusals(&self) -> impl Iterator<Item = (String, u64)> {
        let codes = (0..).map_while(|number| ErrorCode::try_from(number).ok());
        codes.map(label).zip(self.refusals.iter().map(|n| n.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_counter() {
        assert!(ErrorCode::try_from(CODES as i32 - 1).is_ok());
        assert!(ErrorCode::try_from(CODES as i32).is_err(), "CODES must grow with the proto");
        let counters = Counters::default();
        counters.refused(ErrorCode::SlowReader);
        let counted: Vec<_> = counters.refusals().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("slow_reader".to_owned(), 1)]);
        assert_eq!(counters.refusals().count(), CODES);
    }
}
