//! What was used, and how well it went.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Asked, Caller, Refused};
use super::page;
use crate::events::grade;
use crate::fault::Fault;
use crate::http::App;
use crate::limits;
use crate::store::{By, Span, Step, UNITS, Usage, WantedSessions, floor, month_of};

type Answer = Result<Json<Value>, Refused>;

const DAY_MS: i64 = 86_400_000;

/// Whom the token speaks for.
pub async fn me(caller: Caller) -> Json<Value> {
    Json(match caller {
        Caller::Operator => json!({ "role": "operator", "application": null }),
        Caller::Application(name) => json!({ "role": "application", "application": name }),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfApplication {
    application: Option<String>,
}

/// Sessions that last.
pub async fn scopes(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<OfApplication>,
) -> Answer {
    let wanted = WantedSessions {
        application: caller.application(asked.application)?,
        live: Some(true),
        count: limits::SCOPES_TOLD,
        ..WantedSessions::default()
    };
    let items = app.store.analytics().sessions(&wanted, app.notary.now()).await?;
    Ok(Json(json!({ "items": items })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionsAsked {
    application: Option<String>,
    scope: Option<String>,
    user: Option<String>,
    live: Option<bool>,
    problem: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Sessions, page by page.
pub async fn sessions(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<SessionsAsked>,
) -> Answer {
    let problems = asked.problem.map(|name| {
        grade::bit(&name).ok_or_else(|| {
            let known = grade::PROBLEMS.map(|problem| problem.name).join(", ");
            Fault::malformed(format!("there is no problem {name:?}; these are known: {known}"))
        })
    });
    let count = page::count(asked.limit)?;
    let wanted = WantedSessions {
        application: caller.application(asked.application)?,
        scope: asked.scope,
        user: asked.user,
        live: asked.live,
        problems: problems.transpose()?,
        from: asked.from,
        to: asked.to,
        after: asked.cursor.as_deref().map(page::read_cursor).transpose()?,
        count: count + 1,
    };
    let items = app.store.analytics().sessions(&wanted, app.notary.now()).await?;
    let (items, next) =
        page::cut(items, count, |last| Some(page::cursor(last.created_at, &last.session)));
    Ok(Json(json!({ "items": items, "next": next })))
}

/// One session with its stays.
pub async fn session(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer {
    let session = seen(&app, &caller, &id).await?;
    let mut stays = app.store.analytics().stays(&id, limits::STAYS_TOLD + 1).await?;
    let truncated = stays.len() > limits::STAYS_TOLD;
    stays.truncate(limits::STAYS_TOLD);
    let mut told = json!(session);
    told["peers"] = json!(stays);
    told["truncated"] = json!(truncated);
    Ok(Json(told))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimelineAsked {
    points: Option<i64>,
}

/// How its streams fared.
pub async fn timeline(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(asked): Asked<TimelineAsked>,
) -> Answer {
    if asked.points.is_some_and(|points| !(1..=limits::POINTS_PER_STREAM).contains(&points)) {
        return Err(Fault::malformed(format!(
            "points is not of 1 to {}; leave it out for a point each minute",
            limits::POINTS_PER_STREAM
        ))
        .into());
    }
    let session = seen(&app, &caller, &id).await?;
    let end = session.ended_at.unwrap_or_else(|| app.notary.now());
    let step = Step::new(session.created_at, end, asked.points);
    let streams = app.store.analytics().timeline(&id, step, limits::POINTS_TOLD).await?;
    let points: usize = streams.iter().map(|stream| stream.points.len()).sum();
    let truncated = points >= limits::POINTS_TOLD;
    Ok(Json(json!({
        "session": id, "stepSeconds": step.length_ms / 1_000, "streams": streams,
        "truncated": truncated,
    })))
}

/// A session that the caller may see. That of another application is as good as none.
async fn seen(app: &App, caller: &Caller, id: &str) -> Result<crate::store::Session, Fault> {
    let found = app.store.analytics().session(id, app.notary.now()).await?;
    found.filter(|session| caller.sees(&session.application)).ok_or_else(|| {
        Fault::not_found(format!(
            "there is no session {id:?}; it was forgotten (agent.keep_days), or is another \
             application's"
        ))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumsAsked {
    application: Option<String>,
    by: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    each: Option<bool>,
}

/// What was used.
pub async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<SumsAsked>,
) -> Answer {
    let name = asked.by.as_deref().unwrap_or("day");
    let by = match UNITS.iter().find(|(unit, _)| *unit == name) {
        Some((unit, _)) => By::Unit(unit),
        None if name == "month" => By::Month,
        None => return Err(unknown_unit(name, "minute, hour, day, month").into()),
    };
    let application = caller.application(asked.application)?;
    let mut span = span(application, name, asked.from, asked.to, app.notary.now())?;
    span.from = begin(span.from, name);
    let each = asked.each.unwrap_or(false);
    let rows = app.store.sums().usage(&span, by, each).await?;
    let mut total = Usage::total(&rows, span.from);
    total.application.clone_from(&span.application);
    Ok(Json(json!({
        "by": name, "from": span.from, "to": span.to, "rows": rows, "total": total,
    })))
}

/// How well it went.
pub async fn quality(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<SumsAsked>,
) -> Answer {
    let name = asked.by.as_deref().unwrap_or("hour");
    let Some((unit, _)) = UNITS.iter().find(|(unit, _)| *unit == name) else {
        return Err(unknown_unit(name, "minute, hour, day").into());
    };
    let application = caller.application(asked.application)?;
    let mut span = span(application, name, asked.from, asked.to, app.notary.now())?;
    span.from = begin(span.from, name);
    let rows = app.store.sums().quality(&span, unit).await?;
    Ok(Json(json!({ "by": name, "from": span.from, "to": span.to, "rows": rows })))
}

/// What went wrong most.
pub async fn problems(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<SumsAsked>,
) -> Answer {
    let application = caller.application(asked.application)?;
    let now = app.notary.now();
    let from = asked.from.unwrap_or_else(|| asked.to.unwrap_or(now).saturating_sub(DAY_MS));
    let span = span(application, "hour", Some(from), asked.to, now)?;
    let (measured, problems) = app.store.sums().problems(&span).await?;
    Ok(Json(json!({
        "from": span.from, "to": span.to, "measured": measured, "problems": problems,
    })))
}

/// How much of the time was down.
pub async fn availability(
    State(app): State<Arc<App>>,
    _caller: Caller,
    Asked(asked): Asked<SumsAsked>,
) -> Answer {
    let now = app.notary.now();
    let from = asked.from.unwrap_or_else(|| asked.to.unwrap_or(now).saturating_sub(30 * DAY_MS));
    let span = span(None, "day", Some(from), asked.to, now)?;
    let told = app.store.checks().availability(span.from, span.to.min(now)).await?;
    Ok(Json(json!(told)))
}

/// From when to when.
fn span(
    application: Option<String>,
    by: &str,
    from: Option<i64>,
    to: Option<i64>,
    now: i64,
) -> Result<Span, Fault> {
    let (usual, most) = match by {
        "minute" => (1, 1),
        "hour" => (7, 31),
        "day" => (31, 400),
        _ => (365, 3_660),
    };
    let to = to.unwrap_or(now);
    let from = from.unwrap_or_else(|| to.saturating_sub(usual * DAY_MS));
    if from < 0 || to < from || to > limits::TIME_MS_MAX {
        return Err(Fault::malformed(
            "from and to are no span of time; give milliseconds since 1970, the earlier one first",
        ));
    }
    if to - from > most * DAY_MS {
        return Err(Fault::malformed(format!(
            "that is more than {most} days by {by}; ask for less, or by something longer"
        )));
    }
    Ok(Span { application, from, to })
}

/// The beginning of the unit that a time is in: units are told whole.
fn begin(at: i64, unit: &str) -> i64 {
    let length = UNITS.iter().find(|(name, _)| *name == unit);
    length.map_or_else(|| month_of(at), |(_, length)| floor(at, *length))
}

fn unknown_unit(name: &str, known: &str) -> Fault {
    Fault::malformed(format!("nothing is summed up by {name:?}; these are known: {known}"))
}
