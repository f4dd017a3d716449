//! RTCP packets, alone or in compounds (RFC 3550 section 6, RFC 4585, RFC 3611, RFC 5506, RFC 8888).
//!
//! [`packets`] goes through what one datagram holds; [`Writer`] puts packets into a buffer. Reduced-size packets are
//! allowed (RFC 5506), so no order is asked of them.

mod congestion;
mod feedback;
mod report;
mod transport_cc;
mod write;
mod xr;

pub use congestion::{CongestionControl, Metric, Outcome, StreamReport};
pub use feedback::{Fir, FirEntry, Nack, Pli, Remb};
pub use report::{
    Bye, ReceiverReport, ReportBlock, SdesChunk, SdesItem, SenderReport, SourceDescription,
};
pub use transport_cc::{Arrival, Statuses, TransportCc};
pub use write::Writer;
pub use xr::{Dlrr, ExtendedReport, XrBlock};

use crate::bytes::array;

/// Packet type of a sender report.
pub const SR: u8 = 200;
/// Packet type of a receiver report.
pub const RR: u8 = 201;
/// Packet type of a source description.
pub const SDES: u8 = 202;
/// Packet type of a goodbye.
pub const BYE: u8 = 203;
/// Packet type of transport-layer feedback (RFC 4585).
pub const RTPFB: u8 = 205;
/// Packet type of payload-specific feedback (RFC 4585).
pub const PSFB: u8 = 206;
/// Packet type of an extended report (RFC 3611).
pub const XR: u8 = 207;

/// Why bytes are not an RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// A packet goes past the end of the datagram.
    TooShort,
    /// The version is not 2.
    Version,
    /// The padding count is zero or larger than the packet.
    Padding,
    /// The header is fine, but what follows is not what the packet type says.
    Body,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooShort => "RTCP packet goes past the end of the datagram",
            Self::Version => "RTCP version is not 2",
            Self::Padding => "RTCP padding count does not fit the packet",
            Self::Body => "RTCP body does not fit its packet type",
        })
    }
}

impl std::error::Error for Error {}

/// One RTCP packet.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// Sender report.
    SenderReport(SenderReport<'a>),
    /// Receiver report.
    ReceiverReport(ReceiverReport<'a>),
    /// Source description: who is behind an SSRC.
    SourceDescription(SourceDescription<'a>),
    /// Goodbye.
    Bye(Bye<'a>),
    /// Lost packets asked for again (RFC 4585 section 6.2.1).
    Nack(Nack<'a>),
    /// Arrival times for congestion control (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc(TransportCc<'a>),
    /// The same for each stream by its own numbers, with ECN marks (RFC 8888).
    CongestionControl(CongestionControl<'a>),
    /// Picture loss indication (RFC 4585 section 6.3.1).
    Pli(Pli),
    /// Full intra request (RFC 5104 section 4.3.1).
    Fir(Fir<'a>),
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03).
    Remb(Remb<'a>),
    /// Extended report (RFC 3611).
    ExtendedReport(ExtendedReport<'a>),
    /// Anything else; to be ignored, not refused (RFC 3550 section 6.1).
    Other(Other<'a>),
}

/// A packet of a type or format that this crate does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other<'a> {
    /// Packet type.
    pub packet_type: u8,
    /// The five bits that are a count, a subtype or a feedback format.
    pub count: u8,
    /// What follows the first four bytes, without padding.
    pub body: &'a [u8],
}

/// Goes through the RTCP packets of one datagram.
///
/// A packet whose body is malformed yields an error and the next one follows; a header that is malformed yields an
/// error and ends the iteration, because where the next packet begins is then unknown.
#[must_use]
pub const fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram }
}

/// See [`packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Raw::split(self.rest) {
            Ok((raw, rest)) => {
                self.rest = rest;
                Some(raw.and_then(Packet::read))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

impl<'a> Packet<'a> {
    fn read(raw: Raw<'a>) -> Result<Self, Error> {
        let Raw { packet_type, count, body } = raw;
        match (packet_type, count) {
            (SR, _) => SenderReport::read(count, body).map(Self::SenderReport),
            (RR, _) => ReceiverReport::read(count, body).map(Self::ReceiverReport),
            (SDES, _) => Some(Self::SourceDescription(SourceDescription::new(count, body))),
            (BYE, _) => Bye::read(count, body).map(Self::Bye),
            (RTPFB, FMT_NACK) => Nack::read(body).map(Self::Nack),
            (RTPFB, FMT_TRANSPORT_CC) => TransportCc::read(body).map(Self::TransportCc),
            (RTPFB, FMT_CONGESTION_CONTROL) => {
                CongestionControl::read(body).map(Self::CongestionControl)
            }
            (PSFB, FMT_PLI) => Pli::read(body).map(Self::Pli),
            (PSFB, FMT_FIR) => Fir::read(body).map(Self::Fir),
            (PSFB, FMT_APPLICATION) if Remb::is(body) => Remb::read(body).map(Self::Remb),
            (XR, _) => ExtendedReport::read(body).map(Self::ExtendedReport),
            _ => Some(Self::Other(Other { packet_type, count, body })),
        }
        .ok_or(Error::Body)
    }
}

/// A packet by its common header only.
struct Raw<'a> {
    packet_type: u8,
    count: u8,
    body: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The first packet and the rest. The outer error ends a compound, the inner one only concerns this packet.
    fn split(bytes: &'a [u8]) -> Result<(Result<Self, Error>, &'a [u8]), Error> {
        let [first, packet_type, words @ ..] = array::<4>(bytes, 0).ok_or(Error::TooShort)?;
        if first >> 6 != 2 {
            return Err(Error::Version);
        }
        let len = 4 + 4 * usize::from(u16::from_be_bytes(words));
        let (packet, rest) = bytes.split_at_checked(len).ok_or(Error::TooShort)?;
        let body = packet.get(4..).unwrap_or_default();
        let body = if first & 0x20 == 0 { Some(body) } else { without_padding(body) };
        let raw = body.map(|body| Self { packet_type, count: first & 0x1f, body });
        Ok((raw.ok_or(Error::Padding), rest))
    }
}

/// RFC 3550 section 6.4.1 wants a multiple of four; browsers also end transport-cc feedback in one to three bytes.
fn without_padding(body: &[u8]) -> Option<&[u8]> {
    let count = usize::from(*body.last()?);
    if count == 0 { None } else { body.get(..body.len().checked_sub(count)?) }
}

const FMT_NACK: u8 = 1;
const FMT_CONGESTION_CONTROL: u8 = 11;
const FMT_TRANSPORT_CC: u8 = 15;
const FMT_PLI: u8 = 1;
const FMT_FIR: u8 = 4;
const FMT_APPLICATION: u8 = 15;
