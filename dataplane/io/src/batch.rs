//! Datagrams in batches on a socket of one's own, with runs in both directions: for programs that measure, which play
//! thousands of peers. The relay's own are [`crate::Sockets`].

use crate::clock::Clock;
use crate::cmsg::{self, Control};
use crate::limits::{BATCH, MESSAGE_BYTES};
use crate::mmsg::STRIDE;
use crate::sockaddr::Name;
use crate::sockopt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;
use strait_core::time::Instant;

/// Messages that one call receives: beyond, buffers of 64 KiB each fall out of the cache.
pub const RECEIVE_MESSAGES: usize = 16;
/// Sockets reported by one wait.
const EVENTS: usize = 512;

/// One non-blocking UDP socket.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    runs: bool,
}

/// What to send: a datagram, or a run.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// The datagram, or those of the run one after the other.
    pub bytes: &'a [u8],
    /// Cuts `bytes` into datagrams of this size (UDP_SEGMENT); the last may be shorter. 0: one datagram.
    pub segment: u16,
}

/// What is known of a received message beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// When the kernel took it in (the first datagram of a run); the time given to [`Socket::receive`] if it did not
    /// say.
    pub at: Instant,
    /// Datagrams in the message.
    pub datagrams: usize,
    /// Datagrams that this socket lost since it was made, if any.
    pub overflows: Option<u32>,
}

/// Buffers for [`Socket::receive`], to be used again and again, also by several sockets.
pub struct Incoming {
    bytes: Box<[u8]>,
    names: [Name; RECEIVE_MESSAGES],
    controls: [Control; RECEIVE_MESSAGES],
    lengths: [usize; RECEIVE_MESSAGES],
    segments: [usize; RECEIVE_MESSAGES],
    arrivals: [Option<Arrival>; RECEIVE_MESSAGES],
}

