//! Buffers that the kernel takes from by itself: a ring of their addresses in shared memory, and their bytes.

use super::ring::Ring;
use crate::cmsg;
use crate::limits::MESSAGE_BYTES;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// `struct io_uring_recvmsg_out`: four numbers, before everything else.
const HEADER_BYTES: usize = 16;
/// Room for the sender's address; more than one needs, so that the datagram begins at a multiple of 16.
pub(super) const NAME_BYTES: usize = 32;
/// Where the datagram begins.
pub(super) const PAYLOAD: usize = HEADER_BYTES + NAME_BYTES + cmsg::BYTES;
const BUFFER_BYTES: usize = PAYLOAD + MESSAGE_BYTES;
/// From one buffer to the next. No power of two: the first lines of all buffers would share one set of the cache.
const STRIDE: usize = BUFFER_BYTES + 1088 - PAYLOAD % 64;
const PAGE: usize = 4096;

/// The buffers of one socket.
///
/// They are never freed: who closes a ring only asks the kernel to end its requests, which it does later, and until then
/// they may be written to. A worker ends when its process does.
pub(super) struct Pool {
    entries: NonNull<BufRingEntry>,
    count: u16,
    tail: u16,
    bytes: &'static mut [u8],
}

// SAFETY: the memory behind `entries` belongs to the pool alone (and to the kernel, which no thread is).
unsafe impl Send for Pool {}

/// A received message in a buffer: `struct io_uring_recvmsg_out` and what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) name: &'a [u8],
    pub(super) control: &'a [u8],
    /// Bytes of the payload that are there.
    pub(super) length: usize,
    pub(super) truncated: bool,
}

impl Pool {
    /// Makes `count` buffers, a power of two, and gives them to the kernel as `group`.
    pub(super) fn new(ring: &Ring, count: u16, group: u16) -> io::Result<Self> {
        let size = usize::from(count) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(size, PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(memory.cast::<BufRingEntry>()) else {
            handle_alloc_error(layout)
        };
        let bytes = vec![0; usize::from(count) * STRIDE].leak();
        let mut pool = Self { entries, count, tail: 0, bytes };
        for buffer in 0..count {
            pool.put(buffer);
        }
        // SAFETY: the memory is page-aligned, holds `count` entries, and is never freed.
        unsafe { ring.register_buffers(entries.as_ptr() as u64, count, group)? };
        pool.publish();
        Ok(pool)
    }

    /// Gives a buffer back. The kernel sees it after [`Pool::publish`].
    pub(super) fn put(&mut self, buffer: u16) {
        let Some(bytes) = self.bytes.get_mut(usize::from(buffer) * STRIDE..) else { return };
        let address = bytes.as_mut_ptr() as u64;
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, which the memory has room for; the kernel does not read entries beyond the tail
        // that it was told.
        let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Tells the kernel of the buffers that were put back.
    pub(super) fn publish(&self) {
        // SAFETY: the tail lies in the first entry, which is valid and aligned; the kernel reads it while we write, which
        // is why it is written as an atomic.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// What the kernel wrote into a buffer.
    pub(super) fn parts(&self, buffer: u16) -> Option<Parts<'_>> {
        let bytes = self.bytes.get(usize::from(buffer) * STRIDE..)?.get(..BUFFER_BYTES)?;
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        let (name, control) = (number(0)? as usize, number(4)? as usize);
        let (length, flags) = (number(8)? as usize, number(12)?);
        let control_at = HEADER_BYTES + NAME_BYTES;
        Some(Parts {
            name: bytes.get(HEADER_BYTES..HEADER_BYTES + name.min(NAME_BYTES))?,
            control: bytes.get(control_at..control_at + control.min(cmsg::BYTES))?,
            length: length.min(MESSAGE_BYTES),
            truncated: flags & libc::MSG_TRUNC as u32 != 0 || length > MESSAGE_BYTES,
        })
    }

    /// Bytes of a buffer.
    pub(super) fn bytes(&mut self, buffer: usize, from: usize, to: usize) -> Option<&mut [u8]> {
        let start = buffer * STRIDE;
        self.bytes.get_mut(start + from..start + to)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("count", &self.count).finish_non_exhaustive()
    }
}
