//! The port on recvmmsg and sendmmsg: works on every kernel, and is the baseline for faster ones.

use crate::clock::Clock;
use crate::counters::Counters;
use crate::epoll::{Epoll, Interest, Waker};
use crate::limits::{BATCH, TCP_SWEEP};
use crate::tcp::{CONNECTION_TOKENS, Connection, LISTENER_TOKENS, Tcp};
use crate::udp::{Buffers, Socket};
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path, Port, Protocol};
use strait_core::time::{Duration, Instant};

const WAKER_TOKEN: u64 = 0;
/// Token of the first UDP socket.
const UDP_TOKENS: u64 = 1;

/// One worker's sockets: UDP of both families, ICE-TCP, and a waker, behind one epoll. Made by [`crate::bind()`].
#[derive(Debug)]
pub struct Mmsg {
    udp: Vec<Udp>,
    tcp: Tcp,
    epoll: Epoll,
    waker: Waker,
    clock: Clock,
    buffers: Buffers,
    counters: Counters,
    /// Whose turn it is to be read first, so that a full socket does not starve the others.
    first: usize,
    /// The last read filled a batch: look again before sleeping.
    more: bool,
}

#[derive(Debug)]
struct Udp {
    socket: Socket,
    /// What it is bound to.
    address: IpAddr,
    /// For whoever is in no call yet: it is read, and never sent from.
    strangers: bool,
    readable: bool,
}

/// Whether a socket bound to `address` is the one to send from `local` with.
pub(crate) fn answers(address: IpAddr, local: IpAddr) -> bool {
    address == local || (address.is_unspecified() && address.is_ipv6() == local.is_ipv6())
}

impl Mmsg {
    pub(crate) fn new(
        udp: Vec<(UdpSocket, bool)>,
        listeners: Vec<TcpListener>,
    ) -> io::Result<Self> {
        let (epoll, waker) = (Epoll::new()?, Waker::new()?);
        epoll.add(&waker, WAKER_TOKEN, Interest::Read)?;
        let mut sockets = Vec::new();
        for (token, (socket, strangers)) in (UDP_TOKENS..LISTENER_TOKENS).zip(udp) {
            epoll.add(&socket, token, Interest::Read)?;
            let address = socket.local_addr()?.ip();
            let socket = Socket::new(socket);
            sockets.push(Udp { socket, address, strangers, readable: true });
        }
        Ok(Self {
            udp: sockets,
            tcp: Tcp::new(listeners, &epoll)?,
            epoll,
            waker,
            clock: Clock,
            buffers: Buffers::new(),
            counters: Counters::default(),
            first: 0,
            more: false,
        })
    }

    /// Ends a wait from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The UDP socket of the address at this place of [`crate::Bound::udp`].
    pub(crate) fn udp_socket(&self, at: usize) -> Option<&UdpSocket> {
        self.udp.iter().filter(|udp| !udp.strangers).nth(at).map(|udp| &udp.socket.socket)
    }

    /// Its socket for strangers, if there is one.
    pub(crate) fn strangers_socket(&self, at: usize) -> Option<&UdpSocket> {
        self.udp.iter().filter(|udp| udp.strangers).nth(at).map(|udp| &udp.socket.socket)
    }

