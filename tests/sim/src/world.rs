//! The virtual clock and what happens on it: a queue of events in order of time, and nothing else that moves.

use crate::control::{self, Life, Member, Names, SCOPE, Slot};
use crate::lines::Account;
use crate::network::Link;
use crate::peer::Peer;
use crate::peer::receiver::Counts;
use crate::plan::{Plan, Step};
use crate::protocol::stun;
use crate::relay::Relay;
use crate::report::{Fault, Outcome};
use crate::rng::Rng;
use crate::trace::Trace;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use strait_core::command::{Command, Event as Said, IceCredentials, LeaveReason, PeerId};
use strait_core::port::Path;
use strait_core::time::{Duration, Instant, Now};
use strait_core::worker::WorkerConfig;
use strait_crypt::srtp::SessionKeys;

/// The checks look at the streams this often.
const LOOK: Duration = Duration::from_millis(250);
/// Faults kept of a run: the first ones tell the story.
const FAULTS: usize = 40;
/// Turns in which nothing happens, per second of virtual time: more is a loop that spins.
const IDLE_TURNS_PER_SECOND: u64 = 400;
/// Something that will happen.
pub(crate) enum Event {
    /// A datagram reaches the relay's host.
    ToRelay { path: Path, bytes: Vec<u8> },
    /// A datagram reaches a client.
    ToPeer { member: usize, life: PeerId, remote: SocketAddr, bytes: Vec<u8> },
    /// A client's timer.
    Wake { member: usize, life: PeerId },
    /// A turn of the relay's loop.
    Turn,
    /// Someone does something.
    Step(Step),
    /// Signalling reaches a client.
    Start { member: usize, life: PeerId },
    /// Keys reach a client.
    PeerKeys { member: usize, life: PeerId, keys: SessionKeys },
    /// Something reaches the relay's mailbox.
    Ask(Box<Command>),
    /// New credentials reach a client.
    Restart { member: usize, life: PeerId, local: IceCredentials, remote: IceCredentials },
    /// DTLS reaches the helper thread, or its timer.
    Helper { peer: PeerId, datagram: Option<Vec<u8>> },
    /// The checks look.
    Look,
    /// The last stretch begins.
    Mark,
    /// The cameras go off.
    Curtain,
    /// The end.
    Finish,
}

struct Queued {
    at: Instant,
    order: u64,
    event: Event,
}

/// A run.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) names: Names,
    pub(crate) members: Vec<Member>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) relay: Relay,
    pub(crate) trace: Trace,
    pub(crate) overheard: VecDeque<(Path, Vec<u8>)>,
    pub(crate) marks: BTreeMap<usize, u64>,
    pub(crate) lines: Vec<[Link; 2]>,
    pub(crate) gone: Vec<PeerId>,
    /// What those who left had got, by slot.
    pub(crate) counts: BTreeMap<usize, Counts>,
    pub(crate) finished: bool,
    faults: Vec<Fault>,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    pub(crate) accounts: BTreeMap<SocketAddr, Account>,
    wakes: BTreeMap<PeerId, Instant>,
    pub(crate) addresses: u16,
    turn_at: Option<Instant>,
    pub(crate) turned_at: Instant,
    pub(crate) turn_cost: Duration,
    stalls: f64,
    turns: u64,
    idle_turns: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

