//! Clients of a scope that another node has are sent there: the same request, to that node.

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::fault::Elsewhere;

/// Completes the answer of a handler that said where the scope is: path and query stay.
pub async fn complete(request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map(|target| target.as_str().to_owned());
    let is_websocket = request.headers().contains_key(header::UPGRADE);
    let mut response = next.run(request).await;
    if let Some(elsewhere) = response.extensions_mut().remove::<Elsewhere>() {
        let origin = elsewhere.origin();
        // A client that opens a WebSocket takes addresses of such alone.
        let origin = if is_websocket { origin.replacen("http", "ws", 1) } else { origin };
        let location = [origin.as_str(), target.as_deref().unwrap_or("/")].concat();
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    response
}
