//! Applications and their API keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Asked, Caller, Refused, Told};
use super::page;
use crate::auth::{Application, Key, Material, PublicKey, Secret};
use crate::fault::Fault;
use crate::http::{self, App};

type Answer = Result<Json<Value>, Refused>;
type Made = Result<(StatusCode, Json<Value>), Refused>;

/// The key that an application begins with.
const FIRST_KEY: &str = "first";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    cursor: Option<String>,
    limit: Option<usize>,
}

/// All that the caller sees, page by page.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<Page>,
) -> Answer {
    let count = page::count(asked.limit)?;
    let applications = app.store.applications_read();
    let found = match &caller {
        Caller::Operator => applications.page(&asked.cursor.unwrap_or_default(), count + 1).await?,
        Caller::Application(own) => applications.find(own).await?.into_iter().collect(),
    };
    let (found, next) = page::cut(found, count, |last| Some(last.id.clone()));
    let items: Vec<Value> = found.iter().map(shown).collect();
    Ok(Json(json!({ "items": items, "next": next })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewApplication {
    application: String,
}

/// Adds one with a first key, whose secret is shown this once.
pub async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Told(told): Told<NewApplication>,
) -> Made {
    caller.check_operator()?;
    let name = told.application;
    let key = Key::new(FIRST_KEY, Material::Secret(Secret::random()?), http::now());
    app.store.applications().add_with(&name, &key).await?;
    let answer = json!({ "application": of(&app, &caller, &name).await?, "key": new_key(&key) });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// One of them.
pub async fn find(State(app): State<Arc<App>>, caller: Caller, Path(name): Path<String>) -> Answer {
    Ok(Json(of(&app, &caller, &name).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Changed {
    concatenated: Option<bool>,
    changes_keys: Option<bool>,
}

/// Changes what it takes.
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Told(told): Told<Changed>,
) -> Answer {
    caller.check_operator()?;
    let applications = app.store.applications();
    if let Some(is_on) = told.concatenated {
        applications.set_concatenated(&name, is_on).await?;
    }
    if let Some(is_on) = told.changes_keys {
        applications.set_changes_keys(&name, is_on).await?;
    }
    Ok(Json(of(&app, &caller, &name).await?))
}

/// Removes it and its keys.
pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    caller.check_operator()?;
    app.store.applications().remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AddedKey {
    key: String,
    public_key: Option<String>,
}

/// Adds a key; a secret is shown this once.
pub async fn add_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Told(told): Told<AddedKey>,
) -> Made {
    caller.check_operator()?;
    let material = match told.public_key {
        Some(pem) => Material::Es256(PublicKey::from_pem(&pem)?),
        None => Material::Secret(Secret::random()?),
    };
    let key = Key::new(&told.key, material, http::now());
    app.store.applications().add_key(&name, &key).await?;
    Ok((StatusCode::CREATED, Json(new_key(&key))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switched {
    enabled: bool,
}

/// Switches a key on or off.
pub async fn change_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((name, key)): Path<(String, String)>,
    Told(told): Told<Switched>,
) -> Answer {
    caller.check_operator()?;
    app.store.applications().enable_key(&name, &key, told.enabled).await?;
    Ok(Json(of(&app, &caller, &name).await?))
}

/// Revokes a key.
pub async fn revoke_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((name, key)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    caller.check_operator()?;
    app.store.applications().remove_key(&name, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn of(app: &App, caller: &Caller, name: &str) -> Result<Value, Fault> {
    let found = match caller.sees(name) {
        true => app.store.applications_read().find(name).await?,
        false => None,
    };
    let none = || Fault::not_found(format!("there is no application {name:?}; see /applications"));
    found.map(|found| shown(&found)).ok_or_else(none)
}

/// An application without what is secret.
fn shown(application: &Application) -> Value {
    json!({
        "application": application.id,
        "concatenated": application.concatenated,
        "changesKeys": application.changes_keys,
        "keys": application.keys.iter().map(shown_key).collect::<Vec<_>>(),
    })
}

fn shown_key(key: &Key) -> Value {
    json!({
        "key": key.id,
        "kind": key.material.kind(),
        "enabled": key.is_enabled,
        "createdAt": key.created.saturating_mul(1_000),
    })
}

/// A key that was made just now, with its secret.
fn new_key(key: &Key) -> Value {
    let mut shown = shown_key(key);
    shown["secret"] = match &key.material {
        Material::Secret(secret) => json!(secret.expose()),
        Material::Es256(_) => Value::Null,
    };
    shown
}
