//! Who may ask for what, and how refusals look.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::gate::Place;
use crate::fault::{Class, Fault};
use crate::http::answer::refuse;
use crate::http::query::Query;
use crate::http::{App, bearer, identify};

/// Whom a request speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// One who sees all, and manages it.
    Operator,
    /// One who sees an application.
    Application(String),
}

impl Caller {
    /// The application to tell of: the wanted one, or all (none) for operators.
    ///
    /// # Errors
    /// [`Class::Forbidden`].
    pub fn application(&self, wanted: Option<String>) -> Result<Option<String>, Fault> {
        match (self, wanted) {
            (Self::Operator, wanted) => Ok(wanted),
            (Self::Application(own), Some(wanted)) if *own != wanted => Err(Fault::forbidden(
                format!("the token is for the application {own:?}; take one of {wanted:?}"),
            )),
            (Self::Application(own), _) => Ok(Some(own.clone())),
        }
    }

    /// Whether what belongs to `application` is theirs to see.
    pub fn sees(&self, application: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Application(own) => own == application,
        }
    }

    /// Refuses all but operators.
    ///
    /// # Errors
    /// [`Class::Forbidden`].
    pub fn check_operator(&self) -> Result<(), Fault> {
        match self {
            Self::Operator => Ok(()),
            Self::Application(_) => Err(Fault::forbidden(
                "this is for operators; send one of api.tokens of the configuration",
            )),
        }
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let caller = Self::judge(parts, app).await?;
        if let Some(place) = parts.extensions.get::<Place>() {
            place.take(&app.gate)?;
        }
        Ok(caller)
    }
}

impl Caller {
    async fn judge(parts: &Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let token = bearer(&parts.headers);
        if token.is_some_and(|token| app.config.api.tokens.iter().any(|known| known.is(token))) {
            return Ok(Self::Operator);
        }
        let admitted = identify(app, &parts.headers, None).await.map_err(Fault::from)?;
        let identity = admitted.identity;
        identity.check_admin()?;
        // Who moderates one scope sees no other.
        identity.check_scope("*")?;
        Ok(Self::Application(identity.application))
    }
}

/// What a request's query says.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let asked: Result<Query<T>, Fault> = Query::from_request_parts(parts, app).await;
        let wrong = |fault: Fault| {
            let text = fault.reason;
            Fault::malformed(format!("{text}; docs/reference/api.md lists what this call takes"))
        };
        Ok(Self(asked.map_err(wrong)?.0))
    }
}

/// What a request's body says.
pub struct Told<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Told<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refused> {
        let told: Result<Json<T>, JsonRejection> = Json::from_request(request, app).await;
        let wrong = |error: JsonRejection| {
            let class = match error.status().as_u16() {
                413 => Class::TooLarge,
                _ => Class::Malformed,
            };
            let text = error.body_text();
            Fault::new(class, format!("{text}; send a JSON object as docs/reference/api.md says"))
        };
        Ok(Self(told.map_err(wrong)?.0))
    }
}

/// A refusal on its way out, as JSON.
#[derive(Debug)]
pub struct Refused(Box<Fault>);

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self(Box::new(fault))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let fault = *self.0;
        let word = match (fault.credential, fault.class) {
            (Some(reason), _) => reason.name(),
            (None, Class::Malformed | Class::NotAcceptable | Class::UnsupportedCodec) => {
                "malformed"
            }
            (None, Class::Unauthorized) => "unauthorized",
            (None, Class::Forbidden) => "forbidden",
            (None, Class::NotFound) => "not_found",
            (None, Class::Conflict) => "conflict",
            (None, Class::TooLarge) => "too_large",
            (None, Class::TooMany) => "too_many",
            (None, Class::Internal) => "internal",
            (None, Class::Unavailable | Class::Elsewhere) => "unavailable",
        };
        let text = match (fault.credential, fault.class) {
            // Tables and statements are the operators', and any client may post diagnostics.
            (None, Class::Internal) => {
                tracing::warn!("a call of the API failed: {fault}");
                "something here failed; the log of strait-control says what"
            }
            _ => &fault.reason,
        };
        let (reason, remedy) = text.rsplit_once("; ").unwrap_or((text, ""));
        let body = json!({ "error": word, "reason": reason, "remedy": remedy });
        // Status and headers are those of any refusal.
        let (parts, _text) = refuse(&fault).into_parts();
        let mut response = Json(body).into_response();
        *response.status_mut() = parts.status;
        for (name, value) in parts.headers {
            if let Some(name) =
                name.filter(|name| *name != "content-type" && *name != "content-length")
            {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
