//! Peers with the session key of their scope, and plain ones: what needs no rewriting goes out as it came.

use crate::command::{Codec, CodecKind, Command, CommandError, Event, Kind, PeerId};
use crate::drop::DropReason;
use crate::limits::{KEY_OVERLAP, RELAY_SSRCS};
use crate::port::Path;
use crate::testing::{
    Bench, Client, IDS, SCOPE, VP8, encoding, ms, packet, path, publish, read, subscribe, vp8,
};
use strait_crypt::srtp::{Inbound, Outbound, Profile, SharedKey};
use strait_wire::rtcp;

fn key(fill: u8) -> SharedKey {
    SharedKey { profile: Profile::AeadAes128Gcm, key: vec![fill; 16], salt: vec![fill; 12] }
}

/// A peer that sends and receives with the session key, or without any.
struct Native {
    id: PeerId,
    path: Path,
    outbound: Option<Outbound>,
    inbound: Option<Inbound>,
}

impl Native {
    fn fixed(bench: &mut Bench, id: u32, key: Option<&SharedKey>) -> Self {
        let (peer, path) = (PeerId(id), path(20_000 + id as u16));
        bench.command(Command::AddFixedPeer { scope: SCOPE, peer, path });
        bench.command(match key {
            Some(key) => Command::ShareKey { peer, key: key.clone() },
            None => Command::SetPlain { peer },
        });
        Self {
            id: peer,
            path,
            outbound: key.map(|key| key.outbound().unwrap()),
            inbound: key.map(|key| key.inbound().unwrap()),
        }
    }

    /// The packet as this peer puts it on the wire.
    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut bytes = packet.to_vec();
        if let Some(outbound) = &mut self.outbound {
            bytes.resize(packet.len() + 16, 0);
            outbound.protect_rtp(&mut bytes, packet.len()).unwrap();
        }
        bytes
    }

    fn seal_rtcp(&mut self, write: impl FnOnce(&mut rtcp::Writer<'_>)) -> Vec<u8> {
        let mut bytes = vec![0; 1500];
        let mut writer = rtcp::Writer::new(&mut bytes);
        write(&mut writer);
        let len = writer.len();
        let len = self.outbound.as_mut().map_or(len, |o| o.protect_rtcp(&mut bytes, len).unwrap());
        bytes.truncate(len);
        bytes
    }

    fn datagrams(&self, bench: &mut Bench) -> Vec<Vec<u8>> {
        let sent = bench.sent().into_iter();
        sent.filter(|sent| sent.path == self.path).map(|sent| sent.bytes).collect()
    }

    /// The media that came, opened. Each opens once only.
    fn media(&mut self, bench: &mut Bench) -> Vec<Vec<u8>> {
        let is_media = |bytes: &Vec<u8>| !(192..=223).contains(&bytes[1]);
        let datagrams = self.datagrams(bench).into_iter().filter(is_media);
        let open = |mut bytes: Vec<u8>| {
            if let Some(inbound) = &mut self.inbound {
                let len = inbound.unprotect_rtp(&mut bytes).expect("opens");
                bytes.truncate(len);
            }
            bytes
        };
        datagrams.map(open).collect()
    }
}

fn as_sent(peer: PeerId, id: u32) -> Command {
    let mut command = subscribe(peer, id, Kind::Video, Some(1));
    let Command::Subscribe { codecs, as_sent, mid, .. } = &mut command else { unreachable!() };
    *codecs = crate::testing::codecs(Kind::Video, 0);
    *as_sent = true;
    *mid = "1".into();
    command
}

/// A subscription of a peer with the session key, with SSRC `RELAY_SSRCS + 2 * id`.
fn rewritten(peer: PeerId, id: u32, to: u32) -> Command {
    let mut command = subscribe(peer, id, Kind::Video, Some(to));
    if let Command::Subscribe { ssrc, rtx_ssrc, .. } = &mut command {
        (*ssrc, *rtx_ssrc) = (RELAY_SSRCS + 2 * id, RELAY_SSRCS + 2 * id + 1);
    }
    command
}

fn video(seq: u16, key_frame: bool) -> Vec<u8> {
    packet((5, VP8, seq, u32::from(seq) * 3000), &[(IDS.mid, b"1")], &vp8(seq, 0, key_frame))
}

