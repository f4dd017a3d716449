//! Numbers that wrap: comparing them, and giving each its place on a line that does not.

/// How far `to` lies ahead of `from` on the circle of sequence numbers; negative when behind.
#[must_use]
pub const fn distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

/// Whether `a` comes after `b` (RFC 1982 section 3.2; at exactly half the circle it does not).
#[must_use]
pub const fn newer(a: u16, b: u16) -> bool {
    distance(b, a) > 0
}

/// How far `to` lies ahead of `from` on the circle of RTP timestamps; negative when behind.
#[must_use]
pub const fn timestamp_distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

/// Whether timestamp `a` comes after `b`.
#[must_use]
pub const fn timestamp_newer(a: u32, b: u32) -> bool {
    timestamp_distance(b, a) > 0
}

/// Extends 16-bit sequence numbers to 64 bits by counting rollovers.
///
/// A number is placed nearest to the highest seen so far. The first one lies in cycle 1 (its value plus 65,536), so
/// that those just before it, which arrive late, have a place too: extended numbers tell order and distance, and
/// their low 16 bits the number on the wire, but they are not the packet index of SRTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extender {
    highest: Option<u64>,
}

impl Extender {
    /// An extender that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// Extends a number and remembers it when it is the highest.
    pub fn extend(&mut self, seq: u16) -> u64 {
        let extended = self.peek(seq);
        self.highest = Some(self.highest.map_or(extended, |highest| highest.max(extended)));
        extended
    }

    /// Extends a number without remembering it.
    #[must_use]
    pub fn peek(&self, seq: u16) -> u64 {
        let Some(highest) = self.highest else { return (1 << 16) | u64::from(seq) };
        highest.saturating_add_signed(i64::from(distance(highest as u16, seq)))
    }

    /// The highest extended number so far.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Extends 32-bit RTP timestamps to 64 bits, as [`Extender`] does sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimestampExtender {
    highest: Option<u64>,
}

impl TimestampExtender {
    /// An extender that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// Extends a timestamp and remembers it when it is the highest.
    pub fn extend(&mut self, timestamp: u32) -> u64 {
        let extended = self.peek(timestamp);
        self.highest = Some(self.highest.map_or(extended, |highest| highest.max(extended)));
        extended
    }

    /// Extends a timestamp without remembering it.
    #[must_use]
    pub fn peek(&self, timestamp: u32) -> u64 {
        let Some(highest) = self.highest else { return (1 << 32) | u64::from(timestamp) };
        highest.saturating_add_signed(i64::from(timestamp_distance(highest as u32, timestamp)))
    }

    /// The highest extended timestamp so far.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_survives_the_wrap() {
        assert!(newer(0, 65535));
        assert!(!newer(65535, 0));
        assert!(!newer(7, 7));
        assert!(!newer(0x8000, 0) && !newer(0, 0x8000));
        assert_eq!(distance(65530, 4), 10);
        assert_eq!(distance(4, 65530), -10);
        assert!(timestamp_newer(5, u32::MAX));
    }

    #[test]
    fn late_packets_before_the_first_have_a_place() {
        let mut extender = Extender::new();
        assert_eq!(extender.extend(3), 65536 + 3);
        assert_eq!(extender.extend(65534), 65534);
        assert_eq!(extender.highest(), Some(65536 + 3));
        assert_eq!(extender.extend(4), 65536 + 4);
    }

    proptest! {
        #[test]
        fn extending_follows_a_line(start: u16, steps in prop::collection::vec(-300i64..3000, 0..200)) {
            let mut extender = Extender::new();
            let mut line = extender.extend(start);
            for step in steps {
                // Reordering is relative to the highest: nobody is late by half a circle.
                let next = line.saturating_add_signed(step);
                prop_assert_eq!(extender.extend(next as u16), next);
                line = line.max(next);
            }
        }

        #[test]
        fn timestamps_follow_a_line(start: u32, steps in prop::collection::vec(-90_000i64..0x4000_0000, 0..50)) {
            let mut extender = TimestampExtender::new();
            let mut line = extender.extend(start);
            for step in steps {
                let next = line.saturating_add_signed(step);
                prop_assert_eq!(extender.extend(next as u32), next);
                line = line.max(next);
            }
        }
    }
}
