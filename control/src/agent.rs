//! Makes accounts of events: writes them to the store, and forgets what is old.

pub mod reader;
pub mod release;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use crate::events::{Counters, Event};
use crate::fault::{Class, Fault};
use crate::limits;
use crate::store::{Records, Store};
use release::Ended;

/// Writes events.
#[derive(Clone)]
pub struct Agent {
    records: Records,
    counters: Arc<Counters>,
    /// Who hears of scopes that ended, where there are other nodes.
    ended: Option<mpsc::Sender<Ended>>,
}

impl Agent {
    /// One that writes to `store`.
    pub fn new(store: &Store, counters: Arc<Counters>) -> Self {
        Self { records: store.records(), counters, ended: None }
    }

    /// Tells of scopes that ended.
    pub fn with_ended(self, ended: mpsc::Sender<Ended>) -> Self {
        Self { ended: Some(ended), ..self }
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
                if let Some(to) = &self.ended {
                    // Whom nobody has room to hear of, CnCs find.
                    events.iter().filter_map(Ended::of).for_each(|one| drop(to.try_send(one)));
                }
                events.clear();
                self.counters.written.fetch_add(count, Ordering::Relaxed);
                return Ok(());
            }
            Err(fault) if is_of_the_store(&fault) => return Err(fault),
            Err(_) => {}
        }
        // One of them is the cause.
        while let Some(event) = events.first() {
            match self.put(std::slice::from_ref(event)).await {
                Ok(()) => {
                    self.counters.written.fetch_add(1, Ordering::Relaxed);
                }
                Err(fault) if is_of_the_store(&fault) => return Err(fault),
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

    /// Adds up what is over, and forgets what is older than `days`, every hour, for as long as the
    /// process lives.
    pub async fn forget(self, days: u32, now: impl Fn() -> i64) {
        loop {
            let now = now();
            if let Err(fault) = self.records.add_up(now).await {
                warn!("hours that are over are added up later: {fault}");
            }
            let before = now - i64::from(days) * 86_400_000;
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

/// Whether the store is why, and not what it was to write.
fn is_of_the_store(fault: &Fault) -> bool {
    matches!(fault.class, Class::Internal | Class::Unavailable)
}
