//! Who speaks in a scope: whose speech begins and ends, who dominates, and, where a scope forwards its loudest streams
//! alone, which those are.
//!
//! Each worker decides for what it sees: its own publications, and the mirrors of those of other workers, whose packets
//! bring their levels along. What it tells is about its own publications alone, so that of a spread scope everything is
//! told once, by the worker of the publisher.

use crate::audio::{Activity, Turn, Voice};
use crate::command::{CommandError, Event, Kind, PeerId, PublicationId, ScopeId};
use crate::limits::{AUDIO_STREAMS_MAX, TALKERS};
use crate::publication::Publication;
use crate::slab::Slab;
use crate::time::{Duration, Instant};
use crate::worker::Worker;
use std::collections::BTreeMap;
use strait_wire::ext::AudioLevel;

/// The dominant speaker is looked for this often: news of it comes no faster.
const DECISION: Duration = Duration::from_millis(300);
/// Who dominates and goes on speaking does so for at least this long.
const DOMINANCE: Duration = Duration::from_secs(1);
/// Slots of speech without which nobody dominates, and no loud stream is replaced: 400 ms, more than a "mm-hm".
const LEAST_SLOTS: u32 = 20;
/// Whose stream became one of the loudest, and who goes on speaking, stays so for at least this long.
const LOUDEST_HOLD: Duration = Duration::from_secs(2);

/// A publication's part in the sound of its scope.
#[derive(Debug, Default)]
pub(crate) struct Sound {
    pub(crate) voice: Voice,
    pub(crate) place: Place,
    /// Packets that were not forwarded because others were louder.
    pub(crate) held_back: u64,
}

/// Who gets an audio publication of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Everybody.
    #[default]
    Loudest,
    /// Those who are among the loudest themselves: they do not get their own, and have room for one more.
    Next,
    /// Nobody: others are louder.
    Held,
}

/// Who speaks in a scope. Publications by their slots.
#[derive(Debug, Default)]
pub(crate) struct Speakers {
    dominant: Option<u32>,
    /// Since when it dominates.
    dominant_since: Instant,
    decided_at: Instant,
    /// In which somebody speaks, as far as was seen.
    talkers: Vec<u32>,
    /// So many streams are forwarded; 0 is all.
    streams_max: usize,
    loudest: Vec<Member>,
    next: Option<Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    publication: u32,
    since: Instant,
}

/// Places that change, at most that of who enters, of who makes room, and of who was to be the next.
type Changes = [Option<(u32, Place)>; 3];

impl Speakers {
    /// Makes room for one more publication, so that none is needed on the path.
    fn expect_one(&mut self) {
        self.talkers.reserve_exact(TALKERS.saturating_sub(self.talkers.len()));
    }

    /// The publications have other slots now.
    pub(crate) fn renumber(&mut self, places: &BTreeMap<u32, u32>) {
        let place = |slot: u32| places.get(&slot).copied();
        let member = |m: Member| Some(Member { publication: place(m.publication)?, ..m });
        self.dominant = self.dominant.and_then(place);
        self.talkers = self.talkers.iter().filter_map(|slot| place(*slot)).collect();
        self.expect_one();
        self.loudest = self.loudest.iter().filter_map(|each| member(*each)).collect();
        self.loudest.reserve_exact(self.streams_max.saturating_sub(self.loudest.len()));
        self.next = self.next.and_then(member);
    }

    /// A publication ended or is muted.
    fn forget(&mut self, slot: u32) {
        self.talkers.retain(|talker| *talker != slot);
        self.loudest.retain(|member| member.publication != slot);
        self.next = self.next.filter(|next| next.publication != slot);
        self.dominant = self.dominant.filter(|dominant| *dominant != slot);
    }

    fn on_turn(&mut self, slot: u32, turn: Turn) {
        self.talkers.retain(|talker| *talker != slot);
        if turn == Turn::Started && self.talkers.len() < TALKERS {
            self.talkers.push(slot);
        }
    }

