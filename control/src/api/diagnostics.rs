//! What clients post when something is wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::{Asked, Caller, Refused, Told};
use super::page;
use crate::fault::Fault;
use crate::http::{App, identify};
use crate::id;
use crate::store::{Entry, WantedEntries};

/// Kinds of what is posted.
pub const KINDS: [&str; 3] = ["reports", "devices", "logs"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    session: Option<String>,
}

/// Keeps what a client posts.
pub async fn add(
    State(app): State<Arc<App>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Path(kind): Path<String>,
    Asked(about): Asked<About>,
    headers: HeaderMap,
    Told(told): Told<Map<String, Value>>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    if !KINDS.contains(&kind.as_str()) {
        let text = format!("clients post no {kind:?}; these are known: {}", KINDS.join(", "));
        return Err(Fault::not_found(text).into());
    }
    let address = client.ip().to_canonical();
    let now = Instant::now();
    app.gate.check_post(address, now)?;
    let admitted = identify(&app, &headers, about.session.as_deref()).await.map_err(Fault::from)?;
    let identity = admitted.identity;
    app.gate.check_posts_of(&identity.application, now)?;
    let text = |name: &str, characters_max: usize| {
        let text = told.get(name)?.as_str()?;
        Some(text.chars().filter(|c| *c != '\0').take(characters_max).collect::<String>())
    };
    let (scope, session, peer) = (text("scope", 64), text("session", 64), text("peer", 128));
    let body = serde_json::to_string(&told)
        .map_err(|error| Fault::malformed(format!("this is no JSON: {error}")))?;
    let entry = Entry {
        id: id::random("d")?,
        kind,
        application: identity.application,
        scope,
        session,
        peer,
        user: identity.subject.chars().filter(|c| *c != '\0').take(128).collect(),
        address: address.to_string(),
        at: app.notary.now(),
        bytes: i64::try_from(body.len()).unwrap_or(i64::MAX),
    };
    app.store.diagnostics().add(&entry, &body).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": entry.id, "at": entry.at }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntriesAsked {
    application: Option<String>,
    kind: Option<String>,
    scope: Option<String>,
    session: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// What was posted, page by page.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<EntriesAsked>,
) -> Result<Json<Value>, Refused> {
    let count = page::count(asked.limit)?;
    let wanted = WantedEntries {
        application: caller.application(asked.application)?,
        kind: asked.kind,
        scope: asked.scope,
        session: asked.session,
        from: asked.from,
        to: asked.to,
        after: asked.cursor.as_deref().map(page::read_cursor).transpose()?,
        count: count + 1,
    };
    let items = app.store.diagnostics().list(&wanted).await?;
    let (items, next) = page::cut(items, count, |last| Some(page::cursor(last.at, &last.id)));
    Ok(Json(json!({ "items": items, "next": next })))
}

/// One entry, whole.
pub async fn find(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let found = app.store.diagnostics().find(&id).await?;
    let Some((entry, body)) = found.filter(|(entry, _)| caller.sees(&entry.application)) else {
        let text = "there is no such entry; it was forgotten, or is another application's";
        return Err(Fault::not_found(text).into());
    };
    let mut told = json!(entry);
    told["body"] = body;
    Ok(Json(told))
}
