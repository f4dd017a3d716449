//! The load against relays in this process, over real sockets.

mod common;
mod faults;
mod impaired;
mod native;
mod pairs;
mod relay;
