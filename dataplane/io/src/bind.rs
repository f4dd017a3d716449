//! Opens the sockets of all workers on one port, and says what is less than wished for.

use crate::limits::{ADDRESSES, SOCKET_BUFFER_BYTES, UDP_PORTS};
use crate::sockets::Sockets;
use crate::sockopt::{self, Reach, Wanted};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use strait_core::port::LocalPort;

/// How often another port is tried when the system may choose and TCP or IPv6 has that one taken.
const EPHEMERAL_ATTEMPTS: usize = 16;

/// How UDP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// recvmmsg and sendmmsg, on every kernel.
    #[default]
    Mmsg,
    /// io_uring, from Linux 6.1 on; recvmmsg and sendmmsg where it is not to be had.
    Uring,
}

/// How long a port is waited for that is taken: the kernel ends the sockets of a ring a moment after their process.
const TAKEN_WAIT: Duration = Duration::from_millis(500);
/// How often it is looked for.
const TAKEN_LOOK: Duration = Duration::from_millis(20);

/// What to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses for UDP; the unspecified one stands alone in its family.
    pub udp: Vec<IpAddr>,
    /// Port for UDP; 0 lets the system choose.
    pub port: u16,
    /// Further ports for UDP on the same addresses, likewise; each with a name of its own, none [`LocalPort::ANY`].
    pub further: Vec<(LocalPort, u16)>,
    /// Addresses for ICE-TCP, likewise; none for no ICE-TCP.
    pub tcp: Vec<IpAddr>,
    /// Port for ICE-TCP; `None` for the same number as UDP.
    pub tcp_port: Option<u16>,
    /// How many workers, each with sockets of its own.
    pub workers: usize,
    /// Each worker gets a second UDP socket for whoever is in no call yet: with [`crate::steering`] a flood of strangers
    /// then fills no buffer but that one.
    pub strangers: bool,
    /// UDP takes datagrams from programs of this host alone, whichever of its addresses they send to.
    pub this_host_only: bool,
    /// Traffic class of all that leaves by UDP: the six bits of DSCP (RFC 2474), then the two of ECN (RFC 3168).
    pub traffic_class: u8,
    /// How UDP is spoken.
    pub backend: Backend,
    /// How long a worker looks for something to do before it sleeps. It costs a core and saves a wake-up.
    pub busy_poll: Duration,
}

impl Default for Options {
    /// One worker, no address yet, ports of the system's choice.
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            port: 0,
            further: Vec::new(),
            tcp: Vec::new(),
            tcp_port: None,
            workers: 1,
            strangers: false,
            this_host_only: false,
            traffic_class: 0,
            backend: Backend::default(),
            busy_poll: Duration::ZERO,
        }
    }
}

/// What was opened.
#[derive(Debug)]
pub struct Bound {
    /// One per worker.
    pub ports: Vec<Sockets>,
    /// Where UDP listens.
    pub udp: Vec<SocketAddr>,
    /// Where it does at further ports.
    pub further: Vec<(LocalPort, Vec<SocketAddr>)>,
    /// Where ICE-TCP listens.
    pub tcp: Vec<SocketAddr>,
    /// What is less than wished for and why, one sentence each.
    pub degradations: Vec<String>,
}

impl Bound {
    /// Where UDP listens at whichever port.
    pub fn all_udp(&self) -> impl Iterator<Item = (LocalPort, SocketAddr)> {
        all(&self.udp, &self.further)
    }
}

