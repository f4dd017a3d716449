//! One stream that the client receives: what is missing of it, and how it fares.

use super::sending::ntp;
use std::collections::BTreeMap;
use std::time::Duration;
use strait_wire::rtcp::ReportBlock;
use strait_wire::rtp::Header;
use strait_wire::seq::Extender;

/// Packets that are asked for again at a time; what is more is left to a key frame.
const MISSING: usize = 128;
/// How often one is asked for.
const TRIES: u8 = 4;

/// How a received stream fares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Received {
    /// RTP packets, each counted once.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// Packets that never came; negative where some came twice.
    pub lost: i64,
    /// Share lost in the last second, 0 to 1.
    pub fraction_lost: f64,
    /// Interarrival jitter (RFC 3550 section 6.4.1).
    pub jitter: Duration,
}

/// See above.
#[derive(Default)]
pub struct Receiving {
    clock_rate_hz: u32,
    extender: Extender,
    first: Option<u64>,
    highest: u64,
    /// By how many numbers the same stream went on by another way since the last packet. Where that one is the slower, one
    /// that came by both is among them, and one that is lost then not counted.
    elsewhere: u64,
    /// Numbers that went another way.
    past: u64,
    packets: u64,
    bytes: u64,
    expected_before: u64,
    packets_before: u64,
    fraction_lost: u8,
    /// In units of the clock rate.
    jitter: f64,
    transit: Option<f64>,
    missing: BTreeMap<u64, (u8, Duration)>,
    sender_report: Option<(u32, Duration)>,
}

impl Receiving {
    /// Nothing came yet.
    #[must_use]
    pub fn new(clock_rate_hz: u32) -> Self {
        Self { clock_rate_hz: clock_rate_hz.max(1), ..Self::default() }
    }

    /// Takes a packet that was not there before. Returns by how many numbers the stream went on.
    pub fn on_packet(&mut self, now: Duration, header: &Header<'_>, payload: usize) -> u64 {
        let elsewhere = std::mem::take(&mut self.elsewhere);
        self.packets += 1;
        self.bytes += payload as u64;
        let seq = self.extender.extend(header.seq());
        if self.first.is_none() {
            (self.first, self.highest) = (Some(seq), seq);
        }
        if seq <= self.highest {
            self.missing.remove(&seq);
            self.first = self.first.map(|first| first.min(seq));
            return 0;
        }
        let advance = seq - self.highest;
        // What came by the other way is not missing here.
        let past = elsewhere.min(advance - 1);
        self.past += past;
        let next = self.highest + 1 + past;
        for missing in next..seq.min(next + MISSING as u64) {
            self.missing.insert(missing, (0, now));
        }
        while self.missing.len() > MISSING {
            self.missing.pop_first();
        }
        self.highest = seq;
        let arrival = now.as_secs_f64() * f64::from(self.clock_rate_hz);
        let transit = arrival - f64::from(header.timestamp());
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit - before).abs();
            // A timestamp that wrapped or jumped is no jitter.
            if difference < f64::from(self.clock_rate_hz) * 10.0 {
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
        advance
    }

    /// The same stream went on by so many numbers, by another way.
    pub fn on_elsewhere(&mut self, advance: u64) {
        self.elsewhere += advance;
    }

    /// Takes the time of a sender report: the middle of its NTP time.
    pub fn on_sender_report(&mut self, now: Duration, middle: u32) {
        self.sender_report = Some((middle, now));
    }

    /// Sequence numbers to be asked for now.
    pub fn missing(&mut self, now: Duration, round_trip: Duration) -> Vec<u16> {
        let again = round_trip.max(Duration::from_millis(20)) * 3 / 2;
        self.missing.retain(|_, (tries, _)| *tries <= TRIES);
        let due = self.missing.iter_mut().filter(|(_, (_, due))| *due <= now);
        due.map(|(seq, (tries, due))| {
            (*tries, *due) = (*tries + 1, now + again);
            *seq as u16
        })
        .collect()
    }

