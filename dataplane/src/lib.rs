//! The data plane: pinned workers driven over a local RPC. `main.rs` is the program around it.
#![forbid(unsafe_code)]

pub mod candidates;
pub mod channels;
pub mod codecs;
pub mod config;
mod error;
pub mod extensions;
#[doc(hidden)]
pub mod fault;
mod framed;
pub mod handshake;
pub mod limits;
pub mod mailbox;
mod metrics;
pub mod notes;
pub mod random;
pub mod registry;
mod relay;
pub mod report;
mod rpc;
pub mod ssrcs;
pub mod steer;
pub mod trace;
mod turn;
mod watchdog;
pub mod worker;

pub use config::Config;
pub use error::RelayError;
pub use relay::{Relay, raise_open_files};
pub use rpc::SocketError;
pub use watchdog::Timing;
