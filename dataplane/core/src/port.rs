//! The seam between the path and the sockets. Implemented by strait-io (`mmsg`) and by the simulator.

use crate::egress::Egress;
use crate::time::Instant;
use std::net::{IpAddr, SocketAddr};

/// How a datagram travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// One UDP datagram.
    Udp,
    /// One frame of ICE-TCP (RFC 4571, RFC 6544), the relay being the passive side.
    Tcp,
}

/// Which of the relay's UDP ports: sockets of one address are told apart by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPort(pub u8);

impl LocalPort {
    /// The one for everything; all connections of TCP are there.
    pub const ANY: Self = Self(0);
    /// That for sound, and all RTCP.
    pub const AUDIO: Self = Self(1);
    /// That for pictures.
    pub const VIDEO: Self = Self(2);

    /// The n-th of further ones for everything.
    #[must_use]
    pub fn further(n: u8) -> Self {
        Self(n.saturating_add(3))
    }
}

/// The two ends of a flow as the relay sees them. For TCP it names the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The address of this host that the datagram came to and that answers leave from. IPv4 is never v4-mapped.
    pub local: IpAddr,
    /// The port of this host, likewise.
    pub port: LocalPort,
    /// The peer's side. IPv4 is never v4-mapped.
    pub remote: SocketAddr,
}

impl Path {
    /// By UDP, at the port for everything.
    #[must_use]
    pub const fn udp(local: IpAddr, remote: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, local, port: LocalPort::ANY, remote }
    }

    /// By TCP.
    #[must_use]
    pub const fn tcp(local: IpAddr, remote: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, local, port: LocalPort::ANY, remote }
    }
}

/// What is known of a received datagram beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Where it came from, and to.
    pub path: Path,
    /// When the kernel took it in, on the worker's clock; the turn's time if the kernel did not say.
    pub at: Instant,
    /// ECN code point (RFC 3168), 0 to 3.
    pub ecn: u8,
}

/// A set of sockets that belong to one worker.
///
/// Every method returns without blocking except [`Port::wait`].
pub trait Port {
    /// Hands over at most one batch of datagrams, each with its bytes to be worked on in place. Returns how many.
    /// Fewer than a batch says that the sockets are drained.
    fn receive(&mut self, now: Instant, each: impl FnMut(Meta, &mut [u8])) -> usize;

    /// Sends all that `egress` holds, in order per path, and empties it. What the sockets do not take is dropped and
    /// counted, never kept: late media is worth nothing.
    fn send(&mut self, egress: &mut Egress);

    /// Sleeps until something can be received, the worker is woken, or `until` passes (`None`: for as long as it takes).
    fn wait(&mut self, now: Instant, until: Option<Instant>);
}
