//! The client SDK for programs that are no browsers.
//!
//! [`Client`] joins a scope, sends and receives media as RTP payloads and messages; see docs/native-client.md for a first
//! program. [`core`] is the same without a socket, a clock or randomness of its own.
#![forbid(unsafe_code)]

mod base64;
pub mod core;
mod error;
mod framed;
pub mod http;
pub mod invoke;
pub mod proxy;
mod quic;
mod resolve;
mod service;
pub mod tls;

pub use crate::core::client::{Config, Event, Handle, Statistics};
pub use crate::core::resolver::{Cluster, Resolver};
pub use crate::core::sending::Frame;
pub use error::Error;
pub use service::{Client, Descriptor, SystemRandom};
pub use strait_link::v1;
pub use tls::Trust;

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_in_the_docs_is_the_example() {
        let docs = include_str!("../../../docs/native-client.md");
        assert!(docs.contains(include_str!("../examples/first.rs")));
    }
}
