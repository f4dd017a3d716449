//! Applications and their API keys: who may sign.

use super::broken;
use super::sql::{Pool, Row, Value, values};
use crate::auth::{Application, Key, Material, PublicKey, Secret};
use crate::fault::Fault;
use crate::{id, limits};

const INSERT: &str = "{insert} applications (id, created) VALUES (?, ?) {unless there}";
const INSERT_KEY: &str = "
    {insert} application_keys (application, id, kind, material, enabled, created)
    VALUES (?, ?, ?, ?, ?, ?) {unless there}";

/// The tables of applications and their keys.
#[derive(Clone)]
pub struct Applications {
    pool: Pool,
}

impl Applications {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// An application with its keys, if it exists.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn find(&self, id: &str) -> Result<Option<Application>, Fault> {
        let rows = self
            .pool
            .rows(
                "SELECT concatenated, changes_keys, k.id, k.kind, k.material, k.enabled, k.created
             FROM applications a LEFT JOIN application_keys k ON k.application = a.id
             WHERE a.id = ? ORDER BY k.created, k.id",
                &values![id],
            )
            .await?;
        let rows = rows;
        let Some(first) = rows.first() else { return Ok(None) };
        let (concatenated, changes_keys) = (first.is(0)?, first.is(1)?);
        let keys = rows.iter().filter_map(|row| key(row).transpose());
        let keys = keys.collect::<Result<_, Fault>>()?;
        Ok(Some(Application { id: id.to_owned(), concatenated, changes_keys, keys }))
    }

    /// Adds an application without keys; `created` is in seconds since 1970.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`] for a bad identifier, [`crate::fault::Class::Conflict`]
    /// when it exists, [`crate::fault::Class::Internal`].
    pub async fn add(&self, id: &str, created: u64) -> Result<(), Fault> {
        check(id)?;
        match self.pool.execute(INSERT, &values![id, created]).await? {
            0 => Err(there_is(id)),
            _ => Ok(()),
        }
    }

    /// Adds an application with its first key: both or none.
    ///
    /// # Errors
    /// As [`Applications::add`] and [`Applications::add_key`].
    pub async fn add_with(&self, id: &str, key: &Key) -> Result<(), Fault> {
        check(id)?;
        key.check()?;
        let mut open = self.pool.begin().await?;
        let added = open.execute(INSERT, &values![id, key.created]).await?;
        if added == 0 {
            return Err(there_is(id));
        }
        open.execute(INSERT_KEY, &of(id, key)).await?;
        open.commit().await
    }

    /// Switches signatures over concatenated fields on or off.
    ///
    /// # Errors
    /// [`crate::fault::Class::NotFound`], [`crate::fault::Class::Internal`].
    pub async fn set_concatenated(&self, id: &str, is_on: bool) -> Result<(), Fault> {
        self.set("UPDATE applications SET concatenated = ? WHERE id = ?", id, is_on).await
    }

    /// Switches changes of session keys on or off, for clients that join from now on.
    ///
    /// # Errors
    /// [`crate::fault::Class::NotFound`], [`crate::fault::Class::Internal`].
    pub async fn set_changes_keys(&self, id: &str, is_on: bool) -> Result<(), Fault> {
        self.set("UPDATE applications SET changes_keys = ? WHERE id = ?", id, is_on).await
    }

    async fn set(&self, statement: &str, id: &str, is_on: bool) -> Result<(), Fault> {
        let rows = self.pool.execute(statement, &values![is_on, id]).await?;
        found(rows, || format!("application {id:?}"))
    }

    /// Removes an application and its keys.
    ///
    /// # Errors
    /// [`crate::fault::Class::NotFound`], [`crate::fault::Class::Internal`].
    pub async fn remove(&self, id: &str) -> Result<(), Fault> {
        let rows = self.pool.execute("DELETE FROM applications WHERE id = ?", &values![id]).await?;
        found(rows, || format!("application {id:?}"))
    }

    /// All identifiers, in order.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn list(&self) -> Result<Vec<String>, Fault> {
        let rows = self.pool.rows("SELECT id FROM applications ORDER BY id", &[]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// All applications, each with its keys.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn all(&self) -> Result<Vec<Application>, Fault> {
        let rows = self.pool.rows("SELECT concatenated, changes_keys, k.id, k.kind, k.material, k.enabled, k.created, a.id
             FROM applications a LEFT JOIN application_keys k ON k.application = a.id
             ORDER BY a.id, k.created, k.id", &[]).await?;
        applications(&rows)
    }

    /// So many of them, in the order of [`Applications::list`], from the one behind `after` on.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn page(&self, after: &str, count: usize) -> Result<Vec<Application>, Fault> {
        let rows = self.pool.rows("SELECT concatenated, changes_keys, k.id, k.kind, k.material, k.enabled, k.created, a.id
             FROM (SELECT id, concatenated, changes_keys FROM applications
                   WHERE id > ? ORDER BY id LIMIT ?) a
             LEFT JOIN application_keys k ON k.application = a.id
             ORDER BY a.id, k.created, k.id", &values![after, count]).await?;
        applications(&rows)
    }

    /// Gives an application one more key.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`] for a bad key, [`crate::fault::Class::NotFound`] without
    /// the application, [`crate::fault::Class::Conflict`] when it has a key of this name,
    /// [`crate::fault::Class::TooMany`], [`crate::fault::Class::Internal`].
    pub async fn add_key(&self, application: &str, key: &Key) -> Result<(), Fault> {
        key.check()?;
        let present = self.find(application).await?;
        let present = present
            .ok_or_else(|| Fault::not_found(format!("there is no application {application:?}")))?;
        let has_it = || {
            Fault::conflict(format!(
                "{application:?} has a key {:?} already; give the new one another name",
                key.id
            ))
        };
        if present.keys.iter().any(|other| other.id == key.id) {
            return Err(has_it());
        }
        if present.keys.len() >= limits::KEYS_PER_APPLICATION {
            return Err(Fault::too_many(format!(
                "{application:?} has {} keys, all it may; remove one that is not used any more",
                present.keys.len()
            )));
        }
        let added = self.pool.execute(INSERT_KEY, &of(application, key)).await?;
        // None: another was quicker.
        (added > 0).then_some(()).ok_or_else(has_it)
    }

    /// Switches a key on or off: what it signs is taken or refused from the next call on.
    ///
    /// # Errors
    /// [`crate::fault::Class::NotFound`], [`crate::fault::Class::Internal`].
    pub async fn enable_key(&self, application: &str, id: &str, is_on: bool) -> Result<(), Fault> {
        let statement = "UPDATE application_keys SET enabled = ? WHERE application = ? AND id = ?";
        let rows = self.pool.execute(statement, &values![is_on, application, id]).await?;
        found(rows, || format!("key {id:?} of {application:?}"))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`crate::fault::Class::NotFound`], [`crate::fault::Class::Internal`].
    pub async fn remove_key(&self, application: &str, id: &str) -> Result<(), Fault> {
        let statement = "DELETE FROM application_keys WHERE application = ? AND id = ?";
        let rows = self.pool.execute(statement, &values![application, id]).await?;
        found(rows, || format!("key {id:?} of {application:?}"))
    }
}