/// A publisher (SSRC 5, publication 1) and three subscribers, all with this key or plain.
fn call(key: Option<&SharedKey>) -> (Bench, Native, Vec<Native>) {
    let mut bench = Bench::new();
    let publisher = Native::fixed(&mut bench, 1, key);
    bench.command(publish(publisher.id, 1, Kind::Video, &[encoding(5)]));
    let subscribers = (2..5).map(|id| {
        let native = Native::fixed(&mut bench, id, key);
        bench.command(as_sent(native.id, id));
        native
    });
    let subscribers = subscribers.collect();
    bench.sent();
    (bench, publisher, subscribers)
}

#[test]
fn parity_goes_on_as_it_came_to_those_who_take_it() {
    for key in [Some(key(7)), None] {
        let mut bench = Bench::new();
        let mut publisher = Native::fixed(&mut bench, 1, key.as_ref());
        let parity = || Codec {
            pt: 49,
            rtx_pt: None,
            kind: CodecKind::Other,
            identity: "flexfec-03/90000/1".into(),
            ..crate::testing::codecs(Kind::Video, 0).remove(0)
        };
        let mut command = publish(publisher.id, 1, Kind::Video, &[encoding(5)]);
        if let Command::Publish { codecs, .. } = &mut command {
            codecs.push(parity());
        }
        bench.command(command);
        let mut takes = Native::fixed(&mut bench, 2, key.as_ref());
        let mut command = as_sent(takes.id, 2);
        if let Command::Subscribe { codecs, .. } = &mut command {
            codecs.push(parity());
        }
        bench.command(command);
        let mut other = Native::fixed(&mut bench, 3, key.as_ref());
        bench.command(as_sent(other.id, 3));
        bench.sent();
        let mut send = |bench: &mut Bench, packet: &[u8]| {
            let sealed = publisher.seal(packet);
            bench.receive(publisher.path, &sealed);
            let sent = bench.sent();
            let to = |native: &mut Native| {
                let sent = sent.iter().filter(|sent| sent.path == native.path);
                let media = sent.filter(|sent| !(192..=223).contains(&sent.bytes[1]));
                assert!(media.clone().all(|sent| sent.bytes == sealed), "as it came");
                media.count()
            };
            (to(&mut takes), to(&mut other))
        };
        // Protects packet 2 alone: it is its copy.
        let lost = video(2, false);
        let payload = [&lost[..2], &((lost.len() - 12) as u16).to_be_bytes(), &lost[4..8]].concat();
        let ssrc = 5_u32.to_be_bytes();
        let payload = [&payload, &[1, 0, 0, 0][..], &ssrc, &[0, 2, 0xC0, 0], &lost[12..]].concat();
        let payload = [&[payload[0] & 0x3F], &payload[1..]].concat();
        let fec = packet((77, 49, 1, 1), &[(IDS.mid, b"1")], &payload);
        assert_eq!(send(&mut bench, &video(1, true)), (1, 1));
        let pictures = |bench: &Bench| {
            let peer = bench.worker.peer_statistics(PeerId(2)).unwrap();
            (peer.subscriptions[0].key_frames, peer.subscriptions[0].freezes)
        };
        let before = pictures(&bench);
        assert_eq!(send(&mut bench, &fec), (1, 0));
        assert_eq!(pictures(&bench), before);
        // What was only slow is not kept out by what the relay could make of it, which it could not seal.
        assert_eq!(send(&mut bench, &video(2, false)), (1, 1));
        assert_eq!(send(&mut bench, &video(3, false)), (1, 1));
        let told = bench.worker.statistics().fec;
        assert_eq!((told.packets, told.recovered), (1, 0));
        assert_eq!(bench.dropped(DropReason::FecEnds), 0);
    }
}

#[test]
fn ciphertext_goes_to_everyone_as_it_came() {
    for key in [Some(key(7)), None] {
        let (mut bench, mut publisher, subscribers) = call(key.as_ref());
        let connected = bench.events().into_iter();
        assert_eq!(connected.filter(|e| matches!(e, Event::PeerConnected { .. })).count(), 4);
        for seq in 1..20 {
            let sealed = publisher.seal(&video(seq, seq == 1));
            bench.receive(publisher.path, &sealed);
            let sent = bench.sent();
            for subscriber in &subscribers {
                let got: Vec<_> = sent.iter().filter(|s| s.path == subscriber.path).collect();
                assert_eq!(got.len(), 1);
                assert_eq!(got[0].bytes, sealed, "byte for byte");
            }
        }
    }
}

