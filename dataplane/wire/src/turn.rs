//! What TURN has beside STUN's own (RFC 8656): methods, attributes, and messages in a stream (section 12.5).

use crate::bytes::{array, u16_at};
use crate::stun;

/// Asks for a relayed address.
pub const ALLOCATE: u16 = 3;
/// Keeps it, or gives it back.
pub const REFRESH: u16 = 4;
/// Indication: data for a peer.
pub const SEND: u16 = 6;
/// Indication: data from a peer.
pub const DATA: u16 = 7;
/// Asks that a peer may be spoken to.
pub const CREATE_PERMISSION: u16 = 8;
/// Asks for a number that stands for a peer.
pub const CHANNEL_BIND: u16 = 9;

/// Attribute types.
pub mod attribute {
    /// CHANNEL-NUMBER.
    pub const CHANNEL_NUMBER: u16 = 0x000c;
    /// LIFETIME, in seconds.
    pub const LIFETIME: u16 = 0x000d;
    /// XOR-PEER-ADDRESS.
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    /// DATA.
    pub const DATA: u16 = 0x0013;
    /// REALM (RFC 8489 section 14.9).
    pub const REALM: u16 = 0x0014;
    /// NONCE (RFC 8489 section 14.10).
    pub const NONCE: u16 = 0x0015;
    /// XOR-RELAYED-ADDRESS.
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    /// REQUESTED-ADDRESS-FAMILY.
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    /// EVEN-PORT.
    pub const EVEN_PORT: u16 = 0x0018;
    /// REQUESTED-TRANSPORT.
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    /// DONT-FRAGMENT.
    pub const DONT_FRAGMENT: u16 = 0x001a;
    /// RESERVATION-TOKEN.
    pub const RESERVATION_TOKEN: u16 = 0x0022;
}

/// Numbers of channels (RFC 8656 section 12).
pub const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x4fff;
/// Bytes before the data of a channel.
pub const CHANNEL_HEADER_LEN: usize = 4;

/// One message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A STUN message, not looked into.
    Stun(&'a [u8]),
    /// Data of a channel.
    Channel {
        /// Its number.
        number: u16,
        /// The datagram.
        data: &'a [u8],
    },
}

/// Why a stream is none of TURN's; nothing after it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Neither a STUN message nor data of a channel begins here.
    Neither,
    /// It is longer than the reader allows.
    TooLong,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Neither => "neither a STUN message nor data of a channel",
            Self::TooLong => "a message is longer than any datagram can be",
        })
    }
}

impl std::error::Error for Error {}

/// The first message of a stream, of at most `longest` bytes, and how many bytes of the stream it takes. None: more is
/// needed.
///
/// # Errors
/// It cannot become one, whatever follows.
pub fn frame(stream: &[u8], longest: usize) -> Result<Option<(Frame<'_>, usize)>, Error> {
    let Some(kind) = stream.first().map(|byte| byte >> 6) else { return Ok(None) };
    if kind > 1 {
        return Err(Error::Neither);
    }
    let Some(len) = u16_at(stream, 2).map(usize::from) else { return Ok(None) };
    let is_channel = kind == 1;
    let (head, taken) = match is_channel {
        // Data of a channel is padded in a stream, and its length does not say so.
        true => (CHANNEL_HEADER_LEN, CHANNEL_HEADER_LEN + len.next_multiple_of(4)),
        false => (stun::HEADER_LEN, stun::HEADER_LEN + len),
    };
    if taken > longest {
        return Err(Error::TooLong);
    }
    let cookie = array::<4>(stream, 4);
    if !is_channel && (len % 4 != 0 || cookie.is_some_and(|bytes| bytes != stun::MAGIC_COOKIE)) {
        return Err(Error::Neither);
    }
    let number = u16_at(stream, 0).unwrap_or_default();
    if is_channel && !CHANNELS.contains(&number) {
        return Err(Error::Neither);
    }
    let Some(whole) = stream.get(..taken) else { return Ok(None) };
    let frame = match is_channel {
        true => Frame::Channel { number, data: whole.get(head..head + len).unwrap_or_default() },
        false => Frame::Stun(whole),
    };
    Ok(Some((frame, taken)))
}

/// What stands before `len` bytes of data of a channel, and how many zeros after them in a stream.
#[must_use]
pub fn channel_header(number: u16, len: u16) -> ([u8; CHANNEL_HEADER_LEN], usize) {
    let ([a, b], [c, d]) = (number.to_be_bytes(), len.to_be_bytes());
    ([a, b, c, d], usize::from(len).next_multiple_of(4) - usize::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUN: [u8; 20] =
        [0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn channel(number: u16, data: &[u8]) -> Vec<u8> {
        let (header, padding) = channel_header(number, data.len() as u16);
        [&header[..], data, &vec![0; padding]].concat()
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let stream = [&STUN[..], &channel(0x4001, b"datum"), &channel(0x4fff, b""), &STUN].concat();
        let mut at = 0;
        let mut found = Vec::new();
        for end in 0..=stream.len() {
            while let Some((frame, taken)) = frame(&stream[at..end], 2048).unwrap() {
                found.push(match frame {
                    Frame::Stun(bytes) => (0, bytes.to_vec()),
                    Frame::Channel { number, data } => (number, data.to_vec()),
                });
                at += taken;
            }
        }
        let wanted = [
            (0, STUN.to_vec()),
            (0x4001, b"datum".to_vec()),
            (0x4fff, Vec::new()),
            (0, STUN.to_vec()),
        ];
        assert_eq!((found.as_slice(), at), (wanted.as_slice(), stream.len()));
    }

    #[test]
    fn what_can_become_none_is_refused_as_soon_as_that_shows() {
        assert_eq!(frame(&[0x80], 2048), Err(Error::Neither));
        assert_eq!(frame(b"GET / HTTP/1.1", 2048), Err(Error::TooLong), "G is a channel");
        assert_eq!(frame(&[0x50, 0, 0, 0], 2048), Err(Error::Neither), "no number of a channel");
        assert_eq!(frame(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x43], 2048), Err(Error::Neither));
        assert_eq!(frame(&[0, 1, 0, 1], 2048), Err(Error::Neither), "no multiple of four");
        assert_eq!(frame(&[0, 1, 0x10, 0], 2048), Err(Error::TooLong));
        assert_eq!(frame(&[0x40, 0, 0x07, 0xfd], 2048), Err(Error::TooLong));
        assert_eq!(frame(&[0x40, 0, 0x07, 0xfc], 2048), Ok(None), "the longest");
    }
}
