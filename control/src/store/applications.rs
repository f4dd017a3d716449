//! Applications: who may sign tokens.

use sqlx::SqlitePool;

use super::broken;
use crate::fault::Fault;
use crate::id;
use crate::limits;

/// The table of applications.
#[derive(Clone)]
pub struct Applications {
    pool: SqlitePool,
}

impl Applications {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// The secret of an application, if it exists.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn secret(&self, id: &str) -> Result<Option<String>, Fault> {
        sqlx::query_scalar("SELECT secret FROM applications WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| broken(&error))
    }

    /// Adds an application, or gives it another secret. `created` is in seconds since 1970.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`] for a bad identifier, [`crate::fault::Class::Internal`].
    pub async fn put(&self, id: &str, secret: &str, created: u64) -> Result<(), Fault> {
        id::check_name("the application's identifier", id, limits::APPLICATION_BYTES)?;
        sqlx::query(
            "INSERT INTO applications (id, secret, created) VALUES (?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET secret = excluded.secret",
        )
        .bind(id)
        .bind(secret)
        .bind(i64::try_from(created).unwrap_or(i64::MAX))
        .execute(&self.pool)
        .await
        .map_err(|error| broken(&error))?;
        Ok(())
    }

    /// Removes an application; one that is absent is no error.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn remove(&self, id: &str) -> Result<(), Fault> {
        sqlx::query("DELETE FROM applications WHERE id = ?")
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(|error| broken(&error))?;
        Ok(())
    }

    /// All identifiers, in order.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn list(&self) -> Result<Vec<String>, Fault> {
        sqlx::query_scalar("SELECT id FROM applications ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .map_err(|error| broken(&error))
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    #[tokio::test]
    async fn applications_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/deep/control.db", folder.path().display());
        let store = Store::open(&url).await.unwrap();
        store.applications().put("acme", "one", 1).await.unwrap();
        store.applications().put("acme", "two", 2).await.unwrap();
        assert!(store.applications().put("", "x", 1).await.is_err());
        drop(store);
        let store = Store::open(&url).await.unwrap();
        assert!(store.is_reachable().await);
        let applications = store.applications();
        assert_eq!(applications.secret("acme").await.unwrap().as_deref(), Some("two"));
        assert_eq!(applications.list().await.unwrap(), ["acme"]);
        applications.remove("acme").await.unwrap();
        assert_eq!(applications.secret("acme").await.unwrap(), None);
    }
}
