//! `strait.relay.v1` on a Unix socket: a thin translation to commands of the workers.

mod events;
mod messages;
mod notes;
mod peers;
mod quality;
mod scopes;
pub(crate) mod socket;
mod spread;
mod statistics;
mod streams;
#[cfg(test)]
mod testing;
mod validate;

pub use socket::SocketError;

use crate::channels::Way;
use crate::framed;
use crate::handshake::{Handshakes, TooManyHalfOpen};
use crate::limits::{EVENTS, QUALITY, RPC_CALLS, RPC_REQUEST_BYTES};
use crate::mailbox::{self, Mailbox, MailboxError};
use crate::notes::{Note, Notes};
use crate::random::NoRandomness;
use crate::registry::{Contents, Peer, Publication, Registry, Scope, Subscription};
use crate::watchdog::Health;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strait_core::command::CommandError;
use strait_core::limits::{PEERS_PER_SCOPE, PUBLICATIONS_PER_PEER, SCOPES, SUBSCRIPTIONS_PER_PEER};
use strait_core::port::Path;
use strait_io::steering::Kernel;
use strait_proto::v1;
use strait_proto::v1::relay_server::{Relay, RelayServer};
use tokio::sync::{MutexGuard, broadcast, watch};
use tonic::{Request, Response, Status};

pub(crate) use events::pump;
pub(crate) use quality::pump as pump_quality;
pub(crate) use scopes::sweep;

/// What the process is, for `GetInfo`.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) instance_id: String,
    pub(crate) fingerprint: String,
    pub(crate) candidates: Vec<v1::Candidate>,
    /// Where UDP listens.
    pub(crate) udp: Vec<SocketAddr>,
    /// Whether it answers plain STUN requests there.
    pub(crate) stun: bool,
    pub(crate) degradations: Vec<String>,
}

/// What all calls share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) workers: Vec<Mailbox>,
    pub(crate) handshakes: Handshakes,
    /// Messages of data channels.
    pub(crate) messages: messages::Desk,
    /// The programs that steer, if there are any.
    pub(crate) kernel: Option<Kernel>,
    pub(crate) registry: Registry,
    /// What the control plane notes, of the process itself and how much altogether.
    pub(crate) note: Mutex<Note>,
    pub(crate) notes: Notes,
    /// Which workers answer.
    pub(crate) health: Arc<Health>,
    /// Framed media over TLS.
    pub(crate) framed: Arc<framed::Shared>,
    /// Subscriptions of a scope that a worker carries.
    pub(crate) subscriptions_per_worker: u32,
    /// To every reader of `WatchEvents`.
    pub(crate) events: broadcast::Sender<v1::event::Event>,
    /// To every reader of `WatchQuality`.
    pub(crate) quality: broadcast::Sender<v1::MediaQuality>,
    /// How many of them want to know how subscribers fare.
    pub(crate) subscribers_asked: Arc<AtomicUsize>,
    /// How many readers there are.
    pub(crate) watchers: AtomicUsize,
    pub(crate) draining: AtomicBool,
    /// When the process ends at the latest, once it drains.
    pub(crate) deadline: watch::Sender<Option<Instant>>,
}

impl State {
    pub(crate) fn new(
        identity: Identity,
        workers: Vec<Mailbox>,
        (handshakes, way): (Handshakes, Way),
        kernel: Option<Kernel>,
        health: Arc<Health>,
        subscribers_asked: Arc<AtomicUsize>,
        subscriptions_per_worker: u32,
    ) -> Self {
        Self {
            subscribers_asked,
            identity,
            kernel,
            registry: Registry::new(workers.len()),
            health,
            framed: Arc::default(),
            subscriptions_per_worker,
            workers,
            handshakes,
            messages: messages::Desk::new(way),
            note: Mutex::default(),
            notes: Notes::default(),
            events: broadcast::channel(EVENTS).0,
            quality: broadcast::channel(QUALITY).0,
            watchers: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            deadline: watch::channel(None).0,
        }
    }

    /// Takes no new scopes and peers any more. An earlier deadline holds.
    pub(crate) fn drain(&self, patience: Duration) -> usize {
        self.draining.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + patience;
        self.deadline.send_modify(|held| {
            *held = Some(held.map_or(deadline, |held| held.min(deadline)));
        });
        let deadline_seconds = u32::try_from(patience.as_secs()).unwrap_or(u32::MAX);
        self.tell(v1::event::Event::Draining(v1::Draining { deadline_seconds }));
        self.registry.peers()
    }

    /// Tells every reader; without any nobody misses it: the next one begins with a snapshot.
    fn tell(&self, event: v1::event::Event) {
        let _ = self.events.send(event);
    }

    fn refuse_while_draining(&self) -> Result<(), Status> {
        if self.draining.load(Ordering::Relaxed) {
            let message = "the relay drains and takes nothing new: place this on another relay";
            return Err(Status::unavailable(message));
        }
        Ok(())
    }

