//! Links of native clients: how they open, what they do, how they are refused.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use strait_control::Config;
use strait_link::v1::{
    AllowSenders, Auth, Authenticated, ClientMessage, ErrorCode, GetStatistics, Kind, Leave, Ping,
    Preferences, Publish, Published, SetMuted, SetPreferences, Source, Subscribe, Subscribed,
    SubscriptionsEnded, Unpublish, Unsubscribe, client_message::Body as Request,
    endpoint::Protocol, server_message::Body, transport_report::State, user_event::Body as Event,
};
use strait_link::{ALPN, STRANGER_BYTES, encode};
use strait_proto::v1::{self, event::Event as Told};

use crate::native::{Native, auth, trusting};
use crate::socket::Client;
use crate::{PUBLISH, Service, eventually};

impl Service {
    pub(crate) async fn start_tls(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(|config| {
            config.http.https_listen = vec!["127.0.0.1:0".parse().unwrap()];
            change(config);
        })
        .await
    }

    pub(crate) fn link(&self) -> Native {
        let certificate = self.folder.path().join("certificate.pem");
        Native::open(self.server.https[0], trusting(&certificate, Some(ALPN)))
    }

    pub(crate) fn join(&self, scope: &str, name: &str) -> (Native, Authenticated) {
        let mut link = self.link();
        let answer = link.authenticate(auth(scope, name)).unwrap();
        (link, answer)
    }

    /// What `/metrics` says of one series.
    pub(crate) async fn metric(&self, series: &str) -> Option<u64> {
        let text = reqwest::get(self.url("/metrics")).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }
}

