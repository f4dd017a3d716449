//! The parsers and builders against RFC vectors, against independent implementations, and on committed and mutated
//! inputs. One binary, so that it links once.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "prop_oneof! shares its choices by reference count")]

mod corpus;
mod rtcp;
mod rtp;
mod seeds;
mod sha1;
mod stun;

/// One to eight bytes overwritten, and the tail cut off or extended: near enough to a valid input to get past the
/// first check.
fn mutate(bytes: &mut Vec<u8>, changes: &[(u16, u8)], len: Option<u8>) {
    if let Some(len) = len {
        let len = if len < 128 {
            bytes.len().saturating_sub(len.into())
        } else {
            bytes.len() + usize::from(len - 128)
        };
        bytes.resize(len, 0);
    }
    for (at, value) in changes {
        if !bytes.is_empty() {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *value;
        }
    }
}

/// What [`mutate`] takes.
fn mutations() -> impl proptest::strategy::Strategy<Value = (Vec<(u16, u8)>, Option<u8>)> {
    use proptest::prelude::*;
    (prop::collection::vec(any::<(u16, u8)>(), 0..8), prop::option::of(any::<u8>()))
}
