//! Which worker a datagram belongs to. The kernel brings most of them to the right one (`ebpf/`), or spreads them by its
//! hash where it cannot; user space always looks again, and corrects it.
//!
//! Every user fragment that we hand out begins with its worker's tag. A STUN request names it, and goes there. When it
//! passes as an ICE check, that worker confirms the flow to the one that reads it: what comes on the same flow later
//! (DTLS, media) goes the same way. A request alone changes nothing: anybody can send one from anybody's address. A flow
//! that nobody confirmed stays where the kernel put it, where the core drops it, because no ICE check passed on it there.
//!
//! A connection of ICE-TCP moves with the first request that it brings, for no stranger can write into it.

use crate::limits::{
    CONFIRMATIONS, FIXED_FLOWS, FLOWS, HANDED_CONNECTIONS, HANDED_OVER, MOVING, PARCELS_WAITING,
    REDIRECTS,
};
use crate::random;
use crossbeam_queue::ArrayQueue;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use strait_core::command::Command;
use strait_core::limits::DATAGRAM_BYTES;
use strait_core::movement::MovedScope;
use strait_core::parcel::Parcel;
use strait_core::port::{Meta, Path, Protocol};
use strait_io::Waker;
use strait_io::steering::Flows as KernelFlows;
use strait_io::tcp::Connection;
use strait_wire::demux::{self, Kind};
use strait_wire::stun::Message;

/// A datagram that another worker read.
#[derive(Debug)]
pub struct Handed {
    reader: usize,
    /// How often it was handed on before.
    hops: u8,
    meta: Meta,
    length: u16,
    bytes: [u8; DATAGRAM_BYTES],
}

impl Handed {
    /// The worker that read it.
    #[must_use]
    pub fn reader(&self) -> usize {
        self.reader
    }

    /// How often it was handed over.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.hops
    }

    /// What is known of it, and its bytes.
    pub fn parts(&mut self) -> (Meta, &mut [u8]) {
        (self.meta, self.bytes.get_mut(..usize::from(self.length)).unwrap_or_default())
    }
}

/// What comes to a worker by which a scope moves.
#[derive(Debug)]
pub enum Moving {
    /// The scope itself, with the ICE-TCP connections of its peers.
    Scope(Box<MovedScope>, Vec<Connection>),
    /// What the DTLS thread had for a peer that was gone by then.
    Command(Box<Command>),
}

/// By what datagrams of a scope are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The paths of its peers.
    pub paths: Vec<Path>,
    /// The user fragments that their checks name.
    pub ufrags: Vec<String>,
}

impl From<&MovedScope> for Whereabouts {
    fn from(moved: &MovedScope) -> Self {
        Self { paths: moved.paths().collect(), ufrags: moved.ufrags().map(str::to_owned).collect() }
    }
}

/// Where a worker finds what the others read for it.
#[derive(Clone, Debug)]
pub struct Letterbox {
    moving: Arc<ArrayQueue<Moving>>,
    datagrams: Arc<ArrayQueue<Handed>>,
    connections: Arc<ArrayQueue<Connection>>,
    /// Flows that this worker reads, and whose they proved to be.
    confirmed: Arc<ArrayQueue<(Path, usize)>>,
    /// Packets that other workers decrypted for this one's subscribers, and whose they are.
    parcels: Arc<ArrayQueue<(usize, Parcel)>>,
    /// Parcels of this worker that were worked on: their memory is used again.
    emptied: Arc<ArrayQueue<Parcel>>,
    waker: Waker,
}

