//! Events that nobody takes for now, on disk: they are told after a restart of this process too.
//!
//! What says who was there is never thrown away for room; minutes of quality are, the oldest first.
//! Of those who are still there the last telling is enough, as it says all that the ones before did.
//! A file that is damaged, or something else, is set aside, so that a new one can be begun.

use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Row as _, SqlitePool};
use tracing::warn;

use super::event::What;
use super::{Counters, Event};
use crate::fault::Fault;
use crate::limits;
use crate::store::sqlite::{self, Writing};

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS spool (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        -- Of who is there: the stay, of which the last telling is kept.
        present TEXT UNIQUE,
        is_quality INTEGER NOT NULL,
        bytes   INTEGER NOT NULL,
        event   TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS spool_quality ON spool (is_quality, number);";

/// Rows of quality that are thrown away at once.
const THROWN_AT_ONCE: i64 = 64;

/// What SQLite may keep beside a file: without it the file is not whole, and with another it is lost.
const COMPANIONS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Events on disk, in order.
pub struct Spool {
    path: PathBuf,
    bytes_max: i64,
    /// Most pages of the file: a disk that is full, for tests.
    pages_max: Option<u32>,
    pool: Option<SqlitePool>,
    count: i64,
    bytes: i64,
    counters: Arc<Counters>,
}

/// Events that come first, and up to where they go.
#[derive(Debug, Default, PartialEq)]
pub struct First {
    /// The events.
    pub events: Vec<Event>,
    last: i64,
}

impl Spool {
    /// In this file, which is made when it is needed.
    pub fn new(path: PathBuf, counters: Arc<Counters>) -> Self {
        let bytes_max = limits::SPOOL_BYTES;
        Self { path, bytes_max, pages_max: None, pool: None, count: 0, bytes: 0, counters }
    }

    /// Looks what an earlier process left.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`]: the file cannot be read. If that is its own fault, it is set
    /// aside.
    pub async fn recover(&mut self) -> Result<(), Fault> {
        if self.path.exists() { self.open().await.map(drop) } else { Ok(()) }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keeps all of these behind those that are there, or none of them.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`]: the disk is full or broken, or nothing can be thrown away
    /// any more.
    pub async fn put(&mut self, events: &[Event]) -> Result<(), Fault> {
        let pool = self.open().await?;
        let outcome = match sqlite::begin(&pool).await {
            Ok(writing) => self.write(writing, events).await,
            Err(error) => Err(error),
        };
        let Some((count, bytes, thrown)) = self.checked(outcome).await? else {
            return Err(Fault::internal(format!(
                "{} holds {} bytes of events, all it may, and none of them is a stream's quality, \
                 which could go: what takes events (events.redis, store.url) is away for too long",
                self.path.display(),
                self.bytes
            )));
        };
        if thrown > 0 {
            let lost = thrown.unsigned_abs();
            self.counters.lost.fetch_add(lost, Ordering::Relaxed);
            self.counters.spool_thrown.fetch_add(lost, Ordering::Relaxed);
        }
        self.set(self.count + count, self.bytes + bytes);
        Ok(())
    }

    /// Those that have waited longest.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn first(&mut self) -> Result<First, Fault> {
        let statement = "SELECT number, event FROM spool ORDER BY number LIMIT ?";
        let pool = self.open().await?;
        let asked = sqlx::query(statement).bind(limits::EVENTS_AT_ONCE as i64).fetch_all(&pool);
        let rows = asked.await;
        let rows = self.checked(rows).await?;
        let mut first = First::default();
        for row in rows {
            first.last = row.try_get(0).map_err(|e| self.failed(&e))?;
            let text = row.try_get::<String, _>(1).map_err(|error| error.to_string());
            match text.and_then(|t| serde_json::from_str(&t).map_err(|error| error.to_string())) {
                Ok(event) => first.events.push(event),
                // A later version of Strait was here, or the disk is damaged.
                Err(error) => {
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                    warn!("an event on disk is not understood, and dropped: {error}");
                }
            }
        }
        Ok(first)
    }

    /// Forgets those that came first.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`]: they come again, which changes nothing.
    pub async fn forget(&mut self, first: &First) -> Result<(), Fault> {
        let pool = self.open().await?;
        let statement = "DELETE FROM spool WHERE number <= ?";
        let done = sqlx::query(statement).bind(first.last).execute(&pool).await;
        self.checked(done).await?;
        let counted = count(&pool).await;
        let (count, bytes) = self.checked(counted).await?;
        self.set(count, bytes);
        if self.is_empty() {
            // The room goes back to the disk. Otherwise it is used again, which does as well.
            let _kept = sqlx::query("VACUUM").execute(&pool).await;
        }
        Ok(())
    }

    /// Writes; none when there is no room. By how much count and bytes changed, and how many were
    /// thrown away.
    async fn write(
        &self,
        mut writing: Writing,
        events: &[Event],
    ) -> sqlx::Result<Option<(i64, i64, i64)>> {
        let (mut count, mut bytes, mut thrown) = (0, 0, 0);
        let mut add = |change: (i64, i64)| (count, bytes) = (count + change.0, bytes + change.1);
        for event in events {
            match &event.what {
                What::Present { stays } => {
                    for stay in stays {
                        let what = What::Present { stays: vec![stay.clone()] };
                        let one = Event { what, ..event.clone() };
                        add(replace(&mut writing, &stay.stay).await?);
                        add(insert(&mut writing, Some(&stay.stay), &one).await?);
                    }
                }
                What::Left { stay } => {
                    add(replace(&mut writing, &stay.stay).await?);
                    add(insert(&mut writing, None, event).await?);
                }
                _ => add(insert(&mut writing, None, event).await?),
            }
        }
        while self.bytes + bytes > self.bytes_max {
            let statement = "DELETE FROM spool WHERE number IN (SELECT number FROM spool \
                             WHERE is_quality = 1 ORDER BY number LIMIT ?) RETURNING bytes";
            let gone = sqlx::query(statement).bind(THROWN_AT_ONCE).fetch_all(&mut *writing).await?;
            if gone.is_empty() {
                return Ok(None);
            }
            for row in gone {
                (count, thrown) = (count - 1, thrown + 1);
                bytes -= row.try_get::<i64, _>(0)?;
            }
        }
        sqlite::commit(writing).await?;
        Ok(Some((count, bytes, thrown)))
    }

    async fn open(&mut self) -> Result<SqlitePool, Fault> {
        if let Some(pool) = &self.pool {
            return Ok(pool.clone());
        }
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| self.failed(&e))?;
        }
        // Names of people are in it.
        let mut file = std::fs::OpenOptions::new();
        file.append(true).create(true).mode(0o600);
        file.open(&self.path).map_err(|e| self.failed(&e))?;
        let mut options = SqliteConnectOptions::new().filename(&self.path);
        if let Some(pages) = self.pages_max {
            options = options.pragma("max_page_count", pages.to_string());
        }
        let opened = begin(options).await;
        let (pool, count, bytes) = self.checked(opened).await?;
        self.set(count, bytes);
        self.pool = Some(pool.clone());
        Ok(pool)
    }

    /// An outcome; a file whose own fault it is that there is none, is set aside.
    async fn checked<T>(&mut self, outcome: sqlx::Result<T>) -> Result<T, Fault> {
        match outcome {
            Ok(value) => Ok(value),
            Err(error) if is_damage(&error) => Err(self.set_aside(&error).await),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Renames the file, so that the next attempt begins a new one.
    async fn set_aside(&mut self, error: &sqlx::Error) -> Fault {
        if let Some(pool) = self.pool.take() {
            pool.close().await;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let aside = with(&self.path, &format!(".broken-{}", since.as_millis()));
        if let Err(cause) = std::fs::rename(&self.path, &aside) {
            return Fault::internal(format!(
                "{} is damaged or no spool ({error}), and cannot be renamed ({cause}): move it away, \
                 and make its folder writable (http.state_dir)",
                self.path.display()
            ));
        }
        for companion in COMPANIONS {
            // There is one only if the process ended in the middle of writing.
            let _absent = std::fs::rename(with(&self.path, companion), with(&aside, companion));
        }
        self.set(0, 0);
        self.counters.spool_broken.fetch_add(1, Ordering::Relaxed);
        forget_broken(&self.path);
        let (aside, path) = (aside.display(), self.path.display());
        let what = format!("{path} is damaged or no spool ({error}), and is called {aside} now");
        warn!(
            "{what}. A new one is begun; events that waited in the old one are not told. To tell \
             what can be read of it: when control_events_spool_events is 0 stop this process, \
             remove {path}, `sqlite3 {aside} .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 {path}`, \
             start it. And look whether the disk is well"
        );
        Fault::internal(what)
    }

    fn set(&mut self, count: i64, bytes: i64) {
        (self.count, self.bytes) = (count, bytes);
        self.counters.spool_events.store(count.unsigned_abs(), Ordering::Relaxed);
        self.counters.spool_bytes.store(bytes.unsigned_abs(), Ordering::Relaxed);
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Fault {
        Fault::internal(format!(
            "events cannot be kept in {}: {error}; is the disk full, or the folder not writable \
             (http.state_dir)?",
            self.path.display()
        ))
    }
}

/// Opens a file, and makes the table in one that is new: how much waits in it.
async fn begin(options: SqliteConnectOptions) -> sqlx::Result<(SqlitePool, i64, i64)> {
    let pool = sqlite::options().max_connections(1).connect_with(options).await?;
    let check = sqlx::query("PRAGMA quick_check(1)").fetch_one(&pool).await?;
    let found: String = check.try_get(0)?;
    if found != "ok" {
        return Err(sqlx::Error::Decode(found.into()));
    }
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let (count, bytes) = count(&pool).await?;
    Ok((pool, count, bytes))
}

/// How many wait, and their bytes.
async fn count(pool: &SqlitePool) -> sqlx::Result<(i64, i64)> {
    let statement = "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM spool";
    let row = sqlx::query(statement).fetch_one(pool).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Whether another file would do: this one holds something else, or cannot be read. A disk that is
/// full, or a folder that cannot be written, is not its fault.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => return true,
        error => error.as_database_error().and_then(|error| error.code()),
    };
    let Some(code) = code.and_then(|code| code.parse::<u32>().ok()) else { return false };
    // SQLITE_ERROR (another table of the name), SQLITE_CORRUPT, SQLITE_NOTADB; SQLITE_IOERR_READ,
    // _SHORT_READ and _CORRUPTFS.
    [1, 11, 26].contains(&(code & 255)) || [266, 522, 8458].contains(&code)
}

/// A path with more at its end.
fn with(path: &Path, more: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(more);
    name.into()
}

/// Of the files that were set aside the newest stay.
fn forget_broken(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
    let Ok(there) = std::fs::read_dir(folder) else { return };
    let prefix = format!("{}.broken-", name.to_string_lossy());
    let is_one = |name: &str| name.strip_prefix(&prefix).is_some_and(is_number);
    let mut broken: Vec<String> = there
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_one(name))
        .collect();
    broken.sort();
    let count = broken.len().saturating_sub(limits::SPOOLS_BROKEN);
    for name in broken.into_iter().take(count) {
        for companion in COMPANIONS.into_iter().chain([""]) {
            // What is not there need not be removed.
            let _absent = std::fs::remove_file(with(&folder.join(&name), companion));
        }
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Removes what was told of a stay that is there. By how much count and bytes change.
async fn replace(writing: &mut Writing, stay: &str) -> sqlx::Result<(i64, i64)> {
    let statement = "DELETE FROM spool WHERE present = ? RETURNING bytes";
    let gone = sqlx::query(statement).bind(stay).fetch_optional(&mut **writing).await?;
    Ok(match gone {
        Some(row) => (-1, -row.try_get::<i64, _>(0)?),
        None => (0, 0),
    })
}

async fn insert(
    writing: &mut Writing,
    present: Option<&str>,
    event: &Event,
) -> sqlx::Result<(i64, i64)> {
    let text = serde_json::to_string(event).map_err(|e| sqlx::Error::Encode(e.into()))?;
    let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let is_quality = matches!(event.what, What::Quality { .. });
    sqlx::query("INSERT INTO spool (present, is_quality, bytes, event) VALUES (?, ?, ?, ?)")
        .bind(present)
        .bind(is_quality)
        .bind(bytes)
        .bind(text)
        .execute(&mut **writing)
        .await?;
    Ok((1, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::{Stay, Stream};

    fn event(number: i64, what: What) -> Event {
        Event {
            id: format!("n.{number}"),
            at: number,
            node: "here".into(),
            application: "acme".into(),
            scope: "lobby".into(),
            session: "scope-1".into(),
            created: 0,
            what,
        }
    }

    fn stay(name: &str, until: i64) -> Stay {
        Stay { stay: name.into(), until, ..Stay::default() }
    }

    fn present(number: i64, names: &[&str]) -> Event {
        let stays = names.iter().map(|name| stay(name, number)).collect();
        event(number, What::Present { stays })
    }

    fn quality(minute: i64) -> Event {
        let streams = vec![Stream { stay: "a".into(), ..Stream::default() }];
        event(minute, What::Quality { minute, streams })
    }

    fn spool(folder: &tempfile::TempDir) -> Spool {
        Spool::new(folder.path().join("events.db"), Arc::default())
    }

    async fn all(spool: &mut Spool) -> Vec<i64> {
        spool.first().await.unwrap().events.iter().map(|event| event.at).collect()
    }

    #[tokio::test]
    async fn events_outlive_the_process_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = spool(&folder);
        before.recover().await.unwrap();
        assert!(before.is_empty() && !before.path.exists(), "nothing is made that is not needed");
        before.put(&[event(1, What::SessionCreated), quality(2)]).await.unwrap();
        before.put(&[event(3, What::SessionCreated)]).await.unwrap();
        drop(before);
        let mut after = spool(&folder);
        after.recover().await.unwrap();
        let first = after.first().await.unwrap();
        assert_eq!(all(&mut after).await, [1, 2, 3]);
        after.put(&[event(4, What::SessionDisposed { hold: None })]).await.unwrap();
        after.forget(&first).await.unwrap();
        assert_eq!(all(&mut after).await, [4]);
        assert_eq!(after.counters.spool_events.load(Ordering::Relaxed), 1);
        let first = after.first().await.unwrap();
        after.forget(&first).await.unwrap();
        assert!(after.is_empty());
    }

    #[tokio::test]
    async fn of_who_is_there_the_last_telling_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder);
        for number in 1..=50 {
            spool.put(&[present(number, &["a", "b"])]).await.unwrap();
        }
        spool.put(&[event(51, What::Left { stay: stay("a", 51) })]).await.unwrap();
        assert_eq!(all(&mut spool).await, [50, 51]);
        let bytes = spool.bytes;
        drop(spool.pool.take());
        spool.recover().await.unwrap();
        assert_eq!((spool.count, spool.bytes), (2, bytes), "counted as it is");
    }

    #[tokio::test]
    async fn for_room_the_oldest_quality_goes_and_never_who_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder);
        spool.bytes_max = 64 << 10;
        spool.put(&[present(0, &["a"])]).await.unwrap();
        for minute in 1..=1_000 {
            spool.put(&[quality(minute)]).await.unwrap();
        }
        let kept = all(&mut spool).await;
        assert_eq!((kept[0], kept.last()), (0, Some(&1_000)), "the newest are there");
        assert!(kept.len() > 50 && spool.bytes <= spool.bytes_max, "{}", kept.len());
        let thrown = spool.counters.spool_thrown.load(Ordering::Relaxed);
        assert_eq!(thrown + kept.len() as u64, 1_001);
        let mut number = 2_000;
        let fault = loop {
            number += 1;
            if let Err(fault) = spool.put(&[event(number, What::SessionCreated)]).await {
                break fault;
            }
        };
        assert!(fault.reason.contains("all it may"), "{fault}");
        let kept = all(&mut spool).await;
        assert_eq!((kept[0], kept.last()), (0, Some(&(number - 1))));
    }

    #[tokio::test]
    async fn a_full_disk_is_said_and_harms_nothing_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder);
        spool.pages_max = Some(12);
        let mut number = 0;
        let fault = loop {
            number += 1;
            if let Err(fault) = spool.put(&[event(number, What::SessionCreated)]).await {
                break fault;
            }
        };
        assert!(fault.reason.contains("is the disk full"), "{fault}");
        let first = spool.first().await.unwrap();
        assert_eq!(first.events.len() as i64, number - 1);
        spool.forget(&first).await.unwrap();
        spool.put(&[event(number, What::SessionCreated)]).await.unwrap();
    }

    /// Files beside the spool, in their order.
    fn aside(folder: &tempfile::TempDir) -> Vec<String> {
        let names = std::fs::read_dir(folder.path()).unwrap().flatten();
        let mut names: Vec<_> =
            names.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "events.db");
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder);
        let noise = "no database, and longer than a page's head ".repeat(99);
        for round in 1..=limits::SPOOLS_BROKEN + 2 {
            std::fs::write(&spool.path, format!("{round} {noise}")).unwrap();
            std::fs::write(with(&spool.path, "-shm"), "of that").unwrap();
            let fault = spool.recover().await.unwrap_err();
            let name = aside(&folder).into_iter().rfind(|name| !name.ends_with("-shm")).unwrap();
            assert!(fault.reason.contains(&name), "{fault}");
            assert_eq!(spool.counters.spool_broken.load(Ordering::Relaxed), round as u64);
            let kept = std::fs::read_to_string(folder.path().join(&name)).unwrap();
            assert_eq!(kept, format!("{round} {noise}"), "as it was");
            // It goes on with a new one, under the same name.
            spool.recover().await.unwrap();
            spool.put(&[event(1, What::SessionCreated)]).await.unwrap();
            assert_eq!(all(&mut spool).await, [1]);
            spool.pool.take().unwrap().close().await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let kept = aside(&folder);
        assert_eq!(
            kept.len(),
            2 * limits::SPOOLS_BROKEN,
            "the newest, and what belongs to them: {kept:?}"
        );
    }

    #[tokio::test]
    async fn a_table_of_another_form_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder);
        let options = SqliteConnectOptions::new().filename(&spool.path).create_if_missing(true);
        let other = SqlitePool::connect_with(options).await.unwrap();
        sqlx::raw_sql("CREATE TABLE spool (a TEXT)").execute(&other).await.unwrap();
        other.close().await;
        spool.recover().await.unwrap_err();
        spool.put(&[event(1, What::SessionCreated)]).await.unwrap();
        assert_eq!((all(&mut spool).await, aside(&folder).len()), (vec![1], 1));
    }

    /// A page is torn while the process runs, or before it starts.
    #[tokio::test]
    async fn a_torn_page_is_found_and_the_file_set_aside() {
        for is_running in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = spool(&folder);
            for number in 1..=400 {
                spool.put(&[event(number, What::SessionCreated)]).await.unwrap();
            }
            if !is_running {
                spool.pool.take().unwrap().close().await;
            }
            let mut bytes = std::fs::read(&spool.path).unwrap();
            let pages = bytes.len() / 4096;
            assert!(pages > 10, "{pages}");
            for page in 2..pages {
                bytes[page * 4096 + 100..(page + 1) * 4096].fill(0x5a);
                bytes[page * 4096..page * 4096 + 8].fill(0xff);
            }
            std::fs::write(&spool.path, bytes).unwrap();
            if is_running {
                // As another process would, so that nothing is remembered of the file.
                let pool = spool.pool.clone().unwrap();
                sqlx::query("PRAGMA shrink_memory").execute(&pool).await.unwrap();
                assert!(spool.first().await.is_err());
            } else {
                spool.recover().await.unwrap_err();
            }
            assert!(spool.is_empty(), "it is not asked for what it cannot give");
            spool.put(&[event(1_000, What::SessionCreated)]).await.unwrap();
            assert_eq!((all(&mut spool).await, aside(&folder).len()), (vec![1_000], 1));
        }
    }
}
