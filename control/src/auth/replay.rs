//! Salts that were used: a signed credential opens one session, and no second one for whom else
//! has read it.
//!
//! It is taken again from who names the session that it opened: clients come back with the
//! credential that they have, and the identifier of a session (130 random bits) is known to the
//! one who was answered with it. Two identifiers are kept for each salt, the one that the client
//! showed last and the one that it was answered with: an answer that never arrived shuts nobody
//! out, and an older identifier opens nothing. Where the session that was named does not go on and
//! the salt opens another in its place, the former ends: a salt never has two.
//!
//! Kept in memory until the credential expires. When there is no room, new salts are refused:
//! forgetting others early would let someone use those again unseen. No application fills more
//! than its share, so that none shuts out the others.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::refusal::{Reason, Refusal};
use super::signed::{Scheme, Signed};
use crate::limits;

/// Expired salts that are forgotten when another comes: more than come, and soon done.
const FORGOTTEN_AT_ONCE: usize = 64;

type Digest = [u8; 32];

/// The salts that were used.
pub struct Salts {
    table: Arc<Mutex<Table>>,
}

struct Table {
    entries: HashMap<Digest, Entry>,
    /// Their keys by when they may be forgotten.
    by_end: BTreeSet<(u64, Digest)>,
    /// How many each application has.
    of_application: HashMap<Arc<str>, usize>,
    max: usize,
    per_application_max: usize,
}

struct Entry {
    /// All that was signed, so that nobody else comes in with the same salt.
    credential: Digest,
    application: Arc<str>,
    ends: u64,
    /// Shown last, answered last.
    sessions: [Option<Digest>; 2],
    /// What ends the session that was answered last.
    end: Option<Box<dyn FnOnce() + Send>>,
}

/// What a credential that was taken may open. Dropped without a session, its salt is unused again.
#[derive(Default)]
pub struct Pass {
    salt: Option<Used>,
}

struct Used {
    table: Arc<Mutex<Table>>,
    key: Digest,
    /// The identifier that the client showed.
    shown: Option<Digest>,
    is_first: bool,
}

impl Pass {
    /// The credential opened a session, whose identifier the client is answered with, or went on
    /// with it. `end` ends the session when the credential opens another; the one that it opened
    /// before ends now.
    pub fn opened(mut self, session: &str, end: impl FnOnce() + Send + 'static) {
        let Some(used) = self.salt.take() else { return };
        let session = Some(sha256(session.as_bytes()));
        let mut former = None;
        if let Some(entry) = lock(&used.table).entries.get_mut(&used.key) {
            let is_another = entry.sessions[1] != session;
            entry.sessions = [used.shown, session];
            former = entry.end.replace(Box::new(end)).filter(|_| is_another);
        }
        if let Some(end_former) = former {
            end_former();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(used) = self.salt.take().filter(|used| used.is_first) {
            lock(&used.table).forget(&used.key);
        }
    }
}

impl Salts {
    /// None were used. The limits are of all applications together and of each.
    pub fn new(max: usize, per_application_max: usize) -> Self {
        let table = Table {
            entries: HashMap::new(),
            by_end: BTreeSet::new(),
            of_application: HashMap::new(),
            max,
            per_application_max,
        };
        Self { table: Arc::new(Mutex::new(table)) }
    }

    /// Uses the salt of a credential whose signature is good; `session` is the identifier of a
    /// session that the caller says it holds. `ends`, after which nothing takes the credential any
    /// more, and `now` are in seconds since 1970.
    ///
    /// # Errors
    /// [`Reason::Replayed`], [`Reason::SaltsFull`].
    pub fn take(
        &self,
        signed: &Signed,
        session: Option<&str>,
        ends: u64,
        now: u64,
    ) -> Result<Pass, Refusal> {
        let (of, once) = match signed.scheme {
            Scheme::HmacSha256 => (signed.application.as_str(), &signed.salt),
            // Its fields can be cut otherwise, and what was the salt would be another.
            Scheme::Concatenated => ("", &signed.signature),
        };
        let key = sha256(&[of.as_bytes(), &[0], once.as_bytes()].concat());
        let credential = sha256(&signed.message());
        let shown = session.map(|session| sha256(session.as_bytes()));
        let used = |is_first| Used { table: Arc::clone(&self.table), key, shown, is_first };
        let mut table = lock(&self.table);
        table.forget_expired(now);
        if table.entries.get(&key).is_some_and(|entry| entry.ends < now) {
            table.forget(&key);
        }
        if let Some(entry) = table.entries.get(&key) {
            let is_held = shown.is_some_and(|shown| {
                let is_shown = |held: &Digest| verify_slices_are_equal(held, &shown).is_ok();
                entry.sessions.iter().flatten().any(is_shown)
            });
            if !is_held || entry.credential != credential {
                return Err(Refusal::new(
                    Reason::Replayed,
                    "credential replayed: its salt was used before; to come back, name the \
                     session that it opened, for another session ask the application for a new \
                     credential",
                ));
            }
            return Ok(Pass { salt: Some(used(false)) });
        }
        table.insert(key, credential, &signed.application, ends)?;
        Ok(Pass { salt: Some(used(true)) })
    }

