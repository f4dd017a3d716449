//! What disturbs receiving.

use crate::host::{FAR, NEAR, Wire, ip};
use crate::{BACKENDS, client, drops, heard, open, path, push, recv};
use std::io::ErrorKind;
use std::time::Duration;
use strait_core::egress::Egress;
use strait_core::port::Port;
use strait_io::{Backend, Clock, Drop, Sockets};

/// All that is there or comes within a moment, until `enough`.
fn receive(port: &mut Sockets, enough: usize) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    for _ in 0..10_000 {
        if received.len() >= enough {
            break;
        }
        let now = Clock.instant();
        port.wait(now, Some(now + Duration::from_secs(1)));
        port.receive(Clock.instant(), |_, bytes| received.push(bytes.to_vec()));
    }
    received
}

/// The ICMP errors that a peer's closed port answers with neither end receiving nor spoil the next send.
#[test]
fn a_port_that_nobody_listens_on_disturbs_nobody() {
    BACKENDS.into_iter().for_each(a_port_that_nobody_listens_on_disturbs_nobody_with);
}

fn a_port_that_nobody_listens_on_disturbs_nobody_with(backend: Backend) {
    let Some(wire) = Wire::new("a port that nobody listens on") else { return };
    for (near, far) in NEAR.into_iter().zip(FAR) {
        let mut bound = wire.near.run(|| open(backend, ip(near)));
        let (listener, gone) = wire.far.run(|| (client(ip(far)), client(ip(far))));
        let (good, bad) = (listener.local_addr().unwrap(), gone.local_addr().unwrap());
        std::mem::drop(gone);
        let mut egress = Egress::default();
        push(&mut egress, path(ip(near), bad), &[6], 1);
        push(&mut egress, path(ip(near), bad), &[100; 5], 2);
        bound.ports[0].send(&mut egress);
        // Who is connected is told; by then so would we have been.
        let told = wire.near.run(|| client(ip(near)));
        told.connect(bad).unwrap();
        told.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // The host answers only some of them: it limits the rate of such answers.
        let is_told = (0..10).any(|_| {
            let answer = told.send(b"anybody?").and_then(|_| recv(&told, &mut [0; 8]));
            answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        assert!(is_told, "nobody is told");

        listener.send_to(b"here", bound.udp[0]).unwrap();
        assert_eq!(receive(&mut bound.ports[0], 1), [b"here"]);
        push(&mut egress, path(ip(near), good), &[5], 3);
        push(&mut egress, path(ip(near), bad), &[5], 4);
        bound.ports[0].send(&mut egress);
        assert_eq!(heard(&listener), [3; 5]);
        assert_eq!(drops(&bound.ports[0].counters()), [], "sent, and nobody there");
    }
}

#[test]
fn what_a_full_receive_buffer_loses_is_counted() {
    BACKENDS.into_iter().for_each(what_a_full_receive_buffer_loses_is_counted_with);
}

fn what_a_full_receive_buffer_loses_is_counted_with(backend: Backend) {
    const SENT: usize = 30_000;
    let mut bound = open(backend, [127, 0, 0, 1].into());
    let client = client([127, 0, 0, 1].into());
    for _ in 0..SENT {
        client.send_to(&[1; 1000], bound.udp[0]).unwrap();
    }
    // The kernel tells with the first datagram that it keeps after a loss: this one, once there is room.
    let mut kept = receive(&mut bound.ports[0], 1).len();
    client.send_to(b"last", bound.udp[0]).unwrap();
    let mut last = false;
    while !last {
        let more = receive(&mut bound.ports[0], 1);
        assert!(!more.is_empty(), "{kept} came, and the last did not");
        kept += more.len();
        last = more.iter().any(|bytes| bytes == b"last");
    }
    let lost = bound.ports[0].counters().drops(Drop::ReceiveOverflow);
    assert!(lost > 0, "the buffer held all {SENT}");
    assert_eq!(kept as u64 + lost, SENT as u64 + 1, "each is received or counted");
}