    /// The way to a peer at a told address: from the address that we listen on, or that routing picks.
    fn path_to(&self, remote: SocketAddr) -> Result<Path, Status> {
        let mut listened = self.identity.udp.iter().map(SocketAddr::ip);
        let of_family = listened.find(|ip| ip.is_ipv6() == remote.is_ipv6());
        let picked = match of_family {
            Some(ip) if ip.is_unspecified() => std::net::UdpSocket::bind((ip, 0))
                .and_then(|socket| socket.connect(remote).and_then(|()| socket.local_addr()))
                .map(|local| local.ip())
                .map_err(|error| error.to_string()),
            Some(ip) => Ok(ip),
            None => Err("the relay does not listen on an address of this family".to_owned()),
        };
        let local = picked.map_err(|why| {
            Status::invalid_argument(format!("remote_address: {remote} cannot be reached: {why}"))
        })?;
        Ok(Path::udp(local, remote))
    }

    /// Tells all workers whose datagrams of a told path are. One that is not told would drop them for ever.
    async fn steer(&self, path: Path, owner: usize) -> Result<(), MailboxError> {
        for worker in &self.workers {
            worker.deliver(mailbox::Request::Steer(path, Some(owner))).await?;
        }
        Ok(())
    }

    /// Tells workers whose the datagrams of a told path are now, or that they are nobody's any more.
    fn try_steer(&self, path: Path, owner: Option<usize>) {
        for worker in &self.workers {
            // One whose mailbox is full goes on handing them over to the former owner, which passes them on or drops them.
            let _ = worker.send(mailbox::Request::Steer(path, owner));
        }
    }

    /// The worker of a scope.
    fn worker(&self, scope: &Scope) -> Result<&Mailbox, Status> {
        self.numbered(scope.worker())
    }

    /// The worker of a peer.
    fn worker_of(
        &self,
        scope: &Scope,
        contents: &Contents,
        peer: &str,
    ) -> Result<&Mailbox, Status> {
        self.numbered(contents.worker_of(peer, scope.worker()))
    }

    fn numbered(&self, worker: usize) -> Result<&Mailbox, Status> {
        self.workers.get(worker).ok_or_else(|| Status::internal("no such worker"))
    }

    fn scope(&self, name: &str) -> Result<Arc<Scope>, Status> {
        validate::id("scope_id", name)?;
        self.registry.scope(name).ok_or_else(|| missing("scope", name))
    }
}

/// The contents of a scope that still exists.
async fn lock(scope: &Scope) -> Result<MutexGuard<'_, Contents>, Status> {
    let contents = scope.state.lock().await;
    if contents.disposed { Err(missing("scope", &scope.name)) } else { Ok(contents) }
}

fn peer<'a>(contents: &'a Contents, name: &str) -> Result<&'a Peer, Status> {
    validate::id("peer_id", name)?;
    contents.peers.get(name).ok_or_else(|| missing("peer", name))
}

fn publication<'a>(contents: &'a Contents, name: &str) -> Result<&'a Publication, Status> {
    validate::id("publication_id", name)?;
    contents.publications.get(name).ok_or_else(|| missing("publication", name))
}

fn subscription<'a>(contents: &'a Contents, name: &str) -> Result<&'a Subscription, Status> {
    validate::id("subscription_id", name)?;
    contents.subscriptions.get(name).ok_or_else(|| missing("subscription", name))
}

fn missing(what: &str, name: &str) -> Status {
    Status::not_found(format!(
        "there is no {what} \"{name}\": it was removed, its peer left (see WatchEvents), or it was never added"
    ))
}

fn taken(what: &str, name: &str) -> Status {
    Status::already_exists(format!(
        "there is a {what} \"{name}\" already: remove it first, or choose another identifier"
    ))
}

fn of_mailbox(error: MailboxError) -> Status {
    let message = error.to_string();
    match error {
        MailboxError::Full(_) => Status::resource_exhausted(message),
        MailboxError::Stalled(_) => Status::unavailable(message),
        MailboxError::Refused(error) => match error {
            CommandError::NotFound(_) => Status::not_found(message),
            CommandError::Exists(_) => Status::already_exists(message),
            CommandError::Limit { .. } | CommandError::KeysUsedUp { .. } => {
                Status::resource_exhausted(message)
            }
            CommandError::NoCommonCodec(_) => Status::failed_precondition(message),
            CommandError::Invalid(_) => Status::invalid_argument(message),
        },
    }
}

fn of_random(error: NoRandomness) -> Status {
    Status::internal(error.to_string())
}

fn of_half_open(error: TooManyHalfOpen) -> Status {
    Status::resource_exhausted(error.to_string())
}

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Arc<State>);

impl Service {
    pub(crate) fn server(self) -> RelayServer<Self> {
        RelayServer::new(self).max_decoding_message_size(RPC_REQUEST_BYTES)
    }

    /// Runs a call to its end even if the caller goes away in the middle: registry and worker stay of one mind.
    async fn complete<T, F>(
        &self,
        call: impl FnOnce(Arc<State>) -> F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        match tokio::spawn(call(self.0.clone())).await {
            Ok(answer) => answer.map(Response::new),
            Err(error) => Err(Status::internal(format!("the call failed: {error}"))),
        }
    }
}

