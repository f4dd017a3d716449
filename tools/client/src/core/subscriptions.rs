//! What the application subscribed to, so that it is subscribed to again on another node. There everybody has another
//! identifier: who it is shows by the display name, and what by kind, source, name and codec.

use super::output::Handle;
use std::collections::HashMap;
use std::time::Duration;
use strait_link::v1::{self, Preferences};

/// Subscriptions that are kept: as many as streams come.
const KEPT: usize = 256;
/// Publications, and peers, that are remembered: those of a scope with a thousand peers who publish all that they may.
pub(super) const KNOWN: usize = 16_384;
/// What ended so short before the client came to another node ended because its publisher went there first.
const BEFORE: Duration = Duration::from_secs(10);
/// A publisher who has not come by then does not come.
const COMES_WITHIN: Duration = Duration::from_secs(60);

/// What a publication is known by on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    peer: String,
    kind: i32,
    source: i32,
    name: String,
    codec: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Asked for.
    Asked,
    /// Subscribed under this identifier.
    Subscribed(String),
    /// Asked for, and the application wants it no more.
    Unwanted,
    /// Its publication ended, then.
    Ended(Duration),
    /// On another node: waits for its publication, since then.
    Waiting(Duration),
}

struct Kept {
    handle: Handle,
    request: v1::Subscribe,
    /// None while the node has not told of the publication: the application can know of it before.
    origin: Option<Origin>,
    state: State,
    /// Its identifier, of the node before while this one has given it none. The application knows that.
    id: String,
}

/// See the module.
#[derive(Default)]
pub(super) struct Subscriptions {
    kept: Vec<Kept>,
    /// Names of who is here.
    peers: HashMap<String, String>,
    /// What is published.
    origins: HashMap<String, Origin>,
}

impl Subscriptions {
    /// Another stay begins: all of before waits for its publications.
    pub(super) fn begin(&mut self, now: Duration, peers: &[v1::Peer]) {
        self.peers.clear();
        self.origins.clear();
        self.wait(now);
        peers.iter().for_each(|peer| self.joined(peer));
    }

    /// None is there any more; all wait for their publications.
    pub(super) fn wait(&mut self, now: Duration) {
        self.forget_ended(now);
        self.kept.retain(|one| one.state != State::Unwanted);
        for one in &mut self.kept {
            if !matches!(one.state, State::Waiting(_)) {
                one.state = State::Waiting(now);
            }
        }
    }

    fn forget_ended(&mut self, now: Duration) {
        self.kept.retain(|one| !matches!(one.state, State::Ended(at) if at + BEFORE <= now));
    }

    pub(super) fn joined(&mut self, peer: &v1::Peer) {
        if self.peers.len() < KNOWN {
            self.peers.insert(peer.peer_id.clone(), peer.name.clone());
        }
        for publication in &peer.publications {
            self.started(&peer.peer_id, publication);
        }
    }

    pub(super) fn left(&mut self, peer_id: &str) {
        self.peers.remove(peer_id);
    }

    pub(super) fn started(&mut self, peer_id: &str, publication: &v1::Publication) {
        let v1::Publication { kind, source, .. } = *publication;
        let v1::Publication { publication_id, name, codec, .. } = publication.clone();
        let peer = self.peers.get(peer_id).cloned().unwrap_or_default();
        let origin = Origin { peer, kind, source, name, codec };
        let is_it = |one: &&mut Kept| one.request.publication_id == publication_id;
        for one in self.kept.iter_mut().filter(is_it) {
            one.origin.get_or_insert_with(|| origin.clone());
        }
        if self.origins.len() < KNOWN {
            self.origins.insert(publication_id, origin);
        }
    }

    pub(super) fn ended(&mut self, now: Duration, publication_id: &str) {
        self.forget_ended(now);
        self.origins.remove(publication_id);
        let is_it = |one: &&mut Kept| one.request.publication_id == publication_id;
        for one in self.kept.iter_mut().filter(is_it) {
            if !matches!(one.state, State::Waiting(_)) {
                one.state = State::Ended(now);
            }
        }
    }

    /// Keeps what the application asked for.
    pub(super) fn keep(&mut self, handle: Handle, request: &v1::Subscribe) {
        let origin = self.origins.get(&request.publication_id).cloned();
        if self.kept.len() < KEPT {
            let (request, state, id) = (request.clone(), State::Asked, String::new());
            self.kept.push(Kept { handle, request, origin, state, id });
        }
    }

    /// The subscription to a publication that is here, made or being made, and its identifier once it has one.
    pub(super) fn of(&self, publication_id: &str) -> Option<(Handle, Option<&str>)> {
        let is_it = |one: &&Kept| one.request.publication_id == publication_id;
        self.kept.iter().filter(is_it).find_map(|one| match &one.state {
            State::Asked => Some((one.handle, None)),
            State::Subscribed(id) => Some((one.handle, Some(id.as_str()))),
            State::Unwanted | State::Ended(_) | State::Waiting(_) => None,
        })
    }

