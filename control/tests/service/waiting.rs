//! Whether waiting helps is said by each way to signal: where somebody has to do something, it does not.

use serde_json::json;
use strait_link::v1::{ErrorCode, Kind, Publish, client_message::Body as Request};

use crate::link::publish;
use crate::native::{Native, auth};
use crate::socket::Client;
use crate::{PUBLISH, Service};

/// The refusal of a new link: its reason, and when to try again.
fn refused(link: &mut Native) -> (String, u32) {
    let error = link.authenticate(auth("lobby", "Zoe")).unwrap_err();
    (error.reason, error.retry_ms)
}

async fn whip(service: &Service) -> (u16, bool, String) {
    let client = reqwest::Client::new().post(service.url("/whip/lobby")).bearer_auth("dev");
    let answer = client.header("content-type", "application/sdp").body(PUBLISH).send().await;
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    let waits = answer.headers().contains_key("retry-after");
    (status, waits, answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_full_scope_waiting_does_not_help() {
    let service = Service::start_tls(|config| config.limits.peers_per_scope = 1).await;
    let (mut ann, _) = service.join("lobby", "Ann");
    let (reason, retry_ms) = refused(&mut service.link());
    assert!(reason.contains("somebody has to leave"), "{reason}");
    assert_eq!(retry_ms, 0);
    let mut web = Client::connect(&service, "Web");
    let refused = web.start("lobby", json!({})).unwrap_err();
    assert_eq!((&refused["error_code"], refused.get("retry_ms")), (&json!(429), None));
    let (status, waits, text) = whip(&service).await;
    assert_eq!((status, waits), (429, false), "{text}");
    // Nor for who publishes in more encodings than there may be, or all that it may.
    let twice = Publish { encodings: 2, ..publish(Kind::Audio, "opus") };
    let error = ann.ask(Request::Publish(twice)).unwrap_err();
    assert!(error.reason.contains("2 encodings of Audio"), "{error:?}");
    assert_eq!((error.code(), error.retry_ms), (ErrorCode::TooMany, 0));
    let error = loop {
        if let Err(error) = ann.ask(Request::Publish(publish(Kind::Audio, "opus"))) {
            break error;
        }
    };
    assert!(error.reason.contains("end one first"), "{error:?}");
    assert_eq!(error.retry_ms, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_node_it_does() {
    let service = Service::start_tls(|config| config.limits.scopes = 1).await;
    let (_ann, _) = service.join("hall", "Ann");
    let (reason, retry_ms) = refused(&mut service.link());
    assert!(reason.contains("try again later") && retry_ms > 0, "{reason}");
    let mut web = Client::connect(&service, "Web");
    let refused = web.start("lobby", json!({})).unwrap_err();
    assert_eq!((&refused["error_code"], &refused["retry_ms"]), (&json!(429), &json!(2_000)));
    let (status, waits, text) = whip(&service).await;
    assert_eq!((status, waits), (429, true), "{text}");
}
