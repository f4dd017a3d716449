//! Batches of datagrams: recvmmsg into hot buffers, sendmmsg of runs (UDP_SEGMENT) from the turn's arena.

use crate::clock::Conversion;
use crate::cmsg::{self, Control};
use crate::counters::{Counters, Drop};
use crate::cutting::Cutting;
use crate::limits::BATCH;
use crate::sockaddr::Name;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use strait_core::egress::Run;
use strait_core::limits::DATAGRAM_BYTES;
use strait_core::port::{Meta, Path, Protocol};

/// The buffers of one worker, shared by its sockets.
#[derive(Debug)]
pub(crate) struct Buffers {
    bytes: Box<[[u8; DATAGRAM_BYTES]]>,
    names: [Name; BATCH],
    controls: Box<[Control; BATCH]>,
    /// What is in each: `None` where the datagram was not to be used.
    found: [Option<(Meta, usize)>; BATCH],
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![[0; DATAGRAM_BYTES]; BATCH].into_boxed_slice(),
            names: [Name::EMPTY; BATCH],
            controls: Box::new([Control([0; cmsg::BYTES]); BATCH]),
            found: [None; BATCH],
        }
    }

    /// The datagram in buffer `at`.
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<(Meta, &mut [u8])> {
        let (meta, length) = (*self.found.get(at)?)?;
        Some((meta, self.bytes.get_mut(at)?.get_mut(..length)?))
    }

    /// Copies a datagram into buffer `at`.
    pub(crate) fn put(&mut self, at: usize, meta: Meta, datagram: &[u8]) {
        let room = self.bytes.get_mut(at).and_then(|bytes| bytes.get_mut(..datagram.len()));
        if let (Some(found), Some(room)) = (self.found.get_mut(at), room) {
            room.copy_from_slice(datagram);
            *found = Some((meta, datagram.len()));
        }
    }
}

/// One socket, and how many datagrams the kernel said that it lost.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) socket: UdpSocket,
    overflows: u32,
    cutting: Cutting,
}

impl Socket {
    pub(crate) fn new(socket: UdpSocket) -> Self {
        Self { socket, overflows: 0, cutting: Cutting::default() }
    }

