//! Errors that no interface here can be brought to give: a filter answers in the kernel's stead. It sees how many runs a
//! call brings, and nothing of them.

use crate::{client, drops, filter, heard, open, path, push};
use std::net::IpAddr;
use strait_core::egress::Egress;
use strait_core::port::Port;
use strait_io::Backend;
use strait_io::Drop;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Calls of sendmmsg that bring from `least` to `most` runs give this error.
fn refuse(error: i32, least: u32, most: u32) {
    filter::refuse(libc::SYS_sendmmsg, 2, least..=most, error);
}

/// Of a batch of ten, the kernel refuses each of the first five.
fn half_of_a_batch(error: i32, reason: Drop) {
    let mut bound = open(Backend::Mmsg, LOOPBACK);
    let clients = [client(LOOPBACK), client(LOOPBACK)];
    let mut egress = Egress::default();
    for n in 0..10_u8 {
        let to = path(LOOPBACK, clients[usize::from(n % 2)].local_addr().unwrap());
        push(&mut egress, to, &[100, 100, 99], n);
    }
    refuse(error, 6, 10);
    bound.ports[0].send(&mut egress);
    for n in 5..10_u8 {
        for length in [100, 100, 99] {
            assert_eq!(heard(&clients[usize::from(n % 2)]), vec![n; length]);
        }
    }
    let counters = bound.ports[0].counters();
    assert_eq!(counters.packets_sent, 15);
    assert_eq!(counters.runs, [0, 5, 0, 0, 0, 0, 0]);
    assert_eq!(drops(&counters), [(reason.name(), 15)]);
}

#[test]
fn no_buffers() {
    half_of_a_batch(libc::ENOBUFS, Drop::SendNoBuffers);
}

#[test]
fn no_memory() {
    half_of_a_batch(libc::ENOMEM, Drop::SendNoBuffers);
}

#[test]
fn a_buffer_that_is_full_for_a_moment() {
    half_of_a_batch(libc::EAGAIN, Drop::SendBufferFull);
}

#[test]
fn an_interface_that_is_down() {
    half_of_a_batch(libc::ENETDOWN, Drop::SendUnreachable);
}

#[test]
fn an_error_without_a_name() {
    half_of_a_batch(libc::EPROTO, Drop::SendFailed);
}

/// IPsec, or an interface without checksums on an older kernel: EIO to each run, and never to a single datagram.
#[test]
fn runs_that_the_kernel_does_not_cut() {
    let mut bound = open(Backend::Mmsg, LOOPBACK);
    let listener = client(LOOPBACK);
    let to = path(LOOPBACK, listener.local_addr().unwrap());
    // A run alone makes a call that brings one; its datagrams one by one make a call that brings five.
    refuse(libc::EIO, 1, 1);
    let mut egress = Egress::default();
    for n in 0..100 {
        push(&mut egress, to, &[1000, 1000, 1000, 1000, 400], n);
        bound.ports[0].send(&mut egress);
        for length in [1000, 1000, 1000, 1000, 400] {
            assert_eq!(heard(&listener), vec![n; length]);
        }
    }
    let counters = bound.ports[0].counters();
    assert_eq!((counters.packets_sent, drops(&counters)), (500, vec![]));
    assert_eq!(counters.runs_refused, 16, "then it is taken as said");
    assert_eq!(counters.send_batches, 100 + 16);
}

/// Where one peer's runs are refused, the others' are sent as before.
#[test]
fn one_peer_whose_runs_the_kernel_does_not_cut() {
    let mut bound = open(Backend::Mmsg, LOOPBACK);
    let listener = client(LOOPBACK);
    let to = path(LOOPBACK, listener.local_addr().unwrap());
    refuse(libc::EIO, 1, 1);
    let mut egress = Egress::default();
    for n in 0..30 {
        // Alone in its call: refused. Two in a call: not.
        push(&mut egress, to, &[500; 3], n);
        bound.ports[0].send(&mut egress);
        push(&mut egress, to, &[600; 3], n);
        egress.begin();
        push(&mut egress, to, &[700; 3], n);
        bound.ports[0].send(&mut egress);
        for length in [500, 600, 700].into_iter().flat_map(|length| [length; 3]) {
            assert_eq!(heard(&listener), vec![n; length]);
        }
    }
    let counters = bound.ports[0].counters();
    assert_eq!(counters.runs, [90, 60, 0, 0, 0, 0, 0]);
    assert_eq!((counters.runs_refused, drops(&counters)), (30, vec![]));
}
