//! Signed credentials: fields and a signature over them, made without a call to any server.
//!
//! `docs/authentication.md` describes both schemes byte by byte.

use std::fmt;
use std::fmt::Write;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;

use super::key::Secret;
use super::refusal::Refusal;
use crate::{id, limits};

/// What the signed message of [`Scheme::HmacSha256`] begins with: the key signs other things too,
/// and none of those begins so.
const CONTEXT: &[u8] = b"strait-signed-v1";
/// Hexadecimal digits of a signature of either scheme.
const SIGNATURE_DIGITS: usize = 64;

/// How a credential is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HMAC-SHA-256 over length-prefixed fields, lower-case hexadecimal.
    HmacSha256,
    /// SHA-256 over all fields and the API key in a row, upper-case hexadecimal. Where one field
    /// ends is not signed, so an application takes it only if it is switched on.
    Concatenated,
}

impl Scheme {
    const ALL: [Self; 2] = [Self::HmacSha256, Self::Concatenated];

    /// The word that a credential in text form begins with.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "strait-hmac-sha256",
            Self::Concatenated => "strait-sha256",
        }
    }
}

/// A signed credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// How it is signed.
    pub scheme: Scheme,
    /// Application identifier.
    pub application: String,
    /// The one scope that it opens.
    pub scope: String,
    /// Who, as the application names them.
    pub user: String,
    /// What makes it unique within the application.
    pub salt: String,
    /// End of validity, seconds since 1970.
    pub expires: u64,
    /// 64 hexadecimal digits.
    pub signature: String,
}

impl Signed {
    /// Reads the text form: `SCHEME.APPLICATION.SCOPE.USER.SALT.EXPIRES.SIGNATURE`, with the four
    /// texts in lower-case hexadecimal. None if `text` does not begin with a scheme's word.
    ///
    /// # Errors
    /// [`super::Reason::Malformed`].
    pub fn parse(text: &str) -> Option<Result<Self, Refusal>> {
        let (word, rest) = text.split_once('.')?;
        let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.name() == word)?;
        let parts: Vec<&str> = rest.split('.').take(7).collect();
        let [application, scope, user, salt, expires, signature] = parts[..] else {
            let text = format!(
                "credential malformed: {word} is followed by application, scope, user, salt, \
                 expires and signature, each after a dot"
            );
            return Some(Err(Refusal::malformed(text)));
        };
        let read = || {
            let expires = expires.parse::<u64>().ok().filter(|n| n.to_string() == expires);
            Ok(Self {
                scheme,
                application: unhex("application", application)?,
                scope: unhex("scope", scope)?,
                user: unhex("user", user)?,
                salt: unhex("salt", salt)?,
                expires: expires.ok_or_else(|| {
                    Refusal::malformed("credential malformed: expires is no decimal number")
                })?,
                signature: signature.to_owned(),
            })
        };
        Some(read())
    }

    /// The text form, for `Authorization: Bearer` and the like.
    pub fn to_text(&self) -> String {
        let mut text = self.scheme.name().to_owned();
        for field in [&self.application, &self.scope, &self.user, &self.salt] {
            text.push('.');
            text.push_str(&id::hex(field.as_bytes()));
        }
        let _ = write!(text, ".{}.{}", self.expires, self.signature);
        text
    }

    /// Puts the signature of `key` in place of what is there.
    pub fn sign(&mut self, key: &Secret) {
        self.signature = self.signature_by(key);
    }

    /// Whether `key` made the signature.
    pub fn is_signed_by(&self, key: &Secret) -> bool {
        let expected = self.signature_by(key);
        verify_slices_are_equal(expected.as_bytes(), self.signature.as_bytes()).is_ok()
    }

    /// Checks the form of all fields.
    ///
    /// # Errors
    /// [`super::Reason::Malformed`].
    pub fn check(&self) -> Result<(), Refusal> {
        for (what, value, bytes_max) in [
            ("credential malformed: the application", &self.application, limits::APPLICATION_BYTES),
            ("credential malformed: the scope", &self.scope, limits::SCOPE_NAME_BYTES),
            ("credential malformed: the user", &self.user, limits::USER_BYTES),
            ("credential malformed: the salt", &self.salt, limits::SALT_BYTES),
        ] {
            id::check_name(what, value, bytes_max)
                .map_err(|fault| Refusal::malformed(fault.reason))?;
        }
        if self.scope == "*" {
            let text = "credential malformed: a signed credential is for one scope; a JSON Web \
                        Token can be for all (*)";
            return Err(Refusal::malformed(text));
        }
        let (is_digit, case): (fn(&u8) -> bool, _) = match self.scheme {
            Scheme::HmacSha256 => (|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'), "lower"),
            Scheme::Concatenated => (|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'), "upper"),
        };
        let digits = self.signature.as_bytes();
        if digits.len() != SIGNATURE_DIGITS || !digits.iter().all(is_digit) {
            return Err(Refusal::malformed(format!(
                "credential malformed: a signature of the scheme {} is {SIGNATURE_DIGITS} \
                 hexadecimal digits in {case} case",
                self.scheme.name()
            )));
        }
        Ok(())
    }

    /// What is signed by [`Scheme::HmacSha256`]: fields that run into each other are told apart.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = CONTEXT.to_vec();
        for field in [&self.application, &self.scope, &self.user, &self.salt] {
            // Longer ones are refused by `check`.
            let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
            message.extend(length.to_be_bytes());
            message.extend(field.as_bytes());
        }
        message.extend(self.expires.to_be_bytes());
        message
    }

    fn signature_by(&self, key: &Secret) -> String {
        let key = key.expose().as_bytes();
        match self.scheme {
            Scheme::HmacSha256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                id::hex(hmac::sign(&key, &self.message()).as_ref())
            }
            Scheme::Concatenated => {
                let mut context = Context::new(&SHA256);
                for field in [&self.application, &self.scope, &self.user, &self.salt] {
                    context.update(field.as_bytes());
                }
                context.update(self.expires.to_string().as_bytes());
                context.update(key);
                id::hex(context.finish().as_ref()).to_ascii_uppercase()
            }
        }
    }
}

