//! Makes accounts of events: writes them to the store, as often as it takes, and forgets what is old.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use crate::events::{Counters, Event, Note};
use crate::fault::{Class, Fault};
use crate::limits;
use crate::store::{Records, Store};

/// First pause after the store failed; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Writes events.
#[derive(Clone)]
pub struct Agent {
    records: Records,
    counters: Arc<Counters>,
}

impl Agent {
    /// One that writes to `store`.
    pub fn new(store: &Store, counters: Arc<Counters>) -> Self {
        Self { records: store.records(), counters }
    }

    /// Takes the events of this process until there are no more.
    pub async fn run(self, mut waiting: mpsc::Receiver<Note>) {
        let (mut events, mut notes) = (Vec::new(), Vec::new());
        while waiting.recv_many(&mut notes, limits::EVENTS_AT_ONCE).await > 0 {
            let mut settled = Vec::new();
            for note in notes.drain(..) {
                match note {
                    Note::Event(event) => events.push(event),
                    Note::Settle(done) => settled.push(done),
                }
            }
            let mut pause = PAUSE;
            while let Err(fault) = self.write(&mut events).await {
                if pause == PAUSE {
                    warn!("events wait: {fault}");
                }
                self.counters.is_stalled.store(true, Ordering::Relaxed);
                // Nobody waits for a store that does not answer.
                answer(&mut settled);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            self.counters.is_stalled.store(false, Ordering::Relaxed);
            answer(&mut settled);
        }
    }

    /// Writes events, all or none of them; those that the store cannot hold, whatever it is given,
    /// are dropped and counted.
    ///
    /// # Errors
    /// The store fails: try again with what is left.
    pub async fn write(&self, events: &mut Vec<Event>) -> Result<(), Fault> {
        if events.is_empty() {
            return Ok(());
        }
        let count = events.len() as u64;
        match self.put(events).await {
            Ok(()) => {
                events.clear();
                self.counters.written.fetch_add(count, Ordering::Relaxed);
                return Ok(());
            }
            Err(fault) if fault.class == Class::Internal => return Err(fault),
            Err(_) => {}
        }
        // One of them is the cause.
        while let Some(event) = events.first() {
            match self.put(std::slice::from_ref(event)).await {
                Ok(()) => {
                    self.counters.written.fetch_add(1, Ordering::Relaxed);
                }
                Err(fault) if fault.class == Class::Internal => return Err(fault),
                Err(fault) => {
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                    warn!(event = event.id, "an event is dropped: {fault}");
                }
            }
            events.remove(0);
        }
        Ok(())
    }

    /// A server that vanished never answers: what was asked is asked again, which changes nothing
    /// where it was done.
    async fn put(&self, events: &[Event]) -> Result<(), Fault> {
        let written = timeout(limits::RECORDS_CALL, self.records.write(events)).await;
        written.unwrap_or_else(|_| Err(Fault::internal("the store does not answer")))
    }

    /// Forgets what is older than `days`, every hour, for as long as the process lives.
    pub async fn forget(self, days: u32, now: impl Fn() -> i64) {
        loop {
            let before = now() - i64::from(days) * 86_400_000;
            loop {
                let forgotten = timeout(limits::RECORDS_CALL, self.records.forget(before)).await;
                let silent = || Err(Fault::internal("the store does not answer"));
                match forgotten.unwrap_or_else(|_| silent()) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(fault) => {
                        warn!("old records stay for now: {fault}");
                        break;
                    }
                }
            }
            tokio::time::sleep(limits::FORGET_PERIOD).await;
        }
    }
}

/// Answers those who asked whether all is written; they may be gone.
fn answer(settled: &mut Vec<oneshot::Sender<()>>) {
    for done in settled.drain(..) {
        let _gone = done.send(());
    }
}
