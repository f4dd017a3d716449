//! SRTP, SRTCP, DTLS-SRTP key agreement and STUN integrity, sans-IO: no socket, no clock, no lock.
//!
//! - [`srtp`]: [`srtp::Inbound`] opens what a peer sends, [`srtp::Outbound`] protects what we send to it.
//! - [`dtls`]: [`dtls::Handshake`] turns datagrams into [`srtp::SessionKeys`].
//! - [`StunKey`]: MESSAGE-INTEGRITY with the key schedule done once.
#![forbid(unsafe_code)]

pub mod dtls;
pub mod fuzz;
mod integrity;
pub mod srtp;

pub use integrity::{StunKey, hmac_sha1, verify_hmac_sha1};
