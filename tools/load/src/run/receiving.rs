//! Receiving: what each datagram is, and whether it is right.

use strait_core::time::Instant;
use strait_io::batch::{Incoming, RECEIVE_MESSAGES};
use strait_wire::rtcp;
use strait_wire::rtp::Packet;

use super::Load;
use crate::checker::{Marks, Seen};
use crate::payload::Damage;
use crate::peer::Input;
use crate::subscriber::Stream;
use crate::violation::Violation;

/// Calls of `recvmmsg` on one socket before others have their turn.
const ROUNDS: usize = 4;

impl Load<'_> {
    /// Reads what a peer's socket has. `counting_from` is when packets begin to count.
    pub(super) fn receive(
        &mut self,
        n: usize,
        now: Instant,
        incoming: &mut Incoming,
        counting_from: Option<Instant>,
    ) {
        for _ in 0..ROUNDS {
            let Some(peer) = self.peers.get(n) else { return };
            let got = peer.socket.receive(now, incoming);
            for at in 0..got {
                let Some((arrival, datagrams)) = incoming.message(at) else { continue };
                if let (Some(lost), Some(peer)) = (arrival.overflows, self.peers.get_mut(n)) {
                    let more = lost.wrapping_sub(peer.overflows);
                    self.counts.overflows += u64::from(more);
                    peer.overflows = lost;
                }
                let mut media = 0;
                for datagram in datagrams {
                    media += u64::from(self.datagram(n, arrival.at, datagram, counting_from));
                }
                if media > 0 {
                    self.counts.runs += 1;
                    self.counts.run_max = self.counts.run_max.max(media);
                }
            }
            if got < RECEIVE_MESSAGES {
                return;
            }
        }
    }

    /// Takes one datagram; whether it was media.
    fn datagram(
        &mut self,
        n: usize,
        at: Instant,
        datagram: &mut [u8],
        counting_from: Option<Instant>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(n) else { return false };
        let datagram = peer.unwrap(datagram);
        match peer.handle(at, datagram) {
            Input::Rtp(length) => {
                let size = datagram.len();
                let packet = datagram.get(..length).unwrap_or_default();
                self.media(n, at, packet, size, counting_from);
                return true;
            }
            Input::Rtcp(length) => {
                let compound = datagram.get(..length).unwrap_or_default();
                match n.checked_sub(self.plan.publishers) {
                    Some(subscriber) => {
                        if let Some(subscriber) = self.subscribers.get_mut(subscriber) {
                            subscriber.take_rtcp(at, compound);
                        }
                    }
                    None => self.feedback(n, compound),
                }
            }
            Input::Unreadable => self.violations.add(Violation::Unreadable, 1),
            Input::Replayed => self.violations.add(Violation::Duplicate, 1),
            Input::Other => {}
        }
        false
    }

    /// What a server asks of a publisher.
    fn feedback(&mut self, n: usize, compound: &[u8]) {
        let layers = self.layers.len();
        let ours = self.sources.iter_mut().skip(n * layers).take(layers);
        let asked = key_frames_asked(compound);
        for source in ours.filter(|source| asked.contains(&source.ssrc)) {
            source.key_wanted = true;
        }
    }

    /// What a subscriber receives.
    fn media(
        &mut self,
        n: usize,
        at: Instant,
        packet: &[u8],
        size: usize,
        counting_from: Option<Instant>,
    ) {
        let Some(index) = n.checked_sub(self.plan.publishers) else {
            return self.violations.add(Violation::Foreign, 1);
        };
        let (Some(subscriber), Ok(packet)) =
            (self.subscribers.get_mut(index), Packet::parse(packet))
        else {
            return self.violations.add(Violation::Unreadable, 1);
        };
        let header = packet.header();
        let mut payload = packet.payload();
        let mut seq = header.seq();
        let mut repaired = false;
        let of_rtx = |stream: &Stream| {
            stream.agreed.rtx_payload_type == Some(header.pt())
                && stream.agreed.rtx_ssrc.is_none_or(|ssrc| ssrc == header.ssrc())
        };
        if self.plan.nack && subscriber.streams.iter().any(of_rtx) {
            // RFC 4588 section 4: the original sequence number, then the payload. Without both it only probes.
            let Some((original, rest)) = payload.split_first_chunk::<2>() else { return };
            (seq, payload, repaired) = (u16::from_be_bytes(*original), rest, true);
        }
        if payload.is_empty() {
            let stream = subscriber.streams.iter_mut().find(|s| s.ssrc == Some(header.ssrc()));
            if let Some(stream) = stream {
                stream.count(seq);
                stream.checker.take_padding(seq);
            }
            return;
        }
        let kind = self.layers.first().map(|layer| layer.traffic.kind).unwrap_or_default();
        let identity = match self.pattern.read(kind, payload) {
            Ok(identity) => identity,
            Err(Damage::Changed) => return self.violations.add(Violation::Corrupt, 1),
            Err(Damage::NotOurs) => return self.violations.add(Violation::Foreign, 1),
        };
        let place = self.cast.place(index, identity.stream);
        let Some((place, stream)) =
            place.and_then(|place| Some((place, subscriber.streams.get_mut(place)?)))
        else {
            return self.violations.add(Violation::Foreign, 1);
        };
        if !repaired {
            let ssrc = *stream.ssrc.get_or_insert(header.ssrc());
            let mid = stream.agreed.mid_extension.and_then(|id| header.extension(id));
            if ssrc != header.ssrc()
                || header.pt() != stream.agreed.payload_type
                || mid.is_some_and(|mid| mid != stream.agreed.mid.as_bytes())
            {
                self.violations.add(Violation::Header, 1);
            }
            stream.count(seq);
        }
        let (timestamp, marker) = (header.timestamp(), header.marker());
        let seen = Seen { identity, seq, timestamp, marker, repaired };
        let marks = &self.marks;
        let marks_of = |stream: u32| marks.get(stream as usize).copied().unwrap_or(Marks::NONE);
        let outcome = stream.checker.take(&seen, marks_of, &mut self.violations);
        self.counts.received += 1;
        self.counts.bytes += if outcome.counts { size as u64 } else { 0 };
        self.counts.repaired += u64::from(repaired && outcome.fills_gap);
        self.counts.missing += outcome.newly_missing;
        self.counts.missing -= u64::from(outcome.fills_gap).min(self.counts.missing);
        if self.plan.nack && outcome.newly_missing > 0 {
            subscriber.miss(place, seq, outcome.newly_missing, at);
            self.wake_peer(n, at);
        } else if outcome.fills_gap {
            subscriber.found(place, seq);
        }
        if outcome.counts && counting_from.is_some() {
            let took = at.since(Instant(identity.sent_ns));
            self.latency.add(took.as_nanos() as u64);
            if self.plan.late.is_some_and(|late| took > late) {
                self.violations.add(Violation::Late, 1);
            }
        }
    }
}

/// The SSRCs that a compound asks key frames of.
fn key_frames_asked(compound: &[u8]) -> Vec<u32> {
    let mut asked = Vec::new();
    for packet in rtcp::packets(compound).flatten() {
        match packet {
            rtcp::Packet::Pli(pli) => asked.push(pli.media_ssrc),
            rtcp::Packet::Fir(fir) => asked.extend(fir.entries().map(|entry| entry.ssrc)),
            _ => {}
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_wire::rtcp::Writer;

    #[test]
    fn both_kinds_of_asking_are_understood() {
        let mut bytes = [0; 200];
        let mut writer = Writer::new(&mut bytes);
        writer.receiver_report(1, &[]).unwrap();
        writer.pli(1, 77).unwrap();
        writer.fir(1, 88, 3).unwrap();
        writer.nack(1, 99, [5]).unwrap();
        assert_eq!(key_frames_asked(writer.bytes()), [77, 88]);
        assert!(key_frames_asked(b"no RTCP").is_empty());
    }
}
