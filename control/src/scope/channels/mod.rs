//! Data channels of a scope's peers: which are open, and the counts by which no message is lost or doubled when a peer
//! goes over from its channel to its WebSocket. Pure state; the relay carries what is said.

mod bridge;
pub mod envelope;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Message, Notice};
use crate::fault::Fault;
use crate::limits::{UNCONFIRMED_BYTES, UNCONFIRMED_MESSAGES};
use envelope::Envelope;

/// The channels of all peers of a scope that have any.
#[derive(Debug, Default)]
pub struct Channels {
    peers: BTreeMap<String, Peer>,
}

/// Where a channel is: the relay's name for its transport, and its number there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The relay's name for the transport.
    pub relay_peer: String,
    /// The channel.
    pub channel: u32,
}

/// How a message reaches its peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// By this channel, in this frame.
    Channel(Address, Vec<u8>),
    /// By the WebSocket, where the peer has one.
    Socket,
    /// Too many are not answered: the peer is to be cut off.
    TooSlow,
}

/// A message that went by a channel and was not answered.
pub type Unanswered = (u32, Arc<Notice>);

#[derive(Debug, Default)]
struct Peer {
    relay_peer: String,
    /// With [`envelope::PROTOCOL`].
    messages: Option<u32>,
    /// All others, by their labels.
    plain: BTreeMap<u32, String>,
    /// Messages to the peer go by the channel.
    is_on: bool,
    /// There is no other way to it.
    has_no_socket: bool,
    /// Why it may not send.
    refused: Option<Fault>,
    /// How many went by channels.
    sent: u32,
    /// Those of them that the peer did not answer.
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: usize,
    /// The number of the last message from the peer.
    taken: u32,
}

/// What a frame from a peer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message that is new.
    New { number: u32, to: Option<String>, is_text: bool, payload: Vec<u8> },
    /// One that came before.
    Again { number: u32 },
    /// The peer took ours.
    Answered,
    /// It breaks the rules.
    Wrong,
}

impl Channels {
    /// A peer may open channels.
    pub(super) fn admit(&mut self, peer: &str, may_send: Result<(), Fault>, has_socket: bool) {
        let entry = self.peers.entry(peer.to_owned()).or_default();
        entry.refused = may_send.err();
        entry.has_no_socket = !has_socket;
    }