impl Letterbox {
    /// An empty one for the worker that `waker` wakes.
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        Self {
            moving: Arc::new(ArrayQueue::new(MOVING)),
            datagrams: Arc::new(ArrayQueue::new(HANDED_OVER)),
            connections: Arc::new(ArrayQueue::new(HANDED_CONNECTIONS)),
            confirmed: Arc::new(ArrayQueue::new(CONFIRMATIONS)),
            parcels: Arc::new(ArrayQueue::new(PARCELS_WAITING)),
            emptied: Arc::new(ArrayQueue::new(PARCELS_WAITING)),
            waker,
        }
    }

    /// The next scope, or what belongs to one. To be asked for before a datagram is worked on: its scope was put in first.
    #[must_use]
    pub fn moving(&self) -> Option<Moving> {
        self.moving.pop()
    }

    /// The next datagram.
    #[must_use]
    pub fn datagram(&self) -> Option<Handed> {
        self.datagrams.pop()
    }

    /// The next connection. To be asked for before a datagram that came by TCP is worked on: its connection was put in
    /// first, and the answer leaves by it.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        self.connections.pop()
    }

    /// Whether nothing is there to work on. Confirmations wait for the next datagram of their flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
            && self.connections.is_empty()
            && self.moving.is_empty()
            && self.parcels.is_empty()
    }

    /// The next parcel, and the worker that it is from.
    #[must_use]
    pub fn parcel(&self) -> Option<(usize, Parcel)> {
        self.parcels.pop()
    }

    /// The next of this worker's own parcels that was worked on.
    #[must_use]
    pub fn emptied(&self) -> Option<Parcel> {
        self.emptied.pop()
    }

    /// Gives it back when there is no room.
    fn put_moving(&self, moving: Moving) -> Result<(), Moving> {
        self.moving.push(moving)?;
        self.waker.wake();
        Ok(())
    }

    fn put(&self, (reader, hops): (usize, u8), meta: Meta, datagram: &[u8]) -> bool {
        let mut handed = Handed { reader, hops, meta, length: 0, bytes: [0; DATAGRAM_BYTES] };
        let (Some(room), Ok(length)) =
            (handed.bytes.get_mut(..datagram.len()), u16::try_from(datagram.len()))
        else {
            return false;
        };
        room.copy_from_slice(datagram);
        handed.length = length;
        let fits = self.datagrams.push(handed).is_ok();
        self.waker.wake();
        fits
    }

    /// `false`: no room, and the connection is closed.
    pub(crate) fn put_connection(&self, connection: Connection) -> bool {
        let fits = self.connections.push(connection).is_ok();
        self.waker.wake();
        fits
    }
}

/// A datagram's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This worker.
    Me,
    /// Another one.
    Other(usize),
    /// Another one, as this request says; the ICE-TCP connection that it came by is to be handed over as well.
    WithConnection(usize),
}

/// One worker's knowledge of where flows belong.
#[derive(Debug)]
pub struct Steering {
    me: usize,
    letterboxes: Vec<Letterbox>,
    /// Tells the kernel, if that steers.
    kernel: Option<KernelFlows>,
    flows: Flows<Path>,
    /// User fragments of peers whose scope moved since they got them: the tag says where it was.
    redirects: Flows<Box<[u8]>>,
    /// Flows of peers without ICE, which no check confirms.
    fixed: HashMap<Path, usize>,
    /// Datagrams handed over.
    pub handed_over: u64,
    /// Datagrams that the owner had no room for.
    pub full: u64,
}

impl Steering {
    /// Of worker `me`; `letterboxes` are all workers', in order. `kernel` is told of the flows that prove to be ours.
    #[must_use]
    pub fn new(me: usize, letterboxes: Vec<Letterbox>, kernel: Option<KernelFlows>) -> Self {
        Self {
            me,
            letterboxes,
            kernel,
            flows: Flows::new(FLOWS),
            redirects: Flows::new(REDIRECTS),
            fixed: HashMap::new(),
            handed_over: 0,
            full: 0,
        }
    }

    /// This worker.
    #[must_use]
    pub fn me(&self) -> usize {
        self.me
    }

    /// Whose datagram it is.
    pub fn owner(&mut self, path: Path, datagram: &[u8]) -> Owner {
        if self.letterboxes.len() == 1 {
            return Owner::Me;
        }
        if let Some(named) = self.named(datagram) {
            // A connection that we still hold is a new one, even if its flow was known: an earlier one had its port.
            let tcp = path.protocol == Protocol::Tcp;
            if tcp {
                self.learn(path, named);
            }
            return match named == self.me {
                true => Owner::Me,
                false if tcp => Owner::WithConnection(named),
                false => Owner::Other(named),
            };
        }
        let fixed = self.fixed.get(&path).copied();
        fixed.or_else(|| self.flows.get(&path)).map_or(Owner::Me, Owner::Other)
    }

    /// An ICE check of one of our peers passed on this path: tells the worker that reads it, which may be this one.
    pub fn confirm(&mut self, reader: usize, path: Path) {
        if path.protocol == Protocol::Tcp {
            return;
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.insert(path, self.me);
        }
        if self.letterboxes.len() == 1 {
            return;
        }
        if reader == self.me {
            self.learn(path, self.me);
        } else if let Some(letterbox) = self.letterboxes.get(reader) {
            // The oldest makes room: checks repeat, and the last word counts.
            letterbox.confirmed.force_push((path, self.me));
        }
    }

