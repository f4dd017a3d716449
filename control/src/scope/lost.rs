//! Messages that went with a receiver, as their senders are told: one word to each, however many.

use std::collections::BTreeMap;

use super::Notice;

/// Messages of one sender that a receiver which is gone had not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The receiver.
    pub peer: String,
    /// How many.
    pub count: u64,
    /// The first of them, as its sender counts; 0 where it does not.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// The same of all its senders.
#[derive(Debug, Default)]
pub struct Tally {
    senders: BTreeMap<String, (u64, u64, u64)>,
}

impl Tally {
    /// One more was lost, where that is a message.
    pub fn add(&mut self, notice: &Notice) {
        let Notice::Message(message) = notice else { return };
        let number = message.number;
        match self.senders.get_mut(&message.from) {
            Some((count, first, last)) => {
                (*count, *first, *last) = (*count + 1, number.min(*first), number.max(*last));
            }
            None => _ = self.senders.insert(message.from.clone(), (1, number, number)),
        }
    }

    /// What each sender is told of `peer`.
    pub fn of<'a>(self, peer: &'a str) -> impl Iterator<Item = (String, Lost)> + 'a {
        self.senders.into_iter().map(move |(from, (count, first, last))| {
            (from, Lost { peer: peer.into(), count, first, last })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Message;

    #[test]
    fn each_sender_has_one_word_whatever_the_order() {
        let mut tally = Tally::default();
        for (from, number) in [("p-1", 7), ("p-2", 0), ("p-1", 3), ("p-2", 0), ("p-1", 5)] {
            let message = Message { from: from.into(), number, ..Message::default() };
            tally.add(&Notice::Message(message));
        }
        let lost = |count, first, last| Lost { peer: "p-9".into(), count, first, last };
        let told: Vec<_> = tally.of("p-9").collect();
        assert_eq!(told, [("p-1".into(), lost(3, 3, 7)), ("p-2".into(), lost(2, 0, 0))]);
    }
}
