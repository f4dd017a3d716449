//! What outlives the process: applications and the session log, in SQLite.

mod applications;
mod sessions;

use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{SqlSafeStr, SqlitePool};

pub use applications::Applications;
pub use sessions::{SessionRow, Sessions, Stay};

use crate::fault::Fault;

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
        if let Some(folder) = options.get_filename().parent() {
            std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
        }
        // The applications' secrets are in it: nobody else may read it. SQLite gives its journals
        // the same permissions. `file:` is how a database in memory is called.
        if !options.get_filename().to_string_lossy().starts_with("file:") {
            let mut file = std::fs::OpenOptions::new();
            file.append(true).create(true).mode(0o600);
            file.open(options.get_filename()).map_err(|error| fail(&error))?;
        }
        Self::start(options, 4).await.map_err(|error| fail(&error))
    }

    /// A store that is gone with the process, for tests.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn open_in_memory() -> Result<Self, Fault> {
        // One connection: each would have a database of its own.
        Self::start(SqliteConnectOptions::new().in_memory(true), 1).await
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
        migrator().run(&pool).await.map_err(|error| broken(&error))?;
        let sessions = Sessions::new(pool.clone());
        Ok(Self { pool, sessions })
    }
}

/// What brings the tables up to date, step by step. What was released is never changed: sqlx refuses a store that took
/// another step of the same number.
fn migrator() -> Migrator {
    let steps = [
        (1, "initial", include_str!("../migrations/0001_initial.sql")),
        (2, "application keys", include_str!("../migrations/0002_application_keys.sql")),
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
