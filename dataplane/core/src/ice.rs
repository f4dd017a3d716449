//! An ICE-lite agent (RFC 8445 section 2.5) for one peer: it answers checks, and never sends any.
//!
//! A check that authenticates makes its path valid and renews consent to send there (RFC 7675): the peer proves with each
//! that it still wants our packets. Nothing is answered to anyone else.
//!
//! Whoever sees a check can send it again from any address, and a lite agent cannot ask who is there. So a nomination alone
//! takes the peer's media to another IP address only while nothing authentic comes from the one that it has
//! (docs/decisions/0015-media-follows-what-is-authentic.md).

use crate::command::{IceCredentials, Kind};
use crate::drop::DropReason;
use crate::limits::{CONSENT, HEARD, HEARD_INTERVAL, PATHS_PER_PEER, UNHEARD};
use crate::port::{LocalPort, Path};
use crate::time::Instant;
use std::net::IpAddr;
use strait_crypt::StunKey;
use strait_wire::stun;

/// The largest answer: a binding success with an IPv6 address, integrity and fingerprint takes 76 bytes.
pub(crate) const ANSWER_BYTES: usize = 128;

/// Our side of one generation of credentials.
#[derive(Debug)]
struct Local {
    ufrag: Box<str>,
    key: StunKey,
}

/// A path on which a check passed.
#[derive(Clone, Copy, Debug)]
struct Valid {
    path: Path,
    checked_at: Instant,
    /// When something authentic was noted to come by it.
    heard_at: Option<Instant>,
    /// Which of all nominations was its last one, the peer's or a copy.
    nominated: Option<u64>,
}

/// The ICE state of a peer.
#[derive(Debug)]
pub(crate) struct Agent {
    local: Local,
    /// The credentials before a restart, until a check with the new ones passes.
    old: Option<Local>,
    valid: Vec<Valid>,
    /// How many there were.
    nominations: u64,
    /// Where media goes.
    chosen: Chosen,
    /// Since when.
    chosen_at: Instant,
    /// Where it would go, did nothing come from where it goes.
    wanted: Chosen,
    /// What comes before need not be noted.
    hear_at: Instant,
    /// When a check passed last. It outlives the path, which another peer may take with a forged source address.
    checked_at: Option<Instant>,
    /// The one path was told, not checked: it needs no consent.
    fixed: bool,
}

/// Where to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chosen {
    /// All but pictures.
    path: Option<Path>,
    /// Pictures: another one while the peer nominates one at the port for them.
    pictures: Option<Path>,
}

/// What a check that passed changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// A path that had to go for the new one.
    pub(crate) evicted: Option<Path>,
    /// A user fragment that is not ours any more, for a restart is complete.
    pub(crate) retired: Option<Box<str>>,
}

impl Agent {
    /// With our credentials.
    pub(crate) fn new(local: &IceCredentials) -> Self {
        Self {
            local: Local::new(local),
            old: None,
            valid: Vec::new(),
            nominations: 0,
            chosen: Chosen::default(),
            chosen_at: Instant::default(),
            wanted: Chosen::default(),
            hear_at: Instant::default(),
            checked_at: None,
            fixed: false,
        }
    }

    /// Of a peer without ICE, that is where it was said to be.
    pub(crate) fn fixed(now: Instant, path: Path) -> Self {
        let nobody = IceCredentials { ufrag: String::new(), pwd: String::new() };
        let chosen = Chosen { path: Some(path), pictures: Some(path) };
        let valid = vec![Valid::new(now, path)];
        Self { valid, chosen, wanted: chosen, fixed: true, ..Self::new(&nobody) }
    }

    /// Whether it has no ICE.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// New credentials (RFC 8445 section 9). Returns a user fragment that is not ours any more: that of an earlier
    /// restart which never completed.
    pub(crate) fn restart(&mut self, local: &IceCredentials) -> Option<Box<str>> {
        let current = std::mem::replace(&mut self.local, Local::new(local));
        // Consent goes on with the oldest credentials that a check passed with; those of an unfinished restart go.
        if self.old.is_some() {
            return Some(current.ufrag);
        }
        self.old = Some(current);
        None
    }