    /// Whether one that may open channels may send is another matter from now on.
    pub(super) fn permit(&mut self, peer: &str, may_send: Result<(), Fault>) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.refused = may_send.err();
        }
    }

    /// Whether a peer may send.
    pub(super) fn check_send(&self, peer: &str) -> Result<(), Fault> {
        let refused = self.peers.get(peer).and_then(|entry| entry.refused.clone());
        refused.map_or(Ok(()), Err)
    }

    /// Whether a peer has no other way.
    pub(super) fn has_no_socket(&self, peer: &str) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.has_no_socket)
    }

    /// A channel was opened. False: it is not wanted.
    pub(super) fn opened(
        &mut self,
        peer: &str,
        address: Address,
        label: &str,
        protocol: &str,
    ) -> bool {
        let Address { relay_peer, channel } = address;
        let Some(entry) = self.peers.get_mut(peer) else { return false };
        if entry.relay_peer != relay_peer {
            entry.end();
            entry.relay_peer = relay_peer;
        }
        if protocol != envelope::PROTOCOL {
            entry.plain.insert(channel, label.to_owned());
            return true;
        }
        *entry.messages.get_or_insert(channel) == channel
    }

    /// A channel was closed. True: messages to the peer went by it.
    pub(super) fn closed(&mut self, peer: &str, address: &Address) -> bool {
        let Some(entry) = self.at(peer, &address.relay_peer) else { return false };
        entry.plain.remove(&address.channel);
        let is_ours = entry.messages == Some(address.channel);
        if is_ours {
            entry.messages = None;
        }
        is_ours && std::mem::take(&mut entry.is_on)
    }

    /// A peer's transport is gone, or what carries its messages. True: messages to it went by a channel.
    pub(super) fn lost(&mut self, peer: &str) -> bool {
        self.peers.get_mut(peer).is_some_and(Peer::end)
    }

    /// Everybody's are.
    pub(super) fn all_lost(&mut self) -> Vec<String> {
        let lost = self.peers.iter_mut().filter_map(|(name, peer)| peer.end().then_some(name));
        lost.cloned().collect()
    }

    /// A peer left.
    pub(super) fn forget(&mut self, peer: &str) {
        self.peers.remove(peer);
    }

    /// Sends messages to a peer by its channel from now on. False: it has none.
    pub fn turn_on(&mut self, peer: &str) -> bool {
        match self.peers.get_mut(peer) {
            Some(entry) if entry.messages.is_some() => {
                entry.is_on = true;
                true
            }
            _ => false,
        }
    }

    /// Whether messages to a peer go by a channel.
    pub fn is_on(&self, peer: &str) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.is_on)
    }

    /// How many messages went to a peer by channels, and how many came that are numbered.
    pub fn counts(&self, peer: &str) -> (u32, u32) {
        self.peers.get(peer).map_or((0, 0), |entry| (entry.sent, entry.taken))
    }

    /// How a message reaches a peer.
    pub fn route(&mut self, peer: &str, notice: &Arc<Notice>) -> Route {
        let (Some(entry), Notice::Message(message)) = (self.peers.get_mut(peer), &**notice) else {
            return Route::Socket;
        };
        let Some(channel) = entry.messages.filter(|_| entry.is_on) else { return Route::Socket };
        let Message { from, payload, is_text, is_direct, number: _ } = message;
        if entry.unanswered.len() >= UNCONFIRMED_MESSAGES
            || entry.unanswered_bytes + payload.len() > UNCONFIRMED_BYTES
        {
            return Route::TooSlow;
        }
        entry.sent = entry.sent.wrapping_add(1);
        let frame = Envelope::Message {
            number: entry.sent,
            is_text: *is_text && std::str::from_utf8(payload).is_ok(),
            is_direct: *is_direct,
            peer: from,
            payload,
        };
        let frame = frame.write();
        entry.unanswered_bytes += payload.len();
        entry.unanswered.push_back((entry.sent, Arc::clone(notice)));
        Route::Channel(Address { relay_peer: entry.relay_peer.clone(), channel }, frame)
    }

    /// What went by a channel that is not used any more, and was not answered.
    pub fn take_unanswered(&mut self, peer: &str) -> VecDeque<Unanswered> {
        match self.peers.get_mut(peer) {
            Some(entry) if !entry.is_on => {
                entry.unanswered_bytes = 0;
                std::mem::take(&mut entry.unanswered)
            }
            _ => VecDeque::new(),
        }
    }

    /// Counts a message that came by the WebSocket for want of a channel. False: it came before.
    pub fn take(&mut self, peer: &str, number: u32) -> bool {
        let Some(entry) = self.peers.get_mut(peer) else { return true };
        let is_new = number > entry.taken;
        entry.taken = entry.taken.max(number);
        is_new
    }

    /// Takes a frame from a peer's channel for messages.
    pub(super) fn hear(&mut self, peer: &str, frame: &[u8]) -> Heard {
        let Some(entry) = self.peers.get_mut(peer) else { return Heard::Wrong };
        match Envelope::parse(frame) {
            Some(Envelope::Answer { number, .. }) => {
                while let Some((_, notice)) =
                    entry.unanswered.pop_front_if(|(first, _)| *first <= number)
                {
                    if let Notice::Message(message) = &*notice {
                        entry.unanswered_bytes =
                            entry.unanswered_bytes.saturating_sub(message.payload.len());
                    }
                }
                Heard::Answered
            }
            Some(Envelope::Message { number, .. }) if number <= entry.taken => {
                Heard::Again { number }
            }
            Some(Envelope::Message { number, is_text, peer, payload, .. })
                if number == entry.taken.wrapping_add(1) =>
            {
                entry.taken = number;
                let to = (!peer.is_empty()).then(|| peer.to_owned());
                Heard::New { number, to, is_text, payload: payload.to_vec() }
            }
            _ => Heard::Wrong,
        }
    }

    /// The label of a channel that is not for messages.
    pub(super) fn plain(&self, peer: &str, address: &Address) -> Option<&str> {
        let entry = self.peers.get(peer).filter(|each| each.relay_peer == address.relay_peer)?;
        entry.plain.get(&address.channel).map(String::as_str)
    }

    /// The channels of all others with a label.
    pub(super) fn others(&self, peer: &str, label: &str) -> Vec<Address> {
        let others = self.peers.iter().filter(|(name, _)| *name != peer);
        let channels = others.flat_map(|(_, entry)| {
            let same = entry.plain.iter().filter(|(_, other)| *other == label);
            same.map(|(channel, _)| Address {
                relay_peer: entry.relay_peer.clone(),
                channel: *channel,
            })
        });
        channels.collect()
    }

    /// Whether a channel is the one for messages.
    pub(super) fn is_for_messages(&self, peer: &str, address: &Address) -> bool {
        let entry = self.peers.get(peer).filter(|each| each.relay_peer == address.relay_peer);
        entry.is_some_and(|each| each.messages == Some(address.channel))
    }

    fn at(&mut self, peer: &str, relay_peer: &str) -> Option<&mut Peer> {
        self.peers.get_mut(peer).filter(|entry| entry.relay_peer == relay_peer)
    }
}

impl Peer {
    /// True: messages went by its channel.
    fn end(&mut self) -> bool {
        self.messages = None;
        self.plain.clear();
        std::mem::take(&mut self.is_on)
    }
}

#[cfg(test)]
mod tests;
