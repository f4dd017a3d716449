//! The Strait control plane: signalling, SDP, scopes, tokens.
//!
//! `http` speaks to the world, `signal` is the WebSocket protocol, `link` that of native clients,
//! `scope` the conference,
//! `sdp` the offers and answers, `relay` the data plane's RPC. See ARCHITECTURE.md.
#![forbid(unsafe_code)]

pub mod admission;
pub mod agent;
pub mod api;
pub mod auth;
pub mod cluster;
pub mod config;
pub mod events;
pub mod fault;
pub mod fuzz;
pub mod host;
pub mod http;
pub mod id;
pub mod keys;
pub mod limits;
pub mod link;
pub mod rate;
pub mod relay;
pub mod scope;
pub mod sdp;
pub mod server;
pub mod signal;
pub mod store;

pub use config::Config;
pub use fault::Fault;
