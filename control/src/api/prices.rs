//! What minutes cost.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Asked, Caller, Refused, Told};
use super::invoices::check_known;
use crate::http::App;
use crate::store::invoices::{Month, Price, read_money, write_money};

type Answer = Result<Json<Value>, Refused>;

/// All of them.
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    caller.check_operator()?;
    let prices = app.store.prices().list().await?;
    Ok(Json(json!({ "items": prices.iter().map(shown).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Set {
    application: Option<String>,
    from: String,
    currency: String,
    decimals: Option<usize>,
    per_thousand_minutes: String,
    issuer: Option<String>,
}

/// Sets one.
pub async fn set(State(app): State<Arc<App>>, caller: Caller, Told(told): Told<Set>) -> Answer {
    caller.check_operator()?;
    let price = Price {
        application: told.application,
        from: told.from.parse()?,
        currency: told.currency,
        decimals: told.decimals.unwrap_or(2),
        micros: read_money(&told.per_thousand_minutes)?,
        issuer: told.issuer.unwrap_or_default(),
    };
    if let Some(application) = &price.application {
        check_known(&app, application, Month::of(app.notary.now())).await?;
    }
    app.store.prices().set(&price).await?;
    Ok(Json(shown(&price)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    application: Option<String>,
    from: String,
}

/// Removes one.
pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Asked(asked): Asked<Removed>,
) -> Result<StatusCode, Refused> {
    caller.check_operator()?;
    app.store.prices().remove(asked.application.as_deref(), asked.from.parse()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(price: &Price) -> Value {
    json!({
        "application": price.application,
        "from": price.from.to_string(),
        "currency": price.currency,
        "decimals": price.decimals,
        "perThousandMinutes": write_money(price.micros, price.decimals),
        "issuer": price.issuer,
    })
}
