//! Usage and quality over time, from sums that are kept.

use std::collections::BTreeMap;

use serde::Serialize;

use super::analytics::{Filter, mean, seconds};
use super::cql::Cql;
use super::record::{DAY_MS, floor};
use super::sql::{Pool, Value};
use crate::events::grade;
use crate::fault::Fault;
use crate::limits;

/// The reading side of sums.
#[derive(Clone)]
pub struct Sums {
    pool: Pool,
    cql: Option<Cql>,
}

/// From when to when, of which application, in milliseconds since 1970.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// All when there is none.
    pub application: Option<String>,
    /// Beginning.
    pub from: i64,
    /// End.
    pub to: i64,
}

/// What was used within a unit of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Usage {
    pub at: i64,
    pub application: Option<String>,
    pub participant_seconds: f64,
    pub participant_minutes: i64,
    pub stays: i64,
    pub sessions: i64,
    pub bytes_in: i64,
    pub bytes_out: i64,
}

/// How well it went within a unit of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Quality {
    pub at: i64,
    pub measured: i64,
    pub score: f64,
    pub loss_fraction: Option<f64>,
    pub round_trip_seconds: Option<f64>,
    pub frozen_seconds: f64,
    pub problems: BTreeMap<&'static str, i64>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Trouble {
    pub problem: &'static str,
    pub meaning: &'static str,
    pub remedy: &'static str,
    pub minutes: i64,
    pub share: f64,
    pub sessions: Vec<String>,
}

/// By what usage is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Sums that are kept: `minute`, `hour`, `day`.
    Unit(&'static str),
    /// Months of the UTC calendar, from days.
    Month,
}

impl Sums {
    pub(super) fn new(pool: Pool, cql: Option<Cql>) -> Self {
        Self { pool, cql }
    }

    /// What was used, by time; `each` application by itself, or all together.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn usage(&self, span: &Span, by: By, each: bool) -> Result<Vec<Usage>, Fault> {
        if let Some(cql) = &self.cql {
            return cql.asked(cql.usage(span, by, each)).await;
        }
        let unit = if let By::Unit(unit) = by { unit } else { "day" };
        let name = if each { "application" } else { "''" };
        let at = if by == By::Month { span.months() } else { "at_ms".into() };
        let filter = span.filter(unit);
        let rows = self
            .pool
            .rows(
                &format!(
                "SELECT {at}, {name}, CAST(SUM(total_ms) AS {{int}}), CAST(SUM(stays) AS {{int}}),
                 CAST(SUM(sessions) AS {{int}}), CAST(SUM(bytes_in) AS {{int}}),
                 CAST(SUM(bytes_out) AS {{int}}) FROM usage_sums WHERE unit = ?{}
                 GROUP BY 1{} ORDER BY 1, 2",
                filter.text,
                if each { ", application" } else { "" }
            ),
                &filter.values,
            )
            .await?;
        let mut sums: BTreeMap<(i64, String), (i64, Usage)> = BTreeMap::new();
        for row in rows {
            let at = row.int(0)?;
            let at = if by == By::Month { month_of(at) } else { at };
            let application = row.text(1)?;
            let (ms, sum) = sums.entry((at, application.clone())).or_default();
            *ms += row.int(2)?;
            sum.at = at;
            sum.application = each.then_some(application).or_else(|| span.application.clone());
            sum.stays += row.int(3)?;
            sum.sessions += row.int(4)?;
            sum.bytes_in += row.int(5)?;
            sum.bytes_out += row.int(6)?;
            sum.set_time(*ms);
        }
        Ok(sums.into_values().map(|(_, sum)| sum).collect())
    }

    /// How well it went, by time.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn quality(&self, span: &Span, unit: &'static str) -> Result<Vec<Quality>, Fault> {
        if let Some(cql) = &self.cql {
            return cql.asked(cql.quality(span, unit)).await;
        }
        let filter = span.filter(unit);
        let counts = COUNTS.map(|name| format!("CAST(SUM({name}) AS {{int}})")).join(", ");
        let rows = self
            .pool
            .rows(
                &format!(
                    "SELECT at_ms, SUM(score), SUM(loss), SUM(round_trip), SUM(frozen), {counts}
                 FROM quality_sums WHERE unit = ?{} GROUP BY at_ms ORDER BY at_ms",
                    filter.text
                ),
                &filter.values,
            )
            .await?;
        let mut told = Vec::new();
        for row in rows {
            let measured = row.int(5)?;
            let mut problems = BTreeMap::new();
            for (place, problem) in grade::PROBLEMS.iter().enumerate() {
                problems.insert(problem.name, row.int(8 + place)?);
            }
            told.push(Quality {
                at: row.int(0)?,
                measured,
                score: mean(row.float(1)?, measured).unwrap_or_default(),
                loss_fraction: mean(row.float(2)?, row.int(6)?),
                round_trip_seconds: mean(row.float(3)?, row.int(7)?),
                frozen_seconds: row.float(4)?,
                problems,
            });
        }
        Ok(told)
    }

    /// What went wrong, the most frequent first, and how many minutes were measured at all.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    #[allow(clippy::cast_precision_loss)] // counts of minutes
    pub async fn problems(&self, span: &Span) -> Result<(i64, Vec<Trouble>), Fault> {
        let whole = Span { from: floor(span.from, 3_600_000), ..span.clone() };
        let hours = self.quality(&whole, "hour").await?;
        let measured: i64 = hours.iter().map(|hour| hour.measured).sum();
        let newest = match &self.cql {
            Some(cql) => cql.asked(cql.with_problems(&whole)).await?,
            None => self.with_problems(&whole).await?,
        };
        let mut troubles = Vec::new();
        for (place, problem) in grade::PROBLEMS.iter().enumerate() {
            let minutes: i64 =
                hours.iter().filter_map(|hour| hour.problems.get(problem.name)).sum();
            if minutes == 0 {
                continue;
            }
            let has = newest.iter().filter(|(_, bits)| bits >> place & 1 == 1);
            troubles.push(Trouble {
                problem: problem.name,
                meaning: problem.meaning,
                remedy: problem.remedy,
                minutes,
                share: minutes as f64 / measured.max(1) as f64,
                sessions: has.take(3).map(|(session, _)| session.clone()).collect(),
            });
        }
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.minutes));
        Ok((measured, troubles))
    }

    /// The newest sessions with problems, and those.
    async fn with_problems(&self, span: &Span) -> Result<Vec<(String, i64)>, Fault> {
        let mut filter = Filter::default();
        filter.and("application = ?", span.application.clone());
        filter.and("until_ms >= ?", Some(span.from));
        filter.and("created_ms < ?", Some(span.to));
        filter.values.push(limits::SESSIONS_LOOKED_AT.into());
        let statement = format!(
            "SELECT session, problems FROM sessions WHERE problems <> 0{}
             ORDER BY created_ms DESC, session DESC LIMIT ?",
            filter.text
        );
        let newest = self.pool.rows(&statement, &filter.values).await?;
        newest.iter().map(|row| Ok((row.text(0)?, row.int(1)?))).collect()
    }
}

