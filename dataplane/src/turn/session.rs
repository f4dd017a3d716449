//! What is said on one connection: requests, an allocation, and datagrams both ways.

use super::credentials::REALM;
use super::{Crowded, Place, Secret, Server, relayed_address};
use crate::limits::{
    TURN_ANSWER_BYTES, TURN_CHANNEL, TURN_IDLE, TURN_LIFETIME, TURN_NONCE, TURN_PERMISSION,
    TURN_STRANGE_REQUESTS,
};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use strait_crypt::StunKey;
use strait_wire::stun::{self, Builder, Class, IntegrityError, Message};
use strait_wire::turn::{self, Frame, attribute as turns};

/// UDP, of REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For what lasts.
    pub(crate) instant: Instant,
    /// For credentials: seconds since 1970.
    pub(crate) unix_seconds: u64,
}

/// The peer breaks the rules: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// No STUN message, or one that is no whole one.
    Message,
    /// Too many requests without the right credentials.
    Strange,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "a message of TURN cannot be read",
            Self::Strange => "too many requests of TURN without the right credentials",
        })
    }
}

impl std::error::Error for Broken {}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    server: Arc<Server>,
    secret: Secret,
    /// Where the peer comes from.
    client: SocketAddr,
    nonce: Nonce,
    strange: u32,
    allocation: Option<Allocation>,
    /// It had its one allocation.
    has_allocated: bool,
}

/// The nonce of one connection. Nobody else can see it, or use it: it is said within TLS.
#[derive(Debug)]
struct Nonce {
    seed: u128,
    count: u32,
    until: Instant,
}

#[derive(Debug)]
struct Allocation {
    place: Place,
    key: Arc<StunKey>,
    relayed: SocketAddr,
    until: Instant,
    /// When it last carried a datagram.
    used: Instant,
    /// What was agreed on with each of the server's peers.
    peers: Vec<Agreed>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Agreed {
    permitted_until: Option<Instant>,
    channel: Option<(u16, Instant)>,
}

/// An error response.
#[derive(Debug)]
struct Refusal {
    code: u16,
    reason: &'static str,
    /// With realm and nonce, and without integrity.
    challenges: bool,
    unknown: Option<u16>,
}

impl Session {
    /// For a peer at `client`. `seed` is random.
    pub(crate) fn new(
        server: Arc<Server>,
        secret: Secret,
        client: SocketAddr,
        seed: u128,
        now: Instant,
    ) -> Self {
        let nonce = Nonce { seed, count: 0, until: now + TURN_NONCE };
        let (strange, allocation, has_allocated) = Default::default();
        Self { server, secret, client, nonce, strange, allocation, has_allocated }
    }

    /// Takes what the peer sent; answers go to `out`. Returns a datagram, and for which of the server's peers.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn take<'a>(
        &mut self,
        now: Now,
        frame: Frame<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, &'a [u8])>, Broken> {
        let bytes = match frame {
            Frame::Channel { number, data } => return Ok(self.channel_data(now, number, data)),
            Frame::Stun(bytes) => bytes,
        };
        let message = Message::parse(bytes).map_err(|_| Broken::Message)?;
        match (message.class(), message.method()) {
            (Class::Request, stun::BINDING) => {
                if self.allocation.is_none() {
                    self.count_strange()?;
                }
                answer(&message, Class::Success, None, out, |b| b.xor_mapped_address(self.client));
                Ok(None)
            }
            (Class::Request, _) => self.request(now, &message, out).map(|()| None),
            (Class::Indication, turn::SEND) => Ok(self.send(now, &message)),
            // Answers to nothing, and keep-alives.
            _ => Ok(None),
        }
    }