#[test]
fn a_frame_goes_out_in_runs_whose_bytes_are_there_once() {
    let key = key(7);
    let mut bench = Bench::gathering(ms(1));
    let mut publisher = Native::fixed(&mut bench, 1, Some(&key));
    bench.command(publish(publisher.id, 1, Kind::Video, &[encoding(5)]));
    let subscribers: Vec<_> = (2..12).map(|id| Native::fixed(&mut bench, id, Some(&key))).collect();
    subscribers.iter().for_each(|native| bench.command(as_sent(native.id, native.id.0)));
    bench.sent();
    let mut sealed = Vec::new();
    for seq in 1..=5 {
        let mut bytes = video(seq, seq == 1);
        bytes.resize(1000, 9);
        bytes[1] = (bytes[1] & 0x7f) | (u8::from(seq == 5) << 7);
        sealed.push(publisher.seal(&bytes));
        bench.receive(publisher.path, sealed.last().unwrap());
    }
    bench.worker.forward(bench.now, &mut bench.egress, |_| panic!("far from full"));
    let runs: Vec<_> = bench.egress.runs().collect();
    assert_eq!(runs.len(), subscribers.len());
    for (run, subscriber) in runs.iter().zip(&subscribers) {
        assert_eq!((run.path, run.count, run.bytes), (subscriber.path, 5, &*sealed.concat()));
    }
    assert_eq!(bench.egress.bytes(), 5 * 1016, "once");
    assert_eq!(bench.egress.len(), 50);
}

#[test]
fn peers_with_the_key_and_browsers_see_each_other() {
    let key = key(7);
    let mut bench = Bench::new();
    let mut native = Native::fixed(&mut bench, 1, Some(&key));
    let mut watcher = Native::fixed(&mut bench, 4, Some(&key));
    let mut browser = Client::connected(&mut bench, 2);
    bench.command(publish(native.id, 1, Kind::Video, &[encoding(5)]));
    browser.publish(&mut bench, 2, Kind::Video, &[encoding(50)]);
    browser.subscribe(&mut bench, 1, Kind::Video, Some(1));
    bench.command(rewritten(native.id, 2, 2));
    bench.command(rewritten(watcher.id, 3, 2));
    bench.sent();

    let sealed = native.seal(&video(1, true));
    bench.receive(native.path, &sealed);
    let media = browser.media(&mut bench);
    assert_eq!((read(&media[0]).ssrc(), read(&media[0]).payload()), (1001, &*vp8(1, 0, true)));

    let from_browser = packet((50, VP8, 9, 0), &[(IDS.mid, b"2")], &vp8(9, 0, true));
    browser.send(&mut bench, &from_browser);
    let sent = bench.sent();
    bench.egress.clear();
    for (peer, ssrc) in [(&mut native, RELAY_SSRCS + 4), (&mut watcher, RELAY_SSRCS + 6)] {
        let to = sent.iter().find(|sent| sent.path == peer.path).expect("rewritten for each");
        let mut bytes = to.bytes.clone();
        let len = peer.inbound.as_mut().unwrap().unprotect_rtp(&mut bytes).expect("opens");
        assert_eq!(read(&bytes[..len]).ssrc(), ssrc);
    }
    // The browser's own keys open nothing of the others', and the other way round.
    bench.command(Command::Unsubscribe { subscription: crate::command::SubscriptionId(2) });
    let refused = bench.worker.on_command(bench.now, as_sent(browser.id, 9), &mut bench.egress);
    assert!(matches!(refused, Err(CommandError::Invalid(why)) if why.contains("session key")));
}

