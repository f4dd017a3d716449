//! How media goes: the state machine, pure. Its table, generated from here, is in docs/reference/transports.md.
//!
//! Two halves that do not need one another: how the node is reached ([`Relay`]), and whether the other of exactly two is
//! ([`Direct`]). What both come to is [`State::ways`], which is the rule: two send to one another, three and more by the
//! first protocol (UDP), else by the second (TCP).

use std::time::Duration;
use strait_link::v1::transport_report::State as Reported;

/// UDP is asked for so long before TCP is opened. Media must flow over TCP within 3 s of the start.
pub const PROBE: Duration = Duration::from_secs(2);
/// Where the way changes media goes by both for so long, for what is under way by the old one must not be missed.
pub const OVERLAP: Duration = Duration::from_millis(500);
/// Between two attempts to open TCP.
pub const TCP_RETRY: Duration = Duration::from_secs(1);

/// How the node is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Relay {
    /// There is no session.
    #[default]
    Down,
    /// Nothing answered yet; UDP is asked.
    Probing,
    /// By UDP.
    Udp,
    /// UDP does not answer, TCP is not open yet; both are tried.
    Opening,
    /// By TCP; UDP is asked in the background.
    Tcp,
    /// UDP answered: media goes by both for a moment.
    TcpToUdp,
}

/// Whether the other of two is reached directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direct {
    /// There are not exactly two, or the node does not offer it.
    #[default]
    None,
    /// Offered; the other one is asked.
    Probing,
    /// It answered: media goes there and to the node for a moment.
    Joining,
    /// Media goes there alone; the way to the node is kept alive.
    Alone,
    /// It is silent, and asked anew; media goes both ways for a moment.
    Failing,
    /// The offer ended: media goes both ways for a moment.
    Leaving,
}

/// Both halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// How the node is reached.
    pub relay: Relay,
    /// Whether the other of two is.
    pub direct: Direct,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The node told where media goes.
    Started,
    /// The session is over.
    Ended,
    /// A check of the node over UDP was answered.
    UdpAnswered,
    /// The node's answers over UDP stayed away.
    UdpSilent,
    /// A check of the node over TCP was answered.
    TcpAnswered,
    /// TCP cannot be opened, or broke.
    TcpFailed,
    /// The node says that there are exactly two, and where the other one is.
    DirectOffered,
    /// There are no longer exactly two.
    DirectEnded,
    /// The other one answered a check.
    DirectAnswered,
    /// Its answers stayed away.
    DirectSilent,
    /// A timer ran out.
    Elapsed(Timer),
}

/// What the machine waits for. One of each at a time: arming it again begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// [`PROBE`].
    Probe,
    /// [`TCP_RETRY`].
    TcpRetry,
    /// [`OVERLAP`] of TCP and UDP.
    Relay,
    /// [`OVERLAP`] of the direct and the relayed way.
    Direct,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ask the node over UDP, quickly, from the first endpoint on.
    ProbeUdp,
    /// Ask it over UDP in the background, less and less often.
    RetryUdp,
    /// Tell the node to send over UDP, and keep that way alive.
    UseUdp,
    /// Ask no more over UDP.
    StopUdp,
    /// Open TCP and ask the node over it.
    OpenTcp,
    /// Tell the node to send over TCP, and keep that way alive.
    UseTcp,
    /// Close TCP.
    CloseTcp,
    /// Ask the other of two, quickly.
    ProbeDirect,
    /// Keep the direct way alive.
    KeepDirect,
    /// Ask and answer it no more.
    StopDirect,
    /// Start a timer.
    Arm(Timer),
}

/// Where media is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ways {
    /// To the node over UDP.
    pub udp: bool,
    /// To the node over TCP.
    pub tcp: bool,
    /// To the other of two.
    pub direct: bool,
}

impl State {
    /// What an event leads to.
    #[must_use]
    pub fn on(self, event: Event) -> (Self, Vec<Action>) {
        let (relay, of_relay) = self.relay.on(event);
        let (direct, of_direct) = self.direct.on(event);
        (Self { relay, direct }, [of_relay, of_direct].concat())
    }

    /// Where media goes: **two send to one another, three and more by the first protocol, UDP, else by the second, TCP**;
    /// by both ways for a moment where the way changes.
    #[must_use]
    pub fn ways(self) -> Ways {
        let direct = matches!(
            self.direct,
            Direct::Joining | Direct::Alone | Direct::Failing | Direct::Leaving
        );
        let relayed = self.direct != Direct::Alone;
        Ways {
            direct,
            udp: relayed && matches!(self.relay, Relay::Udp | Relay::Opening | Relay::TcpToUdp),
            tcp: relayed && matches!(self.relay, Relay::Tcp | Relay::TcpToUdp),
        }
    }