    /// Takes in what others confirmed. To be called between receiving datagrams and asking for their owners: who
    /// answers a check confirms it first, so that what the peer sends upon the answer finds its way.
    pub fn take_confirmed(&mut self) {
        for _ in 0..CONFIRMATIONS {
            let Some(mine) = self.letterboxes.get(self.me) else { return };
            let Some((path, owner)) = mine.confirmed.pop() else { return };
            self.learn(path, owner);
        }
    }

    fn learn(&mut self, path: Path, owner: usize) {
        match owner == self.me {
            true => self.flows.remove(&path),
            false => self.flows.insert(path, owner),
        }
    }

    /// Notes whose a path without ICE is for good, or that it is nobody's any more.
    pub fn fix(&mut self, path: Path, owner: Option<usize>) {
        match owner.filter(|owner| *owner != self.me) {
            Some(owner) if self.fixed.len() < FIXED_FLOWS => drop(self.fixed.insert(path, owner)),
            _ => drop(self.fixed.remove(&path)),
        }
        // One worker is enough to tell the kernel: the owner of a new one, anybody of an old one.
        match (&mut self.kernel, owner) {
            (Some(kernel), Some(owner)) if owner == self.me => kernel.insert(path, owner),
            (Some(kernel), None) => kernel.remove(path),
            _ => {}
        }
    }

    /// A scope moved to `owner`, which may be this worker: its datagrams go there from now on, whatever was known before.
    pub fn redirect(&mut self, whereabouts: &Whereabouts, owner: usize) {
        for &path in &whereabouts.paths {
            // Who knows better, and for good, is told anew by `fix`.
            self.fixed.remove(&path);
            self.learn(path, owner);
            if let Some(kernel) = self.kernel.as_mut().filter(|_| owner == self.me) {
                kernel.insert(path, owner);
            }
        }
        for ufrag in &whereabouts.ufrags {
            self.redirects.insert(ufrag.as_bytes().into(), owner);
        }
    }

    /// Whether there is room for one more that moves to `owner`.
    #[must_use]
    pub fn takes_moving(&self, owner: usize) -> bool {
        self.letterboxes.get(owner).is_some_and(|letterbox| !letterbox.moving.is_full())
    }

    /// Passes on what moves; gives it back when there is no room.
    ///
    /// # Errors
    /// The other worker has too much of that already, or there is no such worker.
    pub fn hand_over_moving(&mut self, owner: usize, moving: Moving) -> Result<(), Moving> {
        match self.letterboxes.get(owner) {
            Some(letterbox) => letterbox.put_moving(moving),
            None => Err(moving),
        }
    }

    /// Passes a datagram on that this worker read; drops and counts it when its owner has no room.
    pub fn hand_over(&mut self, owner: usize, meta: Meta, datagram: &[u8]) {
        self.hand_on(owner, (self.me, 0), meta, datagram);
    }

    /// Passes a datagram on that `reader` read and that was handed over so often.
    pub fn hand_on(&mut self, owner: usize, from: (usize, u8), meta: Meta, datagram: &[u8]) {
        let (reader, hops) = from;
        let letterbox = self.letterboxes.get(owner);
        match letterbox.is_some_and(|letterbox| letterbox.put((reader, hops + 1), meta, datagram)) {
            true => self.handed_over += 1,
            false => self.full += 1,
        }
    }

    /// Passes a connection on; closes it when its owner has no room.
    pub fn hand_over_connection(&mut self, owner: usize, connection: Connection) {
        if let Some(letterbox) = self.letterboxes.get(owner)
            && !letterbox.put_connection(connection)
        {
            self.full += 1;
        }
    }

    /// Passes packets on to the subscribers of another worker.
    ///
    /// # Errors
    /// It has no room; the parcel comes back.
    pub fn send(&self, to: usize, parcel: Parcel) -> Result<(), Parcel> {
        let Some(letterbox) = self.letterboxes.get(to) else { return Err(parcel) };
        letterbox.parcels.push((self.me, parcel)).map_err(|(_, parcel)| parcel)?;
        letterbox.waker.wake();
        Ok(())
    }

    /// Gives a parcel that was worked on back to the worker that it is from. It does not hurry.
    pub fn give_back(&self, to: usize, parcel: Parcel) {
        if let Some(letterbox) = self.letterboxes.get(to) {
            let _ = letterbox.emptied.push(parcel);
        }
    }

    /// The worker that a STUN request names, if it is one of ours.
    fn named(&mut self, datagram: &[u8]) -> Option<usize> {
        if demux::classify(datagram) != Kind::Stun {
            return None;
        }
        let (ufrag, _) = Message::parse(datagram).ok()?.username_parts()?;
        let tagged = random::worker_of(ufrag).filter(|worker| *worker < self.letterboxes.len())?;
        Some(self.redirects.get(ufrag).unwrap_or(tagged))
    }
}

