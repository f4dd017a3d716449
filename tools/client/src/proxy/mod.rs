//! The way to a node through proxies: SOCKS5 (RFC 1928) and HTTP CONNECT (RFC 9110 section 9.3.6).

mod challenge;
mod digest;
mod http;
mod negotiate;
mod socks;

use crate::core::resolver::Place;
use crate::error::Error;
use crate::tls::is_host;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use socks::UdpRelay;

/// What a proxy may answer, before the connection stands.
const ANSWER_BYTES: usize = 16 << 10;
/// Questions and answers, over however many connections.
const ROUNDS: usize = 8;
/// A proxy that says nothing for so long is given up: before the 15 s that a node has to let the client in, of which it
/// would be said that the node did not.
const PATIENCE: Duration = Duration::from_secs(10);
/// The link waits so long for the proxy's way for datagrams, without which it does as well.
const RELAY: Duration = Duration::from_secs(5);
/// Bytes of user and of password that SOCKS5 can say (RFC 1929 section 2).
const SOCKS_BYTES: std::ops::RangeInclusive<usize> = 1..=255;

/// A proxy. Its `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// What it speaks.
    pub kind: Kind,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User and password; without, none are offered. They hold no control characters, and are 1 to 255 bytes each for SOCKS5.
    pub credentials: Option<(String, String)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place().to_string();
        f.debug_struct("Proxy").field("kind", &self.kind).field("place", &place).finish()
    }
}

impl Proxy {
    /// Whether it can be asked at all.
    pub(crate) fn check(&self) -> Result<(), Error> {
        // The zone of a link-local address (RFC 4007 section 11) is for this machine alone.
        let host = self.host.split_once('%').map_or(self.host.as_str(), |(address, _)| address);
        if !is_host(host) || self.port == 0 {
            let why = "is no place: name its host alone, and its port";
            return Err(Error::Malformed(format!(
                "the proxy {:?} {why}",
                self.place().to_string()
            )));
        }
        let credentials = self.credentials.as_ref();
        let parts = credentials.map(|(user, password)| [("user", user), ("password", password)]);
        for (what, text) in parts.into_iter().flatten() {
            // RFC 7617 section 2. In a header they would say what nobody meant.
            if text.contains(char::is_control) {
                let why = "holds control characters, such as the end of a line: leave them out";
                return Err(Error::Malformed(format!("the proxy's {what} {why}")));
            }
            if self.kind == Kind::Socks5 && !SOCKS_BYTES.contains(&text.len()) {
                let (bytes, why) = (text.len(), "bytes, SOCKS5 takes 1 to 255");
                return Err(Error::Malformed(format!("the proxy's {what} has {bytes} {why}")));
            }
        }
        Ok(())
    }

    fn place(&self) -> Place {
        Place { host: self.host.clone(), port: self.port }
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
    /// Connects; with `udp` also to the way for datagrams that the proxy may have.
    ///
    /// # Errors
    /// The node or the proxy cannot be reached, or the proxy does not let us through: each its own.
    pub async fn connect(&self, udp: bool) -> Result<(TcpStream, Option<UdpRelay>), Error> {
        let Self { host, port, proxy } = self;
        let what = || Place { host: host.clone(), port: *port }.to_string();
        let Some(proxy) = proxy else {
            let connected = TcpStream::connect((host.as_str(), *port)).await;
            let stream = connected
                .map_err(|error| Error::Connect { what: what(), why: error.to_string() })?;
            return Ok((stream, None));
        };
        // It becomes a part of what is said to the proxy.
        if !is_host(host) {
            return Err(Error::Connect { what: what(), why: "this is no name".into() });
        }
        match proxy.kind {
            Kind::Http => {
                let credentials = proxy.credentials.clone();
                let mut nonce = [0; 16];
                let _filled = aws_lc_rs::rand::fill(&mut nonce);
                let mut handshake = http::Connect::new(host, *port, credentials, nonce);
                Ok((through(proxy, &mut handshake, PATIENCE).await?, None))
            }
            Kind::Socks5 => {
                let mut connect = socks::Socks::connect(host, *port, proxy);
                let stream = through(proxy, &mut connect, PATIENCE).await?;
                let relay = if udp { relay(proxy).await } else { None };
                Ok((stream, relay))
            }
        }
    }
}

/// A way for datagrams, where the proxy has one; media goes over the link otherwise.
async fn relay(proxy: &Proxy) -> Option<UdpRelay> {
    let mut associate = socks::Socks::associate(proxy);
    let stream = timeout(RELAY, through(proxy, &mut associate, RELAY)).await.ok()?.ok()?;
    let mut address = associate.bound()?;
    if address.ip().is_unspecified() {
        address = SocketAddr::new(stream.peer_addr().ok()?.ip(), address.port());
    }
    Some(UdpRelay { address, _connection: Some(stream) })
}

/// To the proxy itself.
async fn tcp(proxy: &Proxy, patience: Duration) -> Result<TcpStream, Error> {
    let connecting = TcpStream::connect((proxy.host.as_str(), proxy.port));
    let why = match timeout(patience, connecting).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".into(),
    };
    let place = proxy.place();
    Err(Error::Proxy(format!("none is at {place} ({why}): are its host and port right?")))
}

