//! Framed media over TLS: connections that a control plane took in on its port for HTTPS and hands over
//! (`strait_proto::handover`). TLS is spoken on a thread of its own, so that no call waits for it; to a worker each of them
//! is a connection of ICE-TCP, whose other end this thread holds. Handshakes, and whoever no worker knows yet, are another
//! thread's: strangers take no turn of those whose media goes this way.
//!
//! The same goes for browsers that come by TURN over TLS (`relayed.rs`). As they name no protocol, others that do not come
//! here as well, and go back (`back.rs`).

mod back;
mod carrier;
mod certificate;
mod kernel;
mod queue;
mod relayed;
mod tls;

use crate::limits::{
    FRAMED_BACK, FRAMED_BACK_END, FRAMED_BACK_STALL, FRAMED_BEAT, FRAMED_HANDOVER,
    FRAMED_STRANGERS, FRAMED_UNKNOWN,
};
use crate::random;
use crate::rpc::socket::Connection;
use crate::steer::Letterbox;
use crate::turn;
use carrier::Carrier;
use certificate::{Certificates, Served};
pub(crate) use kernel::Kernel;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use strait_proto::handover::{self, BACK, LENGTH_BYTES, PEM_BYTES, TURN_ALPN};
use strait_wire::stun;
use tls::{Scratch, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout, timeout_at};
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
    /// Those that were none of ours: open, and ever.
    pub(crate) back: [AtomicU64; 2],
    /// What is behind those of TURN.
    pub(crate) turn: Arc<turn::Server>,
    /// Who does TLS for those that are carried, where it can.
    pub(crate) kernel: Kernel,
}

impl Shared {
    /// Whether there is TURN: not where no connections are taken over.
    pub(crate) fn serves_turn(&self) -> bool {
        self.turn.has_peers()
    }
}

/// A connection that was handed over, and what ends with it.
struct Handed {
    peer: TcpStream,
    served: Served,
    stay: Stay,
    /// Among the strangers.
    stranger: OwnedSemaphorePermit,
}

/// What a connection turned out to be.
enum Met {
    /// Framed media, of a peer that a worker knows.
    Framed(Box<carrier::Known>),
    /// TURN, with an allocation.
    Relayed(Box<relayed::Allocated>),
    /// The control plane's, with what came already.
    Back(Box<Tls>, Vec<u8>),
}

/// What all connections need.
#[derive(Clone)]
struct Common {
    shared: Arc<Shared>,
    /// Places of those that go back.
    back: Arc<Semaphore>,
}

