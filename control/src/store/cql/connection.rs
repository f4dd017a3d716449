//! How Cassandra and ScyllaDB are spoken to: statements are prepared when they are first used, and
//! all of them may be carried out twice.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row as Columns};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::address::Address;
use super::schema;
use crate::fault::Fault;
use crate::limits;
use crate::store::sql::Value;

/// The servers, and how long they keep things. Cheap to clone.
#[derive(Clone)]
pub struct Cql(Arc<Inner>);

struct Inner {
    address: Address,
    keep_seconds: i64,
    /// Made when it is first needed, and again until it is there: the servers may be away.
    session: OnceCell<Session>,
    is_up_to_date: OnceCell<()>,
    prepared: RwLock<HashMap<&'static str, PreparedStatement>>,
}

/// A row of an answer; columns count from 0.
pub struct Row(Vec<Option<CqlValue>>);

impl Row {
    /// A text; empty when there is none.
    ///
    /// # Errors
    /// The column has another type, or is not there.
    pub fn text(&self, column: usize) -> Result<String, Fault> {
        Ok(self.text_maybe(column)?.unwrap_or_default())
    }

    /// A text, or nothing.
    ///
    /// # Errors
    /// As [`Row::text`].
    pub fn text_maybe(&self, column: usize) -> Result<Option<String>, Fault> {
        match self.0.get(column) {
            Some(Some(CqlValue::Text(text))) => Ok(Some(text.clone())),
            Some(None) => Ok(None),
            other => Err(odd(column, other)),
        }
    }

    /// A number; 0 when there is none.
    ///
    /// # Errors
    /// As [`Row::text`].
    pub fn int(&self, column: usize) -> Result<i64, Fault> {
        match self.0.get(column) {
            Some(Some(CqlValue::BigInt(number))) => Ok(*number),
            Some(None) => Ok(0),
            other => Err(odd(column, other)),
        }
    }

    /// A number with a fraction; 0 when there is none.
    ///
    /// # Errors
    /// As [`Row::text`].
    pub fn float(&self, column: usize) -> Result<f64, Fault> {
        match self.0.get(column) {
            Some(Some(CqlValue::Double(number))) => Ok(*number),
            Some(None) => Ok(0.0),
            other => Err(odd(column, other)),
        }
    }
}

fn odd(column: usize, value: Option<&Option<CqlValue>>) -> Fault {
    Fault::unavailable(format!(
        "column {column} of the statistics is {value:?}; somebody changed the tables"
    ))
}

impl Cql {
    /// Statistics at `address`, kept for so many days.
    pub fn new(address: Address, keep_days: u32) -> Self {
        let keep_seconds = (i64::from(keep_days) * 86_400).min(limits::CQL_KEEP_SECONDS);
        Self::keeping(address, keep_seconds)
    }

    /// For tests: kept for so many seconds.
    pub fn keeping(address: Address, keep_seconds: i64) -> Self {
        Self(Arc::new(Inner {
            address,
            keep_seconds,
            session: OnceCell::new(),
            is_up_to_date: OnceCell::new(),
            prepared: RwLock::default(),
        }))
    }

    /// Connects, and brings the tables up to date, where that is not done yet.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`]: no server answers, the keyspace or its tables are not
    /// what they should be.
    pub async fn ready(&self) -> Result<(), Fault> {
        let all = async {
            self.session().await?;
            self.0.is_up_to_date.get_or_try_init(|| schema::update(self)).await?;
            Ok(())
        };
        let done = tokio::time::timeout(limits::CQL_READY, Box::pin(all)).await;
        done.unwrap_or_else(|_| Err(self.away(&"they do not answer")))
    }

