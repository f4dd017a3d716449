//! One wait for all of a worker's sockets, and the way to end it from another thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Events taken by one wait.
const EVENTS: usize = 64;

/// Wakes a worker from its [`strait_core::port::Port::wait`]. Cheap to clone, and to call again before the worker woke.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Event>);

#[derive(Debug)]
struct Event {
    file: File,
    /// Whether a wake-up is on its way: saves the system call of all but the first.
    pending: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self(Arc::new(Event { file, pending: AtomicBool::new(false) })))
    }

    /// Ends the wait. What was queued for the worker before this call is seen by the turn that follows.
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            // It can only fail when the counter is full, and then the worker wakes anyway.
            let _ = (&self.0.file).write(&1_u64.to_ne_bytes());
        }
    }

    /// Makes the next [`Waker::wake`] count again. Queues are to be looked at after this, not before.
    pub(crate) fn reset(&self) {
        let _ = (&self.0.file).read(&mut [0; 8]);
        self.0.pending.store(false, Ordering::Release);
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> i32 {
        self.0.file.as_raw_fd()
    }
}

/// What to wait for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Nothing,
    Read,
    ReadWrite,
}

#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn add(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    pub(crate) fn modify(
        &self,
        fd: &impl AsRawFd,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    pub(crate) fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, Interest::Nothing)
    }

    /// Waits at most `timeout` (`None`: for as long as it takes), to the nanosecond where the kernel can (Linux 5.11),
    /// otherwise rounded up to milliseconds so that a timer is never early. Calls `each` with the token, and whether it
    /// can be written.
    pub(crate) fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(u64, bool)) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let exact = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let exact = exact.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `events` is valid to write EVENTS entries to; the time is there or null, no signal mask is given.
        let mut count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as i32,
                exact,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        // ENOSYS, or EPERM from a container whose filter is older than the call.
        if count < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            let milliseconds = timeout.map_or(-1, |timeout| {
                i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
            });
            let room = (events.as_mut_ptr(), EVENTS as i32);
            // SAFETY: as above.
            count = unsafe {
                libc::epoll_wait(self.0.as_raw_fd(), room.0, room.1, milliseconds).into()
            };
        }
        // An interrupted wait is a wait that ended early.
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            each(event.u64, event.events & libc::EPOLLOUT as u32 != 0);
        }
    }

    fn control(
        &self,
        operation: i32,
        fd: &impl AsRawFd,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let events = match interest {
            Interest::Nothing => 0,
            Interest::Read => libc::EPOLLIN,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: `event` is valid for the call.
        let result = unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_is_not_lost_and_counts_once() {
        let (epoll, waker) = (Epoll::new().unwrap(), Waker::new().unwrap());
        epoll.add(&waker, 7, Interest::Read).unwrap();
        let woken = || {
            let mut tokens = Vec::new();
            epoll.wait(Some(Duration::ZERO), |token, _| tokens.push(token));
            tokens
        };
        assert!(woken().is_empty());
        waker.wake();
        waker.clone().wake();
        assert_eq!(woken(), [7]);
        waker.reset();
        assert!(woken().is_empty());
        waker.wake();
        assert_eq!(woken(), [7], "counts again after a reset");
    }
}
