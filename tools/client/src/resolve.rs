//! A question to a CnC: one GET, and `HOST:PORT` as the answer.

use crate::core::resolver::{Place, Question};
use crate::error::Error;
use crate::http::{Answer, Request};
use crate::proxy::{Proxy, Route};
use std::sync::Arc;

/// What a CnC may answer, header and all: a node's address is 300 bytes at most.
const ANSWER_BYTES: usize = 16 << 10;
/// How much of what a CnC says is repeated in an error.
const REASON_BYTES: usize = 300;

/// The node, as the CnC says. The core decides how long that may take.
pub(crate) async fn ask(
    question: Question,
    proxy: Option<Proxy>,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Place, Error> {
    let place = &question.resolver.place;
    let route = Route { host: place.host.clone(), port: place.port, proxy };
    let headers = ["Accept: text/plain".to_owned()];
    let target = &question.target;
    let request = Request { method: "GET", target, headers: &headers, body: "" };
    let tls = question.resolver.tls.then_some(tls);
    let answer = request.send(route, tls, ANSWER_BYTES).await.map_err(|error| match error {
        Error::Connect { why, .. } => wrong(place, &why),
        other => other,
    })?;
    read(place, &answer)
}

fn read(place: &Place, Answer { status, body }: &Answer) -> Result<Place, Error> {
    let text = body.trim();
    if *status != 200 {
        let reason: String = text.chars().take(REASON_BYTES).collect();
        return Err(wrong(place, &format!("it answers {status}: {reason}")));
    }
    Place::parse(text).ok_or_else(|| wrong(place, "it names no HOST:PORT: is this a CnC?"))
}

fn wrong(place: &Place, why: &str) -> Error {
    Error::Connect { what: format!("the CnC {place}"), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_and_what_names_none_is_said() {
        let reading = |status, body: &str| {
            let place = Place { host: "cnc".into(), port: 443 };
            let found = read(&place, &Answer { status, body: body.into() });
            found.map(|place| place.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(reading(200, "[::1]:8443\n"), Ok("[::1]:8443".into()));
        for (status, body, words) in [
            (503, "no room", "the CnC cnc:443: it answers 503: no room"),
            (307, "https://other", "it answers 307"),
            (200, "<html>", "is this a CnC?"),
        ] {
            let why = reading(status, body).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
