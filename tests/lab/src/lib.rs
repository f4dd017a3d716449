//! The impairment lab: lines that delay, queue, lose, reorder and double datagrams, and that say what they did.
//!
//! Sans-IO and seeded: time comes in as the [`Duration`](std::time::Duration) since the beginning of a run, chance out of
//! a [`rng::Rng`]. A [`link::Link`] says at once when a datagram will arrive: what a simulator needs. A [`pipe::Pipe`]
//! holds datagrams until they are due, and its conditions can change at any moment: what stands between real sockets
//! (`strait lab`, `strait load --impair`). A [`truth::Truth`] counts what happened, for measurements to be held against.
#![forbid(unsafe_code)]

pub mod link;
pub mod pipe;
pub mod rng;
pub mod setting;
pub mod truth;
