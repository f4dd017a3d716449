//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).

use super::feedback::ssrcs;
use crate::Full;
use crate::bytes::{Cursor, u16_at, u24_at};
use crate::seq;

/// Arrival times of packets that carry a transport-wide sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportCc<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// A source of the transport; which one says nothing.
    pub media_ssrc: u32,
    /// Transport-wide sequence number of the first packet.
    pub base_seq: u16,
    /// Packets that it tells about, lost ones included.
    pub status_count: u16,
    /// What the first delta is relative to, in units of 64 ms on the reporter's clock; 24 bits, signed, wrapping.
    pub reference_time: i32,
    /// Counts these packets, so that lost ones show.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportCc<'a> {
    /// One unit of a delta, in microseconds.
    pub const DELTA_US: i64 = 250;
    /// One unit of the reference time, in microseconds.
    pub const REFERENCE_US: i64 = 64_000;

    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (sender_ssrc, media_ssrc) = ssrcs(body)?;
        let status_count = u16_at(body, 10)?;
        let rest = body.get(16..)?;
        let (mut chunks_len, mut left, mut deltas_len) = (0, status_count, 0);
        while left > 0 {
            let chunk = Chunk::read(u16_at(rest, chunks_len)?);
            let count = chunk.len().min(left);
            deltas_len += chunk.delta_bytes(count)?;
            left -= count;
            chunks_len += 2;
        }
        let (chunks, rest) = rest.split_at_checked(chunks_len)?;
        Some(Self {
            sender_ssrc,
            media_ssrc,
            base_seq: u16_at(body, 8)?,
            status_count,
            reference_time: (u24_at(body, 12)? << 8).cast_signed() >> 8,
            feedback_count: *body.get(15)?,
            chunks,
            deltas: rest.get(..deltas_len)?,
        })
    }

    /// The reference time in microseconds on the reporter's clock.
    #[must_use]
    pub const fn reference_us(&self) -> i64 {
        self.reference_time as i64 * Self::REFERENCE_US
    }

    /// Every packet's sequence number, and for those that arrived the delta to the one that arrived before it (the
    /// first: to the reference time), in units of 250 µs. Up to 65,535 in a few bytes: the caller bounds its work.
    #[must_use]
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            seq: self.base_seq,
            left: self.status_count,
            chunk: None,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }
}

/// See [`TransportCc::statuses`].
#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    seq: u16,
    left: u16,
    chunk: Option<(Chunk, u16)>,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl Iterator for Statuses<'_> {
    type Item = (u16, Option<i16>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (chunk, at) = match self.chunk {
            Some((chunk, at)) if at < chunk.len() => (chunk, at),
            _ => {
                let (word, rest) = self.chunks.split_first_chunk()?;
                self.chunks = rest;
                (Chunk::read(u16::from_be_bytes(*word)), 0)
            }
        };
        self.chunk = Some((chunk, at + 1));
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let delta = match chunk.symbol(at) {
            SMALL => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(i16::from(*delta))
            }
            LARGE => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                Some(i16::from_be_bytes(*delta))
            }
            _ => None,
        };
        Some((seq, delta))
    }
}

const MISSING: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;

#[derive(Clone, Copy, Debug)]
enum Chunk {
    Run { symbol: u8, len: u16 },
    OneBit(u16),
    TwoBit(u16),
}

impl Chunk {
    const RUN_MAX: u16 = 0x1fff;

    fn read(word: u16) -> Self {
        match word >> 14 {
            0 | 1 => Self::Run { symbol: (word >> 13 & 3) as u8, len: word & Self::RUN_MAX },
            2 => Self::OneBit(word),
            _ => Self::TwoBit(word),
        }
    }

    fn len(self) -> u16 {
        match self {
            Self::Run { len, .. } => len,
            Self::OneBit(_) => 14,
            Self::TwoBit(_) => 7,
        }
    }

    fn symbol(self, at: u16) -> u8 {
        match self {
            Self::Run { symbol, .. } => symbol,
            Self::OneBit(word) => (word >> 13u16.saturating_sub(at) & 1) as u8,
            Self::TwoBit(word) => (word >> 12u16.saturating_sub(2 * at) & 3) as u8,
        }
    }

    /// Bytes of deltas for the first `count` packets; `None` with an empty run or the reserved symbol.
    fn delta_bytes(self, count: u16) -> Option<usize> {
        match self {
            // An empty run would let a reader go on through a datagram without getting anywhere.
            Self::Run { len: 0, .. } | Self::Run { symbol: 3, .. } => None,
            Self::Run { symbol, .. } => Some(usize::from(symbol) * usize::from(count)),
            _ => (0..count).try_fold(0, |sum, at| match self.symbol(at) {
                3 => None,
                symbol => Some(sum + usize::from(symbol)),
            }),
        }
    }
}

/// A packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Transport-wide sequence number.
    pub seq: u16,
    /// When, in microseconds on the reporter's clock.
    pub at_us: u64,
}

