//! A scope that moves to another worker: nobody in it notices.

use crate::command::{Command, CommandError, Event, Kind, LeaveReason, PeerId, ScopeId, WorkerId};
use crate::drop::DropReason;
use crate::testing::{
    Bench, Client, IDS, SCOPE, VP8, VP8_RTX, encoding, ms, packet, publish, read, subscribe, vp8,
};
use crate::time::Duration;
use strait_crypt::srtp::{Profile, SharedKey};
use strait_wire::rtcp;

fn video(seq: u16) -> Vec<u8> {
    let key_frame = seq == 1;
    packet((5, VP8, seq, u32::from(seq) * 3000), &[(IDS.mid, b"1")], &vp8(seq, 0, key_frame))
}

/// A worker of which other scopes have the first slots already.
fn elsewhere(now: &Bench) -> Bench {
    let mut bench = Bench::new();
    bench.now = now.now;
    bench.command(Command::DisposeScope { scope: SCOPE });
    bench.command(Command::CreateScope { scope: ScopeId(99) });
    for n in 0..3 {
        let path = crate::testing::path(30_000 + n);
        let peer = PeerId(900 + u32::from(n));
        bench.command(Command::AddFixedPeer { scope: ScopeId(99), peer, path });
        bench.command(Command::SetPlain { peer });
        bench.command(publish(peer, 900 + u32::from(n), Kind::Video, &[encoding(7)]));
        bench.command(subscribe(peer, 900 + u32::from(n), Kind::Video, Some(900)));
    }
    bench.sent();
    bench.events();
    bench
}

fn move_scope(from: &mut Bench, to: &mut Bench) {
    let moved = from.worker.take_scope(from.now, SCOPE, &mut from.egress).unwrap();
    to.now = from.now;
    to.worker.adopt_scope(to.now, moved, &mut to.egress);
}

#[test]
fn a_call_goes_on_where_it_was() {
    let mut here = Bench::new();
    let mut ann = Client::connected(&mut here, 1);
    let mut bob = Client::connected(&mut here, 2);
    ann.publish(&mut here, 1, Kind::Video, &[encoding(5)]);
    bob.subscribe(&mut here, 1, Kind::Video, Some(1));
    let mut heard = Vec::new();
    for seq in 1..=10 {
        ann.send(&mut here, &video(seq));
        heard.extend(bob.media(&mut here));
    }
    here.events();

    let mut there = elsewhere(&here);
    let others = there.worker.statistics();
    move_scope(&mut here, &mut there);
    let (left, came) = (here.worker.statistics(), there.worker.statistics());
    assert_eq!((left.scopes, left.peers, left.publications, left.subscriptions), (0, 0, 0, 0));
    assert_eq!((came.scopes, came.peers), (others.scopes + 1, others.peers + 2));
    assert_eq!(came.subscriptions, others.subscriptions + 1);

    for seq in 11..=20 {
        ann.send(&mut there, &video(seq));
        heard.extend(bob.media(&mut there));
    }
    let seqs: Vec<u16> = heard.iter().map(|bytes| read(bytes).seq()).collect();
    assert_eq!(seqs, (100..120).collect::<Vec<_>>(), "no gap, no new start");
    assert!(heard.iter().all(|bytes| read(bytes).ssrc() == 1001));

    // What was sent before is still kept, and comes again.
    bob.send_rtcp(&mut there, |rtcp| {
        rtcp.receiver_report(1, &[]).unwrap();
        rtcp.nack(1, 1001, [105, 115]).unwrap();
    });
    let again = bob.media(&mut there);
    let original =
        |bytes: &Vec<u8>| u16::from_be_bytes([read(bytes).payload()[0], read(bytes).payload()[1]]);
    assert_eq!(again.iter().map(original).collect::<Vec<_>>(), [105, 115]);
    assert!(again.iter().all(|bytes| read(bytes).pt() == VP8_RTX + 10));

    // The old worker knows nothing of it.
    here.drops(DropReason::PathUnknown, |here| ann.send(here, &video(21)));
    let gone = here.worker.on_command(
        here.now,
        Command::Unpublish { publication: crate::command::PublicationId(1) },
        &mut here.egress,
    );
    assert_eq!(gone, Err(CommandError::NotFound("publication")));
    assert_eq!(here.worker.next_timeout().filter(|at| *at < here.now.at), None);

    // Commands find it: what comes next of ann goes to nobody.
    bob.subscribe(&mut there, 2, Kind::Video, Some(1));
    there.command(Command::RemovePeer { peer: ann.id });
    let removed = Event::PeerLeft {
        peer: ann.id,
        reason: LeaveReason::Removed,
        detail: "removed by the control plane".into(),
    };
    assert_eq!(there.events(), [removed]);
}

