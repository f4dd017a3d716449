//! TLS over TCP, with rustls, without a runtime's wrapper; and whom it trusts.

use crate::error::Error;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that may wait to be sent; the other side reads too slowly beyond.
const WAITING: usize = 4 << 20;
/// Where the system keeps whom it trusts.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How a node shows that it is the one that was meant. There is no way to trust everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// By a certificate of those whom the system trusts.
    #[default]
    System,
    /// By a certificate of those in this PEM file, or by one that is in it.
    CaFile(PathBuf),
    /// By the one certificate with this SHA-256, whatever its names and dates.
    Fingerprint([u8; 32]),
}

impl Trust {
    /// A fingerprint as `openssl x509 -fingerprint -sha256` writes it; colons may be left out.
    #[must_use]
    pub fn fingerprint(text: &str) -> Option<Self> {
        let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut sha256 = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        for (byte, pair) in sha256.iter_mut().zip(hex.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self::Fingerprint(sha256))
    }

    /// The configuration of TLS for connections with these protocols.
    ///
    /// # Errors
    /// There are no certificates to trust.
    pub fn config(&self, alpn: &[u8]) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Certificate(error.to_string()))?;
        let mut config = match self {
            Self::Fingerprint(sha256) => {
                let pinned = Arc::new(Pinned { sha256: *sha256, provider });
                builder.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth()
            }
            Self::CaFile(path) => {
                builder.with_root_certificates(roots(path)?).with_no_client_auth()
            }
            Self::System => {
                let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
                let known = SYSTEM.iter().map(PathBuf::from).find(|path| path.exists());
                let path = named.or(known).unwrap_or_else(|| PathBuf::from(SYSTEM[0]));
                builder.with_root_certificates(roots(&path)?).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    }
}

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let wrong = |error: &dyn std::fmt::Display| {
        Error::Certificate(format!("{} cannot be read: {error}", path.display()))
    };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    roots.add_parsable_certificates(found.flatten());
    if roots.is_empty() {
        return Err(wrong(&"it holds no certificate"));
    }
    Ok(roots)
}

/// Whether it is a name or an address, and nothing else beside.
pub(crate) fn is_host(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// Trusts one certificate.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, end_entity);
        if found.as_ref() == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS connection of either side.
pub struct Tls {
    stream: TcpStream,
    connection: rustls::Connection,
    /// Ciphertext that the socket did not take yet.
    waiting: Vec<u8>,
    /// What came with the end of the handshake.
    early: Vec<u8>,
}

impl Tls {
    /// Over a connected stream; nothing was sent yet.
    #[must_use]
    pub fn new(stream: TcpStream, mut connection: rustls::Connection) -> Self {
        // A frame may be longer than rustls keeps by default; what waits is bounded in `send`.
        connection.set_buffer_limit(None);
        Self { stream, connection, waiting: Vec::new(), early: Vec::new() }
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// The connection broke, or the other side is not trusted.
    pub async fn handshake(&mut self) -> Result<(), Error> {
        self.collect();
        while self.connection.is_handshaking() || !self.waiting.is_empty() {
            let read = self.turn().await?;
            self.early.extend(read);
        }
        Ok(())
    }

    /// The protocol that both sides agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sends, as soon as [`Tls::turn`] may.
    ///
    /// # Errors
    /// The other side reads too slowly.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.waiting.len() > WAITING {
            return Err(broken("the node reads too slowly"));
        }
        self.connection.writer().write_all(bytes).map_err(|error| broken(&error))?;
        self.collect();
        // What the socket takes at once needs no turn.
        self.write()
    }

    /// Waits until something can be read or written, does so, and gives what was read. Cancelled without loss.
    ///
    /// # Errors
    /// The connection ended or broke.
    pub async fn turn(&mut self) -> Result<Vec<u8>, Error> {
        if !self.early.is_empty() && !self.connection.is_handshaking() {
            return Ok(std::mem::take(&mut self.early));
        }
        let interest = match self.waiting.is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let ready = self.stream.ready(interest).await.map_err(|error| broken(&error))?;
        if ready.is_writable() {
            self.write()?;
        }
        let mut plain = Vec::new();
        if ready.is_readable() {
            let mut bytes = [0; 16 << 10];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err(broken("the other side closed it")),
                Ok(len) => self.open(bytes.get(..len).unwrap_or_default(), &mut plain)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(plain)
    }

    fn open(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(|error| broken(&error))?;
            let processed = self.connection.process_new_packets();
            // An alert that says why is sent all the same.
            self.collect();
            let state = processed.map_err(|error| match error {
                rustls::Error::InvalidCertificate(error) => Error::Certificate(error.to_string()),
                other => broken(&other),
            })?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            let room = plain.get_mut(start..).unwrap_or_default();
            self.connection.reader().read_exact(room).map_err(|error| broken(&error))?;
        }
        self.write()
    }

    /// Tells the other side that nothing follows.
    pub async fn close(mut self) {
        self.connection.send_close_notify();
        self.collect();
        while !self.waiting.is_empty() {
            if self.stream.writable().await.is_err() || self.write().is_err() {
                return;
            }
        }
    }

    fn collect(&mut self) {
        while self.connection.wants_write() {
            // Into memory: it cannot fail.
            let _written = self.connection.write_tls(&mut self.waiting);
        }
    }

    fn write(&mut self) -> Result<(), Error> {
        while !self.waiting.is_empty() {
            match self.stream.try_write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(())
    }
}

fn broken(why: &(impl std::fmt::Display + ?Sized)) -> Error {
    Error::Connect { what: "the link".into(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(Trust::fingerprint(&plain), Some(Trust::Fingerprint([0xab; 32])));
        assert_eq!(Trust::fingerprint(&colons), Some(Trust::Fingerprint([0xab; 32])));
        for wrong in ["", "ab", &"xy".repeat(32), &"ab".repeat(33)] {
            assert_eq!(Trust::fingerprint(wrong), None, "{wrong}");
        }
    }
}
