//! SOCKS5: RFC 1928, with user and password by RFC 1929.

use super::{Handshake, Proxy, Step};
use crate::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpStream;

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;
const NO_AUTHENTICATION: u8 = 0;
const GSSAPI: u8 = 1;
const USER_AND_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

enum State {
    Begin,
    Method,
    Credentials,
    Reply,
}

/// The handshake of a connection or of a way for datagrams.
pub(crate) struct Socks {
    state: State,
    request: Vec<u8>,
    credentials: Option<(String, String)>,
    read: Vec<u8>,
    bound: Option<SocketAddr>,
}

impl Socks {
    /// Asks for a connection; names are resolved by the proxy.
    pub(crate) fn connect(host: &str, port: u16, proxy: &Proxy) -> Self {
        Self::new(CONNECT, &address(host, port), proxy)
    }

    /// Asks for a way for datagrams; from where they will come is not known yet.
    pub(crate) fn associate(proxy: &Proxy) -> Self {
        let anywhere = Ipv4Addr::UNSPECIFIED.to_string();
        Self::new(UDP_ASSOCIATE, &address(&anywhere, 0), proxy)
    }

    /// What the proxy bound for it.
    pub(crate) fn bound(&self) -> Option<SocketAddr> {
        self.bound
    }

    fn new(command: u8, address: &[u8], proxy: &Proxy) -> Self {
        let request = [&[VERSION, command, 0], address].concat();
        let credentials = proxy.credentials.clone();
        Self { state: State::Begin, request, credentials, read: Vec::new(), bound: None }
    }

    fn ask(&mut self) -> Step {
        self.state = State::Reply;
        Step::Send(self.request.clone())
    }
}

impl Handshake for Socks {
    fn on_bytes(&mut self, bytes: &[u8]) -> Result<Step, Error> {
        self.read.extend_from_slice(bytes);
        match self.state {
            State::Begin => {
                self.state = State::Method;
                Ok(Step::Send(match self.credentials {
                    Some(_) => vec![VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
                    None => vec![VERSION, 1, NO_AUTHENTICATION],
                }))
            }
            State::Method => {
                let Some([version, method]) = take(&mut self.read) else { return Ok(Step::More) };
                match (version, method, &self.credentials) {
                    (VERSION, NO_AUTHENTICATION, _) => Ok(self.ask()),
                    (VERSION, USER_AND_PASSWORD, Some((user, password))) => {
                        let bytes = credentials(user, password)?;
                        self.state = State::Credentials;
                        Ok(Step::Send(bytes))
                    }
                    (VERSION, NONE_ACCEPTABLE | USER_AND_PASSWORD, None) => {
                        Err(Error::ProxyNeedsCredentials("user and password, likely".into()))
                    }
                    (VERSION, NONE_ACCEPTABLE | GSSAPI, _) => Err(Error::ProxyNeedsCredentials(
                        "GSSAPI, likely; known here are none, and user and password".into(),
                    )),
                    _ => Err(Error::Proxy("this is no SOCKS5 proxy".into())),
                }
            }
            State::Credentials => match take(&mut self.read) {
                None => Ok(Step::More),
                Some([_, 0]) => Ok(self.ask()),
                Some(_) => Err(Error::ProxyCredentials),
            },
            State::Reply => {
                let [version, reply, _, kind, first] = match self.read.first_chunk() {
                    Some(head) => *head,
                    None => return Ok(Step::More),
                };
                if version != VERSION {
                    return Err(Error::Proxy("its answer is none of SOCKS5".into()));
                }
                if reply != 0 {
                    return Err(Error::Proxy(refusal(reply).into()));
                }
                let len = match kind {
                    1 => 4 + 4 + 2,
                    3 => 4 + 1 + usize::from(first) + 2,
                    4 => 4 + 16 + 2,
                    _ => return Err(Error::Proxy("its answer holds no address".into())),
                };
                if self.read.len() < len {
                    return Ok(Step::More);
                }
                self.bound = parse(self.read.get(3..len).unwrap_or_default()).map(|(at, _)| at);
                Ok(Step::Done(self.read.split_off(len)))
            }
        }
    }
}

/// Takes bytes off the front, once they are there.
fn take<const N: usize>(read: &mut Vec<u8>) -> Option<[u8; N]> {
    let head = *read.first_chunk::<N>()?;
    read.drain(..N);
    Some(head)
}

fn credentials(user: &str, password: &str) -> Result<Vec<u8>, Error> {
    let part = |text: &str| {
        let len = u8::try_from(text.len()).ok().filter(|len| *len > 0);
        let len = len.ok_or_else(|| {
            Error::ProxyNeedsCredentials("user and password of 1 to 255 bytes each".into())
        })?;
        Ok::<_, Error>([&[len], text.as_bytes()].concat())
    };
    Ok([vec![1], part(user)?, part(password)?].concat())
}

/// RFC 1928 section 6.
fn refusal(reply: u8) -> &'static str {
    match reply {
        1 => "it failed, without saying why",
        2 => "its rules do not allow it",
        3 => "it has no way to the node's network",
        4 => "it has no way to the node",
        5 => "nothing listens at the node's port",
        6 => "the way to the node is too long",
        7 => "it does not know this command",
        8 => "it does not know this kind of address",
        _ => "it refuses, for a reason that has no name",
    }
}