    /// Salts that are remembered.
    pub fn count(&self) -> usize {
        lock(&self.table).entries.len()
    }
}

impl Table {
    fn insert(
        &mut self,
        key: Digest,
        credential: Digest,
        application: &str,
        ends: u64,
    ) -> Result<(), Refusal> {
        let known = self.of_application.get_key_value(application);
        let (application, count) = match known {
            Some((application, count)) => (Arc::clone(application), *count),
            None => (application.into(), 0),
        };
        if self.entries.len() >= self.max || count >= self.per_application_max {
            return Err(Refusal::new(
                Reason::SaltsFull,
                "too many signed credentials are remembered until they expire; let them expire \
                 sooner, minutes after they were made",
            ));
        }
        self.of_application.insert(Arc::clone(&application), count + 1);
        self.by_end.insert((ends, key));
        let entry = Entry { credential, application, ends, sessions: [None; 2], end: None };
        self.entries.insert(key, entry);
        Ok(())
    }

    fn forget(&mut self, key: &Digest) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.by_end.remove(&(entry.ends, *key));
        if let Some(count) = self.of_application.get_mut(&entry.application) {
            *count -= 1;
            if *count == 0 {
                self.of_application.remove(&entry.application);
            }
        }
    }

    fn forget_expired(&mut self, now: u64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.by_end.first() {
                Some((ends, key)) if *ends < now => {
                    let key = *key;
                    self.forget(&key);
                }
                _ => break,
            }
        }
    }
}

