//! The lines between the clients and the relay, and the books on what went where.

use crate::protocol::Sort;
use crate::trace::Bytes;
use crate::world::{Event, World};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use strait_core::command::PeerId;
use strait_core::port::{Meta, Path, Protocol};
use strait_core::time::{Duration, Instant};

/// What a DTLS datagram weighs on a line. Signatures differ in length from run to run, and a run must not.
const DTLS_BYTES: usize = 700;
/// Datagrams remembered for the attacker.
const OVERHEARD: usize = 32;

/// An address that the relay was talked to from.
pub(crate) struct Account {
    pub(crate) member: usize,
    pub(crate) life: PeerId,
    pub(crate) received: usize,
    pub(crate) sent: usize,
    pub(crate) consented: bool,
    pub(crate) left_at: Option<Instant>,
}

impl World {
    /// An address of its own for someone's line.
    pub(crate) fn new_address(&mut self, member: usize, life: PeerId) -> SocketAddr {
        self.addresses += 1;
        let (n, m) = (self.addresses, member as u16);
        let ip = if self.members[member].spec.ipv6 {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, m, 0, 0, 0, 0, n))
        } else {
            IpAddr::V4(Ipv4Addr::new(10, m as u8, (n >> 8) as u8, n as u8))
        };
        let address = SocketAddr::new(ip, 1024 + self.rng.range(0..=60_000) as u16);
        let account =
            Account { member, life, received: 0, sent: 0, consented: false, left_at: None };
        self.accounts.insert(address, account);
        address
    }

    /// The way between an address and the relay.
    pub(crate) fn path(&self, protocol: Protocol, remote: SocketAddr) -> Path {
        let local = match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
        };
        Path { protocol, ..Path::udp(local, remote) }
    }

    /// Puts a datagram into the relay's host, whoever sent it.
    pub(crate) fn inject(&mut self, after: Duration, path: Path, bytes: Vec<u8>) {
        self.plan_at(self.now + after, Event::ToRelay { path, bytes });
    }

    /// What is left of someone's addresses after it left.
    pub(crate) fn close_accounts(&mut self, life: PeerId) {
        let now = self.now;
        for account in self.accounts.values_mut().filter(|account| account.life == life) {
            account.left_at = Some(now);
        }
    }

    /// Puts a datagram on someone's line towards the relay.
    pub(crate) fn carry_up(&mut self, member: usize, path: Path, bytes: Vec<u8>) {
        self.trace.datagram(self.now, member, true, &bytes, self.shared(member));
        if self.overheard.len() == OVERHEARD {
            self.overheard.pop_front();
        }
        if bytes.len() < 400 {
            self.overheard.push_back((path, bytes.clone()));
        }
        let (now, weight) = (self.now, weight(&bytes));
        let [up, _] = &mut self.lines[member];
        if path.protocol == Protocol::Tcp {
            let at = up.carry_in_order(now, weight);
            return self.plan_at(at, Event::ToRelay { path, bytes });
        }
        for at in up.carry(now, weight) {
            self.plan_at(at, Event::ToRelay { path, bytes: bytes.clone() });
        }
    }

    /// Puts what the relay sent on the line of whom it is for, and holds it against the rules of sending.
    pub(crate) fn carry_down(&mut self, path: Path, bytes: Vec<u8>) {
        self.sent_bytes += bytes.len() as u64;
        let now = self.now;
        let Some(account) = self.accounts.get_mut(&path.remote) else {
            return self.fault(format!("{} bytes to a stranger at {}", bytes.len(), path.remote));
        };
        let (member, life) = (account.member, account.life);
        account.sent += bytes.len();
        let mut faults = Vec::new();
        if !account.consented {
            account.consented = Sort::of(&bytes) == Sort::Stun && bytes.first() == Some(&1);
            if account.sent > account.received || !account.consented {
                let (sent, received) = (account.sent, account.received);
                faults.push(format!(
                    "{sent} bytes to {} before consent, for {received}",
                    path.remote
                ));
            }
        }
        if account.left_at.is_some_and(|left| left < now) {
            faults.push(format!("{} bytes to peer {member}, which has left", bytes.len()));
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
        self.trace.datagram(now, member, false, &bytes, self.shared(member));
        let Some(peer) = self.peer(member, life) else { return };
        if peer.spec.protocol != path.protocol {
            return self.fault(format!("peer {member} is not on {:?}", path.protocol));
        }
        if peer.address != path.remote {
            return; // Nobody is there any more.
        }
        let (weight, remote) = (weight(&bytes), path.remote);
        let [_, down] = &mut self.lines[member];
        if path.protocol == Protocol::Tcp {
            let at = down.carry_in_order(now, weight);
            return self.plan_at(at, Event::ToPeer { member, life, remote, bytes });
        }
        for at in down.carry(now, weight) {
            self.plan_at(at, Event::ToPeer { member, life, remote, bytes: bytes.clone() });
        }
    }

    /// A datagram has reached the relay's host.
    pub(crate) fn arrive(&mut self, path: Path, bytes: Vec<u8>) {
        self.received_bytes += bytes.len() as u64;
        if let Some(account) = self.accounts.get_mut(&path.remote) {
            account.received += bytes.len();
        }
        self.relay.arrive(Meta { path, at: self.now, ecn: 0 }, bytes);
        let at = (self.turned_at + self.turn_cost).max(self.now);
        self.turn_by(at);
    }

    fn shared(&self, member: usize) -> Bytes {
        if self.members[member].spec.dtls { Bytes::Secret } else { Bytes::Same }
    }
}

fn weight(bytes: &[u8]) -> usize {
    if Sort::of(bytes) == Sort::Dtls { DTLS_BYTES } else { bytes.len() }
}
