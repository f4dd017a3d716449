//! The link over QUIC: messages on a stream, media as datagrams.

use crate::error::Error;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long QUIC is waited for before TLS over TCP is opened: where UDP is blocked, media must flow 3 s after the start.
const PATIENCE: Duration = Duration::from_millis(800);
/// Bytes that may wait to be sent; the other side reads too slowly beyond.
const WAITING: usize = 4 << 20;
/// Bytes of media each way that wait; the oldest goes first.
const MEDIA: usize = 256 << 10;
/// Silence after which the connection is over; the link's pings are more often.
const SILENCE: Duration = Duration::from_secs(60);

/// After so much silence the node is asked for a sign of life. One that was killed and started again says that it knows
/// nothing of the connection, and the link is tried again; by silence that would be found out after its reconnect time.
const SIGN_OF_LIFE: Duration = Duration::from_millis(1500);

/// An open link.
pub struct Quic {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// What the stream did not take yet.
    waiting: Vec<u8>,
}

/// What came.
pub enum Came {
    /// Of the messages' stream; none where something was merely written.
    Bytes(Vec<u8>),
    /// A packet of media.
    Packet(Vec<u8>),
}

impl Quic {
    /// Connects to the first address of `host` that answers.
    ///
    /// # Errors
    /// None did in time, or the node is not trusted.
    pub async fn connect(
        host: &str,
        port: u16,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, Error> {
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| broken(&error))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(SILENCE.try_into().map_err(|error| broken(&error))?))
            .keep_alive_interval(Some(SIGN_OF_LIFE))
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(Some(MEDIA))
            .datagram_send_buffer_size(MEDIA);
        config.transport_config(Arc::new(transport));
        let attempts = async {
            let mut last = broken("the name has no address");
            for address in tokio::net::lookup_host((host, port)).await.map_err(|e| broken(&e))? {
                match open(address, host, config.clone()).await {
                    Ok(link) => return Ok(link),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let silent = |_| broken("no answer");
        tokio::time::timeout(PATIENCE, attempts).await.map_err(silent)?
    }

    /// Where the node is.
    #[must_use]
    pub fn node(&self) -> IpAddr {
        self.connection.remote_address().ip()
    }

    /// Waits until something came or was written. Cancelled without loss.
    ///
    /// # Errors
    /// The connection ended or broke.
    pub async fn turn(&mut self) -> Result<Came, Error> {
        let mut bytes = [0; 16 << 10];
        let is_waiting = !self.waiting.is_empty();
        tokio::select! {
            read = self.receive.read(&mut bytes) => match read {
                Ok(Some(len)) => Ok(Came::Bytes(bytes.get(..len).unwrap_or_default().to_vec())),
                Ok(None) => Err(broken("the other side closed it")),
                Err(error) => Err(broken(&error)),
            },
            packet = self.connection.read_datagram() => match packet {
                Ok(packet) => Ok(Came::Packet(packet.to_vec())),
                Err(error) => Err(broken(&error)),
            },
            written = self.send.write(&self.waiting), if is_waiting => {
                let written = written.map_err(|error| broken(&error))?;
                self.waiting.drain(..written);
                Ok(Came::Bytes(Vec::new()))
            }
        }
    }

    /// Sends bytes of messages, as soon as [`Quic::turn`] may.
    ///
    /// # Errors
    /// The other side reads too slowly.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.waiting.len() > WAITING {
            return Err(broken("the node reads too slowly"));
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes of messages that wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sends a packet of media.
    ///
    /// # Errors
    /// The packet, where it is too large for a datagram here.
    pub fn send_packet(&self, packet: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.connection.max_datagram_size() {
            Some(most) if packet.len() <= most => {
                // One that finds no connection is lost with it.
                let _lost = self.connection.send_datagram(packet.into());
                Ok(())
            }
            _ => Err(packet),
        }
    }

    /// Sends what waits, and tells the other side that nothing follows.
    pub async fn close(mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if self.send.write_all(&waiting).await.is_ok() && self.send.finish().is_ok() {
            let _ended = self.send.stopped().await;
        }
        self.connection.close(VarInt::from_u32(0), b"");
        self.endpoint.wait_idle().await;
    }
}

async fn open(address: SocketAddr, host: &str, config: ClientConfig) -> Result<Quic, Error> {
    let any: IpAddr = match address.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = Endpoint::client((any, 0).into()).map_err(|error| broken(&error))?;
    let connecting = endpoint.connect_with(config, address, host).map_err(|e| broken(&e))?;
    let connection = connecting.await.map_err(|error| broken(&error))?;
    let (send, receive) = connection.open_bi().await.map_err(|error| broken(&error))?;
    Ok(Quic { endpoint, connection, send, receive, waiting: Vec::new() })
}

fn broken(why: &(impl std::fmt::Display + ?Sized)) -> Error {
    Error::Connect { what: "the link over QUIC".into(), why: why.to_string() }
}
