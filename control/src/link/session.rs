//! One native client's session: lives as long as its link, and some time without one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use strait_link::MESSAGE_BYTES;
use strait_link::v1::{
    self as link, Auth, ClientMessage, ErrorCode, ServerMessage, client_message::Body as Request,
    endpoint::Protocol, server_message::Body, transport_report::State, user_event::Body as Event,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info};
use zeroize::Zeroize;

use super::counters::{Counters, count};
use super::mailbox::{Inbox, Number, Outbox};
use super::tunnel::Tunnel;
use super::wire::{End, Wire};
use super::{Attach, Link, Links, Refusal, Registration, convert, unreadable};
use crate::auth::Identity;
use crate::fault::{Class, Fault};
use crate::scope::native::Subscribed;
use crate::scope::{self, Message, Native, Notice, PeerView, Sink, Speakers};
use crate::{id, limits};

type Tagged = (u64, Arc<Notice>);

/// One session.
pub(super) struct Session {
    registration: Registration,
    native: Native,
    sink: Sink,
    notices: mpsc::Receiver<Tagged>,
    attached: mpsc::Receiver<Attach>,
    wire: Option<Wire>,
    port: u16,
    /// Since when there is no link.
    lost: Option<Instant>,
    /// A ping went out since something came last.
    is_pinged: bool,
    pings: u64,
    inbox: Inbox,
    outbox: Outbox,
    tunnel: Option<Tunnel>,
    tunnel_opened: Option<Instant>,
    /// Who else was there when it began, and the number of the request that began it.
    greeting: Option<(u32, Vec<PeerView>)>,
    missed: Missed,
}

/// What happened while there was no link, and is not in the answer to `Auth`.
#[derive(Default)]
struct Missed {
    media_lost: Option<String>,
    layers: Vec<link::LayersWanted>,
}

/// How a session ends.
struct Ending {
    /// As others are told.
    reason: &'static str,
    /// As the client is told.
    error: Option<link::Error>,
}

impl Ending {
    fn silent(reason: &'static str) -> Self {
        Self { reason, error: None }
    }

    fn with(reason: &'static str, code: ErrorCode, text: &str) -> Self {
        Self { reason, error: Some(convert::error(code, text)) }
    }
}

impl Session {
    /// Enters the scope.
    ///
    /// # Errors
    /// As [`Native::enter`].
    pub(super) async fn begin(
        registration: Registration,
        identity: Identity,
        (request, port): (u32, u16),
        auth: &Auth,
        attached: mpsc::Receiver<Attach>,
    ) -> Result<Self, Refusal> {
        let name = Some(auth.name.as_str()).filter(|name| !name.is_empty());
        // A name in the credential is the application's word and wins over what the client says.
        let name = identity.name.clone().or_else(|| name.map(str::to_owned));
        let name = name.unwrap_or_else(|| match identity.subject.is_empty() {
            true => "guest".into(),
            false => identity.subject.clone(),
        });
        let (notices_in, notices) = mpsc::channel(limits::NOTICES);
        let sink = Sink::new(notices_in, 0).with_messages();
        let peer = id::random("p")?;
        let scopes = &registration.links.scopes;
        let (scope, profiles) = (auth.scope_id.as_str(), &auth.profiles);
        let (native, peers) =
            Native::enter(scopes, identity, scope, (&peer, &name), profiles, sink.clone()).await?;
        info!(session = registration.session_id, peer, client = ?auth.client, "link session begins");
        Ok(Self {
            registration,
            native,
            sink,
            notices,
            attached,
            wire: None,
            port,
            lost: None,
            is_pinged: false,
            pings: 0,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            tunnel: None,
            tunnel_opened: None,
            greeting: Some((request, peers)),
            missed: Missed::default(),
        })
    }

    /// Answers `Auth`, then serves the client until it is gone for good.
    pub(super) async fn run(mut self, link: Link) {
        let mut shutdown = self.links().shutdown.clone();
        self.take_link(link);
        if let Some((request, peers)) = self.greeting.take() {
            self.greet(request, false, &peers);
        }
        let ending = loop {
            let deadline = self.deadline();
            tokio::select! {
                message = next(&mut self.wire) => match message {
                    Ok(message) => {
                        if let Some(ending) = self.on_messages(message).await {
                            break ending;
                        }
                    }
                    Err(end) => self.on_end(end),
                },
                Some((_, notice)) = self.notices.recv() => {
                    if let Some(ending) = self.on_notice(notice).await {
                        break ending;
                    }
                }
                packet = receive(&mut self.tunnel) => self.on_packet(packet),
                Some(attach) = self.attached.recv() => Box::pin(self.resume(attach)).await,
                () = tokio::time::sleep_until(deadline) => {
                    if let Some(ending) = self.on_time() {
                        break ending;
                    }
                }
                () = is_true(&mut shutdown) => {
                    let text = "the server is ending; come back in some seconds";
                    break Ending::with("server is ending", ErrorCode::Unavailable, text);
                }
            }
        };
        self.end(ending).await;
    }

