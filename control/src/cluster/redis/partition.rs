//! One partition: the connection to its server, and what is done when that goes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, InfoDict, Pipeline, RedisError, RedisResult, Value};
use tokio::time::timeout;
use tracing::{info, warn};

use super::address::{Address, open};
use crate::fault::Fault;
use crate::limits::{
    DIRECTORY_CALL, LEASE, MAPPINGS, PROMISE, REDIS_CONFIRM_AGE, REDIS_PAUSE, REDIS_WAIT,
    SAID_AGAIN,
};
use crate::rate::Rate;

const SCRIPT: &str = include_str!("partition.lua");
const KEYS: [&str; 7] = [
    "{strait}:schema",
    "{strait}:nodes",
    "{strait}:seen",
    "{strait}:drained",
    "{strait}:mappings",
    "{strait}:fence",
    "{strait}:born",
];

/// One partition.
pub(super) struct Partition {
    number: usize,
    address: Address,
    connection: tokio::sync::Mutex<Option<Connection>>,
    state: Mutex<State>,
    is_up: AtomicBool,
    /// Calls that failed.
    failures: AtomicU64,
    /// How often the log has it that they do: some at once, as there are several things to say.
    said: Rate<()>,
    losses: AtomicU64,
    /// The highest fence that it told of: one that does not know it has an older copy.
    highest: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The server that was connected last, by its random identifier.
    run: Option<String>,
    quiet_until: Option<Instant>,
    failed: Option<Instant>,
    /// A key of somebody else's was in the place of one of its own.
    was_of_another: bool,
    cursor: String,
    /// Since it last did its work, when it was warned of that it does not.
    warned: Option<Instant>,
}

/// A connection to the master, for as long as it works.
#[derive(Clone)]
struct Connection {
    number: u64,
    redis: MultiplexedConnection,
    server: ConnectionInfo,
    sha: String,
    /// Whether a replica follows, and when that was seen.
    replicas: (usize, Instant),
}

