//! HMAC-SHA1 for STUN MESSAGE-INTEGRITY (RFC 8489 section 14.5).

use aws_lc_rs::{constant_time, hmac};

/// The HMAC-SHA1 of `parts`, one after the other, under `key`. For a key used more than once: [`StunKey`].
#[must_use]
pub fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    StunKey::new(key).sign(parts)
}

/// Whether `tag` is the HMAC-SHA1 of `parts` under `key`, in time that does not depend on where they differ.
#[must_use]
pub fn verify_hmac_sha1(key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
    StunKey::new(key).verify(parts, tag)
}

/// An HMAC-SHA1 key with its schedule done: consent checks come every few seconds from every peer.
#[derive(Clone, Debug)]
pub struct StunKey(hmac::Key);

impl StunKey {
    /// From the bytes of an ICE password, which are the key of a short-term credential
    /// (RFC 8489 section 9.1.1).
    #[must_use]
    pub fn new(password: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password))
    }

    /// The HMAC of `parts`, one after the other.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 20] {
        hmac_parts(&self.0, parts)
    }

    /// Whether `tag` is the HMAC of `parts`, in time that does not depend on where they differ.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.sign(parts), tag).is_ok()
    }
}

/// The HMAC-SHA1 of `parts` under a key with its schedule done.
pub(crate) fn hmac_parts(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 20];
    for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202 section 3, cases 1, 2 and 6.
    #[test]
    fn rfc2202_vectors() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "aa4ae5e15272d00e95705637ce8a3b55ed402112",
            ),
        ];
        for (key, data, want) in cases {
            let (head, tail) = data.split_at(3);
            let tag = hmac_sha1(key, &[head, tail]);
            let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, want);
            assert!(verify_hmac_sha1(key, &[data], &tag));
            assert!(!verify_hmac_sha1(key, &[head], &tag));
            assert!(!verify_hmac_sha1(key, &[data], &tag[..19]));
        }
    }
}
