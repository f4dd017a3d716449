//! The client: the link and its requests, with media and ways beside it.

mod finding;
mod packets;

use super::media::Media;
use super::outbox::Outbox;
pub use super::output::{Event, Handle, Output};
use super::path::{Candidate, Random};
use super::receiving::Received;
use super::resolver::{Cluster, Place, Search};
use super::sending::{Frame, PAYLOAD_BYTES, Sent, Stream};
use super::subscriptions::Subscriptions;
use super::way::{Packet, Transport};
use crate::error::Error;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use strait_link::v1::{self, auth::Credential, client_message, server_message, user_event};
use strait_link::{Frames, MESSAGE_BYTES, STRANGER_BYTES, VERSION, encode};

/// Before a link is tried again it is waited so long, and up to as long once more by chance: nodes that come back must not
/// meet everybody at once.
pub const RECONNECT: Duration = Duration::from_secs(1);
/// What the node has to answer `Auth` within, connection and TLS included.
const JOIN: Duration = Duration::from_secs(15);
/// Redirects in a row.
const REDIRECTS: usize = 5;
/// Requests that wait for an answer.
const REQUESTS: usize = 1024;
/// Bytes of a message where the node did not say yet what it takes; a node's own default.
const MESSAGE: usize = 65_536;
/// Pings where the node names no interval.
const PING: Duration = Duration::from_secs(5);

/// Whom to join and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name or address of the node. With a cluster: of that to try where no CnC answers; empty for none.
    pub host: String,
    /// Its port for everything.
    pub port: u16,
    /// How the application lets the user in.
    pub credential: Credential,
    /// 1 to 64 bytes.
    pub scope_id: String,
    /// Display name.
    pub name: String,
    /// For the node's logs, "name/version".
    pub client: String,
    /// SRTP profiles, best first; none for AEAD_AES_128_GCM alone.
    pub profiles: Vec<v1::SrtpProfile>,
    /// Media goes by the node also where it could go directly: the other of two is not to know this one's address.
    pub relay_only: bool,
    /// Who knows the node of the scope, and another one when that dies.
    pub cluster: Option<Cluster>,
}

/// How all fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// How media goes.
    pub transport: v1::transport_report::State,
    /// Of the way that media goes by.
    pub round_trip: Option<Duration>,
    /// Of the node, where media goes by UDP, if it does.
    pub udp: Option<Candidate>,
    /// Publication, SSRC.
    pub sent: Vec<(String, u32, Sent)>,
    /// Subscription, SSRC.
    pub received: Vec<(String, u32, Received)>,
    /// Packets that were not taken: of another key, doubles, of no subscription.
    pub dropped: u64,
    /// Packets that came from the other of two, directly.
    pub direct_packets: u64,
}

enum Link {
    /// Until then.
    Waiting(Duration),
    /// A CnC has until then to answer.
    Resolving(Duration),
    /// Opened and authenticated until then.
    Joining(Duration),
    Joined,
    Ended,
}

enum Asked {
    Auth,
    Publish(Handle),
    Subscribe(Handle, u32),
    Other(Handle),
    /// By the client itself: nobody waits for the answer.
    Own,
}

struct Publication {
    handle: Handle,
    request: v1::Publish,
    id: Option<String>,
}

/// See the module.
pub struct Client<R> {
    config: Config,
    random: R,
    link: Link,
    node: Option<IpAddr>,
    frames: Frames,
    request: u32,
    asked: HashMap<u32, Asked>,
    session: Option<v1::Authenticated>,
    /// The node that the session is on. Its media goes on while another one is sought.
    session_at: Place,
    /// The node that is connected to, or was last.
    at: Place,
    search: Option<Search>,
    subscriptions: Subscriptions,
    failed: String,
    /// Links that failed since the last join.
    failures: u32,
    /// The node that the application named, while another one sent us elsewhere.
    home: Option<Place>,
    /// The nodes that sent us on, one after the other.
    sent_on: Vec<Place>,
    heard: Duration,
    pinged: bool,
    /// Since when the node is asked whether it lives.
    doubted: Option<Duration>,
    seen: u64,
    outbox: Outbox,
    /// Bytes of messages that the link takes now.
    room: usize,
    publications: Vec<Publication>,
    /// Clock rates by publication, for subscriptions.
    clocks: HashMap<String, u32>,
    transport: Transport,
    transport_state: v1::transport_report::State,
    media: Media,
    out: VecDeque<Output>,
}

