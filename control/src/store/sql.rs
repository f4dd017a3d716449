//! One way to speak to three engines: SQLite, MariaDB (not MySQL, which lacks the collation of the
//! tables), PostgreSQL.
//!
//! Statements are written once. `?` is an argument; words in braces stand for what the engines call
//! differently, all of them in [`Engine::word`].

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use sqlx::mysql::{MySqlPool, MySqlRow};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, MySql, Postgres, Row as _, Transaction};
use tokio::time::{Instant, timeout};

use super::standing::Standing;
use super::{broken, sqlite};
use crate::fault::Fault;
use crate::limits::READ_GRACE;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file of this machine.
    Sqlite,
    /// MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
}

impl Engine {
    /// What a word in braces stands for. None: the statement's own mistake, which tests find.
    fn word(self, word: &str) -> Option<Cow<'static, str>> {
        let of = |sqlite: &'static str, mysql: &'static str, postgres: &'static str| match self {
            Self::Sqlite => sqlite,
            Self::MySql => mysql,
            Self::Postgres => postgres,
        };
        let (name, of_what) = word.split_once(':').unwrap_or((word, ""));
        Some(match name {
            // The type to cast a sum to, which is a decimal otherwise.
            "int" => of("INTEGER", "SIGNED", "BIGINT").into(),
            // A text without a length.
            "long" => of("TEXT", "MEDIUMTEXT", "TEXT").into(),
            // Texts are compared byte by byte, as identifiers have to be.
            "options" => {
                of("", " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin", "")
                    .into()
            }
            // Rows that are there already stay as they are.
            "insert" => of("INSERT INTO", "INSERT IGNORE INTO", "INSERT INTO").into(),
            "unless there" => of("ON CONFLICT DO NOTHING", "", "ON CONFLICT DO NOTHING").into(),
            // What follows is done with a row that is there already.
            "if there" => match self {
                Self::MySql => "ON DUPLICATE KEY UPDATE".into(),
                _ => format!("ON CONFLICT ({of_what}) DO UPDATE SET").into(),
            },
            // The value that would have been written.
            "new" => match self {
                Self::MySql => format!("VALUES({of_what})").into(),
                _ => format!("excluded.{of_what}").into(),
            },
            // Rows read are ours until the transaction ends. SQLite has one writer at a time anyway.
            "lock" => of("", "FOR UPDATE", "FOR UPDATE").into(),
            _ => return None,
        })
    }

    /// A statement as this engine wants it.
    pub fn translate(self, statement: &str) -> String {
        let mut out = String::with_capacity(statement.len() + 32);
        let (mut rest, mut arguments) = (statement, 0);
        while let Some(at) = rest.find(['?', '{']) {
            let (before, special) = rest.split_at(at);
            out += before;
            let argument = special.strip_prefix('?');
            let word = special.strip_prefix('{').and_then(|text| text.split_once('}'));
            rest = match (argument, word) {
                (Some(after), _) => {
                    arguments += 1;
                    match self {
                        Self::Postgres => out += &format!("${arguments}"),
                        _ => out.push('?'),
                    }
                    after
                }
                (None, Some((word, after))) => {
                    out += &self.word(word).unwrap_or_else(|| format!("{{{word}}}").into());
                    after
                }
                (None, None) => {
                    out += special;
                    ""
                }
            };
        }
        out + rest
    }
}

/// An argument of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text, or null.
    Text(Option<String>),
    /// A number, or null.
    Int(Option<i64>),
    /// A number with a fraction, or null.
    Float(Option<f64>),
}

macro_rules! values_from {
    ($($type:ty => |$value:ident| $made:expr),* $(,)?) => { $(
        impl From<$type> for Value {
            fn from($value: $type) -> Self { $made }
        }
    )* };
}
values_from! {
    &str => |text| Self::Text(Some(text.to_owned())),
    String => |text| Self::Text(Some(text)),
    &String => |text| Self::Text(Some(text.clone())),
    Option<String> => |text| Self::Text(text),
    i64 => |number| Self::Int(Some(number)),
    Option<i64> => |number| Self::Int(number),
    u64 => |number| Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX))),
    u32 => |number| Self::Int(Some(number.into())),
    usize => |number| Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX))),
    bool => |is_so| Self::Int(Some(is_so.into())),
    f64 => |number| Self::Float(Some(number)),
    Option<f64> => |number| Self::Float(number),
}

