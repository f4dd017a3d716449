//! Protecting what we send to a peer.

use super::cipher::{Ciphers, RTCP_CLEAR};
use super::header::{rtcp_ssrc, rtp_header_len, rtp_seq_ssrc};
use super::table::{Slot, Table, Vacancy};
use super::window::{RTP_WORDS, Window};
use super::{Error, OUTBOUND_SSRCS, PreparedKey, Profile, RETIRED_SSRCS};
use std::sync::Arc;

/// The keys and the state of one direction, from us to a peer.
///
/// The rollover counter of an SSRC begins at 0 and follows the sequence numbers that the caller gives, over the wrap
/// and back for late ones. First sequence numbers should be below 2^15, so that a receiver that misses the first
/// packets still guesses it right (RFC 3711 section 3.3.1).
///
/// AES-GCM falls apart when two different packets share (key, SSRC, rollover counter, sequence number). So a sequence
/// number is protected once; [`Outbound::resend_rtp`] is the only way to do it again, and
/// [`Outbound::retire`] keeps an SSRC from starting anew.
pub struct Outbound {
    pub(super) ciphers: Arc<Ciphers>,
    windows: Table<Window<RTP_WORDS>>,
    /// Sorted.
    retired: Vec<u32>,
    /// Of the next SRTCP packet. One counter for all SSRCs: it increases in each of them, which is all that a
    /// receiver asks, and needs no table.
    rtcp_index: u32,
}

