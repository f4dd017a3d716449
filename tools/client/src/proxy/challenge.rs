//! What `Proxy-Authenticate` asks for (RFC 9110 section 11.6.1): a list of challenges, each of which may have a list of parameters.

use crate::error::Error;
use std::iter::Peekable;
use std::str::Chars;

/// So much of what a proxy says is repeated in an error.
const SHOWN: usize = 200;

/// A scheme, and what it is to be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    scheme: String,
    /// Values are without quotes.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Those of all fields, in order. What is no challenge is left out.
    pub(crate) fn read<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        for field in fields {
            // RFC 9110 section 5.5. An answer would repeat them, where they may mean anything to the proxy.
            if field.contains(|c: char| c.is_control() && c != '\t') {
                let why = format!("its challenge holds control characters: {}", shown(field));
                return Err(Error::Proxy(why));
            }
            let start = found.len();
            for element in elements(field) {
                let last = found.get_mut(start..).and_then(<[Self]>::last_mut);
                match (parameter(element), last) {
                    (Some(parameter), Some(last)) => last.parameters.push(parameter),
                    (Some(_), None) => {}
                    (None, _) => found.extend(Self::begun(element)),
                }
            }
        }
        Ok(found)
    }

    /// An element that begins one: its scheme, alone or before its first parameter or something in base 64.
    fn begun(element: &str) -> Option<Self> {
        let (scheme, rest) = element.split_once([' ', '\t']).unwrap_or((element, ""));
        let is_scheme = !scheme.is_empty() && scheme.chars().all(is_of_token);
        let parameters = parameter(rest).into_iter().collect();
        is_scheme.then(|| Self { scheme: scheme.to_owned(), parameters })
    }

    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether it is of this scheme.
    pub(crate) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What a proxy says, as an error may repeat it.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

/// What stands between commas that are in no quoted string.
fn elements(field: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let elements = field.split(move |c| {
        (quoted, escaped) = match c {
            _ if escaped => (quoted, false),
            '\\' => (quoted, quoted),
            '"' => (!quoted, false),
            _ => (quoted, false),
        };
        c == ',' && !quoted
    });
    elements.map(str::trim).filter(|element| !element.is_empty())
}

/// `name=value` or `name="quoted value"`, with blanks around `=` or without, and nothing else.
fn parameter(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || !name.chars().all(is_of_token) {
        return None;
    }
    let value = match value.strip_prefix('"') {
        Some(rest) => unquoted(rest.chars().peekable())?,
        // What begins so is the end of something in base 64, which stands in a challenge alone.
        None if value.is_empty() || value.starts_with('=') => return None,
        None if value.contains(|c: char| c.is_whitespace() || c == '"') => return None,
        None => value.to_owned(),
    };
    Some((name.to_owned(), value))
}

/// The rest of a quoted string, which ends with its second quote.
fn unquoted(mut rest: Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    loop {
        match rest.next()? {
            '"' => return rest.peek().is_none().then_some(value),
            '\\' => value.push(rest.next()?),
            other => value.push(other),
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(fields: &[&str]) -> Vec<Challenge> {
        Challenge::read(fields.iter().copied()).unwrap()
    }

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Challenge { scheme: scheme.into(), parameters: parameters.collect() }
    }

    #[test]
    fn lists_are_told_from_the_lists_within() {
        let digest = r#"Digest realm="a, \"b\", Basic realm=c", nonce = n/+ ,qop="auth,auth-int", opaque=bw=="#;
        let found = read(&[&format!(", Negotiate, NTLM TlRM==,,Basic , {digest}, X-Own a=1")]);
        let expected = [
            challenge("Negotiate", &[]),
            challenge("NTLM", &[]),
            challenge("Basic", &[]),
            challenge(
                "Digest",
                &[
                    ("realm", r#"a, "b", Basic realm=c"#),
                    ("nonce", "n/+"),
                    ("qop", "auth,auth-int"),
                    ("opaque", "bw=="),
                ],
            ),
            challenge("X-Own", &[("a", "1")]),
        ];
        assert_eq!(found, expected);
        assert_eq!(found[3].get("NONCE"), Some("n/+"));
        assert!(found[2].is("basic") && !found[2].is("digest"));
    }

    #[test]
    fn what_is_no_challenge_is_left_out() {
        for field in ["", ",", "realm=x", "\"", "(", "=", "a/b c", "nonce==,=,\""] {
            assert_eq!(read(&[field]), [], "{field}");
        }
        // A parameter without a challenge in its own field is nobody's.
        assert_eq!(read(&["Basic", "realm=x"]), [challenge("Basic", &[])]);
        assert_eq!(read(&["Digest nonce=\"open, realm=x"]), [challenge("Digest", &[])]);
    }

    #[test]
    fn control_characters_are_refused_and_shown() {
        let field = format!("Basic realm=\"a\r{}\"", "x".repeat(10_000));
        let error = Challenge::read(["Negotiate", &field].into_iter()).unwrap_err();
        assert!(error.to_string().contains("\\r") && error.to_string().len() < 400, "{error}");
    }

    /// A challenge as some proxy writes it, and as it is meant.
    fn written() -> impl Strategy<Value = (String, Challenge)> {
        let parameter = ("[a-z]{1,4}", "[ -~]{0,6}", " ?= ?");
        let parameters = proptest::collection::vec(parameter, 0..4);
        ("[A-Z][a-z-]{0,4}", parameters).prop_map(|(scheme, parameters)| {
            let texts = parameters.iter().map(|(name, value, equals)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("{name}{equals}\"{value}\"")
            });
            let text = format!("{scheme} {}", texts.collect::<Vec<_>>().join(" ,"));
            let parameters = parameters.into_iter().map(|(name, value, _)| (name, value));
            (text, Challenge { scheme, parameters: parameters.collect() })
        })
    }

    proptest! {
        #[test]
        fn order_and_fields_do_not_matter(
            all in proptest::collection::vec((written(), any::<bool>()), 0..6),
        ) {
            let mut fields: Vec<String> = Vec::new();
            for ((text, _), is_apart) in &all {
                match fields.last_mut() {
                    Some(last) if !is_apart => *last += &format!(", {text}"),
                    _ => fields.push(text.clone()),
                }
            }
            let found = Challenge::read(fields.iter().map(String::as_str)).unwrap();
            let meant: Vec<_> = all.into_iter().map(|((_, challenge), _)| challenge).collect();
            prop_assert_eq!(found, meant);
        }

        #[test]
        fn nothing_breaks_it(field in "([a-z =,\"\\\\\t]|\\PC){0,40}") {
            for challenge in read(&[&field]) {
                prop_assert!(challenge.scheme().chars().all(is_of_token));
            }
        }
    }
}
