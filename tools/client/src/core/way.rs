//! The state machine at work: its timers, and the checks that tell it what happens.

use super::media::Side;
use super::path::{Candidate, Checks, Heard, Random};
use super::transport::{Action, Direct, Event, OVERLAP, PROBE, State, TCP_RETRY, Timer, Ways};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use strait_link::v1::{self, endpoint::Protocol, endpoint::Purpose, transport_report};

/// Heartbeats that the node over UDP may leave unanswered: 3 s.
const PATIENCE_UDP: u32 = 6;
/// The same over TCP, where what is late comes in the end: 5 s.
const PATIENCE_TCP: u32 = 10;
/// The same of the other of two: 1.5 s.
const PATIENCE_DIRECT: u32 = 3;
/// What TCP is asked without an answer before it counts as failed.
const TCP_PROBE: Duration = Duration::from_secs(4);
/// While media goes directly, the packets of each stream whose numbers are divisible by this go to the node as well. It
/// guesses the upper half of a packet's index from the last one it saw (RFC 3711 section 3.3.1), and would take one that
/// is 2^15 ahead for an old one; three of these may be lost in a row.
const MARK: u16 = 1 << 13;
/// There is one place only over TCP, which needs no address.
const OVER_TCP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// As a datagram.
    Udp(SocketAddr, Vec<u8>),
    /// As `Media` over the link.
    Link(Vec<u8>),
    /// Over the connection for framed media.
    Framed(Vec<u8>),
    /// That connection is wanted, to this port of the node.
    OpenFramed(u16),
    /// It is not wanted any more.
    CloseFramed,
}

/// The connection for framed media. What goes by TCP goes by the link as long as it is not open: some proxies let but one
/// connection through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framed {
    /// Not wanted, or not to be had.
    #[default]
    None,
    Opening,
    Open,
}

/// All ways of a session.
#[derive(Default)]
pub struct Transport {
    state: State,
    timers: Vec<(Timer, Duration)>,
    /// No datagram may be sent to the node.
    no_udp: bool,
    udp: Option<Checks>,
    tcp: Option<Checks>,
    /// Since when TCP is asked.
    tcp_since: Option<Duration>,
    framed: Framed,
    /// Where the node takes such, if it does.
    framed_port: Option<u16>,
    direct: Option<Checks>,
    /// What it was made of.
    offered: Option<v1::Direct>,
    /// What was reported last.
    reported: transport_report::State,
    out: VecDeque<Packet>,
}

impl Transport {
    /// Media goes to the node at these endpoints from now on, with these credentials; what was before ends. `node`: where the
    /// link goes, for endpoints without address.
    pub fn start(
        &mut self,
        now: Duration,
        path: &v1::MediaPath,
        node: Option<IpAddr>,
        random: &mut dyn Random,
    ) {
        self.end(now);
        let none = v1::IceCredentials::default();
        let remote = path.node_ice.as_ref().unwrap_or(&none);
        let local = path.client_ice.as_ref().unwrap_or(&none);
        let mut udp = Checks::new(remote, local, true, PATIENCE_UDP, random).ranked();
        if !self.no_udp {
            candidates(&path.endpoints, node).for_each(|place| udp.add(place));
        }
        let has_udp = udp.has_places();
        let mut tcp = Checks::new(remote, local, true, PATIENCE_TCP, random);
        tcp.add(Candidate::both(OVER_TCP));
        let mut endpoints = path.endpoints.iter();
        let framed = endpoints.find(|endpoint| endpoint.protocol() == Protocol::Tls);
        self.framed_port = framed.and_then(|endpoint| u16::try_from(endpoint.port).ok());
        (self.udp, self.tcp) = (Some(udp), Some(tcp));
        self.on(now, Event::Started);
        if !has_udp {
            // There is nothing to wait for.
            self.timers.retain(|(timer, _)| *timer != Timer::Probe);
            self.on(now, Event::Elapsed(Timer::Probe));
        }
    }

    /// No datagrams are sent to nodes, from the next start on.
    pub fn forgo_udp(&mut self) {
        self.no_udp = true;
    }

