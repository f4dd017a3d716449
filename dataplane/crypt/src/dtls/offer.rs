//! A client that offers one SRTP profile, which the library has no setting for.
//!
//! dimpl 0.9 always offers three. The two bytes of each are changed in the ClientHello that leaves, and, because both
//! sides sign and hash it, in everything that the library hashes or signs. This is for peers that measure or test; the
//! relay answers offers and makes none.

use crate::srtp::Profile;
use dimpl::crypto::{
    Buf, CryptoProvider, HashAlgorithm, HashContext, HashProvider, KeyProvider, SignatureAlgorithm,
    SigningKey,
};

/// use_srtp as dimpl writes it: type, length, three profiles, no MKI (RFC 5764 section 4.1.1).
const OFFERED: [u8; 13] = [0, 14, 0, 9, 0, 6, 0, 8, 0, 7, 0, 1, 0];
/// Where its profiles are.
const PROFILES: std::ops::Range<usize> = 6..12;

/// The providers that hash and sign what is sent rather than what dimpl wrote; `None` for a profile that dimpl has not.
pub(super) fn provider(profile: Profile) -> Option<CryptoProvider> {
    let (hash_provider, key_provider): (&'static dyn HashProvider, &'static dyn KeyProvider) =
        match number(profile)? {
            1 => (&Offer::<1>, &Offer::<1>),
            7 => (&Offer::<7>, &Offer::<7>),
            _ => (&Offer::<8>, &Offer::<8>),
        };
    let provider = dimpl::crypto::aws_lc_rs::default_provider();
    Some(CryptoProvider { hash_provider, key_provider, ..provider })
}

/// Changes a datagram of ours, if it holds a ClientHello.
pub(super) fn rewrite(datagram: &mut [u8], profile: Profile) {
    if let (Some(number), Some(at)) = (number(profile), find(datagram)) {
        put(datagram, at, number);
    }
}

/// RFC 5764 section 4.1.2, RFC 7714 section 14.2.
fn number(profile: Profile) -> Option<u8> {
    match profile {
        Profile::AesCm128HmacSha1_80 => Some(1),
        Profile::AesCm128HmacSha1_32 => None,
        Profile::AeadAes128Gcm => Some(7),
        Profile::AeadAes256Gcm => Some(8),
    }
}

fn find(bytes: &[u8]) -> Option<usize> {
    bytes.windows(OFFERED.len()).position(|window| window == OFFERED)
}

/// Three times the same: the message keeps its length, and a server takes the first that it knows.
fn put(bytes: &mut [u8], at: usize, number: u8) {
    let profiles = bytes.get_mut(at + PROFILES.start..at + PROFILES.end).unwrap_or_default();
    for profile in profiles.chunks_exact_mut(2) {
        profile.copy_from_slice(&[0, number]);
    }
}

/// Runs `work` on the bytes as they are on the wire.
fn on_wire<T>(bytes: &[u8], number: u8, work: impl FnOnce(&[u8]) -> T) -> T {
    match find(bytes) {
        Some(at) => {
            let mut changed = bytes.to_vec();
            put(&mut changed, at, number);
            work(&changed)
        }
        None => work(bytes),
    }
}

#[derive(Debug)]
struct Offer<const NUMBER: u8>;

impl<const NUMBER: u8> HashProvider for Offer<NUMBER> {
    fn create_hash(&self, algorithm: HashAlgorithm) -> Box<dyn HashContext> {
        let hash =
            dimpl::crypto::aws_lc_rs::default_provider().hash_provider.create_hash(algorithm);
        Box::new(Hash::<NUMBER>(hash))
    }
}

impl<const NUMBER: u8> KeyProvider for Offer<NUMBER> {
    fn load_private_key(&self, der: &[u8]) -> Result<Box<dyn SigningKey>, dimpl::CryptoError> {
        let key =
            dimpl::crypto::aws_lc_rs::default_provider().key_provider.load_private_key(der)?;
        Ok(Box::new(Key::<NUMBER>(key)))
    }
}

#[derive(Debug)]
struct Hash<const NUMBER: u8>(Box<dyn HashContext>);

impl<const NUMBER: u8> HashContext for Hash<NUMBER> {
    fn update(&mut self, data: &[u8]) {
        on_wire(data, NUMBER, |data| self.0.update(data));
    }

    fn clone_and_finalize(&self, out: &mut Buf) {
        self.0.clone_and_finalize(out);
    }
}

#[derive(Debug)]
struct Key<const NUMBER: u8>(Box<dyn SigningKey>);

impl<const NUMBER: u8> SigningKey for Key<NUMBER> {
    fn sign(
        &mut self,
        data: &[u8],
        hash_alg: HashAlgorithm,
        out: &mut Buf,
    ) -> Result<(), dimpl::CryptoError> {
        on_wire(data, NUMBER, |data| self.0.sign(data, hash_alg, out))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.0.hash_algorithm()
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        self.0.supported_hash_algorithms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtls::{Certificate, Fingerprint, Handshake, Output, Role};
    use std::time::{Duration, Instant};

    #[test]
    fn the_profile_is_the_one_offered() {
        let profiles =
            [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80];
        for profile in profiles {
            let client = Certificate::generate().unwrap().offering(profile).unwrap();
            let server = Certificate::generate().unwrap();
            let print =
                |c: &Certificate| Fingerprint::new("sha-256", &c.fingerprint_sha256()).unwrap();
            let mut now = Instant::now();
            let mut ours = Handshake::new(&client, Role::Client, print(&server), now);
            let mut theirs = Handshake::new(&server, Role::Server, print(&client), now);
            let (mut our_keys, mut their_keys) = (None, None);
            for _ in 0..20 {
                carry(&mut ours, &mut theirs, now, &mut our_keys);
                carry(&mut theirs, &mut ours, now, &mut their_keys);
                now += Duration::from_millis(10);
            }
            let (ours, theirs) = (our_keys.unwrap(), their_keys.unwrap());
            assert_eq!((ours.profile, theirs.profile), (profile, profile));
            assert!(ours.local_key == theirs.remote_key && ours.remote_salt == theirs.local_salt);
        }
        let all = Certificate::generate().unwrap();
        assert!(all.offering(Profile::AesCm128HmacSha1_32).is_err());
    }

    fn carry(
        from: &mut Handshake,
        to: &mut Handshake,
        now: Instant,
        keys: &mut Option<crate::srtp::SessionKeys>,
    ) {
        loop {
            match from.poll() {
                Output::Transmit(datagram) => to.handle(now, &datagram),
                Output::Connected(agreed) => *keys = Some(agreed),
                Output::Failed(why) => panic!("{why}"),
                _ => return,
            }
        }
    }
}
