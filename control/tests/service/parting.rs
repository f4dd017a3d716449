//! What becomes of messages that wait when the process ends, while its relay lives.

use std::time::{Duration, Instant};

use strait_control::Config;
use strait_link::v1::{
    Auth, Authenticated, ErrorCode, MessageReceived, MessageSeen, SendMessage,
    client_message::Body as Request, server_message::Body,
};

use crate::native::{Native, auth};
use crate::recall::{Process, again, noted, relay, until};

/// 8 MiB in all: more than is sent before any is confirmed.
const MESSAGES: u64 = 200;
const BYTES: usize = 42_000;
/// As documented.
const HANDOVER: Duration = Duration::from_secs(5);

/// Nobody is held up, and sessions wait for as long as a slow machine needs.
fn patient(config: &mut Config) {
    config.link.messages_per_second = 0;
    config.link.kibibytes_per_second = 0;
    config.link.reconnect_seconds = 60;
}

fn message(number: u64) -> Request {
    let payload = vec![u8::try_from(number % 251).unwrap(); BYTES];
    Request::SendMessage(SendMessage { number, payload, ..SendMessage::default() })
}

/// Ann says all that she has to say, and the node took it.
fn say_all(ann: &mut Native) {
    (1..=MESSAGES).for_each(|number| ann.tell(message(number)));
    noted(ann);
}

fn received(link: &mut Native) -> MessageReceived {
    let received = until(link, |body| match body {
        Body::Message(message) => Some(message),
        _ => None,
    });
    assert!(received.payload.iter().all(|byte| u64::from(*byte) == received.number % 251));
    received
}

fn back(
    process: &Process,
    session: &Authenticated,
    name: &str,
    seen: u64,
) -> (Native, Authenticated) {
    let (link, answer) = process.join(Auth { messages_seen: seen, ..again(session, name) });
    assert!(answer.resumed, "{answer:?}");
    (link, answer)
}

#[test]
fn who_reads_slowly_gets_all_that_was_taken_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, _running) = relay(&folder);
    let first = Process::start_with(folder.path(), patient);
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    let (mut bob, at_bob) = first.join(auth("lobby", "Bob"));
    say_all(&mut ann);
    let (links, began) = (first.server.app.links.clone(), Instant::now());
    let ending = std::thread::spawn(move || {
        first.pause();
        began.elapsed()
    });
    while !links.leaves_sessions() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // What she says from here on is for the next process.
    ann.tell(message(MESSAGES + 1));
    for number in 1..=MESSAGES {
        assert_eq!(received(&mut bob).number, number, "once, and in order");
        if number % 20 == 0 {
            bob.tell(Request::MessageSeen(MessageSeen { number }));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(bob.last_words().0, ErrorCode::Unavailable);
    assert_eq!(ann.last_words().0, ErrorCode::Unavailable);
    let ended = ending.join().unwrap();
    assert!(ended > Duration::from_millis(450), "it waited for him: {ended:?}");
    drop(links);

    let second = Process::start_with(folder.path(), patient);
    let (mut bob, bob_again) = back(&second, &at_bob, "Bob", MESSAGES);
    assert_eq!((bob_again.messages_gone, bob_again.messages_uncertain), (MESSAGES, false));
    let (mut ann, _) = back(&second, &at_ann, "Ann", 0);
    ann.tell(message(MESSAGES + 1));
    assert_eq!(received(&mut bob).number, MESSAGES + 1, "it was not taken before");
    let _second = second.kill();
}

#[test]
fn who_reads_nothing_holds_up_no_end_and_learns_what_is_lost() {
    const READ: u64 = 10;
    let folder = tempfile::tempdir().unwrap();
    let (_relay, _running) = relay(&folder);
    let first = Process::start_with(folder.path(), patient);
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    let (mut bob, at_bob) = first.join(auth("lobby", "Bob"));
    // Whose link is broken reads nothing either, and is not waited for.
    let (cat, at_cat) = first.join(auth("lobby", "Cat"));
    cat.cut();
    first.wait("her link is lost", |first| first.server.app.links.states()[2].1 == 1);
    say_all(&mut ann);
    for number in 1..=READ {
        assert_eq!(received(&mut bob).number, number);
    }
    // She may not know what was taken.
    ann.cut();
    first.wait("her link is lost", |first| first.server.app.links.states()[2].1 == 2);
    let began = Instant::now();
    first.pause();
    let took = began.elapsed();
    let most = HANDOVER + Duration::from_secs(10);
    assert!(took >= HANDOVER && took < most, "{took:?}");

    let second = Process::start_with(folder.path(), patient);
    for (session, name, seen) in [(&at_bob, "Bob", READ), (&at_cat, "Cat", 0)] {
        let (link, answer) = back(&second, session, name, seen);
        assert_eq!((answer.messages_gone, answer.messages_uncertain), (MESSAGES, false), "{name}");
        drop(link.tls.sock.shutdown(std::net::Shutdown::Both));
    }
    let (mut bob, _) = back(&second, &at_bob, "Bob", MESSAGES);
    let (mut ann, _) = back(&second, &at_ann, "Ann", 0);
    // One that was taken before, and the next.
    ann.tell(message(MESSAGES));
    ann.tell(message(MESSAGES + 1));
    assert_eq!(received(&mut bob).number, MESSAGES + 1, "none has the number of one that is lost");
    let _second = second.kill();
}

#[test]
fn an_end_waits_for_nobody_who_has_all() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, _running) = relay(&folder);
    let first = Process::start_with(folder.path(), patient);
    let (mut ann, _) = first.join(auth("lobby", "Ann"));
    let (mut bob, at_bob) = first.join(auth("lobby", "Bob"));
    ann.tell(message(1));
    let number = received(&mut bob).number;
    bob.tell(Request::MessageSeen(MessageSeen { number }));
    noted(&mut bob);
    let began = Instant::now();
    first.pause();
    let took = began.elapsed();
    assert!(took < HANDOVER - Duration::from_secs(2), "{took:?}");

    // One that is killed tells nothing of what it had.
    let second = Process::start_with(folder.path(), patient);
    let (_bob, bob_again) = back(&second, &at_bob, "Bob", 1);
    assert_eq!((bob_again.messages_gone, bob_again.messages_uncertain), (1, false));
    let _second = second.kill();
    let third = Process::start_with(folder.path(), patient);
    let (_bob, bob_again) = back(&third, &at_bob, "Bob", 1);
    assert_eq!((bob_again.messages_gone, bob_again.messages_uncertain), (1, true));
    // Who was told is not told again; who was not, is, also after an end in order.
    third.pause();
    let fourth = Process::start_with(folder.path(), patient);
    let (_bob, bob_again) = back(&fourth, &at_bob, "Bob", 1);
    assert!(!bob_again.messages_uncertain);
    let _fourth = fourth.kill();
    let fifth = Process::start_with(folder.path(), patient);
    fifth.pause();
    let sixth = Process::start_with(folder.path(), patient);
    let (_bob, bob_again) = back(&sixth, &at_bob, "Bob", 1);
    assert!(bob_again.messages_uncertain);
    let _sixth = sixth.kill();
}
