//! Strait's core on a virtual clock and a virtual network: one seed, one run.
//!
//! The [`strait_core::worker::Worker`] is the real one, called in the order of the relay's loop behind
//! a [`port::SimPort`]. The clients are written here: ICE, SRTP, streams out, streams in, and every
//! rule that what they get must keep. A run is a [`plan::Plan`]; [`random::plan`] makes one of a seed,
//! and [`run`] runs it.
#![forbid(unsafe_code)]

pub mod control;
pub mod handshake;
mod lines;
pub mod network;
pub mod payload;
pub mod peer;
pub mod plan;
pub mod port;
pub mod protocol;
pub mod random;
pub mod relay;
pub mod report;
pub mod seeds;
mod stage;
pub mod trace;
mod watch;
pub mod world;

pub use report::Outcome;
pub use strait_lab::rng;

/// Runs a plan to its end.
#[must_use]
pub fn run(plan: plan::Plan) -> Outcome {
    world::World::new(plan, false).run()
}

/// Runs a plan to its end and keeps the trace in words.
#[must_use]
pub fn run_verbose(plan: plan::Plan) -> Outcome {
    world::World::new(plan, true).run()
}
