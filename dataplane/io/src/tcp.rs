//! ICE-TCP, the passive side (RFC 6544), frames of RFC 4571. For peers whose network lets no UDP through.
//!
//! A connection proves itself by a STUN message within ten seconds, may be silent for a minute at most, and gets whole
//! frames or nothing when it reads too slowly. Whoever speaks TLS for us holds the other end of a local one.

use crate::counters::{Counters, Drop};
use crate::epoll::{Epoll, Interest};
use crate::limits::{
    ADDRESSES, TCP_ACCEPTS_PER_TURN, TCP_CONNECTIONS, TCP_CONNECTIONS_PER_ADDRESS, TCP_FIRST_FRAME,
    TCP_IDLE, TCP_READ_BYTES, TCP_SWEEP, TCP_TURN_BYTES, TCP_WRITE_BYTES, UDP_PORTS,
};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use strait_core::limits::DATAGRAM_BYTES;
use strait_core::port::{Meta, Path};
use strait_core::time::Instant;
use strait_wire::framing::{self, LENGTH_BYTES};

/// First token of a listener; the one of a connection is at [`CONNECTION_TOKENS`] or above.
pub(crate) const LISTENER_TOKENS: u64 = 192;
/// First token of a connection: its slot, and a generation in the upper half.
pub(crate) const CONNECTION_TOKENS: u64 = 256;
// A waker, two UDP sockets for each address and port, and a listener for each address.
const _: () = assert!(LISTENER_TOKENS as usize > 2 * ADDRESSES * UDP_PORTS);
const _: () = assert!((CONNECTION_TOKENS - LISTENER_TOKENS) as usize >= ADDRESSES);
const STUN_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// One connection with what it read and did not write yet. Can be handed to another worker's port.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    path: Path,
    read: Box<[u8]>,
    /// What of `read` is not worked on yet.
    start: usize,
    end: usize,
    write: VecDeque<u8>,
    proven: bool,
    heard: Instant,
    /// In the queue of those that may have something to read.
    ready: bool,
}

#[derive(Debug)]
enum Stream {
    /// To the peer.
    Tcp(TcpStream),
    /// To a thread of this process, which has the connection to the peer.
    Local(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Local(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Local(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(parts),
            Self::Local(stream) => stream.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Local(stream) => stream.as_raw_fd(),
        }
    }
}

impl Connection {
    fn new(stream: Stream, path: Path, now: Instant) -> Self {
        Self {
            stream,
            path,
            read: vec![0; TCP_READ_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            write: VecDeque::new(),
            proven: false,
            heard: now,
            ready: false,
        }
    }

    /// One whose frames come and go by `stream`, whose other end is this process's own. It counts as the peer's at `path`,
    /// and not among those that its address may have: who let it in bounds these.
    ///
    /// # Errors
    /// The stream cannot be told not to block.
    pub fn local(stream: UnixStream, path: Path, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::new(Stream::Local(stream), path, now))
    }

    /// Whether it is one of those that its address may have.
    fn is_counted(&self) -> bool {
        matches!(self.stream, Stream::Tcp(_))
    }

    /// Its two ends.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }
}

/// A worker's listeners and connections.
#[derive(Debug, Default)]
pub(crate) struct Tcp {
    listeners: Vec<TcpListener>,
    /// How many fewer connections than [`TCP_CONNECTIONS`] are taken.
    withheld: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_path: HashMap<Path, u32>,
    per_address: HashMap<IpAddr, u32>,
    ready: VecDeque<u32>,
    /// Frames of this turn for one connection, which leave by one call.
    turn: Vec<u8>,
    turn_path: Option<Path>,
    swept: Instant,
    /// Accepting waits until the next sweep, for want of file descriptors.
    paused: bool,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// Why a connection ends.
enum End {
    /// The peer closed it, or the network did.
    Gone,
    /// It broke the rules.
    Expelled,
}

impl Tcp {
    pub(crate) fn new(listeners: Vec<TcpListener>, epoll: &Epoll) -> io::Result<Self> {
        for (token, listener) in (LISTENER_TOKENS..).zip(&listeners) {
            epoll.add(listener, token, Interest::Read)?;
        }
        Ok(Self { listeners, ..Self::default() })
    }

    /// Takes fewer connections than [`TCP_CONNECTIONS`].
    pub(crate) fn limit(&mut self, connections: usize) {
        self.withheld = TCP_CONNECTIONS.saturating_sub(connections);
    }