    /// Appends to `out` a datagram from one of the server's peers as it is said to this one. `false`: it may not get it.
    pub(crate) fn wrap(
        &mut self,
        now: Instant,
        peer: usize,
        datagram: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let from = self.server.peers.get(peer).copied();
        let (Some(allocation), Some(from)) = (&mut self.allocation, from) else { return false };
        let Some(agreed) = allocation.peers.get(peer).filter(|agreed| agreed.is_permitted(now))
        else {
            return false;
        };
        let Ok(length) = u16::try_from(datagram.len()) else { return false };
        allocation.used = now;
        if let Some((number, _)) = agreed.channel.filter(|(_, until)| now < *until) {
            let (header, padding) = turn::channel_header(number, length);
            out.extend_from_slice(&header);
            out.extend_from_slice(datagram);
            out.resize(out.len() + padding, 0);
            return true;
        }
        let start = out.len();
        out.resize(start + datagram.len() + TURN_ANSWER_BYTES, 0);
        // Nothing is answered, so nobody needs to tell one from another.
        let builder = Builder::new(
            out.get_mut(start..).unwrap_or_default(),
            Class::Indication,
            turn::DATA,
            *b"of the relay",
        );
        let builder = builder.xor_address(turns::XOR_PEER_ADDRESS, from);
        let length = builder.attribute(turns::DATA, datagram).finish().unwrap_or(0);
        out.truncate(start + length);
        length > 0
    }

    /// The relayed address, while there is an allocation.
    pub(crate) fn relayed(&self) -> Option<SocketAddr> {
        self.allocation.as_ref().map(|allocation| allocation.relayed)
    }

    /// One of the server's peers.
    pub(crate) fn peer(&self, peer: usize) -> Option<SocketAddr> {
        self.server.peers.get(peer).copied()
    }

