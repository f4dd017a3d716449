//! The way of messages between the DTLS thread and the RPC. Both directions are bounded, and who finds no room waits: on
//! the way out the peers' SCTP windows close, on the way in the caller.

use super::{Channels, Event, Names, Refusal};
use crate::limits::{ASSOCIATIONS, CHANNEL_EVENTS, CHANNEL_ORDERS};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use strait_core::command::PeerId;
use tokio::sync::mpsc;

/// What the caller wants of a channel.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// To say something.
    Say {
        /// To whom.
        peer: PeerId,
        /// On which.
        channel: u16,
        /// It is UTF-8.
        is_text: bool,
        /// What.
        payload: Arc<[u8]>,
    },
    /// To close it.
    Close {
        /// Whose.
        peer: PeerId,
        /// Which.
        channel: u16,
    },
    /// To hear again of all channels that are open.
    Tell,
}

/// What the thread counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Associations that there are.
    pub associations: AtomicUsize,
    /// Those that [`ASSOCIATIONS`] left no room for.
    pub refused: AtomicU64,
    /// Messages from peers.
    pub received: AtomicU64,
    /// Messages to peers.
    pub sent: AtomicU64,
    /// Messages that were not sent, because their channel was closed, or the peer takes none as large.
    pub undelivered: AtomicU64,
    /// Packets of peers that used up their budget, or broke rules.
    pub packets_dropped: AtomicU64,
    /// Peers whose channels were closed because too much waited for them.
    pub too_slow: AtomicU64,
}

/// The RPC's end.
#[derive(Debug)]
pub struct Way {
    /// What happens.
    pub events: mpsc::Receiver<(Arc<Names>, Event)>,
    /// What is wanted.
    pub orders: mpsc::Sender<Outgoing>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// The thread's end.
#[derive(Debug)]
pub struct Post {
    events: mpsc::Sender<(Arc<Names>, Event)>,
    orders: mpsc::Receiver<Outgoing>,
    counters: Arc<Counters>,
}

/// Both ends.
#[must_use]
pub fn way() -> (Post, Way) {
    let (events, happened) = mpsc::channel(CHANNEL_EVENTS);
    let (wanted, orders) = mpsc::channel(CHANNEL_ORDERS);
    let counters = Arc::<Counters>::default();
    let way = Way { events: happened, orders: wanted, counters: counters.clone() };
    (Post { events, orders, counters }, way)
}

impl Post {
    /// The next order.
    pub fn order(&mut self) -> Option<Outgoing> {
        self.orders.try_recv().ok()
    }

    /// Whether orders wait.
    #[must_use]
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Whether there is room for an event.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.events.is_closed() && self.events.capacity() > 0
    }

    /// Passes on what happened. `false`: there is no room for all of it now.
    pub fn deliver(&self, names: &Arc<Names>, channels: &mut Channels) -> bool {
        while let Ok(place) = self.events.try_reserve() {
            let Some(event) = channels.poll_event() else { return true };
            let is_message = matches!(event, Event::Message { .. });
            self.counters.received.fetch_add(u64::from(is_message), Ordering::Relaxed);
            place.send((names.clone(), event));
        }
        self.events.is_closed()
    }

    /// Counts packets that were not looked at.
    pub fn count_dropped(&self, packets: u64) {
        self.counters.packets_dropped.fetch_add(packets, Ordering::Relaxed);
    }

    /// Makes room for an association, if there is any.
    #[must_use]
    pub fn admit(&self) -> bool {
        let is_room = self.counters.associations.load(Ordering::Relaxed) < ASSOCIATIONS;
        match is_room {
            true => self.counters.associations.fetch_add(1, Ordering::Relaxed) as u64,
            false => self.counters.refused.fetch_add(1, Ordering::Relaxed),
        };
        is_room
    }

    /// One ended.
    pub fn ended(&self) {
        self.counters.associations.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts what became of a message.
    pub fn count_sent(&self, outcome: Result<(), Refusal>) {
        let count = match outcome {
            Ok(()) => &self.counters.sent,
            Err(Refusal::TooSlow) => {
                self.counters.too_slow.fetch_add(1, Ordering::Relaxed);
                &self.counters.undelivered
            }
            Err(Refusal::NoChannel | Refusal::TooLarge) => &self.counters.undelivered,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
