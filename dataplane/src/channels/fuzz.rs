//! What must hold whatever a peer says by SCTP, as a function: the fuzz target `channels` of `tests/fuzz` runs it on what
//! a fuzzer makes up, a test here on the committed corpus. Raw bytes get no further than the checksum; so the peer here
//! has an association, and its packets the right tag and checksum.

use super::{Channels, Event};
use crate::limits::{CHANNEL_MESSAGE_BYTES, CHANNEL_PACKET_BYTES, CHANNELS};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use strait_proto::pace::Rates;
use strait_wire::dcep::{BYTES_MAX, Message, Open, Reliability};

/// Steps of one run.
const STEPS: usize = 64;
/// Packets that one call may be answered with at once: a window of them, and as many that are sent again.
const ANSWERS: usize = 4096;
/// Type of an INIT chunk, of DATA, and where the former has its first sequence number (RFC 9260 section 3.3).
const INIT: u8 = 1;
const DATA: u8 = 0;
const INITIAL_TSN: usize = 12 + 16;

/// A peer says what `data` is made into. Events are of channels that are open, messages no larger than may be, packets
/// neither, and the library does not panic.
///
/// # Panics
/// When that is not so.
pub fn channels(data: &[u8]) {
    let Some(mut peer) = Peer::new() else { return };
    let mut data = data.iter().copied();
    for _ in 0..STEPS {
        let Some(step) = data.next() else { return };
        let mut byte = || data.next().unwrap_or_default();
        match step % 8 {
            0 => {
                let mut chunk = vec![byte(), byte(), 0, byte()];
                let length = usize::from(chunk[3]);
                chunk.extend((4..length.clamp(4, 100)).map(|_| byte()));
                chunk.resize(chunk.len().next_multiple_of(4), 0);
                peer.say(&chunk);
            }
            1 => {
                let (flags, stream, ppi) = (byte(), byte(), byte());
                let payload: Vec<u8> = (0..byte() % 64).map(|_| byte()).collect();
                peer.say_data(flags, stream, ppi, &payload);
            }
            2 => {
                let (stream, is_ordered) = (byte(), byte() % 2 == 0);
                let reliability = match byte() % 3 {
                    0 => Reliability::Full,
                    1 => Reliability::Retransmissions(u32::from(byte())),
                    _ => Reliability::Lifetime(u32::from(byte())),
                };
                let open =
                    Open { is_ordered, reliability, priority: 256, label: "x", protocol: "" };
                let mut message = [0; BYTES_MAX];
                let Ok(len) = Message::Open(open).write(&mut message) else { return };
                peer.say_data(3, stream, 50, &message[..len]);
            }
            3 => {
                peer.now += Duration::from_millis(u64::from(byte()) * 20);
                peer.relay.handle_timeout(peer.now);
            }
            4 => {
                let (channel, is_text) = (byte() % 20, byte() % 2 == 0);
                let _ =
                    peer.relay.send(channel.into(), is_text, &vec![b'x'; 16 * usize::from(byte())]);
            }
            5 => peer.relay.close((byte() % 20).into(), "the fuzzer wants it"),
            6 => {
                let noise = (0..byte() % 64).map(|_| byte()).collect();
                peer.relay.handle(peer.now, noise);
            }
            _ => peer.relay.tell(),
        }
        peer.drain();
    }
}

/// Both sides, of which the peer's says what it likes once there is an association.
struct Peer {
    relay: Channels,
    now: Instant,
    /// Ports and tag of its packets.
    header: [u8; 8],
    /// The sequence number of its next DATA.
    tsn: u32,
    open: BTreeSet<u16>,
}

