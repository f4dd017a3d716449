//! What outlives the process: applications and their keys, sessions and what was used, diagnostics; in
//! SQLite, MariaDB or PostgreSQL.
//!
//! `sql` is the one way to speak to these engines; every other file is a part of what is kept.

mod analytics;
mod applications;
mod diagnostics;
mod record;
mod sql;
mod sums;

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlitePool};

pub use analytics::{Analytics, Session, Wanted as WantedSessions};
pub use applications::Applications;
pub use diagnostics::{Diagnostics, Entry, Wanted as WantedEntries};
pub use record::{Records, UNITS, floor};
pub use sums::{Availability, By, Checks, Span, Sums, Usage, month_of};

use crate::fault::Fault;
use crate::limits;
use sql::{Engine, Pool};

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Opens the store at `url` (`sqlite:PATH`, `mysql://USER:PASSWORD@HOST/DATABASE`,
    /// `postgres://…` alike) and brings its tables up to date. A file of SQLite and its directory
    /// are made when absent; a database on a server is there already.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`] with the address, less its password, and the cause.
    pub async fn open(url: &str) -> Result<Self, Fault> {
        let fail = |cause: &dyn std::fmt::Display, remedy: &str| {
            Fault::internal(format!("the store {} cannot be opened: {cause}; {remedy}", shown(url)))
        };
        let remedy = "check that the server runs, that the database exists, and that its user may \
                      make tables in it";
        match url.split(':').next().unwrap_or_default() {
            "mysql" => Self::open_mysql(url).await.map_err(|error| fail(&error, remedy)),
            "postgres" => Self::open_postgres(url).await.map_err(|error| fail(&error, remedy)),
            _ => {
                let remedy = "check the path, its permissions and the free space";
                Self::open_sqlite(url).await.map_err(|cause| fail(&cause, remedy))
            }
        }
    }

    async fn open_mysql(url: &str) -> Result<Self, sqlx::Error> {
        let pool = MySqlPoolOptions::new()
            .max_connections(limits::STORE_CONNECTIONS)
            .acquire_timeout(limits::STORE_CONNECT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Locks rows, not the gaps between them, where others want to write.
                    let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
                    sqlx::query(level).execute(connection).await.map(|_| ())
                })
            })
            .connect(url)
            .await?;
        migrator(Engine::MySql).run(&pool).await?;
        Ok(Self { pool: Pool::MySql(pool) })
    }

    async fn open_postgres(url: &str) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(limits::STORE_CONNECTIONS)
            .acquire_timeout(limits::STORE_CONNECT)
            .connect(url)
            .await?;
        migrator(Engine::Postgres).run(&pool).await?;
        Ok(Self { pool: Pool::Postgres(pool) })
    }

    async fn open_sqlite(url: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .foreign_keys(true)
            // A key that was removed is overwritten.
            .pragma("secure_delete", "ON")
            .journal_mode(SqliteJournalMode::Wal);
        let folder = options.get_filename().parent().map(Path::to_path_buf).unwrap_or_default();
        if !folder.as_os_str().is_empty() {
            std::fs::create_dir_all(&folder)?;
        }
        // The applications' secrets are in it: nobody else may read it. SQLite gives its journals
        // the same permissions. `file:` is how a database in memory is called.
        if !options.get_filename().to_string_lossy().starts_with("file:") {
            let mut file = std::fs::OpenOptions::new();
            file.append(true).create(true).mode(0o600);
            file.open(options.get_filename())?;
        }
        let turn = turn(&folder).await;
        let store = Self::prepare(options).await;
        drop(turn);
        Ok(store?)
    }

    /// A pool opens several connections at once. The first one of a new store is alone: it makes the
    /// write-ahead log and the tables, and stays until another is there, as the last one takes the log
    /// with it.
    async fn prepare(options: SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let first = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone());
        let first = first.await?;
        migrator(Engine::Sqlite).run(&first).await?;
        let pool = Self::sqlite(options, 4).await;
        first.close().await;
        Ok(Self { pool: Pool::Sqlite(pool?) })
    }

    /// A store that is gone with the process, for tests.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn open_in_memory() -> Result<Self, Fault> {
        // One connection: each would have a database of its own.
        let pool = Self::sqlite(SqliteConnectOptions::new().in_memory(true), 1).await;
        let pool = pool.map_err(|error| broken(&error))?;
        migrator(Engine::Sqlite).run(&pool).await.map_err(|error| broken(&error))?;
        Ok(Self { pool: Pool::Sqlite(pool) })
    }

    /// Ends all connections: nothing answers from then on.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Whether the store answers.
    pub async fn is_reachable(&self) -> bool {
        let asked = self.pool.execute("SELECT 1", &[]);
        tokio::time::timeout(limits::STORE_CONNECT, asked).await.is_ok_and(|answer| answer.is_ok())
    }

    /// The applications.
    pub fn applications(&self) -> Applications {
        Applications::new(self.pool.clone())
    }

    /// Where events are written.
    pub fn records(&self) -> Records {
        Records::new(self.pool.clone())
    }

    /// Sessions that were recorded.
    pub fn analytics(&self) -> Analytics {
        Analytics::new(self.pool.clone())
    }

    /// Usage and quality over time.
    pub fn sums(&self) -> Sums {
        Sums::new(self.pool.clone())
    }

    /// Whether nodes were well.
    pub fn checks(&self) -> Checks {
        Checks::new(self.pool.clone())
    }

    /// What clients posted.
    pub fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(self.pool.clone())
    }

    async fn sqlite(
        options: SqliteConnectOptions,
        connections: u32,
    ) -> Result<SqlitePool, sqlx::Error> {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
    }
}

/// An address without its password.
fn shown(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (user, place) = rest.rsplit_once('@')?;
        Some(format!("{scheme}://{}:…@{place}", user.split(':').next().unwrap_or_default()))
    });
    parts.unwrap_or_else(|| url.to_owned())
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
fn migrator(engine: Engine) -> Migrator {
    let usage = include_str!("../migrations/0004_usage.sql");
    // The log of sessions that SQLite had before holds nothing that could be summed up.
    let usage = match engine {
        Engine::Sqlite => format!("DROP TABLE sessions;\n{usage}"),
        _ => usage.to_owned(),
    };
    let sqlite = [
        (1, "initial", include_str!("../migrations/0001_initial.sql")),
        (2, "application keys", include_str!("../migrations/0002_application_keys.sql")),
        (3, "key changes", include_str!("../migrations/0003_key_changes.sql")),
        (4, "usage", usage.as_str()),
    ];
    let servers = [
        (3, "application keys", include_str!("../migrations/server_0003_keys.sql")),
        (4, "usage", usage.as_str()),
    ];
    let steps = if engine == Engine::Sqlite { &sqlite[..] } else { &servers[..] };
    let step = |&(version, what, sql): &(i64, &'static str, &str)| {
        let sql = AssertSqlSafe(engine.translate(sql)).into_sql_str();
        Migration::new(version, what.into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(steps.iter().map(step).collect())
}

/// A store's failure in the middle of work.
fn broken(error: &dyn std::fmt::Display) -> Fault {
    Fault::internal(format!("the store failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let url = "mysql://strait:p@ss@db.example:3306/strait";
        assert_eq!(shown(url), "mysql://strait:…@db.example:3306/strait");
        assert_eq!(shown("sqlite:a@b.db"), "sqlite:a@b.db");
    }

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
