//! Native clients at the limits of what a node holds: nobody loses what is theirs by that.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use strait_link::v1::{
    Auth, Authenticated, ClientMessage, Kind, MessagesTaken, Ping, Publish, SendMessage,
    client_message::Body as Request, server_message::Body, user_event::Body as Event,
};
use strait_link::{MESSAGE_BYTES, encode};

use crate::Service;
use crate::link::publish;
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
#[ignore = "768 publications take minutes on a busy machine"]
async fn a_scope_full_of_long_names_can_be_joined() {
    const PEERS: usize = 48;
    let service = Service::start_tls(|_| {}).await;
    let mut there = Vec::new();
    for _ in 0..PEERS {
        let (mut link, answer) = service.join("lobby", &"n".repeat(128));
        for _ in 0..16 {
            let name = "x".repeat(128);
            link.tell(Request::Publish(Publish { name, ..publish(Kind::Audio, "opus") }));
        }
        link.ask(Request::Ping(Ping { token: 1 })).unwrap();
        there.push((link, answer));
    }
    let (mut late, answer) = service.join("lobby", "late");
    let mut bytes = Vec::new();
    encode(&answer, &mut bytes);
    assert!(bytes.len() < MESSAGE_BYTES, "{}", bytes.len());
    let mut peers = answer.peers;
    assert!(peers.len() < PEERS, "some are told of after the answer");
    while peers.len() < PEERS {
        let Event::Joined(peer) = late.event() else { panic!() };
        peers.push(peer);
    }
    peers.dedup_by(|a, b| a.peer_id == b.peer_id);
    assert!(peers.len() == PEERS && peers.iter().all(|peer| peer.publications.len() == 16));
}
