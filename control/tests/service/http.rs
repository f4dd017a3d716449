//! WHIP, WHEP, page and health, status by status.

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use strait_control::auth::{Claims, Signer, mint};
use strait_control::store::WantedSessions;
use strait_proto::v1::{self, event::Event};

use crate::{PLAY, PUBLISH, Service, eventually};

fn request(service: &Service, method: Method, path: &str) -> RequestBuilder {
    Client::new().request(method, service.url(path))
}

fn post(service: &Service, path: &str, sdp: &str) -> RequestBuilder {
    request(service, Method::POST, path)
        .bearer_auth("dev")
        .header("content-type", "application/sdp")
        .body(sdp.to_owned())
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn created(service: &Service, path: &str, sdp: &str) -> (String, String, String) {
    let response = post(service, path, sdp).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let (location, etag) = (header(&response, "location"), header(&response, "etag"));
    (location, etag, response.text().await.unwrap())
}

#[tokio::test]
async fn whip_publishes_and_ends() {
    let service = Service::start().await;
    let response = post(&service, "/whip/my%20lobby", PUBLISH).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "content-type"), "application/sdp");
    assert_eq!(header(&response, "accept-patch"), "application/trickle-ice-sdpfrag");
    assert!(header(&response, "access-control-expose-headers").contains("Location"));
    let location = header(&response, "location");
    assert!(location.starts_with("/whip/my%20lobby/"), "{location}");
    assert!(header(&response, "etag").starts_with('"'));
    let answer = response.text().await.unwrap();
    assert!(answer.contains("a=candidate:1 1 udp 2130706431 127.0.0.1 8443 typ host"), "{answer}");
    let (_, scope) = service.relay.scope();
    assert_eq!(scope.peers.len(), 1);
    let video = scope.publications.values().find(|p| p.mid == "1").unwrap();
    assert_eq!(video.codecs.len(), 1);
    assert_eq!(video.codecs[0].name, "VP8");
    assert!(video.codecs[0].rtx_payload_type.is_some());
    assert!(video.encodings[0].ssrc != 0);

    for method in [Method::GET, Method::HEAD, Method::PUT, Method::POST] {
        let response =
            request(&service, method, &location).bearer_auth("dev").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        let allow = header(&response, "allow");
        assert!(allow.contains("PATCH") && allow.contains("DELETE"), "{allow}");
    }
    let delete = || request(&service, Method::DELETE, &location);
    assert_eq!(delete().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(delete().bearer_auth("dev").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(delete().bearer_auth("dev").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    eventually("the scope is gone from the relay", || service.relay.is_empty()).await;
    service.server.stop().await;
}

#[tokio::test]
async fn each_refusal_has_its_status_and_words() {
    let service = Service::start().await;
    let plain = |path: &str| request(&service, Method::POST, path);
    let cases = [
        (plain("/whip/a").body(PUBLISH), 401, "missing"),
        (plain("/whip/a").bearer_auth("wrong").body(PUBLISH), 401, "malformed"),
        (plain("/whip/a").bearer_auth("dev").body(PUBLISH), 415, "application/sdp"),
        (post(&service, "/whip/a", PUBLISH).header("accept", "text/html"), 406, "Accept"),
        (post(&service, "/whip/a", "garbage"), 400, "no SDP"),
        (post(&service, "/whip/a", &PUBLISH.replace("a=fingerprint", "a=x")), 422, "fingerprint"),
        (
            post(
                &service,
                "/whip/a",
                &PUBLISH
                    .replace("/90000", "/1")
                    .replace("opus", "x")
                    .replace("PCM", "x")
                    .replace("G722", "x"),
            ),
            406,
            "codec",
        ),
        (post(&service, "/whip/a", PLAY), 406, "sendonly"),
        (post(&service, "/whep/a", PUBLISH), 406, "recvonly"),
        (post(&service, "/whip/a", &" ".repeat(300 << 10)), 413, "larger"),
        (post(&service, &format!("/whip/{}", "x".repeat(65)), PUBLISH), 400, "longer"),
        (request(&service, Method::GET, "/nothing"), 404, "nothing"),
    ];
    for (request, status, word) in cases {
        let response = request.send().await.unwrap();
        let code = response.status().as_u16();
        let challenge = header(&response, "www-authenticate");
        let text = response.text().await.unwrap();
        assert_eq!(code, status, "{text}");
        assert!(text.contains(word), "{text}");
        assert_eq!(challenge.starts_with("Bearer"), code == 401);
    }
    eventually("nobody stayed behind", || service.server.app.scopes.counts() == (0, 0)).await;
}

#[tokio::test]
async fn trickle_and_restart_follow_the_entity_tag() {
    let service = Service::start().await;
    let (location, etag, _) = created(&service, "/whip/a", PUBLISH).await;
    let line = |name: &str| {
        let line = PUBLISH.lines().find(|line| line.starts_with(name)).unwrap();
        format!("{line}\r\n")
    };
    let own = line("a=ice-ufrag") + &line("a=ice-pwd");
    let candidate = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
                     a=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\n";
    let fresh = "a=ice-ufrag:fresh\r\na=ice-pwd:freshPasswordOf22Bytes\r\n";
    let patch = |condition: Option<&str>, body: &str| {
        let request = request(&service, Method::PATCH, &location)
            .bearer_auth("dev")
            .header("content-type", "application/trickle-ice-sdpfrag")
            .body(body.to_owned());
        match condition {
            Some(condition) => request.header("if-match", condition),
            None => request,
        }
    };
    let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(patch(Some(&etag), &(own.clone() + candidate))).await, 204);
    assert_eq!(status(patch(None, &(own.clone() + candidate))).await, 428);
    assert_eq!(status(patch(Some("\"other\""), &(own.clone() + candidate))).await, 412);
    assert_eq!(status(patch(Some(&etag), "nonsense")).await, 400);
    assert_eq!(status(patch(Some("*"), &own)).await, 400, "the same credentials are no restart");
    assert_eq!(status(patch(Some("\"*\""), &own)).await, 400, "as RFC 9725 has it in figure 5");
    let wrong_type = patch(Some(&etag), candidate).header("content-type", "text/plain");
    // reqwest appends: the first one counts, so make a request of its own.
    drop(wrong_type);
    let wrong_type = request(&service, Method::PATCH, &location).bearer_auth("dev").body("x");
    assert_eq!(status(wrong_type).await, 415);

    let response = patch(Some("*"), fresh).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), "application/trickle-ice-sdpfrag");
    let renewed = header(&response, "etag");
    assert_ne!(renewed, etag);
    let body = response.text().await.unwrap();
    assert!(body.contains("a=ice-ufrag:ab9001") && body.contains("a=candidate:"), "{body}");
    assert_eq!(service.relay.scope().1.restarts, 1);
    assert_eq!(status(patch(Some(&etag), candidate)).await, 412, "the old tag is void");
    assert_eq!(status(patch(Some(&renewed), candidate)).await, 204);
}

