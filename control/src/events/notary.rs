//! Notes what happens in the scopes of this node, and tells it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strait_proto::v1;

use super::event::{self, Event, Hold, Stream, What};
use super::meter::Meters;
use super::moment::Moment;
use super::{Counters, Outlet};
use crate::fault::Fault;
use crate::store::floor;
use crate::{id, limits};

/// Notes what happens, and tells it.
pub struct Notary {
    node: String,
    /// Of this start of the node.
    incarnation: String,
    /// Numbers of events and of stays that were given out.
    numbers: AtomicU64,
    book: Mutex<Book>,
    outlet: Outlet,
}

/// One life of a scope: a session.
#[derive(Debug)]
pub struct Life {
    /// Application.
    pub application: String,
    /// Scope name.
    pub scope: String,
    /// The session's identifier.
    pub session: String,
    /// When it began.
    pub began: Moment,
    is_told: AtomicBool,
}

impl Life {
    /// A moment as this session tells it, in milliseconds since 1970.
    pub fn time(&self, now: Moment) -> i64 {
        now.since(self.began)
    }
}

/// A stay that is noted, for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stay(u64);

#[derive(Default)]
struct Book {
    stays: HashMap<Stay, Entry>,
    /// By session and peer.
    peers: HashMap<(String, String), Stay>,
    /// The minute whose check was told.
    checked: i64,
}

struct Entry {
    life: Arc<Life>,
    told: event::Stay,
    meters: Meters,
}

impl Notary {
    /// Nothing happened yet on `node`.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn new(node: &str, outlet: Outlet) -> Result<Self, Fault> {
        Ok(Self {
            node: clean(node, 64),
            incarnation: id::random("n")?,
            numbers: AtomicU64::new(0),
            book: Mutex::default(),
            outlet,
        })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// How it goes.
    pub fn counters(&self) -> &Arc<Counters> {
        self.outlet.counters()
    }

    /// Waits until all that was told is where it should be, or cannot get there now.
    pub async fn settle(&self) {
        self.outlet.settle().await;
    }

    /// What time it is, in milliseconds since 1970.
    pub fn now(&self) -> i64 {
        Moment::now().wall
    }

