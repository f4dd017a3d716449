//! Frames: a length of 4 bytes, most significant first, then a message.

use prost::Message;
use std::fmt;

/// Bytes of the length before each message.
pub const LENGTH_BYTES: usize = 4;
/// What is taken was used up to here before the rest is moved to the front.
const SPENT_BYTES: usize = 64 << 10;

/// Why a link cannot go on: what follows cannot be told apart any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The other side announced a message of so many bytes, more than are taken.
    TooLarge {
        /// As announced.
        bytes: usize,
        /// The most that is taken now.
        most: usize,
    },
    /// A message that is none; the sentence says why.
    Malformed(String),
    /// The other side ended in the middle of one.
    Cut {
        /// Those that came of it.
        bytes: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, most } => write!(
                f,
                "a frame of {bytes} bytes, {most} are taken: it is no frame of the link, or a message that must be cut"
            ),
            Self::Malformed(why) => {
                write!(
                    f,
                    "a frame holds no message ({why}): the versions differ, or bytes were lost"
                )
            }
            Self::Cut { bytes } => write!(
                f,
                "the link ended after {bytes} bytes of a frame: its length is wrong, or its end was not sent"
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends a message as a frame.
pub fn encode(message: &impl Message, into: &mut Vec<u8>) {
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    message.encode_raw(into);
}

/// Bytes as they came, and the messages in them. Holds at most one incomplete frame and what came with its beginning.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    start: usize,
}

impl Frames {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message of at most `most` bytes; none until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]: the link must end.
    pub fn next<M: Message + Default>(&mut self, most: usize) -> Result<Option<M>, FrameError> {
        let Some((message, bytes)) = self.peek(most)? else { return Ok(None) };
        self.skip(bytes);
        Ok(Some(message))
    }

    /// The same, which stays the next one; with the bytes of its frame.
    ///
    /// # Errors
    /// [`FrameError`]: the link must end.
    pub fn peek<M: Message + Default>(
        &self,
        most: usize,
    ) -> Result<Option<(M, usize)>, FrameError> {
        let Some((length, rest)) = self.bytes.get(self.start..).and_then(<[u8]>::split_first_chunk)
        else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > most {
            return Err(FrameError::TooLarge { bytes: length, most });
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let message = M::decode(frame).map_err(|error| FrameError::Malformed(error.to_string()))?;
        Ok(Some((message, LENGTH_BYTES + length)))
    }

    /// Takes so many bytes away, of whole frames, and puts them to the end of others.
    pub fn pass_on(&mut self, bytes: usize, to: &mut Self) {
        let Some(frame) = self.bytes.get(self.start..self.start + bytes) else { return };
        to.push(frame);
        self.skip(bytes);
    }

    /// Takes so many bytes away, of whole frames that were looked at.
    pub fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            // One large message must not keep its room for good.
            self.bytes.shrink_to(SPENT_BYTES / 8);
        } else if self.start > SPENT_BYTES.max(self.bytes.len() / 2) {
            // Half of it at the least, or moving the rest would cost more than taking it.
            self.bytes.drain(..self.start);
            self.start = 0;
            if self.bytes.capacity() / 4 > self.bytes.len().max(SPENT_BYTES) {
                // Nor what many left.
                self.bytes.shrink_to(2 * self.bytes.len());
            }
        }
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ClientMessage, Ping, SendMessage, client_message::Body};

    fn ping(token: u64) -> ClientMessage {
        ClientMessage { request: 1, body: Some(Body::Ping(Ping { token })) }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let payload = vec![7; 100_000];
        let large = SendMessage { number: 1, payload, ..SendMessage::default() };
        let large = ClientMessage { request: 2, body: Some(Body::SendMessage(large)) };
        let sent = [ping(1), large, ping(3), ClientMessage::default(), ping(5)];
        let mut bytes = Vec::new();
        sent.iter().for_each(|message| encode(message, &mut bytes));
        for step in [1, 3, 4, 5, 1000, 70_000, bytes.len()] {
            let (mut frames, mut got) = (Frames::new(), Vec::new());
            for part in bytes.chunks(step) {
                frames.push(part);
                while let Some(message) = frames.next::<ClientMessage>(200_000).unwrap() {
                    got.push(message);
                }
            }
            assert_eq!((got.as_slice(), frames.waiting()), (&sent[..], 0), "in steps of {step}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_came() {
        let mut frames = Frames::new();
        frames.push(&[0, 1, 0, 1]);
        let refused = FrameError::TooLarge { bytes: 65_537, most: 65_536 };
        assert_eq!(frames.next::<ClientMessage>(65_536), Err(refused));
        // The first bytes of a TLS record and of HTTP are no lengths.
        for stranger in [b"GET / HTTP/1.1", &b"\x16\x03\x01\x02\x00\x01\x00"[..]] {
            let mut frames = Frames::new();
            frames.push(stranger);
            assert!(matches!(
                frames.next::<ClientMessage>(crate::MESSAGE_BYTES),
                Err(FrameError::TooLarge { .. })
            ));
        }
    }

    #[test]
    fn what_is_no_message_is_said_so() {
        let mut frames = Frames::new();
        frames.push(&[0, 0, 0, 2, 0xff, 0xff]);
        assert!(matches!(frames.next::<ClientMessage>(100), Err(FrameError::Malformed(_))));
    }

    #[test]
    fn an_unknown_message_is_one_without_a_body() {
        let mut frames = Frames::new();
        // Field 1 is 9, field 99 holds two bytes.
        frames.push(&[0, 0, 0, 7, 0x08, 9, 0x9a, 0x06, 2, 1, 2]);
        let message: ClientMessage = frames.next(100).unwrap().unwrap();
        assert_eq!(message, ClientMessage { request: 9, body: None });
    }

    #[test]
    fn secrets_are_not_shown() {
        use crate::v1::{Auth, SessionKey, auth::Credential};
        let credential = Some(Credential::Token("hush".into()));
        let auth = Auth { credential, ..Auth::default() };
        let key = SessionKey { profile: 7, key: vec![222; 16], salt: vec![223; 12] };
        let shown = format!("{auth:?} {key:?}");
        assert!(!shown.contains("hush") && !shown.contains("22"), "{shown}");
    }
}