#[test]
fn reports_checks_and_consent_go_on() {
    let mut here = Bench::new();
    let mut ann = Client::connected(&mut here, 1);
    let mut bob = Client::connected(&mut here, 2);
    ann.publish(&mut here, 1, Kind::Video, &[encoding(5)]);
    bob.subscribe(&mut here, 1, Kind::Video, Some(1));
    ann.send(&mut here, &video(1));
    here.run(ms(200));
    here.sent();
    here.events();
    let mut there = elsewhere(&here);
    move_scope(&mut here, &mut there);
    // Ann is told in time how her packets arrive.
    for seq in 2..50 {
        ann.send(&mut there, &video(seq));
        there.run(ms(100));
    }
    let sent = there.sent();
    let (_, reports) = ann.open(&sent);
    let is_report = |packet| matches!(packet, Ok(rtcp::Packet::ReceiverReport(_)));
    assert!(reports.iter().any(|report| rtcp::packets(report).any(is_report)));
    // Bob checks, ann does not: she leaves, he stays.
    for _ in 0..10 {
        bob.check(&mut there);
        there.run(Duration::from_secs(4));
    }
    let left: Vec<_> = there.events();
    assert!(
        matches!(left.as_slice(), [Event::PeerLeft { peer, reason: LeaveReason::ConsentExpired, .. }] if *peer == ann.id),
        "{left:?}"
    );
    assert_eq!(here.events(), []);
}

#[test]
fn a_scope_moves_there_and_back_and_an_empty_one_too() {
    let mut here = Bench::new();
    let mut there = elsewhere(&here);
    move_scope(&mut here, &mut there);
    move_scope(&mut there, &mut here);
    let mut ann = Client::connected(&mut here, 1);
    let mut bob = Client::connected(&mut here, 2);
    ann.publish(&mut here, 1, Kind::Video, &[encoding(5)]);
    bob.subscribe(&mut here, 1, Kind::Video, Some(1));
    let mut seqs = Vec::new();
    for seq in 1..=30 {
        ann.send(&mut here, &video(seq));
        seqs.extend(bob.media(&mut here).iter().map(|bytes| read(bytes).seq()));
        move_scope(&mut here, &mut there);
        std::mem::swap(&mut here, &mut there);
    }
    assert_eq!(seqs, (100..130).collect::<Vec<_>>());
    let unknown = here.worker.take_scope(here.now, ScopeId(12345), &mut here.egress);
    assert_eq!(unknown.unwrap_err(), CommandError::NotFound("scope"));
}

