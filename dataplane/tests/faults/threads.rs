//! Threads that die or hang.

use super::page;
use super::program::Program;
use crate::common::{
    Client, add_peer, config, connect, mid_extension, opus, publish, scope, subscribe,
};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strait_proto::v1;
use strait_relay::config::Steering;
use strait_relay::fault::Fault;
use strait_relay::{Config, Relay, RelayError, Timing};
use strait_wire::rtp::HeaderBuilder;

const PATIENCE: Duration = Duration::from_secs(10);

fn a_thread_that_dies_ends_the_process(fault: &str, what: &str) {
    let mut program = Program::serve(&["--workers", "2", "--fault-for-tests", fault]);
    assert!(program.readiness().starts_with("HTTP/1.1 200"));
    program.signal("-USR1");
    assert_eq!(program.ended().code(), Some(1), "{:#?}", program.log);
    assert!(program.said("a test asked for this panic"), "{:#?}", program.log);
    assert!(program.said(&format!("{what} ended unexpectedly")), "{:#?}", program.log);
}

#[test]
fn a_worker_that_dies_ends_the_process() {
    a_thread_that_dies_ends_the_process("worker-dies", "a worker");
}

#[test]
fn the_handshake_thread_that_dies_ends_the_process() {
    a_thread_that_dies_ends_the_process("handshakes-die", "the DTLS thread");
}

/// A relay within this process, whose watchdog is in a hurry.
async fn hurried(workers: usize) -> (Relay, Client, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { workers, steering: Steering::Off, ..config(folder.path()) };
    let heartbeat = Duration::from_millis(10);
    let timing = Timing { stalled: Duration::from_millis(100), heartbeat };
    let relay = Relay::start_with(&config, timing).await.unwrap();
    let client = connect(&config.rpc_socket).await;
    let health = relay.metrics_address().unwrap();
    (relay, client, health, folder)
}

/// Asks for a page until it has `part`.
async fn await_page(address: SocketAddr, path: &'static str, part: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let page = tokio::task::spawn_blocking(move || page(address, path)).await.unwrap();
        if page.contains(part) {
            return page;
        }
        assert!(Instant::now() < until, "no \"{part}\" in {page}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_fails_readiness() {
    let (mut relay, _client, health, _folder) = hurried(2).await;
    await_page(health, "/readyz", "200 OK").await;
    relay.inject(Fault::WorkerDies, 1);
    let ready = await_page(health, "/readyz", "a worker ended unexpectedly").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(!relay.is_well());
    let ended = tokio::time::timeout(PATIENCE, relay.ended()).await.unwrap();
    assert!(matches!(ended, Err(RelayError::Died("a worker"))), "{ended:?}");
    relay.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_worker_is_noticed_and_the_other_serves_on() {
    let (relay, mut client, health, _folder) = hurried(2).await;
    let of = |answer: tonic::Response<v1::CreateScopeResponse>| answer.into_inner().worker;
    // One scope on each worker.
    let first = of(client.create_scope(scope("first")).await.unwrap());
    let second = of(client.create_scope(scope("second")).await.unwrap());
    assert_ne!(first, second);
    await_page(health, "/metrics", "relay_workers_stalled 0\n").await;
    relay.inject(Fault::WorkerStalls(Duration::from_secs(3)), first as usize);
    let begin = Instant::now();
    let stalled = format!("worker {first} is stalled");
    let ready = await_page(health, "/readyz", &stalled).await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let metrics = await_page(health, "/metrics", "relay_workers_stalled 1\n").await;
    assert!(!metrics.contains(&format!("relay_turns_total{{worker=\"{first}\"}}")), "{metrics}");
    assert!(metrics.contains(&format!("relay_turns_total{{worker=\"{second}\"}}")), "{metrics}");
    client.add_peer(add_peer("second", "ann")).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3), "while it stalled");
    // And when it turns again, all is well.
    client.add_peer(add_peer("first", "bob")).await.unwrap();
    await_page(health, "/readyz", "200 OK").await;
    relay.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let mut program = Program::serve(&["--workers", "1"]);
    let mut client = connect(&program.socket).await;
    client.create_scope(scope("room")).await.unwrap();
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    program.signal("-TERM");
    program.await_line("draining: 1 peers");
    assert!(program.readiness().contains("503"), "drains");
    program.signal("-TERM");
    assert_eq!(program.ended().code(), Some(0), "{:#?}", program.log);
    assert!(program.said("1 peers are cut off"), "{:#?}", program.log);
    assert!(!program.socket.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_process_whose_worker_hangs() {
    let mut program =
        Program::serve(&["--workers", "2", "--fault-for-tests", "worker-stalls:3600000"]);
    let mut client = connect(&program.socket).await;
    client.create_scope(scope("room")).await.unwrap();
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    program.signal("-USR1");
    program.signal("-TERM");
    program.await_line("draining: 1 peers");
    program.signal("-TERM");
    assert_eq!(program.ended().code(), Some(0), "{:#?}", program.log);
    assert!(program.said("worker-0 does not end"), "{:#?}", program.log);
}

/// What the kernel loses is counted by the sockets, and said by the watchdog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_receive_buffer_loses_is_said() {
    let mut program = Program::serve(&["--workers", "1", "--fault-for-tests", "worker-stalls:500"]);
    let mut client = connect(&program.socket).await;
    let info = client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let candidate = info.candidates.iter().find(|c| c.address == "127.0.0.1").unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    program.signal("-USR1");
    // More than the buffer holds while it stalls, and then what tells of the loss.
    let to = SocketAddr::new(candidate.address.parse().unwrap(), candidate.port as u16);
    let enough = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let enough = enough.clone();
        move || {
            while !enough.load(Ordering::Relaxed) {
                stranger.send_to(&[0x80; 1000], to).unwrap();
            }
        }
    });
    let line = program.await_line("packets are dropped: receive_overflow");
    enough.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    assert!(line.contains("net.core.rmem_max") && line.contains("Said once"), "{line}");
    assert!(program.readiness().starts_with("HTTP/1.1 200"), "{}", program.readiness());
}

