//! What a client is told when it comes, or comes back.

use std::sync::Arc;

use strait_link::v1::{
    self as link, ServerMessage, endpoint::Protocol, server_message::Body,
    user_event::Body as Event,
};
use zeroize::Zeroize;

use super::Session;
use crate::limits;
use crate::link::convert;
use crate::scope::{PeerView, Speakers};

impl Session {
    /// Answers `Auth`, and tells what stands before anything new happens.
    pub(super) fn greet(&mut self, request: u32, resumed: bool, peers: &[PeerView]) {
        let (links, scope) = (Arc::clone(self.links()), Arc::clone(self.native.scope()));
        let key = scope.natives().key().map(convert::session_key);
        let path = self.media_path();
        let (peers, more) = convert::peers(peers);
        let answer = link::Authenticated {
            session_id: self.registration.session_id.clone(),
            peer_id: self.native.peer().into(),
            resumed,
            key,
            rtcp_ssrc: self.native.rtcp_ssrc(),
            endpoints: path.endpoints,
            node_ice: path.node_ice,
            client_ice: path.client_ice,
            codecs: convert::codecs(),
            extensions: convert::extensions(),
            peers,
            limits: Some(link::Limits {
                message_bytes: number(limits::MESSAGE_BYTES),
                publications: number(limits::PUBLICATIONS_PER_PEER),
                subscriptions: number(limits::SUBSCRIPTIONS_PER_PEER),
                unconfirmed_messages: number(limits::UNCONFIRMED_MESSAGES),
            }),
            reconnect_ms: u32::try_from(links.reconnect_time.as_millis()).unwrap_or(u32::MAX),
            ping_ms: u32::try_from(links.ping_time.as_millis()).unwrap_or(u32::MAX),
            messages_gone: self.outbox.gone(),
            messages_uncertain: self.is_uncertain,
        };
        let Some(wire) = &mut self.wire else { return };
        let mut message = ServerMessage { request, body: Some(Body::Authenticated(answer)) };
        wire.send_backlog(&message);
        overwrite(&mut message);
        for peer in more {
            self.restate(convert::user(Event::Joined(peer)));
        }
        let Speakers { speaking, dominant } = scope.roster().speakers().clone();
        let of = |publication: &String| {
            let roster = scope.roster();
            let (peer, _) = roster.publication(publication)?;
            Some(convert::speech(peer, publication, true))
        };
        for speech in speaking.iter().filter_map(of) {
            self.restate(convert::user(Event::Speech(speech)));
        }
        if let Some(speech) = dominant.as_ref().and_then(of) {
            self.restate(convert::user(Event::Dominant(speech)));
        }
    }

    /// The session key is another. Who has no link now gets it with the next.
    pub(super) fn tell_key(&mut self) {
        let key = self.native.scope().natives().key().map(convert::session_key);
        let (Some(key), Some(wire)) = (key, &mut self.wire) else { return };
        let mut message = ServerMessage { request: 0, body: Some(Body::KeyChanged(key)) };
        wire.send_backlog(&message);
        overwrite(&mut message);
    }

    /// Where the client's media goes.
    pub(super) fn media_path(&self) -> link::MediaPath {
        let transport = self.native.transport();
        let udp = transport.iter().flat_map(|(local, _)| local.udp.iter().map(convert::endpoint));
        let tls = self.links().relay_tcp.and(self.port).map(|port| link::Endpoint {
            protocol: Protocol::Tls.into(),
            purpose: link::endpoint::Purpose::Any.into(),
            address: String::new(),
            port: port.into(),
        });
        link::MediaPath {
            endpoints: udp.chain(tls).collect(),
            node_ice: transport.map(|(local, _)| convert::credentials(&local.ice)),
            client_ice: transport.map(|(_, client)| convert::credentials(client)),
        }
    }
}

/// Overwrites the session key in a message that was sent.
fn overwrite(message: &mut ServerMessage) {
    let key = match &mut message.body {
        Some(Body::Authenticated(answer)) => answer.key.as_mut(),
        Some(Body::KeyChanged(key)) => Some(key),
        _ => None,
    };
    if let Some(key) = key {
        key.key.zeroize();
        key.salt.zeroize();
    }
}

fn number(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
