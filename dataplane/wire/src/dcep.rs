//! How a data channel is opened (RFC 8832).

use crate::Full;
use crate::bytes::{Cursor, array, u16_at, u32_at};

/// Longest label or protocol that is taken: RFC 8832 allows 64 KiB, and names are for people.
pub const NAME_BYTES_MAX: usize = 256;
/// The largest message that is written or taken.
pub const BYTES_MAX: usize = HEADER_BYTES + 2 * NAME_BYTES_MAX;

const HEADER_BYTES: usize = 12;
const ACK: u8 = 0x02;
const OPEN: u8 = 0x03;
/// The bit of the channel type that takes the order away.
const UNORDERED: u8 = 0x80;

/// A message of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The channel is open.
    Ack,
    /// It shall be opened.
    Open(Open<'a>),
}

/// DATA_CHANNEL_OPEN (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// Messages come in the order in which they were sent.
    pub is_ordered: bool,
    /// What is tried for a message.
    pub reliability: Reliability,
    /// Weight among the channels of an association.
    pub priority: u16,
    /// Name given by the application; at most [`NAME_BYTES_MAX`].
    pub label: &'a str,
    /// What is spoken on it, as with WebSockets; at most [`NAME_BYTES_MAX`].
    pub protocol: &'a str,
}

/// What is tried until a message is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reliability {
    /// It is never given up.
    Full,
    /// So many retransmissions.
    Retransmissions(u32),
    /// So many milliseconds.
    Lifetime(u32),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Shorter than it says, or longer.
    WrongLength,
    /// A message type or channel type that the RFC does not have.
    Unknown,
    /// A label or protocol is longer than [`NAME_BYTES_MAX`].
    NameTooLong,
    /// A label or protocol is no UTF-8.
    NotText,
}

impl<'a> Message<'a> {
    /// Reads a message, which fills `bytes`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes.first() {
            Some(&ACK) if bytes.len() == 1 => Ok(Self::Ack),
            Some(&OPEN) => Open::parse(bytes).map(Self::Open),
            Some(&ACK) | None => Err(Error::WrongLength),
            Some(_) => Err(Error::Unknown),
        }
    }

    /// Writes it, and says how long it is.
    ///
    /// # Errors
    /// [`Full`]: `out` is too small, or a name too long.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, Full> {
        let mut cursor = Cursor::new(out);
        match self {
            Self::Ack => cursor.push(&[ACK])?,
            Self::Open(open) => open.write(&mut cursor)?,
        }
        Ok(cursor.len())
    }
}

impl<'a> Open<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let [_, kind] = array(bytes, 0).ok_or(Error::WrongLength)?;
        let priority = u16_at(bytes, 2).ok_or(Error::WrongLength)?;
        let bound = u32_at(bytes, 4).ok_or(Error::WrongLength)?;
        let length_at = |at| u16_at(bytes, at).map(usize::from).ok_or(Error::WrongLength);
        let (label, protocol) = (length_at(8)?, length_at(10)?);
        if label > NAME_BYTES_MAX || protocol > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        let names = bytes.get(HEADER_BYTES..).unwrap_or_default();
        if names.len() != label + protocol {
            return Err(Error::WrongLength);
        }
        let (label, protocol) = names.split_at_checked(label).ok_or(Error::WrongLength)?;
        let text = |name| std::str::from_utf8(name).map_err(|_| Error::NotText);
        Ok(Self {
            is_ordered: kind & UNORDERED == 0,
            //= rfc8832#5.1: the reliability parameter MUST be ignored for reliable channels.
            reliability: match kind & !UNORDERED {
                0 => Reliability::Full,
                1 => Reliability::Retransmissions(bound),
                2 => Reliability::Lifetime(bound),
                _ => return Err(Error::Unknown),
            },
            priority,
            label: text(label)?,
            protocol: text(protocol)?,
        })
    }

    fn write(&self, cursor: &mut Cursor<'_>) -> Result<(), Full> {
        let (kind, bound) = match self.reliability {
            Reliability::Full => (0, 0),
            Reliability::Retransmissions(bound) => (1, bound),
            Reliability::Lifetime(bound) => (2, bound),
        };
        let kind = if self.is_ordered { kind } else { kind | UNORDERED };
        let length = |name: &str| match name.len() {
            len @ ..=NAME_BYTES_MAX => u16::try_from(len).map_err(|_| Full),
            _ => Err(Full),
        };
        cursor.push(&[OPEN, kind])?;
        cursor.push(&self.priority.to_be_bytes())?;
        cursor.push(&bound.to_be_bytes())?;
        cursor.push(&length(self.label)?.to_be_bytes())?;
        cursor.push(&length(self.protocol)?.to_be_bytes())?;
        cursor.push(self.label.as_bytes())?;
        cursor.push(self.protocol.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_opens() {
        // Chromium: createDataChannel("strait", {protocol: "strait-messages/1"}).
        let mut bytes = vec![3, 0, 1, 0, 0, 0, 0, 0, 0, 6, 0, 17];
        bytes.extend(b"straitstrait-messages/1");
        let open = Open {
            is_ordered: true,
            reliability: Reliability::Full,
            priority: 256,
            label: "strait",
            protocol: "strait-messages/1",
        };
        assert_eq!(Message::parse(&bytes), Ok(Message::Open(open)));
        let mut out = [0; BYTES_MAX];
        let len = Message::Open(open).write(&mut out).unwrap();
        assert_eq!(out[..len], bytes);
    }

    #[test]
    fn all_kinds_of_reliability() {
        for (kind, is_ordered, reliability) in [
            (0x00, true, Reliability::Full),
            (0x80, false, Reliability::Full),
            (0x01, true, Reliability::Retransmissions(7)),
            (0x81, false, Reliability::Retransmissions(7)),
            (0x02, true, Reliability::Lifetime(7)),
            (0x82, false, Reliability::Lifetime(7)),
        ] {
            let bytes = [3, kind, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];
            let Ok(Message::Open(open)) = Message::parse(&bytes) else { panic!("{kind}") };
            assert_eq!((open.is_ordered, open.reliability), (is_ordered, reliability));
        }
    }

    #[test]
    fn what_is_none_is_named() {
        let open = |label: u16, names: &[u8]| {
            let [high, low] = label.to_be_bytes();
            [&[3, 0, 0, 0, 0, 0, 0, 0, high, low, 0, 0], names].concat()
        };
        assert_eq!(Message::parse(&[]), Err(Error::WrongLength));
        assert_eq!(Message::parse(&[2, 0]), Err(Error::WrongLength));
        assert_eq!(Message::parse(&[4]), Err(Error::Unknown));
        assert_eq!(Message::parse(&[3, 3]), Err(Error::WrongLength));
        assert_eq!(Message::parse(&open(2, b"a")), Err(Error::WrongLength));
        assert_eq!(Message::parse(&open(2, b"abc")), Err(Error::WrongLength));
        assert_eq!(Message::parse(&open(257, &[b'a'; 257])), Err(Error::NameTooLong));
        assert_eq!(Message::parse(&open(2, &[0xff, 0xfe])), Err(Error::NotText));
        assert_eq!(Message::parse(&[3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Error::Unknown));
        assert_eq!(Message::Ack.write(&mut []), Err(Full));
    }
}
