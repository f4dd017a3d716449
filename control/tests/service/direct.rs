//! When the two of a scope are told of each other.

use serde_json::{Value, json};
use strait_control::auth::{Claims, Signer, mint};
use strait_control::limits;
use strait_link::v1::{
    AllowSenders, Auth, Authenticated, Direct, DirectWanted, Kind, Leave, Ping, Preferences,
    Publish, SetPreferences, Subscribe, SubscriptionsEnded, Unsubscribe, auth::Credential,
    client_message::Body as Request, server_message::Body, user_event::Body as Event,
};
use strait_proto::v1::{self, event::Event as Told, peer_left::Reason};

use crate::native::{Native, auth};
use crate::socket::Client;
use crate::{CONFERENCE, PUBLISH, Service};

const THIRD: &str = "a third one came";
const NO_UDP: &str = "one of the two is not reached over UDP, or may not go directly";

impl Service {
    /// The scope at the relay, and a client's newest transport there.
    fn transport(&self, of: &Authenticated) -> (String, String) {
        self.transport_of(&of.peer_id)
    }

    fn transport_of(&self, peer: &str) -> (String, String) {
        let (scope_id, scope) = self.relay.scope();
        let prefix = format!("{peer}.");
        let number = |peer: &&String| peer.strip_prefix(&prefix)?.parse::<u64>().ok();
        let newest = scope.peers.keys().filter(|peer| number(peer).is_some()).max_by_key(number);
        (scope_id, newest.expect("a transport").clone())
    }

    fn reach(&self, of: &Authenticated, place: &str) {
        self.reach_transport(self.transport(of), place);
    }

    fn reach_transport(&self, (scope_id, peer_id): (String, String), place: &str) {
        let (remote_address, protocol) = (place.to_owned(), "udp".to_owned());
        let connected = v1::PeerConnected { scope_id, peer_id, remote_address, protocol };
        self.relay.emit(Told::PeerConnected(connected));
    }

    fn move_to(&self, of: &Authenticated, protocol: &str, place: &str) {
        let (scope_id, peer_id) = self.transport(of);
        let (remote_address, protocol) = (place.to_owned(), protocol.to_owned());
        let moved = v1::PeerMoved { scope_id, peer_id, remote_address, protocol };
        self.relay.emit(Told::PeerMoved(moved));
    }

    /// Two who are reached over UDP.
    fn two(&self) -> [(Native, Authenticated); 2] {
        let (ann, bob) = (self.join("lobby", "Ann"), self.join("lobby", "Bob"));
        self.reach(&ann.1, "192.0.2.1:1000");
        self.reach(&bob.1, "192.0.2.2:2000");
        [ann, bob]
    }
}

/// A browser that is reached over UDP, and its subsession.
fn browser(service: &Service, name: &str, direct: bool) -> (Client, String) {
    enter(service, Client::connect(service, name), direct)
}

fn enter(service: &Service, mut browser: Client, direct: bool) -> (Client, String) {
    let (sub, _) = browser.start("lobby", json!({"sdp": CONFERENCE, "direct": direct})).unwrap();
    service.reach_transport(service.transport_of(&browser.peer), "192.0.2.9:9");
    while browser.event()["event"] != "connected" {}
    (browser, sub)
}

/// The next of these events; presence aside nothing else is said before it.
fn told(browser: &mut Client, name: &str) -> Value {
    loop {
        let event = browser.event();
        match event["event"].as_str().unwrap() {
            "joined" | "left" | "published" | "unpublished" => {}
            _ => {
                assert_eq!(event["event"], name, "{event}");
                return event;
            }
        }
    }
}