/// Why nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("{what} {address} is taken by another program: stop it (`ss -lnp | grep {port}` names it), or choose another port", port = address.port())]
    Taken {
        /// UDP or TCP.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// The address is none of this host's.
    #[error(
        "{what} {address}: no interface of this host has this address: listen on one that `ip address` shows"
    )]
    NotOurs {
        /// UDP or TCP.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Ports below 1024 need a capability.
    #[error(
        "{what} {address}: not permitted: choose a port above 1023, or grant CAP_NET_BIND_SERVICE"
    )]
    Forbidden {
        /// UDP or TCP.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// None of the addresses could be used.
    #[error("no address to listen on is left: name at least one IPv4 or IPv6 address")]
    NoAddress,
    /// More than can be told apart, or too many.
    #[error(
        "addresses to listen on: name at most {ADDRESSES}, each once, and none beside the unspecified one of its family"
    )]
    Ambiguous,
    /// More than there may be.
    #[error("UDP ports: at most {UDP_PORTS}, each once")]
    Ports,
    /// Anything else.
    #[error("{what} {address}: {error}")]
    System {
        /// UDP or TCP.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// epoll or eventfd are not to be had.
    #[error("epoll: {0}: raise the limit of open files (ulimit -n)")]
    Epoll(io::Error),
}

/// Opens the sockets of all workers.
///
/// # Errors
/// The addresses cannot be listened on. An IPv6 that the host lacks is no error but a degradation.
pub fn bind(options: &Options) -> Result<Bound, BindError> {
    unambiguous(&options.udp)?;
    unambiguous(&options.tcp)?;
    let ports = [LocalPort::ANY].into_iter().chain(options.further.iter().map(|(name, _)| *name));
    if 1 + options.further.len() > UDP_PORTS
        || ports.collect::<BTreeSet<_>>().len() <= options.further.len()
    {
        return Err(BindError::Ports);
    }
    let mut wanted = options.further.iter().map(|(_, port)| *port).chain([options.port]);
    let chooses = wanted.any(|port| port == 0) || options.tcp_port == Some(0);
    let (attempts, pause) = match chooses {
        true => (EPHEMERAL_ATTEMPTS, Duration::ZERO),
        false => (TAKEN_WAIT.div_duration_f32(TAKEN_LOOK) as usize, TAKEN_LOOK),
    };
    for _ in 1..attempts {
        match attempt(options) {
            Err(BindError::Taken { .. }) => std::thread::sleep(pause),
            result => return result,
        }
    }
    attempt(options)
}

fn attempt(options: &Options) -> Result<Bound, BindError> {
    let mut degradations = Vec::new();
    let reach = if options.this_host_only { Reach::ThisHost } else { Reach::Everyone };
    let udp = claim(Wanted::Udp, &options.udp, options.port, &mut degradations)?;
    let port = udp.first().ok_or(BindError::NoAddress)?.port();
    // What the host lacks was said once.
    let addresses: Vec<IpAddr> = udp.iter().map(SocketAddr::ip).collect();
    let mut further = Vec::new();
    for (name, port) in &options.further {
        further.push((*name, claim(Wanted::Udp, &addresses, *port, &mut degradations)?));
    }
    let tcp_port = options.tcp_port.unwrap_or(port);
    let tcp = claim(Wanted::Tcp, &options.tcp, tcp_port, &mut degradations)?;

    let mut ports = Vec::new();
    let mut granted = [usize::MAX; 2];
    let mut missing = None;
    for _ in 0..options.workers.max(1) {
        let mut sockets = Vec::new();
        let kinds = [Some(false), options.strangers.then_some(true)];
        let places = || all(&udp, &further);
        for ((name, address), strangers) in
            kinds.into_iter().flatten().flat_map(|kind| places().map(move |place| (place, kind)))
        {
            let socket = sockopt::udp(address, reach).map_err(|error| of("UDP", address, error))?;
            // Left alone where nothing is wished: what the system sets by default stands.
            if options.traffic_class != 0 {
                let set = sockopt::set_traffic_class(&socket, options.traffic_class);
                set.map_err(|error| of("UDP", address, error))?;
            }
            let wanted = [libc::SO_RCVBUF, libc::SO_SNDBUF];
            for (granted, option) in granted.iter_mut().zip(wanted) {
                let size = sockopt::enlarge(&socket, option);
                *granted = size.map_err(|error| of("UDP", address, error))?.min(*granted);
            }
            sockets.push((socket, name, strangers));
        }
        let listeners = tcp
            .iter()
            .map(|&address| sockopt::listener(address).map_err(|error| of("TCP", address, error)));
        let listeners = listeners.collect::<Result<_, _>>()?;
        let (port, missed) = Sockets::new(sockets, listeners, options.backend, options.busy_poll)
            .map_err(BindError::Epoll)?;
        ports.push(port);
        // Once for all workers.
        missing = missing.or(missed);
    }
    if let Some(error) = missing {
        degradations.push(format!(
            "io_uring is not to be had ({error}): recvmmsg and sendmmsg do its work; it needs Linux 6.1, \
             `sysctl kernel.io_uring_disabled=0`, a container that lets it through, and memory to lock \
             (LimitMEMLOCK= or `ulimit -l`)"
        ));
    }
    for (granted, (what, sysctl)) in
        granted.into_iter().zip([("receive", "net.core.rmem_max"), ("send", "net.core.wmem_max")])
    {
        if granted < SOCKET_BUFFER_BYTES {
            degradations.push(format!(
                "UDP {what} buffers are {} KiB of the {} KiB wanted: bursts may be lost; \
                 `sysctl -w {sysctl}={SOCKET_BUFFER_BYTES}`",
                granted >> 10,
                SOCKET_BUFFER_BYTES >> 10,
            ));
        }
    }
    Ok(Bound { ports, udp, further, tcp, degradations })
}

