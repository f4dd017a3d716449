//! Extended reports: round-trip time for those who only receive (RFC 3611 sections 4.4 and 4.5).

use crate::bytes::{array, u32_at, u64_at};

/// An extended report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    blocks: &'a [u8],
}

/// One block of an [`ExtendedReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XrBlock<'a> {
    /// The reporter's wall-clock time, NTP 32.32 (section 4.4).
    ReceiverReferenceTime(u64),
    /// How long ago others' reference times came (section 4.5): pieces of 12 bytes.
    Dlrr(Dlrrs<'a>),
    /// Any other block type.
    Other(u8),
}

/// The pieces of a DLRR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dlrrs<'a>(&'a [u8]);

/// How long ago the reference time of one receiver came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dlrr {
    /// That receiver.
    pub ssrc: u32,
    /// Middle 32 bits of its reference time.
    pub last_rr: u32,
    /// Time since then, in 65,536ths of a second.
    pub delay_since_last_rr: u32,
}

impl Dlrr {
    pub(super) const LEN: usize = 12;
}

impl<'a> ExtendedReport<'a> {
    pub(super) const RRTR: u8 = 4;
    pub(super) const DLRR: u8 = 5;

    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        Some(Self { ssrc: u32_at(body, 0)?, blocks: body.get(4..)? })
    }

    /// Its blocks. A malformed one ends the iteration.
    pub fn blocks(&self) -> impl Iterator<Item = XrBlock<'a>> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let [kind, _, words @ ..] = array::<4>(rest, 0)?;
            let after = rest.get(4..)?;
            let (content, after) =
                after.split_at_checked(4 * usize::from(u16::from_be_bytes(words)))?;
            rest = after;
            Some(match kind {
                Self::RRTR => XrBlock::ReceiverReferenceTime(u64_at(content, 0)?),
                Self::DLRR => XrBlock::Dlrr(Dlrrs(content)),
                _ => XrBlock::Other(kind),
            })
        })
    }
}

impl<'a> Dlrrs<'a> {
    /// One piece per receiver.
    pub fn iter(&self) -> impl Iterator<Item = Dlrr> + use<'a> {
        self.0.chunks_exact(Dlrr::LEN).filter_map(|piece| {
            Some(Dlrr {
                ssrc: u32_at(piece, 0)?,
                last_rr: u32_at(piece, 4)?,
                delay_since_last_rr: u32_at(piece, 8)?,
            })
        })
    }
}
