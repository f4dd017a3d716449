//! One direction's keys for RTP or for RTCP, and what is done with them to one packet.

use super::kdf::{Kdf, Label, apply_counter_mode, counter_mode};
use super::{Error, Profile, wipe};
use crate::integrity::hmac_parts;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{cipher::EncryptingKey, constant_time, hmac};
use std::sync::Arc;

/// Marks an SRTCP packet as encrypted (RFC 3711 section 3.4).
pub(crate) const E_FLAG: u32 = 1 << 31;
/// Bytes of an RTCP packet that stay in the clear.
pub(crate) const RTCP_CLEAR: usize = 8;

/// Bytes of the context that aws-lc-rs keeps on the heap for an AES-GCM key (its `EVP_AEAD_CTX`).
const GCM_HEAP_BYTES: usize = 592;

/// Session keys with their schedules done. The large one is boxed, so that the other does not pay for it.
pub(crate) enum Cipher {
    Gcm(Gcm),
    Cm(Box<Cm>),
}

/// The ciphers of a master key and salt. Contexts of one session key share them: a scope with a thousand peers has their
/// schedules once, and a new key is handed to all of them by reference.
pub(crate) struct Ciphers {
    pub(crate) profile: Profile,
    pub(crate) rtp: Cipher,
    pub(crate) rtcp: Cipher,
}

impl Ciphers {
    pub(crate) fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Arc<Self>, Error> {
        let kdf = Kdf::new(profile, key, salt)?;
        let (rtp, rtcp) = (Cipher::rtp(profile, &kdf)?, Cipher::rtcp(profile, &kdf)?);
        Ok(Arc::new(Self { profile, rtp, rtcp }))
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.rtp.heap_bytes() + self.rtcp.heap_bytes()
    }
}

pub(crate) struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

pub(crate) struct Cm {
    key: EncryptingKey,
    salt: [u8; 14],
    auth: hmac::Key,
    tag_len: usize,
}

impl Cipher {
    /// The keys for RTP.
    pub(crate) fn rtp(profile: Profile, kdf: &Kdf) -> Result<Self, Error> {
        let labels = (Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt);
        Self::new(profile, kdf, labels, profile.rtp_overhead())
    }

    /// The keys for RTCP.
    pub(crate) fn rtcp(profile: Profile, kdf: &Kdf) -> Result<Self, Error> {
        let labels = (Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt);
        Self::new(profile, kdf, labels, profile.rtcp_overhead() - 4)
    }

