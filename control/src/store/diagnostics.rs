//! What clients post when something is wrong: reports, devices, logs.

use serde::Serialize;
use serde_json::Value as Json;

use super::analytics::Filter;
use super::sql::{Pool, Row, values};
use crate::fault::Fault;
use crate::limits;

/// The table of them.
#[derive(Clone)]
pub struct Diagnostics {
    pool: Pool,
    reads: Pool,
}

/// What was posted, without the text itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Entry {
    pub id: String,
    pub kind: String,
    pub application: String,
    pub scope: Option<String>,
    pub session: Option<String>,
    pub peer: Option<String>,
    pub user: String,
    pub address: String,
    pub at: i64,
    pub bytes: i64,
}

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of one application.
    pub application: Option<String>,
    /// `reports`, `devices` or `logs`.
    pub kind: Option<String>,
    /// Of this scope name.
    pub scope: Option<String>,
    /// Of this session.
    pub session: Option<String>,
    /// Posted at or after this time.
    pub from: Option<i64>,
    /// Posted before this time.
    pub to: Option<i64>,
    /// After this one in the list: its time and identifier.
    pub after: Option<(i64, String)>,
    /// So many at most.
    pub count: usize,
}

impl Diagnostics {
    pub(super) fn new(pool: Pool, reads: Pool) -> Self {
        Self { pool, reads }
    }

    /// Keeps an entry; the oldest ones of the application go when it has too many.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn add(&self, entry: &Entry, body: &str) -> Result<(), Fault> {
        let Entry { id, kind, application, user, address, at, bytes, .. } = entry;
        let columns = values![
            id,
            kind,
            application,
            entry.scope.clone(),
            entry.session.clone(),
            entry.peer.clone(),
            user,
            address,
            *at,
            *bytes,
            body,
        ];
        let mut open = self.pool.begin().await?;
        open.execute(
            "INSERT INTO diagnostics (id, kind, application, scope, session, peer, user_name,
             address, at_ms, bytes, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &columns,
        )
        .await?;
        let oldest = open
            .rows(
                "SELECT at_ms FROM diagnostics WHERE application = ? ORDER BY at_ms DESC, id DESC
             LIMIT 1 OFFSET ?",
                &values![application, limits::DIAGNOSTICS_PER_APPLICATION],
            )
            .await?;
        if let Some(row) = oldest.first() {
            let statement = "DELETE FROM diagnostics WHERE application = ? AND at_ms <= ?";
            open.execute(statement, &values![application, row.int(0)?]).await?;
        }
        open.commit().await
    }

    /// Entries, the newest first.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn list(&self, wanted: &Wanted) -> Result<Vec<Entry>, Fault> {
        let mut filter = Filter::default();
        filter.and("application = ?", wanted.application.clone());
        filter.and("kind = ?", wanted.kind.clone());
        filter.and("scope = ?", wanted.scope.clone());
        filter.and("session = ?", wanted.session.clone());
        filter.and("at_ms >= ?", wanted.from);
        filter.and("at_ms < ?", wanted.to);
        if let Some((at, id)) = &wanted.after {
            filter.text += " AND (at_ms < ? OR (at_ms = ? AND id < ?))";
            filter.values.extend(values![*at, *at, id]);
        }
        filter.values.push(wanted.count.into());
        let statement = format!(
            "SELECT {COLUMNS} FROM diagnostics WHERE 1 = 1{} ORDER BY at_ms DESC, id DESC LIMIT ?",
            filter.text
        );
        self.reads.rows(&statement, &filter.values).await?.iter().map(entry).collect()
    }

    /// One entry with what was posted.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn find(&self, id: &str) -> Result<Option<(Entry, Json)>, Fault> {
        let statement = format!("SELECT {COLUMNS}, body FROM diagnostics WHERE id = ?");
        let Some(row) = self.reads.row(&statement, &values![id]).await? else { return Ok(None) };
        let body = serde_json::from_str(&row.text(10)?).unwrap_or(Json::Null);
        Ok(Some((entry(&row)?, body)))
    }
}

const COLUMNS: &str =
    "id, kind, application, scope, session, peer, user_name, address, at_ms, bytes";

fn entry(row: &Row) -> Result<Entry, Fault> {
    Ok(Entry {
        id: row.text(0)?,
        kind: row.text(1)?,
        application: row.text(2)?,
        scope: row.text_maybe(3)?,
        session: row.text_maybe(4)?,
        peer: row.text_maybe(5)?,
        user: row.text(6)?,
        address: row.text(7)?,
        at: row.int(8)?,
        bytes: row.int(9)?,
    })
}
