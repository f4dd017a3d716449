//! Who gets in, and who stays.

use crate::command::{Command, Event, IceCredentials, Kind, LeaveReason, PeerId};
use crate::drop::DropReason;
use crate::limits::{CONSENT, PATH_TOLD_INTERVAL};
use crate::port::{LocalPort, Path, Protocol};
use crate::testing::{Bench, Client, IDS, OPUS, VP8, encoding, ms, packet, path, vp8};
use crate::worker::HandshakeInput;
use strait_wire::stun;

const DTLS: [u8; 20] = [22; 20];

#[test]
fn a_check_is_answered_and_makes_the_path() {
    let mut bench = Bench::new();
    let mut client = Client::added(&mut bench, 1);
    bench.drops(DropReason::PathUnknown, |bench| bench.receive(client.path, &DTLS));
    let request = client.request(&client.local.pwd.clone(), false, true);
    bench.receive(client.path, &request);
    assert_eq!(bench.worker.checked(), Some(client.path));
    let sent = bench.sent();
    assert_eq!((sent.len(), sent[0].path), (1, client.path));
    assert!(sent[0].bytes.len() <= request.len());
    let answer = stun::Message::parse(&sent[0].bytes).unwrap();
    assert_eq!(answer.class(), stun::Class::Success);
    assert_eq!(answer.xor_mapped_address(), Some(client.path.remote));
    assert!(answer.is_fingerprint_valid());
    let key = strait_crypt::StunKey::new(client.local.pwd.as_bytes());
    assert_eq!(answer.check_integrity(|parts| key.sign(parts)), Ok(()));

    bench.receive(client.path, &DTLS);
    assert_eq!(bench.worker.checked(), None, "only of the last datagram");
    let (peer, path) = (client.id, client.path);
    let input = HandshakeInput { peer, path, bytes: DTLS.to_vec() };
    assert_eq!(bench.worker.poll_handshake(), Some(input));
    bench.command(Command::SendHandshake { peer: client.id, datagrams: vec![vec![1], vec![2]] });
    assert_eq!(bench.sent().iter().map(|sent| sent.bytes[0]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bench.events(), []);
    bench.command(client.set_keys());
    let connected = Event::PeerConnected { peer: client.id, path: client.path };
    assert_eq!(bench.events(), [connected]);
}

#[test]
fn strangers_get_no_answer() {
    let mut bench = Bench::new();
    let mut client = Client::connected(&mut bench, 1);
    let wrong = client.request("another password entirely", false, true);
    bench.drops(DropReason::StunBadIntegrity, |bench| bench.receive(path(9), &wrong));
    assert_eq!(bench.worker.checked(), None);
    bench.drops(DropReason::StunBadIntegrity, |bench| bench.receive(client.path, &wrong));
    assert_eq!(bench.worker.checked(), None, "though the path is valid");
    let mut unknown = Client::added(&mut bench, 2);
    bench.command(Command::RemovePeer { peer: unknown.id });
    bench.drops(DropReason::StunUnknownUser, |bench| unknown.check(bench));
    let mut broken = client.request(&client.local.pwd.clone(), false, true);
    *broken.last_mut().unwrap() ^= 1;
    bench.drops(DropReason::StunMalformed, |bench| bench.receive(path(9), &broken));
    let mut out = [0; 64];
    let len = stun::Builder::binding_success(&mut out, [1; 12], path(9).remote).finish().unwrap();
    bench.drops(DropReason::StunNotRequest, |bench| bench.receive(path(9), &out[..len]));
    bench.drops(DropReason::PathUnknown, |bench| bench.receive(path(9), &DTLS));
    bench.drops(DropReason::UnknownProtocol, |bench| bench.receive(path(9), &[255; 40]));
    assert!(bench.sent().is_empty());
    assert!(bench.worker.peer_statistics(client.id).unwrap().connected, "the peer is unharmed");
}

#[test]
fn who_asks_where_it_is_seen_is_told_that_and_nothing_else() {
    let mut bench = Bench::new();
    let question = |attribute: Option<(u16, &[u8])>| {
        let mut out = [0; 100];
        let mut builder = stun::Builder::binding_request(&mut out, [7; 12]);
        if let Some((kind, value)) = attribute {
            builder = builder.attribute(kind, value);
        }
        let length = builder.finish().unwrap();
        out[..length].to_vec()
    };
    let ipv6 = "[2001:db8::5]:5".parse().unwrap();
    let away = Path::udp("2001:db8::1".parse().unwrap(), ipv6);
    let named = question(Some((stun::attribute::SOFTWARE, b"a browser")));
    for (from, asked, length) in
        [(path(9), question(None), 32), (path(9), named, 32), (away, question(None), 44)]
    {
        bench.receive(from, &asked);
        let sent = bench.sent();
        assert_eq!((sent.len(), sent[0].path, sent[0].bytes.len()), (1, from, length));
        let answer = stun::Message::parse(&sent[0].bytes).unwrap();
        assert_eq!((answer.class(), answer.transaction_id()), (stun::Class::Success, [7; 12]));
        assert_eq!(answer.xor_mapped_address(), Some(from.remote));
        assert_eq!(bench.worker.checked(), None, "it opens nothing");
        bench.drops(DropReason::PathUnknown, |bench| bench.receive(from, &DTLS));
    }
    assert_eq!(bench.worker.statistics().bindings, 3);
    // To answer elsewhere (CHANGE-REQUEST, RFC 5780).
    let elsewhere = question(Some((3, &[0, 0, 0, 6])));
    bench.drops(DropReason::StunNotRequest, |bench| bench.receive(path(9), &elsewhere));
    let over_tcp = Path { protocol: Protocol::Tcp, ..path(9) };
    bench.drops(DropReason::StunMalformed, |bench| bench.receive(over_tcp, &question(None)));
    assert!(bench.sent().is_empty());
    for _ in 0..200 {
        bench.receive(path(9), &question(None));
    }
    let answered = bench.sent().len();
    assert!((1..200).contains(&answered), "{answered}");
    assert_eq!(bench.dropped(DropReason::StunTooMany), 200 - answered as u64);
}

#[test]
fn checks_that_somebody_sends_again_shut_nobody_out() {
    let mut bench = Bench::new();
    let mut client = Client::connected(&mut bench, 1);
    client.send_rtcp(&mut bench, |rtcp| rtcp.receiver_report(1, &[]).unwrap());
    let seen = client.request(&client.local.pwd.clone(), false, true);
    bench.receive(client.path, &seen);
    for port in 100..200 {
        bench.run(ms(1));
        bench.receive(path(port), &seen);
    }
    bench.receive(client.path, &DTLS);
    assert!(bench.worker.poll_handshake().is_some(), "what it sends is taken");
    client.check(&mut bench);
    bench.sent();
    let datagrams = vec![vec![1]];
    bench.command(Command::SendHandshake { peer: client.id, datagrams });
    assert_eq!(bench.sent()[0].path, client.path, "and it gets what is for it");
}

#[test]
fn an_answer_is_never_larger_than_the_check() {
    let mut bench = Bench::new();
    let client = Client::added(&mut bench, 1);
    let key = strait_crypt::StunKey::new(client.local.pwd.as_bytes());
    let mut out = [0; 200];
    let len = stun::Builder::binding_request(&mut out, [1; 12])
        .username(client.local.ufrag.as_bytes(), b"")
        .integrity(|parts| key.sign(parts))
        .fingerprint()
        .finish()
        .unwrap();
    // The shortest check there is takes as much as an answer with an IPv4 address, and less than one with IPv6.
    assert_eq!(len, 64);
    bench.receive(client.path, &out[..len]);
    assert_eq!(bench.sent()[0].bytes.len(), 64);
    let mut longer = client.path;
    longer.remote = "[::1]:9".parse().unwrap();
    bench.drops(DropReason::StunAnswerTooLarge, |bench| bench.receive(longer, &out[..len]));
    assert!(bench.sent().is_empty());
    bench.drops(DropReason::PathUnknown, |bench| bench.receive(longer, &DTLS));
}

#[test]
fn a_controlled_peer_is_told_to_switch() {
    let mut bench = Bench::new();
    let mut client = Client::added(&mut bench, 1);
    let request = client.request(&client.local.pwd.clone(), true, false);
    bench.receive(client.path, &request);
    let sent = bench.sent();
    let answer = stun::Message::parse(&sent[0].bytes).unwrap();
    assert_eq!(answer.error_code().map(|(code, _)| code), Some(487));
    bench.drops(DropReason::PathUnknown, |bench| bench.receive(client.path, &DTLS));
}

#[test]
fn consent_lasts_thirty_seconds() {
    for (wait, alive) in [(29_900, true), (30_100, false)] {
        let mut bench = Bench::new();
        let client = Client::connected(&mut bench, 1);
        bench.events();
        bench.run(ms(wait));
        let left = bench.events();
        assert_eq!(left.is_empty(), alive, "after {wait} ms");
        if !alive {
            assert!(matches!(
                &left[..],
                [Event::PeerLeft { peer, reason: LeaveReason::ConsentExpired, .. }]
                    if *peer == client.id
            ));
            bench.drops(DropReason::PathUnknown, |bench| bench.receive(client.path, &DTLS));
            assert_eq!(bench.worker.next_timeout(), None, "nothing is left to do");
        }
    }
}

#[test]
fn checks_renew_consent() {
    let mut bench = Bench::new();
    let mut client = Client::connected(&mut bench, 1);
    for _ in 0..20 {
        bench.run(ms(5000));
        client.check(&mut bench);
    }
    assert!(bench.worker.peer_statistics(client.id).unwrap().connected);
}

#[test]
fn set_up_has_a_deadline() {
    let mut bench = Bench::new();
    let mut client = Client::added(&mut bench, 1);
    bench.run(ms(20_000));
    client.check(&mut bench);
    bench.run(ms(9_900));
    assert_eq!(bench.events(), []);
    bench.run(ms(200));
    let events = bench.events();
    assert!(matches!(&events[..], [Event::PeerLeft { reason: LeaveReason::HandshakeFailed, .. }]));
}

#[test]
fn a_restart_keeps_the_old_credentials_until_the_new_ones_are_used() {
    let mut bench = Bench::new();
    let mut client = Client::connected(&mut bench, 1);
    let fresh = IceCredentials { ufrag: "aaFresh".into(), pwd: "a-fresh-password-of-22".into() };
    let old = std::mem::replace(&mut client.local, fresh.clone());
    bench.command(Command::RestartIce {
        peer: client.id,
        local: fresh,
        remote: IceCredentials { ufrag: "new".into(), pwd: "y".repeat(22) },
    });
    client.local = old.clone();
    client.check(&mut bench);
    assert_eq!(bench.sent().len(), 1, "the old ones hold");
    let fresh = IceCredentials { ufrag: "aaFresh".into(), pwd: "a-fresh-password-of-22".into() };
    client.local = fresh;
    client.path = path(4444);
    client.check(&mut bench);
    assert_eq!(bench.sent().len(), 1);
    let statistics = bench.worker.peer_statistics(client.id).unwrap();
    assert_eq!(statistics.path, Some(path(4444)));
    client.local = old;
    bench.drops(DropReason::StunUnknownUser, |bench| client.check(bench));
}

#[test]
fn a_path_moves_to_the_peer_that_proves_itself_there() {
    let mut bench = Bench::new();
    let first = Client::connected(&mut bench, 1);
    let mut second = Client::connected(&mut bench, 2);
    second.path = first.path;
    second.check(&mut bench);
    bench.receive(first.path, &DTLS);
    assert_eq!(bench.worker.poll_handshake().map(|input| input.peer), Some(second.id));
    assert_eq!(bench.worker.peer_statistics(first.id).unwrap().path, None);
}

#[test]
fn who_loses_its_path_to_a_forged_check_stays_and_has_it_back_with_the_next() {
    let mut bench = Bench::new();
    let mut first = Client::connected(&mut bench, 1);
    let mut second = Client::connected(&mut bench, 2);
    bench.events();
    second.path = first.path;
    second.check(&mut bench);
    bench.run(ms(5_000));
    let moved = Event::PeerMoved { peer: second.id, path: second.path };
    assert_eq!(bench.events(), [moved]);
    first.check(&mut bench);
    assert_eq!(bench.worker.peer_statistics(first.id).unwrap().path, Some(first.path));
    // Without another it leaves in its time, though it has no path that could expire.
    second.check(&mut bench);
    bench.run(ms(29_000));
    second.check(&mut bench);
    assert!(bench.worker.peer_statistics(first.id).unwrap().connected);
    bench.events();
    bench.run(ms(1_100));
    let left = bench.events();
    let gone = LeaveReason::ConsentExpired;
    assert!(
        matches!(&left[..], [Event::PeerLeft { peer, reason, .. }] if *peer == first.id && *reason == gone)
    );
}

#[test]
fn who_has_no_ice_keeps_its_path_whatever_others_check() {
    let mut bench = Bench::new();
    let (fixed, told) = (PeerId(7), path(7));
    bench.command(Command::AddFixedPeer { scope: crate::testing::SCOPE, peer: fixed, path: told });
    bench.command(Command::SetPlain { peer: fixed });
    let mut second = Client::connected(&mut bench, 2);
    bench.events();
    bench.sent();
    second.path = told;
    bench.drops(DropReason::PathTaken, |bench| second.check(bench));
    assert!(bench.sent().is_empty());
    bench.run(ms(1_000));
    assert_eq!(bench.events(), []);
    let statistics = bench.worker.peer_statistics(fixed).unwrap();
    assert_eq!((statistics.connected, statistics.path), (true, Some(told)));
}

#[test]
fn handshakes_are_bounded() {
    let mut bench = Bench::new();
    let client = Client::connected(&mut bench, 1);
    for _ in 0..crate::limits::HANDSHAKE_DATAGRAMS {
        bench.receive(client.path, &DTLS);
    }
    bench.drops(DropReason::HandshakeQueueFull, |bench| bench.receive(client.path, &DTLS));
}

#[test]
fn who_is_reached_elsewhere_is_told_so_but_not_at_every_check() {
    let mut bench = Bench::new();
    let mut client = Client::connected(&mut bench, 1);
    bench.run(PATH_TOLD_INTERVAL);
    client.check(&mut bench);
    bench.events();
    let moved = |path| [Event::PeerMoved { peer: PeerId(1), path }];
    client.path = path(20_000);
    client.check(&mut bench);
    assert_eq!(bench.events(), moved(path(20_000)));
    client.check(&mut bench);
    assert_eq!(bench.events(), [], "nothing new");
    // Back and forth with every check: told when it is due, and then what holds.
    for port in [20_001, 20_002, 20_001, 20_003] {
        client.path = path(port);
        client.check(&mut bench);
    }
    assert_eq!(bench.events(), []);
    bench.run(PATH_TOLD_INTERVAL);
    assert_eq!(bench.events(), moved(path(20_003)));
    let tcp = Path { protocol: Protocol::Tcp, ..path(20_003) };
    bench.run(PATH_TOLD_INTERVAL);
    client.path = tcp;
    client.check(&mut bench);
    assert_eq!(bench.events(), moved(tcp), "another protocol from the same place");
}

#[test]
fn sound_and_pictures_go_by_the_ports_that_are_theirs() {
    let mut bench = Bench::new();
    let mut speaker = Client::connected(&mut bench, 1);
    let mut listener = Client::connected(&mut bench, 2);
    speaker.publish(&mut bench, 1, Kind::Audio, &[encoding(10)]);
    speaker.publish(&mut bench, 2, Kind::Video, &[encoding(20)]);
    listener.subscribe(&mut bench, 3, Kind::Audio, Some(1));
    listener.subscribe(&mut bench, 4, Kind::Video, Some(2));
    let any = listener.path;
    // A NAT gives each another port.
    let sound = Path { port: LocalPort::AUDIO, ..path(20_001) };
    let pictures = Path { port: LocalPort::VIDEO, ..path(20_002) };
    let mut seq = 0;
    let mut ways = |bench: &mut Bench, speaker: &mut Client, listener: &mut Client| {
        seq += 1;
        let at = u32::from(seq);
        let voice = packet((10, OPUS, seq, 960 * at), &[(IDS.mid, b"1")], &[1; 20]);
        let picture =
            packet((20, VP8, seq, 3000 * at), &[(IDS.mid, b"2")], &vp8(seq, seq as u8, seq == 1));
        bench.sent();
        speaker.send(bench, &voice);
        speaker.send(bench, &picture);
        let sent = bench.sent();
        [OPUS + 10, VP8 + 10].map(|pt| {
            let is_it = |one: &&crate::testing::Sent| one.bytes[1] & 127 == pt;
            let went: Vec<_> = sent.iter().filter(is_it).map(|one| one.path).collect();
            let [one] = went[..] else { panic!("{pt}: {went:?}") };
            assert!([any, sound, pictures].contains(&one) && listener.id == PeerId(2));
            one
        })
    };
    assert_eq!(ways(&mut bench, &mut speaker, &mut listener), [any, any]);
    for at in [sound, pictures] {
        listener.path = at;
        listener.check(&mut bench);
    }
    assert_eq!(ways(&mut bench, &mut speaker, &mut listener), [sound, pictures]);
    // What it sends is taken from both, by one key.
    for at in [pictures, sound] {
        listener.path = at;
        let before = bench.worker.peer_statistics(PeerId(2)).unwrap().received.packets;
        let nothing = packet((99, OPUS, seq_of(at), 0), &[], &[1]);
        listener.send(&mut bench, &nothing);
        let after = bench.worker.peer_statistics(PeerId(2)).unwrap().received.packets;
        assert_eq!(after, before + 1, "{at:?}");
    }
    listener.path = any;
    listener.check(&mut bench);
    assert_eq!(ways(&mut bench, &mut speaker, &mut listener), [any, any], "back on one");
    // The path for pictures alone goes without checks: the others are as they were.
    for at in [sound, pictures] {
        listener.path = at;
        listener.check(&mut bench);
    }
    listener.path = sound;
    speaker.check(&mut bench);
    for _ in 0..4 {
        bench.run(CONSENT / 3);
        listener.check(&mut bench);
        speaker.check(&mut bench);
    }
    assert_eq!(ways(&mut bench, &mut speaker, &mut listener), [sound, sound]);
}

fn seq_of(path: Path) -> u16 {
    u16::from(path.port.0)
}
