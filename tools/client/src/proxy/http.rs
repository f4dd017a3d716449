//! HTTP CONNECT (RFC 9110 section 9.3.6), with basic (RFC 7617), digest (RFC 7616) and negotiate (RFC 4559) authentication.

use super::challenge::{Challenge, shown};
use super::digest::{Digest, KNOWN};
use super::{ANSWER_BYTES, Handshake, Step, negotiate};
use crate::base64;
use crate::error::Error;

/// Answers before the last one (1xx) that are read and forgotten, in a handshake.
const INTERIM: usize = 16;

/// The handshake of a connection.
pub(crate) struct Connect {
    place: String,
    credentials: Option<(String, String)>,
    /// Of the client, for digest.
    nonce: [u8; 16],
    begun: bool,
    /// Credentials were sent.
    tried: bool,
    /// They were sent once more, for the nonce was stale.
    renewed: bool,
    interim: usize,
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
        Self {
            place,
            credentials,
            nonce,
            begun: false,
            tried: false,
            renewed: false,
            interim: 0,
            read: Vec::new(),
        }
    }

    fn request(&self, authorization: &str) -> Vec<u8> {
        let place = &self.place;
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{authorization}\r\n").into_bytes()
    }

    /// What to say after 407.
    fn authorize(&mut self, head: &str) -> Result<Step, Error> {
        let challenges = Challenge::read(header(head, "proxy-authenticate"))?;
        let has = |scheme| challenges.iter().any(|one| one.is(scheme));
        let (mut digest, mut wanted) = (None::<Digest>, Vec::new());
        for challenge in &challenges {
            let scheme = challenge.scheme().to_owned();
            if !challenge.is("digest") {
                wanted.push(scheme);
                continue;
            }
            wanted.push(match Digest::read(challenge) {
                Ok(one) => {
                    // The stronger one, where there are several.
                    if digest.as_ref().is_none_or(|best| best.algorithm < one.algorithm) {
                        digest = Some(one);
                    }
                    scheme
                }
                Err(unknown) => unknown,
            });
        }
        if self.tried {
            // RFC 7616 section 3.3: right, but too late. Once: who says so for ever is not asked for ever.
            let is_late = digest.as_ref().is_some_and(|digest| digest.stale);
            if self.renewed || !is_late {
                return Err(Error::ProxyCredentials);
            }
            self.renewed = true;
        }
        let authorization = match (&self.credentials, digest) {
            (Some((user, password)), Some(digest)) => {
                digest.answer("CONNECT", &self.place, user, password, self.nonce)
            }
            (Some((user, password)), None) if has("basic") => {
                format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()))
            }
            _ if negotiate::IS_BUILT && has("negotiate") => {
                self.tried = true;
                return Ok(Step::Ticket);
            }
            (None, _) => return Err(needs(&wanted, "")),
            (Some(_), None) => {
                let too = if negotiate::IS_BUILT { " and negotiate" } else { "" };
                return Err(needs(&wanted, &format!("; known here are basic, {KNOWN}{too}")));
            }
        };
        self.tried = true;
        Ok(self.again(&authorization))
    }

    fn again(&mut self, authorization: &str) -> Step {
        // Of the connection before.
        self.read.clear();
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
        loop {
            let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") else {
                let most = self.read.len() > ANSWER_BYTES
                    || !b"HTTP/1.".starts_with(self.read.get(..7).unwrap_or(&self.read));
                return if most { Err(no_proxy()) } else { Ok(Step::More) };
            };
            let rest = self.read.split_off(end + 4);
            let head = std::mem::replace(&mut self.read, rest);
            let head = String::from_utf8_lossy(&head);
            let status = head.lines().next().unwrap_or_default();
            let mut words = status.splitn(3, ' ');
            let version = words.next().unwrap_or_default();
            let code = words.next().and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
            return match code {
                _ if !version.starts_with("HTTP/1.") => Err(no_proxy()),
                // RFC 9110 section 15.2: there may be several, of which none was asked for.
                100 | 102..=199 if self.interim < INTERIM => {
                    self.interim += 1;
                    continue;
                }
                200..=299 => Ok(Step::Done(std::mem::take(&mut self.read))),
                407 => self.authorize(&head),
                403 => Err(Error::Proxy(format!(
                    "its rules do not allow it ({}); many let CONNECT through to port 443 alone",
                    shown(status)
                ))),
                _ => Err(Error::Proxy(format!("it answers: {}", shown(status)))),
            };
        }
    }

    fn on_ticket(&mut self, ticket: &[u8]) -> Step {
        self.again(&format!("Negotiate {}", base64::encode(ticket)))
    }
}

fn no_proxy() -> Error {
    Error::Proxy("this is no HTTP proxy".into())
}

fn needs(wanted: &[String], known: &str) -> Error {
    let wanted = if wanted.is_empty() { "it does not say which" } else { &wanted.join(", ") };
    Error::ProxyNeedsCredentials(shown(wanted) + known)
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
    fn what_comes_before_the_answer_is_skipped_in_pieces() {
        let mut plain = connect(None);
        assert_eq!(plain.on_bytes(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1."), Ok(Step::More));
        let rest = b"1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 Fine\r\n\r\nX";
        assert_eq!(plain.on_bytes(rest), Ok(Step::Done(b"X".to_vec())));
        let switching = connect(None).on_bytes(b"HTTP/1.1 101 Switching\r\n\r\n");
        assert!(switching.unwrap_err().to_string().contains("101"));
    }

    #[test]
    fn what_is_left_of_a_refusal_is_no_part_of_the_next_answer() {
        let ask = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=p\r\n\r\n<html>";
        let mut basic = connect(Some(("ann", "secret")));
        assert!(matches!(basic.on_bytes(ask), Ok(Step::Again(_))));
        assert_eq!(basic.on_bytes(b"HTTP/1.1 200 Fine\r\n\r\n"), Ok(Step::Done(Vec::new())));
    }

    #[test]
    fn the_strongest_is_answered_in_whatever_order_they_come() {
        let all = [
            "Negotiate",
            "Basic realm=b",
            "Digest realm=\"a, b\", nonce=n1",
            "Digest realm=r, nonce=n2, algorithm=SHA-256, qop=\"auth,auth-int\"",
            "Digest realm=r, nonce=n3, algorithm=SHA-512-256",
        ];
        for first in 0..all.len() {
            let mut fields = all;
            fields.rotate_left(first);
            for separator in [", ", "\r\nProxy-Authenticate: "] {
                let fields = fields.join(separator);
                let ask = format!("HTTP/1.1 407 No\r\nProxy-Authenticate: {fields}\r\n\r\n");
                let step = connect(Some(("ann", "secret"))).on_bytes(ask.as_bytes());
                let Ok(Step::Again(request)) = step else { panic!("{ask}: {step:?}") };
                let request = String::from_utf8(request).unwrap();
                assert!(request.contains("nonce=\"n2\""), "{ask}: {request}");
            }
        }
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
        assert!(!error.may_pass(), "no kind is learnt by waiting");
        let unnamed = connect(Some(("ann", "secret"))).on_bytes(b"HTTP/1.1 407 No\r\n\r\n");
        assert!(unnamed.unwrap_err().to_string().contains("does not say which"));
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
