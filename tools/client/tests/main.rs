//! The client against a fake node, in virtual time and over real sockets, and against a real one.

mod bulk;
mod cluster;
mod encoder;
mod failover;
mod fake_node;
mod fake_proxies;
mod hosts;
mod invoke;
mod over_quic;
mod proxies;
mod real;
mod restart;
mod sockets;
mod virtual_net;
mod wanted;
mod ways;
