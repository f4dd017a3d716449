//! What was recorded of sessions, their stays and streams, for those who ask.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cql::Cql;
use super::record::floor;
use super::sql::{Pool, Row, Value, values};
use crate::events::grade;
use crate::fault::Fault;
use crate::limits;

/// The reading side of sessions.
#[derive(Clone)]
pub struct Analytics {
    pool: Pool,
    cql: Option<Cql>,
}

/// Which sessions.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of one application.
    pub application: Option<String>,
    /// Of this scope name.
    pub scope: Option<String>,
    /// In which this user was.
    pub user: Option<String>,
    /// Those that last, or those that are over.
    pub live: Option<bool>,
    /// With these problems, as bits.
    pub problems: Option<i64>,
    /// That began at or after this time.
    pub from: Option<i64>,
    /// That began before this time.
    pub to: Option<i64>,
    /// After this one in the list: its time and identifier.
    pub after: Option<(i64, String)>,
    /// So many at most.
    pub count: usize,
}

/// A life of a scope.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Session {
    pub session: String,
    pub application: String,
    pub scope: String,
    pub node: String,
    pub created_at: i64,
    pub ended_at: Option<i64>,
    pub live: bool,
    pub stays: i64,
    pub present: i64,
    pub participant_seconds: f64,
    pub bytes_in: i64,
    pub bytes_out: i64,
    pub score: Option<f64>,
    pub problems: Vec<&'static str>,
}

/// A peer's stay in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Stay {
    pub stay: String,
    pub peer: String,
    pub name: String,
    pub user: String,
    pub client: String,
    pub node: String,
    pub joined_at: i64,
    pub until: i64,
    pub left: bool,
    pub reason: Option<String>,
    pub participant_seconds: f64,
    pub bytes_in: i64,
    pub bytes_out: i64,
    pub score: Option<f64>,
    pub problems: Vec<&'static str>,
}

/// A stream over time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Stream {
    pub stay: String,
    pub peer: String,
    pub name: String,
    pub direction: &'static str,
    pub stream: String,
    pub points: Vec<Point>,
}

/// A minute of it, or several together.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Point {
    pub at: i64,
    pub seconds: f64,
    pub packets: i64,
    pub bytes: i64,
    pub score: f64,
    pub loss_fraction: Option<f64>,
    pub round_trip_seconds: Option<f64>,
    pub jitter_seconds: Option<f64>,
    pub queue_delay_seconds: Option<f64>,
    pub frozen_seconds: f64,
    pub lowered: f64,
    pub paused: f64,
    pub problems: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Worst>,
}

/// The worst minute of several, for each figure by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Worst {
    pub score: f64,
    pub loss_fraction: Option<f64>,
    pub round_trip_seconds: Option<f64>,
    pub jitter_seconds: Option<f64>,
    pub queue_delay_seconds: Option<f64>,
    pub bits_per_second: Option<f64>,
}

/// Over how many minutes streams are told together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The first minute, in milliseconds since 1970.
    pub from: i64,
    /// Its length.
    pub length_ms: i64,
}

impl Step {
    /// Steps of whole minutes, so that there are `points` of them at most, or one for each minute.
    pub fn new(from: i64, to: i64, points: Option<i64>) -> Self {
        let from = floor(from, MINUTE_MS);
        let minutes = (to - from).max(0) / MINUTE_MS + 1;
        let together = points.map_or(1, |points| (minutes + points - 1) / points.max(1)).max(1);
        Self { from, length_ms: together * MINUTE_MS }
    }
}

const MINUTE_MS: i64 = 60_000;

impl Analytics {
    pub(super) fn new(pool: Pool, cql: Option<Cql>) -> Self {
        Self { pool, cql }
    }

