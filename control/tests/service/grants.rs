//! Who comes back with another credential does so with its grants.

use reqwest::{Client as Http, StatusCode};
use serde_json::{Value, json};
use strait_control::auth::{Claims, Secret, Signer, mint};
use strait_link::v1::{
    Auth, Error, ErrorCode, Kind, SendMessage, auth::Credential, client_message::Body as Request,
    server_message::Body, user_event::Body as Event,
};

use crate::link::publish;
use crate::native::{Native, auth};
use crate::socket::Client;
use crate::{PUBLISH, Service};

/// A token of Ann's with these grants.
fn token(key: &Secret, publish: bool, message: bool) -> String {
    let claims = Claims::new("acme", "ann", "lobby", 4_000_000_000);
    mint(&Claims { publish, message, ..claims }, Some("first"), &Signer::Hs256(key)).unwrap()
}

fn shown(token: String, session_id: &str) -> Auth {
    let session_id = session_id.to_owned();
    Auth { credential: Some(Credential::Token(token)), session_id, ..auth("lobby", "Ann") }
}

fn publishes(link: &mut Native) -> Result<Body, Error> {
    link.ask(Request::Publish(publish(Kind::Audio, "opus")))
}

fn says(link: &mut Native, number: u64) -> Result<Body, Error> {
    link.ask(Request::SendMessage(SendMessage { number, payload: vec![1], ..Default::default() }))
}

fn code(answer: Result<Body, Error>) -> Option<ErrorCode> {
    answer.err().map(|error| error.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_goes_on_with_the_grants_that_it_came_back_with() {
    let service = Service::start_tls(|_| {}).await;
    let key = service.add_application("acme").await;
    let mut ann = service.link();
    let first = ann.authenticate(shown(token(&key, false, false), "")).unwrap();
    assert_eq!(code(publishes(&mut ann)), Some(ErrorCode::Forbidden));
    ann.cut();
    // More of them.
    let mut ann = service.link();
    let more = ann.authenticate(shown(token(&key, true, true), &first.session_id)).unwrap();
    assert!(more.resumed, "{more:?}");
    publishes(&mut ann).unwrap();
    says(&mut ann, 1).unwrap();
    ann.cut();
    // One less that nothing under way needs.
    let mut ann = service.link();
    let less = ann.authenticate(shown(token(&key, true, false), &first.session_id)).unwrap();
    assert!(less.resumed, "{less:?}");
    assert_eq!(code(says(&mut ann, 2)), Some(ErrorCode::Forbidden));
    publishes(&mut ann).unwrap();
    let mut bob = service.link();
    let claims = Claims::new("acme", "bob", "lobby", 4_000_000_000);
    let of_bob = mint(&claims, Some("first"), &Signer::Hs256(&key)).unwrap();
    let credential = Some(Credential::Token(of_bob));
    let seen = bob.authenticate(Auth { credential, ..auth("lobby", "Bob") }).unwrap();
    assert_eq!(seen.peers[0].publications.len(), 2);
    // One less that is in use: what it allowed ends, and she begins anew. Her link may still be there.
    let mut again = service.link();
    let anew = again.authenticate(shown(token(&key, false, true), &first.session_id)).unwrap();
    assert!(!anew.resumed && anew.peer_id != first.peer_id, "{anew:?}");
    assert_eq!(ann.last_words().0, ErrorCode::Conflict);
    assert_eq!(code(publishes(&mut again)), Some(ErrorCode::Forbidden));
    says(&mut again, 1).unwrap();
    let left = |event: &Event| matches!(event, Event::Left(left) if left.peer_id == first.peer_id);
    while !left(&bob.event()) {}
    let publications = &service.relay.scope().1.publications;
    assert!(publications.is_empty(), "{publications:?}");
}

/// CONNECT with this token, to a session of before. The answer.
fn connect(service: &Service, token: &str, before: &Client) -> (Client, Value) {
    let mut client = Client::open(service, &format!("?token={token}"));
    (client.sent, client.received) = (before.sent, before.received);
    client.send(&json!({
        "control": {"type": "request", "session_id": before.session},
        "header": {"action": "CONNECT", "cslr": before.received, "cslw": before.sent,
                   "csuw": before.sent},
    }));
    let answer = client.read();
    client.session = answer["control"]["session_id"].as_str().unwrap().into();
    (client, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_on_with_the_grants_that_it_came_back_with() {
    let service = Service::start().await;
    let key = service.add_application("acme").await;
    let mut ann = Client::open(&service, &format!("?token={}", token(&key, false, false)));
    let answer = ann.ask(json!({}), json!({"action": "CONNECT"}), json!({})).unwrap();
    ann.session = answer["control"]["session_id"].as_str().unwrap().into();
    let (scope, _) = ann.start("lobby", json!({})).unwrap();
    let say = json!({"event": "message", "text": "hello"});
    let refused = ann.request(&scope, "NOTIFY", say.clone()).unwrap_err();
    assert_eq!(refused["error_code"], 403);
    let (mut more, answer) = connect(&service, &token(&key, true, true), &ann);
    assert_eq!(more.session, ann.session, "{answer}");
    more.request(&scope, "NOTIFY", say).unwrap();
    more.request(&scope, "UPDATE", json!({"sdp": PUBLISH})).unwrap();
    assert_eq!(service.relay.scope().1.publications.len(), 2);
    let (mut anew, answer) = connect(&service, &token(&key, false, true), &more);
    assert_ne!(anew.session, ann.session, "{answer}");
    assert!(service.relay.is_empty(), "what she published ended");
    (anew.sent, anew.received) = (0, 0);
    let refused = anew.start("lobby", json!({"sdp": PUBLISH}));
    let failed = refused.map_or_else(|error| error, |(_, payload)| payload["failed"][0].clone());
    assert_eq!(failed["error_code"], 403, "{failed}");
}

#[tokio::test]
async fn whip_ends_where_who_restarts_it_may_not_publish_any_more() {
    let service = Service::start().await;
    let key = service.add_application("acme").await;
    let made = Http::new()
        .post(service.url("/whip/lobby"))
        .bearer_auth(token(&key, true, true))
        .header("content-type", "application/sdp")
        .body(PUBLISH);
    let made = made.send().await.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    let patch = async |token: String| {
        let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
        let request = Http::new().patch(service.url(&location)).bearer_auth(token);
        let request = request.header("content-type", "application/trickle-ice-sdpfrag");
        let request = request.header("if-match", "*").body(fragment);
        request.send().await.unwrap().status()
    };
    assert_eq!(patch(token(&key, true, false)).await, StatusCode::OK);
    assert_eq!(patch(token(&key, false, true)).await, StatusCode::FORBIDDEN);
    assert_eq!(patch(token(&key, true, true)).await, StatusCode::NOT_FOUND);
    crate::eventually("it is over", || service.relay.is_empty()).await;
}
