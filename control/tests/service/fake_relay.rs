//! A relay that forwards nothing: it keeps the books as `relay.proto` says, and emits the events
//! that a test asks for. What needs media is tested against the real one.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use strait_proto::v1::relay_server::{Relay, RelayServer};
use strait_proto::v1::{self, event};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub struct FakeRelay {
    pub state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::Event>,
    quality: broadcast::Sender<v1::MediaQuality>,
    channels: broadcast::Sender<v1::ChannelEvent>,
}

/// The fake's process, so to say.
pub struct Running(Option<tokio::runtime::Runtime>);

impl Running {
    pub fn kill(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Default)]
pub struct State {
    /// As one of an older version.
    pub lacks_turn: bool,
    pub scopes: BTreeMap<String, Scope>,
    pub ssrcs: u32,
    pub refuse_peers: Option<Status>,
    /// How often it was asked for statistics of scopes.
    pub statistics_calls: u32,
    /// Messages for channels are left where they are.
    pub is_deaf: bool,
    /// What was to be said on data channels.
    pub said: Vec<v1::MessageToChannels>,
    /// By scope and peer.
    pub notes: BTreeMap<(String, String), Vec<u8>>,
    /// How often it was given one.
    pub notes_taken: u32,
    /// Those of scopes are refused so, and how often they were.
    pub refuse_notes: Option<Status>,
    pub notes_refused: u32,
    /// It does not answer to them, and how often it did not.
    pub hangs_at_notes: bool,
    pub notes_hung: u32,
    /// After so many it tells no further one, and does not say that these are all.
    pub notes_told_max: Option<usize>,
}

#[derive(Default, Clone, Debug)]
pub struct Scope {
    pub peers: BTreeMap<String, v1::AddPeerRequest>,
    pub publications: BTreeMap<String, v1::PublishRequest>,
    pub subscriptions: BTreeMap<String, v1::SubscribeRequest>,
    pub restarts: u32,
    /// What native peers send under, and what it was before.
    pub session_key: Option<v1::SessionKey>,
    pub key_before: Option<v1::SessionKey>,
    /// Session keys that it was given in place of the one before.
    pub key_changes: Vec<v1::SessionKey>,
    /// Caps that are set, by peer.
    pub uplinks: BTreeMap<String, u64>,
}

impl FakeRelay {
    /// Serves on `socket` until [`Running::kill`].
    pub fn start(socket: &Path) -> (Self, Running) {
        let (events, quality) = (broadcast::channel(64).0, broadcast::channel(64).0);
        let channels = broadcast::channel(1024).0;
        let relay = Self { state: Arc::default(), events, quality, channels };
        let _ = std::fs::remove_file(socket);
        // A runtime of its own: its end ends the connections too, as that of a process would.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let service = RelayServer::new(relay.clone());
        let server = tonic::transport::Server::builder().serve_with_incoming(service, listener);
        runtime.spawn(async move { server.await.unwrap() });
        drop(inside);
        (relay, Running(Some(runtime)))
    }

    pub fn emit(&self, event: event::Event) {
        self.events.send(v1::Event { lost: 0, event: Some(event) }).unwrap();
    }

    /// Events were lost: whoever follows them begins anew.
    pub fn lose(&self) {
        self.events.send(v1::Event { lost: 1, event: None }).unwrap();
    }

    /// Tells how a stream fares; false when nobody asked.
    pub fn tell_quality(&self, quality: v1::MediaQuality) -> bool {
        self.quality.send(quality).is_ok()
    }

    /// Something happens on a data channel, once somebody listens.
    pub fn channel(&self, relay_peer: &str, channel: u32, event: v1::channel_event::Event) {
        let (scope_id, _) = self.scope();
        let peer_id = relay_peer.to_owned();
        let event = v1::ChannelEvent { scope_id, peer_id, channel, event: Some(event) };
        self.channels.send(event).expect("control carries the messages of channels");
    }

    /// Whether somebody carries the messages of channels.
    pub fn is_carried(&self) -> bool {
        self.channels.receiver_count() > 0
    }

    /// What was to be said, which is forgotten.
    pub fn said(&self) -> Vec<v1::MessageToChannels> {
        std::mem::take(&mut self.state.lock().unwrap().said)
    }

    /// The only scope there is.
    pub fn scope(&self) -> (String, Scope) {
        let state = self.state.lock().unwrap();
        assert_eq!(state.scopes.len(), 1, "{:?}", state.scopes.keys());
        state.scopes.first_key_value().map(|(id, scope)| (id.clone(), scope.clone())).unwrap()
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().unwrap().scopes.is_empty()
    }

