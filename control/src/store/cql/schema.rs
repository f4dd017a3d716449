//! The tables, step by step. What was released is never changed.
//!
//! Times end in `_ms`. Rows that events tell of are cells that only grow, each written at its own
//! value as its time; what is made of them is written at a number that grows with them
//! (`docs/decisions/0014-sums-without-counters.md`). So whatever order, the latest wins everywhere.

use super::connection::Cql;
use crate::fault::Fault;
use crate::store::sql::values;

/// All steps so far.
const STEPS: [&[&str]; 1] = [&[
    // What events tell: lives of scopes,
    "CREATE TABLE IF NOT EXISTS lives (session text PRIMARY KEY, application text, scope text,
     node text, created_ms bigint, ended_ms bigint)",
    // stays by the hours in which they were told of, as told last in that hour,
    "CREATE TABLE IF NOT EXISTS stays (session text, stay text, hour_ms bigint, peer text,
     name text, user_name text, client text, node text, joined_ms bigint, until_ms bigint,
     reason text, bytes_in bigint, bytes_out bigint, PRIMARY KEY ((session), stay, hour_ms))",
    // and their bytes by the minute,
    "CREATE TABLE IF NOT EXISTS presence (session text, hour_ms bigint, stay text,
     minute_ms bigint, bytes_in bigint, bytes_out bigint,
     PRIMARY KEY ((session, hour_ms), stay, minute_ms))",
    // how streams fared; what is not known is NaN.
    "CREATE TABLE IF NOT EXISTS quality (session text, hour_ms bigint, minute_ms bigint, stay text,
     stream text, seconds double, packets bigint, bytes bigint, score double, loss double,
     round_trip double, jitter double, queue_delay double, frozen_seconds double, lowered double,
     paused double, problems bigint,
     PRIMARY KEY ((session, hour_ms), minute_ms, stay, stream))",
    // What is made of it: the quality of a session's minutes,
    "CREATE TABLE IF NOT EXISTS grades (session text, minute_ms bigint, quality text,
     PRIMARY KEY ((session), minute_ms))",
    // lists of sessions by the hour in which they began, and of those that a user was in; what
    // ended at 0 has not,
    "CREATE TABLE IF NOT EXISTS sessions (application text, hour_ms bigint, created_ms bigint,
     session text, scope text, node text, ended_ms bigint, until_ms bigint, stays bigint,
     present bigint, total_ms bigint, bytes_in bigint, bytes_out bigint, score_sum double,
     scored bigint, problems bigint, PRIMARY KEY ((application, hour_ms), created_ms, session))
     WITH CLUSTERING ORDER BY (created_ms DESC, session DESC)",
    "CREATE TABLE IF NOT EXISTS users (application text, user_name text, hour_ms bigint,
     session text, PRIMARY KEY ((application, user_name, hour_ms), session))",
    // sums of a session's minutes and hours, and of an application's hours. `usage` and `quality`
    // are lists in JSON: milliseconds, stays, sessions, bytes in and out; and as `QUALITY_SUMS` of
    // control/src/store/record.rs has them.
    "CREATE TABLE IF NOT EXISTS sums (application text, hour_ms bigint, unit text, at_ms bigint,
     session text, version bigint, usage text, quality text,
     PRIMARY KEY ((application, hour_ms, unit), at_ms, session))",
    "CREATE TABLE IF NOT EXISTS totals (application text, month_ms bigint, hour_ms bigint,
     usage text, quality text, PRIMARY KEY ((application, month_ms), hour_ms))",
    // Where there is something: hours of an application with `sessions` that began, or with `sums`.
    "CREATE TABLE IF NOT EXISTS hours (application text, what text, hour_ms bigint,
     PRIMARY KEY ((application, what), hour_ms)) WITH CLUSTERING ORDER BY (hour_ms DESC)",
    "CREATE TABLE IF NOT EXISTS applications (part text, application text,
     PRIMARY KEY ((part), application))",
]];

/// Brings the tables up to date. Who does it at the same time does the same.
///
/// # Errors
/// [`crate::fault::Class::Unavailable`]; the tables are of a later release.
pub(super) async fn update(cql: &Cql) -> Result<(), Fault> {
    cql.change(
        "CREATE TABLE IF NOT EXISTS steps (part text, step bigint, PRIMARY KEY ((part), step))",
    )
    .await?;
    let done = cql.rows("SELECT step FROM steps WHERE part = ?", &values!["all"]).await?;
    let done = done.iter().map(|row| row.int(0)).collect::<Result<Vec<_>, _>>()?;
    let done = usize::try_from(done.into_iter().max().unwrap_or_default()).unwrap_or(usize::MAX);
    if done > STEPS.len() {
        return Err(Fault::unavailable(format!(
            "the statistics' tables are of step {done}, of a later release than this, which knows \
             {}; update this process, or give it a keyspace of its own (statistics.url)",
            STEPS.len()
        )));
    }
    for (number, step) in STEPS.iter().enumerate().skip(done) {
        for statement in *step {
            cql.change(statement).await?;
        }
        cql.write("INSERT INTO steps (part, step) VALUES (?, ?)", &values!["all", number + 1])
            .await?;
    }
    Ok(())
}
