//! Native clients at the limits of what a node holds: nobody loses what is theirs by that.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use strait_link::encode;
use strait_link::v1::{
    Auth, Authenticated, ClientMessage, Media, MessagesTaken, Ping, SendMessage,
    client_message::Body as Request, server_message::Body,
};

use crate::Service;
use crate::native::{Native, auth, trusting};

fn message(number: u64, to: &str, payload: Vec<u8>) -> Request {
    Request::SendMessage(SendMessage { number, to: to.into(), payload, text: false })
}

fn resume(service: &Service, before: &Authenticated) -> (Native, Authenticated) {
    let mut link = service.link();
    let auth = Auth { session_id: before.session_id.clone(), ..auth("lobby", "") };
    let answer = link.authenticate(auth).unwrap();
    (link, answer)
}

async fn waiting(service: &Service, sessions: u64) {
    for _ in 0..1000 {
        if service.metric("control_links{state=\"waiting\"}").await == Some(sessions) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not {sessions} sessions without a link");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_can_come_back_to_a_full_node() {
    let service = Service::start_tls(|config| {
        config.limits.links = 3;
        config.limits.sessions_per_address = 3;
    })
    .await;
    let sessions = [(); 3].map(|()| service.join("lobby", "x"));
    let answers = sessions.map(|(link, answer)| {
        link.cut();
        answer
    });
    waiting(&service, 3).await;
    let back = answers.map(|before| resume(&service, &before));
    assert!(back.iter().all(|(_, answer)| answer.resumed));
    assert!(service.link().authenticate(auth("lobby", "one more")).is_err());
    assert_eq!(service.metric("control_links{state=\"open\"}").await, Some(3));
    let [(mut first, _), ..] = back;
    first.ask(Request::Leave(Default::default())).unwrap();
    while first.next().is_some() {}
    for _ in 0..1000 {
        if service.link().authenticate(auth("lobby", "one more")).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no place is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_of_one_address_are_bounded() {
    let service = Service::start_tls(|config| config.limits.sessions_per_address = 3).await;
    let mut held = Vec::new();
    let is_refused = loop {
        assert!(held.len() < 100, "nothing is refused");
        let mut half = TcpStream::connect(service.server.https[0]).unwrap();
        half.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        half.write_all(&[0x16, 0x03, 0x01]).unwrap();
        match half.read(&mut [0; 8]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => held.push(half),
            outcome => break outcome.unwrap_or(0) == 0,
        }
    };
    assert!(is_refused && held.len() >= 3, "{}", held.len());
    let refused = service.metric("control_link_refusals_total{code=\"too_many\"}").await;
    assert!(refused.unwrap() > 0);
    // Their places are given back.
    drop(held);
    for _ in 0..1000 {
        let certificate = service.folder.path().join("certificate.pem");
        let config = trusting(&certificate, Some(strait_link::ALPN));
        let mut link = Native::open(service.server.https[0], config);
        let mut bytes = Vec::new();
        let first = ClientMessage { request: 1, body: Some(Request::Auth(auth("lobby", "x"))) };
        encode(&first, &mut bytes);
        if link.tls.write_all(&bytes).is_ok() && link.read().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no place is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_kept_comes_again_however_much_it_is() {
    const COUNT: u64 = 60;
    let service = Service::start_tls(|_| {}).await;
    let (ann, at_ann) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    ann.cut();
    waiting(&service, 1).await;
    for number in 1..=COUNT {
        bob.tell(message(number, &at_ann.peer_id, vec![7; 60 << 10]));
    }
    bob.ask(Request::Ping(Ping { token: 1 })).unwrap();
    let (mut ann, again) = resume(&service, &at_ann);
    assert!(again.resumed);
    // Taken over again with all of it under way.
    let (mut last, _) = resume(&service, &at_ann);
    ann.read();
    for number in 1..=COUNT {
        let body = loop {
            match last.next().expect("the link goes on") {
                Body::Message(message) => break message,
                Body::MessagesTaken(_) | Body::Event(_) | Body::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((body.number, body.payload.len()), (number, 60 << 10));
    }
    last.ask(Request::Ping(Ping { token: 2 })).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reached_nobody_is_told_over_broken_links() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, before) = service.join("lobby", "Ann");
    ann.tell(message(1, "p-none", vec![1]));
    ann.tell(message(2, "", vec![2]));
    ann.tell(message(3, "p-none", vec![3]));
    // What the node says of them is lost.
    ann.ask(Request::Ping(Ping { token: 1 })).unwrap();
    ann.cut();
    let (mut ann, answer) = resume(&service, &before);
    assert!(answer.resumed);
    let told = MessagesTaken { number: 3, undelivered: vec![1, 3] };
    assert_eq!(ann.next(), Some(Body::MessagesTaken(told)));
    let Ok(Body::MessagesTaken(told)) = ann.ask(message(4, "p-none", vec![4])) else { panic!() };
    assert_eq!(told.undelivered, [4], "each once for each link");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_over_links_takes_places_at_the_relay() {
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Service::start_tls(|config| {
        config.relay.ice_tcp = Some(relay.local_addr().unwrap());
        config.limits.spliced_connections = 1;
    })
    .await;
    let (mut ann, _) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    let media = || Request::Media(Media { packet: vec![1, 2, 3] });
    ann.tell(media());
    let (mut at_relay, _) = relay.accept().unwrap();
    let mut frame = [0; 5];
    at_relay.read_exact(&mut frame).unwrap();
    assert_eq!(frame, [0, 3, 1, 2, 3]);
    bob.tell(media());
    bob.ask(Request::Ping(Ping { token: 1 })).unwrap();
    assert_eq!(service.metric("control_link_media_dropped_total").await, Some(1));
    // The place is given back with the connection.
    ann.ask(Request::Leave(Default::default())).unwrap();
    assert_eq!(at_relay.read(&mut frame).unwrap(), 0);
    relay.set_nonblocking(true).unwrap();
    for _ in 0..200 {
        bob.tell(media());
        bob.ask(Request::Ping(Ping { token: 2 })).unwrap();
        if relay.accept().is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no place is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_which_http_it_speaks_is_sent_away() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const GET: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let service = Service::start_tls(|_| {}).await;
    let certificate = service.folder.path().join("certificate.pem");
    let says = |alpn: Option<&[u8]>, said: &[u8]| {
        let mut client = Native::open(service.server.https[0], trusting(&certificate, alpn));
        client.tls.conn.complete_io(&mut client.tls.sock).unwrap();
        client.tls.write_all(said).unwrap();
        client.tls
    };
    // All wait at the same time.
    let mut hostile = [
        says(None, b"P"),
        says(None, &PREFACE[..23]),
        says(Some(b"h2"), b""),
        says(Some(b"h2"), &PREFACE[..10]),
    ];
    let plain = [&b"P"[..], &PREFACE[..23], b""].map(|said| {
        let mut client = TcpStream::connect(service.address()).unwrap();
        client.write_all(said).unwrap();
        client
    });
    let (mut idle, mut slow) = (says(Some(b"http/1.1"), b""), says(None, &GET[..1]));
    slow.write_all(&GET[1..5]).unwrap();
    let is_ended = |client: &mut dyn Read| {
        let ended = client.read_to_end(&mut Vec::new());
        let late = |kind| [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&kind);
        assert!(!ended.is_err_and(|error| late(error.kind())), "it is held for ever");
    };
    for client in &mut hostile {
        client.sock.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        is_ended(client);
    }
    // Who is to ask by HTTP/1.1 has the time of its headers.
    for (client, rest) in [(&mut idle, GET), (&mut slow, &GET[5..])] {
        client.write_all(rest).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    for mut client in plain {
        client.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        is_ended(&mut client);
    }
    let ended = service.metric("control_http_ended_total{reason=\"silent\"}").await;
    assert_eq!(ended, Some(hostile.len() as u64 + 3));
}
