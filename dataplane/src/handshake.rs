//! DTLS, on a thread of its own: its asymmetric cryptography takes as long as a hundred packets, and a join storm must
//! not add jitter to the calls that go on.
//!
//! Workers pass datagrams in and get commands back; both ways are bounded. What is lost on the way in is retransmitted
//! by the peer (DTLS is made for loss); keys and ends on the way out wait until the worker's mailbox has room.

use crate::fault;
use crate::limits::{HALF_OPEN, HANDSHAKE_INPUTS, HANDSHAKE_ORDERS};
use crate::mailbox::{Mailbox, Request};
use crossbeam_queue::ArrayQueue;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use strait_core::command::{Command, PeerId};
use strait_crypt::dtls::{Certificate, Fingerprint, Handshake, Output, Role};

/// The thread looks around at least so often, in case a wake-up came too early.
const NAP: Duration = Duration::from_millis(100);
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
    inputs: ArrayQueue<Input>,
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
    },
    Remove(PeerId),
    Move {
        peer: PeerId,
        worker: usize,
    },
    /// Only tests ask for it.
    Die,
}

#[derive(Debug)]
struct Input {
    peer: PeerId,
    datagram: Vec<u8>,
}

/// Starts the thread, which holds `last` until it ends.
///
/// # Errors
/// No thread is to be had.
pub fn start(
    certificate: Certificate,
    workers: Vec<Mailbox>,
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
    ) -> Result<(), TooManyHalfOpen> {
        if self.shared.half_open.fetch_add(1, Ordering::Relaxed) >= HALF_OPEN {
            self.shared.half_open.fetch_sub(1, Ordering::Relaxed);
            return Err(TooManyHalfOpen);
        }
        if self.shared.orders.push(Order::Add { worker, peer, role, fingerprint }).is_err() {
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
    pub fn input(&self, peer: PeerId, datagram: Vec<u8>) {
        if self.shared.inputs.push(Input { peer, datagram }).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
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
}

struct Peer {
    worker: usize,
    role: Role,
    fingerprint: Fingerprint,
    /// Made with the first datagram: who never comes costs little.
    handshake: Option<Handshake>,
    wake: Option<Instant>,
    half_open: bool,
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
                let Some(Input { peer, datagram }) = self.shared.inputs.pop() else { break };
                // An order that was pushed before this datagram is seen before it.
                while let Some(order) = self.shared.orders.pop() {
                    self.obey(order, now);
                }
                self.work(peer, now, |handshake| handshake.handle(now, &datagram));
            }
            self.fire(now);
            self.deliver();
            self.sleep();
        }
    }

    fn obey(&mut self, order: Order, now: Instant) {
        match order {
            Order::Add { worker, peer, role, fingerprint } => {
                let entry = Peer {
                    worker,
                    role,
                    fingerprint,
                    handshake: None,
                    wake: None,
                    half_open: true,
                };
                self.peers.insert(peer, entry);
                if role == Role::Client {
                    self.work(peer, now, |_| {});
                }
            }
            Order::Die => fault::die(),
            Order::Move { peer, worker } => {
                if let Some(entry) = self.peers.get_mut(&peer) {
                    entry.worker = worker;
                }
            }
            Order::Remove(peer) => {
                if let Some(entry) = self.peers.remove(&peer) {
                    self.settle(entry.half_open);
                }
            }
        }
    }

    /// Does something to a peer's handshake and sees to what comes out.
    fn work(&mut self, id: PeerId, now: Instant, work: impl FnOnce(&mut Handshake)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let handshake = peer.handshake.get_or_insert_with(|| {
            Handshake::new(&self.certificate, peer.role, peer.fingerprint.clone(), now)
        });
        work(handshake);
        let mut datagrams = Vec::new();
        let mut commands = Vec::new();
        let wake = loop {
            match handshake.poll() {
                Output::Transmit(datagram) => datagrams.push(datagram),
                Output::Connected(keys) => commands.push(Command::SetKeys { peer: id, keys }),
                Output::Closed => {
                    let detail = "the peer closed DTLS".to_owned();
                    commands.push(Command::CloseHandshake { peer: id, closed: true, detail });
                }
                Output::Failed(detail) => {
                    commands.push(Command::CloseHandshake { peer: id, closed: false, detail });
                }
                Output::Timeout(at) => break Some(at),
                Output::Idle => break None,
            }
        };
        let connected = handshake.is_connected();
        let moved = peer.wake != wake;
        peer.wake = wake;
        let worker = peer.worker;
        let settled = peer.half_open && (connected || wake.is_none());
        peer.half_open &= !settled;
        if wake.is_none() {
            // Over: what comes after is ignored.
            self.peers.remove(&id);
        }
        if moved {
            self.arm(id, wake);
        }
        self.settle(settled);
        // The last flight goes out before the keys: the peer's media comes only after it.
        if !datagrams.is_empty() {
            commands.insert(0, Command::SendHandshake { peer: id, datagrams });
        }
        for command in commands {
            self.post(worker, command);
        }
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
                self.work(peer, now, |handshake| handshake.handle_timeout(now));
            }
        }
    }

    fn post(&mut self, worker: usize, command: Command) {
        if let Some(waiting) = self.waiting.get_mut(worker) {
            // Datagrams may be lost, keys and ends may not; of these each peer has one.
            if !waiting.is_empty() && matches!(command, Command::SendHandshake { .. }) {
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
        if !self.shared.inputs.is_empty() || !self.shared.orders.is_empty() {
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
        }
    }

    #[test]
    fn a_peer_that_moves_its_timer_all_the_time_fills_nothing() {
        let mut helper = helper();
        let now = Instant::now();
        for id in 0..10 {
            let fingerprint = Fingerprint::new("sha-256", &[7; 32]).unwrap();
            let role = Role::Client;
            helper.obey(Order::Add { worker: 0, peer: PeerId(id), role, fingerprint }, now);
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
