//! Presence: the members of a scope and what they publish. Pure state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::allowed::Allowed;
use super::direct::{self, Allowance, Directly, Pair, Way};
use super::{PeerView, PublicationView, Speakers};
use crate::fault::Fault;
use crate::limits;
use crate::sdp::IceCredentials;

/// The members of one scope; `S` is where a member's notices go.
#[derive(Debug)]
pub struct Roster<S> {
    members: BTreeMap<String, Member<S>>,
    speakers: Speakers,
    pair: Pair,
}

/// How the relay reaches a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Over TCP, where `place` is that of whoever passes it on.
    pub is_tcp: bool,
    /// Where, as far as that was told.
    pub place: Option<SocketAddr>,
}

#[derive(Debug)]
struct Member<S> {
    name: String,
    /// The relay's name for the member's transport, while it has one.
    relay_peer: Option<String>,
    /// How that is reached, while it is connected.
    reached: Option<Reached>,
    /// Whether it may go directly, and the other of two may know its address.
    directly: Directly,
    /// What it may signal to the other of two, whichever pair that is.
    signals: Allowance,
    /// From whom it takes what, where it is a native client.
    allowed: Arc<Allowed>,
    /// What such a one subscribes to and does not pause: subscription and publication.
    taken: BTreeMap<String, String>,
    publications: Vec<PublicationView>,
    sink: S,
}

impl<S> Default for Roster<S> {
    fn default() -> Self {
        let (speakers, pair) = Default::default();
        Self { members: BTreeMap::new(), speakers, pair }
    }
}

impl<S> Roster<S> {
    /// Adds a member.
    ///
    /// # Errors
    /// [`crate::fault::Class::Conflict`] for one that is there,
    /// [`crate::fault::Class::TooMany`] at `members_max`.
    pub fn join(
        &mut self,
        peer: &str,
        name: &str,
        sink: S,
        members_max: usize,
    ) -> Result<(), Fault> {
        if self.members.contains_key(peer) {
            return Err(Fault::conflict(format!("peer {peer} is in this scope already")));
        }
        self.check_room(members_max)?;
        let member = Member {
            name: name.into(),
            relay_peer: None,
            reached: None,
            directly: Directly::No,
            signals: Allowance::default(),
            allowed: Arc::default(),
            taken: BTreeMap::new(),
            publications: Vec::new(),
            sink,
        };
        self.members.insert(peer.into(), member);
        Ok(())
    }

    /// Checks that one more may join.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`] at `members_max`.
    pub fn check_room(&self, members_max: usize) -> Result<(), Fault> {
        match self.members.len() < members_max {
            true => Ok(()),
            false => Err(Fault::too_many(format!(
                "the scope is full: {members_max} peers (limits.peers_per_scope); somebody has to \
                 leave it first"
            ))),
        }
    }

    /// Removes a member and returns what it published.
    pub fn leave(&mut self, peer: &str) -> Option<Vec<PublicationView>> {
        let publications = self.members.remove(peer)?.publications;
        publications.iter().for_each(|p| self.forget_speaker(&p.publication));
        Some(publications)
    }

    /// Adds a publication; false for a member that is not there.
    pub fn publish(&mut self, peer: &str, publication: PublicationView) -> bool {
        let member = self.members.get_mut(peer);
        member.map(|member| member.publications.push(publication)).is_some()
    }

    /// Removes a publication; false for one that is not there.
    pub fn unpublish(&mut self, peer: &str, publication: &str) -> bool {
        let Some(member) = self.members.get_mut(peer) else { return false };
        let before = member.publications.len();
        member.publications.retain(|p| p.publication != publication);
        let is_gone = member.publications.len() != before;
        if is_gone {
            self.forget_speaker(publication);
        }
        is_gone
    }

    /// Takes all publications of a member away, and its transport.
    pub fn lose_media(&mut self, peer: &str) -> Vec<PublicationView> {
        let Some(member) = self.members.get_mut(peer) else { return Vec::new() };
        (member.relay_peer, member.reached) = (None, None);
        member.taken.clear();
        let publications = std::mem::take(&mut member.publications);
        publications.iter().for_each(|p| self.forget_speaker(&p.publication));
        publications
    }

