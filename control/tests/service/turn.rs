//! TURN over TLS as clients are told of it, and connections that name no protocol.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strait_control::Config;
use strait_proto::handover::{self, BACK, KNOWN};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};

use crate::native::{Native, trusting};
use crate::socket::Client;
use crate::{PUBLISH, Service};

/// A connection that is handed over, and what comes with it.
fn handed_over(relay: &UnixListener) -> (UnixStream, OwnedFd, Vec<u8>) {
    let (mut control, _) = relay.accept().unwrap();
    let mut length = [0; 4];
    let start = Instant::now();
    let taken = loop {
        match handover::receive(&control, &mut length) {
            Ok((4, Some(taken))) => break taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(start.elapsed() < Duration::from_secs(20), "no message");
                std::thread::sleep(Duration::from_millis(1));
            }
            other => panic!("{other:?}"),
        }
    };
    let mut pem = vec![0; u32::from_be_bytes(length) as usize];
    control.read_exact(&mut pem).unwrap();
    (control, taken, pem)
}

fn front_door(config: &mut Config) {
    config.relay.ice_tcp = Some("127.0.0.1:1".parse().unwrap());
}

impl Service {
    fn secure(&self, alpn: Option<&[u8]>) -> Native {
        let certificate = self.folder.path().join("certificate.pem");
        Native::open(self.server.https[0], trusting(&certificate, alpn))
    }

    /// The answer to CONNECT by a WebSocket over TLS.
    fn greeting(&self) -> Value {
        let stream = self.secure(Some(b"http/1.1")).tls;
        let url = format!("ws://{}/ws?access_token=dev", self.server.https[0]);
        let mut request = url.into_client_request().unwrap();
        let protocol = "strait.jsonrtc.v1".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (mut socket, _) = tungstenite::client(request, stream).unwrap();
        let control = json!({"type": "request", "sequence": 1});
        let header = json!({"action": "CONNECT", "initiator": "anna"});
        let frame = json!({"control": control, "header": header, "payload": {}});
        socket.send(Message::text(frame.to_string())).unwrap();
        let Message::Text(text) = socket.read().unwrap() else { panic!("no text") };
        serde_json::from_str::<Value>(&text).unwrap()["payload"].clone()
    }

    /// The headers of the answer to an offer.
    fn whip(&self) -> String {
        let mut stream = self.secure(Some(b"http/1.1")).tls;
        let (at, length) = (self.server.https[0], PUBLISH.len());
        let head = format!(
            "POST /whip/lobby HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer dev\r\nContent-Type: application/sdp\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), PUBLISH.as_bytes()].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().0.to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_by_https_is_told_of_turn_with_credentials_of_its_own() {
    let service = Service::start_tls(front_door).await;
    let at = service.server.https[0];
    let url = format!("turns:{at}?transport=tcp");
    let (one, other) = (service.greeting(), service.greeting());
    let (one, other) = (&one["iceServers"][0], &other["iceServers"][0]);
    assert_eq!(one["urls"], url.as_str());
    assert_ne!(one["username"], other["username"]);
    let name = one["username"].as_str().unwrap();
    let ends: u64 = name.split_once(':').unwrap().0.parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now + 11 * 3600..=now + 12 * 3600).contains(&ends), "{name}");
    assert_eq!(one["credential"].as_str().unwrap().len(), 28, "an HMAC-SHA1");

    let headers = service.whip();
    let link = headers.lines().find_map(|line| line.strip_prefix("link: ")).unwrap();
    assert!(link.starts_with(&format!("<{url}>; rel=\"ice-server\"; username=\"")), "{link}");
    assert!(link.contains("; credential=\"") && link.ends_with("; credential-type=\"password\""));

    // By HTTP there is no TLS that the relay could take over.
    let mut plain = Client::open(&service, "?access_token=dev");
    let header = json!({"action": "CONNECT", "initiator": "bert"});
    let answer = plain.ask(json!({}), header, json!({})).unwrap();
    assert_eq!(answer["payload"]["iceServers"], json!([]));

    let off = |config: &mut Config| {
        front_door(config);
        config.media.turn.enabled = false;
    };
    let service = Service::start_tls(off).await;
    assert_eq!(service.greeting()["iceServers"], json!([]));
    assert!(!service.whip().contains("link: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_turn_is_told_of_nobody_and_nobody_of_it() {
    let mut rpc = None;
    let service = Service::start_tls(|config| {
        front_door(config);
        rpc = Some(config.relay.rpc_socket.clone());
    })
    .await;
    let _relay = UnixListener::bind(handover::socket_of(&rpc.unwrap())).unwrap();
    assert_ne!(service.greeting()["iceServers"], json!([]));
    // Another one of an older version takes its place.
    service.relay.state.lock().unwrap().lacks_turn = true;
    service.relay.lose();
    let relay = service.server.app.scopes.relay();
    crate::eventually("the other one is found", || relay.info().is_some() && !relay.serves_turn())
        .await;
    assert_eq!(service.greeting()["iceServers"], json!([]));
    assert!(!service.whip().contains("link: "));
    // It would take this one for framed media.
    let mut client = service.secure(None).tls;
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_no_protocol_is_the_relays_or_comes_back() {
    const GET: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut rpc = None;
    let service = Service::start_tls(|config| {
        front_door(config);
        rpc = Some(config.relay.rpc_socket.clone());
    })
    .await;
    let get = |mut client: Native| {
        client.tls.write_all(GET).unwrap();
        let mut text = String::new();
        client.tls.read_to_string(&mut text).unwrap();
        text
    };
    let text = get(service.secure(None));
    assert!(text.starts_with("HTTP/1.1 200"), "served here while the relay is away: {text}");

    // A relay that speaks no TLS: what it gives back is what it made up.
    let relay = UnixListener::bind(handover::socket_of(&rpc.unwrap())).unwrap();
    let service = &service;
    std::thread::scope(|threads| {
        let asks = threads.spawn(|| service.secure(None).tls.write_all(GET).is_err());
        let (mut control, taken, pem) = handed_over(&relay);
        assert!(handover::turn_secret(&pem).is_some());
        control.write_all(&[&[BACK], GET].concat()).unwrap();
        let mut text = String::new();
        control.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        drop(taken);
        assert!(asks.join().unwrap());

        let asks = threads.spawn(|| service.secure(None).tls.write_all(GET).is_err());
        let (mut control, taken, _) = handed_over(&relay);
        control.write_all(&[KNOWN]).unwrap();
        drop(taken);
        assert!(asks.join().unwrap(), "nobody else has it");
    });
}
