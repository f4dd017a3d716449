//! Opening what a peer sends.

use super::cipher::{Ciphers, E_FLAG, RTCP_CLEAR};
use super::header::{rtcp_ssrc, rtp_header_len, rtp_seq_ssrc};
use super::table::Table;
use super::window::{RTCP_WORDS, RTP_WORDS, Window};
use super::{Error, INBOUND_SSRCS, PreparedKey, Profile};
use std::sync::Arc;

/// The keys and the replay state of one direction, from a peer to us.
///
/// A packet is checked for replay before anything is computed, and changes state only once it proved authentic: a
/// stranger's SSRC takes no room.
pub struct Inbound {
    ciphers: Arc<Ciphers>,
    /// Of the key before, while packets under it may still come.
    before: Option<Arc<Ciphers>>,
    /// What a packet was before it did not open.
    spare: Vec<u8>,
    rtp_windows: Table<Window<RTP_WORDS>>,
    rtcp_windows: Table<Window<RTCP_WORDS>>,
}

impl Inbound {
    /// From the master key and salt of the peer's direction.
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, Error> {
        Ciphers::new(profile, key, salt).map(Self::of)
    }

    pub(super) fn of(ciphers: Arc<Ciphers>) -> Self {
        let (rtp_windows, rtcp_windows) = (Table::new(INBOUND_SSRCS), Table::new(INBOUND_SSRCS));
        Self { ciphers, before: None, spare: Vec::new(), rtp_windows, rtcp_windows }
    }

    /// Takes packets under another key from now on, and those under the one before until [`Inbound::forget_key`].
    /// Rollover counters and what was received stay known: indices go on (RFC 3711 section 3.3.1). There is no mark in a
    /// packet that says which key it is under: the new one is tried first.
    pub fn change_key(&mut self, key: &PreparedKey) {
        let before = std::mem::replace(&mut self.ciphers, Arc::clone(&key.ciphers));
        // The lengths of tags differ between profiles: only the last one's packets can be told apart.
        self.before = (before.profile == self.ciphers.profile).then_some(before);
    }

    /// Takes packets under the key before no more.
    pub fn forget_key(&mut self) {
        self.before = None;
        self.spare = Vec::new();
    }

