//! What was sent under which transport-wide sequence number, until the subscriber has said what became of it.

use crate::limits::SENT_PACKETS;
use crate::time::Instant;

/// The packets sent last, by their transport-wide numbers.
#[derive(Debug)]
pub(crate) struct Sent {
    ring: Box<[Entry]>,
    /// The number of the next packet, in long form.
    next: u64,
    /// The newest number that feedback told about.
    told: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// In units of [`TICK_NS`]; starts over after 19 hours, when nobody asks any more.
    at: u32,
    bytes: u16,
    /// The probe that it belongs to; 0 for none.
    cluster: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Flying,
    Lost,
    Arrived,
    /// The feedback about it was lost.
    Untold,
}

/// A packet that feedback tells about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// When it was sent, in microseconds on the worker's clock, give or take [`TICK_NS`].
    pub(crate) sent_us: i64,
    pub(crate) bytes: u16,
    pub(crate) cluster: u8,
}

/// What feedback says of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It arrived.
    Arrived(Packet),
    /// It arrived, though it was told lost before: it was overtaken.
    Late(Packet),
    /// It did not arrive.
    Lost(Packet),
    /// Nothing new.
    Again,
    /// It was never sent, or so long ago that it is forgotten.
    Unknown,
}

/// One unit of a sending time.
const TICK_NS: u64 = 16_000;

impl Default for Sent {
    fn default() -> Self {
        Self { ring: vec![Entry::default(); SENT_PACKETS].into(), next: 1, told: 0 }
    }
}

impl Sent {
    /// The same row of numbers goes on; what left before is forgotten.
    pub(crate) fn anew(&self) -> Self {
        Self { next: self.next, told: self.next.saturating_sub(1), ..Self::default() }
    }

    /// The number that the next packet is to carry.
    pub(crate) fn next_seq(&self) -> u16 {
        self.next as u16
    }

    /// The same in long form.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The first packet that is remembered.
    pub(crate) fn oldest(&self) -> u64 {
        self.next.saturating_sub(SENT_PACKETS as u64).max(1)
    }

    /// Whether nothing is known yet of a packet that is remembered.
    pub(crate) fn is_flying(&self, number: u64) -> bool {
        let entry = self.ring.get(Self::index(number));
        entry.is_some_and(|entry| entry.state == State::Flying)
    }

    /// What would tell about a packet was lost. The packet, if nothing was known of it yet.
    pub(crate) fn leave_untold(&mut self, now: Instant, number: u64) -> Option<Packet> {
        let entry = self.ring.get_mut(Self::index(number))?;
        (entry.state == State::Flying).then(|| {
            entry.state = State::Untold;
            entry.packet(now)
        })
    }

    /// The next packet left.
    pub(crate) fn push(&mut self, at: Instant, bytes: usize, cluster: u8) {
        let index = Self::index(self.next);
        if let Some(entry) = self.ring.get_mut(index) {
            let at = (at.0 / TICK_NS) as u32;
            *entry = Entry { at, bytes: bytes as u16, cluster, state: State::Flying };
        }
        self.next += 1;
    }

    /// Feedback tells about a number.
    pub(crate) fn tell(&mut self, now: Instant, seq: u16, arrived: bool) -> Told {
        let Some(number) = self.number(seq) else { return Told::Unknown };
        let Some(entry) = self.ring.get_mut(Self::index(number)) else { return Told::Unknown };
        if entry.state == State::Empty {
            return Told::Unknown;
        }
        self.told = self.told.max(number);
        let packet = entry.packet(now);
        let before = entry.state;
        match (before, arrived) {
            (State::Flying, true) => {
                entry.state = State::Arrived;
                Told::Arrived(packet)
            }
            (State::Lost, true) => {
                entry.state = State::Arrived;
                Told::Late(packet)
            }
            (State::Flying, false) => {
                entry.state = State::Lost;
                Told::Lost(packet)
            }
            _ => Told::Again,
        }
    }

    /// Feedback begins with `seq`: hands over, oldest first, the packets before that which none told about. `lost`: they did
    /// not arrive; otherwise feedback about them did not.
    pub(crate) fn skip(
        &mut self,
        now: Instant,
        seq: u16,
        lost: bool,
        mut each: impl FnMut(Packet),
    ) {
        let Some(number) = self.number(seq).filter(|number| *number > self.told) else { return };
        let oldest = self.next.saturating_sub(SENT_PACKETS as u64);
        for skipped in (self.told + 1).max(oldest)..number {
            let Some(entry) = self.ring.get_mut(Self::index(skipped)) else { continue };
            if entry.state == State::Flying {
                entry.state = if lost { State::Lost } else { State::Untold };
                each(entry.packet(now));
            }
        }
        self.told = number - 1;
    }

    /// When the first packet left that came after all that feedback told about.
    pub(crate) fn waiting_since(&self, now: Instant) -> Option<Instant> {
        // What fell out of the ring is at least as old as what is in it.
        let oldest = self.next.saturating_sub(SENT_PACKETS as u64);
        let first = (self.told + 1).max(oldest);
        let entry = self.ring.get(Self::index(first)).filter(|_| first < self.next)?;
        Some(entry.at(now))
    }