    async fn end(mut self, ending: Ending) {
        info!(session = self.registration.session_id, reason = ending.reason, "link session ends");
        if self.lost.is_some() {
            self.links().waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(mut wire) = self.wire.take() {
            if let Some(error) = ending.error {
                self.counters().refused(error.code());
                wire.send(&ServerMessage { request: 0, body: Some(Body::Error(error)) });
            }
            tokio::spawn(wire.close());
        }
        // A reconnect that came a moment too late begins afresh.
        self.attached.close();
        while let Ok(attach) = self.attached.try_recv() {
            let _ = attach.refused.send(attach.link);
        }
        self.native.leave(ending.reason).await;
    }

    fn links(&self) -> &Arc<Links> {
        &self.registration.links
    }

    fn counters(&self) -> &Counters {
        self.links().counters()
    }

    // ------------------------------------------------------------------------ the link itself

    fn take_link(&mut self, link: Link) {
        link.pass.opened(&self.registration.session_id);
        self.wire = Some(link.wire);
        self.port = link.port;
        self.is_pinged = false;
        if self.lost.take().is_some() {
            self.links().waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The link is gone; the session waits for another.
    fn lose_link(&mut self, error: Option<link::Error>) {
        let Some(mut wire) = self.wire.take() else { return };
        self.lost = Some(Instant::now());
        self.tunnel = None;
        self.links().waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = error {
            self.counters().refused(error.code());
            // Who comes back faster than it reads would leave much behind with each link.
            let is_read = wire.waiting() <= limits::LINK_OUT_BYTES / 4;
            if is_read || error.code() != ErrorCode::Conflict {
                wire.send(&ServerMessage { request: 0, body: Some(Body::Error(error)) });
                tokio::spawn(wire.close());
            }
        }
    }

    fn on_end(&mut self, end: End) {
        match end {
            End::Closed(error) => {
                debug!(session = self.registration.session_id, "link lost: {error}");
                self.lose_link(None);
            }
            End::Unreadable(error) => {
                let Refusal { code, reason } = unreadable(&error);
                self.lose_link(Some(convert::error(code, reason)));
            }
        }
    }

    /// When something must be done though nothing comes.
    fn deadline(&self) -> Instant {
        let Some(wire) = &self.wire else {
            let lost = self.lost.unwrap_or_else(Instant::now);
            return lost + self.links().reconnect_time;
        };
        let silence = self.links().ping_time * if self.is_pinged { 3 } else { 1 };
        let others = [
            wire.blocked().map(|since| since + limits::WRITE_TIME),
            self.tunnel.as_ref().map(|tunnel| tunnel.used() + limits::LINK_MEDIA_IDLE),
        ];
        others.into_iter().flatten().fold(wire.heard() + silence, Instant::min)
    }

    fn on_time(&mut self) -> Option<Ending> {
        let now = Instant::now();
        let ping_time = self.links().ping_time;
        let Some(wire) = &self.wire else {
            let is_over = self.lost.is_none_or(|lost| now >= lost + self.links().reconnect_time);
            return is_over.then(|| Ending::silent("connection lost"));
        };
        if self.tunnel.as_ref().is_some_and(|t| now >= t.used() + limits::LINK_MEDIA_IDLE) {
            self.tunnel = None;
        }
        if wire.blocked().is_some_and(|since| now >= since + limits::WRITE_TIME) {
            self.lose_link(Some(too_slow()));
        } else if now >= wire.heard() + 3 * ping_time {
            let text =
                format!("nothing came for {} s, no answer to pings", 3 * ping_time.as_secs());
            self.lose_link(Some(convert::error(ErrorCode::TimedOut, text)));
        } else if now >= wire.heard() + ping_time && !self.is_pinged {
            self.is_pinged = true;
            self.pings += 1;
            self.tell(Body::Ping(link::Ping { token: self.pings }));
        }
        None
    }

    /// Sends an answer, or what nobody asked for with `request` 0. A reader that is too slow loses
    /// the link; the session stays.
    fn send(&mut self, request: u32, body: Body) {
        let Some(wire) = &mut self.wire else { return };
        if !wire.send(&ServerMessage { request, body: Some(body) }) {
            self.lose_link(Some(too_slow()));
        }
    }

    fn tell(&mut self, body: Body) {
        self.send(0, body);
    }

    /// Tells what stood before the link began.
    fn restate(&mut self, body: Body) {
        if let Some(wire) = &mut self.wire {
            wire.send_backlog(&ServerMessage { request: 0, body: Some(body) });
        }
    }

    // ------------------------------------------------------------------------------- greeting

    /// Answers `Auth`, and tells what stands before anything new happens.
    fn greet(&mut self, request: u32, resumed: bool, peers: &[PeerView]) {
        let (links, scope) = (Arc::clone(self.links()), Arc::clone(self.native.scope()));
        let key = scope.natives().key().map(|key| link::SessionKey {
            profile: key.profile().number(),
            key: key.key().to_vec(),
            salt: key.salt().to_vec(),
        });
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
        };
        let Some(wire) = &mut self.wire else { return };
        let mut message = ServerMessage { request, body: Some(Body::Authenticated(answer)) };
        wire.send_backlog(&message);
        if let Some(Body::Authenticated(answer)) = &mut message.body
            && let Some(key) = &mut answer.key
        {
            key.key.zeroize();
            key.salt.zeroize();
        }
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

    /// Where the client's media goes.
    fn media_path(&self) -> link::MediaPath {
        let endpoint = |protocol: Protocol, address: String, port: u16| link::Endpoint {
            protocol: protocol.into(),
            purpose: link::endpoint::Purpose::Any.into(),
            address,
            port: port.into(),
        };
        let of = |address: &SocketAddr| {
            endpoint(Protocol::Udp, address.ip().to_string(), address.port())
        };
        let transport = self.native.transport();
        let udp = transport.iter().flat_map(|(local, _)| local.udp.iter().map(of));
        let tls = self.links().relay_tcp.map(|_| endpoint(Protocol::Tls, String::new(), self.port));
        link::MediaPath {
            endpoints: udp.chain(tls).collect(),
            node_ice: transport.map(|(local, _)| convert::credentials(&local.ice)),
            client_ice: transport.map(|(_, client)| convert::credentials(client)),
        }
    }

    /// Goes on with another link.
    async fn resume(&mut self, attach: Attach) {
        let Attach { link, request, messages_seen, refused: _ } = attach;
        info!(session = self.registration.session_id, "link session resumed");
        count(&self.counters().resumed);
        if self.wire.is_some() {
            let text = "the client came back over another link";
            self.lose_link(Some(convert::error(ErrorCode::Conflict, text)));
        }
        if let Err(fault) = self.native.connect().await {
            debug!(session = self.registration.session_id, "no transport for now: {fault}");
        }
        self.take_link(link);
        let peers = self.native.scope().roster().others(self.native.peer());
        self.greet(request, true, &peers);
        let missed = std::mem::take(&mut self.missed);
        if let Some(reason) = missed.media_lost {
            self.restate(convert::user(Event::MediaLost(link::MediaLost { reason })));
        }
        for layers in missed.layers {
            self.restate(convert::user(Event::LayersWanted(layers)));
        }
        self.inbox.link_begins();
        self.tell_taken(0);
        self.outbox.seen(messages_seen);
        let unconfirmed: Vec<_> = self
            .outbox
            .unconfirmed()
            .map(|(number, notice)| (number, Arc::clone(notice)))
            .collect();
        for (number, notice) in unconfirmed {
            if let Notice::Message(message) = &*notice {
                self.restate(received(number, message));
            }
        }
    }

    // --------------------------------------------------------------------------- what happens

    async fn on_notice(&mut self, notice: Arc<Notice>) -> Option<Ending> {
        if self.sink.is_lagging() {
            let text = "events were lost, this client was too slow; join anew";
            return Some(Ending::with("too slow", ErrorCode::SlowReader, text));
        }
        match &*notice {
            Notice::Message(message) => {
                let Some(number) = self.outbox.push(Arc::clone(&notice), message.payload.len())
                else {
                    let text = "too many messages were not confirmed (MessageSeen); join anew";
                    return Some(Ending::with("too slow", ErrorCode::SlowReader, text));
                };
                count(&self.counters().messages);
                let body = received(number, message);
                self.tell(body);
                return None;
            }
            Notice::Unpublished { publication, .. } => {
                Box::pin(self.native.on_unpublished(publication)).await;
            }
            Notice::MediaLost { relay_peer, reason } => {
                if !self.native.on_media_lost(relay_peer) {
                    return None; // of a transport that was replaced
                }
                self.tunnel = None;
                if self.wire.is_none() {
                    self.missed.media_lost = Some(reason.clone());
                }
            }
            Notice::Layers { publication, encodings } if self.wire.is_none() => {
                self.missed.layers.retain(|missed| missed.publication_id != *publication);
                let (publication_id, encodings) = (publication.clone(), encodings.clone());
                self.missed.layers.push(link::LayersWanted { publication_id, encodings });
            }
            Notice::Connected { is_tcp } => {
                let state = match (&self.tunnel, is_tcp) {
                    (Some(_), true) => State::Link,
                    (None, true) => State::TcpRelay,
                    (_, false) => State::UdpRelay,
                };
                let event = Event::Connected(link::Connected { state: state.into() });
                self.tell(convert::user(event));
            }
            _ => {}
        }
        // Who comes back learns from the answer to `Auth` who is there.
        if let Some(body) = convert::event(&notice) {
            self.tell(body);
        }
        None
    }

    fn on_packet(&mut self, packet: std::io::Result<Vec<u8>>) {
        let links = Arc::clone(self.links());
        match (packet, &mut self.wire) {
            (Ok(packet), Some(wire)) => {
                count(&links.counters.media_out);
                let dropped = wire.send_media(packet);
                links.counters.media_dropped.fetch_add(dropped, Ordering::Relaxed);
            }
            (Ok(_), None) => count(&links.counters.media_dropped),
            (Err(error), _) => {
                debug!(session = self.registration.session_id, "media over the link: {error}");
                self.tunnel = None;
            }
        }
    }

    // --------------------------------------------------------------------- what the client says

    /// Takes a message and those that came with it.
    async fn on_messages(&mut self, first: ClientMessage) -> Option<Ending> {
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
            let text = "this node does not know the request; it is older than the client";
            self.refuse(request, convert::error(ErrorCode::UnknownRequest, text));
            return None;
        };
        self.counters().received(&body);
        match body {
            Request::SendMessage(message) => self.on_send(request, message),
            Request::MessageSeen(seen) => self.outbox.seen(seen.number),
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
                debug!(session = self.registration.session_id, ?state, "media");
                self.done(request);
            }
            Request::Leave(_) => {
                self.done(request);
                return Some(Ending::silent("left"));
            }
            body => {
                // What a request needs on its way is no part of what an idle session keeps.
                match Box::pin(self.on_request(body)).await {
                    Ok(Body::Done(_)) => self.done(request),
                    Ok(answer) if request > 0 => self.send(request, answer),
                    Ok(_) => {}
                    Err(fault) => {
                        let code = convert::code(fault.class);
                        self.refuse(request, convert::error(code, fault.reason));
                    }
                }
            }
        }
        None
    }

    async fn on_request(&mut self, body: Request) -> Result<Body, Fault> {
        let done = Body::Done(link::Done {});
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
                self.native.allow(convert::allow(allow)?).await?;
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
                let sent = sent.and_then(|()| scope.send_message(peer, to, payload, text));
                if let Err(fault) = sent {
                    self.inbox.undelivered(number);
                    if !matches!(fault.class, Class::NotFound) {
                        let code = convert::code(fault.class);
                        return self.refuse(request, convert::error(code, fault.reason));
                    }
                }
            }
        }
        if request > 0 {
            self.tell_taken(request);
        }
    }

    fn tell_taken(&mut self, request: u32) {
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
            match Tunnel::open(relay).await {
                Ok(tunnel) => self.tunnel = Some(tunnel),
                Err(error) => {
                    debug!(session = self.registration.session_id, "the relay's TCP: {error}");
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

/// A message as its receiver is told it.
fn received(number: u64, message: &Message) -> Body {
    Body::Message(link::MessageReceived {
        number,
        from: message.from.clone(),
        payload: message.payload.clone(),
        text: message.is_text,
        direct: message.is_direct,
    })
}

fn too_slow() -> link::Error {
    let text = "the client reads too slowly, or its line is too narrow; come back, and read faster";
    convert::error(ErrorCode::SlowReader, text)
}

fn number(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

async fn next(wire: &mut Option<Wire>) -> Result<ClientMessage, End> {
    match wire {
        Some(wire) => wire.next().await,
        None => std::future::pending().await,
    }
}

async fn receive(tunnel: &mut Option<Tunnel>) -> std::io::Result<Vec<u8>> {
    match tunnel {
        Some(tunnel) => tunnel.next().await,
        None => std::future::pending().await,
    }
}

async fn is_true(flag: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same: the process ends. The guard must not live on.
    let _ = flag.wait_for(|is_true| *is_true).await;
}

const _: () = assert!(limits::MESSAGE_BYTES < MESSAGE_BYTES);
