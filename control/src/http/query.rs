//! What a request's query says.

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::fault::Fault;

/// As axum's, which has U+FFFD in place of bytes that are no UTF-8: a name would be another one, and two
/// of them the same. Here they are refused.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        if !is_text(parts.uri.query().unwrap_or_default()) {
            return Err(Fault::malformed(
                "the query of the address is no UTF-8 text; encode names as UTF-8, each byte as %XX",
            ));
        }
        let read = extract::Query::try_from_uri(&parts.uri);
        Ok(Self(read.map_err(|error| Fault::malformed(error.body_text()))?.0))
    }
}

/// Whether what `%XX` stand for is UTF-8.
fn is_text(query: &str) -> bool {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let encoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match encoded.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => bytes.push(*first),
        }
    }
    std::str::from_utf8(&bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_text;

    #[test]
    fn bytes_that_are_no_text_are_found() {
        for text in ["", "name=Zo%C3%AB", "a=%", "a=100%25", "a=%zz", "name=x%20y&b=ü"] {
            assert!(is_text(text), "{text}");
        }
        for bytes in ["name=%ff", "name=Zo%C3", "a=%80&b=1"] {
            assert!(!is_text(bytes), "{bytes}");
        }
    }
}
