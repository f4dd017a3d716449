//! UDP through real sockets on loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use strait_core::egress::Egress;
use strait_core::port::{LocalPort, Meta, Path, Port, Protocol};
use strait_io::{Backend, BindError, Bound, Clock, Drop, Options, Sockets, batch, bind};

/// Every test, with each backend.
macro_rules! with_each_backend {
    ($($test:ident,)+) => {
        mod mmsg { $(#[test] fn $test() { super::$test(super::Backend::Mmsg); })+ }
        mod uring { $(#[test] fn $test() { super::$test(super::Backend::Uring); })+ }
    };
}

with_each_backend! {
    datagrams_go_both_ways_over_both_families,
    answers_leave_from_the_address_that_was_asked,
    answers_leave_from_the_port_that_was_asked,
    a_datagram_too_long_is_counted_and_the_next_one_arrives,
    what_the_kernel_refuses_is_skipped_and_counted,
    a_batch_is_bounded_and_says_that_there_is_more,
    a_full_socket_does_not_starve_the_other,
    a_wake_up_ends_a_wait_without_end,
    workers_share_a_port_and_a_stranger_does_not,
    addresses_that_cannot_be_listened_on_are_named,
    a_port_for_this_host_alone_hears_every_address_of_it,
    runs_arrive_as_the_datagrams_that_they_are_made_of,
    what_comes_as_a_run_is_taken_datagram_by_datagram,
    more_than_the_buffers_hold_arrives_in_order,
    what_is_sent_is_marked_as_wished_and_told_of_each_datagram,
}

fn open(backend: Backend, udp: &[&str], workers: usize) -> Bound {
    let udp = udp.iter().map(|ip| ip.parse().unwrap()).collect();
    bind(&Options { udp, workers, backend, ..Options::default() }).unwrap()
}

fn client(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Turns until `count` datagrams are there.
fn receive(port: &mut Sockets, count: usize) -> Vec<(Meta, Vec<u8>)> {
    let mut received = Vec::new();
    for _ in 0..1000 {
        let now = Clock.instant();
        port.wait(now, Some(now + Duration::from_secs(5)));
        port.receive(Clock.instant(), |meta, bytes| received.push((meta, bytes.to_vec())));
        if received.len() >= count {
            return received;
        }
    }
    panic!("{} of {count} datagrams came", received.len());
}

fn datagrams_go_both_ways_over_both_families(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1", "::1"], 1);
    let port = &mut bound.ports[0];
    assert_eq!(bound.udp[0].port(), bound.udp[1].port(), "one port number");
    for (client, address) in [client("127.0.0.1"), client("::1")].iter().zip(&bound.udp) {
        let before = Clock.instant();
        client.send_to(b"there", address).unwrap();
        let (meta, bytes) = receive(port, 1).remove(0);
        assert_eq!(bytes, b"there");
        assert_eq!(meta.path.protocol, Protocol::Udp);
        assert_eq!(meta.path.remote, client.local_addr().unwrap());
        assert_eq!(meta.path.local, address.ip());
        assert!(meta.at >= before - Duration::from_millis(5) && meta.at <= Clock.instant());

        let mut egress = Egress::default();
        assert!(egress.push(meta.path, b"and back"));
        port.send(&mut egress);
        assert!(egress.is_empty());
        let mut answer = [0; 64];
        let (length, from) = client.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from), (&b"and back"[..], *address));
    }
    let counters = port.counters();
    assert_eq!((counters.packets_received, counters.packets_sent), (2, 2));
    assert_eq!((counters.bytes_received, counters.bytes_sent), (10, 16));
}

fn answers_leave_from_the_address_that_was_asked(backend: Backend) {
    let mut bound = open(backend, &["0.0.0.0"], 1);
    let client = client("127.0.0.1");
    for asked in ["127.0.0.1", "127.0.0.2", "127.3.2.1"] {
        let asked = SocketAddr::new(asked.parse().unwrap(), bound.udp[0].port());
        client.send_to(b"?", asked).unwrap();
        let (meta, _) = receive(&mut bound.ports[0], 1).remove(0);
        assert_eq!(meta.path.local, asked.ip());
        let mut egress = Egress::default();
        assert!(egress.push(meta.path, b"!"));
        bound.ports[0].send(&mut egress);
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap().1, asked);
    }
}

fn answers_leave_from_the_port_that_was_asked(backend: Backend) {
    let names = [LocalPort::AUDIO, LocalPort::VIDEO, LocalPort::further(0)];
    let options = Options {
        udp: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        further: names.map(|name| (name, 0)).to_vec(),
        workers: 2,
        strangers: true,
        backend,
        ..Options::default()
    };
    let mut bound = bind(&options).unwrap();
    let places: Vec<_> = bound.all_udp().collect();
    let ports: Vec<_> = places.iter().map(|(_, place)| place.port()).collect();
    assert!(ports.chunks(2).all(|pair| pair[0] == pair[1]), "one number on all addresses");
    assert_eq!(places.len(), 2 * (1 + names.len()));
    let clients = [client("127.0.0.1"), client("::1")];
    let mut egress = Egress::default();
    for (name, place) in &places {
        let client = &clients[usize::from(place.is_ipv6())];
        client.send_to(b"?", place).unwrap();
        let heard = bound.ports.iter_mut().find_map(|port| {
            let now = Clock.instant();
            // Which of the two it is brought to is the kernel's choice.
            port.wait(now, Some(now + Duration::from_millis(500)));
            let mut heard = None;
            port.receive(Clock.instant(), |meta, _| heard = Some(meta.path));
            heard
        });
        let path = heard.expect("one of them reads it");
        assert_eq!((path.port, path.local), (*name, place.ip()));
        assert!(egress.push(path, b"!"));
    }
    // All in one turn, by the other worker's sockets too: each from the port that was asked.
    bound.ports[0].send(&mut egress);
    for (_, place) in &places {
        let client = &clients[usize::from(place.is_ipv6())];
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap().1, *place);
    }
    let ambiguous = |further: &[(LocalPort, u16)]| {
        matches!(
            bind(&Options { further: further.to_vec(), ..options.clone() }),
            Err(BindError::Ports)
        )
    };
    assert!(ambiguous(&[(LocalPort::ANY, 0)]) && ambiguous(&[(LocalPort::AUDIO, 0); 2]));
}

fn a_datagram_too_long_is_counted_and_the_next_one_arrives(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1"], 1);
    let client = client("127.0.0.1");
    for size in [2049, 2048, 0] {
        client.send_to(&vec![7; size], bound.udp[0]).unwrap();
    }
    let received = receive(&mut bound.ports[0], 2);
    assert_eq!(received.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [2048, 0]);
    assert_eq!(bound.ports[0].counters().drops(Drop::ReceiveTooBig), 1);
}

fn what_the_kernel_refuses_is_skipped_and_counted(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1"], 1);
    let client = client("127.0.0.1");
    let to = |remote: SocketAddr| Path::udp([127, 0, 0, 1].into(), remote);
    let mut egress = Egress::default();
    let good = to(client.local_addr().unwrap());
    // Broadcast is forbidden without SO_BROADCAST, and this host has no 127.0.0.1 towards the internet.
    let broadcast = to("255.255.255.255:9".parse().unwrap());
    for n in 0..100_u8 {
        assert!(egress.push(good, &[n]));
        assert!(n % 10 != 0 || egress.push(broadcast, &[n]));
    }
    bound.ports[0].send(&mut egress);
    let mut bytes = [0; 8];
    for n in 0..100_u8 {
        assert_eq!(client.recv(&mut bytes).unwrap(), 1);
        assert_eq!(bytes[0], n, "in order");
    }
    let counters = bound.ports[0].counters();
    assert_eq!(counters.packets_sent, 100);
    assert_eq!(Drop::ALL.iter().map(|&reason| counters.drops(reason)).sum::<u64>(), 10);
}

fn a_batch_is_bounded_and_says_that_there_is_more(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1"], 1);
    let client = client("127.0.0.1");
    for n in 0..150_u8 {
        client.send_to(&[n], bound.udp[0]).unwrap();
    }
    let mut sizes = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let now = Clock.instant();
        bound.ports[0].wait(now, Some(now + Duration::from_secs(5)));
        sizes.push(bound.ports[0].receive(now, |_, bytes| seen.extend_from_slice(bytes)));
    }
    assert_eq!(sizes, [64, 64, 22]);
    assert_eq!(seen, (0..150).collect::<Vec<_>>());
}

