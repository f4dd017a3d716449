//! What of a datagram may reach the DTLS library.
//!
//! dimpl takes many plaintext records at their word: a fatal alert in the clear ends it, stray records fill its
//! queue, an odd first answer ends a client. Anyone who can send from the peer's address can make those
//! (CVE-2023-51443 and its like), so only records that can be part of this handshake pass.

use std::borrow::Cow;

/// Handshake messages have fewer bytes than this: certificates are self-signed leaves.
const MESSAGE_BYTES: usize = 16 << 10;
/// A side sends fewer messages than this in a handshake.
const MESSAGES: u16 = 24;
/// Records of a datagram that are looked at; dimpl takes 16.
const RECORDS: usize = 16;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const ACK: u8 = 26;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// The extension that tells DTLS 1.3 from 1.2 (RFC 8446 section 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;

/// Where the association stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    pub(super) we_are_client: bool,
    pub(super) connected: bool,
    pub(super) version: Option<Version>,
}

/// The version that both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Dtls12,
    Dtls13,
}

/// A datagram without what may not pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filtered<'a> {
    /// The records that pass; empty when none does.
    pub(super) passed: Cow<'a, [u8]>,
    /// A record was held back.
    pub(super) held_back: bool,
    /// The random of a ClientHello: tells one client's attempt from another's.
    pub(super) hello_random: Option<[u8; 32]>,
    /// The description of a fatal alert in the clear, which proves nothing but may be the truth.
    pub(super) plain_alert: Option<u8>,
}

/// Takes the records apart and keeps those that can be right in this phase.
pub(super) fn filter(datagram: &[u8], phase: Phase) -> Filtered<'_> {
    let mut filtered = Filtered::default();
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some((record, after)) = split_record(rest).filter(|_| kept.len() < RECORDS) else {
            filtered.held_back = true;
            break;
        };
        rest = after;
        if may_pass(record, phase, &mut filtered) {
            kept.push(record);
        } else {
            filtered.held_back = true;
        }
    }
    filtered.passed =
        if filtered.held_back { Cow::Owned(kept.concat()) } else { Cow::Borrowed(datagram) };
    filtered
}

/// The first record, and what follows it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *bytes.first()?;
    let len = if first & 0xe0 == 0x20 {
        // RFC 9147 section 4: 001, connection id, 16-bit sequence number, length, epoch. We agree on no connection id.
        if first & 0x10 != 0 {
            return None;
        }
        let length_at = if first & 0x08 != 0 { 3 } else { 2 };
        if first & 0x04 != 0 {
            length_at + 2 + usize::from(be16(bytes, length_at)?)
        } else {
            bytes.len()
        }
    } else {
        // RFC 6347 section 4.1.
        13 + usize::from(be16(bytes, 11)?)
    };
    bytes.split_at_checked(len)
}

fn may_pass(record: &[u8], phase: Phase, filtered: &mut Filtered<'_>) -> bool {
    let Some(&first) = record.first() else { return false };
    if first & 0xe0 == 0x20 {
        return phase.version != Some(Version::Dtls12);
    }
    let (Some(0xfe), Some(epoch)) = (record.get(1), be16(record, 3)) else { return false };
    let fragment = record.get(13..).unwrap_or_default();
    if epoch != 0 {
        // The cipher decides, but only DTLS 1.2 writes such records and knows no second epoch.
        return epoch == 1
            && phase.version != Some(Version::Dtls13)
            && (ALERT..=APPLICATION_DATA).contains(&first);
    }
    // Once connected, DTLS 1.3 has nothing to hear in the clear; DTLS 1.2 the peer's last flight, when ours was lost.
    if phase.connected && phase.version != Some(Version::Dtls12) {
        return false;
    }
    match first {
        CHANGE_CIPHER_SPEC => fragment == [1] && phase.version != Some(Version::Dtls13),
        HANDSHAKE => messages_may_pass(fragment, phase, filtered),
        ACK => !phase.connected && phase.version != Some(Version::Dtls12),
        ALERT => {
            if let [2, description] = fragment {
                filtered.plain_alert = Some(*description);
            }
            false
        }
        _ => false,
    }
}

