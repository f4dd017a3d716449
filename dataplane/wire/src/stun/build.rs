//! Writing STUN messages.

use super::{
    BINDING, Class, HEADER_LEN, MAGIC_COOKIE, TransactionId, address_mask, attribute, crc,
};
use crate::Full;
use crate::bytes::Cursor;
use std::net::{IpAddr, SocketAddr};

/// Writes one message into a buffer, attribute by attribute. When something does not fit, [`Builder::finish`] says so.
///
/// MESSAGE-INTEGRITY covers what stands before it, and FINGERPRINT everything, so they come last, in this order.
pub struct Builder<'a> {
    out: Cursor<'a>,
    transaction_id: TransactionId,
    result: Result<(), Full>,
}

impl<'a> Builder<'a> {
    /// Begins a message of any class and method (its low 12 bits count).
    #[must_use]
    pub fn new(
        out: &'a mut [u8],
        class: Class,
        method: u16,
        transaction_id: TransactionId,
    ) -> Self {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let kind: u16 = class | method & 0x000f | (method & 0x0070) << 1 | (method & 0x0f80) << 2;
        let mut out = Cursor::new(out);
        let result = out
            .push(&kind.to_be_bytes())
            .and_then(|()| out.push(&[0, 0]))
            .and_then(|()| out.push(&MAGIC_COOKIE))
            .and_then(|()| out.push(&transaction_id));
        Self { out, transaction_id, result }
    }

    /// Begins a connectivity check.
    #[must_use]
    pub fn binding_request(out: &'a mut [u8], transaction_id: TransactionId) -> Self {
        Self::new(out, Class::Request, BINDING, transaction_id)
    }

    /// Begins the answer to a connectivity check, with the address that it came from.
    #[must_use]
    pub fn binding_success(
        out: &'a mut [u8],
        transaction_id: TransactionId,
        from: SocketAddr,
    ) -> Self {
        Self::new(out, Class::Success, BINDING, transaction_id).xor_mapped_address(from)
    }

    /// Begins the refusal of a connectivity check.
    #[must_use]
    pub fn binding_error(
        out: &'a mut [u8],
        transaction_id: TransactionId,
        code: u16,
        reason: &str,
    ) -> Self {
        Self::new(out, Class::Error, BINDING, transaction_id).error_code(code, reason)
    }

    /// Adds any attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.result = self.result.and_then(|()| {
            let len = u16::try_from(value.len()).map_err(|_| Full)?;
            self.out.push(&kind.to_be_bytes())?;
            self.out.push(&len.to_be_bytes())?;
            self.out.push(value)?;
            self.out.align()?;
            self.write_len(0)
        });
        self
    }

    /// Adds XOR-MAPPED-ADDRESS. An IPv4 address in IPv6 clothes is written as IPv4, as the other side knows it.
    #[must_use]
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        self.xor_address(attribute::XOR_MAPPED_ADDRESS, address)
    }

    /// Adds an attribute that is written like XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn xor_address(self, kind: u16, address: SocketAddr) -> Self {
        let [m0, m1, ..] = MAGIC_COOKIE;
        let [p0, p1] = address.port().to_be_bytes();
        let mask = address_mask(self.transaction_id);
        let mut value = [0; 20];
        let (family, len) = match address.ip().to_canonical() {
            IpAddr::V4(ip) => (1, xor_into(&mut value, &ip.octets(), &mask)),
            IpAddr::V6(ip) => (2, xor_into(&mut value, &ip.octets(), &mask)),
        };
        let [_, family_at, port0, port1, ..] = &mut value;
        (*family_at, *port0, *port1) = (family, p0 ^ m0, p1 ^ m1);
        self.attribute(kind, value.get(..len).unwrap_or_default())
    }

    /// Adds USERNAME: the receiver's ufrag, then the sender's.
    #[must_use]
    pub fn username(mut self, receiver: &[u8], sender: &[u8]) -> Self {
        self.result = self.result.and_then(|()| {
            let len = u16::try_from(receiver.len() + 1 + sender.len()).map_err(|_| Full)?;
            self.out.push(&attribute::USERNAME.to_be_bytes())?;
            self.out.push(&len.to_be_bytes())?;
            self.out.push(receiver)?;
            self.out.push(b":")?;
            self.out.push(sender)?;
            self.out.align()?;
            self.write_len(0)
        });
        self
    }

    /// Adds PRIORITY.
    #[must_use]
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(attribute::PRIORITY, &priority.to_be_bytes())
    }

    /// Adds USE-CANDIDATE.
    #[must_use]
    pub fn use_candidate(self) -> Self {
        self.attribute(attribute::USE_CANDIDATE, &[])
    }

    /// Adds ICE-CONTROLLING with its tie-breaker.
    #[must_use]
    pub fn ice_controlling(self, tie_breaker: u64) -> Self {
        self.attribute(attribute::ICE_CONTROLLING, &tie_breaker.to_be_bytes())
    }

    /// Adds ICE-CONTROLLED with its tie-breaker.
    #[must_use]
    pub fn ice_controlled(self, tie_breaker: u64) -> Self {
        self.attribute(attribute::ICE_CONTROLLED, &tie_breaker.to_be_bytes())
    }

    /// Adds ERROR-CODE: a code of 300 to 699, and at most 128 bytes of reason.
    #[must_use]
    pub fn error_code(mut self, code: u16, reason: &str) -> Self {
        let reason = reason.as_bytes();
        let reason = reason.get(..128).unwrap_or(reason);
        self.result = self.result.and_then(|()| {
            self.out.push(&attribute::ERROR_CODE.to_be_bytes())?;
            self.out.push(&(4 + reason.len() as u16).to_be_bytes())?;
            self.out.push(&[0, 0, ((code / 100) & 7) as u8, (code % 100) as u8])?;
            self.out.push(reason)?;
            self.out.align()?;
            self.write_len(0)
        });
        self
    }

    /// Adds MESSAGE-INTEGRITY with the HMAC-SHA1 that `mac` computes over the concatenation of the pieces.
    #[must_use]
    pub fn integrity(mut self, mac: impl FnOnce(&[&[u8]]) -> [u8; 20]) -> Self {
        // The length counts the attribute itself before the code is computed (RFC 8489 section 14.5).
        self.result = self.result.and_then(|()| self.write_len(24));
        if self.result.is_err() {
            return self;
        }
        let value = mac(&[self.out.written()]);
        self.attribute(attribute::MESSAGE_INTEGRITY, &value)
    }

    /// Adds FINGERPRINT.
    #[must_use]
    pub fn fingerprint(mut self) -> Self {
        self.result = self.result.and_then(|()| self.write_len(8));
        if self.result.is_err() {
            return self;
        }
        let value = crc::fingerprint(self.out.written());
        self.attribute(attribute::FINGERPRINT, &value.to_be_bytes())
    }

    /// The length of the message in bytes.
    ///
    /// # Errors
    /// When the buffer was too small for any part of it.
    pub fn finish(self) -> Result<usize, Full> {
        self.result.map(|()| self.out.len())
    }

    fn write_len(&mut self, more: usize) -> Result<(), Full> {
        let len = u16::try_from(self.out.len() - HEADER_LEN + more).map_err(|_| Full)?;
        self.out.patch(2, &len.to_be_bytes())
    }
}

fn xor_into(value: &mut [u8; 20], octets: &[u8], mask: &[u8; 16]) -> usize {
    for ((to, octet), mask) in value.iter_mut().skip(4).zip(octets).zip(mask) {
        *to = octet ^ mask;
    }
    4 + octets.len()
}
