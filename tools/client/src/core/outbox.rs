//! Messages of the application, until the node took them over.

use std::collections::VecDeque;
use strait_link::v1::SendMessage;

/// Messages that wait where the node names no limit.
const UNCONFIRMED: usize = 256;
/// Bytes of messages that wait: 128 of the longest, more than a node takes in a second. It bounds an application's memory
/// where the node reads slowly or is away.
pub const BYTES: usize = 8 << 20;
/// What a message weighs besides its payload and receiver.
const OVERHEAD: usize = 64;

/// See above. Numbers go on over all links of a session, so that what was sent twice is taken once.
#[derive(Default)]
pub struct Outbox {
    waiting: VecDeque<SendMessage>,
    /// So many of them, the first, were given to the link.
    given: usize,
    bytes: usize,
    last: u64,
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

    /// The next for the link. To be asked while there is room there.
    pub fn give(&mut self) -> Option<&SendMessage> {
        let message = self.waiting.get(self.given)?;
        self.given += 1;
        Some(message)
    }

    /// Whether the node did not confirm it yet.
    #[must_use]
    pub fn is_waiting(&self, number: u64) -> bool {
        self.waiting.front().is_some_and(|first| first.number <= number) && number <= self.last
    }

    /// All up to this number were taken over.
    pub fn taken(&mut self, number: u64) {
        while let Some(message) = self.waiting.pop_front_if(|message| message.number <= number) {
            self.bytes -= weight(&message);
            self.given = self.given.saturating_sub(1);
        }
    }

    /// All is to be given anew, to a new link; `resumed`: of the same session. In another one numbers begin anew.
    pub fn rewind(&mut self, resumed: bool) {
        self.given = 0;
        if !resumed {
            let numbers = 1..;
            self.waiting.iter_mut().zip(numbers).for_each(|(message, n)| message.number = n);
            self.last = self.waiting.len() as u64;
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
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
        assert_eq!(
            [1, 2, 3, 4].map(|number| outbox.is_waiting(number)),
            [false, true, true, false]
        );
        assert_eq!(outbox.push(message(4)).unwrap(), 4);
        assert_eq!(numbers(&mut outbox, true), [(2, 2), (3, 3), (4, 4)]);
        assert_eq!(numbers(&mut outbox, false), [(1, 2), (2, 3), (3, 4)]);
        outbox.taken(3);
        assert!(outbox.is_empty());
        assert_eq!(outbox.push(message(5)).unwrap(), 4);
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
        outbox.taken(u64::MAX);
        assert!(outbox.give().is_none() && outbox.is_empty() && outbox.bytes == 0);
    }
}
