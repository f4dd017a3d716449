//! Views over the bytes of RTP, RTCP, STUN, codec payloads and DCEP.
//!
//! A parser checks a datagram once and then hands out borrowed views; a builder writes into a buffer of the
//! caller's. Nothing here keeps state between packets (but for [`seq`], which is state only), reads a clock,
//! allocates or does cryptography: a message authentication code comes in as a closure.
//!
//! What comes from the network may be anything, so no function here panics on any bytes. What a parser refuses,
//! its error type names.
#![forbid(unsafe_code)]

mod bytes;
pub mod codec;
pub mod dcep;
pub mod demux;
pub mod ext;
pub mod framing;
#[doc(hidden)]
pub mod fuzz;
pub mod rtcp;
pub mod rtp;
pub mod seq;
pub mod stun;
pub mod turn;

/// The buffer is too small for what should be written; nothing usable was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the buffer is too small for the message")
    }
}

impl std::error::Error for Full {}
