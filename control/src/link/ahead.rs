//! What was read ahead of a client that spoke too fast, to find its confirmations: frames as they came.

use std::sync::atomic::{AtomicUsize, Ordering};

use strait_link::v1::ClientMessage;
use strait_link::{FrameError, Frames};

use crate::limits;

/// Bytes that were read ahead of all clients of the process.
static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// Frames of one client that wait for their turn.
#[derive(Default)]
pub struct Ahead {
    frames: Frames,
    count: usize,
}

impl Ahead {
    /// Whether more may be read ahead.
    pub fn has_room(&self) -> bool {
        self.frames.waiting() < limits::LINK_AHEAD_BYTES
            && self.count < limits::LINK_AHEAD_MESSAGES
            && TOTAL.load(Ordering::Relaxed) < limits::LINKS_AHEAD_BYTES
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the next frame, of so many bytes, behind those that wait.
    pub fn put(&mut self, from: &mut Frames, bytes: usize) {
        from.pass_on(bytes, &mut self.frames);
        self.count += 1;
        TOTAL.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The first that waits.
    ///
    /// # Errors
    /// [`FrameError`]
    pub fn next(&mut self, most: usize) -> Result<Option<ClientMessage>, FrameError> {
        let before = self.frames.waiting();
        let message = self.frames.next(most)?;
        self.count = self.count.saturating_sub(1);
        TOTAL.fetch_sub(before - self.frames.waiting(), Ordering::Relaxed);
        Ok(message)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        TOTAL.fetch_sub(self.frames.waiting(), Ordering::Relaxed);
    }
}