    /// Whether it is still wanted.
    pub(super) fn subscribed(&mut self, handle: Handle, subscription_id: &str) -> bool {
        let Some(at) = self.kept.iter().position(|one| one.handle == handle) else { return true };
        if self.kept.get(at).is_some_and(|one| one.state == State::Unwanted) {
            self.kept.remove(at);
            return false;
        }
        if let Some(one) = self.kept.get_mut(at) {
            one.state = State::Subscribed(subscription_id.to_owned());
            one.id = subscription_id.to_owned();
        }
        true
    }

    /// The node does not do it.
    pub(super) fn refused(&mut self, handle: Handle) {
        self.kept.retain(|one| one.handle != handle);
    }

    /// The link broke before the node answered: it is asked again. Whether this one is kept.
    pub(super) fn unanswered(&mut self, now: Duration, handle: Handle) -> bool {
        let Some(at) = self.kept.iter().position(|one| one.handle == handle) else { return false };
        match self.kept.get_mut(at) {
            Some(one) if one.state != State::Unwanted => one.state = State::Waiting(now),
            _ => drop(self.kept.remove(at)),
        }
        true
    }

    /// Whether that is all: it was the name of a node before, and this one has not begun to send, or ends it in its turn.
    pub(super) fn unsubscribed(&mut self, subscription_id: &str) -> bool {
        let before = self.kept.len();
        self.kept.retain(|one| one.state != State::Subscribed(subscription_id.to_owned()));
        let is_it = |one: &Kept| !one.id.is_empty() && one.id == subscription_id;
        // Two nodes may give the same name: that of this one counts.
        let Some(at) = self.kept.iter().position(is_it).filter(|_| self.kept.len() == before)
        else {
            return false;
        };
        match self.kept.get_mut(at) {
            Some(one) if matches!(one.state, State::Asked | State::Unwanted) => {
                one.state = State::Unwanted;
                true
            }
            _ => matches!(self.kept.remove(at).state, State::Waiting(_)),
        }
    }

    pub(super) fn prefer(&mut self, subscription_id: &str, preferences: Option<Preferences>) {
        let state = State::Subscribed(subscription_id.to_owned());
        if let Some(one) = self.kept.iter_mut().find(|one| one.state == state) {
            one.request.preferences = preferences;
        }
    }

    /// Whether the application said so, maybe on the node before.
    pub(super) fn is_paused(&self, subscription_id: &str) -> bool {
        let is_it = |one: &&Kept| one.id == subscription_id;
        let preferences = self.kept.iter().find(is_it).and_then(|one| one.request.preferences);
        preferences.is_some_and(|wanted| wanted.paused)
    }

    /// What is to be asked for now: its publication is here, and nobody else of the same name has it.
    pub(super) fn found(&mut self) -> Vec<(Handle, v1::Subscribe)> {
        let mut found = Vec::new();
        let mut ids: Vec<String> = self.origins.keys().cloned().collect();
        ids.retain(|id| self.of(id).is_none());
        // Which of two that look alike is whose cannot be known; the same one each time.
        ids.sort_unstable();
        for id in ids {
            let Some(origin) = self.origins.get(&id) else { continue };
            let waits = |one: &&mut Kept| {
                one.origin.as_ref() == Some(origin) && matches!(one.state, State::Waiting(_))
            };
            if let Some(one) = self.kept.iter_mut().find(waits) {
                one.request.publication_id = id;
                one.state = State::Asked;
                found.push((one.handle, one.request.clone()));
            }
        }
        found
    }

