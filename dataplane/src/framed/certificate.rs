//! What came with a connection: the certificate that TLS shows, and the secret of TURN's credentials.

use crate::turn::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use strait_proto::handover::{ALPN, TURN_ALPN, turn_secret};

/// The last certificate, which is the next one's too until the control plane has another.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// SHA-256 of the PEM, and what was made of it.
    last: Mutex<Option<(Vec<u8>, Served)>>,
}

/// How a connection is served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) tls: Arc<ServerConfig>,
    /// None: there is no TURN.
    pub(super) turn: Option<Secret>,
}

impl Certificates {
    /// TLS with the certificate chain and the key in `pem`, and TURN if there is a secret for it.
    ///
    /// # Errors
    /// It is none; the sentence says why.
    pub(super) fn config(&self, pem: &[u8]) -> io::Result<Served> {
        let hash = digest(&SHA256, pem);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, served)) = &*last
            && known == hash.as_ref()
        {
            return Ok(served.clone());
        }
        let turn = turn_secret(pem).map(|secret| Secret::new(&secret));
        let served = Served { tls: Arc::new(config(pem, turn.is_some())?), turn };
        *last = Some((hash.as_ref().to_vec(), served.clone()));
        Ok(served)
    }
}

fn config(pem: &[u8], is_turn: bool) -> io::Result<ServerConfig> {
    let unusable = |error: &dyn std::fmt::Display| {
        io::Error::new(ErrorKind::InvalidData, format!("certificate or key: {error}"))
    };
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| unusable(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_no_client_auth()
        .with_single_cert(chain.map_err(|error| unusable(&error))?, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    if is_turn {
        config.alpn_protocols.push(TURN_ALPN.to_vec());
    }
    // A connection lasts as long as a call: nobody comes back soon enough for a ticket to be worth its bytes.
    config.send_tls13_tickets = 0;
    // For the kernel (`kernel.rs`).
    config.enable_secret_extraction = true;
    Ok(config)
}