/// Without the signature: who reads it in a log could use it.
impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("scheme", &self.scheme)
            .field("application", &self.application)
            .field("scope", &self.scope)
            .field("user", &self.user)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

fn unhex(what: &str, digits: &str) -> Result<String, Refusal> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some(value(high)? << 4 | value(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        Refusal::malformed(format!(
            "credential malformed: {what} is not UTF-8 text in lower-case hexadecimal"
        ))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of docs/authentication.md, where Python's hmac and hashlib calculated the signatures.
    fn vector(scheme: Scheme) -> Signed {
        let signature = match scheme {
            Scheme::HmacSha256 => HMAC,
            Scheme::Concatenated => CONCATENATED,
        };
        Signed {
            scheme,
            application: "acme".into(),
            scope: "lobby".into(),
            user: "zoë".into(),
            salt: "5f3c9a1e".into(),
            expires: 1_800_000_000,
            signature: signature.into(),
        }
    }
    const KEY: &str = "an API key of 32 bytes or longer";
    const HMAC: &str = "58c448d887a2fd0605925add1ff63886688b98d9268e0ad3a45282879e5289fb";
    const CONCATENATED: &str = "82097F4497BED351C07AA3F55127C84F17E9D9D9F1F13527C0A0DE03D3ACF1BA";

    #[test]
    fn vectors_hold() {
        for scheme in Scheme::ALL {
            let signed = vector(scheme);
            signed.check().unwrap();
            assert!(signed.is_signed_by(&KEY.into()), "{scheme:?}");
            assert!(!signed.is_signed_by(&"another".into()));
            let text = signed.to_text();
            assert_eq!(Signed::parse(&text).unwrap().unwrap(), signed);
            assert!(!format!("{signed:?}").contains(&signed.signature));
            let page = include_str!("../../../docs/authentication.md");
            assert!(page.contains(&signed.signature) && page.contains(&text), "{scheme:?}: {text}");
            let hex = id::hex(&signed.message());
            assert!(page.replace(['\n', ' '], "").contains(&hex), "{hex}");
        }
    }

    #[test]
    fn what_runs_together_is_told_apart_by_one_scheme_alone() {
        for scheme in Scheme::ALL {
            let mut one = vector(scheme);
            one.sign(&KEY.into());
            let mut other = Signed { scope: "lobbyz".into(), user: "oë".into(), ..one.clone() };
            let is_same = other.is_signed_by(&KEY.into());
            assert_eq!(is_same, scheme == Scheme::Concatenated, "as the page warns");
            other.sign(&"another".into());
            assert!(!other.is_signed_by(&KEY.into()));
        }
    }

    #[test]
    fn malformed_fields_are_named() {
        let good = vector(Scheme::HmacSha256);
        let refusal = |signed: Signed| signed.check().unwrap_err().text;
        assert!(refusal(Signed { user: String::new(), ..good.clone() }).contains("the user"));
        assert!(refusal(Signed { salt: "x".repeat(65), ..good.clone() }).contains("the salt"));
        assert!(refusal(Signed { scope: "*".into(), ..good.clone() }).contains("one scope"));
        let upper = good.signature.to_ascii_uppercase();
        assert!(refusal(Signed { signature: upper, ..good.clone() }).contains("lower case"));
        assert!(Signed::parse("eyJhbGciOiJub25lIn0.eyJpc3MiOiJhY21lIn0.").is_none());
        let text = good.to_text();
        let changed = |from: &str, to: &str| Signed::parse(&text.replace(from, to)).unwrap();
        assert!(changed(".1800", ".01800").unwrap_err().text.contains("expires"));
        assert!(changed(".1800", ".+1800").unwrap_err().text.contains("expires"));
        assert!(changed("61636d65", "61636D65").unwrap_err().text.contains("application"));
        assert!(changed("61636d65", "61636d6").unwrap_err().text.contains("application"));
        assert!(changed("61636d65.", "").unwrap_err().text.contains("each after a dot"));
        assert!(changed("61636d65.", "61..61.").unwrap_err().text.contains("each after a dot"));
    }

    proptest! {
        #[test]
        fn near_misses_do_no_harm(text in "strait-(hmac-)?sha256([.][0-9a-fA-Fé+]{0,5}){4,8}") {
            crate::fuzz::credential(text.as_bytes());
        }

        #[test]
        fn any_two_credentials_have_messages_of_their_own(
            a in proptest::array::uniform4(".{0,6}"),
            b in proptest::array::uniform4(".{0,6}"),
        ) {
            let signed = |[application, scope, user, salt]: [String; 4]| Signed {
                application, scope, user, salt, ..vector(Scheme::HmacSha256)
            };
            let is_same = a == b;
            let (a, b) = (signed(a), signed(b));
            prop_assert_eq!(a.message() == b.message(), is_same);
            prop_assert_eq!(Signed::parse(&a.to_text()).unwrap().unwrap(), a);
        }
    }
}
