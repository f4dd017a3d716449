//! Numbers of the messages of one session in both directions, and what a reconnect needs.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits;
use crate::scope::Notice;

/// Messages to the client, kept until it confirms them.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Number of the last one.
    last: u64,
    /// Those that were not confirmed, without gaps, the last one being `last`.
    unconfirmed: VecDeque<(Arc<Notice>, usize)>,
    bytes: usize,
    /// The first of these, which went out over this link.
    sent: usize,
    sent_bytes: usize,
}

/// Messages from the client.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Number of the last one that was taken.
    taken: u64,
    /// Number of the last one that the client was told of.
    told: u64,
    /// Those that reached nobody, as long as the client may not know it: the link on which it was
    /// told may have broken.
    undelivered: VecDeque<u64>,
    /// The last of these, which it was not told of on this link.
    untold: usize,
    /// Nobody knows how many came.
    is_open: bool,
}

/// What to do with a message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// It is the next one.
    Next,
    /// It was taken before.
    Again,
    /// Messages are missing before it.
    Gap {
        /// The number that was expected.
        expected: u64,
    },
}

impl Outbox {
    /// Numbers what waits from `number` on: so many the client has, of a process of before.
    pub fn begin_after(&mut self, number: u64) {
        self.last = number.min(u64::MAX / 2) + count(self.unconfirmed.len());
    }

    /// Number of the last one.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Those up to this number are not sent any more.
    pub fn gone(&self) -> u64 {
        self.last - count(self.unconfirmed.len())
    }

    /// Whether the client confirmed all.
    pub fn is_empty(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Keeps a message. False when too many wait.
    pub fn push(&mut self, message: Arc<Notice>, bytes: usize) -> bool {
        if self.unconfirmed.len() >= limits::WAITING_MESSAGES
            || self.bytes + bytes > limits::WAITING_BYTES
        {
            return false;
        }
        self.last += 1;
        self.bytes += bytes;
        self.unconfirmed.push_back((message, bytes));
        true
    }

    /// Whether the client may be sent another one now.
    pub fn is_due(&self) -> bool {
        self.sent < self.unconfirmed.len()
            && self.sent < limits::UNCONFIRMED_MESSAGES
            && self.sent_bytes < limits::UNCONFIRMED_BYTES
    }

    /// The next one to be sent, with its number.
    pub fn next(&mut self) -> Option<(u64, Arc<Notice>)> {
        if !self.is_due() {
            return None;
        }
        let (message, bytes) = self.unconfirmed.get(self.sent)?;
        self.sent += 1;
        self.sent_bytes += bytes;
        let behind = self.unconfirmed.len() - self.sent;
        Some((self.last - count(behind), Arc::clone(message)))
    }

    /// Whether messages wait for nothing but confirmations.
    pub fn is_stalled(&self) -> bool {
        self.sent < self.unconfirmed.len() && !self.is_due()
    }

    /// The client has all up to `number`. One beyond what was sent says nothing. Whether that was news.
    pub fn seen(&mut self, number: u64) -> bool {
        let before = self.unconfirmed.len();
        let missing = self.last.checked_sub(number).and_then(|n| usize::try_from(n).ok());
        let unsent = self.unconfirmed.len() - self.sent;
        let Some(missing) = missing.filter(|missing| *missing >= unsent) else { return false };
        while self.unconfirmed.len() > missing {
            let Some((_, bytes)) = self.unconfirmed.pop_front() else { break };
            self.bytes -= bytes;
            self.sent -= 1;
            self.sent_bytes -= bytes;
        }
        if self.unconfirmed.is_empty() {
            // What came in a burst must not keep its room.
            self.unconfirmed.shrink_to(limits::LINK_BATCH);
        }
        self.unconfirmed.len() < before
    }

    /// What was not confirmed.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Notice> {
        self.unconfirmed.iter().map(|(message, _)| &**message)
    }

    /// Another link begins, whose client has all up to `number`: the rest is sent again.
    pub fn link_begins(&mut self, number: u64) {
        self.seen(number);
        (self.sent, self.sent_bytes) = (0, 0);
    }
}

fn count(messages: usize) -> u64 {
    u64::try_from(messages).unwrap_or(u64::MAX)
}

