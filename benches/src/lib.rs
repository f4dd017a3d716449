//! Benchmarks of the path with the network taken out; they are in `benches/`.
#![forbid(unsafe_code)]
