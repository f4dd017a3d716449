//! A running relay from outside, over real sockets. One program of tests: each would take as long to build as all.

mod call;
mod channels;
mod common;
mod faults;
mod framed;
mod latency;
mod movement;
mod ports;
mod program;
mod quality;
mod rpc;
mod session;
mod speech;
mod spread;
mod stun;
mod turn;