#[test]
fn no_two_packets_of_a_key_share_a_nonce() {
    let key = key(7);
    let (mut bench, publisher, _) = call(Some(&key));
    // Another publisher with the SSRC of the first.
    let second = Native::fixed(&mut bench, 9, Some(&key));
    let clash = publish(second.id, 9, Kind::Video, &[encoding(5)]);
    let refused = bench.worker.on_command(bench.now, clash, &mut bench.egress);
    assert_eq!(refused, Err(CommandError::Exists("SSRC")));
    // One that it did not signal, and only sends.
    let learned = crate::command::Encoding { rid: String::new(), ssrc: 0, rtx_ssrc: 0 };
    bench.command(publish(second.id, 9, Kind::Video, &[learned]));
    let mut own = key.outbound().unwrap();
    let mut bytes = packet((5, VP8, 700, 0), &[(IDS.mid, b"9")], &vp8(1, 0, true));
    let len = bytes.len();
    bytes.resize(len + 16, 0);
    own.protect_rtp(&mut bytes, len).unwrap();
    bench.drops(DropReason::StreamUnknown, |bench| bench.receive(second.path, &bytes));
    // A stream of the relay's with a publisher's SSRC.
    let mut clash = subscribe(second.id, 77, Kind::Video, Some(1));
    if let Command::Subscribe { ssrc, .. } = &mut clash {
        *ssrc = 5;
    }
    let refused = bench.worker.on_command(bench.now, clash, &mut bench.egress);
    assert_eq!(refused, Err(CommandError::Exists("SSRC")));
    // One that is the relay's.
    let clash = publish(second.id, 10, Kind::Video, &[encoding(RELAY_SSRCS + 77)]);
    let refused = bench.worker.on_command(bench.now, clash, &mut bench.egress);
    assert!(matches!(refused, Err(CommandError::Invalid(why)) if why.contains("2^31")));
    // A stream or a report of the relay's with a number that one before it may have had.
    bench.command(rewritten(second.id, 80, 1));
    for command in [
        rewritten(second.id, 79, 1),
        subscribe(second.id, 81, Kind::Video, Some(1)),
        publish(second.id, 11, Kind::Video, &[encoding(11)]),
    ] {
        let refused = bench.worker.on_command(bench.now, command, &mut bench.egress);
        assert!(matches!(refused, Err(CommandError::Invalid(why)) if why.contains("ascend")));
    }
    // Reports of the relay count in one row for each SSRC that they come from.
    drop(publisher);
    bench.run(ms(3000));
    let mut indices = Vec::new();
    for sent in bench.sent().iter().filter(|sent| (192..=223).contains(&sent.bytes[1])) {
        let (_, index) = sent.bytes.split_last_chunk::<4>().unwrap();
        indices.push((sent.bytes[4..8].to_vec(), u32::from_be_bytes(*index) & 0x7fff_ffff));
    }
    assert!(indices.len() > 1, "reports were sent");
    let count = indices.len();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), count, "no index twice");
}

#[test]
fn another_key_for_the_scope_is_refused_and_the_first_stays() {
    let (mut bench, mut publisher, mut subscribers) = call(Some(&key(7)));
    let (peer, path) = (PeerId(9), path(30_000));
    bench.command(Command::AddFixedPeer { scope: SCOPE, peer, path });
    let other = Command::ShareKey { peer, key: key(8) };
    let refused = bench.worker.on_command(bench.now, other, &mut bench.egress);
    assert!(matches!(refused, Err(CommandError::Exists(_))), "{refused:?}");
    let taken = Command::AddFixedPeer { scope: SCOPE, peer: PeerId(10), path };
    let refused = bench.worker.on_command(bench.now, taken, &mut bench.egress);
    assert!(matches!(refused, Err(CommandError::Exists(_))), "{refused:?}");
    let sealed = publisher.seal(&video(1, true));
    bench.receive(publisher.path, &sealed);
    assert_eq!(subscribers[0].media(&mut bench).len(), 1);
    let (mut bench, mut short) = (Bench::new(), key(7));
    short.key.truncate(5);
    bench.command(Command::AddFixedPeer { scope: SCOPE, peer, path });
    let short = Command::ShareKey { peer, key: short };
    let refused = bench.worker.on_command(bench.now, short, &mut bench.egress);
    assert!(matches!(refused, Err(CommandError::Invalid(_))), "{refused:?}");
    let nobody = Command::ChangeKey { scope: SCOPE, key: key(7) };
    let refused = bench.worker.on_command(bench.now, nobody, &mut bench.egress);
    assert_eq!(refused, Err(CommandError::NotFound("session key")));
}

