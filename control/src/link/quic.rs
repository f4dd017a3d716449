//! Links over QUIC (RFC 9000): the first stream that the client opens carries the messages,
//! datagrams (RFC 9221) the media, a packet each. A client that gets another address, or whose NAT
//! gives it another port, keeps its link.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Incoming,
    RecvStream, SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use strait_link::v1::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::debug;

use super::Links;
use super::counters::count;
use super::wire::Stream;
use crate::limits;

/// What a connection ends with that never became a link, and one of which the last message says why.
const REFUSED: VarInt = VarInt::from_u32(1);
const DONE: VarInt = VarInt::from_u32(0);
/// And one of which the client did not read the last messages in time.
const UNREAD: VarInt = VarInt::from_u32(2);

/// Serves QUIC at a socket, with the certificate of HTTPS. By the secret, of this place alone and the same
/// after a restart, who is connected to a process of before learns that it is gone (RFC 9000 section 10.3).
///
/// # Errors
/// The socket or the certificate cannot be used for it.
pub fn listen(
    socket: UdpSocket,
    tls: &rustls::ServerConfig,
    secret: &[u8],
    ping_time: Duration,
) -> io::Result<Endpoint> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![strait_link::ALPN.to_vec()];
    // What was sent early could be sent again by another.
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport(ping_time)?));
    server.max_incoming(limits::QUIC_HALF_OPEN).incoming_buffer_size(limits::QUIC_EARLY_BYTES);
    // The system's own, where it gives no more: bursts are then lost as on any line.
    let sock = socket2::SockRef::from(&socket);
    let _refused = sock.set_recv_buffer_size(limits::QUIC_SOCKET_BYTES);
    let _refused = sock.set_send_buffer_size(limits::QUIC_SOCKET_BYTES);
    let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)));
    endpoint.cid_generator(|| Box::new(Ids)).min_reset_interval(limits::QUIC_RESET_INTERVAL);
    Endpoint::new(endpoint, Some(server), socket, Arc::new(TokioRuntime))
}

/// Identifiers of connections. quinn's own are known to the process that made them alone: it resets none
/// of another's.
struct Ids;

/// As many bytes as quinn's own have.
const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        // It fails only where the system has no randomness at all, and then there is no TLS either.
        let _filled = rand::fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport(ping_time: Duration) -> io::Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = (3 * ping_time).max(limits::LINK_MEDIA_IDLE);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(window(strait_link::MESSAGE_BYTES))
        .receive_window(window(strait_link::MESSAGE_BYTES))
        .send_window(limits::LINK_MEDIA_BYTES as u64)
        .datagram_receive_buffer_size(Some(limits::LINK_MEDIA_BYTES))
        .datagram_send_buffer_size(limits::LINK_MEDIA_BYTES)
        .max_idle_timeout(Some(idle.try_into().map_err(io::Error::other)?));
    Ok(transport)
}

fn window(bytes: usize) -> VarInt {
    VarInt::try_from(bytes as u64).unwrap_or(VarInt::MAX)
}

/// Takes links until the process ends, then waits until the last ones were told so. Framed media of
/// their clients comes to `port`, that of HTTPS: there is no TLS over TCP at this one.
///
/// # Errors
/// The socket broke.
pub async fn serve(
    endpoint: Endpoint,
    links: Arc<Links>,
    port: Option<u16>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let half_open = Arc::new(Semaphore::new(limits::QUIC_HALF_OPEN));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            _ = shutdown.wait_for(|is_over| *is_over) => break,
        };
        let Some(incoming) = incoming else {
            return Err(io::Error::other("the QUIC endpoint is closed"));
        };
        take(&links, &half_open, incoming, port);
    }
    endpoint.set_server_config(None);
    let patience = match links.leaves_sessions() {
        true => limits::LINK_PARTING_TIME,
        false => limits::LINK_CLOSE_TIME,
    };
    let _late = timeout(patience, endpoint.wait_idle()).await;
    endpoint.close(DONE, b"the server is ending");
    // Whoever is out of reach does not hold up the rest.
    let _late = timeout(patience, endpoint.wait_idle()).await;
    Ok(())
}

