//! What the node says: its answers, and what happens in the scope.

use super::{Asked, Client, Event, Handle, Link};
use crate::core::path::Random;
use crate::core::sending::Stream;
use crate::core::subscriptions::KNOWN;
use crate::error::Error;
use std::time::Duration;
use strait_link::v1::{self, client_message, server_message, user_event};

impl<R: Random> Client<R> {
    pub(super) fn on_message(&mut self, now: Duration, message: v1::ServerMessage) {
        use server_message::Body;
        let asked = self.asked.remove(&message.request).filter(|_| message.request != 0);
        let Some(body) = message.body else { return };
        match (body, asked) {
            (Body::Authenticated(session), Some(Asked::Auth)) => self.joined(now, session),
            (Body::Error(error), asked) => {
                let (retry, error) = (error.retry_ms, Error::from(error));
                match asked {
                    Some(
                        Asked::Publish(handle) | Asked::Other(handle) | Asked::Subscribe(handle, _),
                    ) => {
                        self.publications.retain(|one| one.handle != handle || one.id.is_some());
                        self.subscriptions.refused(handle);
                        self.event(Event::Refused { handle, error });
                    }
                    Some(Asked::Auth) => self.refused(now, error, retry),
                    Some(Asked::Own) => {}
                    None if message.request == 0 => self.refused(now, error, retry),
                    None => {}
                }
            }
            (Body::Published(published), Some(Asked::Publish(handle))) => {
                self.published(handle, &published);
            }
            (Body::Subscribed(subscribed), Some(Asked::Subscribe(handle, clock))) => {
                let id = subscribed.subscription_id;
                if !self.subscriptions.subscribed(handle, &id) {
                    // The application ended it meanwhile, by its name on the node before.
                    let subscription_id = id;
                    let end = v1::Unsubscribe { subscription_id };
                    return self.ask(Asked::Own, client_message::Body::Unsubscribe(end));
                }
                self.media.subscribe(&id, subscribed.ssrc, subscribed.rtx_ssrc, clock);
                for encoding in subscribed.encodings {
                    // What comes directly from the publisher; the same with `as_sent`.
                    self.media.subscribe(&id, encoding.ssrc, encoding.rtx_ssrc, clock);
                }
                self.media.pause(&id, self.subscriptions.is_paused(&id));
                self.event(Event::Subscribed { handle, subscription_id: id });
            }
            (Body::Done(_), Some(Asked::Other(handle))) => self.event(Event::Done { handle }),
            (Body::Statistics(statistics), Some(Asked::Other(handle))) => {
                self.event(Event::Statistics { handle, json: statistics.json });
            }
            (Body::Ping(ping), _) => {
                self.tell(client_message::Body::Pong(v1::Pong { token: ping.token }));
            }
            (Body::Event(event), _) => self.on_event(now, event),
            (Body::Message(message), _) => self.on_received(message),
            (Body::MessagesTaken(taken), _) => {
                // After a reconnect the node names some once more.
                let numbers = taken.undelivered.iter();
                let numbers = numbers.filter_map(|number| self.outbox.waiting(*number));
                let numbers = numbers.collect::<Vec<_>>();
                self.outbox.taken(taken.number);
                if !numbers.is_empty() {
                    self.event(Event::Undelivered { numbers });
                }
                self.feed();
                if self.leaves_by.is_some() && self.outbox.is_empty() {
                    self.leave_at_once(now);
                }
            }
            (Body::MessagesLost(lost), _) => {
                let v1::MessagesLost { peer_id, count, first, last } = lost;
                let named = (self.outbox.named(first), self.outbox.named(last));
                if let (Some(first), Some(last)) = named {
                    self.event(Event::MessagesLost { peer_id, count, first, last });
                }
            }
            (Body::Media(media), _) => self.on_packet(now, None, media.packet),
            (Body::Redirect(redirect), _) => self.redirected(now, redirect),
            (Body::Direct(mut direct), _) => {
                self.media.set_wanted(direct.wanted.take());
                self.transport.offer(now, &direct, &mut self.random);
            }
            (Body::DirectWanted(wanted), _) => self.media.set_wanted(Some(wanted)),
            (Body::DirectEnded(_), _) => self.transport.withdraw(now),
            (Body::SubscriptionsEnded(ended), _) => {
                for id in ended.subscription_ids {
                    self.media.unsubscribe(&id);
                    self.subscriptions.unsubscribed(&id);
                }
            }
            (Body::KeyChanged(mut key), _) => {
                let changed = self.media.change_key(now, &key);
                overwrite(&mut key);
                if let Err(why) = changed {
                    self.lose(now, Error::Protocol(why));
                }
                for (side, packet) in self.media.take_early(now) {
                    self.on_protected(now, side, packet);
                }
                self.flush();
            }
            _ => {}
        }
    }

