//! What others send from the peer's address ends no handshake: neither before, nor during, nor after.

use crate::net::{Net, Peer, ROLES, Random, SPEAKS, Speaks, perfect};
use std::time::{Duration, Instant};
use strait_crypt::dtls::Role;

const SECOND: Duration = Duration::from_secs(1);

fn record(kind: u8, epoch: u16, seq: u64, fragment: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd];
    record.extend(epoch.to_be_bytes());
    record.extend(&seq.to_be_bytes()[2..]);
    record.extend((fragment.len() as u16).to_be_bytes());
    record.extend(fragment);
    record
}

fn message(kind: u8, seq: u16, body: &[u8]) -> Vec<u8> {
    let len = &(body.len() as u32).to_be_bytes()[1..];
    let mut message = vec![kind];
    message.extend(len);
    message.extend(seq.to_be_bytes());
    message.extend([0, 0, 0]);
    message.extend(len);
    message.extend(body);
    message
}

/// A ClientHello with nothing that we take.
fn hopeless_hello(random: u8) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend([random; 32]);
    body.extend([0, 0, 0, 2, 0x00, 0x0a, 1, 0, 0, 0]);
    record(22, 0, 0, &message(1, 0, &body))
}

/// Datagrams that anybody could make up.
fn noise(random: &mut Random) -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![],
        vec![22],
        record(21, 0, 1, &[2, 40]),
        record(21, 0, 2, &[1, 0]),
        record(21, 0, 3, &[2, 80, 9]),
        record(23, 0, 4, b"application data in the clear"),
        record(23, 1, 5, &[7; 60]),
        record(22, 1, 6, &[7; 60]),
        record(22, 2, 6, &[7; 60]),
        record(20, 0, 7, &[1, 1]),
        record(25, 0, 8, &[0; 20]),
        record(26, 0, 9, &[0, 3, 1, 2, 3]),
        record(22, 0, 10, &[]),
        record(22, 0, 11, &message(0, 0, &[])),
        record(22, 0, 12, &message(24, 1, &[0])),
        vec![0x2c, 0, 1, 0, 40],
        [vec![0x2e, 0, 1, 0, 40], vec![9; 40]].concat(),
        [vec![0x2f, 0, 1, 0, 40], vec![9; 40]].concat(),
        [vec![0x28, 0, 1], vec![9; 40]].concat(),
        [vec![0x3f], vec![9; 60]].concat(),
    ];
    for seq in 20..60 {
        all.push(record(22, 0, seq.into(), &message(11, 900 + seq, &[0; 30])));
        all.push(record(23, 0, 1000 + u64::from(seq), &[0; 30]));
    }
    for _ in 0..100 {
        let len = random.below(200);
        let mut bytes = random.bytes(len);
        if let Some(first) = bytes.first_mut() {
            *first = 20 + random.below(44) as u8;
        }
        let len = random.below(60);
        let tail = random.bytes(len);
        all.push(record(20 + random.below(7) as u8, 0, random.below(99), &tail));
        all.push(bytes);
    }
    all
}

#[test]
fn noise_at_any_time_is_ignored() {
    for role in ROLES {
        for speaks in SPEAKS {
            for step in [0, 10, 30, 50, 70, 500] {
                let mut random = Random(1 + step);
                let mut net = Net::new(role, speaks);
                net.run(Duration::from_millis(step), &mut perfect);
                for datagram in noise(&mut random) {
                    net.ours.handshake.handle(net.now, &datagram);
                }
                assert!(net.ours.handshake.ignored() > 50);
                net.run(20 * SECOND, &mut perfect);
                net.assert_agreed(role);
            }
        }
    }
}

#[test]
fn a_hopeless_client_does_not_keep_the_real_one_out() {
    for speaks in SPEAKS {
        let mut net = Net::new(Role::Server, speaks);
        for random in 0..3 {
            net.ours.handshake.handle(net.now, &hopeless_hello(random));
        }
        net.run(10 * SECOND, &mut perfect);
        net.assert_agreed(Role::Server);
    }
}

