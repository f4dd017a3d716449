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
    candidates: Vec<(Candidate, [bool; 2])>,
    chosen: Option<Candidate>,
    pending: VecDeque<(TransactionId, SocketAddr, Duration)>,
    mode: Mode,
    nominate: bool,
    next: Option<Duration>,
    wait: Duration,
    /// Since when no check was answered, of a way in use.
    silent_since: Duration,
    /// The other side answered since the way is in use, so it knows what was nominated.
    confirmed: bool,
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
            chosen: None,
            pending: VecDeque::new(),
            mode: Mode::Off,
            nominate: false,
            next: None,
            wait: FAST,
            silent_since: Duration::ZERO,
            confirmed: false,
            round_trip: None,
        }
    }

    /// Adds a place to ask, behind the others.
    pub fn add(&mut self, candidate: Candidate) {
        let known = self.candidates.iter().any(|(known, _)| *known == candidate);
        if !known && self.candidates.len() < CANDIDATES {
            self.candidates.push((candidate, [false; 2]));
        }
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
        self.candidates.iter().any(|(known, _)| is_it(known))
    }

    /// The last round trip.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Since when no check was answered, of a way in use.
    #[must_use]
    pub fn silent_since(&self) -> Option<Duration> {
        (self.mode == Mode::Keeping).then_some(self.silent_since)
    }

    /// Asks all places, from the first on; `urgent` or in the background.
    pub fn probe(&mut self, now: Duration, urgent: bool) {
        self.mode = Mode::Probing(now);
        self.nominate = false;
        self.wait = if urgent { FAST } else { 2 * HEARTBEAT };
        self.next = Some(if urgent { now } else { now + self.wait });
        self.candidates.iter_mut().for_each(|(_, answered)| *answered = [false; 2]);
    }

    /// Keeps the chosen place alive; `nominate`: tells the other side to send there, at once.
    pub fn keep(&mut self, now: Duration, nominate: bool) {
        self.mode = Mode::Keeping;
        self.nominate = nominate;
        self.next = Some(now);
        (self.silent_since, self.confirmed) = (now, false);
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
                    self.candidates.iter().take(asked).map(|(place, _)| *place).collect();
                for place in places {
                    self.check_both(now, place, random, out);
                }
                if now - since >= URGENT {
                    self.wait = (self.wait * 3 / 2).min(SLOW);
                }
                self.next = Some(now + self.wait);
            }
            Mode::Keeping => {
                if now >= self.silent_since + HEARTBEAT * self.patience {
                    self.stop();
                    return Heard::Silent;
                }
                if let Some(place) = self.chosen {
                    self.check_both(now, place, random, out);
                }
                // Where the last one was not answered, or none was, the next comes soon: one lost packet is no sign.
                let answered = self.confirmed && now < self.silent_since + HEARTBEAT;
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
        (self.silent_since, self.confirmed) = (now, true);
        let Mode::Probing(_) = self.mode else { return Some(Heard::Nothing) };
        for (place, [audio, video]) in &mut self.candidates {
            *audio |= place.audio == to;
            *video |= place.video == to;
            if *audio && *video {
                self.chosen = Some(*place);
                return Some(Heard::Answered);
            }
        }
        Some(Heard::Nothing)
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
        let place = Candidate::both(from);
        if matches!(self.mode, Mode::Probing(_))
            && !self.candidates.iter().any(|(known, _)| *known == place)
        {
            self.candidates.insert(0, (place, [false; 2]));
            self.candidates.truncate(CANDIDATES);
            self.next = Some(now);
        }
        Some(Heard::Nothing)
    }

    fn check_both(
        &mut self,
        now: Duration,
        place: Candidate,
        random: &mut dyn Random,
        out: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) {
        out.extend(self.check(now, place.audio, random));
        if place.video != place.audio {
            out.extend(self.check(now, place.video, random));
        }
    }

    fn check(
        &mut self,
        now: Duration,
        to: SocketAddr,
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
        if self.nominate && self.controlling {
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
