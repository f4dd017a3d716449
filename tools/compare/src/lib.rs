//! Strait beside bare loops and other servers, on one bench bed.
#![forbid(unsafe_code)]

pub mod bed;
pub mod floor;
pub mod janus;
pub mod strait;
pub mod versus;

pub use bed::{Bed, Side};
