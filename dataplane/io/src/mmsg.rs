//! UDP by recvmmsg and sendmmsg: works on every kernel, and is the baseline for faster ways.

use crate::clock::Conversion;
use crate::cmsg::{self, Control};
use crate::counters::Counters;
use crate::limits::{BATCH, MESSAGE_BYTES};
use crate::outgoing::{self, Batch};
use crate::sockaddr::Name;
use crate::udp::{Found, Message, Udp};
use std::io;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use strait_core::egress::Egress;

/// From one buffer to the next. No power of two: the first lines of all buffers would share one set of the cache.
pub(crate) const STRIDE: usize = MESSAGE_BYTES + 1088;

/// One worker's UDP sockets and the buffers that they share.
#[derive(Debug)]
pub(crate) struct Mmsg {
    udp: Vec<Reader>,
    bytes: Box<[u8]>,
    names: Box<[Name; BATCH]>,
    controls: Box<[Control; BATCH]>,
}

#[derive(Debug)]
struct Reader {
    udp: Udp,
    readable: bool,
}

impl Mmsg {
    pub(crate) fn new(udp: Vec<Udp>) -> Self {
        Self {
            udp: udp.into_iter().map(|udp| Reader { udp, readable: true }).collect(),
            bytes: vec![0; BATCH * STRIDE].into_boxed_slice(),
            names: Box::new([Name::EMPTY; BATCH]),
            controls: Box::new([Control([0; cmsg::BYTES]); BATCH]),
        }
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = &Udp> {
        self.udp.iter().map(|reader| &reader.udp)
    }

    /// There is something to be read from this one.
    pub(crate) fn set_readable(&mut self, socket: usize) {
        if let Some(reader) = self.udp.get_mut(socket) {
            reader.readable = true;
        }
    }

    /// Reads from a socket into the buffers from `first` on. Returns how many are filled.
    pub(crate) fn receive(
        &mut self,
        socket: usize,
        first: usize,
        conversion: Conversion,
        counters: &mut Counters,
        found: &mut Vec<Found>,
    ) -> usize {
        let Self { udp, bytes, names, controls } = self;
        let Some(Reader { udp, readable }) = udp.get_mut(socket).filter(|reader| reader.readable)
        else {
            return 0;
        };
        // SAFETY: an mmsghdr is integers and pointers, for which zeroes are "none".
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); BATCH];
        let buffers = bytes.chunks_exact_mut(STRIDE);
        let parts = buffers.zip(names.iter_mut()).zip(controls.iter_mut()).skip(first);
        let mut count = 0;
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
            count += 1;
        }
        // SAFETY: each of the first `count` headers points at a name, a vector, a buffer of STRIDE bytes and a control
        // buffer of its own; all outlive the call. Worth it: one system call for a batch.
        let received = unsafe {
            libc::recvmmsg(
                udp.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        // Nothing there, or an error of an earlier send (ICMP) that says nothing about this read.
        let received = usize::try_from(received).unwrap_or(0);
        *readable = received == count as usize;
        if received == 0 {
            udp.keep_stamp();
        }
        counters.receive_batches += u64::from(received > 0);
        let parts = names.iter().zip(controls.iter()).enumerate().skip(first);
        for (header, (buffer, (name, control))) in headers.iter().zip(parts).take(received) {
            let message = Message {
                from: name.read(header.msg_hdr.msg_namelen),
                control: control.0.get(..header.msg_hdr.msg_controllen).unwrap_or_default(),
                length: (header.msg_len as usize).min(MESSAGE_BYTES),
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            };
            udp.take(message, (buffer as u32, 0), conversion, counters, found);
        }
        received
    }

    /// Copies a datagram that came by other means into a buffer.
    pub(crate) fn put(&mut self, buffer: usize, datagram: &[u8]) {
        let start = buffer * STRIDE;
        if let Some(room) = self.bytes.get_mut(start..start + datagram.len()) {
            room.copy_from_slice(datagram);
        }
    }

    pub(crate) fn bytes(&mut self, found: &Found) -> Option<&mut [u8]> {
        let start = found.buffer as usize * STRIDE;
        let (from, to) = (found.bytes.start as usize, found.bytes.end as usize);
        self.bytes.get_mut(start + from..start + to)
    }

    /// The sockets, in the order of [`Mmsg::sockets`].
    pub(crate) fn socket_mut(&mut self, at: usize) -> Option<&mut Udp> {
        self.udp.get_mut(at).map(|reader| &mut reader.udp)
    }

    /// Sends what goes by UDP, and has the run at `stamped` stamped. What the kernel refuses is counted and skipped.
    pub(crate) fn send(
        &mut self,
        egress: &Egress,
        stamped: Option<usize>,
        counters: &mut Counters,
    ) {
        for Reader { udp, .. } in self.udp.iter_mut().filter(|reader| !reader.udp.strangers) {
            let (mut cutting, place) = (udp.cutting, udp.place);
            let runs = egress.runs().filter(|run| place.sends(&run.path));
            let socket = &udp.socket;
            let mut submit = |batch: &mut Batch<'_>, from, counters: &mut Counters| {
                submit(socket, batch, from, counters)
            };
            let stamped = place.stamped(egress, stamped);
            outgoing::send(runs, stamped, &mut cutting, counters, &mut submit);
            udp.cutting = cutting;
        }
    }
}

/// Sends the runs of a batch in order from `from` on, up to the first that is refused. How far it came.
fn submit(
    socket: &UdpSocket,
    batch: &mut Batch<'_>,
    from: usize,
    counters: &mut Counters,
) -> usize {
    // SAFETY: as in `receive`.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (header, message) in headers.iter_mut().zip(batch.headers()) {
        header.msg_hdr = message;
    }
    if let Some((at, ask)) = batch.stamped()
        && let Some(header) = headers.get_mut(at)
    {
        ask.write_to(&mut header.msg_hdr);
    }
    let mut done = from;
    while let Some(rest @ [_, ..]) = headers.get_mut(done..batch.len()) {
        counters.send_batches += 1;
        // SAFETY: each header of `rest` points at a name, a vector, a control buffer and bytes with their true lengths;
        // all outlive the call, and the kernel only reads the bytes. Worth it: one call for a batch.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        match usize::try_from(sent) {
            Ok(sent @ 1..) => done += sent,
            // The error is the first run's; the others may well pass.
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                batch.refuse(done, error.raw_os_error().unwrap_or(libc::EIO));
                return done + 1;
            }
        }
    }
    done
}
