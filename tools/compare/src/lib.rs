//! Strait beside bare loops and other servers, on one bench bed.
#![forbid(unsafe_code)]

pub mod bare;
pub mod bed;
pub mod bencode;
pub mod floor;
pub mod janus;
pub mod pairs;
pub mod plain;
pub mod rtpengine;
pub mod strait;
pub mod turn;
pub mod versus;

pub use bed::{Bed, Side};
