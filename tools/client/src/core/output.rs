//! What a client tells the application and wants of its surroundings.

use super::media::Payload;
use super::resolver::Question;
use super::uplink::Target;
use crate::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use strait_link::v1::{self, user_event};

/// Names a request of the application in the events that follow. A publication keeps its handle over reconnects.
pub type Handle = u32;

/// What happens.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the link's messages")]
pub enum Event {
    /// The scope was joined. `resumed`: all goes on as before the link was lost; otherwise publications are made anew by
    /// the client, and subscriptions are over; with a [`Cluster`](super::resolver::Cluster) they are made anew as well.
    Joined { peer_id: String, resumed: bool, peers: Vec<v1::Peer> },
    /// The link is away; it is tried again.
    LinkLost { error: Error, retry_in: Duration },
    /// The scope is on this node now, "HOST:PORT", and `Joined` follows. Publications and subscriptions are made anew there
    /// by the client: `Published` and `Subscribed` tell their other identifiers.
    Moved { node: String },
    /// The client is at its end.
    Ended(Error),
    /// Something happened in the scope.
    Scope(user_event::Body),
    /// A publication can be sent; again with another id after it was made anew.
    Published { handle: Handle, publication_id: String, encodings: usize },
    /// A subscription's packets come from now on; again with another id after it was made anew.
    Subscribed { handle: Handle, subscription_id: String },
    /// A request was done.
    Done { handle: Handle },
    /// A request was not done.
    Refused { handle: Handle, error: Error },
    /// Answers [`Client::statistics_of_node`](super::client::Client::statistics_of_node).
    Statistics { handle: Handle, json: String },
    /// A message.
    Message { from: String, payload: Vec<u8>, text: bool, direct: bool },
    /// Messages to peers who are not there.
    Undelivered { numbers: Vec<u64> },
    /// A peer's session ended, other than by its own wish, before it confirmed `count` messages, of which these are the first
    /// and the last: some may have reached it.
    MessagesLost { peer_id: String, count: u64, first: u64, last: u64 },
    /// Messages that the node did not confirm, and will not: it may have taken them over or not. `Ended` follows.
    Unconfirmed { numbers: Vec<u64> },
    /// Messages to this client that the node had taken are lost: it was started again. So many; none: nobody knows whether
    /// there were any, for it did not end in order.
    MessagesMissed { count: Option<u64> },
    /// A packet of a subscription.
    Payload(Payload),
    /// A key frame is wanted.
    KeyFrameWanted { publication_id: String, encoding: usize },
    /// What the encoder of pictures is to keep to.
    Target(Target),
    /// Media goes another way.
    Transport(v1::transport_report::State),
}

/// What the surroundings are to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask a CnC, and no other one any more, then call [`Client::on_resolved`](super::client::Client::on_resolved).
    Resolve(Question),
    /// Open the link, then call [`Client::on_link`](super::client::Client::on_link).
    Connect {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Close the link; no [`Client::on_link_lost`](super::client::Client::on_link_lost) is wanted for it.
    CloseLink,
    /// Send over the link.
    Link(Vec<u8>),
    /// Send a packet over the link, as a datagram of it where it has such, else in a `Media` message; to be left out where
    /// much waits to be sent there, for late media is worth nothing.
    LinkMedia(Vec<u8>),
    /// Open a connection for framed media (RFC 4571 over TLS, [`strait_link::MEDIA_ALPN`]), then call [`Client::on_media`](super::client::Client::on_media); or
    /// [`Client::on_media_lost`](super::client::Client::on_media_lost) where that cannot be had, or breaks.
    OpenMedia {
        /// Name or address, as of the link.
        host: String,
        /// Port.
        port: u16,
    },
    /// Close it, or give it up; no [`Client::on_media_lost`](super::client::Client::on_media_lost) is wanted for it.
    CloseMedia,
    /// Send over it; to be left out where much waits to be sent there.
    Media(Vec<u8>),
    /// Send as a datagram.
    Datagram(SocketAddr, Vec<u8>),
    /// Tell the application. After [`Event::Ended`] nothing follows.
    Event(Event),
}
