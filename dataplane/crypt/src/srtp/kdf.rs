//! Key derivation (RFC 3711 section 4.3, RFC 6188 for AES-256, RFC 7714 section 11), key derivation rate zero.

use super::{Error, Profile, wipe};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

/// What a derived key is for: RFC 3711 section 4.3.2, table 1.
#[derive(Clone, Copy)]
pub(crate) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// The pseudo-random function of a master key and salt.
pub(crate) struct Kdf {
    prf: EncryptingKey,
    salt: [u8; 14],
}

impl Kdf {
    pub(crate) fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, Error> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(Error::Key);
        }
        // A 96-bit salt is padded with zeros on the right (RFC 7714 section 11).
        let mut padded = [0; 14];
        for (to, from) in padded.iter_mut().zip(salt) {
            *to = *from;
        }
        Ok(Self { prf: counter_mode(key)?, salt: padded })
    }

    /// With a salt of 14 bytes whatever the key: RFC 6188's vectors.
    #[cfg(test)]
    pub(crate) fn unpadded(key: &[u8], salt: [u8; 14]) -> Result<Self, Error> {
        Ok(Self { prf: counter_mode(key)?, salt })
    }

    /// `N` bytes of key material for `label`.
    pub(crate) fn derive<const N: usize>(&self, label: Label) -> Result<Secret<N>, Error> {
        // x = (label || r) XOR salt with r, 48 bits, zero; the counter starts at x * 2^16.
        let mut iv = [0; 16];
        for (to, from) in iv.iter_mut().zip(self.salt) {
            *to = from;
        }
        if let Some(byte) = iv.get_mut(7) {
            *byte ^= label as u8;
        }
        let mut out = Secret([0; N]);
        apply_counter_mode(&self.prf, iv, &mut out.0)?;
        Ok(out)
    }
}

impl Drop for Kdf {
    fn drop(&mut self) {
        wipe(&mut self.salt);
    }
}

/// Bytes that are overwritten when dropped.
pub(crate) struct Secret<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// AES in counter mode; the length of `key` says which.
pub(crate) fn counter_mode(key: &[u8]) -> Result<EncryptingKey, Error> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr).map_err(|_| Error::Key)
}

/// Encrypts or decrypts `bytes`: RFC 3711 section 4.1.1.
pub(crate) fn apply_counter_mode(
    key: &EncryptingKey,
    iv: [u8; 16],
    bytes: &mut [u8],
) -> Result<(), Error> {
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(bytes, context).map(drop).map_err(|_| Error::Unauthentic)
}
