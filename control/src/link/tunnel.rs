//! Media over a link: a connection to the relay's ICE-TCP listener, in RFC 4571 framing.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::admission::Permit;
use crate::limits;

/// Bytes of a frame's length (RFC 4571 section 2).
const LENGTH_BYTES: usize = 2;

/// One client's media on its way between link and relay.
pub struct Tunnel {
    stream: TcpStream,
    /// What came from the relay, up to a whole frame.
    read: Vec<u8>,
    out: Vec<u8>,
    used: Instant,
    _place: Permit,
}

impl Tunnel {
    /// Connects to the relay, whose connections have `place`s.
    ///
    /// # Errors
    /// It does not listen, or not in time.
    pub async fn open(relay: SocketAddr, _place: Permit) -> io::Result<Self> {
        let stream = timeout(limits::RELAY_CALL, TcpStream::connect(relay)).await??;
        stream.set_nodelay(true)?;
        let (read, out) = Default::default();
        Ok(Self { stream, read, out, used: Instant::now(), _place })
    }

    /// Takes a packet of the client. False when it is dropped: it is too large, or too much waits.
    pub fn send(&mut self, packet: &[u8]) -> bool {
        self.used = Instant::now();
        let waiting = self.out.len();
        let length = u16::try_from(packet.len()).ok();
        let length = length.filter(|_| packet.len() <= limits::MEDIA_PACKET_BYTES);
        match length {
            Some(length) if waiting <= limits::LINK_MEDIA_BYTES => {
                self.out.extend_from_slice(&length.to_be_bytes());
                self.out.extend_from_slice(packet);
                true
            }
            _ => false,
        }
    }

    /// When the client sent last.
    pub fn used(&self) -> Instant {
        self.used
    }

    /// The next packet of the relay; meanwhile writes what waits. Nothing is lost when it is
    /// dropped.
    ///
    /// # Errors
    /// The relay closed the connection.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        while let Some(rest) = Some(self.out.as_slice()).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.out.drain(..written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        loop {
            if let Some(packet) = self.take() {
                return Poll::Ready(Ok(packet));
            }
            let mut bytes = [0; limits::LINK_READ_BYTES];
            let mut bytes = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut bytes) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(())) => self.read.extend_from_slice(bytes.filled()),
            }
        }
    }

    /// A whole frame that came.
    fn take(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.read.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let packet = rest.get(..length)?.to_vec();
        self.read.drain(..LENGTH_BYTES + length);
        Some(packet)
    }
}
