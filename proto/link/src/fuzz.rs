//! What must hold for any bytes that come on a link, as a function: the fuzz target `frames` of `tests/fuzz` runs it on
//! what a fuzzer makes up, a test here on the committed corpus.

use std::fmt::Debug;

use prost::Message;

use crate::v1::{ClientMessage, ServerMessage};
use crate::{FrameError, Frames, LENGTH_BYTES, MESSAGE_BYTES, STRANGER_BYTES, encode};

/// Messages are the same however their bytes are cut, and when they are written and read again; what waits for the rest
/// of its frame is no more than a frame. At either end of the link.
///
/// # Panics
/// When that is not so.
pub fn frames(bytes: &[u8]) {
    both::<ClientMessage>(bytes);
    both::<ServerMessage>(bytes);
}

fn both<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    let whole = read::<M>(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, 3));
    let mut written = Vec::new();
    whole.0.iter().for_each(|message| encode(message, &mut written));
    let mut frames = Frames::new();
    frames.push(&written);
    for message in whole.0 {
        assert_eq!(frames.next(MESSAGE_BYTES), Ok(Some(message)));
    }
    assert_eq!(frames.waiting(), 0);
}

/// The messages in bytes that come in such steps, and why there are no more.
fn read<M: Message + Default>(bytes: &[u8], step: usize) -> (Vec<M>, Option<FrameError>) {
    let (mut frames, mut messages) = (Frames::new(), Vec::new());
    for part in bytes.chunks(step) {
        frames.push(part);
        loop {
            match frames.next(STRANGER_BYTES) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(frames.waiting() < LENGTH_BYTES + STRANGER_BYTES);
    }
    (messages, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_corpora_pass() {
        for target in ["frames", "link"] {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
            let mut inputs = 0;
            for file in std::fs::read_dir(corpus.join(target)).unwrap() {
                let bytes = std::fs::read(file.unwrap().path()).unwrap();
                frames(&bytes);
                for at in 0..bytes.len().min(300) {
                    let mut bent = bytes.clone();
                    bent[at] ^= 0x41;
                    frames(&bent);
                }
                inputs += 1;
            }
            assert!(inputs > 3, "{target}");
        }
    }
}
