//! Where media goes when checks come from several addresses: those of a peer that moves, and those that somebody who saw a
//! check sends again.

use crate::command::{Command, Event, Kind, PeerId};
use crate::limits::{HEARD, HEARD_INTERVAL, PATHS_PER_PEER, RELAY_SSRCS, UNHEARD};
use crate::port::{LocalPort, Path};
use crate::testing::{Bench, Client, IDS, OPUS, SCOPE, encoding, ms, packet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use strait_crypt::srtp::{Outbound, Profile, SharedKey};

/// Whose media this is about.
const LISTENER: PeerId = PeerId(2);

/// A path from one of other networks.
fn at(network: u8, port: u16) -> Path {
    let remote = SocketAddr::new([198, 51, 100, network].into(), port);
    Path::udp(IpAddr::V4(Ipv4Addr::LOCALHOST), remote)
}

/// One who speaks, and one who listens from network 1 and was heard there.
struct Call {
    bench: Bench,
    speaker: Client,
    listener: Client,
    seq: u16,
}

impl Call {
    fn new() -> Self {
        let mut bench = Bench::new();
        let mut speaker = Client::connected(&mut bench, 1);
        let mut listener = Client::added(&mut bench, LISTENER.0);
        listener.path = at(1, 1000);
        listener.check(&mut bench);
        bench.command(listener.set_keys());
        speaker.publish(&mut bench, 1, Kind::Audio, &[encoding(10)]);
        listener.subscribe(&mut bench, 2, Kind::Audio, Some(1));
        speaker.check(&mut bench);
        let mut call = Self { bench, speaker, listener, seq: 0 };
        call.report();
        call.way();
        call.bench.run(ms(1_000));
        call.bench.events();
        call
    }

    /// The listener says that it is there.
    fn report(&mut self) {
        let report = |rtcp: &mut strait_wire::rtcp::Writer<'_>| {
            rtcp.receiver_report(1, &[]).unwrap();
        };
        self.listener.send_rtcp(&mut self.bench, report);
    }

    fn request(&mut self, nominates: bool) -> Vec<u8> {
        let pwd = self.listener.local.pwd.clone();
        self.listener.request(&pwd, false, nominates)
    }

    /// The listener checks its path, and nominates it or not.
    fn check(&mut self, nominates: bool) {
        let request = self.request(nominates);
        self.bench.receive(self.listener.path, &request);
    }

    /// Where the next packet goes.
    fn way(&mut self) -> Path {
        self.seq += 1;
        let voice =
            packet((10, OPUS, self.seq, 960 * u32::from(self.seq)), &[(IDS.mid, b"1")], &[1; 20]);
        self.bench.sent();
        self.speaker.send(&mut self.bench, &voice);
        let sent = self.bench.sent();
        let sent: Vec<Path> =
            sent.iter().filter(|one| one.bytes[1] & 127 == OPUS + 10).map(|one| one.path).collect();
        let [way] = sent[..] else { panic!("{sent:?}") };
        way
    }
}

#[test]
fn a_check_that_somebody_sends_again_from_elsewhere_takes_no_media() {
    for renominates in [false, true] {
        let mut call = Call::new();
        let home = call.listener.path;
        // A browser may nominate once and never again.
        let seen = call.request(true);
        call.bench.receive(home, &seen);
        for second in 0..60 {
            for port in 0..3 {
                call.bench.receive(at(9, 3 * second + port), &seen);
                assert_eq!(call.way(), home, "after {second} s");
            }
            call.check(renominates);
            call.speaker.check(&mut call.bench);
            assert_eq!(call.way(), home, "after {second} s, checked");
            call.report();
            call.bench.run(ms(1_000));
        }
        assert_eq!(call.bench.events(), [], "it is reached where it was");
    }
}

#[test]
fn who_moves_is_followed_with_the_first_thing_that_it_says() {
    let mut call = Call::new();
    let home = call.listener.path;
    call.listener.path = at(2, 2000);
    call.check(true);
    assert_eq!(call.way(), home);
    call.report();
    assert_eq!(call.way(), at(2, 2000));
    call.bench.run(ms(1_000));
    let moved = Event::PeerMoved { peer: LISTENER, path: at(2, 2000) };
    assert_eq!(call.bench.events(), [moved]);
    // What was under way by the old path changes nothing; and back, where it was heard lately, it is at once.
    call.listener.path = home;
    call.report();
    assert_eq!(call.way(), at(2, 2000));
    call.check(true);
    assert_eq!(call.way(), home);
}

