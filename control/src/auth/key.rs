//! Keys: what signs, and what must not be seen.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    ParsedPublicKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::{id, limits};

/// Random bytes of a new secret: as many as HMAC-SHA-256 can use (RFC 7518 section 3.2).
const SECRET_BYTES: usize = 32;

/// A text that must not be seen: compared in constant time, wiped when dropped, never shown.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A new one, as 64 hexadecimal digits.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn random() -> Result<Self, Fault> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        id::fill(&mut *bytes)?;
        Ok(id::hex(&*bytes).into())
    }

    /// The secret itself, for what signs, stores or shows it on purpose.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares without telling by the time it takes where the difference is.
    pub fn is(&self, other: &str) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), other.as_bytes()).is_ok()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.expose())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A public key on the curve P-256.
#[derive(Debug, Clone, PartialEq)]
pub struct PublicKey {
    pem: String,
    der: Vec<u8>,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`]: something else, or on another curve.
    pub fn from_pem(pem: &str) -> Result<Self, Fault> {
        if pem.contains("PRIVATE KEY") {
            return Err(Fault::malformed(
                "this is a private key: it stays with the application; give its public key \
                 (openssl pkey -in private.pem -pubout)",
            ));
        }
        let wrong = "no public key on P-256 in PEM (BEGIN PUBLIC KEY); ES256 takes no other";
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| Fault::malformed(wrong))?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &*der)
            .map_err(|_| Fault::malformed(wrong))?;
        Ok(Self { pem: pem.to_owned(), der: der.to_vec() })
    }

    /// As it was given.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }
}

/// A private key on the curve P-256, for those who sign. Control itself holds none.
pub struct PrivateKey {
    der: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub fn random() -> Result<Self, Fault> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = pair.and_then(|pair| pair.to_pkcs8v1());
        let pair = pair.map_err(|_| Fault::internal("no key pair could be made"))?;
        Ok(Self { der: Zeroizing::new(pair.as_ref().to_vec()) })
    }

    /// Reads PKCS #8 in PEM (`BEGIN PRIVATE KEY`).
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`].
    pub fn from_pem(pem: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::malformed(
                "no private key on P-256 in PKCS #8 PEM (BEGIN PRIVATE KEY); openssl pkcs8 \
                 -topk8 -nocrypt converts others",
            )
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?;
        let der = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(|_| wrong())?;
        Ok(Self { der })
    }

    /// PKCS #8 in PEM.
    pub fn to_pem(&self) -> Secret {
        pem("PRIVATE KEY", &self.der).into()
    }

    /// What the application's entry in the store takes.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`].
    pub fn public(&self) -> Result<PublicKey, Fault> {
        let failed = |_| Fault::internal("the key pair has no public key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.der);
        let pair = pair.map_err(|_| Fault::internal("the key pair cannot be read"))?;
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
        PublicKey::from_pem(&pem("PUBLIC KEY", der.as_ref()))
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// What a key is made of. Its kind decides the algorithm; a token's header never does.
#[derive(Debug, Clone, PartialEq)]
pub enum Material {
    /// Shared with the application's server: JSON Web Tokens with HS256, signed credentials.
    Secret(Secret),
    /// The public half of a pair whose private one the application holds: ES256.
    Es256(PublicKey),
}

impl Material {
    /// As the store names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret",
            Self::Es256(_) => "es256",
        }
    }
}

/// One of the keys of an application.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its name within the application; tokens name it in `kid`.
    pub id: String,
    /// What it is made of.
    pub material: Material,
    /// Whether what it signs is taken.
    pub is_enabled: bool,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Key {
    /// A new key that is enabled.
    pub fn new(id: &str, material: Material, created: u64) -> Self {
        Self { id: id.to_owned(), material, is_enabled: true, created }
    }

    /// Checks what someone chose.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`].
    pub fn check(&self) -> Result<(), Fault> {
        id::check_name("the key's identifier", &self.id, limits::KEY_ID_BYTES)?;
        match &self.material {
            Material::Secret(secret) if secret.expose().len() < SECRET_BYTES => {
                Err(Fault::malformed(format!(
                    "the secret is shorter than {SECRET_BYTES} bytes: it could be guessed \
                     (RFC 7518 section 3.2); take a random one"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// An application: who may sign.
#[derive(Debug, Clone, PartialEq)]
pub struct Application {
    /// Its identifier.
    pub id: String,
    /// Whether signatures over concatenated fields are taken.
    pub concatenated: bool,
    /// Whether the session key of a scope changes when a native client leaves.
    pub changes_keys: bool,
    /// Its keys, the oldest first.
    pub keys: Vec<Key>,
}

impl Application {
    /// The secrets that are enabled.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.keys.iter().filter(|key| key.is_enabled).filter_map(|key| match &key.material {
            Material::Secret(secret) => Some((key.id.as_str(), secret)),
            Material::Es256(_) => None,
        })
    }
}

/// PEM (RFC 7468) of what this module made itself.
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            body.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
        if body.len() % 65 == 64 {
            body.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", body.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::random().unwrap();
        assert_eq!(secret.expose().len(), 64);
        assert!(!format!("{secret:?}").contains(secret.expose()));
        let key = Key::new("first", Material::Secret(secret.clone()), 0);
        assert!(!format!("{key:?}").contains(secret.expose()));
        assert!(key.check().is_ok());
        let weak = Key::new("first", Material::Secret("short".into()), 0);
        assert!(weak.check().unwrap_err().reason.contains("guessed"));
        let pair = PrivateKey::random().unwrap();
        assert_eq!(format!("{pair:?}"), "PrivateKey(…)");
    }

    #[test]
    fn pairs_are_written_and_read() {
        let pair = PrivateKey::random().unwrap();
        let public = pair.public().unwrap();
        let again = PrivateKey::from_pem(pair.to_pem().expose()).unwrap();
        assert_eq!(again.public().unwrap(), public);
        assert_eq!(PublicKey::from_pem(public.pem()).unwrap(), public);
        assert!(public.pem().lines().all(|line| line.len() <= 64));
        let private = PublicKey::from_pem(pair.to_pem().expose()).unwrap_err();
        assert!(private.reason.contains("stays with the application"));
        assert!(PublicKey::from_pem("nothing").is_err());
        assert!(PrivateKey::from_pem(public.pem()).is_err());
        // RSA and other curves are no keys for ES256: this one is on P-384.
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(PublicKey::from_pem(&pair.public_key_pem()).unwrap_err().reason.contains("P-256"));
        assert!(PrivateKey::from_pem(&pair.serialize_pem()).is_err());
    }
}