    /// Sessions, the newest first.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn sessions(&self, wanted: &Wanted, now: i64) -> Result<Vec<Session>, Fault> {
        if let Some(cql) = &self.cql {
            return cql.asked(cql.sessions(wanted, now)).await;
        }
        let mut filter = Filter::default();
        filter.and("application = ?", wanted.application.clone());
        filter.and("scope = ?", wanted.scope.clone());
        filter.and("created_ms >= ?", wanted.from);
        filter.and("created_ms < ?", wanted.to);
        filter.and("(problems & ?) <> 0", wanted.problems);
        let fresh = now - limits::LIVE_MS;
        match wanted.live {
            Some(true) => filter.and("ended_ms IS NULL AND until_ms >= ?", Some(fresh)),
            Some(false) => filter.and("NOT (ended_ms IS NULL AND until_ms >= ?)", Some(fresh)),
            None => {}
        }
        if let Some(user) = &wanted.user {
            let (of, application) = match &wanted.application {
                Some(application) => ("application = ? AND ", Some(application.clone())),
                None => ("", None),
            };
            filter.text +=
                &format!(" AND session IN (SELECT session FROM stays WHERE {of}user_name = ?)");
            filter.values.extend(application.map(Value::from));
            filter.values.push(user.into());
        }
        if let Some((created, session)) = &wanted.after {
            filter.text += " AND (created_ms < ? OR (created_ms = ? AND session < ?))";
            filter.values.extend(values![*created, *created, session]);
        }
        filter.values.push(wanted.count.into());
        let statement = format!(
            "SELECT {} FROM sessions WHERE 1 = 1{}
             ORDER BY created_ms DESC, session DESC LIMIT ?",
            session_columns!(),
            filter.text
        );
        let rows = self.pool.rows(&statement, &filter.values).await?;
        rows.iter().map(|row| Ok(Kept::read(row)?.told(now))).collect()
    }

    /// One session.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn session(&self, id: &str, now: i64) -> Result<Option<Session>, Fault> {
        if let Some(cql) = &self.cql {
            return cql.asked(cql.session_of(id, now)).await;
        }
        let statement = concat!("SELECT ", session_columns!(), " FROM sessions WHERE session = ?");
        let row = self.pool.row(statement, &values![id]).await?;
        row.map(|row| Ok(Kept::read(&row)?.told(now))).transpose()
    }

    /// Its stays, the first ones first, so many at most.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn stays(&self, session: &str, count: usize) -> Result<Vec<Stay>, Fault> {
        if let Some(cql) = &self.cql {
            return cql.asked(cql.stays(session, count)).await;
        }
        let rows = self
            .pool
            .rows(
                "SELECT stay, peer, name, user_name, client, node, joined_ms, until_ms, is_over,
             reason, bytes_in, bytes_out, score_sum, scored, problems
             FROM stays WHERE session = ? ORDER BY joined_ms, stay LIMIT ?",
                &values![session, count],
            )
            .await?;
        let stay = |row: &Row| {
            let (joined_at, until) = (row.int(6)?, row.int(7)?);
            Ok(Stay {
                stay: row.text(0)?,
                peer: row.text(1)?,
                name: row.text(2)?,
                user: row.text(3)?,
                client: row.text(4)?,
                node: row.text(5)?,
                joined_at,
                until,
                left: row.is(8)?,
                reason: row.text_maybe(9)?,
                participant_seconds: seconds(until - joined_at),
                bytes_in: row.int(10)?,
                bytes_out: row.int(11)?,
                score: mean(row.float(12)?, row.int(13)?),
                problems: grade::names(row.int(14)?),
            })
        };
        rows.iter().map(stay).collect()
    }

    /// Its streams step by step: sums of what is counted, means of what is measured, and the worst
    /// minutes where a step has several. So many points of all streams at most, the first ones.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`], [`crate::fault::Class::Unavailable`].
    pub async fn timeline(
        &self,
        session: &str,
        step: Step,
        count: usize,
    ) -> Result<Vec<Stream>, Fault> {
        if let Some(cql) = &self.cql {
            return cql.asked(cql.timeline(session, step, count)).await;
        }
        let problems: Vec<_> = (0..grade::PROBLEMS.len())
            .map(|place| format!("MAX(problems & {})", 1_i64 << place))
            .collect();
        let statement = format!(
            "SELECT q.stay, s.peer, s.name, q.stream, q.at_ms, q.seconds, q.packets, q.bytes,
             q.score, q.loss, q.round_trip, q.jitter, q.queue_delay, q.frozen, q.lowered, q.paused,
             q.problems, q.score_min, q.loss_max, q.round_trip_max, q.jitter_max, q.queue_delay_max,
             q.bitrate_min
             FROM (SELECT stay, stream, minute_ms - (minute_ms - ?) % ? AS at_ms,
                 SUM(seconds) AS seconds, CAST(SUM(packets) AS {{int}}) AS packets,
                 CAST(SUM(bytes) AS {{int}}) AS bytes, AVG(score) AS score, AVG(loss) AS loss,
                 AVG(round_trip) AS round_trip, AVG(jitter) AS jitter,
                 AVG(queue_delay) AS queue_delay, SUM(frozen) AS frozen, AVG(lowered) AS lowered,
                 AVG(paused) AS paused, CAST({} AS {{int}}) AS problems, MIN(score) AS score_min,
                 MAX(loss) AS loss_max, MAX(round_trip) AS round_trip_max, MAX(jitter) AS jitter_max,
                 MAX(queue_delay) AS queue_delay_max,
                 MIN(CASE WHEN seconds > 0 THEN bytes * 8 / seconds END) AS bitrate_min
                 FROM quality WHERE session = ? GROUP BY 1, 2, 3 ORDER BY 3, 1, 2 LIMIT ?) q
             JOIN stays s ON s.stay = q.stay ORDER BY q.at_ms",
            problems.join(" + ")
        );
        let values = values![step.from, step.length_ms, session, count];
        let rows = self.pool.rows(&statement, &values).await?;
        let is_minute = step.length_ms == MINUTE_MS;
        let mut streams: BTreeMap<(String, String), Stream> = BTreeMap::new();
        for row in rows {
            let (stay, name) = (row.text(0)?, row.text(3)?);
            let worst = || {
                Ok::<_, Fault>(Worst {
                    score: row.float(17)?,
                    loss_fraction: row.float_maybe(18)?,
                    round_trip_seconds: row.float_maybe(19)?,
                    jitter_seconds: row.float_maybe(20)?,
                    queue_delay_seconds: row.float_maybe(21)?,
                    bits_per_second: row.float_maybe(22)?,
                })
            };
            let point = Point {
                at: row.int(4)?,
                seconds: row.float(5)?,
                packets: row.int(6)?,
                bytes: row.int(7)?,
                score: row.float(8)?,
                loss_fraction: row.float_maybe(9)?,
                round_trip_seconds: row.float_maybe(10)?,
                jitter_seconds: row.float_maybe(11)?,
                queue_delay_seconds: row.float_maybe(12)?,
                frozen_seconds: row.float(13)?,
                lowered: row.float(14)?,
                paused: row.float(15)?,
                problems: grade::names(row.int(16)?),
                worst: (!is_minute).then(worst).transpose()?,
            };
            let (peer, called) = (row.text(1)?, row.text(2)?);
            let stream = streams.entry((stay.clone(), name.clone())).or_insert_with(|| Stream {
                stay,
                peer,
                name: called,
                direction: if name.is_empty() { "out" } else { "in" },
                stream: name,
                points: Vec::new(),
            });
            stream.points.push(point);
        }
        Ok(streams.into_values().collect())
    }
}

