//! One packet about to be protected or opened, by contexts that are warm.

use strait_crypt::srtp::{Inbound, Outbound, Profile, TAG_MAX};

/// Bytes of the fixed header of RTP (RFC 3550 section 5.1).
const HEADER: usize = 12;

/// A packet with the two ends that share its key.
pub struct Sealed {
    outbound: Outbound,
    inbound: Inbound,
    payload: Vec<u8>,
    buffer: Vec<u8>,
    len: usize,
    seq: u16,
}

impl Sealed {
    /// Ends that have seen some packets of `packet` bytes, header included.
    #[must_use]
    pub fn new(profile: Profile, packet: usize) -> Self {
        let (key, salt) = (vec![1; profile.key_len()], vec![2; profile.salt_len()]);
        let (outbound, inbound) =
            (Outbound::new(profile, &key, &salt), Inbound::new(profile, &key, &salt));
        let mut sealed = Self {
            outbound: outbound.expect("lengths are the profile's"),
            inbound: inbound.expect("lengths are the profile's"),
            payload: vec![0x55; packet - HEADER],
            buffer: vec![0; packet + TAG_MAX],
            len: 0,
            seq: 0,
        };
        for _ in 0..10 {
            sealed.next();
            sealed.protect();
            sealed.unprotect();
        }
        sealed
    }

    /// Writes the header of the next packet.
    pub fn next(&mut self) {
        self.seq = self.seq.wrapping_add(1);
        let [high, low] = self.seq.to_be_bytes();
        self.buffer[..HEADER].copy_from_slice(&[0x80, 96, high, low, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    /// Protects the payload into the packet, as the path does.
    pub fn protect(&mut self) {
        let Self { outbound, payload, buffer, .. } = self;
        self.len = outbound.protect_rtp_into(buffer, HEADER, payload).expect("a new packet");
    }

    /// Opens the packet.
    pub fn unprotect(&mut self) {
        let sealed = &mut self.buffer[..self.len];
        self.inbound.unprotect_rtp(sealed).expect("an authentic packet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_protected_opens() {
        for profile in Profile::ALL {
            let mut sealed = Sealed::new(profile, 100);
            sealed.next();
            sealed.protect();
            assert_eq!(sealed.len, 100 + profile.rtp_overhead());
            sealed.unprotect();
            assert_eq!(sealed.buffer[HEADER..100], sealed.payload);
        }
    }
}
