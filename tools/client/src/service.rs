//! The service thread: one for each client. Sockets, clock and randomness for the core.

use crate::core::client::{Client as Core, Config, Event, Handle, Output, Statistics};
use crate::core::path::Random;
use crate::core::resolver::Place;
use crate::core::sending::Frame;
use crate::error::Error;
use crate::framed::{Framed, Happened};
use crate::http;
use crate::proxy::{Proxy, Route, UdpRelay};
use crate::quic::{Came, Quic};
use crate::resolve;
use crate::tls::{Tls, Trust, is_host};
use aws_lc_rs::rand::SecureRandom;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use strait_link::v1::{self, client_message};
use strait_link::{STRANGER_BYTES, encode};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;

/// Media is left out on a link where more waits to be sent.
const LATE: usize = 128 << 10;
/// Bytes of the application's messages that wait on a link; further ones wait in the core. With one message of the greatest
/// length it is less than [`LATE`], so that they do not displace media.
const AHEAD: usize = 32 << 10;
/// Bytes of the first message of a link besides what the application gives: the session to resume, and a failed streamer.
const SESSION: usize = 512;
/// So much of a host that is none is repeated in an error.
const HOST_SHOWN: usize = 100;
/// Datagrams that are taken in one turn.
const BATCH: usize = 64;
/// How long the last words of a link may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// Whom to join, and how the node is reached and known.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// Whom to join.
    pub config: Config,
    /// How the node is known.
    pub trust: Trust,
    /// What stands between.
    pub proxy: Option<Proxy>,
    /// Whether datagrams may be sent at all. Without, all goes over the link.
    pub udp: bool,
    /// The node's port for links over QUIC. It is tried first, and TLS over TCP where it does not answer; not through a
    /// proxy, nor without `udp`.
    pub quic: Option<u16>,
}

/// Of the system.
pub struct SystemRandom(aws_lc_rs::rand::SystemRandom);

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        // It fails only where the system has no randomness at all; zeros then let nothing be answered.
        let _filled = self.0.fill(bytes);
    }
}

