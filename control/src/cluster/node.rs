//! A node, as the registry knows it.

use serde::{Deserialize, Serialize};

use crate::fault::Elsewhere;
use crate::host::now::Now;

/// A start of a node's process: what another start of the same node did is not its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Name of the node.
    pub node: String,
    /// Random, new for each start.
    pub incarnation: String,
}

/// Whether a node takes new scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Ready,
    /// It is to become empty: scopes that there are go on.
    Draining,
    /// It lives, and has no room for more scopes. One that is dead says nothing: see
    /// [`Listed::is_alive`].
    Full,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name, that no other has.
    pub name: String,
    /// Random, new for each start.
    pub incarnation: String,
    /// Region; empty is none.
    #[serde(default)]
    pub region: String,
    /// Host that clients reach it by.
    pub host: String,
    /// Port of HTTPS, WebSocket and links.
    pub port: u16,
    /// Whether that port speaks TLS: not so on one host alone, for development.
    pub secure: bool,
    /// Where links over QUIC are served, "HOST:PORT".
    #[serde(default)]
    pub quic: Option<String>,
    /// Whether it takes new scopes.
    pub state: State,
    /// What is free of it, in thousandths, by the scarcest of CPU, bandwidth and packets.
    pub headroom: u32,
    /// Scopes on it.
    #[serde(default)]
    pub scopes: u64,
    /// Peers in them.
    #[serde(default)]
    pub peers: u64,
    /// Version of the software.
    #[serde(default)]
    pub version: String,
    /// What its host does; none before it looked, and from nodes of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Now>,
}

/// A node, and what the registry adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it said last.
    pub node: Node,
    /// Whether its lease holds.
    pub is_alive: bool,
    /// Whether an operator wants it to become empty.
    pub is_drained: bool,
    /// How long ago it said so, in milliseconds.
    pub age_ms: u64,
}

impl Node {
    /// Which start of which node.
    pub fn owner(&self) -> Owner {
        Owner { node: self.name.clone(), incarnation: self.incarnation.clone() }
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    pub fn endpoint(&self) -> String {
        endpoint(&self.host, self.port)
    }

    /// Where a client is sent.
    pub fn elsewhere(&self) -> Elsewhere {
        Elsewhere { host: self.host.clone(), port: self.port, secure: self.secure }
    }

    /// Whether clients know it by this address.
    pub fn is_at(&self, address: &str) -> bool {
        self.endpoint() == address || self.quic.as_deref() == Some(address)
    }
}

impl Listed {
    /// Whether new scopes may come to it.
    pub fn has_room(&self) -> bool {
        self.is_alive && !self.is_drained && self.node.state == State::Ready
    }
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Host, without brackets, and port of `HOST:PORT`.
pub fn parse_endpoint(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?,
        None => host,
    };
    let is_good = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && host.chars().all(is_good)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for text in ["a.example:8443", "127.0.0.1:1", "[2001:db8::1]:443"] {
            let (host, port) = parse_endpoint(text).unwrap();
            assert_eq!(endpoint(&host, port), text);
        }
        for text in ["", "a", "a:0", ":1", "a:65536", "[::1:1", "a b:1", "a/b:1", "a\n:1"] {
            assert_eq!(parse_endpoint(text), None, "{text}");
        }
    }
}
