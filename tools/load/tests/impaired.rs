//! The load over bad lines, against a relay in this process.

use std::time::Duration;

use crate::common::{Setup, plan};
use strait_load::{Impaired, Impairment, Plan, Shape};

#[test]
fn a_bad_line_delays_and_loses_as_it_says() {
    let setup = Setup::start();
    let orders = ["both delay=20ms", "down loss=10%"].map(|order| order.parse().unwrap());
    let impairment = Impairment { orders: orders.into(), seed: 4, shared: false };
    let impaired = Impaired::new(Box::new(setup.rpc()), impairment);
    let shapers = impaired.shapers();
    let shape = Shape::Constant { packets_per_second: 200, bytes: 200, burst: 1 };
    let plan = Plan { publishers: 1, subscribers: 4, shape, allow_loss_percent: 100.0, ..plan() };
    let report = strait_load::run(&plan, Box::new(impaired)).unwrap();
    // Up and down, each with its delay.
    assert!((40_000.0..200_000.0).contains(&report.latency.p50_us), "{:?}", report.latency);
    assert!((5.0..16.0).contains(&report.loss_percent), "{}", report.loss_percent);
    let told = shapers.tell();
    assert_eq!(told.len(), 5, "a line for each peer");
    let lost: u64 = told.iter().map(|line| line.down.0.lost).sum();
    assert!(lost >= report.packets_lost && told.iter().all(|line| line.up.0.lost == 0));
    assert!(told.iter().all(|line| line.up.1.queue_delay(1.0) == Duration::ZERO));
}
