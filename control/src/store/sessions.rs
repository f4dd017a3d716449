//! Log of sessions: who was in which scope, from when to when, and why they left.

use sqlx::{Row, SqlitePool};

use super::broken;
use crate::fault::Fault;
use crate::limits;

/// The log of sessions.
#[derive(Clone)]
pub struct Sessions {
    pool: SqlitePool,
}

/// One peer's stay in a scope. Times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Scope name.
    pub scope: String,
    /// Peer identifier.
    pub peer: String,
    /// Display name.
    pub name: String,
    /// When the peer came.
    pub joined_at: i64,
    /// When it left; none while it is there, or when this process was killed meanwhile.
    pub left_at: Option<i64>,
    /// Why it left.
    pub reason: Option<String>,
}

impl Sessions {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// Notes that a peer came, and forgets rows beyond [`limits::SESSION_LOG_ROWS`].
    /// Returns the row's number, which [`Sessions::left`] takes.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn joined(
        &self,
        application: &str,
        scope: &str,
        peer: &str,
        name: &str,
        now: i64,
    ) -> Result<i64, Fault> {
        let id = sqlx::query(
            "INSERT INTO sessions (application, scope, peer, name, joined_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(application)
        .bind(scope)
        .bind(peer)
        .bind(name)
        .bind(now)
        .execute(&self.pool)
        .await
        .map_err(|error| broken(&error))?
        .last_insert_rowid();
        self.forget_before(id - limits::SESSION_LOG_ROWS).await?;
        Ok(id)
    }

    /// Notes that the peer of row `id` left.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn left(&self, id: i64, reason: &str, now: i64) -> Result<(), Fault> {
        sqlx::query("UPDATE sessions SET left_at = ?, reason = ? WHERE id = ?")
            .bind(now)
            .bind(reason)
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(|error| broken(&error))?;
        Ok(())
    }

    /// The newest rows of a scope, at most `rows_max`.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn of_scope(
        &self,
        application: &str,
        scope: &str,
        rows_max: u32,
    ) -> Result<Vec<SessionRow>, Fault> {
        let rows = sqlx::query(
            "SELECT scope, peer, name, joined_at, left_at, reason FROM sessions
             WHERE application = ? AND scope = ? ORDER BY id DESC LIMIT ?",
        )
        .bind(application)
        .bind(scope)
        .bind(rows_max)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| broken(&error))?;
        rows.iter()
            .map(|row| {
                Ok(SessionRow {
                    scope: row.try_get(0)?,
                    peer: row.try_get(1)?,
                    name: row.try_get(2)?,
                    joined_at: row.try_get(3)?,
                    left_at: row.try_get(4)?,
                    reason: row.try_get(5)?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| broken(&error))
    }

    /// Forgets rows up to and including number `id`.
    async fn forget_before(&self, id: i64) -> Result<(), Fault> {
        sqlx::query("DELETE FROM sessions WHERE id <= ?")
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(|error| broken(&error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    #[tokio::test]
    async fn a_stay_is_logged_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/control.db", folder.path().display());
        let sessions = Store::open(&url).await.unwrap().sessions();
        let first = sessions.joined("dev", "lobby", "p-1", "Alice", 10).await.unwrap();
        let second = sessions.joined("dev", "lobby", "p-2", "Bob", 11).await.unwrap();
        sessions.left(first, "left", 20).await.unwrap();
        let rows = sessions.of_scope("dev", "lobby", 10).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].name, "Bob");
        assert_eq!(rows[1].left_at, Some(20));
        assert_eq!(rows[1].reason.as_deref(), Some("left"));
        sessions.forget_before(first).await.unwrap();
        assert_eq!(sessions.of_scope("dev", "lobby", 10).await.unwrap().len(), 1);
        assert!(second > first);
    }
}
