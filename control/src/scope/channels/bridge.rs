//! Between the relay's data channels and the messages of a scope.

use std::sync::{Arc, MutexGuard};

use strait_proto::v1;
use strait_proto::v1::channel_event::Event;

use super::envelope::{self, Envelope};
use super::{Address, Channels, Heard, Route};
use crate::fault::Fault;
use crate::limits;
use crate::scope::{Notice, Scope, Scopes, Sink};

impl Scopes {
    /// Takes what happened on a channel.
    pub fn channel_event(&self, told: v1::ChannelEvent) {
        let v1::ChannelEvent { scope_id, peer_id, channel, event } = told;
        let Some(scope) = self.of_relay_id(&scope_id) else { return };
        // Of a transport that was replaced, or of a peer that left.
        let peer = scope.roster().of_relay_peer(&peer_id).map(str::to_owned);
        let Some(peer) = peer else { return };
        let address = Address { relay_peer: peer_id, channel };
        match event {
            Some(Event::Opened(opened)) => self.channel_opened(&scope, &peer, address, &opened),
            Some(Event::Closed(_)) => {
                let was_on = scope.channels().closed(&peer, &address);
                scope.tell_channel_ended(&peer, was_on);
            }
            Some(Event::Message(message)) => self.channel_said(&scope, &peer, address, message),
            None => {}
        }
    }

    /// Nothing carries messages to and from channels now.
    pub fn channels_lost(&self) {
        for scope in self.all() {
            let lost = scope.channels().all_lost();
            lost.iter().for_each(|peer| scope.tell_channel_ended(peer, true));
        }
    }

    /// Sends a message by a peer's channel. False: it has to go another way.
    pub(in crate::scope) fn say(&self, scope: &Scope, peer: &str, notice: &Arc<Notice>) -> bool {
        let mut channels = scope.channels();
        match channels.route(peer, notice) {
            Route::Socket => false,
            Route::TooSlow => {
                drop(channels);
                // What was lost to it is all that it did not answer: it has to start anew.
                if let Some(sink) = scope.roster().sink(peer) {
                    sink.give_up();
                }
                true
            }
            Route::Channel(address, frame) => {
                let message = to(scope, vec![address.clone()], false, frame);
                if !self.relay.say(message) {
                    // It is among those that are not answered, and goes with them.
                    self.give_up_channel(scope, peer, channels, address);
                }
                true
            }
        }
    }

    fn channel_opened(
        &self,
        scope: &Scope,
        peer: &str,
        address: Address,
        opened: &v1::ChannelOpened,
    ) {
        let v1::ChannelOpened { label, protocol } = opened;
        let mut channels = scope.channels();
        if !channels.opened(peer, address.clone(), label, protocol) {
            drop(channels);
            return self.close_channel(scope, address);
        }
        if protocol == envelope::PROTOCOL && channels.has_no_socket(peer) {
            channels.turn_on(peer);
            if let Some(sink) = scope.roster().sink(peer) {
                sink.take_messages(true);
            }
        }
    }

    fn channel_said(&self, scope: &Scope, peer: &str, address: Address, said: v1::ChannelMessage) {
        let v1::ChannelMessage { is_text, payload } = said;
        // Held until the message is handed on: what one peer says keeps its order, whichever way it comes.
        let mut channels = scope.channels();
        if !channels.is_for_messages(peer, &address) {
            let may_send = channels.check_send(peer).is_ok();
            let others = channels.plain(peer, &address).filter(|_| may_send);
            let others = others.map(|label| channels.others(peer, label)).unwrap_or_default();
            for some in others.chunks(limits::CHANNEL_RECEIVERS) {
                // Full: who listens there was promised nothing.
                self.relay.say(to(scope, some.to_vec(), is_text, payload.clone()));
            }
            return;
        }
        let (number, code) = match channels.hear(peer, &payload) {
            Heard::Answered => return,
            Heard::Wrong => return self.give_up_channel(scope, peer, channels, address),
            Heard::Again { number } => (number, 0),
            Heard::New { number, to, is_text, payload } => {
                let sent = channels.check_send(peer).and_then(|()| {
                    let _floor = self.may_speak()?;
                    scope.send_message(peer, to.as_deref(), payload, is_text, 0)
                });
                (number, sent.err().map_or(0, |fault| fault.code()))
            }
        };
        let answer = Envelope::Answer { number, code }.write();
        if !self.relay.say(to(scope, vec![address.clone()], false, answer)) {
            self.give_up_channel(scope, peer, channels, address);
        }
    }

    /// A channel for messages is used no more, and the peer is not to wait for answers there.
    fn give_up_channel(
        &self,
        scope: &Scope,
        peer: &str,
        mut channels: MutexGuard<'_, Channels>,
        address: Address,
    ) {
        let was_on = channels.closed(peer, &address);
        drop(channels);
        scope.tell_channel_ended(peer, was_on);
        self.close_channel(scope, address);
    }

    fn close_channel(&self, scope: &Scope, address: Address) {
        self.relay.say(v1::MessageToChannels {
            close: true,
            ..to(scope, vec![address], false, Vec::new())
        });
    }
}

impl Scope {
    /// A peer may open channels, and send if `may_send` says so. One that `has_socket` has to ask before it gets
    /// messages by a channel.
    pub(in crate::scope) fn admit_channels(
        &self,
        peer: &str,
        may_send: Result<(), Fault>,
        has_socket: bool,
    ) {
        self.channels().admit(peer, may_send, has_socket);
    }

    /// From now on a peer may send by its channels, if it has some, as `may_send` says.
    pub(in crate::scope) fn permit_channels(&self, peer: &str, may_send: Result<(), Fault>) {
        self.channels().permit(peer, may_send);
    }

    /// A peer's transport is gone, and its channels with it.
    pub(in crate::scope) fn lose_channels(&self, peer: &str) {
        let was_on = self.channels().lost(peer);
        self.tell_channel_ended(peer, was_on);
    }

    fn tell_channel_ended(&self, peer: &str, was_on: bool) {
        let has_no_socket = self.channels().has_no_socket(peer);
        let roster = self.roster();
        let Some(sink) = roster.sink(peer).filter(|_| was_on) else { return };
        if has_no_socket {
            sink.take_messages(false);
        }
        tell(sink);
    }
}

fn tell(sink: &Sink) {
    sink.send(&Arc::new(Notice::ChannelEnded));
}

fn to(scope: &Scope, to: Vec<Address>, is_text: bool, payload: Vec<u8>) -> v1::MessageToChannels {
    let address =
        |Address { relay_peer, channel }| v1::ChannelAddress { peer_id: relay_peer, channel };
    v1::MessageToChannels {
        scope_id: scope.relay_id.clone(),
        to: to.into_iter().map(address).collect(),
        is_text,
        payload,
        close: false,
    }
}