#[tokio::test]
async fn options_tell_browsers_what_is_allowed() {
    let service = Service::start_with(|config| {
        config.signal.ice_servers = vec![strait_control::config::IceServer {
            url: "turn:turn.example:3478".into(),
            username: "u".into(),
            credential: "c".into(),
        }];
    })
    .await;
    let response = request(&service, Method::OPTIONS, "/whip/a")
        .header("origin", "https://example.org")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&response, "accept-post"), "application/sdp");
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    assert!(header(&response, "access-control-allow-methods").contains("POST"));
    assert!(header(&response, "access-control-allow-headers").contains("Authorization"));
    let link = header(&response, "link");
    assert!(link.starts_with("<turn:turn.example:3478>; rel=\"ice-server\"; username=\"u\""));
    let response = post(&service, "/whip/a", PUBLISH).send().await.unwrap();
    assert_eq!(header(&response, "link"), link);
    let response = request(&service, Method::GET, "/whip/a").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(header(&response, "allow").contains("POST"));
    // What has no OPTIONS of its own: a page elsewhere asks with headers, too.
    for (path, method) in [("/resolve", "GET"), ("/metrics", "POST")] {
        let response = request(&service, Method::OPTIONS, path)
            .header("origin", "https://example.org")
            .header("access-control-request-method", method)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), "*");
        assert!(header(&response, "access-control-allow-methods").contains(method), "{path}");
    }
    let response = request(&service, Method::OPTIONS, "/resolve").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn whep_shows_what_is_there_what_comes_and_what_comes_back() {
    let service = Service::start().await;
    let bound = || {
        let (_, scope) = service.relay.scope();
        let ids = scope.subscriptions.values().map(|s| s.publication_id.clone());
        ids.filter(|id| !id.is_empty()).count()
    };
    let (_, _, answer) = created(&service, "/whep/a", PLAY).await;
    assert_eq!(answer.matches("a=sendonly").count(), 2);
    assert_eq!(answer.matches("a=msid:strait ").count(), 2);
    assert_eq!(bound(), 0);
    let (publisher, ..) = created(&service, "/whip/a?name=Cam", PUBLISH).await;
    eventually("a publisher that comes is shown", || bound() == 2).await;
    let delete = request(&service, Method::DELETE, &publisher).bearer_auth("dev");
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::OK);
    eventually("it is gone", || service.relay.scope().1.publications.is_empty()).await;
    created(&service, "/whip/a?name=Other", PUBLISH).await;
    eventually("the next is shown", || bound() == 2).await;

    // A player that picks one peer, by its name.
    created(&service, "/whep/a?peer=Nobody", PLAY).await;
    assert_eq!(bound(), 2);
    created(&service, "/whep/a?peer=Other", PLAY).await;
    assert_eq!(bound(), 4);
}

