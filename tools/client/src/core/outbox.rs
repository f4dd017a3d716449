//! Messages of the application, until the node took them over.

use std::collections::VecDeque;
use strait_link::v1::SendMessage;

/// Messages that wait where the node names no limit.
const UNCONFIRMED: usize = 256;

/// See above. Numbers go on over all links of a session, so that what was sent twice is taken once.
#[derive(Default)]
pub struct Outbox {
    waiting: VecDeque<SendMessage>,
    last: u64,
    most: Option<usize>,
}

impl Outbox {
    /// The node takes so many at most without confirming; 0: not said.
    pub fn limit(&mut self, most: u32) {
        self.most = usize::try_from(most).ok().filter(|most| *most > 0);
    }

    /// A new message, numbered. None: too many wait.
    pub fn push(&mut self, mut message: SendMessage) -> Option<&SendMessage> {
        if self.waiting.len() >= self.most.unwrap_or(UNCONFIRMED) {
            return None;
        }
        self.last += 1;
        message.number = self.last;
        self.waiting.push_back(message);
        self.waiting.back()
    }

    /// Whether the node did not confirm it yet.
    #[must_use]
    pub fn is_waiting(&self, number: u64) -> bool {
        self.waiting.front().is_some_and(|first| first.number <= number) && number <= self.last
    }

    /// All up to this number were taken over.
    pub fn taken(&mut self, number: u64) {
        self.waiting.retain(|message| message.number > number);
    }

    /// What is to be sent on a new link; `resumed`: of the same session. In another one numbers begin anew.
    pub fn resend(&mut self, resumed: bool) -> impl Iterator<Item = &SendMessage> {
        if !resumed {
            let numbers = 1..;
            self.waiting.iter_mut().zip(numbers).for_each(|(message, n)| message.number = n);
            self.last = self.waiting.len() as u64;
        }
        self.waiting.iter()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(outbox: &mut Outbox, resumed: bool) -> Vec<(u64, u8)> {
        outbox.resend(resumed).map(|message| (message.number, message.payload[0])).collect()
    }

    #[test]
    fn what_was_not_confirmed_is_sent_again_with_its_number() {
        let mut outbox = Outbox::default();
        outbox.limit(3);
        let message = |n| SendMessage { payload: vec![n], ..SendMessage::default() };
        for n in 1..=3 {
            assert_eq!(outbox.push(message(n)).unwrap().number, u64::from(n));
        }
        assert!(outbox.push(message(9)).is_none(), "too many wait");
        outbox.taken(1);
        assert_eq!(
            [1, 2, 3, 4].map(|number| outbox.is_waiting(number)),
            [false, true, true, false]
        );
        assert_eq!(outbox.push(message(4)).unwrap().number, 4);
        assert_eq!(numbers(&mut outbox, true), [(2, 2), (3, 3), (4, 4)]);
        assert_eq!(numbers(&mut outbox, false), [(1, 2), (2, 3), (3, 4)]);
        outbox.taken(3);
        assert!(outbox.is_empty());
        assert_eq!(outbox.push(message(5)).unwrap().number, 4);
    }
}
