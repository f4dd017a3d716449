//! Clock, lines, NATs and members of a run, and what must hold of it.

use crate::node::{ADDRESS, Node};
use crate::plan::{Doing, MEMBERS, Plan, REST};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use strait_client::Error;
use strait_client::core::client::{Client, Config, Event, Handle, Output};
use strait_client::core::path::Random;
use strait_client::core::sending::Frame;
use strait_core::port::{Path, Protocol};
use strait_lab::link::{Conditions, Link};
use strait_lab::rng::Rng;
use strait_link::v1::transport_report::State;
use strait_link::v1::{self, auth::Credential, user_event};

const TICK: Duration = Duration::from_millis(1);
const VOICE: Duration = Duration::from_millis(20);
/// Sound may stay away so long: UDP counts as dead after 3 s, the direct way after 1.5 s, and both may die one after the
/// other while lines lose.
const SILENCE: Duration = Duration::from_secs(8);
/// Who joined is heard within this.
const JOIN: Duration = Duration::from_secs(4);
/// At the end nothing is lost for so long.
const CALM: Duration = Duration::from_secs(5);

pub struct Seeded(Rng);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

enum Delivery {
    Up(usize),
    MediaUp(usize),
    LinkToNode(usize, Vec<u8>),
    LinkToClient(usize, Vec<u8>),
    /// In a message of the link, or beside it: connections have numbers.
    FramesToNode(usize, Vec<u8>),
    FramesToClient(usize, Vec<u8>),
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
}

/// Someone who is there. Another one comes in place of who left.
struct Present {
    client: Client<Seeded>,
    since: Duration,
    link: Option<usize>,
    linked: bool,
    media: Option<usize>,
    voice: Option<Handle>,
    counter: u32,
    state: State,
}

struct Member {
    present: Option<Present>,
    lives: u32,
    /// Up and down.
    lines: [Link; 2],
    /// What its NAT gave it, and whom it let in since.
    outside: SocketAddr,
    opened: BTreeSet<SocketAddr>,
    udp_blocked: bool,
    direct_blocked: bool,
}

#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub faults: Vec<String>,
    pub lines: Vec<String>,
    /// The longest time for which somebody did not hear somebody.
    pub silence: Duration,
    /// Of sound, that came.
    pub frames: usize,
}

/// What one member heard of a life of another.
#[derive(Default)]
struct Heard {
    counters: BTreeSet<u32>,
    last: Duration,
    /// Of the rest at the end.
    calm: BTreeSet<u32>,
}

