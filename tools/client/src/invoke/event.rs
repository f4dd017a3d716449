//! The events of `invoke`, and their fields.

use super::code::Failure;
use super::record::{Field, Kind, Record, Shape, Source, records};
use crate::base64;
use crate::core::client::{Event, Statistics};
use crate::core::receiving::Received;
use crate::core::sending::Sent;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use strait_link::v1::{self, transport_report::State, user_event};

records! { Serialize:
    /// The scope was joined.
    Joined "joined" {
        /// The client's own identifier.
        peer_id: String,
        /// All goes on as before the link was lost. Otherwise publications are made anew by the client, and subscriptions
        /// are over; with `resolvers` they are made anew as well.
        resumed: bool,
        /// Who else is here.
        peers: Vec<Peer>,
    }
    /// The link is away; it is tried again.
    LinkLost "link_lost" {
        /// See [codes](#codes).
        code: String,
        /// What, likely cause, remedy.
        reason: String,
        /// When it is tried again.
        retry_in_ms: u64,
    }
    /// The scope is on another node now; `joined` follows. Publications and subscriptions are made anew by the client, which
    /// tells their other identifiers by `published` and `subscribed`.
    Moved "moved" {
        /// "HOST:PORT".
        node: String,
    }
    /// The client is at its end: the last event. What was asked and not answered will not be. A limit that waiting does not help against (`TOO_MANY`: a scope that is full) ends who never was in; who was in before tries again.
    Ended "ended" {
        /// See [codes](#codes); `ENDED` after `leave`.
        code: String,
        /// What, likely cause, remedy.
        reason: String,
    }
    /// A publication can be sent.
    Published "published" {
        /// Of `publish`.
        handle: u32,
        /// Another one whenever it was made anew.
        publication_id: String,
        /// How many.
        encodings: usize,
    }
    /// A subscription's packets come from now on; again with another identifier after it was made anew.
    Subscribed "subscribed" {
        /// Of `subscribe`.
        handle: u32,
        /// Names its packets.
        subscription_id: String,
    }
    /// A request was done. Of `unpublish` one may come with a handle that nobody was given.
    Done "done" {
        /// Of the request.
        handle: u32,
    }
    /// A request was not done.
    Refused "refused" {
        /// Of the request.
        handle: u32,
        /// See [codes](#codes).
        code: String,
        /// What, likely cause, remedy.
        reason: String,
    }
    /// Answers `get_statistics`.
    NodeStatistics "node_statistics" {
        /// Of the request.
        handle: u32,
        /// As in [jsonrtc](jsonrtc.md).
        statistics: Value,
    }
    /// A message. Each once, in the order of its sender.
    Message "message" {
        /// A peer.
        from: String,
        /// Where it is text.
        text: Option<String>,
        /// Where it is bytes: in base 64.
        data: Option<String>,
        /// Sent to this peer alone.
        direct: bool,
    }
    /// Messages to peers who are not there.
    Undelivered "undelivered" {
        /// Of `send_message`.
        numbers: Vec<u64>,
    }
    /// A peer's session ended, other than by its own wish, before it confirmed messages to it or to all: some may have reached
    /// it.
    MessagesLost "messages_lost" {
        /// Whose.
        peer_id: String,
        /// How many.
        count: u64,
        /// The number of the first, of `send_message`.
        first: u64,
        /// Of the last. Those between may have been for others.
        last: u64,
    }
    /// Messages that the node did not confirm, and will not: it may have taken them over or not. `ended` follows.
    Unconfirmed "unconfirmed" {
        /// Of `send_message`.
        numbers: Vec<u64>,
    }
    /// Messages to this client that the node had taken are lost: it was started again.
    MessagesMissed "messages_missed" {
        /// How many; none: nobody knows whether there were any, for the node did not end in order.
        count: Option<u64>,
    }
    /// An encoder is to make a key frame.
    KeyFrameWanted "key_frame_wanted" {
        /// Of `published`.
        publication_id: String,
        /// 0 for the first.
        encoding: usize,
    }
    /// What the encoder of pictures is to keep to from now on.
    Target "target" {
        /// Bits per second, all encodings together.
        bitrate_bps: u64,
        /// Pictures are to be at most so high, in pixels.
        height: u32,
        /// Pictures a second.
        frames_per_second: u32,
    }
    /// Media goes another way.
    Transport "transport" {
        /// `"disconnected"`, `"probing"`, `"udp_relay"`, `"tcp_relay"`, `"p2p"` or `"link"`.
        state: String,
    }
    /// Somebody joined.
    PeerJoined "peer_joined" {
        /// Who.
        peer: Peer,
    }
    /// Somebody left.
    PeerLeft "peer_left" {
        /// Who.
        peer_id: String,
        /// Why.
        reason: String,
    }
    /// A peer publishes.
    StreamStarted "stream_started" {
        /// Who.
        peer_id: String,
        /// What.
        publication: Publication,
    }
    /// A peer does so no longer; subscriptions to it are over.
    StreamEnded "stream_ended" {
        /// Who.
        peer_id: String,
        /// What.
        publication_id: String,
    }
    /// A peer's publication is silent, or no longer.
    StreamMuted "stream_muted" {
        /// Who.
        peer_id: String,
        /// What.
        publication_id: String,
        /// Whether it is.
        muted: bool,
    }
    /// Somebody begins or ends to speak.
    Speech "speech" {
        /// Who.
        peer_id: String,
        /// In which publication.
        publication_id: String,
        /// Whether it begins.
        speaking: bool,
    }
    /// Somebody speaks most now.
    Dominant "dominant" {
        /// Who.
        peer_id: String,
        /// In which publication.
        publication_id: String,
    }
    /// Which encodings of the client's own publication anybody needs.
    LayersWanted "layers_wanted" {
        /// Of `published`.
        publication_id: String,
        /// None: it may stop.
        encodings: Vec<u32>,
    }
    /// The node lost the client's media: subscribe again. Publications are made anew by the client.
    MediaLost "media_lost" {
        /// Why.
        reason: String,
    }
    /// The client's media reaches the node.
    Connected "connected" {
        /// How: as in `transport`.
        state: String,
    }
}