/// The arguments of [`INSERT_KEY`].
fn of(application: &str, key: &Key) -> [Value; 6] {
    let material = match &key.material {
        Material::Secret(secret) => secret.expose(),
        Material::Es256(public) => public.pem(),
    };
    values![application, &key.id, key.material.kind(), material, key.is_enabled, key.created]
}

fn check(id: &str) -> Result<(), Fault> {
    id::check_name("the application's identifier", id, limits::APPLICATION_BYTES)
}

fn there_is(id: &str) -> Fault {
    Fault::conflict(format!("there is an application {id:?} already; give this one another name"))
}

/// The applications of rows that are in their order.
fn applications(rows: &[Row]) -> Result<Vec<Application>, Fault> {
    let mut all: Vec<Application> = Vec::new();
    for row in rows {
        let id = row.text(7)?;
        if all.last().is_none_or(|last| last.id != id) {
            let (concatenated, changes_keys) = (row.is(0)?, row.is(1)?);
            all.push(Application { id, concatenated, changes_keys, keys: Vec::new() });
        }
        if let (Some(application), Some(key)) = (all.last_mut(), key(row)?) {
            application.keys.push(key);
        }
    }
    Ok(all)
}

/// The key of a row; none where the application has none.
fn key(row: &Row) -> Result<Option<Key>, Fault> {
    let Some(id) = row.text_maybe(2)? else { return Ok(None) };
    let (kind, material) = (row.text(3)?, Secret::from(row.text(4)?));
    let material = match kind.as_str() {
        "secret" => Material::Secret(material),
        "es256" => Material::Es256(PublicKey::from_pem(material.expose()).map_err(|fault| {
            broken(&format!("key {id:?} cannot be read: {fault}; remove it and add it again"))
        })?),
        kind => return Err(broken(&format!("key {id:?} is of the unknown kind {kind:?}"))),
    };
    let created = u64::try_from(row.int(6)?).unwrap_or_default();
    Ok(Some(Key { id, material, is_enabled: row.is(5)?, created }))
}

