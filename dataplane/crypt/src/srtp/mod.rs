//! SRTP and SRTCP: RFC 3711 (AES-CM with HMAC-SHA1) and RFC 7714 (AES-GCM), without MKI and with a key derivation
//! rate of zero, as DTLS-SRTP agrees them (RFC 5764).

mod cipher;
#[cfg(test)]
mod drivers;
mod header;
mod inbound;
mod kdf;
mod outbound;
mod table;
#[cfg(test)]
mod vectors;
mod window;

pub use header::rtp_header_len;
pub use inbound::Inbound;
pub use outbound::Outbound;

use cipher::Ciphers;
use std::sync::Arc;

/// The most bytes that protecting an RTP packet adds.
pub const TAG_MAX: usize = 16;
/// The most bytes that protecting an RTCP packet adds: tag and index.
pub const RTCP_OVERHEAD_MAX: usize = TAG_MAX + 4;
/// How far behind the newest packet of its SSRC a packet may be, in packets, and still be taken or resent: as many as
/// a publisher's retransmission cache holds (half a second of video at 10 Mbit/s). RFC 3711 section 3.3.2 asks for 64.
pub const REPLAY_WINDOW: usize = 64 * window::RTP_WORDS;
/// The same for SRTCP, where nothing is retransmitted.
pub const REPLAY_WINDOW_RTCP: usize = 64 * window::RTCP_WORDS;
/// How far behind the newest packet of its SSRC a packet may be to be sent again: all that the window remembers.
pub const RESEND_DISTANCE_MAX: usize = REPLAY_WINDOW;
/// SSRCs that a peer may send from. 16 publications of 3 encodings with RTX are 96; the rest is for streams that
/// came and went, and keeps the state of a hostile peer under 64 KiB.
pub const INBOUND_SSRCS: usize = 512;
/// SSRCs that we may send from to one peer at a time: 200 subscriptions with RTX, and some to spare.
pub const OUTBOUND_SSRCS: usize = 512;
/// SSRCs that we may have retired towards one peer (see [`Outbound::retire`]).
pub const RETIRED_SSRCS: usize = 8192;

/// A protection profile (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AES_CM_128_HMAC_SHA1_80.
    AesCm128HmacSha1_80,
    /// AES_CM_128_HMAC_SHA1_32: SRTCP keeps the 80 bit tag.
    AesCm128HmacSha1_32,
    /// AEAD_AES_128_GCM.
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM.
    AeadAes256Gcm,
}

impl Profile {
    /// All of them, the cheapest to run first.
    pub const ALL: [Self; 4] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
    ];

    /// Bytes of the master key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AeadAes128Gcm => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of the master salt.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Bytes that protecting an RTP packet adds.
    #[must_use]
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 => 10,
            Self::AesCm128HmacSha1_32 => 4,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }

    /// Bytes that protecting an RTCP packet adds: tag and index.
    #[must_use]
    pub const fn rtcp_overhead(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 10 + 4,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16 + 4,
        }
    }
}

/// Master keys and salts of both directions. No `Debug` output of the secrets; overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKeys {
    /// Which cipher.
    pub profile: Profile,
    /// Master key of what we send, [`Profile::key_len`] bytes.
    pub local_key: Vec<u8>,
    /// Master salt of what we send, [`Profile::salt_len`] bytes.
    pub local_salt: Vec<u8>,
    /// Master key of what the peer sends, [`Profile::key_len`] bytes.
    pub remote_key: Vec<u8>,
    /// Master salt of what the peer sends, [`Profile::salt_len`] bytes.
    pub remote_salt: Vec<u8>,
}

impl SessionKeys {
    /// The context for what the peer sends.
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn inbound(&self) -> Result<Inbound, Error> {
        Inbound::new(self.profile, &self.remote_key, &self.remote_salt)
    }

    /// The context for what we send. One per key: two of them would use the same nonces.
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn outbound(&self) -> Result<Outbound, Error> {
        Outbound::new(self.profile, &self.local_key, &self.local_salt)
    }
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        wipe(&mut self.local_key);
        wipe(&mut self.local_salt);
        wipe(&mut self.remote_key);
        wipe(&mut self.remote_salt);
    }
}

