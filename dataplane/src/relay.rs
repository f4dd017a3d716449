//! The process put together: sockets, workers, the DTLS thread, the RPC, health; and its end.

use crate::candidates::{self, Sources};
use crate::config::{self, Config};
use crate::error::RelayError;
use crate::fault::Fault;
use crate::framed;
use crate::handshake;
use crate::limits::{
    FILES_MIN, FRAMED_BACK, FRAMED_CONNECTIONS, FRAMED_FILES, FRAMED_WAY_FILES, RPC_CONNECTIONS,
    STOP, WORKER_EVENTS, WORKER_QUALITY,
};
use crate::mailbox::{Mailbox, Request, mailbox};
use crate::metrics;
use crate::random;
use crate::rpc::{self, Identity, Service, State};
use crate::steer::{Letterbox, Steering};
use crate::trace::Trace;
use crate::turn;
use crate::watchdog::{Health, Last, Timing, watch_over};
use crate::worker::Turner;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use strait_core::port::LocalPort;
use strait_core::worker::{Worker, WorkerConfig};
use strait_crypt::dtls::Certificate;
use strait_io::limits::TCP_CONNECTIONS;
use strait_io::steering::Kernel;
use strait_io::{Backend, Sockets, affinity, interfaces, process};
use strait_proto::handover;
use strait_proto::v1::candidate::Purpose;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// How often a draining relay looks whether all peers are gone.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// How often an ending relay looks whether a thread has ended.
const STOP_LOOK: Duration = Duration::from_micros(200);

/// Raises the soft limit of open files as far as it goes. To be called before a tokio runtime is made, which panics when
/// there are too few.
///
/// # Errors
/// There are too few for anything.
pub fn raise_open_files() -> Result<(), RelayError> {
    match process::raise_open_files() {
        Ok(limit) if limit < FILES_MIN => Err(RelayError::FewFiles(limit)),
        // If it cannot be told, starting will.
        _ => Ok(()),
    }
}

