//! One worker's sockets: UDP of both families, ICE-TCP, and a waker.

use crate::bind::Backend;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::epoll::{Epoll, Interest, Waker};
use crate::limits::{BATCH, TCP_SWEEP};
use crate::mmsg::Mmsg;
use crate::tcp::{CONNECTION_TOKENS, Connection, LISTENER_TOKENS, Tcp};
use crate::udp::{Found, Udp};
use crate::uring::Uring;
use std::io;
use std::net::{TcpListener, UdpSocket};
use strait_core::egress::Egress;
use strait_core::port::{LocalPort, Meta, Path, Port, Protocol};
use strait_core::time::{Duration, Instant};

const WAKER_TOKEN: u64 = 0;
/// Token of the first UDP socket.
const UDP_TOKENS: u64 = 1;

/// One worker's sockets behind one wait. Made by [`crate::bind()`].
#[derive(Debug)]
pub struct Sockets {
    engine: Engine,
    tcp: Tcp,
    epoll: Epoll,
    waker: Waker,
    clock: Clock,
    /// The datagrams of the last [`Sockets::fill`].
    found: Vec<Found>,
    counters: Counters,
    /// Whose turn it is to be read first, so that a full socket does not starve the others.
    first: usize,
    /// The last read filled a batch: look again before sleeping.
    more: bool,
    /// How long to look for something to do before sleeping.
    busy_poll: Duration,
    /// Which run of the next send is to be stamped.
    stamp_next: Option<usize>,
    /// The UDP socket whose stamp is awaited.
    stamping: Option<usize>,
}

/// How UDP is spoken.
#[derive(Debug)]
enum Engine {
    Mmsg(Mmsg),
    Uring(Box<Uring>),
}

impl Sockets {
    /// Also says why the backend is another than was wished for.
    pub(crate) fn new(
        udp: Vec<(UdpSocket, LocalPort, bool)>,
        listeners: Vec<TcpListener>,
        backend: Backend,
        busy_poll: Duration,
    ) -> io::Result<(Self, Option<io::Error>)> {
        let (epoll, waker) = (Epoll::new()?, Waker::new()?);
        epoll.add(&waker, WAKER_TOKEN, Interest::Read)?;
        let udp =
            udp.into_iter().map(|(socket, port, strangers)| Udp::new(socket, port, strangers));
        let udp = udp.collect::<io::Result<Vec<_>>>()?;
        let (engine, missed) = match backend {
            Backend::Mmsg => (Engine::Mmsg(Mmsg::new(udp)), None),
            Backend::Uring => match Uring::new(udp, &epoll) {
                Ok(uring) => (Engine::Uring(Box::new(uring)), None),
                Err((udp, error)) => (Engine::Mmsg(Mmsg::new(udp)), Some(error)),
            },
        };
        if let Engine::Mmsg(mmsg) = &engine {
            for (token, udp) in (UDP_TOKENS..LISTENER_TOKENS).zip(mmsg.sockets()) {
                epoll.add(&udp.socket, token, Interest::Read)?;
            }
        }
        let sockets = Self {
            engine,
            tcp: Tcp::new(listeners, &epoll)?,
            epoll,
            waker,
            clock: Clock,
            found: Vec::with_capacity(BATCH),
            counters: Counters::default(),
            first: 0,
            more: false,
            busy_poll,
            stamp_next: None,
            stamping: None,
        };
        Ok((sockets, missed))
    }

