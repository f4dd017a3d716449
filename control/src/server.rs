//! The whole process: opens the store, finds the relay, listens, ends in order.

pub mod certificate;
mod recording;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use strait_proto::notify::Notify;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::admission::Admission;
use crate::api::Gate;
use crate::auth::{Authenticator, Secret};
use crate::cluster::announce::Listens;
use crate::cluster::{Cluster, Owner};
use crate::config::{Config, cluster::Role};
use crate::events::Moment;
use crate::fault::Fault;
use crate::http::{
    App, front_door::FrontDoor, handover::Handover, health, metrics::Metrics, page, router,
    sessions::Sessions, timed::PlainDoor, turn::Turn,
};
use crate::keys::{Keys, push, replica::Redis};
use crate::limits;
use crate::link::{Links, door::LinkDoor, quic};
use crate::relay::{Notes, Relay, channels, watch as relay_watch};
use crate::scope::quality::Wish;
use crate::scope::{Scopes, memo};
use crate::signal::hub::Hub;
use crate::store::{Cql, CqlAddress, Store};
use certificate::Certificate;
use recording::Recording;

/// How long requests under way may take when the process ends.
const GRACE: Duration = Duration::from_secs(5);
/// And when another is about to come, to which clients want to come back.
const PAUSE_GRACE: Duration = Duration::from_secs(1);

/// A running control plane.
pub struct Server {
    /// Where HTTPS is served.
    pub https: Vec<SocketAddr>,
    /// Where plain HTTP is served.
    pub http: Vec<SocketAddr>,
    /// Where links over QUIC are served.
    pub quic: Vec<SocketAddr>,
    /// What all handlers share.
    pub app: Arc<App>,
    shutdown: watch::Sender<bool>,
    handles: Vec<Handle<SocketAddr>>,
    tasks: JoinSet<io::Result<()>>,
    followers: Vec<tokio::task::JoinHandle<()>>,
    /// Streams are measured for what is recorded, though nobody else asks.
    _watched: Option<Wish>,
}

impl Server {
    /// Starts everything. A relay that is away is no obstacle, nor is a server of the store: they are
    /// found when they come.
    ///
    /// # Errors
    /// The store, the certificate or an address cannot be had; the sentence says which and why.
    pub async fn start(config: Config) -> Result<Self, Fault> {
        check_ports(&config)?;
        let notes = recall(&config).await;
        let cluster = Cluster::again(config.cluster.clone(), owner(&notes).as_ref())?;
        Self::start_with(cluster, config, notes).await
    }