#[test]
fn who_lost_its_network_is_followed_before_it_nominates() {
    let mut call = Call::new();
    let home = call.listener.path;
    call.report();
    call.listener.path = at(2, 2000);
    call.check(false);
    call.bench.run(UNHEARD - ms(10));
    call.report();
    assert_eq!(call.way(), home, "it may use both");
    call.bench.run(HEARD_INTERVAL);
    call.report();
    assert_eq!(call.way(), at(2, 2000));
    // It finds out for itself that the first one is gone.
    call.check(true);
    assert_eq!(call.way(), at(2, 2000));
}

#[test]
fn every_packet_is_heard_while_it_decides() {
    let mut call = Call::new();
    call.speaker.path = at(2, 2000);
    call.speaker.check(&mut call.bench);
    let statistics = |call: &Call| call.bench.worker.peer_statistics(PeerId(1)).unwrap().path;
    assert_ne!(statistics(&call), Some(at(2, 2000)), "it spoke a moment ago, elsewhere");
    call.way();
    assert_eq!(statistics(&call), Some(at(2, 2000)), "the first packet");
}

#[test]
fn who_moves_and_says_nothing_is_followed_when_the_old_address_is_silent() {
    let mut call = Call::new();
    let home = call.listener.path;
    call.report();
    call.listener.path = at(2, 2000);
    call.check(true);
    // Without another check: nobody nominates twice who need not.
    call.bench.run(HEARD - ms(10));
    assert_eq!(call.way(), home);
    call.bench.run(ms(20));
    assert_eq!(call.way(), at(2, 2000));
    assert!(
        matches!(&call.bench.events()[..], [Event::PeerMoved { path, .. }] if *path == at(2, 2000))
    );
}

#[test]
fn who_is_silent_for_long_loses_media_no_longer_than_until_it_says_something() {
    let mut call = Call::new();
    let home = call.listener.path;
    let seen = call.request(true);
    call.bench.receive(home, &seen);
    call.bench.run(HEARD);
    call.bench.receive(at(9, 9), &seen);
    assert_eq!(call.way(), at(9, 9), "nothing tells the two apart");
    call.report();
    assert_eq!(call.way(), home);
}

#[test]
fn another_port_of_the_same_address_is_taken_at_once() {
    let mut call = Call::new();
    call.listener.path = at(1, 1001);
    call.check(true);
    assert_eq!(call.way(), at(1, 1001), "a NAT forgot the one before");
    call.listener.path = at(1, 1002);
    call.check(true);
    call.report();
    // Somebody behind the same NAT: the peer goes on by its own port, and nothing comes by the other.
    let seen = call.request(true);
    call.bench.receive(at(1, 9), &seen);
    call.bench.run(UNHEARD - ms(10));
    call.report();
    assert_eq!(call.way(), at(1, 9));
    call.bench.run(ms(20));
    call.report();
    assert_eq!(call.way(), at(1, 1002));
}

#[test]
fn until_something_is_heard_the_last_nomination_holds() {
    let mut bench = Bench::new();
    let mut client = Client::added(&mut bench, 1);
    // Each pair in turn, as an aggressive agent does.
    for network in [1, 2, 3] {
        client.path = at(network, 1000);
        client.check(&mut bench);
        bench.sent();
        let datagrams = vec![vec![22]];
        bench.command(Command::SendHandshake { peer: client.id, datagrams });
        assert_eq!(bench.sent()[0].path, client.path);
    }
}

#[test]
fn what_a_data_channel_carries_counts_as_heard() {
    let mut call = Call::new();
    let home = call.listener.path;
    for _ in 0..20 {
        call.bench.run(ms(1_000));
        call.bench.command(Command::Heard { peer: LISTENER, path: home });
        call.check(true);
        let seen = call.request(true);
        call.bench.receive(at(9, 9), &seen);
        assert_eq!(call.way(), home);
    }
    call.listener.path = at(2, 2000);
    call.check(true);
    call.bench.command(Command::Heard { peer: LISTENER, path: at(2, 2000) });
    assert_eq!(call.way(), at(2, 2000));
    // One that is no path of the peer's (any more) is no news.
    call.bench.command(Command::Heard { peer: LISTENER, path: at(7, 7) });
    assert_eq!(call.way(), at(2, 2000));
}