    /// Whether frames may be waiting that no event will tell of.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the sweep has something to look at.
    pub(crate) fn needs_sweep(&self) -> bool {
        !self.by_path.is_empty() || self.paused
    }

    /// Takes new connections from a listener.
    pub(crate) fn accept(
        &mut self,
        token: u64,
        now: Instant,
        epoll: &Epoll,
        counters: &mut Counters,
    ) {
        for _ in 0..TCP_ACCEPTS_PER_TURN {
            let index = usize::try_from(token - LISTENER_TOKENS).unwrap_or(usize::MAX);
            let Some(listener) = self.listeners.get(index) else { return };
            match listener.accept() {
                Ok((stream, remote)) => {
                    let Ok(local) = stream.local_addr() else { continue };
                    let path = Path::tcp(local.ip(), remote);
                    if stream.set_nonblocking(true).is_err() || stream.set_nodelay(true).is_err() {
                        continue;
                    }
                    let connection = Connection::new(Stream::Tcp(stream), path, now);
                    if self.insert(connection, epoll) {
                        counters.tcp_accepted += 1;
                    } else {
                        counters.tcp_refused += 1;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        // The listener stays readable: without a pause the worker would spin on it.
                        counters.tcp_refused += 1;
                        self.pause(true, epoll);
                        return;
                    }
                    Some(libc::EAGAIN) => return,
                    // The connection was gone before we took it.
                    _ => {}
                },
            }
        }
    }

    /// Takes over a connection from another worker. `false`: refused for a limit, and closed.
    pub(crate) fn adopt(&mut self, mut connection: Connection, epoll: &Epoll) -> bool {
        connection.ready = false;
        self.insert(connection, epoll)
    }

    /// Gives a connection away.
    pub(crate) fn detach(&mut self, path: Path, epoll: &Epoll) -> Option<Connection> {
        let slot = *self.by_path.get(&path)?;
        self.remove(slot, epoll)
    }

    /// An event of a connection.
    pub(crate) fn on_event(&mut self, token: u64, writable: bool, epoll: &Epoll) {
        let token = token - CONNECTION_TOKENS;
        let (slot, generation) = (token as u32, (token >> 32) as u32);
        let Some(Slot { generation: current, connection: Some(connection) }) =
            self.slots.get_mut(slot as usize)
        else {
            return;
        };
        if *current != generation {
            return;
        }
        if !connection.ready {
            connection.ready = true;
            self.ready.push_back(slot);
        }
        if writable && !connection.write.is_empty() {
            let token = token_of(slot, generation);
            let flushed = flush(connection).is_ok();
            if !flushed {
                self.remove(slot, epoll);
            } else if connection.write.is_empty() {
                let _ = epoll.modify(&connection.stream, token, Interest::Read);
            }
        }
    }

    /// Hands over at most `count` frames of the connections that have some, in turn.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        count: usize,
        epoll: &Epoll,
        counters: &mut Counters,
        each: &mut impl FnMut(Meta, &[u8]),
    ) -> usize {
        let mut handed = 0;
        // Each connection has one turn, so that one that floods us does not keep the others waiting.
        for _ in 0..self.ready.len() {
            if handed == count {
                break;
            }
            let Some(slot) = self.ready.pop_front() else { break };
            let Some(connection) =
                self.slots.get_mut(slot as usize).and_then(|slot| slot.connection.as_mut())
            else {
                continue;
            };
            match turn(connection, now, count - handed, counters, each) {
                Ok((frames, more)) => {
                    handed += frames;
                    connection.ready = more;
                    if more {
                        self.ready.push_back(slot);
                    }
                }
                Err(end) => {
                    counters.tcp_expelled += u64::from(matches!(end, End::Expelled));
                    self.remove(slot, epoll);
                }
            }
        }
        handed
    }

    /// Sends one frame, or queues it whole, or drops it whole; at the latest with [`Tcp::flush`]. Frames for one connection
    /// that follow each other leave together.
    pub(crate) fn send(
        &mut self,
        path: Path,
        bytes: &[u8],
        epoll: &Epoll,
        counters: &mut Counters,
    ) {
        let Some(prefix) = framing::prefix(bytes.len()) else {
            counters.add_drops(Drop::SendTooBig, 1);
            return;
        };
        if self.turn_path != Some(path) || self.turn.len() + bytes.len() > TCP_TURN_BYTES {
            self.flush(epoll, counters);
        }
        self.turn_path = Some(path);
        self.turn.extend_from_slice(&prefix);
        self.turn.extend_from_slice(bytes);
    }

