//! Runs on their way to the kernel: a batch of them with their addresses, and what becomes of those that it refuses.

use crate::cmsg::{self, SendControl};
use crate::counters::{Counters, Drop};
use crate::cutting::Cutting;
use crate::limits::BATCH;
use crate::sockaddr::Name;
use crate::stamp;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::Range;
use strait_core::egress::Run;

/// At most [`BATCH`] runs that borrow their bytes.
pub(crate) struct Batch<'a> {
    runs: [Option<Run<'a>>; BATCH],
    names: [(Name, u32); BATCH],
    controls: [(SendControl, usize); BATCH],
    vectors: [MaybeUninit<libc::iovec>; BATCH],
    /// What the kernel said of each; 0 for sent.
    errors: [i32; BATCH],
    length: usize,
    /// Which of them the kernel is to stamp when it leaves.
    stamped: Option<usize>,
    ask: Ask,
}

/// The control messages of a run that is to be stamped.
#[repr(C, align(8))]
pub(crate) struct Ask {
    bytes: [u8; cmsg::SEND_BYTES + stamp::ASK_BYTES],
    length: usize,
}

impl Ask {
    /// Puts them into the run's header, which points here from then on.
    pub(crate) fn write_to(&mut self, header: &mut libc::msghdr) {
        header.msg_control = (&raw mut self.bytes).cast();
        header.msg_controllen = self.length as _;
    }
}

impl<'a> Batch<'a> {
    fn new() -> Self {
        Self {
            runs: [None; BATCH],
            names: [(Name::EMPTY, 0); BATCH],
            controls: [(SendControl([0; cmsg::SEND_BYTES]), 0); BATCH],
            vectors: [const { MaybeUninit::uninit() }; BATCH],
            errors: [0; BATCH],
            length: 0,
            stamped: None,
            ask: Ask { bytes: [0; cmsg::SEND_BYTES + stamp::ASK_BYTES], length: 0 },
        }
    }

    /// How many runs.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// What the kernel said of a run, as an error number.
    pub(crate) fn refuse(&mut self, at: usize, error: i32) {
        if let Some(place) = self.errors.get_mut(at) {
            *place = error;
        }
    }

    /// The message header of each run. They point into this batch, which must stay where it is as long as they are used.
    pub(crate) fn headers(&mut self) -> impl Iterator<Item = libc::msghdr> {
        let parts = self.runs.iter().flatten().zip(&mut self.vectors);
        let parts = parts.zip(&mut self.names).zip(&mut self.controls);
        parts.map(|(((run, vector), (name, name_length)), (control, control_length))| {
            // SAFETY: a msghdr is integers and pointers, for which zeroes are "none".
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = vector.write(libc::iovec {
                iov_base: run.bytes.as_ptr().cast_mut().cast(),
                iov_len: run.bytes.len(),
            });
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut name.0).cast();
            header.msg_namelen = *name_length;
            header.msg_control = (&raw mut control.0).cast();
            header.msg_controllen = *control_length as _;
            header
        })
    }

    /// Which run is to be stamped, if one is, and its control messages. They must stay where they are like the batch.
    pub(crate) fn stamped(&mut self) -> Option<(usize, &mut Ask)> {
        let at = self.stamped?;
        let (control, length) = self.controls.get(at)?;
        let end = length + stamp::ASK_BYTES;
        self.ask.bytes.get_mut(..*length)?.copy_from_slice(control.0.get(..*length)?);
        self.ask.bytes.get_mut(*length..end)?.copy_from_slice(&stamp::ask());
        self.ask.length = end;
        Some((at, &mut self.ask))
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

/// Sends the runs in order, a batch at a time, each by `submit`: it sends from a place of the batch on, says with
/// [`Batch::refuse`] what the kernel did not take, and returns how far it came. Where it goes on behind a refused run, what it
/// sent overtakes that one. The run at the place `stamped` is to be stamped. `cutting` learns on the way whether the kernel cuts runs. What is refused as a run goes out datagram by datagram where
/// that can help; the rest is dropped and counted.
pub(crate) fn send<'a>(
    runs: impl Iterator<Item = Run<'a>>,
    mut stamped: Option<usize>,
    cutting: &mut Cutting,
    counters: &mut Counters,
    submit: &mut impl FnMut(&mut Batch<'_>, usize, &mut Counters) -> usize,
) {
    let mut runs = runs.peekable();
    while runs.peek().is_some() {
        let mut batch = Batch::new();
        while batch.length < BATCH
            && let Some(run) = runs.next_if(|run| run.count == 1 || cutting.is_tried())
        {
            batch.push(run);
        }
        if batch.length == 0 {
            if let Some(run) = runs.next() {
                cutting.spared();
                stamped = stamped.and_then(|stamped| stamped.checked_sub(1));
                send_one_by_one(run, counters, submit);
            }
            continue;
        }
        batch.stamped = stamped.filter(|stamped| *stamped < batch.length);
        stamped = stamped.and_then(|stamped| stamped.checked_sub(batch.length));
        send_batch(&mut batch, cutting, counters, submit);
    }
}

fn send_one_by_one(
    run: Run<'_>,
    counters: &mut Counters,
    submit: &mut impl FnMut(&mut Batch<'_>, usize, &mut Counters) -> usize,
) {
    let mut datagrams = run.datagrams();
    loop {
        let mut batch = Batch::new();
        for bytes in datagrams.by_ref().take(BATCH) {
            batch.push(Run { path: run.path, size: bytes.len(), count: 1, bytes });
        }
        if batch.length == 0 {
            return;
        }
        // Single datagrams need no cutting.
        send_batch(&mut batch, &mut Cutting::default(), counters, submit);
    }
}

/// Sends a batch, counts what was sent, and sends again or drops what was not.
fn send_batch(
    batch: &mut Batch<'_>,
    cutting: &mut Cutting,
    counters: &mut Counters,
    submit: &mut impl FnMut(&mut Batch<'_>, usize, &mut Counters) -> usize,
) {
    let mut from = 0;
    while from < batch.length {
        let to = submit(batch, from, counters).clamp(from + 1, batch.length);
        settle(batch, from..to, cutting, counters, submit);
        from = to;
    }
}

fn settle(
    batch: &Batch<'_>,
    which: Range<usize>,
    cutting: &mut Cutting,
    counters: &mut Counters,
    submit: &mut impl FnMut(&mut Batch<'_>, usize, &mut Counters) -> usize,
) {
    let settled = batch.runs.iter().flatten().zip(batch.errors);
    for (run, error) in settled.skip(which.start).take(which.len()) {
        let uncut = match error {
            0 => {
                counters.add_run(run.count, run.bytes.len());
                if run.count > 1 {
                    cutting.passed();
                }
                continue;
            }
            _ if run.count == 1 => false,
            // None is cut on this way out, or none by this kernel.
            libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT => {
                cutting.refused();
                true
            }
            // This route's MTU is below the size, or the kernel takes fewer at a time.
            libc::EINVAL | libc::EMSGSIZE => true,
            _ => false,
        };
        if uncut {
            counters.runs_refused += 1;
            send_one_by_one(*run, counters, submit);
        } else {
            let reason = Drop::of_send_error(&io::Error::from_raw_os_error(error));
            counters.add_drops(reason, run.count as u64);
        }
    }
}
