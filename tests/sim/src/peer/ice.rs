//! The controlling side of ICE towards a lite agent (RFC 8445), and consent (RFC 7675).

use crate::protocol::stun;
use crate::rng::Rng;
use std::collections::VecDeque;
use std::net::SocketAddr;
use strait_core::command::IceCredentials;
use strait_core::time::{Duration, Instant};

/// Checks are this far apart until one passes.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// And never further apart than this while none passes.
const CHECK_INTERVAL_MAX: Duration = Duration::from_millis(400);
/// A check without an answer for so long puts the path in doubt.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);
/// Checks whose answers are waited for.
const PENDING: usize = 64;

/// One peer's agent.
#[derive(Debug)]
pub struct Agent {
    remote: IceCredentials,
    username: String,
    tie_breaker: u64,
    /// How often consent is asked for.
    consent: Duration,
    interval: Duration,
    next_at: Option<Instant>,
    pending: VecDeque<Pending>,
    /// The first check since the last success, if any is unanswered.
    unanswered_since: Option<Instant>,
    connected: bool,
    passed: u64,
    rng: Rng,
}

#[derive(Debug)]
struct Pending {
    transaction: [u8; 12],
    from: SocketAddr,
    /// With which password the answer is made.
    password: String,
}

impl Agent {
    /// An agent that checks from [`Agent::hurry`] on.
    #[must_use]
    pub fn new(
        local: IceCredentials,
        remote: IceCredentials,
        consent: Duration,
        mut rng: Rng,
    ) -> Self {
        let tie_breaker = rng.bits();
        Self {
            username: format!("{}:{}", remote.ufrag, local.ufrag),
            remote,
            tie_breaker,
            consent,
            interval: CHECK_INTERVAL,
            next_at: None,
            pending: VecDeque::new(),
            unanswered_since: None,
            connected: false,
            passed: 0,
            rng,
        }
    }

    /// New credentials (RFC 8445 section 9); media goes on where it goes.
    pub fn restart(&mut self, now: Instant, local: IceCredentials, remote: IceCredentials) {
        self.username = format!("{}:{}", remote.ufrag, local.ufrag);
        self.remote = remote;
        if self.next_at.is_some() {
            self.hurry(now);
        }
    }

    /// The path is in doubt: checks go out at once and often.
    pub fn hurry(&mut self, now: Instant) {
        self.interval = CHECK_INTERVAL;
        self.next_at = Some(now);
    }

    /// No checks any more.
    pub fn stop(&mut self) {
        self.next_at = None;
    }

    /// The user name that its checks bear.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Whether a check has passed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// How many checks have passed.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// When [`Agent::check`] is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// The check that is due, sent from the address `from`.
    pub fn check(&mut self, now: Instant, from: SocketAddr) -> Option<Vec<u8>> {
        self.next_at.filter(|at| *at <= now)?;
        let since = *self.unanswered_since.get_or_insert(now);
        if self.interval > CHECK_INTERVAL_MAX && now.since(since) > ANSWER_WITHIN {
            self.interval = CHECK_INTERVAL;
        }
        self.next_at = Some(now + self.interval);
        if self.interval <= CHECK_INTERVAL_MAX {
            self.interval = (self.interval * 3 / 2).min(CHECK_INTERVAL_MAX);
        } else if now.since(since) == Duration::ZERO {
            // Look again soon whether the answer came, and ask again if not.
            self.next_at = Some(now + self.interval.min(ANSWER_WITHIN * 2));
        }
        let mut transaction = [0; 12];
        self.rng.fill(&mut transaction);
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        let password = self.remote.pwd.clone();
        self.pending.push_back(Pending { transaction, from, password });
        let (username, password) = (self.username.as_str(), self.remote.pwd.as_str());
        let role = Ok(self.tie_breaker);
        Some(stun::Check { transaction, username, password, role, nominate: true }.write())
    }

    /// An answer came in. `Ok(true)` says that the agent is connected by it.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn answer(&mut self, now: Instant, datagram: &[u8]) -> Result<bool, String> {
        let transaction = datagram.get(8..20).unwrap_or_default();
        let found = self.pending.iter().position(|p| p.transaction == transaction);
        // A network doubles datagrams; the second answer is no news.
        let Some(pending) = found.and_then(|at| self.pending.remove(at)) else { return Ok(false) };
        let answer = stun::read_answer(datagram, &pending.password)?;
        let seen = answer.outcome.map_err(|code| format!("check refused with {code}"))?;
        if seen != pending.from {
            return Err(format!("we are seen as {seen} and are {}", pending.from));
        }
        self.passed += 1;
        self.unanswered_since = None;
        self.interval = self.consent;
        // RFC 7675 section 5.1: the interval varies by a fifth, so that checks do not march in step.
        let spread = self.consent.mul_f64(0.8) + self.rng.up_to(self.consent.mul_f64(0.4));
        self.next_at = self.next_at.map(|_| now + spread);
        Ok(!std::mem::replace(&mut self.connected, true))
    }
}
