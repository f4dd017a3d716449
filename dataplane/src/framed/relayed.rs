//! One connection of TURN: TLS to the peer, and to a worker a local socket for each address of this host that the peer speaks
//! to. What is said is in `turn/session.rs`.

use super::carrier::Way;
use super::tls::{Moving, Scratch, Tls};
use super::{Shared, late};
use crate::limits::{
    FRAMED_READS_PER_TURN, FRAMED_RECORD_BYTES, TURN_ANSWERS_BYTES, TURN_MESSAGE_BYTES, TURN_SWEEP,
};
use crate::steer::Letterbox;
use crate::turn::{Now, Session};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};
use strait_core::limits::DATAGRAM_BYTES;
use strait_wire::demux;
use strait_wire::turn::frame;
use tokio::time::{Sleep, sleep, timeout_at};

/// A connection with an allocation, on its way to the thread that carries it.
pub(super) struct Allocated {
    peer: Moving,
    inward: Vec<u8>,
    session: Session,
    letterbox: Letterbox,
    shared: Arc<Shared>,
}

/// A connection.
struct Relayed {
    peer: Tls,
    /// What the peer sent and is no whole message yet, or has to wait.
    inward: Vec<u8>,
    session: Session,
    /// What is said to the peer beside datagrams.
    answers: Vec<u8>,
    /// To the worker, for each peer of the session's that it spoke to.
    ways: Vec<Option<Inner>>,
    letterbox: Letterbox,
    shared: Arc<Shared>,
    sweep: Pin<Box<Sleep>>,
    /// It is no stranger: from here on datagrams go.
    is_carried: bool,
}

struct Inner {
    way: Way,
    /// Frames that the worker did not take yet; nothing is read from the peer meanwhile.
    inward: Vec<u8>,
}

/// Serves a connection until it has an allocation, for which it needs credentials that the control plane gave out.
///
/// # Errors
/// It ended, or the deadline came.
pub(super) async fn meet(
    peer: Tls,
    inward: Vec<u8>,
    session: Session,
    (letterbox, scratch): (&Letterbox, &Scratch),
    shared: Arc<Shared>,
    deadline: tokio::time::Instant,
) -> io::Result<Allocated> {
    let mut one = Relayed::new(peer, inward, session, letterbox.clone(), shared);
    let meeting = poll_fn(|cx| match one.poll_turn(cx, scratch)? {
        true if one.session.relayed().is_some() => Poll::Ready(Ok::<_, io::Error>(())),
        _ => Poll::Pending,
    });
    timeout_at(deadline, meeting).await.map_err(|_| late("nothing was allocated"))??;
    let Relayed { peer, inward, session, letterbox, shared, .. } = one;
    Ok(Allocated { peer: peer.leave()?, inward, session, letterbox, shared })
}

/// Carries datagrams for as long as the allocation lasts.
pub(super) async fn carry(allocated: Allocated, scratch: &Scratch) -> io::Result<()> {
    let Allocated { peer, inward, session, letterbox, shared } = allocated;
    let mut one = Relayed::new(Tls::arrive(peer)?, inward, session, letterbox, shared);
    one.is_carried = true;
    poll_fn(|cx| match one.poll_turn(cx, scratch) {
        Ok(is_flushed) if is_flushed && one.session.relayed().is_none() => Poll::Ready(Ok(())),
        Ok(_) => Poll::Pending,
        Err(end) => Poll::Ready(Err(end)),
    })
    .await
}

impl Relayed {
    fn new(
        peer: Tls,
        inward: Vec<u8>,
        session: Session,
        letterbox: Letterbox,
        shared: Arc<Shared>,
    ) -> Self {
        let (answers, ways) = Default::default();
        let sweep = Box::pin(sleep(TURN_SWEEP));
        Self { peer, inward, session, answers, ways, letterbox, shared, sweep, is_carried: false }
    }