records! { Serialize:
    /// In `joined` and `peer_joined`.
    Peer "peer" {
        /// Names it in the scope.
        peer_id: String,
        /// Display name.
        name: String,
        /// What it publishes.
        publications: Vec<Publication>,
    }
    /// In `peer` and `stream_started`.
    Publication "publication" {
        /// To subscribe with.
        publication_id: String,
        /// Sound or pictures.
        kind: Kind,
        /// What is shown.
        source: Source,
        /// Name of the stream.
        name: String,
        /// Whether it is silent now.
        muted: bool,
        /// Its codec.
        codec: String,
    }
    /// In the answer to `statistics`.
    OwnStatistics "own_statistics" {
        /// How media goes: as in `transport`.
        transport: String,
        /// Of the way that media goes by, once it is known.
        round_trip_ms: Option<f64>,
        /// One for each encoding.
        sent: Vec<SentStream>,
        /// One for each stream of a subscription.
        received: Vec<ReceivedStream>,
        /// Packets that were not taken: of another key, doubles, of no subscription.
        dropped: u64,
    }
    /// In `own_statistics`.
    SentStream "sent" {
        /// Of `published`.
        publication_id: String,
        /// Its SSRC.
        ssrc: u32,
        /// RTP packets, retransmissions apart.
        packets: u64,
        /// Bytes of payload in them.
        bytes: u64,
        /// Packets sent again.
        retransmissions: u64,
        /// Share lost by the last report, 0 to 1.
        fraction_lost: f64,
        /// By RTCP, once it is known.
        round_trip_ms: Option<f64>,
    }
    /// In `own_statistics`.
    ReceivedStream "received" {
        /// Of `subscribed`.
        subscription_id: String,
        /// Its SSRC.
        ssrc: u32,
        /// RTP packets, each counted once.
        packets: u64,
        /// Bytes of payload in them.
        bytes: u64,
        /// Packets that never came.
        lost: i64,
        /// Share lost in the last second, 0 to 1.
        fraction_lost: f64,
        /// Interarrival jitter (RFC 3550 section 6.4.1).
        jitter_ms: f64,
    }
}

#[derive(Serialize)]
struct Tagged<T> {
    event: &'static str,
    #[serde(flatten)]
    record: T,
}

fn json<T: Record + Serialize>(record: T) -> Option<String> {
    serde_json::to_string(&Tagged { event: T::NAME, record }).ok()
}