/// More streams than one table for the key held once: what found no room stayed black without a word.
#[test]
fn a_scope_full_of_peers_with_the_key_that_all_see_each_other() {
    const PEERS: u32 = 70;
    let (mut bench, key) = (Bench::new(), key(7));
    let mut natives: Vec<_> =
        (1..=PEERS).map(|id| Native::fixed(&mut bench, id, Some(&key))).collect();
    for native in &natives {
        let id = native.id.0;
        bench.command(publish(native.id, id, Kind::Video, &[encoding(10 * id)]));
    }
    let pairs = (1..=PEERS).flat_map(|to| (1..=PEERS).map(move |of| (to, of)));
    let pairs = pairs.filter(|(to, of)| to != of);
    for (number, (to, of)) in (1..).zip(pairs) {
        bench.command(rewritten(PeerId(to), number, of));
    }
    bench.sent();
    for native in &mut natives {
        let id = native.id.0;
        let mid = id.to_string();
        let picture =
            packet((10 * id, VP8, 1, 3000), &[(IDS.mid, mid.as_bytes())], &vp8(1, 0, true));
        let sealed = native.seal(&picture);
        bench.receive(native.path, &sealed);
        let sent = bench.sent();
        let media = sent.iter().filter(|sent| !(192..=223).contains(&sent.bytes[1]));
        assert_eq!(media.count() as u32, PEERS - 1, "{id}");
    }
    assert_eq!(bench.dropped(DropReason::ProtectFailed), 0);
    let slot = bench.worker.peer_ids[&PeerId(1)];
    let keys = bench.worker.peers.get(slot).and_then(|peer| peer.keys.as_ref()).unwrap();
    println!("keys of a peer with {} streams: {} bytes", PEERS - 1, keys.bytes());
    assert!(keys.bytes() < 16 << 10, "{}", keys.bytes());
}

#[test]
fn streams_under_the_key_may_come_and_go_without_end() {
    let (mut bench, mut publisher, subscribers) = call(Some(&key(7)));
    let viewer = subscribers[0].id;
    let slot = bench.worker.peer_ids[&viewer];
    let mut bytes = 0;
    for round in 1..=10_000_u32 {
        let id = 100 + round;
        bench.command(rewritten(viewer, id, 1));
        let sealed = publisher.seal(&video(round as u16, true));
        bench.receive(publisher.path, &sealed);
        // As it came to three, and rewritten to one.
        assert!(bench.sent().len() >= 4, "{round}");
        bench.command(Command::Unsubscribe { subscription: crate::command::SubscriptionId(id) });
        bench.sent();
        let peer = bench.worker.peers.get(slot).unwrap();
        bytes = bytes.max(peer.keys.as_ref().unwrap().bytes());
    }
    assert_eq!(bench.dropped(DropReason::ProtectFailed), 0);
    assert!(bytes < 8 << 10, "{bytes}");
}

