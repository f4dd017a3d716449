//! The numbers of a session's frames in both directions, and what a reconnect needs.

use std::collections::VecDeque;

use crate::limits;

/// Both series of one session, seen from the server.
#[derive(Debug, Default)]
pub struct Series {
    /// Number of the last frame sent.
    sent: u64,
    /// Frames sent and not acknowledged, without gaps, the last one being `sent`.
    retained: VecDeque<String>,
    /// Their bytes together.
    retained_bytes: usize,
    /// Number of the last frame received.
    received: u64,
    /// Frames received since the last acknowledgement went out.
    unacknowledged: u32,
}

/// What to do with a frame that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is the next one.
    Next,
    /// It was seen before: drop it.
    Duplicate,
    /// Frames are missing before it.
    Gap {
        /// The number that was expected.
        expected: u64,
    },
}

/// What a client says of itself when it reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// `cslr`: the last frame of the server that it received.
    pub received: u64,
    /// `cslw`: its frames after this one are retained.
    pub retained_after: u64,
    /// `csuw`: the last frame that it sent.
    pub sent: u64,
}

/// What a reconnect that succeeded needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// `sslr`: the last frame of the client that the server received.
    pub received: u64,
    /// The server's frames that the client lacks.
    pub resend: Vec<String>,
}

impl Series {
    /// Both series of a session whose first frame from the client has the number `first`.
    pub fn begun_at(first: u64) -> Self {
        Self { received: first, unacknowledged: 1, ..Self::default() }
    }

    /// The number of the next frame to send, which [`Series::retain`] must follow.
    pub fn next_sent(&self) -> u64 {
        self.sent + 1
    }

    /// Keeps the frame with number [`Series::next_sent`] until it is acknowledged. The oldest is
    /// dropped beyond the limit.
    pub fn retain(&mut self, text: String) {
        self.sent += 1;
        self.retained_bytes += text.len();
        self.retained.push_back(text);
        while self.retained.len() > limits::RETAINED_FRAMES
            || self.retained_bytes > limits::RETAINED_BYTES
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let bytes = self.retained.pop_front().map_or(0, |text| text.len());
        self.retained_bytes = self.retained_bytes.saturating_sub(bytes);
    }

    /// Judges the number of a frame that arrived, and counts it when it is the next one.
    pub fn receive(&mut self, sequence: u64) -> Received {
        let expected = self.received + 1;
        if sequence < expected {
            return Received::Duplicate;
        }
        if sequence > expected {
            return Received::Gap { expected };
        }
        self.received = sequence;
        self.unacknowledged += 1;
        Received::Next
    }

    /// The client has everything up to `ack`. One beyond what was sent says nothing.
    pub fn acknowledged(&mut self, ack: u64) {
        if ack > self.sent {
            return;
        }
        let missing = usize::try_from(self.sent - ack).unwrap_or(usize::MAX);
        while self.retained.len() > missing {
            self.forget_oldest();
        }
    }

    /// The number to acknowledge with, on a frame that goes out now; none before any arrived.
    pub fn acknowledge(&mut self) -> Option<u64> {
        self.unacknowledged = 0;
        (self.received > 0).then_some(self.received)
    }

    /// Whether an acknowledgement is due by itself.
    pub fn is_acknowledgement_due(&self) -> bool {
        self.unacknowledged >= limits::UNACKNOWLEDGED_FRAMES
    }