    /// Notes that somebody speaks or is silent. False when it was so before, or is not there.
    pub fn set_speaking(&mut self, publication: &str, speaking: bool) -> bool {
        let speakers = &mut self.speakers.speaking;
        if !speaking {
            return speakers.remove(publication);
        }
        self.publication(publication).is_some()
            && self.speakers.speaking.insert(publication.to_owned())
    }

    /// Notes who dominates. False when it was so before, or is not there.
    pub fn set_dominant(&mut self, publication: &str) -> bool {
        let is_new = self.speakers.dominant.as_deref() != Some(publication)
            && self.publication(publication).is_some();
        if is_new {
            self.speakers.dominant = Some(publication.to_owned());
        }
        is_new
    }

    /// Who speaks.
    pub fn speakers(&self) -> &Speakers {
        &self.speakers
    }

    fn forget_speaker(&mut self, publication: &str) {
        self.speakers.speaking.remove(publication);
        self.speakers.dominant.take_if(|dominant| dominant == publication);
    }

    /// Notes whether a publication is muted. False when it was so before, or is not there.
    pub fn set_muted(&mut self, peer: &str, publication: &str, muted: bool) -> bool {
        let publications = self.members.get_mut(peer).map(|member| &mut member.publications);
        let mut found = publications.into_iter().flatten();
        match found.find(|p| p.publication == publication && p.muted != muted) {
            Some(publication) => {
                publication.muted = muted;
                true
            }
            None => false,
        }
    }

    /// Notes the relay's name for a member's transport.
    pub fn set_relay_peer(&mut self, peer: &str, relay_peer: Option<String>) {
        if let Some(member) = self.members.get_mut(peer) {
            (member.relay_peer, member.reached) = (relay_peer, None);
        }
    }

    /// Notes how the relay reaches a transport. Returns whose it is, and whether the protocol is
    /// another than before, or the first.
    pub fn set_reached(&mut self, relay_peer: &str, reached: Reached) -> Option<(String, bool)> {
        let peer = self.of_relay_peer(relay_peer)?.to_owned();
        let before = self.members.get_mut(&peer)?.reached.replace(reached);
        Some((peer, before.map(|before| before.is_tcp) != Some(reached.is_tcp)))
    }

    /// Says whether a member may go directly, and the other of two may know its address.
    pub fn let_go_directly(&mut self, peer: &str, directly: Directly) {
        if let Some(member) = self.members.get_mut(peer) {
            member.directly = directly;
        }
    }

    /// Says from whom a native client takes what.
    pub fn set_allowed(&mut self, peer: &str, allowed: Arc<Allowed>) {
        if let Some(member) = self.members.get_mut(peer) {
            member.allowed = allowed;
        }
    }

    /// Notes that a native client takes a publication for a subscription, or nothing. Returns who is
    /// to hear of it, and what is wanted now: the other of two, where media goes directly.
    pub fn set_taken(
        &mut self,
        peer: &str,
        subscription: &str,
        publication: Option<&str>,
    ) -> Option<(&S, Vec<String>)> {
        let other = self.pair.offer(peer).map(|offer| offer.peer);
        let before = other.as_ref().map(|_| self.wanted_by(peer));
        let Member { taken, publications, .. } = self.members.get_mut(peer)?;
        // Its own it gets back from the relay.
        let is_own = |id: &&str| publications.iter().any(|own| own.publication == *id);
        match publication.filter(|id| !is_own(id)) {
            Some(publication) => taken.insert(subscription.into(), publication.into()),
            None => taken.remove(subscription),
        };
        let wanted = before.and_then(|before| {
            let wanted = self.wanted_by(peer);
            (wanted != before).then_some(wanted)
        })?;
        Some((self.sink(&other?)?, wanted))
    }

