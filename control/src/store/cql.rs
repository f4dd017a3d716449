//! Statistics in Cassandra or ScyllaDB: sessions, stays, streams and their sums. What is answered is
//! what SQL answers; how it comes about is `docs/decisions/0014-sums-without-counters.md`.

mod address;
mod connection;
mod figures;
mod life;
mod read;
mod schema;
mod totals;
mod write;

use std::collections::BTreeMap;

pub use address::Address;
pub use connection::Cql;

use super::analytics::mean;
use super::sums::{By, Quality, Span, Usage};
use crate::events::grade;
use crate::fault::Fault;
use figures::{Marks, Used};

impl Cql {
    /// What was used, by time; `each` application by itself, or all together.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn usage(&self, span: &Span, by: By, each: bool) -> Result<Vec<Usage>, Fault> {
        let length = length(if let By::Unit(unit) = by { unit } else { "day" });
        let sums = self.sums(span.application.as_ref(), span.from..span.to, length).await?;
        let mut all: BTreeMap<(i64, String), Used> = BTreeMap::new();
        for (application, sums) in sums {
            for (at, (used, _)) in sums {
                let at = if by == By::Month { super::month_of(at) } else { at };
                // An hour that only quality is known of.
                if used != Used::default() {
                    let name = if each { application.clone() } else { String::new() };
                    all.entry((at, name)).or_default().add(&used);
                }
            }
        }
        let told = |((at, application), used): ((i64, String), Used)| {
            let [ms, stays, sessions, bytes_in, bytes_out] = used.0;
            let application = each.then_some(application).or_else(|| span.application.clone());
            let row =
                Usage { at, application, stays, sessions, bytes_in, bytes_out, ..Usage::default() };
            row.lasting(ms)
        };
        Ok(all.into_iter().map(told).collect())
    }

    /// How well it went, by time.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn quality(&self, span: &Span, unit: &str) -> Result<Vec<Quality>, Fault> {
        let sums = self.sums(span.application.as_ref(), span.from..span.to, length(unit)).await?;
        let mut all: BTreeMap<i64, Marks> = BTreeMap::new();
        for (at, (_, marks)) in sums.into_iter().flat_map(|(_, sums)| sums) {
            all.entry(at).or_default().add(&marks);
        }
        all.retain(|_, marks| marks.measured() > 0);
        Ok(all.into_iter().map(|(at, marks)| quality(at, &marks)).collect())
    }

    /// The newest sessions with problems, and those.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub async fn with_problems(&self, span: &Span) -> Result<Vec<(String, i64)>, Fault> {
        self.troubled(span.application.as_ref(), span.from, span.to).await
    }
}

fn quality(at: i64, marks: &Marks) -> Quality {
    let [_, score, loss, losses, round_trip, round_trips, frozen, ..] = marks.0;
    #[allow(clippy::cast_possible_truncation)] // counts of minutes
    let mean_of = |sum: f64, count: f64| mean(sum, count as i64);
    Quality {
        at,
        measured: marks.measured(),
        score: mean(score, marks.measured()).unwrap_or_default(),
        loss_fraction: mean_of(loss, losses),
        round_trip_seconds: mean_of(round_trip, round_trips),
        frozen_seconds: frozen,
        problems: grade::PROBLEMS.iter().map(|problem| problem.name).zip(marks.counts()).collect(),
    }
}

fn length(unit: &str) -> i64 {
    let known = super::UNITS.iter().find(|(name, _)| *name == unit);
    known.map_or(86_400_000, |(_, length)| *length)
}
