//! The packet's path through the relay, sans-IO: no clock, no socket, no randomness, no lock.
#![forbid(unsafe_code)]

pub mod command;
pub mod egress;
pub mod limits;
pub mod port;
pub mod time;
