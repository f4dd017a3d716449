//! Bad input to a real node while two talk: each kind has its error and its metric, and the call loses not a packet.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strait_link::v1::{
    ErrorCode, Kind, Ping, SendMessage, client_message::Body as Request, server_message::Body,
};
use strait_wire::demux;
use strait_wire::rtp::Packet;
use tokio::task::block_in_place;

use crate::link_client::{Native, auth, trusting};
use crate::native::{Client, Node};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a voice, for as long as it lasts.
const PAUSE: Duration = Duration::from_millis(20);

/// Two talk through the node while `happens` does. All that was said has to arrive, each packet once.
fn while_two_talk(node: &Node, happens: impl FnOnce()) {
    let (mut ann, mut bob) = (node.join("Ann"), node.join("Bob"));
    ann.check();
    bob.check();
    let voice = ann.publish(Kind::Audio, "opus");
    let to_bob = bob.subscribe(&voice, true).ssrc;
    let (said, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (count, heard) = std::thread::scope(|threads| {
        let (said, is_over) = (&said, &is_over);
        let ann = &mut ann;
        let saying = threads.spawn(move || {
            let (mut seq, mut checked) = (0, Instant::now());
            while !is_over.load(Ordering::Relaxed) {
                seq += 1;
                ann.say(voice.encodings[0].ssrc, seq);
                if checked.elapsed() > Duration::from_secs(5) {
                    // For consent.
                    ann.send(&ann.request());
                    checked = Instant::now();
                }
                std::thread::sleep(PAUSE);
            }
            said.store(true, Ordering::Relaxed);
            seq
        });
        let bob = &mut bob;
        let hearing = threads.spawn(move || {
            let (mut heard, mut checked) = (Vec::new(), Instant::now());
            loop {
                if checked.elapsed() > Duration::from_secs(5) {
                    bob.send(&bob.request());
                    checked = Instant::now();
                }
                // What was there when nothing more was said is the rest.
                let is_last = said.load(Ordering::Relaxed);
                let Some(mut bytes) = bob.receive() else {
                    match is_last {
                        true => break heard,
                        false => continue,
                    }
                };
                if demux::classify(&bytes) != demux::Kind::Rtp {
                    continue;
                }
                let length = bob.inbound.unprotect_rtp(&mut bytes).expect("the session key");
                let packet = Packet::parse(&bytes[..length]).unwrap();
                if packet.ssrc() == to_bob {
                    heard.push(packet.header().seq());
                }
            }
        });
        // What is said until the stream is there goes by.
        std::thread::sleep(50 * PAUSE);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(happens));
        is_over.store(true, Ordering::Relaxed);
        let talked = (saying.join().unwrap(), hearing.join().unwrap());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        talked
    });
    let first = heard.first().copied().expect("something");
    let last = heard.last().copied().expect("something");
    assert!(heard.is_sorted_by(|one, next| one < next), "each once, in order");
    assert_eq!(heard.len(), usize::from(last - first) + 1, "nothing is lost of {count}");
    assert!(heard.len() + 50 >= usize::from(count), "{} of {count}", heard.len());
}

fn metric(node: &Node, series: &str) -> u64 {
    let app = &node.server.app;
    let text =
        tokio::runtime::Handle::current().block_on(strait_control::http::metrics::write(app));
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or("0").parse().unwrap()
}

fn refusals(node: &Node, code: &str) -> u64 {
    metric(node, &format!("control_link_refusals_total{{code=\"{code}\"}}"))
}

fn link(node: &Node) -> Native {
    let tls = trusting(&node.folder.path().join("certificate.pem"), Some(strait_link::ALPN));
    Native::open(node.server.https[0], tls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_say_nothing_cost_a_call_no_packet() {
    const COUNT: usize = 1000;
    if !has_files(3 * COUNT) {
        let test = "a_thousand_who_say_nothing_cost_a_call_no_packet";
        return strait_tests::skip(test, "too few files may be open: raise `ulimit -n` to 4096");
    }
    let node = Node::start_with(|_| {}).await;
    block_in_place(|| {
        while_two_talk(&node, || {
            // Half of them begin TLS.
            let silent: Vec<_> = (0..COUNT)
                .map(|number| {
                    let mut one = TcpStream::connect(node.server.https[0]).unwrap();
                    one.write_all(&[0x16, 3, 1, 2, 0, 1][..6 * (number % 2)]).unwrap();
                    one
                })
                .collect();
            // Others come in meanwhile.
            link(&node).authenticate(auth("elsewhere", "Cid")).unwrap();
            for mut one in silent {
                one.set_read_timeout(Some(PATIENCE)).unwrap();
                let ended = one.read(&mut [0; 64]);
                let kinds = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                assert!(!ended.is_err_and(|e| kinds.contains(&e.kind())), "one is held for ever");
            }
            let start = Instant::now();
            while refusals(&node, "timed_out") < COUNT as u64 {
                assert!(start.elapsed() < PATIENCE, "{}", refusals(&node, "timed_out"));
                std::thread::sleep(PAUSE);
            }
        });
    });
    node.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_nonsense_cost_a_call_no_packet() {
    const PLACES: usize = 60;
    let node = Node::start_with(|config| config.limits.sessions_per_address = PLACES).await;
    block_in_place(|| {
        while_two_talk(&node, || {
            // Frames that are too large, no frames, and halves of frames.
            for _ in 0..20 {
                let mut large = link(&node);
                large.tls.write_all(&[0xff; 4]).unwrap();
                assert_eq!(large.last_words().0, ErrorCode::TooLarge);
                let mut garbage = link(&node);
                garbage.tls.write_all(&[0, 0, 0, 2, 0xff, 0xff]).unwrap();
                assert_eq!(garbage.last_words().0, ErrorCode::Malformed);
                let mut half = link(&node);
                half.tls.write_all(&[0, 0, 0, 9, 1, 2]).unwrap();
                half.cut();
            }
            // Who is gone before it hears of it is counted all the same.
            let start = Instant::now();
            while refusals(&node, "malformed") < 40 && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!((refusals(&node, "too_large"), refusals(&node, "malformed")), (20, 40));

            slow_reader(&node);

            // More than may come in.
            let mut inside = Vec::new();
            let mut refused = 0;
            for number in 0..5 * PLACES {
                let mut link = link(&node);
                match link.authenticate(auth("flood", &format!("x{number}"))) {
                    Ok(_) => inside.push(link),
                    Err(error) => {
                        assert_eq!(error.code(), ErrorCode::TooMany);
                        refused += 1;
                    }
                }
            }
            assert!(inside.len() < PLACES && refused > 4 * PLACES, "{refused}");
            assert!(refusals(&node, "too_many") >= refused as u64);
        });
    });
    node.server.stop().await;
}

/// Somebody is told much and reads nothing.
fn slow_reader(node: &Node) {
    let (mut dan, eve): (Client, Client) = (node.join("Dan"), node.join("Eve"));
    let start = Instant::now();
    for number in 1.. {
        let to = eve.peer();
        dan.link.tell(Request::SendMessage(SendMessage {
            number,
            to,
            payload: vec![7; 60 << 10],
            text: false,
        }));
        // The node has it.
        assert!(matches!(dan.link.ask(Request::Ping(Ping { token: number })), Ok(Body::Pong(_))));
        if refusals(node, "slow_reader") > 0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it is kept for {number} messages");
    }
    drop(eve);
}

/// Whether so many files can be open.
fn has_files(count: usize) -> bool {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.is_some_and(|soft| {
        soft == "unlimited" || soft.parse().is_ok_and(|most: usize| most > count)
    })
}
