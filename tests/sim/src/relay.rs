//! The relay as the simulator runs it: the real worker behind [`SimPort`], driven in the order of the
//! relay's loop, and a stand-in for the thread that does DTLS handshakes.

use crate::control::SCOPE;
use crate::handshake::Handshake;
use crate::port::SimPort;
use std::collections::{BTreeMap, VecDeque};
use strait_core::command::{Command, CommandError, Event, PeerId};
use strait_core::egress::Egress;
use strait_core::limits::EGRESS_FLUSH_BYTES;
use strait_core::port::{Meta, Path, Port};
use strait_core::time::{Duration, Instant, Now};
use strait_core::worker::{Worker, WorkerConfig};
use strait_crypt::dtls;

/// Commands that one turn carries out, as in the relay.
const COMMANDS_PER_TURN: usize = 64;

/// One worker with its sockets and its mailbox.
pub struct Relay {
    worker: Worker,
    /// Where the scope moves to, from time to time, and back.
    elsewhere: Worker,
    moves: Option<Duration>,
    move_at: Instant,
    moved: u64,
    port: SimPort,
    egress: Egress,
    mailbox: VecDeque<Command>,
    handshakes: BTreeMap<PeerId, Handshake>,
    epoch: std::time::Instant,
}

/// What a turn brought.
#[derive(Default)]
pub struct Turn {
    /// Datagrams, in order.
    pub sent: Vec<(Path, Vec<u8>)>,
    /// Events.
    pub events: Vec<Event>,
    /// Commands that were refused.
    pub refused: Vec<(String, CommandError)>,
    /// DTLS for the helper thread.
    pub handshakes: Vec<(PeerId, Vec<u8>)>,
    /// What broke a rule.
    pub faults: Vec<String>,
    /// Nothing came in, nothing was asked, nothing was sent.
    pub idle: bool,
    /// When the next turn is due without anything coming in.
    pub until: Option<Instant>,
}

impl Relay {
    /// A relay whose sockets hand over `batch` datagrams at a time. Every `moves` the scope goes to another worker.
    #[must_use]
    pub fn new(config: WorkerConfig, batch: usize, moves: Option<Duration>) -> Self {
        let [low, high] = config.hash_seed;
        Self {
            worker: Worker::new(config),
            elsewhere: Worker::new(WorkerConfig { hash_seed: [!low, !high], ..config }),
            moves,
            move_at: Instant::default(),
            moved: 0,
            port: SimPort::new(batch),
            egress: Egress::default(),
            mailbox: VecDeque::new(),
            handshakes: BTreeMap::new(),
            epoch: std::time::Instant::now(),
        }
    }

    /// Real time at virtual time zero, for what insists on real time.
    #[must_use]
    pub fn epoch(&self) -> std::time::Instant {
        self.epoch
    }

    /// The worker, for its statistics.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// How often the scope moved.
    #[must_use]
    pub fn moves_made(&self) -> u64 {
        self.moved
    }

    /// The kernel took a datagram in.
    pub fn arrive(&mut self, meta: Meta, bytes: Vec<u8>) {
        self.port.arrive(meta, bytes);
    }

    /// The control plane asks for something.
    pub fn ask(&mut self, command: Command) {
        self.mailbox.push_back(command);
    }

