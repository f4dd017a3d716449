//! What a TLS connection on the one port turns out to be: a link, or HTTPS. Framed media was taken
//! out before.
//!
//! ALPN tells it (RFC 7301). A client that names no protocol is told by its first bytes: those of a
//! link are a length below 16 KiB, so zero, and HTTP begins with a letter.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use strait_link::v1::ErrorCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::Links;
use super::wire::Stream;
use crate::http::front_door::{FrontDoor, refused};
use crate::limits;

/// TLS over TCP.
type Tls = <RustlsAcceptor as Accept<TcpStream, ()>>::Stream;

/// Sorts connections when TLS is up.
#[derive(Clone)]
pub struct LinkDoor {
    tls: RustlsAcceptor<FrontDoor>,
    links: Arc<Links>,
}

/// A stream of which the first byte was read already.
pub struct Opened {
    first: Option<u8>,
    stream: Tls,
}

impl LinkDoor {
    /// Takes links out of what `tls` lets in.
    pub fn new(tls: RustlsAcceptor<FrontDoor>, links: Arc<Links>) -> Self {
        Self { tls, links }
    }

    async fn sort(self, mut stream: Tls) -> io::Result<Opened> {
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let socket = stream.get_ref().0;
        let (address, port) =
            (socket.peer_addr()?.ip().to_canonical(), socket.local_addr()?.port());
        let first = match protocol.as_deref() {
            Some(strait_link::ALPN) => None,
            Some(_) => return Ok(Opened { first: None, stream }),
            None => {
                let first = timeout(limits::FRONT_DOOR_TIME, stream.read_u8()).await;
                Some(first.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
            }
        };
        let stream = Opened { first, stream };
        if first.is_some_and(|first| first != 0) {
            return Ok(stream);
        }
        tokio::spawn(self.links.serve(Box::new(stream), address, port));
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
        let accepting = self.tls.accept(stream, service);
        Box::pin(async move {
            let links = Arc::clone(&door.links);
            let opened = async {
                let _place = place?;
                let (stream, service) = accepting.await?;
                Ok((door.sort(stream).await?, service))
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() > 0
            && let Some(first) = self.first.take()
        {
            into.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
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