    /// When something is to be asked for.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.missing.values().map(|(_, due)| *due).min()
    }

    /// Its block of a receiver report, once anything came.
    pub fn block(&mut self, now: Duration, ssrc: u32) -> Option<ReportBlock> {
        self.first?;
        let expected = self.expected();
        let interval = expected - self.expected_before.min(expected);
        let came = self.packets - self.packets_before;
        (self.expected_before, self.packets_before) = (expected, self.packets);
        let lost = interval.saturating_sub(came);
        self.fraction_lost = (lost * 256).checked_div(interval).unwrap_or(0).min(255) as u8;
        let (last_sr, at) = self.sender_report.unwrap_or_default();
        let delay = ntp(now).wrapping_sub(ntp(at)) >> 16;
        Some(ReportBlock {
            ssrc,
            fraction_lost: self.fraction_lost,
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            // The extender begins in cycle 1.
            highest_seq: (self.highest as u32).wrapping_sub(1 << 16),
            jitter: self.jitter as u32,
            last_sr,
            delay_since_last_sr: if last_sr == 0 { 0 } else { delay as u32 },
        })
    }

    /// How it fares.
    #[must_use]
    pub fn received(&self) -> Received {
        Received {
            packets: self.packets,
            bytes: self.bytes,
            lost: self.lost(),
            fraction_lost: f64::from(self.fraction_lost) / 256.0,
            jitter: Duration::from_secs_f64(self.jitter / f64::from(self.clock_rate_hz.max(1))),
        }
    }

    fn lost(&self) -> i64 {
        self.expected().cast_signed() - self.packets.cast_signed()
    }

    /// Packets that should have come this way.
    fn expected(&self) -> u64 {
        let span = self.first.map_or(0, |first| self.highest + 1 - first);
        span.saturating_sub(self.past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_wire::rtp::HeaderBuilder;

    /// One stream that comes by two ways under numbers of their own.
    struct Ways {
        ways: [Receiving; 2],
        now: Duration,
    }

    impl Ways {
        /// The packets with these numbers come by one way; those of the other are 100 higher.
        fn come(&mut self, way: usize, numbers: impl IntoIterator<Item = u16>) {
            for number in numbers {
                self.now += Duration::from_millis(20);
                let seq = number.wrapping_add(if way == 0 { 0 } else { 100 });
                let head = HeaderBuilder {
                    marker: false,
                    pt: 96,
                    seq,
                    timestamp: 0,
                    ssrc: 1,
                    padding: false,
                };
                let bytes = head.fixed(false);
                let header = Header::parse(&bytes).unwrap();
                let advance = self.ways[way].on_packet(self.now, &header, 10);
                self.ways[1 - way].on_elsewhere(advance);
            }
        }

        fn lost(&self) -> [i64; 2] {
            [0, 1].map(|way| self.ways[way].received().lost)
        }
    }

    #[test]
    fn what_came_by_the_other_way_is_not_lost() {
        let (ways, now) = ([Receiving::new(8000), Receiving::new(8000)], Duration::ZERO);
        let mut both = Ways { ways, now };
        both.come(0, 0..100);
        // For a while by both, then by the other one alone, but for a mark now and then.
        (100..110).for_each(|number| (0..2).for_each(|way| both.come(way, [number])));
        both.come(1, 110..=400);
        both.come(0, [400]);
        both.come(1, 401..1000);
        assert_eq!(both.lost(), [0, 0]);
        let missing = both.ways[0].missing(both.now, Duration::ZERO);
        assert_eq!(missing, [0; 0], "nothing is asked for again");
        let block = both.ways[0].block(both.now, 1).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 0));
        // Of the other way three are lost, and it dies: ten more come by none.
        both.come(1, 1003..1100);
        both.come(0, 1110..1200);
        assert_eq!(both.lost(), [10, 3]);
        // And back.
        both.come(1, 1200..1300);
        assert_eq!(both.lost(), [10, 3]);
        assert!(both.ways[0].received().fraction_lost < f64::EPSILON);
    }
}
