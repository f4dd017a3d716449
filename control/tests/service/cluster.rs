//! Which node a scope is on, over HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strait_control::cluster::Cluster;
use strait_control::cluster::directory::{Local, Mappings as _};
use strait_control::cluster::health::{Health, Probe};
use strait_control::cluster::node::Node;
use strait_control::cluster::table::{Ask, Found};
use strait_control::scope::ScopeKey;
use strait_link::v1::{ErrorCode, client_message::Body as Request, server_message::Body};
use tokio_tungstenite::tungstenite;

use crate::log::Log;
use crate::native::auth;
use crate::redis::{Redis, replica_of};
use crate::socket::Client;
use crate::{PUBLISH, Service, eventually};

/// A node of a cluster whose registry is `local`.
async fn node(local: &Arc<Local>, name: &str) -> Service {
    Service::start_in(
        |config| {
            config.cluster.name = name.into();
            config.http.https_listen = vec!["127.0.0.1:0".parse().unwrap()];
        },
        |config| {
            let local = Arc::clone(local);
            Cluster::on(config.clone(), Arc::clone(&local) as _, local, Health::default()).unwrap()
        },
    )
    .await
}

fn whip(service: &Service, path: &str) -> reqwest::RequestBuilder {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let request = client.build().unwrap().post(service.url(path)).bearer_auth("dev");
    request.header("content-type", "application/sdp").body(PUBLISH)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_client_is_sent_to_the_node_of_its_scope() {
    let local = Arc::new(Local::default());
    let (a, b) = (node(&local, "a").await, node(&local, "b").await);
    let (_ann, _) = a.join("lobby", "Ann");
    let port = a.server.https[0].port();
    let there = format!("localhost:{port}");
    for path in ["/whip/lobby?name=x%20y", "/whep/lobby"] {
        let answer = whip(&b, path).send().await.unwrap();
        assert_eq!(answer.status(), 307, "{path}");
        assert_eq!(answer.headers()["location"], format!("https://{there}{path}"));
    }
    let answer = whip(&b, "/whip/other").send().await.unwrap();
    assert_eq!(answer.status(), 201, "nobody has that one");
    // A WebSocket by its address, or when it names the scope.
    let url = format!("ws://{}/ws?applicationId=dev&scopeId=lobby", b.address());
    let stream = std::net::TcpStream::connect(b.address()).unwrap();
    match tungstenite::client(&url, stream) {
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            assert_eq!(answer.status(), 307);
            let location = answer.headers()["location"].to_str().unwrap();
            assert_eq!(location, format!("wss://{there}/ws?applicationId=dev&scopeId=lobby"));
        }
        other => panic!("{other:?}"),
    }
    let mut web = Client::open(&b, "?access_token=dev&applicationId=dev&scopeId=nobodys");
    let header = json!({"action": "CONNECT", "initiator": "Web"});
    web.ask(json!({}), header, json!({})).unwrap();
    let refused = web.start("lobby", json!({})).unwrap_err();
    assert_eq!(refused["error_code"], 307);
    assert_eq!(refused["location"], format!("https://{there}"));
    assert!(web.start("nobodys", json!({})).is_ok());
    // A native client.
    let mut link = b.link();
    match link.ask(Request::Auth(auth("lobby", "Bob"))).unwrap() {
        Body::Redirect(node) => assert_eq!((&*node.host, node.port), ("localhost", port.into())),
        other => panic!("{other:?}"),
    }
    assert_eq!(link.next(), None, "the node closes");
    // And where the scope is comes out the same at both.
    let query = "applicationId=dev&scopeId=lobby";
    for service in [&a, &b] {
        assert_eq!(resolve(service, query, None).await.text().await.unwrap(), there);
    }
    assert_eq!(b.metric("control_cluster_redirects_total").await, Some(5));
    b.server.stop().await;
    a.server.stop().await;
}

/// Nobody answers.
struct Nobody;

