//! Framed media over TLS: connections that a control plane took in on its port for HTTPS and hands over
//! (`strait_proto::handover`). TLS is spoken on a thread of its own, so that no call waits for it; to a worker each of them
//! is a connection of ICE-TCP, whose other end this thread holds. Handshakes, and whoever no worker knows yet, are another
//! thread's: strangers take no turn of those whose media goes this way.

mod carrier;
mod certificate;
mod queue;

use crate::limits::{FRAMED_BEAT, FRAMED_HANDOVER, FRAMED_STRANGERS, FRAMED_UNKNOWN};
use crate::rpc::socket::Connection;
use crate::steer::Letterbox;
use carrier::{Carrier, Known};
use certificate::Certificates;
use rustls::ServerConfig;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use strait_proto::handover::{self, LENGTH_BYTES, PEM_BYTES};
use tokio::io::{AsyncReadExt, Interest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use zeroize::Zeroizing;

/// What became of the connections that were handed over.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Open now.
    pub(crate) open: AtomicU64,
    /// Taken over.
    pub(crate) accepted: AtomicU64,
    /// Not taken over: too many, or no message of a kind that is known.
    pub(crate) refused: AtomicU64,
    /// Ended because TLS was not finished, or no check passed, in time; or TLS was broken.
    pub(crate) failed: AtomicU64,
    /// Packets that waited for a slow reader until they were too many.
    pub(crate) dropped: AtomicU64,
    /// Open, and no worker knows the peer.
    pub(crate) strangers: AtomicU64,
    /// How often the thread that carries them showed that it turns.
    pub(crate) turns: AtomicU64,
    /// The same of the thread that meets strangers.
    pub(crate) hello_turns: AtomicU64,
}

/// A connection that was handed over, and what ends with it.
struct Handed {
    peer: TcpStream,
    tls: Arc<ServerConfig>,
    stay: Stay,
    /// Among the strangers.
    stranger: OwnedSemaphorePermit,
}

/// For as long as it is open.
struct Stay {
    /// Closed when all is over, which tells the control plane.
    control: Connection,
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

/// Counts what is open.
struct Counted(Arc<Shared>, fn(&Shared) -> &AtomicU64);

impl Counted {
    fn new(shared: &Arc<Shared>, which: fn(&Shared) -> &AtomicU64) -> Self {
        which(shared).fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the threads, of which the one that carries holds `last` until it ends; and gives the task that takes connections
/// over from those who come by `incoming`, at most `connections` at a time.
///
/// # Errors
/// No thread, or nothing to wait with, is to be had.
pub(crate) fn start(
    incoming: impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static,
    letterboxes: Vec<Letterbox>,
    connections: usize,
    end: watch::Receiver<bool>,
    last: impl Send + 'static,
) -> io::Result<(Arc<Shared>, JoinHandle<()>, impl Future<Output = ()> + Send)> {
    let shared = Arc::new(Shared::default());
    let (to_meet, handed) = mpsc::channel(FRAMED_STRANGERS);
    let (to_carry, known) = mpsc::channel(connections.max(1));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (meeting, carrying) = (runtime()?, runtime()?);
    let (of_thread, ends) = (Arc::clone(&shared), end.clone());
    let meets = std::thread::Builder::new().name("tls-hello".into()).spawn(move || {
        LocalSet::new()
            .block_on(&meeting, meet_all(handed, to_carry, letterboxes, of_thread, ends));
    })?;
    let (of_thread, mut ends) = (Arc::clone(&shared), end.clone());
    let join = std::thread::Builder::new().name("tls".into()).spawn(move || {
        let _last = last;
        // It ends with the other thread as well, which nobody else looks after.
        LocalSet::new().block_on(&carrying, carry_all(known, of_thread, end));
        let _panicked = meets.join();
    })?;
    let taking = take_over(incoming, connections, to_meet, Arc::clone(&shared));
    let taking = async move {
        tokio::select! {
            () = taking => {}
            _ = ends.wait_for(|end| *end) => {}
        }
    };
    Ok((shared, join, taking))
}

/// Takes connections over until nobody can come any more.
async fn take_over(
    mut incoming: impl Stream<Item = io::Result<Connection>> + Unpin,
    connections: usize,
    to_thread: mpsc::Sender<Handed>,
    shared: Arc<Shared>,
) {
    let places = Arc::new(Semaphore::new(connections));
    let strangers = Arc::new(Semaphore::new(FRAMED_STRANGERS.min(connections)));
    let certificates = Arc::new(Certificates::default());
    while let Some(Ok(mut control)) = incoming.next().await {
        let counted = Arc::clone(&shared);
        let room = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned();
        let (Ok(place), Ok(stranger)) = (room(&places), room(&strangers)) else {
            counted.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (certificates, to_thread) = (Arc::clone(&certificates), to_thread.clone());
        tokio::spawn(async move {
            let taken = match timeout(FRAMED_HANDOVER, read(&mut control, &certificates)).await {
                Ok(taken) => taken,
                Err(_) => Err(ErrorKind::TimedOut.into()),
            };
            match taken {
                Ok((peer, tls)) => {
                    counted.accepted.fetch_add(1, Ordering::Relaxed);
                    let _counted = Counted::new(&counted, |shared| &shared.open);
                    let stay = Stay { control, _place: place, _counted };
                    let handed = Handed { peer, tls, stay, stranger };
                    // As many fit as there are places.
                    let _ending = to_thread.try_send(handed);
                }
                Err(error) => {
                    counted.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        "a connection was not taken over from the control plane: {error}"
                    );
                }
            }
        });
    }
}

/// Reads the message of one connection.
async fn read(
    control: &mut Connection,
    certificates: &Certificates,
) -> io::Result<(TcpStream, Arc<ServerConfig>)> {
    let mut length = [0; LENGTH_BYTES];
    let stream = &mut control.stream;
    let first = stream.async_io(Interest::READABLE, || handover::receive(&*stream, &mut length));
    let (read, descriptor) = first.await?;
    let Some(descriptor) = descriptor else {
        return Err(io::Error::new(ErrorKind::InvalidData, "no descriptor came with the message"));
    };
    let peer = stream_of(descriptor)?;
    stream.read_exact(length.get_mut(read..).unwrap_or_default()).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > PEM_BYTES {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("certificate and key have {length} bytes, of {PEM_BYTES} at most"),
        ));
    }
    let mut pem = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut pem).await?;
    Ok((peer, certificates.config(&pem)?))
}