impl Socket {
    /// A socket bound to `local`, with large buffers, timestamps, and UDP_GRO where the kernel has it.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(local: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        sockopt::enlarge(&socket, libc::SO_RCVBUF)?;
        sockopt::enlarge(&socket, libc::SO_SNDBUF)?;
        sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        let runs = sockopt::set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        Ok(Self { socket, runs })
    }

    /// Fixes the other end: sending is cheaper, and strangers are not heard.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        self.socket.connect(remote)
    }

    /// The same socket once more, for whoever may use it before or beside this one.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Chooses whether runs are received as one message (UDP_GRO). Without, the kernel cuts a run that comes over
    /// loopback or veth, which is work for its sender.
    ///
    /// # Errors
    /// What the system says.
    pub fn receive_runs(&mut self, wanted: bool) -> io::Result<()> {
        sockopt::set(&self.socket, libc::SOL_UDP, libc::UDP_GRO, wanted.into())?;
        self.runs = wanted;
        Ok(())
    }

    /// Whether runs are received as one message (UDP_GRO).
    #[must_use]
    pub fn receives_runs(&self) -> bool {
        self.runs
    }

    /// Sends one datagram on a connected socket.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` when its buffer is full.
    pub fn send_one(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes).map(drop)
    }

    /// Sends one datagram by one `sendto`.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` when its buffer is full.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(bytes, to).map(drop)
    }

    /// Sends the first [`BATCH`] messages at most by one `sendmmsg`. Returns how many were taken: the first one at
    /// least.
    ///
    /// # Errors
    /// Why the first message was not taken; `WouldBlock` when the buffer is full.
    pub fn send(&self, messages: &[Outgoing<'_>]) -> io::Result<usize> {
        let messages = messages.get(..BATCH).unwrap_or(messages);
        if messages.is_empty() {
            return Ok(0);
        }
        // SAFETY: an mmsghdr is integers and pointers, for which zeroes are "none".
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); BATCH];
        let mut names = [Name::EMPTY; BATCH];
        let mut controls = [Segment::EMPTY; BATCH];
        let parts = headers.iter_mut().zip(&mut vectors).zip(&mut names).zip(&mut controls);
        for (message, (((header, vector), name), control)) in messages.iter().zip(parts) {
            let vector = vector.write(libc::iovec {
                iov_base: message.bytes.as_ptr().cast_mut().cast(),
                iov_len: message.bytes.len(),
            });
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            if let Some(to) = message.to {
                let length;
                (*name, length) = Name::new(to);
                header.msg_hdr.msg_name = (&raw mut name.0).cast();
                header.msg_hdr.msg_namelen = length;
            }
            if message.segment != 0 {
                *control = Segment::new(message.segment);
                header.msg_hdr.msg_control = (&raw mut control.0).cast();
                header.msg_hdr.msg_controllen = Segment::LENGTH as _;
            }
        }
        // SAFETY: each of the first `messages.len()` headers points at a vector, bytes, and perhaps a name and a control
        // buffer, with their true lengths; all outlive the call, and the kernel only reads the bytes. Worth it: one
        // system call for a batch.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                messages.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Reads messages until there are none or the buffers are full. Returns how many; fewer than [`RECEIVE_MESSAGES`]
    /// says that the socket is drained.
    pub fn receive(&self, now: Instant, incoming: &mut Incoming) -> usize {
        // SAFETY: as in `send`.
        let mut headers: [libc::mmsghdr; RECEIVE_MESSAGES] = unsafe { std::mem::zeroed() };
        let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); RECEIVE_MESSAGES];
        let parts = incoming.bytes.chunks_exact_mut(STRIDE);
        let parts = parts.zip(&mut incoming.names).zip(&mut incoming.controls);
        for ((header, vector), ((bytes, name), control)) in
            headers.iter_mut().zip(&mut vectors).zip(parts)
        {
            let vector = vector
                .write(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: MESSAGE_BYTES });
            header.msg_hdr.msg_name = (&raw mut name.0).cast();
            header.msg_hdr.msg_namelen = name.0.len() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut control.0).cast();
            header.msg_hdr.msg_controllen = cmsg::BYTES as _;
        }
        // SAFETY: each header points at a name, a vector, a buffer of STRIDE bytes and a control buffer of its own; all
        // outlive the call. Worth it: one system call for a batch.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                RECEIVE_MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        // Nothing there, or an error of an earlier send (ICMP) that says nothing about this read.
        let Ok(received @ 1..) = usize::try_from(received) else { return 0 };
        let conversion = Clock.conversion(now);
        for (n, header) in headers.iter().take(received).enumerate() {
            let told = incoming.controls[n].0.get(..header.msg_hdr.msg_controllen);
            let told = told.unwrap_or_default();
            let ancillary = cmsg::read(told);
            let length = (header.msg_len as usize).min(MESSAGE_BYTES);
            let segment = ancillary.segment.filter(|size| (1..=length).contains(size));
            incoming.lengths[n] = length;
            incoming.segments[n] = segment.unwrap_or(length);
            incoming.arrivals[n] = Some(Arrival {
                from: incoming.names[n].read(header.msg_hdr.msg_namelen),
                at: conversion.arrival(ancillary.realtime_ns),
                datagrams: segment.map_or(1, |size| length.div_ceil(size)),
                overflows: ancillary.overflows,
            });
        }
        received
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl Incoming {
    /// Buffers for one call; about 1 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; STRIDE * RECEIVE_MESSAGES].into_boxed_slice(),
            names: [Name::EMPTY; RECEIVE_MESSAGES],
            controls: [Control([0; cmsg::BYTES]); RECEIVE_MESSAGES],
            lengths: [0; RECEIVE_MESSAGES],
            segments: [0; RECEIVE_MESSAGES],
            arrivals: [None; RECEIVE_MESSAGES],
        }
    }

    /// The datagrams of message `at` of the last [`Socket::receive`], each to be worked on in place.
    pub fn message(&mut self, at: usize) -> Option<(Arrival, impl Iterator<Item = &mut [u8]>)> {
        let arrival = (*self.arrivals.get(at)?)?;
        let segment = (*self.segments.get(at)?).max(1);
        let from = at * STRIDE;
        let bytes = self.bytes.get_mut(from..from + *self.lengths.get(at)?)?;
        Some((arrival, bytes.chunks_mut(segment)))
    }
}

impl Default for Incoming {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits for many sockets at a time.
#[derive(Debug)]
pub struct Poller(OwnedFd);

impl Poller {
    /// One without sockets.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds a socket. It is reported as long as it has something to be read.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, socket: &Socket, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: `event` is valid for the call.
        let result = unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &raw mut event,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until something can be read, `timeout` at most, and puts the tokens into `ready`. Exact to the
    /// microsecond on Linux 5.11 and later, to the millisecond before.
    pub fn wait(&self, timeout: Duration, ready: &mut Vec<u64>) {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: `events` is valid to write EVENTS entries to, `time` valid to read; no signal mask.
        let mut count = unsafe {
            libc::epoll_pwait2(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as i32,
                &raw const time,
                std::ptr::null(),
            )
        };
        if count < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: as above.
            count = unsafe {
                libc::epoll_wait(
                    self.0.as_raw_fd(),
                    events.as_mut_ptr(),
                    EVENTS as i32,
                    milliseconds,
                )
            };
        }
        // An interrupted wait is a wait that ended early.
        let count = usize::try_from(count).unwrap_or(0);
        ready.extend(events.iter().take(count).map(|event| event.u64));
    }
}

