//! Scopes that move from worker to worker while media flows, over real sockets.

use crate::common::peer::Peer;
use crate::common::{Client, publish, scope, start_config, start_with, subscribe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_relay::Config;
use strait_relay::config::{Io, Steering};

const PATIENCE: Duration = Duration::from_secs(10);

async fn move_to(client: &mut Client, worker: u32) -> u32 {
    let request = v1::MoveScopeRequest { scope_id: "room".into(), worker };
    client.move_scope(request).await.unwrap().into_inner().from
}

/// The scopes and the peers of each worker.
async fn loads(client: &mut Client) -> Vec<(u32, u32)> {
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    let workers = statistics.into_inner().workers;
    workers.iter().map(|worker| (worker.scopes, worker.peers)).collect()
}

/// Ann speaks 1000 packets a second to everybody; the scope goes round the workers meanwhile. Each packet arrives, once.
async fn round_and_round(steering: Steering, io: Io) {
    let config = |config| Config { workers: 3, steering, io, ..config };
    let mut setup = start_config(config).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let mut listeners = Vec::new();
    for (name, over) in
        [("bob", Protocol::Udp), ("carl", Protocol::TcpPassive), ("dora", Protocol::Udp)]
    {
        let peer = Peer::join(client, "room", name, over, false).await;
        client.subscribe(subscribe("room", name, name, "voice")).await.unwrap();
        listeners.push(peer);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let call = tokio::task::spawn_blocking(move || {
        let mut seq = 0_u16;
        let mut say = |ann: &mut Peer| {
            seq = seq.wrapping_add(1);
            ann.say(9, seq, &seq.to_be_bytes());
            seq
        };
        let said = |payload: &[u8]| u16::from_be_bytes([payload[0], payload[1]]);
        for listener in &mut listeners {
            // The first packets may overtake a listener's keys.
            let start = Instant::now();
            let hears = |listener: &mut Peer, now| {
                std::iter::from_fn(|| listener.hear(Duration::from_millis(100)))
                    .any(|heard| said(&heard.payload) == now)
            };
            loop {
                let now = say(&mut ann);
                if hears(listener, now) {
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "nothing is heard");
            }
        }
        let first = say(&mut ann);
        // Each reads all the time: its socket's buffer holds a quarter of a second.
        let ends = stopped.clone();
        let readers: Vec<_> = listeners
            .into_iter()
            .map(|mut listener| {
                let ends = ends.clone();
                std::thread::spawn(move || {
                    let mut heard = Vec::new();
                    loop {
                        match listener.hear(Duration::from_millis(500)) {
                            Some(packet) => heard.push(said(&packet.payload)),
                            None if ends.load(Ordering::Relaxed) => return heard,
                            None => {}
                        }
                        if heard.len() % 100 == 50 {
                            listener.check_while_media_flows();
                        }
                    }
                })
            })
            .collect();
        let (mut last, mut checks) = (first, 0);
        while !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
            last = say(&mut ann);
            if last.is_multiple_of(64) {
                // Their tag names the worker where everything began.
                ann.check_while_media_flows();
                checks += 1;
            }
        }
        assert!(checks > 3);
        for reader in readers {
            let mut heard = reader.join().unwrap();
            heard.retain(|seq| *seq >= first);
            heard.sort_unstable();
            let expected: Vec<u16> = (first..=last).collect();
            let missing = expected.iter().filter(|seq| heard.binary_search(seq).is_err());
            let missing: Vec<_> = missing.take(9).collect();
            assert!(
                heard == expected,
                "of {first} to {last} came {}, not {missing:?}",
                heard.len()
            );
        }
        (ann, last)
    });
    let mut at = loads(client).await.iter().position(|load| *load == (1, 4)).unwrap() as u32;
    for to in [1, 2, 0, 2, 1, 0, 1, 2, 0, 2] {
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(move_to(client, to).await, at);
        at = to;
        let mut expected = vec![(0, 0); 3];
        expected[to as usize] = (1, 4);
        assert_eq!(loads(client).await, expected, "all of it is there and nowhere else");
    }
    stop.store(true, Ordering::Relaxed);
    let (mut ann, last) = call.await.unwrap();

    // Who joins where it is now finds it as well, and everything can end.
    let mut emil = Peer::join(client, "room", "emil", Protocol::Udp, false).await;
    client.subscribe(subscribe("room", "emil", "emil", "voice")).await.unwrap();
    tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        for seq in last + 1.. {
            ann.say(9, seq, &seq.to_be_bytes());
            if emil.hear(Duration::from_millis(50)).is_some() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "nothing is heard");
        }
    })
    .await
    .unwrap();
    client.dispose_scope(v1::DisposeScopeRequest { scope_id: "room".into() }).await.unwrap();
    assert_eq!(loads(client).await, [(0, 0); 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_when_a_scope_moves_with_steering() {
    round_and_round(Steering::Auto, Io::Mmsg).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_when_a_scope_moves_without_steering() {
    round_and_round(Steering::Off, Io::Mmsg).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_when_a_scope_moves_by_io_uring() {
    round_and_round(Steering::Auto, Io::Uring).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_join_while_their_scope_moves() {
    let mut setup = start_with(3, Steering::Auto).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut mover = client.clone();
    let stopped = stop.clone();
    let moves = tokio::spawn(async move {
        let mut moves = 0;
        while !stopped.load(Ordering::Relaxed) {
            moves += 1;
            move_to(&mut mover, moves % 3).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        moves
    });
    // Each joins by ICE and DTLS in the middle of it: none is lost on the way.
    for n in 0..20 {
        Peer::join(client, "room", &format!("peer {n}"), Protocol::Udp, false).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(moves.await.unwrap() > 3);
    let peers: u32 = loads(client).await.iter().map(|(_, peers)| peers).sum();
    assert_eq!(peers, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_that_make_no_sense_are_refused_and_change_nothing() {
    let mut setup = start_with(2, Steering::Off).await;
    let client = &mut setup.client;
    let mut refused = async |scope_id: &str, worker| {
        let request = v1::MoveScopeRequest { scope_id: scope_id.into(), worker };
        client.move_scope(request).await.map(|answer| answer.into_inner().from)
    };
    assert_eq!(refused("room", 1).await.unwrap_err().code(), tonic::Code::NotFound);
    client.create_scope(scope("room")).await.unwrap();
    let mut refused = async |scope_id: &str, worker| {
        let request = v1::MoveScopeRequest { scope_id: scope_id.into(), worker };
        client.move_scope(request).await.map(|answer| answer.into_inner().from)
    };
    let error = refused("room", 2).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("workers 0 to 1"), "{error}");
    assert_eq!(refused("room", 0).await.unwrap(), 0, "it is there already");
    assert_eq!(refused("room", 1).await.unwrap(), 0);
    assert_eq!(refused("room", 1).await.unwrap(), 1);
    assert_eq!(loads(client).await, [(0, 0), (1, 0)]);
}
