//! UDP by io_uring: datagrams arrive without a call each (multishot recvmsg into provided buffers), all of a turn is sent
//! by one call whichever socket it leaves from, and one wait is for everything.

mod pool;
mod ring;

use crate::clock::Conversion;
use crate::cmsg;
use crate::counters::Counters;
use crate::limits::BATCH;
use crate::outgoing::{self, Batch};
use crate::sockaddr;
use crate::udp::{Found, Message, Udp};
use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Fixed;
use pool::{PAYLOAD, Pool};
use ring::{Completion, Ring};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use strait_core::egress::Egress;
use strait_core::limits::DATAGRAM_BYTES;
use strait_core::time::Duration;

/// Buffers of the socket of known flows: a batch. More fall out of the cache.
const BUFFERS: u16 = BATCH as u16;
/// Buffers of the socket for strangers: half, so that a flood never has more than a third of a turn.
const STRANGERS_BUFFERS: u16 = BUFFERS / 2;
/// Buffer numbers of one socket.
const SOCKET_BUFFERS: u32 = 1 << 16;

/// What a request is, in the upper half of its user data; the lower says which.
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const POLL: u64 = 3 << 32;
const KIND: u64 = !0 << 32;

/// One worker's UDP sockets, and the ring that they are used by.
#[derive(Debug)]
pub(crate) struct Uring {
    ring: Ring,
    udp: Vec<Reader>,
    /// Says how long names and control messages are at most.
    shape: Box<Shape>,
    /// Messages that the kernel put into buffers, in order.
    arrived: VecDeque<(usize, u16)>,
    /// Buffers that the last batch lies in.
    lent: Vec<(usize, u16)>,
    /// Datagrams that came by other means.
    others: Box<[[u8; DATAGRAM_BYTES]]>,
    /// Place of the descriptor that is only waited for.
    polled: usize,
    poll: Poll,
}

#[derive(Debug)]
struct Reader {
    udp: Udp,
    pool: Pool,
    /// The kernel is receiving.
    armed: bool,
}

#[derive(Debug)]
struct Shape(libc::msghdr);

// SAFETY: all its pointers are null.
unsafe impl Send for Shape {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    Armed,
    /// It was found ready.
    Ready,
}

impl Uring {
    /// `other` is a descriptor to wait for beside the sockets.
    ///
    /// # Errors
    /// No io_uring is to be had, or one that lacks something: before Linux 6.1, in most containers, and where
    /// kernel.io_uring_disabled says so. The sockets are given back.
    pub(crate) fn new(udp: Vec<Udp>, other: &impl AsRawFd) -> Result<Self, (Vec<Udp>, io::Error)> {
        let files = udp.iter().map(|udp| udp.socket.as_raw_fd()).chain([other.as_raw_fd()]);
        // No completion is ever without room, with all buffers filled, each socket's receiving ended, a batch refused.
        let completions = udp.len() * usize::from(BUFFERS + 1) + BATCH;
        let made = Ring::new(&files.collect::<Vec<_>>(), completions).and_then(|ring| {
            let pools = (0_u16..).zip(&udp).map(|(group, udp)| {
                let count = if udp.strangers { STRANGERS_BUFFERS } else { BUFFERS };
                Pool::new(&ring, count, group)
            });
            let pools = pools.collect::<io::Result<Vec<_>>>()?;
            ring.restrict()?;
            Ok((ring, pools))
        });
        let (ring, pools) = match made {
            Ok(made) => made,
            Err(error) => return Err((udp, error)),
        };
        // SAFETY: a msghdr is integers and pointers, for which zeroes are "none".
        let mut shape = Box::new(Shape(unsafe { std::mem::zeroed() }));
        shape.0.msg_namelen = pool::NAME_BYTES as _;
        shape.0.msg_controllen = cmsg::BYTES as _;
        let polled = udp.len();
        let readers = udp.into_iter().zip(pools);
        let buffers = polled * usize::from(BUFFERS);
        Ok(Self {
            ring,
            udp: readers.map(|(udp, pool)| Reader { udp, pool, armed: false }).collect(),
            shape,
            arrived: VecDeque::with_capacity(buffers),
            lent: Vec::with_capacity(buffers),
            others: vec![[0; DATAGRAM_BYTES]; BATCH].into_boxed_slice(),
            polled,
            poll: Poll::Idle,
        })
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = &Udp> {
        self.udp.iter().map(|reader| &reader.udp)
    }

    /// Waits until a datagram is there or the other descriptor is ready, `timeout` at most. Says whether the latter is.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> bool {
        self.give_back();
        self.arm();
        // What is there already is worked on first.
        if self.arrived.is_empty() {
            let is_ready = self.poll == Poll::Ready;
            self.ring.wait(if is_ready { Some(Duration::ZERO) } else { timeout });
            self.look(&mut |_, _| {});
        }
        let is_ready = self.poll == Poll::Ready;
        if is_ready {
            self.poll = Poll::Idle;
        }
        is_ready
    }

