//! The way to a node through proxies: SOCKS5 (RFC 1928) and HTTP CONNECT (RFC 9110 section 9.3.6).

mod digest;
mod http;
mod negotiate;
mod socks;

use crate::error::Error;
use std::fmt;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub use socks::UdpRelay;

/// What a proxy may answer, before the connection stands.
const ANSWER_BYTES: usize = 16 << 10;
/// Questions and answers, over however many connections.
const ROUNDS: usize = 8;

/// A proxy. Its `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// What it speaks.
    pub kind: Kind,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User and password; without, none are offered.
    pub credentials: Option<(String, String)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = format!("{}:{}", self.host, self.port);
        f.debug_struct("Proxy").field("kind", &self.kind).field("place", &place).finish()
    }
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SOCKS5 for the link, and for datagrams if it takes them.
    Socks5,
    /// HTTP CONNECT for the link; media then goes over the link. Basic and digest authentication, as the proxy asks;
    /// with a ticket of Kerberos (feature `negotiate`) where no credentials are given, or none that it takes.
    Http,
}

/// What is to be done next in a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this, and read on.
    Send(Vec<u8>),
    /// Read on.
    More,
    /// Connect anew, and send this.
    Again(Vec<u8>),
    /// Get a ticket for [`Handshake::on_ticket`].
    Ticket,
    /// The connection stands, with these bytes read beyond.
    Done(Vec<u8>),
}

/// A handshake without a socket.
pub(crate) trait Handshake {
    /// Takes what was read; the first time nothing.
    fn on_bytes(&mut self, bytes: &[u8]) -> Result<Step, Error>;

    /// Takes the ticket that it asked for.
    fn on_ticket(&mut self, _ticket: &[u8]) -> Step {
        Step::More
    }
}

/// Where a link goes, and through what.
#[derive(Clone, Debug)]
pub struct Route {
    /// The node.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What stands between.
    pub proxy: Option<Proxy>,
}

impl Route {
    /// Connects.
    ///
    /// # Errors
    /// The node or the proxy cannot be reached, or the proxy does not let us through: each its own.
    pub async fn connect(&self) -> Result<(TcpStream, Option<UdpRelay>), Error> {
        let Some(proxy) = &self.proxy else {
            return Ok((tcp(&self.host, self.port).await?, None));
        };
        match proxy.kind {
            Kind::Http => {
                let credentials = proxy.credentials.clone();
                let mut nonce = [0; 16];
                let _filled = aws_lc_rs::rand::fill(&mut nonce);
                let mut handshake = http::Connect::new(&self.host, self.port, credentials, nonce);
                Ok((through(proxy, &mut handshake).await?, None))
            }
            Kind::Socks5 => {
                let mut connect = socks::Socks::connect(&self.host, self.port, proxy);
                let stream = through(proxy, &mut connect).await?;
                Ok((stream, relay(proxy).await))
            }
        }
    }
}

/// A way for datagrams, where the proxy has one; media goes over the link otherwise.
async fn relay(proxy: &Proxy) -> Option<UdpRelay> {
    let mut associate = socks::Socks::associate(proxy);
    let stream = through(proxy, &mut associate).await.ok()?;
    let mut address = associate.bound()?;
    if address.ip().is_unspecified() {
        address = SocketAddr::new(stream.peer_addr().ok()?.ip(), address.port());
    }
    Some(UdpRelay { address, _connection: Some(stream) })
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Error> {
    TcpStream::connect((host, port))
        .await
        .map_err(|error| Error::Connect { what: format!("{host}:{port}"), why: error.to_string() })
}

async fn through(
    proxy: &Proxy,
    handshake: &mut (dyn Handshake + Send),
) -> Result<TcpStream, Error> {
    let broken = |error: std::io::Error| Error::Proxy(error.to_string());
    let mut stream = tcp(&proxy.host, proxy.port).await?;
    let mut step = handshake.on_bytes(&[])?;
    let (mut rounds, mut read) = (0, 0);
    loop {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await.map_err(broken)?,
            Step::More => {}
            Step::Ticket => {
                step = handshake.on_ticket(&negotiate::ticket(&proxy.host).await?);
                continue;
            }
            Step::Again(bytes) => {
                stream = tcp(&proxy.host, proxy.port).await?;
                stream.write_all(&bytes).await.map_err(broken)?;
            }
            Step::Done(rest) if rest.is_empty() => return Ok(stream),
            Step::Done(_) => {
                return Err(Error::Proxy("it sent more than its answer: it is no proxy".into()));
            }
        }
        let mut bytes = [0; 2048];
        let len = stream.read(&mut bytes).await.map_err(broken)?;
        (rounds, read) = (rounds + 1, read + len);
        if len == 0 {
            return Err(Error::Proxy("it closed the connection".into()));
        }
        if rounds > ROUNDS * 16 || read > ROUNDS * ANSWER_BYTES {
            return Err(Error::Proxy("its answer has no end".into()));
        }
        step = handshake.on_bytes(bytes.get(..len).unwrap_or_default())?;
    }
}