    /// As [`Server::start`], in a cluster that is there.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_in(cluster: Arc<Cluster>, config: Config) -> Result<Self, Fault> {
        let notes = recall(&config).await;
        Self::start_with(cluster, config, notes).await
    }

    async fn start_with(
        cluster: Arc<Cluster>,
        config: Config,
        notes: Notes,
    ) -> Result<Self, Fault> {
        let mut store = Store::find(config.store.url.expose()).await?;
        if let Some(address) = CqlAddress::parse(config.statistics.url.expose()) {
            let cql = Cql::new(address, config.agent.keep_days);
            store = store.with_statistics(cql.clone());
            // Calls do not wait for it: what they leave behind does.
            tokio::spawn(async move {
                if let Err(fault) = cql.ready().await {
                    warn!("{fault}");
                }
            });
        }
        let relay = Relay::new(&config.relay.rpc_socket);
        let (limits, media) = (config.limits.clone(), config.media.clone());
        let recording = Recording::new(&config, &store, &cluster.me().node)?;
        let notary = Arc::clone(&recording.notary);
        let speech = config.link.clone();
        let scopes = Arc::new(Scopes::new(
            relay.clone(),
            Arc::clone(&notary),
            limits,
            media,
            &speech,
            Arc::clone(&cluster),
        ));
        let redis = |url: &Secret| (!url.is("")).then(|| Redis::new(url.clone()));
        let keys = Keys::new(store.applications(), redis(&config.keys.replica));
        let auth = Arc::new(Authenticator::new(config.auth.clone(), Arc::clone(&keys)));
        let (shutdown, ends) = watch::channel(false);
        let per_address = config.limits.sessions_per_address;
        let websockets = Admission::new(config.limits.websocket_sessions, per_address);
        let hub = Hub::new(
            Arc::clone(&scopes),
            Arc::clone(&auth),
            websockets,
            &config.signal,
            config.link.rates(),
            ends.clone(),
        );
        let links = Links::new(Arc::clone(&scopes), Arc::clone(&auth), &config, ends.clone());
        links.recall(notes);
        let app = Arc::new(App {
            auth,
            hub,
            links,
            sessions: Arc::new(Sessions::default()),
            admission: Admission::new(config.limits.http_sessions, per_address),
            keys: Arc::clone(&keys),
            store,
            notary: Arc::clone(&notary),
            gate: Gate::new(&config.api),
            turn: Turn::new(&config)?,
            metrics: Metrics::default(),
            shutdown: ends.clone(),
            cluster: Arc::clone(&cluster),
            scopes: Arc::clone(&scopes),
            config,
        });
        let losing = Arc::clone(&scopes);
        let lose = move |scope| losing.give_up(&scope);
        let summed = move || notary.now();
        let watched = app.config.events.quality.then(|| scopes.quality_wishes().wish());
        let mut followers = vec![
            tokio::spawn(health::tell(Arc::clone(&app))),
            tokio::spawn(app.store.checks().keep_summed(summed)),
            tokio::spawn(Arc::clone(&cluster).run(Arc::clone(&scopes), ends, lose)),
            tokio::spawn(Arc::clone(&keys).follow()),
        ];
        // Who is no node has no relay.
        if cluster.config().has(Role::Node) {
            followers.extend([
                tokio::spawn(relay_watch::follow_quality(relay.clone(), Arc::clone(&scopes))),
                tokio::spawn(channels::follow(relay.clone(), Arc::clone(&scopes))),
                tokio::spawn(relay_watch::follow(relay, scopes)),
                tokio::spawn(Arc::clone(&cluster).watch_host(app.config.folder().to_path_buf())),
            ]);
        }
        followers.extend(recording.run(&cluster));
        if let Some(master) = redis(&app.config.keys.master) {
            followers.push(tokio::spawn(push::run(keys, master)));
        }
        let mut server = Self {
            https: Vec::new(),
            http: Vec::new(),
            quic: Vec::new(),
            app,
            shutdown,
            handles: Vec::new(),
            tasks: JoinSet::new(),
            followers,
            _watched: watched,
        };
        server.listen()?;
        cluster.listens(&server.listens()).await?;
        if !page::is_present() {
            warn!("{}", page::MISSING);
        }
        Ok(server)
    }

    /// Runs until SIGTERM, as [`Server::pause`], or SIGINT, as [`Server::stop`]; a second one ends at
    /// once.
    ///
    /// # Errors
    /// A listener broke, or signals cannot be had.
    pub async fn run(mut self) -> Result<(), Fault> {
        use tokio::signal::unix::{SignalKind, signal};
        let signals =
            |kind| signal(kind).map_err(|error| Fault::internal(format!("signals: {error}")));
        let mut term = signals(SignalKind::terminate())?;
        let mut int = signals(SignalKind::interrupt())?;
        let notify = Notify::from_environment();
        notify.say("READY=1");
        let for_good = tokio::select! {
            _ = term.recv() => {
                info!("SIGTERM: ending");
                false
            }
            _ = int.recv() => {
                info!("SIGINT: ending for good");
                true
            }
            ended = self.tasks.join_next(), if !self.tasks.is_empty() => {
                return Err(Fault::internal(format!("a listener ended: {ended:?}")));
            }
            () = tell_alive(&notify, Arc::clone(&self.app)) => false,
        };
        notify.say("STOPPING=1");
        let end = async move { if for_good { self.stop().await } else { self.pause().await } };
        tokio::select! {
            () = end => {}
            _ = term.recv() => warn!("second signal: ending now"),
            _ = int.recv() => warn!("second signal: ending now"),
        }
        Ok(())
    }

    /// Ends in order, for good: no new sessions, the present ones are told and end, requests finish.
    pub async fn stop(self) {
        self.end(GRACE).await;
    }

    /// Ends in order, and leaves sessions of native clients to the process that comes next, as one that
    /// is killed does (decision 0012): their media flows meanwhile. A node that is drained, or without a
    /// relay that goes on, ends for good.
    pub async fn pause(self) {
        let app = &self.app;
        let lasts = app.cluster.config().has(Role::Node) && app.scopes.relay().is_lasting();
        if !lasts || app.cluster.is_drained() || app.links.count() == 0 {
            return self.stop().await;
        }
        app.links.leave_sessions();
        app.links.hand_over().await;
        self.end(PAUSE_GRACE).await;
    }

    async fn end(mut self, grace: Duration) {
        self.shutdown.send_replace(true);
        self.app.sessions.end_all();
        for handle in &self.handles {
            handle.graceful_shutdown(Some(grace));
        }
        let rest = async {
            while self.tasks.join_next().await.is_some() {}
            // Sessions leave their scopes by themselves, or wait.
            while self.app.scopes.counts().1 > self.app.links.left() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            match self.app.links.left() {
                0 => {
                    self.app.cluster.leave().await;
                    // The next start has nothing of this one.
                    if self.app.cluster.config().has(Role::Node) {
                        self.app.scopes.forget_process().await;
                    }
                }
                sessions => {
                    info!(sessions, "left to the process that comes next");
                    if self.app.links.are_all_noted() {
                        self.app.scopes.note_process(true).await;
                    }
                }
            }
        };
        if tokio::time::timeout(grace + limits::RELAY_CALL, rest).await.is_err() {
            warn!("some sessions did not end in time");
        }
        // Also then: who takes events ends with the followers.
        self.app.notary.tell_presence(Moment::now());
        let parted = async {
            while self.app.links.parting() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = async { tokio::join!(self.app.notary.settle(), parted) };
        if tokio::time::timeout(limits::EVENTS_END, told).await.is_err() {
            warn!(
                "what happened last is not told: the store or Redis does not answer, or the disk"
            );
        }
        self.followers.iter().for_each(tokio::task::JoinHandle::abort);
    }

    fn listen(&mut self) -> Result<(), Fault> {
        let config = self.app.config.clone();
        let certificate =
            match config.http.https_listen.is_empty() && config.link.quic_listen.is_empty() {
                true => None,
                false => Some(certificate::load(&config.http)?),
            };
        if let Some(certificate) = &certificate {
            let config_of_tls = certificate.tls()?;
            let tls = RustlsConfig::from_config(config_of_tls.clone());
            let places = Arc::clone(self.app.links.media_places());
            let mut door = FrontDoor::new(config.relay.ice_tcp, places);
            if config.relay.ice_tcp.is_some() {
                let turn = self.app.turn.as_ref().map(Turn::pem).unwrap_or_default();
                let both = [certificate.pem().as_slice(), b"\n", turn.as_bytes()].concat();
                let pem = Zeroizing::new(both);
                let handover = Handover::new(self.app.scopes.relay().clone(), &pem);
                let fault = |error| Fault::internal(format!("http.certificate: {error}"));
                door = door.with_handover(handover.map_err(fault)?);
            }
            for address in &config.http.https_listen {
                let acceptor =
                    RustlsAcceptor::new(tls.clone()).handshake_timeout(limits::FRONT_DOOR_TIME);
                let (links, ended) =
                    (Arc::clone(&self.app.links), Arc::clone(&self.app.metrics.ended));
                let acceptor = LinkDoor::new(door.clone(), acceptor, links, ended);
                let Some((listener, address)) = bind(*address, "http.https_listen")? else {
                    continue;
                };
                info!("https://{address}");
                self.https.push(address);
                let handle = self.handle();
                let service = self.service(false);
                let server = axum_server::from_tcp(listener).map_err(|e| broken(address, &e))?;
                let mut server = server.acceptor(acceptor).handle(handle);
                set_timers(server.http_builder());
                self.tasks.spawn(server.serve(service));
            }
            self.listen_quic(&config_of_tls, certificate)?;
        }
        for address in &config.http.http_listen {
            let Some((listener, address)) = bind(*address, "http.http_listen")? else { continue };
            info!("http://{address} (this machine only)");
            self.http.push(address);
            let handle = self.handle();
            let service = self.service(true);
            let server = axum_server::from_tcp(listener).map_err(|e| broken(address, &e))?;
            let door = PlainDoor(Arc::clone(&self.app.metrics.ended));
            let mut server = server.acceptor(door).handle(handle);
            set_timers(server.http_builder());
            self.tasks.spawn(server.serve(service));
        }
        if self.https.is_empty() && self.http.is_empty() {
            return Err(Fault::internal("no address to listen on could be had"));
        }
        Ok(())
    }

    fn listen_quic(&mut self, tls: &rustls::ServerConfig, own: &Certificate) -> Result<(), Fault> {
        let key = "link.quic_listen";
        let node = self.app.cluster.me().node.clone();
        for address in self.app.config.link.quic_listen.clone() {
            let Some(socket) = bound(address, key, UdpSocket::bind(address))? else { continue };
            let address = socket.local_addr().map_err(|error| broken(address, &error))?;
            let ping_time = Duration::from_secs(self.app.config.link.ping_seconds);
            let secret = own.secret(&format!("resets of links over QUIC at {address} of {node}"));
            let endpoint = quic::listen(socket, tls, secret.as_slice(), ping_time)
                .map_err(|error| Fault::internal(format!("{key}: {address}: {error}")))?;
            info!("links over QUIC at {address}");
            self.quic.push(address);
            let (links, ends) = (Arc::clone(&self.app.links), self.app.shutdown.clone());
            let https = self.https.first().map(SocketAddr::port);
            self.tasks.spawn(quic::serve(endpoint, links, https, ends));
        }
        Ok(())
    }

    /// Where clients find this process, as far as it can tell.
    fn listens(&self) -> Listens {
        let secure = !self.https.is_empty();
        let address = if secure { self.https.first() } else { self.http.first() };
        let named = self.app.config.http.certificate_names.first().filter(|_| secure);
        Listens {
            host: match (named, address) {
                (Some(name), _) => name.clone(),
                (None, Some(address)) => address.ip().to_string(),
                (None, None) => String::new(),
            },
            port: address.map_or(0, SocketAddr::port),
            secure,
            quic_port: self.quic.first().map(SocketAddr::port),
        }
    }

    fn handle(&mut self) -> Handle<SocketAddr> {
        let handle = Handle::new();
        self.handles.push(handle.clone());
        handle
    }

    fn service(
        &self,
        is_plain: bool,
    ) -> axum::extract::connect_info::IntoMakeServiceWithConnectInfo<axum::Router, SocketAddr> {
        router(Arc::clone(&self.app), is_plain).into_make_service_with_connect_info()
    }
}

