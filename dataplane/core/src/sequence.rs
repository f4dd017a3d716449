//! Incoming sequence numbers: extended past 16 bits, each accepted once.

use crate::drop::DropReason;

/// How far behind the newest a packet may arrive, by reordering or by retransmission.
const WINDOW: u64 = 1024;

/// The last [`WINDOW`] sequence numbers of a source, original packets and retransmissions alike.
///
/// SRTP's replay window guards each SSRC by itself; this one also sees that a packet and its RTX (RFC 4588) copy are the
/// same, so that no outgoing sequence number is ever encrypted twice with different bytes.
#[derive(Debug, Default)]
pub(crate) struct Window {
    newest: Option<u64>,
    seen: [u64; (WINDOW / 64) as usize],
}

impl Window {
    /// The newest extended number so far.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The extended number nearest to the newest one. The first is in the second cycle, so that earlier ones exist.
    pub(crate) fn extend(&self, seq: u16) -> u64 {
        match self.newest {
            None => (1 << 16) | u64::from(seq),
            Some(newest) => {
                let step = seq.wrapping_sub(newest as u16).cast_signed();
                newest.saturating_add_signed(i64::from(step))
            }
        }
    }

    /// Whether this number was accepted before. What is older than the window counts as seen.
    pub(crate) fn has(&self, extended: u64) -> bool {
        let Some(newest) = self.newest else { return false };
        extended <= newest
            && (newest - extended >= WINDOW
                || self.word(extended).is_some_and(|word| word & bit(extended) != 0))
    }

    /// Takes a number for the first time.
    pub(crate) fn accept(&mut self, seq: u16) -> Result<u64, DropReason> {
        let extended = self.extend(seq);
        if self.has(extended) {
            let late = self.newest.is_some_and(|newest| newest - extended >= WINDOW);
            return Err(if late { DropReason::PacketTooLate } else { DropReason::PacketDuplicate });
        }
        let newest = self.newest.unwrap_or(extended);
        if extended > newest.saturating_add(WINDOW) {
            self.seen = [0; (WINDOW / 64) as usize];
        } else {
            // Numbers that were skipped were not seen; their bits still hold what was there a window ago.
            for skipped in newest + 1..extended {
                self.clear(skipped);
            }
        }
        if let Some(word) = self.seen.get_mut(index(extended)) {
            *word |= bit(extended);
        }
        self.newest = Some(newest.max(extended));
        Ok(extended)
    }

    fn word(&self, extended: u64) -> Option<u64> {
        self.seen.get(index(extended)).copied()
    }

    fn clear(&mut self, extended: u64) {
        if let Some(word) = self.seen.get_mut(index(extended)) {
            *word &= !bit(extended);
        }
    }
}

fn index(extended: u64) -> usize {
    ((extended % WINDOW) / 64) as usize
}

fn bit(extended: u64) -> u64 {
    1 << (extended % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn cycles_are_counted() {
        let mut window = Window::default();
        assert_eq!(window.accept(65_534), Ok(131_070));
        assert_eq!(window.accept(1), Ok(131_073));
        assert_eq!(window.accept(65_535), Ok(131_071));
        assert_eq!(window.accept(1), Err(DropReason::PacketDuplicate));
        assert_eq!(window.accept(0), Ok(131_072));
        assert_eq!(window.newest(), Some(131_073));
    }

    #[test]
    fn the_window_edge() {
        let mut window = Window::default();
        assert!(window.accept(5000).is_ok());
        assert!(window.accept(5000 - 1023).is_ok(), "just inside");
        assert_eq!(window.accept(5000 - 1024), Err(DropReason::PacketTooLate), "just outside");
    }

    proptest! {
        #[test]
        fn each_number_passes_once(steps in prop::collection::vec(-1100_i32..1500, 1..600)) {
            let (mut window, mut model) = (Window::default(), BTreeSet::new());
            let (mut at, mut newest) = (100_000_i64, 100_000_i64);
            prop_assert!(window.accept(at as u16).is_ok());
            model.insert(at);
            for step in steps {
                at = newest + i64::from(step);
                let result = window.accept(at as u16);
                if newest - at >= WINDOW as i64 {
                    prop_assert_eq!(result, Err(DropReason::PacketTooLate));
                } else if !model.insert(at) {
                    prop_assert_eq!(result, Err(DropReason::PacketDuplicate));
                } else {
                    prop_assert!(result.is_ok());
                    newest = newest.max(at);
                    prop_assert_eq!(window.newest().map(|n| n as u16), Some(newest as u16));
                }
            }
        }
    }
}
