//! Messages between peers, and links that break.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use strait_link::encode;
use strait_link::v1::{
    Auth, Authenticated, ClientMessage, ErrorCode, Leave, MessageReceived, MessageSeen,
    MessagesLost, MessagesTaken, Ping, Pong, SendMessage, client_message::Body as Request,
    server_message::Body, user_event::Body as Event,
};
use strait_proto::v1::{self, event::Event as Told};

use crate::native::{Native, auth};
use crate::socket::Client;
use crate::{PUBLISH, Service};

fn message(number: u64, to: &str, text: &str) -> Request {
    let (to, payload, text) = (to.to_owned(), text.as_bytes().to_vec(), true);
    Request::SendMessage(SendMessage { number, to, payload, text })
}

/// The next message, events aside.
fn heard(link: &mut Native) -> MessageReceived {
    loop {
        match link.next().expect("a message") {
            Body::Message(message) => return message,
            Body::Event(_) | Body::MessagesTaken(_) | Body::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn taken(link: &mut Native, request: Request) -> MessagesTaken {
    match link.ask(request).unwrap() {
        Body::MessagesTaken(taken) => taken,
        other => panic!("{other:?}"),
    }
}

fn resume(service: &Service, before: &Authenticated, seen: u64) -> (Native, Authenticated) {
    let mut link = service.link();
    let auth = Auth {
        session_id: before.session_id.clone(),
        reconnect: true,
        messages_seen: seen,
        ..auth("lobby", "Ann")
    };
    let answer = link.authenticate(auth).unwrap();
    (link, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_to_one_or_all_and_to_browsers() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, at_ann) = service.join("lobby", "Ann");
    let (mut bob, at_bob) = service.join("lobby", "Bob");
    let mut bea = Client::connect(&service, "Bea");
    let (sub, _) = bea.start("lobby", json!({})).unwrap();

    assert_eq!(taken(&mut ann, message(1, "", "to all")).number, 1);
    let at = heard(&mut bob);
    assert_eq!((at.number, at.from.as_str(), at.direct), (1, at_ann.peer_id.as_str(), false));
    assert_eq!((at.payload.as_slice(), at.text), (&b"to all"[..], true));
    let at = bea.expect_event("message");
    assert_eq!(
        at,
        json!({"event": "message", "from": at_ann.peer_id, "direct": false, "text": "to all"})
    );

    // Bytes, to one.
    let bytes =
        SendMessage { number: 2, to: bea.peer.clone(), payload: vec![0, 255, 1], text: false };
    assert_eq!(taken(&mut ann, Request::SendMessage(bytes)).undelivered, [0; 0]);
    let at = bea.expect_event("message");
    assert_eq!((at["data"].as_str(), at["direct"].as_bool()), (Some("AP8B"), Some(true)));
    let answer = json!({"event": "message", "to": at_bob.peer_id, "data": "AP8B"});
    bea.request(&sub, "NOTIFY", answer).unwrap();
    let at = heard(&mut bob);
    assert_eq!((at.number, at.payload.as_slice(), at.text), (2, &[0, 255, 1][..], false));
    assert_eq!((at.from.as_str(), at.direct), (bea.peer.as_str(), true));
    let both = json!({"event": "message", "text": "x", "data": "AP8B"});
    assert_eq!(bea.request(&sub, "NOTIFY", both).unwrap_err()["error_code"], 400);

    // Nobody is there, or it takes none.
    assert_eq!(taken(&mut ann, message(3, "p-none", "x")).undelivered, [3]);
    let whip = reqwest::Client::new().post(service.url("/whip/lobby")).bearer_auth("dev");
    let whip = whip.header("content-type", "application/sdp").body(PUBLISH);
    assert_eq!(whip.send().await.unwrap().status(), 201);
    let publisher = loop {
        match ann.event() {
            Event::Joined(peer) if !["Bob", "Bea"].contains(&peer.name.as_str()) => break peer,
            _ => {}
        }
    };
    assert_eq!(taken(&mut ann, message(4, &publisher.peer_id, "x")).undelivered, [4]);
    let none = json!({"event": "message", "to": "p-none", "text": "x"});
    assert_eq!(bea.request(&sub, "NOTIFY", none).unwrap_err()["error_code"], 404);

    // A gap, a double, and one too large.
    let gap = ann.ask(message(9, "", "gap")).unwrap_err();
    assert_eq!(gap.code(), ErrorCode::Conflict);
    assert!(gap.reason.contains('5'), "{gap:?}");
    assert_eq!(taken(&mut ann, message(4, "", "double")).number, 4);
    let large = ann.ask(message(5, "", &"x".repeat(65 << 10))).unwrap_err();
    assert_eq!(large.code(), ErrorCode::TooLarge);
    ann.tell(message(6, "", "last"));
    assert_eq!(heard(&mut bob).payload, b"last");
    assert_eq!(service.metric("control_link_messages_total").await, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_sender_is_kept_over_broken_links() {
    const EACH: u64 = 300;
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, mut at_ann) = service.join("lobby", "Ann");
    let (mut bob, at_bob) = service.join("lobby", "Bob");
    let (mut cat, _) = service.join("lobby", "Cat");
    let mut seen = Vec::new();
    for (number, round) in (1..=EACH).zip(1u64..) {
        bob.tell(message(number, &at_ann.peer_id, &format!("bob {number}")));
        cat.tell(message(number, "", &format!("cat {number}")));
        if round % 50 != 0 {
            continue;
        }
        // Some are read and not confirmed, most are not read: the link breaks.
        for _ in 0..7 {
            seen.push(heard(&mut ann));
        }
        if round % 100 == 0 {
            let number = seen.last().unwrap().number;
            ann.tell(Request::MessageSeen(MessageSeen { number }));
            ann.ask(Request::Ping(Ping { token: 1 })).unwrap();
        }
        ann.cut();
        (ann, at_ann) = resume(&service, &at_ann, seen.last().unwrap().number);
        assert!(at_ann.resumed, "{at_ann:?}");
        assert_eq!(at_ann.peers.len(), 2, "who is there is told anew");
    }
    while (seen.len() as u64) < 2 * EACH {
        seen.push(heard(&mut ann));
    }
    let numbers: Vec<u64> = seen.iter().map(|message| message.number).collect();
    assert_eq!(numbers, (1..=2 * EACH).collect::<Vec<_>>(), "none is lost, none comes twice");
    for name in ["bob", "cat"] {
        let texts = seen.iter().map(|message| std::str::from_utf8(&message.payload).unwrap());
        let mine: Vec<&str> = texts.filter(|text| text.starts_with(name)).collect();
        let wanted: Vec<String> = (1..=EACH).map(|number| format!("{name} {number}")).collect();
        assert_eq!(mine, wanted);
    }
    // What is sent again after a reconnect is taken once.
    let (mut bob, again) = {
        bob.cut();
        let auth = Auth { session_id: at_bob.session_id.clone(), ..auth("lobby", "Bob") };
        let mut link = service.link();
        let answer = link.authenticate(auth).unwrap();
        (link, answer)
    };
    assert!(again.resumed);
    assert!(matches!(bob.next(), Some(Body::MessagesTaken(taken)) if taken.number == EACH));
    bob.tell(message(EACH, &at_ann.peer_id, "again"));
    bob.tell(message(EACH + 1, &at_ann.peer_id, "new"));
    assert_eq!(heard(&mut ann).payload, b"new");
    assert!(service.metric("control_links_resumed_total").await.unwrap() >= 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_link_with_all_it_has() {
    let service = Service::start_tls(|config| config.link.reconnect_seconds = 3).await;
    let (mut ann, before) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    let camera = crate::link::publish(strait_link::v1::Kind::Video, "VP8");
    let Ok(Body::Published(camera)) = ann.ask(Request::Publish(camera)) else { panic!() };
    assert!(matches!(bob.event(), Event::Started(_)));
    ann.cut();
    for _ in 0..500 {
        if service.metric("control_links{state=\"waiting\"}").await == Some(1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What is told only once waits for her.
    let (scope_id, scope) = service.relay.scope();
    let peer_id = scope.publications[&camera.publication_id].peer_id.clone();
    let publication_id = camera.publication_id.clone();
    let wanted = v1::LayersWanted { scope_id, peer_id, publication_id, encodings: vec![] };
    service.relay.emit(Told::LayersWanted(wanted));
    // A stranger gets no session by its name alone, nor for another scope.
    let other = Auth { session_id: before.session_id.clone(), ..auth("hall", "Eve") };
    let mut eve = service.link();
    assert!(!eve.authenticate(other).unwrap().resumed);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (mut ann, after) = resume(&service, &before, 0);
    assert!(after.resumed);
    assert_eq!((after.peer_id, after.key), (before.peer_id.clone(), before.key.clone()));
    assert_eq!(after.node_ice, before.node_ice, "media goes on");
    assert!(matches!(ann.event(), Event::LayersWanted(wanted) if wanted.encodings.is_empty()));
    // A second link takes over from the first.
    let (mut second, _) = resume(&service, &before, 0);
    assert_eq!(ann.last_words().0, ErrorCode::Conflict);
    second.ask(Request::Ping(Ping { token: 1 })).unwrap();
    second.cut();
    // Nobody comes back: it is over.
    assert!(matches!(bob.event(), Event::Ended(_)));
    assert!(matches!(bob.event(), Event::Left(left) if left.reason == "connection lost"));
    let (_, fresh) = resume(&service, &before, 0);
    assert!(!fresh.resumed && fresh.peer_id != before.peer_id);
    bob.ask(Request::Leave(Leave::default())).unwrap();
}

/// The next word on messages that were lost.
fn lost(link: &mut Native) -> MessagesLost {
    loop {
        match link.next().expect("a word on lost messages") {
            Body::MessagesLost(lost) => return lost,
            Body::Event(_) | Body::MessagesTaken(_) | Body::Ping(_) | Body::KeyChanged(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sender_is_told_once_what_was_lost_with_a_receiver() {
    let service = Service::start_tls(|config| config.link.reconnect_seconds = 2).await;
    let (mut ann, at_ann) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    let (mut cat, at_cat) = service.join("lobby", "Cat");
    let mut bea = Client::connect(&service, "Bea");
    let (sub, _) = bea.start("lobby", json!({})).unwrap();
    // Ann confirms the first alone. One of Bob's is not for her.
    bob.tell(message(1, "", "1"));
    assert_eq!(heard(&mut ann).payload, b"1");
    ann.tell(Request::MessageSeen(MessageSeen { number: 1 }));
    ann.ask(Request::Ping(Ping { token: 1 })).unwrap();
    bob.tell(message(2, &at_ann.peer_id, "2"));
    bob.tell(message(3, &at_cat.peer_id, "3"));
    taken(&mut bob, message(4, "", "4"));
    let answer = json!({"event": "message", "to": at_ann.peer_id, "text": "from Bea"});
    bea.request(&sub, "NOTIFY", answer).unwrap();
    assert_eq!((2..=4).map(|_| heard(&mut ann).number).last(), Some(4));
    // She never comes back. Cat left her own way, and had not confirmed either.
    ann.cut();
    cat.ask(Request::Leave(Leave::default())).unwrap();
    let told = lost(&mut bob);
    let expected = MessagesLost { peer_id: at_ann.peer_id.clone(), count: 2, first: 2, last: 4 };
    assert_eq!(told, expected);
    for text in ["1", "4"] {
        assert_eq!(bea.expect_event("message")["text"], text);
    }
    for _ in ["Cat", "Ann"] {
        bea.expect_event("left");
    }
    let told = bea.expect_event("messages-lost");
    assert_eq!(told, json!({"event": "messages-lost", "peer": at_ann.peer_id, "count": 1}));
    // From here on the sender learns it at once, and nothing twice.
    assert_eq!(taken(&mut bob, message(5, &at_ann.peer_id, "5")).undelivered, [5]);
    assert!(bob.is_silent(Duration::from_millis(200)));
}

/// Says so many messages as fast as the link takes them, and reads and confirms all the time what comes,
/// until as many came from the other and all were taken. Returns what came.
fn say_and_hear(link: &mut Native, count: u64, payload: &[u8]) -> Vec<MessageReceived> {
    let mut out = Vec::new();
    for number in 1..=count {
        let payload = [&number.to_be_bytes(), payload].concat();
        let body =
            Some(Request::SendMessage(SendMessage { number, payload, ..Default::default() }));
        encode(&ClientMessage { request: 0, body }, &mut out);
    }
    let mut out = VecDeque::from(out);
    let (mut got, mut taken) = (Vec::new(), 0);
    let end = Instant::now() + Duration::from_secs(60);
    link.tls.sock.set_nonblocking(true).unwrap();
    while (got.len() as u64) < count || taken < count {
        assert!(Instant::now() < end, "{} came, {taken} were taken", got.len());
        let is_idle = match link.tls.write(out.make_contiguous()) {
            Ok(written) => out.drain(..written).len() == 0,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}; {} came", got.len());
                true
            }
        };
        // A confirmation each, behind all that was said before it.
        while let Some(message) = link.try_read() {
            match message.body {
                Some(Body::Message(message)) => {
                    let seen = MessageSeen { number: message.number };
                    let body = Some(Request::MessageSeen(seen));
                    let mut bytes = Vec::new();
                    encode(&ClientMessage { request: 0, body }, &mut bytes);
                    out.extend(bytes);
                    got.push(message);
                }
                Some(Body::MessagesTaken(told)) => taken = told.number,
                Some(Body::Error(error)) => {
                    panic!("{error:?}: {} came, {taken} were taken, {} wait", got.len(), out.len())
                }
                _ => {}
            }
        }
        if is_idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    link.tls.sock.set_nonblocking(false).unwrap();
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_much_is_read_for_its_confirmations_while_its_messages_wait() {
    const RATE: u32 = 1500;
    const EACH: u64 = 6000;
    let change = |config: &mut strait_control::Config| config.link.messages_per_second = RATE;
    let service = Service::start_tls(change).await;
    // Both are there before the first word.
    let links = ["Ann", "Bob"].map(|name| service.join("lobby", name).0);
    let talkers = links.map(|mut link| {
        std::thread::spawn(move || (say_and_hear(&mut link, EACH, &[7; 60]), link))
    });
    for talked in talkers.map(std::thread::JoinHandle::join) {
        let (got, mut link) = talked.unwrap();
        let numbers = got.iter().map(|message| message.number);
        assert!(numbers.eq(1..=EACH), "none is lost, none comes twice");
        assert!(got.iter().zip(1..=EACH).all(|(at, n)| at.payload[..8] == u64::to_be_bytes(n)));
        link.ask(Request::Ping(Ping { token: 1 })).unwrap();
    }
    assert!(service.metric("control_link_held_total").await.unwrap() > 0, "it was held");
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_many_wait_for_who_reads_later() {
    const SENDERS: usize = 6;
    const EACH: u64 = 34;
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, at_ann) = service.join("lobby", "Ann");
    let payload = vec![7; 60_000];
    // As much as each may say at once; together more than sockets keep.
    let links: Vec<Native> = (0..SENDERS).map(|_| service.join("lobby", "Bob").0).collect();
    let senders = links.into_iter().map(|mut link| {
        let (to, payload) = (at_ann.peer_id.clone(), payload.clone());
        std::thread::spawn(move || {
            for number in 1..=EACH {
                let payload = [&number.to_be_bytes(), payload.as_slice()].concat();
                let to = to.clone();
                link.tell(Request::SendMessage(SendMessage { number, to, payload, text: false }));
            }
            link
        })
    });
    let senders: Vec<_> = senders.collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut last = HashMap::new();
    for expected in 1..=EACH * SENDERS as u64 {
        let message = heard(&mut ann);
        assert_eq!(message.number, expected);
        let before = last.insert(message.from, message.payload[..8].to_vec());
        let before = before.map_or(0, |b| u64::from_be_bytes(b.try_into().unwrap()));
        assert_eq!(message.payload[..8], (before + 1).to_be_bytes());
        ann.tell(Request::MessageSeen(MessageSeen { number: expected }));
    }
    drop(senders.into_iter().map(|sender| sender.join().unwrap()).collect::<Vec<_>>());
    let cut = service.metric("control_links_resumed_total").await;
    assert_eq!(cut, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_confirm_is_cut_off() {
    // As many of these wait for one.
    const WAITING: u64 = (16 << 20) / (60 << 10);
    let service = Service::start_tls(|config| config.link.kibibytes_per_second = 0).await;
    let (mut ann, at_ann) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    // She reads all and confirms nothing.
    let reader = std::thread::spawn(move || {
        let mut bytes = 0;
        loop {
            match ann.next().expect("a last word") {
                Body::Message(message) => bytes += message.payload.len(),
                Body::Error(error) => return (bytes, error.code()),
                _ => {}
            }
        }
    });
    let payload = "x".repeat(60 << 10);
    for number in 1..=300 {
        bob.tell(message(number, "", &payload));
        if number % 10 == 0 {
            bob.ask(Request::Ping(Ping { token: number })).unwrap();
        }
    }
    let (bytes, code) = reader.join().unwrap();
    assert_eq!(code, ErrorCode::SlowReader);
    // So much she was sent, the rest waited.
    assert_eq!(bytes, (4_usize << 20).next_multiple_of(payload.len()));
    while !matches!(bob.event(), Event::Left(left) if left.reason == "too slow") {}
    // He is told once of all that she did not confirm: everything, but what was said to nobody.
    let lost = lost(&mut bob);
    assert_eq!((lost.peer_id, lost.first), (at_ann.peer_id, 1));
    assert_eq!(lost.count, lost.last);
    assert!((WAITING..=300).contains(&lost.last), "{}", lost.last);
    let counted = "control_link_refusals_total{code=\"slow_reader\"}";
    assert_eq!(service.metric(counted).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_confirms_nothing_for_long_is_told_though_little_waits() {
    let service = Service::start_tls(|config| config.link.kibibytes_per_second = 0).await;
    let (mut ann, _) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    ann.tls.sock.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        loop {
            match ann.next().expect("a last word") {
                // The first half in time, the others never.
                Body::Message(message) if message.number <= 70 => {
                    ann.tell(Request::MessageSeen(MessageSeen { number: message.number }));
                }
                Body::Message(message) => seen = message.number,
                Body::Ping(ping) => ann.tell(Request::Pong(Pong { token: ping.token })),
                Body::Error(error) => return (seen, error.code()),
                _ => {}
            }
        }
    });
    let payload = "x".repeat(60 << 10);
    (1..=150).for_each(|number| bob.tell(message(number, "", &payload)));
    bob.ask(Request::Ping(Ping { token: 1 })).unwrap();
    let start = Instant::now();
    let (seen, code) = reader.join().unwrap();
    assert_eq!(code, ErrorCode::SlowReader);
    assert!(start.elapsed() > Duration::from_secs(25), "it had its time");
    assert!((130..150).contains(&seen), "{seen}: a window was sent, the rest waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_behind_messages_that_wait_has_left() {
    let service = Service::start_tls(|config| config.link.messages_per_second = 100).await;
    let (mut ann, _) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    // More than it may say at once, then goodbye, and the connection is closed at once.
    (1..=300).for_each(|number| ann.tell(message(number, "", "x")));
    ann.tell(Request::Leave(Leave::default()));
    while !matches!(ann.next(), Some(Body::MessagesTaken(taken)) if taken.number >= 200) {}
    drop(ann);
    let mut last = 0;
    loop {
        match bob.next().expect("events") {
            Body::Message(message) => last = message.number,
            Body::Event(event) => {
                if let Some(Event::Left(left)) = event.body {
                    assert_eq!(left.reason, "left");
                    break;
                }
            }
            _ => {}
        }
    }
    assert_eq!(last, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_link_is_pinged_and_then_given_up() {
    let service = Service::start_tls(|config| config.link.ping_seconds = 1).await;
    let (mut link, answer) = service.join("lobby", "Ann");
    assert_eq!(answer.ping_ms, 1000);
    assert!(matches!(link.next(), Some(Body::Ping(_))));
    let (code, reason) = link.last_words();
    assert_eq!(code, ErrorCode::TimedOut, "{reason}");
    assert!(resume(&service, &answer, 0).1.resumed, "the session waits");
}
