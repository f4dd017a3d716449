//! All WebSocket sessions: how one opens, and how one that lost its WebSocket gets another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use strait_proto::pace::Rates;
use tokio::sync::{mpsc, oneshot, watch};

use super::conference::Session;
use super::jsonrtc::{Action, Frame, Outgoing, Reconnect};
use crate::admission::{Admission, Permit};
use crate::auth::{Admitted, Authenticator, Credential, Identity, Pass};
use crate::config::{IceServer, Signal};
use crate::fault::Fault;
use crate::scope::Scopes;
use crate::{id, limits, scope};

/// What all sessions share.
pub struct Hub {
    pub(super) scopes: Arc<Scopes>,
    auth: Arc<Authenticator>,
    admission: Arc<Admission>,
    pub(super) reconnect_time: Duration,
    /// How fast a client may speak.
    pub(super) rates: Rates,
    /// Messages after which a client was read later, because it speaks too fast.
    held: AtomicU64,
    ice_servers: Vec<Value>,
    sessions: Mutex<HashMap<String, Handle>>,
    /// Turns true when the process ends.
    pub(super) shutdown: watch::Receiver<bool>,
}

/// Both ends that a session sees of a WebSocket.
pub struct Wire {
    /// Text messages of the client; ends with the WebSocket.
    pub inbound: mpsc::Receiver<String>,
    /// Text messages for the client. Dropping it closes the WebSocket.
    pub outbound: mpsc::Sender<String>,
    /// This node's own TURN server, as the client reaches it.
    pub turn: Option<IceServer>,
}

impl Wire {
    /// Not much waits for the client: what may be left out finds room.
    pub(super) fn has_room(&self) -> bool {
        self.outbound.capacity() > self.outbound.max_capacity() / 2
    }
}

/// A WebSocket for a session that lost its own.
pub(super) struct Attach {
    pub(super) wire: Wire,
    /// As it authenticated.
    pub(super) identity: Identity,
    pub(super) reconnect: Reconnect,
    /// To be told that the session goes on.
    pub(super) pass: Pass,
    /// Gives the WebSocket back when the session cannot go on with it.
    pub(super) refused: oneshot::Sender<(Wire, Pass)>,
}

impl Attach {
    /// The session cannot go on with it.
    pub(super) fn give_back(self) {
        let _ = self.refused.send((self.wire, self.pass));
    }
}

struct Handle {
    attach: mpsc::Sender<Attach>,
    application: String,
    subject: String,
}

/// A server as browsers take it.
fn told(server: &IceServer) -> Value {
    match server.username.is_empty() {
        true => json!({"urls": server.url}),
        false => json!({
            "urls": server.url,
            "username": server.username,
            "credential": server.credential.expose(),
        }),
    }
}