impl Inbox {
    /// One of a session of which a process of before took so many. Where nobody knows how many, the
    /// first that comes is the next.
    pub fn recalled(taken: Option<u64>) -> Self {
        let is_open = taken.is_none();
        let taken = taken.unwrap_or_default().min(u64::MAX / 2);
        Self { taken, told: taken, is_open, ..Self::default() }
    }

    /// Number of the last one that was taken, where that is known.
    pub fn taken(&self) -> Option<u64> {
        (!self.is_open).then_some(self.taken)
    }

    /// Judges a message's number, and counts it when it is the next one.
    pub fn take(&mut self, number: u64) -> Number {
        if std::mem::take(&mut self.is_open) && number < u64::MAX / 2 {
            self.taken = number.saturating_sub(1);
            self.told = self.taken;
        }
        let expected = self.taken + 1;
        if number > expected {
            return Number::Gap { expected };
        }
        if number < expected {
            return Number::Again;
        }
        self.taken = number;
        Number::Next
    }

    /// A message reached nobody.
    pub fn undelivered(&mut self, number: u64) {
        self.undelivered.push_back(number);
        self.untold += 1;
        // So far back the client keeps nothing that it could be told of.
        let oldest = self.taken.saturating_sub(limits::UNCONFIRMED_MESSAGES as u64);
        while self.undelivered.front().is_some_and(|number| *number <= oldest) {
            self.undelivered.pop_front();
        }
        self.untold = self.untold.min(self.undelivered.len());
    }

    /// Another link begins: what was told on the one before may have been lost with it.
    pub fn link_begins(&mut self) {
        self.untold = self.undelivered.len();
    }

    /// Whether the client should be told what was taken.
    pub fn is_due(&self) -> bool {
        self.told < self.taken
    }

    /// What it is told: the last number, and those that reached nobody.
    pub fn tell(&mut self) -> (u64, Vec<u64>) {
        self.told = self.taken;
        let told = self.undelivered.len() - self.untold;
        self.untold = 0;
        (self.taken, self.undelivered.range(told..).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scope::Message;

    fn message(text: &str) -> Arc<Notice> {
        let payload = text.as_bytes().to_vec();
        Arc::new(Notice::Message(Message {
            from: "p".into(),
            payload,
            is_text: true,
            ..Message::default()
        }))
    }

    /// The numbers of what may be sent now.
    fn due(outbox: &mut Outbox) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next()).map(|(number, _)| number).collect()
    }

    #[test]
    fn what_is_not_confirmed_is_kept_within_limits() {
        let mut outbox = Outbox::default();
        assert!((0..limits::WAITING_MESSAGES).all(|_| outbox.push(message("x"), 1)));
        assert!(!outbox.push(message("x"), 1));
        let most = limits::UNCONFIRMED_MESSAGES as u64;
        assert_eq!(due(&mut outbox), (1..=most).collect::<Vec<_>>(), "the others wait");
        outbox.seen(u64::MAX);
        outbox.seen(most + 1);
        assert!(!outbox.push(message("x"), 1), "a lie confirms nothing");
        outbox.seen(10);
        assert_eq!(due(&mut outbox), (most + 1..=most + 10).collect::<Vec<_>>());
        assert!(!outbox.push(message("x"), limits::WAITING_BYTES), "too large in all");
        let mut last = most + 10;
        while outbox.bytes > 0 {
            outbox.seen(last);
            last = due(&mut outbox).pop().unwrap_or(last);
        }
        assert_eq!((outbox.bytes, outbox.unconfirmed.len()), (0, 0));
        assert_eq!((outbox.sent, outbox.sent_bytes), (0, 0));
        let large = limits::UNCONFIRMED_BYTES / 2;
        assert!((0..3).all(|_| outbox.push(message("x"), large)));
        let last = limits::WAITING_MESSAGES as u64;
        assert_eq!(due(&mut outbox), [last + 1, last + 2], "bytes count as well");
        outbox.link_begins(last + 1);
        assert_eq!(due(&mut outbox), [last + 2, last + 3], "again over another link");
    }

