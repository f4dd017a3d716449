//! RTP packets (RFC 3550 section 5.1) and their header extensions (RFC 8285).

use crate::Full;
use crate::bytes::{Cursor, array, put, u16_at};
use std::ops::{Deref, Range};

/// The fixed part of the header, in bytes.
pub const FIXED_HEADER_LEN: usize = 12;

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// The header goes past the end.
    TooShort,
    /// The version is not 2.
    Version,
    /// The header extension goes past the end.
    Extension,
    /// The padding count is zero or larger than what follows the header.
    Padding,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooShort => "RTP header goes past the end of the datagram",
            Self::Version => "RTP version is not 2",
            Self::Extension => "RTP header extension goes past the end of the datagram",
            Self::Padding => "RTP padding count does not fit the payload",
        })
    }
}

impl std::error::Error for Error {}

/// The header of an RTP or SRTP packet. Of what follows the header nothing is looked at.
///
/// This is what can be known of an SRTP packet before it is decrypted: the padding count is encrypted
/// (RFC 3711 section 3.1), so only [`Packet`] knows where the payload ends.
#[derive(Clone, Copy)]
pub struct Header<'a> {
    bytes: &'a [u8],
    fixed: [u8; FIXED_HEADER_LEN],
    /// Where the extension's elements are; empty without extension.
    extension_at: u16,
    header_len: u32,
}

impl<'a> Header<'a> {
    /// Reads a header.
    ///
    /// # Errors
    /// When the version is not 2, or header, CSRCs or extension go past the end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let fixed = array::<FIXED_HEADER_LEN>(bytes, 0).ok_or(Error::TooShort)?;
        let [first, ..] = fixed;
        if first >> 6 != 2 {
            return Err(Error::Version);
        }
        let csrcs_end = FIXED_HEADER_LEN + 4 * usize::from(first & 0x0f);
        let (extension_at, header_len) = if first & 0x10 == 0 {
            (csrcs_end, csrcs_end)
        } else {
            let words = u16_at(bytes, csrcs_end + 2).ok_or(Error::Extension)?;
            (csrcs_end + 4, csrcs_end + 4 + 4 * usize::from(words))
        };
        if bytes.len() < header_len {
            return Err(if first & 0x10 == 0 { Error::TooShort } else { Error::Extension });
        }
        // At most 12 + 60 + 4 + 4 * 65535, and the extension at most at 76.
        Ok(Self { bytes, fixed, extension_at: extension_at as u16, header_len: header_len as u32 })
    }

    /// The whole datagram.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Synchronization source.
    #[must_use]
    pub const fn ssrc(&self) -> u32 {
        let [.., a, b, c, d] = self.fixed;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Sequence number.
    #[must_use]
    pub const fn seq(&self) -> u16 {
        let [_, _, a, b, ..] = self.fixed;
        u16::from_be_bytes([a, b])
    }

    /// Timestamp, in units of the payload type's clock rate.
    #[must_use]
    pub const fn timestamp(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = self.fixed;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Payload type, 0 to 127.
    #[must_use]
    pub const fn pt(&self) -> u8 {
        let [_, second, ..] = self.fixed;
        second & 0x7f
    }

    /// Marker: with video the last packet of a frame, with audio the first after silence.
    #[must_use]
    pub const fn marker(&self) -> bool {
        let [_, second, ..] = self.fixed;
        second & 0x80 != 0
    }

    /// Whether the header says that padding ends the packet.
    #[must_use]
    pub const fn has_padding(&self) -> bool {
        let [first, ..] = self.fixed;
        first & 0x20 != 0
    }

    /// Contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        let [first, ..] = self.fixed;
        let end = FIXED_HEADER_LEN + 4 * usize::from(first & 0x0f);
        let (words, _) = self.bytes.get(FIXED_HEADER_LEN..end).unwrap_or_default().as_chunks::<4>();
        words.iter().map(|word| u32::from_be_bytes(*word))
    }

    /// Bytes before the payload: fixed header, CSRCs and extension.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.header_len as usize
    }

    /// What stands in the 16 bits before the extension's length: 0xBEDE and 0x100x are RFC 8285's.
    #[must_use]
    pub fn extension_profile(&self) -> Option<u16> {
        let [first, ..] = self.fixed;
        if first & 0x10 == 0 {
            return None;
        }
        u16_at(self.bytes, usize::from(self.extension_at).checked_sub(4)?)
    }

    /// The extension elements, as id and data, in the order of the wire.
    ///
    /// An element that goes past the extension's end stops the iteration, as does id 15 of the one-byte form (RFC 8285
    /// section 4.2). An extension of another profile has no elements.
    #[must_use]
    pub fn extensions(&self) -> Extensions<'a> {
        let form = match self.extension_profile() {
            Some(ONE_BYTE_PROFILE) => Form::OneByte,
            Some(profile) if profile & 0xfff0 == TWO_BYTE_PROFILE => Form::TwoByte,
            _ => Form::None,
        };
        Extensions { bytes: self.bytes, at: self.extension_at.into(), end: self.header_len(), form }
    }

    /// The data of the first element with this id.
    #[must_use]
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions().find(|(found, _)| *found == id).map(|(_, data)| data)
    }

    /// Where in the datagram the data of the first element with this id is, for writing it in place.
    #[must_use]
    pub fn extension_range(&self, id: u8) -> Option<Range<usize>> {
        let mut extensions = self.extensions();
        while let Some((found, range)) = extensions.advance() {
            if found == id {
                return Some(range);
            }
        }
        None
    }
}