impl World {
    /// A run that has not begun.
    #[must_use]
    pub fn new(plan: Plan, verbose: bool) -> Self {
        let mut rng = Rng::new(plan.seed).fork(1);
        let lines = (0..plan.media.peers.len())
            .map(|peer| {
                [true, false].map(|up| {
                    let timeline: Vec<_> = plan
                        .timeline(peer, up)
                        .into_iter()
                        .map(|(at, c)| (Instant(0) + at, c))
                        .collect();
                    Link::new(
                        &timeline,
                        Rng::new(plan.seed).fork(100 + 2 * peer as u64 + u64::from(up)),
                    )
                })
            })
            .collect();
        let gather = Duration::from_micros(Rng::new(plan.seed).fork(2).pick(&[0, 200, 1000]));
        let moves = Rng::new(plan.seed).fork(3).pick(&[0, 0, 30, 700]);
        // It is the control plane that moves scopes.
        let moves = (moves > 0 && plan.alone.is_empty()).then(|| Duration::from_millis(moves));
        let config = WorkerConfig { hash_seed: [rng.bits(), rng.bits()], gather, stun: true };
        let batch = rng.pick(&[1, 4, 64]);
        let members =
            plan.media.peers.iter().map(|spec| Member { spec: spec.clone(), life: None }).collect();
        let mut world = Self {
            now: Instant(0),
            names: Names::default(),
            members,
            slots: Vec::new(),
            relay: Relay::new(config, batch, moves),
            trace: Trace::new(verbose),
            overheard: VecDeque::new(),
            marks: BTreeMap::new(),
            lines,
            gone: Vec::new(),
            counts: BTreeMap::new(),
            finished: false,
            faults: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            accounts: BTreeMap::new(),
            wakes: BTreeMap::new(),
            addresses: 0,
            turn_at: None,
            turned_at: Instant(0),
            turn_cost: Duration::from_micros(rng.pick(&[0, 20, 200, 1000])),
            stalls: rng.pick(&[0.0, 0.0, 0.002]),
            turns: 0,
            idle_turns: 0,
            received_bytes: 0,
            sent_bytes: 0,
            rng,
            plan,
        };
        world.begin();
        world
    }

