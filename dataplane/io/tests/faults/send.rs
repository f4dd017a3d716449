//! Destinations, interfaces and buffers that take nothing.

use crate::host::{FAR, NEAR, Wire, ip};
use crate::{BACKENDS, client, drops, heard, introduce, open, path, push};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use strait_core::egress::Egress;
use strait_core::port::Port;
use strait_io::{Backend, Drop};

/// What the host does not send to, how it is told so, and as what it is counted. The routes are to `{}`'s next address.
const REFUSALS: [(&str, &str, Drop); 4] = [
    // EPERM, as from a firewall's output rule: iptables and nft are not everywhere, this needs the kernel alone.
    (
        "ip xfrm policy add src {any} dst {net}3/{all} dir out action block",
        "3",
        Drop::SendForbidden,
    ),
    // EACCES, EHOSTUNREACH and EINVAL.
    ("ip route add prohibit {net}4/{all}", "4", Drop::SendForbidden),
    ("ip route add unreachable {net}5/{all}", "5", Drop::SendUnreachable),
    ("ip route add blackhole {net}6/{all}", "6", Drop::SendFailed),
];

/// How often each is tried; what arrives waits in one default receive buffer.
const ROUNDS: u8 = 5;

fn a_destination_that_is_refused_stops_no_other(backend: Backend, family: usize) {
    let test = "a destination that is refused";
    let Some(wire) = Wire::new(test) else { return };
    let [any, net, all] = [["0.0.0.0/0", "10.77.0.", "32"], ["::/0", "fd77::", "128"]][family];
    for (command, ..) in REFUSALS {
        let command = command.replace("{any}", any).replace("{net}", net).replace("{all}", all);
        wire.near.command(&command).unwrap();
    }
    let mut bound = wire.near.run(|| open(backend, ip(NEAR[family])));
    let listener = wire.far.run(|| client(ip(FAR[family])));
    introduce(&wire.near.run(|| client(ip(NEAR[family]))), &listener);
    let to = |remote| path(ip(NEAR[family]), remote);
    let good = to(listener.local_addr().unwrap());
    let mut egress = Egress::default();
    for n in 0..ROUNDS {
        push(&mut egress, good, &[100], n);
        for (_, host, _) in REFUSALS {
            // A single one and a run of three, and between them one and two for somebody who is there.
            let bad = to(SocketAddr::new(ip(&format!("{net}{host}")), 9));
            push(&mut egress, bad, &[10], n);
            push(&mut egress, good, &[200], n);
            push(&mut egress, bad, &[50, 50, 40], n);
            push(&mut egress, good, &[300, 250], n);
        }
        // No route at all.
        let nowhere = ["192.0.2.1:9", "[2001:db8::1]:9"][family].parse().unwrap();
        push(&mut egress, to(nowhere), &[1], n);
    }
    bound.ports[0].send(&mut egress);
    for n in 0..ROUNDS {
        assert_eq!(heard(&listener), [n; 100]);
        for _ in REFUSALS {
            for length in [200, 300, 250] {
                assert_eq!(heard(&listener), vec![n; length]);
            }
        }
    }
    let counters = bound.ports[0].counters();
    assert_eq!(counters.packets_sent, u64::from(ROUNDS) * 13);
    assert_eq!(
        counters.runs_refused,
        u64::from(ROUNDS),
        "EINVAL may mean the cut: only those are tried one by one"
    );
    let expected = [
        (Drop::SendForbidden.name(), u64::from(ROUNDS) * 2 * 4),
        (Drop::SendUnreachable.name(), u64::from(ROUNDS) * (4 + 1)),
        (Drop::SendFailed.name(), u64::from(ROUNDS) * 4),
    ];
    assert_eq!(drops(&counters), expected);
}

#[test]
fn a_destination_that_is_refused_stops_no_other_over_ipv4() {
    BACKENDS
        .into_iter()
        .for_each(|backend| a_destination_that_is_refused_stops_no_other(backend, 0));
}

#[test]
fn a_destination_that_is_refused_stops_no_other_over_ipv6() {
    BACKENDS
        .into_iter()
        .for_each(|backend| a_destination_that_is_refused_stops_no_other(backend, 1));
}

