//! The sockets under [`strait_core::port::Port`]: UDP in batches, ICE-TCP, a wake-up, a clock.
//!
//! The only crate of the packet's path with `unsafe`: each block is one system call that `std` does not offer.

pub mod affinity;
pub mod batch;
mod bind;
pub mod clock;
mod cmsg;
pub mod counters;
mod cutting;
mod epoll;
pub mod interfaces;
pub mod ktls;
pub mod limits;
mod mmsg;
mod outgoing;
pub mod process;
mod sockaddr;
mod sockets;
mod sockopt;
mod stamp;
pub mod steering;
pub mod tcp;
mod udp;
mod uring;

pub use bind::{Backend, BindError, Bound, Options, bind};
pub use clock::Clock;
pub use counters::{Counters, Drop};
pub use epoll::Waker;
pub use sockets::Sockets;
pub use sockopt::{limit_unsent, set_traffic_class};
