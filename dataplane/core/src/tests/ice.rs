//! Who gets in, and who stays.

use crate::command::{Command, Event, IceCredentials, LeaveReason, PeerId};
use crate::drop::DropReason;
use crate::limits::PATH_TOLD_INTERVAL;
use crate::port::{Path, Protocol};
use crate::testing::{Bench, Client, ms, path};
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
    let input = HandshakeInput { peer: client.id, bytes: DTLS.to_vec() };
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
