//! What arrives from a publisher, measured as RFC 3550 wants it reported.

use crate::time::{Instant, Now};
use strait_wire::rtcp::ReportBlock;

/// The last sender report of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderInfo {
    /// The sender's wall clock, NTP 32.32.
    pub(crate) ntp: u64,
    /// The same moment in RTP timestamp units.
    pub(crate) timestamp: u32,
    /// When the report arrived.
    pub(crate) at: Instant,
}

/// Loss and jitter of one source (RFC 3550 appendix A.3 and A.8).
#[derive(Debug, Default)]
pub(crate) struct Reception {
    first: Option<u64>,
    newest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// In sixteenths of a timestamp unit.
    jitter: u32,
    transit: Option<u32>,
    sender: Option<SenderInfo>,
}

impl Reception {
    /// Takes note of an original packet, be it after its retransmission. Those have an SSRC of their own and are not counted:
    /// they would hide what the way to us loses.
    pub(crate) fn on_packet(&mut self, at: Instant, seq: u64, timestamp: u32, clock_rate_hz: u32) {
        // What the first one overtook was sent as well. RFC 3550 would have it as fewer than none lost.
        self.first = Some(self.first.map_or(seq, |first| first.min(seq)));
        self.newest = self.newest.max(seq);
        self.received += 1;
        let ticks = u128::from(at.0) * u128::from(clock_rate_hz) / 1_000_000_000;
        let transit = (ticks as u32).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = transit.wrapping_sub(before).cast_signed().unsigned_abs();
            // A jump of more than a minute is a new start of the timestamps, not jitter.
            if difference < clock_rate_hz.saturating_mul(60) {
                self.jitter = self.jitter.saturating_add(difference) - ((self.jitter + 8) >> 4);
            }
        }
    }

    /// Takes note of a sender report.
    pub(crate) fn on_sender_report(&mut self, sender: SenderInfo) {
        self.sender = Some(sender);
    }

    /// The last sender report.
    pub(crate) fn sender(&self) -> Option<SenderInfo> {
        self.sender
    }

    /// Packets lost since the beginning.
    pub(crate) fn lost(&self) -> i64 {
        (self.expected() as i64).saturating_sub(self.received as i64)
    }

    /// Interarrival jitter in timestamp units.
    pub(crate) fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// The report block since the last one; `None` before the first packet.
    pub(crate) fn report(&mut self, now: Now, ssrc: u32) -> Option<ReportBlock> {
        self.first?;
        let expected = self.expected();
        let expected_lately = expected.saturating_sub(self.expected_before);
        let received_lately = self.received.saturating_sub(self.received_before);
        let lost_lately = expected_lately.saturating_sub(received_lately);
        (self.expected_before, self.received_before) = (expected, self.received);
        let fraction = (lost_lately << 8).checked_div(expected_lately).unwrap_or(0);
        let delay = |sender: SenderInfo| now.at.since(sender.at).as_micros() * 65_536 / 1_000_000;
        Some(ReportBlock {
            ssrc,
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7F_FFFF) as i32,
            // The window's numbers begin in the second cycle.
            highest_seq: self.newest.wrapping_sub(1 << 16) as u32,
            jitter: self.jitter(),
            last_sr: self.sender.map_or(0, |sender| (sender.ntp >> 16) as u32),
            delay_since_last_sr: self.sender.map_or(0, |s| delay(s).min(u32::MAX.into()) as u32),
        })
    }

    fn expected(&self) -> u64 {
        self.first.map_or(0, |first| (self.newest + 1).saturating_sub(first))
    }
}

/// How far a publisher's wall clock is from ours, by the quickest of its sender reports.
///
/// All streams of a publisher share it, so that mapping their reports to our clock keeps them in sync with each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClockOffset {
    /// Our NTP time minus theirs, and when it was taken.
    offset: Option<(i64, Instant)>,
}

