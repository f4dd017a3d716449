//! The only source of chance in a run: xoshiro256++ (Blackman and Vigna, 2019), seeded by SplitMix64
//! (Steele, Lea and Flood, 2014) as its authors advise. Not for secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A stream of pseudo-random numbers. The same seed gives the same stream on every machine.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut mix)) }
    }

    /// A stream of its own for `label`, so that one part of a run which draws more or less than
    /// before leaves the chances of the other parts as they were.
    #[must_use]
    pub fn fork(&self, label: u64) -> Self {
        let mut mix = self.state[0] ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self::new(split_mix(&mut mix))
    }

    /// All 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Zero to one, one excluded.
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what a double can hold exactly.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with probability `p`. Draws nothing when the answer is certain.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && (p >= 1.0 || self.unit() < p)
    }

    /// A number of the range. The bias of the multiplication is below 2^-32 for ranges below 2^32.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start()).saturating_add(1);
        let scaled = (u128::from(self.bits()) * u128::from(span)) >> 64;
        range.start() + u64::try_from(scaled).unwrap_or(0)
    }

    /// A duration of the range, in whole milliseconds.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.range(range))
    }

    /// A duration between zero and `max`.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX - 1);
        if max == 0 { Duration::ZERO } else { Duration::from_nanos(self.range(0..=max)) }
    }

    /// One of the choices.
    ///
    /// # Panics
    /// Without choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// An index below `len`, 0 if that is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.range(0..=(len.max(1) as u64 - 1))).unwrap_or(0)
    }

    /// Fills the bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.bits().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// A string of the characters that ICE credentials may have (RFC 8839 section 5.4, `ice-char`).
    pub fn ice_chars(&mut self, len: usize) -> String {
        const CHARS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..len).map(|_| char::from(self.pick(CHARS))).collect()
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_gives_the_published_sequence() {
        // First values of the reference implementation for seed 1234567.
        let mut state = 1_234_567;
        let drawn: [u64; 3] = std::array::from_fn(|_| split_mix(&mut state));
        assert_eq!(drawn, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn ranges_are_kept_and_reached() {
        let mut rng = Rng::new(1);
        let mut seen = [0_u32; 6];
        for _ in 0..6000 {
            let drawn = usize::try_from(rng.range(10..=15)).unwrap();
            seen[drawn - 10] += 1;
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        assert_eq!(rng.range(7..=7), 7);
        assert!(rng.unit() < 1.0);
    }

    #[test]
    fn forks_differ_by_label_and_leave_the_parent_alone() {
        let parent = Rng::new(9);
        let (mut one, mut again, mut two) = (parent.fork(1), parent.fork(1), parent.fork(2));
        assert_eq!(one.bits(), again.bits());
        assert_ne!(one.bits(), two.bits());
    }
}
