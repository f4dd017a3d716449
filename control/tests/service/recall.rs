//! A process that is killed and started again, while its relay lives.

use std::path::Path;
use std::time::{Duration, Instant};

use strait_control::server::Server;
use strait_control::{Config, cluster::Owner, config::cluster::Role};
use strait_link::ALPN;
use strait_link::v1::{
    Auth, Authenticated, ErrorCode, Kind, Leave, Published, SendMessage, Subscribe, Unsubscribe,
    client_message::Body as Request, server_message::Body, user_event::Body as Event,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fake_relay::{FakeRelay, Running};
use crate::link::publish;
use crate::native::{Native, auth, trusting};

/// A process, so to say: what is left of it when it is killed are the connections that it had.
pub(crate) struct Process {
    pub(crate) runtime: Runtime,
    pub(crate) server: Server,
    certificate: std::path::PathBuf,
}

impl Process {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, |_| {})
    }

    pub(crate) fn start_with(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.http.https_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.http.http_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.http.state_dir = folder.into();
        config.relay.rpc_socket = folder.join("relay.sock");
        config.store.url = format!("sqlite:{}", folder.join("control.db").display()).into();
        config.auth.dev_tokens = vec!["dev".into()];
        config.link.reconnect_seconds = 3;
        change(&mut config);
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::start(config)).unwrap();
        let process = Self { runtime, server, certificate: folder.join("certificate.pem") };
        if !process.server.app.cluster.config().has(Role::Node) {
            return process;
        }
        process.wait("the relay is found", |process| {
            process.server.app.scopes.relay().info().is_some()
        });
        process
    }

    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn kill(self) -> Owner {
        let owner = self.server.app.cluster.me().clone();
        // Before the server is dropped: whatever still ran would take that for an end in order.
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        owner
    }

    /// Ends it in order, as SIGTERM does.
    pub(crate) fn pause(self) -> Owner {
        let owner = self.server.app.cluster.me().clone();
        self.runtime.block_on(self.server.pause());
        self.runtime.shutdown_background();
        owner
    }

    pub(crate) fn open(&self) -> Native {
        Native::open(self.server.https[0], trusting(&self.certificate, Some(ALPN)))
    }

    pub(crate) fn join(&self, auth: Auth) -> (Native, Authenticated) {
        let mut link = self.open();
        let answer = link.authenticate(auth).unwrap();
        (link, answer)
    }
}

pub(crate) fn relay(folder: &TempDir) -> (FakeRelay, Running) {
    FakeRelay::start(&folder.path().join("relay.sock"))
}

/// What a client publishes from here on.
pub(crate) fn voice(link: &mut Native) -> Published {
    match link.ask(Request::Publish(publish(Kind::Audio, "opus"))) {
        Ok(Body::Published(voice)) => voice,
        other => panic!("{other:?}"),
    }
}

/// The credential with which a client comes back.
pub(crate) fn again(session: &Authenticated, name: &str) -> Auth {
    Auth { session_id: session.session_id.clone(), ..auth("lobby", name) }
}

/// Waits until the relay keeps what a client has: requests are answered one after the other.
pub(crate) fn noted(link: &mut Native) {
    let none = Unsubscribe { subscription_id: "none".into() };
    assert!(link.ask(Request::Unsubscribe(none)).is_err());
}

/// Until this event; others are passed over.
pub(crate) fn until<T>(link: &mut Native, wanted: impl Fn(Body) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(link.next().expect("the link is open")) {
            return found;
        }
    }
}

fn said(link: &mut Native) -> (u64, Vec<u8>) {
    until(link, |body| match body {
        Body::Message(message) => Some((message.number, message.payload)),
        _ => None,
    })
}

fn message(number: u64, text: &str) -> Request {
    let payload = text.as_bytes().to_vec();
    Request::SendMessage(SendMessage { number, payload, ..SendMessage::default() })
}