    /// Our user fragments.
    pub(crate) fn ufrags(&self) -> impl Iterator<Item = &str> {
        let old = self.old.as_ref().map(|old| &*old.ufrag);
        std::iter::once(&*self.local.ufrag).chain(old).filter(|_| !self.fixed)
    }

    /// Checks the integrity of a binding request for `ufrag`, and returns the key to answer with.
    pub(crate) fn authenticate(
        &self,
        request: &stun::Message<'_>,
        ufrag: &[u8],
    ) -> Result<&StunKey, DropReason> {
        let local = std::iter::once(&self.local)
            .chain(&self.old)
            .find(|local| local.ufrag.as_bytes() == ufrag)
            .ok_or(DropReason::StunUnknownUser)?;
        request
            .check_integrity(|parts| local.key.sign(parts))
            .map_err(|_| DropReason::StunBadIntegrity)?;
        Ok(&local.key)
    }

    /// Takes a check for `ufrag` that authenticated.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        path: Path,
        ufrag: &[u8],
        nominates: bool,
    ) -> Change {
        let mut change = Change::default();
        self.checked_at = Some(now);
        if self.local.ufrag.as_bytes() == ufrag {
            // The restart is complete: the path nominated before it stays until the peer nominates anew.
            change.retired = self.old.take().map(|old| old.ufrag);
        }
        if self.find(path).is_none() {
            if self.valid.len() >= PATHS_PER_PEER {
                change.evicted = self.evict();
            }
            self.valid.push(Valid::new(now, path));
        }
        if let Some(valid) = self.find(path) {
            valid.checked_at = now;
        }
        if nominates {
            self.nominate(path);
        }
        self.settle(now);
        self.hear_at = now;
        change
    }

    /// Whether it is time to [`Agent::hear`] again: often enough to know which paths are used, and whatever comes while it
    /// decides where media goes.
    #[inline]
    pub(crate) fn listens(&self, now: Instant) -> bool {
        self.hear_at <= now
    }

    /// Notes that something came by a path that nobody else could send, or send again. Whether media goes elsewhere now.
    pub(crate) fn hear(&mut self, now: Instant, path: Path) -> bool {
        let Some(valid) = self.find(path) else { return false };
        let earlier = valid.heard_at.replace(now);
        let before = self.chosen;
        if ![before.path, before.pictures].contains(&Some(path)) {
            self.doubt(now, path, earlier);
            self.settle(now);
        }
        self.hear_at = if self.is_settled() { now + HEARD_INTERVAL } else { now };
        self.chosen != before
    }

    /// Something came by another path than the chosen one. If nothing did by that since it was chosen, the peer is not there:
    /// what it nominated before holds, as if it had done so again. If nothing comes from there any more, and something came
    /// by this one `earlier` as well, it is here, and will nominate when it finds that out: Chromium takes 3 s for it.
    fn doubt(&mut self, now: Instant, path: Path, earlier: Option<Instant>) {
        let is_for_pictures = path.port == LocalPort::VIDEO;
        let chosen = if is_for_pictures { self.chosen.pictures } else { self.chosen.path };
        let chosen_at = self.chosen_at;
        let is_there = chosen_at + UNHEARD > now
            || chosen.and_then(|path| self.find(path)?.heard_at).is_some_and(|at| at >= chosen_at);
        let was_nominated = self.find(path).is_some_and(|valid| valid.nominated.is_some());
        let has_left = chosen.zip(earlier).is_some_and(|(chosen, earlier)| {
            let last = self.heard_from(chosen.remote.ip()).unwrap_or_default().max(chosen_at);
            last + UNHEARD <= now && last < earlier
        });
        if has_left || !is_there && was_nominated {
            self.nominate(path);
        }
    }

    fn nominate(&mut self, path: Path) {
        self.nominations += 1;
        let nominations = self.nominations;
        if let Some(valid) = self.find(path) {
            valid.nominated = Some(nominations);
        }
    }

    /// Lets time pass.
    pub(crate) fn look(&mut self, now: Instant) {
        if !self.is_settled() {
            self.settle(now);
        }
    }

    /// Decides where media goes.
    fn settle(&mut self, now: Instant) {
        let chosen = self.choose(|valid| {
            self.heard_from(valid.path.remote.ip()).is_some_and(|at| at + HEARD > now)
        });
        self.wanted = self.choose(|_| true);
        if self.chosen != chosen {
            (self.chosen, self.chosen_at) = (chosen, now);
        }
    }

    /// Whether nothing is nominated that only awaits a proof.
    fn is_settled(&self) -> bool {
        self.chosen == self.wanted
    }

    /// The path nominated last of those from whose addresses something came lately, or else of all; without any the one
    /// checked last.
    fn choose(&self, is_heard: impl Fn(&Valid) -> bool) -> Chosen {
        let rank = |valid: &Valid| (is_heard(valid), valid.nominated, valid.checked_at);
        let best = |is_one: &dyn Fn(LocalPort) -> bool| {
            let some = self.valid.iter().filter(|valid| is_one(valid.path.port));
            some.max_by_key(|valid| (valid.nominated.is_some(), rank(valid)))
        };
        let path = best(&|port| port != LocalPort::VIDEO).or_else(|| best(&|_| true));
        let pictures = best(&|port| port == LocalPort::VIDEO);
        let both = best(&|port| ![LocalPort::VIDEO, LocalPort::AUDIO].contains(&port));
        let pictures = pictures.filter(|pictures| {
            let nominated = both.filter(|both| both.nominated.is_some());
            pictures.nominated.is_some() && nominated.map(rank) <= Some(rank(pictures))
        });
        let path_of = |valid: Option<&Valid>| valid.map(|valid| valid.path);
        Chosen { path: path_of(path), pictures: path_of(pictures.or(path)) }
    }

    /// When something authentic came last from this address, by whichever path: who only receives pictures sends nothing by
    /// theirs.
    fn heard_from(&self, ip: IpAddr) -> Option<Instant> {
        let valid = self.valid.iter().filter(|valid| valid.path.remote.ip() == ip);
        valid.filter_map(|valid| valid.heard_at).max()
    }

    /// Whether media goes to this address.
    pub(crate) fn is_at(&self, ip: IpAddr) -> bool {
        self.chosen.path.is_some_and(|path| path.remote.ip() == ip)
    }

    fn find(&mut self, path: Path) -> Option<&mut Valid> {
        self.valid.iter_mut().find(|valid| valid.path == path)
    }

    /// Where to send what is of this kind.
    #[inline]
    pub(crate) fn path_of(&self, kind: Kind) -> Option<Path> {
        match kind {
            Kind::Audio => self.chosen.path,
            Kind::Video => self.chosen.pictures,
        }
    }

    /// Where to send, but for pictures that have a path of their own.
    pub(crate) fn path(&self) -> Option<Path> {
        self.chosen.path
    }

    /// All valid paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = Path> {
        self.valid.iter().map(|valid| valid.path)
    }

    /// Forgets a path: it expired, or another peer proved to be behind it.
    pub(crate) fn forget(&mut self, now: Instant, path: Path) {
        self.valid.retain(|valid| valid.path != path);
        self.settle(now);
    }

    /// Removes and returns a path whose consent has expired.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Path> {
        let mut checked = self.valid.iter().filter(|_| !self.fixed);
        let path = checked.find(|v| v.checked_at + CONSENT <= now)?.path;
        self.forget(now, path);
        Some(path)
    }

    /// When the next path expires without another check, or all of it without a path; or where media goes is to be
    /// decided anew, because nothing comes from where it goes.
    pub(crate) fn due(&self) -> Option<Instant> {
        let checked = self.valid.iter().filter(|_| !self.fixed).map(|valid| valid.checked_at);
        let expires = checked.min().or(self.checked_at).map(|at| at + CONSENT);
        let heard = self.valid.iter().filter(|_| !self.is_settled()).filter_map(|v| v.heard_at);
        expires.into_iter().chain(heard.max().map(|at| at + HEARD)).min()
    }

    /// Whether the peer does not want our packets any more.
    pub(crate) fn is_gone(&self, now: Instant) -> bool {
        !self.fixed && self.checked_at.is_none_or(|at| at + CONSENT <= now)
    }

    /// Removes a path, but none that media goes by: one by which nothing came, and of these one that was not nominated, as
    /// whoever saw a check can send it again from any address; or else the one that was silent for longest.
    fn evict(&mut self) -> Option<Path> {
        let chosen = [self.chosen.path, self.chosen.pictures];
        let others = self.valid.iter().filter(|valid| !chosen.contains(&Some(valid.path)));
        let rank = |valid: &&Valid| (valid.heard_at, valid.nominated.is_some(), valid.checked_at);
        let path = others.min_by_key(rank)?.path;
        self.valid.retain(|valid| valid.path != path);
        Some(path)
    }
}

