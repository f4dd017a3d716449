//! What the relay keeps for a control plane, and does not look into.

use crate::limits::{NOTE_BYTES, NOTES_BYTES};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use zeroize::Zeroizing;

/// A note. There may be secrets in it: it is overwritten when it goes, and not shown.
#[derive(Default)]
pub struct Note {
    content: Zeroizing<Vec<u8>>,
    room: Option<Room>,
}

/// How much all notes take.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<AtomicUsize>);

/// What one of them takes, until it goes.
struct Room {
    notes: Notes,
    bytes: usize,
}

/// A note is not kept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    /// It is too long.
    #[error("content has {0} bytes: at most {NOTE_BYTES}; keep less in it")]
    TooLong(usize),
    /// All together are too long.
    #[error(
        "all notes have {NOTES_BYTES} bytes, all there may be: keep less in them, or add relays"
    )]
    NoRoom,
}

impl Notes {
    /// Takes a note in.
    ///
    /// # Errors
    /// It is too long, or all of them are.
    pub fn take(&self, content: Vec<u8>) -> Result<Note, NoteError> {
        let content = Zeroizing::new(content);
        let bytes = content.len();
        if bytes > NOTE_BYTES {
            return Err(NoteError::TooLong(bytes));
        }
        let notes = self.clone();
        let room = Room { notes, bytes };
        // Counted first: one that is too much gives it back as it goes.
        match self.0.fetch_add(bytes, Ordering::Relaxed) + bytes {
            all if all > NOTES_BYTES => {
                drop(room);
                Err(NoteError::NoRoom)
            }
            _ => Ok(Note { content, room: Some(room) }),
        }
    }
}

impl Note {
    /// What it says; nothing where there is none.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.notes.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.room.as_ref().map_or(0, |room| room.bytes);
        write!(f, "Note of {bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_and_give_their_room_back() {
        let notes = Notes::default();
        assert_eq!(
            notes.take(vec![0; NOTE_BYTES + 1]).unwrap_err(),
            NoteError::TooLong(NOTE_BYTES + 1)
        );
        let mut all: Vec<_> = (0..NOTES_BYTES / NOTE_BYTES)
            .map(|_| notes.take(vec![7; NOTE_BYTES]).unwrap())
            .collect();
        assert_eq!(notes.take(vec![1]).unwrap_err(), NoteError::NoRoom);
        assert!(notes.take(Vec::new()).is_ok(), "one is ended where all is full");
        all.pop();
        let last = notes.take(b"secret".to_vec()).unwrap();
        assert_eq!(last.content(), b"secret");
        assert_eq!(format!("{last:?}"), "Note of 6 bytes");
        drop((all, last));
        assert_eq!(notes.0.load(Ordering::Relaxed), 0);
    }
}