/// Decides about a connection of which only the first datagram came. Its address may be forged:
/// where many are half open, whoever comes has to show first that it gets what is sent there.
fn take(links: &Arc<Links>, half_open: &Arc<Semaphore>, incoming: Incoming, port: Option<u16>) {
    // What it holds, until it is a link.
    let place: Box<dyn Send> = if incoming.remote_address_validated() {
        match links.opens(incoming.remote_address().ip().to_canonical()) {
            Ok(place) => Box::new(place),
            Err(error) => {
                debug!("QUIC: {error}");
                links.counters().refused(ErrorCode::TooMany);
                return incoming.refuse();
            }
        }
    } else {
        match Arc::clone(half_open).try_acquire_owned() {
            Ok(place) => Box::new(place),
            Err(_) => {
                count(&links.counters().quic_retries);
                // It refuses who was asked before, and such are validated.
                let _asked = incoming.retry();
                return;
            }
        }
    };
    let links = Arc::clone(links);
    tokio::spawn(async move {
        let opened = open(incoming).await;
        drop(place);
        match opened {
            Ok(Some((stream, address))) => {
                links.serve(Box::new(stream), address.ip().to_canonical(), port).await;
            }
            Err(error) => debug!("QUIC: {error}"),
            Ok(None) => links.counters().refused(ErrorCode::TimedOut),
        }
    });
}

/// None when too little comes in time. A client that gets this far is told.
async fn open(
    incoming: Incoming,
) -> Result<Option<(QuicStream, SocketAddr)>, quinn::ConnectionError> {
    let Ok(connection) = timeout(limits::FRONT_DOOR_TIME, incoming.into_future()).await else {
        return Ok(None);
    };
    let connection = connection?;
    let Ok(stream) = timeout(limits::AUTH_TIME, connection.accept_bi()).await else {
        let seconds = limits::AUTH_TIME.as_secs();
        let reason = format!("no stream within {seconds} s; open one and send Auth");
        connection.close(REFUSED, reason.as_bytes());
        return Ok(None);
    };
    let (send, receive) = stream?;
    let address = connection.remote_address();
    Ok(Some((QuicStream::new(connection, send, receive), address)))
}

type Receiving = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send>>;
type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The messages' stream, and the connection that it is of.
struct QuicStream {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    packet: Receiving,
    /// The end was sent; waits until the client has all.
    ending: Option<Ending>,
}

impl QuicStream {
    fn new(connection: Connection, send: SendStream, receive: RecvStream) -> Self {
        let packet = next_packet(connection.clone());
        Self { connection, send, receive, packet, ending: None }
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        self.connection.close(DONE, b"");
    }
}

fn next_packet(connection: Connection) -> Receiving {
    Box::pin(async move { Ok(connection.read_datagram().await?.to_vec()) })
}

impl Stream for QuicStream {
    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let packet = ready!(self.packet.as_mut().poll(cx));
        self.packet = next_packet(self.connection.clone());
        Poll::Ready(packet)
    }

    fn send_packet(&mut self, packet: Vec<u8>) -> Result<(), Vec<u8>> {
        // What the path does not carry in one piece goes over the stream.
        match self.connection.max_datagram_size() {
            Some(most) if packet.len() <= most => {
                // One that finds no room pushes the oldest out; one that finds no connection is
                // lost with it.
                let _lost = self.connection.send_datagram(packet.into());
                Ok(())
            }
            _ => Err(packet),
        }
    }

    fn give_up(&mut self) {
        self.connection.close(UNREAD, b"the last messages were not read in time");
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, into)
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Done when the client has all: a connection that is dropped takes what is under way with it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_none() {
            self.send.finish().map_err(io::Error::other)?;
            let stopped = self.send.stopped();
            self.ending = Some(Box::pin(async move { drop(stopped.await) }));
        }
        match &mut self.ending {
            Some(ending) => ending.as_mut().poll(cx).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}
