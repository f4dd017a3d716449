//! Why a credential is refused, and how often.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault::{Class, Fault};

macro_rules! names {
    ($(#[$outer:meta])* $type:ident { $($(#[$inner:meta])* $variant:ident $name:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$inner])* $variant,)* }

        impl $type {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As metrics and programs know it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

names!(
    /// Why a credential is refused. `docs/authentication.md` tells of each what to do.
    Reason {
        /// There is none.
        Missing "missing",
        /// It cannot be read.
        Malformed "malformed",
        /// Its application is not in the store.
        UnknownApplication "unknown_application",
        /// Its application has not switched on its scheme, or has no key for its algorithm.
        SchemeNotEnabled "scheme_not_enabled",
        /// No enabled key of the application made this signature.
        BadSignature "bad_signature",
        /// Its time is over.
        Expired "expired",
        /// It is not valid yet, or ends too far ahead: one of the clocks is wrong.
        ClockSkewed "clock_skewed",
        /// Its salt was used.
        Replayed "replayed",
        /// No more salts can be remembered.
        SaltsFull "salts_full",
        /// It is for another scope.
        WrongScope "wrong_scope",
        /// It does not allow what was asked for.
        NotGranted "not_granted",
        /// The store failed.
        StoreFailed "store_failed",
    }
);

names!(
    /// How a credential was made.
    Kind {
        /// A development token.
        Development "development",
        /// A JSON Web Token, HMAC-SHA-256.
        Hs256 "jwt_hs256",
        /// A JSON Web Token, ECDSA on P-256.
        Es256 "jwt_es256",
        /// Signed fields, HMAC-SHA-256.
        HmacSha256 "signed_hmac_sha256",
        /// Signed fields, SHA-256 over all of them in a row.
        Concatenated "signed_concatenated",
    }
);

/// A refused credential: why, and a sentence with likely cause and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub text: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::new(Reason::Malformed, text)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let class = match refusal.reason {
            Reason::WrongScope | Reason::NotGranted => Class::Forbidden,
            Reason::SaltsFull => Class::TooMany,
            Reason::StoreFailed => Class::Unavailable,
            _ => Class::Unauthorized,
        };
        // Room for salts is where others expire.
        let passes = matches!(refusal.reason, Reason::SaltsFull | Reason::StoreFailed);
        Self { credential: Some(refusal.reason), passes, ..Self::new(class, refusal.text) }
    }
}

/// How many credentials were taken, by kind, and refused, by reason.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: [AtomicU64; Kind::ALL.len()],
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    pub(super) fn accept(&self, kind: Kind) {
        if let Some(count) = self.accepted.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn refuse(&self, reason: Reason) {
        if let Some(count) = self.refused.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Credentials taken, by kind.
    pub fn accepted(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.iter().copied().zip(self.accepted.iter().map(|n| n.load(Ordering::Relaxed)))
    }

    /// Credentials refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.refused.iter().map(|n| n.load(Ordering::Relaxed)))
    }
}