/// CPU time of the calling thread.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid to write to. Worth it: std cannot tell CPU time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The control message that makes a run.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Segment([u8; Self::LENGTH]);

impl Segment {
    const LENGTH: usize = cmsg::align(cmsg::HEADER + size_of::<u16>());
    const EMPTY: Self = Self([0; Self::LENGTH]);

    fn new(size: u16) -> Self {
        let mut out = [0; Self::LENGTH];
        let length = cmsg::HEADER + size_of::<u16>();
        out[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
        out[cmsg::LEVEL..cmsg::LEVEL + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        out[cmsg::TYPE..cmsg::TYPE + 4].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        out[cmsg::HEADER..length].copy_from_slice(&size.to_ne_bytes());
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Socket, Socket) {
        let a = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let b = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        (a, b)
    }

    /// Reads until there are `count` datagrams.
    fn read(socket: &Socket, count: usize) -> Vec<(Arrival, Vec<u8>)> {
        let poller = Poller::new().unwrap();
        poller.add(socket, 7).unwrap();
        let (mut incoming, mut ready, mut got) = (Incoming::new(), Vec::new(), Vec::new());
        while got.len() < count {
            poller.wait(Duration::from_secs(5), &mut ready);
            assert_eq!(ready, [7], "nothing more comes");
            for at in 0..socket.receive(Clock.instant(), &mut incoming) {
                let (arrival, datagrams) = incoming.message(at).unwrap();
                got.extend(datagrams.map(|datagram| (arrival, datagram.to_vec())));
            }
        }
        got
    }

    #[test]
    fn a_run_arrives_datagram_by_datagram() {
        let (a, b) = pair();
        let bytes: Vec<u8> = (0..2500_u32).map(|n| (n % 251) as u8).collect();
        let before = Clock.instant();
        let run = Outgoing { to: None, bytes: &bytes, segment: 1000 };
        assert_eq!(a.send(&[run]).unwrap(), 1);
        let got = read(&b, 3);
        let parts: Vec<&[u8]> = got.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        assert_eq!(parts, bytes.chunks(1000).collect::<Vec<_>>());
        for (arrival, _) in &got {
            assert_eq!(arrival.from, Some(a.local_addr().unwrap()));
            assert_eq!(arrival.datagrams, if b.receives_runs() { 3 } else { 1 });
            assert!(arrival.at >= before && arrival.at <= Clock.instant());
        }
    }

    #[test]
    fn a_run_comes_in_pieces_where_that_is_wanted() {
        let (a, mut b) = pair();
        b.receive_runs(false).unwrap();
        a.send(&[Outgoing { to: None, bytes: &[7; 2500], segment: 1000 }]).unwrap();
        let got = read(&b, 3);
        assert!(got.iter().all(|(arrival, _)| arrival.datagrams == 1));
        assert_eq!(got.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
    }

    #[test]
    fn a_batch_goes_to_several_places() {
        let (a, b) = pair();
        let (c, _) = pair();
        let to = |socket: &Socket| socket.local_addr().ok();
        let free = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let messages = [
            Outgoing { to: to(&a), bytes: b"to a", segment: 0 },
            Outgoing { to: to(&b), bytes: b"to b", segment: 0 },
            Outgoing { to: to(&b), bytes: b"bbcc", segment: 2 },
        ];
        assert_eq!(free.send(&messages).unwrap(), 3);
        // `a` is connected to `b` and hears nobody else.
        assert_eq!(c.receive(Clock.instant(), &mut Incoming::new()), 0);
        let got = read(&b, 3);
        let parts: Vec<&[u8]> = got.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        assert_eq!(parts, [b"to b".as_slice(), b"bb", b"cc"]);
        assert_eq!(free.send(&[]).unwrap(), 0);
    }

    #[test]
    fn waits_end_in_time_and_cpu_time_goes_on() {
        let (poller, mut ready) = (Poller::new().unwrap(), vec![1]);
        let (before, cpu) = (Clock.instant(), thread_cpu_time());
        poller.wait(Duration::from_micros(300), &mut ready);
        assert!(ready.is_empty());
        assert!(Clock.instant().since(before) >= Duration::from_micros(300));
        while thread_cpu_time() < cpu + Duration::from_millis(1) {}
    }
}
