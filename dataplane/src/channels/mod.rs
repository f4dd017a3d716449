//! Data channels (RFC 8831): SCTP over a peer's DTLS association, on the DTLS thread.
//!
//! [`Channels`] are one peer's, without sockets and threads; [`Post`] is the way of messages between the DTLS thread and
//! the RPC. What a message says is the control plane's business.

mod association;
mod budget;
pub mod fuzz;
mod post;
#[cfg(test)]
mod tests;

pub use association::{Channels, Refusal};
pub use post::{Counters, Outgoing, Post, Way, way};

use std::sync::Arc;
use strait_proto::pace::Rates;

/// What the caller calls a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Its scope.
    pub scope: String,
    /// The peer.
    pub peer: String,
}

/// A peer that may open channels.
#[derive(Clone, Debug)]
pub struct Permission {
    /// Whose they are.
    pub names: Arc<Names>,
    /// The largest message that the peer takes, in bytes.
    pub message_bytes_max: usize,
    /// How fast it may speak.
    pub rates: Rates,
}

/// What happens on a peer's channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened one.
    Opened {
        /// Its SCTP stream.
        channel: u16,
        /// As the peer named it.
        label: String,
        /// As the peer said.
        protocol: String,
    },
    /// One is closed.
    Closed {
        /// Which.
        channel: u16,
        /// Why, for people.
        detail: String,
    },
    /// The peer said something.
    Message {
        /// On which.
        channel: u16,
        /// It is UTF-8.
        is_text: bool,
        /// What.
        payload: Vec<u8>,
    },
}
