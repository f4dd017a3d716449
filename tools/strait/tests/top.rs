//! `strait top` looks at a relay that carries a load.

use std::process::{Command, Output};
use std::time::Duration;

use strait_load::{Plan, Shape, StraitRpc};
use strait_relay::{Config, Relay};

fn top(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strait")).arg("top").args(arguments).output().unwrap()
}

#[test]
fn a_look_at_a_relay_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay.sock");
    let config = Config {
        rpc_socket: socket.clone(),
        port: 0,
        workers: 1,
        latency_one_in: 10,
        metrics_listen: None,
        ..Config::default()
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let relay = runtime.block_on(Relay::start(&config)).unwrap();
    let plan = Plan {
        publishers: 2,
        subscribers: 3,
        shape: Shape::Opus,
        warmup: Duration::from_millis(500),
        duration: Duration::from_secs(6),
        window: Duration::from_secs(2),
        ..Plan::default()
    };
    let rpc = StraitRpc::connect(&socket).unwrap();
    let load = std::thread::spawn(move || strait_load::run(&plan, Box::new(rpc)));
    let relay_at = socket.to_str().unwrap();

    // It may take some time until media flows; then it does for six seconds.
    let mut frame = serde_json::Value::Null;
    while !load.is_finished() {
        let output = top(&["--once", "--json", "--relay", relay_at]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        frame = serde_json::from_slice(&output.stdout).unwrap();
        if frame["workers"][0]["packets_out_per_second"].as_f64().unwrap() > 200.0 {
            break;
        }
    }
    let text = top(&["--once", "--relay", &format!("unix:{relay_at}")]);
    let report = load.join().unwrap().unwrap();
    assert!(report.is_good(), "{:?}", report.failures);

    // Two microphones of 50 packets a second, for three listeners each.
    let worker = &frame["workers"][0];
    let close = |value: &serde_json::Value, to: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - to).abs() < 0.25 * to, "{value} instead of {to}: {frame}");
    };
    close(&worker["packets_in_per_second"], 100.0);
    close(&worker["packets_out_per_second"], 300.0);
    assert!(worker["cpu_percent"].as_f64().unwrap() > 0.0, "{worker}");
    assert!(worker["run_length_mean"].as_f64().unwrap() >= 1.0, "{worker}");
    assert_eq!((worker["peers"].as_u64(), worker["subscriptions"].as_u64()), (Some(5), Some(6)));
    let list = |name: &str| frame[name].as_array().unwrap();
    assert_eq!((list("scopes").len(), list("peers").len(), list("streams").len()), (1, 5, 8));
    let coming = list("streams").iter().filter(|stream| stream["direction"] == "in");
    assert_eq!(coming.map(|stream| close(&stream["packets_per_second"], 50.0)).count(), 2);

    let latency = list("latency");
    let stages: Vec<_> = latency.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["wait", "read", "admit", "gather", "forward", "send", "total"]);
    let total = latency[6]["mean_us"].as_f64().unwrap();
    let sum: f64 = latency[..6].iter().map(|stage| stage["mean_us"].as_f64().unwrap()).sum();
    assert!(latency[6]["samples"].as_u64() >= Some(3) && (sum - total).abs() < 1.0, "{latency:?}");

    let text = String::from_utf8(text.stdout).unwrap();
    for part in ["strait-relay", "1 worker, 1 scope, 5 peers", "| workers", "| streams"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "plain text where there is no terminal");
    let _inside = runtime.enter();
    drop(relay);
}

#[test]
fn without_a_relay_it_says_so() {
    let output = top(&["--once", "--relay", "/nonexistent/relay.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["/nonexistent/relay.sock", "is it running", "strait dev", "--relay"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