/// A server with the limits that the RPC has.
pub(crate) fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder().concurrency_limit_per_connection(RPC_CALLS)
}

macro_rules! calls {
    ($($name:ident($request:ident) -> $response:ident = $call:path;)*) => {
        #[tonic::async_trait]
        impl Relay for Service {
            type WatchEventsStream = events::Stream;

            async fn watch_events(
                &self,
                _request: Request<v1::WatchEventsRequest>,
            ) -> Result<Response<Self::WatchEventsStream>, Status> {
                events::watch(self.0.clone()).map(Response::new)
            }

            type ExchangeMessagesStream = messages::Stream;

            async fn exchange_messages(
                &self,
                request: Request<tonic::Streaming<v1::MessageToChannels>>,
            ) -> Result<Response<Self::ExchangeMessagesStream>, Status> {
                Ok(Response::new(messages::exchange(self.0.clone(), request.into_inner())))
            }

            type ListNotesStream = notes::Stream;

            async fn list_notes(
                &self,
                _request: Request<v1::ListNotesRequest>,
            ) -> Result<Response<Self::ListNotesStream>, Status> {
                Ok(Response::new(notes::list(self.0.clone())))
            }

            type WatchQualityStream = quality::Stream;

            async fn watch_quality(
                &self,
                request: Request<v1::WatchQualityRequest>,
            ) -> Result<Response<Self::WatchQualityStream>, Status> {
                quality::watch(self.0.clone(), request.into_inner()).map(Response::new)
            }

            $(async fn $name(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                self.complete(|state| $call(state, request.into_inner())).await
            })*
        }
    };
}

calls! {
    get_info(GetInfoRequest) -> GetInfoResponse = get_info;
    create_scope(CreateScopeRequest) -> CreateScopeResponse = scopes::create;
    dispose_scope(DisposeScopeRequest) -> DisposeScopeResponse = scopes::dispose;
    move_scope(MoveScopeRequest) -> MoveScopeResponse = scopes::relocate;
    add_peer(AddPeerRequest) -> AddPeerResponse = peers::add;
    change_session_key(ChangeSessionKeyRequest) -> ChangeSessionKeyResponse = peers::change_key;
    restart_ice(RestartIceRequest) -> RestartIceResponse = peers::restart_ice;
    limit_uplink(LimitUplinkRequest) -> LimitUplinkResponse = peers::limit_uplink;
    remove_peer(RemovePeerRequest) -> RemovePeerResponse = peers::remove;
    publish(PublishRequest) -> PublishResponse = streams::publish;
    unpublish(UnpublishRequest) -> UnpublishResponse = streams::unpublish;
    set_muted(SetMutedRequest) -> SetMutedResponse = streams::set_muted;
    subscribe(SubscribeRequest) -> SubscribeResponse = streams::subscribe;
    bind(BindRequest) -> BindResponse = streams::bind;
    set_preferences(SetPreferencesRequest) -> SetPreferencesResponse = streams::set_preferences;
    unsubscribe(UnsubscribeRequest) -> UnsubscribeResponse = streams::unsubscribe;
    keep_note(KeepNoteRequest) -> KeepNoteResponse = notes::keep;
    get_statistics(GetStatisticsRequest) -> GetStatisticsResponse = statistics::get;
    drain(DrainRequest) -> DrainResponse = drain;
}

async fn get_info(state: Arc<State>, _: v1::GetInfoRequest) -> Result<v1::GetInfoResponse, Status> {
    let limit = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
    Ok(v1::GetInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance_id: state.identity.instance_id.clone(),
        fingerprint_sha256: state.identity.fingerprint.clone(),
        candidates: state.identity.candidates.clone(),
        workers: limit(state.workers.len()),
        draining: state.draining.load(Ordering::Relaxed),
        limits: Some(v1::Limits {
            scopes: limit(SCOPES * state.workers.len()),
            peers_per_scope: limit(PEERS_PER_SCOPE),
            publications_per_peer: limit(PUBLICATIONS_PER_PEER),
            subscriptions_per_peer: limit(SUBSCRIPTIONS_PER_PEER),
        }),
        degradations: state.identity.degradations.clone(),
        turn: state.framed.serves_turn(),
        stun: state.identity.stun,
    })
}

async fn drain(state: Arc<State>, request: v1::DrainRequest) -> Result<v1::DrainResponse, Status> {
    let longest = crate::limits::DRAIN_MAX;
    let patience = Duration::from_secs(request.deadline_seconds.into());
    if patience > longest {
        return Err(Status::invalid_argument(format!(
            "deadline_seconds is {}: at most {} (a day)",
            request.deadline_seconds,
            longest.as_secs(),
        )));
    }
    let peers = state.drain(patience);
    Ok(v1::DrainResponse { peers: u32::try_from(peers).unwrap_or(u32::MAX) })
}