    /// The session is over.
    pub fn end(&mut self, now: Duration) {
        self.on(now, Event::Ended);
        (self.udp, self.tcp, self.direct, self.offered) = (None, None, None, None);
    }

    /// The link broke, which carries what goes by TCP where nothing else does.
    pub fn link_lost(&mut self, now: Duration) {
        if self.framed != Framed::Open {
            self.on(now, Event::TcpFailed);
        }
    }

    /// The connection for framed media is open: what goes by TCP goes there from now on.
    pub fn framed_opened(&mut self, now: Duration, random: &mut dyn Random) {
        if self.framed == Framed::Opening {
            self.framed = Framed::Open;
            self.ask_tcp_again(now, random);
        }
    }

    /// It broke, or could not be opened: what goes by TCP goes by the link.
    pub fn framed_lost(&mut self, now: Duration, random: &mut dyn Random) {
        if std::mem::take(&mut self.framed) == Framed::Open {
            self.ask_tcp_again(now, random);
        }
    }

    /// Asks over TCP at once, and before anything else goes that way: who serves it knows a peer by its checks.
    fn ask_tcp_again(&mut self, now: Duration, random: &mut dyn Random) {
        let Some(tcp) = &mut self.tcp else { return };
        let mut checks = Vec::new();
        tcp.ask_again(now);
        tcp.poll(now, random, &mut checks);
        for (_, check) in checks {
            self.send_tcp(check);
        }
    }

    /// There are exactly two. The node may say so again, when it does not know whether it was heard.
    pub fn offer(&mut self, now: Duration, direct: &v1::Direct, random: &mut dyn Random) {
        let (Some(remote), Some(local)) = (&direct.remote_ice, &direct.local_ice) else { return };
        if self.offered.as_ref() == Some(direct) {
            return;
        }
        self.offered = Some(direct.clone());
        let mut checks = Checks::new(remote, local, direct.controlling, PATIENCE_DIRECT, random);
        let places = direct.endpoints.iter().filter_map(|place| place.parse().ok());
        places.for_each(|place| checks.add(Candidate::both(place)));
        self.direct = Some(checks);
        self.on(now, Event::DirectOffered);
    }

    /// There are not.
    pub fn withdraw(&mut self, now: Duration) {
        self.offered = None;
        self.on(now, Event::DirectEnded);
    }

    /// Takes a STUN message from a datagram, or from the link (without `from`).
    pub fn on_stun(&mut self, now: Duration, from: Option<SocketAddr>, bytes: &[u8]) {
        let mut answers = Vec::new();
        let Some(from) = from else {
            let heard = self
                .tcp
                .as_mut()
                .and_then(|tcp| tcp.on_message(now, OVER_TCP, bytes, &mut answers));
            if heard == Some(Heard::Answered) {
                self.on(now, Event::TcpAnswered);
            }
            return;
        };
        let mut take = |checks: &mut Option<Checks>| {
            checks.as_mut().and_then(|checks| checks.on_message(now, from, bytes, &mut answers))
        };
        let event = match take(&mut self.udp) {
            Some(heard) => (heard == Heard::Answered).then_some(Event::UdpAnswered),
            None => {
                (take(&mut self.direct) == Some(Heard::Answered)).then_some(Event::DirectAnswered)
            }
        };
        self.out.extend(answers.into_iter().map(|(to, bytes)| Packet::Udp(to, bytes)));
        if let Some(event) = event {
            self.on(now, event);
        }
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Duration, random: &mut dyn Random) {
        while let Some(at) = self.timers.iter().position(|(_, due)| *due <= now) {
            let (timer, _) = self.timers.swap_remove(at);
            self.on(now, Event::Elapsed(timer));
        }
        let (mut checks, mut happened) = (Vec::new(), Vec::new());
        for (way, silent) in
            [(&mut self.udp, Event::UdpSilent), (&mut self.direct, Event::DirectSilent)]
        {
            let heard = way.as_mut().map(|way| way.poll(now, random, &mut checks));
            self.out.extend(checks.drain(..).map(|(to, bytes)| Packet::Udp(to, bytes)));
            if heard == Some(Heard::Silent) {
                happened.push(silent);
            }
        }
        let late = self.tcp_since.is_some_and(|since| since + TCP_PROBE <= now);
        let heard = self.tcp.as_mut().map(|tcp| tcp.poll(now, random, &mut checks));
        checks.into_iter().for_each(|(_, bytes)| self.send_tcp(bytes));
        if late || heard == Some(Heard::Silent) {
            happened.push(Event::TcpFailed);
        }
        if !happened.is_empty() {
            happened.into_iter().for_each(|event| self.on(now, event));
            // What that made due at once.
            self.on_time(now, random);
        }
    }

