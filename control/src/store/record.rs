//! What agents write: events become stays, sessions, sums and quality. Writing the same events again
//! changes nothing: each stay and each minute of a stream is there once, and sums change by what
//! these did, in the same transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::cql::Cql;
use super::sql::{Open, Pool, Value, times, values};
use crate::events::event::{Event, Stay, Stream, What};
use crate::events::grade;
use crate::fault::{Class, Fault};
use crate::limits;

/// Length of a minute, an hour, a day in milliseconds, by what sums are called.
pub const UNITS: [(&str, i64); 3] = [("minute", 60_000), ("hour", 3_600_000), ("day", 86_400_000)];
/// A day, in milliseconds.
pub(super) const DAY_MS: i64 = 86_400_000;

/// The writing side.
#[derive(Clone)]
pub struct Records {
    pool: Pool,
    cql: Option<Cql>,
    /// Checks before that were forgotten.
    forgotten: Arc<AtomicI64>,
}

/// What a batch of events says, folded.
#[derive(Default)]
pub(super) struct Batch<'a> {
    pub(super) sessions: BTreeMap<&'a str, Session<'a>>,
    pub(super) stays: BTreeMap<&'a str, (&'a Event, Stay)>,
    pub(super) streams: BTreeMap<(&'a str, &'a str, i64), (&'a Event, &'a Stream)>,
    checks: Vec<(&'a Event, i64, bool, &'a str)>,
}

/// A session, and by how much its row changes.
pub(super) struct Session<'a> {
    pub(super) event: &'a Event,
    pub(super) ended: Option<i64>,
    until: i64,
    change: Change,
    grades: Grades,
}

/// By how much sums of stays change.
#[derive(Default, Clone, Copy)]
struct Change {
    total_ms: i64,
    stays: i64,
    present: i64,
    sessions: i64,
    bytes_in: i64,
    bytes_out: i64,
}

/// What is known of several minutes of streams.
#[derive(Default, Clone, Copy)]
struct Grades {
    score: f64,
    count: i64,
    problems: i64,
}

type Usage<'a> = BTreeMap<(&'a str, &'static str, i64), Change>;
type Quality<'a> = BTreeMap<(&'a str, &'static str, i64), Vec<(&'a Stream, f64, i64)>>;

impl Records {
    pub(super) fn new(pool: Pool, cql: Option<Cql>) -> Self {
        Self { pool, cql, forgotten: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// Writes what events say: all of it, or, in SQL, nothing. What concerns nodes is in SQL
    /// wherever the rest is.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`]; the same events may be written again.
    pub async fn write(&self, events: &[Event]) -> Result<(), Fault> {
        let Some(cql) = &self.cql else { return self.write_sql(events).await.map_err(again) };
        let is_check = |event: &&Event| matches!(event.what, What::Checked { .. });
        let (checks, rest): (Vec<_>, Vec<_>) = events.iter().partition(is_check);
        let (checks, rest) =
            [checks, rest].map(|of| of.into_iter().cloned().collect::<Vec<_>>()).into();
        if !checks.is_empty() {
            self.write_sql(&checks).await.map_err(again)?;
        }
        cql.record(&rest).await.map_err(again)
    }

    async fn write_sql(&self, events: &[Event]) -> Result<(), Fault> {
        let mut batch = Batch::fold(events);
        let (mut usage, mut quality) = (Usage::new(), Quality::new());
        let mut open = self.pool.begin().await?;
        batch.open_sessions(&mut open, &mut usage).await?;
        batch.write_stays(&mut open, &mut usage).await?;
        batch.write_streams(&mut open, &mut quality).await?;
        batch.write_sessions(&mut open).await?;
        write_usage(&mut open, &usage).await?;
        write_quality(&mut open, &quality).await?;
        for (event, minute, is_well, reason) in &batch.checks {
            let statement = "{insert} checks (node, kind, minute_ms, is_well, reason)
                             VALUES (?, 'self', ?, ?, ?) {unless there}";
            let values = values![&event.node, *minute, *is_well, *reason];
            if open.execute(statement, &values).await? > 0 {
                // Its day may have been summed up without it. Where some of that is forgotten the sum
                // is all there is.
                let day = floor(*minute, DAY_MS);
                if day >= self.forgotten.load(Ordering::Relaxed) {
                    let undo = "DELETE FROM check_days WHERE at_ms = ?";
                    open.execute(undo, &values![day]).await?;
                }
            }
        }
        open.commit().await
    }

    /// Adds up what is over, where that is not done in the same transaction.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn add_up(&self, now: i64) -> Result<(), Fault> {
        match &self.cql {
            Some(cql) => cql.add_up(now).await.map_err(again),
            None => Ok(()),
        }
    }

    /// Removes what is older than `before`; sums by day stay. Returns whether there may be more.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub async fn forget(&self, before: i64) -> Result<bool, Fault> {
        self.forgotten.fetch_max(before, Ordering::Relaxed);
        let old = "SELECT session FROM sessions WHERE until_ms < ? ORDER BY until_ms LIMIT ?";
        let old = self.pool.rows(old, &values![before, limits::SESSIONS_FORGOTTEN_AT_ONCE]).await?;
        let old: Vec<Value> =
            old.iter().map(|row| row.text(0).map(Value::from)).collect::<Result<_, Fault>>()?;
        let mut open = self.pool.begin().await?;
        if !old.is_empty() {
            for table in ["quality", "stays", "sessions"] {
                let these = times("?", old.len());
                let statement = format!("DELETE FROM {table} WHERE session IN ({these})");
                open.execute(&statement, &old).await?;
            }
        }
        for statement in [
            "DELETE FROM usage_sums WHERE unit IN ('minute', 'hour') AND at_ms < ?",
            "DELETE FROM quality_sums WHERE unit IN ('minute', 'hour') AND at_ms < ?",
            "DELETE FROM checks WHERE minute_ms < ?",
            "DELETE FROM diagnostics WHERE at_ms < ?",
        ] {
            open.execute(statement, &values![before]).await?;
        }
        open.commit().await?;
        Ok(old.len() == limits::SESSIONS_FORGOTTEN_AT_ONCE)
    }
}

