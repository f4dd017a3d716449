//! Transactions of SQLite. sqlx counts them, but SQLite ends one by itself when the disk is full, and
//! then sqlx takes the connection to be in it for ever. Here nobody counts: what is not committed is
//! undone when the connection is given back.

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, query};

/// A transaction; what was done is undone unless it is committed.
pub type Writing = PoolConnection<Sqlite>;

/// Options of a pool whose connections are given back without a transaction.
pub fn options() -> SqlitePoolOptions {
    SqlitePoolOptions::new().after_release(|connection, _| {
        Box::pin(async move {
            // Mostly there is none, which is an error.
            let _none = query("ROLLBACK").execute(connection).await;
            Ok(true)
        })
    })
}

/// Begins a transaction, on a pool with [`options`]. It is the only one that writes: one that only
/// reads at first could not write after another did.
///
/// # Errors
/// Another one writes for too long.
pub async fn begin(pool: &SqlitePool) -> sqlx::Result<Writing> {
    let mut writing = pool.acquire().await?;
    query("BEGIN IMMEDIATE").execute(&mut *writing).await?;
    Ok(writing)
}

/// Makes what was done last.
///
/// # Errors
/// The disk is full: nothing was done.
pub async fn commit(mut writing: Writing) -> sqlx::Result<()> {
    query("COMMIT").execute(&mut *writing).await.map(drop)
}

#[cfg(test)]
mod tests {
    use sqlx::query_scalar;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    #[tokio::test]
    async fn what_the_disk_had_no_room_for_is_no_transaction_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConnectOptions::new().filename(folder.path().join("a.db"));
        let file = file.create_if_missing(true).pragma("max_page_count", "8");
        let pool = options().max_connections(1).connect_with(file).await.unwrap();
        query("CREATE TABLE t (a TEXT)").execute(&pool).await.unwrap();
        let fill = async |count: i64| {
            let mut writing = begin(&pool).await?;
            for _ in 0..count {
                let insert = "INSERT INTO t VALUES (hex(zeroblob(1000)))";
                query(insert).execute(&mut *writing).await?;
            }
            commit(writing).await
        };
        fill(1).await.unwrap();
        for _ in 0..3 {
            let error = fill(100).await.unwrap_err().to_string();
            assert!(error.contains("full"), "{error}");
        }
        // What is dropped is undone, and nothing else stays of those that failed.
        let mut writing = begin(&pool).await.unwrap();
        query("DELETE FROM t").execute(&mut *writing).await.unwrap();
        drop(writing);
        fill(1).await.unwrap();
        let file = SqliteConnectOptions::new().filename(folder.path().join("a.db"));
        let other = SqlitePool::connect_with(file).await.unwrap();
        let count = query_scalar::<_, i64>("SELECT COUNT(*) FROM t").fetch_one(&other).await;
        assert_eq!(count.unwrap(), 2, "others see it");
    }
}
