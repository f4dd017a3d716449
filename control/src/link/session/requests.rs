//! What a client says, and what it is answered.

use std::sync::Arc;

use strait_link::MESSAGE_BYTES;
use strait_link::v1::{
    self as link, ClientMessage, ErrorCode, client_message::Body as Request, server_message::Body,
    user_event::Body as Event,
};
use tokio::time::Instant;
use tracing::debug;

use super::{Ending, LEFT, Session};
use crate::fault::{Class, Fault};
use crate::link::convert;
use crate::link::counters::count;
use crate::link::mailbox::Number;
use crate::link::tunnel::Tunnel;
use crate::link::wire::Wire;
use crate::scope;
use crate::scope::native::Subscribed;
use crate::{id, limits};

impl Session {
    /// Takes a message and those that came with it.
    pub(super) async fn on_messages(&mut self, first: ClientMessage) -> Option<Ending> {
        self.is_pinged = false;
        let mut next = Some(first);
        for _ in 0..limits::LINK_BATCH {
            let Some(message) = next.take() else { break };
            if let Some(ending) = self.on_message(message).await {
                return Some(ending);
            }
            match self.wire.as_mut().map(Wire::try_next) {
                Some(Ok(message)) => next = message,
                Some(Err(end)) => self.on_end(end),
                None => {}
            }
        }
        if let Some(message) = next
            && let Some(ending) = self.on_message(message).await
        {
            return Some(ending);
        }
        // Without a link it waits for the next.
        if self.inbox.is_due() && self.wire.is_some() {
            self.tell_taken(0);
        }
        None
    }

    async fn on_message(&mut self, message: ClientMessage) -> Option<Ending> {
        let ClientMessage { request, body } = message;
        let Some(body) = body else {
            count(&self.counters().unknown);
            self.keep_pace(0);
            let text = "this node does not know the request; it is older than the client";
            self.refuse(request, convert::error(ErrorCode::UnknownRequest, text));
            return None;
        };
        self.counters().received(&body);
        match &body {
            // Who only answers, or sends media, is not held up.
            Request::Media(_) | Request::MessageSeen(_) | Request::Pong(_) => {}
            Request::SendMessage(message) => self.keep_pace(message.payload.len()),
            _ => self.keep_pace(0),
        }
        match body {
            Request::SendMessage(message) => self.on_send(request, message),
            Request::MessageSeen(seen) => {
                if self.outbox.seen(seen.number) {
                    self.stalled = None;
                }
            }
            Request::Media(media) => {
                count(&self.counters().media_in);
                if !self.on_media(&media.packet).await {
                    count(&self.counters().media_dropped);
                }
            }
            Request::Ping(ping) => self.send(request, Body::Pong(link::Pong { token: ping.token })),
            Request::Pong(_) => {}
            Request::TransportReport(report) => {
                let state = report.state();
                debug!(peer = self.native.peer(), ?state, "media");
                self.done(request);
            }
            Request::Leave(_) => {
                self.done(request);
                return Some(Ending::silent(LEFT));
            }
            body => {
                let changes =
                    !matches!(body, Request::SetPreferences(_) | Request::GetStatistics(_));
                // What a request needs on its way is no part of what an idle session keeps.
                let outcome = Box::pin(self.on_request(body)).await;
                if changes {
                    Box::pin(self.note()).await;
                }
                match outcome {
                    Ok(Body::Done(_)) => self.done(request),
                    Ok(answer) if request > 0 => self.send(request, answer),
                    Ok(_) => {}
                    Err(fault) => self.refuse(request, fault.into()),
                }
            }
        }
        None
    }

    /// A client that speaks too fast is read later.
    fn keep_pace(&mut self, bytes: usize) {
        let until = self.pace.take(Instant::now().into_std(), bytes);
        if let (Some(until), Some(wire)) = (until, &mut self.wire) {
            wire.hold(until.into());
            count(&self.counters().held);
        }
    }

