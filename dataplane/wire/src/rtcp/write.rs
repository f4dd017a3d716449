//! Writing RTCP packets one after the other into a buffer.

use super::congestion::{self, Outcome};
use super::feedback::Remb;
use super::report::{ReportBlock, SourceDescription};
use super::transport_cc::{self, Arrival};
use super::xr::{Dlrr, ExtendedReport};
use super::{
    BYE, FMT_APPLICATION, FMT_CONGESTION_CONTROL, FMT_FIR, FMT_NACK, FMT_PLI, FMT_TRANSPORT_CC,
    PSFB, RR, RTPFB, SDES, SR, XR,
};
use crate::bytes::Cursor;
use crate::{Full, seq};

/// Writes a compound: each method adds one packet, or, when it returns [`Full`], leaves the compound as it was.
pub struct Writer<'a> {
    out: Cursor<'a>,
}

impl<'a> Writer<'a> {
    /// Writes to the front of `out`.
    #[must_use]
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out: Cursor::new(out) }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes still free.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.out.remaining()
    }

    /// Uses no more than so many bytes of the buffer.
    pub fn limit(&mut self, bytes: usize) {
        self.out.limit(bytes);
    }

    /// What was written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.out.written()
    }

    /// Adds a sender report. At most 31 blocks; what is beyond is left out.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn sender_report(
        &mut self,
        ssrc: u32,
        ntp: u64,
        rtp_timestamp: u32,
        packet_count: u32,
        octet_count: u32,
        reports: &[ReportBlock],
    ) -> Result<(), Full> {
        let (count, reports) = at_most_31(reports);
        self.packet(SR, count, |out| {
            out.push(&ssrc.to_be_bytes())?;
            out.push(&ntp.to_be_bytes())?;
            for word in [rtp_timestamp, packet_count, octet_count] {
                out.push(&word.to_be_bytes())?;
            }
            reports.iter().try_for_each(|report| out.push(&report.bytes()))
        })
    }

    /// Adds a receiver report. At most 31 blocks; what is beyond is left out.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn receiver_report(&mut self, ssrc: u32, reports: &[ReportBlock]) -> Result<(), Full> {
        let (count, reports) = at_most_31(reports);
        self.packet(RR, count, |out| {
            out.push(&ssrc.to_be_bytes())?;
            reports.iter().try_for_each(|report| out.push(&report.bytes()))
        })
    }

    /// Adds a source description of one source, with its canonical name (cut after 255 bytes).
    ///
    /// # Errors
    /// When it does not fit.
    pub fn cname(&mut self, ssrc: u32, cname: &[u8]) -> Result<(), Full> {
        let cname = cname.get(..255).unwrap_or(cname);
        self.packet(SDES, 1, |out| {
            out.push(&ssrc.to_be_bytes())?;
            out.push(&[SourceDescription::CNAME, cname.len() as u8])?;
            out.push(cname)?;
            // One zero at least ends the items.
            out.push(&[0])?;
            out.align()
        })
    }

    /// Adds a goodbye. At most 31 sources; what is beyond is left out.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn bye(&mut self, ssrcs: &[u32]) -> Result<(), Full> {
        let (count, ssrcs) = at_most_31(ssrcs);
        self.packet(BYE, count, |out| {
            ssrcs.iter().try_for_each(|ssrc| out.push(&ssrc.to_be_bytes()))
        })
    }

    /// Adds a NACK for these sequence numbers, fewest bytes when they ascend. Nothing for no numbers.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn nack(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
        seqs: impl IntoIterator<Item = u16>,
    ) -> Result<(), Full> {
        let mut seqs = seqs.into_iter();
        let Some(mut pid) = seqs.next() else { return Ok(()) };
        self.packet(RTPFB, FMT_NACK, |out| {
            push_ssrcs(out, sender_ssrc, media_ssrc)?;
            let mut mask = 0u16;
            for seq in seqs {
                match seq::distance(pid, seq) {
                    0 => {}
                    ahead @ 1..=16 => mask |= 1 << (ahead - 1),
                    _ => {
                        push_pair(out, pid, mask)?;
                        (pid, mask) = (seq, 0);
                    }
                }
            }
            push_pair(out, pid, mask)
        })
    }

    /// Adds a picture loss indication.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn pli(&mut self, sender_ssrc: u32, media_ssrc: u32) -> Result<(), Full> {
        self.packet(PSFB, FMT_PLI, |out| push_ssrcs(out, sender_ssrc, media_ssrc))
    }

    /// Adds a full intra request with one command, number `seq`.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn fir(&mut self, sender_ssrc: u32, media_ssrc: u32, seq: u8) -> Result<(), Full> {
        self.packet(PSFB, FMT_FIR, |out| {
            // RFC 5104 section 4.3.1.2: the media SSRC of the header is not used and is 0.
            push_ssrcs(out, sender_ssrc, 0)?;
            out.push(&media_ssrc.to_be_bytes())?;
            out.push(&[seq, 0, 0, 0])
        })
    }

    /// Adds a REMB, rounded down to 18 significant bits. At most 255 sources; what is beyond is left out.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn remb(&mut self, sender_ssrc: u32, bitrate: u64, ssrcs: &[u32]) -> Result<(), Full> {
        let ssrcs = ssrcs.get(..255).unwrap_or(ssrcs);
        self.packet(PSFB, FMT_APPLICATION, |out| {
            push_ssrcs(out, sender_ssrc, 0)?;
            out.push(&Remb::ID)?;
            out.push(&[ssrcs.len() as u8])?;
            out.push(&Remb::float(bitrate))?;
            ssrcs.iter().try_for_each(|ssrc| out.push(&ssrc.to_be_bytes()))
        })
    }

    /// Adds transport-wide feedback for arrivals in ascending order of sequence number, and returns how many of them
    /// it tells about: it ends before a number that does not ascend, a delta beyond ±8.19 s, or after 8,191
    /// statuses. Call again with the rest and the next count. Nothing for no arrivals.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn transport_cc(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
        feedback_count: u8,
        arrivals: &[Arrival],
    ) -> Result<usize, Full> {
        if arrivals.is_empty() {
            return Ok(0);
        }
        let mut included = 0;
        self.packet(RTPFB, FMT_TRANSPORT_CC, |out| {
            push_ssrcs(out, sender_ssrc, media_ssrc)?;
            included = transport_cc::write(out, feedback_count, arrivals)?;
            out.align()
        })?;
        Ok(included)
    }

    /// Adds congestion control feedback (RFC 8888) made at `now_us`, which is `report_timestamp` in 65,536ths of a second,
    /// and returns how many of the outcomes it tells about: as many as there is room for. Those of a stream are to stand
    /// together in ascending order; numbers left out between two did not arrive. Nothing for no outcomes.
    ///
    /// # Errors
    /// When not even the first fits.
    pub fn congestion_control(
        &mut self,
        sender_ssrc: u32,
        now_us: u64,
        report_timestamp: u32,
        outcomes: &[Outcome],
    ) -> Result<usize, Full> {
        if outcomes.is_empty() {
            return Ok(0);
        }
        let mut included = 0;
        self.packet(RTPFB, FMT_CONGESTION_CONTROL, |out| {
            out.push(&sender_ssrc.to_be_bytes())?;
            included = congestion::write(out, now_us, report_timestamp, outcomes)?;
            Ok(())
        })?;
        Ok(included)
    }

    /// Adds an extended report with the reporter's wall-clock time, NTP 32.32.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn receiver_reference_time(&mut self, ssrc: u32, ntp: u64) -> Result<(), Full> {
        self.packet(XR, 0, |out| {
            out.push(&ssrc.to_be_bytes())?;
            out.push(&[ExtendedReport::RRTR, 0, 0, 2])?;
            out.push(&ntp.to_be_bytes())
        })
    }

    /// Adds an extended report that answers others' reference times.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn dlrr(&mut self, ssrc: u32, pieces: &[Dlrr]) -> Result<(), Full> {
        let words = u16::try_from(pieces.len() * Dlrr::LEN / 4).map_err(|_| Full)?;
        self.packet(XR, 0, |out| {
            out.push(&ssrc.to_be_bytes())?;
            out.push(&[ExtendedReport::DLRR, 0])?;
            out.push(&words.to_be_bytes())?;
            for piece in pieces {
                for word in [piece.ssrc, piece.last_rr, piece.delay_since_last_rr] {
                    out.push(&word.to_be_bytes())?;
                }
            }
            Ok(())
        })
    }

    fn packet(
        &mut self,
        packet_type: u8,
        count: u8,
        body: impl FnOnce(&mut Cursor<'a>) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let start = self.out.len();
        let written = self.out.push(&[0x80 | count, packet_type, 0, 0]).and_then(|()| {
            body(&mut self.out)?;
            let words = u16::try_from((self.out.len() - start) / 4 - 1).map_err(|_| Full)?;
            self.out.patch(start + 2, &words.to_be_bytes())
        });
        if written.is_err() {
            self.out.truncate(start);
        }
        written
    }
}

fn at_most_31<T>(items: &[T]) -> (u8, &[T]) {
    let items = items.get(..31).unwrap_or(items);
    (items.len() as u8, items)
}

fn push_ssrcs(out: &mut Cursor<'_>, sender_ssrc: u32, media_ssrc: u32) -> Result<(), Full> {
    out.push(&sender_ssrc.to_be_bytes())?;
    out.push(&media_ssrc.to_be_bytes())
}

fn push_pair(out: &mut Cursor<'_>, first: u16, second: u16) -> Result<(), Full> {
    out.push(&first.to_be_bytes())?;
    out.push(&second.to_be_bytes())
}
