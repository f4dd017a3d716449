//! The management link of native clients: how one opens, and how a client that lost its link goes
//! on with another. The messages are in `proto/strait/link/v1/link.proto`, the life of a link in
//! `docs/reference/link.md`.

mod ahead;
pub mod convert;
pub mod counters;
pub mod door;
mod mailbox;
pub mod quic;
mod recall;
mod session;
mod tunnel;
pub mod wire;

use std::collections::HashMap;
use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strait_link::FrameError;
use strait_link::v1::{
    self as link, Auth, ClientMessage, ErrorCode, ServerMessage, client_message,
    server_message::Body,
};
use strait_proto::pace::Rates;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::admission::{Admission, Permit};
use crate::auth::{self, Admitted, Authenticator, Credential, Identity, Pass};
use crate::config::Config;
use crate::fault::Fault;
use crate::scope::{ScopeKey, Scopes};
use crate::{id, limits, scope};
use convert::error;
use counters::{Counters, count};
use session::Session;
use wire::{End, Stream, Wire};

/// What all links share.
pub struct Links {
    scopes: Arc<Scopes>,
    auth: Arc<Authenticator>,
    /// Connections to the one port of which nobody knows yet what they are.
    openings: Arc<Admission>,
    /// Links that did not authenticate yet. Counted by themselves, so that who comes back to a
    /// session needs no second place: with all places taken nobody could.
    greetings: Arc<Admission>,
    /// Sessions, those without a link included.
    admission: Arc<Admission>,
    reconnect_time: Duration,
    ping_time: Duration,
    /// Where clients are sent that have no session here.
    redirect: Option<(String, u16)>,
    /// How fast a client may speak.
    rates: Rates,
    /// Where the relay takes framed media.
    relay_tcp: Option<SocketAddr>,
    /// Places for connections to it, those of the front door among them.
    media_places: Arc<Admission>,
    /// Those of media over links, whose clients authenticated: strangers take none of them.
    tunnel_places: Arc<Admission>,
    sessions: Mutex<HashMap<String, Handle>>,
    /// Sessions without a link.
    waiting: AtomicUsize,
    counters: Counters,
    /// Tells whether what is noted of a session is another than before.
    hasher: RandomState,
    /// When the process ends, sessions are left to the next one.
    leaves: watch::Sender<bool>,
    /// Sessions that may have messages to hand over before that.
    busy: AtomicUsize,
    /// What one of them left over is not noted.
    is_unnoted: AtomicBool,
    /// Those that are.
    left: AtomicUsize,
    /// Of them those whose client is being told so.
    parting: AtomicUsize,
    /// Turns true when the process ends.
    shutdown: watch::Receiver<bool>,
}

/// A session, as a link finds it that wants to go on with it.
struct Handle {
    // Boxed: a channel has room for 32 of what it carries.
    attach: mpsc::Sender<Box<Attach>>,
    application: String,
    subject: String,
    scope: String,
}

/// A link for a session that lost its own.
struct Attach {
    link: Link,
    /// As it authenticated.
    identity: Identity,
    request: u32,
    messages_seen: u64,
    /// Gives the link back when the session is over.
    refused: oneshot::Sender<Link>,
}

/// A session that may have messages to hand over, as long as this is kept.
struct Busy(Arc<Links>);

impl Busy {
    fn new(links: &Arc<Links>) -> Self {
        links.busy.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(links))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A link that authenticated.
struct Link {
    wire: Wire,
    /// Where the client opens connections for framed media; none where nothing is served over TLS.
    port: Option<u16>,
    /// To be told of the session.
    pass: Pass,
}

/// A session's entry and its place, that of the address that it began from. Both go when it is
/// dropped.
struct Registration {
    links: Arc<Links>,
    session_id: String,
    place: Permit,
}

impl Registration {
    /// What ends the session later: one that nobody can come back to is over.
    fn end(&self) -> impl FnOnce() + Send + 'static {
        let (links, session_id) = (Arc::downgrade(&self.links), self.session_id.clone());
        move || drop(links.upgrade().map(|links| links.lock().remove(&session_id)))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.links.lock().remove(&self.session_id);
    }
}

impl Links {
    /// No links yet.
    pub fn new(
        scopes: Arc<Scopes>,
        auth: Arc<Authenticator>,
        config: &Config,
        shutdown: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let limits = &config.limits;
        Arc::new(Self {
            scopes,
            auth,
            openings: Admission::new(usize::MAX, limits.sessions_per_address),
            greetings: Admission::new(limits.links, limits.sessions_per_address),
            admission: Admission::new(limits.links, limits.sessions_per_address),
            reconnect_time: Duration::from_secs(config.link.reconnect_seconds),
            ping_time: Duration::from_secs(config.link.ping_seconds),
            redirect: config.link.redirect_to(),
            rates: config.link.rates(),
            relay_tcp: config.relay.ice_tcp,
            media_places: Admission::new(limits.spliced_connections, limits.sessions_per_address),
            tunnel_places: Admission::new(limits.spliced_connections, limits.sessions_per_address),
            sessions: Mutex::default(),
            waiting: AtomicUsize::new(0),
            counters: Counters::default(),
            hasher: RandomState::new(),
            leaves: watch::Sender::new(false),
            busy: AtomicUsize::default(),
            is_unnoted: AtomicBool::default(),
            left: AtomicUsize::default(),
            parting: AtomicUsize::default(),
            shutdown,
        })
    }

