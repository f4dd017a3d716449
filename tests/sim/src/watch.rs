//! What must hold, looked at from outside: media flows, from the right source, and nothing is left over.

use crate::control::{Life, Slot};
use crate::network::Conditions;
use crate::peer::receiver::Receiver;
use crate::plan::FAIR_LOSS;
use crate::report::Stream;
use crate::stage::latest;
use crate::world::{Event, World, ntp};
use strait_core::limits::CONSENT;
use strait_core::statistics::HeldBack;
use strait_core::time::{Duration, Instant};

/// What was under way when a source was changed or held back may arrive for so long: as long as
/// repairs are asked for, and the slowest line.
const AFTERGLOW: Duration = Duration::from_secs(3);
/// Sender reports may put a frame off its capture time by so much.
const REPORT_OFFSET_SECONDS: f64 = 0.6;
/// A DTLS flight that was lost is sent again after up to so long.
const DTLS_PATIENCE: Duration = Duration::from_secs(9);

/// How good the lines between two people are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Bad,
    Fair,
    Good,
}

impl World {
    /// Looks at everyone and every stream.
    pub(crate) fn look(&mut self) {
        let mut faults = Vec::new();
        for member in 0..self.members.len() {
            faults.extend(self.look_at_connection(member));
        }
        for at in 0..self.slots.len() {
            if self.is_held_back(&self.slots[at]) {
                self.slots[at].changed_at = self.now;
            }
            let found = self.look_at_slot(at);
            if !found.is_empty() {
                // Once is enough: it may recover from here.
                self.slots[at].changed_at = self.now;
            }
            faults.extend(found);
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    /// From here to the end nothing changes, so nothing may be missing.
    pub(crate) fn mark(&mut self) {
        let highest = |slot: &Slot| Some((slot.id.0 as usize, self.receiver(slot)?.highest()?));
        self.marks = self.slots.iter().filter_map(highest).collect();
    }

    /// The cameras go off.
    pub(crate) fn curtain(&mut self) {
        self.look();
        let mut faults = Vec::new();
        for slot in &self.slots {
            faults.extend(self.look_back(slot));
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
        self.trace.event(self.now, "curtain");
        let someone_vanished = self.lives().any(|life| life.vanished) || self.waits_for_consent();
        self.everyone_leaves();
        let rest = if someone_vanished {
            CONSENT + Duration::from_secs(2)
        } else {
            Duration::from_secs(1)
        };
        self.plan_at(self.now + rest, Event::Finish);
    }

    /// Nobody is left, and nothing of them.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        let mut faults = Vec::new();
        for (member, who) in self.members.iter().enumerate() {
            if let Some(life) = &who.life {
                faults
                    .push(format!("the relay never said that peer {member} ({:?}) left", life.id));
            }
        }
        let left = self.relay.worker().statistics();
        let counts = [left.peers, left.publications, left.subscriptions];
        if counts != [0; 3] || left.cache_bytes != 0 {
            faults.push(format!("the worker still holds {left:?}"));
        }
        if self.relay.has_handshakes() {
            faults.push("handshakes are left over".into());
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    /// What everyone got.
    pub(crate) fn stream_summaries(&self) -> Vec<Stream> {
        let shown = self.slots.iter().filter_map(|slot| {
            let last = self.counts.get(&(slot.id.0 as usize)).copied();
            let counts = self.receiver(slot).map(|receiver| receiver.counts).or(last)?;
            let (viewer, of, kind) = (slot.viewer, slot.of, slot.kind);
            Some(Stream { name: format!("{viewer} gets {kind:?} of {of}"), counts })
        });
        shown.collect()
    }

    pub(crate) fn receiver(&self, slot: &Slot) -> Option<&Receiver> {
        let life = self.life_of(slot)?;
        life.peer.receivers.iter().find(|receiver| receiver.slot == slot.id.0 as usize)
    }

    /// Whether the relay gives less than is wanted, because of the loss that the viewer reported a moment ago.
    fn is_held_back(&self, slot: &Slot) -> bool {
        let told = self.life_of(slot).and_then(|l| self.relay.worker().peer_statistics(l.id));
        let mut subscriptions = told.into_iter().flat_map(|peer| peer.subscriptions);
        let told = subscriptions.find(|subscription| subscription.subscription == slot.id);
        told.is_some_and(|subscription| subscription.held_back == HeldBack::Lowered)
    }

    fn life_of(&self, slot: &Slot) -> Option<&Life> {
        let life = self.members.get(slot.viewer)?.life.as_ref()?;
        (life.id == slot.viewer_life).then_some(life)
    }

    /// Someone's former life may still be with the relay.
    fn waits_for_consent(&self) -> bool {
        self.relay.worker().statistics().peers as usize > self.lives().count()
    }

    fn look_at_connection(&mut self, member: usize) -> Option<String> {
        let life = self.members[member].life.as_ref()?;
        let connected = life.peer.is_connected() && life.reported_connected;
        if connected || life.vanished || life.leaving {
            return None;
        }
        let (grade, since) = self.grade(&[member]);
        let patience = if life.peer.spec.dtls { DTLS_PATIENCE } else { self.plan.check.connect };
        let since = latest([since, life.joined_at, life.disturbed_at]);
        let late = grade == Grade::Good && self.now.since(since) > patience;
        late.then(|| {
            let (peer, said) = (life.peer.is_connected(), life.reported_connected);
            format!(
                "peer {member} is not connected after {patience:?}: itself {peer}, relay {said}"
            )
        })
    }

    fn look_at_slot(&self, at: usize) -> Vec<String> {
        let slot = &self.slots[at];
        let Some(receiver) = self.receiver(slot).filter(|_| !slot.closed) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        let name = format!("peer {} gets {:?} of peer {}", slot.viewer, slot.kind, slot.of);
        let settled = self.now.since(slot.changed_at) > AFTERGLOW;
        let recent = receiver.advanced_at.is_some_and(|at| at > slot.changed_at + AFTERGLOW);
        let publication = self.publication(slot);
        let newest = receiver.newest.filter(|_| settled && recent);
        if let Some(newest) = newest {
            let held = slot.preferences.paused
                || publication.is_none_or(|(_, _, publication)| publication.muted);
            if held {
                faults.push(format!("{name}: held back, and yet {newest:?} came"));
            }
            if publication.is_some_and(|(_, _, p)| p.stream != newest.stream) {
                faults.push(format!("{name}: another stream is to be shown than {newest:?}"));
            }
            if publication.is_some_and(|(_, _, publication)| !publication.started) {
                faults.push(format!("{name}: the relay never said that it started"));
            }
        }
        let Some((since, grade)) = self.flows_since(slot) else { return faults };
        let check = &self.plan.check;
        let limit = if grade == Grade::Good { check.stuck_good } else { check.stuck_fair };
        let last = latest([since, receiver.advanced_at.unwrap_or_default()]);
        if self.now.since(last) > limit {
            let stands = self.now.since(last);
            faults.push(format!(
                "{name}: stuck for {stands:?} on {grade:?} lines, newest {:?}",
                receiver.newest
            ));
        }
        let settled = grade == Grade::Good && self.now.since(since) > AFTERGLOW;
        let expected = publication.and_then(|(life, _, publication)| {
            let source =
                life.peer.sources.iter().find(|source| source.stream == publication.stream)?;
            let active =
                |layer: &u8| source.layers.get(usize::from(*layer)).is_some_and(|l| l.active);
            let max = slot.preferences.layer_max.unwrap_or(7);
            // The highest that is wanted, or else the lowest there is.
            (0..=max.min(7)).rev().find(active).or_else(|| (max + 1..8).find(active))
        });
        if let (true, Some(expected), Some(newest)) = (settled, expected, receiver.newest)
            && newest.layer != expected
        {
            faults.push(format!("{name}: layer {} is shown, {expected} is due", newest.layer));
        }
        faults
    }

    /// What can only be said of a stretch without changes on good lines.
    fn look_back(&self, slot: &Slot) -> Vec<String> {
        let calm = |(since, grade): &(Instant, Grade)| {
            *grade == Grade::Good && self.now.since(*since) > AFTERGLOW
        };
        let Some(receiver) =
            self.receiver(slot).filter(|_| self.flows_since(slot).is_some_and(|f| calm(&f)))
        else {
            return Vec::new();
        };
        let name = format!("peer {} gets {:?} of peer {}", slot.viewer, slot.kind, slot.of);
        let mut faults = Vec::new();
        if let Some(mark) = self.marks.get(&(slot.id.0 as usize)) {
            let holes = receiver.holes_since(mark + 1);
            if holes > 0 {
                faults.push(format!(
                    "{name}: {holes} sequence numbers never came, and nothing was lost"
                ));
            }
        }
        let capture =
            self.publication(slot).zip(receiver.newest).and_then(|((life, _, p), newest)| {
                let source = life.peer.sources.iter().find(|source| source.stream == p.stream)?;
                source.captured_at(newest.layer, newest.timestamp, self.now)
            });
        let offset = capture
            .zip(receiver.newest_timestamp())
            .and_then(|(at, timestamp)| receiver.report_offset(timestamp, ntp(at)));
        match offset {
            Some(offset) if offset.abs() < REPORT_OFFSET_SECONDS => {}
            Some(offset) => faults.push(format!(
                "{name}: sender reports put the newest frame {offset:.3} s off its capture"
            )),
            None => faults.push(format!("{name}: no sender report came")),
        }
        faults
    }

    /// Since when the media of a slot has had no reason not to flow, and how good the lines are.
    fn flows_since(&self, slot: &Slot) -> Option<(Instant, Grade)> {
        let viewer = self.life_of(slot).filter(|life| is_there(life) && !slot.closed)?;
        let (publisher, member, publication) = self.publication(slot)?;
        let source =
            publisher.peer.sources.iter().find(|source| source.stream == publication.stream)?;
        let held = slot.preferences.paused || publication.muted || source.silent;
        if held || !is_there(publisher) {
            return None;
        }
        let (grade, weather) = self.grade(&[slot.viewer, member]);
        let since = latest([
            weather,
            slot.changed_at,
            viewer.disturbed_at,
            publisher.disturbed_at,
            viewer.peer.connected_at?,
            publisher.peer.connected_at?,
        ]);
        (grade != Grade::Bad).then_some((since, grade))
    }

    fn publication(&self, slot: &Slot) -> Option<(&Life, usize, &crate::control::Publication)> {
        let member = slot.shows?;
        let life = self.members.get(member)?.life.as_ref()?;
        let publication = life.publications.iter().find(|p| Some(p.id) == slot.source)?;
        Some((life, member, publication))
    }

    /// The worst of the lines of these people, and since when all of them have been as they are.
    fn grade(&self, members: &[usize]) -> (Grade, Instant) {
        let lines = members.iter().flat_map(|member| &self.lines[*member]);
        lines.fold((Grade::Good, Instant(0)), |(grade, since), line| {
            let own = Grade::of(&line.conditions(self.now));
            (grade.min(own), since.max(line.changed_at(self.now)))
        })
    }
}

impl Grade {
    fn of(conditions: &Conditions) -> Self {
        let loss = conditions.mean_loss();
        let slow = conditions.delay + conditions.jitter > Duration::from_millis(250);
        if conditions.bottleneck.is_some() || slow || loss > FAIR_LOSS {
            Self::Bad
        } else if loss > 0.0 || conditions.reorder > 0.0 || conditions.duplicate > 0.0 {
            Self::Fair
        } else {
            Self::Good
        }
    }
}

fn is_there(life: &Life) -> bool {
    life.reported_connected && !life.vanished && !life.leaving
}