async fn through(
    proxy: &Proxy,
    handshake: &mut (dyn Handshake + Send),
    patience: Duration,
) -> Result<TcpStream, Error> {
    let broken = |error: std::io::Error| Error::Proxy(error.to_string());
    let silent = |_| {
        let (place, seconds) = (proxy.place(), patience.as_secs_f32());
        let why = "it is no proxy of this kind, or the node behind it is silent";
        Error::Proxy(format!("{place} says nothing for {seconds} s: {why}"))
    };
    let mut stream = tcp(proxy, patience).await?;
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
                stream = tcp(proxy, patience).await?;
                stream.write_all(&bytes).await.map_err(broken)?;
            }
            Step::Done(rest) if rest.is_empty() => return Ok(stream),
            Step::Done(_) => {
                return Err(Error::Proxy("it sent more than its answer: it is no proxy".into()));
            }
        }
        let mut bytes = [0; 2048];
        let came = timeout(patience, stream.read(&mut bytes)).await.map_err(silent)?;
        let len = came.map_err(broken)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(kind: Kind, host: &str, port: u16, user: &str, password: &str) -> Proxy {
        let credentials = Some((user.into(), password.into()));
        Proxy { kind, host: host.into(), port, credentials }
    }

    #[test]
    fn what_cannot_be_said_to_a_proxy_is_refused() {
        for kind in [Kind::Http, Kind::Socks5] {
            let check = |user: &str, password: &str| proxy(kind, "p", 1, user, password).check();
            assert_eq!(check("zo\u{eb} \"a\" \\b", " p "), Ok(()));
            assert_eq!(check(&"u".repeat(255), &"p".repeat(255)), Ok(()));
            for (user, password, words) in [
                ("a\r\nX-Evil: 1", "p", "user holds control"),
                ("a", "p\n", "password holds control"),
                ("\0", "p", "user holds control"),
                ("a", "\u{7f}", "password holds control"),
                ("a\u{85}", "p", "user holds control"),
            ] {
                let error = check(user, password).unwrap_err();
                assert!(error.to_string().contains(words) && !error.may_pass(), "{error}");
            }
            let is_http = kind == Kind::Http;
            assert_eq!(check(&"u".repeat(256), "p").is_ok(), is_http);
            assert_eq!(check("u", "").is_ok(), is_http);
            for host in ["proxy.example", "10.0.0.1", "::1", "fe80::1%eth0"] {
                assert_eq!(proxy(kind, host, 1, "u", "p").check(), Ok(()));
                assert!(proxy(kind, host, 0, "u", "p").check().is_err());
            }
            for host in ["", " ", "http://proxy", "proxy:3128", "[::1]", "a\r\nb"] {
                assert!(proxy(kind, host, 1, "u", "p").check().is_err(), "{host}");
            }
        }
    }

    #[tokio::test]
    async fn a_silent_proxy_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = proxy(Kind::Socks5, "127.0.0.1", port, "u", "p");
        let mut handshake = socks::Socks::connect("node", 1, &silent);
        let error = through(&silent, &mut handshake, Duration::from_millis(50)).await.unwrap_err();
        let named = error.to_string().contains(&format!("127.0.0.1:{port} says nothing"));
        assert!(named && matches!(error, Error::Proxy(_)), "{error}");
    }

    #[tokio::test]
    async fn no_place_that_is_none_is_said_to_a_proxy() {
        for kind in [Kind::Http, Kind::Socks5] {
            let proxy = Some(proxy(kind, "127.0.0.1", 1, "u", "p"));
            for host in ["node\r\nX: y", "node/", &"n".repeat(256)] {
                let route = Route { host: host.into(), port: 1, proxy: proxy.clone() };
                let error = route.connect(false).await.unwrap_err();
                assert!(error.to_string().contains("this is no name"), "{error}");
            }
        }
    }
}
