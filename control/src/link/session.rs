//! One native client's session: lives as long as its link, and some time without one.

mod greeting;
mod recalled;
mod requests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use strait_link::v1::{
    self as link, Auth, ClientMessage, ErrorCode, ServerMessage, server_message::Body,
    transport_report::State, user_event::Body as Event,
};
use strait_proto::pace::Pace;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info};

use super::counters::{Counters, count};
use super::mailbox::{Inbox, Outbox};
use super::tunnel::Tunnel;
use super::wire::{End, Wire};
use super::{Attach, Busy, Link, Links, Registration, convert, unreadable};
use crate::auth::Identity;
use crate::scope::{Message, Native, Notice, PeerView, Sink};
use crate::{id, limits};

pub(super) use recalled::Memo;

type Tagged = (u64, Arc<Notice>);

/// One session.
pub(super) struct Session {
    registration: Registration,
    native: Native,
    sink: Sink,
    notices: mpsc::Receiver<Tagged>,
    attached: mpsc::Receiver<Box<Attach>>,
    wire: Option<Wire>,
    port: Option<u16>,
    /// Since when there is no link.
    lost: Option<Instant>,
    /// A ping went out since something came last.
    is_pinged: bool,
    pings: u64,
    inbox: Inbox,
    outbox: Outbox,
    /// Since when messages wait for confirmations, and none came.
    stalled: Option<Instant>,
    pace: Pace,
    tunnel: Option<Tunnel>,
    tunnel_opened: Option<Instant>,
    /// Who else was there when it began, and the number of the request that began it.
    greeting: Option<(u32, Vec<PeerView>)>,
    missed: Missed,
    /// The client was told of the other of two at some time.
    was_direct: bool,
    /// It began before this process, and how many messages the client has it says when it is back.
    is_recalled: bool,
    /// The process that it began in did not end in order, and the client does not know that yet.
    is_uncertain: bool,
    /// The process ends: this session is about to be left to the next one.
    is_parting: bool,
    /// Kept while the client may have messages to read before that.
    busy: Option<Busy>,
    /// The hash of what the relay keeps of it.
    noted: Option<u64>,
}

/// What happened while there was no link, and is not in the answer to `Auth`.
#[derive(Default)]
struct Missed {
    media_lost: Option<String>,
    layers: Vec<link::LayersWanted>,
    messages: Vec<link::MessagesLost>,
}

/// How a session ends whose client wants that.
const LEFT: &str = "left";

/// How a session ends.
struct Ending {
    /// As others are told.
    reason: &'static str,
    /// As the client is told.
    error: Option<link::Error>,
    /// The client is back, and begins anew.
    anew: Option<Box<Attach>>,
}

impl Ending {
    fn silent(reason: &'static str) -> Self {
        Self { reason, error: None, anew: None }
    }

    fn with(reason: &'static str, code: ErrorCode, text: &str) -> Self {
        Self { error: Some(convert::error(code, text)), ..Self::silent(reason) }
    }

    fn replaced() -> Self {
        let text = "its credential opened another session in place of this one";
        Self::with("replaced by another session", ErrorCode::Conflict, text)
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
        (request, port): (u32, Option<u16>),
        auth: &Auth,
        attached: mpsc::Receiver<Box<Attach>>,
    ) -> Result<Self, link::Error> {
        let name = Some(auth.name.as_str()).filter(|name| !name.is_empty());
        // A name in the credential is the application's word and wins over what the client says.
        let name = identity.name.clone().or_else(|| name.map(str::to_owned));
        let name = name.unwrap_or_else(|| match identity.subject.is_empty() {
            true => "guest".into(),
            false => identity.subject.clone(),
        });
        let (notices_in, notices) = mpsc::channel(limits::LINK_NOTICES);
        let sink = Sink::new(notices_in, 0).with_messages_counted();
        let peer = id::random("p")?;
        let scopes = &registration.links.scopes;
        let directly = !auth.relay_only && scopes.goes_directly(&identity.application);
        let (scope, profiles) = (auth.scope_id.as_str(), &auth.profiles);
        let (native, peers) = Native::enter(
            scopes,
            identity,
            scope,
            (&peer, &name),
            profiles,
            sink.clone(),
            directly,
        )
        .await?;
        info!(peer, client = ?auth.client, "link session begins");
        let mut session = Self::new(registration, native, (sink, notices), attached);
        (session.port, session.greeting) = (port, Some((request, peers)));
        session.note().await;
        Ok(session)
    }