    /// Checks and decrypts an SRTP packet in place; the new, shorter length.
    ///
    /// The first packet of an SSRC is taken to be of rollover counter 0: senders begin below 2^15 for that reason
    /// (RFC 3711 section 3.3.1), so that even with the first packets lost the guess is right.
    ///
    /// # Errors
    /// Why the packet is to be dropped. After [`Error::Unauthentic`] its bytes are undefined.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        self.unprotect_rtp_later(packet, 0)
    }

    /// The same, where the sender's numbers wrapped so many times more than what was heard of it tells.
    ///
    /// # Errors
    /// As there.
    pub fn unprotect_rtp_later(
        &mut self,
        packet: &mut [u8],
        rollovers: u32,
    ) -> Result<usize, Error> {
        let header_len = rtp_header_len(packet).ok_or(Error::Malformed)?;
        let (seq, ssrc) = rtp_seq_ssrc(packet).ok_or(Error::Malformed)?;
        let len = packet.len().checked_sub(self.ciphers.rtp.tag_len()).ok_or(Error::Malformed)?;

        //= rfc3711#3.3 step 5: the replay list is checked before the authentication tag.
        let found = self.rtp_windows.find(ssrc);
        let index = match found {
            Ok(slot) => {
                let window = self.rtp_windows.get(slot).ok_or(Error::Malformed)?;
                let index = window.guess_later(seq, rollovers).ok_or(Error::TooOld)?;
                window.check(index)?;
                index
            }
            Err(_) => {
                self.rtp_windows.check_room()?;
                u64::from(rollovers) << 16 | u64::from(seq)
            }
        };

        let (packet, tag) = packet.split_at_mut_checked(len).ok_or(Error::Malformed)?;
        let (header, payload) = packet.split_at_mut_checked(header_len).ok_or(Error::Malformed)?;
        self.open_rtp((ssrc, index), header, payload, tag)?;

        match found {
            Ok(slot) => {
                if let Some(window) = self.rtp_windows.get_mut(slot) {
                    window.commit(index);
                }
            }
            Err(vacancy) => self.rtp_windows.insert(vacancy, Window::new(index)),
        }
        Ok(len)
    }

    /// Checks and decrypts an SRTCP packet in place; the new, shorter length.
    ///
    /// # Errors
    /// Why the packet is to be dropped. After [`Error::Unauthentic`] its bytes are undefined.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        let ssrc = rtcp_ssrc(packet)?;
        if packet.len() < RTCP_CLEAR + self.ciphers.rtcp.tag_len() + 4 {
            return Err(Error::Malformed);
        }
        let word = self.ciphers.rtcp.rtcp_word(packet).ok_or(Error::Malformed)?;
        let index = u64::from(word & !E_FLAG);

        let found = self.rtcp_windows.find(ssrc);
        match found {
            Ok(slot) => self.rtcp_windows.get(slot).ok_or(Error::Malformed)?.check(index)?,
            Err(_) => self.rtcp_windows.check_room()?,
        }

        let len = self.open_rtcp((ssrc, word), packet)?;

        match found {
            Ok(slot) => {
                if let Some(window) = self.rtcp_windows.get_mut(slot) {
                    window.commit(index);
                }
            }
            Err(vacancy) => self.rtcp_windows.insert(vacancy, Window::new(index)),
        }
        Ok(len)
    }

    /// Forgets an SSRC that the peer said it will not use again (an RTCP BYE, an ended publication), to make room.
    /// Until new keys, old packets of it would pass once more: forget only what is routed no longer.
    pub fn forget(&mut self, ssrc: u32) {
        self.rtp_windows.remove(ssrc);
        self.rtcp_windows.remove(ssrc);
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.ciphers.profile
    }

    /// How many SSRCs proved authentic, of RTP and of RTCP.
    #[must_use]
    pub fn ssrcs(&self) -> (usize, usize) {
        (self.rtp_windows.len(), self.rtcp_windows.len())
    }

    /// Bytes that this context holds, with what it points to; also ciphers that it shares with others.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.ciphers.heap_bytes()
            + self.before.as_ref().map_or(0, |ciphers| ciphers.heap_bytes())
            + self.spare.capacity()
            + self.rtp_windows.heap_bytes()
            + self.rtcp_windows.heap_bytes()
    }

    /// Opens it with the key, or else with the one before.
    fn open_rtp(
        &mut self,
        (ssrc, index): (u32, u64),
        header: &[u8],
        payload: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Error> {
        let Some(before) = &self.before else {
            return self.ciphers.rtp.open_rtp(ssrc, index, header, payload, tag);
        };
        self.spare.clear();
        self.spare.extend_from_slice(payload);
        self.ciphers.rtp.open_rtp(ssrc, index, header, payload, tag).or_else(|_| {
            payload.copy_from_slice(&self.spare);
            before.rtp.open_rtp(ssrc, index, header, payload, tag)
        })
    }

    /// The same for RTCP.
    fn open_rtcp(&mut self, (ssrc, word): (u32, u32), packet: &mut [u8]) -> Result<usize, Error> {
        let Some(before) = &self.before else {
            return self.ciphers.rtcp.open_rtcp(ssrc, word, packet);
        };
        self.spare.clear();
        self.spare.extend_from_slice(packet);
        self.ciphers.rtcp.open_rtcp(ssrc, word, packet).or_else(|_| {
            packet.copy_from_slice(&self.spare);
            before.rtcp.open_rtcp(ssrc, word, packet)
        })
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("profile", &self.profile()).finish_non_exhaustive()
    }
}