#[test]
fn another_client_before_the_real_one_does_not_keep_it_out() {
    for speaks in SPEAKS {
        for stranger in SPEAKS {
            let certificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
            let mut net = Net::new(Role::Server, speaks);
            let mut stranger = Peer::new(stranger, true, &certificate, net.now);
            for datagram in stranger.drain() {
                net.ours.handshake.handle(net.now, &datagram);
            }
            // What we answer goes to the real client, which is none the wiser: let it be lost.
            let (answers, _) = net.ours.drain();
            assert!(!answers.is_empty());
            net.run(10 * SECOND, &mut perfect);
            net.assert_agreed(Role::Server);
        }
    }
}

#[test]
fn afterwards_nothing_shakes_it() {
    for role in ROLES {
        for speaks in SPEAKS {
            let mut random = Random(5);
            let mut net = Net::new(role, speaks);
            net.run(2 * SECOND, &mut perfect);
            net.assert_agreed(role);
            // All that was sent either way, again, and with bits flipped; noise; other clients.
            for (_, datagram) in net.log.clone() {
                net.ours.handshake.handle(net.now, &datagram);
                for _ in 0..40 {
                    let mut changed = datagram.clone();
                    let bit = random.below(8 * changed.len() as u64) as usize;
                    changed[bit / 8] ^= 1 << (bit % 8);
                    net.ours.handshake.handle(net.now, &changed);
                }
            }
            for datagram in noise(&mut random) {
                net.ours.handshake.handle(net.now, &datagram);
            }
            for random in 0..40 {
                net.ours.handshake.handle(net.now, &hopeless_hello(random));
                let future = message(1, u16::from(random), &[7; 60]);
                net.ours.handshake.handle(net.now, &record(22, 0, 500, &future));
                let future = message(20, u16::from(random), &[7; 12]);
                net.ours.handshake.handle(net.now, &record(22, 0, 600, &future));
            }
            net.run(10 * SECOND, &mut perfect);
            net.assert_agreed(role);
            assert!(!net.ours.closed, "{role:?} {speaks:?}");
            // And it still hears the real goodbye.
            net.peer.dtls.close().unwrap();
            net.run(12 * SECOND, &mut perfect);
            assert!(net.ours.closed, "{role:?} {speaks:?}");
        }
    }
}

/// Changed copies of what is on its way overtake it. A changed message that is well-formed is an impostor's and may end
/// a handshake that nothing has authenticated yet; it must never bring wrong keys, a panic or a spin.
#[test]
fn changed_handshakes_never_yield_wrong_keys() {
    let mut connected = 0;
    for role in ROLES {
        for speaks in SPEAKS {
            for seed in 1..=40 {
                let mut random = Random(seed);
                let mut net = Net::new(role, speaks);
                for step in 1..=8 {
                    net.run(Duration::from_millis(10 * step), &mut perfect);
                    let Some((_, datagram)) = net.log.last() else { continue };
                    let mut changed = datagram.clone();
                    for _ in 0..=random.below(3) {
                        let bit = random.below(8 * changed.len() as u64) as usize;
                        changed[bit / 8] ^= 1 << (bit % 8);
                    }
                    net.ours.handshake.handle(net.now, &changed);
                }
                net.run(60 * SECOND, &mut perfect);
                match &net.ours.failed {
                    Some(why) => assert!(!why.contains("panicked"), "{why}"),
                    None if net.ours.keys.is_some() && net.peer.connected => {
                        net.assert_agreed(role);
                        connected += 1;
                    }
                    None => {}
                }
            }
        }
    }
    println!("{connected} of 240 connected");
    assert!(connected > 10, "{connected} of 240 connected");
}

#[test]
fn time_and_packets_in_any_order_before_anything() {
    for role in ROLES {
        let mut net = Net::new(role, Speaks::Both);
        let later = net.now + 3600 * SECOND;
        net.ours.handshake.handle(later, &record(22, 0, 0, &message(1, 0, &[0; 40])));
        net.ours.handshake.handle_timeout(Instant::now());
        net.ours.handshake.close();
        net.ours.handshake.handle(later, &hopeless_hello(1));
        net.ours.drain();
    }
}