    /// Looks for somebody who speaks clearly more than who dominates. Silence keeps that as it is.
    fn decide(&mut self, now: Instant, publications: &Slab<Publication>) -> Option<u32> {
        if self.talkers.is_empty() || now.since(self.decided_at) < DECISION {
            return None;
        }
        self.decided_at = now;
        let voice = |slot: u32| publications.get(slot).map(|publication| &publication.sound.voice);
        let held = self.dominant.and_then(voice);
        let is_fresh = now.since(self.dominant_since) < DOMINANCE;
        if is_fresh && held.is_some_and(Voice::is_speaking) {
            return None;
        }
        let held = held.map(|voice| voice.activity(now)).unwrap_or_default();
        let others = self.talkers.iter().copied().filter(|talker| Some(*talker) != self.dominant);
        let activities = others.filter_map(|slot| Some((slot, voice(slot)?.activity(now))));
        let (slot, _) = activities
            .filter(|(_, activity)| dominates(*activity, held))
            .max_by_key(|(_, activity)| (activity.medium, activity.immediate, activity.long))?;
        (self.dominant, self.dominant_since) = (Some(slot), now);
        Some(slot)
    }

    /// Finds the place of a publication that has a packet to send.
    fn contend(
        &mut self,
        now: Instant,
        slot: u32,
        publications: &Slab<Publication>,
    ) -> Option<Changes> {
        let enters = Member { publication: slot, since: now };
        let is_next = self.next.is_some_and(|next| next.publication == slot);
        if self.loudest.len() < self.streams_max {
            self.next = self.next.filter(|_| !is_next);
            self.loudest.push(enters);
            return Some([Some((slot, Place::Loudest)), None, None]);
        }
        let mine = publications.get(slot)?.sound.voice.activity(now);
        if mine.immediate > 0 {
            let weight = |member: &Member| {
                let voice = publications.get(member.publication).map(|p| &p.sound.voice);
                voice.map(|voice| (!voice.is_silent(now), strength(voice.activity(now))))
            };
            let weakest = self.loudest.iter_mut().min_by_key(|member| weight(member));
            let weakest = weakest.filter(|member| yields(now, **member, mine, publications));
            if let Some(weakest) = weakest {
                let leaves = std::mem::replace(weakest, enters);
                let before = self.next.replace(leaves).filter(|_| !is_next);
                return Some([
                    Some((slot, Place::Loudest)),
                    Some((leaves.publication, Place::Next)),
                    before.map(|before| (before.publication, Place::Held)),
                ]);
            }
        }
        let before = match self.next {
            Some(_) if is_next => return None,
            Some(next) if !yields(now, next, mine, publications) => return None,
            before => before,
        };
        self.next = Some(enters);
        let before = before.map(|before| (before.publication, Place::Held));
        Some([Some((slot, Place::Next)), before, None])
    }
}

/// Whether one speaks clearly more than the other, now, in this word, and in this sentence: three comparisons that must
/// all say so (the relative speech activities of Volfin and Cohen, as ratios). One more on both sides, so that silence
/// compares too. The last one keeps two who talk over each other from taking turns.
fn dominates(one: Activity, other: Activity) -> bool {
    let more =
        |one: u32, other: u32, ratio: (u32, u32)| (one + 1) * ratio.1 > (other + 1) * ratio.0;
    one.long >= LEAST_SLOTS
        && more(one.immediate, other.immediate, (2, 1))
        && more(one.medium, other.medium, (3, 2))
        && more(one.long, other.long, (5, 4))
}

fn strength(activity: Activity) -> u32 {
    4 * activity.long + activity.immediate
}

/// Whether a member makes room for one with this activity: at once when it is silent, or after a while for somebody who
/// speaks half as much again.
fn yields(now: Instant, member: Member, mine: Activity, publications: &Slab<Publication>) -> bool {
    let Some(publication) = publications.get(member.publication) else { return true };
    let voice = &publication.sound.voice;
    if voice.is_silent(now) {
        return mine.immediate > 0;
    }
    now.since(member.since) >= LOUDEST_HOLD
        && mine.long >= LEAST_SLOTS
        && 2 * strength(mine) > 3 * strength(voice.activity(now))
}

