//! STUN messages as ICE uses them (RFC 8489, RFC 8445), without any cryptography.
//!
//! A message authentication code is the caller's: [`Message::check_integrity`] and [`Builder::integrity`] hand the
//! pieces of their input to a closure that returns the HMAC-SHA1.

mod build;
mod crc;

pub use build::Builder;

use crate::bytes::{array, u16_at, u32_at, u64_at};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes 4 to 7 of every message.
pub const MAGIC_COOKIE: [u8; 4] = 0x2112_a442u32.to_be_bytes();
/// Bytes of the header.
pub const HEADER_LEN: usize = 20;
/// The method of a connectivity check.
pub const BINDING: u16 = 1;

/// Attribute types.
pub mod attribute {
    /// MAPPED-ADDRESS.
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    /// USERNAME.
    pub const USERNAME: u16 = 0x0006;
    /// MESSAGE-INTEGRITY.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// ERROR-CODE.
    pub const ERROR_CODE: u16 = 0x0009;
    /// UNKNOWN-ATTRIBUTES.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// XOR-MAPPED-ADDRESS.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// PRIORITY (RFC 8445 section 7.1.1).
    pub const PRIORITY: u16 = 0x0024;
    /// USE-CANDIDATE (RFC 8445 section 7.1.2).
    pub const USE_CANDIDATE: u16 = 0x0025;
    /// SOFTWARE.
    pub const SOFTWARE: u16 = 0x8022;
    /// FINGERPRINT.
    pub const FINGERPRINT: u16 = 0x8028;
    /// ICE-CONTROLLED (RFC 8445 section 7.1.3).
    pub const ICE_CONTROLLED: u16 = 0x8029;
    /// ICE-CONTROLLING (RFC 8445 section 7.1.3).
    pub const ICE_CONTROLLING: u16 = 0x802a;
}

/// Identifies a request and its response.
pub type TransactionId = [u8; 12];

/// What a message is to its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

/// Why bytes are not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// Less than a header.
    TooShort,
    /// The first two bits are not zero or the magic cookie is missing.
    NotStun,
    /// The length is not that of the datagram, or no multiple of four.
    Length,
    /// An attribute goes past the end.
    Attribute,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooShort => "shorter than a STUN header",
            Self::NotStun => "not a STUN message",
            Self::Length => "STUN length is not that of the datagram",
            Self::Attribute => "STUN attribute goes past the end of the message",
        })
    }
}

impl std::error::Error for Error {}

/// What [`Message::check_integrity`] found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegrityError {
    /// There is no MESSAGE-INTEGRITY of 20 bytes.
    Missing,
    /// It is not that of the message under the key.
    Wrong,
}

/// A STUN message that fills a datagram.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: u16,
    transaction_id: TransactionId,
    /// Where the attributes end that can be believed: before the first MESSAGE-INTEGRITY.
    integrity_at: Option<usize>,
    fingerprint_at: Option<usize>,
}

