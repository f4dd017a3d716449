//! Sessions, their stays and streams, for those who ask.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::connection::{Cql, Row, for_all};
use super::figures::Marks;
use super::life::{HOUR, MINUTE};
use crate::events::grade;
use crate::fault::Fault;
use crate::limits;
use crate::store::analytics::{
    Columns, Kept, Point, Session, Stay, Step, Stream, Wanted, Worst, mean, seconds,
    session_columns,
};
use crate::store::record::floor;
use crate::store::sql::values;

/// Statements whose rows [`Kept::read`] takes.
macro_rules! select_sessions {
    ($rest:literal) => {
        concat!("SELECT ", session_columns!(), " FROM sessions ", $rest)
    };
}

impl Columns for Row {
    fn text(&self, column: usize) -> Result<String, Fault> {
        self.text(column)
    }

    fn int(&self, column: usize) -> Result<i64, Fault> {
        self.int(column)
    }

    fn time(&self, column: usize) -> Result<Option<i64>, Fault> {
        Ok(Some(self.int(column)?).filter(|time| *time != 0))
    }

    fn float(&self, column: usize) -> Result<f64, Fault> {
        self.float(column)
    }
}

impl Cql {
    /// Sessions, the newest first.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn sessions(&self, wanted: &Wanted, now: i64) -> Result<Vec<Session>, Fault> {
        let mut found = match wanted.live {
            Some(true) => self.live(wanted, now).await?,
            _ => self.listed(wanted, now, i64::MIN).await?,
        };
        found.sort_by(|a, b| (b.created_at, &b.session).cmp(&(a.created_at, &a.session)));
        found.truncate(wanted.count);
        Ok(found.into_iter().map(|kept| kept.told(now)).collect())
    }

    /// Those with problems that may have lasted into a span of time, the newest first: what they
    /// are called, and their problems.
    pub(super) async fn troubled(
        &self,
        application: Option<&String>,
        from: i64,
        to: i64,
    ) -> Result<Vec<(String, i64)>, Fault> {
        let wanted = Wanted {
            application: application.cloned(),
            problems: Some(!0),
            from: Some(from - limits::CQL_SESSION_MS),
            to: Some(to),
            count: limits::SESSIONS_LOOKED_AT,
            ..Wanted::default()
        };
        let mut found = self.listed(&wanted, i64::MAX, from).await?;
        found.sort_by(|a, b| (b.created_at, &b.session).cmp(&(a.created_at, &a.session)));
        found.truncate(wanted.count);
        Ok(found.into_iter().map(|kept| (kept.session, kept.problems)).collect())
    }

    /// From the lists of sessions by the hour, the newest first, until there are enough.
    async fn listed(&self, wanted: &Wanted, now: i64, until: i64) -> Result<Vec<Kept>, Fault> {
        let mut end = wanted.to.unwrap_or(i64::MAX);
        if let Some((created, _)) = &wanted.after {
            end = end.min(created.saturating_add(1));
        }
        let when = wanted.from.unwrap_or(0)..end;
        let each = |application: String| {
            let (cql, when) = (self.clone(), when.clone());
            async move {
                let hours = cql.hours(&application, "sessions", when).await?;
                Ok(hours.into_iter().map(|hour| (hour, application.clone())).collect::<Vec<_>>())
            }
        };
        let applications = self.applications(wanted.application.as_ref()).await?;
        let mut hours: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (hour, application) in for_all(applications, each).await?.into_iter().flatten() {
            hours.entry(hour).or_default().push(application);
        }
        let mut found = Vec::new();
        for (hour, applications) in hours.into_iter().rev() {
            let each = |application: String| {
                let (cql, wanted) = (self.clone(), wanted.clone());
                async move { cql.of_hour(&application, hour, &wanted, now, until).await }
            };
            found.extend(for_all(applications, each).await?.into_iter().flatten());
            if found.len() >= wanted.count {
                break;
            }
        }
        Ok(found)
    }

    async fn of_hour(
        &self,
        application: &str,
        hour: i64,
        wanted: &Wanted,
        now: i64,
        until: i64,
    ) -> Result<Vec<Kept>, Fault> {
        let of_user = self.of_user(application, hour, wanted).await?;
        if of_user.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let statement = select_sessions!("WHERE application = ? AND hour_ms = ?");
        self.each(statement, &values![application, hour], |row| {
            let kept = Kept::read(&row)?;
            let is_of_user = of_user.as_ref().is_none_or(|all| all.contains(&kept.session));
            if is_of_user && kept.until >= until && kept.is_wanted(wanted, now) {
                found.push(kept);
            }
            let is_enough = found.len() >= wanted.count;
            Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await?;
        Ok(found)
    }

    /// The sessions of an hour in which the user was that is asked for; none when nobody is.
    async fn of_user(
        &self,
        application: &str,
        hour: i64,
        wanted: &Wanted,
    ) -> Result<Option<BTreeSet<String>>, Fault> {
        let Some(user) = &wanted.user else { return Ok(None) };
        let statement = "SELECT session FROM users
                         WHERE application = ? AND user_name = ? AND hour_ms = ?";
        let rows = self.rows(statement, &values![application, user, hour]).await?;
        rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>().map(Some)
    }

    /// Those that last: they were told of within the last minutes, whenever they began.
    async fn live(&self, wanted: &Wanted, now: i64) -> Result<Vec<Kept>, Fault> {
        let fresh = floor(now - limits::LIVE_MS, MINUTE);
        let mut places = Vec::new();
        for application in self.applications(wanted.application.as_ref()).await? {
            // The clock of a node may be ahead.
            for hour in [floor(fresh, HOUR), floor(fresh, HOUR) + HOUR] {
                places.push((application.clone(), hour));
            }
        }
        let each = |(application, hour): (String, i64)| {
            let cql = self.clone();
            async move {
                let statement = "SELECT session FROM sums
                                 WHERE application = ? AND hour_ms = ? AND unit = ? AND at_ms >= ?";
                let rows =
                    cql.rows(statement, &values![application, hour, "minute", fresh]).await?;
                rows.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()
            }
        };
        let recent: BTreeSet<String> = for_all(places, each).await?.into_iter().flatten().collect();
        let each = |session: String| {
            let (cql, wanted) = (self.clone(), wanted.clone());
            async move {
                let kept = cql.kept(&session).await?.filter(|kept| kept.is_wanted(&wanted, now));
                let Some(kept) = kept else { return Ok(None) };
                let of_user = cql.of_user(&kept.application, floor(kept.created_at, HOUR), &wanted);
                let is_of_user = of_user.await?.is_none_or(|all| all.contains(&kept.session));
                Ok(Some(kept).filter(|_| is_of_user))
            }
        };
        Ok(for_all(recent, each).await?.into_iter().flatten().collect())
    }

    /// One session.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn session_of(&self, id: &str, now: i64) -> Result<Option<Session>, Fault> {
        Ok(self.kept(id).await?.map(|kept| kept.told(now)))
    }

    async fn kept(&self, id: &str) -> Result<Option<Kept>, Fault> {
        // No partition has an empty name.
        if id.is_empty() {
            return Ok(None);
        }
        let statement = "SELECT application, created_ms FROM lives WHERE session = ?";
        let Some(life) = self.rows(statement, &values![id]).await?.into_iter().next() else {
            return Ok(None);
        };
        let (application, created) = (life.text(0)?, life.int(1)?);
        let statement = select_sessions!(
            "WHERE application = ? AND hour_ms = ? AND created_ms = ? AND session = ?"
        );
        let place = values![application, floor(created, HOUR), created, id];
        self.rows(statement, &place).await?.first().map(Kept::read).transpose()
    }

    /// Its stays, the first ones first, so many at most.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn stays(&self, session: &str, count: usize) -> Result<Vec<Stay>, Fault> {
        let stays = self.bare_stays(session).await?;
        let mut marks: BTreeMap<String, Marks> = BTreeMap::new();
        for hour in self.hours_of(session).await? {
            let statement =
                "SELECT stay, score, problems, loss, round_trip, frozen_seconds FROM quality
                             WHERE session = ? AND hour_ms = ?";
            self.each(statement, &values![session, hour], |row| {
                let marks = marks.entry(row.text(0)?).or_default();
                let (score, problems) = (row.float(1)?, row.int(2)?);
                marks.mark(score, problems, row.float(3)?, row.float(4)?, row.float(5)?);
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        }
        let mut stays: Vec<Stay> = stays.into_values().collect();
        stays.sort_by(|a, b| (a.joined_at, &a.stay).cmp(&(b.joined_at, &b.stay)));
        stays.truncate(count);
        for stay in &mut stays {
            if let Some(marks) = marks.get(&stay.stay) {
                stay.score = mean(marks.0[1], marks.measured());
                stay.problems = grade::names(marks.problems());
            }
        }
        Ok(stays)
    }

    async fn bare_stays(&self, session: &str) -> Result<BTreeMap<String, Stay>, Fault> {
        let mut stays: BTreeMap<String, Stay> = BTreeMap::new();
        if session.is_empty() {
            return Ok(stays);
        }
        let statement = "SELECT stay, peer, name, user_name, client, node, joined_ms, until_ms,
                         reason, bytes_in, bytes_out FROM stays WHERE session = ?";
        // By the hours in which they were told of: the last one knows best.
        for row in self.rows(statement, &values![session]).await? {
            let (id, joined_at) = (row.text(0)?, row.int(6)?);
            let until = row.int(7)?.max(joined_at);
            let before = stays.get(&id);
            let until = before.map_or(until, |before| before.until.max(until));
            let left = before.and_then(|before| before.reason.clone());
            let reason = row.text_maybe(8)?.or(left);
            let stay = Stay {
                stay: id.clone(),
                peer: row.text(1)?,
                name: row.text(2)?,
                user: row.text(3)?,
                client: row.text(4)?,
                node: row.text(5)?,
                joined_at,
                until,
                left: reason.is_some(),
                reason,
                participant_seconds: seconds(until - joined_at),
                bytes_in: row.int(9)?,
                bytes_out: row.int(10)?,
                score: None,
                problems: Vec::new(),
            };
            stays.insert(id, stay);
        }
        Ok(stays)
    }

    /// Hours in which its streams were measured, the first ones first.
    async fn hours_of(&self, session: &str) -> Result<BTreeSet<i64>, Fault> {
        if session.is_empty() {
            return Ok(BTreeSet::new());
        }
        let statement = "SELECT minute_ms FROM grades WHERE session = ?";
        let rows = self.rows(statement, &values![session]).await?;
        rows.iter().map(|row| Ok(floor(row.int(0)?, HOUR))).collect()
    }

    /// Its streams over time; so many points at most, the first ones.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn timeline(
        &self,
        session: &str,
        step: Step,
        count: usize,
    ) -> Result<Vec<Stream>, Fault> {
        let stays = self.bare_stays(session).await?;
        let mut points: BTreeMap<(i64, String, String), Gathered> = BTreeMap::new();
        for hour in self.hours_of(session).await? {
            let statement = "SELECT stay, stream, minute_ms, seconds, packets, bytes, score, loss,
                round_trip, jitter, queue_delay, frozen_seconds, lowered, paused, problems
                FROM quality WHERE session = ? AND hour_ms = ?";
            self.each(statement, &values![session, hour], |row| {
                let minute = row.int(2)?;
                let at = minute - (minute - step.from) % step.length_ms.max(MINUTE);
                let latest = points.last_key_value().map(|((latest, ..), _)| *latest);
                if points.len() >= count && latest.is_some_and(|latest| latest < at) {
                    return Ok(ControlFlow::Break(()));
                }
                points.entry((at, row.text(0)?, row.text(1)?)).or_default().add(&row)?;
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        }
        let mut streams: BTreeMap<(String, String), Stream> = BTreeMap::new();
        for ((at, stay, name), point) in points.into_iter().take(count) {
            let Some(of) = stays.get(&stay) else { continue };
            let entry = streams.entry((stay.clone(), name.clone()));
            let stream = entry.or_insert_with(|| Stream {
                stay,
                peer: of.peer.clone(),
                name: of.name.clone(),
                direction: if name.is_empty() { "out" } else { "in" },
                stream: name,
                points: Vec::new(),
            });
            stream.points.push(point.told(at, step.length_ms <= MINUTE));
        }
        Ok(streams.into_values().collect())
    }
}

/// A stream's minutes of one step, added up.
#[derive(Default)]
struct Gathered {
    count: f64,
    seconds: f64,
    packets: i64,
    bytes: i64,
    score: f64,
    score_min: Option<f64>,
    loss: Known,
    round_trip: Known,
    jitter: Known,
    queue_delay: Known,
    frozen: f64,
    lowered: f64,
    paused: f64,
    problems: i64,
    bits_min: Option<f64>,
}

/// What is known of some minutes.
#[derive(Default)]
struct Known {
    sum: f64,
    count: f64,
    max: Option<f64>,
}

impl Known {
    fn add(&mut self, value: f64) {
        if !value.is_nan() {
            self.sum += value;
            self.count += 1.0;
            self.max = Some(self.max.map_or(value, |max| max.max(value)));
        }
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

impl Gathered {
    fn add(&mut self, row: &Row) -> Result<(), Fault> {
        let least =
            |known: Option<f64>, value: f64| Some(known.map_or(value, |min| min.min(value)));
        let (seconds, bytes, score) = (row.float(3)?, row.int(5)?, row.float(6)?);
        self.count += 1.0;
        self.seconds += seconds;
        self.packets = self.packets.saturating_add(row.int(4)?);
        self.bytes = self.bytes.saturating_add(bytes);
        self.score += score;
        self.score_min = least(self.score_min, score);
        self.loss.add(row.float(7)?);
        self.round_trip.add(row.float(8)?);
        self.jitter.add(row.float(9)?);
        self.queue_delay.add(row.float(10)?);
        self.frozen += row.float(11)?;
        self.lowered += row.float(12)?;
        self.paused += row.float(13)?;
        self.problems |= row.int(14)?;
        if seconds > 0.0 {
            #[allow(clippy::cast_precision_loss)] // bytes of a minute
            let bits = bytes as f64 * 8.0 / seconds;
            self.bits_min = least(self.bits_min, bits);
        }
        Ok(())
    }

    fn told(self, at: i64, is_minute: bool) -> Point {
        let worst = Worst {
            score: self.score_min.unwrap_or_default(),
            loss_fraction: self.loss.max,
            round_trip_seconds: self.round_trip.max,
            jitter_seconds: self.jitter.max,
            queue_delay_seconds: self.queue_delay.max,
            bits_per_second: self.bits_min,
        };
        Point {
            at,
            seconds: self.seconds,
            packets: self.packets,
            bytes: self.bytes,
            score: self.score / self.count,
            loss_fraction: self.loss.mean(),
            round_trip_seconds: self.round_trip.mean(),
            jitter_seconds: self.jitter.mean(),
            queue_delay_seconds: self.queue_delay.mean(),
            frozen_seconds: self.frozen,
            lowered: self.lowered / self.count,
            paused: self.paused / self.count,
            problems: grade::names(self.problems),
            worst: (!is_minute).then_some(worst),
        }
    }
}