    fn wanted_by(&self, peer: &str) -> Vec<String> {
        let taken = self.members.get(peer).into_iter().flat_map(|member| member.taken.values());
        taken.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// As [`Pair::settle`], with the members that are there.
    pub fn settle(
        &mut self,
        now: Instant,
        fresh: impl FnMut() -> Option<IceCredentials>,
    ) -> Vec<(String, direct::Told)> {
        // It matters between two alone.
        let excludes_other = |peer: &str, allowed: &Allowed| {
            let mut two = self.members.keys().take(2);
            two.any(|other| other != peer && allowed.excludes(other))
        };
        let members = self.members.iter().map(|(peer, member)| {
            let reached = member.reached.filter(|at| !at.is_tcp);
            let reached = reached.filter(|_| !excludes_other(peer, &member.allowed));
            let way = reached.and_then(|at| match member.directly {
                Directly::No => None,
                Directly::Native => at.place.map(Way::Told),
                Directly::Browser => Some(Way::Signalled),
            });
            direct::Member { peer, way }
        });
        let mut all = self.pair.settle(now, members, fresh);
        for (_, told) in &mut all {
            if let direct::Told::Offered(offer) = told {
                offer.wanted = self.wanted_by(&offer.peer);
            }
        }
        all
    }

    /// As [`Pair::due`].
    pub fn direct_due(&mut self) -> Option<Instant> {
        self.pair.due()
    }

    /// What a member was told of the other of two; none while media does not go directly.
    pub fn direct(&self, peer: &str) -> Option<direct::Offer> {
        let offer = self.pair.offer(peer)?;
        Some(direct::Offer { wanted: self.wanted_by(&offer.peer), ..offer })
    }

    /// As [`Pair::signal`]: where the notices of the one go whom it is for.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`] for who signals too much.
    pub fn signal(&mut self, from: &str, number: u64, now: Instant) -> Result<Option<&S>, Fault> {
        let Some(to) = self.pair.signal(from, number) else { return Ok(None) };
        if let Some(member) = self.members.get_mut(from) {
            let (at_once, each) = (limits::SIGNALS, limits::SIGNAL_EACH);
            member.signals.take(now, at_once, each).map_err(|_| {
                Fault::too_many(format!(
                    "more than {at_once} signals to the other of two, and one every {} ms after \
                     them: media goes by the relay; try again later, and less often",
                    each.as_millis()
                ))
                .passing()
            })?;
        }
        Ok(self.members.get(to).map(|member| &member.sink))
    }

    /// The member whose transport has this name.
    pub fn of_relay_peer(&self, relay_peer: &str) -> Option<&str> {
        let mut members = self.members.iter();
        members.find(|(_, m)| m.relay_peer.as_deref() == Some(relay_peer)).map(|(peer, _)| &**peer)
    }

    /// All transports: member and the relay's name.
    pub fn relay_peers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().filter_map(|(peer, m)| Some((&**peer, m.relay_peer.as_deref()?)))
    }

    /// A publication and whose it is.
    pub fn publication(&self, id: &str) -> Option<(&str, &PublicationView)> {
        self.members.iter().find_map(|(peer, member)| {
            let publication = member.publications.iter().find(|p| p.publication == id)?;
            Some((&**peer, publication))
        })
    }

    /// All members but one, as others see them.
    pub fn others(&self, peer: &str) -> Vec<PeerView> {
        let others = self.members.iter().filter(|(other, _)| *other != peer);
        others.map(|(peer, member)| member.view(peer)).collect()
    }

    /// One member, as others see it.
    pub fn view(&self, peer: &str) -> Option<PeerView> {
        self.members.get(peer).map(|member| member.view(peer))
    }

    /// The sinks of all members but one.
    pub fn sinks_but(&self, peer: &str) -> impl Iterator<Item = &S> {
        self.members.iter().filter(move |(other, _)| *other != peer).map(|(_, m)| &m.sink)
    }

    /// The sinks of all members.
    pub fn sinks(&self) -> impl Iterator<Item = &S> {
        self.members.values().map(|member| &member.sink)
    }

    /// Sends a member's notices elsewhere.
    pub fn set_sink(&mut self, peer: &str, sink: S) {
        if let Some(member) = self.members.get_mut(peer) {
            member.sink = sink;
        }
    }