fn what_fits_the_interface_leaves_one_by_one(backend: Backend, family: usize) {
    let Some(wire) = Wire::new("an MTU below a run's size") else { return };
    wire.near.command("ip link set wire mtu 1300").unwrap();
    let mut bound = wire.near.run(|| open(backend, ip(NEAR[family])));
    let listener = wire.far.run(|| client(ip(FAR[family])));
    introduce(&wire.near.run(|| client(ip(NEAR[family]))), &listener);
    let good = path(ip(NEAR[family]), listener.local_addr().unwrap());
    let mut egress = Egress::default();
    push(&mut egress, good, &[1350, 1350, 1350, 200], 4);
    // And with the next run all is as ever.
    egress.begin();
    push(&mut egress, good, &[1000; 8], 5);
    bound.ports[0].send(&mut egress);
    let mut got: Vec<_> = (0..9).map(|_| heard(&listener)).collect();
    if backend == Backend::Uring {
        // Its batch is one submission: what follows a refused run overtakes it.
        got.sort();
    }
    assert_eq!(got[0], [4; 200]);
    assert!(got[1..].iter().all(|datagram| *datagram == [5; 1000]));
    let counters = bound.ports[0].counters();
    assert_eq!(counters.runs_refused, 1);
    assert_eq!(counters.runs, [1, 0, 0, 1, 0, 0, 0], "one alone, and eight together");
    assert_eq!(drops(&counters), [(Drop::SendTooBig.name(), 3)]);
}

#[test]
fn what_fits_the_interface_leaves_one_by_one_over_ipv4() {
    BACKENDS.into_iter().for_each(|backend| what_fits_the_interface_leaves_one_by_one(backend, 0));
}

#[test]
fn what_fits_the_interface_leaves_one_by_one_over_ipv6() {
    BACKENDS.into_iter().for_each(|backend| what_fits_the_interface_leaves_one_by_one(backend, 1));
}

/// Sends more than the socket's buffer holds. How many datagrams that are.
fn fill(port: &mut impl Port, listener: &UdpSocket) -> usize {
    let good = path(ip(NEAR[0]), listener.local_addr().unwrap());
    let mut egress = Egress::default();
    let mut pushed = 0;
    for _ in 0..400 {
        push(&mut egress, good, &[1000; 40], 7);
        pushed += 40;
        port.send(&mut egress);
    }
    pushed
}

#[test]
fn a_full_send_buffer_is_counted_and_empties_again() {
    BACKENDS.into_iter().for_each(a_full_send_buffer_is_counted_and_empties_again_with);
}

fn a_full_send_buffer_is_counted_and_empties_again_with(backend: Backend) {
    let Some(wire) = Wire::new("a full send buffer") else { return };
    // A link so slow that nothing leaves it, with a queue longer than the socket's buffer.
    wire.near.command("tc qdisc add dev wire root tbf rate 8kbit burst 2kb limit 64mb").unwrap();
    let mut bound = wire.near.run(|| open(backend, ip(NEAR[0])));
    let listener = wire.far.run(|| client(ip(FAR[0])));
    introduce(&wire.near.run(|| client(ip(NEAR[0]))), &listener);
    let pushed = fill(&mut bound.ports[0], &listener) as u64;
    let counters = bound.ports[0].counters();
    let full = counters.drops(Drop::SendBufferFull);
    assert!(full > 0, "{counters:?}");
    assert_eq!(counters.packets_sent + full, pushed, "each is sent or counted");
    assert_eq!(drops(&counters), [(Drop::SendBufferFull.name(), full)]);
    assert_eq!(counters.runs_refused, 0, "one by one it would not fit either");
    // The link is fast again: the queue is gone, and what is sent next arrives.
    wire.near.command("tc qdisc del dev wire root").unwrap();
    let good = path(ip(NEAR[0]), listener.local_addr().unwrap());
    let mut egress = Egress::default();
    push(&mut egress, good, &[500; 10], 9);
    bound.ports[0].send(&mut egress);
    let mut nines = 0;
    while nines < 10 {
        nines += usize::from(heard(&listener) == [9; 500]);
    }
    assert_eq!(bound.ports[0].counters().drops(Drop::SendBufferFull), full);
}

/// Linux tells UDP senders of a full device queue only with IP_RECVERR, which would also make one peer's ICMP errors
/// the next send's: we do without, and the page of drop reasons says where to look.
#[test]
fn a_full_device_queue_is_not_told_of() {
    BACKENDS.into_iter().for_each(a_full_device_queue_is_not_told_of_with);
}

fn a_full_device_queue_is_not_told_of_with(backend: Backend) {
    let Some(wire) = Wire::new("a full device queue") else { return };
    wire.near.command("tc qdisc add dev wire root tbf rate 8kbit burst 2kb limit 10kb").unwrap();
    let mut bound = wire.near.run(|| open(backend, ip(NEAR[0])));
    let listener = wire.far.run(|| client(ip(FAR[0])));
    introduce(&wire.near.run(|| client(ip(NEAR[0]))), &listener);
    let pushed = fill(&mut bound.ports[0], &listener) as u64;
    let counters = bound.ports[0].counters();
    assert_eq!((counters.packets_sent, drops(&counters)), (pushed, vec![]));
    listener.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut arrived = 0;
    while listener.recv(&mut [0; 2048]).is_ok() {
        arrived += 1;
    }
    assert!(arrived < 100, "{arrived}");
}