/// Servers that are away, and disks that are full, are so for a while: what was to be written waits.
fn again(fault: Fault) -> Fault {
    match fault.class {
        Class::Unavailable => Fault::internal(fault.reason),
        _ => fault,
    }
}

impl<'a> Batch<'a> {
    pub(super) fn fold(events: &'a [Event]) -> Self {
        let mut batch = Self::default();
        for event in events {
            if let What::Checked { minute, is_well, reason } = &event.what {
                batch.checks.push((event, *minute, *is_well, reason));
                continue;
            }
            let session = batch.sessions.entry(&event.session).or_insert_with(|| Session {
                event,
                ended: None,
                until: event.created,
                change: Change::default(),
                grades: Grades::default(),
            });
            let stays = match &event.what {
                What::SessionDisposed { .. } => {
                    session.ended = Some(event.at);
                    &[]
                }
                What::Joined { stay } | What::Left { stay } => std::slice::from_ref(stay),
                What::Present { stays } => stays.as_slice(),
                What::Quality { minute, streams } => {
                    for stream in streams {
                        let key = (stream.stay.as_str(), stream.stream.as_str(), *minute);
                        batch.streams.entry(key).or_insert((event, stream));
                    }
                    &[]
                }
                What::SessionCreated | What::Checked { .. } => &[],
            };
            for stay in stays {
                session.until = session.until.max(stay.until);
                let merged = batch.stays.entry(&stay.stay);
                merged
                    .and_modify(|(_, known)| known.merge(stay))
                    .or_insert_with(|| (event, stay.clone()));
            }
        }
        batch
    }