impl Outbound {
    /// From the master key and salt of our direction. A key may have only one context.
    ///
    /// # Errors
    /// [`Error::Key`] if a length is not the profile's.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, Error> {
        Ciphers::new(profile, key, salt).map(Self::of)
    }

    pub(super) fn of(ciphers: Arc<Ciphers>) -> Self {
        Self { ciphers, windows: Table::new(OUTBOUND_SSRCS), retired: Vec::new(), rtcp_index: 0 }
    }

    /// Goes on with another key. Rollover counters and indices go on as well (RFC 3711 section 3.3.1), so that a receiver
    /// follows whether it heard of the new key before or after; nothing was sent under that, so no nonce repeats.
    pub fn change_key(&mut self, key: &PreparedKey) {
        self.ciphers = Arc::clone(&key.ciphers);
    }

    /// Protects the RTP packet in the first `len` bytes of `buffer` in place; the new length, which is
    /// [`Profile::rtp_overhead`] more.
    ///
    /// # Errors
    /// [`Error::Replayed`] when this sequence number was protected before, [`Error::TooOld`] when it is more than
    /// [`super::REPLAY_WINDOW`] behind the newest, [`Error::NoRoom`], [`Error::Malformed`], and what the limits say.
    pub fn protect_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Error> {
        let (packet, tag, total) = self.rooms(buffer, len)?;
        let turn = self.first_turn(packet)?;
        self.seal(turn, packet, tag)?;
        self.commit(turn);
        Ok(total)
    }

    /// Protects the RTP packet whose header is in the first `header_len` bytes of `out` and whose payload, with
    /// padding if any, is `payload`: the ciphertext and tag go behind the header. The length of the whole.
    ///
    /// # Errors
    /// As [`Outbound::protect_rtp`]; [`Error::Malformed`] also when `header_len` is not the header's length.
    pub fn protect_rtp_into(
        &mut self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
    ) -> Result<usize, Error> {
        let len = header_len.checked_add(payload.len()).ok_or(Error::NoRoom)?;
        let (packet, tag, total) = self.rooms(out, len)?;
        let turn = self.first_turn(packet)?;
        self.seal_from(turn, packet, header_len, payload, tag)?;
        self.commit(turn);
        Ok(total)
    }

    /// Protects once more a packet that was protected before and is no more than [`super::RESEND_DISTANCE_MAX`]
    /// behind the newest of its SSRC: an answer to a NACK where RTX was not agreed.
    ///
    /// The caller's duty: header and payload are the very bytes of the first time, extensions included. With other
    /// bytes under the same nonce an observer of AES-GCM learns the authentication key, and of either cipher the XOR
    /// of the two payloads. Where transport-wide sequence numbers or send times must change, use RTX.
    ///
    /// # Errors
    /// [`Error::TooOld`] when it is further behind, or was never protected; otherwise as [`Outbound::protect_rtp`].
    pub fn resend_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Error> {
        let (packet, tag, total) = self.rooms(buffer, len)?;
        let turn = self.next_turn(packet)?;
        self.seal(turn, packet, tag)?;
        Ok(total)
    }

    /// [`Outbound::resend_rtp`] out of place, as [`Outbound::protect_rtp_into`].
    ///
    /// # Errors
    /// As [`Outbound::resend_rtp`].
    pub fn resend_rtp_into(
        &mut self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
    ) -> Result<usize, Error> {
        let len = header_len.checked_add(payload.len()).ok_or(Error::NoRoom)?;
        let (packet, tag, total) = self.rooms(out, len)?;
        let turn = self.next_turn(packet)?;
        self.seal_from(turn, packet, header_len, payload, tag)?;
        Ok(total)
    }

    /// Protects the RTCP packet in the first `len` bytes of `buffer` in place; the new length, which is
    /// [`Profile::rtcp_overhead`] more.
    ///
    /// # Errors
    /// [`Error::NoRoom`], [`Error::Malformed`], [`Error::KeyExhausted`].
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Error> {
        let packet = buffer.get(..len).ok_or(Error::NoRoom)?;
        if len < RTCP_CLEAR {
            return Err(Error::Malformed);
        }
        let ssrc = rtcp_ssrc(packet)?;
        //= rfc3711#9.2: at most 2^31 SRTCP packets under one key.
        if self.rtcp_index >= 1 << 31 {
            return Err(Error::KeyExhausted);
        }
        let total = self.ciphers.rtcp.seal_rtcp(ssrc, self.rtcp_index, buffer, len)?;
        self.rtcp_index += 1;
        Ok(total)
    }

    /// Frees the state of an SSRC that ended. The SSRC itself is remembered, because its indices were used under this
    /// key: packets of it are refused from now on.
    ///
    /// # Errors
    /// [`Error::TooManySsrcs`] after [`super::RETIRED_SSRCS`]: the state is kept; make new keys.
    pub fn retire(&mut self, ssrc: u32) -> Result<(), Error> {
        let Err(at) = self.retired.binary_search(&ssrc) else { return Ok(()) };
        if self.windows.find(ssrc).is_err() {
            return Ok(());
        }
        if self.retired.len() >= RETIRED_SSRCS {
            return Err(Error::TooManySsrcs);
        }
        self.retired.insert(at, ssrc);
        self.windows.remove(ssrc);
        Ok(())
    }

    /// Frees the state of an SSRC that ended, and remembers nothing: for who gives out no SSRC twice under a key.
    pub fn forget(&mut self, ssrc: u32) {
        self.windows.remove(ssrc);
    }

    /// How many SSRCs were retired.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    /// Whether this SSRC was retired: packets of it are refused.
    #[must_use]
    pub fn is_retired(&self, ssrc: u32) -> bool {
        self.retired.binary_search(&ssrc).is_ok()
    }

    /// Whether packets of this SSRC were protected here.
    #[must_use]
    pub fn is_used(&self, ssrc: u32) -> bool {
        self.windows.find(ssrc).is_ok() || self.is_retired(ssrc)
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.ciphers.profile
    }

    /// Bytes that this context holds, with what it points to; also ciphers that it shares with others.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.ciphers.heap_bytes()
            + self.windows.heap_bytes()
            + self.retired.capacity() * size_of::<u32>()
    }

    /// The packet's and the tag's part of a buffer, and their length together.
    fn rooms<'a>(
        &self,
        buffer: &'a mut [u8],
        len: usize,
    ) -> Result<(&'a mut [u8], &'a mut [u8], usize), Error> {
        let total = len.checked_add(self.ciphers.rtp.tag_len()).ok_or(Error::NoRoom)?;
        let (packet, tag) = buffer
            .get_mut(..total)
            .and_then(|room| room.split_at_mut_checked(len))
            .ok_or(Error::NoRoom)?;
        Ok((packet, tag, total))
    }

    /// Whose turn it is when a packet is protected for the first time.
    fn first_turn(&self, packet: &[u8]) -> Result<Turn, Error> {
        let (seq, ssrc) = rtp_seq_ssrc(packet).ok_or(Error::Malformed)?;
        let place = self.windows.find(ssrc);
        let index = match place {
            Ok(slot) => {
                let window = self.windows.get(slot).ok_or(Error::Malformed)?;
                let index = window.guess(seq).ok_or(Error::TooOld)?;
                window.check(index)?;
                //= rfc3711#9.2: at most 2^48 SRTP packets under one key.
                if index >= 1 << 48 {
                    return Err(Error::KeyExhausted);
                }
                index
            }
            Err(_) if self.is_retired(ssrc) => return Err(Error::Retired),
            Err(_) => {
                self.windows.check_room()?;
                u64::from(seq)
            }
        };
        Ok(Turn { ssrc, index, place })
    }

    /// Whose turn it is when a packet is protected again.
    fn next_turn(&self, packet: &[u8]) -> Result<Turn, Error> {
        let (seq, ssrc) = rtp_seq_ssrc(packet).ok_or(Error::Malformed)?;
        let place = self.windows.find(ssrc);
        let slot = place.map_err(|_| Error::TooOld)?;
        let window = self.windows.get(slot).ok_or(Error::Malformed)?;
        let index = window.guess(seq).ok_or(Error::TooOld)?;
        match window.check(index) {
            Err(Error::Replayed) => Ok(Turn { ssrc, index, place }),
            _ => Err(Error::TooOld),
        }
    }

    fn seal(&self, turn: Turn, packet: &mut [u8], tag: &mut [u8]) -> Result<(), Error> {
        let header_len = rtp_header_len(packet).ok_or(Error::Malformed)?;
        let (header, payload) = packet.split_at_mut_checked(header_len).ok_or(Error::Malformed)?;
        self.ciphers.rtp.seal_rtp(turn.ssrc, turn.index, header, payload, tag)
    }

    fn seal_from(
        &self,
        turn: Turn,
        packet: &mut [u8],
        header_len: usize,
        plaintext: &[u8],
        tag: &mut [u8],
    ) -> Result<(), Error> {
        let (header, payload) = packet.split_at_mut_checked(header_len).ok_or(Error::Malformed)?;
        if rtp_header_len(header) != Some(header_len) {
            return Err(Error::Malformed);
        }
        self.ciphers.rtp.seal_rtp_from(turn.ssrc, turn.index, header, plaintext, payload, tag)
    }

    fn commit(&mut self, turn: Turn) {
        match turn.place {
            Ok(slot) => {
                if let Some(window) = self.windows.get_mut(slot) {
                    window.commit(turn.index);
                }
            }
            Err(vacancy) => self.windows.insert(vacancy, Window::new(turn.index)),
        }
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("profile", &self.profile()).finish_non_exhaustive()
    }
}

/// One use of a nonce.
#[derive(Clone, Copy)]
struct Turn {
    ssrc: u32,
    index: u64,
    place: Result<Slot, Vacancy>,
}