    /// Sends what [`Tcp::send`] kept.
    pub(crate) fn flush(&mut self, epoll: &Epoll, counters: &mut Counters) {
        let Some(path) = self.turn_path.take() else { return };
        let mut turn = std::mem::take(&mut self.turn);
        self.write(path, &turn, epoll, counters);
        turn.clear();
        self.turn = turn;
    }

    /// Sends frames.
    fn write(&mut self, path: Path, turn: &[u8], epoll: &Epoll, counters: &mut Counters) {
        let slot = self.by_path.get(&path).copied();
        let found = slot.and_then(|slot| self.slots.get_mut(slot as usize));
        let (Some(slot), Some(Slot { generation, connection: Some(connection) })) = (slot, found)
        else {
            counters.add_drops(Drop::TcpClosed, frames(turn).count() as u64);
            return;
        };
        let mut written = 0;
        let was_empty = connection.write.is_empty();
        if was_empty {
            match connection.stream.write(turn) {
                Ok(count) => written = count,
                Err(error) if is_transient(&error) => {}
                Err(_) => {
                    counters.add_drops(Drop::TcpClosed, frames(turn).count() as u64);
                    self.remove(slot, epoll);
                    return;
                }
            }
        }
        for frame in frames(turn) {
            let rest = frame.get(written.min(frame.len())..).unwrap_or_default();
            written = written.saturating_sub(frame.len());
            if connection.write.len() + rest.len() > TCP_WRITE_BYTES {
                counters.add_drops(Drop::TcpQueueFull, 1);
                continue;
            }
            connection.write.extend(rest);
            counters.packets_sent += 1;
            counters.bytes_sent += (frame.len() - LENGTH_BYTES) as u64;
        }
        if was_empty && !connection.write.is_empty() {
            let token = token_of(slot, *generation);
            let _ = epoll.modify(&connection.stream, token, Interest::ReadWrite);
        }
    }

    /// Closes what is silent, at most once in [`TCP_SWEEP`].
    pub(crate) fn sweep(&mut self, now: Instant, epoll: &Epoll, counters: &mut Counters) {
        if now.since(self.swept) < TCP_SWEEP {
            return;
        }
        self.swept = now;
        self.pause(false, epoll);
        for slot in 0..self.slots.len() as u32 {
            let Some(connection) =
                self.slots.get(slot as usize).and_then(|slot| slot.connection.as_ref())
            else {
                continue;
            };
            let patience = if connection.proven { TCP_IDLE } else { TCP_FIRST_FRAME };
            if now.since(connection.heard) >= patience {
                counters.tcp_expelled += 1;
                self.remove(slot, epoll);
            }
        }
    }

    pub(crate) fn open(&self) -> u64 {
        self.by_path.len() as u64
    }

    fn pause(&mut self, paused: bool, epoll: &Epoll) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        let interest = if paused { Interest::Nothing } else { Interest::Read };
        for (token, listener) in (LISTENER_TOKENS..).zip(&self.listeners) {
            let _ = epoll.modify(listener, token, interest);
        }
    }

