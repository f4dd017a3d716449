//! DTLS, on a thread of its own: its asymmetric cryptography takes as long as a hundred packets, and a join storm must
//! not add jitter to the calls that go on.
//!
//! Workers pass datagrams in and get commands back; both ways are bounded. What is lost on the way in is retransmitted
//! by the peer (DTLS is made for loss); keys and ends on the way out wait until the worker's mailbox has room.

use crate::channels::{Channels, Outgoing, Permission, Post, Refusal};
use crate::fault;
use crate::limits::{CHANNEL_DATAGRAMS, HALF_OPEN, HANDSHAKE_INPUTS, HANDSHAKE_ORDERS};
use crate::mailbox::{Mailbox, Request};
use crossbeam_queue::ArrayQueue;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use strait_core::command::{Command, PeerId};
use strait_core::limits::HEARD_INTERVAL;
use strait_core::port::Path;
use strait_core::worker::HandshakeInput;
use strait_crypt::dtls::{Certificate, Fingerprint, Handshake, Output, Role};

/// The thread looks around at least so often, in case a wake-up came too early.
const NAP: Duration = Duration::from_millis(100);
/// The least time between two timeouts of a peer's channels.
const TICK: Duration = Duration::from_millis(1);
/// Inputs taken between two looks at the timers.
const INPUTS_PER_TURN: usize = 64;
/// Timers per peer, stale ones included, beyond which the stale ones are thrown out.
const STALE_TIMERS: usize = 4;
/// So many timers are kept anyway: a few peers are no reason to tidy up all the time.
const TIMERS_MIN: usize = 64;

/// Too many handshakes are under way.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of {HALF_OPEN} peers whose DTLS handshake is not finished is reached: call again in some seconds; \
     if it lasts, clients fetch an answer and never connect (look at their firewalls)"
)]
pub struct TooManyHalfOpen;

/// The way to the thread, for workers and the RPC.
#[derive(Clone, Debug)]
pub struct Handshakes {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug)]
struct Shared {
    orders: ArrayQueue<Order>,
    inputs: ArrayQueue<HandshakeInput>,
    half_open: AtomicUsize,
    dropped: AtomicU64,
    stop: AtomicBool,
    /// Turns of the thread's loop.
    turns: AtomicU64,
}

#[derive(Debug)]
enum Order {
    Add {
        worker: usize,
        peer: PeerId,
        role: Role,
        fingerprint: Fingerprint,
        channels: Option<Permission>,
    },
    Remove(PeerId),
    Move {
        peer: PeerId,
        worker: usize,
    },
    /// Only tests ask for it.
    Die,
}

/// Starts the thread, which holds `last` until it ends.
///
/// # Errors
/// No thread is to be had.
pub fn start(
    certificate: Certificate,
    workers: Vec<Mailbox>,
    post: Post,
    last: impl Send + 'static,
) -> io::Result<(Handshakes, JoinHandle<()>)> {
    let shared = Arc::new(Shared {
        orders: ArrayQueue::new(HANDSHAKE_ORDERS),
        inputs: ArrayQueue::new(HANDSHAKE_INPUTS),
        half_open: AtomicUsize::new(0),
        dropped: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        turns: AtomicU64::new(0),
    });
    let helper = Helper {
        certificate,
        waiting: workers.iter().map(|_| VecDeque::new()).collect(),
        workers,
        shared: shared.clone(),
        peers: HashMap::new(),
        timers: BinaryHeap::new(),
        post,
        held_up: BTreeSet::new(),
    };
    let join = std::thread::Builder::new().name("dtls".into()).spawn(move || {
        let _last = last;
        helper.run();
    })?;
    Ok((Handshakes { shared, thread: join.thread().clone() }, join))
}