/// An address as requests have it: kind, address, port.
fn address(host: &str, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    match host.parse() {
        Ok(IpAddr::V4(ip)) => [&[1], &ip.octets()[..], &port].concat(),
        Ok(IpAddr::V6(ip)) => [&[4], &ip.octets()[..], &port].concat(),
        Err(_) => {
            let name = host.as_bytes().get(..255).unwrap_or(host.as_bytes());
            [&[3, name.len() as u8], name, &port].concat()
        }
    }
}

/// The IP address at the front, and what follows it.
fn parse(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (ip, rest) = match kind {
        1 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        4 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

/// A way for datagrams through a proxy, as long as its connection stands.
#[derive(Debug)]
pub struct UdpRelay {
    /// Where they are sent to, and come from.
    pub address: SocketAddr,
    /// The proxy ends the way when this ends.
    pub(super) _connection: Option<TcpStream>,
}

impl UdpRelay {
    /// A datagram to an address as the proxy takes it.
    #[must_use]
    pub fn wrap(&self, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        [&[0, 0, 0], &address(&to.ip().to_string(), to.port())[..], bytes].concat()
    }

    /// From whom a datagram of the proxy is, and what it holds. Fragments are not taken, as RFC 1928 allows.
    #[must_use]
    pub fn unwrap(&self, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let ([_, _, fragment], rest) = bytes.split_first_chunk()?;
        let (from, payload) = parse(rest).filter(|_| *fragment == 0)?;
        Some((from, payload.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Kind;

    fn proxy(credentials: Option<(&str, &str)>) -> Proxy {
        let credentials = credentials.map(|(user, password)| (user.into(), password.into()));
        Proxy { kind: Kind::Socks5, host: "proxy".into(), port: 1080, credentials }
    }

    #[test]
    fn a_connection_with_user_and_password() {
        let mut socks = Socks::connect("node.example", 8443, &proxy(Some(("ann", "secret"))));
        assert_eq!(socks.on_bytes(&[]), Ok(Step::Send(vec![5, 2, 0, 2])));
        // In pieces.
        assert_eq!(socks.on_bytes(&[5]), Ok(Step::More));
        let words = b"\x01\x03ann\x06secret".to_vec();
        assert_eq!(socks.on_bytes(&[2]), Ok(Step::Send(words)));
        let request = b"\x05\x01\x00\x03\x0cnode.example\x20\xfb".to_vec();
        assert_eq!(socks.on_bytes(&[1, 0]), Ok(Step::Send(request)));
        assert_eq!(socks.on_bytes(&[5, 0, 0, 1, 10, 0, 0]), Ok(Step::More));
        assert_eq!(socks.on_bytes(&[1, 0x12, 0x34, 99]), Ok(Step::Done(vec![99])));
        assert_eq!(socks.bound(), Some("10.0.0.1:4660".parse().unwrap()));
    }

    #[test]
    fn each_refusal_has_its_error() {
        let begun = |credentials| {
            let mut socks = Socks::connect("10.0.0.1", 1, &proxy(credentials));
            socks.on_bytes(&[]).unwrap();
            socks
        };
        let needs = begun(None).on_bytes(&[5, 0xff]);
        assert!(matches!(needs, Err(Error::ProxyNeedsCredentials(_))), "{needs:?}");
        let mut wrong = begun(Some(("ann", "wrong")));
        wrong.on_bytes(&[5, 2]).unwrap();
        assert_eq!(wrong.on_bytes(&[1, 1]), Err(Error::ProxyCredentials));
        let http = begun(None).on_bytes(b"HTTP/1.1 400 Bad Request");
        assert!(http.unwrap_err().to_string().contains("no SOCKS5"));
        for (reply, word) in [(2, "rules"), (5, "listens"), (99, "no name")] {
            let mut socks = begun(None);
            socks.on_bytes(&[5, 0]).unwrap();
            let refused = socks.on_bytes(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
        }
    }

    #[test]
    fn datagrams_are_wrapped_and_unwrapped() {
        let relay = UdpRelay { address: "10.0.0.9:1080".parse().unwrap(), _connection: None };
        for place in ["192.0.2.1:8443", "[2001:db8::1]:8443"] {
            let place = place.parse().unwrap();
            let wrapped = relay.wrap(place, b"media");
            assert_eq!(relay.unwrap(&wrapped), Some((place, b"media".to_vec())));
            for len in 0..wrapped.len() - 5 {
                assert_eq!(relay.unwrap(&wrapped[..len]), None);
            }
            let mut fragment = wrapped;
            fragment[2] = 1;
            assert_eq!(relay.unwrap(&fragment), None);
        }
    }
}
