//! Connectivity checks (RFC 8445) towards one other side: the node over UDP, the node over TCP, or the other of two.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use strait_crypt::StunKey;
use strait_link::v1;
use strait_wire::stun::{self, Class, TransactionId};

/// Places that are asked at most.
const CANDIDATES: usize = 16;
/// Checks whose answers are waited for; older ones are forgotten.
const PENDING: usize = 64;
/// Between two rounds of checks while it is urgent.
const FAST: Duration = Duration::from_millis(100);
/// It is urgent for so long.
const URGENT: Duration = Duration::from_secs(3);
/// Between two rounds of checks in the background, at most. Back on UDP within 10 s of its release needs two of these.
const SLOW: Duration = Duration::from_secs(2);
/// Between two checks of a way that is in use.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// Each further place is asked so much later than the one before it.
const STEP: Duration = Duration::from_millis(250);
/// Better places than the one in use are asked so often.
const LOOK: Duration = Duration::from_secs(5);
/// Where one in use was silent for so long, all others are asked.
const DOUBT: Duration = Duration::from_secs(1);
/// The largest check: two user fragments of 256 bytes and the rest.
const CHECK_BYTES: usize = 700;
/// A host candidate's, of the first component (RFC 8445 section 5.1.2).
const PRIORITY: u32 = 126 << 24 | 65_535 << 8 | 255;

/// Bytes that nobody can guess. Tests give a seeded one.
pub trait Random {
    /// Fills the buffer.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Where media may go: sound and pictures apart, or both to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Sound, and all RTCP.
    pub audio: SocketAddr,
    /// Pictures.
    pub video: SocketAddr,
}

impl Candidate {
    /// One place for both.
    #[must_use]
    pub fn both(address: SocketAddr) -> Self {
        Self { audio: address, video: address }
    }
}

/// A place to ask, and at which of its two ends an answer came since it is asked.
struct Place {
    at: Candidate,
    answered: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    /// Asked since.
    Probing(Duration),
    /// In use.
    Keeping,
}

/// What a check or its absence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new.
    Nothing,
    /// The way works.
    Answered,
    /// Answers stayed away.
    Silent,
}

/// The checks of one way.
pub struct Checks {
    username: (String, String),
    remote: StunKey,
    local: StunKey,
    controlling: bool,
    tie_breaker: u64,
    /// Heartbeats without an answer after which the way is dead.
    patience: u32,
    /// The first is the best.
    candidates: Vec<Place>,
    /// When the others were asked last beside the one in use, where their rank matters.
    looked_at: Option<Duration>,
    chosen: Option<Candidate>,
    pending: VecDeque<(TransactionId, SocketAddr, Duration)>,
    mode: Mode,
    nominate: bool,
    next: Option<Duration>,
    wait: Duration,
    /// Since when no check was answered at each end of the place in use.
    silent_since: [Duration; 2],
    /// The other side answered there since it is in use, so it knows what was nominated.
    confirmed: [bool; 2],
    round_trip: Option<Duration>,
}

impl Checks {
    /// A way that is not asked yet. `patience`: how many heartbeats may stay unanswered.
    #[must_use]
    pub fn new(
        remote: &v1::IceCredentials,
        local: &v1::IceCredentials,
        controlling: bool,
        patience: u32,
        random: &mut dyn Random,
    ) -> Self {
        let mut tie_breaker = [0; 8];
        random.fill(&mut tie_breaker);
        Self {
            username: (remote.ufrag.clone(), local.ufrag.clone()),
            remote: StunKey::new(remote.pwd.as_bytes()),
            local: StunKey::new(local.pwd.as_bytes()),
            controlling,
            tie_breaker: u64::from_be_bytes(tie_breaker),
            patience,
            candidates: Vec::new(),
            looked_at: None,
            chosen: None,
            pending: VecDeque::new(),
            mode: Mode::Off,
            nominate: false,
            next: None,
            wait: FAST,
            silent_since: [Duration::ZERO; 2],
            confirmed: [false; 2],
            round_trip: None,
        }
    }

    /// Earlier places are better ones: they are asked in the background while a later one is in use, which gives way to them;
    /// and where the one in use falls silent, any other that answers takes its place.
    #[must_use]
    pub fn ranked(self) -> Self {
        Self { looked_at: Some(Duration::ZERO), ..self }
    }

    /// Adds a place to ask, behind the others.
    pub fn add(&mut self, at: Candidate) {
        if !self.knows(at) && self.candidates.len() < CANDIDATES {
            self.candidates.push(Place { at, answered: [false; 2] });
        }
    }

    fn knows(&self, at: Candidate) -> bool {
        self.candidates.iter().any(|known| known.at == at)
    }