    /// Judges a reconnect: the server still has what the client lacks, and the client still has
    /// what the server lacks. None when either is not so.
    pub fn resume(&mut self, client: Reconnect) -> Option<Resumed> {
        let oldest = self.sent - u64::try_from(self.retained.len()).unwrap_or(self.sent);
        let server_can = client.received >= oldest && client.received <= self.sent;
        let client_can = client.retained_after <= self.received && self.received <= client.sent;
        if !(server_can && client_can) {
            return None;
        }
        self.acknowledged(client.received);
        self.unacknowledged = 0;
        Some(Resumed { received: self.received, resend: self.retained.iter().cloned().collect() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(series: &mut Series, count: u64) {
        for _ in 0..count {
            series.retain(series.next_sent().to_string());
        }
    }

    #[test]
    fn duplicates_are_dropped_and_gaps_reported() {
        let mut series = Series::default();
        assert_eq!(series.acknowledge(), None);
        assert_eq!(series.receive(1), Received::Next);
        assert_eq!(series.receive(1), Received::Duplicate);
        assert_eq!(series.receive(3), Received::Gap { expected: 2 });
        assert_eq!(series.receive(2), Received::Next);
        assert_eq!(series.acknowledge(), Some(2));
        for sequence in 3..3 + u64::from(limits::UNACKNOWLEDGED_FRAMES) {
            assert!(!series.is_acknowledgement_due());
            series.receive(sequence);
        }
        assert!(series.is_acknowledgement_due());
    }

    #[test]
    fn the_three_criteria_of_a_reconnect() {
        let mut series = Series::default();
        sent(&mut series, 10);
        series.acknowledged(4);
        for sequence in 1..=5 {
            series.receive(sequence);
        }
        let resume = |series: &mut Series, received, retained_after, sent| {
            series.resume(Reconnect { received, retained_after, sent })
        };
        assert_eq!(resume(&mut series, 3, 0, 9), None, "frame 4 is gone");
        assert_eq!(resume(&mut series, 11, 0, 9), None, "frame 11 was never sent");
        assert_eq!(resume(&mut series, 8, 6, 9), None, "the client forgot its frame 6");
        assert_eq!(resume(&mut series, 8, 0, 4), None, "the client never sent frame 5");
        let resumed = resume(&mut series, 8, 5, 9).unwrap();
        assert_eq!(resumed, Resumed { received: 5, resend: vec!["9".into(), "10".into()] });
        assert_eq!(resume(&mut series, 10, 5, 5).unwrap().resend, Vec::<String>::new());
    }

    #[test]
    fn the_retained_window_is_bounded() {
        let mut series = Series::default();
        sent(&mut series, limits::RETAINED_FRAMES as u64 + 10);
        assert_eq!(series.resume(Reconnect { received: 9, retained_after: 0, sent: 0 }), None);
        let resumed =
            series.resume(Reconnect { received: 10, retained_after: 0, sent: 0 }).unwrap();
        assert_eq!(resumed.resend.len(), limits::RETAINED_FRAMES);
        assert_eq!(resumed.resend[0], "11");

        let mut series = Series::default();
        for _ in 0..9 {
            series.retain("x".repeat(limits::RETAINED_BYTES / 8));
        }
        let resume = |received| Reconnect { received, retained_after: 0, sent: 0 };
        assert_eq!(series.resume(resume(0)), None);
        assert_eq!(series.resume(resume(1)).unwrap().resend.len(), 8);
        series.acknowledged(9);
        assert_eq!(series.retained_bytes, 0);
    }

    proptest! {
        /// Whatever is lost with a socket, a reconnect brings each frame once and in order.
        #[test]
        fn nothing_is_lost_or_doubled(
            steps in proptest::collection::vec((0u8..4, 0u64..6), 1..120),
        ) {
            let (mut server, mut client) = (Series::default(), Series::default());
            let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
            for (what, count) in steps {
                match what {
                    // The server sends some; those after the first `count` are lost with the socket.
                    0 | 1 => {
                        let (from, to, seen) = if what == 0 {
                            (&mut server, &mut client, &mut at_client)
                        } else {
                            (&mut client, &mut server, &mut at_server)
                        };
                        for index in 0..4 {
                            let number = from.next_sent();
                            from.retain(number.to_string());
                            if index < count && to.receive(number) == Received::Next {
                                seen.push(number);
                            }
                        }
                    }
                    2 => if let Some(ack) = client.acknowledge() { server.acknowledged(ack) },
                    _ => if let Some(ack) = server.acknowledge() { client.acknowledged(ack) },
                }
                let oldest = client.sent - client.retained.len() as u64;
                let reconnect = Reconnect {
                    received: client.received, retained_after: oldest, sent: client.sent,
                };
                let resumed = server.resume(reconnect).expect("both sides are honest");
                for text in &resumed.resend {
                    let number: u64 = text.parse().unwrap();
                    if client.receive(number) == Received::Next { at_client.push(number) }
                }
                client.acknowledged(resumed.received);
                for text in client.retained.clone() {
                    let number: u64 = text.parse().unwrap();
                    if server.receive(number) == Received::Next { at_server.push(number) }
                }
            }
            prop_assert_eq!(at_client, (1..=server.sent).collect::<Vec<_>>());
            prop_assert_eq!(at_server, (1..=client.sent).collect::<Vec<_>>());
        }

        #[test]
        fn no_number_breaks_it(numbers in proptest::collection::vec(any::<u64>(), 0..50)) {
            let mut series = Series::default();
            for number in numbers {
                series.receive(number);
                series.acknowledged(number);
                series.resume(Reconnect { received: number, retained_after: number, sent: number });
            }
        }
    }
}
