//! Strait beside bare loops and other servers, on one bench bed.
#![forbid(unsafe_code)]

pub mod bed;
pub mod floor;
pub mod strait;

pub use bed::{Bed, Side};