/// A bounded table in two generations: when the young one is full it becomes the old one, and what was used in neither
/// is forgotten. A live flow is used all the time; flows that nobody follows up are forgotten first.
#[derive(Debug)]
struct Flows<K> {
    limit: usize,
    young: HashMap<K, usize>,
    old: HashMap<K, usize>,
}

impl<K: Hash + Eq> Flows<K> {
    fn new(limit: usize) -> Self {
        Self { limit, young: HashMap::new(), old: HashMap::new() }
    }

    fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        if let Some(worker) = self.young.get(key) {
            return Some(*worker);
        }
        let (key, worker) = self.old.remove_entry(key)?;
        self.insert(key, worker);
        Some(worker)
    }

    fn insert(&mut self, key: K, worker: usize) {
        if self.young.len() >= self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, worker);
    }

    fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use strait_wire::stun::Builder;

    fn path(n: u32) -> Path {
        let remote = SocketAddr::new((0xc000_0200 + (n >> 16)).to_be_bytes().into(), n as u16);
        Path::udp([192, 0, 2, 1].into(), remote)
    }

    fn request(worker: usize) -> Vec<u8> {
        let ufrag = random::credentials(worker).unwrap().ufrag;
        let mut bytes = [0; 200];
        let length = Builder::binding_request(&mut bytes, [7; 12])
            .username(ufrag.as_bytes(), b"them")
            .finish()
            .unwrap();
        bytes[..length].to_vec()
    }

    fn steering(workers: usize) -> Steering {
        let options = strait_io::Options {
            udp: vec![[127, 0, 0, 1].into()],
            workers,
            ..strait_io::Options::default()
        };
        let bound = strait_io::bind(&options).unwrap();
        let letterboxes = bound.ports.iter().map(|port| Letterbox::new(port.waker())).collect();
        Steering::new(0, letterboxes, None)
    }

    const MEDIA: [u8; 20] = [0x80; 20];

    fn confirmed(steering: &mut Steering, by: usize, path: Path) {
        let mut other = Steering::new(by, steering.letterboxes.clone(), None);
        other.confirm(steering.me, path);
        steering.take_confirmed();
    }

    #[test]
    fn a_request_goes_where_it_says_and_a_confirmation_takes_its_flow_along() {
        let mut steering = steering(3);
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Me, "not known");
        assert_eq!(steering.owner(path(1), &request(2)), Owner::Other(2));
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Me, "not confirmed");
        confirmed(&mut steering, 2, path(1));
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Other(2));
        assert_eq!(steering.owner(path(2), &MEDIA), Owner::Me, "another flow");
        assert_eq!(steering.owner(path(1), &request(1)), Owner::Other(1), "ICE restart elsewhere");
        confirmed(&mut steering, 1, path(1));
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Other(1));
        assert_eq!(steering.owner(path(1), &request(3)), Owner::Other(1), "no such worker");
        assert_eq!(steering.owner(path(1), &request(2)[..30]), Owner::Other(1), "broken");
        assert_eq!(steering.owner(path(1), &request(0)), Owner::Me);
        steering.confirm(0, path(1));
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Me);
    }

    #[test]
    fn a_path_without_ice_is_where_it_was_said_to_be() {
        let mut steering = steering(3);
        steering.fix(path(1), Some(2));
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Other(2));
        steering.fix(path(2), Some(0));
        assert_eq!(steering.owner(path(2), &MEDIA), Owner::Me);
        steering.fix(path(1), None);
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Me);
        for n in 0..FIXED_FLOWS as u32 + 9 {
            steering.fix(path(n), Some(1));
        }
        assert_eq!(steering.fixed.len(), FIXED_FLOWS);
    }

    #[test]
    fn a_forged_request_takes_no_flow_away() {
        let mut steering = steering(3);
        confirmed(&mut steering, 2, path(1));
        steering.confirm(0, path(2));
        for forger in 0..3 {
            for flow in [path(1), path(2)] {
                // It goes to the worker that it names, whose core refuses it and confirms nothing.
                let named = if forger == 0 { Owner::Me } else { Owner::Other(forger) };
                assert_eq!(steering.owner(flow, &request(forger)), named);
                steering.take_confirmed();
            }
            assert_eq!(steering.owner(path(1), &MEDIA), Owner::Other(2), "after {forger}");
            assert_eq!(steering.owner(path(2), &MEDIA), Owner::Me, "after {forger}");
        }
    }

    #[test]
    fn confirmations_that_nobody_fetches_are_bounded_and_the_last_word_counts() {
        let mut steering = steering(3);
        let mut others = [1, 2].map(|me| Steering::new(me, steering.letterboxes.clone(), None));
        let [one, two] = &mut others;
        for n in 0..CONFIRMATIONS as u32 + 5 {
            one.confirm(0, path(n));
        }
        two.confirm(0, path(9));
        one.confirm(7, path(1));
        assert_eq!(steering.letterboxes[0].confirmed.len(), CONFIRMATIONS);
        assert!(steering.letterboxes[0].is_empty(), "no reason to stay awake");
        steering.take_confirmed();
        assert_eq!(steering.owner(path(0), &MEDIA), Owner::Me, "lost; the next check tells again");
        assert_eq!(steering.owner(path(6), &MEDIA), Owner::Other(1));
        assert_eq!(steering.owner(path(9), &MEDIA), Owner::Other(2));
    }

    #[test]
    fn a_connection_is_handed_over_with_its_first_request() {
        let mut steering = steering(3);
        let path = Path { protocol: Protocol::Tcp, ..path(1) };
        assert_eq!(steering.owner(path, &request(2)), Owner::WithConnection(2));
        let again = steering.owner(path, &request(2));
        assert_eq!(
            again,
            Owner::WithConnection(2),
            "another of the same port; the answer leaves by it"
        );
        assert_eq!(steering.owner(path, &MEDIA), Owner::Other(2), "read before it left");
        assert_eq!(steering.owner(path, &request(0)), Owner::Me);
        assert_eq!(steering.owner(path, &MEDIA), Owner::Me);
        confirmed(&mut steering, 2, path);
        assert_eq!(steering.owner(path, &MEDIA), Owner::Me, "who holds a connection needs no word");
    }

    #[test]
    fn alone_nothing_is_looked_at() {
        let mut steering = steering(1);
        assert_eq!(steering.owner(path(1), &request(2)), Owner::Me);
        steering.confirm(0, path(1));
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Me);
    }

    #[test]
    fn a_flood_does_not_push_out_a_flow_in_use() {
        let mut steering = steering(2);
        confirmed(&mut steering, 1, path(0));
        for n in 1..200_000 {
            confirmed(&mut steering, 1, path(n));
            if n % 10_000 == 0 {
                assert_eq!(steering.owner(path(0), &MEDIA), Owner::Other(1), "after {n}");
            }
        }
        assert!(steering.flows.young.len() + steering.flows.old.len() <= FLOWS);
        assert_eq!(steering.owner(path(1), &MEDIA), Owner::Me, "forgotten");
    }

    #[test]
    fn parcels_are_bounded_and_their_memory_goes_back() {
        let steering = steering(2);
        for _ in 0..PARCELS_WAITING {
            assert!(steering.send(1, Parcel::default()).is_ok());
        }
        assert!(steering.send(1, Parcel::default()).is_err(), "full");
        assert!(steering.send(9, Parcel::default()).is_err(), "no such worker");
        let [mine, theirs] = &steering.letterboxes[..] else { panic!("two workers") };
        assert!(mine.is_empty() && !theirs.is_empty());
        let (from, parcel) = theirs.parcel().unwrap();
        assert_eq!(from, 0);
        assert!(steering.send(1, Parcel::default()).is_ok());
        let other = Steering::new(1, steering.letterboxes.clone(), None);
        other.give_back(from, parcel);
        assert!(mine.emptied().is_some() && mine.emptied().is_none());
        assert!(mine.is_empty(), "no reason to stay awake");
    }

    #[test]
    fn what_the_owner_has_no_room_for_is_counted() {
        let mut steering = steering(2);
        let at = strait_core::time::Instant(5);
        let meta = Meta { path: path(1), at, ecn: 2 };
        for _ in 0..HANDED_OVER + 3 {
            steering.hand_over(1, meta, &MEDIA);
        }
        assert_eq!((steering.handed_over, steering.full), (HANDED_OVER as u64, 3));
        let mut handed = steering.letterboxes[1].datagram().unwrap();
        assert_eq!(handed.reader(), 0);
        let (meta, bytes) = handed.parts();
        assert_eq!((meta.path, meta.at, meta.ecn, &*bytes), (path(1), at, 2, &MEDIA[..]));
        steering.hand_over(9, meta, &MEDIA);
        assert_eq!(steering.full, 4, "no such worker");
    }
}
