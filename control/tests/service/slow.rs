//! Clients whose lines are slow: what they ask for does not wait behind what others say to them.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use strait_link::v1::{
    ErrorCode, Ping, Pong, SendMessage, client_message::Body as Request, server_message::Body,
};

use crate::native::{Native, auth, trusting};
use crate::{Service, eventually};

/// 1 Mbit/s.
const BYTES_PER_SECOND: f64 = 125_000.0;

/// A client whose own system keeps little of what it did not read.
fn slow(service: &Service, name: &str) -> Native {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let node = service.server.https[0];
    socket.connect(&node.into()).unwrap();
    let config = trusting(&service.folder.path().join("certificate.pem"), Some(strait_link::ALPN));
    let mut link = Native::over(TcpStream::from(socket), config);
    link.authenticate(auth("lobby", name)).unwrap();
    link
}

/// Says so many long messages to all.
fn say(link: &mut Native, messages: u64) {
    for number in 1..=messages {
        let payload = vec![7; 60_000];
        link.tell(Request::SendMessage(SendMessage { number, payload, ..Default::default() }));
    }
    // They were all taken.
    link.ask(Request::Ping(Ping { token: 1 })).unwrap();
}

/// Reads as a line of 1 Mbit/s would bring it. Returns the bytes of messages until `is_over`.
fn read(link: &mut Native, mut is_over: impl FnMut(&Body) -> bool) -> usize {
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        let body = link.read().expect("it goes on").body.expect("a known message");
        if is_over(&body) {
            return bytes;
        }
        if let Body::Message(message) = body {
            bytes += message.payload.len();
        }
        let due = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_over_a_slow_line_is_answered_before_what_waits() {
    let service = Service::start_tls(|config| config.link.kibibytes_per_second = 0).await;
    let mut ann = slow(&service, "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    say(&mut bob, 60);
    let start = Instant::now();
    read(&mut ann, |_| start.elapsed() > Duration::from_secs(1));
    ann.request(Request::Ping(Ping { token: 7 }));
    let bytes = read(&mut ann, |body| matches!(body, Body::Pong(Pong { token: 7 })));
    // 2 s of that line.
    assert!(bytes < 250_000, "{bytes} bytes came before the answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_what_it_is_sent_lives_and_who_does_not_is_found() {
    let service = Service::start_tls(|config| {
        config.link.kibibytes_per_second = 0;
        config.link.ping_seconds = 1;
    })
    .await;
    let mut ann = slow(&service, "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    std::thread::spawn(move || {
        say(&mut bob, 60);
        while let Some(message) = bob.read() {
            if let Some(Body::Ping(ping)) = message.body {
                bob.tell(Request::Pong(Pong { token: ping.token }));
            }
        }
    });
    // Twice as long as a silent link lives.
    let start = Instant::now();
    let bytes = read(&mut ann, |body| {
        assert!(!matches!(body, Body::Error(_)), "{body:?}");
        start.elapsed() > Duration::from_secs(6)
    });
    assert!(bytes > 100_000, "{bytes}");
    // Its system is there and acknowledges what comes, but takes no more.
    let start = Instant::now();
    eventually("the link is lost", || service.server.app.links.states()[2].1 > 0).await;
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    let mut last = None;
    while let Some(message) = ann.read() {
        last = message.body;
    }
    let Some(Body::Error(error)) = last else { panic!("{last:?}") };
    assert_eq!(error.code(), ErrorCode::TimedOut, "{}", error.reason);
}