#[test]
fn sessions_outlive_a_process_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    let voice = voice(&mut ann);
    let (mut bob, at_bob) = first.join(auth("lobby", "Bob"));
    let (_carol, at_carol) = first.join(auth("lobby", "Carol"));
    let subscribe = Subscribe {
        publication_id: voice.publication_id.clone(),
        as_sent: true,
        ..Subscribe::default()
    };
    let Body::Subscribed(heard) = bob.ask(Request::Subscribe(subscribe)).unwrap() else { panic!() };
    // What is left at the relay of who has gone is nobody's.
    let (mut dan, _) = first.join(auth("lobby", "Dan"));
    dan.ask(Request::Leave(Leave::default())).unwrap();
    until(&mut bob, |body| match body {
        Body::Event(event) => match event.body {
            Some(Event::Left(left)) if left.peer_id != at_carol.peer_id => Some(()),
            _ => None,
        },
        _ => None,
    });
    ann.tell(message(1, "one"));
    assert_eq!(said(&mut bob), (1, b"one".to_vec()));
    let (scope, before) = relay.scope();

    let me = first.kill();
    let second = Process::start(folder.path());
    assert_eq!(*second.server.app.cluster.me(), me, "the same start, to all others");
    let (mut ann, ann_again) = second.join(again(&at_ann, "Ann"));
    assert!(ann_again.resumed, "{ann_again:?}");
    assert_eq!(ann_again.peer_id, at_ann.peer_id);
    assert_eq!(ann_again.rtcp_ssrc, at_ann.rtcp_ssrc);
    assert_eq!(ann_again.node_ice, at_ann.node_ice, "the transport that she has");
    assert_eq!(ann_again.client_ice, at_ann.client_ice);
    assert_eq!(ann_again.endpoints.len(), at_ann.endpoints.len());
    assert_eq!(ann_again.key.unwrap().key, at_ann.key.as_ref().unwrap().key);
    let mut names: Vec<_> = ann_again.peers.iter().map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Bob", "Carol"], "who is not back yet is there still");

    // He has the first message already. What comes before he is back waits.
    ann.tell(message(2, "two"));
    let (mut bob, bob_again) = second.join(Auth { messages_seen: 1, ..again(&at_bob, "Bob") });
    assert!(bob_again.resumed);
    let of_ann = bob_again.peers.iter().find(|peer| peer.peer_id == at_ann.peer_id).unwrap();
    assert_eq!(of_ann.publications[0].publication_id, voice.publication_id);
    assert_eq!(said(&mut bob), (2, b"two".to_vec()));
    let (same, after) = relay.scope();
    assert_eq!((same, after.peers.len()), (scope, before.peers.len()), "nothing was made anew");
    assert_eq!(after.subscriptions.len(), 1);

    // No SSRC comes again under the key, also of those who left.
    let Body::Published(camera) = ann.ask(Request::Publish(publish(Kind::Video, "VP8"))).unwrap()
    else {
        panic!()
    };
    let used = voice.encodings[0].ssrc.max(at_carol.rtcp_ssrc);
    let fresh = camera.encodings[0];
    assert!(fresh.ssrc.min(fresh.rtx_ssrc) > used + 1000, "{fresh:?} after {used}");
    let subscription_id = heard.subscription_id;
    bob.ask(Request::Unsubscribe(Unsubscribe { subscription_id })).unwrap();
    assert!(relay.scope().1.subscriptions.is_empty());

    // Who does not come back leaves, as when it had lost its link.
    until(&mut bob, |body| match body {
        Body::Event(event) => match event.body {
            Some(Event::Left(left)) if left.peer_id == at_carol.peer_id => Some(()),
            _ => None,
        },
        _ => None,
    });
    second.wait("her transport is gone", |_| relay.scope().1.peers.len() == 2);
    let (mut eve, _) = second.join(auth("lobby", "Eve"));
    for link in [&mut ann, &mut bob, &mut eve] {
        link.ask(Request::Leave(Leave::default())).unwrap();
    }
    second.wait("the scope ends", |_| relay.is_empty());
    let _second = second.kill();
}

