//! Opening what a peer sends.

use super::cipher::{Cipher, E_FLAG, RTCP_CLEAR};
use super::header::{rtcp_ssrc, rtp_header_len, rtp_seq_ssrc};
use super::kdf::Kdf;
use super::table::Table;
use super::window::{RTCP_WORDS, RTP_WORDS, Window};
use super::{Error, INBOUND_SSRCS, Profile};

/// The keys and the replay state of one direction, from a peer to us.
///
/// A packet is checked for replay before anything is computed, and changes state only once it proved authentic: a
/// stranger's SSRC takes no room.
pub struct Inbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtp_windows: Table<Window<RTP_WORDS>>,
    rtcp_windows: Table<Window<RTCP_WORDS>>,
}

impl Inbound {
    /// From the master key and salt of the peer's direction.
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, Error> {
        let kdf = Kdf::new(profile, key, salt)?;
        Ok(Self {
            profile,
            rtp: Cipher::rtp(profile, &kdf)?,
            rtcp: Cipher::rtcp(profile, &kdf)?,
            rtp_windows: Table::new(INBOUND_SSRCS),
            rtcp_windows: Table::new(INBOUND_SSRCS),
        })
    }

    /// Checks and decrypts an SRTP packet in place; the new, shorter length.
    ///
    /// The first packet of an SSRC is taken to be of rollover counter 0: senders begin below 2^15 for that reason
    /// (RFC 3711 section 3.3.1), so that even with the first packets lost the guess is right.
    ///
    /// # Errors
    /// Why the packet is to be dropped. After [`Error::Unauthentic`] its bytes are undefined.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        let header_len = rtp_header_len(packet).ok_or(Error::Malformed)?;
        let (seq, ssrc) = rtp_seq_ssrc(packet).ok_or(Error::Malformed)?;
        let len = packet.len().checked_sub(self.rtp.tag_len()).ok_or(Error::Malformed)?;

        //= rfc3711#3.3 step 5: the replay list is checked before the authentication tag.
        let found = self.rtp_windows.find(ssrc);
        let index = match found {
            Ok(slot) => {
                let window = self.rtp_windows.get(slot).ok_or(Error::Malformed)?;
                let index = window.guess(seq).ok_or(Error::TooOld)?;
                window.check(index)?;
                index
            }
            Err(_) => {
                self.rtp_windows.check_room()?;
                u64::from(seq)
            }
        };

        let (packet, tag) = packet.split_at_mut_checked(len).ok_or(Error::Malformed)?;
        let (header, payload) = packet.split_at_mut_checked(header_len).ok_or(Error::Malformed)?;
        self.rtp.open_rtp(ssrc, index, header, payload, tag)?;

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
        if packet.len() < RTCP_CLEAR + self.rtcp.tag_len() + 4 {
            return Err(Error::Malformed);
        }
        let word = self.rtcp.rtcp_word(packet).ok_or(Error::Malformed)?;
        let index = u64::from(word & !E_FLAG);

        let found = self.rtcp_windows.find(ssrc);
        match found {
            Ok(slot) => self.rtcp_windows.get(slot).ok_or(Error::Malformed)?.check(index)?,
            Err(_) => self.rtcp_windows.check_room()?,
        }

        let len = self.rtcp.open_rtcp(ssrc, word, packet)?;

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
        self.profile
    }

    /// How many SSRCs proved authentic, of RTP and of RTCP.
    #[must_use]
    pub fn ssrcs(&self) -> (usize, usize) {
        (self.rtp_windows.len(), self.rtcp_windows.len())
    }

    /// Bytes that this context holds, with what it points to.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.rtp.heap_bytes()
            + self.rtcp.heap_bytes()
            + self.rtp_windows.heap_bytes()
            + self.rtcp_windows.heap_bytes()
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("profile", &self.profile).finish_non_exhaustive()
    }
}