#[tokio::test]
async fn whep_passes_over_what_it_cannot_decode() {
    let service = Service::start().await;
    let only_h264 =
        |text: &str| text.replace("VP8/", "XX/").replace("VP9/", "XX/").replace("AV1/", "XX/");
    created(&service, "/whip/a", PUBLISH).await;
    let (_, _, answer) = created(&service, "/whep/a", &only_h264(PLAY)).await;
    assert!(answer.contains("H264"));
    let (_, scope) = service.relay.scope();
    let bound = scope.subscriptions.values().filter(|s| !s.publication_id.is_empty());
    assert_eq!(bound.count(), 1, "the sound alone");
}

#[tokio::test]
async fn a_transport_that_the_relay_lost_ends_the_session() {
    let service = Service::start().await;
    let (location, ..) = created(&service, "/whip/a", PUBLISH).await;
    let (scope_id, scope) = service.relay.scope();
    service.relay.emit(Event::PeerLeft(v1::PeerLeft {
        scope_id,
        peer_id: scope.peers.into_keys().next().unwrap(),
        reason: v1::peer_left::Reason::ConsentExpired.into(),
        detail: String::new(),
    }));
    eventually("the session is gone", || service.server.app.sessions.count() == 0).await;
    let delete = request(&service, Method::DELETE, &location).bearer_auth("dev");
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn names_that_are_no_text_are_refused() {
    let service = Service::start().await;
    let whip = post(&service, "/whip/a?name=%ff", PUBLISH);
    let resolve = request(&service, Method::GET, "/resolve?applicationId=dev&scopeId=%ff");
    let path = post(&service, "/whip/%ff", PUBLISH);
    let sessions = request(&service, Method::GET, "/api/v1/sessions?user=%ff").bearer_auth("dev");
    for asked in [whip, resolve, path, sessions] {
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{}", answer.url());
        let text = answer.text().await.unwrap();
        assert!(text.contains("UTF-8"), "{text}");
    }
}

#[tokio::test]
async fn a_full_relay_and_an_absent_one() {
    let mut service = Service::start().await;
    service.relay.state.lock().unwrap().refuse_peers =
        Some(tonic::Status::resource_exhausted("peers_per_scope is 500"));
    let response = post(&service, "/whip/a", PUBLISH).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.text().await.unwrap().contains("peers_per_scope"));
    let ready = request(&service, Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK, "{}", ready.text().await.unwrap());
    service.relay_process.kill();
    std::fs::remove_file(crate::socket(&service.folder)).unwrap();
    eventually("the loss is seen", || service.server.app.scopes.relay().info().is_none()).await;
    let response = post(&service, "/whip/a", PUBLISH).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&response, "retry-after"), "5");
    let ready = request(&service, Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().await.unwrap().contains("FAIL relay"));
    let live = request(&service, Method::GET, "/livez").send().await.unwrap();
    assert_eq!(live.status(), StatusCode::OK);
    // It comes back.
    let _relay = crate::fake_relay::FakeRelay::start(&crate::socket(&service.folder));
    eventually("it is found again", || service.server.app.scopes.relay().info().is_some()).await;
    created(&service, "/whip/a", PUBLISH).await;
}

