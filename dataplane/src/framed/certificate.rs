//! What TLS shows: the certificate that came with a connection.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use strait_proto::handover::ALPN;

/// The last certificate, which is the next one's too until the control plane has another.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// SHA-256 of the PEM, and what was made of it.
    last: Mutex<Option<(Vec<u8>, Arc<ServerConfig>)>>,
}

impl Certificates {
    /// TLS with the certificate chain and the key in `pem`.
    ///
    /// # Errors
    /// It is none; the sentence says why.
    pub(super) fn config(&self, pem: &[u8]) -> io::Result<Arc<ServerConfig>> {
        let hash = digest(&SHA256, pem);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, config)) = &*last
            && known == hash.as_ref()
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(pem)?);
        *last = Some((hash.as_ref().to_vec(), Arc::clone(&config)));
        Ok(config)
    }
}

fn config(pem: &[u8]) -> io::Result<ServerConfig> {
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
    // A connection lasts as long as a call: nobody comes back soon enough for a ticket to be worth its bytes.
    config.send_tls13_tickets = 0;
    Ok(config)
}
