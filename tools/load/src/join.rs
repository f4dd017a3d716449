//! Who joins, with what, and the thread that tells the server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use strait_wire::ext;

use crate::limits::JOINS_AT_A_TIME;
use crate::plan::Plan;
use crate::shape::Layer;
use crate::signalling::{
    Codec, Encoding, Extension, Joined, MediaKind, PublishedStream, PublisherJoin, Signalling,
    SignallingError, SubscriberJoin, WantedStream,
};

/// Layers of one publisher: numbers of streams are dealt by it.
pub(crate) const LAYERS: usize = 3;
/// RTP payload types that the load would like.
const OPUS: u8 = 111;
const VP8: u8 = 96;
const VP8_RTX: u8 = 97;
const MID_EXTENSION: u8 = 4;
const RID_EXTENSION: u8 = 10;
/// SSRCs begin here, so that none is small or 0.
const SSRC_BASE: u32 = 0x1000_0000;

/// What the signalling thread is asked.
pub(crate) enum Ask {
    Publisher(usize, Box<PublisherJoin>),
    Subscriber(usize, Box<SubscriberJoin>),
    Connected(usize, String),
}

/// What it says: a peer, and what was agreed (nothing for [`Ask::Connected`]).
pub(crate) type Answer = (usize, Result<Option<Joined>, SignallingError>);

/// The thread that talks to the server, so that the load's own can shake hands meanwhile.
pub(crate) struct Desk {
    asks: Option<SyncSender<Ask>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    pub(crate) fn open(mut signalling: Box<dyn Signalling>) -> std::io::Result<Self> {
        // Twice: each peer can wait for its join and for having been connected.
        let (asks, asked) = sync_channel::<Ask>(2 * JOINS_AT_A_TIME);
        let (answer, answers) = sync_channel::<Answer>(4 * JOINS_AT_A_TIME);
        let work = move || {
            for ask in asked {
                let said = match ask {
                    Ask::Publisher(n, join) => (n, signalling.join_publisher(&join).map(Some)),
                    Ask::Subscriber(n, join) => (n, signalling.join_subscriber(&join).map(Some)),
                    Ask::Connected(n, peer) => (n, signalling.connected(&peer).map(|()| None)),
                };
                if answer.send(said).is_err() {
                    break;
                }
            }
            signalling.end();
        };
        let thread = std::thread::Builder::new().name("signalling".into()).spawn(work)?;
        Ok(Self { asks: Some(asks), answers, thread: Some(thread) })
    }

    /// Asks; waits where too much is asked already.
    pub(crate) fn ask(&self, ask: Ask) {
        if let Some(asks) = &self.asks {
            // A thread that ended has said why, or panicked: `answer` will tell.
            let _ = asks.send(ask);
        }
    }

    /// The next answer, if there is one.
    pub(crate) fn answer(&self) -> Option<Answer> {
        match self.answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let why = "the signalling thread ended; please report it";
                Some((0, Err(SignallingError::Unreachable(why.to_owned()))))
            }
        }
    }
}

impl Drop for Desk {
    /// Lets the server forget the peers.
    fn drop(&mut self) {
        self.asks = None;
        // Whoever waits to answer goes on.
        while self.answers.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Names and numbers of a plan.
pub(crate) struct Cast<'a> {
    plan: &'a Plan,
    layers: &'a [Layer],
    /// Tells runs against one server apart.
    run: String,
}

impl<'a> Cast<'a> {
    pub(crate) fn new(plan: &'a Plan, layers: &'a [Layer], run: String) -> Self {
        Self { plan, layers, run }
    }

    /// Where peer `n` is bound.
    pub(crate) fn local_address(&self, n: usize) -> SocketAddr {
        let addresses = &self.plan.local_addresses;
        let address = addresses.get(n % addresses.len().max(1)).copied();
        // The plan's check says that there are so many ports.
        let port = self.plan.first_port.map_or(0, |first| first.saturating_add(n as u16));
        SocketAddr::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)
    }

    pub(crate) fn publisher_name(&self, publisher: usize) -> String {
        format!("publisher-{publisher}")
    }

    pub(crate) fn subscriber_name(&self, subscriber: usize) -> String {
        format!("subscriber-{subscriber}")
    }

    pub(crate) fn scope(&self, n: usize) -> String {
        format!("load-{}-{}", self.run, n % self.plan.scopes)
    }

