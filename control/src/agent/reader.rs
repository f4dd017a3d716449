//! Takes events from the stream in Redis, together with the other agents: each at least once, and
//! gone from it when the store has it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamRangeReply, StreamReadReply};
use redis::{RedisError, RedisResult};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Agent;
use crate::cluster::redis::Address;
use crate::events::Event;
use crate::events::stream::{ASIDE, GROUP, STREAM, open, read, unavailable};
use crate::limits;
use crate::rate::Rate;

/// First pause after Redis or the store failed; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The reading end of one agent.
pub struct Reader {
    address: Address,
    /// Of this process alone.
    name: String,
    agent: Agent,
    /// Whether was looked at what former agents did not understand.
    is_caught_up: bool,
    claimed: Option<Instant>,
}

impl Reader {
    /// Nothing is connected yet. `name` is no other process's.
    pub fn new(address: Address, name: &str, agent: Agent) -> Self {
        Self { address, name: name.to_owned(), agent, is_caught_up: false, claimed: None }
    }

    /// Reads for as long as this process lives.
    pub async fn run(mut self) {
        let mut pause = PAUSE;
        let said = Rate::new(1.0, 1.0 / limits::SAID_AGAIN.as_secs_f64(), 1);
        loop {
            let Err(error) = self.follow(&mut pause).await;
            self.agent.counters.read_failures.fetch_add(1, Ordering::Relaxed);
            if said.admits((), Instant::now().into_std()) {
                warn!("no events are read: {}", unavailable(&self.address, &error));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Reads until something fails.
    async fn follow(
        &mut self,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, RedisError> {
        let mut redis = open(&self.address).await?;
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(STREAM).arg(GROUP).arg(0).arg("MKSTREAM");
        match create.query_async::<()>(&mut redis).await {
            Err(error) if error.code() != Some("BUSYGROUP") => return Err(error),
            _ => {}
        }
        if !self.is_caught_up {
            self.catch_up(&mut redis).await?;
            self.is_caught_up = true;
        }
        loop {
            if self.claimed.is_none_or(|at| at.elapsed() >= limits::EVENTS_CLAIM_PERIOD) {
                self.claim(&mut redis).await?;
                self.claimed = Some(Instant::now());
            }
            let mut next = redis::cmd("XREADGROUP");
            next.arg("GROUP").arg(GROUP).arg(&self.name).arg("COUNT");
            next.arg(limits::EVENTS_READ_AT_ONCE).arg("BLOCK");
            next.arg(limits::EVENTS_BLOCK.as_millis() as u64).arg("STREAMS").arg(STREAM).arg(">");
            let told: Option<StreamReadReply> = next.query_async(&mut redis).await?;
            for key in told.into_iter().flat_map(|told| told.keys) {
                self.take(&mut redis, key.ids).await?;
            }
            if *pause > PAUSE {
                info!("events are read again");
                *pause = PAUSE;
            }
        }
    }

    /// Takes over what agents were given that are gone, and forgets these.
    async fn claim(&self, redis: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut from = "0-0".to_owned();
        loop {
            let mut claim = redis::cmd("XAUTOCLAIM");
            claim.arg(STREAM).arg(GROUP).arg(&self.name);
            claim.arg(limits::EVENTS_ABANDONED.as_millis() as u64).arg(&from);
            claim.arg("COUNT").arg(limits::EVENTS_READ_AT_ONCE);
            let told: StreamAutoClaimReply = claim.query_async(redis).await?;
            self.take(redis, told.claimed).await?;
            if told.next_stream_id == "0-0" {
                break;
            }
            from = told.next_stream_id;
        }
        forget_gone(redis, &self.name, limits::EVENTS_AGENT_GONE).await
    }

    /// Looks again at what an agent before this one did not understand.
    async fn catch_up(&self, redis: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut from = "-".to_owned();
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(ASIDE).arg(&from).arg("+").arg("COUNT").arg(limits::EVENTS_READ_AT_ONCE);
            let told: StreamRangeReply = range.query_async(redis).await?;
            let Some(last) = told.ids.last() else { return Ok(()) };
            from = format!("({}", last.id);
            let (ids, mut events): (Vec<&str>, Vec<Event>) = told
                .ids
                .iter()
                .filter_map(|entry| Some((entry.id.as_str(), read(entry).ok()?)))
                .unzip();
            if !ids.is_empty() {
                self.write(&mut events).await;
                redis::cmd("XDEL").arg(ASIDE).arg(ids).query_async::<()>(redis).await?;
            }
        }
    }

    /// Writes what entries say to the store, then takes them from the stream.
    async fn take(
        &self,
        redis: &mut MultiplexedConnection,
        entries: Vec<StreamId>,
    ) -> RedisResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut put_aside = redis::pipe();
        let (mut events, mut lacking) = (Vec::new(), Vec::new());
        for entry in &entries {
            match read(entry) {
                Ok(event) => events.push(event),
                Err(why) => {
                    lacking.push((&entry.id, why));
                    let aside = put_aside.cmd("XADD").arg(ASIDE).arg("MAXLEN").arg("~");
                    aside.arg(limits::EVENTS_ASIDE).arg("*");
                    for (field, value) in &entry.map {
                        aside.arg(field).arg(value_of(value));
                    }
                    if entry.map.is_empty() {
                        aside.arg("v").arg("");
                    }
                    aside.ignore();
                }
            }
        }
        self.write(&mut events).await;
        // First, as Redis carries out the rest of a transaction where a part of it fails: better twice
        // than not at all.
        if !put_aside.is_empty() {
            put_aside.query_async::<()>(redis).await?;
        }
        for (entry, why) in lacking {
            warn!(entry, "an event is put aside: {why}");
            self.agent.counters.aside.fetch_add(1, Ordering::Relaxed);
        }
        let mut done = redis::pipe();
        done.atomic();
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        done.cmd("XACK").arg(STREAM).arg(GROUP).arg(&ids).ignore();
        done.cmd("XDEL").arg(STREAM).arg(&ids).ignore();
        done.cmd("XLEN").arg(STREAM);
        let (length,): (u64,) = done.query_async(redis).await?;
        self.agent.counters.stream_events.store(length, Ordering::Relaxed);
        Ok(())
    }

    /// As often as it takes: others take over what this agent has if it dies meanwhile.
    async fn write(&self, events: &mut Vec<Event>) {
        let mut pause = PAUSE;
        while let Err(fault) = self.agent.write(events).await {
            if pause == PAUSE {
                warn!("events wait in Redis: {fault}");
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Forgets all agents but `own` that were not heard of for so long and have nothing any more. In one piece:
/// what one of them is given meanwhile would go with it.
///
/// # Errors
/// Redis fails.
pub async fn forget_gone(
    redis: &mut MultiplexedConnection,
    own: &str,
    gone: Duration,
) -> RedisResult<()> {
    const FORGET: &str = "
        for _, told in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
            local agent = {}
            for at = 1, #told, 2 do agent[told[at]] = told[at + 1] end
            if agent.pending == 0 and agent.idle >= tonumber(ARGV[3]) and agent.name ~= ARGV[2] then
                redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], agent.name)
            end
        end";
    let mut script = redis::cmd("EVAL");
    script.arg(FORGET).arg(1).arg(STREAM).arg(GROUP).arg(own).arg(gone.as_millis() as u64);
    script.query_async(redis).await
}

fn value_of(value: &redis::Value) -> &[u8] {
    match value {
        redis::Value::BulkString(bytes) => bytes,
        _ => b"",
    }
}
