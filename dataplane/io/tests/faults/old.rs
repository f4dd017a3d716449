//! Kernels that lack what newer ones have, and containers that forbid it.

use crate::filter::{refuse, refuse_all};
use crate::{client, heard, open, path, push};
use std::net::IpAddr;
use std::time::Duration;
use strait_core::egress::Egress;
use strait_core::port::Port;
use strait_io::{Backend, Clock};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Waits go on, to the millisecond, and tell of what arrives.
fn without_exact_waits(error: i32) {
    let mut bound = open(Backend::Mmsg, LOOPBACK);
    let client = client(LOOPBACK);
    let port = &mut bound.ports[0];
    // Sockets are readable until they were looked at once.
    port.receive(Clock.instant(), |_, _| {});
    refuse_all(libc::SYS_epoll_pwait2, error);
    let now = Clock.instant();
    let until = now + Duration::from_millis(20);
    port.wait(now, Some(until));
    assert!(Clock.instant() >= until, "nothing is there: it waits, and does not spin");
    client.send_to(b"here", bound.udp[0]).unwrap();
    let now = Clock.instant();
    port.wait(now, Some(now + Duration::from_secs(5)));
    let mut found = Vec::new();
    port.receive(Clock.instant(), |_, bytes| found.push(bytes.to_vec()));
    assert_eq!(found, [b"here"]);
}

/// Linux before 5.11.
#[test]
fn a_kernel_without_exact_waits() {
    without_exact_waits(libc::ENOSYS);
}

/// Filters of older container engines say so of every call that they do not know.
#[test]
fn a_container_that_forbids_exact_waits() {
    without_exact_waits(libc::EPERM);
}

/// Linux before 5.0: a run arrives as the datagrams that it is made of.
#[test]
fn a_kernel_that_takes_no_runs_in_whole() {
    for error in [libc::ENOPROTOOPT, libc::EPERM] {
        let level = libc::SOL_UDP as u32;
        std::thread::spawn(move || {
            refuse(libc::SYS_setsockopt, 1, level..=level, error);
            let mut from = open(Backend::Mmsg, LOOPBACK);
            let listener = client(LOOPBACK);
            let mut to = open(Backend::Mmsg, LOOPBACK);
            let mut egress = Egress::default();
            push(&mut egress, path(LOOPBACK, to.udp[0]), &[500; 10], 1);
            push(&mut egress, path(LOOPBACK, listener.local_addr().unwrap()), &[500; 2], 2);
            from.ports[0].send(&mut egress);
            assert_eq!([heard(&listener), heard(&listener)], [[2; 500]; 2]);
            let mut found = Vec::new();
            let now = Clock.instant();
            to.ports[0].wait(now, Some(now + Duration::from_secs(5)));
            to.ports[0].receive(now, |_, bytes| found.push(bytes.to_vec()));
            assert_eq!(found, [[1; 500]; 10]);
        })
        .join()
        .unwrap();
    }
}

/// What only root may is done as far as everybody may, and said where that is less.
#[test]
fn a_host_that_lets_nobody_force_buffers() {
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        let option = option as u32;
        refuse(libc::SYS_setsockopt, 2, option..=option, libc::EPERM);
    }
    let bound = open(Backend::Mmsg, LOOPBACK);
    for (kind, what) in [("rmem_max", "UDP receive buffers"), ("wmem_max", "UDP send buffers")] {
        let most = std::fs::read_to_string(format!("/proc/sys/net/core/{kind}")).unwrap();
        let is_less =
            most.trim().parse::<usize>().unwrap() < strait_io::limits::SOCKET_BUFFER_BYTES;
        let said = bound.degradations.iter().any(|why| why.contains(what) && why.contains(kind));
        assert_eq!(said, is_less, "{:?}", bound.degradations);
    }
}
