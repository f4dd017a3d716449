//! The ring itself: made, probed, restricted to what the worker does with it, entered.

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, opcode};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Entries of the submission queue: a batch of runs, and what else is armed again beside it.
const SUBMISSIONS: u32 = 128;
/// Entries of the completion queue, at least. The kernel keeps what finds no room there (IORING_FEAT_NODROP).
const COMPLETIONS: usize = 1024;

/// A ring that one thread uses: the one that enters it first.
pub(super) struct Ring {
    ring: IoUring,
    enabled: bool,
}

/// What the kernel finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    /// Zero and above, or a negative error number.
    pub(super) result: i32,
    /// The provided buffer that it used.
    pub(super) buffer: Option<u16>,
    /// Whether the request goes on.
    pub(super) goes_on: bool,
}

impl Ring {
    /// A ring on these descriptors, which requests name by their places. It is disabled until it is entered first, so
    /// that it belongs to the thread that does so. `completions`: how many there may be at a time.
    pub(super) fn new(files: &[RawFd], completions: usize) -> io::Result<Self> {
        let completions = completions.next_power_of_two().max(COMPLETIONS);
        let ring = IoUring::builder()
            .dontfork()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions as u32)
            .build(SUBMISSIONS)?;
        let features = ring.params();
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let wanted = [opcode::RecvMsgMulti::CODE, opcode::SendMsg::CODE, opcode::PollAdd::CODE];
        if !wanted.iter().all(|code| probe.is_supported(*code))
            || !features.is_feature_ext_arg()
            || !features.is_feature_skip_cqe_on_success()
            || !features.is_feature_nodrop()
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_files(files)?;
        Ok(Self { ring, enabled: false })
    }

    /// Gives the kernel a ring of buffers.
    ///
    /// # Safety
    /// `address` must be that of `entries` buffer entries, page-aligned, that are valid for as long as the ring is.
    pub(super) unsafe fn register_buffers(
        &self,
        address: u64,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: the caller's.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, entries, group, 0) }
    }

    /// Takes away whatever the worker does not need: what runs through a ring passes no seccomp filter. Every request must
    /// name one of the ring's own sockets.
    pub(super) fn restrict(&self) -> io::Result<()> {
        let required = Flags::FIXED_FILE;
        let allowed = required | Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
        self.ring.submitter().register_restrictions(&mut [
            Restriction::sqe_op(opcode::RecvMsgMulti::CODE),
            Restriction::sqe_op(opcode::SendMsg::CODE),
            Restriction::sqe_op(opcode::PollAdd::CODE),
            Restriction::sqe_flags_allowed(allowed.bits()),
            Restriction::sqe_flags_required(required.bits()),
        ])
    }

    /// Queues a request.
    ///
    /// # Safety
    /// What it points to must stay valid until the next [`Ring::submit`] or [`Ring::wait`] returns.
    pub(super) unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: the caller's.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit();
        }
    }

    /// Hands all queued requests to the kernel.
    pub(super) fn submit(&mut self) {
        self.enable();
        while !self.ring.submission().is_empty() {
            // An interruption, or no memory at the moment: what they point to is borrowed, so they must go through.
            if self.ring.submit().is_err() {
                std::thread::yield_now();
            }
        }
    }

    /// Hands over what is queued, and waits until something is complete, `timeout` at most (`None`: for as long as it
    /// takes).
    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        self.enable();
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        // An error is a wait that ended early: by time, or by a signal.
        let _ = match timeout {
            Some(Duration::ZERO) => {
                // What the kernel put off is not done unless it is asked for.
                let flags = EnterFlags::GETEVENTS.bits();
                // SAFETY: no argument is given.
                unsafe { submitter.enter::<libc::sigset_t>(queued, 0, flags, None) }
            }
            Some(timeout) => {
                let time = Timespec::from(timeout);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            None => submitter.submit_and_wait(1),
        };
    }

    /// What is complete.
    pub(super) fn completions(&mut self) -> impl Iterator<Item = Completion> {
        self.ring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            buffer: io_uring::cqueue::buffer_select(entry.flags()),
            goes_on: io_uring::cqueue::more(entry.flags()),
        })
    }

    fn enable(&mut self) {
        if !self.enabled {
            // It cannot fail for a ring that is disabled, which this one is until here.
            self.enabled = self.ring.submitter().register_enable_rings().is_ok();
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}
