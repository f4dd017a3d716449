//! Redis, as keys are kept in it: one hash, a number that grows with each change, and the number of
//! this form.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::auth::Secret;
use crate::fault::Fault;
use crate::limits::KEYS_CALL;

/// Field: the application's identifier. Value: see `entry`.
const HASH: &str = "strait:keys";
/// Grows with each change.
const VERSION: &str = "strait:keys:version";
/// The form of the hash.
const SCHEMA: &str = "strait:keys:schema";
/// What this version reads and writes.
const KNOWN: u32 = 1;

/// Changes all at once what is in the state that the caller looked at.
const CHANGE: &str = "
    if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return false end
    local last = 4 + 2 * tonumber(ARGV[4])
    for at = 5, last, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
    for at = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[at]) end
    redis.call('SET', KEYS[3], ARGV[3])
    redis.call('SET', KEYS[2], ARGV[2])
    return tonumber(ARGV[2])";

/// Which state of the keys it is: milliseconds since 1970, or one more than before. A master that
/// lost what it had never comes to a state again that nodes know.
pub type Version = u64;

/// A server, or a replica beside this process.
pub struct Redis {
    url: Secret,
    connection: Mutex<Option<MultiplexedConnection>>,
    is_linked: AtomicBool,
}

impl Redis {
    /// The server at `redis://HOST:PORT` or `redis+unix:PATH`. Nothing is opened yet.
    pub fn new(url: Secret) -> Self {
        Self { url, connection: Mutex::default(), is_linked: AtomicBool::new(true) }
    }

    /// Which state it has; none when nothing was ever pushed to it.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`]; [`crate::fault::Class::Internal`]: another version of
    /// Strait wrote it in another form.
    pub async fn version(&self) -> Result<Option<Version>, Fault> {
        let script = redis::pipe().cmd("MGET").arg(&[VERSION, SCHEMA]).cmd("ROLE").to_owned();
        let ((version, schema), role): ((Option<Version>, Option<u32>), redis::Value) =
            self.ask(&script).await?;
        self.is_linked.store(is_linked(&role), Ordering::Relaxed);
        match schema {
            Some(schema) if schema != KNOWN => Err(Fault::internal(format!(
                "the keys in Redis are of form {schema}, this version knows {KNOWN}; bring all \
                 hosts to one version"
            ))),
            _ => Ok(version),
        }
    }

    /// Whether the master of this replica was there when it was asked last.
    pub fn is_linked(&self) -> bool {
        self.is_linked.load(Ordering::Relaxed)
    }

    /// All applications.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn all(&self) -> Result<HashMap<String, String>, Fault> {
        let (all,): (HashMap<String, String>,) =
            self.ask(redis::pipe().cmd("HGETALL").arg(HASH)).await?;
        Ok(all)
    }

    /// Brings it from the state `from` to `to`, all at once; none where it is in another state by
    /// now, and stays so.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn change(
        &self,
        (from, to): (Option<Version>, Version),
        set: &[(&String, &String)],
        gone: &[&String],
    ) -> Result<Option<Version>, Fault> {
        let mut pipe = redis::pipe();
        let from = from.map(|version| version.to_string()).unwrap_or_default();
        let script = pipe.cmd("EVAL").arg(CHANGE).arg(3).arg(&[HASH, VERSION, SCHEMA]);
        script.arg(from).arg(to).arg(KNOWN).arg(set.len());
        for (id, text) in set {
            script.arg(id).arg(text);
        }
        for id in gone {
            script.arg(id);
        }
        let (version,): (Option<Version>,) = self.ask(&pipe).await?;
        Ok(version)
    }

    /// What it means that nothing is there.
    pub fn empty(&self) -> Fault {
        Fault::unavailable(
            "the Redis beside this node has no keys: it is new and waits for its master, or \
             nobody pushes to that (keys.master)",
        )
    }

    async fn ask<T: FromRedisValue + Send>(&self, pipe: &redis::Pipeline) -> Result<T, Fault> {
        let asked = async {
            // Held for the time of a call: one asks at a time, and that is one task.
            let mut kept = self.connection.lock().await;
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let answer: RedisResult<T> = pipe.query_async(&mut connection).await;
            if answer.is_ok() {
                *kept = Some(connection);
            }
            answer
        };
        let failed = |what: String| Fault::unavailable(format!("the Redis of the keys {what}"));
        match timeout(KEYS_CALL, asked).await {
            Ok(answer) => answer.map_err(|error| failed(format!("failed: {error}"))),
            Err(_) => Err(failed("does not answer".into())),
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let client = redis::Client::open(self.url.expose())?;
        client.get_multiplexed_async_connection().await
    }
}

/// Of a replica: whether its master is there. A master itself always is.
fn is_linked(role: &redis::Value) -> bool {
    let redis::Value::Array(role) = role else { return true };
    let text = |index: usize| match role.get(index) {
        Some(redis::Value::BulkString(text)) => text.as_slice(),
        _ => b"",
    };
    text(0) != b"slave" || text(3) == b"connected"
}