impl<'a> Message<'a> {
    /// Reads a message and checks that its attributes lie within it. Neither integrity nor fingerprint is checked.
    ///
    /// # Errors
    /// When it is not a STUN message, or not one that fills `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = array::<HEADER_LEN>(bytes, 0).ok_or(Error::TooShort)?;
        let [a, b, len_a, len_b, c, d, e, f, transaction_id @ ..] = header;
        let kind = u16::from_be_bytes([a, b]);
        if kind >> 14 != 0 || [c, d, e, f] != MAGIC_COOKIE {
            return Err(Error::NotStun);
        }
        let len = usize::from(u16::from_be_bytes([len_a, len_b]));
        if len % 4 != 0 || bytes.len() != HEADER_LEN + len {
            return Err(Error::Length);
        }
        let (mut integrity_at, mut fingerprint_at) = (None, None);
        let mut walk = Walk { bytes, at: HEADER_LEN };
        while walk.at < bytes.len() {
            let at = walk.at;
            let attribute = walk.next().ok_or(Error::Attribute)?;
            match attribute.kind {
                attribute::MESSAGE_INTEGRITY if integrity_at.is_none() => integrity_at = Some(at),
                attribute::FINGERPRINT if fingerprint_at.is_none() => fingerprint_at = Some(at),
                _ => {}
            }
        }
        let class = match kind & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        };
        let method = kind & 0x000f | kind >> 1 & 0x0070 | kind >> 2 & 0x0f80;
        Ok(Self { bytes, class, method, transaction_id, integrity_at, fingerprint_at })
    }

    /// Request, indication or response.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The method, 12 bits; [`BINDING`] for ICE.
    #[must_use]
    pub const fn method(&self) -> u16 {
        self.method
    }

    /// Whether it is a binding request.
    #[must_use]
    pub fn is_binding_request(&self) -> bool {
        self.method == BINDING && self.class == Class::Request
    }

    /// The transaction.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// The attributes up to MESSAGE-INTEGRITY; those behind it are not authenticated and to be ignored (RFC 8489
    /// section 14.5).
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        let end = self.integrity_at.or(self.fingerprint_at).unwrap_or(self.bytes.len());
        Attributes(Walk { bytes: self.bytes.get(..end).unwrap_or_default(), at: HEADER_LEN })
    }

    /// The first attribute of a type among [`Message::attributes`].
    #[must_use]
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// USERNAME.
    #[must_use]
    pub fn username(&self) -> Option<&'a [u8]> {
        self.attribute(attribute::USERNAME)
    }

    /// USERNAME of a connectivity check: the ufrag of the receiver, then that of the sender (RFC 8445 section 7.2.2).
    #[must_use]
    pub fn username_parts(&self) -> Option<(&'a [u8], &'a [u8])> {
        let username = self.username()?;
        let colon = username.iter().position(|byte| *byte == b':')?;
        Some((username.get(..colon)?, username.get(colon + 1..)?))
    }

    /// PRIORITY.
    #[must_use]
    pub fn priority(&self) -> Option<u32> {
        u32_at(self.attribute(attribute::PRIORITY)?, 0)
    }

    /// Whether USE-CANDIDATE is there: the sender nominates this pair.
    #[must_use]
    pub fn use_candidate(&self) -> bool {
        self.attribute(attribute::USE_CANDIDATE).is_some()
    }

    /// The tie-breaker of ICE-CONTROLLING.
    #[must_use]
    pub fn ice_controlling(&self) -> Option<u64> {
        u64_at(self.attribute(attribute::ICE_CONTROLLING)?, 0)
    }

    /// The tie-breaker of ICE-CONTROLLED.
    #[must_use]
    pub fn ice_controlled(&self) -> Option<u64> {
        u64_at(self.attribute(attribute::ICE_CONTROLLED)?, 0)
    }

    /// ERROR-CODE: the code (300 to 699) and the reason phrase.
    #[must_use]
    pub fn error_code(&self) -> Option<(u16, &'a [u8])> {
        let value = self.attribute(attribute::ERROR_CODE)?;
        let [_, _, class, number] = array::<4>(value, 0)?;
        let class = u16::from(class & 7);
        ((3..=6).contains(&class) && number < 100)
            .then_some((class * 100 + u16::from(number), value.get(4..)?))
    }

    /// XOR-MAPPED-ADDRESS: the sender's address as the other side saw it.
    #[must_use]
    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.xor_address(self.attribute(attribute::XOR_MAPPED_ADDRESS)?)
    }

    /// The address in the value of an attribute that is written like XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn xor_address(&self, value: &[u8]) -> Option<SocketAddr> {
        let [m0, m1, ..] = MAGIC_COOKIE;
        let port = u16_at(value, 2)? ^ u16::from_be_bytes([m0, m1]);
        let ip = match (value.get(1)?, value.len()) {
            (1, 8) => {
                IpAddr::from((u32_at(value, 4)? ^ u32::from_be_bytes(MAGIC_COOKIE)).to_be_bytes())
            }
            (2, 20) => {
                let mask = Ipv6Addr::from(address_mask(self.transaction_id)).to_bits();
                IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(array(value, 4)?) ^ mask))
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The first attribute that must be understood (type below 0x8000) and is not one of this module's (RFC 8489
    /// section 6.3.1: such a request is answered with error 420).
    #[must_use]
    pub fn unknown_required(&self) -> Option<u16> {
        use attribute::*;
        self.attributes().map(|attribute| attribute.kind).find(|kind| {
            *kind < 0x8000
                && !matches!(
                    *kind,
                    MAPPED_ADDRESS
                        | USERNAME
                        | MESSAGE_INTEGRITY
                        | ERROR_CODE
                        | UNKNOWN_ATTRIBUTES
                        | XOR_MAPPED_ADDRESS
                        | PRIORITY
                        | USE_CANDIDATE
                )
        })
    }

    /// Checks MESSAGE-INTEGRITY against the HMAC-SHA1 that `mac` computes over the concatenation of the pieces, in
    /// time that does not depend on how much of it fits.
    ///
    /// # Errors
    /// When it is missing or wrong.
    pub fn check_integrity(
        &self,
        mac: impl FnOnce(&[&[u8]]) -> [u8; 20],
    ) -> Result<(), IntegrityError> {
        let found = self.integrity().ok_or(IntegrityError::Missing)?;
        let (at, found) = found;
        let before = self.bytes.get(..at).ok_or(IntegrityError::Missing)?;
        let [kind @ .., _, _] = array::<4>(before, 0).ok_or(IntegrityError::Missing)?;
        // The length counts up to and with MESSAGE-INTEGRITY (RFC 8489 section 14.5), whatever follows it.
        let len = (at - HEADER_LEN + 24) as u16;
        let want = mac(&[&kind, &len.to_be_bytes(), before.get(4..).unwrap_or_default()]);
        let difference = found.iter().zip(want).fold(0, |sum, (a, b)| sum | (a ^ b));
        if difference == 0 { Ok(()) } else { Err(IntegrityError::Wrong) }
    }

    /// Whether FINGERPRINT is there, is the last attribute and fits.
    #[must_use]
    pub fn is_fingerprint_valid(&self) -> bool {
        let Some(at) = self.fingerprint_at.filter(|at| at + 8 == self.bytes.len()) else {
            return false;
        };
        let found = u32_at(self.bytes, at + 4);
        self.bytes.get(..at).map(crc::fingerprint) == found
    }

    fn integrity(&self) -> Option<(usize, [u8; 20])> {
        let at = self.integrity_at?;
        if u16_at(self.bytes, at + 2)? != 20 {
            return None;
        }
        Some((at, array(self.bytes, at + 4)?))
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("class", &self.class)
            .field("method", &self.method)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type; see [`attribute`].
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
}

/// See [`Message::attributes`].
#[derive(Clone, Debug)]
pub struct Attributes<'a>(Walk<'a>);

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;
    fn next(&mut self) -> Option<Attribute<'a>> {
        self.0.next()
    }
}

#[derive(Clone, Debug)]
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Option<Attribute<'a>> {
        let kind = u16_at(self.bytes, self.at)?;
        let len = usize::from(u16_at(self.bytes, self.at + 2)?);
        let value = self.bytes.get(self.at + 4..)?.get(..len)?;
        self.at += 4 + len.next_multiple_of(4);
        Some(Attribute { kind, value })
    }
}

/// What an IPv6 address is xored with (RFC 8489 section 14.2).
fn address_mask(transaction_id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    let (cookie, transaction) = mask.split_at_mut(4);
    cookie.copy_from_slice(&MAGIC_COOKIE);
    transaction.copy_from_slice(&transaction_id);
    mask
}