    /// A turn of the loop: receive, commands, timeouts, send, wait.
    pub fn turn(&mut self, now: Now) -> Turn {
        let mut turn = Turn::default();
        self.move_scope(now);
        let Self { worker, port, egress, mailbox, .. } = self;
        let mut received = 0;
        loop {
            let count =
                port.receive(now.at, |meta, bytes| worker.on_datagram(now, meta, bytes, egress));
            received += count;
            if egress.bytes() > EGRESS_FLUSH_BYTES {
                port.send(egress);
            }
            if worker.is_due(now.at) {
                worker.forward(now, egress, |egress| port.send(egress));
            }
            if count < port.batch() {
                break;
            }
        }
        if !mailbox.is_empty() {
            worker.forward(now, egress, |egress| port.send(egress));
        }
        let asked = mailbox.len().min(COMMANDS_PER_TURN);
        for command in mailbox.drain(..asked) {
            let text = summary(&command);
            if let Err(error) = worker.on_command(now, command, egress) {
                turn.refused.push((text, error));
            }
        }
        while worker.on_timeout(now, egress) {
            port.send(egress);
        }
        port.send(egress);
        turn.events.extend(std::iter::from_fn(|| worker.poll_event()));
        let handshakes = std::iter::from_fn(|| worker.poll_handshake());
        turn.handshakes.extend(handshakes.map(|input| (input.peer, input.bytes)));
        let until = worker.next_timeout();
        if until.is_some_and(|until| until <= now.at) {
            turn.faults.push(format!("the next timeout {until:?} is not after {:?}", now.at));
        }
        // A mailbox that is not empty keeps the loop from sleeping.
        let until = if mailbox.is_empty() { until } else { Some(now.at) };
        port.wait(now.at, until);
        turn.until = port.until().map(|until| until.max(now.at + Duration::from_micros(1)));
        turn.sent = port.take_sent();
        turn.idle = received == 0 && asked == 0 && turn.sent.is_empty();
        turn
    }

    /// Has the other worker go on, if it is time for that. All that was queued left in the last turn.
    fn move_scope(&mut self, now: Now) {
        let Some(every) = self.moves.filter(|_| now.at >= self.move_at) else { return };
        self.move_at = now.at + every;
        let Self { worker, elsewhere, port, egress, .. } = self;
        worker.forward(now, egress, |egress| port.send(egress));
        if let Ok(moved) = worker.take_scope(now, SCOPE, egress) {
            port.send(egress);
            elsewhere.adopt_scope(now, moved, egress);
            std::mem::swap(worker, elsewhere);
            self.moved += 1;
        }
    }

    /// A peer will agree on keys by DTLS.
    pub fn expect_handshake(&mut self, peer: PeerId, handshake: Handshake) {
        self.handshakes.insert(peer, handshake);
    }

    /// A peer is gone, and so is its handshake.
    pub fn forget_handshake(&mut self, peer: PeerId) {
        self.handshakes.remove(&peer);
    }

    /// The helper thread takes up a datagram, or lets time pass (`None`). Returns when it wants to be called again, and
    /// whether it asks something of the worker.
    pub fn helper(
        &mut self,
        now: Instant,
        peer: PeerId,
        datagram: Option<&[u8]>,
    ) -> (Option<Instant>, bool) {
        let Some(handshake) = self.handshakes.get_mut(&peer) else { return (None, false) };
        let (mut datagrams, mut after) = (Vec::new(), Vec::new());
        for output in handshake.step(now, datagram) {
            match output {
                dtls::Output::Transmit(datagram) => datagrams.push(datagram),
                dtls::Output::Connected(keys) => after.push(Command::SetKeys { peer, keys }),
                dtls::Output::Closed => {
                    let detail = "closed by the peer".to_owned();
                    after.push(Command::CloseHandshake { peer, closed: true, detail });
                }
                dtls::Output::Failed(detail) => {
                    after.push(Command::CloseHandshake { peer, closed: false, detail });
                }
                dtls::Output::Received(_) | dtls::Output::Timeout(_) | dtls::Output::Idle => {}
            }
        }
        let asks = !datagrams.is_empty() || !after.is_empty();
        if !datagrams.is_empty() {
            self.mailbox.push_back(Command::SendHandshake { peer, datagrams });
        }
        self.mailbox.extend(after);
        (handshake.due(), asks)
    }

    /// When the helper thread wants to look at a handshake again.
    #[must_use]
    pub fn handshake_due(&self, peer: PeerId) -> Option<Instant> {
        self.handshakes.get(&peer)?.due()
    }

    /// Whether the helper thread holds nothing any more.
    #[must_use]
    pub fn has_handshakes(&self) -> bool {
        !self.handshakes.is_empty()
    }
}

fn summary(command: &Command) -> String {
    let text = format!("{command:?}");
    // A name and the first fields tell which command it was.
    text.chars().take(120).collect()
}