    /// The long form of a number that was sent lately.
    fn number(&self, seq: u16) -> Option<u64> {
        let newest = self.next - 1;
        let back = u64::from((newest as u16).wrapping_sub(seq));
        newest.checked_sub(back).filter(|_| back < SENT_PACKETS as u64)
    }

    fn index(number: u64) -> usize {
        (number % SENT_PACKETS as u64) as usize
    }
}

impl Entry {
    fn packet(self, now: Instant) -> Packet {
        let sent_us = (self.at(now).0 / 1000).cast_signed();
        Packet { sent_us, bytes: self.bytes, cluster: self.cluster }
    }

    /// When it was sent, seen from less than a turn of the counter later.
    fn at(self, now: Instant) -> Instant {
        let ticks = now.0 / TICK_NS;
        let ago = u64::from((ticks as u32).wrapping_sub(self.at));
        Instant(ticks.saturating_sub(ago) * TICK_NS)
    }
}

const _: () = assert!(SENT_PACKETS.is_power_of_two() && SENT_PACKETS <= 1 << 15);

#[cfg(test)]
mod tests {
    use super::*;

    /// The counter has started over before.
    const EPOCH_NS: u64 = TICK_NS << 33;
    const EPOCH_US: i64 = (EPOCH_NS / 1000).cast_signed();

    fn at(ms: u64) -> Instant {
        Instant(EPOCH_NS + ms * 1_000_000)
    }

    #[test]
    fn each_number_is_told_once() {
        let mut sent = Sent::default();
        let seq = sent.next_seq();
        sent.push(at(16), 1200, 0);
        sent.push(at(32), 100, 7);
        let packet = Packet { sent_us: EPOCH_US + 16_000, bytes: 1200, cluster: 0 };
        assert_eq!(sent.tell(at(99), seq, true), Told::Arrived(packet));
        assert_eq!(sent.tell(at(99), seq, true), Told::Again);
        assert_eq!(sent.tell(at(99), seq, false), Told::Again, "it cannot be lost any more");
        let packet = Packet { sent_us: EPOCH_US + 32_000, bytes: 100, cluster: 7 };
        assert_eq!(sent.tell(at(99), seq + 1, false), Told::Lost(packet));
        assert_eq!(sent.tell(at(99), seq + 1, false), Told::Again);
        assert_eq!(sent.tell(at(99), seq + 1, true), Told::Late(packet));
    }

    #[test]
    fn what_feedback_skips_is_lost_or_untold() {
        let mut sent = Sent::default();
        let seq = sent.next_seq();
        (0..9).for_each(|n| sent.push(at(n * 16), 9, n as u8));
        let skipped = |sent: &mut Sent, seq, lost| {
            let mut clusters = Vec::new();
            sent.skip(at(99), seq, lost, |packet| clusters.push(packet.cluster));
            clusters
        };
        assert_eq!(skipped(&mut sent, seq + 2, true), [0, 1]);
        assert_eq!(skipped(&mut sent, seq + 2, true), [0; 0]);
        assert!(matches!(sent.tell(at(99), seq + 1, true), Told::Late(_)), "overtaken");
        assert_eq!(skipped(&mut sent, seq + 4, false), [2, 3]);
        assert_eq!(sent.tell(at(99), seq + 2, true), Told::Again);
        assert_eq!(skipped(&mut sent, seq, true), [0; 0], "older than what was told");
        assert_eq!(skipped(&mut sent, seq + 9, true), [0; 0], "never sent");
    }

    #[test]
    fn what_was_never_sent_is_unknown() {
        let mut sent = Sent::default();
        let first = sent.next_seq();
        for seq in 0..=u16::MAX {
            assert_eq!(sent.tell(at(99), seq, true), Told::Unknown, "{seq}");
        }
        sent.push(at(0), 1, 0);
        for ahead in 1..=u16::MAX {
            assert_eq!(
                sent.tell(at(99), first.wrapping_add(ahead), true),
                Told::Unknown,
                "{ahead}"
            );
        }
    }

    #[test]
    fn numbers_wrap_and_old_ones_are_forgotten() {
        let mut sent = Sent::default();
        for n in 0..200_000_u64 {
            let seq = sent.next_seq();
            sent.push(at(n), 9, 0);
            if n % 3 == 0 {
                assert!(matches!(sent.tell(at(99), seq, true), Told::Arrived(_)), "{n}");
            }
        }
        let newest = sent.next_seq().wrapping_sub(1);
        let oldest = newest.wrapping_sub(SENT_PACKETS as u16 - 1);
        assert_ne!(sent.tell(at(99), oldest, true), Told::Unknown);
        assert_eq!(sent.tell(at(99), oldest.wrapping_sub(1), true), Told::Unknown);
    }

    #[test]
    fn it_says_since_when_nobody_answers() {
        let mut sent = Sent::default();
        assert_eq!(sent.waiting_since(at(5)), None);
        let seq = sent.next_seq();
        sent.push(at(8), 9, 0);
        sent.push(at(16), 9, 0);
        assert_eq!(sent.waiting_since(at(100)), Some(at(8)));
        sent.tell(at(99), seq, true);
        assert_eq!(sent.waiting_since(at(100)), Some(at(16)));
        sent.tell(at(99), seq + 1, false);
        assert_eq!(sent.waiting_since(at(100)), None);
    }
}
