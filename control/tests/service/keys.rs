//! Session keys that change, and what one client may cost the others.

use std::io::Write;
use std::time::{Duration, Instant};

use strait_control::auth::{Claims, Signer, mint};
use strait_link::v1::{
    Auth, GetStatistics, Kind, Leave, MessageSeen, Ping, Publish, SendMessage, auth::Credential,
    client_message::Body as Request, server_message::Body,
};

use crate::fake_relay::FakeRelay;
use crate::native::{Native, auth};
use crate::{Service, eventually};

fn leave(link: &mut Native) {
    link.ask(Request::Leave(Leave::default())).unwrap();
}

/// Waits for an answer: what was told before it has come by then.
fn sync(link: &mut Native) {
    let answer = link.ask(Request::Ping(Ping { token: 7 })).unwrap();
    assert!(matches!(answer, Body::Pong(pong) if pong.token == 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_takes_a_key_along_that_is_of_no_use() {
    let service = Service::start_tls(|_| {}).await;
    let secret = service.add_application("acme").await;
    let applications = service.server.app.store.applications();
    applications.set_changes_keys("acme", true).await.unwrap();
    let join = |name: &str| {
        let claims = Claims::new("acme", name, "lobby", 4_000_000_000);
        let token = mint(&claims, Some("first"), &Signer::Hs256(&secret)).unwrap();
        let mut link = service.link();
        let credential = Some(Credential::Token(token));
        let answer = link.authenticate(Auth { credential, ..auth("lobby", name) }).unwrap();
        (link, answer.key.unwrap())
    };
    let ((mut ann, first), (mut bob, _), (mut eve, of_eve)) =
        (join("ann"), join("bob"), join("eve"));
    assert_eq!(of_eve, first);
    leave(&mut eve);
    let second = ann.key();
    assert_eq!(bob.key(), second);
    assert_eq!(second.profile, first.profile);
    assert!(second.key != first.key && second.salt != first.salt);
    let (_, scope) = service.relay.scope();
    assert_eq!(scope.key_changes.len(), 1, "the relay is told, and before the clients");
    assert_eq!(scope.key_changes[0].key, second.key);
    // Who comes gets the new one, at the relay as well.
    let (mut zoe, of_zoe) = join("zoe");
    assert_eq!(of_zoe, second);
    let (_, scope) = service.relay.scope();
    let at_relay = |key: &[u8]| {
        let keys = scope.peers.values().filter_map(|peer| peer.session_key.as_ref());
        keys.filter(|of_peer| of_peer.key == key).count()
    };
    assert_eq!((at_relay(&first.key), at_relay(&second.key)), (2, 1));
    // Two who leave one after the other, soon after the last change: one change more for both.
    leave(&mut zoe);
    leave(&mut bob);
    assert_ne!(ann.key(), second);
    sync(&mut ann);
    assert_eq!(service.relay.scope().1.key_changes.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_the_key_stays() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, first) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    leave(&mut bob);
    eventually("he is gone", || service.relay.scope().1.peers.len() == 1).await;
    sync(&mut ann);
    assert_eq!(service.relay.scope().1.key_changes, []);
    assert_eq!(service.join("lobby", "Zoe").1.key, first.key);
}

/// What the relay sent under a key went with it: under the same key nonces would come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_restarted_is_given_another_key() {
    let mut service = Service::start_tls(|_| {}).await;
    let (mut ann, first) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    let first = first.key.unwrap();
    service.relay_process.kill();
    let (relay, _process) = FakeRelay::start(&crate::socket(&service.folder));
    let lost = || service.server.app.scopes.counts().1 == 2 && relay.is_empty();
    eventually("the relay is empty", lost).await;
    // Both come back at once, by what they ask for.
    let publish =
        || Publish { kind: Kind::Audio.into(), codec: "opus".into(), ..Publish::default() };
    let again = [&mut ann, &mut bob].map(|link| {
        eventually_published(link, publish());
        link.key()
    });
    assert_eq!(again[0], again[1]);
    assert_ne!(again[0].key, first.key);
    let (_, scope) = relay.scope();
    let keys: Vec<_> = scope.peers.values().filter_map(|peer| peer.session_key.clone()).collect();
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|key| key.key == again[0].key), "none of before");
}

/// Publishes as soon as the loss of the transport is known.
fn eventually_published(link: &mut Native, publish: Publish) {
    let start = Instant::now();
    while let Err(error) = link.ask(Request::Publish(publish.clone())) {
        assert!(start.elapsed() < Duration::from_secs(20), "{error:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_asked_of_the_relay_now_and_then() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, _) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    let start = Instant::now();
    for _ in 0..50 {
        for link in [&mut ann, &mut bob] {
            let answer = link.ask(Request::GetStatistics(GetStatistics {})).unwrap();
            assert!(matches!(answer, Body::Statistics(told) if told.json.contains("connected")));
        }
    }
    let calls = service.relay.state.lock().unwrap().statistics_calls;
    let most = 1 + start.elapsed().as_millis() / 500;
    assert!(u128::from(calls) <= most, "{calls} in {:?}", start.elapsed());
    // Who comes is not told that it is not there.
    let (mut zoe, _) = service.join("lobby", "Zoe");
    zoe.ask(Request::GetStatistics(GetStatistics {})).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_too_fast_is_read_later_and_nothing_is_lost() {
    const RATE: u32 = 1000;
    const MESSAGES: u64 = 2500;
    let change = |config: &mut strait_control::Config| config.link.messages_per_second = RATE;
    let service = Service::start_tls(change).await;
    let (mut ann, _) = service.join("lobby", "Ann");
    let (mut bob, _) = service.join("lobby", "Bob");
    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        for number in 1..=MESSAGES {
            let payload = number.to_be_bytes().to_vec();
            ann.tell(Request::SendMessage(SendMessage { number, payload, ..Default::default() }));
        }
        ann
    });
    let mut expected = 1;
    while expected <= MESSAGES {
        let Some(Body::Message(message)) = bob.next() else { continue };
        assert_eq!(message.payload, expected.to_be_bytes(), "in order, none lost");
        if expected % 100 == 0 {
            bob.tell(Request::MessageSeen(MessageSeen { number: message.number }));
        }
        expected += 1;
    }
    let took = start.elapsed();
    // Two seconds' worth came at once.
    let least = Duration::from_millis((MESSAGES - 2 * u64::from(RATE)) * 1000 / u64::from(RATE));
    assert!(took >= least * 9 / 10, "{took:?}");
    let mut ann = sender.join().unwrap();
    sync(&mut ann);
    assert!(service.metric("control_link_held_total").await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_counts_for_the_pace_as_well() {
    let change = |config: &mut strait_control::Config| config.link.messages_per_second = 50;
    let service = Service::start_tls(change).await;
    let (mut ann, _) = service.join("lobby", "Ann");
    // Field 99 of a later version.
    for _ in 0..150 {
        ann.tls.write_all(&[0, 0, 0, 7, 0x08, 99, 0x9a, 0x06, 2, 1, 2]).unwrap();
    }
    sync(&mut ann);
    assert_eq!(service.metric("control_link_unknown_messages_total").await, Some(150));
    assert!(service.metric("control_link_held_total").await.unwrap() > 0);
}
