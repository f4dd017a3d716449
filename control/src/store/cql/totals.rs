//! Sums of applications: added up from those of their sessions when they are asked for, or once and
//! for all when an hour is over.
//!
//! Who adds up says so first (a row without sums), then reads, then writes. Who adds to an hour writes
//! first, then looks for that row: so one of the two sees the other, whatever their clocks say.

use std::collections::BTreeMap;
use std::ops::Range;

use super::connection::{Cql, for_all};
use super::figures::{Marks, Used};
use super::life::HOUR;
use crate::fault::Fault;
use crate::limits;
use crate::store::record::floor;
use crate::store::sql::values;
use crate::store::sums::month_of;

/// Sums by time.
type ByTime = BTreeMap<i64, (Used, Marks)>;
/// Sums of an application's units of time.
pub(super) type Sums = (String, ByTime);

impl Cql {
    /// Sums of `applications` by the unit of `length`, for units that begin in `when`.
    pub(super) async fn sums(
        &self,
        application: Option<&String>,
        when: Range<i64>,
        length: i64,
    ) -> Result<Vec<Sums>, Fault> {
        let each = |application: String| {
            let (cql, when) = (self.clone(), when.clone());
            async move {
                let sums = if length < HOUR {
                    cql.minutes(&application, when).await?
                } else {
                    // The last unit counts to its own end.
                    let end = floor(when.end.saturating_sub(1), length) + length;
                    cql.hours_as(&application, when.start..end, length).await?
                };
                Ok((application, sums))
            }
        };
        for_all(self.applications(application).await?, each).await
    }

