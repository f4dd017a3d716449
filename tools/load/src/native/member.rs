//! One native peer: a client, and what its thread has seen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strait_client::v1::{Kind, Publish, user_event};
use strait_client::{Client, Descriptor, Event, Frame, Handle};
use strait_core::time::Instant;
use strait_io::Clock;

use super::seen::Seen;
use crate::LoadError;
use crate::payload::Pattern;
use crate::signalling::MediaKind;

/// Bytes of a message: as many as a line of a chat.
const MESSAGE_BYTES: usize = 100;

pub(super) struct Member {
    pub client: Client,
    /// Streams that it is to receive.
    pub wanted: usize,
    seen: Arc<Mutex<Seen>>,
    publication: Option<Handle>,
}

impl Member {
    /// Begins to join.
    pub(super) fn join(
        descriptor: Descriptor,
        kind: MediaKind,
        publish: bool,
        pattern: &Arc<Pattern>,
    ) -> Result<Self, LoadError> {
        let refused = |error: strait_client::Error| LoadError::Transport(error.to_string());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (its, pattern, asked) = (Arc::clone(&seen), Arc::clone(pattern), Clock.instant());
        let client = Client::connect(descriptor, move |event| {
            let mut seen = its.lock().unwrap_or_else(PoisonError::into_inner);
            on_event(&mut seen, event, kind, &pattern, asked);
        });
        let client = client.map_err(refused)?;
        let publication = publish.then(|| {
            let (kind, codec) = match kind {
                MediaKind::Audio => (Kind::Audio, "opus"),
                MediaKind::Video => (Kind::Video, "VP8"),
            };
            let codec = codec.into();
            client.publish(Publish { kind: kind.into(), codec, ..Publish::default() })
        });
        let publication = publication.transpose().map_err(refused)?;
        Ok(Self { client, wanted: 0, seen, publication })
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can go on.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        match &self.seen().failed {
            Some(error) => Err(LoadError::Transport(error.clone())),
            None => Ok(()),
        }
    }

    /// Asks for the streams that it has heard of, and not asked for; whether all are there.
    pub(super) fn subscribe(&self, as_sent: bool) -> bool {
        let found = std::mem::take(&mut self.seen().found);
        for publication in found {
            if let Err(error) = self.client.subscribe(&publication, as_sent) {
                self.seen().failed = Some(format!("cannot subscribe: {error}"));
            }
        }
        self.seen().subscribed >= self.wanted
    }

    pub(super) fn take_key_wanted(&self) -> bool {
        std::mem::take(&mut self.seen().key_wanted)
    }

    pub(super) fn send(&self, payload: &[u8], timestamp: u32, marker: bool) -> bool {
        let frame = Frame { payload, timestamp, marker, level: None };
        self.publication.is_some_and(|handle| self.client.send(handle, 0, &frame).is_ok())
    }

    /// How its media goes now.
    pub(super) fn way(&self) -> String {
        let name = self.client.statistics().transport.as_str_name();
        name.trim_start_matches("STATE_").to_ascii_lowercase()
    }
}

/// A message that says who sent it, which one it is, and when.
pub(super) fn message(stream: u32, number: u64, now: Instant) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MESSAGE_BYTES);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&now.0.to_be_bytes());
    bytes.resize(MESSAGE_BYTES, stream as u8);
    bytes
}

fn on_event(seen: &mut Seen, event: Event, kind: MediaKind, pattern: &Pattern, asked: Instant) {
    match event {
        Event::Payload(payload) => {
            seen.packet(pattern.read(kind, &payload.payload), Clock.instant());
        }
        Event::Message { payload, .. } => seen.message(&payload, Clock.instant()),
        Event::Joined { peers, resumed: false, .. } => {
            seen.join_ns = (Clock.instant().since(asked).as_nanos() as u64).max(1);
            let publications = peers.into_iter().flat_map(|peer| peer.publications);
            seen.found.extend(publications.map(|publication| publication.publication_id));
        }
        Event::Scope(user_event::Body::Started(started)) => {
            seen.found.extend(started.publication.map(|publication| publication.publication_id));
        }
        Event::Published { .. } => seen.published = true,
        Event::Subscribed { .. } => seen.subscribed += 1,
        Event::KeyFrameWanted { .. } => seen.key_wanted = true,
        Event::Refused { error, .. } => seen.failed = Some(error.to_string()),
        Event::Ended(error) => seen.failed = Some(error.to_string()),
        Event::LinkLost { error, .. } => {
            seen.links_lost += 1;
            // Before it has joined there is nothing to come back to: the run would wait for nothing.
            if seen.join_ns == 0 && !error.may_pass() {
                seen.failed = Some(error.to_string());
            }
        }
        _ => {}
    }
}
