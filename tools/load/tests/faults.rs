//! What a bad network does between a relay and a subscriber is found, kind by kind, and repaired where it is asked for.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{Setup, plan};
use strait_load::signalling::{Joined, PublisherJoin, SubscriberJoin};
use strait_load::{Plan, Report, Signalling, SignallingError, StraitRpc};

/// What happens to every 50th media packet on its way to the subscriber.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Lost,
    Changed,
    Doubled,
    /// Sent after the next one.
    Swapped,
    /// Sent [`DELAY`] later.
    Late,
}

/// What late packets are late by; half of it is allowed, which other work on the machine does not reach.
const DELAY: Duration = Duration::from_millis(600);

/// Media packets between two faults.
const EVERY: u32 = 50;

/// A relay behind a network with a fault.
struct Bad {
    rpc: StraitRpc,
    fault: Fault,
    proxies: Vec<Proxy>,
}

impl Signalling for Bad {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        self.rpc.join_publisher(join)
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        let mut joined = self.rpc.join_subscriber(join)?;
        let proxy = Proxy::start(joined.transport.address, self.fault);
        joined.transport.address = proxy.address;
        self.proxies.push(proxy);
        Ok(joined)
    }

    fn end(&mut self) {
        self.rpc.end();
        self.proxies.clear();
    }
}

/// Stands between one subscriber and the relay.
struct Proxy {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    fn start(relay: SocketAddr, fault: Fault) -> Self {
        let open = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            Arc::new(socket)
        };
        let (inner, outer) = (open(), open());
        outer.connect(relay).unwrap();
        let address = inner.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let up = {
            let (inner, outer, ends) = (inner.clone(), outer.clone(), ends.clone());
            move || {
                let mut bytes = [0; 2048];
                while !ends.load(Ordering::Relaxed) {
                    let Ok((length, from)) = inner.recv_from(&mut bytes) else { continue };
                    // There is one subscriber: from now on it is the only one to be heard.
                    let _ = inner.connect(from);
                    let _ = outer.send(&bytes[..length]);
                }
            }
        };
        let down = {
            let ends = ends.clone();
            move || {
                let (mut bytes, mut count) = ([0; 2048], 0);
                let (mut swapped, mut late) = (None::<Vec<u8>>, VecDeque::new());
                while !ends.load(Ordering::Relaxed) {
                    if late.front().is_some_and(|(at, _): &(Instant, _)| at.elapsed() >= DELAY) {
                        let _ = late
                            .pop_front()
                            .map(|(_, datagram): (_, Vec<u8>)| inner.send(&datagram));
                    }
                    let Ok(length) = outer.recv(&mut bytes) else { continue };
                    let datagram = &mut bytes[..length];
                    let is_media = datagram[0] >> 6 == 2 && !(192..224).contains(&datagram[1]);
                    count += u32::from(is_media);
                    let strikes = is_media && count % EVERY == 0;
                    match fault {
                        Fault::Lost if strikes => continue,
                        Fault::Swapped if strikes => {
                            swapped = Some(datagram.to_vec());
                            continue;
                        }
                        Fault::Late if strikes => {
                            late.push_back((Instant::now(), datagram.to_vec()));
                            continue;
                        }
                        Fault::Changed if strikes => datagram[length / 2] ^= 1,
                        Fault::Doubled if strikes => drop(inner.send(datagram)),
                        _ => {}
                    }
                    let _ = inner.send(datagram);
                    if let Some(first) = swapped.take() {
                        let _ = inner.send(&first);
                    }
                }
            }
        };
        let threads = vec![std::thread::spawn(up), std::thread::spawn(down)];
        Self { address, ends, threads }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(fault: Fault, nack: bool) -> Report {
    let setup = Setup::start();
    let bad = Bad { rpc: setup.rpc(), fault, proxies: Vec::new() };
    let plan = Plan { publishers: 1, subscribers: 2, nack, late: Some(DELAY / 2), ..plan() };
    strait_load::run(&plan, Box::new(bad)).unwrap()
}

/// Faults that strike two streams of `expected` packets in all.
fn about(expected: u64, found: u64) {
    let want = expected as f64 / f64::from(EVERY);
    assert!((found as f64 - want).abs() <= 3.0, "{found} of {want}");
}

#[test]
fn losses_are_counted() {
    let report = run(Fault::Lost, false);
    assert!(!report.is_good());
    about(report.packets_expected, report.packets_lost);
    assert_eq!(report.violations.keys().collect::<Vec<_>>(), ["missing"], "{report:#?}");
    assert_eq!(report.violations["missing"], report.packets_lost);
    assert!(report.frames_broken > 0 && report.frames_broken <= report.packets_lost);
}

#[test]
fn losses_are_repaired_where_it_is_asked_for() {
    let report = run(Fault::Lost, true);
    assert!(report.is_good(), "{:#?}", report.failures);
    assert_eq!(report.packets_lost, 0);
    assert!(report.packets_repaired > 5, "{}", report.packets_repaired);
}

#[test]
fn changed_packets_are_found() {
    let report = run(Fault::Changed, false);
    about(report.packets_expected, report.packets_lost);
    let unreadable = report.violations["unreadable"];
    assert!(unreadable >= report.packets_lost, "{:?}", report.violations);
}

#[test]
fn doubled_packets_are_found() {
    let report = run(Fault::Doubled, false);
    assert!(!report.is_good());
    assert_eq!(report.packets_lost, 0);
    assert_eq!(report.violations.keys().collect::<Vec<_>>(), ["duplicate"], "{report:#?}");
    assert!(report.violations["duplicate"] >= report.packets_expected / u64::from(EVERY) - 3);
}

#[test]
fn packets_out_of_order_are_found() {
    let report = run(Fault::Swapped, false);
    assert!(!report.is_good());
    assert_eq!(report.packets_lost, 0);
    assert_eq!(report.violations.keys().collect::<Vec<_>>(), ["reordered"], "{report:#?}");
    assert!(report.violations["reordered"] >= report.packets_expected / u64::from(EVERY) - 3);
}

#[test]
fn late_packets_are_found() {
    let report = run(Fault::Late, false);
    assert!(!report.is_good());
    // Those that were held at the end may never have come.
    assert!(report.violations["reordered"] >= report.violations["late"], "{report:#?}");
    about(report.packets_expected, report.violations["late"] + report.packets_lost);
    assert!(report.latency.max_us >= 600_000.0, "{}", report.latency.max_us);
}