    /// Finds the datagrams that arrived, up to a batch of messages.
    pub(crate) fn receive(
        &mut self,
        conversion: Conversion,
        counters: &mut Counters,
        found: &mut Vec<Found>,
    ) {
        let count = self.arrived.len().min(BATCH);
        counters.receive_batches += u64::from(count > 0);
        for (socket, buffer) in self.arrived.drain(..count) {
            self.lent.push((socket, buffer));
            let Some(Reader { udp, pool, .. }) = self.udp.get_mut(socket) else { continue };
            let Some(parts) = pool.parts(buffer) else { continue };
            let message = Message {
                from: sockaddr::read(parts.name),
                control: parts.control,
                length: parts.length,
                truncated: parts.truncated,
            };
            let place = socket as u32 * SOCKET_BUFFERS + u32::from(buffer);
            udp.take(message, (place, PAYLOAD), conversion, counters, found);
        }
    }

    /// Whether more is there than one batch.
    pub(crate) fn has_more(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Copies a datagram that came by other means into a buffer.
    pub(crate) fn put(&mut self, buffer: usize, datagram: &[u8]) {
        let room = self.others.get_mut(buffer).and_then(|bytes| bytes.get_mut(..datagram.len()));
        if let Some(room) = room {
            room.copy_from_slice(datagram);
        }
    }

    /// The number of the buffer that [`Uring::put`] filled.
    pub(crate) fn place_of(&self, buffer: usize) -> u32 {
        self.polled as u32 * SOCKET_BUFFERS + buffer as u32
    }

    pub(crate) fn bytes(&mut self, found: &Found) -> Option<&mut [u8]> {
        let socket = (found.buffer / SOCKET_BUFFERS) as usize;
        let buffer = (found.buffer % SOCKET_BUFFERS) as usize;
        let (from, to) = (found.bytes.start as usize, found.bytes.end as usize);
        match self.udp.get_mut(socket) {
            Some(reader) => reader.pool.bytes(buffer, from, to),
            None => self.others.get_mut(buffer)?.get_mut(from..to),
        }
    }

    /// The sockets, in the order of [`Uring::sockets`].
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
        for socket in 0..self.udp.len() {
            let Some(udp) = self.udp.get(socket).map(|reader| &reader.udp) else { continue };
            if udp.strangers {
                continue;
            }
            let (mut cutting, place) = (udp.cutting, udp.place);
            let runs = egress.runs().filter(|run| place.sends(&run.path));
            let mut submit = |batch: &mut Batch<'_>, _, counters: &mut Counters| {
                self.submit(socket, batch, counters)
            };
            let stamped = place.stamped(egress, stamped);
            outgoing::send(runs, stamped, &mut cutting, counters, &mut submit);
            if let Some(reader) = self.udp.get_mut(socket) {
                reader.udp.cutting = cutting;
            }
        }
    }

    /// Sends the whole batch. What a refused run is followed by overtakes it: requests that wait for each other (links) would
    /// not be done within the submission.
    fn submit(&mut self, socket: usize, batch: &mut Batch<'_>, counters: &mut Counters) -> usize {
        // SAFETY: as in `new`.
        let mut headers: [libc::msghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (header, message) in headers.iter_mut().zip(batch.headers()) {
            *header = message;
        }
        if let Some((at, ask)) = batch.stamped()
            && let Some(header) = headers.get_mut(at)
        {
            ask.write_to(header);
        }
        for (at, header) in headers.iter().enumerate().take(batch.len()) {
            // With MSG_DONTWAIT the kernel sends at once or not at all, and so needs none of it any more when the
            // submission is over.
            let entry = opcode::SendMsg::new(Fixed(socket as u32), header)
                .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
                .build()
                .flags(Flags::SKIP_SUCCESS)
                .user_data(SEND | at as u64);
            // SAFETY: the header, and what it points to, outlive the submission below.
            unsafe { self.ring.push(&entry) };
        }
        counters.send_batches += 1;
        self.ring.submit();
        // Only failures are told.
        self.look(&mut |at, error| batch.refuse(at, error));
        batch.len()
    }

    /// Gives the buffers of the last batch back to the kernel.
    fn give_back(&mut self) {
        if self.lent.is_empty() {
            return;
        }
        for (socket, buffer) in self.lent.drain(..) {
            if let Some(reader) = self.udp.get_mut(socket) {
                reader.pool.put(buffer);
            }
        }
        self.udp.iter().for_each(|reader| reader.pool.publish());
    }

    /// Begins again to receive where that ended: at first, and when the buffers ran out.
    fn arm(&mut self) {
        for (at, reader) in self.udp.iter_mut().enumerate().filter(|(_, reader)| !reader.armed) {
            reader.armed = true;
            let entry =
                opcode::RecvMsgMulti::new(Fixed(at as u32), &raw const self.shape.0, at as u16)
                    .build()
                    .user_data(RECEIVE | at as u64);
            // SAFETY: the shape lives in a box of its own, which the kernel copies from when the request is submitted.
            unsafe { self.ring.push(&entry) };
        }
        if self.poll == Poll::Idle {
            self.poll = Poll::Armed;
            let entry = opcode::PollAdd::new(Fixed(self.polled as u32), libc::POLLIN as u32);
            // SAFETY: it points to nothing.
            unsafe { self.ring.push(&entry.build().user_data(POLL)) };
        }
    }

    /// Takes note of what is complete; tells of each run that was not sent, and why.
    fn look(&mut self, refused: &mut impl FnMut(usize, i32)) {
        let Self { ring, udp, arrived, poll, .. } = self;
        for Completion { user_data, result, buffer, goes_on } in ring.completions() {
            let which = (user_data & !KIND) as usize;
            match user_data & KIND {
                RECEIVE => {
                    // Bounded by the buffers.
                    arrived.extend(buffer.map(|buffer| (which, buffer)));
                    if let Some(reader) = udp.get_mut(which) {
                        reader.armed = goes_on;
                    }
                }
                SEND if result < 0 => refused(which, -result),
                POLL => *poll = Poll::Ready,
                _ => {}
            }
        }
    }
}