/// Tells the service manager that this process lives, as often as it wants to hear it: while the
/// runtime carries out what it is given, and nobody keeps what every join needs.
async fn tell_alive(notify: &Notify, app: Arc<App>) {
    let Some(interval) = Notify::watchdog_interval() else {
        return std::future::pending().await;
    };
    let mut interval = tokio::time::interval(interval);
    loop {
        interval.tick().await;
        let app = Arc::clone(&app);
        let alive = tokio::spawn(async move {
            app.scopes.counts();
            app.hub.count();
            app.sessions.count();
        });
        if alive.await.is_ok() {
            notify.say("WATCHDOG=1");
        }
    }
}

/// Refuses before anything is taken on from a process of before that may still be alive: it has the
/// ports then.
fn check_ports(config: &Config) -> Result<(), Fault> {
    let (http, https) = (&config.http.http_listen, &config.http.https_listen);
    for (key, addresses) in [("http.http_listen", http), ("http.https_listen", https)] {
        for address in addresses.iter().filter(|address| address.port() != 0) {
            drop(bind(*address, key)?);
        }
    }
    Ok(())
}

/// What the relay keeps of a process of before; nothing where there is no relay yet, where this is no
/// node, or where it was another one: its sessions are not ours.
async fn recall(config: &Config) -> Notes {
    let nothing = Notes { is_whole: true, ..Notes::default() };
    if !config.cluster.has(Role::Node) {
        return nothing;
    }
    let notes = match Relay::new(&config.relay.rpc_socket).notes().await {
        Ok(notes) => notes,
        Err(fault) => {
            debug!("no notes: {fault}");
            return nothing;
        }
    };
    match owner(&notes) {
        Some(before) if before.node == config.cluster.node() => notes,
        Some(before) => {
            warn!(node = before.node, "the relay has sessions of another node: left alone");
            nothing
        }
        None => Notes { told: Vec::new(), ..notes },
    }
}

