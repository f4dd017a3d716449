//! `strait.link.v1`: the management link between native clients and a node.
//!
//! The messages are in `proto/strait/link/v1/link.proto`; here is how they are cut into frames, without a socket:
//! [`encode`] makes one, [`Frames`] takes bytes as they come and gives messages.
#![forbid(unsafe_code)]

mod frame;
pub mod fuzz;

pub use frame::{FrameError, Frames, LENGTH_BYTES, encode};

/// What TLS names the link (RFC 7301).
pub const ALPN: &[u8] = b"strait-link/1";
/// What TLS names a connection of framed media (RFC 4571) beside a link.
pub const MEDIA_ALPN: &[u8] = b"strait-media/1";
/// The version of the protocol that is written here.
pub const VERSION: u32 = 1;
/// The largest message before [`v1::Auth`] was answered.
pub const STRANGER_BYTES: usize = 16 << 10;
/// The largest message after it.
pub const MESSAGE_BYTES: usize = 256 << 10;

/// How long packets under the session key before are taken after a new one.
pub const KEY_OVERLAP: std::time::Duration = std::time::Duration::from_secs(5);

/// Version 1 of the protocol, generated from `strait/link/v1/link.proto`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::disallowed_types)]
    include!(concat!(env!("OUT_DIR"), "/strait.link.v1.rs"));

    use std::fmt;

    impl fmt::Debug for SessionKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("SessionKey").field("profile", &self.profile).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for SignedCredential {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("SignedCredential")
                .field("application_id", &self.application_id)
                .field("user_id", &self.user_id)
                .finish_non_exhaustive()
        }
    }

    impl fmt::Debug for IceCredentials {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for Auth {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Auth")
                .field("credential", &self.credential)
                .field("scope_id", &self.scope_id)
                .field("client", &self.client)
                .finish_non_exhaustive()
        }
    }

    impl fmt::Debug for Authenticated {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Authenticated")
                .field("peer_id", &self.peer_id)
                .field("resumed", &self.resumed)
                .field("endpoints", &self.endpoints)
                .field("peers", &self.peers)
                .finish_non_exhaustive()
        }
    }

    impl fmt::Debug for auth::Credential {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Token(_) => f.write_str("Token(..)"),
                Self::Signed(signed) => signed.fmt(f),
            }
        }
    }
}