#[test]
fn checks_that_nominate_nothing_drive_out_no_path_that_awaits_its_proof() {
    let mut call = Call::new();
    call.listener.path = at(2, 2000);
    call.check(true);
    let seen = call.request(false);
    for port in 0..5 * PATHS_PER_PEER as u16 {
        call.bench.run(ms(1));
        call.bench.receive(at(9, port), &seen);
    }
    call.report();
    assert_eq!(call.way(), at(2, 2000));
}

#[test]
fn both_ports_of_a_peer_move_with_the_first_thing_that_it_says() {
    let mut call = Call::new();
    let ways = |call: &mut Call| {
        let slot = call.bench.worker.peer_slot(LISTENER).unwrap();
        let ice = &call.bench.worker.peers.get(slot).unwrap().ice;
        [Kind::Audio, Kind::Video].map(|kind| ice.path_of(kind).unwrap())
    };
    let pair = |network, port| {
        let (sound, pictures) = (LocalPort::AUDIO, LocalPort::VIDEO);
        [
            Path { port: sound, ..at(network, port) },
            Path { port: pictures, ..at(network, port + 1) },
        ]
    };
    let nominate = |call: &mut Call, [sound, pictures]: [Path; 2]| {
        for path in [pictures, sound] {
            call.listener.path = path;
            call.check(true);
        }
    };
    nominate(&mut call, pair(1, 1100));
    assert_eq!(ways(&mut call), pair(1, 1100), "the same address");
    call.report();
    // Nothing ever comes from a listener by the port for pictures.
    let seen = call.request(true);
    for path in pair(9, 9) {
        call.bench.receive(path, &seen);
    }
    assert_eq!(ways(&mut call), pair(1, 1100));
    nominate(&mut call, pair(2, 2000));
    assert_eq!(ways(&mut call), pair(1, 1100));
    call.report();
    assert_eq!(ways(&mut call), pair(2, 2000));
    // Both by one again.
    call.listener.path = at(3, 3000);
    call.check(true);
    call.report();
    assert_eq!(ways(&mut call), [at(3, 3000); 2]);
}

/// Under a session key what others send opens as well: it proves nothing.
#[test]
fn what_is_sent_back_under_a_session_key_is_no_proof() {
    let key = SharedKey { profile: Profile::AeadAes128Gcm, key: vec![7; 16], salt: vec![7; 12] };
    let mut bench = Bench::new();
    let mut listener = Client::added(&mut bench, LISTENER.0);
    listener.path = at(1, 1000);
    listener.check(&mut bench);
    bench.command(Command::ShareKey { peer: listener.id, key: key.clone() });
    let seal = |outbound: &mut Outbound, ssrc| {
        let mut bytes = vec![0; 200];
        let mut writer = strait_wire::rtcp::Writer::new(&mut bytes);
        writer.receiver_report(ssrc, &[]).unwrap();
        let len = writer.len();
        let len = outbound.protect_rtcp(&mut bytes, len).unwrap();
        bytes.truncate(len);
        bytes
    };
    let (mut ours, mut others) = (key.outbound().unwrap(), key.outbound().unwrap());
    let way = |bench: &Bench| bench.worker.peer_statistics(LISTENER).unwrap().path;
    let report = seal(&mut ours, 77);
    bench.receive(listener.path, &report);
    let seen = listener.request(&listener.local.pwd.clone(), false, true);
    bench.receive(at(9, 9), &seen);
    for ssrc in [5, RELAY_SSRCS + 5] {
        let report = seal(&mut others, ssrc);
        bench.receive(at(9, 9), &report);
        let mut media = packet((ssrc, OPUS, 1, 1), &[], &[1; 20]);
        media.resize(media.len() + 16, 0);
        let len = media.len() - 16;
        others.protect_rtp(&mut media, len).unwrap();
        bench.receive(at(9, 9), &media);
        bench.run(HEARD_INTERVAL);
        assert_eq!(way(&bench), Some(at(1, 1000)), "SSRC {ssrc}");
    }
    // What the peer itself sent comes by the new path first when it moved.
    listener.path = at(2, 2000);
    listener.check(&mut bench);
    let report = seal(&mut ours, 77);
    bench.receive(listener.path, &report);
    assert_eq!(way(&bench), Some(at(2, 2000)));
    assert!(bench.worker.scope_statistics(bench.now.at, SCOPE).is_some());
}