impl Valid {
    fn new(now: Instant, path: Path) -> Self {
        Self { path, checked_at: now, heard_at: None, nominated: None }
    }
}

impl Local {
    fn new(credentials: &IceCredentials) -> Self {
        Self {
            ufrag: credentials.ufrag.as_str().into(),
            key: StunKey::new(credentials.pwd.as_bytes()),
        }
    }
}

/// Writes the answer to a check into `out` and returns its length, never more than `request_len`.
pub(crate) fn answer(
    request: &stun::Message<'_>,
    request_len: usize,
    key: &StunKey,
    path: Path,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let id = request.transaction_id();
    let builder = if request.ice_controlled().is_some() {
        //= rfc8445#7.3.1.1: a lite agent is always controlled; a peer that says the same must switch.
        stun::Builder::binding_error(out, id, 487, "Role Conflict")
    } else {
        stun::Builder::binding_success(out, id, path.remote)
    };
    let len = builder
        .integrity(|parts| key.sign(parts))
        .fingerprint()
        .finish()
        .map_err(|_| DropReason::StunAnswerTooLarge)?;
    if len > request_len { Err(DropReason::StunAnswerTooLarge) } else { Ok(len) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    fn credentials(ufrag: &str) -> IceCredentials {
        IceCredentials { ufrag: ufrag.into(), pwd: "0123456789012345678901".into() }
    }

    fn path(port: u16) -> Path {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Path::udp(ip, SocketAddr::new(ip, port))
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn nomination_decides_then_the_latest_check() {
        let mut agent = Agent::new(&credentials("a"));
        assert_eq!(agent.path(), None);
        agent.accept(at(1), path(1), b"a", false);
        agent.accept(at(2), path(2), b"a", false);
        assert_eq!(agent.path(), Some(path(2)));
        agent.accept(at(3), path(1), b"a", true);
        agent.accept(at(4), path(2), b"a", false);
        assert_eq!(agent.path(), Some(path(1)));
        agent.forget(at(5), path(1));
        assert_eq!(agent.path(), Some(path(2)));
    }

    #[test]
    fn pictures_have_a_path_of_their_own_as_long_as_that_is_nominated() {
        let at_port = |port| Path { port, ..path(1) };
        let ways = |agent: &Agent| {
            [Kind::Audio, Kind::Video].map(|kind| agent.path_of(kind).map(|path| path.port))
        };
        let (any, sound, pictures) = (LocalPort::ANY, LocalPort::AUDIO, LocalPort::VIDEO);
        let mut agent = Agent::new(&credentials("a"));
        agent.accept(at(0), at_port(any), b"a", true);
        agent.accept(at(1), at_port(sound), b"a", false);
        agent.accept(at(1), at_port(pictures), b"a", false);
        assert_eq!(ways(&agent), [Some(any); 2], "not nominated");
        agent.accept(at(2), at_port(sound), b"a", true);
        assert_eq!(ways(&agent), [Some(sound); 2], "not both");
        agent.accept(at(2), at_port(pictures), b"a", true);
        assert_eq!(ways(&agent), [Some(sound), Some(pictures)]);
        // Another address of the peer, such as after a NAT forgot one.
        let moved = Path { port: pictures, ..path(2) };
        agent.accept(at(3), moved, b"a", true);
        assert_eq!((agent.path_of(Kind::Video), agent.path()), (Some(moved), Some(at_port(sound))));
        agent.forget(at(3), moved);
        assert_eq!(ways(&agent), [Some(sound), Some(pictures)], "by what is left");
        agent.accept(at(4), at_port(pictures), b"a", true);
        agent.accept(at(5), at_port(LocalPort::further(0)), b"a", true);
        assert_eq!(ways(&agent), [Some(LocalPort::further(0)); 2], "one for both again");
    }

    #[test]
    fn paths_are_bounded_and_the_nominated_one_stays() {
        let mut agent = Agent::new(&credentials("a"));
        agent.accept(at(0), path(0), b"a", true);
        for n in 1..PATHS_PER_PEER as u16 {
            assert_eq!(agent.accept(at(n.into()), path(n), b"a", false), Change::default());
        }
        let change = agent.accept(at(99), path(99), b"a", false);
        assert_eq!(change.evicted, Some(path(1)), "the oldest that is not nominated");
        assert_eq!(agent.paths().count(), PATHS_PER_PEER);
    }

    #[test]
    fn paths_that_are_used_stay() {
        let mut agent = Agent::new(&credentials("a"));
        agent.accept(at(0), path(0), b"a", true);
        agent.accept(at(0), path(1), b"a", true);
        agent.hear(at(1), path(1));
        agent.hear(at(2), path(0));
        for n in 2..100 {
            // Each takes the nomination with it.
            agent.accept(at(2), path(n), b"a", true);
        }
        let kept: Vec<_> = agent.paths().take(2).collect();
        assert_eq!((agent.paths().count(), kept), (PATHS_PER_PEER, vec![path(0), path(1)]));
        agent.accept(at(2), path(1), b"a", true);
        assert_eq!(agent.path(), Some(path(1)), "the peer's next check");
    }

    #[test]
    fn a_restart_completes_with_the_first_new_check() {
        let mut agent = Agent::new(&credentials("a"));
        agent.accept(at(0), path(0), b"a", true);
        assert_eq!(agent.restart(&credentials("b")), None);
        assert_eq!(agent.ufrags().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(agent.accept(at(1), path(0), b"a", true).retired, None, "old ones hold");
        assert_eq!(agent.restart(&credentials("c")).as_deref(), Some("b"), "never used");
        assert_eq!(agent.accept(at(2), path(1), b"c", false).retired.as_deref(), Some("a"));
        assert_eq!(agent.path(), Some(path(0)), "media flows on until the peer nominates");
        agent.accept(at(3), path(1), b"c", true);
        assert_eq!(agent.path(), Some(path(1)));
    }

    #[test]
    fn consent_expires_path_by_path() {
        let mut agent = Agent::new(&credentials("a"));
        agent.accept(at(0), path(0), b"a", true);
        agent.accept(at(10), path(1), b"a", false);
        assert_eq!(agent.due(), Some(at(30)));
        assert_eq!(agent.expire(at(29)), None);
        assert_eq!(agent.expire(at(30)), Some(path(0)));
        assert_eq!((agent.expire(at(30)), agent.path()), (None, Some(path(1))));
    }
}