impl Peer {
    fn new() -> Option<Self> {
        let now = Instant::now();
        let mut peer = Channels::new(CHANNEL_MESSAGE_BYTES, Rates::default(), now);
        let mut relay = Channels::new(CHANNEL_MESSAGE_BYTES, Rates::default(), now);
        peer.connect();
        let (mut header, mut tsn) = ([0; 8], 0);
        for _ in 0..4 {
            while let Some(packet) = peer.poll_transmit() {
                header = *packet.first_chunk()?;
                if packet.get(12) == Some(&INIT) {
                    tsn = u32::from_be_bytes(*packet.get(INITIAL_TSN..)?.first_chunk()?);
                }
                relay.handle(now, packet);
            }
            while let Some(packet) = relay.poll_transmit() {
                peer.handle(now, packet);
            }
        }
        Some(Self { relay, now, header, tsn, open: BTreeSet::new() })
    }

    /// Says these chunks.
    fn say(&mut self, chunks: &[u8]) {
        let mut packet = [&self.header[..], &[0; 4], chunks].concat();
        let sum = checksum(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
        self.relay.handle(self.now, packet);
    }

    /// Says a chunk of DATA, the next one. Some bits of the flags skip one, or say the same again.
    fn say_data(&mut self, flags: u8, stream: u8, ppi: u8, payload: &[u8]) {
        match flags >> 6 {
            1 => self.tsn = self.tsn.wrapping_add(1),
            2 => self.tsn = self.tsn.wrapping_sub(1),
            _ => {}
        }
        let length = 16 + payload.len() as u16;
        let mut chunk = vec![DATA, flags & 7];
        chunk.extend(length.to_be_bytes());
        chunk.extend(self.tsn.to_be_bytes());
        chunk.extend([0, stream, 0, flags >> 3 & 7, 0, 0, 0, ppi]);
        chunk.extend(payload);
        chunk.resize(chunk.len().next_multiple_of(4), 0);
        self.tsn = self.tsn.wrapping_add(1);
        self.say(&chunk);
    }

    /// Takes what the relay's side tells and sends.
    fn drain(&mut self) {
        while let Some(event) = self.relay.poll_event() {
            match event {
                // Those that are open are told again where they are asked for.
                Event::Opened { channel, .. } => drop(self.open.insert(channel)),
                Event::Closed { channel, detail } => {
                    assert!(self.open.remove(&channel), "{channel} was not open");
                    assert!(!detail.contains("panicked"), "{detail}");
                }
                Event::Message { channel, is_text, payload } => {
                    assert!(self.open.contains(&channel) && payload.len() <= CHANNEL_MESSAGE_BYTES);
                    assert!(!is_text || std::str::from_utf8(&payload).is_ok());
                }
            }
            assert!(self.open.len() <= CHANNELS);
        }
        let mut answers = 0;
        while let Some(packet) = self.relay.poll_transmit() {
            assert!(packet.len() <= CHANNEL_PACKET_BYTES as usize, "{} bytes", packet.len());
            answers += 1;
            assert!(answers <= ANSWERS);
        }
    }
}

/// CRC32c (RFC 9260 appendix A).
fn checksum(packet: &[u8]) -> u32 {
    !packet.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_corpus_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/channels");
        let mut inputs = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            channels(&std::fs::read(file.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 3, "{inputs}");
    }

    #[test]
    fn a_channel_that_is_opened_is_told_and_heard() {
        let mut peer = Peer::new().unwrap();
        let mut message = [0; BYTES_MAX];
        let open = Open {
            is_ordered: true,
            reliability: Reliability::Full,
            priority: 256,
            label: "x",
            protocol: "",
        };
        let len = Message::Open(open).write(&mut message).unwrap();
        peer.say_data(3, 7, 50, &message[..len]);
        let (label, protocol) = ("x".into(), String::new());
        assert_eq!(peer.relay.poll_event(), Some(Event::Opened { channel: 7, label, protocol }));
        peer.say_data(3 + 8, 7, 51, b"hello");
        let (is_text, payload) = (true, b"hello".to_vec());
        assert_eq!(peer.relay.poll_event(), Some(Event::Message { channel: 7, is_text, payload }));
    }
}
