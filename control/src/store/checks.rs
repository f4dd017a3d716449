//! Whether nodes were well: minutes as they are told of, and whole days summed up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::analytics::seconds;
use super::record::{DAY_MS, floor};
use super::sql::{Pool, values};
use crate::fault::Fault;
use crate::limits;

/// Whether nodes were well.
#[derive(Clone)]
pub struct Checks {
    pool: Pool,
    reads: Pool,
}

/// How much of the time was down.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Availability {
    pub from: i64,
    pub to: i64,
    pub promised: f64,
    pub minutes: i64,
    pub minutes_down: i64,
    pub availability: Option<f64>,
    pub budget_seconds: f64,
    pub spent_seconds: f64,
    pub nodes: Vec<NodeMinutes>,
    pub days: Vec<DayMinutes>,
    pub incidents: Vec<Incident>,
}

/// A node's minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct NodeMinutes {
    pub node: String,
    pub minutes: i64,
    pub minutes_down: i64,
}

/// A day's minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct DayMinutes {
    pub at: i64,
    pub minutes: i64,
    pub minutes_down: i64,
}

/// Minutes in a row that were down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // control/src/api/openapi.json says what each field is
pub struct Incident {
    pub from: i64,
    pub to: i64,
    pub reason: String,
}

/// What is promised.
const PROMISED: f64 = 0.9995;
/// Why a minute was down that is not in the table.
const NOBODY: &str = "no node told that it was well";

/// What a day, or a part of one, came to. Those that follow one another are put together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Piece {
    runs: Vec<Run>,
    nodes: BTreeMap<String, Told>,
}

/// Minutes in a row that were alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Run {
    from: i64,
    to: i64,
    /// Why they were down, if they were.
    down: Option<String>,
}

/// What a node told of itself: the first and the last minute, and how many were well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Told {
    first: i64,
    last: i64,
    well: i64,
}

impl Checks {
    pub(super) fn new(pool: Pool, reads: Pool) -> Self {
        Self { pool, reads }
    }

    /// Notes how a probe's call through a node went. One that failed is not made good by another
    /// of the same minute.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`]: of more names than a cluster has nodes;
    /// [`crate::fault::Class::Internal`].
    pub async fn probed(&self, node: &str, at: i64, failed: Option<&str>) -> Result<(), Fault> {
        let others = "SELECT COUNT(*) FROM checks
                      WHERE minute_ms = ? AND kind = 'probe' AND node <> ?";
        let others = self.pool.row(others, &values![floor(at, 60_000), node]).await?;
        let others = others.map_or(Ok(0), |row| row.int(0))?;
        if usize::try_from(others).unwrap_or(usize::MAX) >= limits::NODES {
            return Err(Fault::too_many(format!(
                "probes of {others} other nodes were noted this minute, more than a cluster has; \
                 call nodes by the names that /nodes lists"
            ))
            .passing());
        }
        let reason: String = failed.unwrap_or_default().chars().take(255).collect();
        self.pool.execute(
            "INSERT INTO checks (node, kind, minute_ms, is_well, reason) VALUES (?, 'probe', ?, ?, ?)
             {if there:node, kind, minute_ms}
             reason = CASE WHEN {new:is_well} = 0 THEN {new:reason} ELSE checks.reason END,
             is_well = CASE WHEN {new:is_well} = 0 THEN 0 ELSE checks.is_well END",
            &values![node, floor(at, 60_000), failed.is_none(), reason],
        ).await?;
        Ok(())
    }

