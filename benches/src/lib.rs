//! What the benchmarks in `benches/` measure, made so that they and the instruction counts measure the same.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod call;
pub mod datagrams;
pub mod sealed;