impl ClockOffset {
    /// Takes note of a sender report that arrived just now.
    pub(crate) fn observe(&mut self, now: Now, sender_ntp: u64) {
        let sample = now.ntp.wrapping_sub(sender_ntp).cast_signed();
        let kept = self.offset.filter(|(offset, at)| {
            // 100 ppm of drift are forgiven, so that an old minimum does not stand for ever.
            let drift = (now.at.since(*at).as_micros() as i64 / 10_000).saturating_mul(4295);
            let step = sample.saturating_sub(*offset);
            step > drift && step < MINUTE_NTP
        });
        if kept.is_none() {
            self.offset = Some((sample, now.at));
        }
    }

    /// A publisher's wall-clock time on ours.
    pub(crate) fn to_ours(self, sender_ntp: u64) -> Option<u64> {
        self.offset.map(|(offset, _)| sender_ntp.wrapping_add_signed(offset))
    }
}

const MINUTE_NTP: i64 = 60 << 32;

/// How many ticks of a clock lie between two NTP times.
pub(crate) fn ticks_between(from: u64, to: u64, clock_rate_hz: u32) -> i64 {
    let span = i128::from(to.wrapping_sub(from).cast_signed());
    ((span * i128::from(clock_rate_hz)) >> 32) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    fn now(ms: u64) -> Now {
        Now { at: at(ms), ntp: (ms << 32) / 1000 }
    }

    #[test]
    fn loss_is_reported_since_the_last_report_and_in_all() {
        let mut reception = Reception::default();
        assert!(reception.report(now(0), 1).is_none());
        for seq in [65_536, 65_537, 65_539, 65_540].map(|seq| seq + 100) {
            reception.on_packet(at(0), seq, 0, 90_000);
        }
        let block = reception.report(now(10), 1).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), ((256 / 5) as u8, 1));
        assert_eq!(block.highest_seq, 104);
        reception.on_packet(at(0), 65_641, 0, 90_000);
        let block = reception.report(now(20), 1).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 1));
    }

    #[test]
    fn what_the_first_overtook_was_sent_too() {
        let mut reception = Reception::default();
        for seq in [65_540, 65_537, 65_541, 65_539] {
            reception.on_packet(at(0), seq, 0, 90_000);
        }
        let block = reception.report(now(10), 1).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), ((256 / 5) as u8, 1));
        reception.on_packet(at(0), 65_538, 0, 90_000);
        let block = reception.report(now(20), 1).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 0));
    }

    #[test]
    fn jitter_follows_the_standard() {
        let mut reception = Reception::default();
        // 20 ms packets at 48 kHz, every second one 5 ms late: |D| is 240 ticks each time.
        for n in 0..400_u64 {
            let late = if n % 2 == 1 { 5 } else { 0 };
            reception.on_packet(at(n * 20 + late), 65_536 + n, (n * 960) as u32, 48_000);
        }
        assert!(reception.jitter().abs_diff(240) <= 2, "{}", reception.jitter());
    }

    #[test]
    fn sender_reports_are_echoed() {
        let mut reception = Reception::default();
        reception.on_packet(at(0), 65_536, 0, 90_000);
        let sender = SenderInfo { ntp: 0x1111_2222_3333_4444, timestamp: 0, at: at(1000) };
        reception.on_sender_report(sender);
        let block = reception.report(now(1500), 1).unwrap();
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0x2222_3333, 32_768));
    }

    #[test]
    fn the_quickest_report_sets_the_clock() {
        let mut clock = ClockOffset::default();
        assert_eq!(clock.to_ours(0), None);
        let second = 1_u64 << 32;
        clock.observe(now(10_050), 7 * second);
        clock.observe(now(11_010), 8 * second);
        clock.observe(now(12_090), 9 * second);
        let ours = clock.to_ours(9 * second).unwrap();
        let expected = now(12_010).ntp;
        assert!(ours.abs_diff(expected) < second / 1000, "10 ms behind is the best seen");
    }

    #[test]
    fn ticks_go_both_ways() {
        assert_eq!(ticks_between(5 << 32, 6 << 32, 90_000), 90_000);
        assert_eq!(ticks_between(6 << 32, 5 << 32, 90_000), -90_000);
    }
}
