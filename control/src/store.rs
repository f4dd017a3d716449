//! What outlives the process: applications and the session log, in SQLite.

mod applications;
mod sessions;

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{SqlSafeStr, SqlitePool};

pub use applications::Applications;
pub use sessions::{SessionRow, Sessions, Stay};

use crate::fault::Fault;
use crate::limits;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
    sessions: Sessions,
}

impl Store {
    /// Opens the store at `url` (`sqlite:PATH`), makes file and directory when absent, and brings
    /// its tables up to date.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`] with the path and the cause.
    pub async fn open(url: &str) -> Result<Self, Fault> {
        let fail = |cause: &dyn std::fmt::Display| {
            Fault::internal(format!(
                "the store {url} cannot be opened: {cause}; check the path, its permissions and \
                 the free space"
            ))
        };
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| fail(&error))?
            .create_if_missing(true)
            .foreign_keys(true)
            // A key that was removed is overwritten.
            .pragma("secure_delete", "ON")
            .journal_mode(SqliteJournalMode::Wal);
        let folder = options.get_filename().parent().map(Path::to_path_buf).unwrap_or_default();
        if !folder.as_os_str().is_empty() {
            std::fs::create_dir_all(&folder).map_err(|error| fail(&error))?;
        }
        // The applications' secrets are in it: nobody else may read it. SQLite gives its journals
        // the same permissions. `file:` is how a database in memory is called.
        if !options.get_filename().to_string_lossy().starts_with("file:") {
            let mut file = std::fs::OpenOptions::new();
            file.append(true).create(true).mode(0o600);
            file.open(options.get_filename()).map_err(|error| fail(&error))?;
        }
        let turn = turn(&folder).await;
        let store = Self::prepare(options).await.map_err(|error| fail(&error));
        drop(turn);
        store
    }

    /// A pool opens several connections at once. The first one of a new store is alone: it makes the
    /// write-ahead log and the tables, and stays until another is there, as the last one takes the log
    /// with it.
    async fn prepare(options: SqliteConnectOptions) -> Result<Self, Fault> {
        let first = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone());
        let first = first.await.map_err(|error| broken(&error))?;
        migrator().run(&first).await.map_err(|error| broken(&error))?;
        let store = Self::start(options, 4).await;
        first.close().await;
        store
    }

    /// A store that is gone with the process, for tests.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn open_in_memory() -> Result<Self, Fault> {
        // One connection: each would have a database of its own.
        let store = Self::start(SqliteConnectOptions::new().in_memory(true), 1).await?;
        migrator().run(&store.pool).await.map_err(|error| broken(&error))?;
        Ok(store)
    }

    /// Ends all connections: nothing answers from then on.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Whether the store answers.
    pub async fn is_reachable(&self) -> bool {
        sqlx::query("SELECT 1").execute(&self.pool).await.is_ok()
    }

    /// The applications.
    pub fn applications(&self) -> Applications {
        Applications::new(self.pool.clone())
    }

    /// The session log.
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    async fn start(options: SqliteConnectOptions, connections: u32) -> Result<Self, Fault> {
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(|error| broken(&error))?;
        let sessions = Sessions::new(pool.clone());
        Ok(Self { pool, sessions })
    }
}

/// The folder's lock, so that one opens a store in it at a time: neither the change to a write-ahead
/// log nor a step of the tables waits for who does the same at this moment, SQLite refuses it. None
/// where a folder cannot be locked, or when whoever has it does not come to an end.
async fn turn(folder: &Path) -> Option<File> {
    let here = Path::new(".");
    let folder = File::open(if folder.as_os_str().is_empty() { here } else { folder }).ok()?;
    let since = tokio::time::Instant::now();
    loop {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(TryLockError::WouldBlock) if since.elapsed() < limits::STORE_OPEN_TIME => {
                tokio::time::sleep(limits::STORE_OPEN_PAUSE).await;
            }
            Err(_) => return None,
        }
    }
}

/// What brings the tables up to date, step by step. What was released is never changed: sqlx refuses a store that took
/// another step of the same number.
fn migrator() -> Migrator {
    let steps = [
        (1, "initial", include_str!("../migrations/0001_initial.sql")),
        (2, "application keys", include_str!("../migrations/0002_application_keys.sql")),
        (3, "key changes", include_str!("../migrations/0003_key_changes.sql")),
    ];
    let step = |(version, what, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, what.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(steps.into_iter().map(step).collect())
}

/// A store's failure in the middle of work.
fn broken(error: &dyn std::fmt::Display) -> Fault {
    Fault::internal(format!("the store failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn many_open_a_new_store_at_once() {
        for round in 0..6 {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}/control.db", folder.path().display());
            let all: Vec<_> = (0..16)
                .map(|_| {
                    let url = url.clone();
                    tokio::spawn(async move { Store::open(&url).await })
                })
                .collect();
            for (number, store) in all.into_iter().enumerate() {
                let store = store.await.unwrap();
                let store = store.unwrap_or_else(|fault| panic!("{round}, {number}: {fault}"));
                assert!(store.is_reachable().await);
            }
        }
    }
}
