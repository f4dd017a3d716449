//! Scopes: who is there, what each publishes, who gets what.
//!
//! [`Roster`] is presence alone and knows no relay; [`plan`] decides what an offer means;
//! [`Participant`] and [`Native`] are one peer's stay in a scope, with SDP and without, and the only
//! places that call the relay.

pub mod allowed;
mod at_relay;
pub mod channels;
pub mod direct;
pub mod key;
pub mod lost;
pub mod memo;
pub mod native;
mod participant;
pub mod plan;
pub mod quality;
mod registry;
mod roster;
mod silence;
pub mod statistics;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use strait_proto::v1;
use tokio::sync::mpsc;

pub use native::Native;
pub use participant::{Failed, Negotiated, Participant, PublishSpec, SubscribeSpec};
pub use plan::Role;
pub(crate) use registry::unix_now;
pub use registry::{Scope, ScopeKey, Scopes};
pub use roster::{Reached, Roster};

use crate::fault::Fault;
use crate::limits;

/// A peer, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerView {
    /// Identifier.
    pub peer: String,
    /// Display name.
    pub name: String,
    /// What it publishes.
    pub publications: Vec<PublicationView>,
}

/// A publication, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationView {
    /// Identifier.
    pub publication: String,
    /// Audio or video.
    pub kind: Kind,
    /// What it shows.
    pub source: Source,
    /// Name given by the publisher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the publisher muted it.
    pub muted: bool,
    /// Codec name.
    pub codec: String,
}

/// Who speaks in a scope, by publications.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Speakers {
    /// In which somebody speaks now.
    pub speaking: BTreeSet<String>,
    /// Whose speech dominates; none before anybody spoke.
    pub dominant: Option<String>,
}

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// What a publication shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A screen or a window.
    Screen,
    /// The sound of what a screen shows.
    ScreenAudio,
    /// Anything else, such as a file.
    Other,
}

/// What happens in a scope, as told to its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A peer came.
    Joined(PeerView),
    /// A peer left. Its publications were reported as ended before.
    Left {
        /// Who.
        peer: String,
        /// Why.
        reason: String,
    },
    /// A peer publishes something new.
    Published {
        /// Who.
        peer: String,
        /// What.
        publication: PublicationView,
    },
    /// A publication ended.
    Unpublished {
        /// Whose.
        peer: String,
        /// Which.
        publication: String,
    },
    /// A publication was muted or unmuted.
    Muted {
        /// Whose.
        peer: String,
        /// Which.
        publication: String,
        /// Which of the two.
        muted: bool,
    },
    /// Somebody, the receiver itself included, began to speak or fell silent.
    Speech {
        /// Who.
        peer: String,
        /// In which publication.
        publication: String,
        /// Which of the two.
        speaking: bool,
    },
    /// Somebody else, or the receiver itself, speaks most now.
    Dominant {
        /// Who.
        peer: String,
        /// In which publication.
        publication: String,
    },
    /// Which encodings of the receiver's own publication anybody needs.
    Layers {
        /// Which publication.
        publication: String,
        /// As they were published, 0 is the first.
        encodings: Vec<u32>,
    },
    /// How the receiver's own streams, or those that it gets, fared: the payload.
    Quality(serde_json::Value),
    /// A message of another peer.
    Message(Message),
    /// Messages of the receiver were lost with who they were for.
    Lost(lost::Lost),
    /// Messages to the receiver went by its data channel, which is closed.
    ChannelEnded,
    /// The receiver's own media path is up.
    Connected {
        /// It goes over ICE-TCP.
        is_tcp: bool,
    },
    /// The receiver's media may go to the other of two.
    Direct(direct::Offer),
    /// What the other of two native clients takes of the receiver's publications from now on.
    DirectWanted(Vec<String>),
    /// It may do so no longer, and why.
    DirectEnded(&'static str),
    /// The other of two browsers says how it is reached.
    Signal(direct::Signal),
    /// The scope was given to another node: whoever is in it begins anew, there.
    Moved,
    /// The session key of native clients is another.
    KeyChanged,
    /// The receiver's own transport is gone.
    MediaLost {
        /// Which transport: a peer can have a newer one meanwhile.
        relay_peer: String,
        /// Why.
        reason: String,
    },
}

/// What one peer says to another, or to all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub from: String,
    /// As that one counts what it says; 0 where it does not.
    pub number: u64,
    /// What; its meaning is the application's.
    pub payload: Vec<u8>,
    /// It is UTF-8 text, as far as receivers tell that from bytes.
    pub is_text: bool,
    /// It is for this receiver alone.
    pub is_direct: bool,
}

impl std::fmt::Debug for Message {
    // What people write to each other is nothing for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message from {}, {} bytes", self.from, self.payload.len())
    }
}