/// A relay that serves.
#[derive(Debug)]
pub struct Relay {
    state: Arc<State>,
    health: Arc<Health>,
    metrics: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    died: mpsc::Receiver<&'static str>,
    rpc_end: watch::Sender<bool>,
    rpc: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Relay {
    /// Opens everything and serves. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Something is taken, forbidden or missing; the message says what to do.
    pub async fn start(config: &Config) -> Result<Self, RelayError> {
        Self::start_with(config, Timing::default()).await
    }

    /// The same, with the watchdog's times.
    ///
    /// # Errors
    /// As [`Relay::start`].
    pub async fn start_with(config: &Config, timing: Timing) -> Result<Self, RelayError> {
        let cores = affinity::available();
        let workers = match (config.workers, config.cpus.len()) {
            (0, 0) => cores.len().max(1),
            (0, cpus) => cpus,
            (workers, _) => workers,
        };
        let files = process::raise_open_files().ok();
        let mut bound = strait_io::bind(&sockets(config, workers))?;
        let mut degradations = bound.degradations.clone();
        // What nobody can do without comes first, where files are few.
        let socket = rpc::socket::Socket::bind(&config.rpc_socket)?;
        let listener = match config.metrics_listen {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|error| RelayError::Metrics { address, error })?,
            ),
            None => None,
        };
        let kernel = match config.steering {
            config::Steering::Auto => match Kernel::attach(&bound) {
                Ok(kernel) => Some(kernel),
                Err(error) => {
                    degradations.push(format!(
                        "the kernel does not steer: floods share a buffer with calls, and workers hand datagrams over to each other: \
                         {error}; grant CAP_BPF and CAP_PERFMON, or say steering = \"off\""
                    ));
                    None
                }
            },
            config::Steering::Off => None,
        };
        if let Some(files) = files
            && let Some(connections) = tcp_connections(files, workers)
        {
            bound.ports.iter_mut().for_each(|port| port.limit_tcp(connections));
            if !bound.tcp.is_empty() {
                degradations.push(format!(
                    "{files} files may be open: each worker takes {connections} ICE-TCP connections instead of {TCP_CONNECTIONS}; \
                     raise LimitNOFILE= or `ulimit -n`"
                ));
            }
        }
        let candidates = candidates::candidates(&Sources {
            udp: bound.udp.clone(),
            further: bound.further.clone(),
            tcp: bound.tcp.clone(),
            announced: config.announced.clone(),
            tcp_announced_port: Some(config.ice_tcp_announced_port).filter(|port| *port != 0),
            interfaces: interfaces::addresses(),
            this_host_only: config.this_host_only,
        });
        let ways = turn::peers_most(&candidates).max(1);
        let framed_most = files.map_or(FRAMED_CONNECTIONS, |files| framed_connections(files, ways));
        let framed = match framed_socket(config, framed_most) {
            Ok(socket) => socket,
            Err(why) => {
                degradations.push(format!("framed media over TLS is not taken: {why}"));
                None
            }
        };
        let certificate = Certificate::generate()?;
        let identity = Identity {
            instance_id: random::instance_id()?,
            fingerprint: certificate.fingerprint_sha256_hex(),
            candidates,
            udp: bound.udp.clone(),
            stun: config.stun,
            degradations,
        };
        for why in &identity.degradations {
            tracing::warn!("degraded: {why}");
        }
        let (mailboxes, inboxes): (Vec<Mailbox>, Vec<_>) =
            (0..).zip(&bound.ports).map(|(worker, port)| mailbox(worker, port.waker())).unzip();
        let health = Arc::new(Health::new(workers, timing));
        let (alive, died) = mpsc::channel(1);
        let last = |what| Last::new(what, &health, &alive);
        let (post, way) = crate::channels::way();
        let (handshakes, helper) =
            handshake::start(certificate, mailboxes.clone(), post, last("the DTLS thread"))
                .map_err(RelayError::Thread)?;
        let letterboxes: Vec<_> =
            bound.ports.iter().map(|port| Letterbox::new(port.waker())).collect();
        let (events, happened) = mpsc::channel(WORKER_EVENTS);
        let (quality, told) = mpsc::channel(WORKER_QUALITY);
        let subscribers_asked = Arc::new(AtomicUsize::new(0));
        let mut threads = vec![helper];
        let pins = if config.cpus.is_empty() { cores } else { config.cpus.clone() };
        let ends = bound.ports.into_iter().zip(inboxes).zip(letterboxes.clone());
        for (me, ((port, inbox), letterbox)) in ends.enumerate() {
            let flows = kernel.as_ref().and_then(|kernel| kernel.flows().ok());
            let random = random::bytes::<16>()?;
            let (low, high) = random.split_at(8);
            let word = |half: &[u8]| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            let turner = Turner {
                core: Worker::new(WorkerConfig {
                    hash_seed: [word(low), word(high)],
                    gather: Duration::from_micros(config.gather_us.into()),
                    stun: config.stun,
                }),
                port,
                inbox,
                letterbox,
                steering: Steering::new(me, letterboxes.clone(), flows),
                handshakes: handshakes.clone(),
                events: events.clone(),
                quality: quality.clone(),
                subscribers_asked: subscribers_asked.clone(),
                moved: HashMap::new(),
                trace: Trace::new(config.latency_one_in, config.gather_us > 0),
            };
            let pin = (workers <= pins.len()).then(|| pins.get(me).copied()).flatten();
            threads.push(run(me, pin, turner, last("a worker")).map_err(RelayError::Thread)?);
        }
        let (rpc_end, mut end) = watch::channel(false);
        let is_framed = framed.is_some();
        let carried = match framed {
            Some(socket) => {
                // Some are being read, some go back.
                let most = framed_most + framed_most.min(FRAMED_BACK) + RPC_CONNECTIONS;
                let incoming = socket.incoming(allowed(config), most);
                let (end, last) = (end.clone(), last("the TLS thread"));
                let turn = Arc::new(turn::Server::new(&identity.candidates, framed_most));
                let behind = (turn, framed::Kernel::new(config.kernel_tls));
                let (carried, thread, taking) =
                    framed::start(incoming, letterboxes, framed_most, behind, end, last)
                        .map_err(RelayError::Thread)?;
                threads.push(thread);
                tokio::spawn(taking);
                carried
            }
            None => Arc::default(),
        };

