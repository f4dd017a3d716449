//! What agents write: first what events tell, then what follows from it for the sessions that they
//! told of. Broken off in between, the same events make the same of it when they are written again.

use std::collections::{BTreeMap, BTreeSet};

use super::connection::{Cql, for_all};
use super::figures::Marks;
use super::life::{HOUR, Life, MINUTE, Whole};
use crate::events::event::{Event, Stay, Stream, What};
use crate::events::grade;
use crate::fault::Fault;
use crate::store::record::{Batch, floor};
use crate::store::sql::{Value, values};

/// What events tell of one session.
struct Told {
    event: Event,
    has_begun: bool,
    ended: Option<i64>,
    stays: Vec<Stay>,
    streams: Vec<(i64, Stream)>,
}

/// Rows of one partition.
type Rows = Vec<(&'static str, Vec<Value>)>;

impl Cql {
    /// Writes what events tell, in parts, and what follows from it.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`]: the same events may be written again.
    pub async fn record(&self, events: &[Event]) -> Result<(), Fault> {
        let told = Told::all(events);
        if told.is_empty() {
            return Ok(());
        }
        self.ready().await?;
        let mut places = BTreeSet::new();
        for told in &told {
            let Event { application, created, .. } = &told.event;
            places.insert((application.clone(), "sessions", floor(*created, HOUR)));
        }
        let each = |told: Told| {
            let cql = self.clone();
            async move { told.record(&cql).await }
        };
        let mut hours = BTreeSet::new();
        for (application, of_session) in for_all(told, each).await? {
            hours.extend(of_session.into_iter().map(|hour| (application.clone(), hour)));
        }
        places.extend(hours.iter().map(|(application, hour)| (application.clone(), "sums", *hour)));
        let applications: BTreeSet<&String> = hours.iter().map(|(name, _)| name).collect();
        for application in applications {
            let statement = "INSERT INTO applications (part, application) VALUES (?, ?)
                             USING TIMESTAMP 1";
            self.write(statement, &values!["all", application]).await?;
        }
        for (application, what, hour) in places {
            let statement = "INSERT INTO hours (application, what, hour_ms) VALUES (?, ?, ?)
                             USING TIMESTAMP 1 AND TTL {keep}";
            self.write(statement, &values![application, what, hour]).await?;
        }
        // What was added up already is added up again.
        for (application, hour) in hours {
            if self.is_totalled(&application, hour).await? {
                self.total(&application, hour).await?;
            }
        }
        Ok(())
    }
}

impl Told {
    fn all(events: &[Event]) -> Vec<Self> {
        let begun = events.iter().filter(|event| event.what == What::SessionCreated);
        let begun: BTreeSet<&str> = begun.map(|event| event.session.as_str()).collect();
        let batch = Batch::fold(events);
        let mut told = BTreeMap::new();
        for (id, session) in &batch.sessions {
            let one = Self {
                event: Event { what: What::SessionCreated, ..session.event.clone() },
                has_begun: begun.contains(id),
                ended: session.ended,
                stays: Vec::new(),
                streams: Vec::new(),
            };
            told.insert(*id, one);
        }
        for (event, stay) in batch.stays.into_values() {
            if let Some(told) = told.get_mut(event.session.as_str()) {
                told.stays.push(stay);
            }
        }
        for ((_, _, minute), (event, stream)) in batch.streams {
            if let Some(told) = told.get_mut(event.session.as_str()) {
                told.streams.push((minute, stream.clone()));
            }
        }
        told.into_values().collect()
    }

    /// Returns the application, and its hours to which more was added.
    async fn record(self, cql: &Cql) -> Result<(String, BTreeSet<i64>), Fault> {
        cql.write_rows(&self.life()).await?;
        cql.write_rows(&self.stays()).await?;
        for rows in self.presence().values() {
            cql.write_rows(rows).await?;
        }
        for rows in self.quality().values() {
            cql.write_rows(rows).await?;
        }
        let Event { application, session, created, .. } = &self.event;
        for stay in &self.stays {
            // Whoever came in one hour and left in another is told of often enough.
            if floor(stay.until, HOUR) == floor(stay.joined, HOUR) || stay.left.is_some() {
                let statement = "INSERT INTO users (application, user_name, hour_ms, session)
                                 VALUES (?, ?, ?, ?) USING TIMESTAMP 1 AND TTL {keep}";
                let row = values![application, &stay.user, floor(*created, HOUR), session];
                cql.write(statement, &row).await?;
            }
        }
        let hours = self.follow(cql).await?;
        Ok((self.event.application, hours))
    }

    fn life(&self) -> Rows {
        let Event { application, session, scope, node, created, .. } = &self.event;
        let mut rows: Rows = vec![(
            "INSERT INTO lives (session, application, scope, node, created_ms)
             VALUES (?, ?, ?, ?, ?) USING TIMESTAMP 1 AND TTL {keep}",
            values![session, application, scope, node, *created].into(),
        )];
        if let Some(ended) = self.ended {
            let statement = "UPDATE lives USING TIMESTAMP 1 AND TTL {keep} SET ended_ms = ?
                             WHERE session = ?";
            rows.push((statement, values![ended, session].into()));
        }
        rows
    }

    fn stays(&self) -> Rows {
        let Event { session, node, .. } = &self.event;
        let mut rows: Rows = Vec::new();
        for stay in &self.stays {
            let Stay { stay: id, peer, name, user, client, joined, until, left, .. } = stay;
            let hour = floor(*until, HOUR);
            rows.push((
                "INSERT INTO stays (session, stay, hour_ms, peer, name, user_name, client, node,
                 joined_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP 1 AND TTL {keep}",
                values![session, id, hour, peer, name, user, client, node, *joined].into(),
            ));
            let mut grows = |statement, value: i64| {
                rows.push((statement, values![value, value, session, id, hour].into()));
            };
            grows(
                "UPDATE stays USING TIMESTAMP ? AND TTL {keep} SET until_ms = ?
                 WHERE session = ? AND stay = ? AND hour_ms = ?",
                *until,
            );
            let [bytes_in, bytes_out] = bytes(stay);
            grows(
                "UPDATE stays USING TIMESTAMP ? AND TTL {keep} SET bytes_in = ?
                 WHERE session = ? AND stay = ? AND hour_ms = ?",
                bytes_in,
            );
            grows(
                "UPDATE stays USING TIMESTAMP ? AND TTL {keep} SET bytes_out = ?
                 WHERE session = ? AND stay = ? AND hour_ms = ?",
                bytes_out,
            );
            if let Some(reason) = left {
                let statement = "UPDATE stays USING TIMESTAMP ? AND TTL {keep} SET reason = ?
                                 WHERE session = ? AND stay = ? AND hour_ms = ?";
                rows.push((statement, values![*until, reason, session, id, hour].into()));
            }
        }
        rows
    }

    fn presence(&self) -> BTreeMap<i64, Rows> {
        let mut rows: BTreeMap<i64, Rows> = BTreeMap::new();
        for stay in &self.stays {
            let (hour, minute) = (floor(stay.until, HOUR), floor(stay.until, MINUTE));
            let rows = rows.entry(hour).or_default();
            let mut grows = |statement, value: i64| {
                let row = values![value, value, &self.event.session, hour, &stay.stay, minute];
                rows.push((statement, row.into()));
            };
            let [bytes_in, bytes_out] = bytes(stay);
            grows(
                "UPDATE presence USING TIMESTAMP ? AND TTL {keep} SET bytes_in = ?
                 WHERE session = ? AND hour_ms = ? AND stay = ? AND minute_ms = ?",
                bytes_in,
            );
            grows(
                "UPDATE presence USING TIMESTAMP ? AND TTL {keep} SET bytes_out = ?
                 WHERE session = ? AND hour_ms = ? AND stay = ? AND minute_ms = ?",
                bytes_out,
            );
        }
        rows
    }

    fn quality(&self) -> BTreeMap<i64, Rows> {
        let mut rows: BTreeMap<i64, Rows> = BTreeMap::new();
        let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
        for (minute, stream) in &self.streams {
            let hour = floor(*minute, HOUR);
            let row = values![
                &self.event.session,
                hour,
                *minute,
                &stream.stay,
                &stream.stream,
                stream.seconds,
                stream.packets,
                stream.bytes,
                grade::score(stream),
                known(stream.loss),
                known(stream.round_trip),
                known(stream.jitter),
                known(stream.queue_delay),
                stream.frozen,
                stream.lowered,
                stream.paused,
                grade::problems(stream),
            ];
            rows.entry(hour).or_default().push((
                "INSERT INTO quality (session, hour_ms, minute_ms, stay, stream, seconds, packets,
                 bytes, score, loss, round_trip, jitter, queue_delay, frozen_seconds, lowered, paused,
                 problems) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 USING TIMESTAMP 1 AND TTL {keep}",
                row.into(),
            ));
        }
        rows
    }

    /// Reads what is known of the session now, and writes what follows from it.
    async fn follow(&self, cql: &Cql) -> Result<BTreeSet<i64>, Fault> {
        let session = &self.event.session;
        let graded: BTreeSet<i64> = self.streams.iter().map(|(minute, _)| *minute).collect();
        for minute in &graded {
            grade_minute(cql, session, *minute).await?;
        }
        let (mut life, ended) = read_life(cql, session, self.event.created).await?;
        let told = || self.stays.iter().map(|stay| (stay.stay.as_str(), stay.until));
        let near = told().filter_map(|(id, until)| Some(life.stays.get(id)?.near(until)));
        let mut known: BTreeSet<i64> = near.flatten().collect();
        for hour in &known {
            read_minutes(cql, session, *hour, &mut life).await?;
        }
        let is_edge = self.has_begun || self.ended.is_some();
        let changed = life.changed(told(), graded.into_iter(), is_edge);
        let mut hours: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for minute in changed {
            hours.entry(floor(minute, HOUR)).or_default().push(minute);
        }
        for hour in hours.keys() {
            if known.insert(*hour) {
                read_minutes(cql, session, *hour, &mut life).await?;
            }
        }
        for (hour, minutes) in &hours {
            self.write_sums(cql, &life, *hour, minutes).await?;
        }
        self.write_session(cql, &life, ended).await?;
        Ok(hours.into_keys().collect())
    }

    async fn write_sums(
        &self,
        cql: &Cql,
        life: &Life,
        hour: i64,
        minutes: &[i64],
    ) -> Result<(), Fault> {
        let Event { application, session, .. } = &self.event;
        let version = life.version(Some(hour));
        let row = |unit: &str, at: i64, used: super::figures::Used, marks: Marks| {
            let row = values![
                application,
                hour,
                unit,
                at,
                session,
                version,
                used.write(),
                marks.write(),
                version,
            ];
            (
                "INSERT INTO sums (application, hour_ms, unit, at_ms, session, version, usage,
                 quality) VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL {keep}",
                row.into(),
            )
        };
        let rows: Rows = minutes
            .iter()
            .map(|at| {
                let (used, marks) = life.minute(*at);
                row("minute", *at, used, marks)
            })
            .collect();
        cql.write_rows(&rows).await?;
        let (used, marks) = life.at_hour(hour);
        cql.write_rows(&[row("hour", hour, used, marks)]).await
    }

    async fn write_session(&self, cql: &Cql, life: &Life, ended: i64) -> Result<(), Fault> {
        let Event { application, session, scope, node, created, .. } = &self.event;
        let Whole { until, stays, present, used, marks } = life.whole();
        let [total_ms, _, _, bytes_in, bytes_out] = used.0;
        let row = values![
            application,
            life.hour(),
            *created,
            session,
            scope,
            node,
            ended,
            until,
            stays,
            present,
            total_ms,
            bytes_in,
            bytes_out,
            marks.0[1],
            marks.measured(),
            marks.problems(),
            life.version(None),
        ];
        let statement = "INSERT INTO sessions (application, hour_ms, created_ms, session, scope,
            node, ended_ms, until_ms, stays, present, total_ms, bytes_in, bytes_out, score_sum,
            scored, problems) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            USING TIMESTAMP ? AND TTL {keep}";
        cql.write(statement, &row).await
    }
}

