//! Congestion control feedback (RFC 8888): what arrived of each stream, when, and with which ECN marks.

use crate::Full;
use crate::bytes::{Cursor, u16_at, u32_at};
use crate::seq;

/// What became of the packets of some streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionControl<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// When, in 65,536ths of a second on the reporter's clock: as the middle 32 bits of an NTP time.
    pub report_timestamp: u32,
    streams: &'a [u8],
}

/// What became of the packets of one stream, from one sequence number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamReport<'a> {
    /// Which stream.
    pub ssrc: u32,
    /// The first sequence number that is told about.
    pub begin_seq: u16,
    metrics: &'a [u8],
}

/// That a packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// ECN code point that it arrived with (RFC 3168), 0 to 3.
    pub ecn: u8,
    /// How long before the report, in 1,024ths of a second; `None`: not known, or longer than can be said (8 s).
    pub offset: Option<u16>,
}

/// What became of a packet, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of which stream.
    pub ssrc: u32,
    /// Which.
    pub seq: u16,
    /// When it arrived, in microseconds; `None`: it did not.
    pub at_us: Option<u64>,
    /// With which ECN code point, 0 to 3.
    pub ecn: u8,
}

impl<'a> CongestionControl<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let rest = body.get(4..)?;
        let (streams, timestamp) = rest.split_at_checked(rest.len().checked_sub(4)?)?;
        let mut left = streams;
        while !left.is_empty() {
            (_, left) = StreamReport::split(left)?;
        }
        Some(Self {
            sender_ssrc: u32_at(body, 0)?,
            report_timestamp: u32_at(timestamp, 0)?,
            streams,
        })
    }

    /// Its streams. As many as the bytes hold, 8 bytes each at least: the caller bounds what it does with them.
    pub fn streams(&self) -> impl Iterator<Item = StreamReport<'a>> + use<'a> {
        let mut left = self.streams;
        std::iter::from_fn(move || {
            let (stream, rest) = StreamReport::split(left)?;
            left = rest;
            Some(stream)
        })
    }
}

impl<'a> StreamReport<'a> {
    /// The first of several, and the rest.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (ssrc, begin_seq, count) = (u32_at(bytes, 0)?, u16_at(bytes, 4)?, u16_at(bytes, 6)?);
        let len = 2 * usize::from(count);
        // Two bytes of padding follow an odd number of metrics.
        let (metrics, rest) = bytes.get(8..)?.split_at_checked(len.next_multiple_of(4))?;
        let metrics = metrics.get(..len).filter(|_| count <= REPORTS_MAX)?;
        Some((Self { ssrc, begin_seq, metrics }, rest))
    }

    /// How many packets it tells about.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.metrics.len() / 2
    }

    /// Whether it tells about none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// What it says of a packet: `None` where it says nothing, `Some(None)` of one that did not arrive.
    #[must_use]
    pub fn metric(&self, seq: u16) -> Option<Option<Metric>> {
        let at = usize::from(seq.wrapping_sub(self.begin_seq));
        let word = u16_at(self.metrics, 2 * at)?;
        let offset = Some(word & OFFSET_BITS).filter(|offset| *offset < OFFSET_LARGE);
        let arrived = word & ARRIVED != 0;
        Some(arrived.then_some(Metric { ecn: (word >> ECN_SHIFT & 3) as u8, offset }))
    }

    /// Each packet with what is said of it.
    pub fn metrics(&self) -> impl Iterator<Item = (u16, Option<Metric>)> + use<'a> {
        let report = *self;
        let seqs = (0..report.len()).map(move |at| report.begin_seq.wrapping_add(at as u16));
        seqs.filter_map(move |seq| Some((seq, report.metric(seq)?)))
    }
}

impl Metric {
    /// How long before the report it arrived, in microseconds.
    #[must_use]
    pub fn offset_us(&self) -> Option<i64> {
        self.offset.map(|offset| i64::from(offset) * 1_000_000 / OFFSETS_PER_SECOND as i64)
    }
}

/// Writes what follows the reporter's SSRC, and returns how many of the outcomes it tells about.
pub(super) fn write(
    out: &mut Cursor<'_>,
    now_us: u64,
    report_timestamp: u32,
    outcomes: &[Outcome],
) -> Result<usize, Full> {
    let mut included = 0;
    while let Some((first, rest)) = outcomes.get(included..).and_then(<[_]>::split_first) {
        let room = out.remaining().saturating_sub(TIMESTAMP_BYTES + STREAM_BYTES);
        let metrics_max = (room / 4 * 2).min(REPORTS_MAX.into());
        if metrics_max == 0 {
            break;
        }
        // As long as the numbers of the stream ascend and there is room for the holes as well.
        let (mut taken, mut last) = (1, 0);
        for outcome in rest {
            let ahead = seq::distance(first.seq, outcome.seq);
            let follows = outcome.ssrc == first.ssrc && ahead > last;
            if !follows || usize::try_from(ahead).is_ok_and(|ahead| ahead >= metrics_max) {
                break;
            }
            (taken, last) = (taken + 1, ahead);
        }
        out.push(&first.ssrc.to_be_bytes())?;
        out.push(&first.seq.to_be_bytes())?;
        out.push(&(last.cast_unsigned() + 1).to_be_bytes())?;
        let mut next = first.seq;
        for outcome in outcomes.iter().skip(included).take(taken) {
            let hole = usize::from(outcome.seq.wrapping_sub(next));
            out.zeros(2 * hole)?;
            out.push(&word(now_us, outcome).to_be_bytes())?;
            next = outcome.seq.wrapping_add(1);
        }
        out.align()?;
        included += taken;
    }
    if included == 0 && !outcomes.is_empty() {
        return Err(Full);
    }
    out.push(&report_timestamp.to_be_bytes())?;
    Ok(included)
}

fn word(now_us: u64, outcome: &Outcome) -> u16 {
    let Some(at_us) = outcome.at_us else { return 0 };
    let offset = match now_us.checked_sub(at_us) {
        None => OFFSET_UNKNOWN,
        Some(us) => {
            let offset = us.saturating_mul(OFFSETS_PER_SECOND) / 1_000_000;
            offset.min(OFFSET_LARGE.into()) as u16
        }
    };
    ARRIVED | u16::from(outcome.ecn & 3) << ECN_SHIFT | offset
}

const ARRIVED: u16 = 0x8000;
const ECN_SHIFT: u16 = 13;
const OFFSET_BITS: u16 = 0x1fff;
/// RFC 8888 section 3.1: it arrived longer ago than can be said.
const OFFSET_LARGE: u16 = 0x1ffe;
/// It arrived after the report, or nobody knows when.
const OFFSET_UNKNOWN: u16 = 0x1fff;
const OFFSETS_PER_SECOND: u64 = 1024;
/// More of one stream would be more than a quarter of the circle of sequence numbers.
const REPORTS_MAX: u16 = 16_384;
const STREAM_BYTES: usize = 8;
const TIMESTAMP_BYTES: usize = 4;