    /// Sessions that are not there yet.
    async fn open_sessions(&self, open: &mut Open, usage: &mut Usage<'a>) -> Result<(), Fault> {
        let ids: Vec<&str> = self.sessions.keys().copied().collect();
        let known = "SELECT session FROM sessions WHERE session IN";
        let mut there = BTreeSet::new();
        for ids in ids.chunks(limits::ROWS_AT_ONCE) {
            let these: Vec<Value> = ids.iter().map(|id| Value::from(*id)).collect();
            let statement = format!("{known} ({})", times("?", these.len()));
            for row in open.rows(&statement, &these).await? {
                there.insert(row.text(0)?);
            }
        }
        for (id, Session { event, .. }) in &self.sessions {
            if there.contains(*id) {
                continue;
            }
            let Event { application, scope, node, created, .. } = event;
            // Whether it is new is known only now: another agent may have been quicker.
            let new = open.execute(
                "{insert} sessions (session, application, scope, node, created_ms, until_ms, stays,
                 present, total_ms, bytes_in, bytes_out, score_sum, scored, problems)
                 VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0) {unless there}",
                &values![*id, application, scope, node, *created, *created],
            ).await?;
            if new > 0 {
                add(usage, application, *created, Change { sessions: 1, ..Change::default() });
            }
        }
        Ok(())
    }

    async fn write_stays(&mut self, open: &mut Open, usage: &mut Usage<'a>) -> Result<(), Fault> {
        // Those whose streams are told of are locked too: two agents that were given the same
        // minutes wait for one another.
        let ids: BTreeSet<&str> =
            self.stays.keys().copied().chain(self.streams.keys().map(|key| key.0)).collect();
        let mut known = known_stays(open, &ids.into_iter().collect::<Vec<_>>()).await?;
        let mut missing = Vec::new();
        for (id, (event, stay)) in &self.stays {
            if known.contains_key(*id) {
                continue;
            }
            let begun = Stay { until: stay.joined, ..Stay::default() };
            let row = stay_row(event, stay, &begun);
            let columns = times("?", row.len());
            let statement =
                format!("{{insert}} stays ({STAY_COLUMNS}) VALUES ({columns}) {{unless there}}");
            if open.execute(&statement, &row).await? > 0 {
                known.insert((*id).to_owned(), begun);
                let change = Change { stays: 1, present: 1, ..Change::default() };
                if let Some(session) = self.sessions.get_mut(event.session.as_str()) {
                    session.change.add(change);
                }
                add(usage, &event.application, stay.joined, change);
            } else {
                missing.push(*id);
            }
        }
        known.extend(known_stays(open, &missing).await?);
        let mut rows = Vec::new();
        for (id, (event, stay)) in &self.stays {
            let Some(old) = known.get(*id) else { continue };
            let mut new = old.clone();
            new.merge(stay);
            if new == *old {
                continue;
            }
            let grown =
                |new: u64, old: u64| i64::try_from(new.saturating_sub(old)).unwrap_or(i64::MAX);
            let change = Change {
                total_ms: new.until - old.until,
                present: -i64::from(old.left.is_none() && new.left.is_some()),
                bytes_in: grown(new.bytes_in, old.bytes_in),
                bytes_out: grown(new.bytes_out, old.bytes_out),
                ..Change::default()
            };
            if let Some(session) = self.sessions.get_mut(event.session.as_str()) {
                session.change.add(change);
            }
            spread(usage, &event.application, old.until, new.until, change);
            rows.push(stay_row(event, stay, &new));
        }
        for rows in rows.chunks(limits::ROWS_AT_ONCE) {
            let columns = format!("({})", times("?", rows.first().map_or(0, Vec::len)));
            let statement = format!(
                "INSERT INTO stays ({STAY_COLUMNS}) VALUES {} {{if there:stay}}
                 until_ms = {{new:until_ms}}, is_over = {{new:is_over}}, reason = {{new:reason}},
                 bytes_in = {{new:bytes_in}}, bytes_out = {{new:bytes_out}}",
                times(&columns, rows.len())
            );
            open.execute(&statement, &rows.concat()).await?;
        }
        Ok(())
    }

    async fn write_streams(
        &mut self,
        open: &mut Open,
        quality: &mut Quality<'a>,
    ) -> Result<(), Fault> {
        let stays: BTreeSet<&str> = self.streams.keys().map(|key| key.0).collect();
        let first = self.streams.keys().map(|key| key.2).min().unwrap_or_default();
        let mut there = BTreeSet::new();
        for stays in stays.into_iter().collect::<Vec<_>>().chunks(limits::ROWS_AT_ONCE) {
            let mut these: Vec<Value> = stays.iter().map(|id| Value::from(*id)).collect();
            let statement = format!(
                "SELECT stay, stream, minute_ms FROM quality WHERE stay IN ({}) AND minute_ms >= ?",
                times("?", these.len())
            );
            these.push(first.into());
            for row in open.rows(&statement, &these).await? {
                there.insert((row.text(0)?, row.text(1)?, row.int(2)?));
            }
        }
        let mut rows: Vec<Vec<Value>> = Vec::new();
        let mut of_stays: BTreeMap<&str, Grades> = BTreeMap::new();
        for ((stay, name, minute), (event, stream)) in &self.streams {
            if there.contains(&((*stay).to_owned(), (*name).to_owned(), *minute)) {
                continue;
            }
            let (score, problems) = (grade::score(stream), grade::problems(stream));
            rows.push(Vec::from(values![
                *stay,
                *name,
                *minute,
                &event.session,
                stream.seconds,
                stream.packets,
                stream.bytes,
                score,
                stream.loss,
                stream.round_trip,
                stream.jitter,
                stream.queue_delay,
                stream.frozen,
                stream.lowered,
                stream.paused,
                problems,
            ]));
            of_stays.entry(stay).or_default().add(score, problems);
            if let Some(session) = self.sessions.get_mut(event.session.as_str()) {
                session.grades.add(score, problems);
            }
            for (unit, length) in UNITS {
                let key = (event.application.as_str(), unit, floor(*minute, length));
                quality.entry(key).or_default().push((stream, score, problems));
            }
        }
        for rows in rows.chunks(limits::ROWS_AT_ONCE) {
            let columns = format!("({})", times("?", rows.first().map_or(0, Vec::len)));
            let statement = format!(
                "{{insert}} quality (stay, stream, minute_ms, session, seconds, packets, bytes,
                 score, loss, round_trip, jitter, queue_delay, frozen, lowered, paused, problems)
                 VALUES {} {{unless there}}",
                times(&columns, rows.len())
            );
            open.execute(&statement, &rows.concat()).await?;
        }
        for (stay, grades) in of_stays {
            let statement = "UPDATE stays SET score_sum = score_sum + ?, scored = scored + ?,
                             problems = problems | ? WHERE stay = ?";
            let Grades { score, count, problems } = grades;
            open.execute(statement, &values![score, count, problems, stay]).await?;
        }
        Ok(())
    }

    async fn write_sessions(&self, open: &mut Open) -> Result<(), Fault> {
        for (id, Session { ended, until, change, grades, .. }) in &self.sessions {
            let statement = "UPDATE sessions SET ended_ms = COALESCE(ended_ms, ?),
                until_ms = CASE WHEN until_ms < ? THEN ? ELSE until_ms END, stays = stays + ?,
                present = present + ?, total_ms = total_ms + ?, bytes_in = bytes_in + ?,
                bytes_out = bytes_out + ?, score_sum = score_sum + ?, scored = scored + ?,
                problems = problems | ? WHERE session = ?";
            let values = values![
                *ended,
                *until,
                *until,
                change.stays,
                change.present,
                change.total_ms,
                change.bytes_in,
                change.bytes_out,
                grades.score,
                grades.count,
                grades.problems,
                *id,
            ];
            open.execute(statement, &values).await?;
        }
        Ok(())
    }
}