/// Arguments of different types.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::store::sql::Value::from($value)),*] };
}
pub(crate) use values;

/// A row of an answer; columns count from 0.
pub enum Row {
    /// Of SQLite.
    Sqlite(SqliteRow),
    /// Of MariaDB.
    MySql(MySqlRow),
    /// Of PostgreSQL.
    Postgres(PgRow),
}

macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident $type:ty),* $(,)?) => { $(
        $(#[$doc])*
        ///
        /// # Errors
        /// The column has another type, or is not there.
        pub fn $name(&self, column: usize) -> Result<$type, Fault> {
            let value = match self {
                Self::Sqlite(row) => row.try_get(column),
                Self::MySql(row) => row.try_get(column),
                Self::Postgres(row) => row.try_get(column),
            };
            value.map_err(|error| broken(&error))
        }
    )* };
}

impl Row {
    columns! {
        /// A text.
        text String,
        /// A text, or null.
        text_maybe Option<String>,
        /// A number.
        int i64,
        /// A number, or null.
        int_maybe Option<i64>,
        /// A number with a fraction.
        float f64,
        /// A number with a fraction, or null.
        float_maybe Option<f64>,
    }

    /// A yes or no, which is a number in every engine.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn is(&self, column: usize) -> Result<bool, Fault> {
        Ok(self.int(column)? != 0)
    }
}

/// A pool of connections. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    engine: Engine,
    /// None while the server has not been found.
    on: Arc<OnceLock<On>>,
    /// How long a question may take, for those who ask on behalf of strangers.
    patience: Option<Duration>,
    standing: Arc<Standing>,
}

/// Of which engine.
#[derive(Clone, Debug)]
pub enum On {
    /// Of SQLite.
    Sqlite(SqlitePool),
    /// Of MariaDB.
    MySql(MySqlPool),
    /// Of PostgreSQL.
    Postgres(PgPool),
}

impl On {
    fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::MySql(_) => Engine::MySql,
            Self::Postgres(_) => Engine::Postgres,
        }
    }
}

/// A transaction; what was done is undone unless it is committed.
pub struct Open {
    on: Begun,
    standing: Arc<Standing>,
}

