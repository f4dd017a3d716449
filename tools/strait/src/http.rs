//! One HTTP/1.1 request on a connection of its own, over TLS or this host's loopback.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long connecting, and each read or write, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most of an answer that is read.
const ANSWER_BYTES: u64 = 4 << 20;

/// An address that begins with http:// or https://.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    is_secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no http://HOST[:PORT][/PATH] or https://…");
        let (is_secure, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let (place, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let has_port = place.rfind(':').is_some_and(|at| !place.ends_with(']') && at > 0);
        let (host, port) = match place.rsplit_once(':').filter(|_| has_port) {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (place, if is_secure { 443 } else { 80 }),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(wrong());
        }
        let host = bare.unwrap_or(host);
        // What would end the line of a header has no place in one.
        if host.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        Ok(Self { is_secure, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl Url {
    /// Another path there.
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }
}

/// Status and body of the answer. `headers` are whole lines; `tls` is needed for https alone.
pub fn send(
    url: &Url,
    method: &str,
    headers: &[String],
    body: &str,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<(u16, String)> {
    let Url { is_secure, host, port, path } = url;
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    let mut connected = None;
    for address in (host.as_str(), *port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => failed = error,
        }
    }
    let stream = connected.ok_or(failed)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {shown}:{port}\r\nConnection: close\r\n\
         Content-Length: {}\r\n",
        body.len()
    );
    for header in headers {
        request += &format!("{header}\r\n");
    }
    request += "\r\n";
    request += body;
    if !is_secure {
        return exchange(stream, &request);
    }
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let tls = tls.ok_or_else(|| io::Error::other("https needs somebody to trust"))?;
    let connection = ClientConnection::new(tls, name).map_err(io::Error::other)?;
    exchange(StreamOwned::new(connection, stream), &request)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES).read_to_end(&mut answer) {
        // A peer that ends TLS without saying so: what came is looked at below.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no answer of HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok());
    if length.is_some_and(|length: usize| body.len() < length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let is_chunked = head.contains("transfer-encoding: chunked");
    Ok((status, if is_chunked { unchunked(body) } else { body.to_owned() }))
}

/// The content of a body in chunks (RFC 9112 section 7.1).
fn unchunked(body: &str) -> String {
    let mut content = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = size.split(';').next().unwrap_or_default().trim();
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else { break };
        let Some((chunk, after)) = after.split_at_checked(size) else { break };
        content.push_str(chunk);
        rest = after.trim_start_matches("\r\n");
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let url = |text: &str| text.parse::<Url>();
        let read = url("https://[::1]:8443/a/b?c").unwrap();
        assert_eq!((read.host.as_str(), read.port, read.path.as_str()), ("::1", 8443, "/a/b?c"));
        assert_eq!(url("https://[2001:db8::1]").unwrap().port, 443);
        assert_eq!(url("http://example.org").unwrap().path, "/");
        assert!(!url("http://example.org:81").unwrap().is_secure);
        for wrong in ["ftp://a", "https://", "http://:80", "http://a:b", "http://a/\r\nX: y", "a"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunked("4\r\nWiki\r\n6;x=y\r\npedia \r\n0\r\n\r\n"), "Wikipedia ");
        assert_eq!(unchunked("ffffffffffffffff\r\nshort"), "");
    }
}
