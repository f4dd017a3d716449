//! TURN over TLS on the port of HTTPS: what clients are told of it. The relay serves it.
//!
//! Credentials are made for each session and end by time; the relay can check them without being told of them (the user name
//! is when they end and for what they are, the password its HMAC-SHA1).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use strait_proto::handover::{TURN_SECRET_BYTES, turn_pem};
use zeroize::Zeroizing;

use super::cors::ice_server_link;
use super::{App, now};
use crate::auth::Secret;
use crate::config::{Config, IceServer};
use crate::fault::Fault;
use crate::signal::base64;
use crate::{id, limits};

/// What credentials are made with. Another secret each time the process starts: what has an allocation keeps it.
pub struct Turn {
    secret: Zeroizing<[u8; TURN_SECRET_BYTES]>,
}

/// Host and port by which a client reached the listener for HTTPS, and so reaches TURN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachedAt(String);

impl Turn {
    /// None where the configuration has none, or the relay gets no connections of this process.
    ///
    /// # Errors
    /// The random source failed.
    pub fn new(config: &Config) -> Result<Option<Self>, Fault> {
        if !config.media.turn.enabled
            || config.relay.ice_tcp.is_none()
            || config.http.https_listen.is_empty()
        {
            return Ok(None);
        }
        let mut secret = Zeroizing::new([0; TURN_SECRET_BYTES]);
        id::fill(&mut *secret)?;
        Ok(Some(Self { secret }))
    }

    /// What the relay is told beside certificate and key.
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(turn_pem(&self.secret))
    }

    /// The server, with credentials of one session.
    pub fn server(&self, at: &ReachedAt, now: u64) -> Option<IceServer> {
        let ends = now + limits::TURN_CREDENTIALS.as_secs();
        let username = format!("{ends}:{}", id::random("t").ok()?);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.secret.as_slice());
        let credential = base64::encode(hmac::sign(&key, username.as_bytes()).as_ref());
        let url = format!("turns:{}?transport=tcp", at.0);
        Some(IceServer { url, username, credential: Secret::from(credential) })
    }
}

impl ReachedAt {
    /// From what a request names: the client can reach that.
    fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let host = uri.authority().map(axum::http::uri::Authority::as_str).or(host)?;
        let is_good = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        // A colon of an IPv6 address stands within brackets.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let well = !host.is_empty() && host.len() <= 255 && host.chars().all(is_good);
        well.then(|| Self(if has_port { host.to_owned() } else { format!("{host}:443") }))
    }
}

/// Notes for handlers how the client reached us, and tells it of TURN where a session was made (RFC 9725 section 4.6).
/// For listeners with TLS alone.
pub async fn tell(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let reached = app.turn().and(ReachedAt::of(request.uri(), request.headers()));
    let path = request.uri().path();
    let is_offer = *request.method() == Method::POST
        && (path.starts_with("/whip/") || path.starts_with("/whep/"));
    if let Some(reached) = &reached {
        request.extensions_mut().insert(reached.clone());
    }
    let mut response = next.run(request).await;
    if is_offer
        && response.status() == StatusCode::CREATED
        && let (Some(turn), Some(reached)) = (app.turn(), &reached)
        && let Some(server) = turn.server(reached, now())
        && let Ok(value) = HeaderValue::from_str(&ice_server_link(&server))
    {
        response.headers_mut().append(header::LINK, value);
    }
    response
}

// A session that lasts longer keeps what it allocated.
const _: () = assert!(limits::TURN_CREDENTIALS.as_secs() >= Duration::from_secs(3600).as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(host: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        ReachedAt::of(&Uri::from_static("/ws"), &headers).map(|at| at.0)
    }

    #[test]
    fn the_host_is_the_one_that_the_client_reached() {
        assert_eq!(reached("media.example:8443").as_deref(), Some("media.example:8443"));
        assert_eq!(reached("media.example").as_deref(), Some("media.example:443"));
        assert_eq!(reached("[2001:db8::1]").as_deref(), Some("[2001:db8::1]:443"));
        assert_eq!(reached("[2001:db8::1]:8443").as_deref(), Some("[2001:db8::1]:8443"));
        for bad in ["", "a b", "a\"b", "a>; rel=x", "a/b", "user@host"] {
            assert_eq!(reached(bad), None, "{bad}");
        }
        let uri = Uri::from_static("https://other.example:9/ws");
        let of_http2 = ReachedAt::of(&uri, &HeaderMap::new()).map(|at| at.0);
        assert_eq!(of_http2.as_deref(), Some("other.example:9"));
    }

    #[test]
    fn credentials_are_those_of_one_session_and_end() {
        // By Python: b64encode(hmac(bytes([7] * 32), username, sha1)).
        let turn = Turn { secret: Zeroizing::new([7; TURN_SECRET_BYTES]) };
        let at = ReachedAt("media.example:8443".into());
        let (one, other) = (turn.server(&at, 1000).unwrap(), turn.server(&at, 1000).unwrap());
        assert_eq!(one.url, "turns:media.example:8443?transport=tcp");
        assert!(one.username.starts_with("44200:t-"), "{}", one.username);
        assert_ne!((&one.username, &one.credential), (&other.username, &other.credential));
        assert_eq!(one.credential.expose().len(), 28);
        let pem = turn.pem();
        let same = strait_proto::handover::turn_secret(pem.as_bytes()).unwrap();
        assert_eq!(same, *turn.secret);
    }

    #[test]
    fn there_is_none_without_tls_or_when_it_is_switched_off() {
        let config = |text: &str| toml::from_str::<Config>(text).unwrap();
        let whole = "http.https_listen = ['127.0.0.1:0']\nrelay.ice_tcp = '127.0.0.1:1'\n";
        assert!(Turn::new(&config(whole)).unwrap().is_some());
        for text in [
            format!("{whole}media.turn.enabled = false"),
            "http.https_listen = []\nrelay.ice_tcp = '127.0.0.1:1'".into(),
            "http.https_listen = ['127.0.0.1:0']".into(),
        ] {
            assert!(Turn::new(&config(&text)).unwrap().is_none(), "{text}");
        }
    }
}
