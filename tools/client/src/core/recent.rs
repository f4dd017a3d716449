//! What came of a stream lately, so that the application gets each packet once. The same comes twice under one number where
//! it was asked for twice, or sent again to try the line; and under two SSRCs with numbers of their own where media changes
//! between the node and the other of two, and goes by both for a moment.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;
use strait_wire::rtp::Header;

/// How long a packet is remembered: both ways carry the same for half a second, and one may be later by more than that.
const FOR: Duration = Duration::from_secs(2);
/// Packets that are remembered: two seconds of 2.5 Mbit/s.
const MOST: usize = 512;
/// So many bytes at the start of a long payload are not compared: the node numbers the pictures of VP8 and VP9 there.
const HEAD: usize = 16;
/// Shorter payloads say nothing about when they were made: silence is always the same.
const TELLING: usize = 8;

/// See above.
#[derive(Default)]
pub struct Recent {
    packets: VecDeque<Packet>,
    /// What its timestamps are ahead of those of the others by.
    ahead: u32,
}

#[derive(Clone, Copy)]
struct Packet {
    came: Duration,
    seq: u16,
    timestamp: u32,
    /// What it is known by, under whatever numbers.
    print: u64,
}

/// Whether a packet came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It did not.
    Not,
    /// Under the same SSRC.
    Here,
    /// Under another one.
    Elsewhere,
}

impl Recent {
    /// Takes a packet; whether it came before, here or by one of the others.
    pub fn take<'a>(
        &mut self,
        now: Duration,
        header: &Header<'_>,
        payload: &[u8],
        others: impl Iterator<Item = &'a Self> + Clone,
    ) -> Before {
        let (seq, timestamp) = (header.seq(), header.timestamp());
        while self.packets.front().is_some_and(|first| first.came + FOR <= now) {
            self.packets.pop_front();
        }
        if self.packets.iter().any(|packet| packet.seq == seq) {
            return Before::Here;
        }
        let is_alone = payload.is_empty() || others.clone().next().is_none();
        let print = if is_alone { 0 } else { print(payload) };
        let is_double = !is_alone && self.is_elsewhere(now, print, timestamp, payload, others);
        if self.packets.len() == MOST {
            self.packets.pop_front();
        }
        self.packets.push_back(Packet { came: now, seq, timestamp, print });
        if is_double { Before::Elsewhere } else { Before::Not }
    }

    fn is_elsewhere<'a>(
        &mut self,
        now: Duration,
        print: u64,
        timestamp: u32,
        payload: &[u8],
        others: impl Iterator<Item = &'a Self> + Clone,
    ) -> bool {
        // Parts of a picture may be the same, byte for byte: of so many as came there, so many are doubles here.
        let at = timestamp.wrapping_sub(self.ahead);
        let here = self.of(now, print).filter(|other| *other == at).count();
        if others.clone().any(|other| other.of(now, print).filter(|one| *one == at).count() > here)
        {
            return true;
        }
        if payload.len() < TELLING || self.of(now, print).next().is_some() {
            return false;
        }
        // The node begins timestamps anew after a long time without packets: what came at one time alone tells where.
        let mut times = others.flat_map(|other| other.of(now, print));
        let Some(first) = times.next() else { return false };
        if times.any(|time| time != first) {
            return false;
        }
        self.ahead = timestamp.wrapping_sub(first);
        true
    }

    /// The times of packets that are known by this, by the clock that all share.
    fn of(&self, now: Duration, print: u64) -> impl Iterator<Item = u32> {
        let (packets, ahead) = (self.packets.iter(), self.ahead);
        packets
            .filter(move |packet| packet.print == print && packet.came + FOR > now)
            .map(move |packet| packet.timestamp.wrapping_sub(ahead))
    }
}

