//! The load by native clients against a node in this process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use strait_client::v1::auth::Credential;
use strait_client::v1::user_event;
use strait_client::{Client, Config, Descriptor, Event, Trust};
use strait_load::{LoadError, NativePlan, NativeReport, Plan, Shape, run_native};
use strait_tests::node::Node;

fn plan_for(node: &Node) -> NativePlan {
    NativePlan {
        plan: Plan {
            publishers: 2,
            subscribers: 6,
            scopes: 2,
            shape: Shape::Opus,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(2),
            ..Plan::default()
        },
        descriptor: Descriptor {
            config: Config {
                host: "127.0.0.1".into(),
                port: node.https().port(),
                credential: Credential::Token("dev".into()),
                scope_id: "load".into(),
                name: String::new(),
                client: String::new(),
                profiles: Vec::new(),
                relay_only: true,
                cluster: None,
            },
            trust: Trust::CaFile(node.certificate()),
            proxy: None,
            udp: true,
            quic: None,
        },
        as_sent: false,
        messages_per_second: 20.0,
    }
}

fn assert_good(report: &NativeReport, way: &str) {
    assert!(report.is_good(), "{}", report.table());
    assert_eq!((report.joins, report.streams), (8, 6));
    // Each stream reaches the three subscribers of its scope.
    assert_eq!(report.packets_expected, 3 * report.packets_sent);
    assert_eq!(report.packets_received, report.packets_expected);
    assert!(report.packets_sent >= 150, "{}", report.table());
    assert!(report.messages_sent >= 40, "{}", report.table());
    assert_eq!(report.messages_received, 3 * report.messages_sent);
    assert_eq!(report.ways, [(way.to_owned(), 8)].into());
    assert!(report.latency.p50_us > 0.0 && report.joins_per_second > 0.0);
}

#[test]
fn native_clients_send_sound_and_messages_over_udp() {
    let node = Node::start();
    assert_good(&run_native(&plan_for(&node)).unwrap(), "udp_relay");
}

#[test]
fn native_clients_send_sound_and_messages_without_udp() {
    let node = Node::start();
    let mut plan = plan_for(&node);
    plan.descriptor.udp = false;
    assert_good(&run_native(&plan).unwrap(), "tcp_relay");
}

#[test]
fn native_clients_send_pictures_as_sent_and_rewritten() {
    let node = Node::start();
    for as_sent in [false, true] {
        let mut plan = NativePlan { as_sent, messages_per_second: 0.0, ..plan_for(&node) };
        plan.plan.shape = "constant:100x1000".parse().unwrap();
        let report = run_native(&plan).unwrap();
        assert!(report.is_good(), "{}", report.table());
        assert_eq!(report.packets_received, 3 * report.packets_sent);
    }
}

#[test]
fn who_stops_before_the_count_is_told_so() {
    let node = Node::start();
    let plan = plan_for(&node);
    plan.plan.stop.store(true, Ordering::Relaxed);
    let stopped = run_native(&plan).unwrap_err().to_string();
    assert_eq!(stopped, "stopped before all peers had joined");

    let mut plan = plan_for(&node);
    plan.plan.warmup = Duration::from_secs(600);
    let stop = Arc::clone(&plan.plan.stop);
    // Who hears something knows that all have joined.
    let mut descriptor = plan.descriptor.clone();
    descriptor.config.scope_id += "-0";
    let (to_us, events) = std::sync::mpsc::sync_channel(1024);
    let listener = Client::connect(descriptor, move |event| drop(to_us.try_send(event))).unwrap();
    let run = std::thread::spawn(move || run_native(&plan).unwrap_err().to_string());
    loop {
        match events.recv_timeout(Duration::from_secs(60)).unwrap() {
            Event::Payload(_) => break,
            Event::Scope(user_event::Body::Started(started)) => {
                let publication = started.publication.unwrap().publication_id;
                listener.subscribe(&publication, false).unwrap();
            }
            _ => {}
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(run.join().unwrap(), "stopped before the count began");
}

#[test]
fn who_is_not_let_in_ends_the_run() {
    let node = Node::start();
    let mut plan = plan_for(&node);
    plan.descriptor.config.credential = Credential::Token("wrong".into());
    let error = run_native(&plan).unwrap_err();
    assert!(matches!(error, LoadError::Transport(_)), "{error}");
    assert!(error.to_string().contains("token"), "{error}");
    plan.plan.shape = "simulcast".parse().unwrap();
    assert!(matches!(run_native(&plan).unwrap_err(), LoadError::Plan(_)));
}