    /// Moves what there is, both ways. It is woken when there is more. Whether all that was to be said is on its way.
    fn poll_turn(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> io::Result<bool> {
        while self.sweep.as_mut().poll(cx).is_ready() {
            self.session.sweep(Instant::now());
            self.sweep.as_mut().reset(tokio::time::Instant::now() + TURN_SWEEP);
        }
        let mut reads = 0;
        let mut is_flushed = loop {
            let all_taken = self.take_messages()?;
            self.write_workers(cx);
            let is_flushed = self.write_peer(cx)?;
            if self.is_waiting() || reads == FRAMED_READS_PER_TURN {
                break is_flushed;
            }
            reads += 1;
            if !all_taken {
                continue;
            }
            match self.peer.poll_read(cx, scratch, &mut self.inward) {
                Poll::Pending => break is_flushed,
                Poll::Ready(read) => read?,
            }
        };
        let mut most = 0;
        for inner in &mut self.ways {
            let mut read = 0;
            while let Some(one) = inner
                && read < FRAMED_READS_PER_TURN
                && let Poll::Ready(end) = one.way.poll_read(cx, scratch, &self.shared)
            {
                read += 1;
                if end.is_err() {
                    // The worker forgot this way; the next check opens another one.
                    *inner = None;
                }
            }
            most = read.max(most);
        }
        if most > 0 {
            is_flushed = self.write_peer(cx)?;
        }
        if reads.max(most) == FRAMED_READS_PER_TURN {
            // There may be more: after the others' turn.
            cx.waker().wake_by_ref();
        }
        Ok(is_flushed)
    }

    /// Whether nothing more is read from the peer for now.
    fn is_waiting(&self) -> bool {
        self.answers.len() > TURN_ANSWERS_BYTES
            || self.ways.iter().flatten().any(|inner| !inner.inward.is_empty())
            || (!self.is_carried && self.session.relayed().is_some())
    }

    /// Takes the whole messages that are there, if nobody has to be waited for: what one read brought at most. Whether it
    /// took all.
    fn take_messages(&mut self) -> io::Result<bool> {
        if self.is_waiting() {
            return Ok(false);
        }
        let inward = std::mem::take(&mut self.inward);
        let mut at = 0;
        let mut now = None;
        let mut all_taken = false;
        while self.answers.len() <= TURN_ANSWERS_BYTES
            && (self.is_carried || self.session.relayed().is_none())
        {
            let rest = inward.get(at..).unwrap_or_default();
            let Some((one, taken)) = frame(rest, TURN_MESSAGE_BYTES).map_err(invalid)? else {
                all_taken = true;
                break;
            };
            let now = *now.get_or_insert_with(clock);
            let said = self.session.take(now, one, &mut self.answers).map_err(invalid)?;
            if let Some((peer, datagram)) = said {
                self.pass_on(peer, datagram);
            }
            at += taken;
        }
        self.inward = inward;
        self.inward.drain(..at);
        Ok(all_taken)
    }

    /// A datagram for a worker. What cannot go is dropped, as UDP would.
    fn pass_on(&mut self, peer: usize, datagram: &[u8]) {
        let Some(length) = u16::try_from(datagram.len()).ok().filter(|_| {
            // Longer ones would end the connection to the worker.
            datagram.len() <= DATAGRAM_BYTES
        }) else {
            return;
        };
        if self.ways.len() <= peer {
            self.ways.resize_with(peer + 1, || None);
        }
        let Some(place) = self.ways.get_mut(peer) else { return };
        // A worker wants a check first.
        if place.is_none()
            && demux::classify(datagram) == demux::Kind::Stun
            && let (Some(local), Some(remote)) = (self.session.peer(peer), self.session.relayed())
        {
            let way = Way::open(&self.letterbox, local.ip(), remote);
            *place = way.ok().map(|way| Inner { way, inward: Vec::new() });
        }
        if let Some(inner) = place {
            inner.inward.extend_from_slice(&length.to_be_bytes());
            inner.inward.extend_from_slice(datagram);
        }
    }

    fn write_workers(&mut self, cx: &mut Context<'_>) {
        for inner in &mut self.ways {
            if let Some(Inner { way, inward }) = inner
                && way.write(cx, inward).is_err()
            {
                *inner = None;
            }
        }
    }

    /// Writes records for as long as the socket takes them. Whether it took all.
    fn write_peer(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.peer.flush(cx)? {
            let mut record = std::mem::take(&mut self.answers);
            self.fill(&mut record);
            if record.is_empty() {
                return Ok(true);
            }
            self.peer.write(&record)?;
        }
        Ok(false)
    }

    /// Adds datagrams for the peer, about as many as make one record.
    fn fill(&mut self, record: &mut Vec<u8>) {
        let now = Instant::now();
        for (peer, inner) in self.ways.iter_mut().enumerate() {
            let Some(Inner { way, .. }) = inner else { continue };
            while record.len() < FRAMED_RECORD_BYTES
                && let Some(datagram) = way.outward.first()
            {
                if !self.session.wrap(now, peer, datagram, record) {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
                way.outward.first_sent();
            }
        }
    }
}

fn clock() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now { instant: Instant::now(), unix_seconds: unix.map_or(0, |since| since.as_secs()) }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