    async fn on_request(&mut self, body: Request) -> Result<Body, Fault> {
        let done = Body::Done(link::Done {});
        if let Some((what, name)) = named(&body) {
            id::check_name(what, name, limits::NAME_BYTES)?;
        }
        match body {
            Request::Auth(_) => Err(Fault::conflict("this link has a session already")),
            Request::Publish(publish) => {
                self.connect().await?;
                let (publication_id, encodings) =
                    self.native.publish(convert::publish(publish)?).await?;
                let encodings = encodings.iter().map(convert::encoding).collect();
                Ok(Body::Published(link::Published { publication_id, encodings }))
            }
            Request::Unpublish(unpublish) => {
                self.native.unpublish(&unpublish.publication_id).await?;
                Ok(done)
            }
            Request::SetMuted(muted) => {
                self.native.set_muted(&muted.publication_id, muted.muted).await?;
                Ok(done)
            }
            Request::Subscribe(subscribe) => {
                self.connect().await?;
                let preferences = subscribe.preferences.map(convert::preferences);
                let link::Subscribe { publication_id, as_sent, .. } = subscribe;
                let subscribed =
                    self.native.subscribe(&publication_id, preferences, as_sent).await?;
                let Subscribed { subscription, sent, encodings, payload_type } = subscribed;
                Ok(Body::Subscribed(link::Subscribed {
                    subscription_id: subscription,
                    ssrc: sent.ssrc,
                    rtx_ssrc: sent.rtx_ssrc,
                    encodings: encodings.iter().map(convert::encoding).collect(),
                    payload_type: payload_type.into(),
                }))
            }
            Request::Unsubscribe(unsubscribe) => {
                self.native.unsubscribe(&unsubscribe.subscription_id).await?;
                Ok(done)
            }
            Request::SetPreferences(set) => {
                let preferences = convert::preferences(set.preferences.unwrap_or_default());
                self.native.prefer(&set.subscription_id, preferences).await?;
                Ok(done)
            }
            Request::AllowSenders(allow) => {
                let subscription_ids = self.native.allow(convert::allow(allow)?).await?;
                if !subscription_ids.is_empty() {
                    let ended = link::SubscriptionsEnded { subscription_ids };
                    self.tell(Body::SubscriptionsEnded(ended));
                }
                Ok(done)
            }
            Request::GetStatistics(_) => {
                let statistics = self.native.statistics().await?;
                let json = scope::statistics::peer(&statistics).to_string();
                Ok(Body::Statistics(link::Statistics { json }))
            }
            _ => Err(Fault::internal("a message was taken for a request")),
        }
    }

    /// Opens a transport where the one before was lost, and tells the client where it is.
    async fn connect(&mut self) -> Result<(), Fault> {
        if self.native.connect().await? {
            let path = self.media_path();
            self.tell(convert::user(Event::MediaPath(path)));
        }
        Ok(())
    }

    fn on_send(&mut self, request: u32, message: link::SendMessage) {
        let scopes = Arc::clone(&self.links().scopes);
        // Neither taken nor refused: its client says it again to the process that comes.
        let Ok(_floor) = scopes.may_speak() else { return };
        let link::SendMessage { number, to, payload, text } = message;
        match self.inbox.take(number) {
            Number::Again => {}
            Number::Gap { expected } => {
                let text = format!(
                    "message {number} came where {expected} was expected: send again from there"
                );
                return self.refuse(request, convert::error(ErrorCode::Conflict, text));
            }
            Number::Next => {
                let to = (!to.is_empty()).then_some(to.as_str());
                let (scope, peer) = (self.native.scope(), self.native.peer());
                let sent = self.native.identity().check_message();
                let sent = sent.and_then(|()| scope.send_message(peer, to, payload, text, number));
                if let Err(fault) = sent {
                    self.inbox.undelivered(number);
                    if !matches!(fault.class, Class::NotFound) {
                        return self.refuse(request, fault.into());
                    }
                }
            }
        }
        if request > 0 {
            self.tell_taken(request);
        }
    }

    pub(super) fn tell_taken(&mut self, request: u32) {
        let (number, undelivered) = self.inbox.tell();
        self.send(request, Body::MessagesTaken(link::MessagesTaken { number, undelivered }));
    }

    /// Passes a packet on to the relay. False when it is dropped.
    async fn on_media(&mut self, packet: &[u8]) -> bool {
        if self.tunnel.is_none() {
            let opened = self.tunnel_opened.replace(Instant::now());
            if opened.is_some_and(|opened| opened.elapsed() < limits::LINK_MEDIA_PAUSE) {
                self.tunnel_opened = opened;
                return false;
            }
            let Some(relay) = self.links().relay_tcp else { return false };
            let address = self.registration.place.address();
            let Ok(place) = self.links().tunnel_places.enter(address) else { return false };
            match Box::pin(Tunnel::open(relay, place)).await {
                Ok(tunnel) => self.tunnel = Some(tunnel),
                Err(error) => {
                    debug!(peer = self.native.peer(), "the relay's TCP: {error}");
                    return false;
                }
            }
        }
        self.tunnel.as_mut().is_some_and(|tunnel| tunnel.send(packet))
    }

    fn done(&mut self, request: u32) {
        if request > 0 {
            self.send(request, Body::Done(link::Done {}));
        }
    }

    /// Refuses a request. One that asks for no answer gets none: an error without a number would
    /// end the link.
    fn refuse(&mut self, request: u32, error: link::Error) {
        self.counters().refused(error.code());
        if request > 0 {
            self.send(request, Body::Error(error));
        }
    }
}

/// What a request is about, and what that is. Errors repeat it.
fn named(body: &Request) -> Option<(&'static str, &str)> {
    let publication = "the publication's identifier";
    let subscription = "the subscription's identifier";
    match body {
        Request::Publish(request) => Some(("the codec", &request.codec)),
        Request::Unpublish(request) => Some((publication, &request.publication_id)),
        Request::SetMuted(request) => Some((publication, &request.publication_id)),
        Request::Subscribe(request) => Some((publication, &request.publication_id)),
        Request::Unsubscribe(request) => Some((subscription, &request.subscription_id)),
        Request::SetPreferences(request) => Some((subscription, &request.subscription_id)),
        _ => None,
    }
}

const _: () = assert!(limits::MESSAGE_BYTES < MESSAGE_BYTES);
