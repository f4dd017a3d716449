//! The relay's certificate and the settings that go with it.

use super::fingerprint::hex_colons;
use super::{Role, offer};
use crate::srtp::Profile;
use aws_lc_rs::digest;
use dimpl::crypto::CryptoProvider;
use dimpl::{Config, DtlsCertificate};
use std::sync::Arc;
use std::time::Duration;

/// First retransmission of a flight. ICE has proved the way and knows it to be short; RFC 6347 section 4.2.4.1's
/// second is for strangers.
const FLIGHT_RTO: Duration = Duration::from_millis(250);
/// Retransmissions of a flight: they double from [`FLIGHT_RTO`], so that the last is sent within [`HANDSHAKE`].
const FLIGHT_RETRIES: usize = 6;
/// How long a handshake may take from its first packet.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Largest datagram that we send while shaking hands: fits the smallest MTU of IPv6 with room for a tunnel.
const MTU: usize = 1150;

/// A self-signed ECDSA P-256 certificate with its private key, made once per process; cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    pub(super) identity: DtlsCertificate,
    config: Arc<Config>,
    /// As a client: the only profile to offer, with the settings that go with it.
    offer: Option<(Profile, Arc<Config>)>,
    fingerprint: [u8; 32],
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key or the signature.
    #[error("cannot make a DTLS certificate: {0}")]
    Generate(dimpl::certificate::CertificateError),
    /// The settings of the DTLS library.
    #[error("cannot set up DTLS: {0}")]
    Config(dimpl::Error),
    /// The DTLS library does not know the profile.
    #[error("the DTLS library cannot offer {0:?}")]
    Profile(Profile),
}

impl Certificate {
    /// Makes one, valid from now for a year. Takes its key and serial number from the system's random source.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, CertificateError> {
        let identity = dimpl::certificate::generate_self_signed_certificate()
            .map_err(CertificateError::Generate)?;
        let config = config(None)?;
        let mut fingerprint = [0; 32];
        for (to, from) in fingerprint
            .iter_mut()
            .zip(digest::digest(&digest::SHA256, &identity.certificate).as_ref())
        {
            *to = *from;
        }
        Ok(Self { identity, config: Arc::new(config), offer: None, fingerprint })
    }

    /// The same certificate, with which a client offers `profile` alone instead of all. For peers that measure: see
    /// `offer.rs` for how.
    ///
    /// # Errors
    /// [`CertificateError::Profile`] for AES_CM_128_HMAC_SHA1_32, which the library lacks.
    pub fn offering(mut self, profile: Profile) -> Result<Self, CertificateError> {
        let provider = offer::provider(profile).ok_or(CertificateError::Profile(profile))?;
        self.offer = Some((profile, Arc::new(config(Some(provider))?)));
        Ok(self)
    }

    /// The settings for one side.
    pub(super) fn config(&self, role: Role) -> Arc<Config> {
        match &self.offer {
            Some((_, config)) if role == Role::Client => config.clone(),
            _ => self.config.clone(),
        }
    }

    /// Changes what a client sends, if it offers one profile.
    pub(super) fn rewrite(&self, role: Role, datagram: &mut [u8]) {
        if let (Some((profile, _)), Role::Client) = (&self.offer, role) {
            offer::rewrite(datagram, *profile);
        }
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// SHA-256 of the certificate as SDP writes it: upper-case hex with colons (RFC 8122 section 5).
    #[must_use]
    pub fn fingerprint_sha256_hex(&self) -> String {
        hex_colons(&self.fingerprint)
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("fingerprint_sha256", &self.fingerprint_sha256_hex())
            .finish_non_exhaustive()
    }
}

fn config(provider: Option<CryptoProvider>) -> Result<Config, CertificateError> {
    let builder = Config::builder()
        // ICE has proved the peer's address: a cookie would only cost a round trip.
        .use_server_cookie(false)
        .require_client_certificate(true)
        .mtu(MTU)
        .flight_start_rto(FLIGHT_RTO)
        .flight_retries(FLIGHT_RETRIES)
        .handshake_timeout(HANDSHAKE);
    let builder = match provider {
        Some(provider) => builder.with_crypto_provider(provider),
        None => builder,
    };
    builder.build().map_err(CertificateError::Config)
}
