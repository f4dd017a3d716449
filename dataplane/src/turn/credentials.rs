//! Credentials that the control plane makes and the relay can check without being told of them: the user name is when they
//! end and for what they are, the password its HMAC-SHA1 in base 64, as many TURN servers have it.

use md5::{Digest as _, Md5};
use strait_crypt::{StunKey, hmac_sha1};
use zeroize::Zeroizing;

/// The realm of the long-term credentials (RFC 8489 section 9.2). There is no other.
pub(super) const REALM: &str = "strait";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What passwords are made with. A control plane's, which makes a new one each time it starts.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// From its bytes.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The key of a user (RFC 8489 section 9.2.2), if the name has not ended by then.
    pub(super) fn key(&self, username: &[u8], unix_seconds: u64) -> Option<StunKey> {
        let name = std::str::from_utf8(username).ok()?;
        let (ends, _) = name.split_once(':')?;
        if ends.parse::<u64>().ok()? <= unix_seconds {
            return None;
        }
        let password = Zeroizing::new(base64(&hmac_sha1(&self.0, &[username])));
        let mut hash = Md5::new();
        for part in [username, b":", REALM.as_bytes(), b":", password.as_bytes()] {
            hash.update(part);
        }
        Some(StunKey::new(&hash.finalize()))
    }
}

/// Base 64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut at = three.iter().chain(&[0, 0]).take(3);
        let bits = at.by_ref().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        for place in 0..4 {
            let symbol = ALPHABET.get((bits >> (18 - 6 * place) & 63) as usize);
            let symbol = symbol.copied().filter(|_| place <= three.len()).unwrap_or(b'=');
            text.push(char::from(symbol));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_key_is_what_other_servers_make_of_the_same_secret() {
        // By Python: md5(b'2000000000:one:strait:' + b64encode(hmac(b'secret', b'2000000000:one', sha1)))
        let secret = Secret::new(b"secret");
        let key = secret.key(b"2000000000:one", 1_999_999_999).unwrap();
        let same = StunKey::new(&KEY);
        assert_eq!(key.sign(&[b"x"]), same.sign(&[b"x"]));
        assert!(secret.key(b"2000000000:one", 2_000_000_000).is_none(), "over");
        for name in [&b"2000000000"[..], b"soon:one", b":", b"", &[0xff, b':']] {
            assert!(secret.key(name, 0).is_none(), "{name:?}");
        }
    }

    const KEY: [u8; 16] = [
        0x2f, 0x14, 0x53, 0x72, 0x09, 0x28, 0x60, 0xbd, 0x50, 0x79, 0x7e, 0xa0, 0xc4, 0xa5, 0xbf,
        0xa9,
    ];
}
