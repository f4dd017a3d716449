//! `/api/v1`: analytics, keys, invoices, nodes, diagnostics. `docs/reference/api.md` explains it,
//! `api/openapi.json` describes every field, `access` says who may ask for what.

mod access;
mod analytics;
mod applications;
mod diagnostics;
mod gate;
mod invoices;
mod nodes;
mod page;
mod prices;
mod probes;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post};

use crate::fault::Fault;
use crate::http::App;
use crate::limits;
use access::Refused;

pub use gate::Gate;

/// The document that describes all of it.
pub const OPENAPI: &str = include_str!("api/openapi.json");

/// All calls, by their paths below `/api/v1`.
fn calls() -> [(&'static str, MethodRouter<Arc<App>>); 25] {
    [
        ("/openapi.json", get(openapi)),
        ("/me", get(analytics::me)),
        ("/scopes", get(analytics::scopes)),
        ("/sessions", get(analytics::sessions)),
        ("/sessions/{session}", get(analytics::session)),
        ("/sessions/{session}/quality", get(analytics::timeline)),
        ("/usage", get(analytics::usage)),
        ("/quality", get(analytics::quality)),
        ("/problems", get(analytics::problems)),
        ("/availability", get(analytics::availability)),
        ("/applications", get(applications::list).post(applications::add)),
        (
            "/applications/{application}",
            get(applications::find).patch(applications::change).delete(applications::remove),
        ),
        ("/applications/{application}/keys", post(applications::add_key)),
        (
            "/applications/{application}/keys/{key}",
            patch(applications::change_key).delete(applications::revoke_key),
        ),
        ("/prices", get(prices::list).put(prices::set).delete(prices::remove)),
        ("/invoices", get(invoices::list)),
        ("/invoices/due", get(invoices::due)),
        ("/invoices/{application}/{month}", get(invoices::find).post(invoices::issue)),
        ("/nodes", get(nodes::list)),
        ("/nodes/{node}/drain", post(nodes::drain)),
        ("/nodes/{node}/undrain", post(nodes::undrain)),
        ("/probes", post(probes::add)),
        ("/diagnostics", get(diagnostics::list)),
        ("/diagnostics/{id}", get(diagnostics::find).post(diagnostics::add)),
        ("/{*nothing}", axum::routing::any(nothing)),
    ]
}

/// The routes of `/api/v1`.
pub fn router(app: Arc<App>) -> Router<Arc<App>> {
    let routes = calls().into_iter();
    let router = routes.fold(Router::new(), |router, (path, call)| router.route(path, call));
    let router = router.layer(from_fn(in_time)).layer(from_fn_with_state(app, gate::pass));
    router.layer(from_fn(preflight))
}

/// Who asks is told when the store takes for ever: what changes something has no limit of its own
/// there. What was done is undone, unless it had come to its end.
async fn in_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(limits::API_TIME, next.run(request)).await.unwrap_or_else(|_| {
        let text = "the store took too long; look whether it was done, and ask again in a moment";
        Refused::from(Fault::unavailable(text)).into_response()
    })
}

/// What browsers ask before they call from a page of another origin (Fetch standard).
async fn preflight(request: Request, next: Next) -> Response {
    if request.method() != Method::OPTIONS {
        return next.run(request).await;
    }
    let mut headers = HeaderMap::new();
    let methods = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let names = HeaderValue::from_static("Authorization, Content-Type");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], OPENAPI)
        .into_response()
}

async fn nothing() -> Refused {
    Fault::not_found("there is no such call; GET /api/v1/openapi.json lists all there are").into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_path_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described: BTreeSet<String> =
            document["paths"].as_object().unwrap().keys().cloned().collect();
        // One route takes what the document tells apart.
        for kind in diagnostics::KINDS {
            assert!(described.remove(&format!("/diagnostics/{kind}")), "{kind}");
        }
        let routed = calls().map(|(path, _)| path.to_owned());
        let routed = routed.into_iter().filter(|path| path != "/{*nothing}").collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_schema_is_there() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for reference in OPENAPI.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