    /// As the node and the application are told.
    #[must_use]
    pub fn reported(self) -> Reported {
        match (self.direct, self.relay) {
            (Direct::Alone, _) => Reported::P2p,
            (_, Relay::Down) => Reported::Disconnected,
            (_, Relay::Probing | Relay::Opening) => Reported::Probing,
            (_, Relay::Udp | Relay::TcpToUdp) => Reported::UdpRelay,
            (_, Relay::Tcp) => Reported::TcpRelay,
        }
    }
}

impl Relay {
    fn on(self, event: Event) -> (Self, &'static [Action]) {
        use Action::{Arm, CloseTcp, OpenTcp, ProbeUdp, RetryUdp, StopUdp, UseTcp, UseUdp};
        use Event::{Elapsed, Ended, Started, TcpAnswered, TcpFailed, UdpAnswered, UdpSilent};
        match (self, event) {
            (Self::Down, Started) => (Self::Probing, &[ProbeUdp, Arm(Timer::Probe)]),
            (Self::Down, _) => (Self::Down, &[]),
            (_, Ended) => (Self::Down, &[StopUdp, CloseTcp]),
            // Other endpoints or credentials: nothing of before is worth anything.
            (_, Started) => (Self::Probing, &[CloseTcp, ProbeUdp, Arm(Timer::Probe)]),

            (Self::Probing, UdpAnswered) => (Self::Udp, &[UseUdp]),
            (Self::Probing, Elapsed(Timer::Probe)) => (Self::Opening, &[OpenTcp]),

            (Self::Udp, UdpSilent) => (Self::Opening, &[ProbeUdp, OpenTcp]),

            (Self::Opening, UdpAnswered) => (Self::Udp, &[UseUdp, CloseTcp]),
            (Self::Opening, TcpAnswered) => (Self::Tcp, &[UseTcp, RetryUdp]),
            (Self::Opening, TcpFailed) => (Self::Opening, &[Arm(Timer::TcpRetry)]),
            (Self::Opening, Elapsed(Timer::TcpRetry)) => (Self::Opening, &[OpenTcp]),

            (Self::Tcp, UdpAnswered) => (Self::TcpToUdp, &[UseUdp, Arm(Timer::Relay)]),
            (Self::Tcp, TcpFailed) => (Self::Opening, &[ProbeUdp, Arm(Timer::TcpRetry)]),

            (Self::TcpToUdp, Elapsed(Timer::Relay)) => (Self::Udp, &[CloseTcp]),
            (Self::TcpToUdp, UdpSilent) => (Self::Tcp, &[UseTcp, RetryUdp]),
            (Self::TcpToUdp, TcpFailed) => (Self::Udp, &[CloseTcp]),
            _ => (self, &[]),
        }
    }
}