    /// The publishers that a subscriber receives.
    pub(crate) fn publishers_of(&self, subscriber: usize) -> impl Iterator<Item = usize> + use<> {
        let scopes = self.plan.scopes;
        (subscriber % scopes..self.plan.publishers).step_by(scopes)
    }

    /// The place of a stream among those of a subscriber; `None` if it does not receive it.
    pub(crate) fn place(&self, subscriber: usize, stream: u32) -> Option<usize> {
        let publisher = stream as usize / LAYERS;
        let scopes = self.plan.scopes;
        let known = publisher < self.plan.publishers
            && stream as usize % LAYERS < self.layers.len()
            && publisher % scopes == subscriber % scopes;
        known.then_some(publisher / scopes)
    }

    pub(crate) fn ssrc(&self, publisher: usize, layer: usize) -> u32 {
        SSRC_BASE + 2 * (publisher * LAYERS + layer) as u32
    }

    fn publication(&self, publisher: usize) -> String {
        format!("stream-{publisher}")
    }

    fn kind(&self) -> MediaKind {
        self.layers.first().map_or(MediaKind::Video, |layer| layer.traffic.kind)
    }

    fn codec(&self) -> Codec {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        match self.kind() {
            MediaKind::Audio => Codec {
                name: "opus".into(),
                payload_type: OPUS,
                clock_rate_hz: 48_000,
                channels: 2,
                rtx_payload_type: None,
                feedback: Vec::new(),
            },
            MediaKind::Video => Codec {
                name: "VP8".into(),
                payload_type: VP8,
                clock_rate_hz: 90_000,
                channels: 0,
                rtx_payload_type: self.plan.nack.then_some(VP8_RTX),
                feedback: if self.plan.nack {
                    texts(&["nack", "nack pli", "ccm fir"])
                } else {
                    texts(&["nack pli", "ccm fir"])
                },
            },
        }
    }

    pub(crate) fn published(&self, publisher: usize) -> PublishedStream {
        let mut extensions = vec![Extension { id: MID_EXTENSION, uri: ext::MID.into() }];
        if self.layers.len() > 1 {
            extensions.push(Extension { id: RID_EXTENSION, uri: ext::RID.into() });
        }
        let encodings = self.layers.iter().enumerate().map(|(at, layer)| Encoding {
            rid: layer.rid.to_owned(),
            ssrc: self.ssrc(publisher, at),
            rtx_ssrc: self.plan.nack.then_some(self.ssrc(publisher, at) + 1),
        });
        let rate = |layer: &Layer| layer.traffic.bits_per_second();
        PublishedStream {
            publication: self.publication(publisher),
            kind: self.kind(),
            mid: "0".into(),
            codec: self.codec(),
            extensions,
            encodings: encodings.collect(),
            bitrate_bps: self.layers.iter().map(rate).sum::<f64>() as u64,
        }
    }

    pub(crate) fn wanted(&self, subscriber: usize) -> Vec<WantedStream> {
        let wanted =
            self.publishers_of(subscriber).enumerate().map(|(at, publisher)| WantedStream {
                publication: self.publication(publisher),
                publisher: self.publisher_name(publisher),
                kind: self.kind(),
                mid: at.to_string(),
                codec: self.codec(),
                extensions: vec![Extension { id: MID_EXTENSION, uri: ext::MID.into() }],
            });
        wanted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::layers;

    #[test]
    fn everybody_finds_his_streams() {
        let plan = Plan { publishers: 7, subscribers: 10, scopes: 3, ..Plan::default() };
        let layers = layers(plan.shape, 1.0);
        let cast = Cast::new(&plan, &layers, "x".into());
        for subscriber in 0..10 {
            let publishers: Vec<usize> = cast.publishers_of(subscriber).collect();
            assert_eq!(cast.wanted(subscriber).len(), publishers.len());
            for publisher in 0..7 {
                let place = cast.place(subscriber, (publisher * LAYERS) as u32);
                assert_eq!(place, publishers.iter().position(|p| *p == publisher));
                let same = cast.scope(publisher) == cast.scope(subscriber);
                assert_eq!(place.is_some(), same);
            }
            assert_eq!(cast.place(subscriber, 21), None);
            assert_eq!(cast.place(subscriber, 1), None, "no second layer");
        }
    }
}
