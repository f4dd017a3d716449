//! One connection of framed media: TLS to the peer, a local socket to a worker.

use super::queue::Queue;
use super::tls::{Moving, Scratch, Tls};
use super::{Shared, late};
use crate::limits::FRAMED_READS_PER_TURN;
use crate::steer::Letterbox;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use strait_core::port::Path;
use strait_io::{Clock, tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

/// A connection of a peer that a worker knows, on its way to the thread that carries it.
pub(super) struct Known {
    peer: Moving,
    worker: std::os::unix::net::UnixStream,
    inward: Vec<u8>,
    outward: Queue,
    shared: Arc<Shared>,
}

/// A connection that was taken over.
pub(super) struct Carrier {
    peer: Tls,
    /// What the peer sent that the worker did not take yet; nothing is read meanwhile, which slows the peer down.
    inward: Vec<u8>,
    worker: Way,
    /// The worker said something: it knows the peer.
    is_known: bool,
    shared: Arc<Shared>,
}

/// A local connection to a worker.
pub(super) struct Way {
    worker: UnixStream,
    /// What the worker sent.
    pub(super) outward: Queue,
}

impl Way {
    /// Brings one to a worker, for which it comes from `remote` to `local`.
    pub(super) fn open(
        letterbox: &Letterbox,
        local: IpAddr,
        remote: SocketAddr,
    ) -> io::Result<Self> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let path = Path::tcp(local, remote);
        let connection = tcp::Connection::local(far, path, Clock.instant())?;
        if !letterbox.put_connection(connection) {
            return Err(io::Error::other("too many connections are on their way to the worker"));
        }
        Ok(Self { worker: UnixStream::from_std(near)?, outward: Queue::default() })
    }

    /// Writes what the worker takes of `inward`.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, inward: &mut Vec<u8>) -> io::Result<()> {
        while !inward.is_empty() {
            match Pin::new(&mut self.worker).poll_write(cx, inward) {
                Poll::Ready(written) => drop(inward.drain(..written?)),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Reads from the worker once. What finds no room goes, the oldest first.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        shared: &Shared,
    ) -> Poll<io::Result<()>> {
        let mut scratch = scratch.borrow_mut();
        let mut bytes = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.worker).poll_read(cx, &mut bytes))?;
        if bytes.filled().is_empty() {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        let dropped = self.outward.push(bytes.filled());
        shared.dropped.fetch_add(dropped, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl Carrier {
    /// Carries frames of a peer, with what it sent already, until it showed that a worker knows it.
    ///
    /// # Errors
    /// Either side ended, or the deadline came.
    pub(super) async fn meet(
        peer: Tls,
        inward: Vec<u8>,
        shared: Arc<Shared>,
        (letterbox, scratch): (&Letterbox, &Scratch),
        deadline: Instant,
    ) -> io::Result<Known> {
        let worker = Way::open(letterbox, peer.local()?, peer.remote()?)?;
        let mut carrier = Self { peer, inward, worker, is_known: false, shared };
        let meeting = poll_fn(|cx| match carrier.poll_turn(cx, scratch)? {
            () if carrier.is_known => Poll::Ready(Ok::<_, io::Error>(())),
            () => Poll::Pending,
        });
        timeout_at(deadline, meeting).await.map_err(|_| late("no check passed"))??;
        let Self { peer, inward, worker: Way { worker, outward }, shared, .. } = carrier;
        let (peer, worker) = (peer.leave()?, worker.into_std()?);
        Ok(Known { peer, worker, inward, outward, shared })
    }

    /// Carries frames until either side ends.
    pub(super) async fn carry(known: Known, scratch: &Scratch) -> io::Result<()> {
        let Known { peer, worker, inward, outward, shared } = known;
        let worker = Way { worker: UnixStream::from_std(worker)?, outward };
        let peer = Tls::arrive(peer)?;
        let mut carrier = Self { peer, inward, worker, is_known: true, shared };
        poll_fn(|cx| match carrier.poll_turn(cx, scratch) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(Err(end)),
        })
        .await
    }

    /// Moves what there is, both ways. It is woken when there is more.
    fn poll_turn(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> io::Result<()> {
        let mut reads = 0;
        let inward = loop {
            self.worker.write(cx, &mut self.inward)?;
            if !self.inward.is_empty() || reads == FRAMED_READS_PER_TURN {
                break reads;
            }
            match self.peer.poll_read(cx, scratch, &mut self.inward) {
                Poll::Pending => break reads,
                Poll::Ready(read) => read?,
            }
            reads += 1;
        };
        reads = 0;
        while reads < FRAMED_READS_PER_TURN
            && let Poll::Ready(read) = self.worker.poll_read(cx, scratch, &self.shared)
        {
            read?;
            self.is_known = true;
            reads += 1;
        }
        self.write_peer(cx)?;
        if inward.max(reads) == FRAMED_READS_PER_TURN {
            // There may be more: after the others' turn.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Writes records for as long as the socket takes them.
    fn write_peer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.peer.flush(cx)? {
            let batch = self.worker.outward.batch();
            if batch.is_empty() {
                return Ok(());
            }
            // TLS holds nothing now, and takes more than a batch.
            let taken = batch.len();
            self.peer.write(batch)?;
            self.worker.outward.sent(taken);
        }
        Ok(())
    }
}