    fn joined(&mut self, now: Duration, mut session: v1::Authenticated) {
        let moved = self.session.is_some() && self.session_at != self.at;
        session.resumed &= self.session.is_some() && !moved;
        if let Err(why) = self.media.start(now, &session) {
            return self.lose(now, Error::Protocol(why));
        }
        // The ciphers have it, and overwrite it in the end.
        if let Some(mut key) = session.key.take() {
            overwrite(&mut key);
        }
        (self.link, self.failures, self.refusals) = (Link::Joined, 0, 0);
        self.sent_on.clear();
        (self.doubted, self.session_at) = (None, self.at.clone());
        self.failed.clear();
        self.outbox.limit(session.limits.unwrap_or_default().unconfirmed_messages);
        let resumed = session.resumed;
        if moved {
            self.event(Event::Moved { node: self.at.to_string() });
        }
        if !resumed {
            self.seen = 0;
            self.clocks.clear();
            self.subscriptions.begin(now, &session.peers);
            self.publications.iter_mut().for_each(|one| one.id = None);
        }
        // Media that was lost while there was no link goes by another path; any other goes on.
        let ice = session.client_ice.as_ref();
        let before = self.session.as_ref().and_then(|session| session.client_ice.as_ref());
        if !resumed || (ice.is_some() && ice != before) {
            let path = v1::MediaPath {
                endpoints: session.endpoints.clone(),
                node_ice: session.node_ice.clone(),
                client_ice: session.client_ice.clone(),
            };
            self.transport.start(now, &path, self.node, &mut self.random);
        }
        self.session = Some(session.clone());
        self.outbox.rewind(resumed);
        self.feed();
        for publication in session.peers.iter().flat_map(|peer| &peer.publications) {
            self.learn(publication);
        }
        let (peer_id, peers) = (session.peer_id, session.peers);
        self.event(Event::Joined { peer_id, resumed, peers });
        if resumed {
            let lost = session.messages_gone.saturating_sub(self.seen);
            self.seen += lost;
            let count = (!session.messages_uncertain).then_some(lost);
            if count != Some(0) {
                self.event(Event::MessagesMissed { count });
            }
        }
        self.publish_missing();
        self.subscribe_found();
    }

    fn publish_missing(&mut self) {
        let missing = self.publications.iter().filter(|one| one.id.is_none());
        for handle in missing.map(|one| one.handle).collect::<Vec<_>>() {
            self.publish_again(handle);
        }
    }

    fn published(&mut self, handle: Handle, published: &v1::Published) {
        let Some(one) = self.publications.iter_mut().find(|one| one.handle == handle) else {
            return;
        };
        let publication_id = published.publication_id.clone();
        one.id = Some(publication_id.clone());
        let codecs = self.session.iter().flat_map(|session| &session.codecs);
        let codec =
            codecs.clone().find(|codec| codec.name.eq_ignore_ascii_case(&one.request.codec));
        let codec = codec.cloned().unwrap_or_default();
        let streams = published.encodings.iter().map(|encoding| Stream {
            ssrc: encoding.ssrc,
            rtx_ssrc: if codec.rtx_payload_type == 0 { 0 } else { encoding.rtx_ssrc },
            payload_type: codec.payload_type as u8,
            rtx_payload_type: codec.rtx_payload_type as u8,
            clock_rate_hz: codec.clock_rate_hz,
        });
        self.media.publish(&publication_id, streams, &mut self.random);
        let encodings = published.encodings.len();
        self.event(Event::Published { handle, publication_id, encodings });
    }

    fn on_event(&mut self, now: Duration, event: v1::UserEvent) {
        let Some(body) = event.body else { return };
        match &body {
            user_event::Body::Started(started) => {
                if let Some(publication) = &started.publication {
                    self.learn(publication);
                    self.subscriptions.started(&started.peer_id, publication);
                }
            }
            user_event::Body::Joined(peer) => {
                self.subscriptions.joined(peer);
                for publication in &peer.publications {
                    self.learn(publication);
                }
            }
            user_event::Body::Left(left) => self.subscriptions.left(&left.peer_id),
            user_event::Body::Ended(ended) => {
                self.clocks.remove(&ended.publication_id);
                self.subscriptions.ended(now, &ended.publication_id);
            }
            user_event::Body::MediaLost(_) => {
                // Subscriptions are the application's to make again without a cluster, publications ours.
                self.media.forget_streams();
                self.subscriptions.wait(now);
                self.publications.iter_mut().for_each(|one| one.id = None);
                self.publish_missing();
            }
            user_event::Body::MediaPath(path) => {
                if let Some(session) = &mut self.session {
                    session.client_ice.clone_from(&path.client_ice);
                }
                self.transport.start(now, path, self.node, &mut self.random);
            }
            _ => {}
        }
        self.event(Event::Scope(body));
        self.subscribe_found();
    }

    /// Keeps what a subscription to it will need.
    fn learn(&mut self, publication: &v1::Publication) {
        let codecs = self.session.iter().flat_map(|session| &session.codecs);
        let codec =
            codecs.clone().find(|codec| codec.name.eq_ignore_ascii_case(&publication.codec));
        let clock = codec.map_or(90_000, |codec| codec.clock_rate_hz);
        if self.clocks.len() < KNOWN {
            self.clocks.insert(publication.publication_id.clone(), clock);
        }
    }

    fn on_received(&mut self, message: v1::MessageReceived) {
        let new = message.number > self.seen;
        if new {
            self.seen = message.number;
            let v1::MessageReceived { from, payload, text, direct, .. } = message;
            self.event(Event::Message { from, payload, text, direct });
        }
        // Also of what came twice: the confirmation may have been lost with a link.
        self.tell(client_message::Body::MessageSeen(v1::MessageSeen { number: self.seen }));
    }

    pub(super) fn publish_again(&mut self, handle: Handle) {
        let Some(one) = self.publications.iter().find(|one| one.handle == handle) else { return };
        let body = client_message::Body::Publish(one.request.clone());
        self.ask(Asked::Publish(handle), body);
    }
}

/// The ciphers have it, and overwrite it in the end.
fn overwrite(key: &mut v1::SessionKey) {
    key.key.fill(0);
    key.salt.fill(0);
    std::hint::black_box(key);
}