impl std::fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header")
            .field("ssrc", &self.ssrc())
            .field("pt", &self.pt())
            .field("seq", &self.seq())
            .field("timestamp", &self.timestamp())
            .field("marker", &self.marker())
            .field("header_len", &self.header_len())
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// An RTP packet in the clear: the [`Header`] it derefs to, and the payload without padding.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: Header<'a>,
    padding_len: u8,
}

impl<'a> Packet<'a> {
    /// Reads a packet that is not, or no longer, encrypted.
    ///
    /// # Errors
    /// When the header is not one of RTP ([`Header::parse`]) or the padding count does not fit.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = Header::parse(bytes)?;
        let padding_len = if header.has_padding() {
            let count = bytes.last().copied().unwrap_or(0);
            if count == 0 || usize::from(count) > bytes.len() - header.header_len() {
                return Err(Error::Padding);
            }
            count
        } else {
            0
        };
        Ok(Self { header, padding_len })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> Header<'a> {
        self.header
    }

    /// The payload: what is between header and padding. Empty in a packet that only probes.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.header.bytes.get(self.payload_range()).unwrap_or_default()
    }

    /// Where in the datagram the payload is.
    #[must_use]
    pub fn payload_range(&self) -> Range<usize> {
        self.header.header_len()..self.header.bytes.len() - usize::from(self.padding_len)
    }

    /// Bytes of padding at the end, the count included.
    #[must_use]
    pub const fn padding_len(&self) -> usize {
        self.padding_len as usize
    }
}

impl<'a> Deref for Packet<'a> {
    type Target = Header<'a>;
    fn deref(&self) -> &Header<'a> {
        &self.header
    }
}

/// The elements of a header extension; see [`Header::extensions`].
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    form: Form,
}

impl Extensions<'_> {
    fn advance(&mut self) -> Option<(u8, Range<usize>)> {
        while self.at < self.end {
            let first = *self.bytes.get(self.at)?;
            let (id, data_at, len) = match self.form {
                Form::None => return None,
                Form::OneByte => (first >> 4, self.at + 1, usize::from(first & 0x0f) + 1),
                Form::TwoByte if first == 0 => (0, self.at + 1, 0),
                Form::TwoByte if self.at + 1 == self.end => break,
                Form::TwoByte => (first, self.at + 2, (*self.bytes.get(self.at + 1)?).into()),
            };
            if id == 0 {
                // A padding byte; RFC 8285 section 4.2 has an id of 0 with a length be skipped whole.
                self.at = if first == 0 { self.at + 1 } else { data_at + len };
                continue;
            }
            if (id == 15 && self.form == Form::OneByte) || data_at + len > self.end {
                break;
            }
            self.at = data_at + len;
            return Some((id, data_at..data_at + len));
        }
        self.at = self.end;
        None
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let (id, range) = self.advance()?;
        Some((id, self.bytes.get(range)?))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    None,
    OneByte,
    TwoByte,
}

const ONE_BYTE_PROFILE: u16 = 0xbede;
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Overwrites the sequence number; `None` when there are less than 12 bytes.
pub fn set_seq(packet: &mut [u8], seq: u16) -> Option<()> {
    put(fixed_mut(packet)?, 2, &seq.to_be_bytes())
}

/// Overwrites the padding bit; `None` when there are less than 12 bytes.
pub fn set_padding(packet: &mut [u8], padding: bool) -> Option<()> {
    let [first, ..] = fixed_mut(packet)?;
    *first = (*first & !0x20) | (u8::from(padding) << 5);
    Some(())
}

/// Overwrites the timestamp; `None` when there are less than 12 bytes.
pub fn set_timestamp(packet: &mut [u8], timestamp: u32) -> Option<()> {
    put(fixed_mut(packet)?, 4, &timestamp.to_be_bytes())
}

/// Overwrites the SSRC; `None` when there are less than 12 bytes.
pub fn set_ssrc(packet: &mut [u8], ssrc: u32) -> Option<()> {
    put(fixed_mut(packet)?, 8, &ssrc.to_be_bytes())
}

