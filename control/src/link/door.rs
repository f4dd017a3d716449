//! What a TLS connection on the one port turns out to be: a link, or HTTPS. Framed media and TURN were
//! taken out before.
//!
//! ALPN tells it (RFC 7301). A client that names no protocol is told by its first bytes: those of a
//! link are a length below 16 KiB, so zero, and HTTP begins with a letter. Which version of HTTP it is has
//! to be clear in time as well.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use strait_link::v1::ErrorCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracing::debug;

use super::Links;
use super::wire::Stream;
use crate::admission::Permit;
use crate::http::front_door::{Admitted, FrontDoor, refused};
use crate::limits;

/// TLS over TCP.
type Tls = <RustlsAcceptor as Accept<TcpStream, ()>>::Stream;

/// Sorts connections when TLS is up.
#[derive(Clone)]
pub struct LinkDoor {
    front: FrontDoor,
    tls: RustlsAcceptor,
    links: Arc<Links>,
}

/// What TLS names HTTP/2.
const HTTP2: &[u8] = b"h2";
/// What HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream of which the first byte may have been read already.
pub struct Opened {
    first: Option<u8>,
    stream: Inner,
    /// Of HTTPS, until it is clear.
    version: Option<Version>,
}

/// Which version of HTTP a client speaks. The server waits for that without a timer: who says nothing, or
/// a part of what HTTP/2 begins with, would hold its connection forever.
struct Version {
    /// Bytes that were those of HTTP/2.
    seen: usize,
    late: Pin<Box<Sleep>>,
}

/// What is said within TLS.
enum Inner {
    Tls(Box<Tls>),
    /// The relay speaks it. The place is held for as long.
    Back {
        stream: UnixStream,
        _place: Permit,
    },
}

impl Version {
    fn by(deadline: Instant) -> Self {
        Self { seen: 0, late: Box::pin(sleep_until(deadline)) }
    }

    /// Whether these bytes made it clear.
    fn is_clear(&mut self, bytes: &[u8]) -> bool {
        let rest = PREFACE.get(self.seen..).unwrap_or_default();
        self.seen += bytes.len();
        bytes.len() >= rest.len() || !rest.starts_with(bytes)
    }
}

impl LinkDoor {
    /// Takes links out of what `front` lets in, with which `tls` speaks.
    pub fn new(front: FrontDoor, tls: RustlsAcceptor, links: Arc<Links>) -> Self {
        Self { front, tls, links }
    }

    /// Speaks TLS with whom the front door lets in.
    async fn open<S: Send + 'static>(
        self,
        stream: TcpStream,
        service: S,
    ) -> io::Result<(Opened, S)> {
        let (address, port) =
            (stream.peer_addr()?.ip().to_canonical(), stream.local_addr()?.port());
        let (stream, service) = match self.front.clone().admit(stream).await? {
            Admitted::Tls(stream) => {
                let (stream, service) = self.tls.accept(stream, service).await?;
                (Inner::Tls(Box::new(stream)), service)
            }
            Admitted::Back(stream, place) => (Inner::Back { stream, _place: place }, service),
        };
        Ok((self.sort(stream, address, port).await?, service))
    }

    async fn sort(self, mut stream: Inner, address: IpAddr, port: u16) -> io::Result<Opened> {
        let protocol = match &stream {
            Inner::Tls(stream) => stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec),
            Inner::Back { .. } => None,
        };
        let deadline = Instant::now() + limits::FRONT_DOOR_TIME;
        let (first, deadline) = match protocol.as_deref() {
            Some(strait_link::ALPN) => (None, None),
            Some(HTTP2) => (None, Some(deadline)),
            // Browsers connect before they have something to ask.
            Some(_) => (None, Some(Instant::now() + limits::HEADER_TIME)),
            None => {
                let first = timeout_at(deadline, stream.read_u8()).await;
                let first = first.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                (Some(first), (first != 0).then_some(deadline))
            }
        };
        let stream = Opened { first, stream, version: deadline.map(Version::by) };
        if stream.version.is_some() {
            return Ok(stream);
        }
        tokio::spawn(self.links.serve(Box::new(stream), address, Some(port)));
        Err(refused("a link"))
    }
}

impl Stream for Opened {}

impl<S: Send + 'static> Accept<TcpStream, S> for LinkDoor {
    type Stream = Opened;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Opened, S)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let door = self.clone();
        let place = stream.peer_addr().map(|address| address.ip().to_canonical());
        let place = place.and_then(|address| door.links.opens(address));
        Box::pin(async move {
            let links = Arc::clone(&door.links);
            let opened = async {
                let _place = place?;
                door.open(stream, service).await
            };
            let opened: io::Result<_> = opened.await;
            if let Err(error) = &opened {
                debug!("connection ended: {error}");
                match error.kind() {
                    // Half-open TLS, or a client that never said what it is.
                    io::ErrorKind::TimedOut => links.counters().refused(ErrorCode::TimedOut),
                    io::ErrorKind::QuotaExceeded => links.counters().refused(ErrorCode::TooMany),
                    _ => {}
                }
            }
            opened
        })
    }
}

impl AsyncRead for Inner {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Back { stream, .. } => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let start = into.filled().len();
        if let Some(first) = this.first.take() {
            into.put_slice(&[first]);
        } else if Pin::new(&mut this.stream).poll_read(cx, into)?.is_pending() {
            let Some(version) = &mut this.version else { return Poll::Pending };
            return version.late.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        let read = into.filled().get(start..).unwrap_or_default();
        this.version.take_if(|version| version.is_clear(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Inner::Back { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Inner::Back { stream, .. } => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Inner::Tls(stream) => stream.is_write_vectored(),
            Inner::Back { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Back { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Back { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    use super::*;
    use crate::admission::Admission;

    /// A client, and what the server reads of it, which is patient for so long.
    fn opened(patience: Duration) -> (UnixStream, Opened) {
        let (client, server) = UnixStream::pair().unwrap();
        let place = Admission::new(1, 1).enter([192, 0, 2, 1].into()).ok().unwrap();
        let version = Some(Version::by(Instant::now() + patience));
        (
            client,
            Opened {
                first: Some(b'P'),
                stream: Inner::Back { stream: server, _place: place },
                version,
            },
        )
    }

    #[tokio::test]
    async fn who_does_not_say_which_version_it_speaks_is_sent_away() {
        for said in [&b""[..], &PREFACE[1..PREFACE.len() - 1]] {
            let (mut client, mut opened) = opened(Duration::from_millis(50));
            client.write_all(said).await.unwrap();
            let mut came = vec![0; 1 + said.len()];
            opened.read_exact(&mut came).await.unwrap();
            assert_eq!(came, PREFACE[..came.len()], "whatever was said is read");
            let late = timeout(Duration::from_secs(20), opened.read_u8()).await.unwrap();
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test]
    async fn who_said_so_has_time() {
        for said in [&PREFACE[1..], b"OST /", &[&PREFACE[1..], b"more"].concat()] {
            let (mut client, mut opened) = opened(Duration::ZERO);
            client.write_all(said).await.unwrap();
            let mut came = vec![0; 1 + said.len()];
            // In pieces of whatever size.
            let (one, rest) = came.split_at_mut(2);
            opened.read_exact(one).await.unwrap();
            opened.read_exact(rest).await.unwrap();
            assert!(opened.version.is_none(), "{said:?}");
            let late = timeout(Duration::from_millis(20), opened.read_u8()).await;
            assert!(late.is_err(), "nothing ends it here");
        }
    }
}
