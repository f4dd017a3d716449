//! `strait.relay.v1`: the RPC between the data plane and any control plane.
//! The words are in `strait/relay/v1/relay.proto`, message by message.
#![forbid(unsafe_code)]

pub mod handover;

/// Version 1 of the protocol, generated from `strait/relay/v1/relay.proto`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::disallowed_types)]
    tonic::include_proto!("strait.relay.v1");
}
