//! Keys that go from SQL over a Redis master to the replica beside each node.

use std::time::Instant;

use reqwest::StatusCode;
use strait_control::auth::{Claims, Secret, Signer, mint};

use crate::redis::Redis;
use crate::{PUBLISH, Service, eventually};

/// Of an operator.
const TOKEN: &str = "an operator's token of 32 characters";

/// What a token that this key signed is answered.
async fn shown(service: &Service, key: &Secret) -> reqwest::Response {
    let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let claims = Claims::new("acme", "alice", "lobby", expires.as_secs() + 600);
    let token = mint(&claims, None, &Signer::Hs256(key)).unwrap();
    reqwest::Client::new()
        .post(service.url("/whip/lobby"))
        .bearer_auth(token)
        .header("content-type", "application/sdp")
        .body(PUBLISH)
        .send()
        .await
        .unwrap()
}

/// Whether it opens a scope.
async fn opens(service: &Service, key: &Secret) -> bool {
    let answer = shown(service, key).await;
    match answer.status() {
        StatusCode::CREATED => true,
        StatusCode::UNAUTHORIZED => false,
        other => panic!("{other}: {}", answer.text().await.unwrap()),
    }
}

async fn until(service: &Service, key: &Secret, wanted: bool) -> f32 {
    let since = Instant::now();
    while opens(service, key).await != wanted {
        assert!(since.elapsed().as_secs() < 15, "not {wanted} in 15 s");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    since.elapsed().as_secs_f32()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_nodes_by_redis_and_outlive_it() {
    let mut master = Redis::start(&[]).await;
    let mut beside = Redis::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]).await;
    // The one has SQL and pushes; the other knows what the replica beside it says, and no more.
    let office =
        Service::start_with(|config| config.keys.master = master.url().as_str().into()).await;
    let replica = format!("redis+unix:{}", beside.socket().display());
    let node = Service::start_with(|config| config.keys.replica = replica.as_str().into()).await;

    let key = office.add_application("acme").await;
    until(&node, &key, true).await;
    let applications = office.server.app.store.applications();
    applications.enable_key("acme", "first", false).await.unwrap();
    let took = until(&node, &key, false).await;
    assert!(took < 5.0, "a revoked key was taken for {took} s");
    applications.enable_key("acme", "first", true).await.unwrap();
    until(&node, &key, true).await;

    // A master that lost everything comes to no state that nodes know already.
    let client = redis::Client::open(master.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    applications.enable_key("acme", "first", false).await.unwrap();
    until(&node, &key, false).await;
    applications.enable_key("acme", "first", true).await.unwrap();
    until(&node, &key, true).await;

    // Master, SQL, and at last the replica itself: what is known goes on to count.
    office.server.stop().await;
    master.kill();
    assert!(opens(&node, &key).await);
    beside.kill();
    let failures = &node.server.app.keys.counters().failed;
    eventually("the replica is missed", || failures.load(std::sync::atomic::Ordering::Relaxed) > 0)
        .await;
    assert!(opens(&node, &key).await);

    // A replica that comes back without its master, and one that has lost everything, lock nobody out.
    beside.start_again().await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(opens(&node, &key).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_sql_and_knows_who_may_come_in() {
    let master = Redis::start(&[]).await;
    let beside = Redis::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]).await;
    let office =
        Service::start_with(|config| config.keys.master = master.url().as_str().into()).await;
    // Bound, and nobody listens: no other test gets it.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let sql = format!("postgres://strait@{}/strait", nobody.local_addr().unwrap());
    let replica = format!("redis+unix:{}", beside.socket().display());
    let since = Instant::now();
    let node = Service::start_with(|config| {
        config.keys.replica = replica.as_str().into();
        config.store.url = sql.as_str().into();
        config.api.tokens = vec![TOKEN.into()];
    })
    .await;
    let took = since.elapsed();
    assert!(took < std::time::Duration::from_secs(4), "clients went elsewhere: {took:?}");
    let key = office.add_application("acme").await;
    // Until it has its copy nobody is let in, and nobody is refused for good.
    let since = Instant::now();
    while shown(&node, &key).await.status() == StatusCode::SERVICE_UNAVAILABLE {
        assert!(since.elapsed().as_secs() < 15, "no copy in 15 s");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    until(&node, &key, true).await;

    let alone = Service::start_with(|config| config.store.url = sql.as_str().into()).await;
    let answer = shown(&alone, &key).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = answer.text().await.unwrap();
    assert!(text.contains("store_failed") || text.contains("the store"), "{text}");
    assert!(!text.contains("postgres") && !text.contains("127.0.0.1"), "{text}");

    let ask = async |path: &str| {
        let client = reqwest::Client::new();
        let answer = client.get(node.url(path)).bearer_auth(TOKEN).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = ask("/readyz").await;
    assert!(status == 200 && text.contains("copy of the keys"), "{status}: {text}");
    let (status, text) = ask("/api/v1/sessions").await;
    assert!(status == 503 && text.contains("does not answer"), "{status}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_form_are_not_touched() {
    let master = Redis::start(&[]).await;
    let client = redis::Client::open(master.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let set: () = redis::cmd("MSET")
        .arg(&["strait:keys:schema", "2", "strait:keys:version", "7"])
        .query_async(&mut connection)
        .await
        .unwrap();
    let () = set;
    let office =
        Service::start_with(|config| config.keys.master = master.url().as_str().into()).await;
    let failures = &office.server.app.keys.counters().push_failed;
    eventually("the form is refused", || failures.load(std::sync::atomic::Ordering::Relaxed) > 0)
        .await;
    let version: String =
        redis::cmd("GET").arg("strait:keys:version").query_async(&mut connection).await.unwrap();
    assert_eq!(version, "7", "nothing was written over it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_store_is_asked_and_then_remembered() {
    let service = Service::start().await;
    let key = service.add_application("acme").await;
    assert!(opens(&service, &key).await);
    let applications = service.server.app.store.applications();
    applications.enable_key("acme", "first", false).await.unwrap();
    assert!(!opens(&service, &key).await, "revoked keys end at once");
    applications.enable_key("acme", "first", true).await.unwrap();
    assert!(opens(&service, &key).await);
    service.server.app.store.close().await;
    assert!(opens(&service, &key).await, "the store is gone");
    let remembered = &service.server.app.keys.counters().remembered;
    assert_eq!(remembered.load(std::sync::atomic::Ordering::Relaxed), 1);
}