/// Statuses that one feedback packet tells about at most; a larger hole begins a new packet.
pub(super) const STATUSES_MAX: u16 = Chunk::RUN_MAX;

/// Writes what follows the SSRCs, and returns how many of the arrivals it tells about.
pub(super) fn write(
    out: &mut Cursor<'_>,
    feedback_count: u8,
    arrivals: &[Arrival],
) -> Result<usize, Full> {
    let Some(first) = arrivals.first() else { return Ok(0) };
    let reference = first.at_us / TransportCc::REFERENCE_US.cast_unsigned();
    let origin_us = reference * TransportCc::REFERENCE_US.cast_unsigned();
    let (mut included, mut count) = (0, 0);
    let mut symbols = Symbols::new(origin_us, arrivals);
    while let Some((_, arrived)) = symbols.next() {
        count += 1;
        if arrived {
            (included, symbols.included_count) = (included + 1, count);
        }
        if count == STATUSES_MAX {
            break;
        }
    }
    let status_count = symbols.included_count;
    let arrivals = arrivals.get(..included).unwrap_or_default();
    out.push(&first.seq.to_be_bytes())?;
    out.push(&status_count.to_be_bytes())?;
    let [.., a, b, c] = reference.to_be_bytes();
    out.push(&[a, b, c, feedback_count])?;
    let mut symbols = Symbols::new(origin_us, arrivals);
    while symbols.left() {
        out.push(&next_chunk(&mut symbols).to_be_bytes())?;
    }
    let mut deltas = Deltas { at_us: origin_us };
    for arrival in arrivals {
        match deltas.next(arrival.at_us) {
            Some(delta) if (0..=255).contains(&delta) => out.push(&[delta as u8])?,
            Some(delta) => out.push(&delta.to_be_bytes())?,
            None => return Err(Full),
        }
    }
    Ok(included)
}

fn next_chunk(symbols: &mut Symbols<'_>) -> u16 {
    let first = symbols.clone().next().map_or(MISSING, |(symbol, _)| symbol);
    let ahead = symbols.clone();
    let run = ahead
        .clone()
        .take_while(|(symbol, _)| *symbol == first)
        .take(Chunk::RUN_MAX.into())
        .count();
    let one_bit = ahead.clone().take(14).all(|(symbol, _)| symbol != LARGE);
    let rest = ahead.take(14).count();
    let vector = if one_bit { 14 } else { 7 };
    if run >= vector || run == rest {
        symbols.by_ref().take(run).for_each(drop);
        return u16::from(first) << 13 | run as u16;
    }
    let bits = if one_bit { 1 } else { 2 };
    let (mut word, mut shift) = (if one_bit { 0x8000 } else { 0xc000 }, 14);
    for (symbol, _) in symbols.by_ref().take(vector) {
        shift -= bits;
        word |= u16::from(symbol) << shift;
    }
    word
}

/// Deltas from one arrival to the next, rounded so that the error does not add up.
#[derive(Clone)]
struct Deltas {
    at_us: u64,
}

impl Deltas {
    /// `None` when the delta does not fit 16 bits.
    fn next(&mut self, at_us: u64) -> Option<i16> {
        let us = at_us.cast_signed().checked_sub(self.at_us.cast_signed())?;
        let delta = us.checked_add(TransportCc::DELTA_US / 2)?.div_euclid(TransportCc::DELTA_US);
        let delta = i16::try_from(delta).ok()?;
        self.at_us = self.at_us.saturating_add_signed(i64::from(delta) * TransportCc::DELTA_US);
        Some(delta)
    }
}

/// The symbols of the packets from the first arrival to the last, holes included, until one cannot be told.
#[derive(Clone)]
struct Symbols<'a> {
    arrivals: &'a [Arrival],
    next_seq: Option<u16>,
    deltas: Deltas,
    included_count: u16,
}

impl<'a> Symbols<'a> {
    fn new(origin_us: u64, arrivals: &'a [Arrival]) -> Self {
        Self { arrivals, next_seq: None, deltas: Deltas { at_us: origin_us }, included_count: 0 }
    }

    fn left(&self) -> bool {
        !self.arrivals.is_empty()
    }
}

impl Iterator for Symbols<'_> {
    /// The symbol, and whether it uses up an arrival.
    type Item = (u8, bool);

    fn next(&mut self) -> Option<(u8, bool)> {
        let (arrival, rest) = self.arrivals.split_first()?;
        let next_seq = self.next_seq.unwrap_or(arrival.seq);
        let ahead = seq::distance(next_seq, arrival.seq);
        // Out of order: the caller's slice is not sorted from here on, so here the packet ends.
        if ahead < 0 {
            return None;
        }
        self.next_seq = Some(next_seq.wrapping_add(1));
        if ahead > 0 {
            return Some((MISSING, false));
        }
        self.arrivals = rest;
        let delta = self.deltas.next(arrival.at_us)?;
        Some((if (0..=255).contains(&delta) { SMALL } else { LARGE }, true))
    }
}