    /// Answers a question from outside, in the time that these may take.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn asked<T>(
        &self,
        question: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let answer = async {
            self.ready().await?;
            question.await
        };
        let late = || {
            Fault::unavailable(format!(
                "the statistics took longer than {} s; ask for less, or look at Cassandra or \
                 ScyllaDB (statistics.url)",
                limits::READ_TIME.as_secs()
            ))
        };
        let answer = tokio::time::timeout(limits::READ_TIME, answer).await;
        answer.unwrap_or_else(|_| Err(late()))
    }

    async fn session(&self) -> Result<&Session, Fault> {
        self.0.session.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Session, Fault> {
        let address = &self.0.address;
        let mut policy = DefaultPolicy::builder();
        if let Some(datacenter) = &address.datacenter {
            policy = policy.prefer_datacenter(datacenter.clone());
        }
        let profile = ExecutionProfile::builder()
            .consistency(address.consistency)
            .request_timeout(Some(limits::CQL_CALL))
            .load_balancing_policy(policy.build())
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&address.nodes)
            .use_keyspace(&address.keyspace, false)
            // Enough to ask a replica of the partition itself.
            .keyspaces_to_fetch([&address.keyspace])
            .fetch_full_schema_metadata(false)
            .connection_timeout(limits::STORE_CONNECT)
            .default_execution_profile_handle(profile.into_handle());
        if let Some((user, password)) = &address.login {
            builder = builder.user(user, password);
        }
        builder.build().await.map_err(|error| self.away(&error))
    }

    fn away(&self, cause: &dyn std::fmt::Display) -> Fault {
        let Address { nodes, keyspace, .. } = &self.0.address;
        Fault::unavailable(format!(
            "the statistics at {} (statistics.url) cannot be reached: {cause}; check that Cassandra \
             or ScyllaDB runs there, that the keyspace {keyspace} is there (docs/cluster.md), and \
             user and password",
            nodes.join(", ")
        ))
    }

    /// What is said to the server, for `{keep}` how long it is to be kept.
    async fn prepared(&self, statement: &'static str) -> Result<PreparedStatement, Fault> {
        let known = |all: &HashMap<_, PreparedStatement>| all.get(statement).cloned();
        if let Some(known) = known(&*self.0.prepared.read().unwrap_or_else(PoisonError::into_inner))
        {
            return Ok(known);
        }
        let text = statement.replace("{keep}", &self.0.keep_seconds.to_string());
        let prepared = self.session().await?.prepare(text).await;
        let mut prepared = prepared.map_err(|error| failed(&error))?;
        prepared.set_is_idempotent(true);
        prepared.set_page_size(limits::CQL_PAGE);
        let mut all = self.0.prepared.write().unwrap_or_else(PoisonError::into_inner);
        Ok(all.entry(statement).or_insert(prepared).clone())
    }

    /// Changes tables.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub(super) async fn change(&self, statement: &str) -> Result<(), Fault> {
        let done = self.session().await?.query_unpaged(statement, ()).await;
        done.map(|_| ()).map_err(|error| failed(&error))
    }

    /// Writes.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn write(&self, statement: &'static str, values: &[Value]) -> Result<(), Fault> {
        let prepared = self.prepared(statement).await?;
        let done = self.session().await?.execute_unpaged(&prepared, bound(values)).await;
        done.map(|_| ()).map_err(|error| failed(&error))
    }

    /// Writes rows of one partition.
    ///
    /// # Errors
    /// As [`Cql::write`].
    pub async fn write_rows(&self, rows: &[(&'static str, Vec<Value>)]) -> Result<(), Fault> {
        for rows in rows.chunks(limits::CQL_ROWS_AT_ONCE) {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            for (statement, _) in rows {
                batch.append_statement(self.prepared(statement).await?);
            }
            let values: Vec<_> = rows.iter().map(|(_, values)| bound(values)).collect();
            let done = self.session().await?.batch(&batch, values).await;
            done.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// The rows of an answer.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn rows(&self, statement: &'static str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        self.each(statement, values, |row| {
            rows.push(row);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(rows)
    }

    /// Row by row, until no more are wanted: so that what is only added up need not be held.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn each(
        &self,
        statement: &'static str,
        values: &[Value],
        mut take: impl FnMut(Row) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let prepared = self.prepared(statement).await?;
        let mut page = PagingState::start();
        loop {
            let session = self.session().await?;
            let asked = session.execute_single_page(&prepared, bound(values), page).await;
            let (answer, next) = asked.map_err(|error| failed(&error))?;
            let rows = answer.into_rows_result().map_err(|error| failed(&error))?;
            for row in rows.rows::<Columns>().map_err(|error| failed(&error))? {
                let row = row.map_err(|error| failed(&error))?;
                if take(Row(row.columns))?.is_break() {
                    return Ok(());
                }
            }
            match next {
                PagingStateResponse::HasMorePages { state } => page = state,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }
}

/// Does `work` for each item, many at a time. The answers come in no order.
///
/// # Errors
/// That of the first that fails; the others are given up.
pub(super) async fn for_all<I, T, F>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> F,
) -> Result<Vec<T>, Fault>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>> + Send + 'static,
{
    let (mut under_way, mut answers) = (JoinSet::new(), Vec::new());
    let mut take = |done: Option<Result<Result<T, Fault>, _>>| {
        let gone = |_| Err(Fault::internal("work on the statistics was broken off"));
        done.map(|answer: Result<_, tokio::task::JoinError>| answer.unwrap_or_else(gone))
            .transpose()
            .map(|answer| answers.extend(answer))
    };
    for item in items {
        if under_way.len() >= limits::CQL_CALLS_AT_ONCE {
            take(under_way.join_next().await)?;
        }
        under_way.spawn(work(item));
    }
    while !under_way.is_empty() {
        take(under_way.join_next().await)?;
    }
    Ok(answers)
}

fn bound(values: &[Value]) -> Vec<Option<CqlValue>> {
    let one = |value: &Value| match value {
        Value::Text(text) => text.clone().map(CqlValue::Text),
        Value::Int(number) => number.map(CqlValue::BigInt),
        Value::Float(number) => number.map(CqlValue::Double),
    };
    values.iter().map(one).collect()
}

/// What the servers say is no event's fault: what was to be written waits until they are right.
fn failed(error: &dyn std::fmt::Display) -> Fault {
    Fault::unavailable(format!(
        "the statistics do not answer: {error}; look at Cassandra or ScyllaDB (statistics.url), \
         whether enough of its replicas are up, and whether the tables are there"
    ))
}