fn a_full_socket_does_not_starve_the_other(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1", "::1"], 1);
    let (flood, modest) = (client("127.0.0.1"), client("::1"));
    for _ in 0..400 {
        flood.send_to(&[4], bound.udp[0]).unwrap();
    }
    modest.send_to(&[6], bound.udp[1]).unwrap();
    let mut batches = 0;
    let mut found = false;
    while !found {
        batches += 1;
        let now = Clock.instant();
        bound.ports[0].wait(now, Some(now + Duration::from_secs(5)));
        bound.ports[0].receive(now, |_, bytes| found |= bytes == [6]);
    }
    assert!(batches <= 3, "waited for {batches} batches");
}

fn a_wake_up_ends_a_wait_without_end(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1"], 1);
    let waker = bound.ports[0].waker();
    let thread = std::thread::spawn(move || waker.wake());
    bound.ports[0].wait(Clock.instant(), None);
    thread.join().unwrap();
    assert_eq!(bound.ports[0].receive(Clock.instant(), |_, _| {}), 0);
}

fn workers_share_a_port_and_a_stranger_does_not(backend: Backend) {
    let bound = open(backend, &["127.0.0.1"], 3);
    assert_eq!(bound.ports.len(), 3);
    let again = Options {
        udp: vec![[127, 0, 0, 1].into()],
        port: bound.udp[0].port(),
        backend,
        ..Options::default()
    };
    let error = bind(&again).unwrap_err();
    assert!(matches!(error, BindError::Taken { what: "UDP", .. }), "{error}");
    assert!(error.to_string().contains("another program"), "{error}");
}

