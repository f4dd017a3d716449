//! Bodies of the fuzz targets, here so that plain tests run them too.

use crate::dtls::{Certificate, Fingerprint, Handshake, Output, Role};
use crate::srtp::{Inbound, Outbound, Profile, RTCP_OVERHEAD_MAX};
use aws_lc_rs::digest::{SHA256, digest};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Opens arbitrary packets as SRTP and SRTCP, and authentic packets that arbitrary bytes were laid over.
///
/// # Panics
/// When something opens that was not protected, or a stranger takes room.
pub fn srtp_unprotect(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let Some(&profile) = Profile::ALL.get(usize::from(first & 3)) else { return };
    // The fuzzer sees what tags are compared with, and would learn those of a key that stays.
    let (key, salt) = (of(data, profile.key_len()), of(data, profile.salt_len()));
    let (Ok(mut inbound), Ok(mut outbound)) =
        (Inbound::new(profile, &key, &salt), Outbound::new(profile, &key, &salt))
    else {
        return;
    };
    for packet in chunks(data) {
        let mut buffer = packet.to_vec();
        assert!(inbound.unprotect_rtp(&mut buffer).is_err(), "forged RTP");
        let mut buffer = packet.to_vec();
        assert!(inbound.unprotect_rtcp(&mut buffer).is_err(), "forged RTCP");
    }
    assert_eq!(inbound.ssrcs(), (0, 0));

    for packet in chunks(data) {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + RTCP_OVERHEAD_MAX, 0);
        let rtcp = first & 4 != 0;
        let sealed = if rtcp {
            outbound.protect_rtcp(&mut buffer, packet.len())
        } else {
            outbound.protect_rtp(&mut buffer, packet.len())
        };
        let Some(sealed) = sealed.ok().and_then(|len| buffer.get_mut(..len)) else { continue };
        let mut changed = sealed.to_vec();
        for (byte, overlay) in changed.iter_mut().zip(data) {
            *byte ^= overlay;
        }
        let mut open = |bytes: &mut [u8]| {
            if rtcp { inbound.unprotect_rtcp(bytes) } else { inbound.unprotect_rtp(bytes) }
        };
        if changed != sealed {
            assert!(open(&mut changed).is_err(), "a changed packet");
        }
        // What is refused here is what reordering puts outside of the window.
        if open(sealed).is_ok() {
            assert!(sealed.starts_with(packet), "another plaintext");
        }
    }
}

/// Feeds arbitrary datagrams, with time passing in between, to a handshake of either role.
///
/// # Panics
/// When it connects, or the DTLS library panicked.
pub fn dtls_handle(data: &[u8]) {
    static CERTIFICATE: OnceLock<Option<(Certificate, Instant)>> = OnceLock::new();
    let made =
        CERTIFICATE.get_or_init(|| Certificate::generate().ok().map(|made| (made, Instant::now())));
    let (Some((certificate, start)), Some((&first, data))) = (made, data.split_first()) else {
        return;
    };
    let Ok(fingerprint) = Fingerprint::new("sha-256", &[0; 32]) else { return };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let mut now = *start;
    let mut handshake = Handshake::new(certificate, role, fingerprint, now);
    for datagram in chunks(data) {
        handshake.handle(now, datagram);
        for _ in 0..100 {
            match handshake.poll() {
                Output::Connected(_) => panic!("connected to nobody"),
                Output::Failed(why) => assert!(!why.contains("panicked"), "{why}"),
                Output::Timeout(at) => {
                    assert!(at > now, "a timeout in the past");
                    break;
                }
                Output::Idle => return,
                Output::Transmit(_) | Output::Closed => {}
                Output::Received(_) => panic!("data without keys"),
            }
        }
        now += Duration::from_millis(u64::from(first));
    }
}

/// So many bytes, others for other data.
fn of(data: &[u8], len: usize) -> Vec<u8> {
    digest(&SHA256, data).as_ref().iter().copied().cycle().take(len).collect()
}

/// Pieces that are as long as the two bytes before them say, or what is left.
fn chunks(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = data.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (piece, rest) = rest.split_at_checked(len)?;
        data = rest;
        Some(piece)
    })
    .take(64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn data() -> impl Strategy<Value = Vec<u8>> {
        let piece = (
            prop::sample::select(vec![0x80u8, 0x90, 0x81, 22, 21, 23, 0x2e, 0]),
            prop::collection::vec(any::<u8>(), 0..120),
        );
        (any::<u8>(), prop::collection::vec(piece, 0..8)).prop_map(|(first, pieces)| {
            let mut data = vec![first];
            for (kind, mut piece) in pieces {
                if let Some(byte) = piece.first_mut() {
                    *byte = kind;
                }
                data.extend((piece.len() as u16).to_be_bytes());
                data.extend(piece);
            }
            data
        })
    }

    #[test]
    fn the_committed_corpora_pass() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
        type Target = fn(&[u8]);
        let targets: [(&str, Target); 2] = [("srtp", srtp_unprotect), ("dtls", dtls_handle)];
        for (name, target) in targets {
            let mut inputs = 0;
            for file in std::fs::read_dir(corpora.join(name)).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs > 3, "{name}");
        }
    }

    proptest! {
        #[test]
        fn srtp_takes_anything(data in data()) {
            srtp_unprotect(&data);
        }

        #[test]
        fn dtls_takes_anything(data in data()) {
            dtls_handle(&data);
        }
    }
}