    /// Ends an allocation whose time is over, or that carries nothing.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let is_over = |allocation: &mut Allocation| {
            now >= allocation.until || now.saturating_duration_since(allocation.used) >= TURN_IDLE
        };
        self.allocation.take_if(is_over);
    }

    fn channel_data<'a>(
        &mut self,
        now: Now,
        number: u16,
        data: &'a [u8],
    ) -> Option<(usize, &'a [u8])> {
        let allocation = self.allocation.as_mut().filter(|one| now.instant < one.until)?;
        let peer = allocation.peers.iter().position(|agreed| {
            agreed.is_permitted(now.instant)
                && agreed.channel.is_some_and(|(n, until)| n == number && now.instant < until)
        })?;
        allocation.used = now.instant;
        Some((peer, data))
    }

    fn send<'a>(&mut self, now: Now, message: &Message<'a>) -> Option<(usize, &'a [u8])> {
        if unknown(message).is_some() {
            return None;
        }
        let address = message.xor_address(message.attribute(turns::XOR_PEER_ADDRESS)?)?;
        let peer = self.server.peers.iter().position(|peer| *peer == address)?;
        let allocation = self.allocation.as_mut().filter(|one| now.instant < one.until)?;
        allocation.peers.get(peer).filter(|agreed| agreed.is_permitted(now.instant))?;
        allocation.used = now.instant;
        Some((peer, message.attribute(turns::DATA)?))
    }

    fn request(
        &mut self,
        now: Now,
        request: &Message<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        self.sweep(now.instant);
        let (key, user) = match self.authenticate(now, request) {
            Ok(known) => known,
            Err(refusal) => {
                self.count_strange()?;
                let nonce = self.nonce.text();
                answer(request, Class::Error, None, out, |b| refusal.write(b, &nonce));
                return Ok(());
            }
        };
        self.strange = 0;
        let done = match request.method() {
            _ if unknown(request).is_some() => {
                Err(Refusal { unknown: unknown(request), ..refusal(420, "Unknown Attribute") })
            }
            turn::ALLOCATE => self.allocate(now.instant, request, &key, user),
            turn::REFRESH => self.refresh(now.instant, request, user),
            turn::CREATE_PERMISSION => self.permit(now.instant, request, user),
            turn::CHANNEL_BIND => self.bind(now.instant, request, user),
            _ => Err(refusal(400, "Bad Request")),
        };
        match done {
            Err(refusal) => {
                answer(request, Class::Error, Some(&key), out, |b| refusal.write(b, ""));
            }
            Ok(lifetime) => answer(request, Class::Success, Some(&key), out, |builder| {
                let builder = match lifetime {
                    Some(lifetime) => {
                        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
                        builder.attribute(turns::LIFETIME, &seconds.to_be_bytes())
                    }
                    None => builder,
                };
                match self.relayed().filter(|_| request.method() == turn::ALLOCATE) {
                    Some(relayed) => builder
                        .xor_address(turns::XOR_RELAYED_ADDRESS, relayed)
                        .xor_mapped_address(self.client),
                    None => builder,
                }
            }),
        }
        Ok(())
    }

    /// One more request of somebody who showed no credentials.
    fn count_strange(&mut self) -> Result<(), Broken> {
        self.strange += 1;
        if self.strange > TURN_STRANGE_REQUESTS { Err(Broken::Strange) } else { Ok(()) }
    }

    /// RFC 8489 section 9.2.4.
    fn authenticate<'a>(
        &mut self,
        now: Now,
        request: &Message<'a>,
    ) -> Result<(Arc<StunKey>, &'a [u8]), Refusal> {
        let challenge = |code, reason| Refusal { challenges: true, ..refusal(code, reason) };
        if request.check_integrity(|_| [0; 20]) == Err(IntegrityError::Missing) {
            self.nonce.renew(now.instant);
            return Err(challenge(401, "Unauthorized"));
        }
        let (Some(user), Some(_), Some(nonce)) =
            (request.username(), request.attribute(turns::REALM), request.attribute(turns::NONCE))
        else {
            return Err(refusal(400, "Bad Request"));
        };
        let wrong = |reason| {
            self.server.unauthorized.fetch_add(1, Ordering::Relaxed);
            challenge(401, reason)
        };
        if nonce != self.nonce.text().as_bytes() || now.instant >= self.nonce.until {
            self.nonce.renew(now.instant);
            return Err(challenge(438, "Stale Nonce"));
        }
        // Who has an allocation keeps it, also when the name has ended since.
        let held = self.allocation.as_ref().filter(|allocation| *allocation.place.user == *user);
        let key = match held {
            Some(allocation) => Arc::clone(&allocation.key),
            None => {
                let key = self.secret.key(user, now.unix_seconds);
                Arc::new(key.ok_or_else(|| wrong("Unauthorized"))?)
            }
        };
        request.check_integrity(|parts| key.sign(parts)).map_err(|_| wrong("Unauthorized"))?;
        Ok((key, user))
    }

    fn allocate(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        key: &Arc<StunKey>,
        user: &[u8],
    ) -> Result<Option<Duration>, Refusal> {
        if let Some(allocation) = &self.allocation {
            return Err(match *allocation.place.user == *user {
                true => refusal(437, "Allocation Mismatch"),
                false => refusal(441, "Wrong Credentials"),
            });
        }
        // One of each connection, so that those who make many need as many connections before numbers come again.
        if self.has_allocated {
            return Err(refusal(437, "Allocation Mismatch"));
        }
        match request.attribute(turns::REQUESTED_TRANSPORT) {
            Some([UDP, _, _, _]) => {}
            Some([_, _, _, _]) => return Err(refusal(442, "Unsupported Transport Protocol")),
            _ => return Err(refusal(400, "Bad Request")),
        }
        let reserves = request.attribute(turns::EVEN_PORT).and_then(<[u8]>::first);
        if request.attribute(turns::RESERVATION_TOKEN).is_some()
            || reserves.is_some_and(|bits| bits & 0x80 != 0)
        {
            return Err(refusal(508, "Insufficient Capacity"));
        }
        let unsupported = refusal(440, "Address Family not Supported");
        let ipv6 = match request.attribute(turns::REQUESTED_ADDRESS_FAMILY) {
            // Browsers do not ask, and pair addresses of one family alone.
            None => !self.server.has_family(false),
            Some([1, ..]) => false,
            Some([2, ..]) => true,
            Some(_) => return Err(unsupported),
        };
        if !self.server.has_family(ipv6) {
            return Err(unsupported);
        }
        let place = self.server.enter(user).map_err(|crowded| match crowded {
            Crowded::User => refusal(486, "Allocation Quota Reached"),
            Crowded::Server => refusal(508, "Insufficient Capacity"),
        })?;
        let (shortest, longest) = TURN_LIFETIME;
        let lifetime = asked_lifetime(request).unwrap_or(shortest).clamp(shortest, longest);
        self.has_allocated = true;
        self.allocation = Some(Allocation {
            relayed: relayed_address(place.number, ipv6),
            place,
            key: Arc::clone(key),
            until: now + lifetime,
            used: now,
            peers: vec![Agreed::default(); self.server.peers.len()],
        });
        Ok(Some(lifetime))
    }

    fn refresh(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        user: &[u8],
    ) -> Result<Option<Duration>, Refusal> {
        let allocation = self.held(user)?;
        let family = request.attribute(turns::REQUESTED_ADDRESS_FAMILY);
        let own = if allocation.relayed.is_ipv6() { 2 } else { 1 };
        if family.is_some_and(|family| family.first() != Some(&own)) {
            return Err(refusal(443, "Peer Address Family Mismatch"));
        }
        let (shortest, longest) = TURN_LIFETIME;
        match asked_lifetime(request) {
            Some(Duration::ZERO) => {
                self.allocation = None;
                Ok(Some(Duration::ZERO))
            }
            asked => {
                let lifetime = asked.unwrap_or(shortest).clamp(shortest, longest);
                allocation.until = now + lifetime;
                Ok(Some(lifetime))
            }
        }
    }

    fn permit(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        user: &[u8],
    ) -> Result<Option<Duration>, Refusal> {
        let wanted = request.attributes().filter(|one| one.kind == turns::XOR_PEER_ADDRESS);
        let wanted: Option<Vec<_>> = wanted.map(|one| request.xor_address(one.value)).collect();
        let wanted = wanted.filter(|wanted| !wanted.is_empty());
        let wanted = wanted.ok_or_else(|| refusal(400, "Bad Request"))?;
        let server = Arc::clone(&self.server);
        let allocation = self.held(user)?;
        for address in &wanted {
            allocation.may_speak_to(address, &server, |peer| peer.ip() == address.ip())?;
        }
        for (peer, agreed) in server.peers.iter().zip(&mut allocation.peers) {
            if wanted.iter().any(|address| address.ip() == peer.ip()) {
                agreed.permitted_until = Some(now + TURN_PERMISSION);
            }
        }
        Ok(None)
    }

    fn bind(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        user: &[u8],
    ) -> Result<Option<Duration>, Refusal> {
        let bad = || refusal(400, "Bad Request");
        let number = match request.attribute(turns::CHANNEL_NUMBER) {
            Some(&[high, low, _, _]) => u16::from_be_bytes([high, low]),
            _ => return Err(bad()),
        };
        let address = request.attribute(turns::XOR_PEER_ADDRESS);
        let address = address.and_then(|value| request.xor_address(value)).ok_or_else(bad)?;
        if !turn::CHANNELS.contains(&number) {
            return Err(bad());
        }
        let server = Arc::clone(&self.server);
        let allocation = self.held(user)?;
        let peer = allocation.may_speak_to(&address, &server, |peer| *peer == address)?;
        let bound = |agreed: &Agreed| agreed.channel.filter(|(_, until)| now < *until);
        let is_taken = allocation.peers.iter().enumerate().any(|(at, agreed)| {
            bound(agreed).is_some_and(|(other, _)| (other == number) != (at == peer))
        });
        let agreed = allocation.peers.get_mut(peer).filter(|_| !is_taken).ok_or_else(bad)?;
        agreed.permitted_until = Some(now + TURN_PERMISSION);
        agreed.channel = Some((number, now + TURN_CHANNEL));
        Ok(None)
    }

    /// The allocation, if it is that of `user`.
    fn held(&mut self, user: &[u8]) -> Result<&mut Allocation, Refusal> {
        match &mut self.allocation {
            None => Err(refusal(437, "Allocation Mismatch")),
            Some(allocation) if *allocation.place.user != *user => {
                Err(refusal(441, "Wrong Credentials"))
            }
            Some(allocation) => Ok(allocation),
        }
    }
}