/// Where a peer's notices go.
#[derive(Debug, Clone)]
pub struct Sink {
    sender: mpsc::Sender<(u64, Arc<Notice>)>,
    tag: u64,
    is_lagging: Arc<AtomicBool>,
    wants_quality: Arc<AtomicBool>,
    /// Its receiver takes messages.
    takes_messages: Arc<AtomicBool>,
    /// What its receiver did not take yet, where it says what it took.
    unread: Option<Arc<Unread>>,
}

#[derive(Debug, Default)]
struct Unread {
    /// Of messages.
    bytes: AtomicUsize,
    /// Those that are lost with it.
    lost: Mutex<lost::Tally>,
}

impl Sink {
    /// A sink whose notices carry `tag`, by which the receiver tells its scopes apart.
    pub fn new(sender: mpsc::Sender<(u64, Arc<Notice>)>, tag: u64) -> Self {
        let (is_lagging, wants_quality, takes_messages) = Default::default();
        Self { sender, tag, is_lagging, wants_quality, takes_messages, unread: None }
    }

    /// The same for a receiver that takes messages.
    pub fn with_messages(self) -> Self {
        self.take_messages(true);
        self
    }

    /// The same for one that says what it [took](Self::took): their bytes have a limit as well.
    pub fn with_messages_counted(self) -> Self {
        Self { unread: Some(Arc::default()), ..self.with_messages() }
    }

    /// Says whether its receiver takes messages.
    pub fn take_messages(&self, takes: bool) {
        self.takes_messages.store(takes, Ordering::Relaxed);
    }

    /// Whether its receiver takes messages.
    pub fn takes_messages(&self) -> bool {
        self.takes_messages.load(Ordering::Relaxed)
    }

    /// Hands over a notice. One that finds the queue full marks the sink as lagging: its receiver
    /// no longer knows the truth and must start anew. False for that one.
    pub fn send(&self, notice: &Arc<Notice>) -> bool {
        if let (Some(unread), Notice::Message(message)) = (&self.unread, &**notice) {
            let before = unread.bytes.fetch_add(message.payload.len(), Ordering::Relaxed);
            if before > limits::WAITING_BYTES {
                self.is_lagging.store(true, Ordering::Relaxed);
                return false;
            }
        }
        if let Err(mpsc::error::TrySendError::Full(_)) =
            self.sender.try_send((self.tag, Arc::clone(notice)))
        {
            self.is_lagging.store(true, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Counts a message that is lost with its receiver, where that says what it took.
    pub fn lose(&self, notice: &Notice) {
        if let Some(unread) = &self.unread {
            // It has no more senders than its scope.
            unread.lost.lock().unwrap_or_else(PoisonError::into_inner).add(notice);
        }
    }

    /// The messages that were [lost](Self::lose).
    pub fn take_lost(&self) -> lost::Tally {
        let lost = self.unread.as_ref().map(|unread| {
            std::mem::take(&mut *unread.lost.lock().unwrap_or_else(PoisonError::into_inner))
        });
        lost.unwrap_or_default()
    }

    /// Its receiver took a notice.
    pub fn took(&self, notice: &Notice) {
        if let (Some(unread), Notice::Message(message)) = (&self.unread, notice) {
            unread.bytes.fetch_sub(message.payload.len(), Ordering::Relaxed);
        }
    }

    /// Hands over what may be lost, where there is room to spare.
    pub fn offer(&self, notice: Notice) {
        if self.sender.capacity() > self.sender.max_capacity() / 2 {
            let _ = self.sender.try_send((self.tag, Arc::new(notice)));
        }
    }

    /// Whether its receiver wants to know how its streams fare.
    pub fn wants_quality(&self) -> bool {
        self.wants_quality.load(Ordering::Relaxed)
    }

    /// Says whether it does.
    pub fn want_quality(&self, wanted: bool) {
        self.wants_quality.store(wanted, Ordering::Relaxed);
    }

    /// Its receiver did not take what it was sent, and must start anew.
    pub fn give_up(&self) {
        self.is_lagging.store(true, Ordering::Relaxed);
        // It looks with the next notice.
        let _ = self.sender.try_send((self.tag, Arc::new(Notice::ChannelEnded)));
    }

    /// Whether a notice was lost.
    pub fn is_lagging(&self) -> bool {
        self.is_lagging.load(Ordering::Relaxed)
    }
}

fn relay_kind(kind: Kind) -> v1::Kind {
    match kind {
        Kind::Audio => v1::Kind::Audio,
        Kind::Video => v1::Kind::Video,
    }
}

fn no_publication(publication: &str) -> Fault {
    Fault::not_found(format!(
        "there is no publication {publication} in this scope; it ended meanwhile"
    ))
}

fn not_allowed(publication: &str) -> Fault {
    Fault::forbidden(format!(
        "{publication} comes from a peer that this client does not take such streams from; change \
         `allow` first"
    ))
}
