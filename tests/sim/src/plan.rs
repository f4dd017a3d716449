//! A run in words: Conditions, Media, Run, Check.
//!
//! ```text
//! Plan::new(7)
//!     .conditions(Weather::everywhere(secs(1)..secs(5), Conditions { loss: 0.2, ..Conditions::GOOD }))
//!     .media(Media::call(3))
//!     .run(millis(2500), Step::Mute { peer: 0, kind: Kind::Video })
//!     .check(Check::default())
//! ```

use crate::network::Conditions;
use std::ops::Range;
use strait_core::command::Kind;
use strait_core::port::Protocol;
use strait_core::time::Duration;
use strait_crypt::srtp::Profile;

/// Everything that a run depends on. The same plan gives the same run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Drives every chance that the plan leaves open.
    pub seed: u64,
    /// What the network does.
    pub conditions: Vec<Weather>,
    /// Who sends what, and how.
    pub media: Media,
    /// What people do, and when.
    pub run: Vec<(Duration, Step)>,
    /// While the control plane is away: not one command is given.
    pub alone: Range<Duration>,
    /// What must hold.
    pub check: Check,
}

/// Conditions for a while on some lines. Before and after, the lines are good.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// From when to when.
    pub during: Range<Duration>,
    /// One peer's line, or everyone's.
    pub peer: Option<usize>,
    /// Towards the relay.
    pub up: Option<Conditions>,
    /// From the relay.
    pub down: Option<Conditions>,
}

/// The people of a run.
#[derive(Clone, Debug, Default)]
pub struct Media {
    /// Each plays from [`Step::Join`] on.
    pub peers: Vec<PeerSpec>,
}

/// How a peer is.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// SRTP protection.
    pub profile: Profile,
    /// A real DTLS handshake agrees on keys; otherwise they come with a command.
    pub dtls: bool,
    /// UDP, or frames on a connection.
    pub protocol: Protocol,
    /// The line is IPv6.
    pub ipv6: bool,
    /// What its camera sends.
    pub video: Option<VideoSpec>,
    /// Whether its microphone sends.
    pub audio: bool,
    /// RTX (RFC 4588) is agreed; otherwise packets are sent again as they were.
    pub rtx: bool,
    /// Transport-wide feedback is agreed.
    pub transport_cc: bool,
    /// REMB is agreed.
    pub remb: bool,
    /// Full intra requests instead of picture loss indications.
    pub fir: bool,
    /// Header extensions with ids above 14, which take the two-byte form (RFC 8285).
    pub two_byte: bool,
    /// SSRCs are in the offer; otherwise the relay learns them from MID and RID.
    pub ssrcs_signalled: bool,
    /// How often consent is asked for.
    pub consent: Duration,
}

/// How a camera is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoSpec {
    /// Simulcast layers, 1 to 3.
    pub layers: u8,
    /// Frames per second.
    pub fps: u32,
    /// Packets of an ordinary frame of the highest layer, at most.
    pub packets_max: u8,
    /// Padding-only packets on the media's SSRC now and then, as congestion probes send them.
    pub padding: bool,
}

/// What someone does. People are named by their place in [`Media::peers`].
#[expect(missing_docs, reason = "the fields are named in the sentence of the step")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Joins and publishes all it has; everyone subscribes to it, and it to everyone.
    Join { peer: usize },
    /// Is removed by the control plane.
    Leave { peer: usize },
    /// Its machine is switched off: nothing is said, consent must find out.
    Vanish { peer: usize },
    /// The control plane holds its stream back.
    Mute { peer: usize, kind: Kind },
    /// And lets it go.
    Unmute { peer: usize, kind: Kind },
    /// Stops sending, though nobody was told.
    Silence { peer: usize, kind: Kind },
    /// Sends again.
    Speak { peer: usize, kind: Kind },
    /// `peer` stops wanting what it gets of `of`.
    Pause { peer: usize, of: usize, kind: Kind },
    /// And wants it again.
    Resume { peer: usize, of: usize, kind: Kind },
    /// The slot in which `peer` sees `of` shows `to` from now on.
    Rebind { peer: usize, of: usize, to: usize, kind: Kind },
    /// `peer` wants no higher layer than that of `of`'s video.
    LayerMax { peer: usize, of: usize, layer: Option<u8> },
    /// A simulcast layer stops, as browsers do without the bandwidth.
    StopLayer { peer: usize, layer: u8 },
    /// And starts again.
    StartLayer { peer: usize, layer: u8 },
    /// New ICE credentials.
    RestartIce { peer: usize },
    /// The peer's address changes. It knows (another interface) or not (a NAT forgot the binding).
    Move { peer: usize, knows: bool },
    /// The stream ends and a new one with new SSRCs takes its place.
    Republish { peer: usize, kind: Kind },
    /// Someone without credentials sends all that he can think of, from his address and in others' names.
    Attack { datagrams: u32 },
}

/// Within what the media must flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// On good lines: from joining, unmuting, healing and the like to a newer frame decoded.
    pub stuck_good: Duration,
    /// The same under at most [`FAIR_LOSS`].
    pub stuck_fair: Duration,
    /// From joining to connected, on good lines.
    pub connect: Duration,
    /// When the cameras go off. Everyone leaves then.
    pub end: Duration,
}

/// The mean loss of a line up to which media must go on flowing.
pub const FAIR_LOSS: f64 = 0.2;