    /// Ends a wait from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// How UDP is spoken.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self.engine {
            Engine::Mmsg(_) => Backend::Mmsg,
            Engine::Uring(_) => Backend::Uring,
        }
    }

    /// The UDP socket at this place of [`crate::Bound::all_udp`]: that of known flows, or of strangers.
    pub(crate) fn udp_socket(&self, at: usize, strangers: bool) -> Option<&UdpSocket> {
        let nth = |udp: &&Udp| udp.strangers == strangers;
        let udp = match &self.engine {
            Engine::Mmsg(mmsg) => mmsg.sockets().filter(nth).nth(at),
            Engine::Uring(uring) => uring.sockets().filter(nth).nth(at),
        };
        udp.map(|udp| &udp.socket)
    }

    /// What the sockets counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.tcp_open = self.tcp.open();
        counters
    }

    /// The first half of [`Port::receive`]: reads a batch and returns how many there are to ask [`Sockets::datagram`] for.
    /// In two halves, a worker can send between two datagrams when their fan-out is large.
    pub fn fill(&mut self, now: Instant) -> usize {
        let conversion = self.clock.conversion(now);
        let Self { engine, tcp, epoll, counters, found, .. } = self;
        found.clear();
        match engine {
            Engine::Mmsg(mmsg) => {
                let mut filled = 0;
                let sources = mmsg.sockets().count() + 1;
                for turn in 0..sources {
                    if filled < BATCH {
                        let source = (self.first + turn) % sources;
                        filled += if source + 1 == sources {
                            let mut buffer = filled;
                            tcp.receive(now, BATCH - filled, epoll, counters, &mut |meta, frame| {
                                mmsg.put(buffer, frame);
                                found.push(Found::whole(meta, buffer as u32, frame.len()));
                                buffer += 1;
                            })
                        } else {
                            mmsg.receive(source, filled, conversion, counters, found)
                        };
                    }
                }
                self.first = (self.first + 1) % sources;
                self.more = filled >= BATCH;
            }
            Engine::Uring(uring) => {
                uring.receive(conversion, counters, found);
                let mut buffer = 0;
                let frames = tcp.receive(now, BATCH, epoll, counters, &mut |meta, frame| {
                    uring.put(buffer, frame);
                    found.push(Found::whole(meta, uring.place_of(buffer), frame.len()));
                    buffer += 1;
                });
                self.more = uring.has_more() || frames >= BATCH;
            }
        }
        found.len()
    }

    /// The second half: one datagram of the last [`Sockets::fill`].
    pub fn datagram(&mut self, at: usize) -> Option<(Meta, &mut [u8])> {
        let found = self.found.get(at)?;
        let bytes = match &mut self.engine {
            Engine::Mmsg(mmsg) => mmsg.bytes(found),
            Engine::Uring(uring) => uring.bytes(found),
        };
        Some((found.meta, bytes?))
    }

    /// Has the kernel say when it hands one run of the next [`Port::send`] to the network card: the one at `place`, modulo how
    /// many go by UDP. One is awaited at a time: one that was not told yet is given up.
    pub fn stamp_next(&mut self, place: usize) {
        self.stamp_next = Some(place);
    }

    /// Whether that was asked for, and not told yet.
    #[must_use]
    pub fn is_stamping(&self) -> bool {
        self.stamping.is_some()
    }

    /// When it was, if that is known by now. Loopback and most drivers tell it within [`Port::send`].
    pub fn stamp(&mut self) -> Option<Instant> {
        let realtime_ns = self.stamped_socket()?.take_stamp()?;
        self.stamping = None;
        let now = self.clock.instant();
        Some(self.clock.conversion(now).arrival(Some(realtime_ns)))
    }

    fn stamped_socket(&mut self) -> Option<&mut Udp> {
        let at = self.stamping?;
        match &mut self.engine {
            Engine::Mmsg(mmsg) => mmsg.socket_mut(at),
            Engine::Uring(uring) => uring.socket_mut(at),
        }
    }

    /// The run that is to be stamped, and its socket gets ready for that.
    fn choose(&mut self, egress: &Egress, place: usize) -> Option<usize> {
        // What comes of the one before says nothing any more.
        if let Some(udp) = self.stamped_socket() {
            let _ = udp.take_stamp();
        }
        self.stamping = None;
        let by_udp = || {
            let runs = egress.runs().enumerate();
            runs.filter(|(_, run)| run.path.protocol == Protocol::Udp)
        };
        let (chosen, run) = by_udp().nth(place.checked_rem(by_udp().count())?)?;
        let is_its = |udp: &Udp| !udp.strangers && udp.place.sends(&run.path);
        self.stamping = match &self.engine {
            Engine::Mmsg(mmsg) => mmsg.sockets().position(is_its),
            Engine::Uring(uring) => uring.sockets().position(is_its),
        };
        self.stamped_socket()?.stamps = true;
        Some(chosen)
    }

    /// Gives away an ICE-TCP connection whose peer lives on another worker.
    pub fn detach(&mut self, path: Path) -> Option<Connection> {
        self.tcp.detach(path, &self.epoll)
    }

    /// Holds at most so many ICE-TCP connections, for want of files.
    pub fn limit_tcp(&mut self, connections: usize) {
        self.tcp.limit(connections);
    }

    /// Takes over a connection that another worker accepted; it is closed if this worker has no room.
    pub fn adopt(&mut self, connection: Connection) {
        if !self.tcp.adopt(connection, &self.epoll) {
            self.counters.tcp_refused += 1;
        }
    }

    /// Waits once, and says whether there is something to do.
    fn wait_once(&mut self, now: Instant, timeout: Option<Duration>) -> bool {
        let Self { engine, tcp, epoll, waker, counters, .. } = self;
        let timeout = match engine {
            Engine::Mmsg(_) => timeout,
            Engine::Uring(uring) => match uring.wait(timeout) {
                true => Some(Duration::ZERO),
                false => return uring.has_more(),
            },
        };
        let mut any = matches!(engine, Engine::Uring(_));
        epoll.wait(timeout, |token, writable| {
            any = true;
            match (token, &mut *engine) {
                (WAKER_TOKEN, _) => waker.reset(),
                (LISTENER_TOKENS..CONNECTION_TOKENS, _) => tcp.accept(token, now, epoll, counters),
                (CONNECTION_TOKENS.., _) => tcp.on_event(token, writable, epoll),
                (_, Engine::Mmsg(mmsg)) => mmsg.set_readable((token - UDP_TOKENS) as usize),
                (_, Engine::Uring(_)) => {}
            }
        });
        any
    }
}