/// For as long as it is open.
struct Stay {
    /// Closed when all is over, which tells the control plane.
    control: Connection,
    place: OwnedSemaphorePermit,
    counted: Counted,
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
/// over from those who come by `incoming`, at most `connections` at a time. `turn` is what is behind those of TURN, `kernel`
/// what may do TLS.
///
/// # Errors
/// No thread, or nothing to wait with, is to be had.
pub(crate) fn start(
    incoming: impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static,
    letterboxes: Vec<Letterbox>,
    connections: usize,
    (turn, kernel): (Arc<turn::Server>, Kernel),
    end: watch::Receiver<bool>,
    last: impl Send + 'static,
) -> io::Result<(Arc<Shared>, JoinHandle<()>, impl Future<Output = ()> + Send)> {
    let shared = Arc::new(Shared { turn, kernel, ..Shared::default() });
    let (to_meet, handed) = mpsc::channel(FRAMED_STRANGERS);
    let (to_carry, known) = mpsc::channel(connections.max(1));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (meeting, carrying) = (runtime()?, runtime()?);
    let back = Arc::new(Semaphore::new(FRAMED_BACK.min(connections)));
    let (common, ends) = (Common { shared: Arc::clone(&shared), back }, end.clone());
    let meets = std::thread::Builder::new().name("tls-hello".into()).spawn(move || {
        LocalSet::new().block_on(&meeting, meet_all(handed, to_carry, letterboxes, common, ends));
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
            // Nothing was read: who handed it over still has it.
            let _gone = handover::tell_refused(&control.stream);
            continue;
        };
        let (certificates, to_thread) = (Arc::clone(&certificates), to_thread.clone());
        tokio::spawn(async move {
            let taken = match timeout(FRAMED_HANDOVER, read(&mut control, &certificates)).await {
                Ok(taken) => taken,
                Err(_) => Err(ErrorKind::TimedOut.into()),
            };
            match taken {
                Ok((peer, served)) => {
                    counted.accepted.fetch_add(1, Ordering::Relaxed);
                    let counted = Counted::new(&counted, |shared| &shared.open);
                    let stay = Stay { control, place, counted };
                    let handed = Handed { peer, served, stay, stranger };
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
) -> io::Result<(TcpStream, Served)> {
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
    to_carry: mpsc::Sender<(Met, Stay)>,
    letterboxes: Vec<Letterbox>,
    common: Common,
    mut end: watch::Receiver<bool>,
) {
    let scratch = Rc::new(tls::scratch());
    // The first check tells whose it is; until then one worker is as good as another.
    let mut next = letterboxes.iter().cycle();
    let mut beat = tokio::time::interval(FRAMED_BEAT);
    loop {
        let one = tokio::select! {
            one = handed.recv() => one,
            _ = beat.tick() => {
                common.shared.hello_turns.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            _ = end.wait_for(|end| *end) => return,
        };
        let (Some(Handed { peer, served, stay, stranger }), Some(letterbox)) = (one, next.next())
        else {
            return;
        };
        let (letterbox, scratch) = (letterbox.clone(), Rc::clone(&scratch));
        let (to_carry, common) = (to_carry.clone(), common.clone());
        tokio::task::spawn_local(async move {
            let shared = &common.shared;
            let stranger = (stranger, Counted::new(shared, |shared| &shared.strangers));
            let way = (&letterbox, &*scratch);
            match meet(peer, served, &common, way, FRAMED_UNKNOWN).await {
                Ok(Met::Back(peer, inward)) => {
                    drop(stranger);
                    let outcome = give_back(*peer, inward, stay, &common, &scratch).await;
                    tracing::debug!("a connection that went back ended: {outcome:?}");
                }
                Ok(met) => {
                    let _gone = handover::tell_known(&stay.control.stream);
                    // As many fit as there are places.
                    let _ending = to_carry.try_send((met, stay));
                }
                Err(error) => over(shared, &Err(error)),
            }
        });
    }
}

/// Carries a connection for the control plane, in a place of its own instead of those of media.
async fn give_back(
    peer: Tls,
    inward: Vec<u8>,
    stay: Stay,
    common: &Common,
    scratch: &Scratch,
) -> io::Result<()> {
    let _place = Arc::clone(&common.back).try_acquire_owned().map_err(io::Error::other)?;
    let Stay { mut control, place, counted } = stay;
    drop((place, counted));
    let _counted = Counted::new(&common.shared, |Shared { back: [open, _], .. }| open);
    let [_, ever] = &common.shared.back;
    ever.fetch_add(1, Ordering::Relaxed);
    control.stream.write_all(&[BACK]).await?;
    let patience = back::Patience { stall: FRAMED_BACK_STALL, end: FRAMED_BACK_END };
    back::give(peer, inward, &mut control.stream, scratch, patience).await
}

/// Carries what comes, until told to end.
async fn carry_all(
    mut known: mpsc::Receiver<(Met, Stay)>,
    shared: Arc<Shared>,
    mut end: watch::Receiver<bool>,
) {
    let scratch = Rc::new(tls::scratch());
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
        let Some((met, stay)) = one else { return };
        let (scratch, shared) = (Rc::clone(&scratch), Arc::clone(&shared));
        tokio::task::spawn_local(async move {
            match met {
                Met::Framed(known) => over(&shared, &Carrier::carry(*known, &scratch).await),
                Met::Relayed(allocated) => {
                    over(&shared, &relayed::carry(*allocated, &scratch).await);
                }
                // Those stay with the other thread.
                Met::Back(..) => {}
            }
            drop(stay);
        });
    }
}

/// Finds out what a connection is, and who.
async fn meet(
    peer: TcpStream,
    served: Served,
    common: &Common,
    (letterbox, scratch): (&Letterbox, &Scratch),
    patience: Duration,
) -> io::Result<Met> {
    let deadline = Instant::now() + patience;
    let mut peer = Tls::new(peer, served.tls, &common.shared)?;
    let mut inward = Vec::new();
    let greeting = poll_fn(|cx| peer.poll_greeting(cx, scratch, &mut inward));
    timeout_at(deadline, greeting).await.map_err(|_| late("TLS was not finished"))??;
    let shared = Arc::clone(&common.shared);
    let way = (letterbox, scratch);
    let Some(secret) = served.turn.filter(|_| peer.protocol() != Some(handover::ALPN)) else {
        let known = Carrier::meet(peer, inward, shared, way, deadline).await?;
        return Ok(Met::Framed(Box::new(known)));
    };
    let mut is_turn = (peer.protocol() == Some(TURN_ALPN)).then_some(true);
    while is_turn.is_none() {
        is_turn = begins_turn(&inward);
        if is_turn.is_none() {
            let more = poll_fn(|cx| peer.poll_read(cx, scratch, &mut inward));
            timeout_at(deadline, more).await.map_err(|_| late("nothing was said"))??;
        }
    }
    if is_turn == Some(false) {
        return Ok(Met::Back(Box::new(peer), inward));
    }
    let seed = u128::from_ne_bytes(random::bytes().map_err(io::Error::other)?);
    let turn = Arc::clone(&common.shared.turn);
    let now = std::time::Instant::now();
    let session = turn::Session::new(turn, secret, peer.remote()?, seed, now);
    let allocated = relayed::meet(peer, inward, session, way, shared, deadline).await?;
    Ok(Met::Relayed(Box::new(allocated)))
}

/// Whether the first bytes of a client that named no protocol are those of a request of STUN. None: more are needed.
/// A link begins with two zeros, HTTP with a letter.
fn begins_turn(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [] | [0] => None,
        [0, kind, ..] if *kind != 0 => {
            let cookie = bytes.get(4..8)?;
            Some(cookie == stun::MAGIC_COOKIE)
        }
        _ => Some(false),
    }
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

fn late(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests;
