//! A question to a CnC over HTTP/1.1: one GET on a connection of its own, and `HOST:PORT` as the answer.

use crate::core::resolver::{Place, Question};
use crate::error::Error;
use crate::proxy::{Proxy, Route};
use crate::service::connect_tls;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What is spoken over TLS.
pub(crate) const ALPN: &[u8] = b"http/1.1";
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
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {place}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n",
        question.target
    );
    let mut answer = Vec::new();
    if question.resolver.tls {
        let (mut stream, ..) = connect_tls(route, tls).await?;
        stream.send(request.as_bytes())?;
        while !is_whole(&answer) {
            // The connection's end is the answer's, as far as it came.
            let Ok(bytes) = stream.turn().await else { break };
            answer.extend(bytes);
        }
    } else {
        let (mut stream, _) = route.connect().await?;
        let broken = |error: std::io::Error| wrong(place, &error.to_string());
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut bytes = [0; 2048];
        while !is_whole(&answer) {
            let len = stream.read(&mut bytes).await.map_err(broken)?;
            if len == 0 {
                break;
            }
            answer.extend_from_slice(bytes.get(..len).unwrap_or_default());
        }
    }
    read(place, &answer)
}

/// Head and body, once the head is there.
fn parts(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    Some((std::str::from_utf8(head).ok()?, body))
}

fn length(head: &str) -> Option<usize> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

/// Nothing more is read.
fn is_whole(answer: &[u8]) -> bool {
    let whole = parts(answer)
        .and_then(|(head, body)| length(head).map(|length| body.len() >= length))
        .unwrap_or(false);
    whole || answer.len() > ANSWER_BYTES
}

fn read(place: &Place, answer: &[u8]) -> Result<Place, Error> {
    let (head, body) = parts(answer).ok_or_else(|| wrong(place, "what it answers is no HTTP"))?;
    let body = body.get(..length(head).unwrap_or(body.len()));
    let text = body.and_then(|body| std::str::from_utf8(body).ok());
    let text = text.ok_or_else(|| wrong(place, "it broke off its answer"))?.trim();
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
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

    fn reading(answer: &str) -> Result<String, String> {
        let place = Place { host: "cnc".into(), port: 443 };
        let found = read(&place, answer.as_bytes());
        found.map(|place| place.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn answers_are_read_and_what_is_none_is_said() {
        let plain = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 11\r\n\r\n";
        assert_eq!(reading(&format!("{plain}[::1]:8443\n")), Ok("[::1]:8443".into()));
        assert_eq!(reading("HTTP/1.1 200 OK\r\n\r\na:1"), Ok("a:1".into()));
        let full = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\n\r\nno room";
        for (answer, words) in [
            (full, "the CnC cnc:443: it answers 503: no room"),
            ("", "no HTTP"),
            ("SSH-2.0\r\n", "no HTTP"),
            (plain, "broke off"),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", "is this a CnC?"),
        ] {
            let why = reading(answer).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn no_more_is_read_than_there_is() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        for (answer, whole) in
            [(head.to_owned(), false), (format!("{head}a:1"), true), ("x".repeat(20_000), true)]
        {
            assert_eq!(is_whole(answer.as_bytes()), whole);
        }
    }
}
