//! Numbers that strangers must not guess, from the secure source of aws-lc-rs.

use aws_lc_rs::rand;
use strait_core::command::IceCredentials;

/// Lower-case base 32 (RFC 4648), all of them ice-chars (RFC 8445 section 5.3).
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters of the worker's tag at the start of a user fragment.
pub const TAG: usize = 2;
/// Random characters of a user fragment: 50 bits, so that a worker's 65,536 peers do not collide.
const UFRAG: usize = 10;
/// Characters of a password: 130 bits (RFC 8445 wants 128).
const PASSWORD: usize = 26;

/// The system's random source failed, which does not pass.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed: look at the kernel's log")]
pub struct NoRandomness;

/// Fresh credentials of a peer on `worker`.
///
/// # Errors
/// The random source failed.
pub fn credentials(worker: usize) -> Result<IceCredentials, NoRandomness> {
    let ufrag = tag(worker).into_iter().chain(characters::<UFRAG>()?).map(char::from).collect();
    let pwd = characters::<PASSWORD>()?.into_iter().map(char::from).collect();
    Ok(IceCredentials { ufrag, pwd })
}

/// The tag of a worker.
#[must_use]
pub fn tag(worker: usize) -> [u8; TAG] {
    [ALPHABET[(worker >> 5) & 31], ALPHABET[worker & 31]]
}

/// The worker that handed out a user fragment, if it can be one of ours.
#[must_use]
pub fn worker_of(ufrag: &[u8]) -> Option<usize> {
    let value = |c: u8| match c {
        b'a'..=b'z' => Some(usize::from(c - b'a')),
        b'2'..=b'7' => Some(usize::from(c - b'2') + 26),
        _ => None,
    };
    let &[high, low, ..] = ufrag else { return None };
    Some(value(high)? << 5 | value(low)?)
}

/// A random first sequence number, in the lower half (RFC 3711 section 3.3.1: away from the first rollover).
///
/// # Errors
/// The random source failed.
pub fn first_seq() -> Result<u16, NoRandomness> {
    Ok(u16::from_ne_bytes(bytes()?) & 0x7fff)
}

/// Hex digits that tell one start of the process from another.
///
/// # Errors
/// The random source failed.
pub fn instance_id() -> Result<String, NoRandomness> {
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes()?)))
}

/// Random bytes.
///
/// # Errors
/// The random source failed.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn characters<const N: usize>() -> Result<[u8; N], NoRandomness> {
    // 256 is a multiple of 32: no character is likelier than another.
    Ok(bytes::<N>()?.map(|byte| ALPHABET[usize::from(byte & 31)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_fragment_names_its_worker() {
        for worker in [0, 1, 25, 26, 31, 32, 1023] {
            let ours = credentials(worker).unwrap();
            assert_eq!(worker_of(ours.ufrag.as_bytes()), Some(worker));
            assert_eq!((ours.ufrag.len(), ours.pwd.len()), (12, 26));
        }
        for foreign in [&b""[..], b"a", b"A1zz", b"+/xx"] {
            assert_eq!(worker_of(foreign), None);
        }
    }

    #[test]
    fn credentials_differ() {
        let made: std::collections::HashSet<_> =
            (0..1000).map(|_| credentials(3).unwrap().ufrag).collect();
        assert_eq!(made.len(), 1000);
        assert!((0..1000).all(|_| first_seq().unwrap() < 1 << 15));
    }
}