/// Whether a peer with these publications is among the loudest of its scope, so that it has room for one more.
pub(crate) fn is_loud(of_peer: &[u32], publications: &Slab<Publication>) -> bool {
    let is_loudest = |p: &Publication| p.kind == Kind::Audio && p.sound.place == Place::Loudest;
    of_peer.iter().filter_map(|slot| publications.get(*slot)).any(is_loudest)
}

impl Worker {
    /// Takes note of how loud a packet of an audio publication is, tells what that changed, and says who gets it.
    pub(crate) fn listen(&mut self, now: Instant, slot: u32, level: Option<AudioLevel>) -> Place {
        let scope = self.scope_of(slot);
        let (Some(publication), Some(scope)) = (self.publications.get_mut(slot), scope) else {
            return Place::Held;
        };
        let turn = publication.sound.voice.hear(now, level);
        if let Some(turn) = turn {
            self.tell_turn(slot, scope, turn);
        }
        let Some(speakers) = self.speakers.get_mut(&scope) else { return Place::Loudest };
        let decided = speakers.decide(now, &self.publications);
        let place = |publications: &Slab<Publication>| {
            publications.get(slot).map_or(Place::Held, |publication| publication.sound.place)
        };
        let contends = speakers.streams_max > 0 && place(&self.publications) != Place::Loudest;
        let changes = if contends { speakers.contend(now, slot, &self.publications) } else { None };
        for (slot, place) in changes.into_iter().flatten().flatten() {
            self.set_place(slot, place);
        }
        if let Some(dominant) = decided {
            self.tell_dominant(dominant);
        }
        let place = place(&self.publications);
        if place == Place::Held
            && let Some(publication) = self.publications.get_mut(slot)
        {
            publication.sound.held_back += 1;
        }
        place
    }