fn addresses_that_cannot_be_listened_on_are_named(backend: Backend) {
    let options = |ips: &[&str]| Options {
        udp: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        backend,
        ..Options::default()
    };
    assert!(matches!(bind(&options(&["192.0.2.1"])), Err(BindError::NotOurs { .. })));
    assert!(matches!(bind(&options(&[])), Err(BindError::NoAddress)));
    for clash in [["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "0.0.0.0"], ["::", "::1"]] {
        assert!(matches!(bind(&options(&clash)), Err(BindError::Ambiguous)), "{clash:?}");
    }
}

/// Firefox pairs no loopback candidates: it sends from an address of the host to another one, by the loopback device.
fn a_port_for_this_host_alone_hears_every_address_of_it(backend: Backend) {
    let all: Vec<IpAddr> =
        strait_io::interfaces::addresses().into_iter().filter(IpAddr::is_ipv4).take(8).collect();
    assert!(all.contains(&[127, 0, 0, 1].into()));
    let options = Options { udp: all.clone(), backend, this_host_only: true, ..Options::default() };
    let mut bound = bind(&options).unwrap();
    let port = bound.udp[0].port();
    for ip in all {
        let client = UdpSocket::bind((ip, 0)).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        client.send_to(b"from here", (ip, port)).unwrap();
        let now = Clock.instant();
        bound.ports[0].wait(now, Some(now + Duration::from_secs(5)));
        let mut heard = Vec::new();
        bound.ports[0].receive(now, |meta, bytes| heard.push((meta.path, bytes.to_vec())));
        let [(path, bytes)] = heard.as_slice() else { panic!("{ip}: {heard:?}") };
        assert_eq!((path.local, bytes.as_slice()), (ip, b"from here".as_slice()));
        let mut egress = Egress::default();
        assert!(egress.push(*path, b"back"));
        bound.ports[0].send(&mut egress);
        let mut room = [0; 16];
        let (length, from) = client.recv_from(&mut room).unwrap();
        assert_eq!((&room[..length], from), (b"back".as_slice(), (ip, port).into()));
    }
}

fn runs_arrive_as_the_datagrams_that_they_are_made_of(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1"], 1);
    let port = &mut bound.ports[0];
    let clients = [client("127.0.0.1"), client("127.0.0.1")];
    let local = bound.udp[0].ip();
    let path = |client: &UdpSocket| Path::udp(local, client.local_addr().unwrap());
    let mut egress = Egress::default();
    let mut expected = Vec::new();
    for client in &clients {
        // A run of 20 and one shorter, then one of 2, then a single one.
        for (n, length) in (0_u8..).zip([[1000; 20].as_slice(), &[700, 900, 900, 950]].concat()) {
            expected.push(vec![n; length]);
            assert!(egress.push(path(client), &vec![n; length]));
        }
    }
    assert_eq!(egress.runs().count(), 6);
    port.send(&mut egress);
    for client in &clients {
        for expected in expected.drain(..24) {
            let mut got = [0; 2048];
            let length = client.recv(&mut got).unwrap();
            assert_eq!(got[..length], expected);
        }
    }
    let counters = port.counters();
    assert_eq!((counters.packets_sent, counters.send_batches), (48, 1), "one call");
    assert_eq!(counters.bytes_sent, 2 * (20 * 1000 + 700 + 2 * 900 + 950));
    assert_eq!(counters.runs, [2, 2, 0, 0, 2, 0, 0]);
    assert_eq!(counters.runs_refused, 0);
}

fn what_is_sent_is_marked_as_wished_and_told_of_each_datagram(backend: Backend) {
    let ips: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let mut hears = open(backend, &["127.0.0.1", "::1"], 1);
    for ecn in 0..4_u8 {
        let options = Options {
            udp: ips.clone(),
            backend,
            traffic_class: 34 << 2 | ecn,
            ..Options::default()
        };
        let mut sends = bind(&options).unwrap();
        for (&local, &remote) in ips.iter().zip(&hears.udp) {
            let path = Path::udp(local, remote);
            let mut egress = Egress::default();
            // Twenty that leave as one run, and come as one message where the kernel can.
            (0..20).for_each(|n| assert!(egress.push(path, &[n; 900])));
            assert_eq!(egress.runs().count(), 1);
            sends.ports[0].send(&mut egress);
            let received = receive(&mut hears.ports[0], 20);
            assert!(received.iter().all(|(meta, _)| meta.ecn == ecn), "{local} {ecn}");
        }
    }
}

fn what_comes_as_a_run_is_taken_datagram_by_datagram(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1"], 1);
    let port = &mut bound.ports[0];
    let sender = batch::Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let bytes: Vec<u8> = (0..54_321_u32).map(|n| (n % 251) as u8).collect();
    let run = batch::Outgoing { to: Some(bound.udp[0]), bytes: &bytes, segment: 1100 };
    assert_eq!(sender.send(&[run]).unwrap(), 1);
    let received = receive(port, 50);
    let parts: Vec<&[u8]> = received.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(parts, bytes.chunks(1100).collect::<Vec<_>>());
    assert!(received.iter().all(|(meta, _)| Some(meta.path.remote) == sender.local_addr().ok()));
    let counters = port.counters();
    assert_eq!((counters.packets_received, counters.bytes_received), (50, 54_321));
    assert_eq!(counters.receive_batches, 1, "it came as one message");
    // Datagrams that no call of the core could hold are dropped, each of them.
    let run = batch::Outgoing { to: Some(bound.udp[0]), bytes: &bytes[..6000], segment: 3000 };
    sender.send(&[run, batch::Outgoing { segment: 0, bytes: b"x", ..run }]).unwrap();
    assert_eq!(receive(port, 1)[0].1, b"x");
    assert_eq!(port.counters().drops(Drop::ReceiveTooBig), 2);
}

fn more_than_the_buffers_hold_arrives_in_order(backend: Backend) {
    let mut bound = open(backend, &["127.0.0.1"], 1);
    let client = client("127.0.0.1");
    for n in 0..1000_u32 {
        client.send_to(&n.to_be_bytes(), bound.udp[0]).unwrap();
    }
    let received = receive(&mut bound.ports[0], 1000);
    for (n, (_, bytes)) in (0..1000_u32).zip(received) {
        assert_eq!(bytes, n.to_be_bytes());
    }
}