/// Of which engine.
enum Begun {
    /// Of SQLite: it is the only one that writes.
    Sqlite(sqlite::Writing),
    /// Of MariaDB.
    MySql(Transaction<'static, MySql>),
    /// Of PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

/// Statements with more arguments are for many rows, and hardly twice of the same length: each kept
/// by each connection would be hundreds of kilobytes.
const KEPT_VALUES: usize = 24;

/// Binds, carries out, takes the answer.
macro_rules! carry_out {
    ($statement:expr, $values:expr, $method:ident, $on:expr, |$answer:ident| $taken:expr) => {{
        let lasts = $values.len() <= KEPT_VALUES;
        let mut query = sqlx::query(AssertSqlSafe($statement)).persistent(lasts);
        for value in $values {
            query = match value {
                Value::Text(text) => query.bind(text.clone()),
                Value::Int(number) => query.bind(*number),
                Value::Float(number) => query.bind(*number),
            };
        }
        query.$method($on).await.map(|$answer| $taken)
    }};
}

impl Pool {
    /// One that waits for as long as it takes.
    pub fn new(on: On) -> Self {
        let standing = Arc::default();
        Self { engine: on.engine(), on: Arc::new(on.into()), patience: None, standing }
    }

    /// One of the same store, whose questions may take so long.
    pub fn patient(&self, on: On, patience: Duration) -> Self {
        let standing = Arc::clone(&self.standing);
        Self { patience: Some(patience), standing, ..Self::new(on) }
    }

    /// How it stands with the store.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// One whose server is yet to be found: nothing answers before that.
    pub fn to_come(engine: Engine) -> Self {
        Self { engine, on: Arc::default(), patience: None, standing: Arc::default() }
    }

    /// As [`Self::patient`], of a store whose server is yet to be found.
    pub fn patient_to_come(&self, patience: Duration) -> Self {
        let standing = Arc::clone(&self.standing);
        Self { patience: Some(patience), standing, ..Self::to_come(self.engine) }
    }

    /// Where its connections are to be put. It keeps nothing alive.
    pub fn place(&self) -> Weak<OnceLock<On>> {
        Arc::downgrade(&self.on)
    }

    /// Its connections, for another one.
    pub fn take(&self) -> Option<On> {
        self.on.get().cloned()
    }

    /// Which engine it speaks to.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    fn on(&self) -> Result<&On, Fault> {
        self.on.get().ok_or_else(|| away(&"it was not found yet"))
    }

    /// What an answer comes to, within the time that it may take. The engines were told to end what
    /// takes longer; one that does not answer at all is left alone a moment later.
    async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Fault> {
        let Some(patience) = self.patience else {
            return asked.await.map_err(|error| failed(error, &self.standing));
        };
        let since = Instant::now();
        match timeout(patience + READ_GRACE, asked).await {
            // There is no telling which: a pool says the same of both.
            Ok(Err(sqlx::Error::PoolTimedOut)) => Err(Fault::unavailable(
                "the store does not answer, or too many questions are asked of it at a time; ask \
                 again in a moment",
            )),
            Ok(Err(_)) if since.elapsed() >= patience => Err(too_long(patience)),
            Ok(outcome) => outcome.map_err(|error| failed(error, &self.standing)),
            Err(_) => Err(too_long(patience)),
        }
    }

    /// Carries out a statement. Returns how many rows it concerned.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn execute(&self, statement: &str, values: &[Value]) -> Result<u64, Fault> {
        let (on, statement) = (self.on()?, self.engine().translate(statement));
        let asked = async {
            match on {
                On::Sqlite(on) => {
                    carry_out!(statement, values, execute, on, |done| done.rows_affected())
                }
                On::MySql(on) => {
                    carry_out!(statement, values, execute, on, |done| done.rows_affected())
                }
                On::Postgres(on) => {
                    carry_out!(statement, values, execute, on, |done| done.rows_affected())
                }
            }
        };
        self.answer(asked).await
    }

    /// The rows of an answer.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn rows(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let (on, statement) = (self.on()?, self.engine().translate(statement));
        let asked = async {
            match on {
                On::Sqlite(on) => carry_out!(statement, values, fetch_all, on, |rows| rows
                    .into_iter()
                    .map(Row::Sqlite)
                    .collect()),
                On::MySql(on) => carry_out!(statement, values, fetch_all, on, |rows| rows
                    .into_iter()
                    .map(Row::MySql)
                    .collect()),
                On::Postgres(on) => carry_out!(statement, values, fetch_all, on, |rows| rows
                    .into_iter()
                    .map(Row::Postgres)
                    .collect()),
            }
        };
        self.answer(asked).await
    }

    /// The first row of an answer.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn row(&self, statement: &str, values: &[Value]) -> Result<Option<Row>, Fault> {
        Ok(self.rows(statement, values).await?.into_iter().next())
    }

    /// Ends all connections.
    pub async fn close(&self) {
        match self.on.get() {
            Some(On::Sqlite(pool)) => pool.close().await,
            Some(On::MySql(pool)) => pool.close().await,
            Some(On::Postgres(pool)) => pool.close().await,
            None => {}
        }
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn begin(&self) -> Result<Open, Fault> {
        let outcome = match self.on()? {
            On::Sqlite(pool) => sqlite::begin(pool).await.map(Begun::Sqlite),
            On::MySql(pool) => pool.begin().await.map(Begun::MySql),
            On::Postgres(pool) => pool.begin().await.map(Begun::Postgres),
        };
        let standing = Arc::clone(&self.standing);
        outcome.map(|on| Open { on, standing }).map_err(|error| failed(error, &self.standing))
    }
}

impl Open {
    fn engine(&self) -> Engine {
        match self.on {
            Begun::Sqlite(_) => Engine::Sqlite,
            Begun::MySql(_) => Engine::MySql,
            Begun::Postgres(_) => Engine::Postgres,
        }
    }

