//! Round trips by extended reports (RFC 3611 sections 4.4 and 4.5), for who gets no sender reports to answer: a receiver of
//! ours asks how long the way is, and we ask publishers.

use crate::limits::REFERENCE_TIMES;
use crate::rtcp::ROUND_TRIP_MAX;
use crate::time::{Duration, Instant, Now};
use crate::worker::Worker;
use strait_wire::Full;
use strait_wire::rtcp::{self, Dlrr, ExtendedReport, XrBlock};

/// What one peer asked, and what it answered.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    /// Reference times that wait for an answer: whose, the middle 32 bits, when it came.
    asked: Vec<(u32, u32, Instant)>,
    round_trip: Option<Duration>,
}

impl Echoes {
    /// A receiver tells its time.
    fn on_reference_time(&mut self, at: Instant, ssrc: u32, ntp: u64) {
        self.asked.retain(|(asked, ..)| *asked != ssrc);
        if self.asked.len() >= REFERENCE_TIMES {
            self.asked.remove(0);
        }
        self.asked.push((ssrc, (ntp >> 16) as u32, at));
    }

    /// Our time comes back.
    fn on_answer(&mut self, now: Now, answer: Dlrr) {
        //= rfc3611#4.5: round trip = arrival - delay since last RR - last RR, each in the middle 32 bits of NTP.
        let middle = (now.ntp >> 16) as u32;
        let trip = middle.wrapping_sub(answer.delay_since_last_rr).wrapping_sub(answer.last_rr);
        if answer.last_rr != 0 && trip < ROUND_TRIP_MAX {
            self.round_trip = Some(Duration::from_micros((u64::from(trip) * 1_000_000) >> 16));
        }
    }

    /// The last round trip that was measured so.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Answers all that was asked, in the name of `ssrc`.
    pub(crate) fn answer(
        &mut self,
        now: Now,
        ssrc: u32,
        rtcp: &mut rtcp::Writer<'_>,
    ) -> Result<(), Full> {
        let mut answers = [Dlrr { ssrc: 0, last_rr: 0, delay_since_last_rr: 0 }; REFERENCE_TIMES];
        let mut count = 0;
        for (answer, (ssrc, last_rr, at)) in answers.iter_mut().zip(self.asked.drain(..)) {
            let delay = now.at.since(at).as_micros() * 65_536 / 1_000_000;
            let delay_since_last_rr = delay.min(u32::MAX.into()) as u32;
            *answer = Dlrr { ssrc, last_rr, delay_since_last_rr };
            count += 1;
        }
        match answers.get(..count) {
            None | Some([]) => Ok(()),
            Some(answers) => rtcp.dlrr(ssrc, answers),
        }
    }
}

impl Worker {
    /// A peer asks for a round trip, or answers.
    pub(crate) fn on_extended_report(&mut self, now: Now, slot: u32, report: &ExtendedReport<'_>) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        for block in report.blocks() {
            match block {
                XrBlock::ReceiverReferenceTime(ntp) => {
                    peer.echoes.on_reference_time(now.at, report.ssrc, ntp);
                }
                XrBlock::Dlrr(answers) => {
                    let ours = |ssrc| {
                        let mut slots = peer.publications.iter();
                        slots.any(|slot| {
                            let publication = self.publications.get(*slot);
                            publication.is_some_and(|p| p.report_ssrc == ssrc)
                        })
                    };
                    let answer = answers.iter().take(REFERENCE_TIMES).find(|a| ours(a.ssrc));
                    if let Some(answer) = answer {
                        peer.echoes.on_answer(now, answer);
                    }
                }
                XrBlock::Other(_) => {}
            }
        }
    }
}
