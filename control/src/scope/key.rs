//! The session key of a scope: SRTP keys that all its native clients share.

use strait_proto::v1;
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::id;

/// SRTP protection profiles that a session key can be for (RFC 5764 section 4.1.2, RFC 7714 section
/// 14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// AES-128 in counter mode, tags of 80 bits.
    Aes128CmSha1_80,
    /// AES-128 in counter mode, tags of 32 bits.
    Aes128CmSha1_32,
    /// AES-128 in Galois/counter mode.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode.
    AeadAes256Gcm,
}

impl Profile {
    /// The profile with this number.
    pub fn of(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Aes128CmSha1_80),
            2 => Some(Self::Aes128CmSha1_32),
            7 => Some(Self::AeadAes128Gcm),
            8 => Some(Self::AeadAes256Gcm),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(self) -> i32 {
        match self {
            Self::Aes128CmSha1_80 => 1,
            Self::Aes128CmSha1_32 => 2,
            Self::AeadAes128Gcm => 7,
            Self::AeadAes256Gcm => 8,
        }
    }

    /// Its name, as the RFCs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
            Self::Aes128CmSha1_32 => "SRTP_AES128_CM_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
        }
    }

    /// Bytes of its master key and salt.
    fn lengths(self) -> (usize, usize) {
        match self {
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => (16, 14),
            Self::AeadAes128Gcm => (16, 12),
            Self::AeadAes256Gcm => (32, 12),
        }
    }
}

/// Master key and salt. Lives in its scope alone, is overwritten when it goes, and has no `Debug`.
pub struct SessionKey {
    profile: Profile,
    secret: Zeroizing<Vec<u8>>,
}

impl SessionKey {
    /// A new key for the first native client of a scope: AES-128-GCM where the client has it, else
    /// the first of its profiles that is known here.
    ///
    /// # Errors
    /// [`crate::fault::Class::UnsupportedCodec`] when none is known; the system has no randomness.
    pub fn for_client(profiles: &[i32]) -> Result<Self, Fault> {
        let preferred = Profile::AeadAes128Gcm;
        let profile = match profiles.is_empty() || profiles.contains(&preferred.number()) {
            true => preferred,
            false => profiles.iter().find_map(|number| Profile::of(*number)).ok_or_else(|| {
                Fault::unsupported_codec(
                    "none of the client's SRTP profiles is known here; list \
                     SRTP_AEAD_AES_128_GCM (7) or SRTP_AES128_CM_HMAC_SHA1_80 (1)",
                )
            })?,
        };
        Self::random(profile)
    }

    /// Another key of the same profile.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn renewed(&self) -> Result<Self, Fault> {
        Self::random(self.profile)
    }

    fn random(profile: Profile) -> Result<Self, Fault> {
        let (key, salt) = profile.lengths();
        let mut secret = Zeroizing::new(vec![0; key + salt]);
        id::fill(&mut secret)?;
        Ok(Self { profile, secret })
    }

    /// Checks that a client of these profiles can use the key.
    ///
    /// # Errors
    /// [`crate::fault::Class::UnsupportedCodec`], naming the scope's profile.
    pub fn check(&self, profiles: &[i32]) -> Result<(), Fault> {
        let listed = match profiles {
            [] => Profile::AeadAes128Gcm == self.profile,
            profiles => profiles.contains(&self.profile.number()),
        };
        if listed {
            return Ok(());
        }
        Err(Fault::unsupported_codec(format!(
            "the scope's session key is for {0}, as its first native client chose, and this \
             client does not list that; list {0}, or join when the scope has ended",
            self.profile.name()
        )))
    }

    /// The key that a memo has; none for what is no key of this version.
    pub(super) fn of_memo(profile: i32, secret: Zeroizing<Vec<u8>>) -> Option<Self> {
        let profile = Profile::of(profile)?;
        let (key, salt) = profile.lengths();
        (secret.len() == key + salt).then_some(Self { profile, secret })
    }

    /// Profile, master key and salt, for a memo.
    pub(super) fn for_memo(&self) -> (i32, Zeroizing<Vec<u8>>) {
        (self.profile.number(), self.secret.clone())
    }

    /// What it is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Master key.
    pub fn key(&self) -> &[u8] {
        self.secret.get(..self.profile.lengths().0).unwrap_or_default()
    }

    /// Master salt.
    pub fn salt(&self) -> &[u8] {
        self.secret.get(self.profile.lengths().0..).unwrap_or_default()
    }

    /// For the relay.
    pub(super) fn for_relay(&self) -> v1::SessionKey {
        v1::SessionKey {
            profile: self.profile.number(),
            key: self.key().to_vec(),
            salt: self.salt().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_client_decides_the_profile() {
        for (profiles, chosen, lengths) in [
            (&[][..], Profile::AeadAes128Gcm, (16, 12)),
            (&[1, 7], Profile::AeadAes128Gcm, (16, 12)),
            (&[99, 8, 1], Profile::AeadAes256Gcm, (32, 12)),
            (&[2], Profile::Aes128CmSha1_32, (16, 14)),
        ] {
            let key = SessionKey::for_client(profiles).unwrap();
            assert_eq!(key.profile(), chosen, "{profiles:?}");
            assert_eq!((key.key().len(), key.salt().len()), lengths, "{profiles:?}");
            assert!(key.check(profiles).is_ok());
        }
        assert_eq!(SessionKey::for_client(&[99]).err().unwrap().code(), 415);
    }

    #[test]
    fn who_cannot_use_it_is_told_what_to_list() {
        let key = SessionKey::for_client(&[]).unwrap();
        let fault = key.check(&[1, 2]).unwrap_err();
        assert!(fault.reason.contains("SRTP_AEAD_AES_128_GCM"), "{fault}");
        assert!(key.check(&[1, 7]).is_ok() && key.check(&[]).is_ok());
        let old = SessionKey::for_client(&[1]).unwrap();
        assert!(old.check(&[]).is_err(), "no list is AES-128-GCM alone");
    }

    #[test]
    fn keys_differ() {
        let [a, b] = [(); 2].map(|()| SessionKey::for_client(&[8]).unwrap());
        let c = b.renewed().unwrap();
        assert_eq!(c.profile(), b.profile());
        for (one, other) in [(&a, &b), (&b, &c)] {
            assert_ne!(one.key(), other.key());
            assert_ne!(one.salt(), other.salt());
        }
    }
}
