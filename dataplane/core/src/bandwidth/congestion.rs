//! Feedback by the streams' own numbers, with ECN marks (RFC 8888), for the same estimate.

use super::Bandwidth;
use super::sent::Told;
use crate::feedback::CE;
use crate::limits::{FEEDBACK_LATE, FEEDBACK_REPORTS, SENT_PACKETS};
use crate::time::Instant;
use strait_wire::rtcp::{CongestionControl, Metric, StreamReport};
use strait_wire::seq;

/// Which stream each packet was of, and its number there, by transport-wide numbers.
#[derive(Debug)]
pub(super) struct Names {
    ring: Box<[(u32, u16)]>,
    /// Nothing before this is still to be told about.
    settled: u64,
}

impl Default for Names {
    fn default() -> Self {
        Self { ring: vec![(0, 0); SENT_PACKETS].into(), settled: 0 }
    }
}

impl Names {
    pub(super) fn set(&mut self, number: u64, name: (u32, u16)) {
        let entry = self.ring.get_mut((number % SENT_PACKETS as u64) as usize);
        entry.into_iter().for_each(|entry| *entry = name);
    }

    fn get(&self, number: u64) -> (u32, u16) {
        let entry = self.ring.get((number % SENT_PACKETS as u64) as usize);
        entry.copied().unwrap_or_default()
    }
}

/// What ECN marks say of the packets since the estimate last settled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    marked: u32,
    arrived: u32,
    /// They were sent as ECT(1): whoever marks them does so early and often (RFC 9331).
    often: bool,
}

/// What is left of the estimate after a mark by who marks seldom (RFC 8511 section 3.1).
const SELDOM_FALL: f64 = 0.85;

impl Marks {
    fn count(&mut self, ecn: u8) {
        self.arrived += 1;
        match ecn {
            1 => self.often = true,
            2 => self.often = false,
            CE => self.marked += 1,
            _ => {}
        }
    }

    /// What is left of the estimate, if any packet was marked. Begins anew.
    pub(super) fn take(&mut self) -> Option<f64> {
        let Self { marked, arrived, often } = std::mem::take(self);
        self.often = often;
        // RFC 9332 section 2.1: half of the share that is marked.
        let share = f64::from(marked) / f64::from(arrived.max(1));
        let left = if often { 1.0 - share / 2.0 } else { SELDOM_FALL };
        (marked > 0).then_some(left)
    }
}

impl Bandwidth {
    /// Packets are told about by the streams' own numbers as well.
    pub(crate) fn name_packets(&mut self) {
        self.names.get_or_insert_default();
    }

    /// Feedback came. `left` times a packet is looked up in a report of its stream, and that is taken off there: the
    /// bytes do not bound it.
    ///
    /// In the order in which they were sent, as the delay is measured: so each packet is looked up in the feedback, not the
    /// other way round.
    pub(crate) fn on_congestion_control(
        &mut self,
        now: Instant,
        feedback: &CongestionControl<'_>,
        left: &mut usize,
    ) {
        let Some(mut names) = self.names.take() else {
            let said: usize = feedback.streams().map(|stream| stream.len()).sum();
            self.statistics.ignored += said as u64;
            return;
        };
        let (report_us, jumped) = self.clock.read_stamp(now, feedback.report_timestamp);
        if jumped {
            self.forget_times();
        }
        let mut room = [None; FEEDBACK_REPORTS];
        let reports = sorted(feedback, &mut room);
        let (mut told, mut newest) = (0, None);
        let first = names.settled.saturating_sub(FEEDBACK_LATE).max(self.sent.oldest());
        for number in first..self.sent.next() {
            if *left == 0 {
                break;
            }
            let (said, looked) = look_up(reports, names.get(number));
            *left = left.saturating_sub(looked.max(1));
            match said {
                Said::Arrived(metric) => {
                    let at_us = metric.offset_us().map(|offset| report_us.saturating_sub(offset));
                    match self.sent.tell(now, number as u16, true) {
                        Told::Arrived(packet) => {
                            self.loss.count(true);
                            self.marks.count(metric.ecn);
                            self.statistics.marked += u64::from(metric.ecn == CE);
                            self.probes.on_told(packet, at_us);
                            at_us.into_iter().for_each(|at_us| self.arrived(packet, at_us));
                            newest = newest.max(Some(packet.sent_us));
                            told += 1;
                        }
                        Told::Late(packet) => {
                            self.loss.arrived_late();
                            at_us.into_iter().for_each(|at_us| self.arrived(packet, at_us));
                        }
                        Told::Lost(_) | Told::Again | Told::Unknown => {}
                    }
                }
                Said::Lost => {
                    if let Told::Lost(packet) = self.sent.tell(now, number as u16, false) {
                        self.loss.count(false);
                        self.probes.on_told(packet, None);
                        told += 1;
                    }
                }
                // What told about it was lost, which says nothing of the packet: most arrive.
                Said::Before => {
                    if let Some(packet) = self.sent.leave_untold(now, number) {
                        self.probes.on_told(packet, None);
                        if let Some(took_us) = self.took_us {
                            self.acknowledged
                                .add(packet.sent_us.saturating_add(took_us), packet.bytes);
                        }
                    }
                }
                Said::Nothing => {}
            }
            if names.settled == number && !self.sent.is_flying(number) {
                names.settled += 1;
            }
        }
        names.settled = names.settled.max(self.sent.oldest());
        self.names = Some(names);
        let said: usize = reports.iter().flatten().map(StreamReport::len).sum();
        self.statistics.ignored += (said as u64).saturating_sub(told);
        self.statistics.told += told;
        if told > 0 {
            self.conclude(now, newest);
        }
    }
}

