//! A connection that is neither framed media nor TURN: its client named no protocol, and the first bytes say that it is the
//! control plane's. It gets what is said by the socket that it handed the connection over with.

use super::tls::{Scratch, Tls};
use crate::limits::FRAMED_BACK_BYTES;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

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
}

/// Carries bytes both ways until either side ends.
///
/// # Errors
/// It ended otherwise.
pub(super) async fn give(
    peer: Tls,
    inward: Vec<u8>,
    control: &mut UnixStream,
    scratch: &Scratch,
) -> io::Result<()> {
    let outward = Vec::new();
    let (peer_ended, control_ended) = (false, false);
    let mut back = Back { peer, control, inward, outward, peer_ended, control_ended };
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
                return Poll::Pending;
            }
        }
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