impl Allocation {
    /// Which of the server's peers an address is.
    fn may_speak_to(
        &self,
        address: &SocketAddr,
        server: &Server,
        is_it: impl Fn(&SocketAddr) -> bool,
    ) -> Result<usize, Refusal> {
        if address.is_ipv6() != self.relayed.is_ipv6() {
            return Err(refusal(443, "Peer Address Family Mismatch"));
        }
        server.peers.iter().position(is_it).ok_or_else(|| {
            server.forbidden.fetch_add(1, Ordering::Relaxed);
            refusal(403, "Forbidden")
        })
    }
}

impl Agreed {
    fn is_permitted(&self, now: Instant) -> bool {
        self.permitted_until.is_some_and(|until| now < until)
    }
}

impl Nonce {
    fn text(&self) -> String {
        format!("{:032x}{:x}", self.seed, self.count)
    }

    /// Another one, if this one is over.
    fn renew(&mut self, now: Instant) {
        if now >= self.until {
            self.count = self.count.wrapping_add(1);
            self.until = now + TURN_NONCE;
        }
    }
}

impl Refusal {
    fn write<'a>(&self, builder: Builder<'a>, nonce: &str) -> Builder<'a> {
        let mut builder = builder.error_code(self.code, self.reason);
        if let Some(unknown) = self.unknown {
            let kind = stun::attribute::UNKNOWN_ATTRIBUTES;
            builder = builder.attribute(kind, &unknown.to_be_bytes());
        }
        if self.challenges {
            builder = builder.attribute(turns::REALM, REALM.as_bytes());
            builder = builder.attribute(turns::NONCE, nonce.as_bytes());
        }
        builder
    }
}

