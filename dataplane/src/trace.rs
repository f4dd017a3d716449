//! Where the time goes on a datagram's way through this host: one media datagram in so many is followed by stages, from the
//! kernel's receive timestamp to its send timestamp. Of what goes to many, one run is followed, each place in turn.

use std::fmt;
use std::time::Duration;
use strait_core::time::Instant;

/// The stages, in order, and all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the kernel's receipt until the worker's turn begins: in the socket's buffer, and the worker's wake-up.
    Wait,
    /// Until it is looked at: the read, and the datagrams of the batch before it.
    Read,
    /// Until it is decrypted and measured.
    Admit,
    /// Until forwarding begins: it waits for the rest of its frame, and for the rest of the batch.
    Gather,
    /// Until it is given to the kernel: chosen, rewritten, encrypted for each subscriber.
    Forward,
    /// Until the kernel gives it to the network card.
    Send,
    /// All of it.
    Total,
}

impl Stage {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Wait, Self::Read, Self::Admit, Self::Gather, Self::Forward, Self::Send, Self::Total];

    /// Its name in statistics and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Read => "read",
            Self::Admit => "admit",
            Self::Gather => "gather",
            Self::Forward => "forward",
            Self::Send => "send",
            Self::Total => "total",
        }
    }
}

/// Upper bounds of the classes of times.
pub const LATENCY_CLASSES: [Duration; 16] = [
    Duration::from_micros(1),
    Duration::from_micros(2),
    Duration::from_micros(5),
    Duration::from_micros(10),
    Duration::from_micros(20),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
];

/// The times of one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How many were at most [`LATENCY_CLASSES`], and beyond.
    pub counts: [u64; LATENCY_CLASSES.len() + 1],
    /// Their sum.
    pub sum: Duration,
}

impl Times {
    fn count(&mut self, time: Duration) {
        let class = LATENCY_CLASSES.partition_point(|most| *most < time);
        self.counts.get_mut(class).into_iter().for_each(|count| *count += 1);
        self.sum += time;
    }
}

/// The times of all stages, in the order of [`Stage::ALL`], since the worker started.
pub type Latency = [Times; Stage::ALL.len()];

/// After a datagram that came to nothing, the next but so many is tried.
const RETRY: u32 = 16;
/// How soon a stamp that did not come at once is looked for again; each time twice as long.
const LOOK: Duration = Duration::from_micros(100);
/// After this it does not come any more.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// So many in a row that never came: the network card's driver says nothing, and is not asked any more.
const UNANSWERED: u32 = 8;

/// Follows one datagram at a time.
pub struct Trace {
    /// 0: none.
    one_in: u32,
    /// Datagrams until the next that is followed.
    left: u32,
    /// Without it, a datagram is forwarded when it is admitted.
    gathers: bool,
    state: State,
    /// When the stages of the one that is followed began.
    began: [Instant; 6],
    /// Sends since its forwarding began, and in that of the one before: large fan-outs take several.
    sends: usize,
    sends_before: usize,
    /// How many were followed to the end.
    followed: usize,
    unanswered: u32,
    latency: Latency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Gathered.
    Held,
    /// Being forwarded.
    Forwarding,
    /// What is sent next carries it.
    Forwarded,
    /// Being sent.
    Sending,
    /// Sent; the kernel is to say when.
    Awaited {
        look_at: Instant,
        pause: Duration,
    },
}

impl Trace {
    /// Follows one datagram in so many; 0: none.
    #[must_use]
    pub fn new(one_in: u32, gathers: bool) -> Self {
        Self {
            one_in,
            left: if one_in == 0 { u32::MAX } else { one_in },
            gathers,
            state: State::Idle,
            began: [Instant(0); 6],
            sends: 0,
            sends_before: 1,
            followed: 0,
            unanswered: 0,
            latency: Latency::default(),
        }
    }