struct Shared {
    core: Mutex<Core<SystemRandom>>,
    wake: Notify,
    started: Instant,
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core<SystemRandom>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A client in a scope. Each call returns at once; what comes of it is told by events. Leaves at once when it is dropped,
/// whatever waits: [`Client::leave`] hands that over first.
pub struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Begins to join. `on_event` is called on the client's own thread, which does nothing else meanwhile; it may call the
    /// client.
    ///
    /// # Errors
    /// The configuration can lead nowhere, there are no certificates to trust, or the system gives no thread or socket.
    pub fn connect(
        descriptor: Descriptor,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, Error> {
        check(&descriptor.config)?;
        descriptor.proxy.iter().try_for_each(Proxy::check)?;
        let tls = descriptor.trust.config(strait_link::ALPN)?;
        let media_tls = descriptor.trust.config(strait_link::MEDIA_ALPN)?;
        let http_tls = descriptor.trust.config(http::ALPN)?;
        let random = SystemRandom(aws_lc_rs::rand::SystemRandom::new());
        let mut core = Core::new(descriptor.config, random);
        if !descriptor.udp {
            core.forgo_udp();
        }
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            wake: Notify::new(),
            started: Instant::now(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| system("a runtime", &error))?;
        let udp = {
            let _inside = runtime.enter();
            Udp::bind(descriptor.udp)?
        };
        let service = Service {
            shared: Arc::clone(&shared),
            tls,
            media_tls,
            http_tls,
            quic: descriptor.quic.filter(|_| descriptor.udp && descriptor.proxy.is_none()),
            proxy: descriptor.proxy,
            udp,
            link: Link::None,
            framed: Framed::None,
            resolving: None,
            on_event,
        };
        let thread = std::thread::Builder::new()
            .name("strait-client".into())
            .spawn(move || runtime.block_on(service.run()))
            .map_err(|error| system("a thread", &error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// See [`Core::publish`].
    ///
    /// # Errors
    /// As there.
    pub fn publish(&self, request: v1::Publish) -> Result<Handle, Error> {
        self.call(|core, _| core.publish(request))
    }

    /// See [`Core::unpublish`].
    ///
    /// # Errors
    /// As there.
    pub fn unpublish(&self, publication: Handle) -> Result<(), Error> {
        self.call(|core, _| core.unpublish(publication))
    }

    /// See [`Core::subscribe`].
    ///
    /// # Errors
    /// As there.
    pub fn subscribe(&self, publication_id: &str, as_sent: bool) -> Result<Handle, Error> {
        self.call(|core, _| core.subscribe(publication_id, as_sent))
    }

    /// See [`Core::request`].
    ///
    /// # Errors
    /// As there.
    pub fn request(&self, body: client_message::Body) -> Result<Handle, Error> {
        self.call(|core, _| core.request(body))
    }

    /// See [`Core::send_message`].
    ///
    /// # Errors
    /// As there.
    pub fn send_message(&self, to: &str, payload: Vec<u8>, text: bool) -> Result<u64, Error> {
        self.call(|core, _| core.send_message(to, payload, text))
    }

    /// See [`Core::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(
        &self,
        publication: Handle,
        encoding: usize,
        frame: &Frame<'_>,
    ) -> Result<(), Error> {
        self.call(|core, now| core.send(now, publication, encoding, frame))
    }

    /// See [`Core::ask_key_frame`].
    ///
    /// # Errors
    /// As there.
    pub fn ask_key_frame(&self, subscription_id: &str) -> Result<(), Error> {
        self.call(|core, _| core.ask_key_frame(subscription_id))
    }

    /// Leaves for good, as soon as the node took over what messages wait, after 2 s at the latest: [`Event::Ended`] follows,
    /// after an [`Event::Unconfirmed`] where some were not taken.
    pub fn leave(&self) {
        self.call(|core, now| core.leave(now));
    }

    /// See [`Core::node`].
    #[must_use]
    pub fn node(&self) -> Place {
        self.shared.core().node().clone()
    }

    /// How all fares, as the client sees it.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.core().statistics()
    }

    fn call<T>(&self, call: impl FnOnce(&mut Core<SystemRandom>, Duration) -> T) -> T {
        let now = self.shared.now();
        let result = call(&mut self.shared.core(), now);
        self.shared.wake.notify_one();
        result
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.call(|core, now| core.leave_at_once(now));
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ended = thread.join();
        }
    }
}

/// The link, the node's address where it is known, and the proxy's way for datagrams.
type Connected = Result<(Link, Option<IpAddr>, Option<UdpRelay>), Error>;
pub(crate) type ConnectedTls = Result<(Box<Tls>, Option<IpAddr>, Option<UdpRelay>), Error>;
type Resolving = Pin<Box<dyn Future<Output = Result<Place, Error>> + Send>>;
type Connecting = Pin<Box<dyn Future<Output = Connected> + Send>>;

enum Link {
    None,
    Connecting(Connecting),
    Tls(Box<Tls>),
    Quic(Box<Quic>),
}

impl Link {
    async fn turn(&mut self) -> Turn {
        match self {
            Self::None => std::future::pending().await,
            Self::Connecting(connecting) => Turn::Connected(connecting.await),
            Self::Tls(tls) => Turn::Bytes(tls.turn().await),
            Self::Quic(quic) => match quic.turn().await {
                Ok(Came::Bytes(bytes)) => Turn::Bytes(Ok(bytes)),
                Ok(Came::Packet(packet)) => Turn::Packet(packet),
                Err(error) => Turn::Bytes(Err(error)),
            },
        }
    }

    fn waiting(&self) -> usize {
        match self {
            Self::None | Self::Connecting(_) => 0,
            Self::Tls(tls) => tls.waiting(),
            Self::Quic(quic) => quic.waiting(),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::None | Self::Connecting(_) => Ok(()),
            Self::Tls(tls) => tls.send(bytes),
            Self::Quic(quic) => quic.send(bytes),
        }
    }

