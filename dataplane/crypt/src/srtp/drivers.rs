//! Both directions against each other: rollover, loss, lateness, replay, limits, and packets that were changed.

use super::*;
use proptest::prelude::*;

const SSRC: u32 = 0x1234_5678;

fn pair(profile: Profile) -> (Outbound, Inbound) {
    let key: Vec<u8> = (0..profile.key_len() as u8).map(|i| i.wrapping_mul(7) ^ 0x5a).collect();
    let salt: Vec<u8> = (0..profile.salt_len() as u8).map(|i| i.wrapping_mul(13) ^ 0xa5).collect();
    (Outbound::new(profile, &key, &salt).unwrap(), Inbound::new(profile, &key, &salt).unwrap())
}

fn rtp(ssrc: u32, seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend([0, 0, 0, 7]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

fn rtcp(ssrc: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, (1 + body.len() / 4) as u8];
    packet.extend(ssrc.to_be_bytes());
    packet.extend(body);
    packet
}

fn protect(context: &mut Outbound, packet: &[u8]) -> Result<Vec<u8>, Error> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + TAG_MAX, 0);
    let len = context.protect_rtp(&mut buffer, packet.len())?;
    buffer.truncate(len);
    Ok(buffer)
}

fn protect_rtcp(context: &mut Outbound, packet: &[u8]) -> Result<Vec<u8>, Error> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + RTCP_OVERHEAD_MAX, 0);
    let len = context.protect_rtcp(&mut buffer, packet.len())?;
    buffer.truncate(len);
    Ok(buffer)
}

