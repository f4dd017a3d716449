//! `strait.relay.v1`: the RPC between the data plane and any control plane.
//! The words are in `strait/relay/v1/relay.proto`, message by message.
#![forbid(unsafe_code)]

pub mod handover;
pub mod notify;
pub mod pace;
mod version;

pub use version::version;

/// Version 1 of the protocol, generated from `strait/relay/v1/relay.proto`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::disallowed_types)]
    tonic::include_proto!("strait.relay.v1");

    use std::fmt;

    impl fmt::Debug for SessionKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("SessionKey").field("profile", &self.profile).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for IceCredentials {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::v1::{AddPeerRequest, IceCredentials, SessionKey};

    #[test]
    fn keys_and_passwords_are_not_shown() {
        let request = AddPeerRequest {
            peer_id: "ann".into(),
            remote_ice: Some(IceCredentials { ufrag: "frag".into(), pwd: "hush".into() }),
            session_key: Some(SessionKey { profile: 7, key: vec![201; 16], salt: vec![202; 12] }),
            ..AddPeerRequest::default()
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("ann") && shown.contains("frag"), "{shown}");
        for secret in ["hush", "201", "202"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
