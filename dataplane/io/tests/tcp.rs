//! ICE-TCP through real connections on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path, Port};
use strait_io::{Backend, Bound, Clock, Drop, Options, Sockets, bind, limits};

const STUN: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// Every test, with each backend.
macro_rules! with_each_backend {
    ($($test:ident,)+) => {
        mod mmsg { $(#[test] fn $test() { super::$test(super::Backend::Mmsg); })+ }
        mod uring { $(#[test] fn $test() { super::$test(super::Backend::Uring); })+ }
    };
}

with_each_backend! {
    frames_go_both_ways_on_the_udp_ports_number,
    frames_come_whole_however_they_are_cut,
    rule_breakers_are_expelled,
    silence_ends_a_connection,
    a_slow_reader_loses_whole_frames_only,
    a_connection_moves_to_another_worker_with_what_it_holds,
    sending_to_a_closed_connection_is_counted,
}

fn open(backend: Backend, workers: usize) -> Bound {
    let loopback = vec![[127, 0, 0, 1].into(), "::1".parse().unwrap()];
    bind(&Options { udp: loopback.clone(), tcp: loopback, workers, backend, ..Options::default() })
        .unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn turn(port: &mut Sockets, received: &mut Vec<(Meta, Vec<u8>)>, patience: Duration) {
    let now = Clock.instant();
    port.wait(now, Some(now + patience));
    port.receive(Clock.instant(), |meta, bytes| received.push((meta, bytes.to_vec())));
}

fn receive(port: &mut Sockets, count: usize) -> Vec<(Meta, Vec<u8>)> {
    let mut received = Vec::new();
    for _ in 0..5000 {
        turn(port, &mut received, Duration::from_secs(1));
        if received.len() >= count {
            return received;
        }
    }
    panic!("{} of {count} frames came", received.len());
}

fn turn_until(port: &mut Sockets, condition: impl Fn(&Sockets) -> bool) {
    for _ in 0..5000 {
        turn(port, &mut Vec::new(), Duration::from_millis(10));
        if condition(port) {
            return;
        }
    }
    panic!("never came true");
}

/// Whether the other side closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0))
        || stream.read(&mut [0; 16]).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
}

fn frames_go_both_ways_on_the_udp_ports_number(backend: Backend) {
    let mut bound = open(backend, 1);
    assert_eq!(bound.tcp, bound.udp);
    for &address in &bound.tcp {
        let mut client = connect(address);
        client.write_all(&framed(&STUN)).unwrap();
        let (meta, bytes) = receive(&mut bound.ports[0], 1).remove(0);
        assert_eq!(bytes, STUN);
        let (local, remote) = (address.ip(), client.local_addr().unwrap());
        assert_eq!(meta.path, Path::tcp(local, remote));

        let mut egress = Egress::default();
        assert!(egress.push(meta.path, b"answer"));
        bound.ports[0].send(&mut egress);
        let mut answer = [0; 8];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\0\x06answer");
    }
}

fn frames_come_whole_however_they_are_cut(backend: Backend) {
    let mut bound = open(backend, 1);
    let mut client = connect(bound.tcp[0]);
    let big = vec![0x80; 2048];
    let stream = [framed(&STUN), framed(&[]), framed(&big), framed(&[1]), framed(&[2])].concat();
    let port = &mut bound.ports[0];
    let mut received = Vec::new();
    for piece in stream.chunks(7) {
        client.write_all(piece).unwrap();
        turn(port, &mut received, Duration::ZERO);
    }
    while received.len() < 4 {
        turn(port, &mut received, Duration::from_secs(1));
    }
    let bytes: Vec<_> = received.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(bytes, [STUN.to_vec(), big, vec![1], vec![2]], "an empty frame is a keep-alive");

    // And many in one piece, more than a batch.
    let many: Vec<u8> = (0..200).flat_map(|n| framed(&[n])).collect();
    client.write_all(&many).unwrap();
    let received = receive(port, 200);
    assert!(received.iter().map(|(_, bytes)| bytes[0]).eq(0..200));
}

fn rule_breakers_are_expelled(backend: Backend) {
    let mut bound = open(backend, 1);
    let mut over_long = framed(&STUN);
    over_long.extend([0x08, 0x01]);
    for (name, bytes) in [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(80)),
        ("not STUN", framed(&[0x80; 40])),
        ("short", framed(&[0, 1])),
        ("a frame of 2049 bytes", over_long),
    ] {
        let before = bound.ports[0].counters().tcp_expelled;
        let mut client = connect(bound.tcp[0]);
        client.write_all(&bytes).unwrap();
        turn_until(&mut bound.ports[0], |port| port.counters().tcp_expelled == before + 1);
        assert!(is_closed(&mut client), "{name}");
    }
    assert_eq!(bound.ports[0].counters().tcp_open, 0);
}

fn silence_ends_a_connection(backend: Backend) {
    let mut bound = open(backend, 1);
    let port = &mut bound.ports[0];
    let mut mute = connect(bound.tcp[0]);
    let mut proven = connect(bound.tcp[0]);
    proven.write_all(&framed(&STUN)).unwrap();
    receive(port, 1);
    turn_until(port, |port| port.counters().tcp_open == 2);

    let start = Clock.instant();
    let waits = |port: &mut Sockets, after: Duration| port.wait(start + after, Some(start + after));
    waits(port, limits::TCP_FIRST_FRAME - Duration::from_secs(2));
    assert_eq!(port.counters().tcp_open, 2);
    waits(port, limits::TCP_FIRST_FRAME);
    assert_eq!(port.counters().tcp_open, 1);
    assert!(is_closed(&mut mute));
    waits(port, limits::TCP_IDLE - Duration::from_secs(2));
    assert_eq!(port.counters().tcp_open, 1);
    waits(port, limits::TCP_IDLE);
    assert_eq!(port.counters().tcp_open, 0);
    assert!(is_closed(&mut proven));
}

fn a_slow_reader_loses_whole_frames_only(backend: Backend) {
    let mut bound = open(backend, 1);
    let mut client = connect(bound.tcp[0]);
    client.write_all(&framed(&STUN)).unwrap();
    let path = receive(&mut bound.ports[0], 1)[0].0.path;
    // Until the kernel's buffers and ours are full.
    let mut sent = 0_u32;
    while bound.ports[0].counters().drops(Drop::TcpQueueFull) < 10 {
        let mut egress = Egress::default();
        for _ in 0..100 {
            let mut frame = [0xaa; 1200];
            frame[..4].copy_from_slice(&sent.to_be_bytes());
            assert!(egress.push(path, &frame));
            sent += 1;
        }
        bound.ports[0].send(&mut egress);
        assert!(sent < 100_000, "no bound");
    }
    // Now it reads: every frame is whole, and they ascend.
    let port = &mut bound.ports[0];
    let expected = sent - port.counters().drops(Drop::TcpQueueFull) as u32;
    let reader = std::thread::spawn(move || {
        let mut last = None;
        for _ in 0..expected {
            let mut header = [0; 2];
            client.read_exact(&mut header).unwrap();
            assert_eq!(u16::from_be_bytes(header), 1200);
            let mut frame = [0; 1200];
            client.read_exact(&mut frame).unwrap();
            assert!(frame[4..].iter().all(|&byte| byte == 0xaa));
            let number = u32::from_be_bytes(frame[..4].try_into().unwrap());
            assert!(last < Some(number));
            last = Some(number);
        }
    });
    while !reader.is_finished() {
        turn(port, &mut Vec::new(), Duration::from_millis(5));
    }
    reader.join().unwrap();
    assert_eq!(u64::from(expected), port.counters().packets_sent);
}

fn a_connection_moves_to_another_worker_with_what_it_holds(backend: Backend) {
    let mut bound = open(backend, 2);
    let mut client = connect(bound.tcp[0]);
    // The first frame, and half of the second.
    client.write_all(&[framed(&STUN), framed(b"second")[..4].to_vec()].concat()).unwrap();
    // The kernel chose who accepts.
    let (mut received, mut turns) = (Vec::new(), 0);
    let from = loop {
        let index = turns % 2;
        turn(&mut bound.ports[index], &mut received, Duration::from_millis(1));
        if !received.is_empty() {
            break index;
        }
        turns += 1;
        assert!(turns < 5000);
    };
    let path = received[0].0.path;
    // Let the half frame arrive as well.
    turn(&mut bound.ports[from], &mut received, Duration::from_millis(20));
    let connection = bound.ports[from].detach(path).unwrap();
    assert_eq!(connection.path(), path);
    let to = &mut bound.ports[1 - from];
    to.adopt(connection);
    client.write_all(&framed(b"second")[4..]).unwrap();
    assert_eq!(receive(to, 1)[0].1, b"second");
    let mut egress = Egress::default();
    assert!(egress.push(path, b"!"));
    to.send(&mut egress);
    let mut answer = [0; 3];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0\x01!");
    assert_eq!(bound.ports[from].counters().tcp_open, 0);
}

fn sending_to_a_closed_connection_is_counted(backend: Backend) {
    let mut bound = open(backend, 1);
    let mut client = connect(bound.tcp[0]);
    client.write_all(&framed(&STUN)).unwrap();
    let path = receive(&mut bound.ports[0], 1)[0].0.path;
    drop(client);
    turn_until(&mut bound.ports[0], |port| port.counters().tcp_open == 0);
    let mut egress = Egress::default();
    assert!(egress.push(path, b"late"));
    bound.ports[0].send(&mut egress);
    assert_eq!(bound.ports[0].counters().drops(Drop::TcpClosed), 1);
}