/// Overwrites the payload type (its low 7 bits count); `None` when there are less than 12 bytes.
pub fn set_pt(packet: &mut [u8], pt: u8) -> Option<()> {
    let [_, second, ..] = fixed_mut(packet)?;
    *second = (*second & 0x80) | (pt & 0x7f);
    Some(())
}

/// Overwrites the marker; `None` when there are less than 12 bytes.
pub fn set_marker(packet: &mut [u8], marker: bool) -> Option<()> {
    let [_, second, ..] = fixed_mut(packet)?;
    *second = (*second & 0x7f) | (u8::from(marker) << 7);
    Some(())
}

/// The data of the first extension element with this id, for writing it in place.
pub fn extension_mut(packet: &mut [u8], id: u8) -> Option<&mut [u8]> {
    let range = Header::parse(packet).ok()?.extension_range(id)?;
    packet.get_mut(range)
}

fn fixed_mut(packet: &mut [u8]) -> Option<&mut [u8; FIXED_HEADER_LEN]> {
    packet.first_chunk_mut()
}

/// Why a header was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteError {
    /// The buffer is too small.
    Full,
    /// More than 15 CSRCs, an extension id of 0, more than 255 bytes in one element or 262,140 in all.
    Invalid,
}

impl From<Full> for WriteError {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "the buffer is too small for the RTP header",
            Self::Invalid => "RTP cannot express this header",
        })
    }
}

impl std::error::Error for WriteError {}

/// The fields of a header to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderBuilder {
    /// Marker bit.
    pub marker: bool,
    /// Payload type; its low 7 bits count.
    pub pt: u8,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Whether the packet will end in padding; writing that is the caller's business.
    pub padding: bool,
}

impl HeaderBuilder {
    /// The fixed header (RFC 3550 section 5.1), without CSRCs. `extended`: an extension header follows.
    #[must_use]
    #[inline]
    pub fn fixed(&self, extended: bool) -> [u8; FIXED_HEADER_LEN] {
        let [seq_high, seq_low] = self.seq.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [s0, s1, s2, s3] = self.ssrc.to_be_bytes();
        let flags = 0x80 | (u8::from(self.padding) << 5) | (u8::from(extended) << 4);
        let pt = (u8::from(self.marker) << 7) | (self.pt & 0x7f);
        [flags, pt, seq_high, seq_low, t0, t1, t2, t3, s0, s1, s2, s3]
    }

    /// Writes the header to the front of `out` and returns its length in bytes.
    ///
    /// `extensions` are pairs of id and data, gone through twice. The one-byte form is taken when every id is at
    /// most 14 and every length 1 to 16, the two-byte form otherwise (RFC 8285 section 4.1.2); zeros fill up the last
    /// 32-bit word. Without extensions there is no extension header.
    ///
    /// # Errors
    /// When `out` is too small or RTP cannot express the header; `out` then holds nothing usable.
    pub fn write<'e, I>(
        &self,
        csrcs: &[u32],
        extensions: I,
        out: &mut [u8],
    ) -> Result<usize, WriteError>
    where
        I: IntoIterator<Item = (u8, &'e [u8]), IntoIter: Clone>,
    {
        let extensions = extensions.into_iter();
        let (mut elements, mut data_len, mut one_byte) = (0, 0, true);
        for (id, data) in extensions.clone() {
            if id == 0 || data.len() > 255 {
                return Err(WriteError::Invalid);
            }
            elements += 1;
            data_len += data.len();
            one_byte &= id <= 14 && (1..=16).contains(&data.len());
        }
        let csrc_count = u8::try_from(csrcs.len()).unwrap_or(u8::MAX);
        if csrc_count > 15 {
            return Err(WriteError::Invalid);
        }
        let mut fixed = self.fixed(elements > 0);
        fixed[0] |= csrc_count;
        let mut out = Cursor::new(out);
        // Few large writes: this runs for every subscriber.
        out.push(&fixed)?;
        for csrc in csrcs {
            out.push(&csrc.to_be_bytes())?;
        }
        if elements > 0 {
            let (profile, heads_len) = if one_byte {
                (ONE_BYTE_PROFILE, elements)
            } else {
                (TWO_BYTE_PROFILE, 2 * elements)
            };
            let words = u16::try_from((heads_len + data_len).div_ceil(4));
            let [profile_high, profile_low] = profile.to_be_bytes();
            let [words_high, words_low] = words.map_err(|_| WriteError::Invalid)?.to_be_bytes();
            out.push(&[profile_high, profile_low, words_high, words_low])?;
            for (id, data) in extensions {
                let len = data.len() as u8; // At most 255, see above.
                if one_byte {
                    out.push(&[(id << 4) | (len.wrapping_sub(1) & 0x0f)])?;
                } else {
                    out.push(&[id, len])?;
                }
                out.push(data)?;
            }
            out.align()?;
        }
        Ok(out.len())
    }
}