    /// When something is due.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let checks = [&self.udp, &self.tcp, &self.direct];
        let checks = checks.into_iter().flatten().filter_map(Checks::due);
        let timers = self.timers.iter().map(|(_, due)| *due);
        checks.chain(timers).chain(self.tcp_since.map(|since| since + TCP_PROBE)).min()
    }

    /// The next packet to be sent.
    pub fn poll(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    /// The state of the machine.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// As it is reported, if that changed since this was last asked.
    pub fn changed(&mut self) -> Option<transport_report::State> {
        let reported = match self.state.reported() {
            transport_report::State::TcpRelay if self.framed != Framed::Open => {
                transport_report::State::Link
            }
            other => other,
        };
        (std::mem::replace(&mut self.reported, reported) != reported).then_some(reported)
    }

    /// The last round trip of the way that media goes by.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        let Ways { udp, tcp, direct } = self.state.ways();
        let ways = [(direct, &self.direct), (udp, &self.udp), (tcp, &self.tcp)];
        let way = ways.into_iter().find(|(used, _)| *used)?.1.as_ref();
        way.and_then(Checks::round_trip)
    }

    /// Since when the node has not answered on the way that is in use to it, and whether that is TCP.
    #[must_use]
    pub fn silent_since(&self) -> Option<(Duration, bool)> {
        let (way, is_tcp) =
            if self.ways_to_node().udp { (&self.udp, false) } else { (&self.tcp, true) };
        way.as_ref().and_then(Checks::silent_since).map(|since| (since, is_tcp))
    }

    /// Where media goes to the node by UDP, if it does.
    #[must_use]
    pub fn udp(&self) -> Option<Candidate> {
        let checks = self.udp.as_ref().filter(|_| self.state.ways().udp);
        checks.and_then(Checks::chosen)
    }

    /// Media goes directly, and to the node no more.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.state.direct == Direct::Alone
    }

    /// Whether what comes from there comes from the other of two.
    #[must_use]
    pub fn is_other(&self, from: SocketAddr) -> bool {
        let is_of = |checks: &Option<Checks>| checks.as_ref().is_some_and(|way| way.is_of(from));
        !is_of(&self.udp) && is_of(&self.direct)
    }

    /// Sends a packet of media by whatever ways it goes now, which are returned. Not `directly`: to the node, which knows
    /// who takes it.
    pub fn send(&mut self, kind: v1::Kind, packet: Vec<u8>, directly: bool) -> Ways {
        let seq = packet.get(2..4).and_then(|seq| seq.try_into().ok()).map(u16::from_be_bytes);
        let is_mark = seq.is_some_and(|seq| seq.is_multiple_of(MARK));
        let ways = match directly {
            false => self.ways_to_node(),
            true if is_mark => self.all_ways(),
            true => self.state.ways(),
        };
        self.send_by(ways, kind, packet);
        ways
    }

    /// Sends RTCP: by the ways of media, and to the node also while media goes directly, for it watches all streams; or to
    /// one side alone.
    pub fn send_rtcp(&mut self, to: Option<Side>, packet: Vec<u8>) {
        let all = self.all_ways();
        let ways = match to {
            None => all,
            Some(Side::Node) => Ways { direct: false, ..all },
            Some(Side::Other) => Ways { direct: all.direct, ..Ways::default() },
        };
        self.send_by(ways, v1::Kind::Audio, packet);
    }

    /// Those of media, and that to the node.
    fn all_ways(&self) -> Ways {
        Ways { direct: self.state.ways().direct, ..self.ways_to_node() }
    }

    fn ways_to_node(&self) -> Ways {
        State { direct: Direct::None, ..self.state }.ways()
    }

    fn send_by(&mut self, ways: Ways, kind: v1::Kind, packet: Vec<u8>) {
        for (used, way) in [(ways.udp, &self.udp), (ways.direct, &self.direct)] {
            if let Some(place) = way.as_ref().filter(|_| used).and_then(Checks::chosen) {
                let to = if kind == v1::Kind::Video { place.video } else { place.audio };
                self.out.push_back(Packet::Udp(to, packet.clone()));
            }
        }
        if ways.tcp {
            self.send_tcp(packet);
        }
    }

    fn send_tcp(&mut self, packet: Vec<u8>) {
        self.out.push_back(match self.framed {
            Framed::Open => Packet::Framed(packet),
            Framed::None | Framed::Opening => Packet::Link(packet),
        });
    }

    fn close_framed(&mut self) {
        if std::mem::take(&mut self.framed) != Framed::None {
            self.out.push_back(Packet::CloseFramed);
        }
    }

    fn on(&mut self, now: Duration, event: Event) {
        let (state, actions) = self.state.on(event);
        self.state = state;
        for action in actions {
            self.act(now, action);
        }
    }

    fn act(&mut self, now: Duration, action: Action) {
        let each = |way: &mut Option<Checks>, act: &dyn Fn(&mut Checks)| {
            if let Some(checks) = way {
                act(checks);
            }
        };
        match action {
            Action::ProbeUdp => each(&mut self.udp, &|udp| udp.probe(now, true)),
            Action::RetryUdp => each(&mut self.udp, &|udp| udp.probe(now, false)),
            Action::UseUdp => each(&mut self.udp, &|udp| udp.keep(now, true)),
            Action::StopUdp => each(&mut self.udp, &Checks::stop),
            Action::OpenTcp => {
                each(&mut self.tcp, &|tcp| tcp.probe(now, true));
                self.tcp_since = Some(now);
                if let (Framed::None, Some(port)) = (self.framed, self.framed_port) {
                    self.framed = Framed::Opening;
                    self.out.push_back(Packet::OpenFramed(port));
                }
            }
            Action::UseTcp => {
                each(&mut self.tcp, &|tcp| tcp.keep(now, true));
                self.tcp_since = None;
            }
            Action::CloseTcp => {
                each(&mut self.tcp, &Checks::stop);
                self.tcp_since = None;
                self.close_framed();
            }
            Action::ProbeDirect => each(&mut self.direct, &|direct| direct.probe(now, true)),
            Action::KeepDirect => each(&mut self.direct, &|direct| direct.keep(now, true)),
            Action::StopDirect => self.direct = None,
            Action::Arm(timer) => {
                let after = match timer {
                    Timer::Probe => PROBE,
                    Timer::TcpRetry => {
                        self.tcp_since = None;
                        each(&mut self.tcp, &Checks::stop);
                        self.close_framed();
                        TCP_RETRY
                    }
                    Timer::Relay | Timer::Direct => OVERLAP,
                };
                self.timers.retain(|(armed, _)| *armed != timer);
                self.timers.push((timer, now + after));
            }
        }
    }
}

/// Where to ask over UDP, in this order: the port for sound with that for pictures, then those for both.
fn candidates(endpoints: &[v1::Endpoint], node: Option<IpAddr>) -> impl Iterator<Item = Candidate> {
    let places = |purpose: Purpose| {
        endpoints.iter().filter_map(move |endpoint| {
            let ip = if endpoint.address.is_empty() { node } else { endpoint.address.parse().ok() };
            let port = u16::try_from(endpoint.port).ok()?;
            (endpoint.protocol() == Protocol::Udp && endpoint.purpose() == purpose)
                .then_some(SocketAddr::new(ip?, port))
        })
    };
    let apart = places(Purpose::Audio).zip(places(Purpose::Video));
    let apart = apart.map(|(audio, video)| Candidate { audio, video });
    apart.chain(places(Purpose::Any).map(Candidate::both)).collect::<Vec<_>>().into_iter()
}
