//! Whether a node is well, asked of itself: a lease that is over, or what a client says, is no proof.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::node::{Node, Owner};
use crate::limits::{HEALTH_AGE, HEALTH_ATTEMPTS, HEALTH_CALL, HEALTH_PAUSE, NODES};

/// Looks whether nodes are well. Those who want to know at the same time share the answer.
pub struct Health {
    probe: Box<dyn Probe>,
    verdicts: Mutex<HashMap<Owner, Arc<Verdict>>>,
}

#[derive(Default)]
struct Verdict(tokio::sync::Mutex<Option<(Instant, bool)>>);

/// One attempt to have an answer of a node.
pub trait Probe: Send + Sync {
    /// True when this start of the node answers that it is well.
    fn attempt(&self, node: Node) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}

impl Default for Health {
    fn default() -> Self {
        Self::by(Box::new(Https::new()))
    }
}

impl Health {
    /// With another way to ask.
    pub fn by(probe: Box<dyn Probe>) -> Self {
        Self { probe, verdicts: Mutex::default() }
    }

    /// Whether a node is well: one of some attempts within a second succeeds.
    pub async fn is_well(&self, node: &Node) -> bool {
        let verdict = self.verdict(node.owner());
        let mut verdict = verdict.0.lock().await;
        if let Some((at, is_well)) = *verdict
            && at.elapsed() < HEALTH_AGE
        {
            return is_well;
        }
        let is_well = self.ask(node).await;
        *verdict = Some((Instant::now(), is_well));
        is_well
    }

    async fn ask(&self, node: &Node) -> bool {
        let mut attempts = JoinSet::new();
        for at in 0..HEALTH_ATTEMPTS {
            let attempt = self.probe.attempt(node.clone());
            attempts.spawn(async move {
                sleep(HEALTH_PAUSE * at).await;
                timeout(HEALTH_CALL, attempt).await.unwrap_or(false)
            });
        }
        while let Some(outcome) = attempts.join_next().await {
            if matches!(outcome, Ok(true)) {
                return true;
            }
        }
        false
    }

    fn verdict(&self, owner: Owner) -> Arc<Verdict> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() >= NODES {
            // Those that somebody waits for are kept.
            verdicts.retain(|_, verdict| Arc::strong_count(verdict) > 1);
        }
        Arc::clone(verdicts.entry(owner).or_default())
    }
}

/// Asks `/livez` by HTTP.
struct Https {
    tls: Option<TlsConnector>,
}

impl Https {
    fn new() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map(|config| {
            config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        });
        Self { tls: config.ok().map(|config| TlsConnector::from(Arc::new(config))) }
    }
}

impl Probe for Https {
    fn attempt(&self, node: Node) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let tls = self.tls.clone();
        Box::pin(async move { probe(&node, tls).await.unwrap_or(false) })
    }
}

async fn probe(node: &Node, tls: Option<TlsConnector>) -> io::Result<bool> {
    let stream = TcpStream::connect((node.host.as_str(), node.port)).await?;
    if !node.secure {
        return ask(stream, node).await;
    }
    let Some(tls) = tls else { return Err(io::ErrorKind::Unsupported.into()) };
    let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
    ask(tls.connect(name, stream).await?, node).await
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, node: &Node) -> io::Result<bool> {
    let request = format!(
        "GET /livez?incarnation={} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        node.incarnation,
        node.endpoint()
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(matches!(&status, b"HTTP/1.1 200" | b"HTTP/1.0 200"))
}

/// Takes any certificate: those of nodes are often self-signed, and nothing is told to whoever
/// answers. The signature is checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::super::table::tests::node;
    use super::*;

    struct Fake(Arc<AtomicU32>, u32);

    impl Probe for Fake {
        fn attempt(&self, _: Node) -> Pin<Box<dyn Future<Output = bool> + Send>> {
            let (count, succeeds) = (Arc::clone(&self.0), self.1);
            Box::pin(async move {
                let at = count.fetch_add(1, Ordering::Relaxed) + 1;
                if at < succeeds {
                    return false;
                }
                if succeeds == 0 { std::future::pending().await } else { true }
            })
        }
    }

    #[tokio::test]
    async fn three_attempts_within_a_second_decide_for_all_who_ask() {
        for (succeeds, expected) in [(1, true), (3, true), (4, false), (0, false)] {
            let count = Arc::new(AtomicU32::new(0));
            let health = Health::by(Box::new(Fake(Arc::clone(&count), succeeds)));
            let began = Instant::now();
            let a = node("a", "1");
            let both = tokio::join!(health.is_well(&a), health.is_well(&a));
            assert_eq!(both, (expected, expected), "{succeeds}");
            // One second on a quiet machine.
            assert!(began.elapsed() < Duration::from_secs(5));
            assert!(count.load(Ordering::Relaxed) <= 3);
        }
    }
}