fn bytes(stay: &Stay) -> [i64; 2] {
    [stay.bytes_in, stay.bytes_out].map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Adds up the streams of a session's minute.
async fn grade_minute(cql: &Cql, session: &str, minute: i64) -> Result<(), Fault> {
    let statement = "SELECT score, problems, loss, round_trip, frozen_seconds FROM quality
                     WHERE session = ? AND hour_ms = ? AND minute_ms = ?";
    let mut marks = Marks::default();
    for row in cql.rows(statement, &values![session, floor(minute, HOUR), minute]).await? {
        marks.mark(row.float(0)?, row.int(1)?, row.float(2)?, row.float(3)?, row.float(4)?);
    }
    let statement = "INSERT INTO grades (session, minute_ms, quality) VALUES (?, ?, ?)
                     USING TIMESTAMP ? AND TTL {keep}";
    cql.write(statement, &values![session, minute, marks.write(), marks.measured()]).await
}

/// What is known of a session without its minutes, and when it ended, or 0.
async fn read_life(cql: &Cql, session: &str, created: i64) -> Result<(Life, i64), Fault> {
    let ended = cql.rows("SELECT ended_ms FROM lives WHERE session = ?", &values![session]).await?;
    let ended = ended.first().map(|row| row.int(0)).transpose()?.unwrap_or_default();
    let mut life = Life { created, has_ended: ended != 0, ..Life::default() };
    let statement = "SELECT stay, hour_ms, joined_ms, until_ms, reason, bytes_in, bytes_out
                     FROM stays WHERE session = ?";
    for row in cql.rows(statement, &values![session]).await? {
        let stay = life.stays.entry(row.text(0)?).or_default();
        stay.joined = row.int(2)?;
        stay.is_over |= row.text_maybe(4)?.is_some();
        stay.hours.insert(row.int(1)?, (row.int(3)?, [row.int(5)?, row.int(6)?]));
    }
    let statement = "SELECT minute_ms, quality FROM grades WHERE session = ?";
    for row in cql.rows(statement, &values![session]).await? {
        life.grades.insert(row.int(0)?, Marks::read(&row.text(1)?)?);
    }
    Ok((life, ended))
}

async fn read_minutes(cql: &Cql, session: &str, hour: i64, life: &mut Life) -> Result<(), Fault> {
    let statement = "SELECT stay, minute_ms, bytes_in, bytes_out FROM presence
                     WHERE session = ? AND hour_ms = ?";
    for row in cql.rows(statement, &values![session, hour]).await? {
        if let Some(stay) = life.stays.get_mut(&row.text(0)?) {
            stay.minutes.insert(row.int(1)?, [row.int(2)?, row.int(3)?]);
        }
    }
    Ok(())
}
