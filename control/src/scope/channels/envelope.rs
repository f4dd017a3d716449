//! What is said on a data channel with the protocol `strait-messages/1`: who says it to whom, and what arrived
//! (docs/reference/jsonrtc.md).

/// The protocol that a client names when it opens the channel.
pub const PROTOCOL: &str = "strait-messages/1";
/// The most bytes in front of a message.
pub const HEADER_BYTES_MAX: usize = 7 + u8::MAX as usize;

const TEXT: u8 = 1;
const BYTES: u8 = 2;
const ANSWER: u8 = 3;
const DIRECT: u8 = 1;

/// One frame: a message of the data channel, which is binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// A message.
    Message {
        /// Counts the messages of one direction, from 1; it goes on with the next channel.
        number: u32,
        /// It is UTF-8.
        is_text: bool,
        /// Towards a client: it is for this one alone.
        is_direct: bool,
        /// Towards a client: who sent it. From a client: to whom; empty for all.
        peer: &'a str,
        /// What.
        payload: &'a [u8],
    },
    /// What became of the other side's message.
    Answer {
        /// Which: those before it were answered.
        number: u32,
        /// 0: taken. Otherwise as `error_code`.
        code: u16,
    },
}

impl<'a> Envelope<'a> {
    /// Reads a frame; none for what is no such.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = frame.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let number = u32::from_be_bytes(*number);
        if kind == ANSWER {
            let code = u16::from_be_bytes(rest.try_into().ok()?);
            return Some(Self::Answer { number, code });
        }
        let is_text = match kind {
            TEXT => true,
            BYTES => false,
            _ => return None,
        };
        let (&[flags, length], rest) = rest.split_first_chunk()?;
        let (peer, payload) = rest.split_at_checked(length.into())?;
        if is_text && std::str::from_utf8(payload).is_err() {
            return None;
        }
        let peer = std::str::from_utf8(peer).ok()?;
        let is_direct = flags & DIRECT != 0;
        Some(Self::Message { number, is_text, is_direct, peer, payload })
    }

    /// Writes it; a peer's name has at most 255 bytes, as all that there are have.
    pub fn write(&self) -> Vec<u8> {
        match *self {
            Self::Answer { number, code } => {
                [&[ANSWER][..], &number.to_be_bytes(), &code.to_be_bytes()].concat()
            }
            Self::Message { number, is_text, is_direct, peer, payload } => {
                let kind = if is_text { TEXT } else { BYTES };
                let peer = peer.as_bytes();
                let length = u8::try_from(peer.len()).unwrap_or(u8::MAX);
                let peer = peer.get(..length.into()).unwrap_or_default();
                let head = [u8::from(is_direct) * DIRECT, length];
                [&[kind][..], &number.to_be_bytes(), &head, peer, payload].concat()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_the_reference_says() {
        let text = Envelope::Message {
            number: 258,
            is_text: true,
            is_direct: true,
            peer: "p-1",
            payload: b"hi",
        };
        let frame = [&[1, 0, 0, 1, 2, 1, 3][..], b"p-1hi"].concat();
        assert_eq!(text.write(), frame);
        assert_eq!(Envelope::parse(&frame), Some(text));
        let answer = Envelope::Answer { number: 7, code: 404 };
        assert_eq!(answer.write(), [3, 0, 0, 0, 7, 1, 0x94]);
        assert_eq!(Envelope::parse(&answer.write()), Some(answer));
        // Nothing said, to all.
        let empty = [2, 0, 0, 0, 1, 0, 0];
        let parsed = Envelope::parse(&empty).unwrap();
        assert!(matches!(parsed, Envelope::Message { peer: "", payload: b"", is_text: false, .. }));
    }

    #[test]
    fn what_is_no_frame_is_none() {
        for frame in [
            &[][..],
            &[1],
            &[1, 0, 0, 0, 1, 0],
            &[1, 0, 0, 0, 1, 0, 2, b'p'],
            &[1, 0, 0, 0, 1, 0, 0, 0xff],
            &[2, 0, 0, 0, 1, 0, 1, 0xff],
            &[3, 0, 0, 0, 1, 0],
            &[3, 0, 0, 0, 1, 0, 0, 0],
            &[4, 0, 0, 0, 1, 0, 0],
        ] {
            assert_eq!(Envelope::parse(frame), None, "{frame:?}");
        }
    }
}