    /// The one that is meant, or all that there are.
    pub(super) async fn applications(&self, one: Option<&String>) -> Result<Vec<String>, Fault> {
        if let Some(one) = one {
            return Ok(vec![one.clone()]);
        }
        let statement = "SELECT application FROM applications WHERE part = ?";
        let rows = self.rows(statement, &values!["all"]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// Hours of an application in which there is something, the newest first.
    pub(super) async fn hours(
        &self,
        application: &str,
        what: &str,
        when: Range<i64>,
    ) -> Result<Vec<i64>, Fault> {
        let statement = "SELECT hour_ms FROM hours WHERE application = ? AND what = ?
                         AND hour_ms >= ? AND hour_ms < ?";
        let hours = values![application, what, floor(when.start, HOUR), when.end];
        self.rows(statement, &hours).await?.iter().map(|row| row.int(0)).collect()
    }

    async fn minutes(&self, application: &str, when: Range<i64>) -> Result<ByTime, Fault> {
        let hours = self.hours(application, "sums", when.clone()).await?;
        let each = |hour: i64| {
            let (cql, application, when) = (self.clone(), application.to_owned(), when.clone());
            async move {
                let statement = "SELECT at_ms, usage, quality FROM sums WHERE application = ?
                    AND hour_ms = ? AND unit = ? AND at_ms >= ? AND at_ms < ?";
                let wanted = values![application, hour, "minute", when.start, when.end];
                cql.added_up(statement, &wanted, 1).await
            }
        };
        let mut all = ByTime::new();
        for sums in for_all(hours, each).await? {
            all.extend(sums);
        }
        Ok(all)
    }

    /// Hours, added up by a unit of that length.
    async fn hours_as(
        &self,
        application: &str,
        when: Range<i64>,
        length: i64,
    ) -> Result<ByTime, Fault> {
        let mut months = Vec::new();
        let mut month = month_of(when.start);
        while month < when.end {
            months.push(month);
            month = next_month(month);
        }
        let each = |month: i64| {
            let (cql, application, when) = (self.clone(), application.to_owned(), when.clone());
            async move {
                let statement = "SELECT hour_ms, usage, quality FROM totals WHERE application = ?
                    AND month_ms = ? AND hour_ms >= ? AND hour_ms < ?";
                let wanted = values![application, month, when.start, when.end];
                cql.added_up(statement, &wanted, 1).await
            }
        };
        let mut hours = ByTime::new();
        for sums in for_all(months, each).await? {
            hours.extend(sums);
        }
        let open = self.hours(application, "sums", when.clone()).await?;
        let open = open.into_iter().filter(|hour| when.contains(hour) && !hours.contains_key(hour));
        let each = |hour: i64| {
            let (cql, application) = (self.clone(), application.to_owned());
            async move { cql.sessions_of_hour(&application, hour).await }
        };
        for (sums, _) in for_all(open.collect::<Vec<_>>(), each).await? {
            hours.extend(sums);
        }
        let mut all = ByTime::new();
        for (hour, (used, marks)) in hours {
            let sum = all.entry(floor(hour, length)).or_default();
            sum.0.add(&used);
            sum.1.add(&marks);
        }
        Ok(all)
    }

    /// Rows of a time, usage and quality, added up by time.
    async fn added_up(
        &self,
        statement: &'static str,
        values: &[crate::store::sql::Value],
        usage: usize,
    ) -> Result<ByTime, Fault> {
        let mut all = ByTime::new();
        self.each(statement, values, |row| {
            let usage = row.text(usage)?;
            // One that is only announced.
            if !usage.is_empty() {
                let sum = all.entry(row.int(0)?).or_default();
                sum.0.add(&Used::read(&usage)?);
                sum.1.add(&Marks::read(&row.text(2)?)?);
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .await?;
        Ok(all)
    }

    /// An hour's sessions added up, and the version of that.
    async fn sessions_of_hour(&self, application: &str, hour: i64) -> Result<(ByTime, i64), Fault> {
        let statement = "SELECT version, usage, quality FROM sums
                         WHERE application = ? AND hour_ms = ? AND unit = ? AND at_ms = ?";
        let (mut sum, mut version) = ((Used::default(), Marks::default()), 1_i64);
        self.each(statement, &values![application, hour, "hour", hour], |row| {
            version = version.saturating_add(row.int(0)?);
            sum.0.add(&Used::read(&row.text(1)?)?);
            sum.1.add(&Marks::read(&row.text(2)?)?);
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .await?;
        Ok((BTreeMap::from([(hour, sum)]), version.min(limits::CQL_VERSION_MAX)))
    }

    /// Whether an hour was added up, or is about to be.
    pub(super) async fn is_totalled(&self, application: &str, hour: i64) -> Result<bool, Fault> {
        let statement = "SELECT hour_ms FROM totals
                         WHERE application = ? AND month_ms = ? AND hour_ms = ?";
        let rows = self.rows(statement, &values![application, month_of(hour), hour]).await?;
        Ok(!rows.is_empty())
    }

    /// Adds up an hour, once and for all: what comes later adds it up again.
    pub(super) async fn total(&self, application: &str, hour: i64) -> Result<(), Fault> {
        let month = month_of(hour);
        let statement = "INSERT INTO totals (application, month_ms, hour_ms) VALUES (?, ?, ?)
                         USING TIMESTAMP 1";
        self.write(statement, &values![application, month, hour]).await?;
        let (sums, version) = self.sessions_of_hour(application, hour).await?;
        for (used, marks) in sums.into_values() {
            let statement = "INSERT INTO totals (application, month_ms, hour_ms, usage, quality)
                             VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?";
            let row = values![application, month, hour, used.write(), marks.write(), version];
            self.write(statement, &row).await?;
        }
        Ok(())
    }

    /// Adds up the hours that are over and were not added up yet. What is old goes by itself.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn add_up(&self, now: i64) -> Result<(), Fault> {
        self.ready().await?;
        let end = floor(now - limits::CQL_HOUR_OPEN_MS, HOUR);
        let each = |application: String| {
            let cql = self.clone();
            async move {
                for hour in cql.hours(&application, "sums", 0..end).await? {
                    if !cql.is_totalled(&application, hour).await? {
                        cql.total(&application, hour).await?;
                    }
                }
                Ok(())
            }
        };
        for_all(self.applications(None).await?, each).await.map(|_| ())
    }
}

/// The beginning of the month after that which begins then.
fn next_month(month: i64) -> i64 {
    month_of(month + 32 * 24 * HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_each_other() {
        let (mut month, mut count) = (0, 0);
        while month < 946_684_800_000 {
            month = next_month(month);
            count += 1;
        }
        assert_eq!((month, count), (946_684_800_000, 360), "2000-01-01");
    }
}
