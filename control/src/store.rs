//! What outlives the process: applications and their keys, sessions and what was used, diagnostics; in
//! SQLite, MariaDB or PostgreSQL. Sessions and what was used may be in Cassandra or ScyllaDB instead.
//!
//! `sql` is the one way to speak to the former, `cql` to the latter; every other file is a part of
//! what is kept.

pub mod address;
mod analytics;
mod applications;
mod checks;
mod cql;
mod diagnostics;
pub mod invoices;
mod record;
mod sql;
pub(crate) mod sqlite;
mod standing;
mod sums;

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlitePool};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tracing::{info, warn};

pub use analytics::{Analytics, Session, Step, Wanted as WantedSessions};
pub use applications::Applications;
pub use checks::{Availability, Checks};
pub use cql::{Address as CqlAddress, Cql};
pub use diagnostics::{Diagnostics, Entry, Wanted as WantedEntries};
pub use record::{Records, UNITS, floor};
pub use standing::Reach;
pub use sums::{By, Span, Sums, Usage, month_of};

use crate::fault::{Class, Fault};
use crate::limits;
use invoices::{Invoices, Prices};
use sql::{Engine, On, Pool};
use standing::Standing;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// For what the process itself has to know and to write.
    pool: Pool,
    /// For those who ask from outside: however many they are, `pool` is not theirs.
    reads: Pool,
    /// Where statistics are, if not beside the rest.
    cql: Option<Cql>,
}

impl Store {
    /// Opens the store at `url` (`sqlite:PATH`, `mysql://USER:PASSWORD@HOST/DATABASE`,
    /// `postgres://…` alike) and brings its tables up to date. A file of SQLite and its directory
    /// are made when absent; a database on a server is there already.
    ///
    /// # Errors
    /// [`Class::Internal`], and [`Class::Unavailable`] where no server answers, with the address, less
    /// what may be secret, and the cause.
    pub async fn open(url: &str) -> Result<Self, Fault> {
        let fail = |cause: &dyn std::fmt::Display, remedy: &str| {
            let shown = address::shown(url);
            Fault::internal(format!("the store {shown} cannot be opened: {cause}; {remedy}"))
        };
        let failed = |error: sqlx::Error, remedy: &str| {
            let class = if sql::is_away(&error) { Class::Unavailable } else { Class::Internal };
            Fault { class, ..fail(&cause(error), remedy) }
        };
        // Before sqlx sees it, which logs parameters that it does not know.
        address::check(url).map_err(|why| fail(&"its address is wrong", &why))?;
        let remedy = "check that the server runs, that the database exists, and that its user may \
                      make tables in it";
        match url.split(':').next().unwrap_or_default() {
            "mysql" => Self::open_mysql(url).await.map_err(|error| failed(error, remedy)),
            "postgres" => Self::open_postgres(url).await.map_err(|error| failed(error, remedy)),
            _ => {
                let remedy = "check the path, its permissions and the free space";
                Self::open_sqlite(url).await.map_err(|error| fail(&error, remedy))
            }
        }
    }

    /// As [`Store::open`], for who can do without it for a while: a server that does not answer is
    /// looked for until it does. What is asked of the store meanwhile is refused at once.
    ///
    /// # Errors
    /// As [`Store::open`], less servers that do not answer.
    pub async fn find(url: &str) -> Result<Self, Fault> {
        // Clients of a node that starts again do not wait as long as a pool does.
        let opened = match is_deaf(url).await {
            true => Err(Fault::unavailable(format!(
                "the store {} does not answer; check that its server runs",
                address::shown(url)
            ))),
            false => Self::open(url).await,
        };
        let fault = match opened {
            Err(fault) if fault.class == Class::Unavailable => fault,
            outcome => return outcome,
        };
        warn!("{fault}; what needs it is refused until it answers");
        let engine = match url.starts_with("mysql") {
            true => Engine::MySql,
            false => Engine::Postgres,
        };
        let pool = Pool::to_come(engine);
        let reads = pool.patient_to_come(limits::READ_TIME);
        let standing = Arc::clone(pool.standing());
        tokio::spawn(look_for(url.to_owned(), pool.place(), reads.place(), standing));
        Ok(Self { pool, reads, cql: None })
    }