#[tokio::test]
async fn a_relay_that_restarted_has_forgotten_the_sessions() {
    let mut service = Service::start().await;
    created(&service, "/whip/a", PUBLISH).await;
    service.relay_process.kill();
    let (relay, _task) = crate::fake_relay::FakeRelay::start(&crate::socket(&service.folder));
    eventually("the session is gone", || service.server.app.sessions.count() == 0).await;
    created(&service, "/whip/a", PUBLISH).await;
    assert_eq!(relay.scope().1.publications.len(), 2);
}

#[tokio::test]
async fn applications_do_not_meet_and_grants_hold() {
    let service = Service::start().await;
    let key = service.add_application("acme").await;
    let token = |scope: &str, publish, subscribe| {
        let name = Some("Alice".into());
        let claims = Claims::new("acme", "alice", scope, 4_000_000_000);
        let claims = Claims { name, publish, subscribe, ..claims };
        mint(&claims, Some("first"), &Signer::Hs256(&key)).unwrap()
    };
    let post = async |path: &str, sdp: &str, token: String| {
        let request = request(&service, Method::POST, path)
            .bearer_auth(token)
            .header("content-type", "application/sdp")
            .body(sdp.to_owned());
        request.send().await.unwrap()
    };
    assert_eq!(post("/whip/a", PUBLISH, token("b", true, true)).await.status(), 403);
    assert_eq!(post("/whip/a", PUBLISH, token("a", false, true)).await.status(), 403);
    assert_eq!(post("/whep/a", PLAY, token("a", true, false)).await.status(), 403);
    let response = post("/whip/a", PUBLISH, token("*", true, true)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    // The development token's scope of the same name is another one, and cannot end this session.
    created(&service, "/whep/a", PLAY).await;
    assert_eq!(service.relay.state.lock().unwrap().scopes.len(), 2);
    let delete = request(&service, Method::DELETE, &header(&response, "location"));
    assert_eq!(delete.bearer_auth("dev").send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let app = &service.server.app;
    app.notary.settle().await;
    let wanted = WantedSessions { count: 9, ..WantedSessions::default() };
    let analytics = app.store.analytics();
    let sessions = analytics.sessions(&wanted, app.notary.now()).await.unwrap();
    let of_acme = sessions.iter().find(|session| session.application == "acme").unwrap();
    assert_eq!((sessions.len(), of_acme.present), (2, 1));
    let stays = analytics.stays(&of_acme.session, 9).await.unwrap();
    assert_eq!((stays.len(), stays[0].name.as_str()), (1, "Alice"));
    assert_eq!((stays[0].client.as_str(), stays[0].user.as_str()), ("whip", "alice"));
}

#[tokio::test]
async fn sessions_are_limited() {
    let service = Service::start_with(|config| config.limits.http_sessions = 1).await;
    created(&service, "/whip/a", PUBLISH).await;
    let response = post(&service, "/whip/a", PUBLISH).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&response, "retry-after"), "5");
}

#[tokio::test]
async fn page_and_metrics_are_served() {
    let service = Service::start().await;
    let page = request(&service, Method::GET, "/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    created(&service, "/whip/a", PUBLISH).await;
    let metrics = request(&service, Method::GET, "/metrics").send().await.unwrap();
    let text = metrics.text().await.unwrap();
    for line in [
        "control_requests_total{route=\"whip\",method=\"POST\",code=\"201\"} 1",
        "control_http_sessions 1",
        "control_peers 1",
        "relay_packets_dropped_total{worker=\"0\",reason=\"replayed\"} 3",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