    /// The times so far; `None` when none is followed.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        (self.one_in > 0).then_some(self.latency)
    }

    /// Whether the datagram that comes now is to be followed: for all others no more than this is done.
    pub fn is_due(&mut self) -> bool {
        self.left = self.left.wrapping_sub(1);
        self.left == 0 && self.is_free()
    }

    #[cold]
    fn is_free(&mut self) -> bool {
        self.left = if self.one_in == 0 { u32::MAX } else { self.one_in.min(RETRY) };
        self.one_in > 0 && self.state == State::Idle
    }

    /// The kernel took it in, the turn began, it is looked at.
    pub fn read(&mut self, arrived: Instant, turn: Instant, now: Instant) {
        self.began = [arrived, turn, now, now, now, now];
    }

    /// It was decrypted. `is_held`: it waits to be forwarded; `is_sent`: something goes out for it already.
    pub fn admitted(&mut self, now: Instant, is_held: bool, is_sent: bool) {
        let [_, _, _, rest @ ..] = &mut self.began;
        rest.fill(now);
        self.sends = 0;
        self.state = match self.gathers {
            true if is_held => State::Held,
            false if is_sent => State::Forwarded,
            _ => State::Idle,
        };
    }

    /// Whether forwarding begins with it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// It is being forwarded from now on.
    pub fn forwards(&mut self, now: Instant) {
        let [.., forward, send] = &mut self.began;
        (*forward, *send) = (now, now);
        self.state = State::Forwarding;
    }

    /// All that was gathered is forwarded. `is_sent`: something came of it.
    pub fn forwarded(&mut self, is_sent: bool) {
        match self.state {
            State::Forwarding if is_sent || self.sends > 0 => self.state = State::Forwarded,
            State::Forwarding => self.state = State::Idle,
            _ => {}
        }
        self.sends_before = self.sends + 1;
    }

    /// Whether the send that begins now carries it.
    pub fn is_sending(&mut self) -> bool {
        let turn = self.followed.checked_rem(self.sends_before).unwrap_or_default();
        let carries = match self.state {
            State::Forwarding => self.sends == turn,
            State::Forwarded => true,
            _ => false,
        };
        self.sends += 1;
        carries
    }

    /// It is given to the kernel now. The place of the run to ask a stamp of, unless that is known to be in vain.
    pub fn sends(&mut self, now: Instant) -> Option<usize> {
        let [.., send] = &mut self.began;
        *send = now;
        self.state = State::Sending;
        (self.unanswered < UNANSWERED).then_some(self.followed)
    }

    /// The kernel has it. `asked`: it was asked for a stamp, which is `stamp` if it is there already.
    pub fn sent(&mut self, now: Instant, asked: bool, stamp: Option<Instant>) {
        if self.state != State::Sending {
            return;
        }
        self.state = State::Idle;
        if !asked && self.unanswered < UNANSWERED {
            // Nothing left by UDP.
            return;
        }
        self.left = self.one_in;
        self.followed = self.followed.wrapping_add(1);
        let stages = self.began.iter().zip(self.began.iter().skip(1)).zip(&mut self.latency);
        stages.for_each(|((from, to), times)| times.count(to.since(*from)));
        match stamp {
            Some(_) => self.stamped(stamp),
            None if asked => self.state = State::Awaited { look_at: now + LOOK, pause: LOOK },
            None => {}
        }
    }

    /// Whether a stamp is awaited.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        matches!(self.state, State::Awaited { .. })
    }

    /// Whether to look for it now.
    pub fn is_look_due(&mut self, now: Instant) -> bool {
        let State::Awaited { look_at, pause } = &mut self.state else { return false };
        if *look_at > now {
            return false;
        }
        *pause *= 2;
        *look_at = now + *pause;
        if *pause > LOOK_MAX {
            self.state = State::Idle;
            self.unanswered += 1;
        }
        true
    }

    /// When the kernel gave it to the network card, if that is known.
    pub fn stamped(&mut self, stamp: Option<Instant>) {
        let Some(stamp) = stamp else { return };
        self.state = State::Idle;
        self.unanswered = 0;
        let [.., send, total] = &mut self.latency;
        let [arrived, .., submitted] = self.began;
        send.count(stamp.since(submitted));
        total.count(stamp.since(arrived));
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { one_in, state, followed, unanswered, .. } = self;
        write!(f, "Trace(one in {one_in}, {followed} followed, {state:?}, {unanswered} unanswered)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant(1_000_000_000 + micros * 1000)
    }

    /// Sums in microseconds and numbers, by stage.
    fn seen(trace: &Trace) -> Vec<(u128, u64)> {
        let latency = trace.latency().unwrap();
        latency.iter().map(|t| (t.sum.as_micros(), t.counts.iter().sum())).collect()
    }

    /// Goes until the send, which the kernel was `asked` to stamp.
    fn follow(trace: &mut Trace, asked: bool, stamp: Option<Instant>) {
        trace.read(at(0), at(10), at(12));
        trace.admitted(at(17), true, false);
        assert!(trace.is_held() && !trace.is_sending(), "what others sent before it");
        trace.forwards(at(117));
        trace.forwarded(true);
        assert!(trace.is_sending());
        trace.sends(at(157));
        trace.sent(at(170), asked, stamp);
    }

    #[test]
    fn stages_add_up() {
        let mut trace = Trace::new(1, true);
        assert!(trace.is_due());
        follow(&mut trace, true, Some(at(165)));
        let expected = [10, 2, 5, 100, 40, 8, 165].map(|micros| (micros, 1));
        assert_eq!(seen(&trace), expected);
        let classes = trace.latency().unwrap().map(|t| t.counts.iter().position(|n| *n == 1));
        assert_eq!(classes.map(Option::unwrap), [3, 1, 2, 6, 5, 3, 7], "bounds belong below");
    }

    #[test]
    fn one_in_so_many_is_followed_and_none_without() {
        let mut trace = Trace::new(100, true);
        let mut due = 0;
        for _ in 0..1000 {
            if trace.is_due() {
                due += 1;
                follow(&mut trace, true, Some(at(165)));
            }
        }
        assert_eq!(due, 10);
        let mut off = Trace::new(0, true);
        assert!((0..100_000).all(|_| !off.is_due()));
        assert_eq!(off.latency(), None);
    }

    #[test]
    fn what_comes_to_nothing_is_tried_again_soon() {
        let mut trace = Trace::new(1000, true);
        let tries = (0..1640).filter(|_| {
            let is_due = trace.is_due();
            if is_due {
                trace.read(at(0), at(1), at(2));
                // A report of a peer.
                trace.admitted(at(3), false, true);
            }
            is_due
        });
        assert_eq!(tries.count(), 41);
        // Gathered, and then nobody's.
        trace.admitted(at(3), true, false);
        trace.forwards(at(4));
        trace.forwarded(false);
        assert!(!trace.is_sending() && !trace.is_awaiting());
        // By TCP alone.
        follow(&mut trace, false, None);
        assert!(seen(&trace).iter().all(|(_, samples)| *samples == 0));
    }

    #[test]
    fn of_many_sends_each_has_its_turn() {
        let mut trace = Trace::new(1, true);
        let mut carried = [0; 4];
        for _ in 0..9 {
            trace.read(at(0), at(1), at(2));
            trace.admitted(at(3), true, false);
            trace.forwards(at(4));
            for carried in carried.iter_mut().take(3) {
                if trace.is_sending() {
                    *carried += 1;
                    assert!(trace.sends(at(5)).is_some());
                    trace.sent(at(6), true, Some(at(6)));
                }
            }
            trace.forwarded(true);
            if trace.is_sending() {
                carried[3] += 1;
                trace.sends(at(5));
                trace.sent(at(6), true, Some(at(6)));
            }
        }
        assert!(carried.iter().all(|n| *n >= 2) && carried.iter().sum::<i32>() == 9, "{carried:?}");
    }

    #[test]
    fn without_gathering_it_is_forwarded_when_it_is_admitted() {
        let mut trace = Trace::new(1, false);
        trace.read(at(0), at(1), at(2));
        trace.admitted(at(9), false, true);
        assert!(!trace.is_held() && trace.is_sending());
        trace.sends(at(10));
        trace.sent(at(12), true, Some(at(11)));
        assert_eq!(seen(&trace), [1, 1, 7, 0, 1, 1, 11].map(|micros| (micros, 1)));
    }

    #[test]
    fn a_late_stamp_counts_and_a_silent_driver_is_left_alone() {
        let mut trace = Trace::new(1, true);
        follow(&mut trace, true, None);
        assert!(trace.is_awaiting() && !trace.is_due(), "one at a time");
        assert!(!trace.is_look_due(at(171)));
        assert!(trace.is_look_due(at(270)) && !trace.is_look_due(at(300)));
        trace.stamped(None);
        assert!(trace.is_look_due(at(1000)));
        trace.stamped(Some(at(900)));
        assert_eq!(seen(&trace)[5..], [(743, 1), (900, 1)]);
        for _ in 0..UNANSWERED {
            trace.left = 1;
            assert!(trace.is_due());
            follow(&mut trace, true, None);
            let looks = (0..3000).filter(|n| trace.is_look_due(at(1000 * n)));
            assert!(looks.count() < 16, "looked for now and then");
            assert!(!trace.is_awaiting());
        }
        trace.read(at(0), at(10), at(12));
        trace.admitted(at(17), true, false);
        trace.forwards(at(117));
        trace.forwarded(true);
        assert!(trace.is_sending() && trace.sends(at(157)).is_none());
        trace.sent(at(170), false, None);
        let samples: Vec<_> = seen(&trace).iter().map(|(_, samples)| *samples).collect();
        let all = u64::from(UNANSWERED) + 2;
        assert_eq!(samples, [all, all, all, all, all, 1, 1], "the other stages go on");
    }
}
