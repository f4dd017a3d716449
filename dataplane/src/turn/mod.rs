//! TURN over TLS for browsers behind firewalls that let nothing but TLS through (RFC 8656). It is no relay to the world: the
//! only peers that an allocation may speak to are this host's own addresses for media, and what it says to them goes to a
//! worker as a connection of ICE-TCP does. So nothing is sent from the relayed address, and it is none that routes.
//!
//! Here is what is said, without a socket or a clock; the sockets are in `framed/relayed.rs`.

mod credentials;
mod session;

pub(crate) use credentials::Secret;
pub(crate) use session::{Now, Session};

use crate::limits::{TURN_PEERS, TURN_PER_USER};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use strait_proto::v1::Candidate;
use strait_proto::v1::candidate::{Protocol, Purpose};

/// What all allocations share.
#[derive(Debug, Default)]
pub(crate) struct Server {
    /// Who may be spoken to.
    peers: Vec<SocketAddr>,
    /// Most allocations.
    most: usize,
    places: Mutex<Places>,
    /// Allocations that are open.
    pub(crate) open: AtomicU64,
    /// Made.
    pub(crate) allocated: AtomicU64,
    /// Not made: too many, of one user or in all.
    pub(crate) refused: AtomicU64,
    /// Requests without the right credentials, but for each first one.
    pub(crate) unauthorized: AtomicU64,
    /// Requests for peers that may not be spoken to.
    pub(crate) forbidden: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    by_user: HashMap<Box<[u8]>, usize>,
    total: usize,
    /// How many there were.
    made: u32,
}

/// Why there is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowded {
    User,
    Server,
}

/// The place of one allocation, for as long as it is held.
#[derive(Debug)]
struct Place {
    server: Arc<Server>,
    user: Box<[u8]>,
    /// Tells it from others.
    number: u32,
}

fn peers(candidates: &[Candidate]) -> Vec<SocketAddr> {
    let mut peers: Vec<SocketAddr> = Vec::new();
    for candidate in candidates {
        let is_media = candidate.protocol() == Protocol::Udp && candidate.purpose() == Purpose::Any;
        let (Ok(ip), Ok(port)) = (candidate.address.parse(), u16::try_from(candidate.port)) else {
            continue;
        };
        // A worker tells connections apart by its address and the peer's; further ports are for UDP alone.
        if is_media && peers.iter().all(|peer| peer.ip() != ip) && peers.len() < TURN_PEERS {
            peers.push(SocketAddr::new(ip, port));
        }
    }
    peers
}

/// How many peers one allocation may speak to at most: all of one family.
pub(crate) fn peers_most(candidates: &[Candidate]) -> usize {
    let peers = peers(candidates);
    let ipv6 = peers.iter().filter(|peer| peer.is_ipv6()).count();
    ipv6.max(peers.len() - ipv6)
}

impl Server {
    /// For the media that `candidates` tell of: of each address the first port for everything.
    pub(crate) fn new(candidates: &[Candidate], most: usize) -> Self {
        Self { peers: peers(candidates), most, ..Self::default() }
    }

    /// Whether there is anybody to speak to.
    pub(crate) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    fn has_family(&self, ipv6: bool) -> bool {
        self.peers.iter().any(|peer| peer.is_ipv6() == ipv6)
    }

    fn enter(self: &Arc<Self>, user: &[u8]) -> Result<Place, Crowded> {
        let mut places = self.places();
        let of_user = places.by_user.get(user).copied().unwrap_or(0);
        if of_user >= TURN_PER_USER || places.total >= self.most {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(if of_user >= TURN_PER_USER { Crowded::User } else { Crowded::Server });
        }
        places.by_user.insert(user.into(), of_user + 1);
        places.total += 1;
        places.made = places.made.wrapping_add(1);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.allocated.fetch_add(1, Ordering::Relaxed);
        Ok(Place { server: Arc::clone(self), user: user.into(), number: places.made })
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.server.places();
        places.total = places.total.saturating_sub(1);
        if let Some(count) = places.by_user.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                places.by_user.remove(&self.user);
            }
        }
        self.server.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An address that no packet comes from: the networks for documentation (RFC 5737, RFC 3849). Another one each time, until
/// eight million others were made. To the worker it is where the peer is, so the answers to checks name it and browsers
/// find their own candidate in them.
fn relayed_address(number: u32, ipv6: bool) -> SocketAddr {
    // Even ones from 1024 on, for those who ask for that (RFC 8656 section 7.2).
    const PORTS: u32 = 0xfc00 / 2;
    let port = 1024 + (number % PORTS * 2) as u16;
    let host = number / PORTS % 254 + 1;
    let ip = match ipv6 {
        true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host as u16)),
        false => IpAddr::V4(Ipv4Addr::new(192, 0, 2, host as u8)),
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests;