fn statistics(link: &mut Native) -> serde_json::Value {
    match link.ask(Request::GetStatistics(GetStatistics {})) {
        Ok(Body::Statistics(told)) => serde_json::from_str(&told.json).unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn publish(kind: Kind, codec: &str) -> Publish {
    Publish { kind: kind.into(), codec: codec.into(), ..Publish::default() }
}

fn published(link: &mut Native, publish: Publish) -> Published {
    match link.ask(Request::Publish(publish)).unwrap() {
        Body::Published(published) => published,
        other => panic!("{other:?}"),
    }
}

fn subscribed(link: &mut Native, subscribe: Subscribe) -> Subscribed {
    match link.ask(Request::Subscribe(subscribe)).unwrap() {
        Body::Subscribed(subscribed) => subscribed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_joins_publishes_and_subscribes() {
    let service = Service::start_tls(|_| {}).await;
    let (mut ann, at_ann) = service.join("lobby", "Ann");
    assert!(!at_ann.resumed && at_ann.peers.is_empty(), "{at_ann:?}");
    let key = at_ann.key.unwrap();
    assert_eq!((key.profile, key.key.len(), key.salt.len()), (7, 16, 12));
    let udp = &at_ann.endpoints[0];
    let address = (udp.protocol(), udp.address.as_str(), udp.port);
    assert_eq!(address, (Protocol::Udp, "127.0.0.1", 8443));
    assert_eq!(at_ann.endpoints.len(), 1, "no framed media where the relay takes none");
    assert_eq!((at_ann.reconnect_ms, at_ann.ping_ms), (30_000, 10_000));
    assert_eq!(at_ann.node_ice.unwrap().ufrag, "ab0000");
    // The relay knows her by the same key and credentials.
    let (_, scope) = service.relay.scope();
    let at_relay = scope.peers.values().next().unwrap();
    assert_eq!(at_relay.session_key.as_ref().unwrap().key, key.key);
    assert_eq!(at_relay.remote_ice.as_ref().unwrap().pwd, at_ann.client_ice.unwrap().pwd);
    assert!(at_relay.remote_fingerprint.is_none());

    let (mut bob, at_bob) = service.join("lobby", "Bob");
    assert_eq!(at_bob.key.unwrap().key, key.key, "one key for the scope");
    assert_ne!(at_bob.rtcp_ssrc, at_ann.rtcp_ssrc);
    assert_eq!(at_bob.peers[0].name, "Ann");
    assert!(matches!(ann.event(), Event::Joined(peer) if peer.name == "Bob"));

    let voice = published(&mut ann, publish(Kind::Audio, "opus"));
    assert_eq!((voice.encodings.len(), voice.encodings[0].rtx_ssrc), (1, 0));
    let Event::Started(started) = bob.event() else { panic!() };
    let shown = started.publication.unwrap();
    assert_eq!((shown.source(), shown.codec.as_str()), (Source::Microphone, "opus"));
    let publication_id = voice.publication_id.clone();
    let direct = Subscribe { publication_id, as_sent: true, ..Subscribe::default() };
    let as_sent = subscribed(&mut bob, direct);
    assert_eq!((as_sent.ssrc, as_sent.payload_type), (voice.encodings[0].ssrc, 111));

    let simulcast = Publish { encodings: 3, ..publish(Kind::Video, "vp8") };
    let camera = published(&mut ann, simulcast);
    let ssrcs: std::collections::BTreeSet<u32> =
        camera.encodings.iter().flat_map(|e| [e.ssrc, e.rtx_ssrc]).collect();
    assert_eq!(ssrcs.len(), 6, "{:?}", camera.encodings);
    assert!(matches!(bob.event(), Event::Started(_)));
    let publication_id = camera.publication_id.clone();
    let direct =
        Subscribe { publication_id: publication_id.clone(), as_sent: true, ..Subscribe::default() };
    let refused = bob.ask(Request::Subscribe(direct)).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unsupported);
    let subscribe = Subscribe { publication_id, ..Subscribe::default() };
    let picture = subscribed(&mut bob, subscribe);
    assert_eq!((picture.encodings.len(), picture.payload_type), (3, 96));
    let preferences = Some(Preferences { height: Some(180), ..Preferences::default() });
    let subscription_id = picture.subscription_id.clone();
    bob.ask(Request::SetPreferences(SetPreferences { subscription_id, preferences })).unwrap();
    let (_, scope) = service.relay.scope();
    let at_relay = &scope.subscriptions[&picture.subscription_id];
    assert_eq!(at_relay.preferences.as_ref().unwrap().height, Some(180));
    assert!(scope.subscriptions[&as_sent.subscription_id].as_sent);
    assert_eq!(scope.publications[&camera.publication_id].encodings.len(), 3);

    let (publication_id, muted) = (camera.publication_id.clone(), true);
    ann.ask(Request::SetMuted(SetMuted { publication_id, muted })).unwrap();
    assert!(matches!(bob.event(), Event::Muted(muted) if muted.muted));
    // Whose streams are not allowed any more are not sent.
    bob.ask(Request::AllowSenders(AllowSenders { kind: Kind::Video.into(), ..Default::default() }))
        .unwrap();
    let ended = bob.next();
    let named =
        |ended: &SubscriptionsEnded| ended.subscription_ids == [picture.subscription_id.as_str()];
    assert!(matches!(&ended, Some(Body::SubscriptionsEnded(ended)) if named(ended)), "{ended:?}");
    let subscription_id = picture.subscription_id.clone();
    let gone = bob.ask(Request::Unsubscribe(Unsubscribe { subscription_id })).unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound);
    let publication_id = camera.publication_id.clone();
    let refused = bob.ask(Request::Subscribe(Subscribe { publication_id, ..Default::default() }));
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Forbidden);

    let (scope_id, at_relay) = service.relay.scope();
    let publisher = &at_relay.publications[&camera.publication_id];
    service.relay.emit(Told::LayersWanted(v1::LayersWanted {
        scope_id: scope_id.clone(),
        peer_id: publisher.peer_id.clone(),
        publication_id: camera.publication_id.clone(),
        encodings: vec![0, 2],
    }));
    assert!(matches!(ann.event(), Event::LayersWanted(wanted) if wanted.encodings == [0, 2]));
    service.relay.emit(Told::SpeechChanged(v1::SpeechChanged {
        scope_id: scope_id.clone(),
        peer_id: publisher.peer_id.clone(),
        publication_id: voice.publication_id.clone(),
        speaking: true,
    }));
    assert!(matches!(bob.event(), Event::Speech(speech) if speech.speaking));
    service.relay.emit(Told::PeerConnected(v1::PeerConnected {
        scope_id,
        peer_id: publisher.peer_id.clone(),
        remote_address: "192.0.2.1:5".into(),
        protocol: "udp".into(),
    }));
    while !matches!(ann.event(), Event::Connected(c) if c.state() == State::UdpRelay) {}

    let publication_id = voice.publication_id.clone();
    ann.ask(Request::Unpublish(Unpublish { publication_id })).unwrap();
    assert!(
        matches!(bob.event(), Event::Ended(ended) if ended.publication_id == voice.publication_id)
    );
    eventually("the relay ends the stream of what ended", || {
        service.relay.scope().1.subscriptions.is_empty()
    })
    .await;
    ann.ask(Request::Leave(Leave::default())).unwrap();
    assert!(matches!(bob.event(), Event::Ended(_)));
    assert!(matches!(bob.event(), Event::Left(left) if left.reason == "left"));
    assert_eq!(ann.next(), None, "the node closes");
    drop(bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_and_native_clients_share_a_scope() {
    let service = Service::start_tls(|_| {}).await;
    let mut browser = Client::connect(&service, "Bea");
    let (sub, _) = browser.start("lobby", json!({})).unwrap();
    let (mut native, answer) = service.join("lobby", "Nat");
    assert_eq!((answer.peers[0].name.as_str(), answer.peers.len()), ("Bea", 1));
    let joined = browser.expect_event("joined");
    assert_eq!(joined["peer"]["name"], "Nat");
    let camera = published(&mut native, publish(Kind::Video, "H264"));
    let told = browser.expect_event("published");
    assert_eq!(told["publication"]["publication"], camera.publication_id.as_str());
    assert_eq!(told["publication"]["codec"], "H264");
    let specs = json!({"sdp": PUBLISH, "publish": []});
    browser.request(&sub, "UPDATE", specs).unwrap();
    let Event::Started(started) = native.event() else { panic!() };
    assert_eq!(started.peer_id, browser.peer);
    let publication_id = started.publication.unwrap().publication_id;
    let subscribe = Subscribe { publication_id, ..Subscribe::default() };
    let subscription = subscribed(&mut native, subscribe);
    assert!(subscription.ssrc > 0 && subscription.encodings.is_empty(), "{subscription:?}");
    browser.cut();
    assert_eq!(statistics(&mut native)["packetsReceived"], 7);
    native.ask(Request::Leave(Leave::default())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_native_client_decides_the_profile() {
    let service = Service::start_tls(|_| {}).await;
    let with = |profiles: &[i32]| Auth { profiles: profiles.to_vec(), ..auth("lobby", "old") };
    let mut old = service.link();
    let answer = old.authenticate(with(&[2, 1])).unwrap();
    assert_eq!(answer.key.as_ref().map(|key| (key.profile, key.salt.len())), Some((2, 14)));
    let refused = service.link().authenticate(with(&[])).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unsupported);
    assert!(refused.reason.contains("SRTP_AES128_CM_HMAC_SHA1_32"), "{refused:?}");
    let mut both = service.link();
    assert!(both.authenticate(with(&[7, 2])).is_ok());
    both.ask(Request::Leave(Leave::default())).unwrap();
    // Who was refused was never there. With the scope the key ends.
    let (before, _) = service.relay.scope();
    old.ask(Request::Leave(Leave::default())).unwrap();
    eventually("the scope ends", || service.relay.is_empty()).await;
    let (_, answer) = service.join("lobby", "new");
    assert_eq!(answer.key.unwrap().profile, 7);
    assert_ne!(service.relay.scope().0, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_alpn_is_a_link_or_https_by_its_first_bytes() {
    let service = Service::start_tls(|_| {}).await;
    let certificate = service.folder.path().join("certificate.pem");
    let config = trusting(&certificate, None);
    let node = service.server.https[0];
    let mut link = Native::open(node, config.clone());
    assert!(link.authenticate(auth("lobby", "Ann")).is_ok());
    let mut web = Native::open(node, config);
    web.tls.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    web.tls.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    // Media beside a link has a name of its own; here the relay takes none.
    let media = trusting(&certificate, Some(strait_link::MEDIA_ALPN));
    let mut media = Native::open(node, media);
    let refused = media.tls.write_all(&[0, 1, 0]).unwrap_err().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_beginning_has_its_own_error() {
    let service = Service::start_tls(|config| config.limits.sessions_per_address = 3).await;
    let refused = |first: Request| service.link().ask(first).unwrap_err().code();
    let version = Auth { version: 9, ..auth("lobby", "x") };
    assert_eq!(refused(Request::Auth(version)), ErrorCode::Version);
    let nobody = Auth { credential: None, ..auth("lobby", "x") };
    assert_eq!(refused(Request::Auth(nobody)), ErrorCode::Unauthorized);
    assert_eq!(refused(Request::Ping(Ping { token: 1 })), ErrorCode::Conflict);
    assert_eq!(refused(Request::Auth(auth("", "x"))), ErrorCode::Malformed);
    let loud = Auth { name: "x".repeat(200), ..auth("lobby", "") };
    assert_eq!(refused(Request::Auth(loud)), ErrorCode::Malformed);

    let mut large = service.link();
    let length = u32::try_from(STRANGER_BYTES + 1).unwrap();
    large.tls.write_all(&length.to_be_bytes()).unwrap();
    assert_eq!(large.last_words().0, ErrorCode::TooLarge);
    let mut garbage = service.link();
    garbage.tls.write_all(&[0, 0, 0, 2, 0xff, 0xff]).unwrap();
    assert_eq!(garbage.last_words().0, ErrorCode::Malformed);
    // One that ends within a frame, and still listens.
    for with_tls in [true, false] {
        let mut cut = service.link();
        cut.tls.write_all(&[0, 0, 0, 9, 1, 2]).unwrap();
        if with_tls {
            cut.tls.conn.send_close_notify();
            cut.tls.flush().unwrap();
        }
        cut.tls.sock.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(cut.last_words().0, ErrorCode::Malformed);
    }

    // A flood from one address.
    let held: Vec<_> = (0..3).map(|_| service.join("lobby", "x")).collect();
    let one_more = service.link().authenticate(auth("lobby", "x")).unwrap_err();
    assert_eq!(one_more.code(), ErrorCode::TooMany);
    assert!(one_more.reason.contains("sessions_per_address"), "{one_more:?}");
    assert!(one_more.retry_ms > 0, "places are given back: waiting helps");
    // Nor may it begin more than that.
    let _silent: Vec<_> = (0..3)
        .map(|_| {
            let mut silent = service.link();
            silent.tls.write_all(&[0]).unwrap();
            silent
        })
        .collect();
    let greeting = "control_links{state=\"greeting\"}";
    let mut count = 0;
    while service.metric(greeting).await != Some(3) {
        count += 1;
        assert!(count < 300, "not three that greet");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(service.link().last_words().0, ErrorCode::TooMany);
    drop(held);
    for reason in ["version", "unauthorized", "conflict", "malformed", "too_large", "too_many"] {
        let series = format!("control_link_refusals_total{{code=\"{reason}\"}}");
        assert!(service.metric(&series).await.unwrap() > 0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_later_ends_no_link_that_can_go_on() {
    let service = Service::start_tls(|_| {}).await;
    let (mut link, _) = service.join("lobby", "Ann");
    // Field 99 of a later version.
    link.tls.write_all(&[0, 0, 0, 7, 0x08, 99, 0x9a, 0x06, 2, 1, 2]).unwrap();
    let answer = link.read().unwrap();
    assert_eq!(answer.request, 99);
    assert!(matches!(answer.body, Some(Body::Error(e)) if e.code() == ErrorCode::UnknownRequest));
    assert_eq!(service.metric("control_link_unknown_messages_total").await, Some(1));
    let refused = |link: &mut Native, request| link.ask(request).unwrap_err().code();
    assert_eq!(refused(&mut link, Request::Auth(auth("lobby", "Ann"))), ErrorCode::Conflict);
    let publish = publish(Kind::Video, "opus");
    assert_eq!(refused(&mut link, Request::Publish(publish)), ErrorCode::Unsupported);
    let many = Publish { encodings: 9, ..self::publish(Kind::Video, "VP8") };
    assert_eq!(refused(&mut link, Request::Publish(many)), ErrorCode::TooMany);
    let none = Subscribe { publication_id: "pub-none".into(), ..Subscribe::default() };
    assert_eq!(refused(&mut link, Request::Subscribe(none)), ErrorCode::NotFound);
    // Errors repeat an identifier, but neither a long one nor what a terminal obeys.
    for publication_id in ["x".repeat(100_000), "\u{1b}[31m".into()] {
        let error = link.ask(Request::Unpublish(Unpublish { publication_id })).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Malformed);
        assert!(error.reason.len() < 200 && !error.reason.contains('\u{1b}'), "{error:?}");
    }
    assert_eq!(refused(&mut link, Request::Publish(Publish::default())), ErrorCode::Malformed);
    // Nothing is answered that asks for no answer, and nothing breaks.
    link.tell(Request::Publish(Publish::default()));
    let pong = link.ask(Request::Ping(Ping { token: 7 })).unwrap();
    assert!(matches!(pong, Body::Pong(pong) if pong.token == 7));
    for _ in 0..16 {
        published(&mut link, self::publish(Kind::Audio, "opus"));
    }
    let publish = self::publish(Kind::Audio, "opus");
    assert_eq!(refused(&mut link, Request::Publish(publish)), ErrorCode::TooMany);
    // What cannot be told apart ends the link.
    link.tls.write_all(&[0, 0xff, 0, 0]).unwrap();
    assert_eq!(link.last_words().0, ErrorCode::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_greeting_ends_by_time() {
    let service = Service::start_tls(|_| {}).await;
    let mut silent = service.link();
    let mut bytes = Vec::new();
    encode(&ClientMessage::default(), &mut bytes);
    silent.tls.write_all(&bytes[..2]).unwrap();
    // TLS that is never finished.
    let mut half = TcpStream::connect(service.server.https[0]).unwrap();
    half.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    half.write_all(&[0x16, 0x03, 0x01]).unwrap();
    assert_eq!(silent.last_words().0, ErrorCode::TimedOut);
    assert_eq!(half.read(&mut [0; 8]).unwrap_or(0), 0, "closed");
    let series = "control_link_refusals_total{code=\"timed_out\"}";
    for _ in 0..1000 {
        if service.metric(series).await == Some(2) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_that_is_lost_can_be_begun_anew() {
    let service = Service::start_tls(|_| {}).await;
    let (mut link, before) = service.join("lobby", "Ann");
    published(&mut link, publish(Kind::Audio, "opus"));
    let (scope_id, scope) = service.relay.scope();
    let peer_id = scope.peers.keys().next().unwrap().clone();
    service.relay.emit(Told::PeerLeft(v1::PeerLeft {
        scope_id,
        peer_id,
        reason: v1::peer_left::Reason::ConsentExpired.into(),
        detail: String::new(),
    }));
    assert!(matches!(link.event(), Event::MediaLost(_)));
    // Who has none for now, or has no use for any, is told just that.
    let none = statistics(&mut link);
    assert_eq!((&none["connected"], &none["packetsReceived"]), (&false.into(), &0.into()));
    assert_eq!(none["publications"], json!([]));
    published(&mut link, publish(Kind::Audio, "opus"));
    let Event::MediaPath(path) = link.event() else { panic!() };
    assert_ne!(path.client_ice, before.client_ice);
    assert!(path.node_ice.is_some() && !path.endpoints.is_empty(), "{path:?}");
}