    /// How much of the time was down. Minutes before the first check, and the one that is not over,
    /// do not count. Days that are summed up are not looked at minute by minute.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`], [`crate::fault::Class::Unavailable`].
    #[allow(clippy::cast_precision_loss)] // counts of minutes
    pub async fn availability(&self, from: i64, to: i64) -> Result<Availability, Fault> {
        let (from, to) = (floor(from, 60_000), floor(to, 60_000));
        let mut told = Availability { from, to, promised: PROMISED, ..Availability::default() };
        told.budget_seconds = seconds(to - from) * (1.0 - PROMISED);
        let whole = Piece::of(self.pieces(from, to).await?);
        let mut expected = None;
        for run in &whole.runs {
            // Minutes that nobody told of: nobody was there.
            told.count(expected.unwrap_or(run.from), run.from, Some(NOBODY));
            told.count(run.from, run.to, run.down.as_deref());
            expected = Some(run.to);
        }
        // The last minute may be under way to the store.
        if let Some(expected) = expected {
            told.count(expected, to - 60_000, Some(NOBODY));
        }
        told.spent_seconds = told.minutes_down as f64 * 60.0;
        told.availability =
            (told.minutes > 0).then(|| 1.0 - told.minutes_down as f64 / told.minutes as f64);
        let excess = told.incidents.len().saturating_sub(limits::INCIDENTS_TOLD);
        told.incidents.drain(..excess);
        told.incidents.reverse();
        told.nodes = whole.nodes.into_iter().map(|(node, of)| of.minutes(node)).collect();
        Ok(told)
    }

    /// Days that are summed up, and what is between them, in their order.
    async fn pieces(&self, from: i64, to: i64) -> Result<Vec<Piece>, Fault> {
        let days = self
            .reads
            .rows(
                "SELECT at_ms, told FROM check_days WHERE at_ms >= ? AND at_ms <= ? ORDER BY at_ms",
                &values![from, to - DAY_MS],
            )
            .await?;
        let (mut pieces, mut at) = (Vec::new(), from);
        for day in days {
            let begins = day.int(0)?;
            // What another version wrote is looked at minute by minute.
            let Ok(piece) = serde_json::from_str(&day.text(1)?) else { continue };
            if at < begins {
                pieces.push(self.piece(at, begins).await?);
            }
            pieces.push(piece);
            at = begins + DAY_MS;
        }
        if at < to {
            pieces.push(self.piece(at, to).await?);
        }
        Ok(pieces)
    }

    /// What a span comes to, from its minutes.
    async fn piece(&self, from: i64, to: i64) -> Result<Piece, Fault> {
        let minutes = self
            .reads
            .rows(
                "SELECT minute_ms,
             CAST(SUM(CASE WHEN kind = 'self' AND is_well = 1 THEN 1 ELSE 0 END) AS {int}),
             CAST(SUM(CASE WHEN kind = 'probe' AND is_well = 0 THEN 1 ELSE 0 END) AS {int}),
             MAX(CASE WHEN kind = 'probe' AND is_well = 0 THEN reason ELSE '' END),
             MAX(CASE WHEN is_well = 0 THEN reason ELSE '' END)
             FROM checks WHERE minute_ms >= ? AND minute_ms < ?
             GROUP BY minute_ms ORDER BY minute_ms",
                &values![from, to],
            )
            .await?;
        let mut piece = Piece::default();
        for row in minutes {
            let at = row.int(0)?;
            let is_well = row.int(1)? > 0 && row.int(2)? == 0;
            // What a probe says is what a person would have met.
            let reason = Some(row.text(3)?).filter(|reason| !reason.is_empty());
            let reason = reason.map_or_else(|| row.text(4), Ok)?;
            piece.add(Run { from: at, to: at + 60_000, down: (!is_well).then_some(reason) });
        }
        let nodes = self
            .reads
            .rows(
                "SELECT node, MIN(minute_ms), MAX(minute_ms), CAST(SUM(is_well) AS {int})
             FROM checks WHERE kind = 'self' AND minute_ms >= ? AND minute_ms < ? GROUP BY node",
                &values![from, to],
            )
            .await?;
        for row in nodes {
            let told = Told { first: row.int(1)?, last: row.int(2)?, well: row.int(3)? };
            piece.nodes.insert(row.text(0)?, told);
        }
        Ok(piece)
    }