    async fn close(self) {
        match self {
            Self::None | Self::Connecting(_) => {}
            Self::Tls(tls) => tls.close().await,
            Self::Quic(quic) => quic.close().await,
        }
    }
}

enum Turn {
    Resolved(Result<Place, Error>),
    Connected(Connected),
    Bytes(Result<Vec<u8>, Error>),
    /// Media over the link, beside its messages.
    Packet(Vec<u8>),
    Datagram(SocketAddr, Vec<u8>),
    Framed(Happened),
    Nothing,
}

/// A socket of each family, as far as there is one.
struct Udp {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// All goes through a proxy.
    relay: Option<UdpRelay>,
}

impl Udp {
    fn bind(wanted: bool) -> Result<Self, Error> {
        if !wanted {
            return Ok(Self { v4: None, v6: None, relay: None });
        }
        let bind = |address: &str| {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        let (v4, v6) = (bind("0.0.0.0:0"), bind("[::]:0"));
        match (v4, v6) {
            (Err(error), Err(_)) => Err(system("a UDP socket", &error)),
            (v4, v6) => Ok(Self { v4: v4.ok(), v6: v6.ok(), relay: None }),
        }
    }

    /// Whether datagrams can be sent at all.
    fn is_open(&self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }

    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let wrapped;
        let (to, bytes) = match &self.relay {
            Some(relay) => {
                wrapped = relay.wrap(to, bytes);
                (relay.address, wrapped.as_slice())
            }
            None => (to, bytes),
        };
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(socket) = socket {
            // A datagram that the system does not take is lost, as on any line.
            let _sent = socket.try_send_to(bytes, to);
        }
    }

    async fn receive(&self) -> Turn {
        let (bytes, from) = tokio::select! {
            came = receive(self.v4.as_ref()) => came,
            came = receive(self.v6.as_ref()) => came,
        };
        self.open(from, bytes)
    }

    fn more(&self) -> Option<Turn> {
        let mut bytes = vec![0; 2048];
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            if let Ok((len, from)) = socket.try_recv_from(&mut bytes) {
                bytes.truncate(len);
                return Some(self.open(from, bytes));
            }
        }
        None
    }

    fn open(&self, from: SocketAddr, bytes: Vec<u8>) -> Turn {
        match &self.relay {
            None => Turn::Datagram(from, bytes),
            Some(relay) if from == relay.address => match relay.unwrap(&bytes) {
                Some((from, bytes)) => Turn::Datagram(from, bytes),
                None => Turn::Nothing,
            },
            Some(_) => Turn::Nothing,
        }
    }
}

