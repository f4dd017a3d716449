//! One sender to one receiver, many times: what a relay does that passes packets on as they are.
//!
//! Sender and receiver share an SRTP key that the server never sees, as with the session key of a scope; there are no
//! connectivity checks. The load gives its peers consecutive ports, senders first, so that a server can be told of
//! both ends when the first one joins.

use crate::bed::CLIENT;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use strait_load::signalling::{
    AgreedStream, Joined, PublisherJoin, RemoteTransport, Security, SubscriberJoin,
};
use strait_load::{Profile, SignallingError};

/// The port of the first sender.
pub const FIRST_PORT: u16 = 21_000;
/// The cipher of the pairs, which only the load works with.
pub const PROFILE: Profile = Profile::AeadAes128Gcm;

/// The pairs of a run.
#[derive(Debug)]
pub struct Pairs {
    count: u16,
    key: Vec<u8>,
    salt: Vec<u8>,
    /// Where the receiver of a scope finds the server.
    receivers: BTreeMap<String, SocketAddr>,
}

/// Both ends of a pair, as the server sees them.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Where the sender sends from.
    pub sender: SocketAddr,
    /// Where the receiver receives.
    pub receiver: SocketAddr,
}

/// What a server has for a pair.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    /// Where the sender sends to.
    pub to_sender: SocketAddr,
    /// The TURN channel of what the sender sends.
    pub channel: Option<u16>,
    /// Where it comes from at the receiver.
    pub to_receiver: SocketAddr,
}

impl Pairs {
    /// So many, with a fresh key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(count: u16) -> Result<Self, SignallingError> {
        let random = |length: usize| {
            let mut bytes = vec![0; length];
            let filled = aws_lc_rs::rand::fill(&mut bytes);
            filled.map(|()| bytes).map_err(|_| refused("the system has no randomness for keys"))
        };
        let (key, salt) = (random(PROFILE.key_len())?, random(PROFILE.salt_len())?);
        Ok(Self { count, key, salt, receivers: BTreeMap::new() })
    }

    /// Where both ends of a sender's pair are.
    ///
    /// # Errors
    /// There are no such ports.
    pub fn ends(&self, join: &PublisherJoin) -> Result<Ends, SignallingError> {
        let port = join.transport.address.port();
        let other = port.checked_add(self.count).ok_or_else(|| refused("too many pairs"))?;
        Ok(Ends { sender: SocketAddr::new(CLIENT, port), receiver: SocketAddr::new(CLIENT, other) })
    }

    /// The sender's side, once the server has both.
    pub fn publisher(&mut self, join: &PublisherJoin, relayed: Relayed) -> Joined {
        self.receivers.insert(join.scope.clone(), relayed.to_receiver);
        let stream = &join.stream;
        let agreed = AgreedStream::as_wanted(&stream.mid, &stream.codec, &stream.extensions);
        Joined {
            transport: self.transport(relayed.to_sender, relayed.channel),
            streams: vec![agreed],
        }
    }

    /// The receiver's side.
    ///
    /// # Errors
    /// It has no sender, or more than one.
    pub fn subscriber(&self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        let from = self.receivers.get(&join.scope).ok_or_else(|| refused("no such pair"))?;
        let [wanted] = join.streams.as_slice() else {
            return Err(refused("one stream for each receiver: that is what a pair is"));
        };
        let agreed = AgreedStream {
            // The MID is the sender's.
            mid_extension: None,
            ..AgreedStream::as_wanted(&wanted.mid, &wanted.codec, &wanted.extensions)
        };
        Ok(Joined { transport: self.transport(*from, None), streams: vec![agreed] })
    }

    fn transport(&self, address: SocketAddr, channel: Option<u16>) -> RemoteTransport {
        let (key, salt) = (self.key.clone(), self.salt.clone());
        let security = Security::SessionKey { ice: None, profile: PROFILE, key, salt };
        RemoteTransport { address, channel, security }
    }
}

/// The server does not do what is asked.
pub(crate) fn refused(why: impl Into<String>) -> SignallingError {
    SignallingError::Refused(why.into())
}
