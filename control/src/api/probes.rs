//! What probes say of their calls.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::access::{Caller, Refused, Told};
use crate::http::App;
use crate::{id, limits};

/// How a call went.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probed {
    node: String,
    ok: bool,
    reason: Option<String>,
}

/// Notes it, for the availability.
pub async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Told(told): Told<Probed>,
) -> Result<StatusCode, Refused> {
    caller.check_operator()?;
    // A node that died is no longer in the registry: any name may be one.
    id::check_name("node", &told.node, limits::NODE_NAME_BYTES)?;
    let why = told.reason.as_deref().unwrap_or("no reason given");
    let at = app.notary.now();
    app.store.checks().probed(&told.node, at, (!told.ok).then_some(why)).await?;
    Ok(StatusCode::NO_CONTENT)
}