    /// Notices that speech ended of a peer that sends nothing any more. When to look again.
    pub(crate) fn look_for_silence(&mut self, now: Instant, peer: u32) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for at in 0..self.peers.get(peer)?.publications.len() {
            let Some(&slot) = self.peers.get(peer)?.publications.get(at) else { continue };
            let Some(publication) = self.publications.get_mut(slot) else { continue };
            let voice = &mut publication.sound.voice;
            if !voice.is_speaking() {
                continue;
            }
            let turn = voice.look(now);
            next = [next, voice.ends_at()].into_iter().flatten().min();
            if let Some((turn, scope)) = turn.zip(self.scope_of(slot)) {
                self.tell_turn(slot, scope, turn);
            }
        }
        next
    }

    /// An audio publication begins: it has to find its place.
    pub(crate) fn expect_sound(&mut self, slot: u32) {
        let Some(scope) = self.scope_of(slot) else { return };
        let speakers = self.speakers.entry(scope).or_default();
        let Some(publication) = self.publications.get_mut(slot) else { return };
        if publication.kind == Kind::Audio {
            speakers.expect_one();
            let is_bounded = speakers.streams_max > 0;
            publication.sound.place = if is_bounded { Place::Held } else { Place::Loudest };
        }
    }

    /// A publication is muted: its speech is over.
    pub(crate) fn hush(&mut self, slot: u32) {
        let Some(scope) = self.scope_of(slot) else { return };
        let Some(publication) = self.publications.get_mut(slot) else { return };
        let turn = publication.sound.voice.hush();
        if let Some(turn) = turn {
            self.tell_turn(slot, scope, turn);
        }
        self.forget_sound(slot);
    }

    /// A publication is muted or ends: others may have its place.
    pub(crate) fn forget_sound(&mut self, slot: u32) {
        let Some(scope) = self.scope_of(slot) else { return };
        let Some(speakers) = self.speakers.get_mut(&scope) else { return };
        speakers.forget(slot);
        let is_bounded = speakers.streams_max > 0;
        if is_bounded {
            self.set_place(slot, Place::Held);
        }
    }

    /// Forwards the so many loudest audio streams of a scope alone; 0 is all.
    pub(crate) fn limit_audio(&mut self, scope: ScopeId, max: usize) -> Result<(), CommandError> {
        if !self.scopes.contains_key(&scope) {
            return Err(CommandError::NotFound("scope"));
        }
        if max > AUDIO_STREAMS_MAX {
            let what = "audio streams forwarded in a scope";
            return Err(CommandError::Limit { what, limit: AUDIO_STREAMS_MAX });
        }
        let speakers = self.speakers.entry(scope).or_default();
        if speakers.streams_max == max {
            return Ok(());
        }
        speakers.streams_max = max;
        (speakers.loudest, speakers.next) = (Vec::with_capacity(max), None);
        let place = if max == 0 { Place::Loudest } else { Place::Held };
        for slot in self.audio_of(scope) {
            self.set_place(slot, place);
        }
        Ok(())
    }

    /// The publication whose speaker dominates a scope, as this worker sees it.
    pub(crate) fn dominant(&self, scope: ScopeId) -> Option<PublicationId> {
        let slot = self.speakers.get(&scope)?.dominant?;
        self.publications.get(slot).map(|publication| publication.id)
    }

    /// Whose publication that is.
    pub(crate) fn dominant_publisher(&self, scope: ScopeId) -> Option<PeerId> {
        let publication = self.publications.get(self.speakers.get(&scope)?.dominant?)?;
        match &publication.origin {
            Some(origin) => Some(origin.publisher),
            None => self.peers.get(publication.peer).map(|peer| peer.id),
        }
    }

    /// The audio publications of a scope, those of other workers included.
    fn audio_of(&self, scope: ScopeId) -> Vec<u32> {
        let peers = self.scopes.get(&scope).into_iter().flatten();
        let own = peers.filter_map(|slot| self.peers.get(*slot)).flat_map(|p| &p.publications);
        let all = own.chain(&self.mirrors).copied();
        let is_audio =
            |slot: &u32| self.publications.get(*slot).is_some_and(|p| p.kind == Kind::Audio);
        all.filter(|slot| is_audio(slot) && self.scope_of(*slot) == Some(scope)).collect()
    }

    fn scope_of(&self, slot: u32) -> Option<ScopeId> {
        let publication = self.publications.get(slot)?;
        match &publication.origin {
            Some(origin) => Some(origin.scope),
            None => self.peers.get(publication.peer).map(|peer| peer.scope),
        }
    }

    fn tell_turn(&mut self, slot: u32, scope: ScopeId, turn: Turn) {
        if let Some(speakers) = self.speakers.get_mut(&scope) {
            speakers.on_turn(slot, turn);
        }
        let Some(publication) = self.publications.get(slot) else { return };
        if publication.origin.is_some() {
            return;
        }
        let (publication, peer, ends_at) =
            (publication.id, publication.peer, publication.sound.voice.ends_at());
        if let Some(at) = ends_at {
            self.arm(peer, at);
        }
        self.emit(match turn {
            Turn::Started => Event::SpeechStarted { publication },
            Turn::Ended => Event::SpeechEnded { publication },
        });
    }

    fn tell_dominant(&mut self, slot: u32) {
        let own = self.publications.get(slot).filter(|publication| publication.origin.is_none());
        if let Some(publication) = own.map(|publication| publication.id) {
            self.emit(Event::DominantSpeaker { publication });
        }
    }

    /// What the subscribers get of it after this follows right on what they got before.
    fn set_place(&mut self, slot: u32, place: Place) {
        let Some(publication) = self.publications.get_mut(slot) else { return };
        if std::mem::replace(&mut publication.sound.place, place) == place {
            return;
        }
        for subscription in &publication.subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                subscription.rewriter.close();
            }
        }
    }
}