    /// A new life of a scope. It is told of when somebody joins.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn life(&self, application: &str, scope: &str, now: Moment) -> Result<Arc<Life>, Fault> {
        Ok(Arc::new(Life {
            application: application.to_owned(),
            scope: scope.to_owned(),
            session: id::random("scope")?,
            began: now,
            is_told: AtomicBool::new(false),
        }))
    }

    /// A life of before this process was started.
    pub fn life_again(
        &self,
        (application, scope): (&str, &str),
        session: &str,
        created: i64,
        now: Moment,
    ) -> Arc<Life> {
        let passed = u64::try_from(now.wall.saturating_sub(created)).unwrap_or_default();
        let even = now.even.checked_sub(std::time::Duration::from_millis(passed));
        Arc::new(Life {
            application: application.to_owned(),
            scope: scope.to_owned(),
            session: session.to_owned(),
            began: Moment { even: even.unwrap_or(now.even), wall: created },
            is_told: AtomicBool::new(true),
        })
    }

    /// A stay as it began.
    pub fn begun(&self, stay: Stay) -> Option<event::Stay> {
        self.book().stays.get(&stay).map(|entry| entry.told.as_begun())
    }

    /// A peer whose stay an earlier process noted is there still. That stay ends now and another
    /// begins: how many bytes it had nobody knows any more, and what is told of one only grows.
    pub fn joined_before(&self, life: &Arc<Life>, before: &event::Stay, now: Moment) -> Stay {
        let at = life.time(now);
        let left = Some("strait-control was started again".to_owned());
        let ended = event::Stay { until: at.max(before.until), left, ..before.clone() };
        self.outlet.tell_once(self.event(life, at, What::Left { stay: ended }));
        let (peer, name) = (before.peer.as_str(), before.name.as_str());
        self.joined(life, (peer, name), &before.user, &before.client, now)
    }

    /// Notes that a peer came; `user` is whom its credential names, `client` how it is connected.
    pub fn joined(
        &self,
        life: &Arc<Life>,
        (peer, name): (&str, &str),
        user: &str,
        client: &str,
        now: Moment,
    ) -> Stay {
        let now = life.time(now);
        if !life.is_told.swap(true, Ordering::Relaxed) {
            self.outlet.tell_once(self.event(life, now, What::SessionCreated));
        }
        let number = self.next();
        let told = event::Stay {
            stay: format!("{}.{number}", self.incarnation),
            peer: clean(peer, 128),
            name: clean(name, 128),
            user: clean(user, 128),
            client: client.to_owned(),
            joined: now,
            until: now,
            ..event::Stay::default()
        };
        let stay = Stay(number);
        let event = self.event(life, now, What::Joined { stay: told.clone() });
        let mut book = self.book();
        if book.stays.len() >= limits::STAYS_NOTED {
            drop(book);
            self.counters().lost.fetch_add(1, Ordering::Relaxed);
            return stay;
        }
        book.peers.insert((life.session.clone(), peer.to_owned()), stay);
        let entry = Entry { life: Arc::clone(life), told, meters: Meters::default() };
        book.stays.insert(stay, entry);
        drop(book);
        // Should nobody have room: the next telling of who is there says the same.
        let _is_taken = self.outlet.tell(event);
        stay
    }

    /// Notes that the peer left.
    pub fn left(&self, stay: Stay, reason: &str, now: Moment) {
        let mut book = self.book();
        let Some(entry) = book.stays.get_mut(&stay) else { return };
        if entry.told.left.is_some() {
            return;
        }
        let now = entry.life.time(now);
        entry.told.left = Some(clean(reason, 255));
        entry.update(now);
        let minutes = entry.meters.turn(i64::MAX);
        let (life, told) = (Arc::clone(&entry.life), entry.told.clone());
        let peer = (life.session.clone(), told.peer.clone());
        if book.peers.get(&peer) == Some(&stay) {
            book.peers.remove(&peer);
        }
        drop(book);
        self.tell_minutes(&life, &told.stay, minutes, now);
        // It stays in the book until somebody took it.
        if self.outlet.tell(self.event(&life, now, What::Left { stay: told })) {
            self.book().stays.remove(&stay);
        }
    }

    /// Notes that the last peer left; `hold` is how the node held the scope.
    pub fn disposed(&self, life: &Arc<Life>, hold: Option<Hold>, now: Moment) {
        self.outlet.tell_once(self.event(life, life.time(now), What::SessionDisposed { hold }));
    }

    /// Takes what the relay says of a peer's streams.
    pub fn heard(&self, life: &Arc<Life>, peer: &str, told: &v1::MediaQuality, now: Moment) {
        let now = life.time(now);
        let mut book = self.book();
        let key = (life.session.clone(), peer.to_owned());
        let Some(stay) = book.peers.get(&key).copied() else { return };
        let Some(entry) = book.stays.get_mut(&stay) else { return };
        let minutes = entry.meters.add(now, told);
        let id = entry.told.stay.clone();
        drop(book);
        self.tell_minutes(life, &id, minutes, now);
    }

    /// Tells who is there, what became of whom nobody took the end of, and which minutes are over.
    /// To be called every [`limits::PRESENCE_PERIOD`].
    pub fn tell_presence(&self, now: Moment) {
        let mut present: BTreeMap<String, (Arc<Life>, Vec<event::Stay>)> = BTreeMap::new();
        let (mut over, mut minutes) = (Vec::new(), Vec::new());
        for (stay, entry) in &mut self.book().stays {
            if entry.told.left.is_some() {
                over.push((*stay, Arc::clone(&entry.life), entry.told.clone()));
                continue;
            }
            let now = entry.life.time(now);
            entry.update(now);
            let done = entry.meters.turn(floor(now, 60_000));
            if !done.is_empty() {
                minutes.push((Arc::clone(&entry.life), entry.told.stay.clone(), done));
            }
            let fresh = || (Arc::clone(&entry.life), Vec::new());
            let session = present.entry(entry.life.session.clone()).or_insert_with(fresh);
            session.1.push(entry.told.clone());
        }
        for (stay, life, told) in over {
            if self.outlet.tell(self.event(&life, life.time(now), What::Left { stay: told })) {
                self.book().stays.remove(&stay);
            }
        }
        for (life, stay, minutes) in minutes {
            self.tell_minutes(&life, &stay, minutes, life.time(now));
        }
        // While they find no room anywhere it is enough to tell afterwards.
        if !self.outlet.is_blocked() {
            for (life, stays) in present.into_values() {
                for stays in stays.chunks(limits::STAYS_PER_EVENT) {
                    let what = What::Present { stays: stays.to_vec() };
                    let _is_taken = self.outlet.tell(self.event(&life, life.time(now), what));
                }
            }
        }
    }

    /// Tells once a minute whether this node is well; `wrong` says what is not.
    pub fn tell_check(&self, wrong: Option<&str>, now: Moment) {
        let minute = floor(now.wall, 60_000);
        if std::mem::replace(&mut self.book().checked, minute) == minute {
            return;
        }
        let reason = clean(wrong.unwrap_or_default(), 255);
        let what = What::Checked { minute, is_well: wrong.is_none(), reason };
        self.outlet.tell_once(Event {
            id: self.event_id(),
            at: now.wall,
            node: self.node.clone(),
            application: String::new(),
            scope: String::new(),
            session: String::new(),
            created: 0,
            what,
        });
    }

    fn tell_minutes(&self, life: &Arc<Life>, stay: &str, told: Vec<(i64, Stream)>, now: i64) {
        let mut minutes: BTreeMap<i64, Vec<Stream>> = BTreeMap::new();
        for (minute, mut stream) in told {
            stream.stay = stay.to_owned();
            stream.stream = clean(&stream.stream, 64);
            minutes.entry(minute).or_default().push(stream);
        }
        for (minute, streams) in minutes {
            self.outlet.tell_once(self.event(life, now, What::Quality { minute, streams }));
        }
    }

    fn event(&self, life: &Life, at: i64, what: What) -> Event {
        Event {
            id: self.event_id(),
            at,
            node: self.node.clone(),
            application: life.application.clone(),
            scope: life.scope.clone(),
            session: life.session.clone(),
            created: life.began.wall,
            what,
        }
    }

    fn event_id(&self) -> String {
        format!("{}.{}", self.incarnation, self.next())
    }

    fn next(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn update(&mut self, now: i64) {
        self.told.until = self.told.until.max(now);
        self.told.bytes_in = self.meters.bytes_in;
        self.told.bytes_out = self.meters.bytes_out;
    }
}

