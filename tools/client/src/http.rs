//! One HTTP/1.1 request on a connection of its own. It is as long as it takes: who sends it puts an end to it.

use crate::error::Error;
use crate::proxy::Route;
use crate::service::connect_tls;
use crate::tls::Tls;
use rustls::ClientConfig;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is spoken over TLS.
pub const ALPN: &[u8] = b"http/1.1";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// GET, POST and so on.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Whole lines without their ends, beside those of every request.
    pub headers: &'a [String],
    /// Content; empty for none.
    pub body: &'a str,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Content.
    pub body: String,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Request<'_> {
    /// Sends it, over TLS where that is given, and reads at most so many bytes.
    ///
    /// # Errors
    /// Nobody is there, or is not trusted; what comes is too long, or no HTTP.
    pub async fn send(
        &self,
        route: Route,
        tls: Option<Arc<ClientConfig>>,
        most: usize,
    ) -> Result<Answer, Error> {
        let Route { host, port, .. } = &route;
        let place =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut stream = match tls {
            Some(tls) => Stream::Tls(connect_tls(route, tls, false).await?.0),
            None => Stream::Plain(route.connect(false).await?.0),
        };
        stream.write(self.text(&place).as_bytes()).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            if answer.len() > most {
                return Err(wrong(&format!("its answer is longer than {most} bytes")));
            }
            // The connection's end is the answer's, as far as it came.
            match stream.read().await {
                Ok(bytes) => answer.extend(bytes),
                Err(_) => break,
            }
        }
        read(&answer)
    }

    fn text(&self, place: &str) -> String {
        let Self { method, target, headers, body } = self;
        let mut text = format!(
            "{method} {target} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\
             Content-Length: {}\r\n",
            body.len()
        );
        for header in *headers {
            text += header;
            text += "\r\n";
        }
        text + "\r\n" + body
    }
}

impl Stream {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Plain(stream) => {
                stream.write_all(bytes).await.map_err(|error| wrong(&error.to_string()))
            }
            Self::Tls(tls) => tls.send(bytes),
        }
    }

    async fn read(&mut self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Tls(tls) => tls.turn().await,
            Self::Plain(stream) => {
                let mut bytes = vec![0; 16 << 10];
                let read = stream.read(&mut bytes).await;
                let len = read.map_err(|error| wrong(&error.to_string()))?;
                bytes.truncate(len);
                if len == 0 { Err(wrong("it closed the connection")) } else { Ok(bytes) }
            }
        }
    }
}

/// Head and body, once the head is there.
fn parts(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    Some((std::str::from_utf8(head).ok()?, body))
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    found.map(|(_, value)| value.trim())
}

fn length(head: &str) -> Option<usize> {
    header(head, "content-length")?.parse().ok()
}

/// Nothing more is read.
fn is_whole(answer: &[u8]) -> bool {
    let length = parts(answer).and_then(|(head, body)| Some((length(head)?, body.len())));
    length.is_some_and(|(length, came)| came >= length)
}

fn read(answer: &[u8]) -> Result<Answer, Error> {
    let (head, body) = parts(answer).ok_or_else(|| wrong("what it answers is no HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| wrong("what it answers is no HTTP"))?;
    let body = body.get(..length(head).unwrap_or(body.len()));
    let body = body.ok_or_else(|| wrong("it broke off its answer"))?;
    let body = match header(head, "transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => unchunked(body),
        _ => Some(body.to_vec()),
    };
    let body = body.ok_or_else(|| wrong("it broke off its answer"))?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The content of a body in chunks (RFC 9112 section 7.1); none where its end is missing.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let (chunk, after) = rest.get(end + 2..)?.split_at_checked(size)?;
        if size == 0 {
            return Some(content);
        }
        content.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

fn wrong(why: &str) -> Error {
    Error::Connect { what: "an answer of HTTP".into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn reading(answer: &str) -> Result<(u16, String), String> {
        let found = read(answer.as_bytes()).map(|answer| (answer.status, answer.body));
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn answers_are_read_and_what_is_none_is_said() {
        let plain = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(reading(&format!("{plain}a:1 and more")), Ok((200, "a:1".into())));
        assert_eq!(reading("HTTP/1.1 503 Away\r\n\r\nno"), Ok((503, "no".into())));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let wiki = "4\r\nWiki\r\n6;x=y\r\npedia \r\n0\r\n\r\n";
        assert_eq!(reading(&format!("{chunked}{wiki}")), Ok((200, "Wikipedia ".into())));
        for (answer, words) in [
            ("", "no HTTP"),
            ("SSH-2.0\r\n", "no HTTP"),
            ("SSH-2.0\r\n\r\n", "no HTTP"),
            (plain, "broke off"),
            (chunked, "broke off"),
            (&format!("{chunked}ffffffffffffffff\r\nshort"), "broke off"),
        ] {
            let why = reading(answer).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_there_is_nor_than_is_wanted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let mut open = Vec::new();
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na:1".to_owned(),
                format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2000)),
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 1024];
                let len = stream.read(&mut asked).await.unwrap();
                asked.truncate(len);
                stream.write_all(answer.as_bytes()).await.unwrap();
                // Neither ends by the connection's end.
                open.push((stream, String::from_utf8(asked).unwrap()));
            }
            open
        });
        let headers = ["X-One: 1".to_owned()];
        let request = Request { method: "POST", target: "/a?b", headers: &headers, body: "body" };
        let route = Route { host: "127.0.0.1".into(), port, proxy: None };
        let answer = request.send(route.clone(), None, 1000).await.unwrap();
        assert_eq!(answer, Answer { status: 200, body: "a:1".into() });
        let why = request.send(route, None, 1000).await.unwrap_err().to_string();
        assert!(why.contains("longer than 1000 bytes"), "{why}");
        let (_, asked) = &server.await.unwrap()[0];
        let expected = format!(
            "POST /a?b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Length: 4\r\nX-One: 1\r\n\r\nbody"
        );
        assert_eq!(*asked, expected);
    }
}