fn print(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_usize(payload.len());
    hasher.write(payload.get(HEAD..).filter(|rest| rest.len() >= HEAD).unwrap_or(payload));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_wire::rtp::HeaderBuilder;

    /// The same stream by two ways.
    struct Ways {
        ways: [Recent; 2],
        now: Duration,
    }

    const FRAME: Duration = Duration::from_millis(20);

    impl Ways {
        fn new() -> Self {
            Self { ways: Default::default(), now: Duration::ZERO }
        }

        /// A packet comes by one of them.
        fn come(&mut self, way: usize, seq: u16, timestamp: u32, payload: &[u8]) -> Before {
            let (marker, pt, ssrc, padding) = (false, 96, 1, false);
            let head = HeaderBuilder { marker, pt, seq, timestamp, ssrc, padding }.fixed(false);
            let header = Header::parse(&head).unwrap();
            let [one, other] = &mut self.ways;
            let (own, other) = if way == 0 { (one, &*other) } else { (other, &*one) };
            own.take(self.now, &header, payload, std::iter::once(other))
        }

        /// Frame `n` comes by one of them, whose timestamps are ahead by so much; numbers differ.
        fn frame(&mut self, way: usize, n: u16, ahead: u32, payload: &[u8]) -> Before {
            let timestamp = u32::from(n).wrapping_mul(960).wrapping_add(ahead);
            self.come(way, n.wrapping_add(500 * way as u16), timestamp, payload)
        }
    }

    fn speech(n: u16) -> Vec<u8> {
        n.to_be_bytes().repeat(20)
    }

    #[test]
    fn what_comes_by_both_ways_is_taken_once_whichever_is_first() {
        for later in [0, 1, 10] {
            let (mut ways, mut taken) = (Ways::new(), Vec::new());
            for n in 0..200u16 {
                ways.now += FRAME;
                // By the node alone, then by both, of which the other one is later; then by that alone.
                if n < 100 {
                    taken.extend((ways.frame(0, n, 0, &speech(n)) == Before::Not).then_some(n));
                }
                if let Some(n) = n.checked_sub(later).filter(|n| *n >= 75) {
                    taken.extend((ways.frame(1, n, 0, &speech(n)) == Before::Not).then_some(n));
                }
            }
            taken.sort_unstable();
            assert_eq!(taken, (0..200 - later).collect::<Vec<_>>());
        }
    }

    #[test]
    fn silence_is_told_apart_by_its_time() {
        let (mut ways, mut taken) = (Ways::new(), 0);
        for n in 0..200u16 {
            ways.now += FRAME;
            let both = 75..100;
            if n < 100 {
                taken += u32::from(ways.frame(0, n, 0, &[0xf8, 0xff, 0xfe]) == Before::Not);
            }
            if n >= both.start {
                let came = ways.frame(1, n, 0, &[0xf8, 0xff, 0xfe]);
                assert_eq!(came == Before::Elsewhere, both.contains(&n), "frame {n}");
                taken += u32::from(came == Before::Not);
            }
        }
        assert_eq!(taken, 200);
    }

    #[test]
    fn timestamps_that_began_anew_are_learnt_from_what_tells_them() {
        let mut ways = Ways::new();
        let mut silence = 0;
        for n in 0..100u16 {
            ways.now += FRAME;
            let is_speech = n >= 80;
            let payload = if is_speech { speech(n) } else { vec![0; 40] };
            assert_eq!(ways.frame(1, n, 0, &payload), Before::Not, "frame {n}");
            if n >= 75 {
                let came = ways.frame(0, n, 77_777, &payload);
                assert!(!is_speech || came == Before::Elsewhere, "frame {n}: {came:?}");
                silence += u32::from(came == Before::Not);
            }
        }
        assert_eq!(silence, 5, "what is always the same tells nothing");
        // And silence after it is told apart.
        ways.now += FRAME;
        assert_eq!(ways.frame(1, 100, 0, &[0; 40]), Before::Not);
        assert_eq!(ways.frame(0, 100, 77_777, &[0; 40]), Before::Elsewhere);
        assert_eq!(ways.frame(0, 101, 77_777, &[0; 40]), Before::Not);
    }

    #[test]
    fn parts_of_a_picture_that_are_alike_are_counted_and_numbers_of_pictures_do_not_matter() {
        let mut ways = Ways::new();
        for seq in 0..3 {
            assert_eq!(ways.come(0, seq, 9000, &[0; 1100]), Before::Not);
        }
        // One more came by the other way: it was lost here.
        let came = [0, 1, 2, 3].map(|seq| ways.come(1, 700 + seq, 9000, &[0; 1100]));
        assert_eq!(came[..3], [Before::Elsewhere; 3]);
        assert_eq!(came[3], Before::Not);
        let mut picture = vec![7; 500];
        assert_eq!(ways.come(0, 9, 12_000, &picture), Before::Not);
        picture[..4].copy_from_slice(&[0x90, 0x80, 0x81, 0x23]);
        assert_eq!(ways.come(1, 710, 12_000, &picture), Before::Elsewhere);
    }

    #[test]
    fn what_was_sent_again_is_taken_once_and_memory_is_bounded() {
        let mut ways = Ways::new();
        for n in 0..2000u16 {
            assert_eq!(ways.frame(0, n, 0, &speech(n)), Before::Not);
            assert_eq!(ways.frame(0, n, 0, &speech(n)), Before::Here);
            assert!(ways.ways[0].packets.len() <= MOST);
        }
        ways.now += FOR;
        // So late nobody asks for it any more; the number may come round.
        assert_eq!(ways.frame(0, 1999, 0, &speech(1999)), Before::Not);
        assert_eq!(ways.ways[0].packets.len(), 1);
    }
}
