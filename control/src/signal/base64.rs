//! Base 64 (RFC 4648 section 4): bytes in JSON.

use crate::fault::Fault;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes bytes as text, padded.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().chain(&[0, 0]).take(3).fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        for place in 0..4 {
            let at = bits >> (18 - 6 * place) & 63;
            let symbol = ALPHABET.get(at as usize).copied().unwrap_or(b'=');
            text.push(if place > three.len() { '=' } else { char::from(symbol) });
        }
    }
    text
}

/// Reads text, with or without padding.
///
/// # Errors
/// [`crate::fault::Class::Malformed`].
pub fn decode(text: &str) -> Result<Vec<u8>, Fault> {
    let malformed = || Fault::malformed("payload.data is no base 64 (RFC 4648 section 4)");
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for four in text.chunks(4) {
        let mut bits = 0u32;
        for symbol in four {
            let at = ALPHABET.iter().position(|known| known == symbol).ok_or_else(malformed)?;
            bits = bits << 6 | u32::try_from(at).unwrap_or_default();
        }
        let whole = match four.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return Err(malformed()),
        };
        bits <<= 6 * (4 - four.len());
        bytes.extend(bits.to_be_bytes().into_iter().skip(1).take(whole));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        // Section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
            assert_eq!(decode(text.trim_end_matches('=')).unwrap(), bytes.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        for wrong in ["Z", "Zm9vY", "Zm9*", "Zg==Zg=="] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }
}