fn found(rows: u64, what: impl Fn() -> String) -> Result<(), Fault> {
    match rows {
        0 => Err(Fault::not_found(format!("there is no {}", what()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, Connection};

    use super::*;
    use crate::auth::PrivateKey;
    use crate::fault::Class;
    use crate::store::Store;

    fn secret(id: &str, created: u64) -> Key {
        Key::new(id, Material::Secret(Secret::random().unwrap()), created)
    }

    #[tokio::test]
    async fn applications_and_keys_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/deep/control.db", folder.path().display());
        let (first, mut second) = (secret("first", 1), secret("second", 2));
        let public = PrivateKey::random().unwrap().public().unwrap();
        let pair = Key::new("pair", Material::Es256(public), 3);
        let store = Store::open(&url).await.unwrap();
        let applications = store.applications();
        assert_eq!(applications.add_key("acme", &first).await.unwrap_err().class, Class::NotFound);
        assert_eq!(applications.add("", 1).await.unwrap_err().class, Class::Malformed);
        applications.add("acme", 1).await.unwrap();
        assert_eq!(applications.add("acme", 1).await.unwrap_err().class, Class::Conflict);
        assert_eq!(applications.find("acme").await.unwrap().unwrap().keys, []);
        for key in [&second, &pair, &first] {
            applications.add_key("acme", key).await.unwrap();
        }
        assert_eq!(applications.add_key("acme", &pair).await.unwrap_err().class, Class::Conflict);
        applications.set_concatenated("acme", true).await.unwrap();
        applications.set_changes_keys("acme", true).await.unwrap();
        let missing = applications.set_changes_keys("nobody", true).await.unwrap_err();
        assert_eq!(missing.class, Class::NotFound);
        applications.enable_key("acme", "second", false).await.unwrap();
        second.is_enabled = false;
        drop((store, applications));
        let store = Store::open(&url).await.unwrap();
        assert!(store.is_reachable().await);
        let applications = store.applications();
        let acme = applications.find("acme").await.unwrap().unwrap();
        assert_eq!(acme.keys, [first, second, pair], "the oldest first");
        assert!(acme.concatenated && acme.changes_keys);
        assert_eq!(acme.secrets().count(), 1);
        applications.remove_key("acme", "first").await.unwrap();
        let gone = applications.remove_key("acme", "first").await.unwrap_err();
        assert_eq!(gone.class, Class::NotFound);
        assert_eq!(applications.list().await.unwrap(), ["acme"]);
        applications.remove("acme").await.unwrap();
        assert_eq!(applications.find("acme").await.unwrap(), None);
        applications.add("acme", 1).await.unwrap();
        assert_eq!(applications.find("acme").await.unwrap().unwrap().keys, [], "keys went too");
    }

    #[tokio::test]
    async fn keys_are_bounded() {
        let store = Store::open_in_memory().await.unwrap();
        let applications = store.applications();
        applications.add("acme", 1).await.unwrap();
        for n in 0..limits::KEYS_PER_APPLICATION {
            applications.add_key("acme", &secret(&n.to_string(), 1)).await.unwrap();
        }
        let many = applications.add_key("acme", &secret("one more", 1)).await.unwrap_err();
        assert_eq!(many.class, Class::TooMany);
    }

    #[tokio::test]
    async fn the_secrets_of_older_stores_become_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("control.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        super::super::migrator(super::super::sql::Engine::Sqlite)
            .run_to(1, &mut connection)
            .await
            .unwrap();
        sqlx::query("INSERT INTO applications VALUES ('acme', 'an old secret', 7)")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        let store = Store::open(&format!("sqlite:{}", file.display())).await.unwrap();
        let acme = store.applications().find("acme").await.unwrap().unwrap();
        assert_eq!(acme.keys, [Key::new("first", Material::Secret("an old secret".into()), 7)]);
        assert!(!acme.concatenated);
    }
}