#[test]
fn a_new_key_goes_to_all_and_who_left_opens_nothing_more() {
    let (old, new) = (key(7), key(8));
    let (mut bench, mut publisher, mut subscribers) = call(Some(&old));
    let mut viewer = subscribers.pop().unwrap();
    let mut gone = subscribers.pop().unwrap();
    let mut watcher = subscribers.pop().unwrap();
    bench.command(rewritten(viewer.id, 50, 1));
    bench.sent();
    let mut seq = 0;
    let mut show = |bench: &mut Bench, publisher: &mut Native| {
        seq += 1;
        let sealed = publisher.seal(&video(seq, seq == 1));
        bench.receive(publisher.path, &sealed);
    };
    let media = |native: &mut Native, bench: &mut Bench| native.media(bench).len();
    show(&mut bench, &mut publisher);
    assert_eq!(media(&mut viewer, &mut bench), 2);

    bench.command(Command::RemovePeer { peer: gone.id });
    let prepared = new.prepare().unwrap();
    bench.command(Command::ChangeKey { scope: SCOPE, key: new.clone() });
    bench.command(Command::ChangeKey { scope: SCOPE, key: new.clone() });
    // It is told a moment later than the relay, and so are the others.
    show(&mut bench, &mut publisher);
    viewer.inbound.as_mut().unwrap().change_key(&prepared);
    watcher.inbound.as_mut().unwrap().change_key(&prepared);
    let sent = bench.sent();
    let to = |native: &Native| {
        let to = sent.iter().filter(|sent| sent.path == native.path);
        to.map(|sent| sent.bytes.clone()).collect::<Vec<_>>()
    };
    let open = |native: &mut Native, mut bytes: Vec<u8>| {
        native.inbound.as_mut().unwrap().unprotect_rtp(&mut bytes).is_ok()
    };
    let (as_sent, of_relay): (Vec<_>, Vec<_>) =
        to(&viewer).into_iter().partition(|bytes| bytes[8..12] == 5_u32.to_be_bytes());
    assert_eq!((as_sent.len(), of_relay.len()), (1, 1));
    assert!(open(&mut gone, as_sent[0].clone()), "what was on its way is of the key before");
    assert!(!open(&mut gone, of_relay[0].clone()), "the relay changed at once");
    assert!(open(&mut viewer, as_sent[0].clone()) && open(&mut viewer, of_relay[0].clone()));

    publisher.outbound.as_mut().unwrap().change_key(&prepared);
    for _ in 0..20 {
        show(&mut bench, &mut publisher);
        let sent = bench.sent();
        let path = viewer.path;
        for bytes in sent.iter().filter(|sent| sent.path == path) {
            assert!(!open(&mut gone, bytes.bytes.clone()), "nobody who left");
            assert!(open(&mut viewer, bytes.bytes.clone()), "everybody who stayed");
        }
    }
    // Who asked to join just before has the key before: it is told as the others are.
    let late = Native::fixed(&mut bench, 60, Some(&old));
    bench.command(rewritten(late.id, 60, 1));
    let mut slow = old.outbound().unwrap();
    let mut command = publish(late.id, 60, Kind::Video, &[encoding(60)]);
    if let Command::Publish { report_ssrc, .. } = &mut command {
        *report_ssrc = RELAY_SSRCS + 999;
    }
    bench.command(command);
    let mut say = |bench: &mut Bench, seq| {
        let mut bytes = packet((60, VP8, seq, 0), &[(IDS.mid, b"60")], &vp8(1, 0, true));
        let len = bytes.len();
        bytes.resize(len + 16, 0);
        slow.protect_rtp(&mut bytes, len).unwrap();
        bench.receive(late.path, &bytes);
    };
    say(&mut bench, 1);
    assert_eq!(bench.dropped(DropReason::SrtpAuthentication), 0);
    bench.run(KEY_OVERLAP);
    bench.drops(DropReason::SrtpAuthentication, |bench| say(bench, 2));
    let path = path(30_001);
    bench.command(Command::AddFixedPeer { scope: SCOPE, peer: PeerId(61), path });
    for refused in [
        Command::ShareKey { peer: PeerId(61), key: old.clone() },
        Command::ChangeKey { scope: SCOPE, key: old },
        Command::ChangeKey { scope: crate::command::ScopeId(99), key: new },
    ] {
        let refused = bench.worker.on_command(bench.now, refused, &mut bench.egress);
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[test]
fn what_was_lost_comes_again_as_it_came_and_reports_and_requests_pass() {
    let (mut bench, mut publisher, mut subscribers) = call(Some(&key(7)));
    let mut sealed = Vec::new();
    for seq in 1..10 {
        sealed.push(publisher.seal(&video(seq, seq == 1)));
        bench.receive(publisher.path, sealed.last().unwrap());
    }
    bench.sent();
    let subscriber = &mut subscribers[1];
    let nack = subscriber.seal_rtcp(|rtcp| {
        rtcp.receiver_report(777, &[]).unwrap();
        rtcp.nack(777, 5, [4, 6]).unwrap();
    });
    bench.receive(subscriber.path, &nack);
    assert_eq!(subscriber.datagrams(&mut bench), [sealed[3].clone(), sealed[5].clone()]);

    let report = publisher.seal_rtcp(|rtcp| {
        rtcp.sender_report(5, 1 << 32, 3000, 9, 900, &[]).unwrap();
    });
    bench.receive(publisher.path, &report);
    let sent = bench.sent();
    let copies = sent.iter().filter(|sent| sent.bytes == report).count();
    assert_eq!(copies, 3, "to each, once, as it came");

    bench.run(ms(1000));
    bench.sent();
    let pli = subscriber.seal_rtcp(|rtcp| {
        rtcp.receiver_report(777, &[]).unwrap();
        rtcp.pli(777, 5).unwrap();
    });
    bench.receive(subscriber.path, &pli);
    assert_eq!(publisher.datagrams(&mut bench).len(), 1, "a key frame is asked for");
}

#[test]
fn a_fixed_peer_needs_no_consent_and_has_no_ice() {
    let (mut bench, mut publisher, mut subscribers) = call(None);
    bench.run(ms(120_000));
    let sealed = publisher.seal(&video(1, true));
    bench.receive(publisher.path, &sealed);
    assert_eq!(subscribers[0].media(&mut bench).len(), 1);
    let credentials =
        crate::command::IceCredentials { ufrag: "aaaaaa".into(), pwd: "x".repeat(24) };
    let restart =
        Command::RestartIce { peer: publisher.id, local: credentials.clone(), remote: credentials };
    let refused = bench.worker.on_command(bench.now, restart, &mut bench.egress);
    assert!(matches!(refused, Err(CommandError::Invalid(_))));
    bench.command(Command::RemovePeer { peer: publisher.id });
    let sealed = publisher.seal(&video(2, false));
    bench.drops(DropReason::PathUnknown, |bench| bench.receive(publisher.path, &sealed));
}