impl Handshakes {
    /// Expects a peer. To be called before its worker is told of it.
    ///
    /// # Errors
    /// [`HALF_OPEN`] handshakes are under way.
    pub fn add(
        &self,
        worker: usize,
        peer: PeerId,
        role: Role,
        fingerprint: Fingerprint,
        channels: Option<Permission>,
    ) -> Result<(), TooManyHalfOpen> {
        if self.shared.half_open.fetch_add(1, Ordering::Relaxed) >= HALF_OPEN {
            self.shared.half_open.fetch_sub(1, Ordering::Relaxed);
            return Err(TooManyHalfOpen);
        }
        let order = Order::Add { worker, peer, role, fingerprint, channels };
        if self.shared.orders.push(order).is_err() {
            self.shared.half_open.fetch_sub(1, Ordering::Relaxed);
            return Err(TooManyHalfOpen);
        }
        self.thread.unpark();
        Ok(())
    }

    /// Forgets a peer. Idempotent.
    pub fn remove(&self, peer: PeerId) {
        self.order(Order::Remove(peer));
    }

    /// A peer lives on another worker now.
    pub fn moved(&self, peer: PeerId, worker: usize) {
        self.order(Order::Move { peer, worker });
    }

    fn order(&self, mut order: Order) {
        // The queue is only full when thousands of orders wait; the thread takes them all in one turn.
        while let Err(back) = self.shared.orders.push(order) {
            if self.shared.stop.load(Ordering::Relaxed) {
                return;
            }
            order = back;
            self.thread.unpark();
            std::thread::yield_now();
        }
        self.thread.unpark();
    }

    /// Passes in a datagram; drops and counts it when there is no room.
    pub fn input(&self, input: HandshakeInput) {
        if self.shared.inputs.push(input).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.thread.unpark();
    }

    /// Has the thread look for messages, or for room for them.
    pub fn wake(&self) {
        self.thread.unpark();
    }

    #[doc(hidden)]
    pub fn die(&self) {
        let _ = self.shared.orders.push(Order::Die);
        self.thread.unpark();
    }

    /// Handshakes under way.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.shared.half_open.load(Ordering::Relaxed)
    }

    /// Datagrams that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How often the thread looked around: at least every 100 ms, or it hangs.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// The thread.
struct Helper {
    certificate: Certificate,
    workers: Vec<Mailbox>,
    /// Per worker, what its mailbox had no room for.
    waiting: Vec<VecDeque<Request>>,
    shared: Arc<Shared>,
    peers: HashMap<PeerId, Peer>,
    /// The entry that is not its peer's `wake` any more is stale.
    timers: BinaryHeap<Reverse<(Instant, PeerId)>>,
    /// Messages of data channels, from and to the RPC.
    post: Post,
    /// Peers whose messages found no room there.
    held_up: BTreeSet<PeerId>,
}

struct Peer {
    worker: usize,
    role: Role,
    fingerprint: Fingerprint,
    /// Made with the first datagram: who never comes costs little.
    handshake: Option<Handshake>,
    wake: Option<Instant>,
    half_open: bool,
    /// It may have channels.
    permission: Option<Permission>,
    /// Made with its first packet, or by a client of DTLS.
    channels: Option<Box<Channels>>,
    /// By which path data came that authenticated, as that was told last, and when.
    heard: Option<(Path, Instant)>,
}

/// What came out of a peer's handshake.
#[derive(Default)]
struct Outcome {
    datagrams: Vec<Vec<u8>>,
    commands: Vec<Command>,
    received: Vec<Vec<u8>>,
    wake: Option<Instant>,
}