/// Nothing of it was said until now.
fn not_told(browser: &mut Client, sub: &str) {
    let to_oneself = json!({"event": "message", "to": browser.peer, "text": "and now?"});
    browser.request(sub, "NOTIFY", to_oneself).unwrap();
    told(browser, "message");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_browsers_are_told_of_each_other_and_signal_through_the_node() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, in_ann) = browser(&service, "Ann", true);
    not_told(&mut ann, &in_ann);
    let (mut bob, in_bob) = browser(&service, "Bob", true);
    let (to_ann, to_bob) = (told(&mut ann, "direct"), told(&mut bob, "direct"));
    assert_eq!((&to_ann["peer"], &to_bob["peer"]), (&json!(bob.peer), &json!(ann.peer)));
    let number = &to_ann["number"];
    assert_eq!(number, &to_bob["number"]);
    let relay = json!([{"urls": "stun:127.0.0.1:8443"}]);
    assert_eq!((&to_ann["iceServers"], &to_bob["iceServers"]), (&relay, &relay));
    assert_eq!(service.metric("control_websocket_direct_offers_total").await, Some(2));

    let signal = |text: &str| json!({"event": "signal", "number": number, "text": text});
    ann.message(&in_ann, "NOTIFY", signal("where I am"));
    assert_eq!(told(&mut bob, "signal"), signal("where I am"));
    bob.request(&in_bob, "NOTIFY", signal("and I")).unwrap();
    assert_eq!(told(&mut ann, "signal"), signal("and I"));
    let too_large = signal(&"x".repeat((64 << 10) + 1));
    assert_eq!(ann.request(&in_ann, "NOTIFY", too_large).unwrap_err()["error_code"], 413);
    let nameless = json!({"event": "signal", "text": "of which pair?"});
    assert_eq!(ann.request(&in_ann, "NOTIFY", nameless).unwrap_err()["error_code"], 400);

    let (mut cat, in_cat) = browser(&service, "Cat", true);
    for browser in [&mut ann, &mut bob] {
        assert_eq!(told(browser, "direct-ended")["reason"], THIRD);
    }
    // Of a pair that is no more, and of one that was never hers.
    for (browser, sub) in [(&mut ann, &in_ann), (&mut cat, &in_cat)] {
        browser.request(sub, "NOTIFY", signal("too late")).unwrap();
    }
    for (browser, sub) in [(&mut ann, &in_ann), (&mut bob, &in_bob), (&mut cat, &in_cat)] {
        not_told(browser, sub);
    }
    cat.request(&in_cat, "SHUTDOWN", json!({})).unwrap();
    let (again, _) = (told(&mut ann, "direct"), told(&mut bob, "direct"));
    assert_ne!(&again["number"], number);
    // A browser that begins anew is no longer reached, until it is.
    let (in_bob, _) = bob.start("lobby", json!({"sdp": CONFERENCE, "direct": true})).unwrap();
    assert_eq!(told(&mut ann, "direct-ended")["reason"], NO_UDP);
    service.reach_transport(service.transport_of(&bob.peer), "192.0.2.9:10");
    told(&mut ann, "direct");
    // Who changes its mind ends it, and may change it again.
    bob.request(&in_bob, "UPDATE", json!({"direct": false})).unwrap();
    told(&mut ann, "direct-ended");
    bob.request(&in_bob, "UPDATE", json!({"direct": true})).unwrap();
    told(&mut ann, "direct");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_its_mind_too_often_is_told_of_the_other_later() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, in_ann) = browser(&service, "Ann", true);
    let (mut bob, in_bob) = browser(&service, "Bob", true);
    told(&mut ann, "direct");
    for _ in 1..limits::DIRECT_BEGINNINGS {
        for direct in [false, true] {
            bob.request(&in_bob, "UPDATE", json!({"direct": direct})).unwrap();
            told(&mut ann, if direct { "direct" } else { "direct-ended" });
        }
    }
    for direct in [false, true] {
        bob.request(&in_bob, "UPDATE", json!({"direct": direct})).unwrap();
    }
    told(&mut ann, "direct-ended");
    not_told(&mut ann, &in_ann);
    // By itself.
    told(&mut ann, "direct");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_not_kept_for_who_is_away_and_need_no_grant_for_messages() {
    let service = Service::start_tls(|config| config.link.kibibytes_per_second = 0).await;
    let key = service.add_application("acme").await;
    let connect = |name: &str, change: fn(&mut Claims)| {
        let mut claims = Claims::new("acme", name, "*", 4_000_000_000);
        change(&mut claims);
        let token = mint(&claims, None, &Signer::Hs256(&key)).unwrap();
        let mut client = Client::open(&service, &format!("?token={token}"));
        let answer = client.ask(json!({}), json!({"action": "CONNECT"}), json!({})).unwrap();
        client.session = answer["control"]["session_id"].as_str().unwrap().into();
        client.peer = answer["payload"]["peer"].as_str().unwrap().into();
        (client, token)
    };
    let (mut ann, in_ann) =
        enter(&service, connect("Ann", |claims| claims.message = false).0, true);
    let (bob, token) = connect("Bob", |_| {});
    let (mut bob, _) = enter(&service, bob, true);
    let number = told(&mut bob, "direct")["number"].clone();
    let signal = |text: &str| json!({"event": "signal", "number": number, "text": text});
    let message = json!({"event": "message", "text": "hello"});
    assert_eq!(ann.request(&in_ann, "NOTIFY", message).unwrap_err()["error_code"], 403);

    // More than is kept of frames that were not acknowledged, and he acknowledges none.
    let large = signal(&"x".repeat(64 << 10));
    let enough = limits::RETAINED_BYTES / limits::SIGNAL_BYTES + 2;
    for _ in 0..enough {
        ann.request(&in_ann, "NOTIFY", large.clone()).unwrap();
        assert_eq!(told(&mut bob, "signal"), large);
    }
    let (session, received, sent) = (bob.session.clone(), bob.received, bob.sent);
    bob.cut();
    for _ in 0..enough {
        ann.request(&in_ann, "NOTIFY", large.clone()).unwrap();
    }
    ann.request(&in_ann, "SHUTDOWN", json!({})).unwrap();
    let mut bob = Client::open(&service, &format!("?token={token}"));
    (bob.sent, bob.received) = (sent, received);
    bob.send(&json!({
        "control": {"type": "request", "session_id": session},
        "header": {"action": "CONNECT", "cslr": received, "cslw": sent, "csuw": sent},
    }));
    assert_eq!(bob.read()["header"]["sslr"], sent, "the session goes on");
    told(&mut bob, "direct-ended");

    // Who may not subscribe is offered nothing, and so has nobody to signal to.
    let (mut cat, _) = connect("Cat", |claims| claims.subscribe = false);
    let start = json!({"sdp": PUBLISH, "direct": true});
    let (in_cat, _) = cat.start("lobby", start).unwrap();
    service.reach_transport(service.transport_of(&cat.peer), "192.0.2.9:9");
    while cat.event()["event"] != "connected" {}
    cat.request(&in_cat, "NOTIFY", signal("now me")).unwrap();
    not_told(&mut cat, &in_cat);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_only_where_node_token_and_both_of_them_want_it() {
    let relayed = vec!["dev".to_owned()];
    let off = Service::start_tls(|config| config.link.direct = false).await;
    let other = Service::start_tls(|config| config.link.relayed_applications = relayed).await;
    let on = Service::start_tls(|_| {}).await;
    for (service, bob_wants) in [(&off, true), (&other, true), (&on, false)] {
        let (mut ann, in_ann) = browser(service, "Ann", true);
        let (mut bob, in_bob) = browser(service, "Bob", bob_wants);
        not_told(&mut ann, &in_ann);
        not_told(&mut bob, &in_bob);
    }
    // With a native client there is no common way.
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, in_ann) = browser(&service, "Ann", true);
    let (mut bob, at_bob) = service.join("lobby", "Bob");
    service.reach(&at_bob, "192.0.2.2:2000");
    while !matches!(bob.event(), Event::Connected(_)) {}
    not_told(&mut ann, &in_ann);
    nothing_said(&mut [&mut bob]);
}

