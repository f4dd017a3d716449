//! Hash tables keyed by what strangers choose (addresses, SSRCs): fast, and seeded so that collisions cannot be chosen.

use std::hash::{BuildHasher, Hasher};

/// A hash table whose hash is cheap and seeded.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, Seed>;

/// The random start of a worker's hashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(pub(crate) [u64; 2]);

impl BuildHasher for Seed {
    type Hasher = Folding;
    fn build_hasher(&self) -> Folding {
        let [state, key] = self.0;
        // An odd key with many bits set keeps the folded product from collapsing to zero.
        Folding { state, key: key | 0x9E37_79B9_0000_0001 }
    }
}

/// Folds each word into the state by a 64 x 64 to 128 bit product with a secret factor.
#[derive(Debug)]
pub(crate) struct Folding {
    state: u64,
    key: u64,
}

impl Folding {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.fold(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.fold(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }
    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }
    fn finish(&self) -> u64 {
        // One more round: the last word would otherwise reach the low bits only by its own product.
        let product = u128::from(self.state ^ self.key.rotate_left(32)) * u128::from(self.key);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_seed_gives_another_hash() {
        let one = Seed([1, 2]).hash_one(0x1234_5678_u32);
        assert_eq!(one, Seed([1, 2]).hash_one(0x1234_5678_u32));
        assert_ne!(one, Seed([1, 4]).hash_one(0x1234_5678_u32));
        assert_ne!(one, Seed([2, 2]).hash_one(0x1234_5678_u32));
    }

    #[test]
    fn neighbours_spread_over_the_low_bits() {
        let mut buckets = [0_u32; 256];
        for ssrc in 0..65_536_u32 {
            buckets[(Seed([7, 9]).hash_one(ssrc) & 255) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (100..500).contains(count)), "{buckets:?}");
    }
}
