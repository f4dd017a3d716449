//! Framed media over TLS: connections that a control plane took in on its port for HTTPS and hands over
//! (`strait_proto::handover`). TLS is spoken on a thread of its own, so that no call waits for it; to a worker each of them
//! is a connection of ICE-TCP, whose other end this thread holds.

mod carrier;
mod certificate;
mod queue;

use crate::limits::{FRAMED_HANDOVER, FRAMED_UNKNOWN};
use crate::rpc::socket::Connection;
use crate::steer::Letterbox;
use carrier::Carrier;
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
}

/// A connection to be carried.
struct Handed {
    peer: TcpStream,
    tls: Arc<ServerConfig>,
    /// Closed when all is over, which tells the control plane.
    _control: Connection,
    _place: OwnedSemaphorePermit,
}

/// Starts the thread, which holds `last` until it ends; and gives the task that takes connections over from those who come
/// by `incoming`, at most `connections` at a time.
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
    let (to_thread, handed) = mpsc::channel(connections.max(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (of_thread, mut ends) = (Arc::clone(&shared), end.clone());
    let join = std::thread::Builder::new().name("tls".into()).spawn(move || {
        let _last = last;
        LocalSet::new().block_on(&runtime, carry_all(handed, letterboxes, of_thread, end));
    })?;
    let taking = take_over(incoming, connections, to_thread, Arc::clone(&shared));
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
    let certificates = Arc::new(Certificates::default());
    while let Some(Ok(mut control)) = incoming.next().await {
        let counted = Arc::clone(&shared);
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
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
                    let handed = Handed { peer, tls, _control: control, _place: place };
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

/// Carries what comes, until told to end.
async fn carry_all(
    mut handed: mpsc::Receiver<Handed>,
    letterboxes: Vec<Letterbox>,
    shared: Arc<Shared>,
    mut end: watch::Receiver<bool>,
) {
    let scratch = Rc::new(carrier::scratch());
    // The first check tells whose it is; until then one worker is as good as another.
    let mut next = letterboxes.iter().cycle();
    loop {
        let one = tokio::select! {
            one = handed.recv() => one,
            _ = end.wait_for(|end| *end) => return,
        };
        let (Some(Handed { peer, tls, _control, _place }), Some(letterbox)) = (one, next.next())
        else {
            return;
        };
        let (letterbox, scratch) = (letterbox.clone(), Rc::clone(&scratch));
        let shared = Arc::clone(&shared);
        shared.open.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_local(async move {
            let counted = Arc::clone(&shared);
            let ended = carry(peer, tls, shared, (&letterbox, &scratch), FRAMED_UNKNOWN).await;
            counted.open.fetch_sub(1, Ordering::Relaxed);
            if is_failure(&ended) {
                counted.failed.fetch_add(1, Ordering::Relaxed);
            }
            tracing::debug!("framed media ended: {ended:?}");
            drop((_control, _place));
        });
    }
}

async fn carry(
    peer: TcpStream,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    (letterbox, scratch): (&Letterbox, &carrier::Scratch),
    patience: Duration,
) -> io::Result<()> {
    Carrier::new(peer, tls, shared)?.run(letterbox, scratch, patience).await
}

/// Whether it is the peer's fault that it ended, and not just its end.
fn is_failure(ended: &io::Result<()>) -> bool {
    let Err(error) = ended else { return false };
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    is_tls || error.kind() == ErrorKind::TimedOut
}

#[cfg(test)]
mod tests;