/// What every store can hold: no zero, and so many characters at most.
fn clean(text: &str, characters_max: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(characters_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;
    use std::time::Duration;

    use crate::events::{Note, outlet};
    use tokio::sync::mpsc::Receiver;

    /// So many milliseconds after the beginning of time.
    fn at(ms: u64) -> Moment {
        static BEGAN: LazyLock<Moment> = LazyLock::new(|| Moment { wall: 0, ..Moment::now() });
        BEGAN.plus(Duration::from_millis(ms))
    }

    fn told(waiting: &mut Receiver<Note>) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(Note::Event(event)) = waiting.try_recv() {
            events.push(event);
        }
        events
    }

    #[test]
    fn a_session_is_told_of_from_beginning_to_end() {
        let (outlet, mut waiting) = outlet();
        let notary = Notary::new("here", outlet).unwrap();
        let life = notary.life("acme", "lobby", at(0)).unwrap();
        let ann = notary.joined(&life, ("p-1", "Ann\0"), "ann", "native", at(1_000));
        let bob = notary.joined(&life, ("p-2", "Bob"), "bob", "whip", at(2_000));
        notary.tell_presence(at(11_000));
        let quality = v1::MediaQuality {
            publication_id: "pub-1".into(),
            interval_seconds: 2.0,
            bytes: 700,
            ..v1::MediaQuality::default()
        };
        notary.heard(&life, "p-2", &quality, at(11_500));
        notary.heard(&life, "stranger", &quality, at(11_500));
        notary.left(bob, "left", at(12_000));
        notary.left(bob, "left", at(13_000));
        notary.left(ann, "gone", at(14_000));
        notary.disposed(&life, None, at(14_000));
        notary.tell_presence(at(21_000));
        notary.tell_check(None, at(61_000));
        notary.tell_check(None, at(62_000));
        let events = told(&mut waiting);
        let names: Vec<&str> = events
            .iter()
            .map(|event| match &event.what {
                What::SessionCreated => "created",
                What::Joined { .. } => "joined",
                What::Present { stays } if stays.len() == 2 => "both",
                What::Left { .. } => "left",
                What::Quality { .. } => "quality",
                What::SessionDisposed { .. } => "disposed",
                What::Checked { .. } => "checked",
                What::Present { .. } => "some",
            })
            .collect();
        let expected = [
            "created", "joined", "joined", "both", "quality", "left", "left", "disposed", "checked",
        ];
        assert_eq!(names, expected);
        let What::Left { stay } = &events[5].what else { panic!("{events:?}") };
        assert_eq!((stay.joined, stay.until, stay.bytes_in), (2_000, 12_000, 700));
        assert_eq!(stay.left.as_deref(), Some("left"));
        let ids: std::collections::BTreeSet<_> = events.iter().map(|event| &event.id).collect();
        assert_eq!(ids.len(), events.len());
        assert!(notary.book().stays.is_empty() && notary.book().peers.is_empty());
    }

    #[test]
    fn a_clock_that_is_set_is_followed_by_the_next_session() {
        let (outlet, mut waiting) = outlet();
        let notary = Notary::new("here", outlet).unwrap();
        let life = notary.life("acme", "lobby", at(1_000)).unwrap();
        let ann = notary.joined(&life, ("p-1", "Ann"), "ann", "native", at(1_000));
        let hour = 3_600_000;
        let set = |ms| Moment { wall: at(ms).wall + hour, ..at(ms) };
        notary.tell_presence(set(11_000));
        notary.left(ann, "left", set(13_000));
        let next = notary.life("acme", "lobby", set(20_000)).unwrap();
        let bob = notary.joined(&next, ("p-2", "Bob"), "bob", "native", set(20_000));
        // Set back, while that lasts.
        notary.left(bob, "left", at(25_000));
        let ends = told(&mut waiting).into_iter().filter_map(|event| match event.what {
            What::Left { stay } => Some((event.created, stay.joined, stay.until)),
            _ => None,
        });
        let expected = [(1_000, 1_000, 13_000), (hour + 20_000, hour + 20_000, hour + 25_000)];
        assert_eq!(ends.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_end_that_nobody_takes_is_told_again() {
        let (outlet, mut waiting) = outlet();
        let notary = Notary::new("here", outlet.clone()).unwrap();
        let life = notary.life("acme", "lobby", at(0)).unwrap();
        let ann = notary.joined(&life, ("p-1", "Ann"), "ann", "native", at(1_000));
        while outlet.tell(notary.event(&life, 0, What::SessionDisposed { hold: None })) {}
        notary.left(ann, "left", at(5_000));
        notary.tell_presence(at(11_000));
        assert!(told(&mut waiting).len() >= limits::EVENTS_WAITING);
        notary.tell_presence(at(21_000));
        let events = told(&mut waiting);
        let [Event { what: What::Left { stay }, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(stay.until, 5_000, "it left then, whenever that is told");
        notary.tell_presence(at(31_000));
        assert_eq!(told(&mut waiting), []);
    }

    #[test]
    fn who_cannot_take_events_is_not_told_who_is_there() {
        let (outlet, mut waiting) = outlet();
        let notary = Notary::new("here", outlet.clone()).unwrap();
        let life = notary.life("acme", "lobby", at(0)).unwrap();
        notary.joined(&life, ("p-1", "Ann"), "ann", "native", at(1_000));
        told(&mut waiting);
        outlet.counters().is_blocked.store(true, Ordering::Relaxed);
        notary.tell_presence(at(11_000));
        assert_eq!(told(&mut waiting), []);
        outlet.counters().is_blocked.store(false, Ordering::Relaxed);
        notary.tell_presence(at(21_000));
        let events = told(&mut waiting);
        let [Event { what: What::Present { stays }, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(stays[0].until, 21_000);
    }
}
