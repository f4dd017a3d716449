//! Every kind of credential at every door, over real sockets, and what is logged meanwhile.

use std::io::Write as _;
use std::process::{Command, Stdio};

use reqwest::StatusCode;
use serde_json::json;
use strait_control::auth::{
    Claims, Key, Material, PrivateKey, Reason, Scheme, Secret, Signed, Signer, mint,
};
use strait_link::v1::{
    Auth, ErrorCode, SignedCredential, auth::Credential, signed_credential::Scheme as Typed,
};

use crate::log::{Log, written};
use crate::native::auth;
use crate::socket::Client;
use crate::{PUBLISH, Service};

/// An application with all it can have, and what signs for it.
struct Acme {
    secret: Secret,
    private: PrivateKey,
}

impl Acme {
    async fn new(service: &Service) -> Self {
        let secret = service.add_application("acme").await;
        let private = PrivateKey::random().unwrap();
        let pair = Key::new("pair", Material::Es256(private.public().unwrap()), 1);
        let applications = service.server.app.store.applications();
        applications.add_key("acme", &pair).await.unwrap();
        applications.set_concatenated("acme", true).await.unwrap();
        Self { secret, private }
    }

    fn signed(&self, scheme: Scheme, salt: &str, expires: u64) -> String {
        let mut signed = Signed {
            scheme,
            application: "acme".into(),
            scope: "lobby".into(),
            user: "alice".into(),
            salt: salt.into(),
            expires,
            signature: String::new(),
        };
        signed.sign(&self.secret);
        signed.to_text()
    }