impl Hub {
    /// No sessions yet.
    pub fn new(
        scopes: Arc<Scopes>,
        auth: Arc<Authenticator>,
        admission: Arc<Admission>,
        signal: &Signal,
        rates: Rates,
        shutdown: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ice_servers: signal.ice_servers.iter().map(told).collect(),
            scopes,
            auth,
            admission,
            reconnect_time: Duration::from_secs(signal.reconnect_seconds),
            rates,
            held: AtomicU64::new(0),
            sessions: Mutex::default(),
            shutdown,
        })
    }

    /// Serves a new WebSocket until it is over, or until a session that it resumes has taken it.
    pub async fn serve(self: Arc<Self>, mut wire: Wire, token: Option<String>, address: IpAddr) {
        let deadline = tokio::time::Instant::now() + limits::CONNECT_TIME;
        for _ in 0..limits::FRAMES_BEFORE_CONNECT {
            let next = tokio::time::timeout_at(deadline, wire.inbound.recv()).await;
            let Ok(Some(text)) = next else { return };
            match self.connect(&text, token.as_deref(), address).await {
                Ok(Greeting::Pong) => say(&wire, Outgoing::pong()),
                Ok(Greeting::New(session, pass)) => return session.run(wire, pass).await,
                Ok(Greeting::Resume { attach, identity, pass, reconnect, fallback }) => {
                    let (refused, back) = oneshot::channel();
                    let attempt = Attach { wire, identity, reconnect, pass, refused };
                    let pass;
                    (wire, pass) = match attach.send(attempt).await {
                        Err(mpsc::error::SendError(attempt)) => (attempt.wire, attempt.pass),
                        Ok(()) => match back.await {
                            Ok(back) => back,
                            Err(_) => return, // the session has it
                        },
                    };
                    // A session ends when nobody can come back to it.
                    drop(attach);
                    match fallback {
                        Ok(session) => return session.run(wire, pass).await,
                        Err(fault) => say(&wire, Outgoing::error("CONNECT", None, &fault)),
                    }
                }
                Err(error) => say(&wire, error),
            }
        }
    }

    /// Sessions there are, those without a WebSocket included.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Messages after which a client waited.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn count_held(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, session_id: &str) {
        self.lock().remove(session_id);
    }

    /// The payload of the answer to CONNECT.
    pub(super) fn greeting(
        &self,
        peer: &str,
        identity: &Identity,
        turn: Option<&IceServer>,
    ) -> Value {
        let ice_servers: Vec<_> = self.ice_servers.iter().cloned().chain(turn.map(told)).collect();
        json!({
            "peer": peer,
            "application": identity.application,
            "iceServers": ice_servers,
        })
    }

    async fn connect(
        self: &Arc<Self>,
        text: &str,
        token: Option<&str>,
        address: IpAddr,
    ) -> Result<Greeting, Outgoing> {
        let frame = Frame::parse(text).map_err(|error| {
            let correlation = error.sequence.map(|sequence| format!("c{sequence}"));
            Outgoing::error(error.action.as_deref().unwrap_or_default(), correlation, &error.fault)
        })?;
        let refuse =
            |fault: Fault| Outgoing::error(frame.action.name(), frame.correlation(), &fault);
        match frame.action {
            Action::Ping => return Ok(Greeting::Pong),
            Action::Connect => {}
            _ => {
                return Err(refuse(Fault::conflict("there is no session yet; send CONNECT first")));
            }
        }
        let now = u64::try_from(scope::unix_now()).unwrap_or_default();
        let token = token.or_else(|| frame.text("token"));
        let shown = frame.control.session_id.as_deref();
        let admitted = self.auth.identify(token.map(Credential::Bearer), shown, now).await;
        let Admitted { identity, pass } = admitted.map_err(Fault::from).map_err(refuse)?;
        if *self.shutdown.borrow() {
            return Err(refuse(Fault::unavailable("the server is ending; connect to another")));
        }
        let malformed = |reason| refuse(Fault::malformed(reason));
        let Some(session_id) = &frame.control.session_id else {
            let session = self.open(&frame, identity, address).map_err(refuse)?;
            return Ok(Greeting::New(session, pass));
        };
        let received = frame.number("cslr").map_err(malformed)?;
        let retained_after = frame.number("cslw").map_err(malformed)?;
        let sent = frame.number("csuw").map_err(malformed)?;
        let attach = {
            let sessions = self.lock();
            let handle = sessions.get(session_id).filter(|handle| {
                handle.application == identity.application && handle.subject == identity.subject
            });
            handle.map(|handle| handle.attach.clone())
        };
        match (attach, received, retained_after, sent) {
            (Some(attach), Some(received), Some(retained_after), Some(sent)) => {
                // What happens when the session cannot go on: a new one, made on demand.
                let fallback = self.open(&frame, identity.clone(), address);
                let reconnect = Reconnect { received, retained_after, sent };
                Ok(Greeting::Resume { attach, identity, pass, reconnect, fallback })
            }
            _ => {
                let session = self.open(&frame, identity, address).map_err(refuse)?;
                Ok(Greeting::New(session, pass))
            }
        }
    }

    fn open(
        self: &Arc<Self>,
        connect: &Frame,
        identity: Identity,
        address: IpAddr,
    ) -> Result<Session, Fault> {
        let permit = self.admission.enter(address)?;
        // A name in the token is the application's word and wins over what the client says.
        let given = connect.text("initiator").filter(|name| !name.is_empty());
        if let Some(name) = given {
            id::check_name("the name (header initiator)", name, limits::NAME_BYTES)?;
        }
        let name = identity.name.clone().or_else(|| given.map(str::to_owned));
        let name = name.unwrap_or_else(|| match identity.subject.is_empty() {
            true => "guest".into(),
            false => identity.subject.clone(),
        });
        let session_id = id::random("s")?;
        let (attach, attached) = mpsc::channel(1);
        let handle = Handle {
            attach,
            application: identity.application.clone(),
            subject: identity.subject.clone(),
        };
        let registration = Registration { hub: Arc::clone(self), session_id, _permit: permit };
        let session = Session::new(registration, connect, identity, name, attached)?;
        self.lock().insert(session.id().to_owned(), handle);
        Ok(session)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a frame before the session leads to.
enum Greeting {
    Pong,
    New(Session, Pass),
    Resume {
        attach: mpsc::Sender<Attach>,
        identity: Identity,
        pass: Pass,
        reconnect: Reconnect,
        fallback: Result<Session, Fault>,
    },
}

/// A session's entry in the hub, removed when dropped.
pub(super) struct Registration {
    pub(super) hub: Arc<Hub>,
    pub(super) session_id: String,
    _permit: Permit,
}

impl Registration {
    /// What ends the session later: one that nobody can come back to is over.
    pub(super) fn end(&self) -> impl FnOnce() + Send + 'static {
        let (hub, session_id) = (Arc::downgrade(&self.hub), self.session_id.clone());
        move || hub.upgrade().into_iter().for_each(|hub| hub.remove(&session_id))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.remove(&self.session_id);
    }
}

/// A frame outside any session.
fn say(wire: &Wire, frame: Outgoing) {
    // A client that does not read its first answers is closed by its time limit.
    let _ = wire.outbound.try_send(frame.write());
}