    fn new(
        profile: Profile,
        kdf: &Kdf,
        (encryption, authentication, salt): (Label, Label, Label),
        tag_len: usize,
    ) -> Result<Self, Error> {
        let gcm = |key: Result<UnboundKey, _>, salt: [u8; 12]| {
            let key = LessSafeKey::new(key.map_err(|_: aws_lc_rs::error::Unspecified| Error::Key)?);
            Ok(Self::Gcm(Gcm { key, salt }))
        };
        match profile {
            Profile::AeadAes128Gcm => gcm(
                UnboundKey::new(&AES_128_GCM, &kdf.derive::<16>(encryption)?.0),
                kdf.derive(salt)?.0,
            ),
            Profile::AeadAes256Gcm => gcm(
                UnboundKey::new(&AES_256_GCM, &kdf.derive::<32>(encryption)?.0),
                kdf.derive(salt)?.0,
            ),
            Profile::AesCm128HmacSha1_80 | Profile::AesCm128HmacSha1_32 => {
                let auth = kdf.derive::<20>(authentication)?;
                Ok(Self::Cm(Box::new(Cm {
                    key: counter_mode(&kdf.derive::<16>(encryption)?.0)?,
                    salt: kdf.derive(salt)?.0,
                    auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth.0),
                    tag_len,
                })))
            }
        }
    }

    /// From session keys: RFC 7714's vectors.
    #[cfg(test)]
    pub(crate) fn gcm_session(key: &[u8], salt: [u8; 12]) -> Result<Self, Error> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Error::Key)?;
        Ok(Self::Gcm(Gcm { key: LessSafeKey::new(key), salt }))
    }

    /// Bytes of the tag.
    pub(crate) fn tag_len(&self) -> usize {
        match self {
            Self::Gcm(_) => 16,
            Self::Cm(cm) => cm.tag_len,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Gcm(_) => GCM_HEAP_BYTES,
            Self::Cm(_) => size_of::<Cm>(),
        }
    }

    /// Encrypts `payload` in place and writes the tag, both behind `header`.
    pub(crate) fn seal_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Error> {
        match self {
            Self::Gcm(gcm) => gcm
                .key
                .seal_in_place_scatter(gcm.nonce(ssrc, index), Aad::from(header), payload, &[], tag)
                .map_err(|_| Error::NoRoom),
            Self::Cm(cm) => {
                apply_counter_mode(&cm.key, cm.iv(ssrc, index), payload)?;
                cm.sign(&[header, payload, &rollover(index)], tag);
                Ok(())
            }
        }
    }

    /// Encrypts `plaintext` into `payload`, which is as long, and writes the tag.
    pub(crate) fn seal_rtp_from(
        &self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        plaintext: &[u8],
        payload: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Error> {
        if plaintext.len() != payload.len() {
            return Err(Error::NoRoom);
        }
        match self {
            Self::Gcm(gcm) => gcm
                .key
                .seal_out_of_place_scatter(
                    gcm.nonce(ssrc, index),
                    Aad::from(header),
                    plaintext,
                    payload,
                    &[],
                    tag,
                )
                .map_err(|_| Error::NoRoom),
            Self::Cm(_) => {
                payload.copy_from_slice(plaintext);
                self.seal_rtp(ssrc, index, header, payload, tag)
            }
        }
    }

    /// Checks the tag and decrypts `payload` in place.
    pub(crate) fn open_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Error> {
        match self {
            Self::Gcm(gcm) => gcm.open(ssrc, index, header, payload, tag),
            Self::Cm(cm) => {
                cm.verify(&[header, payload, &rollover(index)], tag)?;
                apply_counter_mode(&cm.key, cm.iv(ssrc, index), payload)
            }
        }
    }

    /// Encrypts the RTCP packet in the first `len` bytes of `buffer` and writes tag and index behind it (RFC 3711
    /// section 3.4, RFC 7714 section 9.1). The new length.
    pub(crate) fn seal_rtcp(
        &self,
        ssrc: u32,
        index: u32,
        buffer: &mut [u8],
        len: usize,
    ) -> Result<usize, Error> {
        let word = (index | E_FLAG).to_be_bytes();
        let total = len.checked_add(self.tag_len() + 4).ok_or(Error::NoRoom)?;
        let (packet, trailer) = buffer
            .get_mut(..total)
            .and_then(|packet| packet.split_at_mut_checked(len))
            .ok_or(Error::NoRoom)?;
        let (header, body) = packet.split_at_mut_checked(RTCP_CLEAR).ok_or(Error::Malformed)?;
        match self {
            Self::Gcm(gcm) => {
                let (tag, end) = trailer.split_at_mut_checked(16).ok_or(Error::NoRoom)?;
                end.copy_from_slice(&word);
                gcm.key
                    .seal_in_place_scatter(
                        gcm.nonce(ssrc, index.into()),
                        Aad::from(rtcp_aad(header, word)?),
                        body,
                        &[],
                        tag,
                    )
                    .map_err(|_| Error::NoRoom)?;
            }
            Self::Cm(cm) => {
                let (end, tag) = trailer.split_at_mut_checked(4).ok_or(Error::NoRoom)?;
                end.copy_from_slice(&word);
                apply_counter_mode(&cm.key, cm.iv(ssrc, index.into()), body)?;
                cm.sign(&[header, body, &word], tag);
            }
        }
        Ok(total)
    }

    /// The word with E flag and index of an SRTCP packet.
    pub(crate) fn rtcp_word(&self, packet: &[u8]) -> Option<u32> {
        let behind = match self {
            Self::Gcm(_) => 0,
            Self::Cm(cm) => cm.tag_len,
        };
        let end = packet.len().checked_sub(behind)?;
        packet.get(..end)?.last_chunk().map(|word| u32::from_be_bytes(*word))
    }

    /// Checks and decrypts an SRTCP packet in place. `word` is its [`Cipher::rtcp_word`]. The length without tag and
    /// index. A packet that the sender left unencrypted (E flag 0) is authenticated all the same.
    pub(crate) fn open_rtcp(
        &self,
        ssrc: u32,
        word: u32,
        packet: &mut [u8],
    ) -> Result<usize, Error> {
        let len = packet.len().checked_sub(self.tag_len() + 4).ok_or(Error::Malformed)?;
        let index = u64::from(word & !E_FLAG);
        let encrypted = word & E_FLAG != 0;
        let word = word.to_be_bytes();
        let (packet, trailer) = packet.split_at_mut_checked(len).ok_or(Error::Malformed)?;
        match self {
            Self::Gcm(gcm) => {
                let tag = trailer.get(..16).ok_or(Error::Malformed)?;
                if encrypted {
                    let (header, body) =
                        packet.split_at_mut_checked(RTCP_CLEAR).ok_or(Error::Malformed)?;
                    gcm.open(ssrc, index, &rtcp_aad(header, word)?, body, tag)?;
                } else {
                    gcm.verify_rtcp(ssrc, index, packet, word, tag)?;
                }
            }
            Self::Cm(cm) => {
                let tag = trailer.get(4..).ok_or(Error::Malformed)?;
                cm.verify(&[packet, &word], tag)?;
                let body = packet.get_mut(RTCP_CLEAR..).ok_or(Error::Malformed)?;
                if encrypted {
                    apply_counter_mode(&cm.key, cm.iv(ssrc, index), body)?;
                }
            }
        }
        Ok(len)
    }
}