    /// Reads datagrams into the buffers from `first` on. Returns how many the kernel gave, also those not to be used.
    pub(crate) fn receive(
        &mut self,
        buffers: &mut Buffers,
        first: usize,
        conversion: Conversion,
        counters: &mut Counters,
    ) -> usize {
        let mut headers = empty_headers();
        let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); BATCH];
        let Buffers { bytes, names, controls, found } = buffers;
        let parts = bytes.iter_mut().zip(names.iter_mut()).zip(controls.iter_mut()).skip(first);
        let mut count = 0;
        for ((header, vector), ((bytes, name), control)) in
            headers.iter_mut().zip(&mut vectors).zip(parts)
        {
            let vector = vector.write(libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: DATAGRAM_BYTES,
            });
            header.msg_hdr.msg_name = (&raw mut name.0).cast();
            header.msg_hdr.msg_namelen = name.0.len() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut control.0).cast();
            header.msg_hdr.msg_controllen = cmsg::BYTES as _;
            count += 1;
        }
        // SAFETY: each of the first `count` headers points at a name, a vector, a buffer and a control buffer of its
        // own with their true lengths; all outlive the call. Worth it: one system call for a batch.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        // Nothing there, or an error of an earlier send (ICMP) that says nothing about this read.
        let Ok(received @ 1..) = usize::try_from(received) else { return 0 };
        counters.receive_batches += 1;

        let parts = names.iter().zip(controls.iter()).zip(found.iter_mut()).skip(first);
        for (header, ((name, control), found)) in headers.iter().zip(parts).take(received) {
            *found = None;
            let length = header.msg_len as usize;
            let told = control.0.get(..header.msg_hdr.msg_controllen).unwrap_or_default();
            let ancillary = cmsg::read(told);
            if let Some(overflows) = ancillary.overflows {
                let lost = overflows.wrapping_sub(self.overflows);
                counters.add_drops(Drop::ReceiveOverflow, u64::from(lost));
                self.overflows = overflows;
            }
            counters.packets_received += 1;
            counters.bytes_received += length as u64;
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                counters.add_drops(Drop::ReceiveTooBig, 1);
                continue;
            }
            let addresses = ancillary.local.zip(name.read(header.msg_hdr.msg_namelen));
            let Some((local, remote)) = addresses else {
                counters.add_drops(Drop::ReceiveNoAddress, 1);
                continue;
            };
            let path = Path { protocol: Protocol::Udp, local, remote };
            let at = conversion.arrival(ancillary.realtime_ns);
            *found = Some((Meta { path, at, ecn: ancillary.ecn }, length));
        }
        received
    }

    /// Sends the runs in order, a batch at a time. What the kernel refuses is counted and skipped.
    pub(crate) fn send<'a>(
        &mut self,
        runs: impl Iterator<Item = Run<'a>>,
        counters: &mut Counters,
    ) {
        let mut runs = runs.peekable();
        while runs.peek().is_some() {
            let mut batch = SendBatch::new();
            while batch.length < BATCH
                && let Some(run) = runs.next_if(|run| run.count == 1 || self.cutting.is_tried())
            {
                batch.push(run);
            }
            if batch.length == 0 {
                if let Some(run) = runs.next() {
                    self.cutting.spared();
                    self.send_one_by_one(run, counters);
                }
                continue;
            }
            self.send_batch(&mut batch, counters);
        }
    }

    fn send_one_by_one(&mut self, run: Run<'_>, counters: &mut Counters) {
        let mut datagrams = run.datagrams();
        loop {
            let mut batch = SendBatch::new();
            for bytes in datagrams.by_ref().take(BATCH) {
                batch.push(Run { path: run.path, size: bytes.len(), count: 1, bytes });
            }
            if batch.length == 0 {
                return;
            }
            self.send_batch(&mut batch, counters);
        }
    }

    fn send_batch(&mut self, batch: &mut SendBatch<'_>, counters: &mut Counters) {
        let mut headers = empty_headers();
        let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); BATCH];
        let parts = batch.runs.iter().flatten().zip(&mut batch.names).zip(&mut batch.controls);
        for ((header, vector), ((run, (name, name_length)), (control, control_length))) in
            headers.iter_mut().zip(&mut vectors).zip(parts)
        {
            let vector = vector.write(libc::iovec {
                iov_base: run.bytes.as_ptr().cast_mut().cast(),
                iov_len: run.bytes.len(),
            });
            header.msg_hdr.msg_name = (&raw mut name.0).cast();
            header.msg_hdr.msg_namelen = *name_length;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut control.0).cast();
            header.msg_hdr.msg_controllen = *control_length as _;
        }
        let mut rest = headers.get_mut(..batch.length).unwrap_or_default();
        let mut runs = batch.runs.iter().flatten();
        while !rest.is_empty() {
            counters.send_batches += 1;
            // SAFETY: each header of `rest` points at a name, a vector, a control buffer and bytes with their true
            // lengths; all outlive the call, and the kernel only reads the bytes. Worth it: one call for a batch.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            let done = match usize::try_from(sent) {
                Ok(sent @ 1..) => {
                    for run in runs.by_ref().take(sent) {
                        counters.add_run(run.count, run.bytes.len());
                        if run.count > 1 {
                            self.cutting.passed();
                        }
                    }
                    sent
                }
                // The error is the first run's; the others may well pass.
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() == io::ErrorKind::Interrupted {
                        continue;
                    }
                    if let Some(run) = runs.next() {
                        self.refused(*run, &error, counters);
                    }
                    1
                }
            };
            rest = rest.get_mut(done..).unwrap_or_default();
        }
    }

    /// After an error of the send call: a run that cannot be cut is sent datagram by datagram, the rest is dropped.
    fn refused(&mut self, run: Run<'_>, error: &io::Error, counters: &mut Counters) {
        let uncut = match error.raw_os_error().unwrap_or(0) {
            _ if run.count == 1 => false,
            // None is cut on this way out, or none by this kernel.
            libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT => {
                self.cutting.refused();
                true
            }
            // This route's MTU is below the size, or the kernel takes fewer at a time.
            libc::EINVAL | libc::EMSGSIZE => true,
            _ => false,
        };
        if uncut {
            counters.runs_refused += 1;
            self.send_one_by_one(run, counters);
        } else {
            counters.add_drops(Drop::of_send_error(error), run.count as u64);
        }
    }
}

/// At most [`BATCH`] runs that borrow their bytes.
struct SendBatch<'a> {
    runs: [Option<Run<'a>>; BATCH],
    names: [(Name, u32); BATCH],
    controls: [(Control, usize); BATCH],
    length: usize,
}

impl<'a> SendBatch<'a> {
    fn new() -> Self {
        Self {
            runs: [None; BATCH],
            names: [(Name::EMPTY, 0); BATCH],
            controls: [(Control([0; cmsg::BYTES]), 0); BATCH],
            length: 0,
        }
    }

    fn push(&mut self, run: Run<'a>) {
        let Run { path, size, count, .. } = run;
        // Only a link-local address needs the interface: elsewhere the routing table decides.
        let interface = match path.remote {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
            _ => 0,
        };
        let at = self.length;
        self.runs[at] = Some(run);
        self.names[at] = Name::new(path.remote);
        let (control, length) = &mut self.controls[at];
        *length = cmsg::write_source(control, path.local, interface);
        if count > 1 {
            *length = cmsg::write_segment(control, *length, size as u16);
        }
        self.length += 1;
    }
}

fn empty_headers() -> [libc::mmsghdr; BATCH] {
    // SAFETY: an mmsghdr is integers and pointers, for which zeroes are "none".
    unsafe { std::mem::zeroed() }
}