    /// Takes a new link of a client at `address` until it has a session, of its own or of before, or
    /// is refused. At `port` the client finds TLS.
    pub async fn serve(
        self: Arc<Self>,
        stream: Box<dyn Stream>,
        address: IpAddr,
        port: Option<u16>,
    ) {
        count(&self.counters.opened);
        let mut wire = Wire::new(stream);
        let greeting = match self.greetings.enter(address) {
            Ok(greeting) => greeting,
            // Greetings are over within seconds.
            Err(fault) => return self.refuse(wire, 0, fault.passing().into()).await,
        };
        let (request, auth) = match timeout(limits::AUTH_TIME, wire.message()).await {
            Ok(Ok(message)) => match self.first(message) {
                Ok(first) => first,
                Err((request, refusal)) => return self.refuse(wire, request, refusal).await,
            },
            Ok(Err(End::Closed(_))) => return,
            Ok(Err(End::Unreadable(error))) => {
                return self.refuse(wire, 0, unreadable(&error)).await;
            }
            Err(_) => {
                let seconds = limits::AUTH_TIME.as_secs();
                let reason = format!("no Auth within {seconds} s; send it first");
                return self.refuse(wire, 0, error(ErrorCode::TimedOut, reason)).await;
            }
        };
        wire.set_most(strait_link::MESSAGE_BYTES);
        // A task of its own: what a join needs on the way is no part of what a session keeps.
        let joined = self.join(wire, (request, port), address, auth).await;
        drop(greeting);
        if let Some((session, link)) = joined {
            tokio::spawn(session.run(link));
        }
    }

    /// Places for connections to the relay's ICE-TCP.
    pub fn media_places(&self) -> &Arc<Admission> {
        &self.media_places
    }

    /// A place for a connection from this address, until it is known what it is.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`]: too many of them are half open.
    fn opens(&self, address: IpAddr) -> io::Result<Permit> {
        let place = self.openings.enter(address);
        place.map_err(|fault| io::Error::new(io::ErrorKind::QuotaExceeded, fault.reason))
    }

    /// Links by state: those that did not authenticate yet, those with a session, and sessions that
    /// wait for another link.
    pub fn states(&self) -> [(&'static str, usize); 3] {
        let (sessions, waiting) = (self.lock().len(), self.waiting.load(Ordering::Relaxed));
        let open = sessions.saturating_sub(waiting);
        [("greeting", self.greetings.count()), ("open", open), ("waiting", waiting)]
    }

    /// Sessions.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// When the process ends from here on, sessions are left to the next one. What their clients say to
    /// one another is left to it as well.
    pub fn leave_sessions(&self) {
        self.scopes.fall_silent();
        self.leaves.send_replace(true);
    }

    /// Whether they are.
    pub fn leaves_sessions(&self) -> bool {
        *self.leaves.borrow()
    }

    /// Waits until clients that read have the messages that were taken for them, or had their time.
    pub async fn hand_over(&self) {
        let busy = || self.busy.load(Ordering::Acquire);
        let all = async {
            while busy() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(limits::LINK_HANDOVER_TIME, all).await.is_err() {
            warn!(
                sessions = busy(),
                "messages wait for clients that read slowly, or not at all: they are lost, and their \
                 clients told how many when they are back"
            );
        }
    }

    /// Whether of all sessions that were left it is noted which messages are lost.
    pub fn are_all_noted(&self) -> bool {
        !self.is_unnoted.load(Ordering::Acquire)
    }

    /// Sessions that wait for the next process.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }

    /// Those of them whose client is being told so.
    pub fn parting(&self) -> usize {
        self.parting.load(Ordering::Relaxed)
    }

    /// What they did.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The first message of a link: `Auth` of a version that is spoken here.
    fn first(&self, message: ClientMessage) -> Result<(u32, Box<Auth>), (u32, link::Error)> {
        let request = message.request;
        let refuse = |code, reason: String| Err((request, error(code, reason)));
        let Some(body) = message.body else {
            count(&self.counters.unknown);
            return refuse(ErrorCode::Conflict, "the first message of a link is Auth".into());
        };
        self.counters.received(&body);
        match body {
            client_message::Body::Auth(auth) if auth.version == strait_link::VERSION => {
                Ok((request, Box::new(auth)))
            }
            client_message::Body::Auth(auth) => refuse(
                ErrorCode::Version,
                format!(
                    "version {} of the link is not spoken here, {} is; use another client, or \
                     another node",
                    auth.version,
                    strait_link::VERSION
                ),
            ),
            _ => refuse(ErrorCode::Conflict, "the first message of a link is Auth".into()),
        }
    }

    /// Finds the client's session, or begins one. None when the link went elsewhere.
    async fn join(
        self: &Arc<Self>,
        wire: Wire,
        (request, port): (u32, Option<u16>),
        address: IpAddr,
        auth: Box<Auth>,
    ) -> Option<(Box<Session>, Link)> {
        let Admitted { identity, pass } = match self.identify(&auth).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.refuse(wire, request, refusal).await;
                return None;
            }
        };
        let link = Link { wire, port, pass };
        let attach = {
            let sessions = self.lock();
            let handle = sessions.get(&auth.session_id).filter(|handle| {
                handle.application == identity.application
                    && handle.subject == identity.subject
                    && handle.scope == auth.scope_id
            });
            handle.map(|handle| handle.attach.clone())
        };
        let link = match attach {
            None => link,
            Some(attach) => {
                let (refused, back) = oneshot::channel();
                let messages_seen = auth.messages_seen;
                let identity = identity.clone();
                let attempt = Box::new(Attach { link, identity, request, messages_seen, refused });
                match attach.send(attempt).await {
                    Err(mpsc::error::SendError(attempt)) => attempt.link,
                    Ok(()) => back.await.ok()?,
                }
            }
        };
        if let Some((host, port)) = &self.redirect {
            self.redirect(link.wire, request, host, *port).await;
            return None;
        }
        let scope =
            ScopeKey { application: identity.application.clone(), scope: auth.scope_id.clone() };
        // Kept until the session has its own.
        let _claim = match self.scopes.claim(&scope).await {
            Ok(claim) => claim,
            Err(fault) => {
                match &fault.elsewhere {
                    Some(node) => self.redirect(link.wire, request, &node.host, node.port).await,
                    None => self.refuse(link.wire, request, fault.into()).await,
                }
                return None;
            }
        };
        match self.open((request, port), address, &auth, identity).await {
            Ok(session) => Some((Box::new(session), link)),
            Err(refusal) => {
                self.refuse(link.wire, request, refusal).await;
                None
            }
        }
    }