/// Only what has a remote address is a connection.
fn stream_of(descriptor: OwnedFd) -> io::Result<TcpStream> {
    let stream = TcpStream::from(descriptor);
    stream.peer_addr()?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Meets whoever comes, until told to end.
async fn meet_all(
    mut handed: mpsc::Receiver<Handed>,
    to_carry: mpsc::Sender<(Known, Stay)>,
    letterboxes: Vec<Letterbox>,
    shared: Arc<Shared>,
    mut end: watch::Receiver<bool>,
) {
    let scratch = Rc::new(carrier::scratch());
    // The first check tells whose it is; until then one worker is as good as another.
    let mut next = letterboxes.iter().cycle();
    let mut beat = tokio::time::interval(FRAMED_BEAT);
    loop {
        let one = tokio::select! {
            one = handed.recv() => one,
            _ = beat.tick() => {
                shared.hello_turns.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            _ = end.wait_for(|end| *end) => return,
        };
        let (Some(Handed { peer, tls, stay, stranger }), Some(letterbox)) = (one, next.next())
        else {
            return;
        };
        let (letterbox, scratch) = (letterbox.clone(), Rc::clone(&scratch));
        let (to_carry, shared) = (to_carry.clone(), Arc::clone(&shared));
        tokio::task::spawn_local(async move {
            let _stranger = (stranger, Counted::new(&shared, |shared| &shared.strangers));
            let way = (&letterbox, &*scratch);
            match meet(peer, tls, Arc::clone(&shared), way, FRAMED_UNKNOWN).await {
                Ok(known) => {
                    let _gone = handover::tell_known(&stay.control.stream);
                    // As many fit as there are places.
                    let _ending = to_carry.try_send((known, stay));
                }
                Err(error) => over(&shared, &Err(error)),
            }
        });
    }
}

/// Carries what comes, until told to end.
async fn carry_all(
    mut known: mpsc::Receiver<(Known, Stay)>,
    shared: Arc<Shared>,
    mut end: watch::Receiver<bool>,
) {
    let scratch = Rc::new(carrier::scratch());
    let mut beat = tokio::time::interval(FRAMED_BEAT);
    loop {
        let one = tokio::select! {
            one = known.recv() => one,
            _ = beat.tick() => {
                shared.turns.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            _ = end.wait_for(|end| *end) => return,
        };
        let Some((known, stay)) = one else { return };
        let (scratch, shared) = (Rc::clone(&scratch), Arc::clone(&shared));
        tokio::task::spawn_local(async move {
            over(&shared, &Carrier::carry(known, &scratch).await);
            drop(stay);
        });
    }
}

async fn meet(
    peer: TcpStream,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    (letterbox, scratch): (&Letterbox, &carrier::Scratch),
    patience: Duration,
) -> io::Result<Known> {
    Carrier::new(peer, tls, shared)?.meet(letterbox, scratch, patience).await
}

/// Counts how one ended.
fn over(shared: &Shared, ended: &io::Result<()>) {
    if is_failure(ended) {
        shared.failed.fetch_add(1, Ordering::Relaxed);
    }
    tracing::debug!("framed media ended: {ended:?}");
}

/// Whether it is the peer's fault that it ended, and not just its end.
fn is_failure(ended: &io::Result<()>) -> bool {
    let Err(error) = ended else { return false };
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    is_tls || error.kind() == ErrorKind::TimedOut
}

#[cfg(test)]
mod tests;
