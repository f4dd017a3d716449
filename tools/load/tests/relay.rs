//! The load against a relay in this process, over real sockets.

use std::time::Duration;

use crate::common::{Setup, plan};
use strait_load::signalling::{Joined, PublisherJoin, SecurityKind, SubscriberJoin};
use strait_load::{Plan, Report, Role, Shape, Signalling, SignallingError, StraitRpc};
use strait_proto::v1;

/// Every packet of every stream, checked.
fn assert_good(report: &Report) {
    assert!(report.is_good(), "{:#?}", report.failures);
    assert_eq!(report.packets_received, report.packets_expected);
    assert!(report.violations.is_empty());
    assert_eq!(report.latency.packets, report.packets_received);
    assert!(report.latency.p50_us > 0.0 && report.latency.max_us >= report.latency.p99_us);
    assert_eq!(report.srtp_profile, "AeadAes128Gcm");
    assert!(report.windows.len() == 2, "{:?}", report.windows);
}

#[test]
fn two_cameras_reach_twenty_viewers_whole() {
    let setup = Setup::start();
    let pid = Some(std::process::id());
    let report = setup.run(&Plan { server_pid: pid, ..plan() });
    assert_good(&report);
    assert_eq!(report.streams, 40);
    // 2.5 Mbit/s in packets of up to 1150 bytes, 30 frames per second.
    let per_publisher = report.packets_sent as f64 / 2.0 / report.seconds;
    assert!((250.0..350.0).contains(&per_publisher), "{per_publisher}");
    assert_eq!(report.packets_expected, 20 * report.packets_sent);
    assert_eq!(report.frames_broken, 0);
    assert!(report.frames_whole > 40 * 2 * 28, "{}", report.frames_whole);
    assert!(report.server.is_some_and(|server| server.cpu_ns_per_packet.median > 0.0));
}

#[test]
fn scopes_are_kept_apart() {
    let setup = Setup::start();
    let plan = Plan { publishers: 4, subscribers: 8, scopes: 4, shape: Shape::Opus, ..plan() };
    let report = setup.run(&plan);
    assert_good(&report);
    assert_eq!(report.streams, 8);
    assert_eq!(report.packets_expected, 2 * report.packets_sent);
}

#[test]
fn simulcast_is_followed_through_its_layers() {
    let setup = Setup::start();
    let shape = Shape::Simulcast { key_interval: Duration::from_secs(5) };
    let report = setup.run(&Plan { publishers: 1, subscribers: 3, shape, ..plan() });
    assert_good(&report);
    assert!(report.packets_expected < 3 * report.packets_sent, "one layer of three");
}

#[test]
fn a_constant_rate_is_kept() {
    let setup = Setup::start();
    let shape = "constant-burst:4:400x1000".parse().unwrap();
    let report = setup.run(&Plan { publishers: 1, subscribers: 2, shape, ..plan() });
    assert_good(&report);
    let rate = report.packets_sent as f64 / report.seconds;
    assert!((rate / 400.0 - 1.0).abs() < 0.02, "{rate}");
}

#[test]
fn session_keys_and_plain_rtp_flow_as_sent_and_rewritten() {
    let setup = Setup::start();
    let short = Duration::from_secs(1);
    for security in [SecurityKind::SessionKey, SecurityKind::Plain] {
        for as_sent in [false, true] {
            let plan = Plan { security, subscribers: 4, scopes: 2, duration: short, ..plan() };
            let rpc = Box::new(setup.rpc().as_sent(as_sent));
            let report = strait_load::run(&plan, rpc).unwrap();
            assert!(report.is_good(), "{security:?} {as_sent}: {:#?}", report.failures);
            assert_eq!(report.packets_expected, 2 * report.packets_sent);
            assert_eq!(report.srtp_profile.is_empty(), security == SecurityKind::Plain);
        }
    }
}