    async fn identify(&self, auth: &Auth) -> Result<Admitted, link::Error> {
        if *self.shutdown.borrow() {
            return Err(Fault::unavailable("the server is ending; connect to another").into());
        }
        let now = u64::try_from(scope::unix_now()).unwrap_or_default();
        let session = Some(auth.session_id.as_str()).filter(|session| !session.is_empty());
        let refused = |refusal: auth::Refusal| link::Error::from(Fault::from(refusal));
        let signed;
        let credential = match &auth.credential {
            Some(link::auth::Credential::Token(token)) => Some(Credential::Bearer(token)),
            Some(link::auth::Credential::Signed(given)) => {
                signed = convert::signed(given, &auth.scope_id).map_err(refused)?;
                Some(Credential::Signed(&signed))
            }
            None => None,
        };
        let admitted = self.auth.identify(credential, session, now).await.map_err(refused)?;
        admitted.identity.check_scope(&auth.scope_id)?;
        Ok(admitted)
    }

    async fn open(
        self: &Arc<Self>,
        reached: (u32, Option<u16>),
        address: IpAddr,
        auth: &Auth,
        identity: Identity,
    ) -> Result<Session, link::Error> {
        if !auth.name.is_empty() {
            id::check_name("the name", &auth.name, limits::NAME_BYTES)?;
        }
        if auth.client.len() > limits::NAME_BYTES || auth.profiles.len() > limits::PROFILES {
            return Err(Fault::too_large(format!(
                "Auth.client has more than {} bytes, or Auth.profiles more than {} entries",
                limits::NAME_BYTES,
                limits::PROFILES
            ))
            .into());
        }
        let place = self.admission.enter(address)?;
        let session_id = id::random("l")?;
        let (attach, attached) = mpsc::channel(1);
        let handle = Handle {
            attach,
            application: identity.application.clone(),
            subject: identity.subject.clone(),
            scope: auth.scope_id.clone(),
        };
        let (links, id) = (Arc::clone(self), session_id.clone());
        let registration = Registration { links, session_id: id, place };
        let session = Session::begin(registration, identity, reached, auth, attached).await?;
        self.lock().insert(session_id, handle);
        Ok(session)
    }

    /// Says where else to go, and ends the link.
    async fn redirect(&self, mut wire: Wire, request: u32, host: &str, port: u16) {
        count(&self.counters.redirected);
        let redirect = link::Redirect { host: host.to_owned(), port: port.into() };
        wire.send(&ServerMessage { request, body: Some(Body::Redirect(redirect)) });
        wire.close().await;
    }

    /// Says why, and ends the link.
    async fn refuse(&self, mut wire: Wire, request: u32, error: link::Error) {
        debug!("link refused: {}", error.reason);
        self.counters.refused(error.code());
        let body = Some(Body::Error(error));
        wire.send(&ServerMessage { request, body });
        wire.close().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(error: &FrameError) -> link::Error {
    let code = match error {
        FrameError::TooLarge { .. } => ErrorCode::TooLarge,
        FrameError::Malformed(_) | FrameError::Cut { .. } => ErrorCode::Malformed,
    };
    convert::error(code, error.to_string())
}