    /// As [`Pool::execute`], within the transaction.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, Fault> {
        let statement = self.engine().translate(statement);
        let outcome = match &mut self.on {
            Begun::Sqlite(on) => {
                carry_out!(statement, values, execute, &mut **on, |done| done.rows_affected())
            }
            Begun::MySql(on) => {
                carry_out!(statement, values, execute, &mut **on, |done| done.rows_affected())
            }
            Begun::Postgres(on) => {
                carry_out!(statement, values, execute, &mut **on, |done| done.rows_affected())
            }
        };
        outcome.map_err(|error| failed(error, &self.standing))
    }

    /// As [`Pool::rows`], within the transaction.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn rows(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let statement = self.engine().translate(statement);
        let outcome = match &mut self.on {
            Begun::Sqlite(on) => carry_out!(statement, values, fetch_all, &mut **on, |rows| rows
                .into_iter()
                .map(Row::Sqlite)
                .collect()),
            Begun::MySql(on) => carry_out!(statement, values, fetch_all, &mut **on, |rows| rows
                .into_iter()
                .map(Row::MySql)
                .collect()),
            Begun::Postgres(on) => carry_out!(statement, values, fetch_all, &mut **on, |rows| rows
                .into_iter()
                .map(Row::Postgres)
                .collect()),
        };
        outcome.map_err(|error| failed(error, &self.standing))
    }

    /// Makes what was done last.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn commit(self) -> Result<(), Fault> {
        let outcome = match self.on {
            Begun::Sqlite(open) => sqlite::commit(open).await,
            Begun::MySql(open) => open.commit().await,
            Begun::Postgres(open) => open.commit().await,
        };
        outcome.map_err(|error| failed(error, &self.standing))
    }
}

/// Whether the server, not what it was asked, is why.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        sqlx::Error::Io(error) => !is_untrusted(error),
        _ => false,
    }
}

/// Whether TLS was refused, which sqlx tells as it does a lost connection: waiting does not help.
pub fn is_untrusted(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn away(why: &dyn std::fmt::Display) -> Fault {
    Fault::unavailable(format!(
        "the store does not answer ({why}): it is down, or has too much to do; ask again in a moment"
    ))
}

/// A failure of the store, which is looked at by `standing`, or
/// ([`crate::fault::Class::NotAcceptable`]) of what it was given.
fn failed(error: sqlx::Error, standing: &Standing) -> Fault {
    if is_away(&error) {
        return away(&error);
    }
    if let Some(fault) = error.as_database_error().and_then(|error| standing.judge(error)) {
        return fault;
    }
    let code = error.as_database_error().and_then(|error| error.code());
    // SQLSTATE classes 22 and 23 (ISO 9075), and what SQLite has instead.
    let is_data = code.is_some_and(|code| {
        let is_sqlite =
            code.len() < 5 && matches!(code.parse::<u32>(), Ok(n) if [19, 20].contains(&(n & 255)));
        is_sqlite || (code.len() == 5 && (code.starts_with("22") || code.starts_with("23")))
    });
    match is_data {
        true => Fault::not_acceptable(format!("the store cannot hold this: {error}")),
        false => broken(&error),
    }
}

fn too_long(patience: Duration) -> Fault {
    Fault::unavailable(format!(
        "the store took longer than {patience:?} to answer this; ask for less: a shorter time, one \
         application, fewer points"
    ))
}

/// `row` so many times, with commas: the rows of one statement.
pub fn times(row: &str, count: usize) -> String {
    vec![row; count].join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_written_once() {
        let text = "{insert} t (a, b) VALUES (?, ?) {if there:a} b = t.b + {new:b}, \
                    c = CAST(SUM(b) AS {int}) {lock}{options}";
        assert_eq!(
            Engine::Postgres.translate(text),
            "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET \
             b = t.b + excluded.b, c = CAST(SUM(b) AS BIGINT) FOR UPDATE"
        );
        assert!(
            Engine::MySql
                .translate(text)
                .contains("(?, ?) ON DUPLICATE KEY UPDATE b = t.b + VALUES(b)")
        );
        assert!(!Engine::Sqlite.translate(text).contains(['{', '$']));
        assert_eq!(Engine::Sqlite.translate("a {unknown} b {"), "a {unknown} b {");
        assert_eq!(times("(?)", 3), "(?), (?), (?)");
    }
}
