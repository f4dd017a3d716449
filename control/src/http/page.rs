//! The page and the dashboard: files embedded when the binary was built.

use std::borrow::Cow;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::answer::refuse_with;
use crate::id;

include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// What a binary without the page says, once at start and at `GET /`.
pub const MISSING: &str = "The page is not in this binary: it was built without the web files. \
    Run ./dev build-web and build again. WHIP, WHEP and the WebSocket work without it.";

struct File {
    name: &'static str,
    content_type: &'static str,
    etag: String,
    bytes: &'static [u8],
}

static PAGE: LazyLock<Vec<File>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|&(name, content_type, bytes)| {
            let hash = digest::digest(&digest::SHA256, bytes);
            let hash = hash.as_ref().get(..16).unwrap_or_default();
            File { name, content_type, etag: format!("\"{}\"", id::hex(hash)), bytes }
        })
        .collect()
});

/// Whether the page is in this binary.
pub fn is_present() -> bool {
    FILES.iter().any(|(name, ..)| *name == "index.html")
}

/// Any path that is no other route.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let mut response =
            refuse_with(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if uri.path() == "/dashboard" {
        // Its files are relative to the folder, also behind a proxy that adds a prefix.
        return Redirect::permanent("dashboard/").into_response();
    }
    let name = file_name(uri.path());
    let Some(file) = PAGE.iter().find(|file| file.name == name) else {
        return match &*name {
            "index.html" | "dashboard/index.html" => {
                (StatusCode::OK, format!("{MISSING}\n")).into_response()
            }
            _ => refuse_with(StatusCode::NOT_FOUND, "there is nothing at this address"),
        };
    };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == file.etag));
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => file.bytes.into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&file.etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    // Names carry no hash: a browser asks each time, and mostly gets a 304.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; \
             media-src 'self' blob: mediastream:; style-src 'self'; base-uri 'none'; \
             form-action 'self'; frame-ancestors 'none'; object-src 'none'",
        ),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Of a folder that is its page.
fn file_name(path: &str) -> Cow<'_, str> {
    let path = path.trim_start_matches('/');
    match path.is_empty() || path.ends_with('/') {
        true => Cow::Owned(format!("{path}index.html")),
        false => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_page() {
        assert_eq!(file_name("/"), "index.html");
        assert_eq!(file_name("/page.js"), "page.js");
        assert_eq!(file_name("/dashboard/"), "dashboard/index.html");
        assert_eq!(file_name("/dashboard/dashboard.js"), "dashboard/dashboard.js");
    }

    #[tokio::test]
    async fn the_dashboard_is_a_folder() {
        let uri = Uri::from_static("/dashboard");
        let response = serve(Method::GET, uri, HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
        let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        assert_eq!(to, Some("dashboard/"));
    }
}
