//! What goes from worker to worker: decrypted packets and what is known of them one way, wishes the other. One parcel for
//! each destination and turn.
//!
//! Nothing in a parcel has to arrive: a state is told again with each sender report, a wish is repeated while it is one, a
//! packet that is lost is asked for.

use crate::command::{PeerId, PublicationId, WorkerId};
use crate::limits::{PARCEL_BYTES, PARCEL_ITEMS, PARCELS};
use crate::measure::{ClockOffset, SenderInfo};
use crate::publication::Publication;
use crate::rewrite::Source;
use crate::time::Instant;
use std::collections::VecDeque;
use std::ops::Range;
use strait_wire::rtp;

/// What one worker has for another at the end of a turn. Its memory is used again.
#[derive(Debug, Default)]
pub struct Parcel {
    pub(crate) items: Vec<Item>,
    pub(crate) arena: Vec<u8>,
}

impl Parcel {
    /// How many packets, states and wishes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn fits(&self, bytes: usize) -> bool {
        self.items.len() < PARCEL_ITEMS && self.arena.len() + bytes <= PARCEL_BYTES
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        start..self.arena.len()
    }
}

/// One encoding of a publication, as both workers call it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) publication: PublicationId,
    pub(crate) encoding: u8,
    /// At the origin.
    pub(crate) source: Source,
}

/// What the origin knows of an encoding beside its packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: u32,
    pub(crate) active_at: Option<Instant>,
    pub(crate) sender: Option<SenderInfo>,
    pub(crate) clock: ClockOffset,
}

#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// Decrypted, and as it came where subscribers may get it so.
    Packet {
        name: Name,
        bytes: Range<usize>,
        sealed: Range<usize>,
    },
    State {
        name: Name,
        known: Known,
    },
    /// Sender reports of a plain publisher, as they came.
    Reports {
        publisher: PeerId,
        bytes: Range<usize>,
    },
    /// Somebody waits for a key frame.
    KeyFrame {
        name: Name,
    },
    /// These of its encodings, as a set, are wanted.
    Demand {
        publication: PublicationId,
        encodings: u8,
    },
    /// Somebody misses a packet.
    Missing {
        name: Name,
        seq: u16,
    },
}

/// The parcels of a turn, and empty ones.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    full: VecDeque<(WorkerId, Parcel)>,
    empty: Vec<Parcel>,
}

impl Outbox {
    /// A parcel with room for one more item with so many bytes; `None` when there is none.
    pub(crate) fn parcel(&mut self, to: WorkerId, bytes: usize) -> Option<&mut Parcel> {
        let last = self.full.iter().rposition(|(worker, _)| *worker == to);
        let last = last.filter(|at| self.full.get(*at).is_some_and(|(_, last)| last.fits(bytes)));
        let at = match last {
            Some(at) => at,
            None if self.full.len() >= PARCELS || bytes > PARCEL_BYTES => return None,
            None => {
                self.full.push_back((to, self.empty.pop().unwrap_or_default()));
                self.full.len() - 1
            }
        };
        self.full.get_mut(at).map(|(_, parcel)| parcel)
    }

    /// `false`: no room.
    pub(crate) fn put(&mut self, to: WorkerId, item: Item) -> bool {
        self.parcel(to, 0).map(|parcel| parcel.items.push(item)).is_some()
    }

    pub(crate) fn packet(
        &mut self,
        to: WorkerId,
        name: Name,
        packet: &[u8],
        sealed: &[u8],
    ) -> bool {
        let Some(parcel) = self.parcel(to, packet.len() + sealed.len()) else { return false };
        let (bytes, sealed) = (parcel.put(packet), parcel.put(sealed));
        // Without the padding that it came with, which is not copied.
        let header = parcel.arena.get_mut(bytes.clone()).unwrap_or_default();
        let whole = rtp::set_padding(header, false).is_some();
        if whole {
            parcel.items.push(Item::Packet { name, bytes, sealed });
        }
        whole
    }

    /// Puts a packet that was just taken in into the parcels for all mirrors; how many had no room.
    pub(crate) fn mirror(
        &mut self,
        publication: &Publication,
        encoding: u8,
        source: Source,
        packet: &[u8],
        sealed: &[u8],
    ) -> u64 {
        let name = Name { publication: publication.id, encoding, source };
        let sealed = if publication.mirrors.as_sent() { sealed } else { &[] };
        let mut lost = 0;
        for worker in publication.mirrors.workers() {
            lost += u64::from(!self.packet(*worker, name, packet, sealed));
        }
        lost
    }

    /// The oldest parcel.
    pub(crate) fn take(&mut self) -> Option<(WorkerId, Parcel)> {
        self.full.pop_front()
    }

    /// Keeps the memory of a parcel that was worked on.
    pub(crate) fn reuse(&mut self, mut parcel: Parcel) {
        if self.empty.len() < PARCELS {
            parcel.items.clear();
            parcel.arena.clear();
            self.empty.push(parcel);
        }
    }
}
