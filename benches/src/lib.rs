//! What the benchmarks in `benches/` measure, made so that they and the instruction counts measure the same.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod call;
pub mod crowd;
pub mod datagrams;
pub mod random;
pub mod sealed;
