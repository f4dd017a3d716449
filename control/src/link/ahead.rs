//! What was read ahead of a client that spoke too fast, to find its confirmations: frames as they came.

use std::sync::atomic::{AtomicUsize, Ordering};

use strait_link::v1::ClientMessage;
use strait_link::{FrameError, Frames};

use crate::limits;

/// Bytes that hold what was read ahead of all clients of the process.
static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// Frames of one client that wait for their turn.
#[derive(Default)]
pub struct Ahead {
    frames: Frames,
    count: usize,
    /// Its share of [`TOTAL`].
    counted: usize,
}

impl Ahead {
    /// Whether more may be read ahead.
    pub fn has_room(&self) -> bool {
        let waiting = self.frames.waiting();
        // Some for each, whatever others do: what it confirms and that it lives is behind that.
        let is_shared = waiting < limits::LINK_AHEAD_LEAST
            || TOTAL.load(Ordering::Relaxed) < limits::LINKS_AHEAD_BYTES;
        waiting < limits::LINK_AHEAD_BYTES && self.count < limits::LINK_AHEAD_MESSAGES && is_shared
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the next frame, of so many bytes, behind those that wait.
    pub fn put(&mut self, from: &mut Frames, bytes: usize) {
        from.pass_on(bytes, &mut self.frames);
        self.count += 1;
        self.tally();
    }

    /// The first that waits.
    ///
    /// # Errors
    /// [`FrameError`]
    pub fn next(&mut self, most: usize) -> Result<Option<ClientMessage>, FrameError> {
        let message = self.frames.next(most)?;
        self.count = self.count.saturating_sub(1);
        self.tally();
        Ok(message)
    }

    fn tally(&mut self) {
        let before = std::mem::replace(&mut self.counted, self.frames.capacity());
        match self.counted.checked_sub(before) {
            Some(more) => TOTAL.fetch_add(more, Ordering::Relaxed),
            None => TOTAL.fetch_sub(before - self.counted, Ordering::Relaxed),
        };
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        TOTAL.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use strait_link::encode;
    use strait_link::v1::{SendMessage, client_message::Body};

    use super::*;

    #[test]
    fn what_is_held_is_counted_and_given_back() {
        let large = SendMessage { payload: vec![7; 60_000], ..SendMessage::default() };
        let large = ClientMessage { request: 0, body: Some(Body::SendMessage(large)) };
        let (mut bytes, mut from, mut ahead) = (Vec::new(), Frames::new(), Ahead::default());
        encode(&large, &mut bytes);
        for _ in 0..50 {
            from.push(&bytes);
            ahead.put(&mut from, bytes.len());
        }
        let held = ahead.counted;
        assert!(held >= 50 * bytes.len() && TOTAL.load(Ordering::Relaxed) >= held);
        for _ in 0..49 {
            assert_eq!(ahead.next(1 << 20).unwrap().as_ref(), Some(&large));
        }
        assert!(ahead.counted < 5 * bytes.len(), "{} for one that waits", ahead.counted);
        let others = TOTAL.load(Ordering::Relaxed) - ahead.counted;
        drop(ahead);
        assert_eq!(TOTAL.load(Ordering::Relaxed), others);
    }
}