impl Partition {
    pub(super) fn new(number: usize, address: Address) -> Self {
        Self {
            number,
            address,
            connection: tokio::sync::Mutex::default(),
            state: Mutex::new(State { cursor: "0".into(), ..State::default() }),
            is_up: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            said: Rate::new(3.0, 1.0 / SAID_AGAIN.as_secs_f64(), 1),
            losses: AtomicU64::new(0),
            highest: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Calls that failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How often what was said may have been lost.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Whether it was away a moment ago: whoever lives may not have said so since.
    pub(super) fn is_quiet(&self) -> bool {
        self.state().quiet_until.is_some_and(|until| Instant::now() < until)
    }

    /// It told of this fence.
    pub(super) fn told(&self, fence: u64) {
        self.highest.fetch_max(fence, Ordering::Relaxed);
    }

    pub(super) fn cursor(&self) -> String {
        self.state().cursor.clone()
    }

    pub(super) fn set_cursor(&self, cursor: &str) {
        cursor.clone_into(&mut self.state().cursor);
    }

    /// One call of the script. `is_kept`: what it wrote, and what it read, has reached the replica
    /// when this returns, where there is one.
    pub(super) async fn call(
        &self,
        call: &str,
        of: &[String],
        is_kept: bool,
    ) -> Result<Vec<String>, Fault> {
        let attempt = timeout(DIRECTORY_CALL, self.attempt(call, of, is_kept)).await;
        let outcome = attempt.unwrap_or_else(|_| {
            // Whoever comes next finds out sooner whether it is there again.
            if let Ok(mut connection) = self.connection.try_lock() {
                *connection = None;
            }
            Err((redis::ErrorKind::Io, "no answer in time").into())
        });
        match outcome {
            Ok(words) if words.first().is_some_and(|word| word == "schema") => {
                let theirs = words.get(1).map_or("none", String::as_str);
                let text = format!(
                    "partition {} of the mappings ({}) is of schema {theirs:?}, and this version \
                     knows \"1\": use the version of the others, or another Redis database",
                    self.number, self.address
                );
                self.fail(&text);
                Err(self.refused("its Redis is of another version of Strait"))
            }
            Ok(words) => {
                self.is_up.store(true, Ordering::Relaxed);
                let mut state = self.state();
                state.warned = None;
                if std::mem::take(&mut state.was_of_another) {
                    self.lose(&mut state);
                }
                Ok(words)
            }
            Err(error) => {
                let is_of_another = is_of_another(&error);
                self.state().was_of_another |= is_of_another;
                let (remedy, why) = match is_of_another {
                    true => (
                        "something else writes to this Redis: give Strait a database of its own",
                        "a key in its Redis is not Strait's",
                    ),
                    false => ("is Redis there, and has it room?", "its Redis is away, or full"),
                };
                let text = format!(
                    "partition {} of the mappings ({}) does not do its work: {error}; {remedy}",
                    self.number, self.address
                );
                self.fail(&text);
                Err(self.refused(why))
            }
        }
    }

    /// What those hear who ask: anybody may, and addresses are in the log.
    fn refused(&self, why: &str) -> Fault {
        Fault::unavailable(format!(
            "partition {} of the mappings does not do its work ({why}; the log of strait-control \
             says more): try again in some seconds",
            self.number
        ))
    }

    async fn attempt(&self, call: &str, of: &[String], is_kept: bool) -> RedisResult<Vec<String>> {
        let mut connection = self.connected().await?;
        let outcome = self.run(&mut connection, call, of, is_kept).await;
        // Another connection finds the same there.
        if outcome.as_ref().is_err_and(|error| !is_of_another(error)) {
            self.drop_connection(connection.number).await;
        }
        outcome
    }

    async fn run(
        &self,
        connection: &mut Connection,
        call: &str,
        of: &[String],
        is_kept: bool,
    ) -> RedisResult<Vec<String>> {
        if is_kept {
            self.look_for_replicas(connection).await?;
        }
        let waits = is_kept && connection.replicas.0 > 0;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("EVALSHA").arg(&connection.sha).arg(KEYS.len()).arg(&KEYS[..]);
        pipeline.arg(LEASE.as_millis() as u64).arg(PROMISE.as_millis() as u64).arg(MAPPINGS);
        pipeline.arg(self.highest.load(Ordering::Relaxed)).arg(call).arg(of);
        if waits {
            pipeline.cmd("WAIT").arg(1).arg(REDIS_WAIT.as_millis() as u64);
            let (words, replicas): (Vec<String>, usize) =
                pipeline.query_async(&mut connection.redis).await?;
            if replicas == 0 {
                return Err(failure("the replica did not confirm what was written"));
            }
            return Ok(words);
        }
        let (words,): (Vec<String>,) = pipeline.query_async(&mut connection.redis).await?;
        Ok(words)
    }

    /// A master without a replica may be one that was deposed and does not know it yet: its
    /// Sentinels know.
    async fn look_for_replicas(&self, connection: &mut Connection) -> RedisResult<()> {
        let (replicas, at) = connection.replicas;
        if at.elapsed() < REDIS_CONFIRM_AGE {
            return Ok(());
        }
        let now = count_replicas(&mut connection.redis).await?;
        if now == 0 && self.address.is_by_sentinel() {
            let server = self.address.server().await?;
            if server.addr() != connection.server.addr() {
                return Err(failure("another server is the master by now"));
            }
        }
        if now == 0 && replicas > 0 {
            warn!("partition {} ({}) has no replica any more", self.number, self.address);
        }
        connection.replicas = (now, Instant::now());
        let mut current = self.connection.lock().await;
        if let Some(current) = current.as_mut().filter(|c| c.number == connection.number) {
            current.replicas = connection.replicas;
        }
        Ok(())
    }

    async fn connected(&self) -> RedisResult<Connection> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        // Those who wait for the same do not all try for themselves.
        if self.state().failed.is_some_and(|at| at.elapsed() < REDIS_PAUSE) {
            return Err(failure("it is away"));
        }
        match self.connect().await {
            Ok(opened) => {
                *connection = Some(opened.clone());
                Ok(opened)
            }
            Err(error) => {
                self.state().failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let server = self.address.server().await?;
        let mut redis = open(server.clone()).await?;
        let info: InfoDict = redis::cmd("INFO").query_async(&mut redis).await?;
        let role: String = info.get("role").unwrap_or_default();
        if role != "master" {
            return Err(failure("it is no master: give the address of one, or Sentinels"));
        }
        let run: String = info.get("run_id").unwrap_or_default();
        let sha = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut redis).await?;
        let replicas = info.get("connected_slaves").unwrap_or_default();
        // Asked of Sentinels a moment ago.
        let replicas = (replicas, Instant::now());
        let mut state = self.state();
        // The first one of this process has lost nothing that it had said.
        if state.run.replace(run).is_some() {
            self.lose(&mut state);
        }
        state.failed = None;
        drop(state);
        self.is_up.store(true, Ordering::Relaxed);
        let number = self.losses();
        info!("partition {} is at {}, with {} replicas", self.number, server.addr(), replicas.0);
        Ok(Connection { number, redis, server, sha, replicas })
    }

    /// What was said may be gone.
    fn lose(&self, state: &mut State) {
        state.quiet_until = Some(Instant::now() + LEASE);
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    async fn drop_connection(&self, number: u64) {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_some_and(|current| current.number == number) {
            *connection = None;
        }
    }

    fn fail(&self, text: &str) {
        self.is_up.store(false, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut state = self.state();
        let is_due = state.warned.is_none_or(|at| now.duration_since(at) >= SAID_AGAIN);
        // What works and fails in turn is no news each time.
        if is_due && self.said.admits((), now) {
            warn!("{text}");
            state.warned = Some(now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a key holds something else: under Strait's names somebody else keeps what is his.
fn is_of_another(error: &RedisError) -> bool {
    // Within a script it is not the error's own code with every Redis.
    error.to_string().contains("WRONGTYPE")
}

fn failure(text: &'static str) -> RedisError {
    (redis::ErrorKind::Client, text).into()
}

async fn count_replicas(redis: &mut MultiplexedConnection) -> RedisResult<usize> {
    let role: Vec<Value> = redis::cmd("ROLE").query_async(redis).await?;
    match role.as_slice() {
        [Value::BulkString(role), _, Value::Array(replicas)] if role == b"master" => {
            Ok(replicas.len())
        }
        _ => Err(failure("it is no master any more")),
    }
}