pub struct World {
    plan: Plan,
    now: Duration,
    node: Node,
    members: Vec<Member>,
    queue: BTreeMap<(Duration, u64), Delivery>,
    order: u64,
    connections: usize,
    rng: Rng,
    heard: BTreeMap<(usize, u32, usize, u32), Heard>,
    outcome: Outcome,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let rng = Rng::new(plan.seed);
        let member = |at: usize| Member {
            present: None,
            lives: 0,
            lines: [0, 1]
                .map(|way| Link::steady(Conditions::GOOD, rng.fork(10 + 2 * at as u64 + way))),
            outside: SocketAddr::from(([198, 51, 100, at as u8], 40_000)),
            opened: BTreeSet::new(),
            udp_blocked: false,
            direct_blocked: false,
        };
        Self {
            now: Duration::ZERO,
            node: Node::new(rng.fork(2), plan.link_alone, plan.moves),
            members: (0..MEMBERS).map(member).collect(),
            queue: BTreeMap::new(),
            order: 0,
            connections: 0,
            heard: BTreeMap::new(),
            outcome: Outcome::default(),
            rng,
            plan,
        }
    }

    pub fn run(mut self) -> Outcome {
        let mut doings = std::mem::take(&mut self.plan.doings).into_iter().peekable();
        while self.now < self.plan.end && self.outcome.faults.is_empty() {
            while let Some((_, member, doing)) = doings.next_if(|(at, ..)| *at <= self.now) {
                self.note(format!("member {member}: {doing:?}"));
                self.act(member, doing);
            }
            for at in 0..MEMBERS {
                self.say(at);
                let now = self.now;
                if let Some(present) = &mut self.members[at].present
                    && present.client.due().is_some_and(|due| due <= now)
                {
                    present.client.on_time(now);
                }
                self.outputs(at);
            }
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let delivery = entry.remove();
                self.deliver(delivery);
            }
            self.node_turn();
            self.check_silence();
            self.now += TICK;
        }
        if self.outcome.faults.is_empty() {
            self.check_end();
        }
        self.outcome.faults.append(&mut self.node.faults);
        self.outcome
    }

    fn act(&mut self, at: usize, doing: Doing) {
        let now = self.now;
        let member = &mut self.members[at];
        match doing {
            Doing::Join => return self.join(at),
            Doing::Leave => {
                let gone = member.present.take();
                if let Some(link) = gone.and_then(|gone| gone.link) {
                    self.node.leave(now, link);
                }
            }
            Doing::BlockUdp(blocked) => member.udp_blocked = blocked,
            Doing::BlockDirect(blocked) => member.direct_blocked = blocked,
            Doing::Rebind => {
                member.outside.set_port(member.outside.port() + 1);
                member.opened.clear();
            }
            Doing::BreakLink => {
                let Some(present) = &mut member.present else { return };
                let Some(link) = present.link.take_if(|_| present.linked) else { return };
                self.node.link_lost(link);
                present.client.on_link_lost(now, Error::LinkLost);
            }
            Doing::BreakMedia => {
                let Some(present) = &mut member.present else { return };
                if present.media.take().is_some() {
                    present.client.on_media_lost(now);
                }
            }
            Doing::Line(conditions) => {
                for line in &mut member.lines {
                    line.change(now, conditions);
                }
            }
        }
        self.outputs(at);
    }

    fn join(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.lives += 1;
        let config = Config {
            host: "node.example".into(),
            port: ADDRESS.port(),
            credential: Credential::Token("token".into()),
            scope_id: "room".into(),
            name: format!("{at}.{}", member.lives),
            client: "sim/1".into(),
            profiles: Vec::new(),
            relay_only: false,
            cluster: None,
        };
        let random = self.rng.fork(1000 + 10 * u64::from(member.lives) + at as u64);
        let mut client = Client::new(config, Seeded(random));
        let publish = v1::Publish {
            kind: v1::Kind::Audio.into(),
            codec: "opus".into(),
            ..v1::Publish::default()
        };
        client.publish(publish).expect("there is room");
        let (link, media, voice) = Default::default();
        member.present = Some(Present {
            client,
            since: self.now,
            link,
            linked: false,
            media,
            voice,
            counter: 0,
            state: State::Disconnected,
        });
        self.outputs(at);
    }

    /// A frame of a member's voice, every 20 ms: who says it, and the how manieth it is.
    fn say(&mut self, at: usize) {
        if !self.now.as_millis().is_multiple_of(VOICE.as_millis()) {
            return;
        }
        let (now, lives) = (self.now, self.members[at].lives);
        let Some(present) = &mut self.members[at].present else { return };
        let Some(voice) = present.voice else { return };
        let payload: Vec<u8> =
            [at as u32, lives, present.counter].iter().flat_map(|n| n.to_be_bytes()).collect();
        let timestamp = present.counter.wrapping_mul(960);
        present.counter += 1;
        let frame = Frame { payload: &payload, timestamp, marker: false, level: None };
        // Without a link there is no session to send in.
        let _away = present.client.send(now, voice, 0, &frame);
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Up(link) => {
                let Some((at, present)) = self.holder(|present| present.link == Some(link)) else {
                    return;
                };
                present.linked = true;
                present.client.on_link(now, Some(ADDRESS.ip()));
                self.outputs(at);
            }
            Delivery::MediaUp(media) => {
                let Some((at, present)) = self.holder(|present| present.media == Some(media))
                else {
                    return;
                };
                present.client.on_media(now);
                self.outputs(at);
            }
            Delivery::LinkToNode(link, bytes) => {
                if self.holder(|present| present.link == Some(link)).is_some() {
                    self.node.link_bytes(now, link, &bytes);
                }
            }
            Delivery::LinkToClient(link, bytes) => {
                let Some((at, present)) = self.holder(|present| present.link == Some(link)) else {
                    return;
                };
                present.client.on_link_bytes(now, &bytes);
                self.outputs(at);
            }
            Delivery::FramesToNode(connection, bytes) => {
                self.node.arrive(now, Protocol::Tcp, address_of(connection), bytes);
            }
            Delivery::FramesToClient(connection, bytes) => {
                let found = self
                    .holder(|present| [present.link, present.media].contains(&Some(connection)));
                let Some((at, present)) = found else { return };
                match present.media == Some(connection) {
                    true => present.client.on_media_packet(now, bytes),
                    false => present.client.on_link_media(now, bytes),
                }
                self.outputs(at);
            }
            Delivery::Datagram { from, to, bytes } if to == ADDRESS => {
                self.node.arrive(now, Protocol::Udp, from, bytes);
            }
            Delivery::Datagram { from, to, bytes } => {
                // An address that the NAT took back, or a stranger to it.
                let at = self.members.iter().position(|member| {
                    member.outside == to && member.opened.contains(&from) && !member.udp_blocked
                });
                let Some(at) = at else { return };
                let Some(present) = &mut self.members[at].present else { return };
                present.client.on_datagram(now, from, bytes);
                self.outputs(at);
            }
        }
    }

    fn node_turn(&mut self) {
        for (path, bytes) in self.node.turn(self.now) {
            match path.protocol {
                Protocol::Udp => self.datagram_down(path, bytes),
                Protocol::Tcp => {
                    let connection = usize::from(path.remote.port());
                    let frames = |bytes| Delivery::FramesToClient(connection, bytes);
                    self.in_order_down(connection, bytes, frames);
                }
            }
        }
        for (link, bytes) in std::mem::take(&mut self.node.told) {
            self.in_order_down(link, bytes, |bytes| Delivery::LinkToClient(link, bytes));
        }
    }

    fn datagram_down(&mut self, path: Path, bytes: Vec<u8>) {
        let to = path.remote;
        let Some(at) = self.members.iter().position(|member| member.outside.ip() == to.ip()) else {
            let fault = format!("{} bytes to a stranger at {to}", bytes.len());
            return self.outcome.faults.push(fault);
        };
        self.carry(at, 1, self.now, Delivery::Datagram { from: ADDRESS, to, bytes });
    }

    fn in_order_down(
        &mut self,
        connection: usize,
        bytes: Vec<u8>,
        delivery: impl FnOnce(Vec<u8>) -> Delivery,
    ) {
        let held = |present: &Present| [present.link, present.media].contains(&Some(connection));
        let Some((at, _)) = self.holder(held) else { return };
        let arrival = self.members[at].lines[1].carry_in_order(self.now, bytes.len());
        self.push(arrival, delivery(bytes));
    }

    fn outputs(&mut self, at: usize) {
        while let Some(present) = &mut self.members[at].present
            && let Some(output) = present.client.poll()
        {
            match output {
                Output::Connect { .. } => {
                    self.connections += 1;
                    (present.link, present.linked) = (Some(self.connections), false);
                    self.open(at, Delivery::Up(self.connections));
                }
                Output::CloseLink => {
                    if let Some(link) = present.link.take() {
                        self.node.link_lost(link);
                    }
                }
                Output::Link(bytes) => {
                    if let Some(link) = present.link {
                        self.up(at, bytes, |bytes| Delivery::LinkToNode(link, bytes));
                    }
                }
                Output::LinkMedia(packet) => {
                    // Control gives it to the relay by TCP, and the other way round.
                    if let Some(link) = present.link {
                        self.up(at, packet, |bytes| Delivery::FramesToNode(link, bytes));
                    }
                }
                Output::OpenMedia { .. } => {
                    self.connections += 1;
                    present.media = Some(self.connections);
                    self.open(at, Delivery::MediaUp(self.connections));
                }
                Output::CloseMedia => present.media = None,
                Output::Media(bytes) => {
                    if let Some(media) = present.media {
                        self.up(at, bytes, |bytes| Delivery::FramesToNode(media, bytes));
                    }
                }
                Output::Datagram(to, bytes) => self.datagram_up(at, to, bytes),
                Output::Event(event) => self.on_event(at, event),
                Output::Resolve(_) => unreachable!("there is no cluster"),
            }
        }
    }

    fn datagram_up(&mut self, at: usize, to: SocketAddr, bytes: Vec<u8>) {
        let other = self.members.iter().position(|member| member.outside.ip() == to.ip());
        let member = &mut self.members[at];
        if member.udp_blocked {
            return;
        }
        member.opened.insert(to);
        let from = member.outside;
        let Some(other) = other else {
            return self.carry(at, 0, self.now, Delivery::Datagram { from, to, bytes });
        };
        if self.members[at].direct_blocked || self.members[other].direct_blocked {
            return;
        }
        // Up by the one's line, down by the other's.
        let halves: Vec<_> =
            self.members[at].lines[0].carry(self.now, bytes.len()).arrivals().collect();
        for half in halves {
            let bytes = bytes.clone();
            self.carry(other, 1, half, Delivery::Datagram { from, to, bytes });
        }
    }

    /// Puts a datagram on a member's line.
    fn carry(&mut self, at: usize, way: usize, from: Duration, delivery: Delivery) {
        let Delivery::Datagram { from: sender, to, bytes } = delivery else { return };
        let fate = self.members[at].lines[way].carry(from, bytes.len());
        for arrival in fate.arrivals() {
            let bytes = bytes.clone();
            self.push(arrival, Delivery::Datagram { from: sender, to, bytes });
        }
    }

    fn up(&mut self, at: usize, bytes: Vec<u8>, delivery: impl FnOnce(Vec<u8>) -> Delivery) {
        let arrival = self.members[at].lines[0].carry_in_order(self.now, bytes.len());
        self.push(arrival, delivery(bytes));
    }

    /// A connection stands after a round trip.
    fn open(&mut self, at: usize, delivery: Delivery) {
        let there = self.members[at].lines[0].carry_in_order(self.now, 60);
        let back = self.members[at].lines[1].carry_in_order(there, 60);
        self.push(back, delivery);
    }

    fn on_event(&mut self, at: usize, event: Event) {
        let (now, lives) = (self.now, self.members[at].lives);
        let Some(present) = &mut self.members[at].present else { return };
        let mut wanted = Vec::new();
        match event {
            Event::Payload(payload) => return self.hear(at, lives, &payload.payload),
            Event::Published { handle, .. } => present.voice = Some(handle),
            Event::Joined { resumed: false, peers, .. } => {
                let all = peers.into_iter().flat_map(|peer| peer.publications);
                wanted.extend(all.map(|publication| publication.publication_id));
            }
            Event::Scope(user_event::Body::Started(started)) => {
                wanted.extend(started.publication.map(|publication| publication.publication_id));
            }
            Event::Transport(state) => {
                present.state = state;
                return self.note(format!("member {at}: {state:?}"));
            }
            Event::Ended(error) => {
                self.outcome.faults.push(format!("{now:?}: {at} ended: {error}"))
            }
            Event::LinkLost { error, .. } => return self.note(format!("member {at}: {error}")),
            _ => {}
        }
        let Some(present) = &mut self.members[at].present else { return };
        for publication in wanted {
            present.client.subscribe(&publication, self.plan.as_sent).expect("there is room");
        }
    }

    fn hear(&mut self, at: usize, lives: u32, payload: &[u8]) {
        let numbers: Vec<u32> = payload
            .chunks_exact(4)
            .map(|n| u32::from_be_bytes(n.try_into().expect("four bytes")))
            .collect();
        let [of, life, counter] = numbers[..] else {
            return self.outcome.faults.push(format!("{at} heard what nobody said"));
        };
        let heard = self.heard.entry((at, lives, of as usize, life)).or_default();
        if !heard.counters.is_empty() {
            self.outcome.silence = self.outcome.silence.max(self.now - heard.last);
        }
        heard.last = self.now;
        self.outcome.frames += 1;
        if self.now >= self.plan.end - CALM {
            heard.calm.insert(counter);
        }
        if !heard.counters.insert(counter) {
            let fault = format!("{:?}: {at} heard frame {counter} of {of} twice", self.now);
            self.outcome.faults.push(fault);
        }
    }

    /// The pairs of who is there: who hears, and who is heard.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let there: Vec<usize> =
            (0..MEMBERS).filter(|at| self.members[*at].present.is_some()).collect();
        let pairs = there.iter().flat_map(|one| there.iter().map(move |other| (*one, *other)));
        pairs.filter(|(one, other)| one != other).collect()
    }

    fn check_silence(&mut self) {
        for (one, other) in self.pairs() {
            let [a, b] = [one, other].map(|at| &self.members[at]);
            let since = [a, b].map(|m| m.present.as_ref().map_or(self.now, |p| p.since));
            let heard = self.heard.get(&(one, a.lives, other, b.lives));
            let (since, bound) = match heard {
                Some(heard) => (heard.last, SILENCE),
                None => (since[0].max(since[1]), SILENCE + JOIN),
            };
            if self.now > since + bound {
                let fault = format!("{:?}: {one} does not hear {other} since {since:?}", self.now);
                self.outcome.faults.push(fault);
            }
        }
    }

    /// After a long rest all is as it is without troubles.
    fn check_end(&mut self) {
        let pairs = self.pairs();
        for (one, other) in &pairs {
            let [a, b] = [*one, *other].map(|at| &self.members[at]);
            let calm = self.heard.get(&(*one, a.lives, *other, b.lives)).map(|heard| &heard.calm);
            let (first, last) = calm.and_then(|c| c.first().zip(c.last())).unwrap_or((&0, &0));
            let (all, came) = (last - first + 1, calm.map_or(0, BTreeSet::len) as u32);
            let least = (CALM.as_millis() / VOICE.as_millis()) as u32 - 10;
            if came < least || came < all {
                let fault = format!("{one} heard {came} of {all} frames of {other} at the end");
                self.outcome.faults.push(fault);
            }
        }
        let wanted = if pairs.len() == 2 { State::P2p } else { State::UdpRelay };
        for at in 0..MEMBERS {
            let state = self.members[at].present.as_ref().map(|present| present.state);
            if state.is_some_and(|state| state != wanted) {
                let fault = format!("{at} is at {state:?} after {REST:?} of rest");
                self.outcome.faults.push(fault);
            }
        }
        if self.node.peers() != self.members.iter().filter(|m| m.present.is_some()).count() {
            self.outcome.faults.push("who left is still there".into());
        }
    }

    fn holder(&mut self, is: impl Fn(&Present) -> bool) -> Option<(usize, &mut Present)> {
        let members = self.members.iter_mut().enumerate();
        let mut present = members.filter_map(|(at, m)| Some((at, m.present.as_mut()?)));
        present.find(|(_, present)| is(present))
    }

    fn push(&mut self, at: Duration, delivery: Delivery) {
        self.order += 1;
        self.queue.insert((at, self.order), delivery);
    }

    fn note(&mut self, line: String) {
        self.outcome.lines.push(format!("{:?} {line}", self.now));
    }
}

/// What the relay calls a connection.
fn address_of(connection: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), connection as u16)
}
