//! What happens in scopes, told to whoever keeps accounts.
//!
//! [`Notary`] notes it as it happens; `event` is what is told; [`grade`] is what a stream's minute is
//! worth. A [`Courier`] brings events to the store, or to a [`stream`] in Redis that the agents of the
//! cluster read (`crate::agent`), and keeps in a [`spool`] what nobody takes.

mod courier;
pub mod event;
pub mod grade;
mod meter;
mod moment;
mod notary;
pub mod spool;
pub mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

pub use courier::{Courier, Sink};
pub use event::Event;
pub use moment::Moment;
pub use notary::{Life, Notary, Stay};

use crate::limits;

/// What goes to those who take events.
#[allow(clippy::large_enum_variant)] // nearly all are events
#[derive(Debug)]
pub enum Note {
    /// An event.
    Event(Event),
    /// Answered when all before it is where it should be, or cannot get there now.
    Settle(oneshot::Sender<()>),
}

/// Where a node's events go; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outlet {
    notes: mpsc::Sender<Note>,
    counters: Arc<Counters>,
}

/// How it goes with events.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events told.
    pub told: AtomicU64,
    /// Events that are nowhere: nobody took them for long, or the store cannot hold them.
    pub lost: AtomicU64,
    /// Events that agents of this process wrote.
    pub written: AtomicU64,
    /// Those who take events cannot for now.
    pub is_stalled: AtomicBool,
    /// Nor can the disk: what will be told again anyway need not wait.
    pub is_blocked: AtomicBool,
    /// Events that wait on disk.
    pub spool_events: AtomicU64,
    /// Their bytes.
    pub spool_bytes: AtomicU64,
    /// Events of quality that were thrown away for room there; they are among those lost.
    pub spool_thrown: AtomicU64,
    /// Attempts to keep events there that failed.
    pub spool_failures: AtomicU64,
    /// Files of them that were damaged, and set aside.
    pub spool_broken: AtomicU64,
    /// Events that wait in Redis, as was seen last.
    pub stream_events: AtomicU64,
    /// Attempts to read the stream that failed.
    pub read_failures: AtomicU64,
    /// Events of the stream that this process put aside, for a newer one.
    pub aside: AtomicU64,
}

/// A way for events: where they go, and where they come out.
pub fn outlet() -> (Outlet, mpsc::Receiver<Note>) {
    let (notes, waiting) = mpsc::channel(limits::EVENTS_WAITING);
    (Outlet { notes, counters: Arc::default() }, waiting)
}

impl Outlet {
    /// How it goes.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Waits until all that was told is where it should be, or cannot get there now.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.notes.send(Note::Settle(done)).await.is_ok() {
            // Who takes events answers, or is gone with its runtime.
            let _gone = settled.await;
        }
    }

    /// Tells; false when nobody has room.
    fn tell(&self, event: Event) -> bool {
        let is_taken = self.notes.try_send(Note::Event(event)).is_ok();
        if is_taken {
            self.counters.told.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// Tells what nobody tells again: it is lost when nobody has room.
    fn tell_once(&self, event: Event) {
        if !self.tell(event) {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_blocked(&self) -> bool {
        self.counters.is_blocked.load(Ordering::Relaxed)
    }
}