    #[test]
    fn what_a_process_of_before_did_not_hand_over_is_gone() {
        let mut outbox = Outbox::default();
        outbox.begin_after(50);
        assert!(outbox.push(message("x"), 1));
        // Its client has 40 of them: ten are lost, and what came since is not.
        outbox.link_begins(40);
        assert_eq!((outbox.gone(), outbox.last(), due(&mut outbox)), (50, 51, vec![51]));
        outbox.link_begins(51);
        assert_eq!((outbox.gone(), outbox.is_empty()), (51, true));
    }

    #[test]
    fn what_reached_nobody_is_told_once_for_each_link() {
        let mut inbox = Inbox::default();
        for number in 1..=3 {
            assert_eq!(inbox.take(number), Number::Next);
            if number != 2 {
                inbox.undelivered(number);
            }
        }
        assert_eq!(inbox.tell(), (3, vec![1, 3]));
        assert_eq!(inbox.tell(), (3, vec![]));
        inbox.link_begins();
        assert_eq!(inbox.tell(), (3, vec![1, 3]));
        let most = limits::UNCONFIRMED_MESSAGES as u64;
        for number in 4..=3 * most {
            inbox.take(number);
            inbox.undelivered(number);
        }
        inbox.link_begins();
        let numbers: Vec<u64> = (2 * most + 1..=3 * most).collect();
        assert_eq!(inbox.tell(), (3 * most, numbers), "the client keeps no more");
        assert_eq!(inbox.take(u64::MAX), Number::Gap { expected: 3 * most + 1 });
    }

    #[test]
    fn a_session_of_before_goes_on_with_the_numbers_of_its_client() {
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::recalled(None));
        // Two came before the client was back, which has 40 of the process of before.
        assert!((0..2).all(|_| outbox.push(message("x"), 1)));
        outbox.begin_after(40);
        outbox.link_begins(40);
        assert_eq!(due(&mut outbox), [41, 42]);
        assert!(outbox.push(message("x"), 1));
        assert_eq!(due(&mut outbox), [43]);
        assert_eq!(inbox.take(17), Number::Next);
        assert_eq!((inbox.take(17), inbox.take(18)), (Number::Again, Number::Next));
        assert_eq!(inbox.take(20), Number::Gap { expected: 19 });
        assert_eq!(inbox.tell(), (18, vec![]));
        assert_eq!(Inbox::recalled(None).take(u64::MAX), Number::Gap { expected: 1 });
        // Where the process before said how many it took, none is taken twice.
        let mut inbox = Inbox::recalled(Some(17));
        assert_eq!((inbox.take(17), inbox.take(19)), (Number::Again, Number::Gap { expected: 18 }));
        assert_eq!((inbox.take(18), inbox.taken()), (Number::Next, Some(18)));
        assert_eq!(Inbox::recalled(None).taken(), None);
        Outbox::default().begin_after(u64::MAX);
    }

    proptest! {
        /// Whatever is lost with a link, each message comes once and in order, both ways.
        #[test]
        fn nothing_is_lost_or_doubled(
            links in proptest::collection::vec((0usize..9, 0usize..9, 0usize..9), 1..20),
        ) {
            let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
            let mut at_client: Vec<u64> = Vec::new();
            let (mut said, mut confirmed): (Vec<u64>, u64) = (Vec::new(), 0);
            // What the client said that it has, where that arrived.
            let mut known = 0;
            let mut taken = Vec::new();
            for (sent, arrived, back) in links {
                // A link begins: what was not confirmed goes again, both ways.
                outbox.link_begins(known);
                prop_assert!((0..sent).all(|_| outbox.push(message("x"), 1)));
                for number in due(&mut outbox).into_iter().take(arrived) {
                    if number == at_client.last().unwrap_or(&0) + 1 { at_client.push(number) }
                }
                let first = said.len() as u64 + 1;
                said.extend(first..first + sent as u64);
                for number in said.iter().filter(|n| **n > confirmed).take(back) {
                    if inbox.take(*number) == Number::Next { taken.push(*number) }
                }
                // Confirmations get through, or are lost with the link.
                if back % 2 == 0 {
                    confirmed = inbox.tell().0;
                    known = *at_client.last().unwrap_or(&0);
                    outbox.seen(known);
                }
            }
            prop_assert_eq!(&at_client, &(1..=at_client.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(&taken, &(1..=taken.len() as u64).collect::<Vec<_>>());
        }
    }
}
