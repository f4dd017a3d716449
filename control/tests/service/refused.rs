//! A store that does not take this process's account any more.

use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use strait_control::fault::{Class, Fault};
use strait_control::store::{Reach, Store};

use crate::Service;
use crate::databases::Database;
use crate::log::Log;

/// Statements of whoever manages the server, each on its own.
struct Change {
    make: &'static [&'static str],
    /// It is let in no more: another password, or none of its own.
    lock: &'static [&'static str],
    open: &'static [&'static str],
    /// It may read, and write nothing.
    bind: &'static [&'static str],
    free: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_that_refuses_the_account_is_told_of() {
    let test = "mariadb_that_refuses_the_account_is_told_of";
    let Some(database) = Database::mariadb(test) else { return };
    let url = database.url.replacen("root@", "app:one@", 1);
    let change = Change {
        make: &[
            "CREATE USER app@localhost IDENTIFIED BY 'one'",
            "GRANT ALL PRIVILEGES ON strait.* TO app@localhost",
        ],
        lock: &["ALTER USER app@localhost IDENTIFIED BY 'two'", "KILL USER app@localhost"],
        open: &["ALTER USER app@localhost IDENTIFIED BY 'one'"],
        bind: &["REVOKE INSERT ON strait.* FROM app@localhost", "KILL USER app@localhost"],
        free: &["GRANT INSERT ON strait.* TO app@localhost", "KILL USER app@localhost"],
    };
    is_told_of(&database, &url, &change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_that_refuses_the_account_is_told_of() {
    let test = "postgresql_that_refuses_the_account_is_told_of";
    let Some(database) = Database::postgres(test) else { return };
    let url = database.url.replacen("strait@", "app@", 1);
    const END: &str =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    let change = Change {
        make: &["CREATE ROLE app LOGIN", "GRANT ALL ON SCHEMA public TO app"],
        lock: &["ALTER ROLE app NOLOGIN", END],
        open: &["ALTER ROLE app LOGIN"],
        bind: &["REVOKE INSERT ON applications FROM app"],
        free: &["GRANT INSERT ON applications TO app"],
    };
    is_told_of(&database, &url, &change).await;
}

async fn is_told_of(database: &Database, url: &str, change: &Change) {
    act(database, change.make).await;
    let service = Service::start_with(|config| config.store.url = url.into()).await;
    let store = service.server.app.store.clone();
    assert_eq!(store.reach().await, Reach::Answers);
    act(database, change.lock).await;
    until(&service, Reach::Refuses).await;
    assert!(store.refused() > 0);
    assert!(service.metric("control_store_refused_total").await > Some(0));
    let ready = reqwest::get(service.url("/readyz")).await.unwrap();
    assert_eq!(ready.status().as_u16(), 503);
    let text = ready.text().await.unwrap();
    assert!(text.contains("FAIL store: refuses this process") && !text.contains("app"), "{text}");
    // However often it is asked.
    let said = || Log::of_strait().text().matches("refuses this process's account").count();
    let since = Instant::now();
    for _ in 0..20 {
        store.reach().await;
    }
    let most = 1 + usize::try_from(since.elapsed().as_secs() / 60).unwrap();
    assert!((1..=most + 1).contains(&said()), "{}", said());
    act(database, change.open).await;
    until(&service, Reach::Lacks).await;
    // It does what it is asked, all of it, until a right is lost.
    until(&service, Reach::Answers).await;
    store.applications().add("before", 1).await.unwrap();
    act(database, change.bind).await;
    let before = store.refused();
    let fault = refusal(&store).await;
    assert!(fault.class == Class::Internal && fault.reason.contains("account"), "{fault}");
    assert!(store.refused() > before);
    assert_eq!(store.reach().await, Reach::Lacks);
    let ready = reqwest::get(service.url("/readyz")).await.unwrap().text().await.unwrap();
    assert!(ready.contains("ok store: reachable, but refuses"), "{ready}");
    assert!(store.applications().find("before").await.unwrap().is_some(), "what it may it does");
    act(database, change.free).await;
    let since = Instant::now();
    while let Err(fault) = store.applications().add("acme", 1).await {
        assert!(since.elapsed().as_secs() < 30, "{fault}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until(&service, Reach::Answers).await;
}

/// What whoever adds something is answered, when connections of before are gone.
async fn refusal(store: &Store) -> Fault {
    let since = Instant::now();
    loop {
        match store.applications().add("refused", 1).await {
            Err(fault) if fault.class != Class::Unavailable => return fault,
            other => assert!(since.elapsed().as_secs() < 30, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until(service: &Service, wanted: Reach) {
    let since = Instant::now();
    loop {
        let now = service.server.app.store.reach().await;
        if now == wanted {
            return;
        }
        assert!(since.elapsed().as_secs() < 60, "{now:?} in a minute, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As who manages the server.
async fn act(database: &Database, statements: &[&str]) {
    for statement in statements {
        let statement = AssertSqlSafe((*statement).to_owned());
        if database.url.starts_with("mysql") {
            let mut connection = MySqlConnection::connect(&database.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&database.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
    }
}
