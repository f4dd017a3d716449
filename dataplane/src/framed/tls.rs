//! TLS on a connection that was taken over. Nothing waits: who asks is woken when there is more.

use super::Shared;
use super::kernel::{Records, Stream};
use crate::limits::{FRAMED_READ_BYTES, FRAMED_UNSENT_BYTES};
use rustls::{ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use strait_io::ktls;
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
    by: By,
    /// Bytes that the socket took.
    gone: u64,
    /// The peer said that no more follows, behind something that was not read yet.
    is_over: bool,
}

/// Who has the keys.
enum By {
    Process(Box<ServerConnection>, Option<Offer>),
    Kernel(Stream),
    /// They were lost on the way.
    Nobody,
}

/// What it takes to give them to the kernel.
struct Offer {
    shared: Arc<Shared>,
    records: Records,
    /// Strangers' connections stay with rustls: what strangers send is nothing for a kernel.
    is_known: bool,
}

/// The same on its way to another thread.
pub(super) struct Moving {
    peer: std::net::TcpStream,
    by: By,
    is_over: bool,
}

impl Tls {
    /// For a connection that does not block.
    pub(super) fn new(
        peer: std::net::TcpStream,
        tls: Arc<ServerConfig>,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        peer.set_nodelay(true)?;
        strait_io::limit_unsent(&peer, FRAMED_UNSENT_BYTES)?;
        let tls = ServerConnection::new(tls).map_err(io::Error::other)?;
        let offer = shared.kernel.is_there().then(|| Offer {
            shared: Arc::clone(shared),
            records: Records::default(),
            is_known: false,
        });
        let by = By::Process(Box::new(tls), offer);
        Ok(Self { peer: TcpStream::from_std(peer)?, by, gone: 0, is_over: false })
    }

    pub(super) fn leave(self) -> io::Result<Moving> {
        Ok(Moving { peer: self.peer.into_std()?, by: self.by, is_over: self.is_over })
    }

    /// It is no stranger's any more.
    pub(super) fn arrive(Moving { peer, mut by, is_over }: Moving) -> io::Result<Self> {
        if let By::Process(tls, offer) = &mut by {
            let suite = tls.negotiated_cipher_suite();
            *offer = offer.take().filter(|offer| offer.shared.kernel.takes(suite));
            offer.iter_mut().for_each(|offer| offer.is_known = true);
        }
        Ok(Self { peer: TcpStream::from_std(peer)?, by, gone: 0, is_over })
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

    /// The protocol that was agreed on (RFC 7301), while rustls knows it.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        match &self.by {
            By::Process(tls, _) => tls.alpn_protocol(),
            By::Kernel(_) | By::Nobody => None,
        }
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
            let is_handshaking = matches!(&self.by, By::Process(tls, _) if tls.is_handshaking());
            match (is_handshaking, is_flushed) {
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
        if self.is_over {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        let mut scratch = scratch.borrow_mut();
        let (tls, offer) = match &mut self.by {
            By::Process(tls, offer) => (tls, offer),
            By::Kernel(stream) => return stream.poll_read(&self.peer, cx, &mut scratch, inward),
            By::Nobody => return Poll::Ready(Err(ErrorKind::NotConnected.into())),
        };
        // What rustls has read of a record that is not whole, the kernel would miss.
        let most = offer.as_ref().map_or(usize::MAX, |offer| offer.records.wanted());
        let room = most.min(scratch.len());
        let mut bytes = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.peer).poll_read(cx, &mut bytes))?;
        if bytes.filled().is_empty() {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        if let Some(offer) = offer {
            offer.records.took(bytes.filled());
        }
        let before = inward.len();
        let opened = open(tls, bytes.filled(), inward).and_then(|is_over| {
            self.is_over = is_over;
            match is_over && inward.len() == before {
                true => Err(ErrorKind::UnexpectedEof.into()),
                false => Ok(()),
            }
        });
        if opened.is_err() {
            // An alert says why; it may not arrive.
            let _ = self.flush(cx);
        }
        Poll::Ready(opened)
    }

    /// Writes records for as long as the socket takes them. Whether it took all.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        match &mut self.by {
            By::Process(tls, _) => {
                // rustls answers new keys of the peer's (RFC 8446 section 4.6.3) with the next data, which is the
                // kernel's by then: nothing at all brings the answer out.
                let _ended = tls.writer().write(&[]);
                while tls.wants_write() {
                    match tls.write_tls(&mut Socket(&mut self.peer, cx)) {
                        Ok(written) => self.gone += written as u64,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                        Err(error) => return Err(error),
                    }
                }
                self.give_to_kernel()?;
                Ok(true)
            }
            By::Kernel(stream) => stream.flush(&self.peer, cx),
            By::Nobody => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Gives the keys to the kernel if it takes them now, when nothing of rustls' waits to be sent: at the end of a record, of
    /// which all was read.
    fn give_to_kernel(&mut self) -> io::Result<()> {
        let By::Process(tls, offer) = &mut self.by else { return Ok(()) };
        let is_now = |offer: &mut Offer| offer.is_known && offer.records.is_between();
        let Some(Offer { shared, .. }) = offer.take_if(is_now) else { return Ok(()) };
        if tls.is_handshaking() || ktls::attach(&self.peer).is_err() {
            return Ok(());
        }
        if let By::Process(tls, _) = mem::replace(&mut self.by, By::Nobody) {
            self.by = By::Kernel(Stream::new(&self.peer, *tls, &shared)?);
        }
        Ok(())
    }

    /// Whether there are records that the socket did not take yet.
    pub(super) fn is_waiting(&self) -> bool {
        match &self.by {
            By::Process(tls, _) => tls.wants_write(),
            By::Kernel(stream) => stream.is_waiting(),
            By::Nobody => false,
        }
    }

    /// How many bytes it took, of those that rustls encrypted.
    pub(super) fn gone(&self) -> u64 {
        self.gone
    }

    /// Takes a record's worth of bytes, after [`Tls::flush`] took all.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.by {
            By::Process(tls, _) => tls.writer().write_all(bytes),
            By::Kernel(stream) => stream.write(&self.peer, bytes),
            By::Nobody => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Says that no more follows, and closes this direction when the socket took all. Whether it did.
    pub(super) fn close(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        match &mut self.by {
            By::Process(tls, _) => tls.send_close_notify(),
            By::Kernel(stream) => stream.close(&self.peer),
            By::Nobody => {}
        }
        if !self.flush(cx)? {
            return Ok(false);
        }
        match Pin::new(&mut self.peer).poll_shutdown(cx) {
            Poll::Ready(Err(error)) if error.kind() != ErrorKind::NotConnected => Err(error),
            _ => Ok(true),
        }
    }
}

/// Whether the peer said that no more follows.
fn open(tls: &mut ServerConnection, mut bytes: &[u8], inward: &mut Vec<u8>) -> io::Result<bool> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let start = inward.len();
        inward.resize(start + state.plaintext_bytes_to_read(), 0);
        let room = inward.get_mut(start..).unwrap_or_default();
        tls.reader().read_exact(room)?;
        if state.peer_has_closed() {
            return Ok(true);
        }
    }
    Ok(false)
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
