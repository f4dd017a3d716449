//! DTLS-SRTP (RFC 5764) with DTLS 1.2 (RFC 6347) and 1.3 (RFC 9147), on dimpl.

mod certificate;
mod fingerprint;
mod handshake;
mod offer;
mod records;

pub use certificate::{Certificate, CertificateError};
pub use fingerprint::{Fingerprint, FingerprintAlgorithm, FingerprintError};
pub use handshake::{Handshake, Output, Role};
