//! SDP (RFC 8866) as WebRTC uses it (RFC 8829): offers are read leniently into types, answers are
//! written strictly from types. Syntax is `sdp-types`'; meaning is here.

pub mod answer;
pub mod codec;
pub mod extension;
pub mod fragment;
pub mod offer;

use crate::fault::Fault;
use crate::id;
pub use answer::{Answer, AnswerLine, Sending};
pub use codec::{Codec, Fec};
pub use extension::Extension;
pub use fragment::Fragment;
pub use offer::{DataChannels, Direction, Encoding, Media, MediaKind, Offer, Setup};

/// ICE credentials (RFC 8839 section 5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 256 characters.
    pub ufrag: String,
    /// 22 to 256 characters.
    pub pwd: String,
}

impl IceCredentials {
    /// Of our own making, which nobody can guess.
    ///
    /// # Errors
    /// As [`id::letters`].
    pub fn fresh() -> Result<Self, Fault> {
        let (ufrag, pwd) = (id::letters()?, id::letters()?);
        Self::new(ufrag.get(..8).unwrap_or_default(), &pwd)
            .ok_or_else(|| Fault::internal("credentials of our own making were refused"))
    }

    /// Takes credentials whose lengths and characters are as the RFC says.
    pub fn new(ufrag: &str, pwd: &str) -> Option<Self> {
        let fits = |text: &str, least: usize| {
            (least..=256).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        };
        (fits(ufrag, 4) && fits(pwd, 22)).then(|| Self { ufrag: ufrag.into(), pwd: pwd.into() })
    }
}

/// Fingerprint of a certificate (RFC 8122).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash function, lower case: `sha-256`.
    pub algorithm: String,
    /// The hash.
    pub value: Vec<u8>,
}

impl Fingerprint {
    /// Parses `sha-256 AB:CD:…`. Known hash functions of the right length only.
    pub fn parse(text: &str) -> Option<Self> {
        let (algorithm, value) = text.trim().split_once(' ')?;
        let algorithm = algorithm.to_ascii_lowercase();
        let length = match algorithm.as_str() {
            "sha-1" => 20,
            "sha-256" => 32,
            "sha-384" => 48,
            "sha-512" => 64,
            _ => return None,
        };
        let pair =
            |text: &str| (text.len() == 2).then(|| u8::from_str_radix(text, 16).ok()).flatten();
        let value: Vec<u8> = value.trim().split(':').map(pair).collect::<Option<_>>()?;
        (value.len() == length).then_some(Self { algorithm, value })
    }
}