    /// Whether there is a place to ask.
    #[must_use]
    pub fn has_places(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Where media goes, once a place answered.
    #[must_use]
    pub fn chosen(&self) -> Option<Candidate> {
        self.chosen
    }

    /// Whether the other side is at that place, as far as is known.
    #[must_use]
    pub fn is_of(&self, place: SocketAddr) -> bool {
        let is_it = |known: &Candidate| known.audio == place || known.video == place;
        self.candidates.iter().any(|known| is_it(&known.at))
    }

    /// The last round trip.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Since when no check was answered, of a way in use.
    #[must_use]
    pub fn silent_since(&self) -> Option<Duration> {
        let [audio, video] = self.silent_since;
        (self.mode == Mode::Keeping).then_some(audio.max(video))
    }

    /// Asks all places, from the first on; `urgent` or in the background.
    pub fn probe(&mut self, now: Duration, urgent: bool) {
        self.mode = Mode::Probing(now);
        self.nominate = false;
        self.wait = if urgent { FAST } else { 2 * HEARTBEAT };
        self.next = Some(if urgent { now } else { now + self.wait });
        self.forget_answers();
    }

    fn forget_answers(&mut self) {
        self.candidates.iter_mut().for_each(|place| place.answered = [false; 2]);
    }

    /// Keeps the chosen place alive; `nominate`: tells the other side to send there, at once.
    pub fn keep(&mut self, now: Duration, nominate: bool) {
        self.mode = Mode::Keeping;
        self.nominate = nominate;
        self.next = Some(now);
        (self.silent_since, self.confirmed) = ([now; 2], [false; 2]);
        self.looked_at = self.looked_at.map(|_| now);
        // An answer to an earlier check does not say that this one came.
        self.pending.clear();
    }

    /// What is asked is asked anew, at once: the other side is reached by another connection.
    pub fn ask_again(&mut self, now: Duration) {
        match self.mode {
            Mode::Off => {}
            Mode::Probing(_) => self.probe(now, true),
            Mode::Keeping => self.keep(now, self.nominate),
        }
    }

    /// Asks no more.
    pub fn stop(&mut self) {
        self.mode = Mode::Off;
        self.next = None;
        self.pending.clear();
    }

    /// When [`Checks::poll`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.next
    }

    /// The checks that are due now.
    pub fn poll(
        &mut self,
        now: Duration,
        random: &mut dyn Random,
        out: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) -> Heard {
        if self.next.is_none_or(|next| next > now) {
            return Heard::Nothing;
        }
        match self.mode {
            Mode::Off => self.next = None,
            Mode::Probing(since) => {
                let steps = (now - since).as_millis() / STEP.as_millis();
                let asked = usize::try_from(steps).unwrap_or(CANDIDATES).saturating_add(1);
                let places: Vec<_> =
                    self.candidates.iter().take(asked).map(|place| place.at).collect();
                for place in places {
                    self.check_both(now, place, false, random, out);
                }
                if now - since >= URGENT {
                    self.wait = (self.wait * 3 / 2).min(SLOW);
                }
                self.next = Some(now + self.wait);
            }
            Mode::Keeping => {
                let since = self.broken_since();
                if now >= since + HEARTBEAT * self.patience {
                    self.stop();
                    return Heard::Silent;
                }
                if let Some(place) = self.chosen {
                    self.check_both(now, place, self.nominate, random, out);
                }
                self.look_around(now, random, out);
                // Where the last one was not answered, or none was, the next comes soon: one lost packet is no sign.
                let answered = self.confirmed == [true; 2] && now < since + HEARTBEAT;
                self.next = Some(now + if answered { HEARTBEAT } else { FAST });
            }
        }
        Heard::Nothing
    }

    /// Takes a STUN message; an answer to a check of the other side is written to `out`. None for what is not of this way.
    pub fn on_message(
        &mut self,
        now: Duration,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) -> Option<Heard> {
        let message = stun::Message::parse(bytes).ok()?;
        match message.class() {
            Class::Success => self.on_answer(now, &message),
            Class::Request => self.on_request(now, from, &message, out),
            _ => None,
        }
    }

    fn on_answer(&mut self, now: Duration, message: &stun::Message<'_>) -> Option<Heard> {
        let id = message.transaction_id();
        let at = self.pending.iter().position(|(pending, ..)| *pending == id)?;
        message.check_integrity(|parts| self.remote.sign(parts)).ok()?;
        let (_, to, sent) = self.pending.remove(at)?;
        self.round_trip = Some(now.saturating_sub(sent));
        let ends = |place: Candidate| [place.audio == to, place.video == to];
        for place in &mut self.candidates {
            let [audio, video] = ends(place.at);
            place.answered = [place.answered[0] | audio, place.answered[1] | video];
        }
        match self.mode {
            Mode::Off => {}
            Mode::Probing(_) => {
                if let Some(place) = self.first_that_answered() {
                    self.chosen = Some(place);
                    return Some(Heard::Answered);
                }
            }
            Mode::Keeping => {
                let mine = self.chosen.map_or([false; 2], ends);
                let known = self.silent_since.iter_mut().zip(&mut self.confirmed);
                for ((since, confirmed), _) in known.zip(mine).filter(|(_, mine)| *mine) {
                    (*since, *confirmed) = (now, true);
                }
                self.change(now);
            }
        }
        Some(Heard::Nothing)
    }