const STAY_COLUMNS: &str = "stay, session, application, peer, name, user_name, client, node, \
    joined_ms, until_ms, is_over, reason, bytes_in, bytes_out, score_sum, scored, problems";

/// The row of a stay that is now as `state` says.
fn stay_row(event: &Event, stay: &Stay, state: &Stay) -> Vec<Value> {
    Vec::from(values![
        &stay.stay,
        &event.session,
        &event.application,
        &stay.peer,
        &stay.name,
        &stay.user,
        &stay.client,
        &event.node,
        stay.joined,
        state.until,
        state.left.is_some(),
        state.left.clone(),
        state.bytes_in,
        state.bytes_out,
        0.0,
        0_i64,
        0_i64,
    ])
}

/// What of stays may change, of those that are there; nobody else changes it meanwhile.
async fn known_stays(open: &mut Open, ids: &[&str]) -> Result<BTreeMap<String, Stay>, Fault> {
    let mut known = BTreeMap::new();
    for ids in ids.chunks(limits::ROWS_AT_ONCE) {
        let these: Vec<Value> = ids.iter().map(|id| Value::from(*id)).collect();
        let statement = format!(
            "SELECT stay, until_ms, is_over, reason, bytes_in, bytes_out FROM stays
             WHERE stay IN ({}) ORDER BY stay {{lock}}",
            times("?", these.len())
        );
        for row in open.rows(&statement, &these).await? {
            let left = if row.is(2)? { Some(row.text_maybe(3)?.unwrap_or_default()) } else { None };
            let stay = Stay {
                until: row.int(1)?,
                left,
                bytes_in: u64::try_from(row.int(4)?).unwrap_or_default(),
                bytes_out: u64::try_from(row.int(5)?).unwrap_or_default(),
                ..Stay::default()
            };
            known.insert(row.text(0)?, stay);
        }
    }
    Ok(known)
}

/// Adds to the minute, the hour and the day of a time.
fn add<'a>(usage: &mut Usage<'a>, application: &'a str, at: i64, change: Change) {
    for (unit, length) in UNITS {
        usage.entry((application, unit, floor(at, length))).or_default().add(change);
    }
}

