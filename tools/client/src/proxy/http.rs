//! HTTP CONNECT (RFC 9110 section 9.3.6), with basic (RFC 7617), digest (RFC 7616) and negotiate (RFC 4559) authentication.

use super::digest::Challenge;
use super::{ANSWER_BYTES, Handshake, Step, negotiate};
use crate::base64;
use crate::error::Error;

/// The handshake of a connection.
pub(crate) struct Connect {
    place: String,
    credentials: Option<(String, String)>,
    /// Of the client, for digest.
    nonce: [u8; 16],
    begun: bool,
    /// Credentials were sent.
    tried: bool,
    read: Vec<u8>,
}

impl Connect {
    /// To a node; `nonce` is not to be guessed.
    pub(crate) fn new(
        host: &str,
        port: u16,
        credentials: Option<(String, String)>,
        nonce: [u8; 16],
    ) -> Self {
        // RFC 3986 section 3.2.2: an IPv6 address stands in brackets.
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let place = format!("{host}:{port}");
        Self { place, credentials, nonce, begun: false, tried: false, read: Vec::new() }
    }

    fn request(&self, authorization: &str) -> Vec<u8> {
        let place = &self.place;
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{authorization}\r\n").into_bytes()
    }

    /// What to say after 407.
    fn authorize(&mut self, head: &str) -> Result<Step, Error> {
        let challenges: Vec<&str> = header(head, "proxy-authenticate").collect();
        let schemes =
            challenges.iter().filter_map(|one| one.split_whitespace().next()).collect::<Vec<_>>();
        let digest = challenges.iter().filter_map(|one| Challenge::parse(one)).max_by_key(
            // The stronger one, where there are several.
            |challenge| challenge.algorithm,
        );
        if self.tried && !digest.as_ref().is_some_and(|challenge| challenge.stale) {
            return Err(Error::ProxyCredentials);
        }
        let has = |name| schemes.iter().any(|scheme: &&str| scheme.eq_ignore_ascii_case(name));
        let credentials = self.credentials.as_ref();
        let authorization = match (credentials, digest) {
            (Some((user, password)), Some(challenge)) => {
                challenge.answer("CONNECT", &self.place, user, password, self.nonce)
            }
            (Some((user, password)), None) if has("basic") => {
                format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()))
            }
            _ if negotiate::IS_BUILT && has("negotiate") => {
                self.tried = true;
                return Ok(Step::Ticket);
            }
            (None, _) => return Err(Error::ProxyNeedsCredentials(schemes.join(", "))),
            (Some(_), None) => {
                let schemes = schemes.join(", ");
                let too = if negotiate::IS_BUILT { " and negotiate" } else { "" };
                return Err(Error::Proxy(format!(
                    "it wants {schemes} authentication; known here are basic and digest{too}"
                )));
            }
        };
        self.tried = true;
        Ok(self.again(&authorization))
    }

    fn again(&self, authorization: &str) -> Step {
        Step::Again(self.request(&format!("Proxy-Authorization: {authorization}\r\n")))
    }
}

impl Handshake for Connect {
    fn on_bytes(&mut self, bytes: &[u8]) -> Result<Step, Error> {
        if !self.begun {
            self.begun = true;
            return Ok(Step::Send(self.request("")));
        }
        self.read.extend_from_slice(bytes);
        let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") else {
            let most = self.read.len() > ANSWER_BYTES
                || !b"HTTP/1.".starts_with(self.read.get(..7).unwrap_or(&self.read));
            return match most {
                true => Err(Error::Proxy("this is no HTTP proxy".into())),
                false => Ok(Step::More),
            };
        };
        let head = String::from_utf8_lossy(self.read.get(..end).unwrap_or_default()).into_owned();
        let rest = self.read.split_off(end + 4);
        self.read.clear();
        let status = head.lines().next().unwrap_or_default();
        let mut words = status.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let code = words.next().and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
        match code {
            _ if !version.starts_with("HTTP/1.") => {
                Err(Error::Proxy("this is no HTTP proxy".into()))
            }
            200..=299 => Ok(Step::Done(rest)),
            407 => self.authorize(&head),
            403 => Err(Error::Proxy(format!(
                "its rules do not allow it ({status}); many let CONNECT through to port 443 alone"
            ))),
            _ => Err(Error::Proxy(format!("it answers: {status}"))),
        }
    }

    fn on_ticket(&mut self, ticket: &[u8]) -> Step {
        self.again(&format!("Negotiate {}", base64::encode(ticket)))
    }
}

/// The values of a header field, whose name is in small letters.
fn header<'a>(head: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    head.lines().skip(1).filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(credentials: Option<(&str, &str)>) -> Connect {
        let credentials = credentials.map(|(user, password)| (user.into(), password.into()));
        let mut connect = Connect::new("node.example", 443, credentials, [7; 16]);
        let first = b"CONNECT node.example:443 HTTP/1.1\r\nHost: node.example:443\r\n\r\n";
        assert_eq!(connect.on_bytes(&[]), Ok(Step::Send(first.to_vec())));
        connect
    }

    #[test]
    fn nothing_asked_nothing_told() {
        let mut plain = connect(Some(("ann", "secret")));
        assert_eq!(plain.on_bytes(b"HTTP/1.1 200 Conn"), Ok(Step::More));
        assert_eq!(plain.on_bytes(b"ection established\r\n\r\nX"), Ok(Step::Done(b"X".to_vec())));
    }

    #[test]
    fn basic_is_answered_once() {
        let ask = b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"p\"\r\n\r\n";
        let mut basic = connect(Some(("Aladdin", "open sesame")));
        let Ok(Step::Again(request)) = basic.on_bytes(ask) else { panic!("an answer") };
        // RFC 7617 section 2.
        let words = "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert!(String::from_utf8(request).unwrap().ends_with(words));
        assert_eq!(basic.on_bytes(ask), Err(Error::ProxyCredentials));
        let nobody = connect(None).on_bytes(ask);
        assert_eq!(nobody, Err(Error::ProxyNeedsCredentials("Basic".into())));
    }

    #[test]
    fn a_ticket_is_shown_where_no_password_serves() {
        if !negotiate::IS_BUILT {
            return;
        }
        let with_basic =
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Basic realm=p\r\n\r\n";
        let alone = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\n\r\n";
        let mut known = connect(Some(("ann", "secret")));
        assert!(matches!(known.on_bytes(with_basic), Ok(Step::Again(_))), "a password that serves");
        assert_eq!(connect(None).on_bytes(with_basic), Ok(Step::Ticket));
        let mut negotiate = connect(Some(("ann", "secret")));
        assert_eq!(negotiate.on_bytes(alone), Ok(Step::Ticket));
        let Step::Again(request) = negotiate.on_ticket(b"ticket") else { panic!("a request") };
        let words = "Proxy-Authorization: Negotiate dGlja2V0\r\n\r\n";
        assert!(String::from_utf8(request).unwrap().ends_with(words));
        assert_eq!(negotiate.on_bytes(alone), Err(Error::ProxyCredentials), "shown once");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let ask = b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n";
        let error = connect(Some(("ann", "secret"))).on_bytes(ask).unwrap_err();
        assert!(error.to_string().contains("NTLM"), "{error}");
        for (answer, word) in [
            (&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], "rules"),
            (b"HTTP/1.1 503 Unavailable\r\n\r\n", "503"),
            (b"SSH-2.0-OpenSSH", "no HTTP proxy"),
            (&[b'H'; ANSWER_BYTES + 1], "no HTTP proxy"),
        ] {
            let error = connect(None).on_bytes(answer).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
