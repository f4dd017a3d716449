//! What several native clients of a scope say, one after another, made of bytes: by a property below,
//! and by the fuzz target `session`. Each request has one answer, which is the one that a model of the
//! scope expects; what relay and node hold at the end is what the model has, and nothing is left when
//! all are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use strait_control::fuzz::Choices;
use strait_control::link::Links;
use strait_control::link::wire::Stream;
use strait_control::scope::Scopes;
use strait_link::v1::{
    self as link, Auth, Authenticated, ClientMessage, ErrorCode, Kind, Preferences, ServerMessage,
    auth::Credential, client_message::Body as Request, server_message::Body,
};
use strait_link::{Frames, MESSAGE_BYTES, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::timeout;

use crate::fake_relay::{FakeRelay, Scope};

/// Clients of one sequence: two go directly, more do not.
const CLIENTS: usize = 4;
/// Steps of one sequence; far fewer than messages may wait for one who does not read.
const STEPS: usize = 120;
/// What is held between a client and the node: more than is ever said to one who does not read.
const PIPE_BYTES: usize = 1 << 20;
/// No answer takes so long, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Publications and encodings that there may be.
const PUBLICATIONS: usize = 16;
const ENCODINGS: u32 = 3;
const SENDER_BYTES: usize = 128;

/// A node, and the relay that it has.
pub struct Stage<'a> {
    pub links: &'a Arc<Links>,
    pub scopes: &'a Arc<Scopes>,
    pub relay: &'a FakeRelay,
}

impl Stage<'_> {
    /// Plays what `data` says, in a scope of its own: nobody else is on this stage.
    pub async fn play(&self, scope: &str, data: &[u8]) {
        let mut choices = Choices::new(data);
        let mut play = Play { stage: self, scope, clients: Vec::new() };
        for _ in 0..STEPS {
            if choices.is_empty() {
                break;
            }
            play.step(&mut choices).await;
        }
        play.compare().await;
        play.end().await;
    }

    /// A new link.
    fn open(&self) -> Line {
        let (here, there) = tokio::io::duplex(PIPE_BYTES);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        tokio::spawn(Arc::clone(self.links).serve(Box::new(Pipe(there)), address, None));
        Line { stream: here, frames: Frames::new(), requests: 0 }
    }
}

/// A pipe in place of TLS.
struct Pipe(DuplexStream);

impl Stream for Pipe {}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The client's end of a link.
struct Line {
    stream: DuplexStream,
    frames: Frames,
    requests: u32,
}

impl Line {
    /// Sends bytes; the node may have closed.
    async fn write(&mut self, bytes: &[u8]) {
        let written = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        let _closed = written.expect("the node reads");
    }

    /// The next message; none when the node closed.
    async fn read(&mut self) -> Option<ServerMessage> {
        loop {
            if let Some(message) = self.frames.next(MESSAGE_BYTES).expect("a frame") {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await;
            match read.expect("the node says something").unwrap_or(0) {
                0 => return None,
                length => self.frames.push(&bytes[..length]),
            }
        }
    }
}

/// What one client is known to have.
struct Client {
    line: Option<Line>,
    session_id: String,
    peer_id: String,
    /// Encodings of each publication, and whether it is muted.
    publications: BTreeMap<String, (Kind, usize, bool)>,
    /// What each subscription is to.
    subscriptions: BTreeMap<String, String>,
    /// Subscriptions whose publication ended: the node ends them a moment later.
    ended: BTreeSet<String>,
    /// From whom it takes sound, and pictures; none: from everybody.
    allowed: [Option<BTreeSet<String>>; 2],
    /// Messages that it sent.
    sent: u64,
    /// The last message that came, and the last that it confirmed.
    seen: u64,
    confirmed: u64,
}

/// A sequence under way.
struct Play<'a> {
    stage: &'a Stage<'a>,
    scope: &'a str,
    clients: Vec<Client>,
}

impl Client {
    /// Asks, and waits for the one answer. What comes before it is what nobody asked for.
    async fn ask(&mut self, body: Request) -> Result<Body, link::Error> {
        let line = self.line.as_mut().expect("a link");
        line.requests += 1;
        let request = line.requests;
        let mut bytes = Vec::new();
        encode(&ClientMessage { request, body: Some(body) }, &mut bytes);
        line.write(&bytes).await;
        self.answer(request).await
    }