/// An event as JSON; none for those that concern the client alone, and for media.
pub(super) fn to_json(event: Event) -> Option<String> {
    match event {
        Event::Joined { peer_id, resumed, peers } => {
            json(Joined { peer_id, resumed, peers: peers.into_iter().map(Peer::from).collect() })
        }
        Event::LinkLost { error, retry_in } => {
            let Failure { code, reason, .. } = error.into();
            let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
            json(LinkLost { code, reason, retry_in_ms })
        }
        Event::Moved { node } => json(Moved { node }),
        Event::Ended(error) => {
            let Failure { code, reason, .. } = error.into();
            json(Ended { code, reason })
        }
        Event::Scope(body) => scope(body),
        Event::Published { handle, publication_id, encodings } => {
            json(Published { handle, publication_id, encodings })
        }
        Event::Subscribed { handle, subscription_id } => {
            json(Subscribed { handle, subscription_id })
        }
        Event::Done { handle } => json(Done { handle }),
        Event::Refused { handle, error } => {
            let Failure { code, reason, .. } = error.into();
            json(Refused { handle, code, reason })
        }
        Event::Statistics { handle, json: text } => {
            let statistics = serde_json::from_str(&text).unwrap_or(Value::String(text));
            json(NodeStatistics { handle, statistics })
        }
        Event::Message { from, payload, text, direct } => {
            // What says that it is text and is none comes as bytes.
            let (text, data) = match String::from_utf8(payload) {
                Ok(words) if text => (Some(words), None),
                Ok(words) => (None, Some(base64::encode(words.as_bytes()))),
                Err(error) => (None, Some(base64::encode(error.as_bytes()))),
            };
            json(Message { from, text, data, direct })
        }
        Event::Undelivered { numbers } => json(Undelivered { numbers }),
        Event::MessagesLost { peer_id, count, first, last } => {
            json(MessagesLost { peer_id, count, first, last })
        }
        Event::Unconfirmed { numbers } => json(Unconfirmed { numbers }),
        Event::MessagesMissed { count } => json(MessagesMissed { count }),
        Event::Payload(_) => None,
        Event::KeyFrameWanted { publication_id, encoding } => {
            json(KeyFrameWanted { publication_id, encoding })
        }
        Event::Target(target) => json(Target {
            bitrate_bps: target.bitrate_bps,
            height: target.height,
            frames_per_second: target.frames_per_second,
        }),
        Event::Transport(way) => json(Transport { state: state(way) }),
    }
}

fn scope(body: user_event::Body) -> Option<String> {
    use user_event::Body;
    match body {
        Body::Joined(peer) => json(PeerJoined { peer: peer.into() }),
        Body::Left(v1::Left { peer_id, reason }) => json(PeerLeft { peer_id, reason }),
        Body::Started(v1::StreamStarted { peer_id, publication }) => {
            json(StreamStarted { peer_id, publication: publication?.into() })
        }
        Body::Ended(v1::StreamEnded { peer_id, publication_id }) => {
            json(StreamEnded { peer_id, publication_id })
        }
        Body::Muted(v1::StreamMuted { peer_id, publication_id, muted }) => {
            json(StreamMuted { peer_id, publication_id, muted })
        }
        Body::Speech(v1::Speech { peer_id, publication_id, speaking }) => {
            json(Speech { peer_id, publication_id, speaking })
        }
        Body::Dominant(v1::Speech { peer_id, publication_id, .. }) => {
            json(Dominant { peer_id, publication_id })
        }
        Body::LayersWanted(v1::LayersWanted { publication_id, encodings }) => {
            json(LayersWanted { publication_id, encodings })
        }
        Body::MediaLost(v1::MediaLost { reason }) => json(MediaLost { reason }),
        Body::Connected(connected) => json(Connected { state: state(connected.state()) }),
        // Addresses and credentials of the client's own checks.
        Body::MediaPath(_) => None,
    }
}

fn state(state: State) -> String {
    let name = state.as_str_name();
    name.strip_prefix("STATE_").unwrap_or(name).to_ascii_lowercase()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl From<v1::Peer> for Peer {
    fn from(peer: v1::Peer) -> Self {
        let v1::Peer { peer_id, name, publications } = peer;
        Self { peer_id, name, publications: publications.into_iter().map(Into::into).collect() }
    }
}

impl From<v1::Publication> for Publication {
    fn from(publication: v1::Publication) -> Self {
        Self {
            kind: Kind(publication.kind()),
            source: Source(publication.source()),
            publication_id: publication.publication_id,
            name: publication.name,
            muted: publication.muted,
            codec: publication.codec,
        }
    }
}

impl From<Statistics> for OwnStatistics {
    fn from(all: Statistics) -> Self {
        let sent = |(publication_id, ssrc, sent): (String, u32, Sent)| SentStream {
            publication_id,
            ssrc,
            packets: sent.packets,
            bytes: sent.bytes,
            retransmissions: sent.retransmissions,
            fraction_lost: sent.fraction_lost,
            round_trip_ms: sent.round_trip.map(ms),
        };
        let received = |(subscription_id, ssrc, one): (String, u32, Received)| ReceivedStream {
            subscription_id,
            ssrc,
            packets: one.packets,
            bytes: one.bytes,
            lost: one.lost,
            fraction_lost: one.fraction_lost,
            jitter_ms: ms(one.jitter),
        };
        Self {
            transport: state(all.transport),
            round_trip_ms: all.round_trip.map(ms),
            sent: all.sent.into_iter().map(sent).collect(),
            received: all.received.into_iter().map(received).collect(),
            dropped: all.dropped,
        }
    }
}