#[test]
fn an_end_in_order_leaves_sessions_to_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    let voice = voice(&mut ann);
    let (mut bob, at_bob) = first.join(auth("lobby", "Bob"));
    let before = relay.scope();
    let me = first.pause();
    for link in [&mut ann, &mut bob] {
        let (code, why) = link.last_words();
        assert_eq!(code, ErrorCode::Unavailable, "{why}");
    }
    assert_eq!(relay.scope().1.peers.len(), before.1.peers.len(), "their media flows");
    assert_eq!(relay.scope().1.publications.len(), 1);

    let second = Process::start(folder.path());
    assert_eq!(*second.server.app.cluster.me(), me, "the same start, to all others");
    let (mut ann, ann_again) = second.join(again(&at_ann, "Ann"));
    let (mut bob, bob_again) = second.join(again(&at_bob, "Bob"));
    assert!(ann_again.resumed && bob_again.resumed);
    assert_eq!(ann_again.node_ice, at_ann.node_ice, "the transport that she has");
    assert_eq!(ann_again.key.unwrap().key, at_ann.key.unwrap().key);
    let of_ann = bob_again.peers.iter().find(|peer| peer.peer_id == at_ann.peer_id).unwrap();
    assert_eq!(of_ann.publications[0].publication_id, voice.publication_id);
    for link in [&mut ann, &mut bob] {
        link.ask(Request::Leave(Leave::default())).unwrap();
    }
    second.wait("the scope ends", |_| relay.is_empty());
    // With nobody to leave behind the end is one for good.
    let third = Process::start(folder.path());
    assert_eq!(third.pause(), me);
    let fourth = Process::start(folder.path());
    assert_ne!(*fourth.server.app.cluster.me(), me);
    let _fourth = fourth.kill();
}

#[test]
fn a_node_that_is_drained_ends_its_sessions_with_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let process = Process::start(folder.path());
    let (mut ann, _) = process.join(auth("lobby", "Ann"));
    let cluster = process.server.app.cluster.clone();
    process.runtime.block_on(cluster.drain(&cluster.me().node, true)).unwrap();
    process.wait("it knows", |_| cluster.is_drained());
    let _paused = process.pause();
    assert_eq!(ann.last_words().0, ErrorCode::Unavailable);
    assert!(relay.is_empty());
}

#[test]
fn no_ssrc_comes_again_when_the_next_process_is_killed_too() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    noted(&mut ann);
    let _first = first.kill();
    let mut used = at_ann.rtcp_ssrc;
    for _ in 0..3 {
        let process = Process::start(folder.path());
        let (mut ann, again) = process.join(again(&at_ann, "Ann"));
        assert!(again.resumed);
        let Body::Published(camera) =
            ann.ask(Request::Publish(publish(Kind::Video, "VP8"))).unwrap()
        else {
            panic!()
        };
        let fresh = camera.encodings[0];
        assert!(fresh.ssrc.min(fresh.rtx_ssrc) > used, "{fresh:?} after {used}");
        used = fresh.ssrc.max(fresh.rtx_ssrc);
        noted(&mut ann);
        let _killed = process.kill();
    }
}

#[test]
fn sessions_of_a_node_that_lives_are_taken_on_by_no_other_process() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let node = Process::start(folder.path());
    let (mut ann, _) = node.join(auth("lobby", "Ann"));
    let (mut bob, _) = node.join(auth("lobby", "Bob"));
    let agent = Process::start_with(folder.path(), |config| {
        config.cluster.roles = vec![Role::Agent, Role::Api];
    });
    let other = Process::start_with(folder.path(), |config| config.cluster.name = "other".into());
    for process in [&agent, &other] {
        assert_eq!(process.server.app.scopes.counts(), (0, 0));
    }
    // Nor by one that cannot have its ports.
    let mut config = Config::default();
    config.http.https_listen = vec![node.server.https[0]];
    config.http.http_listen = Vec::new();
    config.http.state_dir = folder.path().into();
    config.relay.rpc_socket = folder.path().join("relay.sock");
    config.store.url = format!("sqlite:{}", folder.path().join("control.db").display()).into();
    let refused = node.runtime.block_on(Server::start(config)).err().unwrap();
    assert!(refused.to_string().contains("cannot be listened on"), "{refused}");
    ann.tell(message(1, "still here"));
    assert_eq!(said(&mut bob), (1, b"still here".to_vec()));
    assert_eq!(relay.scope().1.peers.len(), 2);
    let _killed = [agent.kill(), other.kill(), node.kill()];
}