    /// One credential of each kind. Those that open one session have `salt` in theirs.
    fn credentials(&self, salt: &str) -> [(&'static str, String); 4] {
        let claims = Claims::new("acme", "alice", "lobby", now() + 600);
        let hs256 = mint(&claims, Some("first"), &Signer::Hs256(&self.secret)).unwrap();
        let es256 = mint(&claims, Some("pair"), &Signer::Es256(&self.private)).unwrap();
        let hmac = self.signed(Scheme::HmacSha256, &format!("{salt}-h"), now() + 600);
        let concatenated = self.signed(Scheme::Concatenated, &format!("{salt}-c"), now() + 600);
        [
            ("jwt_hs256", hs256),
            ("jwt_es256", es256),
            ("signed_hmac_sha256", hmac),
            ("signed_concatenated", concatenated),
        ]
    }
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

async fn whip(service: &Service, scope: &str, token: &str) -> reqwest::Response {
    let request = reqwest::Client::new().post(service.url(&format!("/whip/{scope}")));
    let request = request.bearer_auth(token).header("content-type", "application/sdp");
    request.body(PUBLISH).send().await.unwrap()
}

/// What a native client shows: fields as such, everything else as text.
fn shown(text: &str) -> Auth {
    let credential = match Signed::parse(text) {
        None => Credential::Token(text.into()),
        Some(signed) => {
            let signed = signed.unwrap();
            let digits = signed.signature.as_bytes();
            let (scheme, signature) = match signed.scheme {
                Scheme::HmacSha256 => (Typed::HmacSha256, digits.chunks(2).map(byte).collect()),
                Scheme::Concatenated => (Typed::Sha256Concatenated, digits.to_vec()),
            };
            Credential::Signed(SignedCredential {
                application_id: signed.application,
                user_id: signed.user,
                salt: signed.salt,
                expires: signed.expires,
                signature,
                scheme: scheme.into(),
                ..SignedCredential::default()
            })
        }
    };
    Auth { credential: Some(credential), ..auth("lobby", "Alice") }
}

fn byte(digits: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}

async fn delete(service: &Service, location: &str, token: &str) -> StatusCode {
    let request = reqwest::Client::new().delete(service.url(location)).bearer_auth(token);
    request.send().await.unwrap().status()
}

fn location(response: &reqwest::Response) -> String {
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn refused(service: &Service, reason: Reason) -> u64 {
    let name = reason.name();
    let series = format!("control_credentials_refused_total{{reason=\"{name}\"}}");
    service.metric(&series).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_credential_opens_every_door() {
    let service = Service::start_tls(|_| {}).await;
    let acme = Acme::new(&service).await;
    for (kind, token) in acme.credentials("whip") {
        let response = whip(&service, "lobby", &token).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{kind}");
        assert_eq!(delete(&service, &location(&response), &token).await, StatusCode::OK, "{kind}");
        assert_eq!(whip(&service, "other", &token).await.status().as_u16() / 100, 4, "{kind}");
        let accepted = format!("control_credentials_accepted_total{{kind=\"{kind}\"}}");
        assert!(service.metric(&accepted).await >= Some(2), "{kind}");
    }
    for (kind, token) in acme.credentials("query") {
        let mut client = Client::open(&service, &format!("?token={token}"));
        let connect = json!({"action": "CONNECT"});
        let answer = client.ask(json!({}), connect, json!({})).expect(kind);
        assert_eq!(answer["payload"]["application"], "acme", "{kind}");
        client.start("lobby", json!({})).expect(kind);
        let alone = json!({"alone": true});
        for payload in [json!({}), alone.clone()] {
            let refused = client.start("other", payload).unwrap_err();
            assert_eq!(refused["error_code"], 403, "{kind}");
        }
        client.start("lobby", alone).expect(kind);
    }
    for (kind, token) in acme.credentials("frame") {
        let mut client = Client::open(&service, "");
        let connect = json!({"action": "CONNECT", "token": token});
        client.ask(json!({}), connect, json!({})).expect(kind);
    }
    for (kind, token) in acme.credentials("link") {
        service.link().authenticate(shown(&token)).expect(kind);
        let other = Auth { scope_id: "other".into(), ..shown(&token) };
        let refused = service.link().authenticate(other).unwrap_err().code();
        // The scope of signed fields is that of `Auth`.
        let is_token = kind.starts_with("jwt");
        let expected = if is_token { ErrorCode::WrongScope } else { ErrorCode::BadSignature };
        assert_eq!(refused, expected, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_words_and_its_count() {
    let service = Service::start_tls(|_| {}).await;
    let acme = Acme::new(&service).await;
    let applications = service.server.app.store.applications();
    let (hour, day) = (3_600, 24 * 3_600);
    let hmac = |salt: &str, expires| acme.signed(Scheme::HmacSha256, salt, expires);
    let used = hmac("used", now() + 600);
    assert_eq!(whip(&service, "lobby", &used).await.status(), StatusCode::CREATED);
    let claims = Claims::new("acme", "alice", "lobby", now() + hour);
    let late = Claims { nbf: Some(now() + hour), ..claims.clone() };
    let deaf = Claims { publish: false, ..claims };
    let jwt = |claims: &Claims| mint(claims, None, &Signer::Hs256(&acme.secret)).unwrap();
    let forged = hmac("a", now() + 600).replace("616c696365", "626c696365");
    let unknown = hmac("a", now() + 600).replace("61636d65", "61636d66");
    applications.set_concatenated("acme", false).await.unwrap();
    let concatenated = acme.signed(Scheme::Concatenated, "a", now() + 600);
    let cases = [
        (String::new(), Reason::Missing, 401, "missing"),
        ("garbage".into(), Reason::Malformed, 401, "malformed"),
        ("strait-hmac-sha256.61.61".into(), Reason::Malformed, 401, "malformed"),
        (unknown, Reason::UnknownApplication, 401, "unknown application"),
        (forged, Reason::BadSignature, 401, "bad signature"),
        (concatenated, Reason::SchemeNotEnabled, 401, "does not take the scheme"),
        (hmac("b", now() - hour), Reason::Expired, 401, "expired"),
        (hmac("c", now() + 2 * day), Reason::ClockSkewed, 401, "check the clocks"),
        (jwt(&late), Reason::ClockSkewed, 401, "check the clocks"),
        (used.clone(), Reason::Replayed, 401, "replayed"),
        (jwt(&deaf), Reason::NotGranted, 403, "publish"),
    ];
    for (token, reason, status, words) in cases {
        let before = refused(&service, reason).await;
        let response = whip(&service, "lobby", &token).await;
        assert_eq!(response.status().as_u16(), status, "{words}");
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert_eq!(challenge.contains(reason.name()), reason != Reason::Missing, "{challenge}");
        let text = response.text().await.unwrap();
        assert!(text.contains(words), "{words}: {text}");
        assert_eq!(refused(&service, reason).await, before + 1, "{words}");
        // The WebSocket says the same; grants are looked at later there.
        if status == 401 {
            let mut client = Client::open(&service, "");
            let connect = json!({"action": "CONNECT", "token": token});
            let refusal = client.ask(json!({}), connect, json!({})).unwrap_err();
            assert_eq!(refusal["error_code"], 401, "{words}");
            assert_eq!(refusal["credential_error"], reason.name());
            assert!(refusal["reason"].as_str().unwrap().contains(words), "{refusal}");
            let text = Signed::parse(&token).is_none_or(|signed| signed.is_err());
            let auth = match text {
                true => Auth { credential: Some(Credential::Token(token)), ..auth("lobby", "") },
                false => shown(&token),
            };
            let error = service.link().authenticate(auth).unwrap_err();
            assert_eq!(error.code(), code(reason), "{words}");
            assert!(error.reason.contains(words), "{error:?}");
        }
    }
    let response = whip(&service, "other", &hmac("d", now() + 600)).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(refused(&service, Reason::WrongScope).await, 1);
    // A key that is switched off stops at once.
    applications.enable_key("acme", "first", false).await.unwrap();
    let response = whip(&service, "lobby", &hmac("e", now() + 600)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_credential_comes_back_to_its_own_session_alone() {
    let service = Service::start().await;
    let acme = Acme::new(&service).await;
    let token = acme.signed(Scheme::HmacSha256, "x", now() + 600);
    // What opened nothing used nothing up.
    let request = reqwest::Client::new().post(service.url("/whip/lobby")).bearer_auth(&token);
    let no_offer = request.header("content-type", "application/sdp").body("v=0\r\n");
    assert_eq!(no_offer.send().await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    let response = whip(&service, "lobby", &token).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(whip(&service, "lobby", &token).await.status(), StatusCode::UNAUTHORIZED);
    let guess = delete(&service, "/whip/lobby/h-guess", &token).await;
    assert_eq!(guess, StatusCode::UNAUTHORIZED);
    assert_eq!(delete(&service, &location(&response), &token).await, StatusCode::OK);

    let token = acme.signed(Scheme::HmacSha256, "y", now() + 600);
    let connect = |token: &str| json!({"action": "CONNECT", "token": token});
    let mut alice = Client::open(&service, "");
    let answer = alice.ask(json!({}), connect(&token), json!({})).unwrap();
    let session = answer["control"]["session_id"].clone();
    let mut thief = Client::open(&service, "");
    assert_eq!(thief.ask(json!({}), connect(&token), json!({})).unwrap_err()["error_code"], 401);
    let frame = |session: &serde_json::Value| {
        json!({
            "control": {"type": "request", "session_id": session},
            "header": {"action": "CONNECT", "token": token, "cslr": 1, "cslw": 1, "csuw": 1},
        })
    };
    alice.cut();
    let mut again = Client::open(&service, "");
    again.send(&frame(&session));
    let answer = again.read();
    assert_eq!(answer["control"]["session_id"], session, "it goes on");
    // Also with a credential that is new, as when the first has expired; that one is used then.
    again.cut();
    let newer = acme.signed(Scheme::HmacSha256, "z", now() + 600);
    for _ in 0..2 {
        let mut newly = frame(&session);
        newly["header"]["token"] = json!(newer);
        let mut again = Client::open(&service, "");
        again.send(&newly);
        assert_eq!(again.read()["control"]["session_id"], session);
        again.cut();
    }
    let mut thief = Client::open(&service, "");
    assert_eq!(thief.ask(json!({}), connect(&newer), json!({})).unwrap_err()["error_code"], 401);
    // One that cannot go on is followed by another, with the same credential.
    let mut afresh = Client::open(&service, "");
    let mut far = frame(&session);
    far["header"]["cslr"] = 99.into();
    afresh.send(&far);
    let other = afresh.read()["control"]["session_id"].clone();
    assert!(other.is_string() && other != session, "{other}");
    afresh.cut();
    let mut last = Client::open(&service, "");
    last.send(&frame(&other));
    assert_eq!(last.read()["header"]["action"], "CONNECT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_credential_never_has_two_sessions() {
    let service = Service::start_tls(|_| {}).await;
    let acme = Acme::new(&service).await;
    let token = acme.signed(Scheme::HmacSha256, "x", now() + 600);
    // Names a session over another way, with figures that do not fit.
    let elsewhere = |session: &str| {
        let mut web = Client::open(&service, "");
        web.send(&json!({
            "control": {"type": "request", "session_id": session},
            "header": {"action": "CONNECT", "token": token, "cslr": 999, "cslw": 5, "csuw": 9},
        }));
        let answer = web.read();
        let session = answer["control"]["session_id"].as_str().map(str::to_owned);
        (web, session.unwrap_or_else(|| panic!("{answer}")))
    };
    let mut link = service.link();
    let first = link.authenticate(shown(&token)).unwrap().session_id;
    let (mut web, second) = elsewhere(&first);
    let (code, text) = link.last_words();
    assert_eq!(code, ErrorCode::Conflict, "{text}");
    assert!(text.contains("another session"), "{text}");
    // The one of a WebSocket as well, and that of a link again.
    let (mut other, third) = elsewhere(&second);
    assert_eq!(web.read_raw(), None);
    let mut link = service.link();
    let auth = Auth { session_id: third, reconnect: true, ..shown(&token) };
    assert!(!link.authenticate(auth).unwrap().resumed);
    assert_eq!(other.read_raw(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_credential_opens_another_session() {
    let service = Service::start_tls(|_| {}).await;
    let acme = Acme::new(&service).await;
    let token = acme.signed(Scheme::HmacSha256, "x", now() + 600);
    let response = whip(&service, "lobby", &token).await;
    let location = location(&response);
    let session_id = location.rsplit('/').next().unwrap().to_owned();
    let mut link = service.link();
    let auth = Auth { session_id, reconnect: true, ..shown(&token) };
    assert!(!link.authenticate(auth).unwrap().resumed);
    assert_eq!(delete(&service, &location, &token).await, StatusCode::NOT_FOUND);
}

/// As native clients are told.
fn code(reason: Reason) -> ErrorCode {
    match reason {
        Reason::UnknownApplication => ErrorCode::UnknownApplication,
        Reason::BadSignature => ErrorCode::BadSignature,
        Reason::Expired => ErrorCode::Expired,
        Reason::ClockSkewed => ErrorCode::ClockSkewed,
        Reason::Replayed => ErrorCode::Replayed,
        Reason::Malformed => ErrorCode::Malformed,
        _ => ErrorCode::Unauthorized,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_client_comes_back_with_the_credential_that_it_has() {
    let service = Service::start_tls(|_| {}).await;
    let acme = Acme::new(&service).await;
    let token = acme.signed(Scheme::HmacSha256, "x", now() + 600);
    let mut link = service.link();
    let first = link.authenticate(shown(&token)).unwrap();
    let refused = |auth: Auth| service.link().authenticate(auth).unwrap_err().code();
    assert_eq!(refused(shown(&token)), ErrorCode::Replayed);
    let guess = Auth { session_id: "n-guess".into(), reconnect: true, ..shown(&token) };
    assert_eq!(refused(guess), ErrorCode::Replayed);
    link.cut();
    for _ in 0..3 {
        let session_id = first.session_id.clone();
        let back = Auth { session_id, reconnect: true, ..shown(&token) };
        let mut link = service.link();
        let again = link.authenticate(back).unwrap();
        assert!(again.resumed && again.session_id == first.session_id, "{again:?}");
        assert_eq!(again.peer_id, first.peer_id);
        link.cut();
    }
    assert_eq!(refused(shown(&token)), ErrorCode::Replayed);
}

/// What Python signs with its own hmac and hashlib is taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_signs_is_taken() {
    const PROGRAM: &str = r#"
import hashlib, hmac, sys
key, expires = sys.stdin.read().split()
fields = ["acme", "lobby", "zoë", "salt of python"]
message = b"strait-signed-v1"
for field in fields:
    message += len(field.encode()).to_bytes(2, "big") + field.encode()
message += int(expires).to_bytes(8, "big")
hexed = ".".join(field.encode().hex() for field in fields)
signature = hmac.new(key.encode(), message, hashlib.sha256).hexdigest()
print(f"strait-hmac-sha256.{hexed}.{expires}.{signature}")
row = "".join(fields) + expires + key
signature = hashlib.sha256(row.encode()).hexdigest().upper()
print(f"strait-sha256.{hexed}.{expires}.{signature}")
"#;
    let service = Service::start().await;
    let acme = Acme::new(&service).await;
    let mut python = Command::new("python3")
        .args(["-X", "utf8", "-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there: ./dev needs it too");
    let mut input = python.stdin.take().unwrap();
    writeln!(input, "{} {}", acme.secret.expose(), now() + 600).unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let [hmac, concatenated] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let response = whip(&service, "lobby", hmac).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(whip(&service, "lobby", concatenated).await.status(), StatusCode::CREATED);
    assert_eq!(delete(&service, &location(&response), hmac).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged() {
    // All there is, of every crate.
    let log = Log::take("trace");
    let hush = "a development token that nobody may read";
    let service =
        Service::start_tls(|config| config.auth.dev_tokens = vec![hush.into(), "dev".into()]).await;
    let acme = Acme::new(&service).await;
    let mut secrets = vec![
        hush.to_owned(),
        acme.secret.expose().to_owned(),
        acme.private.to_pem().expose().lines().nth(1).unwrap().to_owned(),
    ];
    let whip_tokens = acme.credentials("whip").map(|(_, token)| token);
    for token in whip_tokens.iter().map(String::as_str).chain([hush]) {
        assert_eq!(whip(&service, "lobby", token).await.status(), StatusCode::CREATED);
        // Shown again, and cut short: refused ones stay out of the log as well.
        whip(&service, "lobby", token).await;
        whip(&service, "lobby", &token[..token.len() - 1]).await;
    }
    let socket_tokens = acme.credentials("socket").map(|(_, token)| token);
    for token in &socket_tokens {
        for query in [format!("?token={token}"), String::new()] {
            let mut client = Client::open(&service, &query);
            let connect = json!({"action": "CONNECT", "token": token});
            let _ = client.ask(json!({}), connect, json!({}));
        }
    }
    let link_tokens = acme.credentials("link").map(|(_, token)| token);
    for token in link_tokens.iter().chain(&link_tokens) {
        if let Ok(answer) = service.link().authenticate(shown(token)) {
            let key = answer.key.unwrap().key;
            secrets.extend(written(&key));
        }
    }
    // Of a token its signature is what must not be read.
    let signature = |token: &String| token.rsplit('.').next().unwrap().to_owned();
    secrets.extend(whip_tokens.iter().chain(&socket_tokens).chain(&link_tokens).map(signature));
    service.server.stop().await;
    assert!(log.text().contains("session created"), "something is logged");
    assert_eq!(log.leak(secrets), None);
}