impl Helper {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
            let now = Instant::now();
            while let Some(order) = self.shared.orders.pop() {
                self.obey(order, now);
            }
            for _ in 0..INPUTS_PER_TURN {
                let Some(HandshakeInput { peer, path, bytes }) = self.shared.inputs.pop() else {
                    break;
                };
                // An order that was pushed before this datagram is seen before it.
                while let Some(order) = self.shared.orders.pop() {
                    self.obey(order, now);
                }
                if !self.is_over_budget(peer, now) {
                    self.work(peer, now, Some(path), |handshake| handshake.handle(now, &bytes));
                }
            }
            self.take_messages(now);
            self.fire(now);
            self.deliver();
            self.sleep();
        }
    }

    fn obey(&mut self, order: Order, now: Instant) {
        match order {
            Order::Add { worker, peer, role, fingerprint, channels } => {
                let entry = Peer {
                    worker,
                    role,
                    fingerprint,
                    handshake: None,
                    wake: None,
                    half_open: true,
                    permission: channels,
                    channels: None,
                    heard: None,
                };
                self.peers.insert(peer, entry);
                if role == Role::Client {
                    self.work(peer, now, None, |_| {});
                }
            }
            Order::Die => fault::die(),
            Order::Move { peer, worker } => {
                if let Some(entry) = self.peers.get_mut(&peer) {
                    entry.worker = worker;
                }
            }
            Order::Remove(peer) => {
                if let Some(entry) = self.forget(peer) {
                    self.settle(entry.half_open);
                }
            }
        }
    }

    /// Does something to a peer's handshake, for what came by a path or without, and sees to what comes out.
    fn work(
        &mut self,
        id: PeerId,
        now: Instant,
        path: Option<Path>,
        work: impl FnOnce(&mut Handshake),
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let handshake = peer.handshake.get_or_insert_with(|| {
            let print = peer.fingerprint.clone();
            let mut handshake = Handshake::new(&self.certificate, peer.role, print, now);
            if peer.permission.is_some() {
                handshake.take_data();
            }
            handshake
        });
        work(handshake);
        let mut outcome = Outcome::default();
        outcome.take(id, handshake);
        let over = outcome.wake.is_none();
        let connected = handshake.is_connected();
        let heard = path.filter(|path| !outcome.received.is_empty() && peer.hears(now, *path));
        let settled = peer.half_open && (connected || over);
        peer.half_open &= !settled;
        if let Some(permission) = peer.permission.as_ref().filter(|_| !over && connected) {
            let begins = settled && peer.role == Role::Client;
            let is_wanted = begins || !outcome.received.is_empty();
            if is_wanted && peer.channels.is_none() && self.post.admit() {
                let mut channels =
                    Channels::new(permission.message_bytes_max, permission.rates, now);
                if begins {
                    channels.connect();
                }
                peer.channels = Some(Box::new(channels));
            }
            let received = std::mem::take(&mut outcome.received);
            let held_up = peer.exchange(id, now, received, &self.post, &mut outcome);
            match held_up {
                true => self.held_up.insert(id),
                false => self.held_up.remove(&id),
            };
        }
        let Outcome { datagrams, mut commands, wake, .. } = outcome;
        let moved = peer.wake != wake;
        peer.wake = wake;
        let worker = peer.worker;
        if over {
            // What comes after is ignored.
            self.forget(id);
        }
        if moved {
            self.arm(id, wake);
        }
        self.settle(settled);
        if let Some(path) = heard {
            self.post(worker, Command::Heard { peer: id, path });
        }
        // The last flight goes out before the keys: the peer's media comes only after it.
        for (at, datagrams) in datagrams.chunks(CHANNEL_DATAGRAMS).enumerate() {
            let datagrams = datagrams.to_vec();
            commands.insert(at, Command::SendHandshake { peer: id, datagrams });
        }
        for command in commands {
            self.post(worker, command);
        }
    }

    /// Takes what is to be said on channels, and goes on with peers who could not be heard.
    fn take_messages(&mut self, now: Instant) {
        for _ in 0..INPUTS_PER_TURN {
            let Some(order) = self.post.order() else { break };
            match order {
                Outgoing::Say { peer, channel, is_text, payload } => {
                    let channels = self.channels(peer);
                    let said = channels.map(|each| each.send(channel, is_text, &payload));
                    self.post.count_sent(said.unwrap_or(Err(Refusal::NoChannel)));
                    if said.is_some() {
                        self.work(peer, now, None, |_| {});
                    }
                }
                Outgoing::Close { peer, channel } => {
                    if let Some(channels) = self.channels(peer) {
                        channels.close(channel, "the control plane closed it");
                        self.work(peer, now, None, |_| {});
                    }
                }
                Outgoing::Tell => {
                    let peers = self.peers.iter_mut();
                    let with = peers.filter_map(|(id, peer)| Some((id, peer.channels.as_mut()?)));
                    for (id, channels) in with {
                        channels.tell();
                        self.held_up.insert(*id);
                    }
                }
            }
        }
        while self.post.has_room()
            && let Some(peer) = self.held_up.pop_first()
        {
            self.work(peer, now, None, |_| {});
        }
    }

    /// Whether a peer's channels made so much work that nothing from it is even decrypted for a while.
    fn is_over_budget(&mut self, peer: PeerId, now: Instant) -> bool {
        let is_over = self.channels(peer).is_some_and(|channels| channels.is_over_budget(now));
        self.post.count_dropped(u64::from(is_over));
        is_over
    }

    fn channels(&mut self, peer: PeerId) -> Option<&mut Channels> {
        self.peers.get_mut(&peer)?.channels.as_deref_mut()
    }

    fn forget(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.peers.remove(&id)?;
        self.held_up.remove(&id);
        if peer.channels.is_some() {
            self.post.ended();
        }
        Some(peer)
    }

    /// Notes when a peer wants to be woken, as its `wake` says.
    fn arm(&mut self, id: PeerId, wake: Option<Instant>) {
        self.timers.extend(wake.map(|at| Reverse((at, id))));
        // Every datagram may move its peer's timer: a flood would pile up stale entries until they are due.
        if self.timers.len() > STALE_TIMERS * self.peers.len() + TIMERS_MIN {
            let live = self.peers.iter().filter_map(|(&id, peer)| Some(Reverse((peer.wake?, id))));
            self.timers = live.collect();
        }
    }

    fn fire(&mut self, now: Instant) {
        while let Some(&Reverse((at, peer))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            if self.peers.get(&peer).is_some_and(|entry| entry.wake == Some(at)) {
                if let Some(entry) = self.peers.get_mut(&peer) {
                    entry.wake = None;
                }
                self.work(peer, now, None, |handshake| handshake.handle_timeout(now));
            }
        }
    }

    fn post(&mut self, worker: usize, command: Command) {
        if let Some(waiting) = self.waiting.get_mut(worker) {
            // Datagrams and word of them may be lost, keys and ends may not; of these each peer has one.
            let comes_again =
                matches!(command, Command::SendHandshake { .. } | Command::Heard { .. });
            if !waiting.is_empty() && comes_again {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push_back(Request::Command(Box::new(command), None));
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        for (mailbox, waiting) in self.workers.iter().zip(&mut self.waiting) {
            while let Some(request) = waiting.pop_front() {
                if let Err(request) = mailbox.send(request) {
                    waiting.push_front(request);
                    break;
                }
            }
        }
    }

    fn sleep(&mut self) {
        let waits = !self.shared.inputs.is_empty() || !self.shared.orders.is_empty();
        let has_room = !self.held_up.is_empty() && self.post.has_room();
        if waits || has_room || self.post.has_orders() {
            return;
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| {
            at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
        });
        let patience = if self.waiting.iter().all(VecDeque::is_empty) {
            NAP
        } else {
            Duration::from_millis(1)
        };
        std::thread::park_timeout(timer.unwrap_or(patience).min(patience));
    }

    fn settle(&self, settled: bool) {
        if settled {
            self.shared.half_open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Outcome {
    /// Takes all that a handshake has.
    fn take(&mut self, peer: PeerId, handshake: &mut Handshake) {
        self.wake = loop {
            match handshake.poll() {
                Output::Transmit(datagram) => self.datagrams.push(datagram),
                Output::Received(data) => self.received.push(data),
                Output::Connected(keys) => self.commands.push(Command::SetKeys { peer, keys }),
                Output::Closed => {
                    let detail = "the peer closed DTLS".to_owned();
                    self.commands.push(Command::CloseHandshake { peer, closed: true, detail });
                }
                Output::Failed(detail) => {
                    self.commands.push(Command::CloseHandshake { peer, closed: false, detail });
                }
                Output::Timeout(at) => break Some(at),
                Output::Idle => break None,
            }
        };
    }
}

impl Peer {
    /// Whether to tell that data came by a path: by another one than before, or when it is time again.
    fn hears(&mut self, now: Instant, path: Path) -> bool {
        let is_told =
            self.heard.is_some_and(|(told, at)| told == path && now < at + HEARD_INTERVAL);
        if !is_told {
            self.heard = Some((path, now));
        }
        !is_told
    }

    /// Gives its channels what came, and takes what they have. `true`: somebody has to read before there is more.
    fn exchange(
        &mut self,
        id: PeerId,
        now: Instant,
        received: Vec<Vec<u8>>,
        post: &Post,
        outcome: &mut Outcome,
    ) -> bool {
        let (Some(handshake), Some(channels), Some(permission)) =
            (&mut self.handshake, &mut self.channels, &self.permission)
        else {
            return false;
        };
        channels.handle_timeout(now);
        for packet in received {
            channels.handle(now, packet);
        }
        post.count_dropped(channels.take_refused());
        let is_heard = post.deliver(&permission.names, channels);
        while let Some(packet) = channels.poll_transmit() {
            handshake.send(&packet);
            outcome.take(id, handshake);
        }
        // A handshake that failed at this is over; otherwise who is due first. Time always advances.
        if let (Some(at), Some(due)) = (outcome.wake, channels.next_timeout()) {
            outcome.wake = Some(at.min(due.max(now + TICK)));
        }
        !is_heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper() -> Helper {
        Helper {
            certificate: Certificate::generate().unwrap(),
            workers: Vec::new(),
            waiting: Vec::new(),
            shared: Arc::new(Shared {
                orders: ArrayQueue::new(1),
                inputs: ArrayQueue::new(1),
                half_open: AtomicUsize::new(0),
                dropped: AtomicU64::new(0),
                stop: AtomicBool::new(false),
                turns: AtomicU64::new(0),
            }),
            peers: HashMap::new(),
            timers: BinaryHeap::new(),
            post: crate::channels::way().0,
            held_up: BTreeSet::new(),
        }
    }

    #[test]
    fn a_peer_that_moves_its_timer_all_the_time_fills_nothing() {
        let mut helper = helper();
        let now = Instant::now();
        for id in 0..10 {
            let fingerprint = Fingerprint::new("sha-256", &[7; 32]).unwrap();
            let role = Role::Client;
            let peer = PeerId(id);
            let add = Order::Add { worker: 0, peer, role, fingerprint, channels: None };
            helper.obey(add, now);
        }
        assert_eq!(helper.timers.len(), 10);
        let mut most = 0;
        for step in 0..100_000 {
            let at = now + Duration::from_micros(step);
            helper.peers.get_mut(&PeerId(3)).unwrap().wake = Some(at);
            helper.arm(PeerId(3), Some(at));
            most = most.max(helper.timers.len());
        }
        assert!(most <= STALE_TIMERS * 10 + TIMERS_MIN, "{most}");
        for (id, peer) in &helper.peers {
            let entry = (peer.wake.unwrap(), *id);
            assert!(helper.timers.iter().any(|Reverse(timer)| *timer == entry), "{id:?} sleeps on");
        }
        // And those who left leave nothing that is not due some time.
        (0..9).for_each(|id| helper.obey(Order::Remove(PeerId(id)), now));
        assert_eq!(helper.peers.len(), 1);
        helper.fire(now + Duration::from_secs(100));
        assert_eq!(helper.timers.len(), helper.peers.len(), "the last one's next try, if any");
    }
}