impl Default for Salts {
    fn default() -> Self {
        Self::new(limits::SALTS, limits::SALTS_PER_APPLICATION)
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(application: &str, user: &str, salt: &str) -> Signed {
        Signed {
            scheme: Scheme::HmacSha256,
            application: application.into(),
            scope: "lobby".into(),
            user: user.into(),
            salt: salt.into(),
            expires: 100,
            signature: String::new(),
        }
    }

    fn reason(outcome: Result<Pass, Refusal>) -> Option<Reason> {
        outcome.err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_salt_opens_one_session() {
        let salts = Salts::default();
        let alice = signed("acme", "alice", "x");
        let pass = salts.take(&alice, None, 100, 0).unwrap();
        assert_eq!(reason(salts.take(&alice, None, 100, 0)), Some(Reason::Replayed), "meanwhile");
        drop(pass);
        let pass = salts.take(&alice, None, 100, 0).expect("it opened none");
        pass.opened("s-1", || ());
        assert_eq!(reason(salts.take(&alice, None, 100, 1)), Some(Reason::Replayed));
        assert_eq!(reason(salts.take(&alice, Some("s-2"), 100, 1)), Some(Reason::Replayed));
        let mallory = signed("acme", "mallory", "x");
        assert_eq!(reason(salts.take(&mallory, Some("s-1"), 100, 1)), Some(Reason::Replayed));
        assert!(salts.take(&signed("other", "alice", "x"), None, 100, 1).is_ok());
        assert!(salts.take(&signed("acme", "alice", "y"), None, 100, 1).is_ok());
        assert_eq!(reason(salts.take(&alice, None, 100, 100)), Some(Reason::Replayed));
        assert_eq!(reason(salts.take(&alice, None, 100, 101)), None, "it has expired elsewhere");
    }

    #[test]
    fn fields_that_are_cut_otherwise_open_nothing() {
        let salts = Salts::default();
        let mut alice = Signed { scheme: Scheme::Concatenated, ..signed("acme", "alice", "x") };
        alice.sign(&"key".into());
        salts.take(&alice, None, 100, 0).unwrap().opened("s-1", || ());
        let cut = Signed { user: "alic".into(), salt: "ex".into(), ..alice.clone() };
        assert!(cut.is_signed_by(&"key".into()));
        assert_eq!(reason(salts.take(&cut, None, 100, 1)), Some(Reason::Replayed));
        assert_eq!(reason(salts.take(&cut, Some("s-1"), 100, 1)), Some(Reason::Replayed));
        assert!(salts.take(&alice, Some("s-1"), 100, 1).is_ok());
    }

    #[test]
    fn who_holds_the_session_comes_back_as_often_as_it_must() {
        let salts = Salts::default();
        let alice = signed("acme", "alice", "x");
        let back = |session: &str| salts.take(&alice, Some(session), 100, 1);
        salts.take(&alice, None, 100, 0).unwrap().opened("s-1", || ());
        drop(back("s-1").unwrap());
        back("s-1").unwrap().opened("s-2", || ());
        back("s-1").expect("the answer was lost").opened("s-3", || ());
        assert_eq!(reason(back("s-2")), Some(Reason::Replayed), "nobody was told of it");
        back("s-3").unwrap().opened("s-4", || ());
        back("s-4").unwrap().opened("s-5", || ());
        assert_eq!(reason(back("s-1")), Some(Reason::Replayed), "too old");
        assert_eq!(salts.count(), 1);
        // A new credential for a session that goes on, or after a restart, which forgets them all.
        let salts = Salts::default();
        let back = |session: &str| salts.take(&alice, Some(session), 100, 1);
        back("s-5").unwrap().opened("s-6", || ());
        assert!(back("s-5").is_ok() && back("s-6").is_ok());
    }

    #[test]
    fn a_salt_that_passes_on_ends_the_session_that_it_had() {
        let salts = Salts::default();
        let alice = signed("acme", "alice", "x");
        let ended = Arc::new(Mutex::new(Vec::new()));
        let open = |shown: Option<&str>, session: &'static str| {
            let told = Arc::clone(&ended);
            let pass = salts.take(&alice, shown, 100, 1).unwrap();
            pass.opened(session, move || told.lock().unwrap().push(session));
            std::mem::take(&mut *ended.lock().unwrap())
        };
        assert!(open(None, "s-1").is_empty());
        assert!(open(Some("s-1"), "s-1").is_empty(), "it goes on");
        assert_eq!(open(Some("s-1"), "s-2"), ["s-1"]);
        assert_eq!(open(Some("s-1"), "s-3"), ["s-2"], "the answer was lost");
        drop(salts.take(&alice, Some("s-3"), 100, 1).unwrap());
        salts.take(&signed("acme", "alice", "y"), None, 100, 1).unwrap().opened("s-4", || ());
        assert!(ended.lock().unwrap().is_empty(), "it opened none, and another has its own");
    }

    #[test]
    fn room_is_bounded_in_all_and_for_each_application() {
        let salts = Salts::new(3, 2);
        let take = |application: &str, salt: &str, ends, now| {
            let pass = salts.take(&signed(application, "alice", salt), None, ends, now)?;
            pass.opened("s", || ());
            Ok::<_, Refusal>(())
        };
        take("acme", "1", 10, 0).unwrap();
        take("acme", "2", 20, 0).unwrap();
        assert_eq!(take("acme", "3", 20, 0).unwrap_err().reason, Reason::SaltsFull);
        take("other", "1", 20, 0).unwrap();
        assert_eq!(take("third", "1", 20, 0).unwrap_err().reason, Reason::SaltsFull);
        assert_eq!(take("acme", "1", 10, 0).unwrap_err().reason, Reason::Replayed);
        // What expired makes room.
        take("third", "1", 20, 11).unwrap();
        assert_eq!(salts.count(), 3);
        take("fourth", "1", 90, 21).unwrap();
        assert_eq!(salts.count(), 1);
        assert_eq!(lock(&salts.table).of_application.len(), 1);
        assert_eq!(lock(&salts.table).by_end.len(), 1);
    }
}