    async fn open_mysql(url: &str) -> Result<Self, sqlx::Error> {
        let mut to = MySqlConnectOptions::from_str(url)?;
        if let Some(roots) = address::roots(url)? {
            to = to.ssl_ca(roots);
        }
        let options = || MySqlPoolOptions::new().acquire_timeout(limits::STORE_CONNECT);
        let pool = options()
            .max_connections(limits::STORE_CONNECTIONS)
            .after_connect(|connection, _| Box::pin(as_mysql(connection)))
            .connect_with(to.clone())
            .await?;
        migrator(Engine::MySql).run(&pool).await?;
        let reads = options()
            .max_connections(limits::READ_CONNECTIONS)
            .acquire_timeout(limits::READ_WAIT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    as_mysql(&mut *connection).await?;
                    let time = limits::READ_TIME.as_secs();
                    let statement = format!("SET SESSION max_statement_time = {time}");
                    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.map(|_| ())
                })
            })
            .connect_lazy_with(to);
        Ok(Self::of(On::MySql(pool), On::MySql(reads)))
    }

    async fn open_postgres(url: &str) -> Result<Self, sqlx::Error> {
        let mut to = PgConnectOptions::from_str(url)?;
        // What PostgreSQL's own variable names sqlx has taken.
        let is_named = std::env::var_os("PGSSLROOTCERT").is_some();
        if let Some(roots) = address::roots(url)?.filter(|_| !is_named) {
            to = to.ssl_root_cert(roots);
        }
        let options = || PgPoolOptions::new().acquire_timeout(limits::STORE_CONNECT);
        let pool = options();
        let pool = pool.max_connections(limits::STORE_CONNECTIONS).connect_with(to.clone()).await?;
        migrator(Engine::Postgres).run(&pool).await?;
        let reads = options()
            .max_connections(limits::READ_CONNECTIONS)
            .acquire_timeout(limits::READ_WAIT)
            .after_connect(|connection, _| {
                let time = limits::READ_TIME.as_millis();
                let statement = AssertSqlSafe(format!("SET statement_timeout = {time}"));
                Box::pin(
                    async move { sqlx::query(statement).execute(connection).await.map(|_| ()) },
                )
            })
            .connect_lazy_with(to);
        Ok(Self::of(On::Postgres(pool), On::Postgres(reads)))
    }

    fn of(pool: On, reads: On) -> Self {
        let pool = Pool::new(pool);
        let reads = pool.patient(reads, limits::READ_TIME);
        Self { pool, reads, cql: None }
    }

    async fn open_sqlite(url: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(cause)?
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
        let pool = Self::sqlite(options.clone(), 4).await;
        first.close().await;
        let reads = SqlitePoolOptions::new()
            .max_connections(limits::READ_CONNECTIONS)
            .acquire_timeout(limits::READ_WAIT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| Box::pin(end_in_time(connection)))
            .before_acquire(|connection, _| {
                Box::pin(async { end_in_time(connection).await.map(|()| true) })
            })
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self::of(On::Sqlite(pool?), On::Sqlite(reads)))
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
        Ok(Self::of(On::Sqlite(pool.clone()), On::Sqlite(pool)))
    }

    /// The same with its statistics elsewhere.
    #[must_use]
    pub fn with_statistics(self, cql: Cql) -> Self {
        Self { cql: Some(cql), ..self }
    }

    /// Ends all connections: nothing answers from then on.
    pub async fn close(&self) {
        self.pool.close().await;
        self.reads.close().await;
    }

    /// Whether the store answers.
    pub async fn reach(&self) -> Reach {
        // An account without rights may still ask for what is in no table.
        let asked = self.pool.row("SELECT 1 FROM applications WHERE id = ''", &[]);
        let answer = timeout(limits::STORE_CONNECT, asked).await;
        let is_refused = self.pool.standing().refused().0;
        match (answer, is_refused) {
            (Ok(Ok(_)), false) => Reach::Answers,
            (Ok(Ok(_)), true) => Reach::Lacks,
            (Ok(Err(fault)), true) if fault.class != Class::Unavailable => Reach::Refuses,
            // Nothing is asked of one that was not found yet.
            (Ok(Err(_)), true) if self.pool.take().is_none() => Reach::Refuses,
            _ => Reach::Away,
        }
    }

    /// Whether it does what it is asked.
    pub async fn is_reachable(&self) -> bool {
        matches!(self.reach().await, Reach::Answers | Reach::Lacks)
    }

    /// Whether it has room for more: whether something was not written a moment ago as it had none,
    /// and how often that was so.
    pub fn is_full(&self) -> (bool, u64) {
        self.pool.standing().full()
    }

    /// How often it refused this process's account something.
    pub fn refused(&self) -> u64 {
        self.pool.standing().refused().1
    }

    /// How far the clock of the store's server is ahead of this one, in seconds; none where both are
    /// the same, as for a file.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`], [`crate::fault::Class::Unavailable`].
    pub async fn clock_offset(&self) -> Result<Option<f64>, Fault> {
        let statement = match self.reads.engine() {
            Engine::Sqlite => return Ok(None),
            Engine::MySql => "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
            Engine::Postgres => {
                "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
            }
        };
        // The first question may open a connection: how long the second takes is what counts.
        self.reads.row("SELECT 1", &[]).await?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let asked = Instant::now();
        let Some(row) = self.reads.row(statement, &[]).await? else { return Ok(None) };
        let here = since + asked.elapsed() / 2;
        #[allow(clippy::cast_precision_loss)] // a microsecond in 285 years
        let there = row.int(0)? as f64 / 1e6;
        Ok(Some(there - here.as_secs_f64()))
    }

    /// The applications.
    pub fn applications(&self) -> Applications {
        Applications::new(self.pool.clone())
    }

    /// The same for who asks from outside; nothing is changed by it.
    pub fn applications_read(&self) -> Applications {
        Applications::new(self.reads.clone())
    }

    /// Where events are written.
    pub fn records(&self) -> Records {
        Records::new(self.pool.clone(), self.cql.clone())
    }

    /// Sessions that were recorded.
    pub fn analytics(&self) -> Analytics {
        Analytics::new(self.reads.clone(), self.cql.clone())
    }

    /// Usage and quality over time.
    pub fn sums(&self) -> Sums {
        Sums::new(self.reads.clone(), self.cql.clone())
    }

    /// Whether nodes were well.
    pub fn checks(&self) -> Checks {
        Checks::new(self.pool.clone(), self.reads.clone())
    }

    /// What minutes cost.
    pub fn prices(&self) -> Prices {
        Prices::new(self.pool.clone(), self.reads.clone())
    }

    /// What was issued, and what would be.
    pub fn invoices(&self) -> Invoices {
        Invoices::new(self.pool.clone(), self.reads.clone(), self.sums(), self.prices())
    }

    /// What clients posted.
    pub fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(self.pool.clone(), self.reads.clone())
    }

    async fn sqlite(
        options: SqliteConnectOptions,
        connections: u32,
    ) -> Result<SqlitePool, sqlx::Error> {
        sqlite::options()
            .max_connections(connections)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
    }
}