/// Whether all messages of a plaintext record can be the peer's in this handshake.
fn messages_may_pass(mut fragment: &[u8], phase: Phase, filtered: &mut Filtered<'_>) -> bool {
    if fragment.is_empty() {
        return false;
    }
    while !fragment.is_empty() {
        let (Some(&kind), Some(len), Some(seq), Some(offset), Some(size)) = (
            fragment.first(),
            be24(fragment, 1),
            be16(fragment, 4),
            be24(fragment, 6),
            be24(fragment, 9),
        ) else {
            return false;
        };
        let Some((body, after)) = fragment.get(12..).and_then(|rest| rest.split_at_checked(size))
        else {
            return false;
        };
        let known = if phase.we_are_client {
            // ServerHello, HelloVerifyRequest, Certificate, ServerKeyExchange, CertificateRequest, ServerHelloDone.
            matches!(kind, 2 | 3 | 11 | 12 | 13 | 14)
        } else {
            // ClientHello, Certificate, CertificateVerify, ClientKeyExchange.
            matches!(kind, CLIENT_HELLO | 11 | 15 | 16)
        };
        // A fragment of no bytes is the whole of a message of none (ServerHelloDone), or nothing.
        let whole =
            offset.checked_add(size).is_some_and(|end| end <= len) && (size > 0 || len == 0);
        if !known || !whole || len > MESSAGE_BYTES || seq >= MESSAGES {
            return false;
        }
        if kind == CLIENT_HELLO && offset == 0 {
            let Some(random) = body.get(2..34).and_then(|random| random.first_chunk()) else {
                return false;
            };
            if size == len && !hello_is_whole(body) {
                return false;
            }
            filtered.hello_random = Some(*random);
        }
        if kind == SERVER_HELLO && !version_ends_within(body) {
            return false;
        }
        fragment = after;
    }
    true
}

/// Whether a ClientHello's fields fill it exactly (RFC 6347 section 4.2.1, RFC 8446 section 4.1.2).
fn hello_is_whole(body: &[u8]) -> bool {
    let parse = || {
        let rest = body.get(34..)?;
        let rest = rest.get(1 + usize::from(*rest.first()?)..)?;
        let rest = rest.get(1 + usize::from(*rest.first()?)..)?;
        let suites = usize::from(be16(rest, 0)?);
        let rest = rest.get(2 + suites..)?;
        let rest = rest.get(1 + usize::from(*rest.first()?)..)?;
        let mut extensions = rest.get(2..)?;
        if usize::from(be16(rest, 0)?) != extensions.len() {
            return None;
        }
        while !extensions.is_empty() {
            extensions = extensions.get(4 + usize::from(be16(extensions, 2)?)..)?;
        }
        Some(suites >= 2 && suites.is_multiple_of(2))
    };
    parse() == Some(true)
}

/// Whether the version in a ServerHello lies within it. dimpl looks for it in whatever piece of one comes first, takes the
/// length before it at its word, and panics where that is too much.
fn version_ends_within(body: &[u8]) -> bool {
    let parse = || {
        let rest = body.get(34..)?;
        // Session, cipher suite, compression method.
        let rest = rest.get(1 + usize::from(*rest.first()?) + 3..)?;
        let mut extensions = rest.get(2..)?.get(..usize::from(be16(rest, 0)?))?;
        loop {
            let kind = be16(extensions, 0)?;
            match extensions.get(4 + usize::from(be16(extensions, 2)?)..) {
                Some(after) => extensions = after,
                None => return Some(kind != SUPPORTED_VERSIONS),
            }
        }
    };
    parse().unwrap_or(true)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|number| u16::from_be_bytes(*number))
}

