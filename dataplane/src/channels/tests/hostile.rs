//! A peer that was let in and wants to cost as much as it can.

use super::Call;
use crate::limits::CHANNEL_CHUNKS_WAITING;
use std::time::{Duration, Instant};

/// Chunks of DATA with one byte in one packet.
const CHUNKS: u32 = 50;
/// Packets a second.
const PACKETS: u32 = 1000;

/// CRC32c (RFC 9260 appendix A).
fn checksum(packet: &[u8]) -> u32 {
    !packet.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

/// An attacker with the association of a browser: everything else is its own.
struct Hostile {
    call: Call,
    /// Ports and verification tag.
    header: [u8; 8],
    tsn: u32,
    /// Time that the relay's side took, and the longest of one packet.
    spent: Duration,
    longest: Duration,
}

impl Hostile {
    fn new() -> Self {
        let mut call = Call::with_channel();
        call.browser.say(0, false, b"x");
        let packet = call.browser.poll_transmits(call.now).remove(0);
        let tsn = u32::from_be_bytes(packet[16..20].try_into().unwrap());
        call.channels.handle(call.now, packet.clone());
        let header = packet[..8].try_into().unwrap();
        let mut hostile =
            Self { call, header, tsn, spent: Duration::ZERO, longest: Duration::ZERO };
        hostile.drain();
        hostile
    }

    fn say(&mut self, chunks: &[u8]) {
        let mut packet = [&self.header[..], &[0; 4], chunks].concat();
        let sum = checksum(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
        let begun = Instant::now();
        self.call.channels.handle(self.call.now, packet);
        self.drain();
        let took = begun.elapsed();
        self.spent += took;
        self.longest = self.longest.max(took);
        self.call.now += Duration::from_secs(1) / PACKETS;
        self.call.channels.handle_timeout(self.call.now);
    }

    fn drain(&mut self) {
        while self.call.channels.poll_event().is_some() {}
        while self.call.channels.poll_transmit().is_some() {}
    }

    /// Fragments of one byte of a message, the first of them `skipped` after the last that came.
    fn fragments(&mut self, flags: u8, skipped: u32) {
        let mut chunks = Vec::new();
        self.tsn = self.tsn.wrapping_add(skipped);
        for _ in 0..CHUNKS {
            self.tsn = self.tsn.wrapping_add(1);
            chunks.extend([0, flags, 0, 17]);
            chunks.extend(self.tsn.to_be_bytes());
            chunks.extend([0, 0, 0, 9, 0, 0, 0, 53, 7, 0, 0, 0]);
        }
        self.say(&chunks);
    }

    fn tell(&mut self, what: &str, packets: u32) {
        let refused = self.call.channels.take_refused();
        eprintln!(
            "{what}: {:.1} us a packet, {:.2} ms the longest, {refused} of {packets} refused",
            self.spent.as_secs_f64() * 1e6 / f64::from(packets),
            self.longest.as_secs_f64() * 1e3
        );
        // So many are let in in so much time, however cheap the machine takes them to be.
        let let_in = u64::from(packets) - refused;
        assert!(let_in * u64::from(CHUNKS) < 4 * CHANNEL_CHUNKS_WAITING as u64, "{let_in}");
    }
}

#[test]
fn tiny_pieces_behind_a_gap_cost_little() {
    let mut hostile = Hostile::new();
    let packets = 10 * PACKETS;
    (0..packets).for_each(|n| hostile.fragments(0, u32::from(n == 0)));
    hostile.tell("behind a gap", packets);
}

#[test]
fn whole_messages_behind_a_gap_cost_little() {
    let mut hostile = Hostile::new();
    let packets = 10 * PACKETS;
    // They are read at once, and kept all the same until what is missing comes, which it never does.
    (0..packets).for_each(|n| hostile.fragments(7, u32::from(n == 0)));
    hostile.tell("whole, behind a gap", packets);
}

#[test]
fn tiny_pieces_of_a_message_without_end_cost_little() {
    let mut hostile = Hostile::new();
    let packets = 10 * PACKETS;
    (0..packets).for_each(|_| hostile.fragments(0, 0));
    hostile.tell("in order", packets);
}

#[test]
fn tiny_pieces_that_have_no_order_cost_little() {
    let mut hostile = Hostile::new();
    let packets = 10 * PACKETS;
    (0..packets).for_each(|_| hostile.fragments(4, 1));
    hostile.tell("unordered", packets);
}
