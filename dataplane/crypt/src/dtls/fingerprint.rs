//! Certificate fingerprints (RFC 8122).

use aws_lc_rs::{constant_time, digest};

/// The hash of a fingerprint. SHA-1 is not among them: RFC 8122 section 5 forbids to make it, and a second
/// certificate with the same SHA-1 can be bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FingerprintAlgorithm {
    /// "sha-256".
    Sha256,
    /// "sha-384".
    Sha384,
    /// "sha-512".
    Sha512,
}

/// What the peer's certificate must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    algorithm: FingerprintAlgorithm,
    value: Vec<u8>,
}

/// Why a fingerprint is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Another hash than those of [`FingerprintAlgorithm`].
    #[error("fingerprints with {0} are not taken: use sha-256, sha-384 or sha-512")]
    Algorithm(String),
    /// Not as long as the hash.
    #[error("a fingerprint with {algorithm:?} has {want} bytes, not {got}")]
    Length {
        /// The hash.
        algorithm: FingerprintAlgorithm,
        /// Its bytes.
        want: usize,
        /// The bytes given.
        got: usize,
    },
}

impl Fingerprint {
    /// From a hash as SDP names it ("sha-256", in any case) and the bytes of the fingerprint.
    ///
    /// # Errors
    /// For any other hash than SHA-256, SHA-384 and SHA-512, and for a wrong length.
    pub fn new(algorithm: &str, value: &[u8]) -> Result<Self, FingerprintError> {
        let algorithm = match algorithm.to_ascii_lowercase().as_str() {
            "sha-256" => FingerprintAlgorithm::Sha256,
            "sha-384" => FingerprintAlgorithm::Sha384,
            "sha-512" => FingerprintAlgorithm::Sha512,
            other => {
                return Err(FingerprintError::Algorithm(other.chars().take(32).collect()));
            }
        };
        let want = algorithm.digest().output_len();
        if value.len() != want {
            return Err(FingerprintError::Length { algorithm, want, got: value.len() });
        }
        Ok(Self { algorithm, value: value.to_vec() })
    }

    /// Which hash.
    #[must_use]
    pub fn algorithm(&self) -> FingerprintAlgorithm {
        self.algorithm
    }

    /// Whether this is the fingerprint of the certificate.
    #[must_use]
    pub fn matches(&self, certificate_der: &[u8]) -> bool {
        let digest = digest::digest(self.algorithm.digest(), certificate_der);
        constant_time::verify_slices_are_equal(digest.as_ref(), &self.value).is_ok()
    }
}

impl FingerprintAlgorithm {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// Upper-case hex with colons.
pub(super) fn hex_colons(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(3 * bytes.len());
    for byte in bytes {
        if !out.is_empty() {
            out.push(':');
        }
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(nibble.into(), 16).unwrap_or('0').to_ascii_uppercase());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_strong_hashes_only() {
        assert!(Fingerprint::new("SHA-256", &[0; 32]).is_ok());
        assert!(Fingerprint::new("sha-384", &[0; 48]).is_ok());
        assert!(Fingerprint::new("sha-512", &[0; 64]).is_ok());
        assert_eq!(
            Fingerprint::new("sha-1", &[0; 20]),
            Err(FingerprintError::Algorithm("sha-1".into()))
        );
        assert_eq!(
            Fingerprint::new("sha-256", &[0; 31]),
            Err(FingerprintError::Length {
                algorithm: FingerprintAlgorithm::Sha256,
                want: 32,
                got: 31
            })
        );
        assert!(Fingerprint::new("", &[]).is_err());
    }

    #[test]
    fn compares_the_hash_of_the_certificate() {
        for (name, algorithm) in [
            ("sha-256", &digest::SHA256),
            ("sha-384", &digest::SHA384),
            ("sha-512", &digest::SHA512),
        ] {
            let value = digest::digest(algorithm, b"certificate");
            let fingerprint = Fingerprint::new(name, value.as_ref()).unwrap();
            assert!(fingerprint.matches(b"certificate"));
            assert!(!fingerprint.matches(b"certificatf"));
        }
    }

    #[test]
    fn hex() {
        assert_eq!(hex_colons(&[0xaf, 0x12, 0x00]), "AF:12:00");
    }
}