        let state = State::new(
            identity,
            mailboxes,
            (handshakes, way),
            kernel,
            health.clone(),
            subscribers_asked,
            config.scope_subscriptions_per_worker,
        );
        let state = Arc::new(State { framed: carried, ..state });
        held(last("the pump of events"), rpc::pump(state.clone(), happened));
        held(last("the pump of quality"), rpc::pump_quality(state.clone(), told));
        held(last("the sweep of scopes"), rpc::sweep(state.clone()));
        held(
            last("the watchdog"),
            watch_over(
                state.workers.clone(),
                state.handshakes.clone(),
                is_framed.then(|| state.framed.clone()),
                health.clone(),
            ),
        );
        let metrics = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = listener {
            let router = metrics::router(state.clone(), health.clone());
            held(last("the server of metrics"), async move { axum::serve(listener, router).await });
        }
        let rpc = tokio::spawn(rpc::builder().serve_with_incoming_shutdown(
            Service(state.clone()).server(),
            socket.incoming(allowed(config), RPC_CONNECTIONS),
            async move { drop(end.wait_for(|end| *end).await) },
        ));
        Ok(Self { state, health, metrics, threads, died, rpc_end, rpc })
    }

    /// Where metrics and health are.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let candidates = &self.state.identity.candidates;
        let places: Vec<_> = candidates
            .iter()
            .map(|candidate| {
                let protocol = match candidate.protocol() {
                    strait_proto::v1::candidate::Protocol::TcpPassive => "tcp",
                    _ => "udp",
                };
                let ip = &candidate.address;
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
                let purpose = match candidate.purpose() {
                    Purpose::Any => "",
                    Purpose::Audio => " (sound)",
                    Purpose::Video => " (pictures)",
                };
                format!("{protocol} {ip}:{}{purpose}", candidate.port)
            })
            .collect();
        format!("{} workers, media at {}", self.state.workers.len(), places.join(", "))
    }

    /// Whether all workers turn, as far as the watchdog knows.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.health.is_well()
    }

    /// Takes nothing new any more; [`Relay::ended`] returns when the last peer is gone or the time is up.
    /// Returns how many peers there are.
    pub fn drain(&self, patience: Duration) -> usize {
        self.state.drain(patience)
    }

    /// How many peers there are.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.state.registry.peers()
    }

    /// Returns when the relay has drained, or when it cannot go on.
    ///
    /// # Errors
    /// A worker or the RPC ended.
    pub async fn ended(&mut self) -> Result<(), RelayError> {
        let mut deadline = self.state.deadline.subscribe();
        let state = self.state.clone();
        let drained = async {
            loop {
                let until = *deadline.borrow_and_update();
                match until {
                    Some(until) if until <= Instant::now() || state.registry.peers() == 0 => return,
                    Some(_) => tokio::time::sleep(DRAIN_LOOK).await,
                    None => drop(deadline.changed().await),
                }
            }
        };
        tokio::select! {
            () = drained => Ok(()),
            died = self.died.recv() => Err(RelayError::Died(died.unwrap_or("a worker"))),
            ended = &mut self.rpc => Err(RelayError::Rpc(format!("{ended:?}"))),
        }
    }

    /// Has a thread fail; `worker` is which, where that matters.
    #[doc(hidden)]
    pub fn inject(&self, fault: Fault, worker: usize) {
        match (fault, self.state.workers.get(worker)) {
            (Fault::HandshakesDie, _) => self.state.handshakes.die(),
            (_, Some(mailbox)) => drop(mailbox.send(Request::Fault(fault))),
            (_, None) => {}
        }
    }

    /// Ends everything now, and waits for the threads; for one that hangs, at most [`STOP`].
    pub fn stop(self) {
        let _ = self.rpc_end.send(true);
        self.rpc.abort();
        let until = Instant::now() + STOP;
        let is_time = || {
            std::thread::sleep(STOP_LOOK);
            Instant::now() < until
        };
        for mailbox in &self.state.workers {
            let mut request = Request::Stop;
            // A full mailbox is emptied within some turns; a dead worker's is not.
            while let Err(back) = mailbox.send(request)
                && is_time()
            {
                request = back;
            }
        }
        self.state.handshakes.stop();
        for thread in self.threads {
            while !thread.is_finished() && is_time() {}
            if thread.is_finished() {
                let _ = thread.join();
            } else {
                let name = thread.thread().name().unwrap_or_default();
                tracing::error!("{name} does not end: left to the end of the process");
            }
        }
    }
}

