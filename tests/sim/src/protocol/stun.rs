//! STUN as an ICE agent needs it (RFC 8489, RFC 8445).

use super::Reader;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use strait_crypt::hmac_sha1;

const COOKIE: u32 = 0x2112_a442;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

/// A check to be sent.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    /// Transaction.
    pub transaction: [u8; 12],
    /// Theirs, a colon, ours.
    pub username: &'a str,
    /// Theirs.
    pub password: &'a str,
    /// Role and tie-breaker: `Ok` controlling, `Err` controlled.
    pub role: Result<u64, u64>,
    /// USE-CANDIDATE.
    pub nominate: bool,
}

impl Check<'_> {
    /// The request's bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![0, 1, 0, 0];
        out.extend(COOKIE.to_be_bytes());
        out.extend(self.transaction);
        attribute(&mut out, USERNAME, self.username.as_bytes());
        attribute(&mut out, PRIORITY, &0x6e7f_1eff_u32.to_be_bytes());
        match self.role {
            Ok(tie) => attribute(&mut out, ICE_CONTROLLING, &tie.to_be_bytes()),
            Err(tie) => attribute(&mut out, ICE_CONTROLLED, &tie.to_be_bytes()),
        }
        if self.nominate {
            attribute(&mut out, USE_CANDIDATE, &[]);
        }
        // The length covers the attribute that is computed over it (RFC 8489 sections 14.5 and 14.7).
        set_length(&mut out, 24);
        let integrity = hmac_sha1(self.password.as_bytes(), &[&out]);
        attribute(&mut out, MESSAGE_INTEGRITY, &integrity);
        set_length(&mut out, 8);
        let fingerprint = crc32(&out) ^ 0x5354_554e;
        attribute(&mut out, FINGERPRINT, &fingerprint.to_be_bytes());
        set_length(&mut out, 0);
        out
    }
}

/// An answer to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Transaction.
    pub transaction: [u8; 12],
    /// Where the other side saw us, or the error's number.
    pub outcome: Result<SocketAddr, u16>,
}

/// Reads an answer; `Err` says what is wrong with it.
///
/// # Errors
/// The rule of RFC 8489 or RFC 8445 that is broken.
pub fn read_answer(datagram: &[u8], password: &str) -> Result<Answer, &'static str> {
    let mut reader = Reader(datagram);
    let (class, length) = reader.u16().zip(reader.u16()).ok_or("too short")?;
    let cookie = reader.u32().ok_or("too short")?;
    let transaction: [u8; 12] =
        reader.take(12).and_then(|id| id.try_into().ok()).ok_or("too short")?;
    if cookie != COOKIE || usize::from(length) + 20 != datagram.len() {
        return Err("cookie or length is wrong");
    }
    let (mut address, mut error, mut integrity, mut fingerprint) = (None, None, false, false);
    while !reader.0.is_empty() {
        let at = datagram.len() - reader.0.len();
        let (kind, len) = reader.u16().zip(reader.u16()).ok_or("attribute is cut off")?;
        let value = reader.take(usize::from(len)).ok_or("attribute is cut off")?;
        reader.take((4 - usize::from(len) % 4) % 4).ok_or("attribute is not padded")?;
        match kind {
            XOR_MAPPED_ADDRESS => address = read_address(value, &transaction),
            ERROR_CODE => error = value.get(2..4).map(|n| u16::from(n[0]) * 100 + u16::from(n[1])),
            MESSAGE_INTEGRITY => {
                let mut covered = datagram.get(..at).unwrap_or_default().to_vec();
                set_length(&mut covered, 24);
                integrity = hmac_sha1(password.as_bytes(), &[&covered]) == value;
            }
            FINGERPRINT => {
                let covered = datagram.get(..at).unwrap_or_default();
                let last = reader.0.is_empty();
                fingerprint = last && (crc32(covered) ^ 0x5354_554e).to_be_bytes() == value;
            }
            _ => {}
        }
    }
    if !integrity {
        return Err("MESSAGE-INTEGRITY is missing or wrong");
    }
    if !fingerprint {
        return Err("FINGERPRINT is missing, wrong or not last");
    }
    let outcome = match class {
        0x0101 => Ok(address.ok_or("XOR-MAPPED-ADDRESS is missing")?),
        0x0111 => Err(error.ok_or("ERROR-CODE is missing")?),
        _ => return Err("not an answer to a binding request"),
    };
    Ok(Answer { transaction, outcome })
}

fn read_address(value: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let mut reader = Reader(value);
    let (_, family, port) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let port = port ^ (COOKIE >> 16) as u16;
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from(reader.u32()? ^ COOKIE)),
        2 => {
            let mut mask = COOKIE.to_be_bytes().to_vec();
            mask.extend(transaction);
            let bytes = reader.take(16)?;
            let ip: [u8; 16] = std::array::from_fn(|at| bytes[at] ^ mask[at]);
            IpAddr::V6(Ipv6Addr::from(ip))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(kind.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn set_length(message: &mut [u8], more: usize) {
    let length = ((message.len() - 20 + more) as u16).to_be_bytes();
    message[2..4].copy_from_slice(&length);
}

/// ISO 3309, as in Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 section 2.2: sample IPv4 response.
    const RESPONSE: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
        \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
        \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
        \x80\x28\x00\x04\xc0\x7d\x4c\x96";

    #[test]
    fn the_sample_of_rfc_5769_is_read() {
        let answer = read_answer(RESPONSE, "VOkJxbRl1RmTxUk/WvJxBt").unwrap();
        assert_eq!(answer.outcome, Ok("192.0.2.1:32853".parse().unwrap()));
        assert!(read_answer(RESPONSE, "another").is_err());
        let mut damaged = RESPONSE.to_vec();
        damaged[60] ^= 1;
        assert!(read_answer(&damaged, "VOkJxbRl1RmTxUk/WvJxBt").is_err());
    }
}