/// Conditions of a statement and their arguments.
#[derive(Default)]
pub(super) struct Filter {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

impl Filter {
    /// One more condition, where there is something to compare with.
    pub(super) fn and<T: Into<Value>>(&mut self, condition: &str, value: Option<T>) {
        if let Some(value) = value {
            self.text += " AND ";
            self.text += condition;
            self.values.push(value.into());
        }
    }
}

/// Columns of a session's row, as [`Kept::read`] takes them.
macro_rules! session_columns {
    () => {
        "session, application, scope, node, created_ms, ended_ms, until_ms, stays, present, \
         total_ms, bytes_in, bytes_out, score_sum, scored, problems"
    };
}
pub(super) use session_columns;

/// A row of SQL or of CQL.
pub(super) trait Columns {
    fn text(&self, column: usize) -> Result<String, Fault>;
    fn int(&self, column: usize) -> Result<i64, Fault>;
    /// None when there is none.
    fn time(&self, column: usize) -> Result<Option<i64>, Fault>;
    fn float(&self, column: usize) -> Result<f64, Fault>;
}

impl Columns for Row {
    fn text(&self, column: usize) -> Result<String, Fault> {
        self.text(column)
    }

    fn int(&self, column: usize) -> Result<i64, Fault> {
        self.int(column)
    }