fn unprotect(context: &mut Inbound, packet: &[u8]) -> Result<Vec<u8>, Error> {
    let mut buffer = packet.to_vec();
    let len = context.unprotect_rtp(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

fn unprotect_rtcp(context: &mut Inbound, packet: &[u8]) -> Result<Vec<u8>, Error> {
    let mut buffer = packet.to_vec();
    let len = context.unprotect_rtcp(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

#[test]
fn lengths_are_the_profiles() {
    for profile in Profile::ALL {
        let (mut send, _) = pair(profile);
        let packet = rtp(SSRC, 1, b"payload");
        assert_eq!(
            protect(&mut send, &packet).unwrap().len(),
            packet.len() + profile.rtp_overhead()
        );
        let packet = rtcp(SSRC, &[1; 24]);
        assert_eq!(
            protect_rtcp(&mut send, &packet).unwrap().len(),
            packet.len() + profile.rtcp_overhead()
        );
        assert!(profile.rtp_overhead() <= TAG_MAX && profile.rtcp_overhead() <= RTCP_OVERHEAD_MAX);
        let key = vec![0; profile.key_len()];
        let salt = vec![0; profile.salt_len()];
        assert!(matches!(Inbound::new(profile, &key[1..], &salt), Err(Error::Key)));
        assert!(matches!(Outbound::new(profile, &key, &salt[1..]), Err(Error::Key)));
    }
}

#[test]
fn sequence_numbers_wrap_four_times() {
    for profile in Profile::ALL {
        let (mut send, mut receive) = pair(profile);
        for index in (30_000u64..30_000 + 4 * 65_536).step_by(7) {
            let packet = rtp(SSRC, index as u16, &index.to_be_bytes());
            let sealed = protect(&mut send, &packet).unwrap();
            assert_eq!(unprotect(&mut receive, &sealed).as_ref(), Ok(&packet), "index {index}");
        }
    }
}

#[test]
fn loss_and_lateness_around_the_wrap() {
    for profile in Profile::ALL {
        let (mut send, mut receive) = pair(profile);
        let sealed: Vec<_> = (65_500..65_600u64)
            .map(|index| {
                let packet = rtp(SSRC, index as u16, &index.to_be_bytes());
                (packet.clone(), protect(&mut send, &packet).unwrap())
            })
            .collect();
        // Only 65500 comes, then 36 onwards of the next round: all around the wrap is lost.
        for at in (0..1).chain(72..100) {
            assert_eq!(unprotect(&mut receive, &sealed[at].1).as_ref(), Ok(&sealed[at].0));
        }
        // Then the rest, late and backwards over the wrap, once each.
        for at in (1..72).rev() {
            assert_eq!(unprotect(&mut receive, &sealed[at].1).as_ref(), Ok(&sealed[at].0));
        }
        for (_, packet) in &sealed {
            assert_eq!(unprotect(&mut receive, packet), Err(Error::Replayed));
        }
    }
}

#[test]
fn a_new_key_goes_on_where_the_one_before_was() {
    for profile in Profile::ALL {
        let key = |fill: u8| {
            let (key, salt) = (vec![fill; profile.key_len()], vec![fill; profile.salt_len()]);
            SharedKey { profile, key, salt }.prepare().unwrap()
        };
        let (old, new) = (key(1), key(2));
        let (mut send, mut receive) = (old.outbound(), old.inbound());
        // Who left keeps the key that it had.
        let mut gone = old.inbound();
        let packet = |index: u64| rtp(SSRC, index as u16, &index.to_be_bytes());
        let seal = |send: &mut Outbound, index| protect(send, &packet(index)).unwrap();
        // Over a wrap, so that the rollover counter is not 0 when the key changes.
        for index in (60_000..70_000).step_by(100) {
            let sealed = seal(&mut send, index);
            assert_eq!(unprotect(&mut receive, &sealed), Ok(packet(index)));
            assert_eq!(unprotect(&mut gone, &sealed), Ok(packet(index)));
        }
        let (late, later) = (seal(&mut send, 70_000), seal(&mut send, 70_001));
        let report = protect_rtcp(&mut send, &rtcp(SSRC, &[1; 24])).unwrap();
        send.change_key(&new);
        let sealed = seal(&mut send, 70_002);
        let last = protect_rtcp(&mut send, &rtcp(SSRC, &[2; 24])).unwrap();
        assert_eq!(unprotect(&mut receive, &sealed), Err(Error::Unauthentic), "it has no key yet");
        receive.change_key(&new);
        // In whichever order, and each once.
        for (bytes, index) in [(&sealed, 70_002), (&late, 70_000)] {
            assert_eq!(unprotect(&mut receive, bytes), Ok(packet(index)), "{profile:?}");
            assert_eq!(unprotect(&mut receive, bytes), Err(Error::Replayed));
        }
        assert_eq!(unprotect_rtcp(&mut receive, &last), Ok(rtcp(SSRC, &[2; 24])));
        assert_eq!(unprotect_rtcp(&mut receive, &report), Ok(rtcp(SSRC, &[1; 24])));
        // What was sent before is sent again under the new key.
        let again = packet(70_000);
        let mut bytes = again.clone();
        bytes.resize(again.len() + TAG_MAX, 0);
        let len = send.resend_rtp(&mut bytes, again.len()).unwrap();
        bytes.truncate(len);
        assert_ne!(bytes, late);
        assert_eq!(unprotect(&mut receive, &bytes), Err(Error::Replayed), "it has that");
        receive.forget_key();
        assert_eq!(unprotect(&mut receive, &later), Err(Error::Unauthentic), "its time is over");
        for index in (70_003..140_000).step_by(1000) {
            let sealed = seal(&mut send, index);
            assert_eq!(unprotect(&mut receive, &sealed), Ok(packet(index)));
            // Far ahead of what it heard last it guesses another rollover counter.
            let opened = unprotect(&mut gone, &sealed);
            assert!(matches!(opened, Err(Error::Unauthentic | Error::TooOld)), "{opened:?}");
        }
    }
}

#[test]
fn contexts_of_one_session_key_share_its_ciphers() {
    let profile = Profile::AeadAes128Gcm;
    let key = SharedKey { profile, key: vec![1; 16], salt: vec![2; 12] }.prepare().unwrap();
    let (mut receive, mut all) = (key.inbound(), Vec::new());
    for ssrc in 1..=300 {
        let mut send = key.outbound();
        let sealed = protect(&mut send, &rtp(ssrc, 7, b"payload")).unwrap();
        assert_eq!(unprotect(&mut receive, &sealed), Ok(rtp(ssrc, 7, b"payload")));
        all.push(send);
    }
    let own: usize = all.iter().map(Outbound::bytes).sum::<usize>() / all.len();
    let ciphers = all.iter().map(|send| send.ciphers.heap_bytes()).max().unwrap();
    assert!(own - ciphers < 512, "{own} bytes, {ciphers} of them shared");
    let first = &mut all[0];
    assert!(first.is_used(1));
    first.forget(1);
    assert!(!first.is_used(1));
}

#[test]
fn the_sender_follows_late_packets_and_resends_over_the_wrap() {
    for profile in Profile::ALL {
        let (mut send, mut receive) = pair(profile);
        // Two packets after the wrap go out before the two before it.
        let mut log = Vec::new();
        for index in [65_530u64, 65_537, 65_535, 65_536, 65_538, 65_531] {
            let packet = rtp(SSRC, index as u16, &index.to_be_bytes());
            let sealed = protect(&mut send, &packet).unwrap();
            assert_eq!(unprotect(&mut receive, &sealed).as_ref(), Ok(&packet), "index {index}");
            log.push((packet, sealed));
        }
        for (packet, sealed) in log {
            assert_eq!(protect(&mut send, &packet), Err(Error::Replayed));
            let mut buffer = packet.clone();
            buffer.resize(packet.len() + TAG_MAX, 0);
            let len = send.resend_rtp(&mut buffer, packet.len()).unwrap();
            assert_eq!(buffer[..len], sealed, "a resend is the same datagram");
            let mut out = packet[..12].to_vec();
            out.resize(packet.len() + TAG_MAX, 0);
            let len = send.resend_rtp_into(&mut out, 12, &packet[12..]).unwrap();
            assert_eq!(out[..len], sealed);
        }
        // Never sent, or too long ago.
        let mut buffer = rtp(SSRC, 65_532, &[0; 64]);
        assert_eq!(send.resend_rtp(&mut buffer, 40), Err(Error::TooOld));
        let mut buffer = rtp(SSRC + 1, 65_532, &[0; 64]);
        assert_eq!(send.resend_rtp(&mut buffer, 40), Err(Error::TooOld));
        protect(&mut send, &rtp(SSRC, 2 + RESEND_DISTANCE_MAX as u16, &[0; 8])).unwrap();
        let mut buffer = rtp(SSRC, 2, &65_538u64.to_be_bytes());
        buffer.resize(buffer.len() + TAG_MAX, 0);
        assert_eq!(send.resend_rtp(&mut buffer, 20), Err(Error::TooOld));
    }
}

#[test]
fn nothing_before_the_first_round() {
    let (mut send, mut receive) = pair(Profile::AeadAes128Gcm);
    let first = protect(&mut send, &rtp(SSRC, 2, b"a")).unwrap();
    assert_eq!(protect(&mut send, &rtp(SSRC, 65_535, b"b")), Err(Error::TooOld));
    unprotect(&mut receive, &first).unwrap();
    assert_eq!(unprotect(&mut receive, &rtp(SSRC, 65_535, &[0; 40])), Err(Error::TooOld));
}

#[test]
fn the_window_edge_of_a_receiver() {
    for profile in Profile::ALL {
        let (mut send, mut receive) = pair(profile);
        let window = REPLAY_WINDOW as u16;
        let edge = protect(&mut send, &rtp(SSRC, 1000, b"just works")).unwrap();
        let beyond = protect(&mut send, &rtp(SSRC, 999, b"just fails")).unwrap();
        let newest = protect(&mut send, &rtp(SSRC, 999 + window, b"newest")).unwrap();
        unprotect(&mut receive, &newest).unwrap();
        assert!(unprotect(&mut receive, &edge).is_ok());
        assert_eq!(unprotect(&mut receive, &beyond), Err(Error::TooOld));
        assert_eq!(unprotect(&mut receive, &edge), Err(Error::Replayed));
    }
}

#[test]
fn the_window_edge_of_rtcp() {
    for profile in Profile::ALL {
        let (mut send, mut receive) = pair(profile);
        let sealed: Vec<_> = (0..=REPLAY_WINDOW_RTCP)
            .map(|_| protect_rtcp(&mut send, &rtcp(SSRC, &[3; 24])).unwrap())
            .collect();
        let newest = sealed.last().unwrap();
        assert_eq!(unprotect_rtcp(&mut receive, newest), Ok(rtcp(SSRC, &[3; 24])));
        assert_eq!(unprotect_rtcp(&mut receive, newest), Err(Error::Replayed));
        assert_eq!(unprotect_rtcp(&mut receive, &sealed[1]), Ok(rtcp(SSRC, &[3; 24])));
        assert_eq!(unprotect_rtcp(&mut receive, &sealed[1]), Err(Error::Replayed));
        assert_eq!(unprotect_rtcp(&mut receive, &sealed[0]), Err(Error::TooOld));
    }
}

#[test]
fn strangers_take_no_room() {
    let (mut send, mut receive) = pair(Profile::AeadAes128Gcm);
    let sealed = protect(&mut send, &rtp(SSRC, 9, b"ours")).unwrap();
    for ssrc in 0..2000u32 {
        let mut forged = sealed.clone();
        forged[8..12].copy_from_slice(&ssrc.to_be_bytes());
        assert_eq!(unprotect(&mut receive, &forged), Err(Error::Unauthentic));
        let mut forged = rtcp(ssrc, &[9; 40]);
        forged[30] ^= ssrc as u8;
        assert_eq!(unprotect_rtcp(&mut receive, &forged), Err(Error::Unauthentic));
    }
    assert_eq!(receive.ssrcs(), (0, 0));
    unprotect(&mut receive, &sealed).unwrap();
    assert_eq!(receive.ssrcs(), (1, 0));
}

#[test]
fn a_forgery_far_ahead_moves_nothing() {
    for profile in Profile::ALL {
        let (mut send, mut receive) = pair(profile);
        let one = protect(&mut send, &rtp(SSRC, 100, b"one")).unwrap();
        let two = protect(&mut send, &rtp(SSRC, 101, b"two")).unwrap();
        unprotect(&mut receive, &one).unwrap();
        let mut forged = two.clone();
        forged[2..4].copy_from_slice(&20_000u16.to_be_bytes());
        assert_eq!(unprotect(&mut receive, &forged), Err(Error::Unauthentic));
        let mut forged = two.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(unprotect(&mut receive, &forged), Err(Error::Unauthentic));
        assert!(unprotect(&mut receive, &two).is_ok());
    }
}

#[test]
fn full_tables_say_so_and_forgetting_makes_room() {
    let (mut send, mut receive) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..INBOUND_SSRCS as u32 {
        let sealed = protect(&mut send, &rtp(ssrc, 1, b"x")).unwrap();
        unprotect(&mut receive, &sealed).unwrap();
    }
    assert_eq!(protect(&mut send, &rtp(9999, 1, b"x")), Err(Error::TooManySsrcs));
    send.retire(5).unwrap();
    let sealed = protect(&mut send, &rtp(9999, 1, b"x")).unwrap();
    assert_eq!(unprotect(&mut receive, &sealed), Err(Error::TooManySsrcs));
    receive.forget(5);
    assert!(unprotect(&mut receive, &sealed).is_ok());
    // A retired SSRC does not begin anew: its nonces are used.
    assert_eq!(protect(&mut send, &rtp(5, 2, b"x")), Err(Error::Retired));
    // Retiring what was never sent, or twice, costs nothing.
    send.retire(5).unwrap();
    send.retire(77_777).unwrap();
    let bytes = receive.bytes();
    assert!(bytes < 64 << 10, "{bytes} bytes for a peer that uses all its SSRCs");
}

#[test]
fn retirement_has_a_limit() {
    let (mut send, _) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..RETIRED_SSRCS as u32 {
        protect(&mut send, &rtp(ssrc, 1, b"x")).unwrap();
        send.retire(ssrc).unwrap();
    }
    protect(&mut send, &rtp(u32::MAX, 1, b"x")).unwrap();
    assert_eq!(send.retire(u32::MAX), Err(Error::TooManySsrcs));
    assert_eq!(protect(&mut send, &rtp(3, 2, b"x")), Err(Error::Retired));
}

#[test]
fn an_ordinary_peer_is_small() {
    for profile in Profile::ALL {
        let (mut send, mut receive) = pair(profile);
        let (mut send_back, _) = pair(profile);
        for ssrc in 0..4 {
            let sealed = protect(&mut send, &rtp(ssrc, 1, b"x")).unwrap();
            unprotect(&mut receive, &sealed).unwrap();
            let sealed = protect_rtcp(&mut send, &rtcp(ssrc, &[0; 24])).unwrap();
            unprotect_rtcp(&mut receive, &sealed).unwrap();
            protect(&mut send_back, &rtp(ssrc, 1, b"x")).unwrap();
        }
        let bytes = receive.bytes() + send_back.bytes();
        println!("{profile:?}: {bytes} bytes for four SSRCs each way");
        let gcm = matches!(profile, Profile::AeadAes128Gcm | Profile::AeadAes256Gcm);
        // HMAC contexts are what AES-CM needs more.
        assert!(bytes < if gcm { 4 << 10 } else { 9 << 10 }, "{profile:?}: {bytes}");
    }
}

#[test]
fn a_buffer_too_small_changes_nothing() {
    let (mut send, _) = pair(Profile::AeadAes256Gcm);
    let mut packet = rtp(SSRC, 1, b"payload");
    let len = packet.len();
    assert_eq!(send.protect_rtp(&mut packet, len), Err(Error::NoRoom));
    assert_eq!(send.protect_rtp(&mut packet, len + 1), Err(Error::NoRoom));
    assert_eq!(send.protect_rtp(&mut packet, usize::MAX), Err(Error::NoRoom));
    let mut packet = rtcp(SSRC, &[0; 4]);
    let len = packet.len();
    assert_eq!(send.protect_rtcp(&mut packet, len), Err(Error::NoRoom));
    assert_eq!(send.protect_rtcp(&mut packet, 4), Err(Error::Malformed));
    let mut out = [0x80; 64];
    assert_eq!(send.protect_rtp_into(&mut out, 13, b"payload"), Err(Error::Malformed));
    assert_eq!(send.protect_rtp_into(&mut out, 12, &[0; 60]), Err(Error::NoRoom));
    assert!(protect(&mut send, &rtp(SSRC, 1, b"payload")).is_ok());
}

fn profile() -> impl Strategy<Value = Profile> {
    prop::sample::select(Profile::ALL.to_vec())
}

/// An RTP packet of any shape: CSRCs, extension, payload.
fn any_rtp() -> impl Strategy<Value = Vec<u8>> {
    (
        0u8..16,
        prop::option::of(prop::collection::vec(any::<[u8; 4]>(), 0..20)),
        any::<u16>(),
        any::<u32>(),
        prop::collection::vec(any::<u8>(), 0..1400),
    )
        .prop_map(|(csrcs, extension, seq, ssrc, payload)| {
            let mut packet = rtp(ssrc, seq, &[]);
            packet[0] |= csrcs;
            packet.extend(vec![0xcc; 4 * usize::from(csrcs)]);
            if let Some(words) = extension {
                packet[0] |= 0x10;
                packet.extend([0xbe, 0xde]);
                packet.extend((words.len() as u16).to_be_bytes());
                packet.extend(words.concat());
            }
            packet.extend(payload);
            packet
        })
}

proptest! {
    #[test]
    fn what_was_protected_opens(profile in profile(), packet in any_rtp()) {
        let (mut send, mut receive) = pair(profile);
        let sealed = protect(&mut send, &packet).unwrap();
        prop_assert_eq!(unprotect(&mut receive, &sealed).unwrap(), packet.clone());

        // Out of place makes the same datagram.
        let (mut send, _) = pair(profile);
        let header_len = rtp_header_len(&packet).unwrap();
        let mut out = packet[..header_len].to_vec();
        out.resize(packet.len() + TAG_MAX, 0xee);
        let len = send.protect_rtp_into(&mut out, header_len, &packet[header_len..]).unwrap();
        prop_assert_eq!(&out[..len], &sealed[..]);
    }

    #[test]
    fn rtcp_that_was_protected_opens(
        profile in profile(),
        ssrc in any::<u32>(),
        body in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        let (mut send, mut receive) = pair(profile);
        let packet = rtcp(ssrc, &body);
        let sealed = protect_rtcp(&mut send, &packet).unwrap();
        prop_assert_eq!(unprotect_rtcp(&mut receive, &sealed).unwrap(), packet);
    }

    #[test]
    fn a_flipped_bit_is_refused(profile in profile(), packet in any_rtp(), bit in any::<prop::sample::Index>()) {
        let (mut send, mut receive) = pair(profile);
        let mut sealed = protect(&mut send, &packet).unwrap();
        let bit = bit.index(8 * sealed.len());
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(unprotect(&mut receive, &sealed).is_err());
        prop_assert_eq!(receive.ssrcs(), (0, 0));
    }

    #[test]
    fn a_flipped_bit_of_rtcp_is_refused(
        profile in profile(),
        body in prop::collection::vec(any::<u8>(), 0..200),
        bit in any::<prop::sample::Index>(),
    ) {
        let (mut send, mut receive) = pair(profile);
        let mut sealed = protect_rtcp(&mut send, &rtcp(SSRC, &body)).unwrap();
        let bit = bit.index(8 * sealed.len());
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(unprotect_rtcp(&mut receive, &sealed).is_err());
        prop_assert_eq!(receive.ssrcs(), (0, 0));
    }
}
