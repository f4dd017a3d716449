//! One connection: TLS to the peer, a local socket to a worker.

use super::Shared;
use super::queue::Queue;
use crate::limits::{FRAMED_READ_BYTES, FRAMED_READS_PER_TURN, FRAMED_UNSENT_BYTES};
use crate::steer::Letterbox;
use rustls::{ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use strait_core::port::Path;
use strait_io::{Clock, tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

/// A connection of a peer that a worker knows, on its way to the thread that carries it.
pub(super) struct Known {
    peer: std::net::TcpStream,
    worker: std::os::unix::net::UnixStream,
    tls: ServerConnection,
    inward: Vec<u8>,
    outward: Queue,
    shared: Arc<Shared>,
}

/// A connection that was taken over.
pub(super) struct Carrier {
    peer: TcpStream,
    tls: ServerConnection,
    /// What the peer sent that the worker did not take yet; nothing is read meanwhile, which slows the peer down.
    inward: Vec<u8>,
    /// What the worker sent.
    outward: Queue,
    /// The worker said something: it knows the peer.
    is_known: bool,
    shared: Arc<Shared>,
}

/// Where reads go first, of all connections of the thread.
pub(super) type Scratch = RefCell<Box<[u8]>>;

/// Scratch for one thread.
pub(super) fn scratch() -> Scratch {
    RefCell::new(vec![0; FRAMED_READ_BYTES].into_boxed_slice())
}

impl Carrier {
    /// For a connection that does not block.
    pub(super) fn new(
        peer: std::net::TcpStream,
        tls: Arc<ServerConfig>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        peer.set_nodelay(true)?;
        strait_io::limit_unsent(&peer, FRAMED_UNSENT_BYTES)?;
        let peer = TcpStream::from_std(peer)?;
        let tls = ServerConnection::new(tls).map_err(io::Error::other)?;
        let (inward, outward) = Default::default();
        Ok(Self { peer, tls, inward, outward, is_known: false, shared })
    }

    /// Speaks TLS, and carries frames until the peer showed that a worker knows it.
    ///
    /// # Errors
    /// Either side ended, or `patience` did.
    pub(super) async fn meet(
        mut self,
        letterbox: &Letterbox,
        scratch: &Scratch,
        patience: Duration,
    ) -> io::Result<Known> {
        let deadline = Instant::now() + patience;
        let greeting = poll_fn(|cx| self.poll_greeting(cx, scratch));
        timeout_at(deadline, greeting).await.map_err(|_| late("TLS was not finished"))??;
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let mut worker = UnixStream::from_std(near)?;
        let remote = self.peer.peer_addr()?;
        let path = Path::tcp(
            self.peer.local_addr()?.ip().to_canonical(),
            (remote.ip().to_canonical(), remote.port()).into(),
        );
        let connection = tcp::Connection::local(far, path, Clock.instant())?;
        if !letterbox.put_connection(connection) {
            return Err(io::Error::other("too many connections are on their way to the worker"));
        }
        let meeting = poll_fn(|cx| match self.poll_turn(cx, &mut worker, scratch)? {
            () if self.is_known => Poll::Ready(Ok::<_, io::Error>(())),
            () => Poll::Pending,
        });
        timeout_at(deadline, meeting).await.map_err(|_| late("no check passed"))??;
        let Self { peer, tls, inward, outward, shared, .. } = self;
        let (peer, worker) = (peer.into_std()?, worker.into_std()?);
        Ok(Known { peer, worker, tls, inward, outward, shared })
    }

    /// Carries frames until either side ends.
    pub(super) async fn carry(known: Known, scratch: &Scratch) -> io::Result<()> {
        let Known { peer, worker, tls, inward, outward, shared } = known;
        let (peer, mut worker) = (TcpStream::from_std(peer)?, UnixStream::from_std(worker)?);
        let mut carrier = Self { peer, tls, inward, outward, is_known: true, shared };
        poll_fn(|cx| match carrier.poll_turn(cx, &mut worker, scratch) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(Err(end)),
        })
        .await
    }

    fn poll_greeting(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<io::Result<()>> {
        loop {
            self.write_peer(cx)?;
            if !self.tls.is_handshaking() && !self.tls.wants_write() {
                return Poll::Ready(Ok(()));
            }
            if !self.tls.is_handshaking() {
                return Poll::Pending;
            }
            ready!(self.poll_peer(cx, scratch))?;
        }
    }

    /// Moves what there is, both ways. It is woken when there is more.
    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        worker: &mut UnixStream,
        scratch: &Scratch,
    ) -> io::Result<()> {
        let mut reads = 0;
        let inward = loop {
            self.write_worker(cx, worker)?;
            if !self.inward.is_empty() || reads == FRAMED_READS_PER_TURN {
                break reads;
            }
            match self.poll_peer(cx, scratch) {
                Poll::Pending => break reads,
                Poll::Ready(read) => read?,
            }
            reads += 1;
        };
        reads = 0;
        while reads < FRAMED_READS_PER_TURN
            && let Poll::Ready(read) = self.poll_worker(cx, worker, scratch)
        {
            read?;
            reads += 1;
        }
        self.write_peer(cx)?;
        if inward.max(reads) == FRAMED_READS_PER_TURN {
            // There may be more: after the others' turn.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Reads from the peer once.
    fn poll_peer(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<io::Result<()>> {
        let mut scratch = scratch.borrow_mut();
        let mut bytes = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.peer).poll_read(cx, &mut bytes))?;
        if bytes.filled().is_empty() {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        let opened = self.open(bytes.filled());
        if opened.is_err() {
            // An alert says why; it may not arrive.
            let _ = self.write_peer(cx);
        }
        Poll::Ready(opened)
    }

    fn open(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let start = self.inward.len();
            self.inward.resize(start + state.plaintext_bytes_to_read(), 0);
            let room = self.inward.get_mut(start..).unwrap_or_default();
            self.tls.reader().read_exact(room)?;
            if state.peer_has_closed() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn write_worker(&mut self, cx: &mut Context<'_>, worker: &mut UnixStream) -> io::Result<()> {
        while !self.inward.is_empty() {
            match Pin::new(&mut *worker).poll_write(cx, &self.inward) {
                Poll::Ready(written) => drop(self.inward.drain(..written?)),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Reads from the worker once. What finds no room goes, the oldest first.
    fn poll_worker(
        &mut self,
        cx: &mut Context<'_>,
        worker: &mut UnixStream,
        scratch: &Scratch,
    ) -> Poll<io::Result<()>> {
        let mut scratch = scratch.borrow_mut();
        let mut bytes = ReadBuf::new(&mut scratch);
        ready!(Pin::new(worker).poll_read(cx, &mut bytes))?;
        if bytes.filled().is_empty() {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        self.is_known = true;
        let dropped = self.outward.push(bytes.filled());
        self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Writes records for as long as the socket takes them.
    fn write_peer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut Socket(&mut self.peer, cx)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            let batch = self.outward.batch();
            if batch.is_empty() {
                return Ok(());
            }
            // TLS holds nothing now, and takes more than a batch.
            let taken = batch.len();
            self.tls.writer().write_all(batch)?;
            self.outward.sent(taken);
        }
    }
}

/// Writes without waiting; the task is woken when there is room.
struct Socket<'a, 'cx>(&'a mut TcpStream, &'a mut Context<'cx>);

impl Socket<'_, '_> {
    fn taken(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
        match poll {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::taken(Pin::new(&mut *self.0).poll_write(self.1, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::taken(Pin::new(&mut *self.0).poll_write_vectored(self.1, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}