    /// What the sockets counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.tcp_open = self.tcp.open();
        counters
    }

    /// The first half of [`Port::receive`]: reads a batch and returns how many there are to ask [`Mmsg::datagram`] for.
    /// In two halves, a worker can send between two datagrams when their fan-out is large.
    pub fn fill(&mut self, now: Instant) -> usize {
        let conversion = self.clock.conversion(now);
        let Self { udp, tcp, epoll, buffers, counters, .. } = self;
        let mut received = 0;
        let sources = udp.len() + 1;
        for turn in 0..sources {
            let room = BATCH - received;
            if room == 0 {
                break;
            }
            match udp.get_mut((self.first + turn) % sources) {
                Some(udp) if udp.readable => {
                    let got = udp.socket.receive(buffers, received, conversion, counters);
                    udp.readable = got == room;
                    received += got;
                }
                Some(_) => {}
                None => {
                    let mut at = received;
                    received += tcp.receive(now, room, epoll, counters, &mut |meta, frame| {
                        buffers.put(at, meta, frame);
                        at += 1;
                    });
                }
            }
        }
        self.first = (self.first + 1) % sources;
        self.more = received == BATCH;
        received
    }

    /// The second half: one datagram of the last [`Mmsg::fill`]; `None` for one that is not to be used.
    pub fn datagram(&mut self, at: usize) -> Option<(Meta, &mut [u8])> {
        self.buffers.get_mut(at)
    }

    /// Gives away an ICE-TCP connection whose peer lives on another worker.
    pub fn detach(&mut self, path: Path) -> Option<Connection> {
        self.tcp.detach(path, &self.epoll)
    }

    /// Takes over a connection that another worker accepted; it is closed if this worker has no room.
    pub fn adopt(&mut self, connection: Connection) {
        if !self.tcp.adopt(connection, &self.epoll) {
            self.counters.tcp_refused += 1;
        }
    }
}

impl Port for Mmsg {
    fn receive(&mut self, now: Instant, mut each: impl FnMut(Meta, &mut [u8])) -> usize {
        let received = self.fill(now);
        for at in 0..received {
            if let Some((meta, bytes)) = self.buffers.get_mut(at) {
                each(meta, bytes);
            }
        }
        received
    }

    fn send(&mut self, egress: &mut Egress) {
        if egress.is_empty() {
            return;
        }
        for udp in self.udp.iter_mut().filter(|udp| !udp.strangers) {
            let (socket, address) = (&mut udp.socket, udp.address);
            let ours = |path: &Path| path.protocol == Protocol::Udp && answers(address, path.local);
            socket.send(egress.runs().filter(|run| ours(&run.path)), &mut self.counters);
        }
        for (path, bytes) in egress.iter().filter(|(path, _)| path.protocol == Protocol::Tcp) {
            self.tcp.send(path, bytes, &self.epoll, &mut self.counters);
        }
        egress.clear();
    }

    fn wait(&mut self, now: Instant, until: Option<Instant>) {
        self.tcp.sweep(now, &self.epoll, &mut self.counters);
        let timer = until.map(|until| until.since(now));
        let sweep = self.tcp.needs_sweep().then_some(TCP_SWEEP);
        let timeout = if self.more || self.tcp.is_ready() {
            Some(Duration::ZERO)
        } else {
            timer.into_iter().chain(sweep).min()
        };
        let Self { udp, tcp, epoll, waker, counters, .. } = self;
        epoll.wait(timeout, |token, writable| match token {
            WAKER_TOKEN => waker.reset(),
            LISTENER_TOKENS..CONNECTION_TOKENS => tcp.accept(token, now, epoll, counters),
            CONNECTION_TOKENS.. => tcp.on_event(token, writable, epoll),
            _ => {
                let index = usize::try_from(token - UDP_TOKENS).unwrap_or(usize::MAX);
                if let Some(udp) = udp.get_mut(index) {
                    udp.readable = true;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, bind, sockopt};

    #[test]
    fn ecn_bits_arrive() {
        let options = Options {
            udp: vec![[127, 0, 0, 1].into(), "::1".parse().unwrap()],
            port: 0,
            tcp: vec![],
            tcp_port: None,
            workers: 1,
            strangers: false,
            this_host_only: false,
        };
        let mut bound = bind(&options).unwrap();
        let port = &mut bound.ports[0];
        for (address, level, option) in [
            (bound.udp[0], libc::IPPROTO_IP, libc::IP_TOS),
            (bound.udp[1], libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        ] {
            let client = UdpSocket::bind((address.ip(), 0)).unwrap();
            for ecn in [0, 1, 2, 3] {
                sockopt::set(&client, level, option, 0xb8 | ecn).unwrap();
                client.send_to(b"x", address).unwrap();
                let now = Clock.instant();
                port.wait(now, Some(now + Duration::from_secs(5)));
                let mut seen = None;
                port.receive(now, |meta, _| seen = Some(i32::from(meta.ecn)));
                assert_eq!(seen, Some(ecn), "{address}");
            }
        }
    }
}