#[test]
fn peers_have_the_addresses_that_the_plan_names() {
    let setup = Setup::start();
    for addresses in ["127.0.0.2 127.0.0.3", "::1"] {
        for security in [SecurityKind::Dtls, SecurityKind::Plain] {
            let local_addresses = addresses.split(' ').map(|ip| ip.parse().unwrap()).collect();
            let duration = Duration::from_millis(500);
            let plan = Plan { local_addresses, security, subscribers: 4, duration, ..plan() };
            let report = setup.run(&plan);
            assert!(report.is_good(), "{addresses} {security:?}: {:#?}", report.failures);
            assert_eq!(report.packets_expected, 4 * report.packets_sent);
        }
    }
    // One that this host does not have.
    let plan = Plan { local_addresses: vec!["192.0.2.77".parse().unwrap()], ..plan() };
    let error = strait_load::run(&plan, Box::new(setup.rpc())).err().unwrap();
    assert!(error.to_string().contains("192.0.2.77"), "{error}");
}

#[test]
fn the_relay_may_speak_first() {
    let setup = Setup::start();
    let plan = Plan { subscribers: 4, duration: Duration::from_secs(1), ..plan() };
    let report = strait_load::run(&plan, Box::new(setup.rpc().dtls_role(Role::Server))).unwrap();
    assert!(report.is_good(), "{:#?}", report.failures);
    assert_eq!(report.packets_expected, 4 * report.packets_sent);
    assert!(report.join_seconds < 10.0, "{}", report.join_seconds);
}

#[test]
fn a_run_can_be_stopped() {
    let setup = Setup::start();
    let (warmup, duration) = (Duration::from_millis(200), Duration::from_secs(600));
    let plan = Plan { subscribers: 2, warmup, duration, ..plan() };
    let stop = plan.stop.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let report = setup.run(&plan);
    stopper.join().unwrap();
    assert!(report.is_good(), "{:#?}", report.failures);
    assert!(report.seconds > 0.1 && report.seconds < 5.0, "{}", report.seconds);
}

#[test]
fn runs_can_be_cut_for_the_subscribers() {
    let setup = Setup::start();
    let plan = Plan { receive_runs: false, duration: Duration::from_secs(1), ..plan() };
    let report = setup.run(&plan);
    assert!(report.is_good(), "{:#?}", report.failures);
    assert_eq!(report.receive_run_max, 1);
}

/// A relay that was told to mute one publication.
struct Muting {
    rpc: StraitRpc,
    scope: String,
    publication: String,
}

impl Signalling for Muting {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        self.scope.clone_from(&join.scope);
        self.publication.clone_from(&join.stream.publication);
        self.rpc.join_publisher(join)
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        self.rpc.join_subscriber(join)
    }

    fn connected(&mut self, _: &str) -> Result<(), SignallingError> {
        let (scope_id, publication_id) = (self.scope.clone(), self.publication.clone());
        let request = v1::SetMutedRequest { scope_id, publication_id, muted: true };
        let (runtime, client) = self.rpc.client();
        runtime.block_on(client.set_muted(request)).unwrap();
        Ok(())
    }

    fn end(&mut self) {
        self.rpc.end();
    }
}

#[test]
fn a_muted_publication_is_found_out() {
    let setup = Setup::start();
    let muting = Muting { rpc: setup.rpc(), scope: String::new(), publication: String::new() };
    let plan = Plan { subscribers: 5, ..plan() };
    let report = strait_load::run(&plan, Box::new(muting)).unwrap();
    assert!(!report.is_good());
    assert_eq!(report.violations, [("silent".to_owned(), 5)].into(), "{:?}", report.failures);
    assert!(report.packets_received > 0, "the other one flows");
}

#[test]
fn a_relay_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = StraitRpc::connect(&folder.path().join("nobody.sock")).err().unwrap();
    assert!(error.to_string().contains("nobody.sock"), "{error}");
}

#[test]
fn nothing_is_left_behind() {
    let setup = Setup::start();
    let short = Duration::from_millis(200);
    let plan = Plan { subscribers: 2, warmup: short, duration: short, window: short, ..plan() };
    let _report = setup.run(&plan);
    let mut rpc = setup.rpc();
    let (runtime, client) = rpc.client();
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default());
    let statistics = runtime.block_on(statistics).unwrap().into_inner();
    assert_eq!(statistics.workers.iter().map(|w| w.peers + w.scopes).sum::<u32>(), 0);
}