    fn with<T>(
        &self,
        scope_id: &str,
        change: impl FnOnce(&mut Scope) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let mut state = self.state.lock().unwrap();
        let scope = state.scopes.get_mut(scope_id);
        change(scope.ok_or_else(|| Status::not_found("no such scope"))?).map(Response::new)
    }
}

fn candidates() -> Vec<v1::Candidate> {
    vec![v1::Candidate {
        protocol: v1::candidate::Protocol::Udp.into(),
        address: "127.0.0.1".into(),
        port: 8443,
        priority: 2_130_706_431,
        purpose: v1::candidate::Purpose::Any.into(),
    }]
}

fn credentials(number: usize) -> Option<v1::IceCredentials> {
    Some(v1::IceCredentials {
        ufrag: format!("ab{number:04}"),
        pwd: "aPasswordOfTheFakeRelay".into(),
    })
}

fn check_codec(scope: &Scope, codecs: &[v1::Codec], publication: &str) -> Result<(), Status> {
    if publication.is_empty() {
        return Ok(());
    }
    let publication = scope.publications.get(publication);
    let publication = publication.ok_or_else(|| Status::not_found("no such publication"))?;
    let name = &publication.codecs[0].name;
    match codecs.iter().any(|codec| codec.name.eq_ignore_ascii_case(name)) {
        true => Ok(()),
        false => Err(Status::failed_precondition(format!("{name} is not taken"))),
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;
type Channels = Pin<Box<dyn Stream<Item = Result<v1::ChannelEvent, Status>> + Send>>;
type Notes = Pin<Box<dyn Stream<Item = Result<v1::Note, Status>> + Send>>;
type Quality = Pin<Box<dyn Stream<Item = Result<v1::MediaQuality, Status>> + Send>>;

#[tonic::async_trait]
impl Relay for FakeRelay {
    type WatchEventsStream = Events;
    type WatchQualityStream = Quality;
    type ExchangeMessagesStream = Channels;
    type ListNotesStream = Notes;

    async fn keep_note(
        &self,
        request: Request<v1::KeepNoteRequest>,
    ) -> Result<Response<v1::KeepNoteResponse>, Status> {
        let v1::Note { scope_id, peer_id, content } = request.into_inner().note.unwrap();
        assert!(content.len() <= 64 << 10);
        {
            let mut state = self.state.lock().unwrap();
            state.notes_hung += u32::from(state.hangs_at_notes);
        }
        while self.state.lock().unwrap().hangs_at_notes {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut state = self.state.lock().unwrap();
        let scope = state.scopes.get(&scope_id);
        let is_there = match (scope_id.as_str(), peer_id.as_str()) {
            ("", "") => true,
            (_, "") => scope.is_some(),
            (_, peer) => scope.is_some_and(|scope| scope.peers.contains_key(peer)),
        };
        if !is_there {
            return Err(Status::not_found("scope or peer"));
        }
        if let Some(status) = state.refuse_notes.clone().filter(|_| peer_id.is_empty()) {
            state.notes_refused += 1;
            if status.code() == tonic::Code::ResourceExhausted {
                state.notes.insert((scope_id, peer_id), Vec::new());
            }
            return Err(status);
        }
        state.notes_taken += 1;
        state.notes.insert((scope_id, peer_id), content);
        Ok(Response::new(v1::KeepNoteResponse {}))
    }

    async fn list_notes(
        &self,
        _: Request<v1::ListNotesRequest>,
    ) -> Result<Response<Self::ListNotesStream>, Status> {
        let state = self.state.lock().unwrap();
        let is_there = |(scope, peer): &(String, String)| {
            let at = state.scopes.get(scope);
            let is_peer = || at.is_some_and(|at| at.peers.contains_key(peer));
            scope.is_empty() || if peer.is_empty() { at.is_some() } else { is_peer() }
        };
        let notes = state.notes.clone().into_iter().filter(|(of, _)| is_there(of));
        let notes: Vec<_> = notes
            .map(|((scope_id, peer_id), content)| Ok(v1::Note { scope_id, peer_id, content }))
            .take(state.notes_told_max.unwrap_or(usize::MAX))
            .collect();
        let notes = tokio_stream::iter(notes);
        Ok(Response::new(match state.notes_told_max {
            Some(_) => Box::pin(notes.chain(tokio_stream::pending())),
            None => Box::pin(notes),
        }))
    }

    async fn exchange_messages(
        &self,
        request: Request<tonic::Streaming<v1::MessageToChannels>>,
    ) -> Result<Response<Self::ExchangeMessagesStream>, Status> {
        let (mut incoming, state) = (request.into_inner(), self.state.clone());
        tokio::spawn(async move {
            loop {
                while state.lock().unwrap().is_deaf {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                let Ok(Some(message)) = incoming.message().await else { return };
                state.lock().unwrap().said.push(message);
            }
        });
        let told = BroadcastStream::new(self.channels.subscribe());
        Ok(Response::new(Box::pin(told.filter_map(|told| told.ok().map(Ok)))))
    }

    async fn watch_quality(
        &self,
        request: Request<v1::WatchQualityRequest>,
    ) -> Result<Response<Self::WatchQualityStream>, Status> {
        assert!(request.into_inner().subscriptions);
        let told = BroadcastStream::new(self.quality.subscribe());
        Ok(Response::new(Box::pin(told.filter_map(|told| told.ok().map(Ok)))))
    }

    async fn get_info(
        &self,
        _: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        Ok(Response::new(v1::GetInfoResponse {
            version: "fake".into(),
            instance_id: "1".into(),
            workers: 1,
            turn: !self.state.lock().unwrap().lacks_turn,
            stun: true,
            candidates: candidates(),
            ..Default::default()
        }))
    }

    async fn create_scope(
        &self,
        request: Request<v1::CreateScopeRequest>,
    ) -> Result<Response<v1::CreateScopeResponse>, Status> {
        let id = request.into_inner().scope_id;
        assert!(id.len() <= 128);
        self.state.lock().unwrap().scopes.entry(id).or_default();
        Ok(Response::new(v1::CreateScopeResponse { worker: 0 }))
    }

    async fn dispose_scope(
        &self,
        request: Request<v1::DisposeScopeRequest>,
    ) -> Result<Response<v1::DisposeScopeResponse>, Status> {
        self.state.lock().unwrap().scopes.remove(&request.into_inner().scope_id);
        Ok(Response::new(v1::DisposeScopeResponse {}))
    }

    // No caller in control: placement belongs to the cluster.
    async fn move_scope(
        &self,
        _: Request<v1::MoveScopeRequest>,
    ) -> Result<Response<v1::MoveScopeResponse>, Status> {
        Err(Status::unimplemented("the fake has one worker"))
    }

    async fn add_peer(
        &self,
        request: Request<v1::AddPeerRequest>,
    ) -> Result<Response<v1::AddPeerResponse>, Status> {
        let request = request.into_inner();
        if let Some(status) = self.state.lock().unwrap().refuse_peers.clone() {
            return Err(status);
        }
        self.with(&request.scope_id.clone(), |scope| {
            let number = scope.peers.len();
            if let Some(key) = &request.session_key {
                let known = scope.session_key.get_or_insert_with(|| key.clone());
                if known != key && scope.key_before.as_ref() != Some(key) {
                    return Err(Status::already_exists("scope's session key, and it is another"));
                }
            }
            if scope.peers.insert(request.peer_id.clone(), request).is_some() {
                return Err(Status::already_exists("peer"));
            }
            Ok(v1::AddPeerResponse {
                local_ice: credentials(number),
                candidates: candidates(),
                fingerprint_sha256: "AA:BB".into(),
            })
        })
    }

    async fn change_session_key(
        &self,
        request: Request<v1::ChangeSessionKeyRequest>,
    ) -> Result<Response<v1::ChangeSessionKeyResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            let Some(held) = &scope.session_key else {
                return Err(Status::not_found("session key"));
            };
            if Some(held) != request.session_key.as_ref() {
                if scope.key_before == request.session_key {
                    return Err(Status::invalid_argument("it was in use before"));
                }
                scope.key_before = std::mem::replace(&mut scope.session_key, request.session_key);
                scope.key_changes.extend(scope.session_key.clone());
            }
            Ok(v1::ChangeSessionKeyResponse {})
        })
    }

    async fn restart_ice(
        &self,
        request: Request<v1::RestartIceRequest>,
    ) -> Result<Response<v1::RestartIceResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            scope.restarts += 1;
            Ok(v1::RestartIceResponse {
                local_ice: credentials(9000 + scope.restarts as usize),
                candidates: candidates(),
            })
        })
    }

    async fn limit_uplink(
        &self,
        request: Request<v1::LimitUplinkRequest>,
    ) -> Result<Response<v1::LimitUplinkResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            assert!(scope.peers.contains_key(&request.peer_id));
            scope.uplinks.insert(request.peer_id, request.bps_max);
            Ok(v1::LimitUplinkResponse {})
        })
    }

    async fn remove_peer(
        &self,
        request: Request<v1::RemovePeerRequest>,
    ) -> Result<Response<v1::RemovePeerResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            scope.peers.remove(&request.peer_id);
            scope.publications.retain(|_, publication| publication.peer_id != request.peer_id);
            scope.subscriptions.retain(|_, subscription| subscription.peer_id != request.peer_id);
            Ok(v1::RemovePeerResponse {})
        })
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id.clone(), |scope| {
            assert!(scope.peers.contains_key(&request.peer_id));
            scope.publications.insert(request.publication_id.clone(), request);
            Ok(v1::PublishResponse {})
        })
    }

    async fn unpublish(
        &self,
        request: Request<v1::UnpublishRequest>,
    ) -> Result<Response<v1::UnpublishResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            scope.publications.remove(&request.publication_id);
            Ok(v1::UnpublishResponse {})
        })
    }

    async fn set_muted(
        &self,
        request: Request<v1::SetMutedRequest>,
    ) -> Result<Response<v1::SetMutedResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            let publication = scope.publications.get_mut(&request.publication_id);
            publication.ok_or_else(|| Status::not_found("publication"))?.muted = request.muted;
            Ok(v1::SetMutedResponse {})
        })
    }

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<v1::SubscribeResponse>, Status> {
        let request = request.into_inner();
        let ssrc = {
            let mut state = self.state.lock().unwrap();
            state.ssrcs += 2;
            state.ssrcs
        };
        self.with(&request.scope_id.clone(), |scope| {
            check_codec(scope, &request.codecs, &request.publication_id)?;
            scope.subscriptions.insert(request.subscription_id.clone(), request);
            Ok(v1::SubscribeResponse { ssrc, rtx_ssrc: ssrc + 1 })
        })
    }

    async fn bind(
        &self,
        request: Request<v1::BindRequest>,
    ) -> Result<Response<v1::BindResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            let codecs = scope.subscriptions.get(&request.subscription_id);
            let codecs = codecs.ok_or_else(|| Status::not_found("subscription"))?.codecs.clone();
            check_codec(scope, &codecs, &request.publication_id)?;
            if let Some(subscription) = scope.subscriptions.get_mut(&request.subscription_id) {
                subscription.publication_id = request.publication_id;
            }
            Ok(v1::BindResponse {})
        })
    }

    async fn set_preferences(
        &self,
        request: Request<v1::SetPreferencesRequest>,
    ) -> Result<Response<v1::SetPreferencesResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            let subscription = scope.subscriptions.get_mut(&request.subscription_id);
            subscription.ok_or_else(|| Status::not_found("subscription"))?.preferences =
                request.preferences;
            Ok(v1::SetPreferencesResponse {})
        })
    }

    async fn unsubscribe(
        &self,
        request: Request<v1::UnsubscribeRequest>,
    ) -> Result<Response<v1::UnsubscribeResponse>, Status> {
        let request = request.into_inner();
        self.with(&request.scope_id, |scope| {
            scope.subscriptions.remove(&request.subscription_id);
            Ok(v1::UnsubscribeResponse {})
        })
    }

    async fn watch_events(
        &self,
        _: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Events>, Status> {
        let events = BroadcastStream::new(self.events.subscribe());
        let scopes = self.state.lock().unwrap().scopes.clone().into_iter();
        let snapshot = v1::Snapshot {
            scopes: scopes
                .map(|(scope_id, scope)| v1::ScopeState {
                    scope_id,
                    peers: scope
                        .peers
                        .into_keys()
                        .map(|peer_id| v1::PeerState { peer_id, ..Default::default() })
                        .collect(),
                    layers_wanted: Vec::new(),
                })
                .collect(),
        };
        let first = v1::Event { lost: 0, event: Some(event::Event::Snapshot(snapshot)) };
        let stream = tokio_stream::once(Ok(first)).chain(events.filter_map(|e| Some(Ok(e.ok()?))));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_statistics(
        &self,
        request: Request<v1::GetStatisticsRequest>,
    ) -> Result<Response<v1::GetStatisticsResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        let ids = request.into_inner().scope_ids;
        // The node's own load is looked at all the time.
        state.statistics_calls += u32::from(!ids.is_empty());
        let ids = ids.into_iter();
        let scopes = ids.filter_map(|scope_id| {
            let peers = state.scopes.get(&scope_id)?.peers.keys();
            let peers = peers.map(|peer_id| v1::PeerStatistics {
                peer_id: peer_id.clone(),
                connected: true,
                packets_received: 7,
                ..Default::default()
            });
            Some(v1::ScopeStatistics { peers: peers.collect(), scope_id, ..Default::default() })
        });
        let workers = vec![v1::WorkerStatistics {
            packets_dropped: [("replayed".to_owned(), 3)].into(),
            ..Default::default()
        }];
        Ok(Response::new(v1::GetStatisticsResponse { scopes: scopes.collect(), workers }))
    }

    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        Ok(Response::new(v1::DrainResponse { peers: 0 }))
    }
}
