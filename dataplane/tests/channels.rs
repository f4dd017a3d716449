//! Data channels over real sockets: messages to and from the caller of the RPC.

#[path = "../src/channels/tests/peer.rs"]
mod browser;

use crate::common::peer::Peer;
use crate::common::{Client, scope, start};
use browser::Browser;
use std::time::{Duration, Instant};
use strait_crypt::dtls::{Handshake, Output};
use strait_proto::v1;
use strait_proto::v1::channel_event::Event;
use strait_wire::demux::{Kind, classify};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const PATIENCE: Duration = Duration::from_secs(20);

/// A peer with data channels: ICE, DTLS and SCTP.
struct Talker {
    peer: Peer,
    handshake: Handshake,
    browser: Browser,
}

impl Talker {
    async fn join(client: &mut Client, name: &str) -> Self {
        let mut peer = Peer::prepare(client, "room", name, None).await;
        let talker = tokio::task::spawn_blocking(move || {
            peer.check();
            let mut handshake = peer.begin();
            handshake.take_data();
            let mut talker = Self { peer, handshake, browser: Browser::new() };
            talker.turn_until(|talker| talker.browser.is_connected);
            talker
        });
        talker.await.unwrap()
    }

    fn turn_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_done(self) {
            assert!(start.elapsed() < PATIENCE, "heard {:?}", self.browser.heard);
            let now = Instant::now();
            if self.handshake.is_connected() {
                self.browser.handle_timeout(now);
                for packet in self.browser.poll_transmits(now) {
                    self.handshake.send(&packet);
                    self.flush(now);
                }
            }
            self.flush(now);
            match self.peer.receive(Duration::from_millis(5)) {
                Some(datagram) if classify(&datagram) == Kind::Dtls => {
                    self.handshake.handle(Instant::now(), &datagram);
                }
                _ => self.handshake.handle_timeout(Instant::now()),
            }
        }
    }

    fn flush(&mut self, now: Instant) {
        loop {
            match self.handshake.poll() {
                Output::Transmit(datagram) => self.peer.send(&datagram),
                Output::Received(packet) => self.browser.handle(now, packet),
                Output::Connected(_) => {}
                Output::Timeout(_) => break,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The same, while others work.
    async fn until(mut self, is_done: impl Fn(&Self) -> bool + Send + 'static) -> Self {
        let turned = tokio::task::spawn_blocking(move || {
            self.turn_until(is_done);
            self
        });
        turned.await.unwrap()
    }
}

async fn exchange(
    client: &Client,
) -> (mpsc::Sender<v1::MessageToChannels>, Streaming<v1::ChannelEvent>) {
    let (sender, messages) = mpsc::channel(8);
    let answer = client.clone().exchange_messages(ReceiverStream::new(messages)).await.unwrap();
    (sender, answer.into_inner())
}

async fn next(events: &mut Streaming<v1::ChannelEvent>) -> (String, u32, Event) {
    let event = tokio::time::timeout(PATIENCE, events.message()).await.expect("an event");
    let event = event.unwrap().unwrap();
    assert_eq!(event.scope_id, "room");
    (event.peer_id, event.channel, event.event.unwrap())
}

fn opened(label: &str, protocol: &str) -> Event {
    Event::Opened(v1::ChannelOpened { label: label.into(), protocol: protocol.into() })
}

fn message(is_text: bool, payload: &[u8]) -> Event {
    Event::Message(v1::ChannelMessage { is_text, payload: payload.to_vec() })
}

fn to(peers: &[&str], payload: &[u8]) -> v1::MessageToChannels {
    let address = |peer: &&str| v1::ChannelAddress { peer_id: (*peer).to_owned(), channel: 0 };
    v1::MessageToChannels {
        scope_id: "room".into(),
        to: peers.iter().map(address).collect(),
        payload: payload.to_vec(),
        ..v1::MessageToChannels::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn peers_say_and_hear_what_the_caller_carries() {
    let mut setup = start(2).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let (say, mut events) = exchange(client).await;
    let mut ann = Talker::join(client, "ann").await;
    let bob = Talker::join(client, "bob").await;
    ann.browser.open(0, "strait", "strait-messages/1");
    for n in 0..300_u16 {
        ann.browser.say(0, false, &n.to_be_bytes());
    }
    let large: Vec<u8> = (0..65_000_u32).map(|n| n as u8).collect();
    ann.browser.say(0, true, b"a large one follows");
    ann.browser.say(0, false, &large);
    let heard = tokio::spawn(ann.until(|ann| !ann.browser.heard.is_empty()));
    assert_eq!(next(&mut events).await, ("ann".into(), 0, opened("strait", "strait-messages/1")));
    for n in 0..300_u16 {
        assert_eq!(next(&mut events).await.2, message(false, &n.to_be_bytes()), "in order");
    }
    assert_eq!(next(&mut events).await.2, message(true, b"a large one follows"));
    assert_eq!(next(&mut events).await.2, message(false, &large));

    // To both; who has no such channel, or is not there, is passed over.
    say.send(to(&["bob", "nobody", "ann"], &large)).await.unwrap();
    let mut ann = heard.await.unwrap();
    assert_eq!(std::mem::take(&mut ann.browser.heard), [(0, false, large)]);

    // The one caller is the last one, and hears what there is.
    let (say, mut newer) = exchange(client).await;
    let replaced = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "told why it ends"),
            Err(status) => break status,
        }
    };
    assert_eq!(replaced.code(), Code::Aborted, "{replaced}");
    assert_eq!(next(&mut newer).await.2, opened("strait", "strait-messages/1"));

    // Closed by the caller.
    say.send(v1::MessageToChannels { close: true, ..to(&["ann"], b"") }).await.unwrap();
    let ann = ann.until(|ann| ann.browser.closed == [0]).await;
    assert!(matches!(next(&mut newer).await.2, Event::Closed(_)));

    // A message that breaks the contract ends the exchange.
    say.send(to(&["ann"], &[0; 70_000])).await.unwrap();
    assert_eq!(newer.message().await.unwrap_err().code(), Code::InvalidArgument);
    drop((ann, bob));
    setup.relay.stop();
}

/// What its channels carry is all that the relay hears of such a peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_has_channels_alone_is_where_they_come_from() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let (say, mut events) = exchange(client).await;
    let mut ann = Talker::join(client, "ann").await;
    ann.browser.open(0, "strait", "");
    let mut ann = ann.until(|ann| ann.browser.acknowledged == [0]).await;
    assert_eq!(next(&mut events).await.2, opened("strait", ""));
    let copier = ann.peer.check_is_copied([127, 0, 0, 2].into());
    for (moves, text) in [(false, &b"it stays"[..]), (true, b"it moved")] {
        if moves {
            ann.peer.send_from([127, 0, 0, 3].into());
            ann = tokio::task::spawn_blocking(move || {
                ann.peer.check();
                ann
            })
            .await
            .unwrap();
            ann.browser.say(0, true, b"from elsewhere");
        }
        say.send(to(&["ann"], text)).await.unwrap();
        ann = ann.until(|ann| !ann.browser.heard.is_empty()).await;
        assert_eq!(std::mem::take(&mut ann.browser.heard), [(0, false, text.to_vec())]);
    }
    assert_eq!(next(&mut events).await.2, message(true, b"from elsewhere"));
    let came = copier.recv(&mut [0; 2048]);
    assert!(came.is_err(), "nothing goes where nobody proved to be: {came:?}");
    setup.relay.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_nobody_carries_waits() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Talker::join(client, "ann").await;
    ann.browser.open(0, "strait", "");
    for n in 0..600_u16 {
        ann.browser.say(0, false, &[&n.to_be_bytes()[..], &[0; 2000]].concat());
    }
    // As much as the relay holds is taken, and no more: 256 events, and a window.
    let ann = ann.until(|ann| ann.browser.acknowledged == [0]).await;
    let all = tokio::spawn(ann.until(|ann| !ann.browser.heard.is_empty()));
    let (say, mut events) = exchange(client).await;
    assert_eq!(next(&mut events).await.2, opened("strait", ""));
    let mut expected = 0;
    while expected < 600_u16 {
        match next(&mut events).await.2 {
            Event::Message(message) => {
                assert_eq!(message.payload[..2], expected.to_be_bytes(), "in order, none lost");
                expected += 1;
            }
            // Told again, because somebody new asks.
            event => assert_eq!(event, opened("strait", "")),
        }
    }
    say.send(to(&["ann"], b"thanks")).await.unwrap();
    let ann = all.await.unwrap();
    assert_eq!(ann.browser.heard, [(0, false, b"thanks".to_vec())]);
    setup.relay.stop();
}