impl Port for Sockets {
    fn receive(&mut self, now: Instant, mut each: impl FnMut(Meta, &mut [u8])) -> usize {
        let received = self.fill(now);
        for at in 0..received {
            if let Some((meta, bytes)) = self.datagram(at) {
                each(meta, bytes);
            }
        }
        received
    }

    fn send(&mut self, egress: &mut Egress) {
        if egress.is_empty() {
            return;
        }
        let stamped = self.stamp_next.take().and_then(|place| self.choose(egress, place));
        match &mut self.engine {
            Engine::Mmsg(mmsg) => mmsg.send(egress, stamped, &mut self.counters),
            Engine::Uring(uring) => uring.send(egress, stamped, &mut self.counters),
        }
        for (path, bytes) in egress.iter().filter(|(path, _)| path.protocol == Protocol::Tcp) {
            self.tcp.send(path, bytes, &self.epoll, &mut self.counters);
        }
        self.tcp.flush(&self.epoll, &mut self.counters);
        egress.clear();
    }

    fn wait(&mut self, now: Instant, until: Option<Instant>) {
        self.tcp.sweep(now, &self.epoll, &mut self.counters);
        if self.more || self.tcp.is_ready() {
            self.wait_once(now, Some(Duration::ZERO));
            return;
        }
        let sweep = self.tcp.needs_sweep().then(|| now + TCP_SWEEP);
        let until = until.into_iter().chain(sweep).min();
        let mut at = now;
        while at.since(now) < self.busy_poll && until.is_none_or(|until| until > at) {
            if self.wait_once(at, Some(Duration::ZERO)) {
                return;
            }
            at = self.clock.instant();
        }
        self.wait_once(at, until.map(|until| until.since(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, bind, sockopt};

    #[test]
    fn ecn_bits_arrive() {
        for backend in [Backend::Mmsg, Backend::Uring] {
            let options = Options {
                udp: vec![[127, 0, 0, 1].into(), "::1".parse().unwrap()],
                backend,
                ..Options::default()
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
}