impl<R: Random> Client<R> {
    /// Joins at the next [`Client::on_time`].
    #[must_use]
    pub fn new(config: Config, random: R) -> Self {
        let cluster = config.cluster.as_ref();
        let search =
            cluster.and_then(|cluster| Search::new(cluster, &config.credential, &config.scope_id));
        Self {
            at: Place { host: config.host.clone(), port: config.port },
            search,
            config,
            random,
            link: Link::Waiting(Duration::ZERO),
            node: None,
            frames: Frames::new(),
            request: 0,
            asked: HashMap::new(),
            session: None,
            session_at: Place::default(),
            subscriptions: Subscriptions::default(),
            failed: String::new(),
            failures: 0,
            home: None,
            sent_on: Vec::new(),
            heard: Duration::ZERO,
            pinged: false,
            doubted: None,
            seen: 0,
            outbox: Outbox::default(),
            room: usize::MAX,
            publications: Vec::new(),
            clocks: HashMap::new(),
            transport: Transport::default(),
            transport_state: v1::transport_report::State::Disconnected,
            media: Media::default(),
            out: VecDeque::new(),
        }
    }

    /// Datagrams cannot be sent: media goes over TCP at once. To be said before the first join.
    pub fn forgo_udp(&mut self) {
        self.transport.forgo_udp();
    }

    /// The link is open, to this address where it is known (not behind a proxy).
    pub fn on_link(&mut self, now: Duration, node: Option<IpAddr>) {
        (self.node, self.heard, self.pinged) = (node, now, false);
        self.frames = Frames::new();
        // Another node knows nothing of it.
        let session = self.session.as_ref().filter(|_| self.session_at == self.at);
        let auth = v1::Auth {
            version: VERSION,
            credential: Some(self.config.credential.clone()),
            scope_id: self.config.scope_id.clone(),
            name: self.config.name.clone(),
            session_id: session.map(|session| session.session_id.clone()).unwrap_or_default(),
            reconnect: self.session.is_some() || !self.failed.is_empty(),
            failed_streamer: self.failed.clone(),
            profiles: self.config.profiles.iter().map(|profile| (*profile).into()).collect(),
            messages_seen: session.map_or(0, |_| self.seen),
            client: self.config.client.clone(),
            relay_only: self.config.relay_only,
        };
        self.ask(Asked::Auth, client_message::Body::Auth(auth));
    }

    /// Bytes of the link.
    pub fn on_link_bytes(&mut self, now: Duration, bytes: &[u8]) {
        (self.heard, self.pinged) = (now, false);
        self.frames.push(bytes);
        while matches!(self.link, Link::Joining(_) | Link::Joined) {
            // A node may tell much in its first answer.
            let most = MESSAGE_BYTES.max(STRANGER_BYTES);
            match self.frames.next::<v1::ServerMessage>(most) {
                Ok(Some(message)) => self.on_message(now, message),
                Ok(None) => return,
                Err(error) => self.lose(now, Error::Protocol(error.to_string())),
            }
        }
    }

    /// A packet of media came over the link, beside its messages.
    pub fn on_link_media(&mut self, now: Duration, packet: Vec<u8>) {
        (self.heard, self.pinged) = (now, false);
        self.on_packet(now, None, packet);
    }

    /// The link broke, or could not be opened.
    pub fn on_link_lost(&mut self, now: Duration, error: Error) {
        if matches!(self.link, Link::Joining(_) | Link::Joined) {
            self.lost(now, error, None);
        }
    }

    /// A datagram came.
    pub fn on_datagram(&mut self, now: Duration, from: SocketAddr, bytes: Vec<u8>) {
        self.on_packet(now, Some(from), bytes);
    }

    /// The connection of [`Output::OpenMedia`] is open.
    pub fn on_media(&mut self, now: Duration) {
        self.transport.framed_opened(now, &mut self.random);
        self.flush();
    }

    /// It broke, or could not be opened.
    pub fn on_media_lost(&mut self, now: Duration) {
        self.transport.framed_lost(now, &mut self.random);
        self.flush();
    }

