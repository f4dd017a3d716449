//! The media packets that wait to be forwarded together: the packets of one frame to one subscriber are a run, and a run
//! costs the kernel little more than a packet.
//!
//! A frame is held until its last packet came, or for [`crate::worker::WorkerConfig::gather`] at most. A picture cannot be
//! shown before its last packet came, so that holding the others back until then delays no picture.

use crate::drop::DropReason;
use crate::limits::{
    DATAGRAM_BYTES, GATHERED_BYTES, GATHERED_PACKETS, PADDED_BYTES_MIN, PADDING_BYTES,
};
use crate::packet::Packet;
use crate::peek::Peek;
use crate::publication::Stream;
use crate::rewrite::Source;
use crate::route::Leg;
use crate::time::{Duration, Instant, Now};
use std::ops::Range;
use strait_wire::rtp;

/// A decrypted packet that waits.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) stream: Stream,
    pub(crate) source: Source,
    /// Extended by the source's window.
    pub(crate) seq: u64,
    pub(crate) received: Now,
    pub(crate) peek: Peek,
    /// Its frame goes on: what comes next belongs to the same run.
    open: bool,
    /// In the arena as it came, if others can open that; empty otherwise.
    sealed: Range<usize>,
    /// Header and payload in the arena. Room for the padding follows.
    bytes: Range<usize>,
    payload_len: usize,
    padding: usize,
}

/// The packets that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    wait: Duration,
    arena: Vec<u8>,
    used: usize,
    held: Vec<Held>,
    /// Encodings whose last packet leaves its frame open.
    open: usize,
    first_at: Instant,
}

impl Gather {
    /// One that holds an open frame for at most `wait`.
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            wait,
            arena: vec![0; GATHERED_BYTES],
            held: Vec::with_capacity(GATHERED_PACKETS),
            ..Self::default()
        }
    }

    /// What waits.
    pub(crate) fn held(&self) -> &[Held] {
        &self.held
    }

    /// Whether one more might not find room.
    pub(crate) fn is_full(&self) -> bool {
        self.held.len() >= GATHERED_PACKETS || self.used + HELD_BYTES_MAX > GATHERED_BYTES
    }

    /// When it is to be forwarded: at once if every frame is complete.
    pub(crate) fn due(&self) -> Option<Instant> {
        let wait = if self.open == 0 { Duration::ZERO } else { self.wait };
        (!self.held.is_empty()).then(|| self.first_at + wait)
    }

    /// Copies a packet as it came, before it is decrypted in place. It is forgotten unless [`Gather::hold`] follows.
    pub(crate) fn keep_sealed(&mut self, sealed: &[u8]) -> Range<usize> {
        let place = self.used..self.used + sealed.len();
        match self.arena.get_mut(place.clone()) {
            Some(room) => {
                room.copy_from_slice(sealed);
                place
            }
            None => self.used..self.used,
        }
    }

    /// What [`Gather::keep_sealed`] copied.
    pub(crate) fn sealed(&self, place: Range<usize>) -> &[u8] {
        self.arena.get(place).unwrap_or_default()
    }

    /// Copies a packet in. `open` says that its frame goes on.
    pub(crate) fn hold(
        &mut self,
        received: Now,
        (stream, source): (Stream, Source),
        packet: &Packet<'_>,
        sealed: Range<usize>,
        open: bool,
    ) -> Result<(), DropReason> {
        let start = sealed.end.max(self.used);
        let bytes = start..start + packet.bytes.len();
        let room = self.arena.get_mut(bytes.clone()).filter(|_| self.held.len() < GATHERED_PACKETS);
        let room = room.ok_or(DropReason::EgressFull)?;
        room.copy_from_slice(packet.bytes);
        // Without the padding that it came with.
        rtp::set_padding(room, false).ok_or(DropReason::RtpMalformed)?;
        if self.held.is_empty() {
            self.first_at = received.at;
        }
        let same = |held: &&Held| held.stream.is_beside(stream);
        let was_open = self.held.iter().rev().find(same).is_some_and(|held| held.open);
        self.open = self.open + usize::from(open) - usize::from(was_open);
        self.used = bytes.end + PADDING_BYTES;
        self.held.push(Held {
            stream,
            source,
            seq: packet.seq,
            received,
            peek: packet.peek,
            open,
            sealed,
            bytes,
            payload_len: packet.payload.len(),
            padding: 0,
        });
        Ok(())
    }

    /// Gives packets of nearly one size the same size, so that they make one run. Of each encoding, stretches whose
    /// payloads differ by [`PADDING_BYTES`] at most are filled up to the longest; the very last packet may stay shorter.
    pub(crate) fn equalise(&mut self) {
        let mut done = 0_u64;
        for first in 0..self.held.len() {
            if done & bit(first) == 0 {
                self.equalise_from(first, &mut done);
            }
        }
    }

    fn equalise_from(&mut self, first: usize, done: &mut u64) {
        let Some(stream) = self.held.get(first).map(|held| held.stream) else { return };
        let (mut shortest, mut longest, mut stretch, mut goes_on) = (usize::MAX, 0, 0_u64, false);
        let mut last = first;
        for (at, held) in self.held.iter().enumerate().skip(first) {
            if !held.stream.is_beside(stream) {
                continue;
            }
            let (low, high) = (shortest.min(held.payload_len), longest.max(held.payload_len));
            if stretch != 0 && (low < PADDED_BYTES_MIN || high - low > PADDING_BYTES) {
                goes_on = true;
                break;
            }
            (shortest, longest, stretch, last) = (low, high, stretch | bit(at), at);
        }
        *done |= stretch;
        for at in Packets(stretch).filter(|at| goes_on || *at != last) {
            let Some(held) = self.held.get_mut(at) else { continue };
            //= rfc3550#5.1: the last octet of the padding is its count.
            held.padding = longest - held.payload_len;
            let padding = self.arena.get_mut(held.bytes.end..held.bytes.end + held.padding);
            if let Some((count, zeros)) = padding.and_then(|bytes| bytes.split_last_mut()) {
                zeros.fill(0);
                *count = held.padding as u8;
            }
        }
    }

    /// A packet as its subscribers see it, with the padding that makes it as long as its neighbours.
    pub(crate) fn packet(&self, held: &Held, leg: &Leg) -> Option<Packet<'_>> {
        let mut packet =
            Packet::parse(self.arena.get(held.bytes.clone())?, held.seq, leg, held.peek).ok()?;
        let start = held.bytes.end - held.payload_len;
        packet.padded = self.arena.get(start..held.bytes.end + held.padding)?;
        Some(packet)
    }

    /// A packet as it came.
    pub(crate) fn as_sent(&self, held: &Held) -> Option<&[u8]> {
        self.arena.get(held.sealed.clone()).filter(|bytes| !bytes.is_empty())
    }

    /// Forgets what waited.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.open = 0;
        self.held.clear();
    }
}

/// The packets of a set of places, from the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packets(pub(crate) u64);

impl Iterator for Packets {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        let at = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (at < u64::BITS).then_some(at as usize)
    }
}

/// The set of one place.
pub(crate) fn bit(at: usize) -> u64 {
    1_u64.checked_shl(at as u32).unwrap_or_default()
}

const _: () = assert!(GATHERED_PACKETS <= u64::BITS as usize);
/// Bytes that a packet takes at most.
const HELD_BYTES_MAX: usize = 2 * DATAGRAM_BYTES + PADDING_BYTES;
const _: () = assert!(PADDING_BYTES <= u8::MAX as usize && HELD_BYTES_MAX <= GATHERED_BYTES);