impl Direct {
    fn on(self, event: Event) -> (Self, &'static [Action]) {
        use Action::{Arm, KeepDirect, ProbeDirect, StopDirect};
        use Event::{DirectAnswered, DirectEnded, DirectOffered, DirectSilent, Elapsed, Ended};
        match (self, event) {
            (Self::None, DirectOffered) => (Self::Probing, &[ProbeDirect]),
            (Self::None, _) => (Self::None, &[]),
            (_, Ended) => (Self::None, &[StopDirect]),

            (Self::Probing | Self::Leaving, DirectOffered) => (Self::Probing, &[ProbeDirect]),
            (Self::Probing, DirectAnswered) => (Self::Joining, &[KeepDirect, Arm(Timer::Direct)]),
            (Self::Probing, DirectEnded) => (Self::None, &[StopDirect]),

            (Self::Joining, Elapsed(Timer::Direct)) => (Self::Alone, &[]),
            (Self::Joining | Self::Alone, DirectSilent) => {
                (Self::Failing, &[ProbeDirect, Arm(Timer::Direct)])
            }
            // A new offer where one was in use: it is somewhere else now.
            (Self::Joining | Self::Alone | Self::Failing, DirectOffered) => {
                (Self::Failing, &[ProbeDirect, Arm(Timer::Direct)])
            }
            (Self::Joining | Self::Alone | Self::Failing, DirectEnded) => {
                (Self::Leaving, &[Arm(Timer::Direct)])
            }

            (Self::Failing, DirectAnswered) => (Self::Joining, &[KeepDirect, Arm(Timer::Direct)]),
            (Self::Failing, Elapsed(Timer::Direct)) => (Self::Probing, &[]),

            (Self::Leaving, Elapsed(Timer::Direct)) => (Self::None, &[StopDirect]),
            _ => (self, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet, VecDeque};
    use std::fmt::Write as _;

    const EVENTS: [Event; 14] = [
        Event::Started,
        Event::Ended,
        Event::UdpAnswered,
        Event::UdpSilent,
        Event::TcpAnswered,
        Event::TcpFailed,
        Event::DirectOffered,
        Event::DirectEnded,
        Event::DirectAnswered,
        Event::DirectSilent,
        Event::Elapsed(Timer::Probe),
        Event::Elapsed(Timer::TcpRetry),
        Event::Elapsed(Timer::Relay),
        Event::Elapsed(Timer::Direct),
    ];
    const RELAY: [Relay; 6] =
        [Relay::Down, Relay::Probing, Relay::Udp, Relay::Opening, Relay::Tcp, Relay::TcpToUdp];
    const DIRECT: [Direct; 6] = [
        Direct::None,
        Direct::Probing,
        Direct::Joining,
        Direct::Alone,
        Direct::Failing,
        Direct::Leaving,
    ];

    /// All states that any sequence of events leads to, each with where each event leads from there.
    fn reachable() -> HashMap<State, Vec<(Event, State)>> {
        let mut found = HashMap::new();
        let mut open = VecDeque::from([State::default()]);
        while let Some(state) = open.pop_front() {
            if found.contains_key(&state) {
                continue;
            }
            let next: Vec<_> = EVENTS.iter().map(|event| (*event, state.on(*event).0)).collect();
            open.extend(next.iter().map(|(_, state)| *state));
            found.insert(state, next);
        }
        found
    }

    fn after(state: State, events: &[Event]) -> State {
        events.iter().fold(state, |state, event| state.on(*event).0)
    }

    fn row(text: &mut String, state: &str, event: Event, next: &str, actions: &[Action]) {
        let actions: Vec<_> = actions.iter().map(|action| format!("{action:?}")).collect();
        writeln!(text, "| {state} | {event:?} | {next} | {} |", actions.join(", ")).unwrap();
    }

    /// The tables as they are to be in the docs: every event that changes something or has an effect.
    fn tables() -> [String; 3] {
        let head = "| state | event | next | actions |\n|---|---|---|---|\n";
        let (mut relay, mut direct) = (head.to_owned(), head.to_owned());
        for event_of in RELAY {
            for event in EVENTS {
                let (next, actions) = event_of.on(event);
                if (next, actions.is_empty()) != (event_of, true) {
                    row(&mut relay, &format!("{event_of:?}"), event, &format!("{next:?}"), actions);
                }
            }
        }
        for event_of in DIRECT {
            for event in EVENTS {
                let (next, actions) = event_of.on(event);
                if (next, actions.is_empty()) != (event_of, true) {
                    let state = format!("{event_of:?}");
                    row(&mut direct, &state, event, &format!("{next:?}"), actions);
                }
            }
        }
        let mut ways = String::from("| relay \\ direct |");
        DIRECT.iter().for_each(|direct| write!(ways, " {direct:?} |").unwrap());
        writeln!(ways, "\n|---|{}", "---|".repeat(DIRECT.len())).unwrap();
        for relay in RELAY {
            write!(ways, "| {relay:?} |").unwrap();
            for direct in DIRECT {
                let state = State { relay, direct };
                let Ways { udp, tcp, direct } = state.ways();
                let names = [(udp, "UDP"), (tcp, "TCP"), (direct, "direct")];
                let names: Vec<_> =
                    names.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
                write!(
                    ways,
                    " {} |",
                    if names.is_empty() { "—".into() } else { names.join(" + ") }
                )
                .unwrap();
            }
            ways.push('\n');
        }
        [relay, direct, ways]
    }

    #[test]
    fn the_table_in_the_docs_is_the_machine() {
        let docs = include_str!("../../../../docs/reference/transports.md");
        for table in tables() {
            assert!(docs.contains(&table), "docs/reference/transports.md is to hold:\n{table}");
        }
    }

    #[test]
    fn every_state_has_ways_out() {
        use Event::{DirectAnswered, Elapsed, Started, TcpAnswered, UdpAnswered};
        let reachable = reachable();
        assert_eq!(reachable.len(), RELAY.len() * DIRECT.len(), "nothing was forgotten");
        for state in reachable.keys().copied() {
            let ended = after(state, &[Event::Ended]);
            assert_eq!(ended, State::default(), "{state:?}");
            // Where UDP works it is used in the end, else TCP is: also if TCP failed before.
            let udp = after(state, &[Started, UdpAnswered, Elapsed(Timer::Relay)]);
            assert_eq!(udp.relay, Relay::Udp, "{state:?}");
            let failed = after(state, &[Started, Elapsed(Timer::Probe), Event::TcpFailed]);
            let tcp = after(failed, &[Elapsed(Timer::TcpRetry), TcpAnswered]);
            assert_eq!(tcp.relay, Relay::Tcp, "{state:?}");
            if state.relay != Relay::Down {
                let udp = after(state, &[UdpAnswered, Elapsed(Timer::Relay)]);
                assert_eq!(udp.relay, Relay::Udp, "without a new start: {state:?}");
                // UDP that dies is left, from wherever.
                let timers = [Elapsed(Timer::Probe), TcpAnswered];
                let tcp = after(after(state, &[Event::UdpSilent]), &timers);
                assert_eq!(tcp.relay, Relay::Tcp, "{state:?}");
            }
            let timer = Elapsed(Timer::Direct);
            let two = [Event::DirectOffered, timer, DirectAnswered, timer];
            assert_eq!(after(state, &two).direct, Direct::Alone, "{state:?}");
            let three = after(state, &[Event::DirectEnded, timer]);
            assert_eq!(three.direct, Direct::None, "{state:?}");
            let gone = after(state, &[Event::DirectSilent, timer]);
            assert!(matches!(gone.direct, Direct::None | Direct::Probing), "{state:?}: {gone:?}");
        }
    }

    /// No step takes away a way that media goes by unless another one has carried it for a while; but the one that broke.
    #[test]
    fn a_way_is_made_before_one_is_left() {
        for (state, next) in reachable() {
            let before = state.ways();
            for (event, to) in next {
                let after = to.ways();
                let kept = before.udp && after.udp
                    || before.tcp && after.tcp
                    || before.direct && after.direct;
                let none = before == Ways::default();
                let broke = matches!(event, Event::TcpFailed | Event::UdpSilent)
                    || matches!(event, Event::Started | Event::Ended);
                // A new offer while the last one's end is under way: the relay carries already.
                let relayed = event == Event::DirectOffered && state.direct == Direct::Leaving;
                // Without any way to the node, what was direct alone can only stop.
                let alone = !before.udp && !before.tcp;
                // UDP was silent already, and was hoped for only.
                let hoped = state.relay == Relay::Opening;
                assert!(
                    kept || none || broke || relayed || alone || hoped,
                    "{state:?} on {event:?}: {before:?} to {after:?}"
                );
            }
        }
    }

    #[test]
    fn the_rule_of_two_and_of_three() {
        let state = |relay, direct| State { relay, direct };
        let two = state(Relay::Udp, Direct::Alone).ways();
        assert_eq!(two, Ways { direct: true, ..Ways::default() });
        let three = state(Relay::Udp, Direct::None).ways();
        assert_eq!(three, Ways { udp: true, ..Ways::default() });
        let blocked = state(Relay::Tcp, Direct::None).ways();
        assert_eq!(blocked, Ways { tcp: true, ..Ways::default() });
    }

    /// A timer that was armed in an episode that is over changes nothing but what the state waits for anyhow.
    #[test]
    fn a_timer_is_armed_wherever_it_is_waited_for() {
        let waits: HashSet<_> =
            [(Relay::Probing, Timer::Probe), (Relay::TcpToUdp, Timer::Relay)].into();
        for state in RELAY {
            for event in EVENTS {
                let (next, actions) = state.on(event);
                for (waiting, timer) in &waits {
                    if next == *waiting && state != *waiting {
                        assert!(actions.contains(&Action::Arm(*timer)), "{state:?} {event:?}");
                    }
                }
            }
        }
        for state in DIRECT {
            for event in EVENTS {
                let (next, actions) = state.on(event);
                if matches!(next, Direct::Joining | Direct::Failing | Direct::Leaving)
                    && next != state
                {
                    assert!(actions.contains(&Action::Arm(Timer::Direct)), "{state:?} {event:?}");
                }
            }
        }
    }
}
