//! When the two of a scope are told of each other.

use serde_json::json;
use strait_link::v1::{
    Auth, Authenticated, Direct, Leave, Ping, Publish, client_message::Body as Request,
    server_message::Body, user_event::Body as Event,
};
use strait_proto::v1::{self, event::Event as Told, peer_left::Reason};

use crate::Service;
use crate::native::{Native, auth};
use crate::socket::Client;

const THIRD: &str = "a third one came";
const NO_UDP: &str = "one of the two is not reached over UDP";

impl Service {
    /// The scope at the relay, and a client's newest transport there.
    fn transport(&self, of: &Authenticated) -> (String, String) {
        let (scope_id, scope) = self.relay.scope();
        let prefix = format!("{}.", of.peer_id);
        let number = |peer: &&String| peer.strip_prefix(&prefix)?.parse::<u64>().ok();
        let newest = scope.peers.keys().filter(|peer| number(peer).is_some()).max_by_key(number);
        (scope_id, newest.expect("a transport").clone())
    }

    fn reach(&self, of: &Authenticated, place: &str) {
        let (scope_id, peer_id) = self.transport(of);
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
