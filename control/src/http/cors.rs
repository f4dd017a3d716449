//! Cross-origin requests (RFC 9725 section 4.6 and the Fetch standard) and OPTIONS.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{App, Shared};
use crate::config::IceServer;

/// Adds what a browser needs to let a page of another origin read the answer.
pub async fn add_headers(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_options = request.method() == Method::OPTIONS;
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD).cloned();
    let mut response = next.run(request).await;
    if is_options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = asked.map_or(response, |asked| preflight(&asked));
    }
    let allowed = &app.config.http.cors_origins;
    let value = match origin {
        _ if allowed.iter().any(|origin| origin == "*") => Some(HeaderValue::from_static("*")),
        Some(origin) if allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) => {
            Some(origin)
        }
        _ => None,
    };
    let headers = response.headers_mut();
    if let Some(value) = value {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "Location, Link, ETag, WWW-Authenticate, Accept-Post, Accept-Patch, Retry-After",
            ),
        );
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The question of a browser whether a page may ask in this way, of what has no OPTIONS of its own.
/// Whether there is such a method is said by the answer to what is asked then.
fn preflight(asked: &HeaderValue) -> Response {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    let methods = known.into_iter().find(|known| known.as_bytes() == asked.as_bytes());
    let methods = HeaderValue::from_static(methods.unwrap_or("GET, HEAD"));
    (StatusCode::NO_CONTENT, allow(methods)).into_response()
}

/// OPTIONS of `/whip/{scope}` and `/whep/{scope}`.
pub async fn endpoint(State(app): Shared) -> Response {
    let mut headers = allow(HeaderValue::from_static("POST, OPTIONS"));
    headers.insert("accept-post", HeaderValue::from_static("application/sdp"));
    add_ice_servers(&app, &mut headers);
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// OPTIONS of a session.
pub async fn session() -> Response {
    let mut headers = allow(HeaderValue::from_static("PATCH, DELETE, OPTIONS"));
    headers.insert("accept-patch", HeaderValue::from_static("application/trickle-ice-sdpfrag"));
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// One Link header for each STUN or TURN server (RFC 9725 section 4.5).
pub fn add_ice_servers(app: &App, headers: &mut HeaderMap) {
    for server in &app.config.signal.ice_servers {
        if let Ok(value) = HeaderValue::from_str(&ice_server_link(server)) {
            headers.append(header::LINK, value);
        }
    }
}

/// The value of a Link header for a STUN or TURN server.
pub(super) fn ice_server_link(server: &IceServer) -> String {
    let mut link = format!("<{}>; rel=\"ice-server\"", server.url);
    if !server.username.is_empty() {
        link += &format!(
            "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
            server.username,
            server.credential.expose()
        );
    }
    link
}

fn allow(methods: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ALLOW, methods.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let names = HeaderValue::from_static("Authorization, Content-Type, If-Match");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers
}