    /// Runs to the end.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        while let Some(Reverse(next)) = self.queue.pop() {
            debug_assert!(next.at >= self.now, "the queue is in order of time");
            self.now = next.at;
            self.happen(next.event);
            if self.finished {
                break;
            }
        }
        let seconds = self.now.0 / 1_000_000_000 + 1;
        if self.idle_turns > IDLE_TURNS_PER_SECOND * seconds {
            let (idle, all) = (self.idle_turns, self.turns);
            self.fault(format!("{idle} of {all} turns in {seconds} s had nothing to do"));
        }
        Outcome {
            seed: self.plan.seed,
            hash: self.trace.hash(),
            datagrams: self.trace.datagrams(),
            virtual_time: self.now.since(Instant(0)),
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            turns: self.turns,
            moves: self.relay.moves_made(),
            lines: self.trace.take_lines(),
            streams: self.stream_summaries(),
            links: self.lines.iter().map(|[up, down]| [up.counts(), down.counts()]).collect(),
            faults: self.faults,
        }
    }

    /// The moment as the core is told it.
    #[must_use]
    pub(crate) fn moment(&self) -> Now {
        Now { at: self.now, ntp: ntp(self.now) }
    }

    /// Something will happen at `at`, after all that was planned for then before.
    pub(crate) fn plan_at(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), order: self.order, event }));
    }

    /// Something will happen within `from` to `to` milliseconds.
    pub(crate) fn plan_in(&mut self, from: u64, to: u64, event: Event) {
        let at = self.now + self.rng.millis(from..=to);
        self.plan_at(at, event);
    }

    /// Asks the relay for something, now.
    pub(crate) fn ask(&mut self, command: Command) {
        if self.plan.alone.contains(&self.now.since(Instant(0))) {
            self.fault(format!("a command, though the control plane is away: {command:?}"));
        }
        self.relay.ask(command);
        self.turn_by(self.now);
    }

    /// A rule is broken.
    pub(crate) fn fault(&mut self, text: String) {
        self.trace.note(self.now, || format!("FAULT {text}"));
        if self.faults.len() < FAULTS {
            self.faults.push(Fault { at: self.now.since(Instant(0)), text });
        }
    }

    /// Someone's present client, if it is the one of that life.
    pub(crate) fn peer(&mut self, member: usize, life: PeerId) -> Option<&mut Peer> {
        let life = self.members.get_mut(member)?.life.as_mut().filter(|own| own.id == life)?;
        Some(&mut life.peer)
    }

    /// Everyone who is there.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.members.iter().filter_map(|member| member.life.as_ref())
    }

    /// Sends what a client wants sent, notes what it found, and sets its timer.
    pub(crate) fn settle(&mut self, member: usize) {
        let Some(life) = self.members[member].life.as_mut() else { return };
        let (id, address, protocol) = (life.id, life.peer.address, life.peer.spec.protocol);
        let out = life.peer.take_out();
        let faults = life.peer.take_faults();
        let next = life.peer.next_timeout();
        let due = life.peer.agent.is_connected() && !life.keys_arranged;
        life.keys_arranged |= due;
        for fault in faults {
            self.fault(format!("peer {member}: {fault}"));
        }
        for bytes in out {
            self.carry_up(member, self.path(protocol, address), bytes);
        }
        if due {
            self.arrange_keys(member, id);
        }
        if let Some(at) = next
            && self.wakes.get(&id).is_none_or(|wake| at != *wake)
        {
            self.wakes.insert(id, at);
            self.plan_at(at, Event::Wake { member, life: id });
        }
    }

    fn begin(&mut self) {
        self.ask(Command::CreateScope { scope: SCOPE });
        for (at, step) in self.plan.steps() {
            self.plan_at(Instant(0) + at, Event::Step(step));
        }
        let end = Instant(0) + self.plan.check.end;
        self.plan_at(Instant(0) + LOOK, Event::Look);
        self.plan_at(end - Duration::from_secs(2), Event::Mark);
        self.plan_at(end, Event::Curtain);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToRelay { path, bytes } => self.arrive(path, bytes),
            Event::ToPeer { member, life, remote, bytes } => {
                let now = self.moment();
                // What was under way to an address that was given up arrives nowhere.
                if let Some(peer) = self.peer(member, life).filter(|peer| peer.address == remote) {
                    peer.handle(now, bytes);
                    self.settle(member);
                }
            }
            Event::Wake { member, life } => {
                let now = self.moment();
                if self.wakes.get(&life) != Some(&now.at) {
                    return;
                }
                self.wakes.remove(&life);
                if let Some(peer) = self.peer(member, life) {
                    peer.timeout(now);
                    self.settle(member);
                }
            }
            Event::Turn => self.turn(),
            Event::Step(step) => self.step(step),
            Event::Start { member, life } => self.start(member, life),
            Event::PeerKeys { member, life, keys } => {
                let now = self.now;
                if let Some(peer) = self.peer(member, life) {
                    peer.set_keys(now, &keys);
                    self.settle(member);
                }
            }
            Event::Ask(command) => self.ask(*command),
            Event::Restart { member, life, local, remote } => {
                let now = self.now;
                if let Some(peer) = self.peer(member, life) {
                    peer.agent.restart(now, local, remote);
                    self.settle(member);
                }
            }
            Event::Helper { peer, datagram } => {
                if datagram.is_none() && self.relay.handshake_due(peer) != Some(self.now) {
                    return; // Another timer took its place.
                }
                let (due, asks) = self.relay.helper(self.now, peer, datagram.as_deref());
                if let Some(at) = due {
                    self.plan_at(at, Event::Helper { peer, datagram: None });
                }
                if asks {
                    self.turn_by(self.now);
                }
            }
            Event::Look => {
                self.look();
                self.plan_at(self.now + LOOK, Event::Look);
            }
            Event::Mark => self.mark(),
            Event::Curtain => self.curtain(),
            Event::Finish => self.finish(),
        }
    }

    /// A turn happens at `at`, if none is due before.
    pub(crate) fn turn_by(&mut self, at: Instant) {
        if self.turn_at.is_none_or(|planned| at < planned) {
            self.turn_at = Some(at);
            self.plan_at(at, Event::Turn);
        }
    }

    fn turn(&mut self) {
        if self.turn_at != Some(self.now) {
            return; // An earlier one took its place.
        }
        self.turn_at = None;
        if self.rng.chance(self.stalls) {
            // The host did something else for a while.
            let at = self.now + self.rng.millis(2..=40);
            return self.turn_by(at);
        }
        self.turned_at = self.now;
        self.turns += 1;
        let turn = self.relay.turn(self.moment());
        self.idle_turns += u64::from(turn.idle);
        turn.faults.into_iter().for_each(|fault| self.fault(fault));
        for (command, error) in turn.refused {
            self.refused(&command, &error);
        }
        for (path, bytes) in turn.sent {
            self.carry_down(path, bytes);
        }
        for event in turn.events {
            self.said(event);
        }
        for (peer, datagram) in turn.handshakes {
            self.plan_in(0, 15, Event::Helper { peer, datagram: Some(datagram) });
        }
        if let Some(until) = turn.until {
            self.turn_by(until);
        }
    }

    fn refused(&mut self, command: &str, error: &strait_core::command::CommandError) {
        self.trace.event(self.now, &format!("refused: {command}: {error}"));
        // Who vanished may be gone before the control plane says so; all else is known to exist.
        let racing = self.lives().any(|life| life.vanished || life.leaving);
        let missing = matches!(error, strait_core::command::CommandError::NotFound(_));
        if !(missing && (racing || !self.gone.is_empty())) {
            self.fault(format!("refused: {command}: {error}"));
        }
    }

    fn said(&mut self, event: Said) {
        self.trace.event(self.now, &format!("relay: {event:?}"));
        match event {
            Said::PeerConnected { peer, .. } => {
                let found = lives_mut(&mut self.members).find(|life| life.id == peer);
                match found {
                    Some(life) if !life.reported_connected => life.reported_connected = true,
                    Some(_) => self.fault(format!("{peer:?} connected twice")),
                    None => self.fault(format!("{peer:?} connected and is not there")),
                }
            }
            Said::PeerLeft { peer, reason, detail } => self.left(peer, reason, &detail),
            // Where members are is the plan's to say.
            Said::PeerMoved { .. } => {}
            // Publishers here send what the plan says.
            Said::LayersWanted { .. } => {}
            Said::PublicationStarted { publication } => {
                let all = lives_mut(&mut self.members);
                let found =
                    all.flat_map(|life| &mut life.publications).find(|p| p.id == publication);
                match found.map(|publication| std::mem::replace(&mut publication.started, true)) {
                    Some(false) => {}
                    Some(true) => self.fault(format!("{publication:?} started twice")),
                    None => self.fault(format!("{publication:?} started and is not there")),
                }
            }
            // Levels are drawn at random here: that they are read must break nothing.
            Said::SpeechStarted { .. }
            | Said::SpeechEnded { .. }
            | Said::DominantSpeaker { .. } => {}
        }
    }

    fn left(&mut self, peer: PeerId, reason: LeaveReason, detail: &str) {
        self.close_accounts(peer);
        self.relay.forget_handshake(peer);
        self.gone.push(peer);
        let member =
            self.members.iter().position(|m| m.life.as_ref().is_some_and(|l| l.id == peer));
        let Some(member) = member else {
            // It joined again before its former life was found dead.
            if matches!(reason, LeaveReason::Closed | LeaveReason::HandshakeFailed) {
                self.fault(format!("a former {peer:?} left for {reason:?}: {detail}"));
            }
            return;
        };
        let life = self.members[member].life.take();
        if let Some(life) = &life {
            let counts =
                life.peer.receivers.iter().map(|receiver| (receiver.slot, receiver.counts));
            self.counts.extend(counts);
        }
        let expected = life.as_ref().is_some_and(|life| match reason {
            LeaveReason::Removed | LeaveReason::ScopeDisposed => life.leaving,
            LeaveReason::ConsentExpired => life.vanished,
            LeaveReason::HandshakeFailed => life.vanished && !life.reported_connected,
            LeaveReason::Closed => false,
        });
        if !expected {
            self.fault(format!("peer {member} left for {reason:?}: {detail}"));
        }
        self.forget(member, peer);
    }
}

/// NTP time, 32.32 fixed point, of a moment of a run.
#[must_use]
pub fn ntp(at: Instant) -> u64 {
    const START: u64 = 0xe900_0000;
    let (seconds, nanos) = (at.0 / 1_000_000_000, at.0 % 1_000_000_000);
    ((START + seconds) << 32) | ((nanos << 32) / 1_000_000_000)
}

/// Someone who sends checks with a password of his own.
#[must_use]
pub(crate) fn forged_check(username: &str, rng: &mut Rng) -> Vec<u8> {
    let mut transaction = [0; 12];
    rng.fill(&mut transaction);
    let password = control::client_credentials(rng).pwd;
    let role = if rng.chance(0.5) { Ok(rng.bits()) } else { Err(rng.bits()) };
    stun::Check { transaction, username, password: &password, role, nominate: true }.write()
}

fn lives_mut(members: &mut [Member]) -> impl Iterator<Item = &mut Life> {
    members.iter_mut().filter_map(|member| member.life.as_mut())
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
