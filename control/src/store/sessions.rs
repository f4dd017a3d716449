//! Log of sessions: who was in which scope, from when to when, and why they left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{Row, SqlitePool};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::broken;
use crate::fault::Fault;
use crate::limits;

/// The log of sessions.
#[derive(Clone)]
pub struct Sessions {
    pool: SqlitePool,
    notes: mpsc::Sender<Note>,
    /// Numbers of stays that were given out.
    stays: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
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

/// A stay that was noted, for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stay(u64);

enum Note {
    Joined {
        stay: Stay,
        application: String,
        scope: String,
        peer: String,
        name: String,
        at: i64,
    },
    Left {
        stay: Stay,
        reason: String,
        at: i64,
    },
    /// Answered when all before it is in the store, or lost.
    Settle(oneshot::Sender<()>),
}

impl Sessions {
    /// Begins to write. To be called once for a store.
    pub(super) fn new(pool: SqlitePool) -> Self {
        let (notes, waiting) = mpsc::channel(limits::SESSION_NOTES);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            pool: pool.clone(),
            rows: HashMap::new(),
            lost: Arc::clone(&lost),
            is_well: true,
        };
        tokio::spawn(writer.run(waiting));
        Self { pool, notes, stays: Arc::default(), lost }
    }

    /// Notes that a peer came. Nobody waits for the disk: the note is written with others, within
    /// a moment; where too many wait, or the store fails, it is lost and counted.
    pub fn joined(&self, application: &str, scope: &str, peer: &str, name: &str, now: i64) -> Stay {
        let stay = Stay(self.stays.fetch_add(1, Ordering::Relaxed));
        self.note(Note::Joined {
            stay,
            application: application.into(),
            scope: scope.into(),
            peer: peer.into(),
            name: name.into(),
            at: now,
        });
        stay
    }

    /// Notes that the peer left.
    pub fn left(&self, stay: Stay, reason: &str, now: i64) {
        self.note(Note::Left { stay, reason: reason.into(), at: now });
    }

    /// Waits until all that was noted is in the store, or lost.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.notes.send(Note::Settle(done)).await.is_ok() {
            // The writer answers, or is gone with its runtime.
            let _gone = settled.await;
        }
    }

    /// Notes that were lost since the process began.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The newest rows of a scope, at most `rows_max`, with all that was noted before.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn of_scope(
        &self,
        application: &str,
        scope: &str,
        rows_max: u32,
    ) -> Result<Vec<SessionRow>, Fault> {
        self.settle().await;
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
}

/// Writes notes, as many as wait in one transaction: a disk that takes milliseconds for each then
/// holds up nobody.
struct Writer {
    pool: SqlitePool,
    /// Rows of those who are there.
    rows: HashMap<Stay, i64>,
    lost: Arc<AtomicU64>,
    /// The last transaction went well: a failure is told once.
    is_well: bool,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Note>) {
        let mut notes = Vec::with_capacity(limits::SESSION_NOTES_AT_ONCE);
        while waiting.recv_many(&mut notes, limits::SESSION_NOTES_AT_ONCE).await > 0 {
            match self.write(&notes).await {
                Ok(()) => self.is_well = true,
                Err(error) => {
                    self.lost.fetch_add(notes.len() as u64, Ordering::Relaxed);
                    if std::mem::take(&mut self.is_well) {
                        warn!("session log: {}", broken(&error).reason);
                    }
                }
            }
            for note in notes.drain(..) {
                if let Note::Settle(done) = note {
                    // Who asked may be gone.
                    let _gone = done.send(());
                }
            }
        }
    }

    async fn write(&mut self, notes: &[Note]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let mut newest = None;
        // Rows of those who come in this transaction: none of them, should it fail.
        let mut came = HashMap::new();
        for note in notes {
            match note {
                Note::Joined { stay, application, scope, peer, name, at } => {
                    let row = sqlx::query(
                        "INSERT INTO sessions (application, scope, peer, name, joined_at)
                         VALUES (?, ?, ?, ?, ?)",
                    )
                    .bind(application)
                    .bind(scope)
                    .bind(peer)
                    .bind(name)
                    .bind(at)
                    .execute(&mut *transaction)
                    .await?
                    .last_insert_rowid();
                    came.insert(*stay, row);
                    newest = Some(row);
                }
                Note::Left { stay, reason, at } => {
                    // Who left is not looked for again, whatever becomes of this.
                    let Some(row) = came.remove(stay).or_else(|| self.rows.remove(stay)) else {
                        continue;
                    };
                    sqlx::query("UPDATE sessions SET left_at = ?, reason = ? WHERE id = ?")
                        .bind(at)
                        .bind(reason)
                        .bind(row)
                        .execute(&mut *transaction)
                        .await?;
                }
                Note::Settle(_) => {}
            }
        }
        if let Some(newest) = newest {
            sqlx::query("DELETE FROM sessions WHERE id <= ?")
                .bind(newest - limits::SESSION_LOG_ROWS)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        self.rows.extend(came);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::limits;
    use crate::store::Store;

    #[tokio::test]
    async fn a_stay_is_logged_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/control.db", folder.path().display());
        let store = Store::open(&url).await.unwrap();
        let sessions = store.sessions();
        let first = sessions.joined("dev", "lobby", "p-1", "Alice", 10);
        let second = sessions.joined("dev", "lobby", "p-2", "Bob", 11);
        assert_ne!(first, second);
        sessions.left(first, "left", 20);
        // Another handle on the same log.
        let rows = store.sessions().of_scope("dev", "lobby", 10).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].name.as_str(), rows[0].left_at), ("Bob", None));
        assert_eq!((rows[1].left_at, rows[1].reason.as_deref()), (Some(20), Some("left")));
        // As if many had come since.
        sqlx::query("UPDATE sqlite_sequence SET seq = ? WHERE name = 'sessions'")
            .bind(limits::SESSION_LOG_ROWS + 1)
            .execute(&sessions.pool)
            .await
            .unwrap();
        sessions.joined("dev", "lobby", "p-3", "Cleo", 12);
        let left: Vec<_> = sessions.of_scope("dev", "lobby", 10).await.unwrap();
        let left: Vec<_> = left.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(left, ["Cleo"]);
        assert_eq!(sessions.lost(), 0);
    }

    #[tokio::test]
    async fn a_store_that_fails_loses_notes_and_holds_up_nobody() {
        let store = Store::open_in_memory().await.unwrap();
        let sessions = store.sessions();
        sqlx::query("ALTER TABLE sessions RENAME TO gone").execute(&sessions.pool).await.unwrap();
        let lost = sessions.joined("dev", "lobby", "p-1", "Alice", 10);
        sessions.settle().await;
        assert!(sessions.lost() > 0);
        sqlx::query("ALTER TABLE gone RENAME TO sessions").execute(&sessions.pool).await.unwrap();
        sessions.left(lost, "left", 11);
        sessions.joined("dev", "lobby", "p-2", "Bob", 12);
        let rows = sessions.of_scope("dev", "lobby", 10).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["Bob"]);
    }
}