/// The node, and the start of it, whose notes these are.
fn owner(notes: &Notes) -> Option<Owner> {
    memo::Process::find(notes).map(memo::Process::owner)
}

/// Binds for TCP.
fn bind(address: SocketAddr, key: &str) -> Result<Option<(TcpListener, SocketAddr)>, Fault> {
    let attempt = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound(address, key, attempt)
}

/// What an attempt to bind led to. None, with a warning, for an IPv6 address on a machine without
/// IPv6.
fn bound<T>(address: SocketAddr, key: &str, attempt: io::Result<T>) -> Result<Option<T>, Fault> {
    match attempt {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if address.is_ipv6() && error.kind() == io::ErrorKind::AddrNotAvailable => {
            warn!("{key}: {address} is not available, this machine has no IPv6 there: left out");
            Ok(None)
        }
        Err(error) => Err(Fault::internal(format!(
            "{key}: {address} cannot be listened on: {error}; is another process there \
             (ss -lntup), or is the port below 1024?"
        ))),
    }
}

/// Without a timer a client that never ends its headers, or vanished, holds its connection forever.
fn set_timers(builder: &mut Builder<TokioExecutor>) {
    let mut http1 = builder.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIME);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(limits::PING_INTERVAL);
}

fn broken(address: SocketAddr, error: &io::Error) -> Fault {
    Fault::internal(format!("{address}: {error}"))
}
