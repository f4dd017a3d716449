//! The stream of events in Redis: nodes add to it, agents take from it together (a consumer group).
//!
//! An entry has the version of its form (`v`) and the event as JSON (`e`). It is in the stream until
//! the store has it, so the length of the stream is what waits. Nothing is ever cut off for room:
//! nodes add nothing to a stream that is full, and keep their events themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::aio::MultiplexedConnection;
use redis::streams::StreamId;
use redis::{AsyncConnectionConfig, Client, InfoDict, RedisResult};
use tokio::time::timeout;

use super::{Counters, Event};
use crate::cluster::redis::Address;
use crate::fault::Fault;
use crate::limits;

/// The stream.
pub const STREAM: &str = "strait:events";
/// What no agent understood: for a newer one.
pub const ASIDE: &str = "strait:events:aside";
/// The agents.
pub const GROUP: &str = "agents";
/// The form that this version writes, and the last one that it reads.
pub const VERSION: u32 = 1;

/// The writing end.
pub struct Stream {
    address: Address,
    connection: Option<Connection>,
    counters: Arc<Counters>,
}

struct Connection {
    redis: MultiplexedConnection,
    has_replica: bool,
    is_full: bool,
}

impl Stream {
    /// Nothing is connected yet.
    pub fn new(address: Address, counters: Arc<Counters>) -> Self {
        Self { address, connection: None, counters }
    }

    /// Adds events; those that are left may be there, and are to be added again.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn add(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        while !events.is_empty() {
            let count = events.len().min(limits::EVENTS_ADDED_AT_ONCE);
            let outcome = match timeout(limits::EVENTS_CALL, self.attempt(events, count)).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("it does not answer".into()),
            };
            match outcome {
                Ok(true) => drop(events.drain(..count)),
                Ok(false) => {
                    return Err(Fault::unavailable(format!(
                        "the stream of events at {} holds {} and more, all it may: does an agent \
                         run (cluster.roles), and does its store work?",
                        self.address,
                        limits::EVENTS_STREAM
                    )));
                }
                Err(error) => {
                    self.connection = None;
                    return Err(unavailable(&self.address, &error));
                }
            }
        }
        Ok(())
    }

    /// Adds the first of them. False: there is no room.
    async fn attempt(&mut self, events: &[Event], count: usize) -> RedisResult<bool> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Connection::open(&self.address).await?),
        };
        let redis = &mut connection.redis;
        if connection.is_full {
            let length: u64 = redis::cmd("XLEN").arg(STREAM).query_async(redis).await?;
            self.counters.stream_events.store(length, Ordering::Relaxed);
            connection.is_full = length >= limits::EVENTS_STREAM;
            if connection.is_full {
                return Ok(false);
            }
        }
        let mut pipe = redis::pipe();
        for event in events.iter().take(count) {
            // Names of fields and numbers: there is nothing that JSON could not say.
            let text = serde_json::to_string(event).unwrap_or_default();
            let add = pipe.cmd("XADD").arg(STREAM).arg("*").arg("v").arg(VERSION);
            add.arg("e").arg(text).ignore();
        }
        pipe.cmd("XLEN").arg(STREAM);
        // What a master has that dies is lost unless its replica has it too.
        pipe.cmd("WAIT").arg(u8::from(connection.has_replica));
        pipe.arg(limits::REDIS_WAIT.as_millis() as u64);
        let (length, replicas): (u64, usize) = pipe.query_async(redis).await?;
        if connection.has_replica && replicas == 0 {
            return Err((redis::ErrorKind::Client, "its replica does not confirm").into());
        }
        self.counters.stream_events.store(length, Ordering::Relaxed);
        connection.is_full = length >= limits::EVENTS_STREAM;
        Ok(true)
    }
}

impl Connection {
    async fn open(address: &Address) -> RedisResult<Self> {
        let mut redis = open(address).await?;
        let info: InfoDict = redis::cmd("INFO").arg("replication").query_async(&mut redis).await?;
        let has_replica = info.get::<u32>("connected_slaves").unwrap_or_default() > 0;
        // It is looked at first: what an answer was missing of may be there already.
        Ok(Self { redis, has_replica, is_full: true })
    }
}

/// Opens a connection.
pub async fn open(address: &Address) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limits::REDIS_CONNECT))
        .set_response_timeout(Some(limits::EVENTS_CALL));
    let client = Client::open(address.server().await?)?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// The event of an entry.
///
/// # Errors
/// Why it is not understood.
pub fn read(entry: &StreamId) -> Result<Event, String> {
    let version: Option<u32> = entry.get("v");
    match version {
        Some(VERSION) => {}
        Some(version) => {
            return Err(format!(
                "it is of version {version}, and this agent knows {VERSION}: bring the agents to \
                 the version of the nodes"
            ));
        }
        None => return Err("it has no version: something else writes to this stream".into()),
    }
    let text: String = entry.get("e").unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| format!("it is not understood: {error}"))
}

/// What it means that the Redis of the events fails.
pub fn unavailable(address: &Address, error: &dyn std::fmt::Display) -> Fault {
    Fault::unavailable(format!(
        "the Redis of the events ({address}) does not do its work: {error}; is it there, a \
         master, and has it room?"
    ))
}
