//! Feedback about loss and pictures: NACK, PLI, FIR, REMB.

use crate::bytes::{array, u24_at, u32_at};

/// Lost packets asked for again (RFC 4585 section 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Whose packets are missing.
    pub media_ssrc: u32,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, media_ssrc) = ssrcs(body)?;
        let entries = body.get(8..)?;
        // RFC 4585 section 6.2.1: one entry at least.
        (!entries.is_empty() && entries.len() % 4 == 0).then_some(Self {
            sender_ssrc,
            media_ssrc,
            entries,
        })
    }

    /// The entries as they are on the wire: a sequence number, and a mask of the 16 that follow it.
    pub fn entries(&self) -> impl Iterator<Item = (u16, u16)> + use<'a> {
        let (words, _) = self.entries.as_chunks::<4>();
        words
            .iter()
            .map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
    }

    /// The missing sequence numbers. Up to 17 per entry, so the caller bounds what it does for one datagram.
    pub fn seqs(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.entries().flat_map(|(pid, mask)| {
            let following = (0..16u16).filter(move |bit| mask >> bit & 1 == 1);
            std::iter::once(pid).chain(following.map(move |bit| pid.wrapping_add(bit + 1)))
        })
    }
}

/// Picture loss indication: a key frame is wanted (RFC 4585 section 6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pli {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Whose picture was lost.
    pub media_ssrc: u32,
}

impl Pli {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (sender_ssrc, media_ssrc) = ssrcs(body)?;
        Some(Self { sender_ssrc, media_ssrc })
    }
}

/// Full intra request: a key frame is wanted, of each of the entries (RFC 5104 section 4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fir<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    entries: &'a [u8],
}

/// One command of a [`Fir`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// Whose key frame is wanted.
    pub ssrc: u32,
    /// Number of the command; the same number is the same command repeated.
    pub seq: u8,
}

impl<'a> Fir<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, _) = ssrcs(body)?;
        let entries = body.get(8..)?;
        (!entries.is_empty() && entries.len() % 8 == 0).then_some(Self { sender_ssrc, entries })
    }

    /// Its commands.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + use<'a> {
        let (entries, _) = self.entries.as_chunks::<8>();
        entries.iter().map(|[a, b, c, d, seq, ..]| FirEntry {
            ssrc: u32::from_be_bytes([*a, *b, *c, *d]),
            seq: *seq,
        })
    }
}

/// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender_ssrc: u32,
    /// Bits per second over all the sources.
    pub bitrate: u64,
    ssrcs: &'a [u8],
}

impl<'a> Remb<'a> {
    pub(super) const ID: [u8; 4] = *b"REMB";

    pub(super) fn is(body: &[u8]) -> bool {
        array(body, 8) == Some(Self::ID)
    }

    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, _) = ssrcs(body)?;
        let [count, exponent, ..] = array::<4>(body, 12)?;
        let mantissa = u64::from(u24_at(body, 13)? & 0x3_ffff);
        let exponent = u32::from(exponent >> 2);
        let bitrate = if mantissa == 0 {
            0
        } else if exponent > mantissa.leading_zeros() {
            u64::MAX
        } else {
            mantissa << exponent
        };
        Some(Self { sender_ssrc, bitrate, ssrcs: body.get(16..)?.get(..4 * usize::from(count))? })
    }

    /// The exponent and mantissa that come nearest to a bitrate from below.
    pub(super) fn float(bitrate: u64) -> [u8; 3] {
        let exponent = (u64::BITS - bitrate.leading_zeros()).saturating_sub(18);
        let mantissa = (bitrate >> exponent) as u32;
        let [_, a, b, c] = (exponent << 18 | mantissa).to_be_bytes();
        [a, b, c]
    }

    /// The sources that the bitrate is for.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.ssrcs.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word))
    }
}

/// The two SSRCs that every feedback packet begins with.
pub(super) fn ssrcs(body: &[u8]) -> Option<(u32, u32)> {
    Some((u32_at(body, 0)?, u32_at(body, 4)?))
}