    fn insert(&mut self, mut connection: Connection, epoll: &Epoll) -> bool {
        // Two with one name: the peer gave the older one up, but its end was not read yet.
        if let Some(older) = self.by_path.get(&connection.path).copied() {
            self.remove(older, epoll);
        }
        let key = limit_key(connection.path.remote.ip());
        let siblings = self.per_address.get(&key).copied().unwrap_or(0);
        let is_counted = connection.is_counted();
        let crowded = is_counted && siblings >= TCP_CONNECTIONS_PER_ADDRESS && !key.is_loopback();
        if self.by_path.len() + self.withheld >= TCP_CONNECTIONS || crowded {
            return false;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let Some(place) = self.slots.get_mut(slot as usize) else { return false };
        place.generation = place.generation.wrapping_add(1);
        let interest =
            if connection.write.is_empty() { Interest::Read } else { Interest::ReadWrite };
        if epoll.add(&connection.stream, token_of(slot, place.generation), interest).is_err() {
            self.free.push(slot);
            return false;
        }
        // Frames that came along with a connection of another worker raise no event here.
        connection.ready = connection.start < connection.end;
        if connection.ready {
            self.ready.push_back(slot);
        }
        self.by_path.insert(connection.path, slot);
        if is_counted {
            *self.per_address.entry(key).or_default() += 1;
        }
        place.connection = Some(connection);
        true
    }

    fn remove(&mut self, slot: u32, epoll: &Epoll) -> Option<Connection> {
        let connection = self.slots.get_mut(slot as usize)?.connection.take()?;
        let _ = epoll.remove(&connection.stream);
        self.free.push(slot);
        self.by_path.remove(&connection.path);
        let key = limit_key(connection.path.remote.ip());
        if connection.is_counted()
            && let Some(siblings) = self.per_address.get_mut(&key)
        {
            *siblings -= 1;
            if *siblings == 0 {
                self.per_address.remove(&key);
            }
        }
        Some(connection)
    }
}

/// Hands over what is there and reads once. Says how many frames, and whether there may be more.
fn turn(
    connection: &mut Connection,
    now: Instant,
    count: usize,
    counters: &mut Counters,
    each: &mut impl FnMut(Meta, &[u8]),
) -> Result<(usize, bool), End> {
    let mut handed = hand_over(connection, now, count, counters, each)?;
    if handed == count {
        return Ok((handed, true));
    }
    connection.read.copy_within(connection.start..connection.end, 0);
    connection.end -= connection.start;
    connection.start = 0;
    let room = connection.read.get_mut(connection.end..).unwrap_or_default();
    let asked = room.len();
    let read = match connection.stream.read(room) {
        Ok(0) => return Err(End::Gone),
        Ok(read) => read,
        Err(error) if is_transient(&error) => return Ok((handed, false)),
        Err(_) => return Err(End::Gone),
    };
    connection.end += read;
    handed += hand_over(connection, now, count - handed, counters, each)?;
    Ok((handed, read == asked || handed == count))
}

fn hand_over(
    connection: &mut Connection,
    now: Instant,
    count: usize,
    counters: &mut Counters,
    each: &mut impl FnMut(Meta, &[u8]),
) -> Result<usize, End> {
    let mut handed = 0;
    while handed < count {
        let waiting = connection.read.get(connection.start..connection.end).unwrap_or_default();
        let Some(length) = framing::announced(waiting) else { break };
        if length > DATAGRAM_BYTES {
            return Err(End::Expelled);
        }
        let Some((frame, _)) = framing::split(waiting) else { break };
        let packet = framing::packet(frame);
        if !connection.proven {
            if packet.get(4..8) != Some(&STUN_COOKIE) || packet.first().is_none_or(|&b| b > 3) {
                return Err(End::Expelled);
            }
            connection.proven = true;
        }
        connection.start += frame.len();
        connection.heard = now;
        if length > 0 {
            counters.packets_received += 1;
            counters.bytes_received += length as u64;
            each(Meta { path: connection.path, at: now, ecn: 0 }, packet);
            handed += 1;
        }
    }
    Ok(handed)
}

/// The frames in whole ones, each with its length.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (frame, rest) = framing::split(bytes)?;
        bytes = rest;
        Some(frame)
    })
}

