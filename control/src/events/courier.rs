//! Brings the events of this process to where they are taken: the store, or Redis. While that is
//! away they wait on disk, and are told in their order when it is there again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::spool::Spool;
use super::stream::Stream;
use super::{Counters, Event, Note};
use crate::agent::Agent;
use crate::fault::Fault;
use crate::limits;

/// First pause after nobody took events; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where events go.
pub enum Sink {
    /// To the store, by this process itself.
    Store(Agent),
    /// To the stream that agents read.
    Stream(Box<Stream>),
}

/// Brings events.
pub struct Courier {
    sink: Sink,
    spool: Spool,
    counters: Arc<Counters>,
    /// Neither taken nor on disk.
    held: Vec<Event>,
    /// When the sink is tried next, and the pause after that.
    due: Instant,
    pause: Duration,
}

impl Courier {
    /// To `sink`, and to `spool` while that is away.
    pub fn new(sink: Sink, spool: Spool, counters: Arc<Counters>) -> Self {
        let (held, due, pause) = (Vec::new(), Instant::now(), PAUSE);
        Self { sink, spool, counters, held, due, pause }
    }

    /// Takes the events of this process until there are no more.
    pub async fn run(mut self, mut waiting: mpsc::Receiver<Note>) {
        if let Err(fault) = self.spool.recover().await {
            warn!("what an earlier process left is not told: {fault}");
        }
        let mut notes = Vec::new();
        loop {
            if self.held.is_empty() && self.spool.is_empty() {
                if waiting.recv_many(&mut notes, limits::EVENTS_AT_ONCE).await == 0 {
                    return;
                }
            } else if self.held.is_empty() {
                let more = waiting.recv_many(&mut notes, limits::EVENTS_AT_ONCE);
                // Nobody tells any more: what is on disk stays there for the next process.
                if timeout_at(self.due, more).await == Ok(0) {
                    return;
                }
            } else {
                tokio::time::sleep_until(self.due).await;
            }
            let mut settled = Vec::new();
            for note in notes.drain(..) {
                match note {
                    Note::Event(event) => self.held.push(event),
                    Note::Settle(done) => settled.push(done),
                }
            }
            self.turn().await;
            answer(settled);
        }
    }

    /// Tells what waits, if that is due; keeps the rest on disk.
    async fn turn(&mut self) {
        if Instant::now() >= self.due {
            match self.tell().await {
                Ok(()) => self.went_well(),
                Err(fault) => self.went_wrong(&fault),
            }
        }
        if !self.held.is_empty() {
            match self.spool.put(&self.held).await {
                Ok(()) => self.held.clear(),
                Err(fault) => {
                    let failures = &self.counters.spool_failures;
                    if failures.fetch_add(1, Ordering::Relaxed) == 0 {
                        warn!("{fault}");
                    }
                    self.due = self.due.max(Instant::now() + PAUSE);
                }
            }
        }
        let is_blocked = !self.held.is_empty();
        self.counters.is_blocked.store(is_blocked, Ordering::Relaxed);
        let is_stalled = is_blocked || !self.spool.is_empty();
        self.counters.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// The oldest come first.
    async fn tell(&mut self) -> Result<(), Fault> {
        if !self.spool.is_empty() {
            let mut first = self.spool.first().await?;
            self.sink.take(&mut first.events).await?;
            self.spool.forget(&first).await?;
        }
        // Otherwise they go behind those on disk.
        if self.spool.is_empty() {
            self.sink.take(&mut self.held).await?;
        }
        Ok(())
    }

    fn went_well(&mut self) {
        if self.pause > PAUSE && self.spool.is_empty() {
            info!("events are taken again");
            self.pause = PAUSE;
        }
    }

    fn went_wrong(&mut self, fault: &Fault) {
        if self.pause == PAUSE {
            warn!("events wait: {fault}");
        }
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

impl Sink {
    /// Takes events; those that are left are not taken yet.
    async fn take(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        match self {
            Self::Store(agent) => agent.write(events).await,
            Self::Stream(stream) => stream.add(events).await,
        }
    }
}

/// Answers those who asked whether all is written; they may be gone.
fn answer(settled: Vec<oneshot::Sender<()>>) {
    for done in settled {
        let _gone = done.send(());
    }
}
