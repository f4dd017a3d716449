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
use socket2::SockRef;
use strait_link::v1::ErrorCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::Links;
use super::wire::Stream;
use crate::admission::Permit;
use crate::http::front_door::{Admitted, FrontDoor, refused};
use crate::http::timed::{Answering, Ended, Patience, Timed};
use crate::limits;

/// Sorts connections when TLS is up.
#[derive(Clone)]
pub struct LinkDoor {
    front: FrontDoor,
    tls: RustlsAcceptor,
    links: Arc<Links>,
    ended: Arc<Ended>,
}

/// What TLS names HTTP/2.
const HTTP2: &[u8] = b"h2";

/// A stream of which the first byte may have been read already.
pub struct Opened {
    first: Option<u8>,
    stream: Box<dyn Stream>,
    /// Held for as long, where the relay speaks TLS.
    _place: Option<Permit>,
}

impl LinkDoor {
    /// Takes links out of what `front` lets in, with which `tls` speaks. HTTPS that has to end is
    /// counted in `ended`.
    pub fn new(
        front: FrontDoor,
        tls: RustlsAcceptor,
        links: Arc<Links>,
        ended: Arc<Ended>,
    ) -> Self {
        Self { front, tls, links, ended }
    }

    /// Speaks TLS with whom the front door lets in.
    async fn open<S: Send + 'static>(
        self,
        stream: TcpStream,
        service: S,
    ) -> io::Result<(Timed<Opened>, Answering<S>)> {
        let (address, port) =
            (stream.peer_addr()?.ip().to_canonical(), stream.local_addr()?.port());
        let (stream, protocol, place, service) = match self.front.clone().admit(stream).await? {
            Admitted::Tls(stream) => {
                let (stream, service) = self.tls.accept(stream, service).await?;
                let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                (Box::new(stream) as Box<dyn Stream>, protocol, None, service)
            }
            Admitted::Back(stream, place) => (Box::new(stream) as _, None, Some(place), service),
        };
        let stream = Opened { first: None, stream, _place: place };
        let ended = Arc::clone(&self.ended);
        let (stream, deadline) = self.sort(stream, protocol.as_deref(), address, port).await?;
        Ok(Timed::new(stream, service, Patience::until(deadline), &ended))
    }

    /// HTTPS, and by when its version has to be clear.
    async fn sort(
        self,
        mut stream: Opened,
        protocol: Option<&[u8]>,
        address: IpAddr,
        port: u16,
    ) -> io::Result<(Opened, Instant)> {
        let deadline = Instant::now() + limits::FRONT_DOOR_TIME;
        let deadline = match protocol {
            Some(strait_link::ALPN) => None,
            Some(HTTP2) => Some(deadline),
            // Browsers connect before they have something to ask.
            Some(_) => Some(Instant::now() + limits::HEADER_TIME),
            None => {
                let first = timeout_at(deadline, stream.stream.read_u8()).await;
                let first = first.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                stream.first = Some(first);
                (first != 0).then_some(deadline)
            }
        };
        if let Some(deadline) = deadline {
            return Ok((stream, deadline));
        }
        tokio::spawn(self.links.serve(Box::new(stream), address, Some(port)));
        Err(refused("a link"))
    }
}

impl Stream for TlsStream<TcpStream> {
    fn limit_unsent(&mut self, bytes: Option<usize>) {
        let (socket, session) = self.get_mut();
        if let Some(bytes) = bytes {
            session.set_buffer_limit(Some(bytes));
        }
        // 0 is what the system has for all. It is a matter of speed: where it cannot be, things go on.
        let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0);
        let _refused = SockRef::from(&*socket).set_tcp_notsent_lowat(bytes);
    }
}

// The relay, which speaks TLS for us, keeps little as well.
impl Stream for UnixStream {
    fn limit_unsent(&mut self, bytes: Option<usize>) {
        let bytes = bytes.unwrap_or(limits::LINK_OUT_BYTES);
        let _refused = SockRef::from(&*self).set_send_buffer_size(bytes);
    }
}

impl Stream for Opened {
    fn limit_unsent(&mut self, bytes: Option<usize>) {
        self.stream.limit_unsent(bytes);
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for LinkDoor {
    type Stream = Timed<Opened>;
    type Service = Answering<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Timed<Opened>, Answering<S>)>> + Send>>;

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

impl AsyncRead for Opened {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() > 0
            && let Some(first) = this.first.take()
        {
            into.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