/// What feedback says of a packet.
enum Said {
    Arrived(Metric),
    Lost,
    /// It begins behind it.
    Before,
    Nothing,
}

fn sorted<'r, 'f>(
    feedback: &CongestionControl<'f>,
    room: &'r mut [Option<StreamReport<'f>>; FEEDBACK_REPORTS],
) -> &'r [Option<StreamReport<'f>>] {
    let mut count = 0;
    for (entry, stream) in room.iter_mut().zip(feedback.streams()) {
        *entry = Some(stream);
        count += 1;
    }
    let reports = room.get_mut(..count).unwrap_or_default();
    reports.sort_unstable_by_key(|stream| stream.map(|stream| stream.ssrc));
    reports
}

/// A stream may have several reports, of numbers that do not follow each other. How many were looked at, besides.
fn look_up(reports: &[Option<StreamReport<'_>>], (ssrc, seq): (u32, u16)) -> (Said, usize) {
    let first = reports.partition_point(|stream| stream.is_some_and(|stream| stream.ssrc < ssrc));
    let streams = reports.iter().skip(first).flatten();
    let (mut said, mut looked) = (Said::Nothing, 0);
    for stream in streams.take_while(|stream| stream.ssrc == ssrc) {
        looked += 1;
        match stream.metric(seq) {
            Some(Some(metric)) => return (Said::Arrived(metric), looked),
            Some(None) => said = Said::Lost,
            None if !matches!(said, Said::Lost) && seq::newer(stream.begin_seq, seq) => {
                said = Said::Before;
            }
            None => {}
        }
    }
    (said, looked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_wire::rtcp;

    #[test]
    fn many_reports_of_one_stream_cost_what_is_looked_at() {
        let mut bandwidth = Bandwidth::default();
        bandwidth.name_packets();
        (0..100).for_each(|seq| bandwidth.on_named(Instant::default(), 1200, (5, seq)));
        // A packet of feedback with so many reports, none of which says anything.
        let mut bytes = vec![0x8B, 205, 0, 2 * FEEDBACK_REPORTS as u8 + 2, 0, 0, 0, 1];
        (0..FEEDBACK_REPORTS).for_each(|_| bytes.extend([0, 0, 0, 5, 0, 0, 0, 0]));
        bytes.extend([0; 4]);
        let packet = rtcp::packets(&bytes).next().expect("a packet");
        let Ok(rtcp::Packet::CongestionControl(feedback)) = packet else { panic!("{packet:?}") };
        let mut left = 10_000;
        bandwidth.on_congestion_control(Instant::default(), &feedback, &mut left);
        assert_eq!(left, 10_000 - 100 * FEEDBACK_REPORTS);
        bandwidth.on_congestion_control(Instant::default(), &feedback, &mut left);
        assert_eq!(left, 0);
    }

    #[test]
    fn marks_that_come_often_weigh_by_their_share() {
        let mut marks = Marks::default();
        assert_eq!(marks.take(), None);
        (0..9).for_each(|_| marks.count(2));
        assert_eq!(marks.take(), None);
        marks.count(CE);
        assert_eq!(marks.take(), Some(SELDOM_FALL), "one of any number");
        (0..9).for_each(|_| marks.count(1));
        marks.count(CE);
        assert_eq!(marks.take(), Some(0.95));
        marks.count(CE);
        assert_eq!(marks.take(), Some(0.5), "where all are marked none says how it was sent");
        assert_eq!(marks.take(), None);
    }
}
