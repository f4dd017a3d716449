//! Databases that are reached by TLS: certificates are checked, and what is wrong with one is said.

use strait_control::fault::Class;
use strait_control::store::Store;

use crate::databases::{Certificates, Database};

/// Why a store is not opened.
async fn refused(url: &str) -> String {
    let fault = Store::open(url).await.err().unwrap_or_else(|| panic!("{url} was opened"));
    assert_eq!(fault.class, Class::Internal, "waiting does not help: {fault}");
    fault.reason
}

/// With the certificate checked, and the name as well; or the certificate alone. `file` is the
/// parameter that names the root.
async fn is_checked(url: &str, [whole, certificate, file]: [&str; 3], tls: &Certificates) {
    let with = |mode: &str, root: &str| format!("{url}{mode}&{file}={}", tls.path(root).display());
    let right = with(whole, "root.pem");
    let store = Store::open(&right).await.unwrap();
    assert!(store.is_reachable().await);
    assert_eq!(store.analytics().stays("nobody", 1).await.unwrap(), [], "questions go by TLS too");
    store.close().await;

    for wrong in [with(whole, "other.pem"), with(certificate, "other.pem")] {
        let reason = refused(&wrong).await;
        assert!(reason.contains("TLS failed: invalid peer certificate"), "{reason}");
        assert!(reason.contains("root that is not in the file"), "{reason}");
    }
    // Nothing was compiled in that this root could be among.
    let reason = refused(&format!("{url}{whole}")).await;
    assert!(reason.contains("TLS failed"), "{reason}");
    let elsewhere = |url: String| url.replace("localhost", "127.0.0.1");
    let reason = refused(&elsewhere(right)).await;
    assert!(reason.contains("another name"), "{reason}");
    let store = Store::open(&elsewhere(with(certificate, "root.pem"))).await.unwrap();
    store.close().await;
    let reason = refused(&with(whole, "none.pem")).await;
    assert!(reason.contains("cannot be opened") && !reason.contains("panic"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_is_reached_by_tls() {
    let tls = Certificates::new();
    let Some(database) = Database::mariadb_tls("mariadb_is_reached_by_tls", &tls) else { return };
    let modes = ["ssl-mode=VERIFY_IDENTITY", "ssl-mode=VERIFY_CA", "ssl-ca"];
    is_checked(&database.url, modes, &tls).await;
    // By TCP the server takes nobody without TLS.
    let reason = refused(&format!("{}ssl-mode=DISABLED", database.url)).await;
    assert!(reason.contains("returned from database"), "{reason}");
    Store::open(&database.local).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_reached_by_tls() {
    let tls = Certificates::new();
    let Some(database) = Database::postgres_tls("postgresql_is_reached_by_tls", &tls) else {
        return;
    };
    let modes = ["sslmode=verify-full", "sslmode=verify-ca", "sslrootcert"];
    is_checked(&database.url, modes, &tls).await;
    let local = sqlx::postgres::PgPool::connect(&database.local).await.unwrap();
    for (mode, is_encrypted) in [("disable", false), ("require", true), ("prefer", true)] {
        let store = Store::open(&format!("{}sslmode={mode}", database.url)).await.unwrap();
        assert!(store.is_reachable().await);
        // Connections of before may not be gone yet.
        let asked = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE client_port > 0 AND backend_start = (SELECT max(backend_start)
                     FROM pg_stat_activity WHERE client_port > 0)";
        let told: Option<bool> = sqlx::query_scalar(asked).fetch_one(&local).await.unwrap();
        assert_eq!(told, Some(is_encrypted), "{mode}");
        store.close().await;
    }
}
