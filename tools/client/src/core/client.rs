//! The client: the link and its requests, with media and ways beside it.

mod answers;
mod calls;
mod finding;
mod packets;

use super::media::Media;
use super::outbox::Outbox;
pub use super::output::{Event, Handle, Output};
use super::path::{Candidate, Random};
use super::receiving::Received;
use super::resolver::{Cluster, Place, Search};
use super::sending::Sent;
use super::subscriptions::Subscriptions;
use super::way::{Packet, Transport};
use crate::error::Error;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use strait_link::v1::{self, auth::Credential, client_message};
use strait_link::{Frames, MESSAGE_BYTES, STRANGER_BYTES, VERSION, encode};

/// Before a link is tried again it is waited so long, and up to as long once more by chance: nodes that come back must not
/// meet everybody at once.
pub const RECONNECT: Duration = Duration::from_secs(1);
/// How long a client that leaves hands over what messages wait: some megabytes on most lines, and about as long as it takes
/// to come back over another link. Nobody waits longer for a program to end.
pub const LEAVE: Duration = Duration::from_secs(2);
/// What the node has to answer `Auth` within, connection and TLS included.
const JOIN: Duration = Duration::from_secs(15);
/// Redirects in a row.
const REDIRECTS: usize = 5;
/// Packets of media that wait to be taken: those of some seconds, in which the application takes an event and sends meanwhile.
/// More are left out, for late media is worth nothing.
const WAITING: usize = 4096;
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
    /// How often in a row the client was not let in.
    refusals: u32,
    /// The node that the application named, while another one sent us elsewhere.
    home: Option<Place>,
    /// The nodes that sent us on, one after the other.
    sent_on: Vec<Place>,
    heard: Duration,
    /// What ends UDP ends the link.
    link_is_over_udp: bool,
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
    /// It is left once nothing waits any more in `outbox`, and then at the latest.
    leaves_by: Option<Duration>,
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
            refusals: 0,
            home: None,
            sent_on: Vec::new(),
            heard: Duration::ZERO,
            link_is_over_udp: false,
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
            leaves_by: None,
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
        self.link_is_over_udp = false;
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

    /// The same, over UDP: it is left as soon as all of that is silent.
    pub fn on_link_over_udp(&mut self, now: Duration, node: IpAddr) {
        self.on_link(now, Some(node));
        self.link_is_over_udp = true;
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
            self.lost(now, error, (RECONNECT, 1));
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
        if self.leaves_by.is_some_and(|by| by <= now) {
            return self.leave_at_once(now);
        }
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
        let others = [link, self.leaves_by, self.watch_due(), media, transport];
        others.into_iter().flatten().min()
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
            && let Some(message) = self.outbox.give()
        {
            self.room = self.room.saturating_sub(message.payload.len());
            self.tell(client_message::Body::SendMessage(message));
        }
    }

    fn end(&mut self, now: Duration, error: Error) {
        self.out.push_back(Output::CloseLink);
        self.forget_session(now);
        self.flush();
        self.link = Link::Ended;
        let numbers = self.outbox.give_up();
        if !numbers.is_empty() {
            self.event(Event::Unconfirmed { numbers });
        }
        self.event(Event::Ended(error));
    }

    fn forget_session(&mut self, now: Duration) {
        self.transport.end(now);
        self.session = None;
        self.asked.clear();
        self.publications.iter_mut().for_each(|one| one.id = None);
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
            let is_late = self.out.len() >= WAITING;
            match packet {
                Packet::Udp(..) | Packet::Framed(_) | Packet::Link(_) if is_late => {}
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

fn timed_out(why: &str) -> Error {
    Error::Connect { what: "the link".into(), why: why.into() }
}