impl Default for Check {
    fn default() -> Self {
        Self {
            stuck_good: Duration::from_secs(2),
            stuck_fair: Duration::from_secs(6),
            connect: Duration::from_secs(2),
            end: Duration::from_secs(8),
        }
    }
}

impl Plan {
    /// Good lines and nobody there.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            conditions: Vec::new(),
            media: Media::default(),
            run: Vec::new(),
            alone: Duration::ZERO..Duration::ZERO,
            check: Check::default(),
        }
    }

    /// Adds weather. Later additions overrule earlier ones.
    #[must_use]
    pub fn conditions(mut self, weather: Weather) -> Self {
        self.conditions.push(weather);
        self
    }

    /// Says who is there. They join at the start, 50 ms apart, unless a step says when.
    #[must_use]
    pub fn media(mut self, media: Media) -> Self {
        self.media = media;
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn run(mut self, at: Duration, step: Step) -> Self {
        self.run.push((at, step));
        self
    }

    /// Takes the control plane away.
    #[must_use]
    pub fn alone(mut self, during: Range<Duration>) -> Self {
        self.alone = during;
        self
    }

    /// Says what must hold.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// The steps in order of time, with the joins that go without saying.
    #[must_use]
    pub fn steps(&self) -> Vec<(Duration, Step)> {
        let joins = |peer: usize| self.run.iter().any(|(_, step)| *step == Step::Join { peer });
        let mut steps: Vec<(Duration, Step)> = (0..self.media.peers.len())
            .filter(|peer| !joins(*peer))
            .map(|peer| (Duration::from_millis(50 * peer as u64), Step::Join { peer }))
            .chain(self.run.iter().copied())
            .collect();
        steps.sort_by_key(|(at, _)| *at);
        steps
    }

    /// What the line of `peer` does, towards the relay (`up`) or from it: from when on which conditions.
    #[must_use]
    pub fn timeline(&self, peer: usize, up: bool) -> Vec<(Duration, Conditions)> {
        let of = |weather: &Weather| if up { weather.up } else { weather.down };
        let mine: Vec<(&Weather, Conditions)> = self
            .conditions
            .iter()
            .filter(|weather| weather.peer.is_none_or(|named| named == peer))
            .filter_map(|weather| Some((weather, of(weather)?)))
            .collect();
        let mut edges: Vec<Duration> = mine
            .iter()
            .flat_map(|(weather, _)| [weather.during.start, weather.during.end])
            .collect();
        edges.sort();
        edges.dedup();
        edges
            .into_iter()
            .map(|edge| {
                let holds = mine.iter().rev().find(|(weather, _)| weather.during.contains(&edge));
                (edge, holds.map_or(Conditions::GOOD, |(_, conditions)| *conditions))
            })
            .collect()
    }
}

impl Weather {
    /// The same for everyone, both ways.
    #[must_use]
    pub fn everywhere(during: Range<Duration>, conditions: Conditions) -> Self {
        Self { during, peer: None, up: Some(conditions), down: Some(conditions) }
    }
}

impl Media {
    /// So many people, each with a camera and a microphone, who see and hear each other.
    #[must_use]
    pub fn call(peers: usize) -> Self {
        Self { peers: vec![PeerSpec::default(); peers] }
    }

    /// One who sends, and so many who only watch.
    #[must_use]
    pub fn broadcast(watchers: usize) -> Self {
        let watcher = PeerSpec { video: None, audio: false, ..PeerSpec::default() };
        let mut peers = vec![PeerSpec::default()];
        peers.resize(watchers + 1, watcher);
        Self { peers }
    }

    /// Changes everyone.
    #[must_use]
    pub fn each(mut self, change: impl Fn(&mut PeerSpec)) -> Self {
        self.peers.iter_mut().for_each(change);
        self
    }
}

impl Default for PeerSpec {
    fn default() -> Self {
        Self {
            profile: Profile::AeadAes128Gcm,
            dtls: false,
            protocol: Protocol::Udp,
            ipv6: false,
            video: Some(VideoSpec::default()),
            audio: true,
            rtx: true,
            transport_cc: false,
            remb: false,
            fir: false,
            two_byte: false,
            ssrcs_signalled: true,
            consent: Duration::from_millis(2500),
        }
    }
}

impl Default for VideoSpec {
    fn default() -> Self {
        Self { layers: 1, fps: 15, packets_max: 3, padding: false }
    }
}

/// So many seconds.
#[must_use]
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// So many milliseconds.
#[must_use]
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_weather_overrules_earlier() {
        let lossy = Conditions { loss: 0.1, ..Conditions::GOOD };
        let mut one_cut = Weather::everywhere(secs(2)..secs(3), Conditions::CUT);
        one_cut.peer = Some(1);
        let plan = Plan::new(1)
            .conditions(Weather::everywhere(secs(1)..secs(5), lossy))
            .conditions(one_cut);
        let good = Conditions::GOOD;
        assert_eq!(plan.timeline(0, true), [(secs(1), lossy), (secs(5), good)]);
        let second =
            [(secs(1), lossy), (secs(2), Conditions::CUT), (secs(3), lossy), (secs(5), good)];
        assert_eq!(plan.timeline(1, false), second);
    }

    #[test]
    fn who_has_no_join_of_his_own_joins_at_the_start() {
        let plan = Plan::new(1).media(Media::call(2)).run(secs(3), Step::Join { peer: 0 });
        let steps = plan.steps();
        let expected = [(millis(50), Step::Join { peer: 1 }), (secs(3), Step::Join { peer: 0 })];
        assert_eq!(steps, expected);
    }
}