    /// Sums up the days that were over a day ago and are not summed up yet. A check that comes later
    /// still undoes the sum of its day (`record`).
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`], [`crate::fault::Class::Unavailable`].
    pub async fn sum_days(&self, now: i64) -> Result<(), Fault> {
        let first = self.reads.row("SELECT MIN(minute_ms) FROM checks", &[]).await?;
        let Some(first) = first.map(|row| row.int_maybe(0)).transpose()?.flatten() else {
            return Ok(());
        };
        let first = floor(first, DAY_MS);
        let statement = "SELECT at_ms FROM check_days WHERE at_ms >= ?";
        let there = self.reads.rows(statement, &values![first]).await?;
        let there: BTreeSet<i64> = there.iter().map(|row| row.int(0)).collect::<Result<_, _>>()?;
        let mut day = first;
        while day <= now - 2 * DAY_MS {
            if !there.contains(&day) {
                let piece = self.piece(day, day + DAY_MS).await?;
                let told = serde_json::to_string(&piece)
                    .map_err(|error| Fault::internal(format!("a day of checks: {error}")))?;
                let statement = "{insert} check_days (at_ms, told) VALUES (?, ?) {unless there}";
                self.pool.execute(statement, &values![day, told]).await?;
            }
            day += DAY_MS;
        }
        Ok(())
    }

    /// Does so every hour, for as long as the process lives.
    pub async fn keep_summed(self, now: impl Fn() -> i64) {
        loop {
            if let Err(fault) = self.sum_days(now()).await {
                tracing::warn!("checks are not summed up for now: {fault}");
            }
            tokio::time::sleep(limits::FORGET_PERIOD).await;
        }
    }
}

impl Piece {
    /// Several of them that follow one another.
    fn of(pieces: Vec<Self>) -> Self {
        let mut whole = Self::default();
        for piece in pieces {
            piece.runs.into_iter().for_each(|run| whole.add(run));
            for (node, told) in piece.nodes {
                let of =
                    whole.nodes.entry(node).or_insert_with(|| Told { well: 0, ..told.clone() });
                of.last = told.last;
                of.well += told.well;
            }
        }
        whole
    }

    fn add(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.to == run.from && last.down == run.down => last.to = run.to,
            _ => self.runs.push(run),
        }
    }
}

impl Told {
    fn minutes(self, node: String) -> NodeMinutes {
        let minutes = (self.last - self.first) / 60_000 + 1;
        NodeMinutes { node, minutes, minutes_down: minutes - self.well }
    }
}

impl Availability {
    /// Counts minutes, and why they were down if they were.
    fn count(&mut self, from: i64, to: i64, down: Option<&str>) {
        let mut at = from;
        while at < to {
            let end = (floor(at, DAY_MS) + DAY_MS).min(to);
            let minutes = (end - at) / 60_000;
            if self.days.last().is_none_or(|day| day.at != floor(at, DAY_MS)) {
                self.days.push(DayMinutes { at: floor(at, DAY_MS), ..DayMinutes::default() });
            }
            if let Some(day) = self.days.last_mut() {
                day.minutes += minutes;
                day.minutes_down += if down.is_some() { minutes } else { 0 };
            }
            self.minutes += minutes;
            self.minutes_down += if down.is_some() { minutes } else { 0 };
            at = end;
        }
        let Some(reason) = down.filter(|_| from < to) else { return };
        match self.incidents.last_mut() {
            Some(last) if last.to == from => last.to = to,
            _ => self.incidents.push(Incident { from, to, reason: reason.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::Class;
    use crate::limits;
    use crate::store::Store;

    #[tokio::test]
    async fn a_minute_has_no_more_probed_names_than_a_cluster_has_nodes() {
        let checks = Store::open_in_memory().await.unwrap().checks();
        for number in 0..limits::NODES {
            checks.probed(&format!("node-{number}"), 60_000, None).await.unwrap();
        }
        let fault = checks.probed("one more", 119_999, None).await.unwrap_err();
        assert_eq!(fault.class, Class::TooMany);
        checks.probed("node-7", 119_999, Some("no sound")).await.unwrap();
        checks.probed("one more", 120_000, None).await.unwrap();
    }
}
