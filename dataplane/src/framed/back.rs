//! A connection that is neither framed media nor TURN: its client named no protocol, and the first bytes say that it is the
//! control plane's. It gets what is said by the socket that it handed the connection over with.

use super::late;
use super::tls::{Scratch, Tls};
use crate::limits::FRAMED_BACK_BYTES;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
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
    /// It takes nothing any more; what it said before is still the client's.
    control_deaf: bool,
    /// It says no more, though not all that it said was read yet.
    control_left: bool,
    /// The client was told that no more follows.
    is_said: bool,
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
    let (peer_ended, control_ended, control_deaf, control_left, is_said) = Default::default();
    let stalled = Box::pin(sleep(patience.stall));
    let mut back = Back {
        peer,
        control,
        inward,
        outward,
        peer_ended,
        control_ended,
        control_deaf,
        control_left,
        is_said,
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
            // A connection that is closed while something comes is reset, and the last words with it: what comes is read
            // for its end.
            if self.control_ended && self.outward.is_empty() && self.say_end(cx)? && self.peer_ended
            {
                return Poll::Ready(Ok(()));
            }
            if !is_moved {
                return self.poll_stalled(cx);
            }
        }
    }

    /// Tells the client that no more follows. Whether its socket took that.
    fn say_end(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        self.is_said = self.is_said || (self.peer.flush(cx)? && self.peer.close(cx)?);
        Ok(self.is_said)
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
        ready!(self.stalled.as_mut().poll(cx));
        Poll::Ready(match self.is_said && !is_waiting {
            true => Ok(()),
            false => Err(late("the client takes nothing")),
        })
    }

    /// Whether the control plane says no more: a slow peer would have the last of it read late.
    fn is_control_closed(&self, cx: &mut Context<'_>) -> bool {
        let ready = pin!(self.control.ready(Interest::READABLE)).poll(cx);
        self.control_ended || matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Whether something moved that may let more move.
    fn inwards(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> io::Result<bool> {
        while !self.inward.is_empty() && !self.control_deaf {
            match Pin::new(&mut *self.control).poll_write(cx, &self.inward) {
                Poll::Ready(Ok(written)) => drop(self.inward.drain(..written)),
                Poll::Ready(Err(_)) => self.control_deaf = true,
                Poll::Pending => break,
            }
        }
        if self.control_deaf {
            self.inward.clear();
        }
        if self.peer_ended || self.inward.len() >= FRAMED_BACK_BYTES {
            return self.pass_end(cx);
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

    /// Tells the control plane of the client's end, behind all that it said.
    fn pass_end(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if !self.peer_ended || !self.inward.is_empty() || self.control_deaf {
            return Ok(false);
        }
        self.control_deaf = true;
        match Pin::new(&mut *self.control).poll_shutdown(cx) {
            Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(true),
        }
    }

    fn outwards(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> io::Result<bool> {
        let mut is_moved = false;
        if !self.control_ended && self.outward.len() < FRAMED_BACK_BYTES {
            let mut scratch = scratch.borrow_mut();
            let mut bytes = ReadBuf::new(&mut scratch);
            if let Poll::Ready(read) = Pin::new(&mut *self.control).poll_read(cx, &mut bytes) {
                // One that ended before it read all is reset, behind what it said.
                self.control_ended = read.is_err() || bytes.filled().is_empty();
                self.control_deaf |= self.control_ended;
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
        Ok(is_moved)
    }
}