/// What both are told, and that it is the same of the same.
fn offers(ann: &mut Native, bob: &mut Native) -> [Direct; 2] {
    let (to_ann, to_bob) = (ann.direct().unwrap(), bob.direct().unwrap());
    assert_eq!((&to_ann.remote_ice, &to_ann.local_ice), (&to_bob.local_ice, &to_bob.remote_ice));
    assert_ne!(to_ann.remote_ice, to_ann.local_ice);
    assert!(to_ann.controlling != to_bob.controlling, "one of them nominates");
    [to_ann, to_bob]
}

fn ended(ann: &mut Native, bob: &mut Native, reason: &str) {
    assert_eq!((ann.direct(), bob.direct()), (Err(reason.into()), Err(reason.into())));
}

/// Events aside, nothing was said to them until now.
fn nothing_said(links: &mut [&mut Native]) {
    for link in links {
        link.tell(Request::Ping(Ping { token: 7 }));
        loop {
            match link.next().expect("an answer") {
                Body::Pong(_) => break,
                Body::Event(_) | Body::Ping(_) | Body::MessagesTaken(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_are_told_of_each_other_until_a_third_comes_and_anew_when_it_left() {
    let service = Service::start_tls(|_| {}).await;
    let [(mut ann, at_ann), (mut bob, at_bob)] = service.two();
    let [to_ann, to_bob] = offers(&mut ann, &mut bob);
    assert_eq!((&to_ann.peer_id, &to_bob.peer_id), (&at_bob.peer_id, &at_ann.peer_id));
    assert_eq!(to_ann.endpoints, ["192.0.2.2:2000"]);
    assert_eq!(to_bob.endpoints, ["192.0.2.1:1000"]);
    assert_ne!(to_ann.local_ice, at_ann.client_ice, "of this pair alone");
    assert_eq!(service.metric("control_link_direct_offers_total").await, Some(2));

    let (mut cat, _) = service.join("lobby", "Cat");
    ended(&mut ann, &mut bob, THIRD);
    cat.ask(Request::Leave(Leave::default())).unwrap();
    let [again, _] = offers(&mut ann, &mut bob);
    assert!(again.local_ice != to_ann.local_ice && again.remote_ice != to_ann.remote_ice);
    // A third one of whatever kind.
    let mut browser = Client::connect(&service, "Bea");
    browser.start("lobby", json!({})).unwrap();
    ended(&mut ann, &mut bob, THIRD);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_or_leaves_udp_or_the_scope_is_told_of_to_the_other() {
    let service = Service::start_tls(|_| {}).await;
    let [(mut ann, at_ann), (mut bob, at_bob)] = service.two();
    let [before, _] = offers(&mut ann, &mut bob);
    service.move_to(&at_bob, "udp", "198.51.100.2:5");
    let [to_ann, _] = offers(&mut ann, &mut bob);
    assert_eq!(to_ann.endpoints, ["198.51.100.2:5"]);
    assert_ne!(to_ann.remote_ice, before.remote_ice);
    service.move_to(&at_bob, "tcp", "127.0.0.1:9");
    ended(&mut ann, &mut bob, NO_UDP);
    service.move_to(&at_bob, "udp", "[2001:db8::1]:5");
    service.move_to(&at_ann, "udp", "[2001:db8::2]:5");
    offers(&mut ann, &mut bob);
    // The relay lost him; he begins anew there.
    let (scope_id, peer_id) = service.transport(&at_bob);
    let (reason, detail) = (Reason::ConsentExpired.into(), String::new());
    service.relay.emit(Told::PeerLeft(v1::PeerLeft { scope_id, peer_id, reason, detail }));
    ended(&mut ann, &mut bob, NO_UDP);
    let publish = Publish { kind: 1, codec: "opus".into(), ..Publish::default() };
    bob.ask(Request::Publish(publish)).unwrap();
    service.reach(&at_bob, "[2001:db8::1]:6");
    offers(&mut ann, &mut bob);
    bob.ask(Request::Leave(Leave::default())).unwrap();
    assert!(ann.direct().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_learns_how_it_stands() {
    let service = Service::start_tls(|_| {}).await;
    let [(mut ann, _), (mut bob, at_bob)] = service.two();
    let [to_ann, to_bob] = offers(&mut ann, &mut bob);
    let back = |seen: &Authenticated| {
        let session_id = seen.session_id.clone();
        let mut link = service.link();
        let auth = Auth { session_id, reconnect: true, ..auth("lobby", "Bob") };
        assert!(link.authenticate(auth).unwrap().resumed);
        link
    };
    bob.cut();
    let mut bob = back(&at_bob);
    assert_eq!(bob.direct(), Ok(to_bob), "the same once more");
    nothing_said(&mut [&mut ann]);
    bob.cut();
    let (mut cat, _) = service.join("lobby", "Cat");
    assert_eq!(ann.direct(), Err(THIRD.into()));
    let mut bob = back(&at_bob);
    assert!(bob.direct().is_err(), "it ended while he was away");
    bob.cut();
    cat.ask(Request::Leave(Leave::default())).unwrap();
    let again = ann.direct().unwrap();
    assert_ne!(again.local_ice, to_ann.local_ice);
    let mut bob = back(&at_bob);
    assert_eq!(bob.direct().unwrap().remote_ice, again.local_ice, "begun while he was away");
    // And nothing of it to who never heard of it.
    let (mut dan, at_dan) = service.join("hall", "Dan");
    nothing_said(&mut [&mut dan]);
    dan.cut();
    let mut link = service.link();
    let auth = Auth { session_id: at_dan.session_id, reconnect: true, ..auth("hall", "Dan") };
    assert!(link.authenticate(auth).unwrap().resumed);
    nothing_said(&mut [&mut link]);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_told_only_where_node_and_clients_want_it() {
    let off = Service::start_tls(|config| config.link.direct = false).await;
    let relayed = vec!["dev".to_owned()];
    let other = Service::start_tls(|config| config.link.relayed_applications = relayed).await;
    for service in [off, other] {
        let [(mut ann, _), (mut bob, _)] = service.two();
        while !matches!(bob.event(), Event::Connected(_)) {}
        nothing_said(&mut [&mut ann, &mut bob]);
    }
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, at_ann) = service.join("lobby", "Ann");
    let mut bob = service.link();
    let auth = Auth { relay_only: true, ..auth("lobby", "Bob") };
    let at_bob = bob.authenticate(auth).unwrap();
    service.reach(&at_ann, "192.0.2.1:1000");
    service.reach(&at_bob, "192.0.2.2:2000");
    while !matches!(bob.event(), Event::Connected(_)) {}
    nothing_said(&mut [&mut ann, &mut bob]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_subscribe_is_not_offered_what_comes_past_the_relay() {
    let service = Service::start_tls(|_| {}).await;
    let key = service.add_application("acme").await;
    let token = |name: &str, subscribe: bool| {
        let claims = Claims { subscribe, ..Claims::new("acme", name, "*", 4_000_000_000) };
        mint(&claims, None, &Signer::Hs256(&key)).unwrap()
    };
    let join = |name: &str, subscribe: bool, session_id: &str| {
        let mut link = service.link();
        let credential = Some(Credential::Token(token(name, subscribe)));
        let (session_id, reconnect) = (session_id.to_owned(), !session_id.is_empty());
        let auth = Auth { credential, session_id, reconnect, ..auth("lobby", name) };
        let joined = link.authenticate(auth).unwrap();
        (link, joined)
    };
    let (mut ann, at_ann) = join("Ann", true, "");
    let (mut bob, at_bob) = join("Bob", false, "");
    service.reach(&at_ann, "192.0.2.1:1000");
    service.reach(&at_bob, "192.0.2.2:2000");
    while !matches!(bob.event(), Event::Connected(_)) {}
    nothing_said(&mut [&mut ann, &mut bob]);
    // Who comes back with another credential may what that one says.
    bob.cut();
    let (mut bob, resumed) = join("Bob", true, &at_bob.session_id);
    assert!(resumed.resumed);
    offers(&mut ann, &mut bob);
    bob.cut();
    let (mut bob, resumed) = join("Bob", false, &at_bob.session_id);
    assert!(resumed.resumed && bob.direct().is_err());
    assert_eq!(ann.direct(), Err(NO_UDP.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_take_all_of_the_other_goes_by_the_relay() {
    let service = Service::start_tls(|_| {}).await;
    let [(mut ann, at_ann), (mut bob, _)] = service.two();
    offers(&mut ann, &mut bob);
    let publish = Publish { kind: 1, codec: "opus".into(), ..Publish::default() };
    let Body::Published(voice) = ann.ask(Request::Publish(publish)).unwrap() else { panic!() };
    let subscribe = Subscribe { publication_id: voice.publication_id, ..Subscribe::default() };
    let Body::Subscribed(heard) = bob.ask(Request::Subscribe(subscribe)).unwrap() else { panic!() };
    assert_eq!(ann.wanted().len(), 1);
    let allow = |peer_ids: &[&String]| {
        let peer_ids = peer_ids.iter().map(|peer| (*peer).clone()).collect();
        let everybody = false;
        Request::AllowSenders(AllowSenders { kind: Kind::Audio.into(), everybody, peer_ids })
    };
    // Her alone is all that there is.
    assert_eq!(bob.ask(allow(&[&at_ann.peer_id])), Ok(Body::Done(Default::default())));
    nothing_said(&mut [&mut ann, &mut bob]);
    bob.request(allow(&[]));
    let said = loop {
        match bob.next() {
            Some(Body::Event(_) | Body::Ping(_)) => {}
            said => break said,
        }
    };
    let subscription_ids = vec![heard.subscription_id];
    let ended = Body::SubscriptionsEnded(SubscriptionsEnded { subscription_ids });
    assert_eq!(said, Some(ended));
    assert_eq!(bob.answer(), Ok(Body::Done(Default::default())));
    self::ended(&mut ann, &mut bob, NO_UDP);
    nothing_said(&mut [&mut ann, &mut bob]);
    bob.tell(allow(&[&at_ann.peer_id]));
    let [to_ann, _] = offers(&mut ann, &mut bob);
    assert_eq!(to_ann.wanted, Some(DirectWanted::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_is_told_what_the_other_takes() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, at_ann) = service.join("lobby", "Ann");
    let publish = |ann: &mut Native| {
        let publish = Publish { kind: 1, codec: "opus".into(), ..Publish::default() };
        match ann.ask(Request::Publish(publish)).unwrap() {
            Body::Published(published) => published.publication_id,
            other => panic!("{other:?}"),
        }
    };
    let mut ids = [publish(&mut ann), publish(&mut ann)];
    ids.sort_unstable();
    let (mut bob, at_bob) = service.join("lobby", "Bob");
    let subscribe = |bob: &mut Native, id: &str, paused| {
        let preferences = Some(Preferences { paused, ..Preferences::default() });
        let publication_id = id.to_owned();
        let subscribe = Subscribe { publication_id, preferences, ..Subscribe::default() };
        match bob.ask(Request::Subscribe(subscribe)).unwrap() {
            Body::Subscribed(subscribed) => subscribed.subscription_id,
            other => panic!("{other:?}"),
        }
    };
    let first = subscribe(&mut bob, &ids[0], false);
    service.reach(&at_ann, "192.0.2.1:1000");
    service.reach(&at_bob, "192.0.2.2:2000");
    let [to_ann, to_bob] = offers(&mut ann, &mut bob);
    assert_eq!(to_ann.wanted.unwrap().publication_ids, ids[..1]);
    assert_eq!(to_bob.wanted, Some(DirectWanted::default()));
    let second = subscribe(&mut bob, &ids[1], true);
    nothing_said(&mut [&mut ann]);
    let prefer = |bob: &mut Native, subscription_id: &str, paused| {
        let preferences = Some(Preferences { paused, ..Preferences::default() });
        let subscription_id = subscription_id.to_owned();
        bob.ask(Request::SetPreferences(SetPreferences { subscription_id, preferences })).unwrap();
    };
    prefer(&mut bob, &second, false);
    assert_eq!(ann.wanted(), ids);
    prefer(&mut bob, &first, true);
    assert_eq!(ann.wanted(), ids[1..]);
    // Who comes back is told how it stands.
    ann.cut();
    bob.ask(Request::Unsubscribe(Unsubscribe { subscription_id: second })).unwrap();
    let mut ann = service.link();
    let session_id = at_ann.session_id;
    let auth = Auth { session_id, reconnect: true, ..auth("lobby", "Ann") };
    assert!(ann.authenticate(auth).unwrap().resumed);
    assert_eq!(ann.direct().unwrap().wanted, Some(DirectWanted::default()));
    prefer(&mut bob, &first, false);
    assert_eq!(ann.wanted(), ids[..1]);
    nothing_said(&mut [&mut ann, &mut bob]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_to_become_empty_sends_newcomers_elsewhere() {
    let service = Service::start_tls(|config| config.link.redirect = "[::1]:9".into()).await;
    let mut link = service.link();
    match link.ask(Request::Auth(auth("lobby", "Ann"))).unwrap() {
        Body::Redirect(redirect) => assert_eq!((&*redirect.host, redirect.port), ("::1", 9)),
        other => panic!("{other:?}"),
    }
    assert_eq!(link.next(), None, "the node closes");
    assert_eq!(service.metric("control_link_redirects_total").await, Some(1));
    // Who may not come in is told that, and no more.
    let mut stranger = service.link();
    let stranger = stranger.ask(Request::Auth(Auth { credential: None, ..auth("lobby", "") }));
    assert_eq!(stranger.unwrap_err().code(), strait_link::v1::ErrorCode::Unauthorized);
}
