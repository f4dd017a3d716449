//! Extended indices and the replay window (RFC 3711 sections 3.3.1 and 3.3.2).

use super::Error;

/// Words of an RTP window.
pub(crate) const RTP_WORDS: usize = 8;
/// Words of an RTCP window.
pub(crate) const RTCP_WORDS: usize = 2;

/// The highest index handled, and which of the `64 * WORDS` indices up to it were.
#[derive(Clone, Debug)]
pub(crate) struct Window<const WORDS: usize> {
    highest: u64,
    /// Bit `index % (64 * WORDS)`: a ring, so that moving on clears a bit instead of shifting words.
    seen: [u64; WORDS],
}

impl<const WORDS: usize> Window<WORDS> {
    const BITS: u64 = 64 * WORDS as u64;

    /// Begins with `index` handled.
    pub(crate) fn new(index: u64) -> Self {
        let mut window = Self { highest: index, seen: [0; WORDS] };
        window.set(index);
        window
    }

    /// The 48-bit index that a sequence number most likely stands for: the nearest to the highest (RFC 3711 section
    /// 3.3.1). `None` where that would be before the first packet of a rollover counter of 0.
    pub(crate) fn guess(&self, seq: u16) -> Option<u64> {
        self.guess_later(seq, 0)
    }

    /// The same, where the sender's numbers wrapped so many times more than what was heard tells.
    pub(crate) fn guess_later(&self, seq: u16, rollovers: u32) -> Option<u64> {
        let distance = seq.wrapping_sub(self.highest as u16) as i16;
        let highest = self.highest.checked_add(u64::from(rollovers) << 16)?;
        highest.checked_add_signed(i64::from(distance))
    }

    /// Whether `index` is new.
    pub(crate) fn check(&self, index: u64) -> Result<(), Error> {
        match self.highest.checked_sub(index) {
            None => Ok(()),
            Some(behind) if behind >= Self::BITS => Err(Error::TooOld),
            Some(_) if self.get(index) => Err(Error::Replayed),
            Some(_) => Ok(()),
        }
    }

    /// Remembers `index`, which [`Window::check`] let pass.
    pub(crate) fn commit(&mut self, index: u64) {
        if let Some(ahead) = index.checked_sub(self.highest) {
            if ahead >= Self::BITS {
                self.seen = [0; WORDS];
            } else {
                for skipped in 1..=ahead {
                    self.clear(self.highest + skipped);
                }
            }
            self.highest = index;
        }
        self.set(index);
    }

    fn place(index: u64) -> (usize, u64) {
        let bit = index % Self::BITS;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn get(&self, index: u64) -> bool {
        let (word, mask) = Self::place(index);
        self.seen.get(word).is_some_and(|bits| bits & mask != 0)
    }

    fn set(&mut self, index: u64) {
        let (word, mask) = Self::place(index);
        if let Some(bits) = self.seen.get_mut(word) {
            *bits |= mask;
        }
    }

    fn clear(&mut self, index: u64) {
        let (word, mask) = Self::place(index);
        if let Some(bits) = self.seen.get_mut(word) {
            *bits &= !mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    type Rtp = Window<RTP_WORDS>;
    const BITS: u64 = Rtp::BITS;

    #[test]
    fn the_edge_just_works_and_just_fails() {
        for highest in [BITS - 1, BITS, 5 * BITS + 17, (1 << 48) - 1] {
            let window = Rtp::new(highest);
            assert_eq!(window.check(highest), Err(Error::Replayed));
            assert_eq!(window.check(highest + 1), Ok(()));
            assert_eq!(window.check(highest - (BITS - 1)), Ok(()));
            if highest >= BITS {
                assert_eq!(window.check(highest - BITS), Err(Error::TooOld));
            }
        }
    }

    #[test]
    fn guesses_the_nearest_index() {
        let window = Rtp::new(0x1_fffe);
        assert_eq!(window.guess(0xffff), Some(0x1_ffff));
        assert_eq!(window.guess(0), Some(0x2_0000));
        assert_eq!(window.guess(0xfff0), Some(0x1_fff0));
        // 2^15 - 1 ahead is still ahead, 2^15 is behind.
        assert_eq!(window.guess(0x7ffd), Some(0x2_7ffd));
        assert_eq!(window.guess(0x7ffe), Some(0x1_7ffe));
        let start = Rtp::new(3);
        assert_eq!(start.guess(0), Some(0));
        assert_eq!(start.guess(0xffff), None);
    }

    proptest! {
        /// Against the plain definition: a set of all that was taken.
        #[test]
        fn is_a_set_with_a_horizon(
            start in 0u64..2000,
            steps in prop::collection::vec(-700i64..900, 1..200),
        ) {
            let mut window = Rtp::new(start);
            let mut seen = HashSet::from([start]);
            let mut highest = start;
            for step in steps {
                let Some(index) = highest.checked_add_signed(step) else { continue };
                let want = if highest >= index + BITS {
                    Err(Error::TooOld)
                } else if seen.contains(&index) {
                    Err(Error::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(index), want);
                if want.is_ok() {
                    window.commit(index);
                    seen.insert(index);
                    highest = highest.max(index);
                }
            }
        }
    }
}