impl Probe for Nobody {
    fn attempt(&self, _: Node) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(std::future::ready(false))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_of_an_application_that_was_removed_are_nowhere() {
    let local = Arc::new(Local::default());
    let service = node(&local, "a").await;
    service.add_application("acme").await;
    let query = "applicationId=acme&scopeId=lobby";
    assert_eq!(resolve(&service, query, None).await.status(), 200);
    let scope = ScopeKey { application: "acme".into(), scope: "lobby".into() };
    let quiet = || Ask { is_quiet: true, ..Ask::default() };
    assert_ne!(local.locate(&scope, quiet()).await.unwrap(), Found::Free);
    service.server.app.store.applications().remove("acme").await.unwrap();
    let since = Instant::now();
    while resolve(&service, query, None).await.status() != 404 {
        assert!(since.elapsed().as_secs() < 30, "it is still found");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(local.locate(&scope, quiet()).await.unwrap(), Found::Free, "given back");
}

/// A node that has a copy of the keys knows it without asking, however lately it told where the scope is.
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_of_an_application_that_the_replica_lacks_is_found_no_longer() {
    let master = Redis::start(&[]).await;
    let beside = replica_of(&master).await;
    let office =
        Service::start_with(|config| config.keys.master = master.url().as_str().into()).await;
    let local = Arc::new(Local::default());
    let replica = format!("redis+unix:{}", beside.socket().display());
    let node = Service::start_in(
        |config| config.keys.replica = replica.as_str().into(),
        |config| {
            let local = Arc::clone(&local);
            Cluster::on(config.clone(), Arc::clone(&local) as _, local, Health::default()).unwrap()
        },
    )
    .await;
    let query = "applicationId=acme&scopeId=lobby";
    office.add_application("acme").await;
    let since = Instant::now();
    while resolve(&node, query, None).await.status() != 200 {
        assert!(since.elapsed().as_secs() < 30, "it does not come by the replica");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    office.server.app.store.applications().remove("acme").await.unwrap();
    let (keys, cluster) = (&node.server.app.keys, &node.server.app.cluster);
    eventually("the replica says so", || keys.lack("acme")).await;
    let scope = ScopeKey { application: "acme".into(), scope: "lobby".into() };
    cluster.resolve(&scope, [127, 0, 0, 1].into(), None, None).await.unwrap();
    assert!(cluster.known(&scope).is_some(), "of a moment ago");
    assert_eq!(resolve(&node, query, None).await.status(), 404);
    let quiet = Ask { is_quiet: true, ..Ask::default() };
    assert_eq!(local.locate(&scope, quiet).await.unwrap(), Found::Free, "given back");
}

/// Somebody else's data is under Strait's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_ours_alone_is_told_of_now_and_then() {
    let redis = Redis::start(&[]).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut set = redis::cmd("SET");
    set.arg("{strait}:mappings").arg("theirs").exec_async(&mut connection).await.unwrap();
    let url = redis.url();
    let service =
        Service::start_with(|config| config.cluster.mappings = vec![url.as_str().into()]).await;
    let query = "applicationId=dev&scopeId=lobby";
    let since = Instant::now();
    while service.metric("control_cluster_partition_failures_total").await < Some(10) {
        assert_eq!(resolve(&service, query, None).await.status(), 503);
        assert!(since.elapsed().as_secs() < 60);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let text = Log::of_strait().text();
    let said = text.matches("does not do its work: ").count();
    assert!((1..=4).contains(&said) && text.contains("database of its own"), "{said}");
    assert_eq!(text.matches("partition 0 is at").count(), 1, "one connection");
    redis::cmd("DEL").arg("{strait}:mappings").exec_async(&mut connection).await.unwrap();
    while resolve(&service, query, None).await.status() != 200 {
        assert!(since.elapsed().as_secs() < 60);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_scope_was_given_away_sends_its_clients_there() {
    let local = Arc::new(Local::default());
    let a = node(&local, "a").await;
    let b = node(&local, "b").await;
    let (mut ann, _) = a.join("lobby", "Ann");
    let mut bob = Client::connect(&a, "Bob");
    bob.start("lobby", json!({})).unwrap();
    // A CnC that does not reach the node takes it for dead.
    let cluster = Arc::clone(&local);
    let config = strait_control::config::cluster::Cluster {
        roles: vec![strait_control::config::cluster::Role::Cnc],
        ..Default::default()
    };
    let health = Health::by(Box::new(Nobody));
    let cnc = Cluster::on(config, Arc::clone(&cluster) as _, cluster, health).unwrap();
    cnc.listens(&Default::default()).await.unwrap();
    let lobby = ScopeKey { application: "dev".into(), scope: "lobby".into() };
    let address = [192, 0, 2, 1].into();
    let reported = format!("localhost:{}", a.server.https[0].port());
    let node = cnc.resolve(&lobby, address, None, Some(&reported)).await.unwrap();
    assert_eq!(node.name, "b");
    // It hears of it when it says next what it holds.
    let ended = loop {
        match ann.next() {
            Some(Body::Error(error)) => break error,
            Some(_) => {}
            None => panic!("no word"),
        }
    };
    assert_eq!(ended.code(), ErrorCode::Unavailable);
    assert!(ended.reason.contains("another node"), "{}", ended.reason);
    loop {
        let frame = bob.read();
        if frame["header"]["action"] == "SHUTDOWN" {
            assert_eq!(frame["payload"]["again"], true);
            break;
        }
    }
    assert_eq!(bob.start("lobby", json!({})).unwrap_err()["error_code"], 307);
    let (_ann, joined) = b.join("lobby", "Ann");
    assert!(joined.peers.is_empty());
    assert_eq!(a.metric("control_cluster_superseded_total").await, Some(1));
    crate::eventually("nothing is left of it", || a.server.app.cluster.held() == 0).await;
    b.server.stop().await;
    a.server.stop().await;
}

async fn resolve(service: &Service, query: &str, accept: Option<&str>) -> reqwest::Response {
    let request = reqwest::Client::new().get(service.url(&format!("/resolve?{query}")));
    let request = match accept {
        Some(accept) => request.header("accept", accept),
        None => request,
    };
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_alone_answers_with_itself() {
    let service = Service::start().await;
    let here = service.address().to_string();
    let lobby = "applicationId=dev&scopeId=lobby";
    for accept in [None, Some("*/*"), Some("text/plain")] {
        let answer = resolve(&service, lobby, accept).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert_eq!(answer.text().await.unwrap(), here);
    }
    let answer = resolve(&service, lobby, Some("application/json")).await.text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["endpoint"], here);
    assert_eq!(answer["https"], format!("http://{here}"));
    assert_eq!(answer["link"], here);
    assert_eq!(answer["name"], "alone");
    // A report of itself is looked into, and found wrong; one of anybody else is not.
    for reported in [here.as_str(), "169.254.169.254:80"] {
        let query = format!("{lobby}&reconnect=true&streamerEndpoint={reported}");
        assert_eq!(resolve(&service, &query, None).await.text().await.unwrap(), here);
    }
    let metrics = reqwest::get(service.url("/metrics")).await.unwrap().text().await.unwrap();
    for line in [
        "control_cluster_reports_unknown_total 1",
        "control_cluster_nodes{state=\"ready\"} 1",
        "control_cluster_partitions_up 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    service.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_question_has_its_answer() {
    let service = Service::start_with(|config| config.cluster.resolves_per_second = 4).await;
    for (query, status, word) in [
        ("scopeId=a", 400, "applicationId"),
        ("applicationId=dev", 400, "scopeId"),
        ("applicationId=dev&scopeId=", 400, "scopeId"),
        ("applicationId=dev&scopeId=a%0Ab", 400, "control characters"),
        ("applicationId=nobody&scopeId=a", 404, "nobody"),
    ] {
        let answer = resolve(&service, query, None).await;
        assert_eq!(answer.status(), status, "{query}");
        let text = answer.text().await.unwrap();
        assert!(text.contains(word), "{query}: {text}");
    }
    service.add_application("acme").await;
    assert_eq!(resolve(&service, "applicationId=acme&scopeId=a", None).await.status(), 200);
    let mut last = 200;
    for _ in 0..100 {
        let answer = resolve(&service, "applicationId=acme&scopeId=a", None).await;
        last = answer.status().as_u16();
        if last == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            break;
        }
    }
    assert_eq!(last, 429);
    service.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_a_node_is_known_by_its_incarnation() {
    let service = Service::start().await;
    let livez = async |query: &str| {
        let answer = reqwest::get(service.url(&format!("/livez{query}"))).await.unwrap();
        answer.status().as_u16()
    };
    let incarnation = service.server.app.cluster.me().incarnation.clone();
    assert_eq!(livez("").await, 200);
    assert_eq!(livez(&format!("?incarnation={incarnation}")).await, 200);
    assert_eq!(livez("?incarnation=0123").await, 409);
    service.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_role_nobody_is_told() {
    use strait_control::config::cluster::Role;
    let service =
        Service::start_with(|config| config.cluster.roles = vec![Role::Node, Role::Agent]).await;
    let answer = resolve(&service, "applicationId=dev&scopeId=lobby", None).await;
    assert_eq!(answer.status(), 404);
    assert!(answer.text().await.unwrap().contains("cluster.roles"));
    service.server.stop().await;
}
