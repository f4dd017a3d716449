//! The relay's certificate and the settings that go with it.

use super::fingerprint::hex_colons;
use aws_lc_rs::digest;
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
    pub(super) config: Arc<Config>,
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
}

impl Certificate {
    /// Makes one, valid from now for a year. Takes its key and serial number from the system's random source.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, CertificateError> {
        let identity = dimpl::certificate::generate_self_signed_certificate()
            .map_err(CertificateError::Generate)?;
        let config = Config::builder()
            // ICE has proved the peer's address: a cookie would only cost a round trip.
            .use_server_cookie(false)
            .require_client_certificate(true)
            .mtu(MTU)
            .flight_start_rto(FLIGHT_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE)
            .build()
            .map_err(CertificateError::Config)?;
        let mut fingerprint = [0; 32];
        for (to, from) in fingerprint
            .iter_mut()
            .zip(digest::digest(&digest::SHA256, &identity.certificate).as_ref())
        {
            *to = *from;
        }
        Ok(Self { identity, config: Arc::new(config), fingerprint })
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