    fn new(
        registration: Registration,
        native: Native,
        (sink, notices): (Sink, mpsc::Receiver<Tagged>),
        attached: mpsc::Receiver<Box<Attach>>,
    ) -> Self {
        let pace = Pace::new(registration.links.rates, Instant::now().into_std());
        Self {
            pace,
            registration,
            native,
            sink,
            notices,
            attached,
            wire: None,
            port: None,
            lost: None,
            is_pinged: false,
            pings: 0,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            stalled: None,
            tunnel: None,
            tunnel_opened: None,
            greeting: None,
            missed: Missed::default(),
            was_direct: false,
            is_recalled: false,
            is_uncertain: false,
            is_parting: false,
            busy: None,
            noted: None,
        }
    }

    /// Answers `Auth`, then serves the client until it is gone for good.
    pub(super) async fn run(mut self: Box<Self>, link: Link) {
        self.take_link(link);
        if let Some((request, peers)) = self.greeting.take() {
            self.greet(request, false, &peers);
        }
        self.go_on().await;
    }

    /// Serves the client until it is gone for good.
    async fn go_on(mut self: Box<Self>) {
        let mut shutdown = self.links().shutdown.clone();
        let mut leaves = self.links().leaves.subscribe();
        let ending = loop {
            self.feed();
            self.settle();
            let deadline = self.deadline();
            tokio::select! {
                came = next(&mut self.wire) => match came {
                    Ok(Some(message)) => {
                        if let Some(ending) = self.on_messages(message).await {
                            break ending;
                        }
                    }
                    Ok(None) => {} // there is room
                    Err(end) => self.on_end(end),
                },
                Some((_, notice)) = self.notices.recv() => {
                    if let Some(ending) = self.on_notices(notice).await {
                        break ending;
                    }
                }
                packet = receive(&mut self.tunnel) => self.on_packet(packet),
                attach = self.attached.recv() => {
                    let Some(attach) = attach else { break Ending::replaced() };
                    if let Some(ending) = Box::pin(self.resume(attach)).await {
                        break ending;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    if let Some(ending) = self.on_time() {
                        break ending;
                    }
                }
                () = is_true(&mut leaves), if !self.is_parting => self.is_parting = true,
                () = is_true(&mut shutdown) => {
                    let text = "the server is ending; come back in some seconds";
                    if self.links().leaves_sessions() {
                        return Box::pin(self.wait_for_next_process(text)).await;
                    }
                    self.feed_rest();
                    break Ending::with("server is ending", ErrorCode::Unavailable, text);
                }
            }
        };
        Box::pin(self.end(ending)).await;
    }

    async fn end(mut self: Box<Self>, ending: Ending) {
        info!(peer = self.native.peer(), reason = ending.reason, "link session ends");
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
        let Self { native, registration, outbox, sink, mut notices, .. } = *self;
        let (scope, peer) = (Arc::clone(native.scope()), native.peer().to_owned());
        native.leave(ending.reason).await;
        // From here on whoever writes to it is told at once. Who leaves has read what it wanted to.
        if ending.reason != LEFT {
            let mut lost = sink.take_lost();
            outbox.unconfirmed().for_each(|notice| lost.add(notice));
            while let Ok((_, notice)) = notices.try_recv() {
                lost.add(&notice);
            }
            scope.tell_lost(&peer, lost);
        }
        // Its place is free as well.
        drop(registration);
        if let Some(attach) = ending.anew {
            let _ = attach.refused.send(attach.link);
        }
    }

    fn links(&self) -> &Arc<Links> {
        &self.registration.links
    }

    fn counters(&self) -> &Counters {
        self.links().counters()
    }

    // ------------------------------------------------------------------------ the link itself

    fn take_link(&mut self, link: Link) {
        link.pass.opened(&self.registration.session_id, self.registration.end());
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
        self.stalled = None;
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
                debug!(peer = self.native.peer(), "link lost: {error}");
                self.lose_link(None);
            }
            End::Unreadable(error) => {
                self.lose_link(Some(unreadable(&error)));
            }
        }
    }

    /// When something must be done though nothing comes.
    fn deadline(&self) -> Instant {
        let Some(wire) = &self.wire else {
            let lost = self.lost.unwrap_or_else(Instant::now);
            return lost + self.links().reconnect_time;
        };
        if let (true, Some(until)) = (wire.is_ended(), wire.held()) {
            // What it said before has its turn, and nothing else matters.
            return until;
        }
        let silence = self.links().ping_time * if self.is_pinged { 3 } else { 1 };
        let others = [
            wire.blocked().map(|since| since + limits::WRITE_TIME),
            wire.held(),
            self.stalled.map(|since| since + limits::CONFIRM_TIME),
            self.tunnel.as_ref().map(|tunnel| tunnel.used() + limits::LINK_MEDIA_IDLE),
        ];
        others.into_iter().flatten().fold(wire.alive() + silence, Instant::min)
    }

    fn on_time(&mut self) -> Option<Ending> {
        let now = Instant::now();
        let ping_time = self.links().ping_time;
        let Some(wire) = &self.wire else {
            let is_over = self.lost.is_none_or(|lost| now >= lost + self.links().reconnect_time);
            return is_over.then(|| Ending::silent("connection lost"));
        };
        if wire.is_ended() {
            return None;
        }
        if self.stalled.is_some_and(|since| now >= since + limits::CONFIRM_TIME) {
            return Some(unconfirmed());
        }
        if self.tunnel.as_ref().is_some_and(|t| now >= t.used() + limits::LINK_MEDIA_IDLE) {
            self.tunnel = None;
        }
        if wire.blocked().is_some_and(|since| now >= since + limits::WRITE_TIME) {
            self.lose_link(Some(too_slow()));
        } else if now >= wire.alive() + 3 * ping_time {
            let text =
                format!("nothing came for {} s, no answer to pings", 3 * ping_time.as_secs());
            self.lose_link(Some(convert::error(ErrorCode::TimedOut, text)));
        } else if now >= wire.alive() + ping_time && !self.is_pinged {
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

    /// Whether nobody may be there to hear anything.
    fn is_away(&self) -> bool {
        self.wire.as_ref().is_none_or(Wire::is_ended)
    }

    /// Sends messages on as the link takes them.
    fn feed(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        while self.outbox.is_due() && wire.has_room() {
            feed_next(&mut self.outbox, wire);
        }
        match self.outbox.is_stalled() {
            true => _ = self.stalled.get_or_insert_with(Instant::now),
            false => self.stalled = None,
        }
    }

    /// Says whether the process has to wait for this session before it ends: while messages are on their
    /// way to a client that may read them.
    fn settle(&mut self) {
        let has_none = self.notices.is_empty() && self.outbox.is_empty();
        let is_done = self.is_parting && (has_none || self.is_away());
        if is_done == self.busy.is_some() {
            self.busy = (!is_done).then(|| Busy::new(self.links()));
        }
    }

    /// Sends messages on before the last word, as many as may go.
    fn feed_rest(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        while self.outbox.is_due() && wire.waiting() < limits::LINK_OUT_BYTES {
            feed_next(&mut self.outbox, wire);
        }
    }

    /// Tells what stood before the link began.
    fn restate(&mut self, body: Body) {
        if let Some(wire) = &mut self.wire {
            wire.send_backlog(&ServerMessage { request: 0, body: Some(body) });
        }
    }

    // ------------------------------------------------------------------------- what happens

    /// Goes on with another link, under the credential that was shown there. One that does not allow
    /// what goes on ends it: the client begins anew with what it may.
    async fn resume(&mut self, attach: Box<Attach>) -> Option<Ending> {
        if let Err(fault) = self.native.go_on_as(attach.identity.clone()) {
            info!(peer = self.native.peer(), "link session not resumed: {fault}");
            let text = "the client came back over another link, and may not go on with what it did";
            let ending = Ending::with("its credential changed", ErrorCode::Conflict, text);
            return Some(Ending { anew: Some(attach), ..ending });
        }
        let Attach { link, identity: _, request, messages_seen, refused: _ } = *attach;
        info!(peer = self.native.peer(), "link session resumed");
        count(&self.counters().resumed);
        if self.wire.is_some() {
            let text = "the client came back over another link";
            self.lose_link(Some(convert::error(ErrorCode::Conflict, text)));
        }
        if let Err(fault) = self.native.connect().await {
            debug!(peer = self.native.peer(), "no transport for now: {fault}");
        }
        // Its transport and its credential may be others. Before it is told: it comes back to what it knows.
        self.note().await;
        self.take_link(link);
        if std::mem::take(&mut self.is_recalled) {
            self.outbox.begin_after(messages_seen);
        }
        self.outbox.link_begins(messages_seen);
        let peers = self.native.scope().roster().others(self.native.peer());
        self.greet(request, true, &peers);
        self.is_uncertain = false;
        let missed = std::mem::take(&mut self.missed);
        if let Some(reason) = missed.media_lost {
            self.restate(convert::user(Event::MediaLost(link::MediaLost { reason })));
        }
        // What was told while the link broke may not have arrived. The same again changes nothing.
        let offer = self.native.scope().roster().direct(self.native.peer());
        if let Some(offer) = offer {
            self.restate(Body::Direct(convert::direct(&offer)));
        } else if self.was_direct {
            self.restate(convert::direct_ended("it ended while there was no link"));
        }
        for layers in missed.layers {
            self.restate(convert::user(Event::LayersWanted(layers)));
        }
        for lost in missed.messages {
            self.restate(Body::MessagesLost(lost));
        }
        self.inbox.link_begins();
        self.tell_taken(0);
        None
    }

    /// Takes a notice and those that wait behind it: what they say goes out in one piece.
    async fn on_notices(&mut self, first: Arc<Notice>) -> Option<Ending> {
        let mut notice = first;
        for left in (0..limits::LINK_BATCH).rev() {
            if let Some(ending) = self.on_notice(notice).await {
                return Some(ending);
            }
            match (left, self.notices.try_recv()) {
                (1.., Ok((_, next))) => notice = next,
                (0, Ok((_, last))) => return self.on_notice(last).await,
                (_, Err(_)) => break,
            }
        }
        None
    }

    async fn on_notice(&mut self, notice: Arc<Notice>) -> Option<Ending> {
        if self.sink.is_lagging() {
            self.sink.lose(&notice);
            let text = "events were lost, this client was too slow; join anew";
            return Some(Ending::with("too slow", ErrorCode::SlowReader, text));
        }
        match &*notice {
            Notice::Moved => {
                let text = "the scope was given to another node; join anew";
                return Some(Ending::with("moved", ErrorCode::Unavailable, text));
            }
            Notice::Message(message) => {
                self.sink.took(&notice);
                if !self.outbox.push(Arc::clone(&notice), message.payload.len()) {
                    self.sink.lose(&notice);
                    return Some(unconfirmed());
                }
                count(&self.counters().messages);
                // At once, or the next event would go before it.
                self.feed();
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
                if self.is_away() {
                    self.missed.media_lost = Some(reason.clone());
                }
            }
            Notice::Layers { publication, encodings } if self.is_away() => {
                self.missed.layers.retain(|missed| missed.publication_id != *publication);
                let (publication_id, encodings) = (publication.clone(), encodings.clone());
                self.missed.layers.push(link::LayersWanted { publication_id, encodings });
            }
            Notice::Lost(lost)
                if self.is_away() && self.missed.messages.len() < limits::LOST_NOTICES =>
            {
                self.missed.messages.push(convert::messages_lost(lost));
            }
            Notice::Direct(_) => {
                self.was_direct = true;
                count(&self.counters().direct);
            }
            Notice::KeyChanged => self.tell_key(),
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
                debug!(peer = self.native.peer(), "media over the link: {error}");
                self.tunnel = None;
            }
        }
    }
}

fn feed_next(outbox: &mut Outbox, wire: &mut Wire) {
    let Some((number, notice)) = outbox.next() else { return };
    if let Notice::Message(message) = &*notice {
        wire.feed(&ServerMessage { request: 0, body: Some(received(number, message)) });
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

fn unconfirmed() -> Ending {
    let text = "too many messages were not confirmed (MessageSeen), or their reader is too slow for \
                what it is sent; join anew";
    Ending::with("too slow", ErrorCode::SlowReader, text)
}

fn too_slow() -> link::Error {
    let text = "the client reads too slowly, or its line is too narrow; come back, and read faster";
    convert::error(ErrorCode::SlowReader, text)
}

async fn next(wire: &mut Option<Wire>) -> Result<Option<ClientMessage>, End> {
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