const _: () = assert!(BUFFERS.is_power_of_two() && STRANGERS_BUFFERS.is_power_of_two());

#[cfg(test)]
mod tests {
    use crate::{Backend, Options, bind};

    /// Makes io_uring_setup fail for this thread with `EPERM`, as the filters of containers do.
    fn forbid_rings() {
        let op = |code: u32, jump_else: u8, k: u32| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: jump_else,
            k,
        };
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let mut program = [
            // The number of the call comes first in what a filter sees.
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
            op(libc::BPF_RET | libc::BPF_K, 0, refuse),
            op(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: `filter` points to a program of that many instructions, which the kernel copies.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    #[test]
    fn without_io_uring_the_other_way_is_taken_and_that_is_said_once() {
        let udp = vec![[127, 0, 0, 1].into()];
        let options = Options { udp, workers: 3, backend: Backend::Uring, ..Options::default() };
        assert!(bind(&options).unwrap().ports.iter().all(|port| port.backend() == Backend::Uring));
        let bound = std::thread::spawn(move || {
            forbid_rings();
            bind(&options).unwrap()
        });
        let bound = bound.join().unwrap();
        assert!(bound.ports.iter().all(|port| port.backend() == Backend::Mmsg));
        let said: Vec<_> =
            bound.degradations.iter().filter(|why| why.contains("io_uring")).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("not permitted") && said[0].contains("io_uring_disabled"));
    }
}