    /// Those whose publisher did not come.
    pub(super) fn given_up(&mut self, now: Duration) -> Vec<Handle> {
        let is_late =
            |one: &mut Kept| matches!(one.state, State::Waiting(at) if at + COMES_WITHIN <= now);
        self.kept.extract_if(.., is_late).map(|one| one.handle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, name: &str, publications: &[(&str, &str)]) -> v1::Peer {
        let publications = publications.iter().map(|(id, name)| v1::Publication {
            publication_id: (*id).to_owned(),
            name: (*name).to_owned(),
            ..v1::Publication::default()
        });
        v1::Peer { peer_id: id.into(), name: name.into(), publications: publications.collect() }
    }

    fn request(publication_id: &str) -> v1::Subscribe {
        let publication_id = publication_id.to_owned();
        v1::Subscribe { publication_id, as_sent: true, preferences: None }
    }

    fn found(all: &mut Subscriptions) -> Vec<(Handle, String)> {
        all.found().into_iter().map(|(handle, ask)| (handle, ask.publication_id)).collect()
    }

    #[test]
    fn on_another_node_each_is_found_by_peer_and_stream() {
        let now = Duration::ZERO;
        let mut all = Subscriptions::default();
        all.begin(
            now,
            &[
                peer("1", "ann", &[("a1", "voice"), ("a2", "face")]),
                peer("2", "bob", &[("b1", "voice")]),
            ],
        );
        for (handle, id) in [(10, "a1"), (11, "a2"), (12, "b1")] {
            all.keep(handle, &request(id));
            assert!(all.subscribed(handle, &format!("s-{id}")));
        }
        assert_eq!(all.of("a1"), Some((10, Some("s-a1"))));
        assert!(!all.unsubscribed("s-a2"), "the node is to be asked");
        let paused = Some(Preferences { paused: true, ..Preferences::default() });
        all.prefer("s-b1", paused);
        assert_eq!(found(&mut all), [], "nothing is asked for twice");
        // Bob is there before Ann.
        all.begin(now, &[peer("7", "bob", &[("x", "voice")])]);
        assert_eq!(all.of("x"), None);
        let asked = all.found();
        assert_eq!((asked[0].0, &asked[0].1.preferences, asked.len()), (12, &paused, 1));
        assert_eq!(all.of("x"), Some((12, None)));
        all.joined(&peer("8", "ann", &[]));
        all.started("8", &peer("8", "", &[("y", "face")]).publications[0]);
        assert_eq!(found(&mut all), [], "that was given up by the application");
        all.started("8", &peer("8", "", &[("z", "voice")]).publications[0]);
        assert_eq!(found(&mut all), [(10, "z".to_owned())]);
    }

    #[test]
    fn who_subscribes_before_the_node_tells_of_a_stream_has_it_on_the_next_node_too() {
        let mut all = Subscriptions::default();
        all.begin(Duration::ZERO, &[peer("1", "ann", &[])]);
        all.keep(1, &request("a"));
        assert!(all.subscribed(1, "s"));
        all.started("1", &peer("1", "", &[("a", "voice")]).publications[0]);
        all.begin(Duration::ZERO, &[peer("7", "ann", &[("b", "voice")])]);
        assert_eq!(found(&mut all), [(1, "b".to_owned())]);
    }

    #[test]
    fn who_unsubscribes_by_the_name_of_the_node_before_is_rid_of_it() {
        let ann = |id| [peer("1", "ann", &[(id, "voice")])];
        let moved = || {
            let mut all = Subscriptions::default();
            all.begin(Duration::ZERO, &ann("a"));
            all.keep(1, &request("a"));
            assert!(all.subscribed(1, "s"));
            all.begin(Duration::ZERO, &[]);
            all
        };
        // Its publisher is not there yet.
        let mut all = moved();
        assert!(all.unsubscribed("s"));
        all.joined(&ann("b")[0]);
        assert_eq!(found(&mut all), []);
        // It is asked for: what comes of that is ended.
        let mut all = moved();
        all.joined(&ann("b")[0]);
        assert_eq!(found(&mut all), [(1, "b".to_owned())]);
        assert!(all.unsubscribed("s") && all.unsubscribed("s"));
        assert!(!all.subscribed(1, "t"));
        assert_eq!(all.of("b"), None);
        // The same, and the answer never comes.
        let mut all = moved();
        all.joined(&ann("b")[0]);
        all.found();
        assert!(all.unsubscribed("s") && all.unanswered(Duration::ZERO, 1));
        assert_eq!(found(&mut all), []);
        // It is here: the node is asked, by the name that it gave.
        let mut all = moved();
        all.joined(&ann("b")[0]);
        all.found();
        assert!(all.subscribed(1, "t") && !all.unsubscribed("s") && !all.unsubscribed("t"));
        assert!(!all.unsubscribed(""));
    }

    #[test]
    fn what_ended_is_not_waited_for_unless_its_publisher_moved_first() {
        let mut all = Subscriptions::default();
        let ann = |id| [peer("1", "ann", &[(id, "voice")])];
        all.begin(Duration::ZERO, &ann("a"));
        all.keep(1, &request("a"));
        assert!(all.subscribed(1, "s"));
        all.ended(Duration::from_secs(5), "a");
        all.started("1", &ann("b")[0].publications[0]);
        assert_eq!(found(&mut all), [], "another one of the same name is the application's choice");
        all.begin(Duration::from_secs(6), &ann("c"));
        assert_eq!(found(&mut all), [(1, "c".to_owned())]);
        all.ended(Duration::from_secs(7), "c");
        all.begin(Duration::from_secs(60), &ann("d"));
        assert_eq!(found(&mut all), []);
    }

    #[test]
    fn two_of_one_name_get_one_each_and_who_does_not_come_is_given_up() {
        let mut all = Subscriptions::default();
        let twins =
            |one, two| [peer("1", "twin", &[(one, "voice")]), peer("2", "twin", &[(two, "voice")])];
        all.begin(Duration::ZERO, &twins("a", "b"));
        all.keep(1, &request("a"));
        all.keep(2, &request("b"));
        assert!(all.unanswered(Duration::ZERO, 2));
        all.begin(Duration::ZERO, &twins("c", "d"));
        assert_eq!(found(&mut all), [(1, "c".to_owned()), (2, "d".to_owned())]);
        all.refused(1);
        all.begin(Duration::ZERO, &[]);
        assert_eq!(all.given_up(Duration::from_secs(59)), Vec::<Handle>::new());
        assert_eq!(all.given_up(Duration::from_secs(60)), [2]);
    }
}