impl Usage {
    /// All of several together.
    pub fn total(rows: &[Self], at: i64) -> Self {
        let mut total = Self { at, ..Self::default() };
        let mut ms = 0;
        for row in rows {
            #[allow(clippy::cast_possible_truncation)] // what was a whole number of milliseconds
            {
                ms += (row.participant_seconds * 1_000.0).round() as i64;
            }
            total.stays += row.stays;
            total.sessions += row.sessions;
            total.bytes_in += row.bytes_in;
            total.bytes_out += row.bytes_out;
        }
        total.set_time(ms);
        total
    }

    /// With its time.
    pub(super) fn lasting(mut self, ms: i64) -> Self {
        self.set_time(ms);
        self
    }

    fn set_time(&mut self, ms: i64) {
        self.participant_seconds = seconds(ms);
        self.participant_minutes = ms.div_euclid(60_000) + i64::from(ms.rem_euclid(60_000) > 0);
    }
}

impl Span {
    /// The month of a row, in SQL, where there are few: the store adds days up sooner than is done
    /// here. Otherwise its day.
    fn months(&self) -> String {
        let (mut cases, mut begin) = (String::new(), month_of(self.from));
        for _ in 0..=limits::MONTHS_CORRECTED {
            let end = month_of(begin + 32 * DAY_MS);
            cases += &format!(" WHEN at_ms < {end} THEN {begin}");
            if self.to <= end {
                return format!("CAST(CASE{cases} END AS {{int}})");
            }
            begin = end;
        }
        "at_ms".into()
    }

    fn filter(&self, unit: &str) -> Filter {
        let mut filter = Filter { text: String::new(), values: vec![Value::from(unit)] };
        filter.and("application = ?", self.application.clone());
        filter.and("at_ms >= ?", Some(self.from));
        filter.and("at_ms < ?", Some(self.to));
        filter
    }
}

const COUNTS: [&str; 10] = [
    "measured",
    "losses",
    "round_trips",
    "loss_in",
    "loss_out",
    "freezes",
    "lowered",
    "paused",
    "far",
    "queued",
];

/// The beginning of the month that a time is in (Howard Hinnant's civil calendar algorithms).
pub fn month_of(at: i64) -> i64 {
    let day = at.div_euclid(DAY_MS);
    let shifted = day + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5;
    (day - of_month) * DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        // date -u -d 2024-02-29T12:00:00 +%s, and so on.
        for (at, begins) in [
            (1_709_208_000_000, 1_706_745_600_000),
            (1_706_745_599_999, 1_704_067_200_000),
            (1_795_305_600_000, 1_793_491_200_000),
            (0, 0),
            (2_678_399_999, 0),
            (2_678_400_000, 2_678_400_000),
        ] {
            assert_eq!(month_of(at), begins, "{at}");
        }
    }

    #[test]
    fn minutes_begun_count_whole() {
        let mut usage = Usage::default();
        usage.set_time(60_001);
        assert_eq!(usage.participant_minutes, 2);
        usage.set_time(60_000);
        assert_eq!((usage.participant_minutes, usage.participant_seconds), (1, 60.0));
        assert_eq!(Usage::total(&[usage.clone(), usage], 0).participant_minutes, 2);
    }
}
