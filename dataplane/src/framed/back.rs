//! A connection that is neither framed media nor TURN: its client named no protocol, and the first bytes say that it is the
//! control plane's. It gets what is said by the socket that it handed the connection over with.

use super::late;
use super::tls::{Scratch, Tls};
use crate::limits::FRAMED_BACK_BYTES;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};

/// What waits on either way.
struct Back<'a> {
    peer: Tls,
    control: &'a mut UnixStream,
    /// From the peer.
    inward: Vec<u8>,
    /// For the peer.
    outward: Vec<u8>,
    peer_ended: bool,
    control_ended: bool,
    /// The same, though not all that it said was read yet.
    control_left: bool,
    patience: Patience,
    /// When that is over, where something waits for the peer.
    stalled: Pin<Box<Sleep>>,
    /// Bytes for the peer that had gone when it began.
    gone: u64,
}

/// How long the peer may take nothing, and how long it may take for the rest when the control plane ended.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) stall: Duration,
    pub(super) end: Duration,
}

/// Carries bytes both ways until either side ends.
///
/// # Errors
/// It ended otherwise, or the peer takes nothing.
pub(super) async fn give(
    peer: Tls,
    inward: Vec<u8>,
    control: &mut UnixStream,
    scratch: &Scratch,
    patience: Patience,
) -> io::Result<()> {
    let (outward, gone) = (Vec::new(), 0);
    let (peer_ended, control_ended, control_left) = Default::default();
    let stalled = Box::pin(sleep(patience.stall));
    let mut back = Back {
        peer,
        control,
        inward,
        outward,
        peer_ended,
        control_ended,
        control_left,
        patience,
        stalled,
        gone,
    };
    poll_fn(|cx| back.poll(cx, scratch)).await
}

impl Back<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<io::Result<()>> {
        loop {
            let is_moved = self.inwards(cx, scratch)? | self.outwards(cx, scratch)?;
            if self.peer_ended && self.inward.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.control_ended && self.outward.is_empty() && self.peer.flush(cx)? {
                return Poll::Ready(Ok(()));
            }
            if !is_moved {
                return self.poll_stalled(cx);
            }
        }
    }

    /// Whether the peer let too much time pass. From the control plane's end on, whatever it takes.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_waiting = self.peer.is_waiting() || !self.outward.is_empty();
        let gone = self.peer.gone();
        if !self.control_left && self.is_control_closed(cx) {
            self.control_left = true;
            self.stalled.as_mut().reset(Instant::now() + self.patience.end);
        } else if !self.control_left && (!is_waiting || gone != self.gone) {
            self.gone = gone;
            self.stalled.as_mut().reset(Instant::now() + self.patience.stall);
        }
        if !is_waiting && !self.control_left {
            return Poll::Pending;
        }
        self.stalled.as_mut().poll(cx).map(|()| Err(late("the client takes nothing")))
    }

    /// Whether the control plane says no more: a slow peer would have the last of it read late.
    fn is_control_closed(&self, cx: &mut Context<'_>) -> bool {
        let ready = pin!(self.control.ready(Interest::READABLE)).poll(cx);
        self.control_ended || matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Whether something moved that may let more move.
    fn inwards(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> io::Result<bool> {
        while !self.inward.is_empty() {
            match Pin::new(&mut *self.control).poll_write(cx, &self.inward) {
                Poll::Ready(written) => drop(self.inward.drain(..written?)),
                Poll::Pending => break,
            }
        }
        if self.peer_ended || self.inward.len() >= FRAMED_BACK_BYTES {
            return Ok(false);
        }
        match self.peer.poll_read(cx, scratch, &mut self.inward) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.peer_ended = true;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn outwards(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> io::Result<bool> {
        let mut is_moved = false;
        if !self.control_ended && self.outward.len() < FRAMED_BACK_BYTES {
            let mut scratch = scratch.borrow_mut();
            let mut bytes = ReadBuf::new(&mut scratch);
            if let Poll::Ready(read) = Pin::new(&mut *self.control).poll_read(cx, &mut bytes) {
                read?;
                self.control_ended = bytes.filled().is_empty();
                self.outward.extend_from_slice(bytes.filled());
                is_moved = true;
            }
        }
        if self.peer.flush(cx)? && !self.outward.is_empty() {
            let record = self.outward.len().min(crate::limits::FRAMED_RECORD_BYTES);
            self.peer.write(self.outward.get(..record).unwrap_or_default())?;
            self.outward.drain(..record);
            is_moved = true;
        }
        if is_moved && self.control_ended && self.outward.is_empty() {
            self.peer.close();
        }
        Ok(is_moved)
    }
}
