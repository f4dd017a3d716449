//! The client without a socket, a clock or randomness of its own.

pub mod client;
pub mod downlink;
pub mod media;
pub mod outbox;
pub mod output;
pub mod path;
pub mod receiving;
mod recent;
pub mod resolver;
pub mod sending;
mod subscriptions;
pub mod transport;
pub mod uplink;
pub mod way;
