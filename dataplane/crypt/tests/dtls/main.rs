//! Handshakes with an independent driver of the DTLS library as peer, under a virtual clock and network.
#![forbid(unsafe_code)]

mod agree;
mod memory;
mod net;
mod noise;
