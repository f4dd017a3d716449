//! Bencode, which rtpengine's ng protocol is written in: texts, numbers, lists and dictionaries.

use std::collections::BTreeMap;

/// Lists and dictionaries within one another: answers have a few.
const DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Bytes that are mostly text; what is not is replaced when it is read.
    Text(String),
    /// A number.
    Number(i64),
    /// A list.
    List(Vec<Value>),
    /// A dictionary, in the order that is asked for: sorted by key.
    Dictionary(BTreeMap<String, Value>),
}

/// A text.
#[must_use]
pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

impl Value {
    /// A dictionary of these.
    #[must_use]
    pub fn dictionary(entries: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        Self::Dictionary(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// An entry of a dictionary.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dictionary(entries) => entries.get(key),
            _ => None,
        }
    }

    /// A text's text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => write_text(text, out),
            Self::Number(number) => out.extend(format!("i{number}e").as_bytes()),
            Self::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.write(out));
                out.push(b'e');
            }
            Self::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    write_text(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }

    /// Reads one value that fills `bytes`.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (value, rest) = read(bytes, DEPTH)?;
        rest.is_empty().then_some(value)
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend(format!("{}:", text.len()).as_bytes());
    out.extend(text.as_bytes());
}

fn read(bytes: &[u8], depth: usize) -> Option<(Value, &[u8])> {
    let depth = depth.checked_sub(1)?;
    let (first, after) = bytes.split_first()?;
    match first {
        b'i' => {
            let (number, rest) = number(after, b'e')?;
            Some((Value::Number(number), rest))
        }
        b'l' => {
            let (mut values, mut rest) = (Vec::new(), after);
            while rest.first() != Some(&b'e') {
                let (value, after) = read(rest, depth)?;
                values.push(value);
                rest = after;
            }
            Some((Value::List(values), rest.get(1..)?))
        }
        b'd' => {
            let (mut entries, mut rest) = (BTreeMap::new(), after);
            while rest.first() != Some(&b'e') {
                let (key, after) = read_text(rest)?;
                let (value, after) = read(after, depth)?;
                entries.insert(key, value);
                rest = after;
            }
            Some((Value::Dictionary(entries), rest.get(1..)?))
        }
        _ => {
            let (text, rest) = read_text(bytes)?;
            Some((Value::Text(text), rest))
        }
    }
}

fn read_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = number(bytes, b':')?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((String::from_utf8_lossy(text).into_owned(), rest))
}

/// A number up to a sign that ends it.
fn number(bytes: &[u8], end: u8) -> Option<(i64, &[u8])> {
    let at = bytes.iter().position(|byte| *byte == end)?;
    let digits = std::str::from_utf8(bytes.get(..at)?).ok()?;
    Some((digits.parse().ok()?, bytes.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let value = Value::dictionary([
            ("sdp", text("v=0\r\n")),
            ("flags", Value::List(vec![text("trust-address"), Value::Number(-7)])),
            ("created", Value::Number(0)),
        ]);
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        let wanted = "d7:createdi0e5:flagsl13:trust-addressi-7ee3:sdp5:v=0\r\ne";
        assert_eq!(String::from_utf8_lossy(&bytes), wanted);
        assert_eq!(Value::read(&bytes), Some(value));
    }

    #[test]
    fn what_is_cut_off_or_bottomless_is_none() {
        let whole = b"d3:sdp5:v=0\r\n4:listli1eee";
        assert!(Value::read(whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(Value::read(&whole[..length]), None, "{length}");
        }
        assert_eq!(Value::read(&[b'l'; 100]), None);
        assert_eq!(Value::read(b"-3:abc"), None);
        assert_eq!(Value::read(b"99999999999999999999:a"), None);
        assert_eq!(Value::read(b"1:ab"), None, "something is left");
    }
}
