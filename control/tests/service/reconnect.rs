//! Sessions: how they open, break, and go on.

use serde_json::{Value, json};
use strait_control::auth::{Claims, Signer, mint};
use strait_proto::v1::{self, event::Event};

use crate::socket::Client;
use crate::{PUBLISH, Service, eventually};

fn reconnect(client: &Client, session: &str, received: u64, after: u64, sent: u64) -> Value {
    let _ = client;
    json!({
        "control": {"type": "request", "session_id": session},
        "header": {"action": "CONNECT", "cslr": received, "cslw": after, "csuw": sent},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_needed_and_each_way_to_give_it_works() {
    let service = Service::start().await;
    let connect =
        |header: Value| json!({"control": {"type": "request", "sequence": 1}, "header": header});
    let mut client = Client::open(&service, "");
    client.send(&json!({"control": {"type": "message"}, "header": {"action": "PING"}}));
    assert_eq!(client.read()["header"]["action"], "PONG");
    client.send(&connect(json!({"action": "START"})));
    assert_eq!(client.read()["header"]["error_code"], 409);
    client.send(&json!(["no object"]));
    assert_eq!(client.read()["header"]["error_code"], 400);
    client.send(&connect(json!({"action": "connect"})));
    let refused = client.read();
    assert_eq!(refused["header"]["error_code"], 401, "{refused}");
    assert_eq!(refused["control"]["correlation_id"], "c1");
    assert!(refused["control"].get("sequence").is_none());
    client.send(&connect(json!({"action": "connect", "token": "dev"})));
    let answer = client.read();
    assert_eq!(answer["header"]["action"], "CONNECT");
    assert_eq!(answer["control"]["type"], "response");
    assert_eq!(answer["control"]["sequence"], 1);
    assert_eq!(answer["control"]["ack_sequence"], 1);
    for query in ["?token=dev", "?access_token=dev"] {
        let mut client = Client::open(&service, query);
        client.send(&connect(json!({"action": "CONNECT"})));
        assert_eq!(client.read()["payload"]["application"], "dev");
    }
    let mut client = Client::open(&service, "?token=wrong");
    for _ in 0..8 {
        client.send(&connect(json!({"action": "CONNECT"})));
        assert_eq!(client.read()["header"]["error_code"], 401);
    }
    assert_eq!(client.read_raw(), None, "enough of that");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_kept_and_acknowledged() {
    let service = Service::start().await;
    let mut client = Client::connect(&service, "Alice");
    let (sub, _) = client.start("lobby", json!({})).unwrap();
    // Seen before: dropped. A gap: an error. Malformed: an error, and it counts.
    let frame = |sequence: u64, action: &str| {
        json!({"control": {"type": "message", "sequence": sequence, "subsession_id": sub},
               "header": {"action": action}})
    };
    client.send(&frame(2, "COMPLETE"));
    client.send(&frame(9, "COMPLETE"));
    let gap = client.read();
    assert_eq!(gap["header"]["error_code"], 409);
    assert_eq!(gap["control"]["correlation_id"], "c9");
    assert_eq!(gap["control"]["ack_sequence"], 2);
    client.send(&frame(3, "JUGGLE"));
    let unknown = client.read();
    assert_eq!(unknown["header"]["error_code"], 400);
    assert_eq!(unknown["control"]["ack_sequence"], 3);
    client.sent = 3;
    for _ in 0..16 {
        client.message(&sub, "COMPLETE", json!({}));
    }
    let acknowledgement = client.read();
    assert_eq!(acknowledgement["control"]["type"], "acknowledgement");
    assert_eq!(acknowledgement["control"]["ack_sequence"], 19);
    assert!(acknowledgement["control"].get("sequence").is_none());
    client
        .socket
        .send(tokio_tungstenite::tungstenite::Message::text(" ".repeat(300 << 10)))
        .unwrap();
    assert_eq!(client.read()["header"]["error_code"], 413);
    client.request(&sub, "COMPLETE", json!({})).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_socket_loses_nothing() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    let (a, _) = alice.start("lobby", json!({"sdp": PUBLISH})).unwrap();
    let (session, received, sent) = (alice.session.clone(), alice.received, alice.sent);
    alice.cut();
    // What happens meanwhile waits.
    let mut bob = Client::connect(&service, "Bob");
    let (_, started) = bob.start("lobby", json!({})).unwrap();
    assert_eq!(started["peers"][0]["name"], "Alice", "she is still there");

    let mut alice = Client::open(&service, "?token=dev");
    (alice.sent, alice.received) = (sent, received);
    let frame = reconnect(&alice, &session, received, sent, sent);
    alice.send(&frame);
    let answer = alice.read();
    assert_eq!(answer["control"]["session_id"], session.as_str());
    assert_eq!(answer["header"]["sslr"], sent);
    assert!(answer["control"].get("sequence").is_none());
    assert_eq!(alice.expect_event("joined")["peer"]["name"], "Bob");
    alice.request(&a, "UPDATE", json!({})).unwrap();

    // A second WebSocket takes the session from the first.
    let (received, sent) = (alice.received, alice.sent);
    let mut again = Client::open(&service, "?token=dev");
    (again.sent, again.received) = (sent, received);
    let frame = reconnect(&again, &session, received, sent, sent);
    again.send(&frame);
    assert_eq!(again.read()["control"]["session_id"], session.as_str());
    assert_eq!(alice.read_raw(), None, "the old one is closed");
    again.request(&a, "SHUTDOWN", json!({})).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_that_does_not_fit_starts_afresh() {
    let service = Service::start().await;
    let alice = Client::connect(&service, "Alice");
    let session = alice.session.clone();
    let (received, sent) = (alice.received, alice.sent);
    for (session, received, after, sent) in [
        ("s-unknown", received, sent, sent),
        (&session, received + 5, sent, sent),
        (&session, received, sent + 5, sent + 9),
    ] {
        let mut client = Client::open(&service, "?token=dev");
        let frame = reconnect(&client, session, received, after, sent);
        client.send(&frame);
        let answer = client.read();
        assert_eq!(answer["control"]["type"], "response");
        assert_ne!(answer["control"]["session_id"], session);
        assert!(answer["header"].get("sslr").is_none());
        // Both series begin with the next frame.
        client.sent = 0;
        let (subsession, _) = client.start("lobby", json!({})).unwrap();
        assert_eq!(subsession, "c1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_cannot_take_a_session() {
    let service = Service::start().await;
    let key = service.add_application("acme").await;
    let claims = Claims::new("acme", "eve", "*", 4_000_000_000);
    let token = mint(&claims, None, &Signer::Hs256(&key)).unwrap();
    let alice = Client::connect(&service, "Alice");
    let mut eve = Client::open(&service, &format!("?token={token}"));
    let frame = reconnect(&eve, &alice.session, alice.received, alice.sent, alice.sent);
    eve.send(&frame);
    assert_ne!(eve.read()["control"]["session_id"], alice.session.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_resumes_ends() {
    let service = Service::start_with(|config| config.signal.reconnect_seconds = 0).await;
    let mut alice = Client::connect(&service, "Alice");
    alice.start("lobby", json!({"sdp": PUBLISH})).unwrap();
    let mut bob = Client::connect(&service, "Bob");
    bob.start("lobby", json!({})).unwrap();
    alice.cut();
    bob.expect_event("unpublished");
    bob.expect_event("unpublished");
    assert_eq!(bob.expect_event("left")["reason"], "connection lost");
    eventually("her session is gone", || service.server.app.hub.count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_the_server_tells_everyone() {
    let service = Service::start().await;
    let mut alice = Client::connect(&service, "Alice");
    alice.start("lobby", json!({"sdp": PUBLISH})).unwrap();
    let stop = tokio::spawn(service.server.stop());
    let frame = tokio::task::block_in_place(|| alice.read());
    assert_eq!(frame["header"]["action"], "SHUTDOWN");
    assert_eq!(frame["control"]["type"], "request");
    assert_eq!(frame["payload"]["reason"], "server is ending");
    assert_eq!(frame["payload"]["again"], true, "clients come back after a restart");
    drop(alice);
    stop.await.unwrap();
    eventually("the relay is told", || service.relay.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_frames_leave_no_gap() {
    let service = Service::start().await;
    let mut client = Client::open(&service, "");
    let connect = |token: &str| json!({"action": "CONNECT", "token": token});
    assert_eq!(client.ask(json!({}), connect("wrong"), json!({})).unwrap_err()["error_code"], 401);
    let answer = client.ask(json!({}), connect("dev"), json!({})).unwrap();
    assert_eq!(answer["control"]["ack_sequence"], 2, "the second CONNECT is frame 2");
    let long = json!({"sdp": " ".repeat(300 << 10)});
    assert_eq!(client.start("lobby", long).unwrap_err()["error_code"], 413);
    client.sent += 1;
    let control = json!({"type": "message", "sequence": client.sent});
    client.send(&json!({"control": control, "header": {"action": "PING"}}));
    let (sub, _) = client.start("lobby", json!({})).unwrap();
    let many = vec![json!({"mid": "0", "publication": null}); 300];
    let refused = client.request(&sub, "UPDATE", json!({"subscribe": many})).unwrap_err();
    assert_eq!(refused["error_code"], 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_back_has_a_transport_of_another_name() {
    let service = Service::start().await;
    let mut other = Client::connect(&service, "Bob");
    other.start("lobby", json!({"sdp": PUBLISH})).unwrap();
    let names = || -> Vec<String> { service.relay.scope().1.peers.into_keys().collect() };
    let mut client = Client::connect(&service, "Alice");
    let (sub, _) = client.start("lobby", json!({"sdp": PUBLISH})).unwrap();
    let before = names();
    client.request(&sub, "SHUTDOWN", json!({})).unwrap();
    client.start("lobby", json!({"sdp": PUBLISH})).unwrap();
    let is_old = |name: &String| name.starts_with(&client.peer) && before.contains(name);
    assert!(!names().iter().any(is_old), "late events of the old one would end the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_ends_at_the_relay_also_after_all_lost_their_media() {
    let service = Service::start().await;
    let mut client = Client::connect(&service, "Alice");
    let (sub, _) = client.start("lobby", json!({"sdp": PUBLISH})).unwrap();
    let (scope_id, scope) = service.relay.scope();
    let peer_id = scope.peers.keys().next().unwrap().clone();
    service.relay.emit(Event::PeerLeft(v1::PeerLeft {
        scope_id,
        peer_id,
        reason: v1::peer_left::Reason::Closed.into(),
        ..Default::default()
    }));
    client.expect_event("media-lost");
    service.server.app.scopes.reconcile(|_, _| false);
    client.request(&sub, "SHUTDOWN", json!({})).unwrap();
    eventually("the relay's scope is gone", || service.relay.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let service = Service::start().await;
    let metadata = std::fs::metadata(service.folder.path().join("control.db")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o077, 0);
}
