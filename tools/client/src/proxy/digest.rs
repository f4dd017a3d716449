//! HTTP digest authentication (RFC 7616), with MD5 as old proxies ask for, and SHA-256.

use super::challenge::Challenge;
use crate::base64;
use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest as _, Md5};

/// What the hashes are made with; the stronger one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hex(self, text: &str) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Md5 => hex(&Md5::digest(text.as_bytes())),
            Self::Sha256 => hex(digest(&SHA256, text.as_bytes()).as_ref()),
        }
    }
}

/// What can be answered, in words.
pub(crate) const KNOWN: &str = "digest (MD5 or SHA-256 with qop=auth)";

/// What the proxy asks for.
#[derive(Debug)]
pub(crate) struct Digest {
    pub(crate) algorithm: Algorithm,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// It takes `qop=auth`.
    auth: bool,
    /// The credentials were right, the nonce was old.
    pub(crate) stale: bool,
}

impl Digest {
    /// Of a challenge of this scheme; otherwise what about it is not known here.
    pub(crate) fn read(challenge: &Challenge) -> Result<Self, String> {
        let algorithm = match challenge.get("algorithm") {
            None => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(name) => return Err(format!("Digest with algorithm={name}")),
        };
        let qop = challenge.get("qop");
        let mut qops = qop.iter().flat_map(|qop| qop.split(','));
        let auth = qops.any(|one| one.trim().eq_ignore_ascii_case("auth"));
        if let Some(qop) = qop.filter(|_| !auth) {
            return Err(format!("Digest with qop={qop}"));
        }
        let get = |name: &str| challenge.get(name).map(str::to_owned);
        let of = |name: &str| get(name).ok_or_else(|| format!("Digest without {name}"));
        let stale = get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true"));
        let (realm, nonce, opaque) = (of("realm")?, of("nonce")?, get("opaque"));
        Ok(Self { algorithm, realm, nonce, opaque, auth, stale })
    }

    /// The value of `Proxy-Authorization`, for the first request with this nonce.
    pub(crate) fn answer(
        &self,
        method: &str,
        uri: &str,
        user: &str,
        password: &str,
        random: [u8; 16],
    ) -> String {
        let Self { algorithm, realm, nonce, .. } = self;
        let cnonce = base64::encode(&random);
        let who = algorithm.hex(&format!("{user}:{realm}:{password}"));
        let what = algorithm.hex(&format!("{method}:{uri}"));
        let between = if self.auth { format!(":00000001:{cnonce}:auth") } else { String::new() };
        let response = algorithm.hex(&format!("{who}:{nonce}{between}:{what}"));
        let mut value = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, algorithm={}, response=\"{response}\"",
            quoted(user),
            quoted(realm),
            quoted(nonce),
            quoted(uri),
            algorithm.name()
        );
        if self.auth {
            value += &format!(", qop=auth, nc=00000001, cnonce=\"{cnonce}\"");
        }
        if let Some(opaque) = &self.opaque {
            value += &format!(", opaque={}", quoted(opaque));
        }
        value
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 section 3.9.1, whose nonce of the client is given there as text.
    #[test]
    fn the_hashes_are_those_of_the_rfc() {
        for (algorithm, response) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let who = algorithm.hex("Mufasa:http-auth@example.org:Circle of Life");
            let what = algorithm.hex("GET:/dir/index.html");
            let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let all = format!("{who}:{nonce}:00000001:{cnonce}:auth:{what}");
            assert_eq!(algorithm.hex(&all), response);
        }
    }

    fn read(field: &str) -> Result<Digest, String> {
        Digest::read(&Challenge::read([field].into_iter()).unwrap()[0])
    }

    #[test]
    fn challenges_are_read_and_answered() {
        let challenge = read(
            "Digest realm=\"a, \\\"b\\\"\", nonce=\"n\", stale=TRUE, qop=\"auth-int, auth\", opaque=o",
        );
        let challenge = challenge.unwrap();
        assert_eq!((challenge.realm.as_str(), challenge.stale), ("a, \"b\"", true));
        let answer = challenge.answer("CONNECT", "node:443", "a\"n\\n", "secret", [0; 16]);
        assert!(answer.starts_with(r#"Digest username="a\"n\\n", realm="a, \"b\"""#), "{answer}");
        assert!(answer.contains("qop=auth, nc=00000001, cnonce=\"AAAA"), "{answer}");
        assert!(answer.ends_with("opaque=\"o\"") && !answer.contains("secret"), "{answer}");
        for (other, words) in [
            ("Digest realm=\"x\"", "without nonce"),
            ("Digest", "without realm"),
            ("Digest realm=a, nonce=b, algorithm=MD5-sess", "algorithm=MD5-sess"),
            ("Digest realm=a, nonce=b, qop=auth-int", "qop=auth-int"),
        ] {
            let why = read(other).unwrap_err();
            assert!(why.contains(words), "{other}: {why}");
        }
    }
}