fn refusal(code: u16, reason: &'static str) -> Refusal {
    Refusal { code, reason, challenges: false, unknown: None }
}

fn asked_lifetime(request: &Message<'_>) -> Option<Duration> {
    let value = request.attribute(turns::LIFETIME)?.try_into().ok()?;
    Some(Duration::from_secs(u32::from_be_bytes(value).into()))
}

/// The first attribute that would have to be understood and is not (RFC 8489 section 6.3.1).
fn unknown(message: &Message<'_>) -> Option<u16> {
    const KNOWN: [u16; 12] = [
        stun::attribute::USERNAME,
        turns::CHANNEL_NUMBER,
        turns::LIFETIME,
        turns::XOR_PEER_ADDRESS,
        turns::DATA,
        turns::REALM,
        turns::NONCE,
        turns::REQUESTED_ADDRESS_FAMILY,
        turns::EVEN_PORT,
        turns::REQUESTED_TRANSPORT,
        turns::DONT_FRAGMENT,
        turns::RESERVATION_TOKEN,
    ];
    message.attributes().map(|one| one.kind).find(|kind| *kind < 0x8000 && !KNOWN.contains(kind))
}

/// Appends an answer. FINGERPRINT is in it if it was in the request.
fn answer(
    request: &Message<'_>,
    class: Class,
    key: Option<&StunKey>,
    out: &mut Vec<u8>,
    fill: impl FnOnce(Builder<'_>) -> Builder<'_>,
) {
    let start = out.len();
    out.resize(start + TURN_ANSWER_BYTES, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let builder = Builder::new(room, class, request.method(), request.transaction_id());
    let mut builder = fill(builder);
    if let Some(key) = key {
        builder = builder.integrity(|parts| key.sign(parts));
    }
    if request.is_fingerprint_valid() {
        builder = builder.fingerprint();
    }
    // What is written here always fits.
    let length = builder.finish().unwrap_or(0);
    out.truncate(start + length);
}
