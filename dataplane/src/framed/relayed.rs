//! One connection of TURN: TLS to the peer, and to a worker a local socket for each address of this host that the peer speaks
//! to. What is said is in `turn/session.rs`.

use super::carrier::Way;
use super::tls::{Moving, Scratch, Tls};
use super::{Shared, late};
use crate::limits::{
    FRAMED_READS_PER_TURN, FRAMED_RECORD_BYTES, TURN_ANSWERS_BYTES, TURN_MESSAGE_BYTES,
    TURN_REOPEN, TURN_SWEEP,
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
    /// For each peer of the session's that it spoke to.
    ways: Vec<Side>,
    letterbox: Letterbox,
    shared: Arc<Shared>,
    sweep: Pin<Box<Sleep>>,
    /// It is no stranger: from here on datagrams go.
    is_carried: bool,
}

/// The way to one of the session's peers.
#[derive(Default)]
struct Side {
    /// To the worker, while there is one.
    inner: Option<Inner>,
    /// When another one may be opened.
    reopens: Option<Instant>,
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
        for Side { inner, .. } in &mut self.ways {
            let mut read = 0;
            while let Some(one) = inner
                && read < FRAMED_READS_PER_TURN
                && let Poll::Ready(end) = one.way.poll_read(cx, scratch, &self.shared)
            {
                read += 1;
                if end.is_err() {
                    // The worker forgot this way; a later check opens another one.
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
            || self.inners().any(|inner| !inner.inward.is_empty())
            || (!self.is_carried && self.session.relayed().is_some())
    }

    fn inners(&self) -> impl Iterator<Item = &Inner> {
        self.ways.iter().filter_map(|side| side.inner.as_ref())
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
                self.pass_on(now.instant, peer, datagram);
            }
            at += taken;
        }
        self.inward = inward;
        self.inward.drain(..at);
        Ok(all_taken)
    }

    /// A datagram for a worker, as by UDP.
    fn pass_on(&mut self, now: Instant, peer: usize, datagram: &[u8]) {
        if self.ways.len() <= peer {
            self.ways.resize_with(peer + 1, Side::default);
        }
        let (Some(local), Some(remote)) = (self.session.peer(peer), self.session.relayed()) else {
            return;
        };
        let letterbox = &self.letterbox;
        if let Some(side) = self.ways.get_mut(peer) {
            side.pass_on(now, datagram, || Way::open(letterbox, local.ip(), remote));
        }
    }

    fn write_workers(&mut self, cx: &mut Context<'_>) {
        for Side { inner, .. } in &mut self.ways {
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
        for (peer, Side { inner, .. }) in self.ways.iter_mut().enumerate() {
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

impl Side {
    /// A datagram for the worker; what cannot go is dropped.
    fn pass_on(&mut self, now: Instant, datagram: &[u8], open: impl FnOnce() -> io::Result<Way>) {
        // Longer ones would end the connection to the worker.
        let length = u16::try_from(datagram.len()).ok();
        let Some(length) = length.filter(|_| datagram.len() <= DATAGRAM_BYTES) else { return };
        // A worker wants a check first.
        if self.inner.is_none()
            && self.reopens.is_none_or(|at| now >= at)
            && demux::classify(datagram) == demux::Kind::Stun
        {
            self.inner = open().ok().map(|way| Inner { way, inward: Vec::new() });
            self.reopens = Some(now + TURN_REOPEN);
        }
        if let Some(Inner { inward, .. }) = &mut self.inner {
            inward.extend_from_slice(&length.to_be_bytes());
            inward.extend_from_slice(datagram);
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

#[cfg(test)]
mod tests {
    use super::super::tests::{STUN, sockets, with_runtime};
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_allocation_opens_a_way_once_a_second_however_often_workers_end_it() {
        with_runtime(async {
            let (_bound, letterbox) = sockets();
            let (start, mut side) = (Instant::now(), Side::default());
            let (local, remote) = ([127, 0, 0, 1].into(), "192.0.2.1:1024".parse().unwrap());
            let open = || Way::open(&letterbox, local, remote);
            let mut opened = 0;
            for ms in 0..3000 {
                side.pass_on(start + Duration::from_millis(ms), &STUN, open);
                if let Some(connection) = letterbox.connection() {
                    opened += 1;
                    drop(connection);
                    // Read from, it is over.
                    side.inner = None;
                }
            }
            assert_eq!(opened, 3);
            // Who tries while there is no room has to wait as well.
            let mut tried = 0;
            for ms in 3000..4500 {
                let now = start + Duration::from_millis(ms);
                side.pass_on(now, &STUN, || {
                    tried += 1;
                    Err(ErrorKind::Other.into())
                });
            }
            assert_eq!(tried, 2);
            // What lasts is used all the time.
            side.pass_on(start + Duration::from_secs(9), &STUN, open);
            side.pass_on(start + Duration::from_secs(9), &STUN, || panic!("there is one"));
            assert_eq!(side.inner.unwrap().inward.len(), 2 * (2 + STUN.len()));
        });
    }
}
