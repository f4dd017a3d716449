//! The loop of one worker. The only place where the path, the sockets and the other threads meet.

use crate::fault::{self, Fault};
use crate::handshake::Handshakes;
use crate::limits::{COMMANDS_PER_TURN, HANDED_OVER, HOPS, MOVED, MOVING, PARCELS_WAITING};
use crate::mailbox::{Inbox, Pulse, Request};
use crate::report::{HANDED_OVER_FULL, Quality, Report};
use crate::steer::{Letterbox, Moving, Owner, Steering, Whereabouts};
use crate::trace::Trace;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use strait_core::command::{Command, CommandError, Event, PeerId, ScopeId, WorkerId};
use strait_core::drop::DropReason;
use strait_core::egress::Egress;
use strait_core::limits::EGRESS_FLUSH_BYTES;
use strait_core::movement::MovedScope;
use strait_core::port::{Path, Port, Protocol};
use strait_core::time::{Instant, Now};
use strait_core::worker::Worker;
use strait_io::{Clock, Drop, Sockets};
use strait_wire::demux::{Kind, classify};
use tokio::sync::{mpsc, oneshot};

/// A worker and all that it touches.
pub struct Turner {
    /// The path.
    pub core: Worker,
    /// Its sockets.
    pub port: Sockets,
    /// What the control side asks.
    pub inbox: Inbox,
    /// What other workers read for it.
    pub letterbox: Letterbox,
    /// What it reads for others.
    pub steering: Steering,
    /// The DTLS thread.
    pub handshakes: Handshakes,
    /// To the control side.
    pub events: mpsc::Sender<Event>,
    /// How streams fare, to the control side.
    pub quality: mpsc::Sender<Quality>,
    /// How many readers want to know how subscribers fare.
    pub subscribers_asked: Arc<AtomicUsize>,
    /// Peers whose scope moved away lately, where to, and when.
    pub moved: HashMap<PeerId, (usize, Instant)>,
    /// Where the time goes.
    pub trace: Trace,
}

impl Turner {
    /// Turns until it is told to stop.
    pub fn run(mut self) {
        let mut egress = Egress::default();
        let mut turns = 0_u64;
        loop {
            turns += 1;
            self.wait();
            let now = Clock.now();
            self.receive(now, &mut egress);
            self.take_handed(now, &mut egress);
            // First the others, so that they forward while this one does.
            self.pass_on();
            self.take_mirrored(now, &mut egress);
            if self.core.is_due(now.at) || !self.inbox.is_empty() {
                self.forward(now, &mut egress);
            }
            if !self.obey(now, turns, &mut egress) {
                return;
            }
            while self.core.on_timeout(now, &mut egress) {
                self.send(&mut egress);
            }
            self.send(&mut egress);
            self.pass_on();
            self.tell();
            self.look_for_stamp();
        }
    }

    fn wait(&mut self) {
        let now = Clock.instant();
        // What did not fit into the last turn is there already: look at the sockets, do not sleep.
        let busy = !self.inbox.is_empty() || !self.letterbox.is_empty();
        let until = if busy { Some(now) } else { self.core.next_timeout() };
        self.port.wait(now, until);
    }

    fn receive(&mut self, now: Now, egress: &mut Egress) {
        let received = self.port.fill(now.at);
        self.steering.take_confirmed();
        for at in 0..received {
            let Some((meta, bytes)) = self.port.datagram(at) else { continue };
            match self.steering.owner(meta.path, bytes) {
                Owner::Me => {
                    if self.trace.is_due() && classify(bytes) == Kind::Rtp {
                        let Self { core, trace, .. } = self;
                        trace.read(meta.at, now.at, Clock.instant());
                        let (held, queued) = (core.held(), egress.len());
                        core.on_datagram(now, meta, bytes, egress);
                        let is_held = core.held() > held;
                        trace.admitted(Clock.instant(), is_held, egress.len() > queued);
                    } else {
                        self.core.on_datagram(now, meta, bytes, egress);
                    }
                    self.confirm(self.steering.me());
                }
                Owner::Other(owner) => self.steering.hand_over(owner, meta, bytes),
                Owner::WithConnection(owner) => {
                    let mut copy = [0; strait_core::limits::DATAGRAM_BYTES];
                    let Some(copy) = copy.get_mut(..bytes.len()) else { continue };
                    copy.copy_from_slice(bytes);
                    self.hand_over_connection(owner, meta.path);
                    self.steering.hand_over(owner, meta, copy);
                }
            }
            self.flush_when_full(now, egress);
        }
    }

