//! How refusals look over HTTP, and small helpers on headers.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::auth::Reason;
use crate::fault::{Class, Fault};

/// A refusal on its way out. Boxed, as most answers are none.
#[derive(Debug)]
pub struct Refusal(Box<Response>);

impl From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        refuse(&fault).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// A refusal as text, with the headers that its status calls for.
pub fn refuse(fault: &Fault) -> Response {
    let status = StatusCode::from_u16(fault.http_status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, format!("{}\n", fault.reason)).into_response();
    if let Some(elsewhere) = &fault.elsewhere {
        response.extensions_mut().insert((**elsewhere).clone());
    }
    let headers = response.headers_mut();
    if let Some(challenge) = challenge(fault) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if fault.passes {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// What a client without a good credential is told (RFC 6750 section 3).
fn challenge(fault: &Fault) -> Option<HeaderValue> {
    let error = match (fault.class, fault.credential) {
        (Class::Unauthorized, None | Some(Reason::Missing)) => {
            return Some(HeaderValue::from_static("Bearer realm=\"strait\""));
        }
        (Class::Unauthorized, _) => "invalid_token",
        (Class::Forbidden, Some(_)) => "insufficient_scope",
        _ => return None,
    };
    let reason = fault.credential?.name();
    let text =
        format!("Bearer realm=\"strait\", error=\"{error}\", error_description=\"{reason}\"");
    HeaderValue::from_str(&text).ok()
}

/// A refusal with a status that only HTTP has.
pub fn refuse_with(status: StatusCode, reason: &str) -> Response {
    (status, format!("{reason}\n")).into_response()
}

/// Whether the body has this media type (RFC 9110 section 8.3.1).
pub fn has_content_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(wanted))
}

/// Whether the client takes this media type (RFC 9110 section 12.5.1). Weights of 0 are honoured.
pub fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .peekable();
    if ranges.peek().is_none() {
        return true;
    }
    let family = wanted.split('/').next().unwrap_or_default();
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        !is_refused && (name == "*/*" || name == wanted || name == format!("{family}/*"))
    })
}

/// Percent-encodes one path segment (RFC 3986 section 3.3).
pub fn encode_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_as_http_says() {
        let mut headers = HeaderMap::new();
        assert!(accepts(&headers, "application/sdp"));
        assert!(!has_content_type(&headers, "application/sdp"));
        headers.insert("content-type", "Application/SDP; charset=utf-8".parse().unwrap());
        assert!(has_content_type(&headers, "application/sdp"));
        headers.insert("accept", "text/html, application/*;q=0.5".parse().unwrap());
        assert!(accepts(&headers, "application/sdp"));
        headers.insert("accept", "text/html, */*;q=0".parse().unwrap());
        assert!(!accepts(&headers, "application/sdp"));
    }

    #[test]
    fn segments_are_encoded() {
        assert_eq!(encode_segment("a b/ü"), "a%20b%2F%C3%BC");
    }
}
