//! The client without a socket, a clock or randomness of its own.

pub mod transport;