    fn take_handed(&mut self, now: Now, egress: &mut Egress) {
        for _ in 0..HANDED_OVER {
            let Some(mut handed) = self.letterbox.datagram() else { break };
            self.adopt(now, egress);
            let (reader, hops) = (handed.reader(), handed.hops());
            let (meta, bytes) = handed.parts();
            // Its scope may have moved on since.
            let owner = if hops < HOPS { self.steering.owner(meta.path, bytes) } else { Owner::Me };
            match owner {
                Owner::Me => {
                    self.core.on_datagram(now, meta, bytes, egress);
                    self.confirm(reader);
                }
                Owner::Other(owner) => self.steering.hand_on(owner, (reader, hops), meta, bytes),
                Owner::WithConnection(owner) => {
                    self.hand_over_connection(owner, meta.path);
                    self.steering.hand_on(owner, (reader, hops), meta, bytes);
                }
            }
            self.flush_when_full(now, egress);
        }
        self.adopt(now, egress);
    }

    /// To be called before the datagram that came by it is handed over: the answer leaves by it.
    fn hand_over_connection(&mut self, owner: usize, path: Path) {
        if let Some(connection) = self.port.detach(path) {
            self.steering.hand_over_connection(owner, connection);
        }
    }

    /// Passes on what subscribers of other workers get, and what this one's ask for.
    fn pass_on(&mut self) {
        while let Some(parcel) = self.letterbox.emptied() {
            self.core.reuse(parcel);
        }
        while let Some((WorkerId(to), parcel)) = self.core.poll_mirrored() {
            if let Err(parcel) = self.steering.send(usize::from(to), parcel) {
                self.core.lost(parcel);
            }
        }
    }

    /// Takes what other workers pass on.
    fn take_mirrored(&mut self, now: Now, egress: &mut Egress) {
        for _ in 0..PARCELS_WAITING {
            let Some((from, mut parcel)) = self.letterbox.parcel() else { break };
            let Self { core, port, .. } = self;
            let worker = WorkerId(u16::try_from(from).unwrap_or(u16::MAX));
            core.on_mirrored(now, worker, &mut parcel, egress, |egress| port.send(egress));
            self.steering.give_back(from, parcel);
            self.flush_when_full(now, egress);
        }
    }

    /// Tells the reader of the last datagram whose its path is, if that was a check that passed. Before the answer goes
    /// out, so that what the peer sends next is not misled.
    fn confirm(&mut self, reader: usize) {
        if let Some(path) = self.core.checked() {
            self.steering.confirm(reader, path);
        }
    }

    fn adopt(&mut self, now: Now, egress: &mut Egress) {
        while let Some(connection) = self.letterbox.connection() {
            self.port.adopt(connection);
        }
        while let Some(moving) = self.letterbox.moving() {
            match moving {
                Moving::Scope(moved, connections) => {
                    connections.into_iter().for_each(|connection| self.port.adopt(connection));
                    self.adopt_scope(now, *moved, egress);
                }
                Moving::Command(command) => self.command(now, *command, egress),
            }
        }
    }

    /// Carries out what nobody waits for.
    fn command(&mut self, now: Now, command: Command, egress: &mut Egress) {
        let gone = command.handshake_of().and_then(|peer| self.moved.get(&peer));
        match gone {
            Some(&(owner, _)) => {
                // No room: DTLS begins anew, or its peer leaves for want of it.
                let _ = self.steering.hand_over_moving(owner, Moving::Command(Box::new(command)));
            }
            None => drop(self.execute(now, command, egress)),
        }
    }

    fn execute(
        &mut self,
        now: Now,
        command: Command,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        // The core would forward what is held as well, but has no way to send when that is much.
        self.forward(now, egress);
        self.core.on_command(now, command, egress)
    }