/// A plain peer at a told address.
async fn join(client: &mut Client, name: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = v1::AddPeerRequest {
        remote_ice: None,
        remote_fingerprint: None,
        remote_address: socket.local_addr().unwrap().to_string(),
        plain: true,
        ..add_peer("room", name)
    };
    let answer = client.add_peer(request).await.unwrap().into_inner();
    let candidate = answer.candidates.iter().find(|c| c.address == "127.0.0.1").unwrap();
    (socket, SocketAddr::new(candidate.address.parse().unwrap(), candidate.port as u16))
}

fn packet(ssrc: u32, seq: u16) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let timestamp = u32::from(seq) * 960;
    let header = HeaderBuilder { pt: 111, seq, timestamp, ssrc, ..HeaderBuilder::default() };
    header.write(&[], [(1, &b"0"[..])], &mut bytes).unwrap();
    bytes
}

/// Of 20 peers of a worker that stalls, about half are read by the other: it keeps a bounded number of their packets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_for_a_stalled_worker_is_bounded_and_counted() {
    const SPEAKERS: u32 = 20;
    const EACH: u16 = 300;
    let (relay, mut client, health, _folder) = hurried(2).await;
    let worker = client.create_scope(scope("room")).await.unwrap().into_inner().worker;
    let mut speakers = Vec::new();
    for n in 0..SPEAKERS {
        let (socket, to) = join(&mut client, &n.to_string()).await;
        let encoding = v1::Encoding { ssrc: 1000 + n, ..v1::Encoding::default() };
        let publication = v1::PublishRequest {
            encodings: vec![encoding],
            ..publish("room", &n.to_string(), &n.to_string())
        };
        client.publish(publication).await.unwrap();
        speakers.push((socket, to));
    }
    let (listener, _) = join(&mut client, "listener").await;
    let request = v1::SubscribeRequest {
        codecs: vec![opus()],
        extensions: vec![mid_extension(1)],
        as_sent: true,
        ..subscribe("room", "listener", "s", "0")
    };
    client.subscribe(request).await.unwrap();
    let statistics = async |client: &mut Client| {
        let answer = client.get_statistics(v1::GetStatisticsRequest::default()).await;
        let workers = answer.unwrap().into_inner().workers;
        let full = |w: &v1::WorkerStatistics| w.packets_dropped.get("handed_over_full").copied();
        let full: u64 = workers.iter().filter_map(full).sum();
        (workers.iter().map(|w| w.packets_handed_over).sum::<u64>(), full)
    };
    assert_eq!(statistics(&mut client).await, (0, 0), "nothing was sent");

    assert_eq!(worker, 0, "asked before the other: what it says is said after the stall");
    relay.inject(Fault::WorkerStalls(Duration::from_secs(2)), 0);
    await_page(health, "/metrics", "relay_workers_stalled 1\n").await;
    for seq in 0..EACH {
        for (n, (socket, to)) in (0..).zip(&speakers) {
            socket.send_to(&packet(1000 + n, seq), to).unwrap();
        }
    }
    // Answered when it turns again.
    let (handed_over, full) = statistics(&mut client).await;
    let others = handed_over + full;
    assert_eq!(others % u64::from(EACH), 0, "whole flows: {handed_over} handed over, {full} lost");
    assert!(
        others > 1024,
        "the kernel spread {SPEAKERS} flows so that {others} packets are its own"
    );
    assert_eq!(handed_over, 1024, "what the queue holds; {full} lost");

    // Of the flow that is subscribed to, all that is sent now arrives.
    let (socket, to) = &speakers[0];
    for seq in EACH..EACH + 50 {
        socket.send_to(&packet(1000, seq), to).unwrap();
    }
    let mut last = 0;
    while last < EACH + 49 {
        let mut bytes = [0; 2048];
        let length = listener.recv(&mut bytes).expect("a packet");
        let seq = u16::from_be_bytes([bytes[2], bytes[3]]);
        if length == 100 && bytes[1] & 0x7f == 111 {
            assert!(seq == last + 1 || last < EACH, "{last}, then {seq}");
            last = seq;
        }
    }
    relay.stop();
}