/// Whether nobody takes a connection where the store's server should be.
async fn is_deaf(url: &str) -> bool {
    let place = match url.split(':').next() {
        Some("mysql") => MySqlConnectOptions::from_str(url)
            .ok()
            .map(|to| (to.get_host().to_owned(), to.get_port(), to.get_socket().cloned())),
        Some("postgres") => PgConnectOptions::from_str(url).ok().map(|to| {
            let file = format!(".s.PGSQL.{}", to.get_port());
            let socket = to.get_socket().map(|folder| folder.join(file));
            (to.get_host().to_owned(), to.get_port(), socket)
        }),
        _ => None,
    };
    // What is wrong with the address is said by whoever opens it.
    let Some((host, port, socket)) = place else { return false };
    let attempt = async {
        match socket {
            Some(socket) => UnixStream::connect(socket).await.map(drop),
            None => TcpStream::connect((host, port)).await.map(drop),
        }
    };
    !matches!(timeout(limits::STORE_FIRST_LOOK, attempt).await, Ok(Ok(())))
}

/// Looks for a store's server until it answers, or nobody waits for it any more.
async fn look_for(
    url: String,
    pool: Weak<OnceLock<On>>,
    reads: Weak<OnceLock<On>>,
    standing: Arc<Standing>,
) {
    while pool.strong_count() > 0 {
        tokio::time::sleep(limits::STORE_LOOK).await;
        match Store::open(&url).await {
            Ok(found) => {
                for (place, one) in [(&reads, &found.reads), (&pool, &found.pool)] {
                    if let (Some(place), Some(on)) = (place.upgrade(), one.take()) {
                        // Nobody else puts anything there.
                        let _first = place.set(on);
                    }
                }
                info!("the store {} is found", address::shown(&url));
                return;
            }
            Err(fault) if fault.class == Class::Unavailable => {}
            // It answers now, but not as it should.
            Err(fault) => standing.refuse(&fault.reason),
        }
    }
}

