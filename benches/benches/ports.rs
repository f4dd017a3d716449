//! A turn of a port over loopback: packets of 1200 bytes are read, and sent to each of its subscribers. With runs, what
//! goes to one subscriber lies together; without, the same datagrams go out one after the other to different ones.
//!
//! Subscribers take runs whole (UDP_GRO), or the kernel would cut them in the sender's time; what they got is counted
//! outside of what is measured. The ciphers and the path are left out.
#![forbid(unsafe_code)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::net::Ipv4Addr;
use std::time::Duration;
use strait_core::egress::Egress;
use strait_core::port::{Path, Port};
use strait_core::time::Instant;
use strait_io::batch::{Incoming, RECEIVE_MESSAGES, Socket};
use strait_io::{Backend, Clock, Options, Sockets, bind};

const PACKET: [u8; 1200] = [7; 1200];
const FRAME: usize = 10;
/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(5);

fn ports(criterion: &mut Criterion) {
    for (name, backend) in [("mmsg", Backend::Mmsg), ("uring", Backend::Uring)] {
        let mut group = criterion.benchmark_group(format!("ports/{name}"));
        for subscribers in [1, 10, 50] {
            let Some(mut bed) = Bed::new(backend, subscribers) else { continue };
            bed.measure(&mut group, 1, Order::Runs, &format!("packet to {subscribers}"));
            let name = format!("frame of 10 to {subscribers}, runs");
            bed.measure(&mut group, FRAME, Order::Runs, &name);
            if subscribers > 1 {
                let name = format!("frame of 10 to {subscribers}, no runs");
                bed.measure(&mut group, FRAME, Order::Alternating, &name);
            }
        }
        group.finish();
    }
}

/// In which order the datagrams of a turn lie in the egress.
#[derive(Clone, Copy)]
enum Order {
    /// All of one subscriber, then all of the next.
    Runs,
    /// One of each, then the next of each.
    Alternating,
}

/// A port between a publisher and its subscribers.
struct Bed {
    port: Sockets,
    egress: Egress,
    publisher: Socket,
    subscribers: Vec<(Path, Socket)>,
    incoming: Incoming,
}

impl Bed {
    /// `None` where this kernel would fall back to another backend.
    fn new(backend: Backend, subscribers: usize) -> Option<Self> {
        let udp = vec![Ipv4Addr::LOCALHOST.into()];
        let mut bound = bind(&Options { udp, backend, ..Options::default() }).expect("loopback");
        let (port, at) = (bound.ports.remove(0), bound.udp[0]);
        if port.backend() != backend {
            eprintln!("{backend:?} is left out: {}", bound.degradations.join("; "));
            return None;
        }
        let socket = || Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback");
        let publisher = socket();
        publisher.connect(at).expect("loopback");
        let subscribers = (0..subscribers).map(|_| {
            let socket = socket();
            let remote = socket.local_addr().expect("it is bound");
            (Path::udp(at.ip(), remote), socket)
        });
        let subscribers = subscribers.collect();
        let (egress, incoming) = (Egress::default(), Incoming::new());
        Some(Self { port, egress, publisher, subscribers, incoming })
    }

    fn measure(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        packets: usize,
        order: Order,
        name: &str,
    ) {
        group.throughput(Throughput::Elements((packets * self.subscribers.len()) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|turns| (0..turns).map(|_| self.turn(packets, order)).sum());
        });
    }

    /// One turn; how long the port took.
    fn turn(&mut self, packets: usize, order: Order) -> Duration {
        for _ in 0..packets {
            self.publisher.send_one(&PACKET).expect("there is room");
        }
        self.queue(packets, order);
        let start = Clock.instant();
        let mut received = 0;
        while received < packets && !is_late(start) {
            self.port.wait(start, Some(start));
            received += self.port.receive(start, |_, bytes| assert_eq!(bytes.len(), PACKET.len()));
        }
        self.port.send(&mut self.egress);
        let elapsed = Clock.instant().since(start);
        assert_eq!(received, packets, "loopback loses nothing");
        self.drain(packets * self.subscribers.len());
        elapsed
    }

    fn queue(&mut self, packets: usize, order: Order) {
        let mut push = |at: usize| {
            let (path, _) = &self.subscribers[at];
            assert!(self.egress.push(*path, &PACKET), "there is room");
        };
        let count = self.subscribers.len();
        match order {
            Order::Runs => (0..count * packets).for_each(|n| push(n / packets)),
            Order::Alternating => (0..count * packets).for_each(|n| push(n % count)),
        }
    }

    /// Reads what the subscribers got.
    fn drain(&mut self, expected: usize) {
        let start = Clock.instant();
        let mut got = 0;
        while got < expected && !is_late(start) {
            for (_, socket) in &self.subscribers {
                loop {
                    let messages = socket.receive(start, &mut self.incoming);
                    for at in 0..messages {
                        got +=
                            self.incoming.message(at).map_or(0, |(arrival, _)| arrival.datagrams);
                    }
                    if messages < RECEIVE_MESSAGES {
                        break;
                    }
                }
            }
        }
        assert_eq!(got, expected, "every subscriber gets everything");
    }
}

fn is_late(start: Instant) -> bool {
    Clock.instant().since(start) > PATIENCE
}

criterion_group!(benches, ports);
criterion_main!(benches);