/// The master key and salt of a session: what all of its peers send and receive with, the relay among them. No `Debug`
/// output of the secrets; overwritten when dropped.
///
/// Under one key nonces are kept apart by the SSRC alone: no two senders may use the same.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey {
    /// Which cipher.
    pub profile: Profile,
    /// Master key, [`Profile::key_len`] bytes.
    pub key: Vec<u8>,
    /// Master salt, [`Profile::salt_len`] bytes.
    pub salt: Vec<u8>,
}

impl SharedKey {
    /// The context for what one peer sends.
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn inbound(&self) -> Result<Inbound, Error> {
        self.prepare().map(|key| key.inbound())
    }

    /// A context for what we send. See [`PreparedKey::outbound`].
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn outbound(&self) -> Result<Outbound, Error> {
        self.prepare().map(|key| key.outbound())
    }

    /// The key with its schedules done, for any number of contexts.
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn prepare(&self) -> Result<PreparedKey, Error> {
        let ciphers = Ciphers::new(self.profile, &self.key, &self.salt)?;
        Ok(PreparedKey { material: self.clone(), ciphers })
    }
}

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedKey").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Drop for SharedKey {
    fn drop(&mut self) {
        wipe(&mut self.key);
        wipe(&mut self.salt);
    }
}

/// A [`SharedKey`] whose schedules are done: contexts made of it share them.
#[derive(Clone)]
pub struct PreparedKey {
    material: SharedKey,
    ciphers: Arc<Ciphers>,
}

impl PreparedKey {
    /// The context for what one peer sends.
    #[must_use]
    pub fn inbound(&self) -> Inbound {
        Inbound::of(Arc::clone(&self.ciphers))
    }

    /// A context for what we send. Any number of them may be in use under a key, as long as no two send from the same
    /// SSRC, be it RTP or RTCP: nothing else keeps their nonces apart.
    #[must_use]
    pub fn outbound(&self) -> Outbound {
        Outbound::of(Arc::clone(&self.ciphers))
    }

    /// Master key and salt.
    #[must_use]
    pub fn material(&self) -> &SharedKey {
        &self.material
    }
}

impl std::fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedKey")
            .field("profile", &self.material.profile)
            .finish_non_exhaustive()
    }
}

/// Why a packet was not protected or opened. State did not change; the packet's bytes are undefined after
/// [`Error::Unauthentic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not RTP or RTCP version 2, or too short for its own header, tag and index.
    #[error("not an RTP or RTCP packet, or cut short")]
    Malformed,
    /// The tag is wrong: another key, another rollover counter, or changed on the way.
    #[error("authentication failed")]
    Unauthentic,
    /// Received before; or, outbound, sent before ([`Outbound::resend_rtp`] sends again).
    #[error("this packet of the SSRC was handled before")]
    Replayed,
    /// More than [`REPLAY_WINDOW`] behind the newest packet of its SSRC.
    #[error("this packet is too far behind the newest of its SSRC")]
    TooOld,
    /// [`INBOUND_SSRCS`] or [`OUTBOUND_SSRCS`] are in use.
    #[error("too many SSRCs under one key: forget or retire some, or make new keys")]
    TooManySsrcs,
    /// The SSRC was retired; starting it anew would repeat nonces.
    #[error("the SSRC was retired under this key: choose another")]
    Retired,
    /// 2^48 RTP packets of an SSRC, or 2^31 RTCP packets, were sent with this key (RFC 3711 section 9.2).
    #[error("the key is used up: make new keys")]
    KeyExhausted,
    /// The buffer has no room for the tag.
    #[error("no room for the tag")]
    NoRoom,
    /// A master key or salt has the wrong length.
    #[error("the master key or salt has not the length that the profile asks for")]
    Key,
}

/// Overwrites a secret. The black box keeps the compiler from dropping the writes.
pub(crate) fn wipe(secret: &mut [u8]) {
    secret.fill(0);
    std::hint::black_box(secret);
}
