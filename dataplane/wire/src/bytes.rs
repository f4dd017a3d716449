//! Big-endian reads and writes that answer `None` instead of panicking.

use crate::Full;

/// `N` bytes at `at`, if the buffer has them.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// The 16-bit number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// The 24-bit number at `at`.
pub(crate) fn u24_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
}

/// The 32-bit number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// The 64-bit number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

/// Overwrites the bytes at `at`, or changes nothing when they are not all there.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(at..)?.get_mut(..value.len())?.copy_from_slice(value);
    Some(())
}

/// Writes front to back into a buffer of the caller's.
pub(crate) struct Cursor<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.len)
    }

    /// Uses no more room than this in all.
    pub(crate) fn limit(&mut self, bytes: usize) {
        let room = std::mem::take(&mut self.bytes);
        let len = bytes.max(self.len).min(room.len());
        self.bytes = room.get_mut(..len).unwrap_or_default();
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Inlined: values of a size that is known need no call to copy them.
    #[inline]
    pub(crate) fn push(&mut self, value: &[u8]) -> Result<(), Full> {
        put(self.bytes, self.len, value).ok_or(Full)?;
        self.len += value.len();
        Ok(())
    }

    pub(crate) fn zeros(&mut self, count: usize) -> Result<(), Full> {
        let end = self.len.checked_add(count).ok_or(Full)?;
        self.bytes.get_mut(self.len..end).ok_or(Full)?.fill(0);
        self.len = end;
        Ok(())
    }

    /// Zeros up to the next 32-bit boundary, counted from the start of the buffer.
    pub(crate) fn align(&mut self) -> Result<(), Full> {
        self.zeros(self.len.next_multiple_of(4) - self.len)
    }

    pub(crate) fn patch(&mut self, at: usize, value: &[u8]) -> Result<(), Full> {
        put(self.bytes, at, value).ok_or(Full)
    }
}
