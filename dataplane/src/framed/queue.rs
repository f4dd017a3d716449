//! Frames on their way to a peer, the oldest first.

use crate::limits::{FRAMED_QUEUE_BYTES, FRAMED_RECORD_BYTES};
use strait_wire::framing;

/// Frames that wait for TCP. When they are too many the oldest go: late media is worth nothing.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// What before it is gone; always where a frame begins.
    start: usize,
}

impl Queue {
    /// Appends what came, however frames are cut, and drops the oldest frames beyond the limit. Returns how many.
    pub(super) fn push(&mut self, bytes: &[u8]) -> u64 {
        if self.start >= FRAMED_RECORD_BYTES {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        let mut dropped = 0;
        while self.bytes.len() - self.start > FRAMED_QUEUE_BYTES
            && let Some(length) = self.frame(self.start)
        {
            self.start += length;
            dropped += 1;
        }
        dropped
    }

    /// Whole frames, as many as make one record; a longer one alone.
    pub(super) fn batch(&self) -> &[u8] {
        let mut end = self.start;
        while let Some(length) = self.frame(end) {
            if end > self.start && end + length - self.start > FRAMED_RECORD_BYTES {
                break;
            }
            end += length;
        }
        self.bytes.get(self.start..end).unwrap_or_default()
    }

    /// The first frame, without its length.
    pub(super) fn first(&self) -> Option<&[u8]> {
        let length = self.frame(self.start)?;
        self.bytes.get(self.start + framing::LENGTH_BYTES..self.start + length)
    }

    /// The first frame was sent.
    pub(super) fn first_sent(&mut self) {
        let length = self.frame(self.start).unwrap_or_default();
        self.sent(length);
    }

    /// The first of these bytes were sent: a batch.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.bytes.len());
        if self.start == self.bytes.len() {
            // Most have nothing to say most of the time.
            *self = Self::default();
        }
    }

    /// The length of the frame at this place, if all of it is there.
    fn frame(&self, at: usize) -> Option<usize> {
        framing::split(self.bytes.get(at..)?).map(|(frame, _)| frame.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: u8, length: u16) -> Vec<u8> {
        let mut frame = length.to_be_bytes().to_vec();
        frame.resize(framing::LENGTH_BYTES + usize::from(length), n);
        frame
    }

    #[test]
    fn whole_frames_come_out_however_they_are_cut() {
        let mut queue = Queue::default();
        let frames = [frame(1, 3), frame(2, 0), frame(3, 700)];
        let mut out = Vec::new();
        for byte in frames.concat() {
            queue.push(&[byte]);
            let batch = queue.batch().to_vec();
            if !batch.is_empty() {
                assert!(frames.contains(&batch));
                queue.sent(batch.len());
                out.extend(batch);
            }
        }
        assert_eq!(out, frames.concat());
        assert_eq!(queue.bytes.capacity(), 0, "an empty one costs nothing");
    }

    #[test]
    fn a_batch_is_a_record() {
        let mut queue = Queue::default();
        for n in 0..40 {
            queue.push(&frame(n, 1000));
        }
        let batch = queue.batch().len();
        assert_eq!((batch % 1002, batch / 1002), (0, FRAMED_RECORD_BYTES / 1002));
        let mut queue = Queue::default();
        queue.push(&frame(1, 60_000));
        assert_eq!(queue.batch().len(), 60_002);
    }

    #[test]
    fn the_oldest_go_and_what_is_half_there_stays() {
        let mut queue = Queue::default();
        let mut dropped = 0;
        for n in 0..100 {
            dropped += queue.push(&frame(n, 998));
        }
        dropped += queue.push(&frame(100, 998)[..500]);
        let kept = (100 - dropped) as usize;
        assert!(kept * 1000 + 500 <= FRAMED_QUEUE_BYTES);
        assert!((kept + 1) * 1000 + 500 > FRAMED_QUEUE_BYTES, "no more than needed");
        queue.push(&frame(100, 998)[500..]);
        let mut numbers = Vec::new();
        while !queue.batch().is_empty() {
            let batch = queue.batch().to_vec();
            numbers.extend(batch.chunks(1000).map(|frame| frame[500]));
            queue.sent(batch.len());
        }
        assert!(numbers.is_sorted() && numbers.last() == Some(&100), "{numbers:?}");
        assert_eq!(numbers.len(), FRAMED_QUEUE_BYTES / 1000);
    }
}