    /// A packet came over it.
    pub fn on_media_packet(&mut self, now: Duration, packet: Vec<u8>) {
        self.on_packet(now, None, packet);
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Duration) {
        let ping = self.ping();
        match self.link {
            Link::Waiting(until) if until <= now => self.seek(now),
            Link::Resolving(until) if until <= now => self.unanswered(now),
            Link::Joining(until) if until <= now => {
                self.lose(now, timed_out("the node did not let the client in in time"));
            }
            Link::Joined if self.heard + 3 * ping <= now => {
                self.lose(now, timed_out("the node was silent for three ping intervals"));
            }
            Link::Joined if self.heard + ping <= now && !self.pinged => {
                self.pinged = true;
                self.tell(client_message::Body::Ping(v1::Ping { token: now.as_millis() as u64 }));
            }
            _ => {}
        }
        self.watch(now);
        if self.session.is_some() {
            self.transport.on_time(now, &mut self.random);
            for (to, packet) in self.media.on_time(now) {
                self.transport.send_rtcp(to, packet);
            }
            self.retarget(now);
        }
        self.flush();
    }

    /// When [`Client::on_time`] is to be called.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let link = match self.link {
            Link::Waiting(until) | Link::Resolving(until) | Link::Joining(until) => Some(until),
            Link::Joined if self.pinged => Some(self.heard + 3 * self.ping()),
            Link::Joined => Some(self.heard + self.ping()),
            Link::Ended => return None,
        };
        let media = self.session.as_ref().and_then(|_| self.media.due());
        let transport = self.session.as_ref().and_then(|_| self.transport.due());
        link.into_iter().chain(self.watch_due()).chain(media).chain(transport).min()
    }

    /// What is to be done next. To be asked until there is nothing more, after each other call.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// So many bytes of messages may be given to the link now, one message more at most: others wait here, so that what is
    /// short and urgent does not wait behind them there. To be called as the link drains; without limit until then.
    pub fn give_room(&mut self, bytes: usize) {
        self.room = bytes;
        self.feed();
    }

    fn feed(&mut self) {
        while self.room > 0
            && matches!(self.link, Link::Joined)
            && let Some(message) = self.outbox.give().cloned()
        {
            self.room = self.room.saturating_sub(message.payload.len());
            self.tell(client_message::Body::SendMessage(message));
        }
    }

    /// Publishes, now or as soon as the scope is joined, and again whenever it is joined anew.
    ///
    /// # Errors
    /// Too many.
    pub fn publish(&mut self, request: v1::Publish) -> Result<Handle, Error> {
        let most = self.limits().publications as usize;
        if most > 0 && self.publications.len() >= most {
            return Err(Error::TooMany("publications"));
        }
        let handle = self.next_request();
        self.publications.push(Publication { handle, request, id: None });
        if matches!(self.link, Link::Joined) {
            self.publish_again(handle);
        }
        Ok(handle)
    }

    /// Ends a publication.
    ///
    /// # Errors
    /// There is no such.
    pub fn unpublish(&mut self, publication: Handle) -> Result<(), Error> {
        let at = self.publications.iter().position(|one| one.handle == publication);
        let one = self.publications.remove(at.ok_or(Error::Unknown("publication"))?);
        if let Some(publication_id) = one.id {
            self.media.unpublish(&publication_id);
            let request = v1::Unpublish { publication_id };
            // Without a link the node ends it with the session, or learns it at the next join.
            let _away = self.request(client_message::Body::Unpublish(request));
        }
        Ok(())
    }

    /// Subscribes to a publication. `as_sent`: as the publisher sends it, which lets media move to the direct way and back
    /// without a double or a gap; only of a native publisher with one encoding.
    ///
    /// # Errors
    /// There is no link, or too many requests wait.
    pub fn subscribe(&mut self, publication_id: &str, as_sent: bool) -> Result<Handle, Error> {
        let clock = self.clocks.get(publication_id).copied().unwrap_or(90_000);
        let publication_id = publication_id.to_owned();
        let request = v1::Subscribe { publication_id, as_sent, preferences: None };
        self.check_joined()?;
        if let Some(handle) = self.subscribed_already(&request.publication_id) {
            return Ok(handle);
        }
        let handle = self.next_request();
        self.keep_subscription(handle, &request);
        self.asked.insert(handle, Asked::Subscribe(handle, clock));
        self.write(handle, client_message::Body::Subscribe(request));
        Ok(handle)
    }

    /// Any other request: answered by `Done`, `Statistics` or `Refused`. What media needs is not to be sent by this:
    /// `Publish`, `Subscribe`, `SendMessage` have calls of their own.
    ///
    /// # Errors
    /// There is no link, too many requests wait, or it is too long.
    pub fn request(&mut self, body: client_message::Body) -> Result<Handle, Error> {
        self.check_joined()?;
        let mut bytes = Vec::new();
        encode(&v1::ClientMessage { request: u32::MAX, body: Some(body.clone()) }, &mut bytes);
        if bytes.len() > MESSAGE_BYTES {
            let (what, bytes) = ("a request", bytes.len());
            return Err(Error::TooLarge { what, bytes, most: MESSAGE_BYTES });
        }
        let handle = self.next_request();
        if self.remember(&body) {
            self.event(Event::Done { handle });
            return Ok(handle);
        }
        self.asked.insert(handle, Asked::Other(handle));
        self.write(handle, body);
        Ok(handle)
    }

    /// Sends a message to a peer, or to all others with an empty `to`; its number. It is sent again over a new link until
    /// the node took it over.
    ///
    /// # Errors
    /// It is too long, or too many wait: more than the node names, or [`BYTES`](super::outbox::BYTES).
    pub fn send_message(&mut self, to: &str, payload: Vec<u8>, text: bool) -> Result<u64, Error> {
        let most = match self.limits().message_bytes as usize {
            0 => MESSAGE,
            most => most,
        };
        if payload.len() > most {
            return Err(Error::TooLarge { what: "a message", bytes: payload.len(), most });
        }
        let message = v1::SendMessage { number: 0, to: to.to_owned(), payload, text };
        let number = self.outbox.push(message).ok_or(Error::TooMany("messages"))?;
        self.feed();
        Ok(number)
    }

    /// Sends a packet of a publication's encoding, 0 for the first.
    ///
    /// # Errors
    /// It is not published (yet), or the payload is too long.
    pub fn send(
        &mut self,
        now: Duration,
        publication: Handle,
        encoding: usize,
        frame: &Frame<'_>,
    ) -> Result<(), Error> {
        let bytes = frame.payload.len();
        if bytes > PAYLOAD_BYTES {
            return Err(Error::TooLarge { what: "an RTP payload", bytes, most: PAYLOAD_BYTES });
        }
        let one = self.publications.iter().find(|one| one.handle == publication);
        let one = one.ok_or(Error::Unknown("publication"))?;
        let id = one.id.as_ref().ok_or(Error::NotJoined)?;
        let kind = one.request.kind();
        let packet = self.media.send(now, id, encoding, frame);
        let (number, packet) = packet.ok_or(Error::Unknown("encoding"))?;
        self.transport_send(kind, number, packet);
        self.flush();
        Ok(())
    }

    /// Asks the publisher of a subscription for a key frame.
    ///
    /// # Errors
    /// There is no such subscription.
    pub fn ask_key_frame(&mut self, subscription_id: &str) -> Result<(), Error> {
        let packet = self.media.ask_key_frame(subscription_id);
        self.transport.send_rtcp(None, packet.ok_or(Error::Unknown("subscription"))?);
        self.flush();
        Ok(())
    }

    /// The node that it is connected to, or was last, or is about to be: another one than was named where that one sent it on.
    #[must_use]
    pub fn node(&self) -> &Place {
        &self.at
    }

    /// How all fares, as the client sees it.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let sent = self.media.sent().map(|(id, ssrc, sent)| (id.to_owned(), ssrc, sent));
        let received = self.media.received().map(|(id, ssrc, one)| (id.to_owned(), ssrc, one));
        Statistics {
            transport: self.transport_state,
            round_trip: self.transport.round_trip(),
            udp: self.transport.udp(),
            sent: sent.collect(),
            received: received.collect(),
            dropped: self.media.dropped,
            direct_packets: self.media.direct_packets,
        }
    }

    /// Leaves for good.
    pub fn leave(&mut self, now: Duration) {
        if matches!(self.link, Link::Joined) {
            self.tell(client_message::Body::Leave(v1::Leave { reason: String::new() }));
        }
        self.end(now, Error::Ended);
    }

    fn on_message(&mut self, now: Duration, message: v1::ServerMessage) {
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
                let mut numbers = taken.undelivered;
                numbers.retain(|number| self.outbox.is_waiting(*number));
                self.outbox.taken(taken.number);
                if !numbers.is_empty() {
                    self.event(Event::Undelivered { numbers });
                }
            }
            (Body::Media(media), _) => self.on_packet(now, None, media.packet),
            (Body::Redirect(redirect), _) => self.redirected(now, redirect),
            (Body::Direct(direct), _) => self.transport.offer(now, &direct, &mut self.random),
            (Body::DirectEnded(_), _) => self.transport.withdraw(now),
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
        (self.link, self.failures) = (Link::Joined, 0);
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
            let path = v1::MediaPath {
                endpoints: session.endpoints.clone(),
                node_ice: session.node_ice.clone(),
                client_ice: session.client_ice.clone(),
            };
            self.transport.start(now, &path, self.node, &mut self.random);
            self.publications.iter_mut().for_each(|one| one.id = None);
        }
        self.session = Some(session.clone());
        self.outbox.rewind(resumed);
        self.feed();
        for publication in session.peers.iter().flat_map(|peer| &peer.publications) {
            self.learn(publication);
        }
        let (peer_id, peers) = (session.peer_id, session.peers);
        self.event(Event::Joined { peer_id, resumed, peers });
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
        self.clocks.insert(publication.publication_id.clone(), clock);
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

    fn end(&mut self, now: Duration, error: Error) {
        self.out.push_back(Output::CloseLink);
        self.forget_session(now);
        self.flush();
        self.link = Link::Ended;
        self.event(Event::Ended(error));
    }

    fn forget_session(&mut self, now: Duration) {
        self.transport.end(now);
        self.session = None;
        self.asked.clear();
        self.publications.iter_mut().for_each(|one| one.id = None);
    }

    fn publish_again(&mut self, handle: Handle) {
        let Some(one) = self.publications.iter().find(|one| one.handle == handle) else { return };
        let body = client_message::Body::Publish(one.request.clone());
        self.ask(Asked::Publish(handle), body);
    }

    fn check_joined(&self) -> Result<(), Error> {
        if !matches!(self.link, Link::Joined) {
            return Err(Error::NotJoined);
        }
        if self.asked.len() >= REQUESTS { Err(Error::TooMany("requests")) } else { Ok(()) }
    }

    fn limits(&self) -> v1::Limits {
        self.session.as_ref().and_then(|session| session.limits).unwrap_or_default()
    }

    fn ping(&self) -> Duration {
        let said = self.session.as_ref().map_or(0, |session| session.ping_ms);
        if said == 0 { PING } else { Duration::from_millis(said.into()) }
    }

    fn next_request(&mut self) -> u32 {
        self.request = self.request.checked_add(1).unwrap_or(1);
        self.request
    }

    fn ask(&mut self, asked: Asked, body: client_message::Body) {
        let request = self.next_request();
        self.asked.insert(request, asked);
        self.write(request, body);
    }

    fn tell(&mut self, body: client_message::Body) {
        self.write(0, body);
    }

    fn write(&mut self, request: u32, body: client_message::Body) {
        let mut bytes = Vec::new();
        encode(&v1::ClientMessage { request, body: Some(body) }, &mut bytes);
        self.out.push_back(Output::Link(bytes));
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// Passes on what the ways are to send.
    fn flush(&mut self) {
        while let Some(packet) = self.transport.poll() {
            match packet {
                Packet::Udp(to, bytes) => self.out.push_back(Output::Datagram(to, bytes)),
                Packet::Framed(packet) => self.out.push_back(Output::Media(packet)),
                Packet::OpenFramed(port) => {
                    let host = self.session_at.host.clone();
                    self.out.push_back(Output::OpenMedia { host, port });
                }
                Packet::CloseFramed => self.out.push_back(Output::CloseMedia),
                Packet::Link(packet) if matches!(self.link, Link::Joined) => {
                    self.out.push_back(Output::LinkMedia(packet));
                }
                Packet::Link(_) => {}
            }
        }
        if let Some(state) = self.transport.changed() {
            self.transport_state = state;
            if matches!(self.link, Link::Joined) {
                let report = v1::TransportReport { state: state.into() };
                self.tell(client_message::Body::TransportReport(report));
            }
            self.event(Event::Transport(state));
        }
    }
}

/// The ciphers have it, and overwrite it in the end.
fn overwrite(key: &mut v1::SessionKey) {
    key.key.fill(0);
    key.salt.fill(0);
    std::hint::black_box(key);
}

fn timed_out(why: &str) -> Error {
    Error::Connect { what: "the link".into(), why: why.into() }
}