fn all<'a>(
    udp: &'a [SocketAddr],
    further: &'a [(LocalPort, Vec<SocketAddr>)],
) -> impl Iterator<Item = (LocalPort, SocketAddr)> {
    let at = |port, places: &'a [SocketAddr]| places.iter().map(move |place| (port, *place));
    at(LocalPort::ANY, udp).chain(further.iter().flat_map(move |(port, places)| at(*port, places)))
}

/// Finds out which addresses are to be had, and the port if the system may choose it.
fn claim(
    wanted: Wanted,
    addresses: &[IpAddr],
    mut port: u16,
    degradations: &mut Vec<String>,
) -> Result<Vec<SocketAddr>, BindError> {
    let what = match wanted {
        Wanted::Udp => "UDP",
        Wanted::Tcp => "TCP",
    };
    let mut claimed = Vec::new();
    for &ip in addresses {
        let address = SocketAddr::new(ip, port);
        match sockopt::probe(address, wanted) {
            Ok(bound) => {
                port = bound.port();
                claimed.push(SocketAddr::new(ip, port));
            }
            Err(error) if ip.is_ipv6() && is_without_ipv6(&error, ip) => {
                degradations.push(format!(
                    "{what} over IPv6 is off: the host has none ({error}); \
                     `sysctl net.ipv6.conf.all.disable_ipv6` shows whether it is disabled"
                ));
            }
            Err(error) => return Err(of(what, address, error)),
        }
    }
    Ok(claimed)
}

fn is_without_ipv6(error: &io::Error, ip: IpAddr) -> bool {
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => true,
        Some(libc::EADDRNOTAVAIL) => ip.is_loopback() || ip.is_unspecified(),
        _ => false,
    }
}

/// Whether the socket to answer from can be told by the address alone.
fn unambiguous(addresses: &[IpAddr]) -> Result<(), BindError> {
    let clash = |(at, ip): (usize, &IpAddr)| {
        let others = addresses.iter().skip(at + 1).filter(|other| other.is_ipv6() == ip.is_ipv6());
        others.into_iter().any(|other| other == ip || other.is_unspecified() || ip.is_unspecified())
    };
    if addresses.len() > ADDRESSES || addresses.iter().enumerate().any(clash) {
        return Err(BindError::Ambiguous);
    }
    Ok(())
}

fn of(what: &'static str, address: SocketAddr, error: io::Error) -> BindError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::Taken { what, address },
        Some(libc::EADDRNOTAVAIL) => BindError::NotOurs { what, address },
        Some(libc::EACCES) => BindError::Forbidden { what, address },
        _ => BindError::System { what, address, error },
    }
}