fn flush(connection: &mut Connection) -> io::Result<()> {
    while !connection.write.is_empty() {
        let (front, back) = connection.write.as_slices();
        match connection.stream.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => drop(connection.write.drain(..written)),
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    // A slow moment is over: its memory goes back.
    connection.write = VecDeque::new();
    Ok(())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn token_of(slot: u32, generation: u32) -> u64 {
    // The slot is far below 2^32 - 256, so that the sum never carries into the generation.
    CONNECTION_TOKENS + ((u64::from(generation) << 32) | u64::from(slot))
}

/// Whoever has one IPv6 address has a /64 of them.
fn limit_key(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    /// A connection that claims to come from `remote`.
    fn connection_from(listener: &TcpListener, remote: SocketAddr) -> Connection {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let path = Path::tcp([192, 0, 2, 1].into(), remote);
        Connection::new(Stream::Tcp(stream), path, Instant(0))
    }

    #[test]
    fn one_address_has_a_share_and_gets_it_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = Epoll::new().unwrap();
        let mut tcp = Tcp::default();
        // Different addresses of one /64 are one customer.
        let remote = |n: u16| SocketAddr::new(format!("2001:db8::{n:x}").parse().unwrap(), n);
        for n in 0..TCP_CONNECTIONS_PER_ADDRESS as u16 {
            assert!(tcp.adopt(connection_from(&listener, remote(n)), &epoll));
        }
        assert!(!tcp.adopt(connection_from(&listener, remote(1000)), &epoll));
        let other = "[2001:db8:0:1::1]:5".parse().unwrap();
        assert!(tcp.adopt(connection_from(&listener, other), &epoll), "another /64");

        let gone = Path::tcp([192, 0, 2, 1].into(), remote(3));
        assert!(tcp.detach(gone, &epoll).is_some());
        assert!(tcp.detach(gone, &epoll).is_none());
        assert!(tcp.adopt(connection_from(&listener, remote(1000)), &epoll));
        assert!(!tcp.adopt(connection_from(&listener, remote(1001)), &epoll));

        let (near, _far) = UnixStream::pair().unwrap();
        let path = Path { remote: remote(1002), ..gone };
        let local = Connection::local(near, path, Instant(0)).unwrap();
        assert!(tcp.adopt(local, &epoll), "who let it in counts");
    }

    #[test]
    fn frames_of_one_turn_leave_together_and_whole() {
        let epoll = Epoll::new().unwrap();
        let mut counters = Counters::default();
        let mut tcp = Tcp::default();
        let remote = "192.0.2.7:1".parse().unwrap();
        let path = Path::tcp([192, 0, 2, 1].into(), remote);
        let (near, mut far) = UnixStream::pair().unwrap();
        assert!(tcp.adopt(Connection::local(near, path, Instant(0)).unwrap(), &epoll));
        far.set_nonblocking(true).unwrap();
        for n in 0..3 {
            tcp.send(path, &[n; 5], &epoll, &mut counters);
        }
        let mut bytes = [0; 100];
        assert!(far.read(&mut bytes).is_err(), "nothing before the end of the turn");
        tcp.flush(&epoll, &mut counters);
        let whole = [[0, 5, 0, 0, 0, 0, 0], [0, 5, 1, 1, 1, 1, 1], [0, 5, 2, 2, 2, 2, 2]].concat();
        assert_eq!((far.read(&mut bytes).unwrap(), &bytes[..21]), (21, whole.as_slice()));
        assert_eq!((counters.packets_sent, counters.bytes_sent), (3, 15));
        // Much more than the socket and the queue take: what comes is whole frames, in order.
        for n in 0..1000_u16 {
            let mut frame = [7; 1000];
            frame[..2].copy_from_slice(&n.to_be_bytes());
            tcp.send(path, &frame, &epoll, &mut counters);
        }
        tcp.flush(&epoll, &mut counters);
        let dropped = counters.drops(Drop::TcpQueueFull);
        assert_eq!((counters.packets_sent + dropped, dropped > 100), (1003, true));
        let (mut came, mut part) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(length) = far.read(&mut part) {
            came.extend_from_slice(&part[..length]);
            tcp.on_event(token_of(0, 1), true, &epoll);
        }
        let numbers: Vec<_> =
            frames(&came).map(|frame| (frame.len(), frame[2], frame[3])).collect();
        assert_eq!(numbers.len() * 1002, came.len(), "no part of one");
        assert_eq!(numbers.len() as u64, counters.packets_sent - 3);
        assert!(numbers.is_sorted() && numbers.iter().all(|(length, ..)| *length == 1002));
    }

    #[test]
    fn a_connection_takes_the_place_of_its_predecessor_from_the_same_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = Epoll::new().unwrap();
        let mut tcp = Tcp::default();
        let remote = "192.0.2.7:1".parse().unwrap();
        assert!(tcp.adopt(connection_from(&listener, remote), &epoll));
        let second = connection_from(&listener, remote);
        let (path, number) = (second.path(), second.stream.as_raw_fd());
        assert!(tcp.adopt(second, &epoll));
        assert_eq!((tcp.open(), tcp.per_address.values().sum::<u32>()), (1, 1));
        let held = tcp.detach(path, &epoll).unwrap();
        assert_eq!(held.stream.as_raw_fd(), number);
        assert!(tcp.slots.iter().all(|slot| slot.connection.is_none()), "nothing is left behind");
    }

    #[test]
    fn a_stale_event_does_not_touch_the_slots_next_tenant() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = Epoll::new().unwrap();
        let mut tcp = Tcp::default();
        let first = connection_from(&listener, "192.0.2.7:1".parse().unwrap());
        let path = first.path();
        assert!(tcp.adopt(first, &epoll));
        let stale = token_of(0, 1);
        tcp.detach(path, &epoll);
        assert!(tcp.adopt(connection_from(&listener, "192.0.2.7:2".parse().unwrap()), &epoll));
        tcp.on_event(stale, false, &epoll);
        assert!(!tcp.is_ready());
        tcp.on_event(token_of(0, 2), false, &epoll);
        assert!(tcp.is_ready());
    }
}