fn be24(bytes: &[u8], at: usize) -> Option<usize> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
    Some(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVER: Phase = Phase { we_are_client: false, connected: false, version: None };

    fn record(kind: u8, epoch: u8, fragment: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 9];
        record.extend((fragment.len() as u16).to_be_bytes());
        record.extend(fragment);
        record
    }

    fn passes(datagram: &[u8], phase: Phase) -> bool {
        !filter(datagram, phase).passed.is_empty()
    }

    #[test]
    fn alerts_in_the_clear_are_noted_and_held_back() {
        let datagram = record(ALERT, 0, &[2, 40]);
        let filtered = filter(&datagram, SERVER);
        assert_eq!(filtered.plain_alert, Some(40));
        assert!(filtered.passed.is_empty() && filtered.held_back);
        assert!(passes(&record(ALERT, 1, &[0; 32]), SERVER), "protected ones pass");
    }

    #[test]
    fn only_the_good_records_of_a_datagram_pass() {
        let good = record(CHANGE_CIPHER_SPEC, 0, &[1]);
        let bad = record(APPLICATION_DATA, 0, b"in the clear");
        let datagram = [bad.clone(), good.clone(), bad, good.clone(), vec![22, 0xfe]].concat();
        let filtered = filter(&datagram, SERVER);
        assert_eq!(filtered.passed.as_ref(), [good.clone(), good].concat());
        assert!(filtered.held_back);
    }

    #[test]
    fn once_connected_little_is_heard_in_the_clear() {
        let finished = Phase { connected: true, version: Some(Version::Dtls13), ..SERVER };
        let exchange = [&[16, 0, 0, 4, 0, 2, 0, 0, 0, 0, 0, 4][..], &[3; 4]].concat();
        let exchange = record(HANDSHAKE, 0, &exchange);
        assert!(passes(&exchange, SERVER));
        assert!(!passes(&exchange, finished));
        assert!(passes(&exchange, Phase { version: Some(Version::Dtls12), ..finished }));
        assert!(!passes(&record(ACK, 0, &[0, 0]), finished));
        assert!(passes(&[0x2c, 0, 1, 0, 2, 7, 7], finished));
        assert!(!passes(&[0x3c, 0, 1, 0, 2, 7, 7], finished), "no connection ids");
    }

    #[test]
    fn messages_that_cannot_be_the_peers_are_held_back() {
        let header = |kind, len, seq: u8, offset, size| {
            vec![kind, 0, 0, len, 0, seq, 0, 0, offset, 0, 0, size]
        };
        let one = |header: Vec<u8>, body: &[u8]| record(HANDSHAKE, 0, &[&header, body].concat());
        assert!(passes(&one(header(16, 2, 1, 0, 2), &[0; 2]), SERVER));
        assert!(!passes(&one(header(16, 2, 1, 1, 2), &[0; 2]), SERVER), "beyond its length");
        assert!(!passes(&one(header(16, 2, 1, 0, 3), &[0; 2]), SERVER), "cut short");
        assert!(!passes(&one(header(16, 2, 60, 0, 2), &[0; 2]), SERVER), "far in the future");
        assert!(!passes(&one(header(2, 2, 1, 0, 2), &[0; 2]), SERVER), "a ServerHello to a server");
        assert!(
            !passes(&one(header(1, 2, 0, 0, 2), &[0; 2]), SERVER),
            "a ClientHello of two bytes"
        );
        assert!(!passes(&record(HANDSHAKE, 0, &[]), SERVER));
    }

    #[test]
    fn a_version_beyond_the_end_of_its_server_hello_is_held_back() {
        let client = Phase { we_are_client: true, ..SERVER };
        let hello = |extensions: &[u8]| {
            let fixed = [&[0xfe, 0xfd][..], &[7; 32], &[0, 0xc0, 0x2b, 0]].concat();
            let len = (extensions.len() as u16).to_be_bytes();
            let body = [&fixed, &len[..], extensions].concat();
            let size = body.len() as u8;
            record(HANDSHAKE, 0, &[&[2, 0, 0, size, 0, 0, 0, 0, 0, 0, 0, size], &body[..]].concat())
        };
        assert!(passes(&hello(&[]), client));
        assert!(passes(&hello(&[0, 23, 0, 0, 0, 43, 0, 2, 0xfe, 0xfc]), client));
        assert!(!passes(&hello(&[0, 23, 0, 0, 0, 43, 0, 2]), client));
        assert!(!passes(&hello(&[0, 43, 0x24, 0, 0xfe]), client));
    }

    proptest! {
        #[test]
        fn passes_whole_records_only(
            datagram in prop::collection::vec(any::<u8>(), 0..200),
            first in prop::sample::select(vec![20u8, 21, 22, 23, 25, 26, 0x20, 0x2c, 0x2f, 0x3f]),
            we_are_client in any::<bool>(),
        ) {
            let mut datagram = datagram;
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            let phase = Phase { we_are_client, ..SERVER };
            let filtered = filter(&datagram, phase);
            prop_assert!(filtered.passed.len() <= datagram.len());
            let again = filter(&filtered.passed, phase);
            prop_assert!(!again.held_back);
        }
    }
}