/// Spreads time over the minutes in which it was; bytes belong to the last one. Time that turned out
/// to be none, as the stay was over before, is taken from its minutes again.
fn spread<'a>(usage: &mut Usage<'a>, application: &'a str, from: i64, to: i64, change: Change) {
    let (sign, mut at, last) = if from <= to { (1, from, to) } else { (-1, to, from) };
    while at < last {
        let end = (floor(at, 60_000) + 60_000).min(last);
        add(usage, application, at, Change { total_ms: sign * (end - at), ..Change::default() });
        at = end;
    }
    add(usage, application, to, Change { total_ms: 0, ..change });
}

async fn write_usage(open: &mut Open, usage: &Usage<'_>) -> Result<(), Fault> {
    let changed = usage.iter().filter(|(_, change)| !change.is_nothing());
    let rows: Vec<_> = changed
        .map(|((application, unit, at), change)| {
            let Change { total_ms, stays, sessions, bytes_in, bytes_out, .. } = *change;
            values![*application, *unit, *at, total_ms, stays, sessions, bytes_in, bytes_out]
        })
        .collect();
    for rows in rows.chunks(limits::ROWS_AT_ONCE) {
        let statement = format!(
            "INSERT INTO usage_sums
             (application, unit, at_ms, total_ms, stays, sessions, bytes_in, bytes_out)
             VALUES {} {{if there:application, unit, at_ms}}
             total_ms = usage_sums.total_ms + {{new:total_ms}},
             stays = usage_sums.stays + {{new:stays}},
             sessions = usage_sums.sessions + {{new:sessions}},
             bytes_in = usage_sums.bytes_in + {{new:bytes_in}},
             bytes_out = usage_sums.bytes_out + {{new:bytes_out}}",
            times("(?, ?, ?, ?, ?, ?, ?, ?)", rows.len())
        );
        open.execute(&statement, &rows.concat()).await?;
    }
    Ok(())
}

const QUALITY_SUMS: [&str; 14] = [
    "measured",
    "score",
    "loss",
    "losses",
    "round_trip",
    "round_trips",
    "frozen",
    "loss_in",
    "loss_out",
    "freezes",
    "lowered",
    "paused",
    "far",
    "queued",
];

async fn write_quality(open: &mut Open, quality: &Quality<'_>) -> Result<(), Fault> {
    let rows: Vec<_> = quality
        .iter()
        .map(|((application, unit, at), minutes)| {
            let sum = |of: &dyn Fn(&Stream) -> f64| minutes.iter().map(|m| of(m.0)).sum::<f64>();
            let count = |of: &dyn Fn(&Stream) -> bool| minutes.iter().filter(|m| of(m.0)).count();
            let mut row = Vec::from(values![
                *application,
                *unit,
                *at,
                minutes.len(),
                minutes.iter().map(|minute| minute.1).sum::<f64>(),
                sum(&|stream| stream.loss.unwrap_or(0.0)),
                count(&|stream| stream.loss.is_some()),
                sum(&|stream| stream.round_trip.unwrap_or(0.0)),
                count(&|stream| stream.round_trip.is_some()),
                sum(&|stream| stream.frozen),
            ]);
            row.extend((0..grade::PROBLEMS.len()).map(|place| {
                Value::from(minutes.iter().filter(|minute| minute.2 >> place & 1 == 1).count())
            }));
            row
        })
        .collect();
    let sums: Vec<String> = QUALITY_SUMS
        .iter()
        .map(|name| format!("{name} = quality_sums.{name} + {{new:{name}}}"))
        .collect();
    for rows in rows.chunks(limits::ROWS_AT_ONCE) {
        let columns = format!("({})", times("?", rows.first().map_or(0, Vec::len)));
        let statement = format!(
            "INSERT INTO quality_sums (application, unit, at_ms, {}) VALUES {}
             {{if there:application, unit, at_ms}} {}",
            QUALITY_SUMS.join(", "),
            times(&columns, rows.len()),
            sums.join(", ")
        );
        open.execute(&statement, &rows.concat()).await?;
    }
    Ok(())
}

impl Change {
    fn add(&mut self, other: Self) {
        self.total_ms += other.total_ms;
        self.stays += other.stays;
        self.present += other.present;
        self.sessions += other.sessions;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
    }

    fn is_nothing(&self) -> bool {
        let Self { total_ms, stays, sessions, bytes_in, bytes_out, .. } = self;
        [total_ms, stays, sessions, bytes_in, bytes_out].into_iter().all(|sum| *sum == 0)
    }
}

impl Grades {
    fn add(&mut self, score: f64, problems: i64) {
        self.score += score;
        self.count += 1;
        self.problems |= problems;
    }
}

/// The beginning of the unit of time that `at` is in.
pub fn floor(at: i64, length: i64) -> i64 {
    at - at.rem_euclid(length)
}