async fn receive(socket: Option<&UdpSocket>) -> (Vec<u8>, SocketAddr) {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut bytes = vec![0; 2048];
    loop {
        match socket.recv_from(&mut bytes).await {
            Ok((len, from)) => {
                bytes.truncate(len);
                return (bytes, from);
            }
            // What an earlier datagram provoked (a closed port), and nothing to stop for.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

struct Service<F> {
    shared: Arc<Shared>,
    tls: Arc<rustls::ClientConfig>,
    media_tls: Arc<rustls::ClientConfig>,
    http_tls: Arc<rustls::ClientConfig>,
    quic: Option<u16>,
    proxy: Option<Proxy>,
    udp: Udp,
    link: Link,
    framed: Framed,
    resolving: Option<Resolving>,
    on_event: F,
}

impl<F: FnMut(Event)> Service<F> {
    async fn run(mut self) {
        loop {
            let now = self.shared.now();
            let due = {
                let mut core = self.shared.core();
                if core.due().is_some_and(|due| due <= now) {
                    core.on_time(now);
                }
                core.due()
            };
            if self.outputs().await {
                return;
            }
            // What outputs led to may be due sooner.
            let due = self.shared.core().due().or(due);
            let sleep = due.map(|due| due.saturating_sub(self.shared.now()));
            let turn = tokio::select! {
                turn = self.link.turn() => turn,
                turn = self.udp.receive() => turn,
                happened = self.framed.turn() => Turn::Framed(happened),
                resolved = resolved(&mut self.resolving) => Turn::Resolved(resolved),
                () = self.shared.wake.notified() => Turn::Nothing,
                () = sleep_for(sleep) => Turn::Nothing,
            };
            self.on_turn(turn);
        }
    }

    fn on_turn(&mut self, turn: Turn) {
        let now = self.shared.now();
        match turn {
            Turn::Nothing => {}
            Turn::Resolved(answer) => {
                self.resolving = None;
                self.shared.core().on_resolved(now, answer);
            }
            Turn::Packet(packet) => self.shared.core().on_link_media(now, packet),
            Turn::Connected(Ok((link, node, relay))) => {
                self.link = link;
                self.udp.relay = relay;
                let mut core = self.shared.core();
                match node.filter(|_| matches!(self.link, Link::Quic(_))) {
                    Some(node) => core.on_link_over_udp(now, node),
                    None => core.on_link(now, node),
                }
            }
            Turn::Connected(Err(error)) | Turn::Bytes(Err(error)) => {
                self.link = Link::None;
                self.shared.core().on_link_lost(now, error);
            }
            Turn::Bytes(Ok(bytes)) if bytes.is_empty() => {}
            Turn::Bytes(Ok(bytes)) => self.shared.core().on_link_bytes(now, &bytes),
            Turn::Framed(Happened::Opened) => self.shared.core().on_media(now),
            Turn::Framed(Happened::Lost) => self.shared.core().on_media_lost(now),
            Turn::Framed(Happened::Packets(packets)) => {
                let mut core = self.shared.core();
                packets.into_iter().for_each(|packet| core.on_media_packet(now, packet));
            }
            Turn::Datagram(from, bytes) => {
                self.shared.core().on_datagram(now, from, bytes);
                for _ in 1..BATCH {
                    match self.udp.more() {
                        Some(Turn::Datagram(from, bytes)) => {
                            self.shared.core().on_datagram(now, from, bytes);
                        }
                        Some(_) => {}
                        None => return,
                    }
                }
            }
        }
    }

    /// Does what the core wants; whether that was the last of it.
    async fn outputs(&mut self) -> bool {
        loop {
            // Not held while the application is called, which may call back.
            let output = {
                let mut core = self.shared.core();
                core.poll().or_else(|| {
                    core.give_room(AHEAD.saturating_sub(self.link.waiting()));
                    core.poll()
                })
            };
            let Some(output) = output else {
                if self.framed.flush() {
                    return false;
                }
                let now = self.shared.now();
                self.shared.core().on_media_lost(now);
                continue;
            };
            match output {
                Output::Resolve(question) => {
                    let (proxy, tls) = (self.proxy.clone(), Arc::clone(&self.http_tls));
                    self.resolving = Some(Box::pin(resolve::ask(question, proxy, tls)));
                }
                Output::Connect { host, port } => {
                    let route = Route { host, port, proxy: self.proxy.clone() };
                    let (udp, tls) = (self.udp.is_open(), Arc::clone(&self.tls));
                    let connecting = connect(route, self.quic, udp, tls);
                    self.link = Link::Connecting(Box::pin(connecting));
                }
                Output::CloseLink => {
                    let link = std::mem::replace(&mut self.link, Link::None);
                    let _late = tokio::time::timeout(FAREWELL, link.close()).await;
                }
                Output::Link(bytes) => self.send(&bytes),
                Output::LinkMedia(packet) => self.send_media(packet),
                // A link over QUIC has datagrams for media, of which none waits for another.
                Output::OpenMedia { .. } if matches!(self.link, Link::Quic(_)) => {
                    let now = self.shared.now();
                    self.shared.core().on_media_lost(now);
                }
                Output::OpenMedia { host, port } => {
                    let route = Route { host, port, proxy: self.proxy.clone() };
                    let connecting = connect_tls(route, Arc::clone(&self.media_tls), false);
                    self.framed = Framed::open(async { Ok(connecting.await?.0) });
                }
                Output::CloseMedia => self.framed = Framed::None,
                Output::Media(packet) => self.framed.send(&packet),
                Output::Datagram(to, bytes) => self.udp.send(to, &bytes),
                Output::Event(event) => {
                    let last = matches!(event, Event::Ended(_));
                    (self.on_event)(event);
                    if last {
                        return true;
                    }
                }
            }
        }
    }

    fn send_media(&mut self, packet: Vec<u8>) {
        let packet = match &self.link {
            Link::Quic(quic) => match quic.send_packet(packet) {
                Ok(()) => return,
                Err(packet) => packet,
            },
            _ => packet,
        };
        if self.link.waiting() < LATE {
            let mut bytes = Vec::new();
            let body = Some(client_message::Body::Media(v1::Media { packet }));
            encode(&v1::ClientMessage { request: 0, body }, &mut bytes);
            self.send(&bytes);
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.link.send(bytes) {
            self.link = Link::None;
            let now = self.shared.now();
            self.shared.core().on_link_lost(now, error);
        }
    }
}

/// Whether it can be tried at all: what no node ever takes would be refused for ever.
fn check(config: &Config) -> Result<(), Error> {
    let Config { host, port, .. } = config;
    // The CnCs of a cluster know better ones.
    let is_needed = config.cluster.is_none() || !host.is_empty();
    if is_needed && !is_host(host) {
        let shown: String = host.chars().take(HOST_SHOWN).collect();
        let why = "is neither a name nor an address: give it without scheme, port and brackets";
        return Err(Error::Malformed(format!("the host {shown:?} {why}")));
    }
    if is_needed && *port == 0 {
        let why = "the port is 0: name the node's port for HTTPS and links".into();
        return Err(Error::Connect { what: host.clone(), why });
    }
    let auth = v1::Auth {
        credential: Some(config.credential.clone()),
        scope_id: config.scope_id.clone(),
        name: config.name.clone(),
        client: config.client.clone(),
        ..v1::Auth::default()
    };
    let mut bytes = Vec::new();
    let body = Some(client_message::Body::Auth(auth));
    encode(&v1::ClientMessage { request: 0, body }, &mut bytes);
    let (what, bytes, most) = ("token, scope and name", bytes.len(), STRANGER_BYTES - SESSION);
    if bytes > most { Err(Error::TooLarge { what, bytes, most }) } else { Ok(()) }
}

/// The way to the node: QUIC where it has that; else a proxy where there is one, TCP, TLS.
async fn connect(
    route: Route,
    quic: Option<u16>,
    udp: bool,
    config: Arc<rustls::ClientConfig>,
) -> Connected {
    if let Some(port) = quic
        && let Ok(link) = Quic::connect(&route.host, port, Arc::clone(&config)).await
    {
        let node = link.node();
        return Ok((Link::Quic(Box::new(link)), Some(node), None));
    }
    let (tls, node, relay) = connect_tls(route, config, udp).await?;
    Ok((Link::Tls(tls), node, relay))
}

/// `udp`: see [`Route::connect`].
pub(crate) async fn connect_tls(
    route: Route,
    config: Arc<rustls::ClientConfig>,
    udp: bool,
) -> ConnectedTls {
    let name = rustls::pki_types::ServerName::try_from(route.host.clone())
        .map_err(|_| Error::Connect { what: route.host.clone(), why: "this is no name".into() })?;
    let (stream, relay): (TcpStream, _) = route.connect(udp).await?;
    let node = match route.proxy {
        // The proxy's address says nothing about the node's.
        Some(_) => route.host.parse().ok(),
        None => stream.peer_addr().ok().map(|address| address.ip()),
    };
    let _refused = stream.set_nodelay(true);
    let connection = rustls::ClientConnection::new(config, name);
    let connection = connection.map_err(|error| system("TLS", &error))?;
    let mut tls = Box::new(Tls::new(stream, connection.into()));
    tls.handshake().await?;
    Ok((tls, node, relay))
}

async fn resolved(resolving: &mut Option<Resolving>) -> Result<Place, Error> {
    match resolving {
        Some(resolving) => resolving.await,
        None => std::future::pending().await,
    }
}

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn system(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Connect { what: what.into(), why: error.to_string() }
}