fn sockets(config: &Config, workers: usize) -> strait_io::Options {
    let (tcp, tcp_port) = match (config.ice_tcp, config.ice_tcp_listen) {
        (false, _) => (Vec::new(), None),
        (true, None) => (config.listen.clone(), None),
        (true, Some(address)) => (vec![address.ip()], Some(address.port())),
    };
    let mut udp = config.listen.clone();
    if config.this_host_only {
        udp.extend(candidates::others_of_this_host(&config.listen, &interfaces::addresses()));
    }
    let strangers = config.steering == config::Steering::Auto;
    strait_io::Options {
        udp,
        port: config.port,
        further: further_ports(config),
        tcp,
        tcp_port,
        workers,
        strangers,
        this_host_only: config.this_host_only,
        traffic_class: config.dscp << 2 | config.ecn_mark.bits(),
        backend: match config.io {
            config::Io::Uring => Backend::Uring,
            config::Io::Mmsg | config::Io::Auto => Backend::Mmsg,
        },
        busy_poll: Duration::from_micros(config.busy_poll_us.into()),
    }
}

/// The ports beside that for everything.
fn further_ports(config: &Config) -> Vec<(LocalPort, u16)> {
    let apart = [(LocalPort::AUDIO, config.audio_port), (LocalPort::VIDEO, config.video_port)];
    let further = (0..).map(LocalPort::further).zip(config.further_ports.iter().copied());
    apart.into_iter().chain(further).filter(|(_, port)| *port != 0).collect()
}

/// How many ICE-TCP connections a worker may have, if that is fewer than usual: strangers open them, and must leave files
/// for the RPC and for metrics. Half of those that are not open yet.
fn tcp_connections(files: u64, workers: usize) -> Option<usize> {
    let open = process::open_files()?;
    let free = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(open);
    let connections = (free / 2 / workers.max(1)).max(1);
    (connections < TCP_CONNECTIONS).then_some(connections)
}

/// Where connections of framed media are handed over, if they are to be taken.
fn framed_socket(config: &Config, most: usize) -> Result<Option<rpc::socket::Socket>, String> {
    if !config.ice_tcp {
        return Ok(None);
    }
    if most == 0 {
        return Err("too few files may be open: raise LimitNOFILE= or `ulimit -n`".into());
    }
    let path = handover::socket_of(&config.rpc_socket);
    rpc::socket::Socket::bind(&path).map(Some).map_err(|error| error.to_string())
}

/// How many connections of framed media there may be at most, with `ways` to workers each, and as many that went back to the
/// control plane: strangers open them too. A quarter of the files that are not open yet.
fn framed_connections(files: u64, ways: usize) -> usize {
    let open = process::open_files().unwrap_or(0);
    let free = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(open);
    let each = FRAMED_FILES + ways * FRAMED_WAY_FILES + FRAMED_FILES;
    (free / 4 / each).min(FRAMED_CONNECTIONS)
}

/// Who may call: root, ourselves, and whom the configuration names.
fn allowed(config: &Config) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self").map(|process| process.uid()).ok();
    own.into_iter().chain([0]).chain(config.rpc_allowed_uids.iter().copied()).collect()
}

fn run(
    worker: usize,
    pin: Option<usize>,
    turner: Turner,
    last: Last,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
        if let Err(error) = affinity::exact_timers() {
            tracing::debug!(worker, "timers are rounded: {error}");
        }
        if let Some(cpu) = pin
            && let Err(error) = affinity::pin(cpu)
        {
            tracing::warn!(worker, cpu, "not pinned: {error}");
        }
        let _last = last;
        turner.run();
    })
}

/// Has a task run that holds `last` until it ends.
fn held<T>(last: Last, task: impl Future<Output = T> + Send + 'static) {
    tokio::spawn(async move {
        let _last = last;
        task.await;
    });
}

const fn assert_send<T: Send>() {}
const _: () = assert_send::<Sockets>();