    async fn answer(&mut self, request: u32) -> Result<Body, link::Error> {
        loop {
            let message = self.line.as_mut().expect("a link").read().await;
            let message = message.expect("an answer, not the end of the link");
            let body = message.body.expect("a message that is known");
            match message.request {
                0 => self.told(body),
                number => {
                    assert_eq!(number, request, "an answer to nothing: {body:?}");
                    return match body {
                        Body::Error(error) => Err(error),
                        body => Ok(body),
                    };
                }
            }
        }
    }

    /// Takes what nobody asked for.
    fn told(&mut self, body: Body) {
        match body {
            Body::Message(message) => {
                assert_eq!(message.number, self.seen + 1, "messages come in order, each once");
                self.seen = message.number;
            }
            Body::MessagesTaken(taken) => assert!(taken.number <= self.sent, "{taken:?}"),
            Body::Error(error) => panic!("the link ends: {error:?}"),
            Body::Event(event) => assert!(event.body.is_some()),
            Body::Ping(_)
            | Body::Pong(_)
            | Body::Direct(_)
            | Body::DirectEnded(_)
            | Body::DirectWanted(_)
            | Body::SubscriptionsEnded(_)
            | Body::KeyChanged(_) => {}
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn allows(&self, sender: &str, kind: Kind) -> bool {
        let rule = &self.allowed[usize::from(kind == Kind::Video)];
        rule.as_ref().is_none_or(|senders| senders.contains(sender))
    }
}

impl Play<'_> {
    async fn step(&mut self, choices: &mut Choices<'_>) {
        let what = choices.below(20);
        let at = choices.below(CLIENTS);
        if at >= self.clients.len() {
            return match what {
                0 => self.refused(choices).await,
                _ => self.join().await,
            };
        }
        if self.clients[at].line.is_none() {
            // Now and then others go on first.
            if what > 3 {
                self.resume(at, choices).await;
            }
            return;
        }
        match what {
            0..3 => self.publish(at, choices).await,
            3 => self.unpublish(at, choices).await,
            4 => self.mute(at, choices).await,
            5..8 => self.subscribe(at, choices).await,
            8 => self.unsubscribe(at, choices).await,
            9 => self.prefer(at, choices).await,
            10..12 => self.allow(at, choices).await,
            12..15 => self.say(at, choices).await,
            15 => self.confirm(at, choices).await,
            16 => self.trifle(at, choices).await,
            17 => self.clients[at].line = None,
            18 => self.resume(at, choices).await,
            _ => match choices.below(3) {
                0 => self.leave(at).await,
                _ => self.garble(at, choices).await,
            },
        }
    }

    fn auth(&self) -> Auth {
        Auth {
            version: strait_link::VERSION,
            credential: Some(Credential::Token("dev".into())),
            scope_id: self.scope.into(),
            ..Auth::default()
        }
    }

    /// Says something first, and reads the answer, which has the number 1.
    async fn first(line: &mut Line, body: Request) -> Body {
        let mut bytes = Vec::new();
        line.requests = 1;
        encode(&ClientMessage { request: 1, body: Some(body) }, &mut bytes);
        line.write(&bytes).await;
        let answer = line.read().await.expect("an answer");
        assert_eq!(answer.request, 1, "{answer:?}");
        answer.body.expect("a known answer")
    }

    async fn authenticate(&self, auth: Auth) -> (Line, Authenticated) {
        let mut line = self.stage.open();
        match Self::first(&mut line, Request::Auth(auth)).await {
            Body::Authenticated(answer) => (line, answer),
            other => panic!("{other:?}"),
        }
    }

    /// Somebody who is not let in: a named error, and the end of the link.
    async fn refused(&self, choices: &mut Choices<'_>) {
        let signed = link::SignedCredential { signature: vec![7; 32], ..Default::default() };
        let of = |credential| Request::Auth(Auth { credential, ..self.auth() });
        let (first, code) = match choices.below(7) {
            0 => (of(None), ErrorCode::Unauthorized),
            1 => (of(Some(Credential::Token("devil".into()))), ErrorCode::Malformed),
            2 => (of(Some(Credential::Signed(signed))), ErrorCode::Malformed),
            3 => (Request::Auth(Auth { version: 9, ..self.auth() }), ErrorCode::Version),
            4 => (
                Request::Auth(Auth { client: "x".repeat(129), ..self.auth() }),
                ErrorCode::TooLarge,
            ),
            5 => {
                (Request::Auth(Auth { name: "\u{7}".into(), ..self.auth() }), ErrorCode::Malformed)
            }
            _ => (Request::Ping(link::Ping::default()), ErrorCode::Conflict),
        };
        let mut line = self.stage.open();
        match Self::first(&mut line, first).await {
            Body::Error(error) => assert_eq!(error.code(), code, "{error:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(line.read().await, None, "the link is over");
    }

    async fn join(&mut self) {
        let (line, answer) = self.authenticate(self.auth()).await;
        assert!(!answer.resumed && answer.key.is_some());
        let shown: BTreeSet<_> = answer.peers.iter().map(|peer| &peer.peer_id).collect();
        assert_eq!(shown, self.clients.iter().map(|client| &client.peer_id).collect());
        self.clients.push(Client {
            line: Some(line),
            session_id: answer.session_id,
            peer_id: answer.peer_id,
            publications: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            ended: BTreeSet::new(),
            allowed: [None, None],
            sent: 0,
            seen: 0,
            confirmed: 0,
        });
    }

    /// Goes on with another link, while the one before is there, or not.
    async fn resume(&mut self, at: usize, choices: &mut Choices<'_>) {
        let client = &self.clients[at];
        // It may have lost what it saw last.
        let messages_seen = if choices.one_in(2) { client.seen } else { client.confirmed };
        let session_id = client.session_id.clone();
        let auth = Auth { session_id, reconnect: true, messages_seen, ..self.auth() };
        let (line, answer) = self.authenticate(auth).await;
        let client = &mut self.clients[at];
        assert!(answer.resumed && answer.session_id == client.session_id);
        assert_eq!(answer.peer_id, client.peer_id);
        (client.line, client.seen, client.confirmed) = (Some(line), messages_seen, messages_seen);
    }

    async fn publish(&mut self, at: usize, choices: &mut Choices<'_>) {
        let (kind, codec) = choices.pick(&[
            (Kind::Audio, "opus"),
            (Kind::Audio, "opus"),
            (Kind::Video, "VP8"),
            (Kind::Video, "AV1"),
            (Kind::Video, "h264"),
            (Kind::Video, "opus"),
            (Kind::Audio, "vp8"),
            (Kind::Video, "x"),
            (Kind::Video, ""),
            (Kind::Video, "vp8\n"),
            (Kind::Unspecified, "opus"),
        ]);
        let name = choices.pick(&["", "", "front", "front", "\u{7}"]);
        let encodings = match kind {
            Kind::Audio => choices.pick(&[0, 1, 1, 1, 2]),
            _ => choices.pick(&[0, 1, 2, ENCODINGS, ENCODINGS + 1]),
        };
        let muted = choices.one_in(2);
        let publish = link::Publish {
            kind: kind.into(),
            codec: codec.into(),
            name: name.into(),
            encodings,
            muted,
            ..link::Publish::default()
        };
        let client = &mut self.clients[at];
        let most = if kind == Kind::Audio { 1 } else { ENCODINGS };
        let wrong = if ["", "vp8\n"].contains(&codec) || kind == Kind::Unspecified {
            Some(ErrorCode::Malformed)
        } else if (kind == Kind::Audio) != (codec == "opus") || codec == "x" {
            Some(ErrorCode::Unsupported)
        } else if name == "\u{7}" {
            Some(ErrorCode::Malformed)
        } else if encodings > most || client.publications.len() >= PUBLICATIONS {
            Some(ErrorCode::TooMany)
        } else {
            None
        };
        match client.ask(Request::Publish(publish)).await {
            Ok(Body::Published(published)) => {
                let count = published.encodings.len();
                assert_eq!((wrong, count), (None, encodings.max(1) as usize));
                let ours = (kind, count, muted);
                assert_eq!(client.publications.insert(published.publication_id, ours), None);
            }
            outcome => refused(wrong, outcome),
        }
    }

    /// A publication of anybody's, or none.
    fn publication(&self, choices: &mut Choices<'_>) -> String {
        let all = self.clients.iter().flat_map(|client| client.publications.keys());
        let mut all: Vec<_> = all.cloned().collect();
        all.push("pub-none".into());
        choices.pick(&all)
    }

    async fn unpublish(&mut self, at: usize, choices: &mut Choices<'_>) {
        let publication_id = self.publication(choices);
        let client = &mut self.clients[at];
        let wrong = match client.publications.remove(&publication_id) {
            Some(_) => None,
            None => Some(ErrorCode::NotFound),
        };
        let request = link::Unpublish { publication_id: publication_id.clone() };
        match client.ask(Request::Unpublish(request)).await {
            Ok(Body::Done(_)) => assert_eq!(wrong, None),
            outcome => return refused(wrong, outcome),
        }
        self.is_gone(|publication| *publication == publication_id);
    }

    /// Subscriptions to these end.
    fn is_gone(&mut self, is_gone: impl Fn(&String) -> bool) {
        for client in &mut self.clients {
            let Client { subscriptions, ended, .. } = client;
            ended.extend(subscriptions.extract_if(.., |_, to| is_gone(to)).map(|(id, _)| id));
        }
    }

    async fn mute(&mut self, at: usize, choices: &mut Choices<'_>) {
        let (publication_id, muted) = (self.publication(choices), choices.one_in(2));
        let client = &mut self.clients[at];
        let request = link::SetMuted { publication_id: publication_id.clone(), muted };
        let outcome = client.ask(Request::SetMuted(request)).await;
        match (client.publications.get_mut(&publication_id), outcome) {
            (Some(ours), Ok(Body::Done(_))) => ours.2 = muted,
            (Some(_), other) => panic!("{other:?}"),
            (None, outcome) => refused(Some(ErrorCode::NotFound), outcome),
        }
    }

    async fn subscribe(&mut self, at: usize, choices: &mut Choices<'_>) {
        let (publication_id, as_sent) = (self.publication(choices), choices.one_in(2));
        let found = self.clients.iter().find_map(|sender| {
            let (kind, encodings, _) = sender.publications.get(&publication_id)?;
            Some((sender.peer_id.clone(), *kind, *encodings))
        });
        let preferences = choices.one_in(2).then(|| preferences(choices));
        let client = &mut self.clients[at];
        let wrong = match &found {
            None => Some(ErrorCode::NotFound),
            Some((sender, kind, _)) if !client.allows(sender, *kind) => Some(ErrorCode::Forbidden),
            Some((.., 2..)) if as_sent => Some(ErrorCode::Unsupported),
            Some(_) => None,
        };
        let to = publication_id.clone();
        let request = link::Subscribe { publication_id, preferences, as_sent };
        match client.ask(Request::Subscribe(request)).await {
            Ok(Body::Subscribed(subscribed)) => {
                let encodings = found.map(|(.., encodings)| encodings);
                assert_eq!((wrong, encodings), (None, Some(subscribed.encodings.len())));
                assert_eq!(client.subscriptions.insert(subscribed.subscription_id, to), None);
            }
            outcome => refused(wrong, outcome),
        }
    }

    /// A subscription of anybody's, or none.
    fn subscription(&self, choices: &mut Choices<'_>) -> String {
        let of = |client: &'_ Client| -> Vec<String> {
            client.subscriptions.keys().chain(&client.ended).cloned().collect()
        };
        let mut all: Vec<_> = self.clients.iter().flat_map(of).collect();
        all.push("sub-none".into());
        choices.pick(&all)
    }

    async fn unsubscribe(&mut self, at: usize, choices: &mut Choices<'_>) {
        let subscription_id = self.subscription(choices);
        let client = &mut self.clients[at];
        let request = link::Unsubscribe { subscription_id: subscription_id.clone() };
        let outcome = client.ask(Request::Unsubscribe(request)).await;
        if client.subscriptions.remove(&subscription_id).is_some() {
            assert_eq!(outcome, Ok(Body::Done(link::Done {})));
        } else if !(client.ended.contains(&subscription_id) && outcome.is_ok()) {
            refused(Some(ErrorCode::NotFound), outcome);
        }
    }

    async fn prefer(&mut self, at: usize, choices: &mut Choices<'_>) {
        let (subscription_id, preferences) =
            (self.subscription(choices), Some(preferences(choices)));
        let client = &mut self.clients[at];
        let is_ours = client.subscriptions.contains_key(&subscription_id);
        let is_ended = client.ended.contains(&subscription_id);
        let request = link::SetPreferences { subscription_id, preferences };
        let outcome = client.ask(Request::SetPreferences(request)).await;
        if is_ours {
            assert_eq!(outcome, Ok(Body::Done(link::Done {})));
        } else if !(is_ended && outcome.is_ok()) {
            refused(Some(ErrorCode::NotFound), outcome);
        }
    }

    async fn allow(&mut self, at: usize, choices: &mut Choices<'_>) {
        let kind = choices.pick(&[Kind::Audio, Kind::Video, Kind::Unspecified]);
        let everybody = choices.one_in(3);
        let mut peer_ids: Vec<String> = self.clients.iter().map(|c| c.peer_id.clone()).collect();
        peer_ids.retain(|_| choices.one_in(2));
        if choices.one_in(8) {
            peer_ids.push("x".repeat(SENDER_BYTES + 1));
        }
        let too_large = !everybody && peer_ids.iter().any(|peer| peer.len() > SENDER_BYTES);
        let wrong = match kind {
            Kind::Unspecified => Some(ErrorCode::Malformed),
            _ => too_large.then_some(ErrorCode::TooLarge),
        };
        let senders = (!everybody).then(|| peer_ids.iter().cloned().collect());
        let request = link::AllowSenders { kind: kind.into(), everybody, peer_ids };
        match self.clients[at].ask(Request::AllowSenders(request)).await {
            Ok(Body::Done(_)) => assert_eq!(wrong, None),
            outcome => return refused(wrong, outcome),
        }
        self.clients[at].allowed[usize::from(kind == Kind::Video)] = senders;
        let all = self.clients.iter().flat_map(|sender| {
            let each = sender.publications.iter();
            each.map(|(id, (kind, ..))| (id.clone(), (sender.peer_id.clone(), *kind)))
        });
        let all: BTreeMap<_, _> = all.collect();
        let client = &mut self.clients[at];
        let mut subscriptions = std::mem::take(&mut client.subscriptions);
        subscriptions
            .retain(|_, to| all.get(to).is_some_and(|(sender, kind)| client.allows(sender, *kind)));
        client.subscriptions = subscriptions;
    }

    async fn say(&mut self, at: usize, choices: &mut Choices<'_>) {
        let mut all: Vec<String> = self.clients.iter().map(|c| c.peer_id.clone()).collect();
        all.extend(["".into(), "p-none".into()]);
        let to = choices.pick(&all);
        let payload = vec![7; choices.pick(&[0, 1, 1000, (64 << 10) + 1])];
        let client = &mut self.clients[at];
        let number = client.sent.wrapping_add(choices.pick(&[1, 1, 1, 0, 2, u64::MAX]));
        let is_next = number == client.sent + 1;
        let wrong = if is_next && payload.len() > 64 << 10 {
            Some(ErrorCode::TooLarge)
        } else if number > client.sent + 1 {
            Some(ErrorCode::Conflict)
        } else {
            None
        };
        client.sent += u64::from(is_next);
        let reaches = all[..all.len() - 1].contains(&to);
        let request = link::SendMessage { number, to, payload, text: choices.one_in(2) };
        match client.ask(Request::SendMessage(request)).await {
            Ok(Body::MessagesTaken(taken)) => {
                assert_eq!((wrong, taken.number), (None, client.sent));
                let is_lost = taken.undelivered.contains(&number);
                assert!(!is_next || is_lost != reaches, "{taken:?}");
            }
            outcome => refused(wrong, outcome),
        }
    }

    /// Confirms messages: those that came, fewer, or more than there are.
    async fn confirm(&mut self, at: usize, choices: &mut Choices<'_>) {
        let client = &mut self.clients[at];
        let number = choices.pick(&[client.seen, client.confirmed, u64::MAX, 0]);
        if number <= client.seen {
            client.confirmed = client.confirmed.max(number);
        }
        let line = client.line.as_mut().expect("a link");
        let body = Some(Request::MessageSeen(link::MessageSeen { number }));
        let mut bytes = Vec::new();
        // What is never answered, though it asks for it.
        encode(&ClientMessage { request: 77_777, body }, &mut bytes);
        line.write(&bytes).await;
    }

    /// What changes nothing, and whether it is answered.
    async fn trifle(&mut self, at: usize, choices: &mut Choices<'_>) {
        let client = &mut self.clients[at];
        let token = u64::from(choices.byte());
        let (body, wrong) = match choices.below(5) {
            0 => (Some(Request::Ping(link::Ping { token })), None),
            1 => {
                let state = i32::from(choices.byte());
                (Some(Request::TransportReport(link::TransportReport { state })), None)
            }
            2 => (Some(Request::GetStatistics(link::GetStatistics {})), None),
            3 => (Some(Request::Auth(Auth::default())), Some(ErrorCode::Conflict)),
            _ => (None, Some(ErrorCode::UnknownRequest)),
        };
        let line = client.line.as_mut().expect("a link");
        line.requests += 1;
        let (request, mut bytes) = (line.requests, Vec::new());
        // Before it some that are never answered.
        for body in [Request::Pong(link::Pong { token }), Request::Media(link::Media::default())] {
            encode(&ClientMessage { request: 77_777, body: Some(body) }, &mut bytes);
        }
        encode(&ClientMessage { request: 0, body: body.clone() }, &mut bytes);
        encode(&ClientMessage { request, body }, &mut bytes);
        line.write(&bytes).await;
        match client.answer(request).await {
            Ok(Body::Pong(pong)) => assert_eq!((pong.token, wrong), (token, None)),
            Ok(Body::Done(_) | Body::Statistics(_)) => assert_eq!(wrong, None),
            outcome => refused(wrong, outcome),
        }
    }

    /// What is no frame: the link ends with a named error, the session waits for another.
    async fn garble(&mut self, at: usize, choices: &mut Choices<'_>) {
        let (bytes, code) = match choices.below(3) {
            0 => (vec![0xff; 5], ErrorCode::TooLarge),
            1 => (vec![0, 0, 0, 2, 0xff, 0xff], ErrorCode::Malformed),
            _ => (vec![0, 0, 0, 3, 0x1a, 9, 0], ErrorCode::Malformed),
        };
        let client = &mut self.clients[at];
        let mut line = client.line.take().expect("a link");
        line.write(&bytes).await;
        let mut last = None;
        while let Some(message) = line.read().await {
            last = message.body;
        }
        match last {
            Some(Body::Error(error)) => assert_eq!(error.code(), code, "{error:?}"),
            other => panic!("{other:?}"),
        }
    }

    async fn leave(&mut self, at: usize) {
        let mut client = self.clients.remove(at);
        let answer = client.ask(Request::Leave(link::Leave::default())).await;
        assert_eq!(answer, Ok(Body::Done(link::Done {})));
        let line = client.line.as_mut().expect("a link");
        while let Some(message) = line.read().await {
            assert_eq!(message.request, 0, "{message:?}");
        }
        // The session ends behind the link. Until then others still see it.
        let left = client.peer_id;
        let scope = || self.stage.relay.state.lock().unwrap().scopes.values().next().cloned();
        let is_gone = || {
            let scope = scope().unwrap_or_default();
            let of = |id: &str| id.rsplit_once('.').is_some_and(|(peer, _)| peer == left);
            !scope.peers.keys().any(|id| of(id))
        };
        assert!(in_time(is_gone).await, "the relay keeps who left");
        let is_gone = || self.stage.scopes.counts().1 == self.clients.len();
        assert!(in_time(is_gone).await, "the scope keeps who left");
        self.is_gone(|publication| client.publications.contains_key(publication));
    }

    /// Relay and model hold the same, as soon as what ended has ended.
    async fn compare(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.line.is_some()) {
            let pong = client.ask(Request::Ping(link::Ping { token: 1 })).await;
            assert_eq!(pong, Ok(Body::Pong(link::Pong { token: 1 })));
        }
        if self.clients.is_empty() {
            return;
        }
        let publications = self.clients.iter().flat_map(|client| client.publications.clone());
        let publications: BTreeMap<_, _> = publications.collect();
        let subscriptions = self.clients.iter().flat_map(|client| client.subscriptions.clone());
        let subscriptions: BTreeMap<_, _> = subscriptions.collect();
        let differs = |scope: &Scope| {
            let held = scope.publications.iter().map(|(id, at_relay)| {
                let kind = publications.get(id).map_or(Kind::Unspecified, |(kind, ..)| *kind);
                (id.clone(), (kind, at_relay.encodings.len(), at_relay.muted))
            });
            let held: BTreeMap<_, _> = held.collect();
            let subscribed = scope.subscriptions.iter();
            let subscribed = subscribed.map(|(id, at)| (id.clone(), at.publication_id.clone()));
            let subscribed: BTreeMap<_, _> = subscribed.collect();
            let is_same = scope.peers.len() == self.clients.len()
                && held == publications
                && subscribed == subscriptions;
            (!is_same).then(|| format!("{held:?} {subscribed:?}"))
        };
        let relay = &self.stage.relay.state;
        let is_so = || relay.lock().unwrap().scopes.values().all(|scope| differs(scope).is_none());
        if !in_time(is_so).await {
            let found: Vec<_> = relay.lock().unwrap().scopes.values().map(differs).collect();
            panic!("the relay holds {found:?}, the model {publications:?} {subscriptions:?}");
        }
    }

    /// All leave, those first that have no link. Nothing is left.
    async fn end(&mut self) {
        while let Some(at) = self.clients.len().checked_sub(1) {
            if self.clients[at].line.is_none() {
                self.resume(at, &mut Choices::new(&[])).await;
            }
            self.leave(at).await;
        }
        let Stage { links, scopes, relay } = self.stage;
        let is_empty = || {
            links.states().iter().all(|(_, count)| *count == 0)
                && scopes.counts() == (0, 0)
                && relay.is_empty()
        };
        assert!(in_time(is_empty).await, "something is left");
    }
}

fn preferences(choices: &mut Choices<'_>) -> Preferences {
    Preferences {
        paused: choices.one_in(2),
        layer_max: choices.one_in(2).then(|| u32::from(choices.byte())),
        height: choices.one_in(2).then(|| u32::from(choices.byte())),
        priority: u32::from(choices.byte()) << 4,
        pinned: choices.one_in(2),
    }
}

/// The request is refused, as it must be.
fn refused(wrong: Option<ErrorCode>, outcome: Result<Body, link::Error>) {
    match (wrong, outcome) {
        (Some(code), Err(error)) => assert_eq!(error.code(), code, "{error:?}"),
        (wrong, outcome) => panic!("{outcome:?}, where {wrong:?} is right"),
    }
}

/// Waits until something is so; false when it never is.
async fn in_time(mut is_so: impl FnMut() -> bool) -> bool {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    use tokio::runtime::Runtime;

    use super::*;
    use crate::Service;

    #[test]
    fn whatever_is_said_has_its_answer_and_leaves_nothing_behind() {
        let runtime = Runtime::new().unwrap();
        let service = runtime.block_on(Service::start_with(|config| {
            config.link.messages_per_second = 0;
            config.link.kibibytes_per_second = 0;
        }));
        let app = &service.server.app;
        let stage = Stage { links: &app.links, scopes: &app.scopes, relay: &service.relay };
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/session");
        let mut inputs = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            runtime.block_on(stage.play("corpus", &bytes));
            inputs += 1;
        }
        assert!(inputs > 3, "{inputs}");
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            // One that failed leaves something behind.
            max_shrink_iters: 0,
            ..Config::with_cases(64)
        });
        let said = proptest::collection::vec(any::<u8>(), 0..600);
        let played = runner.run(&said, |said| {
            runtime.block_on(stage.play("lobby", &said));
            Ok(())
        });
        played.unwrap();
    }
}
