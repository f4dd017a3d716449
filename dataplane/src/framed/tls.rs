//! TLS on a connection that was taken over. Nothing waits: who asks is woken when there is more.

use crate::limits::{FRAMED_READ_BYTES, FRAMED_UNSENT_BYTES};
use rustls::{ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Where reads go first, of all connections of the thread.
pub(super) type Scratch = RefCell<Box<[u8]>>;

/// Scratch for one thread.
pub(super) fn scratch() -> Scratch {
    RefCell::new(vec![0; FRAMED_READ_BYTES].into_boxed_slice())
}

/// The peer's side of a connection.
pub(super) struct Tls {
    peer: TcpStream,
    tls: ServerConnection,
    /// Bytes that the socket took.
    gone: u64,
}

/// The same on its way to another thread.
pub(super) struct Moving(std::net::TcpStream, ServerConnection);

impl Tls {
    /// For a connection that does not block.
    pub(super) fn new(peer: std::net::TcpStream, tls: Arc<ServerConfig>) -> io::Result<Self> {
        peer.set_nodelay(true)?;
        strait_io::limit_unsent(&peer, FRAMED_UNSENT_BYTES)?;
        let peer = TcpStream::from_std(peer)?;
        Ok(Self { peer, tls: ServerConnection::new(tls).map_err(io::Error::other)?, gone: 0 })
    }

    pub(super) fn leave(self) -> io::Result<Moving> {
        Ok(Moving(self.peer.into_std()?, self.tls))
    }

    pub(super) fn arrive(Moving(peer, tls): Moving) -> io::Result<Self> {
        Ok(Self { peer: TcpStream::from_std(peer)?, tls, gone: 0 })
    }

    /// The peer's address.
    pub(super) fn remote(&self) -> io::Result<SocketAddr> {
        let remote = self.peer.peer_addr()?;
        Ok((remote.ip().to_canonical(), remote.port()).into())
    }

    /// Ours.
    pub(super) fn local(&self) -> io::Result<IpAddr> {
        Ok(self.peer.local_addr()?.ip().to_canonical())
    }

    /// The protocol that was agreed on (RFC 7301).
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// Finishes the handshake. What came behind it is in `inward`.
    pub(super) fn poll_greeting(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        inward: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        loop {
            let is_flushed = self.flush(cx)?;
            match (self.tls.is_handshaking(), is_flushed) {
                (false, true) => return Poll::Ready(Ok(())),
                (false, false) => return Poll::Pending,
                (true, _) => ready!(self.poll_read(cx, scratch, inward))?,
            }
        }
    }

    /// Reads once, to the end of `inward`.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        inward: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        let mut scratch = scratch.borrow_mut();
        let mut bytes = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.peer).poll_read(cx, &mut bytes))?;
        if bytes.filled().is_empty() {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        let opened = self.open(bytes.filled(), inward);
        if opened.is_err() {
            // An alert says why; it may not arrive.
            let _ = self.flush(cx);
        }
        Poll::Ready(opened)
    }

    fn open(&mut self, mut bytes: &[u8], inward: &mut Vec<u8>) -> io::Result<()> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let start = inward.len();
            inward.resize(start + state.plaintext_bytes_to_read(), 0);
            let room = inward.get_mut(start..).unwrap_or_default();
            self.tls.reader().read_exact(room)?;
            if state.peer_has_closed() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Writes records for as long as the socket takes them. Whether it took all.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket(&mut self.peer, cx)) {
                Ok(written) => self.gone += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether there are records that the socket did not take yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.tls.wants_write()
    }

    /// How many bytes it took.
    pub(super) fn gone(&self) -> u64 {
        self.gone
    }

    /// Takes a record's worth of bytes, after [`Tls::flush`] took all.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)
    }

    /// Says that no more follows.
    pub(super) fn close(&mut self) {
        self.tls.send_close_notify();
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
