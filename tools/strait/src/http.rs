//! One HTTP/1.1 request, over TLS or this host's loopback, for who waits for its answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use strait_client::http::Request;
use strait_client::proxy::Route;

/// How long a request may take, from the name's look-up to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most of an answer that is read.
const ANSWER_BYTES: usize = 4 << 20;

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

/// Status and body of the answer, which must be there in time. `headers` are whole lines; `tls` is
/// needed for https alone.
pub fn send(
    url: &Url,
    method: &str,
    headers: &[String],
    body: &str,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<(u16, String)> {
    let Url { is_secure, host, port, path } = url;
    let tls = match is_secure {
        true => Some(tls.ok_or_else(|| io::Error::other("https needs somebody to trust"))?),
        false => None,
    };
    let route = Route { host: host.clone(), port: *port, proxy: None };
    let request = Request { method, target: path, headers, body };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, request.send(route, tls, ANSWER_BYTES)).await
    });
    // A name that is still looked up is not waited for.
    runtime.shutdown_background();
    let answer = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    let answer = answer.map_err(|error| io::Error::other(error.to_string()))?;
    Ok((answer.status, answer.body))
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
    fn an_answer_that_drips_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while std::io::Write::write_all(&mut stream, b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let since = std::time::Instant::now();
        let error = send(&url, "GET", &[], "", None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(since.elapsed() < 3 * PATIENCE);
    }
}