    /// The sink of one member.
    pub fn sink(&self, peer: &str) -> Option<&S> {
        self.members.get(peer).map(|member| &member.sink)
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl<S> Member<S> {
    fn view(&self, peer: &str) -> PeerView {
        PeerView {
            peer: peer.into(),
            name: self.name.clone(),
            publications: self.publications.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::{Kind, Source};

    fn camera(id: &str) -> PublicationView {
        PublicationView {
            publication: id.into(),
            kind: Kind::Video,
            source: Source::Camera,
            name: None,
            muted: false,
            codec: "VP8".into(),
        }
    }

    #[test]
    fn who_signals_too_much_is_refused_whatever_pair_it_is() {
        let mut roster = Roster::default();
        let reached = Reached { is_tcp: false, place: None };
        for (peer, transport) in [("a", "a.1"), ("b", "b.1")] {
            roster.join(peer, peer, peer, 2).unwrap();
            roster.set_relay_peer(peer, Some(transport.into()));
            roster.set_reached(transport, reached);
            roster.let_go_directly(peer, Directly::Browser);
        }
        let now = Instant::now();
        let begin = |roster: &mut Roster<&str>, now: Instant| {
            for directly in [Directly::No, Directly::Browser] {
                roster.let_go_directly("b", directly);
                roster.settle(now, || IceCredentials::fresh().ok());
            }
            roster.direct("a").unwrap().number
        };
        let mut number = begin(&mut roster, now);
        for _ in 0..limits::SIGNALS {
            assert_eq!(roster.signal("a", number, now), Ok(Some(&"b")));
        }
        for _ in 0..3 {
            assert!(roster.signal("a", number, now).is_err());
            number = begin(&mut roster, now);
        }
        assert_eq!(roster.signal("b", number, now), Ok(Some(&"a")), "what is his is counted apart");
        let later = now + limits::SIGNAL_EACH;
        assert!(roster.signal("a", number, later).is_ok());
        assert!(roster.signal("a", number, later).is_err());
    }

    #[test]
    fn members_come_publish_mute_and_go() {
        let mut roster = Roster::default();
        roster.join("p-1", "Alice", 1, 2).unwrap();
        assert!(roster.join("p-1", "Alice", 1, 2).is_err());
        roster.join("p-2", "Bob", 2, 2).unwrap();
        assert!(roster.join("p-3", "Eve", 3, 2).unwrap_err().reason.contains("full"));
        assert!(roster.publish("p-1", camera("pub-1")));
        assert!(!roster.publish("p-9", camera("pub-9")));
        assert_eq!(roster.publication("pub-1").unwrap().0, "p-1");
        assert_eq!(roster.others("p-2")[0].publications.len(), 1);
        assert!(roster.set_muted("p-1", "pub-1", true));
        assert!(!roster.set_muted("p-1", "pub-1", true), "nothing new");
        assert!(!roster.set_muted("p-2", "pub-1", false), "not Bob's");
        assert!(roster.set_speaking("pub-1", true) && !roster.set_speaking("pub-1", true));
        assert!(!roster.set_speaking("pub-9", true) && !roster.set_dominant("pub-9"));
        assert!(roster.set_dominant("pub-1") && !roster.set_dominant("pub-1"));
        assert_eq!(roster.speakers().dominant.as_deref(), Some("pub-1"));
        assert_eq!(roster.sinks_but("p-1").collect::<Vec<_>>(), [&2]);
        roster.set_relay_peer("p-1", Some("p-1.1".into()));
        assert_eq!(roster.of_relay_peer("p-1.1"), Some("p-1"));
        let udp = Reached { is_tcp: false, place: "192.0.2.1:5".parse().ok() };
        let tcp = Reached { is_tcp: true, place: None };
        assert_eq!(roster.set_reached("p-9.1", udp), None);
        for (reached, is_news) in [(udp, true), (udp, false), (tcp, true), (udp, true)] {
            assert_eq!(roster.set_reached("p-1.1", reached), Some(("p-1".into(), is_news)));
        }
        assert_eq!(roster.lose_media("p-1").len(), 1);
        assert_eq!(*roster.speakers(), Speakers::default());
        assert_eq!(roster.of_relay_peer("p-1.1"), None);
        assert!(!roster.unpublish("p-1", "pub-1"));
        assert_eq!(roster.leave("p-1").map(|p| p.len()), Some(0));
        assert_eq!(roster.leave("p-1"), None);
        assert_eq!(roster.len(), 1);
    }
}