impl Gcm {
    /// RFC 7714 sections 8.1 and 9.1: 16 zero bits, SSRC, 48-bit index, all XOR salt.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let [.., i2, i3, i4, i5, i6, i7] = index.to_be_bytes();
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        let mut nonce = [0, 0, s0, s1, s2, s3, i2, i3, i4, i5, i6, i7];
        for (byte, salt) in nonce.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn open(
        &self,
        ssrc: u32,
        index: u64,
        aad: &[u8],
        payload: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Error> {
        self.key
            .open_in_place_separate_tag(self.nonce(ssrc, index), Aad::from(aad), tag, payload)
            .map(drop)
            .map_err(|_| Error::Unauthentic)
    }

    /// RFC 7714 section 9.2: of an unencrypted packet everything is associated data. No sender of ours makes them
    /// and few others do, so joining the parts may cost a copy.
    fn verify_rtcp(
        &self,
        ssrc: u32,
        index: u64,
        packet: &[u8],
        word: [u8; 4],
        tag: &[u8],
    ) -> Result<(), Error> {
        let aad = [packet, &word].concat();
        self.open(ssrc, index, &aad, &mut [], tag)
    }
}

impl Cm {
    /// RFC 3711 section 4.1.1: salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16.
    fn iv(&self, ssrc: u32, index: u64) -> [u8; 16] {
        let [.., i2, i3, i4, i5, i6, i7] = index.to_be_bytes();
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        let mut iv = [0, 0, 0, 0, s0, s1, s2, s3, i2, i3, i4, i5, i6, i7, 0, 0];
        for (byte, salt) in iv.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        iv
    }

    /// Writes the leftmost bytes of the HMAC.
    fn sign(&self, parts: &[&[u8]], tag: &mut [u8]) {
        for (to, from) in tag.iter_mut().zip(hmac_parts(&self.auth, parts)) {
            *to = from;
        }
    }

    fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> Result<(), Error> {
        let mac = hmac_parts(&self.auth, parts);
        let want = mac.get(..self.tag_len).ok_or(Error::Unauthentic)?;
        constant_time::verify_slices_are_equal(want, tag).map_err(|_| Error::Unauthentic)
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        wipe(&mut self.salt);
    }
}

impl Drop for Cm {
    fn drop(&mut self) {
        wipe(&mut self.salt);
    }
}

/// The rollover counter as it is authenticated (RFC 3711 section 4.2).
fn rollover(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// RFC 7714 section 9.2: the clear header, then E flag and index.
fn rtcp_aad(header: &[u8], word: [u8; 4]) -> Result<[u8; 12], Error> {
    let [h0, h1, h2, h3, h4, h5, h6, h7] = *header.first_chunk().ok_or(Error::Malformed)?;
    let [w0, w1, w2, w3] = word;
    Ok([h0, h1, h2, h3, h4, h5, h6, h7, w0, w1, w2, w3])
}