/// Two contexts of one session key would use the same nonces: its history goes along.
#[test]
fn a_session_key_goes_along_with_its_history() {
    let mut here = Bench::new();
    let key = SharedKey { profile: Profile::AeadAes128Gcm, key: vec![1; 16], salt: vec![2; 12] };
    let share = |bench: &mut Bench, id: u32, port: u16| {
        let peer = PeerId(id);
        bench.command(Command::AddFixedPeer {
            scope: SCOPE,
            peer,
            path: crate::testing::path(port),
        });
        bench.command(Command::ShareKey { peer, key: key.clone() });
        peer
    };
    let ann = share(&mut here, 1, 40_001);
    let bob = share(&mut here, 2, 40_002);
    here.command(publish(ann, 1, Kind::Video, &[encoding(5)]));
    here.command(subscribe(bob, 1, Kind::Video, Some(1)));
    let mut outbound = key.outbound().unwrap();
    let mut inbound = key.inbound().unwrap();
    let mut there = elsewhere(&here);
    let mut opened = Vec::new();
    for seq in 1..=6 {
        let mut bytes = video(seq);
        let len = bytes.len();
        bytes.resize(len + 16, 0);
        outbound.protect_rtp(&mut bytes, len).unwrap();
        here.receive(crate::testing::path(40_001), &bytes);
        for sent in here.sent() {
            let mut bytes = sent.bytes;
            if (192..=223).contains(&bytes[1]) {
                continue;
            }
            let len = inbound.unprotect_rtp(&mut bytes).expect("a nonce that none had");
            opened.push(read(&bytes[..len]).seq());
        }
        if seq == 3 {
            move_scope(&mut here, &mut there);
            std::mem::swap(&mut here, &mut there);
        }
    }
    assert_eq!(opened, (100..106).collect::<Vec<_>>());
    let another =
        SharedKey { profile: Profile::AeadAes128Gcm, key: vec![9; 16], salt: vec![2; 12] };
    let again = here.worker.on_command(
        here.now,
        Command::ShareKey { peer: ann, key: another },
        &mut here.egress,
    );
    assert!(again.is_err(), "the scope's key is known: {again:?}");
}

#[test]
fn what_is_spread_is_not_moved() {
    let mut here = Bench::new();
    let ann = Client::connected(&mut here, 1);
    ann.publish(&mut here, 1, Kind::Video, &[encoding(5)]);
    let publication = crate::command::PublicationId(1);
    here.command(Command::StartMirroring { publication, to: WorkerId(1) });
    let refused = here.worker.take_scope(here.now, SCOPE, &mut here.egress).unwrap_err();
    assert!(refused.to_string().contains("spread"), "{refused}");
    here.command(Command::StopMirroring { publication, to: WorkerId(1) });
    here.worker.take_scope(here.now, SCOPE, &mut here.egress).unwrap();
}

/// A publisher leaves by itself while a frame of it is held; the scope that comes finds its slot free.
#[test]
fn what_is_held_goes_to_nobody_of_a_scope_that_comes() {
    use crate::testing::path;
    let mut here = Bench::new();
    here.command(Command::DisposeScope { scope: SCOPE });
    let coming = ScopeId(99);
    here.command(Command::CreateScope { scope: coming });
    for n in 0..2 {
        let peer = PeerId(900 + u32::from(n));
        here.command(Command::AddFixedPeer { scope: coming, peer, path: path(30_000 + n) });
        here.command(Command::SetPlain { peer });
    }
    here.command(publish(PeerId(900), 900, Kind::Video, &[encoding(7)]));
    here.command(subscribe(PeerId(901), 901, Kind::Video, Some(900)));

    let mut there = Bench::gathering(ms(5));
    let mut eve = Client::connected(&mut there, 1);
    let mut sam = Client::connected(&mut there, 2);
    eve.publish(&mut there, 1, Kind::Video, &[encoding(5)]);
    sam.subscribe(&mut there, 1, Kind::Video, Some(1));
    there.run(Duration::from_secs(20));
    sam.check(&mut there);
    there.run(ms(9_999));
    let mut open = video(1);
    // Not the last of its frame.
    open[1] &= 0x7f;
    eve.send(&mut there, &open);
    there.advance(ms(2));
    there.worker.on_timeout(there.now, &mut there.egress);
    let left = there.events();
    assert!(
        left.iter().any(|event| matches!(event, Event::PeerLeft { peer, .. } if *peer == eve.id))
    );
    assert!(!there.worker.is_due(there.now.at), "the frame is still held");
    there.sent();

    here.now = there.now;
    let moved = here.worker.take_scope(here.now, coming, &mut here.egress).unwrap();
    there.worker.adopt_scope(there.now, moved, &mut there.egress);
    there.worker.forward(there.now, &mut there.egress, |_| {});
    let strays: Vec<_> = there
        .sent()
        .into_iter()
        .filter(|sent| sent.path == path(30_001) && !(192..=223).contains(&sent.bytes[1]))
        .collect();
    assert!(strays.is_empty(), "media of another scope: {:?}", strays[0].bytes);
}