    /// Gives a scope away, with its ICE-TCP connections. Datagrams of it that come here follow it, and find it there.
    fn give_away(
        &mut self,
        now: Now,
        (scope, to): (ScopeId, usize),
        reply: oneshot::Sender<Result<Whereabouts, CommandError>>,
        egress: &mut Egress,
    ) {
        if !self.steering.takes_moving(to) {
            let refusal = CommandError::Limit { what: "scopes on their way", limit: MOVING };
            return drop(reply.send(Err(refusal)));
        }
        self.forward(now, egress);
        let moved = match self.core.take_scope(now, scope, egress) {
            Ok(moved) => moved,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let whereabouts = Whereabouts::from(&moved);
        // From here on there is no way back: who asked must know.
        if reply.send(Ok(whereabouts.clone())).is_err() {
            return self.core.adopt_scope(now, moved, egress);
        }
        // What was queued for its peers leaves first, by their connections too.
        self.port.send(egress);
        self.tell();
        self.moved.retain(|_, (_, at)| now.at.since(*at) < MOVED);
        self.moved.extend(moved.peers().map(|peer| (peer, (to, now.at))));
        let tcp = whereabouts.paths.iter().filter(|path| path.protocol == Protocol::Tcp);
        let connections = tcp.filter_map(|path| self.port.detach(*path)).collect();
        let mut moving = Moving::Scope(Box::new(moved), connections);
        // There was room a moment ago; others may have taken it, but the other worker makes room with each turn. It may
        // be waiting for us as well.
        while let Err(back) = self.steering.hand_over_moving(to, moving) {
            moving = back;
            self.adopt(now, egress);
            std::thread::yield_now();
        }
        self.steering.redirect(&whereabouts, to);
    }

    fn adopt_scope(&mut self, now: Now, moved: MovedScope, egress: &mut Egress) {
        let whereabouts = Whereabouts::from(&moved);
        for peer in moved.peers() {
            self.moved.remove(&peer);
        }
        self.forward(now, egress);
        self.core.adopt_scope(now, moved, egress);
        // What the other worker confirmed before it gave the scope away is old news.
        self.steering.take_confirmed();
        self.steering.redirect(&whereabouts, self.steering.me());
    }

    /// `false`: told to stop.
    fn obey(&mut self, now: Now, turns: u64, egress: &mut Egress) -> bool {
        for _ in 0..COMMANDS_PER_TURN {
            let Some(request) = self.inbox.take() else { break };
            // It may be for a scope that came in this moment: who sent it here knew of it.
            self.adopt(now, egress);
            match request {
                // Who gave up waiting was told that nothing was done, and has forgotten the names.
                Request::Command(command, Some(reply))
                    if reply.is_closed() && !matches!(*command, Command::RemovePeer { .. }) => {}
                Request::Command(command, Some(reply)) => {
                    let _ = reply.send(self.execute(now, *command, egress));
                }
                Request::Command(command, None) => self.command(now, *command, egress),
                Request::Report(_, reply) if reply.is_closed() => {}
                Request::Report(scopes, reply) => {
                    drop(reply.send(self.report(Clock.now(), turns, &scopes)))
                }
                Request::Steer(path, owner) => self.steering.fix(path, owner),
                Request::Move(scope, to, reply) => self.give_away(now, (scope, to), reply, egress),
                Request::Redirect(whereabouts, owner) => {
                    self.steering.redirect(&whereabouts, owner)
                }
                Request::Ping(reply) => drop(reply.send(Pulse { sockets: self.port.counters() })),
                Request::Fault(Fault::WorkerStalls(time)) => std::thread::sleep(time),
                Request::Fault(_) => fault::die(),
                Request::Stop => {
                    self.port.send(egress);
                    return false;
                }
            }
            self.flush_when_full(now, egress);
        }
        true
    }

    fn forward(&mut self, now: Now, egress: &mut Egress) {
        let Self { core, port, trace, .. } = self;
        if !trace.is_held() {
            return core.forward(now, egress, |egress| send(port, trace, egress));
        }
        trace.forwards(Clock.instant());
        let queued = egress.len();
        core.forward(now, egress, |egress| send(port, trace, egress));
        trace.forwarded(egress.len() > queued);
    }

    fn send(&mut self, egress: &mut Egress) {
        send(&mut self.port, &mut self.trace, egress);
    }

    /// Looks whether the kernel said by now when it sent what is followed.
    fn look_for_stamp(&mut self) {
        if self.trace.is_awaiting() && self.trace.is_look_due(Clock.instant()) {
            self.trace.stamped(self.port.stamp());
        }
    }

    /// After a datagram: makes room for the next.
    fn flush_when_full(&mut self, now: Now, egress: &mut Egress) {
        if self.core.is_full() {
            self.forward(now, egress);
        }
        if egress.bytes() > EGRESS_FLUSH_BYTES {
            self.send(egress);
        }
    }

    fn tell(&mut self) {
        self.core.ask_subscriber_quality(self.subscribers_asked.load(Ordering::Relaxed) > 0);
        // What finds no place now waits in the core, which bounds it.
        while let Ok(place) = self.events.try_reserve() {
            let Some(event) = self.core.poll_event() else { break };
            place.send(event);
        }
        while let Ok(place) = self.quality.try_reserve() {
            let encoding = self.core.poll_quality().map(Quality::Encoding);
            let subscriber = || self.core.poll_subscriber_quality().map(Quality::Subscriber);
            let Some(quality) = encoding.or_else(subscriber) else { break };
            place.send(quality);
        }
        while let Some(input) = self.core.poll_handshake() {
            self.handshakes.input(input);
        }
    }

    fn report(&self, now: Now, turns: u64, scopes: &[ScopeId]) -> Report {
        let sockets = self.port.counters();
        let path = DropReason::ALL.iter().map(|reason| reason.name()).zip(*self.core.drops());
        let socket = Drop::ALL.iter().map(|&reason| (reason.name(), sockets.drops(reason)));
        Report {
            worker: self.core.statistics(),
            scopes: scopes
                .iter()
                .filter_map(|&scope| self.core.scope_statistics(now.at, scope))
                .collect(),
            sockets,
            drops: path.chain(socket).chain([(HANDED_OVER_FULL.0, self.steering.full)]).collect(),
            handed_over: self.steering.handed_over,
            turns,
            latency: self.trace.latency(),
        }
    }
}

fn send(port: &mut Sockets, trace: &mut Trace, egress: &mut Egress) {
    if !trace.is_sending() {
        return port.send(egress);
    }
    if let Some(place) = trace.sends(Clock.instant()) {
        port.stamp_next(place);
    }
    port.send(egress);
    let is_asked = port.is_stamping();
    trace.sent(Clock.instant(), is_asked, port.stamp());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;
    use strait_core::command::{CommandError, PeerId};
    use strait_core::worker::WorkerConfig;
    use strait_crypt::dtls::Certificate;
    use strait_io::{Options, bind};
    use tokio::sync::oneshot;

    /// A worker that stalled for longer than callers wait finds their commands afterwards: the registry has forgotten
    /// the names of what they would make, and nobody would ever remove it.
    #[test]
    fn what_nobody_waits_for_any_more_is_not_done() {
        let mut bound =
            bind(&Options { udp: vec![[127, 0, 0, 1].into()], workers: 1, ..Options::default() })
                .unwrap();
        let port = bound.ports.remove(0);
        let (mailbox, inbox) = mailbox(0, port.waker());
        let certificate = Certificate::generate().unwrap();
        let (handshakes, _) =
            crate::handshake::start(certificate, Vec::new(), crate::channels::way().0, ()).unwrap();
        let letterbox = Letterbox::new(port.waker());
        let turner = Turner {
            core: Worker::new(WorkerConfig {
                hash_seed: [1, 2],
                gather: std::time::Duration::ZERO,
                stun: false,
            }),
            port,
            inbox,
            letterbox: letterbox.clone(),
            steering: Steering::new(0, vec![letterbox], None),
            handshakes: handshakes.clone(),
            events: mpsc::channel(9).0,
            quality: mpsc::channel(9).0,
            subscribers_asked: Arc::default(),
            moved: HashMap::new(),
            trace: Trace::new(0, false),
        };
        let send = |command| {
            let (reply, answer) = oneshot::channel();
            mailbox.send(Request::Command(Box::new(command), Some(reply))).unwrap();
            answer
        };
        drop(send(Command::CreateScope { scope: ScopeId(1) }));
        let mut waited_for = send(Command::CreateScope { scope: ScopeId(2) });
        // Done anyway: an event tells of it, and a caller who repeats it loses nothing.
        drop(send(Command::RemovePeer { peer: PeerId(3) }));
        let mut nothing_there = send(Command::DisposeScope { scope: ScopeId(1) });
        let (reply, mut report) = oneshot::channel();
        mailbox.send(Request::Report(vec![], reply)).unwrap();
        mailbox.send(Request::Stop).unwrap();
        turner.run();
        assert_eq!(waited_for.try_recv().unwrap(), Ok(()));
        let nothing_there = nothing_there.try_recv().unwrap();
        assert!(matches!(nothing_there, Err(CommandError::NotFound(_))), "{nothing_there:?}");
        assert_eq!(report.try_recv().unwrap().worker.scopes, 1);
        handshakes.stop();
    }
}