/// Why a store is not to be had. What sqlx says of an address repeats parts of it.
fn cause(error: sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(_) => "its address is wrong: a number or a word that it takes \
                                          as a parameter, or a character that is not written as %XX"
            .into(),
        sqlx::Error::Tls(error) => format!("TLS failed: {error}"),
        sqlx::Error::Io(error) if sql::is_untrusted(&error) => {
            format!(
                "TLS failed: {error}: the server's certificate is for another name, is out of date, \
                 or is signed by a root that is not in the file that ssl-ca (MariaDB) or \
                 sslrootcert (PostgreSQL) names"
            )
        }
        error => error.to_string(),
    }
}

/// What a connection to MariaDB begins with: it locks rows, not the gaps between them, where others
/// want to write.
async fn as_mysql(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
    sqlx::query(level).execute(connection).await.map(|_| ())
}

/// SQLite has no time limit of its own: it is asked every so often whether to go on.
async fn end_in_time(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let end = Instant::now() + limits::READ_TIME;
    let mut handle = connection.lock_handle().await?;
    handle.set_progress_handler(limits::READ_STEPS, move || Instant::now() < end);
    Ok(())
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

/// What brings the tables up to date, step by step. What was released is never changed: sqlx refuses
/// a store that took another step of the same number. Steps after the fourth only add, so that a
/// process of the version before starts beside one that took them: half a cluster may be older.
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
        (5, "check days", include_str!("../migrations/0005_check_days.sql")),
        (6, "invoices", include_str!("../migrations/0006_invoices.sql")),
    ];
    let servers = [
        (3, "application keys", include_str!("../migrations/server_0003_keys.sql")),
        (4, "usage", usage.as_str()),
        (5, "check days", include_str!("../migrations/0005_check_days.sql")),
        (6, "invoices", include_str!("../migrations/0006_invoices.sql")),
    ];
    let steps = if engine == Engine::Sqlite { &sqlite[..] } else { &servers[..] };
    let step = |&(version, what, sql): &(i64, &'static str, &str)| {
        let sql = AssertSqlSafe(engine.translate(sql)).into_sql_str();
        Migration::new(version, what.into(), MigrationType::Simple, sql, false)
    };
    let mut migrator = Migrator::with_migrations(steps.iter().map(step).collect());
    migrator.set_ignore_missing(true);
    migrator
}

/// A store's failure in the middle of work.
fn broken(error: &dyn std::fmt::Display) -> Fault {
    Fault::internal(format!("the store failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_from_outside_leave_room_for_logins() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/control.db", folder.path().display());
        let store = Store::open(&url).await.unwrap();
        store.applications().add("acme", 1).await.unwrap();
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                       SELECT COUNT(*) FROM n";
        let flood: Vec<_> = (0..40)
            .map(|_| {
                let reads = store.reads.clone();
                tokio::spawn(async move { reads.rows(endless, &[]).await.err() })
            })
            .collect();
        let mut asked = 0;
        while !flood.iter().all(tokio::task::JoinHandle::is_finished) {
            let applications = store.applications();
            let found = applications.find("acme");
            let found = tokio::time::timeout(limits::READ_WAIT, found).await;
            assert!(found.expect("logins wait").unwrap().is_some());
            asked += 1;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(asked > 20, "{asked}");
        let mut reasons = Vec::new();
        for task in flood {
            reasons.push(task.await.unwrap().unwrap().reason);
        }
        let busy = reasons.iter().filter(|reason| reason.contains("too many questions")).count();
        let long = reasons.iter().filter(|reason| reason.contains("took longer")).count();
        assert_eq!((busy + long, long), (40, limits::READ_CONNECTIONS as usize), "{reasons:?}");
    }

    #[tokio::test]
    async fn a_store_that_took_a_step_of_a_later_version_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/control.db", folder.path().display());
        let store = Store::open(&url).await.unwrap();
        let later = "INSERT INTO _sqlx_migrations
                     (version, description, success, checksum, execution_time)
                     VALUES (1000, 'of a later version', TRUE, x'00', 0)";
        store.pool.execute(later, &[]).await.unwrap();
        drop(store);
        let store = Store::open(&url).await.unwrap();
        assert!(store.applications().add("acme", 1).await.is_ok());
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/control.db", folder.path().display());
        let store = Store::open(&url).await.unwrap();
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                       SELECT COUNT(*) FROM n";
        let fault = store.reads.rows(endless, &[]).await.err().unwrap();
        assert_eq!(fault.class, crate::fault::Class::Unavailable);
        assert!(fault.reason.contains("longer than 5s"), "{fault}");
        // The connection is fit for the next one, and for reading alone.
        assert_eq!(store.reads.rows("SELECT 1", &[]).await.unwrap().len(), 1);
        assert!(store.reads.execute("DELETE FROM sessions", &[]).await.is_err());
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