    fn time(&self, column: usize) -> Result<Option<i64>, Fault> {
        self.int_maybe(column)
    }

    fn float(&self, column: usize) -> Result<f64, Fault> {
        self.float(column)
    }
}

/// A session as it is kept.
pub(super) struct Kept {
    pub(super) session: String,
    pub(super) application: String,
    pub(super) scope: String,
    pub(super) node: String,
    pub(super) created_at: i64,
    pub(super) ended: Option<i64>,
    pub(super) until: i64,
    pub(super) stays: i64,
    pub(super) present: i64,
    pub(super) total_ms: i64,
    pub(super) bytes_in: i64,
    pub(super) bytes_out: i64,
    pub(super) score_sum: f64,
    pub(super) scored: i64,
    pub(super) problems: i64,
}

impl Kept {
    /// Reads a row of [`session_columns`].
    pub(super) fn read(row: &impl Columns) -> Result<Self, Fault> {
        Ok(Self {
            session: row.text(0)?,
            application: row.text(1)?,
            scope: row.text(2)?,
            node: row.text(3)?,
            created_at: row.int(4)?,
            ended: row.time(5)?,
            until: row.int(6)?,
            stays: row.int(7)?,
            present: row.int(8)?,
            total_ms: row.int(9)?,
            bytes_in: row.int(10)?,
            bytes_out: row.int(11)?,
            score_sum: row.float(12)?,
            scored: row.int(13)?,
            problems: row.int(14)?,
        })
    }

    fn is_live(&self, now: i64) -> bool {
        self.ended.is_none() && self.until >= now - limits::LIVE_MS
    }

    /// Whether it is one of those that are asked for, but for the user.
    pub(super) fn is_wanted(&self, wanted: &Wanted, now: i64) -> bool {
        let is = |name: &String, asked: &Option<String>| asked.as_ref().is_none_or(|it| it == name);
        is(&self.application, &wanted.application)
            && is(&self.scope, &wanted.scope)
            && wanted.live.is_none_or(|live| live == self.is_live(now))
            && wanted.problems.is_none_or(|bits| bits & self.problems != 0)
            && wanted.from.is_none_or(|from| self.created_at >= from)
            && wanted.to.is_none_or(|to| self.created_at < to)
            && wanted.after.as_ref().is_none_or(|(created, session)| {
                (self.created_at, &self.session) < (*created, session)
            })
    }

    /// As it is told.
    pub(super) fn told(self, now: i64) -> Session {
        let live = self.is_live(now);
        Session {
            session: self.session,
            application: self.application,
            scope: self.scope,
            node: self.node,
            created_at: self.created_at,
            // That of a node that died ended when it was last told of.
            ended_at: self.ended.or((!live).then_some(self.until)),
            live,
            stays: self.stays,
            present: if live { self.present } else { 0 },
            participant_seconds: seconds(self.total_ms),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            score: mean(self.score_sum, self.scored),
            problems: grade::names(self.problems),
        }
    }
}

/// Milliseconds as seconds.
#[allow(clippy::cast_precision_loss)] // a millisecond in 285,000 years
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// A sum's mean.
#[allow(clippy::cast_precision_loss)] // counts of minutes
pub(super) fn mean(sum: f64, count: i64) -> Option<f64> {
    (count > 0).then(|| (sum / count as f64 * 10_000.0).round() / 10_000.0)
}