    fn first_that_answered(&self) -> Option<Candidate> {
        self.candidates.iter().find(|place| place.answered == [true; 2]).map(|place| place.at)
    }

    /// Since when the one in use is silent at one of its ends: both are needed.
    fn broken_since(&self) -> Duration {
        let [audio, video] = self.silent_since;
        audio.min(video)
    }

    fn is_in_doubt(&self, now: Duration) -> bool {
        now >= self.broken_since() + DOUBT
    }

    /// Asks for better places than the one in use now and then, for all others where that one is silent.
    fn look_around(
        &mut self,
        now: Duration,
        random: &mut dyn Random,
        out: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) {
        let in_doubt = self.is_in_doubt(now);
        let pause = if in_doubt { STEP } else { LOOK };
        if self.looked_at.is_none_or(|at| now < at + pause) {
            return;
        }
        self.looked_at = Some(now);
        self.forget_answers();
        let chosen = self.chosen;
        let places = self.candidates.iter().map(|place| place.at);
        let is_other = |place: &Candidate| Some(*place) != chosen;
        let others: Vec<_> = match in_doubt {
            true => places.filter(is_other).collect(),
            false => places.take_while(is_other).collect(),
        };
        for place in others {
            self.check_both(now, place, false, random, out);
        }
    }

    /// Goes on at a better place that answered, or at any where the one in use is silent.
    fn change(&mut self, now: Duration) {
        let mut places = self.candidates.iter().map(|place| Some(place.at));
        let first = self.first_that_answered();
        // Whichever of the two comes first.
        let better = places.find(|place| [first, self.chosen].contains(place)).flatten();
        if self.looked_at.is_some()
            && first.is_some()
            && first != self.chosen
            && (better == first || self.is_in_doubt(now))
        {
            self.chosen = first;
            self.keep(now, self.nominate);
        }
    }

    /// Only who knows our password is answered, and only as long as the way is wanted.
    fn on_request(
        &mut self,
        now: Duration,
        from: SocketAddr,
        message: &stun::Message<'_>,
        out: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) -> Option<Heard> {
        let (receiver, sender) = message.username_parts()?;
        if receiver != self.username.1.as_bytes() || sender != self.username.0.as_bytes() {
            return None;
        }
        message.check_integrity(|parts| self.local.sign(parts)).ok()?;
        if self.mode == Mode::Off {
            return Some(Heard::Nothing);
        }
        let mut answer = vec![0; CHECK_BYTES];
        let len = stun::Builder::binding_success(&mut answer, message.transaction_id(), from)
            .integrity(|parts| self.local.sign(parts))
            .fingerprint()
            .finish()
            .ok()?;
        answer.truncate(len);
        out.push((from, answer));
        // It got through to us from there: so may we, as the way out is open now.
        let at = Candidate::both(from);
        if matches!(self.mode, Mode::Probing(_)) && !self.knows(at) {
            self.candidates.insert(0, Place { at, answered: [false; 2] });
            self.candidates.truncate(CANDIDATES);
            self.next = Some(now);
        }
        Some(Heard::Nothing)
    }

    fn check_both(
        &mut self,
        now: Duration,
        place: Candidate,
        nominate: bool,
        random: &mut dyn Random,
        out: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) {
        out.extend(self.check(now, place.audio, nominate, random));
        if place.video != place.audio {
            out.extend(self.check(now, place.video, nominate, random));
        }
    }

    fn check(
        &mut self,
        now: Duration,
        to: SocketAddr,
        nominate: bool,
        random: &mut dyn Random,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let mut id = TransactionId::default();
        random.fill(&mut id);
        let mut bytes = vec![0; CHECK_BYTES];
        let (remote, local) = (self.username.0.as_bytes(), self.username.1.as_bytes());
        let mut check = stun::Builder::binding_request(&mut bytes, id)
            .username(remote, local)
            .priority(PRIORITY);
        check = if self.controlling {
            check.ice_controlling(self.tie_breaker)
        } else {
            check.ice_controlled(self.tie_breaker)
        };
        if nominate && self.controlling {
            check = check.use_candidate();
        }
        let len = check.integrity(|parts| self.remote.sign(parts)).fingerprint().finish().ok()?;
        bytes.truncate(len);
        if self.pending.len() >= PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((id, to, now));
        Some((to, bytes))
    }
}
