//! Messages of the application, until the node took them over.

use std::collections::VecDeque;
use strait_link::v1::SendMessage;

/// Messages that wait where the node names no limit.
const UNCONFIRMED: usize = 256;
/// Bytes of messages that wait: 128 of the longest, more than a node takes in a second. It bounds an application's memory
/// where the node reads slowly or is away.
pub const BYTES: usize = 8 << 20;
/// Bytes of messages that are given without being confirmed: what a node reads ahead for who speaks faster than it may, so
/// that confirmations behind them are read at once.
const UNDER_WAY: usize = 4 << 20;
/// What a message weighs besides its payload and receiver.
const OVERHEAD: usize = 64;

/// See above. Numbers go on over all links of a session, so that what was sent twice is taken once. To the application they
/// go on over all sessions.
#[derive(Default)]
pub struct Outbox {
    /// With the application's numbers.
    waiting: VecDeque<SendMessage>,
    /// So many of them, the first, were given to the link.
    given: usize,
    given_bytes: usize,
    bytes: usize,
    last: u64,
    /// So many messages, the first, were of sessions of before: this one counts from 1.
    before: u64,
    most: Option<usize>,
}

impl Outbox {
    /// The node takes so many at most without confirming; 0: not said.
    pub fn limit(&mut self, most: u32) {
        self.most = usize::try_from(most).ok().filter(|most| *most > 0);
    }

    /// A new message; its number. None: too many wait, or too many bytes.
    pub fn push(&mut self, mut message: SendMessage) -> Option<u64> {
        let bytes = self.bytes + weight(&message);
        if self.waiting.len() >= self.most.unwrap_or(UNCONFIRMED) || bytes > BYTES {
            return None;
        }
        (self.last, self.bytes) = (self.last + 1, bytes);
        message.number = self.last;
        self.waiting.push_back(message);
        Some(self.last)
    }

    /// The next for the link, with its number there. To be asked while there is room there.
    pub fn give(&mut self) -> Option<SendMessage> {
        let message = self.waiting.get(self.given)?;
        let bytes = self.given_bytes + weight(message);
        if bytes > UNDER_WAY {
            return None;
        }
        let mut message = message.clone();
        (self.given, self.given_bytes) = (self.given + 1, bytes);
        message.number -= self.before;
        Some(message)
    }

    /// What the application calls the message with this number on the link; none where the node confirmed it before.
    #[must_use]
    pub fn waiting(&self, number: u64) -> Option<u64> {
        let number = self.named(number)?;
        self.waiting.front().filter(|first| first.number <= number).map(|_| number)
    }

    /// What the application calls the message with this number on the link, confirmed or not.
    #[must_use]
    pub fn named(&self, number: u64) -> Option<u64> {
        number.checked_add(self.before).filter(|number| *number <= self.last)
    }

    /// All up to this number on the link were taken over.
    pub fn taken(&mut self, number: u64) {
        let number = number.saturating_add(self.before);
        while let Some(message) = self.waiting.pop_front_if(|message| message.number <= number) {
            self.bytes -= weight(&message);
            if self.given > 0 {
                self.given -= 1;
                self.given_bytes -= weight(&message);
            }
        }
    }

    /// All is to be given anew, to a new link; `resumed`: of the same session. In another one numbers begin anew.
    pub fn rewind(&mut self, resumed: bool) {
        (self.given, self.given_bytes) = (0, 0);
        if !resumed {
            self.before = self.last - self.waiting.len() as u64;
        }
    }

    /// Gives up what waits: its numbers.
    pub fn give_up(&mut self) -> Vec<u64> {
        (self.bytes, self.given, self.given_bytes) = (0, 0, 0);
        self.waiting.drain(..).map(|message| message.number).collect()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn weight(message: &SendMessage) -> usize {
    message.payload.len() + message.to.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(outbox: &mut Outbox, resumed: bool) -> Vec<(u64, u8)> {
        outbox.rewind(resumed);
        let given = std::iter::from_fn(|| outbox.give().map(|one| (one.number, one.payload[0])));
        given.collect()
    }

    #[test]
    fn what_was_not_confirmed_is_sent_again_with_its_number() {
        let mut outbox = Outbox::default();
        outbox.limit(3);
        let message = |n| SendMessage { payload: vec![n], ..SendMessage::default() };
        for n in 1..=3 {
            assert_eq!(outbox.push(message(n)).unwrap(), u64::from(n));
        }
        assert!(outbox.push(message(9)).is_none(), "too many wait");
        outbox.taken(1);
        let waiting = |outbox: &Outbox| [0, 1, 2, 3, 4, u64::MAX].map(|n| outbox.waiting(n));
        assert_eq!(waiting(&outbox), [None, None, Some(2), Some(3), None, None]);
        assert_eq!(outbox.push(message(4)).unwrap(), 4);
        assert_eq!(numbers(&mut outbox, true), [(2, 2), (3, 3), (4, 4)]);
        // In another session: to the application they are what they were.
        assert_eq!(numbers(&mut outbox, false), [(1, 2), (2, 3), (3, 4)]);
        assert_eq!(waiting(&outbox), [None, Some(2), Some(3), Some(4), None, None]);
        outbox.taken(3);
        assert!(outbox.is_empty());
        assert_eq!(outbox.push(message(5)).unwrap(), 5);
        assert_eq!(numbers(&mut outbox, true), [(4, 5)]);
        assert_eq!((outbox.give_up(), outbox.is_empty(), outbox.bytes), (vec![5], true, 0));
        assert_eq!(outbox.push(message(6)).unwrap(), 6);
    }

    #[test]
    fn what_was_given_is_given_once_to_a_link_and_bytes_are_bounded() {
        let mut outbox = Outbox::default();
        outbox.limit(4096);
        let message = || SendMessage { payload: vec![7; 65_536], ..SendMessage::default() };
        let pushed = (0..4096).take_while(|_| outbox.push(message()).is_some()).count();
        assert_eq!(pushed, BYTES / (65_536 + OVERHEAD));
        assert_eq!(outbox.give().unwrap().number, 1);
        assert_eq!(outbox.give().unwrap().number, 2);
        outbox.taken(1);
        assert_eq!(outbox.give().unwrap().number, 3);
        assert!(outbox.push(message()).is_some(), "there is room again");
        outbox.rewind(true);
        assert_eq!(outbox.give().unwrap().number, 2);
        let given = std::iter::from_fn(|| outbox.give()).last().unwrap().number;
        assert_eq!(given, 1 + (UNDER_WAY / (65_536 + OVERHEAD)) as u64, "so many are under way");
        outbox.taken(2);
        assert_eq!(outbox.give().unwrap().number, given + 1);
        outbox.taken(u64::MAX);
        assert!(outbox.give().is_none() && outbox.is_empty());
        assert_eq!((outbox.bytes, outbox.given, outbox.given_bytes), (0, 0, 0));
    }
}
