//! The certificate: given, or made here and kept.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::info;
use zeroize::Zeroizing;

use crate::config::Http;
use crate::fault::Fault;

/// A certificate chain and its key, each in PEM.
pub struct Certificate {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// The certificate of the configuration, or a self-signed one.
///
/// # Errors
/// A file cannot be read or written; the sentence names it.
pub fn load(config: &Http) -> Result<Certificate, Fault> {
    let (chain, key) = match config.certificate.as_os_str().is_empty() {
        true => self_signed(config)?,
        false => (read(&config.certificate)?, read(&config.key)?),
    };
    Ok(Certificate { chain, key: Zeroizing::new(key) })
}

impl Certificate {
    /// TLS for HTTPS and links.
    ///
    /// # Errors
    /// It is no certificate, or the key is not its own.
    pub fn tls(&self) -> Result<Arc<ServerConfig>, Fault> {
        let unusable =
            |error: &dyn std::fmt::Display| Fault::internal(format!("certificate or key: {error}"));
        let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| unusable(&error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        // The first of ours that the client names: one that names HTTP as well, to look like a browser, means the link.
        let protocols = [strait_link::ALPN, b"h2", b"http/1.1"];
        tls.alpn_protocols = protocols.map(<[u8]>::to_vec).to_vec();
        Ok(Arc::new(tls))
    }

    /// A secret for a purpose that is the same as long as the certificate's key is.
    pub fn secret(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        let mut secret = Zeroizing::new([0; 32]);
        let made = hmac::sign(&key, purpose.as_bytes());
        secret.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from);
        secret
    }

    /// Both, one after the other.
    pub fn pem(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.chain.as_slice(), b"\n", &self.key].concat())
    }
}

/// The self-signed certificate in the state directory, made when absent: kept, so that an
/// exception given in a browser outlives a restart.
fn self_signed(config: &Http) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let (certificate_path, key_path) =
        (config.state_dir.join("certificate.pem"), config.state_dir.join("key.pem"));
    if certificate_path.exists() && key_path.exists() {
        return Ok((read(&certificate_path)?, read(&key_path)?));
    }
    let made = rcgen::generate_simple_self_signed(config.certificate_names.clone())
        .map_err(|error| Fault::internal(format!("http.certificate_names: {error}")))?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::create_dir_all(&config.state_dir).map_err(|error| unwritable(&config.state_dir, &error))?;
    write(&key_path, &key)?;
    write(&certificate_path, &certificate)?;
    info!("made a self-signed certificate: {}", certificate_path.display());
    Ok((certificate.into_bytes(), key.into_bytes()))
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(|error| {
        Fault::internal(format!("{} cannot be read: {error}; check its path", path.display()))
    })
}

/// Writes a file that nobody else may read.
fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::internal(format!(
        "{} cannot be written: {error}; check http.state_dir and its permissions",
        path.display()
    ))
}
