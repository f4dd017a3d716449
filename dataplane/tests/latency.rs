//! Where the time goes on the way through the relay.

use crate::common::peer::Peer;
use crate::common::{Client, Setup, publish, scope, start_config, subscribe};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_relay::Config;
use strait_relay::config::Io;

const PACKETS: u16 = 60;
const STAGES: [&str; 6] = ["wait", "read", "admit", "gather", "forward", "send"];

/// Samples and their sum in seconds, by stage.
async fn stages(client: &mut Client) -> Option<HashMap<String, (u64, f64)>> {
    let statistics = client.get_statistics(v1::GetStatisticsRequest::default()).await.unwrap();
    let latency = statistics.into_inner().workers.remove(0).latency?;
    assert!(latency.bounds_seconds.is_sorted() && latency.bounds_seconds.len() > 10);
    let stages = latency.stages.into_iter().map(|stage| {
        assert_eq!(stage.counts.len(), latency.bounds_seconds.len() + 1);
        (stage.stage, (stage.counts.iter().sum(), stage.sum_seconds))
    });
    Some(stages.collect())
}

/// Ann speaks to Bob. How long each packet took, from before it was sent until after it was read.
async fn talk(setup: &mut Setup) -> Vec<Duration> {
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::join(client, "room", "bob", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    client.subscribe(subscribe("room", "bob", "ear", "voice")).await.unwrap();
    let talk = move || {
        let each = (1..=PACKETS).map(|seq| {
            let began = Instant::now();
            ann.say(1, seq, b"hello");
            bob.hear(Duration::from_secs(20)).expect("it arrives");
            began.elapsed()
        });
        each.collect()
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_add_up_to_what_a_peer_measures() {
    for (io, gather_us) in [(Io::Mmsg, 250), (Io::Mmsg, 0), (Io::Uring, 250)] {
        let followed = |config| Config { workers: 1, io, gather_us, latency_one_in: 1, ..config };
        let mut setup = start_config(followed).await;
        let measured = talk(&mut setup).await;
        let times = stages(&mut setup.client).await.unwrap();
        // The next comes when the one before has arrived, and so has been sent.
        for stage in STAGES.into_iter().chain(["total"]) {
            assert_eq!(times[stage].0, u64::from(PACKETS), "{stage}: {times:?}");
        }
        let sum: f64 = STAGES.iter().map(|stage| times[*stage].1).sum();
        let total = times["total"].1;
        assert!((sum - total).abs() < 1e-6, "{sum} s in stages of {total} s");
        // All of the relay's time lies within what the peers saw go by.
        let measured: f64 = measured.iter().map(Duration::as_secs_f64).sum();
        assert!(0.0 < total && total <= measured, "{total} s of {measured} s: {times:?}");
        assert!(times["admit"].1 > 0.0 && times["send"].1 > 0.0, "{times:?}");

        let address = setup.relay.metrics_address().unwrap();
        let page = metrics(address).await;
        for stage in STAGES {
            let labels = format!("{{worker=\"0\",stage=\"{stage}\"}} {PACKETS}");
            assert!(page.contains(&format!("relay_stage_latency_seconds_count{labels}")), "{page}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_followed_when_that_is_off() {
    let off = |config| Config { workers: 1, latency_one_in: 0, ..config };
    let mut setup = start_config(off).await;
    talk(&mut setup).await;
    assert_eq!(stages(&mut setup.client).await, None);
    let page = metrics(setup.relay.metrics_address().unwrap()).await;
    assert!(!page.contains("relay_stage_latency_seconds_count"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_in_so_many_is_followed() {
    let some = |config| Config { workers: 1, latency_one_in: 20, ..config };
    let mut setup = start_config(some).await;
    talk(&mut setup).await;
    let (samples, _) = stages(&mut setup.client).await.unwrap()["total"];
    // What sets the call up counts as well, and one of those is tried again soon.
    let most = u64::from(PACKETS) / 20 + 1;
    assert!((1..=most).contains(&samples), "{samples} of {PACKETS}");
}

async fn metrics(address: std::net::SocketAddr) -> String {
    let fetch = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    };
    tokio::task::spawn_blocking(fetch).await.unwrap()
}
